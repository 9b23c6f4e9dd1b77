"""Many members on one local queue, and several who talk at full speed."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chat.core.bodies import Presence, unpack
from chat.core.events import Message
from chat.core.wire import Kind
from chat.host.hosted_room import PRESENCE_BURST
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, Member, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MEMBERS, PRODUCERS, EACH = 200, 8, 40


async def hear_all(client: Member) -> list[tuple[int, str]]:
    heard: list[tuple[int, str]] = []
    while len(heard) < PRODUCERS * EACH:
        heard += [(event.seq, event.text) for event in await client.next_events() if isinstance(event, Message)]
    return heard


async def talk(client: Member, name: int) -> None:
    for number in range(EACH):
        await client.say(f"{name} {number}")


def test_two_hundred_members_hear_eight_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.host.host_fixture.BOUND", 120)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard >= 0 else 4096, hard))

    tmp_path.chmod(0o700)

    async def scene() -> None:
        async with HostFixture(tmp_path, f"queue:{tmp_path}/q") as fixture, AsyncExitStack() as stack:
            producers = [await stack.enter_async_context(fixture.client(f"p{n}")) for n in range(PRODUCERS)]
            members = [
                await stack.enter_async_context(fixture.client(f"m{n}", reads_only=True))
                for n in range(MEMBERS - PRODUCERS)
            ]
            hearing = [asyncio.ensure_future(hear_all(client)) for client in (*producers, *members)]
            await asyncio.gather(*(talk(client, n) for n, client in enumerate(producers)))
            first, *others = await asyncio.gather(*hearing)
            assert [seq for seq, _ in first] == sorted({seq for seq, _ in first})
            for n in range(PRODUCERS):
                said = [text for _, text in first if text.startswith(f"{n} ")]
                assert said == [f"{n} {number}" for number in range(EACH)]
            assert all(heard == first for heard in others)

    try:
        run(scene())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_who_come_at_once_are_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one by one: that took a host of 1,000 three quarters of its time."""
    monkeypatch.setattr("chat.host.hosted_room.PRESENCE_PERIOD", 3600)
    tmp_path.chmod(0o700)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann = await fixture.raw("ann")
            for n in range(40):
                await fixture.raw(f"m{n}", key=Identity(Ed25519PrivateKey.generate()))
            fixture.hosted._release_presence()
            pages, here = 0, set[str]()
            while len(here) < 41:
                page = unpack(Presence, await ann.frame(Kind.PRESENCE))
                here |= {nick for _key, nick in page.here}
                pages += 1
            assert PRESENCE_BURST <= pages <= PRESENCE_BURST + 3

    run(scene())
