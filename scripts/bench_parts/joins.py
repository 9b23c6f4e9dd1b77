"""How long many members take to join a room over its queue, beside what their signatures alone take.

Rules:

1. At most 32 are at the door at once. Everybody reads all that comes, as members do, and says a BEAT every 3 s.
2. The floor is what a host computes for each: one Ed25519 signature checked, two made.
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chat.core.bodies import Challenge, Refusal, unpack
from chat.core.wire import PREFACE, Kind, Parser, encode
from chat.local.identity import Identity, verify
from scripts.bench_parts.hosts import ROOM, queue_host
from scripts.bench_parts.wires import Broken, hello

_DOOR: Final = 32
_PATIENCE: Final = 30.0  # seconds without a byte before we give up
_BEAT_EVERY: Final = 3.0  # seconds


class Newcomer:
    def __init__(self, place: str, identity: Identity) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(place)
        self.sock.setblocking(False)
        self.is_in = False
        self._parser = Parser()
        self._identity = identity

    def receive(self) -> None:
        """Raises Broken."""
        if not (data := self.sock.recv(1024 * 1024)):
            raise Broken("the host closed a member's connection")
        for frame in self._parser.feed(data):
            if frame.kind == Kind.CHALLENGE:
                self.sock.send(PREFACE + hello(ROOM, unpack(Challenge, frame), self._identity))
            elif frame.kind == Kind.REFUSED:
                raise Broken(f"the host refused: {unpack(Refusal, frame).text}")
            self.is_in |= frame.kind == Kind.WELCOME


def join_all(place: str, identities: list[Identity]) -> list[float]:
    """Return when each was in, in seconds since the first one dialled. Raises Broken."""
    began = beat = time.perf_counter()
    epoll, members, door, took = select.epoll(), dict[int, Newcomer](), set[Newcomer](), list[float]()
    try:
        while len(took) < len(identities):
            while len(door) < _DOOR and len(members) < len(identities):
                newcomer = Newcomer(place, identities[len(members)])
                members[newcomer.sock.fileno()] = newcomer
                door.add(newcomer)
                epoll.register(newcomer.sock, select.EPOLLIN)
            if not (ready := epoll.poll(_PATIENCE)):
                raise Broken(f"nothing came for {_PATIENCE:g} s; {len(took)} are in")
            for fd, _events in ready:
                member = members[fd]
                member.receive()
                if member.is_in and member in door:
                    door.remove(member)
                    took.append(time.perf_counter() - began)
            if time.perf_counter() >= beat + _BEAT_EVERY:
                beat = time.perf_counter()
                for member in members.values():
                    if member.is_in:
                        member.sock.send(encode(Kind.BEAT))
        return took
    finally:
        epoll.close()
        for member in members.values():
            member.sock.close()


def floor(count: int) -> float:
    """Return how many seconds the signatures of so many joins take."""
    identity = Identity(Ed25519PrivateKey.generate())
    said = os.urandom(200)
    signature = identity.sign(said)
    began = time.perf_counter()
    for _ in range(count):
        verify(identity.key, signature, said)
        identity.sign(said)
        identity.sign(said)
    return time.perf_counter() - began


def tables(members: list[int], rounds: int, data: Path) -> list[list[str]]:
    """Raises Broken."""
    rows = [["members", "s, new keys", "s, known keys", "x floor", "last tenth x first tenth"]]
    for count in members:
        identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(count)]
        with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=data) as folder:
            environment = os.environ | {"HOME": folder, "XDG_RUNTIME_DIR": folder}
            with queue_host(Path(folder), environment) as (_pid, place):
                new = join_all(place, identities)[-1]
                known = [join_all(place, identities) for _ in range(rounds)]
        seconds = median(took[-1] for took in known)
        tenth = max(1, count // 10)
        later = median((took[-1] - took[-tenth]) / max(took[tenth - 1], 1e-9) for took in known)
        rows.append([f"{count:,}", f"{new:.2f}", f"{seconds:.2f}", f"{seconds / floor(count):.1f}", f"{later:.1f}"])
    return rows
