"""Reads a room's board from outside the room: no connection, no handshake, and nobody notices.

It must be quick enough for a shell prompt, so it imports only what it needs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.core.errors import AddressError, ChatError, WrongValue
from chat.core.status import Level, seen
from chat.i18n import _, later
from chat.local import rooms
from chat.transport import board_maker

if TYPE_CHECKING:
    from chat.core.status import Status, Who

SHOWN_AS: Final = {
    Level.AWAY: later("you are shown as away"),
    Level.BUSY: later("you are shown as busy"),
    Level.ONLINE: later("you are shown as here"),
}
_LEVELS: Final = {Level.AWAY: later("away"), Level.BUSY: later("busy")}


def room_of(target: str) -> str:
    """Return the room on this machine that TARGET means, "" for a room elsewhere. Raises NoSuchRoom, AddressError."""
    if ":" in target or target == "-":
        return ""
    if target in {"", "."}:
        return rooms.find(None).room
    from chat.core.text import room_name

    try:
        return rooms.find(room_name(target)).room
    except WrongValue as error:
        raise AddressError(error.words) from None


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


def as_line(who: Who, state: Status, now: float | None = None) -> str:
    """Return one line for people."""
    from chat.core.text import visible

    nick = visible(who[1], lines=False)
    words = [] if state.level == Level.ONLINE else [_(_LEVELS[state.level])]
    if state.typing:
        words.append(_("typing"))
    if state.level != Level.ONLINE and state.active:
        words.append(since(state.active, now))
    if state.note:
        words.append(visible(state.note, lines=False))
    return "\t".join([nick, ", ".join(words)]) if words else nick


def since(ms: int, now: float | None = None) -> str:
    """Return in words how long ago something was. ``ms``: since 1970 UTC."""
    minutes = max(0, int((now or time.time()) - ms / 1000)) // 60
    if minutes < 1:
        return _("just now")
    if minutes < 60:
        return _("{count} min ago").format(count=minutes)
    if minutes < 1440:
        return _("{count} h ago").format(count=minutes // 60)
    return _("{count} d ago").format(count=minutes // 1440)


def as_object(who: Who, state: Status) -> str:
    """Return one line for programs."""
    from chat.ndjson import dump, person_object

    return dump(person_object(who, state))
