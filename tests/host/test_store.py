"""The store: real SQLite files, processes that are killed, bits that flip, a disk that is full."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Author, Gap, Rejection
from chat.core.errors import ChatError, StoreError, StoreFull
from chat.core.ledger import REJECTIONS_KEPT, RoomTables
from chat.core.log import Batch, Log
from chat.core.wire import HEADER_SIZE, MAX_BATCH, Kind, split
from chat.host import schema
from chat.host.invites import Terms, terms_of
from chat.host.store import Store
from chat.local.invite import signer
from tests.host.host_fixture import stored_invites

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.host.store import RoomState

ROOT = Path(__file__).parents[2]
NOTHING = RoomTables()
KEY = b"k" * 32


class Kept:
    """A room of a store, with its log: what a host has of it."""

    def __init__(self, store: Store, name: str = "lobby") -> None:
        self.store = store
        self.state = store.open_room(name)
        self.log = Log(
            self.state.epoch,
            next_seq=self.state.next_seq,
            last_time=self.state.last_time,
            older=lambda seq: store.read(self.state.id, seq),
            window=0,
        )

    def say(self, *texts: bytes, changes: RoomTables = NOTHING) -> None:
        """One commit with one batch."""
        for text in texts:
            self.log.append(Kind.SAY, text, time=1000)
        batches = self.log.seal()
        self.store.commit(self.state.id, batches, changes)
        self.log.publish(batches)

    def content(self) -> list[bytes | tuple[int, int]]:
        """What a reader of the whole log gets: texts, and gaps as (first, count)."""
        return contents(self.store, self.state)


def contents(store: Store, state: RoomState) -> list[bytes | tuple[int, int]]:
    found: list[bytes | tuple[int, int]] = []
    seq = 1
    while (piece := store.read(state.id, seq)) is not None:
        if isinstance(piece, Gap):
            assert piece.first == seq
            assert piece.count > 0
            found.append((piece.first, piece.count))
            seq += piece.count
        else:
            frames = list(split(piece.data))
            assert [frame.seq for frame in frames] == list(range(piece.first, piece.next_seq))
            assert piece.first <= seq < piece.next_seq
            assert len(piece.data) <= MAX_BATCH
            found += [frame.body for frame in frames if frame.seq >= seq]
            seq = piece.next_seq
    return found


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


SPEAK = """
import sys
from pathlib import Path
from tests.host.test_store import Kept
from chat.host.store import Store
kept = Kept(Store(Path(sys.argv[1])))
for count in range(int(sys.argv[2])):
    kept.say(b"message %d" % kept.log.next_seq, b"another one" * 40)
    print(kept.log.end - 1, flush=True)
"""


def speak_and_die(folder: Path, commits: int) -> int:
    """Commit in another process and kill it in the middle of more; return the last number it said is stored."""
    child = python(SPEAK, folder, 1_000_000)
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(commits)]
    child.kill()
    told += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return max(int(line) for line in told if line.endswith("\n"))


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def change(folder: Path, *statements: str) -> None:
    """What a program that does not know the rules would do to the database."""
    with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    with closing(Store(folder)) as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "host"


pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- rooms ----------------------------------------------------------------------------------------


def test_a_new_room_is_empty(folder: Path) -> None:
    with opened(folder) as store:
        state = store.open_room("lobby")
        assert (state.next_seq, state.last_time) == (1, 0)
        assert state.tables == RoomTables([], [], [], [], [], [], [])
        assert (len(state.epoch), len(state.invite)) == (8, 16)
        assert store.read(state.id, 1) is None
        assert store.open_room("lobby") == state


def test_no_two_rooms_have_an_epoch_or_a_secret_in_common(folder: Path) -> None:
    with opened(folder) as store:
        states = [store.open_room(name) for name in "abc"]
    assert len({state.id for state in states}) == 3
    assert len({state.epoch for state in states}) == 3
    assert len({state.invite for state in states}) == 3


def test_everything_is_there_after_reopening(folder: Path) -> None:
    authors = [Author(index=n, key=KEY, stream=2**63 - 1 + n, nick=f"ann-{n}") for n in (1, 2)]
    changes = RoomTables(
        authors,
        [(KEY, 2**63, 7), (KEY, 2**64 - 1, 8), (KEY, 0, 9)],
        [("ann", "Ann", KEY), ("bob", "Bob", b"b" * 32)],
        [(KEY, "owner"), (b"b" * 32, "member")],
        [(KEY, 0, False), (b"b" * 32, 2**40, True)],
        reads=[(KEY, 2), (b"b" * 32, 1)],
        admitted=[(b"b" * 32, KEY)],
    )
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"hello", "wörld\n".encode(), b"\x00\xff", changes=changes)
    with opened(folder) as store:
        again = Kept(store)
        assert again.content() == [b"hello", "wörld\n".encode(), b"\x00\xff"]
        state = again.state
        assert state[:3] == kept.state[:3]
        assert (state.next_seq, state.last_time) == (4, 1000)
        assert state.tables.authors == authors
        assert sorted(state.tables.high_water) == sorted(changes.high_water)
        assert sorted(state.tables.nicks) == sorted(changes.nicks)
        assert sorted(state.tables.members) == sorted(changes.members)
        assert sorted(state.tables.invites) == sorted(changes.invites)
        assert sorted(state.tables.reads) == sorted(changes.reads)
        assert state.tables.admitted == []  # no room reads that
        found = again.store._database.execute("SELECT key, invite FROM admitted").fetchall()
        assert found == [(b"b" * 32, KEY)]


def test_later_changes_take_the_place_of_earlier_ones(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"1", changes=RoomTables([], [(KEY, 2**64 - 1, 1)], [("ann", "Ann", KEY)], [(KEY, "member")]))
        kept.say(b"2", changes=RoomTables([], [(KEY, 2**64 - 1, 2)], [("ann", "aNN", KEY)], [(KEY, "banned")]))
        state = store.open_room("lobby")
        assert (state.tables.high_water, state.tables.nicks) == ([(KEY, 2**64 - 1, 2)], [("ann", "aNN", KEY)])
        assert state.tables.members == [(KEY, "banned")]


def test_changes_are_stored_without_messages_too(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        store.commit(kept.state.id, [], RoomTables([], [], [], [(KEY, "member")]))
        store.commit(kept.state.id, [], RoomTables(reads=[(KEY, 1)]))
        store.commit(kept.state.id, [], RoomTables(reads=[(KEY, 2)]))
    with opened(folder) as store:
        state = store.open_room("lobby")
        assert (state.tables.members, state.tables.reads) == ([(KEY, "member")], [(KEY, 2)])


def test_the_newest_rejections_of_a_stream_are_kept(folder: Path) -> None:
    stream = 2**64 - 1
    first = Rejection(number=1, code="too-long", fields={"size": 9, "limit": 8})
    others = [Rejection(number=number, code="no-target") for number in range(3, 141, 2)]
    grown = Rejection(number=139, code="no-target", count=2)
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"1", changes=RoomTables(rejections=[(KEY, stream, first), (KEY, 7, first)]))
        store.commit(kept.state.id, [], RoomTables(rejections=[(KEY, stream, one) for one in others]))
        store.commit(kept.state.id, [], RoomTables(rejections=[(KEY, stream, grown)]))
    with opened(folder) as store:
        tables = store.open_room("lobby").tables
        assert [one for _, their, one in tables.rejections if their == stream] == [*others[-REJECTIONS_KEPT:-1], grown]
        assert [one for _, their, one in tables.rejections if their == 7] == [first]
        assert store.open_room("another").tables.rejections == []


def test_rooms_do_not_see_each_other(folder: Path) -> None:
    with opened(folder) as store:
        one, two = Kept(store, "one"), Kept(store, "two")
        for number in range(3):
            one.say(b"one %d" % number, changes=RoomTables([], [(KEY, 1, number)], [], []))
            two.say(b"two %d" % number)
    with opened(folder) as store:
        two, one = Kept(store, "two"), Kept(store, "one")
        assert one.content() == [b"one 0", b"one 1", b"one 2"]
        assert two.content() == [b"two 0", b"two 1", b"two 2"]
        assert (one.state.tables.high_water, two.state.tables.high_water) == ([(KEY, 1, 2)], [])


FEW, MANY = b"few".ljust(32), b"many".ljust(32)


def test_invites_and_addresses(folder: Path) -> None:
    with opened(folder) as store:
        room, other = store.open_room("lobby").id, store.open_room("other").id
        store.add_invite(room, FEW, 0, 2)
        store.add_invite(room, MANY, 2**40, -1)
        assert store.address(room, "tcp::0") == ""
        store.remember_address(room, "tcp::0", "tcp::7711")
        store.remember_address(room, "tcp::0", "tcp::7712")
    with opened(folder) as store:
        for _ in range(3):
            store.use_invite(room, FEW)
            store.use_invite(room, MANY)
        assert stored_invites(store, room) == [(FEW, 0, 0), (MANY, 2**40, -1)]
        assert stored_invites(store, other) == []
        assert sorted(store.open_room("lobby").tables.invites) == [(FEW, 0, True), (MANY, 2**40, False)]
        assert (store.uses_left(room, FEW), store.uses_left(room, b"of another host")) == (0, 0)
        assert (store.address(room, "tcp::0"), store.address(other, "tcp::0")) == ("tcp::7712", "")


VERSION_3 = """
CREATE TABLE rooms (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch BLOB NOT NULL, invite BLOB NOT NULL);
CREATE TABLE batches (
    at INTEGER PRIMARY KEY, frames INTEGER NOT NULL, before BLOB NOT NULL, chain BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE authors (
    room INTEGER, id INTEGER, key BLOB, stream INTEGER, nick TEXT, PRIMARY KEY (room, id)) WITHOUT ROWID;
CREATE TABLE marks (
    room INTEGER, key BLOB, stream INTEGER, mark INTEGER, PRIMARY KEY (room, key, stream)) WITHOUT ROWID;
CREATE TABLE nicks (
    room INTEGER, skeleton TEXT, nick TEXT, key BLOB, PRIMARY KEY (room, skeleton)) WITHOUT ROWID;
CREATE TABLE members (room INTEGER, key BLOB, role TEXT, PRIMARY KEY (room, key)) WITHOUT ROWID;
CREATE TABLE invites (
    room INTEGER, secret BLOB, expires INTEGER, uses INTEGER, PRIMARY KEY (room, secret)) WITHOUT ROWID;
CREATE TABLE addresses (room INTEGER, asked TEXT, given TEXT, PRIMARY KEY (room, asked)) WITHOUT ROWID;
ALTER TABLE authors ADD COLUMN bot INTEGER NOT NULL DEFAULT 0;
CREATE TABLE reads (room INTEGER, key BLOB, seq INTEGER, PRIMARY KEY (room, key)) WITHOUT ROWID;
PRAGMA user_version = 3;
"""


def test_an_older_database_gets_the_tables_of_a_new_one(tmp_path: Path) -> None:
    found = []
    for name, script in (("old", VERSION_3), ("new", "")):
        with closing(sqlite3.connect(tmp_path / name, isolation_level=None)) as database:
            database.executescript(script)
            schema.prepare(database)
            schema.prepare(database)
            tables = [table for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found.append({table: database.execute(f"PRAGMA table_info({table})").fetchall() for table in tables})
    assert found[0] == found[1]


def test_invites_of_an_older_version_are_kept_by_their_public_keys(folder: Path) -> None:
    """Their texts still open the room, and what they were made of is no longer on the disk."""
    secret = b"sixteen bytes of"
    folder.mkdir(0o700)
    with closing(schema.connect(folder / "log.db")) as database:
        database.executescript(VERSION_3)
        database.execute("INSERT INTO rooms VALUES (1, 'lobby', x'0102030405060708', ?)", (bytes(16),))
        database.execute("INSERT INTO invites VALUES (1, ?, 5, 2), (1, ?, 0, -1)", (secret, bytes(16)))
    with opened(folder) as store:
        key, other = signer(secret).key, signer(bytes(16)).key
        assert stored_invites(store, 1) == sorted([(key, 5, 2), (other, 0, -1)])
        assert sorted(store.open_room("lobby").tables.invites) == sorted([(key, 5, True), (other, 0, False)])
    assert secret not in (folder / "log.db").read_bytes()


def test_a_database_without_terms_of_invites_gets_a_table_for_them(folder: Path) -> None:
    with opened(folder) as store:
        room = store.open_room("lobby").id
        store.add_invite(room, FEW, 0, 2)
    change(folder, "DROP TABLE invite_terms")
    change(folder, "PRAGMA user_version = 9")
    with opened(folder) as store:
        assert terms_of(store, room, FEW) == Terms()
        assert store.uses_left(room, FEW) == 2


# -- reading --------------------------------------------------------------------------------------


def test_a_batch_is_read_as_it_was_stored(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for number in range(5):
            kept.log.append(Kind.SAY, b"%d" % number, time=number)
        batches = kept.log.seal()
        store.commit(kept.state.id, batches, NOTHING)
        assert [store.read(kept.state.id, seq) for seq in range(1, 7)] == batches * 5 + [None]


def test_small_rows_are_read_as_one_batch(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for number in range(20):
            kept.say(b"%d" % number, b"x")
        for seq in (1, 2, 7, 8, 39, 40):
            found = store.read(kept.state.id, seq)
            assert isinstance(found, Batch)
            assert (found.first, found.next_seq) == ((seq - 1) // 2 * 2 + 1, 41)


def test_rows_are_joined_up_to_64_kib_exactly(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for size in (MAX_BATCH // 2, MAX_BATCH // 2, 0, MAX_BATCH // 2, MAX_BATCH // 2, MAX_BATCH):
            kept.say(bytes(max(0, size - HEADER_SIZE)))
        pieces = {}
        for seq in range(1, 7):
            found = store.read(kept.state.id, seq)
            assert isinstance(found, Batch)
            pieces[found.first] = (found.frames, len(found.data))
        half, whole = MAX_BATCH // 2, MAX_BATCH
        assert pieces == {
            1: (2, whole),
            2: (2, half + HEADER_SIZE),
            3: (2, half + HEADER_SIZE),
            4: (2, whole),
            5: (1, half),
            6: (1, whole),
        }


def test_a_log_of_very_many_rows_is_read_whole(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for _ in range(1100):
            kept.log.append(Kind.SAY, b"", time=0)
        (batch,) = kept.log.seal()
        single = [Batch(seq, 1, batch.data[(seq - 1) * HEADER_SIZE : seq * HEADER_SIZE]) for seq in range(1, 1101)]
        store.commit(kept.state.id, single, NOTHING)
        assert kept.content() == [b""] * 1100


def test_what_was_dropped_is_a_gap_up_to_what_is_there(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for number in range(10):
            kept.say(b"%d" % number)
    change(folder, "DELETE FROM batches WHERE at & 0xffffffff < 4 OR at & 0xffffffff IN (6, 7)")
    with opened(folder) as store:
        assert Kept(store).content() == [(1, 3), b"3", b"4", (6, 2), b"7", b"8", b"9"]
        assert store.read(kept.state.id, 7) == Gap(first=7, count=1)
    change(
        folder, "UPDATE batches SET data = x'00' WHERE at & 0xffffffff IN (4, 8)"
    )  # rows are judged behind holes too
    with opened(folder) as store:
        assert Kept(store).content() == [(1, 3), (4, 1), b"4", (6, 2), (8, 1), b"8", b"9"]


def test_what_was_committed_is_read_at_once_and_nothing_before(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"one")
        with pytest.raises(StoreError, match="UNIQUE"):
            store.commit(kept.state.id, [Batch(2, 1, b"two"), Batch(1, 1, b"one again")], NOTHING)
        assert kept.content() == [b"one"]


# -- crashes --------------------------------------------------------------------------------------


def test_what_a_killed_process_committed_is_there(folder: Path) -> None:
    for _ in range(3):
        told = speak_and_die(folder, 10)
        with opened(folder) as store:
            kept = Kept(store)
            assert kept.log.end > told >= 20
            texts = kept.content()
            assert len(texts) == kept.log.end - 1
            assert texts[::2] == [b"message %d" % seq for seq in range(1, kept.log.end, 2)]


def test_another_process_is_kept_out_until_the_first_is_gone(folder: Path) -> None:
    child = python(SPEAK + "print('done', flush=True)\nimport signal; signal.pause()", folder, 1)
    assert child.stdout is not None
    assert child.stdout.readline() == "2\n"
    with pytest.raises(StoreError, match=f"another host uses {folder}; stop it, or choose another"):
        Store(folder)
    child.kill()
    child.wait()
    child.stdout.close()
    with opened(folder) as store:
        assert Kept(store).log.end == 3


def test_a_second_store_in_one_process_is_kept_out_too(folder: Path) -> None:
    with opened(folder), pytest.raises(StoreError, match="another host uses"):
        Store(folder)
    Store(folder).close()


def test_closing_twice_does_nothing(folder: Path) -> None:
    store = Store(folder)
    store.close()
    with opened(folder):
        store.close()
        with pytest.raises(StoreError):
            Store(folder)


# -- what must not be taken for a log --------------------------------------------------------------


def test_a_newer_database_is_left_alone(folder: Path) -> None:
    Store(folder).close()
    change(folder, "PRAGMA user_version = 99")
    before = (folder / "log.db").read_bytes()
    for _ in range(2):  # and a host that was refused keeps nobody out
        with pytest.raises(StoreError, match="is of version 99, this program knows 10; upgrade manywire"):
            Store(folder)
    assert (folder / "log.db").read_bytes() == before


def test_what_is_no_database_is_said_so(folder: Path) -> None:
    folder.mkdir(0o700)
    (folder / "log.db").write_bytes(b"something else entirely" * 100)
    (folder / "log.db").chmod(0o600)
    with pytest.raises(StoreError, match=r"log\.db cannot be opened: file is not a database; run: chat repair ROOM"):
        Store(folder)


def test_a_damaged_schema_is_said_so(folder: Path) -> None:
    Store(folder).close()
    path = folder / "log.db"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE nicks", b"CREATE TABL\xc5 nicks"))
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(folder)


@pytest.mark.parametrize("wrong", ["", "log.db", "log.mark", "lock"])
def test_what_stands_in_the_way_is_said(folder: Path, wrong: str) -> None:
    if wrong:
        folder.mkdir(0o700)
        (folder / wrong).mkdir()
    else:
        folder.write_bytes(b"")
    with pytest.raises(ChatError, match=f"{folder / wrong} is not a .*; move it away"):
        Store(folder)


def test_any_path_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "ä room?mode=memory#%20 'quoted'"
    for _ in range(2):
        with opened(folder) as store:
            Kept(store).say(b"hi")
    assert {path.name for path in folder.iterdir()} == {"log.db", "log.mark", "ballast"}
    assert [path.name for path in tmp_path.iterdir() if path.name != folder.name] == []


def test_nobody_else_can_read_the_files(folder: Path) -> None:
    mask = os.umask(0)
    try:
        with opened(folder) as store:
            Kept(store).say(b"hi")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(("lock", "log.db", "log.db-shm", "log.db-wal", "log.mark", "ballast"), 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_commits_reach_the_disk_before_they_return(folder: Path) -> None:
    with opened(folder) as store:
        asked = [store._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert asked == ["wal", 2]


# -- a log that went back in time -------------------------------------------------------------------


def copy(folder: Path, to: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(to)))


def test_an_older_copy_of_the_database_is_refused(folder: Path) -> None:
    with opened(folder) as store:
        Kept(store).say(b"1", b"2")
    backup = copy(folder, "backup")
    with opened(folder) as store:
        Kept(store).say(b"3", b"4", b"5")
    shutil.copy(backup / "log.db", folder)
    for _ in range(2):
        with opened(folder) as store, pytest.raises(StoreError) as caught:
            store.open_room("lobby")
        assert str(caught.value) == (
            "room 'lobby' has lost messages 3 to 5, which members were shown; "
            "restore a backup, or keep what is left with: chat repair ROOM; members will be told"
        )
    (folder / "log.mark").unlink()
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"another 3")
        assert kept.content() == [b"1", b"2", b"another 3"]


def test_an_older_copy_that_grew_again_is_refused_with_the_newer_mark(folder: Path) -> None:
    with opened(folder) as store:
        Kept(store).say(b"1")
    old = copy(folder, "old")
    with opened(folder) as store:
        Kept(store).say(b"2")
    with opened(old) as store:
        kept = Kept(store)
        kept.say(b"another 2")
        kept.say(b"another 3")
    shutil.copy(old / "log.db", folder)
    with (
        opened(folder) as store,
        pytest.raises(StoreError, match="is not the log that members were shown, at message 2"),
    ):
        store.open_room("lobby")


def test_the_mark_may_be_behind(folder: Path) -> None:
    with opened(folder) as store:
        Kept(store).say(b"1")
    mark = (folder / "log.mark").read_bytes()
    with opened(folder) as store:
        Kept(store).say(b"2")
    (folder / "log.mark").write_bytes(mark)
    with opened(folder) as store:
        assert Kept(store).content() == [b"1", b"2"]


@pytest.mark.parametrize(("length", "last"), [(127, b""), (127, b"\0"), (70, b"\xff" * 58), (0, b"")])
def test_a_torn_mark_claims_nothing(folder: Path, length: int, last: bytes) -> None:
    with opened(folder) as store:
        Kept(store).say(b"1")
    old = copy(folder, "old")
    with opened(folder) as store:
        Kept(store).say(b"2")
    shutil.copy(old / "log.db", folder)
    (folder / "log.mark").write_bytes((folder / "log.mark").read_bytes()[:length] + last)
    with opened(folder) as store:
        assert Kept(store).log.end == 2


def test_a_database_that_is_gone_is_not_begun_anew_quietly(folder: Path) -> None:
    with opened(folder) as store:
        store.open_room("empty")
        Kept(store, "one").say(b"1", b"2")
        Kept(store, "two").say(b"1")
    (folder / "log.db").unlink()
    for name in ("two", "empty", "another", "two"):
        with opened(folder) as store, pytest.raises(StoreError) as caught:
            store.open_room(name)
        assert str(caught.value).startswith(
            f"cannot make room {name!r}: the database has lost 2 of its rooms, with messages 1 to 2 and 1 to 1, "
        )
    (folder / "log.mark").unlink()
    with opened(folder) as store:
        assert store.open_room("two").next_seq == 1


def test_an_older_copy_that_lacks_a_room_is_refused(folder: Path) -> None:
    with opened(folder) as store:
        Kept(store, "one").say(b"1")
    old = copy(folder, "old")
    with opened(folder) as store:
        Kept(store, "two").say(b"1")
    shutil.copy(old / "log.db", folder)
    with opened(folder) as store:
        assert Kept(store, "one").content() == [b"1"]
        with pytest.raises(StoreError, match="lost 1 of its rooms, with messages 1 to 1"):
            store.open_room("two")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_mark_that_cannot_be_written_does_not_fail_the_commit(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(folder) as store, Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), store._marks._fd)
        kept = Kept(store)
        kept.say(b"1")
        kept.say(b"2")
        assert kept.content() == [b"1", b"2"]
    assert "log.mark cannot be written: No space left on device" in caplog.text


# -- damage ----------------------------------------------------------------------------------------


def test_a_flipped_bit_in_the_journal_is_noticed_or_harmless(folder: Path) -> None:
    told = speak_and_die(folder, 12)
    size = (folder / "log.db-wal").stat().st_size
    crashed = copy(folder, "crashed")
    with opened(folder) as store:
        whole = Kept(store).content()
    chance = random.Random(1)
    places = [*(chance.randrange(size) for _ in range(60)), 0, 9, 17, 25, 33, size - 1]
    outcomes = set()
    for number, at in enumerate(places):
        damaged = copy(crashed, f"damaged-{number}")
        flip(damaged / "log.db-wal", at, chance.randrange(8))
        outcomes.add(outcome(damaged, whole, told))
        shutil.rmtree(damaged)
    assert "refused" in outcomes


def outcome(folder: Path, whole: list[bytes | tuple[int, int]], told: int) -> str:
    """Open a damaged store and read it. What there is must be right, what is not must be told.

    Only what was never said to be stored, up to number ``told``, may be missing without a word.
    """
    try:
        store = Store(folder)
    except StoreError:
        return "refused"
    with closing(store):
        try:
            kept = Kept(store)
        except StoreError:
            return "refused"
        try:
            found = kept.content()
        except StoreError:
            return "stopped"
        assert kept.log.end > told
        seq = 1
        for item in found:
            if isinstance(item, tuple):
                seq += item[1]
            else:
                assert item == whole[seq - 1]
                seq += 1
        return "sound" if found == whole[: len(found)] else "gaps"


@pytest.fixture
def three_batches(folder: Path) -> Path:
    """A closed store with messages 1, 2 to 3, and 4 in a batch each, larger than SQLite's pages."""
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"first " * 2000)
        kept.say(b"second " * 2000, b"2")
        kept.say(b"third " * 2000)
    return folder


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (b"first ", [(1, 1), b"second " * 2000, b"2", b"third " * 2000]),
        (b"second ", [b"first " * 2000, (2, 2), b"third " * 2000]),
        (b"third ", [b"first " * 2000, b"second " * 2000, b"2", (4, 1)]),
    ],
)
def test_a_flipped_bit_in_a_message_is_a_gap_and_the_rest_is_there(
    three_batches: Path, marker: bytes, content: list[bytes | tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    file = (three_batches / "log.db").read_bytes()
    flip(three_batches / "log.db", file.index(marker * 3), 3)
    with opened(three_batches) as store:
        kept = Kept(store)
        assert kept.content() == content
        assert "on the disk are damaged; members are told of a gap" in caplog.text
        kept.say(b"it goes on")  # behind a damaged row as well
        assert kept.content()[-1] == b"it goes on"
    with opened(three_batches) as store:
        assert Kept(store).content() == [*content, b"it goes on"]


def test_the_gap_that_is_told_begins_where_one_asks(three_batches: Path) -> None:
    flip(three_batches / "log.db", (three_batches / "log.db").read_bytes().index(b"second second "))
    with opened(three_batches) as store:
        room = store.open_room("lobby").id
        assert [store.read(room, seq) for seq in (2, 3)] == [Gap(first=2, count=2), Gap(first=3, count=1)]


@pytest.mark.parametrize(
    "damage",
    [
        "data = cast(data AS TEXT)",
        "data = x''",
        "data = 5",
        "frames = 3",
        "frames = 1",
        "frames = 0",
        "frames = -1",
        "frames = 1 << 40",
        "frames = 'x'",
        "frames = x'ff'",
        "chain = x'00'",
        "chain = 1.5",
        "before = x'00'",
        "before = 'x'",
    ],
)
def test_no_damage_to_a_row_is_taken_for_messages(three_batches: Path, damage: str) -> None:
    change(three_batches, f"UPDATE batches SET {damage} WHERE at & 0xffff = 2")
    with opened(three_batches) as store:
        found = Kept(store).content()
    if damage == "data = cast(data AS TEXT)":  # the same bytes: nothing is lost
        assert found == [b"first " * 2000, b"second " * 2000, b"2", b"third " * 2000]
        return
    assert found[0] == b"first " * 2000
    told = sum(item[1] if isinstance(item, tuple) else 1 for item in found)
    assert told == 4
    assert b"second " * 2000 not in found


def test_no_type_can_be_null_in_what_the_chain_judges(three_batches: Path) -> None:
    change(
        three_batches,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'batches'",
    )
    for column in ("data", "chain", "before", "frames"):
        damaged = copy(three_batches, column)
        change(damaged, f"UPDATE batches SET {column} = NULL WHERE at & 0xffff = 2")
        with opened(damaged) as store:
            assert Kept(store).content()[:2] == [b"first " * 2000, (2, 2)]


def test_a_damaged_last_row_does_not_stop_the_room(three_batches: Path) -> None:
    with opened(three_batches) as store:
        Kept(store).say(b"5", b"6")
    smaller = copy(three_batches, "smaller")
    change(smaller, "UPDATE batches SET frames = -5 WHERE at & 0xffff = 5")
    with opened(smaller) as store, pytest.raises(StoreError, match="has lost messages 6 to 6"):
        store.open_room("lobby")
    change(three_batches, "UPDATE batches SET frames = 1 << 40 WHERE at & 0xffff = 5")
    with opened(three_batches) as store:
        kept = Kept(store)
        assert kept.state.last_time == 0
        kept.say(b"it goes on")
        # As many numbers as a batch can have are told to be lost, and no more.
        assert kept.content()[4:] == [(5, MAX_BATCH // HEADER_SIZE), b"it goes on"]


def test_a_row_that_sqlite_cannot_read_is_a_gap(three_batches: Path) -> None:
    """A page of a long row points to the next one: such a pointer may lead out of the file."""
    path = three_batches / "log.db"
    data = path.read_bytes()
    page = data.index(b"second " * 500, data.index(b"second " * 500) + 4096) // 4096 * 4096
    path.write_bytes(data[:page] + b"\xff\xff\xff\xff" + data[page + 4 :])
    with opened(three_batches) as store:
        kept = Kept(store)
        assert kept.content() == [b"first " * 2000, (2, 2), b"third " * 2000]
        kept.say(b"it goes on")
        assert kept.content()[2:] == [b"third " * 2000, b"it goes on"]


def test_no_flipped_bit_anywhere_makes_a_false_message_or_a_crash(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        for number in range(12):
            kept.say(b"message %d " % number * (20 * number), b"short")
    whole = None
    with opened(folder) as store:
        whole = Kept(store).content()
    sound = (folder / "log.db").read_bytes()
    chance = random.Random(2)
    outcomes = set()
    for _ in range(150):
        flip(folder / "log.db", chance.randrange(len(sound)), chance.randrange(8))
        outcomes.add(outcome(folder, whole, len(whole)))
        for path in folder.glob("log.db*"):
            path.unlink()
        (folder / "log.db").write_bytes(sound)
        (folder / "log.db").chmod(0o600)
    assert {"sound", "gaps"} <= outcomes


# -- a disk that fails -----------------------------------------------------------------------------


def pages(store: Store, limit: int | None = None) -> int:
    """Set how many pages the database may have; the least is what it has. This is SQLite's own full disk."""
    (count,) = store._database.execute("PRAGMA page_count").fetchone()
    return int(store._database.execute(f"PRAGMA max_page_count = {limit or count}").fetchone()[0])


def test_a_full_disk_stores_all_or_nothing_and_goes_on_when_there_is_room(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"before")
        room = kept.state.id
        pages(store)
        changes = RoomTables([], [(KEY, 1, 1)], [("ann", "Ann", KEY)], [(KEY, "member")])
        kept.log.append(Kind.SAY, b"small", time=0)
        batches = kept.log.seal()
        kept.log.append(Kind.SAY, bytes(60_000), time=0)
        waiting = kept.log.seal()
        assert waiting[0] is batches[0]
        for _ in range(3):
            with pytest.raises(StoreFull, match="the disk is full; messages wait until there is room again"):
                store.commit(room, waiting, changes)
            assert kept.content() == [b"before"]  # reading goes on
        with pytest.raises(StoreFull):
            store.add_invite(room, bytes(5000), 0, 1)
        with pytest.raises(StoreFull):
            store.remember_address(room, "tcp", "x" * 20_000)
        half = store.open_room("lobby")
        assert (half.next_seq, half.tables.high_water, half.tables.nicks, half.tables.members) == (2, [], [], [])
        pages(store, 10_000)
        store.commit(room, waiting, changes)
        kept.log.publish(waiting)
    with opened(folder) as store:
        after = Kept(store)
        assert after.content() == [b"before", b"small", bytes(60_000)]
        assert (after.state.tables.high_water, after.state.tables.members) == ([(KEY, 1, 1)], [(KEY, "member")])


def test_a_full_disk_makes_no_room_either(folder: Path) -> None:
    with opened(folder) as store:
        pages(store)
        with pytest.raises(StoreFull):
            store.open_room("x" * 5000)
        pages(store, 10_000)
        assert store.open_room("x" * 5000).next_seq == 1


def test_a_write_that_failed_stores_nothing_and_can_be_tried_again(folder: Path) -> None:
    """A limit on file sizes makes the system's write fail in the middle of a commit."""
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"before")
        room = kept.state.id
        kept.log.append(Kind.SAY, bytes(60_000), time=0)
        waiting = kept.log.seal()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "log.db-wal").stat().st_size + 8192, hard))
        try:
            for _ in range(2):
                with pytest.raises(
                    StoreFull, match="cannot be written now: disk I/O error; messages wait until it can"
                ):
                    store.commit(room, waiting, NOTHING)
                assert kept.content() == [b"before"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        store.commit(room, waiting, NOTHING)
        assert kept.content() == [b"before", bytes(60_000)]
    with opened(folder) as store:
        assert Kept(store).content() == [b"before", bytes(60_000)]


def test_after_a_failure_that_cannot_pass_nothing_is_ever_written(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"before")
        room = kept.state.id
        with pytest.raises(StoreError, match="UNIQUE constraint failed") as caught:
            store.commit(room, [Batch(1, 1, b"again")], NOTHING)
        assert not isinstance(caught.value, StoreFull)
        for write in (
            lambda: store.commit(room, [], NOTHING),
            lambda: store.add_invite(room, b"", 0, 0),
            lambda: store.remember_address(room, "", ""),
            lambda: store.open_room("another"),
        ):
            with pytest.raises(StoreError, match="no longer accepted"):
                write()
        assert kept.content() == [b"before"]
    with opened(folder) as store:
        assert Kept(store).content() == [b"before"]


def test_a_fault_of_the_caller_leaves_no_transaction_open(folder: Path) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        with pytest.raises(OverflowError):
            store.add_invite(kept.state.id, b"", 2**70, 1)
        kept.say(b"hi")
        assert stored_invites(store, kept.state.id) == []


def test_a_database_that_cannot_be_read_is_said_so(folder: Path) -> None:
    with opened(folder) as store:
        room = store.open_room("lobby").id
        store._database.execute("DROP TABLE batches")
        store._database.execute("DROP TABLE invite_uses")
        store._database.execute("DROP TABLE nicks")
        for read in (lambda: store.read(room, 1), lambda: store.uses_left(room, b""), lambda: store.open_room("lobby")):
            with pytest.raises(StoreError, match="the database cannot be read: no such table"):
                read()


# -- threads ---------------------------------------------------------------------------------------


def test_threads_commit_while_the_loop_reads_and_writes(folder: Path) -> None:
    failed = []
    with opened(folder) as store:
        kept = [Kept(store, name) for name in ("one", "two", "three")]

        def speak(room: Kept) -> None:
            try:
                for number in range(60):
                    room.say(b"%d" % number)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=speak, args=(room,)) for room in kept]
        for thread in threads:
            thread.start()
        try:
            room = kept[0].state.id
            store.add_invite(room, bytes(32), 0, 60)
            seen = 0
            while any(thread.is_alive() for thread in threads):
                store.use_invite(room, bytes(32))
                found = kept[0].content()
                assert found == [b"%d" % number for number in range(len(found))]
                assert len(found) >= seen
                seen = len(found)
        finally:  # else the store would be closed under them, which crashes the interpreter
            for thread in threads:
                thread.join()
        assert failed == []
        assert [one.content() for one in kept] == [[b"%d" % number for number in range(60)]] * 3


def test_what_is_committed_while_somebody_reads_is_no_gap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as store:
        kept = Kept(store)
        kept.say(b"one")
        reader = store._reader

        class Meanwhile:
            """A reader between whose first two queries others commit."""

            def execute(self, query: str, given: tuple[int, ...]) -> sqlite3.Cursor:
                if kept.log.end == 2:
                    found = reader.execute(query, given).fetchall()
                    kept.say(b"two")
                    kept.say(b"three")
                    return reader.execute("SELECT ?, ?, ?", found[0])
                return reader.execute(query, given)

        monkeypatch.setattr(store, "_reader", Meanwhile())
        assert not isinstance(store.read(kept.state.id, 2), Gap)
        assert kept.content() == [b"one", b"two", b"three"]
