"""Makes text from peers safe to show, and judges names.

The wire, the store and NDJSON keep the exact text. Everything that people read goes through ``visible`` first:
messages, nicknames, errors that quote a peer, ``chat log``. Rules:

1. Shown text moves no cursor, changes no colour, sets no title and reverses no text. Terminals obey C0 and C1 controls
   (ECMA-48: U+009B is CSI, U+009D is OSC). So C0 and DEL appear as their pictures, U+2400 to U+2421, C1 as ``<9b>``, a
   tab as four spaces, U+2028 and U+2029 as the line breaks that they mean.
2. Invisible characters are dropped: texts that look the same should be the same, and one text could hide in another.
   ZWJ and VS16 stay inside emoji, ZWJ and ZWNJ between Arabic or Indic letters, which they join or separate.
   The empty braille cell becomes a space.
3. Characters without an agreed look (private use, surrogates, noncharacters, empty planes) become U+FFFD.
4. A base keeps its first eight combining marks, and a mark that begins a line gets a dotted circle, U+25CC, as its
   base: marks draw over their neighbours, which may be somebody else's text.
5. ``visible`` changes nothing in its own output, and takes linear time for any text.

The sets are listed here, as of Unicode 18, and not taken from ``unicodedata``: a message must look the same under
every Python. Only the list of marks comes from there.

Names of people and rooms hold only letters, marks, digits and ``-_.``, in NFKC, in one script or in a mixture that
people write (Unicode Technical Standard 39, section 5.2, "highly restrictive"). So no name means anything to a shell,
in a path or in a style string. Two parts of the standard are left out: Script_Extensions, so a mark of several scripts
may follow a letter of any script; and Identifier_Status, so rare scripts are as good as common ones.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Final

from chat.core.errors import Text, WrongValue

# columns of a terminal that a nickname or a room's name takes; then ``nick-invalid``, or exit code 2
MAX_NAME_COLUMNS: Final = 32
MAX_NAME_BYTES: Final = 64  # bytes of a nickname or a room's name, UTF-8; then ``nick-invalid``, or exit code 2
MAX_QUOTED: Final = 200  # characters of a peer's text in an error, a notice or a log; more is cut
RESERVED: Final = (  # nicknames for the owner and the programs of a host only
    *("host", "owner", "operator", "system", "server", "admin", "all", "everyone", "here"),
    *("主机", "主機", "房主", "操作员", "操作員", "系统", "系統", "服务器", "伺服器", "管理员", "管理員"),
    *("所有人", "大家", "全体", "全體"),
)

# marks on one letter in a text (Hebrew with points and accents needs about four); more are not shown
_MAX_MARKS: Final = 8
_MAX_NAME_MARKS: Final = 4  # marks on one letter in a name (UTS 39, section 5.4); then ``nick-invalid``, or exit code 2
_MAX_RAW_NAME: Final = 256  # characters before normalising, which takes quadratic time on a run of marks
_CACHED: Final = 4096  # names that were judged last, of at most 1 KiB each: a host judges each newcomer's a few times
_TAB: Final = "    "  # of fixed width, since tab stops depend on the column, which is not known here

# Insides of classes of regular expressions.
_CONTROLS: Final = r"\x00-\x09\x0b-\x1f\x7f-\x9f"
_SEPARATORS: Final = r"\u2028\u2029"  # a line break to some programs, nothing to a terminal
_BLANK: Final = r"\u2800"  # the empty braille cell, which pads braille drawings
_FOREIGN: Final = (
    r"\ud800-\uf8ff"  # surrogates, private use
    r"\ufdd0-\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0003fffe\U0003ffff"  # noncharacters
    r"\U00040000-\U000dffff\U000e1000-\U0010ffff"  # planes without characters, and for private use
)
_INVISIBLE: Final = (
    # Format characters (Cf); among them bidi controls 061c, 200e-200f, 202a-202e, 2066-2069. A few have ink
    # (Arabic number signs), but enclose what follows, which a grid of cells cannot draw.
    r"\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    # Letters and marks that have no ink: the grapheme joiner, Hangul fillers, Khmer inherent vowels.
    r"\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
    # Variation selectors but VS16, and tags: enough of them to hide a book behind one letter.
    r"\u180b-\u180d\u180f\ufe00-\ufe0e\U000e0000-\U000e0fff"
)
_JOINERS: Final = r"\u200c\u200d\ufe0f"  # ZWNJ, ZWJ, VS16: their neighbours decide whether they stay
# Extended_Pictographic (UTS 51) and, in the last range, skin tones and regional indicators.
PICTURES: Final = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3"
    r"\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685"
    r"\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e"
    r"\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c"
    r"\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
# From Arabic to Sinhala, Myanmar, Khmer: letters and vowel signs whose shape depends on a joiner.
_JOINING: Final = r"\u0620-\u0dff\u1000-\u109f\u1780-\u17ff"
# Conjoining vowels and finals of Hangul: Unicode calls them letters, but they are drawn in the cell before them.
_JAMO: Final = r"\u1160-\u11ff\ud7b0-\ud7fb"

_SUSPECT: Final = re.compile(f"[{_CONTROLS}{_SEPARATORS}{_BLANK}{_FOREIGN}{_INVISIBLE}{_JOINERS}]")
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
_SEPARATOR: Final = re.compile(f"[{_SEPARATORS}]")
_UNSHOWABLE: Final = re.compile(f"[{_FOREIGN}]")
_HIDDEN: Final = re.compile(f"[{_INVISIBLE}]")
_JOINER: Final = re.compile(  # group 1 holds one that stays
    rf"(\ufe0f(?<=[{PICTURES}]\ufe0f)"  # draws a picture instead of the text symbol
    rf"|\ufe0f(?<=[0-9#*]\ufe0f)(?=\u20e3)"  # a keycap
    rf"|\u200d(?<=[{PICTURES}]\u200d)(?=[{PICTURES}])"  # woman, ZWJ, rocket: an astronaut
    rf"|\u200d(?<=[{PICTURES}]\ufe0f\u200d)(?=[{PICTURES}])"
    rf"|[\u200c\u200d](?<=[{_JOINING}].)(?<!\d.)(?=[{_JOINING}])(?!\d))"
    rf"|[{_JOINERS}]"
)
# Candidates for too many marks on a base, and for a mark without one. The re module has no class for marks, but every
# mark is \W; ``_combines`` tells them from the rest.
_JAMO_LETTER: Final = re.compile(f"[{_JAMO}]")
_PILE: Final = re.compile(rf"[\W{_JAMO}]{{{_MAX_MARKS + 1},}}")
_LINE_START: Final = re.compile(rf"^(?![\x00-\x7f])[\W{_JAMO}]", re.MULTILINE)

# Scripts written without spaces between words, or (Korean) with endings set to the name.
UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao; Myanmar; Khmer
    "\u1100-\u11ff\uac00-\ud7ff"  # Hangul
    "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # kana, Han
)
_MIXTURES: Final = (  # besides a single script: UTS 39, section 5.2
    {"LATIN", "HAN", "HIRAGANA", "KATAKANA"},
    {"LATIN", "HAN", "BOPOMOFO"},
    {"LATIN", "HAN", "HANGUL"},
)
# Letters that belong to no script in Unicode. Others (tatweel, tone letters, musical signs) are refused.
_SHARED: Final = {"\u30fc": "KATAKANA", "\u3006": "HAN", "\u02bb": "", "\u02bc": ""}


def visible(text: str, *, lines: bool = True) -> str:
    """Return ``text`` as it may be shown on a terminal, by the rules above.

    ``lines=False`` is for places that hold one line (an error, a list of nicknames): line breaks become U+23CE.
    """
    if text.isascii() and text.isprintable():
        return text
    suspect = _SUSPECT.search(text)
    if suspect:
        text = _CONTROL.sub(_symbol, text.replace("\r\n", "\n"))
        text = _SEPARATOR.sub("\n", text).replace("\u2800", " ")
        text = _HIDDEN.sub("", _UNSHOWABLE.sub("\ufffd", text))
    if not lines:
        text = text.replace("\n", "\u23ce")
    text = _PILE.sub(_limited, text)
    if suspect:  # after everything else, since a joiner's neighbours decide whether it stays
        text = _JOINER.sub(r"\1", text)
    return _LINE_START.sub(_on_base, text)


def quoted(text: str, limit: int = MAX_QUOTED) -> str:
    """Quote a peer's text: sanitized, on one line, and cut to ``limit`` characters."""
    shown = visible(text[: limit + 1], lines=False)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


@lru_cache(_CACHED)
def nickname(text: str) -> str:
    """Return ``text`` in NFKC if it is a valid nickname; the module's docstring names the characters.

    It has at most 32 columns and 64 bytes of UTF-8, at least one letter or digit, and no ``-`` or ``.`` in front.
    Raises WrongValue, one line that says what is wrong and what to do.
    """
    return _name(text, Text("nickname"))


def room_name(text: str) -> str:
    """Return ``text`` in NFKC, without a leading ``#``, if it may name a room. The rules are those of ``nickname``."""
    return _name(text[1:] if text[:1] in ("#", "\uff03") else text, Text("room name"))


@lru_cache(_CACHED)
def skeleton(nick: str) -> str:
    """Return a key that look-alike nicknames share. It is not for showing.

    After UTS 39, section 4 (the data are those of confusables.txt), with letter case folded. Together they unite ``I``,
    ``l``, ``1`` and ``i``; ``0``, ``O`` and ``o``; ``m`` and ``rn``. A letter's two cases share a key, which can follow
    the look of only one: the small one if it looks like ASCII, else the capital. So this misses names all in
    capitals with a Greek Nu or Upsilon (they look like N and Y, the small ones like v and u), Greek and Cyrillic
    capitals that look alike but like nothing in Latin (Gamma and Ghe), and some letters that few people can type.

    Marks of punctuation at either end do not count: ``ann.`` and ``ann_`` look like ``ann``.

    Newer data may give other keys: after an update, make stored keys again.
    """
    letters = unicodedata.normalize("NFD", nick.casefold())
    looks = "".join(map(_look, letters))
    return unicodedata.normalize("NFD", looks.strip("-_.") or looks)


def reserved(nick: str) -> str:
    """Return the reserved nickname that this valid one is, or looks like; "" for none.

    A member of that name could be taken for the room's owner, for the program itself, or for everybody.
    """
    if nick in ("ali", "Ali", "ALI"):  # a common name, although its skeleton is that of ``all``
        return ""
    return _reserved().get(skeleton(nick), "")


@cache
def _reserved() -> dict[str, str]:
    return {skeleton(name): name for name in RESERVED}


def load() -> None:
    """Load the tables that judge names, for a process that may have no descriptor left for them later."""
    _check_scripts("", Text("nickname"))
    _reserved()


def mentions(text: str, nick: str) -> bool:
    """Whether ``text`` addresses ``nick``: the name as a word of its own, or after an ``@``.

    Case and width do not matter. A letter, mark or digit continues a word, also after one ``-``, ``.`` or ``@``:
    ``tommy``, ``tom-2`` and ``tom@example.org`` are not Tom, nor is the end of ``ann@tom``. After an ``@`` the name may
    run into what follows if either is written without spaces between words: 你好@小明你来 addresses 小明.
    """
    text = _caseless(visible(text))  # visible first: normalising a long run of marks takes quadratic time
    nick = _caseless(nick)
    start = text.find(nick) if nick else -1
    while start >= 0:
        end = start + len(nick)
        after = text[end : end + 2]
        if text[start - 1 : start] == "@":
            before = text[max(0, start - 2) : start - 1]
            begins = UNSPACED.match(before) or not _goes_on(before)
            if begins and (UNSPACED.match(nick[-1]) or UNSPACED.match(after) or not _goes_on(after)):
                return True
        elif not _goes_on(text[max(0, start - 2) : start][::-1]) and not _goes_on(after):
            return True
        start = text.find(nick, start + 1)
    return False


# -- what is shown ------------------------------------------------------------------------------------


def _symbol(control: re.Match[str]) -> str:
    code = ord(control[0])
    if code == 0x09:
        return _TAB
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<{code:02x}>"


def _combines(char: str) -> bool:
    """Whether a terminal draws ``char`` into the cell before it."""
    return unicodedata.category(char)[0] == "M" or bool(_JAMO_LETTER.match(char))


def _limited(run: re.Match[str]) -> str:
    """Return the run with at most ``_MAX_MARKS`` marks on each base.

    Joiners and VS16 neither count nor separate a mark from its base: some are dropped later.
    """
    kept = []
    marks = 0
    for char in run[0]:
        if char not in "\u200c\u200d\ufe0f":
            marks = marks + 1 if _combines(char) else 0
        if marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _on_base(start: re.Match[str]) -> str:
    return "\u25cc" + start[0] if _combines(start[0]) else start[0]


# -- names --------------------------------------------------------------------------------------------


def _name(text: str, what: Text) -> str:
    if not text:
        raise WrongValue("the {what} is empty; give one of letters, digits and - _ .", what=what)
    if len(text) > _MAX_RAW_NAME:
        raise WrongValue(
            "the {what} is {count} characters long; use at most {limit}",
            what=what,
            count=len(text),
            limit=MAX_NAME_COLUMNS,
        )
    name = unicodedata.normalize("NFKC", text)
    marks = 0
    for char in name:
        category = unicodedata.category(char)
        known = char in "-_." or category[0] in "LM" or category == "Nd"
        if not known or _SUSPECT.match(char) or _JAMO_LETTER.match(char):
            raise _not_in_names(char, what)
        marks = marks + 1 if category[0] == "M" else 0
        if marks > _MAX_NAME_MARKS:
            raise WrongValue(
                "the {what} has more than {limit} marks on a letter; leave some out", what=what, limit=_MAX_NAME_MARKS
            )
    if name[0] in "-." or unicodedata.category(name[0])[0] == "M":
        raise WrongValue("the {what} begins with a dash, a dot or a mark; begin it with a letter or a digit", what=what)
    if not any(char.isalnum() for char in name):
        raise WrongValue("the {what} has no letter and no digit; add one", what=what)
    from wcwidth import wcswidth  # imported here: it takes 20 to 60 ms, and most commands check no name

    columns, size = wcswidth(name), len(name.encode())
    if columns > MAX_NAME_COLUMNS or size > MAX_NAME_BYTES:
        raise WrongValue(
            "the {what} is {columns} columns wide and {size} bytes long; use at most {limit} columns "
            "and {bytes_limit} bytes",
            what=what,
            columns=columns,
            size=size,
            limit=MAX_NAME_COLUMNS,
            bytes_limit=MAX_NAME_BYTES,
        )
    if not name.isascii():
        _check_scripts(name, what)
    return name


def _not_in_names(char: str, what: Text) -> WrongValue:
    point = f"U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})"
    return WrongValue("a {what} cannot hold {point}; use letters, digits and - _ . only", what=what, point=point)


def _check_scripts(name: str, what: Text) -> None:
    # Imported here: it takes 30 ms, and plain names need none of it.
    from confusable_homoglyphs.categories import alias  # type: ignore[import-untyped]

    scripts = set()
    for char in name:
        script = alias(char)
        if script == "COMMON" and not char.isascii():
            script = _SHARED.get(char, "Unknown")
        if script == "Unknown":
            raise _not_in_names(char, what)
        scripts.add(script)
    scripts -= {"COMMON", "INHERITED", ""}
    if len(scripts) > 1 and not any(scripts <= mixture for mixture in _MIXTURES):
        listed = " and ".join(sorted(scripts)).lower().replace("_", " ")
        raise WrongValue("the {what} mixes {listed} letters; write it in one script", what=what, listed=listed)
    if len({ord(char) - unicodedata.decimal(char) for char in name if char.isdecimal()}) > 1:
        # UTS 39, section 5.3: some look like digits of another value
        raise WrongValue("the {what} mixes digits of several scripts; use those of one", what=what)


def _look(char: str) -> str:
    """Return what a small letter looks like, as the key of ``skeleton`` writes it."""
    prototypes = _prototypes()
    small, capital = (prototypes.get(form, form) for form in (char, char.upper()))
    look = capital if capital.isascii() and not small.isascii() else small
    # A second time: a capital made small has a look of its own (small m is rn), and so may a part where either end of
    # the library's pair could be the prototype.
    return "".join(prototypes.get(part, part) for part in look.casefold()).casefold().replace("i", "l")


@cache
def _prototypes() -> dict[str, str]:
    """Return confusables.txt as {character: the prototype of all that look like it}.

    The library lists each pair under both ends and does not say which is the prototype. But a prototype has no
    prototype itself, so the pairs form stars: the end with several partners, or of several characters, is the
    prototype. If both ends have one partner, either serves, and the smaller is taken.
    """
    # Imported here: it takes 50 ms, and few commands need it.
    from confusable_homoglyphs.confusables import confusables_data  # type: ignore[import-untyped]

    table = {}
    for source, partners in confusables_data.items():
        char = source.strip("\u200e")  # wraps right-to-left characters in the published file
        if len(partners) == 1 and len(char) == 1:
            target = partners[0]["c"]
            prototype = target.strip("\u200e")
            if len(confusables_data[target]) > 1 or len(prototype) > 1 or prototype < char:
                table[char] = prototype
    return table


# -- words --------------------------------------------------------------------------------------------


def _caseless(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _goes_on(near: str) -> bool:
    """Whether a word continues with ``near``, the two characters beside it, the nearer first."""
    char = near[1:] if near[:1] in ("-", ".", "@") else near[:1]
    return char.isalnum() or char == "_" or (char != "" and _combines(char))
