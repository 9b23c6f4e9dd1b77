"""The themes: contrast, what colour-blind people can tell apart, and which one is chosen."""

from __future__ import annotations

import ast
import itertools
import math
import re
from pathlib import Path

import pytest
from prompt_toolkit.styles import Attrs, default_ui_style, merge_styles

from chat.ui import theme
from chat.ui.theme import PALETTE, PALETTES, choose, classes, nick_style, roles_of
from tests.ui.test_markup import ROLES

COLOURED = [name for name in PALETTES if name != "none"]
BACKGROUNDS = {  # theme: contrast, and on what
    "auto": (4.0, ("#000000", "#ffffff")),
    "dark": (4.5, theme.DARK),
    "light": (4.5, theme.LIGHT),
    "high-contrast": (7.0, ("#000000",)),
}
LEAST_DISTANCE = {"auto": 17, "dark": 37, "light": 31, "high-contrast": 34}

# How people see who lack the cones for red (protanopia) or green (deuteranopia): Machado, Oliveira and Fernandes 2009,
# table for severity 1.0, on linear RGB.
VISION = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


def linear(colour: str) -> tuple[float, ...]:
    parts = (level / 255 for level in bytes.fromhex(colour.removeprefix("#")))
    return tuple(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)


def luminance(colour: str) -> float:  # WCAG 2.2, relative luminance
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def lab(rgb: tuple[float, ...]) -> tuple[float, float, float]:
    """CIE L*a*b* under D65, of linear RGB."""
    rows = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    white = (0.95047, 1.0, 1.08883)
    x, y, z = (
        sum(a * b for a, b in zip(row, rgb, strict=True)) / whole for row, whole in zip(rows, white, strict=True)
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen(colour: str, vision: str) -> tuple[float, float, float]:
    rgb = linear(colour)
    return lab(tuple(min(1, max(0, sum(a * b for a, b in zip(row, rgb, strict=True)))) for row in VISION[vision]))


def attributes(name: str, role: str) -> Attrs:
    found = merge_styles([default_ui_style(), theme.style(name)]).get_attrs_for_style_str(classes(role))
    return found._replace(color="") if found.color == "default" else found


def test_the_yardsticks_are_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the grey that WCAG's papers name
    assert lab(linear("#ff0000")) == pytest.approx((53.24, 80.09, 67.20), abs=0.1)
    red, green = "#af5f00", "#5f8700"  # much the same where the cones for green are lacking
    assert math.dist(seen(red, "all cones"), seen(green, "all cones")) > 40
    assert math.dist(seen(red, "deuteranopia"), seen(green, "deuteranopia")) < 15


@pytest.mark.parametrize("name", COLOURED)
def test_every_colour_can_be_read(name: str) -> None:
    least, backgrounds = BACKGROUNDS[name]
    for role in roles_of(name):
        colour = attributes(name, role).color
        if role and colour:
            for background in backgrounds:
                assert contrast(colour, background) >= least, (role, colour, background)


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("vision", VISION)
def test_names_can_be_told_apart_by_those_who_see_fewer_colours(name: str, vision: str) -> None:
    for one, other in itertools.combinations(PALETTES[name], 2):
        assert math.dist(seen(one, vision), seen(other, vision)) >= LEAST_DISTANCE[name], (one, other)


def test_a_key_has_one_colour_and_keys_have_all_of_them() -> None:
    keys = [bytes([n]) * 32 for n in range(100)]
    assert [nick_style(key) for key in keys] == [nick_style(key) for key in keys]
    assert {nick_style(key) for key in keys} == {f"class:nick{n}" for n in range(len(PALETTE))}
    assert {len(set(PALETTES[name])) for name in COLOURED} == {len(PALETTE)}
    assert nick_style(b"a" * 32) == "class:nick5"  # and tomorrow, too: crc32, not hash()


@pytest.mark.parametrize("name", PALETTES)
def test_what_matters_is_not_said_by_colour_alone(name: str) -> None:
    for role in ("mention", "selected", "hit", "lost"):
        assert attributes(name, role).reverse
    assert attributes(name, "link").underline
    assert attributes(name, "unread").bold
    assert attributes(name, "accent").bold


def test_without_colours_there_are_none() -> None:
    for role in roles_of("none"):
        assert not attributes("none", role).color
        assert not attributes("none", role).bgcolor


@pytest.mark.parametrize("name", COLOURED)
def test_every_role_of_markup_that_is_shown_has_a_look(name: str) -> None:
    plain = attributes(name, "")
    for role in ROLES:
        assert attributes(name, role) != plain, role


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("auto", {"TERM": "xterm-256color"}, "auto"),
        ("light", {"TERM": "xterm-256color"}, "light"),
        ("high-contrast", {"TERM": "screen"}, "high-contrast"),
        ("none", {"TERM": "xterm"}, "none"),
        ("dark", {"TERM": "xterm", "NO_COLOR": "1"}, "none"),
        ("dark", {"TERM": "xterm", "NO_COLOR": ""}, "dark"),
        ("dark", {"TERM": "vt100"}, "none"),
        ("dark", {"TERM": "xterm-mono"}, "none"),
        ("dark", {}, "none"),
        ("no such theme", {"TERM": "xterm"}, "auto"),
    ],
)
def test_which_theme_is_chosen(setting: str, environment: dict[str, str], expected: str) -> None:
    assert choose(setting, environment) == expected


@pytest.mark.parametrize(
    ("background", "expected"),
    [("#000000", "dark"), ("#2e3440", "dark"), ("#808080", "auto"), ("#eee8d5", "light"), ("#ffffff", "light")],
)
def test_a_known_background_decides_what_auto_is(background: str, expected: str) -> None:
    lightness = theme.luminance(*(level / 255 for level in bytes.fromhex(background.removeprefix("#"))))
    assert lightness == pytest.approx(luminance(background))
    assert choose("auto", {"TERM": "xterm-256color"}, lightness) == expected
    assert choose("high-contrast", {"TERM": "xterm-256color"}, lightness) == "high-contrast"
    assert choose("auto", {"TERM": "xterm-256color", "NO_COLOR": "1"}, lightness) == "none"


def test_every_background_of_a_theme_chooses_it() -> None:
    for name, backgrounds in (("dark", theme.DARK), ("light", theme.LIGHT)):
        for background in backgrounds:
            assert choose("auto", {"TERM": "xterm"}, luminance(background)) == name


def test_styles_are_words_of_ours() -> None:
    for name in PALETTES:
        for look in roles_of(name).values():
            assert re.fullmatch(r"((bg:)?#[0-9a-f]{6}|bold|italic|reverse|underline|nounderline|default| )*", look)
    assert classes("bold italic") == "class:bold class:italic"
    assert classes("") == ""


def test_every_role_that_is_drawn_is_in_every_coloured_theme() -> None:
    folder = Path(theme.__file__).parent
    literals = [
        node.value
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    used = {role for text in literals for role in re.findall(r"class:([a-z][a-z0-9-]*)", text)} - {"nick"}
    used |= ROLES | {"dot-ok", "dot-warn", "dot-lost"}  # these are put together
    assert len(used) > 30
    for name in COLOURED:
        assert not used - set(roles_of(name)), name
