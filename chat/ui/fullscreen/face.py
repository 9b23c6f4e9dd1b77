"""The full-screen face: what is typed and what happens, between the rooms, the controller and the screen.

Rules:

1. What was said is shown once: below all else while it is pending, and then in its place, when it comes back.
2. A paste never sends anything, and what could not be sent is back in the input.
3. An answer of ours is seen: below all else, and above the input while the reader has scrolled up.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit.document import Document

from chat.core.errors import ChatError
from chat.i18n import _, translate
from chat.local.keys import KEYS, rebind
from chat.local.settings import DEFAULTS
from chat.ui.clipboard import osc52
from chat.ui.commands import SCREEN, Command, NeedsArgument, parse
from chat.ui.controller import Controller
from chat.ui.describe import quoted
from chat.ui.face import Face
from chat.ui.fullscreen import palette
from chat.ui.fullscreen.app import App
from chat.ui.fullscreen.card import is_new
from chat.ui.fullscreen.composer import Composer
from chat.ui.fullscreen.navigation import Navigator
from chat.ui.fullscreen.panel import Panel, Row
from chat.ui.fullscreen.screen_commands import ScreenCommands
from chat.ui.fullscreen.side import unread
from chat.ui.fullscreen.view import View
from chat.ui.fullscreen.watcher import Watcher
from chat.ui.fullscreen.wrapping import clean, clip, columns
from chat.ui.invites import how_to_reopen, ways_in
from chat.ui.names import KINDS, names
from chat.ui.rooms import open_here

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from prompt_toolkit.buffer import Buffer

    from chat.client.client import Client
    from chat.core.outgoing import OutboxEntry
    from chat.local.settings import Settings
    from chat.ui.entry import MessageEntry
    from chat.ui.face import Hosted, Work
    from chat.ui.fullscreen.pane import Pane

_BAR_FRAME: Final = 0.1  # seconds between redraws while there is a bar
_EXCERPT: Final = 40  # columns of a message that is answered or corrected
_BLANK_LINES: Final = re.compile(r"\A(?:[^\S\n]*\n)+")


class FullScreen(Face[View]):
    """The face of a client that has joined. ``opener`` and ``file`` are the controller's.

    What was typed is kept in the folder ``history``, if there is one. ``complaint`` is a line to begin with.
    ``hosted``: the host of the first room, if this window started it.
    """

    kind = SCREEN
    next_start = frozenset({"language", "time_format", "emoji"})

    def __init__(
        self,
        client: Client,
        *,
        settings: Settings = DEFAULTS,
        opener: Callable[[str], Client] | None = None,
        file: Path | None = None,
        history: Path | None = None,
        complaint: str = "",
        hosted: Hosted | None = None,
    ) -> None:
        self.keys = rebind(KEYS, settings.keys)
        self.mouse = settings.mouse
        self.controller = Controller(self, View(client, settings), settings, opener, file)
        self.is_new: Final = is_new(history)
        self.composer: Final = Composer(
            {kind: partial(names, kind, self.controller) for kind in KINDS},
            self.show,
            slow={"TARGET": open_here},
            folder=history,
            confirm_lines=settings.paste_confirm_lines,
        )
        self.navigator: Final = Navigator(self)
        self.watcher: Final = Watcher(self)
        self.panel: Final = Panel(self)
        self._own: Final = ScreenCommands(self)
        self.refused = ""  # what was typed and is no command: the menu must not cover the line about it
        self.hosted = hosted
        self._hint = ""  # above the input, until the next key
        self._hint_before = ""  # what stood there when the last key was pressed
        self._set_aside = Document()  # what stood in the input when a correction began
        self._leaving = False  # the user was asked whether the room stays open
        self._at_once = False  # what is shown now answers the key that was just pressed
        self._doing = ""  # the last command, for the title of what it shows
        self._enters = False  # what is in the input is being sent; else a key does something beside it
        self.app: Final = App(self)
        if complaint:
            self.view.greeting.append(complaint)

    @property
    def own(self) -> ScreenCommands:
        return self._own

    @property
    def view(self) -> View:
        """The current room."""
        return self.controller.room

    @property
    def pane(self) -> Pane:
        return self.view.pane

    @property
    def input(self) -> Buffer:
        """The buffer of what is being written."""
        return self.composer.buffer

    async def run(self) -> None:
        """Show the room until the user leaves: by Ctrl-C, twice, by Ctrl-D on an empty line, by ``/quit``, or by ending
        us (SIGHUP, SIGTERM, a terminal that is gone).

        Raises what ends the client, once the terminal is restored.
        """
        first = self.view
        if self.hosted is not None:
            first.ways += ways_in(self.hosted.listening)
            self.hosted.on_end = self._host_ended
        if self.is_new:
            first.introduction += [
                _("type, Enter sends; ✓: it is on the host's disk"),
                _("Tab completes names, /commands and :emoji:"),
                _("/help lists commands and keys; /quit leaves"),
            ]
        self.composer.restore(first.name)
        try:
            await self.app.live(self.watcher.begin)
        finally:
            self.keep_drafts()
            self.composer.close()

    def keep_drafts(self) -> None:
        """Have on the disk what is being written. A correction is not: another window would say it anew."""
        if self.controller.begun is None or self.controller.begun[0] != "edit":
            self.composer.keep_drafts()

    async def follow(self, room: View) -> None:
        await self.watcher.follow(room)

    def touch(self) -> None:
        """A key was pressed."""
        self._hint_before, self._hint = self._hint, ""
        self.watcher.touch()

    def rendered(self) -> None:
        """The screen was drawn: take note of what has been seen, and load what is wanted next."""
        view, state = self.view, self.view.timeline.read_state
        if self.panel.is_open:
            return
        drawn = state.unread, state.marker, view.is_new_above
        read = view.mark_seen()
        if read > view.client.shows.read:
            self.controller.share(read=read)
        if (state.unread, state.marker, view.is_new_above) != drawn:
            self.app.redraw_soon()
        self.navigator.load()
        if view.progress is not None:
            self.app.redraw_soon(_BAR_FRAME)

    # -- what is typed ---------------------------------------------------------------------------

    def enter(self) -> None:
        """Send what was typed, or do what it asks for; if it is empty, unfold a message.

        What cannot be sent stays in the input.
        """
        typed = clean(self.input.text)  # a key may be a control character (Ctrl+Q)
        try:
            typed.encode()
        except UnicodeEncodeError:  # a key or a paste had other bytes: the terminal's own encoding
            self.hint(_("this was not sent: {mark} stands for bytes that are not UTF-8").format(mark="\ufffd"))
            return
        if self.hosted is not None and self.asks_to_keep:
            self.hosted.keep()
            self.app.leave()
            return
        if not typed.strip():
            self.pane.unfold()
            return
        try:
            meant = parse(_BLANK_LINES.sub("", typed))
        except ValueError as error:
            if isinstance(error, NeedsArgument) and names(error.kind, self.controller):
                self.composer.ask_for(typed)
            else:
                self.refused = typed
                self.show(str(error))
            return
        self._enters = True
        match meant:
            case str(text):
                self.run_work(self.view, partial(self.controller.say, text, typed))
            case Command("me", text):
                self.run_work(self.view, partial(self.controller.do_me, text))
            case Command(name, argument):
                self.input.reset(append_to_history=True)
                self._leaving &= name == "quit"
                self.do(name, argument, typed)
        self._enters = False

    def do(self, name: str, argument: str = "", typed: str = "") -> None:
        """Do a command of the table."""
        self._doing = f"/{name} {argument}".rstrip()
        self._enters |= self.controller.begun is not None  # what is typed for that is of no use without it
        self.run_work(self.view, partial(self.controller.do, name, argument), typed)
        self._enters = False

    def run_work(self, view: View, begin: Callable[[], Work], typed: str = "") -> None:
        """Begin something, and finish it in the background.

        What goes wrong is shown in ``view``, and what was ``typed`` is back in its input.
        """

        async def finish(work: Coroutine[Any, Any, object]) -> None:
            with self.shows_errors(view, typed):
                await work
            self.app.invalidate()

        self._at_once = True
        with self.shows_errors(view, typed):
            if (work := begin()) is not None:
                self.spawn(finish(work))
        self._at_once = False

    @contextmanager
    def shows_errors(self, view: View, typed: str = "") -> Iterator[None]:
        try:
            yield
        except (ChatError, ValueError) as error:
            if view is self.view:
                self.hint(translate(error))
            else:
                view.note(translate(error))
            if typed:
                self.refused = typed
                self.composer.offer(typed, view.name)

    def clear_or_quit(self) -> None:
        again = _("press {key} again to leave").format(key=self.key("leave"))
        if self.input.text:
            self.composer.clear()
            self.end_correction()
        elif self._hint_before == again or (self.hosted is not None and self.hosted.is_running):  # then ``quit`` asks
            self.quit()
        else:
            self.hint(again)

    def quit(self) -> None:
        """Leave; if the room would close, ask first, and leave the next time."""
        if self.hosted is not None and self.hosted.is_running and not self._leaving:
            self._leaving = True
            self.app.redraw_soon()
        else:
            self.app.leave()

    def _host_ended(self, why: ChatError) -> None:
        self._leaving = False
        for line in (translate(why), how_to_reopen()):
            self.controller.rooms[0].note(line)
        self.hint(how_to_reopen())

    @property
    def asks_to_keep(self) -> bool:
        """Whether the user sees the question if the room stays open."""
        return self._leaving and not self.input.text

    def stay(self) -> None:
        self._leaving = False
        self.app.redraw_soon()

    def offer_all(self) -> None:
        """Open the palette."""
        self.panel.open(_("Go to"), palette.rows(self), chooses=True)

    def end_correction(self) -> None:
        if self.controller.begun is not None and self.controller.begun[0] == "edit":
            self.input.document = self._set_aside  # or the next Enter would say the old text again
            self.controller.begun = None

    # -- lines of our own ------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        return self.panel.columns

    def show(self, *lines: str, room: View | None = None) -> None:
        """Show an answer: a short one above the input until the next key, a long one in the panel.

        One for a room that is not in view waits there.
        """
        if room is not None and room is not self.view:
            for line in lines:
                room.note(line)
        else:
            self.show_list(lines)

    def show_list(self, lines: Sequence[str]) -> None:
        if len(lines) == 1 and columns(lines[0]) <= self.app.hint_room:
            self.hint(lines[0])
        elif self.input.text and not self._at_once:  # it comes late: a panel would take the keys of who types
            for line in lines:
                self.view.note(line)
        else:
            rows = [Row(first, more) for first, _tab, more in (line.partition("\t") for line in lines)]
            self.panel.open(self._doing, rows)

    def hint(self, text: str) -> None:
        """Show a line above the input, until the next key: it is of no use later."""
        self._hint = text
        self.app.redraw_soon()

    def key(self, action: str) -> str:
        """Return the first key of an action, or its name if it has none."""
        return next((row.keys[0] for row in self.keys if row.action == action and row.keys), action)

    def line_above_input(self) -> str:
        """Return the line above the input, "" for none."""
        begun = ""
        if self.controller.begun is not None:
            command, item = self.controller.begun
            text = (
                _("correcting {about} · Escape stops") if command == "edit" else _("answering {about} · Escape stops")
            )
            begun = text.format(about=clip(f"{item.nick}: {item.text}", _EXCERPT))
        return self.composer.question or self._hint or self._question() or begun or self.composer.counter

    def _question(self) -> str:
        """What the owner of a room is asked before leaving: the answers first, since a narrow screen shows no more."""
        if not self.asks_to_keep:
            return ""
        session = self.controller.rooms[0].session
        others = {who for who, bot in session.here.items() if not bot} - {(session.key, session.nick)}
        text = _("Enter: keep it open · {key}: close the room · Escape: stay")
        return text.format(key=self.key("leave")) + (f" · {_('others are here')}" if others else "")

    def hand_out(self, invite: str, about: Sequence[str], *, unbroken: bool) -> None:
        self.copy(invite)
        if unbroken:
            self.app.step_aside([invite, "", *about, _("copied, if your terminal allows it; any key goes back")])

    def copy(self, text: str) -> None:
        """Copy a text to the terminal's clipboard."""
        self.app.output.write_raw(osc52(text).decode("ascii"))
        self.app.output.flush()

    # -- what the controller needs ----------------------------------------------------------------

    def make_room(self, client: Client, partner: str = "", *, called: bool = False) -> View:
        return View(client, self.controller.settings, partner=partner, called=called)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.app.create_background_task(work)

    def label(self, room: View) -> str:
        return f"{room.name} {unread(room)}" if room.timeline.read_state.unread else room.name

    def greet(self, room: View, line: str) -> None:
        room.greeting.append(line)

    def chosen(self, command: str) -> MessageEntry:
        return self.navigator.chosen(command)

    def begin(self, command: str, item: MessageEntry) -> None:
        if command == "edit":
            self._set_aside = self.input.document
            self.input.document = Document(item.text)
        elif command == "quote":
            self.input.document = Document(quoted(item) + self.input.text)
        elif command == "react":
            self.input.document = Document("/react ")

    def sending(self, room: View) -> None:
        self._leaving = False
        if self._enters:
            self.input.reset(append_to_history=True)
        room.pass_marker()
        room.follow()

    def sent(self, room: View, entry: OutboxEntry) -> None:
        room.add_pending(entry)
        self.app.invalidate()

    def unsent(self, room: View, typed: str, error: ChatError) -> None:
        room.note(translate(error))
        self.composer.give_back(typed, room.name)
        self.app.invalidate()

    def left(self, room: View) -> None:
        room.leave()
        self.controller.share(typing=False)
        self.end_correction()

    def entered(self, room: View) -> None:
        self.composer.restore(room.name)
        self.app.redraw_soon()

    def closed(self, room: View) -> None:
        self.composer.forget(room.name)
        self.app.invalidate()

    def changed(self, name: str) -> None:
        settings = self.controller.settings
        if name == "mouse":
            self.mouse = settings.mouse
        elif name == "paste_confirm_lines":
            self.composer.confirm_lines = settings.paste_confirm_lines
