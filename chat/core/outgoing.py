"""Messages on their way to the host: what a face hands over, and what waits until the host confirms it.

Rules:

1. A message's outcome is its echo or its rejection. Outcomes come in the order of the messages.
2. The host has dealt with everything that was numbered before an echo.
3. Silence is no receipt. If a message has no echo, though we saw all of the log where it would be, it is not stored,
   whatever the host's mark says. If a gap may hide the echo, nobody knows. Either way its sender gets it back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from chat.core.bodies import Rejection
from chat.core.errors import LocalProtocolError, Text
from chat.core.wire import MAX_TEXT, REPLY, SEQ_PREFIX, TARGETED, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.core.bodies import Welcome
    from chat.core.wire import Frame


@dataclass(frozen=True)
class Outgoing:
    """What a member wants to say. It is encoded once, here.

    Raises LocalProtocolError for over 16 KiB of UTF-8, or for text with lone surrogates.
    """

    text: str
    kind: int = Kind.SAY
    target: int = 0  # the message replied to, edited, retracted or reacted to; 0 for none
    id: str = ""  # the caller's own name for it
    body: bytes = field(init=False)  # the text, with the number it refers to in front if there is one

    def __post_init__(self) -> None:
        try:
            body = self.text.encode()
        except UnicodeEncodeError:
            why = Text("the text is not valid Unicode: it has half of a surrogate pair")
            raise LocalProtocolError(why) from None
        if len(body) > MAX_TEXT:
            size, limit = len(body), MAX_TEXT
            why = Text("the text is {size} bytes long; the limit is {limit}. Send it in parts", size=size, limit=limit)
            raise LocalProtocolError(why)
        object.__setattr__(self, "body", SEQ_PREFIX.pack(self.target) + body if self.target else body)

    @property
    def flags(self) -> int:
        return REPLY if self.target and self.kind == Kind.SAY else 0


class OutboxEntry(msgspec.Struct, omit_defaults=True):
    """A message that the host has not confirmed. Its fields are the record in the outbox file."""

    number: int  # the stream's own, from 1; 0: not numbered yet
    kind: int
    flags: int
    body: bytes
    id: str = ""  # the caller's own name for it
    epoch: bytes = b""  # the log that was current when it was said
    since: int = 0  # that log's next_seq at that moment: the echo comes at this number or later


def split_body(kind: int, flags: int, body: bytes) -> tuple[str, int]:
    """Split a message's body into its text and the number it refers to, 0 for none."""
    target = 0
    if kind in TARGETED or (kind == Kind.SAY and flags & REPLY):
        if len(body) >= SEQ_PREFIX.size:
            (target,) = SEQ_PREFIX.unpack_from(body)
        body = body[SEQ_PREFIX.size :]
    return body.decode("utf-8", "replace"), target


Outcome: TypeAlias = tuple[OutboxEntry, int, Rejection | None]  # the echo's number; or why there is none


class Unsettled(deque[OutboxEntry]):
    """The queue of entries, and what the host has said about them."""

    def __init__(self) -> None:
        super().__init__()
        self.next_number = 0  # 0 until the host has told its mark
        self.unseen_end = 0  # below this number of the log, an echo may have passed unseen
        self._epoch = b""
        self._rejections: dict[int, Rejection] = {}  # of these entries, by number
        self._echoes: dict[int, int] = {}  # by id(): where the echo was of an entry whose turn has not come
        self._first_unsettled = 0  # the host had dealt with the numbers below this when we came
        self._settled_at = 0  # once the log has come so far, their echoes have passed
        self._rejected = 0  # and once REJECTED has come so far, their rejections have; 0 for that

    def sent(self) -> tuple[int, int]:
        """Return the first number that was sent, and the place in the log from which on echoes may be; 0 for none."""
        sent = [entry for entry in self if entry.number]
        places = [entry.since for entry in sent if entry.since]
        return min((entry.number for entry in sent), default=0), min(places, default=0)

    def welcome(self, welcome: Welcome) -> tuple[list[OutboxEntry], bool]:
        """Return what the host does not hold, to be sent again, and whether numbers changed."""
        if welcome.rewound:
            self._rejections.clear()
        self._epoch, self._first_unsettled = welcome.epoch, welcome.first_unsettled
        self._settled_at, self._rejected = welcome.next_seq, welcome.rejected
        self.next_number = welcome.first_unsettled
        again, changed = [], False
        for entry in self:
            if 0 < entry.number < welcome.first_unsettled and entry.epoch == welcome.epoch:
                continue
            # Usually it has the right number. A host that went back to an older copy lacks some before it, and its
            # echo comes behind what the host holds now.
            place = (self.next_number, welcome.epoch)
            if (entry.number, entry.epoch) != place or entry.since > welcome.next_seq:
                (entry.number, entry.epoch), entry.since = place, welcome.next_seq
                changed = True
            self.next_number += 1
            again.append(entry)
        return again, changed

    def echo(self, frame: Frame) -> Iterator[Outcome]:
        """A message of ours is in the log: yield the outcomes up to it."""
        if self and frame.number < self[0].number:  # its turn has not come: numbers began anew among them
            self._echoes.update((id(entry), frame.seq) for entry in self if _is_echo(entry, frame))
        # What is older than the entry has its number from before: the host's mark went back.
        while self and 0 < self[0].number <= frame.number and self[0].since <= frame.seq:
            if self[0].number == frame.number and not _is_echo(self[0], frame):
                self.unseen_end = frame.seq + 1  # a host that went back may have given the number to another
            yield self._settle(frame.seq if _is_echo(self[0], frame) else 0)
        yield from self._known_rejections()

    def rejected(self, rejection: Rejection, next_seq: int) -> Iterator[Outcome]:
        """The host rejected some of these; the log has come to ``next_seq``."""
        end = rejection.number + rejection.count
        for entry in self:
            if rejection.number <= entry.number < end and entry.epoch == self._epoch:
                self._rejections[entry.number] = rejection
        yield from self._known_rejections()
        if end > self._rejected:
            self._rejected = 0
        yield from self.passed(next_seq)

    def passed(self, next_seq: int) -> Iterator[Outcome]:
        """The log has come to ``next_seq``: yield the outcomes of what the host had dealt with when we came."""
        if next_seq >= self._settled_at and not self._rejected:
            while self and 0 < self[0].number < self._first_unsettled:
                yield self._settle(0)

    def _known_rejections(self) -> Iterator[Outcome]:
        while self and self[0].number in self._rejections:
            yield self._settle(0)

    def _settle(self, seq: int) -> Outcome:
        """Drop the oldest entry and return its outcome. ``seq`` is its echo's number, 0 for none."""
        entry = self.popleft()
        rejection = self._rejections.pop(entry.number, None)
        if seq := seq or self._echoes.pop(id(entry), 0):
            return entry, seq, None
        is_hidden = entry.since < self.unseen_end or not entry.since
        return entry, 0, rejection or Rejection(number=entry.number, code="unconfirmed" if is_hidden else "unknown")


def _is_echo(entry: OutboxEntry, frame: Frame) -> bool:
    return entry.number == frame.number and entry.body == frame.body and entry.since <= frame.seq
