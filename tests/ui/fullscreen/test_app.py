"""The screen: what it shows at which size, on a terminal made of slots and on a real pty, and how it ends."""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pyte
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from chat.client.events import Lost
from chat.core.bodies import Gap, Notice, Rewind
from chat.core.errors import Refused
from chat.core.events import Here, Rewound
from chat.core.wire import Kind
from chat.ui.fullscreen.app import App
from chat.ui.fullscreen.face import FullScreen
from chat.ui.fullscreen.wrapping import columns
from chat.ui.theme import roles_of
from tests.ui.fullscreen.stage import (
    IN,
    Blind,
    Ringing,
    Room,
    Script,
    message,
    run,
    staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ROOT = Path(__file__).parents[3]


# -- a terminal made of slots -------------------------------------------------------------------------


class Terminal:
    """What prompt_toolkit writes, and the screen that a terminal makes of it."""

    def __init__(self, columns: int, rows: int) -> None:
        self._file = io.StringIO()
        self._fed = 0
        self._size = Size(rows=rows, columns=columns)
        self.output = Vt100_Output(self._file, lambda: self._size, term="xterm-256color", enable_cpr=False)
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)

    @property
    def written(self) -> str:
        return self._file.getvalue()

    def resize(self, columns: int, rows: int) -> None:
        self._feed()
        self._size = Size(rows=rows, columns=columns)
        self._screen.resize(rows, columns)

    def rows(self) -> list[str]:
        self._feed()
        return [row.rstrip() for row in self._screen.display]

    def column(self, y: int, text: str) -> int:
        """The slot in which ``text`` begins. A wide character has two slots, the second one empty."""
        self._feed()
        row = self._screen.buffer[y]
        return min(x for x in row if row[x].data and _from(row, x).startswith(text))

    @property
    def cursor(self) -> tuple[int, int]:
        self._feed()
        return self._screen.cursor.x, self._screen.cursor.y

    def _feed(self) -> None:
        self._stream.feed(self.written[self._fed :])
        self._fed = len(self.written)


def _from(row: Any, x: int) -> str:
    return "".join(row[at].data for at in range(x, max(row, default=x) + 1))


LONG = "你好，世界！这是一个很长的中文句子，用来测试换行是否正确，标点符号不应该出现在行首。"


def chinese() -> Script:
    """A room in which much was said, all of it at 00:00."""
    said = [message(n, f"第{n}条") for n in range(1, 30)]
    said += [
        message(30, LONG),
        message(31, f"family {FAMILY} flag \U0001f1e8\U0001f1f3 heart ❤\ufe0f thumb 👍🏽 end"),
        message(32, "同意", target=30, nick="ann"),
        message(33, "挥手", kind=Kind.ACTION),
        message(34, "the quick brown fox jumps over the lazy dog, and over 狐狸", nick="ann"),
    ]
    return Script(*said)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_days_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    async def story() -> None:
        day = 86_400_000
        script = Script(message(1, "a", at=0), message(2, "b", at=day - 1), message(3, "c", at=day))
        async with staged(script.client) as stage:
            await stage.until("小明 │ c")
            assert [row.strip() for row in stage.pane_rows()[-5:]] == [
                "Thursday, 1 January 1970",
                "00:00   小明 │ a",
                "23:59   小明 │ b",
                "Friday, 2 January 1970",
                "00:00   小明 │ c",
            ]

    run(story())
    monkeypatch.undo()
    time.tzset()


def test_nothing_of_a_peers_reaches_the_screen_unfiltered() -> None:
    evil = "\x1b]0;pwned\x07\x1b[31m\x9b5m\u202e[ZeroWidthEscape]\x01\x02\r\x08 class:bar"

    async def story() -> None:
        script = Script(
            *(message(n, evil, kind=kind, target=1, nick=evil) for n, kind in enumerate((1, 1, 2, 3, 4, 5, 9), 1)),
            Notice(code=evil, text=evil),
            Rewound(Rewind(code=evil, text=evil)),
            Lost(evil),
            Here([(b"e", evil)], [(b"e", evil)], first=False),
        )
        script.trusted_on_first_use = script.session.room = script.session.nick = evil
        script.session.here[(b"e", evil)] = False
        async with staged(script.client, Blind(200, 60)) as stage:
            stage.type("/who\r")
            await stage.until("─ /who ─", "link lost")
            screen = stage.face.app.renderer.last_rendered_screen
            assert screen is not None
            slots = [slot for row in screen.data_buffer.values() for slot in row.values()]
            assert "".join(slot.char for slot in slots).isprintable()
            assert not any(screen.zero_width_escapes.values())
            assert {part for slot in slots for part in slot.style.split()} <= {
                *("[transparent]", "class:last-line"),
                *(f"class:{role}" for role in roles_of("auto")),
            }

    run(story())


def test_what_ends_the_client_is_raised_when_the_terminal_is_restored() -> None:
    async def story() -> None:
        script, terminal = Script(), Terminal(80, 24)
        script.end(Refused("banned", "you are banned from this room"))
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=terminal.output),
            pytest.raises(Refused, match="banned"),
        ):
            await FullScreen(script.client).run()
        assert terminal.written.rindex("\x1b[?1049l") > terminal.written.rindex("\x1b[?1049h")
        assert terminal.written.rindex("\x1b[?2004l") > terminal.written.rindex("\x1b[?2004h")

    run(story())


def test_a_fault_while_drawing_ends_the_face_and_restores_the_terminal() -> None:
    async def story() -> None:
        script, terminal = Script(Gap(first=1, count=cast("int", None))), Terminal(80, 24)
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=terminal.output),
            pytest.raises(TypeError),
        ):
            await FullScreen(script.client).run()
        assert terminal.written.rindex("\x1b[?1049l") > terminal.written.rindex("\x1b[?1049h")
        assert terminal.written.rindex("\x1b[?7h") > terminal.written.rindex("\x1b[?7l")

    run(story())


def test_several_mentions_at_once_ring_once() -> None:
    async def story() -> None:
        script, screen = Script(IN), Ringing()
        async with staged(script.client, screen) as stage:
            for n in range(1, 6):
                script.happen(message(n, f"ann: number {n}"))
            await stage.until("number 5")
            assert screen.bells == 1
            script.happen(message(6, "ann: number 6"))
            await stage.until("number 6")
            assert screen.bells == 2

    run(story())


def test_nothing_rings_once_the_screen_has_ended() -> None:
    """Its terminal may be gone, and whoever started it would read of an input/output error."""

    async def story() -> None:
        script, screen = Script(IN), Ringing()
        async with staged(script.client, screen) as stage:
            pass
        stage.face.app.notices.ring("bob wrote to you")
        stage.face.app._redraw_if_due(0)
        assert screen.bells == 0

    run(story())


@pytest.mark.usefixtures("utc")
def test_what_was_said_before_is_drawn_as_soon_as_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        script = Script(IN, message(1, "said before"))
        async with staged(script.client) as stage:
            await stage.until("said before")

    monkeypatch.setattr(App, "redraw_soon", lambda _app, _seconds=0.0: None)
    run(story())


def test_a_screen_of_80_columns_and_24_rows() -> None:
    async def story() -> None:
        terminal = Terminal(80, 24)
        async with staged(chinese().client, terminal.output) as stage:
            stage.type(f"我说hi{FAMILY}\U0001f1e8\U0001f1f3!\x1b[D")  # and one to the left
            await stage.until("狐狸 ✓", "我说hi👨CN!")
            side = {2: " HERE 2", 3: " ● ann         you", 4: " ● 小明"}
            pane = [f"              │ 第{n}条" for n in range(20, 30)] + [
                "              │ 你好，世界！这是一个很长的中文句子，用来测试",
                "              │ 换行是否正确，标点符号不应该出现在行首。",
                "              │ family 👨 flag CN heart ❤ thumb 👍 end",
                "          ann │ ▎小明: 你好，世界！这是一个很长的中文句子，…",
                "              │ 同意",
                "            * │ 小明 挥手",
                "          ann │ the quick brown fox jumps over the lazy dog,",
                "              │ and over 狐狸 ✓",
            ]
            # The pane has 61 columns, then a border, then who is here.
            assert terminal.rows() == [
                f" ● #lobby{' ' * 47}memory ✓   2 here   ann",
                "─" * 61 + "┬" + "─" * 18,
                *(
                    row + " " * (61 - columns(row)) + "│" + side.get(y, "")
                    for y, row in enumerate([" 00:00   小明 │ 第19条", *pane], 2)
                ),
                "─" * 61 + "┴" + "─" * 18,
                "> 我说hi👨CN!",
                " F1 help  Ctrl+K go to  Ctrl+F search  Alt+R answer",
            ]
            assert {terminal.column(y, "│") for y in range(2, 21)} == {14}
            assert (terminal.column(13, "你好"), terminal.column(13, "测试")) == (16, 56)
            assert (terminal.column(15, "flag"), terminal.column(15, "end")) == (26, 51)
            assert terminal.cursor == (12, 22)

    run(story())


@pytest.mark.usefixtures("utc")
def test_a_screen_of_20_columns_and_5_rows() -> None:
    async def story() -> None:
        terminal = Terminal(80, 24)
        async with staged(chinese().client, terminal.output) as stage:
            await stage.until("狐狸 ✓")
            terminal.resize(20, 5)
            stage.face.app._on_resize()  # what SIGWINCH calls
            stage.type("你好啊，这是很长的一行。")  # wider than the 18 columns there are
            await stage.until("> 一行。")
            assert terminal.rows() == [
                " ● #lobby  2 ✓  ann",
                " ann│ jumps over the",
                "    │ lazy dog, and",
                "    │ over 狐狸 ✓",
                "> 一行。",  # the row that the cursor is in
            ]
            assert terminal.cursor == (8, 4)

    run(story())


@pytest.mark.parametrize("before", range(4))
def test_the_menu_leaves_no_half_of_a_wide_character(before: int) -> None:
    async def story() -> None:
        terminal = Terminal(50, 12)
        script = Script(*(message(n, "你好" * 40) for n in range(1, 4)))
        async with staged(script.client, terminal.output) as stage:
            await stage.until("你好")
            stage.type("." * before + " @\t")
            await stage.until(" 小明 ", " ann  ")
            screen = stage.face.app.renderer.last_rendered_screen
            assert screen is not None
            for row in (screen.data_buffer[y] for y in range(12)):
                assert all((row[x].width == 2) == (not row[x + 1].char) for x in range(49))

    run(story())


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 2), (20, 4), (59, 3), (60, 3), (61, 200), (300, 1)])
def test_no_size_is_too_small(size: tuple[int, int]) -> None:
    async def story() -> None:
        screen = Blind()
        async with staged(chinese().client, screen) as stage:
            await stage.until("狐狸 ✓")
            stage.type("\x1b[5~")
            await stage.until("2 here")
            screen.size = Size(rows=size[1], columns=size[0])
            stage.face.app._on_resize()
            stage.type("a\x1b[6~\x1b[6~\x1b[5~b\n")
            await stage.redrawn()
            screen.size = Size(rows=24, columns=80)
            stage.face.app._on_resize()
            await stage.until("> ab")

    run(story())


# -- a real terminal ----------------------------------------------------------------------------------


class Program:
    """The face in a process of its own, on a pseudo-terminal."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.terminal, ours = pty.openpty()
        self.before = termios.tcgetattr(ours)
        self.ours = ours
        self.written = ""
        theirs = {"NO_COLOR", "COLORTERM", "PROMPT_TOOLKIT_COLOR_DEPTH"}  # of the terminal in which the tests run
        environment = {name: value for name, value in os.environ.items() if name not in theirs}
        code = f"from tests.ui.fullscreen.test_app import main; main({str(folder)!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=ours,
            stdout=ours,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment | {"TERM": "xterm-256color"} | variables,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.terminal)
        os.close(self.ours)

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, what: str | Callable[[], bool]) -> str:
        """Read until ``what`` has been written, or holds; return all that was written until then."""
        deadline = time.monotonic() + 20
        since = len(self.written)
        while not (what in self.written[since:] if isinstance(what, str) else what()):
            assert time.monotonic() < deadline, self.written[since:]
            if select.select([self.terminal], [], [], 0.02)[0]:
                self.written += os.read(self.terminal, 65_536).decode("utf-8", "replace")
        return self.written[since:]

    def restored(self) -> bool:
        return termios.tcgetattr(self.ours) == self.before

    def cooked(self) -> bool:
        wanted = termios.ICANON | termios.ECHO | termios.ISIG
        flags: int = termios.tcgetattr(self.ours)[3]
        return flags & wanted == wanted

    def ended(self) -> bool:
        return self.process.poll() is not None


def main(folder: str) -> None:
    """What runs in the other process: a host, two members, and the face of one of them."""

    async def story() -> None:
        async with Room(Path(folder)) as room, room.member("bob") as bob, room.member("ann") as ann:
            await bob.say("你好, ann")
            await FullScreen(ann).run()

    asyncio.run(story())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    with Program(tmp_path) as program:
        screen = program.until("你好, ")
        assert "38;5;" in screen  # a colour of the 256
        assert not program.restored()
        program.process.send_signal(number)
        program.until("\x1b[?1049l")
        program.until(program.ended)
        assert program.process.returncode == 0
        assert program.restored()


def test_suspending_gives_the_terminal_back_until_it_goes_on(tmp_path: Path) -> None:
    with Program(tmp_path, NO_COLOR="1") as program:
        screen = program.until("你好, ")
        assert not re.search("\x1b\\[[0-9;]*[34]8;", screen)
        assert not re.search("\x1b\\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7])m", screen)
        program.type("half a li\x1a")
        program.until("\x1b[?1049l")
        program.until(lambda: os.WIFSTOPPED(_state(program.process.pid)))
        assert program.cooked()
        program.process.send_signal(signal.SIGCONT)
        program.until("half a li")
        assert not program.cooked()
        program.type("ne\r")
        program.until("✓")
        program.type("\x03\x03")
        program.until(program.ended)
        assert program.restored()


def _state(pid: int) -> int:
    return os.waitpid(pid, os.WNOHANG | os.WUNTRACED)[1]
