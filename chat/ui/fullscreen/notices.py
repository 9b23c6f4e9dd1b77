"""What the window tells outside of its screen: the bell, a notification of the desktop, its title.

None of it is a peer's text: notifications are ours, with a nickname and a room's name, which hold neither controls nor
semicolons (``chat.core.text``); a host that sends others has them cleaned here.

Sources: OSC 9, https://iterm2.com/documentation-escape-codes.html; OSC 99,
https://sw.kovidgoyal.net/kitty/desktop-notifications/; OSC 777, urxvt's notify extension; tmux(1), allow-passthrough.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Final

from chat.i18n import _
from chat.ui.fullscreen.wrapping import clip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chat.ui.fullscreen.app import App

EVERY: Final = 1  # seconds between notifications of a window; those that come sooner are left out
_NAME: Final = 32  # columns of a nickname or a room's name
_KINDS: Final = {  # by the begin of a terminal's name (XTVERSION, TERM_PROGRAM, TERM)
    "kitty": "osc99",
    "xterm-kitty": "osc99",
    "iterm": "osc9",
    "ghostty": "osc777",
    "xterm-ghostty": "osc777",
    "wezterm": "osc777",
    "foot": "osc777",
    "contour": "osc777",
    "rxvt-unicode": "osc777",
}
_FORMS: Final = {
    "osc9": "\x1b]9;{text}\x1b\\",
    "osc99": "\x1b]99;;{text}\x1b\\",
    "osc777": "\x1b]777;notify;manywire;{text}\x1b\\",
}
_UNSAFE: Final = re.compile(r"[;\x00-\x1f\x7f-\x9f]")  # a semicolon separates fields; the others end a string


class Notices:
    """What is told, of the messages that ``ring`` is called for."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._news = ""
        self._told_at = float(-EVERY)  # the last notification, by the loop's clock
        self._title = ""

    def ring(self, news: str) -> None:
        """Tell of this at the next redraw: once, however many messages ask for it."""
        self._news = self._news or news

    def tell(self) -> None:
        """Tell what there is to tell. A notification would only disturb someone who looks at the window."""
        news, self._news = self._news, ""
        if not news:
            return
        keyboard = self._app.keyboard
        kind: str = self._app.face.controller.settings.notify
        if kind == "auto":
            kind = kind_of(self._app.answers.name, os.environ)
        now = asyncio.get_running_loop().time()
        if kind == "bell":
            self._app.output.bell()
        elif not (keyboard and keyboard.has_focus) and now - self._told_at >= EVERY:
            self._told_at = now
            self._app.output.write_raw(notification(kind, news, os.environ))
            self._app.output.flush()

    def entitle(self) -> None:
        """Bring the window's title up to date, if it shows something of ours."""
        face = self._app.face
        if not face.controller.settings.terminal_title:
            return
        rooms = face.controller.rooms
        unread = sum(room.timeline.read_state.unread for room in rooms)
        text = title(face.view.name, unread, asks=any(room.asks_for_you for room in rooms))
        if text != self._title:
            self._title = text
            self._app.output.set_title(text)
            self._app.output.flush()


def kind_of(name: str, environment: Mapping[str, str]) -> str:
    """Return what the terminal of this name (XTVERSION) is known to show; ``bell`` if it is not known."""
    if "TMUX" in environment or environment.get("TERM", "").startswith("screen"):
        return "bell"  # they keep it, and mark their window by it
    for known in (name, environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")):
        for begin, kind in _KINDS.items():
            if known.lower().startswith(begin):
                return kind
    return "bell"


def notification(kind: str, text: str, environment: Mapping[str, str]) -> str:
    """Return what makes a terminal notify. tmux passes it on, if it is allowed to."""
    sequence = _FORMS[kind].format(text=_UNSAFE.sub(" ", text))
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\" if "TMUX" in environment else sequence


def news(what: str, nick: str, room: str, *, direct: bool) -> str:
    """Return one line about a message, without its text."""
    nick, room = clip(nick, _NAME), clip(room, _NAME)
    if direct:
        return _("{nick} wrote to you").format(nick=nick)
    text = _("{nick} mentioned you in {room}") if what == "mention" else _("{nick} wrote in {room}")
    return text.format(nick=nick, room=room)


def title(room: str, unread: int, *, asks: bool) -> str:
    """Return the window's title. ``asks``: whether something unread is for the reader."""
    count = f"({unread}{'!' if asks else ''}) " if unread else ""
    return _UNSAFE.sub(" ", f"{count}{clip(room, _NAME)} · manywire")
