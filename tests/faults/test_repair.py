"""Damaged rooms: what `chat repair` brings back, what it says is lost, and that it makes nothing up."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest

from chat.core.bodies import Gap, Rejection, direct_name
from chat.core.errors import StoreError, StoreFull
from chat.core.ledger import Ledger, RoomTables
from chat.core.log import Log
from chat.core.sequencer import Append, ClaimNick, SetRole
from chat.core.text import skeleton
from chat.core.wire import Kind, encode, split
from chat.host.backup import verify
from chat.host.invites import Terms, terms_of
from chat.host.repair import check, repair
from chat.host.store import Store
from chat.host.tables import put_row
from tests.cli.programs import CHAT, host, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.core.sequencer import Submission

PAGE = 4096
KEYS = {nick: nick.encode() * 32 for nick in "abcde"}

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def fill(store: Store, name: str, messages: int, seed: int = 1) -> dict[int, bytes]:
    """Say so many messages in a room, in commits as a busy host makes them; return the log's frames by number."""
    chance = random.Random(seed)
    store._database.execute("PRAGMA synchronous = OFF")  # nobody cuts the power here, and fsync takes seconds
    state = store.open_room(name)
    log = Log(state.epoch, next_seq=state.next_seq, older=lambda seq: store.read(state.id, seq))
    ledger = Ledger(log, state.tables)
    high_water = {key: number for key, _stream, number in state.tables.high_water}
    numbers = {nick: high_water.get(key, 0) for nick, key in KEYS.items()}
    said = 0
    while said < messages:
        batch: list[Submission] = []
        if not said:
            for nick, key in KEYS.items():
                batch += [ClaimNick(key, nick, skeleton(nick)), SetRole(key, "member")]
        for nick in chance.sample(list(KEYS), 2):
            frames = []
            for _ in range(min(chance.choice((1, 2, 5, 40)), messages - said)):
                numbers[nick] += 1
                said += 1
                body = f"{nick} says {numbers[nick]}: {'x' * chance.choice((0, 30, 300))}".encode()
                frames.append(encode(Kind.SAY, body, number=numbers[nick]))
            ends = [sum(map(len, frames[: end + 1])) for end in range(len(frames))]
            if frames:
                first = numbers[nick] - len(frames) + 1
                batch.append(Append(KEYS[nick], 7, nick, False, first, 1000 + said, b"".join(frames), ends))
        ledger.apply(batch)
        batches = log.seal()
        store.commit(state.id, batches, ledger.take_changes())
        log.publish(batches)
    return content(store, name)


def content(store: Store, name: str) -> dict[int, bytes]:
    state = store.open_room(name)
    found: dict[int, bytes] = {}
    seq = 1
    while (piece := store.read(state.id, seq)) is not None:
        if isinstance(piece, Gap):
            seq = piece.first + piece.count
        else:
            found |= {frame.seq: frame.raw for frame in split(piece.data)}
            seq = piece.next_seq
    return found


class Busy(NamedTuple):
    """A room of 10,000 messages, as its host leaves it when it is stopped, and when it is killed."""

    stopped: Path
    killed: Path  # a part of it is still in the WAL
    frames: dict[int, bytes]
    rows: dict[int, set[int]]  # of the log, by page


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    stopped, killed = tmp_path_factory.mktemp("busy") / "stopped", tmp_path_factory.mktemp("busy") / "killed"
    with closing(Store(stopped)) as store:
        frames = fill(store, "lobby", 10_000)
        shutil.copytree(stopped, killed)
    assert sum(b" says " in frame for frame in frames.values()) == 10_000
    assert (killed / "log.db-wal").stat().st_size > 100 * PAGE
    return Busy(stopped, killed, frames, pages_of(stopped / "log.db"))


def pages_of(path: Path) -> dict[int, set[int]]:
    """Return which numbers of the log have a byte on which page, as SQLite itself tells it."""
    with closing(sqlite3.connect(path)) as database:
        try:
            found = database.execute(
                "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = 'batches' ORDER BY path"
            ).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite was built without dbstat, which says what lies on which page")
        rows = iter(database.execute("SELECT at & 0xffffffffffff, frames FROM batches ORDER BY at").fetchall())
    cells: dict[str, tuple[int, int]] = {}  # as dbstat names the overflow pages of each
    pages: dict[int, set[int]] = {}
    for place, page, _kind, count in sorted(found, key=lambda row: row[2] == "overflow"):
        if _kind == "leaf":
            for cell in range(count):
                cells[f"{place}{cell:03x}"] = row = next(rows)
                pages.setdefault(page, set()).update(range(row[0], sum(row)))
        elif _kind == "overflow":
            first, frames = cells[place.partition("+")[0]]
            pages.setdefault(page, set()).update(range(first, first + frames))
    assert next(rows, None) is None
    return pages


# -- what comes back -------------------------------------------------------------------------------


def numbers(gaps: list[Gap]) -> set[int]:
    return {number for gap in gaps for number in range(gap.first, gap.first + gap.count)}


def damage(path: Path, chance: random.Random) -> set[int]:
    """Do to some pages what disks, drivers and other programs do; return the pages."""
    data = bytearray(path.read_bytes())
    count = len(data) // PAGE
    pages = {chance.randint(1, count) for _ in range(chance.choice((1, 1, 3, 12)))}
    for page in pages:
        at = (page - 1) * PAGE
        match chance.randrange(5):
            case 0:
                data[at + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + PAGE] = bytes(PAGE)
            case 2:
                data[at : at + PAGE] = chance.randbytes(PAGE)
            case 3:  # half of it was written
                data[at + PAGE // 2 : at + PAGE] = bytes(PAGE // 2)
            case 4:  # another page in its place
                other = (chance.randint(1, count) - 1) * PAGE
                data[at : at + PAGE] = data[other : other + PAGE]
    if chance.random() < 0.2:  # the end is missing
        cut = chance.randint(1, 8)
        del data[-cut * PAGE :]
        pages.update(range(count - cut + 1, count + 1))
    path.write_bytes(data)
    return pages


def test_everything_outside_the_damaged_pages_comes_back(
    busy: Busy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for seed in range(30 if request.config.getoption("--slow") else 6):
        folder = shutil.copytree(busy.stopped, tmp_path / str(seed))
        pages = damage(folder / "log.db", random.Random(seed))
        on_them = set[int]().union(*(busy.rows.get(page, set()) for page in pages))
        said = check(folder, "lobby")
        report = repair(folder, "lobby")
        assert (report.rooms, report.faults) == (said.rooms, said.faults)
        (room,) = report.rooms
        with closing(Store(folder)) as store:
            found = content(store, "lobby")
            ledger = Ledger(Log(bytes(8)), store.open_room("lobby").tables)
        assert found.items() <= busy.frames.items()
        missing = busy.frames.keys() - found.keys()
        assert numbers(room.lost) == missing
        assert missing <= on_them
        assert {author.nick for author in ledger._authors} <= {*KEYS, "?"}
        print(f"seed {seed}: {len(pages)} pages with {len(on_them)} messages damaged, {len(missing)} lost")


def test_a_damaged_wal_costs_what_lay_in_its_damaged_frames(
    busy: Busy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SQLite drops every frame behind a damaged one, and a whole WAL with a damaged header."""
    size = 24 + PAGE
    for seed in range(20 if request.config.getoption("--slow") else 3):
        folder = shutil.copytree(busy.killed, tmp_path / str(seed))
        chance, wal = random.Random(seed), folder / "log.db-wal"
        data = bytearray(wal.read_bytes())
        data[chance.randrange(32)] ^= 1 << chance.randrange(8)  # the header
        frame = 32 + chance.randrange((len(data) - 32) // size) * size
        page = int.from_bytes(data[frame : frame + 4])
        data[frame : frame + size] = chance.randbytes(size)
        wal.write_bytes(data)
        with closing(Store(folder)) as store, pytest.raises(StoreError, match="has lost messages"):
            store.open_room("lobby")  # SQLite removes the WAL when it is closed, as a host that does not start does
        report = repair(folder, "lobby")
        with closing(Store(folder)) as store:
            found = content(store, "lobby")
        missing = busy.frames.keys() - found.keys()
        assert found.items() <= busy.frames.items()
        assert numbers(report.rooms[0].lost) == missing <= busy.rows.get(page, set())
        print(f"seed {seed}: {len(missing)} messages lost of {len(busy.rows.get(page, ()))} on page {page}")


def test_a_room_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its epoch, invites, members and read marks are the same, and each stream goes on with its next number."""
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 50)
        room = store.open_room("lobby").id
        store.add_invite(room, b"i" * 32, 2**40, 3)
        terms = Terms("ann", "operator", KEYS["a"], "olga")
        with store.transaction() as database:
            put_row(database, "invite_terms", room, b"i" * 32, *terms)
        store.remember_address(room, "tcp::0", "tcp::7711")
        late = Rejection(number=90, code="too-long", fields={"size": 9, "limit": 8})
        store.commit(room, [], RoomTables(reads=[(KEYS["a"], 7)], rejections=[(KEYS["b"], 2**63, late)]))
        before = store.open_room("lobby")
    repair(folder, "lobby")
    with closing(Store(folder)) as store:
        after = store.open_room("lobby")
        assert terms_of(store, room, b"i" * 32) == terms
        assert (store.uses_left(room, b"i" * 32), store.address(room, "tcp::0")) == (3, "tcp::7711")
    assert after[:5] == before[:5]
    assert after.tables.authors == before.tables.authors
    assert set(after.tables.high_water) == {*before.tables.high_water, (KEYS["b"], 2**63, 90)}
    for table in ("nicks", "members", "invites", "reads", "rejections"):
        assert sorted(getattr(after.tables, table)) == sorted(getattr(before.tables, table)), table


def test_who_wrote_what_and_how_much_is_read_from_the_log(tmp_path: Path) -> None:
    """A flipped bit in another table has no proof against it, so it is not believed."""
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 50)
        before = store.open_room("lobby").tables
    with closing(sqlite3.connect(folder / "log.db")) as database:
        database.execute("UPDATE authors SET nick = 'z', key = x'00' WHERE id = 1")
        database.execute("UPDATE streams SET high_water = high_water + 64")
        database.execute("DELETE FROM nicks")
        database.commit()
    assert check(folder, "lobby").faults == [
        "rows of the table authors: 1",
        f"rows of the table streams: {len(before.high_water)}",
    ]
    repair(folder, "lobby")
    assert check(folder, "lobby").is_sound
    with closing(Store(folder)) as store:
        after = store.open_room("lobby").tables
    assert (after.authors, sorted(after.high_water)) == (before.authors, sorted(before.high_water))
    spoke = {author.key for author in before.authors}
    assert sorted(after.nicks) == sorted(nick for nick in before.nicks if nick[2] in spoke)


def test_direct_rooms_and_a_lost_table_of_rooms(tmp_path: Path) -> None:
    """A direct room is named by its two keys. The secret of the invite and the epoch are gone with the table."""
    folder = tmp_path / "room"
    direct = direct_name(KEYS["a"], KEYS["b"])
    with closing(Store(folder)) as store:
        said = {"lobby": fill(store, "lobby", 20)}
        state = store.open_room(direct)
        for key in (KEYS["a"], KEYS["b"]):
            store.commit(state.id, [], RoomTables(members=[(key, "member")]))
        kept = store.open_room("lobby")
        log = Log(state.epoch)
        log.append(Kind.SAY, b"for you alone", time=1)
        store.commit(state.id, log.seal(), RoomTables())
        said[direct] = content(store, direct)
    for damage, same in (("UPDATE rooms SET chain_base = 1.5", True), ("DELETE FROM rooms", False)):
        with closing(sqlite3.connect(folder / "log.db")) as database:
            database.execute(damage)
            database.commit()
        report = repair(folder, "lobby")
        assert [(room.name, room.lost) for room in report.rooms] == [("lobby", []), (direct, [])]
        with closing(Store(folder)) as store:
            assert {name: content(store, name) for name in said} == said
            assert (store.open_room("lobby").epoch == kept.epoch) is same


@pytest.mark.parametrize("first", [b"SQLite format 4\0", bytes(PAGE)])
def test_a_file_that_sqlite_does_not_know_any_more(busy: Busy, tmp_path: Path, first: bytes) -> None:
    """Without its first page a database has no tables. The row of the room is found by its shape."""
    folder = shutil.copytree(busy.stopped, tmp_path / "room")
    with closing(Store(folder)) as store:
        epoch = store.open_room("lobby").epoch
    data = (folder / "log.db").read_bytes()
    (folder / "log.db").write_bytes(first + data[len(first) :])
    assert check(folder, "lobby").faults
    assert repair(folder, "lobby").rooms[0].lost == []
    with closing(Store(folder)) as store:
        assert content(store, "lobby") == busy.frames
        assert store.open_room("lobby").epoch == epoch


def test_a_disk_that_cannot_read_some_of_its_sectors(
    busy: Busy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(busy.stopped, tmp_path / "room")
    pages, pread = {50, 60}, os.pread

    def fail(fd: int, size: int, at: int) -> bytes:
        if size == PAGE and at // PAGE + 1 in pages:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, at)

    with monkeypatch.context() as patched:
        patched.setattr("chat.host.pages.os.pread", fail)
        report = repair(folder, "lobby")
    with closing(Store(folder)) as store:
        missing = busy.frames.keys() - content(store, "lobby").keys()
    assert numbers(report.rooms[0].lost) == missing == busy.rows[50] | busy.rows[60]


def test_the_damaged_files_are_kept_and_a_failed_repair_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "room"
    with closing(Store(folder)) as store:
        fill(store, "lobby", 20)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(path: Path) -> None:
        raise StoreError("{path} is damaged: {why}", path=path, why="it does not read back")

    with monkeypatch.context() as patched:
        patched.setattr("chat.host.repair.verify", fail)
        with pytest.raises(StoreError, match="does not read back"):
            repair(folder, "lobby")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for number in (1, 2):
        assert repair(folder, "lobby").kept == folder / f"log.db.replaced-{number}"
    assert (folder / "log.db.replaced-1").read_bytes() == before["log.db"]
    assert (folder / "log.db.replaced-1.mark").read_bytes() == before["log.mark"]
    with closing(Store(folder)), pytest.raises(StoreError, match="another host uses"):
        repair(folder, "lobby")


def test_a_disk_that_is_full_keeps_what_it_has(busy: Busy, tmp_path: Path) -> None:
    """Here no file may be longer than 512,000 bytes."""
    name = hashlib.sha256(b"lobby").hexdigest()[:16]
    folder = shutil.copytree(busy.stopped, tmp_path / "rooms" / name)
    for path in (tmp_path, tmp_path / "rooms", folder):
        path.chmod(0o700)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = shlex.join([*CHAT, "repair", f"--data={tmp_path}", "--lang=en"])
    done = subprocess.run(["sh", "-c", f"ulimit -f 1000; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.search("disk is full|file too large", done.stderr)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_copies_go_where_the_room_is_or_it_is_said_where_they_do_not_fit(
    busy: Busy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/tmp may be small."""
    folder = shutil.copytree(busy.stopped, tmp_path / "rooms" / hashlib.sha256(b"lobby").hexdigest()[:16])
    for path in (tmp_path, tmp_path / "rooms", folder):
        path.chmod(0o700)
    command = shlex.join([*CHAT, "check", f"--data={tmp_path}", "--lang=en"])
    done = subprocess.run(["sh", "-c", f"ulimit -f 1000; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"chat: {tempfile.gettempdir()} is full; let TMPDIR be a folder that has space for the room\n",
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert repair(folder, "lobby").rooms[0].lost == []


def test_a_database_without_its_wal_is_not_taken_for_whole(busy: Busy) -> None:
    """On a disk that is almost full SQLite closes it like that."""
    with pytest.raises(StoreFull):
        verify(busy.killed / "log.db")


def test_a_repair_may_be_killed_anywhere(busy: Busy, tmp_path: Path) -> None:
    """Whatever of the swap was done, the next repair finds every message."""
    code = 1
    for steps in range(20):
        folder = shutil.copytree(busy.killed, tmp_path / str(steps))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12: this process has threads; the child needs none of them
            pid = os.fork()
        if not pid:
            repair_and_die(folder, steps)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert repair(folder, "lobby").rooms[0].lost == [], steps
        with closing(Store(folder)) as store:
            assert content(store, "lobby") == busy.frames, steps
        if not code:  # it came to its end
            break
    assert (code, steps > 5) == (0, True)


def repair_and_die(folder: Path, steps: int) -> NoReturn:
    """Repair, in a process that ends with the next change of a name after so many."""
    left = steps

    def counted(do: Callable[..., object]) -> Any:
        def step(*arguments: object, **more: object) -> object:
            nonlocal left
            if not left:
                os._exit(1)
            left -= 1
            return do(*arguments, **more)

        return step

    code = 2
    try:
        for owner, name in ((os, "link"), (Path, "unlink"), (Path, "replace")):
            setattr(owner, name, counted(getattr(owner, name)))
        repair(folder, "lobby")
        code = 0
    finally:
        os._exit(code)


def test_errors_lead_to_repair_and_repair_to_an_open_room(tmp_path: Path) -> None:
    """Each damage is one that SQLite words in a way that helps nobody."""
    ann = tmp_path / "ann"
    with host(ann, "lobby") as program:
        assert run(ann, "send", "lobby", "hello").returncode == 0
        assert run(ann, "check").stdout == "room lobby: 2 records, numbers 1 to 2\n"  # beside its host
        program.process.terminate()
        assert program.process.wait() == 0
    (folder,) = (ann / "rooms").iterdir()
    path = folder / "log.db"
    whole = path.read_bytes()
    for at, byte, said in ((PAGE, 99, "malformed"), (18, 9, "readonly"), (0, 0, "file is not a database")):
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        refused = run(ann, "host", "lobby", "--headless", "--lang=en")
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "; run: chat repair lobby" in refused.stderr
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    found = run(ann, "check", "lobby", "--lang=en")
    assert found.returncode == 1
    assert "stop its host, then run: chat repair lobby" in found.stderr
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    done = run(ann, "repair", "--lang=en")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("open the room with: chat host lobby\n")
    assert run(ann, "check").returncode == 0
    with host(ann, "lobby"):
        assert run(ann, "log", "lobby").stdout.endswith(" hello\n")
    missing = run(ann, "repair", "nowhere")
    assert (missing.returncode, "is not hosted here" in missing.stderr) == (4, True)
