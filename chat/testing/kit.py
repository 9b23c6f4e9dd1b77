"""What every check needs: kits, clauses, bytes to send, bounded waits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from array import array
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeAlias, TypeVar

from chat.core.errors import LinkBroken
from chat.transport import Address, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from chat.transport import Buffer, Link, Listener, Transport

UNIT: Final = 5.0  # seconds, times CHAT_TEST_UNIT
TURNS: Final = 50  # of the loop, in which something that must not happen would have happened
MANY: Final = 1024 * 1024  # bytes
CLOG_LIMIT: Final = 256 * 1024 * 1024  # bytes: a link that takes so many without a reader has no bound

_T = TypeVar("_T")


class ContractBroken(AssertionError):
    """A clause does not hold."""


def fail(text: str) -> NoReturn:
    raise ContractBroken(text)


# -- kits: what the contract needs to know --------------------------------------------------------------


class AnyKit:
    """What is under test: set its entry point."""

    entry_point: ClassVar[str]  # "module:object", as in the entry point; separate processes load it, too

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # empty, private, for this kit alone
        self.unit = UNIT * float(os.environ.get("CHAT_TEST_UNIT", "1"))

    @contextmanager
    def process(self, *words: object, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
        """Run ``chat.testing.__main__`` with these words in a process of its own. It is killed in the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "chat.testing", self.entry_point, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=pass_fds,
        )
        with process:  # waits for its end, and closes its pipes
            try:
                yield process
            finally:
                process.kill()


class Kit(AnyKit):
    """One transport under test: set its entry point and an address; override the rest if necessary."""

    skips: ClassVar[Mapping[str, str]] = {}  # the clauses that cannot be checked here, each with its reason
    elsewhere: Address | None = None  # where R4 resumes; by default, on another installed transport

    @property
    def transport(self) -> Transport:
        transport: Transport = resolve_name(self.entry_point)
        return transport

    @property
    def site(self) -> Site:
        return Site(self.folder, self.folder / "certificate.pem")

    def address(self) -> Address:
        """Return an address to listen on, a free one at every call."""
        raise NotImplementedError

    async def clog(self, link: Link, taken: int = 0) -> int:
        """Fill a link whose peer does not read, until it takes nothing more; return how many bytes it took in all.

        The bytes are those of ``pattern``; it may have ``taken`` some before.
        """
        size, refused = 65_536, 0
        while refused < TURNS:  # the kernel may move some on to the peer's side after the first refusal
            piece = bytearray(pattern(taken, size))
            took = send(link, piece)
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
                fail(f"the link took {taken} bytes that nobody reads: it has no bound")
        return taken

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        async with aclosing(await self.transport.listen(self.address(), self.site)) as listener:
            yield listener

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Link, Link]]:
        """Return both ends of a link: the dialled one and the accepted one. The listener is closed."""
        async with self.listening() as listener:
            dialled, accepted = await connect(self.transport, listener)
        async with aclosing(dialled), aclosing(accepted):
            yield dialled, accepted

    @asynccontextmanager
    async def doomed(self, *, dials: bool, sends: bool) -> AsyncIterator[tuple[Link, Callable[[], object]]]:
        """A link to a peer that never reads, and a call that makes the peer vanish without a goodbye.

        ``dials``: the peer dials us, otherwise we dial it. ``sends``: it sends ``pattern`` without end. Here it is
        a process, killed with SIGKILL; a transport that lives within one process must find another way.
        """
        if not dials:
            with self.victim("listen", self.address(), sends=sends) as process:
                assert process.stdout is not None
                address = Address.parse(process.stdout.readline().strip())
                async with aclosing(await self.transport.dial(address)) as link:
                    yield link, process.kill
            return
        async with self.listening() as listener:
            with self.victim("dial", listener.address, sends=sends) as process:
                async with aclosing(await listener.accept()) as link:
                    yield link, process.kill

    def victim(
        self, role: str, address: Address, *, sends: bool, pass_fds: tuple[int, ...] = ()
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        """Start a process for ``wait_to_be_killed``: its role is to "listen" or to "dial"."""
        return self.process(role, address, sends, self.folder, self.site.certificate, pass_fds=pass_fds)


async def wait_to_be_killed(
    entry_point: str, role: str, address: str, sends: str, folder: str, certificate: str
) -> None:
    """Run by ``Kit.doomed`` in a separate process: read nothing, and wait to be killed."""
    transport: Transport = resolve_name(entry_point)
    if role == "listen":
        listener = await transport.listen(Address.parse(address), Site(Path(folder), Path(certificate)))
        print(listener.address, flush=True)  # noqa: T201  to the one who will kill us
        link = await listener.accept()
    else:
        link = await transport.dial(Address.parse(address))
    if sends == "True":
        await send_pattern(link)
    await asyncio.get_running_loop().create_future()


async def connect(transport: Transport, listener: Listener) -> tuple[Link, Link]:
    """Dial a listener and accept; return both ends of the link."""
    accepting = begin(listener.accept())
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


def clause(name: str, table: dict[str, Clause] = CLAUSES) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        table[name] = Clause(name, " ".join((check.__doc__ or "").split()), check)
        return check

    return register


async def check(kit: AnyKit, name: str) -> None:
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


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt a call that blocks the loop. Works in the main thread only."""
    rang = threading.Event()

    def ring(_signal: int, _frame: object) -> None:
        rang.set()
        fail("the loop is blocked")  # in whichever task is running, so it may not get far: hence ``rang``

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
        if rang.is_set():
            fail(f"a call blocked the loop for {seconds:g} s")


# -- bytes ----------------------------------------------------------------------------------------------


def pattern(start: int, size: int) -> bytes:
    """Return ``size`` bytes of a stream of 4-byte counters, which shows every lost, doubled or moved byte."""
    first = start // 4
    words = array("I", range(first, (start + size) // 4 + 1))
    return words.tobytes()[start - 4 * first :][:size]


def first_difference(got: Sequence[object], due: Sequence[object]) -> int:
    """Return the first index at which two different sequences differ."""
    return next((i for i, (a, b) in enumerate(zip(got, due, strict=False)) if a != b), min(len(got), len(due)))


def check_same(got: bytes, sent: bytes) -> None:
    if got != sent:
        at = first_difference(got, sent)
        fail(
            f"{len(sent)} bytes were sent and {len(got)} received; the first difference is at byte {at}: "
            f"{sent[at : at + 8].hex()} was sent, {got[at : at + 8].hex()} received"
        )


def send(link: Link, data: Buffer) -> int:
    taken = link.send(data)
    if not 0 <= taken <= len(data):
        fail(f"send took {taken} bytes of {len(data)}")
    return taken


async def send_all(link: Link, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        taken = send(link, rest)
        rest = rest[taken:]
        if not taken:
            await link.writable()


async def send_pattern(link: Link) -> None:
    """Send ``pattern`` forever."""
    at = 0
    while True:
        taken = send(link, pattern(at, 65_536))
        at += taken
        if not taken:
            await link.writable()
        await asyncio.sleep(0)


async def receive_some(link: Link, least: int = sys.maxsize) -> bytes:
    """Receive at least this many bytes, or all until the end, or until the link breaks."""
    got = bytearray()
    with suppress(LinkBroken):
        while len(got) < least and (piece := await link.receive()):
            got += piece
    return bytes(got)


async def receive_exactly(link: Link, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = await link.receive()
        if not piece:
            fail(f"the stream ended after {len(got)} bytes of {size}")
        got += piece
    return bytes(got)


async def carry(source: Link, sink: Link, data: bytes) -> None:
    """Send at one end, receive at the other, and compare."""
    _, got = await asyncio.gather(send_all(source, data), receive_exactly(sink, len(data)))
    check_same(got, data)


# -- waits, and what may be left behind -------------------------------------------------------------------


def begin(wait: Coroutine[object, object, _T]) -> asyncio.Task[_T]:
    """Start a wait. Its result is checked where it matters, and reported nowhere else."""
    task = asyncio.get_running_loop().create_task(wait)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def settle() -> None:
    """Let the loop run, so that everything that happens by itself happens."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def still_waits(receiving: asyncio.Task[bytes], when: str) -> None:
    await settle()
    if receiving.done():
        fail(f"receive returned {receiving.result()!r} {when}")


async def within(kit: AnyKit, wait: Awaitable[_T], what: str) -> _T:
    try:
        async with asyncio.timeout(kit.unit):
            return await wait
    except TimeoutError:
        fail(f"{what} took longer than {kit.unit:g} s")


async def raises(kind: type[Exception], wait: Awaitable[object], kit: AnyKit, what: str) -> None:
    try:
        result = await within(kit, wait, what)
    except kind:
        return
    fail(f"{what} returned {result!r}; it must raise {kind.__name__}")


async def cancel_after(turns: int, wait: Coroutine[object, object, _T]) -> _T | None:
    """Start, and cancel after some turns of the loop; return the result if it was done by then, else None."""
    task = begin(wait)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


def resources(kit: Kit) -> set[str]:
    """Everything that a transport might leave behind."""
    held = {f"file {path}" for path in kit.folder.rglob("*")}
    held |= {f"thread {thread.name}" for thread in threading.enumerate()}
    held |= {f"task {task.get_name()} {task.get_coro()}" for task in asyncio.all_tasks()}
    for path in list(Path("/dev/fd").iterdir()):
        with suppress(OSError):  # the descriptor of this very listing
            status = os.fstat(int(path.name))
            held.add(f"descriptor {path.name} (mode {status.st_mode:o}, inode {status.st_ino})")
    return held


async def check_nothing_left(kit: Kit, before: set[str]) -> None:
    deadline = asyncio.get_running_loop().time() + kit.unit
    while extra := resources(kit) - before:
        if asyncio.get_running_loop().time() > deadline:
            fail(f"left behind: {'; '.join(sorted(extra))}")
        await asyncio.sleep(0)
