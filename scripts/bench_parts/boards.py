"""Looking at who is here, a thousand members on one machine: the board, beside what else people use for that.

    scripts/bench --boards [--rounds N] [--folder DIRECTORY]

One look reads the states of all members; then they are taken apart, checked and merged (``presence.seen``), which
costs by how many have changed and is the same for every way. Before each look an eighth of the members, in another
process, write theirs anew: a heartbeat comes every 4 s, and a window looks every half second. What counts is the median
of all looks; the ways take turns.

    board           transports/shm.py: one pread of 257 KiB, a CRC for each slot that has changed
    quiet board     the same, where nobody has written since the last look
    busy board      the same, where half of the members have
    first look      the same, by one who has just opened it: a CRC for every slot, and every state is taken apart
    with locks      the same, asking the kernel about every writer, as one does where heartbeats are over 5 s old
    mp.Array        multiprocessing.Array, copied under its lock, which keeps out all writers meanwhile
    Manager.dict    multiprocessing.Manager().dict(), copied: a question to its process
    host            who joins silently, over TCP without TLS, and has the list of names; it has no states
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.client.client import Client
from chat.client.target import Target
from chat.core.status import Status, _unpack_slot, pack_slot, seen
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from chat.transport import MAX_SLOT, Address
from scripts.bench import allow_files, serve
from scripts.bench_parts.load import Load
from scripts.bench_parts.wires import Broken
from transports import shm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    from chat.transport import Reading

MEMBERS: Final = 1000
CHANGED: Final = MEMBERS // 8  # who write anew before each look
LOOKS: Final = 20  # of each way in each round
ROOM: Final = "bench"
HEADINGS: Final = ("way", "µs a look", "x board", "µs with what it means")
_SPARE_FILES: Final = 64

_fork: Final = multiprocessing.get_context("fork")  # by name: from 3.14 on it is no longer the default


class Figure(NamedTuple):
    """Medians, in seconds."""

    look: float  # until every state is there, as bytes
    whole: float  # until they are taken apart and merged


def tables(rounds: int, folder: Path) -> list[list[str]]:
    """Measure every way in every round; return rows for ``scripts.bench.table``. Raises Broken."""
    figures: dict[str, list[Figure]] = {}
    for _ in range(rounds):
        for kind in WAYS:
            figures.setdefault(kind.name, []).append(measure(kind))
        figures.setdefault("host", []).append(measure_host(folder))
    board = median(figure.look for figure in figures[Board.name])
    rows = []
    for name, measured in figures.items():
        look, whole = median(figure.look for figure in measured), median(figure.whole for figure in measured)
        rows.append([name, f"{look * 1e6:,.0f}", f"{look / board:.1f}", f"{whole * 1e6:,.0f}"])
    return [list(HEADINGS), *rows]


# -- ways to see what others have written -----------------------------------------------------------


class Way:
    """What is made before the writers' process is forked, and used on both sides of that."""

    name: str
    changed = CHANGED

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def writer(self) -> Callable[[int, bytes], object]:
        """Return, in the writers' process, what shows the state of one of them."""
        raise NotImplementedError

    def look(self) -> Iterable[Reading]:
        """Return what all of them show, in this process."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything, when the writers have gone."""


class Board(Way):
    name = "board"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shm.board.create(folder).close()
        self.board: shm.ShmBoard | None = None  # opened after the fork: a child has no part in its parent's

    def writer(self) -> Callable[[int, bytes], object]:
        board = shm.board.open(self.folder)
        slots = [slot for _ in range(MEMBERS) if (slot := board.claim()) is not None]
        return lambda number, payload: slots[number].write(payload)

    def look(self) -> list[Reading]:
        self.board = self.board or shm.board.open(self.folder)
        return self.board.read()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


class QuietBoard(Board):
    name = "quiet board"
    changed = 0


class BusyBoard(Board):
    name = "busy board"
    changed = MEMBERS // 2


class FirstLook(Board):
    name = "first look"

    def look(self) -> list[Reading]:
        _unpack_slot.cache_clear()
        self.close()
        self.board = None
        return super().look()


class WithLocks(Board):
    name = "with locks"

    def look(self) -> list[Reading]:
        self.board = self.board or shm.board.open(self.folder)
        return self.board.read(trust_ms=0)


class Array(Way):
    name = "mp.Array"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.array: Any = _fork.Array("c", MEMBERS * MAX_SLOT)

    def writer(self) -> Callable[[int, bytes], object]:
        def write(number: int, payload: bytes) -> None:
            with self.array.get_lock():
                self.array.get_obj()[number * MAX_SLOT : (number + 1) * MAX_SLOT] = payload.ljust(MAX_SLOT, b"\0")

        return write

    def look(self) -> Iterator[Reading]:
        with self.array.get_lock():
            data = self.array.get_obj().raw
        for number in range(MEMBERS):
            yield number, data[number * MAX_SLOT : (number + 1) * MAX_SLOT].rstrip(b"\0"), 0


class ManagerDict(Way):
    name = "Manager.dict"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.manager = _fork.Manager()
        self.shared: Any = self.manager.dict()

    def writer(self) -> Callable[[int, bytes], object]:
        write: Callable[[int, bytes], object] = self.shared.__setitem__
        return write

    def look(self) -> list[Reading]:
        return [(number, payload, 0) for number, payload in self.shared.copy().items()]

    def close(self) -> None:
        self.manager.shutdown()


WAYS: Final = (Board, QuietBoard, BusyBoard, FirstLook, WithLocks, Array, ManagerDict)


def measure(kind: type[Way]) -> Figure:
    """Raises Broken when somebody was not seen."""
    with tempfile.TemporaryDirectory(prefix="chat-bench-") as folder:
        way = kind(Path(folder))
        ours, theirs = _fork.Pipe()
        writers = _fork.Process(target=_write, args=(way, theirs), daemon=True)
        writers.start()
        times = []
        for turn in range(LOOKS):
            ours.send(turn)
            ours.recv()
            began = time.perf_counter()
            readings = list(way.look())
            looked = time.perf_counter()
            found = seen(readings)
            times.append(Figure(looked - began, time.perf_counter() - began))
            if len(found) != MEMBERS:
                raise Broken(f"{way.name} showed {len(found)} members of {MEMBERS}")
        ours.send(None)
        writers.join()
        way.close()
    looks, wholes = zip(*times[1:], strict=True)  # the first one takes all the states in
    return Figure(median(looks), median(wholes))


def _write(way: Way, orders: Connection) -> None:
    """Be all the members: write all states the first time, some of them each time after."""
    write = way.writer()
    while (turn := orders.recv()) is not None:
        for number in range(way.changed if turn else MEMBERS):
            state = Status(note="out to lunch", read=turn)
            write(number, pack_slot(number.to_bytes(32, "big"), f"member-{number}", state))
        orders.send(None)


# -- asking a host ----------------------------------------------------------------------------------


def measure_host(folder: Path) -> Figure:
    """From a dial to the whole list of names. Raises Broken."""
    allow_files(MEMBERS + _SPARE_FILES)
    with serve("host", folder) as server:
        load = Load(server.wire, server.port, members=MEMBERS, senders=1, window=1)
        try:
            took = median(asyncio.run(_join_silently(server.port, Path(own))) for own in _folders())
            return Figure(took, took)
        finally:
            load.close()


def _folders() -> Iterator[str]:
    for _ in range(LOOKS):
        with tempfile.TemporaryDirectory(prefix="chat-bench-") as folder:
            yield folder


async def _join_silently(port: int, folder: Path) -> float:
    identity, known_hosts = Identity.load(folder / "key"), KnownHosts(folder / "known_hosts")
    target = Target((Address("tcp", f"127.0.0.1:{port}", {"tls": "0"}),), ROOM)
    began = time.perf_counter()
    async with Client(lambda: target, identity, known_hosts, silent=True) as client:
        while len(client.session.here) < MEMBERS:
            if not await client.next_events():
                raise Broken(f"the host told of {len(client.session.here)} members of {MEMBERS}")
        return time.perf_counter() - began
