"""Who comes and who leaves, so that nobody fills a window by coming and going."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from chat.core.events import Here

if TYPE_CHECKING:
    from chat.core.status import Who

AT_ONCE: Final = 5  # lines about who came and left that may follow each other; what comes then is told together
EVERY: Final = 10.0  # seconds until one more such line; what comes before is told with it


class Moves:
    """What a room's window has not told yet of who came and who left."""

    def __init__(self) -> None:
        self.is_later = False  # a task waits to tell them
        self._came: dict[Who, None] = {}
        self._left: dict[Who, None] = {}
        self._allowed = float(AT_ONCE)
        self._counted = monotonic()

    def take(self, here: Here) -> None:
        """Take note. If somebody comes and leaves before a line is due, no line mentions them."""
        for some, others, who in [(self._came, self._left, who) for who in here.came] + [
            (self._left, self._came, who) for who in here.went
        ]:
            if who in others:
                del others[who]
            else:
                some[who] = None

    def __bool__(self) -> bool:
        return bool(self._came or self._left)

    def is_awaited(self, who: Who) -> bool:
        """Whether somebody has come, and it is not told yet."""
        return who in self._came

    def wait(self) -> float:
        """Return the seconds until a line may tell of it."""
        now = monotonic()
        self._allowed = min(AT_ONCE, self._allowed + (now - self._counted) / EVERY)
        self._counted = now
        return max(0.0, (1 - self._allowed) * EVERY)

    def tell(self) -> Here:
        """Return all that is to be told."""
        self._allowed = max(0.0, self._allowed - 1)
        here = Here([*self._came], [*self._left], first=False)
        self._came, self._left = {}, {}
        return here
