"""Walk through the messages of a room that have some text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from chat.ui.entry import MessageEntry
from chat.ui.timeline import folded

if TYPE_CHECKING:
    import asyncio

    from chat.ui.fullscreen.view import View

Place: TypeAlias = tuple[int, int]  # Entry.order


class Search:
    """A walk through the messages with some text, from the newest on.

         found by the host, by words │ found here, by the text's letters or by the host
         500, 312                    │ ◀── at: where the walk is ──▶ newer

    What is in the timeline is searched for the letters of the text (``timeline.folded``), all of the log by the host
    for its words (``chat.host.search``). Hits are known by their places, so they need not be loaded.
    """

    def __init__(self, view: View, text: str) -> None:
        self.text: Final = text
        self.at: Place | None = None
        self.more = True  # the host may know of older ones
        self.walk: asyncio.Task[None] | None = None  # to the next one, where that takes long
        self._view = view
        self._timeline = view.timeline
        self._found: dict[Place, MessageEntry | int] = {}  # the message, or its number
        self._gone: set[Place] = set()  # hits that there is nothing to be seen of
        self._hits: list[Place] = []  # in order, as of the last look
        self._before = 0  # what the host is asked for next is older than this number, where that is not 0
        self._low = self._high = (0, 0)  # places: between them all was looked at

    def next(self, *, older: bool) -> Place | None:
        """Return the next hit that is known, the newest at first; None where there is none."""
        self._look()
        at = self.at
        if at is None:
            return self._hits[-1] if self._hits else None
        by = bisect_left(self._hits, at) - 1 if older else bisect_right(self._hits, at)
        return self._hits[by] if 0 <= by < len(self._hits) else None

    def line_of(self, hit: Place) -> int | None:
        """Return where a hit stands in the window, None where it has no line there (any more)."""
        entry = self._found[hit]
        if isinstance(entry, MessageEntry) and not entry.seq:  # of a log that is no more
            timeline = self._view.window
            here = timeline.first <= entry.number < timeline.end and timeline[entry.number] is entry
            return entry.number if here else None
        found = self._view.window.at_seq(self.seq_of(hit))
        return None if found is None or found.retracted else found.number

    def seq_of(self, hit: Place) -> int:
        """Return the number of a hit in the log; 0 where it has none any more."""
        entry = self._found[hit]
        return entry.seq if isinstance(entry, MessageEntry) else entry

    def forget(self, hit: Place) -> None:
        """There is nothing to be seen of a hit: its author is ignored, or it was taken back."""
        self._gone.add(hit)
        self._look()

    async def fetch(self) -> bool:
        """Have the host find more. False where there is nothing more. Raises ChatError."""
        if not self.more:
            return False
        answer = await self._view.ask_search(self.text, self._before)
        self.more = answer.more and bool(answer.found)
        self._before = answer.found[-1][0] if answer.found else self._before
        for seq, _shown in answer.found:
            self._found.setdefault(self._timeline.order_of(seq), seq)
        self._look()
        return True

    @property
    def is_only(self) -> bool:
        return not self.more and self.place == (1, 1)

    @property
    def place(self) -> tuple[int, int]:
        """Which of the known hits the walk is at, 1 for the newest and 0 for none; and how many are known."""
        at = len(self._hits) - bisect_left(self._hits, self.at) if self.at is not None else 0
        return min(at, len(self._hits)), len(self._hits)

    def _look(self) -> None:
        """Look at what has come since the last time, at either end."""
        timeline, wanted = self._timeline, folded(self.text)
        newest_first = map(timeline.__getitem__, range(timeline.end - 1, timeline.first - 1, -1))
        oldest_first = map(timeline.__getitem__, range(timeline.first, timeline.end))
        for entry in chain(
            takewhile(lambda entry: entry.order > self._high, newest_first),
            takewhile(lambda entry: entry.order < self._low, oldest_first),
        ):
            if isinstance(entry, MessageEntry) and wanted and wanted in folded(entry.text):
                self._found[entry.order] = entry
        if timeline.end > timeline.first:
            first, last = timeline[timeline.first].order, timeline[timeline.end - 1].order
            self._low, self._high = min(self._low, first) if self._high > (0, 0) else first, last
        self._hits = sorted(place for place in self._found if place not in self._gone and not self._is_hidden(place))

    def _is_hidden(self, hit: Place) -> bool:
        entry = self._found[hit]
        return isinstance(entry, MessageEntry) and (entry.key in self._timeline.ignored or entry.retracted)
