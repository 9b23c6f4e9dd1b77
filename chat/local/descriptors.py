"""Descriptors 0 to 2, whatever state the caller left them in, and how many there may be.

They may be closed, so that our next file would take their number, or shared with a program that has made them
non-blocking: then read(2) and write(2) fail with EAGAIN where they would otherwise wait.
"""

from __future__ import annotations

import io
import os
import resource
import select
import sys
from codecs import BOM_UTF8
from contextlib import suppress
from typing import Any, Final

BOM: Final = BOM_UTF8  # the byte order mark that some editors put before a text


def open_standard_streams() -> None:
    """Open /dev/null in place of closed descriptors 0 to 2, and let Python's standard streams wait on EAGAIN.

    They are in UTF-8 in every locale, as everything that chat reads and writes is.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        raw = _Patient(fd, "w" if fd else "r", closefd=False)
        data = io.BufferedWriter(raw) if fd else io.BufferedReader(raw)
        is_direct = fd == 2 or raw.isatty()
        setattr(sys, name, io.TextIOWrapper(data, "utf-8", "backslashreplace", line_buffering=is_direct))


class _Patient(io.FileIO):
    """A descriptor that waits, also while it is non-blocking."""

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer).cast("B") as view:
            data = read(self.fileno(), len(view))
            view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: read(self.fileno(), io.DEFAULT_BUFFER_SIZE), b""))

    def write(self, data: Any) -> int:
        return write(self.fileno(), data)


def read(fd: int, size: int) -> bytes:
    """Return up to ``size`` bytes; wait for them on a non-blocking descriptor, too. Raises OSError."""
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:
            _wait(fd, select.POLLIN)


def write(fd: int, data: bytes | bytearray | memoryview) -> int:
    """Return how much was written; wait until some was on a non-blocking descriptor, too. Raises OSError."""
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            _wait(fd, select.POLLOUT)


def is_lost(fd: int) -> bool:
    """Whether nobody can read what is written to ``fd``: the other end of a pipe, socket or terminal is closed."""
    lost = select.POLLERR | select.POLLHUP  # poll(2) tells of these without being asked
    return any(event & lost for _fd, event in _poll(fd, 0).poll(0))


def _wait(fd: int, event: int) -> None:
    _poll(fd, event).poll()


def _poll(fd: int, event: int) -> select.poll:
    poll = select.poll()
    poll.register(fd, event)
    return poll


def drop_unwritten() -> None:
    """Flush the standard streams, and point one whose reader is gone at /dev/null.

    Python keeps what it could not write and flushes again at exit; failing there makes the exit code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


# -- how many there may be -----------------------------------------------------------------------------

# descriptors that a host asks for, if the system lets it, one or two a link; then whoever has most gives way: ``busy``
MOST: Final = 65_536


def raise_limit() -> None:
    """Raise this process's soft limit of descriptors to the hard limit, at most to ``MOST``. See getrlimit(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def has_spare(*counts: int) -> bool:
    """Whether as many descriptors are free; with a low limit, an eighth of it for each count that is higher.

    Tried, since nothing else counts all that is open: files and what libraries opened, too.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    part = MOST if limit == resource.RLIM_INFINITY else limit // 8
    opened: list[int] = []
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(sum(min(count, part) for count in counts) - 1):
            opened.append(os.dup(opened[0]))
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True
