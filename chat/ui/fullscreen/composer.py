"""The input of the full-screen face: a draft for each room, with its history and its paste to be confirmed.

    keys, pastes ─▶ BufferControl ─▶ Buffer of the current room ─▶ the owner sends its text
                                     Buffer of another room: its draft, its history, its paste

Rules:

1. A paste never submits, and lands in the room it was pasted in. A long one waits until it is confirmed.
2. Control characters do not get in, neither by a paste nor by the editor.
3. No text is lost: not by going to another room, not by an editor that fails.
4. Nothing here waits: completion looks at what is in memory. Links go on while an editor runs.

Left out: a terminal without bracketed paste (the Linux console) types a paste key by key, and its line breaks are
Enter. The two can only be told apart by guessing from time.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import BufferControl, UIContent
from prompt_toolkit.utils import get_cwidth

from chat.core.wire import MAX_TEXT
from chat.i18n import _, plural
from chat.local.private_files import make_private
from chat.ui.fullscreen.completer import BEGUN, Completer
from chat.ui.fullscreen.editor import EditorFailed, edit
from chat.ui.fullscreen.history import RoomHistory
from chat.ui.fullscreen.wrapping import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from prompt_toolkit.layout.processors import Processor

CONFIRM_LINES: Final = 20  # a paste of more is asked about
_COUNT_FROM: Final = 2048  # bytes that are left of a message when the counter begins to show them


class Paste(NamedTuple):
    """A paste that waits to be confirmed."""

    text: str

    @property
    def lines(self) -> int:
        return self.text.removesuffix("\n").count("\n") + 1


class _Rows(UIContent):
    """Counts the rows of a line as they are drawn.

    prompt_toolkit divides the line's columns by the window's. But a wide character that does not fit goes to the next
    row, and so does the cursor behind a full row: prompt_toolkit would look for the cursor one row too high.
    """

    def get_height_for_line(
        self, lineno: int, width: int, get_line_prefix: object = None, slice_stop: int | None = None
    ) -> int:
        text = fragment_list_to_text(self.get_line(lineno))
        if slice_stop is not None:
            text = text[: slice_stop + 1]  # with what is under the cursor
        if width < 1:
            return 10**8  # as prompt_toolkit has it
        rows, used = 1, 0
        for char in text:
            size = get_cwidth(char)
            if used + size > width:
                rows, used = rows + 1, 0
            used += size
        return rows


class _Control(BufferControl):
    def create_content(self, width: int, height: int, preview_search: bool = False) -> UIContent:
        made = super().create_content(width, height, preview_search)
        return _Rows(made.get_line, made.line_count, made.cursor_position, made.menu_position)


class _Draft:
    """What is being written in one room."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.pasted: Paste | None = None


class Composer:
    """The input. ``control`` goes into a ``Window``; call ``restore`` for the first room, too.

    ``sources`` and ``slow`` are those of ``Completer``; NICK and ROOM (without its #) also complete in messages.
    ``report`` shows the user one line. With ``folder``, histories are stored there.
    """

    def __init__(
        self,
        sources: Mapping[str, Callable[[], Iterable[str]]],
        report: Callable[[str], None],
        *,
        slow: Mapping[str, Callable[[], Iterable[str]]] | None = None,
        folder: Path | None = None,
        confirm_lines: int = CONFIRM_LINES,
        processors: list[Processor] | None = None,
    ) -> None:
        """``confirm_lines`` 0: every paste is accepted. Raises ChatError if the folder is not private."""
        self.confirm_lines = confirm_lines
        self.editing = False  # an editor has the terminal
        self._report = report
        self._folder = folder and make_private(folder)
        self._completer = Completer(sources, slow or {})
        self._drafts: dict[str, _Draft] = {}
        self._room = ""
        self.control: Final = _Control(self._draft("").buffer, input_processors=processors, key_bindings=self._keys())

    # -- rooms -----------------------------------------------------------------------------------

    @property
    def buffer(self) -> Buffer:
        """The buffer of the current room. Call its ``reset(append_to_history=True)`` after sending."""
        return self.control.buffer

    def restore(self, room: str) -> None:
        """Go to a room, with its draft in the input.

        ``room`` must name it for ever: the file of its history is called after the hash of it.
        """
        self.buffer.cancel_completion()
        self._room = room
        self.control.buffer = self._draft(room).buffer

    def forget(self, room: str) -> None:
        """Drop the draft of a room that was left, but not the current one. Its history stays on disk."""
        self._drafts.pop(room, None)

    def give_back(self, text: str, room: str) -> None:
        """Put back a text that could not be sent, above what was typed since."""
        buffer = self._draft(room).buffer
        buffer.document = Document("\n".join(filter(None, (text, buffer.text))))

    def offer(self, text: str, room: str, *, busy: bool = False) -> None:
        """Put a text that was rejected into the input; if that is in use, Up brings it back later.

        ``busy``: what is typed now answers or corrects a message.
        """
        buffer = self._draft(room).buffer
        if busy or buffer.text:
            with _off_disk(buffer) as history:
                history.append_string(clean(text))
        else:
            buffer.document = Document(clean(text))

    def clear(self) -> None:
        """Empty the input. Up brings the text back, but only in this window: it was not sent."""
        with _off_disk(self.buffer):
            self.buffer.reset(append_to_history=True)

    def _draft(self, room: str) -> _Draft:
        if room not in self._drafts:
            name = hashlib.sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            history = RoomHistory(self._folder / name if self._folder else None, self._report)
            while_typing = Condition(lambda: bool(BEGUN.search(self.buffer.document.text_before_cursor[-256:])))
            buffer = Buffer(
                multiline=True, history=history, completer=self._completer, complete_while_typing=while_typing
            )
            self._drafts[room] = _Draft(buffer)
        return self._drafts[room]

    # -- pastes ----------------------------------------------------------------------------------

    def paste(self, text: str) -> None:
        """Put a paste into the input, or ask first, or report that it is too long. It joins one that waits."""
        draft = self._draft(self._room)
        text = (draft.pasted.text if draft.pasted else "") + clean(text)
        size, used = _size(text), _size(draft.buffer.text)
        pasted = Paste(text)
        if size + used > MAX_TEXT:
            message = _(
                "the paste was not taken: it is {size} bytes in {lines} lines, the input holds {used}, and a message"
                " takes {limit}. Paste it in parts"
            )
            self._report(message.format(size=size, lines=pasted.lines, used=used, limit=MAX_TEXT))
        elif 0 < self.confirm_lines < pasted.lines:
            draft.pasted = pasted
        else:
            draft.buffer.insert_text(text)

    @property
    def pasted(self) -> Paste | None:
        """The paste that waits to be confirmed: Enter accepts it, Escape and Ctrl+C discard it."""
        return self._draft(self._room).pasted

    @property
    def question(self) -> str:
        """The line that asks about the waiting paste, or ""."""
        if not self.pasted:
            return ""
        message = _("Enter puts it into the input, Escape drops it: {lines} lines are pasted, {size} bytes")
        return message.format(lines=self.pasted.lines, size=_size(self.pasted.text))

    def accept(self) -> None:
        """Put the waiting paste into the input, without sending it."""
        draft = self._draft(self._room)
        if draft.pasted:
            draft.buffer.insert_text(draft.pasted.text)
            draft.pasted = None

    def discard(self) -> None:
        """Drop the waiting paste."""
        self._draft(self._room).pasted = None

    @property
    def counter(self) -> str:
        """How much is left of a message's 16 KiB, or how much too long the text is; "" while there is plenty."""
        text = self.buffer.text
        if 4 * len(text) < MAX_TEXT - _COUNT_FROM:  # a character takes four bytes at most
            return ""
        left = MAX_TEXT - _size(text)
        if left > _COUNT_FROM:
            return ""
        if left < 0:
            return plural("{count} byte too long", "{count} bytes too long", -left).format(count=-left)
        return plural("{count} byte left", "{count} bytes left", left).format(count=left)

    def _keys(self) -> KeyBindings:
        """Return the control's own keys, which win over the owner's."""
        keys = KeyBindings()
        waits = Condition(lambda: self.pasted is not None)
        keys.add("<bracketed-paste>")(lambda event: self.paste(event.data))
        keys.add("enter", filter=waits)(lambda _event: self.accept())
        keys.add("escape", filter=waits)(lambda _event: self.discard())
        keys.add("c-c", filter=waits)(lambda _event: self.discard())
        # Ctrl+C in an editor reaches us too: the terminal sends SIGINT to all of its foreground.
        keys.add("<sigint>", filter=Condition(lambda: self.editing))(lambda _event: None)
        return keys

    async def edit(self) -> None:
        """Go on in an editor. If it fails, report that in one line and leave the input as it was.

        Run this in a background task of the application, so that the editor ends with the application.
        """
        if self.editing:
            return
        buffer = self.buffer
        self.editing = True
        try:
            text = await edit(buffer.text)
        except EditorFailed as error:
            self._report(str(error))
        else:
            buffer.document = Document(text)
        finally:
            self.editing = False


@contextmanager
def _off_disk(buffer: Buffer) -> Iterator[RoomHistory]:
    """Keep what joins the history meanwhile in this window."""
    history = buffer.history
    assert isinstance(history, RoomHistory)
    history.on_disk = False
    try:
        yield history
    finally:
        history.on_disk = True


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
