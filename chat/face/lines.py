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
    from collections.abc import AsyncIterator, Callable, Coroutine

    from chat.client import Client, ClientEvent

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
        while len(rest) > limit:
            cut = limit
            while cut > limit - 3 and rest[cut] & 0xC0 == 0x80:  # not within a character (RFC 3629)
                cut -= 1
            yield rest[:cut].decode("utf-8", "replace")
            rest = rest[cut:]
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


async def converse(
    client: Client, out: Output, reader: Coroutine[None, None, None], show: Callable[[ClientEvent], list[str]]
) -> None:
    """Read and show until the input ends; then wait until all that was said is stored, and shown.

    Raises what ends the reader or the client.
    """

    async def write() -> None:
        while events := await client.next_events():
            await out.write([line for event in events for line in show(event)])

    writing = asyncio.ensure_future(write())
    reading = asyncio.ensure_future(reader)
    try:
        await _first_of(reading, writing)
    finally:
        # What was said before a bad line, or before the input broke off, is still to be stored and told of.
        settling = asyncio.ensure_future(client.settled())
        try:
            if reading.done():
                await _first_of(settling, writing)
        finally:
            for task in (reading, writing, settling):
                task.cancel()
            await asyncio.gather(reading, writing, settling, return_exceptions=True)
            await out.write([line for event in client.take() for line in show(event)])


async def _first_of(*tasks: asyncio.Future[None]) -> None:
    """Wait for the first of these to end, and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
