"""A few keys that take every descriptor the host has: neither the owner nor anybody with one link is kept out."""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from chat.client.events import Lost, Up
from chat.core.bodies import pack
from chat.core.errors import TransportError
from chat.core.wire import BEAT, PREFACE, Kind
from chat.local.descriptors import MOST
from chat.local.identity import Identity
from chat.transport import Address
from tests.attacks.crowd import ATTACKER, ELSEWHERE, PROXIED, proxy
from tests.cli import programs
from tests.host.host_fixture import HostFixture, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.programs import Program
    from tests.host.host_fixture import Member, RawPeer

KEYS = 8
SIZES = pytest.mark.parametrize(
    ("descriptors", "links"), [(128, 14), pytest.param(1024, 128, marks=pytest.mark.slow)], ids=["128", "1024"]
)


async def take_links(fixture: HostFixture, links: int, keys: int = KEYS) -> tuple[list[RawPeer], int]:
    """Come with so many links of each key. Return those that were let in, and how many were refused as busy."""
    inside, refused = [], 0
    for number in range(links):
        for key in range(keys):
            peer = await fixture.dial()
            hello = await peer.hello(f"eve{key}", stream=number + 1, history=0)
            await peer.send(PREFACE + pack(Kind.HELLO, hello))
            answer = await peer.frame(Kind.WELCOME, Kind.REFUSED)
            if answer.kind == Kind.WELCOME:
                inside.append(peer)
            else:
                refused += 1
                await peer.leave()
    return inside, refused


async def keep_alive(peers: list[RawPeer]) -> None:
    while True:
        for peer in peers:
            with suppress(TransportError):
                await peer.beat()
        await asyncio.sleep(BEAT)


@pytest.mark.parametrize("wire", ["queue", "tcp:127.0.0.1:0?tls=0"])
@SIZES
def test_few_keys_with_many_links_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str, descriptors: int, links: int
) -> None:
    async def scene() -> None:
        fixture.address = Address.parse(hosting.seen[0]["address"])
        async with fixture.client("ann") as ann:
            await ann.event(Up)
            inside, refused = await take_links(fixture, links)
            assert refused
            alive = asyncio.ensure_future(keep_alive(inside))
            async with fixture.client("bob") as bob, fixture.client("owner") as owner:
                await bob.event(Up)
                await owner.event(Up)
                await bob.stored(await bob.say("I am in"))
                for member in (ann, owner):
                    await member.hear("I am in")
                assert not ann.so_far(Lost)
            refusals = [asyncio.ensure_future(peer.refusal()) for peer in inside]
            told, _ = await asyncio.wait(refusals, return_when=asyncio.FIRST_COMPLETED)
            assert {(await one).code for one in told} == {"busy"}  # those who gave way know why
            for task in (alive, *refusals):
                task.cancel()
            print(f"{len(inside)} links of {KEYS} keys were let in, {refused} refused")
            for peer in inside:
                await peer.leave()

    with limited(tmp_path, monkeypatch, descriptors, "-t", wire) as hosting:
        fixture = HostFixture(tmp_path / "members")
        fixture.owner = Identity.load(tmp_path / "host" / "identity.pem")
        run(scene())
        told = hosting.errors()
    assert "Traceback" not in told
    assert told.count("was dropped to make room for others") == 1  # not once for each


def test_keys_from_one_place_leave_room_for_those_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the attackers' keys has one link, as the others' have."""

    async def scene() -> None:
        wire = Address.parse(hosting.seen[0]["address"])
        local = Address.parse(hosting.seen[1]["address"])
        async with AsyncExitStack() as stack:
            near, _ = await stack.enter_async_context(proxy(wire, ATTACKER))
            far, _ = await stack.enter_async_context(proxy(wire, ELSEWHERE))
            fixture.address = near
            inside, refused = await take_links(fixture, 1, keys=60)
            assert refused
            for address in (far, far, local, local):
                nick = f"bob{len(others)}"
                others.append(await stack.enter_async_context(fixture.client(nick, addresses=(address,))))
                await others[-1].event(Up)
            assert not any(member.so_far(Lost) for member in others)
            for peer in inside:
                await peer.leave()

    others: list[Member] = []
    arguments = ("-t", "tcp:127.0.0.1:0?tls=0", "-t", "queue", *PROXIED)
    with limited(tmp_path, monkeypatch, 80, *arguments) as hosting:
        hosting.until("listening")
        fixture = HostFixture(tmp_path / "members")
        run(scene())
        assert "Traceback" not in hosting.errors()


@contextmanager
def limited(folder: Path, monkeypatch: pytest.MonkeyPatch, descriptors: int, *arguments: str) -> Iterator[Program]:
    """A host that has no more descriptors than that."""
    limit = ["/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *programs.CHAT]
    monkeypatch.setattr(programs, "CHAT", limit)
    with programs.host(folder / "host", "--open", "--rate=0", *arguments) as hosting:  # newcomers without limit
        yield hosting


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the limits of another process")
def test_a_host_takes_as_many_descriptors_as_the_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ["/bin/sh", "-c", 'ulimit -S -n 100; exec "$@"', "sh", *programs.CHAT]
    monkeypatch.setattr(programs, "CHAT", before)
    with programs.host(tmp_path / "host", "-t", "queue") as hosting:
        soft, hard = resource.prlimit(hosting.process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, MOST)
