"""A message on its way to the host: what a face hands over, and what waits until the host confirms it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from chat.core.errors import LocalProtocolError, Text
from chat.core.wire import MAX_TEXT, REPLY, SEQ_PREFIX, TARGETED, Kind


@dataclass(frozen=True)
class Outgoing:
    """What a member wants to say. It is encoded once, here.

    Raises LocalProtocolError for over 16 KiB of UTF-8, or for text with lone surrogates.
    """

    text: str
    kind: int = Kind.SAY
    target: int = 0  # the message replied to, edited, retracted or reacted to; 0 for none
    id: str = ""  # the caller's own name for it
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", text_body(self.text, self.target))

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


def text_body(text: str, target: int = 0) -> bytes:
    """Return a message's body: the text, with the number it refers to in front if there is one.

    Raises LocalProtocolError for over 16 KiB of UTF-8, or for text with lone surrogates.
    """
    try:
        body = text.encode()
    except UnicodeEncodeError:
        told = Text("the text is not valid Unicode: it has half of a surrogate pair")
        raise LocalProtocolError(told) from None
    if len(body) > MAX_TEXT:
        told = Text(
            "the text is {size} bytes long; the limit is {limit}. Send it in parts", size=len(body), limit=MAX_TEXT
        )
        raise LocalProtocolError(told)
    return SEQ_PREFIX.pack(target) + body if target else body


def split_body(kind: int, flags: int, body: bytes) -> tuple[str, int]:
    """Split a message's body into its text and the number it refers to, 0 for none."""
    target = 0
    if kind in TARGETED or (kind == Kind.SAY and flags & REPLY):
        if len(body) >= SEQ_PREFIX.size:
            (target,) = SEQ_PREFIX.unpack_from(body)
        body = body[SEQ_PREFIX.size :]
    return body.decode("utf-8", "replace"), target
