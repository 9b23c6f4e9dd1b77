"""``--keep``: let go of a room's oldest messages, by the size of the database or by their age.

Rules:

1. Where the log begins now is stored in the transaction that deletes what was before: the number, and the chain there.
   So what is kept is still proved from its first message on, and a loss is told from a cut.
2. A message ages while the room is open, by the monotonic clock. The wall clock can only make it stay longer: one that
   jumps a day ahead must not delete the room.
3. Members who ask for what is gone are told of a gap. The newest batch always stays, since the log goes on from it.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.errors import AddressError, StoreFull
from chat.core.wire import split
from chat.host.schema import CUTS, is_sound
from chat.host.store import ROOM_BITS, ROWS, SEQ_MASK, is_proved
from chat.host.tables import put_row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from chat.host.host import Host
    from chat.host.store import Store

_EVERY: Final = 60.0  # seconds between looks
_AT_ONCE: Final = 200  # batches, deleted in one transaction
_SIZES: Final = {"K": 2**10, "M": 2**20, "G": 2**30}
_AGES: Final = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}  # milliseconds
_LIMIT: Final = re.compile(r"([1-9]\d{0,5})([KMGhdw])", re.ASCII)


def parse_size(size: str) -> int:
    """Return how many bytes 500M or 0 are. Raises AddressError."""
    found = _LIMIT.fullmatch(size)
    if found is not None and found[2] in _SIZES:
        return int(found[1]) * _SIZES[found[2]]
    if size != "0":
        raise AddressError("{size!r} is not a size like 500M", size=size)
    return 0


class Keep(NamedTuple):
    """How much of a room to keep; 0: without a limit."""

    size: int = 0  # bytes of the database
    age: int = 0  # milliseconds

    @classmethod
    def parse_all(cls, limits: Iterable[str]) -> Keep:
        """Read limits such as 500M and 30d. Raises AddressError."""
        keep = cls()
        for limit in limits:
            found = _LIMIT.fullmatch(limit)
            if found is None:
                raise AddressError("{limit!r} is neither a size like 500M nor an age like 30d", limit=limit)
            number, unit = int(found[1]), found[2]
            keep = (
                keep._replace(size=number * _SIZES[unit]) if unit in _SIZES else keep._replace(age=number * _AGES[unit])
            )
        return keep


class Cut(NamedTuple):
    """Where a room's log begins."""

    first: int
    chain: bytes  # there
    time: int = 0  # of the room's clock, when it was made


class RoomClock:
    """The time by which messages age. It moves with the monotonic clock, and stays behind the wall clock.

    ``start`` is where it was when the room was closed, in ms since 1970: it does not move meanwhile.
    """

    def __init__(self, start: int, monotonic: float) -> None:
        self._start, self._began = start, monotonic

    def at(self, wall: float, monotonic: float) -> int:
        """Return its time in ms since 1970, at a time of both clocks, in seconds."""
        return min(self._start + round((monotonic - self._began) * 1000), round(wall * 1000))


async def keep_to(host: Host, room: str, keep: Keep) -> None:
    """Keep a room within its limits, until cancelled: look now, and then every minute. Raises StoreError."""
    hosted = host.rooms[room]
    log = hosted.room.log
    newest = log.frame_at(log.end - 1)
    clock = None
    while True:
        with suppress(StoreFull):
            if clock is None:
                with host.store.transaction() as database:
                    start = cut_of(database, hosted.number).time
                if not start:  # a new --keep: the newest message says what time it is, the wall clock may be wrong now
                    start = next(split(newest)).time if newest else round(time.time() * 1000)
                clock = RoomClock(start, time.monotonic())
            more = True
            while more:
                now = clock.at(time.time(), time.monotonic())
                async with host.disk:
                    more = await asyncio.to_thread(cut_off, host.store, hosted.number, keep, now)
        await asyncio.sleep(_EVERY)


def cut_of(database: sqlite3.Connection, room: int) -> Cut:
    """Return where a room's log begins in this database."""
    if not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'cuts'").fetchone():
        return Cut(1, bytes(16))
    found = database.execute("SELECT * FROM cuts WHERE room = ?", (room,)).fetchone()
    return Cut(*found[1:-1]) if found and is_sound("cuts", found) else Cut(1, bytes(16))


def cut_off(store: Store, room: int, keep: Keep, now: int = 0) -> bool:
    """Let go of the oldest batches that are too many or too old at ``now`` (ms); return whether more may follow.

    From any thread. Raises StoreFull, StoreError.
    """
    base = room << ROOM_BITS
    marked, _chain = store.high_water(room)  # the batch before it stays, since the mark is compared with it
    with store.transaction() as database:
        before = cut_of(database, room)
        excess = _used(database) - keep.size if keep.size else 0
        too_old = now - keep.age if keep.age else 0
        (chain_base,) = database.execute("SELECT chain_base FROM rooms WHERE id = ?", (room,)).fetchone()
        rows = database.execute(ROWS, (base, base | marked - 1, _AT_ONCE + 1)).fetchall()
        kept, gone = None, 0
        for (at, frames, link_before, link_after, data), following in pairwise(rows):
            # Nobody can read one that is damaged, nor believe its time: it goes with the first that is too old.
            is_whole = is_proved(link_before, chain_base | at & SEQ_MASK, frames, data, link_after)
            is_new = not keep.age or (is_whole and max(frame.time for frame in split(data)) >= too_old)
            if excess <= 0 and is_new:
                break
            excess -= len(data)
            kept, gone = following, gone + 1
        first, chain = (kept[0] & SEQ_MASK, kept[2]) if kept else before[:2]
        cut = Cut(first, chain, now if keep.age else before.time)
        if cut != before:
            database.execute("DELETE FROM batches WHERE at BETWEEN ? AND ?", (base, (base | first) - 1))
            _put(database, room, cut)
    return gone == _AT_ONCE


def put_cut(store: Store, room: int, cut: Cut) -> None:
    """Raises StoreFull, StoreError."""
    with store.transaction() as database:
        _put(database, room, cut)


def _put(database: sqlite3.Connection, room: int, cut: Cut) -> None:
    database.execute(CUTS)
    put_row(database, "cuts", room, *cut)


def _used(database: sqlite3.Connection) -> int:
    """Return how many bytes of the database are not free. A file that has grown does not shrink; it is used again."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
