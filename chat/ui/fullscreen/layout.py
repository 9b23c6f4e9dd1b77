"""One line of the pane, laid out in rows of a given width.

    12:04 ann  ↳ bob: shall we?          clock, lead, quote
               yes, **now** (edited) ✓   text, suffix
               👍 bob                    reactions

Texts of peers are indented: what begins in the first column (days, the unread marker) is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from prompt_toolkit import utils

from chat.ui.fullscreen.wrapping import clip, columns, sanitize, wrap, wrap_fragments
from chat.ui.markup import parse, without_delimiters

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

_LINE_SIZE: Final = 20  # what a line costs to cache besides its rows, in rows: about a dozen objects
_CLOCK_FROM: Final = 40  # columns: a narrower pane has better use for them than the time


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


class Wrapped(NamedTuple):
    """A line laid out for one width: the texts of its rows, and little more. There may be 16,000, few of them seen."""

    head: Row
    indent: int
    texts: list[str]
    above: int = 0  # how many of the rows stand above the text
    styled: dict[int, Row] = {}  # noqa: RUF012 - rows with styles besides the line's own; never changed

    @property
    def size(self) -> int:
        """What it costs to cache, in rows."""
        return _LINE_SIZE + len(self.texts) + sum(map(len, self.styled.values()))


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
    text = sanitize(line.text)
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
    return Wrapped(head, indent, texts, len(line.above), styled)


def row_of(line: Line, wrapped: Wrapped, at: int) -> Row:
    """Return one row of a line."""
    body = wrapped.styled.get(at) or [(line.style, wrapped.texts[at])]
    if at < wrapped.above:
        return body
    head: Row = wrapped.head if at == wrapped.above else [("", " " * wrapped.indent)]
    return [*head, *body]


def sealed(row: Row, width: int) -> Row:
    """Return a row of at most ``width`` columns whose end prompt_toolkit draws right.

    It would draw a combining mark at the end twice: with its base, and in a column of its own.
    """
    text = row[-1][1] if row else ""
    if text.isascii() or utils.get_cwidth(text[-1]) or sum(columns(part) for _style, part, *_more in row) >= width:
        return row
    return [*row, ("", " ")]
