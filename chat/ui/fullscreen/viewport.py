"""Which part of a room's log is on the screen, what of it the reader has seen, and the loading of the rest.

     the log: 1 ── │ past │ ──────── │ timeline │ live end
                     window: the one that the pane shows

Rules:

1. ``timeline`` is always attached to the live end. Whoever reads further up than it reaches has a second timeline,
   ``past``, which grows at both ends as one scrolls and is dropped on the way back.
2. The unread marker stands where reading stopped. Once seen, it vanishes when it is out of view again. What comes
   while somebody reads at the live end is not new.
3. One thing is loaded at a time (``View.work``). It can be cancelled at any time; what was fetched until then stays.
4. An edit stands further down in the log than its message. So below a window far up, the log is read for edits, too.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from chat.core.events import Message
from chat.i18n import later
from chat.local.keys import KEYS, rebind
from chat.ui import theme
from chat.ui.entry import MessageEntry
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.pane import Pane
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chat.client.client import Client
    from chat.local.settings import Settings

CATCHING_UP: Final = later("catching up")
_LOADING: Final = later("loading older messages")
_MARGIN: Final = 300  # entries above and below the screen that a detached window starts with
_AT_STAKE: Final = 2_000  # entries between the screen and the oldest one, when that may be evicted soon
_PAGE: Final = 300  # messages
_CHECKED: Final = 2_000  # numbers of the log that are read for edits at a time


class Progress:
    """How far long work has come: ``at`` goes up from ``first`` to ``end``, in messages."""

    def __init__(self, what: str, first: int, end: int) -> None:
        self.what: Final = what
        self.at = self._first = first
        self._end = end
        self._began = time.monotonic()

    @property
    def part(self) -> float:
        """From 0 to 1."""
        whole = self._end - self._first
        return min((self.at - self._first) / whole, 1.0) if whole > 0 else 1.0

    @property
    def rate(self) -> int:
        """Messages a second, since it began."""
        return round((self.at - self._first) / max(time.monotonic() - self._began, 0.001))


class Viewport:
    """What the pane shows of one room."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.session: Final = client.session
        self.timeline = Timeline(self.session.key, self.session.nick)
        self._time_format = settings.time_format
        self._unfolds = next(row.keys[0] for row in rebind(KEYS, settings.keys) if row.action == "send")
        self._unfolded: set[tuple[int, int]] = set()  # see ``Conversation``
        self._delimiters = theme.choose(settings.theme, os.environ) == "none"  # show those of markdown
        self.pane = self._live_pane = self._make_pane(self.timeline)
        self.stopped_at: int | None = None  # the first line on the screen when loading stopped; None after scrolling on
        self._reading = False  # at the live end, on the screen
        self._marker_seen = False
        self._client = client
        self._loading: Progress | None = None  # or searching
        self._checking: Progress | None = None
        self._catching_up: Progress | None = None
        # For which first line on the screen something was loaded last, and whether older messages.
        self._loaded: tuple[Pane, int, bool] | None = None

    def _make_pane(self, timeline: Timeline) -> Pane:
        conversation = Conversation(timeline, self._time_format, unfolds=self._unfolds, unfolded=self._unfolded)
        return Pane(conversation, delimiters=self._delimiters)

    def clear(self) -> None:
        """Start with an empty pane. Scrolling up loads the messages again."""
        before = self.timeline
        self.timeline = Timeline(self.session.key, self.session.nick, edits=before.edits)
        self.stopped_at = None
        self.pane = self._live_pane = self._make_pane(self.timeline)
        self.timeline.last_seq, self.timeline.oldest = before.last_seq, before.last_seq + 1
        self.timeline.read_state.mark_read(before.last_seq)
        self.timeline.ignored |= before.ignored
        self.timeline.receipts = before.receipts

    # -- windows ---------------------------------------------------------------------------------

    @property
    def window(self) -> Timeline:
        """What the pane shows."""
        return self.pane.timeline

    @property
    def past(self) -> Timeline | None:
        """The window, unless that is attached to the live end."""
        return None if self.window.attached else self.window

    def follow(self) -> None:
        """Go to the live end, and stay there."""
        self.show()
        self.pane.follow()

    def turn_to(self, seq: int) -> bool:
        """Show the window that holds this number of the log, 0 for none. False if it must be loaded."""
        if not seq or (not self.window.holds(seq) and self.timeline.holds(seq)):
            self.show()
        return not seq or self.window.holds(seq)

    def show(self, pane: Pane | None = None) -> None:
        """Show a pane; by default that of the live window."""
        pane = pane or self._live_pane
        if pane is not self.pane:
            pane.succeed(self.pane)
            self.pane, self.stopped_at = pane, None
            self._live_pane.at_top = False

    def detach(self) -> bool:
        """Show the screen's part of the timeline in a window of its own. False if that is impossible.

        Nothing moves on the screen, and scrolling up can go on when the timeline is full.
        """
        first, last = self.pane.in_view
        past = self.timeline.cut_out(first - _MARGIN, last + _MARGIN)
        if past is None:
            return False
        pane = self._make_pane(past)
        pane.take_over(self.pane, 0)
        self.show(pane)
        return True

    def reattach(self) -> bool:
        """Show the live window at the same place of the screen, if it has the first message there."""
        seq = self.first_seq
        here, there = self.window.at_seq(seq), self.timeline.at_seq(seq)
        if here is None or there is None or self._is_near_top(there.number):
            return False
        self._live_pane.take_over(self.pane, there.number - here.number)
        self.show()
        return True

    @property
    def is_at_stake(self) -> bool:
        """Whether what is on the screen may be evicted soon."""
        return self.past is None and not self.pane.following and self._is_near_top(self.pane.in_view[0])

    def _is_near_top(self, number: int) -> bool:
        """Whether an entry of the live timeline is among those to be evicted next."""
        timeline = self.timeline
        return timeline.full and number - timeline.first < min(_AT_STAKE, (timeline.end - timeline.first) // 2)

    # -- reading ---------------------------------------------------------------------------------

    def mark_seen(self) -> int:
        """Mark what is on the screen as read. Return the number of the log up to which all was read, 0 for unknown."""
        first, last = self.pane.in_view
        if last < first:
            return 0
        window, live = self.window.read_state, self.timeline.read_state
        read = window.read_up_to(last)
        live.mark_read(read)
        window.mark_read(read)
        passed = self.pane.passed()
        self._marker_seen = self._marker_seen and live.marker is not None
        if (marker := window.marker) is not None:
            in_view = first <= marker <= last
            if (in_view or marker in passed) and window.first_unread >= self.window.oldest:
                self._marker_seen = True
            if self.pane.following and not in_view:
                self.pass_marker()
        if self._reading and not self.pane.following and live.marker is None:
            self.leave()
        self._reading = self.pane.following
        return read

    def leave(self) -> None:
        """Reading stops: what comes from now on is new. A marker that was not seen yet stays in its place."""
        self._reading = False
        self.pass_marker()
        if self.timeline.read_state.marker is None:
            self.timeline.read_state.place_marker()

    def pass_marker(self) -> None:
        """Remove the unread marker if it was seen."""
        if self._marker_seen:
            self.timeline.read_state.marker = None
            self._marker_seen = False

    def find_marker(self) -> int | None:
        """Return where the unread marker stands, in the window that has it; None without one."""
        if self.window.read_state.marker is None and self.timeline.read_state.marker is not None:
            self.follow()
        return self.window.read_state.marker

    def keep_marker(self) -> None:
        """Call this before the timeline looks for the place of the marker: if there is none, none shall appear."""
        if self._reading and self.timeline.read_state.marker is None:
            self.timeline.read_state.place_marker()

    @property
    def is_new_above(self) -> bool:
        """Whether unread messages begin above the screen, where the reader has not been yet."""
        window = self.window
        if self.timeline.read_state.marker is None or self._marker_seen:
            return False
        if window.read_state.marker is None:
            return window.read_state.first_unread < window.oldest
        return window.read_state.marker < self.pane.in_view[0]

    @property
    def first_seq(self) -> int:
        """The number in the log of the first message on the screen, 0 for none."""
        first, last = self.pane.in_view
        entries = (self.window[at] for at in range(max(first, self.window.first), min(last + 1, self.window.end)))
        return next((entry.seq for entry in entries if isinstance(entry, MessageEntry) and entry.seq), 0)

    # -- loading ---------------------------------------------------------------------------------

    def heard(self, message: Message) -> None:
        """A message was loaded, and will be shown."""
        raise NotImplementedError

    async def load_older(self) -> None:
        """Load a page of older messages. Raises ChatError."""
        window = self.window
        if window.oldest <= 1 or (window.attached and window.full and not self.detach()):
            return
        self._loaded = self._at(older=True)
        await self._load_above(self.window, self.window.oldest - _PAGE)

    async def _load_above(self, window: Timeline, begins: int) -> None:
        oldest, begins = window.oldest, max(1, begins)
        found, _upto = await self._load(begins, oldest)
        if window in (self.timeline, self.past) and oldest == window.oldest:  # it was not left
            self._hear(found, window)
            if window.attached:
                self.keep_marker()
            window.add_older(found, begins)

    async def load_newer(self) -> None:
        """Load a page of newer messages, or go back to the live window if it has them. Raises ChatError."""
        past, live, first = self.past, self.timeline, self.first_seq
        if past is None or self.reattach():
            return
        self._loaded = self._at(older=False)
        if past.last_seq + 1 >= live.oldest and not live.full:
            await self._load_above(live, min(first, live.oldest - 1))
            if past is self.past and self.reattach():
                return
        begins, ends = past.last_seq + 1, min(past.last_seq + 1 + _PAGE, live.last_seq + 1)
        if begins >= ends:  # this is the end, and the live window has none of what is on the screen
            if self.pane.in_view[1] >= past.end - 1:
                self.follow()
            else:
                self.stopped_at = self.pane.in_view[0]
            return
        found, _upto = await self._load(begins, ends)
        if past is self.past and begins == past.last_seq + 1:
            self._hear(found, past)
            past.add_newer(found, ends)

    @property
    def progress(self) -> Progress | None:
        """How far the current work has come, None if there is none."""
        if self._catching_up is not None:
            self._catching_up.at = self.session.next_seq
        going_on = (self._loading, self._checking, self._catching_up)
        return next((one for one in going_on if one is not None and one.part < 1), None)

    def undoes(self, *, older: bool) -> bool:
        """Whether loading at one end would evict what was just loaded at the other, for the same screen."""
        return self.window.full and self._loaded == self._at(older=not older)

    def _at(self, *, older: bool) -> tuple[Pane, int, bool]:
        return self.pane, self.pane.in_view[0], older

    async def load_around(self, seq: int) -> None:
        """Have this number of the log in the window, or open a window there. Raises ChatError."""
        if self.turn_to(seq):
            return
        live = self.timeline
        begins, ends = max(1, seq - _PAGE), min(seq + _PAGE, live.last_seq + 1)
        found, upto = await self._load(begins, ends)
        if not found and upto > ends:  # it is gone for good: begin with what is there
            found, ends = await self._load(upto, upto + _PAGE)
        if live is not self.timeline or live.last_seq < seq:  # cleared meanwhile, or another log
            return
        self.leave()
        past = live.part(seq)
        self._hear(found, past)
        past.add_newer((message for message in found if message.seq >= seq), ends)
        past.add_older([message for message in found if message.seq < seq], begins)
        self.show(self._make_pane(past))

    def _hear(self, messages: Iterable[Message], window: Timeline) -> None:
        for message in messages:
            self.heard(message)
        window.ignored |= self.timeline.ignored

    @property
    def unchecked(self) -> range:
        """The part of the log that nobody has read, and that may hold edits of the messages in the window."""
        past, live = self.past, self.timeline
        return range(past.last_seq + 1, live.edits.since or live.last_seq + 1) if past is not None else range(0)

    async def check_edits(self) -> None:
        """Read a page of the log below the window for edits of the messages in it. Raises ChatError."""
        past, rest = self.past, self.unchecked
        if past is None or not rest:
            return
        begins = max(rest.start, rest.stop - _CHECKED)
        self._checking = self._checking or Progress(later("looking for corrections"), 0, len(rest))
        goes_on = False
        try:
            found, _upto = await self._read(begins, rest.stop, self._checking)
            if past is self.past and rest.stop == self.unchecked.stop:
                past.apply_changes(found)
                past.edits.since = begins
            goes_on = bool(self.unchecked)
        finally:
            if not goes_on:
                self._checking = None

    async def _load(self, begins: int, ends: int) -> tuple[list[Message], int]:
        with self.shows_progress(_LOADING, ends - begins) as progress:
            return await self._read(begins, ends, progress)

    async def _read(self, begins: int, ends: int, progress: Progress) -> tuple[list[Message], int]:
        """Return the messages from number ``begins`` up to ``ends``, excluded, and how far the log was read."""
        upto, before = begins, progress.at

        def reached(seq: int) -> None:
            nonlocal upto
            upto, progress.at = seq, before + min(seq, ends) - begins

        found = await self._client.range(begins, ends, reached)
        return [item for item in found if isinstance(item, Message)], upto

    @contextmanager
    def shows_progress(self, what: str, end: int) -> Iterator[Progress]:
        self._loading = Progress(what, 0, end)
        try:
            yield self._loading
        finally:
            self._loading = None
