"""Writing to a terminal that may stop for a while (Ctrl+S, a frozen ssh), without stopping with it.

A terminal is shared with other programs and must stay in blocking mode, so a thread waits in write(2). Frames are
differences to the one before, so no frame is drawn before the last is written: the next one is then the newest.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from prompt_toolkit.application import get_app, in_terminal

from chat.ui.fullscreen.graphemes import spell_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# What a window tells of itself while it is ours: its title is put aside (XTWINOPS), and it reports when it has the
# focus. Not while another program has the terminal, which would read the reports as keys.
_BEGIN: Final = "\x1b[22;2t\x1b[?1004h"
_LEND: Final = "\x1b[?1004l"
_TAKE_BACK: Final = "\x1b[?1004h"
_END: Final = "\x1b[?1004l\x1b]2;\x07\x1b[23;2t"  # a terminal without a stack of titles has its own when it is empty
_AT_ONCE: Final = 0.002  # seconds in which a terminal that nothing is wrong with takes a frame


class Terminal:
    """Stands in for ``sys.stdout`` in prompt_toolkit's output. ``on_written`` is called in the event loop."""

    encoding = "utf-8"
    # Without fileno(): prompt_toolkit would change the terminal's mode while the thread writes.

    def __init__(self, fd: int, on_written: Callable[[], None]) -> None:
        self.is_behind = False  # the terminal has not taken all yet
        self._fd = fd
        self._on_written = on_written
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._written = asyncio.Event()
        self._error: OSError | None = None

    def begin(self) -> None:
        self.write(_BEGIN)

    def end(self) -> None:
        self.write(_END)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        with self._lock:
            self._data += spell_out(text).encode("utf-8", "replace")

    def flush(self) -> None:
        """Pass on what was written, waiting no longer than this usually takes. Raises what the last try met."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self.is_behind or not self._data:
                return
            self.is_behind = True
            self._idle.clear()
            # No daemon: a terminal that goes on only after we have ended must get what makes it as it was before.
            threading.Thread(target=self._write_all, name="writer of the terminal").start()
        self._idle.wait(_AT_ONCE)

    async def written(self) -> None:
        """Return when the terminal has taken all, or is gone."""
        while self.is_behind:
            self._written.clear()
            await self._written.wait()

    def _write_all(self) -> None:
        while True:
            with self._lock:
                data = bytes(self._data)
                self._data.clear()
                if self._error is not None or not data:
                    self.is_behind = False
                    break
            try:
                while data:
                    data = data[_write(self._fd, data) :]
            except OSError as error:
                self._error = error
        self._idle.set()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take_note)

    def _take_note(self) -> None:
        self._written.set()
        self._on_written()


def _write(fd: int, data: bytes) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:  # another program on this terminal has made it non-blocking
        select.select([], [fd], [])
        return 0


@asynccontextmanager
async def lent_terminal() -> AsyncIterator[None]:
    """Leave the terminal to another program, once it has taken all of ours."""
    async with in_terminal():
        terminal = getattr(get_app().output, "stdout", None)
        if isinstance(terminal, Terminal):
            terminal.write(_LEND)
            terminal.flush()
            await terminal.written()
        try:
            yield
        finally:
            if isinstance(terminal, Terminal):
                terminal.write(_TAKE_BACK)
