"""scripts/lessons/queue_.py: what it calls right is right, its mistakes happen, and its cures cure them."""

from __future__ import annotations

import sys
from functools import partial
from itertools import chain

import pytest

from tests.lessons import programs
from tests.lessons.programs import LESSONS, STARTS, run, story

what = partial(programs.what, "queue_")


@pytest.mark.parametrize("start", STARTS)
def test_the_whole_story_is_true(start: str) -> None:
    told = story("queue_.py", start)
    headings = [line.partition(":")[0] for line in told.splitlines() if line[:1].isdigit()]
    assert headings == ["1. sentinel", "2. full", "3. death", "4. join"]
    mistakes = [line for line in told.splitlines() if line.startswith("   mistake  ")]
    assert len(mistakes) == len(headings)


def test_one_mistake_alone() -> None:
    done = run(LESSONS / "queue_.py", "full")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\n2. full: ")
    assert "smallest" not in done.stdout
    assert "3. " not in done.stdout


def test_an_unknown_mistake_is_refused_in_one_line() -> None:
    done = run(LESSONS / "queue_.py", "sloth")
    assert done.returncode == 2
    assert "invalid choice: 'sloth'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_what_is_not_so_ends_the_lesson() -> None:
    done = run("-c", "import queue_; queue_.seen('cure', 'pigs fly', False)")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lesson: not so on this machine: pigs fly\n"


def test_no_lesson_hides_a_module_of_the_standard_library() -> None:
    # A lesson's own folder comes first where it looks for modules.
    assert not {path.stem for path in LESSONS.glob("*.py")} & sys.stdlib_module_names


@pytest.mark.parametrize("start", STARTS)
def test_one_consumer_does_all_jobs_in_order(start: str) -> None:
    assert what("share_out(context, 1)", start) == [[[1, 2, 3, 4, 5]], [0]]


@pytest.mark.parametrize("start", STARTS)
def test_several_consumers_do_each_job_once_and_in_order(start: str) -> None:
    done, statuses = what("share_out(context, 3)", start)
    assert statuses == [0, 0, 0]
    assert sorted(chain.from_iterable(done)) == [1, 2, 3, 4, 5]
    assert all(part == sorted(part) for part in done)


@pytest.mark.parametrize("sentinels", [1, 3])
def test_as_many_consumers_end_as_there_are_sentinels(sentinels: int) -> None:
    assert what(f"consumers_that_end(context, 3, {sentinels})", "fork") == sentinels


def test_only_a_bound_stops_a_producer_that_does_not_wait() -> None:
    assert what("[accepted(context, bound, 5000) for bound in (0, 1, 7)]") == [5000, 1, 7]


def test_put_waits_for_room_and_not_longer() -> None:
    assert what("put_waits(context, 1)") == [True, True]


def test_a_job_that_was_taken_dies_with_its_consumer() -> None:
    assert what("one_shift(context, JOBS, dies_at=3)", "fork") == [[1, 2], [4, 5], -9]


def test_who_does_not_die_leaves_nothing() -> None:
    assert what("one_shift(context, JOBS)") == [[1, 2, 3, 4, 5], [], 0]


@pytest.mark.parametrize("dies_at", [1, 3, 5])
def test_what_was_not_answered_is_done_by_another(dies_at: int) -> None:
    assert what(f"two_shifts(context, JOBS, dies_at={dies_at})", "fork") == [1, 2, 3, 4, 5]


def test_a_producer_whose_queue_is_not_read_does_not_end() -> None:
    assert what("producer_ends(context, A_MOMENT, read_first=False)", "fork") is False


def test_a_producer_ends_when_its_queue_is_read() -> None:
    assert what("producer_ends(context, ENOUGH, read_first=True)", "fork") is True
