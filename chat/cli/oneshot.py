"""Commands that do one thing and never appear as members: send, log, search, who, rooms and invite."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
from click import option

from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home, print_table, run
from chat.core.errors import ChatError, DialFailed, NoSuchRoom, Text, TransportError, WrongValue
from chat.i18n import _, later, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from click._termui_impl import ProgressBar

    from chat.client.client import Client
    from chat.core.events import Message, Rejected, Stored
    from chat.core.outgoing import OutboxEntry
    from chat.core.status import Status, Who

_WAITS: Final = later("it stays in the outbox and is sent with your next chat join or chat send")
_NOTHING: Final = later("nothing was sent")
_LOOK: Final = 0.02  # seconds between checks for statuses from the host
_LOOKS: Final = 100
# The progress bar:
_MOMENT: Final = 0.5  # seconds before it appears
_FRAME: Final = 0.1  # seconds between two updates
_REST: Final = 55  # columns of its line beside the bar: label, percent, remaining time, rate


@command()
@click.argument("target", shell_complete=options.complete_room)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@options.transport
@options.nick
@options.count(
    "--wait",
    type=click.IntRange(0, 86_400),
    default=10,
    metavar="SECONDS",
    help="How long to wait until the host has stored the message.",
)
@options.lang
@options.data
def send(target: str, words: tuple[str, ...], transport: str, nick: str, wait: int, data: Path | None) -> None:
    """Send TEXT to the room TARGET.

    Returns once the message is on the host's disk; only then is the exit code 0. Without TEXT, or with "-",
    standard input is sent as one message. Use "." for the room open on this machine.
    """
    from chat.core.wire import MAX_TEXT

    text = " ".join(words) if words not in {(), ("-",)} else _whole_input()
    if not text:
        raise WrongValue("there is nothing to send; give the text as arguments or on standard input")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT:
        raise WrongValue("the text is longer than a message may be ({limit} bytes); send it in parts", limit=MAX_TEXT)
    client = Home(data).client(target, transport, nick=nick, speaks=True, silent=True)
    run(send_text(client, text, wait))


def _whole_input() -> str:
    """Return standard input as one message, without its last newline. Raises WrongValue if it cannot be one."""
    from chat.core.wire import MAX_TEXT
    from chat.local.descriptors import BOM

    data = sys.stdin.buffer.read(MAX_TEXT + 2)
    if len(data) > MAX_TEXT + 1:
        raise WrongValue("standard input is longer than one message ({limit} bytes); send it in parts", limit=MAX_TEXT)
    try:
        return data.removeprefix(BOM).decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise WrongValue("standard input is not UTF-8 text: byte {number} is wrong", number=error.start) from None


def _note(line: str) -> None:
    click.echo(f"chat: {line}", err=True)


async def send_text(client: Client, text: str, seconds: float) -> None:
    """Say one message and return when the host's disk has it.

    Raises DialFailed when the host did not say so in time, ChatError when it rejected this message, or an earlier
    one that was still in the outbox.
    """
    import asyncio

    from chat.core.events import LocalNotice, Rejected, Stored
    from chat.ui.describe import describe

    entry: OutboxEntry | None = None
    outcome: Stored | Rejected | None = None
    others = 0  # earlier messages that were rejected
    try:
        async with client:
            entry = await client.say(text, waits=False)
            async with asyncio.timeout(seconds):
                while outcome is None:
                    for event in await client.next_events():
                        if isinstance(event, Stored | Rejected) and event.entry is entry:
                            outcome = event
                        elif isinstance(event, Rejected | LocalNotice):  # nobody else reports it
                            others += isinstance(event, Rejected)
                            for line in describe(event):
                                _note(line)
    except TimeoutError:
        why = Text("the host did not confirm the message within {seconds} s", seconds=f"{seconds:g}")
        raise DialFailed("{why} ({then})", why=why, then=Text(_WAITS)) from None
    except TransportError as error:
        raise DialFailed("{why} ({then})", why=error, then=Text(_WAITS if entry else _NOTHING)) from None
    except asyncio.CancelledError:
        _note(f"{_('interrupted')}; {_(_WAITS) if entry else _(_NOTHING)}")
        raise
    if isinstance(outcome, Rejected):
        raise ChatError("the host rejected the message: {why}", why=outcome.why)
    if others:
        raise ChatError("your message is stored, but the host rejected earlier messages from your outbox")


@command()
@options.target
@options.transport
@option(
    "-n",
    "--history",
    type=options.MESSAGES,
    metavar="N",
    help="Only the last N messages; edits and reactions come on top.",
)
@option("--since", type=options.NUMBER, metavar="SEQ", help="Start at this message number.")
@option("-f", "--follow", is_flag=True, help="Keep printing new messages.")
@options.json
@options.lang
@options.data
def log(
    target: str, transport: str, history: int | None, since: int | None, follow: bool, json: bool, data: Path | None
) -> None:
    """Print the messages of the room TARGET.

    All of them, unless -n or --since asks for less. If the output is a file or a pipe and it takes a
    while, standard error shows a progress bar.
    """
    from chat.local.streams import while_read

    if since and history is not None:
        raise WrongValue("-n and --since cannot be combined; give one")
    first = since or (1 if history is None else 0)
    client = Home(data).client(target, transport, speaks=False, silent=True, history=history or 0, since=first)
    run(while_read(print_log(client, follow=follow, as_json=json)))


async def print_log(client: Client, *, follow: bool, as_json: bool) -> None:
    """Print the room's messages until now, or forever with ``follow``."""
    from chat.client.events import Lost, Up, as_object
    from chat.core.bodies import Gap
    from chat.core.events import Joined, Message, Rewound
    from chat.local.streams import Output
    from chat.ndjson import dump
    from chat.ui.describe import describe

    out = Output()
    async with client:
        begin, end, lost = client.session.next_seq, 0, False
        with progress(_("reading")) as report:
            while True:
                shown: list[str] = []
                events = await (client.next_events() if follow else client.soon())
                reached = client.session.next_seq  # by these events: more may come while they are written
                for event in events:
                    lost = lost or isinstance(event, Lost)
                    match event:
                        case Joined():
                            end = end or event.next_seq
                        case Message() if follow or event.seq < end:
                            shown += _lines(event, as_json=as_json)
                        case Lost(why) if not follow:
                            number = client.session.next_seq
                            raise DialFailed("the log ends early, at number {number}: {why}", number=number, why=why)
                        case Up() if not lost:
                            continue  # the first connection is no news
                        case Gap() | Rewound() | Lost() | Up() if as_json and (made := as_object(event, client)):
                            shown.append(dump(made))
                        case Gap() | Rewound():
                            shown += [f"* {line}" for line in describe(event)]
                        case Lost() | Up():
                            for line in describe(event):
                                _note(line)
                await out.write(shown)
                if end and not follow:
                    report(reached - begin, end - begin)
                    if reached >= end:
                        return


def _lines(message: Message, *, as_json: bool) -> list[str]:
    from chat.ndjson import dump, message_object
    from chat.ui.describe import describe_message
    from chat.ui.entry import MessageEntry

    return [dump(message_object(message))] if as_json else describe_message(MessageEntry.of(message))


@command()
@click.argument("target")
@click.argument("words", metavar="WORDS...", nargs=-1, required=True)
@options.transport
@options.count("-n", "--limit", type=click.IntRange(1, 100), default=20, help="The newest N messages.")
@option("--before", type=options.NUMBER, metavar="SEQ", help="Only messages before this number.")
@options.json
@options.lang
@options.data
def search(
    target: str, words: tuple[str, ...], transport: str, limit: int, before: int | None, json: bool, data: Path | None
) -> None:
    """Find messages in the room TARGET that contain all WORDS.

    from:NICK selects the author, '"two words"' is a phrase, and 'cats -dogs' leaves out messages with
    dogs. The newest comes last. Exit code 1 if nothing was found.
    """
    client = Home(data).client(target, transport, speaks=False, silent=True)
    run(print_search(client, " ".join(words), limit=limit, before=before or 0, as_json=json))


async def print_search(client: Client, query: str, *, limit: int, before: int, as_json: bool) -> None:
    """Print what a search finds, the newest last. Raises ChatError if it finds nothing."""
    import asyncio

    from chat.client.queries import find
    from chat.local.streams import Output

    async with client:
        end = client.session.next_seq
        taking = asyncio.create_task(_drop_events(client))
        try:
            with progress(_("reading what was found")) as report:
                found, answer = await find(client, query, limit=limit, before=before, told=report)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
    shown = [
        line if as_json else f"{message.seq}  {line}" for message in found for line in _lines(message, as_json=as_json)
    ]
    await Output().write(shown)
    for seq in sorted({seq for seq, _text_at in answer.found} - {message.seq for message in found}):
        _note(_("number {number} matches, but the message is gone").format(number=seq))
    if answer.indexed < end:
        note = _("searched up to number {number} of {end}; the index is still being built")
        _note(note.format(number=answer.indexed - 1, end=end - 1))
    if answer.more and answer.found:
        _note(_("there are older matches; add --before {number}").format(number=answer.found[-1][0]))
    if not answer.found:
        raise ChatError("nothing was found; try other words, or fewer")


async def _drop_events(client: Client) -> None:
    """Take the events of a busy room: if nobody does, the client stops reading, and the answers stay unread."""
    while await client.next_events():
        pass


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with a rate on standard error, once the work takes longer than a moment.

    Only if standard error is a terminal that can move its cursor, and standard output is not one: there the output
    itself shows progress, and a bar would get between its lines. Yields a function to report how much is done, of
    how much.
    """
    began = shown = time.monotonic()
    wanted = sys.stderr.isatty() and not sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    bar: ProgressBar[str] | None = None

    def report(done: int, of: int) -> None:
        nonlocal bar, shown
        now = time.monotonic()
        if not wanted or now - began < _MOMENT or (now - shown < _FRAME and done < of):
            return
        shown = now
        if bar is None:
            width = min(max(os.get_terminal_size(sys.stderr.fileno()).columns - _REST, 5), 30)
            bar = click.progressbar(
                length=of, label=label, file=sys.stderr, width=width, item_show_func=lambda rate: rate
            )
            bar.start -= now - began
        bar.update(done - bar.pos, _("{rate} a second").format(rate=f"{round(done / (now - began)):,}"))

    try:
        yield report
    finally:
        if bar is not None:
            bar.render_finish()  # show the cursor again, and end the bar's line


@command()
@options.json
@options.lang
def rooms(json: bool) -> None:
    """List the rooms open on this machine, with their transports, members and age."""
    from chat.client.board_view import statuses
    from chat.local.rooms import records
    from chat.ndjson import dump

    found, rows = records(), []
    for record in found:
        minutes = max(0, int(time.time() - record.started / 1000)) // 60
        shown = None if record.owner else statuses(record.room)  # a board is its own user's alone
        members = None if shown is None else len(shown)
        if json:
            told = {"room": record.room, "addresses": record.addresses, "members": members}
            told |= {"owner": record.owner} if record.owner else {}
            click.echo(dump({**told, "pid": record.pid, "minutes": minutes}))
        else:
            hours = _("open for {hours} h {minutes} min") if minutes >= 60 else _("open for {minutes} min")
            age = hours.format(hours=minutes // 60, minutes=minutes % 60)
            wires = " ".join(address.partition(":")[0] for address in record.addresses)
            here = "" if members is None else plural("1 member", "{count} members", members).format(count=members)
            rows.append((record.name, wires, here, age))
    print_table(rows)
    if not found:
        raise NoSuchRoom("none-open")


@command()
@options.target
@options.transport
@option("--fast", is_flag=True, help="Print only nicknames, on one line, for prompts and status lines.")
@options.json
@options.lang
@options.data
def who(target: str, transport: str, fast: bool, json: bool, data: Path | None) -> None:
    """List who is in the room TARGET.

    For your own room on this machine this reads its presence board: no connection is made, and nobody notices.
    If it is open to other users, this asks its host, which knows their login names.
    """
    from chat.client.board_view import as_names, room_of, statuses

    room = "" if transport else room_of(target, shared=fast)
    seen = statuses(room) if room else None
    if fast and not room:
        raise WrongValue(
            "--fast reads the presence board, which only your own rooms on this machine have; leave it out"
        )
    if fast and seen is None:
        raise ChatError("the presence board is missing; its host will create it again: try again in a few seconds")
    if seen is None:
        client = Home(data).client(target, transport, speaks=False, silent=True, looks=True)
        run(print_who(client, as_json=json))
    elif fast:
        click.echo(as_names(seen))
    else:
        _print_people(seen.items(), {}, as_json=json)


async def print_who(client: Client, *, as_json: bool) -> None:
    """Print the members and their statuses, which ``client`` has asked for."""
    import asyncio

    from chat.core.events import Here

    async with client:
        while not any(isinstance(event, Here) for event in await client.soon()):
            pass
        for _look in range(_LOOKS):  # the host sends statuses after reading its board; they are no event
            if len(client.session.states or {}) >= len(client.session.here):
                break
            await asyncio.sleep(_LOOK)
        people = client.people()
    people_here = sorted(people.items(), key=lambda item: item[0][1].casefold())
    _print_people(people_here, client.session.users, as_json=as_json)
    if client.session.others and not as_json:
        click.echo(_("and {count} more").format(count=client.session.others))


def _print_people(people: Iterable[tuple[Who, Status]], users: Mapping[Who, str], *, as_json: bool) -> None:
    from chat.ndjson import dump, person_object
    from chat.ui.people import as_line

    people = list(people)
    if not people and not as_json:
        _note(_("nobody is in the room"))
    for who, status in people:
        user = users.get(who, "")
        click.echo(dump(person_object(who, status, user)) if as_json else as_line(who, status, user))
