"""A room that is served, and its members' links: it stores what members say, then sends it to everybody.

    a task per member:  link.receive ─▶ room.handle ─▶ log.append
    tick, once all that is ready has been read:  log.seal ─▶ store.commit (fsync) ─▶ log.publish ─▶ every cursor

Rules:

1. Batching has no timer: while a commit or a round of sends is under way, the next batch grows by itself.
2. Append, store, send: a tick sends nothing before the commit has returned.
3. The host never waits for a member (``connection``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Notice, Refusal, pack
from chat.core.errors import StoreError, StoreFull
from chat.core.wire import MAX_CONTROL, Kind, encode
from chat.host import moderation
from chat.host.bans import Bans
from chat.host.connection import Connection
from chat.host.invites import OWNER
from chat.host.rates import Rates, keep_until_full

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chat.core.ledger import RoomTables
    from chat.core.log import Batch
    from chat.core.room import Member, Room
    from chat.core.sequencer import Submission
    from chat.host.board import HostBoard
    from chat.host.host import Host
    from chat.host.search import Index
    from chat.host.store import RoomState
    from chat.transport import Link, Peer

_logger: Final = logging.getLogger("chat.host.host")

SLOW_COMMIT: Final = 0.002  # seconds; slower disks are written from a thread
_RETRY: Final = 1.0  # seconds between tries while the disk is full
NICK_GRACE: Final = 600.0  # seconds for which a nickname that never spoke is kept after its last link; then it is free
PRESENCE_PERIOD: Final = 0.25  # seconds for each thousand members; what happens after the burst waits for their end
PRESENCE_BURST: Final = 8  # pages on who came and left, in a period; in rooms of more than 25 fewer, at last one
IDLE: Final = 60.0  # seconds after which a direct room with nobody in it is closed; it opens again as somebody comes
ORDER_TIMEOUT: Final = 5.0  # seconds that a newcomer waits for the sequencer; then its link ends, and it dials again
_BEAT_FRAME: Final = encode(Kind.BEAT)
DISK_FULL: Final = pack(Kind.NOTICE, Notice(code="disk-full"))
_DISK_FREE: Final = pack(Kind.NOTICE, Notice(code="disk"))
_CLOSING: Final = pack(Kind.NOTICE, Notice(code="closing"))
_BOARD_FULL: Final = pack(Kind.NOTICE, Notice(code="board-full"))


class HostedRoom:
    """A room, its place on the disk, and the connections of its members."""

    def __init__(self, host: Host, room: Room, stored: RoomState, index: Index, board: HostBoard) -> None:
        self.host = host
        self.room = room
        self.number = stored.id
        self.invite = stored.invite
        self.index = index
        self.board = board
        self.bans = Bans(host.store, stored.id, room)
        self.rates = Rates(host.rate, room.speakers())
        self.opener = b""  # of a direct room: the key that has opened it
        self.used = time.monotonic()  # when somebody came or left last
        self.connections: dict[Member, Connection] = {}
        self.committing: asyncio.Task[None] | None = None
        self.full = b""  # the notice that members have been sent while the disk takes nothing
        self.retry: asyncio.TimerHandle | None = None  # nothing is committed before that
        self.drained = asyncio.Event()
        self.drained.set()
        self._applied = asyncio.Event()  # a batch of the order
        if room.submitter is not None:
            room.submitter.on_ordered = self.drained.set
        self.on_stored: Callable[[], None] = index.wake  # batches have been stored
        self._tick_due = False
        self._presence_told = 0  # the version of the roster
        self._tellings = 0  # how often members were told who came or left, in the current period
        self._told = (0, 0, 0)  # what everybody was sent last: the end of the log, versions of the roster and statuses
        self._departed = dict.fromkeys(room.unspoken(), time.monotonic())  # key, nickname: since when it is not here
        self._loop_told = 0.0  # the longest pause of its loop guard that the room has been told of
        self._person_spoke = asyncio.Event()

    # -- members ---------------------------------------------------------------------------------

    def attach(self, member: Member, link: Link) -> Connection:
        """Serve a member over its link from now on, in the current task."""
        task = asyncio.current_task()
        assert task is not None
        connection = self.connections[member] = Connection(self, member, link, task)
        self.bans.came(member.key, link.peer)
        if not self.board.claim(member):
            self._post(member, _BOARD_FULL)
        self.room.posted.add(member)  # a tick between WELCOME and now did not find it
        self.wake()
        return connection

    def detach(self, connection: Connection) -> None:
        """Forget a member, and let the others know."""
        member = connection.member
        self.room.leave(member)
        self.board.release(member)
        self.connections.pop(member, None)
        self.used = time.monotonic()
        self._departed.pop((member.key, member.nick), None)
        self._departed[member.key, member.nick] = self.used  # in order of time
        if connection.clogged is not None:
            connection.clogged.cancel()
        if connection.bucket is not None:
            keep_until_full(connection.bucket)
        if member.stream is not None and not self.room.has_stream(member.key, member.stream.id):
            self.rates.unused_stream(member.key)
        self.wake()

    def is_idle(self, now: float) -> bool:
        """Whether nobody is in the room, and nothing of it is left to be stored, for so long that it can be closed."""
        busy = self.connections or self.committing or self.retry or self.room.log.unpublished or self.room.changed
        return not busy and now >= self.used + IDLE

    def drop(self, member: Member, why: str = "") -> None:
        """End a member's task, which closes its link. Nothing more is sent to it."""
        connection = self.connections.pop(member, None)
        if connection is not None:
            if why:
                _logger.info("%s (%s) is gone: %s", member.nick or "a reader", connection.link.peer.text, why)
            connection.task.cancel()

    def expel(self) -> None:
        """End the links of those whom an operator has removed or banned, here and in direct rooms."""
        decisions, self.room.expelled = self.room.expelled, []
        told = {one.key: moderation.refusal(self, one, one.key) for one in decisions}
        banned = {one.key for one in decisions if one.role == "banned"}
        for hosted in [self, *(one for one in self.host.rooms.values() if one.room.only and banned)]:
            for connection in list(hosted.connections.values()):
                key, why = connection.member.key, None
                if key in (told if hosted is self else banned):
                    why = told[key]
                elif banned:
                    why = self.bans.refusal(key, connection.link.peer)
                if why is not None and connection.member.role != "owner":
                    connection.member.cursor.stop()
                    connection.refusal = why
                    hosted.drop(connection.member, why.text)

    def ban_of(self, key: bytes, peer: Peer) -> Refusal | None:
        """Return what somebody is told who may not be here; None if they may."""
        if self.room.role_of(key) == "banned":
            return moderation.refusal(self, None, key)
        return self.bans.refusal(key, peer)

    def heard(self) -> float:
        """Return when the most silent member was last heard, infinity if there is none."""
        return min((connection.heard for connection in self.connections.values()), default=math.inf)

    def drop_silent(self, now: float, silence: float, stood_still: float) -> None:
        """Drop members that have been silent for so many seconds, besides those in which this process stood still."""
        for connection in list(self.connections.values()):
            connection.heard += min(stood_still, max(0.0, now - connection.heard))
            if now >= connection.heard + silence:
                self.drop(connection.member, f"nothing was heard of it for {silence:g} s")

    def beat(self) -> None:
        """Send a beat to members with nothing else to read."""
        for member in self.board.beat():
            self._post(member, _BOARD_FULL)
        self.board.note_reads()
        if self.room.changed:
            self.wake()
        for connection in list(self.connections.values()):
            if connection.clogged is None and connection.member.cursor.at_border:
                connection.member.cursor.post(_BEAT_FRAME)
                connection.send()

    def poll(self) -> None:
        """Poll the board for members that cannot see it; submit again what the sequencer did not take.

        Nicknames under which nobody spoke are free again some time after their bearer left.
        """
        self.room.end_old(time.time_ns() // 1_000_000)
        self.bans.forget_old()
        while self._departed and (oldest := next(iter(self._departed.items())))[1] + NICK_GRACE <= time.monotonic():
            del self._departed[oldest[0]]
            self.room.release(*oldest[0])
        if self.room.changed:
            self.wake()
        if self.board.poll():
            self.wake()
        if (submitter := self.room.submitter) is not None:
            submitter.push()
            if submitter.error is not None:
                _logger.error("the sequencer of %s failed; trying again", self.room.name, exc_info=submitter.error)
                submitter.error = None

    def apply(self, batch: Sequence[Submission]) -> None:
        """Apply a batch of the order. A sequencer calls this, in the host's event loop."""
        self.room.apply(batch)
        self._applied.set()
        self.wake()

    async def in_order(self, holds: Callable[[], bool]) -> bool:
        """Wait until the order has brought what ``holds`` asks for; return False if that takes too long."""
        if self.room.submitter is None:
            return holds()
        with suppress(TimeoutError):
            async with asyncio.timeout(ORDER_TIMEOUT):
                while not holds():
                    self._applied.clear()
                    await self._applied.wait()
        return holds()

    def announce(self, code: str, for_owner: Notice | None = None, /, **fields: str | int) -> None:
        """Show everybody a notice. It is no message: later members do not see it.

        ``for_owner``: what the owner sees in its place.
        """
        notice = Notice(code=code, fields=fields)
        _logger.warning("%s", notice.text)
        packed, for_owners = pack(Kind.NOTICE, notice), pack(Kind.NOTICE, for_owner or notice)
        for member in self.connections:
            self._post(member, for_owners if member.role in OWNER else packed)
        self.wake()

    def _tell(self, notice: bytes) -> None:
        for member in self.connections:
            self._post(member, notice)

    def _post(self, member: Member, notice: bytes) -> None:
        if member.cursor.control_size <= MAX_CONTROL:  # a disk that fills up now and then must not fill the queue
            member.post(notice)

    async def slow_loops(self, connection: Connection) -> None:
        """Leave a program unread that answers another, for as long as the room's guard says."""
        pause = self.room.guard.pause
        if not pause:
            self._loop_told = 0.0
            return
        if self._loop_told == 0 or (pause == math.inf and self._loop_told < pause):
            self.announce("loop-muted" if pause == math.inf else "loop-slowed", nick=connection.member.nick)
        self._loop_told = pause
        self._person_spoke.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if pause == math.inf else pause):
                await connection.unread(self._person_spoke.wait())

    def free_loops(self) -> None:
        """Read programs again if a person has spoken."""
        if self._loop_told and not self.room.guard.pause:
            self._loop_told = 0.0
            self._person_spoke.set()

    # -- the tick --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have a tick as soon as all that is ready now has been read."""
        if not self._tick_due:
            self._tick_due = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        host = self.host
        if host.closed:
            return
        if self.room.expelled:
            self.expel()
        if back := self.room.log.went_back:
            self.room.log.went_back = 0
            self.announce("clock-back", seconds=back // 1000)
        if self.committing is None and self.retry is None:
            if host.commit_time < SLOW_COMMIT and not host.disk.locked():
                self._commit_now()
            elif self.room.log.unpublished or self.room.changed:
                self.committing = host.start(self._commit_in_thread())
        self._hold_presence()
        self._send_all()  # what is stored, also while a slow commit or a full disk keeps the rest back

    def _hold_presence(self) -> None:
        """Tell members of the first few who come or leave at once, and hold the roster for those who follow."""
        if (version := self.room.roster.version) > self._presence_told:
            self._presence_told = version
            self._tellings += 1
            members = max(1, len(self.connections))
            if self._tellings == 1:
                asyncio.get_running_loop().call_later(PRESENCE_PERIOD * max(1, members / 1000), self._release_presence)
            if self._tellings >= max(1, min(PRESENCE_BURST, 200 // members)):
                self.room.roster.hold()

    def _release_presence(self) -> None:
        self._tellings = 0
        if self.room.roster.release():
            self.wake()

    def _send_all(self) -> None:
        """Send what is new: to everybody, or, if it is nothing but frames to some alone, to these.

        So a thousand members who do not hear of it cost nothing when one joins or asks for something.
        """
        room, roster = self.room, self.room.roster
        news = room.log.end, roster.version, roster.statuses.version
        posted, all_told = list(room.posted), news == self._told
        room.posted.clear()
        self._told = news
        some = filter(None, map(self.connections.get, posted)) if all_told else self.connections.values()
        for connection in list(some):
            if connection.clogged is None:
                connection.send()

    def _commit_now(self) -> None:
        if self.room.log.unpublished or self.room.changed:
            batches, changes = self.room.log.seal(), self.room.take_changes()
            self._settle(batches, changes, self._write(batches, changes))

    async def _commit_in_thread(self) -> None:
        async with self.host.disk:
            batches, changes = self.room.log.seal(), self.room.take_changes()
            try:
                self._settle(batches, changes, await asyncio.to_thread(self._write, batches, changes))
            finally:
                self.committing = None
                self.wake()

    def _write(self, batches: list[Batch], changes: RoomTables) -> float | StoreError:
        """Commit, on whatever thread this runs; return how many seconds the disk took, or why it failed."""
        began = time.perf_counter()
        try:
            self.host.store.commit(self.number, batches, changes)
        except StoreError as error:
            return error
        return time.perf_counter() - began

    def _settle(self, batches: list[Batch], changes: RoomTables, outcome: float | StoreError) -> None:
        if isinstance(outcome, StoreError):
            self._not_committed(changes, outcome)
            return
        host = self.host  # a single very long commit, such as a checkpoint, does not make its disk slow
        host.commit_time += (min(outcome, 4 * SLOW_COMMIT) - host.commit_time) / 8
        for member in self.room.committed(batches, changes):
            self.drop(member, "it does not read which of its messages were rejected")
        if batches:
            self.on_stored()
        self.drained.set()
        if self.full:
            self.full = b""
            self._tell(_DISK_FREE)

    def _not_committed(self, changes: RoomTables, error: StoreError) -> None:
        self.room.give_back(changes)
        if not isinstance(error, StoreFull):
            self.host.fail(error)
            return
        if not self.full:
            why = error.words.fields.get("why")
            self.full = pack(Kind.NOTICE, Notice(code="disk-waits", fields={"why": str(why)})) if why else DISK_FULL
            _logger.error("%s", error)
            self._tell(self.full)
        self.retry = asyncio.get_running_loop().call_later(_RETRY, self._retry)

    def _retry(self) -> None:
        self.retry = None
        self.wake()

    async def aclose(self) -> None:
        """Close what the room has open."""
        await self.index.aclose()
        self.board.close()

    async def finish(self) -> None:
        """Store what was accepted, say that we close, and send what the links take. The last tick of a host."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        if self.committing is not None:
            await asyncio.wait([self.committing])
        self.board.note_reads()
        self._commit_now()
        self._tell(_CLOSING)
        self._send_all()
