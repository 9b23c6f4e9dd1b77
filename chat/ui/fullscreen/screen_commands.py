"""What the full screen does with commands in a way of its own; the controller asks here first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.errors import ChatError
from chat.i18n import _
from chat.ui.commands import help_on
from chat.ui.people import as_line

if TYPE_CHECKING:
    from chat.ui.fullscreen.face import FullScreen


class ScreenCommands:
    """One method for each row of the table of commands that is about the screen."""

    def __init__(self, face: FullScreen) -> None:
        self._face: Final = face

    def do_help(self, word: str) -> None:
        if word:
            self._face.show(help_on(word, self._face.keys))
        else:
            self._face.panel.show_help(self._face.keys)

    def do_who(self, nick: str) -> None:
        if nick:
            self._face.controller.do_who(nick)
            return
        client = self._face.view.client
        there = sorted(client.people().items(), key=lambda item: item[0][1].casefold())
        if not there:
            raise ChatError("the host has not told yet who is here")
        self._face.show_list([as_line(who, state, client.session.users.get(who, "")) for who, state in there])

    def do_search(self, text: str) -> None:
        self._face.navigator.search(text)

    def do_unread(self, _argument: str) -> None:
        self._face.navigator.unread()

    def do_mention(self, _argument: str) -> None:
        self._face.navigator.mention()

    def do_clear(self, _argument: str) -> None:
        self._face.view.clear()

    def do_mouse(self, _argument: str) -> None:
        face = self._face
        face.mouse = not face.mouse
        face.show(_("the mouse scrolls here") if face.mouse else _("the mouse is the terminal's"))

    def do_copy(self, _argument: str) -> None:
        self._face.copy(self._face.chosen("copy").text)
        self._face.show(_("copied, if your terminal allows it"))
