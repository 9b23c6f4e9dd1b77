"""Searching a room over the wire: a real host, its index, and members who ask."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from chat.cli.oneshot import print_search
from chat.core.bodies import Answer, Ask, pack, unpack
from chat.core.errors import ChatError
from chat.core.events import Rejected
from chat.core.outgoing import Outgoing
from chat.core.wire import MAX_CONTROL, SEQ_PREFIX, Kind, encode
from chat.host.requests import REQUESTS
from tests.host.host_fixture import HostFixture, declined, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.host.host_fixture import Member

pytestmark = pytest.mark.usefixtures("leaves_nothing")


async def search(member: Member, text: str, **more: int) -> Answer:
    return await member.ask(Ask(what="search", text=text, **more))  # type: ignore[arg-type]


def test_a_member_finds_what_was_said_a_moment_ago(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            one, two = await ann.stored(await ann.say("我们去北京吧"), await ann.say("let us go"))
            (three,) = await bob.stored(await bob.say("北京? go!"))
            found = await search(bob, "北京")
            assert found == Answer(found=[(three, three), (one, one)], indexed=three + 1)
            assert (await search(ann, "go from:ann")).found == [(two, two)]
            assert await search(ann, "go", limit=1) == Answer(found=[(three, three)], more=True, indexed=three + 1)
            assert (await search(ann, "go", before=three)).found == [(two, two)]
            (edit,) = await ann.stored(await ann.say(Outgoing("let us stay", kind=Kind.EDIT, target=two)))
            assert (await search(bob, "us")).found == [(two, edit)]
            assert "give a word" in await declined(ann, Ask(what="search", text="?!"))

    run(scene())


def test_a_search_finds_what_was_said_before_the_host_was_closed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.members("ann") as (ann,):
                (seq,) = await ann.stored(await ann.say("hello"))
            for _ in range(2):
                await fixture.close()
                await fixture.open()
                async with fixture.members("ann") as (ann,):
                    assert (await search(ann, "hello")).found == [(seq, seq)]
            older = fixture.copy_store("older")
            async with fixture.members("ann") as (ann,):
                await ann.stored(await ann.say("hello and farewell"))
                assert len((await search(ann, "hello")).found) == 2
            await fixture.go_back_to(older)
            async with fixture.members("ann") as (ann,):
                assert (await search(ann, "hello")).found == [(seq, seq)]

    run(scene())


def test_rooms_of_one_store_do_not_find_each_others_messages(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            fixture.add_room("den")
            async with fixture.client("ann") as ann, fixture.client("bob", room="den") as bob:
                await ann.stored(await ann.say("hello lobby"))
                (seq,) = await bob.stored(await bob.say("hello den"))
                assert (await search(bob, "hello")).found == [(seq, seq)]
                assert (await search(bob, "lobby")).found == []

    run(scene())


def test_an_answer_fits_one_control_frame(tmp_path: Path) -> None:
    longest = Answer(found=[(2**63 - 1, 2**63 - 1)] * 100, more=True, indexed=2**63 - 1)
    assert len(pack(Kind.ANSWER, longest, number=1)) < MAX_CONTROL

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann") as (ann,):
            await ann.stored(*[await ann.say("word") for _ in range(150)])
            assert len((await search(ann, "word", limit=2**32 - 1)).found) == 100
            assert len((await search(ann, "word")).found) == 20
            assert "at most 1000" in await declined(ann, Ask(what="search", text="x" * 60_000))

    run(scene())


def test_one_search_at_a_time_and_who_leaves_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.members("ann") as (ann,):
                (seq,) = await ann.stored(await ann.say("word"))
            raw = await fixture.raw("bob")
            ask = Ask(what="search", text="word")
            await raw.send(b"".join(pack(Kind.ASK, ask, number=number) for number in (1, 2)))
            answers = {}
            for _ in range(2):
                frame = await raw.frame(Kind.ANSWER)
                answers[frame.number] = unpack(Answer, frame)
            assert answers[1].found == [(seq, seq)]
            assert answers[2].failed
            assert answers[2].text == "your last search is still running; wait for its answer"
            await raw.send(pack(Kind.ASK, ask, number=3))
            assert unpack(Answer, await raw.frame(Kind.ANSWER)).found == [(seq, seq)]
            await raw.send(pack(Kind.ASK, ask, number=4) + encode(Kind.BYE))
            await raw.everything()
            await raw.leave()
            async with fixture.members("ann") as (ann,):
                assert (await search(ann, "word")).found == [(seq, seq)]

    run(scene())


def test_an_edit_by_somebody_else_is_not_searched(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            (seq,) = await ann.stored(await ann.say("mine"))
            await bob.say(Outgoing("yours", kind=Kind.EDIT, target=seq))
            assert (await bob.event(Rejected)).code == "not-yours"
            assert (await search(bob, "mine")).found == [(seq, seq)]
            assert (await search(bob, "yours")).found == []
            raw = await fixture.raw("cid")
            await raw.send(encode(Kind.EDIT, SEQ_PREFIX.pack(2**64 - 1) + b"\xff", number=1))
            await raw.send(encode(Kind.EDIT, b"", number=2) + pack(Kind.ASK, Ask(what="search", text="mine"), number=1))
            assert not unpack(Answer, await raw.frame(Kind.ANSWER)).failed
            await raw.leave()
            assert (await search(bob, "mine")).found == [(seq, seq)]

    run(scene())


def test_a_damaged_index_harms_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.members("ann") as (ann,):
                (seq,) = await ann.stored(await ann.say("hello"))
                await search(ann, "hello")
            await fixture.close()
            with closing(sqlite3.connect(fixture.store.search_path(1))) as database:
                database.execute("DROP TABLE messages")
            await fixture.open()
            async with fixture.members("ann") as (ann,):
                assert "is built anew; try again" in await declined(ann, Ask(what="search", text="hello"))
                await ann.stored(await ann.say("still here"))
                assert (await search(ann, "hello")).found == [(seq, seq)]

    run(scene())


def test_a_host_that_says_there_is_more_but_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            monkeypatch.setitem(REQUESTS, "search", ("", lambda *_: Answer(more=True, indexed=1)))
            with pytest.raises(ChatError, match="nothing was found"):
                await print_search(fixture.client("ann", reads_only=True), "x", limit=20, before=0, as_json=False)

    run(scene())
