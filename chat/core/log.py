"""The log of a room, and a member's cursor in it.

     log:  | batch 41..57 | batch 58..60 | batch 61..190 | 191 |  <- next_seq = 192
                 ^                              ^           ^
             ann (slow, byte 812)           bob (tcp)   cid, dan, eve (up to date)

Rules:

1. Numbers are contiguous from 1, and a frame's bytes never change after ``append``.
2. Append, store, publish: nothing is read from the log that the store could forget.
3. A batch is encoded once, and every member is sent the same bytes object. However slow a member is, it costs its
   place in the log and the rest of one batch.
4. Live delivery, catching up and replay are all ``log.read(seq)``.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core import wire
from chat.core.bodies import Gap, pack
from chat.core.errors import LocalProtocolError
from chat.core.wire import LAST, MAX_BATCH, MAX_PIECE, YEAR_9999, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WINDOW: Final = 8 * 1024 * 1024  # bytes of published batches kept in memory; older ones come from the store
# milliseconds that a message's time may be ahead of the clock; more, and times go back: ``clock-back``
MAX_AHEAD: Final = 5_000
_FRESH: Final = 64  # batches kept as they were sent; the ones before are joined
_MESSAGES: Final = frozenset((Kind.SAY, Kind.ACTION))
_first: Final = attrgetter("first")


class Batch(NamedTuple):
    """``frames`` whole frames from number ``first`` on, as they are stored and as they are sent."""

    first: int
    frames: int
    data: bytes

    @property
    def next_seq(self) -> int:
        return self.first + self.frames


class Log:
    """An append-only sequence of frames.

    ``older(seq)`` finds what is no longer in memory: the batch that holds ``seq`` (it may begin earlier), or the
    Gap that begins there.
    """

    def __init__(
        self,
        epoch: bytes,
        *,
        next_seq: int = 1,
        last_time: int = 0,
        older: Callable[[int], Batch | Gap | None] = lambda _seq: None,
        window: int = WINDOW,
    ) -> None:
        self.epoch = epoch  # 8 random bytes that identify the log: another log of the same name has others
        self.next_seq = next_seq  # the number that the next append gives
        self.end = next_seq  # below this, frames are stored and may be read
        self.unpublished = 0  # bytes appended but not yet published
        self.went_back = 0  # milliseconds by which times have gone back, and nobody has been told yet
        self._last_time = last_time
        self._older = older
        self._limit = window
        self._open: list[bytes | memoryview] = []  # what the next batch is made of, from number `_open_first` on
        self._open_first = next_seq
        self._open_size = 0
        self._sealed: list[Batch] = []
        self._window: list[Batch] = []
        self._window_size = 0

    def append(self, kind: int, body: bytes, *, time: int, author: int = 0, number: int = 0, flags: int = 0) -> int:
        """Number a frame and return its number.

        ``time`` (ms) does not go back if the clock goes back by at most 5 s. Beyond that it follows the clock:
        the numbers give the order.
        """
        data = wire.encode(kind, body, flags=flags, number=number)
        self.append_run(data, [len(data)], time=time, author=author, number=number)
        return self.next_seq - 1

    def append_run(self, data: bytes, ends: Sequence[int], *, time: int, author: int, number: int) -> None:
        """Number the messages of a run. ``number`` is the first one's own, ``ends`` what ``wire.run_of`` found.

        The bytes become the log's once their headers are stamped: no message is decoded, so each costs little.
        """
        time = min(max(time, 0), YEAR_9999 - 1)  # members refuse any other
        if self._last_time - time > MAX_AHEAD:
            self.went_back += self._last_time - time
        else:
            time = max(time, self._last_time)
        self._last_time = time
        run = bytearray(memoryview(data)[: ends[-1]])
        wire.stamp(run, ends, author=author, number=number, seq=self.next_seq, time=time)
        frames = start = 0  # how much of the run is in batches
        while frames < len(ends):
            fit = bisect_right(ends, start + MAX_BATCH - self._open_size)
            if fit == frames:
                self.end_batch()
                continue
            piece = memoryview(run)[start : ends[fit - 1]]
            self._open.append(piece)
            self._open_size += len(piece)
            self.unpublished += len(piece)
            self.next_seq += fit - frames
            frames, start = fit, ends[fit - 1]

    def end_batch(self) -> None:
        """Begin another batch with the next frame."""
        if self._open:
            frames = self.next_seq - self._open_first
            self._sealed.append(Batch(self._open_first, frames, b"".join(self._open)))
            self._open, self._open_first, self._open_size = [], self.next_seq, 0

    def seal(self) -> list[Batch]:
        """Return what is appended and not published, as batches of at most 64 KiB: the same ones in a second try."""
        self.end_batch()
        return self._sealed[:]

    def publish(self, batches: list[Batch]) -> None:
        """Let members read the first batches that ``seal`` returned: they are stored."""
        if batches != self._sealed[: len(batches)]:
            raise LocalProtocolError("batches must be published in the order in which they were sealed")
        del self._sealed[: len(batches)]
        for batch in batches:
            self._window.append(batch)
            self._window_size += len(batch.data)
            self.unpublished -= len(batch.data)
            self.end = batch.next_seq
            self._join()
        while self._window_size > self._limit and len(self._window) > 1:
            self._window_size -= len(self._window.pop(0).data)

    def _join(self) -> None:
        """Join the two batches that have just stopped being fresh, if they fit into one.

        A quiet room has a batch for every message. Left alone they cost several times their bytes, and a
        send each for a member that catches up. Those who follow the room read the fresh ones.
        """
        pair = self._window[-_FRESH - 2 : -_FRESH]
        if len(pair) == 2 and len(pair[0].data) + len(pair[1].data) <= MAX_BATCH:
            older, newer = pair
            joined = Batch(older.first, older.frames + newer.frames, older.data + newer.data)
            self._window[-_FRESH - 2 : -_FRESH] = [joined]

    def read(self, seq: int) -> Batch | Gap | None:
        """Return the batch that holds ``seq``, or the Gap that begins there, or None at the end."""
        if seq >= self.end:
            return None
        window = self._window
        if window and seq >= window[0].first:
            if seq >= window[-1].first:
                return window[-1]
            return window[bisect_right(window, seq, key=_first) - 1]
        found = self._older(seq)
        if isinstance(found, Batch):
            if found.next_seq > self.end:  # a thread has just stored more
                frames = self.end - found.first
                found = Batch(found.first, frames, found.data[: wire.offset_of(found.data, frames)])
            return found
        # If nothing is found, it is a gap too, up to where the window begins: a member must never wait for it.
        count = (window[0].first if window else self.end) - seq
        return Gap(first=seq, count=min(found.count, count) if found else count)

    @property
    def in_memory_from(self) -> int:
        """The lowest number that is read without the disk."""
        return self._window[0].first if self._window else self.end

    def frame_at(self, seq: int) -> bytes | None:
        """Return the bytes of one frame, or None if they are gone."""
        found = self.read(seq) if seq > 0 else None
        if not isinstance(found, Batch):
            return None
        at = wire.offset_of(found.data, seq - found.first)
        return found.data[at : at + wire.length_at(found.data, at)]

    def start_of_last(self, messages: int) -> int:
        """Return where the last ``messages`` messages of the log begin.

        They are fewer where the log begins or has a gap, and where most of what was said is of other kinds:
        every newcomer asks for this, so it looks at 4 numbers for each message and 1 000 more, and no further.
        """
        if messages < 1:
            return self.end
        start = self.end
        for back in max(messages, 256), 4 * messages + 1000:  # the first one is enough in most rooms
            seq = start = max(1, self.end - back)
            said: deque[int] = deque(maxlen=messages)
            while found := self.read(seq):
                if isinstance(found, Gap):
                    seq = start = found.first + found.count
                    said.clear()
                else:
                    said.extend(_messages(found, seq))
                    seq = found.next_seq
            if len(said) == messages:
                return said[0]
        return start


def _messages(batch: Batch, start: int) -> Iterator[int]:
    """Yield the numbers of the messages in a batch, from ``start`` on."""
    at = 0
    for seq in range(batch.first, batch.next_seq):
        if seq >= start and wire.kind_at(batch.data, at) in _MESSAGES:
            yield seq
        at += wire.length_at(batch.data, at)


def digest(raw: bytes) -> bytes:
    """Return the 8 bytes by which a member shows which frame it holds."""
    return hashlib.sha256(raw).digest()[:8]


@dataclass(slots=True, eq=False)
class Cursor:
    """A member's place in the log, and the bytes on their way to it.

    Frames to this member alone wait in the control queue and go between batches; so do the pieces of a range, one
    after each batch.
    """

    seq: int  # the next number to fetch from the log
    control_size: int = 0  # bytes in the control queue
    _control: deque[bytes] = field(default_factory=deque)
    _piece: bytes | memoryview = b""
    _range: tuple[int, int, int] | None = None  # the question's number, the next number to send, the end
    _range_is_next: bool = False
    _stopped: bool = False

    def stop(self) -> None:
        """Have nothing follow what is half sent."""
        self._stopped = True

    @property
    def half_sent(self) -> bytes:
        """The rest of what ``pending`` returned last."""
        return bytes(self._piece)

    def post(self, data: bytes) -> None:
        """Put whole frames for this member alone into the control queue."""
        self._control.append(data)
        self.control_size += len(data)

    def send_range(self, number: int, first: int, before: int) -> bool:
        """Send this part of the log, too. Returns False while another one is being sent."""
        if self._range is None:
            self._range = number, first, before
            return True
        return False

    @property
    def at_border(self) -> bool:
        """Nothing is half sent and nothing waits in the control queue."""
        return not self._piece and not self._control

    def pending(self, log: Log) -> bytes | memoryview:
        """Return the bytes to send next, empty when this member has everything.

        The same bytes come first again until ``advance`` has counted them.
        """
        if self._piece or self._stopped:
            return self._piece
        if self._control:
            piece = self._control.popleft()
            self.control_size -= len(piece)
        elif self._range is not None and (self._range_is_next or self.seq >= log.end):
            piece = self._range_piece(log, *self._range)
            self._range_is_next = False
        elif (found := log.read(self.seq)) is None:
            return b""
        elif isinstance(found, Gap):
            piece = pack(Kind.GAP, found)
            self.seq = found.first + found.count
        else:
            piece = found.data
            if self.seq > found.first:
                piece = piece[wire.offset_of(piece, self.seq - found.first) :]
            self.seq = found.next_seq
            self._range_is_next = True
        self._piece = piece
        return piece

    def _range_piece(self, log: Log, number: int, seq: int, end: int) -> bytes:
        found = log.read(seq) if seq < end else None
        body = b""
        if isinstance(found, Gap):
            body, seq = pack(Kind.GAP, found), found.first + found.count
        elif found is not None:
            at = start = wire.offset_of(found.data, seq - found.first)
            end_here = min(end, found.next_seq)
            while seq < end_here and (size := wire.length_at(found.data, at)) <= start + MAX_PIECE - at:
                at += size
                seq += 1
            body = found.data[start:at]
        last = seq >= end or found is None
        self._range = None if last else (number, seq, end)
        return wire.encode(Kind.RANGE, body, flags=LAST if last else 0, number=number)

    def advance(self, count: int) -> None:
        """``count`` bytes of what ``pending`` returned went out."""
        if count == len(self._piece):
            self._piece = b""
        elif count:
            self._piece = memoryview(self._piece)[count:]
