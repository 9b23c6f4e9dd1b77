"""The input: drafts, history, completion, pastes and the editor, in an application that runs without a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import Layout, Window
from prompt_toolkit.output import DummyOutput

from chat.core.errors import ChatError
from chat.core.wire import MAX_TEXT
from chat.ui.fullscreen.completer import Completer
from chat.ui.fullscreen.composer import Composer
from chat.ui.fullscreen.history import RoomHistory
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
            assert stage.composer.drafts() == ["lobby", "lounge"]
            stage.type("\x15\x1b[A")  # nothing, then up
            await stage.until(lambda: stage.text == "said in the lobby")
            stage.type("\x1bOQ")
            await stage.until(lambda: stage.text == "draft two")
            stage.type("\x15\x1b[A")
            await stage.until(lambda: stage.text == "said in the lounge")
            stage.composer.forget("lobby")
            stage.type("\x1bOP")
            await stage.until(lambda: stage.text == "")
            assert stage.composer.drafts() == ["lounge"]

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


# -- history on the disk ------------------------------------------------------------------------------


def test_a_history_outlives_the_program_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "histories"

    async def first() -> None:
        async with staged(folder) as stage:
            stage.type("one\ntwo 你好\r/join chat://secret\r")
            await stage.until(lambda: len(stage.sent) == 2)

    async def second() -> None:
        async with staged(folder) as stage:
            stage.type("\x1b[A")
            await stage.until(lambda: stage.text == "one\ntwo 你好")

    before = os.umask(0)
    try:
        run(first())
    finally:
        os.umask(before)
    (file,) = [file for file in folder.iterdir() if file.stat().st_size]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"secret" not in file.read_bytes()
    run(second())


def test_a_history_that_is_damaged_or_long_is_read_from_its_end(tmp_path: Path) -> None:
    file = tmp_path / "history"
    lines = [json.dumps(f"{n} ".ljust(1000, "x")) for n in range(600)]
    file.write_text("\n".join([*lines, '"torn', "17", json.dumps("last\x1b"), ""]), "utf-8")
    told: list[str] = []
    read = list(RoomHistory(file, told.append).load_history_strings())
    assert read[0] == "last"
    assert [entry.split()[0] for entry in read[1:]] == [str(n) for n in range(599, 599 - len(read) + 1, -1)]
    assert 200 < len(read) < 263
    assert file.stat().st_size <= 256 * 1024  # it was cut
    assert list(RoomHistory(file, told.append).load_history_strings()) == read
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told == []


def test_a_history_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    told: list[str] = []
    history = RoomHistory(tmp_path / "missing" / "history", told.append)
    history.append_string("one")
    history.append_string("two")
    assert told == ["the history of what you send is not kept: no such file or directory; mend that, and start again"]
    assert history.get_strings() == ["one", "two"]


def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ChatError, match="700"):
        Composer(SOURCES, print, folder=tmp_path)


# -- completion ---------------------------------------------------------------------------------------


def completions(before: str, after: str = "", *, asked: bool = True) -> list[str]:
    """What the input may become, up to the cursor."""
    document = Document(before + after, len(before))
    found = Completer(SOURCES).get_completions(document, CompleteEvent(completion_requested=asked))
    return [before[: len(before) + one.start_position] + one.text for one in found]


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("an", ["ann: ", "Anna-Lena: "]),
        ("AN", ["ann: ", "Anna-Lena: "]),
        ("anna-", ["Anna-Lena: "]),
        ("hi\nbo", ["hi\nbob: "]),
        ("ask an", ["ask ann ", "ask Anna-Lena "]),
        ("(bo", ["(bob "]),
        ("小", ["小明: "]),
        ("你好@小", ["你好@小明 "]),
        ("हि", ["हिन्दी: "]),
        ("@b", ["@bob "]),
        ("see @b", ["see @bob "]),
        ("ann@b", []),
        ("zzz", []),
        ("#lo", ["#lobby ", "#lounge "]),
        ("in #茶", ["in #茶馆 "]),
        ("bug#lo", []),
        ("/qu", ["/quit", "/quote"]),
        ("/QUI", ["/quit"]),
        ("  /qui", ["  /quit"]),
        ("  /theme d", ["  /theme dark "]),
        ("/jo", ["/join "]),
        ("say /qu", []),
        ("//qu", []),
        ("//an", ["//ann ", "//Anna-Lena "]),
        ("/me bo", ["/me bob "]),
        ("/usr/bi", []),
        ("/msg an", ["/msg ann ", "/msg Anna-Lena "]),
        ("/msg ", ["/msg ann ", "/msg Anna-Lena ", "/msg bob ", "/msg 小明 ", "/msg हिन्दी "]),
        ("/msg ann ask bo", ["/msg ann ask bob "]),
        ("/me hugs bo", ["/me hugs bob "]),
        ("/who bo", ["/who bob "]),
        ("/room lo", ["/room lobby ", "/room lounge "]),
        ("/room ly", ["/room lobby "]),
        ("/room #lg", ["/room lounge "]),
        ("/room lobby lo", []),
        ("/theme d", ["/theme dark "]),
        ("/help jo", ["/help join"]),
        ("/help /jo", ["/help /join"]),
        ("/peer bo", []),
        ("/react tad", ["/react 🎉"]),
        ("/react :tad", ["/react 🎉"]),
        (":tad", ["🎉"]),
        ("你好:tad", ["你好🎉"]),
        ("12:tad", []),
        ("std::tad", []),
    ],
)
def test_completion(typed: str, becomes: list[str]) -> None:
    assert completions(typed) == becomes


def test_completion_by_the_middle_of_a_short_name_and_before_other_text() -> None:
    assert "😅" in completions(":smile")
    assert completions("an", after=" you") == ["ann:", "Anna-Lena:"]
    assert completions("ask an", after=" now") == ["ask ann", "ask Anna-Lena"]


def test_without_a_beginning_only_those_who_ask_are_offered_names() -> None:
    assert len(completions("")) == len(NICKS) - 1  # and never the one with an escape sequence
    assert completions("", asked=False) == []
    assert len(completions("/")) > 20
    assert completions("/s", asked=False) == completions("/s")


def test_tab_completes_and_commands_are_offered_while_typing() -> None:
    async def story() -> None:
        async with staged() as stage:
            stage.type("bo\t")
            await stage.until(lambda: stage.text == "bob: ")
            stage.type("hi\r/")
            await stage.until(lambda: (state := stage.composer.buffer.complete_state) is not None and state.completions)
            stage.type("jo")
            await stage.until(
                lambda: (state := stage.composer.buffer.complete_state) is not None and len(state.completions) == 1
            )
            state = stage.composer.buffer.complete_state
            assert state is not None
            assert [one.text for one in state.completions] == ["/join "]
            assert state.completions[0].display_meta_text.startswith("enter another room: its name")
            assert stage.text == "/jo"  # offered, not taken
            assert stage.sent == ["bob: hi"]

    run(story())


def test_what_lies_on_the_disk_is_looked_up_in_a_thread_and_only_for_tab() -> None:
    threads: list[int] = []

    def rooms() -> list[str]:
        threads.append(threading.get_ident())
        return ["lobby", "lou\x1bnge", "tea"]

    async def story() -> None:
        words = Completer(SOURCES, {"TARGET": rooms})
        asked = CompleteEvent(completion_requested=True)
        found = [one.text async for one in words.get_completions_async(Document("/join lo"), asked)]
        assert found == ["lobby "]
        assert threads
        assert threads[0] != threading.get_ident()
        for document, event in ((Document("/msg z"), asked), (Document("/join t"), CompleteEvent(text_inserted=True))):
            assert [one.text async for one in words.get_completions_async(document, event)] in ([], ["tea "])
        assert len(threads) == 1

    run(story())


def test_completion_of_a_long_text_is_bounded() -> None:
    many = Completer({"NICK": lambda: (f"n{n}" for n in range(100_000))})
    document = Document("x " * 8000 + "n")
    assert len(list(many.get_completions(document, CompleteEvent(completion_requested=True)))) == 50


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
            await stage.until(lambda: stage.composer.pasted)
            assert stage.text == "a"
            assert (
                stage.composer.question
                == "Enter puts it into the input, Escape drops it: 21 lines are pasted, 41 bytes"
            )
            stage.type("\r")
            await stage.until(lambda: not stage.composer.pasted)
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
            await stage.until(lambda: stage.composer.pasted)
            stage.type(key)
            await stage.until(lambda: not stage.composer.pasted)
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
            assert stage.composer.pasted is None
            assert stage.composer.drafts() == ["lobby", "lounge"]
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


def test_bytes_that_are_no_text_do_not_get_in() -> None:
    assert clean("a\udce9b\r\r\nc\x85\td") == "a�b\n\nc\td"


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


# -- the editor ---------------------------------------------------------------------------------------


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set an editor: a program whose file is ``file``, and which may leave notes in the folder ``notes``."""
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def set_editor(code: str) -> None:
        program = tmp_path / "my editor.py"
        program.write_text(
            "import os, signal, sys\nfrom pathlib import Path\n"
            f"file, notes = Path(sys.argv[-1]), Path({str(tmp_path)!r})\n{code}",
            "utf-8",
        )
        monkeypatch.setenv("EDITOR", f"{sys.executable} '{program}' --wait")

    return set_editor


def left_behind(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.startswith("chat-")]


def test_the_editor_goes_on_with_the_text(tmp_path: Path, editor: Callable[[str], None]) -> None:
    editor(
        "modes = f'{file.stat().st_mode & 0o777:o} {file.parent.stat().st_mode & 0o777:o} {sys.argv[1]}'\n"
        "(notes / 'modes').write_text(modes)\n"
        "file.write_text(file.read_text('utf-8').upper() + ' 你好\\r\\nand\\x1b more\\n', 'utf-8')\n"
    )

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.text.endswith("more"))
            assert stage.text == "DRAFT 你好\nand more"
            assert stage.composer.buffer.cursor_position == len(stage.text)
            assert stage.told == stage.sent == []
            stage.type("!\x1f\x1f")  # and undo
            await stage.until(lambda: stage.text == "draft")

    before = os.umask(0)
    try:
        run(story())
    finally:
        os.umask(before)
    assert (tmp_path / "modes").read_text() == "600 700 --wait"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("file.write_text('half'); sys.exit(3)", " failed with code 3; the input is as it was"),
        ("os.kill(os.getpid(), signal.SIGKILL)", " failed with code -9; the input is as it was"),
        ("file.unlink()", ": no such file or directory; the input is as it was"),
        (
            "file.write_text('x' * (1024 * 1024 + 1))",
            "the editor's text is 1048577 bytes long, a message takes 16384; the input is as it was",
        ),
    ],
    ids=["code", "signal", "file", "long"],
)
def test_an_editor_that_fails_is_told_of_and_the_text_stays(
    tmp_path: Path, editor: Callable[[str], None], code: str, told: str
) -> None:
    editor(code)

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.told)
            assert stage.told[0].endswith(told)
            assert "\n" not in stage.told[0]
            assert stage.text == "draft"
            assert not stage.composer.editing

    run(story())
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("visual", "told"),
    [
        ("", "no editor is set; set VISUAL or EDITOR before you start, as in: export EDITOR=nano"),
        (
            "/no/such/editor -x",
            "cannot use the editor /no/such/editor: no such file or directory; the input is as it was",
        ),
        ("'open quote", "$VISUAL or $EDITOR cannot be read: No closing quotation"),
        ("/", "cannot use the editor /: permission denied; the input is as it was"),
    ],
)
def test_an_editor_that_is_missing_is_told_of(monkeypatch: pytest.MonkeyPatch, visual: str, told: str) -> None:
    monkeypatch.setenv("VISUAL", visual)
    monkeypatch.delenv("EDITOR", raising=False)

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.told)
            assert (stage.told, stage.text) == ([told], "draft")

    run(story())


def test_ctrl_c_in_the_editor_is_the_editors_and_the_loop_goes_on(
    tmp_path: Path, editor: Callable[[str], None]
) -> None:
    """The terminal sends SIGINT to us, too. And while the editor waits for us, we are not waiting for it."""
    editor("(notes / 'go').read_text(); file.write_text('done')")
    os.mkfifo(tmp_path / "go")

    async def story() -> None:
        async with staged() as stage:
            stage.type("\x18\x05")
            with await asyncio.to_thread((tmp_path / "go").open, "w"):  # which waits until the editor reads it
                os.kill(os.getpid(), signal.SIGINT)
            await stage.until(lambda: stage.text == "done")
            assert stage.left == 0
            stage.type("\x03")
            await stage.until(lambda: stage.left == 1)

    run(story())


def test_leaving_ends_the_editor_and_takes_the_file_along(tmp_path: Path, editor: Callable[[str], None]) -> None:
    editor(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "(notes / 'pid').write_text(str(os.getpid())); (notes / 'began').read_text()\n"
        "signal.sigwait({signal.SIGTERM}); (notes / 'tidy').touch()"
    )
    os.mkfifo(tmp_path / "began")

    async def story() -> None:
        async with staged() as stage:
            stage.type("\x18\x05")
            await asyncio.to_thread((tmp_path / "began").write_text, "")
            assert left_behind(tmp_path)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    run(story())
    assert (tmp_path / "tidy").exists()  # it was asked to end, and could put the terminal right
    assert left_behind(tmp_path) == []
