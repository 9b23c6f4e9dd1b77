"""What a session reports, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from chat.core import codes
from chat.core.bodies import Answer, Author, Challenge, Direct, Gap, Moderation, Notice, Rewind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chat.core.errors import Text
    from chat.core.outgoing import OutboxEntry


class Joined(NamedTuple):
    """In the room. ``resumed``: the log goes on where it was, and nothing is shown again."""

    room: str
    epoch: bytes
    next_seq: int
    nick: str
    role: str
    resumed: bool
    proof: bytes  # the host's signature; check it before believing anything
    read: int = 0  # how far this key had read, in any of its windows


class Message(NamedTuple):
    """A frame of the log with its author. ``text`` is exact: filter it where it becomes visible."""

    seq: int
    time: int
    author: Author
    kind: int
    text: str
    target: int  # the message replied to, edited, retracted or reacted to; 0 for none
    mine: bool  # said through this session's own outbox
    decision: Moderation | None = None  # of the owner or an operator; then there is no text, and its author has made it
    verified: bool = True  # false: it changes a message that we have not seen, so only the host vouches for it


class Stored(NamedTuple):
    """A message is on the host's disk with number ``seq``."""

    entry: OutboxEntry
    seq: int


class Rejected(NamedTuple):
    """A message is not in the log and never will be, or nobody can tell (``unconfirmed``). It may be said again."""

    entry: OutboxEntry
    code: str
    why: Text
    fields: Mapping[str, str | int] = {}


class Here(NamedTuple):
    """Who came and who went. ``first``: the list as we found it; nobody just entered."""

    came: list[tuple[bytes, str]]
    went: list[tuple[bytes, str]]
    first: bool


class Rewound(NamedTuple):
    """The host's log is not a continuation of what we hold. What follows begins anew."""

    why: Rewind


class LocalNotice(Notice):
    """A notice of our own. Its codes are ours alone, so no host can word one."""

    table = codes.LOCAL | {code: codes.REFUSALS[code] for code in codes.NICKNAMES}


class Numbered(NamedTuple):
    """Unsettled entries have new numbers: rewrite the outbox before anything is sent."""


class Ranged(NamedTuple):
    """More of a range that we asked for, up to and without ``next_seq``. ``last``: nothing follows."""

    number: int  # of the question
    items: list[Message | Gap]
    next_seq: int
    last: bool


class Answered(NamedTuple):
    number: int
    answer: Answer


Event: TypeAlias = (
    Challenge
    | Joined
    | Message
    | Stored
    | Rejected
    | Gap
    | Here
    | Rewound
    | Notice
    | Direct
    | Numbered
    | Answered
    | Ranged
)
