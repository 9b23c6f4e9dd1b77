"""What the TARGET of a command means: which room, where, and what we know of its host.

nothing, .              the only room that is open on this machine
lobby                   the room of this name on this machine
ann/lobby               the one that user ann has opened to others
tcp:HOST:PORT/ROOM      an address, with or without a room
chat://...              an invite
-                       an invite at the start of standard input, where other users cannot see it in ``ps``
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chat.core import text
from chat.core.bodies import direct_name
from chat.core.errors import AddressError, DialFailed, Text, WrongValue
from chat.i18n import _
from chat.local import descriptors, rooms
from chat.local.descriptors import BOM
from chat.local.invite import Invite, is_cut, is_invite
from chat.transport import Address
from chat.transport.registry import cost, find
from chat.transport.typed import typed_address, typed_place, typed_scheme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_LINE: Final = 4096  # bytes of a line with an invite on standard input; the rest is not read as a part of it


@dataclass(frozen=True)
class Target:
    """Where a room can be found: addresses in order of preference, and what we know of its host."""

    addresses: tuple[Address, ...]
    room: str
    host: bytes = b""  # SHA-256 of the host's public key, if an invite or the room's record names it
    invite: Invite | None = None
    remember: bool = False  # the invite's word about the host's key is worth keeping
    other: bytes = b""  # of a direct room: the other's key
    board: Path | None = None  # the folder of the room's board, if that is on this machine
    owner: str = ""  # the login name of another user of this machine, whose room it is

    def direct(self, key: bytes, other: bytes) -> Target:
        """Return the direct room of ``key`` and ``other`` at the same host. It has no board."""
        return replace(self, room=direct_name(key, other), other=other, board=None)


def locate(target: str, scheme: str = "") -> Callable[[], Target]:
    """Return a function that returns the target's current place: a room on this machine may move when it restarts.

    With ``scheme``, only addresses of that transport. Raises AddressError, UnknownScheme, NoSuchRoom, and DialFailed
    if the room has no such address.
    """
    if scheme := typed_scheme(scheme):
        find(scheme)
    if target == "-":
        target = _pasted_invite()
        if not is_invite(target):
            raise AddressError("standard input's first line is not an invite; an invite begins with chat://")
    if is_invite(target):
        invite = Invite.parse(target)
        found = Target(invite.addresses, invite.room, invite.host, invite, remember=True)
    elif ":" in (where := typed_place(target)):
        place, _slash, room = where.rpartition("/") if "/" in where else (where, "", "")
        address = typed_address(place)
        find(address.scheme)
        found = Target((address,), room_name(room) if room else "")
    else:
        record = rooms.find(rooms.named(target))
        return lambda: _only(_recorded(rooms.find_again(record)), scheme)
    return lambda: _only(found, scheme)


def _recorded(found: rooms.RoomRecord) -> Target:
    addresses = sorted(map(Address.parse, found.addresses), key=lambda address: cost(address.scheme))
    host = bytes.fromhex(found.host)
    if found.owner:
        return Target(tuple(addresses), found.room, host, owner=found.owner)
    invite, board = Invite.parse(found.invite), rooms.room_folder(found.room)
    return Target(tuple(addresses), found.room, host, invite, board=board)


def _only(target: Target, scheme: str) -> Target:
    addresses = tuple(address for address in target.addresses if scheme in {"", address.scheme})
    if not addresses:
        there = ", ".join(sorted({address.scheme for address in target.addresses})) or Text("nothing")
        raise DialFailed(
            "room {room} is not reached by {scheme}; it listens on {there}",
            room=target.room,
            scheme=scheme,
            there=there,
        )
    return replace(target, addresses=addresses)


def room_name(name: str) -> str:
    try:
        return text.room_name(name)
    except WrongValue as error:
        raise AddressError(error.words) from None


def _pasted_invite() -> str:
    """Read the lines of one invite from standard input and not a byte more: the rest is for the face."""
    if os.isatty(0):
        descriptors.write(2, _("paste the invite, then press Enter: ").encode())
    invite = _read_line()
    # A mail program may have broken it. Whatever is no invite has no second line, which may be a message.
    while is_invite(invite) and is_cut(invite) and len(invite) < _MAX_LINE and (more := _read_line()).strip():
        invite += more
    return invite.strip()


def _read_line() -> str:
    line = bytearray()
    while len(line) < _MAX_LINE and (byte := descriptors.read(0, 1)) not in {b"", b"\n"}:
        line += byte
    return line.removeprefix(BOM).decode("utf-8", "replace")
