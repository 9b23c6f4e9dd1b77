"""Members that send as much as they can, over many links and with many keys; and a disk that runs short of space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.bodies import Notice
from chat.host import host as host_module
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.host.host_fixture import Member, RawPeer

TCP: Final = "tcp:127.0.0.1:0?tls=0"
SLOW: Final = 10  # messages a second: what a bucket lacks then takes longer to come back than a test


async def floods(fixture: HostFixture, *nicks: str, key: Identity | None = None, times: int = 200) -> list[RawPeer]:
    peers = [await fixture.raw(nick, stream=n, key=key) for n, nick in enumerate(nicks, 1)]
    for peer in peers:
        await peer.say(1, "flood", times=times)
    return peers


async def heard(fixture: HostFixture, member: Member, text: str) -> int:
    """Say something; return how much of the flood was stored before it."""
    await member.stored(await member.say(text))
    return fixture.texts()[: fixture.texts().index(text)].count("flood")


def test_one_key_sends_no_more_over_eight_links(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=SLOW) as fixture, fixture.members("owner") as (owner,):
            key = Identity.load(tmp_path / "mallory.pem")
            peers = await floods(fixture, *["mallory"] * 8, key=key)
            await until(lambda: fixture.texts().count("flood") >= 2 * SLOW, "it has sent what it may at once")
            # Each link that had a bucket of its own would have got this far.
            assert await heard(fixture, owner, "and I am heard") <= 4 * SLOW
            for peer in peers:
                await peer.leave()

    run(scene())


def test_eight_new_keys_from_one_address_send_no_more_than_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=SLOW) as fixture, fixture.members("owner") as (owner,):
            peers = await floods(fixture, *(f"mallory{n}" for n in range(8)))
            await until(lambda: fixture.texts().count("flood") >= 2 * SLOW, "they have sent what they may at once")
            assert await heard(fixture, owner, "and I am heard") <= 4 * SLOW
            # Another newcomer of that address has its turn before all of the floods have theirs.
            async with fixture.client("newcomer") as newcomer:
                assert await heard(fixture, newcomer, "so am I") <= 8 * SLOW
            for peer in peers:
                await peer.leave()

    run(scene())


def test_what_counts_is_bytes_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=SLOW) as fixture, fixture.members("owner") as (owner,):
            peer = await fixture.raw("mallory")
            for number in range(1, 25):  # 375 KiB, of which 64 may come at once and in each second
                await peer.say(number, "x" * 16_000)
                await owner.stored(await owner.say("still here"))
            assert fixture.texts().count("x" * 16_000) < 20
            await peer.leave()

    run(scene())


def test_going_and_coming_fills_no_bucket(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, rate=SLOW) as fixture, fixture.members("owner") as (owner,):
            for stream in range(1, 9):
                peer = await fixture.raw("mallory", stream=stream)
                await peer.say(1, "flood", times=SLOW)
                await owner.stored(await owner.say("still here"))
                await peer.leave()
            assert await heard(fixture, owner, "and I am heard") <= 4 * SLOW

    run(scene())


def test_a_key_that_is_known_shares_no_bucket(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path, TCP, rate=SLOW)
        async with fixture, fixture.members("ann") as (ann,):
            await ann.stored(await ann.say("I speak here"))
        async with fixture, fixture.members("ann") as (ann,):
            peers = await floods(fixture, "mallory")
            await until(lambda: fixture.texts().count("flood") >= 2 * SLOW, "it has sent what it may at once")
            assert await heard(fixture, ann, "and I am heard") <= 4 * SLOW
            for peer in peers:
                await peer.leave()

    run(scene())


def test_a_disk_short_of_space_is_for_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "POLL", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "ann", "bob") as (owner, ann, bob):
            anns = [one for one in fixture.hosted.connections.values() if one.member.nick == "ann"]
            fixture.store.free_space = lambda: host_module.MIN_FREE - 1  # type: ignore[method-assign]
            for member in (owner, ann, bob):
                assert (await member.event(Notice)).code == "disk-low"
            waiting = [await ann.say(f"ann {number}") for number in range(3)]
            await owner.stored(await owner.say("I clean up"))
            await bob.hear("I clean up")  # and reading goes on
            async with fixture.client("cid") as cid:
                assert (await cid.event(Notice)).code == "disk-low"
            await until(lambda: "cid" not in fixture.nicks(), "who says nothing may leave")
            assert fixture.texts() == ["I clean up"]
            fixture.store.free_space = lambda: host_module.MIN_FREE  # type: ignore[method-assign]
            await owner.stored(await owner.say("not yet: it would begin again at once"))
            fixture.store.free_space = lambda: 2 * host_module.MIN_FREE  # type: ignore[method-assign]
            await ann.stored(*waiting)
            assert (await bob.event(Notice)).code == "disk-space"
            assert fixture.texts()[-3:] == [f"ann {number}" for number in range(3)]
            assert [one for one in fixture.hosted.connections.values() if one.member.nick == "ann"] == anns

    run(scene())
