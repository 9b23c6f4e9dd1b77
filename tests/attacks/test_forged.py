"""Members that say of themselves what only the host says: who wrote, as which number, when; and numbers of others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Author, Moderation, pack
from chat.core.status import Status, pack_slot
from chat.core.wire import PREFACE, Kind, encode
from chat.local.identity import Identity
from tests.attacks.crowd import talking
from tests.host.host_fixture import HostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

TCP: Final = "tcp:127.0.0.1:0?tls=0"


def test_author_number_and_time_are_the_hosts(tmp_path: Path) -> None:
    """Whatever a member writes into these fields, one message or many in a row."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid", "dan") as (bob, cid, dan):
            ann, eve = await fixture.raw("ann"), await fixture.raw("eve")
            await ann.say(1, "mine")
            (first,) = await dan.hear("mine")
            index = fixture.log()[first.seq - 1].author
            began = time.time_ns() // 1_000_000
            async with talking(bob, cid):
                for number, kind in enumerate([Kind.SAY] * 30 + [Kind.ACTION], 1):
                    body = f"forged {number}".encode()
                    await eve.send(encode(kind, body, author=index, number=number, seq=first.seq, time=1))
                for number in range(1, 32):
                    (said,) = await dan.hear(f"forged {number}")
                    assert (said.author.nick, said.mine) == ("eve", False)
                    assert said.seq > first.seq
                    assert said.time >= began
            log = fixture.log()
            assert [frame.seq for frame in log] == [*range(1, len(log) + 1)]
            assert [frame.time for frame in log] == sorted(frame.time for frame in log)
            await ann.leave()
            await eve.leave()

    run(scene())


RECORDS: Final = {
    "an author": pack(Kind.AUTHOR, Author(index=1, key=b"e" * 32, stream=1, nick="ann")),
    "a decision": pack(Kind.MODERATION, Moderation(action="role", by=b"e" * 32, by_nick="ann", role="owner")),
    "another's status": encode(Kind.STATE, pack_slot(b"a" * 32, "ann", Status())),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_the_hosts(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid") as (bob, cid):
            async with talking(bob, cid):
                eve = await fixture.raw("eve")
                await eve.send(RECORDS[name])
                refusal = await eve.refusal()
                assert (refusal.code, "\n" in refusal.text) == ("protocol", False)
                await eve.leave()
            assert all(frame.kind in {Kind.SAY, Kind.AUTHOR} for frame in fixture.log())
            assert not any(nick == "eve" for nick in fixture.nicks())

    run(scene())


def test_numbers_of_another_keys_outbox_are_its_own(tmp_path: Path) -> None:
    """Eve knows ann's stream and number, from what everybody gets, and sends again under these."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid", "dan") as (bob, cid, dan):
            ann = await fixture.raw("ann", stream=77)
            await ann.say(1, "one")
            await dan.hear("one")
            async with talking(bob, cid):
                eve = await fixture.raw("eve", stream=77)
                assert eve.welcome is not None
                assert eve.welcome.first_unsettled == 1  # not ann's
                assert "ann" in fixture.nicks()  # its link was not replaced
                await eve.say(1, "instead of one")
                (said,) = await dan.hear("instead of one")
                assert said.author.nick == "eve"
                await eve.say(1, "again")  # a number that is stored already: passed over
                await eve.say(2, "two")
                await dan.hear("two")
                await eve.say(4, "four")
                assert "number 4 after 2" in (await eve.refusal()).text
                await ann.say(2, "ann's two")
                (said,) = await dan.hear("ann's two")
                assert said.author.nick == "ann"
                await eve.leave()
            assert [text for text in fixture.texts() if not text.startswith("bystander")] == [
                "one",
                "instead of one",
                "two",
                "ann's two",
            ]
            await ann.leave()

    run(scene())


def test_a_second_link_of_a_stream_takes_the_keys_signature(tmp_path: Path) -> None:
    """Or anybody who knows ann's public key could put her out of the room."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid") as (bob, cid):
            ann = await fixture.raw("ann", stream=77)
            async with talking(bob, cid):
                eve = await fixture.dial()
                hello = await eve.hello("eve", stream=77)
                hello.key, hello.nick = Identity.load(fixture.folder / "ann.pem").key, "ann"
                await eve.send(PREFACE + pack(Kind.HELLO, hello))
                assert "signature does not fit" in (await eve.refusal()).text
                await eve.leave()
            await ann.say(1, "still here")
            await until(lambda: "still here" in fixture.texts(), "ann is heard")
            await ann.leave()

    run(scene())
