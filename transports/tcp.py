"""tcp: between machines.

What it is: two stream sockets that the kernels of two machines keep in step, each with a buffer for what
was sent and not acknowledged, and one for what has arrived and was not read. TLS 1.3 runs over it, so
that the wire is private, and so that the host's certificate proves its key before we send it a byte.

When to choose it: for people on other machines. On one machine a local transport needs no port, no keys
on the wire, and gets the peer's user from the kernel.

     ann's link       ann's kernel          network         bob's kernel         bob's link
      send ──▶ TLS ──▶ [ unacknowledged ] ══ segments ══▶ [ arrived ] ──▶ TLS ──▶ receive
     receive ◀── TLS ◀── [ arrived ] ◀══════ segments ══ [ unacknowledged ] ◀── TLS ◀── send

Four facts:
  capacity          what the kernels allow: they let it grow to some MiB each way (tcp_wmem, tcp_rmem)
  borders           none: what was sent in two pieces may arrive as one, and the other way round
  how death shows   a killed process: its kernel ends or resets the connection at once. A pulled cable
                    or a frozen process: not at all, for hours; that is why the core counts beats
  what wakes you    readability (bytes, the end, a reset) and writability (a third of the buffer free)

Addresses: ``tcp:HOST:PORT``, ``tcp:[IPV6]:PORT``; the port is 7711 unless given, and 0 takes any free one.
Listening, bare ``tcp`` is all interfaces; dialling, it is this machine. ``?tls=0`` leaves TLS out, on
loopback addresses only: to look at the wire with tcpdump, and to measure.

Traps:
  EADDRINUSE        After a host was killed its port stays taken for a minute (TIME_WAIT): SO_REUSEADDR.
                    On Linux two listeners still cannot share a port.
  EMFILE            The peer stays in the backlog, so the listener stays readable: without a pause the
                    loop would spin.
  ECONNRESET        Closing with unread bytes sends a reset, and the kernel throws away what it had still
                    to send: end our half first, read to the peer's end, then close. TLS's session
                    tickets are such bytes for whoever only sends, so we make none.
  SSLWantRead       OpenSSL may hold bytes that it has decrypted while the socket is not readable: read
                    until it wants more, and only then wait.
  SSLWantWrite      OpenSSL now insists on the same bytes again. A member's next bytes may be others, so
                    the link keeps that one piece, and pushes it out by itself.
  a bare FIN        Anyone on the way can forge one. TLS's own close_notify is the end; without, it broke.
  Nagle             Holds a small piece back until the last was acknowledged: TCP_NODELAY, we batch ourselves.
  self-connect      Dialling a free port of this machine, the kernel may pick that very port for our side,
                    and we talk to ourselves.
  one dead address  A name may have several, and the first may swallow packets: the next is tried after a
                    quarter of a second, the first to answer wins (happy eyeballs, RFC 8305).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections import deque
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chat.transport import Address, AddressError, DialFailed, LinkClosed, ListenFailed, Peer, Text, WrongValue, reason
from chat.transport.link import NotTls, SocketLink, TlsLink, Waiter, begin_tls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chat.transport import Site

PORT: Final = 7711
DIAL_TIMEOUT: Final = 10.0  # seconds for a dial: names, all addresses, TLS
STAGGER: Final = 0.25  # seconds until the next address is tried beside the last (RFC 8305, section 5)
HANDSHAKE_TIMEOUT: Final = 5.0  # seconds that a stranger has to show TLS, as long as the core waits for HELLO
ANY: Final = "0.0.0.0"  # noqa: S104  how people know "all interfaces"; whoever wants fewer names them
BACKLOG: Final = 1024  # connections that the kernel keeps for us: a whole room may come back at once
HANDSHAKES: Final = 64  # at once; whoever comes beyond that waits in the kernel's backlog

log: Final = logging.getLogger("chat.tcp")


# -- addresses ------------------------------------------------------------------------------------


class _Place(NamedTuple):
    host: str  # "" is all interfaces when listening, this machine when dialling
    port: int
    tls: bool


class _Resolved(NamedTuple):
    family: int
    address: tuple[Any, ...]  # as the socket module wants it


def _split(place: str, port: int) -> tuple[str, int]:
    """Take ``HOST:PORT`` apart. Raises ValueError."""
    host, colon, digits = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, digits = place, str(port)
    if host.startswith("["):
        if not host.endswith("]"):
            raise WrongValue("the bracket is not closed")
        host = host[1:-1]
    if set(host) & set(" /?#@,[]"):
        raise WrongValue("{host!r} cannot be a host's name", host=host)
    if ":" in host and not place.startswith("["):
        raise WrongValue("an IPv6 address stands in brackets, like tcp:[::1]:7711")
    if host.isdecimal() and not colon:
        raise WrongValue("a port alone is written tcp::{host}", host=host)
    if not (digits.isascii() and digits.isdecimal() and int(digits) < 65536):
        raise WrongValue("the port is a number from 0 to 65535, not {digits!r}", digits=digits)
    return host, int(digits)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(address: Address) -> _Place:
    address.allow_options("tls")
    tls = address.options.get("tls", "1")
    try:
        host, port = _split(address.place, PORT)
        if tls not in ("0", "1"):
            raise WrongValue("tls is 0 or 1, not {tls!r}", tls=tls)
    except ValueError as error:
        raise AddressError("cannot read {address!r}: {why}", address=str(address), why=error) from None
    return _Place(host, port, tls == "1")


async def _resolve(address: Address, place: _Place, flags: int) -> list[_Resolved]:
    """Return every address of the place. Raises AddressError, and gaierror for a name that nobody knows."""
    look_up = partial(socket.getaddrinfo, place.host or None, place.port, type=socket.SOCK_STREAM)
    try:
        try:
            found = look_up(flags=flags | socket.AI_NUMERICHOST)  # in numbers: nobody is asked, so no thread
        except socket.gaierror:
            found = await asyncio.to_thread(look_up, flags=flags)
    except ValueError:  # a label over 63 bytes, or empty: the name cannot be written for DNS
        raise AddressError(
            "cannot read {address!r}: {host!r} cannot be a host's name", address=str(address), host=place.host
        ) from None
    resolved = [_Resolved(family, sockaddr) for family, _, _, _, sockaddr in found]
    if not place.tls and not _all_loopback(resolved):
        raise AddressError(
            "{address} would cross the network in the clear; ?tls=0 is for loopback addresses only", address=address
        )
    return resolved


def _all_loopback(resolved: Sequence[_Resolved]) -> bool:
    """All, for whoever answers for the name may list this machine and his own beside it."""
    return all(ipaddress.ip_address(one.address[0].partition("%")[0]).is_loopback for one in resolved)


def _primary_address(families: Sequence[int]) -> str:
    """The address this machine would speak from. Connecting a datagram socket sends nothing."""
    documentation = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # RFC 5737, RFC 3849
    for family in families:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((documentation[socket.AddressFamily(family)], 9))
                return str(probe.getsockname()[0])
            except OSError:  # no route: this machine has no network of the kind
                continue
    return "127.0.0.1" if socket.AF_INET in families else "::1"


def _reason(error: BaseException) -> str:
    """What happened, in words for people."""
    if isinstance(error, TimeoutError) and not error.errno:
        return Text("no answer within {seconds:g} s; is a firewall in the way?", seconds=DIAL_TIMEOUT)
    if isinstance(error, ssl.SSLError):
        why = (error.reason or "unknown reason").replace("_", " ").lower()
        return Text("the TLS handshake failed: {why}", why=why)
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return Text(os.strerror(error.errno).lower())  # without what libraries add to it
    return reason(error) if isinstance(error, OSError) else str(error)


_DIAL_ADVICE: Final[dict[int | None, str]] = {
    errno.ECONNREFUSED: Text("; is a host running there?"),
    errno.ENETUNREACH: Text("; is this machine connected?"),
    errno.EHOSTUNREACH: Text("; is that machine connected?"),
    errno.ETIMEDOUT: Text("; is a firewall in the way?"),
}
_LISTEN_ADVICE: Final[dict[int | None, str]] = {
    errno.EADDRINUSE: Text("; is another host running? try port 0"),
    errno.EACCES: Text("; ports below 1024 are for root: try another"),
    errno.EADDRNOTAVAIL: Text("; it is not an address of this machine"),
}


def _proved_key(tls: ssl.SSLSocket) -> bytes | None:
    """The Ed25519 key (32 bytes) that the peer proved in the handshake to hold; None if it is of another kind."""
    try:
        key = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").public_key()
    except Exception:  # a stranger's certificate: the library has errors of many kinds for it
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


# -- dialling ------------------------------------------------------------------------------------


async def _connect(resolved: _Resolved) -> socket.socket:
    """Connect to one address. Raises OSError."""
    sock = socket.socket(resolved.family, socket.SOCK_STREAM)
    try:
        _tune(sock)
        error = sock.connect_ex(resolved.address)
        if error == errno.EINPROGRESS:
            await Waiter.for_writing(sock.fileno()).wait()
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error and sock.getsockname() == sock.getpeername():
            error = errno.ECONNREFUSED  # nobody was there but ourselves
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(resolved: Sequence[_Resolved]) -> socket.socket:
    """Connect to whichever address answers first. Raises OSError, the first one's, when none does."""
    one_family = [one for one in resolved if one.family == resolved[0].family]
    the_other = [one for one in resolved if one.family != resolved[0].family]
    waiting = deque(one for pair in zip_longest(one_family, the_other) for one in pair if one is not None)
    started: list[asyncio.Task[socket.socket]] = []
    winner = failure = None
    try:
        running: set[asyncio.Task[socket.socket]] = set()
        while winner is None:
            if waiting:
                started.append(asyncio.get_running_loop().create_task(_connect(waiting.popleft())))
                running.add(started[-1])
            elif not running:
                assert failure is not None
                raise failure
            patience = STAGGER if waiting else None
            done, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                failure = failure or task.exception()
                winner = winner or (None if task.exception() else task)
        return winner.result()
    finally:
        for task in started:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _client_context() -> ssl.SSLContext:
    """Any certificate will do: the core compares its key with the one it expects before it sends a byte."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# -- listening ------------------------------------------------------------------------------------


class TcpListener:
    """Listening sockets, one for each address of the place, and the handshakes under way on them."""

    def __init__(
        self, address: Address, advertised: Address, sockets: list[socket.socket], context: ssl.SSLContext | None
    ) -> None:
        self.address = address
        self.advertised = advertised
        self._sockets = sockets
        self._context = context
        self._ready: asyncio.Queue[SocketLink | None] = asyncio.Queue()  # None: closed
        self._handshakes: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(HANDSHAKES)  # one for each socket that waits, handshake, and link in _ready
        self._closed = False
        loop = asyncio.get_running_loop()
        self._serving = [loop.create_task(self._serve(sock)) for sock in sockets]

    async def accept(self) -> SocketLink:
        link = None if self._closed else await self._ready.get()
        if link is None:
            self._ready.put_nowait(None)  # for whoever else waits here
            raise LinkClosed("the listener on {address} was closed here", address=self.address)
        self._places.release()
        return link

    async def _serve(self, sock: socket.socket) -> None:
        readable = Waiter.for_reading(sock.fileno())
        while True:
            await self._places.acquire()
            connection, peer = await self._next(sock, readable)
            if self._context is None:
                self._ready.put_nowait(SocketLink(connection, peer))
            else:
                task = asyncio.get_running_loop().create_task(self._let_in(connection, peer, self._context))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
                task.add_done_callback(partial(_close, connection))

    async def _next(self, sock: socket.socket, readable: Waiter) -> tuple[socket.socket, Peer]:
        while True:
            await readable.wait()
            try:
                connection, name = sock.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("%s lets nobody in for a second: %s", self.address, _reason(error))
                    await asyncio.sleep(1)
                continue  # else whoever it was has left already
            try:
                _tune(connection)
            except OSError:
                connection.close()
                continue
            return connection, Peer(f"tcp {_join(*name[:2])}")

    async def _let_in(self, connection: socket.socket, peer: Peer, context: ssl.SSLContext) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                tls = await begin_tls(connection, context, server_side=True)
        except TimeoutError:
            log.warning("%s was turned away: no TLS handshake within %g s", peer.text, HANDSHAKE_TIMEOUT)
        except NotTls as error:
            log.warning("%s was turned away: %s, not TLS", peer.text, error)
        except ConnectionError as error:
            log.info("%s left again: %s", peer.text, _reason(error))
        except OSError as error:
            log.warning("%s was turned away: %s", peer.text, _reason(error))
        else:
            self._ready.put_nowait(TlsLink(tls, peer))
            return
        self._places.release()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        tasks = [*self._serving, *self._handshakes]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait(tasks)  # each takes its registration away, so close the descriptors after that
        finally:
            for sock in self._sockets:
                sock.close()
        while not self._ready.empty():  # connected, and never accepted: they see the end
            if (link := self._ready.get_nowait()) is not None:
                await link.aclose()
        self._ready.put_nowait(None)


def _listen_on(resolved: Sequence[_Resolved], port: int) -> list[socket.socket]:
    """Listen on every address. The first settles port 0, and the others take the same. Raises OSError."""
    sockets: list[socket.socket] = []
    failure = None
    for family, (host, _, *rest) in resolved:
        try:
            # It sets SO_REUSEADDR, and IPV6_V6ONLY: the IPv6 socket would take its sibling's port too.
            sockets.append(socket.create_server((host, port, *rest), family=family, backlog=BACKLOG))
            sockets[-1].setblocking(False)
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                failure = error  # no IPv6 on this machine, or a name that lists other machines too
                continue
            for sock in sockets:
                sock.close()
            raise
        port = sockets[0].getsockname()[1]
    if not sockets:
        assert failure is not None
        raise failure
    return sockets


def _listen(resolved: Sequence[_Resolved], port: int, previous: Address | None) -> list[socket.socket]:
    """Listen on every address; for port 0 on the port of the last time, so that invites go on to be good."""
    if not port and previous is not None:
        try:
            return _listen_on(resolved, _read(previous).port)
        except (AddressError, OSError):  # somebody else has it now
            pass
    return _listen_on(resolved, port)


def _server_context(certificate: Path) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError among them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate)
    return context


def _addresses(
    address: Address, place: _Place, sockets: Sequence[socket.socket], site: Site
) -> tuple[Address, Address]:
    """The address of these sockets for this machine, and the one for others. Raises AddressError."""
    bound = [ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]) for sock in sockets]
    host, port = place.host, sockets[0].getsockname()[1]
    elsewhere, its_port = host, port
    if bound[0].is_unspecified:
        host = "127.0.0.1" if bound[0].version == 4 else "::1"
        elsewhere = _primary_address([sock.family for sock in sockets])
    if site.advertise and not all(one.is_loopback for one in bound):
        try:
            elsewhere, its_port = _split(site.advertise, port)
        except ValueError as error:
            raise AddressError("cannot advertise {place!r}: {why}", place=site.advertise, why=error) from None
    return (
        Address(address.scheme, _join(host, port), address.options),
        Address(address.scheme, _join(elsewhere, its_port), address.options),
    )


def _close(connection: socket.socket, _task: asyncio.Task[None]) -> None:
    """After a handshake, which may have been cancelled before it began; once begun, TLS owns the descriptor."""
    connection.close()


class TcpTransport:
    scheme = "tcp"
    bare_addresses = True  # in an invite HOST:PORT is tcp:HOST:PORT
    summary = "between machines, under TLS 1.3; bare tcp listens on all interfaces, port 7711"

    async def listen(self, address: Address, site: Site) -> TcpListener:
        place = _read(address)
        here = Address(address.scheme, _join(place.host or ANY, place.port), address.options)
        context = None
        try:
            if place.tls:
                context = _server_context(site.certificate)
        except OSError as error:
            raise ListenFailed(
                "cannot listen on {here}: the certificate {path} cannot be used: {why}; it is a PEM file "
                "with the host's key and its certificate",
                here=here,
                path=site.certificate,
                why=_reason(error),
            ) from None
        try:
            sockets = _listen(await _resolve(address, place, socket.AI_PASSIVE), place.port, site.previous)
        except socket.gaierror as error:
            raise ListenFailed(
                "cannot listen on {here}: {why}; check the name {host!r}",
                here=here,
                why=_reason(error),
                host=place.host,
            ) from None
        except OSError as error:
            advice = _LISTEN_ADVICE.get(error.errno, "")
            raise ListenFailed(
                "cannot listen on {here}: {why}{advice}", here=here, why=_reason(error), advice=advice
            ) from None
        try:
            return TcpListener(*_addresses(address, place, sockets, site), sockets, context)
        except AddressError:
            for sock in sockets:
                sock.close()
            raise

    async def dial(self, address: Address) -> SocketLink:
        place = _read(address)
        if not place.port:
            raise AddressError(
                "cannot dial {address}: port 0 is for listening; give the port that the host shows", address=address
            )
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                sock = await _race(await _resolve(address, place, 0))
                try:
                    text = f"tcp {_join(*sock.getpeername()[:2])}"
                    if not place.tls:
                        return SocketLink(sock, Peer(text))
                    tls = await begin_tls(sock, _client_context(), server_side=False)
                except BaseException:
                    sock.close()
                    raise
        except socket.gaierror as error:
            raise DialFailed(
                "cannot reach {address}: {why}; check the name {host!r}",
                address=address,
                why=_reason(error),
                host=place.host,
            ) from None
        except NotTls as error:
            raise DialFailed(
                "cannot reach {address}: it does not speak TLS ({why}); is this the port?",
                address=address,
                why=reason(error),
            ) from None
        except OSError as error:
            advice = _DIAL_ADVICE.get(error.errno, "")
            raise DialFailed(
                "cannot reach {address}: {why}{advice}", address=address, why=_reason(error), advice=advice
            ) from None
        key = _proved_key(tls)
        if key is None:
            tls.close()
            raise DialFailed(
                "cannot reach {address}: its certificate holds no Ed25519 key, so it is no chat host", address=address
            )
        return TlsLink(tls, Peer(text, key=key))


transport: Final = TcpTransport()


async def _demo() -> None:
    """Ann listens, Bob dials; Bob says a line, and Ann sends it back. Plain, so that tcpdump -i lo shows it."""
    from pathlib import Path

    from chat.transport import Site

    listener = await transport.listen(Address.parse("tcp:127.0.0.1:0?tls=0"), Site(Path(), Path()))
    bob = await transport.dial(listener.address)
    ann = await listener.accept()
    print(f"ann listens on {listener.address}; she sees {ann.peer.text}, bob sees {bob.peer.text}")
    print(f"bob sends a line, {bob.send(b'hello')} bytes taken")
    print(f"ann sends it back, {ann.send(await ann.receive())} bytes taken; bob reads {await bob.receive()!r}")
    taken = 0
    while count := bob.send(bytes(65536)):
        taken += count
    print(f"bob sends while ann does not read: after {taken} bytes the kernels hold no more")
    await bob.aclose()
    while piece := await ann.receive():
        taken -= len(piece)
    print(f"bob closes; ann reads it all ({taken} bytes are missing), then the end: {await ann.receive()!r}")
    await ann.aclose()
    await listener.aclose()


if __name__ == "__main__":
    asyncio.run(_demo())
