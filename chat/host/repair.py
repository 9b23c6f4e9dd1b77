"""Save what a damaged room still holds, or only look for damage.

    log.db, log.db-wal ──▶ pages ──▶ rows that prove themselves ──▶ rows that fit together ──▶ a new log.db
                      └──▶ SQLite, on a copy ──▶ what the other tables say ──────────────────────┘

Rules:

1. A row of the log is taken if its link of the chain holds: it is what was written. Nothing else has a proof, so who
   wrote what, and how far each stream has come, is read from the log again.
2. A loss in the middle of the log stays a gap. One at its end is known from the high-water mark.
3. The damaged files are never changed. The new database takes their place once it has been read back.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from chat.core import text
from chat.core.bodies import Author, Gap, Moderation, Rejection, direct_name
from chat.core.errors import RemoteProtocolError, StoreError, StoreFull, Text
from chat.core.ledger import BOT, RoomTables
from chat.core.wire import EPOCH_SIZE, SPOKEN_END
from chat.host import schema
from chat.host.backup import Saved, full_disk, replace_database, verify, workplace
from chat.host.folder import KEPT_WAL, check_folder, unlock_folder
from chat.host.keep import Cut, put_cut
from chat.host.marks import CHAIN_START, read_marks
from chat.host.pages import Pages, copy_readable
from chat.host.store import ROOM_BITS, SEQ_MASK, RoomState, Store, is_proved
from chat.host.tables import decide, put_row, read_frames, unsigned
from chat.local.private_files import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAIN: Final = 1  # the number of the room that the folder is for; direct rooms are made later
_TOP: Final = 1 << 63 - ROOM_BITS  # SQLite's integers have no room for this number or above
_NOBODY: Final = "?"  # the nickname of an author whose record is lost
_NO_CUT: Final = Cut(1, CHAIN_START)


class Row(NamedTuple):
    """A row of the log whose link holds."""

    room: int
    first: int
    frames: int
    before: bytes
    chain: bytes
    base: int  # what its room's chain begins with
    place: int  # of its data, in a database beside these

    @property
    def next_seq(self) -> int:
        return self.first + self.frames


class Report(NamedTuple):
    rooms: list[Saved]
    faults: list[str]  # what SQLite says about the files
    kept: Path | None = None  # the damaged database

    @property
    def is_sound(self) -> bool:
        return not self.faults and not any(room.lost or room.unnamed for room in self.rooms)


def check(folder: Path, name: str) -> Report:
    """Say what is wrong with a room, and what ``repair`` would save. Nothing is changed. Raises OSError.

    A room that is open is read through SQLite, beside its host.
    """
    if (fd := try_lock(check_folder(folder) / "lock")) is None:
        try:
            return Report(verify(folder / "log.db", live=True, marks=read_marks(folder / "log.mark")), [])
        except StoreError as error:
            return Report([], [str(error)])
    try:
        with tempfile.TemporaryDirectory() as place, full_disk(), closing(_Salvage(folder, name, Path(place))) as found:
            return found.report()
    except StoreFull:
        place = tempfile.gettempdir()
        raise StoreError("{place} is full; let TMPDIR be a folder that has space for the room", place=place) from None
    finally:
        unlock_folder(folder, fd)


def repair(folder: Path, name: str) -> Report:
    """Make a new database of what is proved, and put it in the place of the old one, which is kept beside it.

    Raises StoreError, OSError; then the old files are as they were.
    """
    with workplace(folder, "repair-") as made:
        with closing(_Salvage(folder, name, made)) as found:
            with closing(Store(made)) as store:
                found.write(store)
            report = found.report()
        verify(made / "log.db")
        return report._replace(kept=replace_database(folder, made / "log.db", made / "log.mark"))


class _Salvage:
    """What can be read of a damaged folder. ``place`` is for copies. Raises OSError, sqlite3.Error if it is full."""

    def __init__(self, folder: Path, name: str, place: Path) -> None:
        self._folder = folder
        with ExitStack() as opened:
            self._data = opened.enter_context(closing(sqlite3.connect(place / "rows", isolation_level=None)))
            self._read_all(name, place)
            self._opened = opened.pop_all()

    def _read_all(self, name: str, place: Path) -> None:
        folder = self._folder
        self._data.execute("PRAGMA journal_mode = OFF")
        self._data.execute("PRAGMA synchronous = OFF")
        self._data.execute("CREATE TABLE rows (place INTEGER PRIMARY KEY, data BLOB)")
        self._rooms: dict[int, tuple[str, bytes, bytes]] = {}  # name, epoch, invite
        self._tables, self._faults = _other_tables(folder / "log.db", place)
        proved = self._read_pages()
        for room, its_name, epoch, invite, _base in self._tables["rooms"]:
            self._rooms[room] = its_name, epoch, invite
        namesake = next((found for found in self._rooms.values() if found[0] == name), ("", b"", b""))
        self._rooms[_MAIN] = name, *self._rooms.get(_MAIN, namesake)[1:]  # the folder is named by it
        self._marks = _marks(folder, {*self._rooms, *proved})
        self._cuts = defaultdict(lambda: _NO_CUT, {room: Cut(*cut) for room, *cut in self._tables["cuts"]})
        self._rows = {
            room: _fit((row for row in rows if row.first >= self._cuts[room].first), *self._marks[room])
            for room, rows in proved.items()  # what --keep has let go of still lies in free pages
        }
        for room, rows in self._rows.items():
            if room not in self._rooms and rows and (len(rows) > 1 or rows[0].first == 1):
                self._rooms[room] = self._name_of(room, f"@lost-{room}"), b"", b""
        self._drop_doubles()
        self._decisions: dict[int, list[Moderation]] = defaultdict(list)
        self._authors = {room: self._derive(room) for room in self._rooms}

    def close(self) -> None:
        self._opened.close()

    def _read_pages(self) -> dict[int, list[Row]]:
        proved: dict[int, dict[tuple[int, bytes], Row]] = defaultdict(dict)
        log = self._folder / "log.db"
        # Where a repair was killed, the WAL is already beside the other name of the same database.
        others = [path for path in log.parent.glob("log.db.replaced-*") if log.exists() and path.samefile(log)]
        wals = [self._folder / KEPT_WAL, *(Path(f"{path}-wal") for path in (log, *others))]
        with ExitStack() as opened:
            every = [opened.enter_context(closing(Pages(log, wal))) for wal in wals]
            for at, versions in chain.from_iterable(pages.rows() for pages in every):
                for columns in versions:
                    match columns:
                        case [None, int(frames), bytes(before), bytes(after), bytes(data)]:
                            room, first = at >> ROOM_BITS, at & SEQ_MASK
                            if (first, after) in proved[room]:
                                break
                            base = _base(room, first, frames, before, after, data)
                            if base is not None and room > 0:
                                place = self._data.execute("INSERT INTO rows (data) VALUES (?)", (data,)).lastrowid
                                assert place is not None
                                proved[room][first, after] = Row(room, first, frames, before, after, base, place)
                                break
                        case [None, str(name), bytes(epoch), bytes(invite), *_] if (
                            len(epoch) == EPOCH_SIZE and 0 < at < _TOP
                        ):
                            self._rooms[at] = self._name_of(at, name), epoch, invite
        return {room: list(rows.values()) for room, rows in proved.items()}

    def _name_of(self, room: int, otherwise: str) -> str:
        """A direct room is named by its two keys."""
        keys = [key for its_room, key, _role in self._tables["members"] if its_room == room]
        return direct_name(*keys) if len(keys) == 2 else otherwise

    def _drop_doubles(self) -> None:
        """Let each name be one room's, the main one's first: a flipped bit in a room's number makes another room."""
        names: set[str] = set()
        for room, (name, epoch, invite) in sorted(self._rooms.items()):
            if name in names:
                del self._rooms[room]
                if self._rows.get(room):
                    self._rooms[room] = f"@lost-{room}", epoch, invite
            names.add(name)

    def report(self) -> Report:
        rooms = []
        for room, (name, _epoch, _invite) in sorted(self._rooms.items()):
            rows = self._rows.get(room, [])
            marked, _chain = self._marks[room]
            first = self._cuts[room].first
            ends = [first, *(row.next_seq for row in rows)]
            begins = [*(row.first for row in rows), max(ends[-1], marked)]
            lost = [Gap(first=end, count=begin - end) for end, begin in zip(ends, begins, strict=True) if begin > end]
            unnamed = sum(author.nick == _NOBODY for author in self._authors[room][0])
            rooms.append(Saved(name, begins[-1] - 1, lost, first, unnamed))
        return Report(rooms, self._faults)

    # -- the new database ------------------------------------------------------------------------

    def write(self, store: Store) -> None:
        for number, (room, (name, epoch, invite)) in enumerate(sorted(self._rooms.items()), 1):  # without a hole
            rows = self._rows.get(room, [])
            base = Counter(row.base for row in rows).most_common(1)[0][0] if rows else 0
            stored = (
                (number << ROOM_BITS | row.first, row.frames, row.before, row.chain, self._read(row)) for row in rows
            )
            end = rows[-1].next_seq if rows else 1
            state = RoomState(
                *(number, epoch or secrets.token_bytes(EPOCH_SIZE), invite or secrets.token_bytes(16)),
                *(end, 0, self._changes(room, end)),
            )
            store.adopt(name, state, base, stored)
            if (cut := self._cuts[room]) != _NO_CUT:
                put_cut(store, number, cut)
            for _room, asked, given in self._of("addresses", room):
                store.remember_address(number, asked, given)
            for _room, key, uses in self._of("invite_uses", room):
                expires = next(
                    (expires for _room, its_key, expires, _ in self._of("invites", room) if its_key == key), 0
                )
                store.add_invite(number, key, expires, uses)
            with store.transaction() as database:
                for row in self._tables["audit"]:
                    if row[1] == room:
                        put_row(database, "audit", row[0], number, *row[2:])
                for row in self._of("covered", room):
                    put_row(database, "covered", number, *row[1:])
                for row in self._of("invite_terms", room):
                    put_row(database, "invite_terms", number, *row[1:])

    def _read(self, row: Row) -> bytes:
        data: bytes = self._data.execute("SELECT data FROM rows WHERE place = ?", (row.place,)).fetchone()[0]
        return data

    def _of(self, table: str, room: int) -> Iterator[tuple[Any, ...]]:
        return (row for row in self._tables[table] if row[0] == room)

    def _derive(self, room: int) -> tuple[list[Author], dict[tuple[bytes, int], int]]:
        """Return the authors, without a hole among their numbers, and how far each stream has come, by the log."""
        found: dict[int, Author] = {}
        numbers: dict[int, int] = {}  # author: the last number of its own
        for row in list(self._rows.get(room, ())):
            try:
                read = read_frames(self._read(row), row.first)
            except RemoteProtocolError:
                self._rows[room].remove(row)
                continue
            for frame, record in read:
                match record:
                    case Author(index=index):
                        found[index] = record
                    case Moderation():
                        self._decisions[room].append(record)
                    case None if frame.author and frame.kind < SPOKEN_END:
                        numbers[frame.author] = frame.number
        for _room, index, key, stream, nick, bot in self._of("authors", room):
            if _is_nick(nick):
                found.setdefault(index, Author(index=index, key=key, stream=unsigned(stream), nick=nick, bot=bool(bot)))
        for index in range(1, max([0, *numbers, *found]) + 1):
            found.setdefault(index, Author(index=index, key=b"", stream=index, nick=_NOBODY))
        high_water: dict[tuple[bytes, int], int] = {}
        for index, number in numbers.items():
            whose = found[index].key, found[index].stream
            high_water[whose] = max(high_water.get(whose, 0), number)
        if self._cuts[room] != _NO_CUT:  # all that somebody said may have been let go of
            for _room, key, stream, number in self._of("streams", room):
                high_water.setdefault((key, unsigned(stream)), number)
        return [author for _index, author in sorted(found.items())], high_water

    def _changes(self, room: int, end: int) -> RoomTables:
        authors, high_water = self._authors[room]
        rejections = []
        for _room, key, stream, number, count, code, fields in self._of("rejections", room):
            with suppress(ValueError, msgspec.ValidationError):
                said = {"number": number, "count": count, "code": code, "fields": json.loads(fields)}
                rejections.append((key, unsigned(stream), msgspec.convert(said, Rejection)))
        for key, stream, one in rejections:
            high_water[key, stream] = max(high_water.get((key, stream), 0), one.number + one.count - 1)
        known = [author for author in authors if author.key]
        nicks = {skeleton: (nick, key) for _room, skeleton, nick, key in self._of("nicks", room) if _is_nick(nick)}
        proved: dict[str, tuple[str, bytes]] = {}
        for author in known:  # under the nickname itself if another key's looks alike: earlier versions allowed more
            skeleton, whose = text.skeleton(author.nick), (author.nick, author.key)
            proved[author.nick if proved.get(skeleton, whose)[1] != author.key else skeleton] = whose
        nicks |= proved
        roles = {author.key: BOT if author.bot else "member" for author in known}
        roles |= {key: role for _room, key, role in self._of("members", room)}
        tables = RoomTables(
            authors=authors,
            high_water=[(*whose, number) for whose, number in high_water.items()],
            nicks=[(skeleton, *whose) for skeleton, whose in nicks.items()],
            members=list(roles.items()),
            invites=[(key, expires, bool(counted)) for _room, key, expires, counted in self._of("invites", room)],
            rejections=rejections,
            reads=[(key, min(seq, end - 1)) for _room, key, seq in self._of("reads", room) if seq > 0],
            moderated=[(key, role, until) for _room, key, role, until in self._of("moderated", room)],
            properties=[(name, value) for _room, name, value in self._of("properties", room)],
            admitted=[(key, invite) for _room, key, invite in self._of("admitted", room)],
        )
        decide(tables, self._decisions[room])
        return tables


def _marks(folder: Path, rooms: Iterable[int]) -> dict[int, tuple[int, bytes]]:
    marks = read_marks(folder / "log.mark")
    return {room: marks.get(room, (1, CHAIN_START)) for room in rooms}


def _base(room: int, first: int, frames: int, before: bytes, chain: bytes, data: bytes) -> int | None:
    """Return with which base the link holds, None if it does not."""
    if not 0 < frames <= 2048:  # frames of 32 bytes that fill a batch
        return None
    bases = (0, room << ROOM_BITS)
    return next((base for base in bases if is_proved(before, base | first, frames, data, chain)), None)


def _fit(rows: Iterable[Row], marked: int, mark: bytes) -> list[Row]:
    """Return the rows that can belong to one log, from its end backwards.

    Rows that touch must be linked. One row alone, behind the mark and linked to none, may be another room's whose
    number was damaged.
    """
    ordered = _of_this_past(sorted(rows, key=lambda row: (row.next_seq, row.frames)), (marked, mark))
    ends = {(row.next_seq, row.chain) for row in ordered}
    taken: list[Row] = []
    for row in reversed(ordered):
        if not taken:
            if mark == CHAIN_START or row.next_seq <= marked or (row.first, row.before) in ends:
                taken.append(row)
        elif row.next_seq < taken[-1].first or (row.next_seq, row.chain) == (taken[-1].first, taken[-1].before):
            taken.append(row)
    return taken[::-1]


def _of_this_past(ordered: list[Row], mark: tuple[int, bytes]) -> list[Row]:
    """Leave out rows that cannot be in one log with the one that the mark names, and what follows on them.

    A host that was killed in a commit leaves such rows in the WAL, and later others get their numbers.
    """
    named = next((row for row in ordered if (row.next_seq, row.chain) == mark), None)
    other: set[tuple[int, bytes]] = set()
    left: list[Row] = []
    for row in ordered:
        is_beside = named is not None and row.first < named.next_seq and row.next_seq > named.first and row != named
        if is_beside or (row.first, row.before) in other:
            other.add((row.next_seq, row.chain))
        else:
            left.append(row)
    return left


def _other_tables(path: Path, place: Path) -> tuple[dict[str, list[tuple[Any, ...]]], list[str]]:
    """Return the rows that SQLite can read in a copy of the files, and what it says is wrong with them."""
    tables: dict[str, list[tuple[Any, ...]]] = {table: [] for table in schema.TABLES}
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        copied = Path(folder, "log.db")
        for end in ("", "-wal"):
            copy_readable(Path(f"{path}{end}"), Path(f"{copied}{end}"))
        if not Path(f"{copied}-wal").exists():
            copy_readable(path.with_name(KEPT_WAL), Path(f"{copied}-wal"))
        try:
            with closing(schema.connect(copied)) as database:
                schema.prepare(database)
                database.text_factory = lambda raw: raw.decode("utf-8", "replace")
                faults += [line for (line,) in database.execute("PRAGMA integrity_check(10)") if line != "ok"]
                for table in schema.TABLES:
                    rows = _rows(database, table)
                    tables[table] = [row[:-1] for row in rows if schema.is_sound(table, row)]
                    if wrong := len(rows) - len(tables[table]):
                        faults.append(Text("rows of the table {table}: {count}", count=wrong, table=table))
                for room, (marked, _chain) in read_marks(path.with_name("log.mark")).items():
                    base = room << ROOM_BITS
                    query = "SELECT max(at) + frames FROM batches WHERE at BETWEEN ? AND ?"
                    (end,) = database.execute(query, (base, base | marked - 1)).fetchone()
                    if (end or 1) & SEQ_MASK < marked:  # as with a damaged WAL, whose rest SQLite drops
                        last = ((end or 1) & SEQ_MASK) - 1
                        faults.append(
                            Text("a host finds messages up to {last} only, not {marked}", last=last, marked=marked - 1)
                        )
        except schema.ERRORS as error:
            faults.append(str(error))
    return tables, faults


def _rows(database: sqlite3.Connection, table: str) -> set[tuple[Any, ...]]:
    """Return what can be read from either end of a table: SQLite stops at a damaged page."""
    found = set()
    for order in ("", " ORDER BY 1 DESC, 2 DESC"):
        with suppress(*schema.ERRORS):
            for row in database.execute(f"SELECT * FROM {table}{order}"):  # noqa: S608  our own words only
                found.add(row)
    return found


def _is_nick(nick: str) -> bool:
    with suppress(ValueError):
        return text.nickname(nick) == nick
    return False
