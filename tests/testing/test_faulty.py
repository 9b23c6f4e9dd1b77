"""``FaultyLink`` is still a link, breaks where it was told to, and does the same again for the same seed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat import testing
from chat.core.errors import LinkBroken
from chat.testing.faults import Faults, WrappedTransport
from chat.transport import Address, Site
from tests.harness import Memory
from transports.memory import transport

if TYPE_CHECKING:
    from chat.transport import Transport

SITE = Site(Path(), Path())


class Faulty(Memory):
    @property
    def transport(self) -> Transport:
        return WrappedTransport(transport, Faults(seed=0))


@pytest.mark.parametrize("clause", testing.CLAUSES)
def test_a_faulty_link_is_still_a_link(clause: str, tmp_path: Path) -> None:
    asyncio.run(testing.check(Faulty(tmp_path), clause))


async def pass_through(seed: int, cut_after: int | None, size: int) -> tuple[list[int], bytes]:
    """Send through a faulty link; return how many bytes each send took, and what arrived."""
    async with asyncio.timeout(10):
        listener = await transport.listen(Address("memory"), SITE)
        faulty = testing.FaultyLink(await transport.dial(listener.address), seed, cut_after)
        far = await listener.accept()
        await listener.aclose()
        data, got = testing.pattern(0, size), bytearray()
        takes: list[int] = []
        try:
            while sum(takes) < size:
                takes.append(faulty.send(data[sum(takes) :]))
                if not takes[-1]:
                    await faulty.writable()
        except LinkBroken:
            await asyncio.sleep(0)
        else:
            await faulty.aclose()
        while piece := await far.receive():
            got += piece
        await faulty.aclose()
        await far.aclose()
        return takes, bytes(got)


def test_the_same_seed_has_the_same_faults() -> None:
    takes = {seed: asyncio.run(pass_through(seed, None, 10_000))[0] for seed in range(5)}
    assert {seed: asyncio.run(pass_through(seed, None, 10_000))[0] for seed in range(5)} == takes
    assert len({tuple(counts) for counts in takes.values()}) == 5
    assert any(0 in counts for counts in takes.values())
    assert any(len(counts) > 3 for counts in takes.values())


@pytest.mark.parametrize("cut_after", [0, 1, 31, 4_096, 9_999])
@pytest.mark.parametrize("seed", range(3))
def test_a_cut_lets_exactly_so_many_bytes_through(seed: int, cut_after: int) -> None:
    takes, got = asyncio.run(pass_through(seed, cut_after, 10_000))
    assert sum(takes) == cut_after
    assert got == testing.pattern(0, cut_after)


def test_a_cut_counts_both_directions_and_wakes_who_waits() -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            listener = await transport.listen(Address("memory"), SITE)
            faulty = testing.FaultyLink(await transport.dial(listener.address), seed=0, cut_after=100)
            far = await listener.accept()
            far.send(bytes(60))
            assert len(await faulty.receive()) == 60
            waiting = asyncio.ensure_future(faulty.receive())
            sent = 0
            with pytest.raises(LinkBroken, match="was cut after so many bytes"):  # noqa: PT012
                while True:
                    sent += faulty.send(bytes(100))
            assert sent == 40
            with pytest.raises(LinkBroken):
                await waiting
            for call in (faulty.receive(), faulty.writable()):
                with pytest.raises(LinkBroken):
                    await call
            assert len(await far.receive()) == 40
            assert await far.receive() == b""
            for each in (faulty, far, listener):
                await each.aclose()

    asyncio.run(main())
