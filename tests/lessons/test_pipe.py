"""scripts/lessons/pipe.py: what it calls right is right, its mistakes happen, and its cures cure them."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.lessons import programs
from tests.lessons.programs import LESSONS, STARTS, run, story

LINES = ["good evening", "is anybody here?", "good night"]
what = partial(programs.what, "pipe")


@pytest.mark.parametrize("start", STARTS)
def test_the_whole_story_is_true(start: str) -> None:
    told = story("pipe.py", start)
    headings = [line.partition(":")[0] for line in told.splitlines() if line[:1].isdigit()]
    assert headings == ["1. ends", "2. full", "3. pickle", "4. fork", "5. zombie"]
    mistakes = [line for line in told.splitlines() if line.startswith("   mistake  ")]
    assert len(mistakes) == len(headings)


def test_one_mistake_alone() -> None:
    done = run(LESSONS / "pipe.py", "zombie")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\n5. zombie: ")
    assert "smallest" not in done.stdout
    assert "4. " not in done.stdout


def test_an_unknown_mistake_is_refused_in_one_line() -> None:
    done = run(LESSONS / "pipe.py", "sloth")
    assert done.returncode == 2
    assert "invalid choice: 'sloth'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_what_is_not_so_ends_the_lesson() -> None:
    done = run("-c", "import pipe; pipe.seen('cure', 'pigs fly', False)")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lesson: not so on this machine: pigs fly\n"


@pytest.mark.parametrize("start", STARTS)
def test_the_smallest_program_is_right(start: str) -> None:
    assert what("receive_lines(context)", start) == [LINES, 0]


@pytest.mark.parametrize("start", STARTS)
def test_the_end_comes_only_to_who_closes_the_other_end(start: str) -> None:
    assert what("[end_comes(context, we_close=close) for close in (False, True)]", start) == [False, True]


def test_a_pipe_that_nobody_reads_is_full_before_the_long_message_is_in() -> None:
    # 4 KiB where the user has more pipes than the kernel likes; never the MiB that the lesson writes.
    assert 4096 <= what("capacity()") < what("MEBIBYTE")


def test_two_peers_that_write_first_are_stuck() -> None:
    assert what("both_finish(context, A_MOMENT, bob_listens=False)", "fork") is False


def test_two_peers_finish_when_one_listens() -> None:
    assert what("both_finish(context, ENOUGH, bob_listens=True)", "fork") is True


def test_recv_runs_what_a_stranger_sends() -> None:
    # No line of the lesson makes a child exit with 77: only the pickle does.
    assert what("fate(context, trusting, send_crafted)") == 77


@pytest.mark.parametrize(("attack", "status"), [("send_crafted", "REFUSED_TEXT"), ("send_huge", "REFUSED_LENGTH")])
def test_bytes_with_a_maxlength_are_safe(attack: str, status: str) -> None:
    got, refused = what(f"[fate(context, careful, {attack}), {status}]")
    assert got == refused


def test_a_forked_lock_stays_locked_and_python_warns() -> None:
    status, warned, still_locked = what("[*start_beside_thread(context, thread_first=True), STILL_LOCKED]", "fork")
    assert status == still_locked
    assert warned == (1 if sys.version_info >= (3, 12) else 0)


@pytest.mark.parametrize(("start", "thread_first"), [("fork", False), ("spawn", True), ("forkserver", True)])
def test_a_child_started_first_or_not_forked_gets_the_lock(start: str, thread_first: bool) -> None:
    assert what(f"start_beside_thread(context, thread_first={thread_first})", start) == [0, 0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_child_is_a_zombie_until_it_is_joined(start: str) -> None:
    assert what("states(context)", start) == ["Z", ""]


def test_the_process_table_knows_who_lives() -> None:
    # The one who asks is running, or waits for ps; a number that no system gives out has no state.
    assert what("[state_of(os.getpid()) in ('R', 'S'), state_of(2**31 - 1)]") == [True, ""]
