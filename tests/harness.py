"""One kit for each transport that comes with manywire: what the contract needs to know of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import secrets
import socket
from contextlib import aclosing, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chat import testing
from chat.transport import Address, Peer
from transports.localqueue import QueueTransport
from transports.pipe import PipePair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

    from chat.transport import Link


class Memory(testing.Kit):
    entry_point = "transports.memory:transport"
    elsewhere = Address.parse("tcp:127.0.0.1:0?tls=0")

    def address(self) -> Address:
        return Address("memory")

    @asynccontextmanager
    async def doomed(self, *, dials: bool, sends: bool) -> AsyncIterator[tuple[Link, Callable[[], object]]]:
        """Both ends are this process, so the nearest thing to a death is a close at any moment."""
        async with self.pair() as (dialled, accepted):
            ours, theirs = (accepted, dialled) if dials else (dialled, accepted)
            sending = asyncio.ensure_future(testing.send_pattern(theirs)) if sends else None
            yield ours, lambda: asyncio.ensure_future(theirs.aclose())
            if sending is not None:
                sending.cancel()


class Tcp(testing.Kit):
    entry_point = "transports.tcp:transport"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site.certificate.write_bytes(host_certificate())

    def address(self) -> Address:
        return Address.parse("tcp:127.0.0.1:0")


class TcpPlain(testing.Kit):
    entry_point = "transports.tcp:transport"

    def address(self) -> Address:
        return Address.parse("tcp:[::1]:0?tls=0")


class Pipe(testing.Kit):
    """By name: through a door."""

    entry_point = "transports.pipe:transport"

    def address(self) -> Address:
        return Address("pipe", str(self.folder / secrets.token_hex(4)))


class PipeForked(testing.Kit):
    """By inheritance: a pair of pipes, made before the process that gets its other ends."""

    entry_point = "transports.pipe:transport"
    skips = dict.fromkeys(
        (*(f"T{n}" for n in range(1, 7)), "L12", "L13", *testing.ROOM_CLAUSES),
        "it begins with a listener, and here nobody listens: whoever starts the process has the link",
    )

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Link, Link]]:
        """Both ends in this process; so the child's are copies, for the parent lets go of the child's."""
        made = PipePair()
        copies = ",".join(str(os.dup(fd)) for fd in made.fds)
        child, parent = await self.transport.dial(Address("pipe", f"fd/{copies}")), made.in_parent(Peer("child"))
        try:
            yield child, parent
        finally:
            await child.aclose()
            await parent.aclose()

    @asynccontextmanager
    async def doomed(self, *, dials: bool, sends: bool) -> AsyncIterator[tuple[Link, Callable[[], object]]]:
        made = PipePair()
        with self.victim("dial", made.address, sends=sends, pass_fds=made.fds) as process:
            async with aclosing(made.in_parent(Peer("child"))) as link:
                yield link, process.kill


class Queue(testing.Kit):
    entry_point = "transports.localqueue:transport"

    def __init__(self, folder: Path) -> None:
        # Not the test's own folder: a socket's path fails at 104 bytes on macOS and 108 on Linux.
        super().__init__(Path(os.environ["XDG_RUNTIME_DIR"]))

    def address(self) -> Address:
        return Address("queue", str(self.folder / secrets.token_hex(4)))


class QueueStream(Queue):
    """As on systems that have no SOCK_SEQPACKET."""

    entry_point = "tests.harness:queue_of_streams"


queue_of_streams = QueueTransport(socket.SOCK_STREAM)

KITS: tuple[type[testing.Kit], ...] = (Memory, Pipe, PipeForked, Queue, QueueStream, Tcp, TcpPlain)


@cache
def host_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@cache
def host_certificate() -> bytes:
    return certificate(host_key())


def certificate(key: Ed25519PrivateKey | EllipticCurvePrivateKey, digest: SHA256 | None = None) -> bytes:
    """A key and its self-signed certificate, in PEM. Ed25519 hashes by itself, other kinds are given a digest."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test host")])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .sign(key, digest)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + signed.public_bytes(Encoding.PEM)
