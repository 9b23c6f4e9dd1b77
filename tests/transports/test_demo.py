"""Every transport's file runs by itself and shows two people what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "transports").glob("[!_]*.py"))


@pytest.mark.parametrize("name", LESSONS)
def test_the_echo_runs(name: str) -> None:
    words = [sys.executable, "-W", "error", "-X", "dev", "-m", f"transports.{name}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    # -X dev has asyncio tell of slow steps, too: on a busy machine any is.
    errors = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, errors) == (0, [])
    assert "hello" in done.stdout


@pytest.mark.parametrize("name", LESSONS)
def test_it_is_a_lesson(name: str) -> None:
    text = (ROOT / f"transports/{name}.py").read_text("utf-8")
    for part in ("What it is:", "When to choose it:", "Four facts:", "Traps:", 'if __name__ == "__main__":'):
        assert part in text, f"transports/{name}.py lacks {part!r}"
