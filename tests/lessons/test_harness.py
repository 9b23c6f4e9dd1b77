"""scripts/lessons/harness.py, and how every lesson opens: a few plain lines that run as they stand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lessons.programs import LESSONS, run

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

WITH_OPENING = sorted(path.stem for path in LESSONS.glob("*.py") if "sys.exit(main(__doc__" in path.read_text())


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lessons_harness", LESSONS / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docstring(lesson: str) -> str:
    return (LESSONS / f"{lesson}.py").read_text().split('"""')[1]


@pytest.mark.parametrize("lesson", WITH_OPENING)
def test_the_smallest_program_runs_as_it_stands(harness: ModuleType, lesson: str, tmp_path: Path) -> None:
    opening = harness.opening(docstring(lesson))
    file = tmp_path / "program.py"
    file.write_text(opening.program)
    done = subprocess.run([sys.executable, "-I", file], env={}, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (opening.prints, "", 0)


@pytest.mark.parametrize("lesson", WITH_OPENING)
def test_it_comes_first_and_is_small(harness: ModuleType, lesson: str) -> None:
    lines = harness.opening(docstring(lesson)).program.splitlines()
    assert len([line for line in lines if line.strip()]) <= 12
    assert max(map(len, lines)) < 80
    assert not [line for line in lines if "->" in line or "harness" in line]
    source = (LESSONS / f"{lesson}.py").read_text()
    assert source.startswith('"""A lesson on ')
    assert source.index(lines[0]) < 2500  # bytes: a screen of prose at most


def test_a_smallest_program_that_prints_something_else_ends_the_lesson(tmp_path: Path) -> None:
    for name in ("harness.py", "pipe.py"):
        (tmp_path / name).write_text((LESSONS / name).read_text().replace('b"good evening")\n    os', 'b"hi")\n    os'))
    env = {"PATH": os.environ["PATH"]}
    command = [sys.executable, str(tmp_path / "pipe.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("lesson: not so on this machine: the smallest program")


def test_what_runs_is_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("-c", "import pipe, harness; harness.show(pipe.states)")
    assert max(map(len, done.stdout.splitlines())) < 80  # a long line is broken, and nothing else is changed
    shown = " ".join(line.removeprefix("   |") for line in done.stdout.splitlines()).split()
    assert shown[:2] == ["def", "states(context:"]
    assert " ".join(shown) in " ".join((LESSONS / "pipe.py").read_text().split())


@pytest.mark.parametrize("lesson", [*WITH_OPENING, "all"])
def test_a_reader_of_the_output_that_leaves_sees_no_traceback(lesson: str) -> None:
    program = next(path for path in LESSONS.iterdir() if path.stem == lesson)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-B", str(program)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.stderr, done.returncode) == (b"", 1)
