"""Questions to the host, and what answers them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from chat.client.events import Lost
from chat.core.errors import ChatError, DialFailed, LinkBroken
from chat.core.session import Joined, LinkState, Message
from chat.core.text import visible
from chat.core.wire import Answer, Ask
from chat.i18n import _, localize_remote, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.client.client import Client
    from chat.core.session import Session

_NEAR: Final = 500  # numbers that are sooner read past than come in anew for


class Queries:
    """The questions of one client that are not answered yet."""

    def __init__(self, session: Session, flush: Callable[[], None]) -> None:
        self._session = session
        self._flush = flush
        self._answers: dict[int, asyncio.Future[Answer]] = {}

    async def ask(self, ask: Ask) -> Answer:
        """Return the host's answer. Raises LinkBroken if there is no link, or if it is lost before the answer."""
        if self._session.state is not LinkState.JOINED:
            raise LinkBroken("there is no link to the host now; try again when it is back")
        number = self._session.ask(ask)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._flush()
        try:
            return await future
        finally:
            del self._answers[number]

    def answered(self, number: int, answer: Answer) -> None:
        if number in self._answers and not self._answers[number].done():
            self._answers[number].set_result(answer)

    def lost(self) -> None:
        """The link is gone, and the answers with it."""
        for future in self._answers.values():
            if not future.done():
                future.set_exception(LinkBroken("the link was lost before the host had answered; try again"))


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
