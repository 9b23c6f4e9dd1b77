"""Moving through the log: jumps, searches, and the loading that they need.

What may take long is one task per room (``View.work``): new work waits for the old, and one key stops both.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from contextlib import suppress
from functools import partial
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from chat.core.bodies import Ask
from chat.core.errors import ChatError
from chat.i18n import _, later
from chat.ui.entry import MessageEntry
from chat.ui.rooms import OWN
from chat.ui.timeline import folded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chat.core.bodies import Answer
    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View

_HITS: Final = 20  # that the host is asked for at a time
_NEAR: Final = 30  # lines from the oldest one, where older ones are fetched


class Navigator:
    """Where the reader of the current room goes."""

    def __init__(self, face: FullScreen) -> None:
        self._face = face

    # -- long work -------------------------------------------------------------------------------

    def begin(self, view: View, work: Callable[[], Awaitable[object]], typed: str = "") -> asyncio.Task[None]:
        """Begin what may take long, after what is at work. What goes wrong is shown, with what was ``typed``."""
        before = view.work

        async def run() -> None:
            with self._face.shows_errors(view, typed):
                if before is not None:
                    await asyncio.wait([before])
                await work()

        def done(task: asyncio.Task[None]) -> None:  # also called for one that was stopped before its first step
            if before is not None and task.cancelled():
                before.cancel()
            if view.work is task:
                view.work = None
            self._face.app.invalidate()

        task = view.work = self._face.app.create_background_task(run())
        task.add_done_callback(done)
        self._face.app.redraw_soon()
        return task

    def load(self) -> None:
        """Begin to load what is wanted next where the pane is."""
        view = self._face.view
        if view.work is None and (load := self._to_load()) is not None:
            self.begin(view, partial(self._load, view, load))

    def _to_load(self) -> Callable[[], Awaitable[None]] | None:
        view, pane = self._face.view, self._face.pane
        window = view.window
        first, last = pane.in_view
        at_top, pane.at_top = pane.at_top, False
        if first == view.stopped_at or (pane.following and not at_top):
            return None
        if window.oldest > 1 and (at_top or first - window.first <= _NEAR) and not view.undoes(older=True):
            return view.load_older
        if not window.attached and window.end - last <= _NEAR and not view.undoes(older=False):
            return view.load_newer
        return view.check_edits if view.unchecked else None

    async def _load(self, view: View, load: Callable[[], Awaitable[None]]) -> None:
        try:
            await load()
        except ChatError:
            view.stopped_at = view.pane.in_view[0]  # else every redraw would try again
            raise

    # -- going somewhere -------------------------------------------------------------------------

    def bottom(self) -> None:
        self._face.view.follow()

    def top(self) -> None:
        """Go to the first message of the log."""
        view = self._face.view
        self._go(view, min(view.timeline.last_seq, 1), lambda: view.window.first)

    def _go(self, view: View, seq: int, find: Callable[[], int | None]) -> None:
        """Load what is around this number of the log, if it is not here, and go to the line that ``find`` returns."""
        if view.turn_to(seq):
            view.pane.jump(find())
            return

        async def load() -> None:
            await view.load_around(seq)
            view.pane.jump(find())

        self.begin(view, load)

    def select(self, by: int) -> None:
        window, pane = self._face.view.window, self._face.pane
        if by > 0 and window.attached and pane.selected is not None and pane.selected >= window.end - 1:
            pane.follow()
        else:
            pane.select(by)

    def unread(self) -> None:
        """Go to the unread marker."""
        view, state = self._face.view, self._face.view.timeline.read_state
        if state.marker is None and view.find_marker() is None:
            self._face.hint(_("nothing is unread here"))
        else:
            self._go(view, state.first_unread, view.find_marker)

    def chosen(self, command: str) -> MessageEntry:
        """Return the selected message, or the one that the command is most likely about. Raises ChatError."""
        view, mine = self._face.view, OWN.get(command)
        is_selected = view.pane.selected is not None
        item = view.selected(mine=mine if mine or not is_selected else None)
        if item is not None and item.retracted and mine:
            raise ChatError("this message is taken back already")
        if item is not None and (item.seq or (item.pending and mine)):
            return item
        if is_selected and mine:
            raise ChatError("this is not yours: only your own messages can be changed; Escape selects none")
        if mine:
            raise ChatError("there is no message of yours here that could be changed")
        raise ChatError("there is no message here for this; {key} selects one", key=self._face.key("select-previous"))

    def mention(self) -> None:
        """Go to the last message here that names the reader."""
        view = self._face.view
        if not view.pane.jump(view.window.last_mention()):
            text = _("nobody mentions you in what is loaded here; {key} loads more")
            self._face.hint(text.format(key=self._face.key("page-up")))

    def has_begun(self) -> bool:
        """Say whether there is something to stop, or a way back to the end."""
        view = self._face.view
        begun = (view.work, view.search, self._face.controller.begun, view.pane.selected)
        return any(one is not None for one in begun) or not view.pane.following

    def stop(self) -> None:
        """Go one step back: stop what is at work, else leave an answer, a search, a selection, old messages."""
        view = self._face.view
        if view.work is not None:
            view.work.cancel()
            view.stopped_at = view.pane.in_view[0]
            key = self._face.key("page-up" if view.search is None else "previous-hit")
            self._face.hint(_("stopped; {key} continues").format(key=key))
        elif self._face.controller.begun is not None:
            self._face.end_correction()
            self._face.controller.begun = None
        elif view.search is not None:
            view.search, view.pane.hit = None, ""
            view.pane.deselect()
        elif view.pane.selected is not None:
            view.pane.deselect()
        else:
            view.follow()

    # -- searching -------------------------------------------------------------------------------

    def search(self, text: str) -> None:
        """Go to the newest message with a text."""
        view = self._face.view
        view.search = search = Search(view, text)
        view.pane.hit = text
        if not self._step(view, search, older=True):
            search.walk = self.begin(view, partial(self._walk_on, view, search, older=True), f"/search {text}")
            return

        async def count() -> None:
            with suppress(ChatError):  # then the host is asked again when the walk comes to the end of what is here
                await search.fetch()

        self.begin(view, count)

    def next_hit(self, *, older: bool) -> None:
        view = self._face.view
        search = view.search
        if search is None:
            self._face.hint(_("there is no search yet: /search TEXT"))
        elif (search.walk is None or search.walk.done()) and not self._step(view, search, older=older):
            search.walk = self.begin(view, partial(self._walk_on, view, search, older=older))

    def _step(self, view: View, search: Search, *, older: bool) -> bool:
        """Go to the next hit. False if there is none, or it has to be loaded."""
        while (hit := search.next(older=older)) is not None:
            if not view.turn_to(search.seq_of(hit)):
                return False
            if (line := search.line_of(hit)) is not None:
                search.at = hit
                view.pane.jump(line, unfold=True)  # the hit may be in a part that is folded
                view.pane.selected = line
                return True
            search.forget(hit)
        return False

    async def _walk_on(self, view: View, search: Search, *, older: bool) -> None:
        """Go to the next hit; load it, or ask the host for more, if it is not here."""
        while view.search is search and not self._step(view, search, older=older):
            if (hit := search.next(older=older)) is not None:
                await view.load_around(search.seq_of(hit))
                if not view.turn_to(search.seq_of(hit)):
                    search.forget(hit)
            elif older and await search.fetch():
                continue
            elif search.at is None:
                text = _("no message here contains: {text}; try fewer words, or a part of one")
                self._face.show(text.format(text=search.text), room=view)
                return
            else:
                if view is self._face.view:
                    self._hint_end(search, older=older)
                return

    def _hint_end(self, search: Search, *, older: bool) -> None:
        key = self._face.key("next-hit" if older else "previous-hit")
        if not search.more and search.place == (1, 1):
            self._face.hint(_("this is the only hit"))
        elif older:
            self._face.hint(_("there is no hit further up; {key} goes down").format(key=key))
        else:
            self._face.hint(_("there is no hit further down; {key} goes up").format(key=key))


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
        answer = await self._ask_until_indexed()
        self.more = answer.more and bool(answer.found)
        self._before = answer.found[-1][0] if answer.found else self._before
        for seq, _text_seq in answer.found:
            self._found.setdefault(self._timeline.order_of(seq), seq)
        self._update()
        return True

    async def _ask_until_indexed(self) -> Answer:
        """Ask the host, whose index may be behind, until that has come as far as the log went when we began."""
        end = self._before or self._view.session.next_seq
        with self._view.shows_progress(later("searching"), end) as progress:
            answer = await self._ask()
            while answer.indexed < end and answer.indexed > progress.at:
                progress.at = answer.indexed
                answer = await self._ask()
        return answer

    async def _ask(self) -> Answer:
        """Ask the host one thing at a time, even if nobody waits for the answer any more."""
        view = self._view
        while view.asked is not None and not view.asked.done():
            await asyncio.wait([view.asked])
        ask = Ask(what="search", text=self.text, before=self._before, limit=_HITS)
        view.asked = asyncio.create_task(view.client.ask(ask))
        view.asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # it was retrieved
        return await asyncio.shield(view.asked)

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
