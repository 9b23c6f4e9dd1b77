"""The client's link: dial, join, move bytes between the session and the link, notice silence, come back.

Rules:

1. A host whose key is not the expected one gets nothing from us, not our key, not a beat: a link that fails the
   handshake is closed at once. A key is remembered only after the host has proved that it holds it.
2. When a link is lost the client dials again, at once and then ever more slowly, over whatever address the
   target offers by then; the session resumes. So it does after junk, which may be a flipped bit or another program
   on the host's port; only if that happens again and again, and nothing moves on, it gives up.
3. A program that does not take its events stops the reading, so a flood costs bounded memory.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chat.client.events import Lost, Up
from chat.core.bodies import Challenge, Notice
from chat.core.codes import NICKNAMES
from chat.core.errors import (
    AddressError,
    ChatError,
    DialFailed,
    HostBusy,
    LinkBroken,
    LinkClosed,
    NoSuchRoom,
    OtherHost,
    Refused,
    RemoteProtocolError,
    StoreFull,
    Text,
    TransportError,
    Untrusted,
    wire_fields,
)
from chat.core.events import Answered, Joined, LocalNotice, Numbered, Ranged
from chat.core.session import LinkState
from chat.core.wire import BEAT, HELLO_TIMEOUT, SILENCE, STALL
from chat.i18n import _
from chat.local.identity import fingerprint, host_hash, transcript, verify
from chat.local.words import words
from chat.transport.patience import patience
from chat.transport.registry import find

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.client.target import Target
    from chat.local.identity import Identity
    from chat.local.known_hosts import KnownHosts
    from chat.transport import Address, Link

_EVENTS: Final = 4096  # events that the program has not taken; beyond it the link is not read
# bytes received since the program last took its events; beyond it the link is not read
_UNTAKEN: Final = 4 * 1024 * 1024
_FIRST_DELAY: Final = 0.1  # seconds before the second try; doubled each time
_LAST_DELAY: Final = 5.0
_FAULTS: Final = 12  # attempts in a row that end in junk, about half a minute; then ``chat`` gives up (exit code 1)


@dataclass
class _Handshake:
    """One for each link: does the host hold the key that we expect, and here is ours.

    ``key`` is the host's, if the transport proves one (TLS), else b"" until the host shows it.
    """

    identity: Identity
    known_hosts: KnownHosts
    target: Target
    address: Address
    key: bytes
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    host_nonce: bytes = b""

    def __post_init__(self) -> None:
        if self.key:
            self._expect(self.key)

    def hello(self, challenge: Challenge) -> dict[str, bytes]:
        """Return the fields of HELLO that prove who we are and that we were invited. Raises Untrusted."""
        if self.key not in (b"", challenge.key):
            raise RemoteProtocolError("the host names another key than the one its wire has proved")
        self._expect(challenge.key)
        self.key, self.host_nonce = challenge.key, challenge.nonce
        signer = self.target.invite.signer if self.target.invite else None
        return {
            "nonce": self.nonce,
            "signature": self.identity.sign(self._transcript("member")),
            "invite": signer.key if signer else b"",
            "invite_proof": signer.sign(self._transcript("invite")) if signer else b"",
        }

    def _expect(self, key: bytes) -> None:
        """Raise Untrusted if this is not the key of the host that we mean."""
        if not self.target.host:
            self.known_hosts.check(self.address, key, learn=False)
        elif host_hash(key) != self.target.host:
            raise OtherHost("other-host", address=self.address, shown=fingerprint(key))

    def check(self, proof: bytes) -> None:
        """Raise Untrusted if the host does not hold its key."""
        if not verify(self.key, proof, self._transcript("host")):
            raise Untrusted("host-proof", address=self.address)

    def _transcript(self, role: str) -> bytes:
        return transcript(
            role,
            host=self.key,
            room=self.target.room,
            host_nonce=self.host_nonce,
            nonce=self.nonce,
            key=self.identity.key,
        )


class Connection:
    """Keeps the client's session connected."""

    def __init__(self, client: Client, silence: float | None) -> None:
        self.link: Link | None = None
        self.target: Target | None = None
        self._client = client
        self._session = client.session
        self._events = client.events
        self._silence = SILENCE if silence is None else silence
        self._handshake: _Handshake | None = None
        self._closing = False  # the host has said that it closes the room
        self._why = Text("")  # of closing the link ourselves
        self._out = bytearray()
        self._pushing: asyncio.Task[None] | None = None
        self._flush_due = False
        self._heard = math.inf  # when; infinity while we do not listen
        self._untaken = 0  # bytes received since there was nothing to take
        self._faults = 0  # in a row
        self._progress = (0, 0)  # the next message, and the first of ours that is unsettled, at the last fault
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Read the link and keep it alive, after ``connect``."""
        self._tasks = [asyncio.create_task(self._stay()), asyncio.create_task(self._keep_alive())]

    async def rejoin(self, why: Text) -> None:
        """Leave and come back."""
        if self.link is not None:
            self._why = why
            await self.link.aclose()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.link is not None:
            await self._drop(self.link)

    # -- joining ---------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Dial the target's addresses in turn until one lets us in. Raises what kept us out.

        Raises a TransportError if any of the addresses may let us in another time.
        """
        self.target = self._client.locate()
        failure: TransportError | None = None
        misled: ChatError | None = None  # by an address that is not, or no longer, our host's
        for address in self.target.addresses:
            try:
                return await self._join(await find(address.scheme).dial(address), self.target, address)
            except TransportError as error:
                failure = error
            except (AddressError, RemoteProtocolError) as error:  # no such transport here; another program there
                misled = misled or error
            except OtherHost as error:
                misled = error
        if failure is not None and isinstance(misled, OtherHost):
            raise DialFailed("{failure}; and {misled}", failure=failure.words, misled=misled.words)
        raise failure or misled or DialFailed("there is no address to dial; ask for a new invite")

    async def _join(self, link: Link, target: Target, address: Address) -> None:
        """Join over a new link, or close it: not even a beat may go to a host that did not prove its key."""
        try:
            async with patience(HELLO_TIMEOUT):
                await self._shake_hands(link, target, address)
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
        self._events.put(Up(address))
        self.flush()

    async def _shake_hands(self, link: Link, target: Target, address: Address) -> None:
        client = self._client
        self.link, client.address = link, address
        self._heard = time.monotonic()  # or _keep_alive would count the old link's silence against this one
        self._handshake = _Handshake(client.identity, client.known_hosts, target, address, link.peer.key or b"")
        client.board.open(target.board)
        self._session.connected()
        self._closing = False
        while self._session.state is not LinkState.JOINED:
            self.flush()
            data = await link.receive()
            if not data:
                raise LinkBroken("{address} closed the link before it let us in", address=address)
            self._receive(data)

    def _challenged(self, event: Challenge) -> None:
        assert self._handshake is not None
        proof = self._handshake.hello(event)
        outbox = self._client.open_outbox(event.key)
        left = outbox.unsettled() if outbox and not self._session.stream else ()  # by an earlier process
        self._session.hello(**proof, stream=outbox.stream if outbox else 0, unsettled=left)

    def _joined(self, event: Joined) -> None:
        client, handshake = self._client, self._handshake
        assert handshake is not None
        assert self.link is not None
        handshake.check(event.proof)
        client.host_key = handshake.key
        target, address, known = handshake.target, handshake.address, client.known_hosts
        trust = "pinned"
        try:
            if not target.host:
                trust = "trust on first use" if client.trusted_on_first_use else "known"
                if not known.check(address, handshake.key, learn=False):
                    trust, client.trusted_on_first_use = "trust on first use", fingerprint(handshake.key)
                    self._first_use(address, handshake.key)
                    known.check(address, handshake.key)
            elif target.remember and known.remember(address, handshake.key):
                self._events.put(LocalNotice(code="host-key", fields={"address": str(address)}))
        except StoreFull as error:
            fields: dict[str, str | int] = {"why": str(error), "address": str(address)}
            self._events.put(LocalNotice(code="not-remembered", fields=fields))
        if (uid := self.link.peer.uid) == os.geteuid():
            trust = "same user"
        elif uid is not None:
            from chat.local.shared import login

            trust = _("user {user}").format(user=login(uid))
        client.wire = (address.scheme, trust)
        client.board.joined()
        client.joined_as(event.nick)
        self._events.put(event)

    def _first_use(self, address: Address, key: bytes) -> None:
        fields: dict[str, str | int] = {"address": str(address), "shown": fingerprint(key)}
        notice = LocalNotice(code="first-use", fields=fields | {"words": words(host_hash(key))})
        if self._client.on_first_use is None:
            self._events.put(notice)
        else:
            self._client.on_first_use(notice)

    # -- bytes in, bytes out ---------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        self._heard = time.monotonic()
        for event in self._session.receive_data(data):
            match event:
                case Challenge():
                    self._challenged(event)
                case Numbered():
                    try:
                        self._client.renumbered()
                    except StoreFull as error:  # dial again, until our own disk takes it
                        raise LinkBroken(error.words) from None
                case Answered(number, answer):
                    self._client.queries.answered(number, answer)
                case Ranged():
                    self._client.queries.ranged(event)
                case Joined():
                    self._joined(event)
                case Notice(code="closing"):
                    self._closing = True  # people read it once, when the link ends
                case _:
                    self._events.put(event)

    def flush_soon(self) -> None:
        """Flush once in this turn of the loop, however many messages are said in it."""
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what the session has to send, as far as the link takes it now; the rest follows by itself."""
        self._flush_due = False
        if self.link is None:
            return
        self._out += self._session.data_to_send()
        try:
            while self._out and self._pushing is None:
                count = self.link.send(self._out)
                del self._out[:count]
                if not count:
                    self._pushing = asyncio.create_task(self._push(self.link))
        except TransportError:
            self._out = bytearray()  # _read learns of it from the same link, and comes back

    async def _push(self, link: Link) -> None:
        """Go on when the link has room again."""
        with suppress(TransportError):
            await link.writable()
        self._pushing = None
        self.flush()

    # -- staying ---------------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Read the link; come back when it is lost. Ends only by an error that no dialling can mend."""
        try:
            while True:
                assert self.link is not None
                joined, fault = time.monotonic(), None
                try:
                    why = await self._read(self.link)
                except (RemoteProtocolError, Refused) as error:
                    fault, why = error, error.words
                if time.monotonic() - joined > SILENCE:
                    self._faults = 0
                if fault is not None:
                    self._count(fault)
                    fault = None  # its traceback holds the link
                await self._drop(self.link)
                self._events.put(Lost(why))
                await self._come_back()
        except Exception as error:  # a bug of ours, too: a program that waits for an event would wait for ever
            self._events.end(error)
            if self.link is not None:
                await self._drop(self.link)

    async def _read(self, link: Link) -> Text:
        """Receive until the link is lost; return why it was."""
        try:
            while data := await link.receive():
                self._untaken = self._untaken + len(data) if self._events else len(data)
                self._receive(data)
                self.flush()
                while len(self._events) > _EVENTS or (self._events and self._untaken > _UNTAKEN):
                    self._heard = math.inf
                    await self._events.taken()
                    self._heard = time.monotonic()
        except LinkClosed:  # by us
            return self._why
        except TransportError as error:
            if not self._closing:
                return error.words
        if self._closing:
            return Text("the host has closed the room")
        assert self._client.address is not None
        return Text("{address} closed the link", address=self._client.address.brief)

    async def _come_back(self) -> None:
        delay = min(_FIRST_DELAY * 2**self._faults, _LAST_DELAY) if self._faults else 0.0
        while True:
            # A random wait, or all members would dial a restarted host at the same moment.
            await asyncio.sleep(delay * (0.5 + random.random()))
            delay = min(max(2 * delay, _FIRST_DELAY), _LAST_DELAY)
            try:
                return await self.connect()
            except (TransportError, NoSuchRoom, HostBusy):
                pass
            except (RemoteProtocolError, Refused) as error:
                self._count(error)

    def _count(self, fault: RemoteProtocolError | Refused) -> None:
        """Count a fault that may pass. Raises it if it cannot, or after several without any progress in between."""
        if isinstance(fault, Refused) and fault.code in NICKNAMES and self._session.keep_nick():
            self._client.wanted = self._session.nick
            self._events.put(LocalNotice(code=fault.code, fields=wire_fields(fault.words.fields)))
            return
        if isinstance(fault, Refused) and not isinstance(fault, Untrusted) and fault.code != "protocol":
            raise fault
        refused = isinstance(fault, Refused)
        progress = self._session.next_seq, self._session.unsettled.sent()[0]
        if progress[refused] != self._progress[refused]:  # a refusal is about what we send
            self._faults = 0
        self._progress = progress
        self._faults += 1
        if self._faults >= _FAULTS:
            if refused:
                raise fault
            raise RemoteProtocolError("gave up after {count} attempts: {why}", count=_FAULTS, why=fault.words)

    async def _keep_alive(self) -> None:
        """Send a beat every 4 s; close a link from which nothing has come for 12 s, counting only when we listened."""
        beat = time.monotonic() + BEAT
        while True:
            wake = min(beat, self._heard + self._silence)
            await asyncio.sleep(wake - time.monotonic())
            now = time.monotonic()
            if now - wake > STALL:  # this process stood still, and what came meanwhile is unread
                self._heard += min(now - wake, max(0.0, now - self._heard))
            if now >= beat:
                beat = now + BEAT
                if self.target is not None:
                    self._client.board.beat(self.target.board)
                self._session.beat()
                self.flush()
            if self.link is not None and now >= self._heard + self._silence:
                self._heard = math.inf
                self._why = Text("nothing was heard of the host for {seconds:g} s", seconds=self._silence)
                await self.link.aclose()  # ends receive(), and _stay dials again

    async def _drop(self, link: Link) -> None:
        self.link, self._client.wire, self._heard = None, (), math.inf
        self._client.board.close()
        self._session.lost()
        self._out = bytearray()  # not clear(): the traceback of a failed send may still look into the old one
        if self._pushing is not None:
            self._pushing.cancel()
            self._pushing = None
        self._client.queries.lost()
        await link.aclose()
