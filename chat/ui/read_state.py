"""How far the reader of a timeline has read, what is unread, and where the unread marker stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.ui.entry import MessageEntry

if TYPE_CHECKING:
    from chat.ui.timeline import Timeline


class ReadState:
    """What is unread in one timeline. The reader's own messages never are."""

    def __init__(self, timeline: Timeline) -> None:
        self.last_read = 0  # all up to this number of the log has been read
        self.unread = 0  # unread messages that are in the ring, or were evicted from it
        self.mentions = 0  # of those in the ring
        self.marker: int | None = None  # the number of the entry below the unread marker
        self.marker_seq: int | None = None  # what had been read when the marker was placed
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
            # Of evicted messages only the numbers are known, and no more of them are unread than there are numbers.
            self._evicted = min(self._evicted, max(self._timeline.oldest - 1 - seq, 0))
            self.recount()

    def read_up_to(self, number: int) -> int:
        """Return the number of the log up to which somebody has read who has seen the entries up to this one."""
        timeline = self._timeline
        for later in range(max(number + 1, timeline.first), timeline.end):
            entry = timeline[later]
            if isinstance(entry, MessageEntry) and entry.seq:
                return entry.seq - 1
        return timeline.last_seq

    def place_marker(self) -> None:
        """Put the marker where reading stopped: at the start, and when the reader looks elsewhere."""
        self.marker_seq = self.last_read
        self.find_marker()

    def find_marker(self) -> None:
        self.marker = None
        if self.marker_seq is not None:
            messages = self._timeline.ring.messages()
            self.marker = next((entry.number for entry in messages if self._is_below_marker(entry)), None)

    def _is_below_marker(self, entry: MessageEntry) -> bool:
        """Whether the marker may stand above a message. Not in a part that begins after the first unread message."""
        if self.marker_seq is None or entry.seq <= self.marker_seq or entry.mine:
            return False
        return self._timeline.attached or self.marker_seq >= self._timeline.oldest - 1

    def includes(self, entry: MessageEntry) -> bool:
        return entry.seq > self.last_read and not entry.mine

    def recount(self) -> None:
        self.unread, self.mentions = self._evicted, 0
        for entry in self._timeline.ring.messages(newest_first=True):
            if not entry.seq:  # of another log, or its number is unknown
                continue
            if entry.seq <= self.last_read:
                return
            self.unread += not entry.mine
            self.mentions += entry.mentioned

    def add(self, entry: MessageEntry) -> None:
        """A message was appended."""
        if self.includes(entry):
            self.unread += 1
            self.mentions += entry.mentioned
        if self.marker is None and self._is_below_marker(entry):
            self.marker = entry.number

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

    def reset(self) -> None:
        """Another log follows."""
        self.last_read = self._evicted = 0
        self.marker_seq = self.marker = None
        self.recount()
