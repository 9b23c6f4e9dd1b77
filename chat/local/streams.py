"""Lines in from a descriptor and lines out to one, without ever blocking the event loop.

Standard streams may be a terminal, a pipe, a file or a FIFO, and may be shared with other programs. Making them
non-blocking would break those programs, and a file cannot be polled, so a thread waits in read(2) or write(2).
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TextIO

from chat.core.errors import ChatError, WrongValue, reason
from chat.local import descriptors
from chat.local.descriptors import BOM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

_READ_SIZE: Final = 64 * 1024
_AHEAD: Final = 4  # reads waiting to be taken before the thread stops reading
_LOOK: Final = 0.5  # seconds between two looks whether there is still a reader
_GRACE: Final = 0.2  # seconds that a cancelled write has to end


async def lines(stream: TextIO, limit: int, *, in_pieces: bool = False) -> AsyncIterator[str | WrongValue]:
    """Yield each line of a stream as it is, or why it is not text: over ``limit`` bytes, or not UTF-8.

    A line ends with LF or CRLF; the last one needs neither. A byte order mark at its start is no part of it: files
    that were joined have some. ``in_pieces``: a line that is too long is yielded in several, and not complained about.
    Raises ChatError if the stream cannot be read.
    """
    longest = sys.maxsize if in_pieces else limit
    rest = b""
    async for data in _chunks(stream.fileno()):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield _text(line, longest)
        while in_pieces and len(rest) > limit:
            cut = limit
            while cut > limit - 3 and rest[cut] & 0xC0 == 0x80:  # not within a character (RFC 3629)
                cut -= 1
            yield _text(rest[:cut], longest)
            rest = rest[cut:]
        rest = rest[: limit + len(BOM) + 2]  # enough to see that it is too long, with a CR at its end too
    if rest:
        yield _text(rest, longest)


def _text(line: bytes, limit: int) -> str | WrongValue:
    line = line.removeprefix(BOM).removesuffix(b"\r")
    if len(line) > limit:
        return WrongValue("it is longer than {limit} bytes", limit=limit)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return WrongValue("it is not UTF-8: byte {number} is wrong", number=error.start + 1)


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    is_terminal = os.isatty(fd)

    def read() -> None:
        data: bytes | OSError = b"begin"
        while data and not isinstance(data, OSError):
            room.acquire()
            try:
                data = descriptors.read(fd, _READ_SIZE)
            except OSError as error:
                data = b"" if is_terminal and error.errno == errno.EIO else error  # it is gone
            try:
                loop.call_soon_threadsafe(queue.put_nowait, data)
            except RuntimeError:
                return  # the loop has ended, and with it the wish for more

    # A daemon: a read(2) on a terminal cannot be cancelled, and must not keep the program from ending.
    threading.Thread(target=read, daemon=True, name="reader of standard input").start()
    while data := await queue.get():
        if isinstance(data, OSError):
            raise ChatError("standard input cannot be read: {why}", why=reason(data))
        yield data
        room.release()


async def while_read(job: Coroutine[Any, Any, None]) -> None:
    """Run ``job`` as long as somebody can read standard output; raise BrokenPipeError when nobody can any more.

    Otherwise a follower in a quiet room would notice that only when it writes the next message.
    """
    running = asyncio.ensure_future(job)
    try:
        while not (await asyncio.wait([running], timeout=_LOOK))[0]:
            if descriptors.is_lost(sys.stdout.fileno()):
                raise BrokenPipeError
        running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Output:
    """Standard output, line by line. A reader that stalls delays this face, and nobody else.

    A pipe is given whole lines at once, as many as its PIPE_BUF holds (4,096 bytes on Linux, 512 on macOS): such a
    write is all or nothing (POSIX, write), so whoever interrupts us while the reader stalls finds no half a line.
    Only a line that is longer by itself can be cut.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # two threads in write(2) at once would mix their lines
        self._stuck = False
        self._is_terminal = sys.stdout.isatty()

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
            try:
                job.result()
            except OSError as error:
                if error.errno != errno.EIO or not self._is_terminal:
                    raise
                self._stuck = True  # the terminal is gone, and with it the input, whose end is what counts


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
        at += descriptors.write(fd, memoryview(data)[at:end])
