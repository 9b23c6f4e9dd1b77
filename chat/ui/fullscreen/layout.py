"""A line of the conversation, laid out in rows of a given width.

                 Thursday, 1 January          above: a day, centred
    ──────────────── 3 new ────────────────   above: the unread marker
     20:16    小明 │ ▎bob: shall we?          time, name, rule, quote
                   │ yes, **now** (edited) ✓  text, suffix, receipt
                   ├─ python ─────            code in a frame
                   │ kettle()
                   ╰──────────────
                   │ 👍 2  [🍵 1]             chips: reactions, one's own in brackets
    ▌20:17     bob │ @ann, look               the bar at the edge: it mentions the reader
           · dice joined ·                    an event has no name and no rule

Below ``_WIDE_FROM`` columns there are no times, and the rule is the edge. What begins left of the rule is ours: no text
of a peer gets there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chat.i18n import _
from chat.ui.fullscreen.wrapping import clip, columns, sanitize, wrap, wrap_fragments
from chat.ui.markup import parse, shown

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

_LINE_SIZE: Final = 20  # what a line costs to cache besides its rows, in rows: about a dozen objects
_WIDE_FROM: Final = 40  # columns: a narrower pane has better use for them than the time
_NAMES_FROM: Final = 6  # columns of names in a wide pane, at least
NARROW_NAMES: Final = 3  # the same in a narrow pane
NAMES: Final = 16  # columns of names, at most, and a fifth of the pane; a wider name ends with an ellipsis
_FRAME_FROM: Final = 10  # columns of a frame around code, at least
# rows of a text; a longer one would push the talk off the screen, so its first few show until it is unfolded
_MAX_ROWS: Final = 12
_SHOWN_ROWS: Final = 5


EVENT: Final = "class:event"


class Line(NamedTuple):
    """A message, or a line of ours. Its texts are as they came."""

    text: str
    clock: str = ""
    lead: str = ""  # who: in the column of names, before the rule; "" for an event, which has neither
    lead_style: str = ""
    quote: str = ""  # the message that it answers: one row above the text
    suffix: str = ""  # behind the text
    receipt: str = ""  # behind that
    style: str = ""
    # Rows above everything else, over the whole width: a style, a text, and shorter ones for less room.
    above: tuple[tuple[str, ...], ...] = ()
    chips: tuple[tuple[str, str], ...] = ()  # below the text: style, text
    head: bool = True  # whether the name shows; if not, it still indents
    timed: bool = True  # the same for the clock
    markdown: bool = False  # whether the text is light markdown
    me: str = ""  # the reader's nickname, if the text mentions it
    unfolds: str = ""  # the key that shows all of the text; "" if all of it shows, however long it is
    widest: int = 0  # columns of the widest name in the conversation


class Wrapped(NamedTuple):
    """A line laid out for one width: the texts of its rows, and little more. There may be 16,000, few of them seen."""

    texts: list[str]
    indent: int  # columns before the text
    edge: bool = False  # whether there is a column for the bar
    clock: str = ""  # with the space behind it; "" if no row has one
    name: str = ""  # as wide as its column; "" without a rule
    above: int = 0  # how many of the rows stand above the text
    styled: dict[int, Row] = {}  # noqa: RUF012 - rows with styles besides the line's own; never changed
    corners: dict[int, str] = {}  # noqa: RUF012 - what some rows have instead of the rule
    folded: int = 0  # rows of the text that are left out

    @property
    def size(self) -> int:
        """What it costs to cache, in rows."""
        return _LINE_SIZE + len(self.texts) + sum(map(len, self.styled.values()))


def lay(line: Line, width: int, *, delimiters: bool = False) -> Wrapped:
    """Lay out a line in ``width`` columns. ``delimiters``: whether to show those of the markdown."""
    wide = width >= _WIDE_FROM
    edge = wide and bool(line.lead or line.clock)
    clock = f"{clip(line.clock, width)} " if wide and line.clock else ""
    if columns(clock) > width // 4:
        clock = ""
    name = ""
    if line.lead and (most := min(max(width // 5, 4), NAMES, width // 2 - 2)) > 0:
        widest = min(max(line.widest, _NAMES_FROM if wide else NARROW_NAMES), most)
        name = clip(line.lead, widest)
        name = " " * (widest - columns(name)) + name + " " * wide
    indent = edge + columns(clock) + columns(name) + (2 if name else 0)
    rows = _Rows(line, max(width - indent, 2))
    for style, *texts in line.above:
        rows.add(_banner(texts, width, "─" if style == "class:unread" else " "), style)
    if line.quote:
        rows.add(clip(f"▎{line.quote}", rows.room), "class:quote")
    begin = len(rows.texts)
    rows.add_text(delimiters=delimiters)
    folded = rows.fold(begin)
    for style, text in (("class:faint", line.suffix), ("class:receipt", line.receipt)):
        if text:
            rows.append(text, style)
    rows.add_chips()
    return Wrapped(rows.texts, indent, edge, clock, name, len(line.above), rows.styled, rows.corners, folded)


def row_of(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return one row of a line."""
    return [*margin(line, wrapped, at), *body(line, wrapped, at)]


def body(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return the part of a row that is right of the rule, or the whole row if it has none."""
    return wrapped.styled.get(at) or [(line.style, wrapped.texts[at])]


def margin(line: Line, wrapped: Wrapped, at: int, *, topmost: bool = False) -> Row:
    """Return the part of a row that is left of the text. ``topmost``: show name and time, whatever shows above."""
    if at < wrapped.above or not wrapped.indent:
        return []
    begins = at == wrapped.above
    row: Row = []
    if wrapped.edge:
        row.append(("class:edge", "▌") if line.me else ("", " "))
    if wrapped.clock:
        shows = topmost or (begins and line.timed)
        row.append(("class:time", wrapped.clock) if shows else ("", " " * columns(wrapped.clock)))
    if wrapped.name:
        shows = topmost or (begins and line.head)
        row.append((line.lead_style, wrapped.name) if shows else ("", " " * columns(wrapped.name)))
        if corner := wrapped.corners.get(at):
            row.append(("class:frame", corner))
        else:
            row.append(("class:edge", "▌ ") if line.me and not wrapped.edge else ("class:rule", "│ "))
    return row


def _banner(texts: list[str], width: int, filler: str) -> str:
    """Return a row over the whole width with the first text that fits in its middle."""
    text = clip(next((text for text in texts if columns(text) <= width), texts[-1]), width)
    rest = max(width - columns(text) - 2, 0) // 2
    return f"{filler * rest} {text} {filler * rest}" if rest else text


class _Rows:
    """The rows of a line while they are laid out; those of the text have ``room`` columns."""

    def __init__(self, line: Line, room: int) -> None:
        self.room: Final = room
        self.texts: list[str] = []
        self.styled: dict[int, Row] = {}
        self.corners: dict[int, str] = {}
        self._line: Final = line

    def add(self, text: str, style: str) -> None:
        self.styled[len(self.texts)] = [(style, text)]
        self.texts.append(text)

    def append(self, text: str, style: str) -> None:
        """Put something behind the last row, or below it if that is full."""
        text = " " + clip(text, self.room - 1)
        if columns(self.texts[-1]) + columns(text) > self.room:
            self.texts.append("")
        at = len(self.texts) - 1
        self.styled[at] = [*self.styled.get(at, [(self._line.style, self.texts[at])]), (style, text)]
        self.texts[at] += text

    def add_text(self, *, delimiters: bool) -> None:
        line, text = self._line, sanitize(self._line.text)
        if line.style == EVENT:
            first, *rest = wrap(text, max(self.room - 4, 2))
            self.texts += [f"· {first}", *(f"  {row}" for row in rest)]
            self.texts[-1] += " ·"
            return
        if not line.markdown:
            self.texts += wrap(text, self.room)
            return
        opened: int | None = None  # the row that opens the block of code
        for fragments in parse(text, line.me):
            if fragments[0][0] == "fence":
                opened = self._frame(fragments[0][1].strip("` "), opened)
            elif len(fragments) == 1 and not fragments[0][0]:
                self.texts += wrap(fragments[0][1], self.room)
            else:
                for row in wrap_fragments(fragments if delimiters else shown(fragments), self.room):
                    self.styled[len(self.texts)] = [
                        (f"{line.style} {style}".strip(), part) for style, part, *_more in row
                    ]
                    self.texts.append("".join(part for _style, part, *_more in row))

    def _frame(self, language: str, opened: int | None) -> int | None:
        """Add the top of a frame and return its row; or its bottom, and make the top as wide as what is in it."""
        if opened is None:
            self.corners[len(self.texts)] = "├─"
            self.add(clip(f" {language} ", self.room) if language else "", "class:frame")
            return len(self.texts) - 1
        wide = max(_FRAME_FROM, columns(self.texts[opened]) + 3, *map(columns, self.texts[opened + 1 :]))
        wide = min(wide, self.room)
        top = self.texts[opened]
        self.texts[opened] = top + "─" * (wide - columns(top))
        self.styled[opened] = [("class:frame", self.texts[opened])]
        self.corners[len(self.texts)] = "╰─"
        self.add("─" * wide, "class:frame")
        return None

    def fold(self, begin: int) -> int:
        """Fold the text if it is long and not unfolded; it begins in this row. Return how many rows are left out."""
        key = self._line.unfolds
        if not key or len(self.texts) - begin <= _MAX_ROWS:
            return 0
        count = len(self.texts) - begin - _SHOWN_ROWS
        last = begin + _SHOWN_ROWS
        del self.texts[last:]
        for rows in (self.styled, self.corners):
            for at in [at for at in rows if at >= last]:
                del rows[at]
        more = _("… {count} more").format(count=count)
        fitting = (text for text in (f"{more} · {key}", more) if columns(text) <= self.room)
        self.add(next(fitting, clip(f"…{count}", self.room)), "class:faint")
        return count

    def add_chips(self) -> None:
        """Add the reactions. None is cut in two."""
        row: Row = []
        for style, text in self._line.chips:
            chip = clip(text, self.room)
            if row and sum(columns(part) for _style, part, *_more in row) + 2 + columns(chip) > self.room:
                self._add_row(row)
                row = []
            row += [("", "  "), (style, chip)] if row else [(style, chip)]
        if row:
            self._add_row(row)

    def _add_row(self, row: Row) -> None:
        self.styled[len(self.texts)] = row
        self.texts.append("".join(part for _style, part, *_more in row))
