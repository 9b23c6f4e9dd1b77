"""Strangers who use direct rooms to fill somebody's screen or the host, or to pass for somebody else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Ask, Direct
from chat.core.errors import Refused
from chat.core.events import Message
from chat.host import admission, hosted_room, search
from chat.host import host as host_module
from tests.host.host_fixture import HostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.host.host_fixture import Member

TCP: Final = "tcp:127.0.0.1:0?tls=0"


async def news(member: Member) -> int:
    """Return how often a member was told of a direct room, up to now."""
    await member.say("up to now")
    count = 0
    while not (isinstance(event := await member.event(object), Message) and event.text == "up to now"):
        count += isinstance(event, Direct)
    return count


def test_rooms_that_others_open_are_not_charged_to_their_victim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_DIRECT_ROOMS", 2)

    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.members("ann", "bob", "m1", "m2", "m3"),
            fixture.client("m1", other="ann"),
            fixture.client("m2", other="ann"),
            fixture.client("m3", other="ann"),
            fixture.client("ann", other="m1"),  # which m1 has opened
            fixture.client("ann", other="bob") as to_bob,
            fixture.client("m1", other="bob"),
        ):
            await to_bob.stored(await to_bob.say("psst"))
            with pytest.raises(Refused) as caught:
                async with fixture.client("m1", other="m2"):  # its third
                    pass
            assert caught.value.code == "too-many-rooms"

    run(scene())


def test_a_direct_room_that_nobody_is_in_is_closed_and_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted_room, "IDLE", 0.0)
    monkeypatch.setattr(host_module, "POLL", 0.01)
    monkeypatch.setattr(admission, "MAX_DIRECT_ROOMS", 1)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann", "bob", "cid"):
            for other in ("bob", "cid", "bob"):  # the quota is of rooms that are open
                async with fixture.client("ann", other=other) as room:
                    await room.stored(await room.say(f"to {other}"))
                await until(lambda: list(fixture.host.rooms) == ["lobby"], "it is closed")
            async with fixture.client("bob", other="ann") as to_ann:
                await to_ann.hear("to bob", "to bob")

    run(scene())


def lose_direct_messages(folder: Path) -> None:
    with closing(sqlite3.connect(next(folder.rglob("log.db")))) as database, database:
        database.execute("DELETE FROM batches WHERE at > 2 << 48")


def test_a_damaged_direct_room_ends_nothing_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.members("ann", "bob"),
            fixture.client("ann", other="bob") as to_bob,
        ):
            await to_bob.stored(await to_bob.say("psst"))
        lose_direct_messages(tmp_path)
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann", "bob") as (ann, _):
            with pytest.raises(Refused) as caught:
                async with fixture.client("ann", other="bob"):
                    pass
            assert caught.value.code == "room-damaged"
            await ann.stored(await ann.say("the room goes on"))

    run(scene())


def test_who_does_not_open_a_direct_room_is_told_of_it_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.members("ann", "mallory") as (ann, _),
            fixture.client("mallory", other="ann") as to_ann,
        ):
            for number in range(50):
                await to_ann.stored(await to_ann.say(f"look at me {number}"))
            assert await news(ann) == 1
            async with fixture.client("ann", other="mallory") as to_mallory:
                await to_mallory.hear("look at me 49")
            await until(lambda: len(fixture.host.rooms[to_ann.session.room].connections) == 1, "she has left")
            for _ in range(5):
                await to_ann.stored(await to_ann.say("and at me"))
            assert await news(ann) == 1

    run(scene())


@pytest.mark.parametrize("nick", ["bob", "b0b", "zoe"])
def test_a_nickname_in_a_direct_room_is_that_of_the_shared_room(tmp_path: Path, nick: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann", "bob", "mallory"):
            to_ann = fixture.client("mallory", other="ann")
            to_ann.session._wanted_nick = nick
            async with to_ann, fixture.client("ann", other="mallory") as to_mallory:
                await to_ann.stored(await to_ann.say("it is me"))
                (message,) = await to_mallory.hear("it is me")
                assert message.author.nick == "mallory"
                assert to_ann.session.nick == "mallory"
                assert list(fixture.host.rooms[to_ann.session.room].room.roster.here) == [
                    (to_ann.session.key, "mallory"),
                    (to_mallory.session.key, "ann"),
                ]

    run(scene())


def test_searching_many_direct_rooms_opens_few_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_OPEN", 2)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann", "a", "b", "c", "d"):
            for other in "abcdab":
                async with fixture.client("ann", other=other) as room:
                    await room.stored(await room.say("a needle"))
                    assert (await room.ask(Ask(what="search", text="needle"))).found
                    is_open = [hosted.index._database is not None for hosted in fixture.host.rooms.values()]
                    assert sum(is_open) <= 2

    run(scene())
