"""How far long work in a room has come."""

from __future__ import annotations

import time
from typing import Final

from chat.i18n import later

CATCHING_UP: Final = later("catching up")
LOADING: Final = later("loading older messages")
SEARCHING: Final = later("searching")
CHECKING: Final = later("looking for corrections")


class Progress:
    """How far long work has come: ``at`` goes from ``first`` to ``end``, up or down, in numbers of the log."""

    def __init__(self, what: str, first: int, end: int) -> None:
        self.what: Final = what  # CATCHING_UP, LOADING, SEARCHING or CHECKING
        self.at = self._first = first
        self._end = end
        self._began = time.monotonic()

    @property
    def part(self) -> float:
        """From 0 to 1."""
        whole = abs(self._end - self._first)
        return min(abs(self.at - self._first) / whole, 1.0) if whole else 1.0

    @property
    def rate(self) -> int:
        """Numbers of the log a second, since it began."""
        return round(abs(self.at - self._first) / max(time.monotonic() - self._began, 0.001))
