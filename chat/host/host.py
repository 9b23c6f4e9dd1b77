"""The host: an asyncio shell over the rooms. It accepts links, feeds frames in and the log's bytes out.

    receive task per member:  link.receive -> parser -> room.handle -> log.append
                                                                          |   one tick after all that is
                                                                          v   ready has been read
    tick:                      log.seal -> store.commit (fsync) -> log.publish -> the same bytes to every cursor

Rules:

1. The host never waits for a member. One that can take no more gets a task that waits for its link; the
   others are connection in a plain loop.
2. Batching has no timer: while a commit or a round of sends is under way, the next batch grows by itself.
3. Append, store, send: a tick sends nothing before the commit has returned.
4. Whatever a peer does wrong costs it its own link and one line in the host's log.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chat.core.errors import (
    ChatError,
    LinkClosed,
    NoSuchRoom,
    Refused,
    RemoteProtocolError,
    StoreError,
    StoreFull,
    TransportError,
)
from chat.core.log import Log
from chat.core.loopguard import LIMIT
from chat.core.room import BOT, Room
from chat.core.wire import (
    BEAT,
    HELLO_TIMEOUT,
    MAX_CONTROL,
    MAX_FRAME,
    MAX_HELLO,
    PREFACE,
    SILENCE,
    Answer,
    Ask,
    Challenge,
    Direct,
    Frame,
    Hello,
    Kind,
    Notice,
    Parser,
    Refusal,
    Welcome,
    direct_name,
    encode,
    pack,
    unpack,
)
from chat.host.board import HostBoard
from chat.host.search import Index, SearchError
from chat.host.store import Store, StoredInvite
from chat.local.identity import Identity, host_hash, transcript, verify
from chat.local.invite import Invite
from chat.transport import Address, Site, find

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.log import Batch
    from chat.core.room import Member, RoomChanges
    from chat.host.programs import Forked
    from chat.transport import Link, Listener, Peer

_logger: Final = logging.getLogger("chat.host.host")

MAX_UNAUTHENTICATED: Final = 64  # links that have not said HELLO, at most
SERVE_BUDGET: Final = 256 * 1024  # bytes for one member in one tick, so that one that catches up delays nobody
BACKLOG: Final = 1024 * 1024  # bytes appended but not yet stored, above which members are not read
SLOW_COMMIT: Final = 0.002  # seconds; slower disks are written from a thread
RATE: Final = 5_000  # frames a second that a member may send for long; faster ones are read more slowly
MAX_LINKS_A_KEY: Final = 128  # of one key in one room: each takes a descriptor and a slot of the board from the others
MAX_DIRECT_ROOMS: Final = 256  # direct rooms of one key that may be open at a time
_DIRECT_LISTED: Final = 24  # of which a member is told when it comes in: as many as fit into its lane
LOOK: Final = 0.5  # seconds between looks at the board, and as much more for every 100 members
_RETRY: Final = 1.0  # seconds between tries while the disk is full
_LINGER: Final = 2.0  # seconds that a refused peer has to read why
_BEAT_FRAME: Final = encode(Kind.BEAT)
_DISK_FULL: Final = pack(
    Kind.NOTICE, Notice(code="disk-full", text="the host's disk is full; what you say waits until it has room")
)
_BOARD_FULL: Final = pack(
    Kind.NOTICE,
    Notice(code="board-full", text="nobody can see your state: the room's board is full, and you are not on it"),
)
_DISK_FREE: Final = pack(Kind.NOTICE, Notice(code="disk", text="the host's disk has room again; what waited is stored"))


class Connection:
    """A member as the host sees it: its link, its task, when it was last heard, and what it waits for."""

    __slots__ = ("clogged", "heard", "link", "member", "searching", "task")

    def __init__(self, member: Member, link: Link, task: asyncio.Task[None], now: float) -> None:
        self.member = member
        self.link = link
        self.task = task
        self.heard = now  # infinity while it is the host that does not listen
        self.clogged: asyncio.Task[None] | None = None
        self.searching = False


class HostedRoom:
    """A room with its place on the disk and the links of its members."""

    def __init__(self, room: Room, number: int, invite: bytes, index: Index, board: HostBoard) -> None:
        self.room = room
        self.index = index
        self.board = board
        self.number = number
        self.invite = invite
        self.connections: dict[Member, Connection] = {}
        self.tick_due = False
        self.committing: asyncio.Task[None] | None = None
        self.full = False  # the disk is; members have been told
        self.retry: asyncio.TimerHandle | None = None  # nothing is committed before that
        self.drained = asyncio.Event()
        self.drained.set()
        self.loop_told = 0.0  # the longest pause of its loop guard that the room has been told of
        self.person_spoke = asyncio.Event()


class Host:
    """A host of one or more rooms, on any number of listeners at once.

    ``rate`` is in frames a second and member, 0 for no limit; ``bot_turns`` is how many turns programs may take
    among themselves, 0 for no limit. ``on_peer`` is called with what the owner's ``/peer`` says, if it is set:
    it returns a line for people, or raises ChatError.
    """

    on_peer: Callable[[str], str] | None = None

    def __init__(
        self, identity: Identity, store: Store, *, owner: bytes = b"", rate: int = RATE, bot_turns: int = LIMIT
    ) -> None:
        self.identity = identity
        self.rooms: dict[str, HostedRoom] = {}
        self._store = store
        self._owner = owner
        self._rate = rate
        self._bot_turns = bot_turns
        self._hash = host_hash(identity.key)
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._unauthenticated: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(
            MAX_UNAUTHENTICATED
        )  # a place for each stranger, and for each listener that waits
        self._commit_time = 0.0  # seconds, a running mean
        self._disk = asyncio.Lock()  # held while a thread writes; whoever writes in the loop waits for it
        self._searching = ThreadPoolExecutor(1, "search")  # one thread for the indexes of all rooms
        self._closed = False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- opening ---------------------------------------------------------------------------------

    def open_room(
        self,
        name: str,
        *,
        open_to_all: bool = False,
        only: frozenset[bytes] = frozenset(),
        folder: Path | None = None,
    ) -> HostedRoom:
        """Open a room from the store, made there when it is new.

        ``only``: a direct room. ``folder``: where its board is to be, for the members on this machine. Raises
        StoreError, ChatError.
        """
        state = self._store.open_room(name)
        number = state.id
        log = Log(
            state.epoch,
            next_seq=state.next_seq,
            last_time=state.last_time,
            older=lambda seq: self._store.read(number, seq),
        )
        room = Room(
            name,
            log,
            owner=b"" if only else self._owner,
            open_to_all=open_to_all,
            only=only,
            authors=state.authors,
            marks=state.marks,
            nicks=state.nicks,
            members=state.members,
            reads=state.reads,
            bot_turns=self._bot_turns,
        )
        index = Index(self._store.search_path(number), log, self._searching)
        hosted = self.rooms[name] = HostedRoom(room, number, state.invite, index, HostBoard(room, folder))
        if not only:  # direct rooms are many, and small: they are indexed when somebody searches
            hosted.index.wake()
        return hosted

    async def listen(self, address: Address, site: Site, room: str) -> Address:
        """Open a listener; return an address that can be dialled.

        A port that the system chose is asked for again the next time, so that invites survive a restart.
        Raises UnknownScheme, AddressError, ListenFailed.
        """
        number, asked = self.rooms[room].number, str(address)
        previous = self._store.address(number, asked)
        listener = await find(address.scheme).listen(
            address, replace(site, previous=Address.parse(previous) if previous else None)
        )
        self._listeners.append(listener)
        self._start(self._accept(listener))
        self._store.remember_address(number, asked, str(listener.address))
        return listener.address

    def invite(self, room: str) -> Invite:
        """The room's standing invite: every address, many uses, the same after a restart."""
        return self._make_invite(room, self.rooms[room].invite)

    def _make_invite(self, room: str, secret: bytes) -> Invite:
        advertised = [getattr(listener, "advertised", listener.address) for listener in self._listeners]
        # Who comes from elsewhere has no use for a path of this machine, unless there is nothing else.
        addresses = tuple(filter(None, advertised)) or tuple(listener.address for listener in self._listeners)
        return Invite(addresses=addresses, room=room, host=self._hash, secret=secret)

    def attach(self, room: str, link: Link, key: bytes) -> asyncio.Task[None]:
        """Meet a program that was started here, over the link it was given: as a member by its key, with a label.

        The task ends when the program has left.
        """
        self.rooms[room].room.admit(key, BOT)
        return self._start(self._peer(link))

    def announce(self, room: str, code: str, text: str) -> None:
        """Show everybody in the room a line. It is no message: who comes later does not see it."""
        hosted = self.rooms[room]
        _logger.warning("%s", text)
        self._tell(hosted, pack(Kind.NOTICE, Notice(code=code, text=text)))
        self._wake(hosted)

    @staticmethod
    def fork(
        function: Callable[[Client], Awaitable[None]], *, name: str, room: str, host: Identity, folder: Path
    ) -> Forked:
        """Fork a peer that runs ``function``, before there is a host; ``chat.host.programs`` adopts it."""
        from chat.host.programs import fork

        return fork(function, name=name, room=room, host=host, folder=folder)

    async def run(self) -> None:
        """Serve until cancelled. Raises StoreError when the disk cannot be trusted any more."""
        self._start(self._watch())
        self._start(self._look())
        await self._failed

    async def aclose(self) -> None:
        """Stop listening, store what was accepted, close all links."""
        self._closed = True
        for listener in self._listeners:
            await listener.aclose()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not close its link
        for hosted in self.rooms.values():
            if hosted.retry is not None:
                hosted.retry.cancel()
                hosted.retry = None
            if hosted.committing is not None:
                await asyncio.wait([hosted.committing])
            hosted.board.note_reads()
            self._commit_now(hosted)
            self._serve_all(hosted)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for hosted in self.rooms.values():
            await hosted.index.aclose()
            hosted.board.close()
        self._searching.shutdown()

    def _start(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    # -- one peer --------------------------------------------------------------------------------

    async def _accept(self, listener: Listener) -> None:
        while True:
            await self._places.acquire()  # who comes beyond that waits with the listener
            link = await self._next(listener)
            if link is None:
                return
            if self._closed:
                await _close(link)
            else:
                self._unauthenticated.add(self._start(self._peer(link)))

    async def _next(self, listener: Listener) -> Link | None:
        """Return the next peer's link, None when the listener has been closed."""
        while True:
            try:
                return await listener.accept()
            except LinkClosed:
                return None
            except (TransportError, OSError) as error:
                _logger.warning("cannot accept on %s: %s", listener.address, error)
                await asyncio.sleep(_RETRY)  # usually out of descriptors: those in the room go on meanwhile

    def _release_place(self, task: asyncio.Task[None]) -> None:
        """One less at the door: it was let in, or it has gone. A second time does nothing."""
        if task in self._unauthenticated:
            self._unauthenticated.remove(task)
            self._places.release()

    async def _peer(self, link: Link) -> None:
        """Everything between one peer's coming and its going."""
        where = link.peer.text
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._meet(link, task)
        except RemoteProtocolError as error:
            _logger.warning("%s was dropped: %s", where, error)
            await self._refuse(link, Refusal(code="protocol", message=str(error)))
        except Refused as error:
            _logger.warning("%s was refused: %s", where, error)
            await self._refuse(link, Refusal(code=error.code, message=str(error)))
        except TimeoutError:
            _logger.warning("%s was dropped: it did not say HELLO within %g s", where, HELLO_TIMEOUT)
        except TransportError as error:
            _logger.info("%s is gone: %s", where, error)
        except asyncio.CancelledError:
            pass  # by us; to keep it would make a cycle of this task, its traceback and all that the peer had
        except StoreError as error:
            self._fail(error)
        except Exception:
            # A fault of ours that one peer met must not end the room for the others.
            _logger.exception("%s was dropped by a fault of this program; please report it", where)
        finally:
            self._release_place(task)
            await _close(link)

    async def _refuse(self, link: Link, refusal: Refusal) -> None:
        """Say why, and give the peer a moment to read it: closing on unread input would destroy it."""
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(_LINGER):
                await _send_all(link, pack(Kind.REFUSED, refusal))
                while await link.receive():
                    pass

    async def _meet(self, link: Link, task: asyncio.Task[None]) -> None:
        parser = Parser(limit=MAX_HELLO)
        nonce = secrets.token_bytes(32)
        async with asyncio.timeout(HELLO_TIMEOUT):
            await _send_all(link, PREFACE + pack(Kind.CHALLENGE, Challenge(key=self.identity.key, nonce=nonce)))
            hello = await _first_frame(link, parser)
        if hello is None:
            return  # it only looked, as port scanners and health checks do
        hosted, member = await self._let_in(hello, nonce)
        connection = hosted.connections[member] = Connection(member, link, task, time.monotonic())
        if not hosted.board.claim(member):
            self._tell_board_full(member)
        self._wake(hosted)
        self._release_place(task)
        parser.limit = MAX_FRAME
        try:
            await self._listen_to(hosted, connection, parser)
        except RemoteProtocolError as error:
            if member.cursor.at_border:
                raise
            # A refusal now would be read as the rest of what is half sent, and shown as somebody's message.
            _logger.warning("%s was dropped: %s", link.peer.text, error)
        finally:
            self._detach(hosted, connection)

    async def _let_in(self, frame: Frame, nonce: bytes) -> tuple[HostedRoom, Member]:
        if frame.kind != Kind.HELLO:
            raise RemoteProtocolError(f"the peer began with a frame of kind {frame.kind} instead of HELLO")
        hello = unpack(Hello, frame)
        hosted = self.rooms.get(hello.room)
        if not hello.room and len(listed := [hosted for hosted in self.rooms.values() if not hosted.room.only]) == 1:
            (hosted,) = listed  # an address without a room means the only one
        if len(hello.key) != 32 or len(hello.nonce) != 32:
            raise RemoteProtocolError("the peer sent a HELLO whose key or nonce has the wrong size")
        said, proof = (
            transcript(
                role,
                host=self.identity.key,
                room=hello.room,
                host_nonce=nonce,
                nonce=hello.nonce,
                key=hello.key,
            )
            for role in ("member", "host")
        )
        if not verify(hello.key, hello.signature, said):
            raise RemoteProtocolError("the peer's signature does not fit its key")
        if hosted is None and hello.other:
            hosted = self._open_direct(hello)
        if hosted is None:
            raise NoSuchRoom("this host keeps no room {room!r}; ask its owner for an invite", room=hello.room)
        invite = self._find_invite(hosted, hello, said)
        if invite is None or invite.uses < 0:
            return hosted, self._enter(hosted, hello, proof)
        async with self._disk:  # its use is written now: while a thread writes, everybody would wait with us
            self._find_invite(hosted, hello, said)  # another may have used it up meanwhile
            return hosted, self._enter(hosted, hello, proof, invite)

    def _open_direct(self, hello: Hello) -> HostedRoom:
        """Open the room of two who share another room here. Raises RemoteProtocolError, Refused, StoreError."""
        if len(hello.other) != 32 or hello.other == hello.key or hello.room != direct_name(hello.key, hello.other):
            raise RemoteProtocolError("the peer asked for a direct room whose name does not fit its two keys")
        rooms = self.rooms.values()
        if not any(
            hosted.room.knows(hello.key) and hosted.room.knows(hello.other) for hosted in rooms if not hosted.room.only
        ):
            raise NoSuchRoom("you share no room with that key on this host")
        if sum(hello.key in hosted.room.only for hosted in rooms) >= MAX_DIRECT_ROOMS:
            raise Refused(
                "busy", "{count} direct rooms of yours are open on this host; it opens no more", count=MAX_DIRECT_ROOMS
            )
        try:
            hosted = self.open_room(hello.room, only=frozenset((hello.key, hello.other)))
        except StoreFull:
            raise Refused("disk-full", "the host's disk is full, so no new room can be opened; try again") from None
        for key in hosted.room.only:  # so that each finds it when it comes the next time
            hosted.room.admit(key)
        return hosted

    def _enter(self, hosted: HostedRoom, hello: Hello, proof: bytes, counted: StoredInvite | None = None) -> Member:
        theirs = [member for member in hosted.room.members if member.key == hello.key]
        if len(theirs) >= MAX_LINKS_A_KEY and not any(one.stream and one.stream.id == hello.stream for one in theirs):
            raise Refused("busy", f"your key has {MAX_LINKS_A_KEY} links to this room already; leave with one of them")
        entry = hosted.room.enter(hello)
        member = entry.member
        if counted is not None:
            try:
                self._store.use_invite(hosted.number, counted.secret)
            except StoreError as error:
                hosted.room.leave(member)
                if isinstance(error, StoreFull):
                    raise Refused("disk-full", "the host's disk is full, so nobody new may enter; try again") from None
                raise
        hosted.room.admit(hello.key)
        member.cursor.post(
            pack(
                Kind.WELCOME,
                Welcome(
                    room=hosted.room.name,
                    epoch=hosted.room.log.epoch,
                    next_seq=hosted.room.log.end,
                    start=entry.start,
                    show=entry.show,
                    nick=member.nick,
                    first_unsettled=entry.first_unsettled,
                    settled_at=entry.settled_at,
                    proof=self.identity.sign(proof),
                    rewound=entry.rewound,
                    role=member.role,
                    read=entry.read,
                ),
            )
        )
        if names := hosted.room.speakers():
            member.cursor.post(names)
        if hosted.full:
            member.cursor.post(_DISK_FULL)
        if not hosted.room.only and not member.silent:
            for name, other, next_seq, read in self._store.direct_rooms(member.key, _DIRECT_LISTED):
                member.cursor.post(_direct(name, other, hosted.room.nick_of(other), next_seq, read))
        if entry.replaced is not None:
            self._drop(hosted, entry.replaced)
        return member

    def _find_invite(self, hosted: HostedRoom, hello: Hello, said: bytes) -> StoredInvite | None:
        """Return the invite by which this peer may enter, None where it needs none. Raises Refused."""
        if hosted.room.may_enter(hello.key):
            return None
        if hosted.room.only:
            raise Refused("not-invited", "a direct room is for its two members alone")
        if not hello.invite:
            raise Refused(
                "not-invited", "room {room} is by invite only; ask a member for an invite", room=hosted.room.name
            )
        for invite in (StoredInvite(hosted.invite, 0, -1), *self._store.invites(hosted.number)):
            made = self._make_invite(hosted.room.name, invite.secret)
            if made.id != hello.invite or not hmac.compare_digest(made.mac(said), hello.invite_mac):
                continue
            if invite.expires and _now() >= invite.expires:
                raise Refused("invite-expired", "this invite has expired; ask for a new one")
            if invite.uses == 0:
                raise Refused("invite-used", "this invite has been used up; ask for a new one")
            return invite
        raise Refused("wrong-invite", "this invite does not open room {room}; ask for a new one", room=hosted.room.name)

    async def _listen_to(self, hosted: HostedRoom, connection: Connection, parser: Parser) -> None:
        """Feed the room until the member leaves. Raises RemoteProtocolError, TransportError."""
        rate = self._rate
        tokens, filled = float(rate), time.monotonic()
        data = b""  # something may have come right behind HELLO, and the parser has it
        while True:
            while hosted.room.log.unpublished > BACKLOG:
                hosted.drained.clear()
                await _without(connection, hosted.drained.wait())
            most = hosted.room.guard.most if connection.member.role == BOT else sys.maxsize
            count = self._handle(hosted, connection, parser, data, most)
            if count is None:
                return
            if rate:
                tokens = min(rate, tokens + (connection.heard - filled) * rate) - count
                filled = connection.heard
                if tokens < 0:
                    await _without(connection, asyncio.sleep(-tokens / rate))
            if connection.member.role == BOT:
                await self._slow_loops(hosted, connection)
                if count >= most:  # there may be more of what came
                    data = b""
                    continue
            data = await connection.link.receive()
            if not data:
                return

    async def _slow_loops(self, hosted: HostedRoom, connection: Connection) -> None:
        """Leave a program unread that answers another, for as long as the room's guard says."""
        pause = hosted.room.guard.pause
        if not pause:
            hosted.loop_told = 0.0
            return
        if hosted.loop_told == 0 or (pause == math.inf and hosted.loop_told < pause):
            what = "they are muted until a person speaks" if pause == math.inf else "they are slowed down"
            self.announce(
                hosted.room.name,
                "loop",
                f"{connection.member.nick} and others are programs that answer each other; {what}",
            )
        hosted.loop_told = pause
        hosted.person_spoke.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if pause == math.inf else pause):
                await _without(connection, hosted.person_spoke.wait())

    def _handle(self, hosted: HostedRoom, connection: Connection, parser: Parser, data: bytes, most: int) -> int | None:
        """Give what came to the room; return how many frames there were, or None after a BYE.

        After ``most`` of them the parser keeps the rest, until this is called again.
        """
        connection.heard = time.monotonic()
        now, data = _now(), parser.take_rest() + data
        try:
            count, size = hosted.room.take_run(connection.member, data, now, most)  # the rest goes frame by frame
            if count >= most:
                parser.hold(data[size:])
                return count
            with closing(parser.feed(data[size:])) as frames:
                for frame in frames:
                    count += 1
                    if frame.kind == Kind.BYE:
                        return None
                    if (question := hosted.room.handle(connection.member, frame, now)) is not None:
                        answer = self._answer(hosted, connection, question, frame.number)
                        if answer is not None:
                            connection.member.cursor.post(pack(Kind.ANSWER, answer, number=frame.number))
                    if count >= most:
                        break
        finally:
            if hosted.loop_told and not hosted.room.guard.pause:
                hosted.loop_told = 0.0
                hosted.person_spoke.set()
            self._wake(hosted)
        return count

    def _answer(self, hosted: HostedRoom, connection: Connection, ask: Ask, number: int) -> Answer | None:
        """Return the answer to question ``number``, or None where it comes later."""
        if ask.what == "search":
            if connection.searching:  # or one member could keep the thread busy for all
                return Answer(error="your last search still runs; wait for its answer")
            connection.searching = True
            self._start(self._search(hosted, connection, ask, number))
            return None
        if ask.what not in {"invite", "peer"}:
            return Answer(error=f"this host cannot answer {ask.what!r}; is it older than you?")
        if connection.member.role != "owner":
            return Answer(error=f"only the room's owner may ask for that ({ask.what})")
        if ask.what == "peer":
            return self._start_peer(connection.link.peer, ask.text)
        if not ask.uses and not ask.seconds:
            return Answer(text=str(self.invite(hosted.room.name)))
        expires = _now() + ask.seconds * 1000 if ask.seconds else 0
        invite = StoredInvite(secrets.token_bytes(16), expires, ask.uses or -1)
        try:
            self._store.add_invite(hosted.number, invite)
        except StoreFull:
            return Answer(error="the host's disk is full, so it cannot keep a new invite; try again")
        return Answer(text=str(self._make_invite(hosted.room.name, invite.secret)))

    def _start_peer(self, peer: Peer, command: str) -> Answer:
        # It runs a command as the host's user. A key may have been stolen; that the kernel vouches for the user of
        # the process at the other end means that whoever asks could run it without us.
        if peer.uid != os.geteuid():
            return Answer(error="programs are started from a seat on the host's own machine, over a local transport")
        if self.on_peer is None:
            return Answer(error="this host starts no programs")
        try:
            return Answer(text=self.on_peer(command))
        except ChatError as error:
            return Answer(error=str(error))

    async def _search(self, hosted: HostedRoom, connection: Connection, ask: Ask, number: int) -> None:
        try:
            found = await hosted.index.find(ask.text, before=ask.before, limit=ask.limit or 20)
            answer = Answer(found=list(found.hits), more=found.more, indexed=found.indexed)
        except SearchError as error:
            answer = Answer(error=str(error))
        finally:
            connection.searching = False
        if connection.member in hosted.connections:
            connection.member.cursor.post(pack(Kind.ANSWER, answer, number=number))
            self._wake(hosted)

    # -- what members show of themselves ---------------------------------------------------------

    async def _look(self) -> None:
        """Look at the boards now and then, and tell those who cannot: only the newest, and only what changed."""
        while True:
            members = sum(len(hosted.connections) for hosted in self.rooms.values())
            await asyncio.sleep(LOOK + LOOK * members / 100)  # who are many are told less often
            for hosted in self.rooms.values():
                if hosted.board.look():
                    self._wake(hosted)

    def _note_reads(self, hosted: HostedRoom) -> None:
        hosted.board.note_reads()
        if hosted.room.changed:
            self._wake(hosted)

    def _tell_board_full(self, member: Member) -> None:
        if member.cursor.control_size <= MAX_CONTROL:
            member.cursor.post(_BOARD_FULL)

    def _detach(self, hosted: HostedRoom, connection: Connection) -> None:
        hosted.room.leave(connection.member)
        hosted.board.release(connection.member)
        hosted.connections.pop(connection.member, None)
        if connection.clogged is not None:
            connection.clogged.cancel()
        self._wake(hosted)  # the others are told

    def _drop(self, hosted: HostedRoom, member: Member, why: str = "") -> None:
        """End a member's task, which closes its link. Nothing is sent to it any more."""
        connection = hosted.connections.pop(member, None)
        if connection is not None:
            if why:
                _logger.info("%s (%s) is gone: %s", member.nick or "a reader", connection.link.peer.text, why)
            connection.task.cancel()

    # -- the tick --------------------------------------------------------------------------------

    def _wake(self, hosted: HostedRoom) -> None:
        """Have a tick as soon as all that is ready now has been read."""
        if not hosted.tick_due:
            hosted.tick_due = True
            asyncio.get_running_loop().call_soon(self._tick, hosted)

    def _tick(self, hosted: HostedRoom) -> None:
        hosted.tick_due = False
        if self._closed:
            return
        if hosted.committing is None and hosted.retry is None:
            if self._commit_time < SLOW_COMMIT and not self._disk.locked():
                self._commit_now(hosted)
            elif hosted.room.log.unpublished or hosted.room.changed:
                hosted.committing = self._start(self._commit_in_thread(hosted))
        self._serve_all(hosted)  # what is stored, also while a slow commit or a full disk keeps the rest back

    def _commit_now(self, hosted: HostedRoom) -> None:
        if not (hosted.room.log.unpublished or hosted.room.changed):
            return
        batches, changes = hosted.room.log.seal(), hosted.room.take_changes()
        try:
            seconds = self._commit(hosted.number, batches, changes)
        except StoreError as error:
            self._not_committed(hosted, changes, error)
        else:
            self._committed(hosted, batches, seconds)

    async def _commit_in_thread(self, hosted: HostedRoom) -> None:
        async with self._disk:
            batches, changes = hosted.room.log.seal(), hosted.room.take_changes()
            try:
                seconds = await asyncio.to_thread(self._commit, hosted.number, batches, changes)
            except StoreError as error:
                self._not_committed(hosted, changes, error)
            else:
                self._committed(hosted, batches, seconds)
            finally:
                hosted.committing = None
                self._wake(hosted)

    def _commit(self, room: int, batches: list[Batch], changes: RoomChanges) -> float:
        """Commit, in whatever thread this runs, and return how many seconds the disk took."""
        began = time.perf_counter()
        self._store.commit(room, batches, changes)
        return time.perf_counter() - began

    def _committed(self, hosted: HostedRoom, batches: list[Batch], seconds: float) -> None:
        # One commit that took very long, as a checkpoint may, is no slow disk.
        self._commit_time += (min(seconds, 4 * SLOW_COMMIT) - self._commit_time) / 8
        hosted.room.log.publish(batches)
        if not hosted.room.only:
            hosted.index.wake()
        if batches and hosted.room.only:
            self._announce_direct(hosted)
        hosted.drained.set()
        if hosted.full:
            hosted.full = False
            self._tell(hosted, _DISK_FREE)

    def _announce_direct(self, hosted: HostedRoom) -> None:
        """Tell those of the two who are not in their room that something was said there."""
        inside = {member.key for member in hosted.connections if not member.silent}
        for key in hosted.room.only - inside:
            (other,) = hosted.room.only - {key}
            for elsewhere in self.rooms.values():
                for member in elsewhere.connections:
                    if member.key == key and not elsewhere.room.only and member.cursor.control_size <= MAX_CONTROL:
                        nick, read = elsewhere.room.nick_of(other), hosted.room.read_by(key)
                        member.cursor.post(_direct(hosted.room.name, other, nick, hosted.room.log.end, read))
                        self._wake(elsewhere)

    def _not_committed(self, hosted: HostedRoom, changes: RoomChanges, error: StoreError) -> None:
        hosted.room.give_back(changes)
        if not isinstance(error, StoreFull):
            self._fail(error)
            return
        if not hosted.full:
            hosted.full = True
            _logger.error("%s", error)
            self._tell(hosted, _DISK_FULL)
        hosted.retry = asyncio.get_running_loop().call_later(_RETRY, self._retry, hosted)

    def _retry(self, hosted: HostedRoom) -> None:
        hosted.retry = None
        self._wake(hosted)

    def _tell(self, hosted: HostedRoom, notice: bytes) -> None:
        for member in hosted.connections:
            if member.cursor.control_size <= MAX_CONTROL:  # a disk that is full now and then must not fill the lane
                member.cursor.post(notice)

    # -- sending ---------------------------------------------------------------------------------

    def _serve_all(self, hosted: HostedRoom) -> None:
        for connection in list(hosted.connections.values()):
            if connection.clogged is None:
                self._serve(hosted, connection)

    def _serve(self, hosted: HostedRoom, connection: Connection) -> None:
        """Send a member what it lacks, as far as its link takes it, and at most the budget of one tick."""
        member, link, log, roster = connection.member, connection.link, hosted.room.log, hosted.room.roster
        budget = SERVE_BUDGET
        try:
            while data := member.pending(log, roster):
                count = link.send(data)
                member.cursor.advance(count)
                if count < len(data):
                    connection.clogged = self._start(self._unclog(hosted, connection))
                    return
                budget -= count
                if budget <= 0:
                    self._wake(hosted)
                    return
        except Exception as error:
            self._could_not_send(hosted, connection, error)

    async def _unclog(self, hosted: HostedRoom, connection: Connection) -> None:
        try:
            await connection.link.writable()
        except Exception as error:
            self._could_not_send(hosted, connection, error)
            return
        connection.clogged = None
        self._serve(hosted, connection)

    def _could_not_send(self, hosted: HostedRoom, connection: Connection, error: Exception) -> None:
        """It costs this member its link, and the others nothing; unless it is our disk that cannot be read."""
        if isinstance(error, StoreError):
            self._fail(error)
            return
        if not isinstance(error, TransportError):
            _logger.error("a fault of this program, or of the transport; please report it", exc_info=error)
        self._drop(hosted, connection.member, str(error))

    async def _watch(self) -> None:
        """Every 4 s: a beat for the quiet, an end for the silent."""
        now = time.monotonic()
        while True:
            before = now
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - before > SILENCE:  # it is we who were stopped: what they said meanwhile is still to be read
                for hosted in self.rooms.values():
                    for connection in hosted.connections.values():
                        connection.heard = max(connection.heard, now)
            for hosted in self.rooms.values():
                for member in hosted.board.beat():
                    self._tell_board_full(member)
                self._note_reads(hosted)
                for connection in list(hosted.connections.values()):
                    if now - connection.heard > SILENCE:
                        self._drop(hosted, connection.member, f"nothing was heard of it for {SILENCE:g} s")
                    elif connection.clogged is None and connection.member.cursor.at_border:
                        connection.member.cursor.post(_BEAT_FRAME)
                        self._serve(hosted, connection)


def _direct(room: str, other: bytes, nick: str, next_seq: int, read: int) -> bytes:
    return pack(Kind.DIRECT, Direct(room=room, other=other, nick=nick, next_seq=next_seq, read=read))


async def _without(connection: Connection, wait: Awaitable[object]) -> None:
    """Leave a member unread for as long as ``wait`` takes; then it is not for its silence that nothing is heard."""
    connection.heard = math.inf
    try:
        await wait
    finally:
        connection.heard = time.monotonic()


async def _close(link: Link) -> None:
    """Close a link, and survive one that cannot be closed."""
    try:
        await link.aclose()
    except Exception:
        _logger.exception("the link to %s did not close; please report it", link.peer.text)


async def _first_frame(link: Link, parser: Parser) -> Frame | None:
    """Return a peer's first frame, None when it left without a word. What came behind it stays with the parser."""
    while data := await link.receive():
        with closing(parser.feed(data)) as frames:
            for frame in frames:
                return frame
    return None


async def _send_all(link: Link, data: bytes) -> None:
    """Send a few bytes to a peer that is no member yet. The caller sets the time limit."""
    rest = memoryview(data)
    while rest := rest[link.send(rest) :]:
        await link.writable()


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
