"""Bits that flip in the host's files: each is reported or harmless.

Never is there a wrong text or name, nor a receipt for what is not stored.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Author
from chat.core.errors import StoreError
from chat.core.log import Log
from chat.core.room import Room
from chat.core.sequencer import AddInvite, Append, ClaimNick, Reject, SetRole
from chat.core.text import skeleton
from chat.core.wire import Kind, encode
from chat.host.schema import row_digest
from chat.host.store import Store
from chat.host.tables import put_rows
from tests.host.test_store import Kept, change, contents, flip

if TYPE_CHECKING:
    from pathlib import Path

    from chat.core.ledger import RoomTables
    from chat.host.store import RoomState

PEOPLE = {b"a" * 32: "ann", b"b" * 32: "bob", b"c" * 32: "小北"}
TABLES = "authors", "streams", "nicks", "members", "invites", "rejections", "reads", "rooms", "checkpoints"


def make_room(folder: Path, *, killed: bool) -> tuple[RoomState, list[bytes | tuple[int, int]]]:
    """A room in which three people talk, as a store holds it; ``killed``: all of it is still in the WAL."""
    store = Store(folder)
    state = store.open_room("lobby")
    room = Room("lobby", Log(state.epoch), state.tables)

    def commit() -> None:
        batches, changes = room.log.seal(), room.take_changes()
        store.commit(state.id, batches, changes)
        room.committed(batches, changes)

    for key, nick in PEOPLE.items():
        room.apply([ClaimNick(key, nick, skeleton(nick)), SetRole(key, "member"), AddInvite(key, 5, True)])
    commit()
    store.add_invite(state.id, b"i" * 32, 0, 2)  # not last: the mark beside the database counts messages
    for number in range(1, 41):
        for stream, (key, nick) in enumerate(PEOPLE.items()):
            if number % 7 == stream:
                room.apply([Reject(key, stream, number, "no-target", {})])
            else:
                data = encode(Kind.SAY, b"%d of %s " % (number, nick.encode()) * number)
                room.apply([Append(key, stream, nick, False, number, number, data, [len(data)])])
            room.has_read(key, room.log.end - 1)
        commit()
    state = store.open_room("lobby")
    whole = contents(store, state)
    copies = {path.name: path.read_bytes() for path in folder.iterdir()} if killed else {}
    store.close()
    for name, data in copies.items():
        (folder / name).write_bytes(data)
    return state, whole


def sorted_tables(tables: RoomTables) -> dict[str, list[object]]:
    return {name: sorted(rows, key=repr) for name, rows in vars(tables).items()}


def outcome(folder: Path, state: RoomState, whole: list[bytes | tuple[int, int]]) -> str:
    """Open a damaged room, read all of it, and check what it says."""
    try:
        with closing(Store(folder)) as store:
            found = store.open_room("lobby")
            assert found.epoch == state.epoch, "another room of the same name"
            log = contents(store, found)
    except StoreError:
        return "refused"
    seq = 1
    for item in log:
        assert isinstance(item, tuple) or item == whole[seq - 1]
        seq += item[1] if isinstance(item, tuple) else 1
    assert found.next_seq == len(whole) + 1  # up to there, ``Log.read`` makes a gap of what the store does not find
    known = {author.index: author for author in state.tables.authors}
    for author in found.tables.authors:
        assert author in (known[author.index], Author(index=author.index, key=b"", stream=0, nick="?"))
    assert len(found.tables.authors) == len(known), "the next author would get a number that another has"
    marks = {(key, stream): number for key, stream, number in state.tables.high_water}
    for key, stream, number in found.tables.high_water:
        assert number <= marks[key, stream], "a message that nobody said counts as stored"
    ours, theirs = sorted_tables(state.tables), sorted_tables(found.tables)
    for name in ("nicks", "members", "invites", "rejections", "reads"):
        assert all(row in ours[name] for row in theirs[name])
    ours["rejections"] = theirs["rejections"]  # without a row the reason is unknown, and that is all
    if theirs != ours:
        return "rows are missing"
    return "whole" if log == whole else "the log has a gap"


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_flipped_bit_anywhere_is_reported_or_harmless(
    tmp_path: Path, killed: bool, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    made = tmp_path / "made"
    state, whole = make_room(made, killed=killed)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    chance = random.Random(12)
    places = places_in(made, files, chance, 12 if request.config.getoption("--slow") else 2)
    found: Counter[str] = Counter()
    for number, (name, at) in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir(0o700)
        for other, data in files.items():
            (folder / other).write_bytes(data)
            (folder / other).chmod(0o600)
        flip(folder / name, at, chance.randrange(8))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            what = outcome(folder, state, whole)
        assert what != "rows are missing" or caplog.records, f"something is gone, and nobody was told: {name} at {at}"
        found[f"{what}, and reported" if what == "whole" and caplog.records else what] += 1
    print(f"{len(places)} flipped bits: {dict(found)}")
    assert found["whole"]
    assert found["refused"]


def places_in(folder: Path, files: dict[str, bytes], chance: random.Random, share: int) -> list[tuple[str, int]]:
    """Return places, in each file and in each table's first page. Bytes of zero are mostly unused."""
    places = [(name, chance.randrange(len(data))) for name, data in files.items() if data for _ in range(10 * share)]
    places += [("log.db", at) for at in range(0, min(100, len(files["log.db"])), 1 + 12 // share)]  # the header
    database = files["log.db"]
    with closing(sqlite3.connect(folder / "log.db")) as opened:
        roots = dict(opened.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    for name in TABLES:
        page = 4096 * (roots[name] - 1)
        used = [at for at in range(page, page + 4096) if at < len(database) and database[at]]
        places += [("log.db", at) for at in chance.sample(used, min(len(used), 6 * share))]
    return places


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE streams SET high_water = high_water + 4",
        "UPDATE streams SET high_water = high_water - 4",
        "UPDATE streams SET stream = stream + 8",
        "DELETE FROM streams",
        "UPDATE authors SET nick = 'eve'",
        "UPDATE authors SET key = x'00'",
        "UPDATE authors SET id = id + 4",
        "UPDATE authors SET nick = cast(x'ff' AS TEXT)",
        "DELETE FROM authors WHERE id = 2",
        "DELETE FROM authors",
        "UPDATE nicks SET key = x'00'",
        "DELETE FROM nicks",
        "DELETE FROM checkpoints",
        "UPDATE checkpoints SET total = x'00'",
    ],
)
def test_what_the_log_proves_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    state, whole = make_room(tmp_path / "host", killed=False)
    change(tmp_path / "host", damage)
    for told in (True, False):  # once: what is made anew is stored
        caplog.clear()
        assert outcome(tmp_path / "host", state, whole) == "whole"
        assert bool(caplog.records) == told or "checkpoints" in damage


@pytest.mark.parametrize("damage", ["DELETE FROM members", "UPDATE invites SET expires = 6"])
def test_what_the_log_does_not_prove_is_reported(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    state, whole = make_room(tmp_path / "host", killed=False)
    change(tmp_path / "host", damage)
    assert outcome(tmp_path / "host", state, whole) == "rows are missing"
    assert caplog.records


def test_rows_as_they_were_before_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A write that the disk lost: each row fits its digest, and is not the newest."""
    state, whole = make_room(tmp_path / "host", killed=False)
    old = [(1, key, stream, 3) for stream, key in enumerate(PEOPLE)]
    with closing(sqlite3.connect(tmp_path / "host" / "log.db")) as database, database:
        put_rows(database, "streams", [(*row, row_digest("streams", *row)) for row in old])
    assert outcome(tmp_path / "host", state, whole) == "whole"
    assert "3 rows are made anew from the log" in caplog.text


def test_a_room_whose_row_is_damaged_is_not_begun_anew(tmp_path: Path) -> None:
    for damage in ("name = 'lobbx'", "epoch = x'00'", "invite = x'00'", "chain_base = 1", "id = 7"):
        folder = tmp_path / damage
        make_room(folder, killed=False)
        change(folder, f"UPDATE rooms SET {damage}")
        with closing(Store(folder)) as store, pytest.raises(StoreError, match="the table of rooms is damaged"):
            store.open_room("lobby")


# -- the mark ---------------------------------------------------------------------------------------


def lose_the_last(folder: Path) -> list[bytes]:
    """Have three messages stored, and lose the last two. Returns the slots of the mark, the newer one last."""
    old = b""
    for text in (b"1", b"2", b"3"):
        with closing(Store(folder)) as store:
            Kept(store).say(text)
        old = old or (folder / "log.db").read_bytes()
    (folder / "log.db").write_bytes(old)
    data = (folder / "log.mark").read_bytes()
    return sorted((data[at : at + 64] for at in (128, 192)), key=lambda slot: slot[8:16])


def test_a_damaged_mark_leaves_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = lose_the_last(tmp_path)
    path = tmp_path / "log.mark"
    for slot, lost in ((newer, "2 to 2"), (older, "2 to 3")):
        data = path.read_bytes()
        flip(path, data.index(slot) + 40)
        with closing(Store(tmp_path)) as store, pytest.raises(StoreError, match=f"has lost messages {lost}"):
            store.open_room("lobby")
        assert "one of the two marks of room 1" in caplog.text
        path.write_bytes(data)
        caplog.clear()


@pytest.mark.parametrize("torn", [False, True])
def test_a_mark_that_cannot_be_read_is_reported(tmp_path: Path, torn: bool, caplog: pytest.LogCaptureFixture) -> None:
    lose_the_last(tmp_path)
    path = tmp_path / "log.mark"
    if torn:
        path.write_bytes(path.read_bytes()[:170])
    else:
        flip(path, 130)
        flip(path, 250)
    for told in (True, False):
        with closing(Store(tmp_path)) as store:
            Kept(store).say(b"it goes on")
        assert ("mark of room 'lobby' cannot be read" in caplog.text) == told
        caplog.clear()


def test_a_mark_of_one_slot_is_brought_up_to_date(tmp_path: Path) -> None:
    """As version 6 of the database had it: each room's slot at its number."""
    _, newer = lose_the_last(tmp_path)
    (tmp_path / "log.mark").write_bytes(bytes(64) + newer)
    for _ in range(2):
        with closing(Store(tmp_path)) as store, pytest.raises(StoreError, match="has lost messages 2 to 3"):
            store.open_room("lobby")
    assert (tmp_path / "log.mark").read_bytes() == bytes(128) + newer + bytes(64)
