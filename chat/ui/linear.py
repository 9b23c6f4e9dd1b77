"""The linear face: one line a message, no cursor movement. For screen readers, dumb terminals, pipes and logs.

    12:04 ann: shall we go to Lisbon? #41
    12:05 bob answers ann, “shall we go to Lisbon?”: yes #42
    12:05 ann answers bob, “yes”, with 👍 #42
    12:06 ann corrects “shall we go to Lisbon?”: shall we go to Porto? #41
    #dev 12:06 小明: the build is green #7           another room that is open here
    * cid came                                        chat's own words

Rules:

1. Whatever came from somebody else goes through ``text.visible`` here, and nowhere later.
2. A line that is typed at a terminal is a message or a command of the table in ``commands``. What begins with a slash
   and is not understood is answered, never sent. Any other input is text: each line is said exactly as it is, since
   whoever writes a log that is piped in here must not be able to run commands.
3. A line is a whole sentence: it can be heard without the lines around it. What is about an earlier message quotes its
   beginning, since nobody can look up to it.
4. A message's number ends its line, where it can be listened past; behind a command it names the message:
   ``/reply #41 yes``. Without it the one that is most likely meant is taken, as in the full-screen face.
5. Edits and retractions by another key than the author's are not told: they change nothing.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec.structs import replace

from chat.client.board_view import SHOWN_AS
from chat.client.events import Lost, Up
from chat.client.queries import fetch, find
from chat.core.errors import ChatError, WrongValue
from chat.core.outgoing import Outgoing, split_body
from chat.core.session import Here, Joined, LinkState, Message, Rejected, Rewound
from chat.core.status import Level
from chat.core.text import visible
from chat.core.wire import MAX_TEXT, Ask, Author, Direct, Gap, Kind, Notice
from chat.i18n import _, later, localize_remote, plural, translate
from chat.local.identity import fingerprint
from chat.local.settings import DEFAULTS, NAMES, change
from chat.local.settings import parse as parse_setting
from chat.local.streams import Output, lines, whole_lines
from chat.ui import emoji
from chat.ui.answers import all_settings, details, open_here, rooms, setting
from chat.ui.commands import COMMANDS, Action, Command, Say, Unknown, Usage, help_on, parse, rooms_like, written
from chat.ui.entry import MessageEntry
from chat.ui.lines import converse
from chat.ui.people import People, direct_told, ignored, list_ignored, listed, names_of, nobody, read_marks, to_heed
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.local.settings import Settings

_CLOCK: Final = "%H:%M"
_EXCERPT: Final = 40  # characters of a message that another one is about
_HITS: Final = 10
_LONGEST: Final = 4095  # bytes of a line that Linux takes from a terminal, before it drops the rest (termios(3))
_NUMBERS: Final = Usage("numbers", "", later("tell the number of each message, or no longer"))
_NOT_HERE: Final = frozenset({"theme", "mouse", "copy", "clear", "unread"})  # of the table; they need a whole screen
_MINE: Final = {"edit": True, "retract": True, "reply": False, "quote": False}  # whose messages a command is about
_NAMED: Final = re.compile(
    r"\s*(/(?:reply|quote|edit|retract|react|details))\s+#(\d{1,18})(?:\s+|$)", re.ASCII | re.IGNORECASE
)


async def run(
    client: Client,
    *,
    settings: Settings = DEFAULTS,
    opener: Callable[[str], Client] | None = None,
    file: Path | None = None,
) -> int:
    """Talk until the input ends or ``/quit``; return how many lines of text could not be sent.

    Raises what ends the client.
    ``opener`` makes a client of a TARGET, for ``/join``; ``file`` is where settings are changed.
    """
    return await _Face(client, settings, opener, file).run()


@dataclass(eq=False)
class _Room:
    """One room that is open here. ``partner``: the other's nickname, of a direct room."""

    client: Client
    partner: str = ""
    day: date = field(default_factory=lambda: datetime.now().astimezone().date())  # of the last line
    following: asyncio.Task[None] | None = None  # none for the first, whose end is ours

    def __post_init__(self) -> None:
        self.timeline = Timeline(self.client.session.key, self.client.session.nick)
        self.older: dict[int, MessageEntry] = {}  # of before the timeline, that were asked for by their numbers
        self.known = People(self.client.session)

    @property
    def name(self) -> str:
        return f"@{self.partner}" if self.partner else f"#{self.client.session.room}"

    def at_seq(self, seq: int) -> MessageEntry | None:
        return self.timeline.at_seq(seq) or self.older.get(seq)


class _Face:
    def __init__(
        self, client: Client, settings: Settings, opener: Callable[[str], Client] | None, file: Path | None
    ) -> None:
        self._settings = settings
        self._opener = opener
        self._file = file
        self._out = Output()
        self._rooms = [_Room(client)]
        self._room = self._rooms[0]  # the one that is talked in
        self._numbers = True
        self._away_later: asyncio.TimerHandle | None = None
        self._away_by_itself = False
        self._unsent = 0  # lines that were not typed, and are not text, or were rejected
        # What the next line does ("reply", "quote" or "edit"), and to which message.
        self._next: tuple[str, MessageEntry] | None = None
        self._does: dict[str, Callable[[str, int], Any]] = {
            "help": self._help,
            "who": self._who,
            "join": self._join,
            "rooms": self._list_rooms,
            "part": self._part,
            "room": self._go_to,
            "msg": self._message,
            **{name: self._act(name) for name in ("reply", "quote", "edit", "retract", "react", "details")},
            "search": self._search,
            "mention": self._mention,
            "ignore": self._ignore,
            "unignore": self._unignore,
            "mute": lambda _argument, _seq: self._mute(on=True),
            "unmute": lambda _argument, _seq: self._mute(on=False),
            "away": lambda note, _seq: self._be(Level.AWAY, note),
            "busy": lambda note, _seq: self._be(Level.BUSY, note),
            "back": lambda note, _seq: self._be(Level.ONLINE, note),
            "set": self._set,
            "peer": lambda spec, _seq: self._ask(Ask(what="peer", text=spec)),
            "invite": lambda _argument, _seq: self._ask(Ask(what="invite")),
        }

    async def run(self) -> int:
        """See ``run`` of this module."""
        first = self._rooms[0]
        if first.client.trusted_on_first_use:
            told = _("trust on first use: {fingerprint}; compare it with the host's owner")
            await self._tell(told.format(fingerprint=first.client.trusted_on_first_use))
        self._touch()
        try:
            await converse(first.client, self._out, self._read(), lambda event: self._lines(first, event))
        finally:
            if self._away_later is not None:
                self._away_later.cancel()
            for room in self._rooms[1:]:
                await self._close(room)
        return self._unsent

    # -- what happens ----------------------------------------------------------------------------

    def _lines(self, room: _Room, event: ClientEvent) -> list[str]:
        """Take note of an event, and return the lines that tell of it."""
        made = self._noted(room, event)
        if room is self._room:
            return made
        return [] if room.client.session.room in self._settings.muted else [f"{room.name} {line}" for line in made]

    def _noted(self, room: _Room, event: ClientEvent) -> list[str]:
        match event:
            case Message():
                return self._message_lines(room, event)
            case Joined(nick=nick):
                room.timeline.nick = nick
                if room.partner:  # the room's name is a hash, and whose room it is has been told
                    return []
            case Here(came, went, first):
                room.known.moved(came, went, time.time_ns() // 1_000_000)
                came, went = ([who for who in some if who[0] not in room.timeline.ignored] for some in (came, went))
                return describe(Here(came, went, first))
            case Rejected():
                self._unsent += not sys.stdin.isatty()
            case Rewound():
                room.timeline.rewound()
                room.older.clear()
            case Direct(other=key):
                known = not names_of(key).isdisjoint(self._settings.ignore)
                known = known or any(other.client.session.other == key for other in self._rooms)
                return [] if known else [f"* {direct_told(event)}"]
        return describe(event)

    def _message_lines(self, room: _Room, message: Message) -> list[str]:
        timeline, key = room.timeline, message.author.key
        room.known.heard(message)
        if self._settings.ignore and not names_of(key).isdisjoint(self._settings.ignore):
            timeline.ignored.add(key)
        item = room.at_seq(message.target) if message.target else None
        by_another = item is not None and item.key != key and message.kind in {Kind.EDIT, Kind.RETRACT}
        about = _about(message.kind, item) if item is not None else ""
        timeline.add(message)
        with suppress(ValueError):  # a nickname that the host has not given yet
            room.client.show(read=message.seq)
        if by_another or key in timeline.ignored:
            return []
        day, before = timeline.local(message.time).date(), room.day
        room.day = day
        told = describe_message(message, about, number=self._numbers, clock=self._settings.time_format)
        return [*([f"* {day.isoformat()}"] if day != before else []), *told]

    async def _follow(self, room: _Room) -> None:
        """Tell of what happens in one more room, until it is left."""
        try:
            while events := await room.client.next_events():
                await self._out.write([line for event in events for line in self._lines(room, event)])
        except ChatError as error:
            await self._tell(f"{room.name}: {translate(error)}")

    async def _tell(self, *texts: str) -> None:
        """Write lines of our own."""
        await self._out.write([f"* {visible(text, lines=False)}" for text in texts])

    # -- what is typed ---------------------------------------------------------------------------

    async def _read(self) -> None:
        if not sys.stdin.isatty():
            await self._read_text()
            return
        async for line in lines(sys.stdin):
            self._touch()
            try:
                if not await self._enter(line):
                    break
            except ChatError as error:
                await self._tell(translate(error))
        for room in self._rooms[1:]:
            await room.client.settled()

    async def _read_text(self) -> None:
        """Say each line as it is; blank ones say nothing."""
        number = 0
        async for line in whole_lines(sys.stdin, MAX_TEXT):
            number += 1
            if isinstance(line, WrongValue):
                self._unsent += 1
                told = _("line {number} was not sent: {why}").format(number=number, why=translate(line))
                with suppress(OSError):  # nobody reads our errors any more; the other lines are sent all the same
                    click.echo(f"chat: {told}", err=True)
            elif line.strip():
                self._touch()
                await self._say(line)

    async def _enter(self, line: str) -> bool:
        """Do what a line asks for. Returns False when it is time to leave."""
        if not line.strip():
            if self._next is not None:
                self._next = None
                await self._tell(_("stopped; the next line is a message again"))
            return True
        if len(line.encode()) >= _LONGEST:
            told = _("the terminal cut this line at {limit} bytes, so it was not sent; use: chat send TARGET < FILE")
            await self._tell(told.format(limit=_LONGEST))
            return True
        if line.strip().lower() in {written(_NUMBERS), "/number"}:
            self._numbers = not self._numbers
            await self._tell(_("numbers are told") if self._numbers else _("numbers are not told"))
            return True
        named = _NAMED.match(line)
        seq = int(named[2]) if named else 0
        match parse(f"{named[1]} {line[named.end() :]}" if named else line):
            case Unknown(told=told):
                await self._tell(told)
            case Say(text):
                await self._say_next(text)
            case Action(text):
                await self._say(text, Kind.ACTION)
            case Command("quit"):
                return False
            case Command(name, argument) if name in self._does:
                await self._does[name](argument, seq)
            case Command(name):
                await self._tell(_("/{name} is for the full-screen face").format(name=name))
        return True

    async def _say_next(self, text: str) -> None:
        """Say a line, or do with it what the command before it has asked for."""
        does, item = self._next or ("", None)
        self._next = None
        if item is None:
            await self._say(text)
        elif does == "quote":
            await self._say("".join(f"> {line}\n" for line in item.text.split("\n")) + text)
        else:
            await self._change_or_answer(does, item, text)

    async def _change_or_answer(self, does: str, item: MessageEntry, text: str) -> None:
        kind = Kind.EDIT if does == "edit" else Kind.SAY
        await self._say(text, kind, item.seq)

    async def _say(self, text: str, kind: int = Kind.SAY, target: int = 0) -> None:
        client = self._room.client
        if self._settings.emoji_names and sys.stdin.isatty():  # what a program writes is said exactly
            text = emoji.expand(text)
        await client.say(Outgoing(text, kind, target))
        if client.session.state is not LinkState.JOINED:
            await self._tell(_("there is no link now; what you said is kept, and sent when it is back"))

    async def _help(self, word: str, _seq: int) -> None:
        if word:
            await self._tell(help_on(word, keys=()))
            return
        usages = [*(usage for usage in COMMANDS if usage.name not in _NOT_HERE), _NUMBERS]
        await self._tell(
            _("each line you type is a message"),
            *(f"{written(usage)}: {_(usage.help)}" for usage in usages),
            f"//text: {_('a message that begins with a slash: /text')}",
            _("a message is selected by its number behind the command: /reply #12 TEXT"),
        )

    async def _who(self, nick: str, _seq: int) -> None:
        room, people = self._room, self._room.client.people()
        if not nick:
            await self._tell(listed(people))
        elif (key := room.known.key_of(nick)) is None:
            await self._tell(nobody(nick))
        else:
            await self._tell(*room.known.about(key, people, ignored=key in room.timeline.ignored))

    async def _ask(self, ask: Ask) -> None:
        answer = await self._room.client.ask(ask)
        await self._tell(localize_remote(answer.error) or answer.text)

    def _touch(self) -> None:
        """Whoever types is here, and is shown as away so long after the last line."""
        self._show(active=time.time_ns() // 1_000_000, **({"level": Level.ONLINE} if self._away_by_itself else {}))
        self._away_by_itself = False
        if self._away_later is not None:
            self._away_later.cancel()
        if self._settings.away_minutes:
            loop = asyncio.get_running_loop()
            self._away_later = loop.call_later(60 * self._settings.away_minutes, self._leave_the_keys)

    def _leave_the_keys(self) -> None:
        self._away_by_itself = self._room.client.shows.level == Level.ONLINE
        if self._away_by_itself:
            self._show(level=Level.AWAY)

    def _show(self, **changes: Any) -> None:
        for room in self._rooms:
            with suppress(ValueError):  # a nickname that the host has not given yet
                room.client.show(**changes)

    async def _be(self, level: Level, note: str) -> None:
        try:
            for room in self._rooms:
                room.client.show(level=level, note=note)
        except ValueError as error:
            await self._tell(translate(error))
        else:
            await self._tell(_(SHOWN_AS[level]))

    # -- messages --------------------------------------------------------------------------------

    def _act(self, name: str) -> Callable[[str, int], Any]:
        async def act(argument: str, seq: int) -> None:
            item = await self._meant(name, seq)
            if item is None:
                return
            match name:
                case "reply" | "edit" if argument:
                    await self._change_or_answer(name, item, argument)
                case "reply" | "edit" | "quote":
                    self._next = name, item
                    about = _about(Kind.SAY, item)
                    told = {
                        "reply": _("your next line answers {about}; an empty line stops that"),
                        "edit": _("your next line stands for {about}; an empty line stops that"),
                        "quote": _("your next line is said below {about}; an empty line stops that"),
                    }
                    await self._tell(told[name].format(about=about))
                case "retract":
                    await self._say("", Kind.RETRACT, item.seq)
                case "react":
                    try:
                        given = emoji.reaction(argument)
                    except ValueError as error:
                        await self._tell(str(error))
                    else:
                        await self._say(given, Kind.REACT, item.seq)
                case "details":
                    await self._tell(*self._details(item))

        return act

    async def _meant(self, name: str, seq: int) -> MessageEntry | None:
        """Return the message of this number, or the one that is most likely meant; or tell that there is none."""
        mine = _MINE.get(name)
        room = self._room
        item = room.at_seq(seq) or await self._fetch(room, seq) if seq else room.timeline.last_message(mine=mine)
        if item is None or item.retracted:
            await self._tell(_("there is no such message"))
        elif mine and not item.mine:
            await self._tell(_("only your own messages can be changed"))
        else:
            return item
        return None

    async def _fetch(self, room: _Room, seq: int) -> MessageEntry | None:
        """Read a message of before we came from the log, as it was said first. Raises ChatError."""
        if seq >= (room.timeline.oldest or room.client.session.next_seq):
            return None
        found = (await fetch(room.client, {seq})).get(seq)
        if found is None or found.kind not in {Kind.SAY, Kind.ACTION} or found.author.key in room.timeline.ignored:
            return None
        item = MessageEntry.of(found, room.timeline.key)
        room.older[seq] = item
        return item

    def _details(self, item: MessageEntry) -> list[str]:
        timeline, client = self._room.timeline, self._room.client
        timeline.receipts = read_marks(client.people(), (timeline.key, timeline.nick))
        return details(item, timeline, client)

    async def _search(self, text: str, _seq: int) -> None:
        found, answer = await find(self._room.client, text, limit=_HITS)
        today = datetime.now().astimezone().date()
        for message in found:
            is_today = self._room.timeline.local(message.time).date() == today
            clock = self._settings.time_format if is_today else f"%Y-%m-%d {self._settings.time_format}".rstrip()
            await self._out.write(describe_message(message, number=True, clock=clock))
        if not found:
            await self._tell(_("nothing was found"))
        elif answer.more:
            await self._tell(_("there are older ones; chat search finds them all"))

    async def _mention(self, _argument: str, _seq: int) -> None:
        timeline = self._room.timeline
        number = timeline.last_mention()
        item = timeline[number] if number is not None else None
        if not isinstance(item, MessageEntry):
            await self._tell(_("nobody has named you here"))
            return
        author = Author(index=0, key=item.key, stream=0, nick=item.nick, bot=item.bot)
        message = Message(item.seq, item.time, author, item.kind, item.text, 0, item.mine)
        await self._out.write(describe_message(message, number=True, clock=self._settings.time_format))

    def _ignored(self) -> list[tuple[str, str]]:
        return ignored(self._settings.ignore, (room.known for room in self._rooms))

    async def _ignore(self, nick: str, _seq: int) -> None:
        if not nick:
            await self._tell(*list_ignored(self._ignored()))
            return
        key = self._room.known.key_of(nick)
        if key is None:
            await self._tell(nobody(nick))
        elif key == self._room.timeline.key:
            await self._tell(_("this is you; /ignore NICK is for somebody else"))
        else:
            for room in self._rooms:
                room.timeline.ignore(key)
            others = [entry for entry in self._settings.ignore if entry not in names_of(key)]
            told = _("what {nick} says is hidden, also the next time; /unignore {nick} shows it")
            await self._change("ignore", (*others, fingerprint(key)), told.format(nick=self._room.known.nick_of(key)))

    async def _unignore(self, who: str, _seq: int) -> None:
        entries, told = to_heed(who, self._ignored())
        if not entries:
            await self._tell(told)
            return
        for timeline in (room.timeline for room in self._rooms):
            for key in [key for key in timeline.ignored if not entries.isdisjoint(names_of(key))]:
                timeline.unignore(key)
        await self._change("ignore", tuple(entry for entry in self._settings.ignore if entry not in entries), told)

    # -- settings --------------------------------------------------------------------------------

    async def _mute(self, *, on: bool) -> None:
        name = self._room.client.session.room
        others = tuple(other for other in self._settings.muted if other != name)
        told = (
            _("this room is not heard from another one now; /unmute ends that") if on else _("this room is heard again")
        )
        await self._change("muted", (*others, name) if on else others, told)

    async def _set(self, argument: str, _seq: int) -> None:
        name, value = [*argument.split(maxsplit=1), "", ""][:2]
        if not name:
            await self._tell(*all_settings(self._settings))
        elif name not in NAMES:
            await self._tell(_("there is no setting {name}; /set lists them").format(name=name))
        elif not value:
            await self._tell(setting(self._settings, name))
        else:
            try:
                await self._change(name, parse_setting(name, value))
            except ValueError as error:
                await self._tell(translate(error))

    async def _change(self, name: str, value: Any, told: str = "") -> None:
        """Change a setting here and now, and in the file."""
        if not name.startswith("keys."):
            self._settings = replace(self._settings, **{name: value})
        if self._file is not None:
            await asyncio.to_thread(change, self._file, name, value)
        await self._tell(told or _("{name} is set, also for the next time").format(name=name))

    # -- rooms -----------------------------------------------------------------------------------

    async def _list_rooms(self, _argument: str, _seq: int) -> None:
        found = await asyncio.to_thread(open_here)
        await self._tell(*rooms(found, (room.name for room in self._rooms)))

    async def _join(self, target: str, _seq: int) -> None:
        if not target:
            await self._tell(*rooms(await asyncio.to_thread(open_here)))
        elif self._opener is None:
            await self._tell(_("no other room can be entered from here"))
        else:
            await self._open(_Room(self._opener(target)))

    async def _message(self, argument: str, _seq: int) -> None:
        nick, text = [*argument.split(maxsplit=1), ""][:2]
        key = self._room.known.key_of(nick)
        if key is None or key == self._room.client.session.key:
            await self._tell(nobody(nick))
            return
        name = next((name for who, name in self._room.client.session.here if who == key), nick)
        await self._open(_Room(self._room.client.direct(key), name))
        if text:
            await self._say(text)

    async def _open(self, room: _Room) -> None:
        """Enter a room, or go to it where it is open here already. Raises ChatError."""
        session = room.client.session
        for other in self._rooms:
            theirs = other.client.session
            if session.room and (theirs.room, theirs.other) == (session.room, session.other):
                await self._go(other)
                return
        await room.client.__aenter__()
        self._rooms.append(room)
        await self._go(room)
        if room.partner:
            told = _("this is for {nick} and you; the host's owner could read it, too")
            await self._tell(told.format(nick=room.partner))
        room.following = asyncio.create_task(self._follow(room))

    async def _go(self, room: _Room) -> None:
        self._room, self._next = room, None
        await self._tell(_("what you type goes to {room} now").format(room=room.name))

    async def _go_to(self, wanted: str, _seq: int) -> None:
        """Go to a room by its number, or by some letters of its name in their order."""
        if wanted.isdecimal():
            found = self._rooms[int(wanted) - 1 : int(wanted)] if int(wanted) else []
        else:
            found = [self._rooms[at] for at in rooms_like(wanted, [room.name for room in self._rooms])]
        if found:
            await self._go(found[0])
        else:
            await self._tell(_("no room here is called {name}; /join enters another one").format(name=wanted))

    async def _part(self, _argument: str, _seq: int) -> None:
        room = self._room
        if room is self._rooms[0]:
            await self._tell(_("this room is left with /quit"))
            return
        self._rooms.remove(room)
        await self._close(room)
        await self._go(self._rooms[0])

    async def _close(self, room: _Room) -> None:
        if room.following is not None:
            room.following.cancel()
            await asyncio.gather(room.following, return_exceptions=True)
        await room.client.aclose()


# -- what people read ---------------------------------------------------------------------------------


def describe(event: ClientEvent) -> list[str]:
    """Return the lines that tell a person of an event; none for what needs no telling."""
    match event:
        case Message():
            return describe_message(event)
        case Joined(room, _epoch, _next_seq, nick, _role, resumed=False):
            told = (
                _("you are {nick} in {room}; each line you type is a message; /help tells what else you can type")
                if sys.stdin.isatty()
                else _("you are {nick} in {room}; each line is a message, also one that begins with a slash")
            )
            return [f"* {told.format(nick=visible(nick, lines=False), room=visible(room, lines=False))}"]
        case Here(came, went, first):
            told = _("here: {nicks}") if first else _("{nicks} came")
            moved = [(told, came), (_("{nicks} left"), went)]
            return [f"* {told.format(nicks=', '.join(map(_shown, some)))}" for told, some in moved if some]
        case Rejected(entry, _code, why):
            text = visible(split_body(entry.kind, entry.flags, entry.body)[0][:_EXCERPT], lines=False)
            told = _("not sent: {why}: {text}")
            return [f"* {told.format(why=visible(translate(why), lines=False), text=text)}"]
        case Gap():
            told = plural("1 message cannot be had any more", "{count} messages cannot be had any more", event.count)
            return [f"* {told.format(count=event.count)}"]
        case Rewound(why):
            return [f"* {_('{why}; what follows begins anew').format(why=visible(localize_remote(why), lines=False))}"]
        case Notice():
            return [f"* {visible(localize_remote(event.text), lines=False)}"]
        case Lost(why):
            return [f"* {_('link lost: {why}; coming back').format(why=visible(translate(why), lines=False))}"]
        case Up(address):
            return [f"* {_('connected over {address}').format(address=visible(address.brief, lines=False))}"]
    return []


def _shown(who: tuple[bytes, str]) -> str:
    return visible(who[1], lines=False)


def named(author: Author) -> str:
    """Return an author's nickname, with a label for programs: no nickname holds brackets."""
    return visible(author.nick, lines=False) + (f" [{_('bot')}]" if author.bot else "")


def describe_message(message: Message, about: str = "", *, number: bool = False, clock: str = _CLOCK) -> list[str]:
    """Return a message's lines: time and name before each, so that no text can pass for another's.

    ``about`` is what it answers or changes, in words; else that is told by its number. With ``number`` the last line
    ends with the number by which the message can be named. ``clock`` is the time, as strftime has it.
    """
    head = time.strftime(f"{clock} ", time.localtime(message.time / 1000)) if clock else ""
    nick, text = named(message.author), visible(message.text)
    about = about or f"#{message.target}"
    handle = message.seq
    match message.kind:
        case Kind.SAY if not message.target:
            before = f"{nick}: "
        case Kind.SAY:
            before = _("{nick} answers {about}: ").format(nick=nick, about=about)
        case Kind.ACTION:
            before = f"* {nick} "
        case Kind.EDIT:
            handle = message.target
            before = _("{nick} corrects {about}: ").format(nick=nick, about=about)
        case Kind.RETRACT:
            handle, text = message.target, ""
            before = _("{nick} takes back {about}").format(nick=nick, about=about)
        case Kind.REACT:
            handle, given, text = message.target, visible(message.text, lines=False), ""
            told = _("{nick} answers {about}, with {emoji}") if given else _("{nick} takes back what answered {about}")
            before = told.format(nick=nick, about=about, emoji=given)
        case kind:
            text = ""
            before = f"{nick} {_('sent something of kind {kind}, which this version cannot show').format(kind=kind)}"
    first, *rest = text.split("\n")
    made = [head + before + first, *(f"{head}{nick}: {line}" for line in rest)]
    if number and about != f"#{handle}":
        made[-1] += f" #{handle}"
    return made


def _about(kind: int, item: MessageEntry) -> str:
    """Return what a message that is about ``item`` calls it, in words; "" where only its number will do."""
    text = visible(item.text[: 2 * _EXCERPT], lines=False)
    if kind == Kind.RETRACT or not text.strip():  # what is taken back is not said once more
        return ""
    text = text if len(text) <= _EXCERPT else visible(text[: _EXCERPT - 1], lines=False) + "…"
    if kind == Kind.EDIT:
        return _("“{text}”").format(text=text)
    return _("{nick}, “{text}”").format(nick=visible(item.nick, lines=False), text=text)
