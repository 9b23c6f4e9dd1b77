"""Invites as text."""

# ruff: noqa: RUF001 - they are pasted with all kinds of quotes and colons

from __future__ import annotations

import dataclasses
import hashlib
import re
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from chat.core.errors import AddressError
from chat.core.text import room_name
from chat.local.identity import verify
from chat.local.invite import Invite
from chat.transport import Address


def room_ok(room: str) -> bool:
    try:
        return room_name(room) == room
    except ValueError:
        return False


HASH, SECRET = bytes(range(32)), bytes(range(100, 116))
INVITE = Invite((Address("tcp", "192.0.2.1:7711"),), "lobby", HASH, SECRET)

tcp_places = st.sampled_from(["192.0.2.1:7711", "[::1]:7711", "[2001:db8::1]", "chat.example", "memory", "1", "1:2"])
places = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="?"), max_size=12)
options = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=5), max_size=2)
addresses = (
    st.builds(Address, st.just("tcp"), tcp_places)
    | st.builds(Address, st.sampled_from(["tcp", "queue", "memory", "x7"]), places | tcp_places, options)
).filter(lambda address: Address.parse(str(address)) == address)
rooms = (
    st.text("ab9-_.", min_size=1, max_size=12)
    | st.text("äöüéñ", min_size=1, max_size=12)
    | st.text("小明部屋", min_size=1, max_size=9)
).filter(room_ok)


invites = st.builds(
    Invite,
    st.lists(addresses, min_size=1, max_size=4).map(tuple),
    rooms,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.just("") | rooms,
)


@given(invites)
def test_an_invite_survives_being_written(invite: Invite) -> None:
    text = str(invite)
    assert Invite.parse(text) == invite
    assert Invite.parse(f"  {text}\n") == invite
    assert text.isprintable()
    assert " " not in text


def test_an_invite_may_suggest_a_nickname_and_say_more_than_we_know() -> None:
    text = str(dataclasses.replace(INVITE, nick="小明"))
    assert "/lobby?as=小明#" in text
    for query, nick in (("as=ann&colour=red", "ann"), ("as=a%20b", ""), ("as=%ff", ""), ("as", ""), ("", "")):
        assert Invite.parse(text.replace("as=小明", query)) == dataclasses.replace(INVITE, nick=nick)


def test_how_an_invite_looks() -> None:
    invite = Invite(
        (
            Address("tcp", "192.0.2.1:7711"),
            Address("tcp", "[::1]:7711"),
            Address("tcp", "127.0.0.1:4012", {"tls": "0"}),
            Address("queue", "/run/a,b#c"),
            Address("memory", "7711"),
            Address("memory"),
        ),
        "小明-1",
        b"\0" * 32,
        b"\xff" * 16,
    )
    assert str(invite) == (
        "chat://192.0.2.1:7711,[::1]:7711,tcp:127.0.0.1%3A4012%3Ftls%3D0,queue:%2Frun%2Fa%2Cb%23c,"
        f"memory:%37711,memory:/小明-1#{'A' * 43}.{'_' * 21}w"
    )


def test_an_invite_typed_by_hand() -> None:
    end = str(INVITE).partition("#")[2]
    invite = Invite.parse(f"CHAT://Example.org:7711/caf%C3%A9#{end}")
    assert invite.addresses == (Address("tcp", "Example.org:7711"),)
    assert invite.room == "café"


@pytest.mark.parametrize(
    "pasted",
    [
        "“{}”",
        "‘{}’。",
        "「{}」，",
        "<{}>",
        "({}).",
        "'{}',",
        "{}!",
        "\ufeff\u200b{}\u200b",
        "\u3000{}\u3000",
        "«\u00a0{}\u00a0»…",
        "„{}“:",
        "**{}**",
        "chat join '{}'",
        "come in: {}",
    ],
)
def test_an_invite_as_it_is_pasted(pasted: str) -> None:
    assert Invite.parse(pasted.format(INVITE)) == INVITE


def test_an_invite_that_was_broken_into_lines_or_typed_in_chinese() -> None:
    text = str(INVITE)
    for at in range(len(text)):
        assert Invite.parse(f"{text[:at]}\n  {text[at:]}") == INVITE
        assert Invite.parse(f"> {text[:at]}\n> {text[at:]}") == INVITE
        assert Invite.parse(f"{text[:at]}\u200b{text[at:]}") == INVITE
    assert Invite.parse(text.replace("chat://", "Chat:/")) == INVITE
    assert Invite.parse(text.replace(":", "：").replace("/", "／").replace("#", "＃").replace(".", "．")) == INVITE


def test_any_cut_is_noticed_and_no_error_tells_the_secret() -> None:
    text = str(INVITE)
    secret = text.rpartition(".")[2]
    hashed = text.partition("#")[2].partition(".")[0]
    for end in range(len(text)):
        with pytest.raises(AddressError) as caught:
            Invite.parse(text[:end])
        assert_one_line_without(str(caught.value), secret)
    for start in range(1, len(text)):
        with pytest.raises(AddressError) as caught:
            Invite.parse(text[start:])
        assert_one_line_without(str(caught.value), secret)
    for wrong in (
        text + "x",
        text + text,
        text.replace("#", "%23"),
        text.replace("#", ""),
        text.replace("/lobby", ""),
        text.replace("lobby", "a/b"),
        text.replace("lobby", "%ff"),
        text.replace("192.0.2.1:7711", ""),
        text.replace("192.0.2.1:7711", "192.0.2.1:7711,"),
        text.replace("192.0.2.1:7711", "queue:%ff"),
        text.replace(f".{secret}", f"{secret}."),
        text.replace(secret, "+" * 22),
        text.replace(secret, "é" * 22),
        text.replace(hashed, hashed[:20] + "*" + hashed[21:]),
        text[:-1] + ("B" if text[-1] != "B" else "C"),  # bits that no byte has
    ):
        with pytest.raises(AddressError) as caught:
            Invite.parse(wrong)
        assert_one_line_without(str(caught.value), secret)


def assert_one_line_without(message: str, secret: str) -> None:
    assert "\n" not in message
    assert all(secret[at : at + 6] not in message for at in range(len(secret) - 5))


@given(st.text(max_size=80))
def test_junk_is_an_address_error(text: str) -> None:
    for candidate in (
        text,
        f"chat://{text}",
        f"chat://h:1/{text}",
        f"chat://{text}/lobby#{'A' * 43}.{'A' * 22}",
    ):
        with suppress(AddressError):
            Invite.parse(candidate)


def test_errors_say_what_is_wrong() -> None:
    text = str(INVITE)
    for wrong, said in {
        "hello": "not an invite",
        text[:-3]: "secret has 19 characters in place of 22",
        text[: text.index("#")]: "no #",
        text[: text.index("#") + 11]: "hash of the host's key has 10 characters in place of 43",
        text.replace("/lobby", ""): "names no room",
        text.replace("192.0.2.1:7711", "192.0.2.1:7711,a:b:c d".replace(" ", "%00")): "address 2",
        text.replace("lobby", "%ff"): "the room in the invite cannot be read",
        text.replace("192.0.2.1:7711", ""): "names no address",
    }.items():
        with pytest.raises(AddressError, match=re.escape(said)):
            Invite.parse(wrong)


def test_a_repr_keeps_the_secret() -> None:
    shown = repr(INVITE)
    assert "lobby" in shown
    assert repr(SECRET) not in shown
    assert str(INVITE).rpartition(".")[2] not in shown


def test_the_key_of_an_invite_is_made_of_its_secret() -> None:
    seed = hashlib.sha256(b"manywire invite\0" + SECRET).digest()
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert INVITE.signer.key == key
    assert verify(key, INVITE.signer.sign(b"words"), b"words")
    assert dataclasses.replace(INVITE, secret=bytes(16)).signer.key != key


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["tcp:127.0.0.1:7711", "tcp:[::1]:7711", "tcp:localhost"], "this machine only"),
        (["queue:/run/x", "pipe:/run/x"], "this machine only"),
        (["tcp:127.0.0.1:7711", "tcp:192.168.1.5:7711"], "this network only"),
        (
            ["tcp:10.0.0.1", "tcp:172.31.0.1:1", "tcp:169.254.1.1:1", "tcp:[fd00::1]:1", "tcp:[fe80::1%eth0]:1"],
            "network",
        ),
        (["tcp:100.64.0.1:1"], "this network only"),
        (["tcp:127.0.0.1:7711", "tcp:203.0.113.1:7711"], ""),
        (["tcp:172.32.0.1:7711"], ""),
        (["tcp:[2001:db8::1]:7711", "tcp:10.0.0.1:7711"], ""),
        (["tcp:chat.example:7711"], ""),
        (["carrier:pigeon"], ""),
    ],
)
def test_an_invite_says_how_far_it_goes(places: list[str], words: str) -> None:
    limit = dataclasses.replace(INVITE, addresses=tuple(map(Address.parse, places))).limit
    assert bool(limit) == bool(words)
    assert words in (limit or "")
