"""Text is cut into rows that fit, and is as wide as it is drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import iter_graphemes

from chat.ui.fullscreen.wrapping import between_graphemes, clip, columns, sanitize, wrap

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("the quick brown fox", 10, ["the quick ", "brown fox"]),
        ("the quick", 9, ["the quick"]),
        ("exactly10! next", 10, ["exactly10!", "next"]),  # the space at the edge is not a row's beginning
        ("supercalifragilistic", 8, ["supercal", "ifragili", "stic"]),
        ("你好世界你好", 5, ["你好", "世界", "你好"]),
        ("你好世，界", 6, ["你好", "世，界"]),  # noqa: RUF001 - no row begins with a comma
        ("abc你好", 4, ["abc", "你好"]),
        ("a\n\n b", 5, ["a", "", " b"]),
        ("", 5, [""]),
        ("e\u0301" * 4, 2, ["e\u0301" * 2] * 2),
        ("x\u1161你,bcdefghij", 10, ["x\u1161", "你,bcdefgh", "ij"]),  # a letter of no width
        ("\u1161你,bcdefghij", 10, ["\u1161", "你,bcdefgh", "ij"]),
        ("\u1100" * 4, 4, ["\u1100" * 2] * 2),  # one grapheme without end is cut all the same
    ],
)
def test_wrapping(text: str, width: int, expected: list[str]) -> None:
    assert wrap(text, width) == expected


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("exactly", 7, "exactly"),
        ("too long", 7, "too lo…"),
        ("你好吗", 5, "你好…"),
        ("你好吗", 4, "你…"),
        ("你好吗", 2, "…"),
        ("one\ntwo", 7, "one⏎two"),
    ],
)
def test_clipping(text: str, width: int, expected: str) -> None:
    assert clip(text, width) == expected


@given(st.text(max_size=200), st.integers(2, 40))
def test_rows_fit_and_hold_everything_but_spaces_at_their_ends(text: str, width: int) -> None:
    text = sanitize(text)
    made = wrap(text, width)
    assert all(columns(row) <= width for row in made)
    assert "".join(made).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert columns(clip(text, width)) <= width


@pytest.mark.parametrize(
    ("text", "expected", "width"),
    [
        (FAMILY, "👨", 2),
        ("\U0001f1e8\U0001f1f3", "CN", 2),
        ("❤\ufe0f", "❤", 1),
        ("👍🏽", "👍", 2),
        ("☝\ufe0f🏽", "☝", 1),
        ("🏽", "🏽", 2),  # alone it is a picture of its own
        ("1\ufe0f\u20e3", "1\u20e3", 1),
        ("你好", "你好", 4),
        ("क्‍ष", "क्‍ष", 2),  # between letters a joiner does visible work
    ],
)
def test_emoji_are_shown_in_as_many_columns_as_prompt_toolkit_counts(text: str, expected: str, width: int) -> None:
    assert sanitize(text) == expected
    assert columns(expected) == width


@given(st.text("ab ", max_size=80), st.integers(1, 12))
def test_ascii_is_cut_where_other_letters_of_one_column_are(text: str, width: int) -> None:
    other = text.replace("a", "é").replace("b", "ö")
    assert [row.replace("é", "a").replace("ö", "b") for row in wrap(other, width)] == wrap(text, width)
    assert clip(other, width).replace("é", "a").replace("ö", "b") == clip(text, width)


@given(st.text(st.sampled_from("a\n é你🇩🇪👨👩\u200d\ufe0f\U0001f3fe\u0301कि\u094d\u1100\u1161"), max_size=60))
def test_a_place_within_a_grapheme_is_moved_to_its_beginning_or_its_end(text: str) -> None:
    borders = [0]
    for grapheme in iter_graphemes(text):
        borders.append(borders[-1] + len(grapheme))
    for at in range(len(text) + 1):
        assert between_graphemes(text, at, before=True) == max(n for n in borders if n <= at)
        assert between_graphemes(text, at, before=False) == min(n for n in borders if n >= at)
