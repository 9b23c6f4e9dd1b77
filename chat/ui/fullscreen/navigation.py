"""Moving through the log: jumps, lists, searches, and the loading that they need.

Rules:

1. What may take long is one task per room (``View.work``): new work waits for the old, and one key stops both.
2. A list of our own (help, details) is a place to come back from: Escape leads to where one was before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.errors import ChatError
from chat.i18n import _, translate
from chat.ui.fullscreen.search import Search

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.pane import Pane
    from chat.ui.fullscreen.view import View
    from chat.ui.timeline import Timeline

_NEAR: Final = 30  # lines from the oldest one, where older ones are fetched


class _Place(NamedTuple):
    """Where the reader was before a list was shown."""

    view: View
    window: Timeline
    pane: Pane
    place: tuple[int, int] | None
    selected: int | None


class Navigator:
    """Where the reader of the current room goes."""

    def __init__(self, face: FullScreen) -> None:
        self.came_from: _Place | None = None
        self._face = face

    # -- long work -------------------------------------------------------------------------------

    def begin(self, view: View, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
        """Begin what may take long, after what is at work. What goes wrong is shown."""
        before = view.work

        async def run() -> None:
            try:
                if before is not None:
                    await _ended(before)
                await work()
            except ChatError as error:
                self._face.show(translate(error), room=view)

        def done(task: asyncio.Task[None]) -> None:  # also called for one that was stopped before its first step
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
        first, last = pane.visible_range()
        at_top, pane.at_top = pane.at_top, False
        if first == view.stopped_at or (pane.following and not at_top):
            return None
        if window.oldest > 1 and (at_top or first - window.first <= _NEAR) and not view.loader.undoes(older=True):
            return view.loader.older
        if not window.attached and window.end - last <= _NEAR and not view.loader.undoes(older=False):
            return view.loader.newer
        return view.loader.check if view.loader.needs_check else None

    async def _load(self, view: View, load: Callable[[], Awaitable[None]]) -> None:
        try:
            await load()
        except ChatError:
            view.stopped_at = view.pane.visible_range()[0]  # else every redraw would try again
            raise

    # -- going somewhere -------------------------------------------------------------------------

    def bottom(self) -> None:
        self.came_from = None
        self._face.view.follow()

    def top(self) -> None:
        """Go to the first message of the log."""
        view = self._face.view
        if view.window.oldest <= 1 or view.turn_to(1):
            self._face.pane.jump(view.window.first)
            return

        async def load() -> None:
            await view.loader.go_to(1)
            view.pane.jump(view.window.first)

        self.begin(view, load)

    def select(self, by: int) -> None:
        self.came_from = None
        window, pane = self._face.view.window, self._face.pane
        if by > 0 and window.attached and pane.selected is not None and pane.selected >= window.end - 1:
            pane.follow()
        else:
            pane.select(by)

    def unread(self) -> None:
        """Go to the unread marker."""
        self.came_from = None
        view, seq = self._face.view, self._face.view.timeline.read_state.first_unread
        if view.timeline.read_state.marker is None or view.turn_to(seq):
            if not view.pane.jump(view.find_marker()):
                self._face.hint(_("nothing is unread here"))
            return

        async def load() -> None:
            await view.loader.go_to(seq)
            view.pane.jump(view.find_marker())

        self.begin(view, load)

    def mention(self) -> None:
        """Go to the last message here that names the reader."""
        self.came_from = None
        view = self._face.view
        if not view.pane.jump(view.window.last_mention()):
            text = _("nobody mentions you in what is loaded here; {key} loads more")
            self._face.hint(text.format(key=self._face.key("page-up")))

    def show_list(self, lines: Iterable[str]) -> None:
        """Add lines of our own, and go there: to the first if they are more than fit on the screen."""
        view = self._face.view
        if self.came_from is None or self.came_from.view is not view:
            self.came_from = _Place(view, view.window, view.pane, view.pane.place, view.pane.selected)
        view.follow()
        begin = view.timeline.end
        for line in lines:
            view.note(line)
        fit = view.pane.has_room_from(begin)
        view.pane.jump(view.timeline.end - 1 if fit else begin)
        if not fit:
            hint = _("{down} shows more, {stop} goes back to where you were")
            self._face.hint(hint.format(down=self._face.key("page-down"), stop=self._face.key("stop")))

    def has_begun(self) -> bool:
        """Say whether there is something to stop."""
        view = self._face.view
        begun = (view.work, view.search, self._face.controller.begun, view.pane.selected, self.came_from)
        return any(one is not None for one in begun)

    def stop(self) -> None:
        """Stop what is at work, else leave a list, else what was begun: an answer, a selection, a search."""
        view, place = self._face.view, self.came_from
        if view.work is not None:
            view.work.cancel()
            view.stopped_at = view.pane.visible_range()[0]
            key = self._face.key("page-up" if view.search is None else "previous-hit")
            self._face.show(_("stopped; {key} continues").format(key=key))
        elif place is not None and place.view is view:
            self.came_from = None
            view.go_back(place.window, place.pane, place.place, place.selected)
        else:
            self._face.end_correction()
            self._face.controller.begun = view.search = None
            view.pane.hit = ""
            view.follow()

    # -- searching -------------------------------------------------------------------------------

    def search(self, text: str) -> None:
        """Go to the newest message with a text."""
        self.came_from = None
        view = self._face.view
        view.search = search = Search(view, text)
        view.pane.hit = text
        if not self._step(view, search, older=True):
            search.walk = self.begin(view, partial(self._walk_on, view, search, older=True))
            return

        async def count() -> None:
            with suppress(ChatError):  # then the host is asked again when the walk comes to the end of what is here
                await search.fetch()

        self.begin(view, count)

    def next_hit(self, *, older: bool) -> None:
        view = self._face.view
        search = view.search
        self.came_from = None
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
                view.pane.jump(line)
                view.pane.selected = line
                return True
            search.forget(hit)
        return False

    async def _walk_on(self, view: View, search: Search, *, older: bool) -> None:
        """Go to the next hit; load it, or ask the host for more, if it is not here."""
        while view.search is search and not self._step(view, search, older=older):
            if (hit := search.next(older=older)) is not None:
                await view.loader.go_to(search.seq_of(hit))
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
        if search.is_only:
            self._face.hint(_("this is the only hit"))
        elif older:
            self._face.hint(_("there is no hit further up; {key} goes down").format(key=key))
        else:
            self._face.hint(_("there is no hit further down; {key} goes up").format(key=key))


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, however it ends; being cancelled meanwhile cancels it, too."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
