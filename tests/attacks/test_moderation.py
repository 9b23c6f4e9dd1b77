"""A troll with a multi-use invite, an owner and an operator: real processes, the troll over TCP."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.programs import Program, host, run

if TYPE_CHECKING:
    from pathlib import Path


def do(who: Program, command: str, text: str = "") -> None:
    who.write(f'{{"command": "{command}", "text": "{text}", "id": "{command}"}}')


def refused(who: Program) -> str:
    """How it ended, and what it was told."""
    event = who.until("refused")
    assert who.process.wait(30) == 3
    return str(event["message"])


def decision(who: Program, action: str, **more: Any) -> dict[str, Any]:
    return who.until("moderation", lambda event: event["action"] == action and event.items() >= more.items())


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    with ExitStack() as stack:
        room = stack.enter_context(host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue"))
        invite = room.seen[0]["invite"]

        def come(name: str) -> Program:
            program = stack.enter_context(Program(tmp_path / name, "join", invite, "--json", "--as", name))
            program.until("joined")
            return program

        owner = stack.enter_context(Program(tmp_path / "host", "join", "lobby", "--json", "--as", "olga"))
        owner.until("joined")
        yield owner, come


def test_from_the_first_insult_to_silence(stage: Any, tmp_path: Path) -> None:
    owner, come = stage
    bob, troll = come("bob"), come("troll")
    bob.say("hello", "1")
    hello = bob.until("stored")["seq"]
    troll.say("you all stink", "1")
    insult = troll.until("stored")["seq"]
    # What is somebody else's stays as it is, and so does what does not exist.
    wrong = ("edit", hello, "not-yours"), ("retract", hello, "not-yours"), ("edit", 999, "no-target")
    for command, target, code in (*wrong, ("reply", 999, "no-target"), ("react", 999, "no-target")):
        troll.write(f'{{"command": "{command}", "target": {target}, "text": "I stink", "id": "x"}}')
        assert troll.until("rejected")["code"] == code
    # A member decides nothing.
    do(bob, "ban", "troll")
    assert bob.until("error")["code"] == "staff-only"
    # Muted: it reads, and nobody reads it.
    do(owner, "mute", "troll rude")
    assert decision(bob, "role", role="muted")["whom"]["nick"] == "troll"
    troll.say("ha", "2")
    assert troll.until("rejected")["code"] == "muted"
    do(owner, "unmute", "troll")
    assert decision(troll, "role", role="member")
    troll.say("free again", "3")
    troll.until("stored")
    # An operator does what the owner trusts them with.
    do(owner, "op", "bob")
    decision(bob, "role", role="operator")
    do(bob, "ban", "olga")
    assert bob.until("error")["code"] == "outranked"
    bob.write(f'{{"command": "remove", "target": {insult}, "id": "r"}}')
    assert decision(owner, "retract", target=insult)["nick"] == "bob"
    assert "stink" not in run(tmp_path / "host", "search", "lobby", "stink").stdout
    for _again in range(5):
        do(bob, "mute", "troll")
        do(bob, "unmute", "troll")
    do(bob, "kick", "troll go away")
    assert refused(troll) == "bob has removed you from room lobby: go away"
    troll = come("troll")
    do(bob, "ban", "troll 1h really")
    assert refused(troll) == "you are banned from room lobby: really"
    assert "until" in decision(owner, "role", role="banned")
    with pytest.raises(AssertionError, match="you are banned from room lobby: really"):
        come("troll")
    bob.say("peace", "2")
    bob.until("stored")
    do(bob, "mute", "troll")
    assert bob.until("error", lambda event: event["id"] == "mute")["code"] == "is-already"
    do(bob, "audit")
    lines = bob.until("done", lambda event: event["command"] == "audit")["lines"]
    assert len(lines) == 16
    assert lines[0].endswith("olga mute troll (rude)")
    log = run(tmp_path / "host", "log", "lobby").stdout
    assert "ha\n" not in log
    assert "bob has banned troll until" in log


def test_slow_mode_holds_members_and_not_those_who_keep_order(stage: Any) -> None:
    owner, come = stage
    bob = come("bob")
    do(owner, "slow", "3600")
    decision(bob, "slow", seconds=3600)
    bob.say("one", "1")
    bob.until("stored")
    bob.say("two", "2")
    error = bob.until("rejected")
    assert (error["code"], error["fields"]["seconds"]) == ("slow", 3600)
    for number in ("1", "2"):
        owner.say("calm down", number)
        owner.until("stored")
    do(owner, "slow", "off")
    decision(bob, "slow")
    bob.say("three", "3")
    bob.until("stored")


def test_decisions_survive_the_host_and_are_told_to_whoever_comes(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue") as room:
        invite = room.seen[0]["invite"]
        with (
            Program(tmp_path / "host", "join", "lobby", "--json", "--as", "olga") as owner,
            Program(tmp_path / "bob", "join", invite, "--json", "--as", "bob") as bob,
        ):
            owner.until("joined")
            bob.until("joined")
            do(owner, "topic", "tea and biscuits")
            decision(bob, "topic", text="tea and biscuits")
            do(owner, "ban", "bob")
            assert refused(bob) == "you are banned from room lobby"
        room.kill()
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue"):
        again = run(tmp_path / "bob", "join", invite, "--as", "bob")
        assert (again.returncode, again.stderr) == (3, "chat: you are banned from room lobby\n")
        plain = run(tmp_path / "host", "join", "lobby", "--plain", "--as", "olga", stdin="")
        assert "* topic: tea and biscuits" in plain.stdout
        with Program(tmp_path / "host", "join", "lobby", "--json", "--as", "olga") as owner:
            owner.until("joined")
            do(owner, "unban", "bob")
            decision(owner, "role", role="member")
        assert run(tmp_path / "bob", "send", invite, "thanks", "--as", "bob").returncode == 0
