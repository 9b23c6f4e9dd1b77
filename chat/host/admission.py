"""How a peer gets in: a slot before the handshake, challenge, HELLO, the invite, WELCOME; or a refusal.

Rules:

1. Peers that have not said HELLO have a fixed number of slots and little time. Beyond, the oldest one of the source
   that has most is dropped: a flood from one place costs only those who come from there.
2. A peer that breaks the rules loses its own link and costs one line in the host's log.
3. Closing on unread input would destroy a refusal, so the peer gets a moment to read it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chat.core.bodies import REVOKED, Challenge, Direct, Hello, Refusal, direct_name, pack, unpack
from chat.core.errors import (
    LinkBroken,
    LinkClosed,
    NoSuchRoom,
    Refused,
    RemoteProtocolError,
    StoreError,
    StoreFull,
    TransportError,
)
from chat.core.wire import HELLO_TIMEOUT, MAX_FRAME, MAX_HELLO, PREFACE, Frame, Kind, Parser
from chat.host import invites
from chat.host.slots import Links, Visit, source_of
from chat.local.identity import transcript, verify
from chat.local.shared import login
from chat.transport.patience import patience
from chat.transport.shares import Door

if TYPE_CHECKING:
    from chat.core.room import Member
    from chat.host.host import Host
    from chat.host.hosted_room import HostedRoom
    from chat.transport import Link, Listener, Peer

_logger: Final = logging.getLogger("chat.host.host")

MAX_UNAUTHENTICATED: Final = 256  # links that have not said HELLO; beyond, the source that has most loses its oldest
# links of one key in a room: each costs others a descriptor and a slot of the board; then ``too-many-links``
MAX_LINKS_A_KEY: Final = 128
# direct rooms that one key has opened, at a time; one more is refused: ``too-many-rooms``
MAX_DIRECT_ROOMS: Final = 256
_DIRECT_LISTED: Final = 24  # of which WELCOME is followed by: as many as fit into the member's control queue
# seconds until a program of ours says HELLO: a busy machine starts many slowly; then its link ends
_START_TIMEOUT: Final = 60.0
_LINGER: Final = 2.0  # seconds that a refused peer has to read why
_ACCEPT_RETRY: Final = 1.0  # seconds after a listener could not accept


class AdmissionControl:
    """Lets peers into the rooms of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._door: Door[Visit] = Door(MAX_UNAUTHENTICATED, _push_out)
        self._links = Links()

    async def accept(self, listener: Listener) -> None:
        """Serve all that a listener accepts, until it is closed."""
        while True:
            try:
                link = await listener.accept()
            except LinkClosed:
                return
            except (TransportError, OSError) as error:
                _logger.warning("cannot accept on %s: %s", listener.address, error)
                await asyncio.sleep(_ACCEPT_RETRY)  # usually out of descriptors: members go on meanwhile
                continue
            if self._host.closed:
                await _close(link)
            else:
                self._host.start(self.serve(link))
                await asyncio.sleep(0)  # it begins, and stands at the door, before the next one comes

    async def serve(self, link: Link, *, is_ours: bool = False) -> None:
        """Serve one peer from its first byte to the end of its link. A program of ours needs no place at the door."""
        where, visit = link.peer.text, Visit(link)
        try:
            await self._meet(visit, is_ours=is_ours)
        except RemoteProtocolError as error:
            await _refuse(visit, Refusal(code="protocol", fields={"why": str(error)}))
        except Refused as error:
            await _refuse(visit, Refusal(code=error.code, fields=error.fields))
        except TimeoutError:
            _warn(link, "%s was dropped: it did not say HELLO within %g s", visit.seconds)
        except TransportError as error:
            _logger.info("%s is gone: %s", where, error)
        except asyncio.CancelledError:
            pass  # by us; to keep it would make a cycle of this task, its traceback and all that the peer had
        except StoreFull:
            await _refuse(visit, Refusal(code="disk-full"))
        except StoreError as error:
            self._host.fail(error)
        except Exception:
            # A fault of ours that one peer met must not end the room for the others.
            _logger.exception("%s was dropped by a fault of this program; please report it", where)
        finally:
            self._door.leave(visit.source, visit)
            self._links.leave(visit)
            await _close(link)

    async def _meet(self, visit: Visit, *, is_ours: bool) -> None:
        link, parser = visit.link, Parser(limit=MAX_HELLO)
        nonce = secrets.token_bytes(32)
        visit.seconds = _START_TIMEOUT if is_ours else self._door.enter(visit.source, visit, HELLO_TIMEOUT)
        async with patience(visit.seconds):
            challenge = Challenge(key=self._host.identity.key, nonce=nonce)
            await _send_all(link, PREFACE + pack(Kind.CHALLENGE, challenge))
            hello = await self._first_frame(visit, parser)
        if hello is None:
            return  # port scanners and health checks connect and leave
        hosted, member = await self._admit(hello, nonce, visit, is_ours=is_ours)
        visit.connection = connection = hosted.attach(member, link)
        self._door.leave(visit.source, visit)
        parser.limit = MAX_FRAME
        try:
            await connection.receive(parser)
        except asyncio.CancelledError:
            if (told := connection.refusal) is None:
                raise
            visit.task.uncancel()
            raise Refused(told.code, **told.fields) from None
        finally:
            hosted.detach(connection)

    async def _admit(self, frame: Frame, nonce: bytes, visit: Visit, *, is_ours: bool) -> tuple[HostedRoom, Member]:
        """Check a HELLO and let the peer in. Raises RemoteProtocolError, Refused, StoreError."""
        if frame.kind != Kind.HELLO:
            raise RemoteProtocolError(f"the peer began with a frame of kind {frame.kind} instead of HELLO")
        hello = unpack(Hello, frame)
        hosted = self._host.find_room(hello.room)
        if len(hello.key) != 32 or len(hello.nonce) != 32:
            raise RemoteProtocolError("the peer sent a HELLO whose key or nonce has the wrong size")
        ours = self._host.identity.key
        signed = partial(transcript, host=ours, room=hello.room, host_nonce=nonce, nonce=hello.nonce, key=hello.key)
        if not verify(hello.key, hello.signature, signed("member")):
            raise RemoteProtocolError("the peer's signature does not fit its key")
        by_invite, user = signed("invite"), "" if is_ours else await self._user(visit.link.peer)
        as_owner = visit.link.peer.uid == os.geteuid()  # such a process could read the host's keys and its log anyway
        if hosted is None and hello.other:
            hosted = self._open_direct(hello, visit.link.peer)
        if hosted is None:
            raise NoSuchRoom("no-room", room=hello.room)
        room = hosted.room
        if not as_owner:
            self._check_ban(hosted, hello.key, visit.link.peer)
        if hello.key in room.only:
            hello = await self._named(hosted, hello, visit.link.peer)
        if hello.invite and self._needs_invite(hosted, hello, visit.link.peer):
            await hosted.in_order(lambda: hello.invite in room.invites or room.is_coming(hello.key))
        if self._check_invite(hosted, hello, visit.link.peer, by_invite):
            async with self._host.disk:  # its use is written now; the loop must not wait for a thread's commit
                # Another peer may have used it up meanwhile.
                is_counted = self._check_invite(hosted, hello, visit.link.peer, by_invite)
                self._claim(hosted, hello, visit.link.peer, is_counted=is_counted)
        else:
            self._claim(hosted, hello, visit.link.peer)
        if not await hosted.in_order(lambda: not room.is_coming(hello.key) and room.prepare(hello) is not None):
            raise LinkBroken("the room's sequencer takes too long")  # the peer comes back
        if not is_ours:
            self._links.enter(visit, hello.key, is_trusted=hello.key in self._host.owners or room.is_trusted(hello.key))
        if not as_owner:
            self._check_ban(hosted, hello.key, visit.link.peer)  # again: it may have been decided meanwhile
        return hosted, self._enter(hosted, hello, signed("host"), as_owner=as_owner, user=user)

    async def _first_frame(self, visit: Visit, parser: Parser) -> Frame | None:
        """Return a peer's first frame, None if it left without a word. The parser keeps what came behind it."""
        while data := await visit.link.receive():
            with closing(parser.feed(data)) as frames:
                for frame in frames:
                    return frame
            await asyncio.sleep(self._host.work.charge(visit.source))
        return None

    async def _user(self, peer: Peer) -> str:
        """Return the login name of a peer on this machine, if several users can reach this host."""
        if peer.uid is None or not self._host.shows_users:
            return ""
        return await asyncio.to_thread(login, peer.uid)  # the system may have to ask another machine

    def _check_ban(self, hosted: HostedRoom, key: bytes, peer: Peer) -> None:
        """Raise Refused for somebody who is banned; in a direct room, from all that it shares with the other."""
        if key in hosted.room.only:
            self._shared_room(key, peer, *(hosted.room.only - {key}))
        elif (told := hosted.ban_of(key, peer)) is not None:
            raise Refused(told.code, **told.fields)

    def _open_direct(self, hello: Hello, peer: Peer) -> HostedRoom:
        """Open the room of two who share another room here. Raises RemoteProtocolError, Refused, StoreError."""
        if len(hello.other) != 32 or hello.other == hello.key or hello.room != direct_name(hello.key, hello.other):
            raise RemoteProtocolError("the peer asked for a direct room whose name does not fit its two keys")
        shared = self._shared_room(hello.key, peer, hello.other)
        if sum(hosted.opener == hello.key for hosted in self._host.rooms.values()) >= MAX_DIRECT_ROOMS:
            raise Refused("too-many-rooms", count=MAX_DIRECT_ROOMS)
        try:
            hosted = self._host.open_room(hello.room, only=frozenset((hello.key, hello.other)))
        except StoreFull:
            raise Refused("disk-full") from None
        except StoreError as error:
            if self._host.store.failure:
                raise
            _logger.warning("%s", error)  # damage to one direct room must not end the room for the others
            raise Refused("room-damaged") from None
        hosted.opener, hosted.rates = hello.key, shared.rates
        for key in hosted.room.only:  # so that each finds it when it comes the next time
            hosted.room.admit(key)
        return hosted

    def _shared_room(self, key: bytes, peer: Peer, other: bytes) -> HostedRoom:
        """Return a room, other than a direct one, that knows both keys. Raises NoSuchRoom, Refused.

        A room from which ``key`` is banned does not count.
        """
        shared = [
            one
            for one in self._host.rooms.values()
            if not one.room.only and one.room.knows(key) and one.room.knows(other)
        ]
        if not shared:
            raise NoSuchRoom("no-shared-room")
        bans = {hosted: hosted.ban_of(key, peer) for hosted in shared}
        for hosted, told in bans.items():
            if told is None:
                return hosted
        assert told is not None
        raise Refused(told.code, **told.fields)

    async def _named(self, direct: HostedRoom, hello: Hello, peer: Peer) -> Hello:
        """Return the HELLO of one who enters a direct room, with the nickname that the other knows it by.

        What it asks for does not count: it could be that of somebody else whom both know. Raises as ``prepare`` does.
        """
        direct.used = time.monotonic()
        shared = self._shared_room(hello.key, peer, *(direct.room.only - {hello.key}))
        nick = shared.room.nick_of(hello.key, hello.nick)
        if not nick:  # it has none there yet, so it gets one by the rules of that room
            if not await shared.in_order(lambda: shared.room.prepare(hello) is not None):
                raise LinkBroken("the room's sequencer takes too long")  # the peer comes back
            nick = shared.room.prepare(hello) or ""
        return replace(hello, nick=nick)

    def _needs_invite(self, hosted: HostedRoom, hello: Hello, peer: Peer) -> bool:
        """Whether this peer enters by its invite: newcomers do. Who needs none does if it makes operators."""
        room = hosted.room
        if room.is_coming(hello.key):
            return False
        if not (room.may_enter(hello.key) or (peer.invited and not room.only)):
            return True
        if room.only or room.knows(hello.key) or not hello.invite:
            return False
        return bool(invites.terms_of(self._host.store, hosted.number, hello.invite).role)

    def _check_invite(self, hosted: HostedRoom, hello: Hello, peer: Peer, said: bytes) -> bool:
        """Return whether the use of this peer's invite must be counted. Raises Refused if it may not enter by it."""
        room = hosted.room
        if not self._needs_invite(hosted, hello, peer):
            return False
        if room.only:
            raise Refused("direct-room")
        if not hello.invite:
            raise Refused("not-invited", room=room.name)
        if hello.invite not in room.invites or not verify(hello.invite, hello.invite_proof, said):
            raise Refused("wrong-invite", room=room.name)
        expires, is_counted = room.invites[hello.invite]
        if expires == REVOKED:
            raise Refused("invite-revoked")
        if expires and time.time_ns() // 1_000_000 >= expires:
            raise Refused("invite-expired")
        if is_counted and not self._host.store.uses_left(hosted.number, hello.invite):
            raise Refused("invite-used")
        return is_counted

    def _claim(self, hosted: HostedRoom, hello: Hello, peer: Peer, *, is_counted: bool = False) -> None:
        """Claim the peer's nickname, count the use of its invite, and admit its key. Raises Refused, StoreError."""
        room = hosted.room
        theirs = room.links_of(hello.key)
        if len(theirs) >= MAX_LINKS_A_KEY and not any(one.stream and one.stream.id == hello.stream for one in theirs):
            raise Refused("too-many-links", count=MAX_LINKS_A_KEY)
        is_new = not (room.only or room.knows(hello.key) or room.is_coming(hello.key))
        invite = hello.invite if self._needs_invite(hosted, hello, peer) else b""
        hosted.rates.came(hello.key, peer, invite, is_new=is_new)
        nick, operator = room.prepare(hello), None
        if is_counted:
            try:
                operator = invites.promote(hosted, invite, hello.key, nick or hello.nick)
                self._host.store.use_invite(hosted.number, hello.invite)
            except StoreFull:
                raise Refused("disk-full") from None
        if hello.stream and not room.has_stream(hello.key, hello.stream):
            hosted.rates.new_stream(hello.key)
        room.admit(hello.key, invite=invite)
        if operator is not None:
            room.decide_now(operator, time.time_ns() // 1_000_000)

    def _enter(self, hosted: HostedRoom, hello: Hello, proof: bytes, *, as_owner: bool, user: str) -> Member:
        """Make the peer a member, and queue what it reads first. Raises Refused, StoreError."""
        room, store = hosted.room, self._host.store
        entry = room.enter(hello, as_owner=as_owner, user=user)
        member = entry.member
        room.welcome(entry, self._host.identity.sign(proof))
        if hosted.full:
            member.post(hosted.full)
        if not (self._host.space.is_set() or room.only):
            member.post(pack(Kind.NOTICE, self._host.disk_low))
        self._host.announced.discard((room.name, member.key))
        if not room.only and not member.silent:
            for name, other, next_seq, stored_read in store.direct_rooms(member.key, _DIRECT_LISTED):
                opened = self._host.rooms.get(name)  # there it may have read more than is stored yet
                read = opened.room.read_by(member.key) if opened is not None else stored_read
                direct = Direct(room=name, other=other, nick=room.nick_of(other), next_seq=next_seq, read=read)
                member.post(pack(Kind.DIRECT, direct))
                self._host.announced.add((name, member.key))
        if entry.replaced is not None:
            hosted.drop(entry.replaced)
        return member


def _warn(link: Link, text: str, *more: object) -> None:
    """Log a line that names the peer; ``process.Log`` writes one a minute and source."""
    _logger.warning(text, link.peer.text, *more, extra={"source": source_of(link.peer)})


def _push_out(visit: Visit) -> None:
    _warn(visit.link, "%s was dropped before it said HELLO: too many come from there")
    visit.push_out()


async def _send_all(link: Link, data: bytes) -> None:
    """Send a few bytes to a peer that is no member yet. The caller sets the time limit."""
    rest = memoryview(data)
    while rest := rest[link.send(rest) :]:
        await link.writable()


async def _refuse(visit: Visit, refusal: Refusal) -> None:
    """Say why, here and to the peer, and wait a moment for it to read that and leave.

    To a member, behind the rest of what is half sent: it would take the refusal for that.
    """
    link, before = visit.link, visit.connection.member.cursor.half_sent if visit.connection else b""
    _warn(link, "%s was refused: %s", refusal.text)
    with suppress(TransportError, TimeoutError):
        async with asyncio.timeout(_LINGER):
            await asyncio.sleep(0)  # a task that waits until the link takes more has been cancelled, and ends now
            await _send_all(link, before + pack(Kind.REFUSED, refusal))
            while await link.receive():
                pass


async def _close(link: Link) -> None:
    """Close a link, and survive one that cannot be closed."""
    try:
        await link.aclose()
    except Exception:
        _logger.exception("the link to %s did not close; please report it", link.peer.text)
