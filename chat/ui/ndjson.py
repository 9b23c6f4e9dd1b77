"""The NDJSON face: one JSON object a line, both ways. For programs; docs/reference/ndjson.md is its contract.

Rules:

1. Texts are exact and escaped to ASCII, so no terminal that shows them by accident obeys them.
2. ``say`` never interprets anything: a text that begins with a slash is a text.
3. An event is written out before the outbox forgets what it tells of.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from chat.core.errors import ChatError, LocalProtocolError
from chat.ndjson import as_object, dump
from chat.ui.lines import Output, converse, lines

if TYPE_CHECKING:
    from chat.client.client import Client, ClientEvent


class _Said(msgspec.Struct):
    """What may come in; unknown fields are ignored."""

    say: str
    id: str = ""


async def run(client: Client) -> None:
    """Speak for a program until its input ends, then wait until all it said is stored. Raises what ends the client."""
    out = Output()

    def show(event: ClientEvent) -> list[str]:
        made = as_object(event, client)
        return [dump(made)] if made else []

    await converse(client, out, _read(client, out), show)


async def _read(client: Client, out: Output) -> None:
    number = unsaid = 0
    async for line in lines(sys.stdin):
        number += 1
        if not line.strip():
            continue
        name = ""
        try:
            said = msgspec.json.decode(line.encode(), type=_Said)
            name = said.id
            await client.say(said.say, name=name)
        except (msgspec.DecodeError, LocalProtocolError) as error:
            unsaid += 1
            await out.write([dump({"event": "error", "line": number, "id": name, "message": f"not said: {error}"})])
    if unsaid:
        raise ChatError(f"{unsaid} of {number} lines were not said; the events of kind error say why")
