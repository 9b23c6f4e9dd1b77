"""Commands that come in silently, do one thing, and leave: they are no members to be seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from chat.client import Lost
from chat.errors import ChatError, DialFailed
from chat.face.linear import describe_message
from chat.face.lines import Output
from chat.face.ndjson import dump, message_object
from chat.frame import Ask, Gap
from chat.session import Here, Joined, Message, Stored
from chat.text import visible

if TYPE_CHECKING:
    from chat.client import Client


async def send_text(client: Client, text: str, seconds: float) -> None:
    """Say one message and return when the host's disk has it. Raises DialFailed when it could not be told in time."""
    if not text:
        raise ChatError("there is nothing to send; give the text as arguments or on standard input")
    async with client:
        entry = await client.say(text)
        try:
            async with asyncio.timeout(seconds):
                while not any(
                    isinstance(event, Stored) and event.entry.number == entry.number
                    for event in await client.next_events()
                ):
                    pass
        except TimeoutError:
            raise DialFailed(
                f"the host did not say within {seconds:g} s that it has the message; it waits in the outbox "
                "and goes out with your next chat join or chat send"
            ) from None
        client.take()


async def print_log(client: Client, *, follow: bool, as_json: bool) -> None:
    """Print the room's messages up to now, or for ever with ``follow``."""
    out = Output()
    async with client:
        end = 0
        while True:
            shown: list[str] = []
            events = await client.next_events()
            reached = client.session.next_seq  # by these events; while they are written out more may come
            for event in events:
                match event:
                    case Joined():
                        end = end or event.next_seq
                    case Message() if follow or event.seq < end:
                        shown += [dump(message_object(event))] if as_json else describe_message(event)
                    case Gap():
                        shown += [
                            dump({"event": "gap", "first": event.first, "count": event.count})
                            if as_json
                            else f"* {event.count} messages from number {event.first} on cannot be had any more"
                        ]
                    case Lost(why) if not follow:
                        raise DialFailed(f"the log broke off at number {client.session.next_seq}: {why}")
            await out.write(shown)
            if not follow and end and reached >= end:
                return


async def print_who(client: Client, *, as_json: bool) -> None:
    """Print who is in the room now."""
    async with client:
        while not any(isinstance(event, Here) for event in await client.next_events()):
            pass
    for key, nick in client.session.here:
        click.echo(dump({"nick": nick, "key": key.hex()}) if as_json else visible(nick, lines=False))


async def print_invite(client: Client, *, uses: int, seconds: int) -> None:
    """Have the host make an invite, and print it."""
    async with client:
        answer = await client.ask(Ask(what="invite", uses=uses, seconds=seconds))
    if answer.error:
        raise ChatError(visible(answer.error, lines=False))
    click.echo(visible(answer.text, lines=False))
