"""scripts/lessons/all: four columns and a table, on a terminal and elsewhere; and what all lessons have in common."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from tests.lessons.programs import LESSONS, run, story

ALL = LESSONS / "all"
NAMES = ["pipe", "queue", "socket", "shared memory"]
NUMBER = re.compile(r"\d+\.\d+")


def check(output: str) -> None:
    lines = output.splitlines()
    assert max(map(len, lines)) < 80
    heads = [re.split(r"  +", line.strip()) for line in lines]
    assert heads.count(NAMES) == 2  # above the scenes and above the table
    table = output.partition("The four compared\n")[2]
    for label in ("capacity", "borders", "what death", "what wakes", "µs for a", "million", "copies", "who may use"):
        assert f"\n{label}" in table
    trips, rates = (NUMBER.findall(line) for line in table.splitlines() if line.startswith(("µs", "million")))
    assert [len(trips), len(rates)] == [4, 4]
    assert all(float(trip) > 0 for trip in trips)


def test_it_is_right_where_there_is_no_terminal() -> None:
    told = story("all")
    assert "\x1b" not in told
    check(told)
    death = next(line for line in told.splitlines() if line.startswith("what death"))
    assert re.findall(r"the end|silence", death) == ["the end", "silence", "the end", "silence"]


def test_it_is_right_on_a_terminal_of_80_columns() -> None:
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, ALL], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as program:
        os.close(theirs)
        output = b""
        try:
            while some := os.read(ours, 4096):
                output += some
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            pass
        os.close(ours)
    assert program.returncode == 0
    text = output.decode().replace("\r\n", "\n")
    assert "\x1b[1m" in text
    check(re.sub(r"\x1b\[\d*m", "", text))


@pytest.mark.parametrize(
    "lie",
    ["Socket.notices_death = lambda self: False", "Memory.look = lambda self: [b'good evening']"],
    ids=["death", "borders"],
)
def test_what_is_not_so_ends_it(lie: str) -> None:
    program = (
        f"import runpy, sys, ways; ways.{lie}; main = runpy.run_path({str(ALL)!r})['main']; "
        "main.__globals__['table'] = print; sys.exit(main())"  # no table: it takes longest
    )
    done = run("-c", program)
    assert done.returncode == 1
    assert done.stderr == "all: on this machine it was not as the lessons say\n"
