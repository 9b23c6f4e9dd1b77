"""A member's status: online, away, typing, how far it has read; and its bytes in a board slot.

``docs/reference/board.md`` has the layout, byte by byte. A slot is somebody else's bytes until it is checked.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.core.errors import WrongValue
from chat.core.text import MAX_NAME_BYTES, nickname, visible
from chat.core.wire import YEAR_9999

if TYPE_CHECKING:
    from collections.abc import Iterable

Who: TypeAlias = tuple[bytes, str]  # key and nickname

MAX_NOTE_COLUMNS: Final = 60  # columns of the note beside a status; a longer one changes nothing, and an error says so
MAX_NOTE_BYTES: Final = 114  # bytes of the note beside a status: what is left of a slot; a longer one changes nothing
STALE_MS: Final = 15_000  # milliseconds without a beat that a window may have; then it counts as absent

_STATE: Final = struct.Struct(f"!32sBBB5xQQ{MAX_NAME_BYTES}s")  # key, layout, level, flags, read, active, nickname
_LAYOUT: Final = 1
_TYPING: Final = 1  # a flag; the others are spare, and ignored


class Level(IntEnum):
    """How present somebody is. Of two windows the higher level counts."""

    AWAY = 1
    BUSY = 2
    ONLINE = 3


class Status(NamedTuple):
    """What somebody shows of themselves."""

    level: Level = Level.ONLINE
    note: str = ""  # exact: pass it through ``text.visible`` before showing it
    typing: bool = False
    read: int = 0  # the last sequence number that was on the screen
    active: int = 0  # when a key was last pressed: milliseconds since 1970 UTC


def pack_slot(key: bytes, nick: str, state: Status) -> bytes:
    """Return what to write into a slot, at most 234 bytes. Raises ValueError when a part does not fit."""
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


def unpack_slot(payload: bytes) -> tuple[Who, Status] | None:
    """Return who wrote this and the status, or None for anything that ``pack_slot`` does not make.

    Unknown flags are ignored; a layout or a level that we do not know, or a time in no year of ours, is None.
    """
    # The cache keeps what it is asked for, so it is asked for nothing larger than a slot.
    return _unpack_slot(payload) if _STATE.size <= len(payload) <= _STATE.size + MAX_NOTE_BYTES else None


@lru_cache(maxsize=2048)  # two full boards: an unchanged slot costs a look-up
def _unpack_slot(payload: bytes) -> tuple[Who, Status] | None:
    key, layout, level, flags, read, active, padded = _STATE.unpack_from(payload)
    if layout != _LAYOUT or active >= YEAR_9999:
        return None
    try:
        note = _note(payload[_STATE.size :])
        return _who(key, padded), Status(Level(level), note, bool(flags & _TYPING), read, active)
    except ValueError:  # of Level, and UnicodeDecodeError, too
        return None


# Cached apart: checking a name or a note is slow, and the read mark changes more often than they do.
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
    """Whether a note is short enough. Raises UnicodeEncodeError, a ValueError, for lone surrogates."""
    if len(note.encode()) > MAX_NOTE_BYTES:
        return False
    if note.isascii():
        return len(note) <= MAX_NOTE_COLUMNS
    from wcwidth import wcswidth  # imported here: it takes 20 to 60 ms, and most notes are empty

    return bool(wcswidth(visible(note, lines=False)) <= MAX_NOTE_COLUMNS)


def seen(readings: Iterable[tuple[int, bytes, int]]) -> dict[Who, Status]:
    """Return who is present, from what a board's ``read`` returned: each (key, nickname) once.

    Of several windows the most present counts: it types if any types, has read what any has read, and is online
    over busy over away. The note is that of the most present window that has one. Windows without a beat for
    15 s are left out, and so is what is no state.
    """
    found: dict[Who, Status] = {}
    several: dict[Who, list[Status]] = {}
    for _index, payload, age in readings:
        if age < STALE_MS and (slot := unpack_slot(payload)) is not None:
            who, state = slot
            if (other := found.setdefault(who, state)) is not state:
                several.setdefault(who, [other]).append(state)
    for who, states in several.items():
        found[who] = _merged(states)
    return found


def _merged(states: list[Status]) -> Status:
    # The key is everything that differs, so the order of the slots does not matter.
    noted = max(states, key=lambda state: (bool(state.note), state.level, state.active, state.note))
    return Status(
        level=max(state.level for state in states),
        note=noted.note,
        typing=any(state.typing for state in states),
        read=max(state.read for state in states),
        active=max(state.active for state in states),
    )
