"""Invites as people get them."""

from __future__ import annotations

import segno

from chat.ui.invites import is_picture, qr_code


def test_half_blocks_make_the_whole_code() -> None:
    text = "chat://192.0.2.1:7711/lobby#" + "a" * 43 + "." + "b" * 22
    rows = qr_code(text)
    assert all(map(is_picture, rows))
    light = [[char in pair for char in row] for row in rows for pair in ("█▀", "█▄")]
    code = segno.make(text, error="l", boost_error=False, micro=False)
    dark = [[not module for module in row] for row in light]
    border, size = [False] * len(dark[0]), len(code.matrix)
    assert len(border) == size + 4
    assert dark[:2] == dark[size + 2 : size + 4] == [border] * 2
    assert [row[2:-2] for row in dark[2 : size + 2]] == [list(map(bool, row)) for row in code.matrix]
    assert not any(any(row[:2] + row[-2:]) for row in dark)
    assert not is_picture("a note")
    assert not is_picture("")
