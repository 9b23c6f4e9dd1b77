"""The NDJSON codec: one JSON object a line, in ASCII."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from chat.core.wire import Kind

if TYPE_CHECKING:
    from chat.core.events import Message
    from chat.core.status import Status, Who


_KINDS: Final = {kind.value: kind.name.lower() for kind in Kind}


def dump(thing: dict[str, Any]) -> str:
    """One object as one line of ASCII."""
    return json.dumps(thing, ensure_ascii=True, separators=(",", ":"))


def stamp(ms: int) -> str:
    """A time of the host's clock, as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03}Z"


def person_object(who: Who, state: Status, user: str = "") -> dict[str, Any]:
    """Return a member, and what they show, as programs see it; ``user`` is the login name, if it is known."""
    key, nick = who
    made = {
        "nick": nick,
        "key": key.hex(),
        "state": state.level.name.lower(),
        "note": state.note,
        "typing": state.typing,
        "read": state.read,
        "active": stamp(state.active) if state.active else None,
    }
    return made | {"user": user} if user else made


def message_object(message: Message) -> dict[str, Any]:
    """Return a message, or a decision of the owner or an operator, as programs see it."""
    made: dict[str, Any]
    if (decision := message.decision) is not None:
        made = {"event": "moderation", "seq": message.seq, "time": stamp(message.time), "action": decision.action}
        made |= {"nick": decision.by_nick, "key": decision.by.hex()}
        if decision.key:
            made["whom"] = {"nick": decision.nick, "key": decision.key.hex()}
        more = {"role": decision.role, "target": decision.target, "text": decision.text, "seconds": decision.seconds}
        made |= {name: value for name, value in more.items() if value}
        return made | ({"until": stamp(decision.until)} if decision.until else {})
    kind = _KINDS.get(message.kind, f"kind-{message.kind}")
    made = {
        "event": "message",
        "seq": message.seq,
        "time": stamp(message.time),
        "nick": message.author.nick,
        "key": message.author.key.hex(),
        "kind": kind,
        "text": message.text,
    }
    if message.target:
        made["target"] = message.target
    if not message.verified:
        made["verified"] = False
    if message.author.bot:
        made["bot"] = True  # the host says so; nobody can claim it, or get rid of it
    return made
