"""The palette (Ctrl+K): rooms, people, commands and settings, found by a few of their letters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prompt_toolkit.document import Document

from chat.i18n import _
from chat.local.settings import NAMES
from chat.ui.commands import SCREEN, commands_of, other_words, written
from chat.ui.fullscreen.panel import Row
from chat.ui.fullscreen.side import unread

if TYPE_CHECKING:
    from chat.ui.fullscreen.face import FullScreen


def rows(face: FullScreen) -> list[Row]:
    """Return all that one can go to or do: rooms with something unread first."""
    return [*_rooms(face), *_people(face), *_commands(face), *_settings(face)]


def _rooms(face: FullScreen) -> list[Row]:
    rooms = sorted(
        enumerate(face.controller.rooms, 1),
        key=lambda one: (one[1] is face.view, not one[1].timeline.read_state.unread),
    )
    return [
        Row(
            room.name,
            _("{count} unread").format(count=unread(room)) if room.timeline.read_state.unread else _("room"),
            partial(face.do, "room", str(number)),
        )
        for number, room in rooms
    ]


def _people(face: FullScreen) -> list[Row]:
    session = face.view.session
    others = (nick for key, nick in session.here if key != session.key)
    return [
        Row(nick, _("talk in private"), partial(face.do, "msg", nick))
        for nick in dict.fromkeys(sorted(others, key=str.casefold))
    ]


def _commands(face: FullScreen) -> list[Row]:
    return [
        Row(
            written(usage),
            _(usage.help),
            partial(_begin, face, f"/{usage.name} ") if usage.argument else partial(face.do, usage.name),
            also=other_words(usage.name),
        )
        for usage in commands_of(SCREEN)
    ]


def _settings(face: FullScreen) -> list[Row]:
    return [Row(f"/set {name}", _("setting"), partial(_begin, face, f"/set {name} "), minor=True) for name in NAMES]


def _begin(face: FullScreen, text: str) -> None:
    """Write the beginning of a command. What stood in the input comes back once it is sent (Up), or by Ctrl+C."""
    if face.input.text:
        face.composer.clear()
    face.input.document = Document(text)
    face.input.start_completion()
