"""A hosted room: who is here, and what happens while its disk is slow, full or broken."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

import pytest

from chat.client.events import Up
from chat.core.bodies import Ask, Notice
from chat.core.errors import StoreError
from chat.core.events import Here, Stored
from chat.core.wire import MAX_TEXT, Kind, split
from chat.host import hosted_room
from tests.host.host_fixture import (
    HostFixture,
    SlowHostFixture,
    declined,
    fill_disk,
    free_disk,
    run,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- who is here ----------------------------------------------------------------------------------


def test_silent_readers_are_not_seen(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            async with fixture.client("reader", reads_only=True) as reader:
                here = await reader.event(Here)
                assert [nick for _, nick in here.came] == ["ann"]
                await ann.say("hello")
                await reader.hear("hello")
                assert fixture.nicks() == ["ann"]
            assert [nick for _, nick in ann.session.here] == ["ann"]

    run(scene())


@pytest.mark.usefixtures("no_beats")
def test_everyone_is_told_who_comes_and_goes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            async with fixture.client("bob"):
                await ann.event(Here, lambda here: "bob" in [nick for _, nick in here.came])
            await ann.event(Here, lambda here: "bob" in [nick for _, nick in here.went])
            lost = await fixture.raw("cid")
            await ann.event(Here, lambda here: "cid" in [nick for _, nick in here.came])
            await lost.leave()  # without a goodbye
            await ann.event(Here, lambda here: "cid" in [nick for _, nick in here.went])
            assert [nick for _, nick in ann.session.here] == ["ann"]

    run(scene())


# -- a slow disk ----------------------------------------------------------------------------------


def test_slow_commits_go_to_a_thread_and_keep_the_order(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            fixture.disk.set()
            async with fixture.members("ann", "bob") as (ann, bob):
                fixture.disk.clear()
                for number in range(300):
                    await (ann, bob)[number % 2].say(str(number))
                    await asyncio.sleep(0)
                assert fixture.texts() == []
                async with fixture.client("cid") as cid:  # who comes meanwhile is let in
                    assert [nick for _, nick in (await cid.event(Here)).came] == ["ann", "bob", "cid"]
                    fixture.disk.set()
                    await ann.settled()
                    await bob.settled()
                    heard = await cid.hear(*fixture.texts())
                    assert [message.seq for message in heard] == sorted(message.seq for message in heard)
                assert sorted(fixture.texts(), key=int) == [str(number) for number in range(300)]
                assert fixture.store.commits < 100  # and batches grow by themselves meanwhile

    run(scene())


def test_nothing_counts_as_stored_before_the_disk_has_it(tmp_path: Path) -> None:
    """Not even for one that comes back while the commit is under way, and not for its next process."""

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            fixture.disk.set()
            async with fixture.client("ann") as ann:
                await ann.settled()
                fixture.disk.clear()
                entry = await ann.say("is it there?")
                await until(lambda: fixture.hosted.committing, "the commit is under way")
                assert ann.connection.link is not None
                await ann.connection.link.aclose()
                await ann.event(Up)
                async with fixture.client("bob"):
                    pass
                assert not ann.so_far(Stored)
                assert len(ann.session.unsettled) == 1
            async with fixture.client("ann") as ann:
                assert not ann.so_far(Stored)
                fixture.disk.set()
                found = await ann.event(Stored)
                assert found.entry.body == entry.body
                assert fixture.texts() == ["is it there?"]

    run(scene())


def test_closing_stores_what_was_said_even_during_a_slow_commit(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            peer = await fixture.raw("ann")
            await peer.say(1, "first")
            await until(lambda: fixture.hosted.committing, "the commit is under way")
            await peer.say(2, "second")
            await until(lambda: fixture.hosted.room.log.next_seq == 4, "both are in the log")
            closing = asyncio.ensure_future(fixture.close())
            await closing
            await peer.leave()
            await fixture.open()
            assert fixture.texts() == ["first", "second"]

    run(scene())


def test_two_rooms_on_one_slow_disk(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            garden = fixture.add_room("garden")
            ann, bob = await fixture.raw("ann"), await fixture.raw("bob", room="garden")
            for number in range(1, 20):
                await ann.say(number, f"lobby {number}")
                await bob.say(number, f"garden {number}")
            await until(lambda: fixture.hosted.committing and garden.committing, "both commits are under way")
            fixture.disk.set()
            for number in range(1, 20):
                assert (await ann.frame(Kind.SAY)).body == f"lobby {number}".encode()
                assert (await bob.frame(Kind.SAY)).body == f"garden {number}".encode()
            await ann.leave()
            await bob.leave()

    run(scene())


# -- a full disk ----------------------------------------------------------------------------------


LONG: Final = "." * (MAX_TEXT - 10)  # more than what is free in the pages that the database has already


@pytest.mark.usefixtures("no_beats")
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_full_disk_keeps_messages_waiting_and_stores_them_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_thread: bool
) -> None:
    monkeypatch.setattr(hosted_room, "_RETRY", 0.02)
    monkeypatch.setattr(hosted_room, "SLOW_COMMIT", -1 if in_thread else math.inf)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            before = await ann.say("before")
            await ann.stored(before)
            fill_disk(fixture)
            waiting = [await ann.say(f"{number} {LONG}") for number in range(3)]
            for client in (ann, bob):
                assert (await client.event(Notice)).code == "disk-full"
            async with fixture.client("cid") as cid:  # reading goes on
                assert (await cid.event(Notice)).code == "disk-full"
                await cid.hear("before")
            await until(lambda: fixture.nicks() == ["ann", "bob"], "cid has left")
            for _ in range(10):  # nothing happens any more but the next try
                await asyncio.sleep(0)
            assert len(ann.session.unsettled) == 3
            assert fixture.texts() == ["before"]
            free_disk(fixture)
            assert len(await ann.stored(*waiting)) == 3
            assert (await bob.event(Notice)).code == "disk"
            assert fixture.texts()[1:] == [f"{number} {LONG}" for number in range(3)]
            await fixture.close()
            await fixture.open()  # and with them all that came about meanwhile
            state = fixture.store.open_room("lobby")
            assert [mark for key, _, mark in state.tables.high_water if key == ann.session.key] == [4]
            assert sorted(nick for _, nick, _ in state.tables.nicks) == ["ann", "bob", "cid"]
            assert len(state.tables.members) == 3

    run(scene())


def test_a_host_closed_while_its_disk_is_full_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosted_room, "_RETRY", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            fill_disk(fixture)
            await ann.say(LONG)
            await ann.event(Notice)
            await fixture.close()
            commits = []
            monkeypatch.setattr(fixture.store, "commit", lambda *_: commits.append(1))
            await asyncio.sleep(5 * 0.01)  # there is no event for what must not happen
            assert commits == []

    run(scene())
    assert [record.message for record in caplog.records if record.levelno > logging.WARNING] == [
        "the disk is full; messages wait until there is room again"
    ]


@pytest.mark.usefixtures("no_beats")
def test_while_the_disk_is_full_others_are_served_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry of the disk is far away, and no tick waits for it."""
    monkeypatch.setattr(hosted_room, "_RETRY", 3600)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            fill_disk(fixture)
            await ann.say(LONG)
            await ann.event(Notice)
            retry = fixture.hosted.retry
            async with fixture.client("bob") as bob:
                assert "is it an older version" in await declined(bob, Ask(what="the time"))
                assert fixture.hosted.retry is retry  # nobody has tried in between
            free_disk(fixture)

    run(scene())


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_disk_that_fails_ends_the_host_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_thread: bool
) -> None:
    monkeypatch.setattr(hosted_room, "SLOW_COMMIT", -1 if in_thread else math.inf)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann = await fixture.raw("ann")
            await until(lambda: not fixture.hosted.room.changed, "her name is stored")
            # An error that is not SQLITE_FULL, as a failed fsync would be.
            fixture.store._database.execute(
                "CREATE TEMP TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'it broke'); END"
            )
            await ann.say(1)
            assert fixture.running is not None
            with pytest.raises(StoreError, match=r"it broke.*no longer accepted"):
                await fixture.running
            fixture.running = None
            await ann.say(2)
            await fixture.host.aclose()  # nor does closing try once more
            seen = [frame.kind for frame in split(await ann.everything())]
            assert Kind.SAY not in seen
            await ann.leave()
            fixture.store._database.execute("DROP TRIGGER broken")
            assert fixture.log() == []
            fixture.store.close()

    run(scene())
