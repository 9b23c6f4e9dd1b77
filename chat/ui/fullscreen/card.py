"""What one can do, in the middle of a room in which nobody has said anything. It goes with the first message.

It never covers a line of the room. Whoever is here for the first time is greeted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prompt_toolkit.filters import Condition
from prompt_toolkit.layout.containers import ConditionalContainer, Float, FloatContainer, Window, WindowAlign
from prompt_toolkit.layout.controls import FormattedTextControl

from chat.i18n import _
from chat.ui.fullscreen.wrapping import columns, sanitize

if TYPE_CHECKING:
    from pathlib import Path

    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.layout.containers import AnyContainer

    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View

_BARS: Final = 5  # rows of the screen that are not the conversation's


def is_new(history: Path | None) -> bool:
    """Whether nothing was sent from the full screen under this nickname before. ``history``: the face's."""
    return history is None or not any(path.is_file() for path in history.glob("*"))


def with_card(pane: AnyContainer, face: FullScreen) -> FloatContainer:
    """Return the pane of the conversation, with the card in its middle."""

    def block() -> StyleAndTextTuples:
        head, *lines = _lines(face)
        return [("class:bold", sanitize(head, lines=False)), ("", "\n\n"), ("class:faint", "\n".join(lines))]

    def width() -> int:
        return min(max(map(columns, _lines(face))), face.pane.width)

    def fits() -> bool:
        rows = 1 + sum(-(-columns(line) // max(width(), 1)) for line in _lines(face))  # 1: below the first line
        return rows <= face.app.size[1] - _BARS

    card = Window(FormattedTextControl(block), wrap_lines=True, align=WindowAlign.LEFT)
    shown = ConditionalContainer(card, Condition(lambda: face.view.is_empty and fits()))
    return FloatContainer(pane, [Float(shown, width=width, hide_when_covering_content=True)])


def _lines(face: FullScreen) -> list[str]:
    room: View = face.view
    if not face.is_new or room is not face.controller.rooms[0]:
        head = _("nobody has said anything in {room} yet").format(room=room.name)
    elif face.hosted is not None:
        head = _("manywire · room {room} is open").format(room=room.name)
    else:
        head = _("manywire · you are {nick} in {room}").format(nick=room.session.nick, room=room.name)
    return [head, *room.ways, *(room.introduction or [_("type, Enter sends; ✓: it is on the host's disk")])]
