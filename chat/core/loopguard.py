"""Slows down programs that answer each other, and then stops them.

Rules:

1. A turn is a message of one program after a message of another. A program that only reports takes no turns and is
   never slowed down, however much it says.
2. Replies can double every turn. So a turn has 16 lines, and more lines count as further turns. Only lines since a
   person last spoke count, without those of the program that said most.
3. A person's message resets the guard. One turn is forgotten each minute until the limit is reached; otherwise two
   programs that say a line a day would be a loop by the end of the month.
4. Half of the limit is free. Beyond that a program is read more and more slowly, and at the limit not at all until a
   person speaks. Nothing is lost: it waits with the program.
"""

from __future__ import annotations

import math
import sys
from typing import Final

LIMIT: Final = 20  # turns of programs that answer each other (--bot-turns); then they wait for a person: ``loop-muted``
_LINES: Final = 16  # messages of a turn
_FORGET: Final = 60_000  # milliseconds in which a turn is forgotten


class LoopGuard:
    """The turns of programs in one room. ``limit`` is in turns, 0 for no limit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._time = 0  # milliseconds until every turn is forgotten
        self._last = b""  # who spoke last, if it was a program
        self._at = 0  # when the last turn was taken
        self._said: dict[bytes, int] = {}  # messages of each program since a person spoke
        self._taken = 0  # turns since then
        self._charged = 0  # further turns that long answers were counted as

    def person_spoke(self) -> None:
        """Reset the guard."""
        if self._last:
            self._time, self._last, self._said, self._taken, self._charged = 0, b"", {}, 0, 0

    def program_spoke(self, key: bytes, now: int, messages: int = 1) -> None:
        """Count what a program said. ``now`` is in milliseconds, of a clock that may be set back."""
        turn = self._last not in {b"", key}
        self._last = key
        self._taken += turn
        self._said[key] = self._said.get(key, 0) + messages
        said = sum(self._said.values()) - max(self._said.values())
        further = max(0, said // _LINES - self._taken - self._charged)
        self._charged += further
        if turn or further:
            self._time = max(0, self._time - max(0, now - self._at)) + (turn + further) * _FORGET
            self._at = now

    @property
    def most(self) -> int:
        """How many messages of a program to take before asking ``pause`` again."""
        return _LINES if self._taken and self._limit else sys.maxsize

    @property
    def pause(self) -> float:
        """Seconds to leave the last program unread: 0, some, or infinity."""
        turns = self._time / _FORGET
        if not self._limit or turns <= self._limit / 2:
            return 0.0
        return math.inf if turns >= self._limit else math.ceil(turns - self._limit / 2)
