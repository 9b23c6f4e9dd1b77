"""How the entries of a timeline look in the pane: each as a line, which ``layout`` cuts into rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.core.wire import Kind
from chat.i18n import _
from chat.ui.describe import describe_message, listed
from chat.ui.entry import Entry, MessageEntry, NoteEntry, PresenceEntry
from chat.ui.fullscreen.layout import EVENT, NAMES, NARROW_NAMES, Line
from chat.ui.fullscreen.wrapping import clip, columns
from chat.ui.invites import is_picture
from chat.ui.moderation import decided
from chat.ui.theme import nick_style

if TYPE_CHECKING:
    from datetime import date

    from chat.ui.timeline import Timeline

_MINUTE: Final = 60_000  # ms
_GROUPED: Final = 200  # characters of a message in a group; after a longer one, or one of several lines, a head shows
_EXCERPT: Final = 200  # characters of a message that is answered; the width of the pane cuts it further
_MAX_REACTIONS: Final = 12  # different ones shown on one message
_REACTION_COLUMNS: Final = 8
_PICTURE: Final = "#ffffff bg:#000000"  # of a QR code, which must be dark on light in every theme


class Conversation:
    """``time_format`` is that of strftime, "" for no times. ``unfolds`` is the key that shows all of a long text.

    Conversations about one log share ``unfolded``, the ``Entry.order`` of each such text that shows whole.
    """

    def __init__(
        self,
        timeline: Timeline,
        time_format: str = "%H:%M",
        *,
        unfolds: str = "Enter",
        unfolded: set[tuple[int, int]] | None = None,
    ) -> None:
        self.timeline: Final = timeline
        self._time_format = time_format
        self._unfolds = unfolds
        self._unfolded = set() if unfolded is None else unfolded
        self.widest = NARROW_NAMES  # columns of the widest name that was on the screen

    def selectable(self, number: int) -> bool:
        entry = self.timeline[number]
        return isinstance(entry, MessageEntry) and not entry.pending  # it has no place yet, nothing can refer to it

    def unfold(self, number: int, *, toggle: bool = False) -> None:
        """Show all of a long text. ``toggle``: fold it again if it shows."""
        order = self.timeline[number].order
        if toggle and order in self._unfolded:
            self._unfolded.remove(order)
        else:
            self._unfolded.add(order)

    def fold(self) -> None:
        """Fold every long text."""
        self._unfolded.clear()

    def meet(self, line: Line) -> None:
        """Make the column of names wide enough for a line on the screen. It never gets narrower.

        Other lines do not count: one that comes below the screen would move what is being read.
        """
        self.widest = max(self.widest, columns(clip(line.lead, NAMES)))

    def line(self, number: int) -> Line:
        """Return how an entry looks now. It is made anew for each redraw; its rows are cached."""
        timeline, entry = self.timeline, self.timeline[number]
        before = timeline[number - 1] if number > timeline.first else None
        when = timeline.local(entry.time)
        earlier = None if before is None else timeline.local(before.time)
        above: list[tuple[str, ...]] = []
        if earlier is None or earlier.date() != when.date():
            above.append(("class:day", *_day(when.date(), timeline.local(time.time_ns() // 1_000_000).year)))
        if number == timeline.read_state.marker:
            above.append(("class:unread", self._new()))
        match entry:
            case MessageEntry():
                line = self._message(entry)
            case NoteEntry(text=text) if is_picture(text):
                return Line(text, style=_PICTURE, above=tuple(above))
            case NoteEntry(text=text):
                line = _event(text)
            case PresenceEntry():
                line = _event(_moved(entry))
            case _:
                raise AssertionError(entry)
        clock = f"{when:{self._time_format}}"
        return line._replace(
            clock=clock,
            above=tuple(above),
            head=bool(above) or not _continues(entry, before),
            timed=bool(above) or earlier is None or f"{earlier:{self._time_format}}" != clock,
            widest=self.widest,
        )

    def _new(self) -> str:
        count = self.timeline.read_state.new
        return _("{count} new").format(count=count) if self.timeline.attached and count else _("new")

    def _message(self, entry: MessageEntry) -> Line:
        style, suffix, receipt = nick_style(entry.key), "", self._receipt(entry)
        nick = f"⚙ {entry.nick}" if entry.bot else entry.nick  # no nickname has such a sign, or a space
        if entry.retracted:
            by = entry.removed_by
            text = _("taken back by {nick}").format(nick=by) if by else _("taken back")
            return Line(text, "", nick, style, receipt=receipt, style="class:faint")
        if entry.edited:
            suffix = _("(edited)")
        if entry.kind == Kind.SAY:
            quote = self._excerpt(entry.target) if entry.target else ""
            lead, text = nick, entry.text
        else:
            quote, lead = "", "*"
            if entry.decision is not None:
                return _event(decided(entry.decision))
            action = entry.kind == Kind.ACTION
            text = f"{nick} {entry.text}" if action else "\n".join(describe_message(entry, clock=""))
        markdown = entry.kind in {Kind.SAY, Kind.ACTION}
        me = self.timeline.nick if entry.mentioned and markdown else ""
        unfolds = "" if entry.order in self._unfolded else self._unfolds
        chips = self._chips(entry)
        return Line(
            text, "", lead, style, quote, suffix, receipt, chips=chips, markdown=markdown, me=me, unfolds=unfolds
        )

    def _receipt(self, entry: MessageEntry) -> str:
        """Return what shows of a message's way: of what is not stored yet, and of the reader's last one."""
        if entry.pending:
            return "…"
        if entry is not self.timeline.last_mine or entry.retracted:
            return ""
        count, of = self.timeline.read_by(entry)
        if count == of > 0:  # and stays so when those who have read it leave
            self.timeline.all_read = entry.seq
        return "✓✓" if 0 < entry.seq <= self.timeline.all_read else "✓"

    def _chips(self, entry: MessageEntry) -> tuple[tuple[str, str], ...]:
        given = self.timeline.reactions(entry)
        chips = []
        for emoji, nicks in given[:_MAX_REACTIONS]:
            text = f"{clip(emoji, _REACTION_COLUMNS)} {len(nicks)}"
            own = self.timeline.nick in nicks
            chips.append(("class:chip-own", f"[{text}]") if own else ("class:chip", text))
        more = len(given) - _MAX_REACTIONS
        return (*chips, ("class:chip", f"+{more}")) if more > 0 else tuple(chips)

    def _excerpt(self, seq: int) -> str:
        entry = self.timeline.at_seq(seq)
        if entry is None:
            return _("number {number}").format(number=seq)
        lines = [line for line in entry.text[:_EXCERPT].split("\n") if not line.startswith("```")]
        text = _("taken back") if entry.retracted else " ".join(lines)
        return f"{entry.nick}: {text}"


def _continues(entry: Entry, before: Entry | None) -> bool:
    """Whether a message follows a short one of its author in the same minute, so that it needs no head of its own."""
    return (
        isinstance(entry, MessageEntry)
        and isinstance(before, MessageEntry)
        and entry.kind == before.kind == Kind.SAY
        and (entry.key, entry.nick) == (before.key, before.nick)
        and entry.time // _MINUTE == before.time // _MINUTE
        and len(before.text) <= _GROUPED
        and "\n" not in before.text
    )


def _event(text: str) -> Line:
    return Line(text, style=EVENT)


def _moved(entry: PresenceEntry) -> str:
    parts = [
        words.format(nicks=listed(nicks))
        for words, first, last in (
            (_("{nicks} joined"), True, True),
            (_("{nicks} left"), False, False),
            (_("{nicks} joined and left"), True, False),
            (_("{nicks} left and came back"), False, True),
        )
        if (nicks := entry.of(first=first, last=last))
    ]
    if entry.more:
        parts.append(_("{count} more").format(count=entry.more))
    return " · ".join(parts)


def _day(day: date, this_year: int) -> tuple[str, str]:
    """Return a day as people write it, and in fewer words."""
    weekdays = _("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
    months = _("January February March April May June July August September October November December")
    short = _("{day} {month}") if day.year == this_year else _("{day} {month} {year}")
    short = short.format(day=day.day, month=months.split()[day.month - 1], year=day.year)
    return _("{weekday}, {day}").format(weekday=weekdays.split()[day.weekday()], day=short), short
