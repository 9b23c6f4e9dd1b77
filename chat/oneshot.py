"""Commands that come in silently, do one thing, and leave: they are no members to be seen."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import click

from chat.client import Lost, Up
from chat.errors import ChatError, DialFailed, TransportError
from chat.face.linear import describe, describe_message
from chat.face.lines import Output
from chat.face.ndjson import as_object, dump, message_object
from chat.frame import Ask, Gap
from chat.session import Here, Joined, Message, Rewound, Stored
from chat.text import visible

if TYPE_CHECKING:
    from chat.client import Client

_NEAR: Final = 500  # numbers that are sooner read past than come in anew for
_WAITS: Final = "it waits in the outbox and goes out with your next chat join or chat send"


async def send_text(client: Client, text: str, seconds: float) -> None:
    """Say one message and return when the host's disk has it, or raise DialFailed when it did not say so in time."""
    entry = None
    try:
        async with client:
            entry = await client.say(text)
            async with asyncio.timeout(seconds):
                while not any(
                    isinstance(event, Stored) and event.entry is entry for event in await client.next_events()
                ):
                    pass
            client.take()
    except TimeoutError:
        raise DialFailed(f"the host did not say within {seconds:g} s that it has the message; {_WAITS}") from None
    except TransportError as error:
        raise DialFailed(f"{error}; {_WAITS if entry else 'nothing was sent'}") from None
    except asyncio.CancelledError:
        click.echo(f"chat: interrupted; {_WAITS if entry else 'nothing was sent'}", err=True)
        raise


async def print_log(client: Client, *, follow: bool, as_json: bool) -> None:
    """Print the room's messages up to now, or for ever with ``follow``."""
    out = Output()
    async with client:
        end, lost = 0, False
        while True:
            shown: list[str] = []
            events = await client.next_events()
            reached = client.session.next_seq  # by these events; while they are written out more may come
            for event in events:
                lost = lost or isinstance(event, Lost)
                match event:
                    case Joined():
                        end = end or event.next_seq
                    case Message() if follow or event.seq < end:
                        shown += [dump(message_object(event))] if as_json else describe_message(event)
                    case Lost(why) if not follow:
                        raise DialFailed(f"the log broke off at number {client.session.next_seq}: {why}")
                    case Up() if not lost:
                        continue  # the first time it is no news
                    case Gap() | Rewound() | Lost() | Up() if as_json:
                        made = as_object(event, client)
                        shown += [dump(made)] if made else []
                    case Gap() | Rewound():
                        shown += describe(event)
                    case Lost() | Up():
                        for line in describe(event):
                            click.echo(f"chat: {line.removeprefix('* ')}", err=True)
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


async def print_search(client: Client, query: str, *, limit: int, before: int, as_json: bool) -> None:
    """Print what a search finds, the newest last. Raises ChatError when that is nothing."""
    async with client:
        end = client.session.next_seq
        answer = await client.ask(Ask(what="search", text=query, limit=limit, before=before))
        if answer.error:
            raise ChatError(visible(answer.error, lines=False))
        messages = await _fetch(client, {seq for hit in answer.found for seq in hit})
    shown: list[str] = []
    for seq, text_at in reversed(answer.found):
        if seq not in messages or text_at not in messages:
            click.echo(f"chat: number {seq} was found but cannot be had any more", err=True)
            continue
        message = messages[seq]._replace(text=messages[text_at].text)
        shown += (
            [dump(message_object(message))] if as_json else [f"{seq}  {line}" for line in describe_message(message)]
        )
    await Output().write(shown)
    if answer.indexed < end:
        click.echo(f"chat: searched up to number {answer.indexed - 1} of {end - 1}; the index is being built", err=True)
    if answer.more:
        click.echo(f"chat: there are older ones; add --before {answer.found[-1][0]}", err=True)
    if not answer.found:
        raise ChatError("nothing was found")


async def _fetch(client: Client, numbers: set[int]) -> dict[int, Message]:
    """Read messages by their numbers; those that cannot be had are left out."""
    found: dict[int, Message] = {}
    rest = deque(sorted(numbers))
    while rest:
        at, end = rest[0], 0
        async with client.reader(at) as reader:
            while rest and rest[0] - at < _NEAR:
                for event in await reader.next_events():
                    match event:
                        case Joined():
                            end = event.next_seq
                        case Message() if event.seq in numbers:
                            found[event.seq] = event
                        case Lost(why):
                            raise DialFailed(f"what was found could not all be read: {why}")
                at = reader.session.next_seq
                while rest and (rest[0] < at or rest[0] >= end):
                    rest.popleft()
    return found
