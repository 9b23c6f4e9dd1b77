"""chat.transport.tls, beyond the contract: what ends a link, what is no TLS, and a certificate that is none."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import LinkBroken, LinkBusy
from chat.transport import Peer
from chat.transport.tls import NotTls, TlsLink, begin_tls, server_context
from tests.harness import host_certificate
from tests.transport.test_link import BOB, reset, run, sockets, turns

if TYPE_CHECKING:
    from pathlib import Path


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's and the server's, straight from the ssl module."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.num_tickets = 0
    (folder / "pem").write_bytes(host_certificate())
    server.load_cert_chain(folder / "pem")
    return client, server


async def tls_pair(folder: Path) -> tuple[TlsLink, TlsLink]:
    near, far = sockets()
    client, server = contexts(folder)
    dialled, accepted = await asyncio.gather(
        begin_tls(near, client, server_side=False), begin_tls(far, server, server_side=True)
    )
    return TlsLink(dialled, Peer("host")), TlsLink(accepted, BOB)


@pytest.mark.usefixtures("leaves_nothing")
def test_tls_ends_with_a_goodbye(tmp_path: Path) -> None:
    async def main() -> None:
        near, far = await tls_pair(tmp_path)
        near.send(b"hello")
        await near.aclose()
        assert await far.receive() == b"hello"
        assert await far.receive() == b""
        await far.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_a_bare_end_under_tls_is_a_break(tmp_path: Path) -> None:
    """Anyone on the way can forge a FIN; nobody can forge close_notify (RFC 8446, section 6.1)."""

    async def main() -> None:
        near, far = await tls_pair(tmp_path)
        near.send(b"hello")
        near._sock.shutdown(socket.SHUT_WR)
        assert await far.receive() == b"hello"
        for _ in range(2):
            with pytest.raises(LinkBroken, match=r"^the link to bob broke: it ended without TLS's goodbye"):
                await far.receive()
        await far.aclose()
        await near.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_bytes_that_are_not_tls_in_the_middle_of_it_break_the_link(tmp_path: Path) -> None:
    async def main() -> None:
        near, far = await tls_pair(tmp_path)
        socket.socket.send(near._sock, b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that does not decrypt
        with pytest.raises(LinkBroken, match=r"^the link to bob broke: TLS failed: "):
            await far.receive()
        await far.aclose()
        await near.aclose()

    run(main())


def test_tls_tells_the_caller_who_sends_while_a_piece_waits(tmp_path: Path) -> None:
    async def main() -> None:
        near, far = await tls_pair(tmp_path)
        while near.send(bytes(65_536)):
            pass
        assert near._piece
        waiting = asyncio.ensure_future(near.writable())
        await turns()
        with pytest.raises(LinkBusy):
            await near.writable()
        reset(far._sock)  # the piece can go nowhere now
        with pytest.raises(LinkBroken):  # noqa: PT012
            await waiting
            while True:
                near.send(b"x")
                await near.writable()
        await near.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it sent an HTTP request"),
        (b"chat/2 manywire\n", "it speaks chat in the clear"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", r"it began with 'SSH-2.0-OpenSSH_9.9\\r\\n'"),
        (b"\x1b[2J\x07\x9b", r"it began with '\\x1b\[2J\\x07\\x9b'"),
    ],
)
@pytest.mark.parametrize("server_side", [True, False])
def test_what_is_not_tls_is_told_by_its_first_bytes(said: bytes, told: str, server_side: bool, tmp_path: Path) -> None:
    async def main() -> None:
        near, far = sockets()
        client, server = contexts(tmp_path)
        shaking = asyncio.ensure_future(begin_tls(near, server if server_side else client, server_side=server_side))
        await turns()
        far.send(said)
        with pytest.raises(NotTls, match=f"^{told}$"):
            await shaking
        far.close()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_one_who_leaves_before_tls_is_no_stranger(tmp_path: Path) -> None:
    async def main() -> None:
        near, far = sockets()
        far.close()
        with pytest.raises(ConnectionError, match="it closed the connection before TLS began"):
            await begin_tls(near, contexts(tmp_path)[1], server_side=True)

    run(main())


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(b"junk\n")
    with pytest.raises(
        OSError, match=r"^the certificate .*/pem cannot be used: (?!the TLS handshake).*; it is a PEM file"
    ):
        server_context(tmp_path / "pem")
    with pytest.raises(
        OSError, match=r"^the certificate .*/none cannot be used: no such file or directory; it is a PEM"
    ):
        server_context(tmp_path / "none")
