"""toy: a third-party transport, over a stream socket in the file system and asyncio's own streams.

``toy:PATH``; bare ``toy`` listens in the room's runtime folder. A real transport does more (see transports/):
this one does not learn the peer's uid, and leaves its file behind when it is killed.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from chat.transport import Address, DialFailed, LinkClosed, ListenFailed, Peer
from chat.transport.link import StreamLink

if TYPE_CHECKING:
    from chat.transport import Site


class ToyListener:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.file = Path(address.place)
        self.server: asyncio.Server | None = None
        self.came: asyncio.Queue[StreamLink | None] = asyncio.Queue()  # None: closed

    def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came.put_nowait(StreamLink(Peer("toy, somebody"), reader, writer))

    async def accept(self) -> StreamLink:
        link = await self.came.get() if self.server else None
        if link is None:
            raise LinkClosed(f"the listener on {self.address} was closed here")
        return link

    async def aclose(self) -> None:
        if self.server is None:
            return
        self.server.close()
        self.server = None
        self.file.unlink(missing_ok=True)
        while not self.came.empty():  # nobody accepted them
            if (link := self.came.get_nowait()) is not None:
                await link.aclose()
        self.came.put_nowait(None)


class ToyTransport:
    scheme = "toy"
    summary = "an example: a stream socket in the file system"

    async def listen(self, address: Address, site: Site) -> ToyListener:
        address.allow_options()
        listener = ToyListener(Address("toy", address.place or str(site.folder / "toy")))
        try:
            # Our own socket: asyncio would remove the file of a live listener.
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.bind(listener.address.place)
            except BaseException:
                sock.close()
                raise
            listener.server = await asyncio.start_unix_server(listener.greet, sock=sock)
        except OSError as error:
            raise ListenFailed(f"cannot listen on {listener.address}: {error.strerror or error}".lower()) from None
        return listener

    async def dial(self, address: Address) -> StreamLink:
        address.allow_options()
        try:
            reader, writer = await asyncio.open_unix_connection(address.place)
        except OSError as error:
            raise DialFailed(f"cannot reach {address}: {error.strerror or error}".lower()) from None
        return StreamLink(Peer(str(address)), reader, writer)


transport = ToyTransport()
