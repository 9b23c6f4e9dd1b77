"""Boards for test_board.py, sound ones and broken ones. A file of their own: the processes of a check load it, too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from transports.shm import _POSIX, SIZE, SLOTS, Shm, ShmBoard, ShmSlot, _File, _offset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chat.transport import Buffer, Reading

posix = Shm(_POSIX)


class Made(Shm):
    """A maker of boards of this kind, with slots of that kind."""

    def __init__(self, kind: type[ShmBoard], slot: type[ShmSlot] = ShmSlot) -> None:
        super().__init__()
        self.board = type(kind.__name__, (kind,), {"slot": slot})


# -- sound, if awkward ------------------------------------------------------------------------------


class InTwoHalves(ShmSlot):
    """Whoever looks between finds the one half new, and the other old."""

    def _put(self, fd: int, record: bytes) -> None:
        middle = len(record) // 2
        os.pwrite(fd, record[:middle], _offset(self.index))
        if not self._version % 256:
            os.sched_yield()  # now and then for longer, for a machine with one core
        os.pwrite(fd, record[middle:], _offset(self.index) + middle)


in_two_halves = Made(ShmBoard, InTwoHalves)


# -- broken -----------------------------------------------------------------------------------------


class FirstWriteWins(ShmSlot):
    def write(self, payload: Buffer) -> None:
        if not self._payload:
            super().write(payload)


class Queues(ShmBoard):
    """It shows the next value that it has not shown yet: what came while nobody looked is shown late."""

    def read(self, trust_ms: int = 0) -> list[Reading]:
        self.late, late = super().read(trust_ms), getattr(self, "late", [])
        return late


class KeepsTheBuffer(ShmSlot):
    def write(self, payload: Buffer) -> None:
        self.kept = payload
        super().write(payload)

    def beat(self) -> None:
        self._payload = bytes(getattr(self, "kept", self._payload))
        super().beat()


class CutsOff(ShmSlot):
    def write(self, payload: Buffer) -> None:
        super().write(payload[:234])


class BelievesAll(ShmBoard):
    """Version and CRC switched off."""

    @staticmethod
    def _decode(data: bytes, indices: Iterable[int]) -> dict[int, tuple[int, bytes]]:
        found = {}
        for index in indices:
            slot = data[256 * (1 + index) :][:256]
            length = int.from_bytes(slot[16:18], "big")
            found[index] = int.from_bytes(slot[8:16], "big"), slot[18 : 18 + min(length, 234)]
        return found

    def _look(self, fd: int) -> None:
        self._data, self._heads = b"", [b""] * len(self._heads)
        super()._look(fd)


class NoLocks(ShmBoard):
    def claim(self) -> ShmSlot | None:
        self._file.__class__ = FileWithoutLocks
        return super().claim()


class FileWithoutLocks(_File):
    def take(self, index: int) -> bool:
        if index in self.held:
            return False
        self.held.add(index)
        return True


class ForgetsWhatItHolds(ShmBoard):
    """Locks do not keep two boards of one process apart."""

    def claim(self) -> ShmSlot | None:
        self._next = 0
        held = set(self._file.held)
        self._file.held.clear()
        self._file.held.update(slot.index for slot in self._claimed)
        try:
            return super().claim()
        finally:
            self._file.held.update(held)


class AsksNobody(ShmBoard):
    def _alive(self, trust_ms: int) -> list[Reading]:
        return [(index, payload, 0) for index, (_beat, payload) in self._known.items()]


class KeepsTheDead(ShmBoard):
    """A slot that shows something is taken, whoever wrote it."""

    def claim(self) -> ShmSlot | None:
        lengths = memoryview(os.pread(self._file.fd, SIZE, 0)).cast("H")[128 + 8 :: 128]
        shows = {index for index in range(SLOTS) if lengths[index]} - self._file.held
        self._file.held.update(shows)
        try:
            return super().claim()
        finally:
            self._file.held.difference_update(shows)


class RemovesTheFile(ShmBoard):
    """As multiprocessing.shared_memory does for those who only looked."""

    def close(self) -> None:
        self._file.path.unlink(missing_ok=True)
        super().close()


class OpensItOnceMore(Shm):
    """POSIX locks, and a descriptor for each who looks: closing one drops the locks of all."""

    def __init__(self) -> None:
        super().__init__(_POSIX)

    def open(self, folder: Path) -> ShmBoard:
        board = super().open(folder)
        os.close(os.open(folder / "board", os.O_RDONLY))
        return board


first_write_wins = Made(ShmBoard, FirstWriteWins)
queues = Made(Queues)
keeps_the_buffer = Made(ShmBoard, KeepsTheBuffer)
cuts_off = Made(ShmBoard, CutsOff)
believes_all = Made(BelievesAll, InTwoHalves)
no_locks = Made(NoLocks)
forgets_what_it_holds = Made(ForgetsWhatItHolds)
asks_nobody = Made(AsksNobody)
keeps_the_dead = Made(KeepsTheDead)
removes_the_file = Made(RemovesTheFile)
opens_it_once_more = OpensItOnceMore()
