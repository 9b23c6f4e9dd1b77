"""Looking at a board from outside the room: no connection, no handshake, and nobody notices.

It must be quick enough for a shell's prompt, so nothing is imported here that a look does not need.
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
    """Return the room of this machine that TARGET means, "" for one elsewhere. Raises NoSuchRoom, AddressError."""
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
    """Return what those in a room of this machine show, by nickname. None where there is no board to look at."""
    maker = board_maker()
    if maker is None:
        return None
    try:
        board = maker.open(rooms.room_folder(room))
    except ChatError:  # a host that is just beginning, or making it anew
        return None
    try:
        # Ask the kernel about everybody: a look a minute can afford that, and shows nobody who was killed just now.
        return dict(sorted(seen(board.read(trust_ms=0)).items(), key=lambda item: item[0][1].casefold()))
    finally:
        board.close()


def as_names(statuses: dict[Who, Status]) -> str:
    """Return the nicknames on one line. Letters, marks, digits and ``-_.``: nothing a shell obeys."""
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
    """Return how long ago something was, in words: ``ms`` since 1970 UTC."""
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
