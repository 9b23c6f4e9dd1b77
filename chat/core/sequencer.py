"""The seam between a host that judges and the order in which things happen in a room.

    host A ── submit ──▶             ──▶ apply, on host A
                          sequencer        the same batches in the same order
    host B ── submit ──▶             ──▶ apply, on host B

Rules:

1. A submission is a value: it can be stored, sent (MessagePack) and applied elsewhere, and says all that
   ``Ledger.apply`` needs.
2. It holds public facts only: what every host and every member of the room may know. Why somebody was banned, who used
   which invite and what the kernel says of a peer stay with the host that knows it.
3. Submitting may take its time and may fail. A host has one batch of a room on its way at a time and submits it again
   until it is in the order, so its messages neither change places nor get lost. A batch that is ordered twice is
   applied once: high-water marks and tables make the second time a repeat.
4. A room without a sequencer is its own: what it submits is applied at once.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

from chat.core.bodies import Moderation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BATCH: Final = 256  # submissions that go out together


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Messages of one stream in a row: whole frames as their author sent them. Numbers are given when it is applied."""

    key: bytes
    stream: int
    nick: str
    bot: bool  # the host has started this program, and labels what it says
    number: int  # the author's own, of the first one
    time: int
    frames: bytes
    ends: list[int]  # where each of them ends


class Reject(msgspec.Struct, frozen=True, array_like=True, tag="reject"):
    """A message that was not taken: its stream goes on behind it."""

    key: bytes
    stream: int
    number: int
    code: str
    fields: dict[str, str | int]


class ClaimNick(msgspec.Struct, frozen=True, array_like=True, tag="nick"):
    """A key asks for a nickname. The first to claim its skeleton has it."""

    key: bytes
    nick: str
    skeleton: str


class ReleaseNick(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """A nickname is free again, unless its key has spoken under it."""

    key: bytes
    nick: str
    skeleton: str


class SetRole(msgspec.Struct, frozen=True, array_like=True, tag="role"):
    """A key is a member from now on, with this role."""

    key: bytes
    role: str


class AddInvite(msgspec.Struct, frozen=True, array_like=True, tag="invite"):
    """Whoever signs with this key may enter. How often a counted one may still be used, its host alone knows."""

    key: bytes
    expires: int  # ms since 1970, 0 for never
    counted: bool


class Moderate(msgspec.Struct, frozen=True, array_like=True, tag="moderate"):
    """A decision of the owner or an operator, as the log holds it."""

    time: int
    decision: Moderation


Submission: TypeAlias = Append | Reject | ClaimNick | ReleaseNick | SetRole | AddInvite | Moderate


class Sequencer(Protocol):
    """Puts the batches of all hosts of a room into one order, and has each host apply them in it."""

    def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
        """Submit a batch, and call ``done`` once, now or later: with True if it is in the order, else with False.

        After a False it is submitted again, also if it is in the order all the same. Raising counts as a False.
        """


class Submitter:
    """What one host submits to one room's sequencer: in order, a batch at a time, until each is in the order."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._queue: deque[Submission] = deque()
        self._on_the_way: Sequence[Submission] = ()  # the batch that is submitted now
        self.error: Exception | None = None  # what the sequencer raised last, for the host to report
        self.on_ordered: Callable[[], None] = lambda: None  # the queue became shorter
        self.size = 0  # bytes in the queue, about

    def add(self, submission: Submission) -> None:
        self._queue.append(submission)
        self.size += _size(submission)
        self.push()

    def push(self) -> None:
        """Submit what waits, unless something is on its way. A batch that failed waits for this call."""
        if self._queue and not self._on_the_way:
            batch = self._on_the_way = list(islice(self._queue, _BATCH))
            try:
                self._sequencer.submit(batch, partial(self._done, batch))
            except Exception as error:
                self.error = error
                self._done(batch, False)

    def _done(self, batch: Sequence[Submission], ordered: bool) -> None:
        if batch is not self._on_the_way:
            return  # a second answer; the batch that is on its way now has nothing to do with it
        self._on_the_way = ()
        if ordered:
            self.size -= sum(_size(self._queue.popleft()) for _ in batch)
            self.on_ordered()
            self.push()


def _size(submission: Submission) -> int:
    return 256 + (len(submission.frames) if isinstance(submission, Append) else 0)
