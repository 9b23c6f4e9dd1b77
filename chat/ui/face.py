"""What the controller needs of a face and of its rooms, and the main loop of a face without a screen."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar

import click

from chat.core.session import LinkState
from chat.i18n import plural, translate
from chat.ui.people import People, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.bodies import Answer
    from chat.core.errors import ChatError
    from chat.core.outgoing import OutboxEntry
    from chat.local.keys import Key
    from chat.local.streams import Output
    from chat.ui.entry import MessageEntry
    from chat.ui.timeline import Timeline

_WAITS_SILENTLY: Final = 3.0  # seconds for which the end waits without a word for a host that is away

Work: TypeAlias = "Coroutine[Any, Any, object] | None"  # what is left to wait for


class Hosted(Protocol):
    """The host of a room, to the window that started it: ``chat.host.process.HostProcess``."""

    @property
    def listening(self) -> Sequence[str]: ...

    on_end: Callable[[ChatError], object] | None

    @property
    def is_running(self) -> bool: ...

    def keep(self) -> None: ...

    async def reopen(self) -> None: ...


class Room:
    """A room that is open in a face. ``partner``: the other's nickname, in a direct room."""

    timeline: Timeline

    def __init__(self, client: Client, partner: str = "") -> None:
        self.client: Final = client
        self.partner = partner
        self.known: Final = People(client.session)

    @property
    def name(self) -> str:
        """What the room is called here: ``#lobby``, ``@bob``."""
        return f"@{self.partner}" if self.partner else f"#{self.client.session.room}"

    def ignore(self, key: bytes) -> None:
        self.timeline.ignore(key)

    def unignore(self, entries: set[str]) -> None:
        """Stop ignoring these keys, which are written as the settings write them."""
        for key in [key for key in self.timeline.ignored if not entries.isdisjoint(names_of(key))]:
            self.timeline.unignore(key)


R = TypeVar("R", bound=Room)


class Face(Generic[R]):
    """What the controller needs of a face, and what it tells it."""

    kind = ""  # SCREEN or LINES, of the table of commands
    message_id = ""  # the caller's own name for what is sent next
    keys: Sequence[Key] = ()
    hosted: Hosted | None = None  # the host of the first room, if this window started it
    joins_first = False  # whether to go to a room only once it has let us in
    next_start = frozenset({"language"})  # the settings that count from the next start on

    @property
    def own(self) -> object:
        """What has the commands that this face does in a way of its own, as methods ``do_NAME``."""
        return self

    @property
    def columns(self) -> int:
        """How many columns a line of ours has."""
        return shutil.get_terminal_size((1000, 24)).columns - len("* ")

    def make_room(self, client: Client, partner: str = "") -> R:
        raise NotImplementedError

    async def follow(self, room: R) -> None:
        """Show what happens in a room, until its client ends."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background until the face ends."""
        raise NotImplementedError

    def show(self, *lines: str, room: R | None = None) -> None:
        """Show lines of our own in a room, else in the current one."""

    def hint(self, text: str) -> None:
        """Show a line of our own that is of no use later."""
        self.show(text)

    def show_list(self, lines: Sequence[str]) -> None:
        """Show lines that may be more than fit on a screen."""
        self.show(*lines)

    def answer(self, answer: Answer, room: R) -> None:
        """Show a host's answer to a question from a room."""
        self.show(translate(answer), room=room)

    def hand_out(self, invite: str, about: Sequence[str], *, unbroken: bool) -> None:
        """Help the user to send an invite to somebody. ``unbroken``: also show it, with lines about it, all in one."""

    def help(self) -> Sequence[str]:
        """Return everything that can be typed."""
        raise NotImplementedError

    def label(self, room: R) -> str:
        """Return a room's name for a list of rooms."""
        return room.name

    def chosen(self, command: str) -> MessageEntry:
        """Return the message that a command is about. Raises ChatError."""
        raise NotImplementedError

    def begin(self, command: str, item: MessageEntry) -> Work:
        """Prepare for the text that a command has not got yet."""

    def sending(self, room: R) -> None:
        """A message is about to be sent."""

    def sent(self, room: R, entry: OutboxEntry) -> None:
        """A message is in the outbox."""

    def unsent(self, room: R, typed: str, error: ChatError) -> None:
        """A message could not be sent."""
        raise error

    def greet(self, room: R, line: str) -> None:
        """Show a line before anything that happens in a room."""
        self.show(line, room=room)

    def left(self, room: R) -> None:
        """The user goes to another room."""

    def entered(self, room: R) -> None:
        """The user has come to a room."""

    def closed(self, room: R) -> None:
        """A room is no longer open."""

    def changed(self, name: str) -> None:
        """A setting has another value."""

    def quit(self) -> None:
        raise NotImplementedError


async def converse(
    client: Client, out: Output, reader: Coroutine[None, None, None], show: Callable[[ClientEvent], list[str]]
) -> None:
    """Read and show until the input ends; then wait until everything said is stored and shown.

    Raises what ends the reader or the client.
    """
    ends = is_writing = False

    async def write() -> None:
        nonlocal is_writing
        while not ends and (events := await client.next_events()):
            is_writing = True
            await out.write([line for event in events for line in show(event)])
            is_writing = False

    writing = asyncio.ensure_future(write())
    reading = asyncio.ensure_future(reader)
    try:
        await _first_of(reading, writing)
    finally:
        # What was said before a bad line, or before the input broke off, must still be stored and shown.
        settling = asyncio.ensure_future(settled(client))
        try:
            if reading.done():
                await _first_of(settling, writing)
                ends = True
                if is_writing:  # else the write would be cancelled below
                    await writing
        finally:
            for task in (reading, writing, settling):
                task.cancel()
            await asyncio.gather(reading, writing, settling, return_exceptions=True)
            await out.write([line for event in client.take() for line in show(event)])


async def settled(client: Client) -> None:
    """Return when everything said is stored; if there is no host to do that, say what we wait for.

    Raises what ended the client.
    """
    waiting = asyncio.ensure_future(client.settled())
    told = False
    try:
        while not (await asyncio.wait([waiting], timeout=None if told else _WAITS_SILENTLY))[0]:
            told = client.session.state is not LinkState.JOINED
            if told:
                message = plural(
                    "waiting for the host to come back and store 1 message; Ctrl+C leaves it in the outbox",
                    "waiting for the host to come back and store {count} messages; Ctrl+C leaves them in the outbox",
                    count := len(client.session.unsettled),
                )
                complain(message.format(count=count))
        waiting.result()
    finally:
        waiting.cancel()


def complain(text: str) -> None:
    """Write a line to standard error; nobody may be reading it any more."""
    with suppress(OSError):
        click.echo(f"chat: {text}", err=True)


async def _first_of(*tasks: asyncio.Future[None]) -> None:
    """Wait for the first of these to end, and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
