"""Long work on the command line: the bar on standard error, Ctrl-C in the middle of it, and a reader that leaves."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import termios
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import CHAT, PATIENCE, Program, host, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 20_000  # messages: far more than a pipe holds
PIECE = 4096


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The folder of a user who hosts a room in which a lot was said. All tests here read in it."""
    with tempfile.TemporaryDirectory(prefix="mw-", dir="/tmp") as top, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", top)  # each test has its own, this is before
        patch.setenv("CHAT_CONFIG", f"{top}/config.toml")
        patch.setenv("CHAT_RUNTIME", top)
        with host(folder := Path(top) / "ann", "--rate=0"):
            with Program(folder, "join", "--json", "--as=ann") as ann:
                assert ann.process.stdin is not None
                said = (json.dumps({"say": f"第 {n} line 👍", "id": ""}) + "\n" for n in range(COUNT))
                ann.process.stdin.writelines(said)
                assert ann.finish() == 0
            yield folder


class Export:
    """``chat log`` into a pipe, with a terminal for its complaints, or with another pipe where TERM is ""."""

    def __init__(self, folder: Path, *arguments: str, term: str) -> None:
        self.read_end, write_end = os.pipe()
        self.terminal, theirs = pty.openpty() if term else os.pipe()
        if term:
            termios.tcsetwinsize(theirs, (24, 80))
        self.out = self.told = b""
        self.process = subprocess.Popen(
            [*CHAT, "log", *arguments, f"--data={folder}"],
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=theirs,
            env={**os.environ, "TERM": term or "xterm", "LC_ALL": "C.UTF-8"},
        )
        os.close(write_end)
        os.close(theirs)

    def read(self, wait: float = 0.02) -> bytes:
        """Read a piece of the output, at the pace of a slow reader who looks at the terminal after each."""
        data = os.read(self.read_end, PIECE)
        self.out += data
        self.look(wait)
        return data

    def look(self, wait: float) -> None:
        with suppress(OSError):  # EIO: nobody has the other side any more
            while select.select([self.terminal], [], [], wait)[0]:
                data = os.read(self.terminal, PIECE)
                if not data:
                    return
                self.told += data
                wait = 0

    def unread(self) -> int:
        size = array.array("i", [0])
        fcntl.ioctl(self.read_end, termios.FIONREAD, size)
        return size[0]

    def finish(self) -> int:
        while self.read(0):
            pass
        code = self.process.wait(PATIENCE)
        self.look(0)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for fd in (self.read_end, self.terminal):
            with suppress(OSError):
                os.close(fd)


@contextmanager
def export(folder: Path, *arguments: str, term: str = "xterm") -> Iterator[Export]:
    made = Export(folder, *arguments, term=term)
    try:
        yield made
    finally:
        made.close()


def test_a_slow_export_shows_how_far_it_is_and_ctrl_c_leaves_whole_lines(folder: Path) -> None:
    with export(folder) as log:
        while b"a second" not in log.told:
            assert log.read(), "it ended before it showed anything"
        assert re.search(rb"\rreading  |reading  \[#*-*\] +\d+%", log.told.replace(b"\x1b[?25l", b""))
        log.process.send_signal(signal.SIGINT)
        assert log.finish() == 130
        assert log.told.endswith(b"\x1b[?25h\r\n")  # the cursor is shown again, below the bar
        *lines, rest = log.out.decode().split("\n")
        assert rest == ""
        assert 0 < len(lines) < COUNT
        assert all(line.endswith(f" ann: 第 {n} line 👍") for n, line in enumerate(lines))


def test_ctrl_c_does_not_wait_for_a_reader_that_stalls(folder: Path) -> None:
    with export(folder, "--json") as log:
        until(lambda: log.unread() > 2 * PIECE, "the pipe is filled")
        before = -1
        while before != (before := log.unread()):  # until nothing more fits
            select.select([], [], [], 0.2)
        log.process.send_signal(signal.SIGINT)
        assert log.process.wait(PATIENCE) == 130  # nobody has read anything
        assert log.finish() == 130
        assert log.out.endswith(b"}\n")
        assert [json.loads(line)["event"] for line in log.out.splitlines()].count("message") > 0


def test_a_quick_export_shows_nothing(folder: Path) -> None:
    with export(folder, "-n", "3") as log:
        assert log.finish() == 0
        assert (log.out.count(b"\n"), log.told) == (3, b"")


@pytest.mark.parametrize("term", ["dumb", ""], ids=["dumb terminal", "no terminal"])
def test_a_slow_export_shows_nothing_where_a_bar_cannot_be_drawn(folder: Path, term: str) -> None:
    with export(folder, term=term) as log:
        for _ in range(60):  # as slowly as where it is shown
            log.read()
        assert log.finish() == 0
        assert (log.out.count(b"\n"), log.told) == (COUNT, b"")


@pytest.mark.parametrize("arguments", [[], ["--json"], ["-f"]], ids=["plain", "json", "follow"])
def test_a_reader_that_leaves_ends_it_without_a_word(folder: Path, arguments: list[str]) -> None:
    with export(folder, *arguments) as log:
        log.read()
        os.close(log.read_end)
        assert log.process.wait(PATIENCE) == -signal.SIGPIPE  # 141 to a shell, as of other tools
        log.look(0)
        # On a slow machine the bar was drawn by then.
        assert not re.search(rb"chat|Traceback|Error", log.told), log.told


def test_the_end_of_the_input_waits_for_a_reader_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_RUNTIME", raising=False)  # where the room of the others is
    with host(tmp_path / "host", "--rate=0"):
        read_end, write_end = os.pipe()
        said = "".join(json.dumps({"say": "x" * 200, "id": str(number)}) + "\n" for number in range(1000))
        command = [*CHAT, "join", "--json", "--as=ann", f"--data={tmp_path / 'ann'}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write_end) as ann:
            os.close(write_end)
            assert ann.stdin is not None
            ann.stdin.write(said.encode())
            ann.stdin.close()
            until(lambda: run(tmp_path / "bob", "log").stdout.count("\n") == 1000, "all is stored")
            with suppress(subprocess.TimeoutExpired):  # all that is left to do is to write
                ann.wait(1)
            with os.fdopen(read_end, "rb") as reader:
                seen = [json.loads(line) for line in reader]
            assert ann.wait(PATIENCE) == 0
        assert [event["id"] for event in seen if event["event"] == "stored"] == [str(n) for n in range(1000)]
        assert sum(event["event"] == "message" for event in seen) == 1000
