"""Whole screens of the reading half, on terminals that count their own columns.

     ┌ title ─────────────────────────────────┐     prompt_toolkit ─▶ bytes ─┬▶ pyte: Chinese, Japanese, Korean
     │ pane                      │ who is here│                              └▶ tmux: what pyte drops the marks of
     └ status ────────────────────────────────┘

That no column is off is seen by overwriting the cells of the border: were a row too wide or too narrow by one, its
border would stand beside the cell and be left.
"""

# ruff: noqa: RUF001 - Chinese has punctuation of its own

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.application.current import set_app
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import DummyInput
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, VSplit, Window
from prompt_toolkit.output.vt100 import Vt100_Output

from chat.core.bodies import Author
from chat.core.events import Message
from chat.core.wire import Kind
from chat.ui import theme
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.pane import Pane
from chat.ui.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANN, MING = b"a" * 32, b"m" * 32
SIDE_BAR = 18
SIZES = [(80, 24), (120, 40), (20, 5)]


def message(seq: int, text: str, *, nick: str = "小明", kind: int = Kind.SAY, target: int = 0) -> Message:
    author = Author(index=1, key=ANN if nick == "ann" else MING, stream=1, nick=nick)
    return Message(seq, seq * 600_000, author, kind, text, target, mine=nick == "ann")


class Screen:
    """A timeline drawn as it will be in a window: what prompt_toolkit writes for it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.timeline = Timeline(ANN, "ann", UTC)
        self.pane = Pane(Conversation(self.timeline))
        self.size = Size(rows=rows, columns=columns)
        self.file = io.StringIO()
        self.output = Vt100_Output(self.file, lambda: self.size, term="xterm-256color", enable_cpr=False)
        self.border = columns - SIDE_BAR - 1 if columns >= 60 else None
        side_bar = [Window(width=1, char="│"), Window(FormattedTextControl("ann\n小明"), width=SIDE_BAR)]
        root = HSplit(
            [
                Window(FormattedTextControl(" #茶"), height=1, style="class:bar"),
                VSplit([Window(self.pane), *(side_bar if self.border else [])]),
                Window(FormattedTextControl(" in the room"), height=1, style="class:bar"),
            ]
        )
        with create_app_session(input=DummyInput(), output=self.output):
            self.app: Application[None] = Application(Layout(root), style=theme.style("auto"), full_screen=True)

    def draw(self) -> str:
        """Return all that has been written, this redraw included."""
        with set_app(self.app):
            self.app.renderer.render(self.app, self.app.layout)
        return self.file.getvalue()


class Pyte:
    """The screen that pyte makes of what is written."""

    def __init__(self, columns: int, rows: int) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)

    def show(self, written: str) -> list[str]:
        self._stream.feed(written)
        return [row.rstrip() for row in self._screen.display]

    def close(self) -> None:
        pass


class Tmux:
    """The screen that tmux makes of what is written."""

    def __init__(self, folder: Path, columns: int, rows: int) -> None:
        self._file = folder / "written"
        os.mkfifo(self._file)
        self._environment = os.environ | {"TMUX_TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        self._environment.pop("TMUX", None)
        self._tmux(
            "new-session", "-d", "-x", str(columns), "-y", str(rows), f"stty raw -echo; exec cat <>'{self._file}'"
        )
        self._tmux("set-option", "-g", "status", "off")
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))
        self._shown = 0

    def show(self, written: str) -> list[str]:
        """Write, and return the rows when the terminal's title says that all of it has arrived."""
        self._shown += 1
        done = f"shown {self._shown}"
        self._file.write_bytes(f"{written}\x1b]2;{done}\x07".encode())
        deadline = time.monotonic() + 20
        while self._tmux("display-message", "-p", "#{pane_title}").strip() != done:
            assert time.monotonic() < deadline, self._tmux("capture-pane", "-p")
        return [row.rstrip() for row in self._tmux("capture-pane", "-p").split("\n")[:-1]]

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-u", "-L", "golden", "-f", "/dev/null", *words]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout


@contextmanager
def terminal(kind: str, folder: Path, columns: int, rows: int) -> Iterator[Any]:
    if kind == "tmux" and not shutil.which("tmux"):
        pytest.skip("tmux is not installed; it is what draws Arabic, Hebrew, Thai and Hindi here")
    made = Tmux(folder, columns, rows) if kind == "tmux" else Pyte(columns, rows)
    try:
        yield made
    finally:
        made.close()


def check_border(screen: Screen, shown: Any, before: list[str]) -> None:
    """Every border stands in its column, and right of it is the side bar."""
    assert screen.border is not None
    overwritten = "".join(f"\x1b[{y + 1};{screen.border + 1}H#" for y in range(1, len(before) - 1))
    after = shown.show(overwritten)
    assert after[1:-1] == ["#".join(row.rsplit("│", 1)) for row in before[1:-1]]


def pane_rows(screen: Screen, shown: list[str]) -> list[str]:
    """The rows left of the border, which is the last rule in each."""
    return [(row.rpartition("│")[0] if screen.border else row).rstrip() for row in shown[1:-1]]


# -- Chinese, Japanese, Korean ------------------------------------------------------------------------

TEN = "一二三四五六七八九十"
COUNT = {"小明": TEN * 5, "はな": "あいうえおかきくけこ" * 5, "민준": "가나다라마바사아자차" * 5}
FIRST = {  # how many of the fifty characters, of two columns each, fit beside the head: (pane - head) // 2
    80: (61 - 16) // 2,
    120: (101 - 16) // 2,
    20: (20 - 6) // 2,
}


@pytest.mark.parametrize("kind", ["pyte", "tmux"])
@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_wide_characters(home: Path, kind: str, columns: int, rows: int) -> None:
    screen = Screen(columns, rows)
    screen.timeline.add(message(1, "大家好，茶好了。"))
    for seq, (nick, text) in enumerate(COUNT.items(), 2):
        screen.timeline.add(message(seq, text, nick=nick))
    screen.timeline.add(message(5, "同意！", nick="ann", target=1))
    screen.timeline.add(message(6, "👍", kind=Kind.REACT, target=5))
    with terminal(kind, home, columns, rows) as shown:
        made = shown.show(screen.draw())
        clock = columns >= 40
        pane = screen.border or columns
        indent = " " * (14 if clock else 4)
        left = "   小明 │ " if clock else "小明│ "
        day = f"{'Thursday, 1 January 1970':^{pane}}".rstrip() if clock else "   1 January 1970"
        expected = [day, (" 00:10" if clock else "") + left + "大家好，茶好了。"]
        for minute, (nick, text) in zip((20, 30, 40), COUNT.items(), strict=True):
            fit = FIRST[columns]
            parts = [text[at : at + fit] for at in range(0, 50, fit)]
            expected += [
                (f" 00:{minute}" if clock else "") + left.replace("小明", nick) + parts[0],
                *(f"{indent}│ {part}" for part in parts[1:]),
            ]
        expected += [
            " 00:50    ann │ ▎小明: 大家好，茶好了。" if clock else "ann│ ▎小明: 大家好…",
            *(f"{indent if clock else '   '}│ {below}" for below in ("同意！ ✓", "👍 1")),
        ]
        height = rows - 2
        expected = ([""] * height + expected)[-height:]
        assert pane_rows(screen, made) == expected
        assert (made[0], made[-1]) == (" #茶", " in the room")
        if screen.border:
            assert [row.rpartition("│")[2] for row in made[1:3]] == ["ann", "小明"]
            check_border(screen, shown, made)


# -- what terminals draw in their own ways ------------------------------------------------------------

SCRIPTS = {
    "arabic": ("مرحبا بالعالم، كيف حالك؟", None),
    "arabic with points": ("مُحَمَّدٌ", None),
    "hebrew": ("שלום עולם, מה שלומך?", None),
    "hebrew with points": ("שָׁלוֹם", None),
    "thai": ("สวัสดีชาวโลก ที่นี่มีชาร้อน", None),
    "hindi": ("नमस्ते दुनिया, क्षत्रिय", None),
    "family": ("a \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "a 👨 family"),
    "flags": ("from \U0001f1e8\U0001f1f3 to \U0001f1eb\U0001f1f7", "from CN to FR"),
    "skin": ("thumb 👍🏽 end", "thumb 👍 end"),
    "heart": ("a ❤\ufe0f heart", "a ❤ heart"),
    "keycap": ("1\ufe0f\u20e3 one", "1\u20e3 one"),
    "accents": ("e\u0301le\u0300ve", None),
    "zalgo": ("z" + "\u0335" * 8 + "a" + "\u0301" * 8, None),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_other_scripts_and_emoji_on_a_real_terminal(home: Path, name: str) -> None:
    text, expected = SCRIPTS[name]
    screen = Screen(80, 24)
    screen.timeline.add(message(1, text, nick="bob"))
    screen.timeline.add(message(2, f"{text} " * 20, nick="cid"))  # and where rows are cut
    screen.timeline.add(message(3, f"**{text}** `{text}`", nick="dan", target=1))
    screen.timeline.add(message(4, "end", nick="eve"))
    with terminal("tmux", home, 80, 24) as shown:
        made = shown.show(screen.draw())
        rows = [row.rstrip() for row in pane_rows(screen, made) if row]
        assert rows[1] == f" 00:10    bob │ {expected or text}"
        assert rows[-1] == " 00:40    eve │ end"
        assert f" 00:30    dan │ ▎bob: {expected or text}" in rows
        check_border(screen, shown, made)


WIDTHS = {  # as written, as shown, and in how many columns a terminal shows it
    "arabic": ("مرحبا بك", "مرحبا بك", 8),
    "arabic with points": ("مُحَمَّد", "مُحَمَّد", 4),
    "hebrew": ("שלום", "שלום", 4),
    "hebrew with points": ("שָׁלוֹם", "שָׁלוֹם", 4),
    "thai": ("สวัสดี", "สวัสดี", 4),
    "hindi": ("नमस्ते", "नमस्ते", 4),
    "hindi with a vowel sign of its own": ("काकी", "काकी", 4),
    "chinese": ("茶好了。", "茶好了。", 8),
    "japanese": ("はなﾊﾅ", "はなﾊﾅ", 6),
    "korean": ("가나", "가나", 4),
    "family": ("\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "👨", 2),
    "flags": ("\U0001f1e8\U0001f1f3\U0001f1eb\U0001f1f7", "CNFR", 4),
    "skin": ("👍🏽", "👍", 2),
    "heart": ("❤\ufe0f", "❤", 1),
    "keycap": ("1\ufe0f\u20e3", "1\u20e3", 1),
}


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_what_follows_a_script_stands_in_its_column(home: Path, columns: int, rows: int) -> None:
    """A Z behind each text is overwritten in the cell where it must stand; where it stands elsewhere it is left."""
    screen = Screen(columns, rows)
    clock = columns >= 40
    with terminal("tmux", home, columns, rows) as shown:
        written = 0
        for seq, (text, expected, width) in enumerate(WIDTHS.values(), 1):
            nick = ("bob", "cid")[seq % 2]
            screen.timeline.add(message(seq, f"{text}Z", nick=nick))
            made = shown.show(screen.draw()[written:])
            written = len(screen.file.getvalue())
            head = f" {seq // 6:02}:{seq % 6}0    {nick} │ " if clock else f"{nick}│ "
            assert pane_rows(screen, made)[-1] == f"{head}{expected}Z"
            cell = f"\x1b[{rows - 1};{len(head) + width + 1}H"  # counted from 1
            over = shown.show(f"\x1b7{cell}#\x1b8")
            assert over[-2] == made[-2].replace("Z", "#"), expected
            shown.show(f"\x1b7{cell}Z\x1b8")


def test_a_screen_that_changes_is_drawn_over_what_was_there(home: Path) -> None:
    """prompt_toolkit writes only what differs: a column lost count of would show here, and stay."""
    screen = Screen(80, 24)
    with terminal("tmux", home, 80, 24) as shown:
        written = 0
        for seq, (text, _) in enumerate(SCRIPTS.values(), 1):
            screen.timeline.add(message(seq, f"{text} " * 3, nick="bob"))
            made = shown.show(screen.draw()[written:])
            written = len(screen.file.getvalue())
            assert all(row.count("│") == 2 for row in made[1:-1] if "bob" in row)
        screen.pane.create_content(61, 22)
        screen.pane.select(-1)
        screen.pane.select(-1)
        made = shown.show(screen.draw()[written:])
        check_border(screen, shown, made)
