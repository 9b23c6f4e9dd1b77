"""Edits, retractions and reactions come to the same in whatever order they arrive."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from chat.core.bodies import Moderation
from chat.core.wire import Kind
from chat.ui import ring as ring_module
from chat.ui.entry import MessageEntry
from tests.ui.test_timeline import ANN, BOB, CID, MINUTE, check, items, message, react, said, texts, timeline

if TYPE_CHECKING:
    import pytest

    from chat.ui.timeline import Timeline


def test_an_edit_shows_in_place_and_keeps_what_was_said() -> None:
    made = timeline(
        message(1, "helo"),
        message(2),
        message(3, "hallo", kind=Kind.EDIT, target=1),
        message(4, "hello", kind=3, target=1),
    )
    assert texts(made) == ["hello", "text 2"]
    item = said(made, 1)
    assert item.edited
    assert [(edit.seq, edit.time, edit.text) for edit in item.earlier] == [
        (1, MINUTE, "helo"),
        (3, 3 * MINUTE, "hallo"),
    ]
    assert not said(made, 2).edited
    assert made.last_seq == 4


def test_only_the_same_key_edits_or_takes_back() -> None:
    made = timeline(
        message(1, "mine", key=BOB),
        message(2, "not mine", key=CID, kind=Kind.EDIT, target=1),
        message(3, key=CID, kind=Kind.RETRACT, target=1),
    )
    assert (texts(made), said(made, 1).edited, said(made, 1).retracted) == (["mine"], False, False)


def test_what_is_taken_back_stays_in_place_without_its_texts() -> None:
    made = timeline(
        message(1, "secret"),
        message(2),
        message(3, "a secret", kind=Kind.EDIT, target=1),
        react(4, "👍", 1),
        message(5, kind=Kind.RETRACT, target=1),
        message(6, "theirs", key=CID, kind=Kind.EDIT, target=1),
    )
    item = said(made, 1)
    assert (item.retracted, item.text, item.earlier, made.reactions(item)) == (True, "", [], [])
    assert "secret" not in str(item)  # nothing of it is in memory
    assert texts(made) == ["", "text 2"]


def test_an_edit_brings_back_what_its_author_took_back_and_not_what_an_operator_has_removed() -> None:
    made = timeline(
        message(1, "secret"),
        react(2, "👍", 1),
        message(3, kind=Kind.RETRACT, target=1),
        message(4, "secret", kind=Kind.EDIT, target=1),
    )
    item = said(made, 1)
    assert (item.retracted, item.text, item.edited, len(made.reactions(item))) == (False, "secret", False, 1)
    made.add(message(5, "a secret", kind=Kind.EDIT, target=1))
    assert (item.text, [edit.text for edit in item.earlier]) == ("a secret", ["secret"])
    made.add(message(6, kind=Kind.RETRACT, target=1))
    made.add(message(7, "again", kind=Kind.EDIT, target=1))
    removal = Moderation(action="retract", by=CID, by_nick="cid", target=1)
    made.add(message(8, kind=Kind.MODERATION, target=1)._replace(decision=removal))
    made.add(message(9, "and again", kind=Kind.EDIT, target=1))
    assert (item.retracted, item.text, item.weight) == (True, "", 0)


def test_reactions_are_counted_by_emoji_one_for_each_key() -> None:
    made = timeline(
        message(1),
        react(2, "❤", 1, BOB),
        react(3, "👍", 1, CID),
        react(4, "❤\ufe0f", 1, CID),
        react(5, "❤", 1, BOB),
        react(6, "👍", 1, ANN),
        react(7, "\u200b\u202e", 1, ANN),  # nobody would see it
    )
    assert made.reactions(said(made, 1)) == [("❤", ["bob", "cid"]), ("👍", ["cid", "ann"])]
    made.add(react(8, "", 1, CID))
    assert made.reactions(said(made, 1)) == [("❤", ["bob"]), ("👍", ["ann"])]
    made.add(react(9, "👍", 1, CID))
    assert made.reactions(said(made, 1)) == [("❤", ["bob"]), ("👍", ["ann", "cid"])]


def test_nobody_changes_what_is_still_to_be_said_nor_what_is_no_message() -> None:
    made = timeline(
        message(1),
        message(2, "edited", kind=Kind.EDIT, target=1),
        message(3, "an edit of an edit", kind=Kind.EDIT, target=2),
        message(4, "of itself", kind=Kind.EDIT, target=4),
        message(5, "too soon", kind=Kind.EDIT, target=6),
        react(5, "👍", 7),
        message(6, "first"),
        message(7, "second"),
    )
    assert texts(made) == ["edited", "first", "second"]
    assert made.reactions(said(made, 7)) == []
    check(made)


SAYS = 6  # messages that begin the log
TARGETS = st.integers(1, 2 * SAYS)
CHANGES = st.one_of(
    st.tuples(st.just(Kind.EDIT), st.sampled_from([ANN, BOB]), TARGETS, st.just("e")),
    st.tuples(st.just(Kind.RETRACT), st.sampled_from([ANN, BOB]), TARGETS, st.just("")),
    st.tuples(st.just(Kind.REACT), st.sampled_from([ANN, BOB]), TARGETS, st.sampled_from(["", "👍", "❤"])),
    st.tuples(st.just(Kind.SAY), st.sampled_from([ANN, BOB]), st.just(0), st.just("t")),
)


def picture(made: Timeline) -> list[object]:
    return [
        (
            item.seq,
            item.text,
            item.retracted,
            [edit.text for edit in item.earlier],
            made.reactions(item),
            item.mentioned,
        )
        for item in items(made)
        if isinstance(item, MessageEntry)
    ]


@settings(max_examples=300)
@given(st.lists(CHANGES, min_size=4, max_size=20), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_whether_the_log_is_read_forwards_or_in_older_and_older_parts_the_outcome_is_the_same(
    changes: list[tuple[Kind, bytes, int, str]], cuts: list[int]
) -> None:
    says = [(Kind.SAY, ANN if seq % 2 else BOB, 0, "t") for seq in range(SAYS)]
    log = [
        message(seq, key=key, kind=kind, target=target)._replace(
            text=f"{text}{seq} ann" if text in ("e", "t") else text
        )
        for seq, (kind, key, target, text) in enumerate([*says, *changes], 1)
    ]
    forwards = timeline(*log)
    check(forwards)
    bounds = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    parts = [log[start:end] for start, end in itertools.pairwise(bounds)]
    backwards = timeline(*(parts.pop() if parts else []))
    for part in reversed(parts):
        backwards.add_older(part)
        check(backwards)
    assert picture(backwards) == picture(forwards)


def test_what_is_loaded_later_and_was_said_before_comes_before() -> None:
    made = timeline(message(10), message(11, "newest", kind=Kind.EDIT, target=1), react(12, "", 1))
    made.add_older([message(5, "newer", kind=Kind.EDIT, target=1), react(6, "👍", 1), react(7, "👍", 10)])
    made.add_older([message(1, "first"), message(2, "new", kind=Kind.EDIT, target=1)])
    assert [edit.text for edit in said(made, 1).earlier] == ["first", "new", "newer"]
    assert said(made, 1).text == "newest"
    assert made.reactions(said(made, 1)) == []
    assert made.reactions(said(made, 10)) == []  # said before it


def test_a_change_of_what_comes_later_waits_and_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timeline(message(10), message(11, "edited", kind=Kind.EDIT, target=5), react(12, "👍", 5))
    assert made.add_older([message(n) for n in range(4, 10)]) == 6
    assert said(made, 5).text == "edited"
    assert made.reactions(said(made, 5)) == [("👍", ["bob"])]
    monkeypatch.setattr(ring_module, "_MAX_CACHED", 1_000)
    for seq in range(13, 60):
        made.add(message(seq, "x" * 100, kind=Kind.EDIT, target=1 + seq % 3))
        check(made)
        assert made.edits.size <= 1_000


def test_one_message_does_not_grow_without_end() -> None:
    made = timeline(message(1))
    for seq in range(2, 3_000):
        made.add(message(seq, f"edit {seq}", kind=Kind.EDIT, target=1))
        made.add(react(seq, chr(0x1F300 + seq % 500), 1, key=CID))
    item = said(made, 1)
    assert item.text == "edit 2999"
    assert [edit.seq for edit in item.earlier] == [1, *range(2_980, 2_999)]
    assert len(made.reactions(item)) == 8
    check(made)
