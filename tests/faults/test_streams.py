"""Standard streams in every state that a caller may leave them in, and bytes that are no text."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest

from chat.core.errors import ChatError, WrongValue
from chat.local import settings
from chat.local.streams import Output
from tests.cli.programs import CHAT, PATIENCE, Program, host, run, terminal, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a running host."""
    with host(tmp_path / "host"):
        yield tmp_path / "host"


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The two ends of a non-blocking pipe."""
    reading, writing = os.pipe()
    for fd in (reading, writing):
        os.set_blocking(fd, False)
    with os.fdopen(reading, "rb", buffering=0) as ours, os.fdopen(writing, "wb", buffering=0) as theirs:
        yield ours, theirs


@contextmanager
def chat(folder: Path, *arguments: str, **streams: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*CHAT, *arguments, f"--data={folder}"], **streams) as program:  # type: ignore[call-overload]
        try:
            yield program
        finally:
            program.kill()


def texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in run(folder, "log", "--json").stdout.splitlines()]


def held(fd: IO[bytes]) -> int:
    """How many bytes wait in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


# -- shared with a program that has made them non-blocking -------------------------------------------


@pytest.mark.parametrize("command", [("join", "--plain"), ("join", "--json"), ("send", ".")])
def test_input_that_is_not_there_yet_is_waited_for(room: Path, command: tuple[str, ...]) -> None:
    said = '{"say": "late"}\n' if "--json" in command else "late\n"
    with pipe() as (ours, theirs), chat(room, *command, stdin=ours) as program:
        theirs.write(said[:3].encode())
        until(lambda: not held(ours), "it has read that and wants more")
        theirs.write(said[3:].encode())
        theirs.close()
        assert program.wait(PATIENCE) == 0
    assert texts(room) == ["late"]


def test_output_that_is_not_read_yet_waits(room: Path) -> None:
    said = [f"{number:03} {'x' * 1000}" for number in range(200)]
    assert run(room, "join", "--plain", stdin="\n".join(said)).returncode == 0
    with pipe() as (ours, theirs), chat(room, "log", stdout=theirs, stderr=subprocess.PIPE) as program:
        theirs.close()
        until(lambda: held(ours) > 32 * 1024, "the pipe is nearly full")
        os.set_blocking(ours.fileno(), True)  # the other end has flags of its own
        read = ours.read().decode().splitlines()
        assert program.wait(PATIENCE) == 0
    assert [line.partition(": ")[2] for line in read] == said


@pytest.mark.parametrize("command", [("join", "--plain"), ("join", "--json"), ("send", "."), ("join", "-")])
def test_input_that_cannot_be_read_is_a_failure(room: Path, command: tuple[str, ...]) -> None:
    with (room / "host.pem").open("ab") as write_only:
        done = subprocess.run(
            [*CHAT, *command, f"--data={room}"], stdin=write_only, capture_output=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == 1
    assert b"bad file descriptor" in done.stderr
    assert done.stderr.count(b"\n") == 1


# -- closed ------------------------------------------------------------------------------------------


def test_closed_streams_are_as_good_as_null(room: Path) -> None:
    """Our next file would take a closed descriptor's number, and be read from or written to as the stream."""
    each = ("send . one <&-", "send . two <&- >&- 2>&-", "rooms >&-", "log 2>&-", "join --plain >&- 2>&-")
    script = "\n".join(f"{' '.join(CHAT)} {line} || exit 1" for line in each)
    done = subprocess.run(
        ["sh", "-c", script],
        input=b"three",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "CHAT_DATA": str(room)},
    )
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 2)
    assert texts(room) == ["one", "two", "three"]


def test_a_host_with_closed_streams_serves_its_room(tmp_path: Path) -> None:
    """Its database and listeners must not become its standard output."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *CHAT, "host", "--headless", f"--data={tmp_path / 'host'}"]
    with subprocess.Popen(command) as program:
        until(lambda: run(tmp_path / "ann", "send", ".", "hi").returncode == 0, "the host is there")
        program.terminate()
        assert program.wait(PATIENCE) == 0
    with host(tmp_path / "host"):
        assert texts(tmp_path / "ann") == ["hi"]


# -- whose reader is gone ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("log", "-f"), ("join", "--json"), ("join", "--plain")])
def test_a_command_whose_reader_leaves_ends_and_leaves_the_room(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without waiting for the next message: in a quiet room that may take days."""
    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--as=ann", "--json") as ann:
        ann.say("hi")
        ann.until("message")
        with chat(tmp_path / "bob", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            os.read(program.stdout.fileno(), 1)
            program.stdout.close()
            assert program.wait(PATIENCE) == -signal.SIGPIPE
        if command[0] == "join":
            ann.until("presence", lambda event: bool(event["went"]))


# -- a line that cannot be done ----------------------------------------------------------------------

DEEP = "[" * 1000 + "]" * 1000  # Python's own limit on recursion is 1,000
LINES = [
    DEEP,
    f'{{"say": {DEEP}}}',
    f'{{"say": "hi", "more": {"[" * 200_000}{"]" * 200_000}}}',
    "[" * 1_000_000,
    '{"a":' * 100_000,
    '{"say": "\\ud800"}',
    '{"command": "edit", "target": 1e400}',
    '{"command": "away", "text": "' + "x" * 100_000 + '"}',
    '{"say": 1' + "0" * 5000 + "}",
    '{"command": "invite", "id": "\\udfff"}',
]


def test_no_line_ends_the_conversation_of_a_program(room: Path) -> None:
    done = run(room, "join", "--json", stdin="\n".join([*LINES, '{"say": "the end"}']))
    errors = [event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "error"]
    assert [event["line"] for event in errors] == [*range(1, len(LINES) + 1)]
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert texts(room) == ["the end"]


def test_no_line_ends_a_program_of_the_host(tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("\n".join([*LINES, '{"say": "the end"}', ""]))
    with (
        host(tmp_path / "host", f"--peer-json=bot=cat {said} -"),
        Program(tmp_path / "host", "join", "--json") as ann,
    ):
        assert ann.until("message")["text"] == "the end"
        ann.say("go on")
        assert ann.until("message")["text"] == "go on"
        assert not [event for event in ann.seen if event["event"] == "notice"]


def test_what_is_written_to_a_terminal_that_is_gone_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window is closed: the end of the input follows, and the program leaves in order."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        out = Output()
        os.close(ours)
        asyncio.run(out.write(["hello"]))


# -- bytes that are not UTF-8 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "byte"),
    [
        ((b"search", b".", b"\xff\xfe"), 1),
        ((b"send", b".", b"gr\xfc\xdfe"), 3),
        ((b"host", b"--headless", b"--advertise", b"\xff"), 1),
        ((b"join", b"tcp:\xff:1/x"), 5),
        ((b"config", b"set", b"theme", b"\xff"), 1),
        ((b"\xff",), 0),
    ],
)
def test_an_argument_that_is_no_text_is_refused(arguments: tuple[bytes, ...], byte: int) -> None:
    done = subprocess.run([*CHAT, *arguments], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.decode().endswith(f"is not UTF-8 text: byte {byte} is wrong\n") or not byte


def test_a_name_in_the_environment_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "ann", "join", CHAT_AS="\udcff")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "CHAT_AS" in done.stderr
    done = run(tmp_path / "ann", "host", "--headless", CHAT_RUNTIME=str(tmp_path / "\udcff"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not UTF-8" in done.stderr


def test_files_and_folders_may_have_any_name(tmp_path: Path) -> None:
    folder, copy, config = (tmp_path / name for name in ("\udcff", "\udcfe", "\udcfd"))
    with host(folder):
        assert run(folder, "send", ".", "hi").returncode == 0
        assert run(folder, "backup", "lobby", str(copy)).returncode == 0
        assert run(folder, "config", "set", "theme", "dark", CHAT_CONFIG=str(config)).returncode == 0
    assert run(tmp_path / "other", "restore", str(copy)).returncode == 0
    assert "dark" in config.read_text()


def test_a_locale_that_is_not_utf_8_loses_nothing(room: Path) -> None:
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run(room, "send", ".", "grüße", "--as=müller", **old).returncode == 0
    assert run(room, "log", **old).stdout.endswith(" müller: grüße\n")
    assert "列出" in run(room, "--lang", "zh", "--help", **old).stdout


def test_a_byte_order_mark_is_no_text(room: Path, tmp_path: Path) -> None:
    mark = "\ufeff"
    assert run(room, "send", ".", stdin=f"{mark}one\n").returncode == 0
    assert run(room, "join", "--plain", stdin=f"{mark}two\nthree\n{mark}four").returncode == 0
    assert run(room, "join", "--json", stdin=f'{mark}{{"say": "five"}}').returncode == 0
    assert texts(room) == ["one", "two", "three", "four", "five"]
    file = tmp_path / "config.toml"
    file.write_text(f'{mark}theme = "dark"\n')
    assert run(room, "config", "check", CHAT_CONFIG=str(file)).returncode == 0


def test_a_typed_line_that_is_no_text_is_not_sent(room: Path) -> None:
    with terminal("gr\udcfc\udcdfe\nafter\n") as theirs:
        done = subprocess.run(
            [*CHAT, "join", "--plain", f"--data={room}"],
            stdin=theirs,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert "* this line was not sent: it is not UTF-8: byte 3 is wrong" in done.stdout.decode().splitlines()
    assert texts(room) == ["after"]


@pytest.mark.parametrize("table", ["", "theme.", "keys."])
def test_settings_that_are_nested_too_deeply_are_a_problem_of_the_file(tmp_path: Path, table: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"{table}{'.'.join(['a'] * 3000)} = 1\n")
    found = settings.load(file)
    assert [str(problem) for problem in found.problems] == [f"{file}:1: this is not TOML: it is nested too deeply"]
    with pytest.raises(ChatError, match="nested too deeply"):
        settings.change(file, "mouse", True)
    with pytest.raises(WrongValue, match="muted cannot be"):
        settings.parse("muted", "[" * 400 + "]" * 400)
