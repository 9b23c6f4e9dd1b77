"""Short names of emoji: ``:tada:`` becomes 🎉 in what is typed, and a few letters find the name.

Rules:

1. Only the author's own text is expanded, before it is sent. What others sent is shown as they sent it.
2. A name stands alone: no ASCII letter, digit or colon touches its colons, but names may follow each other. So times
   (12:100:30), paths of C++ (std::key::x) and addresses (fe80::100:1) stay as they are.
3. Code stays as it is: what stands between two runs of as many backticks, and a fence that is never closed.
4. An unknown name stays as it is.

The names are those of the ``emoji`` package: GitHub's and Unicode's, in English and in Chinese. It is loaded at the
first question, which takes 60 ms.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from chat.core.text import quoted
from chat.i18n import _

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = re.compile(r":([\w+-]+):")
_ALONE: Final = r"(?<![A-Za-z0-9_:])(?::{}+:)+(?![A-Za-z0-9_:])"
# English names go first: in "结论:同意:+1:" the colon of a sentence must not take the one of a name.
_RUNS: Final = (re.compile(_ALONE.format(r"[A-Za-z0-9_+-]")), re.compile(_ALONE.format(r"[\w+-]")))
_BACKTICKS: Final = re.compile(r"(`+)")
_FENCE: Final = 3  # backticks
_WORD: Final = 20  # characters shown of what is not an emoji
_UNWANTED: Final = re.compile("[\U0001f3fb-\U0001f3ff\U000e0000-\U000e007f]")
_MORE: Final = {  # what people type, too, and what the package has another emoji for than GitHub
    "beetle": "🪲",
    "check": "✅",
    "done": "✅",
    "egg": "🥚",
    "haha": "😆",
    "hmm": "🤔",
    "lol": "😂",
    "party": "🥳",
    "simple_smile": "🙂",
    "slight_smile": "🙂",
    "thanks": "🙏",
    "turkey": "🦃",
}
_COMMON: Final = ("thumbsup", "heart", "joy", "tada", "ok", "eyes", "pray", "fire")  # offered before all others


def expand(text: str) -> str:
    """Return ``text`` with emoji for the names in it. Time is linear in the length."""
    if text.count(":") < 2:
        return text
    return "".join(piece if is_code else _expanded(piece) for is_code, piece in _split(text))


def find(name: str) -> str:
    """Return the emoji of a name, with or without its colons, whatever its case; or "" where there is none."""
    return _table().get(name.strip(":").lower(), "")


def reaction(typed: str) -> str:
    """Return the emoji that somebody answers with: typed itself, or as :name:. Raises ValueError: what is wrong."""
    typed = typed.strip()
    if typed.startswith(":") and (found := find(typed)):
        return found
    if _is_picture(typed):
        return typed
    name = typed.strip(":").lower()
    near = [name] if find(name) else [found for found, _picture in complete(name, 1)]
    near = near or difflib.get_close_matches(name[:_WORD], _table(), n=1)
    wanted = _("give an emoji or its name, like :tada:")
    hint = _("did you mean :{name}:?").format(name=near[0]) if near else wanted
    raise ValueError(_("“{word}” is not an emoji; {hint}").format(word=quoted(typed, _WORD), hint=hint))


def _is_picture(text: str) -> bool:
    """Say whether all of it is signs (or of planes that have hardly anything else, and where new ones are added)."""
    if text in _table().values():  # among them digits in a box
        return True
    kinds = ["So" if char >= "\U0001f000" else unicodedata.category(char) for char in text if not char.isascii()]
    return len(kinds) == len(text) and "So" in kinds and {"So", "Sk", "Sm", "Mn", "Me", "Cf"}.issuperset(kinds)


def complete(start: str, limit: int = 30) -> list[tuple[str, str]]:
    """Return at most ``limit`` names and their emoji for what somebody has begun to type.

    First the names that begin so, common ones before others, then those of which a later word does (``cat`` finds
    ``smile_cat``), each by the alphabet. Each emoji is there once. Chinese names have no word breaks.
    """
    start, table = start.lower(), _table()
    inside = "_" + start if start.isascii() else start
    beginning = (name for name in chain(_COMMON, table) if name.startswith(start))
    found: dict[str, str] = {}
    for name in chain(beginning, (name for name in table if start and inside in name)):
        if len(found) == limit:
            break
        found.setdefault(table[name], name)
    return [(name, picture) for picture, name in found.items()]


@cache
def _table() -> dict[str, str]:
    """Return the emoji by their names, by the alphabet."""
    import emoji

    emoji.config.load_language("zh")
    table: dict[str, str] = {}
    for kind in ("alias", "en", "zh"):  # the aliases are GitHub's, which people know: ":cat:" is 🐱, and not 🐈
        for picture, entry in emoji.EMOJI_DATA.items():
            # Without skin tones, which are five times as many, and flags spelt with tags, which ``text`` drops.
            if entry["status"] == emoji.STATUS["fully_qualified"] and not _UNWANTED.search(picture):
                names = entry.get(kind, [])
                for name in [names] if isinstance(names, str) else names:
                    if _NAME.fullmatch(name):
                        table.setdefault(name.strip(":").lower(), picture)
    return dict(sorted((table | _MORE).items()))


def _expanded(text: str) -> str:
    for run in _RUNS[: 1 if text.isascii() else 2]:
        text = run.sub(lambda names: _NAME.sub(lambda name: find(name[1]) or name[0], names[0]), text)
    return text


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the pieces of ``text`` in order, and of each whether it is code (CommonMark 0.31, 4.5 and 6.1)."""
    pieces = _BACKTICKS.split(text)  # the odd ones are runs of backticks
    last = {piece: at for at, piece in enumerate(pieces)}
    at = 0
    while at < len(pieces):
        end, is_code, piece = at, at % 2 == 1, pieces[at]
        if is_code and last[piece] > at:
            end = pieces.index(piece, at + 1)
        elif is_code and len(piece) >= _FENCE:
            before = pieces[at - 1].rpartition("\n")
            if not before[2].strip() and (before[1] or at == 1):  # it begins a line
                end = len(pieces) - 1
        yield is_code, "".join(pieces[at : end + 1])
        at = end + 1
