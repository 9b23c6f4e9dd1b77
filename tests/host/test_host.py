"""The host among real members: talking, beats, and hosts that close, die and come back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from chat.client.events import Lost
from chat.core.bodies import Author, unpack
from chat.core.events import Message, Rewound
from chat.core.wire import MAX_TEXT, Kind, split
from chat.host import host as host_module
from tests.host.host_fixture import (
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

    from chat.client.client import Client

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- talking --------------------------------------------------------------------------------------


@every_wire
def test_what_is_said_reaches_everyone_once_and_in_one_order(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture, fixture.members("ann", "bob", "cid") as members:

            async def talk(client: Client, name: str) -> None:
                for number in range(50):
                    await client.say(f"{name} {number}")

            async def listen(client: Client) -> list[str]:
                heard: list[str] = []
                while len(heard) < 150:
                    heard += [e.text for e in await client.next_events() if isinstance(e, Message)]
                return heard

            talking = [talk(client, name) for client, name in zip(members, "abc", strict=True)]
            heard = await asyncio.gather(*map(listen, members), *talking)
            assert heard[0] == heard[1] == heard[2] == fixture.texts()
            for name in "abc":
                assert [text for text in fixture.texts() if text[0] == name] == [f"{name} {n}" for n in range(50)]
            for client in members:
                await client.settled()

    run(scene())


@every_wire
def test_an_echo_says_where_in_the_log_a_message_stands(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture, fixture.client("ann") as ann:
            entries = [await ann.say(text) for text in ("one", "two")]
            seqs = await ann.stored(*entries)
            at = {frame.seq: frame.body for frame in fixture.log()}
            assert [at[seq] for seq in seqs] == [b"one", b"two"]

    run(scene())


def test_a_room_of_any_size_of_message(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            texts = ["x" * size for size in (0, 1, MAX_TEXT - 1, MAX_TEXT)]
            for text in texts:
                await ann.say(text)
            await bob.hear(*texts)

    run(scene())


def test_an_author_is_introduced_with_its_name(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await ann.stored(await ann.say("hi"))
            author = unpack(Author, fixture.log()[0])
            assert (author.nick, author.key, author.stream) == ("ann", ann.session.key, ann.session.stream)

    run(scene())


# -- beats and silence ----------------------------------------------------------------------------


def test_beats_keep_members_and_silence_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "BEAT", 0.02)
    monkeypatch.setattr(host_module, "SILENCE", 1.5)
    monkeypatch.setattr("chat.client.connection.BEAT", 0.02)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            silent = await fixture.raw("cid")
            received = list(split(await silent.everything()))  # its end comes from the host
            assert Kind.BEAT in {frame.kind for frame in received}
            assert fixture.nicks() == ["ann"]
            assert not ann.so_far(Lost)
            await silent.leave()

    run(scene())


def test_a_host_that_was_stopped_hears_those_who_spoke_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "BEAT", 0.01)
    monkeypatch.setattr(host_module, "SILENCE", 0.3)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            cid = await fixture.raw("cid")
            await cid.frame(Kind.BEAT)
            await cid.say(1)
            time.sleep(0.5)  # noqa: ASYNC251 - all of this process stands still, as after SIGSTOP
            assert (await cid.frame(Kind.SAY)).number == 1
            assert not ann.so_far(Lost)
            await cid.everything()  # and then it is dropped for its own silence

    run(scene())


# -- hosts that close, die and come back ----------------------------------------------------------


@pytest.mark.parametrize("turns", range(5))
def test_a_host_that_is_closed_leaves_no_link_open(tmp_path: Path, fake_transport: FakeTransport, turns: int) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann, bob = Guest(fixture, fake_transport, "ann"), Guest(fixture, fake_transport, "bob")
            await ann.come()
            await until(lambda: fixture.hosted.connections, "ann is in")
            ann.link.room = 0
            fixture.hosted.room.log.append(Kind.SAY, b"x", time=0)
            fixture.hosted.wake()
            (served,) = fixture.hosted.connections.values()
            await until(lambda: served.clogged, "her link is full")
            fake_transport.accepted.put_nowait(bob.link)  # he arrives in the same moment
            for _ in range(turns):
                await asyncio.sleep(0)
            await fixture.host.aclose()
            assert ann.link.closed
            assert bob.link.closed

    run(scene())


@every_wire
def test_a_host_that_restarts_is_found_again_and_nothing_is_lost_or_doubled(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture, fixture.members("ann", "bob") as (ann, bob):
            texts = [f"{number}" for number in range(30)]
            listening = asyncio.ensure_future(bob.hear(*texts))
            for number in texts:
                await ann.say(number)
                if int(number) % 10 == 5:
                    await fixture.close()
                    await ann.say("said while it was away")
                    await fixture.open()
            await listening
            await ann.settled()
            assert [text for text in fixture.texts() if text != "said while it was away"] == texts
            assert fixture.texts().count("said while it was away") == 3
            assert len({frame.author for frame in fixture.log()}) == 1
            assert not bob.so_far(Rewound)

    run(scene())


def test_what_a_crash_takes_is_sent_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            fixture.disk.set()
            async with fixture.client("ann") as ann:
                await ann.stored(await ann.say("on the disk"))
                fixture.disk.clear()
                lost = await ann.say("not yet")
                await until(lambda: fixture.hosted.committing, "the commit is under way")
                image = fixture.copy_store("image")
                for served in fixture.hosted.connections.values():  # nothing of the last moments reaches anybody
                    served.task.cancel()
                await fixture.go_back_to(image)
                fixture.disk.set()
                (seq,) = await ann.stored(lost)
                assert fixture.texts() == ["on the disk", "not yet"]
                assert fixture.log()[-1].seq == seq

    run(scene())


def test_a_host_that_went_back_is_noticed_and_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            await ann.stored(await ann.say("kept"))
            await until(lambda: not fixture.hosted.room.changed, "it rests")
            backup = fixture.copy_store("backup")
            await ann.stored(await ann.say("lost"))
            await bob.hear("kept", "lost")
            await fixture.go_back_to(backup)
            async with fixture.client("cid") as cid:  # and it goes on, before they come back
                await cid.say("new")
            for client in (ann, bob):
                assert "older copy" in (await client.event(Rewound)).why.text
            again = await ann.say("again")
            await ann.stored(again)
            await bob.hear("again")
            assert fixture.texts() == ["kept", "new", "again"]
            assert again.number == 2

    run(scene())
