"""A walk through the messages of a room that hold a text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from chat.ui.entry import MessageEntry
from chat.ui.timeline import folded

if TYPE_CHECKING:
    import asyncio

    from chat.ui.fullscreen.view import View

Hit: TypeAlias = tuple[int, int]  # Entry.order


class Search:
    """From the newest hit on.

         found by the host, by words │ found here, by letters, or by the host
         500, 312                    │ ◀── at: where the walk is ──▶ newer

    The timeline is searched for the letters of the text (``timeline.folded``), the whole log by the host for its words
    (``chat.host.search``). A hit is known by its order, so it need not be loaded.
    """

    def __init__(self, view: View, text: str) -> None:
        self.text: Final = text
        self.at: Hit | None = None
        self.more = True  # the host may find older ones
        self.walk: asyncio.Task[None] | None = None  # to the next hit, if that takes long
        self._view = view
        self._timeline = view.timeline
        self._found: dict[Hit, MessageEntry | int] = {}  # the message, or its number
        self._invisible: set[Hit] = set()
        self._hits: list[Hit] = []  # visible ones, sorted
        self._before = 0  # the host is asked next for what is older than this number, if it is not 0
        self._low = self._high = (0, 0)  # the part of the timeline that was searched

    def next(self, *, older: bool) -> Hit | None:
        """Return the next known hit, the newest at first; None if there is none."""
        self._update()
        if self.at is None:
            return self._hits[-1] if self._hits else None
        at = bisect_left(self._hits, self.at) - 1 if older else bisect_right(self._hits, self.at)
        return self._hits[at] if 0 <= at < len(self._hits) else None

    def line_of(self, hit: Hit) -> int | None:
        """Return where a hit stands in the window, None if it has no line there (any more)."""
        entry = self._found[hit]
        if isinstance(entry, MessageEntry) and not entry.seq:  # of an earlier log
            timeline = self._view.window
            here = timeline.first <= entry.number < timeline.end and timeline[entry.number] is entry
            return entry.number if here else None
        found = self._view.window.at_seq(self.seq_of(hit))
        return None if found is None or found.retracted else found.number

    def seq_of(self, hit: Hit) -> int:
        """Return the number of a hit in the log; 0 if it is of an earlier log."""
        entry = self._found[hit]
        return entry.seq if isinstance(entry, MessageEntry) else entry

    def forget(self, hit: Hit) -> None:
        """A hit turned out to be invisible: its author is ignored, or it was retracted."""
        self._invisible.add(hit)
        self._update()

    async def fetch(self) -> bool:
        """Have the host find more. False if there is no more. Raises ChatError."""
        if not self.more:
            return False
        answer = await self._view.loader.search(self.text, self._before)
        self.more = answer.more and bool(answer.found)
        self._before = answer.found[-1][0] if answer.found else self._before
        for seq, _text_seq in answer.found:
            self._found.setdefault(self._timeline.order_of(seq), seq)
        self._update()
        return True

    @property
    def is_only(self) -> bool:
        return not self.more and self.place == (1, 1)

    @property
    def place(self) -> tuple[int, int]:
        """Which of the known hits the walk is at, 1 for the newest and 0 for none; and how many there are."""
        at = len(self._hits) - bisect_left(self._hits, self.at) if self.at is not None else 0
        return min(at, len(self._hits)), len(self._hits)

    def _update(self) -> None:
        """Search what was added to the timeline since the last time, at either end."""
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
        self._hits = sorted(hit for hit in self._found if hit not in self._invisible and not self._is_hidden(hit))

    def _is_hidden(self, hit: Hit) -> bool:
        entry = self._found[hit]
        return isinstance(entry, MessageEntry) and (entry.key in self._timeline.ignored or entry.retracted)
