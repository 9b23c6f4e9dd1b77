"""Lines in from a descriptor and lines out to one, without ever blocking the event loop.

Standard streams may be a terminal, a pipe, a file or a FIFO, and may be shared with other programs: making
them non-blocking would break those, and a file cannot be polled. So a thread waits in read(2) or write(2).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_READ_SIZE: Final = 64 * 1024
_AHEAD: Final = 4  # reads that may wait to be taken, before the thread stops reading


async def lines(stream: TextIO, limit: int = 1024 * 1024) -> AsyncIterator[str]:
    """Yield each line of a stream, without its end, until the stream ends; the last one needs no newline.

    Bytes that are not UTF-8 become U+FFFD. A line over ``limit`` bytes is yielded in pieces.
    """
    rest = b""
    async for data in _chunks(stream.fileno()):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").removesuffix("\r")
        if len(rest) > limit:
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace").removesuffix("\r")


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def read() -> None:
        data = b"begin"
        while data:
            room.acquire()
            try:
                data = os.read(fd, _READ_SIZE)
            except OSError:
                data = b""
            try:
                loop.call_soon_threadsafe(queue.put_nowait, data)
            except RuntimeError:
                return  # the loop has ended, and with it the wish for more

    # A daemon: a read(2) on a terminal cannot be cancelled, and must not keep the program from ending.
    threading.Thread(target=read, daemon=True, name="reader of standard input").start()
    while data := await queue.get():
        yield data
        room.release()


class Output:
    """Standard output, line by line. A reader that stalls delays this face, and nobody else."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # two threads in write(2) at once would mix their lines

    async def write(self, texts: list[str]) -> None:
        """Write lines and return when the system has taken them. Raises BrokenPipeError when nobody reads."""
        if not texts:
            return
        data = "".join(f"{line}\n" for line in texts).encode("utf-8", "surrogatepass")
        async with self._turn:
            job = asyncio.ensure_future(asyncio.to_thread(_write_all, sys.stdout.fileno(), data))
            try:
                await asyncio.shield(job)
            except asyncio.CancelledError:
                await job  # the thread writes on whatever happens to us: nobody else may begin before it ends
                raise


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
