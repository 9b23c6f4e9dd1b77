"""What every face does with a command: one method for each row of the table in ``commands``.

    keys, lines, objects ──▶ face ──▶ Controller.do("who", "ann") ──▶ rooms, clients, people, settings
                              ▲                  │
                              └── show, entered … ◀─┘

To add a command, add a row to ``commands.COMMANDS`` and a method ``do_NAME`` here. A face's own method of that name
goes first: some commands are about the screen, and each face searches in its own way.

Rules:

1. A command acts at once if it can, so that what is typed right behind it finds its effect. What has to wait is
   returned as a coroutine: the linear face awaits it before the next line, the full screen runs it in the background.
2. What goes wrong is raised (ChatError, ValueError), and the face shows it.
3. A message is about the room in which it was typed, wherever the user has gone meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Any, Final, Generic

from msgspec.structs import replace

from chat.core.bodies import Ask
from chat.core.errors import AddressError, ChatError, WrongValue
from chat.core.outgoing import Outgoing
from chat.core.status import Level
from chat.core.wire import Kind
from chat.i18n import _, translate
from chat.local.identity import fingerprint
from chat.local.invite import Invite
from chat.local.rooms import records
from chat.local.settings import NAMES, change, choices, toml, value_of
from chat.local.settings import parse as parse_setting
from chat.ui import emoji, invites, moderation
from chat.ui.changes import Changes
from chat.ui.commands import LINES, USAGES, help_on, rooms_like
from chat.ui.describe import details, quoted
from chat.ui.face import R
from chat.ui.people import SHOWN_AS, ignored, is_unread, list_ignored, list_people, names_of, read_marks, to_unignore

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


class Controller(Rooms[R]):
    """What one user does in one face."""

    def do(self, name: str, argument: str = "") -> Work:
        """Do a command of the table; return what is left to wait for. Raises ChatError, ValueError."""
        only = USAGES[name].only
        if only not in ("", self._face.kind):
            if only == LINES:
                raise ChatError("/{name} is for chat join --plain", name=name)
            raise ChatError("/{name} is for the full-screen face", name=name)
        does: Callable[[str], Work] = getattr(self._face, f"do_{name}", None) or getattr(self, f"do_{name}")
        return does(argument)

    def do_help(self, word: str) -> None:
        if word:
            self._face.show(help_on(word, self._face.keys))
        else:
            self._face.show_list(self._face.help())

    def do_quit(self, _argument: str) -> None:
        self._face.quit()

    # -- people ----------------------------------------------------------------------------------

    def do_nick(self, nick: str) -> Work:
        if self.room.client.session.other:
            raise ChatError("in a private room you have the nickname of the room that you share; use /nick there")
        return self.room.client.rename(nick)

    def do_who(self, nick: str) -> None:
        room, people = self.room, self.room.client.people()
        if nick:
            who = self._find(nick)
            self._face.show(*room.known.about(who, people, ignored=who[0] in room.timeline.ignored))
        else:
            alone = [_("nobody else is here; /invite says how others come in")] if len(people) < 2 else []
            self._face.show(list_people(people, room.client.session.users), *alone)

    def ignored(self) -> list[tuple[str, str]]:
        """Return who is ignored, as the settings write it, with the nickname if it is known."""
        return ignored(self.settings.ignore, (room.known for room in self.rooms))

    def do_ignore(self, nick: str) -> Work:
        if not nick:
            self._face.show_list(list_ignored(self.ignored()))
            return None
        key, name = self._find(nick)
        if key == self.room.client.session.key:
            raise ChatError("this is you; /ignore NICK is for somebody else")
        for room in self.rooms:
            room.ignore(key)
        others = [entry for entry in self.settings.ignore if entry not in names_of(key)]
        text = _("messages by {nick} are hidden from now on; /unignore {nick} shows them again")
        return self._change("ignore", (*others, fingerprint(key)), text.format(nick=name))

    def do_unignore(self, who: str) -> Work:
        entries, text = to_unignore(who, self.ignored())
        for room in self.rooms:
            room.unignore(entries)
        return self._change("ignore", tuple(entry for entry in self.settings.ignore if entry not in entries), text)

    # -- what we show of ourselves ---------------------------------------------------------------

    def _be(self, level: Level, note: str) -> None:
        self.room.client.show(level=level, note=note)  # raises if the note is too long
        self._idle = False
        self.share(level=level, note=note)
        self._face.show(_(SHOWN_AS[level]))

    do_away = partialmethod(_be, Level.AWAY)
    do_busy = partialmethod(_be, Level.BUSY)
    do_back = partialmethod(_be, Level.ONLINE)

    def share(self, **changes: Any) -> None:
        """Show something of ourselves in every room; typing and how far we have read only in the current one."""
        for room in [self.room] if {"typing", "read"} & set(changes) else self.rooms:
            with suppress(ValueError):  # a nickname that the host has not given yet
                room.client.show(active=self.active, **changes)

    def touch(self) -> None:
        """The user did something, and is back if they were away without saying so."""
        self.active = now()
        if self._idle:
            self._idle = False
            self.share(level=Level.ONLINE)

    def idle(self) -> None:
        """The user has done nothing for long: show that, unless they show something else."""
        if self.room.client.shows.level == Level.ONLINE:
            self._idle = True
            self.share(level=Level.AWAY)

    # -- settings --------------------------------------------------------------------------------

    def do_set(self, argument: str) -> Work:
        name, value = [*argument.split(maxsplit=1), "", ""][:2]
        if not name:
            self._face.show_list([self._setting(name) for name in NAMES if not name.startswith("keys.")])
        elif name not in NAMES:
            raise ChatError("there is no setting {name}; /set lists them", name=name)
        elif not value:
            allowed = ", ".join(choices(name))
            self._face.show(self._setting(name) + (f" ({allowed})" if allowed else ""))
        else:
            return self._change(name, parse_setting(name, value))
        return None

    def _setting(self, name: str) -> str:
        return f"{name} = {toml(value_of(self.settings, name))}"

    def do_theme(self, name: str) -> Work:
        return self._change("theme", parse_setting("theme", name))

    def do_bell(self, argument: str) -> Work:
        if argument not in {"on", "off"}:
            raise WrongValue("write /bell on, or: /bell off")
        on = argument == "off"
        room = self.room.client.session.room
        others = tuple(name for name in self.settings.muted if name != room)
        text = _("no bell and no unread mark for this room; /bell on ends that") if on else _("the bell is on again")
        return self._change("muted", (*others, room) if on else others, text)

    def _change(self, name: str, value: Any, text: str = "") -> Work:
        """Change a setting here and now, and in the file; then show a line."""
        if name.startswith("keys.") or name in self._face.next_start:
            text = _("{name} is set and takes effect at the next start").format(name=name)
        else:
            self.settings = replace(self.settings, **{name: value})
            self._face.changed(name)
        return self._store(name, value, text or _("{name} is set, now and for next time").format(name=name))

    async def _store(self, name: str, value: Any, text: str) -> None:
        if self._file is not None:
            await asyncio.to_thread(change, self._file, name, value)
        self._face.show(text)

    # -- the host --------------------------------------------------------------------------------

    def do_peer(self, spec: str) -> Work:
        return self._ask(self.room, Ask(what="peer", text=spec))

    def do_reopen(self, _argument: str) -> Work:
        if self._face.hosted is None:
            raise ChatError(
                "this window did not open the room; the one that did can open it again, or its owner with: "
                "chat host {room}",
                room=self.room.client.session.room,
            )
        return self._face.hosted.reopen()

    def do_invite(self, argument: str) -> Work:
        if argument not in {"", "qr"}:
            raise WrongValue("write /invite, or: /invite qr")
        if self.room.client.session.other:
            raise ChatError("nobody else can come into a private room; use /invite in the room that you share")
        return self._invite(self.room, qr=bool(argument))

    async def _invite(self, room: R, *, qr: bool) -> None:
        answer = await room.client.ask(Ask(what="invite"))
        self._face.answer(answer, room)
        about = list(invites.about(answer.text, qr=qr, columns=self._face.columns))
        self._face.show(*about, room=room)
        with suppress(AddressError):  # of a newer host; and nothing else may get into the clipboard
            self._face.hand_out(str(Invite.parse(answer.text)), () if qr else about, unbroken=not qr)

    def _moderate(self, argument: str, *, name: str) -> Work:
        return self._decide(self.room, moderation.question(name, argument))

    def do_topic(self, text: str) -> Work:
        if text:
            return self._moderate(text, name="topic")
        self._face.show(moderation.topic(self.room.client))
        return None

    do_kick = partialmethod(_moderate, name="kick")
    do_ban = partialmethod(_moderate, name="ban")
    do_unban = partialmethod(_moderate, name="unban")
    do_mute = partialmethod(_moderate, name="mute")
    do_unmute = partialmethod(_moderate, name="unmute")
    do_op = partialmethod(_moderate, name="op")
    do_deop = partialmethod(_moderate, name="deop")
    do_slow = partialmethod(_moderate, name="slow")
    do_roles = partialmethod(_moderate, name="roles")
    do_audit = partialmethod(_moderate, name="audit")

    async def _ask(self, room: R, ask: Ask) -> None:
        self._face.answer(await room.client.ask(ask), room)


def open_here() -> list[str]:
    """Return the rooms that are open on this machine, none if the disk cannot be read."""
    try:
        return [card.name for card in records()]
    except (ChatError, OSError):
        return []


def now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
