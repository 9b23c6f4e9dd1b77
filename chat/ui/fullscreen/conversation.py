"""How the entries of a timeline look in the pane: each as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.wire import Kind
from chat.i18n import _
from chat.ui.describe import describe_message
from chat.ui.entry import Entry, MessageEntry, NoteEntry, PresenceEntry
from chat.ui.fullscreen.layout import Line
from chat.ui.fullscreen.wrapping import clip
from chat.ui.theme import nick_style

if TYPE_CHECKING:
    from chat.ui.timeline import Timeline

_GROUP: Final = 5 * 60_000  # ms between two messages of one author that share one head
_EXCERPT: Final = 200  # characters of a message that is answered; the width of the pane cuts it further
_MAX_REACTIONS: Final = 12  # different ones shown on one message
_REACTION_COLUMNS: Final = 8
_MAX_NAMED: Final = 3  # people who gave one reaction: more are counted
_MAX_MOVED: Final = 8  # people who came, or left, in one line: more are counted


class Conversation:
    """``time_format`` is that of strftime, "" for no times."""

    def __init__(self, timeline: Timeline, time_format: str = "%H:%M") -> None:
        self.timeline: Final = timeline
        self._time_format = time_format

    def selectable(self, number: int) -> bool:
        entry = self.timeline[number]
        return isinstance(entry, MessageEntry) and not entry.pending  # it has no place yet, nothing can refer to it

    def line(self, number: int) -> Line:
        """Return how an entry looks now. It is made anew for each redraw; its rows are cached."""
        timeline, entry = self.timeline, self.timeline[number]
        before = timeline[number - 1] if number > timeline.first else None
        when = timeline.local(entry.time)
        above = []
        if before is None or timeline.local(before.time).date() != when.date():
            above.append(("class:day", f"── {when.date().isoformat()} ──"))
        if number == timeline.read_state.marker:
            above.append(("class:unread", f"── {_('new')} ──"))
        match entry:
            case MessageEntry():
                line = self._message(entry)
            case NoteEntry(text=text):
                line = Line(text, lead="--", lead_style="class:faint", gap=1, style="class:note")
            case PresenceEntry():
                line = Line(_moved(entry), lead="--", lead_style="class:faint", gap=1, style="class:note")
            case _:
                raise AssertionError(entry)
        clock = f"{when:{self._time_format}}" if self._time_format else ""
        return line._replace(clock=clock, above=tuple(above), head=bool(above) or not _continues(entry, before))

    def _message(self, entry: MessageEntry) -> Line:
        style, suffix = nick_style(entry.key), self._suffix(entry)
        nick = f"[{_('bot')}] {entry.nick}" if entry.bot else entry.nick  # no nickname has brackets
        if entry.retracted:
            return Line(_("taken back"), "", nick, style, suffix=suffix, style="class:faint")
        reactions = self._reactions(entry)
        if entry.kind == Kind.SAY:
            quote = f"↳ {self._excerpt(entry.target)}" if entry.target else ""
            lead, gap, text = nick, 2, entry.text
        else:
            quote, lead, gap = "", "*", 1
            action = entry.kind == Kind.ACTION
            text = f"{nick} {entry.text}" if action else "\n".join(describe_message(entry, clock=""))
        markdown = entry.kind in {Kind.SAY, Kind.ACTION}
        me = self.timeline.nick if entry.mentioned and markdown else ""
        return Line(text, "", lead, style, gap, quote, suffix, reactions=reactions, markdown=markdown, me=me)

    def _suffix(self, entry: MessageEntry) -> str:
        parts = [_("(edited)")] if entry.edited and not entry.retracted else []
        if entry.pending:
            parts.append("…")
        elif entry.mine:
            parts.append("✓")
            if entry is self.timeline.last_mine and (read_by := self.timeline.read_by(entry))[0]:
                count, of = read_by
                parts.append(_("seen by all") if count == of else _("seen by {count}").format(count=count))
        return " ".join(parts)

    def _reactions(self, entry: MessageEntry) -> str:
        given = self.timeline.reactions(entry)
        shown = [
            f"{clip(emoji, _REACTION_COLUMNS)} {', '.join(nicks) if len(nicks) <= _MAX_NAMED else len(nicks)}"
            for emoji, nicks in given[:_MAX_REACTIONS]
        ]
        more = len(given) - _MAX_REACTIONS
        return "  ".join([*shown, f"+{more}"] if more > 0 else shown)

    def _excerpt(self, seq: int) -> str:
        entry = self.timeline.at_seq(seq)
        if entry is None:
            return _("number {number}").format(number=seq)
        text = _("taken back") if entry.retracted else entry.text[:_EXCERPT]
        return f"{entry.nick}: {text}"


def _continues(entry: Entry, before: Entry | None) -> bool:
    """Whether a message follows one of its author so closely that it needs no head of its own."""
    return (
        isinstance(entry, MessageEntry)
        and isinstance(before, MessageEntry)
        and entry.kind == before.kind == Kind.SAY
        and (entry.key, entry.nick) == (before.key, before.nick)
        and not entry.target
        and abs(entry.time - before.time) <= _GROUP
    )


def _moved(entry: PresenceEntry) -> str:
    parts = [
        words.format(nicks=_listed(nicks))
        for words, first, last in (
            (_("{nicks} came"), True, True),
            (_("{nicks} left"), False, False),
            (_("{nicks} came and left"), True, False),
            (_("{nicks} left and came back"), False, True),
        )
        if (nicks := entry.of(first=first, last=last))
    ]
    if entry.more:
        parts.append(_("{count} more").format(count=entry.more))
    return "; ".join(parts)


def _listed(nicks: list[str]) -> str:
    more = len(nicks) - _MAX_MOVED
    return ", ".join([*nicks[:_MAX_MOVED], _("{count} more").format(count=more)] if more > 0 else nicks)
