"""Text for the screen: sanitized, measured in columns, clipped and cut into rows. Typed text: cleaned.

Columns are counted as prompt_toolkit draws, character by character. Terminals count some sequences otherwise:
``graphemes`` changes emoji of several code points so that both counts agree. Vowel signs of Indic scripts cannot be
left out, so prompt_toolkit is told what terminals do.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from prompt_toolkit import utils
from wcwidth import grapheme_boundary_before, iter_graphemes

from chat.core.text import visible
from chat.ui.fullscreen.graphemes import fit
from chat.ui.theme import classes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

    from chat.ui.markup import Fragment

# What ``graphemes`` leaves of the parts of an emoji: VS16, and ZWJ (but not between letters, which it joins).
STRAY: Final = re.compile(r"\ufe0f|\u200d(?![\u0620-\u17ff])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CLOSING: Final = frozenset(")]},.;:!?，。、；：？！）」』】》〉〕…")  # noqa: RUF001 - never first in a row
# Vowel signs that take up room (category Mc). To terminals that go by the C library's wcwidth(3), and to xterm, tmux
# and VTE, each is a column; to the wcwidth that prompt_toolkit asks, none. All that it draws goes through this cache.
_INDIC: Final = (range(0x900, 0x1D00), range(0xA800, 0xAC00), range(0x11000, 0x12000))
_SPACING: Final = [char for block in _INDIC for char in map(chr, block) if unicodedata.category(char) == "Mc"]
getattr(utils, "_CHAR_SIZES_CACHE", {}).update(dict.fromkeys(_SPACING, 1))


def sanitize(text: str, *, lines: bool = True) -> str:
    """Return ``text`` as it may stand on the screen, as wide as ``columns`` says."""
    text = visible(text, lines=lines)
    return text if text.isascii() else STRAY.sub("", fit(text))


def clean(text: str) -> str:
    """Return typed or pasted text with one kind of line break and without control characters; tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text)


def between_graphemes(text: str, at: int, *, before: bool) -> int:
    """Return ``at`` if it is between two graphemes (UAX #29), else where the grapheme around it begins, or ends."""
    if at <= 0 or at >= len(text) or text[at - 1 : at + 1].isascii():
        return min(max(at, 0), len(text))
    begins = grapheme_boundary_before(text, at + 1)
    return begins if before or begins == at else begins + len(next(iter_graphemes(text, begins)))


def columns(text: str) -> int:
    """Return the width of a sanitized text."""
    # By single characters: prompt_toolkit remembers the width of each short string for ever.
    return len(text) if text.isascii() else sum(map(utils.get_cwidth, text))


def clip(text: str, width: int) -> str:
    """Return one row of at most ``width`` columns, sanitized, with an ellipsis if something is left out."""
    text = sanitize(text, lines=False)
    if columns(text) <= width:
        return text
    start, end = next(_cuts(text, width - 1, words=False))
    return (text[start:end] if columns(text[start:end]) < width else "") + "…"


def sealed(row: Row, width: int) -> Row:
    """Return a row of at most ``width`` columns whose end prompt_toolkit draws right.

    It would draw a combining mark at the end twice: with its base, and in a column of its own.
    """
    text = row[-1][1] if row else ""
    if text.isascii() or utils.get_cwidth(text[-1]) or sum(columns(part) for _style, part, *_more in row) >= width:
        return row
    return [*row, ("", " ")]


def wrap(text: str, width: int) -> list[str]:
    """Cut a sanitized text into rows of at most ``width`` columns.

    Rows end after a space or beside a wide character if they can (but no row begins with a closing
    mark), else between any two graphemes.
    """
    rows = []
    for line in text.split("\n"):
        if columns(line) <= width:
            rows.append(line)
        else:
            rows += [line[start:end] for start, end in _cuts(line, width)]
    return rows


def wrap_fragments(fragments: list[Fragment], width: int) -> Iterator[Row]:
    """Cut a line of markup into rows, where ``wrap`` cuts a plain one. Code is cut anywhere: its spaces count."""
    text = "".join(part for _roles, part in fragments)
    cuts = [(0, len(text))]
    if columns(text) > width:
        cuts = list(_cuts(text, width, words=not fragments[0][0].startswith("code")))
    rest = iter(fragments)
    roles, begin, stop = "", 0, 0  # the current fragment, and where it stands in the line
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


def _cuts(line: str, width: int, *, words: bool = True) -> Iterator[tuple[int, int]]:
    """Yield where each row begins and ends. A space at the end of a full row is in none."""
    if line.isascii():
        yield from _ascii_cuts(line, max(width, 1), words=words)
        return
    start = at = cut = 0  # where the row begins; the next grapheme; where the row may end, if after its begin
    used = 0  # columns in the row
    was_wide = False
    for grapheme in _units(line, width):
        size = columns(grapheme)
        is_wide = size > 1 and columns(grapheme[0]) > 1  # and not a letter with its vowel sign
        if words and (was_wide or is_wide) and grapheme not in _CLOSING:
            cut = at
        if words and grapheme == " " and used == width:  # the end of the row stands for the space
            yield start, at
            start = at = cut = at + 1
            used, was_wide = 0, False
            continue
        while at > start and used + size > width:  # twice if everything before the cut has no width
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
    """The same if each character is a column, as in most lines: it takes a fortieth of the time."""
    start, end = 0, len(line)
    while end - start > width:
        stop = start + width
        if words and line[stop] == " ":  # the end of the row stands for the space
            yield start, stop
            start = stop + 1
            continue
        cut = line.rfind(" ", start, stop) + 1 if words else 0
        yield start, cut or stop
        start = cut or stop
    yield start, end


def _units(line: str, width: int) -> Iterator[str]:
    """Yield what must not be cut. A grapheme can be of any size: one wider than a row is cut after all."""
    for grapheme in iter_graphemes(line):
        if columns(grapheme) > width:
            yield from grapheme
        else:
            yield grapheme
