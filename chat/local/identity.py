"""Keys, and the bytes that are signed in a handshake.

Rules:

1. A key is 32 raw Ed25519 bytes (RFC 8032). People compare fingerprints, never anything shorter.
2. A private key is made once, at its first use, in a file that only its user may read; a file that
   others could have read is refused, since the key in it may be somebody else's as well.
3. A signature covers everything that gives it its meaning: whose it is, for which host and room, and both
   sides' fresh random bytes. So it is of no use in another place, or a second time.
4. A secret never stands in an error, in a log or in a ``repr``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chat.core.errors import ChatError, RemoteProtocolError, reason
from chat.local.private_files import make_folders, read_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY_SIZE: Final = 32  # bytes: a public key, and the SHA-256 of one
NONCE_SIZE: Final = 32
_MAX_KEY_FILE: Final = 64 * 1024

# -- keys ----------------------------------------------------------------------------------------


class Identity:
    """A private key, and what can be done with it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key: Final = private.public_key().public_bytes_raw()

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Return the key in ``path`` (PEM, PKCS #8, RFC 8410), made now if there is no such file.

        Processes that come at the same time get the same key. Raises ChatError for a file that others may
        read or own, or that holds no such key.
        """
        return cls(_private_key(path, _load_or_make(path, _new_key)))

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, 64 bytes."""
        return self._private.sign(data)


def load_host(path: Path) -> Identity:
    """Return the host's key in ``path``, made now if there is no such file, like ``Identity.load``.

    A self-signed certificate follows the key in the file, so that ``ssl.SSLContext.load_cert_chain(path)``
    takes it. A client compares the key in it and nothing else; its name and dates say nothing.
    """
    from cryptography import x509  # only hosts have a certificate, and it takes 20 ms

    pem = _load_or_make(path, _new_host)
    private = _private_key(path, pem)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        fits = certificate.public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        fits = False
    if not fits:
        raise ChatError("{path} holds no certificate that fits its key; restore it from a backup", path=path)
    return Identity(private)


def _new_key() -> bytes:
    return _pem(Ed25519PrivateKey.generate())


def _new_host() -> bytes:
    from cryptography import x509

    private = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "manywire host")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # From before any wrong clock until "no well-defined expiration date" (RFC 5280, 4.1.2.5).
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .sign(private, algorithm=None)
    )
    return _pem(private) + certificate.public_bytes(Encoding.PEM)


def _pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private_key(path: Path, pem: bytes) -> Ed25519PrivateKey:
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ChatError(
            "{path} holds no Ed25519 key that can be read; restore it from a backup, or move it away "
            "to begin with a new key, as somebody whom nobody knows",
            path=path,
        )
    return private


def _load_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    try:
        try:
            return read_private(path, _MAX_KEY_FILE)
        except FileNotFoundError:
            make_folders(path.parent.absolute())
            _write_once(path, make())
            return read_private(path, _MAX_KEY_FILE)  # ours, or that of another process which was first
    except OSError as error:
        raise ChatError("cannot make the key file {path}: {why}", path=path, why=reason(error)) from None


def _write_once(path: Path, data: bytes) -> None:
    """Make ``path`` whole and 0600 from the first instant; leave alone one that is there already.

    A link, unlike a rename, never replaces: of two processes the second finds the first one's key.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()
    # A key that a power cut takes back is worse than a slow first start: others know us by it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def verify(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the owner of ``key`` signed ``data``. False for anything that is no key or no signature.

    There are a few keys, of small order, for which anybody can sign. Nobody gets one but on purpose, and
    then it is their own name that they give away.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def host_hash(key: bytes) -> bytes:
    """Return what invites and cards call a host by: the SHA-256 of its public key, 32 bytes."""
    return hashlib.sha256(key).digest()


def to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fingerprint(key: bytes) -> str:
    """Return what people compare: ``SHA256:`` and 43 characters, the whole hash of the key."""
    return "SHA256:" + to_text(host_hash(key))


def short(key: bytes) -> str:
    """Return 8 hex digits to tell the keys on one screen apart.

    Not for comparing: a key with the same 32 bits is found in minutes. That is what ``fingerprint`` is for.
    """
    return host_hash(key).hex()[:8]


# -- what is signed ------------------------------------------------------------------------------

_CONTEXT: Final = b"manywire chat/2 handshake\0"
_ROLES: Final = {"member": b"\x01", "host": b"\x02"}
_ROOM_LENGTH: Final = struct.Struct("!H")


def transcript(role: str, *, host: bytes, room: str, host_nonce: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return what a "member" signs in HELLO, with the invite's MAC over it, and what a "host" signs in WELCOME.

        context 26 | role 1 | SHA-256 of host 32 | room: u16 length, UTF-8 | host_nonce 32 | nonce 32 | key 32

    ``host`` and ``key`` are the public keys of the host and the member; either side's nonce is 32 random
    bytes. The role is in it so that neither side's signature can be sent back as the other's. On a wire
    that proves the host's key (TLS) that key must be ``host``, or a host could pass us on to another one.

    Raises RemoteProtocolError when something has not the size that it must have: our own always has.
    """
    sizes = ("host key", host, KEY_SIZE), ("host nonce", host_nonce, NONCE_SIZE), ("nonce", nonce, NONCE_SIZE)
    for what, value, size in (*sizes, ("member key", key, KEY_SIZE)):
        if len(value) != size:
            raise RemoteProtocolError(f"the peer sent a {what} of {len(value)} bytes; it has {size}")
    name = room.encode()
    if len(name) > 0xFFFF:
        raise RemoteProtocolError(f"the peer sent a room's name of {len(name)} bytes; it has at most 64")
    length = _ROOM_LENGTH.pack(len(name))
    return b"".join((_CONTEXT, _ROLES[role], host_hash(host), length, name, host_nonce, nonce, key))
