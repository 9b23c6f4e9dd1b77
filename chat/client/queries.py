"""Questions to a host about the log, and the messages that answer them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from chat.client.client import Lost
from chat.core.errors import ChatError, DialFailed
from chat.core.session import Joined, Message
from chat.core.text import visible
from chat.core.wire import Answer, Ask
from chat.i18n import _, localize_remote, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.client.client import Client

_NEAR: Final = 500  # numbers that are sooner read past than come in anew for


async def find(
    client: Client, query: str, *, limit: int, before: int = 0, told: Callable[[int, int], None] = lambda _at, _of: None
) -> tuple[list[Message], Answer]:
    """Return the messages that a search of the host's finds, each with its text of now, the newest last.

    What was found and cannot be had any more is left out. ``told`` learns how many have been read, of how many.
    Raises ChatError.
    """
    answer = await client.ask(Ask(what="search", text=query, limit=limit, before=before))
    if answer.error:
        raise ChatError(visible(localize_remote(answer.error), lines=False))
    messages = await fetch(client, {seq for hit in answer.found for seq in hit}, told)
    found = [hit for hit in reversed(answer.found) if messages.keys() >= set(hit)]
    return [messages[seq]._replace(text=messages[text_at].text) for seq, text_at in found], answer


async def fetch(
    client: Client, numbers: set[int], told: Callable[[int, int], None] = lambda _at, _of: None
) -> dict[int, Message]:
    """Read messages by their numbers; those that cannot be had are left out. Raises ChatError."""
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
                            raise DialFailed(
                                _("what was found could not all be read: {why}").format(why=translate(why))
                            )
                at = reader.session.next_seq
                while rest and (rest[0] < at or rest[0] >= end):
                    rest.popleft()
                told(len(numbers) - len(rest), len(numbers))
    return found
