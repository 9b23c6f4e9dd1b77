"""What holds for every command: its one-line errors and exit codes, and standard streams that are gone."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import DONE, FAILED, USAGE
from tests.cli.programs import CHAT, PATIENCE, host, run, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["join", "nowhere"], 4, "not open on this machine"),
        (["join"], 4, "open one with: chat host"),
        (["join", "tcp:127.0.0.1:1/x"], 4, "is a host running there?"),
        (["join", "nast:x"], 2, "unknown transport 'nast'"),
        (["join", "chat://127.0.0.1:7/lobby"], 2, "copy the whole line again"),
        (["join", "a b"], 2, "space"),
        (["join", "--as", "$(reboot)"], 2, "nickname"),
        (["host", "a/b"], 2, "solidus"),
        (["host", "--headless", "-t", "tcp:192.0.2.1:0"], 1, "not an address of this machine"),
        (["host", "--headless", "-t", "tcp:0.0.0.0:0?tls=0"], 2, "loopback"),
        (["host", "-t", "tpc"], 2, "did you mean 'tcp'"),
        (["jion"], 2, "did you mean 'join'"),
        (["send"], 2, "TARGET"),
        (["log", "-n", "3", "--since", "2"], 2, "cannot be combined"),
        (["join", "-"], 2, "not an invite"),
        (["rooms"], 4, "no room is open"),
        (["send", "."], 2, "nothing to send"),
        (["send", "tcp:127.0.0.1:1/lobby", "x"], 4, "is a host running there? (nothing was sent)"),
        (["send", ".", "x" * 16385], 2, "longer than a message"),
        (["log", "-n", "-1"], 2, "from 0 to 10000"),
        (["log", "-n", "99999999999999999999"], 2, "from 0 to 10000"),
        (["log", "--since", "0"], 2, "a whole number from 1"),
        (["join", "-n", "10001"], 2, "from 0 to 10000"),
        (["invite", "new", "--expires", "0.001"], 2, "is no time"),
        (["invite", "new", "--uses", "-2"], 2, "from 1 to 1000000"),
        (["host", "--rate", "-5"], 2, "at least 0"),
        (["host", "--group", ""], 2, "--everyone"),
        (["room", "slow", ".", "9" * 5000], 2, "is no time"),
    ],
)
def test_bad_input_gets_one_clear_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run_here(tmp_path / "ann", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("chat: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_output_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        said = json.dumps({"say": "\n".join(["line"] * 3000)})
        assert run(tmp_path / "ann", "join", "--json", stdin=f"{said}\n" * 7).returncode == 0
        log = subprocess.Popen(
            [*CHAT, "log", f"--data={tmp_path / 'ann'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert log.stdout is not None
        assert log.stderr is not None
        log.stdout.readline()
        log.stdout.close()
        assert log.wait(PATIENCE) == -signal.SIGPIPE
        assert log.stderr.read() == b""
        log.stderr.close()


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
