"""Two programs that answer each other never tire: this slows them down, and then stops them.

Rules:

1. What counts is a turn: a program speaks, and the last to speak was another program. One that says a
   thousand lines takes one turn, and so a program that only reports is never held up by itself.
2. A person's message ends it all. So does time, until the limit is reached: one turn a minute is forgotten,
   or two programs that each say a line a day would be a loop by the end of the month.
3. Half of the limit may be taken freely. After that a program is read ever more slowly, and at the limit
   no more, until a person speaks. Nothing that it says is lost: it waits with the program.
"""

from __future__ import annotations

import math
from typing import Final

LIMIT: Final = 20  # turns
_FORGET: Final = 60_000  # milliseconds in which one turn is forgotten


class LoopGuard:
    """The turns of programs in one room. ``limit`` is in turns; 0 lets them go on for ever."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._turns = 0.0
        self._last = b""  # who spoke last, if it was a program
        self._at = 0  # when the last turn was taken

    def person_spoke(self) -> None:
        """Begin anew."""
        self._turns, self._last = 0.0, b""

    def program_spoke(self, key: bytes, now: int) -> None:
        """Count it, if it is a turn. ``now`` is in milliseconds, of a clock that may be set back."""
        if self._last not in {b"", key}:
            self._turns = max(0.0, self._turns - max(0, now - self._at) / _FORGET) + 1
            self._at = now
        self._last = key

    @property
    def pause(self) -> float:
        """Seconds for which the program that spoke last is not to be read: 0, some, or infinity."""
        if not self._limit or self._turns <= self._limit / 2:
            return 0.0
        return math.inf if self._turns >= self._limit else math.ceil(self._turns - self._limit / 2)
