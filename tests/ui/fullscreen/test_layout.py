"""A line is laid out in rows: what belongs to a message is indented below its head."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chat.ui.fullscreen.layout import Line, lay, margin, row_of
from chat.ui.fullscreen.wrapping import columns

CHIPS = (("class:chip", "👍 1"), ("class:chip-own", "[❤ 2]"))


def text_of(line: Line, width: int) -> list[str]:
    wrapped = lay(line, width)
    return ["".join(part[1] for part in row_of(line, wrapped, at)) for at in range(len(wrapped.texts))]


def test_a_message_that_spans_rows_cannot_pass_for_another_ones() -> None:
    for width in range(12, 80):
        for line in (Line("x\nbob│ I did it", "00:00", "ann"), Line("ann x\nbob│ I did it", "00:00", "*")):
            assert all(row.startswith("   ") and row.lstrip()[:2] == "│ " for row in text_of(line, width)[1:])


def test_a_mark_that_does_not_fit_has_a_row_of_its_own() -> None:
    assert text_of(Line("x" * 18, suffix="✓"), 20) == ["x" * 18 + " ✓"]
    assert text_of(Line("x" * 19, suffix="✓"), 20) == ["x" * 19, " ✓"]


@given(st.text("ab *_`>-\n你😀é", max_size=80), st.integers(6, 40), st.booleans(), st.sampled_from(["", "✓✓"]))
def test_every_row_fits_and_none_but_the_first_begins_where_a_name_does(
    text: str, width: int, delimiters: bool, suffix: str
) -> None:
    line = Line(text, "00:00", "somebody", quote="who: what", receipt=suffix, chips=CHIPS, markdown=True, me="a")
    wrapped = lay(line, width, delimiters=delimiters)
    made = [row_of(line, wrapped, at) for at in range(len(wrapped.texts))]
    for row, end in zip(made, wrapped.texts, strict=True):
        whole = "".join(part[1] for part in row)
        assert columns(whole) <= width
        assert whole.endswith(end)
    for row in made[1:]:
        left = margin(line, wrapped, made.index(row))
        assert "".join(part[1] for part in left).rstrip("─ ")[-1] in "│▌├╰"
        assert not "".join(part[1] for part in left[:-1]).strip("▌ ")
    assert wrapped.indent >= 3


@given(st.text("ab *_`>-你😀", max_size=80).map(lambda text: text.strip()), st.integers(2, 20))
def test_markup_is_cut_where_the_plain_text_would_be(text: str, width: int) -> None:
    marked = lay(Line(text, markdown=True), width, delimiters=True)
    if not text.startswith("```"):
        assert marked.texts == lay(Line(text), width).texts


def test_code_stands_in_a_frame_that_is_as_wide_as_its_rows() -> None:
    text = "see\n```python\nreturn kettle\n```\n```\nx\n```"
    line = Line(text, "20:15", "bob", markdown=True)
    assert text_of(line, 60) == [
        " 20:15    bob │ see",
        "              ├─ python ─────",
        "              │ return kettle",
        "              ╰──────────────",
        "              ├───────────",
        "              │ x",
        "              ╰───────────",
    ]
    assert text_of(line, 14) == [
        "bob│ see",
        "   ├─ python ─",
        "   │ return ke",
        "   │ ttle",
        "   ╰──────────",
        "   ├──────────",
        "   │ x",
        "   ╰──────────",
    ]


def test_a_row_that_says_how_much_is_folded_says_less_where_there_is_less_room() -> None:
    line = Line("\n".join("abcdefghijklmnopqrstuvwxyz"), "", "bob", unfolds="Enter")
    last = {width: text_of(line, width)[-1] for width in (30, 20, 12)}
    assert last == {30: "   │ … 21 more · Enter", 20: "   │ … 21 more", 12: "   │ …21"}


def test_names_stand_at_the_right_of_their_column_and_too_wide_ones_are_cut() -> None:
    for name, wide, narrow in (
        ("bob", "          bob │ x", "bob│ x"),
        ("小明", "         小明 │ x", "小…│ x"),
        ("a" * 30, "       aaaaa… │ x", "aa…│ x"),
    ):
        assert text_of(Line("x", "20:15", name, timed=False), 60) == [wide]
        assert text_of(Line("x", "20:15", name, timed=False), 20) == [narrow]
    assert text_of(Line("x", "20:15", "小明", widest=4), 20) == ["小明│ x"]
    assert text_of(Line("x", "20:15", "a" * 30, widest=30), 200) == [" 20:15 aaaaaaaaaaaaaaa… │ x"]


def test_a_line_that_mentions_the_reader_has_a_bar_on_each_row() -> None:
    line = Line("@ann the water is boiling", "20:15", "bob", markdown=True, me="ann")
    assert text_of(line, 40) == ["▌20:15    bob │ @ann the water is ", "▌             │ boiling"]
    assert text_of(line, 20) == ["bob▌ @ann the water ", "   ▌ is boiling"]


def test_chips_are_not_cut_in_two() -> None:
    line = Line("tea", "", "bob", chips=tuple(("class:chip", f"👍 {n}") for n in range(5)))
    assert text_of(line, 20)[1:] == ["   │ 👍 0  👍 1", "   │ 👍 2  👍 3", "   │ 👍 4"]
