"""Private keys, one for each nickname, and the bytes that a handshake signs.

    DATA/identity.pem           the key of the login name
    DATA/identities/NICK.pem    the key of another nickname

Rules:

1. A key is 32 raw Ed25519 bytes (RFC 8032). People compare fingerprints, and nothing shorter but the words of a host's
   key (``chat.local.words``).
2. A file that others could have read is refused, since they may have the key.
3. A signature covers who signs, for which host and room, and fresh random bytes of both sides. So it is
   useless anywhere else and at any other time.
4. No error, log line or ``repr`` contains a secret.
"""

from __future__ import annotations

import base64
import hashlib
import os
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from chat.core.errors import ChatError, RemoteProtocolError, reason
from chat.core.text import nickname
from chat.local.private_files import (
    create_private,
    locked,
    make_folders,
    make_private,
    read_private,
    replace_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SIZE: Final = 32  # bytes: a public key, the SHA-256 of one, and a nonce
_MAX_KEY_FILE: Final = 64 * 1024  # bytes of a key's file; a longer one is an error (exit code 1)

# -- keys ----------------------------------------------------------------------------------------


class Identity:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key: Final = private.public_key().public_bytes_raw()

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Return the key in ``path`` (PEM, PKCS #8, RFC 8410); make it first if the file is missing.

        Processes that do so at the same time get the same key. Raises ChatError for a file that others may
        read or own, or that holds no such key.
        """
        return cls(_private_key(path, _load_or_make(path, lambda: _pem(Ed25519PrivateKey.generate()))))

    @classmethod
    def new(cls) -> Identity:
        """Return a new key, which is in no file yet."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, 64 bytes."""
        return self._private.sign(data)


class Identities:
    """The keys in one data folder. The keys of programs and of the host lie elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._own: Final = folder / "identity.pem"
        self._others: Final = folder / "identities"

    def load(self, nick: str = "") -> Identity:
        """Return the key of a nickname, by default the login name's. Raises like ``Identity.load``; ValueError."""
        if not nick:
            return Identity.load(self._own)
        # Bob and bob look alike to a room, and are one file on a Mac: they have one key, too.
        path = self._others / f"{nickname(nick)}.pem"
        if (known := self._known(path)) is not None:  # without a lock: the disk may be read-only or full
            return Identity.load(known)
        try:
            with locked(make_private(self._others) / "lock"):
                return Identity.load(self._known(path) or path)
        except OSError as error:
            raise ChatError("cannot make the key file {path}: {why}", path=path, why=reason(error)) from None

    def replace(self, identity: Identity, nick: str = "") -> Path | None:
        """Make this the key of a nickname; return where the one that it had is now, None if it had no other.

        Raises ChatError, ValueError.
        """
        path = self._others / f"{nickname(nick)}.pem" if nick else self._own
        try:
            with locked(make_private(self._others) / "lock"):
                path = self._known(path) or path if nick else path
                if not os.path.lexists(path):
                    create_private(path, _pem(identity._private))
                with suppress(ChatError):  # a file that cannot be used is kept as well
                    if Identity.load(path).key == identity.key:
                        return None
                aside = next(new for n in count(1) if not os.path.lexists(new := Path(f"{path}.replaced-{n}")))
                os.link(path, aside, follow_symlinks=False)  # no rename: at any moment there is a key
                os.close(replace_private(path, _pem(identity._private)))
                return aside
        except OSError as error:
            raise ChatError("cannot make the key file {path}: {why}", path=path, why=reason(error)) from None

    def _known(self, path: Path) -> Path | None:
        return next((other for other in self._files() if _same(other.stem, path.stem)), None)

    def nicknames(self) -> list[str]:
        """Return the nicknames that have a key of their own."""
        return [path.stem for path in self._files()]

    def keys(self) -> frozenset[bytes]:
        """Return every public key. Leave out files that cannot be read: nobody can sign with them."""
        found = {self.load().key}
        for path in self._files():
            with suppress(ChatError):
                found.add(Identity.load(path).key)
        return frozenset(found)

    def _files(self) -> list[Path]:
        return sorted(self._others.glob("*.pem"))


def _same(nick: str, other: str) -> bool:
    """Say whether two names differ at most in case, or in how a file system writes accents."""
    return unicodedata.normalize("NFD", nick.casefold()) == unicodedata.normalize("NFD", other.casefold())


def load_host(path: Path) -> Identity:
    """Return the host's key in ``path``, like ``Identity.load``. A self-signed certificate follows it, for TLS.

    Clients compare the key in the certificate and nothing else; name and dates do not matter.
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
            create_private(path, make())
            return read_private(path, _MAX_KEY_FILE)  # ours, or that of another process which was first
    except OSError as error:
        raise ChatError("cannot make the key file {path}: {why}", path=path, why=reason(error)) from None


def verify(key: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether the owner of ``key`` signed ``data``. False if either is malformed.

    Anybody can sign for a few keys of small order. Who chooses one gives away only their own name.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def host_hash(key: bytes) -> bytes:
    """Return the SHA-256 of a host's public key, which stands for the host in invites and room records."""
    return hashlib.sha256(key).digest()


def to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fingerprint(key: bytes) -> str:
    """Return the whole hash of a key for people to compare: ``SHA256:`` and 43 characters."""
    return "SHA256:" + to_text(host_hash(key))


def hash_in(fingerprint: str) -> bytes:
    """Return the hash that a fingerprint writes out."""
    return base64.urlsafe_b64decode(fingerprint.removeprefix("SHA256:") + "=")


# -- what is signed ------------------------------------------------------------------------------

_CONTEXT: Final = b"manywire chat/2 handshake\0"
_ROLES: Final = {"member": b"\x01", "host": b"\x02", "invite": b"\x03"}


def transcript(role: str, *, host: bytes, room: str, host_nonce: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return what a "member" and its "invite" sign in HELLO, and a "host" in WELCOME.

        context 26 | role 1 | SHA-256 of host 32 | room: u16 length, UTF-8 | host_nonce 32 | nonce 32 | key 32

    ``host`` and ``key`` are public keys, each nonce is 32 random bytes. The role keeps one side's signature
    from passing as the other's. If the wire proves the host's key (TLS), that key must be ``host``, or a host
    could pass us on to another one. Raises RemoteProtocolError for a wrong size: only a peer's can be wrong.
    """
    parts = {"host key": host, "host nonce": host_nonce, "nonce": nonce, "member key": key}
    for what, value in parts.items():
        if len(value) != KEY_SIZE:
            raise RemoteProtocolError(f"the peer sent a {what} of {len(value)} bytes; it has {KEY_SIZE}")
    name = room.encode()
    if len(name) > 0xFFFF:
        raise RemoteProtocolError(f"the peer sent a room's name of {len(name)} bytes; it has at most 64")
    length = len(name).to_bytes(2)
    return b"".join((_CONTEXT, _ROLES[role], host_hash(host), length, name, host_nonce, nonce, key))
