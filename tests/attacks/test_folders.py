"""A room's folder from somebody else: links, FIFOs, wrong modes and owners, and a database that was made to harm."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Author, Moderation, pack
from chat.core.errors import ChatError, StoreError
from chat.core.log import Log
from chat.core.room import Room
from chat.core.wire import HEADER_SIZE, Kind, encode
from chat.host import schema
from chat.host.repair import check, repair
from chat.host.store import SEQ_MASK, Store, link
from chat.host.tables import put_row
from chat.local.rooms import folder_name
from tests.cli.programs import run_here
from tests.host.host_fixture import HostFixture, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

NOBODY: Final = 65534
OWNER: Final = b"o" * 32
FILES: Final = ("lock", "log.db", "log.db-wal", "log.db-shm", "log.db-journal", "log.mark", "search-1.db", "host.log")
COMMANDS: Final = {
    "host": ("host", "lobby", "--headless"),
    "check": ("check", "lobby"),
    "repair": ("repair", "lobby"),
    "backup": ("backup", "lobby", "FILE"),
    "restore": ("restore", "BACKUP"),
    "import": ("import", "NDJSON", "lobby"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a room in which two have spoken, and one was made an operator."""
    folder = tmp_path_factory.mktemp("made")

    async def scene() -> None:
        async with HostFixture(folder) as fixture, fixture.members("owner", "ann") as (owner, ann):
            await ann.stored(await ann.say("hello"))
            fixture.hosted.room.decide_now(
                Moderation(action="topic", by=fixture.owner.key, by_nick="owner", text="cats"), 1
            )
            await owner.stored(await owner.say("and hello"))

    run(scene())
    return folder


@pytest.fixture
def room(made: Path, tmp_path: Path) -> Path:
    """A copy of it, as the room of a user whose data folder is ``tmp_path/me``."""
    folder = tmp_path / "me/rooms" / folder_name("lobby")
    shutil.copytree(made / "store", folder)
    for path in (tmp_path / "me", tmp_path / "me/rooms"):
        path.chmod(0o700)
    return folder


def run_on(room: Path, name: str) -> CompletedProcess[str]:
    """Run a command on the room's folder."""
    me = room.parents[1]
    places = {"FILE": me / "copy", "BACKUP": me / "backup", "NDJSON": me / "messages"}
    shutil.copyfile(me / "made.db", me / "backup") if (me / "made.db").exists() else None
    (me / "messages").write_text("")
    return run_here(me, *(str(places.get(word, word)) for word in COMMANDS[name]))


def refused(room: Path, name: str) -> str:
    """Return the one line that a command says."""
    done = run_on(room, name)
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("chat: ")
    assert "bug" not in line
    return line


# -- what lies in the folder -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_opened_through_a_link(room: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o644)
    (room / name).unlink(missing_ok=True)
    (room / name).symlink_to(victim)
    before = sorted(room.iterdir())
    for one in (Store, lambda folder: check(folder, "lobby"), lambda folder: repair(folder, "lobby")):
        with pytest.raises(ChatError, match=f"{name} is not a regular file; move it away"):
            one(room)
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (b"precious", 0o644)
    assert sorted(room.iterdir()) == before


WRONG: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "a FIFO": (lambda path: os.mkfifo(path, 0o600), "is not a regular file"),
    "a folder": (lambda path: path.mkdir(), "is not a regular file"),
    "open to others": (lambda path: path.touch(0o644), "(mode 0644); run: chmod 600"),
    "another's": (lambda path: os.close(os.open(path, os.O_CREAT, 0o600)), f"belongs to user {NOBODY}"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["lock", "log.db", "log.mark"])
def test_only_private_files_are_opened(room: Path, name: str, wrong: str) -> None:
    change, why = WRONG[wrong]
    if wrong == "another's" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (room / name).unlink(missing_ok=True)
    umask = os.umask(0)
    change(room / name)
    os.umask(umask)
    if wrong == "another's":
        os.chown(room / name, NOBODY, -1)
    with pytest.raises(ChatError) as caught:
        Store(room)
    assert f"{room / name} " in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_so_in_one_line(room: Path, name: str) -> None:
    shutil.copyfile(room / "log.db", room.parents[1] / "made.db")
    mark = room / "log.mark"
    mark.rename(room / "moved")
    mark.symlink_to(room / "moved")
    assert refused(room, name).endswith(f"{mark} is not a regular file; move it away")


def test_a_folder_that_others_may_enter_is_refused(room: Path) -> None:
    room.chmod(0o755)
    assert "run: chmod 700" in refused(room, "check")
    room.chmod(0o700)
    room.rename(room.with_name("moved"))
    room.symlink_to(room.with_name("moved"))
    assert "is not a folder; move it away" in refused(room, "check")


# -- what lies in the database ---------------------------------------------------------------------

SCHEMAS: Final = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON batches BEGIN DELETE FROM members; END",
    "view": "CREATE VIEW v AS SELECT 1",
    "index": "CREATE INDEX i ON batches (abs(frames))",
    "table": "CREATE TABLE more (x)",
    "virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "a view for a table": "DROP TABLE members; CREATE VIEW members AS SELECT 1 AS room, x'00' AS key, 'x' AS role",
    "another column": "ALTER TABLE reads ADD COLUMN x",
    "a computed column": "ALTER TABLE reads ADD COLUMN x GENERATED ALWAYS AS (abs(seq)) VIRTUAL",
}


@contextmanager
def changing(room: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(room / "log.db", isolation_level=None)) as database:
        database.create_function("row_digest", -1, schema.row_digest)
        yield database


@pytest.mark.parametrize("what", SCHEMAS)
def test_nothing_runs_that_no_host_has_made(room: Path, what: str) -> None:
    with changing(room) as database:
        database.executescript(SCHEMAS[what])
        before = database.execute("SELECT * FROM sqlite_schema").fetchall()
    with pytest.raises(StoreError, match=r"it has the .*, which no host makes|has other columns than a host makes"):
        Store(room)
    assert "host makes" in refused(room, "backup")
    assert "host makes" in check(room, "lobby").faults[0]
    with changing(room) as database:
        assert database.execute("SELECT * FROM sqlite_schema").fetchall() == before
    repair(room, "lobby")
    Store(room).close()


# -- what its rows say -----------------------------------------------------------------------------


def put(database: sqlite3.Connection, table: str, *row: object) -> None:
    put_row(database, table, *row)
    database.execute("DELETE FROM checkpoints")


@contextmanager
def opened(room: Path) -> Iterator[Room]:
    """The room, as a host has it that opens the folder."""
    with closing(Store(room)) as store:
        state = store.open_room("lobby")
        log = Log(state.epoch, next_seq=state.next_seq, older=lambda seq: store.read(state.id, seq))
        yield Room("lobby", log, state.tables, owners=frozenset({OWNER}))


def test_an_owner_is_known_by_the_key_alone(room: Path) -> None:
    forged = Moderation(action="role", by=OWNER, by_nick="owner", key=b"e" * 32, nick="eve", role="owner")
    with changing(room) as database:
        put(database, "members", 1, b"m" * 32, "owner")
        put(database, "moderated", 1, b"t" * 32, "owner", 0)
        append(database, lambda seq: encode(Kind.MODERATION, pack(Kind.MODERATION, forged)[HEADER_SIZE:], seq=seq))
    with opened(room) as lobby:
        assert lobby.role_of(OWNER) == "owner"
        for key in (b"m" * 32, b"t" * 32, b"e" * 32):
            assert lobby.role_of(key) == "member"
            assert not lobby.is_trusted(key)


ODD: Final = (None, -1, 2**63 - 1, 1.5, "x", b"", b"y" * 5000)


@pytest.mark.parametrize(
    "values", [ODD[:2], *[pytest.param((value,), marks=pytest.mark.slow) for value in ODD]], ids=str
)
def test_rows_with_other_values_are_damage(
    room: Path, values: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """All that a digest proves is that nobody flipped a bit since it was computed."""
    with changing(room) as database:
        for number, table in enumerate(schema.TABLES):
            if table in {"rooms", "cuts"}:
                continue
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")][:-1]
            for at in range(columns[0] == "room", len(columns)):
                row: list[object] = [1, *(b"k%d" % at * 16 for _ in columns[1:])]
                with suppress(sqlite3.IntegrityError, OverflowError):
                    row[at] = values[(number + at) % len(values)]
                    put(database, table, *row)
    with opened(room) as lobby:
        assert lobby.key_of("ann")
        assert not [key for key in lobby.known_keys() if len(key) != 32]
    assert "damaged and not used" in caplog.text
    report = check(room, "lobby")
    assert any("rows of the table" in fault for fault in report.faults)
    assert not report.rooms[0].lost
    repair(room, "lobby")
    assert check(room, "lobby").is_sound


def test_a_room_with_another_kind_of_value_is_not_opened(room: Path) -> None:
    with changing(room) as database:
        database.execute("UPDATE rooms SET epoch = 'a text'")
        database.execute("UPDATE rooms SET digest = row_digest('rooms', id, name, epoch, invite, chain_base)")
    assert "the table of rooms is damaged; run: chat repair lobby" in refused(room, "host")


# -- what its log says -----------------------------------------------------------------------------

AUTHOR: Final = pack(Kind.AUTHOR, Author(index=2**32 - 1, key=OWNER, stream=1, nick="x"))[HEADER_SIZE:]
FRAMES: Final[dict[str, Callable[[int], bytes]]] = {
    "no frames": lambda _seq: b"garbage",
    "nothing": lambda _seq: b"",
    "half a frame": lambda seq: encode(Kind.SAY, b"x", seq=seq, author=1)[:-1],
    "a frame of no length": lambda _seq: bytes(HEADER_SIZE),
    "another number": lambda seq: encode(Kind.SAY, b"x", seq=seq + 1, author=1),
    "an author who cannot be read": lambda seq: encode(Kind.AUTHOR, b"x", seq=seq, author=9),
    "another author than the frame's": lambda seq: encode(Kind.AUTHOR, AUTHOR, seq=seq, author=9),
    "the last of all authors": lambda seq: encode(Kind.SAY, b"x", seq=seq, author=2**32 - 1),
    "a decision that cannot be read": lambda seq: encode(Kind.MODERATION, b"\x80", seq=seq),
}


def append(database: sqlite3.Connection, make: Callable[[int], bytes]) -> None:
    """Add a row of one frame to the log, with a chain that holds."""
    query = "SELECT at, frames, chain FROM batches WHERE at >> 48 = 1 ORDER BY at DESC LIMIT 1"
    at, count, before = database.execute(query).fetchone()
    data = make((at & SEQ_MASK) + count)
    chain = link(before, (at & SEQ_MASK) + count, 1, data)
    database.execute("INSERT INTO batches VALUES (?, 1, ?, ?, ?)", (at + count, before, chain, data))
    database.execute("DELETE FROM checkpoints")


@pytest.mark.parametrize("what", FRAMES)
def test_a_log_that_no_host_has_made_is_damage(room: Path, what: str) -> None:
    with changing(room) as database:
        append(database, FRAMES[what])
        append(database, lambda seq: encode(Kind.SAY, b"sound", seq=seq, author=1))
    with suppress(StoreError), opened(room) as lobby:  # a gap, or refused
        assert lobby.key_of("ann")
    for name in ("check", "repair", "backup"):
        assert "bug" not in run_on(room, name).stderr
    with opened(room) as lobby:
        assert lobby.key_of("ann")
        assert (lobby.log.frame_at(5) or b"").endswith(b"and hello")
    assert not check(room, "lobby").faults
