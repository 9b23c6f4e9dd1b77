"""Invites: a line of text that lets its reader into a room."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chat.core.errors import AddressError, Text
from chat.core.text import nickname, room_name
from chat.local.identity import KEY_SIZE, Identity, to_text
from chat.transport import Address
from chat.transport.registry import bare_scheme, is_local
from chat.transport.typed import typed, without_end

SECRET_SIZE: Final = 16  # bytes
_KEY_LENGTH: Final = 43 + 1 + 22  # characters of HASH.SECRET
_SEED: Final = b"manywire invite\0"
_INVITE_START: Final = re.compile(r"(?<![\w./])" + r"[\s>]*".join("chat:/") + r"[\s>]*/?", re.IGNORECASE)
_LOOKS_LIKE: Final = Text("an invite is one line like chat://HOST:PORT/ROOM#...")
_COPY_AGAIN: Final = Text("copy the whole line again")
# A bare address. Any other has its scheme before it and no bare ":DIGITS" behind.
_BARE: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]+)?")
_MACHINE, _NETWORK, _EVERYWHERE = range(3)  # how far an address reaches
_PRIVATE: Final = tuple(  # RFC 1918, 6598 (shared by a provider's customers), 3927, 4193 and 4291: routed nowhere else
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
    )
)


@dataclass(frozen=True)
class Invite:
    """The addresses of a room, its name, the hash of its host's key, and a secret.

        chat://192.0.2.1:7711,[2001:db8::1]:7711,pipe:%2Ftmp%2Fa/lobby#HASH.SECRET

    An invite for somebody suggests a nickname: /lobby?as=ann#… Other words behind the question mark are ignored.
    HASH and SECRET are base64url without padding (RFC 4648, section 5), 43 and 22 characters. Anybody with
    this text may enter: treat it like a password.
    """

    addresses: tuple[Address, ...]
    room: str
    host: bytes  # SHA-256 of the host's public key
    secret: bytes = field(repr=False)  # 16 random bytes
    nick: str = ""  # that it suggests

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read an invite, also one that was quoted or broken into lines on its way.

        Raises AddressError, whose text never quotes what may be the secret.
        """
        found = _joined(text)
        if found is None:
            raise AddressError("this is not an invite; {advice}", advice=_LOOKS_LIKE)
        place, hash_sign, key = found.partition("#")
        if not hash_sign:
            raise AddressError("the invite has no # and nothing after it; {advice}", advice=_COPY_AGAIN)
        host, _, secret = key.partition(".")
        addresses, _, room = place.partition("/")
        room, _, suggested = room.partition("?")
        if not addresses:
            raise AddressError("the invite names no address; {advice}", advice=_LOOKS_LIKE)
        if not room:
            raise AddressError("the invite names no room; {advice}", advice=_LOOKS_LIKE)
        return cls(
            addresses=tuple(_read_address(part, n) for n, part in enumerate(addresses.split(","), 1)),
            room=_read_room(room),
            host=_from_text(host, KEY_SIZE, Text("hash of the host's key")),
            secret=_from_text(secret, SECRET_SIZE, Text("secret")),
            nick=_read_nick(suggested),
        )

    def __str__(self) -> str:
        """Return the text that ``parse`` reads. It contains the secret."""
        place = ",".join(map(_write_address, self.addresses)) + "/" + _write_room(self.room)
        place += f"?as={_write_room(self.nick)}" if self.nick else ""
        return f"chat://{place}#{to_text(self.host)}.{to_text(self.secret)}"

    @property
    def signer(self) -> Identity:
        return signer(self.secret)

    @property
    def leaves_machine(self) -> bool:
        """Whether one of its addresses leads out of this machine, as far as they tell."""
        return max(map(_reach, self.addresses)) > _MACHINE

    @property
    def limit(self) -> Text | None:
        """A line about how far it goes, if none of its addresses leads out of this machine or this network."""
        if not self.leaves_machine:
            return Text(
                "this invite works on this machine only; for people elsewhere, leave and open the room with: "
                "chat host {room} -t {scheme}",
                room=self.room,
                scheme=bare_scheme(),
            )
        if max(map(_reach, self.addresses)) == _NETWORK:
            return Text(
                "this invite works in this network only; for people elsewhere, host the room with --advertise HOST"
            )
        return None


def is_invite(text: str) -> bool:
    """Whether this holds an invite, or was meant to."""
    return _joined(text) is not None


def is_cut(text: str) -> bool:
    """Whether the rest of an invite is still to come."""
    _place, _hash_sign, key = (_joined(text) or "").partition("#")
    return len(key) < _KEY_LENGTH


def _joined(text: str) -> str | None:
    """Return what follows an invite's ``chat://``, on one line; None if there is no invite.

    It cannot hold a blank, and neither quotes nor the marks with which mail programs begin the lines of a quote.
    """
    text = typed(text)
    start = _INVITE_START.search(text)
    return without_end("".join(map(typed, text[start.end() :].split()))) if start else None


def signer(secret: bytes) -> Identity:
    """Return the key pair that is made of an invite's secret, of which the public half reveals nothing."""
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_SEED + secret).digest()))


def _write_address(address: Address) -> str:
    if _BARE.fullmatch(address.place) and address == Address(bare_scheme(), address.place):
        return address.place
    rest = quote(str(address).removeprefix(address.scheme).removeprefix(":"), safe="")
    if rest.isdigit():  # queue:7711 would read as port 7711 of a machine called queue
        rest = f"%{ord(rest[0]):02X}{rest[1:]}"
    return f"{address.scheme}:{rest}"


def _read_address(text: str, position: int) -> Address:
    if _BARE.fullmatch(text) and (bare := bare_scheme()):
        return Address(bare, text)
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


def _reach(address: Address) -> int:
    """Return how far an address reaches, as far as it tells."""
    if address.scheme != bare_scheme():
        return _MACHINE if is_local(address.scheme) else _EVERYWHERE
    host = re.sub(r":[0-9]+\Z", "", address.place).strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return _MACHINE if host.casefold() == "localhost" else _EVERYWHERE
    return _MACHINE if ip.is_loopback else _NETWORK if any(ip in network for network in _PRIVATE) else _EVERYWHERE


def _write_room(room: str) -> str:
    return "".join(c if c in "-_." or unicodedata.category(c)[0] in "LMN" else quote(c, safe="") for c in room)


def _read_room(text: str) -> str:
    try:
        return room_name(unquote(text, errors="strict"))
    except UnicodeDecodeError:
        raise AddressError("the room in the invite cannot be read; {advice}", advice=_COPY_AGAIN) from None
    except ValueError as error:
        raise AddressError("the room in the invite cannot be: {why}", why=error) from None


def _read_nick(query: str) -> str:
    """Return the nickname that an invite suggests, "" for none, or if it cannot be one."""
    with suppress(ValueError):  # UnicodeDecodeError and WrongValue, too
        return nickname(dict(parse_qsl(query, errors="strict")).get("as", ""))
    return ""


def _from_text(text: str, size: int, what: Text) -> bytes:
    """Decode base64url of exactly ``size`` bytes in its canonical form."""
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
        if to_text(data) == text:
            return data
    raise AddressError("the invite's {what} has a wrong character in it; {advice}", what=what, advice=_COPY_AGAIN)
