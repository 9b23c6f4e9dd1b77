"""The board of one room, as its host keeps it: for those who cannot see it, and for what outlives a window.

    ann (queue) ── writes her slot ──▶ board ◀── looks, and so do all on this machine
                                         │
    host:   bob (tcp) ── STATE ──▶ writes his slot      looks ──▶ STATES, to those who asked for them
                                         └──▶ how far each key has read ──▶ the room

Rules:

1. Presence is advisory. A board that is full, damaged or gone costs what it shows, and never the talk: it is said
   in the host's log, and the room goes on.
2. Only the newest counts: slots are written, and the board is looked at, when the host has time for it.
3. A room without a board (on a machine that has none) shows what members sent.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

from chat.core import status
from chat.core.errors import ChatError
from chat.transport import board_maker

if TYPE_CHECKING:
    from pathlib import Path

    from chat.core.room import Member, Room
    from chat.transport import Board, BoardSlot

_logger = logging.getLogger("chat.host.host")


class HostBoard:
    """``folder`` is where the room's board lies, None for a room without one. Raises ChatError where it cannot."""

    def __init__(self, room: Room, folder: Path | None) -> None:
        self._room = room
        self._folder = folder
        self._board: Board | None = None
        self._cells: dict[Member, BoardSlot] = {}  # of those who do not see the board; we write for them
        self._told = ""  # what was said last in the host's log: once is enough
        self._open()

    def _open(self) -> None:
        maker = board_maker()
        if self._folder is not None and maker is not None:
            self._board = maker.create(self._folder)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        self._board = None
        self._cells.clear()

    def _warn(self, told: str) -> None:
        if told != self._told:
            _logger.warning("%s", told)
        self._told = told

    def claim(self, member: Member) -> bool:
        """Give a member that cannot have its own a slot; return False where the board is full."""
        if self._board is None or not member.slot:
            return True
        try:
            slot = self._board.claim()
            if slot is None:
                return False
            self._cells[member] = slot
            slot.write(member.slot)
        except ChatError as error:
            self._warn(str(error))
        return True

    def release(self, member: Member) -> None:
        """A member has left. Its last word on how far it has read may have come without a look at the board."""
        if (shown := status.unpack_slot(member.slot)) is not None:
            self._room.has_read(member.key, shown[1].read)
        if (slot := self._cells.pop(member, None)) is not None:
            slot.close()

    def look(self) -> bool:
        """Write what members have sent, and look for those who cannot. Return whether there is something to tell."""
        try:
            for member, slot in self._cells.items():
                if member.slot is not member.shown:
                    slot.write(member.slot)
                    member.shown = member.slot
            if all(member.statuses == inf for member in self._room.members):
                return False
            return self._room.roster.look(status.seen(self._read()))
        except ChatError as error:
            self._warn(str(error))
            return False

    def _read(self) -> list[tuple[int, bytes, int]]:
        if self._board is not None:
            return self._board.read()
        return [(0, member.slot, 0) for member in self._room.members if member.slot]

    def beat(self) -> list[Member]:
        """Show that those live for whom we write, and have a board made anew that is damaged or could not be made.

        Returns who has no slot on the new one: others may have come first.
        """
        try:
            if self._board is not None and self._board.sound():
                for slot in self._cells.values():
                    slot.beat()
                return []
            if self._board is not None:
                self._warn(f"the board of {self._room.name} was damaged, and is made anew")
            self.close()
            self._open()
            if self._board is None:
                return []
            self._told = ""
            return [member for member in self._room.members if not self.claim(member)]
        except ChatError as error:
            self._warn(str(error))
            return []

    def note_reads(self) -> None:
        """Have the room keep how far each key has read, so that its next window knows."""
        try:
            for (key, _), state in status.seen(self._read()).items():
                self._room.has_read(key, state.read)
        except ChatError as error:
            self._warn(str(error))
