"""What roles look like: the themes, and the colour of a nickname.

Rules:

1. Styles are made of fixed words only. A nickname has one of six colours, by a hash of its author's key: the same in
   every room and on every day. No text of a peer ever becomes part of a style.
2. ``auto`` is readable on black and on white, since a terminal does not tell which it has. ``dark`` and ``light`` leave
   the terminal's background as it is; ``high-contrast`` brings its own.
3. Colour never stands alone: names are written out, mentions are bold or reversed, links are underlined. Nothing is
   lost without colours, or under ``none``.

Why six colours: each palette is the best six of the 256, by their least distance (CIE 1976, in L*a*b*) as people with
protanopia and deuteranopia see them (Machado, Oliveira and Fernandes 2009): 17 for ``auto``, 36 for ``dark``, 30 for
``light``, 34 for ``high-contrast``. ``auto`` has only 23 to choose from, those with 4 to 1 on black and on white (WCAG
2.2, contrast ratio); with eight colours its distance falls to 11.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

from prompt_toolkit.styles import Style

if TYPE_CHECKING:
    from collections.abc import Mapping

PALETTE: Final = ("#af5f5f", "#875fd7", "#af00ff", "#0087af", "#af5f00", "#d70087")  # of auto: 4 to 1 on both
PALETTES: Final = {
    "auto": PALETTE,
    "dark": ("#ffff00", "#afd7ff", "#af5fff", "#d75f87", "#afffaf", "#d78700"),  # 4.5 to 1 on #1e1e1e
    "light": ("#0000ff", "#005f5f", "#5f0000", "#000087", "#d70000", "#005faf"),  # 4.5 to 1 on white
    "high-contrast": ("#ffff00", "#af87ff", "#ffffaf", "#d78700", "#00af87", "#afd7ff"),  # 7 to 1 on black
    "none": ("",) * len(PALETTE),
}

# In every theme.
_SHAPES: Final = {
    "bar": "reverse",
    "nbsp": "nounderline default",  # prompt_toolkit would underline each no-break space, in yellow
    "bold": "bold",
    "italic": "italic",
    "link": "underline",
    "mention": "bold reverse",
    "lost": "bold reverse",  # a bar without a link
    "unread": "bold",
    "selected": "reverse",
    "hit": "reverse bold",
    "code-keyword": "bold",
}
_ROLES_IN_COLOUR: Final = {  # faint, code and quotes, what stands out, strings, numbers
    "auto": ("#767676", "#0087af", "#d70087", "#af5f00", "#875fd7"),
    "dark": ("#949494", "#87d7ff", "#ffaf00", "#d7af87", "#afafff"),
    "light": ("#626262", "#005f87", "#af005f", "#875f00", "#5f00af"),
    "high-contrast": ("#d0d0d0", "#afffff", "#ffff00", "#ffd7af", "#d7d7ff"),
}
_TERMINALS_WITHOUT_COLOURS: Final = frozenset({"dumb", "vt52", "vt100", "vt102", "vt220", "vt320", "linux-m", "ansi-m"})


def choose(setting: str, environment: Mapping[str, str]) -> str:
    """Return the theme to use. NO_COLOR (no-color.org) and a terminal without colours win over the setting."""
    kind = environment.get("TERM", "dumb")
    if environment.get("NO_COLOR") or kind in _TERMINALS_WITHOUT_COLOURS or kind.endswith("-mono"):
        return "none"
    return setting if setting in PALETTES else "auto"


def roles_of(theme: str) -> dict[str, str]:
    """Return the look of each role under a theme of ``PALETTES``, as prompt_toolkit writes it."""
    looks = dict(_SHAPES)
    looks |= {f"nick{n}": f"{colour} bold".lstrip() for n, colour in enumerate(PALETTES[theme])}
    if theme == "none":
        return looks | {"faint": "", "quote": "italic", "code": ""}
    faint, code, strong, string, number = _ROLES_IN_COLOUR[theme]
    looks |= dict.fromkeys(("faint", "day", "note", "delimiter", "fence", "code-comment"), faint)
    looks |= dict.fromkeys(("code", "quote", "quote-mark", "item-mark"), code)
    looks |= {"code-string": string, "code-number": number, "code-keyword": f"{code} bold"}
    for role in ("unread", "mention", "lost"):
        looks[role] += f" {strong}"
    if theme == "high-contrast":
        looks[""] = "#ffffff bg:#000000"
    return looks


@cache
def style(theme: str) -> Style:
    return Style.from_dict(roles_of(theme))


def nick_style(key: bytes) -> str:
    """Return the style of a nickname."""
    return f"class:nick{crc32(key) % len(PALETTE)}"


@cache
def classes(roles: str) -> str:
    """Return the style of roles with spaces between them. There are few, so all are cached."""
    return " ".join(f"class:{role}" for role in roles.split())
