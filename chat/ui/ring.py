"""A bounded ring of numbered entries.

Entries have numbers that never change, whether newer ones are appended or older ones are put in front. So a place on
the screen is a number. (Only ``replace`` renumbers.)
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from chat.ui.entry import MessageEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chat.ui.entry import Entry

RING: Final = 10_000  # entries
_MAX_TEXT: Final = 16 * 1024 * 1024  # characters, edits and reactions included


class Ring:
    """Entries by number: 10,000 and 16 Mi characters at most."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
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


def is_quarter(entries: int, weight: int) -> bool:
    """Whether this is a quarter of what a ring holds."""
    return entries >= RING // 4 or weight >= _MAX_TEXT // 4
