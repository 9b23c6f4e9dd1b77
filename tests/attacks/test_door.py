"""A flood of connections from one place, none of which says who it is: it keeps nobody out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat.client.events import Lost, Up
from chat.transport import Address
from tests.attacks.crowd import ATTACKER, ELSEWHERE, PROXIED, Flood, proxy
from tests.cli import programs
from tests.host.host_fixture import HostFixture, run

if TYPE_CHECKING:
    from pathlib import Path

# Without TLS, the silent ones pass the listener at once, and hold back their HELLO.
STAGES = pytest.mark.parametrize("wire", ["tcp:127.0.0.1:0", "tcp:127.0.0.1:0?tls=0"], ids=["handshake", "hello"])
SIZES = pytest.mark.parametrize("held", [300, pytest.param(2_000, marks=pytest.mark.slow)])


@STAGES
@SIZES
def test_under_a_flood_of_silent_connections_people_come_in_and_come_back(tmp_path: Path, wire: str, held: int) -> None:
    async def scene() -> None:
        fixture.address = Address.parse(hosting.seen[0]["address"])
        async with (
            proxy(fixture.address, ATTACKER) as (near, links),
            proxy(fixture.address, ELSEWHERE) as (far, _),
            fixture.client("ann", addresses=(near,)) as ann,
        ):
            await ann.event(Up)
            async with Flood(fixture.address, held) as flood:
                before = flood.count
                async with fixture.client("bob", addresses=(far,)) as bob:  # from elsewhere
                    await bob.event(Up)
                    await bob.stored(await bob.say("I am in"))
                    await ann.hear("I am in")
                    links[0].close()  # and ann shares the attackers' address
                    await ann.event(Lost)
                    await ann.event(Up)
                    await ann.stored(await ann.say("back again"))
                    await bob.hear("back again")
                    assert before < flood.count  # it went on all the time
                print(f"{flood.count - before} more connections meanwhile")

    with programs.host(tmp_path / "host", "--open", "-t", wire, *PROXIED) as hosting:
        fixture = HostFixture(tmp_path / "members")
        run(scene())
        told = hosting.errors().splitlines()
    dropped = [line for line in told if f"tcp {ATTACKER}:40000 was dropped before" in line]
    assert len(dropped) == 1, dropped  # not one for each
