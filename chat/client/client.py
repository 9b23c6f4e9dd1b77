"""The client: an asyncio shell over a session. It dials, decides whether to trust, keeps the outbox, comes back.

    async with Client(target, identity, ...) as client:
        await client.say("hello")
        async for event in client: ...

Rules:

1. An entry is in the outbox on disk before its bytes are on the wire.
2. An entry leaves the outbox only when its Stored event has been taken and the next event is asked for, so
   that a program killed in between learns of it again.
3. Nothing is sent to a host whose key is not the one we expect; a changed key ends the client, loudly.
4. When a link is lost the client dials again, at once and then ever more slowly, over whatever address the
   target offers; the session resumes.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from chat.client.outbox import Outbox, outbox_folder
from chat.core import status
from chat.core.errors import (
    AddressError,
    ChatError,
    DialFailed,
    LinkBroken,
    LinkClosed,
    LocalProtocolError,
    NoSuchRoom,
    Refused,
    RemoteProtocolError,
    Text,
    TransportError,
)
from chat.core.outgoing import OutboxEntry, text_body
from chat.core.session import Answered, Challenged, Event, Joined, LinkState, Numbered, Session, Stored
from chat.core.wire import BEAT, HELLO_TIMEOUT, SILENCE, Answer, Ask, Kind, Notice, direct_name
from chat.local.identity import fingerprint, host_hash, transcript, verify
from chat.transport import board_maker, find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

    from chat.local.identity import Identity
    from chat.local.invite import Invite
    from chat.local.known_hosts import KnownHosts
    from chat.transport import Address, Board, BoardSlot, Link

WINDOW: Final = 1024  # entries that may be unsettled before ``say`` waits
SHOW: Final = 0.3  # seconds at least between two STATE frames: only the newest counts
_EVENTS: Final = 4096  # events not yet taken before the link is no longer read
_FIRST_DELAY: Final = 0.1  # seconds before the second try; doubled each time
_LAST_DELAY: Final = 5.0


class Up(NamedTuple):
    """The link is up again; a Joined event came before it. ``address`` says over what."""

    address: Address


class Lost(NamedTuple):
    """The link is gone. The client dials again by itself."""

    why: str  # Words, for ``chat.i18n.translate``


ClientEvent: TypeAlias = Event | Up | Lost


@dataclass(frozen=True)
class Target:
    """Where a room can be found: addresses in the order of preference, and what we know of its host."""

    addresses: tuple[Address, ...]
    room: str
    host: bytes = b""  # SHA-256 of the host's public key, where an invite or a card says it
    invite: Invite | None = None
    remember: bool = False  # the invite's word about the host's key is worth keeping
    other: bytes = b""  # of a direct room: the other's key
    board: Path | None = None  # the folder of the room's board, where that is on this machine

    def direct(self, key: bytes, other: bytes) -> Target:
        """The direct room of ``key`` and ``other`` at the same host. It has no board."""
        return replace(self, room=direct_name(key, other), other=other, board=None)


class Client:
    """One member of one room.

    ``locate`` returns the target anew before each dial, since a card may have changed. ``outboxes`` is the
    folder for outboxes, None for a client that only reads. With ``looks`` it sees what others show of themselves,
    and shows what it is told to. After ``silence`` seconds without a sign of life from the host it dials again: 12,
    if none are given.
    """

    def __init__(
        self,
        locate: Callable[[], Target],
        identity: Identity,
        known_hosts: KnownHosts,
        *,
        outboxes: Path | None = None,
        nick: str = "",
        silent: bool = False,
        history: int = 0,
        since: int = 0,
        looks: bool = False,
        silence: float | None = None,
    ) -> None:
        self._locate = locate
        self._identity = identity
        self._known_hosts = known_hosts
        self._outboxes = outboxes
        self.nick = nick  # the one we asked for
        target = locate()
        self.session = Session(target.room, identity.key, nick=nick, silent=silent, history=history, other=target.other)
        if since:
            self.session.begin_at(since)
        self.shows = status.Status(active=_now())
        self._silence = SILENCE if silence is None else silence
        self._looks = looks
        self._is_seen = looks and not silent  # it shows something of itself
        self._board: Board | None = None
        self._cell: BoardSlot | None = None
        self._showing: asyncio.TimerHandle | None = None  # nothing is told to the host before that
        self._shown = b""  # what it was told last
        self.address: Address | None = None
        self.pending: list[str] = []  # ids of what an earlier process had said and not seen stored
        self.trusted_on_first_use = ""  # the host's fingerprint, where nobody had told us its key before
        self._outbox: Outbox | None = None
        self._link: Link | None = None
        self._target = target
        self._nonce = self._host_key = self._host_nonce = b""
        self._out = bytearray()
        self._pushing: asyncio.Task[None] | None = None
        self._flush_due = False
        self._events: deque[ClientEvent] = deque()
        self._taken: list[Stored] = []  # handed out since the outbox was last settled
        self._happened = asyncio.Event()  # an event, or the end
        self._progress = asyncio.Event()  # something was stored, or the end
        self._room_for_more = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._heard = 0.0
        self._ended = False
        self._error: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- for programs and faces ------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Dial and join. Raises DialFailed, Refused, RemoteProtocolError: the first time there is no second try."""
        try:
            await self._connect()
        except BaseException:
            await self._close()
            raise
        self._tasks = [asyncio.create_task(self._stay()), asyncio.create_task(self._keep_alive())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._settle()  # else what was taken last may never have been dealt with
        if self._is_seen:  # the host keeps how far we have read, and may not have looked since
            self.session.show(status.pack_slot(self.session.key, self.session.nick, self.shows))
        self.session.bye()
        self._flush()
        await self._close()

    async def next_events(self) -> list[ClientEvent]:
        """Wait for events and return all there are; asking again says that the last ones have been dealt with.

        Returns nothing once the client is closed. Raises what ended it (Refused, RemoteProtocolError).
        """
        self._settle()
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                return []
            self._happened.clear()
            await self._happened.wait()
        return self.take()

    def take(self) -> list[ClientEvent]:
        """Return the events that are here now, perhaps none; the last ones have been dealt with."""
        self._settle()
        events = list(self._events)
        self._events.clear()
        self._taken = [event for event in events if isinstance(event, Stored)]
        self._room_for_more.set()
        return events

    async def __aiter__(self) -> AsyncIterator[ClientEvent]:
        while events := await self.next_events():
            for event in events:
                yield event

    async def say(
        self, text: str, *, kind: int = Kind.SAY, target: int = 0, flags: int = 0, name: str = ""
    ) -> OutboxEntry:
        """Put a message into the outbox, and on the wire as soon as there is one. ``name`` is the caller's own id.

        Waits only while 1,024 are unsettled; take the events meanwhile, since with 4,096 not taken nothing more
        is read, the echoes included. Raises LocalProtocolError for more than 16 KiB, StoreFull when our own disk
        is full, and what ended the client.
        """
        entry = OutboxEntry(number=0, kind=kind, flags=flags, body=text_body(text, target), id=name)
        while len(self.session.unsettled) >= WINDOW:
            await self._wait_for_progress()
        self._must_be_open()
        if self._outbox is None:
            raise LocalProtocolError("this client only reads; give it a folder for outboxes to speak")
        self.session.number(entry)
        self._outbox.add(entry)
        self.session.say(entry)
        self._flush_soon()
        return entry

    async def settled(self) -> None:
        """Return when everything said is on the host's disk. Raises what ended the client."""
        while self.session.unsettled:
            await self._wait_for_progress()

    async def _wait_for_progress(self) -> None:
        self._must_be_open()
        self._progress.clear()
        await self._progress.wait()

    def _must_be_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended:
            raise LinkClosed("this client was closed here")

    async def ask(self, ask: Ask) -> Answer:
        """Put a question to the host. Raises LinkBroken when there is no link, or when it is lost before the answer."""
        self._must_be_open()
        if self.session.state is not LinkState.JOINED:
            raise LinkBroken("there is no link to the host now; try again when it is back")
        number = self.session.ask(ask)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._flush()
        try:
            return await future
        finally:
            del self._answers[number]

    # -- what we show of ourselves, and what others do -------------------------------------------

    def show(self, **changes: Any) -> None:
        """Show something else: fields of ``presence.State``. Raises ValueError for a note that is too long."""
        shows = self.shows._replace(**changes)
        status.pack_slot(self.session.key, self.session.nick, shows)
        self.shows = shows
        self._show()

    def people(self) -> dict[status.Who, status.Status]:
        """Who is in the room, in the order in which they came, and what each shows. Costs a look, and no message."""
        shown = self.session.states or {}
        if self._board is not None:
            with suppress(ChatError):  # it was damaged just now; at the next beat we open it again
                shown = status.seen(self._board.read())
        return {who: shown.get(who, status.Status()) for who in self.session.here}

    def _show(self) -> None:
        if not self._is_seen or self.session.state is not LinkState.JOINED:
            return
        slot = status.pack_slot(self.session.key, self.session.nick, self.shows)
        if self._cell is not None:
            with suppress(ChatError):
                self._cell.write(slot)
        elif self._showing is None and slot != self._shown:
            self._shown = slot
            self.session.show(slot)
            self._flush_soon()
            self._showing = asyncio.get_running_loop().call_later(SHOW, self._show_newest)

    def _show_newest(self) -> None:
        self._showing = None
        self._show()

    def _open_board(self) -> None:
        """Find a place on the board, if there is one on this machine and it has one. Raises ChatError."""
        self._close_board()
        maker = board_maker()
        if self._is_seen and self._target.board is not None and maker is not None:
            self._board = maker.open(self._target.board)
            self._cell = self._board.claim()

    def _close_board(self) -> None:
        if self._board is not None:
            self._board.close()
        self._board = self._cell = None

    def beat_slot(self) -> None:
        """Show that we live; and begin anew where the board was damaged, and the host has made another."""
        if self._target.board is None or self.session.states is not None or self.session.state is not LinkState.JOINED:
            return
        try:
            if self._board is None or not self._board.sound():
                self._open_board()
                self._show()
            elif self._cell is not None:
                self._cell.beat()
        except ChatError:
            self._close_board()  # and look again at the next beat

    def reader(self, since: int) -> Client:
        """Return another client of this room, still outside: it only reads, unseen, from number ``since`` on."""
        return Client(self._locate, self._identity, self._known_hosts, silent=True, since=since)

    def direct(self, other: bytes) -> Client:
        """Return another client, still outside: of the room that we share with this key alone."""
        return Client(
            lambda: self._locate().direct(self.session.key, other),
            self._identity,
            self._known_hosts,
            outboxes=self._outboxes,
            nick=self.nick,
            history=50,
            looks=self._looks,
        )

    @property
    def wire(self) -> tuple[str, ...]:
        """What carries our messages, and why we trust the host: words for people. Nothing without a link."""
        if self._link is None or self.address is None:
            return ()
        if self._link.peer.uid is not None:
            return self.address.scheme, "same user"
        if self._target.host:
            return self.address.scheme, "pinned"
        return self.address.scheme, "trust on first use" if self.trusted_on_first_use else "known"

    async def aclose(self) -> None:
        """Leave, where it cannot be done by ``async with``."""
        await self.__aexit__(None, None, None)

    # -- coming in -------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Dial the target's addresses in turn until one lets us in. Raises what kept us out.

        A TransportError where any address may let us in another time.
        """
        self._target = self._locate()
        failure: TransportError | None = None
        misled: ChatError | None = None  # by an address that is not, or no longer, our host's
        for address in self._target.addresses:
            try:
                return await self._join(await find(address.scheme).dial(address), address)
            except TransportError as error:
                failure = error
            except (AddressError, RemoteProtocolError) as error:  # no such transport here; another program there
                misled = misled or error
            except Refused as error:
                if error.code != "host-key-changed" or not self._target.host:
                    raise
                misled = error  # by its key we know the host that we mean: this is another one
        if failure is not None and isinstance(misled, Refused):
            raise DialFailed("{failure}; and {misled}", failure=failure.words, misled=misled.words)
        raise failure or misled or DialFailed("there is no address to dial; ask for a new invite")

    async def _join(self, link: Link, address: Address) -> None:
        """Come in over a new link, or close it again: not even a beat may go to a host that did not prove its key."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await self._shake_hands(link, address)
        except TimeoutError:
            await self._drop(link)
            raise DialFailed(
                "{address} took the call but said nothing for {seconds:g} s; is it a chat host?",
                address=address,
                seconds=HELLO_TIMEOUT,
            ) from None
        except BaseException:
            await self._drop(link)
            raise
        self._add(Up(address))
        self._flush()

    async def _shake_hands(self, link: Link, address: Address) -> None:
        self._link, self.address = link, address
        self._heard = time.monotonic()  # or _keep_alive would take the old link's silence for this one's
        self._nonce = secrets.token_bytes(32)
        if link.peer.key is not None:
            self._trust(link.peer.key)  # before the first byte
        with suppress(ChatError):  # then the host tells us of the others, as if we were far away
            self._open_board()
        self.session.board = self._cell is not None
        self.session.states = {} if self._looks and self._board is None else None
        self.session.connected()
        while self.session.state is not LinkState.JOINED:
            self._flush()
            data = await link.receive()
            if not data:
                raise LinkBroken("{address} closed the link before it let us in", address=address)
            self._take_in(data)

    def _trust(self, key: bytes) -> None:
        """Return when this is the host that we mean. Raises Refused."""
        assert self.address is not None
        self._host_key = key
        if not self._target.host:
            self._known_hosts.check(self.address, key, learn=False)
        elif host_hash(key) != self._target.host:
            raise Refused(
                "host-key-changed",
                "the host at {address} has not the key that the invite names, but {shown}: it is another "
                "host, or somebody between us; ask for a new invite by a way you trust",
                address=self.address,
                shown=fingerprint(key),
            )

    def _joined(self, event: Joined) -> None:
        """In the room. Raises Refused when the host has not proved that it holds its key."""
        assert self.address is not None
        if not verify(self._host_key, event.proof, self._transcript("host")):
            raise Refused(
                "host-proof",
                "the host at {address} does not hold the key that it shows; do not trust it",
                address=self.address,
            )
        if not self._target.host:
            if not self._known_hosts.check(self.address, self._host_key):
                self.trusted_on_first_use = fingerprint(self._host_key)
        elif self._target.remember and self._known_hosts.remember(self.address, self._host_key):
            self._add(
                Notice(
                    code="host-key",
                    text=Text("the invite names another key for {address} than the one known", address=self.address),
                )
            )
        self._shown = b""
        self._show()
        self._add(event)

    def _greet(self, challenge: Challenged) -> None:
        assert self._link is not None
        if self._link.peer.key not in (None, challenge.key):
            raise RemoteProtocolError("the host names another key than the one its wire has proved")
        self._trust(challenge.key)
        self._host_nonce = challenge.nonce
        if self._outbox is None and self._outboxes is not None:
            host, key, room = host_hash(challenge.key), self.session.key, self.session.room
            self._outbox = Outbox.open(outbox_folder(self._outboxes, host=host, key=key, room=room, nick=self.nick))
            self.pending = [entry.id for entry in self._outbox.entries if entry.id]
            if self._outbox.warning:
                self._add(Notice(code="outbox", text=self._outbox.warning))
        said = self._transcript("member")
        invite = self._target.invite
        self.session.hello(
            nonce=self._nonce,
            signature=self._identity.sign(said),
            invite=invite.id if invite else b"",
            invite_mac=invite.mac(said) if invite else b"",
            stream=self._outbox.stream if self._outbox else 0,
            unsettled=self._outbox.entries if self._outbox else (),
        )

    def _transcript(self, role: str) -> bytes:
        return transcript(
            role,
            host=self._host_key,
            room=self.session.room,
            host_nonce=self._host_nonce,
            nonce=self._nonce,
            key=self.session.key,
        )

    # -- bytes in, bytes out ---------------------------------------------------------------------

    def _take_in(self, data: bytes) -> None:
        self._heard = time.monotonic()
        for event in self.session.receive_data(data):
            match event:
                case Challenged():
                    self._greet(event)
                case Numbered():
                    assert self._outbox is not None
                    self._outbox.rewrite()
                case Answered(number, answer):
                    if number in self._answers and not self._answers[number].done():
                        self._answers[number].set_result(answer)
                case Joined():
                    self._joined(event)
                case _:
                    self._add(event)

    def _add(self, event: ClientEvent) -> None:
        self._events.append(event)
        self._happened.set()
        if isinstance(event, Stored):
            self._progress.set()

    def _settle(self) -> None:
        if self._outbox is not None:
            for event in self._taken:  # one by one: a host that went back has numbers begin again among them
                self._outbox.settle(event.entry.number)
        self._taken = []

    def _flush_soon(self) -> None:
        """Flush once in this turn of the loop, however many messages are said in it."""
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._link is None:
            return
        self._out += self.session.data_to_send()
        try:
            while self._out and self._pushing is None:
                count = self._link.send(self._out)
                del self._out[:count]
                if not count:
                    self._pushing = asyncio.create_task(self._push(self._link))
        except TransportError:
            self._out = bytearray()  # whoever receives from this link learns of it, too, and comes back

    async def _push(self, link: Link) -> None:
        """Go on when the link has room again."""
        with suppress(TransportError):
            await link.writable()
        self._pushing = None
        self._flush()

    # -- staying ---------------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Read the link; when it is lost, come back. Ends only by an error that no dialling can mend."""
        try:
            while True:
                assert self._link is not None
                why = await self._read(self._link)
                await self._drop(self._link)
                self._add(Lost(why))
                await self._come_back()
        except Exception as error:  # of ours, too: whoever waits for an event would wait for ever
            self._error = error
            self._happened.set()
            self._progress.set()
            if self._link is not None:
                await self._drop(self._link)

    async def _read(self, link: Link) -> Text:
        """Take in what comes until the link is lost; return why."""
        try:
            while data := await link.receive():
                self._take_in(data)
                self._flush()
                while len(self._events) > _EVENTS:
                    self._room_for_more.clear()
                    await self._room_for_more.wait()
                    self._heard = time.monotonic()
        except LinkClosed:  # by _keep_alive
            return Text("nothing was heard of the host for {seconds:g} s", seconds=self._silence)
        except TransportError as error:
            return error.words
        assert self.address is not None
        return Text("{address} closed the link", address=self.address.brief)

    async def _come_back(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                return await self._connect()
            except (TransportError, NoSuchRoom):
                # Not all at once: a host that has just come back has everybody at its door.
                await asyncio.sleep(delay * (0.5 + random.random()))
                delay = min(2 * delay, _LAST_DELAY)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self.beat_slot()
            self.session.beat()
            self._flush()
            reading = len(self._events) <= _EVENTS
            if self._link is not None and reading and time.monotonic() - self._heard > self._silence:
                await self._link.aclose()  # ends receive(), and so has _stay dial again

    async def _drop(self, link: Link) -> None:
        self._link = None
        self._close_board()  # who is not in the room is not seen there
        self.session.lost()
        self._out = bytearray()  # not clear(): the traceback of a failed send may still look into the old one
        if self._pushing is not None:
            self._pushing.cancel()
            self._pushing = None
        for future in self._answers.values():
            if not future.done():
                future.set_exception(LinkBroken("the link was lost before the host had answered; try again"))
        await link.aclose()

    async def _close(self) -> None:
        self._ended = True
        self._happened.set()
        self._progress.set()
        if self._showing is not None:
            self._showing.cancel()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._link is not None:
                await self._drop(self._link)
        finally:
            if self._outbox is not None:
                self._outbox.close()


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
