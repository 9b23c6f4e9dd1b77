"""The full-screen face: rooms, messages, who is here, a status line and an input, by prompt_toolkit.

    ┌ title: room, own name, address ──────────────────┐
    │ pane: what was said             │ rooms          │  folds away below 60 columns
    │                                 │ who is here    │
    │ a line that asks or tells, where there is one    │
    │ > input                                          │  grows to a third of the screen
    └ status: wire, link, what is unsent, who types ───┘

Rules:

1. Texts from peers are only ever text: ``pane`` filters them, and no style, HTML or ANSI is made of them.
2. What was said is shown once: below all else while it is pending, and then in its place, when it comes back.
3. Keys are drawn at once, events at most 30 times a second.
4. A paste never sends anything, and what could not be sent is back in the input.
5. However this ends, the terminal is as it was before.
6. What can be typed and pressed stands in the tables of ``commands``; here is only what each does.
7. What is answered is seen: below all else, and above the input while one has scrolled up.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import string
import sys
import termios
import time
import unicodedata
from bisect import bisect_left
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit.application import Application, in_terminal
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.bindings.mouse import load_mouse_bindings
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    ConditionalContainer,
    Dimension,
    Float,
    FloatContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    VSplit,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments

from chat.client.board_view import SHOWN_AS
from chat.core.errors import ChatError
from chat.core.outgoing import Outgoing
from chat.core.session import Rewound
from chat.core.status import Level
from chat.core.text import visible
from chat.core.wire import Ask, Kind
from chat.i18n import _, localize_remote, translate
from chat.local.identity import fingerprint
from chat.local.keys import KEYS, rebind
from chat.local.settings import DEFAULTS, NAMES, change
from chat.local.settings import parse as parse_setting
from chat.local.streams import drop_unwritten
from chat.ui import emoji, theme
from chat.ui.answers import all_settings, details, open_here, rooms, setting
from chat.ui.clipboard import osc52
from chat.ui.commands import Action, Command, Say, Unknown, help_lines, help_on, parse, rooms_like
from chat.ui.fullscreen import bars
from chat.ui.fullscreen.composer import Composer
from chat.ui.fullscreen.search import Search
from chat.ui.fullscreen.view import Attention, View
from chat.ui.fullscreen.wrapping import FLAGS, JOINED, clean, clip, sanitize
from chat.ui.people import direct_told, ignored, is_unread, list_ignored, listed, names_of, nobody, to_heed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyPressEvent

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.wire import Direct
    from chat.local.settings import Settings
    from chat.ui.entry import MessageEntry
    from chat.ui.fullscreen.pane import Pane
    from chat.ui.timeline import Timeline

_FRAME: Final = 1 / 30  # seconds between redraws for events
_BAR_FRAME: Final = 0.1  # seconds between redraws while there is a bar
_ESCAPE: Final = 0.1  # seconds in which a key after Escape makes it Alt and that key
_SEQUENCE: Final = 1.0  # seconds in which Ctrl+E makes Ctrl+X the editor's key
_LOOK: Final = 0.5  # seconds between looks at what others show of themselves
_STILL_HERE: Final = 60_000  # milliseconds after which others are told that keys are pressed, if nothing else is told
_TYPING: Final = 4.0  # seconds after the last key for which one is shown as typing
_SIDE_BAR_FROM: Final = 60  # columns of the screen
_NEAR: Final = 30  # lines from the oldest one, where older ones are fetched
_EXCERPT: Final = 40  # columns of a message that is answered or corrected
_BLANK_LINES: Final = re.compile(r"\A(?:[^\S\n]*\n)+")
# What people begin a message with, and prompt_toolkit binds with Alt. Its Alt keys that are letters are for editing.
_NOT_HELD: Final = string.punctuation + string.digits
_WITH_NEXT_START: Final = frozenset({"language", "time_format"})  # settings
_CALLED: Final = 8  # direct rooms that may open by themselves: each is a link to the host


async def run(client: Client, **more: Any) -> None:
    """Show the room until the user leaves: by Ctrl-C, by Ctrl-D on an empty line, by ``/quit``, or by ending us
    (SIGHUP, SIGTERM, a terminal that is gone).

    ``client`` has joined; ``more`` is what ``Face`` takes. Raises what ends the client, once the terminal is restored.
    """
    await Face(client, **more).run()


class Face:
    """The screen. Input and output are those of prompt_toolkit's current app session.

    ``opener`` makes a client of a TARGET, for ``/join``. ``file`` is where settings are changed, and ``history`` the
    folder where what was typed is kept; without them they are not. ``hosts``: the first room closes with this window.
    """

    def __init__(
        self,
        client: Client,
        *,
        settings: Settings = DEFAULTS,
        opener: Callable[[str], Client] | None = None,
        file: Path | None = None,
        history: Path | None = None,
        complaint: str = "",
        hosts: bool = False,
    ) -> None:
        self._settings = settings
        self._hosts = hosts
        self._opener = opener
        self._file = file
        self._complaint = complaint
        self._theme = theme.choose(settings.theme, os.environ)
        self._mouse = settings.mouse
        self._keys_table = rebind(KEYS, settings.keys)
        self.composer: Final = Composer(
            {
                "NICK": self._nicks,
                "WHO": lambda: [nick or entry for entry, nick in self._ignored()],
                "ROOM": self._names,
                "THEME": lambda: theme.PALETTES,
                "SETTING": lambda: NAMES,
            },
            self._note,
            slow={"TARGET": open_here},
            folder=history,
            confirm_lines=settings.paste_confirm_lines,
            processors=[_AsShown()],
        )
        self._views = [self._make_view(client)]
        self._at = 0
        self._answering: tuple[int, MessageEntry] | None = (
            None  # what the next message does: REPLY's SAY or EDIT, and to what
        )
        self._set_aside = Document()  # what stood in the input when a correction began
        self._told_now = ""  # what was answered while one had scrolled up, until the next key
        self._refused = ""  # what was typed and is no command: the menu must not lie over what tells so
        self._touched = time.monotonic()  # the last key
        self._active = _now()  # and when that was, for others
        self._away_by_itself = False
        self._leaving = False  # it was told that others are here
        # Where one was before a list was shown: the pane, its place, what was selected. None once one went elsewhere.
        self._came_from: tuple[View, Timeline, Pane, tuple[int, int] | None, int | None] | None = None
        self._redraw_due = False
        self._drawn_at = 0.0  # the end of the last redraw, by the loop's clock
        self._bell_due = False
        self._turn = asyncio.Lock()
        self.app: Final = self._application()
        self.app.ttimeoutlen = _ESCAPE
        self.app.key_processor.before_key_press += lambda _keys: self._touch()
        self.app.key_processor.after_key_press += lambda keys: self._wait_for_more(keys.key_buffer)
        self.app.after_render += lambda _app: self._rendered()

    @property
    def view(self) -> View:
        """The room one looks at."""
        return self._views[self._at]

    @property
    def pane(self) -> Pane:
        return self.view.pane

    @property
    def input(self) -> Buffer:
        """The buffer of what is being written."""
        return self.composer.buffer

    def _make_view(self, client: Client, partner: str = "", *, called: bool = False) -> View:
        return View(client, self._settings, partner=partner, called=called, delimiters=self._theme == "none")

    async def run(self) -> None:
        """See ``run`` of this module."""
        client = self.view.client
        if self._complaint:
            self._note(self._complaint)
        if client.trusted_on_first_use:
            told = _("trust on first use: {fingerprint}; compare it with the host's owner")
            self.view.greeting.append(told.format(fingerprint=client.trusted_on_first_use))
        self.view.introduction += [
            _("type, Enter sends; ✓: it is on the host's disk"),
            _("Tab completes names, /commands and :emoji:"),
            _("/help lists commands and keys; /quit leaves"),
        ]
        self.composer.restore(self.view.name)
        self._terminal = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(self._fault)
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        try:
            await self.app.run_async(pre_run=self._start, set_exception_handler=False)
        except EOFError:
            pass  # the terminal is gone
        except OSError as error:
            if error.errno != errno.EIO:  # and the same, when it is written to
                raise
        finally:
            with suppress(OSError):  # prompt_toolkit leaves it off where the last redraw fails
                self.app.output.enable_autowrap()
                self.app.output.flush()
            drop_unwritten()
            for number in (signal.SIGHUP, signal.SIGTERM):
                loop.remove_signal_handler(number)
            loop.set_exception_handler(before)

    def _start(self) -> None:
        self.app.create_background_task(self._follow_first())
        self.app.create_background_task(self._look())

    async def _follow_first(self) -> None:
        error: BaseException | None = None
        try:
            await self._follow(self._views[0])
        except Exception as failure:
            error = failure
        self._leave(error)

    async def _follow(self, view: View) -> None:
        while events := await view.client.next_events():
            for event in events:
                self._take(view, event)
            view.taken()
            if view.rejected:
                self.composer.give_back("\n".join(view.rejected), view.name)
                view.rejected.clear()
            self._redraw_soon()

    def _leave(self, error: BaseException | None = None) -> None:
        if self.app.future is None or self.app.future.done():
            return
        if error is None:
            self.app.exit()
        else:
            self.app.exit(exception=error)

    def _ask_to_leave(self) -> None:
        """Leave; where the room would close for others, tell that first, and leave the next time."""
        session = self._views[0].session
        others = {key for (key, _nick), bot in session.here.items() if not bot} - {session.key}
        if self._hosts and others and not self._leaving:
            self._leaving = True
            self._hint(_("others are here, and the room closes when you leave; do it again to leave"))
        else:
            self._leave()

    def _clear_or_leave(self) -> None:
        if not self.input.text:
            self._ask_to_leave()
            return
        self.composer.clear()
        self._end_correction()

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has failed: a redraw, a key. End with its error rather than go on with half a screen."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self._leave(error)
        else:
            loop.default_exception_handler(context)

    def _redraw_soon(self, seconds: float = _FRAME) -> None:
        """Redraw so long after the last redraw. One that a key asks for meanwhile puts it off, since it shows all."""
        if not self._redraw_due:
            self._redraw_due = True
            asyncio.get_running_loop().call_at(self._drawn_at + seconds, self._redraw, seconds)

    def _redraw(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._drawn_at + seconds:
            loop.call_at(self._drawn_at + seconds, self._redraw, seconds)
            return
        self._redraw_due = False
        if self._bell_due:
            self._bell_due = False
            self.app.output.bell()  # once, however many messages ask for it
        self.app.invalidate()

    # -- what happens ----------------------------------------------------------------------------

    def _take(self, view: View, event: ClientEvent) -> None:
        if isinstance(event, Rewound):
            self._came_from = None  # its numbers are of a log that is no more
        attention = view.take(event)
        if attention:
            self._ring(view, attention)
        for news in view.news:
            if all(other.session.other != news.other for other in self._views) and not view.is_ignored(news.other):
                self._take_news(view, news)
        view.news.clear()

    def _take_news(self, view: View, news: Direct) -> None:
        """Open a direct room in which something waits, behind the one that is looked at; tell of any other."""
        view.note(direct_told(news))
        if not is_unread(news) or sum(bool(other.partner) for other in self._views) >= _CALLED:
            return
        with suppress(ChatError):  # the host has just gone; it tells again when it is back
            client = view.client.direct(news.other)
            called = self._make_view(client, visible(news.nick, lines=False), called=True)
            self._add_view(called)
            self._ring(called, Attention.MENTION)

    def _ring(self, view: View, attention: Attention) -> None:
        wanted = self._settings.bell == "all" or (self._settings.bell == "mention" and attention is Attention.MENTION)
        if wanted and view.session.room not in self._settings.muted and not self._settings.is_quiet(_clock()):
            self._bell_due = True

    def _note(self, *texts: str) -> None:
        """Add lines of our own."""
        self._tell(self.view, *texts)

    def _tell(self, view: View, *texts: str) -> None:
        for text in texts:
            view.note(text)
        if view is self.view and not self.pane.following:
            self._told_now = texts[0]

    def _hint(self, text: str) -> None:
        """Tell above the input, until the next key: what is of no use later does not stand in the talk."""
        self._told_now = text
        self._redraw_soon()

    def _touch(self) -> None:
        """A key was pressed."""
        self._touched, self._active = time.monotonic(), _now()
        self._told_now = ""
        if self._away_by_itself:
            self._away_by_itself = False
            self._show(level=Level.ONLINE)

    def _wait_for_more(self, pressed: list[KeyPress]) -> None:
        """After Escape, only for what a terminal sends in one piece: a hand that presses it wants to see it done."""
        escaped = bool(pressed) and pressed[-1].key == Keys.Escape
        self.app.timeoutlen = _ESCAPE if escaped else _SEQUENCE

    def _rendered(self) -> None:
        self._drawn_at = asyncio.get_running_loop().time()
        timeline = self.view.timeline
        drawn = timeline.read_state.unread, timeline.read_state.marker, self.view.is_new_above
        read = self.view.seen()
        if read > self.view.client.shows.read:
            self._show(read=read)
        if (timeline.read_state.unread, timeline.read_state.marker, self.view.is_new_above) != drawn:
            self._redraw_soon()
        if not self.view.work and (load := self._to_load()) is not None:
            self._begin(self.view, partial(self._load, self.view, load))
        if self.view.progress is not None:
            self._redraw_soon(_BAR_FRAME)

    def _to_load(self) -> Callable[[], Awaitable[None]] | None:
        """Return how to load what is wanted next where the pane is, None for nothing."""
        view, window = self.view, self.view.window
        first, last = self.pane.visible_range()
        beyond, self.pane.at_top = self.pane.at_top, False
        if first == view.stopped_at or (self.pane.following and not beyond):
            return None
        if window.oldest > 1 and (beyond or first - window.first <= _NEAR) and not view.undoes(older=True):
            return view.load_older
        if not window.attached and window.end - last <= _NEAR and not view.undoes(older=False):
            return view.load_newer
        return view.check if view.is_to_check else None

    async def _load(self, view: View, load: Callable[[], Awaitable[None]]) -> None:
        try:
            await load()
        except ChatError:
            view.stopped_at = view.pane.visible_range()[0]  # else every redraw would try again
            raise

    def _begin(self, view: View, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
        """Begin what may take long, after what is at work. Both are stopped together; what goes wrong is told."""
        before = view.work

        async def run() -> None:
            try:
                if before is not None:
                    await _ended(before)
                await work()
            except ChatError as error:
                self._tell(view, translate(error))

        def done(task: asyncio.Task[None]) -> None:  # also of one that was stopped before its first step
            if view.work is task:
                view.work = None
            self.app.invalidate()

        task = view.work = self.app.create_background_task(run())
        task.add_done_callback(done)
        self._redraw_soon()
        return task

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            idle = time.monotonic() - self._touched
            shows = self.view.client.shows
            if shows.typing and (idle > _TYPING or not self.input.text):
                self._show(typing=False)
            elif not shows.typing and idle < _LOOK and self.input.text and not self.input.text.lstrip().startswith("/"):
                self._show(typing=True)
            if self._active > shows.active + _STILL_HERE:
                self._show()
            minutes = self._settings.away_minutes
            if minutes and idle > 60 * minutes and shows.level == Level.ONLINE:
                self._away_by_itself = True
                self._show(level=Level.AWAY)
            if self.view.look():
                self._redraw_soon()

    def _show(self, **changes: Any) -> None:
        """Show something of ourselves: in every room, but for what is of one room only."""
        for view in [self.view] if {"typing", "read"} & set(changes) else self._views:
            with suppress(ValueError):  # a nickname that the host has not given yet
                view.client.show(active=self._active, **changes)

    # -- what is typed ---------------------------------------------------------------------------

    def _enter(self) -> None:
        """Send what was typed, or do what it asks for. What cannot be sent stays in the input."""
        typed = clean(self.input.text)  # a key may be a byte that is no UTF-8, or a control character (Ctrl+Q)
        if not typed.strip():
            return
        kind, text, target = Kind.SAY, typed, 0
        match parse(_BLANK_LINES.sub("", typed)):
            case Unknown(told=told):
                self._refused = typed
                self._note(told)
                return
            case Command(name, argument):
                self.input.reset(append_to_history=True)
                self._do(name, argument)
                return
            case Action(text):
                kind = Kind.ACTION
            case Say(text):
                if self._answering is not None:
                    does, item = self._answering
                    kind, target = Kind(does), item.seq
        self._send(typed, text, kind, target)

    def _send(self, typed: str, text: str, kind: int, target: int = 0) -> None:
        if self._settings.emoji_names and kind != Kind.RETRACT:
            text = emoji.expand(text)
        try:
            message = Outgoing(text, kind, target)
        except ChatError as error:
            self._note(translate(error))
            return
        self._answering = self._came_from = None
        self._leaving = False
        self.input.reset(append_to_history=True)
        self.view.pass_marker()
        self.view.follow()
        self.app.create_background_task(self._say(self.view, typed, message))

    async def _say(self, view: View, typed: str, message: Outgoing) -> None:
        async with self._turn:  # in the order typed, also where ``say`` has to wait
            try:
                entry = await view.client.say(message)
            except ChatError as error:
                view.note(translate(error))
                self.composer.give_back(typed, view.name)
            else:
                view.add_pending(entry)
        self.app.invalidate()

    def _do(self, name: str, argument: str) -> None:
        """Do what a command of the table asks for."""
        match name:
            case "help":
                self._help(argument)
            case "quit":
                self._ask_to_leave()
            case "who":
                self._who(argument)
            case "join" if argument:
                self._join(argument)
            case "join" | "rooms":
                self.app.create_background_task(self._list_rooms(window=name == "rooms"))
            case "part":
                self._part()
            case "room":
                self._go_to(argument)
            case "msg":
                self._message(*[*argument.split(maxsplit=1), ""][:2])
            case "reply" | "edit" | "quote" | "retract" | "copy" | "details" | "react":
                self._act(name, argument)
            case "search":
                self._search(argument)
            case "unread" | "mention":
                self._jump(name)
            case "ignore":
                self._ignore(argument)
            case "unignore":
                self._unignore(argument)
            case "mute" | "unmute":
                self._mute(on=name == "mute")
            case "away" | "busy" | "back":
                self._be(Level.ONLINE if name == "back" else Level[name.upper()], argument)
            case "theme":
                self._set_theme(argument)
            case "mouse":
                self._mouse = not self._mouse
                self._note(_("the mouse scrolls here") if self._mouse else _("the mouse is the terminal's"))
            case "set":
                self._set(*[*argument.split(maxsplit=1), "", ""][:2])
            case "peer":
                self.app.create_background_task(self._ask(self.view, Ask(what="peer", text=argument)))
            case "invite":
                self.app.create_background_task(self._ask(self.view, Ask(what="invite")))
            case "clear":
                self._came_from = None
                self.view.clear()

    def _help(self, word: str) -> None:
        if word:
            self._note(help_on(word, self._keys_table))
            return
        self._list(help_lines(self._keys_table))

    def _list(self, lines: Iterable[str]) -> None:
        """Add lines of our own, and go there: to the first where they are more than there are rows."""
        if self._came_from is None or self._came_from[0] is not self.view:
            self._came_from = (self.view, self.view.window, self.pane, self.pane.place, self.pane.selected)
        self.view.follow()
        begin = self.view.timeline.end
        for line in lines:
            self.view.note(line)
        fit = self.pane.has_room_from(begin)
        self.pane.jump(self.view.timeline.end - 1 if fit else begin)
        if not fit:
            told = _("{down} shows more, {stop} goes back to where you were")
            self._hint(told.format(down=self._key("page-down"), stop=self._key("stop")))

    def _who(self, nick: str) -> None:
        self.view.look()
        known, people = self.view.known, self.view.people
        if not nick:
            self._note(listed(people))
        elif (key := known.key_of(nick)) is None:
            self._note(nobody(nick))
        else:
            self._note(*known.about(key, people, ignored=key in self.view.timeline.ignored))

    async def _ask(self, view: View, ask: Ask) -> None:
        try:
            answer = await view.client.ask(ask)
            self._tell(view, localize_remote(answer.error) or answer.text)
        except ChatError as error:
            self._tell(view, translate(error))
        self.app.invalidate()

    def _be(self, level: Level, note: str) -> None:
        self._away_by_itself = False
        try:
            self.view.client.show(level=level, note=note)
        except ValueError as error:
            self._note(translate(error))
            return
        self._show(level=level, note=note)
        self._note(_(SHOWN_AS[level]))

    # -- messages --------------------------------------------------------------------------------

    def _act(self, name: str, argument: str = "") -> None:
        """Act on the selected message, or on the one that is most likely meant."""
        if name != "details":
            self._came_from = None
        mine = {"edit": True, "retract": True, "reply": False, "quote": False}.get(name)
        if self.pane.selected is not None and not mine:
            mine = None  # whoever's it is, it was chosen
        item = self.view.selected(mine=mine)
        if item is None or not item.seq:
            if self.pane.selected is not None and mine:
                told = _("this is not yours: only your own messages can be changed; Escape selects none")
            elif mine:
                told = _("there is no message of yours here that could be changed")
            else:
                told = _("there is no message here for this; {key} selects one")
            self._note(told.format(key=self._key("select-previous")))
            return
        match name:
            case "reply" | "edit":
                kind = Kind.EDIT if name == "edit" else Kind.SAY
                if argument:
                    self._send(f"/{name} {argument}", argument, kind, item.seq)
                    return
                self._answering = (kind, item)
                if name == "edit":
                    self._set_aside = self.input.document
                    self.input.document = Document(item.text)
            case "quote":
                quoted = "".join(f"> {line}\n" for line in visible(item.text).split("\n"))
                self.input.document = Document(quoted + self.input.text)
            case "retract":
                self._send("/retract", "", Kind.RETRACT, item.seq)
            case "react" if argument:
                try:
                    self._send(f"/react {argument}", emoji.reaction(argument), Kind.REACT, item.seq)
                except ValueError as error:
                    self._note(str(error))
            case "react":
                self.input.document = Document("/react ")
            case "copy":
                self._copy(item.text)
            case "details":
                self.view.look()
                self._list(details(item, self.view.timeline, self.view.client))

    def _copy(self, text: str) -> None:
        try:
            data = osc52(text)
        except ChatError as error:
            self._note(translate(error))
            return
        self.app.output.write_raw(data.decode("ascii"))
        self.app.output.flush()
        self._note(_("copied, where your terminal allows it"))

    def _follow_end(self) -> None:
        self._came_from = None
        self.view.follow()

    def _select(self, by: int) -> None:
        self._came_from = None
        window, selected = self.view.window, self.pane.selected
        if by > 0 and window.attached and selected is not None and selected >= window.end - 1:
            self.pane.follow()
        else:
            self.pane.select(by)

    def _jump(self, to: str) -> None:
        self._came_from = None
        view, seq = self.view, self.view.timeline.read_state.first_unread
        if to == "unread" and view.timeline.read_state.marker is not None and not view.turn_to(seq):

            async def load() -> None:
                await view.go_to(seq)
                view.pane.jump(view.find_marker())

            self._begin(view, load)
            return
        number = view.find_marker() if to == "unread" else view.window.last_mention()
        if not self.pane.jump(number):
            told = _("nothing is unread here")
            if to == "mention":
                told = _("nobody has named you in what is loaded here; {key} loads more")
            self._hint(told.format(key=self._key("page-up")))

    def _top(self) -> None:
        """Go to the first message of the log."""
        view = self.view
        if view.window.oldest <= 1 or view.turn_to(1):
            self.pane.jump(view.window.first)
            return

        async def load() -> None:
            await view.go_to(1)
            view.pane.jump(view.window.first)

        self._begin(view, load)

    def _search(self, text: str) -> None:
        self._came_from = None
        view = self.view
        view.search = search = Search(view, text)
        self.pane.hit = text
        if not self._step(view, search, older=True):
            search.walk = self._begin(view, partial(self._walk_on, view, search, older=True))
            return

        async def count() -> None:
            with suppress(ChatError):  # then the host is asked again when the walk comes to the end of what is here
                await search.fetch()

        self._begin(view, count)

    def _next_hit(self, *, older: bool) -> None:
        view, search = self.view, self.view.search
        self._came_from = None
        if search is None:
            self._hint(_("nothing is searched for yet: /search TEXT"))
        elif (search.walk is None or search.walk.done()) and not self._step(view, search, older=older):
            search.walk = self._begin(view, partial(self._walk_on, view, search, older=older))

    def _step(self, view: View, search: Search, *, older: bool) -> bool:
        """Go to the next hit. False where there is none, or it has to be loaded."""
        while (hit := search.next(older=older)) is not None:
            if not view.turn_to(search.seq_of(hit)):
                return False
            if (line := search.line_of(hit)) is not None:
                search.at = hit
                view.pane.jump(line)
                view.pane.selected = line
                return True
            search.forget(hit)
        return False

    async def _walk_on(self, view: View, search: Search, *, older: bool) -> None:
        """Go to the next hit, and have it loaded, or the host find it, where it is not here."""
        while view.search is search and not self._step(view, search, older=older):
            if (hit := search.next(older=older)) is not None:
                await view.go_to(search.seq_of(hit))
                if not view.turn_to(search.seq_of(hit)):
                    search.forget(hit)
            elif older and await search.fetch():
                continue
            elif search.at is None:
                told = _("no message here has: {text}; search for fewer words, or a part of one")
                self._tell(view, told.format(text=search.text))
                return
            else:
                if view is self.view:
                    self._tell_end(search, older=older)
                return

    def _tell_end(self, search: Search, *, older: bool) -> None:
        if search.is_only:
            self._hint(_("this is the only hit"))
        elif older:
            self._hint(_("there is no hit further up; {key} goes down").format(key=self._key("next-hit")))
        else:
            self._hint(_("there is no hit further down; {key} goes up").format(key=self._key("previous-hit")))

    def _key(self, action: str) -> str:
        """Return the first key of an action, or its name where it has none."""
        return next((row.keys[0] for row in self._keys_table if row.action == action and row.keys), action)

    def _ignored(self) -> list[tuple[str, str]]:
        return ignored(self._settings.ignore, (view.known for view in self._views))

    def _ignore(self, nick: str) -> None:
        if not nick:
            self._list(list_ignored(self._ignored()))
            return
        key = self.view.known.key_of(nick)
        if key is None:
            self._note(nobody(nick))
            return
        if key == self.view.session.key:
            self._note(_("this is you; /ignore NICK is for somebody else"))
            return
        self._came_from = None  # there one would see them still
        for view in self._views:
            view.ignore(key)
        others = [entry for entry in self._settings.ignore if entry not in names_of(key)]
        name = self.view.known.nick_of(key)
        told = _("what {nick} says is hidden, also the next time; /unignore {nick} shows it").format(nick=name)
        self._change("ignore", (*others, fingerprint(key)), told)

    def _unignore(self, who: str) -> None:
        entries, told = to_heed(who, self._ignored())
        if not entries:
            self._note(told)
            return
        self._came_from = None
        for view in self._views:
            view.heed(entries)
        self._change("ignore", tuple(entry for entry in self._settings.ignore if entry not in entries), told)

    # -- settings --------------------------------------------------------------------------------

    def _mute(self, *, on: bool) -> None:
        room = self.view.session.room
        others = tuple(name for name in self._settings.muted if name != room)
        told = _("this room rings no bell now; /unmute ends that") if on else _("this room rings the bell again")
        self._change("muted", (*others, room) if on else others, told)

    def _set_theme(self, name: str) -> None:
        try:
            self._change("theme", parse_setting("theme", name))
        except ValueError as error:
            self._note(translate(error))

    def _set(self, name: str, value: str) -> None:
        if not name:
            self._list(all_settings(self._settings))
        elif name not in NAMES:
            self._note(_("there is no setting {name}; /set lists them").format(name=name))
        elif not value:
            self._note(setting(self._settings, name))
        else:
            try:
                self._change(name, parse_setting(name, value))
            except ValueError as error:
                self._note(translate(error))

    def _change(self, name: str, value: Any, told: str = "") -> None:
        """Change a setting here and now, and in the file. ``told``: what to say of it, once it is there."""
        if name.startswith("keys.") or name in _WITH_NEXT_START:
            told = _("{name} is set, and counts from the next start on").format(name=name)
        else:
            self._settings = type(self._settings)(**{**_fields(self._settings), name: value})
            if name == "theme":
                self._theme = theme.choose(self._settings.theme, os.environ)
                self.app.style = theme.style(self._theme)
            elif name == "mouse":
                self._mouse = self._settings.mouse
            elif name == "paste_confirm_lines":
                self.composer.confirm_lines = value
        if self._file is not None:
            self.app.create_background_task(self._write_setting(self._file, name, value, told))
        elif told:
            self._note(told)

    async def _write_setting(self, file: Path, name: str, value: Any, told: str) -> None:
        try:
            await asyncio.to_thread(change, file, name, value)
        except ChatError as error:
            self._note(translate(error))
        else:
            self._note(told or _("{name} is set, also for the next time").format(name=name))
        self.app.invalidate()

    # -- rooms -----------------------------------------------------------------------------------

    def _names(self) -> Iterable[str]:
        return [view.name.removeprefix("#") for view in self._views]

    def _nicks(self) -> Iterable[str]:
        return self.view.known.nicks()

    async def _list_rooms(self, *, window: bool) -> None:
        found = await asyncio.to_thread(open_here)
        names = (
            f"{view.name} {bars.unread(view)}" if view.timeline.read_state.unread else view.name for view in self._views
        )
        self._list(rooms(found, names if window else ()))
        self.app.invalidate()

    def _join(self, target: str) -> None:
        if self._opener is None:
            self._note(_("no other room can be entered from here; use chat join in another terminal"))
            return
        try:
            client = self._opener(target)
        except ChatError as error:
            self._note(translate(error))
            return
        self._open(self._make_view(client))

    def _message(self, nick: str, text: str) -> None:
        key = self.view.known.key_of(nick)
        if key is None or key == self.view.session.key:
            self._note(nobody(nick))
            return
        view = next((view for view in self._views if view.session.other == key), None)
        if view is None:
            name = next((name for who, name in self.view.session.here if who == key), nick)
            view = self._make_view(self.view.client.direct(key), name)
            self._open(view, text)
            return
        self._show_view(self._views.index(view))
        if text:
            self.app.create_background_task(self._say(view, text, Outgoing(text)))

    def _open(self, view: View, text: str = "") -> None:
        for at, other in enumerate(self._views):
            if (other.session.room, other.session.other) == (
                view.session.room,
                view.session.other,
            ) and other.session.room:
                self._show_view(at)
                return
        self._add_view(view, text)
        self._show_view(len(self._views) - 1)

    def _add_view(self, view: View, text: str = "") -> None:
        self._views.append(view)
        if view.partner:
            told = _("this is for {nick} and you; the host's owner could read it, too")
            view.greeting.append(told.format(nick=view.partner))
        self.app.create_background_task(self._live(view, text))

    async def _live(self, view: View, text: str) -> None:
        """Be in one more room, from coming in to leaving."""
        try:
            async with view.client:
                if text:
                    await self._say(view, text, Outgoing(text))
                await self._follow(view)
        except ChatError as error:
            self._tell(self._views[0], f"{view.name}: {translate(error)}" if view.session.room else translate(error))
        if view in self._views:
            self._close(view)
        self.app.invalidate()

    def _part(self) -> None:
        if self._at == 0:
            self._note(_("this room is left with /quit"))
            return
        self._close(self.view)

    def _close(self, view: View) -> None:
        here = self.view
        if view is here:
            self._turn_away()
        self._views.remove(view)
        self._at = self._views.index(here) if here in self._views else 0
        self.composer.restore(self.view.name)
        self.composer.forget(view.name)
        self.app.create_background_task(view.client.aclose())

    def _show_view(self, at: int) -> None:
        if not 0 <= at < len(self._views):
            self._note(_("there is no room {number} in this window").format(number=at + 1))
            return
        self._turn_away()
        self._at = at
        self.composer.restore(self.view.name)
        self._redraw_soon()

    def _turn_away(self) -> None:
        """From the room one looks at: what was begun there is about its messages, and not about another room's."""
        self.view.leave()
        self._show(typing=False)
        self._end_correction()
        self._answering = self._came_from = None

    def _offer_rooms(self) -> None:
        self.input.document = Document("/room ")
        self.input.start_completion()

    def _go_to(self, wanted: str) -> None:
        """Go to a room by its number, or by some letters of its name in their order."""
        if wanted.isdigit():
            self._show_view(int(wanted) - 1)
            return
        if found := rooms_like(wanted, [view.name for view in self._views]):
            self._show_view(found[0])
        else:
            self._note(_("no room here is called {name}; /join enters another one").format(name=wanted))

    # -- keys ------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        does: dict[str, Callable[[], object]] = {
            "send": self._enter,
            "newline": lambda: self.input.insert_text("\n"),
            "editor": lambda: self.app.create_background_task(self.composer.edit()),
            "page-up": lambda: self.pane.scroll(-1),
            "page-down": lambda: self.pane.scroll(1),
            "top": self._top,
            "bottom": self._follow_end,
            "select-previous": lambda: self._select(-1),
            "select-next": lambda: self._select(1),
            **{
                name: partial(self._act, name)
                for name in ("reply", "quote", "edit", "retract", "react", "copy", "details")
            },
            "search": lambda: setattr(self.input, "document", Document("/search ")),
            "previous-hit": lambda: self._next_hit(older=True),
            "next-hit": lambda: self._next_hit(older=False),
            "stop": self._stop,
            "unread": lambda: self._jump("unread"),
            "mention": lambda: self._jump("mention"),
            **{f"room-{n}": partial(self._show_view, n - 1) for n in range(1, 10)},
            "switcher": self._offer_rooms,
            "mouse": lambda: self._do("mouse", ""),
            "help": lambda: self._help(""),
            "redraw": lambda: self.app.renderer.clear(),  # noqa: PLW0108 - there is no app yet
            "suspend": lambda: self.app.create_background_task(_suspend(self._terminal)),
            "leave": self._clear_or_leave,
            "leave-if-empty": self._ask_to_leave,
        }
        keys = KeyBindings()
        filters = {
            "leave-if-empty": Condition(lambda: not self.input.text),
            "stop": Condition(self._has_begun),
        }
        for row in self._keys_table:
            for sequence in row.sequences:
                keys.add(*sequence, filter=filters.get(row.action, True))(partial(_call, does[row.action]))
        bound = {sequence: row.action for row in self._keys_table for sequence in row.sequences}
        stops = bound.get(("escape",)) == "stop"
        for char in _NOT_HELD:
            if ("escape", char) not in bound:
                keys.add("escape", char)(partial(self._escape_and, stops))
        keys.add("<sigint>")(lambda _event: self._leave())
        keys.add("<vt100-mouse-event>")(_mouse)
        return keys

    def _escape_and(self, stops: bool, event: KeyPressEvent) -> None:
        """Do what Escape does, and type the character that came so soon after it that it looks like Alt and a key.

        prompt_toolkit binds some of these; whoever types a command right after Escape would lose its slash, and say it.
        """
        if self.composer.pasted:
            self.composer.discard()
        elif stops and self._has_begun():
            self._stop()
        event.key_processor.feed(KeyPress(event.key_sequence[-1].key, event.data), first=True)

    def _has_begun(self) -> bool:
        begun = (self.view.work, self.view.search, self._answering, self.pane.selected, self._came_from)
        return any(one is not None for one in begun)

    def _stop(self) -> None:
        """Stop what is at work, else leave a list, else what was begun: an answer, a selection, a search."""
        view = self.view
        if view.work is None and self._came_from is not None and self._came_from[0] is view:
            _view, window, pane, place, selected = self._came_from
            self._came_from = None
            view.go_back(window, pane, place, selected)
            return
        if view.work is None:
            self._end_correction()
            self._answering = view.search = None
            view.pane.hit = ""
            view.follow()
            return
        view.work.cancel()
        view.stopped_at = view.pane.visible_range()[0]
        key = self._key("page-up" if view.search is None else "previous-hit")
        self._note(_("stopped; {key} goes on").format(key=key))

    def _end_correction(self) -> None:
        if self._answering is not None and self._answering[0] == Kind.EDIT:
            self.input.document = self._set_aside  # or the next Enter would say the old text again
            self._answering = None

    # -- what it looks like ----------------------------------------------------------------------

    def _application(self) -> Application[None]:
        wide = Condition(self._is_wide)
        border = Window(width=1, char="│", style="class:faint")
        side_bar = VSplit([border, Window(FormattedTextControl(self._side_bar), width=bars.SIDE_BAR)])
        typing = Window(
            self.composer.control,
            width=lambda: self._rest(2),
            height=self._input_height,
            wrap_lines=True,
            dont_extend_height=True,
        )
        told = Window(FormattedTextControl(self._told), height=1, style="class:faint")
        title = Window(FormattedTextControl(self._title), height=1, style="class:bar")
        status = Window(FormattedTextControl(self._status), height=1, style="class:bar")
        panes = _PaneWindow(lambda: self.pane, width=lambda: self._rest(bars.SIDE_BAR + 1 if self._is_wide() else 0))
        root = HSplit(
            [
                ConditionalContainer(title, Condition(lambda: self._spare_rows() > 1)),
                VSplit([panes, ConditionalContainer(side_bar, wide)]),
                ConditionalContainer(told, Condition(lambda: bool(self._told_text()) and self._size()[1] > 1)),
                VSplit([Window(FormattedTextControl("> "), width=2, dont_extend_height=True), typing]),
                ConditionalContainer(status, Condition(lambda: self._spare_rows() > 0)),
            ]
        )
        menu = ConditionalContainer(CompletionsMenu(max_height=8), Condition(lambda: self.input.text != self._refused))
        return Application(
            Layout(FloatContainer(root, [Float(menu, xcursor=True, ycursor=True)]), focused_element=typing),
            key_bindings=self._keys(),
            style=theme.style(self._theme),
            include_default_pygments_style=False,
            mouse_support=Condition(lambda: self._mouse),
            full_screen=True,
            max_render_postpone_time=0,  # else a redraw waits for a moment without messages, up to 10 ms
        )

    def _rest(self, taken: int) -> Dimension:
        """All columns but those. Said outright, since prompt_toolkit hands them out one by one at each redraw."""
        return Dimension.exact(max(self._size()[0] - taken, 0))

    def _size(self) -> tuple[int, int]:
        size = self.app.output.get_size()
        return size.columns, size.rows

    def _spare_rows(self) -> int:
        """Rows besides the input and what is asked or told, which a small screen shows first."""
        return self._size()[1] - 1 - bool(self._told_text())

    def _is_wide(self) -> bool:
        bar = self._settings.side_bar
        return bar == "always" or (bar == "auto" and self._size()[0] >= _SIDE_BAR_FROM)

    def _input_height(self) -> Dimension:
        return Dimension(min=1, max=max(1, self._size()[1] // 3))

    def _told_text(self) -> str:
        """The line above the input, where there is something to ask or to tell."""
        if self.composer.question:
            return self.composer.question
        if self._told_now:
            return self._told_now
        if self._answering is not None:
            kind, item = self._answering
            about = clip(sanitize(f"{item.nick}: {item.text}", lines=False), _EXCERPT)
            told = _("correcting {about}; Escape stops") if kind == Kind.EDIT else _("answering {about}; Escape stops")
            return told.format(about=about)
        return self.composer.counter

    def _told(self) -> StyleAndTextTuples:
        return bars.row(self._told_text(), self._size()[0])

    def _title(self) -> StyleAndTextTuples:
        return bars.title(self.view, self._size()[0])

    def _status(self) -> StyleAndTextTuples:
        return bars.status(self.view, self._views, self._size()[0], muted=self._settings.muted, key=self._key)

    def _side_bar(self) -> StyleAndTextTuples:
        rows = self._size()[1] - 3  # without title, status and one row of input
        return bars.side_bar(self.view, self._views, rows)


class _PaneWindow(Window):
    """A window on whatever pane is looked at now."""

    def __init__(self, pane: Callable[[], Pane], width: Callable[[], Dimension]) -> None:
        self._pane = pane
        super().__init__(pane(), width=width)

    def write_to_screen(self, *given: Any, **more: Any) -> None:
        if self.content is not (pane := self._pane()):
            self.content = pane
            self.reset()
        super().write_to_screen(*given, **more)


class _AsShown(Processor):
    """Shows the input as the pane will show the message, so that the cursor stands where the terminal has it."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        fragments = explode_text_fragments(transformation_input.fragments)
        text = fragment_list_to_text(fragments)
        joined = {at for match in JOINED.finditer(text) for at in range(*match.span())}
        kept = [at for at in range(len(text)) if at not in joined and _as_typed(text[at])]
        return Transformation(
            [(fragments[at][0], _as_typed(text[at])) for at in kept],
            lambda at: bisect_left(kept, at),
            lambda at: kept[at] if at < len(kept) else len(text),
        )


@lru_cache(maxsize=4096)
def _as_typed(char: str) -> str:
    """Return one character of the input as it may stand on the screen, "" for one that nobody would see.

    A quote or a paste has been a peer's text. One character for one: prompt_toolkit would show ^[ and <9b>, and count
    none of their columns.
    """
    if char in "\u200c\u200d\ufe0f":
        return char  # see JOINED
    if unicodedata.category(char) == "Cc":
        return " " if char == "\t" else visible(char)[-1] if char < "\x80" else "\ufffd"
    return visible("x" + char, lines=False)[1:].translate(FLAGS)


_POINTED: Final = load_mouse_bindings().get_bindings_for_keys((Keys.Vt100MouseEvent,))[0].handler


def _mouse(event: KeyPressEvent) -> object:
    """What prompt_toolkit takes for the mouse may be a colour in what was pasted, where a paste is typed key by key."""
    with suppress(ValueError, LookupError):
        return _POINTED(event)
    return NotImplemented


async def _suspend(before: list[Any] | None) -> None:
    """Stop all of our process group, as Ctrl-Z does, with the terminal as it was: prompt_toolkit leaves IXON off."""
    async with in_terminal():
        if before is None:
            os.kill(0, signal.SIGTSTP)
            return
        ours = termios.tcgetattr(sys.stdin)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        os.kill(0, signal.SIGTSTP)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, ours)


def _call(does: Callable[[], object], _event: object) -> None:
    does()


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, whatever it is; who is cancelled meanwhile cancels it, too."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def _clock() -> Any:
    return datetime.now().astimezone().time()
