"""The one place where text from a peer becomes visible, and where names are judged.

The wire, the store and NDJSON keep the exact text. Everything that a person reads goes through
``visible`` first: messages, nicknames, errors that quote a peer, ``chat log``. Rules:

1. What comes out moves no cursor, changes no colour, sets no title and reverses no text. A terminal
   obeys C0 and C1 controls (ECMA-48: U+009B is CSI, U+009D is OSC), so each is shown as a symbol
   instead, and the sender is seen to have sent it.
2. Invisible characters are dropped: texts that look the same should be the same, and one text could hide in another.
   They stay only where they do visible work: between the parts of an emoji, and between Arabic or Indic letters,
   which they join or keep apart.
3. What has no agreed look (private use, surrogates, noncharacters, empty planes) becomes U+FFFD.
4. A base carries at most eight combining marks, and none begins a line: marks draw over what is beside
   them, which may not be theirs.
5. Showing what was shown already changes nothing. Time is linear in the length, whatever the text.

The sets are listed here, as of Unicode 18, and do not come from ``unicodedata``: a message must look the same under
every Python. Only the list of marks comes from there.

Names (nicknames, names of rooms) are narrower: letters, marks, digits and ``-_.``, in NFKC, in one
script or in a mixture that people write (Unicode Technical Standard 39, section 5.2, "highly
restrictive"). So no name means anything to a shell, in a path or in a style string.

Left out: Script_Extensions, so a mark that several scripts share may follow a letter of any script; and
the Identifier_Status table, so rare scripts are as good as common ones.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

from chat.core.errors import Text, WrongValue

MAX_NAME_COLUMNS: Final = 32  # of a terminal
MAX_NAME_BYTES: Final = 64  # of UTF-8
MAX_QUOTED: Final = 200  # characters of a peer's text in an error, a notice or a log

_MAX_MARKS: Final = 8  # on one base in text; Hebrew with points and accents needs about four
_MAX_NAME_MARKS: Final = 4  # on one base in a name (UTS 39, section 5.4)
_MAX_RAW_NAME: Final = 256  # characters before normalising, which takes quadratic time on a run of marks
_TAB: Final = "    "  # of fixed width: the column, which a tab stop would need, is not known here

# Insides of classes of regular expressions.
_CONTROLS: Final = r"\x00-\x09\x0b-\x1f\x7f-\x9f"
_SEPARATORS: Final = r"\u2028\u2029"  # a line break to some programs, nothing to a terminal
_BLANK: Final = r"\u2800"  # the empty braille cell, which pads drawings made of braille
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
_JOINERS: Final = r"\u200c\u200d\ufe0f"  # ZWNJ, ZWJ, VS16: dropped or kept by what stands beside them
# Extended_Pictographic (UTS 51) and, in the last range, skin tones and regional indicators.
_PICTURES: Final = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3"
    r"\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685"
    r"\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e"
    r"\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c"
    r"\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
# From Arabic to Sinhala, Myanmar, Khmer: letters and vowel signs whose shape depends on a joiner.
_JOINING: Final = r"\u0620-\u0dff\u1000-\u109f\u1780-\u17ff"
# Conjoining vowels and finals of Hangul: letters to Unicode, drawn in the cell of what precedes them.
_JAMO: Final = r"\u1160-\u11ff\ud7b0-\ud7fb"

_SUSPECT: Final = re.compile(f"[{_CONTROLS}{_SEPARATORS}{_BLANK}{_FOREIGN}{_INVISIBLE}{_JOINERS}]")
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
_SEPARATOR: Final = re.compile(f"[{_SEPARATORS}]")
_UNSHOWABLE: Final = re.compile(f"[{_FOREIGN}]")
_HIDDEN: Final = re.compile(f"[{_INVISIBLE}]")
_JOINER: Final = re.compile(  # one that stays is in group 1
    rf"(\ufe0f(?<=[{_PICTURES}]\ufe0f)"  # a picture, please, not the text symbol
    rf"|\ufe0f(?<=[0-9#*]\ufe0f)(?=\u20e3)"  # a keycap
    rf"|\u200d(?<=[{_PICTURES}]\u200d)(?=[{_PICTURES}])"  # woman, ZWJ, rocket: an astronaut
    rf"|\u200d(?<=[{_PICTURES}]\ufe0f\u200d)(?=[{_PICTURES}])"
    rf"|[\u200c\u200d](?<=[{_JOINING}].)(?<!\d.)(?=[{_JOINING}])(?!\d))"
    rf"|[{_JOINERS}]"
)
# Where there may be too many marks on a base, and one without a base. The re module has no class for marks,
# but every mark is \W; ``_combines`` tells them from the rest.
_JAMO_LETTER: Final = re.compile(f"[{_JAMO}]")
_PILE: Final = re.compile(rf"[\W{_JAMO}]{{{_MAX_MARKS + 1},}}")
_LINE_START: Final = re.compile(rf"^(?![\x00-\x7f])[\W{_JAMO}]", re.MULTILINE)

# First and last of letters written without spaces between words, or (Korean) with endings set to the name.
_UNSPACED: Final = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1100", "\u11ff"),  # Hangul
    ("\u1780", "\u17ff"),  # Khmer
    ("\u2e80", "\u9fff"),  # kana, Han
    ("\uac00", "\ud7ff"),  # Hangul
    ("\uf900", "\ufaff"),  # Han
    ("\U00020000", "\U0003ffff"),  # Han
)
_MIXTURES: Final = (  # besides a single script: UTS 39, section 5.2
    {"LATIN", "HAN", "HIRAGANA", "KATAKANA"},
    {"LATIN", "HAN", "BOPOMOFO"},
    {"LATIN", "HAN", "HANGUL"},
)
# Letters that Unicode counts to no script. Others of them (tatweel, tone letters, musical signs) are refused.
_SHARED: Final = {"\u30fc": "KATAKANA", "\u3006": "HAN", "\u02bb": "", "\u02bc": ""}


def visible(text: str, *, lines: bool = True) -> str:
    """Return what of ``text`` may be shown on a terminal.

    ``lines=False`` is for places that hold one line (an error, a list of nicknames): line breaks become
    U+23CE. What becomes of the rest:

    ========================================  =====================================================
    U+0000 to U+001F, U+007F                  their pictures, U+2400 to U+2421
    newline, CR LF, U+2028, U+2029            a newline; the last two because they mean a line break
    tab                                       four spaces
    U+0080 to U+009F                          in hexadecimal, as ``<9b>``
    surrogates, private use, noncharacters    U+FFFD; and for the empty planes 4 to 13
    format characters, fillers, tags          nothing
    variation selectors but VS16              nothing
    ZWJ, VS16                                 themselves inside emoji
    ZWJ, ZWNJ                                 themselves between Arabic or Indic letters
    ZWJ, ZWNJ, VS16 elsewhere                 nothing
    U+2800                                    a space
    ninth and further marks on one base       nothing
    a mark that begins a line                 U+25CC, a dotted circle, and the mark
    ========================================  =====================================================
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
    if suspect:  # and not before: a joiner stays because of its neighbours, so they must be settled
        text = _JOINER.sub(r"\1", text)
    return _LINE_START.sub(_on_base, text)


def quoted(text: str, limit: int = MAX_QUOTED) -> str:
    """Return what of a peer's text is quoted: sanitized, on one line, and cut to ``limit`` characters."""
    shown = visible(text[: limit + 1], lines=False)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def nickname(text: str) -> str:
    """Return ``text`` in NFKC if it may be a nickname; the module's docstring says of what it is made.

    At most 32 columns and 64 bytes of UTF-8, at least one letter or digit, no ``-`` or ``.`` in front.
    Raises ValueError with one line that says what is wrong and what to do.
    """
    return _name(text, Text("nickname"))


def room_name(text: str) -> str:
    """Return ``text`` in NFKC, without the ``#`` that may lead it, if it may name a room.

    The rules are those of ``nickname``, and so is the ValueError.
    """
    return _name(text[1:] if text[:1] in ("#", "\uff03") else text, Text("room name"))


def skeleton(nick: str) -> str:
    """Return a key that is the same for nicknames which people would take for one another.

    After UTS 39, section 4 (the data are those of confusables.txt), with letter case folded. The two
    together make ``I``, ``l``, ``1`` and also ``i`` one letter, since I looks like l and i is a small I;
    so are ``0``, ``O`` and ``o``, and ``m`` and ``rn``. A key that is equal for both cases of a letter can
    follow the look of only one: of the small one if that looks like ASCII, else of the capital (small
    Cyrillic te looks like no Latin letter, capital te does). So this misses names all in capitals with a
    Greek Nu or Upsilon (they look like N and Y, but small ones like v and u); those where capitals of Greek
    and Cyrillic look like each other but like nothing in Latin, such as Gamma and Ghe; and some letters that
    few people can type, such as phonetic small capitals.

    It is not for showing. Newer data may give other keys: after an update, make stored keys again.
    """
    letters = unicodedata.normalize("NFD", nick.casefold())
    return unicodedata.normalize("NFD", "".join(map(_look, letters)))


def mentions(text: str, nick: str) -> bool:
    """Say whether ``text`` addresses ``nick``: by the name as a word of its own, or by an ``@`` and the name.

    Case and width do not matter. A word goes on with a letter, mark or digit, also behind one ``-``, ``.``
    or ``@``: ``tommy``, ``tom-2`` and ``tom@example.org`` are not Tom, nor is the end of ``ann@tom``. After
    an ``@`` the name ends with itself if it or what follows is written without spaces between words: 小明
    is meant in 你好@小明你来.
    """
    text = _caseless(visible(text))  # visible first: to normalise a long run of marks takes quadratic time
    nick = _caseless(nick)
    start = text.find(nick) if nick else -1
    while start >= 0:
        end = start + len(nick)
        after = text[end : end + 2]
        if text[start - 1 : start] == "@":
            before = text[max(0, start - 2) : start - 1]
            begins = _is_unspaced(before) or not _goes_on(before)
            if begins and (_is_unspaced(nick[-1]) or _is_unspaced(after[:1]) or not _goes_on(after)):
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
    """Say whether a terminal draws ``char`` into the cell of what precedes it."""
    return unicodedata.category(char)[0] == "M" or bool(_JAMO_LETTER.match(char))


def _limited(run: re.Match[str]) -> str:
    """Return the run with at most ``_MAX_MARKS`` marks on each base.

    Joiners and VS16 neither count nor part a mark from its base: some of them go afterwards.
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
    _check_size(name, what)
    if not name.isascii():
        _check_scripts(name, what)
    return name


def _not_in_names(char: str, what: Text) -> WrongValue:
    point = f"U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})"
    return WrongValue("a {what} cannot hold {point}; use letters, digits and - _ . only", what=what, point=point)


def _check_size(name: str, what: Text) -> None:
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
        # UTS 39, section 5.3: some look like other digits of another value
        raise WrongValue("the {what} mixes digits of several scripts; use those of one", what=what)


def _look(char: str) -> str:
    """Return what a small letter looks like, as the key of ``skeleton`` writes it."""
    prototypes = _prototypes()
    small, capital = (prototypes.get(form, form) for form in (char, char.upper()))
    look = capital if capital.isascii() and not small.isascii() else small
    # Once more: a capital that was made small has a look of its own (small m is rn), and where the library's
    # pairs left the choice, the parts of a look may have one.
    return "".join(prototypes.get(part, part) for part in look.casefold()).casefold().replace("i", "l")


@cache
def _prototypes() -> dict[str, str]:
    """Return confusables.txt as {character: the one that stands for all that look like it}.

    The library lists each pair under both of its ends and does not say which end is the prototype. But a
    prototype never has a prototype itself, so the pairs form stars: the end with several partners, or of
    several characters, is the prototype. Where both have one, either serves, and the smaller is taken.
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
    """Say whether a word goes on with ``near``, the two characters beside it, the nearer first."""
    char = near[1:] if near[:1] in ("-", ".", "@") else near[:1]
    return char.isalnum() or char == "_" or (char != "" and _combines(char))


def _is_unspaced(char: str) -> bool:
    return any(first <= char <= last for first, last in _UNSPACED)
