"""chat's own words, in the language of the person who reads them.

    locale/zh.po  ─▶ {"{nick} came": "{nick} 来了", …}  ─▶  _("{nick} came").format(nick=nick)

Rules:

1. Only what stands in this source is translated, so only literals are given to ``_``: never an f-string, and
   never a text from anybody. What varies is put in afterwards, by ``format``.
2. The language is chosen when the first word is spoken: a command that says nothing reads no catalogue. A constant,
   which is made when its module is imported, is marked by ``later`` and given to ``_`` where it is shown.
3. English is in the source, and is what is shown where a translation is missing. NDJSON, all that programs read, and
   what a host writes to its log are English in every language.
4. An error keeps its text apart from its fields (``chat.core.errors``); ``translate`` words it for a reader.
   A host sends codes and fields (``chat.core.codes``), which we phrase: nothing is filled into a text of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from chat.core.errors import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LANGUAGES: Final = ("en", "zh")

_FOLDER: Final = Path(__file__).with_name("locale")
_spoken: dict[str, str] = {}
_chooser: list[Callable[[], str]] = []  # who is asked when the first word is spoken; nobody after that


def use(language: str | Callable[[], str]) -> None:
    """Speak this one of ``LANGUAGES`` from now on, or the one that a function will return at the first word."""
    _spoken.clear()
    _chooser.clear()
    if callable(language):
        _chooser.append(language)
    elif language != "en":
        _spoken.update(catalogue(language))


def language(chosen: str, environ: Mapping[str, str]) -> str:
    """Return which of ``LANGUAGES`` to speak: the chosen one, or for "auto" that of the locale.

    The first variable of LC_ALL, LC_MESSAGES and LANG that is not empty decides (POSIX, XBD 8.2).
    """
    if chosen in LANGUAGES:
        return chosen
    name = next(filter(None, map(environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if name.lower().startswith("zh") else "en"


def _(text: str) -> str:
    """Return ``text`` in the language that is spoken."""
    return _translations().get(text, text)


def current_language() -> str:
    """Return which of ``LANGUAGES`` is spoken."""
    return "zh" if _translations() else "en"


def plural(one: str, many: str, count: int) -> str:
    """Return the form for ``count`` things. Both forms have its placeholder, or only ``many`` does."""
    return _translations().get(one) or (one if count == 1 else many)


def _translations() -> Mapping[str, str]:
    if _chooser:
        use(_chooser.pop()())
    return _spoken


def later(text: str) -> str:
    """Mark a constant for the catalogues, and return it as it is: ``_`` translates it where it is shown."""
    return text


def translate(what: object) -> str:
    """Return what an error, a host's notice or answer, or another ``Text`` says, in the language that is spoken."""
    words = getattr(what, "words", what)
    if not isinstance(words, Text):
        return str(words)
    fields = {name: translate(one) if isinstance(one, Text | Exception) else one for name, one in words.fields.items()}
    return _(words.template).format(**fields) if fields else _(words.template)


def catalogue(language: str) -> dict[str, str]:
    """Return what is translated into a language."""
    text = (_FOLDER / f"{language}.po").read_text("utf-8")
    return {entry["msgid"]: said for entry in entries(text) if (said := translation(entry))}


def translation(entry: Mapping[str, str]) -> str:
    """Return what an entry of a catalogue says, or "" for what is not translated, and for the header."""
    return entry.get("msgstr", "") or entry.get("msgstr[0]", "") if entry["msgid"] else ""


def entries(text: str) -> Iterator[dict[str, str]]:
    """Yield the entries of a .po file, as {keyword: string}. Comments, and entries in comments, are left out.

    Raises ValueError for a line that is none.
    """
    import json  # here: English, which reads no catalogue, needs none of it

    entry: dict[str, str] = {}
    keyword = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        before, quote, rest = line.partition('"')
        word = before.strip()
        if not quote or not (word or keyword):
            raise ValueError(f"line {number} of the catalogue cannot be read: {line}")
        if word == "msgid" and entry:
            yield entry
            entry = {}
        keyword = word or keyword
        entry[keyword] = entry.get(keyword, "") + str(json.loads(quote + rest))  # C's escapes that we use are JSON's
    if entry:
        yield entry
