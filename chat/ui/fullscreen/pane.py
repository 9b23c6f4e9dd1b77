"""The message pane of the full-screen face: lines, cut into rows when they come into view.

     timeline ─▶ Conversation ─▶ Line 41 │ Line 42 │ ... │ Line 10040 │ what is said and not yet stored
                                               ▲ top = (42, 3): the fourth row of its text is the first on the screen;
                                                 None where the pane follows the end

Rules:

1. Texts go in as they came. What reaches the screen has passed ``shown``, and no style is made of it.
2. A line is wrapped when it is looked at, and its rows are kept for as long as they are likely to be
   looked at again: a member may send 16 KiB of line breaks, so what is kept is counted in rows, each line as some
   more of them. What is kept is found by all that the line says: one that changes is wrapped anew, and nobody has to
   say that it has changed.
3. Scrolled up, the pane is anchored on a row of a text: what arrives below moves nothing, nor what is put in front.
4. Columns are counted as prompt_toolkit draws, character by character. Where terminals add up otherwise
   (parts of an emoji, flags) the text is changed, so that both sums are the same; only for vowel signs of Indic
   scripts, which cannot be left out, it is prompt_toolkit that is told what terminals do.
5. A redraw costs what is in view, however long the history is.
6. Texts of peers are indented. What begins in the first column (days, what is unread) is ours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from prompt_toolkit import utils
from prompt_toolkit.layout.controls import UIContent, UIControl
from prompt_toolkit.mouse_events import MouseEventType
from wcwidth import iter_graphemes

from chat.core.text import visible
from chat.core.wire import Kind
from chat.i18n import _
from chat.ui.markup import parse, tidied
from chat.ui.theme import classes, nick_style
from chat.ui.timeline import Moves, Note, Said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row
    from prompt_toolkit.key_binding.key_bindings import NotImplementedOrNone
    from prompt_toolkit.mouse_events import MouseEvent

    from chat.ui.markup import Fragment
    from chat.ui.timeline import Timeline

_ROWS_KEPT: Final = 20_000
_LINE_SIZE: Final = 20  # what it costs to keep a line besides its rows, in rows: about a dozen objects
_CLOCK_FROM: Final = 40  # columns: a pane that is narrower has better use for them than the time
_WHEEL: Final = 3  # rows
_EXCERPT: Final = 200  # characters of a message that is answered; the pane's width cuts it further
_REACTIONS_SHOWN: Final = 12  # of different kinds, on one message
_REACTION_COLUMNS: Final = 8
_NAMED: Final = 3  # people who give one reaction: more are counted
_MOVED: Final = 8  # people who came, or went, in one line: more are counted

# Parts of an emoji that terminals draw into the cells of another: VS16, ZWJ (but not between letters, which
# it joins), and skin tones.
JOINED: Final = re.compile(
    r"\ufe0f[\U0001f3fb-\U0001f3ff]?|\u200d(?![\u0620-\u17ff])"
    r"|(?<=[\u261d-\u27bf\U0001f300-\U0001faff])[\U0001f3fb-\U0001f3ff]"
)
# Vowel signs that take up room (category Mc). To terminals that go by the C library's wcwidth(3), and to xterm, tmux
# and VTE, each is a column; to the wcwidth that prompt_toolkit asks, none. All that it draws goes through this cache.
_INDIC: Final = (range(0x900, 0x1D00), range(0xA800, 0xAC00), range(0x11000, 0x12000))
_SPACING: Final = [char for block in _INDIC for char in map(chr, block) if unicodedata.category(char) == "Mc"]
getattr(utils, "_CHAR_SIZES_CACHE", {}).update(dict.fromkeys(_SPACING, 1))
FLAGS: Final = {0x1F1E6 + n: chr(ord("A") + n) for n in range(26)}  # regional indicators, as their letters
_CLOSING: Final = frozenset(")]},.;:!?，。、；：？！）」』】》〉〕…")  # noqa: RUF001 - never first in a row


class Line(NamedTuple):
    """One entry of the pane: a message, or a line of ours. Its texts are as they came."""

    text: str
    clock: str = ""
    lead: str = ""  # who, in front of the text; rows that follow are indented by its width
    lead_style: str = ""
    gap: int = 2  # columns between lead and text
    quote: str = ""  # what is answered: one row above the text
    mark: str = ""  # behind the text
    style: str = ""
    above: tuple[tuple[str, str], ...] = ()  # rows over all else, from the first column on: style, text
    tags: str = ""  # below the text
    head: bool = True  # whether clock and lead show; where they do not, they still indent
    marked: bool = False  # whether the text is in light markdown
    me: str = ""  # the reader's nickname, where the text addresses the reader


# -- text ---------------------------------------------------------------------------------------------


def shown(text: str, *, lines: bool = True) -> str:
    """Return ``text`` as it may stand on the screen, and in as many columns as ``columns`` says."""
    text = visible(text, lines=lines)
    return text if text.isascii() else JOINED.sub("", text).translate(FLAGS)


def columns(text: str) -> int:
    """Return the width of a text that has passed ``shown``."""
    # By single characters: prompt_toolkit remembers the width of each short string for ever.
    return len(text) if text.isascii() else sum(map(utils.get_cwidth, text))


def clip(text: str, width: int) -> str:
    """Return one row of at most ``width`` columns, with an ellipsis where something is left out."""
    text = shown(text, lines=False)
    if columns(text) <= width:
        return text
    start, end = next(_cuts(text, width - 1, words=False))
    return (text[start:end] if columns(text[start:end]) < width else "") + "…"


def wrap(text: str, width: int) -> list[str]:
    """Cut a text that has passed ``shown`` into rows of at most ``width`` columns.

    Rows end after a space or beside a wide character where they can (but no row begins with a closing
    mark), else between any two graphemes.
    """
    made = []
    for line in text.split("\n"):
        if columns(line) <= width:
            made.append(line)
        else:
            made += [line[start:end] for start, end in _cuts(line, width)]
    return made


def _cuts(line: str, width: int, *, words: bool = True) -> Iterator[tuple[int, int]]:
    """Yield where each row begins and ends. A space where a row ends is in none."""
    if line.isascii():
        yield from _ascii_cuts(line, max(width, 1), words=words)
        return
    start = at = cut = 0  # the row's begin; the next grapheme's; where the row may end, if behind its begin
    used = 0  # columns in the row
    was_wide = False
    for grapheme in _units(line, width):
        size = columns(grapheme)
        is_wide = size > 1 and columns(grapheme[0]) > 1  # and not a letter with its vowel sign
        if words and (was_wide or is_wide) and grapheme not in _CLOSING:
            cut = at
        if words and grapheme == " " and used == width:  # the row's end is space enough
            yield start, at
            start = at = cut = at + 1
            used, was_wide = 0, False
            continue
        while at > start and used + size > width:  # twice where all before the cut has no width
            cut = cut if cut > start else at
            yield start, cut
            start = cut
            used = columns(line[start:at])
        at += len(grapheme)
        used += size
        was_wide = is_wide
        if grapheme == " " and words:
            cut = at
    yield start, at


def _ascii_cuts(line: str, width: int, *, words: bool) -> Iterator[tuple[int, int]]:
    """The same where each character is a column: most lines are so, and it takes a fortieth of the time."""
    start, end = 0, len(line)
    while end - start > width:
        stop = start + width
        if words and line[stop] == " ":  # the row's end is space enough
            yield start, stop
            start = stop + 1
            continue
        cut = line.rfind(" ", start, stop) + 1 if words else 0
        yield start, cut or stop
        start = cut or stop
    yield start, end


def _units(line: str, width: int) -> Iterator[str]:
    """Yield what must not be cut. A grapheme has no longest size: one wider than a row is cut all the same."""
    for grapheme in iter_graphemes(line):
        if columns(grapheme) > width:
            yield from grapheme
        else:
            yield grapheme


def _wrap_fragments(fragments: list[Fragment], width: int) -> Iterator[Row]:
    """Cut a line of markup into rows, as ``wrap`` cuts a plain one. Code is cut anywhere: its spaces count."""
    text = "".join(part for _roles, part in fragments)
    cuts = [(0, len(text))]
    if columns(text) > width:
        cuts = list(_cuts(text, width, words=not fragments[0][0].startswith("code")))
    rest = iter(fragments)
    roles, begin, stop = "", 0, 0  # the fragment at hand, and where in the line it stands
    part = ""
    for start, end in cuts:
        row: Row = []
        at = start
        while at < end:
            while stop <= at:
                roles, part = next(rest)
                begin, stop = stop, stop + len(part)
            piece = part[at - begin : end - begin]
            row.append((classes(roles), piece))
            at += len(piece)
        yield row


# -- a line -------------------------------------------------------------------------------------------


class Wrapped(NamedTuple):
    """A line as it lies in a pane. Its rows' texts, and little more: there may be 16,000 of them, few of them seen."""

    head: Row
    indent: int
    texts: list[str]
    above: int = 0  # how many of the rows stand over the text
    styled: dict[int, Row] = {}  # noqa: RUF012 - rows of which not all has the line's own style; never changed

    @property
    def size(self) -> int:
        """What it costs to keep it, in rows."""
        return _LINE_SIZE + len(self.texts) + sum(map(len, self.styled.values()))


def lay(line: Line, width: int, *, markers: bool = False) -> Wrapped:
    """Wrap a line for a pane of ``width`` columns. ``markers``: whether to show what only marks in markdown."""
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
    text = shown(line.text)
    if line.marked:
        lines = parse(text, line.me)
        for fragments in lines if markers else tidied(lines):
            if len(fragments) == 1 and not fragments[0][0]:
                texts += wrap(fragments[0][1], room)
                continue
            for row in _wrap_fragments(fragments, room):
                styled[len(texts)] = [(f"{line.style} {style}".strip(), part) for style, part, *_more in row]
                texts.append("".join(part for _style, part, *_more in row))
    else:
        texts += wrap(text, room)
    if line.mark:
        mark = " " + clip(line.mark, room - 1)
        if columns(texts[-1]) + columns(mark) > room:
            texts.append("")
        at = len(texts) - 1
        styled[at] = [*styled.get(at, [(line.style, texts[at])]), ("class:faint", mark)]
        texts[at] += mark
    if line.tags:
        for tags in wrap(shown(line.tags, lines=False), room):
            styled[len(texts)] = [("class:faint", tags)]
            texts.append(tags)
    return Wrapped(head, indent, texts, len(line.above), styled)


def sealed(row: Row, width: int) -> Row:
    """Return a row of at most ``width`` columns so that prompt_toolkit draws its end right.

    A mark that is the last of a row it would draw twice: with its base, and as if it had a cell of its own.
    """
    text = row[-1][1] if row else ""
    if text.isascii() or utils.get_cwidth(text[-1]) or sum(columns(part) for _style, part, *_more in row) >= width:
        return row
    return [*row, ("", " ")]


def row_of(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return one row of a line."""
    body = wrapped.styled.get(at) or [(line.style, wrapped.texts[at])]
    if at < wrapped.above:
        return body
    head: Row = wrapped.head if at == wrapped.above else [("", " " * wrapped.indent)]
    return [*head, *body]


# -- what a pane shows --------------------------------------------------------------------------------


class Source(Protocol):
    """Lines by number. The numbers of lines never change, except where ``renumbered`` does."""

    @property
    def first(self) -> int: ...
    @property
    def end(self) -> int:
        """The number after the last line that has its place. What is pending follows, up to ``last``."""
        ...

    @property
    def last(self) -> int: ...
    @property
    def attached(self) -> bool:
        """Whether the last line is the newest one there is."""
        ...

    @property
    def renumbered(self) -> int: ...
    def line(self, number: int) -> Line: ...
    def selectable(self, number: int) -> bool: ...


class Conversation:
    """A timeline as lines: how each of its items looks. ``time_format`` is that of strftime, "" for no times."""

    def __init__(self, timeline: Timeline, time_format: str = "%H:%M") -> None:
        self.timeline: Final = timeline
        self._time_format = time_format

    @property
    def first(self) -> int:
        return self.timeline.first

    @property
    def end(self) -> int:
        return self.timeline.end

    @property
    def last(self) -> int:
        return self.timeline.last

    @property
    def attached(self) -> bool:
        return self.timeline.attached

    @property
    def renumbered(self) -> int:
        return self.timeline.renumbered

    def selectable(self, number: int) -> bool:
        item = self.timeline[number]
        return isinstance(item, Said) and not item.pending  # it has no place yet, and nothing can refer to it

    def line(self, number: int) -> Line:
        """Return how an item looks now. It is made anew for each redraw; the rows are what is kept."""
        item = self.timeline[number]
        above = []
        if day := self.timeline.day_begins(number):
            above.append(("class:day", f"── {day.isoformat()} ──"))
        if number == self.timeline.marker:
            above.append(("class:unread", f"── {_('new')} ──"))
        match item:
            case Said():
                line = self._said(item)
            case Note(text=text, role=role):
                line = Line(text, lead="--", lead_style="class:faint", gap=1, style=classes(role))
            case Moves():
                line = Line(_moved(item), lead="--", lead_style="class:faint", gap=1, style="class:note")
            case _:
                raise AssertionError(item)
        clock = f"{self.timeline.local(item.time):{self._time_format}}" if self._time_format else ""
        return line._replace(clock=clock, above=tuple(above), head=not self.timeline.goes_on(number))

    def _said(self, item: Said) -> Line:
        style, mark = nick_style(item.key), self._mark(item)
        nick = f"[{_('bot')}] {item.nick}" if item.bot else item.nick  # no nickname has brackets
        if item.retracted:
            return Line(_("taken back"), "", nick, style, mark=mark, style="class:faint")
        tags = self._tags(item)
        me = self.timeline.nick if item.mentioned else ""
        match item.kind:
            case Kind.SAY:
                quote = f"↳ {self._excerpt(item.target)}" if item.target else ""
                return Line(item.text, "", nick, style, quote=quote, mark=mark, tags=tags, marked=True, me=me)
            case Kind.ACTION:
                return Line(f"{nick} {item.text}", "", "*", style, gap=1, mark=mark, tags=tags, marked=True, me=me)
        deed = _("sent something of kind {kind}, which this version cannot show").format(kind=item.kind)
        return Line(f"{nick} {deed}", "", "*", style, gap=1, mark=mark, tags=tags)

    def _mark(self, item: Said) -> str:
        parts = [_("(edited)")] if item.edited and not item.retracted else []
        if item.pending:
            parts.append("…")
        elif item.mine:
            parts.append("✓")
            if item is self.timeline.last_mine and (seen := self.timeline.seen(item))[0]:
                count, of = seen
                parts.append(_("seen by all") if count == of else _("seen by {count}").format(count=count))
        return " ".join(parts)

    def _tags(self, item: Said) -> str:
        if item.changes is None:
            return ""
        given = self.timeline.reactions(item)
        tags = [
            f"{clip(emoji, _REACTION_COLUMNS)} {', '.join(nicks) if len(nicks) <= _NAMED else len(nicks)}"
            for emoji, nicks in given[:_REACTIONS_SHOWN]
        ]
        more = len(given) - _REACTIONS_SHOWN
        return "  ".join([*tags, f"+{more}"] if more > 0 else tags)

    def _excerpt(self, seq: int) -> str:
        item = self.timeline.at_seq(seq)
        if item is None:
            return _("number {number}").format(number=seq)
        text = _("taken back") if item.retracted else item.text[:_EXCERPT]
        return f"{item.nick}: {text}"


def _moved(item: Moves) -> str:
    parts = [
        words.format(nicks=_listed(nicks))
        for words, first, last in (
            (_("{nicks} came"), True, True),
            (_("{nicks} left"), False, False),
            (_("{nicks} came and left"), True, False),
            (_("{nicks} left and came back"), False, True),
        )
        if (nicks := item.of(first=first, last=last))
    ]
    if item.more:
        parts.append(_("{count} more").format(count=item.more))
    return "; ".join(parts)


def _listed(nicks: list[str]) -> str:
    more = len(nicks) - _MOVED
    return ", ".join([*nicks[:_MOVED], _("{count} more").format(count=more)] if more > 0 else nicks)


# -- the pane -----------------------------------------------------------------------------------------


class Pane(UIControl):
    """Shows the newest lines of ``source``, or those that somebody has scrolled up to.

    ``markers``: whether to show what only marks in markdown, for terminals that cannot show what it means.
    """

    def __init__(self, source: Source, *, markers: bool = False) -> None:
        self.selected: int | None = None  # the number of a line
        self.hit = ""  # what is searched for: highlighted wherever it is in view, in any case
        self.beyond = False  # somebody has scrolled up as far as the very first line, or would have further
        self._source: Final = source
        self._markers = markers
        # The row that is the first on the screen: a line's number, and which row from the begin of its text on. Rows
        # above that are negative: they may go (a day's begin, when older lines are put in front), and the text stays.
        self._top: tuple[int, int] | None = None
        self._seen = 0  # the number after the newest line that was seen
        self._in_view = (0, -1)  # the first and the last number on the screen
        self._passed: tuple[int, int] | None = None  # what was scrolled over since somebody asked, as numbers
        self._width = self._height = 1
        self._renumbered = self._source.renumbered
        self._wrapped: dict[Line, Wrapped] = {}  # the one used last is the last
        self._kept = 0  # what they cost, in rows

    # -- where one is ----------------------------------------------------------------------------

    @property
    def following(self) -> bool:
        """Whether the end is in view, and stays there."""
        return self._top is None and self._source.attached

    @property
    def below(self) -> int:
        """How many lines have come and not been seen; 0 where the pane follows."""
        return 0 if self._top is None else max(0, self._source.end - self._seen)

    def visible_range(self) -> tuple[int, int]:
        """Return the numbers of the first and the last line on the screen, (0, -1) where there is none.

        Older lines should be loaded when the first comes close to the source's first.
        """
        return self._in_view

    @property
    def place(self) -> tuple[int, int] | None:
        """Where one is, for ``go_back``."""
        return self._top

    def go_back(self, place: tuple[int, int] | None, selected: int | None) -> None:
        self._top, self.selected = place, selected

    def has_room_from(self, number: int) -> bool:
        """Whether all from this line on fits on the screen."""
        return self._back(self._source.last, 0, self._height) <= (number, 0)

    def passed(self) -> range:
        """Return the numbers of the lines that were scrolled over since this was asked last, drawn or not."""
        low, high = self._passed or (0, -1)
        self._passed = None
        return range(low, high + 1)

    def follow(self) -> None:
        """Go to the end, and stay there."""
        self._top = self.selected = None

    def scroll(self, pages: int) -> None:
        """Go down by so many pages, less the row that tells where one is; up where it is negative."""
        self.scroll_rows(pages * max(self._height - 1, 1))

    def scroll_rows(self, rows: int) -> None:
        """Go down by so many rows; up where it is negative."""
        number, row = self._begin()
        place = self._back(number, row, -rows) if rows < 0 else self._forth(number, row, rows)
        self.beyond = rows < 0 and place <= (self._source.first, 0)
        low, high = self._passed or (number, number)
        self._passed = (min(low, place[0]), max(high, place[0]))
        self._hold(*place)

    def succeed(self, other: Pane) -> None:
        """Be as large as another pane was that was drawn here before, and highlight the same."""
        if self._width != other._width:
            self._wrapped.clear()
            self._kept = 0
        self._width, self._height, self.hit = other._width, other._height, other.hit

    def take_over(self, other: Pane, shift: int) -> None:
        """Be where another pane is, one that has the same lines by numbers that are so much lower."""
        self._seen = self._source.end
        self._in_view = (other._in_view[0] + shift, other._in_view[1] + shift)
        self._top = None if other._top is None else (other._top[0] + shift, other._top[1])
        self.selected = None if other.selected is None else other.selected + shift

    def jump(self, number: int | None) -> bool:
        """Bring a line into view, a third of the way down. False where there is none of this number."""
        if number is None or not self._source.first <= number < self._source.last:
            return False
        self._begin()
        self._hold(*self._back(number, 0, self._height // 3))
        return True

    # -- what is selected ------------------------------------------------------------------------

    def select(self, by: int) -> int | None:
        """Select the next message below, or above where ``by`` is negative; the first time the last one in view.

        Returns its number, None where nothing can be selected; it is in view. What is selected stays where there is
        no further one. The pane does not follow the end until ``deselect`` or ``follow``.
        """
        step = 1 if by > 0 else -1
        if self.selected is not None and not self._source.first <= self.selected < self._source.last:
            self.selected = None
        number = self.selected
        if number is None:
            number, step = self._in_view[1] + 1, -1
        number += step
        while self._source.first <= number < self._source.last and not self._source.selectable(number):
            number += step
        if self._source.first <= number < self._source.last:
            self.selected = number
        if self.selected is not None:
            self._reveal(self.selected)
        return self.selected

    def deselect(self) -> None:
        self.selected = None

    def _reveal(self, number: int) -> None:
        """Scroll as little as brings a line into view; its begin where it is larger than the screen."""
        top = self._begin()
        lowest = self._back(number + 1, 0, self._height)  # so far down the screen may begin at least
        self._hold(*min(max(top, lowest), (number, 0)))

    # -- drawing ---------------------------------------------------------------------------------

    def create_content(self, width: int, height: int) -> UIContent:
        """Called by prompt_toolkit for each redraw: the rows in view, and no others."""
        if width != self._width:
            self._wrapped.clear()
            self._kept = 0
        self._width, self._height = width, height
        if self._renumbered != self._source.renumbered:
            self._renumbered, self._seen = self._source.renumbered, 0
            self.follow()
        last = self._back(self._source.last, 0, height)
        top = last
        if self._top is not None:
            top = self._place()
            if top >= last:
                top = last
                if self.selected is None and self._source.attached:
                    self._top = None
            if self._top is not None:
                self._hold(*top)
        page = self._page(*top)
        page = [[] for _row in range(height - len(page))] + page  # the newest is nearest to the input
        return UIContent(get_line=page.__getitem__, line_count=len(page), show_cursor=False)

    def mouse_handler(self, mouse_event: MouseEvent) -> NotImplementedOrNone:
        """The wheel scrolls, where the mouse is on."""
        if mouse_event.event_type is MouseEventType.SCROLL_UP:
            self.scroll_rows(-_WHEEL)
        elif mouse_event.event_type is MouseEventType.SCROLL_DOWN:
            self.scroll_rows(_WHEEL)
        else:
            return NotImplemented
        return None

    def _begin(self) -> tuple[int, int]:
        """Return the first row on the screen, and stop following."""
        if self._top is None:
            self._seen = self._source.end
            self._hold(*self._back(self._source.last, 0, self._height))
        return self._place()

    def _hold(self, number: int, row: int) -> None:
        above = self._lay(number).above if self._source.first <= number < self._source.last else 0
        self._top = (number, row - above)

    def _place(self) -> tuple[int, int]:
        """Return the row that the pane is anchored on, as its line and which of the line's rows."""
        assert self._top is not None
        number, row = self._top
        if number < self._source.first:
            return self._source.first, 0
        if number >= self._source.last:
            return self._source.last, 0
        above = self._lay(number).above
        return self._back(number, above, -row) if row < 0 else (number, min(row + above, self._size(number) - 1))

    def _lay(self, number: int) -> Wrapped:
        return self._rows(self._source.line(number))

    def _rows(self, line: Line) -> Wrapped:
        made = self._wrapped.pop(line, None)
        if made is None:
            made = lay(line, self._width, markers=self._markers)
            self._kept += made.size
        self._wrapped[line] = made
        while self._kept > _ROWS_KEPT and len(self._wrapped) > 1:
            self._kept -= self._wrapped.pop(next(iter(self._wrapped))).size
        return made

    def _size(self, number: int) -> int:
        return len(self._lay(number).texts)

    def _page(self, number: int, row: int) -> list[Row]:
        page: list[Row] = []
        first = number
        hit = re.compile(re.escape(self.hit), re.IGNORECASE) if self.hit else None
        while len(page) < self._height and number < self._source.last:
            line = self._source.line(number)
            wrapped = self._rows(line)
            stop = min(len(wrapped.texts), row + self._height - len(page))
            rows = [row_of(line, wrapped, at) for at in range(row, stop)]
            if hit:
                rows = [list(_highlighted(fragments, hit)) for fragments in rows]
            rows = [sealed(fragments, self._width) for fragments in rows]
            if number == self.selected:
                rows = [_selected(fragments, self._width) for fragments in rows]
            page += rows
            number, row = number + 1, 0
        self._in_view = (first, number - 1) if page else (0, -1)
        self._seen = max(self._seen, min(number, self._source.end))
        return page

    def _back(self, number: int, row: int, count: int) -> tuple[int, int]:
        """Return the place ``count`` rows above this one, or the very first."""
        while count > row and number > self._source.first:
            count -= row
            number -= 1
            row = self._size(number)
        return number, max(row - count, 0)

    def _forth(self, number: int, row: int, count: int) -> tuple[int, int]:
        while number < self._source.last and count >= self._size(number) - row:
            count -= self._size(number) - row
            number, row = number + 1, 0
        return number, row + count if number < self._source.last else 0


def _highlighted(row: Row, hit: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for style, text, *_more in row:
        at = 0
        for match in hit.finditer(text):
            if match.start() > at:
                yield style, text[at : match.start()]
            yield f"{style} class:hit".lstrip(), match[0]
            at = match.end()
        if at < len(text):
            yield style, text[at:]


def _selected(row: Row, width: int) -> Row:
    used = sum(columns(text) for _style, text, *_more in row)
    row = [*row, ("", " " * (width - used))]
    return [(f"{style} class:selected".lstrip(), text) for style, text, *_more in row]
