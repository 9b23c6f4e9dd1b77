"""The message pane of the full-screen face: a ring of lines, cut into rows when they come into view.

     ring   │ evicted │ line 41 │ line 42 │ ... │ line 10040 │ tail: what is said and not yet stored
                                    ▲ top = (42, 3): its fourth row is the first on the screen;
                                      None where the pane follows the end

Rules:

1. Texts go in as they came. What reaches the screen has passed ``shown``, and no style is made of it.
2. A line is wrapped when it is looked at, and its rows are kept for as long as they are likely to be
   looked at again: a member may send 16 KiB of line breaks, so what is kept is counted in rows.
3. Scrolled up, the pane is anchored on a row: what arrives below moves nothing.
4. Columns are counted as prompt_toolkit draws, character by character. Where terminals add up otherwise
   (parts of an emoji, flags) the text is changed, so that both sums are the same.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from prompt_toolkit.layout.controls import UIContent, UIControl
from prompt_toolkit.utils import get_cwidth
from wcwidth import iter_graphemes

from chat.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

RING: Final = 10_000  # lines
_ROWS_KEPT: Final = 20_000
_CLOCK_FROM: Final = 40  # columns: a pane that is narrower has better use for them than the time

# Parts of an emoji that terminals draw into the cells of another: VS16, ZWJ (but not between letters, which
# it joins), and skin tones.
JOINED: Final = re.compile(
    r"\ufe0f[\U0001f3fb-\U0001f3ff]?|\u200d(?![\u0620-\u17ff])"
    r"|(?<=[\u261d-\u27bf\U0001f300-\U0001faff])[\U0001f3fb-\U0001f3ff]"
)
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


# -- text ---------------------------------------------------------------------------------------------


def shown(text: str, *, lines: bool = True) -> str:
    """Return ``text`` as it may stand on the screen, and in as many columns as ``columns`` says."""
    text = visible(text, lines=lines)
    return text if text.isascii() else JOINED.sub("", text).translate(FLAGS)


def columns(text: str) -> int:
    """Return the width of a text that has passed ``shown``."""
    # By single characters: prompt_toolkit remembers the width of each short string for ever.
    return len(text) if text.isascii() else sum(map(get_cwidth, text))


def clip(text: str, width: int) -> str:
    """Return one row of at most ``width`` columns, with an ellipsis where something is left out."""
    text = shown(text, lines=False)
    if columns(text) <= width:
        return text
    kept = next(_pieces(text, width - 1, words=False))
    return (kept if columns(kept) < width else "") + "…"


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
            made += _pieces(line, width)
    return made


def _pieces(line: str, width: int, *, words: bool = True) -> Iterator[str]:
    row: list[str] = []
    used = cut = 0  # columns in the row; how many graphemes of it may stay when the next does not fit
    was_wide = False
    for grapheme in _units(line, width):
        size = columns(grapheme)
        if words and (was_wide or size > 1) and grapheme not in _CLOSING:
            cut = len(row)
        if words and grapheme == " " and used == width:  # the row's end is space enough
            yield "".join(row)
            row, used, cut, was_wide = [], 0, 0, False
            continue
        while row and used + size > width:  # twice where all before the cut has no width
            cut = cut or len(row)
            yield "".join(row[:cut])
            row = row[cut:]
            used, cut = sum(map(columns, row)), 0
        row.append(grapheme)
        used += size
        was_wide = size > 1
        if grapheme == " " and words:
            cut = len(row)
    yield "".join(row)


def _units(line: str, width: int) -> Iterator[str]:
    """Yield what must not be cut. A grapheme has no longest size: one wider than a row is cut all the same."""
    for grapheme in iter_graphemes(line):
        if columns(grapheme) > width:
            yield from grapheme
        else:
            yield grapheme


class Wrapped(NamedTuple):
    """A line as it lies in a pane. Its rows' texts, and no more: there may be 16,000 of them, of which few are seen."""

    head: Row
    indent: int
    texts: list[str]


def lay(line: Line, width: int) -> Wrapped:
    """Wrap a line for a pane of ``width`` columns."""
    head: Row = []
    if line.clock and width >= _CLOCK_FROM:
        head.append(("class:faint", line.clock + " "))
    if line.lead:
        head.append((line.lead_style, clip(line.lead, max(4, width // 4))))
        head.append(("", " " * line.gap))
    indent = sum(columns(text) for _, text, *_ in head)
    room = max(width - indent, 2)
    texts = [clip(line.quote, room)] if line.quote else []
    texts += wrap(shown(line.text), room)
    if line.mark:
        if columns(texts[-1]) + 2 > room:
            texts.append("")
        texts[-1] += f" {line.mark}"
    return Wrapped(head, indent, texts)


def row_of(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return one row of a line."""
    head: Row = [("", " " * wrapped.indent)] if at else wrapped.head
    return [*head, ("class:faint" if line.quote and at == 0 else line.style, wrapped.texts[at])]


# -- the pane -----------------------------------------------------------------------------------------


class Pane(UIControl):
    """Shows the newest lines, or those that somebody has scrolled up to."""

    def __init__(self) -> None:
        self.tail: deque[Line] = deque()  # below all others
        self._ring: deque[Line] = deque(maxlen=RING)
        self._first = 0  # the number of the ring's first line
        self._top: tuple[int, int] | None = None
        self._seen = 0  # the ring's end when the pane stopped following
        self._width = self._height = 1
        self._wrapped: dict[Line, Wrapped] = {}  # the one used last is the last
        self._kept = 0  # rows in it

    def add(self, line: Line) -> None:
        """Add a line at the end; the oldest goes where there are 10,000."""
        self._first += len(self._ring) == RING
        self._ring.append(line)

    def follow(self) -> None:
        """Go to the end, and stay there."""
        self._top = None

    def scroll(self, pages: int) -> None:
        """Go down by so many pages, less the row that tells where one is; up where it is negative."""
        if self._top is None:
            self._top = self._back(self._end, 0, self._height)
            self._seen = self._ring_end
        number, row = max(self._top, (self._first, 0))
        count = pages * max(self._height - 1, 1)
        self._top = self._back(number, row, -count) if count < 0 else self._forth(number, row, count)

    @property
    def below(self) -> int:
        """How many lines have come since the pane stopped following; 0 where it follows."""
        return 0 if self._top is None else self._ring_end - self._seen

    def create_content(self, width: int, height: int) -> UIContent:
        """Called by prompt_toolkit for each redraw: the rows in view, and no others."""
        if width != self._width:
            self._wrapped.clear()
            self._kept = 0
        self._width, self._height = width, height
        last = self._back(self._end, 0, height)
        if self._top is not None:
            number, row = max(self._top, (self._first, 0))
            self._top = (number, min(row, self._size(number) - 1)) if (number, row) < last else None
        page = self._page(*(self._top or last))
        page = [[] for _ in range(height - len(page))] + page  # the newest is nearest to the input
        return UIContent(get_line=page.__getitem__, line_count=len(page), show_cursor=False)

    @property
    def _ring_end(self) -> int:
        return self._first + len(self._ring)

    @property
    def _end(self) -> int:
        return self._ring_end + len(self.tail)

    def _line(self, number: int) -> Line:
        at = number - self._first
        return self._ring[at] if at < len(self._ring) else self.tail[at - len(self._ring)]

    def _lay(self, line: Line) -> Wrapped:
        made = self._wrapped.pop(line, None)
        if made is None:
            made = lay(line, self._width)
            self._kept += len(made.texts)
        self._wrapped[line] = made
        while self._kept > _ROWS_KEPT and len(self._wrapped) > 1:
            self._kept -= len(self._wrapped.pop(next(iter(self._wrapped))).texts)
        return made

    def _size(self, number: int) -> int:
        return len(self._lay(self._line(number)).texts)

    def _page(self, number: int, row: int) -> list[Row]:
        page: list[Row] = []
        while len(page) < self._height and number < self._end:
            line = self._line(number)
            wrapped = self._lay(line)
            stop = min(len(wrapped.texts), row + self._height - len(page))
            page += [row_of(line, wrapped, at) for at in range(row, stop)]
            number, row = number + 1, 0
        return page

    def _back(self, number: int, row: int, count: int) -> tuple[int, int]:
        """Return the place ``count`` rows above this one, or the very first."""
        while count > row and number > self._first:
            count -= row
            number -= 1
            row = self._size(number)
        return number, max(row - count, 0)

    def _forth(self, number: int, row: int, count: int) -> tuple[int, int]:
        while number < self._end and count >= self._size(number) - row:
            count -= self._size(number) - row
            number, row = number + 1, 0
        return number, row + count if number < self._end else 0
