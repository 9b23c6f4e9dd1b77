"""Whose a network connection is: what the host's limits are counted by, since keys are free.

- An IPv4 address counts by itself, an IPv6 address with its /64: a household has that many addresses.
- A connection from this machine counts by the user whose process made it, if the kernel tells; that user may be a
  tunnel's, so it proves nothing and gives no rights.
- Behind a proxy all connections come from the proxy. One that speaks the PROXY protocol sends a header ahead of each,
  and it is believed only where the host was told so: anybody else could send one, too.

Sources: the PROXY protocol, versions 1 and 2 (haproxy, doc/proxy-protocol.txt); sock_diag(7).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress
from typing import Any, Final, TypeAlias

from chat.core.errors import Text, WrongValue
from chat.transport.link import Waiter

_IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# bytes of a PROXY header, which comes in one piece with notes of the proxy; a longer one ends the connection
MAX_HEADER: Final = 4096
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1_LIMIT: Final = 107  # bytes, with CR and LF
_NETWORK: Final = 64  # bits of an IPv6 address that one customer of a provider has for himself
_LOOPBACK: Final = ("127.0.0.0/8", "::1")
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20


class BadHeader(OSError):
    """What a proxy sent in place of a PROXY header."""


def source_of(theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> str:
    """Return the source of a TCP connection, from the names of its two ends."""
    address = _plain(theirs[0])
    if address.is_loopback:
        uid = _uid_of(theirs, ours)
        return "loopback" if uid is None else f"loopback, user {uid}"
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _NETWORK), strict=False))


class Proxies:
    """The addresses whose PROXY headers are believed: ``loopback``, addresses and networks, separated by commas.

    Raises WrongValue for a text that cannot be read.
    """

    def __init__(self, text: str) -> None:
        named = [part.strip() for part in text.split(",") if part.strip()]
        try:
            self._networks = [
                ipaddress.ip_network(one) for part in named for one in (_LOOPBACK if part == "loopback" else [part])
            ]
        except ValueError as error:
            raise WrongValue("{text!r} is no list of addresses: {why}", text=text, why=error) from None

    def __contains__(self, host: str) -> bool:
        return any(_plain(host) in network for network in self._networks)


async def proxied(sock: socket.socket) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Take the PROXY header that a connection begins with; see ``read_header``. Raises BadHeader, OSError."""
    await Waiter.for_reading(sock.fileno()).wait()
    return read_header(sock.recv(header_size(sock.recv(MAX_HEADER, socket.MSG_PEEK))))


def header_size(begin: bytes) -> int:
    """Return the size of the PROXY header that ``begin`` starts with, which must hold all of it. Raises BadHeader."""
    if begin.startswith(_SIGNATURE) and len(begin) >= 16:
        size = 16 + int.from_bytes(begin[14:16], "big")
    elif begin.startswith(b"PROXY "):
        size = begin.find(b"\r\n", 0, _V1_LIMIT) + 2
    else:
        size = 0
    if size < 8 or size > len(begin):
        raise BadHeader(Text("it began with {begin} instead of a PROXY header", begin=repr(begin[:24])[1:]))
    return size


def read_header(header: bytes) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Return both ends of the connection that a PROXY header names, None for one of the proxy's own.

    Raises BadHeader.
    """
    with suppress(ValueError, IndexError, struct.error):
        if header.startswith(b"PROXY "):
            _, family, *names = header.decode("ascii").split()
            if family == "UNKNOWN":
                return None
            if family in ("TCP4", "TCP6") and len(names) == 4:
                theirs, ours = (str(ipaddress.ip_address(name)) for name in names[:2])
                return (theirs, int(names[2])), (ours, int(names[3]))
        elif header[12] == 0x20:  # LOCAL: the proxy looks whether we are there
            return None
        elif header[12] == 0x21:
            family_size = {0x11: 4, 0x21: 16}.get(header[13])
            if family_size is None:
                return None  # a socket of the proxy's machine, or not known: there is no better name than its own
            parts = struct.unpack_from(f"!{family_size}s{family_size}sHH", header, 16)
            theirs, ours = (str(ipaddress.ip_address(part)) for part in parts[:2])
            return (theirs, parts[2]), (ours, parts[3])
    raise BadHeader(Text("its PROXY header cannot be read: {header}", header=repr(header[:128])[1:]))


def _plain(host: str) -> _IP:
    """Return an address without its zone; an IPv4 address that is written as an IPv6 one as what it is."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _uid_of(theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> int | None:
    """Ask the kernel whose the other end of a connection within this machine is; None if it does not tell."""
    with suppress(OSError, AttributeError, ValueError, struct.error):  # AttributeError: no netlink but on Linux
        family = socket.AF_INET6 if ":" in theirs[0] else socket.AF_INET
        ends = [socket.inet_pton(family, one[0].partition("%")[0]).ljust(16, b"\0") for one in (theirs, ours)]
        # struct inet_diag_req_v2 and inet_diag_sockid (linux/inet_diag.h): any state, interface and cookie
        asked = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        asked += struct.pack("!HH16s16s", theirs[1], ours[1], *ends) + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.setblocking(False)  # the answer is there when send returns
            netlink.send(struct.pack("=IHHII", 16 + len(asked), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + asked)
            answer = netlink.recv(4096)
        if struct.unpack_from("=IH", answer)[1] == _SOCK_DIAG_BY_FAMILY:
            return int(struct.unpack_from("=I", answer, 16 + 64)[0])  # idiag_uid
    return None
