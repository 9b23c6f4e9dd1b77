"""What the reader of one room knows: messages in the log's order, what became of them, and notes between them.

     older ──▶ │ -2 │ -1 │ 0 │ 1 │ ... │ 9997 │ ◀── newer          │ pending: sent and not stored yet
     add_older   first                          add, note, presence  end         last

     the log:  1 ─── │ a part of it │ ─────────── │ the timeline attached to its live end │

Rules:

1. Nothing here is for the eye: texts are as they came, and none of them is ours. No clock, no input. Times are
   milliseconds since 1970 UTC.
2. Memory is bounded: the oldest entries are evicted first, or the newest of a part that grows at its top. What was
   evicted can be loaded again. Nobody can make one message heavier than the limits in ``entry``.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from chat.core.text import visible
from chat.ui.entry import CHANGES, MessageEntry, NoteEntry, PresenceEntry, is_change
from chat.ui.ring import EditCache, Ring, is_quarter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from chat.core.events import Message
    from chat.ui.entry import Entry

_MAX_HIDDEN: Final = 1_000  # messages by ignored people


class ReadState:
    """How far the reader of a timeline has read, and where the unread marker stands. Their own messages are read."""

    def __init__(self, timeline: Timeline) -> None:
        self.last_read = 0  # all up to this number of the log has been read
        self.unread = 0  # unread messages that are in the ring, or were evicted from it
        self.mentions = 0  # of those in the ring
        self.marker: int | None = None  # the number of the entry below the unread marker
        self.marker_seq: int | None = None  # what had been read when the marker was placed
        self.new = 0  # messages below the marker that came before the reader had read all
        self._caught_up = False  # the reader has read all since the marker was placed
        self._evicted = 0  # unread messages
        self._timeline: Final = timeline

    @property
    def first_unread(self) -> int:
        """The number of the log from which on messages are below the marker; 1 without a marker."""
        return (self.marker_seq or 0) + 1

    def mark_read(self, seq: int) -> None:
        """Everything up to this number of the log has been read. Never moves back."""
        if seq > self.last_read:
            self.last_read = seq
            # Only the numbers of evicted messages are known, so at most so many of them are unread.
            self._evicted = min(self._evicted, max(self._timeline.oldest - 1 - seq, 0))
            self.recount()
            self._caught_up = self._caught_up or not self.unread

    def read_up_to(self, number: int) -> int:
        """Return the number of the log up to which somebody has read who has seen the entries up to this one."""
        timeline = self._timeline
        later = map(timeline.__getitem__, range(max(number + 1, timeline.first), timeline.end))
        unseen = (entry.seq - 1 for entry in later if isinstance(entry, MessageEntry) and entry.seq)
        return next(unseen, timeline.last_seq)

    def place_marker(self) -> None:
        """Put the marker where reading stopped: at the start, and when the reader looks elsewhere."""
        self.marker_seq = self.last_read
        self._caught_up = False
        self.find_marker()
        self._count_new()

    def find_marker(self) -> None:
        self.marker = None
        if self.marker_seq is not None:
            messages = self._timeline.messages()
            self.marker = next((entry.number for entry in messages if self._is_below_marker(entry)), None)

    def _count_new(self) -> None:
        if not self._caught_up:
            self.new = sum(map(self._is_below_marker, self._timeline.messages()))

    def _is_below_marker(self, entry: MessageEntry) -> bool:
        """Whether the marker may stand above a message. Not in a part that begins after the first unread message."""
        if self.marker_seq is None or entry.seq <= self.marker_seq or entry.mine or entry.decision is not None:
            return False
        return self._timeline.attached or self.marker_seq >= self._timeline.oldest - 1

    def includes(self, entry: MessageEntry) -> bool:
        return entry.seq > self.last_read and not entry.mine and entry.decision is None

    def recount(self) -> None:
        self.unread, self.mentions = self._evicted, 0
        for entry in self._timeline.messages(newest_first=True):
            if not entry.seq:  # of another log, or its number is unknown
                continue
            if entry.seq <= self.last_read:
                return
            self.unread += self.includes(entry)
            self.mentions += entry.mentioned

    def add(self, entry: MessageEntry) -> None:
        """A message was appended."""
        if self.includes(entry):
            self.unread += 1
            self.mentions += entry.mentioned
        if self._is_below_marker(entry):
            self.marker = entry.number if self.marker is None else self.marker
            self.new += not self._caught_up

    def evict(self, entry: MessageEntry) -> None:
        """The oldest message was evicted."""
        if self.includes(entry):
            self._evicted += 1
            self.mentions -= entry.mentioned
        if self.marker == entry.number:
            self.find_marker()

    def restore(self, entry: MessageEntry) -> None:
        """An older message was put in front. It may have been evicted before; ``recount`` follows."""
        self._evicted -= self._evicted > 0 and self.includes(entry)

    def refresh(self) -> None:
        """Count anew, and find the marker's place."""
        self.find_marker()
        self._count_new()
        self.recount()

    def reset(self) -> None:
        """Another log follows."""
        self.last_read = self._evicted = 0
        self.marker_seq = None
        self.refresh()


class Timeline(Ring):
    """One room, as its reader knows it.

    ``key`` and ``nick`` are the reader's. ``zone`` is where days begin, None for this machine's. Timelines of one log
    share ``edits``. ``attached``: to the live end; other timelines are parts further up, which grow at both ends.
    """

    def __init__(
        self, key: bytes, nick: str = "", zone: tzinfo | None = None, *, edits: EditCache | None = None
    ) -> None:
        super().__init__()
        self.key: Final = key
        self.nick = nick
        self.attached = True
        self.edits: Final = edits or EditCache()
        self.read_state: Final = ReadState(self)
        self.ignored: set[bytes] = set()
        self.receipts: list[int] = []  # how far others have read; for ``read_by``
        self.all_read = 0  # the number of the reader's newest message that all others had read, some left since
        self.last_seq = 0  # the newest number known, also of what has no entry of its own
        self.oldest = 0  # the oldest number known: ask for what is below it; 0 if there is nothing to ask for
        self.last_mine: MessageEntry | None = None  # the newest stored message by the reader
        self.renumbered = 0  # how often all entries got new numbers
        self._zone = zone
        self._by_seq: dict[int, MessageEntry] = {}
        self._hidden: deque[MessageEntry] = deque()  # by ignored people
        self._pending: dict[int, MessageEntry] = {}  # by id() of what was sent, which the session holds meanwhile
        self._base = 0  # the total of the numbers of earlier logs, which sort before this one
        self._arrived = 0

    @property
    def last(self) -> int:
        """The number after the last pending message; these follow from ``end`` on."""
        return self.end + len(self._pending)

    def holds(self, seq: int) -> bool:
        """Whether this number of the log is loaded, if it has an entry at all."""
        return max(self.oldest, 1) <= seq <= self.last_seq

    def __getitem__(self, number: int) -> Entry:
        """Return the entry with this number. Raises IndexError outside ``first`` to ``last``."""
        after = number - self.end
        return super().__getitem__(number) if after < 0 else list(self._pending.values())[after]

    def at_seq(self, seq: int) -> MessageEntry | None:
        """Return the message with this number in the log, if it is loaded and not hidden."""
        entry = self._by_seq.get(seq)
        return None if entry is None or entry.key in self.ignored else entry

    def order_of(self, seq: int) -> tuple[int, int]:
        """Return the ``Entry.order`` of this number of the log."""
        return self._base + seq, 0

    def local(self, time: int) -> datetime:
        """Return a time in the reader's zone."""
        return datetime.fromtimestamp(time / 1000, UTC).astimezone(self._zone)

    # -- what comes ------------------------------------------------------------------------------

    def add(self, message: Message) -> None:
        """Take the next message of the log."""
        self.last_seq = max(self.last_seq, message.seq)
        if self.attached:
            self.edits.since = self.edits.since or message.seq
        if not self._base:
            self.oldest = self.oldest or message.seq
        if is_change(message):
            self._change(message)
        elif message.seq not in self._by_seq:
            self._append(self._entry(message))

    def add_older(self, messages: Sequence[Message], begins: int = 0) -> int:
        """Put a part of the log in front: everything from ``begins``, or its first message, up to ``oldest``, in order.

        In a part the newest entries make room, for at most a quarter of the ring; an attached timeline takes only what
        fits, without the oldest messages. Returns how many entries were added.
        """
        begins = begins or (messages[0].seq if messages else self.oldest)
        added = weight = 0
        for message in reversed(messages):
            if not 0 < message.seq < self.oldest:
                continue
            if self.full if self.attached else is_quarter(added, weight):
                begins = message.seq + 1
                break
            self.oldest = message.seq
            if is_change(message):
                self._change(message)
            elif message.seq not in self._by_seq:  # else it is hidden
                entry = self._entry(message)
                if entry.key in self.ignored:
                    self._hide(entry)
                    continue
                self.append_left(entry)
                weight += entry.weight
                self.read_state.restore(entry)
                added += 1
        self._evict(newest=True)
        self.oldest = min(self.oldest, begins)
        if self.attached:
            self.edits.since = min(self.edits.since, self.oldest)
        self.read_state.refresh()
        return added

    def add_newer(self, messages: Iterable[Message], ends: int) -> None:
        """Append to a part what follows in the log, in order: everything below number ``ends``.

        The oldest entries make room, for at most a quarter of the ring; the newest messages are left out.
        """
        begins, before, weight = self.last_seq, self.end, 0
        for message in messages:
            if begins < message.seq < ends:
                if is_quarter(self.end - before, weight):
                    ends = message.seq
                    break
                self.add(message)
                weight += self._by_seq[message.seq].weight if message.seq in self._by_seq else 0
        self.last_seq = max(self.last_seq, ends - 1)

    def apply_changes(self, messages: Iterable[Message]) -> None:
        """Apply the changes among messages from elsewhere in the log."""
        for message in messages:
            if is_change(message):
                self._change(message)

    def catch_up(self) -> None:
        """Apply the changes that only another timeline of this log was given."""
        self.apply_changes([change for entry in self.messages() for change in self.edits.of(entry.seq)])

    def note(self, text: str, now: int, *, last_seq: int = 0) -> None:
        """Add a line of ours. ``last_seq``: the last number of a gap that it reports."""
        self.last_seq = max(self.last_seq, last_seq)
        self._append(NoteEntry(now, text))

    def presence(self, came: Iterable[tuple[bytes, str]], left: Iterable[tuple[bytes, str]], now: int) -> None:
        """Say who came and who left, by key and nickname: in one line until something else happens."""
        moved = [(who, True) for who in came] + [(who, False) for who in left]
        for who, comes in [(who, comes) for who, comes in moved if who[0] not in self.ignored]:
            last = next(reversed(self), None)
            if not isinstance(last, PresenceEntry) or self.local(last.time).date() != self.local(now).date():
                last = PresenceEntry(now)
                self._append(last)
            last.record(who, came=comes)

    def rewound(self) -> None:
        """Another log follows, numbered from 1. Earlier messages stay and can be read."""
        for entry in (*self.messages(), *self._hidden):
            entry.seq = 0
        self._base += self.last_seq + 1
        self._by_seq.clear()
        self.edits.clear()
        self.receipts.clear()
        self.all_read = 0
        self.last_seq = self.oldest = 0
        self.read_state.reset()

    # -- parts further up ------------------------------------------------------------------------

    def part(self, begins: int) -> Timeline:
        """Return an empty timeline of this log, which is not attached and stands before number ``begins``."""
        part = Timeline(self.key, self.nick, self._zone, edits=self.edits)
        part.attached = False
        part.ignored, part.receipts = set(self.ignored), self.receipts
        part.oldest, part.last_seq = begins, begins - 1
        part._base, state = self._base, self.read_state
        part.read_state.last_read, part.read_state.marker_seq = state.last_read, state.marker_seq
        return part

    def cut_out(self, first: int, end: int) -> Timeline | None:
        """Return a part with copies of these entries, under the same numbers. None if none of them is of this log."""
        numbers = range(max(first, self.first), min(end, self.end))
        entries = [copy(self[number]) for number in numbers]
        messages = [entry for entry in entries if isinstance(entry, MessageEntry) and entry.seq]
        if not messages:
            return None
        part = self.part(self.oldest if numbers.start == self.first else messages[0].seq)
        part.first = numbers.start
        part._by_seq = {entry.seq: entry for entry in messages}
        for copied in entries:
            part.append(copied)
        part.last_seq = self.last_seq if numbers.stop == self.end else messages[-1].seq
        part.read_state.refresh()
        return part

    # -- what the reader sends -------------------------------------------------------------------

    def add_pending(self, sent: object, kind: int, text: str, target: int, now: int) -> None:
        """Show a message below all else until ``settle`` or ``drop`` is called with the same ``sent``."""
        if kind not in CHANGES:  # these show once they are in the log
            entry = MessageEntry(now, 0, self.key, self.nick, False, kind, text, target, mine=True, pending=True)
            self._pending[id(sent)] = entry

    def settle(self, sent: object, seq: int) -> MessageEntry | None:
        """It is stored under this number, 0 for an unknown one. Return its entry, None if it was not pending."""
        entry = self._pending.pop(id(sent), None)
        if entry is not None:
            entry.seq = seq
        if entry is not None and seq not in self._by_seq:
            entry.pending = False
            self._append(entry)
        return entry

    def drop(self, sent: object) -> None:
        """It was rejected: show it no longer."""
        self._pending.pop(id(sent), None)

    def last_pending(self) -> MessageEntry | None:
        """Return the newest message that is not stored yet, unless it is taken back."""
        return next((entry for entry in reversed(self._pending.values()) if not entry.retracted), None)

    def is_sent_as(self, entry: MessageEntry, sent: object) -> bool:
        """Whether this entry is pending for what ``add_pending`` was given."""
        return self._pending.get(id(sent)) is entry

    def read_by(self, entry: MessageEntry) -> tuple[int, int]:
        """Return how many others have read a message, of how many."""
        return sum(receipt >= entry.seq > 0 for receipt in self.receipts), len(self.receipts)

    def reactions(self, entry: MessageEntry) -> list[tuple[str, list[str]]]:
        """Return each reaction to a message with the nicknames of who gave it, the first reaction first."""
        if entry.retracted:  # they are back if it is
            return []
        given: dict[str, list[str]] = {}
        for (emoji, key), (_, nick) in sorted(entry.reactions.items(), key=lambda reaction: reaction[1][0]):
            if emoji and key not in self.ignored:
                given.setdefault(emoji, []).append(nick)
        return list(given.items())

    # -- who is ignored --------------------------------------------------------------------------

    def ignore(self, key: bytes) -> None:
        """Hide the messages and reactions of this key. All entries get new numbers."""
        self.ignored.add(key)
        for message in self.messages():
            if message.key == key:
                self._hide(message)
        self._renumber([entry for entry in self if not isinstance(entry, MessageEntry) or entry.key != key])

    def unignore(self, key: bytes) -> None:
        """Show again what this key says, and the last 1,000 hidden messages. All entries get new numbers."""
        self.ignored.discard(key)
        back = []
        for entry in [entry for entry in self._hidden if entry.key == key]:
            if 0 < entry.seq < self.oldest:  # a hole would follow it
                del self._by_seq[entry.seq]
            else:
                back.append(entry)
        self._hidden = deque(entry for entry in self._hidden if entry.key != key)
        self._renumber(sorted((*self, *back), key=lambda entry: entry.order))

    def _hide(self, entry: MessageEntry) -> None:
        self._hidden.append(entry)
        if len(self._hidden) > _MAX_HIDDEN:
            self._by_seq.pop(self._hidden.popleft().seq, None)

    def _entry(self, message: Message) -> MessageEntry:
        """Return a message as it is now, with the changes seen so far."""
        entry = MessageEntry.of(message, self.key, self.nick)
        entry.order = self.order_of(message.seq)
        for change in self.edits.of(message.seq):
            entry.apply(change, self.nick)
        self._by_seq[message.seq] = entry
        return entry

    def _append(self, entry: Entry) -> None:
        if entry.order == (0, 0):  # it has no number in the log
            self._arrived += 1
            entry.order = (self._base + self.last_seq, self._arrived)
        if isinstance(entry, MessageEntry):
            if entry.key in self.ignored:
                self._hide(entry)
                return
            if entry.mine and self.attached:
                self.last_mine = entry
        self.append(entry)
        if isinstance(entry, MessageEntry):
            self.read_state.add(entry)
        self._evict()

    def _evict(self, *, newest: bool = False) -> None:
        """Evict the oldest entries that do not fit, or the newest of a part."""
        for entry in self.evict(newest=newest):
            if not isinstance(entry, MessageEntry) or not entry.seq:
                continue
            del self._by_seq[entry.seq]
            if newest:
                self.last_seq = entry.seq - 1
            else:
                self.oldest = entry.seq + 1
                self.read_state.evict(entry)

    def _renumber(self, entries: Iterable[Entry]) -> None:
        self.replace(entries)
        self._evict()
        self.renumbered += 1
        self.read_state.refresh()

    def _change(self, change: Message) -> None:
        """Apply a change, or keep it for a message that is older than what is loaded."""
        if not 0 < change.target < change.seq:  # nobody changes what was not said yet
            return
        entry = self._by_seq.get(change.target)
        if entry is not None or not self.holds(change.target):
            self.edits.add(change)
        if entry is not None:
            weight, mentioned = entry.weight, entry.mentioned
            entry.apply(change, self.nick)
            if entry.key not in self.ignored:
                self.size += entry.weight - weight
                if self.read_state.includes(entry):
                    self.read_state.mentions += entry.mentioned - mentioned
                self._evict()


def folded(text: str) -> str:
    """Return a text as a search compares it: case and width do not matter."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", visible(text)).casefold()  # visible: long runs of marks take quadratic time
