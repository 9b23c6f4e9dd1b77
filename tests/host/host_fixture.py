"""The host fixture: a real host with its store on disk, members that are real clients, and raw peers."""

from __future__ import annotations

import asyncio
import math
import secrets
import shutil
import threading
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pytest

from chat.client.client import Client
from chat.client.target import Target
from chat.core.bodies import Ask, Challenge, Gap, Hello, Refusal, Welcome, pack, unpack
from chat.core.errors import LinkBroken, LinkClosed, Refused, RequestFailed
from chat.core.events import Message, Stored
from chat.core.wire import PREFACE, Frame, Kind, Parser, encode, split
from chat.host.host import Host
from chat.host.store import Store
from chat.local.identity import Identity, load_host, transcript
from chat.local.invite import Invite
from chat.local.known_hosts import KnownHosts
from chat.transport import Address, Peer, Site
from chat.transport.registry import find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from chat.client.events import ClientEvent
    from chat.core.ledger import RoomTables
    from chat.core.log import Batch
    from chat.core.outgoing import OutboxEntry
    from chat.host.hosted_room import HostedRoom
    from chat.transport import Buffer, Link

BOUND: Final = 20.0  # seconds that a test may take; it is there for a hang, and says nothing about speed
_T = TypeVar("_T")
_names = count(1)


def run(scene: Coroutine[Any, Any, _T]) -> _T:
    """Run a test's coroutine, which must come to its end and leave no task behind."""

    async def bounded() -> _T:
        async with asyncio.timeout(BOUND):
            result = await scene
        await until(lambda: len(asyncio.all_tasks()) == 1, "the tasks have ended")
        return result

    return asyncio.run(bounded())


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something that makes no event of its own."""
    try:
        async with asyncio.timeout(BOUND / 2):
            while not holds():  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"it never came to this: {what}") from None


class HostFixture:
    """A host of the room "lobby". It can be closed and opened again, from the same store or from a copy."""

    def __init__(self, folder: Path, address: str = "", *, open_to_all: bool = True, rate: int = 0) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.asked = Address.parse(address or f"memory:fixture-{next(_names)}")
        self.key = folder / "host.pem"
        self.owner = Identity.load(folder / "owner.pem")
        self.open_to_all = open_to_all
        self.rate = rate
        self.running: asyncio.Future[None] | None = None
        self.board: Path | None = None  # a folder for the room's board

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def make_store(self) -> Store:
        return Store(self.folder / "store")

    async def open(self) -> None:
        self.store = self.make_store()
        self.host = Host(load_host(self.key), self.store, owners=frozenset({self.owner.key}), rate=self.rate)
        self.hosted = self.open_lobby()
        self.address = await self.host.listen(self.asked, Site(self.folder, self.key), "lobby")
        self.running = asyncio.ensure_future(self.host.run())

    def open_lobby(self) -> HostedRoom:
        return self.host.open_room("lobby", open_to_all=self.open_to_all, folder=self.board)

    async def close(self) -> None:
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running
            self.running = None
            await self.host.aclose()
            self.store.close()

    def copy_store(self, name: str) -> Path:
        """What another host would find if this one died now, but for the search index: that writes when it likes."""
        return shutil.copytree(self.folder / "store", self.folder / name, ignore=shutil.ignore_patterns("search-*"))

    async def go_back_to(self, copy: Path) -> None:
        """Close, and open again from a copy, as people do who restore a backup."""
        await self.close()
        shutil.rmtree(self.folder / "store")
        shutil.copytree(copy, self.folder / "store")
        (self.folder / "store" / "log.mark").unlink()
        await self.open()

    def add_room(self, name: str) -> HostedRoom:
        return self.host.open_room(name, open_to_all=self.open_to_all)

    def log(self) -> list[Frame]:
        """The whole log, as it is stored."""
        found: list[Frame] = []
        seq = 1
        while batch := self.store.read(self.hosted.number, seq):
            assert not isinstance(batch, Gap)
            found += split(batch.data)
            seq = batch.next_seq
        return found

    def texts(self) -> list[str]:
        """What was said, as it is stored."""
        return [frame.body.decode() for frame in self.log() if frame.kind == Kind.SAY]

    def nicks(self) -> list[str]:
        return [nick for _, nick in self.hosted.room.roster.here]

    # -- those who come --------------------------------------------------------------------------

    def client(
        self,
        nick: str,
        *,
        invite: Invite | None = None,
        reads_only: bool = False,
        room: str = "lobby",
        addresses: tuple[Address, ...] = (),
        history: int = 10_000,
        other: str = "",
        **more: Any,
    ) -> Member:
        """A client of the room; with ``other``, of the direct room of the two."""
        host = invite.host if invite else b""
        key = self.owner if nick == "owner" else Identity.load(self.folder / f"{nick}.pem")

        def locate() -> Target:
            target = Target(addresses or (self.address,), room, host, invite)
            return target.direct(key.key, Identity.load(self.folder / f"{other}.pem").key) if other else target

        made = Member(
            locate,
            key,
            KnownHosts(self.folder / f"{nick}.hosts"),
            outboxes=None if reads_only else self.folder / f"{nick}.outboxes",
            nick=nick,
            silent=reads_only,
            history=history,
            **more,
        )
        made.on_first_use = lambda _notice: None  # each test would begin with it
        return made

    @asynccontextmanager
    async def members(self, *nicks: str) -> AsyncIterator[list[Member]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.client(nick)) for nick in nicks]

    async def dial(self) -> RawPeer:
        """A peer that has said nothing yet."""
        return RawPeer(self, await find(self.address.scheme).dial(self.address))

    async def raw(self, nick: str, **more: Any) -> RawPeer:
        """A member whose frames the test writes itself."""
        peer = await self.dial()
        await peer.say_hello(nick, **more)
        return peer


class SlowStore(Store):
    """A disk that takes its time: until the test says so."""

    disk: threading.Event
    commits: int = 0

    def commit(self, room: int, batches: list[Batch], changes: RoomTables) -> None:
        self.commits += 1
        assert self.disk.wait(20)
        super().commit(room, batches, changes)


class SlowHostFixture(HostFixture):
    """A host whose commits all go to a thread, and wait there for ``disk``."""

    store: SlowStore

    def make_store(self) -> SlowStore:
        self.disk = threading.Event()
        store = SlowStore(self.folder / "store")
        store.disk = self.disk
        return store

    async def open(self) -> None:
        await super().open()
        self.host.commit_time = math.inf

    async def close(self) -> None:
        self.disk.set()
        await super().close()


class RawPeer:
    """A peer that speaks the wire byte by byte."""

    def __init__(self, fixture: HostFixture, link: Link) -> None:
        self.fixture = fixture
        self.link = link
        self.parser = Parser()
        self.frames: list[Frame] = []
        self.challenge: Frame | None = None
        self.welcome: Welcome | None = None

    async def frame(self, *kinds: int) -> Frame:
        """Return the next frame of one of these kinds, or the next of any kind; skip those before it."""
        while True:
            while self.frames:
                found = self.frames.pop(0)
                self.challenge = found if found.kind == Kind.CHALLENGE else self.challenge
                if not kinds or found.kind in kinds:
                    return found
            data = await self.link.receive()
            assert data, f"the host closed the link and sent none of {kinds}"
            self.frames += self.parser.feed(data)

    async def hello(self, nick: str, *, room: str = "lobby", key: Identity | None = None, **more: Any) -> Hello:
        """Read the challenge, and make the right answer to it."""
        key = key or Identity.load(self.fixture.folder / f"{nick}.pem")
        challenge = unpack(Challenge, self.challenge or await self.frame(Kind.CHALLENGE))
        nonce = secrets.token_bytes(32)
        said, by_invite = (
            transcript(role, host=challenge.key, room=room, host_nonce=challenge.nonce, nonce=nonce, key=key.key)
            for role in ("member", "invite")
        )
        invite: Invite | None = more.pop("invite", None)
        if invite is not None:
            more |= {"invite": invite.signer.key, "invite_proof": invite.signer.sign(by_invite)}
        return Hello(room=room, key=key.key, nonce=nonce, signature=key.sign(said), nick=nick, **more)

    async def say_hello(self, nick: str, *, stream: int = 1, more_data: bytes = b"", **more: Any) -> Welcome:
        hello = await self.hello(nick, stream=stream, **more)
        await self.send(PREFACE + pack(Kind.HELLO, hello) + more_data)
        self.welcome = unpack(Welcome, await self.frame(Kind.WELCOME))
        return self.welcome

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if not (count := self.link.send(rest)):
                await self.link.writable()
            rest = rest[count:]

    async def say(self, number: int, text: str = "hi", *, times: int = 1) -> None:
        """Say ``times`` messages, in one piece."""
        await self.send(b"".join(encode(Kind.SAY, text.encode(), number=number + n) for n in range(times)))

    async def ask(self, what: str, **more: Any) -> None:
        await self.send(pack(Kind.ASK, Ask(what=what, **more)))

    async def beat(self) -> None:
        await self.send(encode(Kind.BEAT))

    async def refusal(self) -> Refusal:
        return unpack(Refusal, await self.frame(Kind.REFUSED))

    async def everything(self) -> bytes:
        """Whatever comes until the link ends."""
        data = b""
        with suppress(LinkBroken):
            while more := await self.link.receive():
                data += more
        return data

    async def leave(self) -> None:
        await self.link.aclose()


class Member(Client):
    """A real client, and ways to wait for its events."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._seen: deque[ClientEvent] = deque()

    async def event(self, kind: type[_T], holds: Callable[[_T], object] = lambda _: True) -> _T:
        """Wait for an event of a kind; those before it are gone."""
        while True:
            while self._seen:
                found = self._seen.popleft()
                if isinstance(found, kind) and holds(found):
                    return found
            self._seen += await self.next_events()

    async def hear(self, *texts: str) -> list[Message]:
        """Wait for these messages, in this order; return them."""
        return [await self.event(Message, lambda message, text=text: message.text == text) for text in texts]  # type: ignore[misc]

    async def stored(self, *entries: OutboxEntry) -> list[int]:
        """Wait until these are stored, in this order; return their numbers in the log."""
        return [(await self.event(Stored, lambda stored, entry=entry: stored.entry is entry)).seq for entry in entries]  # type: ignore[misc]

    def so_far(self, kind: type[_T]) -> list[_T]:
        """Return the events of a kind that are here now; the others are gone."""
        found: list[_T] = [event for event in (*self._seen, *self.take()) if isinstance(event, kind)]
        self._seen.clear()
        return found


async def declined(member: Member, ask: Ask) -> str:
    """Ask the host for something, and return why it says no."""
    with pytest.raises(RequestFailed) as caught:
        await member.ask(ask)
    return str(caught.value)


class FakeLink:
    """A link that the test drives. It takes as many bytes as ``room`` says, and keeps them in ``taken``."""

    def __init__(self, name: str = "fake") -> None:
        self.peer = Peer(name)
        self.room: float = float("inf")
        self.taken: list[bytes] = []
        self.fails: dict[str, Exception] = {}
        self.closed = False
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = asyncio.Event()

    def _act(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]
        if self.closed:
            raise LinkClosed("it was closed here")

    def send(self, data: Buffer) -> int:
        self._act("send")
        count = int(min(len(data), self.room))
        self.room -= count
        if count:
            self.taken.append(bytes(data[:count]))
        return count

    def make_room(self, size: float) -> None:
        self.room = size
        self._room.set()

    async def writable(self) -> None:
        while not self.room:
            self._act("writable")
            self._room.clear()
            await self._room.wait()
        self._act("writable")

    def arrive(self, data: bytes) -> None:
        self._incoming.put_nowait(data)

    async def receive(self) -> bytes:
        self._act("receive")
        data = await self._incoming.get()
        self._act("receive")
        return data

    async def aclose(self) -> None:
        self.closed = True
        self._room.set()
        self._incoming.put_nowait(b"")
        if "aclose" in self.fails:
            raise self.fails["aclose"]


class FakeTransport:
    """A transport of such links: both sides hand in the links that they want to be given."""

    scheme = "fake"
    summary = "for tests"

    def __init__(self) -> None:
        self.address = Address("fake")
        self.accepted: asyncio.Queue[FakeLink | None] = asyncio.Queue()
        self.dialled: list[FakeLink] = []

    async def listen(self, address: Address, site: Site) -> Self:
        return self

    async def accept(self) -> Link:
        if (link := await self.accepted.get()) is None:
            raise LinkClosed("it was closed here")
        return link

    async def aclose(self) -> None:
        while not self.accepted.empty():
            if (link := self.accepted.get_nowait()) is not None:
                await link.aclose()
        self.accepted.put_nowait(None)

    async def dial(self, address: Address) -> Link:
        return self.dialled.pop(0)


class Script:
    """A host that does what the test makes it do, over a memory link. ``key`` is the one that it shows."""

    def __init__(self, folder: Path, address: Address, *, key: Identity | None = None) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.site = Site(folder, folder / "host.pem")
        self.address = address
        self.identity = load_host(self.site.certificate)
        self.shown = (key or self.identity).key

    async def __aenter__(self) -> Self:
        self.listener = await find(self.address.scheme).listen(self.address, self.site)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.aclose()

    async def accept(self) -> Scripted:
        return Scripted(self, await self.listener.accept())

    async def meet(self, **fields: Any) -> Scripted:
        """Accept one client, and let it in."""
        link = await self.accept()
        await link.let_in(**fields)
        return link


class Scripted:
    """The host's end of one link."""

    def __init__(self, script: Script, link: Link) -> None:
        self.script = script
        self.link = link
        self.parser = Parser()
        self.nonce = secrets.token_bytes(32)
        self.frames: list[Frame] = []

    def send(self, *frames: bytes) -> None:
        data = b"".join(frames)
        assert self.link.send(data) == len(data)

    async def frame(self, kind: int) -> Frame:
        """Return the client's next frame of this kind."""
        while True:
            while self.frames:
                if (found := self.frames.pop(0)).kind == kind:
                    return found
            data = await self.link.receive()
            assert data, f"the client closed the link and sent no {kind}"
            self.frames += self.parser.feed(data)

    async def everything(self) -> list[Frame]:
        """What comes from the client until it closes the link."""
        with suppress(LinkBroken):
            while data := await self.link.receive():
                self.frames += self.parser.feed(data)
        await self.link.aclose()
        return self.frames

    async def challenge(self) -> Hello:
        self.send(PREFACE, pack(Kind.CHALLENGE, Challenge(key=self.script.shown, nonce=self.nonce)))
        self.hello = unpack(Hello, await self.frame(Kind.HELLO))
        return self.hello

    async def let_in(self, *more: bytes, **fields: Any) -> None:
        """Everything up to WELCOME, and what is to come right behind it."""
        hello = await self.challenge()
        proof = transcript(
            "host",
            host=self.script.shown,
            room=hello.room,
            host_nonce=self.nonce,
            nonce=hello.nonce,
            key=hello.key,
        )
        welcome: dict[str, Any] = {
            "room": "lobby",
            "epoch": b"an epoch",
            "next_seq": 1,
            "start": hello.next_seq or 1,
            "show": 1,
            "nick": hello.nick,
            "first_unsettled": 1 if hello.stream else 0,
            "proof": self.script.identity.sign(proof),
        }
        self.send(pack(Kind.WELCOME, Welcome(**(welcome | fields))), *more)


WIRES: Final = ("", "tcp:127.0.0.1:0", "tcp:[::1]:0?tls=0")  # "" is memory, with a name of its own


every_wire = pytest.mark.parametrize("wire", WIRES, ids=["memory", "tcp", "tcp-plain"])


async def refused(fixture: HostFixture, nick: str, code: str, invite: Invite | None = None) -> str:
    with pytest.raises(Refused) as caught:
        async with fixture.client(nick, invite=invite):
            pytest.fail(f"{nick} was let in")
    assert caught.value.code == code
    return str(caught.value)


async def new_invite(fixture: HostFixture, **limits: Any) -> Invite:
    async with fixture.client("owner") as owner:
        answer = await owner.ask(Ask(what="invite", **limits))
    return Invite.parse(answer.text)


class Guest:
    """A raw member over a FakeLink."""

    def __init__(self, fixture: HostFixture, fake_transport: FakeTransport, nick: str) -> None:
        self.nick = nick
        self.link = FakeLink(nick)
        self.raw = RawPeer(fixture, self.link)
        self.fake_transport = fake_transport

    async def come(self, **more: Any) -> None:
        self.fake_transport.accepted.put_nowait(self.link)
        await until(lambda: self.link.taken, "the challenge")
        self.raw.frames += self.raw.parser.feed(b"".join(self.link.taken))
        self.link.taken.clear()
        hello = await self.raw.hello(self.nick, stream=1, **more)
        self.link.arrive(PREFACE + pack(Kind.HELLO, hello))

    def say(self, number: int, text: str = "hi") -> None:
        self.link.arrive(encode(Kind.SAY, text.encode(), number=number))

    def frames(self) -> list[Any]:
        """What has come since WELCOME."""
        return list(Parser(preface=False).feed(b"".join(self.link.taken)))

    def has(self, text: str) -> bool:
        return any(frame.body == text.encode() for frame in self.frames())


def stored_invites(store: Store, room: int) -> list[tuple[bytes, int, int]]:
    """The invites that this host made, besides the standing one: key, when it expires, uses left."""
    query = "SELECT key, expires, uses FROM invites JOIN invite_uses USING (room, key) WHERE room = ? ORDER BY key"
    return store._database.execute(query, (room,)).fetchall()


def fill_disk(fixture: HostFixture) -> None:
    """From now on SQLite says that the disk is full, as the system would say to it: SQLITE_FULL."""
    (pages,) = fixture.store._database.execute("PRAGMA page_count").fetchone()
    fixture.store._database.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(fixture: HostFixture) -> None:
    fixture.store._database.execute("PRAGMA max_page_count = 1000000")
