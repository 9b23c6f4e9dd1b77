"""Two nicknames of one account, on one machine and in one data folder: the first thing that everybody tries."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from chat.cli.home import Home
from chat.client.target import Target
from tests.cli.programs import Program, host, run, window

if TYPE_CHECKING:
    from pathlib import Path

    from tests.data.make import Window

BOTH = ("-ttcp:127.0.0.1:0", "-tqueue")


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("CHAT_CONFIG", str(tmp_path / "config.toml"))


def leave(window: Window) -> None:
    window.type("\x04", "")
    while window.process.poll() is None:
        window.read(0.1)


def test_they_write_to_each_other_and_each_has_a_last_message(tmp_path: Path) -> None:
    with window(tmp_path / "me", "host") as ann:
        ann.until("here: ")
        with window(tmp_path / "me", "join", "--as=bob") as bob:
            bob.until("here: ")
            ann.type("said by ann")
            said = bob.until("said by ann")[-2:]
            bob.type(f"/retract {said}")
            bob.until("only your own messages can be changed")
            bob.type("said by bob")
            ann.until("said by bob")
            ann.type("/edit corrected by ann")
            assert "ann corrects “said by ann”: corrected by ann" in bob.until("corrected by ann")
            bob.type("/edit corrected by bob")
            assert "bob corrects “said by bob”: corrected by bob" in ann.until("corrected by bob")
            ann.type("/react 👍")  # to the last message of somebody else
            assert " ann answers bob, “corrected by bob”, with 👍 #" in bob.until("👍")
            bob.type("/msg ann psst")
            bob.until("bob: psst")
            ann.until("* bob sent you a private message; /msg bob shows it")
            ann.type("/msg bob yes?")
            assert " ann: yes? #" in bob.until("yes?")


def test_what_one_wrote_is_new_to_the_other_and_a_mention_is_one(tmp_path: Path) -> None:
    with host(tmp_path / "me"):
        with window(tmp_path / "me", "join", "--as=bob", term="xterm-256color") as bob:
            bob.shows("#lobby")
            bob.type("bob has read this far", "\r")
            bob.shows("this far ✓")
            leave(bob)
        with window(tmp_path / "me", "join", term="xterm-256color") as ann:
            ann.shows("this far")
            ann.type("bob: have you seen this?", "\r")
            ann.shows("seen this? ✓")
            leave(ann)
        with window(tmp_path / "me", "join", "--as=bob", term="xterm-256color") as bob:
            bob.shows("seen this?")
            rows = bob.screen()
        with window(tmp_path / "me", "join", "--as=bob") as bob:
            bob.until("here: ")
            bob.type("/mention")
            assert " ann: bob: have you seen this? #" in bob.until("have you seen")
    (at,) = (number for number, row in enumerate(rows) if "seen this?" in row)
    assert " new ──" in rows[at - 1]


def test_each_has_a_key_and_both_are_owners(tmp_path: Path) -> None:
    folder = tmp_path / "me"
    prints = [run(folder, "id", *chosen).stdout.strip() for chosen in ((), ("--as=ann",), ("--as=bob",), ("--as=Bob",))]
    assert prints[0] == prints[1] != prints[2] == prints[3]
    assert run(folder, "id", "--all").stdout == f"{prints[0]}  ann\n{prints[2]}  bob\n"
    assert [path.name for path in (folder / "identities").glob("*.pem")] == ["bob.pem"]
    with host(folder, "-ttcp:127.0.0.1:0") as room:
        for nick in ("ann", "bob"):  # by their keys: over TCP nobody knows the user
            with Program(folder, "join", room.seen[0]["address"], f"--as={nick}", "--json") as seat:
                me = seat.until("joined")["me"]
                assert (me["nick"], me["role"]) == (nick, "owner")
    with host(folder) as room:
        assert run(folder, "invite", "new").stdout.strip() == room.seen[0]["invite"]
        with Program(tmp_path / "other", "join", "--as=cid", "--json") as seat:  # by its user
            assert seat.until("joined")["me"]["role"] == "owner"


def test_a_nickname_that_the_host_changes_keeps_its_key(tmp_path: Path) -> None:
    with host(tmp_path / "me", *BOTH):
        assert run(tmp_path / "other", "send", "lobby", "taken", "--as=bob").returncode == 0
        with Program(tmp_path / "me", "join", "--as=bob", "--json") as bob:
            me = bob.until("joined")["me"]
            bob.say("not theirs")
            seen = bob.until("message", lambda event: event["text"] == "not theirs")
            assert (me["nick"], seen["nick"], seen["key"]) == ("bob-2", "bob-2", me["key"])
        with Program(tmp_path / "me", "join", "--as=bob", "--json") as bob:
            assert bob.until("joined")["me"] == me


def test_a_room_elsewhere_is_read_with_the_key_that_has_been_there(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-ttcp:127.0.0.1:0") as room:
        address = f"{room.seen[0]['address']}/lobby"
        assert run(tmp_path / "me", "send", room.seen[0]["invite"], "hi", "--as=bob").returncode == 0
        assert run(tmp_path / "me", "log", address).stdout.endswith(" bob: hi\n")
        refused = run(tmp_path / "me", "send", address, "hi")  # ann needs an invite
        assert (refused.returncode, "by invite only" in refused.stderr) == (3, True)
        assert run(tmp_path / "me", "send", address, "again", "--as=bob").returncode == 0


def test_a_nickname_that_had_the_one_key_of_before_keeps_it_in_that_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host(tmp_path / "host", "-ttcp:127.0.0.1:0") as room:
        monkeypatch.setenv("LOGNAME", "bob")
        with Program(tmp_path / "me", "join", room.seen[0]["invite"], "--json") as bob:
            before = bob.until("joined")["me"]["key"]
        monkeypatch.setenv("LOGNAME", "ann")
        with Program(tmp_path / "me", "join", f"{room.seen[0]['address']}/lobby", "--as=bob", "--json") as bob:
            assert bob.until("joined")["me"]["key"] == before
    with (
        host(tmp_path / "other", "-ttcp:127.0.0.1:0") as room,
        Program(tmp_path / "me", "join", room.seen[0]["invite"], "--as=bob", "--json") as bob,
    ):
        assert bob.until("joined")["me"]["key"] != before


@pytest.mark.parametrize("typed", ["Bob", "bob", "BOB", "bOB"])
@pytest.mark.parametrize("used", ["Bob", "bob", "BOB", "bOb"])
def test_a_nickname_keeps_the_key_that_it_used_in_whatever_case_it_is_typed(
    tmp_path: Path, used: str, typed: str
) -> None:
    home, target = Home(tmp_path / "me"), Target((), "lobby", b"h" * 32)
    own = home.identities.load()
    name = hashlib.sha256(b"\0".join((target.host, own.key, b"lobby", used.encode()))).hexdigest()[:32]
    (home.outboxes / name).mkdir(parents=True)
    assert home._identity_in(target, typed).key == own.key
    assert home._identity_in(target, "eve").key != own.key


def test_what_is_left_unsent_is_sent_in_whatever_case_the_nickname_is_typed(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        assert run(tmp_path / "me", "send", ".", "left", "--as=Bob", "--wait=0").returncode == 4
        assert run(tmp_path / "me", "send", ".", "again", "--as=bOB").returncode == 0
        logged = [json.loads(line) for line in run(tmp_path / "me", "log", "--json").stdout.splitlines()]
        assert [event["text"] for event in logged] == ["left", "again"]
        assert len({event["key"] for event in logged}) == 1
