"""The ring is bounded, in entries and in characters."""

from __future__ import annotations

import pytest

from chat.core.wire import Kind
from chat.ui import ring as ring_module
from chat.ui.ring import RING
from tests.ui.test_timeline import check, message, said, texts, timeline


def test_a_full_ring_lets_the_oldest_go_and_takes_nothing_older() -> None:
    made = timeline(*(message(n, at=0) for n in range(11, RING + 11)))
    assert made.full
    assert made.add_older([message(n) for n in range(1, 11)]) == 0
    assert (made.oldest, made.first, made.end) == (11, 0, RING)
    for n in range(5):
        made.add(message(RING + 11 + n, at=0))
    assert (made.first, made.end, made.oldest, made.read_state.unread) == (5, RING + 5, 16, RING + 5)
    assert (made.at_seq(15), said(made, 16).number) == (None, 5)
    with pytest.raises(IndexError):
        made[4]
    check(made)
    made.read_state.mark_read(13)  # of what has been let go, 14 and 15 are unread
    assert made.read_state.unread == RING + 2
    check(made)


def test_long_texts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "_MAX_TEXT", 1_000)
    made = timeline(*(message(n, "x" * 100) for n in range(1, 21)))
    assert made.end - made.first == 10
    made.add(message(21, "x" * 500, kind=Kind.EDIT, target=20))
    assert made.end - made.first == 4  # 600 characters and 100 for the edit, 300 before it
    made.add(message(22, "y" * 5_000))
    assert texts(made) == ["y" * 5_000]  # the newest stays
    check(made)
