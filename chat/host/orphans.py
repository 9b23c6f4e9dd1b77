"""How no process that a program started outlives it.

On Linux the kernel gives an orphan to its nearest ancestor that has asked for orphans (PR_SET_CHILD_SUBREAPER,
prctl(2)), even if it has left its group and session, as daemons do; and it lists everybody's children
(/proc/PID/task/TID/children, proc(5)).

    host (adopts) ── peer process (adopts) ── COMMAND ── what it starts
      gets what a killed peer process leaves       └── and what that leaves behind

Rules:

1. Only a process that starts nothing but programs of a room may adopt: it kills every other child as an orphan.
   So an embedded host adopts only if its program says so.
2. If host and peer process are killed in the same instant, a process that moved to another session stays.
3. Other systems have no such call: there, only what stays in a program's process group is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER: Final = 36
_PAUSE: Final = 0.01  # seconds between two rounds of killing
_ROUNDS: Final = 300  # then give up on what the kernel does not end, such as a process whose disk hangs

_prctl: Final = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_adopting = False


def adopt_orphans() -> None:
    """From now on what our children leave behind becomes our child, for ``end_orphans`` to kill."""
    global _adopting  # noqa: PLW0603 - it is the process that adopts
    if _prctl is not None:
        _adopting = _prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0


async def end_orphans(ours: Collection[int] = ()) -> None:
    """Kill our children but ``ours`` (process ids), and theirs, until none is left; for 3 s at most."""
    for _ in range(_ROUNDS if _adopting else 0):
        orphans = [pid for pid in _children() if pid not in ours]
        if not orphans:
            return
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):  # it may have become another user's
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
        await asyncio.sleep(_PAUSE)


def _children() -> list[int]:
    while True:
        try:
            lists = [(task / "children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
            return [int(pid) for pids in lists for pid in pids.split()]
        except (FileNotFoundError, ProcessLookupError):
            # A thread ended, and its children are another thread's now: read again, or one may be missed.
            if not Path(f"/proc/self/task/{os.getpid()}/children").exists():  # this kernel lists none
                return []
        except OSError:
            return []


def die_with_parent(parent: int) -> None:
    """Have the kernel kill us when our parent, this process id, ends. Linux only; exec keeps it."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended since the fork, so no signal will come
            os.kill(os.getpid(), signal.SIGKILL)


def wake_with_parent() -> None:
    """Have the kernel continue us when our parent ends: a stopped process (SIGSTOP) could not clean up."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
