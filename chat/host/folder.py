"""A room's folder, which may come from somebody else: nothing in it is opened before it is checked.

SQLite follows links, and Python cannot tell it not to. So the files are checked first. Nobody can put another in place
between: the folder is its user's alone.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.errors import StoreError
from chat.local.private_files import check_regular, make_private, remove_lock, try_lock

if TYPE_CHECKING:
    from pathlib import Path

KEPT_WAL: Final = "log.db-wal.kept"  # another name of the last WAL, until it is known that nothing was lost with it
_OURS: Final = re.compile(
    r"lock|log\.mark|host\.log|log\.db-wal\.kept|log\.db\.replaced-\d+(-wal)?|(log|search-\d+)\.db(-wal|-shm|-journal)?"
)


def check_folder(folder: Path) -> Path:
    """Make a room's folder if it is missing, and check it and each file that a host may open in it. Return it.

    Raises ChatError for a link, a FIFO, and what is another user's or open to others; OSError.
    """
    make_private(folder)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            with suppress(FileNotFoundError):  # its host is at work
                check_regular(path, path.lstat())
    return folder


def lock_folder(folder: Path) -> int:
    """Lock a room's folder for its host; return what ``unlock_folder`` takes. Raises ChatError, OSError."""
    fd = try_lock(check_folder(folder) / "lock")
    if fd is None:
        raise StoreError("another host uses {folder}; stop it, or choose another folder with --data", folder=folder)
    return fd


def unlock_folder(folder: Path, fd: int) -> None:
    remove_lock(folder / "lock", fd)


def keep_wal(folder: Path) -> None:
    """Keep what a killed host left in its WAL: SQLite removes it when it closes, also what it could not read."""
    with suppress(OSError):
        os.link(folder / "log.db-wal", folder / KEPT_WAL)
