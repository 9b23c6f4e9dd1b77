"""Reads a room's board from outside the room: no connection, no handshake, and nobody notices.

It must be quick enough for a shell prompt, so it imports only what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.errors import ChatError
from chat.core.status import seen
from chat.local import rooms
from chat.transport.registry import board_maker
from chat.transport.typed import typed_place

if TYPE_CHECKING:
    from chat.core.status import Status, Who


def room_of(target: str, *, shared: bool = True) -> str:
    """Return our room on this machine that TARGET means, "" for another; also for a ``shared`` one, if that is False.

    Raises NoSuchRoom, AddressError.
    """
    if ":" in typed_place(target) or target == "-":
        return ""
    found = rooms.find(rooms.named(target))
    return "" if found.owner or (found.shared and not shared) else found.room


def statuses(room: str) -> dict[Who, Status] | None:
    """Return the status of each member of a room on this machine, sorted by nickname; None if it has no board."""
    maker = board_maker()
    if maker is None:
        return None
    try:
        board = maker.open(rooms.room_folder(room))
    except ChatError:  # the host is just starting, or is making a new one
        return None
    try:
        # Ask the kernel about every slot, so that members who were just killed do not show.
        return dict(sorted(seen(board.read(trust_ms=0)).items(), key=lambda item: item[0][1].casefold()))
    finally:
        board.close()


def as_names(statuses: dict[Who, Status]) -> str:
    """Return the nicknames on one line. They hold letters, marks, digits and ``-_.``: nothing special to a shell."""
    return " ".join(dict.fromkeys(nick for _key, nick in statuses))
