"""What a client keeps in its outbox, and where it begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chat.client import client as client_module
from chat.client.events import Lost, Up
from chat.core.errors import (
    LocalProtocolError,
)
from chat.core.events import Joined, Message, Rewound, Stored
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from tests.host.host_fixture import (
    HostFixture,
    Script,
    SlowHostFixture,
    run,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- the outbox ----------------------------------------------------------------------------------


def test_the_next_process_sends_what_the_last_one_could_not(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.client("ann") as ann:
                await ann.stored(await ann.say(Outgoing("one", id="id-1")))
                ann.take()
                await fixture.close()
                await ann.event(Lost)
                await ann.say(Outgoing("two", id="id-2"))
                await ann.say("three")
            await fixture.open()
            async with fixture.client("ann") as ann:
                assert ann.pending == ["id-2"]
                found = [await ann.event(Stored) for _ in range(2)]
                assert [(stored.entry.id, stored.entry.number) for stored in found] == [("id-2", 2), ("", 3)]
            async with fixture.client("ann") as ann:
                assert ann.pending == []
            assert fixture.texts() == ["one", "two", "three"]

    run(scene())


def test_two_windows_of_one_person_have_an_outbox_each(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as one, fixture.client("ann") as two:
            assert one.session.stream != two.session.stream
            await one.stored(await one.say("one"))
            await two.stored(await two.say("two"))
            assert fixture.nicks() == ["ann"]
            assert not one.so_far(Lost)

    run(scene())


@pytest.mark.parametrize("fails", [True, False])
def test_what_was_told_is_told_again_if_it_may_not_have_been_dealt_with(tmp_path: Path, *, fails: bool) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            try:
                async with fixture.client("ann") as ann:
                    await ann.say(Outgoing("hello", id="mine"))
                    await ann.event(Stored)
                    if fails:
                        raise BrokenPipeError  # as it is when the screen has gone
            except BrokenPipeError:
                pass
            async with fixture.client("ann") as ann:
                assert ann.pending == (["mine"] if fails else [])
                if fails:
                    (stored,) = [await ann.event(Stored)]
                    assert (stored.entry.id, stored.seq) == ("mine", fixture.log()[-1].seq)
            assert fixture.texts() == ["hello"]

    run(scene())


def test_what_a_host_lost_is_numbered_anew_on_the_disk_too(tmp_path: Path) -> None:
    """The host goes back, and so does whoever waits in the outbox; then that process dies."""

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            fixture.disk.set()
            async with fixture.client("ann") as ann:
                await ann.stored(await ann.say("one"))
                await until(lambda: not fixture.hosted.room.changed, "it rests")
                backup = fixture.copy_store("backup")
                await ann.stored(*[await ann.say(text) for text in ("two", "three")])
                ann.take()
                await fixture.close()
                await ann.event(Lost)
                four = await ann.say("four")
                assert four.number == 4
                await fixture.go_back_to(backup)
                await ann.event(Rewound)
                await ann.event(Up)
                assert four.number == 2
            async with fixture.client("ann") as ann:
                fixture.disk.set()
                assert (await ann.event(Stored)).entry.number == 2
                assert fixture.texts() == ["one", "four"]

    run(scene())


def test_only_so_many_may_be_unsettled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 3)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            for number in range(3):
                await ann.say(str(number))
            fourth = asyncio.ensure_future(ann.say("3"))
            await until(lambda: fixture.hosted.room.log.next_seq == 5, "the host has the three")
            assert not fourth.done()
            fixture.disk.set()
            await ann.stored(await fourth)

    run(scene())


def test_what_a_link_cannot_take_at_once_goes_out_later(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                await ann.event(Up)
                for number in range(100):
                    await ann.say(f"{number} ".ljust(10_000, "."))  # a megabyte, and not one turn of the loop
                for number in range(100):  # from here on nothing happens but that the host reads
                    assert (await link.frame(Kind.SAY)).body.split()[0] == str(number).encode()
            await link.everything()

    run(scene())


def test_readers_do_not_speak(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann", reads_only=True) as ann:
            with pytest.raises(LocalProtocolError, match="only reads"):
                await ann.say("hello")
            await ann.settled()

    run(scene())


# -- where to begin ------------------------------------------------------------------------------


def test_history_and_numbers_to_begin_with(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.client("ann") as ann:
                await ann.stored(*[await ann.say(str(number)) for number in range(10)])  # numbers 2 to 11
            for history, since, first in ((3, 0, "7"), (0, 5, "3"), (99, 0, "0")):
                async with fixture.client("bob", reads_only=True, history=history, since=since) as bob:
                    assert (await bob.event(Message)).text == first
            async with fixture.client("bob", reads_only=True, since=500) as bob:
                joined = await bob.event(Joined)
                assert joined.next_seq == 12
                async with fixture.client("ann") as ann:
                    await ann.say("beyond")
                    await bob.hear("beyond")
                assert not bob.so_far(Rewound)

    run(scene())
