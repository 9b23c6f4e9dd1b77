"""Frames of the log as they arrive from a host: checked, and held until their authors' names are known."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Author, Gap, unpack
from chat.core.errors import RemoteProtocolError
from chat.core.wire import HEADER_SIZE, LAST, SPOKEN_END, YEAR_9999, Frame, Kind, split

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_HELD: Final = 16 * 1024 * 1024  # bytes of messages that wait for their authors' names; more ends the link
_COST: Final = 200  # bytes of memory that a held frame takes besides its own
MAX_AUTHORS: Final = 8192  # authors whose names a member keeps, for 4 MiB at most; it asks for earlier ones again


def remember(authors: dict[int, Author], author: Author) -> None:
    """Take note of who an author is. If there are too many, forget the half heard of first."""
    authors[author.index] = author
    if len(authors) > MAX_AUTHORS:
        for index in list(islice(authors, MAX_AUTHORS // 2)):
            del authors[index]
        authors[author.index] = author  # it may have been among them


class Incoming:
    """A part of the log, from one number on. It is true while something waits for its author's name."""

    def __init__(self, first: int = 0) -> None:
        self.expected = first  # the number that the next frame must have
        self._held: deque[Frame | Gap] = deque()
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, item: Frame | Gap) -> None:
        """Take what came next. Raises RemoteProtocolError when it cannot come next."""
        if isinstance(item, Gap):
            if item.first != self.expected or item.count < 1:
                raise RemoteProtocolError(f"the host tells of a gap at {item.first} where {self.expected} follows")
            self.expected = item.first + item.count
            self._size += HEADER_SIZE + _COST
        else:
            if item.seq != self.expected:
                raise RemoteProtocolError(f"the host sent number {item.seq} where {self.expected} follows")
            if not 0 <= item.time < YEAR_9999:
                raise RemoteProtocolError(
                    f"the host sent number {item.seq} at the time {item.time}, in no year of ours"
                )
            self.expected += 1
            self._size += len(item.raw) + _COST
        self._held.append(item)
        if self._size > _MAX_HELD:
            first = self._held[0]
            number = first.first if isinstance(first, Gap) else first.seq
            raise RemoteProtocolError(f"the host does not say who wrote number {number}")

    def ready(self, authors: dict[int, Author]) -> Iterator[Frame | Gap]:
        """Yield what is held, up to the first message whose author is not known. Learns the authors on the way."""
        held = self._held
        while held:
            item = held[0]
            if isinstance(item, Gap):
                self._size -= HEADER_SIZE + _COST
            else:
                if item.kind < SPOKEN_END:
                    if item.author not in authors:
                        return
                elif item.kind == Kind.AUTHOR:
                    remember(authors, unpack(Author, item))
                self._size -= len(item.raw) + _COST
            yield held.popleft()

    def unknown(self, authors: dict[int, Author], most: int) -> list[int]:
        """Return the first ``most`` authors whose names are missing."""
        found: dict[int, None] = {}
        for item in self._held:
            if isinstance(item, Frame) and item.kind < SPOKEN_END and item.author not in authors:
                found[item.author] = None
                if len(found) == most:
                    break
        return list(found)


class Range(Incoming):
    """The answer to a question for numbers ``first`` up to and without ``before``.

    The host may end it earlier, where its log ends, but not below ``least``, which it has. A gap may end later.
    """

    def __init__(self, number: int, first: int, before: int, least: int) -> None:
        super().__init__(first)
        self.number = number  # of the question
        self.ended = False
        self._before = before
        self._least = least

    def add_piece(self, piece: Frame) -> None:
        """Take a RANGE frame. Raises RemoteProtocolError when it is no answer to the question."""
        first = self.expected
        if piece.number != self.number or self.ended:
            raise RemoteProtocolError("the host sent a part of the log that we did not ask for")
        for frame in split(piece.body):
            if self.expected >= self._before:
                raise RemoteProtocolError(f"the host sent number {frame.seq}; we asked for those below {self._before}")
            self.add(unpack(Gap, frame) if frame.kind == Kind.GAP else frame)
        self.ended = bool(piece.flags & LAST)
        if self.ended and self.expected < self._least:
            raise RemoteProtocolError(f"the host ended at {self.expected}; we asked for numbers up to {self._before}")
        if not self.ended and self.expected == first:
            raise RemoteProtocolError("the host sent an empty part of the log")
