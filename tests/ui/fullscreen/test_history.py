"""What was sent is in the history, on disk and private."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from chat.core.wire import MAX_TEXT
from chat.ui.fullscreen.composer import RoomHistory
from chat.ui.fullscreen.drafts import DraftFile
from tests.ui.fullscreen.test_composer import run, staged

if TYPE_CHECKING:
    from pathlib import Path


def test_a_history_outlives_the_program_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "histories"

    async def first() -> None:
        async with staged(folder) as stage:
            stage.type("one\ntwo 你好\r/join chat://secret\r/join Chat：//secret\r")  # noqa: RUF001
            await stage.until(lambda: len(stage.sent) == 3)

    async def second() -> None:
        async with staged(folder) as stage:
            stage.type("\x1b[A")
            await stage.until(lambda: stage.text == "one\ntwo 你好")

    before = os.umask(0)
    try:
        run(first())
    finally:
        os.umask(before)
    (file,) = [file for file in folder.iterdir() if file.stat().st_size]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"secret" not in file.read_bytes()
    run(second())


def test_a_history_that_is_damaged_or_long_is_read_from_its_end(tmp_path: Path) -> None:
    file = tmp_path / "history"
    lines = [json.dumps(f"{n} ".ljust(1000, "x")) for n in range(600)]
    file.write_text("\n".join([*lines, '"torn', "17", json.dumps("last\x1b"), ""]), "utf-8")
    told: list[str] = []
    read = list(RoomHistory(file, told.append).load_history_strings())
    assert read[0] == "last"
    assert [entry.split()[0] for entry in read[1:]] == [str(n) for n in range(599, 599 - len(read) + 1, -1)]
    assert 200 < len(read) < 263
    assert file.stat().st_size <= 256 * 1024  # it was cut
    assert list(RoomHistory(file, told.append).load_history_strings()) == read
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told == []


def test_a_history_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    told: list[str] = []
    history = RoomHistory(tmp_path / "missing" / "history", told.append)
    history.append_string("one")
    history.append_string("two")
    assert told == ["the history of what you send is not kept: no such file or directory; mend that, and start again"]
    assert history.get_strings() == ["one", "two"]


def test_a_draft_is_taken_over_from_a_window_that_has_ended_and_goes_when_it_is_sent(tmp_path: Path) -> None:
    first, other, elsewhere = (DraftFile(tmp_path, name) for name in ("tea", "tea", "lobby"))
    first.keep("half a")
    first.keep("half")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert other.take_over() == ""  # its window lives
    first.close()
    assert elsewhere.take_over() == ""
    assert other.take_over() == "half"
    other.keep("")
    assert not list(tmp_path.iterdir())


def test_a_draft_on_disk_is_bounded_and_no_invite(tmp_path: Path) -> None:
    draft = DraftFile(tmp_path, "tea")
    draft.keep("/join chat://a.example/lobby#secret")
    assert not list(tmp_path.iterdir())
    draft.keep("x" * (MAX_TEXT + 1))
    draft.keep("语" * MAX_TEXT)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [MAX_TEXT]
    draft.close()
    assert DraftFile(tmp_path, "tea").take_over() == "语" * (MAX_TEXT // 3)


def test_a_disk_that_takes_no_draft_costs_only_the_draft(tmp_path: Path) -> None:
    draft = DraftFile(tmp_path / "missing", "tea")
    assert draft.take_over() == ""
    draft.keep("half")
    draft.close()
