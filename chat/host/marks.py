"""The high-water marks: a file beside the database says how far each room's log had come.

    log.mark:  | - | - | room 1, slot A | room 1, slot B | room 2, slot A | room 2, slot B | ...

    slot, 64 bytes:  | room u64 | next number u64 | the chain there, 16 bytes | SHA-256 of these |

Rules:

1. A mark is written after its commit, without fsync: the database may be ahead of it, never behind.
2. The two slots of a room take turns, so a torn or damaged one leaves the mark of the commit before.
3. A mark that was never written says nothing. Where something was written that cannot be read, that is reported.
4. Until database version 6 a room had one slot, at its number. Such a file is brought up to date when it is opened.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.local.private_files import replace_private

if TYPE_CHECKING:
    from pathlib import Path

_logger: Final = logging.getLogger("chat.host.marks")
_RECORD: Final = struct.Struct("!QQ16s")
_SIZE: Final = 64  # bytes of a slot

CHAIN_START: Final = bytes(16)


class Marks:
    """The file of marks. Raises OSError if it cannot be opened or brought up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._marks, self._turn, self.damaged, old = _parse(_content(self._fd))
            if old:
                slots = {2 * room: _slot(room, *mark) for room, mark in self._marks.items()}
                data = b"".join(slots.get(place, bytes(_SIZE)) for place in range(max(slots) + 2))
                fd = replace_private(path, data)
                os.close(self._fd)
                self._fd, self._turn = fd, dict.fromkeys(self._marks, 1)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def rooms(self) -> list[int]:
        """Return the rooms that have a mark."""
        return sorted(self._marks)

    def read(self, room: int) -> tuple[int, bytes]:
        """Return the room's next number and its chain there; the beginning for a mark that was never written."""
        return self._marks.get(room, (1, CHAIN_START))

    def write(self, room: int, next_seq: int, chain: bytes) -> None:
        """Write a room's mark over the older of its two. A disk that takes none is reported."""
        self._marks[room] = next_seq, chain
        turn = self._turn.get(room, 0)
        try:
            os.pwrite(self._fd, _slot(room, next_seq, chain), (2 * room + turn) * _SIZE)
            self._turn[room] = 1 - turn
        except OSError as error:  # a full disk: what was committed is committed, with an older mark beside it
            _logger.warning("the mark %s cannot be written: %s", self._path, error.strerror)


def read_marks(path: Path) -> dict[int, tuple[int, bytes]]:
    """Return each room's next number and its chain there, nothing if they cannot be read. The file stays as it is."""
    with suppress(OSError), path.open("rb") as file:
        return _parse(_content(file.fileno()))[0]
    return {}


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _parse(data: bytes) -> tuple[dict[int, tuple[int, bytes]], dict[int, int], set[int], bool]:
    """Take a file apart: the marks, the slots to be written next, damaged ones, whether slots are where they once were.

    Damaged are rooms that have no other mark, and whose mark may have been in a slot that cannot be read.
    """
    marks: dict[int, tuple[int, bytes]] = {}
    turn: dict[int, int] = {}
    damaged: set[int] = set()
    old = False
    for place in range(-(-len(data) // _SIZE)):
        slot = data[place * _SIZE : (place + 1) * _SIZE]
        room, next_seq, chain = _RECORD.unpack_from(slot.ljust(_SIZE, b"\0"))
        if not slot.strip(b"\0"):
            continue
        if slot != _slot(room, next_seq, chain) or room not in (place, place // 2):
            damaged |= {place, place // 2}
            continue
        old |= room == place
        if next_seq > marks.get(room, (0, b""))[0]:
            marks[room] = next_seq, chain
            turn[room] = 1 - place % 2
    for room in sorted(damaged & set(marks)):
        _logger.warning("one of the two marks of room %d is damaged; the other is used", room)
    return marks, turn, damaged - set(marks), old


def _slot(room: int, next_seq: int, chain: bytes) -> bytes:
    record = _RECORD.pack(room, next_seq, chain)
    return record + hashlib.sha256(record).digest()
