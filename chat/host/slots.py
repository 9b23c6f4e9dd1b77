"""What peers share of one host: places at its door, links, and the work of reading them.

Rules:

1. All three are counted by source, since keys are free: an IPv4 address, an IPv6 /64, a user of this machine.
2. At a bound, whoever has most gives way. A newcomer from elsewhere always finds room, and so does one who has little.
3. The owner and operators never give way. Their links, and those of our own user, may use the last descriptors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Refusal, pack
from chat.core.errors import Refused, TransportError
from chat.core.wire import Kind
from chat.local.descriptors import has_spare
from chat.transport.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.host.connection import Connection
    from chat.transport import Link, Peer

_logger: Final = logging.getLogger("chat.host.host")

# descriptors for files and indexes, which no link gets; when only these are left, whoever has most gives way: ``busy``
RESERVE: Final = 32
# descriptors more for owner, operators and our own user's links; when only these are left, others find it ``busy``
SEATS: Final = 32
LOST_RECEIVES: Final = 500  # receives a second and source that may complete no frame; beyond, it is read more slowly
LOST_BURST: Final = 1_000  # of these receives at once, after quiet; beyond, the rate above holds
_SOURCES: Final = 1_024  # sources whose receives are remembered; those that may have their burst again are forgotten
_BUSY: Final = pack(Kind.REFUSED, Refusal(code="busy"))


def source_of(peer: Peer) -> str:
    """Return what a peer's use of the host is counted by."""
    if peer.source:
        return peer.source
    return f"user {peer.uid}" if peer.uid is not None else peer.text.partition(" ")[0]


@dataclass(slots=True, eq=False)
class Visit:
    """A peer from its first byte to the end of its link."""

    link: Link
    source: str = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    seconds: float = 0.0  # for HELLO
    key: bytes = b""
    connection: Connection | None = None  # once it is a member

    def __post_init__(self) -> None:
        self.source = source_of(self.link.peer)
        task = asyncio.current_task()
        assert task is not None
        self.task = task

    @property
    def is_local(self) -> bool:
        return self.link.peer.uid == os.geteuid()

    def push_out(self) -> None:
        """End the visit, without the time that a closed link has to deliver the rest: its descriptor is needed."""
        if (connection := self.connection) is None:
            if hasattr(self.link, "linger"):
                self.link.linger = 0
        elif connection.member.cursor.at_border:
            with suppress(TransportError):
                self.link.send(_BUSY)
        self.task.cancel()


class Links:
    """The links of all rooms' members, but for the owner's and operators'."""

    def __init__(self) -> None:
        self._shares: Shares[Visit] = Shares()

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, visit: Visit, key: bytes, *, is_trusted: bool) -> None:
        """Count a link; at the bound of descriptors somebody gives way. Raises Refused if it is this one.

        Of the source that has most links, the newest link of the key that has most.
        """
        visit.key = key
        if not is_trusted:
            self._shares.add(visit.source, visit, key)
        if has_spare(RESERVE, 0 if is_trusted or visit.is_local else SEATS) or not self._shares:
            return
        _, keys = self._shares.heaviest(prefer=visit.source, exempt=self._exempt)
        most = [links for links in keys if len(links) == len(keys[-1])]
        if any(links[-1] is visit for links in most):
            self.leave(visit)
            raise Refused("busy")
        last = most[-1][-1]
        self.leave(last)
        text = "%s was dropped to make room for others: its key has most links, and its source too"
        _logger.warning(text, last.link.peer.text, extra={"source": last.source})
        last.push_out()

    def leave(self, visit: Visit) -> None:
        """Idempotent."""
        self._shares.remove(visit.source, visit, visit.key)

    @staticmethod
    def _exempt(source: str) -> int:
        return SEATS if source == f"user {os.geteuid()}" else 0


class Work:
    """Receives that completed no frame, by source. Bytes that come one by one cost us as much as whole frames do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid: dict[str, float] = {}  # until when each source has used what it may

    def charge(self, source: str) -> float:
        """Count one; return for how many seconds its sender must be left unread."""
        now, burst = self._clock(), LOST_BURST / LOST_RECEIVES
        if len(self._paid) > _SOURCES:
            self._paid = {source: paid for source, paid in self._paid.items() if paid > now - burst}
        paid = self._paid[source] = max(now - burst, self._paid.get(source, 0.0)) + 1 / LOST_RECEIVES
        return max(0.0, paid - now)
