"""Loads what is not in memory: older and newer messages, those around a number, and what a search finds.

Rules:

1. One thing is loaded at a time. It can be cancelled at any time; what was fetched until then stays.
2. An edit stands further down in the log than its message. So below a window far up, the log is read for edits, too.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from chat.core.session import Message
from chat.core.wire import Answer, Ask
from chat.ui.fullscreen.progress import CHECKING, LOADING, SEARCHING, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chat.client.client import Client
    from chat.ui.fullscreen.pane import Pane
    from chat.ui.fullscreen.viewport import Viewport
    from chat.ui.timeline import Timeline

_PAGE: Final = 300  # messages
_LARGE_PAGE: Final = 2_000  # if many are wanted
_HITS: Final = 20  # of one search


class Loader:
    """``heard`` is called for each loaded message, before it is shown."""

    def __init__(self, client: Client, viewport: Viewport, heard: Callable[[Message], None]) -> None:
        self.working: Progress | None = None
        self.checking: Progress | None = None
        self._client = client
        self._viewport = viewport
        self._heard = heard
        self._turn = asyncio.Lock()
        self._asked: asyncio.Task[Answer] | None = None
        # For which first line on the screen something was loaded last, and whether older messages.
        self._loaded: tuple[Pane, int, bool] | None = None

    # -- messages --------------------------------------------------------------------------------

    async def older(self, down_to: int = 0) -> None:
        """Load a page of older messages, or all from number ``down_to`` on. Raises ChatError."""
        viewport = self._viewport
        async with self._turn:
            if viewport.timeline.ring.full and viewport.past is None and not viewport.detach():
                return
            window = viewport.window
            self._loaded = self._at(older=True)
            with self._progress(LOADING, window.oldest, max(1, down_to or window.oldest - _PAGE)) as progress:
                while window.oldest > max(1, down_to) and window is viewport.window:
                    await self._load_page(window, progress, _LARGE_PAGE if down_to else _PAGE)
                    if not down_to or (window.attached and window.ring.full):
                        return

    async def _load_page(self, window: Timeline, progress: Progress, size: int) -> None:
        oldest = window.oldest
        begins = max(1, oldest - size)
        found, _upto = await self._read(begins, oldest, progress, up=False)
        live = self._viewport.timeline
        if window in (live, self._viewport.past) and oldest == window.oldest:  # else it was left, or cleared
            self._hear(found, window)
            if window.attached:
                self._viewport.keep_marker()
            window.add_older(found, begins)

    async def newer(self) -> None:
        """Load a page of newer messages, or go back to the live window if it has them. Raises ChatError."""
        viewport = self._viewport
        async with self._turn:
            past, live, first = viewport.past, viewport.timeline, viewport.first_seq
            if past is None or viewport.reattach(first):
                return
            self._loaded = self._at(older=False)
            if past.last_seq + 1 >= live.oldest and not live.ring.full:
                with self._progress(LOADING, live.oldest, first) as progress:
                    await self._load_page(live, progress, max(live.oldest - first, 1))
                if past is viewport.past and viewport.reattach(viewport.first_seq):
                    return
            begins, ends = past.last_seq + 1, min(past.last_seq + 1 + _PAGE, live.last_seq + 1)
            if begins >= ends:  # this is the end, and the live window has none of what is on the screen
                if viewport.pane.visible_range()[1] >= past.end - 1:
                    viewport.follow()
                else:
                    viewport.stopped_at = viewport.pane.visible_range()[0]
                return
            with self._progress(LOADING, begins, ends) as progress:
                found, _upto = await self._read(begins, ends, progress)
            if past is viewport.past and begins == past.last_seq + 1:
                self._hear(found, past)
                past.add_newer(found, ends)

    def undoes(self, *, older: bool) -> bool:
        """Whether loading at one end would evict what was just loaded at the other, for the same screen."""
        return self._viewport.window.ring.full and self._loaded == self._at(older=not older)

    def _at(self, *, older: bool) -> tuple[Pane, int, bool]:
        return self._viewport.pane, self._viewport.pane.visible_range()[0], older

    async def go_to(self, seq: int) -> None:
        """Have this number of the log in the window: load everything down to it, or open a window there.

        Raises ChatError.
        """
        viewport = self._viewport
        live = viewport.timeline
        if not viewport.turn_to(seq) and live.oldest - seq <= _LARGE_PAGE and live.end - live.first < _LARGE_PAGE:
            viewport.show()
            await self.older(seq)
        if not viewport.turn_to(seq):
            async with self._turn:
                await self._open(seq)

    async def _open(self, seq: int) -> None:
        live = self._viewport.timeline
        begins, ends = max(1, seq - _PAGE), min(seq + _PAGE, live.last_seq + 1)
        with self._progress(LOADING, begins, ends) as progress:
            found, upto = await self._read(begins, ends, progress)
            if not found and upto > ends:  # it is gone for good: begin with what is there
                found, upto = await self._read(upto, upto + _PAGE, progress)
                ends = upto
        if live is not self._viewport.timeline or live.last_seq < seq:  # cleared meanwhile, or another log
            return
        self._viewport.leave()
        past = live.part(seq)
        self._hear(found, past)
        past.add_newer((message for message in found if message.seq >= seq), ends)
        past.add_older([message for message in found if message.seq < seq], begins)
        self._viewport.show(past)

    def _hear(self, messages: Iterable[Message], window: Timeline) -> None:
        for message in messages:
            self._heard(message)
        window.ignored |= self._viewport.timeline.ignored

    @property
    def needs_check(self) -> bool:
        """Whether edits of the messages in the window may stand in a part of the log that nobody has read."""
        past = self._viewport.past
        return past is not None and self._known_from > past.last_seq + 1

    @property
    def _known_from(self) -> int:
        timeline = self._viewport.timeline
        return timeline.edits.since or timeline.last_seq + 1

    async def check(self) -> None:
        """Read a page of the log below the window for edits of the messages in it. Raises ChatError."""
        async with self._turn:
            past, since = self._viewport.past, self._known_from
            if past is None or since <= past.last_seq + 1:
                return
            self.checking = self.checking or Progress(CHECKING, since, past.last_seq + 1)
            goes_on = False
            try:
                begins = max(past.last_seq + 1, since - _LARGE_PAGE)
                found, _upto = await self._read(begins, since, self.checking, up=False)
                if past is self._viewport.past and since == self._known_from:
                    past.apply_changes(found)
                    past.edits.since = begins
                goes_on = self.needs_check
            finally:
                if not goes_on:
                    self.checking = None

    async def _read(self, begins: int, ends: int, progress: Progress, *, up: bool = True) -> tuple[list[Message], int]:
        """Return the messages from number ``begins`` up to ``ends``, excluded, and how far the log was read.

        ``up``: whether progress goes from ``begins`` to ``ends``, or the other way.
        """
        upto = begins

        def reached(seq: int) -> None:
            nonlocal upto
            upto, done = seq, min(seq, ends) - begins
            progress.at = begins + done if up else ends - done

        found = await self._client.range(begins, ends, reached)
        return [item for item in found if isinstance(item, Message)], upto

    @contextmanager
    def _progress(self, what: str, first: int, end: int) -> Iterator[Progress]:
        self.working = Progress(what, first, end)
        try:
            yield self.working
        finally:
            self.working = None

    # -- search ----------------------------------------------------------------------------------

    async def search(self, text: str, before: int) -> Answer:
        """Have the host search the log below number ``before``, or all of it. Raises ChatError.

        Its index may be behind: then ask again until it has read as far as the log went when we began.
        """
        end = before or self._client.session.next_seq
        ask = Ask(what="search", text=text, before=before, limit=_HITS)
        with self._progress(SEARCHING, 0, end) as progress:
            answer = await self._ask(ask)
            while answer.indexed < end and answer.indexed > progress.at:
                progress.at = answer.indexed
                answer = await self._ask(ask)
        return answer

    async def _ask(self, ask: Ask) -> Answer:
        """Ask the host one thing at a time, even if nobody waits for the answer any more."""
        while self._asked is not None and not self._asked.done():
            await asyncio.wait([self._asked])
        self._asked = asyncio.create_task(self._client.ask(ask))
        self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # it was retrieved
        return await asyncio.shield(self._asked)
