"""The host's database: batches as they go over the wire, and tables beside them.

Rules:

1. A row of the log is a wire batch: replay is select and send.
2. ``commit`` returns once the batches are on the disk (WAL, ``synchronous=FULL``: SQLite calls fsync first). Only then
   may anybody see them.
3. A failed fsync is never retried, and nothing is written after it: the kernel may have dropped the pages and report
   success the second time. After anything else that may pass, such as a full disk, a quota, or a program that holds the
   database, nothing was stored, so the commit can be retried.
4. A flipped bit in the WAL makes SQLite silently drop the frames after it, and ``integrity_check`` says "ok". So the
   batches have a hash chain, and a file beside the database keeps the log's high-water mark. It is written after the
   commit, without fsync: the database may be ahead of it, never behind. A row holds the links before and after it, so
   it can be checked alone, even behind a hole.
5. One connection of one process writes, and the folder is locked. Any thread may write, one at a time. Only the
   thread that opened the store reads, without waiting.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shlex
import shutil
import sqlite3
import struct
import sys
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.core.bodies import Gap
from chat.core.errors import RemoteProtocolError, StoreError, StoreFull, Text, reason
from chat.core.ledger import RoomTables
from chat.core.log import Batch
from chat.core.wire import EPOCH_SIZE, MAX_BATCH, is_whole, split
from chat.host import ballast, schema, tables
from chat.host.folder import KEPT_WAL, keep_wal, lock_folder, unlock_folder
from chat.host.marks import CHAIN_START, Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


_logger: Final = logging.getLogger("chat.host.store")
ROOM_BITS: Final = 48  # a batch's row is room << 48 | its first number, so one tree finds both
SEQ_MASK: Final = (1 << ROOM_BITS) - 1
_CHAINED: Final = struct.Struct("!QQ")  # what a link of the chain vouches for beside the data: first number, frames

_PASSING: Final = {  # https://www.sqlite.org/rescode.html
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT),
}
_FINAL: Final = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
_BUSY: Final = 200  # milliseconds to wait for another program, perhaps in the event loop
_SETTINGS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: fsync(2) there leaves the bytes in the drive's cache
    "mmap_size = 0",  # a failing disk under a mapping is a SIGBUS, not an error
    "journal_size_limit = 67108864",
)


class RoomState(NamedTuple):
    """What the host needs to open a room again."""

    id: int
    epoch: bytes
    invite: bytes  # the secret of the invite that may be used many times, made with the room
    next_seq: int
    last_time: int
    tables: RoomTables


class Store:
    """The database of one host. Raises StoreError if the folder is in use, or the database of a newer version."""

    def __init__(self, folder: Path, room: str = "ROOM") -> None:
        self._folder = folder
        self._room = shlex.quote(room)  # the one that this folder is for, as it is typed
        self._checked: dict[int, tables.Checked] = {}  # by room, as the next two
        self._chain_bases: dict[int, int] = {}
        self._stored: Callable[[], None] | None = None  # to be called once the current transaction is stored
        self._writing = threading.Lock()
        self.failure = ""  # why nothing can be written any more
        path = folder / "log.db"
        with ExitStack() as opened:
            try:
                opened.callback(unlock_folder, folder, lock_folder(folder))
                keep_wal(folder)
                try:
                    self._open(path, opened)
                except (OSError, sqlite3.Error):
                    if not ballast.let_go(folder):
                        raise
                    self._open(path, opened)
                else:
                    ballast.take(folder)
            except (OSError, *schema.ERRORS) as error:
                why = self._explain(error)
                raise StoreError("the database {path} cannot be opened: {why}", path=path, why=why) from None
            self._opened = opened.pop_all()

    def _open(self, path: Path, stack: ExitStack) -> None:
        with ExitStack() as opened:
            self._connect(path, opened)
            stack.push(opened.pop_all())

    def _connect(self, path: Path, opened: ExitStack) -> None:
        self._database = schema.connect(path, any_thread=True)
        opened.callback(self._database.close)
        for setting in _SETTINGS:
            self._database.execute(f"PRAGMA {setting}")
        schema.prepare(self._database)
        # Reads go by a connection of their own: they see what is committed, also while a thread commits.
        self._reader = schema.connect(path, "mode=ro")
        opened.callback(self._reader.close)
        self._reader.execute("PRAGMA mmap_size = 0")
        self._reader.text_factory = _decode
        self._reader.create_function("row_digest", -1, schema.row_digest, deterministic=True)
        self._marks = Marks(self._folder / "log.mark")
        opened.callback(self._marks.close)
        self._database.execute(f"PRAGMA busy_timeout = {_BUSY}")

    def close(self) -> None:
        """Close the database and unlock the folder. Idempotent."""
        self._opened.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements in one transaction that is on the disk at the end.

        Raises StoreFull (try again later) or StoreError (never again: stop acknowledging).
        """
        with self._writing:
            if self.failure:
                raise StoreError(self.failure)
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
                if self._stored is not None:
                    self._stored()
            except schema.ERRORS as error:
                if may_pass(error):
                    raise StoreFull(_explain_waiting(error)) from None
                self.failure = Text(
                    "the database cannot be written: {why}; messages are no longer accepted", why=self._explain(error)
                )
                raise StoreError(self.failure) from None
            finally:
                self._stored = None
                if self._database.in_transaction:
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (*schema.ERRORS, RemoteProtocolError) as error:  # the last for frames that no host has made
            words = Text("the database cannot be read: {why}", why=self._explain(error))
            raise (StoreFull(words) if may_pass(error) else StoreError(words)) from None

    def _explain(self, error: Exception) -> Text:
        """Return what SQLite says, with the way out if it is about damage."""
        if isinstance(error, OSError):
            return reason(error)
        if _code(error) & 0xFF in _PASSING:
            return Text(str(error))
        return Text("{why}; run: chat repair {room}", why=error, room=self._room)

    def free_space(self) -> int:
        """Return how many bytes the disk has free for us; a disk that cannot tell must not stop the room."""
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return sys.maxsize

    def search_path(self, room: int) -> Path:
        """Return where the room's search index belongs. It is made from the log."""
        return self._folder / f"search-{room}.db"

    # -- rooms -----------------------------------------------------------------------------------

    def open_room(self, name: str) -> RoomState:
        """Return the room of this name, perhaps a new one. Raises StoreError if messages or rooms were lost."""
        with self._reading():
            known = self._reader.execute("SELECT * FROM rooms WHERE name = ?", (name,)).fetchone()
            if known is None:
                self._check_no_room_lost(name)
                known = self._make_room(name)
            if not schema.is_sound("rooms", known):
                raise sqlite3.DatabaseError("the table of rooms is damaged")
            room, _, epoch, invite, base, _ = known
            self._chain_bases[room] = base
            self._check_high_water(room, name)
            next_seq, chain = self._end(room)
            found = self.read(room, next_seq - 1)  # a Gap if it is damaged; then the host's clock decides
            last_time = [f.time for f in split(found.data)][-1] if isinstance(found, Batch) else 0
            if all(self._end(one)[0] >= self.high_water(one)[0] for one in self._marks.rooms()):
                (self._folder / KEPT_WAL).unlink(missing_ok=True)
            rows, checked, anew = tables.load(self._reader, room, next_seq, chain, partial(self.read, room))
            self._checked[room] = checked
            if anew:
                with suppress(StoreFull), self.transaction() as database:  # the next time, then
                    self._stored = tables.write_anew(database, room, rows, checked)
            return RoomState(room, epoch, invite, next_seq, last_time, rows)

    def direct_rooms(self, key: bytes, limit: int) -> list[tuple[str, bytes, int, int]]:
        """Return (name, the other's key, next number, the last one read) of this key's newest rooms that hold anything.

        Raises StoreError.
        """
        with self._reading():
            return self._reader.execute(
                """
                SELECT rooms.name, other.key, (batches.at & ?) + batches.frames, ifnull(reads.seq, 0)
                FROM members AS mine
                JOIN members AS other ON other.room = mine.room AND other.key != mine.key
                JOIN rooms ON rooms.id = mine.room AND substr(rooms.name, 1, 1) = '@'
                JOIN batches ON batches.at = (
                    SELECT max(at) FROM batches WHERE at BETWEEN mine.room << ? AND mine.room << ? | ?)
                LEFT JOIN reads ON reads.room = mine.room AND reads.key = mine.key
                WHERE mine.key = ?
                AND mine.digest = row_digest('members', mine.room, mine.key, mine.role)
                AND other.digest = row_digest('members', other.room, other.key, other.role)
                AND rooms.digest = row_digest(
                    'rooms', rooms.id, rooms.name, rooms.epoch, rooms.invite, rooms.chain_base)
                ORDER BY rooms.id DESC LIMIT ?
                """,
                (SEQ_MASK, ROOM_BITS, ROOM_BITS, SEQ_MASK, key, limit),
            ).fetchall()

    def _make_room(self, name: str) -> tuple[Any, ...]:
        epoch, invite = secrets.token_bytes(EPOCH_SIZE), secrets.token_bytes(16)
        with self.transaction() as database:
            (room,) = database.execute("SELECT coalesce(max(id), 0) + 1 FROM rooms").fetchone()
            row = (room, name, epoch, invite, 0)
            tables.put_row(database, "rooms", *row)
        return (*row, schema.row_digest("rooms", *row))

    def adopt(
        self, name: str, room: RoomState, chain_base: int, rows: Iterable[tuple[int, int, bytes, bytes, bytes]]
    ) -> None:
        """Make a room as it was elsewhere: its rows of the log, as they are, and its tables. Raises StoreError."""
        with self.transaction() as database:
            tables.put_row(database, "rooms", room.id, name, room.epoch, room.invite, chain_base)
            database.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", rows)
            base = room.id << ROOM_BITS
            last = database.execute(_HOLDS, (base, base | SEQ_MASK)).fetchone()
            at, frames, chain = last or (base, 1, CHAIN_START)
            checked = tables.Checked((at & SEQ_MASK) + frames, chain)
            self._stored = checked.put(database, room.id, room.tables)
        self.open_room(name)
        self._marks.write(room.id, checked.next_seq, chain)

    # -- the log ---------------------------------------------------------------------------------

    def commit(self, room: int, batches: list[Batch], changes: RoomTables) -> None:
        """Put batches and changes on the disk, all or nothing, from any thread. Raises as ``transaction`` does."""
        checked, base = self._checked[room], self._chain_bases[room]
        next_seq, chain = checked.next_seq, checked.chain
        rows = []
        for batch in batches:
            before, chain = chain, link(chain, base | batch.first, batch.frames, batch.data)
            rows.append((room << ROOM_BITS | batch.first, batch.frames, before, chain, batch.data))
            next_seq = batch.next_seq
        with self.transaction() as database:
            database.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", rows)
            self._stored = checked.put(database, room, changes, (next_seq, chain))
        if batches:
            self._marks.write(room, next_seq, chain)

    def read(self, room: int, seq: int) -> Batch | Gap | None:
        """Return up to 64 KiB of the log that hold ``seq``, as one batch; None if nothing is stored from there on.

        A row whose bytes are not what the chain says is damaged: it is a Gap, and an error in the host's log.
        """
        base, top = room << ROOM_BITS, room << ROOM_BITS | SEQ_MASK
        with self._reading():
            at, frames, _ = self._reader.execute(_HOLDS, (base, base | seq)).fetchone() or (base, 0, b"")
            if damaged := at + frames > base | seq:
                found = self._read_from(at, top)
                if found is not None:
                    return found
            (after,) = self._reader.execute(_AFTER, (base | seq, top)).fetchone()
            if not damaged and after and self._reader.execute(_HOLDS, (base | seq, base | seq)).fetchone():
                return self.read(room, seq)  # it was committed between these queries
        end = (at + frames if after is None else after) & SEQ_MASK
        if damaged:
            _logger.error("messages %d to %d on the disk are damaged; members are told of a gap", seq, end - 1)
        return Gap(first=seq, count=end - seq) if end > seq else None

    def _read_from(self, at: int, top: int) -> Batch | None:
        """Return the sound rows from ``at`` on, as one batch. None where the first is damaged."""
        for limit in (512, 1):  # one alone where SQLite stops at the damage of another, or the disk does
            with suppress(sqlite3.DatabaseError), closing(self._reader.execute(ROWS, (at, top, limit))) as rows:
                return _follow(rows, self._chain_bases[at >> ROOM_BITS])
        return None

    # -- invites and addresses -------------------------------------------------------------------

    def add_invite(self, room: int, key: bytes, expires: int, uses: int) -> None:
        """Keep an invite by its public key: ``expires`` in ms, 0 for never; ``uses`` left, -1 for any number."""
        with self.transaction() as database:
            changes = RoomTables(invites=[(key, expires, uses >= 0)])
            self._stored = self._checked[room].put(database, room, changes)
            tables.put_row(database, "invite_uses", room, key, uses)

    def uses_left(self, room: int, key: bytes) -> int:
        """Return how often this host may still let somebody in by an invite whose uses are counted."""
        return self._look_up("invite_uses", "key", room, key) or 0

    def use_invite(self, room: int, key: bytes) -> None:
        """Count one use of an invite that has a limit. Raises StoreFull, StoreError."""
        if (uses := self.uses_left(room, key)) > 0:
            with self.transaction() as database:
                tables.put_row(database, "invite_uses", room, key, uses - 1)

    def address(self, room: int, asked: str) -> str:
        """Return the address that was given the last time ``asked`` was asked for, or ""."""
        return self._look_up("addresses", "asked", room, asked) or ""

    def rows(self, table: str, room: int) -> list[tuple[Any, ...]]:
        """Return a room's sound rows of a table. Raises StoreError."""
        with self._reading():
            found = self._reader.execute(f"SELECT * FROM {table} WHERE room = ?", (room,))  # noqa: S608  as below
            return [row for row in found if schema.is_sound(table, row)]

    def _look_up(self, table: str, column: str, room: int, value: object) -> Any:
        """Return the last value of the row, None without a row or for a damaged one. Raises StoreError."""
        query = f"SELECT * FROM {table} WHERE room = ? AND {column} = ?"  # noqa: S608  our own words only
        with self._reading():
            row = self._reader.execute(query, (room, value)).fetchone()
        if row is None or schema.is_sound(table, row):
            return row and row[-2]
        _logger.error("a row of the table %s is damaged and not used", table)
        return None

    def remember_address(self, room: int, asked: str, given: str) -> None:
        """Raises StoreFull, StoreError."""
        with self.transaction() as database:
            tables.put_row(database, "addresses", room, asked, given)

    # -- what was lost ---------------------------------------------------------------------------

    def high_water(self, room: int) -> tuple[int, bytes]:
        """Return the room's next number and its chain there, as they were marked."""
        return self._marks.read(room)

    def _end(self, room: int, below: int = SEQ_MASK + 1) -> tuple[int, bytes]:
        """Return the number after a room's last batch that begins below another number, and its chain there."""
        rows = self._reader.execute(_HOLDS, (room << ROOM_BITS, room << ROOM_BITS | below - 1))
        at, frames, chain = rows.fetchone() or (0, 1, CHAIN_START)
        return (at & SEQ_MASK) + frames, chain

    def _check_high_water(self, room: int, name: str) -> None:
        if room in self._marks.damaged:
            _logger.error(
                "the high-water mark of room %r cannot be read; nobody can tell whether its last messages are lost",
                name,
            )
        marked, chain = self.high_water(room)
        next_seq, _chain = self._end(room)
        if marked > next_seq:
            raise StoreError(
                "room {name!r} has lost messages {first} to {last}, which members were shown; {advice}",
                name=name,
                first=next_seq,
                last=marked - 1,
                advice=self._advice,
            )
        if self._end(room, marked)[1] != chain:
            raise StoreError(
                "room {name!r} is not the log that members were shown, at message {last}; {advice}",
                name=name,
                last=marked - 1,
                advice=self._advice,
            )

    def _check_no_room_lost(self, name: str) -> None:
        """A database that lost its beginning is empty. It must not take a lost room for a new one."""
        rows = self._reader.execute("SELECT * FROM rooms NOT INDEXED ORDER BY id").fetchall()
        if [row[0] for row in rows] != list(range(1, len(rows) + 1)) or not all(
            schema.is_sound("rooms", row) and row[1] != name for row in rows
        ):
            raise sqlite3.DatabaseError("the table of rooms is damaged")
        lost = [self._marks.read(room)[0] - 1 for room in self._marks.rooms() if room > len(rows)]
        if lost:
            raise StoreError(
                "cannot make room {name!r}: the database has lost {count} of its rooms, with messages 1 to "
                "{numbers}, which members were shown; {advice}",
                name=name,
                count=len(lost),
                numbers=" and 1 to ".join(map(str, lost)),
                advice=self._advice,
            )

    @property
    def _advice(self) -> Text:
        return Text(
            "restore a backup, or keep what is left with: chat repair {room}; members will be told", room=self._room
        )


# A flipped bit can make a value one of another type: what the chain judges is read as the type it should have.
# 2048 frames of 32 bytes fill a batch.
_HOLDS: Final = """
SELECT at, max(1, min(2048, ifnull(cast(frames AS INTEGER), 1))), ifnull(cast(chain AS BLOB), x'')
FROM batches WHERE at >= ? AND at <= ? ORDER BY at DESC LIMIT 1
"""
ROWS: Final = """
SELECT at, max(1, min(2048, ifnull(cast(frames AS INTEGER), 1))), ifnull(cast(before AS BLOB), x''),
    ifnull(cast(chain AS BLOB), x''), ifnull(cast(data AS BLOB), x'')
FROM batches WHERE at >= ? AND at <= ? ORDER BY at LIMIT ?
"""
_AFTER: Final = "SELECT min(at) FROM batches WHERE at > ? AND at <= ?"


def _follow(rows: sqlite3.Cursor, base: int) -> Batch | None:
    """Join rows that follow each other, as far as they are sound and 64 KiB go; None if the first is damaged."""
    first = frames_in_all = size = expected = 0
    parts: list[bytes] = []
    for at, frames, before, chain, data in rows:
        if not is_proved(before, base | at & SEQ_MASK, frames, data, chain):
            break
        if parts and (at != expected or size + len(data) > MAX_BATCH):
            break
        first = first or at & SEQ_MASK
        frames_in_all += frames
        size += len(data)
        parts.append(data)
        expected = at + frames
    return Batch(first, frames_in_all, b"".join(parts)) if parts else None


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # without: what it quotes cannot be decoded


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed later, and a failure has stored nothing."""
    return _code(error) & 0xFF in _PASSING and _code(error) not in _FINAL


def _explain_waiting(error: Exception) -> Text:
    if _code(error) == sqlite3.SQLITE_FULL:
        return Text("the disk is full; messages wait until there is room again")
    return Text("the database cannot be written now: {why}; messages wait until it can", why=Text(str(error)))


def is_proved(before: bytes, first: int, frames: int, data: bytes, chain: bytes) -> bool:
    """Whether a row is what was written. Anybody can compute a chain, so its data must be frames, too."""
    return link(before, first, frames, data) == chain and is_whole(data, frames)


def link(chain: bytes, first: int, frames: int, data: bytes) -> bytes:
    digest = hashlib.sha256(chain)
    digest.update(_CHAINED.pack(first, frames))
    digest.update(data)
    return digest.digest()[:16]


def _decode(raw: bytes) -> str:
    """A flipped bit may leave bytes that are not UTF-8: the row's digest tells."""
    return raw.decode("utf-8", "replace")
