"""What each key does: ``chat.local.keys`` names the actions, and here is what they are."""

from __future__ import annotations

import os
import signal
import string
import sys
import termios
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit.document import Document
from prompt_toolkit.filters import Always, Condition, Filter
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.bindings.mouse import load_mouse_bindings
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

from chat.ui.fullscreen.terminal import lent_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.key_binding import KeyPressEvent

    from chat.ui.fullscreen.face import FullScreen

# What people begin a message with, and prompt_toolkit binds with Alt. Its Alt keys that are letters are for editing.
_NOT_HELD: Final = string.punctuation + string.digits


_ALWAYS: Final = {"redraw", "suspend"}  # actions that an open panel leaves as they are
_INPUT: Final = {"send", "newline"}  # actions on the draft, which nobody means while a panel covers it


def bindings(face: FullScreen) -> KeyBindings:
    """Bind the keys of ``face.keys``. An action that is not named here is the command of that name."""
    does: dict[str, Callable[[], object]] = {
        "send": face.enter,
        "newline": lambda: face.input.insert_text("\n"),
        "editor": face.composer.edit,
        "page-up": lambda: face.pane.scroll(-1),
        "page-down": lambda: face.pane.scroll(1),
        "top": face.navigator.top,
        "bottom": face.navigator.bottom,
        "select-previous": lambda: face.navigator.select(-1),
        "select-next": lambda: face.navigator.select(1),
        "search": lambda: setattr(face.input, "document", Document("/search ")),
        "previous-hit": lambda: face.navigator.next_hit(older=True),
        "next-hit": lambda: face.navigator.next_hit(older=False),
        "stop": face.navigator.stop,
        **{f"room-{n}": partial(face.do, "room", str(n)) for n in range(1, 10)},
        "switcher": face.offer_all,
        "redraw": lambda: face.app.renderer.clear(),  # noqa: PLW0108 - there is no app yet
        "suspend": lambda: _suspend(face.app.terminal),
        "leave": face.clear_or_quit,
        "leave-if-empty": face.quit,
    }
    keys = KeyBindings()
    filters: dict[str, Filter] = {
        "leave-if-empty": Condition(lambda: not face.input.text),
        "stop": Condition(face.navigator.has_begun),
    }
    bound = {sequence: row.action for row in face.keys for sequence in row.sequences}
    opened = Condition(lambda: face.panel.is_open)  # it has keys of its own
    for sequence, action in bound.items():
        when = filters.get(action, Always()) & (Always() if action in _ALWAYS else ~opened)
        acts = does.get(action, partial(face.do, action))
        keys.add(*sequence, filter=when)(_bound(acts))
        if sequence[0] == "escape" and sequence[1:] and action not in _ALWAYS:
            keys.add(*sequence, filter=opened)(partial(_close_and_act, face, None if action in _INPUT else acts))
    stops = bound.get(("escape",)) == "stop"
    for char in _NOT_HELD:
        if ("escape", char) not in bound:
            keys.add("escape", char)(partial(_escape_and_type, face, stops))
    keys.add("escape", filter=Condition(lambda: face.asks_to_keep))(lambda _event: face.stay())
    keys.add(Keys.Any, filter=Condition(lambda: face.app.is_aside), eager=True)(partial(_come_back, face))
    keys.add("<sigint>")(lambda _event: face.app.leave())
    keys.add("<vt100-mouse-event>")(_mouse)
    return keys


def _bound(does: Callable[[], object]) -> Callable[[KeyPressEvent], Any]:
    return lambda _event: does()


def _close_and_act(face: FullScreen, acts: Callable[[], object] | None, _event: KeyPressEvent) -> None:
    """Do what an Alt key does over the panel, which takes its Escape: the rest would be typed, or send the draft."""
    face.panel.close()
    if acts is not None:
        acts()


def _come_back(face: FullScreen, event: KeyPressEvent) -> None:
    face.app.come_back()
    if event.key_sequence[-1].key == Keys.SIGINT:  # it is no key
        face.app.leave()


def _escape_and_type(face: FullScreen, stops: bool, event: KeyPressEvent) -> None:
    """Do what Escape does, and type the character that came so soon after it that it looks like Alt and a key.

    prompt_toolkit binds some of these: a command typed right after Escape would lose its slash, and would be sent.
    """
    if face.panel.is_open:
        face.panel.close()
    elif face.composer.buffer.pasted:
        face.composer.discard()
    elif face.asks_to_keep:
        face.stay()
    elif stops and face.navigator.has_begun():
        face.navigator.stop()
    event.key_processor.feed(KeyPress(event.key_sequence[-1].key, event.data), first=True)


_POINTED: Final = load_mouse_bindings().get_bindings_for_keys((Keys.Vt100MouseEvent,))[0].handler


def _mouse(event: KeyPressEvent) -> object:
    """What prompt_toolkit takes for the mouse may be a colour in what was pasted, where a paste is typed key by key."""
    with suppress(ValueError, LookupError):
        return _POINTED(event)
    return NotImplemented


async def _suspend(before: list[Any] | None) -> None:
    """Stop all of our process group, as Ctrl-Z does, with the terminal as it was: prompt_toolkit leaves IXON off."""
    async with lent_terminal():
        if before is None:
            os.kill(0, signal.SIGTSTP)
            return
        ours = termios.tcgetattr(sys.stdin)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        os.kill(0, signal.SIGTSTP)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, ours)
