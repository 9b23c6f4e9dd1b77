"""The card in an empty room: it greets once, says what one can do, and never covers what others say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ui.fullscreen.stage import Blind, Hosted, Room, run, staged

if TYPE_CHECKING:
    from pathlib import Path


def test_it_greets_the_first_time_and_goes_with_the_first_message_for_good(tmp_path: Path) -> None:
    history = tmp_path / "typed"
    history.mkdir(0o700)

    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann:
            async with staged(ann, history=history, hosted=Hosted()) as stage:
                await stage.until("manywire · room #lobby is open", "from another terminal here: chat join lobby")
                stage.type("hello\r")
                await stage.until("hello", gone="manywire")
                await ann.settled()
                await stage.comes_to(lambda: stage.face.view.timeline.last_pending() is None)
                stage.type("/clear\r")
                await stage.until(">", gone="hello")
                assert not stage.face.view.is_empty
            async with room.member("bob") as bob, staged(bob, history=history) as stage:
                await stage.until("hello")
                assert "/help lists" not in "\n".join(stage.rows())
        async with (
            Room(tmp_path / "other", "other") as empty,
            empty.member("cid") as cid,
            staged(cid, history=history) as stage,
        ):
            await stage.until("nobody has said anything in #lobby yet", "type, Enter sends")

    (tmp_path / "other").mkdir()
    run(story())


def test_a_guest_is_greeted_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob, staged(bob) as stage:
            await stage.until("manywire · you are bob in #lobby", "/help lists commands and keys; /quit leaves")

    run(story())


@pytest.mark.parametrize("size", [(20, 5), (40, 12)])
def test_it_covers_no_line(tmp_path: Path, size: tuple[int, int]) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann, Blind(*size)) as stage:
            for number in range(size[1]):
                stage.face.view.note(f"note {number}")
            stage.face.app.invalidate()
            await stage.until(f"note {size[1] - 1}", gone="manywire")

    run(story())


@pytest.mark.parametrize(("rows", "shown"), [(14, True), (9, False), (5, False)])
def test_it_shows_whole_or_not_at_all(tmp_path: Path, rows: int, shown: bool) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann, Blind(60, rows)) as stage:
            await stage.comes_to(lambda: stage.face.view.is_empty)
            stage.type("/clear\r")
            await stage.comes_to(lambda: not stage.face.input.text and stage.face.view.is_empty)
            stage.type("x")
            await stage.until("> x", *(["manywire"] if shown else []), gone="trust on")
            assert ("manywire" in "\n".join(stage.rows())) == shown

    run(story())
