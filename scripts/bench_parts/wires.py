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

from chat.frame import (
    HEADER_SIZE,
    LOG_KINDS_END,
    PREFACE,
    Challenge,
    Frame,
    Hello,
    Kind,
    Parser,
    Refusal,
    Welcome,
    encode,
    length_at,
    pack,
    unpack,
)
from chat.identity import Identity, transcript

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

TEXT_SIZE: Final = 100  # bytes of a message's text
_FILLING: Final = bytes(97 + n % 26 for n in range(TEXT_SIZE - 17))


class Broken(Exception):
    """A server lost, doubled, swapped or changed something: its figure would be worth nothing."""


def text_of(sender: int, number: int) -> bytes:
    return b"%03d %012d %s" % (sender, number, _FILLING)


class Wire(Protocol):
    """One kind of server."""

    size: int  # bytes of one message as every member gets it
    beat: bytes  # what a member must say every few seconds, or nothing

    def join(self, sockets: Sequence[socket.socket]) -> None:
        """Have these blocking, connected sockets become members."""

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        """Say message 0 for each sender, and return when every member has got them all, and nothing else."""

    def message(self, sender: int, number: int) -> bytes:
        """The bytes by which a sender says a message."""

    def text(self, data: bytes, index: int) -> bytes:
        """Take the ``index``-th message of a run apart, as members get it. Raises Broken."""

    def control(self, data: bytes, at: int) -> int:
        """Return the size of what lies at ``at`` and is no message; 0 for a message, -1 when more is needed."""


class LineWire:
    """Lines: what the naive server and the floor speak."""

    size = TEXT_SIZE + 1
    beat = b""

    def join(self, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            if (greeting := _read(sock, 8)) != b"welcome\n":
                raise Broken(f"the server said {greeting!r}")

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        for sender in range(senders):
            sockets[sender].sendall(self.message(sender, 0))
        for sock in sockets:
            _read(sock, senders * self.size)

    def message(self, sender: int, number: int) -> bytes:
        return text_of(sender, number) + b"\n"

    def text(self, data: bytes, index: int) -> bytes:
        return data[:-1]

    def control(self, data: bytes, at: int) -> int:
        return 0


class ChatWire:
    """Frames: what the host speaks."""

    size = HEADER_SIZE + TEXT_SIZE
    beat = encode(Kind.BEAT)
    _HEADER: Final = struct.Struct("!IBBHIIQq")  # as in chat.frame

    def __init__(self, room: str) -> None:
        self._room = room
        self._parsers: dict[socket.socket, Parser] = {}
        self._first = 0  # the number of the run's first message

    def join(self, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            self._parsers[sock] = Parser()
            sock.sendall(PREFACE + self._hello(unpack(Challenge, self._next(sock, Kind.CHALLENGE))))
        for sock in sockets:
            unpack(Welcome, self._next(sock, Kind.WELCOME))

    def _hello(self, challenge: Challenge) -> bytes:
        identity, nonce = Identity(Ed25519PrivateKey.generate()), os.urandom(32)
        said = transcript(
            "member", host=challenge.key, room=self._room, host_nonce=challenge.nonce, nonce=nonce, key=identity.key
        )
        hello = Hello(
            room=self._room,
            key=identity.key,
            nonce=nonce,
            signature=identity.sign(said),
            nick=f"m-{identity.key.hex()[:12]}",
            stream=1,
        )
        return pack(Kind.HELLO, hello)

    def _next(self, sock: socket.socket, kind: Kind) -> Frame:
        """Return the next frame of this kind; those who have just joined are sent others between."""
        for frame in self._frames(sock):
            if frame.kind == Kind.REFUSED:
                raise Broken(f"the host refused: {unpack(Refusal, frame).message}")
            if frame.kind == kind:
                return frame
        raise Broken(f"the host left before it sent a frame of kind {kind}")

    def _frames(self, sock: socket.socket) -> Iterator[Frame]:
        while data := sock.recv(64 * 1024):
            yield from list(self._parsers[sock].feed(data))

    def settle(self, sockets: Sequence[socket.socket], senders: int) -> None:
        for sender in range(senders):
            sockets[sender].sendall(self.message(sender, 0))
        for sock in sockets:
            said = (frame for frame in self._frames(sock) if frame.kind == Kind.SAY)
            for frame in islice(said, senders):
                self._first = frame.seq + 1
            if self._parsers[sock].unfinished:
                raise Broken("the host sent more than was said")

    def message(self, sender: int, number: int) -> bytes:
        return encode(Kind.SAY, text_of(sender, number), number=number + 1)

    def text(self, data: bytes, index: int) -> bytes:
        _length, kind, _flags, _spare, _author, _number, seq, _time = self._HEADER.unpack_from(data)
        if kind != Kind.SAY or seq != self._first + index:
            raise Broken(f"number {seq} of kind {kind} came where {self._first + index} follows")
        return data[HEADER_SIZE:]

    def control(self, data: bytes, at: int) -> int:
        if len(data) - at < 5:
            return -1
        return length_at(data, at) if data[at + 4] >= LOG_KINDS_END else 0


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise Broken(f"the server left after {len(data)} of {size} bytes")
        data += more
    return data
