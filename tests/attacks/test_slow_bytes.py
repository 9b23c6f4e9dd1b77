"""Peers that send their bytes one by one: the host reads them more slowly, and the others as before."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from chat.core.bodies import pack
from chat.core.wire import MAX_TEXT, PREFACE, Kind, encode
from chat.host import slots
from chat.transport import Address, Site
from chat.transport.tls import TlsLink
from tests.attacks.crowd import port_of
from tests.host.host_fixture import HostFixture, run, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.host.host_fixture import RawPeer

TLS = "tcp:127.0.0.1:0"
LONG = encode(Kind.SAY, bytes(MAX_TEXT), number=1)


@pytest.fixture
def receives(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that TLS links have received; a source may have 50 fruitless ones, and then one a minute."""
    monkeypatch.setattr(slots, "LOST_RECEIVES", 1 / 60)
    monkeypatch.setattr(slots, "LOST_BURST", 50)
    sizes: list[int] = []
    decrypt = TlsLink._decrypt

    def counted(self: Any, size: int) -> bytes:
        data = decrypt(self, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(TlsLink, "_decrypt", counted)
    return sizes


async def trickle(peer: RawPeer, data: bytes) -> None:
    """Each byte in a TLS record of its own."""
    for at in range(len(data)):
        await peer.send(data[at : at + 1])


def test_a_source_that_sends_single_bytes_is_left_unread(tmp_path: Path, receives: list[int]) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TLS) as fixture, fixture.members("ann", "bob") as (ann, bob):
            evil = [await fixture.raw(f"eve{number}") for number in range(4)]
            receives.clear()
            for peer in evil:
                await trickle(peer, LONG[:500])
            for number in range(60):  # more than a source may have of receives that complete nothing
                await ann.stored(await ann.say(str(number)))
                await bob.hear(str(number))
            await until(lambda: receives.count(1) >= 50, "as many were read as may be")
            assert receives.count(1) <= 50 + 2 * len(evil)  # of 2,000; those of one source share
            for peer in evil:
                await peer.leave()

    run(scene())


def test_so_is_one_that_has_not_said_hello(tmp_path: Path, receives: list[int]) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TLS) as fixture:
            far = await fixture.host.listen(Address("memory", "far"), Site(fixture.folder, fixture.key), "lobby")
            peers = [await fixture.dial() for _ in range(4)]
            hellos = [PREFACE + pack(Kind.HELLO, await peer.hello("eve", stream=1)) for peer in peers]
            receives.clear()
            for peer, hello in zip(peers, hellos, strict=True):
                await trickle(peer, hello)
            await until(lambda: receives.count(1) >= 50, "as many were read as may be")
            async with fixture.client("ann", addresses=(far,)) as ann:
                await ann.stored(await ann.say("hello"))
            assert receives.count(1) <= 50 + 2 * len(peers)
            for peer in peers:
                await peer.leave()

    run(scene())


def test_parts_of_a_record_are_looked_for_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come before a record is whole reach no reader, so they must not wake one each time either."""
    tries: list[str] = []
    for name in ("do_handshake", "recv"):
        monkeypatch.setattr(ssl.SSLSocket, name, noted(getattr(ssl.SSLSocket, name), tries))

    async def scene() -> None:
        async with HostFixture(tmp_path, TLS) as fixture, fixture.client("ann") as ann:
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", port_of(fixture.address))) as sock:
                sock.setblocking(False)
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                tls = context.wrap_bio(incoming, outgoing)
                tries.clear()
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                await send_bytes(sock, outgoing.read())
                incoming.write(await loop.sock_recv(sock, 65536))
                tls.do_handshake()
                await send_bytes(sock, outgoing.read())
                await until(lambda: len(fixture.host._admission._door) == 1, "it is through the handshake")
                tls.write(PREFACE + bytes(1000))
                await send_bytes(sock, outgoing.read())
                await ann.stored(await ann.say("hello"))
            assert 0 < tries.count("do_handshake") < 50
            assert 0 < tries.count("recv") < 50

    run(scene())


def noted(method: Callable[..., Any], tries: list[str]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        tries.append(method.__name__)
        return method(*given)

    return call


async def send_bytes(sock: socket.socket, data: bytes) -> None:
    """Each byte in a segment of its own, so long as the host reads them one by one."""
    for at in range(len(data)):
        await asyncio.get_running_loop().sock_sendall(sock, data[at : at + 1])
        for _ in range(4):
            await asyncio.sleep(0)
