"""Two programs that answer each other never tire: this slows them down, and then stops them.

Rules:

1. What counts is a turn: a program speaks, and the last to speak was another program. So a program that only
   reports is never held up, however much it says and whoever else says a word now and then.
2. Two that answer each line with two are a thousand lines further at the tenth turn. So a turn has 16 lines, and
   what is more counts as further turns: of all that programs have said since a person spoke, but for the one that
   has said most.
3. A person's message ends it all. So does time, until the limit is reached: one turn a minute is forgotten,
   or two programs that each say a line a day would be a loop by the end of the month.
4. Half of the limit may be taken freely. After that a program is read ever more slowly, and at the limit
   no more, until a person speaks. Nothing that it says is lost: it waits with the program.
"""

from __future__ import annotations

import math
import sys
from typing import Final

LIMIT: Final = 20  # turns
_LINES: Final = 16  # messages of a turn
_FORGET: Final = 60_000  # milliseconds in which a turn is forgotten


class LoopGuard:
    """The turns of programs in one room. ``limit`` is in turns; 0 lets them go on for ever."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._time = 0  # milliseconds until all turns are forgotten
        self._last = b""  # who spoke last, if it was a program
        self._at = 0  # when the last turn was taken
        self._said: dict[bytes, int] = {}  # messages of each program since a person spoke
        self._taken = 0  # turns since then
        self._charged = 0  # and further ones that those messages have counted as

    def person_spoke(self) -> None:
        """Begin anew."""
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
        """How many messages of a program may be taken before ``pause`` is asked for again."""
        return _LINES if self._taken and self._limit else sys.maxsize

    @property
    def pause(self) -> float:
        """Seconds for which the program that spoke last is not to be read: 0, some, or infinity."""
        turns = self._time / _FORGET
        if not self._limit or turns <= self._limit / 2:
            return 0.0
        return math.inf if turns >= self._limit else math.ceil(turns - self._limit / 2)
