"""Space that a host keeps for itself, so that it can open its database on a disk that has become full.

To open it, even for reading, SQLite makes the index of the WAL anew: 32 KiB for each 4,096 frames
(https://www.sqlite.org/walformat.html), 128 KiB for as large a WAL as stays on the disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "ballast"
_SIZE: Final = 256 * 1024


def take(folder: Path) -> None:
    """Keep some space, if there is any and none is kept yet."""
    path = folder / _NAME
    with suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, bytes(_SIZE)) < _SIZE:
                path.unlink()
        except OSError:
            path.unlink()
        finally:
            os.close(fd)


def let_go(folder: Path) -> bool:
    """Give the space back; return whether there was any."""
    try:
        (folder / _NAME).unlink()
    except OSError:
        return False
    return True
