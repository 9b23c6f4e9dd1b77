"""Which part of a room's log is on the screen, and what of it the reader has seen.

     the log: 1 ── │ past │ ──────── │ timeline │ live end
                     window: the one that the pane shows

Rules:

1. ``timeline`` is always attached to the live end. Whoever reads further up than it reaches has a second timeline,
   ``past``, which grows at both ends as one scrolls and is dropped on the way back.
2. The unread marker stands where reading stopped. Once seen, it vanishes when it is out of view again. What comes
   while somebody reads at the live end is not new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.ui.entry import MessageEntry
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.pane import Pane
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from chat.core.session import Session

_MARGIN: Final = 300  # entries above and below the screen that a detached window starts with
_AT_STAKE: Final = 2_000  # entries between the screen and the oldest one, when that may be evicted soon


class Viewport:
    """``delimiters``: whether to show those of markdown."""

    def __init__(self, session: Session, time_format: str, *, delimiters: bool) -> None:
        self.session: Final = session
        self.past: Timeline | None = None
        self.timeline = Timeline(session.key, session.nick)
        self._time_format = time_format
        self._delimiters = delimiters
        self.pane = self._live_pane = self._make_pane(self.timeline)
        self.stopped_at: int | None = None  # the first line on the screen when loading stopped; None after scrolling on
        self._reading = False  # at the live end, on the screen
        self._marker_seen = False

    def _make_pane(self, timeline: Timeline) -> Pane:
        return Pane(Conversation(timeline, self._time_format), delimiters=self._delimiters)

    def clear(self) -> None:
        """Start with an empty pane. Scrolling up loads the messages again."""
        before = self.timeline
        self.timeline = Timeline(self.session.key, self.session.nick, edits=before.edits)
        self.past, self.stopped_at = None, None
        self.pane = self._live_pane = self._make_pane(self.timeline)
        self.timeline.last_seq, self.timeline.oldest = before.last_seq, before.last_seq + 1
        self.timeline.read_state.mark_read(before.last_seq)
        self.timeline.ignored |= before.ignored
        self.timeline.receipts = before.receipts

    # -- windows ---------------------------------------------------------------------------------

    @property
    def window(self) -> Timeline:
        """What the pane shows."""
        return self.past or self.timeline

    def follow(self) -> None:
        """Go to the live end, and stay there."""
        self.show()
        self.pane.follow()

    def go_back(self, window: Timeline, pane: Pane, place: tuple[int, int] | None, selected: int | None) -> None:
        """Show what was shown before, unless it was cleared meanwhile."""
        if not window.attached or window is self.timeline:
            window.catch_up()
            self.show(window, pane)
            pane.go_back(place, selected)

    def turn_to(self, seq: int) -> bool:
        """Show the window that holds this number of the log, 0 for none. False if it must be loaded."""
        if not seq or (not self.window.holds(seq) and self.timeline.holds(seq)):
            self.show()
        return not seq or self.window.holds(seq)

    def show(self, window: Timeline | None = None, pane: Pane | None = None) -> None:
        """Show a window, in its pane; by default the live one."""
        if window is None:
            window, pane = self.timeline, self._live_pane
        elif pane is None:
            pane = self._make_pane(window)
        if pane is self.pane:
            return
        pane.succeed(self.pane)
        self.past = window if window is not self.timeline else None
        self.pane, self.stopped_at = pane, None
        self._live_pane.at_top = False

    def detach(self) -> bool:
        """Show the screen's part of the timeline in a window of its own. False if that is impossible.

        Nothing moves on the screen, and scrolling up can go on when the timeline is full.
        """
        first, last = self.pane.visible_range()
        past = self.timeline.cut_out(first - _MARGIN, last + _MARGIN)
        if past is None:
            return False
        pane = self._make_pane(past)
        pane.take_over(self.pane, 0)
        self.show(past, pane)
        return True

    def reattach(self, seq: int) -> bool:
        """Show the live window if it has this message of the current one, at the same place of the screen."""
        here, there = self.window.at_seq(seq), self.timeline.at_seq(seq)
        if here is None or there is None or self._is_near_top(there.number):
            return False
        self._live_pane.take_over(self.pane, there.number - here.number)
        self.show()
        return True

    @property
    def is_at_stake(self) -> bool:
        """Whether what is on the screen may be evicted soon."""
        return self.past is None and not self.pane.following and self._is_near_top(self.pane.visible_range()[0])

    def _is_near_top(self, number: int) -> bool:
        """Whether an entry of the live timeline is among those to be evicted next."""
        timeline = self.timeline
        return timeline.ring.full and number - timeline.first < min(_AT_STAKE, (timeline.end - timeline.first) // 2)

    # -- reading ---------------------------------------------------------------------------------

    def mark_seen(self) -> int:
        """Mark what is on the screen as read. Return the number of the log up to which all was read, 0 for unknown."""
        first, last = self.pane.visible_range()
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
        return window.read_state.marker < self.pane.visible_range()[0]

    @property
    def first_seq(self) -> int:
        """The number in the log of the first message on the screen, 0 for none."""
        first, last = self.pane.visible_range()
        entries = (self.window[at] for at in range(max(first, self.window.first), min(last + 1, self.window.end)))
        return next((entry.seq for entry in entries if isinstance(entry, MessageEntry) and entry.seq), 0)
