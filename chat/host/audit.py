"""Who did what to whom, and why: this host's own record, which only owners and operators read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.host import schema, tables

if TYPE_CHECKING:
    import sqlite3

    from chat.host.store import Store

_ALL: Final = 2**63 - 1
KEPT: Final = 10_000  # rows of the audit trail; older ones are deleted


def admitted_with(store: Store, room: int, key: bytes) -> tuple[bytes, list[bytes]]:
    """Return by which invite a key came, b"" for none, and which keys came by the same. Raises StoreError."""
    invite = store._look_up("admitted", "key", room, key) or b""
    return invite, admitted_by(store, room, invite) if invite else []


def admitted_by(store: Store, room: int, invite: bytes) -> list[bytes]:
    """Return which keys came by an invite. Raises StoreError."""
    with store._reading():
        rows = store._reader.execute("SELECT * FROM admitted WHERE room = ? AND invite = ?", (room, invite))
        return [row[1] for row in rows if schema.is_sound("admitted", row)]


def add(database: sqlite3.Connection, room: int, time: int, by: str, rows: list[tuple[str, bytes, str, str]]) -> None:
    """Add rows of what, key, whom and why to the audit trail, in a transaction. It keeps the newest 10,000."""
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
    for number, row in enumerate(rows, last + 1):
        tables.put_row(database, "audit", number, room, time, by, *row)
    database.execute("DELETE FROM audit WHERE id <= ?", (last + len(rows) - KEPT,))


def newest(store: Store, room: int, before: int, limit: int) -> list[tuple[int, int, str, str, str, str]]:
    """Return number, time (ms), by whom, what, to whom and why of the newest rows below ``before``; 0: of all."""
    with store._reading():
        rows = store._reader.execute(
            "SELECT * FROM audit WHERE room = ? AND id < ? ORDER BY id DESC LIMIT ?",
            (room, before or _ALL, limit),
        ).fetchall()
    return [(row[0], row[2], *row[3:5], *row[6:8]) for row in rows if schema.is_sound("audit", row)]


def reason(store: Store, room: int, key: bytes) -> str:
    """Return why somebody was removed last, "" if nobody said."""
    query = "SELECT * FROM audit WHERE room = ? AND key = ? AND what IN ('ban', 'kick') ORDER BY id DESC LIMIT 1"
    with store._reading():
        row = store._reader.execute(query, (room, key)).fetchone()
    return str(row[7]) if row and schema.is_sound("audit", row) else ""
