"""Somebody who makes a new key for each visit, or a new nickname, or a new outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.bodies import pack
from chat.core.errors import HostBusy
from chat.core.wire import PREFACE, Kind
from chat.host import host as host_module
from chat.host import hosted_room, rates
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TCP: Final = "tcp:127.0.0.1:0?tls=0"


def test_so_many_new_keys_by_one_invite_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "NEWCOMERS_A_SOURCE", 3)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, open_to_all=False, rate=5000) as fixture:
            invite = fixture.host.invite("lobby")
            members = [fixture.client(f"m{n}", invite=invite) for n in range(20)]
            refused: list[HostBusy] = []
            for member in members:
                try:
                    async with member:
                        pass
                except HostBusy as error:
                    refused.append(error)
            assert {error.code for error in refused} == {"newcomers"}
            assert all(0 < error.seconds <= 60 for error in refused)
            assert len(refused) >= 16  # one more may have come while this test took its time
            async with fixture.client("m0"), fixture.client("owner"):  # who has been here may always come again
                pass
            assert len(fixture.hosted.room._roles) <= 5

    run(scene())


def test_a_newcomer_who_may_wait_comes_in_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "NEWCOMERS_A_SOURCE", 1)
    monkeypatch.setattr(rates, "NEWCOMERS_SECONDS", 1.0)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=5000) as fixture, fixture.members("ann"):
            bob = fixture.client("bob")
            told: list[HostBusy] = []
            bob.on_wait = told.append
            async with bob:
                assert [error.code for error in told] == ["newcomers"]

    run(scene())


def test_a_nickname_that_never_spoke_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_room, "NICK_GRACE", 0.0)
    monkeypatch.setattr(host_module, "POLL", 0.01)

    async def scene() -> None:
        fixture = HostFixture(tmp_path, TCP)
        async with fixture:
            nicks = fixture.hosted.room._nicks
            async with fixture.client("zoe") as zoe:
                await zoe.stored(await zoe.say("I spoke"))
            async with fixture.client("yan"), fixture.client("yan"):
                await until(lambda: "yan" in nicks, "it has come")
            await until(lambda: list(nicks) == ["zoe"], "it is free again")
            thief = Identity.load(tmp_path / "thief.pem")
            for nick, given in (("zoe", "zoe-2"), ("yan", "yan")):
                peer = await fixture.raw(nick, key=thief)
                assert peer.welcome is not None
                assert peer.welcome.nick == given
                await peer.leave()
            await until(lambda: list(nicks) == ["zoe"], "these are free, too")

    run(scene())


def test_what_is_let_go_of_is_gone_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_module, "POLL", 0.01)

    async def scene() -> None:
        fixture = HostFixture(tmp_path, TCP)
        async with fixture, fixture.client("zoe") as zoe, fixture.client("yan"):
            await zoe.stored(await zoe.say("I spoke"))
        monkeypatch.setattr(hosted_room, "NICK_GRACE", 0.0)
        async with fixture:  # which begins to count anew
            await until(lambda: list(fixture.hosted.room._nicks) == ["zoe"], "yan's is free")
            await until(lambda: not fixture.hosted.room.changed, "that is stored")
            assert ("nicks", "yan") not in fixture.store._checked[fixture.hosted.number].digests
            async with fixture.client("yan") as yan:  # claims it again
                await yan.stored(await yan.say("now I spoke"))
        async with fixture:
            assert set(fixture.hosted.room._nicks) == {"zoe", "yan"}
        assert "checkpoint" not in caplog.text

    run(scene())


def test_two_nicknames_in_turn_are_introduced_once_each(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture:
            key = Identity.load(tmp_path / "mallory.pem")
            for number in range(1, 11):
                peer = await fixture.raw(f"mallory{number % 2}", key=key)
                await peer.say(number)
                await peer.frame(Kind.SAY)
                await peer.leave()
            log = fixture.log()
            assert [frame.kind for frame in log].count(Kind.AUTHOR) == 2
            says = [frame for frame in log if frame.kind == Kind.SAY]
            assert [frame.author for frame in says] == [1, 2] * 5  # they began when the first of each was introduced

    run(scene())


def test_one_key_brings_so_many_outboxes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "NEW_STREAMS", 3)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=5000) as fixture, fixture.members("ann") as (ann,):
            key = Identity.load(tmp_path / "mallory.pem")
            for stream in range(1, 21):  # that say nothing, and cost nothing
                await (await fixture.raw("mallory", key=key, stream=stream)).leave()
                await until(lambda: fixture.nicks() == ["ann"], "it has left")
            spoken = 0
            for stream in range(101, 121):
                peer = await fixture.dial()
                hello = await peer.hello("mallory", key=key, stream=stream)
                await peer.send(PREFACE + pack(Kind.HELLO, hello))
                if (await peer.frame(Kind.WELCOME, Kind.REFUSED)).kind == Kind.WELCOME:
                    spoken += 1
                    await peer.say(1)
                    await peer.frame(Kind.SAY)
                await peer.leave()
            assert 3 <= spoken <= 4
            peer = await fixture.raw("mallory", key=key, stream=101)  # a known one may always speak
            await peer.say(2, "again")
            await ann.hear("again")
            await peer.leave()

    run(scene())
