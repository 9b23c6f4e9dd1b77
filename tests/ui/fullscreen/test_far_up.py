"""A room with more messages than a window can hold: each is within reach, and a place is kept.

the log: 1 ─────────────────────────────────── 400
                               the ring holds 100, a page has 40
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.ui import ring as ring_module
from chat.ui.fullscreen import viewport as viewport_module
from tests.ui.fullscreen.stage import Blind, Room, below_the_marker, run, staged

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.client import Client
    from tests.ui.fullscreen.stage import Stage

RING = 100
PAGE_UP, PAGE_DOWN, TOP, BOTTOM, UNREAD = "\x1b[5~", "\x1b[6~", "\x1b[1;5H", "\x1b[1;5F", "\x1bu"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "RING", RING)
    monkeypatch.setattr(viewport_module, "_PAGE", 40)
    monkeypatch.setattr(viewport_module, "_CHECKED", 60)
    monkeypatch.setattr(viewport_module, "_MARGIN", 40)
    monkeypatch.setattr(viewport_module, "_AT_STAKE", 50)


async def fill(member: Client, first: int, last: int) -> None:
    for n in range(first, last + 1):
        await member.say(f"line {n}.")
    await member.settled()


def numbers(stage: Stage) -> list[int]:
    """The lines on the screen."""
    return [int(found[1]) for row in stage.said("line ") if (found := re.search(r"line (\d+)\.", row))]


async def rest(stage: Stage) -> None:
    """Wait until nothing is being loaded, nor is to be."""
    while True:
        stage.face.app.invalidate()
        await stage.redrawn()
        if stage.face.view.work is None:
            return


def held(stage: Stage) -> int:
    view = stage.face.view
    return max(window.end - window.first for window in (view.window, view.timeline))


def test_scrolling_up_comes_to_the_first_message_and_down_again_to_the_last(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 400)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 400.")
                before = numbers(stage)
                while before[0] > 1:
                    stage.type(PAGE_UP)
                    await stage.redrawn()
                    await rest(stage)
                    now = numbers(stage)
                    assert now == list(range(now[0], now[-1] + 1))
                    assert before[0] - len(now) <= now[0] <= before[0]  # nothing was jumped over
                    assert held(stage) <= RING
                    before = now
                while before[-1] < 400:
                    stage.type(PAGE_DOWN)
                    await stage.redrawn()
                    await rest(stage)
                    now = numbers(stage)
                    assert now == list(range(now[0], now[-1] + 1))
                    assert before[-1] <= now[-1] <= before[-1] + len(now)
                    assert held(stage) <= RING
                    before = now
                stage.type(PAGE_DOWN * 2)
                await bob.say("line 401.")
                await stage.until("line 401.")  # it follows again
                assert stage.face.view.past is None

    run(story())


def test_the_first_message_of_the_log_is_one_key_away_and_so_is_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 400)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 400.")
                stage.type(TOP)
                await stage.until("line 1.", "line 2.", gone="line 400.")
                await rest(stage)
                await fill(bob, 401, 403)
                await stage.until("3 new below", "line 1.")
                stage.type("\x1b[1;3A")  # selects, far up
                stage.type("/reply yes indeed\r")  # and saying something goes back to the end
                await stage.until("line 403.", "yes indeed ✓", gone="line 1.")
                assert len(stage.said("yes indeed")) == 1
                stage.type(TOP)
                await stage.until("line 1.", gone="line 403.")
                stage.type(BOTTOM)
                await stage.until("line 403.", "yes indeed ✓", gone="line 1.")

    run(story())


def test_a_hit_anywhere_in_the_log_is_gone_to_and_the_next_one_down_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            for n in (1, 2, 3):
                await fill(bob, 130 * n - 129, 130 * n)
                await bob.say(f"a needle, the {n}.")
            await bob.settled()
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("needle, the 3.")
                stage.type("/search needle\r")
                await stage.until("hit 1 of 3 ")
                stage.type("\x1bp")
                await stage.until("hit 2 of 3 ", "line 260.", "needle, the 2.", "line 261.")
                stage.type("\x1bp")
                await stage.until("hit 3 of 3 ", "line 130.", "needle, the 1.", "line 131.")
                stage.type("\x1bp")
                await stage.until("there is no hit further up")
                stage.type("\x1bn")
                await stage.until("hit 2 of 3 ", "needle, the 2.", "line 261.")
                stage.type("\x1bn")
                await stage.until("hit 1 of 3 ", "line 390.", "needle, the 3.")

    run(story())


def test_what_became_of_a_message_far_up_is_shown_though_it_was_said_far_below(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 300)
            await bob.say(Outgoing("a corrected text", kind=Kind.EDIT, target=2))
            await bob.say(Outgoing("", kind=Kind.RETRACT, target=3))
            await fill(bob, 301, 400)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 400.")
                stage.type(TOP)
                await stage.until("a corrected text (edited)", "taken back", gone="line 400.")
                await bob.say(Outgoing("corrected again", kind=Kind.EDIT, target=2))
                await stage.until("corrected again (edited)", gone="a corrected text")
                await rest(stage)
                stage.type(BOTTOM)
                await stage.until("line 400.")
                stage.type(TOP)
                await stage.until("corrected again (edited)", "taken back", gone="line 400.")

    run(story())


def test_however_much_comes_the_place_is_kept_and_what_is_new_is_counted_and_gone_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 60)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 60.", "2 here")
                stage.type(PAGE_UP)
                await stage.until("line 40.", gone="line 60.")
                await rest(stage)
                before = numbers(stage)
                await fill(bob, 61, 300)
                await stage.until("240 new below")
                assert numbers(stage) == before
                stage.type(BOTTOM)
                await stage.until("line 300.", "new above: Alt+U", gone="new below")
                stage.type(UNREAD)
                await stage.until(" new ──", gone="line 300.")
                assert below_the_marker(stage).endswith("line 61.")
                stage.type(BOTTOM)
                await stage.until("line 300.", gone="new ")

    run(story())


def test_what_is_read_far_up_is_not_new_any_more(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 60)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 60.", "2 here")
                stage.type(PAGE_UP)
                await stage.until("line 40.", gone="line 60.")
                await fill(bob, 61, 300)
                await stage.until("240 new below")
                while numbers(stage)[-1] < 70:
                    stage.type(PAGE_DOWN)
                    await stage.redrawn()
                await rest(stage)
                assert f"{300 - numbers(stage)[-1]} new below" in stage.rows()[-1]

    run(story())


def test_after_clearing_what_was_said_can_be_scrolled_back_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 120)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 120.")
                stage.type("/clear\r")
                await stage.until("F1 help", gone="line 120.")
                assert not numbers(stage)  # of itself nothing comes back
                stage.type(PAGE_UP)
                await stage.until("line 120.")
                stage.type(PAGE_UP)
                await stage.until("line 100.", gone="line 120.")
                stage.type("/clear\r")
                await stage.until("F1 help", gone="line ")
                stage.type(TOP)
                await stage.until("line 1.", "line 2.")

    run(story())


def test_a_marker_that_keys_held_down_have_gone_over_was_seen(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            async with room.member("ann", looks=True) as ann, staged(ann, Blind(80, 24)) as stage:
                await fill(bob, 1, 70)
                await stage.until("line 70.")
                while ann.shows.read < 70:
                    await stage.redrawn()
            await fill(bob, 71, 95)
            async with room.member("ann", looks=True) as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 95.", "new above: Alt+U")
                stage.type(PAGE_UP * 3)  # one redraw for all of them
                await stage.until("line 50.", gone=" new ──")
                stage.type(BOTTOM)
                await stage.until("line 95.", gone="new ")

    run(story())


def test_a_panel_is_closed_over_a_place_far_up_as_it_has_become(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await fill(bob, 1, 400)
            async with room.member("ann") as ann, staged(ann, Blind(80, 24)) as stage:
                await stage.until("line 400.")
                stage.type(TOP)
                await stage.until("line 1.")
                window = stage.face.view.window
                seq = next(seq for seq in range(1, 10) if window.at_seq(seq))
                stage.type("/help\r")
                await stage.until("─ Help ")
                await bob.say(Outgoing("👍", kind=Kind.REACT, target=seq))
                await bob.settled()
                stage.type("\x1b")
                await stage.until("line 1.", "👍 1", gone="─ Help ")
                stage.type("/ignore bob\r")
                await stage.until("messages by bob are hidden", gone="line 1.")  # here he would be seen

    run(story())
