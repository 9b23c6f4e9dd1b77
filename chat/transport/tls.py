"""TLS 1.3 over a socket that the event loop polls: a link, the handshake before it, and whose key it proves.

asyncio's own TLS has a buffer that hides how much was taken; here OpenSSL is called on the bare socket, and the loop is
asked only for readiness. There are no certificate authorities: the core compares the key with the one it expects.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chat.core.errors import Text, reason
from chat.transport.link import LONGEST_PAUSE, PAUSE, SocketLink, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.transport import Buffer, Peer

RECORD: Final = 16 * 1024  # bytes: the largest TLS record (RFC 8446, section 5.1)
FLIGHTS: Final = 4  # waits for the peer that a TLS handshake may take; more, and its bytes come in crumbs


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
            raise ConnectionError(Text("TLS failed: {why}", why=tls_reason(error))) from None

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

    Set a timeout around it: the peer may never send.
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


def tls_reason(error: ssl.SSLError) -> str:
    """Return what OpenSSL said, as part of a line for people."""
    return (error.reason or "unknown reason").replace("_", " ").lower()


# -- keys and certificates ------------------------------------------------------------------------


def proved_key(tls: ssl.SSLSocket) -> bytes:
    """Return the key (32 bytes) that the peer proved in the handshake. Raises ConnectionError if it is not Ed25519."""
    with suppress(Exception):  # a peer's certificate can be anything, and the library raises errors of many kinds
        key = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").public_key()
        if isinstance(key, Ed25519PublicKey):
            return key.public_bytes_raw()
    raise ConnectionError(Text("its certificate holds no Ed25519 key, so it is no chat host"))


def _context(role: ssl._SSLMethod) -> ssl.SSLContext:
    """Accept any certificate: the core compares its key with the expected one before it sends a byte."""
    context = ssl.SSLContext(role)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def client_context() -> ssl.SSLContext:
    return _context(ssl.PROTOCOL_TLS_CLIENT)


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return a host's settings, with its key from a PEM file. Raises OSError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate)
    except OSError as error:
        words = Text(
            "the certificate {path} cannot be used: {why}; it is a PEM file with the host's key and its certificate",
            path=certificate,
            why=tls_reason(error) if isinstance(error, ssl.SSLError) else reason(error),
        )
        raise OSError(words) from None
    return context
