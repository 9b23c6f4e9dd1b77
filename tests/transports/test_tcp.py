"""transports.tcp, beyond the contract: addresses, TLS, strangers, and what the user reads when it fails."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import resource
import socket
import ssl
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from chat.core.errors import AddressError, DialFailed, LinkBroken, ListenFailed
from chat.transport import Address, Site
from chat.transport.link import SocketLink
from chat.transport.tls import TlsLink
from tests.harness import Tcp, certificate, host_certificate, host_key
from transports import tcp
from transports.tcp import TcpListener, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from pathlib import Path

    from chat.transport import Listener

PLAIN = Address.parse("tcp:127.0.0.1:0?tls=0")
TLS = Address.parse("tcp:127.0.0.1:0")


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "pem").write_bytes(host_certificate())
    return Site(tmp_path, tmp_path / "pem")


@asynccontextmanager
async def listening(address: Address, site: Site) -> AsyncIterator[Listener]:
    listener = await transport.listen(address, site)
    try:
        yield listener
    finally:
        await listener.aclose()


async def listen(text: str, site: Site) -> None:
    async with listening(Address.parse(text), site):
        pass


async def dial(text: str) -> None:
    await (await transport.dial(Address.parse(text))).aclose()


def port_of(listener: Listener) -> int:
    return tcp._read(listener.address).port


async def exchange(listener: Listener) -> None:
    """Dial, accept, send a line each way."""
    near, far = await asyncio.gather(transport.dial(listener.address), listener.accept())
    near.send(b"hello")
    assert await far.receive() == b"hello"
    far.send(b"good day")
    assert await near.receive() == b"good day"
    await near.aclose()
    await far.aclose()


def stranger(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(listener)), timeout=10)


async def said(caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    """Wait until the listener has said this."""
    while not any(re.fullmatch(pattern, record.getMessage()) for record in caplog.records):
        await turns(1)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tcp", ("", 7711, True)),
        ("tcp:chat.example", ("chat.example", 7711, True)),
        ("tcp:chat.example:80", ("chat.example", 80, True)),
        ("tcp::0", ("", 0, True)),
        ("tcp:127.0.0.1:65535?tls=0", ("127.0.0.1", 65535, False)),
        ("tcp:[::1]", ("::1", 7711, True)),
        ("tcp:[::1]:0?tls=1", ("::1", 0, True)),
        ("tcp:[fe80::1%eth0]:1", ("fe80::1%eth0", 1, True)),
    ],
)
def test_an_address_is_read(text: str, place: tuple[str, int, bool]) -> None:
    assert tcp._read(Address.parse(text)) == place


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tcp:7711", "a port alone is written tcp::7711"),
        ("tcp:localhost:http", "the port is a number from 0 to 65535, not 'http'"),
        ("tcp:localhost:65536", "the port is a number from 0 to 65535, not '65536'"),
        ("tcp:localhost:-1", "not '-1'"),
        ("tcp:localhost:", "not ''"),
        ("tcp:localhost:٣", "not '٣'"),
        ("tcp:::1", "an IPv6 address stands in brackets, like tcp:\\[::1\\]:7711"),
        ("tcp:[::1:7711", "the bracket is not closed"),
        ("tcp://localhost:7711", "'//localhost' cannot be a host's name"),
        ("tcp:ann@localhost", "'ann@localhost' cannot be a host's name"),
        ("tcp:localhost?tls=no", "tls is 0 or 1, not 'no'"),
        ("tcp:localhost?tsl=0", "tcp has no option 'tsl'; it knows tls"),
        ("tcp:a..b:1", "'a..b' cannot be a host's name"),
        (f"tcp:{'a' * 64}.example:1", "cannot be a host's name"),
        ("tcp:localhost:0", "port 0 is for listening; give the port that the host shows"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(AddressError, match=told) as raised:
        run(dial(text))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("text", ["tcp?tls=0", "tcp::0?tls=0", "tcp:0.0.0.0:0?tls=0", "tcp:[::]:0?tls=0"])
def test_nobody_listens_to_the_network_in_the_clear(text: str, site: Site) -> None:
    with pytest.raises(AddressError, match=r"would cross the network in the clear; \?tls=0 is for loopback addresses"):
        run(listen(text, site))


def test_nobody_dials_the_network_in_the_clear() -> None:
    for text in ("tcp:192.0.2.1:7711?tls=0", "tcp:[2001:db8::1]:7711?tls=0"):
        with pytest.raises(AddressError, match="would cross the network in the clear"):
            run(dial(text))


def test_one_address_elsewhere_is_enough_to_leave_this_machine() -> None:
    here = tcp._Resolved(socket.AF_INET, ("127.0.0.1", 1))
    here6 = tcp._Resolved(socket.AF_INET6, ("::1", 1, 0, 0))
    elsewhere = tcp._Resolved(socket.AF_INET, ("192.0.2.1", 1))
    mapped = tcp._Resolved(socket.AF_INET6, ("::ffff:192.0.2.1", 1, 0, 0))
    assert tcp._all_loopback([here, here6])
    for resolved in ([here, elsewhere], [elsewhere, here], [mapped]):
        assert not tcp._all_loopback(resolved)


@pytest.mark.usefixtures("leaves_nothing")
def test_all_interfaces_are_ipv4_and_ipv6_under_an_address_that_can_be_dialled(site: Site) -> None:
    async def main() -> None:
        async with listening(Address.parse("tcp::0"), site) as listener:
            host, port, _ = tcp._read(listener.address)
            assert not ipaddress.ip_address(host).is_unspecified
            assert port
            await exchange(listener)
            for here in ("127.0.0.1", "[::1]"):
                near = await transport.dial(Address("tcp", f"{here}:{port}"))
                far = await listener.accept()
                assert far.peer.text.startswith(f"tcp {here}:")
                await near.aclose()
                await far.aclose()

    run(main())


def test_a_name_listens_on_all_of_its_addresses(site: Site) -> None:
    names = {str(info[4][0]) for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}

    async def main() -> None:
        async with listening(Address.parse("tcp:localhost:0?tls=0"), site) as listener:
            assert listener.address == Address("tcp", f"localhost:{port_of(listener)}", {"tls": "0"})
            for name in names:
                socket.create_connection((name, port_of(listener)), timeout=10).close()

    run(main())


@pytest.mark.parametrize(
    ("bound", "advertise", "told"),
    [
        ("tcp::0", "chat.example", "chat.example:PORT"),
        ("tcp::0", "chat.example:443", "chat.example:443"),
        ("tcp:0.0.0.0:0", "[2001:db8::7]", "[2001:db8::7]:PORT"),
        ("tcp:127.0.0.1:0", "chat.example:443", "chat.example:443"),  # a proxy or a tunnel leads there
        ("tcp:127.0.0.1:0?tls=0", "localhost:9000", "localhost:9000"),  # the near end of a tunnel
        ("tcp::0", "bücher.example", "bücher.example:PORT"),
        ("tcp:[::1]:0", "", "[::1]:PORT"),
    ],
)
def test_what_an_invite_will_say(bound: str, advertise: str, told: str, site: Site) -> None:
    async def main() -> None:
        async with listening(Address.parse(bound), Site(site.folder, site.certificate, advertise)) as listener:
            assert isinstance(listener, TcpListener)
            port = listener._sockets[0].getsockname()[1]
            assert listener.advertised.place == told.replace("PORT", str(port))
            # On this machine nobody needs the name that others know.
            assert listener.address.place in {f"127.0.0.1:{port}", f"[::1]:{port}"}

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("bound", "advertise", "why"),
    [
        ("tcp::0", "https://chat.example", ".* is a number from 0 to 65535"),
        ("tcp::0", "chat..example", "'chat..example' cannot be the name or address of a host"),
        ("tcp::0", "-x.example", "'-x.example' cannot be"),
        ("tcp::0", "x" * 64, "'x+' cannot be"),
        ("tcp::0", ".".join(["x" * 50] * 6), "'[x.]+' cannot be"),
        ("tcp::0", "192.0.2.256", "'192.0.2.256' cannot be"),
        ("tcp::0", "192.0.2", "'192.0.2' cannot be"),
        ("tcp::0", "0.0.0.0:7711", "'0.0.0.0' cannot be"),
        ("tcp::0", "two names", "'two names' cannot be"),
        ("tcp:127.0.0.1:0?tls=0", "chat.example", "others cannot join there without TLS"),
    ],
)
def test_what_cannot_be_advertised(bound: str, advertise: str, why: str, site: Site) -> None:
    with pytest.raises(AddressError, match=f"^cannot advertise '{re.escape(advertise)}': {why}"):
        run(listen(bound, Site(site.folder, site.certificate, advertise)))


@pytest.mark.parametrize("again", ["tcp::PORT", "tcp:0.0.0.0:PORT"])
def test_a_port_that_is_taken(again: str, site: Site) -> None:
    async def main() -> None:
        async with listening(Address.parse("tcp:0.0.0.0:0"), site) as listener:
            port = str(port_of(listener))
            with pytest.raises(ListenFailed) as raised:
                await listen(again.replace("PORT", port), site)
            assert str(raised.value) == (
                f"cannot listen on tcp:0.0.0.0:{port}: address already in use; is another host running? try port 0"
            )
            assert raised.value.exit_code == 1

    run(main())


def test_an_address_of_another_machine(site: Site) -> None:
    with pytest.raises(ListenFailed, match=r"^cannot listen on tcp:203.0.113.1:0: .*; it is not an address of this"):
        run(listen("tcp:203.0.113.1:0", site))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_without_a_certificate_nobody_listens(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "pem").write_bytes(content)
    with pytest.raises(ListenFailed, match=r"^cannot listen on tcp:127.0.0.1:0: the certificate .*pem cannot be used"):
        run(listen("tcp:127.0.0.1:0", Site(tmp_path, tmp_path / "pem")))


# -- dialling -------------------------------------------------------------------------------------------------


def test_nobody_there(site: Site) -> None:
    async def main() -> None:
        async with listening(PLAIN, site) as listener:
            pass
        with pytest.raises(DialFailed) as raised:
            await transport.dial(listener.address)
        assert str(raised.value) == f"cannot reach {listener.address}: connection refused; is a host running there?"
        assert raised.value.exit_code == 4

    run(main())


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **_more: object) -> None:  # whatever this machine's own name server would say
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DialFailed, match=r"^cannot reach tcp:nobody.invalid:1: .*; check the name 'nobody.invalid'$"):
        run(dial("tcp:nobody.invalid:1"))


@contextmanager
def silence() -> Iterator[tuple[Any, ...]]:
    """The address of a listener whose backlog is full: the kernel drops what comes, as a firewall would."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server:
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(server.getsockname())
        yield server.getsockname()
        for sock in waiting:
            sock.close()


@pytest.mark.usefixtures("leaves_nothing")
def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "DIAL_TIMEOUT", 0.6)
    with (
        silence() as (host, port),
        pytest.raises(DialFailed, match=r"no answer within 0.6 s; is a firewall in"),
    ):
        run(dial(f"tcp:{host}:{port}"))


@pytest.mark.usefixtures("leaves_nothing")
def test_the_first_address_to_answer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STAGGER", 0.01)

    async def main() -> None:
        with silence() as silent, closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as server:
            answering = tcp._Resolved(socket.AF_INET6, server.getsockname())
            swallowing = tcp._Resolved(socket.AF_INET, silent)
            for addresses in ([swallowing, answering], [swallowing, swallowing, answering], [answering, swallowing]):
                with closing(await tcp._race(addresses)) as sock:
                    assert sock.getpeername() == server.getsockname()
        await turns(5)

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_who_answers_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STAGGER", 0)

    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            answering = tcp._Resolved(socket.AF_INET, server.getsockname())
            for _ in range(10):
                (await tcp._race([answering] * 4)).close()
                await turns(5)

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_when_no_address_answers_the_first_ones_reason_is_told() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        dead = tcp._Resolved(socket.AF_INET, server.getsockname())
    no_route = tcp._Resolved(socket.AF_INET, ("255.255.255.255", 1))

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await tcp._race([dead, no_route])
        with pytest.raises(OSError, match=r"(?i)unreachable|denied"):
            await tcp._race([no_route, dead])

    run(main())


def test_both_ends_send_at_once_and_keep_alive(site: Site) -> None:
    async def main() -> None:
        for address in (PLAIN, TLS):
            async with listening(address, site) as listener:
                ends = await asyncio.gather(transport.dial(listener.address), listener.accept())
                for end in ends:
                    assert isinstance(end, SocketLink)
                    sock = end._sock
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    await end.aclose()

    run(main())


# -- TLS ---------------------------------------------------------------------------------------------------------


def test_the_dialler_learns_the_key_that_the_wire_has_proved(site: Site) -> None:
    async def main() -> None:
        async with listening(TLS, site) as listener:
            near, far = await asyncio.gather(transport.dial(listener.address), listener.accept())
            assert isinstance(near, TlsLink)
            assert near._tls.version() == "TLSv1.3"
            far.send(b"x")
            assert await near.receive() == b"x"
            assert near._tls.session is not None
            assert not near._tls.session.has_ticket
            assert near.peer.key == host_key().public_key().public_bytes_raw()
            assert near.peer.text == f"tcp 127.0.0.1:{port_of(listener)}"
            assert far.peer.key is None
            assert re.fullmatch(r"tcp 127\.0\.0\.1:\d+", far.peer.text)
            await near.aclose()
            await far.aclose()
        async with listening(PLAIN, site) as listener:
            near, far = await asyncio.gather(transport.dial(listener.address), listener.accept())
            assert near.peer.key is None
            await near.aclose()
            await far.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_a_certificate_of_another_kind_is_refused(site: Site) -> None:
    site.certificate.write_bytes(certificate(generate_private_key(SECP256R1()), SHA256()))

    async def main() -> None:
        async with listening(TLS, site) as listener:
            with pytest.raises(DialFailed, match=r"its certificate holds no Ed25519 key, so it is no chat host$"):
                await transport.dial(listener.address)

    run(main())


def test_a_key_that_is_not_proved_is_worth_nothing(site: Site) -> None:
    """Somebody in the middle shows the host's certificate with a key of his own: the handshake must fail."""
    stolen = host_certificate().partition(b"-----BEGIN CERTIFICATE-----")
    own = certificate(Ed25519PrivateKey.generate()).partition(b"-----BEGIN CERTIFICATE-----")
    site.certificate.write_bytes(own[0] + stolen[1] + stolen[2])
    with pytest.raises(ListenFailed, match="key values mismatch"):
        run(listen("tcp:127.0.0.1:0", site))


def test_nothing_older_than_tls_1_3(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        async with listening(TLS, site) as listener:
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", port_of(listener), ssl=old)
            await said(caplog, r"tcp 127\.0\.0\.1:\d+ was refused: the TLS handshake failed: unsupported protocol")
            await exchange(listener)

    run(main())


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 smtp.example\r\n"]
)
@pytest.mark.parametrize("first", [True, False])
def test_dialling_what_speaks_no_tls(greeting: bytes, first: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not first:
            await reader.read(1)
        writer.write(greeting)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address("tcp", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(DialFailed) as raised:
            await transport.dial(address)
        quoted = repr(greeting[:24])[1:]
        told = f"it does not speak TLS (it began with {quoted}); is this the port?"
        assert str(raised.value) == f"cannot reach {address}: {told}"
        server.close()
        await server.wait_closed()

    run(main())


def test_dialling_a_plain_host_with_tls(site: Site) -> None:
    async def main() -> None:
        async with listening(PLAIN, site) as listener:
            dialling = asyncio.ensure_future(transport.dial(Address(listener.address.scheme, listener.address.place)))
            link = await listener.accept()
            link.send(b"chat/2 manywire\n")
            with pytest.raises(DialFailed, match=r"it does not speak TLS \(it speaks chat in the clear\); is this the"):
                await dialling
            await link.aclose()

    run(main())


# -- strangers at the door ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "it sent an HTTP request, not TLS"),
        (b"chat/2 manywire\n", "it speaks chat in the clear, not TLS"),
        (b"\x00\xff\x1b]0;title\x07", r"it began with '\\x00\\xff\\x1b\]0;title\\x07', not TLS"),
        (b"\x16\x03\x01\x00\x05hello", "the TLS handshake failed: .*"),
    ],
)
def test_a_stranger_is_turned_away_in_one_line(
    sent: bytes, told: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(TLS, site) as listener:
            with stranger(listener) as sock:
                sock.sendall(sent)
                await said(caplog, rf"tcp 127\.0\.0\.1:{sock.getsockname()[1]} was refused: {told}")
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
            assert caplog.records[0].name == "chat.tcp"
            await exchange(listener)

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_one_who_never_speaks_holds_nobody_up_and_is_sent_away(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_TIMEOUT", 1.0)

    async def main() -> None:
        async with listening(TLS, site) as listener:
            with stranger(listener) as sock:
                await exchange(listener)
                await said(caplog, r"tcp 127\.0\.0\.1:\d+ was refused: no TLS handshake within 1 s")
                assert sock.recv(1) == b""

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_at_a_full_door_the_oldest_gives_way(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKES", 4)

    async def main() -> None:
        async with listening(TLS, site) as listener:
            silent = [stranger(listener) for _ in range(4)]
            await exchange(listener)
            await said(
                caplog,
                rf"tcp 127\.0\.0\.1:{silent[0].getsockname()[1]} was dropped before .*: too many come from there",
            )
            assert silent[0].recv(1) == b""
            caplog.set_level(logging.INFO, "chat.tcp")
            for sock in silent:
                sock.close()
            for _ in silent[1:]:
                await said(caplog, r"tcp 127\.0\.0\.1:\d+ left: it closed the connection before TLS began")
            for _ in range(9):  # every place was given back
                await exchange(listener)

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("address", [TLS, PLAIN])
def test_behind_a_proxy_a_peer_is_who_the_proxy_says(
    site: Site, caplog: pytest.LogCaptureFixture, address: Address
) -> None:
    async def main() -> None:
        async with listening(address, replace(site, proxies="loopback")) as listener:
            with stranger(listener) as sock:
                sock.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 7711\r\n" + b"GET /")
                if address is TLS:
                    await said(caplog, r"tcp 203\.0\.113\.9:40000 was refused: it sent an HTTP request, not TLS")
                else:
                    link = await listener.accept()
                    assert (link.peer.text, link.peer.source) == ("tcp 203.0.113.9:40000", "203.0.113.9")
                    assert await link.receive() == b"GET /"
                    await link.aclose()
            with stranger(listener) as sock:
                sock.sendall(b"chat/2 manywire\n")
                await said(
                    caplog, r"tcp 127.* was refused: it began with 'chat/2 manywire\\n' instead of a PROXY header"
                )

    run(main())


def test_nobody_else_is_believed_to_be_a_proxy(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(TLS, replace(site, proxies="192.0.2.0/24")) as listener:
            await exchange(listener)
            with stranger(listener) as sock:
                sock.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 7711\r\n")
                await said(caplog, r"tcp 127\.0\.0\.1:\d+ was refused: it began with 'PROXY TCP4 203\.0.*', not TLS")

    run(main())
    with pytest.raises(AddressError, match=r"cannot listen on .* no list of addresses"):
        run(listen("tcp:127.0.0.1:0", replace(site, proxies="proxy.example")))


@pytest.mark.usefixtures("leaves_nothing")
def test_closing_the_listener_sends_away_those_in_the_door(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_TIMEOUT", 3600)

    async def main() -> None:
        for address in (TLS, PLAIN):
            for moment in range(8):
                async with listening(address, site) as listener:
                    with stranger(listener) as sock:
                        await turns(moment)
                        await listener.aclose()
                        with suppress(ConnectionResetError):  # while still in the kernel's backlog
                            assert await asyncio.to_thread(sock.recv, 1) == b""

    run(main())


def test_without_descriptors_the_door_opens_again_later(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with listening(PLAIN, site) as listener:
            with stranger(listener) as sock:
                resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, limits[1]))
                try:
                    await said(caplog, r"tcp:127\.0\.0\.1:.* accepts nobody for a second: too many open files")
                    await turns(50)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                link = await listener.accept()
                await link.aclose()
        assert len(caplog.records) == 1  # it did not spin

    run(main())


def test_a_host_that_was_killed_comes_back_on_its_port_at_once(tmp_path: Path) -> None:
    kit = Tcp(tmp_path)

    async def main() -> None:
        with kit.victim("listen", TLS, sends=False) as process:
            assert process.stdout is not None
            address = Address.parse(process.stdout.readline().strip())
            link = await transport.dial(address)
            process.kill()
            process.wait()
            with pytest.raises(LinkBroken):  # the kernel closed for it first, so its side waits in TIME_WAIT
                await link.receive()
            async with listening(address, kit.site) as listener:
                assert listener.address == address
                await exchange(listener)
            await link.aclose()

    run(main())
