"""A member of a served room: its link, the task that reads it, and what it is sent.

Rules:

1. The host never waits for a member. A link that takes no more gets a task that waits for it.
2. A member that sends too fast, or while the disk lags behind, is not read for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chat.core.errors import StoreError, StoreFull, TransportError
from chat.core.ledger import BOT
from chat.core.wire import MAX_BATCH, SPOKEN_END, Kind
from chat.host import requests
from chat.host.rates import PRIVILEGED, Bucket
from chat.host.slots import source_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from chat.core.bodies import Refusal
    from chat.core.room import Member
    from chat.core.wire import Parser
    from chat.host.hosted_room import HostedRoom
    from chat.transport import Link

_logger: Final = logging.getLogger("chat.host.host")

# bytes for one member in one tick, so that catching up delays nobody else; the rest comes with the next
SEND_BUDGET: Final = 256 * 1024
BACKLOG: Final = 1024 * 1024  # bytes appended but not yet stored; beyond it members are not read


@dataclass(slots=True, eq=False)
class Connection:
    """A member, its link, and the task that reads it."""

    hosted: HostedRoom
    member: Member
    link: Link
    task: asyncio.Task[None]
    heard: float = field(default_factory=time.monotonic)  # infinity while we choose not to read
    clogged: asyncio.Task[None] | None = None  # waits until the link takes more
    searching: bool = False
    refusal: Refusal | None = None  # why the host has ended this link
    bucket: Bucket | None = None  # what it may send, together with others
    place: int = 0  # among those who wait for that bucket
    held: bool = False  # it said something, and must wait for space on the disk

    def __post_init__(self) -> None:
        self.bucket = self.hosted.rates.bucket(self.member, self.link.peer)

    async def receive(self, parser: Parser) -> None:
        """Feed the room until the member leaves. Raises RemoteProtocolError, TransportError."""
        hosted, is_bot = self.hosted, self.member.role == BOT
        room, guard = hosted.room, hosted.room.guard
        data, size = b"", len(parser.rest)  # the parser may hold what came right behind HELLO
        while True:
            while room.backlog > BACKLOG:
                hosted.drained.clear()
                await self.unread(hosted.drained.wait())
            if (bucket := self.bucket) is not None and bucket.is_empty(self.heard):
                bucket = self.bucket = hosted.rates.bucket(self.member, self.link.peer)  # it may be known by now
                assert bucket is not None
                await self.unread(self._turn(bucket, size or len(parser.rest)))
            most = guard.most if is_bot else bucket.rate if bucket is not None else sys.maxsize
            count = self._handle(parser, data, most)
            if count is None:
                return
            if bucket is not None:
                reads, room.disk_reads = room.disk_reads, 0
                bucket.charge(count, size + reads * MAX_BATCH, self.heard)
            if self.held:
                await self.unread(hosted.host.space.wait())
                data, size, self.held = b"", 0, False
                continue
            if data and not count and (seconds := hosted.host.work.charge(source_of(self.link.peer))):
                await self.unread(asyncio.sleep(seconds))  # bytes gather meanwhile
            if is_bot:
                await hosted.slow_loops(self)
            if count >= most:  # the parser may hold more
                data, size = b"", 0
                continue
            data = await self.link.receive()
            if not (size := len(data)):
                return

    async def _turn(self, bucket: Bucket, size: int) -> None:
        self.place = await bucket.turn(self.place, size)

    def _handle(self, parser: Parser, data: bytes, most: int) -> int | None:
        """Give the room at most ``most`` frames; the parser keeps the rest. Return how many, or None after a BYE."""
        hosted, member = self.hosted, self.member
        self.heard = time.monotonic()
        now = time.time_ns() // 1_000_000
        data, parser.rest = parser.rest + data, b""
        may_write = hosted.host.space.is_set() or member.role in PRIVILEGED
        try:
            count, size = hosted.room.take_run(member, data, now, most if may_write else 0)
            if count >= most:
                parser.rest = data[size:]
                return count
            with closing(parser.feed(data[size:])) as frames:  # the rest goes frame by frame
                for frame in frames:
                    if not may_write and 0 < frame.kind < SPOKEN_END:
                        self.held = True
                        break
                    count += 1
                    if frame.kind == Kind.BYE:
                        return None
                    if (question := hosted.room.handle(member, frame, now)) is not None:
                        requests.answer(self, question, frame.number)
                    if count >= most:
                        break
            if self.held:
                parser.rest = frame.raw + parser.rest
        finally:
            hosted.free_loops()
            hosted.wake()
        return count

    async def unread(self, wait: Awaitable[object]) -> None:
        """Leave the member unread for as long as ``wait`` takes. Its silence is not its own fault meanwhile."""
        self.heard = math.inf
        try:
            await wait
        finally:
            self.heard = time.monotonic()

    def send(self) -> None:
        """Send what the member lacks, as far as the link takes it, and at most the budget of one tick."""
        hosted, member, link = self.hosted, self.member, self.link
        log, roster = hosted.room.log, hosted.room.roster
        budget = SEND_BUDGET
        try:
            while data := member.pending(log, roster):
                count = link.send(data)
                member.cursor.advance(count)
                if count < len(data):
                    self.clogged = hosted.host.start(self._unclog())
                    return
                budget -= count
                if budget <= 0:
                    member.posted.add(member)
                    hosted.wake()
                    return
        except Exception as error:
            self._could_not_send(error)

    async def _unclog(self) -> None:
        try:
            await self.link.writable()
        except Exception as error:
            self._could_not_send(error)
            return
        self.clogged = None
        self.send()

    def _could_not_send(self, error: Exception) -> None:
        """Drop this member only, unless it is our own disk that cannot be read."""
        if isinstance(error, StoreError) and not isinstance(error, StoreFull):
            self.hosted.host.fail(error)
            return
        if not isinstance(error, TransportError | StoreFull):
            _logger.error("a fault of this program, or of the transport; please report it", exc_info=error)
        self.hosted.drop(self.member, str(error))
