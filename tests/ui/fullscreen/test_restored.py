"""However the full-screen face ends or pauses, the terminal is as it was: on a pseudo-terminal, in its own process.

    before ─▶ raw, alternate screen, bracketed paste, mouse ─▶ a signal, Ctrl-Z, a fault, a host killed ─▶ before

The modes that are left on are read out of what was written, as a terminal would.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
PATIENCE = 30  # seconds for anything that a program should do
# DEC's private modes (xterm, ctlseqs): the alternate screen, the mouse, bracketed paste. Not the cursor and autowrap,
# which are on in a terminal that is as it was.
MODES = {47, 1047, 1049, 9, 1000, 1002, 1003, 1005, 1006, 1015, 1004, 2004}
FACE = "from tests.ui.fullscreen.test_app import main; main({folder!r})"
FAULT = "from chat.ui.fullscreen.panel import Panel; Panel.show_help = lambda *_: 1 / 0; " + FACE


class Seat:
    """A program on a terminal."""

    def __init__(self, *command: str) -> None:
        self.terminal, self.ours = pty.openpty()
        termios.tcsetwinsize(self.ours, (24, 80))
        self.before = termios.tcgetattr(self.ours)
        self.written = ""
        environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONUNBUFFERED", None)  # it hides what is written when Python exits
        self.process = subprocess.Popen(
            command,
            stdin=self.ours,
            stdout=self.ours,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            process_group=0,  # in our session: else nobody would be there to whom Ctrl-Z could give the terminal
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.hang_up()
        os.close(self.ours)

    def hang_up(self) -> None:
        """The window is closed, and whoever writes to it gets an error."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, what: str | Callable[[], bool]) -> None:
        """Read until ``what`` has been written since the last time, or holds."""
        deadline = time.monotonic() + PATIENCE
        since = len(self.written)
        while not (what in self.written[since:] if isinstance(what, str) else what()):
            assert time.monotonic() < deadline, self.written[since:]
            self.read(0.02)

    def read(self, seconds: float) -> bool:
        if self.terminal < 0 or not select.select([self.terminal], [], [], seconds)[0]:
            return False
        self.written += os.read(self.terminal, 65_536).decode("utf-8", "replace")
        return True

    def ended(self) -> bool:
        return self.process.poll() is not None

    def told(self) -> bytes:
        """What it has written to standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def stopped(self) -> bool:
        return os.WIFSTOPPED(os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED)[1])

    def modes(self) -> set[int]:
        """The modes that are on, by all that has been written. A hidden cursor and no autowrap count as modes, too."""
        while self.read(0):
            pass
        state = {25: "h", 7: "h"}
        for numbers, last in re.findall(r"\x1b\[\?([\d;]+)([hl])", self.written):
            state |= {int(number): last for number in numbers.split(";")}
        hidden = {number for number in (25, 7) if state[number] == "l"}
        return hidden | {number for number in MODES if state.get(number) == "h"}

    def check_restored(self) -> None:
        assert termios.tcgetattr(self.ours) == self.before
        assert not self.modes()


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    with Seat(sys.executable, "-c", FACE.format(folder=str(tmp_path))) as made:
        made.until("你好, ")
        made.type("\x1bOQ")  # F2: the mouse
        made.until("\x1b[?1006h")
        assert termios.tcgetattr(made.ours) != made.before
        assert {1049, 2004, 1000, 1006} <= made.modes()
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_after_a_signal(seat: Seat, number: signal.Signals) -> None:
    seat.process.send_signal(number)
    seat.until(seat.ended)
    assert seat.process.returncode == 0
    seat.check_restored()


@pytest.mark.parametrize("keys", ["\x03\x03", "\x04", "/quit\r"], ids=["interrupt", "end", "quit"])
def test_after_leaving(seat: Seat, keys: str) -> None:
    seat.type(keys)
    seat.until(seat.ended)
    assert seat.process.returncode == 0
    seat.check_restored()


def test_while_suspended_and_after_it(seat: Seat) -> None:
    for word in ("half", "whole"):  # more than once
        seat.type(f"{word}\x1a")
        seat.until(seat.stopped)
        seat.check_restored()
        seat.process.send_signal(signal.SIGCONT)
        seat.until(word)
        seat.until(lambda: {1049, 2004, 1006} <= seat.modes() and termios.tcgetattr(seat.ours) != seat.before)
    seat.type("\r")
    seat.until("✓")
    seat.type("\x03\x03")
    seat.until(seat.ended)
    seat.check_restored()


def test_killed_while_suspended_it_leaves_the_terminal_to_the_shell(seat: Seat) -> None:
    seat.type("\x1a")
    seat.until(seat.stopped)
    seat.process.kill()
    seat.until(seat.ended)
    seat.check_restored()


def test_after_a_fault_in_a_key(tmp_path: Path) -> None:
    with Seat(sys.executable, "-c", FAULT.format(folder=str(tmp_path))) as seat:
        seat.until("你好, ")
        seat.type("\x1bOP")  # F1
        seat.until(seat.ended)
        assert seat.process.returncode == 1
        seat.check_restored()
        assert b"ZeroDivisionError" in seat.told()  # told, and after the screen was left


def test_after_the_window_is_closed_nothing_goes_on_and_nothing_is_told(seat: Seat) -> None:
    seat.hang_up()
    seat.until(seat.ended)
    assert seat.process.returncode == 0
    assert seat.told() == b""


def test_after_the_host_was_killed_and_the_window_left(home: Path) -> None:
    with Seat(sys.executable, "-m", "chat", "host", f"--data={home}") as seat:
        seat.until("\x1b[?1049h")
        seat.until("/quit")
        seat.type("\x1bOQ")
        seat.until("\x1b[?1006h")
        rooms = [sys.executable, "-m", "chat", "rooms", "--json"]
        (room,) = subprocess.run(rooms, check=True, capture_output=True, cwd=ROOT).stdout.splitlines()
        os.kill(json.loads(room)["pid"], signal.SIGKILL)
        seat.until("/reopen")
        seat.type("\x03\x03")
        seat.until(seat.ended)
        assert seat.process.returncode == 0
        seat.check_restored()
        assert b"room lobby is closed" in seat.told()
