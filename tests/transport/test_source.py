"""Whose a connection is: addresses, networks, users, and what a proxy says."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from chat.core.errors import WrongValue
from chat.transport.source import BadHeader, Proxies, header_size, read_header, source_of

V2 = b"\r\n\r\n\0\r\nQUIT\n"
US = ("192.0.2.1", 7711)


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2 + bytes((command, family)) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize(
    ("theirs", "source"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%lo", "fe80::/64"),
    ],
)
def test_an_address_counts_by_itself_and_an_ipv6_address_by_its_network(theirs: str, source: str) -> None:
    assert source_of((theirs, 40000), US) == source


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a TCP connection is")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_of_this_machine_counts_by_its_user(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as near,
        server.accept()[0] as far,
    ):
        assert source_of(far.getpeername(), far.getsockname()) == f"loopback, user {os.geteuid()}"
        assert near.getsockname() == far.getpeername()


V6 = [socket.inet_pton(socket.AF_INET6, name) for name in ("2001:db8::9", "2001:db8::1")]
HEADERS = [  # of the proxy's documentation, and of its versions
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 7711\r\n", (("203.0.113.9", 40000), US)),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 7711\r\n", (("2001:db8::9", 40000), ("2001:db8::1", 7711))),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (
        v2(0x21, 0x11, bytes((203, 0, 113, 9, 192, 0, 2, 1)) + struct.pack("!HH", 40000, 7711)),
        HEADER_4 := (
            ("203.0.113.9", 40000),
            US,
        ),
    ),
    (v2(0x21, 0x11, bytes((203, 0, 113, 9, 192, 0, 2, 1)) + struct.pack("!HH", 40000, 7711) + b"\x04\0\1x"), HEADER_4),
    (v2(0x21, 0x21, b"".join(V6) + struct.pack("!HH", 40000, 7711)), (("2001:db8::9", 40000), ("2001:db8::1", 7711))),
    (v2(0x20, 0x00, b""), None),
    (v2(0x21, 0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "ends"), HEADERS)
def test_a_header_is_taken_and_nothing_behind_it(header: bytes, ends: object) -> None:
    assert header_size(header + b"\x16\x03\x01") == len(header)
    assert read_header(header) == ends


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"\x16\x03\x01\x02\x00",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 7711",
        b"PROXY " + b"x" * 200 + b"\r\n",
        V2 + b"\x21",
        HEADERS[4][0][:-1],
    ],
)
def test_what_is_no_whole_header_is_refused(begin: bytes) -> None:
    with pytest.raises(BadHeader, match="instead of a PROXY header"):
        header_size(begin)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000\r\n",
        b"PROXY TCP4 203.0.113 192.0.2.1 40000 7711\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 x 7711\r\n",
        b"PROXY \xff\r\n",
        v2(0x31, 0x11, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
    ],
)
def test_what_a_header_cannot_mean_is_refused(header: bytes) -> None:
    with pytest.raises(BadHeader, match="cannot be read"):
        read_header(header)


def test_only_proxies_that_were_named_are_believed() -> None:
    proxies = Proxies("loopback, 10.0.0.0/8,2001:db8::7")
    for host in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "10.9.8.7", "2001:db8::7"):
        assert host in proxies
    for host in ("11.0.0.1", "2001:db8::8", "203.0.113.9"):
        assert host not in proxies
    assert "127.0.0.1" not in Proxies("")
    with pytest.raises(WrongValue, match="no list of addresses"):
        Proxies("loopback, proxy.example")
