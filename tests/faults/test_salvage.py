"""What `chat repair` takes for a part of the room: rows that belong to one log, one room for each name."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Moderation
from chat.core.errors import StoreError
from chat.core.ledger import Ledger
from chat.core.log import Log
from chat.core.sequencer import Moderate
from chat.host import audit
from chat.host.backup import backup
from chat.host.marks import CHAIN_START
from chat.host.repair import Row, _fit, check, repair
from chat.host.store import Store
from chat.host.tables import put_row
from tests.faults.test_repair import KEYS, PAGE, content, fill, numbers

if TYPE_CHECKING:
    from pathlib import Path


def test_the_wal_is_kept_until_nothing_of_any_room_is_lost(tmp_path: Path) -> None:
    """Here the damage costs a direct room, which is opened later than the main one."""
    folder, killed = tmp_path / "room", tmp_path / "killed"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 50)
        direct = fill(store, "@two", 300)
        shutil.copytree(folder, killed)
    data = bytearray((killed / "log.db-wal").read_bytes())
    data[data.rindex(direct[150][32:60])] ^= 1
    (killed / "log.db-wal").write_bytes(data)
    with closing(Store(killed)) as store:
        store.open_room("lobby")
        with pytest.raises(StoreError, match="'@two' has lost messages"):
            store.open_room("@two")
    _lobby, two = repair(killed, "lobby").rooms
    assert len(numbers(two.lost)) < 60
    with closing(Store(killed)) as store:
        assert max(content(store, "@two")) == max(direct)
        assert not (killed / "log.db-wal.kept").exists()


def test_who_is_banned_is_read_from_the_log_and_why_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    ban = Moderation(action="role", by=KEYS["a"], by_nick="a", key=KEYS["b"], nick="b", role="banned")
    with closing(Store(folder)) as store:
        state = store.open_room("lobby")
        log = Log(state.epoch)
        ledger = Ledger(log, state.tables)
        ledger.apply([Moderate(1, ban), Moderate(2, Moderation(action="topic", by=b"", by_nick="a", text="peace"))])
        store.commit(state.id, log.seal(), ledger.take_changes())
        with store.transaction() as database:
            audit.add(database, state.id, 1, "a", [("ban", KEYS["b"], "b", "it shouts")])
            put_row(database, "covered", state.id, KEYS["b"], "192.0.2.7")
    for damage in ("UPDATE moderated SET role = 'member'", "DELETE FROM moderated", "DELETE FROM properties"):
        with closing(sqlite3.connect(folder / "log.db")) as database, database:
            database.execute(damage)
        repair(folder, "lobby")
        with closing(Store(folder)) as store:
            after = store.open_room("lobby").tables
            assert after.moderated == [(KEYS["b"], "banned", 0)]
            assert dict(after.properties)["topic"] == "peace"
            assert audit.reason(store, state.id, KEYS["b"]) == "it shouts"
            assert [row[1:3] for row in store.rows("covered", state.id)] == [(KEYS["b"], "192.0.2.7")]


def test_a_damaged_number_of_a_room_makes_no_second_one(tmp_path: Path) -> None:
    """The flipped bit makes room 5 of room 1, or room 6 of room 2, which holds nothing and may be lost."""
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        said = {"lobby": fill(store, "lobby", 20)}
        store.open_room("@empty")
        said["@third"] = fill(store, "@third", 20)
        epoch = store.open_room("lobby").epoch
    for name in (b"lobby", b"@empty"):
        data = bytearray((folder / "log.db").read_bytes())
        at = max(
            found.start() for found in re.finditer(rb"(?s)[\1\2].{7,8}" + name, data)
        )  # a row: its length, its number
        data[at] ^= 4
        (folder / "log.db").write_bytes(data)
        repair(folder, "lobby")
        with closing(Store(folder)) as store:
            assert {name: content(store, name) for name in said} == said
            assert store.open_room("lobby").epoch == epoch
            store.open_room("@new")  # a store takes a hole among its rooms for a loss


@pytest.mark.parametrize("word", [b"KEY", b"TABLE"])
def test_damage_that_sqlite_cannot_quote_in_utf_8(tmp_path: Path, word: bytes) -> None:
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 20)
    data = bytearray((folder / "log.db").read_bytes())
    for found in re.finditer(word, data[: 2 * PAGE]):
        data[found.end() - 1] ^= 0x80
    (folder / "log.db").write_bytes(data)
    with pytest.raises(StoreError):
        backup(folder, tmp_path / "copy")
    assert check(folder, "lobby").faults
    repair(folder, "lobby")
    with closing(Store(folder)) as store:
        assert content(store, "lobby") == frames


def test_a_row_that_another_room_may_own_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        frames = fill(store, "one", 200)
        fill(store, "two", 20)
        two = content(store, "two")
    with closing(sqlite3.connect(folder / "log.db")) as database:  # a flipped bit in the number of the room
        database.execute(
            "UPDATE batches SET at = at + (1 << 48) WHERE at = (SELECT max(at) FROM batches WHERE at < (2 << 48))"
        )
        database.commit()
    one, other = repair(folder, "one").rooms
    with closing(Store(folder)) as store:
        assert content(store, "two") == two
        assert numbers(one.lost) == frames.keys() - content(store, "one").keys() != set()
    assert (other.last, other.lost) == (max(two), [])


def test_rows_that_touch_are_linked() -> None:
    first, other, last = (
        Row(1, number, 5, before, after, 0, place)
        for number, before, after, place in ((1, b"0", b"a", 1), (1, b"0", b"b", 2), (6, b"a", b"c", 3))
    )
    for rows in ([first, other, last], [last, other, first]):
        assert _fit(rows, 1, CHAIN_START) == [first, last]


def test_a_commit_that_was_cut_off_takes_no_number_from_a_message(tmp_path: Path) -> None:
    """Its pages stay in the WAL, behind those of the commits after the next start."""
    folder, other, killed = tmp_path / "room", tmp_path / "other", tmp_path / "killed"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 20)
    shutil.copytree(folder, other)
    with closing(Store(other)) as store:
        fill(store, "lobby", 300, seed=2)
        left = (other / "log.db-wal").read_bytes()[32:]
    with closing(Store(folder)) as store:
        frames = fill(store, "lobby", 3)
        shutil.copytree(folder, killed)
    with (killed / "log.db-wal").open("ab") as wal:
        wal.write(left)
    repair(killed, "lobby")
    with closing(Store(killed)) as store:
        assert content(store, "lobby") == frames
