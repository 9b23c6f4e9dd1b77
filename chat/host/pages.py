"""Rows out of the pages of a damaged SQLite database, without SQLite.

    log.db       | page 1 | page 2 | page 3 | …           a page is a node of a tree; leaves hold the rows
    log.db-wal   | header | frame: 24 bytes, page 3 | frame: 24 bytes, page 9 | …     newer versions of pages

SQLite finds a row by the pages above it, and stops at the first one that is wrong. Here every page that looks like a
leaf is read, wherever it lies, so damage costs the rows of the damaged pages and no others. Nothing that comes from
here can be trusted before something else has proved it: pages may be old, free, or half overwritten.

Source: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Value: TypeAlias = int | float | bytes | str | None

_LEAF: Final = 13  # the type of a page that is a leaf of a table with row ids
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_USUAL: Final = 4096  # bytes of a page, if nothing can be read that says so
_MAX_ROW: Final = 128 * 1024  # bytes: a batch has 64 KiB
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # serial type: bytes
_NOT_A_ROW: Final = (IndexError, struct.error, ValueError, OverflowError)


class Pages:
    """Every version of every page of a database and its WAL; the newest first, as far as the files tell."""

    def __init__(self, path: Path, wal: Path) -> None:
        self._main, self._wal = _open(path), _open(wal)
        self.size, reserved = self._page_size()
        self._usable = self.size - reserved
        self._count = -(-os.fstat(self._main).st_size // self.size)
        self._frames: dict[int, list[int]] = {}  # page: places in the WAL, in its order
        self._places: list[int] = []
        end = os.fstat(self._wal).st_size - _FRAME_HEADER
        for place in range(_WAL_HEADER, end, _FRAME_HEADER + self.size):
            page = int.from_bytes(_read(self._wal, place, 4))
            self._frames.setdefault(page, []).append(place + _FRAME_HEADER)
            self._places.append(place + _FRAME_HEADER)

    def close(self) -> None:
        os.close(self._main)
        os.close(self._wal)

    def _page_size(self) -> tuple[int, int]:
        header = _read(self._main, 0, 24)
        size = int.from_bytes(header[16:18])
        size = 65536 if size == 1 else size
        reserved = header[20]
        if header.startswith(b"SQLite format 3\0") and _is_page_size(size) and size - reserved >= 480:
            return size, reserved
        if _is_page_size(size := int.from_bytes(_read(self._wal, 8, 4))):
            return size, 0
        return _USUAL, 0

    def rows(self) -> Iterator[tuple[int, Iterator[list[Value]]]]:
        """Yield (row id, what its columns may be, the likeliest first) for each row of each leaf of each table."""
        for number in range(self._count):
            yield from self._rows_in(_read(self._main, number * self.size, self.size), 100 if number == 0 else 0)
        for place in self._places:
            yield from self._rows_in(_read(self._wal, place, self.size), 0)

    def _rows_in(self, page: bytes, at: int) -> Iterator[tuple[int, Iterator[list[Value]]]]:
        if page[at] != _LEAF:
            return
        count = min(int.from_bytes(page[at + 3 : at + 5]), (self.size - at - 8) // 2)
        for cell in struct.unpack_from(f">{count}H", page, at + 8):
            with suppress(*_NOT_A_ROW):
                length, start = _varint(page, cell)
                row, start = _varint(page, start)
                if 0 < length <= _MAX_ROW:
                    yield row, self._columns(page, start, length)

    def _columns(self, page: bytes, start: int, length: int) -> Iterator[list[Value]]:
        """Yield the columns of a row; several times if its overflow pages have several versions."""
        most = self._usable - 35
        least = (self._usable - 12) * 32 // 255 - 23
        local = length
        if length > most:
            local = least + (length - least) % (self._usable - 4)
            local = local if local <= most else least
        begin = page[start : start + local]
        following = int.from_bytes(page[start + local : start + local + 4]) if local < length else 0
        age, oldest = 0, 0
        while age <= oldest:
            payload, number = [begin], following
            missing = length - local
            while missing > 0:
                versions = self._versions(number)
                if not versions:
                    break
                oldest = max(oldest, len(versions) - 1)
                overflow = versions[min(age, len(versions) - 1)]
                number = int.from_bytes(overflow[:4])
                payload.append(overflow[4 : 4 + min(missing, self._usable - 4)])
                missing -= self._usable - 4
            with suppress(*_NOT_A_ROW):
                yield _record(b"".join(payload))
            age += 1

    def _versions(self, number: int) -> list[bytes]:
        """Return what the page may be, the newest first; nothing if there is no such page."""
        found = [_read(self._wal, place, self.size) for place in reversed(self._frames.get(number, ()))]
        if 0 < number <= self._count:
            found.append(_read(self._main, (number - 1) * self.size, self.size))
        return found


def copy_readable(path: Path, to: Path) -> None:
    """Copy a file, with zeros for what the disk cannot read; nothing if there is no such file. Raises OSError."""
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        if size:
            with to.open("wb") as file:
                for at in range(0, size, _USUAL):
                    file.write(_read(fd, at, min(_USUAL, size - at)))
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """Open a file; an empty one stands for one that is missing."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _read(fd: int, at: int, size: int) -> bytes:
    """Read whole; zeros stand for what the disk cannot read and for what lies behind the end."""
    data = b""
    with suppress(OSError):
        data = os.pread(fd, size, at)
    return data.ljust(size, b"\0")


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of 1 to 9 bytes, big end first, and where it ends."""
    value = 0
    for step in range(8):
        byte = data[at + step]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + step + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _record(payload: bytes) -> list[Value]:
    """Return the columns of a row. Raises one of ``_NOT_A_ROW``."""
    header, at = _varint(payload, 0)
    columns: list[Value] = []
    place = header
    while at < header:
        kind, at = _varint(payload, at)
        size = _INTEGERS.get(kind, 0)
        if kind == 7:
            columns.append(struct.unpack_from(">d", payload, place)[0])
            size = 8
        elif size:
            columns.append(int.from_bytes(payload[place : place + size], signed=True))
        elif kind >= 12:
            size = (kind - 12) // 2
            data = payload[place : place + size]
            columns.append(data.decode() if kind & 1 else data)
        else:
            columns.append({8: 0, 9: 1}.get(kind))
        place += size
        if place > len(payload):
            raise ValueError("the row ends early")
    return columns
