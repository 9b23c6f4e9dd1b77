"""What Tab completes, and what is offered while typing."""

from __future__ import annotations

import threading

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from chat.local.settings import choices
from chat.ui.fullscreen.completer import BEGUN, Completer
from tests.ui.fullscreen.test_composer import NICKS, SOURCES, run, staged


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
        ("/set them", ["/set theme "]),
        ("/set theme ", [f"/set theme {one} " for one in choices("theme")]),
        ("/set bell al", ["/set bell all "]),
        ("/set nothing x", []),
        ("/bell ", ["/bell on ", "/bell off "]),
        ("/slow ", ["/slow off "]),
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


@pytest.mark.parametrize("command", ["msg", "room", "theme", "set", "ignore", "unignore", "who", "ban"])
def test_names_are_offered_where_one_is_missing(command: str) -> None:
    assert BEGUN.search(f"/{command} ")
    assert not BEGUN.search("/reply ")
    assert not BEGUN.search(f"say /{command} ")


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
            assert state.completions[0].display_meta_text.startswith("enter another room by name")
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
