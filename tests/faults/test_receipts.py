"""A host whose mark says more than its log: only what is in the log gets a receipt."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from chat.core.ledger import RoomTables
from chat.host.store import Store
from tests.cli.programs import Program, run

if TYPE_CHECKING:
    from pathlib import Path

FOUR = [f"said while the host was away, {number}" for number in range(4)]


def raise_the_mark(folder: Path, by: int, *, quietly: bool) -> None:
    """Change how far each stream has come; ``quietly``: as a host would do it that believes so itself."""
    (room,) = (folder / "rooms").iterdir()
    if not quietly:
        with closing(sqlite3.connect(room / "log.db")) as database, database:
            database.execute("UPDATE streams SET high_water = high_water + ?", (by,))
        return
    with closing(Store(room)) as store:
        state = store.open_room("lobby")
        marks = [(key, stream, number + by) for key, stream, number in state.tables.high_water]
        store.commit(state.id, [], RoomTables(high_water=marks))


@pytest.mark.parametrize(
    "quietly",
    [pytest.param(False, marks=pytest.mark.slow, id="a damaged row"), pytest.param(True, id="a host that is wrong")],
)
def test_no_mark_is_a_receipt(tmp_path: Path, quietly: bool) -> None:
    hosting = "host", "lobby", "--headless", "--json"
    with ExitStack() as running:
        host = running.enter_context(Program(tmp_path / "host", *hosting))
        host.until("listening")
        ann = running.enter_context(Program(tmp_path / "ann", "join", "lobby", "--json"))
        ann.say("hello", "first")
        assert ann.until("stored")["id"] == "first"
        host.process.kill()
        host.process.wait()
        ann.until("link", lambda event: event["state"] == "lost")
        for text in FOUR:
            ann.say(text, text)
        raise_the_mark(tmp_path / "host", 4, quietly=quietly)
        with Program(tmp_path / "host", *hosting):
            for text in FOUR:
                assert ann.until("rejected" if quietly else "stored")["id"] == text
            if quietly:
                kept = ann.until("notice", lambda event: event["code"] == "unsent")["fields"]["path"]
                (path,) = (tmp_path / "ann").rglob("*.unsent.txt")
                assert (str(path), path.read_text()) == (kept, "".join(f"{text}\n" for text in FOUR))
            lines = run(tmp_path / "host", "log", "lobby", "--json").stdout.splitlines()
            assert [json.loads(line)["text"] for line in lines] == ["hello", *([] if quietly else FOUR)]
            assert ann.finish() == (1 if quietly else 0)
