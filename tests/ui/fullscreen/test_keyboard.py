"""What a terminal is asked, on a pseudo-terminal: its replies are kept from the keys, and what is typed is kept.

The replies wait in the terminal's queue before they are asked for, so that nothing here depends on the clock.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import time
import tty
from contextlib import contextmanager
from copy import copy
from itertools import product
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit import utils
from prompt_toolkit.input.typeahead import get_typeahead
from wcwidth import iter_graphemes, wcswidth

from chat.ui.fullscreen import graphemes, keyboard
from chat.ui.fullscreen.keyboard import Answers, Keyboard
from chat.ui.fullscreen.terminal import Terminal
from chat.ui.fullscreen.wrapping import columns, sanitize
from tests.ui.fullscreen.stage import IN, Script, run, staged
from tests.ui.fullscreen.test_app import FAMILY, Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = "\x1b[1;3R" * 5 + "\x1b[1;2R"
APART = "\x1b[1;7R\x1b[1;5R\x1b[1;5R\x1b[1;2R\x1b[1;2R\x1b[1;3R"
BLACK, NAME, KIND = "\x1b]11;rgb:0000/0000/0000\x1b\\", "\x1bP>|kitty(0.35.2)\x1b\\", "\x1b[?62;22c"


class Desk:
    """A keyboard, and the other end of its terminal."""

    def __init__(self) -> None:
        self.end, self.ours = pty.openpty()
        tty.setraw(self.ours)
        self.keyboard = Keyboard(os.fdopen(self.ours, closefd=False))

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def ask(self, kind: str = "xterm", **environment: str) -> Answers:
        async def story() -> Answers:
            return self.keyboard.ask(Terminal(self.ours, lambda: None), {"TERM": kind, **environment})

        return asyncio.run(story())

    def stay_silent(self) -> None:
        """Ask, and give no answer."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(keyboard, "PATIENCE", 0)
            assert self.ask() == Answers()

    def early(self) -> str:
        """What was typed while the terminal was asked."""
        return "".join(key.data for key in get_typeahead(self.keyboard))

    def read(self) -> str:
        select.select([self.ours], [], [], 30)
        return "".join(key.data for key in self.keyboard.read_keys())

    def typed(self) -> str:
        """What has been typed, once nothing more comes."""
        return self.read() + "".join(key.data for key in self.keyboard.flush_keys())

    def asked(self) -> str:
        text = ""
        while not text.endswith("\x1b[c"):
            text += os.read(self.end, 4096).decode()
        return text


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(keyboard, "PATIENCE", 30)  # the machine may be busy; see ``stay_silent``
    made = Desk()
    yield made
    os.close(made.end)
    os.close(made.ours)


@contextmanager
def shown_whole(*kinds: str) -> Iterator[None]:
    graphemes.show_whole(kinds or graphemes.SAMPLES)
    try:
        yield
    finally:
        graphemes.show_whole(())


def test_a_terminal_that_answers_all(desk: Desk) -> None:
    desk.type(WHOLE + BLACK + NAME + KIND)
    assert desk.ask() == Answers(frozenset(graphemes.SAMPLES), False, 0.0, "kitty(0.35.2)")
    assert not desk.early()
    asked = desk.asked()
    assert asked.index("\x1b[?1049h") < asked.index(FAMILY[:3]) < asked.index("\x1b[?1049l")  # leaves no trace
    assert asked.endswith("\x1b[c")


def test_what_is_typed_meanwhile_is_kept_in_order(desk: Desk) -> None:
    desk.type("a" + APART[:6] + "你b" + APART[6:] + "\x1b[A" + BLACK + "cd" + KIND)
    assert desk.ask() == Answers(is_wide=True, background=0.0)
    assert desk.early() == "a你b\x1b[Acd"


@pytest.mark.parametrize("begin", range(1, len(BLACK + NAME + KIND)))
def test_a_late_reply_never_becomes_keys_wherever_it_is_cut(desk: Desk, begin: int) -> None:
    desk.stay_silent()
    late = BLACK + NAME + KIND
    desk.type("x" + late[:begin])
    typed = desk.read()
    desk.type(late[begin:] + "y")
    assert typed + desk.typed() == "xy"


def test_an_escape_and_keys_with_alt_are_still_keys(desk: Desk) -> None:
    desk.stay_silent()
    for key in ("\x1b", "\x1b]", "\x1b[", "\x1bP", "\x1b[1;5A", "\x1bOP"):
        desk.type(key)
        assert desk.typed() == key
    desk.type("\x1b[200~two\nlines\x1b[201~")  # a paste: one key
    assert desk.typed() == "two\nlines"


@pytest.mark.parametrize(
    "nonsense",
    ["\x1b]11;purple\x07" + KIND, "\x1b[999;999R" * 9 + KIND, "\x1b]11;rgb:1/2\x1b\\" + KIND, "\x1bP>|\x1b\\\x1b[?c"],
)
def test_nonsense_is_no_answer_and_no_key(desk: Desk, nonsense: str) -> None:
    desk.type(nonsense)
    assert desk.ask() == Answers()
    assert not desk.early()


def test_a_dumb_terminal_is_not_asked_and_the_console_not_in_strings(desk: Desk) -> None:
    desk.ask("dumb")
    desk.type(KIND)
    desk.ask("linux")
    asked = desk.asked()
    assert asked.count("\x1b[c") == 1
    assert "\x1b]" not in asked


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, keyboard.PATIENCE), ({"SSH_CONNECTION": "1 2 3 4"}, keyboard.FAR_PATIENCE)]
)
def test_a_silent_terminal_is_waited_for_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: float
) -> None:
    waits = []
    monkeypatch.undo()  # the real patience, but no time passes

    def no_reply(*given: object) -> tuple[list[int], ...]:
        waits.append(given[-1])
        return [], [], []

    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(select, "select", no_reply)
    assert desk.ask(**environment) == Answers()
    assert waits == [pytest.approx(expected)]


def test_reports_of_the_focus_are_no_keys(desk: Desk) -> None:
    assert [desk.keyboard.has_focus] == [None]
    desk.type("a\x1b[Ob")
    assert desk.typed() == "ab"
    assert [desk.keyboard.has_focus] == [False]
    desk.type("\x1b[I")
    assert not desk.typed()
    assert [desk.keyboard.has_focus] == [True]


@pytest.mark.parametrize(
    ("colour", "expected"),
    [("rgb:ff/ff/ff", "light"), ("rgb:1e1e/1e1e/1e1e", "dark"), ("rgba:0000/0000/0000/ffff", "dark")],
)
def test_the_theme_follows_the_background(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, colour: str, expected: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    desk.type(f"\x1b]11;{colour}\x07{KIND}")
    answers = desk.ask()

    async def story() -> None:
        async with staged(Script(IN).client) as stage:
            assert stage.face.app._theme() == "auto"
            stage.face.app.answers = answers
            assert stage.face.app._theme() == expected

    run(story())


def test_the_whole_face_on_a_terminal_that_answers(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        program.until("\x1b[c")
        program.type(f"ty{WHOLE}{BLACK}ped {KIND}{FAMILY}")
        asked = len(program.written)
        program.until(lambda: FAMILY in program.written[asked:] and "\x1b]2;#" in program.written)
        assert "typed" in program.written
        program.type("\x1b[I\x1b[O!\x03\x03\x03")
        program.until(program.ended)
        assert program.restored()
    assert not re.search(r"(?<!\x1b)\[[IO]", program.written)
    assert program.written.count("\x1b[?1004h") == program.written.count("\x1b[?1004l") == 1
    assert program.written.count("\x1b[22;2t") == program.written.count("\x1b[23;2t") == 1


# -- emoji of several code points ---------------------------------------------------------------------


@pytest.mark.parametrize("text", [FAMILY, "\U0001f1e8\U0001f1f3", "❤\ufe0f", "👍🏽", "☝\ufe0f🏽", "1\ufe0f\u20e3"])
def test_an_emoji_shows_whole_where_the_terminal_can(text: str) -> None:
    with shown_whole():
        fitted = sanitize(f"a {text} b")
        assert columns(fitted) == 6
        assert graphemes.spell_out(fitted) == f"a {text} b"
        assert "".join(graphemes.pieces(f"a {text} b")) == fitted


@pytest.mark.parametrize("sign", ["\U0001f3fd", "\ufe0f", "\ufe0f\U0001f3fd"])
def test_no_cell_holds_more_than_an_emoji_is_made_of(sign: str) -> None:
    with shown_whole():
        assert len(graphemes.spell_out(sanitize("\U0001f44d" + sign * 1000))) <= 3


def test_each_kind_shows_whole_by_itself() -> None:
    with shown_whole("tone"):
        shown = sanitize("👨🏽\u200d👩 \U0001f1e8\U0001f1f3 👍🏽")
        assert graphemes.spell_out(shown) == "👨🏽 CN 👍🏽"


def test_an_emoji_is_whole_only_where_the_terminal_can_do_all_that_is_in_it() -> None:
    text = "🏳\ufe0f\u200d🌈 ☝\ufe0f🏽 👩🏽\u200d💻 👩\u200d💻"
    with shown_whole("family", "flag"):  # tmux 3.3
        assert graphemes.spell_out(sanitize(text)) == "🏳 ☝ 👩 👩\u200d💻"
    with shown_whole():
        assert graphemes.spell_out(sanitize(text)) == text


def test_signs_are_ascii_where_they_would_take_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_CHAR_SIZES_CACHE", copy(utils._CHAR_SIZES_CACHE))
    monkeypatch.setattr(graphemes, "_narrowed", {})
    text = "│ ● Жé… ╰─╯ · ✓ 你 \ufffd"
    assert graphemes.spell_out(text) == text
    graphemes.widen()
    written = graphemes.spell_out(text)
    assert written == "| * Жé. +-+ . ✓ 你 \ufffd"
    assert columns(text) == wcswidth(written, ambiguous_width=2)


def test_no_peer_writes_a_stand_in() -> None:
    with shown_whole():
        stand_in = sanitize(FAMILY)
        assert len(stand_in) == 1
        assert sanitize(stand_in) == "\ufffd"


def test_after_so_many_the_others_show_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown_whole():
        sanitize(FAMILY)
        monkeypatch.setattr(graphemes, "MAX_WHOLE", len(graphemes._sequences))
        assert sanitize("👩\u200d🚒 \U0001f1eb\U0001f1ee") == "👩 FI"
        assert columns(sanitize(FAMILY)) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_terminal_that_joins_graphemes_counts_as_we_do(*, whole: bool) -> None:
    """Beside each other, too: a tone, a joiner or a flag's half must not join what stands before it."""
    parts = ["a", "👨", "🏽", "\u200d", "\ufe0f", "\U0001f1e8", "\U0001f1f3", "❤", "1\ufe0f\u20e3", " "]
    with shown_whole(*(() if whole else ("none",))):
        for made in product(parts, repeat=4):
            fitted = sanitize("x" + "".join(made))
            written = graphemes.spell_out(fitted)
            assert sum(map(wcswidth, iter_graphemes(written))) == columns(fitted), ascii(written)
