"""The words that may stand for an argument of a command: completion offers them, and they are listed if it is missing.

Others chose most of them; the faces sanitize them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.local.settings import NAMES, choices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.ui.controller import Controller
    from chat.ui.face import R

KINDS: Final = ("NICK", "WHO", "ROOM", "THEME", "SETTING")  # as the table of commands calls them


def names(kind: str, controller: Controller[R]) -> Sequence[str]:
    """Return the words for what the table of commands calls NICK, ROOM and so on; none for free text."""
    match kind:
        case "NICK":
            return controller.room.known.nicks()
        case "WHO":
            return [nick or entry for entry, nick in controller.ignored()]
        case "ROOM":
            return [room.name.removeprefix("#") for room in controller.rooms]
        case "THEME":
            return choices("theme")
        case "SETTING":
            return NAMES
    return written_out(kind)


def written_out(kind: str) -> list[str]:
    """Return the words that the table names itself: ``off`` of ``SECONDS|off``."""
    return [word for word in kind.split("|") if word.islower()]
