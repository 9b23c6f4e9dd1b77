"""Addresses as people type and paste them.

Word processors curl quotes, Chinese input methods write full-width colons, mail programs break lines, and the sentence
around an address ends with a full stop. Only what comes from people is read this way: a path in an address that we
wrote ourselves may hold any of these characters.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from contextlib import suppress
from typing import Final

from chat.transport import Address, AddressError, WrongValue
from chat.transport.registry import bare_scheme, schemes

_FORMS: Final = {  # full-width, and the small forms of Unicode's compatibility block
    code: unicodedata.normalize("NFKC", chr(code)) for code in (*range(0xFF01, 0xFF5F), *range(0xFE50, 0xFE6C), 0x3000)
} | {0x3002: "."}
_QUOTES: Final = "\"'`<>*"
_AROUND: Final = {"Ps", "Pe", "Pi", "Pf", "Zs", "Zl", "Zp", "Cc"}  # categories: brackets, quotes, blanks, line breaks
_ENDS: Final = ".,:;!?…、"
_LABEL: Final = re.compile(rb"[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?")
_MAX_NAME: Final = 253  # characters of a host's name (RFC 1035, section 2.3.4)
_URL: Final = re.compile(r"([0-9A-Za-z]+)://")
_LOOSE: Final = re.compile(r"\s*([:/])\s*")
_BARE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):[0-9]+")


def typed(text: str) -> str:
    """Return a text without quotes around it and invisible characters, its full-width forms as ASCII."""
    shown = "".join(c for c in text.translate(_FORMS) if unicodedata.category(c) != "Cf")
    return shown.strip(_around(shown))


def _around(text: str) -> str:
    """Return the quotes, brackets and blanks of a text; square ones are part of an IPv6 address."""
    return _QUOTES + "".join({c for c in text if unicodedata.category(c) in _AROUND and c not in "[]"})


def without_end(text: str) -> str:
    """Return a typed text without the end of the sentence that it stood in."""
    text = typed(text)
    return text.rstrip(_ENDS + _around(text))


def typed_place(text: str) -> str:
    """Return what stands for an address, or for an address and a room; ``tcp://HOST`` is written ``tcp:HOST``."""
    return _URL.sub(r"\1:", _LOOSE.sub(r"\1", without_end(text)), count=1)


def typed_scheme(text: str) -> str:
    """Return the name of a transport."""
    return without_end(text).lower()


def typed_address(text: str) -> Address:
    """Read an address. HOST:PORT needs no scheme, unless a transport is called HOST. Raises AddressError."""
    text = typed_place(text)
    bare = _BARE.fullmatch(text)
    if bare and bare_scheme() and bare[1].lower() not in schemes():
        text = f"{bare_scheme()}:{text}"
    return Address.parse(text)


def typed_host(text: str) -> str:
    """Return HOST or HOST:PORT, without a transport's name before it, and with brackets around an IPv6 address.

    Raises AddressError.
    """
    text = typed_place(text)
    scheme, _colon, rest = text.partition(":")
    if rest and scheme.lower() in schemes():
        text = rest
    with suppress(ValueError):
        return f"[{ipaddress.IPv6Address(text)}]"
    if text.endswith(":0"):
        raise AddressError("cannot advertise {place!r}: nobody can dial port 0", place=text)
    return text


def check_host(host: str) -> bool:
    """Return whether a host that others shall dial is this machine. Raises WrongValue if it can be no host."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name: RFC 1123, section 2.1, in the ASCII form of RFC 3490
        with suppress(UnicodeError):
            labels = host.encode("idna").removesuffix(b".").split(b".")
            if all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit() and len(host) <= _MAX_NAME:
                return host.casefold() == "localhost"
    else:
        if not address.is_unspecified:
            return address.is_loopback
    raise WrongValue("{host!r} cannot be the name or address of a host", host=host)
