"""The keyboard of a real terminal, which also brings replies: what the terminal is asked for before the screen begins.

    ask ──▶ samples and where the cursor is then (CPR), background (OSC 11), name (XTVERSION), kind (DA1) ──▶ terminal
    terminal ──▶ replies, keys ──▶ Keyboard ──▶ keys

Rules:

1. Every terminal answers DA1, and answers in order, so its reply ends the wait. A silent one costs ``PATIENCE``, once.
2. What is typed meanwhile is kept, in order, for the application.
3. A late reply never becomes keys, which prompt_toolkit would make of it.

Sources: ECMA-48; https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
"""

from __future__ import annotations

import re
import select
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.input.vt100 import Vt100Input

from chat.ui.fullscreen.graphemes import AMBIGUOUS, SAMPLES
from chat.ui.theme import luminance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prompt_toolkit.key_binding.key_processor import KeyPress

    from chat.ui.fullscreen.terminal import Terminal

PATIENCE: Final = 0.1  # seconds for the first reply; a local terminal takes a few milliseconds
FAR_PATIENCE: Final = 1.0  # seconds for all replies, once one has come, and for the first over ssh
# Names in TERM of terminals that are known to answer DA1, so that it is worth waiting for them over ssh.
_ANSWERING: Final = ("xterm", "tmux", "screen", "rxvt", "alacritty", "foot", "konsole", "vte", "wezterm", "contour")
_DUMB: Final = frozenset({"", "dumb", "unknown", "emacs", "cons25"})
_PLAIN: Final = ("linux", "vt1", "vt2", "vt3", "vt4", "vt5")  # they show the strings of OSC and the like on the screen

# Written where it leaves no trace: on the alternate screen, and each sample wiped out. One write, so no flicker.
_SAMPLES: Final = (*SAMPLES.values(), AMBIGUOUS)
_MEASURE: Final = "\x1b[?1049h" + "".join(f"\r{text}\x1b[6n\r\x1b[K" for text in _SAMPLES) + "\x1b[?1049l"
_BACKGROUND: Final = "\x1b]11;?\x1b\\"
_NAME: Final = "\x1b[>0q"
_WHAT: Final = "\x1b[c"

_FOCUS: Final = re.compile(r"\x1b\[([IO])")
_REPLY: Final = re.compile(
    r"\x1b\[(?:\?[0-9;]{0,256}(?P<what>c)|[0-9]{1,4};(?P<column>[0-9]{1,4})R|(?P<focus>[IO]))"
    r"|\x1b\]11;(?P<colour>[^\x07\x1b]{0,256})(?:\x07|\x1b\\)"
    r"|\x1bP>\|(?P<name>[^\x1b]{0,256})\x1b\\"
)
_BEGUN: Final = re.compile(  # a reply of which the rest has not come yet
    r"\x1b(?:\[(?:\?[0-9;]{0,256}|[0-9]{1,4}(?:;[0-9]{0,4})?)?"
    r"|\](?:1(?:1(?:;[^\x07\x1b]{0,256}\x1b?)?)?)?|P(?:>(?:\|[^\x1b]{0,256}\x1b?)?)?)?\Z"
)
_FOCUS_BEGUN: Final = re.compile(r"\x1b\[?\Z")
_COLOUR: Final = re.compile(r"rgba?:([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})")


class Answers(NamedTuple):
    """What a terminal says of itself."""

    whole: frozenset[str] = frozenset()  # the kinds of ``SAMPLES`` that it draws in two columns
    is_wide: bool = False  # whether it draws characters of ambiguous width in two columns
    background: float | None = None  # its luminance, see ``theme.luminance``
    name: str = ""  # by XTVERSION, like "kitty(0.35.2)"; untrusted text


class Keyboard(Vt100Input):
    """Standard input, which is a terminal, without the terminal's replies."""

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self.has_focus: bool | None = None  # None: the terminal has not told
        self._is_asked = False  # replies may still come
        self._held = ""  # what may be the begin of a reply
        self._columns: list[int] = []
        self._answers = Answers()

    def ask(self, terminal: Terminal, environment: Mapping[str, str]) -> Answers:
        """Ask the terminal, which must be in raw mode, and wait for its replies."""
        kind = environment.get("TERM", "")
        if kind in _DUMB:
            return self._answers
        terminal.write(_MEASURE + ("" if kind.startswith(_PLAIN) else _BACKGROUND + _NAME) + _WHAT)
        terminal.flush()
        self._is_asked = True
        is_far = "SSH_CONNECTION" in environment and kind.startswith(_ANSWERING)
        begin = time.monotonic()
        typed = ""
        while self._is_asked and not self.closed:
            patience = FAR_PATIENCE if is_far or self._columns else PATIENCE
            if not select.select([self.fileno()], [], [], max(0, begin + patience - time.monotonic()))[0]:
                break
            typed += self._without_replies(self.stdin_reader.read())
        self.vt100_parser.feed(typed)
        if not self._held:
            self.vt100_parser.flush()
        store_typeahead(self, self._taken())
        whole = (kind for kind, column in zip(SAMPLES, self._columns, strict=False) if column == 3)
        self._answers = self._answers._replace(whole=frozenset(whole), is_wide=self._columns[len(SAMPLES) :] == [3])
        return self._answers

    def read_keys(self) -> list[KeyPress]:
        self.vt100_parser.feed(self._without_replies(self.stdin_reader.read()))
        return self._taken()

    def flush_keys(self) -> list[KeyPress]:
        """Called when nothing more has come for a moment: a lone Escape is a key then, and half a reply is not."""
        if len(self._held) <= 2:
            self.vt100_parser.feed(self._held)
            self._held = ""
        return super().flush_keys()

    def _taken(self) -> list[KeyPress]:
        keys, self._buffer = self._buffer, []
        return keys

    def _without_replies(self, text: str) -> str:
        text = (_REPLY if self._is_asked else _FOCUS).sub(self._take, self._held + text)
        begun = (_BEGUN if self._is_asked else _FOCUS_BEGUN).search(text)
        self._held = begun[0] if begun else ""
        return text[: begun.start()] if begun else text

    def _take(self, reply: re.Match[str]) -> str:
        found = reply.groupdict()
        if not found or found["focus"]:
            self.has_focus = reply[0][-1] == "I"
        elif found["what"]:
            self._is_asked = False
        elif found["column"]:
            self._columns.append(int(found["column"]))
        elif found["name"] is not None:
            self._answers = self._answers._replace(name=found["name"])
        elif rgb := _COLOUR.match(found["colour"]):
            red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in rgb.groups())
            self._answers = self._answers._replace(background=luminance(red, green, blue))
        return ""
