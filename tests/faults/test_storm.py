"""Kills, stops, cut links and moves in the midst of a conversation: everybody still gets all of it, once and in order.

``scripts/demo`` compares what everybody got with the log and with what was said. Each test prints its figures (-s).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import PATIENCE, Program, host

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
ALL = "--transports=queue,tcp,pipe"
LONG = ("--lines=8000", "--kill-host=30", "--kill-member=30", "--end-host=10", "--stop=10", "--move=20", "--cut=400")


def demo(arguments: Sequence[str]) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/demo.py", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "transcripts, chat log and what was said are equal\n" in done.stdout
    print(done.stdout)
    return done.stdout, done.stderr


def test_a_conversation_in_a_storm() -> None:
    told, notes = demo(
        [
            ALL,
            "--seed=1",
            "--lines=300",
            "--kill-host=1",
            "--kill-member=2",
            "--stop=1",
            "--end-host=1",
            "--move=2",
            "--cut=6",
        ]
    )
    for what in (
        "a member killed 2 times",
        "the host killed 1 times",
        "the host asked to end 1 times",
        "moved 2 times",
    ):
        assert what in told
    assert re.search(r", [1-9]\d* links cut", told)
    left = re.findall(r"(\w+) leaves (\w+):", notes)
    back = re.findall(r"(\w+) is back over (\w+)", notes)
    assert [who for who, _ in left] == [who for who, _ in back]
    assert all(there != here for (_, there), (_, here) in zip(left, back, strict=True))


@pytest.mark.slow
def test_thirty_kills_of_each_and_two_hundred_cut_links() -> None:
    told, _notes = demo([ALL, "--seed=7", "--members=6", *LONG])
    found = re.search(r"(\d+) links cut", told)
    assert found is not None
    assert int(found[1]) >= 200


@pytest.mark.slow
def test_a_slow_lossy_line_and_links_that_die_without_a_word() -> None:
    told, _notes = demo(
        ["--transports=tcp", "--seed=3", "--lines=600", "--delay=200", "--freeze=3", "--cut=10", "--kill-host=1"]
    )
    assert re.search(r", [1-9]\d* dead", told)


@pytest.mark.slow
def test_two_minutes_of_everything_leave_the_host_as_it_was() -> None:
    _told, notes = demo([ALL, "--seed=5", "--members=6", "--soak=120"])
    print("\n".join(line for line in notes.splitlines() if line.startswith("the host's ")))


@pytest.mark.parametrize("data", ["one", "each its own"])
def test_of_many_hosts_that_start_at_once_one_opens_the_room(tmp_path: Path, data: str) -> None:
    folders = [tmp_path / ("host" if data == "one" else f"host-{number}") for number in range(4)]
    programs = [Program(folder, "host", "lobby", "--headless", "--json") for folder in folders]
    try:
        ended = [program for program in programs if not opens(program)]
        assert len(ended) == 3
        for program in ended:
            assert program.process.wait(PATIENCE) == 1
            assert program.told().count("\n") == 1
            assert re.search("already open on this machine|another host uses", program.told())
    finally:
        for program in programs:
            program.__exit__(None, None, None)
    with host(tmp_path / "host") as again:  # the others have harmed nothing
        assert again.seen[0]["event"] == "listening"


def opens(program: Program) -> bool:
    try:
        program.until("listening")
    except AssertionError:  # it has ended
        return False
    return True
