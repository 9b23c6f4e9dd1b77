"""The linear face: one line a message, no cursor movement. For dumb terminals, screen readers, pipes and logs.

Rules:

1. Whatever came from somebody else goes through ``text.visible`` here, and nowhere later.
2. A line of standard input is a message; ``/me``, ``/who``, ``/away``, ``/busy``, ``/back``, ``/peer`` and
   ``/quit`` are the commands; ``//`` is a literal slash.
3. A mistyped command is answered, never sent.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from chat.client import Lost, Up
from chat.errors import ChatError
from chat.face.lines import Output, converse, lines
from chat.frame import Ask, Gap, Kind, Notice
from chat.presence import Level
from chat.session import Here, Joined, Message, Rewound
from chat.sight import as_line
from chat.text import visible

if TYPE_CHECKING:
    from chat.client import Client, ClientEvent
    from chat.frame import Author

_LEVELS: Final = {"/away": Level.AWAY, "/busy": Level.BUSY, "/back": Level.ONLINE}
_HELP: Final = "each line you type is a message; /me waves is an action; /who lists who is here; /quit leaves"


async def run(client: Client) -> None:
    """Speak for the terminal until the input ends or ``/quit``. Raises what ends the client."""
    out = Output()
    if client.trusted_on_first_use:
        await out.write([f"* first visit: the host's key is {client.trusted_on_first_use}; compare it with its owner"])

    def show(event: ClientEvent) -> list[str]:
        if isinstance(event, Message):
            client.show(read=event.seq)
        return describe(event)

    await converse(client, out, _read(client, out), show)


async def _read(client: Client, out: Output) -> None:
    async for line in lines(sys.stdin):
        try:
            if not await _act(client, out, line):
                return
        except ChatError as error:
            await out.write([f"* {visible(str(error), lines=False)}"])


async def _act(client: Client, out: Output, line: str) -> bool:
    """Do what a line asks for. Returns False when it is time to leave."""
    command, _, rest = line.partition(" ")
    if not line.strip():
        return True
    if not line.startswith("/") or line.startswith("//"):
        await client.say(line[1:] if line.startswith("//") else line)
    elif command == "/me" and rest:
        await client.say(rest, kind=Kind.ACTION)
    elif command == "/who":
        people = client.people().items()
        await out.write(["* here: " + ", ".join(as_line(who, state).replace("\t", " ") for who, state in people)])
    elif command in {"/quit", "/q", "/exit"}:
        return False
    elif command in _LEVELS:
        try:
            client.show(level=_LEVELS[command], note=rest, active=time.time_ns() // 1_000_000)
        except ValueError as error:
            await out.write([f"* {error}"])
        else:
            await out.write([f"* you are shown as {_LEVELS[command].name.lower()}"])
    elif command == "/peer" and rest:
        answer = await client.ask(Ask(what="peer", text=rest))
        await out.write([f"* {visible(answer.error or answer.text, lines=False)}"])
    else:
        await out.write(
            [f"* {_HELP}" if command == "/help" else f"* {command} is no command and was not sent; {_HELP}"]
        )
    return True


def describe(event: ClientEvent) -> list[str]:
    """Return the lines that tell a person of an event; none for what needs no telling."""
    match event:
        case Message():
            return describe_message(event)
        case Joined(room, _epoch, _next_seq, nick, _role, resumed=False):
            return [f"* you are {visible(nick, lines=False)} in {visible(room, lines=False)}; {_HELP}"]
        case Here(came, went, first):
            if first:
                return ["* here: " + ", ".join(visible(nick, lines=False) for _, nick in came)] if came else []
            return [f"* {visible(nick, lines=False)} came" for _, nick in came] + [
                f"* {visible(nick, lines=False)} left" for _, nick in went
            ]
        case Gap():
            return [f"* {event.count} messages from number {event.first} on cannot be had any more"]
        case Rewound(why):
            return [f"* {visible(why, lines=False)}; what follows begins anew"]
        case Notice():
            return [f"* {visible(event.text, lines=False)}"]
        case Lost(why):
            return [f"* link lost: {visible(why, lines=False)}; coming back"]
        case Up(address):
            return [f"* connected over {visible(str(address), lines=False)}"]
    return []


def named(author: Author) -> str:
    """Return an author's nickname, with a label for programs: no nickname holds brackets."""
    return visible(author.nick, lines=False) + (" [bot]" if author.bot else "")


def describe_message(message: Message) -> list[str]:
    """Return a message's lines: time and name before each, so that no text can pass for another's."""
    clock = time.strftime("%H:%M", time.localtime(message.time / 1000))
    nick = named(message.author)
    match message.kind:
        case Kind.SAY:
            before = f"{clock} {nick}: "
        case Kind.ACTION:
            before = f"{clock} * {nick} "
        case Kind.EDIT:
            before = f"{clock} {nick} (edits {message.target}): "
        case Kind.RETRACT:
            return [f"{clock} {nick} takes back number {message.target}"]
        case Kind.REACT:
            before = f"{clock} {nick} (about {message.target}): "
        case kind:
            return [f"{clock} {nick} sent something of kind {kind}, which this version cannot show"]
    return [before + line for line in visible(message.text).split("\n")]
