"""The input history of one room, on disk."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prompt_toolkit.history import History

from chat.core.errors import reason
from chat.i18n import _, translate
from chat.local.private_files import replace_private
from chat.ui.fullscreen.wrapping import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_MAX_SIZE: Final = 256 * 1024  # bytes of the file that are read; it is cut at twice the size


class RoomHistory(History):
    """What was sent in one room, in a file (0600) of JSON strings, one a line, the newest last.

    Without a file it lasts as long as this object. One append writes a line, so programs that share the file do not
    mix their lines. Invites are secrets: a text with one stays off the disk.
    """

    def __init__(self, file: Path | None, report: Callable[[str], None]) -> None:
        super().__init__()
        self.on_disk = True  # whether new texts go into the file
        self._file = file
        self._report = report
        self._failed = False

    def load_history_strings(self) -> Iterable[str]:
        """Yield the newest first. Called by prompt_toolkit, once."""
        if self._file is None:
            return
        try:
            with self._file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                opened.seek(max(0, size - _MAX_SIZE))
                data = opened.read()
        except FileNotFoundError:
            return
        except OSError as error:
            self._fail(error)
            return
        if size > 2 * _MAX_SIZE:
            data = data.partition(b"\n")[2]  # the first line has lost its beginning
            with suppress(OSError):  # else the next time
                os.close(replace_private(self._file, data))
        for line in reversed(data.splitlines()):
            with suppress(ValueError):  # a torn write, or somebody's edit
                entry = json.loads(line)
                if isinstance(entry, str):
                    yield clean(entry)

    def store_string(self, string: str) -> None:
        """Append a text that was sent. Called by prompt_toolkit."""
        if self._file is None or not self.on_disk or "chat://" in string:
            return
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(fd, json.dumps(string).encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._failed:  # once is enough
            self._failed = True
            message = _("the history of what you send is not kept: {reason}; mend that, and start again")
            self._report(message.format(reason=translate(reason(error))))
