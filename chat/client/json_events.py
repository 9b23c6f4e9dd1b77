"""A client's events as JSON objects, as docs/reference/ndjson.md describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat.client.events import Lost, Up
from chat.core.session import Here, Joined, Message, Rejected, Rewound, Stored
from chat.core.wire import Gap, Notice
from chat.ndjson import message_object

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.client.events import ClientEvent


def as_object(event: ClientEvent, client: Client) -> dict[str, Any] | None:
    """Return an event as programs read it; None for one that is of no use to them."""
    match event:
        case Message():
            return message_object(event)
        case Stored(entry, seq):
            return {"event": "stored", "id": entry.id, "seq": seq or None} if entry.id else None
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
