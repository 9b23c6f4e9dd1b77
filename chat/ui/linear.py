"""The linear face: one line a message, no cursor movement. For screen readers, dumb terminals, pipes and logs.

    12:04 ann: shall we go to Lisbon? #41
    12:05 bob answers ann, “shall we go to Lisbon?”: yes #42
    12:05 ann answers bob, “yes”, with 👍 #42
    12:06 ann corrects “shall we go to Lisbon?”: shall we go to Porto? #41
    #dev 12:06 小明: the build is green #7           another room that is open here
    * cid came                                        chat's own words

Rules:

1. A line typed at a terminal is a message or a command of the table in ``commands``. Any other input is text: each line
   is said exactly as it is, since whoever writes a log that is piped in here must not be able to run commands.
2. A message's number ends its line, where a listener can skip it. Behind a command it names the message:
   ``/reply #41 yes``. Without it the command takes the most likely message, as the full-screen face does.
3. Edits and retractions by another key than the author's are not shown, since they change nothing.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from chat.client.queries import fetch, find
from chat.core.bodies import Direct
from chat.core.errors import ChatError, WrongValue
from chat.core.events import Here, Joined, Message, Rejected, Rewound, Stored
from chat.core.outgoing import split_body
from chat.core.session import LinkState
from chat.core.text import visible
from chat.core.wire import MAX_TEXT, Kind
from chat.i18n import _, later, translate
from chat.local.invite import is_cut, is_invite
from chat.local.settings import DEFAULTS
from chat.local.streams import Output, lines, while_read
from chat.ui import face
from chat.ui.commands import LINES, NeedsArgument, commands_of, parse, written
from chat.ui.controller import Controller
from chat.ui.describe import describe, describe_message, excerpt, given_nick
from chat.ui.entry import MessageEntry
from chat.ui.face import Face, Hosted, converse
from chat.ui.invites import how_to_reopen, ways_in
from chat.ui.moves import Moves
from chat.ui.names import names
from chat.ui.people import describe_direct, names_of
from chat.ui.rooms import OWN, now
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.outgoing import OutboxEntry
    from chat.local.settings import Settings

_HITS: Final = 10
_LISTED: Final = 50  # names that may stand for a missing argument
# lines of a message on a terminal in --plain; of a longer one the first five are shown, and how to read all
MAX_LINES: Final = 100
_SHOWN_LINES: Final = 5
# bytes of a line that Linux takes from a terminal, before it drops the rest (termios(3)); it is not sent
_LONGEST: Final = 4095
_NAMED: Final = re.compile(
    r"\s*(/(?:reply|quote|edit|retract|react|details))\s+#(\d{1,18})(?:\s+|$)", re.ASCII | re.IGNORECASE
)
_JOIN: Final = re.compile(r"\s*/join\s", re.IGNORECASE)
_BEGUN: Final = {
    "reply": later("your next line answers {about}; an empty line cancels"),
    "edit": later("your next line replaces {about}; an empty line cancels"),
    "quote": later("your next line goes below the quoted {about}; an empty line cancels"),
}


class Room(face.Room):
    def __init__(self, client: Client, partner: str = "") -> None:
        super().__init__(client, partner)
        self.timeline = Timeline(client.session.key, client.session.nick)
        self.older: dict[int, MessageEntry] = {}  # from before the timeline, if a command named them
        self.moves = Moves()
        self.day = datetime.now().astimezone().date()  # of the last line

    def at_seq(self, seq: int) -> MessageEntry | None:
        return self.timeline.at_seq(seq) or self.older.get(seq)

    def said(self, message: Message) -> MessageEntry:
        return MessageEntry.of(message, self.timeline.key, self.timeline.nick)


class Linear(Face[Room]):
    """The face. ``opener`` and ``file`` are the controller's."""

    kind = LINES
    joins_first = True

    def __init__(
        self,
        client: Client,
        settings: Settings = DEFAULTS,
        opener: Callable[[str], Client] | None = None,
        file: Path | None = None,
        *,
        hosted: Hosted | None = None,
    ) -> None:
        self.hosted = hosted
        self._is_typed = sys.stdin.isatty()
        self._is_seen = sys.stdout.isatty()  # by a person, not by a program or a file
        if not self._is_typed:
            settings = replace(settings, emoji_names=False)  # what a program writes is said exactly
        self.controller = Controller(self, Room(client), settings, opener, file)
        self._out = Output()
        self._lines: list[str] = []  # to be written
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = True
        self._cut = ""  # a command with the beginning of an invite, whose rest comes in further lines
        self._number = 0  # of the message that the command at hand names
        self._unsent = 0  # lines that were not typed, and are not text, or were rejected
        self._taken = 0  # lines that were not typed, and were dealt with
        self._ended = False  # there are no more of them
        self._said: dict[int, OutboxEntry] = {}  # what we said and the host has not confirmed, by identity
        self._leaving = False
        self._away_later: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Talk until the input ends or ``/quit``; return how many lines of text could not be sent.

        Raises what ends the client.
        """
        first = self.controller.room
        if self.hosted is not None and self._is_typed:
            self.hosted.on_end = self._host_ended
        self._touch()
        try:
            reader = self._read() if self._is_typed else self._read_text()
            talk = converse(first.client, self._out, reader, lambda event: self._lines_of(first, event))
            await while_read(talk)
        except asyncio.CancelledError:
            if not (self._is_typed or self._ended):
                text = _("the input was taken up to line {number}; the rest was not sent")
                face.complain(text.format(number=self._taken))
            raise
        finally:
            if self._away_later is not None:
                self._away_later.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._unsent

    def _host_ended(self, why: ChatError) -> None:
        self.show(translate(why), how_to_reopen())
        self.spawn(self._flush())

    async def _flush(self) -> None:
        made, self._lines = self._lines, []
        await self._out.write(made)

    # -- what happens ----------------------------------------------------------------------------

    def _lines_of(self, room: Room, event: ClientEvent) -> list[str]:
        """Take note of an event, and return the lines about it."""
        return self._named(room, self._take(room, event))

    def _named(self, room: Room, made: list[str]) -> list[str]:
        """Return what is shown of these lines. Those of another room bear its name, unless it is muted."""
        if room is self.controller.room:
            return made
        is_muted = room.client.session.room in self.controller.settings.muted
        return [] if is_muted else [f"{room.name} {line}" for line in made]

    def _take(self, room: Room, event: ClientEvent) -> list[str]:
        settings = self.controller.settings
        match event:
            case Message():
                return self._take_message(room, event)
            case Joined(name, _epoch, _next_seq, nick, resumed=resumed):
                before, room.timeline.nick = room.timeline.nick, nick
                if resumed and nick != before:
                    told = given_nick(room.client, nick, is_typed=self._is_typed) or [
                        _("you are {nick} now").format(nick=nick)
                    ]
                    return [f"* {visible(line, lines=False)}" for line in told]
                if room.partner or resumed:  # the name of a direct room is a hash, and whose it is has been said
                    return []
                text = (
                    _("you are {nick} in {room}; each line you type is a message; /help lists what else you can type")
                    if self._is_typed
                    else _("you are {nick} in {room}; each line is a message, even if it begins with a slash")
                )
                made = [f"* {visible(text.format(nick=nick, room=name), lines=False)}"]
                made += [f"* {line}" for line in given_nick(room.client, nick, is_typed=self._is_typed)]
                if self.hosted is not None and self._is_typed and room is self.controller.rooms[0]:
                    made += [f"* {line}" for line in ways_in(self.hosted.listening)]
                if topic := room.client.session.topic:
                    made.append(f"* {_('topic: {text}').format(text=topic)}")
                return made
            case Here(came, went, first):
                room.known.moved(came, went, time.time_ns() // 1_000_000)
                came, went = ([who for who in some if who[0] not in room.timeline.ignored] for some in (came, went))
                if first:
                    return [f"* {line}" for line in describe(Here(came, went, first))]
                room.moves.take(Here(came, went, first))
                return self._moved(room)
            case Stored(entry) | Rejected(entry):
                said_here = self._said.pop(id(entry), None) is not None  # else an earlier process said it
                self._unsent += said_here and isinstance(event, Rejected) and not self._is_typed
                room.timeline.settle(entry, event.seq if isinstance(event, Stored) else 0)
                self.controller.changes.settled(room, event)
            case Rewound():
                room.timeline.rewound()
                room.older.clear()
            case Direct(other=key):
                known = not names_of(key).isdisjoint(settings.ignore) or self.controller.is_told(event)
                return [] if known else [f"* {describe_direct(event, is_typed=self._is_typed)}"]
        return [f"* {line}" for line in describe(event)]

    def _moved(self, room: Room) -> list[str]:
        """Return the lines about who came and left, now or, if there were many, later."""
        if not room.moves:
            return []
        if seconds := room.moves.wait():
            if not room.moves.is_later:
                room.moves.is_later = True
                self.spawn(self._move_later(room, seconds))
            return []
        return [f"* {line}" for line in describe(room.moves.tell())]

    async def _move_later(self, room: Room, seconds: float) -> None:
        await asyncio.sleep(seconds)
        room.moves.is_later = False
        if room in self.controller.rooms:
            self._lines += self._named(room, self._moved(room))
            await self._flush()

    def _take_message(self, room: Room, message: Message) -> list[str]:
        timeline, key, settings = room.timeline, message.author.key, self.controller.settings
        if message.decision is None:
            room.known.spoke(message)
        if settings.ignore and not names_of(key).isdisjoint(settings.ignore):
            timeline.ignored.add(key)
        item = room.at_seq(message.target) if message.target else None
        about = excerpt(message.kind, item) if item is not None else ""  # before the message changes it
        restores = item is not None and item.retracted
        timeline.add(message)
        with suppress(ValueError):  # a nickname that the host has not given yet
            room.client.show(read=message.seq)
        if key in timeline.ignored and message.decision is None:
            return []
        day, before = timeline.local(message.time).date(), room.day
        room.day = day
        said = room.said(message)
        made = describe_message(said, about, number=self._numbers, clock=settings.time_format, restores=restores)
        if self._is_seen:
            made = _folded(made, message.seq)
        who = (key, message.author.nick)
        came = [f"* {line}" for line in describe(room.moves.tell())] if room.moves.is_awaited(who) else []
        return [*([f"* {day.isoformat()}"] if day != before else []), *came, *made]

    # -- what is typed ---------------------------------------------------------------------------

    async def _read(self) -> None:
        async for line in lines(sys.stdin, MAX_TEXT):
            self._touch()
            if isinstance(line, WrongValue):
                self.show(_("this line was not sent: {why}").format(why=translate(line)))
            else:
                await self._enter(line)
            await self._flush()
            if self._leaving:
                break
        for room in self.controller.rooms[1:]:
            await face.settled(room.client)

    async def _read_text(self) -> None:
        """Say each line as it is; blank ones say nothing."""
        async for line in lines(sys.stdin, MAX_TEXT):
            try:
                if isinstance(line, WrongValue):
                    raise line
                if line.strip() and (work := self.controller.say(line)):
                    self._touch()
                    await work
            except (ChatError, WrongValue) as error:
                self.controller.room.client.events.check()  # raises what has ended the client
                self._unsent += 1
                text = _("line {number} was not sent: {why}").format(number=self._taken + 1, why=translate(error))
                face.complain(text)
            await self._flush()
            self._taken += 1
        self._ended = True

    async def _enter(self, line: str) -> None:
        if not line.strip():
            if self.controller.begun is not None or self._cut:
                self.controller.begun, self._cut = None, ""
                self.show(_("cancelled; the next line is a message again"))
            return
        if len(line.encode()) >= _LONGEST:
            text = _("the terminal cut this line at {limit} bytes, so it was not sent; use: chat send TARGET < FILE")
            self.show(text.format(limit=_LONGEST))
            return
        line, self._cut = self._cut + line, ""
        if _JOIN.match(line) and is_invite(line) and is_cut(line) and len(line) < _LONGEST:
            self._cut = line  # what comes next is no message: it would tell the room a secret
            self.show(_("this is the beginning of an invite; paste the rest of it; an empty line cancels"))
            return
        named = _NAMED.match(line)
        self._number = int(named[2]) if named else 0
        try:
            if named:
                line = f"{named[1]} {line[named.end() :]}"
                await self._fetch(self._number)
            meant = parse(line)
            work = self.controller.say(meant) if isinstance(meant, str) else self.controller.do(*meant)
            if work is not None:
                await work
        except (ChatError, ValueError) as error:
            self.show(translate(error))
            if isinstance(error, NeedsArgument) and (words := names(error.kind, self.controller)):
                self.show(", ".join(islice(words, _LISTED)))

    def _touch(self) -> None:
        """Whoever types is here, and is shown as away so long after the last line."""
        self.controller.touch()
        self.controller.share()
        if self._away_later is not None:
            self._away_later.cancel()
        if minutes := self.controller.settings.away_minutes:
            self._away_later = asyncio.get_running_loop().call_later(60 * minutes, self.controller.idle)

    async def _fetch(self, seq: int) -> None:
        """Read a message from before the timeline from the log, as it was said first. Raises ChatError."""
        room = self.controller.room
        if room.at_seq(seq) is not None or seq >= (room.timeline.oldest or room.client.session.next_seq):
            return
        found = (await fetch(room.client, {seq})).get(seq)
        if found and found.kind in {Kind.SAY, Kind.ACTION} and found.author.key not in room.timeline.ignored:
            room.older[seq] = room.said(found)

    # -- commands that are different here ---------------------------------------------------------

    def do_numbers(self, _argument: str) -> None:
        self._numbers = not self._numbers
        self.show(_("message numbers are on") if self._numbers else _("message numbers are off"))

    async def do_search(self, text: str) -> None:
        room, clock = self.controller.room, self.controller.settings.time_format
        found, answer = await find(room.client, text, limit=_HITS)
        today = datetime.now().astimezone().date()
        for message in found:
            is_today = room.timeline.local(message.time).date() == today
            dated = clock if is_today else f"%Y-%m-%d {clock}".rstrip()
            self._lines += describe_message(room.said(message), number=True, clock=dated)
        if not found:
            self.show(_("nothing was found; try other words, or fewer"))
        elif answer.more:
            self.show(_("there are older ones; chat search finds them all"))

    def do_mention(self, _argument: str) -> None:
        messages = self.controller.room.timeline.messages(newest_first=True)
        item = next((item for item in messages if item.mentioned), None)
        if item is None:
            raise ChatError("nobody has mentioned you here")
        about = f"#{item.target}" if item.target else ""
        self._lines += describe_message(item, about, number=True, clock=self.controller.settings.time_format)

    # -- what the controller needs ----------------------------------------------------------------

    def show(self, *lines: str, room: Room | None = None) -> None:
        self._lines += [f"* {visible(line, lines=False)}" for line in lines]

    def help(self) -> list[str]:
        return _help()

    def make_room(self, client: Client, partner: str = "") -> Room:
        return Room(client, partner)

    async def follow(self, room: Room) -> None:
        while events := await room.client.next_events():
            self._lines += [line for event in events for line in self._lines_of(room, event)]
            await self._flush()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def chosen(self, command: str) -> MessageEntry:
        room, mine = self.controller.room, OWN.get(command)
        pending = room.timeline.last_pending() if mine else None
        item = room.at_seq(self._number) if self._number else pending or room.timeline.last_message(mine=mine)
        if item is None or item.retracted:
            raise ChatError("there is no such message")
        if mine and not item.mine:
            raise ChatError("only your own messages can be changed")
        return item

    def begin(self, command: str, item: MessageEntry) -> None:
        self.controller.begun = command, item
        self.show(_(_BEGUN[command]).format(about=excerpt(Kind.SAY, item)))

    def sent(self, room: Room, entry: OutboxEntry) -> None:
        self._said[id(entry)] = entry
        room.timeline.add_pending(entry, entry.kind, *split_body(entry.kind, entry.flags, entry.body), now())
        if room.client.session.state is not LinkState.JOINED:
            self.show(_("there is no link now; your message is kept and will be sent when it is back"))

    def entered(self, room: Room) -> None:
        self.show(_("what you type goes to {room} now").format(room=room.name))

    def closed(self, room: Room) -> None:
        self.spawn(self._flush())

    def quit(self) -> None:
        self._leaving = True


def _folded(lines: list[str], seq: int) -> list[str]:
    """Return the lines of a message; of a very long one the first few, and how to read the rest."""
    if len(lines) <= MAX_LINES:
        return lines
    text = _("… {count} more lines; to read them: chat log --since {number}")
    rest = text.format(count=len(lines) - _SHOWN_LINES, number=seq)
    return [*lines[:_SHOWN_LINES], visible(rest, lines=False)]


def _help() -> list[str]:
    return [
        _("each line you type is a message"),
        *(f"{written(usage)}: {_(usage.help)}" for usage in commands_of(LINES)),
        f"//text: {_('a message that begins with a slash: /text')}",
        _("to choose a message, put its number after the command: /reply #12 TEXT"),
    ]
