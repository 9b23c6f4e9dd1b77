"""The rooms that are open in one face, and what is said in them: what every command of the controller acts on.

A message is about the room in which it was typed, wherever the user has gone meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from functools import partialmethod
from typing import TYPE_CHECKING, Final, Generic

from chat.core.bodies import Ask
from chat.core.errors import ChatError
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.i18n import _, translate
from chat.local.rooms import records
from chat.ui import emoji, moderation
from chat.ui.changes import Changes
from chat.ui.commands import rooms_like
from chat.ui.describe import details, quoted
from chat.ui.face import R
from chat.ui.people import is_unread, read_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.bodies import Direct
    from chat.core.status import Who
    from chat.local.settings import Settings
    from chat.ui.entry import MessageEntry
    from chat.ui.face import Face, Work

OWN: Final = {"edit": True, "retract": True, "reply": False, "quote": False}  # whose messages a command is about
_PAGES: Final = 13  # of the audit trail, and of those who have a role: about 100 lines
_TOLD: Final = 1_000  # direct rooms that a window tells of; it says nothing of more
_ABOUT: Final = {"reply": Kind.SAY, "edit": Kind.EDIT}  # the kind of what is said after them


class Rooms(Generic[R]):
    """The rooms that are open in one face, and what is said in them.

    ``opener`` makes a client of a TARGET, for ``/join``. ``file`` is where settings are changed.
    """

    def __init__(
        self,
        face: Face[R],
        room: R,
        settings: Settings,
        opener: Callable[[str], Client] | None = None,
        file: Path | None = None,
    ) -> None:
        self.settings = settings
        self.rooms = [room]
        self.room = room
        self.begun: tuple[str, MessageEntry] | None = None  # what waits for its text, and about what
        self._face = face
        self._opener = opener
        self.changes: Final = Changes(self, face)
        self._turn = asyncio.Lock()
        self.active = now()  # when the user last did something
        self._idle = False
        self._file = file
        self.told: dict[bytes, bool] = {}  # whose direct rooms had a line and are not open here; whether it was of news

    # -- messages --------------------------------------------------------------------------------

    def say(self, text: str, typed: str = "") -> Work:
        """Say a text, or do with it what a command before it began."""
        command, item = self.begun or ("", None)
        if item is not None and command in _ABOUT:
            return self.changes.change(item, _ABOUT[command], text, typed=typed)
        return self.send(quoted(item) + text if item is not None else text, typed=typed)

    def send(self, text: str, kind: int = Kind.SAY, target: int = 0, *, typed: str = "") -> Work:
        """Send a message to the current room. ``typed`` is what the user wrote, if it is not the text.

        Raises LocalProtocolError for a text that is too long.
        """
        message = self.outgoing(text, kind, target)
        self.begun = None
        self._face.sending(self.room)
        return self.deliver(self.room, message, typed or text)

    def outgoing(self, text: str, kind: int = Kind.SAY, target: int = 0) -> Outgoing:
        """Return the message that a typed text is. Raises LocalProtocolError for one that is too long."""
        text = emoji.expand(text) if self.settings.emoji_names else text
        return Outgoing(text, kind, target, self._face.message_id)

    async def deliver(self, room: R, message: Outgoing, typed: str) -> None:
        """Put a message into a room's outbox, after those before it."""
        async with self._turn:  # in the order typed, even if ``say`` has to wait
            try:
                entry = await room.client.say(message)
            except ChatError as error:
                self._face.unsent(room, typed, error)
            else:
                self._face.sent(room, entry)

    def do_remove(self, _argument: str) -> Work:
        return self._decide(self.room, Ask(what="retract", first=self._face.chosen("remove").seq))

    async def _decide(self, room: R, ask: Ask) -> None:
        """Have the host decide; everybody reads of it in the log."""
        answer = await moderation.read_pages(room.client, ask, _PAGES)
        if ask.what in {"moderated", "audit"}:
            self._face.show_list(moderation.lines_of(answer) or [_("there is nothing yet")])

    def do_me(self, text: str) -> Work:
        return self.send(text, Kind.ACTION, typed=f"/me {text}")

    def _about_chosen(self, command: str, text: str) -> Work:
        item = self._face.chosen(command)
        if text:
            return self.changes.change(item, _ABOUT[command], text, typed=f"/{command} {text}")
        self.begun = command, item
        return self._face.begin(command, item)

    do_reply = partialmethod(_about_chosen, "reply")
    do_edit = partialmethod(_about_chosen, "edit")

    def do_quote(self, _argument: str) -> Work:
        return self._face.begin("quote", self._face.chosen("quote"))

    def do_retract(self, _argument: str) -> Work:
        return self.changes.take_back(self._face.chosen("retract"))

    def do_undo(self, _argument: str) -> Work:
        return self.changes.undo()

    def do_react(self, given: str) -> Work:
        item = self._face.chosen("react")
        if not given:
            return self._face.begin("react", item)
        return self.send(emoji.reaction(given), Kind.REACT, item.seq, typed=f"/react {given}")

    def do_details(self, _argument: str) -> None:
        item, client, timeline = self._face.chosen("details"), self.room.client, self.room.timeline
        timeline.receipts = read_marks(client.people(), (timeline.key, timeline.nick))
        self._face.show_list(details(item, timeline, client))

    def _find(self, nick: str) -> Who:
        """Return whom a nickname means. Raises ChatError."""
        if (who := self.room.known.find(nick)) is None:
            raise ChatError("there is nobody called {nick} here; /who lists those who are", nick=nick)
        return who

    # -- rooms -----------------------------------------------------------------------------------

    def do_rooms(self, _argument: str) -> Work:
        return self._list_rooms([self._face.label(room) for room in self.rooms])

    async def _list_rooms(self, here: Sequence[str] = ()) -> None:
        own = {room.client.session.room for room in self.rooms}
        found = ", ".join(name for name in await asyncio.to_thread(open_here) if name not in own)
        text = _("open on this machine: {rooms}; /join NAME enters one")
        none = _("no other room is open on this machine; open one with: chat host NAME")
        made = text.format(rooms=found) if found else none
        numbered = ", ".join(f"{number} {name}" for number, name in enumerate(here, 1))
        self._face.show_list([*([_("in this window: {rooms}").format(rooms=numbered)] if here else []), made])

    def do_join(self, target: str) -> Work:
        if not target:
            return self._list_rooms()
        if self._opener is None:
            raise ChatError("no other room can be entered from here; use chat join in another terminal")
        return self.open(self._face.make_room(self._opener(target)))

    def do_msg(self, argument: str) -> Work:
        nick, text = [*argument.split(maxsplit=1), ""][:2]
        (key, name), session = self._find(nick), self.room.client.session
        if (key, name) == (session.key, session.nick):
            raise ChatError("this is you; /msg NICK is for somebody else")
        if key == session.key:
            raise ChatError(
                "{nick} has the same key as you, and a private room is between two keys; chat join --as NAME makes "
                "another, for a name that is new",
                nick=name,
            )
        room = self.room_with(key) or self._face.make_room(self.room.client.direct(key), name)
        return self.open(room, text)

    def room_with(self, key: bytes) -> R | None:
        """Return the direct room with a key, if it is open here."""
        return next((room for room in self.rooms if room.client.session.other == key), None)

    def is_told(self, news: Direct) -> bool:
        """Whether a direct room is open here, or the user has had a line about it already; take note that it has one.

        Else a stranger could fill the window with such lines.
        """
        key, unread = news.other, is_unread(news)
        if self.room_with(key) is not None or self.told.get(key) in {True, unread}:
            return True
        if len(self.told) >= _TOLD and key not in self.told:
            return True
        self.told[key] = unread
        return False

    def open(self, room: R, text: str = "", *, behind: bool = False) -> Work:
        """Enter a room, or go to it if it is open here. ``behind``: stay in the current one."""
        session = room.client.session
        for other in self.rooms:
            theirs = other.client.session
            if other is room or (session.room and (theirs.room, theirs.other) == (session.room, session.other)):
                self.go(other)
                return self.say(text) if text else None
        before = self.room
        if not self._face.joins_first:
            self._add(room, behind=behind)
        entered: asyncio.Future[ChatError | None] = asyncio.get_running_loop().create_future()
        self._face.spawn(self._live(room, text, entered))
        return self._entered(room, entered, before)

    async def _entered(self, room: R, entered: asyncio.Future[ChatError | None], before: R) -> None:
        """Wait until a room is entered; if that fails, go back to where it was asked for, and raise the ChatError."""
        if (error := await entered) is not None:
            if self.room is room and before in self.rooms:
                self.go(before)
            raise error

    def _add(self, room: R, *, behind: bool = False) -> None:
        self.rooms.append(room)
        self.told.pop(room.client.session.other, None)
        if room.partner:
            text = _("only {nick} and you are in this room; the host's owner can read it, too")
            self._face.greet(room, text.format(nick=room.partner))
        if not behind:
            self.go(room)

    async def _live(self, room: R, text: str, entered: asyncio.Future[ChatError | None]) -> None:
        """Be in a room, from joining to leaving."""
        try:
            async with room.client:
                if room not in self.rooms:
                    self._add(room)
                if text:
                    await self.deliver(room, self.outgoing(text), text)
                entered.set_result(None)
                await self._face.follow(room)
        except ChatError as error:
            if not entered.done():
                entered.set_result(error)
                await asyncio.sleep(0)  # to where it was asked for, before the room goes
            else:
                self._face.show(f"{room.name}: {translate(error)}", room=self.rooms[0])
        finally:
            if not entered.done():
                entered.set_result(None)
        if room in self.rooms:
            self._close(room)

    def do_part(self, _argument: str) -> Work:
        room = self.room
        if room is self.rooms[0]:
            raise ChatError("leave this room with /quit")
        self._close(room)
        return room.client.aclose()

    def _close(self, room: R) -> None:
        if room is self.room:
            self.go(self.rooms[0])
        self.rooms.remove(room)
        self._face.closed(room)

    def do_room(self, wanted: str) -> None:
        if wanted.isdecimal():
            self.go_to(int(wanted))
            return
        found = rooms_like(wanted, [room.name for room in self.rooms])
        if not found:
            raise ChatError("no room here is called {name}; /join enters another one", name=wanted)
        self.go(self.rooms[found[0]])

    def go_to(self, number: int) -> None:
        """Go to a room by its number in this window, from 1. Raises ChatError."""
        if not 0 < number <= len(self.rooms):
            raise ChatError("there is no room {number} in this window", number=number)
        self.go(self.rooms[number - 1])

    def go(self, room: R) -> None:
        self._face.left(self.room)
        self.begun = None  # it is about a message of the other room
        self.room = room
        self._face.entered(room)


def open_here() -> list[str]:
    """Return the rooms that are open on this machine, none if the disk cannot be read."""
    try:
        return [card.name for card in records()]
    except (ChatError, OSError):
        return []


def now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
