"""The NDJSON face: one JSON object a line, both ways. For programs; docs/reference/ndjson.md is its contract.

Rules:

1. Texts are exact and escaped to ASCII, so no terminal that shows them by accident obeys them.
2. ``say`` never interprets anything: a text that begins with a slash is a text. Only ``command`` names a command.
3. An event is written out before the outbox forgets what it tells of.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chat.client.json_events import as_object
from chat.core.errors import ChatError, LocalProtocolError, RequestFailed, TransportError, WrongValue
from chat.core.outgoing import Outgoing
from chat.core.session import Rejected
from chat.core.status import Level
from chat.core.wire import U63, Ask, Kind
from chat.local.streams import Output, whole_lines
from chat.ndjson import dump, person_object
from chat.ui.lines import converse

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.client.events import ClientEvent

_LONGEST: Final = 1024 * 1024  # bytes of a line
_COMMANDS: Final = {  # and the fields that each needs
    "me": ("text",),
    "reply": ("target", "text"),
    "edit": ("target", "text"),
    "retract": ("target",),
    "react": ("target",),
    "who": (),
    "away": (),
    "busy": (),
    "back": (),
    "invite": (),
    "peer": ("text",),
    "quit": (),
}
_SAYING: Final = {  # kinds of the commands that are messages
    "me": Kind.ACTION,
    "reply": Kind.SAY,
    "edit": Kind.EDIT,
    "retract": Kind.RETRACT,
    "react": Kind.REACT,
}
_LEVELS: Final = {"away": Level.AWAY, "busy": Level.BUSY, "back": Level.ONLINE}


class _Line(msgspec.Struct):
    """What may come in; unknown fields are ignored. It has either ``say`` or ``command``."""

    say: str | msgspec.UnsetType = msgspec.UNSET
    command: str | msgspec.UnsetType = msgspec.UNSET
    text: str = ""
    target: U63 = 0
    id: str = ""


async def run(client: Client) -> None:
    """Speak for a program until its input ends, then wait until all it said is stored. Raises what ends the client."""
    out = Output()
    rejected = 0

    def show(event: ClientEvent) -> list[str]:
        nonlocal rejected
        rejected += isinstance(event, Rejected)
        made = as_object(event, client)
        return [dump(made)] if made else []

    await converse(client, out, read(client, out), show)
    if rejected:
        raise ChatError(f"{rejected} messages were rejected; the events of that kind say why")


async def read(client: Client, out: Output) -> None:
    """Say and do what a program writes. Raises ChatError at the end if some of its lines were not said or done."""
    number = failed = 0
    async for line in whole_lines(sys.stdin, _LONGEST):
        number += 1
        if isinstance(line, str) and not line.strip():
            continue
        name, what = "", "not said"
        try:
            wanted = _parse(line)
            name = wanted.id
            if isinstance(wanted.say, str):
                await client.say(Outgoing(wanted.say, id=name))
                continue
            what = "not done"
            if wanted.command == "quit":
                break
            done = await _do(client, wanted)
            if done is not None:
                await out.write([dump({"event": "done", "id": name, "command": wanted.command, **done})])
        except (msgspec.DecodeError, LocalProtocolError, RequestFailed, TransportError, WrongValue) as error:
            failed += 1
            made: dict[str, Any] = {"event": "error", "line": number, "id": name, "message": f"{what}: {error}"}
            if isinstance(error, RequestFailed):
                made |= {"code": error.code, "fields": error.fields}
            else:
                made |= {"code": "no-link" if isinstance(error, TransportError) else "bad-line", "fields": {}}
            await out.write([dump(made)])
    if failed:
        raise ChatError(f"{failed} of {number} lines were not said or done; the events of kind error say why")


def _parse(line: str | WrongValue) -> _Line:
    if isinstance(line, WrongValue):
        raise line
    wanted = msgspec.json.decode(line.encode(), type=_Line)
    if isinstance(wanted.say, str) == isinstance(wanted.command, str):
        raise LocalProtocolError("an object needs the field say, or the field command, and not both")
    return wanted


async def _do(client: Client, wanted: _Line) -> dict[str, Any] | None:
    """Do a command; return what came of it, None for a message, whose echo tells that.

    Raises LocalProtocolError for a line that is wrong, RequestFailed for a host that says no, LinkBroken.
    """
    name = str(wanted.command)
    if name not in _COMMANDS:
        raise LocalProtocolError(f"{name!r} is no command; there are {', '.join(_COMMANDS)}")
    for needed in _COMMANDS[name]:
        if not getattr(wanted, needed):
            raise LocalProtocolError(f"{name} needs the field {needed}")
    if name in _SAYING:
        kind = _SAYING[name]
        target = wanted.target if "target" in _COMMANDS[name] else 0
        text = wanted.text if kind != Kind.RETRACT else ""
        await client.say(Outgoing(text, kind, target, wanted.id))
        return None
    if name in _LEVELS:
        client.show(level=_LEVELS[name], note=wanted.text)
        return {}
    if name == "who":
        return {"people": [person_object(who, state) for who, state in client.people().items()]}
    answer = await client.ask(Ask(what=name, text=wanted.text if name == "peer" else ""))
    return {"text": answer.text}
