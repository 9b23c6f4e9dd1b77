"""Standard streams that are full, closed or gone with their terminal: the exit code is chat's own, not Python's 120."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import DONE, FAILED, USAGE
from tests.cli.programs import CHAT, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = "chat: system: input/output error\n"
ENDS = [  # a command, its exit code and what it says on standard error
    (["--version"], FAILED, GONE),
    (["--help"], FAILED, GONE),
    (["transports"], FAILED, GONE),
    (["completion", "bash"], FAILED, GONE),
    (["nonsense"], USAGE, "chat: no such command 'nonsense'; see: chat --help\n"),
]


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides what is written when Python exits


@contextmanager
def gone() -> Iterator[int]:
    """A terminal whose window is closed: writing to it fails."""
    terminal, ours = pty.openpty()
    os.close(terminal)
    yield ours
    os.close(ours)


@pytest.mark.parametrize(("arguments", "code", "message"), ENDS, ids=[arguments[0] for arguments, *_ in ENDS])
def test_a_terminal_that_is_gone_is_one_line_on_standard_error(arguments: list[str], code: int, message: str) -> None:
    with gone() as terminal:
        done = subprocess.run([*CHAT, *arguments], stdout=terminal, stderr=subprocess.PIPE, check=False, text=True)
        silent = subprocess.run([*CHAT, *arguments], stdout=terminal, stderr=terminal, check=False)
    assert (done.returncode, done.stderr) == (code, message)
    assert silent.returncode == code


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_a_full_disk_is_one_line_on_standard_error() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*CHAT, "--version"], stdout=full, stderr=subprocess.PIPE, check=False, text=True)
        assert (done.returncode, done.stderr) == (FAILED, "chat: system: no space left on device\n")
        assert subprocess.run([*CHAT, "--version"], stdout=full, stderr=full, check=False).returncode == FAILED


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *CHAT, "transports"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (DONE, b"")


@pytest.mark.parametrize("face", [[], ["--plain"], ["--json"]], ids=["screen", "plain", "json"])
def test_a_window_that_is_closed_ends_its_room(face: list[str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal, ours = pty.openpty()
    try:
        command = [*CHAT, "host", *face, f"--data={home}"]
        process = subprocess.Popen(command, stdin=ours, stdout=ours, stderr=ours, start_new_session=True)
    finally:
        os.close(ours)
    with process:
        written = b""
        deadline = time.monotonic() + PATIENCE
        while b"/help" not in written and b'"presence"' not in written:
            assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], written
            written += os.read(terminal, 65_536)
        os.close(terminal)
        try:
            assert process.wait(PATIENCE) == DONE
        finally:
            process.kill()
