"""One room in the window: its client, what its reader knows, and where on the way through it the reader is.

Rules:

1. No keys, no layout, no screen: what happens in the room goes into the timeline, and the owner is told how much
   attention it asks for.
2. Older messages are fetched by a second client that only reads, so the link on which people talk never waits.
3. What others show of themselves is looked at, not waited for: ``look`` is called now and then.
4. What may take long tells in ``progress`` how far it has come, and can be cancelled at any time: what was fetched
   until then stays.
5. The unread marker stands where reading stopped, and goes when it has been seen and is out of view again. What comes
   while one reads at the end is not new.
6. ``timeline`` is always attached to the live end: what comes, is said or told stands there. Whoever reads further up
   than it reaches has another window on the log, ``past``, which is added to at both ends as one scrolls and let go
   of when one is back. What the pane shows is ``window``: the one or the other.
"""

from __future__ import annotations

import asyncio
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from chat.client.events import Lost, Up
from chat.core.errors import ChatError
from chat.core.outgoing import split_body
from chat.core.session import Here, Joined, Message, Rejected, Rewound, Stored
from chat.core.wire import Answer, Ask, Direct, Gap, Kind, Notice
from chat.i18n import _, localize_remote, plural, translate
from chat.local.identity import fingerprint
from chat.ui.entry import MessageEntry
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.pane import Pane
from chat.ui.fullscreen.progress import CATCHING_UP, CHECKING, LOADING, SEARCHING, Progress
from chat.ui.people import People, names_of, read_marks
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.outgoing import OutboxEntry
    from chat.core.status import Status, Who
    from chat.local.settings import Settings
    from chat.ui.fullscreen.search import Search

_PAGE: Final = 300  # messages of the past that are fetched at a time
_LARGE_PAGE: Final = 2_000  # where more of them are wanted: a host that is asked for a few sends many
_AT_STAKE: Final = 2_000  # lines between the screen and the oldest one, when that may have to go before one looks again
_HITS: Final = 20  # that the host is asked for at a time


class Attention(IntEnum):
    NONE = 0
    MESSAGE = 1
    MENTION = 2


class View:
    """What is shown of one room. ``partner``: the other's nickname, of a direct room. ``called``: it is opened
    because something was said there that its reader has not seen.
    """

    def __init__(
        self, client: Client, settings: Settings, *, partner: str = "", called: bool = False, delimiters: bool = False
    ) -> None:
        self.client: Final = client
        self.session: Final = client.session
        self.partner = partner
        self._called = called
        self.search: Search | None = None
        self.known: Final = People(client.session)
        self.people: dict[Who, Status] = {}
        # What is told once the past is here: a note before it would be of another day.
        self.greeting: list[str] = []
        self.introduction: list[str] = []  # and to one who has never read here
        self.news: list[Direct] = []  # direct rooms in which something was said
        self.rejected: list[str] = []  # texts that go back into the input
        self.lag = 0  # ms from saying to the disk, of what was stored last
        self._said_at: dict[int, int] = {}  # by id() of the entry, which lives in the session meanwhile
        self._ignored = set(settings.ignore)
        self._delimiters = delimiters
        self._time_format = settings.time_format
        self._away = False  # the link is lost
        self._lost_at = 0  # when it was lost last
        self._back_at = 0  # and when it was found again: what was said in between says nothing of the link
        self._beginning = True  # what comes now was said before we came
        self._listed = False  # we were told who is here
        self._end = 0  # of the log when we came in last
        self._read_before = 0  # how far its reader had read when the marker was put there; 0 for all, or nothing
        self._catching_up: Progress | None = None
        self._working: Progress | None = None  # on what was asked for here
        self._checking: Progress | None = None  # for what became of messages far up
        self._loaded = (0, False)  # for which first line on the screen was loaded last, and whether what is older
        self._turn = asyncio.Lock()  # to load a part of the past
        self.work: asyncio.Task[None] | None = None  # that was asked for here, and can be cancelled
        self.stopped_at: int | None = None  # the first line on the screen when loading was: until one scrolls on
        self._asked: asyncio.Task[Answer] | None = None
        self._reading = False  # at the end, on the screen
        self._marker_seen = False
        self.past: Timeline | None = None  # further up than the timeline reaches, where one reads there
        self.timeline = Timeline(self.session.key, self.session.nick)
        self.pane = self._live_pane = self._make_pane(self.timeline)
        for entry in self.session.unsettled:
            self.add_pending(entry)

    def _make_pane(self, timeline: Timeline) -> Pane:
        return Pane(Conversation(timeline, self._time_format), delimiters=self._delimiters)

    def clear(self) -> None:
        """Begin with an empty pane. What was said can be scrolled back to."""
        before = self.timeline
        self.timeline = Timeline(self.session.key, self.session.nick, edits=before.edits)
        self.past, self.stopped_at = None, None
        self.pane = self._live_pane = self._make_pane(self.timeline)
        self.timeline.last_seq, self.timeline.oldest = before.last_seq, before.last_seq + 1
        self.timeline.read_state.mark_read(before.last_seq)
        self.timeline.ignored |= before.ignored
        self.timeline.receipts = before.receipts
        self.search = None
        for entry in self.session.unsettled:
            self.add_pending(entry)

    @property
    def name(self) -> str:
        """What the room is called in this window."""
        return f"@{self.partner}" if self.partner else f"#{self.session.room}"

    @property
    def asks_for_you(self) -> bool:
        """Whether something that is unread names its reader, or was said to nobody else."""
        return bool(self.timeline.read_state.unread if self.partner else self.timeline.read_state.mentions)

    # -- what happens ----------------------------------------------------------------------------

    def take(self, event: ClientEvent) -> Attention:
        """Take note of an event; those that only change the bars are seen at the next redraw."""
        if self._is_at_stake():
            self.detach()
        match event:
            case Message():
                return self._take_message(event)
            case Stored(entry, seq):
                said_at = self._said_at.pop(id(entry), 0)
                if not said_at and (not seq or self.timeline.at_seq(seq) is None):
                    self.add_pending(entry)  # it was said before this face began, and nobody has shown it
                    del self._said_at[id(entry)]
                self.lag = _now() - said_at if said_at > self._back_at else self.lag
                self.timeline.settle(entry, seq)
            case Rejected(entry, _code, why):
                self._said_at.pop(id(entry), 0)
                self.timeline.drop(entry)
                self.note(_("not sent: {why}").format(why=translate(why)))
                if entry.kind not in {Kind.RETRACT, Kind.REACT}:
                    self.rejected.append(split_body(entry.kind, entry.flags, entry.body)[0])
            case Joined(next_seq=end, nick=nick, resumed=resumed, read=read):
                self.timeline.nick = nick
                if not resumed:
                    self._beginning, self._read_before = True, read
                self._end = end
                self._catching_up = Progress(CATCHING_UP, self.session.next_seq, end)
            case Here(came, went, first):
                self.known.moved(came, went, self._lost_at if first else _now())  # first: gone while we were
                if not first:
                    self.timeline.presence(came, went, _now())
                self._listed = True
            case Gap():
                told = plural(
                    "1 message cannot be had any more", "{count} messages cannot be had any more", event.count
                )
                self.note(told.format(count=event.count), last_seq=event.first + event.count - 1)
            case Rewound(why):
                if self.past is not None:
                    self.follow()
                self.timeline.rewound()
                self.search = None  # its numbers are of a log that is no more
                self.note(_("{why}; what follows begins anew").format(why=localize_remote(why)))
            case Notice():
                self.note(localize_remote(event.text))
            case Direct():
                self.news.append(event)
            case Lost(why):
                self._away, self._lost_at = True, _now()
                self._catching_up = None
                self.note(_("link lost: {why}; coming back").format(why=translate(why)))
            case Up(address) if self._away:
                self._away, self._back_at = False, _now()
                self.note(_("back over {address}").format(address=address.brief))
        return Attention.NONE

    def taken(self) -> None:
        """All events that there were have been taken. Who is here may be told before the past is, or after it."""
        if self._beginning and self._listed and self.session.next_seq >= self._end:
            self._beginning = False
            self.timeline.read_state.mark_read(self._read_before or (0 if self._called else self.timeline.last_seq))
            self.timeline.read_state.place_marker()
            self._called = False
            for text in self.greeting if self._read_before else (*self.greeting, *self.introduction):
                self.note(text)

    def _take_message(self, message: Message) -> Attention:
        self._heard(message)
        if self._called and message.seq > self._read_before and not message.mine:
            for text in self.greeting:  # what is to be known before what waits here is read
                self.timeline.note(text, message.time)
            self.greeting.clear()
        marker = self.timeline.read_state.marker
        self.timeline.add(message)
        if self.past is not None:
            self.past.apply_changes([message])
        if self._reading and marker is None:
            self.timeline.read_state.marker = None
        item = self.timeline.at_seq(message.seq)
        if self._beginning or item is None or item.mine:
            return Attention.NONE
        return Attention.MENTION if item.mentioned or self.partner else Attention.MESSAGE

    def _heard(self, message: Message) -> None:
        """Remember who has spoken, and do not show what somebody says who is ignored."""
        key = message.author.key
        if key not in self.timeline.ignored and self.is_ignored(key):
            self.timeline.ignored.add(key)
        self.known.heard(message)

    # -- who is not heard ------------------------------------------------------------------------

    def is_ignored(self, key: bytes) -> bool:
        return bool(self._ignored) and not self._ignored.isdisjoint(names_of(key))

    def ignore(self, key: bytes) -> None:
        """Hide what this key says, said and does."""
        self.follow()
        self._keep_marker()
        self._ignored.add(fingerprint(key))
        self.timeline.ignore(key)

    def unignore(self, entries: set[str]) -> None:
        """Show again what these keys say; they are as the settings hold them, in hex or as fingerprints."""
        self.follow()
        self._keep_marker()
        self._ignored -= entries
        for key in list(self.timeline.ignored):
            if not self.is_ignored(key):
                self.timeline.unignore(key)

    def note(self, text: str, *, role: str = "note", last_seq: int = 0) -> None:
        """Add a line of our own."""
        self.timeline.note(text, _now(), role, last_seq=last_seq)

    def add_pending(self, entry: OutboxEntry) -> None:
        """Show what was said below all else, until it is stored."""
        text, target = split_body(entry.kind, entry.flags, entry.body)
        self._said_at[id(entry)] = _now()
        self.timeline.add_pending(entry, entry.kind, text, target, _now())

    # -- where the reader is ---------------------------------------------------------------------

    def seen(self) -> int:
        """Take note of what is on the screen. Return the number in the log up to which all was read, 0 for unknown."""
        first, last = self.pane.visible_range()
        if last < first or (self._beginning and self._end):  # nothing, or what was said before is still coming
            return 0
        read = self.window.read_state.read_up_to(last)
        self.timeline.read_state.mark_read(read)
        if self.past is not None:
            self.past.read_state.mark_read(read)
        passed = self.pane.passed()
        self._marker_seen = self._marker_seen and self.timeline.read_state.marker is not None
        if (marker := self.window.read_state.marker) is not None:
            in_view = first <= marker <= last
            if (in_view or marker in passed) and self.window.read_state.first_unread >= self.window.oldest:
                self._marker_seen = True
            if self.pane.following and not in_view:
                self.pass_marker()
        if self._reading and not self.pane.following and self.timeline.read_state.marker is None:
            self.leave()
        self._reading = self.pane.following
        return read

    def leave(self) -> None:
        """Reading stops here: what comes from now on is new. A marker that was not seen yet stays where it is."""
        self._reading = False
        self.pass_marker()
        if self.timeline.read_state.marker is None:
            self.timeline.read_state.place_marker()

    def pass_marker(self) -> None:
        """Take the unread marker away, if it has been seen."""
        if self._marker_seen:
            self.timeline.read_state.marker = None
            self._marker_seen = False

    @property
    def is_new_above(self) -> bool:
        """Whether what is unread begins above the screen, where one has not been yet."""
        if self.timeline.read_state.marker is None or self._marker_seen:
            return False
        if self.window.read_state.marker is None:
            return self.window.read_state.first_unread < self.window.oldest
        return self.window.read_state.marker < self.pane.visible_range()[0]

    # -- which part of the log is shown ----------------------------------------------------------

    @property
    def window(self) -> Timeline:
        """What the pane shows."""
        return self.past or self.timeline

    def follow(self) -> None:
        """Go to the live end, and stay there."""
        self._show(self.timeline, self._live_pane)
        self.pane.follow()

    def go_back(self, window: Timeline, pane: Pane, place: tuple[int, int] | None, selected: int | None) -> None:
        """Show again what was shown before, where it has not been cleared meanwhile."""
        if not window.attached or window is self.timeline:
            window.catch_up()
            self._show(window, pane)
            pane.go_back(place, selected)

    def turn_to(self, seq: int) -> bool:
        """Show the window that has this number of the log; 0 for what has none. False where it has to be loaded."""
        if not seq or (not self.window.holds(seq) and self.timeline.holds(seq)):
            self._show(self.timeline, self._live_pane)
        return not seq or self.window.holds(seq)

    async def go_to(self, seq: int) -> None:
        """Have this number of the log in the window: by loading all down to it, or by beginning another window there.

        Raises ChatError.
        """
        timeline = self.timeline
        if (
            not self.turn_to(seq)
            and timeline.oldest - seq <= _LARGE_PAGE
            and timeline.end - timeline.first < _LARGE_PAGE
        ):
            self._show(timeline, self._live_pane)
            await self.load_older(seq)
        if not self.turn_to(seq):
            async with self._turn:
                await self._open(seq)

    async def _open(self, seq: int) -> None:
        timeline = self.timeline
        begins, ends = max(1, seq - _PAGE), min(seq + _PAGE, timeline.last_seq + 1)
        self._working = Progress(LOADING, begins, ends)
        try:
            found, upto = await self._read(begins, ends, self._working)
            if not found and upto > ends:  # it cannot be had any more: begin with what can
                found, upto = await self._read(upto, upto + _PAGE, self._working)
                ends = upto
        finally:
            self._working = None
        if timeline is not self.timeline or timeline.last_seq < seq:  # cleared meanwhile, or another log
            return
        self.leave()
        for message in found:
            self._heard(message)
        past = timeline.part(seq)
        past.add_newer((message for message in found if message.seq >= seq), ends)
        past.add_older([message for message in found if message.seq < seq], begins)
        self._show(past, self._make_pane(past))

    def detach(self) -> bool:
        """Where the screen has come to the top of what the timeline can hold, go on with a window of its own.

        Returns whether there is one now. Nothing moves on the screen.
        """
        first, last = self.pane.visible_range()
        past = self.timeline.cut_out(first - _PAGE, last + _PAGE)
        if past is None:
            return False
        pane = self._make_pane(past)
        pane.take_over(self.pane, 0)
        self._show(past, pane)
        return True

    def find_marker(self) -> int | None:
        """Return where the unread marker stands, in the window that has it; None without one."""
        if self.window.read_state.marker is None and self.timeline.read_state.marker is not None:
            self.follow()
        return self.window.read_state.marker

    def _is_at_stake(self) -> bool:
        """Whether what is on the screen may soon be let go of."""
        return self.past is None and not self.pane.following and self._is_near_top(self.pane.visible_range()[0])

    def _is_near_top(self, number: int) -> bool:
        """Whether a line of the timeline is among those that go next."""
        timeline = self.timeline
        return timeline.ring.full and number - timeline.first < min(_AT_STAKE, (timeline.end - timeline.first) // 2)

    def _reattach(self, seq: int) -> bool:
        """Show the timeline where it has this message, which the window has, at the same place of the screen."""
        here, there = self.window.at_seq(seq), self.timeline.at_seq(seq)
        if here is None or there is None or self._is_near_top(there.number):
            return False
        self._live_pane.take_over(self.pane, there.number - here.number)
        self._show(self.timeline, self._live_pane)
        return True

    def _show(self, timeline: Timeline, pane: Pane) -> None:
        if pane is self.pane:
            return
        pane.succeed(self.pane)
        self.past = timeline if timeline is not self.timeline else None
        self.pane, self.stopped_at, self._loaded = pane, None, (0, False)
        self._live_pane.at_top = False

    def _keep_marker(self) -> None:
        """Before the timeline looks for the marker's place anew: where there is none, there shall be none."""
        if self._reading and self.timeline.read_state.marker is None:
            self.timeline.read_state.place_marker()

    def look(self) -> bool:
        """Look at what others show of themselves. Returns whether it has changed."""
        people = self.client.people()
        if people == self.people:
            return False
        self.people = people
        self.timeline.receipts = self.window.receipts = read_marks(people, (self.session.key, self.session.nick))
        return True

    # -- long work -------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """How far the work at hand has come, None where there is none."""
        if self._catching_up is not None:
            self._catching_up.at = self.session.next_seq
        going_on = (
            one for one in (self._working, self._checking, self._catching_up) if one is not None and one.part < 1
        )
        return next(going_on, None)

    @property
    def loading(self) -> bool:
        return self.work is not None or self._turn.locked()

    async def load_older(self, down_to: int = 0) -> None:
        """Fetch a part of the past, or all of it from number ``down_to`` on. Raises ChatError."""
        async with self._turn:
            if self.timeline.ring.full and self.past is None and not self.detach():
                return
            window = self.window
            self._loaded = (self.pane.visible_range()[0], True)
            self._working = Progress(LOADING, window.oldest, max(1, down_to or window.oldest - _PAGE))
            try:
                while window.oldest > max(1, down_to) and window is self.window:
                    await self._load_page(window, self._working, _LARGE_PAGE if down_to else _PAGE)
                    if not down_to or (window.attached and window.ring.full):
                        return
            finally:
                self._working = None

    async def _load_page(self, window: Timeline, progress: Progress, size: int) -> None:
        oldest = window.oldest
        begins = max(1, oldest - size)
        found, _upto = await self._read(begins, oldest, progress, up=False)
        if window in (self.timeline, self.past) and oldest == window.oldest:  # else it went back, or was cleared
            for message in found:
                self._heard(message)
            window.ignored |= self.timeline.ignored
            if window.attached:
                self._keep_marker()
            window.add_older(found, begins)

    async def load_newer(self) -> None:
        """Fetch what follows in the log, or go back to the timeline where it has that. Raises ChatError."""
        async with self._turn:
            past, first = self.past, self._first_seq()
            if past is None or self._reattach(first):
                return
            self._loaded = (self.pane.visible_range()[0], False)
            if past.last_seq + 1 >= self.timeline.oldest and not self.timeline.ring.full:
                self._working = Progress(LOADING, self.timeline.oldest, first)
                try:
                    await self._load_page(self.timeline, self._working, max(self.timeline.oldest - first, 1))
                finally:
                    self._working = None
                if past is self.past and self._reattach(self._first_seq()):
                    return
            begins, ends = past.last_seq + 1, min(past.last_seq + 1 + _PAGE, self.timeline.last_seq + 1)
            if begins >= ends:  # this is the end, and the timeline has none of what is on the screen
                if self.pane.visible_range()[1] >= past.end - 1:
                    self.follow()
                else:
                    self.stopped_at = self.pane.visible_range()[0]
                return
            self._working = Progress(LOADING, begins, ends)
            try:
                found, _upto = await self._read(begins, ends, self._working)
            finally:
                self._working = None
            if past is self.past and begins == past.last_seq + 1:
                for message in found:
                    self._heard(message)
                past.ignored |= self.timeline.ignored
                past.add_newer(found, ends)

    def undoes(self, *, older: bool) -> bool:
        """Whether to load at one end would let go of what was just loaded at the other, for the same screen."""
        return self.window.ring.full and self._loaded == (self.pane.visible_range()[0], not older)

    def _first_seq(self) -> int:
        """The number in the log of the first message on the screen, 0 for none."""
        first, last = self.pane.visible_range()
        items = (self.window[number] for number in range(max(first, self.window.first), min(last + 1, self.window.end)))
        return next((item.seq for item in items if isinstance(item, MessageEntry) and item.seq), 0)

    @property
    def is_to_check(self) -> bool:
        """Whether what became of the messages in the window may stand in a part of the log that nobody has read."""
        return self.past is not None and self._known_from > self.past.last_seq + 1

    @property
    def _known_from(self) -> int:
        return self.timeline.edits.since or self.timeline.last_seq + 1

    async def check(self) -> None:
        """Read a page of the log below the window, for what became of the messages above it. Raises ChatError."""
        async with self._turn:
            past, since = self.past, self._known_from
            if past is None or since <= past.last_seq + 1:
                return
            self._checking = self._checking or Progress(CHECKING, since, past.last_seq + 1)
            goes_on = False
            try:
                begins = max(past.last_seq + 1, since - _LARGE_PAGE)
                found, _upto = await self._read(begins, since, self._checking, up=False)
                if past is self.past and since == self._known_from:
                    past.apply_changes(found)
                    past.edits.since = begins
                goes_on = self.is_to_check
            finally:
                if not goes_on:
                    self._checking = None

    async def _read(self, begins: int, ends: int, progress: Progress, *, up: bool = True) -> tuple[list[Message], int]:
        """Return what was said from number ``begins`` up to and without ``ends``, and up to where that was read.

        ``up``: whether progress goes from ``begins`` to ``ends``, or the other way.
        """
        found: list[Message] = []
        async with self.client.reader(begins) as reader:
            while reader.session.next_seq < ends:
                found += [event for event in await reader.next_events() if isinstance(event, Message)]
                done = min(max(reader.session.next_seq - begins, 0), ends - begins)
                progress.at = begins + done if up else ends - done
            found += [event for event in reader.take() if isinstance(event, Message)]
            upto = reader.session.next_seq
        return [message for message in found if message.seq < ends], upto

    async def ask_search(self, text: str, before: int) -> Answer:
        """Have the host search below number ``before``, all of it where that is 0. Raises ChatError.

        Its index may be behind: then it is asked again until it has read as far as the log went when we began.
        """
        end = before or self.session.next_seq
        self._working = Progress(SEARCHING, 0, end)
        try:
            answer = await self._ask(Ask(what="search", text=text, before=before, limit=_HITS))
            while answer.indexed < end and answer.indexed > self._working.at and not answer.error:
                self._working.at = answer.indexed
                answer = await self._ask(Ask(what="search", text=text, before=before, limit=_HITS))
        finally:
            self._working = None
        if answer.error:
            raise ChatError(answer.error)
        return answer

    async def _ask(self, ask: Ask) -> Answer:
        """Put a question to the host: one at a time, so after the answer to one that nobody waits for any more."""
        while self._asked is not None and not self._asked.done():
            await asyncio.wait([self._asked])
        self._asked = asyncio.create_task(self.client.ask(ask))
        self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # somebody has heard of it
        return await asyncio.shield(self._asked)

    def selected(self, *, mine: bool | None = None) -> MessageEntry | None:
        """Return the selected message, else the last one: by the reader, by somebody else, or by anybody."""
        if self.pane.selected is not None:
            item = self.window[self.pane.selected]
            return item if isinstance(item, MessageEntry) and mine in (None, item.mine) else None
        return self.timeline.last_message(mine=mine)


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
