"""Peers from many places, though all of this runs on one machine: through a proxy that says where they come from."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from chat.transport import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.host.host_fixture import Member

PROXIED: Final = ("--proxy-protocol", "loopback")
ATTACKER: Final = "203.0.113.9"
ELSEWHERE: Final = "198.51.100.7"


def header(source: str) -> bytes:
    return f"PROXY TCP4 {source} 192.0.2.1 40000 7711\r\n".encode()


def port_of(address: Address | str) -> int:
    return int(str(address).partition("?")[0].rpartition(":")[2])


def connect(address: Address | str, source: str = ATTACKER) -> socket.socket:
    """Connect as somebody at ``source``, and say nothing."""
    sock = socket.create_connection(("127.0.0.1", port_of(address)), timeout=20)
    sock.sendall(header(source))
    sock.setblocking(False)
    return sock


class Flood:
    """Silent connections from one place, ``held`` at a time: for each that the host drops comes another."""

    def __init__(self, address: Address | str, held: int) -> None:
        self._address = address
        self._held = held
        self._open: list[socket.socket] = []
        self.count = 0

    async def __aenter__(self) -> Self:
        while self.count < self._held:
            await self._more()
        self._task = asyncio.ensure_future(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for sock in self._open:
            sock.close()

    async def _go_on(self) -> None:
        while True:
            for sock in self._open.copy():
                if not is_open(sock):
                    self._open.remove(sock)
                    sock.close()
                    await self._more()
            await asyncio.sleep(0)

    async def _more(self) -> None:
        self._open.append(connect(self._address))
        self.count += 1
        await asyncio.sleep(0)


def is_open(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(65536))
    except BlockingIOError:
        return True
    except OSError:
        return False


@asynccontextmanager
async def proxy(address: Address, source: str) -> AsyncIterator[tuple[Address, list[asyncio.StreamWriter]]]:
    """A proxy to the host at ``address``, and its connections there: whoever dials it comes from ``source``."""
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        from_host, to_host = await asyncio.open_connection("127.0.0.1", port_of(address))
        to_host.write(header(source))
        writers.append(to_host)
        await asyncio.gather(pump(reader, to_host), pump(from_host, writer))
        with suppress(OSError):
            await asyncio.gather(writer.wait_closed(), to_host.wait_closed())
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("tcp", f"127.0.0.1:{server.sockets[0].getsockname()[1]}", address.options), writers
    finally:
        server.close()
        await server.wait_closed()
        if tasks:
            await asyncio.wait(tasks)  # the ends of both sides are closed by now


@asynccontextmanager
async def talking(one: Member, other: Member) -> AsyncIterator[None]:
    """Have two talk in turn until the attack is over: each message must be stored, and heard by the other."""
    over = asyncio.Event()

    async def talk() -> None:
        number, (says, hears) = 0, (one, other)
        while not over.is_set() or number < 2:
            number, (says, hears) = number + 1, (hears, says)
            await says.stored(await says.say(f"bystander {number}"))
            await hears.hear(f"bystander {number}")

    task = asyncio.ensure_future(talk())
    try:
        yield
        over.set()
        await task
    finally:
        task.cancel()
