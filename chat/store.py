"""The host's disk: batches as they go over the wire, and who is who.

Rules:

1. A row of the log is a wire batch: replay is select and send.
2. ``commit`` returns when the batches are on the disk (WAL, ``synchronous=FULL``: SQLite calls fsync
   before it returns). Only then may anybody see them.
3. A failed fsync is never tried again: the kernel may have dropped the pages and say yes the second time.
   A full disk is different: nothing was written, and it may be tried again.
4. A flipped bit in the WAL makes SQLite silently forget the frames after it, and ``integrity_check`` says
   "ok". Hence a hash chain over the batches, and a mark beside the database that says how far the log had
   come. The mark is written after the commit, without fsync: the database may be ahead of it, never behind.
5. One connection writes, and one process: the folder is locked. Nobody else opens the database.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import sqlite3
import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from chat.errors import StoreError, StoreFull
from chat.frame import MAX_BATCH, Author, Gap, split
from chat.log import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from chat.room import Changes

_logger: Final = logging.getLogger("chat.store")
_ROOM_BITS: Final = 48  # a batch's row is room << 48 | its first number, so one tree finds both
_SEQ_MASK: Final = (1 << _ROOM_BITS) - 1
_MARK: Final = struct.Struct("!QQ16s")  # room, next number, the chain there; a digest of these follows
_MARK_SIZE: Final = 64

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rooms (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch BLOB NOT NULL, invite BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    at INTEGER PRIMARY KEY, frames INTEGER NOT NULL, chain BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS authors (
    room INTEGER, id INTEGER, key BLOB, stream INTEGER, nick TEXT, PRIMARY KEY (room, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    room INTEGER, key BLOB, stream INTEGER, mark INTEGER, PRIMARY KEY (room, key, stream)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nicks (
    room INTEGER, skeleton TEXT, nick TEXT, key BLOB, PRIMARY KEY (room, skeleton)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (room INTEGER, key BLOB, role TEXT, PRIMARY KEY (room, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invites (
    room INTEGER, secret BLOB, expires INTEGER, uses INTEGER, PRIMARY KEY (room, secret)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS addresses (room INTEGER, asked TEXT, given TEXT, PRIMARY KEY (room, asked)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_VERSION: Final = 1
_CHAIN_START: Final = bytes(16)


class StoredInvite(NamedTuple):
    """``expires`` in ms since 1970, 0 for never; ``uses`` left, -1 without limit."""

    secret: bytes
    expires: int
    uses: int


class RoomState(NamedTuple):
    """What the host needs to open a room again."""

    id: int
    name: str
    epoch: bytes
    invite: bytes  # the secret of the invite that may be used many times, made with the room
    next_seq: int
    last_time: int
    authors: list[Author]
    marks: list[tuple[bytes, int, int]]
    nicks: list[tuple[str, str, bytes]]
    members: list[tuple[bytes, str]]


class Store:
    """The database of one host, in a folder of its own.

    Raises StoreError when the folder is in use, when the database is of a newer version, or when it has
    lost messages that members were shown.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = _lock(folder)
        try:
            # Only one call at a time, but not always from one thread: see Host, which commits in a
            # thread when the disk is slow.
            self._database = sqlite3.connect(folder / "log.db", check_same_thread=False, isolation_level=None)
            (folder / "log.db").chmod(0o600)
            self._prepare()
            # Reads go by a connection of their own: they see what is committed, also while a thread commits.
            self._reader = sqlite3.connect(f"file:{quote(str(folder / 'log.db'))}?mode=ro", uri=True)
            self._mark_fd = os.open(folder / "log.mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except sqlite3.Error as error:
            raise StoreError(f"the database {folder / 'log.db'} cannot be opened: {error}") from None
        self._folder = folder
        self._chains: dict[int, bytes] = {}

    def _prepare(self) -> None:
        execute = self._database.execute
        execute("PRAGMA busy_timeout = 5000")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA mmap_size = 0")  # a failing disk under a mapping is a SIGBUS, not an error
        execute("PRAGMA journal_size_limit = 67108864")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise StoreError(f"the database is of version {version}, this program knows {_VERSION}; upgrade manywire")
        if version < _VERSION:
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database and let the next host in."""
        self._reader.close()
        self._database.close()
        os.close(self._mark_fd)
        os.close(self._lock)

    # -- rooms -----------------------------------------------------------------------------------

    def open_room(self, name: str) -> RoomState:
        """Return the room of this name, made with a random epoch where it is new."""
        execute = self._database.execute
        execute(
            "INSERT OR IGNORE INTO rooms (name, epoch, invite) VALUES (?, ?, ?)",
            (name, secrets.token_bytes(8), secrets.token_bytes(16)),
        )
        room, epoch, invite = execute("SELECT id, epoch, invite FROM rooms WHERE name = ?", (name,)).fetchone()
        last = execute(
            "SELECT at, frames, chain, data FROM batches WHERE at >= ? AND at < ? ORDER BY at DESC LIMIT 1",
            (room << _ROOM_BITS, (room + 1) << _ROOM_BITS),
        ).fetchone()
        next_seq, last_time, chain = 1, 0, _CHAIN_START
        if last is not None:
            at, frames, chain, data = last
            next_seq = (at & _SEQ_MASK) + frames
            last_time = _last_time(data)
        self._check_mark(room, name, next_seq)
        self._chains[room] = chain
        return RoomState(
            room,
            name,
            epoch,
            invite,
            next_seq,
            last_time,
            [
                Author(index=index, key=key, stream=_unsigned(stream), nick=nick)
                for index, key, stream, nick in execute(
                    "SELECT id, key, stream, nick FROM authors WHERE room = ?", (room,)
                )
            ],
            [
                (key, _unsigned(stream), mark)
                for key, stream, mark in execute("SELECT key, stream, mark FROM marks WHERE room = ?", (room,))
            ],
            execute("SELECT skeleton, nick, key FROM nicks WHERE room = ?", (room,)).fetchall(),
            execute("SELECT key, role FROM members WHERE room = ?", (room,)).fetchall(),
        )

    # -- the log ---------------------------------------------------------------------------------

    def commit(self, room: int, batches: list[Batch], changes: Changes) -> None:
        """Put batches and changes on the disk, all or nothing.

        Raises StoreFull (try again later) or StoreError (never again: stop acknowledging).
        """
        chain = self._chains[room]
        rows = []
        for batch in batches:
            chain = _link(chain, batch.data)
            rows.append((room << _ROOM_BITS | batch.first, batch.frames, chain, batch.data))
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO batches (at, frames, chain, data) VALUES (?, ?, ?, ?)", rows)
            if changes.authors:
                database.executemany(
                    "INSERT INTO authors VALUES (?, ?, ?, ?, ?)",
                    [(room, a.index, a.key, _signed(a.stream), a.nick) for a in changes.authors],
                )
            if changes.marks:
                database.executemany(
                    "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET mark = excluded.mark",
                    [(room, key, _signed(stream), mark) for key, stream, mark in changes.marks],
                )
            if changes.nicks:
                database.executemany(
                    "INSERT OR REPLACE INTO nicks VALUES (?, ?, ?, ?)",
                    [(room, *nick) for nick in changes.nicks],
                )
            if changes.members:
                database.executemany(
                    "INSERT OR REPLACE INTO members VALUES (?, ?, ?)",
                    [(room, *member) for member in changes.members],
                )
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise StoreFull("the disk is full; messages wait until there is room again") from None
            raise StoreError(f"the database cannot be written: {error}; messages are no longer accepted") from None
        self._chains[room] = chain
        if batches:
            self._write_mark(room, batches[-1].next_seq, chain)

    def read(self, room: int, seq: int) -> Batch | Gap | None:
        """Return up to 64 KiB of the log that hold ``seq``: rows that follow each other, as one batch.

        A row whose bytes are not what the chain says is damaged: it is a Gap, and an error in the host's log.
        """
        base = room << _ROOM_BITS
        try:
            rows = self._reader.execute(_ROWS_AROUND, (base, base | seq, base, base | _SEQ_MASK))
            return _join(rows, seq)
        except sqlite3.Error as error:
            raise StoreError(f"the database cannot be read: {error}") from None

    # -- invites and addresses -------------------------------------------------------------------

    def invites(self, room: int) -> list[StoredInvite]:
        """The room's further invites, spent and expired ones included."""
        rows = self._database.execute("SELECT secret, expires, uses FROM invites WHERE room = ?", (room,))
        return [StoredInvite(*row) for row in rows]

    def add_invite(self, room: int, invite: StoredInvite) -> None:
        self._database.execute("INSERT INTO invites VALUES (?, ?, ?, ?)", (room, *invite))

    def use_invite(self, room: int, secret: bytes) -> None:
        """Count one use of an invite that has a limit."""
        self._database.execute(
            "UPDATE invites SET uses = uses - 1 WHERE room = ? AND secret = ? AND uses > 0", (room, secret)
        )

    def address(self, room: int, asked: str) -> str:
        """Return the address that was given the last time ``asked`` was asked for, or ""."""
        row = self._database.execute(
            "SELECT given FROM addresses WHERE room = ? AND asked = ?", (room, asked)
        ).fetchone()
        return row[0] if row else ""

    def remember_address(self, room: int, asked: str, given: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", (room, asked, given))

    # -- the mark --------------------------------------------------------------------------------

    def _write_mark(self, room: int, next_seq: int, chain: bytes) -> None:
        record = _MARK.pack(room, next_seq, chain)
        os.pwrite(
            self._mark_fd,
            record + hashlib.sha256(record).digest()[: _MARK_SIZE - _MARK.size],
            room * _MARK_SIZE,
        )

    def _check_mark(self, room: int, name: str, next_seq: int) -> None:
        data = os.pread(self._mark_fd, _MARK_SIZE, room * _MARK_SIZE)
        record = data[: _MARK.size]
        if len(data) < _MARK_SIZE or hashlib.sha256(record).digest()[: _MARK_SIZE - _MARK.size] != data[_MARK.size :]:
            return  # never written, or torn by a power cut: it claims nothing
        _, marked, chain = _MARK.unpack(record)
        advice = f"restore a backup, or delete {self._folder / 'log.mark'} to go on; members will be told"
        if marked > next_seq:
            raise StoreError(
                f"room {name!r} has lost messages {next_seq} to {marked - 1}, which members were shown; {advice}"
            )
        row = self._database.execute(
            "SELECT chain FROM batches WHERE at < ? AND at >= ? ORDER BY at DESC LIMIT 1",
            (room << _ROOM_BITS | marked, room << _ROOM_BITS),
        ).fetchone()
        if (row[0] if row else _CHAIN_START) != chain:
            raise StoreError(f"room {name!r} is not the log that members were shown, at message {marked - 1}; {advice}")


_ROWS_AROUND: Final = """
SELECT at, frames, chain, data FROM batches
WHERE at >= (SELECT coalesce(min(at), 0) FROM (
    SELECT at FROM batches WHERE at >= ? AND at <= ? ORDER BY at DESC LIMIT 2))
AND at >= ? AND at <= ? ORDER BY at LIMIT 512
"""  # the row that holds a number, the one before it (for its chain), and those after it


def _join(rows: sqlite3.Cursor, seq: int) -> Batch | Gap | None:
    """Make one batch of rows that follow each other, as far as 64 KiB go."""
    parts: list[bytes] = []
    first = next_seq = size = 0
    chain, previous = _CHAIN_START, 1  # of the row before, and the number it ended at
    for at, frames, stored_chain, data in rows:
        begins = at & _SEQ_MASK
        sound = begins != previous or _link(chain, data) == stored_chain
        chain, previous = stored_chain, begins + frames
        if previous <= seq:
            continue
        if parts and (begins != next_seq or size + len(data) > MAX_BATCH or not sound):
            break
        if begins > seq and not parts:
            return Gap(first=seq, count=begins - seq)
        if not sound:
            _logger.error("messages %d to %d on the disk are damaged; members are told of a gap", begins, previous - 1)
            return Gap(first=seq, count=previous - seq)
        first = first or begins
        next_seq = previous
        parts.append(data)
        size += len(data)
    rows.close()
    return Batch(first, next_seq - first, b"".join(parts)) if parts else None


def _lock(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(f"another host uses {folder}; stop it, or choose another folder with --data") from None
    return fd


def _link(chain: bytes, data: bytes) -> bytes:
    return hashlib.sha256(chain + data).digest()[:16]


def _last_time(data: bytes) -> int:
    time = 0
    for frame in split(data):
        time = frame.time
    return time


def _signed(number: int) -> int:
    """SQLite's integers are signed, a stream's id is not."""
    return number - (1 << 64) if number >> 63 else number


def _unsigned(number: int) -> int:
    return number + (1 << 64) if number < 0 else number
