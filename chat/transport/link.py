"""Ready-made links: over descriptors that the event loop can poll, over TLS, over a library's reader and writer.

Rules:

1. This is the one module that calls ``add_reader`` and ``add_writer``. Readiness is level-triggered: a
   callback left registered fires again at once, for ever, so each wait takes its own away again.
2. A wait is only a wait. Bytes move in plain calls after it, so a cancelled wait has lost nothing.
3. Try first, wait only when the kernel says EAGAIN: a busy link costs no registration.
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
RECORD: Final = 16 * 1024  # bytes: TLS puts no more into one record (RFC 8446, section 5.1)
LINGER: Final = 1.0  # seconds that a closed link may take, behind the caller's back, to deliver what it had taken


class Waiter:
    """One wait for one direction of a descriptor, which closing can end."""

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
        """Return when the descriptor is ready. Raises LinkClosed when closed meanwhile, LinkBusy for a second."""
        if self._future is not None:
            raise LinkBusy("another task waits on this link already; a link has one reader and one writer")
        self._future = asyncio.get_running_loop().create_future()
        try:
            self._add(self._fd, self._wake)
            await self._future
        finally:
            # After close() the number may belong to somebody else's descriptor: leave that alone.
            if self._future is not None:
                self._remove(self._fd)
                self._future = None

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def close(self) -> None:
        """End the wait with LinkClosed. Call it before the descriptor is closed."""
        future, self._future = self._future, None
        if future is not None:
            self._remove(self._fd)
            if not future.done():
                future.set_exception(LinkClosed("the link was closed here while a task waited on it"))


class DescriptorLink:
    """A link over one non-blocking descriptor for reading and one for writing (they may be the same).

    ``read(size)`` and ``write(data)`` are one system call each and raise BlockingIOError when they would
    have to wait; ``read`` returns ``b""`` at the end. A subclass may put something between, as TLS does.
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
        self._waited = False  # for the bytes that were received last
        self._failure: LinkBroken | None = None  # of receiving; what was sent to us before it is still to be read
        self._closed = False

    @classmethod
    def over_socket(cls, sock: socket.socket, peer: Peer) -> DescriptorLink:
        """A link over a connected, non-blocking socket, which it owns from now on."""
        fd = sock.fileno()
        return cls(peer, fd, fd, read=sock.recv, write=sock.send, close=sock.close)

    def _must_be_open(self) -> None:
        if self._closed:
            raise LinkClosed("the link to {peer} was closed here", peer=self.peer.text)

    def send(self, data: Buffer) -> int:
        self._must_be_open()
        if not data:  # an empty write is an end of stream on some kernels' message sockets
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
            # One turn of the loop first: a peer that never stops sending must not keep the others waiting.
            # Who has waited for the kernel since the last bytes has given its turn up already.
            if not self._waited:
                await asyncio.sleep(0)
            self._waited = False
            while not self._ended:
                self._must_be_open()
                if self._failure is not None:
                    raise self._failure  # the kernel tells an error once, and then shows an end that never was
                try:
                    data = self._read(RECEIVE_SIZE)
                except (BlockingIOError, InterruptedError):
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


def _close(sock: socket.socket, _task: object) -> None:
    sock.close()  # of a socket that TLS has taken over nothing is left, and this does nothing


class SocketLink(DescriptorLink):
    """A link over a connected stream socket between machines, which it owns from now on.

    Closing is over for the caller at once, while the socket stays for up to LINGER seconds. In that time
    our half has ended, and the peer's bytes are read and dropped: closing with unread bytes would send a
    reset (RFC 2525, section 2.17), and the kernel would throw away what it had still to send.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        *,
        read: Callable[[int], bytes] | None = None,
        write: Callable[[Buffer], int] | None = None,
    ) -> None:
        fd = sock.fileno()
        super().__init__(peer, fd, fd, read=read or sock.recv, write=write or sock.send, close=self._leave)
        self._sock = sock

    def _leave(self) -> None:
        task = asyncio.get_running_loop().create_task(self._linger())
        # Not in the task itself: the loop may end, and cancel it, before it starts.
        task.add_done_callback(lambda _: self._sock.close())

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                await self._finish()
                self._sock.shutdown(socket.SHUT_WR)
                await self._drop_input()
        except (OSError, TimeoutError):
            pass  # the peer is gone, or reads no more: nothing is owed to it

    async def _finish(self) -> None:
        """Send what must come before the end."""

    async def _drop_input(self) -> None:
        readable = Waiter.for_reading(self._sock.fileno())
        data = b"?"
        while data:
            await readable.wait()  # every time: a peer that floods us must not keep the loop
            with suppress(BlockingIOError):
                data = socket.socket.recv(self._sock, RECEIVE_SIZE)  # the bare socket's, also under TLS


class TlsLink(SocketLink):
    """The same under TLS, from ``begin_tls``.

    After SSLWantWriteError OpenSSL insists on the same bytes again, and a member's next bytes may be
    others. So the link holds that one piece (at most 16 KiB), pushes it out by itself, and takes nothing
    until it is gone. OpenSSL may also hold bytes that it has decrypted while the socket is not readable:
    trying before waiting covers that. TLS 1.3 has no renegotiation, so reading never waits to write.
    """

    def __init__(self, sock: ssl.SSLSocket, peer: Peer) -> None:
        super().__init__(sock, peer, read=self._decrypt, write=self._encrypt)
        self._tls = sock
        self._piece = b""
        self._pushing: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] | None = None
        # Who waits to send waits for the piece to be gone; the task that pushes it waits for the socket.
        self._writing = Waiter(sock.fileno(), self._when_pushed, self._forget)

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
        # Released at once: else the traceback of an error would keep the caller from changing a bytearray.
        with memoryview(data) as whole, whole.cast("B") as view:
            while taken < len(view) and not self._piece:
                with view[taken : taken + RECORD] as record:
                    try:
                        taken += self._tls.send(record)
                    except ssl.SSLWantWriteError:
                        self._piece = bytes(record)  # taken all the same: OpenSSL has begun with it
                        taken += len(record)
                        self._pushing = asyncio.get_running_loop().create_task(self._push())
        return taken

    async def _push(self) -> None:
        """Bring the piece out without anybody's call, for what ``send`` has taken counts as sent."""
        writable = Waiter.for_writing(self._tls.fileno())
        while self._piece:
            await writable.wait()
            try:
                self._piece = self._piece[self._tls.send(self._piece) :]
            except ssl.SSLWantWriteError:
                continue
            except OSError:
                self._piece = b""  # the next send meets the same error, and tells it
        if self._wake is not None:
            self._wake()

    def _when_pushed(self, _fd: int, wake: Callable[[], None]) -> None:
        self._wake = wake
        if not self._piece:
            asyncio.get_running_loop().call_soon(wake)

    def _forget(self, _fd: int) -> bool:
        self._wake = None
        return True

    async def _finish(self) -> None:
        if self._pushing is not None:
            await self._pushing
        writable = Waiter.for_writing(self._tls.fileno())
        while True:
            try:
                self._tls.unwrap()
            except ssl.SSLWantWriteError:
                await writable.wait()
                continue
            except (ssl.SSLError, ValueError):
                pass  # our goodbye is out; the peer's may come later, or never, and we ask for no more
            return


class NotTls(OSError):
    """What a stranger sent in place of TLS, in words for people."""


async def begin_tls(sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLSocket:
    """Begin TLS on a connected, non-blocking socket. Raises NotTls, OSError; the socket is then closed.

    Set a time-out around it: the peer may never speak. A server's context wants ``num_tickets = 0``:
    session tickets are bytes which a peer that only sends never reads, and its close may become a reset.
    """
    try:
        fd = sock.fileno()
        readable, writable = Waiter.for_reading(fd), Waiter.for_writing(fd)
        sock = tls = context.wrap_socket(
            sock, server_side=server_side, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        first = b""
        while True:
            try:
                # OpenSSL's errors for something that is not TLS differ by version: look for ourselves.
                first = first or socket.socket.recv(tls, 24, socket.MSG_PEEK)
                _must_be_tls(first)
            except BlockingIOError:
                pass
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await readable.wait()
            except ssl.SSLWantWriteError:
                await writable.wait()
            else:
                return tls
    except BaseException:
        sock.close()
        raise


def _must_be_tls(first: bytes) -> None:
    # RFC 8446, section 5.1: a handshake record or an alert; or, when the first record came between our look and
    # OpenSSL's, the change_cipher_spec or application_data behind it.
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
    """A link over an ``asyncio`` reader and writer, or over a library's that look like them.

    The writer insists on a buffer of its own, so at most one piece is put there, and ``send`` answers 0
    until that has drained: otherwise the buffer would grow without bound behind the cursor's back.

    For a socket of your own SocketLink is better: asyncio closes it with bytes unread, and a peer that
    reads slowly then gets a reset in place of the last bytes.
    """

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self._reader = reader
        self._writer = writer
        self._receiving = self._draining = self._closed = False
        self._closing = asyncio.get_running_loop().create_future()
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
        if self._draining:
            raise LinkBusy(f"another task waits on {self.peer.text} already; a link has one writer")
        self._draining = True
        drain = asyncio.ensure_future(self._writer.drain())
        try:
            # Closing the writer does not end drain() while a piece is left: aclose wakes us by itself.
            await asyncio.wait((drain, self._closing), return_when=asyncio.FIRST_COMPLETED)
            if drain.done():
                drain.result()
        except OSError as error:
            self._must_be_open()
            raise LinkBroken("the link to {peer} broke: {why}", peer=self.peer.text, why=reason(error)) from None
        finally:
            self._draining = False
            drain.cancel()
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
        self._closing.set_result(None)
        self._reader.feed_eof()  # wakes receive; closing the writer alone would not while it has bytes to flush
        self._writer.close()
        task = asyncio.get_running_loop().create_task(self._linger())
        task.add_done_callback(self._lingered)

    async def _linger(self) -> bool:
        """Let the writer flush; but a peer that reads no more would keep the descriptor for ever."""
        try:
            async with asyncio.timeout(LINGER):
                await self._writer.wait_closed()
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def _lingered(self, task: asyncio.Task[bool]) -> None:
        if task.cancelled() or not task.result():  # cancelled: the loop ends, perhaps before the task began
            self._writer.transport.abort()
