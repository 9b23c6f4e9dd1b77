"""The whole full-screen face on a terminal of changing size: keys, pastes, peers, lost links and resizes in any order.

    keys, pastes ─▶ pipe ─▶ face ─▶ Vt100_Output ─┬▶ what is written: no text that a terminal obeys
    bob, cid ─▶ host in this process ──▶ client ──┘▶ a terminal made of slots: each as prompt_toolkit means it

After each step all that is due has happened, and the face is drawn; there is nothing to wait for by the clock.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import select
import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyte
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.input.ansi_escape_sequences import REVERSE_ANSI_SEQUENCES
from prompt_toolkit.key_binding.key_processor import _Flush
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth

from chat.client import connection as connection_module
from chat.client.client import Client
from chat.client.target import Target
from chat.core.errors import ChatError
from chat.core.outgoing import Outgoing
from chat.core.session import LinkState
from chat.core.text import nickname
from chat.core.wire import Kind
from chat.local.identity import Identity
from chat.local.keys import KEYS
from chat.local.known_hosts import KnownHosts
from chat.ui import ring as ring_module
from chat.ui.commands import COMMANDS
from chat.ui.fullscreen import viewport as viewport_module
from chat.ui.fullscreen.face import FullScreen
from tests.host.host_fixture import HostFixture, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

# What no slot may hold and no text that is written: controls, bidi controls, line breaks, tags, halves of pairs.
OBEYED: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e0fff]"
)
SIDE_BAR: Final = 19  # columns with its border, from 60 columns on
LEAST: Final = (4, 2)  # columns and rows: with fewer, the input has no room for a wide character

# -- a terminal made of slots --------------------------------------------------------------------------


class Slots(pyte.Screen):
    """pyte's screen. pyte 0.8.2 drops all that follows some marks; here every mark joins the letter before it."""

    def draw(self, data: str) -> None:
        for char in data:
            width = get_cwidth(char)
            if width:
                super().draw("你" if width == 2 else "x")
                at = self.cursor.x - width
                self.buffer[self.cursor.y][at] = self.cursor.attrs._replace(data=char)


class Terminal(Vt100_Output):
    """What prompt_toolkit writes to: it is checked, and drawn into slots."""

    def __init__(self, columns: int, rows: int) -> None:
        self.size = Size(rows=rows, columns=columns)
        self.file = io.StringIO()
        super().__init__(self.file, lambda: self.size, term="xterm-256color", enable_cpr=False)
        self.slots = Slots(columns, rows)
        self._stream = pyte.Stream(self.slots)
        self.written = ""  # as text, since it was checked last

    def write(self, data: str) -> None:
        self.written += data.strip("\r\n")  # its way to another row is written as text
        super().write(data)

    def draw(self) -> None:
        self._stream.feed(self.file.getvalue())
        self.file.seek(0)
        self.file.truncate()

    def resize(self, columns: int, rows: int) -> None:
        self.draw()
        self.size = Size(rows=rows, columns=columns)
        self.slots.resize(rows, columns)

    def row(self, y: int) -> list[str]:
        """The letters of a row, without their marks; a wide one's second slot is empty."""
        row = self.slots.buffer[y]
        return [row[x].data for x in range(self.size.columns)]


# -- what is typed, and what is said -------------------------------------------------------------------

FAMILY: Final = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
WORDS: Final = (
    *("a", " ", "\n", "ann", "@ann ", "**b** ", "`c` ", "> ", "- ", "```\n", "http://x/", ":smile:", "word " * 9),
    *("你好", "，", "，一二三四五六七八九十" * 3, "はな", "가나", "\u1100\u1161", "ﾊﾝ", "\u3000"),  # noqa: RUF001
    *("مرحبا", "שלום", "สวัสดี", "नमस्ते", "क्\u200dष", "का"),
    *(FAMILY, "\U0001f1e8\U0001f1f3", "❤\ufe0f", "👍🏽", "1\ufe0f\u20e3"),
    *("e\u0301", "\u0301" * 12, "\u0301\u0301x", "\u200d", "\ufe0f", "\u00a0", "\u00ad", "\ufeff", "\ue000", "\ufffe"),
    *("\t", "\r", "\x1b[31m", "\x1b]0;x\x07", "\x1b]52;c;eA==\x07", "\x9b2J", "\x9d0;x\x9c", "\x90q\x9c", "\x85"),
    *("\x00", "\x0e"),
    *("\u202e", "\u2066x\u2069", "\u200f", "\u061c", "\u2028", "\u2029", "\U000e0041\U000e007f", "\U0010ffff"),
    *("[ZeroWidthEscape]", "class:bar", "\x01\x02", "\x7f", "\x08", "\u0e33", "\u0eb3", "\U0001f3fb", "x" * 70),
)  # fmt: skip
texts: Final = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
)
NICKS: Final = ("bob", "小明", "はな", "민준", "عمر", "דנה", "नेहा", "b" * 32, "语" * 16)
sizes: Final = st.one_of(
    st.tuples(st.integers(1, 30), st.integers(1, 8)),
    st.tuples(st.integers(1, 90), st.integers(1, 30)),
    st.sampled_from([(1, 1), (2, 2), (80, 24), (59, 24), (60, 24), (120, 40), (20, 5), (200, 60), (60, 3), (3, 60)]),
)
ENCODED: Final = {key.value: data for key, data in REVERSE_ANSI_SEQUENCES.items()}
# Suspending stops the program, and leaving ends it: both are tested on a real terminal, too.
BOUND: Final = [
    "".join(ENCODED.get(key, key) for key in keys)
    for row in KEYS
    if row.action not in {"suspend", "leave", "leave-if-empty"}
    for keys in row.sequences
]
EDITS: Final = [
    *("\t", "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x01", "\x05", "\x17", "\x1b[3~", "\x7f", "\x1bb", "\x1bf"),
    *("\x00", "\x0b", "\x19", "\x1f", "\x14", "\x1bd", "\x1b<", "\x1b>", "\x12", "\x18(", "\x18)", "\x18e", "\x1b5"),
]
# What terminals send by themselves: the mouse in and outside of the screen, a cursor's place, a focus; and halves.
REPORTS: Final = [
    *("\x1b[<64;5;2M", "\x1b[<65;5;2M", "\x1b[<0;3;3M", "\x1b[<0;3;3m", "\x1b[<0;300;300M", "\x1b[<64;1;1M"),
    *("\x1b[5;5R", "\x1b[I", "\x1b[O", "\x1b[", "\x1b[1;", "\x1bO", "\x9b", "\x1b]11;rgb:0/0/0\x07", "\x1b[M !!"),
]
ARGUMENTS: Final = {
    "NICK": ["bob", "cid", "ann", "nobody", "小明"],
    "TARGET": ["tea", "lobby", "nowhere", "bad name", "\u202e"],
    "ROOM": ["1", "2", "9", "0", "t", "zz", "("],
    "THEME": ["dark", "light", "none", "high-contrast", "pink"],
    "SETTING": ["mouse", "side_bar", "bell", "nothing", "time_format", "muted", "keys.send"],
    "VALUE": ["true", "always", "never", "auto", "%H", "x"],
    "EMOJI": ["👍", ":smile:", "你好你好你好", "\u202e"],
    "COMMAND": ["help", "hlp", "page-up", "\u202e"],
}


@st.composite
def commands(draw: st.DrawFn) -> str:
    usage = draw(st.sampled_from([usage for usage in COMMANDS if usage.name not in {"quit", "peer"}]))
    parts = [f"/{usage.name}"]
    for sketch in usage.argument.split():
        if sketch[0] == "[" and draw(st.booleans()):
            break
        parts.append(draw(st.sampled_from(ARGUMENTS.get(sketch.strip("[]"), ["你好 there"]))))
    return " ".join(parts)


# -- the machine ---------------------------------------------------------------------------------------


class Faults(logging.Handler):
    """What asyncio complains of: callbacks that fail, tasks that nobody asked for their errors."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


class Whole(RuleBasedStateMachine):
    """ann's face, and bob and cid who are in the room with her."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="whole-", dir="/tmp"))
        self.opened = ExitStack()
        self.opened.callback(shutil.rmtree, self.folder)
        patch = self.opened.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(connection_module, "_FIRST_DELAY", 0.001)
        patch.setattr(connection_module, "_LAST_DELAY", 0.001)
        patch.setattr(ring_module, "RING", 60)  # so that things have to go, at either end
        for name, size in (("_PAGE", 15), ("_CHECKED", 25), ("_MARGIN", 15), ("_AT_STAKE", 20)):
            patch.setattr(viewport_module, name, size)
        for name in ("EDITOR", "VISUAL", "TMUX", "STY", "NO_COLOR"):
            patch.delenv(name, raising=False)
        self.faults = Faults()
        logging.getLogger("asyncio").addHandler(self.faults)
        self.opened.callback(logging.getLogger("asyncio").removeHandler, self.faults)
        self.terminal = Terminal(80, 24)
        self.keys = self.opened.enter_context(create_pipe_input())
        self.opened.enter_context(create_app_session(input=self.keys, output=self.terminal))
        self.runner = self.opened.enter_context(asyncio.Runner())
        self.members: dict[str, Client] = {}
        self.linked = True
        self.task: asyncio.Task[None] | None = None

    def do(self, *steps: Awaitable[Any]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                for step in steps:
                    await step
                await self.settle()

        self.runner.run(bounded())

    # -- who is there ----------------------------------------------------------------------------

    @initialize(size=sizes)
    def begin(self, size: tuple[int, int]) -> None:
        self.terminal.resize(*size)
        self.do(self.open(), self.sit_down())

    async def open(self) -> None:
        self.house = HostFixture(self.folder / "house")
        await self.open_rooms()
        for name in ("bob", "cid"):
            await self.come(name, name)

    async def open_rooms(self) -> None:
        await self.house.open()
        self.hosted = {"lobby": self.house.hosted, "tea": self.house.add_room("tea")}

    async def come(self, name: str, nick: str) -> None:
        member = self.members[name] = self.client(name, nick)
        await member.__aenter__()

    def client(self, name: str, nick: str, room: str = "lobby") -> Client:
        return Client(
            lambda: Target((self.house.address,), room),
            Identity.load(self.folder / f"{name}.pem"),
            KnownHosts(self.folder / f"{name}.hosts"),
            outboxes=self.folder / f"{name}.outboxes",
            nick=nick,
            history=20,
            looks=True,
        )

    def opener(self, target: str) -> Client:
        if target not in {"tea", "lobby", "nowhere"}:
            raise ChatError(f"there is no room {target}")
        return self.client("ann", "ann", target)

    async def sit_down(self) -> None:
        self.ann = self.client("ann", "ann")
        await self.ann.__aenter__()
        self.face = FullScreen(self.ann, opener=self.opener)
        self.task = asyncio.ensure_future(self.face.run())
        await until(lambda: self.face.app.is_running and self.face.app.render_counter, "the face is drawn")

    async def get_up(self) -> None:
        """Leave, whether or not the face has ended, and see how it has."""
        assert self.task is not None
        self.face.app.leave()
        await self.task
        await self.ann.aclose()
        self.terminal.draw()
        assert not self.terminal.slots.mode & {mode << 5 for mode in (1049, 2004, 1000, 1003, 1006, 1015)}
        assert pyte.modes.DECTCEM in self.terminal.slots.mode  # the cursor shows
        assert pyte.modes.DECAWM in self.terminal.slots.mode

    def teardown(self) -> None:
        async def leave() -> None:
            async with asyncio.timeout(30):
                if self.task is not None:
                    await self.get_up()
                for member in self.members.values():
                    await member.aclose()
                if self.linked:
                    await self.house.close()
                await until(lambda: len(asyncio.all_tasks()) == 1, "the tasks have ended")

        try:
            if hasattr(self, "house"):
                self.runner.run(leave())
            assert not self.faults.told, "\n".join(self.faults.told)
        finally:
            self.opened.close()

    # -- all that is due -------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let all happen that needs no clock, then draw."""
        for _ in range(2):  # what has come may have the face do something
            await until(lambda: not self.is_busy(), "the face has done what it was told")
            for _ in range(10):
                await asyncio.sleep(0)
        if self.task is not None and not self.task.done():
            self.face.app._redraw()
        self.terminal.draw()

    def is_busy(self) -> bool:
        if self.task is None or self.task.done():
            return False
        for member in self.members.values():
            member.take()
        views = self.face.controller.rooms
        keys = select.select([self.keys.fileno()], [], [], 0)[0]
        if keys or self.face.app.key_processor.input_queue or any(view.client.events for view in views):
            return True
        if not self.linked:
            return any(client.session.state is not LinkState.OFF for client in self.everybody())
        return any(self.is_behind(client) for client in self.everybody()) or any(view.work for view in views)

    def everybody(self) -> Iterator[Client]:
        yield from self.members.values()
        yield self.ann
        yield from (view.client for view in self.face.controller.rooms if view.client.connection._tasks)

    def is_behind(self, client: Client) -> bool:
        session = client.session
        kept = self.hosted.get(session.room)  # None of the room of two
        return (
            session.state is not LinkState.JOINED
            or bool(session.unsettled)
            or (kept is not None and session.next_seq < kept.room.log.end)
        )

    async def press(self, keys: str) -> None:
        for at in range(0, len(keys), 8192):  # a pipe holds 64 KiB
            self.keys.send_text(keys[at : at + 8192])
            await until(lambda: not select.select([self.keys.fileno()], [], [], 0)[0], "the keys have been read")

    async def pause(self) -> None:
        """What a second without a key does: an Escape was only that."""
        if self.task is not None and not self.task.done():
            processor = self.face.app.key_processor
            processor.feed_multiple(self.keys.flush_keys())
            processor.process_keys()
            processor.feed(_Flush)
            processor.process_keys()

    # -- what she does ---------------------------------------------------------------------------

    @rule(keys=st.lists(st.sampled_from(BOUND + EDITS), min_size=1, max_size=6))
    def presses(self, keys: list[str]) -> None:
        for key in keys:
            self.do(self.press(key), self.pause())

    @rule(keys=st.lists(st.sampled_from(BOUND + EDITS + REPORTS + ["\x1b", "x"]), min_size=1, max_size=8))
    def drums(self, keys: list[str]) -> None:
        """Keys that come all at once."""
        self.do(self.press("".join(keys)), self.pause())

    @rule(text=texts)
    def types(self, text: str) -> None:
        self.do(self.press(text.replace("\x1a", "").replace("\x03", "").replace("\x04", "")), self.pause())

    @rule(text=texts)
    def says(self, text: str) -> None:
        self.do(self.press(text.translate(dict.fromkeys(range(32))) + "\r"), self.pause())

    @rule(command=commands())
    def commands(self, command: str) -> None:
        self.face.input.reset()
        self.face.composer.discard()
        self.do(self.press(command), self.press("\r"), self.pause())

    @rule(text=texts, times=st.sampled_from([1, 1, 30, 3000]))
    def pastes(self, text: str, times: int) -> None:
        self.do(self.press(f"\x1b[200~{text * times}\x1b[201~"), self.pause())

    @rule(data=st.binary(min_size=1, max_size=6).filter(lambda data: not {3, 4, 26} & set(data)))
    def sends_bytes(self, data: bytes) -> None:
        """A terminal that is not set to UTF-8, or noise on a line."""
        self.keys.send_bytes(data)
        self.do(self.pause())

    @rule()
    def escapes(self) -> None:
        for _ in range(8):  # out of a key that wants another one, a menu, a list, and what is being done
            self.do(self.press("\x1b"), self.pause())
        assert self.face.controller.begun is None
        assert self.face.pane.selected is None
        assert not self.face.composer.question
        self.face.input.reset()
        self.do(self.press("x"), self.pause())
        assert self.face.input.text == "x"

    @rule(key=st.sampled_from(["\x03\x03", "\x04", "/quit\r"]))
    def leaves_and_comes_back(self, key: str) -> None:
        assert self.task is not None
        if not self.linked:
            return
        self.do(self.press("\x1b"), self.pause())
        self.face.composer.discard()
        self.face.input.reset()
        self.do(self.press(key))
        assert self.task.done()
        self.do(self.get_up(), self.sit_down())

    @rule(size=sizes)
    def resizes(self, size: tuple[int, int]) -> None:
        before = self.face.input.text, self.face.input.cursor_position, self.face.composer.buffer.pasted

        async def resize() -> None:
            self.terminal.resize(*size)
            self.face.app._on_resize()  # what SIGWINCH calls

        self.do(resize())
        assert (self.face.input.text, self.face.input.cursor_position, self.face.composer.buffer.pasted) == before

    # -- what others do --------------------------------------------------------------------------

    @precondition(lambda self: self.linked)
    @rule(
        name=st.sampled_from(["bob", "cid"]),
        text=texts,
        kind=st.sampled_from([1, 1, 1, Kind.ACTION, Kind.EDIT, Kind.RETRACT, Kind.REACT, 9]),
        back=st.integers(0, 12),
        times=st.sampled_from([1, 1, 1, 40]),
    )
    def hears(self, name: str, text: str, kind: int, back: int, times: int) -> None:
        member = self.members.get(name)
        if member is None:
            return
        target = max(0, member.session.next_seq - back) if back or kind != Kind.SAY else 0
        self.do(*(member.say(Outgoing(text, kind, target)) for _ in range(times)))

    @precondition(lambda self: self.linked)
    @rule(keys=st.sampled_from(["\x1b[1;5H", "\x1b[5~" * 9, "\x1b[6~" * 9, "\x1bu"]), times=st.sampled_from([0, 0, 90]))
    def reads_far_up(self, keys: str, times: int) -> None:
        """More is said than the ring takes, and she goes to where it begins, or to the end."""
        if (bob := self.members.get("bob")) is not None:
            self.do(*(bob.say(f"{n} of many") for n in range(times)))
        self.do(self.press("\x1b"), self.pause(), self.press(keys), self.pause())

    @precondition(lambda self: self.linked)
    @rule(name=st.sampled_from(["bob", "cid"]), nick=st.sampled_from(NICKS))
    def comes_or_goes(self, name: str, nick: str) -> None:
        member = self.members.pop(name, None)
        self.do(self.come(name, nickname(nick)) if member is None else member.aclose())

    @precondition(lambda self: self.linked)
    @rule(name=st.sampled_from(["bob", "cid"]), nick=st.sampled_from(NICKS))
    def takes_another_name(self, name: str, nick: str) -> None:
        if name in self.members:
            self.do(self.members.pop(name).aclose(), self.come(name, nickname(nick)))

    @rule(name=st.sampled_from(["bob", "cid"]), note=texts, typing=st.booleans(), level=st.integers(1, 3))
    def shows(self, name: str, note: str, typing: bool, level: int) -> None:
        if name in self.members:

            async def show() -> None:
                with suppress(ValueError):  # too long
                    self.members[name].show(note=note, typing=typing, level=level)

            self.do(show())
            self.face.view.look()

    @precondition(lambda self: self.linked)
    @rule(text=texts)
    def is_told(self, text: str) -> None:
        async def tell() -> None:
            self.house.hosted.announce("peer-exited", nick=text, status=1)

        self.do(tell())

    @precondition(lambda self: self.linked)
    @rule(text=texts)
    def is_spoken_to_alone(self, text: str) -> None:
        """By bob, in a room of the two."""
        if "bob" not in self.members:
            return

        async def speak() -> None:
            async with self.members["bob"].direct(self.ann.session.key) as direct:
                await direct.say(text)
                await direct.settled()

        self.do(speak())

    @precondition(lambda self: self.linked)
    @rule()
    def is_cut_off(self) -> None:
        self.linked = False
        self.do(self.house.close())

    @precondition(lambda self: not self.linked)
    @rule()
    def is_back(self) -> None:
        self.linked = True
        self.do(self.open_rooms())

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        """All of this, after each step."""
        if self.task is None:
            return
        self.the_face_runs()
        self.nothing_is_written_that_a_terminal_obeys()
        self.every_cell_is_where_it_is_meant_to_be()
        self.the_border_is_whole()
        self.the_input_is_in_view()
        self.nothing_is_counted_below_nothing()
        self.a_window_has_all_of_its_part_of_the_log()
        self.what_is_in_the_log_is_known()

    def the_face_runs(self) -> None:
        assert self.task is not None
        if self.task.done():
            self.task.result()
            raise AssertionError("the face has ended")
        assert not self.faults.told, "\n".join(self.faults.told)

    def nothing_is_written_that_a_terminal_obeys(self) -> None:
        found = OBEYED.findall(self.terminal.written)
        self.terminal.written = ""
        assert not found, ascii(found)

    def every_cell_is_where_it_is_meant_to_be(self) -> None:
        screen = self.face.app.renderer.last_rendered_screen
        assert screen is not None
        assert not any(screen.zero_width_escapes.values())
        columns, rows = self.terminal.size.columns, self.terminal.size.rows
        for y in range(rows if columns >= LEAST[0] else 0):
            row = screen.data_buffer[y]
            meant: list[str] = []
            while len(meant) < columns:
                text = row[len(meant)].char
                assert text, (y, len(meant), "half of a wide character")
                assert not OBEYED.search(text), ascii(text)
                for char in text:
                    meant += [char, ""][: get_cwidth(char)]
            assert len(meant) == columns, (y, meant[-2], "does not fit")
            assert self.terminal.row(y) == meant, (y, self.terminal.size)

    def the_border_is_whole(self) -> None:
        columns, rows = self.terminal.size.columns, self.terminal.size.rows
        app, panel = self.face.app, self.face.panel
        if not app._is_wide() or self.face.input.complete_state or panel.is_open or rows < 4 or columns < 60:
            return
        below = app._divider_rows() + min(self.face.input.text.count("\n") + 1, rows) + 1
        above = 1 + app._is_ruled()
        border = [self.terminal.row(y)[columns - SIDE_BAR] for y in range(above, max(above, rows - below - rows // 3))]
        assert set(border) <= {"│"}, border

    def the_input_is_in_view(self) -> None:
        columns, rows = self.terminal.size.columns, self.terminal.size.rows
        if columns < LEAST[0] or rows < LEAST[1]:
            return
        cursor = self.terminal.slots.cursor
        shown = ["".join(self.terminal.row(y)) for y in range(rows)]
        if self.face.panel.is_open:  # what is typed goes there
            return
        assert self.face.app.layout.current_control is self.face.composer.control
        assert 2 <= cursor.x <= columns, (cursor.x, cursor.y, shown)
        assert any(row.startswith("> ") for row in shown[: cursor.y + 1]), (cursor.x, cursor.y, shown)
        assert not cursor.hidden

    def nothing_is_counted_below_nothing(self) -> None:
        for view in self.face.controller.rooms:
            state = view.timeline.read_state
            assert 0 <= state.mentions <= state.unread
            assert view.lag >= 0
            first, last = view.pane.in_view
            assert (
                (first, last) == (0, -1)
                or view.window.first <= first <= last < view.window.last
                or view is not self.face.view
                or self.terminal.size.rows < 4  # then the pane may not be drawn
            )

    def a_window_has_all_of_its_part_of_the_log(self) -> None:
        if not self.linked:
            return
        view = self.face.controller.rooms[0]
        frames = {frame.seq: frame for frame in self.house.log()}
        for window in (view.timeline, view.past):
            if window is not None and not window.ignored and not window._base:
                assert window.end - window.first <= 60
                held = range(max(window.oldest, 1), window.last_seq + 1)
                said = [seq for seq in held if seq in frames and frames[seq].kind in {Kind.SAY, Kind.ACTION, 9}]
                assert [seq for seq in held if window.at_seq(seq) is not None] == said

    def what_is_in_the_log_is_known(self) -> None:
        if self.linked:
            assert self.face.controller.rooms[0].timeline.last_seq >= self.last_said()
            assert not self.face.controller.rooms[0].timeline._pending

    def last_said(self) -> int:
        frames = self.house.log()
        return max((frame.seq for frame in frames if frame.kind < 16), default=0)


class TestWhole(Whole.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=10, stateful_step_count=30, deadline=None, derandomize=True)


@pytest.mark.slow
class TestWholeForLong(Whole.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
