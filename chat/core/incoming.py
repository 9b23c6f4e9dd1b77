"""Frames of the log as they arrive from a host: checked, and held until their authors' names are known."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Ask, Author, Gap, unpack
from chat.core.errors import RemoteProtocolError
from chat.core.events import Ranged
from chat.core.wire import HEADER_SIZE, LAST, SPOKEN_END, YEAR_9999, Frame, Kind, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat.core.bodies import Names
    from chat.core.events import Message

_MAX_HELD: Final = 16 * 1024 * 1024  # bytes of messages that wait for their authors' names; more ends the link
_COST: Final = 200  # bytes of memory that a held frame takes besides its own
_NAMES_A_QUESTION: Final = 24  # authors asked for at once: their answer fits one control frame
MAX_AUTHORS: Final = 8192  # authors whose names a member keeps, for 4 MiB at most; it asks for earlier ones again
MAX_WROTE: Final = 16_384  # messages whose authors a member keeps; edits of earlier ones show as unverified
AUTHORS_ONLY: Final = {Kind.EDIT, Kind.RETRACT}  # messages that only the author of their target may send


class Authors(dict[int, Author]):
    """The authors of a log by their index, and who wrote its last messages."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote: deque[bytes] = deque(maxlen=MAX_WROTE)  # the keys of numbers in a row; b"" for none
        self._is_asked = False  # a question for names is on its way

    def remember(self, author: Author) -> None:
        """Take note of who an author is. If there are too many, forget the half heard of first."""
        self[author.index] = author
        if len(self) > MAX_AUTHORS:
            for index in list(islice(self, MAX_AUTHORS // 2)):
                del self[index]
            self[author.index] = author  # it may have been among them

    def learn(self, names: Names) -> None:
        """Take the answer to a question, or names that the host tells unasked."""
        for author in names.authors:
            self.remember(author)
        for index in names.asked:
            if index not in self:
                self.remember(Author(index=index, key=b"", stream=0, nick="?"))
        self._is_asked = self._is_asked and not names.asked

    def question(self, waiting: Incoming) -> Ask | None:
        """Return what to ask the host. One question at a time, or the answers would double with each round."""
        if self._is_asked or not waiting:
            return None
        self._is_asked = True
        return Ask(what="names", authors=waiting.unknown(self, _NAMES_A_QUESTION))

    def lost(self) -> None:
        """No answer comes any more."""
        self._is_asked = False

    def clear(self) -> None:
        """Another log follows."""
        super().clear()
        self.wrote.clear()

    def author_of(self, target: int, seq: int) -> bytes:
        """Return who wrote number ``target``, when ``seq`` comes next; b"" if we have not seen it, or not lately."""
        back = seq - target
        return self.wrote[-back] if 0 < back <= len(self.wrote) else b""


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

    def ready(self, authors: Authors) -> Iterator[Frame | Gap]:
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
                    authors.remember(unpack(Author, item))
                self._size -= len(item.raw) + _COST
            yield held.popleft()

    def unknown(self, authors: Authors, most: int) -> list[int]:
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

    def release(self, authors: Authors, message: Callable[[Frame], Message]) -> Ranged | None:
        """Return what can be read by now, if there is something, or the range ends with it."""
        items = [
            item if isinstance(item, Gap) else message(item)
            for item in self.ready(authors)
            if isinstance(item, Gap) or item.kind < SPOKEN_END or item.kind == Kind.MODERATION
        ]
        last = self.ended and not self
        return Ranged(self.number, items, self.expected, last) if items or last else None
