"""A link that misbehaves as much as the contract allows."""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count
from typing import TYPE_CHECKING

from chat.core.errors import LinkBroken, LinkBusy, LinkClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.transport import Address, Buffer, Link, Listener, Peer, Site, Transport


class FaultyLink:
    """Any link, made as awkward as a link may be. The same seed and calls give the same faults.

    ``send`` takes less than it could, or nothing; ``receive`` and ``writable`` wait for some turns of the loop. With
    ``cut_after`` the link breaks permanently after that many bytes in both directions together. If that is inside a
    send, its first part arrives.
    """

    def __init__(self, link: Link, seed: int, cut_after: int | None = None) -> None:
        self._link = link
        self._sending = random.Random(f"{seed} sending")
        self._receiving = random.Random(f"{seed} receiving")  # one each: the other way's timing does not matter
        self._left = sys.maxsize if cut_after is None else cut_after
        self._cutting: asyncio.Future[None] | None = None
        self._stalling = False

    @property
    def peer(self) -> Peer:
        return self._link.peer

    def _go_through(self, count: int) -> None:
        self._left -= count
        if self._left == 0 and self._cutting is None:
            self._cutting = asyncio.ensure_future(self._link.aclose())

    def cut(self) -> None:
        """Break now, permanently."""
        self._go_through(self._left)

    def _must_be_whole(self) -> None:
        self._go_through(0)
        if self._cutting is not None:
            raise LinkBroken(f"the link to {self.peer.text} was cut after so many bytes, as the test asked for")

    async def _stall(self, chance: random.Random) -> None:
        for _ in range(chance.choice((0, 0, 1, 20))):
            await asyncio.sleep(0)
        self._must_be_whole()

    def send(self, data: Buffer) -> int:
        self._must_be_whole()
        most = min(len(data), self._left)
        size = min(most, self._sending.choice((0, 1, self._sending.randint(0, most), most)))
        # Released by hand: an error that the link's library keeps holds the frames of this call, and so the views.
        with memoryview(data) as whole, whole[:size] as piece:
            taken = self._link.send(piece)
        self._go_through(taken)
        return taken

    async def writable(self) -> None:
        self._must_be_whole()
        try:
            await self._link.writable()
        except LinkClosed:
            self._must_be_whole()  # it was the cut that woke us
            raise
        await self._stall(self._sending)

    async def receive(self) -> bytes:
        self._must_be_whole()
        if self._stalling:
            raise LinkBusy(f"another task receives from {self.peer.text} already; a link has one reader")
        self._stalling = True
        try:
            await self._stall(self._receiving)  # before, not after: whoever is cancelled here must lose nothing
        finally:
            self._stalling = False
        try:
            data = await self._link.receive()
        except LinkClosed:
            self._must_be_whole()
            raise
        self._must_be_whole()
        data = data[: self._left]
        self._go_through(len(data))
        return data

    async def aclose(self) -> None:
        if self._cutting is not None:
            await self._cutting
        await self._link.aclose()


class Faults:
    """Makes a FaultyLink of each link that it is given: give it to a WrappedTransport.

    While ``cutting``, each is also cut at some byte: half of them while their peers still shake hands.
    """

    def __init__(self, seed: int, *, cutting: bool = False) -> None:
        self.cutting = cutting
        self._chance = random.Random(f"{seed} cuts")
        self._seeds = count(1000 * seed)
        self._links: list[FaultyLink] = []

    def __call__(self, link: Link) -> FaultyLink:
        cut_after = self._chance.randrange(self._chance.choice((1_000, 20_000)))
        self._links.append(FaultyLink(link, next(self._seeds), cut_after if self.cutting else None))
        return self._links[-1]

    def cut(self) -> None:
        """Cut every link now."""
        for link in self._links:
            link.cut()
        self._links.clear()


class WrappedTransport:
    """Any transport, with each of its links wrapped by ``wrap``: dialled and accepted ones."""

    def __init__(self, transport: Transport, wrap: Callable[[Link], Link]) -> None:
        self.scheme = transport.scheme
        self.summary = transport.summary
        self._transport = transport
        self._wrap = wrap

    async def listen(self, address: Address, site: Site) -> Listener:
        return _WrappedListener(await self._transport.listen(address, site), self._wrap)

    async def dial(self, address: Address) -> Link:
        return self._wrap(await self._transport.dial(address))


class _WrappedListener:
    def __init__(self, listener: Listener, wrap: Callable[[Link], Link]) -> None:
        self.address = listener.address
        self._listener = listener
        self._wrap = wrap

    async def accept(self) -> Link:
        return self._wrap(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


class GatedLink:
    """A link whose owner reads only while the gate is open."""

    def __init__(self, link: Link, gate: asyncio.Event) -> None:
        self.peer = link.peer
        self.send = link.send
        self.writable = link.writable
        self.aclose = link.aclose
        self._receive = link.receive
        self._gate = gate

    async def receive(self) -> bytes:
        await self._gate.wait()
        return await self._receive()
