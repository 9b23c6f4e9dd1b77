"""A contract that nothing can fail proves nothing: every clause is broken here, and the check must see it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from chat import testing
from chat.core.errors import DialFailed, LinkClosed, ListenFailed
from tests.harness import Memory
from transports.memory import MemoryLink, transport

if TYPE_CHECKING:
    from pathlib import Path

    from chat.transport import Address, Buffer, Link, Listener, Peer, Site, Transport


class PassOn:
    """A link that only passes on to another. Each of the broken ones differs in one thing."""

    def __init__(self, link: Link) -> None:
        self.link = link

    @property
    def peer(self) -> Peer:
        return self.link.peer

    def send(self, data: Buffer) -> int:
        return self.link.send(data)

    async def writable(self) -> None:
        await self.link.writable()

    async def receive(self) -> bytes:
        return await self.link.receive()

    async def aclose(self) -> None:
        await self.link.aclose()


class PassOnListener:
    def __init__(self, listener: Listener, link: type[PassOn]) -> None:
        self.listener = listener
        self.link = link
        self.accepted: list[PassOn] = []

    @property
    def address(self) -> Address:
        return self.listener.address

    async def accept(self) -> Link:
        self.accepted.append(self.link(await self.listener.accept()))
        return self.accepted[-1]

    async def aclose(self) -> None:
        await self.listener.aclose()


class PassOnTransport:
    scheme = "memory"
    summary = "memory, passed on"
    link = PassOn
    listener = PassOnListener

    async def listen(self, address: Address, site: Site) -> Listener:
        return self.listener(await transport.listen(address, site), self.link)

    async def dial(self, address: Address) -> Link:
        return self.link(await transport.dial(address))


class Wrapped(Memory):
    def __init__(self, folder: Path, over: Transport) -> None:
        super().__init__(folder)
        self.over = over

    @property
    def transport(self) -> Transport:
        return self.over


@pytest.mark.parametrize("clause", testing.CLAUSES)
def test_passing_on_breaks_nothing(clause: str, tmp_path: Path) -> None:
    asyncio.run(testing.check(Wrapped(tmp_path, PassOnTransport()), clause))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def block_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


# -- broken transports and listeners ---------------------------------------------------------------


class SaysAnotherAddress(PassOnListener):
    @property
    def address(self) -> Address:
        return type(self.listener.address)("memory", "elsewhere")


class DialHangs(PassOnTransport):
    async def dial(self, address: Address) -> Link:
        try:
            return await super().dial(address)
        except DialFailed:
            await for_ever()
            raise


class SharesItsAddress(PassOnTransport):
    async def listen(self, address: Address, site: Site) -> Listener:
        try:
            return await super().listen(address, site)
        except ListenFailed:
            return await super().listen(type(address)("memory"), site)


class CrossesOver(PassOnTransport):
    """Every second one who dials is given the link of the one before."""

    def __init__(self) -> None:
        self.first: Link | None = None

    async def dial(self, address: Address) -> Link:
        link = await super().dial(address)
        self.first = self.first or link
        return self.first


class TakesItsLinksAlong(PassOnListener):
    async def aclose(self) -> None:
        for link in self.accepted:
            await link.aclose()
        await super().aclose()


class DoesNotWake(PassOnListener):
    async def accept(self) -> Link:
        try:
            return await super().accept()
        except LinkClosed:
            await for_ever()
            raise


class LosesWhoeverCame(PassOnListener):
    async def accept(self) -> Link:
        link = await super().accept()
        await turns(2)
        return link


class CancelledDialLeaks(PassOnTransport):
    async def dial(self, address: Address) -> Link:
        fd = os.open("/dev/null", os.O_RDONLY)
        await turns(3)
        os.close(fd)
        return await super().dial(address)


class AcceptBlocks(PassOnListener):
    async def accept(self) -> Link:
        if len(self.accepted) == 1:
            block_for_ever()
        return await super().accept()


# -- broken links --------------------------------------------------------------------------------------


class DropsAByte(PassOn):
    received = 0

    async def receive(self) -> bytes:
        data = await super().receive()
        self.received += len(data)
        if self.received > 500_000 and len(data) > 1:
            self.received = -(10**9)
            return data[1:]
        return data


class KeepsTheBuffer(PassOn):
    def send(self, data: Buffer) -> int:
        self.hosted = memoryview(data)
        return super().send(data)


class SendsLater(PassOn):
    """What it sends is what the buffer holds one turn later."""

    waiting: tuple[Buffer, int] | None = None

    def send(self, data: Buffer) -> int:
        if self.waiting is not None or not data:
            return 0
        self.waiting = (data, len(data))
        asyncio.get_running_loop().call_soon(self.move_on)
        return len(data)

    def move_on(self) -> None:
        assert self.waiting is not None
        data, size = self.waiting
        now = bytes(data[:size]).ljust(size, b"\0")
        taken = self.link.send(now)
        self.waiting = (now[taken:], size - taken) if taken < size else None
        if self.waiting:
            asyncio.get_running_loop().call_soon(self.move_on)

    async def writable(self) -> None:
        while self.waiting:
            await turns(1)


class EndsOnNothing(PassOn):
    def send(self, data: Buffer) -> int:
        if not data and isinstance(self.link, MemoryLink):
            self.link._outgoing.sender_closed = True
            self.link._outgoing.filled.ring()
        return super().send(data)


class SendBlocks(PassOn):
    def send(self, data: Buffer) -> int:
        taken = super().send(data)
        if data and not taken:
            block_for_ever()
        return taken


class NeverFull(PassOn):
    def send(self, data: Buffer) -> int:
        return super().send(data) or len(data)


class KeepsTheLastPiece(PassOn):
    """It takes one piece more than there is room for, and brings it out at the next call only."""

    piece = b""

    def send(self, data: Buffer) -> int:
        self.piece = self.piece[super().send(self.piece) :]
        if self.piece:
            return 0
        taken = super().send(data)
        if not taken and data:
            self.piece = bytes(data[:100])
        return taken or len(self.piece)


class WritableAtOnce(PassOn):
    async def writable(self) -> None:
        await turns(1)


class WritableNever(PassOn):
    async def writable(self) -> None:
        await for_ever()


class EndsEarly(PassOn):
    async def receive(self) -> bytes:
        for _ in range(10):
            if isinstance(self.link, MemoryLink) and self.link._incoming.held:
                return await super().receive()
            await turns(1)
        return b""


class EndsOnce(PassOn):
    ended = False

    async def receive(self) -> bytes:
        if self.ended:
            await for_ever()
        data = await super().receive()
        self.ended = not data
        return data


class InventsBytes(PassOn):
    last_words = b"goodbye"

    async def receive(self) -> bytes:
        data = await super().receive()
        if not data:
            data, self.last_words = self.last_words, b""
        return data


class HangsAtTheEnd(PassOn):
    async def receive(self) -> bytes:
        data = await super().receive()
        if not data:
            await for_ever()
        return data


class CloseDiscards(PassOn):
    async def aclose(self) -> None:
        if isinstance(self.link, MemoryLink):
            self.link._outgoing.held.clear()
        await super().aclose()


class SilentWhenClosed(PassOn):
    def send(self, data: Buffer) -> int:
        try:
            return super().send(data)
        except LinkClosed:
            return 0


class CloseWakesNobody(PassOn):
    async def aclose(self) -> None:
        return


class CloseWaits(PassOn):
    """For the peer to read all."""

    async def aclose(self) -> None:
        while isinstance(self.link, MemoryLink) and self.link._outgoing.held:
            await turns(1)
        await super().aclose()


class TwoMayReceive(PassOn):
    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.lock = asyncio.Lock()

    async def receive(self) -> bytes:
        async with self.lock:
            return await super().receive()


class CancelLoses(PassOn):
    async def receive(self) -> bytes:
        data = await super().receive()
        await turns(1)
        return data


class StartsAThread(PassOn):
    async def receive(self) -> bytes:
        data = await super().receive()
        await asyncio.to_thread(int)
        return data


class LeaksADescriptor(PassOn):
    fds: ClassVar[deque[int]] = deque()

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.fds.append(os.open("/dev/null", os.O_RDONLY))


class LeaksATask(PassOn):
    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.task = asyncio.ensure_future(for_ever())


class LeaksAFile(PassOnTransport):
    async def listen(self, address: Address, site: Site) -> Listener:
        listener = await super().listen(address, site)
        (site.folder / listener.address.place).touch()
        return listener


BROKEN: list[tuple[str, type[Any], str]] = [
    ("T1", SaysAnotherAddress, "cannot reach memory:elsewhere"),
    ("T2", DialHangs, "took longer"),
    ("T3", SharesItsAddress, "two listeners share"),
    ("T4", CrossesOver, "a link has one reader"),
    ("T5", TakesItsLinksAlong, "closed here|closed at the other end"),
    ("T5", DoesNotWake, "accept, woken by the close, took longer"),
    ("T6", LosesWhoeverCame, "still not done"),
    ("T6", CancelledDialLeaks, "left behind: descriptor"),
    ("L1", DropsAByte, "the first difference is at byte|still not done"),
    ("L2", KeepsTheBuffer, "cannot be re-sized"),
    ("L2", SendsLater, "the first difference is at byte"),
    ("L2", EndsOnNothing, "receive returned b'' when nothing was sent"),
    ("L3", SendBlocks, "a call blocked the loop"),
    ("L3", NeverFull, "it has no bound"),
    ("L3", KeepsTheLastPiece, "still not done"),
    ("L4", WritableAtOnce, "writable returned from a full link"),
    ("L4", WritableNever, "still not done"),
    ("L5", EndsEarly, "before anything was sent"),
    ("L5", EndsOnce, "receive, after the peer closed, took longer"),
    ("L5", InventsBytes, "receive invented b'goodbye'"),
    ("L6", CloseDiscards, "0 received"),
    ("L7", HangsAtTheEnd, "receive, with the peer gone, took longer"),
    ("L7", InventsBytes, "7 received"),
    ("L8", SilentWhenClosed, "send works on a closed link"),
    ("L9", CloseWakesNobody, "receive, woken by aclose, took longer"),
    ("L9", CloseWaits, "still not done"),
    ("L10", TwoMayReceive, "a second receive took longer"),
    ("L11", CancelLoses, "the first difference is at byte|still not done"),
    ("L12", StartsAThread, "threads were started"),
    ("L12", AcceptBlocks, "a call blocked the loop"),
    ("L13", LeaksADescriptor, "left behind: descriptor"),
    ("L13", LeaksATask, "left behind: task"),
    ("L13", LeaksAFile, "left behind: file"),
]


def broken_transport(broken: type[Any]) -> Transport:
    over = broken() if issubclass(broken, PassOnTransport) else PassOnTransport()
    if issubclass(broken, PassOn):
        over.link = broken
    elif issubclass(broken, PassOnListener):
        over.listener = broken
    return over


@pytest.mark.parametrize(("clause", "broken", "told"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_broken_is_told(
    clause: str, broken: type[Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing.kit, "CLOG_LIMIT", 1024 * 1024)
    kit = Wrapped(tmp_path, broken_transport(broken))
    kit.unit = 0.2
    with pytest.raises(Exception, match=told) as raised:
        asyncio.run(testing.check(kit, clause))
    assert clause in str(raised.value) + "".join(getattr(raised.value, "__notes__", []))
    for fd in LeaksADescriptor.fds:
        os.close(fd)
    LeaksADescriptor.fds.clear()


def test_every_clause_has_something_that_breaks_it() -> None:
    assert {clause for clause, _, _ in BROKEN} == set(testing.CLAUSES)
