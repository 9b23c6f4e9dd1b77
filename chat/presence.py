"""Who is here: a table of changes, from which every member is told what it has not seen; and what a cell means.

Rules:

1. A change is a version. A member is a version too: it lacks exactly the changes after it.
2. Nothing queues. A member that was slow gets each name's newest state, once, not what lay between.
3. One key and nickname with several windows shows once.
4. Members at the same version are sent the same bytes.
5. On one machine nobody is told: each window shows its state in its own cell of a board, and all look.
   ``docs/reference/board.md`` has the layout, byte by byte. A cell is somebody else's bytes until it is checked.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from enum import IntEnum
from functools import lru_cache
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.errors import WrongValue
from chat.frame import MAX_CONTROL, YEAR_9999, Kind, Presence, States, pack
from chat.text import MAX_NAME_BYTES, nickname, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_SIGHTS: Final = MAX_CONTROL // 256  # cells in a page
_PAGE: Final = MAX_CONTROL // 128  # changes in a page: a key (32 bytes) and a nickname (at most 64) and their tags


Who: TypeAlias = tuple[bytes, str]  # key and nickname


class Roster:
    """The members of a room that are here now."""

    def __init__(self) -> None:
        self.version = 0
        self._windows: dict[Who, int] = {}  # how many windows each has open
        self._bots: set[Who] = set()  # which of them are programs
        self._changed: dict[Who, int] = {}  # the version of each one's last change; of those gone, too
        self._order: list[tuple[int, Who]] = []  # all changes by version; overtaken ones are skipped
        self._floor = 0  # who knows only what was before this version starts anew
        self._pages: dict[int, tuple[bytes, int]] = {}  # by the member's version, for this version
        self.sights = Sights()

    def __len__(self) -> int:
        return len(self._windows)

    def look(self, sights: Mapping[Who, State]) -> bool:
        """Take note of what all show now. Returns whether anybody shows something else."""
        before = self.sights.version
        self.sights.show(sights, self._windows)
        return self.sights.version != before

    def here(self) -> list[Who]:
        """(key, nickname) of everyone here, in the order in which they came."""
        return list(self._windows)

    def enter(self, key: bytes, nick: str, *, bot: bool = False) -> None:
        """A window opened; or a program, that the host has started, came."""
        who = (key, nick)
        self._windows[who] = self._windows.get(who, 0) + 1
        if bot:
            self._bots.add(who)
        if self._windows[who] == 1:
            self._change(who)

    def leave(self, key: bytes, nick: str) -> None:
        """A window closed. Raises KeyError for one that was not open."""
        who = (key, nick)
        self._windows[who] -= 1
        if not self._windows[who]:
            del self._windows[who]
            self._bots.discard(who)
            self._change(who)

    def _change(self, who: Who) -> None:
        self.version += 1
        self._changed[who] = self.version
        self._order.append((self.version, who))
        self._pages.clear()
        if len(self._order) > 2 * len(self._windows) + 1024:
            # Forget those who left: a member that has not heard of it yet is told the whole list instead.
            # All who are here get versions above the floor, or a list sent in pages would begin again and again.
            self._floor = self.version
            self._order = list(enumerate(self._windows, self._floor + 1))
            self._changed = {here: version for version, here in self._order}
            self.version += len(self._order)

    def page(self, since: int) -> tuple[bytes, int]:
        """Return a PRESENCE frame of at most 4 KiB for a member at version ``since``, and its new version.

        Versions below 1 know nothing. Call again while the version returned is below ``version``.
        """
        known = self._pages.get(since)
        if known is None:
            known = self._pages[since] = self._make_page(since)
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        reset = since < self._floor or since <= 0
        here: list[Who] = []
        gone: list[Who] = []
        reached, more = self.version, False
        at = 0 if reset else bisect_right(self._order, since, key=itemgetter(0))
        for version, who in self._order[at:]:
            if self._changed[who] != version:
                continue
            if len(here) + len(gone) == _PAGE:
                more = True
                break
            reached = version
            if who in self._windows:
                here.append(who)
            elif not reset:
                gone.append(who)
        bots = [place for place, who in enumerate(here) if who in self._bots]
        page = pack(Kind.PRESENCE, Presence(here=here, gone=gone, reset=reset, more=more, bots=bots))
        return page, reached if more else self.version


class Sights:
    """What each of them shows, for those who cannot see the board: cells by (key, nickname), the newest only."""

    def __init__(self) -> None:
        self.version = 0
        self._cells: dict[Who, tuple[int, bytes]] = {}  # the version of its last change, and the cell; by version
        self._pages: dict[int, tuple[bytes, int]] = {}

    def show(self, sights: Mapping[Who, State], here: Collection[Who]) -> None:
        """Take note of what all show now. Who is not ``here`` is forgotten."""
        for who in [who for who in self._cells if who not in here]:
            del self._cells[who]
        for who in here:
            state = sights.get(who)
            cell = pack_cell(*who, state) if state else b""
            if self._cells.get(who, (0, b""))[1] != cell:
                self.version += 1
                self._cells.pop(who, None)
                self._cells[who] = (self.version, cell)
                self._pages.clear()

    def page(self, since: int) -> tuple[bytes, int]:
        """Return a STATES frame of at most 4 KiB for a member that knows version ``since``, and its new version."""
        known = self._pages.get(since)
        if known is None:
            known = self._pages[since] = self._make_page(since)
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        newer = list(takewhile(lambda item: item[1][0] > since, reversed(self._cells.items())))
        page = newer[: -_SIGHTS - 1 : -1]  # the oldest of them first
        cells = [cell for _, (_, cell) in page if cell]
        gone = [who for who, (_, cell) in page if not cell]
        reached = page[-1][1][0] if len(page) < len(newer) else self.version
        return pack(Kind.STATES, States(cells=cells, gone=gone)), reached


# -- what a cell means ----------------------------------------------------------------------------

MAX_NOTE_COLUMNS: Final = 60  # cells of a terminal
MAX_NOTE_BYTES: Final = 114  # of UTF-8: what is left of a cell
STALE_MS: Final = 15_000  # milliseconds without a beat after which a window that lives is not present all the same

_STATE: Final = struct.Struct(f"!32sBBB5xQQ{MAX_NAME_BYTES}s")  # key, layout, level, flags, read, active, nickname
_LAYOUT: Final = 1
_TYPING: Final = 1  # a flag; the others are spare, and ignored


class Level(IntEnum):
    """How present somebody is; of two windows the higher counts."""

    AWAY = 1
    BUSY = 2
    ONLINE = 3


_LEVELS: Final = {level.value: level for level in Level}


class State(NamedTuple):
    """What somebody shows to those on the same machine."""

    level: Level = Level.ONLINE
    note: str = ""  # as its author wrote it, so through ``text.visible`` with it before anybody sees it
    typing: bool = False
    read: int = 0  # the last sequence number that was on the screen
    active: int = 0  # when a key was last pressed: milliseconds since 1970 UTC


def pack_cell(key: bytes, nick: str, state: State) -> bytes:
    """Return what to write into a cell, at most 234 bytes. Raises ValueError when a part does not fit."""
    if len(key) != 32:
        raise ValueError(f"a key has 32 bytes, not {len(key)}")
    if nickname(nick) != nick:
        raise ValueError(f"{nick!r} is not in NFKC; a nickname is")
    if not _note_fits(state.note):
        raise WrongValue(
            "the note is too long; use at most {columns} columns and {size} bytes",
            columns=MAX_NOTE_COLUMNS,
            size=MAX_NOTE_BYTES,
        )
    if not (0 <= state.read < 2**64 and 0 <= state.active < YEAR_9999):
        raise ValueError(f"{state.read} does not fit into 64 bits, or {state.active} is in no year of ours")
    flags = _TYPING if state.typing else 0
    fixed = _STATE.pack(key, _LAYOUT, state.level, flags, state.read, state.active, nick.encode())
    return fixed + state.note.encode()


@lru_cache(maxsize=2048)  # two full boards: a board that has not changed costs a look-up a cell
def unpack_cell(payload: bytes) -> tuple[Who, State] | None:
    """Return who wrote this and the state, or None for what ``pack_cell`` never makes.

    Unknown flags are ignored; a layout or a level that we do not know, or a time in no year of ours, is None.
    """
    if not _STATE.size <= len(payload) <= _STATE.size + MAX_NOTE_BYTES:
        return None
    key, layout, level, flags, read, active, padded = _STATE.unpack_from(payload)
    if layout != _LAYOUT or level not in _LEVELS or active >= YEAR_9999:
        return None
    try:
        return _who(key, padded), State(
            _LEVELS[level], _note(payload[_STATE.size :]), bool(flags & _TYPING), read, active
        )
    except ValueError:  # UnicodeDecodeError, too
        return None


# Letters are looked at one by one, and how far somebody has read changes more often than names and notes do.
@lru_cache(maxsize=2048)
def _who(key: bytes, padded: bytes) -> Who:
    nick = padded.rstrip(b"\0").decode()
    if nickname(nick) != nick:
        raise ValueError("a nickname is in NFKC")
    return key, nick


@lru_cache(maxsize=2048)
def _note(raw: bytes) -> str:
    note = raw.decode()
    if not _note_fits(note):
        raise ValueError("the note is too long")
    return note


def _note_fits(note: str) -> bool:
    """Whether a note is short enough. Raises UnicodeEncodeError, a ValueError, for what is no text."""
    if len(note.encode()) > MAX_NOTE_BYTES:
        return False
    if note.isascii():
        return len(note) <= MAX_NOTE_COLUMNS
    from wcwidth import wcswidth  # imported here: it takes 20 to 60 ms, and most notes are empty

    return bool(wcswidth(visible(note, lines=False)) <= MAX_NOTE_COLUMNS)


def seen(readings: Iterable[tuple[int, bytes, int]]) -> dict[Who, State]:
    """Return who is present, from what a board's ``read`` returned: each (key, nickname) once.

    Of several windows the most present counts: it types if any types, has read what any has read, and is online
    over busy over away. The note is that of the most present window that has one. Windows without a beat for
    15 s are left out, and so is what is no state.
    """
    found: dict[Who, State] = {}
    several: dict[Who, list[State]] = {}
    for _index, payload, age in readings:
        if age < STALE_MS and (cell := unpack_cell(payload)) is not None:
            who, state = cell
            if (other := found.setdefault(who, state)) is not state:
                several.setdefault(who, [other]).append(state)
    for who, states in several.items():
        found[who] = _merged(states)
    return found


def _merged(states: list[State]) -> State:
    # By all that tells two apart, so that the order of the cells does not matter.
    noted = max(states, key=lambda state: (bool(state.note), state.level, state.active, state.note))
    return State(
        level=max(state.level for state in states),
        note=noted.note,
        typing=any(state.typing for state in states),
        read=max(state.read for state in states),
        active=max(state.active for state in states),
    )
