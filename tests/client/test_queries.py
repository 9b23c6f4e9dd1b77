"""Questions to the host: ranges of its log over the link on which people talk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from chat.client.events import Lost, Up
from chat.client.queries import fetch
from chat.core.bodies import Answer, Ask, Author, Gap, pack, unpack
from chat.core.errors import ChatError, LinkBroken, LinkClosed
from chat.core.events import Message
from chat.core.wire import LAST, MAX_FRAME, Frame, Kind, encode, split
from tests.host.host_fixture import HostFixture, Member, Script, Scripted, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ANN = Author(index=1, key=b"a" * 32, stream=5, nick="ann")


def seqs(items: list[Message | Gap]) -> list[int]:
    return [item.seq for item in items if isinstance(item, Message)]


async def say_much(member: Member, count: int, size: int = 3000) -> None:
    """Say so much that it takes several batches."""
    await member.stored(*[await member.say(f"{number} ".ljust(size, ".")) for number in range(count)])


# -- one question, one answer ----------------------------------------------------------------------


def test_questions_are_answered_or_fail_with_their_link(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                first, second = (asyncio.ensure_future(ann.ask(Ask(what=what))) for what in ("one", "two"))
                await link.frame(Kind.ASK)
                await link.frame(Kind.ASK)
                link.send(pack(Kind.ANSWER, Answer(text="to two"), number=2))
                assert (await second).text == "to two"
                given_up = asyncio.ensure_future(ann.ask(Ask(what="three")))
                await link.frame(Kind.ASK)
                given_up.cancel()
                link.send(pack(Kind.ANSWER, Answer(), number=3), pack(Kind.ANSWER, Answer(), number=99))
                await link.link.aclose()
                with pytest.raises(LinkBroken, match="before the host had answered"):
                    await first
                await ann.event(Lost)
                with pytest.raises(LinkBroken, match="no link to the host now"):
                    await ann.ask(Ask(what="four"))
                meeting = asyncio.ensure_future(script.meet())
                await ann.event(Up)
                fifth = asyncio.ensure_future(ann.ask(Ask(what="five")))
                await (await meeting).frame(Kind.ASK)
            with pytest.raises(LinkBroken, match="before the host had answered"):
                await fifth
            with pytest.raises(LinkClosed, match="this client was closed"):
                await ann.ask(Ask(what="six"))
            assert (await (await meeting).everything())[-1].kind == Kind.BYE

    run(scene())


# -- a real host ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "before"), [(1, 10**6), (2, 3), (10, 60), (99, 99), (0, 5), (10**6, 10**6 + 5)])
def test_a_range_is_what_the_log_holds_there(tmp_path: Path, first: int, before: int) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 100)
            async with fixture.client("bob", reads_only=True, history=0) as bob:
                told: list[int] = []
                found = await bob.range(first, before, told.append)
                expected = [frame for frame in fixture.log() if frame.kind == Kind.SAY and first <= frame.seq < before]
                assert seqs(found) == [frame.seq for frame in expected]
                assert [item.text.encode() for item in found if isinstance(item, Message)] == [
                    frame.body for frame in expected
                ]
                assert told == sorted(told)
                assert not bob.so_far(Message)  # they are no news

    run(scene())


def test_a_range_of_a_busy_room_holds_up_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 300)
            async with fixture.client("bob", history=0) as bob:
                asked = asyncio.ensure_future(bob.range(1, 10**6))
                await say_much(ann, 50)
                await bob.hear(*[f"{number} ".ljust(3000, ".") for number in range(50)])
                await bob.stored(await bob.say("me too"))
                assert len(await asked) >= 300

    run(scene())


def test_pieces_come_between_batches_and_fit_a_frame(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 100)
            peer = await fixture.raw("bob", history=10_000)
            await peer.frame(Kind.SAY)
            await peer.send(pack(Kind.ASK, Ask(what="range", first=1, before=10**6), number=3))
            await peer.send(pack(Kind.ASK, Ask(what="range", first=1, before=2), number=4))
            busy = await peer.frame(Kind.ANSWER)
            assert busy.number == 4
            assert "still on its way" in unpack(Answer, busy).text
            pieces: list[Frame] = []
            while not pieces or not pieces[-1].flags & LAST:
                pieces.append(await peer.frame(Kind.RANGE))
            assert len(pieces) > 4
            assert {piece.number for piece in pieces} == {3}
            assert max(len(piece.raw) for piece in pieces) <= MAX_FRAME
            assert [frame.raw for piece in pieces for frame in split(piece.body)] == [
                frame.raw for frame in fixture.log()
            ]
            await peer.leave()

    run(scene())


def test_two_ranges_at_once_follow_each_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 100)
            one, two, three = await asyncio.gather(ann.range(1, 90), ann.range(5, 10), ann.range(50, 51))
            assert (len(one), seqs(two), seqs(three)) == (88, [5, 6, 7, 8, 9], [50])

    run(scene())


def test_nobody_has_to_wait_for_a_range(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 100)
            asked = asyncio.ensure_future(ann.range(1, 90))
            await asyncio.sleep(0)
            asked.cancel()
            assert seqs(await ann.range(5, 7)) == [5, 6]

    run(scene())


def test_a_range_knows_its_authors(tmp_path: Path) -> None:
    """More of them than fit one answer, and none of them here any more."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            nicks = [f"guest-{number}" for number in range(30)]
            for nick in nicks:
                async with fixture.client(nick) as guest:
                    await guest.stored(await guest.say(f"I am {nick}"))
            spoken = [frame.seq for frame in fixture.log() if frame.kind == Kind.SAY]
            async with fixture.client("bob", reads_only=True, history=0) as bob:
                for seq in spoken[:2]:  # without the introductions
                    (found,) = await bob.range(seq, seq + 1)
                    assert isinstance(found, Message)
                    assert found.text == f"I am {found.author.nick}"
                found_all = await bob.range(1, 10**6)
                assert [item.author.nick for item in found_all if isinstance(item, Message)] == nicks

    run(scene())


def test_messages_are_fetched_by_their_numbers(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 300, 10)
            wanted = {2, 3, 150, 300, 5000}
            told: list[tuple[int, int]] = []
            found = await fetch(ann, wanted, lambda done, of: told.append((done, of)))
            assert {seq: message.seq for seq, message in found.items()} == {seq: seq for seq in wanted - {5000}}
            assert told[-1] == (5, 5)

    run(scene())


# -- a host that misbehaves, or is gone ----------------------------------------------------------


def said(*numbers: int) -> bytes:
    return b"".join(encode(Kind.SAY, b"hi", author=1, seq=seq) for seq in numbers)


async def scripted(
    tmp_path: Path,
    then: Callable[[Scripted, int], None],
    check: Callable[[asyncio.Future[Any], Member], Awaitable[None]],
) -> None:
    """Ask a scripted host for numbers 1 to 9 of a log that ends at 20."""
    fixture = HostFixture(tmp_path)
    fixture.address = fixture.asked
    async with Script(tmp_path / "host", fixture.asked) as script:
        accepting = asyncio.ensure_future(script.accept())
        joining = asyncio.ensure_future(fixture.client("ann", reads_only=True).__aenter__())
        link = await accepting
        await link.let_in(start=20, show=20, next_seq=20)
        ann = await joining
        asked = asyncio.ensure_future(ann.range(1, 10))
        question = await link.frame(Kind.ASK)
        assert unpack(Ask, question) == Ask(what="range", first=1, before=10)
        then(link, question.number)
        await check(asked, ann)
        await ann.aclose()
        await link.everything()


NAMES = pack(Kind.AUTHOR, ANN, author=1)


@pytest.mark.parametrize(
    "pieces",
    [
        [(said(2), 0)],
        [(said(1, 3), 0)],
        [(said(*range(1, 10)), 0), (said(10), 0)],
        [(said(*range(1, 11)), LAST)],
        [(b"", 0)],
        [(said(1), 0), (b"", 0)],
        [(said(1), LAST)],
        [(b"", LAST)],
        [(said(*range(1, 10)), LAST), (said(1), LAST)],
        [(encode(Kind.BEAT), 0)],
        [(b"junk", 0)],
        [(pack(Kind.GAP, Gap(first=2, count=8)), LAST)],
        [(pack(Kind.GAP, Gap(first=1, count=0)), 0)],
    ],
)
def test_a_host_that_sends_another_range_is_left(tmp_path: Path, pieces: list[tuple[bytes, int]]) -> None:
    def then(link: Scripted, number: int) -> None:
        link.send(*[encode(Kind.RANGE, body, number=number, flags=flags) for body, flags in pieces])

    async def check(asked: asyncio.Future[Any], ann: Member) -> None:
        await ann.event(Lost)
        with pytest.raises(LinkBroken):
            await asked

    run(scripted(tmp_path, then, check))


def test_a_range_that_nobody_asked_for_costs_the_link(tmp_path: Path) -> None:
    def then(link: Scripted, number: int) -> None:
        link.send(encode(Kind.RANGE, said(1), number=number + 1))

    async def check(asked: asyncio.Future[Any], ann: Member) -> None:
        with pytest.raises(LinkBroken):
            await asked
        assert "did not ask for" in (await ann.event(Lost)).why

    run(scripted(tmp_path, then, check))


def test_a_host_that_answers_in_words_is_quoted(tmp_path: Path) -> None:
    def then(link: Scripted, number: int) -> None:
        refusal = Answer(failed=True, code="unknown-request", fields={"what": "range"})
        link.send(pack(Kind.ANSWER, refusal, number=number))

    async def check(asked: asyncio.Future[Any], ann: Member) -> None:
        with pytest.raises(ChatError, match="does not know the request 'range'"):
            await asked
        again = asyncio.ensure_future(ann.range(1, 5))  # the way is free for another one
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    run(scripted(tmp_path, then, check))


def test_a_gap_that_reaches_beyond_the_range_is_told_whole(tmp_path: Path) -> None:
    def then(link: Scripted, number: int) -> None:
        link.send(encode(Kind.RANGE, pack(Kind.GAP, Gap(first=1, count=15)), number=number, flags=LAST))

    async def check(asked: asyncio.Future[Any], _ann: Member) -> None:
        assert await asked == [Gap(first=1, count=15)]

    run(scripted(tmp_path, then, check))


def test_a_link_that_is_lost_meanwhile_ends_the_range_and_another_can_be_had(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await say_much(ann, 100)
            async with fixture.client("bob", history=0) as bob:
                told: list[int] = []

                def cut(seq: int) -> None:
                    if not told:
                        for connection in fixture.hosted.connections.values():
                            connection.task.cancel()
                    told.append(seq)

                with pytest.raises(LinkBroken):
                    await bob.range(1, 10**6, cut)
                assert len(told) < 5
                await bob.event(Lost)
                await bob.event(Up)
                assert len(await bob.range(1, 10**6)) == 100

    run(scene())


def test_there_is_no_range_without_a_link(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await fixture.close()
            await ann.event(Lost)
            with pytest.raises(LinkBroken, match="no link"):
                await ann.range(1, 5)

    run(scene())
