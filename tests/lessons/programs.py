"""How the tests run a lesson: in a program of its own, never in the tests' process.

pytest's watchdog is a thread, and fork beside threads is a mistake of its own. What a function of the lesson saw
comes back as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from wcwidth import wcswidth

LESSONS = Path(__file__).parents[2] / "scripts/lessons"
STARTS = ("spawn", "fork", "forkserver")
PATIENCE = 180  # seconds; a lesson takes a few
# A zombie is looked for first: active_children() would reap it. A child that still runs is fine where it is
# the helper of spawn or forkserver, which has no other end than ours.
PROGRAM = """
import importlib, json, multiprocessing, os, sys
start, lesson, expression = sys.argv[1:]
context = multiprocessing.get_context(start)
result = eval(expression, vars(importlib.import_module(lesson)) | {"context": context})
try:
    zombie, _ = os.waitpid(-1, os.WNOHANG)
    running = start == "fork" and not zombie
except ChildProcessError:
    zombie, running = 0, False
children = [child.name for child in multiprocessing.active_children()]
print(json.dumps({"result": result, "zombie": zombie, "running": running, "children": children}))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Returns when every process that inherited the output is gone, not only the first one."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | {"PYTHONPATH": str(LESSONS), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"},
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


def story(lesson: str, start: str = "") -> str:
    """Return what a whole lesson tells, which goes well and fits a terminal of 80 columns. It spawns by itself."""
    done = run(LESSONS / lesson, *() if start in {"", "spawn"} else ("--start", start))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines
    assert [line for line in lines if not 0 <= wcswidth(line) <= 80] == []
    return done.stdout


def what(lesson: str, expression: str, start: str = "spawn", *, has_helpers: bool = False) -> Any:
    """Return what an expression in a lesson's names gives; nothing may be left of what it started.

    ``has_helpers``: multiprocessing's own helpers may still run, whatever the start method.
    """
    done = run("-c", PROGRAM, start, lesson, expression)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["zombie"], answer["children"]) == (0, [])
    assert has_helpers or not answer["running"]
    return answer["result"]


def other_python(version: str) -> Path | None:
    """Return a Python of this version, unless it is our own."""
    found = shutil.which(f"python{version}")
    if found is None or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return None
    # What pyenv puts on PATH runs only the versions that are switched on; look for the others beside it.
    installed = Path(found).parents[1].glob(f"versions/{version}.*/bin/python{version}")
    for path in (Path(found), *installed):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False, timeout=60).returncode == 0:
            return path
    return None
