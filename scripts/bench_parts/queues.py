"""Eight who all get everything, on one machine: a room over the queue, beside what else people use for that.

    scripts/bench --queues [--rounds N] [--seconds S]

Each way gets the same: one sender, eight readers, messages of 100 bytes, as fast as it can. The room stores every
message on the disk (fsync) before anybody gets it, numbers it, and its readers check every byte; the others do none
of that: their readers count bytes. They are a process each; the room's are the load's one process, and the host is
another. So what carries messages is compared by the queue's links, and what a room costs beside that by the room.

    room            chat host -t queue --headless, bench_parts/load.py
    room, 8 send    the same, where each of the eight is a sender too
    queue's links   the transport alone, one link for each reader, each send as full as the room's are (64 KiB)
    mp.Queue        multiprocessing.Queue, one for each reader
    Manager.Queue   multiprocessing.Manager().Queue(), one for each reader
    PUB/SUB         pyzmq over ipc://, without limits, so that it drops nothing
    POSIX mq        posix_ipc.MessageQueue, one for each reader
    FIFO            os.mkfifo, one for each reader
    socket pair     AF_UNIX SOCK_SEQPACKET, one for each reader; and again with 64 messages in each send

The round trips are 100 bytes to another process and back: over the queue's link, and over a bare socket pair that
is driven by the same kind of event loop (loop.sock_sendall, loop.sock_recv); and by plain blocking calls.

Processor time is that of all processes together, without their beginnings: on a busy machine it says more than
the clock.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.client.client import WINDOW
from chat.core.errors import DialFailed
from chat.transport import Address, Site
from scripts.bench import cpu_seconds
from scripts.bench_parts.hosts import ROOM, peak, queue_host
from scripts.bench_parts.load import Load
from scripts.bench_parts.wires import TEXT_SIZE, Broken, ChatWire
from transports.localqueue import MESSAGE, transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import SimpleQueue

    from chat.transport import Link

READERS: Final = 8
BATCH: Final = 64  # messages in each send of the socket pair that batches
ROUND_TRIPS: Final = 3000
ROOMS: Final = {"room": 1, f"room, {READERS} send": READERS}  # how many of its members send
END: Final = b"."  # the last message; on a stream, the end is
_MESSAGE: Final = bytes(TEXT_SIZE)
_READ_SIZE: Final = 64 * 1024
_fork: Final = multiprocessing.get_context("fork")  # by name: from 3.14 on it is no longer the default


class Figure(NamedTuple):
    rate: float  # deliveries a second
    cpu: float  # microseconds of processor time for each, of all processes
    grown: float = 0  # of the room: MiB of memory that the host took at most, above what it began with


class Missing(Exception):
    """A way that cannot be measured here, and why."""


# -- ways to give eight readers everything --------------------------------------------------------------


class Way:
    """What is made before the readers' processes are, and used on both sides of that."""

    name: str
    batch = 1  # messages in each send

    def __init__(self, folder: Path) -> None:
        """Raises Missing."""

    def read(self, reader: int) -> int:
        """Read until the end, in a reader's process; return how many bytes of messages there were."""
        raise NotImplementedError

    def sender(self) -> Callable[[bytes], object]:
        """Return, in the sender's process and once the readers are there, what gives a message to all of them."""
        raise NotImplementedError

    def end(self, send: Callable[[bytes], object]) -> None:
        """Tell the readers that this was all."""
        send(END)

    def close(self) -> None:
        """Let go of everything, when the readers have gone."""


class MpQueue(Way):
    name = "mp.Queue"

    def __init__(self, folder: Path) -> None:
        self.queues: list[Any] = [_fork.Queue() for _ in range(READERS)]

    def read(self, reader: int) -> int:
        count = 0
        while (message := self.queues[reader].get()) != END:
            count += len(message)
        return count

    def sender(self) -> Callable[[bytes], object]:
        puts = [queue.put for queue in self.queues]

        def send(message: bytes) -> None:
            for put in puts:
                put(message)

        return send

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
            queue.join_thread()


class ManagerQueue(MpQueue):
    name = "Manager.Queue"

    def __init__(self, folder: Path) -> None:
        self.manager = _fork.Manager()
        self.queues = [self.manager.Queue() for _ in range(READERS)]

    def close(self) -> None:
        self.manager.shutdown()


class PubSub(Way):
    name = "PUB/SUB"

    def __init__(self, folder: Path) -> None:
        self.zmq: Any = _library("zmq", "pyzmq")
        self.address = f"ipc://{folder}/zmq"

    def read(self, reader: int) -> int:
        sock = self.zmq.Context().socket(self.zmq.SUB)
        sock.setsockopt(self.zmq.RCVHWM, 0)
        sock.setsockopt(self.zmq.SUBSCRIBE, b"")
        sock.connect(self.address)
        count = 0
        while (message := sock.recv()) != END:
            count += len(message)
        return count

    def sender(self) -> Callable[[bytes], object]:
        self.context = self.zmq.Context()
        self.sock = self.context.socket(self.zmq.XPUB)  # a PUB that is told who subscribes: so nobody misses the first
        self.sock.setsockopt(self.zmq.XPUB_VERBOSE, 1)
        self.sock.setsockopt(self.zmq.SNDHWM, 0)
        self.sock.bind(self.address)
        for _ in range(READERS):
            self.sock.recv()
        send: Callable[[bytes], object] = self.sock.send
        return send

    def close(self) -> None:
        self.sock.close()
        self.context.term()


class PosixMq(Way):
    name = "POSIX mq"

    def __init__(self, folder: Path) -> None:
        library = _library("posix_ipc", "posix_ipc")
        self.queues: list[Any] = [
            library.MessageQueue(None, library.O_CREX, max_messages=10, max_message_size=TEXT_SIZE)
            for _ in range(READERS)
        ]

    def read(self, reader: int) -> int:
        count = 0
        while (message := self.queues[reader].receive()[0]) != END:
            count += len(message)
        return count

    def sender(self) -> Callable[[bytes], object]:
        def send(message: bytes) -> None:
            for queue in self.queues:
                queue.send(message)

        return send

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
            queue.unlink()


class Fifo(Way):
    name = "FIFO"

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / str(reader) for reader in range(READERS)]
        self.fds: list[int] = []
        for path in self.paths:
            os.mkfifo(path, 0o600)

    def read(self, reader: int) -> int:
        fd, count = os.open(self.paths[reader], os.O_RDONLY), 0
        while data := os.read(fd, _READ_SIZE):
            count += len(data)
        return count

    def sender(self) -> Callable[[bytes], object]:
        self.fds = [os.open(path, os.O_WRONLY) for path in self.paths]  # waits for each reader

        def send(message: bytes) -> None:
            for fd in self.fds:
                os.write(fd, message)

        return send

    def end(self, send: Callable[[bytes], object]) -> None:
        for fd in self.fds:
            os.close(fd)


class SocketPair(Way):
    name = "socket pair"

    def __init__(self, folder: Path) -> None:
        self.pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(READERS)]

    def read(self, reader: int) -> int:
        for sending, _ in self.pairs:
            sending.close()  # else the end would never come
        sock, count = self.pairs[reader][1], 0
        while data := sock.recv(_READ_SIZE):
            count += len(data)
        return count

    def sender(self) -> Callable[[bytes], object]:
        def send(message: bytes) -> None:
            for sending, _ in self.pairs:
                sending.send(message)

        return send

    def end(self, send: Callable[[bytes], object]) -> None:
        self.close()

    def close(self) -> None:
        for sending, receiving in self.pairs:
            sending.close()
            receiving.close()


class SocketPairInBatches(SocketPair):
    name = f"socket pair, {BATCH} a send"
    batch = BATCH


class QueueLinks(Way):
    name = "queue's links"
    batch = MESSAGE // TEXT_SIZE

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, reader: int) -> int:
        return asyncio.run(self._read())

    async def _read(self) -> int:
        count, link = 0, None
        while link is None:
            with suppress(DialFailed):  # the sender does not listen yet
                link = await transport.dial(Address("queue", f"{self.folder}/queue"))
        while data := await link.receive():
            for at in range(0, len(data), TEXT_SIZE):  # each message by itself, as the others' readers get them
                count += len(data[at : at + TEXT_SIZE])
        await link.aclose()
        return count

    def sender(self) -> Callable[[bytes], object]:
        self.loop = asyncio.new_event_loop()
        self.links = self.loop.run_until_complete(self._accept())

        def send(message: bytes) -> None:
            for link in self.links:
                if link.send(message) < len(message):  # nothing of it went: a message of the queue is never cut
                    self.loop.run_until_complete(_send(link, message))

        return send

    async def _accept(self) -> list[Link]:
        listener = await transport.listen(Address("queue"), Site(self.folder, Path()))
        links = [await listener.accept() for _ in range(READERS)]
        await listener.aclose()
        return list(links)

    def end(self, send: Callable[[bytes], object]) -> None:
        for link in self.links:
            self.loop.run_until_complete(link.aclose())

    def close(self) -> None:
        self.loop.close()


WAYS: Final = (QueueLinks, MpQueue, ManagerQueue, PubSub, PosixMq, Fifo, SocketPair, SocketPairInBatches)


def _library(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise Missing(f"{package} is not installed") from None


def measure(kind: type[Way], seconds: float) -> Figure:
    """Raises Missing; Broken when something was lost."""
    batch = kind.batch
    with tempfile.TemporaryDirectory(prefix="chat-bench-") as folder:
        way = kind(Path(folder))
        reports = _fork.SimpleQueue()
        readers = [_fork.Process(target=_read, args=(way, reader, reports)) for reader in range(READERS)]
        for process in readers:
            process.start()
        send = way.sender()
        before = _cpu()
        began, sent, message = time.perf_counter(), 0, _MESSAGE * batch
        while time.perf_counter() - began < seconds:
            for _ in range(max(1, BATCH // batch)):
                send(message)
                sent += batch
        way.end(send)
        counts, starting = zip(*(reports.get() for _ in readers), strict=True)
        took, got = time.perf_counter() - began, sum(counts)
        for process in readers:
            process.join()
        way.close()
        cpu = _cpu() - before - sum(starting)
    if got != sent * TEXT_SIZE * READERS:
        raise Broken(f"{way.name} lost something: {got} bytes came of {sent * TEXT_SIZE * READERS}")
    deliveries = sent * READERS
    return Figure(deliveries / took, cpu / deliveries * 1e6)


def _read(way: Way, reader: int, reports: SimpleQueue[tuple[int, float]]) -> None:
    starting = time.process_time()
    reports.put((way.read(reader), starting))


def _cpu() -> float:
    """Seconds of processor time, of this process and of those that have ended and were waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


# -- the room -------------------------------------------------------------------------------------------------


def _host(folder: Path) -> AbstractContextManager[tuple[int, str]]:
    return queue_host(folder, os.environ | {"CHAT_RUNTIME": f"{folder}/run"})


def measure_room(seconds: float, data: Path, senders: int = 1) -> Figure:
    """Raises Broken when a message was lost, doubled, swapped or changed."""
    with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=data) as folder, _host(Path(folder)) as (pid, path):
        load = Load(ChatWire(ROOM), path, members=READERS, senders=senders, window=WINDOW * senders)
        try:
            before, began = cpu_seconds(pid), peak(pid)
            result = load.run(seconds)
            cpu, grown = cpu_seconds(pid) - before + result.cpu, (peak(pid) - began) / 2**20
        finally:
            load.close()
    deliveries = result.messages * READERS
    return Figure(deliveries / result.seconds, cpu / deliveries * 1e6, grown)


# -- round trips ----------------------------------------------------------------------------------------------


def round_trip_by_link() -> float:
    """Microseconds from here to another process and back, over the queue."""
    with tempfile.TemporaryDirectory(prefix="chat-bench-") as folder:
        address = Address("queue", f"{folder}/queue")

        async def echo() -> None:
            link = await transport.dial(address)
            while data := await link.receive():
                await _send(link, data)
            await link.aclose()

        async def ask() -> float:
            listener = await transport.listen(address, Site(Path(folder), Path()))
            with _child(lambda: asyncio.run(echo())):
                link = await listener.accept()
                began = time.perf_counter()
                for _ in range(ROUND_TRIPS):
                    await _send(link, _MESSAGE)
                    await link.receive()
                took = time.perf_counter() - began
                await link.aclose()
            await listener.aclose()
            return took / ROUND_TRIPS * 1e6

        return asyncio.run(ask())


async def _send(link: Link, data: bytes) -> None:
    while not link.send(data):
        await link.writable()


def round_trip_by_loop() -> float:
    """The same over a bare socket pair, by the event loop's own calls."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def echo() -> None:
        near.close()
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(far, _READ_SIZE):
            await loop.sock_sendall(far, data)

    async def ask() -> float:
        with _child(lambda: asyncio.run(echo())):
            far.close()
            loop = asyncio.get_running_loop()
            began = time.perf_counter()
            for _ in range(ROUND_TRIPS):
                await loop.sock_sendall(near, _MESSAGE)
                await loop.sock_recv(near, _READ_SIZE)
            took = time.perf_counter() - began
            near.close()
        return took / ROUND_TRIPS * 1e6

    for sock in (near, far):
        sock.setblocking(False)
    return asyncio.run(ask())


def round_trip_blocking() -> float:
    """The same by blocking calls, with no event loop at all: what the kernel takes."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def echo() -> None:
        near.close()
        while data := far.recv(_READ_SIZE):
            far.send(data)

    with _child(echo):
        far.close()
        began = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            near.send(_MESSAGE)
            near.recv(_READ_SIZE)
        took = time.perf_counter() - began
        near.close()
    return took / ROUND_TRIPS * 1e6


@contextmanager
def _child(main: Callable[[], object]) -> Iterator[None]:
    """Run ``main`` in a forked process, and wait for its end."""
    pid = os.fork()
    if not pid:
        try:
            asyncio._set_running_loop(None)  # the parent's, which is not ours to run
            main()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.waitpid(pid, 0)


TRIPS: Final = {
    "the queue's link": round_trip_by_link,
    "socket pair, same loop": round_trip_by_loop,
    "socket pair, blocking": round_trip_blocking,
}


# -- showing -----------------------------------------------------------------------------------------------------


def tables(rounds: int, seconds: float, data: Path) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Measure everything in every round; return two tables, of deliveries and of round trips, and what was left out."""
    figures: dict[str, list[Figure]] = {name: [] for name in (*ROOMS, *(way.name for way in WAYS))}
    trips: dict[str, list[float]] = {name: [] for name in TRIPS}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for name, senders in ROOMS.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            figures[name].append(measure_room(seconds, data, senders))
        for way in WAYS:
            print(f"round {number + 1} of {rounds}: {way.name}", file=sys.stderr)
            try:
                figures[way.name].append(measure(way, seconds))
            except Missing as error:
                missing[way.name] = str(error)
        for name, trip in TRIPS.items():
            trips[name].append(trip())
    room, links = (median(figure.rate for figure in figures[name]) for name in ("room", QueueLinks.name))
    deliveries = [["way", "deliveries/s", "room / it", "links / it", "CPU us each", "host grew, MiB"]]
    for name, found in figures.items():
        if found:
            rate, cpu = median(figure.rate for figure in found), median(figure.cpu for figure in found)
            grown = f"{max(figure.grown for figure in found):.1f}" if name in ROOMS else ""
            deliveries.append(
                [name, f"{rate:,.0f}", f"{room / rate:.2g}x", f"{links / rate:.2g}x", f"{cpu:.2f}", grown]
            )
    bare = median(trips["socket pair, same loop"])
    round_trips = [["round trip", "us", "x bare, same loop"]]
    round_trips += [[name, f"{median(found):.0f}", f"{median(found) / bare:.2f}"] for name, found in trips.items()]
    return deliveries, round_trips, [f"left out: {name}, since {why}" for name, why in missing.items()]
