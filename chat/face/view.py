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
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from enum import IntEnum
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final

from chat.client import Lost, Up
from chat.errors import ChatError
from chat.face.pane import Conversation, Pane
from chat.face.people import People, names_of, read_marks
from chat.face.timeline import Said, Timeline, folded
from chat.frame import Answer, Ask, Direct, Gap, Notice
from chat.identity import fingerprint
from chat.session import Here, Joined, Message, Rewound, Stored, split_body
from chat.words import _, heard, in_words, later, plural

if TYPE_CHECKING:
    from chat.client import Client, ClientEvent
    from chat.outbox import Entry
    from chat.presence import State, Who
    from chat.settings import Settings

_PAGE: Final = 300  # messages of the past that are fetched at a time
_LARGE_PAGE: Final = 2_000  # where more of them are wanted: a host that is asked for a few sends many
_HITS: Final = 20  # that the host is asked for at a time

CATCHING_UP: Final = later("catching up")
LOADING: Final = later("loading older messages")
SEARCHING: Final = later("searching")


class Attention(IntEnum):
    NONE = 0
    MESSAGE = 1
    MENTION = 2


class Progress:
    """How far long work has come: ``at`` goes from ``first`` to ``end``, up or down, in numbers of the log."""

    def __init__(self, what: str, first: int, end: int) -> None:
        self.what: Final = what  # CATCHING_UP, LOADING or SEARCHING
        self.at = self._first = first
        self._end = end
        self._began = time.monotonic()

    @property
    def part(self) -> float:
        """From 0 to 1."""
        whole = abs(self._end - self._first)
        return min(abs(self.at - self._first) / whole, 1.0) if whole else 1.0

    @property
    def rate(self) -> int:
        """Numbers of the log a second, since it began."""
        return round(abs(self.at - self._first) / max(time.monotonic() - self._began, 0.001))


class View:
    """What is shown of one room. ``partner``: the other's nickname, of a direct room. ``called``: it is opened
    because something was said there that its reader has not seen.
    """

    def __init__(
        self, client: Client, settings: Settings, *, partner: str = "", called: bool = False, markers: bool = False
    ) -> None:
        self.client: Final = client
        self.session: Final = client.session
        self.partner = partner
        self._called = called
        self.search: Search | None = None
        self.known: Final = People(client.session)
        self.people: dict[Who, State] = {}
        # What is told once the past is here: a note before it would be of another day.
        self.greeting: list[str] = []
        self.introduction: list[str] = []  # and to one who has never read here
        self.news: list[Direct] = []  # direct rooms in which something was said
        self.lag = 0  # ms from saying to the disk, of what was stored last
        self._said_at: dict[int, int] = {}  # by id() of the entry, which lives in the session meanwhile
        self._ignored = set(settings.ignore)
        self._markers = markers
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
        self._turn = asyncio.Lock()  # to load a part of the past
        self.work: asyncio.Task[None] | None = None  # that was asked for here, and can be cancelled
        self.stopped_at: int | None = None  # the first line on the screen when loading was: until one scrolls on
        self._asked: asyncio.Task[Answer] | None = None
        self._reading = False  # at the end, on the screen
        self._marker_seen = False
        self.timeline, self.pane = self._fresh()
        for entry in self.session.unsettled:
            self.add_pending(entry)

    def _fresh(self) -> tuple[Timeline, Pane]:
        timeline = Timeline(self.session.key, self.session.nick)
        return timeline, Pane(Conversation(timeline, self._time_format), markers=self._markers)

    def clear(self) -> None:
        """Begin with an empty pane. What was said can be scrolled back to."""
        before = self.timeline
        self.timeline, self.pane = self._fresh()
        self.timeline.last_seq, self.timeline.oldest = before.last_seq, before.last_seq + 1
        self.timeline.read(before.last_seq)
        self.timeline.ignored |= before.ignored
        self.timeline.marks = before.marks
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
        return bool(self.timeline.unread if self.partner else self.timeline.unread_mentions)

    # -- what happens ----------------------------------------------------------------------------

    def take(self, event: ClientEvent) -> Attention:
        """Take note of an event; those that only change the bars are seen at the next redraw."""
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
            case Joined(next_seq=end, nick=nick, resumed=resumed, read=read):
                self.timeline.nick = nick
                if not resumed:
                    self._beginning, self._read_before = True, read
                self._end = end
                self._catching_up = Progress(CATCHING_UP, self.session.next_seq, end)
            case Here(came, went, first):
                self.known.moved(came, went, self._lost_at if first else _now())  # first: gone while we were
                if not first:
                    self.timeline.move(came, went, _now())
                self._listed = True
            case Gap():
                told = plural(
                    "1 message cannot be had any more", "{count} messages cannot be had any more", event.count
                )
                self.note(told.format(count=event.count), last_seq=event.first + event.count - 1)
            case Rewound(why):
                self.timeline.rewound()
                self.search = None  # its numbers are of a log that is no more
                self.note(_("{why}; what follows begins anew").format(why=heard(why)))
            case Notice():
                self.note(heard(event.text))
            case Direct():
                self.news.append(event)
            case Lost(why):
                self._away, self._lost_at = True, _now()
                self._catching_up = None
                self.note(_("link lost: {why}; coming back").format(why=in_words(why)))
            case Up(address) if self._away:
                self._away, self._back_at = False, _now()
                self.note(_("back over {address}").format(address=address.brief))
        return Attention.NONE

    def taken(self) -> None:
        """All events that there were have been taken. Who is here may be told before the past is, or after it."""
        if self._beginning and self._listed and self.session.next_seq >= self._end:
            self._beginning = False
            self.timeline.read(self._read_before or (0 if self._called else self.timeline.last_seq))
            self.timeline.set_marker()
            self._called = False
            for text in self.greeting if self._read_before else (*self.greeting, *self.introduction):
                self.note(text)

    def _take_message(self, message: Message) -> Attention:
        self._heard(message)
        if self._called and message.seq > self._read_before and not message.mine:
            for text in self.greeting:  # what is to be known before what waits here is read
                self.timeline.note(text, message.time)
            self.greeting.clear()
        marker = self.timeline.marker
        self.timeline.add(message)
        if self._reading and marker is None:
            self.timeline.marker = None
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
        self._keep_marker()
        self._ignored.add(fingerprint(key))
        self.timeline.ignore(key)

    def heed(self, entries: set[str]) -> None:
        """Show again what these keys say; they are as the settings hold them, in hex or as fingerprints."""
        self._keep_marker()
        self._ignored -= entries
        for key in list(self.timeline.ignored):
            if not self.is_ignored(key):
                self.timeline.heed(key)

    def note(self, text: str, *, role: str = "note", last_seq: int = 0) -> None:
        """Add a line of our own."""
        self.timeline.note(text, _now(), role, last_seq=last_seq)

    def add_pending(self, entry: Entry) -> None:
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
        read = self.timeline.read_up_to(last)
        self.timeline.read(read)
        if self.timeline.marker is not None:
            if first <= self.timeline.marker <= last:
                self._marker_seen = True
            elif self.pane.following:
                self.pass_marker()
        if self._reading and not self.pane.following and self.timeline.marker is None:
            self.leave()
        self._reading = self.pane.following
        return read

    def leave(self) -> None:
        """Reading stops here: what comes from now on is new. A marker that was not seen yet stays where it is."""
        self._reading = False
        self.pass_marker()
        if self.timeline.marker is None:
            self.timeline.set_marker()

    def pass_marker(self) -> None:
        """Take the unread marker away, if it has been seen."""
        if self._marker_seen:
            self.timeline.marker = None
            self._marker_seen = False
            self._read_before = 0

    @property
    def unread_from(self) -> int:
        """Where what is unread begins, if that has to be loaded; 0 where it has not."""
        marked = self.timeline.marker is not None and not self.timeline.full
        return self._read_before + 1 if marked and 0 < self._read_before < self.timeline.oldest - 1 else 0

    def _keep_marker(self) -> None:
        """Before the timeline looks for the marker's place anew: where there is none, there shall be none."""
        if self._reading and self.timeline.marker is None:
            self.timeline.set_marker()

    def look(self) -> bool:
        """Look at what others show of themselves. Returns whether it has changed."""
        people = self.client.people()
        if people == self.people:
            return False
        self.people = people
        self.timeline.marks = read_marks(people, (self.session.key, self.session.nick))
        return True

    # -- long work -------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """How far the work at hand has come, None where there is none."""
        if self._catching_up is not None:
            self._catching_up.at = self.session.next_seq
        going_on = (one for one in (self._working, self._catching_up) if one is not None and one.part < 1)
        return next(going_on, None)

    @property
    def loading(self) -> bool:
        return self.work is not None or self._turn.locked()

    async def load_older(self, down_to: int = 0) -> None:
        """Fetch a part of the past, or all of it from number ``down_to`` on. Raises ChatError."""
        async with self._turn:
            oldest = self.timeline.oldest
            self._working = Progress(LOADING, oldest, max(1, down_to or oldest - _PAGE))
            try:
                while self.timeline.oldest > max(1, down_to) and not self.timeline.full:
                    await self._load_page(self._working, _LARGE_PAGE if down_to else _PAGE)
                    if not down_to:
                        return
            finally:
                self._working = None

    async def _load_page(self, progress: Progress, size: int) -> None:
        timeline, oldest = self.timeline, self.timeline.oldest
        begins = max(1, oldest - size)
        found: list[Message] = []
        async with self.client.reader(begins) as reader:
            while reader.session.next_seq < oldest:
                found += [event for event in await reader.next_events() if isinstance(event, Message)]
                progress.at = oldest - min(max(reader.session.next_seq - begins, 0), oldest - begins)
            found += [event for event in reader.take() if isinstance(event, Message)]
        if timeline is self.timeline and oldest == timeline.oldest:  # else it went back, or was cleared, meanwhile
            found = [message for message in found if message.seq < oldest]
            for message in found:
                self._heard(message)
            self._keep_marker()
            timeline.add_older(found, begins)

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

    def selected(self, *, mine: bool | None = None) -> Said | None:
        """Return the selected message, else the last one: by the reader, by somebody else, or by anybody."""
        if self.pane.selected is not None:
            item = self.timeline[self.pane.selected]
            return item if isinstance(item, Said) and mine in (None, item.mine) else None
        return self.timeline.last_said(mine=mine)


class Search:
    """A walk through the messages with some text, from the newest on.

         ahead: numbers that the host has found │ found: messages that are here, by the text's letters or by the host
         500, 312 ◀── older, not loaded yet     │ ◀── at: where the walk is ──▶ newer

    What is here is searched for the letters of the text (``timeline.folded``), all of the log by the host for its
    words (``chat.search``).
    """

    def __init__(self, view: View, text: str) -> None:
        self.text: Final = text
        self.at: Said | None = None
        self.more = True  # the host may know of older ones
        self.walk: asyncio.Task[None] | None = None  # to the next one, where that takes long
        self._view = view
        self._timeline = view.timeline
        self._found: dict[tuple[int, int], Said] = {}  # by place
        self._hits: list[Said] = []  # of these the ones that can be gone to, as of the last step
        self._ahead: deque[int] = deque()  # the newest first
        self._before = 0  # what the host is asked for next is older than this number, where that is not 0
        self._low = self._high = (0, 0)  # places: between them all was looked at

    def step(self, *, older: bool) -> Said | None:
        """Go to the next hit that is here: the newest at first. Returns None where there is none, and stays."""
        self._scan()
        hits, at = self._hits, self.at
        if at is None:
            hit = hits[-1] if hits else None
        elif older:
            hit = next((item for item in reversed(hits) if item.place < at.place), None)
        else:
            hit = next((item for item in hits if item.place > at.place), None)
        self.at = hit or at
        return hit

    async def fetch(self) -> bool:
        """Have the host find more, or load what it has found. False where there is nothing more. Raises ChatError."""
        if self._ahead:
            await self._view.load_older(self._ahead[0])
            if self._oldest > self._ahead[0]:
                told = _("the next hit is too far up for this window; chat log {room} --since {number} prints it")
                raise ChatError(told.format(room=self._view.session.room, number=self._ahead[0]))
        elif self.more:
            answer = await self._view.ask_search(self.text, self._before)
            self.more = answer.more and bool(answer.found)
            self._before = answer.found[-1][0] if answer.found else self._before
            self._ahead += [seq for seq, _shown in answer.found]
        else:
            return False
        while self._ahead and self._ahead[0] >= self._oldest:
            item = self._timeline.at_seq(self._ahead.popleft())
            if item is not None:  # else its author is ignored
                self._found[item.place] = item
        self._scan()
        return True

    @property
    def is_only(self) -> bool:
        return not self.more and self.place == (1, 1)

    @property
    def place(self) -> tuple[int, int]:
        """Which of the known hits the walk is at, 1 for the newest and 0 for none; and how many are known."""
        at = len(self._hits) - self._hits.index(self.at) if self.at in self._hits else 0
        return at, len(self._hits) + len(self._ahead)

    @property
    def _oldest(self) -> int:
        """The oldest number that is here. A timeline that is full has let go of what it loaded once."""
        timeline = self._timeline
        here = (timeline[number] for number in range(timeline.first, timeline.end)) if timeline.full else ()
        return next((item.seq for item in here if isinstance(item, Said) and item.seq), timeline.oldest)

    def _scan(self) -> None:
        """Look at what has come since the last time, at either end."""
        timeline, wanted = self._timeline, folded(self.text)
        newest_first = map(timeline.__getitem__, range(timeline.end - 1, timeline.first - 1, -1))
        oldest_first = map(timeline.__getitem__, range(timeline.first, timeline.end))
        for item in chain(
            takewhile(lambda item: item.place > self._high, newest_first),
            takewhile(lambda item: item.place < self._low, oldest_first),
        ):
            if isinstance(item, Said) and wanted and wanted in folded(item.text):
                self._found[item.place] = item
        if timeline.end > timeline.first:
            self._low, self._high = timeline[timeline.first].place, timeline[timeline.end - 1].place
        self._hits = [
            item
            for _place, item in sorted(self._found.items())
            if item.number >= timeline.first and item.key not in timeline.ignored and not item.retracted
        ]


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
