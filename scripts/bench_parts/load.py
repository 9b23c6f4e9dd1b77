"""The load: members that all get everything, some of whom send as fast as their own messages come back.

Rules:

1. One process, one epoll, no thread. It must cost less than the server it measures; how much it costs is
   part of the result.
2. Every member's bytes are checked. Those of the member that gets a message first are compared with what its
   sender said; the others' with the first one's. Whole reads at a time: so a message that is lost, doubled,
   swapped or changed for one member alone does not go unseen, and looking for it costs little.
3. A sender has a fixed number of messages in flight: those it has sent and not got back itself.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from scripts.bench_parts.wires import SENDER_SIZE, Broken

if TYPE_CHECKING:
    from scripts.bench_parts.wires import Wire

READ_SIZE: Final = 256 * 1024
PATIENCE: Final = 30.0  # seconds without a single byte before we give up
BEAT_EVERY: Final = 4.0  # seconds
_DOOR: Final = 32  # members that join at once: a host keeps at most 64 at the door
_PIECE: Final = 64 * 1024  # bytes of one send: a larger message in a queue would be cut by whoever receives it
_CONTROL_LIMIT: Final = 4096  # bytes of a frame that is no message


class Result(NamedTuple):
    messages: int
    seconds: float  # from the first message sent until the last member had the last one
    cpu: float  # seconds of processor time that the load took


class Member:
    """One connection: how far it has come, and what has not gone out yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.offset = 0  # bytes of the stream of messages that it has got
        self.held = b""  # the beginning of something of which we cannot tell yet what it is
        self.unsent = b""
        self.sender = -1
        self.sent = 0  # messages that it has said in this run
        self.echoed = 0  # of these, how many it has got back


class Load:
    """``members`` connections to one server, the first ``senders`` of which send.

    ``place`` is a TCP port of this machine, or the path of a queue's socket.
    """

    def __init__(self, wire: Wire, place: int | str, *, members: int, senders: int, window: int) -> None:
        self._wire = wire
        self._share = max(1, window // senders)
        self._stream = bytearray()  # all messages of the run, as whoever got them first got them
        self._origins = bytearray()  # who said each of them; a sender's index fits a byte
        self._said = [bytearray() for _ in range(senders)]  # what each said and nobody has got yet
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}
        self._beat_at = 0.0
        self._connect(place, members)
        wire.settle([member.sock for member in self._members.values()], senders)
        self._senders = list(self._members.values())[:senders]
        for index, member in enumerate(self._senders):
            member.sender = index
        for fd, member in self._members.items():
            member.sock.setblocking(False)
            self._epoll.register(fd, select.EPOLLIN)

    def _connect(self, place: int | str, members: int) -> None:
        for start in range(0, members, _DOOR):
            group = [_dial(place) for _ in range(min(_DOOR, members - start))]
            self._members.update((sock.fileno(), Member(sock)) for sock in group)
            self._wire.join(group)
            self._beat()  # a thousand take longer to come in than a host waits for a sign of life

    def _beat(self) -> None:
        """Have everybody show that they live, where it is time to."""
        now = time.perf_counter()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_EVERY
            for member in self._members.values():
                self._send(member, self._wire.beat)

    def close(self) -> None:
        self._epoll.close()
        for member in self._members.values():
            member.sock.close()

    def run(self, seconds: float) -> Result:
        """Send for so long, then wait until everybody has everything. Raises Broken."""
        began, cpu = time.perf_counter(), time.process_time()
        for member in self._senders:
            self._send_more(member)
        sending = True
        while sending or not self._all_have_everything():
            self._turn(sending=sending)
            self._beat()
            sending = sending and time.perf_counter() - began < seconds
        return Result(len(self._origins), time.perf_counter() - began, time.process_time() - cpu)

    def _all_have_everything(self) -> bool:
        goal = sum(member.sent for member in self._senders) * self._wire.size
        return all(member.offset == goal for member in self._members.values())

    def _turn(self, *, sending: bool) -> None:
        ready = self._epoll.poll(PATIENCE)
        if not ready:
            raise Broken(f"nothing came for {PATIENCE:g} s; {self._missing()}")
        for fd, events in ready:
            member = self._members[fd]
            if events & select.EPOLLOUT:
                self._send(member, b"")
            if events & ~select.EPOLLOUT:
                self._receive(member)
                if sending and member.sender >= 0:
                    self._send_more(member)

    def _missing(self) -> str:
        said = sum(member.sent for member in self._senders)
        least = min(member.offset for member in self._members.values()) // self._wire.size
        return f"{said} messages were said, one member has {least}"

    # -- sending ---------------------------------------------------------------------------------

    def _send_more(self, member: Member) -> None:
        room = self._share - (member.sent - member.echoed)
        if room > 0:
            data = self._wire.messages(member.sender, member.sent + 1, room)
            member.sent += room
            self._said[member.sender] += data
            self._send(member, data)

    def _send(self, member: Member, data: bytes) -> None:
        data, waited = member.unsent + data, bool(member.unsent)
        if not data:
            return
        try:
            member.unsent = data[member.sock.send(data[:_PIECE]) :]
        except BlockingIOError:
            member.unsent = data
        if waited != bool(member.unsent):
            self._epoll.modify(member.sock, select.EPOLLIN | (select.EPOLLOUT if member.unsent else 0))

    # -- receiving and checking ------------------------------------------------------------------

    def _receive(self, member: Member) -> None:
        try:
            count = member.sock.recv_into(self._buffer)
        except ConnectionError:
            count = 0
        if not count:
            raise Broken(f"the server closed a member's connection; {self._missing()}")
        before = member.offset // self._wire.size
        data = self._buffer[:count]
        known = len(self._stream) - member.offset
        if not member.held and self._stream.startswith(data[:known], member.offset):
            member.offset += min(count, known)
            data = data[known:]
        if data:
            self._take_apart(member, member.held + data)
        if member.sender >= 0:
            after = member.offset // self._wire.size
            member.echoed += self._origins.count(member.sender, before, after)

    def _take_apart(self, member: Member, data: bytes) -> None:
        """The slow way: for what nobody got before, and where something else lies between the messages."""
        at, size = 0, self._wire.size
        while at < len(data):
            inside = member.offset % size
            between = 0
            if inside:
                message = size - inside
            else:
                message = self._wire.run(data, at)
                between = 0 if message else self._wire.control(data, at)
            if between < 0 or at + between > len(data):
                break
            if between > _CONTROL_LIMIT:
                raise Broken(f"something of {between} bytes lies between the messages")
            if not between:
                self._take(member, data[at : at + (message or size)])
            at += between or message or size
        member.held = data[at:]

    def _take(self, member: Member, piece: bytes) -> None:
        """Compare a piece of the stream with what others got, or be the first."""
        known = self._stream[member.offset : member.offset + len(piece)]
        if not piece.startswith(known):
            index = next(at for at, (one, other) in enumerate(zip(piece, known, strict=False)) if one != other)
            raise Broken(f"message {(member.offset + index) // self._wire.size} differs between members")
        self._stream += piece[len(known) :]
        member.offset += len(piece)
        self._check()

    def _check(self) -> None:
        """Check the messages that are now whole against what was said."""
        first, size = len(self._origins), self._wire.size
        count = len(self._stream) // size - first
        said = self._wire.said(self._stream[first * size : (first + count) * size], first)
        step = len(said) if len(self._said) == 1 else size
        for at in range(0, len(said), step or size):
            piece = said[at : at + step]
            name = bytes(piece[self._wire.text_at :][:SENDER_SIZE])
            sender = int(name) if name.isdigit() else -1
            if not 0 <= sender < len(self._said) or not self._said[sender].startswith(piece):
                raise Broken(
                    f"what was not said, or not next, lies from message {first + at // size} on: {piece!r:.300}"
                )
            del self._said[sender][: len(piece)]
            self._origins += bytes([sender]) * (len(piece) // size)


def _dial(place: int | str) -> socket.socket:
    if isinstance(place, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        sock.connect(place)
        return sock
    sock = socket.create_connection(("127.0.0.1", place), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
