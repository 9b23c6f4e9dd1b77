"""Signals that ask a program to end: it leaves, says what is not stored, and no second signal cuts that short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import PATIENCE, Program, host, until

if TYPE_CHECKING:
    from pathlib import Path

ENDS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
KEPT = "chat: 1 message is not stored yet; it stays in the outbox until ann joins again\n"


@pytest.mark.parametrize("number", ENDS)
def test_a_headless_host_that_is_asked_to_end_tells_its_members(tmp_path: Path, number: signal.Signals) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        ann.say("hello", "1")
        ann.until("stored")
        room.process.send_signal(number)
        assert ann.until("link", lambda e: e["state"] == "lost")["why"] == "the host has closed the room"
        assert room.process.wait(PATIENCE) == (130 if number == signal.SIGINT else 0)
        assert room.told() == ""


def test_a_host_that_is_killed_says_nothing(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "--json") as ann:
        ann.until("joined")
        room.kill()
        assert ann.until("link", lambda e: e["state"] == "lost")["why"].endswith("closed the link")


@pytest.mark.parametrize("number", ENDS)
def test_a_member_says_once_what_is_not_stored_however_often_it_is_asked_to_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        room.process.send_signal(signal.SIGSTOP)
        try:
            ann.say("kept", "1")
            until(lambda: any(b"kept" in file.read_bytes() for file in outboxes(tmp_path)), "it is in the outbox")
            for one in (number, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, number):
                ann.process.send_signal(one)
            assert ann.process.wait(PATIENCE) - 128 in ENDS  # of those that wait, the system delivers any first
            assert ann.told() == KEPT
        finally:
            room.process.send_signal(signal.SIGCONT)
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann") as again:
            assert again.until("message")["text"] == "kept"


@pytest.mark.parametrize("command", ["log -f .", "join --plain .", "join --json ."])
def test_every_command_ends_in_order(tmp_path: Path, command: str) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "bob", "send", ".", "hello") as bob:
        assert bob.process.wait(PATIENCE) == 0
        for number in ENDS:
            with Program(tmp_path / "ann", *command.split()) as ann:
                ann.line("hello")
                ann.process.send_signal(number)
                assert ann.process.wait(PATIENCE) == 128 + number
                assert "Traceback" not in ann.told()


@pytest.mark.parametrize("number", ENDS)
def test_a_command_without_a_room_undoes_what_it_began(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "history.ndjson"
    os.mkfifo(file)
    with Program(tmp_path / "ann", "import", str(file), "old") as ann, file.open("wb"):
        rooms = tmp_path / "ann" / "rooms"
        until(lambda: list(rooms.glob("*/import-*")), "it has begun")
        for one in (number, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ann.process.send_signal(one)
        assert ann.process.wait(PATIENCE) - 128 in ENDS
        assert "chat:" not in ann.told()
        assert not list(rooms.glob("*/import-*"))


@pytest.mark.parametrize("module", ["click", "chat.core.errors"])
def test_ctrl_c_while_modules_are_loaded_ends_it_without_a_word(module: str) -> None:
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from chat.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "rooms"], capture_output=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """As nohup(1) does it."""
    with host(tmp_path / "host"):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            ann = Program(tmp_path / "ann", "join", "--json")
        finally:
            signal.signal(signal.SIGHUP, before)
        with ann:
            ann.until("joined")
            ann.process.send_signal(signal.SIGHUP)
            ann.say("still here", "1")
            ann.until("stored")
            assert ann.finish() == 0


def test_piped_text_is_told_how_much_of_it_was_taken(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "--as", "ann") as ann:
        ann.line("each line is a message")
        room.process.send_signal(signal.SIGSTOP)
        try:
            ann.write("\n".join(f"line {n}." for n in range(1, 3001)))
            until(lambda: any(b"line 1024." in file.read_bytes() for file in outboxes(tmp_path)), "the window is full")
            ann.process.send_signal(signal.SIGTERM)
            assert ann.process.wait(PATIENCE) == 143
        finally:
            room.process.send_signal(signal.SIGCONT)
        assert ann.told().splitlines() == [
            "chat: the input was taken up to line 1024; the rest was not sent",
            "chat: 1024 messages are not stored yet; they stay in the outbox until ann joins again",
        ]


def test_a_program_is_told_which_line_was_not_taken(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        room.process.send_signal(signal.SIGSTOP)
        try:
            ann.write("\n".join(json.dumps({"say": f"line {n}."}) for n in range(1, 3001)))
            until(lambda: any(b"line 1024." in file.read_bytes() for file in outboxes(tmp_path)), "the window is full")
            ann.process.send_signal(signal.SIGTERM)
            assert ann.process.wait(PATIENCE) == 143
        finally:
            room.process.send_signal(signal.SIGCONT)
        assert ann.told().splitlines()[0] == "chat: the input was taken up to line 1024; the rest was not sent"


@pytest.mark.parametrize("face", ["--json", "--plain"])
def test_the_end_of_input_without_a_host_is_no_silent_wait(tmp_path: Path, face: str) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", face, "--as", "ann") as ann:
        ann.line("you are ann" if face == "--plain" else "joined")
        room.kill()
        ann.line("closed the link")
        ann.write('{"say": "kept"}')
        assert ann.process.stdin is not None
        ann.process.stdin.close()
        waits = "chat: waiting for the host to come back and store 1 message; Ctrl+C leaves it in the outbox\n"
        until(lambda: ann.told() == waits, "it says what it waits for")
        ann.process.send_signal(signal.SIGINT)
        assert ann.process.wait(PATIENCE) == 130
        assert ann.told() == waits + KEPT


def outboxes(folder: Path) -> list[Path]:
    return [path for path in (folder / "ann" / "outboxes").rglob("*") if path.is_file()]


def test_a_signal_counts_that_comes_where_python_drops_exceptions() -> None:
    """In a finalizer, or in a callback of `import`, which a command that is just beginning is often in."""
    code = """
import signal, time
from chat.cli.main import _end

class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

signal.signal(signal.SIGTERM, _end)
Dropped()
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
