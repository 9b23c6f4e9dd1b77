"""Which files are left after everybody has left in order. docs/reference/files.md has those of a running host."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.local.rooms import runtime_folder
from tests.cli.programs import Program, host, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator


def files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_room_that_was_closed_leaves_its_log_and_nothing_that_runs(tmp_path: Path, end: signal.Signals) -> None:
    data = tmp_path / "host"
    with host(data, "-t", "tcp:127.0.0.1:0?tls=0", "-t", "queue", "-t", "pipe", "--peer", "echo=cat") as room:
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
            ann.until("joined")
            for number in range(300):
                ann.say(f"hello {number}")
            until(lambda: "hello 7" in run(tmp_path / "ann", "search", "lobby", "hello 7").stdout, "search finds it")
        room.process.send_signal(end)
        room.process.wait(30)
    left = {Path(file).name for file in files(data / "rooms") if "/peers/" not in file}
    assert left == {"ballast", "log.db", "log.mark", "search-1.db"}
    assert list(files(runtime_folder())) == []


def test_looking_for_rooms_leaves_nothing(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        room.kill()
    assert run(tmp_path / "ann", "rooms").stdout == ""
    assert {Path(file).name for file in files(runtime_folder())} == {"board", "queue"}
    with host(tmp_path / "host") as room:
        room.process.terminate()
        room.process.wait(30)
    assert list(files(runtime_folder())) == []
    run(tmp_path / "ann", "rooms")
    run(tmp_path / "ann", "join", "lobby", "--json")
    assert list(files(runtime_folder())) == []
