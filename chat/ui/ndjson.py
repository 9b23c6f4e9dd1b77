"""The NDJSON face: one JSON object a line, both ways. For programs; docs/reference/ndjson.md is its contract.

Rules:

1. Texts are exact and escaped to ASCII, so no terminal that shows them by accident obeys them.
2. ``say`` never interprets anything: a text that begins with a slash is a text. Only ``command`` names a command.
3. An event is written out before the outbox forgets what it is about.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chat.client.events import as_object
from chat.core.bodies import U63
from chat.core.errors import ChatError, LocalProtocolError, RequestFailed, StoreError, TransportError, WrongValue
from chat.core.events import Rejected
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.i18n import _
from chat.local.settings import Settings
from chat.local.streams import Output, lines, while_read
from chat.ndjson import dump, person_object
from chat.ui.commands import COMMANDS
from chat.ui.controller import Controller
from chat.ui.entry import MessageEntry
from chat.ui.face import Face, Room, complain, converse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.bodies import Answer
    from chat.ui.face import Work

_LONGEST: Final = 1024 * 1024  # bytes of a line of NDJSON from a program; a longer one is not said (exit code 1)
_NEEDED: Final = {usage.name: usage.program for usage in COMMANDS if usage.program is not None}  # fields


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

    await while_read(converse(client, out, read(client, out), show))
    if rejected:
        raise ChatError(f"{rejected} messages were rejected; the events of that kind say why")


async def read(client: Client, out: Output) -> None:
    """Say and do what a program writes. Raises ChatError at the end if some of its lines were not said or done."""
    program = _Program(client)
    number = failed = 0
    async for line in lines(sys.stdin, _LONGEST):
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
            done = await program.do(str(wanted.command), wanted)
            if program.leaving:
                break
            if done is not None:
                await out.write([dump({"event": "done", "id": name, "command": wanted.command, **done})])
        except asyncio.CancelledError:
            complain(_("the input was taken up to line {number}; the rest was not sent").format(number=number - 1))
            raise
        except (msgspec.DecodeError, ChatError, WrongValue) as error:
            client.events.check()  # raises what has ended the client: no later line can fare better
            failed += 1
            made: dict[str, Any] = {"event": "error", "line": number, "id": name, "message": f"{what}: {error}"}
            match error:
                case RequestFailed():
                    made |= {"code": error.code, "fields": error.fields}
                case TransportError():
                    made |= {"code": "no-link", "fields": {}}
                case StoreError():
                    made |= {"code": "own-disk", "fields": {}}
                case _:
                    made |= {"code": "bad-line", "fields": {}}
            await out.write([dump(made)])
    if failed:
        raise ChatError(f"{failed} of {number} lines were not said or done; the events of kind error say why")


def _parse(line: str | WrongValue) -> _Line:
    if isinstance(line, WrongValue):
        raise line
    try:
        wanted = msgspec.json.decode(line.encode(), type=_Line)
    except RecursionError:
        raise LocalProtocolError("the object is nested too deeply") from None
    if isinstance(wanted.say, str) == isinstance(wanted.command, str):
        raise LocalProtocolError("an object needs the field say, or the field command, and not both")
    return wanted


class _Program(Face[Room]):
    """Commands for one program, which is in one room."""

    def __init__(self, client: Client) -> None:
        self.leaving = False
        self._client = client
        self._controller = Controller(self, Room(client), Settings(emoji_names=False))
        self._target = 0
        self._done: dict[str, Any] | None = None

    async def do(self, name: str, wanted: _Line) -> dict[str, Any] | None:
        """Do a command; return what came of it, None for a message, whose echo tells that.

        Raises LocalProtocolError for a line that is wrong, RequestFailed for a host that says no, LinkBroken.
        """
        if name not in _NEEDED:
            raise LocalProtocolError(f"{name!r} is not a command; the commands are {', '.join(_NEEDED)}")
        for needed in _NEEDED[name]:
            if not getattr(wanted, needed):
                raise LocalProtocolError(f"{name} needs the field {needed}")
        self.message_id, self._target, self._done = wanted.id, wanted.target, {}
        if work := self._controller.do(name, wanted.text):
            await work
        return self._done

    def do_react(self, given: str) -> Work:
        return self._controller.send(given, Kind.REACT, self._target)  # any text, and "" takes a reaction back

    def do_who(self, _argument: str) -> None:
        users = self._client.session.users
        self._done = {"people": [person_object(*one, users.get(one[0], "")) for one in self._client.people().items()]}

    def answer(self, answer: Answer, room: Room) -> None:
        self._done = {"text": answer.text}

    def show_list(self, lines: Sequence[str]) -> None:
        self._done = {"lines": list(lines)}

    def chosen(self, command: str) -> MessageEntry:
        return MessageEntry(0, self._target, b"", "", False, Kind.SAY, "", 0, mine=True)

    def sending(self, room: Room) -> None:
        self._done = None

    def quit(self) -> None:
        self.leaving = True
