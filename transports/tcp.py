"""tcp: between machines.

What it is: two stream sockets that the kernels of two machines keep in step. Each has a buffer for bytes that were sent
and not acknowledged, and one for bytes that have arrived and were not read. TLS 1.3 runs over it: it keeps the wire
private, and the host's certificate proves its key before we send a byte.

When to choose it: for people on other machines. On one machine, a local transport needs no port and no encryption, and
the kernel names the peer's user.

     ann's link       ann's kernel          network         bob's kernel         bob's link
      send ──▶ TLS ──▶ [ unacknowledged ] ══ segments ══▶ [ arrived ] ──▶ TLS ──▶ receive
     receive ◀── TLS ◀── [ arrived ] ◀══════ segments ══ [ unacknowledged ] ◀── TLS ◀── send

Four facts:
  capacity          whatever the kernels allow: it may grow to some MiB each way (tcp_wmem, tcp_rmem)
  borders           none: two pieces may arrive as one, and one piece as two
  how death shows   a killed process: its kernel ends or resets the connection at once. A pulled cable or a frozen
                    process: not for hours; that is why the core counts beats
  what wakes you    readability (bytes, the end, a reset) and writability (a third of the buffer free)

Addresses: ``tcp:HOST:PORT``, ``tcp:[IPV6]:PORT``; the default port is 7711, and 0 takes any free one. Bare ``tcp``
means all interfaces when listening, and this machine when dialling. ``?tls=0`` switches TLS off, on loopback
addresses only: to look at the wire with tcpdump, and to measure.

Traps:
  EADDRINUSE        The port of a killed host stays taken for a minute (TIME_WAIT): set SO_REUSEADDR. On Linux two
                    listeners still cannot share a port.
  EMFILE            The peer stays in the backlog, so the listener stays readable: without a pause the loop would spin.
  ECONNRESET        Closing with unread bytes loses what was sent before: see SocketLink. For a peer that only sends,
                    TLS's session tickets are such unread bytes, so we issue none.
  a bare FIN        Anyone on the path can forge one. Only TLS's close_notify is an end; without it, the link broke.
  Nagle             Delays a small piece until the previous one is acknowledged: set TCP_NODELAY, we batch ourselves.
  self-connect      When we dial a free port of this machine, the kernel may pick that very port for our side, and we
                    talk to ourselves.
  one dead address  A name may have several addresses, and the first may swallow packets. After a quarter of a second we
                    try the next one as well, and the first to answer wins (happy eyeballs, RFC 8305).
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
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.transport import Address, AddressError, DialFailed, LinkClosed, ListenFailed, Peer, Text, WrongValue, reason
from chat.transport.link import SocketLink, Waiter
from chat.transport.patience import patience
from chat.transport.shares import Door
from chat.transport.source import Proxies, proxied, source_of
from chat.transport.tls import NotTls, TlsLink, begin_tls, client_context, proved_key, server_context, tls_reason
from chat.transport.typed import check_host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chat.transport import Site

PORT: Final = 7711
# seconds for a dial: names, all addresses, TLS; then nobody answers (exit code 4), members dial again
DIAL_TIMEOUT: Final = 10.0
STAGGER: Final = 0.25  # seconds before the next address is tried, too (RFC 8305, section 5)
HANDSHAKE_TIMEOUT: Final = 5.0  # seconds that a peer has for TLS, 1 s at a full door; then its connection ends
ANY: Final = "0.0.0.0"  # noqa: S104  the usual way to write "all interfaces"; name one to listen on fewer
BACKLOG: Final = 1024  # connections that the kernel queues: a whole room may reconnect at once
HANDSHAKES: Final = 256  # TLS handshakes at once; beyond, the oldest of the source that has most is dropped
READY: Final = 64  # connections that wait for the host, their TLS done; beyond, peers wait in the kernel's backlog

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
    """Split ``HOST:PORT``. Raises ValueError."""
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
    """Return every address of the place. Raises AddressError, and gaierror for an unknown name."""
    look_up = partial(socket.getaddrinfo, place.host or None, place.port, type=socket.SOCK_STREAM)
    try:
        try:
            found = look_up(flags=flags | socket.AI_NUMERICHOST)  # numeric: no look-up, so no thread
        except socket.gaierror:
            found = await asyncio.to_thread(look_up, flags=flags)
    except ValueError:  # a label that is empty or over 63 bytes: not a DNS name
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
    """All of them, since whoever answers for the name may list this machine and another one."""
    return all(ipaddress.ip_address(one.address[0].partition("%")[0]).is_loopback for one in resolved)


def _primary_address(families: Sequence[int]) -> str:
    """Return the address this machine would send from. Connecting a datagram socket sends nothing."""
    documentation = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # RFC 5737, RFC 3849
    for family in families:
        # It fails without a route: then this machine has no such network.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((documentation[socket.AddressFamily(family)], 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1" if socket.AF_INET in families else "::1"


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


def _reason(error: OSError, advice: Mapping[int | None, str] | None = None, host: str = "") -> str:
    """Say what happened, and what to do."""
    match error:
        case TimeoutError(errno=None):
            return Text("no answer within {seconds:g} s; is a firewall in the way?", seconds=DIAL_TIMEOUT)
        case NotTls():
            return Text("it does not speak TLS ({why}); is this the port?", why=reason(error))
        case ssl.SSLError():
            return Text("the TLS handshake failed: {why}", why=tls_reason(error))
        case socket.gaierror():
            return Text("{why}; check the name {host!r}", why=reason(error), host=host)
    if not error.errno:
        return reason(error)
    why = Text(os.strerror(error.errno).lower())  # without what libraries add
    return Text("{why}{advice}", why=why, advice=(advice or {}).get(error.errno, ""))


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
            error = errno.ECONNREFUSED  # nobody but ourselves answered
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(resolved: Sequence[_Resolved]) -> socket.socket:
    """Connect to whichever address answers first. If none does, raises the first one's OSError."""
    one_family = [one for one in resolved if one.family == resolved[0].family]
    the_other = [one for one in resolved if one.family != resolved[0].family]
    waiting = deque(one for pair in zip_longest(one_family, the_other) for one in pair if one is not None)
    started: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None:
            if waiting:
                started.append(asyncio.get_running_loop().create_task(_connect(waiting.popleft())))
            running = [task for task in started if not task.done()]
            if not running:
                return started[0].result()  # which raises
            patience = STAGGER if waiting else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in done if not task.exception()), None)
        return winner.result()
    finally:
        for task in started:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


# -- listening ------------------------------------------------------------------------------------


def _peer(theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> Peer:
    return Peer(f"tcp {_join(*theirs[:2])}", source=source_of(theirs, ours))


class TcpListener:
    """Listening sockets, one for each address of the place, and their handshakes in progress."""

    def __init__(
        self,
        address: Address,
        advertised: Address,
        sockets: list[socket.socket],
        context: ssl.SSLContext | None,
        proxies: Proxies,
    ) -> None:
        self.address = address
        self.advertised = advertised
        self._sockets = sockets
        self._context = context
        self._proxies = proxies
        self._ready: asyncio.Queue[SocketLink | None] = asyncio.Queue()  # None: closed
        self._coming: set[asyncio.Task[None]] = set()
        self._door: Door[asyncio.Task[None]] = Door(HANDSHAKES, asyncio.Task.cancel)
        self._places = asyncio.Semaphore(READY)  # for links in _ready
        self._closed = False
        loop = asyncio.get_running_loop()
        self._serving = [loop.create_task(self._serve(sock)) for sock in sockets]

    async def accept(self) -> SocketLink:
        link = None if self._closed else await self._ready.get()
        if link is None:
            self._ready.put_nowait(None)  # wake the next waiting accept
            raise LinkClosed("the listener on {address} was closed here", address=self.address)
        self._places.release()
        return link

    async def _serve(self, sock: socket.socket) -> None:
        readable = Waiter.for_reading(sock.fileno())
        while True:
            connection, name = await self._next(sock, readable)
            task = asyncio.get_running_loop().create_task(self._come(connection, name))
            self._coming.add(task)
            task.add_done_callback(partial(self._end, connection))

    async def _next(self, sock: socket.socket, readable: Waiter) -> tuple[socket.socket, tuple[Any, ...]]:
        while True:
            await readable.wait()
            try:
                connection, name = sock.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("%s accepts nobody for a second: %s", self.address, _reason(error))
                    await asyncio.sleep(1)
                continue  # otherwise the peer has left already
            try:
                _tune(connection)
                return connection, name
            except OSError:
                connection.close()

    async def _come(self, sock: socket.socket, theirs: tuple[Any, ...]) -> None:
        """Bring a connection from accept to ``_ready``. Whatever goes wrong costs only this one."""
        peer, seconds, tls = _peer(theirs, ours := sock.getsockname()), HANDSHAKE_TIMEOUT, None
        task = asyncio.current_task()
        assert task is not None
        try:
            if theirs[0] in self._proxies:
                with self._door.place(peer.source, task, HANDSHAKE_TIMEOUT) as seconds:
                    async with patience(seconds):
                        theirs, ours = await proxied(sock) or (theirs, ours)
                peer = _peer(theirs, ours)
            with self._door.place(peer.source, task, HANDSHAKE_TIMEOUT) as seconds:
                if self._context is not None:
                    async with patience(seconds):
                        tls = await begin_tls(sock, self._context, server_side=True)
                await self._places.acquire()
        except TimeoutError:
            self._warn(peer, "%s was refused: no TLS handshake within %g s", seconds)
        except NotTls as error:
            self._warn(peer, "%s was refused: %s, not TLS", error)
        except ConnectionError as error:
            log.info("%s left: %s", peer.text, _reason(error))
        except OSError as error:
            self._warn(peer, "%s was refused: %s", _reason(error))
        except asyncio.CancelledError:
            if not self._closed:
                self._warn(peer, "%s was dropped before it finished its handshake: too many come from there")
        else:
            self._ready.put_nowait(SocketLink(sock, peer) if tls is None else TlsLink(tls, peer))
            return
        (tls or sock).close()

    def _warn(self, peer: Peer, text: str, *more: object) -> None:
        log.warning(text, peer.text, *more, extra={"source": peer.source})  # the host logs one a minute and source

    def _end(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._coming.discard(task)
        if task.cancelled():  # before it began
            connection.close()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        tasks = [*self._serving, *self._coming]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait(tasks)  # each removes its registration; close the descriptors only after that
        finally:
            for sock in self._sockets:
                sock.close()
        while not self._ready.empty():  # connected but never accepted: they see the end
            if (link := self._ready.get_nowait()) is not None:
                await link.aclose()
        self._ready.put_nowait(None)


def _listen_on(resolved: Sequence[_Resolved], port: int) -> list[socket.socket]:
    """Listen on every address. For port 0 the first one picks a port, and the others use it. Raises OSError."""
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    with ExitStack() as undo:
        for family, (host, _, *rest) in resolved:
            try:
                # It sets SO_REUSEADDR, and IPV6_V6ONLY: otherwise the IPv6 socket would take the IPv4 port, too.
                sock = socket.create_server((host, port, *rest), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                failure = error  # no IPv6 on this machine, or a name that also lists other machines
                continue
            sockets.append(undo.enter_context(sock))
            sock.setblocking(False)
            port = sock.getsockname()[1]
        undo.pop_all()
    if not sockets and failure is not None:
        raise failure
    return sockets


def _listen(resolved: Sequence[_Resolved], port: int, previous: Address | None) -> list[socket.socket]:
    """Listen on every address; for port 0 on the same port as last time, so that invites stay valid."""
    if not port and previous is not None:
        with suppress(AddressError, OSError):  # somebody else has it now
            return _listen_on(resolved, _read(previous).port)
    return _listen_on(resolved, port)


def _where(place: _Place, sockets: Sequence[socket.socket], site: Site) -> tuple[str, str]:
    """Return where these sockets are for this machine, and for others. Raises AddressError."""
    bound = [ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]) for sock in sockets]
    host, port = place.host, sockets[0].getsockname()[1]
    elsewhere, its_port = host, port
    if bound[0].is_unspecified:
        host = "127.0.0.1" if bound[0].version == 4 else "::1"
        elsewhere = _primary_address([sock.family for sock in sockets])
    if site.advertise:  # also of a loopback address: a tunnel or a proxy may lead there
        try:
            elsewhere, its_port = _split(site.advertise, port)
            if not check_host(elsewhere) and not place.tls:
                raise WrongValue("others cannot join there without TLS; leave out ?tls=0")
        except ValueError as error:
            raise AddressError("cannot advertise {place!r}: {why}", place=site.advertise, why=error) from None
    return _join(host, port), _join(elsewhere, its_port)


class TcpTransport:
    scheme = "tcp"
    bare_addresses = True  # HOST:PORT in an invite means tcp:HOST:PORT
    summary = "between machines, under TLS 1.3; bare tcp listens on all interfaces, port 7711"

    async def listen(self, address: Address, site: Site) -> TcpListener:
        place = _read(address)
        here = replace(address, place=_join(place.host or ANY, place.port))
        try:
            proxies = Proxies(site.proxies)
        except ValueError as error:
            raise AddressError("cannot listen on {here}: {why}", here=here, why=error) from None
        try:
            context = server_context(site.certificate) if place.tls else None
            sockets = _listen(await _resolve(address, place, socket.AI_PASSIVE), place.port, site.previous)
        except OSError as error:
            why = _reason(error, _LISTEN_ADVICE, place.host)
            raise ListenFailed("cannot listen on {here}: {why}", here=here, why=why) from None
        try:
            here, elsewhere = (replace(address, place=at) for at in _where(place, sockets, site))
            return TcpListener(here, elsewhere, sockets, context, proxies)
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
            async with patience(DIAL_TIMEOUT):
                sock = await _race(await _resolve(address, place, 0))
                try:
                    text = f"tcp {_join(*sock.getpeername()[:2])}"
                    if not place.tls:
                        return SocketLink(sock, Peer(text))
                    sock = tls = await begin_tls(sock, client_context(), server_side=False)
                    return TlsLink(tls, Peer(text, key=proved_key(tls)))
                except BaseException:
                    sock.close()
                    raise
        except OSError as error:
            why = _reason(error, _DIAL_ADVICE, place.host)
            raise DialFailed("cannot reach {address}: {why}", address=address, why=why) from None


transport: Final = TcpTransport()


async def _demo() -> None:
    """Ann listens, Bob dials; Bob says a line, and Ann sends it back. Plain, so that tcpdump -i lo shows it."""
    from chat.transport import Site

    listener = await transport.listen(Address.parse("tcp:127.0.0.1:0?tls=0"), Site(Path(), Path()))
    bob = await transport.dial(listener.address)
    ann = await listener.accept()
    print(f"ann listens on {listener.address}; she sees {ann.peer.text}, bob sees {bob.peer.text}")
    print(f"bob sends a line, {bob.send(b'hello')} bytes taken")
    print(f"ann sends it back, {ann.send(await ann.receive())} bytes taken; bob reads {await bob.receive()!r}")
    taken = sum(iter(lambda: bob.send(bytes(65536)), 0))
    print(f"bob sends while ann does not read: after {taken} bytes the kernels hold no more")
    await bob.aclose()
    while piece := await ann.receive():
        taken -= len(piece)
    print(f"bob closes; ann reads it all ({taken} bytes are missing), then the end: {await ann.receive()!r}")
    await ann.aclose()
    await listener.aclose()


if __name__ == "__main__":
    asyncio.run(_demo())
