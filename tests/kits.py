"""One kit for each transport that comes with manywire: what the contract needs to know of it."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chat import testing
from chat.transport import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

    from chat.transport import Link


class Memory(testing.Kit):
    door = "transports.memory:transport"
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
    door = "transports.tcp:transport"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site.certificate.write_bytes(host_certificate())

    def address(self) -> Address:
        return Address.parse("tcp:127.0.0.1:0")


class TcpPlain(testing.Kit):
    door = "transports.tcp:transport"

    def address(self) -> Address:
        return Address.parse("tcp:[::1]:0?tls=0")


KITS: tuple[type[testing.Kit], ...] = (Memory, Tcp, TcpPlain)


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
