"""The input of the full-screen face: a draft for each room, its history, completion, pastes, an editor.

    keys, pastes ─▶ BufferControl ─▶ Buffer of the room one is in ─▶ the owner sends its text
                                     Buffer of another room: its draft, its history, its paste to be confirmed

Rules:

1. A paste never submits, and lands in the room it was pasted in. A long one waits until it is confirmed.
2. Control characters do not get in, neither by a paste nor by the editor.
3. What was typed is not lost: not by going to another room, not by an editor that fails.
4. Nothing here waits: completion looks at what is in memory. An editor runs while links go on.
5. What is completed was said by others: it is filtered before it is shown, and no style is made of it.

Left out: a terminal without bracketed paste (the Linux console) types a paste key by key, and its line breaks are
Enter. Nobody can tell the two apart but by guessing from time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import unicodedata
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from prompt_toolkit.application import get_app, in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer as ToolkitCompleter
from prompt_toolkit.completion import Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import BufferControl, UIContent
from prompt_toolkit.utils import get_cwidth

from chat.core.errors import reason
from chat.core.text import visible
from chat.core.wire import MAX_TEXT
from chat.i18n import _, plural, translate
from chat.local.private_files import make_private, replace_private
from chat.ui import emoji
from chat.ui.commands import COMMANDS, rooms_like
from chat.ui.fullscreen.pane import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.layout.processors import Processor

CONFIRM_LINES: Final = 20  # a paste of more is asked about
_COUNT_FROM: Final = 2048  # bytes that are left of a message when the counter begins to show them
_MAX_EDITED: Final = 1024 * 1024  # bytes of an editor's file that are looked at
_MAX_HISTORY: Final = 256 * 1024  # bytes of a room's history on the disk, when it is read
_COMPLETIONS: Final = 50

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")  # of bytes that are not UTF-8
_COMMAND: Final = re.compile(r"[ \t]*/(?!/)(\S*)")
_ARGUMENTS: Final = re.compile(r"[ \t]*/(\w+)\s+(.*)", re.DOTALL)
_SHORT_NAME: Final = re.compile(r"(?<![A-Za-z0-9_:]):([\w+-]+)$")
_BEGUN: Final = re.compile(
    r"^[ \t]*/\w*$|(?<![A-Za-z0-9_:]):[A-Za-z0-9_+-]{2,}$|(?<![A-Za-z0-9_])[@#][\w.-]+$|^[ \t]*/room \S*$"
)


class Paste(NamedTuple):
    """A paste that waits to be confirmed."""

    text: str

    @property
    def lines(self) -> int:
        return self.text.removesuffix("\n").count("\n") + 1


class _Rows(UIContent):
    """Counts the rows of a line as they are drawn.

    prompt_toolkit's own divides the line's columns by the window's. But a wide character that does not fit goes to the
    next row, and so does the cursor behind a row that is full: it would look for the cursor in a row above its own.
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
    """The input. ``control`` goes into a ``Window``; ``restore`` is called for the first room, too.

    ``sources`` gives the words that complete what the table of commands calls NICK, ROOM, THEME and so on.
    NICK and ROOM (without its #) also complete in messages. They are asked at each key: they must be quick. ``slow``
    gives what has to be read from the disk: it is asked in a thread, and only when somebody presses Tab.
    ``tell`` shows the user one line. With ``folder``, histories are kept there, on the disk.
    """

    def __init__(
        self,
        sources: Mapping[str, Callable[[], Iterable[str]]],
        tell: Callable[[str], None],
        *,
        slow: Mapping[str, Callable[[], Iterable[str]]] | None = None,
        folder: Path | None = None,
        confirm_lines: int = CONFIRM_LINES,
        processors: list[Processor] | None = None,
    ) -> None:
        """``confirm_lines`` 0: no paste is asked about. Raises ChatError where the folder is not private."""
        self.confirm_lines = confirm_lines
        self.editing = False  # the terminal is an editor's
        self._tell = tell
        self._folder = folder and make_private(folder)
        self._completer = Completer(sources, slow or {})
        self._drafts: dict[str, _Draft] = {}
        self._room = ""
        self.control: Final = _Control(self._draft("").buffer, input_processors=processors, key_bindings=self._keys())

    # -- rooms -----------------------------------------------------------------------------------

    @property
    def buffer(self) -> Buffer:
        """The buffer of the room one is in. Its ``reset(append_to_history=True)`` is for what was sent."""
        return self.control.buffer

    def restore(self, room: str) -> None:
        """Go to a room: its draft is in the input, and the draft of the room before is kept.

        ``room`` is any text that names it for ever: the histories' files are called after its hash.
        """
        self.buffer.cancel_completion()
        self._room = room
        self.control.buffer = self._draft(room).buffer

    def drafts(self) -> list[str]:
        """Return the rooms in which something is written and not sent."""
        return [room for room, draft in self._drafts.items() if draft.buffer.text or draft.pasted]

    def forget(self, room: str) -> None:
        """Drop the draft of a room that was left. Its history stays on the disk. Not for the room one is in."""
        self._drafts.pop(room, None)

    def give_back(self, text: str, room: str) -> None:
        """Put back what could not be sent, above what was typed since."""
        buffer = self._draft(room).buffer
        buffer.document = Document("\n".join(filter(None, (text, buffer.text))))

    def clear(self) -> None:
        """Empty the input. Up brings back what stood there, in this window: it was not said, so it is not kept."""
        history = self.buffer.history
        assert isinstance(history, KeptHistory)
        history.keeps = False
        self.buffer.reset(append_to_history=True)
        history.keeps = True

    def _draft(self, room: str) -> _Draft:
        if room not in self._drafts:
            name = hashlib.sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            history = KeptHistory(self._folder / name if self._folder else None, self._tell)
            while_typing = Condition(lambda: bool(_BEGUN.search(self.buffer.document.text_before_cursor[-256:])))
            buffer = Buffer(
                multiline=True, history=history, completer=self._completer, complete_while_typing=while_typing
            )
            self._drafts[room] = _Draft(buffer)
        return self._drafts[room]

    # -- pastes ----------------------------------------------------------------------------------

    def paste(self, text: str) -> None:
        """Take a paste into the input, or ask first, or tell that it is too long. Another one joins one that waits."""
        draft = self._draft(self._room)
        text = (draft.pasted.text if draft.pasted else "") + clean(text)
        size, used = _size(text), _size(draft.buffer.text)
        pasted = Paste(text)
        if size + used > MAX_TEXT:
            told = _(
                "the paste was not taken: it is {size} bytes in {lines} lines, the input holds {used}, and a message"
                " takes {limit}. Paste it in parts"
            )
            self._tell(told.format(size=size, lines=pasted.lines, used=used, limit=MAX_TEXT))
        elif 0 < self.confirm_lines < pasted.lines:
            draft.pasted = pasted
        else:
            draft.buffer.insert_text(text)

    @property
    def pasted(self) -> Paste | None:
        """The paste that waits to be confirmed. Meanwhile, Enter is ``accept`` and Escape and Ctrl+C ``discard``."""
        return self._draft(self._room).pasted

    @property
    def question(self) -> str:
        """The line that asks about the paste that waits, or ""."""
        if not self.pasted:
            return ""
        told = _("Enter puts it into the input, Escape drops it: {lines} lines are pasted, {size} bytes")
        return told.format(lines=self.pasted.lines, size=_size(self.pasted.text))

    def accept(self) -> None:
        """Put the paste that waits into the input. It is not sent."""
        draft = self._draft(self._room)
        if draft.pasted:
            draft.buffer.insert_text(draft.pasted.text)
            draft.pasted = None

    def discard(self) -> None:
        """Drop the paste that waits."""
        self._draft(self._room).pasted = None

    @property
    def counter(self) -> str:
        """What is left of a message's 16 KiB, or by how much the text is too long; "" while there is plenty."""
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
        """Those of the control: they go before the owner's."""
        keys = KeyBindings()
        waits = Condition(lambda: self.pasted is not None)
        keys.add("<bracketed-paste>")(lambda event: self.paste(event.data))
        keys.add("enter", filter=waits)(lambda _event: self.accept())
        keys.add("escape", filter=waits)(lambda _event: self.discard())
        keys.add("c-c", filter=waits)(lambda _event: self.discard())
        # Ctrl+C in an editor reaches us too: the terminal sends SIGINT to all of its foreground.
        keys.add("<sigint>", filter=Condition(lambda: self.editing))(lambda _event: None)
        return keys

    # -- the editor ------------------------------------------------------------------------------

    async def edit(self) -> None:
        """Go on in $VISUAL or $EDITOR: the terminal is the editor's until it ends, then its text is in the input.

        The text passes through a file (0600) in a folder of its own (0700), which is gone afterwards. Where the
        editor fails, one line tells so, and the input is as it was. To be run in a background task of the application,
        whose end is the editor's.
        """
        if self.editing:
            return
        buffer = self.buffer
        self.editing = True
        try:
            text = await _edited(buffer.text)
        except _EditorFailed as error:
            self._tell(str(error))
        else:
            buffer.document = Document(text)
        finally:
            self.editing = False


class _EditorFailed(Exception):
    """One line for the user."""


async def _edited(text: str) -> str:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise _EditorFailed(_("$VISUAL or $EDITOR cannot be read: {error}").format(error=error)) from None
    if not words:
        raise _EditorFailed(_("no editor is set; set VISUAL or EDITOR before you start, as in: export EDITOR=nano"))
    name = visible(words[0], lines=False)
    try:
        with TemporaryDirectory(prefix="chat-") as folder:
            file = Path(folder) / "message.md"
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
                opened.write(text.encode("utf-8", "replace"))
            async with in_terminal():
                code = await _run([*words, str(file)])
            if code:
                told = _("the editor {name} failed with code {code}; the input is as it was")
                raise _EditorFailed(told.format(name=name, code=code))
            size = file.stat().st_size
            if size > _MAX_EDITED:
                told = _("the editor's text is {size} bytes long, a message takes {limit}; the input is as it was")
                raise _EditorFailed(told.format(size=size, limit=MAX_TEXT))
            return clean(file.read_text("utf-8", "replace")).removesuffix("\n")
    except OSError as error:
        told = _("cannot use the editor {name}: {reason}; the input is as it was")
        raise _EditorFailed(told.format(name=name, reason=translate(reason(error)))) from None


async def _run(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    ended = asyncio.ensure_future(process.wait())
    left = get_app().future  # the application waits for us before it ends: so whoever leaves, ends the editor
    try:
        await asyncio.wait({ended, left} if left else {ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not ended.done():
            process.terminate()
            await asyncio.wait({ended}, timeout=2)  # seconds, in which it may put the terminal right
        if not ended.done():
            process.kill()
    return await ended


def clean(text: str) -> str:
    """Return ``text`` with one kind of line break and without control characters; tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# -- history ------------------------------------------------------------------------------------------


class KeptHistory(History):
    """What was sent in one room, in a file (0600) of JSON strings, one a line, the newest last.

    Without a file it is only remembered.

    A line is written by one append, so programs that share the file do not mix their lines. 256 KiB are read, and a
    file that has grown over 512 is cut to them. Invites are secrets: a text with one is not kept on the disk.
    """

    def __init__(self, file: Path | None, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.keeps = True
        self._file = file
        self._tell = tell
        self._failed = False

    def load_history_strings(self) -> Iterable[str]:
        """Called by prompt_toolkit, once: the newest first."""
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
        """Called by prompt_toolkit for what was sent."""
        if self._file is None or not self.keeps or "chat://" in string:
            return
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(fd, json.dumps(string).encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._failed:  # once is enough
            self._failed = True
            told = _("the history of what you send is not kept: {reason}; mend that, and start again")
            self._tell(told.format(reason=translate(reason(error))))


# -- completion ---------------------------------------------------------------------------------------


class Completer(ToolkitCompleter):
    """Completes /commands and their arguments, nicknames, #rooms and :emoji: from what is in memory."""

    def __init__(
        self,
        sources: Mapping[str, Callable[[], Iterable[str]]],
        slow: Mapping[str, Callable[[], Iterable[str]]] | None = None,
    ) -> None:
        self._sources = dict(sources)
        self._slow = slow or {}

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Called by prompt_toolkit."""
        given = _ARGUMENTS.fullmatch(document.text_before_cursor)
        kind = _kind_of_argument(given[1].lower(), given[2]) if given else ""
        if complete_event.completion_requested and (source := self._slow.get(kind)):
            words = await asyncio.to_thread(source)
            self._sources[kind] = lambda: words
        for found in self.get_completions(document, complete_event):
            yield found

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Called by prompt_toolkit. At most 50; where nothing is begun, only when somebody asks."""
        before = document.text_before_cursor
        space = "" if document.text_after_cursor[:1] == " " else " "
        return islice(self._found(before, space, asked=complete_event.completion_requested), _COMPLETIONS)

    def _found(self, before: str, space: str, *, asked: bool) -> Iterator[Completion]:
        if command := _COMMAND.fullmatch(before):
            yield from self._commands(command[1], "/", space)
        elif (given := _ARGUMENTS.fullmatch(before)) and (kind := _kind_of_argument(given[1].lower(), given[2])):
            word = given[2].split()[-1] if given[2] and not given[2][-1:].isspace() else ""
            if kind == "COMMAND":
                yield from self._commands(word.removeprefix("/"), "/" if word.startswith("/") else "", "")
            elif kind == "EMOJI":
                yield from self._emoji(word.strip(":"), len(word))
            elif kind == "ROOM":
                yield from self._rooms(word, space)
            else:
                yield from self._words(kind, word, space)
        elif name := _SHORT_NAME.search(before):
            yield from self._emoji(name[1], len(name[0]))
        else:
            word = _name_before(before)
            rest = before[: len(before) - len(word)]
            if re.search(r"[A-Za-z0-9_][@#]$", rest):  # an address of mail, an issue
                return
            if rest.endswith("#"):
                yield from self._words("ROOM", word, space)
            elif rest.endswith("@"):
                yield from self._words("NICK", word, space)
            elif word or asked:
                begins = not rest or rest.endswith("\n")
                yield from self._words("NICK", word, ": " if begins and space else ":" if begins else space)

    def _commands(self, start: str, slash: str, space: str) -> Iterator[Completion]:
        for usage in COMMANDS:
            if usage.name.startswith(start.lower()):
                text = slash + usage.name + (space if usage.argument else "")
                yield Completion(text, -len(slash + start), display=slash + usage.name, display_meta=_(usage.help))

    def _emoji(self, start: str, length: int) -> Iterator[Completion]:
        for name, picture in emoji.complete(start, _COMPLETIONS):
            yield Completion(picture, -length, display=f"{shown(picture)} :{name}:")

    def _rooms(self, start: str, space: str) -> Iterator[Completion]:
        names = [name for name in self._sources.get("ROOM", list)() if visible(name, lines=False) == name]
        for name in map(names.__getitem__, rooms_like(start.removeprefix("#"), names)):
            told = name if name.startswith("@") else f"#{name}"
            yield Completion(name + space, -len(start), display=shown(told, lines=False))

    def _words(self, kind: str, start: str, after: str) -> Iterator[Completion]:
        source = self._sources.get(kind)
        for word in source() if source else ():
            if word.casefold().startswith(start.casefold()) and visible(word, lines=False) == word:
                yield Completion(word + after, -len(start), display=shown(word, lines=False))


def _kind_of_argument(name: str, given: str) -> str:
    """Return what the table calls the argument that is being typed, or "" for free text."""
    sketch = next((usage.argument.split() for usage in COMMANDS if usage.name == name), [])
    at = len(given.split()) - (not given[-1:].isspace() and bool(given))
    kind = sketch[at].strip("[]") if at < len(sketch) else ""
    return "" if kind in {"TEXT", "NOTE"} else kind


def _name_before(before: str) -> str:
    """Return the letters, marks, digits and ``-_.`` that ``before`` ends with: a name that is begun."""
    at = len(before)
    while at and (
        before[at - 1].isalnum() or before[at - 1] in "-_." or unicodedata.category(before[at - 1])[0] == "M"
    ):
        at -= 1
    return before[at:]
