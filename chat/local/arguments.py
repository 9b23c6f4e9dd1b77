"""This process's arguments, as other users see them in ``ps``."""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROCESS: Final = Path("/proc/self")
_ARG_START: Final = 48 - 3  # proc_pid_stat(5): the field that says where arguments begin, counted behind the name
_UNSEEN: Final = re.compile(r"[^!-=?-~]")  # what may stand within an invite that was pasted: blanks, marks of a quote


def hide_invites() -> None:
    """Overwrite each argument that holds an invite with asterisks, in the memory that ``ps`` reads.

    Python has its own copies. Does nothing where there is no /proc, as on macOS, or the kernel refuses.
    """
    with suppress(OSError):
        arguments = (_PROCESS / "cmdline").read_bytes().split(b"\0")
        if not any(map(_holds_invite, arguments)):
            return
        stat = (_PROCESS / "stat").read_bytes()
        place = int(stat.rpartition(b")")[2].split()[_ARG_START])
        with (_PROCESS / "mem").open("r+b", buffering=0) as memory:
            for argument in arguments:
                if _holds_invite(argument):
                    os.pwrite(memory.fileno(), b"*" * len(argument), place)
                place += len(argument) + 1


def _holds_invite(argument: bytes) -> bool:
    """Whether there may be an invite in it: as ``chat.local.invite`` reads one, or a little more."""
    text = unicodedata.normalize("NFKC", argument.decode("utf-8", "replace"))
    return "chat:/" in _UNSEEN.sub("", text).lower()
