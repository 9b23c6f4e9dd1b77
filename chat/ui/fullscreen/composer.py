"""The input of the full-screen face: a draft for each room, with its history and its paste to be confirmed.

    keys, pastes ─▶ BufferControl ─▶ Buffer of the current room ─▶ the owner sends its text
                                     Buffer of another room: its draft, its history, its paste

Rules:

1. A paste never submits, and lands in the room it was pasted in. A long one waits until it is confirmed.
2. Control characters do not get in, neither by a paste nor by the editor.
3. No text is lost: not by going to another room, not by an editor that fails, not by the end of the window.
4. Nothing here waits: completion looks at what is in memory. Links go on while an editor runs.

Left out: a terminal without bracketed paste (the Linux console) types a paste key by key, and its line breaks are
Enter. The two can only be told apart by guessing from time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import unicodedata
from bisect import bisect_left
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import BufferControl, UIContent
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.utils import get_cwidth

from chat.core.errors import ChatError, reason
from chat.core.text import visible
from chat.core.wire import MAX_TEXT
from chat.i18n import _, plural, translate
from chat.local.invite import is_invite
from chat.local.private_files import make_private, replace_private
from chat.ui.fullscreen.completer import BEGUN, Completer
from chat.ui.fullscreen.drafts import DraftFile
from chat.ui.fullscreen.graphemes import fit, pieces
from chat.ui.fullscreen.terminal import lent_terminal
from chat.ui.fullscreen.wrapping import STRAY, between_graphemes, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_COUNT_FROM: Final = 2048  # bytes that are left of a message when the counter begins to show them
_MAX_HISTORY: Final = 256 * 1024  # bytes of a history that are read; its file is cut at twice the size
# bytes that an editor may leave behind; more is an error, and the input stays as it was
_MAX_EDITED: Final = 1024 * 1024


class RoomHistory(History):
    """What was sent in one room, in a file (0600) of JSON strings, one a line, the newest last.

    Without a file it lasts as long as this object. One append writes a line, so programs that share the file do not
    mix their lines. Invites are secrets: a text with one stays off the disk.
    """

    def __init__(self, file: Path | None, report: Callable[[str], None]) -> None:
        super().__init__()
        self._file = file
        self._report = report
        self._failed = False
        self._on_disk = True  # whether new texts go into the file

    def load_history_strings(self) -> Iterable[str]:
        """Yield the newest first. Called by prompt_toolkit, once."""
        if self._file is None:
            return
        try:
            with self._file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                opened.seek(max(0, size - _MAX_HISTORY))
                data = opened.read()
        except FileNotFoundError:
            return
        except OSError as error:
            self._fail(error)
            return
        if size > 2 * _MAX_HISTORY:
            data = data.partition(b"\n")[2]  # the first line has lost its beginning
            with suppress(OSError):  # else the next time
                os.close(replace_private(self._file, data))
        for line in reversed(data.splitlines()):
            with suppress(ValueError):  # a torn write, or somebody's edit
                entry = json.loads(line)
                if isinstance(entry, str):
                    yield clean(entry)

    def store_string(self, string: str) -> None:
        """Append a text that was sent. Called by prompt_toolkit."""
        if self._file is None or not self._on_disk or is_invite(string):
            return
        try:
            with open(self._file, "ab", buffering=0, opener=partial(os.open, mode=0o600)) as opened:
                opened.write(json.dumps(string).encode() + b"\n")
        except OSError as error:
            self._fail(error)

    def append_unsent(self, text: str) -> None:
        """Append a text for as long as this window lives."""
        if text and self.get_strings()[-1:] != [text]:
            self._on_disk = False
            self.append_string(text)
            self._on_disk = True

    def _fail(self, error: OSError) -> None:
        if not self._failed:  # once is enough
            self._failed = True
            message = _("the history of what you send is not kept: {reason}; mend that, and start again")
            self._report(message.format(reason=translate(reason(error))))


class Draft(Buffer):
    """What is being written in one room.

    Keys move over whole graphemes and delete whole ones: half a flag is another letter, and would be sent.
    """

    def __init__(self, sent: RoomHistory, file: DraftFile, completer: Completer) -> None:
        self.sent: Final = sent
        self.file: Final = file
        self.pasted = ""  # a paste that waits to be confirmed: Enter accepts it, Escape and Ctrl+C discard it
        while_typing = Condition(lambda: bool(BEGUN.search(self.document.text_before_cursor[-256:])))
        super().__init__(multiline=True, history=sent, completer=completer, complete_while_typing=while_typing)

    def reset(self, document: Document | None = None, append_to_history: bool = False) -> None:
        super().reset(document, append_to_history)
        self.file.keep(self.text)  # at once: what was sent must not come back

    @property
    def cursor_position(self) -> int:
        return super().cursor_position

    @cursor_position.setter
    def cursor_position(self, value: int) -> None:
        back = value < self.cursor_position
        vars(Buffer)["cursor_position"].__set__(self, between_graphemes(self.text, value, before=back))

    def delete_before_cursor(self, count: int = 1) -> str:
        at = self.cursor_position
        return super().delete_before_cursor(at - between_graphemes(self.text, at - count, before=True))

    def delete(self, count: int = 1) -> str:
        at = self.cursor_position
        return super().delete(between_graphemes(self.text, at + count, before=False) - at)


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


class Control(BufferControl):
    def create_content(self, width: int, height: int, preview_search: bool = False) -> UIContent:
        made = super().create_content(width, height, preview_search)
        return _Rows(made.get_line, made.line_count, made.cursor_position, made.menu_position)


class AsShown(Processor):
    """Shows the input as the pane will show the message, so that the cursor stands where the terminal has it."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        fragments = explode_text_fragments(transformation_input.fragments)
        text = fragment_list_to_text(fragments)
        stray = {match.start() for match in STRAY.finditer(text)}
        shown = [
            "" if at in stray else _as_typed(piece) if piece == text[at] else piece
            for at, piece in enumerate(pieces(text))
        ]
        kept = [at for at, piece in enumerate(shown) if piece]
        return Transformation(
            [(fragments[at][0], shown[at]) for at in kept],
            lambda at: bisect_left(kept, at),
            lambda at: kept[at] if at < len(kept) else len(text),
        )


class Composer:
    """The input. ``control`` goes into a ``Window``; call ``restore`` for the first room, too.

    ``sources`` and ``slow`` are those of ``Completer``. ``report`` shows the user one line. With ``folder``, histories
    are stored there.
    """

    def __init__(
        self,
        sources: Mapping[str, Callable[[], Iterable[str]]],
        report: Callable[[str], None],
        *,
        slow: Mapping[str, Callable[[], Iterable[str]]] | None = None,
        folder: Path | None = None,
        confirm_lines: int = 0,
    ) -> None:
        """A paste of more than ``confirm_lines`` is asked about; 0: none is.

        Raises ChatError if the folder is not private.
        """
        self.confirm_lines = confirm_lines
        self.editing = False  # an editor has the terminal
        self._report = report
        self._folder = folder and make_private(folder)
        self._completer = Completer(sources, slow or {})
        self._drafts: dict[str, Draft] = {}
        self.buffer = self._draft("")  # of the current room; ``reset(append_to_history=True)`` it after sending
        self.control: Final = Control(self.buffer, input_processors=[AsShown()], key_bindings=self._keys())

    # -- rooms -----------------------------------------------------------------------------------

    def restore(self, room: str) -> None:
        """Go to a room, with its draft in the input.

        ``room`` must name it for ever: the file of its history is called after the hash of it.
        """
        self.buffer.cancel_completion()
        self.buffer = self.control.buffer = self._draft(room)

    def forget(self, room: str) -> None:
        """Drop the draft of a room that was left, but not the current one. Its history stays on disk."""
        if (draft := self._drafts.pop(room, None)) is not None:
            draft.file.keep("")

    def keep_drafts(self) -> None:
        """Have on the disk what is being written."""
        for draft in self._drafts.values():
            draft.file.keep(draft.text)

    def close(self) -> None:
        """Leave the drafts to the next window."""
        for draft in self._drafts.values():
            draft.file.close()

    def give_back(self, text: str, room: str) -> None:
        """Put back a text that could not be sent, above what was typed since."""
        draft = self._draft(room)
        draft.document = Document("\n".join(filter(None, (text, draft.text))))

    def offer(self, text: str, room: str, *, busy: bool = False) -> None:
        """Put a text that was rejected into the input; if that is in use, Up brings it back later.

        ``busy``: what is typed now answers or corrects a message.
        """
        draft = self._draft(room)
        if busy or draft.text:
            draft.sent.append_unsent(clean(text))
        else:
            draft.document = Document(clean(text))

    def ask_for(self, command: str) -> None:
        """List the words that may stand behind a command."""
        self.buffer.document = Document(f"{command.rstrip()} ")
        self.buffer.start_completion()

    def clear(self) -> None:
        """Empty the input. Up brings the text back, but only in this window: it was not sent."""
        self.buffer.sent.append_unsent(self.buffer.text)
        self.buffer.reset()

    def _draft(self, room: str) -> Draft:
        if room not in self._drafts:
            name = hashlib.sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            history = RoomHistory(self._folder / name if self._folder else None, self._report)
            file = DraftFile(self._folder, name)
            draft = self._drafts[room] = Draft(history, file, self._completer)
            draft.document = Document(clean(file.take_over()))
        return self._drafts[room]

    # -- pastes ----------------------------------------------------------------------------------

    def paste(self, text: str) -> None:
        """Put a paste into the input, or ask first, or report that it is too long. It joins one that waits."""
        draft = self.buffer
        text = draft.pasted + clean(text)
        size, used, lines = _size(text), _size(draft.text), _lines(text)
        if size + used > MAX_TEXT:
            message = _(
                "the paste was not taken: it is {size} bytes in {lines} lines, the input holds {used}, and a message"
                " takes {limit}. Paste it in parts"
            )
            self._report(message.format(size=size, lines=lines, used=used, limit=MAX_TEXT))
        elif 0 < self.confirm_lines < lines:
            draft.pasted = text
        else:
            draft.pasted = ""
            draft.insert_text(text)

    @property
    def question(self) -> str:
        """The line that asks about the waiting paste, or ""."""
        if not (text := self.buffer.pasted):
            return ""
        message = _("Enter puts it into the input, Escape drops it: {lines} lines are pasted, {size} bytes")
        return message.format(lines=_lines(text), size=_size(text))

    def accept(self) -> None:
        """Put the waiting paste into the input, without sending it."""
        self.buffer.insert_text(self.buffer.pasted)
        self.discard()

    def discard(self) -> None:
        """Drop the waiting paste."""
        self.buffer.pasted = ""

    @property
    def counter(self) -> str:
        """How much is left of a message's 16 KiB, or how much too long the text is; "" while there is plenty."""
        text = self.buffer.text
        if 4 * len(text) < MAX_TEXT - _COUNT_FROM:  # a character takes four bytes at most
            return ""
        left = MAX_TEXT - _size(text)
        if left < 0:
            return plural("{count} byte too long", "{count} bytes too long", -left).format(count=-left)
        shown = left <= _COUNT_FROM
        return plural("{count} byte left", "{count} bytes left", left).format(count=left) if shown else ""

    def _keys(self) -> KeyBindings:
        """Return the control's own keys, which win over the owner's."""
        keys = KeyBindings()
        waits = Condition(lambda: bool(self.buffer.pasted))
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
            buffer.document = Document(await _edit(buffer.text))
        except ChatError as error:
            self._report(translate(error))
        finally:
            self.editing = False


@lru_cache(maxsize=4096)
def _as_typed(char: str) -> str:
    """Return one character of the input as it may stand on the screen, "" for one that nobody would see.

    A quote or a paste was a peer's text. One character for one: prompt_toolkit would show ^[ and <9b>, and count
    none of their columns.
    """
    if char in "\u200c\u200d\ufe0f":
        return char  # see STRAY
    if unicodedata.category(char) == "Cc":
        return " " if char == "\t" else visible(char)[-1] if char < "\x80" else "\ufffd"
    return fit(visible("x" + char, lines=False)[1:])


async def _edit(text: str) -> str:
    """Return the text as $VISUAL or $EDITOR leaves it; the editor has the terminal meanwhile. Raises ChatError.

    The text passes through a file (0600) in a folder of its own (0700), which is removed afterwards.
    """
    try:
        words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    except ValueError as error:
        raise ChatError("$VISUAL or $EDITOR cannot be read: {error}", error=error) from None
    if not words:
        raise ChatError("no editor is set; set VISUAL or EDITOR before you start, as in: export EDITOR=nano")
    name = visible(words[0], lines=False)
    try:
        with TemporaryDirectory(prefix="chat-") as folder:
            file = Path(folder) / "message.md"
            file.touch(0o600)
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
            async with lent_terminal():
                code = await _run([*words, str(file)])
            if code:
                text = "the editor {name} failed with code {code}; the input is as it was"
                raise ChatError(text, name=name, code=code)
            size = file.stat().st_size
            if size > _MAX_EDITED:
                text = "the editor's text is {size} bytes long, a message takes {limit}; the input is as it was"
                raise ChatError(text, size=size, limit=MAX_TEXT)
            return clean(file.read_text("utf-8", "surrogateescape")).removesuffix("\n")
    except OSError as error:
        text = "cannot use the editor {name}: {reason}; the input is as it was"
        raise ChatError(text, name=name, reason=reason(error)) from None


async def _run(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    ended = asyncio.ensure_future(process.wait())
    left = get_app().future  # the application waits for this task before it ends: so leaving ends the editor
    try:
        await asyncio.wait({ended, left} if left else {ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not ended.done():
            process.terminate()
            await asyncio.wait({ended}, timeout=2)  # seconds in which it may restore the terminal
        if not ended.done():
            process.kill()
    return await ended


def _lines(text: str) -> int:
    return text.removesuffix("\n").count("\n") + 1


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
