"""The message pane: entries of a timeline as lines, cut into rows when they come into view.

     timeline ─▶ Conversation ─▶ Line 41 │ Line 42 │ ... │ Line 10040 │ pending messages
                                               ▲ top = (42, 3): the fourth row of its text is the first on the screen;
                                                 None if the pane follows the end

Rules:

1. Texts go in as they came. What reaches the screen is sanitized, and no style is made of it.
2. A line is wrapped when it comes into view, and cached. A member may send 16 KiB of line breaks, so the cache is
   bounded in rows, each line counted as a few more. Its key is everything that the line says: a line that changes is
   wrapped anew, without anybody having to invalidate it.
3. Scrolled up, the pane is anchored on a row of a text: it does not move when lines are added below or above.
4. A redraw costs what is in view, however long the history is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from prompt_toolkit.layout.controls import UIContent, UIControl
from prompt_toolkit.mouse_events import MouseEventType

from chat.ui.fullscreen.layout import Line, Wrapped, body, lay, margin
from chat.ui.fullscreen.wrapping import columns, sanitize, sealed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row
    from prompt_toolkit.key_binding.key_bindings import NotImplementedOrNone
    from prompt_toolkit.mouse_events import MouseEvent

    from chat.ui.fullscreen.conversation import Conversation

_MAX_ROWS: Final = 20_000  # in the cache
_WHEEL: Final = {MouseEventType.SCROLL_UP: -3, MouseEventType.SCROLL_DOWN: 3}  # rows


class Pane(UIControl):
    """Shows the newest lines of a conversation, or those that the reader has scrolled up to.

    ``delimiters``: whether to show those of markdown, for terminals that cannot show what they mean.
    """

    def __init__(self, conversation: Conversation, *, delimiters: bool = False) -> None:
        self.hit = ""  # what is searched for: highlighted wherever it is in view, in any case
        self.at_top = False  # the reader has scrolled up to the very first row, or tried to go further
        self._conversation: Final = conversation
        self.timeline: Final = conversation.timeline
        self._delimiters = delimiters
        # The first row on the screen: a line's number, and which row, counted from the begin of its text. Rows above
        # the text are negative: they may vanish (a new day, when older lines are put in front), and the text stays.
        self.top: tuple[int, int] | None = None
        self._selected: int | None = None
        self.in_view = (0, -1)  # the numbers of the first and the last line on the screen; (0, -1) if there is none
        self._passed: tuple[int, int] | None = None  # the first and the last number scrolled over since ``passed``
        self.width = self._height = 1
        self._renumbered = self.timeline.renumbered
        self._cache: dict[Line, Wrapped] = {}  # the least recently used first
        self._cached_rows = 0

    @property
    def _numbers(self) -> range:
        return range(self.timeline.first, self.timeline.last)

    # -- where the reader is ------------------------------------------------------------------------

    @property
    def following(self) -> bool:
        """Whether the end is in view, and stays there."""
        return self.top is None and self.timeline.attached

    def passed(self) -> range:
        """Return the numbers of the lines scrolled over since the last call, drawn or not."""
        low, high = self._passed or (0, -1)
        self._passed = None
        return range(low, high + 1)

    def follow(self) -> None:
        """Go to the end, and stay there. What was unfolded is folded again."""
        self.top = None
        self.deselect()

    def scroll(self, pages: int) -> None:
        """Scroll down by pages that overlap by a row, or up."""
        self.scroll_rows(pages * max(self._height - 1, 1))

    def scroll_rows(self, rows: int) -> None:
        """Scroll down by rows, or up."""
        number, row = self._begin()
        place = self._back(number, row, -rows) if rows < 0 else self._forth(number, row, rows)
        self.at_top = rows < 0 and place <= (self.timeline.first, 0)
        low, high = self._passed or (number, number)
        self._passed = (min(low, place[0]), max(high, place[0]))
        self._hold(*place)

    def succeed(self, other: Pane) -> None:
        """Take the size, the column of names and the highlighting of the pane that was drawn here before."""
        self._resize(other.width, other._height)
        self._conversation.widest = max(self._conversation.widest, other._conversation.widest)
        self.hit = other.hit

    def take_over(self, other: Pane, shift: int) -> None:
        """Go where another pane is. It has the same lines, under numbers lower by ``shift``."""
        self.in_view = (other.in_view[0] + shift, other.in_view[1] + shift)
        self.top = None if other.top is None else (other.top[0] + shift, other.top[1])
        self.selected = None if other.selected is None else other.selected + shift

    def jump(self, number: int | None, *, unfold: bool = False) -> bool:
        """Bring a line into view, a third of the way down. False if there is no such line."""
        if number is None or number not in self._numbers:
            return False
        if unfold:
            self._conversation.unfold(number)
        self._begin()
        self._hold(*self._back(number, 0, self._height // 3))
        return True

    # -- selection -------------------------------------------------------------------------------

    @property
    def selected(self) -> int | None:
        """The number of the selected line; None once it was evicted from the timeline."""
        number = self._selected  # to look for None in a range takes as long as to look at all of it
        return number if number is not None and number in self._numbers else None

    @selected.setter
    def selected(self, number: int | None) -> None:
        self._selected = number

    def deselect(self) -> None:
        """Select nothing, and fold what was unfolded. The rows above stay in place."""
        self._selected = None
        self._conversation.fold()

    def select(self, by: int) -> int | None:
        """Select the next message below, or above if ``by`` is negative; at first the last one in view.

        Bring it into view and return its number, None if there is nothing to select. If there is no further one, the
        selection stays. The pane does not follow the end until ``follow``.
        """
        step = 1 if by > 0 else -1
        number = self.selected
        if number is None:
            number, step = self.in_view[1] + 1, -1
        number += step
        while number in self._numbers and not self._conversation.selectable(number):
            number += step
        if number in self._numbers:
            self.selected = number
        if (chosen := self.selected) is not None:  # scroll as little as shows it, or its begin if it is too large
            lowest = self._back(chosen + 1, 0, self._height)  # the screen must begin here or below
            self._hold(*min(max(self._begin(), lowest), (chosen, 0)))
        return chosen

    def unfold(self) -> None:
        """Show all of the selected message, or of the last one in view that is folded; fold the selected one again.

        The rows above it stay in place.
        """
        first, last = self.in_view
        chosen, selectable = self.selected, self._conversation.selectable
        if chosen is None:
            in_view = range(last, first - 1, -1)
            chosen = next((number for number in in_view if self._lay(number).folded and selectable(number)), None)
        if chosen is not None and selectable(chosen):
            self._begin()
            self._conversation.unfold(chosen, toggle=True)
            self.selected = chosen

    # -- drawing ---------------------------------------------------------------------------------

    def create_content(self, width: int, height: int) -> UIContent:
        """Return the rows in view. Called by prompt_toolkit for each redraw."""
        self._resize(width, height)
        if self._renumbered != self.timeline.renumbered:
            self._renumbered = self.timeline.renumbered
            self.follow()
        page, widest = None, 0
        while page is None or widest != self._conversation.widest:  # a name widens its column: all else moves
            widest = self._conversation.widest
            page = self._page(*self._top())
        page = [[] for _row in range(height - len(page))] + page  # the newest line is next to the input
        return UIContent(get_line=page.__getitem__, line_count=len(page), show_cursor=False)

    def _top(self) -> tuple[int, int]:
        """Return the first row to draw: where the reader is, or as far up as the end asks for."""
        last = self._back(self.timeline.last, 0, self._height)
        if self.top is None:
            return last
        top = min(self._place(), last)
        if top == last and self.selected is None and self.timeline.attached:
            self.follow()
            return self._back(self.timeline.last, 0, self._height)
        self._hold(*top)
        return top

    def _resize(self, width: int, height: int) -> None:
        if width != self.width:
            self._cache.clear()
            self._cached_rows = 0
        self.width, self._height = width, height

    def mouse_handler(self, mouse_event: MouseEvent) -> NotImplementedOrNone:
        """Scroll by the wheel, if the mouse is on."""
        rows = _WHEEL.get(mouse_event.event_type, 0)
        if not rows:
            return NotImplemented
        self.scroll_rows(rows)
        return None

    def _begin(self) -> tuple[int, int]:
        """Return the first row on the screen, and stop following."""
        if self.top is None:
            self._hold(*self._back(self.timeline.last, 0, self._height))
        return self._place()

    def _hold(self, number: int, row: int) -> None:
        above = self._lay(number).above if number in self._numbers else 0
        self.top = (number, row - above)

    def _place(self) -> tuple[int, int]:
        """Return the row that the pane is anchored on: the line's number, and which of its rows."""
        assert self.top is not None
        number, row = self.top
        if number < self.timeline.first:
            return self.timeline.first, 0
        if number >= self.timeline.last:
            return self.timeline.last, 0
        above = self._lay(number).above
        return self._back(number, above, -row) if row < 0 else (number, min(row + above, self._size(number) - 1))

    def _lay(self, number: int) -> Wrapped:
        return self._rows(self._conversation.line(number))

    def _rows(self, line: Line) -> Wrapped:
        wrapped = self._cache.pop(line, None)
        if wrapped is None:
            wrapped = lay(line, self.width, delimiters=self._delimiters)
            self._cached_rows += wrapped.size
        self._cache[line] = wrapped
        while self._cached_rows > _MAX_ROWS and len(self._cache) > 1:
            self._cached_rows -= self._cache.pop(next(iter(self._cache))).size
        return wrapped

    def _size(self, number: int) -> int:
        return len(self._lay(number).texts)

    def _page(self, number: int, row: int) -> list[Row]:
        page: list[Row] = []
        first = number
        wanted = sanitize(self.hit)  # an emoji may show as something else
        hit = re.compile(re.escape(wanted), re.IGNORECASE) if wanted else None
        while len(page) < self._height and number < self.timeline.last:
            line = self._conversation.line(number)
            wrapped = self._rows(line)
            self._conversation.meet(line)
            stop = min(len(wrapped.texts), row + self._height - len(page))
            for at in range(row, stop):
                text = body(line, wrapped, at)
                left = margin(line, wrapped, at, topmost=not page)  # what shows above cannot be seen
                drawn = sealed([*left, *(_highlighted(text, hit) if hit else text)], self.width)
                is_selected = number == self.selected and at >= wrapped.above
                page.append(_selected(drawn, self.width) if is_selected else drawn)
            number, row = number + 1, 0
        self.in_view = (first, number - 1) if page else (0, -1)
        return page

    def _back(self, number: int, row: int, count: int) -> tuple[int, int]:
        """Return the row ``count`` rows above this one, or the very first."""
        while count > row and number > self.timeline.first:
            count -= row
            number -= 1
            row = self._size(number)
        return number, max(row - count, 0)

    def _forth(self, number: int, row: int, count: int) -> tuple[int, int]:
        while number < self.timeline.last and count >= self._size(number) - row:
            count -= self._size(number) - row
            number, row = number + 1, 0
        return number, row + count if number < self.timeline.last else 0


def _highlighted(row: Row, hit: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """A hit may begin in one style and end in another, as in code."""
    text = "".join(part for _style, part, *_more in row)
    bounds = [at for match in hit.finditer(text) for at in match.span()]
    at = 0
    for style, part, *_more in row:
        inner = bounds[bisect_right(bounds, at) : bisect_right(bounds, at + len(part) - 1)]
        for start, stop in pairwise((at, *inner, at + len(part))):
            if start < stop:
                is_hit = bisect_right(bounds, start) % 2
                yield (f"{style} class:hit".lstrip() if is_hit else style), text[start:stop]
        at += len(part)


def _selected(row: Row, width: int) -> Row:
    """Return a row as a part of one block: in colours of their own, its parts would be patches in reverse video."""
    used = sum(columns(text) for _style, text, *_more in row)
    row = [*row, ("", " " * (width - used))]
    return [("class:selected class:hit" if "class:hit" in style else "class:selected", text) for style, text, *_ in row]
