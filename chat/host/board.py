"""The board of one room, as its host uses it: for members that cannot see it, and for read marks that outlive a window.

    ann (queue) ── writes her slot ──▶ board ◀── polled by all on this machine
                                         │
    host:   bob (tcp) ── STATE ──▶ writes his slot      polls ──▶ STATES, to members that asked for them
                                         └──▶ how far each key has read ──▶ the room

A broken board loses presence, never messages. Without a board the host goes by what members sent.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final

from chat.core import status
from chat.core.errors import ChatError
from chat.transport.registry import board_maker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chat.core.room import Member, Room
    from chat.transport import Board, BoardSlot

_logger = logging.getLogger("chat.host.host")
_FULL: Final = 1.0  # seconds for which a full board is not searched for a free slot again: that takes 0.2 ms


class HostBoard:
    """``folder`` is where the room's board lies, None for a room without one. Raises ChatError."""

    def __init__(self, room: Room, folder: Path | None) -> None:
        self._room = room
        self._folder = folder
        self._slots: dict[Member, BoardSlot] = {}  # which we write for members that do not see the board
        self._warned = ""
        self._full_until = 0.0  # by the monotonic clock
        self._board = self._open()

    def _open(self) -> Board | None:
        maker = board_maker()
        return maker.create(self._folder) if self._folder is not None and maker is not None else None

    def close(self) -> None:
        if self._board is not None:
            with self._faults_logged():
                if self._board.sound() and self._folder is not None and (maker := board_maker()) is not None:
                    maker.remove(self._folder)
            self._board.close()
        self._board = None
        self._slots.clear()

    @contextmanager
    def _faults_logged(self) -> Iterator[None]:
        try:
            yield
        except ChatError as error:
            self._warn(str(error))

    def _warn(self, text: str) -> None:
        if text != self._warned:  # not again at each poll
            _logger.warning("%s", text)
        self._warned = text

    def claim(self, member: Member) -> bool:
        """Claim a slot for a member that has none of its own; return False if the board is full."""
        if self._board is not None and member.slot:
            if time.monotonic() < self._full_until:
                return False
            with self._faults_logged():
                slot = self._board.claim()
                if slot is None:
                    self._full_until = time.monotonic() + _FULL
                    return False
                self._slots[member] = slot
                slot.write(member.slot)
        return True

    def release(self, member: Member) -> None:
        """Release the slot of a member that left, after keeping how far it had read."""
        if (shown := status.unpack_slot(member.slot)) is not None:
            self._room.has_read(member.key, shown[1].read)
        if (slot := self._slots.pop(member, None)) is not None:
            slot.close()
            self._full_until = 0.0

    def poll(self) -> bool:
        """Write what members sent, and read the board for those that cannot; return whether they lack something."""
        with self._faults_logged():
            for member, slot in self._slots.items():
                if member.slot is not member.shown:
                    slot.write(member.slot)
                    member.shown = member.slot
            if any(member.statuses != inf for member in self._room.members):
                return self._room.roster.look(status.seen(self._read()))
        return False

    def _read(self) -> list[tuple[int, bytes, int]]:
        if self._board is not None:
            return self._board.read()
        return [(0, member.slot, 0) for member in self._room.members if member.slot]

    def beat(self) -> list[Member]:
        """Keep our slots alive; replace a damaged or missing board, and return the members without a slot on it."""
        with self._faults_logged():
            if self._board is not None and self._board.sound():
                for slot in self._slots.values():
                    slot.beat()
                return []
            if self._board is not None:
                self._warn(f"the board of {self._room.name} was damaged, and is made anew")
            self.close()
            self._board = self._open()
            if self._board is not None:
                self._warned = ""
                return [member for member in self._room.members if not self.claim(member)]
        return []

    def note_reads(self) -> None:
        """Have the room keep how far each key has read, for its next window."""
        with self._faults_logged():
            for (key, _), state in status.seen(self._read()).items():
                self._room.has_read(key, state.read)
