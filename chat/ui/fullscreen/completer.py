"""Completion of /commands and their arguments, nicknames, #rooms and :emoji:, from what is in memory.

Others chose most of these words: they are sanitized, and no style is made of them.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING, Final

from prompt_toolkit.completion import Completer as ToolkitCompleter
from prompt_toolkit.completion import Completion

from chat.core.text import visible
from chat.i18n import _
from chat.local.settings import choices
from chat.ui import emoji
from chat.ui.commands import COMMANDS, SCREEN, commands_of, rooms_like
from chat.ui.fullscreen.wrapping import sanitize
from chat.ui.names import KINDS, written_out

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

_COMPLETIONS: Final = 50
_COMMAND: Final = re.compile(r"[ \t]*/(?!/)(\S*)")
_ARGUMENTS: Final = re.compile(r"[ \t]*/(\w+)\s+(.*)", re.DOTALL)
_SHORT_NAME: Final = re.compile(r"(?<![A-Za-z0-9_:]):([\w+-]+)$")
_LISTED: Final = [one.name for one in COMMANDS if (kind := one.argument.split()[:1]) and kind[0].strip("[]") in KINDS]
# What is completed while typing; everything else on Tab.
BEGUN: Final = re.compile(
    r"^[ \t]*/\w*$|(?<![A-Za-z0-9_:]):[A-Za-z0-9_+-]{2,}$|(?<![A-Za-z0-9_])[@#][\w.-]+$"
    rf"|^[ \t]*/(?:{'|'.join(_LISTED)}) \S*$"
)


class Completer(ToolkitCompleter):
    """``sources`` gives words for what the table of commands calls NICK, ROOM, THEME and so on, at each key.

    ``slow`` gives what has to be read from the disk: in a thread, and only for Tab.
    """

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
        """Yield at most 50. Called by prompt_toolkit."""
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
            elif kind == "VALUE":
                yield from self._matching(choices(given[2].split()[0]), word, space)
            elif kind == "ROOM":
                yield from self._rooms(word, space)
            else:
                yield from self._words(kind, word, space)
        elif name := _SHORT_NAME.search(before):
            yield from self._emoji(name[1], len(name[0]))
        else:
            word = _name_before(before)
            rest = before[: len(before) - len(word)]
            if re.search(r"[A-Za-z0-9_][@#]$", rest):  # an email address, an issue
                return
            if rest.endswith("#"):
                yield from self._words("ROOM", word, space)
            elif rest.endswith("@"):
                yield from self._words("NICK", word, space)
            elif word or asked:
                begins = not rest or rest.endswith("\n")
                yield from self._words("NICK", word, ": " if begins and space else ":" if begins else space)

    def _commands(self, start: str, slash: str, space: str) -> Iterator[Completion]:
        for usage in commands_of(SCREEN):
            if usage.name.startswith(start.lower()):
                text = slash + usage.name + (space if usage.argument else "")
                yield Completion(text, -len(slash + start), display=slash + usage.name, display_meta=_(usage.help))

    def _emoji(self, start: str, length: int) -> Iterator[Completion]:
        for name, picture in emoji.complete(start, _COMPLETIONS):
            yield Completion(picture, -length, display=f"{sanitize(picture)} :{name}:")

    def _rooms(self, start: str, space: str) -> Iterator[Completion]:
        names = [name for name in self._sources.get("ROOM", list)() if visible(name, lines=False) == name]
        for name in map(names.__getitem__, rooms_like(start.removeprefix("#"), names)):
            label = name if name.startswith("@") else f"#{name}"
            yield Completion(name + space, -len(start), display=sanitize(label, lines=False))

    def _words(self, kind: str, start: str, after: str) -> Iterator[Completion]:
        source = self._sources.get(kind)
        return self._matching(source() if source else written_out(kind), start, after)

    def _matching(self, words: Iterable[str], start: str, after: str) -> Iterator[Completion]:
        for word in words:
            if word.casefold().startswith(start.casefold()) and visible(word, lines=False) == word:
                yield Completion(word + after, -len(start), display=sanitize(word, lines=False))


def _kind_of_argument(name: str, given: str) -> str:
    """Return what the table of commands calls the argument being typed, or "" for free text."""
    sketch = next((usage.argument.split() for usage in COMMANDS if usage.name == name), [])
    at = len(given.split()) - (not given[-1:].isspace() and bool(given))
    kind = sketch[at].strip("[]") if at < len(sketch) else ""
    return "" if kind in {"TEXT", "NOTE"} else kind


def _name_before(before: str) -> str:
    """Return the letters, marks, digits and ``-_.`` at the end of ``before``: the begin of a name."""
    at = len(before)
    while at and (
        before[at - 1].isalnum() or before[at - 1] in "-_." or unicodedata.category(before[at - 1])[0] == "M"
    ):
        at -= 1
    return before[at:]
