"""``chat search``, as people and programs run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import Program, host, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ann"


def test_chat_search_prints_what_it_finds_newest_last(folder: Path) -> None:
    with host(folder), Program(folder, "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        seqs = []
        for text in ("我们去北京吧", "cats and\ndogs", "北京 is far", *["filler"] * 600, "cats"):
            ann.say(text, text)
            seqs.append(ann.until("stored")["seq"])
        found = run(folder, "search", ".", "北京")
        assert (found.returncode, found.stderr) == (0, "")
        first, second = found.stdout.splitlines()
        assert first.startswith(f"{seqs[0]}  ")
        assert first.endswith(" ann: 我们去北京吧")
        assert second.startswith(f"{seqs[2]}  ")
        assert second.endswith(" ann: 北京 is far")

        found = run(folder, "search", "--json", ".", "cats", "from:ann")  # far apart: two readers
        assert [json.loads(line)["seq"] for line in found.stdout.splitlines()] == [seqs[1], seqs[-1]]
        assert json.loads(found.stdout.splitlines()[0])["text"] == "cats and\ndogs"
        found = run(folder, "search", ".", "cats -dogs")
        assert [line[:5].split()[0] for line in found.stdout.splitlines()] == [str(seqs[-1])]

        found = run(folder, "search", "-n", "1", ".", "cats")
        assert found.stdout.splitlines()[0].endswith("ann: cats")
        assert found.stderr == f"chat: there are older matches; add --before {seqs[-1]}\n"
        found = run(folder, "search", "--before", str(seqs[-1]), ".", "cats")
        assert [line.split()[0] for line in found.stdout.splitlines()] == [str(seqs[1])] * 2  # it has two lines


def test_what_is_not_found_and_what_cannot_be_searched(folder: Path) -> None:
    with host(folder):
        for words, why in (
            (["absent"], "nothing was found"),
            (["?!"], "there is nothing to search for: it has no letter and no digit; give a word"),
            (['"', "AND", "NOT", "*"], "nothing was found"),
        ):
            found = run(folder, "search", ".", *words)
            assert (found.returncode, found.stdout, found.stderr) == (1, "", f"chat: {why}\n")
        assert run(folder, "search", ".").returncode == 2
    assert run(folder, "search", ".", "word").returncode == 4
