"""``chat send``, ``chat log`` and ``chat search``: they do one thing, and never appear as members."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click
from click import option

from chat.cli import completion, options
from chat.cli.help import command
from chat.cli.home import Home, run
from chat.core.errors import ChatError, DialFailed, Text, TransportError, WrongValue
from chat.i18n import _, later

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.outgoing import OutboxEntry
    from chat.core.session import Rejected, Stored

_WAITS: Final = later("it stays in the outbox and is sent with your next chat join or chat send")
_NOTHING: Final = later("nothing was sent")


@command()
@click.argument("target", shell_complete=completion.rooms)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@options.transport
@options.nick
@option(
    "--wait",
    type=click.IntRange(0, 86_400),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the host has stored the message.",
)
@options.lang
@options.data
def send(target: str, words: tuple[str, ...], transport: str, nick: str, wait: int, data: Path | None) -> None:
    """Send TEXT to the room TARGET.

    Returns once the message is on the host's disk; only then is the exit code 0. Without TEXT, standard
    input is sent as one message. Use "." for the room open on this machine.
    """
    from chat.core.wire import MAX_TEXT

    text = " ".join(words) if words else _whole_input()
    if not text:
        raise WrongValue("there is nothing to send; give the text as arguments or on standard input")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT:
        raise WrongValue("the text is longer than a message may be ({limit} bytes); send it in parts", limit=MAX_TEXT)
    client = Home(data).client(target, transport, nick=nick, speaks=True, silent=True)
    run(send_text(client, text, wait))


def _whole_input() -> str:
    """Return standard input as one message, without its last newline. Raises WrongValue if it cannot be one."""
    from chat.core.wire import MAX_TEXT

    data = sys.stdin.buffer.read(MAX_TEXT + 2)
    if len(data) > MAX_TEXT + 1:
        raise WrongValue("standard input is longer than one message ({limit} bytes); send it in parts", limit=MAX_TEXT)
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise WrongValue("standard input is not UTF-8 text: byte {number} is wrong", number=error.start) from None


async def send_text(client: Client, text: str, seconds: float) -> None:
    """Say one message and return when the host's disk has it.

    Raises DialFailed when the host did not say so in time, ChatError when it rejected this message, or an earlier
    one that was still in the outbox.
    """
    import asyncio

    from chat.core.session import Rejected, Stored
    from chat.ui.describe import describe

    entry: OutboxEntry | None = None
    outcome: Stored | Rejected | None = None
    others = 0  # earlier messages that were rejected
    try:
        async with client:
            entry = await client.say(text)
            async with asyncio.timeout(seconds):
                while outcome is None:
                    for event in await client.next_events():
                        if isinstance(event, Stored | Rejected) and event.entry is entry:
                            outcome = event
                        elif isinstance(event, Rejected):  # the outbox forgets it, and nobody else reports it
                            others += 1
                            for line in describe(event):
                                click.echo(f"chat: {line}", err=True)
    except TimeoutError:
        why = Text("the host did not confirm the message within {seconds} s", seconds=f"{seconds:g}")
        raise DialFailed("{why}; {then}", why=why, then=Text(_WAITS)) from None
    except TransportError as error:
        raise DialFailed("{why}; {then}", why=error, then=Text(_WAITS if entry else _NOTHING)) from None
    except asyncio.CancelledError:
        click.echo(f"chat: {_('interrupted')}; {_(_WAITS) if entry else _(_NOTHING)}", err=True)
        raise
    if isinstance(outcome, Rejected):
        raise ChatError("the host rejected the message: {why}", why=outcome.why)
    if others:
        raise ChatError("your message is stored, but the host rejected earlier messages from your outbox")


@command()
@options.target
@options.transport
@option("-n", "--history", type=options.MESSAGES, metavar="N", help="Only the last N messages.")
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
    if since and history is not None:
        raise WrongValue("-n and --since cannot be combined; give one")
    first = since or (1 if history is None else 0)
    client = Home(data).client(target, transport, speaks=False, silent=True, history=history or 0, since=first)
    run(print_log(client, follow=follow, as_json=json))


async def print_log(client: Client, *, follow: bool, as_json: bool) -> None:
    """Print the room's messages until now, or forever with ``follow``."""
    from chat.cli.progress import Progress
    from chat.client.events import Lost, Up
    from chat.client.json_events import as_object
    from chat.core.session import Joined, Message, Rewound
    from chat.core.wire import Gap
    from chat.local.streams import Output
    from chat.ndjson import dump, message_object
    from chat.ui.describe import describe, describe_message
    from chat.ui.entry import MessageEntry

    out = Output()
    async with client:
        begin, end, lost = client.session.next_seq, 0, False
        with Progress(_("reading")) as progress:
            while True:
                shown: list[str] = []
                events = await client.next_events()
                reached = client.session.next_seq  # by these events: more may come while they are written
                for event in events:
                    lost = lost or isinstance(event, Lost)
                    match event:
                        case Joined():
                            end = end or event.next_seq
                        case Message() if follow or event.seq < end:
                            shown += (
                                [dump(message_object(event))] if as_json else describe_message(MessageEntry.of(event))
                            )
                        case Lost(why) if not follow:
                            number = client.session.next_seq
                            raise DialFailed("the log ends early, at number {number}: {why}", number=number, why=why)
                        case Up() if not lost:
                            continue  # the first connection is no news
                        case Gap() | Rewound() | Lost() | Up() if as_json:
                            made = as_object(event, client)
                            shown += [dump(made)] if made else []
                        case Gap() | Rewound():
                            shown += [f"* {line}" for line in describe(event)]
                        case Lost() | Up():
                            for line in describe(event):
                                click.echo(f"chat: {line}", err=True)
                await out.write(shown)
                if end and not follow:
                    progress.reached(reached - begin, end - begin)
                    if reached >= end:
                        return


@command()
@click.argument("target")
@click.argument("words", metavar="WORDS...", nargs=-1, required=True)
@options.transport
@option(
    "-n",
    "--limit",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    metavar="N",
    help="The newest N messages.",
)
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

    from chat.cli.progress import Progress
    from chat.client.queries import find
    from chat.local.streams import Output
    from chat.ndjson import dump, message_object
    from chat.ui.describe import describe_message
    from chat.ui.entry import MessageEntry

    async with client:
        end = client.session.next_seq
        taking = asyncio.create_task(_drop_events(client))
        try:
            with Progress(_("reading what was found")) as progress:
                found, answer = await find(client, query, limit=limit, before=before, told=progress.reached)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
    shown: list[str] = []
    for message in found:
        lines = [dump(message_object(message))] if as_json else describe_message(MessageEntry.of(message))
        shown += lines if as_json else [f"{message.seq}  {line}" for line in lines]
    await Output().write(shown)
    for seq in sorted({seq for seq, _text_at in answer.found} - {message.seq for message in found}):
        click.echo(f"chat: {_('number {number} matches, but the message is gone').format(number=seq)}", err=True)
    if answer.indexed < end:
        note = _("searched up to number {number} of {end}; the index is still being built")
        click.echo(f"chat: {note.format(number=answer.indexed - 1, end=end - 1)}", err=True)
    if answer.more and answer.found:
        note = _("there are older matches; add --before {number}")
        click.echo(f"chat: {note.format(number=answer.found[-1][0])}", err=True)
    if not answer.found:
        raise ChatError("nothing was found")


async def _drop_events(client: Client) -> None:
    """Take the events of a busy room: if nobody does, the client stops reading, and the answers stay unread."""
    while await client.next_events():
        pass
