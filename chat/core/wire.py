"""The wire: what a frame looks like, and the one parser that takes bytes apart.

     0       4    5     6        8        12       16            24              32
     | length | kind | flags | spare | author | number | seq        | time (ms)     | body ...
       u32      u8     u8      u16     u32      u32      u64          i64             length - 32

All numbers are big-endian (network order). ``length`` counts the whole frame, itself included.

1. The first bytes in each direction are the preface, one ASCII line, so that a wrong program
   fails at once, with a message that a person can read.
2. Frames of the log have ``seq`` >= 1, and their bytes never change after they were numbered.
   Frames to one peer have ``seq`` 0 and never enter the log.
3. A length is checked before anything is kept for it: a peer can make us hold 64 KiB, no more.
4. The header is all that a host reads of a message. The body is the author's own bytes.
5. Structured bodies are MessagePack structs: unknown fields are ignored, unknown kinds are shown as such.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

# -- limits: every bound of the protocol, in one table -----------------------------------------

HEADER_SIZE: Final = 32
MAX_FRAME: Final = 64 * 1024  # bytes of one frame, header included; a longer one ends the link: ``protocol``
# bytes of one batch of the log: always room for one frame; what is left goes into the next batch
MAX_BATCH: Final = 64 * 1024
MAX_PIECE: Final = MAX_FRAME - HEADER_SIZE  # bytes of the log in one RANGE frame; what is left comes in the next frame
# bytes of one message's text, UTF-8; a longer one is not sent, and a host rejects it: ``too-long``
MAX_TEXT: Final = 16 * 1024
MAX_HELLO: Final = 4 * 1024  # bytes of a frame from a peer that is not in yet; a longer one ends the link: ``protocol``
MAX_CONTROL: Final = 4 * 1024  # bytes of one control frame from the host; longer answers are split into pages
MAX_LOGIN: Final = 32  # bytes of a login name; a user whose name is longer is shown by number
EPOCH_SIZE: Final = 8  # bytes that tell two logs of one name apart
HELLO_TIMEOUT: Final = 5.0  # seconds that a peer has to send HELLO, 1 s at a full door; then its link ends
BEAT: Final = 4.0  # seconds between beats when there is nothing else to send
YEAR_9999: Final = 253_370_764_800_000  # ms since 1970; later times, and those before 1970, break calendars
SILENCE: Final = 12.0  # seconds without a byte after which a peer counts as gone; its link ends, and members dial again
STALL: Final = 0.5  # seconds that a timer may be late; later, this process stood still and could not hear its peers

VERSION: Final = "chat/2"
PREFACE: Final = f"{VERSION} manywire\n".encode()
_PREFACE_START: Final = b"chat/"
_PREFACE_LIMIT: Final = 64  # bytes: a later version may say more on its line


class Kind(IntEnum):
    """What a frame is.

    1 to 15: what members say, including kinds that only newer members know. 16 to 63: the host's own records.
    From 64 on: for one peer only, never in the log.
    """

    SAY = 1  # a message; flag REPLY: the body begins with the u64 seq that it replies to
    ACTION = 2  # "/me": the body is what the author does
    EDIT = 3  # u64 seq of the author's own message, then its new text
    RETRACT = 4  # u64 seq of the author's own message; a later EDIT brings it back
    REACT = 5  # u64 seq of a message, then an emoji; an empty one takes the reaction back
    AUTHOR = 16  # introduces an author: an Author struct; the frame's author field is its index
    MODERATION = 17  # what the owner or an operator has decided: a Moderation struct

    CHALLENGE = 64  # host -> peer: Challenge, the first frame
    HELLO = 65  # peer -> host: Hello
    WELCOME = 66  # host -> peer: Welcome
    REFUSED = 67  # host -> peer: Refusal, the last frame
    BEAT = 68  # both: I am alive; no body
    GAP = 69  # host -> member: Gap, these numbers are gone for good
    PRESENCE = 70  # host -> member: Presence, who came and who left
    NAMES = 71  # host -> member: Names, the answer to ASK names
    ASK = 72  # member -> host: Ask, a request; the frame's number is its id
    ANSWER = 73  # host -> member: Answer; the frame's number is the request's
    NOTICE = 74  # host -> member: Notice, a line for people
    BYE = 75  # member -> host: leaving on purpose; no body
    DIRECT = 76  # host -> member: Direct, a room of two members
    STATE = 77  # member -> host: its status; the body is a slot of the board (docs/reference/board.md)
    STATES = 78  # host -> member: States, the newest slots of a board that it cannot see
    REJECTED = 79  # host -> member: Rejection, some of its messages were rejected
    RANGE = 80  # host -> member: requested frames of the log, or a GAP; flag LAST: nothing follows


SPOKEN_END: Final = 16
LOG_KINDS_END: Final = 64
REPLY: Final = 1  # flag of SAY
LAST: Final = 1  # flag of RANGE
TARGETED: Final = frozenset((Kind.EDIT, Kind.RETRACT, Kind.REACT))  # whose bodies begin with the number they act on
_IN_RUNS: Final = frozenset(range(1, SPOKEN_END)) - TARGETED  # the others are judged one by one


class Frame(NamedTuple):
    """One frame, its header taken apart. ``kind`` is an int: a newer peer may send kinds we do not know."""

    kind: int
    flags: int
    author: int
    number: int
    seq: int
    time: int  # milliseconds since 1970 UTC by the host's clock
    raw: bytes  # the whole frame as it crossed the wire

    @property
    def body(self) -> bytes:
        return self.raw[HEADER_SIZE:]


_HEADER: Final = struct.Struct("!IBBHIIQq")
_LENGTH: Final = struct.Struct("!I")
_RUN: Final = struct.Struct("!IBB6xI")  # of a header: length, kind, flags and number
_STAMP: Final = struct.Struct("!HIIQq")  # of a header: everything from the spare bytes on
_STAMP_AT: Final = 6
_AUTHOR_AT: Final = 8
SEQ_PREFIX: Final = struct.Struct("!Q")


def encode(
    kind: int, body: bytes = b"", *, flags: int = 0, author: int = 0, number: int = 0, seq: int = 0, time: int = 0
) -> bytes:
    """Return the bytes of one frame. Raises LocalProtocolError over 64 KiB, or for a number too large for its field."""
    length = HEADER_SIZE + len(body)
    if length > MAX_FRAME:
        raise LocalProtocolError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}; send less at once")
    try:
        return _HEADER.pack(length, kind, flags, 0, author, number, seq, time) + body
    except struct.error:
        raise LocalProtocolError(
            f"a frame cannot hold {kind=} {flags=} {author=} {number=} {seq=} {time=}; one is out of range"
        ) from None


def split(data: bytes) -> Iterator[Frame]:
    """Take apart a batch of the log, which is whole frames. Raises RemoteProtocolError when it is not."""
    parser = Parser(preface=False)
    yield from parser.feed(data)
    if parser.rest:
        raise RemoteProtocolError(f"a batch ends {len(parser.rest)} bytes into a frame")


def offset_of(data: bytes, steps: int) -> int:
    """Return where the frame ``steps`` frames into ``data`` begins, reading only the lengths."""
    at = 0
    for _ in range(steps):
        at += length_at(data, at)
    return at


def is_whole(data: bytes, frames: int) -> bool:
    """Whether data are just so many frames, by their lengths."""
    at = 0
    for _ in range(frames):
        length = length_at(data, at) if at + HEADER_SIZE <= len(data) else 0
        if length < HEADER_SIZE:
            return False
        at += length
    return at == len(data)


def length_at(data: bytes, at: int) -> int:
    """Return the length of the frame that begins at ``at``, itself included."""
    length: int = _LENGTH.unpack_from(data, at)[0]
    return length


def author_at(data: bytes, at: int) -> int:
    """Return the author index of the frame that begins at ``at``."""
    index: int = _LENGTH.unpack_from(data, at + _AUTHOR_AT)[0]
    return index


def kind_at(data: bytes, at: int) -> int:
    """Return the kind of the frame that begins at ``at``."""
    return data[at + _LENGTH.size]


def run_of(data: bytes, number: int, longest: int, most: int = MAX_BATCH) -> list[int]:
    """Return where each of the first ``most`` messages of the run ends that ``data`` begins with.

    A run is whole messages in a row, without flags, numbered up from ``number``, of at most ``longest`` bytes each. It
    ends before the first frame that is anything else, which is no error here.
    """
    ends: list[int] = []
    at, size, end = 0, len(data), number + most
    while size - at >= HEADER_SIZE and number < end:
        length, kind, flags, its_number = _RUN.unpack_from(data, at)
        if its_number != number or kind not in _IN_RUNS or flags or not HEADER_SIZE <= length <= longest:
            break
        at += length
        if at > size:
            break
        ends.append(at)
        number += 1
    return ends


def stamp(run: bytearray, ends: Sequence[int], *, author: int, number: int, seq: int, time: int) -> None:
    """Write into the headers of a run what ``encode`` would, counting up: they become frames of the log in place."""
    at = _STAMP_AT
    for step, end in enumerate(ends):
        _STAMP.pack_into(run, at, 0, author, number + step, seq + step, time)
        at = end + _STAMP_AT


class Parser:
    """Bytes in, frames out, however the bytes are cut.

    ``limit`` is the largest frame taken, in bytes. It is read anew for every frame, so the frame that lets a peer in
    may raise it for those right behind it. ``rest`` are the bytes of an unfinished frame; a caller may take them, and
    feed them or put them back.
    """

    def __init__(self, *, preface: bool = True, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self.rest = b""
        self._awaiting_preface = preface

    def feed(self, data: bytes) -> Generator[Frame, None, None]:
        """Yield the frames that ``data`` completes; take them all, or ``close`` it, before the next call.

        Frames left when it was closed come with the next call. Raises RemoteProtocolError, again with each call, at
        the first byte that cannot be the protocol: the next frame cannot be found if lengths cannot be trusted.
        """
        data = self.rest + data
        at, end = 0, len(data)
        try:
            if self._awaiting_preface and not (at := _after_preface(data)):
                return
            self._awaiting_preface = False
            while end - at >= HEADER_SIZE:
                length, kind, flags, _spare, author, number, seq, time = _HEADER.unpack_from(data, at)
                if not HEADER_SIZE <= length <= self.limit:
                    raise _bad_length(length, self.limit)
                if end - at < length:
                    return
                at += length
                yield Frame(kind, flags, author, number, seq, time, data[at - length : at])
            if end - at >= _LENGTH.size:  # judge a length before its frame is here
                length = length_at(data, at)
                if not HEADER_SIZE <= length <= self.limit:
                    raise _bad_length(length, self.limit)
        finally:
            self.rest = data[at:]


def _after_preface(data: bytes) -> int:
    """Return where the preface's line ends, 0 while it may still come. Raises RemoteProtocolError."""
    line, newline, _ = data[:_PREFACE_LIMIT].partition(b"\n")
    if newline and line.split()[:1] == [VERSION.encode()]:
        return len(line) + 1
    if newline and line.startswith(_PREFACE_START):
        raise RemoteProtocolError(
            "the peer speaks {begin}, this is {version}; use the same version on both sides",
            begin=repr(line[:24])[1:],
            version=VERSION,
        )
    if newline or len(line) == _PREFACE_LIMIT or line[: len(_PREFACE_START)] != _PREFACE_START[: len(line)]:
        raise RemoteProtocolError(
            "the peer does not speak {version}: it began with {begin}", version=VERSION, begin=repr(data[:24])[1:]
        )
    return 0


def _bad_length(length: int, limit: int) -> RemoteProtocolError:
    if length < HEADER_SIZE:
        return RemoteProtocolError(f"the peer sent a frame length of {length} bytes; the least is {HEADER_SIZE}")
    return RemoteProtocolError(f"the peer sent a frame of {length} bytes; the limit here is {limit}")
