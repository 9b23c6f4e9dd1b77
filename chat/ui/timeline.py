"""What the reader of one room knows: messages in the log's order, what became of them, and notes between them.

     older ──▶ │ -2 │ -1 │ 0 │ 1 │ ... │ 9997 │ ◀── newer      │ pending: said and not yet stored
     add_older   first                          add, note, move   end           last

     the log:  1 ─── │ a part of it │ ─────────── │ the timeline that is attached to the live end │
                      part, cut_out: for one who reads further up than that one reaches

     numbers: where an item stands. They never change, whether newer items come or older ones are put in front,
     so a place on the screen is a number. (Only ignoring somebody numbers anew: ``renumbered`` counts that.)

Rules:

1. Nothing here is for the eye: texts are as they came, and no word of ours is among them. No clock is read and no
   input waited for. Times are milliseconds since 1970 UTC, and the zone in which days begin is given.
2. Edits, retractions and reactions are applied in ``_apply`` and nowhere else. The outcome does not depend on the
   order in which they come, so it is the same whether the log is read forwards or older parts of it come later.
3. Only the author's key edits or takes back. An edited message shows that it was; its earlier texts can be read.
   A message that was taken back stays in its place, without its text.
4. What is kept is bounded: 10,000 items and 16 Mi characters. The oldest go first, and in a part that is added to at
   its top the newest: what goes can be loaded again. Nobody can make one message heavier than the limits at the top
   of this file.
5. What became of a message stands further down in the log than the message. All that was seen of that is kept in one
   place for all parts of a log (``Kept``, bounded too), so a message is the same in whichever part it is loaded.
"""

from __future__ import annotations

import copy
import unicodedata
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.core.text import mentions, visible
from chat.core.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from chat.core.session import Message

RING: Final = 10_000  # items
GROUP: Final = 5 * 60_000  # ms between two messages of one author, whose head is then shown once
_RING_TEXT: Final = 16 * 1024 * 1024  # characters in the ring, edits and reactions included
_KEPT_TEXT: Final = 4 * 1024 * 1024  # characters of changes, for messages that are loaded later, or again
_OVERHEAD: Final = 100  # characters that an edit or a reaction counts besides its text
_EDITS_KEPT: Final = 20  # of one message, the newest; its first text is kept too
_REACTIONS_KEPT: Final = 1_000  # on one message
_REACTIONS_OF_ONE: Final = 8  # on one message by one key
_MAX_REACTION: Final = 32  # characters: a family of four with skin tones has 11
_HIDDEN_KEPT: Final = 1_000  # messages by those who are ignored
_NAMES_KEPT: Final = 100  # in one line of who came and who went

_CHANGES: Final = frozenset({Kind.EDIT, Kind.RETRACT, Kind.REACT})


class Edit(NamedTuple):
    """A text of a message, from some time on."""

    seq: int
    time: int
    text: str


@dataclass(slots=True, eq=False)
class MessageEdits:
    """What has become of a message."""

    edits: list[Edit] = field(default_factory=list)  # in the log's order
    retracted: bool = False
    reactions: dict[tuple[str, bytes], tuple[int, str]] = field(default_factory=dict)  # (emoji, key): seq, nickname
    cleared: dict[bytes, int] = field(default_factory=dict)  # key: the number at which it took its reactions back


@dataclass(slots=True, eq=False)
class Item:
    """One entry of the timeline."""

    time: int
    number: int = field(default=0, init=False)  # where it stands
    place: tuple[int, int] = field(default=(0, 0), init=False)  # sorts all items, also those that are hidden


@dataclass(slots=True, eq=False)
class Said(Item):
    """A message. What it says now is ``text``."""

    seq: int  # 0 where it has no number (yet), or had it in a log that is no more
    key: bytes
    nick: str
    bot: bool
    kind: int
    first_text: str
    target: int  # the message it answers, 0 for none
    mine: bool  # by the reader's key
    pending: bool = False
    mentioned: bool = False  # the reader, by somebody else
    changes: MessageEdits | None = None

    @property
    def retracted(self) -> bool:
        return self.changes is not None and self.changes.retracted

    @property
    def edited(self) -> bool:
        return self.changes is not None and bool(self.changes.edits)

    @property
    def text(self) -> str:
        """What it says now: nothing where it was taken back."""
        if self.changes is None:
            return self.first_text
        if self.changes.retracted:
            return ""
        return self.changes.edits[-1].text if self.changes.edits else self.first_text

    @property
    def earlier(self) -> list[Edit]:
        """What it said before, from the first text on; nothing where it was taken back."""
        if not self.edited or self.changes is None or self.retracted:
            return []
        return [Edit(self.seq, self.time, self.first_text), *self.changes.edits[:-1]]


@dataclass(slots=True, eq=False)
class Note(Item):
    """A line of our own: what a command answers, a link that is lost, a gap."""

    text: str
    role: str = "note"


@dataclass(slots=True, eq=False)
class Moves(Item):
    """Who came and who went, without a message between."""

    # (key, nickname): whether the first and the last that happened was to come
    names: dict[tuple[bytes, str], tuple[bool, bool]] = field(default_factory=dict)
    more: int = 0  # how often others moved

    def of(self, *, first: bool, last: bool) -> list[str]:
        """Return the nicknames of those whose first and last move was to come, or to go.

        (True, True) came, (False, False) left, (True, False) came and left, (False, True) came back.
        """
        return [nick for (_, nick), moved in self.names.items() if moved == (first, last)]


Change: TypeAlias = "Message"  # of one of the kinds _CHANGES


class Kept:
    """The changes that were seen in a log, by the messages that they are about."""

    def __init__(self) -> None:
        self.since = 0  # all changes from this number of the log on were seen; 0 for none yet
        self.size = 0  # characters
        # By the changed message; within, edits by their authors, and the others (None). The first one goes first.
        self._changes: dict[int, dict[bytes | None, dict[int, Change]]] = {}

    def add(self, change: Change) -> None:
        by_author = self._changes.setdefault(change.target, {})
        changes = by_author.setdefault(change.author.key if change.kind == Kind.EDIT else None, {})
        if change.seq in changes:
            return
        changes[change.seq] = change
        self.size += len(change.text) + _OVERHEAD
        if change.kind == Kind.EDIT and len(changes) > _EDITS_KEPT:
            self.size -= len(changes.pop(min(changes)).text) + _OVERHEAD
        while self.size > _KEPT_TEXT:
            gone = self._changes.pop(next(iter(self._changes)))
            self.size -= sum(len(c.text) + _OVERHEAD for changes in gone.values() for c in changes.values())

    def of(self, seq: int) -> Iterator[Change]:
        for changes in self._changes.get(seq, {}).values():
            yield from changes.values()

    def clear(self) -> None:
        self._changes.clear()
        self.size = self.since = 0


class Timeline:
    """One room, as its reader knows it.

    ``key`` and ``nick`` are the reader's own; ``nick`` may be set when the host gives another. ``zone`` is that in
    which days begin, None for this machine's. ``kept`` is that of another timeline of the same log.
    """

    def __init__(
        self, key: bytes, nick: str = "", zone: tzinfo | None = None, *, kept: Kept | None = None, attached: bool = True
    ) -> None:
        self.key: Final = key
        self.kept: Final = kept or Kept()
        self.attached: Final = attached  # to the live end; else it is a part further up, which is added to at both ends
        self.nick = nick
        self.ignored: set[bytes] = set()
        self.marks: list[int] = []  # how far others have read; for ``seen``
        self.last_seq = 0  # the newest number known, also of what has no line of its own
        # The oldest number known: ask for what is below it; 0 where there is nothing to ask for. Set it to the log's
        # end where one joins without history.
        self.oldest = 0
        self.unread = 0  # messages by others after the read mark, of those that are or were in the ring
        self.unread_mentions = 0
        self.marker: int | None = None  # the number of the item above which the unread marker stands
        self.last_mine: Said | None = None  # the newest message by the reader's key that is stored
        self.renumbered = 0
        self._zone = zone
        self._ring: deque[Item] = deque()
        self._first = 0
        self._by_seq: dict[int, Said] = {}
        self._hidden: deque[Said] = deque()  # by those who are ignored
        self._pending: list[tuple[object, Said]] = []
        self._size = 0
        self._read = 0
        self._let_go = 0  # unread messages that had to go
        self._marked: int | None = None  # the read mark when the marker was set
        self._base = 0  # what numbers of logs before this one came to; nothing older can be put in front of those
        self._arrived = 0

    # -- where things stand ----------------------------------------------------------------------

    @property
    def first(self) -> int:
        return self._first

    @property
    def end(self) -> int:
        """The number after the ring's last item. What is pending follows from here on, up to ``last``."""
        return self._first + len(self._ring)

    @property
    def last(self) -> int:
        return self.end + len(self._pending)

    @property
    def full(self) -> bool:
        """Whether there is no room: for older items, where it is attached, and else without letting go of others."""
        return len(self._ring) >= RING or self._size >= _RING_TEXT

    @property
    def marked(self) -> int:
        """The number after which all is unread, as the marker has it; 0 for the whole log, or without one."""
        return self._marked or 0

    def holds(self, seq: int) -> bool:
        """Say whether what has this number in the log is here, where it has a line at all."""
        return max(self.oldest, 1) <= seq <= self.last_seq

    def __getitem__(self, number: int) -> Item:
        """Return the item that stands at a number. Raises IndexError outside ``first`` to ``last``."""
        at = number - self._first
        if at < 0:
            raise IndexError(number)
        return self._ring[at] if at < len(self._ring) else self._pending[at - len(self._ring)][1]

    def before(self, number: int) -> Item | None:
        return self[number - 1] if number > self._first else None

    def at_seq(self, seq: int) -> Said | None:
        """Return the message with this number in the log, where it is loaded and not hidden."""
        item = self._by_seq.get(seq)
        return None if item is None or item.key in self.ignored else item

    def local(self, time: int) -> datetime:
        """Return a time in the reader's zone."""
        return datetime.fromtimestamp(time / 1000, UTC).astimezone(self._zone)

    def day_begins(self, number: int) -> date | None:
        """Return the day of an item where the one before it is of another day, or is none."""
        before, day = self.before(number), self.local(self[number].time).date()
        return None if before is not None and self.local(before.time).date() == day else day

    def goes_on(self, number: int) -> bool:
        """Say whether a message follows another one of its author so closely that its head need not be shown."""
        item, before = self[number], self.before(number)
        return (
            isinstance(item, Said)
            and isinstance(before, Said)
            and item.kind == before.kind == Kind.SAY
            and (item.key, item.nick) == (before.key, before.nick)
            and not item.target
            and abs(item.time - before.time) <= GROUP
            and number != self.marker
            and self.day_begins(number) is None
        )

    # -- what comes ------------------------------------------------------------------------------

    def add(self, message: Message) -> None:
        """Take the next message of the log."""
        self.last_seq = max(self.last_seq, message.seq)
        if self.attached:
            self.kept.since = self.kept.since or message.seq
        if not self._base:
            self.oldest = self.oldest or message.seq
        if message.kind in _CHANGES:
            self._change(message)
        elif message.seq not in self._by_seq:
            self._append(self._said(message))

    def add_older(self, messages: Sequence[Message], begins: int = 0) -> int:
        """Put a part of the log in front: all that was said from number ``begins`` up to ``oldest``, in order.

        Without ``begins`` the part begins with its first message. Returns how many items were put in front. For what
        does not fit the newest go, at most a quarter of what can be kept; more is left out, from the oldest on. In a
        timeline that is attached they must stay, and ``full`` says so.
        """
        begins = begins or (messages[0].seq if messages else self.oldest)
        added = weight = 0
        for message in reversed(messages):
            if not 0 < message.seq < self.oldest:
                continue
            if self.full if self.attached else _is_a_quarter(added, weight):
                begins = message.seq + 1
                break
            self.oldest = message.seq
            if message.kind in _CHANGES:
                self._change(message)
                continue
            if message.seq in self._by_seq:  # it was hidden, and is still known
                continue
            item = self._said(message)
            self._settle_changes(item)
            self._by_seq[item.seq] = item
            if item.key in self.ignored:
                self._hide(item)
                continue
            self._first -= 1
            item.number = self._first
            self._ring.appendleft(item)
            self._size += _weight(item)
            weight += _weight(item)
            self._let_go -= self._let_go > 0 and self._is_unread(item)
            added += 1
            self._shrink_below()
        self.oldest = min(self.oldest, begins)
        if self.attached:
            self.kept.since = min(self.kept.since, self.oldest)
        self._find_marker()
        self._count_unread()
        return added

    def add_newer(self, messages: Iterable[Message], ends: int) -> None:
        """Add to a part what was said after it, in order: all up to and without number ``ends``.

        For what does not fit the oldest go, at most a quarter of what can be kept; more is left out.
        """
        begins, before, weight = self.last_seq, self.end, 0
        for message in messages:
            if begins < message.seq < ends:
                if _is_a_quarter(self.end - before, weight):
                    ends = message.seq
                    break
                self.add(message)
                item = self._by_seq.get(message.seq)
                weight += 0 if item is None else _weight(item)
        self.last_seq = max(self.last_seq, ends - 1)

    def learn(self, messages: Iterable[Message]) -> None:
        """Take, of what stands elsewhere in the log, that which became of messages."""
        for message in messages:
            if message.kind in _CHANGES:
                self._change(message)

    def catch_up(self) -> None:
        """Take what became of messages here while only another timeline of this log was told."""
        self.learn([change for item in self._ring if isinstance(item, Said) for change in self.kept.of(item.seq)])

    def note(self, text: str, now: int, role: str = "note", *, last_seq: int = 0) -> None:
        """Add a line of our own. ``last_seq``: the last number of a gap that it tells of."""
        self.last_seq = max(self.last_seq, last_seq)
        self._append(Note(now, text, role))

    def move(self, came: Iterable[tuple[bytes, str]], went: Iterable[tuple[bytes, str]], now: int) -> None:
        """Tell of those who came and who went, by key and nickname: in one line until something else happens."""
        moved = [(who, True) for who in came] + [(who, False) for who in went]
        moved = [(who, comes) for who, comes in moved if who[0] not in self.ignored]
        if not moved:
            return
        last = self._ring[-1] if self._ring else None
        if not isinstance(last, Moves) or self.local(last.time).date() != self.local(now).date():
            last = Moves(now)
            self._append(last)
        for who, comes in moved:
            if who in last.names or len(last.names) < _NAMES_KEPT:
                last.names[who] = (last.names.get(who, (comes, comes))[0], comes)
            else:
                last.more += 1

    def rewound(self) -> None:
        """What follows is another log, whose numbers begin anew. What was said stays, and can be read."""
        for item in (*self._ring, *self._hidden):
            if isinstance(item, Said):
                item.seq = 0
        self._base += self.last_seq + 1
        self._by_seq.clear()
        self.kept.clear()
        self.marks.clear()
        self._let_go = self.last_seq = self.oldest = self._read = 0
        self._marked = self.marker = None
        self._count_unread()

    # -- parts further up ------------------------------------------------------------------------

    def part(self, begins: int) -> Timeline:
        """Return another timeline of this log, not attached to its end: empty as yet, before number ``begins``."""
        made = Timeline(self.key, self.nick, self._zone, kept=self.kept, attached=False)
        made.ignored, made.marks = set(self.ignored), self.marks
        made.oldest, made.last_seq = begins, begins - 1
        made._base, made._read, made._marked = self._base, self._read, self._marked
        return made

    def cut_out(self, first: int, end: int) -> Timeline | None:
        """Return a part that has the items of these numbers, and these numbers. None where none is of this log."""
        numbers = range(max(first, self._first), min(end, self.end))
        seqs = [item.seq for item in map(self.__getitem__, numbers) if isinstance(item, Said) and item.seq]
        if not seqs:
            return None
        made = self.part(self.oldest if numbers.start == self._first else seqs[0])
        made._first = numbers.start
        for number in numbers:
            item = copy.copy(self[number])
            if isinstance(item, Said) and item.seq:
                item.changes = copy.deepcopy(item.changes)
                made._by_seq[item.seq] = item
            made._ring.append(item)
        made._size = sum(map(_weight, made._ring))
        made.last_seq = self.last_seq if numbers.stop == self.end else seqs[-1]
        made._find_marker()
        made._count_unread()
        return made

    def place_of(self, seq: int) -> tuple[int, int]:
        """Return the place of what has this number in the log: it sorts with those of items."""
        return self._base + seq, 0

    # -- what the reader says --------------------------------------------------------------------

    def add_pending(self, entry: object, kind: int, text: str, target: int, now: int) -> None:
        """Show what was said below all else until it is stored. ``entry`` is what ``settle`` is told later.

        Edits, retractions and reactions have no line: they show when the log has them.
        """
        if kind not in _CHANGES:
            item = Said(now, 0, self.key, self.nick, False, kind, text, target, mine=True, pending=True)
            self._pending.append((entry, item))

    def settle(self, entry: object, seq: int) -> None:
        """It is stored, as this number; 0 where its number cannot be known any more, and no echo comes."""
        for at, (waiting, item) in enumerate(self._pending):
            if waiting is entry:
                del self._pending[at]
                if seq not in self._by_seq:
                    item.pending = False
                    self._append(item)
                return

    def drop(self, entry: object) -> None:
        """It was rejected: show it no longer."""
        self._pending = [(waiting, item) for waiting, item in self._pending if waiting is not entry]

    def seen(self, item: Said) -> tuple[int, int]:
        """Return how many others are known to have read a message, of how many."""
        return sum(mark >= item.seq > 0 for mark in self.marks), len(self.marks)

    # -- what is read ----------------------------------------------------------------------------

    def read(self, seq: int) -> None:
        """Move the read mark to this number of the log; never back."""
        if seq > self._read:
            self._read = seq
            # What has been let go is known by its number only: of what is unread there can be no more than numbers.
            self._let_go = min(self._let_go, max(self.oldest - 1 - seq, 0))
            self._count_unread()

    def set_marker(self) -> None:
        """Put the unread marker where reading stopped: at the start, and when the reader looks elsewhere."""
        self._marked = self._read
        self._find_marker()

    def read_up_to(self, number: int) -> int:
        """Return the number of the log up to which all has been read by one who has seen the items up to this one."""
        for later in range(max(number + 1, self._first), self.end):
            item = self[later]
            if isinstance(item, Said) and item.seq:
                return item.seq - 1
        return self.last_seq

    def find(self, query: str, start: int | None = None, *, backwards: bool = True) -> int | None:
        """Return the number of the next message with ``query`` in its text, None where there is none.

        Case and width do not matter (NFKC, case folding). Looks before (``backwards``) or after the number
        ``start``; without it from the end, or from the beginning.
        """
        wanted = folded(query)
        for item in self._walk(start, backwards=backwards) if wanted else ():
            if wanted in folded(item.text):
                return item.number
        return None

    def last_said(self, *, mine: bool | None = None) -> Said | None:
        """Return the last message that stands: by the reader, by somebody else, or by anybody."""
        for item in reversed(self._ring):
            if isinstance(item, Said) and item.seq and not item.retracted and mine in (None, item.mine):
                return item
        return None

    def find_mention(self, start: int | None = None, *, backwards: bool = True) -> int | None:
        """Return the number of the next message that addresses the reader."""
        return next((item.number for item in self._walk(start, backwards=backwards) if item.mentioned), None)

    def reactions(self, item: Said) -> list[tuple[str, list[str]]]:
        """Return each reaction to a message with the nicknames of those who gave it, in the order of the first."""
        if item.changes is None or item.retracted:
            return []
        given: dict[str, list[str]] = {}
        for (emoji, key), (_, nick) in sorted(item.changes.reactions.items(), key=lambda reaction: reaction[1][0]):
            if key not in self.ignored:
                given.setdefault(emoji, []).append(nick)
        return list(given.items())

    # -- who is not heard ------------------------------------------------------------------------

    def ignore(self, key: bytes) -> None:
        """Hide what this key says, said and does. Numbers begin anew."""
        self.ignored.add(key)
        for item in self._ring:
            if isinstance(item, Said) and item.key == key:
                self._hide(item)
        self._renumber(item for item in self._ring if not isinstance(item, Said) or item.key != key)

    def heed(self, key: bytes) -> None:
        """Show again what this key says, and the last 1,000 messages that were hidden. Numbers begin anew."""
        self.ignored.discard(key)
        back = []
        for item in [item for item in self._hidden if item.key == key]:
            if 0 < item.seq < self.oldest:  # below it there would be a hole
                del self._by_seq[item.seq]
            else:
                back.append(item)
        self._hidden = deque(item for item in self._hidden if item.key != key)
        self._renumber(sorted((*self._ring, *back), key=lambda item: item.place))

    # -- inside ----------------------------------------------------------------------------------

    def _said(self, message: Message) -> Said:
        mine = message.author.key == self.key
        item = Said(
            message.time,
            message.seq,
            message.author.key,
            message.author.nick,
            message.author.bot,
            message.kind,
            message.text,
            message.target,
            mine,
            mentioned=not mine and mentions(message.text, self.nick),
        )
        item.place = self.place_of(message.seq)
        return item

    def _append(self, item: Item) -> None:
        if isinstance(item, Said) and item.seq:
            self._settle_changes(item)
            self._by_seq[item.seq] = item
        else:
            self._arrived += 1
            item.place = (self._base + self.last_seq, self._arrived)
        if isinstance(item, Said) and item.key in self.ignored:
            self._hide(item)
            return
        if isinstance(item, Said) and item.mine and self.attached:
            self.last_mine = item
        item.number = self.end
        self._ring.append(item)
        self._size += _weight(item)
        if isinstance(item, Said) and self._is_unread(item):
            self.unread += 1
            self.unread_mentions += item.mentioned
        if isinstance(item, Said) and self.marker is None and self._is_marked(item):
            self.marker = item.number
        self._shrink()

    def _shrink(self) -> None:
        """Let the oldest go."""
        while len(self._ring) > RING or (self._size > _RING_TEXT and len(self._ring) > 1):
            item = self._ring.popleft()
            self._first += 1
            self._size -= _weight(item)
            if isinstance(item, Said) and item.seq:
                del self._by_seq[item.seq]
                self.oldest = item.seq + 1
                if self._is_unread(item):
                    self._let_go += 1
                    self.unread_mentions -= item.mentioned
            if self.marker == item.number:
                self._find_marker()

    def _shrink_below(self) -> None:
        """Let the newest of a part go."""
        while len(self._ring) > RING or (self._size > _RING_TEXT and len(self._ring) > 1):
            item = self._ring.pop()
            self._size -= _weight(item)
            if isinstance(item, Said) and item.seq:
                del self._by_seq[item.seq]
                self.last_seq = item.seq - 1

    def _hide(self, item: Said) -> None:
        self._hidden.append(item)
        if len(self._hidden) > _HIDDEN_KEPT:
            self._by_seq.pop(self._hidden.popleft().seq, None)

    def _renumber(self, items: Iterable[Item]) -> None:
        self._ring = deque(items)
        self._first = 0
        for number, item in enumerate(self._ring):
            item.number = number
        self._size = sum(map(_weight, self._ring))
        self._shrink()
        self.renumbered += 1
        self._find_marker()
        self._count_unread()

    def _walk(self, start: int | None, *, backwards: bool) -> Iterator[Said]:
        if backwards:
            numbers = range(min(self.end if start is None else start, self.end) - 1, self._first - 1, -1)
        else:
            numbers = range(max(self._first if start is None else start + 1, self._first), self.end)
        for number in numbers:
            item = self[number]
            if isinstance(item, Said):
                yield item

    def _is_unread(self, item: Said) -> bool:
        return item.seq > self._read and not item.mine

    def _count_unread(self) -> None:
        self.unread, self.unread_mentions = self._let_go, 0
        for item in reversed(self._ring):
            if isinstance(item, Said) and item.seq:
                if item.seq <= self._read:
                    return
                self.unread += not item.mine
                self.unread_mentions += item.mentioned

    def _find_marker(self) -> None:
        self.marker = None
        if self._marked is not None:
            found = (item.number for item in self._ring if isinstance(item, Said) and self._is_marked(item))
            self.marker = next(found, None)

    def _is_marked(self, item: Said) -> bool:
        """Whether the marker may stand above a message. In a part it does not where what is unread begins before it."""
        if self._marked is None or item.seq <= self._marked or item.mine:
            return False
        return self.attached or self._marked >= self.oldest - 1

    # -- what becomes of messages ----------------------------------------------------------------

    def _change(self, change: Change) -> None:
        """Apply a change, or keep it for a message that is older than what is loaded."""
        if not 0 < change.target < change.seq:  # nobody changes what is still to be said
            return
        item = self._by_seq.get(change.target)
        if item is not None or not self.holds(change.target):
            self.kept.add(change)
        if item is not None:
            weight, mentioned = _weight(item), item.mentioned
            self._apply(item, change)
            if item.key not in self.ignored:
                self._size += _weight(item) - weight
                if self._is_unread(item):
                    self.unread_mentions += item.mentioned - mentioned
                self._shrink()

    def _settle_changes(self, item: Said) -> None:
        for change in self.kept.of(item.seq):
            self._apply(item, change)

    def _apply(self, item: Said, change: Change) -> None:
        """Apply an edit, a retraction or a reaction.

        In whatever order these come, and how often, the outcome is the same.
        """
        key = change.author.key
        if change.kind != Kind.REACT and key != item.key:
            return
        made = item.changes = item.changes or MessageEdits()
        if change.kind == Kind.RETRACT:
            made.retracted = True
            item.mentioned = False
        elif change.kind == Kind.EDIT:
            if all(edit.seq != change.seq for edit in made.edits):
                insort(made.edits, Edit(change.seq, change.time, change.text))
            del made.edits[:-_EDITS_KEPT]
            item.mentioned = not item.mine and mentions(item.text, self.nick)
        elif not change.text:
            made.cleared[key] = max(made.cleared.get(key, 0), change.seq)
            for reaction in [r for r, (seq, _) in made.reactions.items() if r[1] == key and seq < change.seq]:
                del made.reactions[reaction]
        elif change.seq > made.cleared.get(key, 0) and (emoji := _emoji(change.text)):
            given = made.reactions.get((emoji, key))
            if given is None and not _takes_more(made, key):
                return
            if given is None or change.seq < given[0]:
                made.reactions[emoji, key] = (change.seq, change.author.nick)


def folded(text: str) -> str:
    """Return a text as it is compared in a search: case and width do not matter."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", visible(text)).casefold()  # visible: long runs of marks take quadratic time


def _emoji(text: str) -> str:
    """Return what a reaction counts as, "" for what nobody would see. With VS16 and without, an emoji is the same."""
    return visible(text[:_MAX_REACTION], lines=False).replace("\ufe0f", "").strip()


def _takes_more(changes: MessageEdits, key: bytes) -> bool:
    mine = sum(other == key for _, other in changes.reactions)
    return mine < _REACTIONS_OF_ONE and len(changes.reactions) < _REACTIONS_KEPT


def _is_a_quarter(items: int, weight: int) -> bool:
    return items >= RING // 4 or weight >= _RING_TEXT // 4


def _weight(item: Item) -> int:
    """Return the characters that an item counts."""
    match item:
        case Said():
            made = item.changes
            more = 0
            if made is not None:
                more = sum(len(edit.text) + _OVERHEAD for edit in made.edits)
                more += (len(made.reactions) + len(made.cleared)) * _OVERHEAD
            return len(item.first_text) + more
        case Note():
            return len(item.text)
    return 0
