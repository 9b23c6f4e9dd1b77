"""The host's database: batches as they go over the wire, and tables beside them.

Rules:

1. A row of the log is a wire batch: replay is select and send.
2. ``commit`` returns once the batches are on the disk (WAL, ``synchronous=FULL``: SQLite calls fsync first). Only then
   may anybody see them.
3. A failed fsync is never retried, and nothing is written after it: the kernel may have dropped the pages and report
   success the second time. A full disk is different: nothing was written, so the commit can be retried.
4. A flipped bit in the WAL makes SQLite silently drop the frames after it, and ``integrity_check`` says "ok". So the
   batches have a hash chain, and a file beside the database keeps the log's high-water mark. It is written after the
   commit, without fsync: the database may be ahead of it, never behind. A row holds the links before and after it, so
   it can be checked alone, even behind a hole.
5. One connection of one process writes, and the folder is locked. Any thread may write, one at a time. Only the
   thread that opened the store reads, without waiting.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shlex
import sqlite3
import struct
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from chat.core.errors import StoreError, StoreFull, Text
from chat.core.ledger import REJECTIONS_KEPT, RoomTables
from chat.core.log import Batch
from chat.core.wire import EPOCH_SIZE, MAX_BATCH, Author, Gap, Rejection, split
from chat.host import schema
from chat.local.private_files import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


_logger: Final = logging.getLogger("chat.host.store")
ROOM_BITS: Final = 48  # a batch's row is room << 48 | its first number, so one tree finds both
SEQ_MASK: Final = (1 << ROOM_BITS) - 1
_HIGH_WATER: Final = struct.Struct("!QQ16s")  # room, next number, the chain there; a digest of these follows
_HIGH_WATER_SIZE: Final = 64
_CHAINED: Final = struct.Struct("!QQ")  # what a link of the chain vouches for beside the data: first number, frames

_SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)  # it may quote damaged text, which sqlite3 cannot decode
_NO_DAMAGE: Final = {  # https://www.sqlite.org/rescode.html
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT),
}
CHAIN_START: Final = bytes(16)
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
        self._chains: dict[int, bytes] = {}  # by room, as the next one
        self._chain_bases: dict[int, int] = {}
        self._writing = threading.Lock()
        self._failure = ""  # why nothing is written any more
        path = folder / "log.db"
        with ExitStack() as opened:
            try:
                opened.callback(os.close, lock_folder(folder))
                self._database = schema.connect(path, any_thread=True)
                opened.callback(self._database.close)
                for setting in _SETTINGS:
                    self._database.execute(f"PRAGMA {setting}")
                schema.prepare(self._database)
                # Reads go by a connection of their own: they see what is committed, also while a thread commits.
                self._reader = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True)
                opened.callback(self._reader.close)
                self._reader.execute("PRAGMA mmap_size = 0")
                self._high_water_fd = os.open(folder / "log.mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                opened.callback(os.close, self._high_water_fd)
            except (OSError, *_SQLITE_ERRORS) as error:
                why = self._explain(error)
                raise StoreError("the database {path} cannot be opened: {why}", path=path, why=why) from None
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the database and unlock the folder. Idempotent."""
        self._opened.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements in one transaction that is on the disk at the end.

        Raises StoreFull (try again later) or StoreError (never again: stop acknowledging).
        """
        with self._writing:
            if self._failure:
                raise StoreError(self._failure)
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                    raise StoreFull("the disk is full; messages wait until there is room again") from None
                self._failure = Text(
                    "the database cannot be written: {why}; messages are no longer accepted", why=self._explain(error)
                )
                raise StoreError(self._failure) from None
            finally:
                if self._database.in_transaction:
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except _SQLITE_ERRORS as error:
            raise StoreError("the database cannot be read: {why}", why=self._explain(error)) from None

    def _explain(self, error: Exception) -> Text:
        """Return what SQLite says, with the way out if it is about damage."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # what it quotes cannot be decoded
        if isinstance(error, OSError) or code & 0xFF in _NO_DAMAGE:
            return Text(str(error))
        return Text("{why}; run: chat repair {room}", why=error, room=self._room)

    def search_path(self, room: int) -> Path:
        """Return where the room's search index belongs. It is made from the log."""
        return self._folder / f"search-{room}.db"

    # -- rooms -----------------------------------------------------------------------------------

    def open_room(self, name: str) -> RoomState:
        """Return the room of this name, perhaps a new one. Raises StoreError if messages or rooms were lost."""
        with self._reading():
            query = "SELECT id, epoch, invite, chain_base FROM rooms WHERE name = ?"
            known = self._reader.execute(query, (name,)).fetchone()
            if known is None:
                self._check_no_room_lost(name)
                known = self._make_room(name)
            room, epoch, invite, base = known
            if not isinstance(room, int) or not isinstance(base, int):  # a flipped bit can change a column's type
                raise sqlite3.DatabaseError("the table of rooms is damaged")
            self._chain_bases[room] = base
            last = self._reader.execute(_HOLDS, (room << ROOM_BITS, room << ROOM_BITS | SEQ_MASK)).fetchone()
            next_seq, last_time, chain = 1, 0, CHAIN_START
            if last is not None:
                at, frames, chain = last
                next_seq = (at & SEQ_MASK) + frames
                found = self.read(room, next_seq - 1)  # a Gap if it is damaged; then the host's clock decides
                last_time = max((f.time for f in split(found.data)), default=0) if isinstance(found, Batch) else 0
            self._check_high_water(room, name, next_seq)
            self._chains[room] = chain
            return RoomState(room, epoch, invite, next_seq, last_time, self._tables(room))

    def _tables(self, room: int) -> RoomTables:
        def rows(table: str) -> list[Any]:
            query = f"SELECT * FROM {table} WHERE room = ?"  # noqa: S608  our own words only
            return [row[1:] for row in self._reader.execute(query, (room,))]

        return RoomTables(
            authors=[
                Author(index=index, key=key, stream=unsigned(stream), nick=nick, bot=bool(bot))
                for index, key, stream, nick, bot in rows("authors")
            ],
            high_water=[(key, unsigned(stream), number) for key, stream, number in rows("streams")],
            nicks=rows("nicks"),
            members=rows("members"),
            invites=[(key, at, bool(counted)) for key, at, counted in rows("invites")],
            reads=rows("reads"),
            rejections=[
                (key, unsigned(stream), Rejection(number=number, count=count, code=code, fields=json.loads(fields)))
                for key, stream, number, count, code, fields in rows("rejections")
            ],
        )

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
                WHERE mine.key = ? ORDER BY rooms.id DESC LIMIT ?
                """,
                (SEQ_MASK, ROOM_BITS, ROOM_BITS, SEQ_MASK, key, limit),
            ).fetchall()

    def _make_room(self, name: str) -> tuple[int, bytes, bytes, int]:
        epoch, invite = secrets.token_bytes(EPOCH_SIZE), secrets.token_bytes(16)
        with self.transaction() as database:
            made = database.execute("INSERT INTO rooms (name, epoch, invite) VALUES (?, ?, ?)", (name, epoch, invite))
            assert made.lastrowid is not None
            return made.lastrowid, epoch, invite, 0

    def adopt(
        self, name: str, room: RoomState, base: int, rows: Iterable[tuple[int, int, bytes, bytes, bytes]]
    ) -> None:
        """Make a room as it was elsewhere: its rows of the log, as they are, and its tables. Raises StoreError."""
        with self.transaction() as database:
            database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?)", (room.id, name, room.epoch, room.invite, base))
            database.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", rows)
        made = self.open_room(name)
        self.commit(room.id, [], room.tables)
        self._write_high_water(room.id, made.next_seq, self._chains[room.id])

    # -- the log ---------------------------------------------------------------------------------

    def commit(self, room: int, batches: list[Batch], changes: RoomTables) -> None:
        """Put batches and changes on the disk, all or nothing, from any thread. Raises as ``_transaction`` does."""
        chain, base = self._chains[room], self._chain_bases[room]
        rows = []
        for batch in batches:
            before, chain = chain, link(chain, base | batch.first, batch.frames, batch.data)
            rows.append((room << ROOM_BITS | batch.first, batch.frames, before, chain, batch.data))
        with self.transaction() as database:
            database.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", rows)
            for query, changed in (
                (_PUT_AUTHOR, [(room, a.index, a.key, _signed(a.stream), a.nick, a.bot) for a in changes.authors]),
                (_PUT_STREAM, [(room, key, _signed(stream), number) for key, stream, number in changes.high_water]),
                (_PUT_NICK, [(room, *nick) for nick in changes.nicks]),
                (_PUT_MEMBER, [(room, *member) for member in changes.members]),
                (_PUT_INVITE, [(room, *invite) for invite in changes.invites]),
                (_PUT_ADMITTED, [(room, *admitted) for admitted in changes.admitted]),
                (_PUT_READ, [(room, *read) for read in changes.reads]),
            ):
                if changed:
                    database.executemany(query, changed)
            for key, stream, one in changes.rejections:
                owner = (room, key, _signed(stream))
                database.execute(_PUT_REJECTION, (*owner, one.number, one.count, one.code, json.dumps(one.fields)))
                database.execute(_FORGET_REJECTIONS, (*owner, *owner, REJECTIONS_KEPT))
        self._chains[room] = chain
        if batches:
            self._write_high_water(room, batches[-1].next_seq, chain)

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
        end = (at + frames if after is None else after) & SEQ_MASK
        if damaged:
            _logger.error("messages %d to %d on the disk are damaged; members are told of a gap", seq, end - 1)
        return Gap(first=seq, count=end - seq) if end > seq else None

    def _read_from(self, at: int, top: int) -> Batch | None:
        """Return the sound rows from ``at`` on, as one batch. None where the first is damaged."""
        for limit in (512, 1):  # one alone where SQLite stops at the damage of another, or the disk does
            with suppress(sqlite3.DatabaseError), closing(self._reader.execute(_ROWS, (at, top, limit))) as rows:
                return _follow(rows, self._chain_bases[at >> ROOM_BITS])
        return None

    # -- invites and addresses -------------------------------------------------------------------

    def add_invite(self, room: int, key: bytes, expires: int, uses: int) -> None:
        """Keep an invite by its public key: ``expires`` in ms, 0 for never; ``uses`` left, -1 for any number."""
        with self.transaction() as database:
            database.execute(_PUT_INVITE, (room, key, expires, uses >= 0))
            database.execute("INSERT INTO invite_uses VALUES (?, ?, ?)", (room, key, uses))

    def uses_left(self, room: int, key: bytes) -> int:
        """Return how often this host may still let somebody in by an invite whose uses are counted."""
        return int(self._look_up("SELECT uses FROM invite_uses WHERE room = ? AND key = ?", room, key) or 0)

    def use_invite(self, room: int, key: bytes) -> None:
        """Count one use of an invite that has a limit. Raises StoreFull, StoreError."""
        query = "UPDATE invite_uses SET uses = uses - 1 WHERE room = ? AND key = ? AND uses > 0"
        with self.transaction() as database:
            database.execute(query, (room, key))

    def address(self, room: int, asked: str) -> str:
        """Return the address that was given the last time ``asked`` was asked for, or ""."""
        return str(self._look_up("SELECT given FROM addresses WHERE room = ? AND asked = ?", room, asked) or "")

    def _look_up(self, query: str, *values: object) -> Any:
        """Return the one column of the first row, None without a row. Raises StoreError."""
        with self._reading():
            (found,) = self._reader.execute(query, values).fetchone() or (None,)
        return found

    def remember_address(self, room: int, asked: str, given: str) -> None:
        """Raises StoreFull, StoreError."""
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", (room, asked, given))

    # -- the mark --------------------------------------------------------------------------------

    def _write_high_water(self, room: int, next_seq: int, chain: bytes) -> None:
        record = _HIGH_WATER.pack(room, next_seq, chain)
        try:
            os.pwrite(self._high_water_fd, record + _digest(record), room * _HIGH_WATER_SIZE)
        except OSError as error:  # a full disk: what was committed is committed, with an older mark beside it
            _logger.warning("the mark %s cannot be written: %s", self._folder / "log.mark", error.strerror)

    def high_water(self, room: int) -> tuple[int, bytes]:
        return read_high_water(self._high_water_fd, room)

    def _check_high_water(self, room: int, name: str, next_seq: int) -> None:
        marked, chain = self.high_water(room)
        if marked > next_seq:
            raise StoreError(
                "room {name!r} has lost messages {first} to {last}, which members were shown; {advice}",
                name=name,
                first=next_seq,
                last=marked - 1,
                advice=self._advice,
            )
        row = self._reader.execute(_HOLDS, (room << ROOM_BITS, room << ROOM_BITS | marked - 1)).fetchone()
        if (row[2] if row else CHAIN_START) != chain:
            raise StoreError(
                "room {name!r} is not the log that members were shown, at message {last}; {advice}",
                name=name,
                last=marked - 1,
                advice=self._advice,
            )

    def _check_no_room_lost(self, name: str) -> None:
        """A database that lost its beginning is empty. It must not take a lost room for a new one."""
        (highest,) = self._reader.execute("SELECT coalesce(max(id), 0) FROM rooms").fetchone()
        slots = os.fstat(self._high_water_fd).st_size // _HIGH_WATER_SIZE
        marks = [self.high_water(room)[0] for room in range(highest + 1, slots)]
        lost = [mark - 1 for mark in marks if mark > 1]
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
_ROWS: Final = """
SELECT at, max(1, min(2048, ifnull(cast(frames AS INTEGER), 1))), ifnull(cast(before AS BLOB), x''),
    ifnull(cast(chain AS BLOB), x''), ifnull(cast(data AS BLOB), x'')
FROM batches WHERE at >= ? AND at <= ? ORDER BY at LIMIT ?
"""
_PUT_AUTHOR: Final = "INSERT INTO authors VALUES (?, ?, ?, ?, ?, ?)"
_PUT_STREAM: Final = (
    "INSERT INTO streams VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET high_water = excluded.high_water"
)
_PUT_NICK: Final = "INSERT OR REPLACE INTO nicks VALUES (?, ?, ?, ?)"
_PUT_MEMBER: Final = "INSERT OR REPLACE INTO members VALUES (?, ?, ?)"
_PUT_INVITE: Final = "INSERT OR REPLACE INTO invites VALUES (?, ?, ?, ?)"
_PUT_ADMITTED: Final = "INSERT OR IGNORE INTO admitted VALUES (?, ?, ?)"
_PUT_READ: Final = "INSERT INTO reads VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)"
_PUT_REJECTION: Final = "INSERT OR REPLACE INTO rejections VALUES (?, ?, ?, ?, ?, ?, ?)"
_FORGET_REJECTIONS: Final = """
DELETE FROM rejections WHERE room = ? AND key = ? AND stream = ? AND number <= (
    SELECT number FROM rejections WHERE room = ? AND key = ? AND stream = ? ORDER BY number DESC LIMIT 1 OFFSET ?)
"""
_AFTER: Final = "SELECT min(at) FROM batches WHERE at > ? AND at <= ?"


def _follow(rows: sqlite3.Cursor, base: int) -> Batch | None:
    """Join rows that follow each other, as far as they are sound and 64 KiB go; None if the first is damaged."""
    first = frames_in_all = size = expected = 0
    parts: list[bytes] = []
    for at, frames, before, chain, data in rows:
        if link(before, base | at & SEQ_MASK, frames, data) != chain:
            break
        if parts and (at != expected or size + len(data) > MAX_BATCH):
            break
        first = first or at & SEQ_MASK
        frames_in_all += frames
        size += len(data)
        parts.append(data)
        expected = at + frames
    return Batch(first, frames_in_all, b"".join(parts)) if parts else None


def lock_folder(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = try_lock(folder / "lock")
    if fd is None:
        raise StoreError("another host uses {folder}; stop it, or choose another folder with --data", folder=folder)
    return fd


def link(chain: bytes, first: int, frames: int, data: bytes) -> bytes:
    digest = hashlib.sha256(chain)
    digest.update(_CHAINED.pack(first, frames))
    digest.update(data)
    return digest.digest()[:16]


def read_high_water(fd: int, room: int) -> tuple[int, bytes]:
    """Return the room's next number and its chain there; the beginning for a mark that is torn or missing."""
    data = os.pread(fd, _HIGH_WATER_SIZE, room * _HIGH_WATER_SIZE)
    record = data[: _HIGH_WATER.size]
    if len(data) < _HIGH_WATER_SIZE or _digest(record) != data[_HIGH_WATER.size :]:
        return 1, CHAIN_START
    _, next_seq, chain = _HIGH_WATER.unpack(record)
    return next_seq, chain


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).digest()[: _HIGH_WATER_SIZE - _HIGH_WATER.size]


def _signed(number: int) -> int:
    """SQLite's integers are signed; a stream's id is not."""
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    return number + (1 << 64) if number < 0 else number
