"""The main loop of a face without a screen: read the input and write the events, until the input ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.local.streams import Output


async def converse(
    client: Client, out: Output, reader: Coroutine[None, None, None], show: Callable[[ClientEvent], list[str]]
) -> None:
    """Read and show until the input ends; then wait until everything said is stored and shown.

    Raises what ends the reader or the client.
    """
    ends = is_writing = False

    async def write() -> None:
        nonlocal is_writing
        while not ends and (events := await client.next_events()):
            is_writing = True
            await out.write([line for event in events for line in show(event)])
            is_writing = False

    writing = asyncio.ensure_future(write())
    reading = asyncio.ensure_future(reader)
    try:
        await _first_of(reading, writing)
    finally:
        # What was said before a bad line, or before the input broke off, must still be stored and shown.
        settling = asyncio.ensure_future(client.settled())
        try:
            if reading.done():
                await _first_of(settling, writing)
                ends = True
                if is_writing:  # else the write would be cancelled below
                    await writing
        finally:
            for task in (reading, writing, settling):
                task.cancel()
            await asyncio.gather(reading, writing, settling, return_exceptions=True)
            await out.write([line for event in client.take() for line in show(event)])


async def _first_of(*tasks: asyncio.Future[None]) -> None:
    """Wait for the first of these to end, and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
