"""A member whose own disk is full or read-only: it joins and reads, and what it writes waits."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import StoreFull, Untrusted
from chat.local.known_hosts import KnownHosts
from chat.transport import Address
from tests.cli.programs import CHAT, PATIENCE, Program, host, run, until
from tests.faults.test_stopped_terminal import ended, screen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

linux = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux fills another process's disk")


@contextmanager
def full_disk(pid: int = 0) -> Iterator[None]:
    """Let a process write to no file: it gets EFBIG."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@linux
def test_what_a_program_says_waits_for_a_full_disk(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--json") as ann:
        ann.until("joined")
        with full_disk(ann.process.pid):
            ann.say("first", "1")
            ann.say("second", "2")
            assert ann.until("notice")["code"] == "own-disk"
            assert run(tmp_path / "host", "send", "lobby", "can you read this?").returncode == 0
            assert ann.until("message")["text"] == "can you read this?"
        assert ann.until("stored")["id"] == "1"
        assert ann.until("stored")["id"] == "2"
        assert ann.finish() == 0
        assert ann.texts() == ["can you read this?", "first", "second"]
        assert [event["event"] for event in ann.seen].count("notice") == 1


@linux
def test_a_line_that_never_got_onto_the_disk_is_shown_at_the_end(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        arguments = [*CHAT, "join", "--plain", f"--data={tmp_path / 'host'}"]
        with subprocess.Popen(
            arguments, encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as ann:
            assert ann.stdin is not None
            assert ann.stdout is not None
            assert ann.stderr is not None
            ann.stdout.readline()
            with full_disk(ann.pid):
                ann.stdin.write("remember the milk\n")
                ann.stdin.flush()
                while "your own disk takes nothing now (file too large)" not in ann.stdout.readline():
                    pass
                ann.terminate()
                told = ann.stderr.read()
            assert ann.wait(PATIENCE) == 143
        assert "the input was taken up to line 0" in told
        assert "your disk did not take this message, so it was not sent: remember the milk" in told
        assert run(tmp_path / "host", "log", "lobby").stdout == ""


@linux
def test_sending_one_message_does_not_wait(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        assert run(tmp_path / "host", "send", "lobby", "first").returncode == 0
        done = subprocess.run(
            ["prlimit", "--fsize=0", *CHAT, "send", "lobby", "second", f"--data={tmp_path / 'host'}"],
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "file too large; free some space and try again" in done.stderr


@linux
def test_a_host_that_cannot_be_remembered_is_known_until_we_leave(tmp_path: Path) -> None:
    known, address = KnownHosts(tmp_path / "known_hosts"), Address("tcp", "h:1")
    with full_disk():
        with pytest.raises(StoreFull):
            known.check(address, b"a" * 32)
        assert known.check(address, b"a" * 32)
        with pytest.raises(Untrusted):
            known.check(address, b"b" * 32)
    assert not KnownHosts(tmp_path / "known_hosts").check(address, b"b" * 32)


# A folder that is read-only for this process and its children, until somebody removes the file that is its second
# argument. A file system of one's own needs root, or a system that lets users have namespaces.
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
(while test -e "$2"; do sleep 0.1; done; mount -o remount,bind,rw "$1") </dev/null >/dev/null 2>&1 &
shift 2
exec "$@"
"""


def read_only(folder: Path, flag: Path) -> list[str]:
    """Return what to put before a command so that it finds a folder read-only as long as the flag is there."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", READ_ONLY, "sh"]
    command = [*unshare, str(folder), str(flag)]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a folder read-only")
    return command


def test_a_read_only_disk_lets_us_read_and_keeps_what_we_write_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, flag = tmp_path / "ann", tmp_path / "flag"
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "--open") as room:
        address = f"{room.seen[0]['address']}/lobby"
        assert run(data, "send", "lobby", "first", "--as", "ann").returncode == 0
        shutil.rmtree(data / "outboxes")
        flag.touch()
        before = read_only(data, flag)
        monkeypatch.setattr("tests.cli.programs.CHAT", [*before, *CHAT])
        for command in (["log", "lobby"], ["who", "lobby"], ["search", "lobby", "first"], ["log", address]):
            done = run(data, *command)
            told = "chat: trust on first use: " if command[1] == address else ""  # which it cannot remember
            told = "chat: nobody is in the room\n" if command[0] == "who" else told
            assert (done.returncode, done.stderr[: len(told) or None]) == (0, told)
        done = run(data, "host", "tea", "--headless")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.endswith(": read-only file system\n")
        with Program(data, "join", "--json", "--as", "ann", "--history", "5") as ann:
            assert ann.until("notice")["code"] == "own-disk"
            assert ann.until("message")["text"] == "first"
            ann.say("second", "2")
            flag.unlink()
            assert ann.until("stored")["id"] == "2"
            assert ann.finish() == 0
        assert ann.texts() == ["first", "second"]


def test_the_full_screen_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, flag = tmp_path / "ann", tmp_path / "flag"
    with host(tmp_path / "host"):
        assert run(data, "send", "lobby", "first", "--as", "ann").returncode == 0
        shutil.rmtree(data / "outboxes")
        flag.touch()
        monkeypatch.setattr("tests.faults.test_stopped_terminal.CHAT", [*read_only(data, flag), *CHAT])
        with screen(data, "join", "--as", "ann") as ann:
            told = ("first", "/quit leaves", "your own disk takes nothing now (read-only file system)")
            for text in told:
                if text not in ann.shown:
                    ann.read_until(text)
            ann.type("second\r")
            ann.type("waits for the disk")  # in another frame
            ann.read_until("waits for the disk")
            assert run(tmp_path / "host", "log", "lobby").stdout.count("\n") == 1
            flag.unlink()
            ann.read_until("second")  # is in the room
            until(lambda: "second" in run(tmp_path / "host", "log", "lobby").stdout, "it is sent")
            ann.type("\x03\x03\x03")  # clears the line, and leaves
            ended(ann, 0)


def test_a_read_only_disk_without_a_key_or_a_room_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, flag = tmp_path / "ann", tmp_path / "flag"
    with host(tmp_path / "host"):
        data.mkdir(mode=0o700)
        flag.touch()
        monkeypatch.setattr("tests.cli.programs.CHAT", [*read_only(data, flag), *CHAT])
        for command in (["join", "lobby"], ["send", "lobby", "x"], ["log", "lobby"], ["id"], ["host", "tea"]):
            done = run(data, *command)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), command
            assert done.stderr.endswith(": read-only file system\n"), command
