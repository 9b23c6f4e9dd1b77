"""The runtime folder goes under a running host: last logout, a cleaner of /tmp. The room is soon found again."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import ChatError, NoSuchRoom
from chat.local.rooms import RoomLock, RoomRecord, find, runtime_folder
from tests.cli.programs import Program, host, run, until

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("board", "card", "lock", "pipe", "queue")


def files() -> dict[str, Path]:
    return {path.name: path for path in runtime_folder().glob("*/*") if path.name in NAMES}


@pytest.mark.parametrize("whole", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["the folder", "each file"])
def test_a_room_is_found_again_after_its_runtime_folder_was_removed(tmp_path: Path, whole: bool) -> None:
    options = ("--transport=queue", "--transport=pipe", "--open")
    with host(tmp_path / "host", *options) as room, Program(tmp_path / "ann", "join", "--json", "--as=ann") as ann:
        ann.until("joined")
        assert sorted(files()) == sorted(NAMES)
        held = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for name, path in files().items() if name != "queue"]
        try:  # held, so that no new file has an old one's inode number
            if whole:
                shutil.rmtree(runtime_folder())
            else:
                for path in files().values():
                    path.unlink()
            until(lambda: sorted(files()) == sorted(NAMES), "everything is there again")
        finally:
            for fd in held:
                os.close(fd)
        assert find("lobby").pid == room.process.pid
        for scheme in ("queue", "pipe"):
            sent = run(tmp_path / "bob", "send", f"--transport={scheme}", ".", f"by {scheme}")
            assert sent.returncode == 0, sent.stderr
            ann.until("message", lambda event, text=f"by {scheme}": event["text"] == text)  # type: ignore[misc]
        until(lambda: run(tmp_path / "bob", "who").stdout == "ann\n", "ann is on the new board")
        second = run(tmp_path / "second", "host", "--headless")
        assert second.returncode == 1
        assert "already open" in second.stderr
        assert room.told().count("was removed, and is made anew") == 1


def test_a_room_goes_on_where_its_folder_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tmp_path / "run"
    monkeypatch.setenv("CHAT_RUNTIME", str(parent / "manywire"))
    lock = RoomLock.hold("tea")
    record = RoomRecord(room="tea", addresses=[], host="00", invite="chat://x", pid=os.getpid(), started=5)
    lock.write(record)
    assert not lock.renew()
    shutil.rmtree(parent)
    parent.write_text("")  # as /run is to everybody but root
    with pytest.raises(ChatError, match="loginctl enable-linger"):
        lock.renew()
    parent.unlink()
    assert lock.renew()
    assert not lock.renew()
    assert find("tea") == record
    lock.close()
    with pytest.raises(NoSuchRoom):
        find("tea")


def test_a_room_that_another_host_took_meanwhile_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "run"))
    first = RoomLock.hold("tea")
    first.write(RoomRecord(room="tea", addresses=[], host="00", invite="chat://x", pid=1, started=5))
    shutil.rmtree(first.folder)
    second = RoomLock.hold("tea")  # the room of another data folder
    second.write(RoomRecord(room="tea", addresses=[], host="11", invite="chat://y", pid=2, started=6))
    with pytest.raises(ChatError, match="already open"):
        first.renew()
    first.close()
    assert find("tea").host == "11"
    second.close()
