"""chat's own texts, in the language of their reader.

    locale/zh.po  ─▶ {"{nick} came": "{nick} 来了", …}  ─▶  _("{nick} came").format(nick=nick)

Rules:

1. Only literals in this source are translated: ``_`` never gets an f-string or somebody's text. What varies is put in
   afterwards, by ``format``.
2. The language is chosen for the first text: a command that says nothing reads no catalogue. A constant, which exists
   before that, is marked by ``later`` and given to ``_`` when it is shown.
3. The source is English, which is shown if a translation is missing. NDJSON, everything else that programs read, and
   a host's log are English in every language.
4. An error keeps its text apart from its fields (``chat.core.errors``); ``translate`` puts them together.
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
_translated: dict[str, str] = {}
_chooser: list[Callable[[], str]] = []  # called once, for the first text


def use(language: str | Callable[[], str]) -> None:
    """Use this one of ``LANGUAGES`` from now on, or the one that a function returns when the first text is needed."""
    _translated.clear()
    _chooser.clear()
    if callable(language):
        _chooser.append(language)
    elif language != "en":
        _translated.update(catalogue(language))


def language(chosen: str, environ: Mapping[str, str]) -> str:
    """Return which of ``LANGUAGES`` to use: the chosen one, or for "auto" that of the locale.

    The first variable of LC_ALL, LC_MESSAGES and LANG that is not empty decides (POSIX, XBD 8.2).
    """
    if chosen in LANGUAGES:
        return chosen
    name = next(filter(None, map(environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if name.lower().startswith("zh") else "en"


def _(text: str) -> str:
    """Return ``text`` in the current language."""
    return _translations().get(text, text)


def current_language() -> str:
    """Return the current one of ``LANGUAGES``."""
    return "zh" if _translations() else "en"


def plural(one: str, many: str, count: int) -> str:
    """Return the form for ``count`` things. Both forms have its placeholder, or only ``many`` does."""
    return _translations().get(one) or (one if count == 1 else many)


def _translations() -> Mapping[str, str]:
    if _chooser:
        use(_chooser.pop()())
    return _translated


def later(text: str) -> str:
    """Mark a constant for the catalogues and return it unchanged: ``_`` translates it when it is shown."""
    return text


def translate(what: object) -> str:
    """Return the text of an error, a host's notice or answer, or another ``Text``, in the current language."""
    words = getattr(what, "words", what)
    if not isinstance(words, Text):
        return str(words)
    fields = {name: translate(one) if isinstance(one, Text | Exception) else one for name, one in words.fields.items()}
    return _(words.template).format(**fields) if fields else _(words.template)


def catalogue(language: str) -> dict[str, str]:
    """Return a language's translations."""
    text = (_FOLDER / f"{language}.po").read_text("utf-8")
    return {entry["msgid"]: said for entry in entries(text) if (said := translation(entry))}


def translation(entry: Mapping[str, str]) -> str:
    """Return the translation in an entry of a catalogue, "" for the header or if there is none."""
    return entry.get("msgstr", "") or entry.get("msgstr[0]", "") if entry["msgid"] else ""


def entries(text: str) -> Iterator[dict[str, str]]:
    """Yield the entries of a .po file as {keyword: string}, without comments. Raises ValueError."""
    import json  # English reads no catalogue

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
