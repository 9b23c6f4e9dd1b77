"""What happens in the rooms, on its way to the screen; and what the user does, on its way to the others."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from chat.core.errors import ChatError
from chat.core.events import Message, Rejected, Stored
from chat.core.text import visible
from chat.ui.commands import typed_again
from chat.ui.fullscreen import notices
from chat.ui.people import describe_direct, is_unread

if TYPE_CHECKING:
    from chat.client.events import ClientEvent
    from chat.core.bodies import Direct
    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View

_LOOK: Final = 0.5  # seconds between looks at what others show of themselves
_STILL_HERE: Final = 60_000  # milliseconds after which others see that keys are pressed, if they see nothing else
_TYPING: Final = 4.0  # seconds after the last key for which one is shown as typing
_CALLED: Final = 8  # direct rooms that may open by themselves, each is a link to the host; of more a line tells


class Watcher:
    """Takes what happens in the rooms, and shows there what the user does: is active, types, is away."""

    def __init__(self, face: FullScreen) -> None:
        self._face = face
        self._touched = time.monotonic()  # the last key

    def begin(self) -> None:
        self._face.spawn(self._follow_first())
        self._face.spawn(self._look())

    async def _follow_first(self) -> None:
        """Follow the first room; leave when its client ends."""
        try:
            await self.follow(self._face.controller.rooms[0])
        except Exception as error:
            self._face.app.leave(error)
        else:
            self._face.app.leave()

    async def follow(self, room: View) -> None:
        while events := await room.client.next_events():
            for event in events:
                self.take(room, event)
            past_is_here = room.taken()
            for typed in typed_again(room.rejected):
                self._face.composer.offer(typed, room.name, busy=self._face.controller.begun is not None)
            room.rejected.clear()
            if past_is_here:
                self._face.app.invalidate()  # at once: the screen has been empty
            else:
                self._face.app.redraw_soon()

    def take(self, view: View, event: ClientEvent) -> None:
        if what := view.take(event):
            self._ring(view, what, event.author.nick if isinstance(event, Message) else "")
        if isinstance(event, Stored | Rejected):
            self._face.controller.changes.settled(view, event)
        for news in view.news:
            if not (view.is_ignored(news.other) or self._face.controller.is_told(news)):
                self._take_news(view, news)
        view.news.clear()

    def _take_news(self, view: View, news: Direct) -> None:
        """Open a direct room in which something waits, behind the current one; show a line about any other."""
        view.note(describe_direct(news))
        if not is_unread(news) or sum(bool(other.partner) for other in self._face.controller.rooms) >= _CALLED:
            return
        try:
            called = self._face.make_room(view.client.direct(news.other), visible(news.nick, lines=False), called=True)
            self._face.run_work(view, partial(self._face.controller.open, called, behind=True))
            self._ring(called, "mention", news.nick)
        except ChatError:  # the host has just gone; it tells again when it is back
            self._face.controller.told.pop(news.other, None)

    def _ring(self, view: View, what: str, nick: str) -> None:
        settings, clock = self._face.controller.settings, datetime.now().astimezone().time()
        if settings.bell in {"all", what} and view.session.room not in settings.muted and not settings.is_quiet(clock):
            self._face.app.notices.ring(notices.news(what, nick, view.name, direct=bool(view.partner)))

    def touch(self) -> None:
        self._touched = time.monotonic()
        self._face.controller.touch()

    async def _look(self) -> None:
        """Go on looking at the clock, and at what others show of themselves."""
        face, controller = self._face, self._face.controller
        while True:
            await asyncio.sleep(_LOOK)
            face.keep_drafts()
            idle = time.monotonic() - self._touched
            shows, typed = face.view.client.shows, face.input.text
            if shows.typing and (idle > _TYPING or not typed):
                controller.share(typing=False)
            elif not shows.typing and idle < _LOOK and typed and not typed.lstrip().startswith("/"):
                controller.share(typing=True)
            if controller.active > shows.active + _STILL_HERE:
                controller.share()
            minutes = controller.settings.away_minutes
            if minutes and idle > 60 * minutes:
                controller.idle()
            if face.view.look():
                face.app.redraw_soon()
