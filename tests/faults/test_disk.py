"""The host's disk, or somebody at it, gets in the way for a while: the room waits. Only a failed fsync is final."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import PATIENCE, Program, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "host", "lobby", "--headless", "--json", "--min-free=0"


@contextmanager
def talking(folder: Path) -> Iterator[tuple[Program, Program]]:
    """A host in another process, and ann in its room."""
    with Program(folder / "host", *HOST) as host:
        host.until("listening")
        with Program(folder / "ann", "join", "lobby", "--json") as ann:
            ann.say("before", "before")
            ann.until("stored")
            yield host, ann


def database(folder: Path) -> Path:
    (found,) = (folder / "host").glob("rooms/*/log.db")
    return found


def waits(folder: Path, ann: Program, host: Program, code: str, let_go: Callable[[], object]) -> None:
    """What is said now is not stored, everybody is told; then it is, once, and the host is the same."""
    ann.say("meanwhile", "meanwhile")
    assert ann.until("notice")["code"] == code
    assert run(folder / "host", "log", "lobby", "-n", "1").stdout.endswith(": before\n")  # reading goes on
    let_go()
    assert ann.until("notice")["code"] == "disk"
    assert ann.until("stored")["id"] == "meanwhile"
    assert host.process.poll() is None
    ann.say("after", "after")
    ann.until("stored")
    assert run(folder / "host", "log", "lobby").stdout.count("meanwhile") == 1


def test_a_database_that_another_program_holds(tmp_path: Path) -> None:
    with talking(tmp_path) as (host, ann), closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waits(tmp_path, ann, host, "disk-waits", lambda: other.execute("ROLLBACK"))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """EFBIG; SQLite says the same of EDQUOT."""
    with talking(tmp_path) as (host, ann):
        size = database(tmp_path).with_name("log.db-wal").stat().st_size
        before = resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        waits(
            *(tmp_path, ann, host, "disk-waits"),
            lambda: resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, before),
        )


FSYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int call(const char *name, int fd) {
    if (access(getenv("FAIL_FSYNC"), F_OK) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fsync(int fd) { return call("fsync", fd); }
int fdatasync(int fd) { return call("fdatasync", fd); }
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists, every fsync of the programs that are started from now on fails."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here to make an fsync that fails")
    library, switch = tmp_path / "fsync.so", tmp_path / "fail"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=FSYNC.encode(), check=True)
    monkeypatch.setenv("FAIL_FSYNC", str(switch))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return switch


def test_a_failed_fsync_is_final(tmp_path: Path, failing: Path) -> None:
    with talking(tmp_path) as (host, ann):
        failing.touch()
        ann.say("lost?", "lost?")
        assert host.process.wait(PATIENCE) == 1
        assert "disk I/O error; messages are no longer accepted" in host.errors()
        failing.unlink()
        assert "lost?" not in [event.get("id") for event in ann.seen if event["event"] == "stored"]
        with Program(tmp_path / "host", *HOST):
            assert ann.until("stored")["id"] == "lost?"
        log = run_log(tmp_path)
        assert log.count("lost?") == 1


def run_log(folder: Path) -> str:
    with Program(folder / "host", *HOST) as host:
        host.until("listening")
        return run(folder / "host", "log", "lobby").stdout


# -- a disk that is full when the host starts -------------------------------------------------------


def test_a_host_on_a_full_disk_starts_and_waits(tmp_path: Path) -> None:
    """On a small file system of its own, in a mount namespace of its own."""
    try:
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no unprivileged mounts here")
    code = f"from pathlib import Path; from {__name__} import *; on_a_full_disk(Path({str(tmp_path)!r}))"
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def on_a_full_disk(folder: Path) -> None:
    disk = folder / "host"
    disk.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(disk)], check=True)
    with ExitStack() as running:
        host, ann = running.enter_context(talking(folder))
        fill(disk)
        ann.say("meanwhile" * 1000, "meanwhile")
        assert ann.until("notice")["code"] == "disk-full"
        for how in (signal.SIGKILL, signal.SIGTERM):
            host.process.send_signal(how)
            host.process.wait()
            if how == signal.SIGTERM:  # as in a copy of the folder: the index of the WAL must be made anew
                database(folder).with_name("log.db-shm").unlink(missing_ok=True)
            fill(disk)
            host = running.enter_context(Program(disk, *HOST))
            host.until("listening")
            if how == signal.SIGKILL:  # else what was kept for the index leaves room for more
                ann.until("notice", lambda event: event["code"] == "disk-full")
            assert ": before\n" in run(disk, "log", "lobby").stdout
        for path in disk.glob("filler-*"):
            path.unlink()
        assert ann.until("stored")["id"] == "meanwhile"
        ann.say("after", "after")
        ann.until("stored")


def fill(disk: Path) -> None:
    """Take all the space that a disk has left."""
    path = next(path for number in count() if not (path := disk / f"filler-{number}").exists())
    with path.open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
