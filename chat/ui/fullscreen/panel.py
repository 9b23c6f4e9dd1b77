"""The panel over the conversation: help, lists, details, and the palette (Ctrl+K).

     ╭─ Help ─────────────────── 3 of 96 · Escape ─╮
     │ TALK                                        │     a list scrolls; in the palette a row is chosen and done
     │ /reply, Alt+R   answer the selected message │
     │ > rep█                                      │     what is typed narrows the rows
     ╰─────────────────────────────────────────────╯

Rules:

1. It lies over the conversation, which goes on beneath; nothing counts as read while it is covered.
2. What is typed narrows the rows, and nothing else: the draft in the input stays as it is.
3. Whatever closes it leaves the screen as it was. A small screen is covered whole, without a frame.
4. Its rows may hold peers' text: they are sanitized and sealed, and no style is made of them.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    ConditionalContainer,
    Float,
    FormattedTextControl,
    HSplit,
    VSplit,
    Window,
)
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.mouse_events import MouseEventType

from chat.i18n import _
from chat.ui.commands import essentials, help_groups, span
from chat.ui.fullscreen.composer import AsShown, Control
from chat.ui.fullscreen.wrapping import clean, clip, columns, sanitize, sealed, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyPressEvent
    from prompt_toolkit.key_binding.key_bindings import NotImplementedOrNone
    from prompt_toolkit.layout.containers import AnyContainer
    from prompt_toolkit.layout.mouse_handlers import MouseHandlers
    from prompt_toolkit.layout.screen import Screen, WritePosition
    from prompt_toolkit.mouse_events import MouseEvent

    from chat.local.keys import Key
    from chat.ui.fullscreen.face import FullScreen

_WIDEST: Final = 100  # columns of the frame
_FRAMED_FROM: Final = (40, 12)  # columns and rows of the screen; a smaller one is covered whole
_TWO_FROM: Final = 66  # columns of the rows: on fewer, what would stand side by side stands in one column
_LEFT: Final = 34  # columns of the left half of a row, at most
_WHEEL: Final = {MouseEventType.SCROLL_UP: -3, MouseEventType.SCROLL_DOWN: 3}  # rows
_ABOVE_MENU: Final = 10**9  # prompt_toolkit draws the menu of completions at 10**8
_CLOSING: Final = ("stop", "help", "switcher")  # the actions whose keys close it, too
_FILTER: Final = 200  # characters of what narrows the rows; more is cut


class Row(NamedTuple):
    """A row: two halves, or one. ``does`` is done when it is chosen; a row without ``text`` and ``about`` is empty.

    ``also``: more words by which it is found. A ``minor`` row stands below others that fit as well.
    """

    text: str
    about: str = ""
    does: Callable[[], object] | None = None
    is_heading: bool = False
    beside: Row | None = None  # in the right half of the panel, where it is wide enough for two
    also: str = ""
    minor: bool = False

    @property
    def words(self) -> str:
        """What is looked through for what is typed."""
        return f"{self.text} {self.about} {self.also}".casefold()


class Panel:
    """A list of rows, or a choice among them; closed until ``open``."""

    def __init__(self, face: FullScreen) -> None:
        self._face = face
        self.is_open = False
        self._title = self._hint = ""
        self._rows: Sequence[Row] = ()
        self._searched: Sequence[Row] = ()  # instead of these once something is typed
        self._chooses = False
        self._top = 0  # the first row in view
        self._chosen = 0
        self._columns, self._height = 1, 1  # of the rows in view
        self._is_framed = True
        self._drawn_rows: list[StyleAndTextTuples] = []  # as of this redraw
        self.filter: Final = Buffer(multiline=False, on_text_changed=lambda _buffer: self._filtered())
        self.control: Final = Control(self.filter, input_processors=[AsShown()], key_bindings=self._keys())
        self.float: Final = Float(
            ConditionalContainer(self._layout(), Condition(lambda: self.is_open)),
            transparent=False,
            z_index=2,
        )

    # -- opening and closing ---------------------------------------------------------------------

    def open(
        self, title: str, rows: Sequence[Row], *, searched: Sequence[Row] = (), chooses: bool = False, hint: str = ""
    ) -> None:
        """Show rows. ``searched``: those to look through once something is typed, if they are others."""
        self._title, self._rows, self._searched, self._chooses = title, rows, searched or rows, chooses
        self._hint = hint or _("type to filter")
        self.filter.document = Document()
        self._filtered()
        self.is_open = True
        self._face.app.layout.focus(self.control)
        self._face.app.invalidate()

    def show_help(self, keys: Sequence[Key]) -> None:
        """Show what newcomers look for; typing searches everything."""
        first, second, third, fourth = (
            [Row(title, is_heading=True), *(Row(*row) for row in rows)] for title, rows in essentials(keys)
        )
        left, right = [*first, Row(""), *third], [*second, Row(""), *fourth]
        rows = [one._replace(beside=other) for one, other in zip_longest(left, right, fillvalue=Row(""))]
        everything = [
            row
            for title, found in help_groups(keys)
            for row in (Row(title, is_heading=True), *(Row(left, right, also=also) for left, right, also in found))
        ]
        count = sum(not row.is_heading for row in everything)
        self.open(_("Help"), rows, searched=everything, hint=_("type to search all {count}").format(count=count))

    @property
    def columns(self) -> int:
        """How many columns a row has."""
        width, height = self._face.app.size
        framed = width >= _FRAMED_FROM[0] and height >= _FRAMED_FROM[1]
        return min(width, _WIDEST) - 4 if framed else width

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._face.app.layout.focus(self._face.composer.control)
            self._face.app.invalidate()

    def _filtered(self) -> None:
        self._top = self._chosen = 0

    # -- rows ------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Return the rows that what is typed leaves; a heading stays if a row below it does."""
        wanted = self.filter.text[:_FILTER].casefold().split()
        if not wanted:
            return list(self._rows)
        if self._chooses:
            ranked = [(rank, at) for at, row in enumerate(self._searched) if (rank := _rank(wanted, row)) is not None]
            return [self._searched[at] for _rank_, at in sorted(ranked)]
        found: list[Row] = []
        for row in self._searched:
            if row.is_heading or all(word in row.words for word in wanted):
                while row.is_heading and found and found[-1].is_heading:
                    found.pop()
                found.append(row)
        while found and found[-1].is_heading:
            found.pop()
        return found

    def _drawn(self) -> list[StyleAndTextTuples]:
        """Return the lines of all rows, as wide as the panel."""
        width, rows = self._columns, self.rows()
        if width < _TWO_FROM:
            rows = _in_one_column(rows)
        left = min(_LEFT, max((columns(row.text) for row in rows if row.about), default=0), max(width // 2, 1))
        lines: list[StyleAndTextTuples] = []
        for at, row in enumerate(rows):
            if row.beside is not None:
                lines.append([*_half(row, width // 2), *_half(row.beside, width - width // 2)])
                continue
            style = "class:panel-selected" if self._chooses and at == self._chosen else ""
            if row.is_heading:
                lines += [[]] if lines else []
                lines.append([("class:heading", clip(row.text, width))])
            elif row.about and (self._chooses or width >= left + 20):
                text = clip(row.text, left)
                first: StyleAndTextTuples = [(style or "class:key", text + " " * (left - columns(text)))]
                room = max(width - left - 2, 2)
                about = [clip(row.about, room)] if self._chooses else wrap(sanitize(row.about, lines=False), room)
                for part in about:
                    rest = " " * (width - left - 2 - columns(part)) if style else ""
                    lines.append([*first, (style, f"  {part}{rest}")])
                    first = [(style, " " * left)]
            else:
                for part in wrap(sanitize(f"{row.text}  {row.about}".rstrip(), lines=False), max(width, 2)):
                    lines.append([(style, part + (" " * (width - columns(part)) if style else ""))])
        return lines

    def _lines(self) -> StyleAndTextTuples:
        """Return the lines in view."""
        lines = self._drawn_rows
        if not lines and self.filter.text:
            lines = [[("class:faint", clip(_("nothing here contains that"), self._columns))]]
        if self._chooses:
            self._top = min(max(self._top, self._chosen - self._height + 1), self._chosen)
        self._top = max(0, min(self._top, len(lines) - self._height))
        shown = lines[self._top : self._top + self._height]
        return [part for line in shown for part in (*sealed(line or [("", "")], self._columns), ("", "\n"))]

    # -- drawing ---------------------------------------------------------------------------------

    def place(self, width: int, height: int) -> None:
        """Take its place on a screen of this size, if it is open. Called before each redraw."""
        if not self.is_open:
            return
        self._is_framed = width >= _FRAMED_FROM[0] and height >= _FRAMED_FROM[1]
        self._columns = self.columns
        self._drawn_rows = self._drawn()
        if self._is_framed:
            self._height = max(1, min(len(self._drawn_rows) or 1, height - 8))
            self.float.left = (width - self._columns - 4) // 2
            self.float.top = 2
            self.float.width, self.float.height = self._columns + 4, self._height + 3
        else:
            self._height = max(height - 1, 1)
            self.float.left = self.float.top = 0
            self.float.width, self.float.height = width, height

    def _layout(self) -> AnyContainer:
        framed = Condition(lambda: self._is_framed)

        def edge(text: str) -> ConditionalContainer:
            return ConditionalContainer(Window(FormattedTextControl(text), width=2, style="class:rule"), framed)

        def side(text: str) -> ConditionalContainer:
            def rows() -> StyleAndTextTuples:
                return [("class:rule", "\n".join([text] * self._height))]

            return ConditionalContainer(Window(FormattedTextControl(rows), width=2), framed)

        rows = Window(_Rows(self), width=lambda: self._columns)
        prompt = FormattedTextControl(lambda: [("class:accent", "> ")])
        return _Frame(
            [
                ConditionalContainer(Window(FormattedTextControl(self._top_edge), height=1), framed),
                VSplit([side("│ "), rows, side(" │")]),
                VSplit(
                    [edge("│ "), Window(prompt, width=2), Window(self.control, height=1), edge(" │")],
                    height=1,
                ),
                ConditionalContainer(Window(FormattedTextControl(self._bottom_edge), height=1), framed),
            ],
            style="class:panel",
        )

    def _top_edge(self) -> StyleAndTextTuples:
        width = self._columns + 4
        title = clip(self._title, width - 8)
        hint = f"{self._hint} · {self._face.key('stop')}"
        if columns(title) + columns(hint) + 10 > width:
            hint = ""
        end = f" {hint} ─╮" if hint else "─╮"
        line = "─" * (width - 4 - columns(title) - columns(end))
        return [
            ("class:rule", "╭─ "),
            ("class:panel-title", title),
            ("class:rule", f" {line}"),
            ("class:rule", end),
        ]

    def _bottom_edge(self) -> StyleAndTextTuples:
        return [("class:rule", "╰" + "─" * (self._columns + 2) + "╯")]

    # -- keys ------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def bind(does: Callable[[], object], *names: str) -> None:
            for name in names:
                keys.add(name)(lambda _event: does())

        bind(self.close, "escape", "c-c", "c-d")
        keys.add("escape", "enter")(lambda _event: self.close())  # else its Enter would send the draft
        for row in self._face.keys:
            if row.action in _CLOSING:
                for sequence in row.sequences:
                    keys.add(*sequence)(lambda _event: self.close())
        bind(self._enter, "enter")
        bind(partial(self.move, -1), "up", "c-p")
        bind(partial(self.move, 1), "down", "c-n")
        bind(lambda: self.move(-self._height), "pageup")
        bind(lambda: self.move(self._height), "pagedown")

        @keys.add(Keys.BracketedPaste)
        def _paste(event: KeyPressEvent) -> None:
            self.filter.insert_text(re.sub(r"\s+", " ", clean(event.data))[:_FILTER])

        return keys

    def move(self, by: int) -> None:
        """Choose a row further down, or up; scroll a list."""
        if self._chooses:
            self._chosen = max(0, min(self._chosen + by, len(self.rows()) - 1))
        else:
            self._top = max(0, self._top + by)  # ``_lines`` knows the end

    def _enter(self) -> None:
        rows = self.rows()
        chosen = rows[self._chosen] if self._chooses and self._chosen < len(rows) else None
        self.close()
        if chosen is not None and chosen.does is not None:
            chosen.does()


class Covering:
    """Over other text: blanks the halves of wide characters left at its edges, or a terminal would shift what follows.

    To be mixed into a container.
    """

    def write_to_screen(
        self, screen: Screen, mouse_handlers: MouseHandlers, write_position: WritePosition, *given: Any
    ) -> None:
        super().write_to_screen(screen, mouse_handlers, write_position, *given)  # type: ignore[misc]
        rows = range(write_position.ypos, write_position.ypos + write_position.height)
        screen.draw_with_z_index(_ABOVE_MENU, partial(_blank_halves, screen, rows))


def _blank_halves(screen: Screen, rows: range) -> None:
    for row in (screen.data_buffer[y] for y in rows):
        for x in range(max(row, default=0)):
            if row[x].width > 1 and row[x + 1].char:
                row[x] = Char(" ", row[x].style)
            elif row[x].width == 1 and not row[x + 1].char:
                row[x + 1] = Char(" ", row[x + 1].style)


class _Frame(Covering, HSplit):
    pass


class _Rows(FormattedTextControl):
    """The rows in view; the wheel moves them."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel._lines)
        self._panel = panel

    def mouse_handler(self, mouse_event: MouseEvent) -> NotImplementedOrNone:
        if rows := _WHEEL.get(mouse_event.event_type, 0):
            self._panel.move(rows)
            return None
        return NotImplemented


def _in_one_column(rows: list[Row]) -> list[Row]:
    """Return rows with what stood beside them below; headings keep their distance by themselves."""
    beside = [row.beside for row in rows if row.beside is not None]
    return [row for row in (*(row._replace(beside=None) for row in rows), *beside) if row.text] if beside else rows


def _half(row: Row, width: int) -> StyleAndTextTuples:
    """Return a row for one half of the panel, filled up to its width."""
    text = clip(row.text, width - 1)
    if row.is_heading:
        return [("class:heading", text + " " * (width - columns(text)))]
    left = max(width // 2 - 3, 1)
    text = clip(row.text, left)
    about = clip(row.about, width - left - 2)
    rest = width - left - 1 - columns(about)
    return [("class:key", text + " " * (left + 1 - columns(text))), ("", about + " " * rest)]


def _rank(wanted: Sequence[str], row: Row) -> tuple[int, ...] | None:
    """Return how well a row fits, lower is better; None if it does not.

    The letters of a word may be apart in the row's own text, but not in what is said of it: there most words would fit.
    """
    spans = [span(word, row.text.casefold()) for word in wanted]
    found = [span for span in spans if span is not None]
    spread = sum(end - begin for begin, end in found) - sum(map(len, wanted))
    if len(found) == len(spans):
        return spread > 0, row.minor, 0, spread, sum(begin for begin, _end in found)
    if all(word in row.words for word in wanted):
        begun = all(any(part.startswith(word) for part in row.words.split()) for word in wanted)
        return 0, row.minor, 1 if begun else 2, 0, 0
    return None
