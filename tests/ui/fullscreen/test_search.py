"""A walk through the hits of a search, in memory and at the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.bodies import Answer
from tests.ui.fullscreen.stage import IN, Room, Script, run, staged

if TYPE_CHECKING:
    from pathlib import Path


def test_a_walk_through_hits_goes_on_where_the_hosts_first_ones_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            for n in range(130):
                await bob.say(f"needle {n}" if n % 2 else f"hay {n}")
            await bob.settled()
            async with room.member("ann") as ann, staged(ann) as stage:
                await stage.until("needle 129")
                stage.type("/search needle\r")
                await stage.until("hit 1 of 25+")  # of the 50 messages that are here
                for number in range(2, 66):
                    stage.type("\x1bp")
                    await stage.until(f"hit {number} of ", f"needle {131 - 2 * number}")
                stage.type("\x1bp")
                await stage.until("there is no hit further up; Alt+N goes down", "hit 65 of 65 ")
                stage.type("\x1bn")
                await stage.until("hit 64 of 65 ")
                await bob.say("needle 130")  # what comes meanwhile is a hit, too
                await stage.until("1 new below")
                stage.type("\x1bn")
                await stage.until("hit 64 of 66 ")

    run(story())


def test_what_the_host_finds_by_its_words_is_gone_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            for n in range(100):
                await bob.say("two words and a number, 17" if n == 17 else f"hay {n}")
            await bob.settled()
            async with room.member("ann") as ann, staged(ann) as stage:
                stage.type("/search from:bob number words\r")
                await stage.until("hit 1 of 1 ", "two words and a number, 17")
                stage.type("/search from:bob nothing\r")
                await stage.until("no message here contains: from:bob nothing; ")
                stage.type("/search \u2060\r")  # nothing that anybody sees
                await stage.until("there is nothing to search for")

    run(story())


def test_a_search_tells_how_far_it_is_and_asks_again_until_all_is_searched() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            stage.type("/search x\r")
            await stage.until(" searching (Escape) [....................] 0% ")
            script.answers.put_nowait(Answer(indexed=500))
            await stage.until("[##########..........] 50% ")
            script.answers.put_nowait(Answer(indexed=1000))
            await stage.until("no message here contains: x", gone="%")
            assert [(ask.text, ask.before) for ask in script.asked] == [("x", 0)] * 2

    run(story())


def test_an_index_that_does_not_grow_is_not_waited_for() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            for _ in range(2):
                script.answers.put_nowait(Answer(indexed=500))
            stage.type("/search x\r")
            await stage.until("no message here contains: x", gone="%")

    run(story())


def test_escape_stops_a_search_and_the_next_one_waits_for_its_answer() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            stage.type("/search x\r")
            await stage.until("searching")
            stage.type("\x1b")
            await stage.until("stopped; Alt+P continues", gone="searching")
            stage.type("\x1bp")
            await stage.until("searching")
            assert len(script.asked) == 1  # a host answers one at a time
            for _ in range(2):
                script.answers.put_nowait(Answer(indexed=1000))
            await stage.until("no message here contains: x", gone="searching")
            assert len(script.asked) == 2

    run(story())


def test_the_only_hit_is_told_as_such_and_leaves_no_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("kettle\r")
            await stage.until("kettle ✓")
            stage.type("/search kettle\r")
            await stage.until("hit 1 of 1 ", gone="searching")
            for key in ("\x1bn", "\x1bp"):
                stage.type(key)
                await stage.until("this is the only hit")
                stage.type(" ")
                await stage.until("kettle", gone="the only hit")

    run(story())
