"""Questions to the host, and what answers them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Answer, Ask
from chat.core.errors import LinkBroken, RemoteProtocolError, RequestFailed
from chat.core.events import Message
from chat.core.session import LinkState

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.client.client import Client
    from chat.core.bodies import Gap
    from chat.core.events import Ranged
    from chat.core.session import Session

_NEAR: Final = 100  # numbers apart that one question covers: to read past some is quicker than to ask again

PATIENCE: Final = 15.0  # seconds in which a host must answer, or go on with what it sends; then exit code 4
_ENDED: Final = Answer()  # a range has come in


class Queries:
    """One client's questions that are not answered yet."""

    def __init__(self, session: Session, flush: Callable[[], None]) -> None:
        self._session = session
        self._flush = flush
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._range: asyncio.Future[Answer] | None = None  # the range that is on its way
        self._pieces: Callable[[Ranged], None] = lambda _piece: None

    def ask(self, ask: Ask) -> asyncio.Future[Answer]:
        """Put a question. It ends in RequestFailed if the host says no, in LinkBroken if the link is lost before."""
        if self._session.state is not LinkState.JOINED:
            raise LinkBroken("there is no link to the host now; try again when it is back")
        number = self._session.ask(ask)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: (self._answers.pop(number, None), self._timers.pop(number, None)))
        self._answers[number] = answer
        self._wait(number)
        self._flush()
        return answer

    def _wait(self, number: int) -> None:
        """Give up on a question after 15 s: a host may send signs of life for ever, and nothing else."""

        def give_up() -> None:
            if (answer := self._answers.get(number)) is not None and not answer.done():
                answer.set_exception(LinkBroken("the host has not answered for {seconds:g} s", seconds=PATIENCE))

        timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)
        self._answers[number].add_done_callback(lambda _: timer.cancel())
        if (before := self._timers.pop(number, None)) is not None:
            before.cancel()
        self._timers[number] = timer

    async def range(self, first: int, before: int, reached: Callable[[int], None]) -> list[Message | Gap]:
        """Return the log from number ``first`` up to and without ``before``; see ``Client.range``."""
        while self._range is not None and not self._range.done():  # one at a time
            await asyncio.wait([self._range])
        items: list[Message | Gap] = []

        def add(piece: Ranged) -> None:
            items.extend(piece.items)
            reached(piece.next_seq)

        self._pieces = add
        self._range = self.ask(Ask(what="range", first=first, before=before))
        self._range.add_done_callback(lambda done: done.cancelled() or done.exception())  # its caller may be gone
        answer = await asyncio.shield(self._range)  # a cancelled caller does not stop the host
        if answer is not _ENDED:
            raise RemoteProtocolError("the host answered in words where a part of the log was asked for")
        return items

    def ranged(self, piece: Ranged) -> None:
        self._pieces(piece)
        if piece.number in self._answers and not piece.last:
            self._wait(piece.number)  # it goes on
        if piece.last:
            self.answered(piece.number, _ENDED)

    def answered(self, number: int, answer: Answer) -> None:
        if number not in self._answers or self._answers[number].done():
            return
        if answer.failed:
            self._answers[number].set_exception(answer.error(RequestFailed))
        else:
            self._answers[number].set_result(answer)

    def lost(self) -> None:
        """The link is gone, and the answers with it."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkBroken("the link was lost before the host had answered; try again"))


async def find(
    client: Client, query: str, *, limit: int, before: int = 0, told: Callable[[int, int], None] = lambda _at, _of: None
) -> tuple[list[Message], Answer]:
    """Return the messages that a search finds, each with its current text, the newest last, and the host's answer.

    Messages that are gone from the log are left out. ``told`` is called with how many of how many have been read.
    Raises ChatError.
    """
    answer = await client.ask(Ask(what="search", text=query, limit=limit, before=before))
    messages = await fetch(client, {seq for hit in answer.found for seq in hit}, told)
    read = [(messages.get(seq), messages.get(text_at)) for seq, text_at in reversed(answer.found)]
    return [said._replace(text=text.text) for said, text in read if said and text and _belongs(said, text)], answer


def _belongs(message: Message, text: Message) -> bool:
    """Whether a text is a message's own: its first one, or an edit by the same author."""
    return message is text or (text.target == message.seq and text.author.key == message.author.key)


async def fetch(
    client: Client, numbers: set[int], told: Callable[[int, int], None] = lambda _at, _of: None
) -> dict[int, Message]:
    """Read messages by their numbers, without those that are gone from the log. Raises ChatError."""
    found: dict[int, Message] = {}
    rest = deque(sorted(numbers))
    while rest:
        first = last = rest.popleft()
        while rest and rest[0] - first < _NEAR:
            last = rest.popleft()
        for item in await client.range(first, last + 1):
            if isinstance(item, Message) and item.seq in numbers:
                found[item.seq] = item
        told(len(numbers) - len(rest), len(numbers))
    return found
