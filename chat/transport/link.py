"""Ready-made links: over descriptors that the event loop can poll, and over a library's reader and writer.

Rules:

1. Only this module calls ``add_reader`` and ``add_writer``. Readiness is level-triggered: a callback that stays
   registered fires again at once, forever, so each wait removes its own.
2. A wait is only a wait. Bytes move in plain calls after it, so a cancelled wait loses nothing.
3. Try first, and wait only if the kernel says EAGAIN: a busy link costs no registration.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.errors import LinkBroken, LinkBusy, LinkClosed, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.transport import Buffer, Peer

RECEIVE_SIZE: Final = 64 * 1024  # bytes asked for in one receive
PAUSE: Final = 0.001  # seconds before a link looks again for the rest of a TLS record; doubled each time
LONGEST_PAUSE: Final = 0.25  # seconds
LINGER: Final = 1.0  # seconds that a closed link may take, in the background, to deliver what it took


class Waiter:
    """One wait for one direction of a descriptor. Closing ends it."""

    def __init__(self, fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        self._fd = fd
        self._add = add
        self._remove = remove
        self._future: asyncio.Future[None] | None = None

    @classmethod
    def for_reading(cls, fd: int) -> Waiter:
        loop = asyncio.get_running_loop()
        return cls(fd, loop.add_reader, loop.remove_reader)

    @classmethod
    def for_writing(cls, fd: int) -> Waiter:
        loop = asyncio.get_running_loop()
        return cls(fd, loop.add_writer, loop.remove_writer)

    async def wait(self) -> None:
        """Return when the descriptor is ready. Raises LinkClosed if closed meanwhile, LinkBusy for a second wait."""
        if self._future is not None:
            raise LinkBusy("another task waits on this link already; a link has one reader and one writer")
        self._future = asyncio.get_running_loop().create_future()
        try:
            self._add(self._fd, self._wake)
            await self._future
        finally:
            # After close() the number may belong to another descriptor: leave that alone.
            if self._future is not None:
                self._remove(self._fd)
                self._future = None

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def close(self) -> None:
        """End the wait with LinkClosed. Call it before you close the descriptor."""
        future, self._future = self._future, None
        if future is not None:
            self._remove(self._fd)
            if not future.done():
                future.set_exception(LinkClosed("the link was closed here while a task waited on it"))


class DescriptorLink:
    """A link over one non-blocking descriptor for reading and one for writing (they may be the same).

    ``read(size)`` and ``write(data)`` are one system call each and raise BlockingIOError if they would have to wait;
    ``read`` returns ``b""`` at the end. A subclass may put a layer in between, as TLS does.
    """

    def __init__(
        self,
        peer: Peer,
        source: int,
        sink: int,
        *,
        read: Callable[[int], bytes],
        write: Callable[[Buffer], int],
        close: Callable[[], None],
    ) -> None:
        self.peer = peer
        self._read = read
        self._write = write
        self._close = close
        self._reading = Waiter.for_reading(source)
        self._writing = Waiter.for_writing(sink)
        self._receiving = False
        self._ended = False
        self._waited = False  # for the last bytes received
        self._failure: LinkBroken | None = None  # of receiving; bytes sent before it can still be read
        self._closed = False

    def _must_be_open(self) -> None:
        if self._closed:
            raise LinkClosed("the link to {peer} was closed here", peer=self.peer.text)

    def send(self, data: Buffer) -> int:
        self._must_be_open()
        if not data:  # on message sockets of some kernels an empty write is the end of the stream
            return 0
        try:
            return self._write(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise self._broken(error) from None

    async def writable(self) -> None:
        self._must_be_open()
        await self._writing.wait()

    async def receive(self) -> bytes:
        self._must_be_open()
        if self._receiving:
            raise LinkBusy(f"another task receives from {self.peer.text} already; a link has one reader")
        self._receiving = True
        try:
            # One turn of the loop first: a peer that never stops sending must not starve the others. If we have waited
            # for the kernel since the last bytes, we have given up a turn already.
            if not self._waited:
                await asyncio.sleep(0)
            self._waited, pause = False, PAUSE
            while not self._ended:
                self._must_be_open()
                if self._failure is not None:
                    raise self._failure  # the kernel reports an error once, and then an end that never was
                try:
                    data = self._read(RECEIVE_SIZE)
                except (BlockingIOError, InterruptedError):
                    if self._waited:  # readable, and still nothing to read: a layer holds a part of a record
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, LONGEST_PAUSE)
                    await self._reading.wait()
                    self._waited = True
                    continue
                except OSError as error:
                    self._failure = self._broken(error)
                    continue
                self._ended = not data
                return data
            return b""
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._reading.close()
        self._writing.close()
        self._close()

    def _broken(self, error: OSError) -> LinkBroken:
        return LinkBroken("the link to {peer} broke: {why}", peer=self.peer.text, why=reason(error))


class SocketLink(DescriptorLink):
    """A link over a connected stream socket between machines, which it owns from now on.

    ``aclose`` returns at once, while the socket stays open for up to LINGER seconds. In that time our half has ended,
    and the peer's bytes are read and dropped: closing with unread bytes would send a reset (RFC 2525, section 2.17),
    and the kernel would throw away what it still had to send.
    """

    linger: float = LINGER

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        super().__init__(peer, sock.fileno(), sock.fileno(), read=sock.recv, write=sock.send, close=self._leave)
        self._sock = sock

    def _leave(self) -> None:
        task = asyncio.get_running_loop().create_task(self._linger())
        # Not in the task itself: the loop may end and cancel it before it starts.
        task.add_done_callback(lambda _: self._sock.close())

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self.linger):
                await self._finish()
                self._sock.shutdown(socket.SHUT_WR)
                readable = Waiter.for_reading(self._sock.fileno())
                data = b"?"
                while data:
                    await readable.wait()  # every time: a peer that floods us must not block the loop
                    with suppress(BlockingIOError):
                        data = socket.socket.recv(self._sock, RECEIVE_SIZE)  # the bare socket's, even under TLS
        except (OSError, TimeoutError):
            pass  # the peer is gone, or has stopped reading: we owe it nothing

    async def _finish(self) -> None:
        """Send what has to come before the end."""


class StreamLink:
    """A link over an ``asyncio`` reader and writer, or over a library's with the same methods.

    The writer has a buffer of its own. At most one piece is put there, and ``send`` returns 0 until it has drained:
    otherwise the buffer would grow without bound, unseen by the cursor.

    For a socket of your own, SocketLink is better: asyncio closes it with unread bytes, and a peer that reads slowly
    then gets a reset instead of the last bytes.
    """

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self._reader = reader
        self._writer = writer
        self._receiving = self._closed = False
        self._draining: asyncio.Future[None] | None = None
        writer.transport.set_write_buffer_limits(0)  # drain() then waits until the buffer is empty

    def _must_be_open(self) -> None:
        if self._closed:
            raise LinkClosed("the link to {peer} was closed here", peer=self.peer.text)

    def send(self, data: Buffer) -> int:
        self._must_be_open()
        if self._writer.is_closing():
            raise LinkBroken("the link to {peer} broke", peer=self.peer.text)
        if not data or self._writer.transport.get_write_buffer_size():
            return 0
        piece = bytes(data[:RECEIVE_SIZE])  # a copy: the writer may keep a reference
        self._writer.write(piece)
        return len(piece)

    async def writable(self) -> None:
        self._must_be_open()
        if self._draining is not None:
            raise LinkBusy(f"another task waits on {self.peer.text} already; a link has one writer")
        self._draining = asyncio.ensure_future(self._writer.drain())
        try:
            await asyncio.wait([self._draining])
            if not self._draining.cancelled():
                self._draining.result()
        except OSError as error:
            self._must_be_open()
            raise LinkBroken("the link to {peer} broke: {why}", peer=self.peer.text, why=reason(error)) from None
        finally:
            self._draining.cancel()
            self._draining = None
        self._must_be_open()

    async def receive(self) -> bytes:
        self._must_be_open()
        if self._receiving:
            raise LinkBusy(f"another task receives from {self.peer.text} already; a link has one reader")
        self._receiving = True
        try:
            data = await self._reader.read(RECEIVE_SIZE)
        except OSError as error:
            self._must_be_open()
            raise LinkBroken("the link to {peer} broke: {why}", peer=self.peer.text, why=reason(error)) from None
        finally:
            self._receiving = False
        self._must_be_open()
        return data

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._draining is not None:
            self._draining.cancel()  # closing the writer would not wake it while a piece is left
        self._reader.feed_eof()  # wakes receive; closing the writer alone would not while it has bytes to flush
        self._writer.close()  # flushes, but not forever: a peer that has stopped reading would keep the descriptor open
        abort = self._writer.transport.abort
        timer = asyncio.get_running_loop().call_later(LINGER, abort)

        def closed(closing: asyncio.Future[None]) -> None:
            timer.cancel()
            if closing.cancelled():  # the loop ends, perhaps before the task began
                abort()
            else:
                closing.exception()  # nobody asks why it broke

        asyncio.ensure_future(self._writer.wait_closed()).add_done_callback(closed)
