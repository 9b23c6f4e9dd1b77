"""One member's link, as the host drives it: frames in, bytes out.

The host never waits for a member. A link that takes no more gets a task that waits for it; a member that sends
too fast, or while the disk lags behind, is not read for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from chat.core.errors import StoreError, TransportError
from chat.core.room import BOT
from chat.core.wire import Kind
from chat.host import requests

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from chat.core.room import Member
    from chat.core.wire import Parser
    from chat.host.hosted_room import HostedRoom
    from chat.transport import Link

_logger: Final = logging.getLogger("chat.host.host")

SEND_BUDGET: Final = 256 * 1024  # bytes for one member in one tick, so that catching up delays nobody else
BACKLOG: Final = 1024 * 1024  # bytes appended but not yet stored, above which members are not read


class Connection:
    """A member, its link, and the task that reads it."""

    __slots__ = ("clogged", "heard", "hosted", "link", "member", "searching", "task")

    def __init__(self, hosted: HostedRoom, member: Member, link: Link, task: asyncio.Task[None]) -> None:
        self.hosted = hosted
        self.member = member
        self.link = link
        self.task = task
        self.heard = time.monotonic()  # infinity while we choose not to read
        self.clogged: asyncio.Task[None] | None = None  # waits until the link takes more
        self.searching = False

    # -- receiving -------------------------------------------------------------------------------

    async def receive(self, parser: Parser) -> None:
        """Feed the room until the member leaves. Raises RemoteProtocolError, TransportError."""
        hosted, is_bot = self.hosted, self.member.role == BOT
        room, guard, rate = hosted.room, hosted.room.guard, hosted.host.rate
        tokens, filled = float(rate), time.monotonic()
        data = b""  # the parser may hold what came right behind HELLO
        while True:
            while room.backlog > BACKLOG:
                hosted.drained.clear()
                await self.unread(hosted.drained.wait())
            most = guard.most if is_bot else sys.maxsize
            count = self._handle(parser, data, most)
            if count is None:
                return
            if rate:
                tokens = min(rate, tokens + (self.heard - filled) * rate) - count
                filled = self.heard
                if tokens < 0:
                    await self.unread(asyncio.sleep(-tokens / rate))
            if is_bot:
                await hosted.slow_loops(self)
                if count >= most:  # the parser may hold more
                    data = b""
                    continue
            data = await self.link.receive()
            if not data:
                return

    def _handle(self, parser: Parser, data: bytes, most: int) -> int | None:
        """Give what came to the room; return how many frames there were, or None after a BYE.

        After ``most`` frames the parser keeps the rest until the next call.
        """
        hosted, member = self.hosted, self.member
        self.heard = time.monotonic()
        now = time.time_ns() // 1_000_000
        data, parser.rest = parser.rest + data, b""
        try:
            count, size = hosted.room.take_run(member, data, now, most)  # the rest goes frame by frame
            if count >= most:
                parser.rest = data[size:]
                return count
            with closing(parser.feed(data[size:])) as frames:
                for frame in frames:
                    count += 1
                    if frame.kind == Kind.BYE:
                        return None
                    if (question := hosted.room.handle(member, frame, now)) is not None:
                        requests.answer(self, question, frame.number)
                    if count >= most:
                        break
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

    # -- sending ---------------------------------------------------------------------------------

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
        if isinstance(error, StoreError):
            self.hosted.host.fail(error)
            return
        if not isinstance(error, TransportError):
            _logger.error("a fault of this program, or of the transport; please report it", exc_info=error)
        self.hosted.drop(self.member, str(error))
