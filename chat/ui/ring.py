"""What a timeline holds: a bounded ring of entries, and a cache of changes to messages that are not loaded yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from chat.core.wire import Kind
from chat.ui.entry import MAX_EDITS, OVERHEAD, MessageEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chat.core.events import Message
    from chat.ui.entry import Entry

RING: Final = 10_000  # entries of a room that a window keeps; older ones are fetched from the host as you scroll
# characters of a room that a window keeps, edits and reactions included; older ones are fetched again
_MAX_TEXT: Final = 16 * 1024 * 1024
_MAX_CACHED: Final = 4 * 1024 * 1024  # characters of changes


class Ring:
    """Entries by number: 10,000 and 16 Mi characters at most.

    Numbers never change, whether newer entries are appended or older ones are put in front. So a place on the screen is
    a number. (Only ``replace`` renumbers.)
    """

    def __init__(self) -> None:
        self.first = 0
        self.size = 0  # characters
        self._entries: deque[Entry] = deque()

    @property
    def end(self) -> int:
        """The number after the last entry."""
        return self.first + len(self._entries)

    @property
    def full(self) -> bool:
        return len(self._entries) >= RING or self.size >= _MAX_TEXT

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)

    def __getitem__(self, number: int) -> Entry:
        """Return the entry with this number. Raises IndexError if there is none."""
        if number < self.first:
            raise IndexError(number)
        return self._entries[number - self.first]

    def append(self, entry: Entry) -> None:
        entry.number = self.end
        self._entries.append(entry)
        self.size += entry.weight

    def append_left(self, entry: Entry) -> None:
        self.first -= 1
        entry.number = self.first
        self._entries.appendleft(entry)
        self.size += entry.weight

    def evict(self, *, newest: bool = False) -> Iterator[Entry]:
        """Drop and yield entries, the oldest or the newest first, until the ring is within its bounds."""
        while len(self._entries) > RING or (self.size > _MAX_TEXT and len(self._entries) > 1):
            entry = self._entries.pop() if newest else self._entries.popleft()
            self.first += not newest
            self.size -= entry.weight
            yield entry

    def replace(self, entries: Iterable[Entry]) -> None:
        """Hold these entries instead, numbered from 0."""
        self._entries = deque()
        self.first = self.size = 0
        for entry in entries:
            self.append(entry)

    def messages(self, *, newest_first: bool = False) -> Iterator[MessageEntry]:
        for entry in reversed(self._entries) if newest_first else self._entries:
            if isinstance(entry, MessageEntry):
                yield entry

    def last_message(self, *, mine: bool | None = None) -> MessageEntry | None:
        """Return the last message that was not retracted: by the reader, by somebody else, or by anybody."""
        messages = self.messages(newest_first=True)
        stands = (
            entry
            for entry in messages
            if entry.seq and not entry.retracted and entry.decision is None and mine in (None, entry.mine)
        )
        return next(stands, None)

    def last_mention(self) -> int | None:
        """Return the number of the last message that mentions the reader."""
        return next((entry.number for entry in self.messages(newest_first=True) if entry.mentioned), None)


def is_quarter(entries: int, weight: int) -> bool:
    """Whether this is a quarter of what a ring holds."""
    return entries >= RING // 4 or weight >= _MAX_TEXT // 4


class EditCache:
    """Changes seen in a log, by the message they change. All timelines of the log share it.

    A change stands further down in the log than its message, so the message may be loaded later than the change,
    or again.
    """

    def __init__(self) -> None:
        self.since = 0  # all changes from this number of the log on were seen; 0 for none yet
        self.size = 0  # characters
        # By message; within, edits by their author, and all others under None. The first message is evicted first.
        self._changes: dict[int, dict[bytes | None, dict[int, Message]]] = {}

    def add(self, change: Message) -> None:
        by_author = self._changes.setdefault(change.target, {})
        changes = by_author.setdefault(change.author.key if change.kind == Kind.EDIT else None, {})
        if change.seq in changes:
            return
        changes[change.seq] = change
        self.size += len(change.text) + OVERHEAD
        if change.kind == Kind.EDIT and len(changes) > MAX_EDITS:
            self.size -= len(changes.pop(min(changes)).text) + OVERHEAD
        while self.size > _MAX_CACHED:
            evicted = self._changes.pop(next(iter(self._changes)))
            self.size -= sum(len(c.text) + OVERHEAD for changes in evicted.values() for c in changes.values())

    def of(self, seq: int) -> Iterator[Message]:
        for changes in self._changes.get(seq, {}).values():
            yield from changes.values()

    def clear(self) -> None:
        self._changes.clear()
        self.size = self.since = 0
