"""The tables of a host's database, how one of an older version is brought up to date, and what is refused in one.

A database may come from somebody else. Nothing in it may run: no trigger, no view, no index and no table but ours. A
value of another type or size than ours is damage.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from contextlib import ExitStack, closing, suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

from chat.core.bodies import U32, U63, Key, KeyOrNone, Nick, Word
from chat.core.errors import StoreError
from chat.core.wire import EPOCH_SIZE, YEAR_9999
from chat.local.invite import signer

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 10  # PRAGMA user_version
ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)  # SQLite may quote damaged text, which sqlite3 cannot decode

_NEW: Final = """
-- What a room's order makes, alike on every host of it:
CREATE TABLE batches (
    at INTEGER PRIMARY KEY, frames INTEGER NOT NULL, before BLOB NOT NULL, chain BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE authors (
    room INTEGER, id INTEGER, key BLOB, stream INTEGER, nick TEXT, bot INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (room, id)) WITHOUT ROWID;
CREATE TABLE streams (
    room INTEGER, key BLOB, stream INTEGER, high_water INTEGER, PRIMARY KEY (room, key, stream)) WITHOUT ROWID;
CREATE TABLE nicks (
    room INTEGER, skeleton TEXT, nick TEXT, key BLOB, PRIMARY KEY (room, skeleton)) WITHOUT ROWID;
CREATE TABLE members (room INTEGER, key BLOB, role TEXT, PRIMARY KEY (room, key)) WITHOUT ROWID;
-- What is this host's own:
CREATE TABLE rooms (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch BLOB NOT NULL, invite BLOB NOT NULL,
    chain_base INTEGER NOT NULL DEFAULT 0);
CREATE TABLE reads (room INTEGER, key BLOB, seq INTEGER, PRIMARY KEY (room, key)) WITHOUT ROWID;
CREATE TABLE addresses (room INTEGER, asked TEXT, given TEXT, PRIMARY KEY (room, asked)) WITHOUT ROWID;
"""
_SINCE_VERSION_3: Final = """
-- Of the order:
CREATE TABLE rejections (
    room INTEGER, key BLOB, stream INTEGER, number INTEGER, count INTEGER, code TEXT, fields TEXT,
    PRIMARY KEY (room, key, stream, number)) WITHOUT ROWID;
CREATE TABLE invites (
    room INTEGER, key BLOB, expires INTEGER, counted INTEGER, PRIMARY KEY (room, key)) WITHOUT ROWID;
-- This host's own:
CREATE TABLE invite_uses (room INTEGER, key BLOB, uses INTEGER, PRIMARY KEY (room, key)) WITHOUT ROWID;
CREATE TABLE admitted (room INTEGER, key BLOB, invite BLOB, PRIMARY KEY (room, key)) WITHOUT ROWID;
"""
# In chains of version 3 the room's own number is part of each link, and an invite lies there with its secret.
_BEFORE: Final = """
ALTER TABLE marks RENAME TO streams;
ALTER TABLE streams RENAME COLUMN mark TO high_water;
ALTER TABLE rooms ADD COLUMN chain_base INTEGER NOT NULL DEFAULT 0;
UPDATE rooms SET chain_base = id << 48;
ALTER TABLE invites RENAME TO secrets;
"""
_AFTER: Final = """
INSERT INTO invites SELECT room, invite_key(secret), expires, uses >= 0 FROM secrets;
INSERT INTO invite_uses SELECT room, invite_key(secret), uses FROM secrets;
DROP TABLE secrets;
"""
# Until version 6 a row had no digest. Each room gets its first checkpoint when it is opened, from its whole log.
_COLUMNS: Final = {
    "authors": "room, id, key, stream, nick, bot",
    "streams": "room, key, stream, high_water",
    "nicks": "room, skeleton, nick, key",
    "members": "room, key, role",
    "rooms": "id, name, epoch, invite, chain_base",
    "reads": "room, key, seq",
    "addresses": "room, asked, given",
    "rejections": "room, key, stream, number, count, code, fields",
    "invites": "room, key, expires, counted",
    "invite_uses": "room, key, uses",
    "admitted": "room, key, invite",
}
_ADD_DIGESTS: Final = "ALTER TABLE {0} ADD COLUMN digest BLOB; UPDATE {0} SET digest = row_digest('{0}', {1});"
_SINCE_VERSION_7: Final = """
CREATE TABLE checkpoints (room INTEGER PRIMARY KEY, next_seq INTEGER, chain BLOB, total BLOB, digest BLOB);
""" + "".join(_ADD_DIGESTS.format(table, columns) for table, columns in _COLUMNS.items())
_SINCE_VERSION_8: Final = """
-- Of the order:
CREATE TABLE moderated (
    room INTEGER, key BLOB, role TEXT, until INTEGER, digest BLOB, PRIMARY KEY (room, key)) WITHOUT ROWID;
CREATE TABLE properties (
    room INTEGER, name TEXT, value TEXT, digest BLOB, PRIMARY KEY (room, name)) WITHOUT ROWID;
-- This host's own:
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, room INTEGER, time INTEGER, by TEXT, what TEXT, key BLOB, whom TEXT, reason TEXT,
    digest BLOB);
"""
_SINCE_VERSION_9: Final = """
-- This host's own: what a ban covers besides its key.
CREATE TABLE covered (
    room INTEGER, key BLOB, origin TEXT, digest BLOB, PRIMARY KEY (room, key, origin)) WITHOUT ROWID;
"""
_SINCE_VERSION_10: Final = """
-- This host's own: whom an invite is for, the role that it gives, and who made it.
CREATE TABLE invite_terms (
    room INTEGER, key BLOB, name TEXT, role TEXT, by BLOB, by_nick TEXT, digest BLOB,
    PRIMARY KEY (room, key)) WITHOUT ROWID;
"""
# Where --keep has cut the log off; the table is made with the first cut.
CUTS: Final = """
CREATE TABLE IF NOT EXISTS cuts (room INTEGER PRIMARY KEY, first INTEGER, chain BLOB, time INTEGER, digest BLOB);
"""
_LATEST: Final = _SINCE_VERSION_9 + _SINCE_VERSION_10
_STEPS: Final = {  # from each version to this one
    0: _NEW + _SINCE_VERSION_3 + _SINCE_VERSION_7 + _SINCE_VERSION_8 + _LATEST,
    3: _BEFORE + _SINCE_VERSION_3 + _AFTER + _SINCE_VERSION_7 + _SINCE_VERSION_8 + _LATEST,
    6: _SINCE_VERSION_7 + _SINCE_VERSION_8 + _LATEST,
    7: _SINCE_VERSION_8 + _LATEST,
    8: _LATEST,
    9: _SINCE_VERSION_10,
    VERSION: "",
}
MAX_AUTHORS: Final = 2**20  # authors of a room; a log that names more is damaged: it would fill the memory of a host
_Index: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_AUTHORS)]
_Place: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=2**15)]  # a room's
_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=YEAR_9999)]
_Epoch: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=EPOCH_SIZE, max_length=EPOCH_SIZE)]
_Half: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]  # a secret, or a link of the chain
_Flag: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1)]
# What the columns of a row hold, as its digest packs them. Streams are signed here.
_ROWS: Final[dict[str, Any]] = {
    "authors": tuple[str, int, _Index, KeyOrNone, int, Nick, _Flag],
    "streams": tuple[str, int, KeyOrNone, int, U32],
    "nicks": tuple[str, int, str, Nick, Key],
    "members": tuple[str, int, Key, Word],
    "rooms": tuple[str, _Place, str, _Epoch, _Half, U63],
    "reads": tuple[str, int, Key, U63],
    "addresses": tuple[str, int, str, str],
    "rejections": tuple[str, int, KeyOrNone, int, U32, U32, str, str],
    "invites": tuple[str, int, Key, U63, _Flag],
    "invite_uses": tuple[str, int, Key, int],
    "invite_terms": tuple[str, int, Key, str, Word, KeyOrNone, str],
    "admitted": tuple[str, int, Key, KeyOrNone],
    "cuts": tuple[str, int, U63, _Half, _Time],
    "moderated": tuple[str, int, Key, Word, U63],
    "properties": tuple[str, int, str, str],
    "audit": tuple[str, U63, int, _Time, str, str, KeyOrNone, str, str],
    "covered": tuple[str, int, Key, str],
}
_SECONDS: Final = re.compile(r"\d{0,10}", re.ASCII)  # of slow mode
TABLES: Final = tuple(_ROWS)  # besides the log and its checkpoints
_DECODERS: Final = {table: msgspec.msgpack.Decoder(row) for table, row in _ROWS.items()}


def row_digest(table: str, *row: object) -> bytes:
    """Return what the last column of a row holds: 8 bytes over the table's name and the other columns.

    A flipped bit may change a value's type; each type is packed in its own way.
    """
    return _digest(msgspec.msgpack.encode((table, *row)))


def _digest(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:8]


def is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row, as it was read, fits its digest, and holds what such rows hold.

    The digest shows a flipped bit. But anybody can compute one, and the file may come from somebody else.
    """
    packed = msgspec.msgpack.encode((table, *row[:-1]))
    try:
        _DECODERS[table].decode(packed)
        if table == "rejections":
            msgspec.json.decode(row[-2], type=dict[str, str | int])
    except (msgspec.MsgspecError, ValueError):
        return False
    if (table, row[1]) == ("properties", "slow") and not _SECONDS.fullmatch(row[2]):
        return False
    return bool(row[-1] == _digest(packed))


def connect(path: Path, how: str = "mode=rwc", *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a database that only its user may read; ``how`` as in https://www.sqlite.org/uri.html.

    Nothing in its schema may call a function that has side effects. Whoever opens one of a room calls ``check``.
    """
    if how == "mode=rwc":  # SQLite goes by the umask, and its journal takes over the mode
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    address = f"file:{quote(os.fsencode(path))}?{how}"
    database = sqlite3.connect(address, uri=True, check_same_thread=not any_thread, isolation_level=None)
    with ExitStack() as opened:
        opened.callback(database.close)
        for setting in ("trusted_schema = OFF", "cell_size_check = ON"):  # https://www.sqlite.org/security.html
            database.execute(f"PRAGMA {setting}")
        opened.pop_all()
    return database


def check(database: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a database has anything but tables of our names, or of ours with other columns."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    for kind, name, page, sql in database.execute("SELECT type, name, rootpage, sql FROM sqlite_schema"):
        # The index of a primary key has no text, and a virtual table no page.
        if not page or (sql is not None if kind == "index" else kind != "table" or name not in _expected()):
            raise sqlite3.DatabaseError(f"it has the {kind} {name!r}, which no host makes")
        if version == VERSION and kind == "table" and _columns(database, name) != _expected()[name]:
            raise sqlite3.DatabaseError(f"its table {name!r} has other columns than a host makes")


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """Return name, type, place in the primary key, and whether it is hidden, of each column."""
    return database.execute("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()


@cache
def _expected() -> dict[str, list[tuple[Any, ...]]]:
    """Return the columns of each table that a database may have, those of older versions too."""
    with closing(sqlite3.connect("")) as database:
        database.create_function("row_digest", -1, row_digest)
        database.executescript(_STEPS[0] + CUTS)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: _columns(database, name) for name in tables} | {"marks": []}


def prepare(database: sqlite3.Connection) -> None:
    """Make the tables in a new database, or bring an older one up to date. Raises StoreError for a newer one."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in _STEPS:
        raise StoreError(
            "the database is of version {version}, this program knows {known}; upgrade manywire",
            version=version,
            known=VERSION,
        )
    check(database)
    if version != VERSION:
        (usual,) = database.execute("PRAGMA secure_delete").fetchone()
        database.execute("PRAGMA secure_delete = ON")  # else the secrets of invites would stay in unused pages
        database.create_function("invite_key", 1, lambda secret: signer(secret).key)
        database.create_function("row_digest", -1, row_digest)
        database.executescript(f"BEGIN; {_STEPS[version]} PRAGMA user_version = {VERSION}; COMMIT;")
        database.execute(f"PRAGMA secure_delete = {usual}")
        check(database)
