"""What a member shows of itself, and what it sees of others.

On the host's machine both go over the room's board in shared memory. From elsewhere, or without a slot on that
board, the member sends STATE frames; without a board the host sends it STATES.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from chat.core import status
from chat.core.errors import ChatError
from chat.core.session import LinkState
from chat.transport.registry import board_maker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.core.session import Session
    from chat.transport import Board, BoardSlot

SHOW: Final = 0.3  # seconds at least between two STATE frames: only the newest counts


class MemberBoard:
    """``looks``: the member wants to see the status of others, and shows its own unless it is silent."""

    def __init__(self, session: Session, flush_soon: Callable[[], None], *, looks: bool) -> None:
        self.shows = status.Status(active=time.time_ns() // 1_000_000)
        self.board: Board | None = None
        self._slot: BoardSlot | None = None
        self._session = session
        self._flush_soon = flush_soon
        self._looks = looks
        self._is_seen = looks and not session.silent
        self._pause: asyncio.TimerHandle | None = None  # no STATE frame before it ends
        self._sent = b""  # the last STATE frame's body

    def open(self, folder: Path | None) -> None:
        """Take a slot on the board, if there is one here, and have the session tell the host what is missing."""
        with suppress(ChatError):  # without a board the host tells us of the others, as if we were far away
            self._claim(folder)
        self._session.board = self._slot is not None
        self._session.states = {} if self._looks and self.board is None else None

    def _claim(self, folder: Path | None) -> None:
        self.close()
        maker = board_maker()
        if self._is_seen and folder is not None and maker is not None:
            self.board = maker.open(folder)
            self._slot = self.board.claim()

    def close(self) -> None:
        """Leave the board: a member that is not in the room is not seen there."""
        if self.board is not None:
            self.board.close()
        if self._pause is not None:
            self._pause.cancel()
        self.board = self._slot = self._pause = None

    def leave(self) -> None:
        """Send our status once more: the host keeps how far we have read, and may not have looked since."""
        if self._is_seen:
            self._session.show(self._packed())

    def show(self, **changes: Any) -> None:
        """Change what we show. Raises ValueError for a note that is too long."""
        shows = self.shows._replace(**changes)
        status.pack_slot(self._session.key, self._session.nick, shows)
        self.shows = shows
        self._show()

    def people(self) -> dict[status.Who, status.Status]:
        shown = self._session.states or {}
        if self.board is not None:
            with suppress(ChatError):  # it was damaged just now; the next beat opens it again
                shown = status.seen(self.board.read())
        return {who: shown.get(who, status.Status()) for who in self._session.here}

    def joined(self) -> None:
        """Show our status to a host that has not seen it yet."""
        self._sent = b""
        self._show()

    def beat(self, folder: Path | None) -> None:
        """Show that we live. If the board was damaged, take a slot on the one that the host has made instead."""
        if folder is None or self._session.states is not None or self._session.state is not LinkState.JOINED:
            return
        try:
            if self.board is None or not self.board.sound():
                self._claim(folder)
                self._show()
            elif self._slot is not None:
                self._slot.beat()
        except ChatError:
            self.close()  # the next beat tries again

    def _packed(self) -> bytes:
        return status.pack_slot(self._session.key, self._session.nick, self.shows)

    def _show(self) -> None:
        if not self._is_seen or self._session.state is not LinkState.JOINED:
            return
        slot = self._packed()
        if self._slot is not None:
            with suppress(ChatError):
                self._slot.write(slot)
        elif self._pause is None and slot != self._sent:
            self._sent = slot
            self._session.show(slot)
            self._flush_soon()
            self._pause = asyncio.get_running_loop().call_later(SHOW, self._show_newest)

    def _show_newest(self) -> None:
        self._pause = None
        self._show()
