"""A line is laid out in rows: what belongs to a message is indented below its head."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chat.ui.fullscreen.conversation import Line, lay, row_of
from chat.ui.fullscreen.wrapping import columns


def text_of(line: Line, width: int) -> list[str]:
    wrapped = lay(line, width)
    return ["".join(part[1] for part in row_of(line, wrapped, at)) for at in range(len(wrapped.texts))]


def test_a_message_that_spans_rows_cannot_pass_for_another_ones() -> None:
    for width in range(12, 80):
        for line in (Line("x\nbob  I did it", "00:00", "ann"), Line("ann x\nbob  I did it", "00:00", "*", gap=1)):
            assert all(row.startswith("  ") for row in text_of(line, width)[1:])


def test_a_mark_that_does_not_fit_has_a_row_of_its_own() -> None:
    assert text_of(Line("x" * 18, suffix="✓"), 20) == ["x" * 18 + " ✓"]
    assert text_of(Line("x" * 19, suffix="✓"), 20) == ["x" * 19, " ✓"]


@given(
    st.text("ab *_`>-\n你😀é", max_size=80), st.integers(6, 40), st.booleans(), st.sampled_from(["", "✓ seen by all"])
)
def test_every_row_fits_and_none_but_the_first_begins_where_a_name_does(
    text: str, width: int, delimiters: bool, suffix: str
) -> None:
    line = Line(
        text, "00:00", "somebody", quote="who: what", suffix=suffix, reactions="👍 1  ❤ 2", markdown=True, me="a"
    )
    wrapped = lay(line, width, delimiters=delimiters)
    made = [row_of(line, wrapped, at) for at in range(len(wrapped.texts))]
    for row, end in zip(made, wrapped.texts, strict=True):
        whole = "".join(part[1] for part in row)
        assert columns(whole) <= width
        assert whole.endswith(end)
    assert all(row[0] == ("", " " * wrapped.indent) for row in made[1:])
    assert wrapped.indent >= 3


@given(st.text("ab *_`>-你😀", max_size=80).map(lambda text: text.strip()), st.integers(2, 20))
def test_markup_is_cut_where_the_plain_text_would_be(text: str, width: int) -> None:
    marked = lay(Line(text, markdown=True), width, delimiters=True)
    if not text.startswith("```"):
        assert marked.texts == lay(Line(text), width).texts
