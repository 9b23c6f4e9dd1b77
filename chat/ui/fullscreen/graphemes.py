"""Emoji of several code points: whole where the terminal draws them so, else reduced to what every terminal draws.

prompt_toolkit counts and draws character by character. So a sequence that shows whole is one private-use character of
two columns until it is written, and everything between sees one character: wrapping, clipping, bars, menus.

    "👨 ZWJ 👩 ZWJ 👧" ──fit──▶ U+F0000 ──▶ rows, cells ──spell_out──▶ "👨 ZWJ 👩 ZWJ 👧"

No text of a peer holds such a character: ``chat.core.text.visible`` replaces private use by U+FFFD.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from prompt_toolkit import utils
from wcwidth import wcswidth, wcwidth

from chat.core.text import PICTURES

if TYPE_CHECKING:
    from collections.abc import Collection

# What terminals differ in, with the sample that is measured: each is two columns if the terminal draws it whole.
SAMPLES: Final = {
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag": "\U0001f1e9\U0001f1ea",
    "tone": "\U0001f44d\U0001f3fd",
    "variant": "\u2764\ufe0f",  # a text symbol drawn as a picture
    "keycap": "1\ufe0f\u20e3",
}
AMBIGUOUS: Final = "…"  # two columns in some terminals that are set up for Chinese or Japanese
# different emoji of several code points that one window shows whole; further ones show reduced
MAX_WHOLE: Final = 4096
_FIRST: Final = 0xF0000  # the first stand-in, in a private plane
_INDICATORS: Final = "\U0001f1e6-\U0001f1ff"  # a flag is two of them
_TONES: Final = "\U0001f3fb-\U0001f3ff"
_PART: Final = rf"(?![{_INDICATORS}{_TONES}])[{PICTURES}][\ufe0f{_TONES}]{{0,2}}"
_HINT: Final = re.compile(rf"[\u200d\ufe0f{_INDICATORS}{_TONES}]")  # most texts hold none
# Up to ten are joined to one, with two signs after each: Unicode 17 lists none of more than four with one, and without
# bounds one message makes one cell.
_SEQUENCE: Final = re.compile(
    rf"[{_INDICATORS}]{{2}}|[0-9#*]\ufe0f\u20e3|{_PART}(?:\u200d{_PART}){{0,9}}|[{_TONES}][\ufe0f{_TONES}]*"
)
_STAND_IN: Final = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + MAX_WHOLE - 1)}]")
_LETTERS: Final = {0x1F1E6 + n: chr(ord("A") + n) for n in range(26)}  # of regional indicators

# What our own lines and signs are where characters of ambiguous width (UAX #11) take two columns: they are placed as if
# each took one, and an ASCII character does.
_NARROW: Final = dict.fromkeys(range(0x2500, 0x2580), "+") | {
    **dict.fromkeys(map(ord, "─━┄┈╌═╴╶"), "-"),
    **dict.fromkeys(map(ord, "│┃┆┊╎║╵╷▌▎▏"), "|"),
    **{ord(char): narrow for char, narrow in zip("…·•●○◐◆▶◀▲▼", "..**o%+><^v", strict=True)},
}

_narrowed: dict[int, str] = {}  # ``_NARROW`` once it is needed
_whole: set[str] = set()  # the kinds that show whole
_stand_ins: dict[str, str] = {}  # by sequence
_sequences: list[str] = []  # by stand-in


def show_whole(kinds: Collection[str]) -> None:
    """Show these kinds of ``SAMPLES`` whole from now on, and the others reduced."""
    _whole.clear()
    _whole.update(kinds)


def widen() -> None:
    """Count characters of ambiguous width as two columns from now on, and write our own signs in ASCII."""
    _narrowed.update(_NARROW)
    for char in map(chr, (*range(0xA1, 0x3000), 0xFFFD)):
        if wcwidth(char) == 1 and wcwidth(char, ambiguous_width=2) == 2 and ord(char) not in _NARROW:
            getattr(utils, "_CHAR_SIZES_CACHE", {})[char] = 2


def fit(text: str) -> str:
    """Return a visible text whose emoji of several code points take as many columns as are counted for them."""
    return _SEQUENCE.sub(_fitted, text).translate(_LETTERS) if _HINT.search(text) else text


def pieces(text: str) -> list[str]:
    """Return what shows of each character of a text: together they are the fitted text."""
    shown = list(text)
    if _HINT.search(text):
        for match in _SEQUENCE.finditer(text):
            begin, end = match.span()
            shown[begin:end] = [*_fitted(match), *[""] * (end - begin)][: end - begin]
    return shown


def spell_out(text: str) -> str:
    """Return what a terminal is sent for a fitted text."""
    if _narrowed and not text.isascii():
        text = text.translate(_narrowed)
    return _STAND_IN.sub(lambda char: _sequences[ord(char[0]) - _FIRST], text) if _sequences else text


def _fitted(match: re.Match[str]) -> str:
    sequence = match[0]
    if _is_tone(sequence[0]) and match.string[match.start() - 1 : match.start()].strip():
        return ""  # a terminal draws it into what stands before it
    if "\u200d" in sequence and "family" not in _whole:
        sequence = sequence.partition("\u200d")[0]
    if len(sequence) > 1 and _shows_whole(sequence):
        char = _stand_ins.get(sequence) or _stand_in(sequence)
        if char:
            return char
    if sequence[-1] == "\u20e3":
        return sequence.replace("\ufe0f", "")
    return sequence.translate(_LETTERS) if ord(sequence[0]) in _LETTERS else sequence[0]


def _shows_whole(sequence: str) -> bool:
    """Whether the terminal can do all that is in it. Some join, but neither know tones nor ever widen a cell."""
    if sequence[-1] == "\u20e3":
        return "keycap" in _whole
    if ord(sequence[0]) in _LETTERS:
        return "flag" in _whole
    needed = {"family"} if "\u200d" in sequence else set()
    if any(map(_is_tone, sequence[1:])):
        needed.add("tone")
    if utils.get_cwidth(sequence[0]) < 2:
        needed.add("variant")
    return bool(needed) and needed <= _whole  # VS16 alone adds nothing to what is a picture already


def _is_tone(char: str) -> bool:
    return "\U0001f3fb" <= char <= "\U0001f3ff"


def _stand_in(sequence: str) -> str:
    """Return a new stand-in, "" if there are no more, or if terminals draw the sequence in another width."""
    if len(_sequences) == MAX_WHOLE or wcswidth(sequence) != 2:
        return ""
    char = _stand_ins[sequence] = chr(_FIRST + len(_sequences))
    getattr(utils, "_CHAR_SIZES_CACHE", {})[char] = 2
    _sequences.append(sequence)
    return char
