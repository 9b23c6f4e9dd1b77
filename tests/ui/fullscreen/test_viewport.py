"""Which part of the log is shown, and where the unread marker stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.events import Here
from tests.ui.fullscreen.stage import (
    IN,
    Blind,
    Room,
    Script,
    below_the_marker,
    joined,
    lines,
    message,
    run,
    staged,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_what_comes_while_one_has_scrolled_up_is_counted_and_marked_and_gone_to() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 40))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 40", gone=" new ──")
            script.happen(*lines(41, 45))
            await stage.until("line 45", gone=" new ──")
            stage.type("\x1b[5~")
            await stage.until("line 38", gone="line 45")
            script.happen(Here([(b"c", "carla")], [], first=False), *lines(46, 59), message(60, "ann: line 60"))
            await stage.until("15 new below (1@)")  # who came is not counted
            stage.type("/ignore carla\r")  # which goes back to the end
            await stage.until("messages by carla are hidden", "new above: Alt+U")
            stage.type("\x1bu")
            await stage.until(" new ──", "line 46")
            assert below_the_marker(stage).endswith("line 46")
            stage.type("\x1b[1;5F")
            await stage.until("line 60", gone="new ")
            script.happen(*lines(61, 62))
            await stage.until("line 62", gone="new ")
            stage.type("\x1bu")
            await stage.until("nothing is unread here")

    run(story())


def test_the_marker_stands_where_one_left_a_room_and_is_gone_when_it_was_read() -> None:
    async def story() -> None:
        lobby, tea = Script(IN, *lines(1, 3)), Script(room="tea")
        async with staged(lobby.client, Blind(80, 12), opener=lambda _target: tea.client) as stage:
            await stage.until("line 3")
            stage.type("/join tea\r")
            await stage.until("● #tea")
            stage.type("\x1b1")
            await stage.until("● #lobby")
            lobby.happen(*lines(4, 5))
            await stage.until("line 5", gone=" new ──")  # one looks at it
            stage.type("\x1b2")
            await stage.until("● #tea")
            lobby.happen(*lines(6, 7), message(8, "ann: look"))
            await stage.until("3 (1@)")
            side = [row.rpartition("│")[2].split() for row in stage.rows()[3:5]]
            assert side == [["1", "#lobby", "3", "(1@)"], ["▌2", "#tea"]]
            stage.type("\x1b1")
            await stage.until(" new ──", "ann: look")
            assert below_the_marker(stage).endswith("line 6")
            lobby.happen(*lines(9, 30))
            await stage.until("line 30", gone="new ")

    run(story())


def test_the_marker_stands_where_the_last_window_stopped_reading() -> None:
    async def story() -> None:
        script = Script()
        script.session.next_seq = 10
        script.happen(joined(61, read=20), IN)
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("catching up")
            script.session.next_seq = 61
            script.happen(*lines(10, 60))
            await stage.until("line 60", "new above: Alt+U", gone="Enter sends")  # she has been here before
            stage.type("\x1bu")
            await stage.until(" new ──")
            assert below_the_marker(stage).endswith("line 21")

    run(story())


def test_saying_something_goes_back_to_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        screen = Blind(120, 10)
        async with (
            Room(tmp_path) as room,
            room.member("bob") as bob,
            room.member("ann") as ann,
            staged(ann, screen) as stage,
        ):
            stage.type("\x1b[200~." + "\n" * 10 + "x\x1b[201~\r")
            await stage.until("x ✓")
            stage.type("\x1b[5~")
            await stage.until("to the newest", gone="x ✓")
            await bob.say("unread")
            stage.type("y")
            await stage.until("1 new below")
            stage.type("\r")
            await stage.until("unread", "y ✓", gone="new below")

    run(story())
