"""Addresses and hosts as people type and paste them."""

# ruff: noqa: RUF001 - with all kinds of quotes and colons

from __future__ import annotations

import pytest

from chat.core.errors import AddressError
from chat.transport.typed import typed_address, typed_host, typed_scheme


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("TCP:Chat.Example:7711", "tcp:Chat.Example:7711"),
        ("tcp://192.0.2.1:7711", "tcp:192.0.2.1:7711"),
        ("“tcp:192.0.2.1:7711”。", "tcp:192.0.2.1:7711"),
        ("tcp：192．0．2．1：７７１１", "tcp:192.0.2.1:7711"),
        (" <tcp:[::1]:7711>, ", "tcp:[::1]:7711"),
        ("tcp:[::1]", "tcp:[::1]"),
        ("tcp:\u200bchat.example\ufeff", "tcp:chat.example"),
        ("chat.example:7711", "tcp:chat.example:7711"),
        ("localhost:7711;", "tcp:localhost:7711"),
        ("[2001:db8::1]:7711", "tcp:[2001:db8::1]:7711"),
        ("queue:7711", "queue:7711"),  # a transport's name comes first
        ("pipe:///tmp/a", "pipe:/tmp/a"),
        ("\u00a0«tcp : // chat.example:7711»…\u2028", "tcp:chat.example:7711"),
        ("„tcp﹕chat.example﹕7711“:", "tcp:chat.example:7711"),
        ("**tcp:[::1]**", "tcp:[::1]"),
    ],
)
def test_an_address_as_it_is_typed(text: str, address: str) -> None:
    assert str(typed_address(text)) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("chat.example", "chat.example"),
        ("“chat.example：443”", "chat.example:443"),
        ("tcp://chat.example:443", "chat.example:443"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("[2001:db8::7]:443", "[2001:db8::7]:443"),
        ("聊天。中国", "聊天.中国"),
    ],
)
def test_a_host_as_it_is_typed(text: str, host: str) -> None:
    assert typed_host(text) == host


def test_port_0_is_for_listening() -> None:
    with pytest.raises(AddressError, match=r"cannot advertise 'chat.example:0': nobody can dial port 0"):
        typed_host("chat.example:0")


@pytest.mark.parametrize("text", ["tcp", "TCP:", "“tcp”", " tcp： "])
def test_a_transport_as_it_is_typed(text: str) -> None:
    assert typed_scheme(text) == "tcp"
