"""THE CONTRACT: what every transport and every board must do, in numbered clauses, each with a check.

Ten lines hold a transport to it:

    class Toy(testing.Kit):
        entry_point = "manywire_toy:transport"  # as in the entry point

        def address(self) -> Address:
            return Address("toy", str(self.folder / secrets.token_hex(4)))

    @pytest.mark.parametrize("name", testing.CLAUSES | testing.ROOM_CLAUSES)
    def test_contract(name: str, tmp_path: Path) -> None:
        asyncio.run(testing.check(Toy(tmp_path), name))

A board is held to it in the same way, by a BoardKit, which needs no more than a door, and BOARD_CLAUSES.

Rules:

1. A clause is a sentence and a check that can fail. The sentence is the promise; the check tries hard to break it.
2. No check sleeps. It waits for something that must happen, for at most one time unit (5 s, times the
   environment's CHAT_TEST_UNIT); that something must not happen is shown by turns of the loop, not by time.
3. Every clause runs under a watchdog. A call that blocks would stop the loop, and with it every time-out of
   asyncio, so behind that watchdog stands the alarm signal (in the main thread).
4. A link is checked from both of its ends: the one that dialled, and the one that was accepted.
5. A room is checked with the real host, store and client, over plain links and over FaultyLinks.
6. Nothing here knows of pytest. A broken promise is ContractBroken, which is an AssertionError.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from array import array
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

from chat.client.client import Client
from chat.client.events import Lost, Up
from chat.client.target import Target
from chat.core.errors import DialFailed, LinkBroken, LinkBusy, LinkClosed, ListenFailed, StoreFull
from chat.core.session import Message, Rewound, Stored
from chat.core.wire import MAX_BATCH, MAX_TEXT, Ask, Author, Gap, Kind, Notice, split, unpack
from chat.host.host import Host
from chat.host.store import Store
from chat.local.identity import Identity, host_hash, load_host
from chat.local.known_hosts import KnownHosts
from chat.transport import MAX_SLOT, Address, Site, find, lend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from chat.client.events import ClientEvent
    from chat.core.log import Batch
    from chat.core.room import RoomChanges
    from chat.transport import Board, BoardMaker, BoardSlot, Buffer, Link, Listener, Peer, Transport

UNIT: Final = 5.0  # seconds, times CHAT_TEST_UNIT
TURNS: Final = 50  # of the loop, in which something that must not happen would have happened
MANY: Final = 1024 * 1024  # bytes
CLOG_LIMIT: Final = 256 * 1024 * 1024  # bytes: a link that takes so many without a reader has no bound


_T = TypeVar("_T")


class ContractBroken(AssertionError):
    """A clause does not hold."""


def _fail(text: str) -> NoReturn:
    raise ContractBroken(text)


# -- kits: what the contract needs to know of a transport ---------------------------------------------


class Kit:
    """One transport under test: give it a door and an address, and override the rest where it must be."""

    entry_point: ClassVar[str]  # "module:object", as in the entry point; a process of its own loads it too
    skips: ClassVar[Mapping[str, str]] = {}  # the clauses that cannot be checked here, each with its reason
    elsewhere: Address = Address("memory")  # where R4 resumes: on another transport, which is installed

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # empty, private, for this kit alone
        self.unit = UNIT * float(os.environ.get("CHAT_TEST_UNIT", "1"))

    @property
    def transport(self) -> Transport:
        transport: Transport = _load(self.entry_point)
        return transport

    @property
    def site(self) -> Site:
        return Site(self.folder, self.folder / "certificate.pem")

    def address(self) -> Address:
        """An address to listen on, free at every call."""
        raise NotImplementedError

    async def clog(self, link: Link, taken: int = 0) -> int:
        """Fill a link whose peer does not read, until it takes nothing more; return how many bytes it took in all.

        The bytes are those of ``pattern``, of which it may have ``taken`` some before.
        """
        size, refused = 65_536, 0
        while refused < TURNS:  # the kernel may move some on to the peer's side after the first refusal
            piece = bytearray(pattern(taken, size))
            took = _send(link, piece)
            piece[:] = bytes(len(piece))  # whoever kept a reference sends zeros now
            piece.clear()  # and whoever kept the buffer itself makes this a BufferError
            taken += took
            if took:
                refused = 0
            elif size > 1:  # a wire of messages may still have room for a smaller one
                size //= 2
            else:
                refused += 1
                await asyncio.sleep(0)
            if taken > CLOG_LIMIT:
                _fail(f"the link took {taken} bytes that nobody reads: it has no bound")
        return taken

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        listener = await self.transport.listen(self.address(), self.site)
        try:
            yield listener
        finally:
            await listener.aclose()

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Link, Link]]:
        """Two ends of one link: the one that dialled, the one that was accepted. The listener is gone."""
        async with self.listening() as listener:
            dialled, accepted = await connect(self.transport, listener)
        try:
            yield dialled, accepted
        finally:
            await dialled.aclose()
            await accepted.aclose()

    @asynccontextmanager
    async def doomed(self, *, dials: bool, sends: bool) -> AsyncIterator[tuple[Link, Callable[[], object]]]:
        """A link to a peer that never reads, and a call that makes the peer vanish without a goodbye.

        ``dials``: the peer dials us, otherwise we dial it. ``sends``: it sends ``pattern`` without end. Here it is
        a process, killed with SIGKILL; a transport that lives within one process must find another way.
        """
        if not dials:
            with self._victim("listen", self.address(), sends=sends) as process:
                assert process.stdout is not None
                address = Address.parse(process.stdout.readline().strip())
                async with _closing(await self.transport.dial(address)) as link:
                    yield link, process.kill
            return
        async with self.listening() as listener:
            with self._victim("dial", listener.address, sends=sends) as process:
                async with _closing(await listener.accept()) as link:
                    yield link, process.kill

    @contextmanager
    def _victim(self, role: str, address: Address, *, sends: bool) -> Iterator[subprocess.Popen[str]]:
        words = [self.entry_point, role, str(address), "sends" if sends else "silent", str(self.folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "chat.testing", *words, str(self.site.certificate)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with process:  # waits for its end, and closes its output
            try:
                yield process
            finally:
                process.kill()


async def connect(transport: Transport, listener: Listener) -> tuple[Link, Link]:
    """Dial a listener and accept: the two ends of one link."""
    accepting = _start(listener.accept())
    try:
        dialled = await transport.dial(listener.address)
        try:
            return dialled, await accepting
        except BaseException:
            await dialled.aclose()
            raise
    finally:
        accepting.cancel()


# -- clauses ------------------------------------------------------------------------------------------

Check: TypeAlias = "Callable[[Any], Awaitable[None]]"  # of a Kit, or of a BoardKit


@dataclass(frozen=True, slots=True)
class Clause:
    """A numbered promise."""

    name: str
    sentence: str
    check: Check


CLAUSES: Final[dict[str, Clause]] = {}  # T1-T6, L1-L13: the transport by itself
ROOM_CLAUSES: Final[dict[str, Clause]] = {}  # R1-R4: a room over the transport
BOARD_CLAUSES: Final[dict[str, Clause]] = {}  # B1-B5: a board


def _clause(name: str, table: dict[str, Clause] = CLAUSES) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        table[name] = Clause(name, " ".join((check.__doc__ or "").split()), check)
        return check

    return register


def _both_ends(check: Callable[[Kit, Link, Link], Awaitable[None]]) -> Check:
    """Make a check of a pair into a check of the pair and, with a new one, of the pair the other way round."""

    async def check_both(kit: Kit) -> None:
        async with kit.pair() as (dialled, accepted):
            await check(kit, dialled, accepted)
        async with kit.pair() as (dialled, accepted):
            await check(kit, accepted, dialled)

    check_both.__doc__ = check.__doc__
    return check_both


async def check(kit: Kit | BoardKit, name: str) -> None:
    """Check one clause. Raises ContractBroken, or whatever the transport or board raised that it should not have."""
    clause = (CLAUSES | ROOM_CLAUSES | BOARD_CLAUSES)[name]
    limit = 4 * kit.unit
    try:
        with _alarm(limit + kit.unit):
            async with asyncio.timeout(limit):
                await clause.check(kit)
    except TimeoutError as error:
        raise ContractBroken(f"still not done after {limit:g} s\n{name}: {clause.sentence}") from error
    except Exception as error:
        error.add_note(f"{name}: {clause.sentence}")
        raise


# -- T: transports and listeners ------------------------------------------------------------------------


@_clause("T1")
async def address_can_be_dialled(kit: Kit) -> None:
    """A listener's address can be written down, read again and dialled."""
    async with kit.listening() as listener:
        written = str(listener.address)
        if Address.parse(written) != listener.address:
            _fail(f"{listener.address!r} is another address when written as {written!r} and read again")
        if listener.address.scheme != kit.transport.scheme:
            _fail(f"{written!r} does not begin with {kit.transport.scheme!r}")
        accepting = _start(listener.accept())
        dialled = await kit.transport.dial(Address.parse(written))
        async with _closing(dialled), _closing(await accepting) as accepted:
            await _carry(dialled, accepted, b"hello")


@_clause("T2")
async def dialling_nobody_fails(kit: Kit) -> None:
    """Dialling an address where nobody listens any more raises DialFailed within the time unit, and leaks nothing."""
    async with kit.listening() as listener:
        pass
    await _settle()
    before = _held(kit)
    for _ in range(3):
        try:
            async with asyncio.timeout(kit.unit):
                link = await kit.transport.dial(listener.address)
        except DialFailed:
            continue
        except TimeoutError:
            _fail(f"dialling {listener.address} took longer than {kit.unit:g} s")
        await link.aclose()
        _fail(f"somebody answered at {listener.address} after its listener was closed")
    await _nothing_left(kit, before)


@_clause("T3")
async def listening_twice_fails(kit: Kit) -> None:
    """Listening twice on one address raises ListenFailed, and the first listener goes on."""
    async with kit.listening() as listener:
        try:
            second = await kit.transport.listen(listener.address, kit.site)
        except ListenFailed:
            pass
        else:
            await second.aclose()
            _fail(f"two listeners share {listener.address}")
        dialled, accepted = await connect(kit.transport, listener)
        async with _closing(dialled), _closing(accepted):
            await _carry(dialled, accepted, b"hello")


@_clause("T4")
async def two_dialers_get_two_links(kit: Kit) -> None:
    """Two who dial get a link each: nothing crosses over."""
    async with kit.listening() as listener:
        near_one, far_one = await connect(kit.transport, listener)
        async with _closing(near_one), _closing(far_one):
            near_two, far_two = await connect(kit.transport, listener)
            async with _closing(near_two), _closing(far_two):
                await asyncio.gather(
                    _carry(near_one, far_one, pattern(0, 10_000)),
                    _carry(far_one, near_one, pattern(20_000, 10_000)),
                    _carry(near_two, far_two, pattern(40_000, 10_000)),
                    _carry(far_two, near_two, pattern(60_000, 10_000)),
                )


@_clause("T5")
async def closing_a_listener(kit: Kit) -> None:
    """Closing a listener wakes accept with LinkClosed, leaves its links alive, and frees its address."""
    async with kit.listening() as listener:
        dialled, accepted = await connect(kit.transport, listener)
        async with _closing(dialled), _closing(accepted):
            accepting = _start(listener.accept())
            await _settle()
            await listener.aclose()
            await listener.aclose()
            await _raises(LinkClosed, accepting, kit, "accept, woken by the close,")
            await _raises(LinkClosed, listener.accept(), kit, "accept after the close")
            await _carry(dialled, accepted, b"hello")
            await _carry(accepted, dialled, b"hello")
            again = await kit.transport.listen(listener.address, kit.site)
            await again.aclose()


@_clause("T6")
async def cancelled_dial_and_accept(kit: Kit) -> None:
    """A cancelled dial or accept leaks nothing and loses nobody."""
    async with kit.listening() as listener:
        dialled, accepted = await connect(kit.transport, listener)
        await dialled.aclose()
        await accepted.aclose()
        await _settle()
        before = _held(kit)
        for turns in range(12):  # cancelled a little later every time
            password = b"%2d" % turns
            calling = _start(_dial_and_say(kit, listener, password))
            early = await _cancel_after(turns, listener.accept())
            gave_up = await _cancel_after(turns, kit.transport.dial(listener.address))
            if gave_up is not None:
                await gave_up.aclose()
            said = None
            while said != password:  # the others are those who gave up
                async with _closing(early or await listener.accept()) as link:
                    early, said = None, await _receive_some(link, 2)
            await (await calling).aclose()
        await listener.aclose()  # who gave up may still wait in it
        await _nothing_left(kit, before)


# -- L: links ---------------------------------------------------------------------------------------------


@_clause("L1")
@_both_ends
async def bytes_unchanged(_kit: Kit, near: Link, far: Link) -> None:
    """Bytes arrive unchanged and in order, in pieces of any size from 0 to 1 MiB, in both directions at once."""
    for size in (0, 1, 4_095, 4_096, 4_097, 65_535, 65_536, 65_537, MANY):
        await asyncio.gather(_carry(near, far, pattern(0, size)), _carry(far, near, pattern(MANY, size)))


@_clause("L2")
@_both_ends
async def send_takes_any_buffer(kit: Kit, near: Link, far: Link) -> None:
    """``send`` takes any buffer, keeps no reference to it, and transmits nothing for an empty one."""
    data = pattern(0, 600)
    for piece in (data[:100], bytearray(data[100:200]), memoryview(data)[200:300], memoryview(bytearray(data))[300:]):
        if near.send(b""):
            _fail("send took something of nothing")
        await _send_all(near, piece)
    _same(await _receive_exactly(far, len(data)), data)
    taken = await kit.clog(near)  # it overwrites each piece once send has returned
    _same(await _receive_exactly(far, taken), pattern(0, taken))
    waiting = _start(far.receive())
    await _settle()
    if near.send(b""):
        _fail("send took something of nothing")
    await _settle()
    if waiting.done():
        _fail(f"receive returned {waiting.result()!r} when nothing was sent")
    await _send_all(near, b"x")
    _same(await waiting, b"x")


@_clause("L3")
@_both_ends
async def send_never_waits(kit: Kit, near: Link, far: Link) -> None:
    """``send`` never waits: a full link takes 0; and what it took arrives without another call."""
    taken = await kit.clog(near)
    _same(await _receive_exactly(far, taken), pattern(0, taken))


@_clause("L4")
@_both_ends
async def writable_sleeps_and_wakes(kit: Kit, near: Link, far: Link) -> None:
    """``writable`` sleeps while the link is full, wakes when there is room, and is over at once where there is."""
    await near.writable()
    taken, waiting = await _sleeping_writer(kit, near)
    _same(await _receive_exactly(far, taken), pattern(0, taken))
    await _within(kit, waiting, "writable, with all read at the other end,")
    await _send_all(near, b"x")
    _same(await _receive_exactly(far, 1), b"x")


@_clause("L5")
@_both_ends
async def the_end(kit: Kit, near: Link, far: Link) -> None:
    """``receive`` returns ``b""`` at the end of the stream, never before it, and ever after."""
    waiting = _start(far.receive())
    await _settle()
    if waiting.done():
        _fail(f"receive returned {waiting.result()!r} before anything was sent")
    await _send_all(near, b"hello")
    got = await waiting
    _same(got + await _receive_exactly(far, 5 - len(got)), b"hello")
    await near.aclose()
    for _ in range(5):
        rest = await _within(kit, far.receive(), "receive, after the peer closed,")
        if rest:
            _fail(f"receive invented {rest!r} at the end")


@_clause("L6")
async def what_was_sent_arrives(kit: Kit) -> None:
    """What was sent before ``aclose`` arrives at a peer that reads, even from a full link with bytes left unread."""
    for dialler_closes in (True, False):
        async with kit.pair() as ends:
            near, far = ends if dialler_closes else reversed(ends)
            taken = await kit.clog(near)
            await kit.clog(far)  # and nobody reads that
            await near.aclose()
            with suppress(LinkBroken):  # talking to one who has left
                far.send(pattern(0, 10_000))
            _same(await _within(kit, _receive_all(far), "reading to the end"), pattern(0, taken))


@_clause("L7")
async def vanished_peer(kit: Kit) -> None:
    """A peer that vanishes shows within the time unit, as the end or as LinkBroken: never a hang, no invented bytes."""
    for dials in (True, False):
        async with kit.doomed(dials=dials, sends=False) as (link, vanish):
            waiting = _start(_receive_all(link))
            await _settle()
            if waiting.done():
                _fail("the link ended before its peer did")
            vanish()
            _same(await _within(kit, waiting, "receive, with the peer gone,"), b"")
        async with kit.doomed(dials=dials, sends=True) as (link, vanish):
            got = await _receive_some(link, 200_000)
            await kit.clog(link)
            sending = _start(send_pattern(link))
            await _settle()
            vanish()
            got += await _within(kit, _receive_all(link), "reading what the peer left")
            _same(got, pattern(0, len(got)))
            await _raises(LinkBroken, sending, kit, "sending to a peer that is gone")


@_clause("L8")
@_both_ends
async def closed_link(kit: Kit, near: Link, far: Link) -> None:
    """After ``aclose`` every call raises LinkClosed, and ``aclose`` itself may be called again."""
    await _send_all(far, b"never read")
    await near.aclose()
    await near.aclose()
    for piece in (b"x", b""):
        try:
            near.send(piece)
        except LinkClosed:
            continue
        _fail("send works on a closed link")
    await _raises(LinkClosed, near.receive(), kit, "receive after aclose")
    await _raises(LinkClosed, near.writable(), kit, "writable after aclose")


@_clause("L9")
@_both_ends
async def aclose_wakes(kit: Kit, near: Link, _far: Link) -> None:
    """``aclose`` wakes those who wait on the link with LinkClosed, and does not wait for the peer."""
    receiving = _start(near.receive())
    _, sending = await _sleeping_writer(kit, near)
    await _within(kit, near.aclose(), "aclose of a full link")
    await _raises(LinkClosed, receiving, kit, "receive, woken by aclose,")
    await _raises(LinkClosed, sending, kit, "writable, woken by aclose,")


@_clause("L10")
@_both_ends
async def second_reader(kit: Kit, near: Link, far: Link) -> None:
    """A second ``receive``, or ``writable``, while one waits raises LinkBusy, and the first is not disturbed."""
    first = _start(near.receive())
    await _settle()
    await _raises(LinkBusy, near.receive(), kit, "a second receive")
    await _send_all(far, b"x")
    _same(await _within(kit, first, "the first receive"), b"x")
    taken, first_writer = await _sleeping_writer(kit, near)
    await _raises(LinkBusy, near.writable(), kit, "a second writable")
    _same(await _receive_exactly(far, taken), pattern(0, taken))
    await _within(kit, first_writer, "the first writable")


@_clause("L11")
@_both_ends
async def cancelled_waits(_kit: Kit, near: Link, far: Link) -> None:
    """Cancelling ``receive`` or ``writable`` loses no byte and leaves the link as good as before."""
    data, got = pattern(0, MANY), bytearray()
    turns = cycle(range(5))

    async def send_with_cancelled_waits() -> None:
        rest = memoryview(data)
        while rest:
            taken = _send(near, rest)
            rest = rest[taken:]
            if not taken:
                await _cancel_after(next(turns), near.writable())

    async def receive_with_cancelled_waits() -> None:
        while len(got) < len(data):
            piece = await _cancel_after(next(turns), far.receive())
            if piece == b"":
                _fail(f"the stream ended after {len(got)} bytes of {len(data)}")
            got.extend(piece or await far.receive())

    await asyncio.gather(send_with_cancelled_waits(), receive_with_cancelled_waits())
    _same(bytes(got), data)


@_clause("L12")
async def no_thread_no_blocking(kit: Kit) -> None:
    """There is no thread and no blocking call: whatever waits, the loop turns and others are served."""
    async with kit.listening() as listener:
        before = set(threading.enumerate())
        dialled, accepted = await connect(kit.transport, listener)
        async with _closing(dialled), _closing(accepted):
            await _carry(dialled, accepted, pattern(0, MANY))
            await _carry(accepted, dialled, pattern(0, MANY))
            waits = [(await _sleeping_writer(kit, link))[1] for link in (dialled, accepted)]
            accepting = _start(listener.accept())
            other = await kit.transport.dial(listener.address)
            async with _closing(other), _closing(await accepting) as other_accepted:
                accepting = _start(listener.accept())
                await _carry(other, other_accepted, pattern(0, MANY))
                if extra := set(threading.enumerate()) - before:
                    _fail(f"threads were started: {sorted(thread.name for thread in extra)}")
                if accepting.done():
                    _fail("accept returned where nobody had dialled")
            for task in (accepting, *waits):
                task.cancel()


@_clause("L13")
async def nothing_left(kit: Kit) -> None:
    """When all is closed there are the same descriptors, tasks, threads and files as before."""
    await _whole_life(kit)  # the first may import, and fill caches
    await _settle()
    before = _held(kit)
    await _whole_life(kit)
    await _nothing_left(kit, before)


async def _whole_life(kit: Kit) -> None:
    async with kit.listening() as listener:
        dialled, accepted = await connect(kit.transport, listener)
        async with _closing(dialled), _closing(accepted):
            await _carry(dialled, accepted, pattern(0, MANY))
            await _cancel_after(3, accepted.receive())
            await kit.clog(dialled)
            await kit.clog(accepted)
            await _cancel_after(3, accepted.writable())
        in_the_door = _start(kit.transport.dial(listener.address))
        await _settle()
    with suppress(DialFailed):
        await (await in_the_door).aclose()


async def _dial_and_say(kit: Kit, listener: Listener, data: bytes) -> Link:
    link = await kit.transport.dial(listener.address)
    await _send_all(link, data)
    return link


# -- R: rooms -----------------------------------------------------------------------------------------------

_ROOM: Final = "contract"
_THE_END: Final = "that was all"
_ROUND: Final = 5  # messages that each says before it waits for all of them to be stored
_COMEBACKS: Final = 8  # of each member, at least, in one go
_LACKS: Final = 64  # frames of 16 KiB that a stalled member lacks before some are taken away
_ROW: Final = 48  # bits: a batch's row in the store is room << 48 | its first number


class Line(NamedTuple):
    """A message, as the log has it and as every member must be shown it."""

    seq: int
    time: int
    nick: str
    text: str


class _Disk(Store):
    """A store that can be made to fail."""

    full = False

    def commit(self, room: int, batches: list[Batch], changes: RoomChanges) -> None:
        if self.full:
            raise StoreFull("the disk is full, as the test asked for")
        super().commit(room, batches, changes)

    def lines(self, room: int) -> list[Line]:
        authors: dict[int, Author] = {}
        lines: list[Line] = []
        seq = 1
        while found := self.read(room, seq):
            if isinstance(found, Gap):
                _fail(f"the store lacks the {found.count} numbers from {found.first} on")
            for frame in split(found.data):
                if frame.kind == Kind.AUTHOR:
                    authors[frame.author] = unpack(Author, frame)
                else:
                    lines.append(Line(frame.seq, frame.time, authors[frame.author].nick, frame.body.decode()))
            seq = found.next_seq
        return lines

    def lose_some(self, room: int, seq: int) -> list[Gap]:
        """Drop two rows that follow each other, and damage one, from ``seq`` on; return the gaps that it makes."""
        database = self._database
        rows = [
            (at, Gap(first=at & (1 << _ROW) - 1, count=frames))
            for at, frames in database.execute(
                "SELECT at, frames FROM batches WHERE at >= ? AND at < ? ORDER BY at LIMIT 6",
                (room << _ROW | seq, (room + 1) << _ROW),
            )
        ]
        (one, first), (two, second), (three, third) = rows[1], rows[2], rows[4]
        database.execute("DELETE FROM batches WHERE at IN (?, ?)", (one, two))
        database.execute("UPDATE batches SET data = zeroblob(length(data)) WHERE at = ?", (three,))
        return [Gap(first=first.first, count=first.count + second.count), third]


class _Seat:
    """A member of the room: what it said, and what it was told."""

    def __init__(self, name: str, key: bytes, client: Client) -> None:
        self.name = name
        self.key = key
        self._client = client
        self.said: list[str] = []
        self.shown: list[Line] = []
        self.stored: list[tuple[int, str]] = []  # number, text
        self.gaps: list[Gap] = []
        self.lost: list[str] = []
        self.over: list[str] = []  # the address, each time that it came in
        self.disk_full = asyncio.Event()

    async def say(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.said.append(text)
            await self._client.say(text)
            await asyncio.sleep(0)  # the others' turn: all speak at once

    async def speak(self, texts: Iterable[str]) -> None:
        """Say these, and wait until they are stored."""
        await self.say(texts)
        await self._client.settled()

    async def all_accepted(self) -> None:
        """Return when the host has taken in what was said: it answers a question after that."""
        while True:
            with suppress(LinkBroken):  # it has not come back yet
                await self._client.ask(Ask(what="nothing"))
                return
            await asyncio.sleep(0)

    async def hear(self, last: str) -> None:
        """Take in what comes, until this text is shown."""
        while all(line.text != last for line in self.shown):
            events = await self._client.next_events()
            if not events:
                _fail(f"{self.name} was closed before it was shown {last!r}")
            for event in events:
                self._take(event)

    def _take(self, event: ClientEvent) -> None:
        match event:
            case Message():
                self.shown.append(Line(event.seq, event.time, event.author.nick, event.text))
            case Gap():
                self.gaps.append(event)
            case Stored(entry, seq):
                self.stored.append((seq, entry.body.decode()))
            case Up(address):
                self.over.append(str(address))
            case Lost(why):
                self.lost.append(why)
            case Notice(code="disk-full"):
                self.disk_full.set()
            case Rewound(why):
                _fail(f"{self.name} had been shown what the host does not hold: {why}")


class _Inn:
    """A room on a real host with a real disk, on listeners of the transports under test, and its members."""

    def __init__(self, folder: Path, site: Path, doors: list[Callable[[], Address]], members: AsyncExitStack) -> None:
        self.seats: list[_Seat] = []
        self._folder = folder
        self._site = Site(site, folder / "host.pem")
        self._doors = doors
        self._members = members

    async def open(self) -> None:
        self.store = _Disk(self._folder / "store")
        self.host = Host(load_host(self._site.certificate), self.store, rate=0)
        self.kept = self.host.open_room(_ROOM, open_to_all=True)
        self._running = _start(self.host.run())
        self.addresses = [await self.host.listen(door(), self._site, _ROOM) for door in self._doors]

    async def aclose(self) -> None:
        """Close the host. Raises what it had failed of, if it had."""
        await self.host.aclose()
        self.store.close()
        if self._running.done():
            self._running.result()
        self._running.cancel()

    async def seat(self, name: str, *, reads_only: bool = False, roams: bool = False) -> _Seat:
        """Let a member in. One that ``roams`` dials another of the host's addresses each time."""
        folder = self._folder / name
        identity = Identity.load(folder / "key")
        turns = count()

        def locate() -> Target:
            turn = next(turns) % len(self.addresses) if roams else 0
            # Many times: who is cut at the door knocks again at once, and not only after a growing delay.
            return Target((self.addresses[turn],) * 5, _ROOM, host_hash(self.host.identity.key))

        while True:
            client = Client(
                locate,
                identity,
                KnownHosts(folder / "known_hosts"),
                outboxes=None if reads_only else folder / "outboxes",
                nick=name,
                silent=reads_only,
            )
            with suppress(LinkBroken):  # cut at the door: the first time a client does not come back by itself
                await self._members.enter_async_context(client)
                self.seats.append(_Seat(name, identity.key, client))
                return self.seats[-1]

    async def hear_all(self, speaking: Awaitable[object]) -> None:
        """Have everybody listen while some speak, and until it is said that this was all."""

        async def speak() -> None:
            await speaking
            await self.seats[0].speak([_THE_END])

        await asyncio.gather(speak(), *(seat.hear(_THE_END) for seat in self.seats))

    async def speak_until_all_came_back(self, chance: random.Random) -> None:
        """Have everybody speak, in rounds, until each has come back some times."""
        due = {seat: len(seat.over) + _COMEBACKS for seat in self.seats}
        while any(len(seat.over) < due[seat] for seat in self.seats):
            await asyncio.gather(*(seat.speak(_texts(seat.name, chance)) for seat in self.seats))

    def check(self, seats: list[_Seat], lines: list[Line] | None = None) -> None:
        """The log holds what they said, once and in their order, and so they were shown it, but for told gaps."""
        lines = self.store.lines(self.kept.number) if lines is None else lines
        for seat in seats:
            mine = [(line.seq, line.text) for line in lines if line.nick == seat.name]
            _alike("the log", [text for _, text in mine], f"what {seat.name} said", seat.said)
            _alike(f"what {seat.name} was told is stored", seat.stored, "the log", mine)
            gone = {seq for gap in seat.gaps for seq in range(gap.first, gap.first + gap.count)}
            due = [line for line in lines if line.seq not in gone]
            _alike(f"what {seat.name} was shown", seat.shown, "the log", due)


def _texts(name: str, chance: random.Random, many: int = _ROUND) -> list[str]:
    """Texts of some 25 bytes to 3 KB, each of which exists once."""
    sizes = (chance.choice((0, chance.randrange(1_000))) for _ in range(many))
    return [f"{name} {chance.getrandbits(64):x} {'漢' * size}" for size in sizes]


def _alike(what: str, got: list[_T], other: str, due: list[_T]) -> None:
    if got == due:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, due, strict=False)) if a != b), min(len(got), len(due)))
    _fail(
        f"{what} has {len(got)} messages, {other} {len(due)}; they differ from the {at + 1}. on: "
        f"{str(got[at : at + 1])[:120]} and {str(due[at : at + 1])[:120]}"
    )


@asynccontextmanager
async def _hosting(kit: Kit, *doors: tuple[Transport, Callable[[], Address]]) -> AsyncIterator[_Inn]:
    with TemporaryDirectory(dir=kit.folder) as folder:
        async with AsyncExitStack() as stack:  # the members leave before the host
            for transport, _ in doors:
                stack.enter_context(lend(transport))
            inn = _Inn(Path(folder), kit.folder, [address for _, address in doors], stack)
            await inn.open()
            stack.push_async_callback(inn.aclose)
            yield inn


def _also_over_faulty_links(check: Callable[[Kit, Transport], Awaitable[None]]) -> Check:
    async def check_twice(kit: Kit) -> None:
        await check(kit, kit.transport)
        await check(kit, WrappedTransport(kit.transport, Faults(seed=1)))

    check_twice.__doc__ = check.__doc__
    return check_twice


@_clause("R1", ROOM_CLAUSES)
@_also_over_faulty_links
async def one_order(kit: Kit, transport: Transport) -> None:
    """When many speak at once all are shown every message, once and in one order: that of the log on the disk."""
    chance = random.Random("R1")
    async with _hosting(kit, (transport, kit.address)) as inn:
        seats = [await inn.seat(name) for name in ("ann", "bob", "cid")]
        await inn.seat("dan", reads_only=True)
        await inn.hear_all(asyncio.gather(*(seat.speak(_texts(seat.name, chance, 60)) for seat in seats)))
        inn.check(inn.seats)
        _undisturbed(inn.seats)


@_clause("R2", ROOM_CLAUSES)
async def cut_and_come_back(kit: Kit) -> None:
    """Links may be cut anywhere, and the host may end: members come back by themselves, nothing is lost or doubled."""
    chance = random.Random("R2")
    faults = Faults(seed=2, cutting=True)
    async with _hosting(kit, (WrappedTransport(kit.transport, faults), kit.address)) as inn:
        seats = [await inn.seat(name) for name in ("ann", "bob", "cid")]

        async def speak() -> None:
            await inn.speak_until_all_came_back(chance)
            for full_to_the_last in (True, False):
                inn.store.full = True
                for seat in seats:
                    seat.disk_full.clear()
                for seat in seats:
                    await seat.say(_texts(seat.name, chance))
                for seat in seats:
                    await seat.disk_full.wait()
                faults.cutting = False
                faults.cut()  # whoever comes back must not take for stored what is only accepted
                for seat in seats:
                    await seat.all_accepted()
                faults.cutting = True
                inn.store.full = full_to_the_last  # it ends with or without storing that; the next knows only the disk
                await inn.aclose()
                await inn.open()
                await inn.speak_until_all_came_back(chance)
            faults.cutting = False

        await inn.hear_all(speak())
        inn.check(seats)
        _no_gaps(seats)


@_clause("R3", ROOM_CLAUSES)
@_also_over_faulty_links
async def stalled_member(kit: Kit, transport: Transport) -> None:
    """A member that stalls delays nobody, and is told its exact gap where what it lacks cannot be had any more."""
    gate = asyncio.Event()
    gate.set()
    async with _hosting(kit, (transport, kit.address)) as inn:
        ann, bob = [await inn.seat(name) for name in ("ann", "bob")]
        with lend(WrappedTransport(transport, lambda link: _GatedLink(link, gate))):
            cid = await inn.seat("cid")
        gate.clear()
        log = inn.kept.room.log
        log._limit = MAX_BATCH  # what cid lacks comes from the disk, as it would after a long time
        (cursor,) = (member.cursor for member in inn.kept.room.members if member.key == cid.key)
        while cursor.lag(log) < _LACKS:  # until its link is full; the others have got everything by then
            texts = [f"{len(ann.said) + n} ".ljust(MAX_TEXT, "x") for n in range(_ROUND)]
            heard = asyncio.gather(ann.speak(texts), ann.hear(texts[-1]), bob.hear(texts[-1]))
            await _within(kit, heard, "what ann said, on its way to bob with cid stalled,")
            if len(ann.said) * MAX_TEXT > CLOG_LIMIT:
                _fail(f"a member that reads nothing was sent {len(ann.said)} messages of 16 KiB: its link has no bound")
        inn.check([ann, bob])
        gaps = inn.store.lose_some(inn.kept.number, cursor.seq)
        gate.set()
        await inn.hear_all(ann.speak(_texts("ann", random.Random("R3"))))
        inn.check(inn.seats, ann.shown)
        _alike("what cid was told of gaps", cid.gaps, "the store", gaps)
        _no_gaps([ann, bob])
        _undisturbed(inn.seats)


@_clause("R4", ROOM_CLAUSES)
async def resume_elsewhere(kit: Kit) -> None:
    """A member may leave on this transport and resume on another, and the other way: nothing is lost or doubled."""
    chance = random.Random("R4")
    faults = Faults(seed=4, cutting=True)
    here, there = WrappedTransport(kit.transport, faults), WrappedTransport(find(kit.elsewhere.scheme), faults)
    async with _hosting(kit, (there, lambda: kit.elsewhere), (here, kit.address)) as inn:
        seats = [await inn.seat(name, roams=True) for name in ("ann", "bob", "cid")]

        async def speak() -> None:
            await inn.speak_until_all_came_back(chance)
            faults.cutting = False

        await inn.hear_all(speak())
        inn.check(seats)
        _no_gaps(seats)
        for seat in seats:
            if set(seat.over) != set(map(str, inn.addresses)):
                _fail(f"{seat.name} was to roam between {inn.addresses}, and was only over {set(seat.over)}")


def _undisturbed(seats: list[_Seat]) -> None:
    for seat in seats:
        if seat.lost:
            _fail(f"{seat.name} lost its link: {seat.lost[0]}")


def _no_gaps(seats: list[_Seat]) -> None:
    for seat in seats:
        if seat.gaps:
            _fail(f"{seat.name} was told of a gap where everything was to be had: {seat.gaps[0]}")


# -- B: boards --------------------------------------------------------------------------------------------------


class BoardKit:
    """One board under test: give it a door."""

    entry_point: ClassVar[str]  # "module:object", as in the entry point; processes of their own load it too

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # empty, private, for this kit alone
        self.unit = UNIT * float(os.environ.get("CHAT_TEST_UNIT", "1"))

    @property
    def maker(self) -> BoardMaker:
        maker: BoardMaker = _load(self.entry_point)
        return maker

    def board(self) -> AbstractContextManager[Board]:
        """A board as a host has it."""
        return closing(self.maker.create(self.folder))

    @contextmanager
    def hand(self) -> Iterator[Hand]:
        """A process that has opened the board. It is killed in the end, unless it has left before."""
        process = subprocess.Popen(
            [sys.executable, "-m", "chat.testing", "board", self.entry_point, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with process:  # waits for its end, and closes its pipes
            try:
                yield Hand(process)
            finally:
                process.kill()


class Hand:
    """A process that does to a board what it is told, a line at a time; ``_obey`` is its other half."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def hear(self) -> list[int]:
        """The numbers of its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _fail(f"a process that was told to use the board ended with exit code {self.process.wait()}")
        return [int(word) for word in line.split()]

    def ask(self, *words: object) -> list[int]:
        self.tell(*words)
        return self.hear()

    def claim(self, most: int) -> list[int]:
        """Have it claim so many slots, or all that are to be had; return their indices."""
        return self.ask("claim", most)

    def write(self, payload: bytes) -> None:
        """Have it write into the slot that it claimed last."""
        self.ask("write", payload.hex())

    def stop(self) -> None:
        """Stop it, like Ctrl-Z, but without asking it."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def leave(self, way: str) -> None:
        """Have it end: "close" says goodbye, "return" ends the program, "exit" stops it short, "kill" kills it."""
        if way == "kill":
            self.process.kill()
        else:
            self.tell(way)
        self.process.wait()


def _obey(entry_point: str, folder: str) -> None:
    """What a Hand's process does: one line in, one line out."""
    board: Board = _load(entry_point).open(Path(folder))
    slots: list[BoardSlot] = []
    for line in sys.stdin:
        words = line.split()
        answer: list[int] = []
        match words[0]:
            case "claim":
                answer = _claim(board, slots, int(words[1]))
            case "write":
                slots[-1].write(bytes.fromhex(words[1] if len(words) > 1 else ""))
            case "scribble":
                for number in range(*map(int, words[1:])):
                    slots[-1].write(scribble(number))
            case "watch":
                answer = watch(board, set(map(int, words[1:])))
            case "close":
                board.close()
                return
            case "exit":
                os._exit(0)
            case _:
                return
        print(*answer, flush=True)  # noqa: T201  to the one who told us


def _claim(board: Board, slots: list[BoardSlot], most: int) -> list[int]:
    indices: list[int] = []
    while len(indices) < most and (slot := board.claim()) is not None:
        slots.append(slot)
        indices.append(slot.index)
        if len(indices) > _MANY_CELLS:
            _fail(f"{len(indices)} slots were claimed, and there are more: the board has no bound")
    return indices


def scribble(number: int) -> bytes:
    """A payload that shows whether it is whole: one word of 8 bytes, over and over, as long as the number says."""
    return (number.to_bytes(8, "big") * (MAX_SLOT // 8 + 1))[: 8 + number * 37 % (MAX_SLOT - 7)]


def watch(board: Board, last: set[int]) -> list[int]:
    """Look at scribbles until every slot has shown one of the ``last``; return how often, and how many were torn.

    Those are counted that are no scribble, and those older than one that the slot has shown before.
    """
    shown: dict[int, int] = {}
    looks = torn = 0
    while last - set(shown.values()):
        looks += 1
        for index, payload, _age in board.read():
            number = int.from_bytes(payload[:8], "big")
            if payload != scribble(number) or number < shown.get(index, 0):
                torn += 1
            else:
                shown[index] = number
    return [looks, torn]


_ALL: Final = 1 << 20  # slots: more than any board has
_MANY_CELLS: Final = 1 << 16  # a board of so many has no bound


def _shows(board: Board, expected: Mapping[int, bytes]) -> None:
    """Compare, asking the kernel about everybody."""
    found = {index: payload for index, payload, _age in board.read(trust_ms=0)}
    if found != expected:
        wrong = {index for index in found.keys() | expected if found.get(index) != expected.get(index)}
        index = min(wrong)
        _fail(
            f"{len(wrong)} slots do not show what they should; "
            f"slot {index} shows {found.get(index)!r} and should show {expected.get(index)!r}"
        )


@_clause("B1", BOARD_CLAUSES)
async def last_write_wins(kit: BoardKit) -> None:
    """A slot shows what was last written to it, whole, to whoever looks, however many writes nobody looked at."""
    with kit.board() as board, kit.hand() as ann, kit.hand() as bob:
        (other,) = bob.claim(1)
        bob.write(b"bob")
        (index,) = ann.claim(1)
        _shows(board, {other: b"bob"})  # and nothing for a slot that was only claimed
        for size in (1, 0, MAX_SLOT, 2, MAX_SLOT - 1, 100):
            for number in range(3):
                ann.write(pattern(4 * number, size))
            _shows(board, {other: b"bob", index: pattern(8, size)} if size else {other: b"bob"})
        ours = board.claim()
        if ours is None:
            _fail("there are no more than two slots")
        data = bytearray(b"ours")
        ours.write(data)
        data[:] = b"lost"
        ours.beat()
        _shows(board, {other: b"bob", index: pattern(8, 100), ours.index: b"ours"})
        try:
            ours.write(bytes(MAX_SLOT + 1))
        except ValueError:
            _shows(board, {other: b"bob", index: pattern(8, 100), ours.index: b"ours"})
        else:
            _fail(f"a slot took {MAX_SLOT + 1} bytes")


async def never_torn(kit: BoardKit, writers: int = 2, readers: int = 2, writes: int = 10_000) -> None:
    """Nobody sees a torn slot, or an older value after a newer one, while others write as fast as they can."""
    with kit.board() as board, ExitStack() as stack:
        hands = [stack.enter_context(kit.hand()) for _ in range(writers)]
        watching = [stack.enter_context(kit.hand()) for _ in range(readers)]
        first = [writes * place + 1 for place in range(writers)]
        last = {start + writes - 1 for start in first}
        for hand in hands:
            hand.claim(1)
        for hand in watching:
            hand.tell("watch", *last)
        for hand, start in zip(hands, first, strict=True):
            hand.tell("scribble", start, start + writes)
        seen = [watch(board, last), *(hand.hear() for hand in watching)]
        if torn := sum(torn for _looks, torn in seen):
            _fail(f"{torn} slots were torn, or went back, in {sum(looks for looks, _torn in seen)} looks")


_clause("B2", BOARD_CLAUSES)(never_torn)


@_clause("B3", BOARD_CLAUSES)
async def one_writer_a_cell(kit: BoardKit) -> None:
    """Two writers never share a slot, whether of one process or of several; who finds none free is told so."""
    with kit.board() as board, closing(kit.maker.open(kit.folder)) as second, ExitStack() as stack:
        ours = [slot for _ in range(10) for slot in (board.claim(), second.claim()) if slot is not None]
        hands = [stack.enter_context(kit.hand()) for _ in range(3)]
        for hand in hands:
            hand.tell("claim", _ALL)
        claimed = [slot.index for slot in ours]
        for hand in hands:
            claimed += hand.hear()
        if shared := len(claimed) - len(set(claimed)):
            _fail(f"{len(claimed)} slots were claimed, and {shared} of them by two writers")
        for here in (board, second):
            if (slot := here.claim()) is not None:
                _fail(f"all {len(claimed)} slots are taken, and slot {slot.index} was claimed once more")
        ours[0].close()
        ours[0].close()
        again = [index for hand in hands for index in hand.claim(_ALL)]
        if again != [ours[0].index]:
            _fail(f"slot {ours[0].index} was let go, and then {again} could be claimed")


@_clause("B4", BOARD_CLAUSES)
async def dead_writers_leave_room(kit: BoardKit) -> None:
    """A writer that dies leaves its slots free at once, and they show nothing; one that is only stopped keeps them."""
    for way in ("kill", "exit", "return", "close"):
        with kit.board() as board, kit.hand() as bob, kit.hand() as ann:
            (kept,) = bob.claim(1)
            bob.write(b"bob")
            bob.stop()
            taken = set(ann.claim(_ALL))
            ann.write(b"ann")
            if board.claim() is not None:
                _fail("a process claimed all that it could, and there was more")
            ann.leave(way)
            _shows(board, {kept: b"bob"})
            free = set(_claim(board, [], _ALL))
            if free != taken:
                _fail(f"{len(taken)} slots were left by a process ({way}), and {len(free)} could be claimed")
            with closing(kit.maker.open(kit.folder)) as late:  # a claim must not bring back what the dead had shown
                _shows(late, {kept: b"bob"})


@_clause("B5", BOARD_CLAUSES)
async def readers_destroy_nothing(kit: BoardKit) -> None:
    """A reader that leaves, however it does, takes nothing away: not the board, not a slot, not a claim."""
    with kit.board() as board, kit.hand() as ann, kit.hand() as bob:
        ours = board.claim()
        if ours is None:
            _fail("an empty board has no slot")
        (hers,) = ann.claim(1)
        ours.write(b"ours")
        ann.write(b"ann")
        files = set(kit.folder.iterdir())
        for way in ("close", "return", "exit", "kill"):
            with kit.hand() as reader:
                reader.claim(0)  # it is there by now
                kit.maker.open(kit.folder).close()
                reader.leave(way)
            if set(kit.folder.iterdir()) != files or not board.sound():
                _fail(f"a reader that left ({way}) took the board with it")
            with closing(kit.maker.open(kit.folder)) as late:
                for each in (board, late):
                    _shows(each, {ours.index: b"ours", hers: b"ann"})
        stolen = {ours.index, hers} & set(bob.claim(_ALL))
        if stolen:
            _fail(f"with the readers went the claim on {len(stolen)} slots of writers who are there")
        ours.write(b"ours still")
        ann.write(b"ann still")
        _shows(board, {ours.index: b"ours still", hers: b"ann still"})


# -- a link that misbehaves as far as the contract lets it ------------------------------------------------------


class FaultyLink:
    """Any link, made as awkward as a link may be: the same faults for the same seed and the same calls.

    ``send`` takes less than it could, or nothing; ``receive`` and ``writable`` keep the caller waiting for some
    turns of the loop. With ``cut_after`` the link breaks for good once that many bytes have gone through it, both
    directions counted together: in the middle of a send if it falls there, and then its first half arrives.
    """

    def __init__(self, link: Link, seed: int, cut_after: int | None = None) -> None:
        self._link = link
        self._sending = random.Random(f"{seed} sending")
        self._receiving = random.Random(f"{seed} receiving")  # one each: the other way's timing does not matter
        self._left = cut_after
        self._cutting: asyncio.Task[None] | None = None
        self._stalling = False

    @property
    def peer(self) -> Peer:
        return self._link.peer

    def _go_through(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            self._cut_when_due()

    def _cut_when_due(self) -> None:
        if self._left == 0 and self._cutting is None:
            self._cutting = asyncio.get_running_loop().create_task(_aclose(self._link))

    def cut(self) -> None:
        """Break now, for good."""
        self._left = 0
        self._cut_when_due()

    def _must_be_whole(self) -> None:
        self._cut_when_due()
        if self._cutting is not None:
            raise LinkBroken(f"the link to {self.peer.text} was cut after so many bytes, as the test asked for")

    async def _stall(self, chance: random.Random) -> None:
        for _ in range(chance.choice((0, 0, 1, 20))):
            await asyncio.sleep(0)
        self._must_be_whole()

    def send(self, data: Buffer) -> int:
        self._must_be_whole()
        most = len(data) if self._left is None else min(len(data), self._left)
        size = min(most, self._sending.choice((0, 1, self._sending.randint(0, most), most)))
        # Released by hand: an error that the link's library keeps holds the frames of this call, and so the views.
        with memoryview(data) as whole, whole[:size] as piece:
            taken = self._link.send(piece)
        self._go_through(taken)
        return taken

    async def writable(self) -> None:
        self._must_be_whole()
        try:
            await self._link.writable()
        except LinkClosed:
            self._must_be_whole()  # it was the cut that woke us
            raise
        await self._stall(self._sending)

    async def receive(self) -> bytes:
        self._must_be_whole()
        if self._stalling:
            raise LinkBusy(f"another task receives from {self.peer.text} already; a link has one reader")
        self._stalling = True
        try:
            await self._stall(self._receiving)  # before, not after: whoever is cancelled here must lose nothing
        finally:
            self._stalling = False
        try:
            data = await self._link.receive()
        except LinkClosed:
            self._must_be_whole()
            raise
        self._must_be_whole()
        data = data[: self._left]
        self._go_through(len(data))
        return data

    async def aclose(self) -> None:
        if self._cutting is not None:
            await self._cutting
        await self._link.aclose()


async def _aclose(link: Link) -> None:
    await link.aclose()


class Faults:
    """Makes a FaultyLink of each link that it is given: give it to a WrappedTransport.

    While ``cutting``, each is also cut at some byte: half of them while their peers still shake hands.
    """

    def __init__(self, seed: int, *, cutting: bool = False) -> None:
        self.cutting = cutting
        self._chance = random.Random(f"{seed} cuts")
        self._seeds = count(1000 * seed)
        self._links: list[FaultyLink] = []

    def __call__(self, link: Link) -> FaultyLink:
        cut_after = self._chance.randrange(self._chance.choice((1_000, 20_000)))
        self._links.append(FaultyLink(link, next(self._seeds), cut_after if self.cutting else None))
        return self._links[-1]

    def cut(self) -> None:
        """Cut every link now."""
        for link in self._links:
            link.cut()
        self._links.clear()


class WrappedTransport:
    """Any transport, each of whose links ``wrap`` has its hands on: dialled ones, and accepted ones."""

    def __init__(self, transport: Transport, wrap: Callable[[Link], Link]) -> None:
        self.scheme = transport.scheme
        self.summary = transport.summary
        self._transport = transport
        self._wrap = wrap

    async def listen(self, address: Address, site: Site) -> Listener:
        return _WrappedListener(await self._transport.listen(address, site), self._wrap)

    async def dial(self, address: Address) -> Link:
        return self._wrap(await self._transport.dial(address))


class _WrappedListener:
    def __init__(self, listener: Listener, wrap: Callable[[Link], Link]) -> None:
        self.address = listener.address
        self._listener = listener
        self._wrap = wrap

    async def accept(self) -> Link:
        return self._wrap(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


class _GatedLink:
    """A link of somebody who reads only while the gate is open."""

    def __init__(self, link: Link, gate: asyncio.Event) -> None:
        self.peer = link.peer
        self.send = link.send
        self.writable = link.writable
        self.aclose = link.aclose
        self._receive = link.receive
        self._gate = gate

    async def receive(self) -> bytes:
        await self._gate.wait()
        return await self._receive()


# -- tools ------------------------------------------------------------------------------------------------------


def pattern(start: int, size: int) -> bytes:
    """``size`` bytes from a stream of 4-byte counters: a byte lost, doubled or moved anywhere shows."""
    first = start // 4
    words = array("I", range(first, (start + size) // 4 + 1))
    return words.tobytes()[start - 4 * first :][:size]


async def send_pattern(link: Link) -> None:
    """Send ``pattern`` without end."""
    at = 0
    while True:
        taken = _send(link, pattern(at, 65_536))
        at += taken
        if not taken:
            await link.writable()
        await asyncio.sleep(0)


def _same(got: bytes, sent: bytes) -> None:
    if got == sent:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent)))
    _fail(
        f"{len(sent)} bytes were sent and {len(got)} received; the first difference is at byte {at}: "
        f"{sent[at : at + 8].hex()} was sent, {got[at : at + 8].hex()} received"
    )


def _send(link: Link, data: Buffer) -> int:
    taken = link.send(data)
    if not 0 <= taken <= len(data):
        _fail(f"send took {taken} bytes of {len(data)}")
    return taken


async def _send_all(link: Link, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        taken = _send(link, rest)
        rest = rest[taken:]
        if not taken:
            await link.writable()


async def _receive_exactly(link: Link, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = await link.receive()
        if not piece:
            _fail(f"the stream ended after {len(got)} bytes of {size}")
        got += piece
    return bytes(got)


async def _receive_some(link: Link, least: int) -> bytes:
    """At least so many bytes, or all until the end."""
    got = bytearray()
    while len(got) < least:
        try:
            piece = await link.receive()
        except LinkBroken:
            break
        if not piece:
            break
        got += piece
    return bytes(got)


async def _receive_all(link: Link) -> bytes:
    """All until the end, or until the link breaks."""
    return await _receive_some(link, sys.maxsize)


async def _carry(source: Link, sink: Link, data: bytes) -> None:
    """Send at one end, receive at the other, and compare."""
    _, got = await asyncio.gather(_send_all(source, data), _receive_exactly(sink, len(data)))
    _same(got, data)


def _start(wait: Coroutine[object, object, _T]) -> asyncio.Task[_T]:
    """Begin a wait. What becomes of it is looked at where it matters, and reported nowhere else."""
    task = asyncio.get_running_loop().create_task(wait)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _settle() -> None:
    """Let the loop turn: what is going to happen by itself happens."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _sleeping_writer(kit: Kit, link: Link) -> tuple[int, asyncio.Task[None]]:
    """Fill a link and wait until it is writable; return how many bytes of ``pattern`` it took, and the wait."""
    taken = await kit.clog(link)
    while True:
        waiting = _start(link.writable())
        await _settle()
        if not waiting.done():
            return taken, waiting
        waiting.result()
        before, taken = taken, await kit.clog(link, taken)  # the kernel may have found room after all
        if taken == before:
            _fail("writable returned from a full link: whoever trusts it turns in circles")


async def _within(kit: Kit, wait: Awaitable[_T], what: str) -> _T:
    try:
        async with asyncio.timeout(kit.unit):
            return await wait
    except TimeoutError:
        _fail(f"{what} took longer than {kit.unit:g} s")


async def _raises(kind: type[Exception], wait: Awaitable[object], kit: Kit, what: str) -> None:
    try:
        result = await _within(kit, wait, what)
    except kind:
        return
    _fail(f"{what} returned {result!r}; it must raise {kind.__name__}")


async def _cancel_after(turns: int, wait: Coroutine[object, object, _T]) -> _T | None:
    """Begin, cancel after some turns of the loop; return the result of what was done by then, else None."""
    task = _start(wait)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


@asynccontextmanager
async def _closing(link: Link) -> AsyncIterator[Link]:
    try:
        yield link
    finally:
        await link.aclose()


def _held(kit: Kit) -> set[str]:
    """All that a transport might leave behind."""
    held = {f"file {path}" for path in kit.folder.rglob("*")}
    held |= {f"thread {thread.name}" for thread in threading.enumerate()}
    held |= {f"task {task.get_name()} {task.get_coro()}" for task in asyncio.all_tasks()}
    for path in list(Path("/dev/fd").iterdir()):
        with suppress(OSError):  # the descriptor of this very listing
            status = os.fstat(int(path.name))
            held.add(f"descriptor {path.name} (mode {status.st_mode:o}, inode {status.st_ino})")
    return held


async def _nothing_left(kit: Kit, before: set[str]) -> None:
    deadline = asyncio.get_running_loop().time() + kit.unit
    while extra := _held(kit) - before:
        if asyncio.get_running_loop().time() > deadline:
            _fail(f"left behind: {'; '.join(sorted(extra))}")
        await asyncio.sleep(0)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Break into a call that blocks the loop. In other threads than the main one there is no such watchdog."""
    text = f"a call blocked the loop for {seconds:g} s"
    rang = False

    def ring(_signal: int, _frame: object) -> None:
        nonlocal rang
        rang = True
        _fail(text)  # in whichever task is running, so it may not get far: hence the flag

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        if rang:
            _fail(text)


def _load(entry_point: str) -> Any:
    module, _, name = entry_point.partition(":")
    return getattr(import_module(module), name)


async def _die_some_day(entry_point: str, role: str, address: str, habit: str, folder: str, certificate: str) -> None:
    """What ``Kit.doomed`` runs in a process of its own: it reads nothing, and waits to be killed."""
    transport: Transport = _load(entry_point)
    if role == "listen":
        listener = await transport.listen(Address.parse(address), Site(Path(folder), Path(certificate)))
        print(listener.address, flush=True)  # noqa: T201  to the one who will kill us
        link = await listener.accept()
    else:
        link = await transport.dial(Address.parse(address))
    if habit == "sends":
        await send_pattern(link)
    await asyncio.get_running_loop().create_future()
