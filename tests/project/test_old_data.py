"""Data folders of older formats still open: tests/data has one of each, made by that time's program.

What is expected here was copied by hand from each folder's transcript.txt, which says what was done to make it.
"""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.programs import CHAT, Program, run
from tests.data.make import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[1] / "data"
LOG = [  # number, nickname, kind, text, target
    (2, "greeter", "say", "hello from a program", None),
    (4, "ann", "say", "大家好，明天下午三点在图书馆见。", None),
    (5, "ann", "say", "family 👩‍👩‍👧‍👦, flag 🇨🇳, party 🎉", None),
    (6, "ann", "action", "waves", None),
    (8, "bob", "say", "好的，我带茶 🍵", 4),
    (9, "ann", "say", "we meet at 3", None),
    (10, "ann", "edit", "we meet at 4", 9),
    (11, "bob", "say", "a slip of bob's", None),
    (12, "bob", "retract", "", 11),
    (13, "bob", "react", "👍", 9),
    (15, "小北", "say", "a second name of bob's", None),
    (16, "ann", "say", "\x1b[31mred\x1b[0m \u202eback\n\tsecond line", None),
    *((16 + number, "ann", "say", f"row {number}", None) for number in range(1, 6)),
    (22, "bob", "say", "bob has read this far", None),
    (23, "ann", "say", "bob has not read this", None),
    (24, "ann", "say", "stored, and ann never knew", None),
]
UNCONFIRMED, WAITING = "stored, and ann never knew", "said while the host was away"


@pytest.fixture(params=["format-1", "format-2", "format-3"])
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with the modes that the program had set; git does not keep them."""
    folder = tmp_path / "old"
    shutil.copytree(DATA / request.param, folder)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.setenv("CHAT_CONFIG", str(folder / "config.toml"))
    return folder


@contextmanager
def opened(old: Path, *transports: str) -> Iterator[str]:
    """Open the room with today's host; yields its address over TCP."""
    with Program(old / "ann", "host", "lobby", "--headless", "--json", "--invite-only", *transports) as host:
        address: str = host.until("listening", lambda event: event["transport"] == "tcp")["address"]
        yield f"{address}/lobby"


TCP, BOTH = ("-ttcp:127.0.0.1:0",), ("-tqueue", "-ttcp:127.0.0.1:0")


def logged(folder: Path, target: str = "lobby") -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(folder, "log", target, "--json").stdout.splitlines()]


def keys(old: Path) -> dict[str, str]:
    """The key of each nickname, from the events in the transcript."""
    lines = (old / "transcript.txt").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines if line.startswith('{"event":"message"')]
    return {event["nick"]: event["key"] for event in events}


def invite(old: Path, name: str, address: str) -> str:
    """An invite of the transcript, with the address that the room has now."""
    (line,) = re.findall(rf"(?m)^{name}: (.+)$", (old / "transcript.txt").read_text("utf-8"))
    return f"chat://{address.removeprefix('tcp:')}#{line.partition('#')[2]}"


def test_all_that_was_said_is_there_and_found_in_its_last_form(old: Path) -> None:
    with opened(old, *BOTH):
        events = logged(old / "ann")
        for words, numbers in (("图书馆", [4]), ("茶", [8]), ("meet at 4", [9]), ("from:小北 second", [15])):
            found = run(old / "ann", "search", "lobby", words, "--json")
            assert [json.loads(line)["seq"] for line in found.stdout.splitlines()] == numbers, words
        assert run(old / "ann", "search", "lobby", "slip").returncode == 1
    assert [(e["seq"], e["nick"], e["kind"], e["text"], e.get("target")) for e in events] == LOG
    transcript = (old / "transcript.txt").read_text("utf-8")
    assert all(json.dumps(event, separators=(",", ":")) in transcript for event in events)
    assert [event["seq"] for event in events if event.get("bot")] == [2]
    by_key = {nick: {e["key"] for e in events if e["nick"] == nick} for nick in ("greeter", "ann", "bob", "小北")}
    assert all(len(found) == 1 for found in by_key.values())
    assert len(set.union(*by_key.values())) == (4 if (old / "bob/identities").exists() else 3)  # or 小北 is bob's key


def test_a_stored_message_that_was_never_confirmed_is_settled_and_not_doubled(old: Path) -> None:
    with opened(old, *BOTH):
        for pending in (["unconfirmed"], []):
            with Program(old / "ann", "join", "lobby", "--as=ann", "--json") as ann:
                joined = ann.until("joined")
                assert joined["pending"] == pending
                assert (joined["me"]["nick"], joined["me"]["role"]) == ("ann", "owner")
                assert joined["me"]["key"] == keys(old)["ann"]
                assert ann.finish() == 0
            assert [e["id"] for e in ann.seen if e["event"] == "stored"] == pending
        assert [event["text"] for event in logged(old / "ann")].count(UNCONFIRMED) == 1


def test_a_member_enters_without_an_invite_and_its_waiting_message_arrives_once(old: Path, tmp_path: Path) -> None:
    with opened(old, *TCP) as address:
        for pending in (["waiting"], []):
            with Program(old / "bob", "join", address, "--as=bob", "--json") as bob:
                joined = bob.until("joined")
                assert joined["pending"] == pending
                assert (joined["me"]["nick"], joined["me"]["role"]) == ("bob", "member")
                assert joined["me"]["key"] == keys(old)["bob"]
                assert bob.finish() == 0
            assert [e["id"] for e in bob.seen if e["event"] == "stored"] == pending
        events = [event for event in logged(old / "ann") if event["text"] == WAITING]
        assert [(event["nick"], event["seq"] > 24) for event in events] == [("bob", True)]
        refused = run(tmp_path / "cid", "join", address, "--json")
        assert (refused.returncode, json.loads(refused.stdout)["code"]) == (3, "not-invited")


def test_invites_open_the_room_as_often_and_as_long_as_they_said(old: Path, tmp_path: Path) -> None:
    def enter(name: str, who: str) -> str:
        done = run(tmp_path / who, "join", invite(old, name, address), f"--as={who}", "--json")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return next((e["code"] for e in events if e["event"] == "refused"), "") or f"exit code {done.returncode}"

    with opened(old, *TCP) as address:
        assert enter("spent", "cid") == "invite-used"
        assert enter("short", "cid") == "invite-expired"
        assert enter("open", "cid") == "exit code 0"
        assert enter("open", "dan") == "exit code 0"
        assert enter("open", "eve") == "invite-used"


def test_nicknames_belong_to_their_keys(old: Path, tmp_path: Path) -> None:
    with opened(old, *TCP) as address:
        standing = run(old / "ann", "invite", "new", "lobby").stdout.strip()  # each nickname of cid's has its own key
        for nick in ("ann", "bob", "小北", "greeter"):
            with Program(tmp_path / "cid", "join", standing, f"--as={nick}", "--json") as cid:
                assert cid.until("joined")["me"]["nick"] == f"{nick}-2"
        with Program(old / "bob", "join", address, "--as=小北", "--json") as bob:
            me = bob.until("joined")["me"]
            assert (me["nick"], me["key"]) == ("小北", keys(old)["小北"])


def test_the_direct_room_has_what_was_said_in_it(old: Path) -> None:
    environment = {**os.environ, "TERM": "dumb"}
    with (
        opened(old, *BOTH) as address,
        Program(old / "ann", "join", "lobby", "--as=ann", "--json") as ann,
    ):
        ann.until("joined")  # before bob, whose face must know her when he writes to her
        with Window([*CHAT, "join", address, "--as=bob", f"--data={old / 'bob'}"], environment) as bob:
            bob.until("here: ")
            bob.type("/msg ann")
            assert bob.until("看得见").endswith(" bob: 只有你看得见 #2")
            assert bob.until("知道了").endswith(" ann: 知道了 #4")


def test_reading_goes_on_where_it_stopped_with_the_settings_of_then(old: Path) -> None:
    assert [run(old / "bob", "config", "get", key).stdout.strip() for key in ("theme", "time_format", "muted")] == [
        "high-contrast",
        "%H.%M",
        '["lobby"]',
    ]
    environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with (
        opened(old, *TCP) as address,
        Window([*CHAT, "join", address, "--as=bob", f"--data={old / 'bob'}"], environment) as bob,
    ):
        bob.shows("host was away ✓")
        rows = bob.screen()
    (first,) = (number for number, row in enumerate(rows) if "bob has not read this" in row)
    assert re.match(r"▌\d\d\.\d\d +ann │ bob has not read this", rows[first])
    assert " new ──" in rows[first - 1]
    assert sum("new" in row for row in rows[:first]) == 1
