"""Commands that come in silently, do one thing, and leave: they are no members to be seen."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Final, Self

import click

from chat.client import board_view
from chat.client.client import Lost, Up
from chat.core.errors import ChatError, DialFailed, Text, TransportError
from chat.core.session import Here, Joined, Message, Rewound, Stored
from chat.core.text import visible
from chat.core.wire import Ask, Gap
from chat.i18n import _, later, localize_remote, translate
from chat.ndjson import as_object, dump, message_object
from chat.ui.linear import describe, describe_message, find
from chat.ui.lines import Output

if TYPE_CHECKING:
    from types import TracebackType

    from click._termui_impl import ProgressBar

    from chat.client.client import Client

_MOMENT: Final = 0.5  # seconds that work may take before a bar tells of it
_FRAME: Final = 0.1  # seconds between two states of the bar
_LOOK: Final = 0.02  # seconds between looks at what the host has told of what everybody shows
_LOOKS: Final = 100
_REST: Final = 55  # columns of a bar's line beside the bar: label, percent, time that is left, rate
_WAITS: Final = later("it waits in the outbox and goes out with your next chat join or chat send")
_NOTHING: Final = later("nothing was sent")


class Progress:
    """A bar with a rate on standard error, once the work has taken longer than a moment.

    There is none where standard error is no terminal that can move its cursor, nor where standard output is one: the
    lines that appear there say it, and a bar would stand among them.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: ProgressBar[str] | None = None
        self._began = self._shown = time.monotonic()
        self._wanted = sys.stderr.isatty() and not sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.render_finish()  # shows the cursor again, and leaves the bar on a line of its own

    def reached(self, done: int, of: int) -> None:
        """Tell how much has been done, of how much."""
        now = time.monotonic()
        if not self._wanted or now - self._began < _MOMENT or (now - self._shown < _FRAME and done < of):
            return
        self._shown = now
        if self._bar is None:
            width = min(max(os.get_terminal_size(sys.stderr.fileno()).columns - _REST, 5), 30)
            self._bar = click.progressbar(
                length=of, label=self._label, file=sys.stderr, width=width, item_show_func=lambda rate: rate
            )
            self._bar.start -= now - self._began
        rate = round(done / (now - self._began))
        self._bar.update(done - self._bar.pos, _("{rate} a second").format(rate=f"{rate:,}"))


async def send_text(client: Client, text: str, seconds: float) -> None:
    """Say one message and return when the host's disk has it, or raise DialFailed when it did not say so in time."""
    entry = None
    try:
        async with client:
            entry = await client.say(text)
            async with asyncio.timeout(seconds):
                while not any(
                    isinstance(event, Stored) and event.entry is entry for event in await client.next_events()
                ):
                    pass
            client.take()
    except TimeoutError:
        why = Text("the host did not say within {seconds} s that it has the message", seconds=f"{seconds:g}")
        raise DialFailed("{why}; {then}", why=why, then=Text(_WAITS)) from None
    except TransportError as error:
        raise DialFailed("{why}; {then}", why=error, then=Text(_WAITS if entry else _NOTHING)) from None
    except asyncio.CancelledError:
        click.echo(f"chat: {_('interrupted')}; {_(_WAITS) if entry else _(_NOTHING)}", err=True)
        raise


async def print_log(client: Client, *, follow: bool, as_json: bool) -> None:
    """Print the room's messages up to now, or for ever with ``follow``."""
    out = Output()
    async with client:
        begin, end, lost = client.session.next_seq, 0, False
        with Progress(_("reading")) as progress:
            while True:
                shown: list[str] = []
                events = await client.next_events()
                reached = client.session.next_seq  # by these events; while they are written out more may come
                for event in events:
                    lost = lost or isinstance(event, Lost)
                    match event:
                        case Joined():
                            end = end or event.next_seq
                        case Message() if follow or event.seq < end:
                            shown += [dump(message_object(event))] if as_json else describe_message(event)
                        case Lost(why) if not follow:
                            told = _("the log broke off at number {number}: {why}")
                            raise DialFailed(told.format(number=client.session.next_seq, why=translate(why)))
                        case Up() if not lost:
                            continue  # the first time it is no news
                        case Gap() | Rewound() | Lost() | Up() if as_json:
                            made = as_object(event, client)
                            shown += [dump(made)] if made else []
                        case Gap() | Rewound():
                            shown += describe(event)
                        case Lost() | Up():
                            for line in describe(event):
                                click.echo(f"chat: {line.removeprefix('* ')}", err=True)
                await out.write(shown)
                if end and not follow:
                    progress.reached(reached - begin, end - begin)
                    if reached >= end:
                        return


async def print_who(client: Client, *, as_json: bool) -> None:
    """Print who is in the room now, and what they show. ``client`` looks at that."""
    async with client:
        while not any(isinstance(event, Here) for event in await client.next_events()):
            pass
        for _look in range(_LOOKS):  # what they show comes when the host has looked at its board, and is no event
            if len(client.session.states or {}) >= len(client.session.here):
                break
            await asyncio.sleep(_LOOK)
        people = client.people()
    for who, state in sorted(people.items(), key=lambda item: item[0][1].casefold()):
        click.echo(board_view.as_object(who, state) if as_json else board_view.as_line(who, state))


async def print_invite(client: Client, *, uses: int, seconds: int) -> None:
    """Have the host make an invite, and print it."""
    async with client:
        answer = await client.ask(Ask(what="invite", uses=uses, seconds=seconds))
    if answer.error:
        raise ChatError(visible(localize_remote(answer.error), lines=False))
    click.echo(visible(answer.text, lines=False))


async def print_search(client: Client, query: str, *, limit: int, before: int, as_json: bool) -> None:
    """Print what a search finds, the newest last. Raises ChatError when that is nothing."""
    async with client:
        end = client.session.next_seq
        with Progress(_("reading what was found")) as progress:
            found, answer = await find(client, query, limit=limit, before=before, told=progress.reached)
    shown: list[str] = []
    for message in found:
        lines = [dump(message_object(message))] if as_json else describe_message(message)
        shown += lines if as_json else [f"{message.seq}  {line}" for line in lines]
    await Output().write(shown)
    for seq in sorted({seq for seq, _text_at in answer.found} - {message.seq for message in found}):
        click.echo(f"chat: {_('number {number} was found but cannot be had any more').format(number=seq)}", err=True)
    if answer.indexed < end:
        told = _("searched up to number {number} of {end}; the index is being built")
        click.echo(f"chat: {told.format(number=answer.indexed - 1, end=end - 1)}", err=True)
    if answer.more:
        told = _("there are older ones; add --before {number}")
        click.echo(f"chat: {told.format(number=answer.found[-1][0])}", err=True)
    if not answer.found:
        raise ChatError(_("nothing was found"))
