"""How fast members may send, and how fast newcomers may come: limits that hold although keys are free.

    known key ───────────── its own bucket ────┐
    newcomer ─┐                                ├──▶ each read is charged; an empty bucket is not read from
    newcomer ─┴─ a bucket for their source ────┘

Rules:

1. A known key has one bucket in a room, for all its links and for its direct rooms. Owners, operators and programs of
   the host are known; so is a key that spoke here before the room was opened, and one that is in for an hour.
2. All newcomers from one source that came by one invite share a bucket. However many keys somebody makes, they send as
   much as one member, and newcomers from elsewhere lose nothing.
3. Nothing is dropped: an empty bucket means that its links are left unread. The one that has sent least is read first.
4. With ``--rate 0`` none of this applies.
"""

from __future__ import annotations

import asyncio
import os
import time
from heapq import heappop, heappush
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from chat.core.errors import Refused
from chat.core.ledger import BOT
from chat.core.wire import MAX_BATCH
from chat.host.slots import source_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from chat.core.room import Member
    from chat.transport import Peer

RATE: Final = 5_000  # messages a second that a bucket allows (--rate); beyond it its links are read more slowly
# bytes that count as one message, so 1 MB/s by default; beyond it links are read more slowly
BYTES_A_MESSAGE: Final = 200
LEAST_BYTES: Final = MAX_BATCH  # a second, however low the rate: one read must not close a shared bucket for long
BURST: Final = 1.0  # seconds of its rate that a quiet member may send at once; beyond it, it is read at its rate
# seconds for which a newcomer shares a bucket with others of its source and invite; then it has its own
KNOWN_AFTER: Final = 3600.0

# new keys by one invite from one source at once; more must come again later: ``newcomers``
NEWCOMERS_A_SOURCE: Final = 30
NEWCOMERS: Final = 120  # new keys by one invite, or by none in an open room; more must come again later: ``newcomers``
# seconds in which as many again may come; the refusal says how many are left: ``newcomers``
NEWCOMERS_SECONDS: Final = 60.0
# new outboxes of one key at once, each costs memory for ever; more must wait: ``too-many-streams``
NEW_STREAMS: Final = 256
# seconds in which a key may bring as many again; the refusal says how many are left: ``too-many-streams``
NEW_STREAMS_SECONDS: Final = 3600.0

PRIVILEGED: Final = frozenset({"owner", "operator"})  # roles that keep order, and that no flood of others may hinder


class Bucket:
    """What may be sent per second, by whoever shares it. It empties; then the links that want more take turns."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._bytes = max(rate * BYTES_A_MESSAGE, LEAST_BYTES)
        self.paid = 0.0  # when what was sent so far is paid for: a bucket whose time is in the future is empty
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: by how much was sent, then by arrival
        self._arrivals = count()
        self._served = 0  # the place of the link that had the last turn
        self._timer: asyncio.TimerHandle | None = None

    def is_empty(self, now: float) -> bool:
        return self.paid > now or bool(self._waiting)

    def charge(self, messages: int, size: int, now: float) -> None:
        """Take something out, more than there is if need be."""
        self.paid = max(self.paid, now - BURST) + max(messages / self.rate, size / self._bytes)

    async def turn(self, place: int, size: int) -> int:
        """Wait for a link's turn to have ``size`` more bytes handled; return its place for the next time.

        This is self-clocked fair queueing (Golestani, 1994): a link with little to send never waits for all that
        others have.
        """
        if not self.is_empty(time.monotonic()):
            return place
        place = max(place, self._served) + size
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (place, next(self._arrivals), turn))
        self._wake()
        await turn
        return place

    def _wake(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, self.paid - time.monotonic()), self._next)

    def _next(self) -> None:
        """Give the next link its turn, unless more was charged meanwhile. It is charged before this runs again."""
        self._timer = None
        while self._waiting and self._waiting[0][2].cancelled():
            heappop(self._waiting)
        if self._waiting and self.paid <= time.monotonic():
            self._served, _, turn = heappop(self._waiting)
            turn.set_result(None)
        self._wake()


class Allowance:
    """So many of something at once for each of those who ask, and as many again in ``seconds``."""

    def __init__(self, count: int, seconds: float) -> None:
        self._step, self._seconds = seconds / count, seconds
        self._paid: dict[Hashable, float] = {}  # for those who took some lately: when what they took is paid for

    def wait(self, who: Hashable) -> float:
        """Return in how many seconds there is one for them, 0.0 for now."""
        return max(0.0, self._paid.get(who, 0.0) + self._step - time.monotonic())

    def take(self, who: Hashable, count: int = 1) -> None:
        """Take one; with -1, give one back."""
        now = time.monotonic()
        self._paid[who] = max(self._paid.pop(who, 0.0), now - self._seconds) + count * self._step
        while (oldest := next(iter(self._paid))) != who and self._paid[oldest] <= now - self._seconds:
            del self._paid[oldest]


class Rates:
    """The buckets of one room and of its direct rooms. ``spoke``: the keys that have spoken here before."""

    def __init__(self, rate: int, spoke: Iterable[bytes] = ()) -> None:
        self._rate = rate
        self._known = set(spoke)
        self._since: dict[bytes, tuple[float, bytes]] = {}  # newcomers: when they came, and by which invite
        self._by_source = Allowance(NEWCOMERS_A_SOURCE, NEWCOMERS_SECONDS)
        self._by_invite = Allowance(NEWCOMERS, NEWCOMERS_SECONDS)
        self._streams = Allowance(NEW_STREAMS, NEW_STREAMS_SECONDS)
        self._buckets: WeakValueDictionary[tuple[object, ...], Bucket] = WeakValueDictionary()

    def came(self, key: bytes, peer: Peer, invite: bytes, *, is_new: bool) -> None:
        """Take note of a key that comes in, by an ``invite`` (b"" if it needs none). Raises Refused: too many do."""
        if is_new and self._rate and peer.uid != os.geteuid():
            who = source_of(peer), invite
            if wait := max(self._by_source.wait(who), self._by_invite.wait(invite)):
                raise Refused("newcomers", seconds=ceil(wait))
            self._by_source.take(who)
            self._by_invite.take(invite)
        if key not in self._known:
            self._since.setdefault(key, (time.monotonic(), invite))

    def newcomers(self) -> dict[bytes, bytes]:
        """Return the keys that are not known yet, and by which invite each came, b"" for none."""
        return {key: invite for key, (_since, invite) in self._since.items()}

    def new_stream(self, key: bytes) -> None:
        """Take note of a stream that the room does not know. Raises Refused if a key has too many of them."""
        if self._rate:
            if wait := self._streams.wait(key):
                raise Refused("too-many-streams", seconds=ceil(wait))
            self._streams.take(key)

    def unused_stream(self, key: bytes) -> None:
        """A new stream was forgotten, since it never spoke."""
        self._streams.take(key, -1)

    def is_known(self, key: bytes) -> bool:
        if key not in self._known:
            since, _ = self._since.get(key, (time.monotonic(), b""))
            if time.monotonic() < since + KNOWN_AFTER:
                return False
            self._known.add(key)
            self._since.pop(key, None)
        return True

    def bucket(self, member: Member, peer: Peer) -> Bucket | None:
        """Return the bucket that a member's link uses now, None without a limit."""
        if not self._rate:
            return None
        if member.role in PRIVILEGED or member.role == BOT or self.is_known(member.key):
            who: tuple[object, ...] = (member.key,)
        else:
            who = source_of(peer), self._since.get(member.key, (0.0, b""))[1]
        return self._buckets.get(who) or self._buckets.setdefault(who, Bucket(self._rate))


def keep_until_full(bucket: Bucket) -> None:
    """Keep a bucket that its last link may have left: who comes back at once must not find a full one."""
    if (left := bucket.paid + BURST - time.monotonic()) > 0:
        asyncio.get_running_loop().call_later(left, bucket.is_empty, 0.0)
