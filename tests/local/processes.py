"""Processes that run a piece of code at the same time, and what they leave on the disk."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that waits for a line (so that many can start at once), then runs ``code``."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; from pathlib import Path; input()\n{code}",
            *map(str, arguments),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
