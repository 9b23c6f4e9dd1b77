"""A room's database as one file: made beside a running host, read back, put in place of another.

Rules:

1. A file counts as good only after every row of it was read back and its link of the chain checked.
2. A database that is replaced is kept beside the new one, so nothing here loses messages.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import struct
import tempfile
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from chat.core.bodies import Gap
from chat.core.errors import ChatError, StoreError, StoreFull, reason
from chat.host import schema
from chat.host.folder import KEPT_WAL, check_folder, keep_wal, lock_folder, unlock_folder
from chat.host.keep import cut_of
from chat.host.marks import read_marks
from chat.host.store import ROOM_BITS, SEQ_MASK, is_proved
from chat.local.private_files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LOG: Final = "log.db"
_MARK: Final = "log.mark"
_MAGIC: Final = b"SQLite format 3\0"


class Saved(NamedTuple):
    """What there is of one room: its numbers from 1 to ``last``, without the ``lost`` ones."""

    name: str
    last: int
    lost: list[Gap]
    first: int = 1  # the number that it begins with: --keep has let go of those before
    unnamed: int = 0  # authors of whom nothing is left but their messages


def verify(
    path: Path,
    *,
    named: Path | None = None,
    live: bool = False,
    marks: Mapping[int, tuple[int, bytes]] = MappingProxyType({}),
) -> list[Saved]:
    """Read every row of a database, and return its rooms; the one it was made for comes first.

    ``live``: a host may write to it meanwhile; what is read is of one moment. ``marks``: how far its rooms had come by
    then. Raises StoreError if it is damaged anywhere but in rows of the log, which are then among the ``lost``. Errors
    call it by the path ``named``.
    """
    if not live and Path(f"{path}-wal").exists():
        raise StoreFull(str(path))  # which could not take its WAL when it was closed; SQLite keeps that to itself
    with _reading(named or path), closing(_connect(path, "mode=ro" if live else "mode=ro&immutable=1")) as database:
        database.execute("BEGIN")
        (first, *_) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if first != "ok":
            raise sqlite3.DatabaseError(first)
        rows = database.execute("SELECT id, name, chain_base FROM rooms").fetchall()
        rooms = {room: (f"@lost-{room}", 0) for room in marks} | {room: (name, base) for room, name, base in rows}
        if not rooms:
            raise sqlite3.DatabaseError("it has no room")
        return [
            _saved(database, room, name, base, marks.get(room, (1, b""))[0])
            for room, (name, base) in sorted(rooms.items())
        ]


def _saved(database: sqlite3.Connection, room: int, name: str, base: int, marked: int) -> Saved:
    lost: list[Gap] = []
    cut = cut_of(database, room)
    end, chain = cut.first, cut.chain
    rows = database.execute(
        "SELECT at & ?, frames, before, chain, data FROM batches WHERE at BETWEEN ? AND ? ORDER BY at",
        (SEQ_MASK, room << ROOM_BITS, room << ROOM_BITS | SEQ_MASK),
    )
    for first, frames, before, after, data in rows:
        if first > end:
            lost.append(Gap(first=end, count=first - end))
        if not is_proved(before, base | first, frames, data, after) or (first == end and before != chain):
            lost.append(Gap(first=first, count=frames))
        end, chain = first + frames, after
    if marked > end:
        lost.append(Gap(first=end, count=marked - end))
        end = marked
    return Saved(name, end - 1, lost, cut.first)


def backup(folder: Path, file: Path) -> list[Saved]:
    """Copy a room's database to a new file, also while its host runs, and read it back.

    It is of one moment, and holds everything that the host had confirmed by then. Raises StoreError, OSError.
    """
    if file.exists():
        raise ChatError("{path} exists; choose another name, or remove it", path=file)
    marks = read_marks(check_folder(folder) / _MARK)
    keep_wal(folder)
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=f".{file.name}-") as made:
        copy = Path(made, _LOG)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite would go by the umask
        try:
            with closing(_connect(folder / _LOG, "mode=rw")) as database:
                database.execute("PRAGMA busy_timeout = 60000")
                database.execute("VACUUM INTO ?", (f"file:{quote(os.fsencode(copy))}",))  # SQL has no other bytes
        except schema.ERRORS as error:
            raise StoreError("cannot copy {path} to {file}: {why}", path=folder / _LOG, file=file, why=error) from None
        _upgrade(copy, file)
        saved = verify(copy, marks=marks)
        _sync(copy)
        copy.rename(file)
    _sync(file.absolute().parent)
    if not any(room.lost for room in saved):
        (folder / KEPT_WAL).unlink(missing_ok=True)
    return saved


def restore(file: Path, place: Callable[[str], Path]) -> tuple[Saved, Path | None]:
    """Put a backup in the place of its room, whose folder ``place`` returns by name.

    Returns what is there now, and where the database is that was there before. Raises StoreError, OSError.
    """
    _facts, begin = read_regular(file, len(_MAGIC))
    if begin != _MAGIC:
        raise StoreError("{path} is no backup of a room", path=file)
    if Path(f"{file}-wal").exists():
        raise StoreError(
            "{path} is no backup: the file {wal} is a part of it; rename both, to log.db and log.db-wal",
            path=file,
            wal=f"{file.name}-wal",
        )
    folder = place(_room_in(file))
    with workplace(folder, "restore-") as made:
        copy = made / _LOG
        shutil.copyfile(file, copy)
        _upgrade(copy, file)
        (saved, *_direct) = verify(copy, named=file)
        return saved, replace_database(folder, copy)


@contextmanager
def workplace(folder: Path, prefix: str) -> Iterator[Path]:
    """Lock a room's folder, and make one in it for a new database, which is gone at the end. Raises StoreError."""
    lock = lock_folder(folder)
    try:
        with full_disk(), tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as made:
            yield Path(made)
    except StoreFull:
        raise StoreError("the disk is full; nothing was changed") from None
    finally:
        unlock_folder(folder, lock)


@contextmanager
def full_disk() -> Iterator[None]:
    """Raise StoreFull where Python and SQLite say in their ways that a disk is full."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreFull(str(error)) from None
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise StoreFull(reason(error)) from None


def _room_in(file: Path) -> str:
    """Return the name of the room that a backup is of."""
    found = None
    with _reading(file), closing(_connect(file, "mode=ro&immutable=1")) as database:
        found = database.execute("SELECT name FROM rooms ORDER BY id LIMIT 1").fetchone()
    match found:
        case (str(name),) if not name.startswith("@"):
            return name
    raise StoreError("{path} is no backup of a room", path=file)


def _upgrade(copy: Path, named: Path) -> None:
    """Bring a copy that an older version has made up to date."""
    with _reading(named), closing(_connect(copy, "mode=rw")) as database:
        schema.prepare(database)
        database.execute("PRAGMA journal_mode = DELETE")  # one file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError, struct.error) as error:  # some for a value of another type
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            raise StoreFull(str(error)) from None
        raise StoreError("{path} is damaged: {why}", path=path, why=error) from None


def replace_database(folder: Path, new: Path, mark: Path | None = None) -> Path | None:
    """Put a closed database, and its mark, in the place of those in a folder that the caller has locked.

    The old ones are kept: ``log.db.replaced-1`` and so on. Returns the old database's new path, None if there was none.
    Raises OSError.
    """
    log = folder / _LOG
    kept: Path | None = None
    for path in filter(None, (new, mark)):
        path.chmod(0o600)
        _sync(path)
    if log.exists():
        kept = next(path for number in count(1) if not (path := folder / f"{_LOG}.replaced-{number}").exists())
        names = {_LOG: kept.name, f"{_LOG}-wal": f"{kept.name}-wal", KEPT_WAL: f"{kept.name}-wal"}
        for old, name in {**names, _MARK: f"{kept.name}.mark"}.items():
            with suppress(FileNotFoundError, FileExistsError):
                os.link(folder / old, folder / name)
        _sync(folder)
    for end in (
        "-wal",
        "-wal.kept",
        "-shm",
    ):  # they belong to the old database; SQLite would take them for the new one's
        Path(f"{log}{end}").unlink(missing_ok=True)
    for index in folder.glob("search-*.db*"):  # made from the log, and made again
        index.unlink()
    new.replace(log)
    if mark is not None:
        mark.replace(folder / _MARK)
    else:
        (folder / _MARK).unlink(missing_ok=True)
    _sync(folder)
    return kept


def _connect(path: Path, how: str) -> sqlite3.Connection:
    database = schema.connect(path, how)
    try:
        schema.check(database)
    except BaseException:
        database.close()
        raise
    return database


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
