"""Light markdown: a text as fragments, each with its roles. Themes say what a role looks like.

    **bold**   *italic*   _italic_   `code`   ```python        > quote     - item     http://…   nickname
                                              a = 1
                                              ```

Rules:

1. The fragments together are the text. Delimiters (asterisks, fences) are fragments of their own, so a face may leave
   them out; what is copied is always the original.
2. What is not well formed stays as typed. A delimiter opens and closes only at the borders of words, so 2*3*4 and
   snake_case_names stay as they are. Only a code block reaches beyond its line.
3. A link is only underlined, and can be read as a whole. No escape sequence (OSC 8) makes a text lead elsewhere.
4. Time is linear in the length of any text: each pass looks at each character a bounded number of times.
5. Roles come from a fixed set, never from a text.

Our own scanner colours comments, strings, numbers and keywords of code. A library's lexers know far more, but take
quadratic time on a malicious text: Pygments needs a second for 4 KiB of empty lines in a block of C or Java.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.core.text import UNSPACED, mentions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Fragment: TypeAlias = tuple[str, str]  # roles, with spaces between them; a part of the text

_MAX_MENTIONS: Final = 100  # in one message: ``mentions`` takes 10 µs for each
_WORD: Final = re.compile(r"\w")
# What may begin something, leftmost first. A URL is ASCII (RFC 3986): Chinese may follow without a space.
_TOKEN: Final = re.compile(
    r"(?P<ticks>`+)|(?P<link>(?<![A-Za-z0-9])(?:https?|chat)://[!#-;=?-\[\]_a-z~]+)|(?P<delimiter>\*+|_+)"
)
_NOT_LAST: Final = ".,;:!?'*_)]"  # in a link
_FENCE: Final = re.compile(r"```[ ]*([A-Za-z0-9+#-]{0,16})[ ]*")
_LOOKS: Final = {"quote-mark>": "▌", "item-mark-": "•", "item-mark*": "•"}
_SIGNS: Final = ("*", "_", "`", "://", "> ", ">\n", "- ")  # without any of these a text has no roles but mentions
_DELIMITERS: Final = {"**": "bold", "*": "italic", "_": "italic"}


def parse(text: str, me: str = "") -> list[list[Fragment]]:
    """Return the fragments of each line of a sanitized text.

    ``me`` is the reader's nickname: its mentions get the role ``mention``.
    """
    lines = text.split("\n")
    if not any(sign in text for sign in _SIGNS) and not (me and me.casefold() in text.casefold()):
        return [[("", line)] for line in lines]  # most messages are a few plain words
    closings = [at for at, line in enumerate(lines) if line.rstrip(" ") == "```"]
    mentioned = _Mentions(me)
    fragments: list[list[Fragment]] = []
    while (at := len(fragments)) < len(lines):
        line = lines[at]
        opening = _FENCE.fullmatch(line)
        after = bisect_right(closings, at + 1)  # a block has at least one line
        if opening and after < len(closings):
            end = closings[after]
            fragments.append([("fence", line)])
            fragments += highlight(lines[at + 1 : end], opening[1])
            fragments.append([("fence", lines[end])])
        elif line.startswith("> ") or line == ">":
            fragments.append([("quote quote-mark", line[:2]), *_inline(line[2:], "quote", mentioned)])
        elif line.startswith(("- ", "* ")):
            fragments.append([("item-mark", line[:2]), *_inline(line[2:], "", mentioned)])
        else:
            fragments.append(_inline(line, "", mentioned))
    return fragments


def without_delimiters(lines: Iterable[list[Fragment]]) -> Iterator[list[Fragment]]:
    """Yield lines as they are shown if the roles can be seen."""
    return (shown(line) for line in lines if line[0][0] != "fence")


def shown(line: list[Fragment]) -> list[Fragment]:
    """Return a line as it is shown if the roles can be seen."""
    return [
        (roles, _LOOKS.get(roles.rpartition(" ")[2] + part[0:1], part[0:1]) + part[1:])
        for roles, part in line
        if roles.rpartition(" ")[2] != "delimiter"
    ]


# -- inside a line ------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """A delimiter, or a piece of a line that holds no others."""

    start: int
    end: int
    role: str  # what a delimiter opens, or "/" and what it closes; else the role of the piece


def _inline(line: str, outer: str, mentioned: _Mentions) -> list[Fragment]:
    """Return the fragments of one line; they all have the role ``outer``."""
    fragments: list[Fragment] = []
    open_roles = [outer] if outer else []
    at = 0
    for start, end, role in (*_parts(line), _Part(len(line), len(line), "")):
        roles = " ".join(open_roles)
        for is_mention, stop in mentioned.pieces(line, at, start):
            if at < stop:
                fragments.append((f"{roles} mention".lstrip() if is_mention else roles, line[at:stop]))
            at = stop
        if role.startswith("/"):
            open_roles.remove(role[1:])
        if role:
            shown = "delimiter" if role.removeprefix("/") in _DELIMITERS.values() else role
            fragments.append((" ".join((*open_roles, shown)), line[start:end]))
        if role in _DELIMITERS.values():
            open_roles.append(role)
        at = end
    return fragments or [(outer, "")]


def _parts(line: str) -> list[_Part]:
    """Find code and links first, from the left; then pairs of delimiters between them, the nearest two."""
    ticks: dict[int, list[int]] = {}  # runs of backticks by their length: where they begin
    for match in re.finditer("`+", line):
        ticks.setdefault(len(match[0]), []).append(match.start())
    parts: list[_Part] = []
    opened: dict[str, int] = {}  # delimiters that may still be closed, and their place in parts
    at = 0
    while token := _TOKEN.search(line, at):
        start, at = token.span()
        if token["ticks"]:
            runs = ticks[at - start]
            after = bisect_right(runs, start)
            if after < len(runs):
                code, end = at, runs[after]
                at = end + code - start
                parts += (_Part(start, code, "delimiter"), _Part(code, end, "code"), _Part(end, at, "delimiter"))
        elif token["link"]:
            at = start + len(_without_end(token["link"]))
            parts.append(_Part(start, at, "link"))
        else:
            _delimiter(line, start, at, parts, opened)
    return [part for part in parts if part.role]


def _delimiter(line: str, start: int, end: int, parts: list[_Part], opened: dict[str, int]) -> None:
    """Let a delimiter close what is open, or else open something."""
    delimiter = line[start:end]
    role = _DELIMITERS.get(delimiter)
    if role is None:
        return
    before, after = line[start - 1 : start], line[end : end + 1]
    if delimiter in opened and before != " " and not _goes_on(after):
        place = opened[delimiter]
        for inner in [name for name, at in opened.items() if at >= place]:  # opened inside and not closed: it is text
            del opened[inner]
        parts[place] = parts[place]._replace(role=role)
        parts.append(_Part(start, end, f"/{role}"))
    elif after not in ("", " ") and not _goes_on(before):
        opened[delimiter] = len(parts)
        parts.append(_Part(start, end, ""))


def _goes_on(char: str) -> bool:
    """Whether a word goes on with this character. Words of Chinese and its like have borders everywhere."""
    return bool(_WORD.match(char)) and not UNSPACED.match(char)


def _without_end(url: str) -> str:
    """Return a URL without the punctuation behind it; a bracket stays if the URL has the other half."""
    end = len(url)
    opened = {")": url.count("("), "]": url.count("[")}
    closed = {")": url.count(")"), "]": url.count("]")}
    while (last := url[end - 1]) in _NOT_LAST:
        if last in opened:
            if closed[last] <= opened[last]:
                break
            closed[last] -= 1
        end -= 1
    return url[:end]


class _Mentions:
    """Where a text mentions the reader."""

    def __init__(self, nick: str) -> None:
        self._nick = nick
        self._pattern = re.compile(f"@?{re.escape(nick)}", re.IGNORECASE) if nick else None
        self._left = _MAX_MENTIONS

    def pieces(self, line: str, start: int, end: int) -> Iterator[tuple[bool, int]]:
        """Yield the ends of the pieces of ``line[start:end]``, and for each whether it is a mention."""
        for match in self._pattern.finditer(line, start, end) if self._pattern else ():
            if self._left <= 0:
                break
            self._left -= 1
            # ``mentions`` looks at two characters on each side, no further.
            if mentions(line[max(0, match.start() - 2) : match.end() + 2], self._nick):
                yield False, match.start()
                yield True, match.end()
        yield False, end


# -- code ---------------------------------------------------------------------------------------------

# Names of languages and what begins a comment that ends with the line; then, indented, the keywords.
_LANGUAGES_TABLE: Final = """
c cpp c++ h java cs c# | //
    auto bool break case catch char class const continue default delete do double else enum extern false float for goto
    if inline int long namespace new nullptr operator private protected public return short signed sizeof static struct
    switch template this throw true try typedef typename union unsigned using virtual void volatile while abstract
    boolean byte extends final finally implements import instanceof interface native null package super synchronized
    throws transient var
js javascript ts typescript jsx tsx | //
    async await break case catch class const continue debugger default delete do else export extends false finally for
    from function if import in instanceof interface let new null of return static super switch this throw true try type
    typeof undefined var void while with yield
py python python3 | #
    False None True and as assert async await break case class continue def del elif else except finally for from
    global if import in is lambda match nonlocal not or pass raise return try while with yield
sh bash shell zsh | #
    case do done elif else esac exit export fi for function if in local read return set shift then unset until while
rs rust | //
    as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut
    pub ref return self Self static struct super trait true type unsafe use where while
go golang | //
    break case chan const continue default defer else fallthrough false for func go goto if import interface map nil
    package range return select struct switch true type var
sql | --
    add all alter and as asc between by case commit create delete desc distinct drop else end exists from group having
    in index insert into is join left like limit not null on or order primary key references rollback select set table
    then union unique update values when where with
rb ruby | #
    alias and begin break case class def do else elsif end ensure false for if in module next nil not or redo require
    rescue retry return self super then true undef unless until when while yield
json |
    true false null
yaml yml toml ini | #
    true false null yes no
"""
_TABLE_ROW: Final = re.compile(r"^(\S.*?) \| ?(.*)\n((?: .*\n)+)", re.MULTILINE)
_LANGUAGES: Final = {
    name: (comment, frozenset(keywords.split() + (keywords.upper().split() if name == "sql" else [])))
    for names, comment, keywords in _TABLE_ROW.findall(_LANGUAGES_TABLE)
    for name in names.split()
}
_SYMBOL: Final = re.compile(r"(?P<word>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<other>[^\w])")
# A string ends on its line; else the quote stands for itself.
_STRINGS: Final = {quote: re.compile(rf"{quote}(?:\\.|[^{quote}\\])*{quote}") for quote in "\"'`"}


def highlight(lines: list[str], language: str) -> Iterator[list[Fragment]]:
    """Yield the fragments of each line of a code block: plain code if the language is unknown."""
    comment, keywords = _LANGUAGES.get(language.casefold(), ("", None))
    for line in lines:
        if keywords is None or not line:
            yield [("code", line)]
            continue
        starts = [(0, "code"), *_symbols(line, comment, keywords), (len(line), "")]
        yield [(roles, line[start:end]) for (start, roles), (end, _) in pairwise(starts) if start < end]


def _symbols(line: str, comment: str, keywords: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Yield where roles begin in a line of code."""
    unclosed = set()  # if a quote is not closed, neither is a later one of its kind
    at = 0
    while symbol := _SYMBOL.match(line, at):
        start, at = symbol.span()
        role, char = "", symbol["other"]
        if symbol["word"] in keywords:
            role = "code-keyword"
        elif symbol["number"]:
            role = "code-number"
        elif comment and line.startswith(comment, start):
            role, at = "code-comment", len(line)
        elif char in _STRINGS and char not in unclosed:
            if string := _STRINGS[char].match(line, start):
                role, at = "code-string", string.end()
            else:
                unclosed.add(char)
        if role:
            yield start, f"code {role}"
            yield at, "code"
