"""How long the messages of two bystanders take while somebody attacks their host, beside how long they took before.

One process each: the host, the attacker, and the bystanders, who say one message at a time. The attacker has a lower
priority: from elsewhere it could not take processor time of this machine, but through the host. For root, host and
bystanders have real-time priority, so that nothing else delays them. Everybody comes through a proxy that says where
they are: the attacker from one address, each bystander from another.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import selectors
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chat.core.bodies import Challenge, Hello, Refusal, Welcome, direct_name, pack, unpack
from chat.core.wire import MAX_TEXT, PREFACE, Frame, Kind, Parser, encode
from chat.local.identity import Identity, transcript
from scripts.bench_parts.wires import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
ROOM: Final = "bench"
EVIL: Final = "203.0.113.9"
OLD: Final = 3000  # messages in the log before it begins, of 4 KiB each: more than the host holds in memory
PAUSE: Final = 0.002  # seconds between two messages of the bystanders


def new_key() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


def evil_key(number: int) -> Identity:
    """The attacker's: the same in each round, or the host would let no more newcomers in."""
    return Identity(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))


class Link:
    """A peer's end of a connection, blocking."""

    def __init__(self, port: int, source: str = EVIL, *, tls: bool = False) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(f"PROXY TCP4 {source} 192.0.2.1 40000 7711\r\n".encode())
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
        self._parser = Parser()
        self._frames: list[Frame] = []

    def frame(self, *kinds: int) -> Frame:
        """Return the next frame of one of these kinds. Raises Broken, OSError."""
        while True:
            while self._frames:
                found = self._frames.pop(0)
                if found.kind == Kind.REFUSED:
                    raise Broken(f"the host refused: {unpack(Refusal, found).text}")
                if found.kind in kinds:
                    return found
            data = self.sock.recv(1 << 16)
            if not data:
                raise Broken("the host closed a link")
            self._frames += self._parser.feed(data)

    def enter(self, key: Identity, *, room: str = ROOM, **more: Any) -> Welcome:
        challenge, nonce = unpack(Challenge, self.frame(Kind.CHALLENGE)), secrets.token_bytes(32)
        said = transcript("member", host=challenge.key, room=room, host_nonce=challenge.nonce, nonce=nonce, key=key.key)
        fields: dict[str, Any] = {"nick": f"m-{key.key.hex()[:12]}", "stream": secrets.randbits(63)} | more
        hello = Hello(room=room, key=key.key, nonce=nonce, signature=key.sign(said), **fields)
        self.sock.sendall(PREFACE + pack(Kind.HELLO, hello))
        return unpack(Welcome, self.frame(Kind.WELCOME))


# -- attacks ------------------------------------------------------------------------------------------
# Each goes on until it is killed. It says that it has begun by calling ``begun``.

Ports = tuple[int, int]  # plain, TLS


def silent(port: int, begun: Callable[[], None], *, begin: bytes = b"") -> None:
    """300 connections that say nothing: for each that the host drops comes another."""
    waiting = selectors.DefaultSelector()

    def more() -> None:
        with suppress(OSError):
            link = Link(port)
            link.sock.sendall(begin)
            link.sock.setblocking(False)
            waiting.register(link.sock, selectors.EVENT_READ)

    for _ in range(300):
        more()
    begun()
    while True:
        for key, _ in waiting.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            with suppress(BlockingIOError):
                try:
                    if sock.recv(1 << 16):
                        continue
                except ConnectionError:
                    pass
                waiting.unregister(sock)
                sock.close()
                more()


def many_links(ports: Ports, begun: Callable[[], None]) -> None:
    """8 keys with all the links that they can have, which beat; and they try for more all the time."""
    links, keys, last = [], [evil_key(number) for number in range(8)], time.monotonic()
    for number in range(1003):
        with suppress(Broken, OSError):
            links.append(Link(ports[0]))
            links[-1].enter(keys[number % 8], nick="", silent=True, stream=0)
    begun()
    while True:
        with suppress(Broken, OSError):
            Link(ports[0]).enter(random.choice(keys))
        if time.monotonic() > last + 3:
            last = time.monotonic()
            for link in links:
                with suppress(OSError):
                    link.sock.sendall(encode(Kind.BEAT))
                    link.sock.setblocking(False)
                    while link.sock.recv(1 << 20):
                        pass


def flood(ports: Ports, begun: Callable[[], None], *, size: int = MAX_TEXT) -> None:
    """One key that says messages as fast as it can over 8 links, and reads nothing but to keep its links."""
    key, numbers = evil_key(0), dict[Link, int]()
    for _ in range(8):
        link = Link(ports[0])
        link.enter(key)
        link.sock.setblocking(False)
        numbers[link] = 1
    rest = dict.fromkeys(numbers, b"")
    begun()
    while True:
        for link, number in numbers.items():
            with suppress(BlockingIOError):
                while link.sock.recv(1 << 20):
                    pass
            if not rest[link]:
                rest[link] = b"".join(encode(Kind.SAY, bytes(size), number=number + n) for n in range(8))
                numbers[link] = number + 8
            with suppress(BlockingIOError):
                rest[link] = rest[link][link.sock.send(rest[link]) :]


def small_flood(ports: Ports, begun: Callable[[], None]) -> None:
    """The same with the shortest messages."""
    flood(ports, begun, size=1)


def new_keys(ports: Ports, begun: Callable[[], None]) -> None:
    """A new key and nickname for each visit."""
    begun()
    while True:
        with suppress(Broken, OSError):
            link = Link(ports[0])
            link.enter(new_key())
            link.sock.close()


def direct_rooms(ports: Ports, begun: Callable[[], None]) -> None:
    """Direct rooms of the attacker's 16 keys with each other, and messages in each."""
    keys = [evil_key(number) for number in range(16)]
    for key in keys:
        Link(ports[0]).enter(key)
    links = dict[Link, int]()
    for at, key in enumerate(keys):
        for other in keys[:at]:
            with suppress(Broken, OSError):
                link = Link(ports[0])
                link.enter(key, room=direct_name(key.key, other.key), other=other.key)
                link.sock.setblocking(False)
                links[link] = 1
    begun()
    while links:
        for link, number in list(links.items()):
            try:
                while link.sock.recv(1 << 20):
                    pass
                del links[link]
            except BlockingIOError:
                with suppress(BlockingIOError):
                    link.sock.send(encode(Kind.SAY, b"psst", number=number))
                    links[link] = number + 1


def old_targets(ports: Ports, begun: Callable[[], None]) -> None:
    """Edits of others' messages that are in no memory any more."""
    link = Link(ports[0])
    link.enter(evil_key(0))
    number = 1
    begun()
    while True:
        targets = [random.randrange(2, OLD) for _ in range(50)]
        frames = [
            encode(Kind.EDIT, struct.pack("!Q", target) + b"x", number=number + n) for n, target in enumerate(targets)
        ]
        number += len(frames)
        link.sock.sendall(b"".join(frames))
        link.sock.setblocking(False)
        with suppress(BlockingIOError):
            while link.sock.recv(1 << 20):
                pass
        link.sock.setblocking(True)


def single_bytes(ports: Ports, begun: Callable[[], None]) -> None:
    """4 members, each byte of whose messages is a TLS record."""
    links = []
    for number in range(4):
        links.append(Link(ports[1], tls=True))
        links[-1].enter(evil_key(number))
        links[-1].sock.setblocking(False)
    frame = encode(Kind.SAY, bytes(MAX_TEXT), number=1)
    begun()
    at = dict.fromkeys(links, 0)
    while True:
        for link in links:
            for _ in range(100):
                try:
                    link.sock.send(frame[at[link] : at[link] + 1])
                    at[link] = min(at[link] + 1, len(frame) - 2)
                except (ssl.SSLWantWriteError, BlockingIOError):
                    break
            with suppress(ssl.SSLWantReadError, BlockingIOError):
                link.sock.recv(1 << 16)


ATTACKS: Final[dict[str, Callable[[Ports, Callable[[], None]], None]]] = {
    "A1 silent connections": lambda ports, begun: silent(ports[0], begun),
    "A1 silent in the TLS handshake": lambda ports, begun: silent(ports[1], begun),
    "A1 half a HELLO": lambda ports, begun: silent(ports[0], begun, begin=PREFACE + bytes((0, 0, 1, 0, Kind.HELLO))),
    "A2 a thousand links of 8 keys": many_links,
    "A3 a flood of 16 KiB messages": flood,
    "A3 a flood of 1-byte messages": small_flood,
    "A4 new keys": new_keys,
    "A5 direct rooms": direct_rooms,
    "A6 edits of old messages": old_targets,
    "A9 single bytes under TLS": single_bytes,
}
OTHERS: Final = "A7 and A8 are about a member's memory and about folders: they meet no bystander."


# -- measuring ------------------------------------------------------------------------------------------


@contextmanager
def _host(folder: Path) -> Iterator[Ports]:
    """Run a host that listens without and with TLS. Raises Broken."""
    wires = ["-t", "tcp:127.0.0.1:0?tls=0", "-t", "tcp:127.0.0.1:0", "--proxy-protocol", "loopback"]
    command = [sys.executable, "-m", "chat", "host", ROOM, "--headless", "--json", "--open", *wires]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--data", f"{folder}/data"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=os.environ | {"CHAT_RUNTIME": f"{folder}/run", "CHAT_CONFIG": f"{folder}/none.toml"},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            ports = []
            for _ in range(2):
                line = process.stdout.readline()
                if not line:
                    raise Broken(f"the host did not start; exit code {process.wait()}")
                address = json.loads(line)["address"].partition("?")[0]
                ports.append(int(address.rpartition(":")[2]))
            yield ports[0], ports[1]
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def _attacker(name: str, ports: Ports) -> Iterator[None]:
    """Run an attack in a process of its own. Raises Broken if it ends by itself."""
    command = [sys.executable, "-m", __name__, name, *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise Broken(f"the attack {name!r} did not begin")
            yield
            if process.poll() is not None:
                raise Broken(f"the attack {name!r} ended early")
        finally:
            process.kill()


class Bystanders:
    """Two members, from two other addresses."""

    def __init__(self, port: int) -> None:
        self._links = [Link(port, f"198.51.100.{number}") for number in (1, 2)]
        for link in self._links:
            link.enter(new_key())
        self._number = 0

    def fill(self) -> None:
        """Say what is old when the attack begins."""
        for _ in range(OLD):
            self._exchange(bytes(4096))

    def _exchange(self, filling: bytes = b"") -> None:
        """One says something; return when the other has it."""
        self._number += 1
        says, hears = self._links
        text = b"%d " % self._number + filling
        says.sock.sendall(encode(Kind.SAY, text, number=self._number))
        while hears.frame(Kind.SAY).body != text:
            pass
        says.sock.setblocking(False)
        with suppress(BlockingIOError):
            while says.sock.recv(1 << 20):
                pass
        says.sock.settimeout(20)

    def trips(self, seconds: float) -> list[float]:
        """Return how many seconds each message took."""
        took = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            self._exchange()
            took.append(time.perf_counter() - began)
            time.sleep(PAUSE)
        self._links[1].sock.sendall(encode(Kind.BEAT))
        return took


def measure(name: str, rounds: int, seconds: float, folder: Path) -> tuple[list[float], list[float]]:
    """Return the trips before and during an attack, on a host of its own, in turn."""
    before, during = list[float](), list[float]()
    with _host(folder) as ports:
        bystanders = Bystanders(ports[0])
        if name.startswith("A6"):
            bystanders.fill()
        bystanders.trips(0.3)
        for _ in range(rounds):
            before += bystanders.trips(seconds)
            with _attacker(name, ports):
                during += bystanders.trips(seconds)
            bystanders.trips(0.3)
    return before, during


def tables(rounds: int, seconds: float, data: Path) -> list[list[str]]:
    """Raises Broken."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # of the host as well, which we start
    rows = [["attack", "p50 ms before", "during", "p99 ms before", "during", "p99 x", "trips"]]
    for name in ATTACKS:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=data) as folder:
            before, during = measure(name, rounds, seconds, Path(folder))
        figures = [quantiles(took, n=100)[percent - 1] * 1000 for percent in (50, 99) for took in (before, during)]
        ratio = figures[3] / figures[2]
        rows.append([name, *(f"{figure:.1f}" for figure in figures), f"{ratio:.1f}", str(len(during))])
    return rows


def main(name: str, *ports: str) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except PermissionError:
        os.nice(10)
    plain, tls = map(int, ports)
    ATTACKS[name]((plain, tls), lambda: print("begun", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
