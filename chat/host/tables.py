"""The tables beside a room's log, and whether their rows are what was stored.

    commit:  batches | changed rows, a digest in each | checkpoint: where the chain ends, and the sum of the digests

Rules:

1. Every row ends with a digest of its other columns. A row that does not fit its digest is not used.
2. Most tables have a checkpoint besides: the log's end, the chain there, and the sum (XOR)
   of their rows' digests. It is written with each commit, so a row that is gone, or is an older one, shows too.
   Checking it when a room opens costs one digest a row, however long the log is.
3. What does not fit is made anew from the log, whose chain proves it: who wrote what, how far each stream has come, and
   which nicknames belong to whom. What the log does not have is reported.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from chat.core import text
from chat.core.bodies import Author, Gap, Moderation, Rejection, unpack
from chat.core.errors import RemoteProtocolError
from chat.core.ledger import REJECTIONS_KEPT, Ledger, RoomTables
from chat.core.log import Log
from chat.core.wire import SPOKEN_END, Kind, split
from chat.host.marks import CHAIN_START
from chat.host.schema import MAX_AUTHORS, is_sound, row_digest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from chat.core.log import Batch
    from chat.core.wire import Frame

_logger: Final = logging.getLogger("chat.host.tables")

# Tables that the checkpoint covers, and how many columns behind the room name a row. Of the others a missing row does
# little harm: the reason why a message was rejected, and who came by which invite.
_COVERED: Final = {
    "authors": 1,
    "streams": 2,
    "nicks": 1,
    "members": 1,
    "invites": 1,
    "reads": 1,
    "moderated": 1,
    "properties": 1,
}
_TABLES: Final = (*_COVERED, "rejections", "admitted")
_FORGET_REJECTIONS: Final = """
DELETE FROM rejections WHERE room = ? AND key = ? AND stream = ? AND number <= (
    SELECT number FROM rejections WHERE room = ? AND key = ? AND stream = ? ORDER BY number DESC LIMIT 1 OFFSET ?)
"""


def put_row(database: sqlite3.Connection, table: str, *row: object, how: str = "REPLACE") -> None:
    """Put a row into a table, with its digest."""
    put_rows(database, table, [(*row, row_digest(table, *row))], how)


def put_rows(database: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]], how: str = "REPLACE") -> None:
    """Put rows into a table that have their digests already."""
    marks = ", ".join("?" * len(rows[0]))
    database.executemany(f"INSERT OR {how} INTO {table} VALUES ({marks})", rows)  # noqa: S608  our own words only


@dataclass
class Checked:
    """What a room's next checkpoint is made from."""

    next_seq: int = 1
    chain: bytes = CHAIN_START
    total: int = 0
    digests: dict[tuple[Any, ...], int] = field(default_factory=dict)  # by table and the columns that name a row

    def put(
        self, database: sqlite3.Connection, room: int, changes: RoomTables, end: tuple[int, bytes] | None = None
    ) -> Callable[[], None]:
        """Write changed rows and a checkpoint, in the current transaction. Call what it returns once that is stored."""
        new: dict[tuple[Any, ...], int] = {("nicks", skeleton): 0 for skeleton in changes.released}
        database.executemany(
            "DELETE FROM nicks WHERE room = ? AND skeleton = ?", [(room, skeleton) for skeleton in changes.released]
        )
        for table, rows in _rows(changes).items():
            if not rows:
                continue
            sealed = [(room, *row, row_digest(table, room, *row)) for row in rows]
            put_rows(database, table, sealed, "IGNORE" if table == "admitted" else "REPLACE")
            if table in _COVERED:
                last = _COVERED[table] + 1
                new.update(((table, *row[1:last]), int.from_bytes(row[-1])) for row in sealed)
        for key, stream, _ in changes.rejections:
            owner = (room, key, _signed(stream))
            database.execute(_FORGET_REJECTIONS, (*owner, *owner, REJECTIONS_KEPT))
        total = self.total
        for row, its_digest in new.items():
            total ^= self.digests.get(row, 0) ^ its_digest
        next_seq, chain = end or (self.next_seq, self.chain)
        put_row(database, "checkpoints", room, next_seq, chain, total.to_bytes(8))

        def stored() -> None:
            self.digests.update(new)
            for skeleton in changes.released:
                if not new["nicks", skeleton]:
                    del self.digests["nicks", skeleton]
            self.total, self.next_seq, self.chain = total, next_seq, chain

        return stored


def load(
    reader: sqlite3.Connection, room: int, next_seq: int, chain: bytes, read: Callable[[int], Batch | Gap | None]
) -> tuple[RoomTables, Checked, bool]:
    """Return a room's rows, what its next checkpoint is made from, and whether the rows are to be written anew.

    ``next_seq`` and ``chain`` are the log's end. Rows that do not fit are made from the log, which ``read`` reads.
    """
    found: dict[str, list[tuple[Any, ...]]] = {}
    damaged: dict[str, int] = {}
    checked = Checked(next_seq, chain)
    for table in _TABLES:
        rows = reader.execute(f"SELECT * FROM {table} WHERE room = ?", (room,)).fetchall()  # noqa: S608  as above
        sound = [row for row in rows if is_sound(table, row)]
        if len(sound) < len(rows):
            damaged[table] = len(rows) - len(sound)
        found[table] = [row[1:-1] for row in sound]
        if table in _COVERED:
            for row in sound:
                checked.digests[table, *row[1 : _COVERED[table] + 1]] = int.from_bytes(row[-1])
                checked.total ^= int.from_bytes(row[-1])
    if [row[0] for row in found["authors"]] != list(range(1, len(found["authors"]) + 1)):
        damaged.setdefault("authors", 0)
    tables = _tables(found)
    expected = (room, next_seq, chain, checked.total.to_bytes(8))
    query = "SELECT * FROM checkpoints WHERE room = ?"
    known = reader.execute(query, (room,)).fetchone()
    if known == (*expected, row_digest("checkpoints", *expected)) and not damaged:
        return tables, checked, False
    for table, count in filter(itemgetter(1), damaged.items()):
        _logger.error("%d rows of the table %s are damaged and not used", count, table)
    changed, lost = _mend(tables, next_seq, read)
    if known is not None or changed:
        _logger.error(
            "the tables beside the log were not those of its last checkpoint; %d rows are made anew from the log%s",
            changed,
            f", of which {lost} messages are missing: streams that only these prove may begin anew" if lost else "",
        )
    # Everything is written again, so nothing counts as stored.
    return tables, Checked(next_seq, chain), True


def write_anew(database: sqlite3.Connection, room: int, tables: RoomTables, checked: Checked) -> Callable[[], None]:
    """Replace all rows of a room, in the current transaction. Call what it returns once that is stored."""
    for table in _TABLES:
        if table != "admitted":  # which no room reads
            database.execute(f"DELETE FROM {table} WHERE room = ?", (room,))  # noqa: S608  as above
    return checked.put(database, room, tables)


def _mend(tables: RoomTables, end: int, read: Callable[[int], Batch | Gap | None]) -> tuple[int, int]:
    """Correct rows by the log. Return how many were wrong or missing, and how many messages the log lacks."""
    authors, numbers, decisions, lost = _from_log(end, read)
    marks = {(key, stream): number for key, stream, number in tables.high_water}
    before = {author.index: author for author in tables.authors}
    changed = sum(before.get(index) != author for index, author in authors.items())
    authors = before | authors
    top = max((*authors, *numbers), default=0)
    for index in range(1, top + 1):  # nobody may be taken for another; and the next author must get another index
        if index not in authors:
            authors[index] = Author(index=index, key=b"", stream=0, nick="?")
            changed += 1
    proved = [
        (authors[index].key, authors[index].stream, number) for index, number in numbers.items() if index in authors
    ]
    proved += [(key, stream, one.number + one.count - 1) for key, stream, one in tables.rejections]
    for key, stream, number in proved:
        if key and marks.get((key, stream), 0) < number:
            marks[key, stream] = number
            changed += 1
    before_decisions = {*tables.moderated, *tables.properties}
    decide(tables, decisions)
    changed += len(before_decisions ^ {*tables.moderated, *tables.properties})
    known = {nick for _, nick, _ in tables.nicks}
    holders = {skeleton: key for skeleton, _, key in tables.nicks}
    for author in authors.values():
        if author.key and author.nick not in known:
            skeleton = text.skeleton(author.nick)
            if holders.get(skeleton, author.key) != author.key:
                skeleton = author.nick  # another key's looks alike: earlier versions allowed more
            if skeleton not in holders:
                tables.nicks.append((skeleton, author.nick, author.key))
                holders[skeleton] = author.key
                changed += 1
    tables.authors[:] = [authors[index] for index in range(1, top + 1)]
    tables.high_water[:] = [(key, stream, number) for (key, stream), number in marks.items()]
    return changed, lost


def decide(tables: RoomTables, decisions: Iterable[Moderation]) -> None:
    """Have decisions that the log proves take effect, in its order."""
    ledger = Ledger(Log(b""), RoomTables(moderated=tables.moderated, properties=tables.properties))
    for decision in decisions:
        ledger.decide(decision)
    tables.moderated = [(key, role, until) for key, (role, until) in ledger.moderated.items()]
    tables.properties = list(ledger.properties.items())


def _from_log(
    end: int, read: Callable[[int], Batch | Gap | None]
) -> tuple[dict[int, Author], dict[int, int], list[Moderation], int]:
    """Return the log's authors, the last number of each who speaks, what was decided, and how much it lacks."""
    authors: dict[int, Author] = {}
    numbers: dict[int, int] = {}
    decisions: list[Moderation] = []
    seq, lost = 1, 0
    while seq < end:
        piece = read(seq) or Gap(first=seq, count=end - seq)
        if isinstance(piece, Gap):
            lost += piece.count
            seq = piece.first + piece.count
            continue
        for frame, record in read_frames(piece.data, piece.first):
            match record:
                case Author(index=index):
                    authors[index] = record
                case Moderation():
                    decisions.append(record)
                case None if frame.kind < SPOKEN_END:
                    numbers[frame.author] = max(frame.number, numbers.get(frame.author, 0))
        seq = piece.next_seq
    return authors, numbers, decisions, lost


def read_frames(data: bytes, first: int) -> list[tuple[Frame, Author | Moderation | None]]:
    """Return the frames of a batch, whose first number is ``first``, and what the host's records among them say.

    Raises RemoteProtocolError for what no host has made, though its chain holds: members would refuse it.
    """
    found: list[tuple[Frame, Author | Moderation | None]] = []
    for frame in split(data):
        record: Author | Moderation | None = None
        if frame.kind == Kind.AUTHOR:
            record = unpack(Author, frame)
        elif frame.kind == Kind.MODERATION:
            record = unpack(Moderation, frame)
        index = record.index if isinstance(record, Author) else frame.author
        if frame.seq != first + len(found) or index != frame.author or index > MAX_AUTHORS:
            raise RemoteProtocolError(f"no host has made frame {frame.seq}")
        found.append((frame, record))
    return found


def _rows(tables: RoomTables) -> dict[str, Iterable[tuple[Any, ...]]]:
    """Return rows as SQLite holds them, without the room."""
    return {
        "authors": [(a.index, a.key, _signed(a.stream), a.nick, int(a.bot)) for a in tables.authors],
        "streams": [(key, _signed(stream), number) for key, stream, number in tables.high_water],
        "nicks": tables.nicks,
        "members": tables.members,
        "invites": [(key, expires, int(counted)) for key, expires, counted in tables.invites],
        "rejections": [
            (key, _signed(stream), one.number, one.count, one.code, json.dumps(one.fields))
            for key, stream, one in tables.rejections
        ],
        "reads": tables.reads,
        "moderated": tables.moderated,
        "properties": tables.properties,
        "admitted": tables.admitted,
    }


def _tables(found: dict[str, list[Any]]) -> RoomTables:
    return RoomTables(
        authors=[
            Author(index=index, key=key, stream=unsigned(stream), nick=nick, bot=bool(bot))
            for index, key, stream, nick, bot in found["authors"]
        ],
        high_water=[(key, unsigned(stream), number) for key, stream, number in found["streams"]],
        nicks=found["nicks"],
        members=found["members"],
        invites=[(key, expires, bool(counted)) for key, expires, counted in found["invites"]],
        rejections=[
            (key, unsigned(stream), Rejection(number=number, count=count, code=code, fields=json.loads(fields)))
            for key, stream, number, count, code, fields in found["rejections"]
        ],
        reads=found["reads"],
        moderated=found["moderated"],
        properties=found["properties"],
    )


def _signed(number: int) -> int:
    """SQLite's integers are signed; a stream's id is not."""
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    return number + (1 << 64) if number < 0 else number
