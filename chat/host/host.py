"""The host: an asyncio shell over the rooms. It listens, admits peers (``admission``) and serves its rooms
(``hosted_room``). Whatever a peer does wrong costs only its own link.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Direct, Notice, pack
from chat.core.errors import StoreFull
from chat.core.ledger import BOT
from chat.core.log import MAX_AHEAD, Log
from chat.core.loopguard import LIMIT
from chat.core.room import Room
from chat.core.wire import BEAT, MAX_CONTROL, SILENCE, STALL, Kind
from chat.host.admission import AdmissionControl
from chat.host.board import HostBoard
from chat.host.hosted_room import HostedRoom
from chat.host.rates import RATE
from chat.host.search import Index, OpenIndexes
from chat.host.slots import Work
from chat.local.identity import host_hash
from chat.local.invite import Invite, signer
from chat.transport import Address, Site
from chat.transport.registry import find

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from chat.core.sequencer import Sequencer
    from chat.host.store import Store
    from chat.local.identity import Identity
    from chat.transport import Link, Listener

# bytes of free disk (--min-free); below it, only owner and operators may write: ``disk-low``
MIN_FREE: Final = 64 * 1024 * 1024
POLL: Final = 0.5  # seconds between polls of the board, and as much more for every 100 members


def _wall_clock() -> float:
    """Return what the wall clock shows beyond the time since the machine started: it changes when somebody sets it."""
    # Not CLOCK_MONOTONIC where there is another: on Linux that one stands still while the machine sleeps.
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Host:
    """A host of one or more rooms, on any number of listeners at once.

    ``rate`` is in messages a second and member, 0 for no limit; ``bot_turns`` is how many turns programs may take
    among themselves, 0 for no limit. While the disk has less than ``min_free`` bytes, only owners and operators write.
    ``on_peer`` is called with the room and the text of the owner's ``/peer``, if it is set: it returns the name of the
    program that it started, or raises RequestFailed.
    """

    on_peer: Callable[[str, str], str] | None = None
    on_renewed: Callable[[str], None] = staticmethod(lambda _room: None)  # a room has another standing invite

    def __init__(
        self,
        identity: Identity,
        store: Store,
        *,
        owners: frozenset[bytes] = frozenset(),
        rate: int = RATE,
        bot_turns: int = LIMIT,
        min_free: int = MIN_FREE,
    ) -> None:
        self.identity = identity
        self.store = store
        self.rate = rate
        self.rooms: dict[str, HostedRoom] = {}
        self.disk = asyncio.Lock()  # held while a thread writes; a write from the loop waits for it
        self.commit_time = 0.0  # seconds, a running mean
        self.announced: set[tuple[str, bytes]] = set()  # direct rooms, and who was told of messages there and not come
        self.closed = False
        self.shows_users = False  # whether members on this machine are shown with their login names
        self.space = asyncio.Event()  # cleared while the disk has less free space than ``min_free``
        self.space.set()
        self.disk_low = Notice(code="disk-low", fields={"size": f"{min_free >> 20:,} MiB"})
        self._min_free = min_free
        self._clock = _wall_clock()
        self.owners = owners
        self._bot_turns = bot_turns
        self._listeners: dict[Listener, Site] = {}
        self.work = Work()
        self._admission = AdmissionControl(self)
        self._indexes = OpenIndexes()
        self._search_thread = ThreadPoolExecutor(1, "search")  # for the indexes of all rooms
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def open_room(
        self,
        name: str,
        *,
        open_to_all: bool = False,
        only: frozenset[bytes] = frozenset(),
        folder: Path | None = None,
        sequencer: Sequencer | None = None,
    ) -> HostedRoom:
        """Open a room from the store, which makes it if it is new.

        ``only``: the two keys of a direct room. ``folder``: where its board is to be, for members on this machine.
        A ``sequencer`` hands every batch of the order to ``HostedRoom.apply``; without one the room is its own.
        Raises StoreError, ChatError.
        """
        state = self.store.open_room(name)
        older = partial(self.store.read, state.id)
        log = Log(state.epoch, next_seq=state.next_seq, last_time=state.last_time, older=older)
        room = Room(
            name,
            log,
            state.tables,
            owners=frozenset() if only else self.owners,
            open_to_all=open_to_all,
            only=only,
            bot_turns=self._bot_turns,
            sequencer=sequencer,
        )
        index = Index(self.store.search_path(state.id), log, self._search_thread, self._indexes)
        hosted = self.rooms[name] = HostedRoom(self, room, state, index, HostBoard(room, folder))
        if only:  # direct rooms are many and small: a search indexes them
            hosted.on_stored = partial(self._announce_direct, hosted)
        else:
            room.add_invite(signer(state.invite).key)
            index.wake()
        return hosted

    def find_room(self, name: str) -> HostedRoom | None:
        """Return a room by its name, or without one the only room there is besides direct rooms."""
        if name:
            return self.rooms.get(name)
        listed = [hosted for hosted in self.rooms.values() if not hosted.room.only]
        return listed[0] if len(listed) == 1 else None

    def _announce_direct(self, direct: HostedRoom) -> None:
        """Tell each of the two who is not in their direct room that something was said there: once, until they come."""
        room = direct.room
        present = {member.key for member in direct.connections if not member.silent}
        absent = {key for key in room.only - present if (room.name, key) not in self.announced}
        for elsewhere in self.rooms.values():
            for member in elsewhere.connections:
                if member.key in absent and not elsewhere.room.only and member.cursor.control_size <= MAX_CONTROL:
                    (other,) = room.only - {member.key}
                    nick, read = elsewhere.room.nick_of(other), room.read_by(member.key)
                    news = Direct(room=room.name, other=other, nick=nick, next_seq=room.log.end, read=read)
                    member.post(pack(Kind.DIRECT, news))
                    self.announced.add((room.name, member.key))
                    elsewhere.wake()

    async def listen(self, address: Address, site: Site, room: str) -> Address:
        """Open a listener; return an address that can be dialled.

        A port that the system chose is asked for again the next time, so that invites survive a restart.
        Raises UnknownScheme, AddressError, ListenFailed.
        """
        number, asked = self.rooms[room].number, str(address)
        previous = self.store.address(number, asked)
        site = replace(site, previous=Address.parse(previous) if previous else None)
        listener = await find(address.scheme).listen(address, site)
        self._accept(listener, site)
        with suppress(StoreFull):  # a host on a full disk opens, and may get another port the next time
            self.store.remember_address(number, asked, str(listener.address))
        return listener.address

    def _accept(self, listener: Listener, site: Site) -> None:
        self._listeners[listener] = site
        self.start(self._admission.accept(listener))

    async def renew_listeners(self) -> None:
        """Listen again where a socket or FIFO was removed; links stay. Raises AddressError, ListenFailed."""
        for listener, site in list(self._listeners.items()):
            if not getattr(listener, "sound", lambda: True)():
                again = await find(listener.address.scheme).listen(listener.address, site)
                del self._listeners[listener]
                self._accept(again, site)
                await listener.aclose()

    def attach(self, room: str, link: Link, key: bytes) -> asyncio.Task[None]:
        """Attach a program of ours as a member by its key, labelled a bot. The task ends when it has left."""
        self.rooms[room].room.admit(key, BOT)
        return self.start(self._admission.serve(link, is_ours=True))

    def invite(self, room: str) -> Invite:
        """Return the room's standing invite: every address, many uses, the same after a restart."""
        return self.make_invite(room, self.rooms[room].invite)

    @property
    def advertised(self) -> tuple[Address, ...]:
        """Where others than this machine's own processes reach us."""
        return tuple(filter(None, (getattr(one, "advertised", one.address) for one in self._listeners)))

    def make_invite(self, room: str, secret: bytes, nick: str = "") -> Invite:
        # A path on this machine is of no use to others, unless there is nothing else.
        addresses = self.advertised or tuple(listener.address for listener in self._listeners)
        return Invite(addresses=addresses, room=room, host=host_hash(self.identity.key), secret=secret, nick=nick)

    async def run(self) -> None:
        """Serve until cancelled. Raises StoreError when the disk cannot be trusted any more."""
        self._check_space()
        self.start(self._watch())
        self.start(self._poll())
        await self._failed

    def start(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task; if it fails, so does the host."""
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the host with this error, unless it has failed already."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _poll(self) -> None:
        """Poll the boards for members that cannot see them; with more members, less often."""
        while True:
            members = sum(len(hosted.connections) for hosted in self.rooms.values())
            await asyncio.sleep(POLL + POLL * members / 100)
            self._check_clock()
            self._check_space()
            for hosted in list(self.rooms.values()):
                hosted.poll()
                if hosted.room.only and hosted.is_idle(time.monotonic()):
                    del self.rooms[hosted.room.name]
                    self.start(hosted.aclose())

    async def _watch(self) -> None:
        """Send beats to quiet members every 4 s; drop those silent for 12 s, not counting when we stood still."""
        beat = time.monotonic() + BEAT
        while True:
            wake = min(beat, SILENCE + min((hosted.heard() for hosted in self.rooms.values()), default=beat))
            await asyncio.sleep(wake - time.monotonic())
            now = time.monotonic()
            stood_still = now - wake if now - wake > STALL else 0.0
            for hosted in self.rooms.values():
                hosted.drop_silent(now, SILENCE, stood_still)
                if now >= beat:
                    hosted.beat()
            if now >= beat:
                beat = now + BEAT

    def _check_clock(self) -> None:
        """Tell the rooms if the clock was set forward. That it was set back, a room sees at its next message."""
        before, self._clock = self._clock, _wall_clock()
        if (ahead := int(self._clock - before)) * 1000 > MAX_AHEAD:
            self._announce(Notice(code="clock-ahead", fields={"seconds": ahead}))

    def _check_space(self) -> None:
        """Have members wait while there is little space left, and tell the rooms when that begins and ends."""
        free, limit = self.store.free_space(), self._min_free
        if self.space.is_set() and free < limit:
            self.space.clear()
            self._announce(self.disk_low)
        elif not self.space.is_set() and free >= limit + limit // 8:  # not on and off at the limit
            self.space.set()
            self._announce(Notice(code="disk-space"))

    def _announce(self, notice: Notice) -> None:
        for hosted in self.rooms.values():
            if not hosted.room.only:  # whoever is in a direct room is in another one, too
                hosted.announce(notice.code, **notice.fields)

    async def aclose(self) -> None:
        """Stop listening, store what was accepted, close all links."""
        self.closed = True
        for listener in self._listeners:
            await listener.aclose()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not close its link
        for hosted in self.rooms.values():
            await hosted.finish()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for hosted in self.rooms.values():
            await hosted.aclose()
        self._search_thread.shutdown()
