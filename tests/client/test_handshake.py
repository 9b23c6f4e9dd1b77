"""Whom a client trusts, and what it sends to a host that it does not trust: nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chat.client import connection as connection_module
from chat.client.events import Lost
from chat.core.bodies import Challenge, pack
from chat.core.errors import (
    Refused,
)
from chat.core.events import Stored
from chat.core.wire import PREFACE, Kind
from chat.local.identity import fingerprint
from tests.host.host_fixture import (
    HostFixture,
    Script,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")
TCP = "tcp:127.0.0.1:0"


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_host_is_known_again(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture:
            async with fixture.client("ann") as ann:
                assert ann.trusted_on_first_use == fingerprint(fixture.host.identity.key)
            async with fixture.client("ann") as ann:
                assert ann.trusted_on_first_use == ""
            async with fixture.client("bob", invite=fixture.host.invite("lobby")) as bob:
                assert bob.trusted_on_first_use == ""

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_host_with_another_key_is_refused_loudly(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture:
            invite = replace(fixture.host.invite("lobby"), host=bytes(32))
            with pytest.raises(Refused, match="not the one in the invite") as caught:
                async with fixture.client("ann", invite=invite):
                    pass
            assert caught.value.code == "other-host"
            async with fixture.client("ann"):
                pass
            await fixture.close()
            fixture.key.unlink()
            await fixture.open()
            with pytest.raises(Refused, match="has changed"):
                async with fixture.client("ann"):
                    pass
            assert fixture.log() == []

    run(scene())


def test_a_host_whose_key_is_not_the_known_one_gets_no_word_from_us(tmp_path: Path) -> None:
    """Not even one that could prove the key it shows."""

    async def scene() -> None:
        fixture = HostFixture(tmp_path, "memory:twice-taken")
        for name in ("first", "second"):
            fixture.address = fixture.asked
            async with Script(tmp_path / name, fixture.asked) as script:
                accepting = asyncio.ensure_future(script.accept())
                coming = asyncio.ensure_future(fixture.client("ann", reads_only=True).__aenter__())
                link = await accepting
                if name == "first":
                    await link.let_in()
                    await (await coming).__aexit__(None, None, None)
                else:
                    link.send(PREFACE, pack(Kind.CHALLENGE, Challenge(key=script.shown, nonce=link.nonce)))
                    with pytest.raises(Refused, match="has changed"):
                        await coming
                said = [frame.kind for frame in await link.everything()]
                assert said == ([Kind.BYE] if name == "first" else [])

    run(scene())


def test_a_host_that_cannot_prove_its_key_is_not_remembered(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        async with Script(tmp_path / "eve", fixture.asked) as eve:
            fixture.address = fixture.asked
            meeting = asyncio.ensure_future(eve.meet(proof=bytes(64)))
            with pytest.raises(Refused, match="cannot prove that it holds its key"):
                async with fixture.client("ann"):
                    pass
            assert [frame.kind for frame in await (await meeting).everything()] == []
        async with fixture, fixture.client("ann") as ann:  # the right one, at the same address
            assert ann.trusted_on_first_use != ""

    run(scene())


def test_nothing_is_sent_to_whoever_took_the_hosts_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the host's key, which all have seen, and does not hold it. Not even a beat, nor what waits."""
    monkeypatch.setattr(connection_module, "BEAT", 0.01)
    monkeypatch.setattr(connection_module, "_FAULTS", 1)

    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:stolen-place") as fixture, fixture.client("ann") as ann:
            await ann.stored(await ann.say("to the host"))
            await fixture.close()
            await ann.event(Lost)
            waiting = await ann.say("for the host alone")
            async with Script(tmp_path / "eve", fixture.address, key=fixture.host.identity) as eve:
                link = await eve.meet(proof=bytes(64), epoch=fixture.hosted.room.log.epoch)
                with pytest.raises(Refused, match="cannot prove that it holds its key"):
                    await ann.event(Stored)
                with pytest.raises(Refused, match="cannot prove that it holds its key"):
                    await ann.say("is anybody there?")
                assert [frame.kind for frame in await link.everything()] == []
            assert list(ann.session.unsettled) == [waiting]
        await fixture.open()
        async with fixture.client("ann") as ann:
            await ann.event(Stored)
            assert fixture.texts() == ["to the host", "for the host alone"]
        await fixture.close()

    run(scene())


def test_an_impostor_cannot_make_us_forget_what_waits(tmp_path: Path) -> None:
    """It says that it holds everything, or nothing, and then cannot prove its key: the outbox stays as it was."""

    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:forgetful") as fixture:
            async with fixture.client("ann") as ann:
                await ann.stored(*[await ann.say(text) for text in ("one", "two")])
                ann.take()
                await fixture.close()
                await ann.event(Lost)
                await ann.say("three")
            for first_unsettled in (1, 100):
                async with Script(tmp_path / "eve", fixture.address, key=fixture.host.identity) as eve:
                    accepting = asyncio.ensure_future(eve.accept())
                    coming = asyncio.ensure_future(fixture.client("ann").__aenter__())
                    link = await accepting
                    epoch = fixture.hosted.room.log.epoch
                    await link.let_in(proof=bytes(64), first_unsettled=first_unsettled, epoch=epoch, next_seq=50)
                    with pytest.raises(Refused, match="cannot prove that it holds its key"):
                        await coming
                    await link.everything()
            await fixture.open()
            async with fixture.client("ann") as ann:
                assert (await ann.event(Stored)).entry.number == 3
                assert fixture.texts() == ["one", "two", "three"]

    run(scene())
