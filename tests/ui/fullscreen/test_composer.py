"""The input: drafts and pastes, in an application that runs without a terminal."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import Layout, Window
from prompt_toolkit.output import DummyOutput

from chat.core.errors import ChatError
from chat.core.wire import MAX_TEXT
from chat.ui.fullscreen.composer import Composer
from chat.ui.fullscreen.wrapping import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from prompt_toolkit.input import PipeInput

NICKS = ("ann", "Anna-Lena", "bob", "小明", "हिन्दी", "an\x1bevil")
SOURCES: dict[str, Callable[[], tuple[str, ...]]] = {
    "NICK": lambda: NICKS,
    "ROOM": lambda: ("lobby", "lounge", "茶馆"),
    "THEME": lambda: ("dark", "light"),
    "SETTING": lambda: ("theme", "bell"),
}


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10) as limit:
            await story
        assert not limit.expired()

    asyncio.run(bounded())


class Stage:
    """A composer that keys are typed into. Enter sends, as an owner would do it; F1 and F2 go to two rooms."""

    def __init__(self, keys: PipeInput, folder: Path | None, confirm_lines: int) -> None:
        self.type = keys.send_text
        self.told: list[str] = []
        self.sent: list[str] = []
        self.left = 0
        self.changed = asyncio.Event()
        self.composer = Composer(SOURCES, self.told.append, folder=folder, confirm_lines=confirm_lines)
        self.composer.restore("lobby")
        bindings = KeyBindings()
        bindings.add("enter")(lambda _event: self._send())
        bindings.add("c-j")(lambda _event: self.composer.buffer.insert_text("\n"))
        bindings.add("f1")(lambda _event: self.composer.restore("lobby"))
        bindings.add("f2")(lambda _event: self.composer.restore("lounge"))
        bindings.add("c-c")(lambda _event: self._leave())
        bindings.add("<sigint>")(lambda _event: self._leave())
        bindings.add("c-x", "c-e")(lambda event: event.app.create_background_task(self.composer.edit()) and None)
        self.app: Application[None] = Application(Layout(Window(self.composer.control)), key_bindings=bindings)
        self.app.after_render += lambda _: self.changed.set()

    def _send(self) -> None:
        self.sent.append(self.composer.buffer.text)
        self.composer.buffer.reset(append_to_history=True)

    def _leave(self) -> None:
        self.left += 1

    @property
    def text(self) -> str:
        return self.composer.buffer.text

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def staged(folder: Path | None = None, confirm_lines: int = 20) -> AsyncIterator[Stage]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        stage = Stage(keys, folder, confirm_lines)
        task = asyncio.create_task(stage.app.run_async())
        try:
            await stage.until(lambda: stage.app.is_running)
            yield stage
        finally:
            if not task.done():
                stage.app.exit()
            await task


def pasted(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


# -- rooms --------------------------------------------------------------------------------------------


def test_each_room_has_its_own_draft_and_history() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type("said in the lobby\rdraft one\x1bOQ")  # F2
            await stage.until(lambda: stage.sent and stage.text == "")
            stage.type("said in the lounge\rdraft two\x1bOP")  # F1
            await stage.until(lambda: stage.text == "draft one")
            stage.type("\x15\x1b[A")  # nothing, then up
            await stage.until(lambda: stage.text == "said in the lobby")
            stage.type("\x1bOQ")
            await stage.until(lambda: stage.text == "draft two")
            stage.type("\x15\x1b[A")
            await stage.until(lambda: stage.text == "said in the lounge")
            stage.composer.forget("lobby")
            stage.type("\x1bOP")
            await stage.until(lambda: stage.text == "")

    run(story())


def test_what_could_not_be_sent_is_above_what_was_typed_since_in_its_room() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type("since")
            await stage.until(lambda: stage.text == "since")
            stage.composer.give_back("refused", "lobby")
            stage.composer.give_back("refused there", "lounge")
            assert stage.text == "refused\nsince"
            stage.composer.restore("lounge")
            assert stage.text == "refused there"

    run(story())


def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ChatError, match="700"):
        Composer(SOURCES, print, folder=tmp_path)


# -- pastes -------------------------------------------------------------------------------------------


def test_a_paste_is_cleaned_and_never_sent() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type("a" + pasted("one\r\ntwo\rthree\n\tfour\x07\x1b[31m\x7f\x9b") + "b")
            await stage.until(lambda: stage.text.endswith("b"))
            assert stage.text == "aone\ntwo\nthree\n\tfour[31mb"
            assert stage.sent == []
            stage.type("\r")
            await stage.until(lambda: stage.sent)
            assert stage.sent == ["aone\ntwo\nthree\n\tfour[31mb"]

    run(story())


def test_a_paste_of_twenty_lines_is_taken_and_of_one_more_is_asked_about() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type(pasted("x\n" * 20))  # the last line is ended
            await stage.until(lambda: stage.text.count("\n") == 20)
            stage.type("\x15".join([""] * 21) + "\r")
            await stage.until(lambda: stage.sent)
            long = "\n".join("y" * 21)
            stage.type("a" + pasted(long))
            await stage.until(lambda: stage.composer.buffer.pasted)
            assert stage.text == "a"
            assert (
                stage.composer.question
                == "Enter puts it into the input, Escape drops it: 21 lines are pasted, 41 bytes"
            )
            stage.type("\r")
            await stage.until(lambda: not stage.composer.buffer.pasted)
            assert stage.text == "a" + long
            assert len(stage.sent) == 1  # that Enter did not send
            assert stage.composer.question == ""
            stage.type("\r")
            await stage.until(lambda: len(stage.sent) == 2)

    run(story())


@pytest.mark.parametrize("key", ["\x1b", "\x03"], ids=["escape", "ctrl-c"])
def test_a_paste_that_is_not_wanted_is_dropped_and_nothing_else(key: str) -> None:
    async def story() -> None:
        async with staged(confirm_lines=2) as stage:
            stage.type("kept" + pasted("1\n2\n3"))
            await stage.until(lambda: stage.composer.buffer.pasted)
            stage.type(key)
            await stage.until(lambda: not stage.composer.buffer.pasted)
            assert stage.text == "kept"
            assert stage.left == 0
            stage.type("\x03")
            await stage.until(lambda: stage.left)  # and then it is the owner's key again

    run(story())


def test_a_paste_that_waits_stays_in_its_room_and_grows_by_the_next() -> None:
    async def story() -> None:
        async with staged(confirm_lines=2) as stage:
            stage.type(pasted("1\n2\n3\n") + pasted("4") + "\x1bOQ" + "there")
            await stage.until(lambda: stage.text == "there")
            assert not stage.composer.buffer.pasted
            stage.type("\x1bOP\r")
            await stage.until(lambda: stage.text == "1\n2\n3\n4")
            assert stage.sent == []

    run(story())


def test_no_question_where_none_is_wanted() -> None:
    async def story() -> None:
        async with staged(confirm_lines=0) as stage:
            stage.type(pasted("\n" * 500))
            await stage.until(lambda: stage.text == "\n" * 500)

    run(story())


def test_a_paste_that_is_too_long_for_a_message_is_told_of_and_not_taken() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type("你" + pasted("x" * (MAX_TEXT - 2)))
            await stage.until(lambda: stage.told)
            assert stage.text == "你"
            (told,) = stage.told
            assert told.startswith(
                "the paste was not taken: it is 16382 bytes in 1 lines, the input holds 3, and a message "
            )
            assert told.endswith("takes 16384. Paste it in parts")
            stage.type(pasted("x" * (MAX_TEXT - 3)))
            await stage.until(lambda: len(stage.text) > 1)
            assert stage.composer.counter == "0 bytes left"

    run(story())


def test_control_characters_do_not_get_in() -> None:
    assert clean("a\udce9b\r\r\nc\x85\td") == "a\udce9b\n\nc\td"


@pytest.mark.parametrize(
    ("text", "counter"),
    [
        ("", ""),
        ("x" * (MAX_TEXT - 2049), ""),
        ("x" * (MAX_TEXT - 2048), "2048 bytes left"),
        ("你" * 5461, "1 byte left"),
        ("x" * (MAX_TEXT + 1), "1 byte too long"),
        ("👍" * 5000, "3616 bytes too long"),
    ],
    ids=["empty", "plenty", "near", "one", "over", "emoji"],
)
def test_the_counter_shows_when_the_text_nears_the_limit(text: str, counter: str) -> None:
    composer = Composer(SOURCES, print)
    composer.restore("lobby")
    composer.buffer.text = text
    assert composer.counter == counter


# -- graphemes ----------------------------------------------------------------------------------------

GRAPHEMES = {
    "flag": "🇩🇪",
    "family": "👨\u200d👩\u200d👧\u200d👦",
    "skin": "👍🏾",
    "heart": "❤\ufe0f",
    "accent": "e\u0301",
    "keycap": "1\ufe0f\u20e3",
    "hindi": "नि",
    "hangul": "\u1112\u1161\u11ab",
}


@pytest.mark.parametrize("one", GRAPHEMES.values(), ids=GRAPHEMES)
def test_keys_move_over_a_whole_grapheme_and_delete_it_whole(one: str) -> None:
    two = "🇫🇷"

    async def story() -> None:
        async with staged() as stage:
            for keys, kept in {
                "\x7f": f"a{one}z",  # Backspace
                "\x7f\x7f": "az",
                "\x1b[D\x1b[Dx": f"ax{one}{two}z",  # Left
                "\x1b[D\x1b[D\x1b[Cx": f"a{one}x{two}z",  # and Right
                "\x1b[D\x1b[D\x1b[3~": f"a{two}z",  # Delete
                "\x1b[D\x1b[D\x04\x04": "az",  # Ctrl+D
                "\x02\x02\x06x": f"a{one}x{two}z",  # Ctrl+B, Ctrl+F
            }.items():
                stage.composer.buffer.document = Document(f"a{one}{two}z", len(f"a{one}{two}"))
                stage.type(f"{keys}\r")
                await stage.until(lambda: stage.sent)
                assert stage.sent.pop() == kept, keys

    run(story())


def test_the_row_above_is_entered_between_graphemes() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.composer.buffer.document = Document("a🇩🇪z\n\nab", len("a🇩🇪z\n\nab"))
            stage.type("\x1b[A\x1b[Ax\r")
            await stage.until(lambda: stage.sent)
            assert stage.sent == ["ax🇩🇪z\n\nab"]

    run(story())
