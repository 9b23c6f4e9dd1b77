"""Ready-made links: over descriptors that the event loop can poll, over TLS, over a library's reader and writer.

Rules:

1. Only this module calls ``add_reader`` and ``add_writer``. Readiness is level-triggered: a callback that stays
   registered fires again at once, forever, so each wait removes its own.
2. A wait is only a wait. Bytes move in plain calls after it, so a cancelled wait loses nothing.
3. Try first, and wait only if the kernel says EAGAIN: a busy link costs no registration.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.errors import LinkBroken, LinkBusy, LinkClosed, Text, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.transport import Buffer, Peer

RECEIVE_SIZE: Final = 64 * 1024  # bytes asked for in one receive
RECORD: Final = 16 * 1024  # bytes: the largest TLS record (RFC 8446, section 5.1)
PAUSE: Final = 0.001  # seconds before a link looks again for the rest of a TLS record; doubled each time
LONGEST_PAUSE: Final = 0.25  # seconds
FLIGHTS: Final = 4  # waits for the peer that a TLS handshake may take; more, and its bytes come in crumbs
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


class TlsLink(SocketLink):
    """The same under TLS, over a socket from ``begin_tls``.

    After SSLWantWriteError OpenSSL insists on the same bytes again, but the member's next bytes may be others. So the
    link holds that one piece (at most 16 KiB), sends it by itself, and takes nothing until it is gone. OpenSSL may also
    hold decrypted bytes while the socket is not readable: trying before waiting covers that. TLS 1.3 has no
    renegotiation, so reading never waits to write.
    """

    def __init__(self, sock: ssl.SSLSocket, peer: Peer) -> None:
        super().__init__(sock, peer)
        self._read, self._write = self._decrypt, self._encrypt
        self._tls = sock
        self._piece = b""
        self._pushing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pushing.set_result(None)
        # A sender waits until the piece is gone; the task that sends the piece waits for the socket.
        self._writing = Waiter(sock.fileno(), self._when_pushed, lambda _fd: True)

    def _decrypt(self, size: int) -> bytes:
        try:
            return self._tls.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            raise ConnectionError(Text("it ended without TLS's goodbye; the peer died, or was cut off")) from None
        except ssl.SSLError as error:
            raise ConnectionError(
                Text("TLS failed: {why}", why=(error.reason or "unknown reason").replace("_", " "))
            ) from None

    def _encrypt(self, data: Buffer) -> int:
        if self._piece:
            return 0
        taken = 0
        # Released at once: otherwise an error's traceback would keep the caller from changing a bytearray.
        with memoryview(data) as whole, whole.cast("B") as view:
            while taken < len(view) and not self._piece:
                with view[taken : taken + RECORD] as record:
                    try:
                        taken += self._tls.send(record)
                    except ssl.SSLWantWriteError:
                        self._piece = bytes(record)  # still taken: OpenSSL has begun with it
                        taken += len(record)
                        self._pushing = asyncio.get_running_loop().create_task(self._push())
        return taken

    async def _push(self) -> None:
        """Send the piece without another call: what ``send`` has taken counts as sent."""
        writable = Waiter.for_writing(self._tls.fileno())
        while self._piece:
            await writable.wait()
            try:
                self._piece = self._piece[self._tls.send(self._piece) :]
            except ssl.SSLWantWriteError:
                continue
            except OSError:
                self._piece = b""  # the next send gets the same error, and reports it

    def _when_pushed(self, _fd: int, wake: Callable[[], None]) -> None:
        self._pushing.add_done_callback(lambda _pushing: wake())  # soon, if there is no piece

    async def _finish(self) -> None:
        await self._pushing
        writable = Waiter.for_writing(self._tls.fileno())
        while True:
            try:
                self._tls.unwrap()
            except ssl.SSLWantWriteError:
                await writable.wait()
                continue
            except (ssl.SSLError, ValueError):
                pass  # our goodbye is sent; the peer's may come later or never, and we do not wait for it
            return


class NotTls(OSError):
    """What a peer sent instead of TLS, in words for people."""


async def begin_tls(sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLSocket:
    """Begin TLS on a connected, non-blocking socket. Raises NotTls, OSError; the socket is then closed.

    Set a timeout around it: the peer may never send. A server's context should have ``num_tickets = 0``: a peer that
    only sends never reads session tickets, and its close may become a reset.
    """
    try:
        fd = sock.fileno()
        readable, writable = Waiter.for_reading(fd), Waiter.for_writing(fd)
        sock = tls = context.wrap_socket(
            sock, server_side=server_side, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        first, waits = b"", 0
        while True:
            try:
                # For anything but TLS, OpenSSL's errors differ by version: check the first bytes ourselves.
                first = first or socket.socket.recv(tls, 24, socket.MSG_PEEK)
                _must_be_tls(first)
            except BlockingIOError:
                pass
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                if (waits := waits + 1) > FLIGHTS:
                    await asyncio.sleep(min(PAUSE * 2 ** min(waits, 20), LONGEST_PAUSE))
                await readable.wait()
            except ssl.SSLWantWriteError:
                await writable.wait()
            else:
                return tls
    except BaseException:
        sock.close()
        raise


def _must_be_tls(first: bytes) -> None:
    # RFC 8446, section 5.1: a handshake record or an alert; or, if OpenSSL has taken the first record since our last
    # look, the change_cipher_spec or application_data after it.
    if first[:1] in (b"\x14", b"\x15", b"\x16", b"\x17"):
        return
    if not first:
        raise ConnectionError(Text("it closed the connection before TLS began"))
    if first.startswith((b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"PRI * HTTP")):
        raise NotTls(Text("it sent an HTTP request"))
    if first.startswith(b"chat/"):
        raise NotTls(Text("it speaks chat in the clear"))
    raise NotTls(Text("it began with {begin}", begin=repr(first)[1:]))


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
