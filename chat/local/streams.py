"""Lines in from a descriptor and lines out to one, without ever blocking the event loop.

Standard streams may be a terminal, a pipe, a file or a FIFO, and may be shared with other programs. Making them
non-blocking would break those programs, and a file cannot be polled, so a thread waits in read(2) or write(2).
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TextIO

from chat.core.errors import WrongValue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_READ_SIZE: Final = 64 * 1024
_AHEAD: Final = 4  # reads waiting to be taken before the thread stops reading
_GRACE: Final = 0.2  # seconds that a cancelled write has to end


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


async def whole_lines(stream: TextIO, limit: int) -> AsyncIterator[str | WrongValue]:
    """Yield each line of a stream as it is, or why it is not text: over ``limit`` bytes, or not UTF-8.

    A line ends with LF or CRLF; the last one needs neither.
    """
    rest = b""
    async for data in _chunks(stream.fileno()):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield _text(line, limit)
        rest = rest[: limit + 2]  # enough to see that it is too long, with a CR at its end too
    if rest:
        yield _text(rest, limit)


def _text(line: bytes, limit: int) -> str | WrongValue:
    line = line.removesuffix(b"\r")
    if len(line) > limit:
        return WrongValue("it is longer than {limit} bytes", limit=limit)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return WrongValue("it is not UTF-8: byte {number} is wrong", number=error.start + 1)


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
    """Standard output, line by line. A reader that stalls delays this face, and nobody else.

    A pipe is given whole lines at once, as many as its PIPE_BUF holds (4,096 bytes on Linux, 512 on macOS): such a
    write is all or nothing (POSIX, write), so whoever interrupts us while the reader stalls finds no half a line.
    Only a line that is longer by itself can be cut.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # two threads in write(2) at once would mix their lines
        self._stuck = False

    async def write(self, texts: list[str]) -> None:
        """Write lines and return when the system has taken them. Raises BrokenPipeError when nobody reads.

        Cancelled, it does not wait for a reader that stalls; after that nothing more is written.
        """
        if not texts:
            return
        data = "".join(f"{line}\n" for line in texts).encode("utf-8", "surrogatepass")
        async with self._turn:
            if self._stuck:
                return
            job = _in_thread(sys.stdout.fileno(), data)
            try:
                await asyncio.wait([job])
            except asyncio.CancelledError:
                # The thread writes on whatever happens to us: nobody else may begin before it ends.
                done, _pending = await asyncio.wait([job], timeout=_GRACE)
                self._stuck = not done or job.exception() is not None
                raise
            job.result()


def _in_thread(fd: int, data: bytes) -> asyncio.Future[None]:
    """Write in a thread of its own. A daemon: one that waits in write(2) must not keep the program from ending."""
    job: Future[None] = Future()

    def write() -> None:
        try:
            _write_all(fd, data)
        except OSError as error:
            job.set_exception(error)
        else:
            job.set_result(None)

    threading.Thread(target=write, daemon=True, name="writer of standard output").start()
    return asyncio.wrap_future(job)


def _write_all(fd: int, data: bytes) -> None:
    at = 0
    while at < len(data):
        end = len(data)
        if end - at > select.PIPE_BUF:
            end = data.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or data.index(b"\n", at) + 1
        at += os.write(fd, memoryview(data)[at:end])


def drop_unwritten() -> None:
    """Flush the standard streams, and point one whose reader is gone at /dev/null.

    Python keeps what it could not write and flushes again at exit; failing there makes the exit code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
