"""How the entries of a timeline look in the pane: each as a line, laid out in rows of a given width.

    12:04 ann  ↳ bob: shall we?          clock, lead, quote
               yes, **now** (edited) ✓   text, suffix
               👍 bob                    reactions

Texts of peers are indented: what begins in the first column (days, the unread marker) is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.wire import Kind
from chat.i18n import _
from chat.ui.describe import describe_message, listed
from chat.ui.entry import Entry, MessageEntry, NoteEntry, PresenceEntry
from chat.ui.fullscreen.wrapping import clip, columns, sanitize, wrap, wrap_fragments
from chat.ui.invites import is_picture
from chat.ui.markup import parse, without_delimiters
from chat.ui.moderation import decided
from chat.ui.theme import nick_style

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

    from chat.ui.timeline import Timeline

_LINE_SIZE: Final = 20  # what a line costs to cache besides its rows, in rows: about a dozen objects
_CLOCK_FROM: Final = 40  # columns: a narrower pane has better use for them than the time
_MINUTE: Final = 60_000  # ms
_GROUPED: Final = 200  # characters of a message in a group; after a longer one, or one of several lines, a head shows
# rows of a text; a longer one would push the talk off the screen, so its first few show until it is unfolded
_MAX_ROWS: Final = 12
_SHOWN_ROWS: Final = 5
_EXCERPT: Final = 200  # characters of a message that is answered; the width of the pane cuts it further
_MAX_REACTIONS: Final = 12  # different ones shown on one message
_REACTION_COLUMNS: Final = 8
_MAX_NAMED: Final = 3  # people who gave one reaction: more are counted
_PICTURE: Final = "#ffffff bg:#000000"  # of a QR code, which must be dark on light in every theme


class Line(NamedTuple):
    """A message, or a line of ours. Its texts are as they came."""

    text: str
    clock: str = ""
    lead: str = ""  # who, in front of the text; the rows that follow are indented by its width
    lead_style: str = ""
    gap: int = 2  # columns between lead and text
    quote: str = ""  # the message that it answers: one row above the text
    suffix: str = ""  # behind the text
    style: str = ""
    above: tuple[tuple[str, str], ...] = ()  # rows above everything else, from the first column on: style, text
    reactions: str = ""  # below the text
    head: bool = True  # whether clock and lead show; if not, they still indent
    markdown: bool = False  # whether the text is light markdown
    me: str = ""  # the reader's nickname, if the text mentions it
    unfolds: str = ""  # the key that shows all of the text; "" if all of it shows, however long it is


class Wrapped(NamedTuple):
    """A line laid out for one width: the texts of its rows, and little more. There may be 16,000, few of them seen."""

    head: Row
    indent: int
    texts: list[str]
    above: int = 0  # how many of the rows stand above the text
    styled: dict[int, Row] = {}  # noqa: RUF012 - rows with styles besides the line's own; never changed
    folded: int = 0  # rows of the text that are left out

    @property
    def size(self) -> int:
        """What it costs to cache, in rows."""
        return _LINE_SIZE + len(self.texts) + sum(map(len, self.styled.values()))


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
            case NoteEntry(text=text) if is_picture(text):
                return Line(text, style=_PICTURE, above=tuple(above))
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
            by = entry.removed_by
            text = _("taken back by {nick}").format(nick=by) if by else _("taken back")
            return Line(text, "", nick, style, suffix=suffix, style="class:faint")
        reactions = self._reactions(entry)
        if entry.kind == Kind.SAY:
            quote = f"↳ {self._excerpt(entry.target)}" if entry.target else ""
            lead, gap, text = nick, 2, entry.text
        else:
            quote, lead, gap = "", "*", 1
            if entry.decision is not None:
                return Line(decided(entry.decision), lead="--", lead_style="class:faint", gap=1, style="class:note")
            action = entry.kind == Kind.ACTION
            text = f"{nick} {entry.text}" if action else "\n".join(describe_message(entry, clock=""))
        markdown = entry.kind in {Kind.SAY, Kind.ACTION}
        me = self.timeline.nick if entry.mentioned and markdown else ""
        unfolds = "" if entry.order in self._unfolded else self._unfolds
        return Line(
            text, "", lead, style, gap, quote, suffix, reactions=reactions, markdown=markdown, me=me, unfolds=unfolds
        )

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
    """Whether a message follows a short one of its author in the same minute, so that it needs no head of its own."""
    return (
        isinstance(entry, MessageEntry)
        and isinstance(before, MessageEntry)
        and entry.kind == before.kind == Kind.SAY
        and (entry.key, entry.nick) == (before.key, before.nick)
        and not entry.target
        and entry.time // _MINUTE == before.time // _MINUTE
        and len(before.text) <= _GROUPED
        and "\n" not in before.text
    )


def _moved(entry: PresenceEntry) -> str:
    parts = [
        words.format(nicks=listed(nicks))
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


def lay(line: Line, width: int, *, delimiters: bool = False) -> Wrapped:
    """Lay out a line in ``width`` columns. ``delimiters``: whether to show those of the markdown."""
    head: Row = []
    clock = clip(line.clock, width)
    if line.clock and width >= _CLOCK_FROM and columns(clock) <= width // 4:
        head.append(("class:faint", clock + " "))
    widest = min(max(4, width // 4), width // 2 - line.gap)
    if line.lead and widest > 0:
        head.append((line.lead_style, clip(line.lead, widest)))
        head.append(("", " " * line.gap))
    indent = sum(columns(text) for _style, text, *_more in head)
    if not line.head:
        head = [("", " " * indent)]
    room = max(width - indent, 2)

    texts = [clip(text, width) for _style, text in line.above]
    styled: dict[int, Row] = {at: [(line.above[at][0], text)] for at, text in enumerate(texts)}
    if line.quote:
        styled[len(texts)] = [("class:faint", clip(line.quote, room))]
        texts.append(styled[len(texts)][0][1])
    begin, text = len(texts), sanitize(line.text)
    if line.markdown:
        lines = parse(text, line.me)
        for fragments in lines if delimiters else without_delimiters(lines):
            if len(fragments) == 1 and not fragments[0][0]:
                texts += wrap(fragments[0][1], room)
                continue
            for row in wrap_fragments(fragments, room):
                styled[len(texts)] = [(f"{line.style} {style}".strip(), part) for style, part, *_more in row]
                texts.append("".join(part for _style, part, *_more in row))
    else:
        texts += wrap(text, room)
    folded = 0
    if line.unfolds and len(texts) - begin > _MAX_ROWS:
        folded = len(texts) - begin - _SHOWN_ROWS
        del texts[begin + _SHOWN_ROWS :]
        styled = {at: row for at, row in styled.items() if at < len(texts)}
        more = clip(_("… {count} more · {key}").format(count=folded, key=line.unfolds), room)
        styled[len(texts)] = [("class:faint", more)]
        texts.append(more)
    if line.suffix:
        suffix = " " + clip(line.suffix, room - 1)
        if columns(texts[-1]) + columns(suffix) > room:
            texts.append("")
        at = len(texts) - 1
        styled[at] = [*styled.get(at, [(line.style, texts[at])]), ("class:faint", suffix)]
        texts[at] += suffix
    if line.reactions:
        for reactions in wrap(sanitize(line.reactions, lines=False), room):
            styled[len(texts)] = [("class:faint", reactions)]
            texts.append(reactions)
    return Wrapped(head, indent, texts, len(line.above), styled, folded)


def row_of(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return one row of a line."""
    body = wrapped.styled.get(at) or [(line.style, wrapped.texts[at])]
    if at < wrapped.above:
        return body
    head: Row = wrapped.head if at == wrapped.above else [("", " " * wrapped.indent)]
    return [*head, *body]
