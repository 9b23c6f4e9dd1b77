"""Locks whose files go with them: two processes never hold the lock of one name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from chat.local.private_files import locked, remove_lock, try_lock, unlock

if TYPE_CHECKING:
    from pathlib import Path

COUNT = """
import sys
from pathlib import Path
from chat.local.private_files import locked
lock, file = map(Path, sys.argv[1:])
for _ in range(400):
    with locked(lock):
        file.write_text(str(int(file.read_text()) + 1))
"""


def test_a_lock_whose_file_is_removed_each_time_still_keeps_the_others_out(tmp_path: Path) -> None:
    lock, file = tmp_path / "lock", tmp_path / "count"
    file.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, lock, file]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert file.read_text() == "1600"
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_that_is_held_stays_where_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    fd = try_lock(lock)
    assert fd is not None
    assert try_lock(lock) is None
    lock.unlink()  # somebody cleaned up
    other = try_lock(lock)
    assert other is not None
    remove_lock(lock, fd)  # not ours any more
    assert lock.exists()
    unlock(other)
    with locked(lock):
        assert try_lock(lock) is None
    assert not lock.exists()
