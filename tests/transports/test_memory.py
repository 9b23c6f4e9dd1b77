"""transports.memory, beyond the contract: its bound, its names, and the loop they belong to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chat.core.errors import AddressError, DialFailed, LinkBroken, ListenFailed
from chat.transport import Address, Site
from transports.memory import BACKLOG, CAPACITY, transport

SITE = Site(Path(), Path())


def test_it_holds_as_much_as_a_pipe() -> None:
    async def main() -> None:
        listener = await transport.listen(Address("memory"), SITE)
        near = await transport.dial(listener.address)
        far = await listener.accept()
        assert near.send(bytes(100_000)) == CAPACITY == 65_536
        assert near.send(b"x") == 0
        assert len(await far.receive()) == 65_536
        assert near.send(b"x") == 1
        for each in (near, far, listener):
            await each.aclose()

    asyncio.run(main())


def test_two_who_never_have_to_wait_do_not_keep_others_from_running() -> None:
    async def main() -> None:
        listener = await transport.listen(Address("memory"), SITE)
        near = await transport.dial(listener.address)
        far = await listener.accept()
        turned = 0

        async def others() -> None:
            nonlocal turned
            while True:
                turned += 1
                await asyncio.sleep(0)

        running = asyncio.ensure_future(others())
        for _ in range(100):
            near.send(b"x")
            assert await far.receive() == b"x"
        assert turned >= 99
        running.cancel()
        for each in (near, far, listener):
            await each.aclose()

    asyncio.run(main())


def test_names() -> None:
    async def main() -> None:
        one = await transport.listen(Address("memory"), SITE)
        two = await transport.listen(Address("memory"), SITE)
        assert one.address != two.address
        named = await transport.listen(Address("memory", "room"), SITE)
        assert str(named.address) == "memory:room"
        with pytest.raises(ListenFailed, match=r"^cannot listen on memory:room: the name is taken; choose another"):
            await transport.listen(Address("memory", "room"), SITE)
        with pytest.raises(AddressError, match="memory has no option 'size'"):
            await transport.listen(Address.parse("memory:a?size=1"), SITE)
        for each in (one, two, named):
            await each.aclose()
        with pytest.raises(DialFailed, match=r"^cannot reach memory:room: nobody listens under this name"):
            await transport.dial(named.address)

    asyncio.run(main())


def test_a_name_whose_loop_has_ended_is_free_and_cannot_be_dialled() -> None:
    async def forget() -> None:
        await transport.listen(Address("memory", "forgotten"), SITE)

    async def dial() -> None:
        with pytest.raises(DialFailed, match="it listens in another event loop"):
            await transport.dial(Address("memory", "forgotten"))

    async def take_over() -> None:
        listener = await transport.listen(Address("memory", "forgotten"), SITE)
        await (await transport.dial(listener.address)).aclose()
        await listener.aclose()

    for main in (forget, dial, take_over):
        asyncio.run(main())


def test_nobody_waits_at_the_door_without_bound() -> None:
    async def main() -> None:
        listener = await transport.listen(Address("memory"), SITE)
        links = [await transport.dial(listener.address) for _ in range(BACKLOG)]
        with pytest.raises(DialFailed, match=f"{BACKLOG} others wait there already; try again"):
            await transport.dial(listener.address)
        await listener.aclose()
        for link in links:
            assert await link.receive() == b""
            with pytest.raises(LinkBroken, match="it was closed at the other end"):
                link.send(b"x")
            await link.aclose()

    asyncio.run(main())
