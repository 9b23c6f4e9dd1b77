"""A cable between members and a host on TCP: slow, lossy, cut after any byte, or dead without a word."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

PIECE: Final = 16 * 1024  # bytes that travel together
LOST: Final = 0.02  # of the pieces, which come a retransmission later
RETRANSMISSION: Final = 0.3  # seconds


class Cable:
    """Forwards connections to a port on this machine. ``delay`` is the way there and back, in seconds."""

    def __init__(self, delay: float, chance: random.Random) -> None:
        self._delay = delay
        self._chance = chance
        self._server: asyncio.Server
        self._to = 0  # the host's port
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._frozen: set[asyncio.Task[None]] = set()
        self._cut_after = -1  # bytes; negative: never
        self.cuts = 0  # links that were cut
        self.freezes = 0

    async def lay(self, to: int) -> int:
        """Forward to this port from now on; return the port to dial."""
        self._to = to
        if not hasattr(self, "_server"):
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self, after: int) -> None:
        """Cut every link once so many more bytes have passed, wherever in a frame. A cut that still waits comes now."""
        if self._cut_after >= 0:
            self._cut_now()
        self._cut_after = after

    def _cut_now(self) -> None:
        self._cut_after = -1
        self.cuts += len(self._links)
        for link in self._links:
            link.cancel()

    def freeze(self) -> None:
        """Let nothing pass any more on the links that there are; no end of them is told."""
        self.freezes += len(self._links.keys() - self._frozen)
        self._frozen |= self._links.keys()

    async def close(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends = self._links[task] = [writer]
        with suppress(OSError, asyncio.CancelledError):  # the server complains of a task that was cancelled
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
                ends.append(far_writer)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._forward(task, reader, far_writer))
                    ways.create_task(self._forward(task, far_reader, writer))
            except* OSError:
                pass  # one end is gone
            finally:
                for end in ends:
                    end.transport.abort()
                self._links.pop(task)
                self._frozen.discard(task)

    async def _forward(
        self, link: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(PIECE):
            if self._delay:
                lost = self._chance.random() < LOST
                await asyncio.sleep(self._delay / 2 + RETRANSMISSION * lost)
            if link in self._frozen:
                continue
            if 0 <= self._cut_after < len(data):
                writer.write(data[: self._cut_after])
                await writer.drain()
                self._cut_now()
                raise ConnectionAbortedError
            if self._cut_after > 0:
                self._cut_after -= len(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # the end of one way is the end of both
