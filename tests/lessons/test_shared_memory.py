"""scripts/lessons/shared_memory.py: what it calls right is right, its mistakes happen, and its cures cure them.

The lesson runs in a program of its own, never in the tests' process: pytest's watchdog is a thread, and fork
beside threads is a mistake of its own. What a function saw comes back as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LESSONS = Path(__file__).parents[2] / "scripts/lessons"
STARTS = ("spawn", "fork", "forkserver")
PATIENCE = 180  # seconds; a lesson takes a few
# A zombie is looked for first: active_children() would reap it. Helpers of multiprocessing may still run.
PROGRAM = """
import json, multiprocessing, os, sys
import shared_memory
result = eval(sys.argv[2], vars(shared_memory) | {"context": multiprocessing.get_context(sys.argv[1])})
try:
    zombie, _ = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    zombie = 0
children = [child.name for child in multiprocessing.active_children()]
print(json.dumps({"result": result, "left": [zombie, children]}))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Returns when every process that inherited the output is gone, not only the first one."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | {"PYTHONPATH": str(LESSONS), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            output, errors = program.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(program.pid, signal.SIGKILL)  # a lesson that hangs has children that hang
            raise
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def what(expression: str, start: str = "spawn") -> Any:
    done = run("-c", PROGRAM, start, expression)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["left"] == [0, []]
    return answer["result"]


@pytest.mark.parametrize("start", STARTS)
def test_the_whole_story_is_true(start: str) -> None:
    done = run(LESSONS / "shared_memory.py", "--start", start)
    assert (done.returncode, done.stderr) == (0, "")  # no tracker complains of what was left, either
    headings = [line.partition(":")[0] for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert headings == ["1. count", "2. torn", "3. dead", "4. tracker"]
    for kind in ("mistake", "cure"):
        assert done.stdout.count(f"\n   {kind}  ") >= len(headings)


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
