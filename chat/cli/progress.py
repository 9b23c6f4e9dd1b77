"""A progress bar for long jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final, Self

import click

from chat.i18n import _

if TYPE_CHECKING:
    from types import TracebackType

    from click._termui_impl import ProgressBar

_MOMENT: Final = 0.5  # seconds before the bar appears
_FRAME: Final = 0.1  # seconds between two updates
_REST: Final = 55  # columns of its line beside the bar: label, percent, remaining time, rate


class Progress:
    """A bar with a rate on standard error, once the work takes longer than a moment.

    Only if standard error is a terminal that can move its cursor, and standard output is not one: there the output
    itself shows progress, and a bar would get between its lines.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: ProgressBar[str] | None = None
        self._began = self._shown = time.monotonic()
        self._wanted = sys.stderr.isatty() and not sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.render_finish()  # show the cursor again, and end the bar's line

    def reached(self, done: int, of: int) -> None:
        """Report how much is done, of how much."""
        now = time.monotonic()
        if not self._wanted or now - self._began < _MOMENT or (now - self._shown < _FRAME and done < of):
            return
        self._shown = now
        if self._bar is None:
            width = min(max(os.get_terminal_size(sys.stderr.fileno()).columns - _REST, 5), 30)
            self._bar = click.progressbar(
                length=of, label=self._label, file=sys.stderr, width=width, item_show_func=lambda rate: rate
            )
            self._bar.start -= now - self._began
        rate = round(done / (now - self._began))
        self._bar.update(done - self._bar.pos, _("{rate} a second").format(rate=f"{rate:,}"))
