"""The tables of a host's database, and how one of an older version is brought up to date."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

import msgspec

from chat.core.errors import StoreError
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


def row_digest(table: str, *row: object) -> bytes:
    """Return what the last column of a row holds: 8 bytes over the table's name and the other columns.

    A flipped bit may change a value's type; each type is packed in its own way.
    """
    return hashlib.sha256(msgspec.msgpack.encode((table, *row))).digest()[:8]


def connect(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a database that only its user may read: SQLite goes by the umask, and its journal takes over the mode."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
    return sqlite3.connect(path, check_same_thread=not any_thread, isolation_level=None)


def prepare(database: sqlite3.Connection) -> None:
    """Make the tables in a new database, or bring an older one up to date. Raises StoreError for a newer one."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    latest = _SINCE_VERSION_9 + _SINCE_VERSION_10
    steps = {
        0: _NEW + _SINCE_VERSION_3 + _SINCE_VERSION_7 + _SINCE_VERSION_8 + latest,
        3: _BEFORE + _SINCE_VERSION_3 + _AFTER + _SINCE_VERSION_7 + _SINCE_VERSION_8 + latest,
        6: _SINCE_VERSION_7 + _SINCE_VERSION_8 + latest,
        7: _SINCE_VERSION_8 + latest,
        8: latest,
        9: _SINCE_VERSION_10,
        VERSION: "",
    }
    if version not in steps:
        raise StoreError(
            "the database is of version {version}, this program knows {known}; upgrade manywire",
            version=version,
            known=VERSION,
        )
    if version != VERSION:
        (usual,) = database.execute("PRAGMA secure_delete").fetchone()
        database.execute("PRAGMA secure_delete = ON")  # else the secrets of invites would stay in unused pages
        database.create_function("invite_key", 1, lambda secret: signer(secret).key)
        database.create_function("row_digest", -1, row_digest)
        database.executescript(f"BEGIN; {steps[version]} PRAGMA user_version = {VERSION}; COMMIT;")
        database.execute(f"PRAGMA secure_delete = {usual}")
