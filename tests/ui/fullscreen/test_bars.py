"""The rows around the conversation, and the side: what each says, in which state, and what it drops first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from chat.client.events import Lost
from chat.core.bodies import Answer
from chat.core.session import LinkState
from chat.core.status import Level, Status
from chat.i18n import use
from chat.local.settings import Settings
from chat.ui.fullscreen import bars
from chat.ui.fullscreen.side import SIDE_BAR, side_bar
from chat.ui.fullscreen.view import View
from chat.ui.fullscreen.wrapping import columns
from tests.ui.fullscreen.stage import ANN, BOB, IN, Blind, Script, lines, message, run, staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.formatted_text import StyleAndTextTuples

HOSTILE = "\x1b[31m\u202e\x07class:lost\n语\u0301"


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    yield
    use("en")


def text_of(parts: StyleAndTextTuples) -> str:
    return "".join(part[1] for part in parts)


def room(script: Script | None = None, **more: str) -> View:
    return View((script or Script()).client, Settings(), **more)  # type: ignore[arg-type]


def header(view: View, width: int = 80) -> str:
    row = text_of(bars.header(view, width))
    assert columns(row) <= width
    return row.rstrip()


# -- header -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, " ● #lobby  Five o'clock, by the stove" + " " * 59 + "memory ✓   2 here   ann"),
        (80, " ● #lobby  Five o'clock, by the stove" + " " * 19 + "memory ✓   2 here   ann"),
        (40, " ● #lobby  Fi…  memory ✓   2 here   ann"),
        (20, " ● #lobby  2 ✓  ann"),
        (12, " ● #lobby"),
    ],
)
def test_the_header_drops_the_topic_first_then_the_wire_then_the_people(width: int, expected: str) -> None:
    script = Script()
    script.session.topic = "Five o'clock, by the stove"
    assert header(room(script), width) == expected


@pytest.mark.parametrize(
    ("state", "dot", "role", "words"),
    [
        (LinkState.OFF, "○", "class:dot-lost", "no link"),
        (LinkState.WAITING, "◐", "class:dot-warn", "waiting for the host's first words"),
        (LinkState.ASKED, "◐", "class:dot-warn", "deciding whether to trust the host"),
        (LinkState.GREETED, "◐", "class:dot-warn", "waiting to be let in"),
        (LinkState.JOINED, "●", "class:dot-ok", "memory ✓   2 here"),
    ],
)
def test_the_dot_and_the_words_tell_the_state_of_the_link(state: LinkState, dot: str, role: str, words: str) -> None:
    script = Script()
    script.session.state = state
    row = header(room(script))
    assert row.startswith(f" {dot} #lobby")
    assert words in row
    assert (role, dot) in bars.header(room(script), 80)
    assert ("here" in row) == (state is LinkState.JOINED)  # no old numbers


def test_a_lost_link_is_told_with_its_time_even_on_few_columns() -> None:
    script = Script()
    view = room(script)
    script.session.state = LinkState.OFF
    view.take(Lost("reset by peer"))
    since = f"{view.timeline.local(view.lost_since):%H:%M}"
    assert header(view) == f" ○ #lobby  no link since {since}".ljust(76) + "ann"
    assert ("class:lost", f"no link since {since}") in bars.header(view, 80)
    assert header(view, 20) == " ○ #lobby  no link"


@pytest.mark.parametrize(("trust", "mark"), [("trust on first use", "?"), ("pinned", "✓"), ("same user", "✓")])
def test_the_mark_of_the_wire_tells_whether_somebody_vouched_for_the_host(trust: str, mark: str) -> None:
    script = Script()
    script.wire = ("tcp", trust)
    assert f"tcp {mark}   2 here" in header(room(script))


def test_a_nickname_that_was_given_is_told_beside_the_one_that_is_taken() -> None:
    script = Script()
    script.wanted, script.session.nick = "bob", "bob-2"
    assert header(room(script)).endswith("bob-2 (bob is taken)")
    assert header(room(script), 40).endswith("2 here ✓  bob-2")


def test_a_direct_room_says_who_else_can_read_it() -> None:
    assert header(room(partner="bob")).startswith(" ● @bob  the host's owner can read this")


# -- divider ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typists", "expected"),
    [
        ([], ""),
        (["bob"], "bob is typing"),
        (["bob", "cid", "dan"], "bob, cid, dan are typing"),
        (["bob", "cid", "dan", "eve", "fay"], "several people are typing"),
        (["ann"], ""),  # it is oneself
        ([HOSTILE], "␛[31m␇class:lost⏎语\u0301 is typing"),
    ],
)
def test_who_is_typing_is_a_sentence(typists: list[str], expected: str) -> None:
    view = room()
    view.people = {(ANN if nick == "ann" else BOB, nick): Status(typing=True) for nick in typists}
    assert bars.typing(view) == expected
    view.session.state = LinkState.OFF
    assert not bars.typing(view)


def test_no_row_moves_when_somebody_begins_to_type_and_a_hint_wins() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 30))
        async with staged(script.client, Blind(80, 20)) as stage:
            await stage.until("line 30")
            view, before = stage.face.view, stage.rows()
            view.people = {(BOB, "小明"): Status(typing=True)}
            script.people = lambda: view.people  # type: ignore[method-assign]
            stage.face.app.invalidate()
            await stage.until("─ 小明 is typing ─")
            after = stage.rows()
            assert [row[:61] for row in after[:17]] == [row[:61] for row in before[:17]]
            stage.type("/nothing\r")
            await stage.until("/nothing", gone="小明 is typing")

    run(story())


# -- footer -------------------------------------------------------------------------------------------


def test_the_footer_shows_the_keys_that_matter_now_as_they_are_bound() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 40), message(41, "mine", nick="ann"))
        settings = Settings(keys={"help": ("F5",), "copy": ("F6",)})
        async with staged(script.client, Blind(120, 12), settings=settings) as stage:
            await stage.until("mine")
            assert stage.rows()[-1] == " F5 help  Ctrl+K go to  Ctrl+F search  Alt+R answer"
            stage.type("\x1b[1;3A")
            await stage.until("Alt+E correct  F6 copy  Alt+I details  Escape back")
            stage.type("\x1b[1;3A")
            await stage.until("Alt+A react  Alt+Q quote  F6 copy", gone="correct")
            stage.type("\x1br")
            await stage.until("Enter send  Escape back", "answering 小明", gone="quote")
            stage.type("\x1b")
            await stage.until("F6 copy", gone="answering")
            stage.type("\x1b")
            await stage.until("F5 help", gone="F6 copy")
            stage.type("\x1b[5~")
            await stage.until("Ctrl+End to the newest", gone="F5 help")
            script.happen(*lines(42, 43))
            await stage.until(" 2 new below  Ctrl+End to the newest")
            stage.type("\x1b[1;5F")
            await stage.until("F5 help", gone="new below")

    run(story())


def test_the_footer_counts_hits_and_what_is_new_in_rooms_of_any_name() -> None:
    async def story() -> None:
        script, tea = Script(IN, *lines(1, 40)), Script(IN, room=HOSTILE)
        async with staged(script.client, Blind(50, 20), opener=lambda _target: tea.client) as stage:
            await stage.until("line 40")
            stage.type("/search line\r")
            script.answers.put_nowait(Answer(indexed=1000))
            await stage.until(" hit 1 of 40  Alt+P hit above  Alt+N hit below")
            stage.type("\x1b\x1b")
            await stage.until("F1 help", gone="hit")
            stage.type("/join tea\r")
            await stage.until("● #␛")
            stage.type("\x1b1")
            await stage.until("● #lobby")
            tea.happen(*lines(1, 3))
            await stage.until(" 2:#␛[31m␇class:lost⏎语\u0301 3  F1 help")
            row = text_of(bars.footer(stage.face, 12))
            assert columns(row) <= 12
            assert row.startswith(" 2:#␛[31m␇")

    run(story())


# -- side ---------------------------------------------------------------------------------------------


def side_of(face: object, rows: int = 20) -> list[str]:
    drawn = text_of(side_bar(face, rows)).split("\n")[:-1]  # type: ignore[arg-type]
    assert max(map(columns, drawn)) <= SIDE_BAR
    return [" ".join(row.split()) for row in drawn]


def test_the_side_shows_what_everybody_does_and_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        script = Script(IN)
        async with staged(script.client, Blind(80, 20)) as stage:
            view = stage.face.view
            here = script.session.here
            here.update({(b"c", "cid"): False, (b"d", "dice"): True, (b"e", HOSTILE): False})
            then = int(time.time() * 1000)
            view.people = {
                (BOB, "小明"): Status(typing=True),
                (b"c", "cid"): Status(Level.AWAY, active=then - 5 * 60_000 - 1000),
            }
            assert side_of(stage.face) == [
                "HERE 5",
                "● ␛[31m␇class:lo…",
                "● ann you",
                "○ cid away 5m",
                "⚙ dice program",
                "● 小明 typing",
            ]
            view.people[b"c", "cid"] = Status(Level.BUSY, active=then - 3 * 3_600_000 - 1000)
            assert "○ cid busy 3h" in side_of(stage.face)
            assert side_of(stage.face, 4)[-1] == "and 3 more"  # one row for the heading
            monkeypatch.setattr(type(script.session), "others", property(lambda _self: 70))
            assert side_of(stage.face)[::6] == ["HERE 75", "and 70 more"]
            use("zh")
            assert side_of(stage.face)[::6] == ["在场 75", "还有 70 人"]

    run(story())


def test_rooms_have_badges_for_what_is_unread_mentions_and_direct_messages() -> None:
    async def story() -> None:
        script, tea = Script(IN), Script(IN, room="tea")
        async with staged(script.client, Blind(80, 20), opener=lambda _target: tea.client) as stage:
            stage.type("/join tea\r")
            await stage.until("● #tea")
            script.happen(*lines(1, 3))
            await stage.until("#lobby  ", " 3")
            assert side_of(stage.face)[:3] == ["ROOMS", "1 #lobby 3", "▌2 #tea"]
            script.happen(message(4, "@ann look"))
            await stage.until("4 (1@)")
            accented = [part[1] for part in side_bar(stage.face, 20) if part[0] == "class:accent"]
            assert "4 (1@)" in accented
            stage.face.controller.rooms[0].partner = "bob"
            assert side_of(stage.face)[1].endswith(" 4!")

    run(story())


# -- everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [5, 20, 60, 120])
def test_hostile_names_and_topics_stay_text_in_their_columns(width: int) -> None:
    script = Script(room=HOSTILE)
    script.session.topic = script.session.nick = HOSTILE
    script.wanted = HOSTILE + "x"
    view = room(script)
    parts = bars.header(view, width)
    text = text_of(parts)
    assert columns(text) <= width
    assert not {"\x1b", "\x07", "\u202e", "\n"} & set(text)
    assert not any("lost" in part[0] for part in parts)


def test_the_rows_speak_chinese() -> None:
    use("zh")
    view = room()
    view.people = {(BOB, "小明"): Status(typing=True)}
    assert header(view).endswith("memory ✓   2 人在此   ann")
    assert bars.typing(view) == "小明 正在输入"
