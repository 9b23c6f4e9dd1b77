"""Edit a text in $VISUAL or $EDITOR, which has the terminal meanwhile."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prompt_toolkit.application import get_app, in_terminal

from chat.core.errors import reason
from chat.core.text import visible
from chat.core.wire import MAX_TEXT
from chat.i18n import _, translate
from chat.ui.fullscreen.wrapping import clean

_MAX_EDITED: Final = 1024 * 1024  # bytes of the editor's file that are read


class EditorFailed(Exception):
    """One line for the user."""


async def edit(text: str) -> str:
    """Return the text as the editor leaves it. Raises EditorFailed.

    The text passes through a file (0600) in a folder of its own (0700), which is removed afterwards.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise EditorFailed(_("$VISUAL or $EDITOR cannot be read: {error}").format(error=error)) from None
    if not words:
        raise EditorFailed(_("no editor is set; set VISUAL or EDITOR before you start, as in: export EDITOR=nano"))
    name = visible(words[0], lines=False)
    try:
        with TemporaryDirectory(prefix="chat-") as folder:
            file = Path(folder) / "message.md"
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
                opened.write(text.encode("utf-8", "replace"))
            async with in_terminal():
                code = await _run([*words, str(file)])
            if code:
                message = _("the editor {name} failed with code {code}; the input is as it was")
                raise EditorFailed(message.format(name=name, code=code))
            size = file.stat().st_size
            if size > _MAX_EDITED:
                message = _("the editor's text is {size} bytes long, a message takes {limit}; the input is as it was")
                raise EditorFailed(message.format(size=size, limit=MAX_TEXT))
            return clean(file.read_text("utf-8", "replace")).removesuffix("\n")
    except OSError as error:
        message = _("cannot use the editor {name}: {reason}; the input is as it was")
        raise EditorFailed(message.format(name=name, reason=translate(reason(error)))) from None


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
