"""chat.core.loopguard: which turns of programs count, when they are slowed, and what ends it."""

from __future__ import annotations

import math

import pytest

from chat.core.loopguard import LIMIT, LoopGuard

ANN, BOB, CID = b"ann", b"bob", b"cid"  # programs
MINUTE = 60_000  # milliseconds


def after(limit: int, turns: int, *, every: int = 0) -> LoopGuard:
    """Two programs have answered each other so often; the first word of all is no answer."""
    guard = LoopGuard(limit)
    for turn in range(turns + 1):
        guard.program_spoke((ANN, BOB)[turn % 2], turn * every)
    return guard


@pytest.mark.parametrize(
    ("turns", "pause"),
    [(0, 0), (1, 0), (10, 0), (11, 1), (12, 2), (19, 9), (20, math.inf), (21, math.inf)],
)
def test_half_the_limit_is_free_and_then_each_turn_costs_a_second_more(turns: int, pause: float) -> None:
    assert LIMIT == 20
    assert after(LIMIT, turns).pause == pause


@pytest.mark.parametrize(("limit", "free"), [(1, 0), (2, 1), (3, 1), (5, 2)])
def test_a_small_limit_is_kept_too(limit: int, free: int) -> None:
    assert after(limit, free).pause == 0
    assert after(limit, free + 1).pause > 0
    assert after(limit, limit).pause == math.inf


def test_no_limit_lets_them_go_on_for_ever() -> None:
    assert after(0, 1000).pause == 0


def test_one_program_alone_may_say_what_it_likes() -> None:
    guard = LoopGuard(1)
    for _ in range(100_000):
        guard.program_spoke(ANN, 0)
    assert guard.pause == 0


def test_a_thousand_lines_of_one_that_reports_are_one_turn() -> None:
    guard = LoopGuard(4)
    guard.program_spoke(BOB, 0)
    for _ in range(1000):
        guard.program_spoke(ANN, 0)
    guard.program_spoke(ANN, 0, 1000)
    guard.program_spoke(CID, 0)
    assert guard.pause == 0, "two answers"
    guard.program_spoke(ANN, 0)
    assert guard.pause == 1


@pytest.mark.parametrize("programs", [(ANN, BOB), (ANN, BOB, CID)])
def test_those_who_answer_each_line_with_two_are_stopped_after_some_hundred_lines(programs: tuple[bytes, ...]) -> None:
    guard, said, lines = LoopGuard(LIMIT), 0, 1
    while guard.pause < math.inf:
        guard.program_spoke(programs[0], 0, lines)
        programs, said, lines = (*programs[1:], programs[0]), said + lines, 2 * lines
    assert said < 1024


def test_a_turn_has_sixteen_lines_of_all_but_the_one_that_says_most() -> None:
    guard = LoopGuard(2)
    guard.program_spoke(ANN, 0, 1000)
    guard.program_spoke(BOB, 0, 31)
    assert guard.pause == 0
    guard.program_spoke(BOB, 0, 1)
    assert guard.pause == math.inf
    guard.person_spoke()
    guard.program_spoke(BOB, 0, 100)
    assert guard.pause == 0


def test_three_who_answer_in_a_ring_are_a_loop() -> None:
    guard = LoopGuard(6)
    for turn in range(7):
        guard.program_spoke((ANN, BOB, CID)[turn % 3], 0)
    assert guard.pause == math.inf


def test_a_person_ends_it_and_who_speaks_next_answers_the_person() -> None:
    guard = after(2, 2)
    assert guard.pause == math.inf
    guard.person_spoke()
    assert guard.pause == 0
    guard.program_spoke(BOB, 0)  # the last program to speak was another, but a person came between
    guard.program_spoke(ANN, 0)
    assert guard.pause == 0
    guard.program_spoke(BOB, 0)
    assert guard.pause == math.inf


def test_a_line_a_day_is_no_loop() -> None:
    assert after(4, 1000, every=24 * 60 * MINUTE).pause == 0
    assert after(4, 1000, every=MINUTE).pause == 0


def test_one_turn_a_minute_is_forgotten() -> None:
    assert after(20, 13, every=MINUTE // 4).pause == 0, "of thirteen three are forgotten since the first"
    assert after(20, 14, every=MINUTE // 4).pause == 1
    guard = after(20, 15)
    guard.program_spoke(BOB, 3 * MINUTE)  # no turn: it was the last to speak
    assert guard.pause == 5
    guard.program_spoke(ANN, 3 * MINUTE)
    assert guard.pause == 3


def test_a_quiet_day_is_no_credit() -> None:
    guard = after(20, 1)
    for turn in range(11):
        guard.program_spoke((ANN, BOB)[turn % 2], 24 * 60 * MINUTE)
    assert guard.pause == 1


def test_a_clock_that_is_set_back_adds_no_turns() -> None:
    guard = LoopGuard(20)
    guard.program_spoke(ANN, 60 * MINUTE)
    guard.program_spoke(BOB, 60 * MINUTE)
    guard.program_spoke(ANN, 0)
    assert guard.pause == 0
