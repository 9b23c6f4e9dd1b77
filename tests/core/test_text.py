"""What of a peer's text may be shown, which names are allowed, which look alike, and who is addressed."""

# ruff: noqa: RUF001  letters that look like others are the subject

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import unicodedata

import pyte
import pytest
from confusable_homoglyphs.confusables import confusables_data  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from chat.core.text import mentions, nickname, room_name, skeleton, visible

ZWNJ, ZWJ, VS16 = "\u200c", "\u200d", "\ufe0f"
KEYCAP = "\u20e3"
ACUTE = "\u0301"
SIZE = 1 << 20

# Any text, lone surrogates included, in which what matters here comes often.
TROUBLE = [
    *"\x00\x07\x08\t\n\r\x1b\x7f\x85\x90\x9b\x9c\x9d\xa0\xad #1a-.",
    *"\u0301\u20e3\u034f\u061c\u0628\u0646\u0661\u0915\u094d\u115f\u1160\u1161\u11a8\u17b4\u180b\u2028\u2029",
    *"\u200b\u200c\u200c\u200d\u200d\u200e\u202e\u2066\u2069\u2800\u3164\ufe00\ufe0f\ufe0f\ufeff\uffa0\ufffb",
    *"\ud800\udfff\ue000\ufdd0\ufffe\u2764\u25cc\u4f60\u1100",
    *"\U0001f469\U0001f3fd\U0001f1e8\U000e0041\U000e0100\U000f0000\U0010ffff\U0001d173\U00050000",
]
ANY_TEXT = st.text(st.sampled_from(TROUBLE) | st.characters(exclude_categories=()), max_size=60)

NEVER_SHOWN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # C0 but newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidi controls
    "\u2028\u2029\ud800-\udfff\U000e0000-\U000e0fff]"  # separators, surrogates, tags
)


def marks_in_a_row(text: str) -> int:
    longest = here = 0
    for char in text:
        here = here + 1 if unicodedata.category(char)[0] == "M" else 0
        longest = max(longest, here)
    return longest


# -- visible: what stays as it is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain ASCII: ~`!@#$%^&*()_+-=[]{}|;':\",./<>?\nand a second line\n\n",
        "今天我们讨论一下消息传输的实现，大家觉得怎么样？（第一版）",
        "全角　空格，繁體中文，ㄅㄆㄇ",
        "こんにちは、世界。カタカナとｶﾀｶﾅも「ok」",
        "안녕하세요, 여러분! ㅋㅋㅋ",
        unicodedata.normalize("NFD", "한글 파일 이름"),  # as macOS writes it
        "مرحبا بالعالم، كيف حالك؟ ١٢٣",
        "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ ٱلرَّحِيمِ",
        f"می{ZWNJ}خواهم کتاب{ZWNJ}ها را ببینم",  # Persian needs ZWNJ
        "שָׁלוֹם עוֹלָם",
        "नमस्ते दुनिया, आप कैसे हैं?",
        f"क्{ZWJ}ष और क्{ZWNJ}ष",  # half and full form
        f"ශ්{ZWJ}රී ලංකා",
        "สวัสดีชาวโลก น้ำ กี่ ผู้",
        "Tiếng Việt, čeština, Ελληνικά, русский, ქართული, አማርኛ",
        "e\u0301 e\u0302\u0323 x" + ACUTE * 8,
        "a\u00a0b \u2013 \u2018quoted\u2019 \u2026 \u20ac \u00b1 \u221e",
        "┌──────────────┐\n│ box drawing! │\n└──────────────┘",
        "\ufffc \ufffd",
    ],
)
@pytest.mark.parametrize("lines", [True, False])
def test_the_text_that_people_write_comes_through_unchanged(text: str, lines: bool) -> None:
    assert visible(text, lines=lines) == (text if lines else text.replace("\n", "⏎"))


@pytest.mark.parametrize(
    "emoji",
    [
        "😀",
        "👩\u200d👩\u200d👧\u200d👦",  # a family
        "👩🏽\u200d💻",  # skin tone, profession
        "🧑🏻\u200d🤝\u200d🧑🏿",
        "🤦🏼\u200d♂\ufe0f",
        "🏳\ufe0f\u200d🌈",
        "🏴\u200d☠\ufe0f",
        "👁\ufe0f\u200d🗨\ufe0f",
        "❤\ufe0f\u200d🔥",
        "🐻\u200d❄\ufe0f",
        "☺\ufe0f ✈\ufe0f ©\ufe0f ™\ufe0f ‼\ufe0f ㊗\ufe0f 🅰\ufe0f",
        "🇨🇳🇩🇪🇧🇷",
        "1\ufe0f\u20e3 #\ufe0f\u20e3 *\ufe0f\u20e3",
        "👍🏿👍🏻",
    ],
)
def test_emoji_come_through_unchanged(emoji: str) -> None:
    for text in (emoji, f"看{emoji}!", f"a{emoji}b{emoji}", emoji * 20):
        assert visible(text) == text


# -- visible: what changes ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [c for c in range(0x20) if c not in (0x09, 0x0A)])
def test_a_c0_control_is_shown_as_its_picture(code: int) -> None:
    picture = chr(0x2400 + code)
    # The names agree from one block to the other: the chart is made so.
    assert unicodedata.name(picture).startswith("SYMBOL FOR ")
    assert visible(f"a{chr(code)}b") == f"a{picture}b"


@pytest.mark.parametrize("code", range(0x80, 0xA0))
def test_a_c1_control_is_shown_in_hexadecimal(code: int) -> None:
    assert visible(f"a{chr(code)}b") == f"a<{code:02x}>b"


CHANGES = {
    "del": ("a\x7fb", "a␡b"),
    "tab": ("a\tb", "a    b"),
    "cr lf is one newline": ("a\r\nb", "a\nb"),
    "cr alone would overwrite the line": ("good\rbad", "good␍bad"),
    "cr cr lf": ("a\r\r\nb", "a␍\nb"),
    "cr, something dropped, lf": ("a\r\u200b\nb", "a␍\nb"),
    "vertical tab, form feed": ("a\vb\fc", "a␋b␌c"),
    "line separator": ("a\u2028b", "a\nb"),
    "paragraph separator": ("a\u2029b", "a\nb"),
    "lone high surrogate": ("a\ud83db", "a\ufffdb"),
    "lone low surrogate": ("a\udcffb", "a\ufffdb"),
    "two surrogates are no character": ("\ud83d\ude00", "\ufffd\ufffd"),
    "private use": ("a\ue0a0b\uf8ff", "a\ufffdb\ufffd"),
    "private use planes": ("\U000f0000\U0010fffd", "\ufffd\ufffd"),
    "noncharacters": ("\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0002ffff\U0010ffff", "\ufffd" * 7),
    "right-to-left override": ("evil\u202egpj.exe", "evilgpj.exe"),
    "bidi marks": ("a\u200eb\u200fc\u061cd", "abcd"),
    "bidi embeddings": ("\u202aa\u202bb\u202cc\u202dd\u202e", "abcd"),
    "bidi isolates": ("\u2066a\u2067b\u2068c\u2069", "abc"),
    "zero width space": ("pass\u200bword", "password"),
    "word joiner, byte order mark": ("\ufeffa\u2060b", "ab"),
    "soft hyphen": ("co\xadoperate", "cooperate"),
    "invisible operators": ("f\u2061x\u2062y\u2063z\u2064", "fxyz"),
    "interlinear annotation": ("\ufff9a\ufffab\ufffb", "ab"),
    "musical format": ("a\U0001d173b\U0001d17a", "ab"),
    "tags spell hidden text": ("a\U000e0001\U000e0068\U000e0069\U000e007fb", "ab"),
    "a flag made of tags keeps the flag": ("🏴\U000e0067\U000e0062\U000e007f", "🏴"),
    "variation selectors carry hidden bytes": ("a\ufe00\ufe0e\U000e0100\U000e01efb", "ab"),
    "Mongolian selectors": ("\u1820\u180b\u180e\u180f", "\u1820"),
    "grapheme joiner": ("a\u034fb", "ab"),
    "Hangul fillers": ("a\u115f\u1160\u3164\uffa0b", "ab"),
    "Khmer inherent vowels": ("ក\u17b4\u17b5", "ក"),
    "blank braille": ("\u28ff\u2800\u28ff", "\u28ff \u28ff"),
    # Joiners
    "zwj between Latin letters": ("a\u200db", "ab"),
    "zwnj between Latin letters": ("a\u200cb", "ab"),
    "zwj between Han": ("你\u200d好", "你好"),
    "zwnj at the end of a word": ("می\u200c ", "می "),
    "zwnj at the start": ("\u200cمی", "می"),
    "two zwnj": ("می\u200c\u200cخو", "میخو"),
    "zwj after a hidden character": ("क्\u200b\u200dष", "क्\u200dष"),
    "zwnj between digits": ("١\u200c٢", "١٢"),
    "zwnj between a letter and a digit": ("ن\u200c٢", "ن٢"),
    "zwnj between a digit and a letter": ("١\u200cن", "١ن"),
    "zwj after an emoji": ("👩\u200d", "👩"),
    "zwj before an emoji": ("\u200d👩", "👩"),
    "zwj between an emoji and a letter": ("👩\u200da", "👩a"),
    "two zwj": ("👩\u200d\u200d👩", "👩👩"),
    "zwnj between emoji": ("👩\u200c👩", "👩👩"),
    "vs16 after a letter": ("a\ufe0fb", "ab"),
    "vs16 twice": ("❤\ufe0f\ufe0f", "❤\ufe0f"),
    "vs16 after a digit without keycap": ("1\ufe0f2", "12"),
    "vs16 after the symbol of a line break": ("⏎\ufe0f", "⏎"),
    "vs16 after Han": ("你\ufe0f", "你"),
    # Marks
    "nine marks": ("e" + ACUTE * 9 + "f", "e" + ACUTE * 8 + "f"),
    "marks over two lines": ("e" + ACUTE * 9 + "\nf" + ACUTE * 9, "e" + ACUTE * 8 + "\nf" + ACUTE * 8),
    "marks on two letters": (("e" + ACUTE * 8) * 2, ("e" + ACUTE * 8) * 2),
    "marks on punctuation": ("." + ACUTE * 12 + "!", "." + ACUTE * 8 + "!"),
    "marks parted by joiners": (
        "क" + "\u0951" * 5 + ZWJ + "\u0951" * 5,
        "क" + "\u0951" * 5 + ZWJ + "\u0951" * 3,
    ),
    "marks parted by what is dropped": ("e" + (ACUTE + "\u200b") * 9, "e" + ACUTE * 8),
    "a joiner beside a mark that goes": ("ن" + "\u0651" * 8 + ZWNJ + "\u0651", "ن" + "\u0651" * 8),
    "enclosing marks": ("a" + "\u20dd" * 9, "a" + "\u20dd" * 8),
    "spacing marks": ("क" + "\u093e" * 30, "क" + "\u093e" * 8),
    "jamo that are drawn in one cell": ("\u1100" + "\u1161" * 9 + "\u11a8" * 9, "\u1100" + "\u1161" * 8),
    "a mark without a base": (ACUTE, "◌" + ACUTE),
    "a mark at the start of a line": ("a\n" + ACUTE + "b", "a\n◌" + ACUTE + "b"),
    "a mark behind a joiner at the start": (ZWJ + ACUTE, "◌" + ACUTE),
    "marks after a line separator": ("a\u2028" + ACUTE, "a\n◌" + ACUTE),
    "many marks without a base": (ACUTE * 20, "◌" + ACUTE * 8),
    "a keycap without a key": (VS16 + KEYCAP, "◌" + KEYCAP),
    "a jamo vowel without a consonant": ("\u1161", "◌\u1161"),
}


@pytest.mark.parametrize(("text", "shown"), CHANGES.values(), ids=list(CHANGES))
def test_what_is_shown_instead(text: str, shown: str) -> None:
    assert visible(text) == shown


ESCAPES = {
    "csi colour": ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
    "csi clear the screen": ("\x1b[2J\x1b[H", "␛[2J␛[H"),
    "csi alternate screen": ("\x1b[?1049h", "␛[?1049h"),
    "csi device report, which the terminal types": ("\x1b[6n", "␛[6n"),
    "osc 0 title": ("\x1b]0;pwned\x07", "␛]0;pwned␇"),
    "osc 8 link": ("\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\", "␛]8;;http://x␛\\y␛]8;;␛\\"),
    "osc 52 clipboard": ("\x1b]52;c;cm0gLXJm\x07", "␛]52;c;cm0gLXJm␇"),
    "dcs": ("\x1bPq#0\x1b\\", "␛Pq#0␛\\"),
    "apc": ("\x1b_Ga=T\x1b\\", "␛_Ga=T␛\\"),
    "pm and sos": ("\x1b^x\x1b\\\x1bXy\x1b\\", "␛^x␛\\␛Xy␛\\"),
    "reset": ("\x1bc", "␛c"),
    "c1 csi": ("\x9b31m", "<9b>31m"),
    "c1 osc": ("\x9d0;pwned\x9c", "<9d>0;pwned<9c>"),
    "c1 dcs, apc": ("\x90q\x9c\x9fG\x9c", "<90>q<9c><9f>G<9c>"),
    "c1 next line": ("a\x85b", "a<85>b"),
    "bell": ("\x07", "␇"),
    "backspaces": ("no\x08\x08yes", "no␈␈yes"),
    "shift out": ("\x0eqqq\x0f", "␎qqq␏"),
    "nul": ("a\x00b", "a␀b"),
    "prompt_toolkit's raw pass": ("\x01\x1b[5n\x02", "␁␛[5n␂"),
    "escape in pieces": ("\x1b\u200b[31m", "␛[31m"),
}


@pytest.mark.parametrize(("text", "shown"), ESCAPES.values(), ids=list(ESCAPES))
def test_an_escape_sequence_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text, lines=False) == shown


@pytest.mark.parametrize("name", ESCAPES)
def test_a_terminal_only_moves_right(name: str) -> None:
    screen = pyte.Screen(60, 3)
    stream = pyte.Stream(screen)
    stream.feed("x")
    before = (screen.title, screen.icon_name, set(screen.mode), screen.charset)
    shown = visible(ESCAPES[name][0])
    stream.feed(shown)
    assert (screen.title, screen.icon_name, set(screen.mode), screen.charset) == before
    assert screen.display[0].rstrip() == "x" + shown
    assert (screen.cursor.x, screen.cursor.y) == (1 + wcswidth(shown), 0)
    assert {cell.fg for cell in screen.buffer[0].values()} == {"default"}


def test_that_terminal_does_obey_what_is_not_made_visible() -> None:
    screen = pyte.Screen(60, 3)
    pyte.Stream(screen).feed("\x1b]0;pwned\x07\x9b31mred")
    assert (screen.title, screen.buffer[0][0].fg) == ("pwned", "red")


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\u2029b"])
def test_one_line_places_show_a_line_break_as_a_symbol(text: str) -> None:
    assert visible(text, lines=False) == "a⏎b"
    assert visible("\n" + text, lines=False) == "⏎a⏎b"


# Default_Ignorable_Code_Point (DerivedCoreProperties.txt): what a correct renderer draws as nothing.
IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *(*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)),
    *(*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)),
    *range(0xE0000, 0xE1000),
]


def test_nothing_invisible_stays_between_letters() -> None:
    assert [hex(code) for code in IGNORABLE if visible(f"a{chr(code)}b") != "ab"] == []


def test_every_character_is_shown_or_has_a_reason_not_to_be() -> None:
    """All of Unicode, as this Python knows it: the tables in the module forget nothing and take nothing."""
    ignorable = set(IGNORABLE)
    wrong = []
    for code in (
        *range(0x40000),
        *range(0x40000, 0xE0000, 0xFFF),
        *range(0xE0000, 0xE2000),
        0xF0000,
        0x10FFFF,
    ):
        char = chr(code)
        category = unicodedata.category(char)
        shown = visible("a" + char)
        if category in ("Cc", "Zl", "Zp") or code == 0x2800:
            ok = char not in shown[1:] or char == "\n"
        elif category == "Cf" or code in ignorable:
            ok = shown == "a"
        elif category in ("Cs", "Co") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
            ok = shown == "a\ufffd"
        elif category == "Cn":
            ok = shown in ("a" + char, "a\ufffd", "a")  # perhaps known to a later Python
        else:
            ok = shown == "a" + char
        if not ok:
            wrong.append(f"U+{code:04X} {category}")
    assert wrong == []


@given(ANY_TEXT, st.booleans())
@example("e" + "\u0951" * 8 + "\u0651" + ZWNJ + "ن", True)
@example("👩" + VS16 * 2 + ZWJ + "👩", True)
@example("\n" + ZWJ + ACUTE, True)
@example("\r\u200b\n", False)
def test_whatever_comes(text: str, lines: bool) -> None:
    shown = visible(text, lines=lines)
    assert not NEVER_SHOWN.search(shown)
    assert visible(shown, lines=lines) == shown
    # VS16 is a mark to Unicode, but draws nothing: one may come on top of the eight.
    assert marks_in_a_row(shown.replace(VS16, "").replace(ZWJ, "").replace(ZWNJ, "")) <= 8
    assert not any(unicodedata.category(line[0])[0] == "M" for line in shown.split("\n") if line)
    assert len(shown.splitlines()) == len(shown.split("\n")) - (shown == "" or shown.endswith("\n"))
    if not lines:
        assert "\n" not in shown
    shown.encode()  # is valid UTF-8, or raises
    assert len(shown) <= 4 * len(text) + 1


@pytest.mark.parametrize("piece", [ACUTE, ZWJ, "e" + ACUTE, "👩" + ZWJ], ids=ascii)
def test_a_mebibyte_of_marks_or_joiners_is_dealt_with(piece: str) -> None:
    shown = visible(piece * (SIZE // len(piece)))
    assert marks_in_a_row(shown) <= 8
    assert ZWJ * 2 not in shown


@pytest.mark.parametrize(
    "piece",
    [ACUTE, "\u0301\u0316", VS16, "\u1161", "\u202e", "\x1b[", "\n" + ACUTE, "\r\n", "\ud800"],
    ids=ascii,
)
def test_much_of_anything_is_dealt_with(piece: str) -> None:
    text = piece * (SIZE // 16)
    assert not NEVER_SHOWN.search(visible(text))
    assert not mentions(text, "ann")


def test_a_long_text_of_almost_the_name_is_searched() -> None:
    text = "tom" * (SIZE // 8)
    assert not mentions(text, "tom")
    assert mentions(text + " @tom", "tom")


def test_importing_it_loads_no_table_that_most_commands_do_not_need() -> None:
    program = (
        "import sys, chat.core.text; chat.core.text.visible('你好\\x1b');"
        "print({'wcwidth', 'confusable_homoglyphs', 'asyncio', 'socket'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "set()"


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tom", "tom"),
        ("Tom", "Tom"),
        ("tom-2", "tom-2"),
        ("t.o_m-", "t.o_m-"),
        ("_tom", "_tom"),
        ("42", "42"),
        ("x" * 32, "x" * 32),
        ("小" * 16, "小" * 16),  # 32 columns
        ("小明", "小明"),
        ("小明Tom", "小明Tom"),
        ("山田たろう", "山田たろう"),
        ("山田タロウTom", "山田タロウTom"),
        ("らーめん", "らーめん"),
        ("佐々木", "佐々木"),
        ("ㄅ小Tom", "ㄅ小Tom"),
        ("김小Tom", "김小Tom"),
        ("Дмитрий", "Дмитрий"),
        ("Дима-2", "Дима-2"),
        ("Ελένη", "Ελένη"),
        ("José", "José"),
        ("Nguyễn", "Nguyễn"),
        ("محمد", "محمد"),
        ("दीपिका", "दीपिका"),
        ("สมชาย", "สมชาย"),
        ("דָּוִד", unicodedata.normalize("NFKC", "דָּוִד")),
        ("١٢", "١٢"),
        ("Ka\u02bbahumanu", "Ka\u02bbahumanu"),
        ("ｔｏｍ", "tom"),  # full width
        ("ﬁn", "fin"),  # a ligature
        ("𝓉𝓸𝓶", "tom"),  # mathematical letters
        ("Jose\u0301", "Jos\u00e9"),  # composed
        (unicodedata.normalize("NFD", "한글"), "한글"),
        ("tom²", "tom2"),
        ("Ⅳ", "IV"),
    ],
)
def test_a_name_is_normalised(text: str, name: str) -> None:
    assert nickname(text) == name
    assert room_name(text) == name
    assert room_name("#" + text) == name
    assert room_name("＃" + text) == name


REFUSED = {
    "nothing": ("", "is empty"),
    "a space": ("a b", r"U\+0020 \(space\)"),
    "space in front": (" tom", r"U\+0020"),
    "ideographic space": ("小　明", r"U\+0020"),
    "newline": ("a\nb", r"U\+000A"),
    "escape": ("\x1b[31m", r"U\+001B"),
    "c1": ("a\x9b", r"U\+009B"),
    "command substitution": ("$(reboot)", r"U\+0024 \(dollar sign\)"),
    "backticks": ("`reboot`", r"U\+0060"),
    "single quote": ("o'neil", r"U\+0027"),
    "double quote": ('"tom"', r"U\+0022"),
    "semicolon": ("a;b", r"U\+003B"),
    "path": ("../tom", r"U\+002F"),
    "slash": ("a/b", r"U\+002F"),
    "full width slash": ("a／b", r"U\+002F"),
    "backslash": ("a\\b", r"U\+005C"),
    "parent folder": ("..", "begins with"),
    "hidden file": (".tom", "begins with"),
    "an option": ("-rf", "begins with"),
    "full width hyphen in front": ("－rf", "begins with"),
    "one dot leader": ("\u2024tom", "begins with"),
    "a sentence's dots": ("\u2026", "begins with"),
    "style string": ("class:x", r"U\+003A"),
    "mention": ("@tom", r"U\+0040"),
    "two signs": ("##tom", r"U\+0023"),
    "emoji": ("tom😀", r"U\+1F600"),
    "a mark in front": (ACUTE + "tom", "begins with"),
    "an underscore": ("_", "no letter"),
    "five marks": ("x" + ACUTE * 5, "more than 4 marks"),
    "zwj": ("to\u200dm", r"U\+200D"),
    "zero width space": ("to\u200bm", r"U\+200B"),
    "right-to-left override": ("to\u202em", r"U\+202E"),
    "selector": ("tom\ufe0f", r"U\+FE0F"),
    "grapheme joiner": ("to\u034fm", r"U\+034F"),
    "tag": ("tom\U000e0041", r"U\+E0041"),
    "Hangul filler": ("\u3164", r"U\+1160"),
    "half width filler": ("\uffa0", r"U\+1160"),
    "jamo without a cell": ("tom\u1161", r"U\+1161"),
    "surrogate": ("tom\ud800", r"U\+D800"),
    "private use": ("tom\ue000", r"U\+E000"),
    "unassigned": ("tom\u0378", r"U\+0378"),
    "braille blank": ("\u2800", r"U\+2800"),
    "tatweel": ("محـمد", r"U\+0640"),
    "33 columns": ("x" * 33, "33 columns wide and 33 bytes"),
    "34 columns": ("小" * 17, "34 columns wide and 51 bytes"),
    "66 bytes": ("क" * 22, "22 columns wide and 66 bytes"),
    "much too long": ("x" * 100_000, "100000 characters"),
    "a long run of marks": ("x" + "\u0301\u0316" * SIZE, "2097153 characters"),
    "Latin and Cyrillic": ("Tоm", "mixes cyrillic and latin"),
    "Latin and Greek": ("Tοm", "mixes greek and latin"),
    "Cyrillic and Han": ("Дима小", "mixes cyrillic and han"),
    "Latin and Arabic digits": ("tom٣", "mixes arabic and latin"),
    "Hangul and kana": ("김たろう", "mixes hangul and hiragana"),
    "bopomofo and kana": ("ㄅた", "mixes bopomofo and hiragana"),
    "bopomofo and Hangul": ("ㄅ김小", "mixes bopomofo and han and hangul"),
    "two sorts of digits": ("1٣", "mixes digits"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=list(REFUSED))
def test_a_name_is_refused_in_one_line(text: str, why: str) -> None:
    for judge, what in ((nickname, "nickname"), (room_name, "room name")):
        with pytest.raises(ValueError, match=why) as caught:
            judge("#" + text if judge is room_name else text)
        line = str(caught.value)
        assert line.startswith((f"the {what} ", f"a {what} "))
        assert line.isascii()
        assert line.isprintable()
        assert "; " in line  # what to do
        assert len(line) < 150


def test_only_a_room_may_have_a_sign_in_front() -> None:
    with pytest.raises(ValueError, match=r"U\+0023 \(number sign\)"):
        nickname("#tom")
    with pytest.raises(ValueError, match="the room name is empty"):
        room_name("#")


NAME_CHARACTERS = st.characters() | st.sampled_from("abO0l1-_.éß小明たカーㄅ김дТοΣقمد\u0941١٢\u0301ﬁ２\u1161")


@given(st.text(NAME_CHARACTERS, max_size=40) | st.text("ab1小明", min_size=14, max_size=40) | ANY_TEXT)
def test_a_name_that_is_allowed_is_harmless(text: str) -> None:
    try:
        name = nickname(text)
    except ValueError:
        return
    assert nickname(name) == room_name(name) == name
    assert visible(name, lines=False) == name
    assert len(name.encode()) <= 64
    assert 1 <= wcswidth(name) <= 32
    assert name[0] not in "-.#"
    assert name.isprintable()
    assert not set(name) & set(" /\\:;,'\"`$(){}[]<>|&*?!~#@%^=+\n")
    if name.isascii():
        assert shlex.quote(name) == name
    assert skeleton(name) == skeleton(name.casefold())
    assert skeleton(name)


# -- look-alikes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann", "ann"),
        ("ANN", "ann"),
        ("Straße", "STRASSE"),
        ("Том", "ТОМ"),
        ("Σωκράτης", "ΣΩΚΡΆΤΗΣ"),
        ("Tom", "Тоm"),  # Cyrillic T and o
        ("TOM", "ТОМ"),  # all Cyrillic
        ("tom", "ТОМ"),
        ("BOB", "ВОВ"),
        ("paypal", "раураl"),
        ("scope", "ѕсоре"),
        ("omo", "ομο"),  # Greek
        ("XAOC", "ΧΑΟϹ"),
        ("b0b", "bob"),
        ("B0B", "bob"),
        ("Iris", "lris"),
        ("Iris", "iris"),
        ("al", "a1"),
        ("modern", "rnodern"),
        ("søren", "so\u0338ren"),  # a letter, a letter and a stroke
        ("Łódź", "L\u0337ódź"),
        ("Tom", "Torn"),
        ("ロ", "口"),  # katakana ro, Han for mouth
        ("ー", "一"),
        ("アベ", "アべ"),  # katakana be, hiragana be
    ],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann", "anne"),
        ("tom", "tim"),
        ("tom", "tom-2"),
        ("mary", "maru"),  # one letter if Greek capitals counted as much as small ones
        ("nick", "vick"),
        ("小明", "小朋"),
        ("小明", "晓明"),
        ("Дима", "Дина"),
        ("Jose", "José"),
        ("bob", "6o6"),
        ("あ", "ア"),
        ("김", "김김"),
        ("राम", "रमा"),
    ],
)
def test_names_that_can_be_told_apart_have_two(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


@given(st.text(st.characters(categories=["Ll", "Lu"]), max_size=12))
def test_the_skeleton_is_the_same_for_both_cases(text: str) -> None:
    for other in (text.upper(), text.lower(), text.swapcase()):
        if other.casefold() == text.casefold():
            assert skeleton(other) == skeleton(text)


def test_the_pairs_of_the_library_are_stars() -> None:
    """The module tells prototypes from the rest by that; data of another shape must not go unnoticed."""
    partners = {char: [pair["c"] for pair in pairs] for char, pairs in confusables_data.items()}
    assert len(partners) > 9000
    for char, others in partners.items():
        assert all(char in partners[other] for other in others)
        assert len(others) == 1 or all(len(partners[other]) == 1 for other in others)


def test_nearly_all_of_the_published_pairs_clash_where_case_plays_no_part() -> None:
    """All pairs whose ends have one case only: there the skeleton is that of UTS 39 and misses none."""

    def caseless(text: str) -> bool:
        return (
            text == text.upper() == text.lower() == text.casefold() == unicodedata.normalize("NFD", text)
            and unicodedata.normalize("NFKC", text) == text
        )

    pairs = [
        (one, pair["c"].strip("\u200e"))
        for one, others in ((char.strip("\u200e"), others) for char, others in confusables_data.items())
        for pair in others
    ]
    pairs = [(one, other) for one, other in pairs if caseless(one) and caseless(other)]
    assert len(pairs) > 1000
    assert [f"{one} {other}" for one, other in pairs if skeleton(one) != skeleton(other)] == []


# -- mentions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nick"),
    [
        ("tom", "tom"),
        ("@tom", "tom"),
        ("tom: are you there?", "tom"),
        ("tom, are you there?", "tom"),
        ("ask tom about it", "tom"),
        ("ask @tom about it", "tom"),
        ("hi Tom!", "tom"),
        ("hi TOM.", "Tom"),
        ("is that Tom's?", "tom"),
        ("(tom)", "tom"),
        ("thanks,tom", "tom"),
        ("wait for tom...", "tom"),
        ("@tom.", "tom"),
        ("tom\nhello", "tom"),
        ("tommy and tom", "tom"),
        ("tom-2: hello", "tom-2"),
        ("ask t.o_m", "t.o_m"),
        ("ｔｏｍ：ok", "tom"),  # full width
        ("＠tom", "tom"),
        ("Jose\u0301, ok?", "José"),
        ("to\u200bm?", "tom"),  # as it is seen
        ("小明", "小明"),
        ("小明，你好", "小明"),
        ("小明：你好", "小明"),
        ("你好 小明 再见", "小明"),
        ("@小明", "小明"),
        ("你好@小明你来一下", "小明"),
        ("你好@小明2", "小明"),
        ("问@Tom吧", "Tom"),
        ("@たろうさん", "たろう"),
        ("@민수야 안녕", "민수"),
        ("คุณ@สมชายมา", "สมชาย"),
        ("@राम, सुनो", "राम"),
        ("Дима, привет", "дима"),
        ("ann@tom.org and tom", "tom"),
        ("x" * 100 + " @tom", "tom"),
    ],
)
def test_who_is_addressed(text: str, nick: str) -> None:
    assert mentions(text, nick)


@pytest.mark.parametrize(
    ("text", "nick"),
    [
        ("", "tom"),
        ("hello", "tom"),
        ("tommy", "tom"),
        ("atom", "tom"),
        ("@tommy", "tom"),
        ("@tom_2", "tom"),
        ("@tom-2 hello", "tom"),
        ("@tom.smith", "tom"),
        ("tom2", "tom"),
        ("jean-tom", "tom"),
        ("tom-smith", "tom"),
        ("www.tom.org", "tom"),
        ("ann@tom.org", "tom"),
        ("ann@tom", "tom"),
        ("tom@example.org", "tom"),
        ("_tom_", "tom"),
        ("to m", "tom"),
        ("tom" + ACUTE, "tom"),
        ("рассказом", "том"),
        ("小明你来", "小明"),  # without @, a name in running text is not a word of its own
        ("今天小明来", "小明"),
        ("रामा", "राम"),  # a vowel sign makes it another word
        ("@रामा", "राम"),
        ("tom", ""),
        ("@", ""),
    ],
)
def test_who_is_not(text: str, nick: str) -> None:
    assert not mentions(text, nick)


@given(ANY_TEXT, st.sampled_from(["tom", "小明", "t-1", "राम"]))
def test_an_at_sign_and_spaces_always_address(text: str, nick: str) -> None:
    assert mentions(f"{text} @{nick} {text}", nick)
    assert isinstance(mentions(text, nick), bool)
