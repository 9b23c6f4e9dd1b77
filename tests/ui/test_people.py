"""Whom a reader knows: by key, by nickname, here or gone; and whom the settings ignore."""

from __future__ import annotations

import time

import pytest

from chat.core.bodies import Author, Direct
from chat.core.errors import ChatError
from chat.core.events import Message
from chat.core.session import Session
from chat.core.status import Status
from chat.core.wire import Kind
from chat.local.identity import fingerprint
from chat.ui import people as module
from chat.ui.people import (
    People,
    describe_direct,
    ignored,
    is_unread,
    list_ignored,
    list_people,
    read_marks,
    to_unignore,
)

ANN, BOB, CID = b"a" * 32, b"b" * 32, b"c" * 32
ENTRIES = [(fingerprint(BOB), "bob"), (fingerprint(CID), ""), (ANN.hex(), "Ann")]


def people() -> tuple[People, Session]:
    session = Session("lobby", ANN, nick="ann")
    session.here.update({(ANN, "ann"): False, (BOB, "bob"): False})
    return People(session), session


def said(key: bytes, nick: str, at: int, *, bot: bool = False) -> Message:
    author = Author(index=1, key=key, stream=1, nick=nick, bot=bot)
    return Message(1, at, author, Kind.SAY, "x", 0, mine=False)


def test_a_nickname_means_who_is_here_and_then_who_spoke_last() -> None:
    known, session = people()
    known.spoke(said(CID, "Bob", 1))
    assert known.find("BOB") == known.find("@bob") == (BOB, "bob")
    del session.here[BOB, "bob"]
    assert known.find("bob") == (CID, "Bob")
    known.spoke(said(BOB, "bob", 2))
    assert known.find("bob") == (BOB, "bob")
    assert known.find("eve") is None
    assert known.nicks() == ["ann", "bob", "Bob"]


def test_an_older_message_does_not_change_the_nickname() -> None:
    known, _session = people()
    known.spoke(said(CID, "new", 2))
    known.spoke(said(CID, "old", 1))
    assert [nick for key, nick in known.named() if key == CID] == ["new", "old"]


def test_what_is_known_of_somebody() -> None:
    known, session = people()
    now = time.time_ns() // 1_000_000
    states = {(BOB, "bob"): Status(note="lunch")}
    known.spoke(said(BOB, "bob", now, bot=True))
    assert known.about((BOB, "bob"), states, ignored=True) == [
        "bob is here: lunch; spoke last just now",
        f"key {fingerprint(BOB)} [bot]",
        "messages by bob are hidden; /unignore bob shows them",
    ]
    del session.here[BOB, "bob"]
    assert known.about((BOB, "bob"), {}, ignored=False)[0] == "bob is not here; spoke last just now"
    known.moved([], [(BOB, "bob")], now)
    assert known.about((BOB, "bob"), {}, ignored=False)[0] == "bob left just now; spoke last just now"
    known.moved([(BOB, "bob")], [], now)
    assert known.about((BOB, "bob"), {}, ignored=False)[0].startswith("bob is not here")


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN", 3)
    known, session = people()
    session.here.clear()
    for n in range(5):
        known.spoke(said(bytes([n]) * 32, f"nick-{n}", n))
    assert known.nicks() == ["nick-4", "nick-3", "nick-2"]


def test_those_who_are_here_are_on_one_line() -> None:
    assert list_people({(BOB, "bob"): Status(note="lunch"), (ANN, "Ann"): Status()}) == "here: Ann, bob (lunch)"


def test_a_login_name_stands_beside_its_nickname() -> None:
    users = {(BOB, "bob"): "robert"}
    there = {(BOB, "bob"): Status(note="lunch"), (ANN, "Ann"): Status()}
    assert list_people(there, users) == "here: Ann, bob (robert) (lunch)"
    known, session = people()
    session.users.update(users)
    assert known.about((BOB, "bob"), there, ignored=False)[0] == "bob (robert) is here: lunch"


def test_read_marks_are_those_of_others_who_show_them() -> None:
    shown = {(ANN, "ann"): Status(read=9), (BOB, "bob"): Status(read=4), (CID, "cid"): Status()}
    assert read_marks(shown, (ANN, "ann")) == [4]


@pytest.mark.parametrize(("next_seq", "read", "unread"), [(3, 1, True), (3, 2, False), (1, 0, False)])
def test_a_direct_room_is_unread_if_something_was_said_after_the_read_mark(
    next_seq: int, read: int, unread: bool
) -> None:
    news = Direct(room="@x", other=BOB, nick="b\x1bob", next_seq=next_seq, read=read)
    assert is_unread(news) is unread
    assert describe_direct(news) == (
        "b␛ob sent you a private message; /msg b␛ob shows it"
        if unread
        else "you have a private room with b␛ob; /msg b␛ob opens it"
    )


def test_who_is_ignored_has_a_nickname_if_somebody_knows_it() -> None:
    known, _session = people()
    entries = [fingerprint(BOB), CID.hex()]
    assert ignored(entries, [known]) == [(fingerprint(BOB), "bob"), (CID.hex(), "")]
    assert list_ignored(ignored(entries, [known])) == [f"bob  {fingerprint(BOB)}", f"?  {CID.hex()}"]
    assert list_ignored([]) == ["you ignore nobody; /ignore NICK hides what somebody says"]


@pytest.mark.parametrize(
    ("who", "found"),
    [
        ("bob", {fingerprint(BOB)}),
        ("@BOB", {fingerprint(BOB)}),
        (fingerprint(CID), {fingerprint(CID)}),
        (fingerprint(CID)[:15], {fingerprint(CID)}),
        (ANN.hex()[:6], {ANN.hex()}),
    ],
)
def test_who_is_meant_of_those_ignored(who: str, found: set[str]) -> None:
    assert to_unignore(who, ENTRIES)[0] == found


@pytest.mark.parametrize("who", ["eve", "", "SHA256:"])
def test_nobody_is_meant(who: str) -> None:
    with pytest.raises(ChatError, match="is not ignored; /ignore lists who is"):
        to_unignore(who, ENTRIES)


def test_where_several_may_be_meant_none_is() -> None:
    entries = [("SHA256:ab1", ""), ("SHA256:ab2", "")]
    with pytest.raises(ChatError, match="ab could be any of these; give more of it: SHA256:ab1, SHA256:ab2"):
        to_unignore("ab", entries)
