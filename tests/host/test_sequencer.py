"""A room whose order comes from elsewhere, in a real host: slow, and with failures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from chat.core.events import Rejected
from chat.core.ledger import BOT
from chat.core.outgoing import Outgoing
from chat.core.sequencer import Submission
from chat.core.wire import Kind
from tests.host.host_fixture import HostFixture, new_invite, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chat.host.hosted_room import HostedRoom

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class EverySecondFails:
    """Answers later. Every second batch fails: it is lost, or in the order all the same, or ``submit`` raises."""

    def __init__(self) -> None:
        self.hosted: HostedRoom | None = None
        self.submits = 0
        self.holds = False
        self.held: list[tuple[int, bytes, Callable[[bool], None]]] = []

    def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
        self.submits += 1
        if self.submits % 6 == 2:
            raise OSError("the net is down")
        asyncio.get_running_loop().call_later(0.001, self._answer, self.submits, msgspec.msgpack.encode(batch), done)

    def go_on(self) -> None:
        self.holds = False
        for one in self.held:
            self._answer(*one)

    def _answer(self, number: int, data: bytes, done: Callable[[bool], None]) -> None:
        assert self.hosted is not None
        if self.holds:
            self.held.append((number, data, done))
            return
        if number % 6 != 4:
            self.hosted.apply(msgspec.msgpack.decode(data, type=list[Submission]))
        done(number % 2 == 1)


class OrderedFixture(HostFixture):
    """A host whose room has such a sequencer."""

    holds = False  # from the beginning

    async def open(self) -> None:
        self.sequencer = EverySecondFails()
        self.sequencer.holds = self.holds
        await super().open()

    def open_lobby(self) -> HostedRoom:
        hosted = self.host.open_room("lobby", open_to_all=self.open_to_all, sequencer=self.sequencer)
        self.sequencer.hosted = hosted
        return hosted


@pytest.fixture(autouse=True)
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.host.host.POLL", 0.001)
    monkeypatch.setattr("chat.host.host.BEAT", 60.0)  # which would hide a room that nobody wakes


def test_nothing_is_lost_or_doubled_when_every_second_submit_fails(tmp_path: Path) -> None:
    async def scene() -> None:
        async with OrderedFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            entries = [await member.say(f"{member.nick} {n}") for n in range(20) for member in (ann, bob)]
            wrong = await ann.say(Outgoing("a correction", Kind.EDIT, 5000))
            last = await ann.say("last")
            await bob.stored(*entries[1::2])
            assert (await ann.event(Rejected)).entry == wrong
            await ann.stored(last)
            texts = fixture.texts()
            assert sorted(texts) == sorted([f"{nick} {n}" for nick in ("ann", "bob") for n in range(20)] + ["last"])
            assert [text for text in texts if text[:3] == "bob"] == [f"bob {n}" for n in range(20)]
            assert fixture.sequencer.submits > 6

    run(scene())


def test_a_newcomer_waits_for_the_invite_to_be_in_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        fixture = OrderedFixture(tmp_path, open_to_all=False)
        fixture.holds = True
        async with fixture:
            waiting: list[Callable[[], bool]] = []
            in_order = fixture.hosted.in_order

            async def seen(holds: Callable[[], bool]) -> bool:
                waiting.append(holds)
                return await in_order(holds)

            monkeypatch.setattr(fixture.hosted, "in_order", seen)
            ann = await fixture.dial()
            asked = asyncio.ensure_future(ann.say_hello("ann", invite=fixture.host.invite("lobby")))
            await until(lambda: waiting or asked.done(), "it is in admission")
            assert not waiting[0]()
            fixture.sequencer.go_on()
            assert (await asked).nick == "ann"
            await ann.say(1)
            await ann.frame(Kind.SAY)  # nothing but the order wakes the room for it
            await ann.leave()

    run(scene())


def test_newcomers_get_in_by_invite_and_are_known_from_then_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with OrderedFixture(tmp_path, open_to_all=False) as fixture:
            async with fixture.client("ann", invite=fixture.host.invite("lobby")):
                once = await new_invite(fixture, uses=1)
                async with fixture.client("bob", invite=once) as bob:
                    assert sorted(fixture.nicks()) == ["ann", "bob"]
                    await bob.stored(await bob.say("hi"))
                async with fixture.client("bob"):  # it is known now
                    pass
            await fixture.close()
            await fixture.open()
            async with fixture.client("bob") as bob:
                await bob.hear("hi")

    run(scene())


def test_two_who_claim_one_nickname_at_once_both_get_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with OrderedFixture(tmp_path) as fixture:
            peers = [await fixture.dial() for _ in range(3)]
            keys = [fixture.client(name).identity for name in ("one", "two", "three")]
            await asyncio.gather(*(peer.say_hello("ann", key=key) for peer, key in zip(peers, keys, strict=True)))
            assert sorted(fixture.nicks()) == ["ann", "ann-2", "ann-3"]
            for peer in peers:
                await peer.leave()

    run(scene())


def test_a_program_is_labelled_a_bot_once_the_order_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with OrderedFixture(tmp_path) as fixture:
            async with fixture.client("bot") as bot:
                pass  # it is a member, and its nickname is in the order
            fixture.hosted.room.admit(bot.identity.key, BOT)
            async with fixture.client("bot"):
                (member,) = fixture.hosted.room.members
                assert member.role == BOT

    run(scene())


def test_a_newcomer_is_dropped_if_the_order_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with OrderedFixture(tmp_path) as fixture:
            monkeypatch.setattr("chat.host.hosted_room.ORDER_TIMEOUT", 0.01)
            monkeypatch.setattr(fixture.sequencer, "submit", lambda _batch, _done: None)
            peer = await fixture.dial()
            with pytest.raises(AssertionError, match="closed the link"):
                await peer.say_hello("ann")
            await peer.leave()

    run(scene())
