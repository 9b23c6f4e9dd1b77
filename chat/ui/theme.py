"""What roles look like: the themes, and the colour of a nickname.

Rules:

1. Styles are made of fixed words only. A nickname has one of six colours, by a hash of its author's key: the same in
   every room and on every day. No text of a peer ever becomes part of a style.
2. ``auto`` is ``dark`` or ``light`` where the terminal tells its background, and else readable on black and on white.
   ``dark`` and ``light`` leave the background as it is; ``high-contrast`` brings its own.
3. One accent, for what asks for the reader: mentions, unread messages, what is unsent. Greys for what can wait.
4. Colour never stands alone: names are written out, mentions are bold or reversed, links are underlined, the dot of
   the link has a shape of its own for each state. Nothing is lost without colours, or under ``none``.

Contrast (WCAG 2.2): each colour of ``dark`` has 4.5 to 1 on ``DARK``, of ``light`` on ``LIGHT``, of ``high-contrast`` 7
to 1 on black, of ``auto`` 4 to 1 on black and on white: no colour has 4.6 to 1 on both.

Why six colours: each palette is the best six of the 256, by their least distance (CIE 1976, in L*a*b*) as people with
protanopia and deuteranopia see them (Machado, Oliveira and Fernandes 2009): 17 for ``auto``, 37 for ``dark``, 31 for
``light``, 34 for ``high-contrast``. ``auto`` has only 23 to choose from; with eight colours its distance falls to 11.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

from prompt_toolkit.styles import Style

if TYPE_CHECKING:
    from collections.abc import Mapping

# What terminals have behind the text: the plain ones, and those of schemes that many use.
DARK: Final = ("#000000", "#1e1e1e", "#282c34", "#2e3440", "#002b36", "#300a24")
LIGHT: Final = ("#ffffff", "#fafafa", "#fdf6e3", "#eee8d5")
_DARKEST_LIGHT: Final = 0.8  # the luminance of #eee8d5; a background below it is not light
_LIGHTEST_DARK: Final = 0.035  # the luminance of #2e3440; a background above it is not dark

PALETTE: Final = ("#af5f5f", "#875fd7", "#af00ff", "#0087af", "#af5f00", "#d70087")  # of auto
PALETTES: Final = {
    "auto": PALETTE,
    "dark": ("#00afff", "#5faf00", "#ffffaf", "#ffff00", "#d78787", "#5fffff"),
    "light": ("#0000ff", "#875f00", "#00005f", "#005fd7", "#005f5f", "#5f0000"),
    "high-contrast": ("#ffff00", "#af87ff", "#ffffaf", "#d78700", "#00af87", "#afd7ff"),
    "none": ("",) * len(PALETTE),
}

# In every theme.
_SHAPES: Final = {
    "header": "",
    "panel": "",
    "nbsp": "nounderline default",  # prompt_toolkit would underline each no-break space, in yellow
    "bold": "bold",
    "italic": "italic",
    "link": "underline",
    "accent": "bold",
    "badge": "bold",
    "header-room": "bold",
    "heading": "bold",
    "key": "bold",
    "panel-title": "bold",
    "edge": "bold",
    "mention": "bold reverse",
    "lost": "bold reverse",  # where there is no link
    "unread": "bold",
    "selected": "reverse",
    "panel-selected": "reverse",
    "hit": "reverse bold",
    "chip-own": "bold",
    "code-keyword": "bold",
}
_FAINT: Final = ("faint", "rule", "time", "event", "day", "note", "frame", "receipt", "idle", "delimiter", "fence")
_ROLES_IN_COLOUR: Final = {  # faint, quiet, accent, code, strings, numbers; the dot of the link: there, coming, lost
    "auto": ("#767676", "#767676", "#d70087", "#0087af", "#af5f00", "#875fd7", "#008700", "#af5f00", "#d70087"),
    "dark": ("#9e9e9e", "#bcbcbc", "#ffaf00", "#87d7ff", "#d7af87", "#afafff", "#87d787", "#ffd787", "#ff8787"),
    "light": ("#626262", "#4e4e4e", "#af005f", "#005f87", "#875f00", "#5f00af", "#005f00", "#875f00", "#af0000"),
    "high-contrast": (
        *("#d0d0d0", "#e4e4e4", "#ffff00", "#afffff", "#ffd7af", "#d7d7ff"),
        *("#87ff87", "#ffff87", "#ffafaf"),
    ),
}
_TERMINALS_WITHOUT_COLOURS: Final = frozenset({"dumb", "vt52", "vt100", "vt102", "vt220", "vt320", "linux-m", "ansi-m"})


def choose(setting: str, environment: Mapping[str, str], background: float | None = None) -> str:
    """Return the theme to use. NO_COLOR (no-color.org) and a terminal without colours win over the setting.

    ``background``: the relative luminance of the terminal's background (WCAG 2.2), from 0 to 1; None if unknown.
    """
    kind = environment.get("TERM", "dumb")
    if environment.get("NO_COLOR") or kind in _TERMINALS_WITHOUT_COLOURS or kind.endswith("-mono"):
        return "none"
    if setting in PALETTES and setting != "auto":
        return setting
    if background is None or _LIGHTEST_DARK < background < _DARKEST_LIGHT:
        return "auto"
    return "dark" if background <= _LIGHTEST_DARK else "light"


def luminance(red: float, green: float, blue: float) -> float:
    """Return the relative luminance (WCAG 2.2) of a colour whose parts are from 0 to 1 in sRGB."""
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue))
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def roles_of(theme: str) -> dict[str, str]:
    """Return the look of each role under a theme of ``PALETTES``, as prompt_toolkit writes it."""
    looks = dict(_SHAPES)
    looks |= {f"nick{n}": f"{colour} bold".lstrip() for n, colour in enumerate(PALETTES[theme])}
    if theme == "none":
        return looks | {"faint": "", "quote": "italic", "code": ""}
    faint, quiet, accent, code, string, number, there, coming, lost = _ROLES_IN_COLOUR[theme]
    looks |= dict.fromkeys((*_FAINT, "code-comment"), faint)
    looks |= dict.fromkeys(("quiet", "quote", "quote-mark", "chip"), quiet)
    looks |= dict.fromkeys(("code", "item-mark"), code)
    looks |= {"code-string": string, "code-number": number, "code-keyword": f"{code} bold"}
    looks |= {"dot-ok": there, "dot-warn": coming, "dot-lost": lost, "hint": accent}
    for role in ("accent", "unread", "mention", "edge", "chip-own"):
        looks[role] += f" {accent}"
    looks["lost"] += f" {lost}"
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
