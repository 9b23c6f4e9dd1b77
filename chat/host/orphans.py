"""Processes that outlive their parents: how none of a program's does.

On Linux a process whose parent has ended goes to the nearest of its ancestors that has asked for orphans
(PR_SET_CHILD_SUBREAPER, prctl(2)), wherever it has moved: out of its group, to a session of its own, as daemons
do. And the kernel lists everybody's children (/proc/PID/task/TID/children, proc(5)). So who adopts need not guess.

    host (adopts) ── peer process (adopts) ── COMMAND ── what it has started
      gets what a killed peer process leaves       └── and what that leaves behind

Rules:

1. Only a process that starts nothing but programs of a room may adopt: it takes every other child for an
   orphan, and kills it. So an embedded host does not, unless its program says so.
2. One case is beyond us: where host and peer process are killed in the same instant, nobody is left to look, and what
   a program has moved to another session stays.
3. Elsewhere there is no such thing. What stays in its process group is found there, too; the rest is not.
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
_ROUND: Final = 0.01  # seconds between two looks
_ROUNDS: Final = 300  # what the kernel does not end in that time (a disk that hangs) does not hold us for ever

_prctl: Final = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_adopting = False


def adopt_orphans() -> None:
    """From now on what our children leave behind becomes our child, and ``end_orphans`` ends it."""
    global _adopting  # noqa: PLW0603 - it is the process that adopts
    if _prctl is not None:
        _adopting = _prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0


async def end_orphans(ours: Collection[int] = ()) -> None:
    """Kill our children but ``ours`` (process ids), and what they leave, until there are none: 3 s at most."""
    for _ in range(_ROUNDS):
        orphans = [pid for pid in _children() if pid not in ours] if _adopting else []
        if not orphans:
            return
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):  # it may have become another user's
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
        await asyncio.sleep(_ROUND)


def _children() -> list[int]:
    while True:
        try:
            lists = [(task / "children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
            return [int(pid) for pids in lists for pid in pids.split()]
        except (FileNotFoundError, ProcessLookupError):
            # A thread ended meanwhile, and its children are another's now: look again, or one may not be seen.
            if not Path(f"/proc/self/task/{os.getpid()}/children").exists():  # this kernel lists none at all
                return []
        except OSError:
            return []


def die_with_parent(parent: int) -> None:
    """Have the kernel kill us when our parent, this process id, ends, however it does. Linux only, and kept by exec."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended since the fork, so no signal will come
            os.kill(os.getpid(), signal.SIGKILL)


def wake_with_parent() -> None:
    """Have the kernel continue us when our parent ends: who is stopped (SIGSTOP) could not see it, nor clear up."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
