"""Who is who: keys, the words that are signed in a handshake, invites, and the hosts that we have met.

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
import hmac
import os
import re
import secrets
import struct
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chat.card import locked, make_folders, read_private, replace_private
from chat.errors import AddressError, ChatError, Refused, RemoteProtocolError, Words, reason
from chat.text import room_name
from chat.transport import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY_SIZE: Final = 32  # bytes: a public key, and the SHA-256 of one
NONCE_SIZE: Final = 32
SECRET_SIZE: Final = 16
_MAX_KEY_FILE: Final = 64 * 1024
_MAX_KNOWN_HOSTS: Final = 16 * 1024 * 1024

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


def fingerprint(key: bytes) -> str:
    """Return what people compare: ``SHA256:`` and 43 characters, the whole hash of the key."""
    return "SHA256:" + _to_text(host_hash(key))


def short(key: bytes) -> str:
    """Return 8 hex digits to tell the keys on one screen apart.

    Not for comparing: a key with the same 32 bits is found in minutes. That is what ``fingerprint`` is for.
    """
    return host_hash(key).hex()[:8]


# -- what is signed ------------------------------------------------------------------------------

_CONTEXT: Final = b"manywire chat/1 handshake\0"
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


# -- invites -------------------------------------------------------------------------------------

_INVITE_START: Final = "chat://"
_LOOKS_LIKE: Final = Words("an invite is one line like chat://HOST:PORT/ROOM#...")
_COPY_AGAIN: Final = Words("copy the whole line again")
# What a tcp address is written as. Anything else has its scheme before it and no bare ":DIGITS" behind.
_TCP_PLACE: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]+)?")


@dataclass(frozen=True)
class Invite:
    """What lets its reader into a room: where it is, by which key its host is known, and a secret.

        chat://192.0.2.1:7711,[2001:db8::1]:7711,pipe:%2Ftmp%2Fa/lobby#HASH.SECRET

    HASH and SECRET are base64url without padding (RFC 4648, section 5), 43 and 22 characters. Who holds
    the text may enter: treat it like a password.
    """

    addresses: tuple[Address, ...]
    room: str
    host: bytes  # SHA-256 of the host's public key
    secret: bytes = field(repr=False)  # 16 random bytes

    def __post_init__(self) -> None:
        if not self.addresses or len(self.host) != KEY_SIZE or len(self.secret) != SECRET_SIZE:
            raise ValueError("an invite has an address, a hash of 32 bytes and a secret of 16")

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Raises AddressError, whose text never repeats what may be the secret."""
        text = text.strip()
        if text[: len(_INVITE_START)].lower() != _INVITE_START:
            raise AddressError("this is not an invite; {advice}", advice=_LOOKS_LIKE)
        if any(map(str.isspace, text)):
            raise AddressError("there is a space or a line break in the invite; {advice}", advice=_LOOKS_LIKE)
        place, hash_sign, key = text[len(_INVITE_START) :].partition("#")
        if not hash_sign:
            raise AddressError("the invite has no # and nothing after it; {advice}", advice=_COPY_AGAIN)
        host, _, secret = key.partition(".")
        addresses, _, room = place.partition("/")
        if not addresses:
            raise AddressError("the invite names no address; {advice}", advice=_LOOKS_LIKE)
        if not room:
            raise AddressError("the invite names no room; {advice}", advice=_LOOKS_LIKE)
        return cls(
            addresses=tuple(_read_address(part, n) for n, part in enumerate(addresses.split(","), 1)),
            room=_read_room(room),
            host=_from_text(host, KEY_SIZE, Words("hash of the host's key")),
            secret=_from_text(secret, SECRET_SIZE, Words("secret")),
        )

    def __str__(self) -> str:
        """Return the invite with its secret, as ``parse`` takes it."""
        place = ",".join(map(_write_address, self.addresses)) + "/" + _write_room(self.room)
        return f"{_INVITE_START}{place}#{_to_text(self.host)}.{_to_text(self.secret)}"

    @property
    def id(self) -> bytes:
        """By what the host knows it: 8 bytes, which do not tell the secret."""
        return hashlib.sha256(self.secret).digest()[:8]

    def mac(self, data: bytes) -> bytes:
        """Return the HMAC-SHA256 of a transcript under the secret; compare with ``hmac.compare_digest``."""
        return hmac.digest(self.secret, data, "sha256")


def _write_address(address: Address) -> str:
    if _TCP_PLACE.fullmatch(address.place) and _read_address(address.place, 0) == address:
        return address.place
    rest = quote(str(address).removeprefix(address.scheme).removeprefix(":"), safe="")
    if rest.isdigit():  # queue:7711 would read as port 7711 of a machine called queue
        rest = f"%{ord(rest[0]):02X}{rest[1:]}"
    return f"{address.scheme}:{rest}"


def _read_address(text: str, position: int) -> Address:
    if _TCP_PLACE.fullmatch(text):
        return Address("tcp", text)
    scheme, colon, rest = text.partition(":")
    try:
        if colon:
            return Address.parse(f"{scheme}:{unquote(rest, errors='strict')}")
    except (AddressError, UnicodeDecodeError):
        pass
    raise AddressError(
        "address {position} in the invite cannot be read; {advice}, or ask for a new one",
        position=position,
        advice=_COPY_AGAIN,
    )


def _write_room(room: str) -> str:
    return "".join(c if c in "-_." or unicodedata.category(c)[0] in "LMN" else quote(c, safe="") for c in room)


def _read_room(text: str) -> str:
    try:
        return room_name(unquote(text, errors="strict"))
    except UnicodeDecodeError:
        raise AddressError("the room in the invite cannot be read; {advice}", advice=_COPY_AGAIN) from None
    except ValueError as error:
        raise AddressError("the room in the invite cannot be: {why}", why=error) from None


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_text(text: str, size: int, what: Words) -> bytes:
    """Read base64url of exactly ``size`` bytes, written in the only right way."""
    length = (size * 8 + 5) // 6
    if len(text) != length:
        raise AddressError(
            "the invite's {what} has {count} characters in place of {length}; {advice}",
            what=what,
            count=len(text),
            length=length,
            advice=_COPY_AGAIN,
        )
    with suppress(ValueError):
        data = base64.urlsafe_b64decode(text + "=" * (-length % 4))
        if _to_text(data) == text:
            return data
    raise AddressError("the invite's {what} has a wrong character in it; {advice}", what=what, advice=_COPY_AGAIN)


# -- hosts that we have met ----------------------------------------------------------------------


class KnownHosts:
    """Which key a host had the last time: trust on first use, one ``ADDRESS FINGERPRINT`` a line.

    A text file, since people have to change it. Lines that begin with # are theirs.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def check(self, address: Address, key: bytes, *, learn: bool = True) -> bool:
        """Whether the host at ``address`` is known by ``key``. False for a new one, which is now remembered.

        Without ``learn`` it is not: a key that was only shown, and not yet proved, must not be kept.

        Raises Refused when it had another key, and when the file has a line that cannot be read: to go on
        as if that line were not there would be to trust anybody. ChatError when the file cannot be used.
        """
        name, shown = _known_name(address), fingerprint(key)
        with self._lines() as lines:
            for number, line in enumerate(lines, 1):
                if line == f"{name} {shown}":
                    return True
                if line.startswith(f"{name} "):
                    raise Refused(
                        "host-key-changed",
                        "the key of the host at {address} has changed! it was {before} and is {shown}: somebody "
                        "may be between you and the host. if its owner confirms the new key, remove line {number} "
                        "of {path} and join again",
                        address=address,
                        before=line.split()[1],
                        shown=shown,
                        number=number,
                        path=self._path,
                    )
            if learn:
                self._write([*lines, f"{name} {shown}"])
        return False

    def remember(self, address: Address, key: bytes) -> bool:
        """Note a key known in a better way than by meeting it: an invite named it, and the host proved it.

        Returns whether it took the place of another key, which people should be told. Raises like ``check``.
        """
        name, shown = _known_name(address), fingerprint(key)
        with self._lines() as lines:
            if f"{name} {shown}" in lines:
                return False
            others = [line for line in lines if not line.startswith(f"{name} ")]
            self._write([*others, f"{name} {shown}"])
            return len(others) < len(lines)

    @contextmanager
    def _lines(self) -> Iterator[list[str]]:
        """The file's lines, under a lock: no other process changes them meanwhile."""
        try:
            make_folders(self._path.parent.absolute())
            with locked(self._path.with_name(self._path.name + ".lock")):
                yield self._read()
        except OSError as error:
            raise ChatError("cannot use {path}: {why}", path=self._path, why=reason(error)) from None

    def _read(self) -> list[str]:
        try:
            data = read_private(self._path, _MAX_KNOWN_HOSTS)
        except FileNotFoundError:
            return []
        lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
        for number, line in enumerate(lines, 1):
            if "\ufffd" in line or not _KNOWN_LINE.fullmatch(line):
                raise Refused(
                    "known-hosts-damaged",
                    "line {number} of {path} cannot be read, so no host can be checked; mend it (ADDRESS "
                    "SHA256:...), or remove it to meet that host anew",
                    number=number,
                    path=self._path,
                )
        return lines

    def _write(self, lines: list[str]) -> None:
        os.close(replace_private(self._path, "".join(f"{line}\n" for line in lines).encode()))


_KNOWN_LINE: Final = re.compile(r"(?:#.*)?|\S+ SHA256:[0-9A-Za-z_-]{43}")


def _known_name(address: Address) -> str:
    """An address as one word: in a line of the file, a space ends it."""
    return quote(str(address), safe="/:?&=[]%,@+")
