"""One member and its link: slow ones, greedy ones, and those that break the rules."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest

from chat.core.wire import HEADER_SIZE, MAX_FRAME, MAX_TEXT, Kind, encode
from chat.host import connection
from chat.host import host as host_module
from tests.host.host_fixture import (
    FakeLink,
    FakeTransport,
    Guest,
    HostFixture,
    SlowHostFixture,
    every_wire,
    run,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- slow and greedy members ----------------------------------------------------------------------


@every_wire
@pytest.mark.usefixtures("no_beats")
def test_a_member_that_does_not_read_delays_nobody_and_is_caught_up(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture, fixture.members("ann", "bob") as (ann, bob):
            slow = await fixture.raw("cid")
            (served,) = [s for m, s in fixture.hosted.connections.items() if m.nick == "cid"]
            spoken = 0
            while not served.clogged:
                await ann.say(f"{spoken} ".ljust(MAX_TEXT, "."))
                spoken += 1
                await bob.hear(f"{spoken - 1} ".ljust(MAX_TEXT, "."))
            await ann.say("done")
            await bob.hear("done")
            numbers = [int((await slow.frame(Kind.SAY)).body.split()[0]) for _ in range(spoken)]
            assert numbers == [*range(spoken)]
            assert (await slow.frame(Kind.SAY)).body == b"done"
            await until(lambda: served.clogged is None, "its link is free again")
            await slow.leave()

    run(scene())


def test_a_member_that_leaves_with_a_full_link_is_forgotten(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            slow = await fixture.raw("cid")
            (served,) = [s for m, s in fixture.hosted.connections.items() if m.nick == "cid"]
            while not served.clogged:
                await ann.say("." * MAX_TEXT)
                await ann.settled()
                ann.take()
            clogged = served.clogged
            await slow.leave()
            await until(lambda: fixture.nicks() == ["ann"], "cid has left")
            await until(clogged.done, "nobody waits for its link any more")
            assert len(fixture.hosted.connections) == 1

    run(scene())


def test_who_catches_up_gets_so_much_a_turn_and_the_others_theirs_in_between(
    tmp_path: Path, fake_transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann, bob = Guest(fixture, fake_transport, "ann"), Guest(fixture, fake_transport, "bob")
            await ann.come()
            for number in range(1, 129):
                ann.say(number, f"{number} ".ljust(MAX_TEXT, "."))
            await until(lambda: ann.has("128 ".ljust(MAX_TEXT, ".")), "two MiB are in the log")
            monkeypatch.setattr(connection, "SEND_BUDGET", 100_000)
            order: list[int] = []  # bytes sent to bob, and a 0 for each turn of ann's

            def note(data: Any, *, send: Any = bob.link.send) -> int:
                order.append(len(data))
                count: int = send(data)
                return count

            monkeypatch.setattr(bob.link, "send", note)
            await bob.come(next_seq=1)
            turns = 0
            while not bob.has("128 ".ljust(MAX_TEXT, ".")):
                order.append(0)
                turns += 1
                await asyncio.sleep(0)
            most = max(sum(order[start:end]) for start, end in spans(order))
            assert most < 100_000 + 2 * MAX_FRAME, "one member got more than its share of a turn"
            assert turns > 10
            assert [f.seq for f in bob.frames() if f.kind == Kind.SAY] == [*range(2, 130)]

    run(scene())


def spans(order: list[int]) -> list[tuple[int, int]]:
    """Where the stretches between two zeros are."""
    zeros = [index for index, size in enumerate(order) if not size]
    return list(pairwise(zeros))


def test_a_member_that_floods_is_read_at_its_rate_and_the_others_at_theirs(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, rate=50) as fixture, fixture.client("owner") as owner:
            flood = await fixture.raw("cid")
            await flood.say(1, "a flood", times=1500)  # in one piece: 29 s of its rate, after the first second's
            await until(lambda: len(fixture.texts()) >= 100, "it was read until its bucket was empty")
            for number in range(20):
                await owner.say(f"owner {number}")
            await owner.settled()
            texts = fixture.texts()
            assert [text for text in texts if text != "a flood"] == [f"owner {number}" for number in range(20)]
            assert len(texts) < 1520
            await flood.leave()
            (served,) = [s for m, s in fixture.hosted.connections.items() if m.nick == "cid"]
            assert served.heard == math.inf  # it is the host that does not listen: no silence of cid's
            fixture.hosted.room.leave(served.member)  # the test is over; nobody waits for the rest
            served.task.cancel()

    run(scene())


def test_without_a_limit_all_is_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, rate=0) as fixture:
            flood = await fixture.raw("cid")
            for start in range(1, 20_001, 2000):
                await flood.say(start, "f", times=2000)
            await until(lambda: fixture.hosted.room.log.end == 20_002, "all is stored")
            await flood.leave()

    run(scene())


def test_a_member_that_the_host_does_not_read_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full, say: it may have said a lot."""
    monkeypatch.setattr(host_module, "BEAT", 0.01)
    monkeypatch.setattr(host_module, "SILENCE", 0.5)
    monkeypatch.setattr(connection, "BACKLOG", 1000)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            cid = await fixture.raw("cid", more_data=encode(Kind.SAY, bytes(2000), number=1))
            await cid.say(2)
            (served,) = fixture.hosted.connections.values()
            await until(lambda: served.heard == math.inf, "the host waits for its disk")
            newcomer = await fixture.raw("dan")  # is let in all the same
            await newcomer.leave()
            for _ in range(80):  # for longer than SILENCE
                await cid.frame(Kind.BEAT)
            monkeypatch.setattr(host_module, "SILENCE", 3600)  # of what cid does from now on, which says nothing
            fixture.disk.set()
            await cid.frame(Kind.SAY)
            assert (await cid.frame(Kind.SAY)).number == 2
            await until(lambda: served.heard < math.inf, "it listens again")
            await cid.leave()

    run(scene())


# -- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["send", "writable", "receive", "aclose"])
@pytest.mark.parametrize("early", [True, False])
def test_a_fault_of_one_link_costs_the_others_nothing(
    tmp_path: Path, fake_transport: FakeTransport, caplog: pytest.LogCaptureFixture, where: str, *, early: bool
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            assert fixture.running is not None
            bad, ann, bob = (Guest(fixture, fake_transport, nick) for nick in ("bad", "ann", "bob"))
            await bad.come()  # before the others, so that it is served before them
            await until(lambda: fixture.hosted.connections, "it is in")
            link = FakeLink("bad, before HELLO") if early else bad.link
            link.fails[where] = RuntimeError("a bug")
            link.room = 0 if where == "writable" else math.inf
            if early:
                fake_transport.accepted.put_nowait(link)
            await ann.come()
            await bob.come()
            ann.say(1, "wake up")
            await until(lambda: bob.has("wake up"), "all have been sent it, or tried")
            if where == "writable":
                link.make_room(math.inf)
            link.arrive(b"")
            for number in range(2, 30):
                ann.say(number, f"message {number}")
                await until(lambda number=number: bob.has(f"message {number}"), "bob has it")  # type: ignore[misc]
            await until(lambda: link.closed, "the bad one is out")
            assert fixture.nicks() == [*([] if link is bad.link else ["bad"]), "ann", "bob"]
            assert not fixture.running.done()
            link.fails.clear()

    run(scene())
    assert "please report it" in caplog.text


BAD_FRAMES: Final = {
    "a host's frame": (encode(Kind.WELCOME), "kind 66"),
    "a second HELLO": (encode(Kind.HELLO), "kind 65"),
    "a record": (encode(Kind.AUTHOR), "kind 16"),
    "a number that is missing": (encode(Kind.SAY, b"hi", number=7), "number 7 after 0"),
    "a bad length": (b"\0\0\0\1" + bytes(40), "length of 1 bytes"),
    "a huge length": (b"\xff\xff\xff\xff" + bytes(40), "4294967295 bytes"),
    "a question nobody can read": (encode(Kind.ASK, b"\x91" * 3000), "Ask that cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_who_breaks_the_rules_is_told_why_and_nobody_else_is_harmed(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        data, why = BAD_FRAMES[name]
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            eve = await fixture.raw("eve")
            await eve.frame(Kind.PRESENCE)
            await eve.send(data)
            refusal = await eve.refusal()
            assert (refusal.code, why in refusal.text) == ("protocol", True), refusal
            await ann.say("all is well")
            await bob.hear("all is well")
            await until(lambda: sorted(fixture.nicks()) == ["ann", "bob"], "eve is out")
            await eve.leave()

    run(scene())


def test_a_refusal_never_stands_in_the_middle_of_a_message(tmp_path: Path, fake_transport: FakeTransport) -> None:
    """A member whose link is full breaks a rule. The rest of what is half sent comes first, then the reason."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann, eve = Guest(fixture, fake_transport, "ann"), Guest(fixture, fake_transport, "eve")
            await ann.come()
            await eve.come()
            await until(lambda: len(fixture.hosted.connections) == 2, "both are in")
            eve.link.room = HEADER_SIZE + 100
            ann.say(1, "x" * 5000)
            await until(lambda: ann.has("x" * 5000), "it is stored and sent")
            await until(lambda: eve.link.room == 0, "half of it is at eve's")
            eve.link.arrive(encode(Kind.WELCOME))
            eve.link.make_room(math.inf)
            await until(lambda: eve.link.closed, "eve is out")
            *_, message, refusal = eve.frames()
            assert (message.kind, message.body, refusal.kind) == (Kind.SAY, b"x" * 5000, Kind.REFUSED)

    run(scene())


def test_a_goodbye_ends_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann = await fixture.raw("ann")
            await ann.send(encode(Kind.SAY, b"last words", number=1) + encode(Kind.BYE) + b"junk after it")
            await ann.everything()
            await until(lambda: fixture.texts() == ["last words"], "it is stored")
            assert fixture.nicks() == []
            await ann.leave()

    run(scene())
