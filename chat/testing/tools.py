"""Tools for the checks: bytes to send, bounded waits, the alarm."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from array import array
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from chat.core.errors import LinkBroken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator

    from chat.testing.kit import Kit
    from chat.transport import Buffer, Link

UNIT: Final = 5.0  # seconds, times CHAT_TEST_UNIT
TURNS: Final = 50  # of the loop, in which something that must not happen would have happened
MANY: Final = 1024 * 1024  # bytes


_T = TypeVar("_T")


class ContractBroken(AssertionError):
    """A clause does not hold."""


def fail(text: str) -> NoReturn:
    raise ContractBroken(text)


# -- tools ------------------------------------------------------------------------------------------------------


def pattern(start: int, size: int) -> bytes:
    """Return ``size`` bytes of a stream of 4-byte counters, which shows every lost, doubled or moved byte."""
    first = start // 4
    words = array("I", range(first, (start + size) // 4 + 1))
    return words.tobytes()[start - 4 * first :][:size]


async def send_pattern(link: Link) -> None:
    """Send ``pattern`` forever."""
    at = 0
    while True:
        taken = send(link, pattern(at, 65_536))
        at += taken
        if not taken:
            await link.writable()
        await asyncio.sleep(0)


def check_same(got: bytes, sent: bytes) -> None:
    if got == sent:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent)))
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


async def receive_exactly(link: Link, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = await link.receive()
        if not piece:
            fail(f"the stream ended after {len(got)} bytes of {size}")
        got += piece
    return bytes(got)


async def receive_some(link: Link, least: int) -> bytes:
    """Receive at least this many bytes, or all until the end."""
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


async def receive_all(link: Link) -> bytes:
    """Receive everything until the end, or until the link breaks."""
    return await receive_some(link, sys.maxsize)


async def carry(source: Link, sink: Link, data: bytes) -> None:
    """Send at one end, receive at the other, and compare."""
    _, got = await asyncio.gather(send_all(source, data), receive_exactly(sink, len(data)))
    check_same(got, data)


def begin(wait: Coroutine[object, object, _T]) -> asyncio.Task[_T]:
    """Start a wait. Its result is checked where it matters, and reported nowhere else."""
    task = asyncio.get_running_loop().create_task(wait)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def settle() -> None:
    """Let the loop run, so that everything that happens by itself happens."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def within(kit: Kit, wait: Awaitable[_T], what: str) -> _T:
    try:
        async with asyncio.timeout(kit.unit):
            return await wait
    except TimeoutError:
        fail(f"{what} took longer than {kit.unit:g} s")


async def raises(kind: type[Exception], wait: Awaitable[object], kit: Kit, what: str) -> None:
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


@asynccontextmanager
async def closing(link: Link) -> AsyncIterator[Link]:
    try:
        yield link
    finally:
        await link.aclose()


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


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Interrupt a call that blocks the loop. Works in the main thread only."""
    text = f"a call blocked the loop for {seconds:g} s"
    rang = False

    def ring(_signal: int, _frame: object) -> None:
        nonlocal rang
        rang = True
        fail(text)  # in whichever task is running, so it may not get far: hence the flag

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
            fail(text)


def load(entry_point: str) -> Any:
    module, _, name = entry_point.partition(":")
    return getattr(import_module(module), name)
