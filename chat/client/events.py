"""What a client reports to the program that uses it, in order, until the client ends."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from chat.core.bodies import Gap, Notice
from chat.core.errors import LinkClosed
from chat.core.events import Event, Here, Joined, Message, Rejected, Rewound, Stored
from chat.ndjson import message_object

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.transport import Address


class Up(NamedTuple):
    """The link is up; a Joined event came before this one. ``address`` is where it leads."""

    address: Address


class Lost(NamedTuple):
    """The link is gone. The client dials again by itself."""

    why: str  # a Text, for ``chat.i18n.translate``


ClientEvent: TypeAlias = Event | Up | Lost


class EventQueue:
    """Events that the program has not taken yet, and how the client ended."""

    def __init__(self) -> None:
        self._events: deque[ClientEvent] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: ClientEvent) -> None:
        self._events.append(event)
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """Wake everybody who waits. Without an error, the program has closed the client."""
        self._error, self._ended = self._error or error, True
        self._changed.set()

    def take(self) -> list[ClientEvent]:
        """Return the events that are here now, perhaps none."""
        events = list(self._events)
        self._events.clear()
        self._taken.set()
        return events

    def check(self) -> None:
        """Raise what ended the client: LinkClosed if the program closed it."""
        if self._error is not None:
            raise self._error
        if self._ended:
            raise LinkClosed("this client was closed here")

    async def changed(self) -> None:
        """Wait for the next event. Raises what ended the client."""
        self.check()
        self._changed.clear()
        await self._changed.wait()

    async def wait(self) -> None:
        """Wait until there is an event, or the program has closed the client. Raises what else ended it."""
        with suppress(LinkClosed):
            while not self._events:
                await self.changed()

    async def taken(self) -> None:
        """Wait until the program takes its events."""
        self._taken.clear()
        await self._taken.wait()


def as_object(event: ClientEvent, client: Client) -> dict[str, Any] | None:
    """Return an event as programs read it (docs/reference/ndjson.md); None for one that is of no use to them."""
    match event:
        case Message():
            return message_object(event)
        case Stored(entry, seq):
            return {"event": "stored", "id": entry.id, "seq": seq} if entry.id else None
        case Rejected(entry, code, why, fields):
            return {"event": "rejected", "id": entry.id, "code": code, "fields": fields, "message": why}
        case Joined(room, epoch, next_seq, nick, role, resumed):
            return {
                "event": "joined",
                "room": room,
                "epoch": epoch.hex(),
                "next_seq": next_seq,
                "me": {"nick": nick, "key": client.session.key.hex(), "role": role},
                "pending": client.pending,
                "resumed": resumed,
            }
        case Here(came, went, first):
            return {
                "event": "presence",
                "first": first,
                "came": [{"nick": nick, "key": key.hex()} for key, nick in came],
                "went": [{"nick": nick, "key": key.hex()} for key, nick in went],
            }
        case Gap():
            return {"event": "gap", "first": event.first, "count": event.count}
        case Rewound(why):
            return {"event": "rewound", "code": why.code, "fields": why.fields, "why": why.text}
        case Notice():
            return {"event": "notice", "code": event.code, "fields": event.fields, "text": event.text}
        case Lost(why):
            return {"event": "link", "state": "lost", "why": why}
        case Up(address):
            return {"event": "link", "state": "up", "address": str(address)}
    return None
