"""A room as one file: copied beside a running host, put back, and everybody who saw more is told."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from chat.core.bodies import Gap
from chat.core.errors import ChatError, StoreError
from chat.host.backup import backup, restore, verify
from chat.host.repair import check, repair
from chat.host.store import Store
from tests.cli.programs import Program, host, run
from tests.faults.test_repair import PAGE, content, fill

DATA = Path(__file__).parents[1] / "data"  # data folders as older versions made them


def test_a_backup_beside_a_busy_host_is_of_one_moment(tmp_path: Path) -> None:
    """Every message that was confirmed before it began is in it, and it ends between two commits."""
    with host(tmp_path / "ann", "lobby"), Program(tmp_path / "ann", "join", "lobby", "--json") as ann:
        ann.until("joined")
        copies = []
        for number in range(3):
            for count in range(20):
                ann.say(f"message {number}.{count}", "x")
            seq = ann.until("stored")["seq"]
            copy = tmp_path / f"{number}.backup"
            done = run(tmp_path / "ann", "backup", "lobby", str(copy))
            assert (done.returncode, done.stderr) == (0, "")
            copies.append((seq, copy))
        ann.finish()
    for seq, copy in copies:
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        (saved,) = verify(copy)
        assert (saved.name, saved.lost) == ("lobby", [])
        assert saved.last >= seq
    assert {path.name for path in tmp_path.iterdir()} == {"ann", "0.backup", "1.backup", "2.backup"}


def test_a_backup_replaces_nothing_and_says_what_its_room_has_lost(tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "copy"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 500)
    backup(folder, file)
    with pytest.raises(ChatError, match="exists"):
        backup(folder, file)
    data = bytearray((folder / "log.db").read_bytes())
    data[data.index(frames[100][32:60])] ^= 1
    (folder / "log.db").write_bytes(data)
    (saved,) = backup(folder, tmp_path / "damaged")
    (gap,) = saved.lost
    assert gap.first <= 100 < gap.first + gap.count
    with closing(sqlite3.connect(folder / "log.db")) as database, database:
        database.execute("DELETE FROM batches WHERE at & 0xffffffff = ?", (gap.first,))
    assert backup(folder, tmp_path / "gap") == [saved]


def test_a_damaged_backup_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "copy"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 500)
    backup(folder, file)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    whole = file.read_bytes()
    with closing(sqlite3.connect(file)) as database:
        (index,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").fetchone()
    without = [whole[: page * PAGE] + bytes(PAGE) + whole[(page + 1) * PAGE :] for page in (0, 1, index - 1)]
    for damaged in (whole[:-PAGE], *without, b"x"):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"is damaged|is no backup"):
            restore(file, lambda _name: folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_backup_leaves_what_a_damaged_wal_holds_to_repair(tmp_path: Path) -> None:
    """SQLite drops all that follows a damaged frame, and removes the WAL when it closes."""
    folder, killed = tmp_path / "room", tmp_path / "killed"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 500)
        shutil.copytree(folder, killed)
    data = bytearray((killed / "log.db-wal").read_bytes())
    data[data.index(frames[100][32:60])] ^= 1
    (killed / "log.db-wal").write_bytes(data)
    for _ in range(2):
        assert not check(killed, "lobby").is_sound
        (saved,) = backup(killed, tmp_path / "copy")
        assert (saved.last, saved.lost[-1].first + saved.lost[-1].count) == (max(frames), max(frames) + 1)
        (tmp_path / "copy").unlink()
    (gap,) = repair(killed, "lobby").rooms[0].lost
    assert gap.first <= 100 < gap.first + gap.count < 150
    backup(killed, tmp_path / "copy")
    assert not (killed / "log.db-wal.kept").exists()


def test_a_backup_without_its_room_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 50)
    (folder / "log.db").unlink()
    Store(folder).close()
    (saved,) = backup(folder, tmp_path / "copy")
    assert saved.lost == [Gap(first=1, count=saved.last)]
    (folder / "log.mark").unlink()
    with pytest.raises(StoreError, match="it has no room"):
        backup(folder, tmp_path / "none")


def test_what_is_no_backup_file(tmp_path: Path) -> None:
    """Opening a FIFO would wait for its writer; and a database without its WAL lacks the newest messages."""
    ann, file, folder = tmp_path / "ann", tmp_path / "copy", tmp_path / "room"
    os.mkfifo(file)
    done = run(ann, "restore", str(file), "--lang=en")
    assert (done.returncode, done.stderr) == (1, f"chat: {file} is no backup of a room\n")
    with closing(Store(folder)) as store:
        fill(store, "lobby", 50)
        shutil.copytree(folder, tmp_path / "killed")
    done = run(ann, "restore", str(tmp_path / "killed/log.db"), "--lang=en")
    assert (done.returncode, "log.db-wal is a part of it" in done.stderr) == (1, True)


def test_a_restored_room_is_what_it_was(tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "copy"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 200)
        backup(folder, file)
        fill(store, "other", 50)
        with pytest.raises(StoreError, match="another host uses"):
            restore(file, lambda _name: folder)
    saved, replaced = restore(file, lambda _name: folder)
    assert (saved.name, saved.last, replaced) == ("lobby", max(frames), folder / "log.db.replaced-1")
    assert [one.name for one in verify(folder / "log.db.replaced-1")] == ["lobby", "other"]
    with closing(Store(folder)) as store:
        assert content(store, "lobby") == frames
    assert {path.name for path in folder.iterdir()} == {
        *("ballast", "log.db", "log.mark", "log.db.replaced-1", "log.db.replaced-1.mark")
    }


def private_copy(folder: Path, to: Path) -> None:
    """Copy a folder with the modes that the program had set; git does not keep them."""
    shutil.copytree(folder, to)
    for path in (to, *to.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("form", [path.name for path in DATA.glob("format-*")])
def test_rooms_of_older_formats_can_be_checked_copied_and_repaired(form: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "copy"
    (room,) = (DATA / form / "ann/rooms").iterdir()
    private_copy(room, folder)
    assert check(folder, "lobby").is_sound
    whole = backup(folder, file)
    assert (whole[0].name, whole[0].last, whole[0].lost) == ("lobby", 24, [])
    assert [one.name[:1] for one in whole[1:]] == ["@"]  # the direct room of ann and bob
    assert restore(file, lambda _name: folder)[0] == whole[0]
    shutil.rmtree(folder)
    private_copy(room, folder)
    assert repair(folder, "lobby").rooms == whole
    with closing(Store(folder)) as store:
        assert len(content(store, "lobby")) == 24
        assert len(content(store, whole[1].name)) == whole[1].last


def test_everybody_who_saw_more_is_told_of_a_restored_backup(tmp_path: Path) -> None:
    """Whether they were there all the time, come back with what they hold, or ask for a number beyond its end."""
    ann, copy = tmp_path / "ann", str(tmp_path / "copy")
    port = "tcp:127.0.0.1:0"
    with host(ann, "lobby", "--open", f"-t{port}") as program:
        address = f"{program.seen[0]['address']}/lobby"
        assert run(ann, "send", "lobby", "old").returncode == 0
        assert run(ann, "backup", "lobby", copy).returncode == 0
        with Program(tmp_path / "bob", "join", address, "--as=bob", "--json") as bob:
            bob.until("message")
            assert run(ann, "send", "lobby", "new").returncode == 0
            seq = bob.until("message")["seq"]
            refused = run(ann, "restore", copy)
            assert (refused.returncode, "another host uses" in refused.stderr) == (1, True)
            program.process.terminate()
            program.process.wait()
            done = run(ann, "restore", copy)
            assert (done.returncode, done.stderr) == (0, "")
            with host(ann, "lobby", "--open", f"-t{port}"):
                told = bob.until("rewound")
                assert (told["code"], told["fields"]["held"]) == ("older-copy", seq)
                with Program(tmp_path / "cid", "join", address, "--as=cid", f"--since={seq + 1}", "--json") as cid:
                    told = cid.until("rewound")
                    assert (told["code"], told["fields"]) == ("ends-before", {"end": seq - 1, "number": seq + 1})
                    assert run(ann, "send", "lobby", "another").returncode == 0
                    assert cid.until("message")["text"] == "another"
                assert bob.until("message", lambda event: event["text"] == "another")["seq"] == seq
                said = run(ann, "log", address, f"--since={seq + 5}", "--lang=en")
                assert "the host's log ends at" in said.stdout


def test_who_was_away_while_an_older_copy_grew_again_is_told_what_differs(tmp_path: Path) -> None:
    ann, copy = tmp_path / "ann", str(tmp_path / "copy")
    port = "tcp:127.0.0.1:0"
    with host(ann, "lobby", "--open", f"-t{port}") as program:
        address = f"{program.seen[0]['address']}/lobby"
        assert run(ann, "send", "lobby", "old").returncode == 0
        assert run(ann, "backup", "lobby", copy).returncode == 0
        with Program(tmp_path / "bob", "join", address, "--as=bob", "--json") as bob:
            bob.until("message")
            assert run(ann, "send", "lobby", "new").returncode == 0
            seq = bob.until("message")["seq"]
            bob.process.send_signal(signal.SIGSTOP)
            try:
                program.process.terminate()
                program.process.wait()
                assert run(ann, "restore", copy).returncode == 0
                with host(ann, "lobby", "--open", f"-t{port}"):
                    for text in ("another", "and one more"):
                        assert run(ann, "send", "lobby", text).returncode == 0
                    bob.process.send_signal(signal.SIGCONT)
                    told = bob.until("rewound")
                    assert (told["code"], told["fields"]["number"]) == ("differs", seq)
                    assert bob.until("joined")["resumed"] is False
            finally:
                bob.process.send_signal(signal.SIGCONT)


def test_a_backup_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    done = run(tmp_path, "restore", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert "damaged" not in done.stderr
