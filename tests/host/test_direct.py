"""Direct rooms: for the two whose keys make the name, and for nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Direct, Refusal, direct_name, pack, unpack
from chat.core.errors import NoSuchRoom, Refused
from chat.core.wire import PREFACE, Kind
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, run

if TYPE_CHECKING:
    from pathlib import Path


def key(fixture: HostFixture, nick: str) -> bytes:
    return Identity.load(fixture.folder / f"{nick}.pem").key


def test_two_talk_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob", "cid") as (_ann, bob, cid):
            async with fixture.client("ann", other="bob") as to_bob:
                (seq,) = await to_bob.stored(await to_bob.say("psst"))
                news = await bob.event(Direct)
                assert (news.other, news.nick, news.next_seq, news.read) == (key(fixture, "ann"), "ann", seq + 1, 0)
                assert news.room == direct_name(key(fixture, "bob"), key(fixture, "ann"))
                async with fixture.client("bob", other="ann") as to_ann:
                    await to_ann.hear("psst")
                    await to_ann.stored(await to_ann.say("what?"))
                    await to_bob.hear("what?")
            await cid.stored(await cid.say("where are they?"))
            assert fixture.texts() == ["where are they?"]
            assert cid.so_far(Direct) == []

    run(scene())


def test_who_is_in_it_is_not_told_of_it_elsewhere(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (_, bob):
            async with fixture.client("ann", other="bob") as to_bob, fixture.client("bob", other="ann") as to_ann:
                await to_bob.say("psst")
                await to_ann.hear("psst")
            await bob.stored(await bob.say("so"))
            assert bob.so_far(Direct) == []

    run(scene())


def test_it_outlives_the_host_and_is_told_of_to_those_who_come(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        async with (
            fixture,
            fixture.members("ann", "bob", "cid"),
            fixture.client("ann", other="bob") as to_bob,
            fixture.client("cid", other="ann"),
        ):
            await to_bob.stored(await to_bob.say("psst"))  # and cid says nothing
        async with fixture:
            async with fixture.client("bob") as bob, fixture.client("cid") as cid, fixture.client("ann") as ann:
                assert (await bob.event(Direct)).nick == "ann"
                assert (await ann.event(Direct)).nick == "bob"
                await cid.stored(await cid.say("so"))
                assert cid.so_far(Direct) == []
            async with fixture.client("bob", other="ann") as to_ann:
                await to_ann.hear("psst")

    run(scene())


def test_how_far_one_has_read_goes_along_with_it(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        async with fixture, fixture.members("ann", "bob") as (_, bob), fixture.client("ann", other="bob") as to_bob:
            async with fixture.client("bob", other="ann", looks=True) as to_ann:
                (seq,) = await to_bob.stored(await to_bob.say("psst"))
                await to_ann.hear("psst")
                to_ann.show(read=seq)
            await to_bob.stored(await to_bob.say("psst again"))
            while (news := await bob.event(Direct)).next_seq < seq + 2:
                pass
            assert news.read == seq
        async with fixture, fixture.client("bob") as bob:
            news = await bob.event(Direct)
            assert (news.next_seq, news.read) == (seq + 2, seq)

    run(scene())


def test_nobody_else_gets_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path) as fixture,
            fixture.members("ann", "bob", "cid"),
            fixture.client("ann", other="bob") as to_bob,
        ):
            await to_bob.stored(await to_bob.say("psst"))
            name = to_bob.session.room
            for room_of in (fixture.client("cid", room=name), fixture.client("owner", room=name)):
                with pytest.raises(Refused, match="only for its two members"):
                    async with room_of:
                        pass
            invite = fixture.host.invite(name)
            with pytest.raises(Refused, match="only for its two members"):
                async with fixture.client("cid", room=name, invite=invite):
                    pass

    run(scene())


def test_a_name_that_does_not_fit_the_keys_opens_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob", "cid"):
            ann, bob, cid = (key(fixture, nick) for nick in ("ann", "bob", "cid"))
            for name, other in ((direct_name(ann, bob), ann), (direct_name(cid, cid), cid), ("@lobby", ann)):
                peer = await fixture.dial()
                hello = await peer.hello("cid", room=name, other=other)
                await peer.send(PREFACE + pack(Kind.HELLO, hello))
                refusal = unpack(Refusal, await peer.frame(Kind.REFUSED))
                assert refusal.code == "protocol"
                await peer.link.aclose()
            assert list(fixture.host.rooms) == ["lobby"]

    run(scene())


def test_strangers_have_no_direct_rooms(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann"):
            for nick, other in (("ann", "zoe"), ("zoe", "ann")):  # zoe has never been here
                with pytest.raises(NoSuchRoom, match="you share no room with that key"):
                    async with fixture.client(nick, other=other):
                        pass
            assert list(fixture.host.rooms) == ["lobby"]

    run(scene())


def test_one_key_opens_so_many_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.host.admission.MAX_DIRECT_ROOMS", 1)

    async def scene() -> None:
        async with (
            HostFixture(tmp_path) as fixture,
            fixture.members("ann", "bob", "cid"),
            fixture.client("ann", other="bob"),
        ):
            with pytest.raises(Refused, match="you have 1 direct rooms open"):
                async with fixture.client("ann", other="cid"):
                    pass

    run(scene())
