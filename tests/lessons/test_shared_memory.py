"""scripts/lessons/shared_memory.py: what it calls right is right, its mistakes happen, and its cures cure them."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.lessons import programs
from tests.lessons.programs import LESSONS, STARTS, run, story

what = partial(programs.what, "shared_memory", has_helpers=True)


@pytest.mark.parametrize("start", STARTS)
def test_the_whole_story_is_true(start: str) -> None:
    told = story("shared_memory.py", start)  # no tracker complains of what was left, either
    headings = [line.partition(":")[0] for line in told.splitlines() if line[:1].isdigit()]
    assert headings == ["1. count", "2. torn", "3. dead", "4. tracker"]
    for kind in ("mistake", "cure"):
        assert told.count(f"\n   {kind}  ") >= len(headings)


def test_one_mistake_alone() -> None:
    done = run(LESSONS / "shared_memory.py", "dead")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\n3. dead: ")
    assert "smallest" not in done.stdout
    assert "4. " not in done.stdout


def test_an_unknown_mistake_is_refused_in_one_line() -> None:
    done = run(LESSONS / "shared_memory.py", "sloth")
    assert done.returncode == 2
    assert "invalid choice: 'sloth'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_what_is_not_so_ends_the_lesson() -> None:
    done = run("-c", "import shared_memory; shared_memory.seen('cure', 'pigs fly', False)")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lesson: not so on this machine: pigs fly\n"


@pytest.mark.parametrize("start", STARTS)
def test_the_smallest_program_sees_the_last_line_and_whole_ones_only(start: str) -> None:
    lines = ["good evening", "is anybody here?", "good night"]
    looks, status = what("look_until_the_last(context)", start)
    assert status == 0
    assert looks[-1] == [3, "good night"]
    assert all(lines[number - 1] == text for number, text in looks)
    assert [number for number, _ in looks] == sorted({number for number, _ in looks})


@pytest.mark.parametrize("start", STARTS)
def test_a_count_under_the_lock_is_right(start: str) -> None:
    assert what("counted(context, careful=True)", start) == 40_000


def test_a_text_is_of_one_letter_and_every_changed_byte_shows() -> None:
    assert what("[is_whole(text_of(sealed(n))) and opened(sealed(n)) == text_of(sealed(n)) for n in range(3)]") == [
        True,
        True,
        True,
    ]
    assert what("is_whole(b'ab')") is False
    changed = "bytes([sealed(5)[at] ^ 1]).join([sealed(5)[:at], sealed(5)[at + 1:]])"
    places = "(0, 7, 8, 30_000, LONG - 5, LONG - 4, LONG - 1)"
    assert what(f"[opened({changed}) for at in {places}]") == [None] * 7


def test_half_of_one_and_half_of_another_is_refused_wherever_the_border_is() -> None:
    torn = "sealed(1)[:at] + sealed(2)[at:]"
    assert what(f"[opened({torn}) for at in (8, 9, 100, LONG - 4, LONG - 1)]") == [None] * 5


def test_the_lock_of_a_dead_process_stays_and_that_of_the_kernel_does_not() -> None:
    assert what("locks_after_a_kill(context, A_MOMENT)") == [False, True]


def test_a_stranger_who_looks_takes_a_segment_along_and_leaves_a_file() -> None:
    assert what("[survives(LOOK), file_survives()]") == [False, True]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="track came with Python 3.13")
def test_without_tracking_a_segment_outlives_everybody() -> None:
    assert what("[survives(LOOK_UNTRACKED), is_left_behind(context), is_left_behind(context)]") == [True, True, True]
