"""Messages that are not in memory are loaded, and that can be stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.errors import LinkBroken
from tests.ui.fullscreen.stage import IN, Blind, Room, Script, below_the_marker, lines, run, staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.core.bodies import Gap
    from chat.core.events import Message


def test_what_is_unread_and_not_loaded_is_loaded_when_one_goes_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await bob.say("line 0")
            await bob.settled()
            async with room.member("ann", looks=True) as ann, staged(ann) as stage:
                await stage.until("line 0")
                await stage.comes_to(lambda: ann.shows.read > 0)
            for n in range(1, 131):
                await bob.say(f"line {n}")
            await bob.settled()
            async with room.member("ann", looks=True) as ann, staged(ann) as stage:
                await stage.until("line 130", "new above: Alt+U")
                stage.type("\x1bu")
                await stage.until(" new ──")
                assert below_the_marker(stage).endswith("line 1")
                stage.type("\x1b[1;5F")
                await stage.until("line 130", gone="new ")

    run(story())


def test_escape_stops_the_loading_of_older_messages_until_one_scrolls_on() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1000, 1060))
        async with staged(script.client, Blind(80, 10)) as stage:
            await stage.until("line 1060")
            stage.type("\x1b[5~" * 8)
            await stage.until("loading older messages (Escape) [")
            stage.type("\x1b")
            await stage.until("stopped; PageUp continues", gone="loading")
            stage.type("x")
            await stage.until("> x", gone="loading")
            assert script.ranges == 1
            stage.type("\x1b[5~")
            await stage.until("loading older messages")
            assert script.ranges == 2

    run(story())


def test_work_that_is_stopped_before_it_has_begun_stops_what_it_waits_for_too() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1000, 1060))
        async with staged(script.client, Blind(80, 10)) as stage:
            await stage.until("line 1060")
            stage.type("\x1b[5~" * 8)
            await stage.until("loading older messages (Escape) [")
            stage.face.navigator.top()
            stage.face.navigator.stop()
            await stage.until("stopped; PageUp continues", gone="loading")

    run(story())


class Unreachable(Script):
    async def range(self, first: int, before: int, reached: Callable[[int], None]) -> list[Message | Gap]:
        self.ranges += 1
        raise LinkBroken("nobody answers")


def test_where_older_messages_cannot_be_loaded_it_is_tried_again_when_one_scrolls_on() -> None:
    async def story() -> None:
        script = Unreachable(IN, *lines(1000, 1060))
        async with staged(script.client, Blind(80, 10)) as stage:
            await stage.until("line 1060")
            stage.type("\x1b[5~" * 8)
            await stage.until("nobody answers")
            stage.type("x")
            await stage.until("> x", gone="nobody answers")
            assert script.ranges == 1
            stage.type("\x1b[5~")
            await stage.until("nobody answers")
            assert script.ranges == 2

    run(story())
