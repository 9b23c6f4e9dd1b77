"""`--keep`: old messages go, by size or by age, whatever the clock says; and what is left is still proved."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Gap
from chat.core.errors import AddressError
from chat.host.backup import backup, verify
from chat.host.keep import Keep, RoomClock, cut_off
from chat.host.repair import check, repair
from chat.host.store import Store
from tests.cli.programs import Program, host, run, until
from tests.faults.test_repair import content, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 86_400


@pytest.mark.parametrize(
    ("limits", "keep"),
    [
        ([], Keep()),
        (["500M"], Keep(size=500 * 2**20)),
        (["30d", "2G"], Keep(2 * 2**30, 30 * DAY * 1000)),
        (["2w"], Keep(age=14 * DAY * 1000)),
    ],
)
def test_limits(limits: list[str], keep: Keep) -> None:
    assert Keep.parse_all(limits) == keep


@pytest.mark.parametrize("limit", ["", "0d", "-1d", "5", "5m", "1.5G", "d", "5D", "9999999G"])
def test_what_is_no_limit_is_said_so(limit: str) -> None:
    with pytest.raises(AddressError, match="neither a size like 500M nor an age like 30d"):
        Keep.parse_all([limit])


def test_a_message_ages_by_the_monotonic_clock_alone() -> None:
    clock, wall = RoomClock(start=1_000_000, monotonic=500.0), 1000.0
    assert clock.at(wall, 500.0) == 1_000_000
    assert clock.at(wall + 60, 560.0) == 1_060_000
    assert clock.at(wall + 90 * DAY, 561.0) == 1_061_000  # it jumped ahead
    assert clock.at(wall + 30, 562.0) == 1_030_000  # and back
    assert clock.at(wall + 120, 620.0) == 1_120_000


def test_a_cut_room_is_smaller_still_proved_and_goes_on(tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "copy"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 3000)
        direct = fill(store, "other", 100)
        room = store.open_room("lobby").id
        store._database.execute("PRAGMA secure_delete = OFF")  # else some builds of SQLite overwrite what is deleted
        while cut_off(store, room, Keep(size=400_000)):
            pass
        kept = content(store, "lobby")
        assert list(kept) == list(frames)[-len(kept) :]
        assert 1000 < len(kept) < 2000
        assert kept.items() <= frames.items()
        assert content(store, "other") == direct
        marks = sorted(store.open_room("lobby").tables.high_water)
    assert check(folder, "lobby").is_sound
    backup(folder, file)
    saved, other = verify(file)
    assert (saved.first, saved.last, saved.lost) == (min(kept), max(kept), [])
    assert repair(folder, "lobby").rooms == [saved, other]  # and nothing that was let go of comes back
    with closing(Store(folder)) as store:
        assert sorted(store.open_room("lobby").tables.high_water) == marks
        assert content(store, "lobby") == kept
        cut_off(store, room, Keep(size=1))  # the newest batch stays
        assert max(kept) in content(store, "lobby")
    (saved, _other) = verify(folder / "log.db")
    assert saved.lost == []
    repair(folder, "lobby")  # most streams have no message left that says how far they have come
    with closing(Store(folder)) as store:
        assert sorted(store.open_room("lobby").tables.high_water) == marks


def test_the_batch_that_the_mark_names_stays(tmp_path: Path) -> None:
    """After a power cut the mark may be old. Without its batch the room could not be opened again."""
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 500)
        room, middle = store.open_room("lobby").id, store.open_room("lobby").next_seq - 1
    mark = (folder / "log.mark").read_bytes()
    with closing(Store(folder)) as store:
        fill(store, "lobby", 500)
    (folder / "log.mark").write_bytes(mark)
    with closing(Store(folder)) as store:
        while cut_off(store, room, Keep(size=1)):
            pass
        assert 0 <= middle - min(content(store, "lobby")) < 40


def test_a_loss_behind_a_cut_is_told_from_the_cut(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 1000)
        cut_off(store, store.open_room("lobby").id, Keep(size=150_000))
        first = min(content(store, "lobby"))
    data = bytearray((folder / "log.db").read_bytes())
    at = data.index(first.to_bytes(8))  # in the header of the first message that is kept
    data[at + 20] ^= 1
    (folder / "log.db").write_bytes(data)
    (room,) = check(folder, "lobby").rooms
    assert [gap.first for gap in room.lost] == [first]


def test_a_damaged_batch_stops_no_cut(tmp_path: Path) -> None:
    """The times in it may be any, and its frames may have any length."""
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 1000)
    data = bytearray((folder / "log.db").read_bytes())
    for number, at, byte in ((10, 0, 255), (200, 24, 64)):  # its length, its time
        data[data.index(frames[number][:32]) + at] ^= byte
    (folder / "log.db").write_bytes(data)
    with closing(Store(folder)) as store:
        room = store.open_room("lobby").id
        cut_off(store, room, Keep(size=2**30))
        assert store.read(room, 1) == Gap(first=1, count=min(content(store, "lobby")) - 1)
        assert 1000 + 300 < int.from_bytes(frames[350][24:32]) < 1000 + 400  # when it was said
        cut_off(store, room, Keep(age=100), now=1000 + 400 + 100)
        assert 300 < min(content(store, "lobby")) <= 410


def test_a_database_that_is_busy_at_the_start_ends_no_host(tmp_path: Path) -> None:
    ann = tmp_path / "ann"
    with host(ann, "lobby"):
        assert run(ann, "send", "lobby", "hello").returncode == 0
    (path,) = ann.glob("rooms/*/log.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with host(ann, "lobby", "--keep=1h"), Program(ann, "join", "lobby", "--json") as member:
            member.say("meanwhile", "meanwhile")
            assert member.until("notice")["code"] == "disk-waits"
            other.execute("ROLLBACK")
            assert member.until("stored")


@contextmanager
def two_days_ahead(folder: Path, *arguments: str) -> Iterator[None]:
    """A host whose clock is wrong."""
    code = f"import time; ns = time.time_ns; time.time_ns = lambda: ns() + {2 * DAY} * 10**9;"
    code += "time.time = lambda: time.time_ns() / 1e9; from chat.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", code, "host", "--headless", "--json", f"--data={folder}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "listening"
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_members_are_told_what_is_gone_and_a_wrong_clock_deletes_nothing(tmp_path: Path) -> None:
    """One half of the messages is a month older than the other."""
    ann, file = tmp_path / "ann", tmp_path / "old.ndjson"
    now = datetime.now(UTC) - timedelta(minutes=1)
    times = [now - timedelta(days=30)] * 600 + [now] * 5
    said = {"event": "message", "nick": "ann", "key": "00" * 32, "kind": "say"}
    lines = [{**said, "seq": n, "time": time.isoformat(), "text": f"{n}."} for n, time in enumerate(times)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(ann, "import", str(file), "lobby").returncode == 0

    def told() -> list[str]:
        return run(ann, "log", "lobby", "--lang=en").stdout.splitlines()

    with host(ann, "lobby"):
        until(lambda: run(ann, "search", "lobby", "3").stdout.endswith(": 3.\n"), "it is indexed")
    with host(ann, "lobby", "--keep=7d") as program:
        until(lambda: "gone for good" in told()[0], "the old half is gone")
        gap, *kept = told()
        assert kept[-1].endswith(": 604.")
        assert gap == f"* {601 + 5 - len(kept)} messages are gone for good"
        assert "is gone" not in run(ann, "search", "lobby", "3", "--lang=en").stderr
        assert run(ann, "check", "lobby").returncode == 0
        program.process.terminate()
        program.process.wait()
    for _ in range(2):
        with two_days_ahead(ann, "lobby", "--keep=24h"):
            assert run(ann, "send", "lobby", "said in the future").returncode == 0
            found = told()
            assert [line[-5:] for line in found[: len(kept) + 1]] == [line[-5:] for line in (gap, *kept)]
