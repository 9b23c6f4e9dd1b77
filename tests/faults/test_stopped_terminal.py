"""A terminal that takes nothing for a while: the full-screen member stays in the room, and then shows the newest."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import CHAT, PATIENCE, Program, host, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Screen:
    """A terminal that is read only when the test wants it."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (50, 150))
        self.before = termios.tcgetattr(self.slave)
        self.shown = ""
        self.process = subprocess.Popen(
            [*CHAT, *command, f"--data={folder}"],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            env=os.environ | {"TERM": "xterm-256color"},
            process_group=0,
        )

    def read_until(self, text: str) -> str:
        """Read until the terminal shows ``text``; return what was read."""
        begun = len(self.shown)
        end = time.monotonic() + PATIENCE
        while text not in self.shown[begun:]:
            assert time.monotonic() < end, f"{text!r} did not come"
            self.read()
        return self.shown[begun:]

    def read(self) -> None:
        if select.select([self.master], [], [], 0.05)[0]:
            self.shown += os.read(self.master, 65_536).decode("utf-8", "replace")

    def is_full(self) -> bool:
        return not select.select([], [self.slave], [], 0)[1]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@contextmanager
def screen(folder: Path, *command: str) -> Iterator[Screen]:
    made = Screen(folder, *command)
    try:
        yield made
    finally:
        made.process.kill()
        os.close(made.master)
        os.close(made.slave)
        assert made.process.stderr is not None
        made.process.stderr.close()
        made.process.wait()


@contextmanager
def stopped(folder: Path) -> Iterator[tuple[Program, Screen]]:
    """Bob, and ann's full screen on a terminal that has stopped."""
    with (
        host(folder / "host"),
        Program(folder / "bob", "join", "--json", "--as", "bob") as bob,
        screen(folder / "ann", "join", "--as", "ann") as ann,
    ):
        ann.read_until("/quit leaves")
        number = 0

        def fill() -> bool:
            nonlocal number
            number += 1
            bob.say(f"filling {number} {'█▓▒░' * 30}", f"filling {number}")
            bob.until("stored")
            return ann.is_full()

        until(fill, "the terminal takes no more")
        yield bob, ann


def talk(bob: Program, ann: Screen) -> None:
    """Both speak, and hear each other."""
    for number in range(200):
        bob.say(f"late {number}.", f"late {number}")
    bob.until("stored", lambda e: e["id"] == "late 199")
    ann.type("typed blindly\r")
    bob.until("message", lambda e: e["text"] == "typed blindly")


def test_it_stays_in_the_room_and_then_draws_the_newest_frame_only(tmp_path: Path) -> None:
    with stopped(tmp_path) as (bob, ann):
        talk(bob, ann)
        rest = ann.read_until("late 199.")
        assert "late 100." not in rest
        ann.type("\x03\x03")
        ended(ann, 0)
        assert not [event for event in bob.seen if event["event"] == "presence" and event["went"]]


def test_it_leaves_the_room_and_then_the_terminal_as_it_was(tmp_path: Path) -> None:
    with stopped(tmp_path) as (bob, ann):
        ann.process.send_signal(signal.SIGTERM)
        bob.until("presence", lambda e: [who["nick"] for who in e["went"]] == ["ann"])
        ended(ann, 0)
        modes = dict(re.findall(r"\x1b\[\?(1049|2004|25|7)([hl])", ann.shown))
        assert modes == {"1049": "l", "2004": "l", "25": "h", "7": "h"}


@pytest.mark.slow
def test_it_stays_in_the_room_for_longer_than_a_host_waits_for_a_silent_member(tmp_path: Path) -> None:
    with stopped(tmp_path) as (bob, ann):
        time.sleep(40)
        talk(bob, ann)
        ann.read_until("late 199.")
        assert not [event for event in bob.seen if event["event"] == "presence" and event["went"]]


def ended(screen: Screen, code: int) -> None:
    end = time.monotonic() + PATIENCE
    while screen.process.poll() is None:
        assert time.monotonic() < end
        screen.read()
    while select.select([screen.master], [], [], 0)[0]:
        screen.read()
    assert screen.process.returncode == code
    assert termios.tcgetattr(screen.slave) == screen.before
