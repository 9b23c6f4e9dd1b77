"""How the load speaks to each kind of server: joining, and what one message looks like on the way.

A message is 100 bytes: who sends it, its number, and filling. So whoever gets it knows what it must be.
Each sender's message 0 is said before a run, to have every member at the same place of the stream.
"""

from __future__ import annotations

import os
import struct
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chat.core.bodies import Challenge, Hello, Refusal, Welcome, pack, unpack
from chat.core.wire import HEADER_SIZE, LOG_KINDS_END, PREFACE, Frame, Kind, Parser, encode, length_at
from chat.local.identity import Identity, transcript

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

TEXT_SIZE: Final = 100  # bytes of a message's text
SENDER_SIZE: Final = 3  # digits at its beginning, which say who
_FILLING: Final = bytes(97 + n % 26 for n in range(TEXT_SIZE - 17))


class Broken(Exception):
    """A server lost, doubled, swapped or changed something: its figure would be worth nothing."""


def text_of(sender: int, number: int) -> bytes:
    return b"%03d %012d %s" % (sender, number, _FILLING)


def put_column(rows: bytearray, size: int, at: int, column: bytes) -> None:
    """Write ``column``, so many bytes for each row, to place ``at`` of rows of ``size`` bytes.

    A slice with a step does for all rows at once what a loop would take a hundred times as long for.
    """
    width = len(column) * size // len(rows)
    for byte in range(width):
        rows[at + byte :: size] = column[byte::width]


class Wire(Protocol):
    """One kind of server."""

    size: int  # bytes of one message as every member gets it
    text_at: int  # where in these its text begins
    beat: bytes  # what a member must say every few seconds, or nothing

    def join(self, sockets: Sequence[socket.socket]) -> None:
        """Have these blocking, connected sockets become members."""

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        """Say message 0 for each sender, and return when every member has got them all, and nothing else."""

    def messages(self, sender: int, first: int, count: int) -> bytes:
        """The bytes by which a sender says this many messages, from number ``first`` on."""

    def said(self, stream: bytearray, index: int) -> bytes | bytearray:
        """What senders said, from whole messages as members get them: the first is the ``index``-th. Raises Broken."""

    def run(self, data: bytes, at: int) -> int:
        """Return how many bytes of whole messages lie in a row from ``at`` on."""

    def control(self, data: bytes, at: int) -> int:
        """Return the size of what lies at ``at`` and is no message; 0 for a message, -1 when more is needed."""


class LineWire:
    """Lines: what the naive server and the floor speak."""

    size = TEXT_SIZE + 1
    text_at = 0
    beat = b""

    def join(self, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            if (greeting := _read(sock, 8)) != b"welcome\n":
                raise Broken(f"the server said {greeting!r}")

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        for sender in range(senders):
            sockets[sender].sendall(self.messages(sender, 0, 1))
        for sock in sockets:
            _read(sock, senders * self.size)

    def messages(self, sender: int, first: int, count: int) -> bytes:
        return b"".join(text_of(sender, number) + b"\n" for number in range(first, first + count))

    def said(self, stream: bytearray, index: int) -> bytearray:
        return stream

    def run(self, data: bytes, at: int) -> int:
        return (len(data) - at) // self.size * self.size

    def control(self, data: bytes, at: int) -> int:
        return 0


class ChatWire:
    """Frames: what the host speaks."""

    size = HEADER_SIZE + TEXT_SIZE
    text_at = HEADER_SIZE
    beat = encode(Kind.BEAT)
    # Offsets of what the host writes into a header (chat.core.wire), and how every message begins: length, kind.
    _AUTHOR: Final = slice(8, 12)
    _NUMBER: Final = slice(12, 16)
    _SEQ: Final = slice(16, 24)
    _TIME: Final = slice(24, 32)
    _BEGINNING: Final = encode(Kind.SAY, bytes(TEXT_SIZE))[:5]

    def __init__(self, room: str) -> None:
        self._room = room
        self._parsers: dict[socket.socket, Parser] = {}
        self._first = 0  # the number of the run's first message

    def join(self, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            self._parsers[sock] = Parser()
            challenge = unpack(Challenge, self._next(sock, Kind.CHALLENGE))
            sock.sendall(PREFACE + hello(self._room, challenge, Identity(Ed25519PrivateKey.generate())))
        for sock in sockets:
            unpack(Welcome, self._next(sock, Kind.WELCOME))

    def _next(self, sock: socket.socket, kind: Kind) -> Frame:
        """Return the next frame of this kind; those who have just joined are sent others between."""
        for frame in self._frames(sock):
            if frame.kind == Kind.REFUSED:
                raise Broken(f"the host refused: {unpack(Refusal, frame).text}")
            if frame.kind == kind:
                return frame
        raise Broken(f"the host left before it sent a frame of kind {kind}")

    def _frames(self, sock: socket.socket) -> Iterator[Frame]:
        while data := sock.recv(64 * 1024):
            yield from list(self._parsers[sock].feed(data))

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        for sender in range(senders):
            sockets[sender].sendall(self.messages(sender, 0, 1))
        for sock in sockets:
            said = (frame for frame in self._frames(sock) if frame.kind == Kind.SAY)
            for frame in islice(said, senders):
                self._first = frame.seq + 1
            if self._parsers[sock].rest:
                raise Broken("the host sent more than was said")

    def messages(self, sender: int, first: int, count: int) -> bytes:
        rows = bytearray(encode(Kind.SAY, text_of(sender, 0)) * count)
        numbers = range(first, first + count)
        put_column(rows, self.size, self._NUMBER.start, struct.pack(f"!{count}I", *(n + 1 for n in numbers)))
        put_column(rows, self.size, self.text_at + SENDER_SIZE + 1, b"%012d" * count % tuple(numbers))
        return bytes(rows)

    def said(self, stream: bytearray, index: int) -> bytearray:
        rows, count, size = stream, len(stream) // self.size, self.size
        if not count:
            return rows
        first = self._first + index
        seqs = struct.pack(f"!{count}Q", *range(first, first + count))
        if any(rows[at::size] != seqs[byte::8] for byte, at in enumerate(range(*self._SEQ.indices(size)))):
            raise Broken(f"the numbers {first} to {first + count - 1} did not come in order")
        for place in (self._AUTHOR, self._SEQ, self._TIME):
            put_column(rows, size, place.start, bytes((place.stop - place.start) * count))
        return rows

    def run(self, data: bytes, at: int) -> int:
        end = at + (len(data) - at) // self.size * self.size
        count = (end - at) // self.size
        for byte, value in enumerate(self._BEGINNING):
            column = data[at + byte : end : self.size]
            count = min(count, len(column) - len(column.lstrip(bytes([value]))))
        return count * self.size

    def control(self, data: bytes, at: int) -> int:
        if len(data) - at < 5:
            return -1
        return length_at(data, at) if data[at + 4] >= LOG_KINDS_END else 0


def hello(room: str, challenge: Challenge, identity: Identity) -> bytes:
    """Return the frame by which this identity asks to be let in."""
    key, nonce = identity.key, os.urandom(32)
    said = transcript("member", host=challenge.key, room=room, host_nonce=challenge.nonce, nonce=nonce, key=key)
    nick = f"m-{key.hex()[:12]}"
    made = Hello(room=room, key=key, nonce=nonce, signature=identity.sign(said), nick=nick, stream=1)
    return pack(Kind.HELLO, made)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise Broken(f"the server left after {len(data)} of {size} bytes")
        data += more
    return data
