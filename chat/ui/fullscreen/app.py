"""The full screen as an application of prompt_toolkit: its layout, its redraws, and how it begins and ends.

     header: link, room, topic       wire, people, own name
    ─────────────────────────────────┬─────────────────────
     pane: what was said             │ ROOMS                  folds away below 60 columns
                                     │ HERE
    ─ divider: who is typing, or a line that tells something
     > input                                                  grows to a third of the screen
     footer: the keys that matter now         what is unsent

Rules:

1. Texts from peers are only ever text: ``pane`` filters them, and no style, HTML or ANSI is made of them.
2. Keys are drawn at once, events at most 30 times a second.
3. A terminal that takes nothing for a while stops the redraws, and nothing else.
4. However this ends, the terminal is as it was before.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import termios
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from prompt_toolkit.application import Application, get_app_session
from prompt_toolkit.filters import Condition
from prompt_toolkit.input.vt100 import Vt100Input
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
from prompt_toolkit.layout.screen import WritePosition
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import DynamicStyle

from chat.core.text import visible
from chat.local.descriptors import drop_unwritten
from chat.ui import theme
from chat.ui.fullscreen import bars, graphemes
from chat.ui.fullscreen.card import with_card
from chat.ui.fullscreen.keyboard import Answers, Keyboard
from chat.ui.fullscreen.keys import bindings
from chat.ui.fullscreen.notices import Notices
from chat.ui.fullscreen.panel import Covering
from chat.ui.fullscreen.side import SIDE_BAR, side_bar
from chat.ui.fullscreen.terminal import Terminal
from chat.ui.fullscreen.wrapping import columns, sanitize, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding.key_processor import KeyPress
    from prompt_toolkit.layout.mouse_handlers import MouseHandlers
    from prompt_toolkit.layout.screen import Screen

    from chat.ui.fullscreen.face import FullScreen

_FRAME: Final = 1 / 30  # seconds between redraws for events
_ESCAPE: Final = 0.1  # seconds in which a key after Escape makes it Alt and that key
_SEQUENCE: Final = 1.0  # seconds in which Ctrl+E makes Ctrl+X the editor's key
_LAST_WORDS: Final = 1.0  # seconds in which a terminal should take what restores it, before the room is left
_SIDE_BAR_FROM: Final = 60  # columns of the screen
_DIVIDED_FROM: Final = 8  # rows of the screen: on less, the divider is there only if it says something
_HINT_ROWS: Final = 3  # of a line above the input, at most
_RULED_FROM: Final = 12  # rows of the screen: on less, there is no rule under the header


class App(Application[None]):
    """The screen. Input and output are those of prompt_toolkit's current app session."""

    def __init__(self, face: FullScreen) -> None:
        self.face = face
        self.terminal: list[Any] | None = None  # as it was before, if standard input is one
        self.keyboard = _keyboard()
        self.answers = Answers()
        self.notices = Notices(self)
        self._rows_aside = 0  # of lines of ours on the terminal's own screen, until the next key
        self._writer: Terminal | None = None
        self._is_stale = False  # a redraw waits until the terminal has taken the last one
        self._redraw_due = False
        self._drawn_at = 0.0  # the end of the last redraw, by the loop's clock
        self._pane_window = Window(face.pane, width=lambda: self._rest(SIDE_BAR + 1 if self._is_wide() else 0))
        super().__init__(
            self._layout_of(face),
            key_bindings=bindings(face),
            style=DynamicStyle(lambda: theme.style(self._theme())),
            include_default_pygments_style=False,
            mouse_support=Condition(lambda: face.mouse),
            full_screen=True,
            input=self.keyboard,
            max_render_postpone_time=0,  # else a redraw waits for a moment without messages, up to 10 ms
        )
        self.ttimeoutlen = _ESCAPE
        self.key_processor.before_key_press += lambda _keys: face.touch()
        self.key_processor.after_key_press += lambda keys: self._wait_for_more(keys.key_buffer)
        self.before_render += lambda _app: self._prepare()
        self.after_render += lambda _app: self._rendered()

    # -- beginning and ending --------------------------------------------------------------------

    async def live(self, begin: Callable[[], None]) -> None:
        """Show the screen until ``leave``. ``begin`` is called once there is one. Raises what ``leave`` was given."""
        self.terminal = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
        if isinstance(self.output, Vt100_Output) and self.output.stdout.isatty():
            self.output.stdout = cast("TextIO", writer := Terminal(self.output.stdout.fileno(), self._written))
            self._writer = writer
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(self._fault)
        handlers = {
            number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.leave))
            for number in (signal.SIGHUP, signal.SIGTERM)
        }
        try:
            with self._asked_terminal():
                await self.run_async(pre_run=begin, set_exception_handler=False)
        except EOFError:
            pass  # the terminal is gone
        except OSError as error:
            if error.errno != errno.EIO:  # and the same, when it is written to
                raise
        finally:
            with suppress(OSError):  # prompt_toolkit leaves it off if the last redraw fails
                self.output.enable_autowrap()
                if self._writer is not None:
                    self._writer.end()
                self.output.flush()
            if self._writer is not None:
                with suppress(TimeoutError):  # a terminal that has stopped takes the rest once it goes on
                    await asyncio.wait_for(self._writer.written(), _LAST_WORDS)
            drop_unwritten()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            loop.set_exception_handler(before)

    @contextmanager
    def _asked_terminal(self) -> Iterator[None]:
        """Ask the terminal what it can do. It stays in raw mode from here on, so that no late reply is echoed."""
        if self._writer is None:
            yield
            return
        self._writer.begin()
        with self.keyboard.raw_mode() if self.keyboard is not None else nullcontext():
            if self.keyboard is not None:
                self.answers = self.keyboard.ask(self._writer, os.environ)
            if self.answers.is_wide:
                graphemes.widen()
            wanted = self.face.controller.settings.emoji
            graphemes.show_whole({"whole": graphemes.SAMPLES, "auto": self.answers.whole}.get(wanted, ()))
            yield

    def leave(self, error: BaseException | None = None) -> None:
        if self.future is None or self.future.done():
            return
        if error is None:
            self.exit()
        else:
            self.exit(exception=error)

    def _theme(self) -> str:
        return theme.choose(self.face.controller.settings.theme, os.environ, self.answers.background)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has failed: a redraw, a key. End with its error rather than go on with half a screen."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.leave(error)
        else:
            loop.default_exception_handler(context)

    def _wait_for_more(self, pressed: list[KeyPress]) -> None:
        """After Escape, wait only for what a terminal sends in one piece: a hand that presses it expects an answer."""
        escaped = bool(pressed) and pressed[-1].key == "escape"
        self.timeoutlen = _ESCAPE if escaped else _SEQUENCE

    # -- redraws ---------------------------------------------------------------------------------

    def redraw_soon(self, seconds: float = _FRAME) -> None:
        """Redraw so long after the last redraw. One for a key meanwhile puts it off, since it shows everything."""
        if not self._redraw_due:
            self._redraw_due = True
            asyncio.get_running_loop().call_at(self._drawn_at + seconds, self._redraw_if_due, seconds)

    def _redraw_if_due(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._drawn_at + seconds:
            loop.call_at(self._drawn_at + seconds, self._redraw_if_due, seconds)
            return
        self._redraw_due = False
        if self.is_running and not self._is_stale:
            self.notices.tell()
        self.invalidate()

    def _redraw(self, render_as_done: bool = False) -> None:
        """Called by prompt_toolkit, for whatever reason there is to draw."""
        if self.is_aside and not render_as_done:
            return
        self._is_stale = self._writer is not None and self._writer.is_behind and not render_as_done
        if not self._is_stale:
            super()._redraw(render_as_done)

    def step_aside(self, lines: Sequence[str]) -> None:
        """Show lines on the terminal's own screen until the next key.

        There the terminal alone breaks a long line, so that it is selected and copied as one.
        """
        if not self._running_in_terminal:  # an editor has the terminal
            lines = [visible(line, lines=False) for line in lines]
            self._rows_aside = sum(max(1, -(-columns(line) // self.size[0])) for line in lines)
            self.renderer.erase()
            self.output.write_raw("".join(f"{line}\r\n" for line in lines))
            self.output.flush()

    @property
    def is_aside(self) -> bool:
        return self._rows_aside > 0

    def come_back(self) -> None:
        self.output.cursor_up(self._rows_aside)
        self.output.erase_down()  # an invite is a secret
        self._rows_aside = 0
        self.invalidate()

    def _prepare(self) -> None:
        self._pane_window.content = self.face.pane
        self.face.panel.place(*self.size)

    def _written(self) -> None:
        if self._is_stale:
            self.redraw_soon()

    def _rendered(self) -> None:
        self._drawn_at = asyncio.get_running_loop().time()
        self.face.rendered()
        self.notices.entitle()

    # -- the layout ------------------------------------------------------------------------------

    def _layout_of(self, face: FullScreen) -> Layout:
        border = Window(width=1, char="│", style="class:rule")
        people = FormattedTextControl(lambda: side_bar(face, self.size[1] - self._rows_besides()))
        side = VSplit([border, Window(people, width=SIDE_BAR)])
        typing = Window(
            face.composer.control,
            width=lambda: self._rest(2),
            height=lambda: Dimension(min=1, max=max(1, self.size[1] // 3)),
            wrap_lines=True,
            dont_extend_height=True,
        )
        header = _row(lambda: bars.header(face.view, self.size[0], face.controller.settings.time_format))
        rule = _row(lambda: bars.rule(self.size[0], self._joint(), "┬"))
        divider = _row(lambda: bars.divider(face, self.size[0], self._joint(), self._hint_rows()), self._divider_rows)
        footer = _row(lambda: bars.footer(face, self.size[0], lists_rooms=not self._is_wide()))
        root = HSplit(
            [
                ConditionalContainer(header, Condition(lambda: self._spare_rows() > 1)),
                ConditionalContainer(rule, Condition(self._is_ruled)),
                VSplit([with_card(self._pane_window, face), ConditionalContainer(side, Condition(self._is_wide))]),
                ConditionalContainer(divider, Condition(self._is_divided)),
                VSplit([Window(FormattedTextControl("> "), width=2, dont_extend_height=True), typing]),
                ConditionalContainer(footer, Condition(self._is_footed)),
            ]
        )
        menu = ConditionalContainer(_Menu(max_height=8), Condition(lambda: face.input.text != face.refused))
        return Layout(
            FloatContainer(root, [Float(menu, xcursor=True, ycursor=True), face.panel.float]), focused_element=typing
        )

    def _rest(self, taken: int) -> Dimension:
        """All columns but those. Said outright, since prompt_toolkit hands them out one by one at each redraw."""
        return Dimension.exact(max(self.size[0] - taken, 0))

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        size = self.output.get_size()
        return size.columns, size.rows

    def _spare_rows(self) -> int:
        """Rows besides the input and the divider, which a small screen shows first."""
        return self.size[1] - 1 - (self._divider_rows() if self._is_divided() else 0)

    @property
    def hint_room(self) -> int:
        """How many columns a line above the input may have, over several rows."""
        return self.size[0] * self._hint_rows()

    def _hint_rows(self) -> int:
        return max(1, min(_HINT_ROWS, self.size[1] // 3))

    def _divider_rows(self) -> int:
        text = self.face.line_above_input()
        return max(1, min(self._hint_rows(), len(wrap(sanitize(text, lines=False), max(self.size[0], 2)))))

    def _is_divided(self) -> bool:
        return self.size[1] >= _DIVIDED_FROM or (bool(self.face.line_above_input()) and self.size[1] > 1)

    def _is_ruled(self) -> bool:
        return self.size[1] >= _RULED_FROM

    def _is_footed(self) -> bool:
        """Whether there is a footer: on few rows only while there is work to tell of."""
        return self._spare_rows() > (1 if self.face.view.progress is not None else 4)

    def _rows_besides(self) -> int:
        """Rows that the side bar does not have, if the input has one."""
        return self._is_ruled() + self._is_divided() + 3

    def _joint(self) -> int | None:
        """The column of the line beside the side bar."""
        return self.size[0] - SIDE_BAR - 1 if self._is_wide() else None

    def _is_wide(self) -> bool:
        bar = self.face.controller.settings.side_bar
        return bar == "always" or (bar == "auto" and self.size[0] >= _SIDE_BAR_FROM)


def _keyboard() -> Keyboard | None:
    """Return standard input if prompt_toolkit would read a terminal from it."""
    return Keyboard(sys.stdin) if type(get_app_session().input) is Vt100Input and sys.stdin.isatty() else None


def _row(text: Callable[[], StyleAndTextTuples], height: int | Callable[[], int] = 1) -> Window:
    return Window(FormattedTextControl(text), height=height)


class _Menu(Covering, CompletionsMenu):
    """The menu of completions, above the input. Below there is the footer, which a menu of one row would cover."""

    def preferred_height(self, width: int, max_available_height: int) -> Dimension:
        wanted = super().preferred_height(width, max_available_height)
        return Dimension.exact(2) if wanted.preferred == 1 and max_available_height > 1 else wanted

    def write_to_screen(
        self, screen: Screen, mouse_handlers: MouseHandlers, write_position: WritePosition, *given: Any
    ) -> None:
        place = write_position
        spare = place.height - super().preferred_height(place.width, place.height).preferred
        if spare > 0:  # the row that it asked for only in order to stand above
            place = WritePosition(place.xpos, place.ypos + spare, place.width, place.height - spare)
        super().write_to_screen(screen, mouse_handlers, place, *given)
