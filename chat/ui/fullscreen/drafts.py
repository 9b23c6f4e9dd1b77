"""Drafts on disk: what is not sent yet outlives its window.

    FOLDER/HASH.RANDOM.draft    0600: HASH names the room; held (flock) by the window in which it is written

A window that enters a room takes over one draft that no other window holds. A draft goes with its text: when that is
sent or deleted.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.wire import MAX_TEXT
from chat.local.invite import is_invite
from chat.local.private_files import remove_lock, try_lock, unlock

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT: Final = MAX_TEXT  # bytes of a draft on disk; what is longer cannot be sent, and its end is not kept


class DraftFile:
    """The file of one draft. A disk that fails costs drafts, and nothing else. Invites are secrets, and stay off it."""

    def __init__(self, folder: Path | None, name: str) -> None:
        """Without a folder, nothing is kept."""
        self._folder = folder
        self._name = name
        self._path: Path | None = None
        self._fd = -1
        self._kept = ""

    def take_over(self) -> str:
        """Return the newest text that a window has left, "" for none."""
        if self._folder is None:
            return ""
        with suppress(OSError):
            left = sorted(self._folder.glob(f"{self._name}.*.draft"), key=lambda path: path.stat().st_mtime_ns)
            for path in reversed(left):
                if (fd := try_lock(path)) is None:
                    continue
                if text := os.pread(fd, _LIMIT, 0).decode("utf-8", "ignore"):
                    self._path, self._fd, self._kept = path, fd, text
                    return text
                remove_lock(path, fd)
        return ""

    def keep(self, text: str) -> None:
        """Have this text on the disk, or no file for a text without content."""
        if self._folder is None or text == self._kept:
            return
        self._kept = text
        data = b"" if is_invite(text) else text.encode("utf-8", "replace")[:_LIMIT]
        with suppress(OSError):
            if data.strip():
                if self._path is None:
                    path = self._folder / f"{self._name}.{secrets.token_hex(4)}.draft"
                    fd = try_lock(path)
                    if fd is None:  # it is a new name
                        return
                    self._path, self._fd = path, fd
                os.pwrite(self._fd, data, 0)
                os.ftruncate(self._fd, len(data))
            elif self._path is not None:
                path, self._path = self._path, None
                remove_lock(path, self._fd)

    def close(self) -> None:
        """Leave the draft to the next window."""
        if self._path is not None:
            self._path = None
            unlock(self._fd)
