"""``chat send``, ``chat log`` and ``chat search``."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.cli.oneshot import print_search
from chat.client import connection
from chat.local.rooms import RoomLock, RoomRecord
from tests.cli.programs import CHAT, Program, host, run, run_here
from tests.data.make import Window
from tests.host import host_fixture

if TYPE_CHECKING:
    from pathlib import Path


def test_log_follow_tells_of_a_dead_host(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "log", "-f", "--json") as log:
        run(tmp_path / "bob", "send", ".", "one")
        log.until("message")
        room.kill()
        assert log.until("link")["state"] == "lost"


def test_send_into_a_dead_host_fails_and_says_so(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        invite = room.seen[0]["invite"]
        assert run(tmp_path / "ann", "send", invite, "hello").returncode == 0
    for target in (invite, "lobby", "."):
        done = run(tmp_path / "ann", "send", target, "lost?")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("chat: ")
        assert done.stderr.count("\n") == 1


def test_a_message_that_was_not_confirmed_in_time_is_said_to_wait_and_is_said_once(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        unsure = run(tmp_path / "ann", "send", ".", "hello", "--wait", "0")
        assert unsure.returncode == 4
        assert "it stays in the outbox" in unsure.stderr
        assert run(tmp_path / "ann", "send", ".", "-", stdin="again\n").returncode == 0
        logged = run(tmp_path / "ann", "log", "--json").stdout.splitlines()
        assert [json.loads(line)["text"] for line in logged] == ["hello", "again"]


def test_rooms_align_on_a_terminal_and_have_tabs_elsewhere(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    with ExitStack() as locks:
        for room in ("tea", "茶馆大厅"):
            lock = locks.enter_context(closing(RoomLock.hold(room)))
            lock.write(RoomRecord(room=room, addresses=["queue:x"], host="", invite="x", pid=1, started=now))
        piped = run_here(tmp_path, "rooms").stdout.splitlines()
        assert piped == ["tea\tqueue\t\topen for 0 min", "茶馆大厅\tqueue\t\topen for 0 min"]
        with Window([*CHAT, "rooms"], {**os.environ, "LC_ALL": "C.UTF-8"}) as shown:
            shown.until("茶馆大厅  queue  open for 0 min")
            assert "tea       queue  open for 0 min" in shown.screen()[0]
        with Window([*CHAT, "log", f"--data={tmp_path}"], {**os.environ, "LC_ALL": "C.UTF-8"}) as asks:
            asks.shows("which room (tea, 茶馆大厅)")
            asks.type("garden")
            asks.until("chat: there is no room garden here")


def test_log_follow_goes_on(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "ann", "log", "-f", "--json") as log:
        for text in ("one", "two"):
            run(tmp_path / "bob", "send", ".", text)
            assert log.until("message")["text"] == text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ann"


def test_chat_search_prints_what_it_finds_newest_last(folder: Path) -> None:
    with host(folder), Program(folder, "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        seqs = []
        for text in ("我们去北京吧", "cats and\ndogs", "北京 is far", *["filler"] * 600, "cats"):
            ann.say(text, text)
            seqs.append(ann.until("stored")["seq"])
        found = run(folder, "search", ".", "北京")
        assert (found.returncode, found.stderr) == (0, "")
        first, second = found.stdout.splitlines()
        assert first.startswith(f"{seqs[0]}  ")
        assert first.endswith(" ann: 我们去北京吧")
        assert second.startswith(f"{seqs[2]}  ")
        assert second.endswith(" ann: 北京 is far")

        found = run(folder, "search", "--json", ".", "cats", "from:ann")  # far apart: two readers
        assert [json.loads(line)["seq"] for line in found.stdout.splitlines()] == [seqs[1], seqs[-1]]
        assert json.loads(found.stdout.splitlines()[0])["text"] == "cats and\ndogs"
        found = run(folder, "search", ".", "cats -dogs")
        assert [line[:5].split()[0] for line in found.stdout.splitlines()] == [str(seqs[-1])]

        found = run(folder, "search", "-n", "1", ".", "cats")
        assert found.stdout.splitlines()[0].endswith("ann: cats")
        assert found.stderr == f"chat: there are older matches; add --before {seqs[-1]}\n"
        found = run(folder, "search", "--before", str(seqs[-1]), ".", "cats")
        assert [line.split()[0] for line in found.stdout.splitlines()] == [str(seqs[1])] * 2  # it has two lines


def test_what_is_not_found_and_what_cannot_be_searched(folder: Path) -> None:
    with host(folder):
        for words, why in (
            (["absent"], "nothing was found; try other words, or fewer"),
            (["?!"], "there is nothing to search for: it has no letter and no digit; give a word"),
            (['"', "AND", "NOT", "*"], "nothing was found; try other words, or fewer"),
        ):
            found = run(folder, "search", ".", *words)
            assert (found.returncode, found.stdout, found.stderr) == (1, "", f"chat: {why}\n")
        assert run(folder, "search", ".").returncode == 2
        alone = run(folder, "who", ".")
        assert (alone.returncode, alone.stdout, alone.stderr) == (0, "", "chat: nobody is in the room\n")
        assert run(folder, "who", ".", "--json").stderr == ""
    assert run(folder, "search", ".", "word").returncode == 4


def test_a_search_ends_in_a_room_where_more_is_said_than_a_client_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection, "_EVENTS", 4)

    async def scene() -> None:
        async with host_fixture.HostFixture(tmp_path) as fixture:
            async with fixture.client("ann") as ann:
                await ann.stored(*[await ann.say(f"needle {number}") for number in range(10)])
            await print_search(fixture.client("", reads_only=True), "needle", limit=10, before=0, as_json=False)

    host_fixture.run(scene())
    assert capfd.readouterr().out.count("needle") == 10
