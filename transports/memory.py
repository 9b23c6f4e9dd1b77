"""memory: between two tasks of one event loop.

What it is: no kernel object at all. A link is two bounded buffers, one for each direction, that both sides share: what
one puts in, the other takes out.

When to choose it: for a host inside your own program, and for tests. It is the reference for the contract in
``chat.testing``: what a link must do is easiest to see if nothing else happens.

     ann's link                                bob's link
       send ───────▶ [ ......#### ] ─────────▶ receive
     receive ◀────── [ #......... ] ◀───────── send
                      64 KiB each

Four facts:
  capacity          64 KiB in each direction, the same as a pipe on Linux
  borders           none: two pieces may arrive as one, and one piece as two
  how death shows   one side cannot die alone; a closed link reads as the end
  what wakes you    the other side's call, on the next turn of the loop

Addresses: ``memory:NAME``; when listening, bare ``memory`` picks a name. A name is known in this process only, and its
links must stay in the event loop that listens.

Traps:
  no bound          An unbounded queue hides a slow reader until memory runs out, and tests that pass on it fail on
                    real wires: hence the 64 KiB.
  a direct call     If ``send`` ran the receiver at once, each side could be called in the middle of its own work. So
                    the receiver is only woken, and runs when its turn comes.
  a busy pair       Two tasks that never have to wait would starve all others: ``receive`` always gives up one turn of
                    the loop, as it does on every other transport.
"""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chat.transport import Address, DialFailed, LinkBroken, LinkBusy, LinkClosed, ListenFailed, Peer, Site

if TYPE_CHECKING:
    from chat.transport import Buffer

CAPACITY: Final = 64 * 1024  # bytes in each direction
BACKLOG: Final = 128  # links dialled but not accepted yet


class _Bell:
    """Wakes the one task that waits for it."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._future is not None:
            raise LinkBusy("another task waits on this link already; a link has one reader and one writer")
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None

    def ring(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class _Direction:
    """One direction: the bytes sent but not received yet, and the tasks that wait for a change."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.sender_closed = False  # the reader sees the end after the bytes held
        self.reader_closed = False  # nothing sent now would be read
        self.filled = _Bell()
        self.emptied = _Bell()


class MemoryLink:
    """One end of a link: one direction to read, the other to write."""

    def __init__(self, peer: Peer, incoming: _Direction, outgoing: _Direction) -> None:
        self.peer = peer
        self._incoming = incoming
        self._outgoing = outgoing
        self._receiving = False
        self._closed = False

    def _must_be_open(self) -> None:
        if self._closed:
            raise LinkClosed("the link to {peer} was closed here", peer=self.peer.text)

    def send(self, data: Buffer) -> int:
        self._must_be_open()
        if self._outgoing.reader_closed:
            raise LinkBroken("the link to {peer} broke: it was closed at the other end", peer=self.peer.text)
        with memoryview(data).cast("B") as view:
            taken = min(len(view), CAPACITY - len(self._outgoing.held))
            self._outgoing.held += view[:taken]
        if taken:
            self._outgoing.filled.ring()
        return taken

    async def writable(self) -> None:
        self._must_be_open()
        direction = self._outgoing
        while len(direction.held) == CAPACITY and not direction.reader_closed:
            await direction.emptied.wait()
            self._must_be_open()

    async def receive(self) -> bytes:
        self._must_be_open()
        if self._receiving:
            raise LinkBusy(f"another task receives from {self.peer.text} already; a link has one reader")
        self._receiving = True
        try:
            direction = self._incoming
            await asyncio.sleep(0)
            self._must_be_open()
            while not direction.held and not direction.sender_closed:
                await direction.filled.wait()
                self._must_be_open()
            data = bytes(direction.held)
            direction.held.clear()
            direction.emptied.ring()
            return data
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._outgoing.sender_closed = True  # its bytes stay: they were sent, so they arrive
        self._incoming.reader_closed = True
        for direction in (self._incoming, self._outgoing):
            direction.filled.ring()
            direction.emptied.ring()


class MemoryListener:
    """A name in this process that can be dialled."""

    def __init__(self, name: str) -> None:
        self.address = Address(MemoryTransport.scheme, name)
        self.loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[MemoryLink | None] = asyncio.Queue()  # None: closed
        self._numbers = count(1)
        self._closed = False

    def connect(self) -> MemoryLink:
        if self._waiting.qsize() >= BACKLOG:
            raise DialFailed(
                "cannot reach {address}: {count} others wait there already; try again",
                address=self.address,
                count=BACKLOG,
            )
        there, back = _Direction(), _Direction()
        self._waiting.put_nowait(MemoryLink(Peer(f"memory #{next(self._numbers)}"), there, back))
        return MemoryLink(Peer(str(self.address)), back, there)

    async def accept(self) -> MemoryLink:
        link = None if self._closed else await self._waiting.get()
        if link is None:
            self._waiting.put_nowait(None)  # wake the next waiting accept
            raise LinkClosed("the listener on {address} was closed here", address=self.address)
        return link

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if _listeners.get(self.address.place) is self:
            del _listeners[self.address.place]
        while not self._waiting.empty():  # dialled but never accepted: the diallers see the end
            if (link := self._waiting.get_nowait()) is not None:
                await link.aclose()
        self._waiting.put_nowait(None)


_listeners: Final[dict[str, MemoryListener]] = {}
_names: Final = count(1)


class MemoryTransport:
    scheme = "memory"
    summary = "between two tasks of one program: for tests, and for a host inside your own"
    inside = True

    async def listen(self, address: Address, site: Site) -> MemoryListener:
        address.allow_options()
        name = address.place or f"auto-{next(_names)}"
        holder = _listeners.get(name)
        if holder is not None and not holder.loop.is_closed():
            raise ListenFailed("cannot listen on memory:{name}: the name is taken; choose another, or none", name=name)
        _listeners[name] = listener = MemoryListener(name)
        return listener

    async def dial(self, address: Address) -> MemoryLink:
        address.allow_options()
        listener = _listeners.get(address.place)
        if listener is None:
            raise DialFailed("cannot reach {address}: nobody listens under this name in this process", address=address)
        if listener.loop is not asyncio.get_running_loop():
            raise DialFailed(
                "cannot reach {address}: it listens in another event loop; dial from that one", address=address
            )
        return listener.connect()


transport: Final = MemoryTransport()


async def _demo() -> None:
    """Ann listens, Bob dials; Bob says a line, and Ann sends it back."""
    listener = await transport.listen(Address("memory", "demo"), Site(Path(), Path()))
    bob = await transport.dial(listener.address)
    ann = await listener.accept()
    print(f"ann listens on {listener.address}; she sees {ann.peer.text}, bob sees {bob.peer.text}")
    print(f"bob sends a line, {bob.send(b'hello')} bytes taken")
    print(f"ann sends it back, {ann.send(await ann.receive())} bytes taken; bob reads {await bob.receive()!r}")
    print(f"bob sends 100 000 bytes while ann does not read: {bob.send(bytes(100_000))} taken, then {bob.send(b'x')}")
    await ann.aclose()
    print(f"ann closes; bob reads {await bob.receive()!r}")
    await bob.aclose()
    await listener.aclose()


if __name__ == "__main__":
    asyncio.run(_demo())
