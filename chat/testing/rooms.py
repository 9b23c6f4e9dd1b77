"""R1-R4: a room over the transport under test, with the real host, store and client."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from chat.client.client import Client
from chat.client.events import Lost, Up
from chat.client.target import Target
from chat.core.bodies import Ask, Author, Gap, Notice, unpack
from chat.core.errors import LinkBroken, RequestFailed, StoreFull
from chat.core.events import Message, Rewound, Stored
from chat.core.wire import MAX_BATCH, MAX_TEXT, Kind, split
from chat.host.host import Host
from chat.host.store import Store
from chat.local.identity import Identity, host_hash, load_host
from chat.local.known_hosts import KnownHosts
from chat.testing.faults import Faults, GatedLink, WrappedTransport
from chat.testing.kit import CLOG_LIMIT, ROOM_CLAUSES, Check, Kit, begin, clause, fail, first_difference, within
from chat.transport import Address, Site
from chat.transport.registry import find, lend, schemes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from chat.client.events import ClientEvent
    from chat.core.ledger import RoomTables
    from chat.core.log import Batch
    from chat.transport import Transport

_ROOM: Final = "contract"
_THE_END: Final = "that was all"
_ROUND: Final = 5  # messages that each says before it waits for all of them to be stored
_COMEBACKS: Final = 8  # of each member, at least, in one go
_LACKS: Final = 64  # frames of 16 KiB that a stalled member lacks before some are taken away
_ROW: Final = 48  # bits: a batch's row in the store is room << 48 | its first number


_T = TypeVar("_T")


class Line(NamedTuple):
    """A message as it is in the log, and as every member must see it."""

    seq: int
    time: int
    nick: str
    text: str


class _Disk(Store):
    """A store that can be made to fail."""

    full = False

    def commit(self, room: int, batches: list[Batch], changes: RoomTables) -> None:
        if self.full:
            raise StoreFull("the disk is full, as the test asked for")
        super().commit(room, batches, changes)

    def lines(self, room: int) -> list[Line]:
        authors: dict[int, Author] = {}
        lines: list[Line] = []
        seq = 1
        while found := self.read(room, seq):
            if isinstance(found, Gap):
                fail(f"the store lacks the {found.count} numbers from {found.first} on")
            for frame in split(found.data):
                if frame.kind == Kind.AUTHOR:
                    authors[frame.author] = unpack(Author, frame)
                else:
                    lines.append(Line(frame.seq, frame.time, authors[frame.author].nick, frame.body.decode()))
            seq = found.next_seq
        return lines

    def lose_some(self, room: int, seq: int) -> list[Gap]:
        """From ``seq`` on, drop two rows in a row and damage one; return the resulting gaps."""
        database = self._database
        rows = [
            (at, Gap(first=at & (1 << _ROW) - 1, count=frames))
            for at, frames in database.execute(
                "SELECT at, frames FROM batches WHERE at >= ? AND at < ? ORDER BY at LIMIT 6",
                (room << _ROW | seq, (room + 1) << _ROW),
            )
        ]
        (one, first), (two, second), (three, third) = rows[1], rows[2], rows[4]
        database.execute("DELETE FROM batches WHERE at IN (?, ?)", (one, two))
        database.execute("UPDATE batches SET data = zeroblob(length(data)) WHERE at = ?", (three,))
        return [Gap(first=first.first, count=first.count + second.count), third]


@dataclass(eq=False)
class _Member:
    """A member of the room: what it said, and what it received."""

    name: str
    key: bytes
    client: Client
    said: list[str] = field(default_factory=list)
    events: list[ClientEvent] = field(default_factory=list)
    disk_full: asyncio.Event = field(default_factory=asyncio.Event)

    def got(self, kind: type[_T]) -> list[_T]:
        return [event for event in self.events if isinstance(event, kind)]

    def shown(self) -> list[Line]:
        return [Line(event.seq, event.time, event.author.nick, event.text) for event in self.got(Message)]

    async def say(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.said.append(text)
            await self.client.say(text)
            await asyncio.sleep(0)  # the others' turn: all speak at once

    async def speak(self, texts: Iterable[str]) -> None:
        """Say these texts, and wait until they are stored."""
        await self.say(texts)
        await self.client.settled()

    async def all_accepted(self) -> None:
        """Return when the host has read everything said: it answers a request only after that."""
        while True:
            try:
                await self.client.ask(Ask(what="nothing"))
            except RequestFailed:
                return
            except LinkBroken:  # it has not come back yet
                pass
            await asyncio.sleep(0)

    async def hear(self, last: str) -> None:
        """Take events until this text is shown."""
        heard = any(message.text == last for message in self.got(Message))
        while not heard:
            events = await self.client.next_events()
            if not events:
                fail(f"{self.name} was closed before it was shown {last!r}")
            self.events += events
            for event in events:
                match event:
                    case Message(text=text):
                        heard |= text == last
                    case Notice(code="disk-full"):
                        self.disk_full.set()
                    case Rewound(why):
                        fail(f"{self.name} had been shown what the host does not hold: {why}")


@dataclass
class _Harness:
    """A room on a real host with a real disk, on listeners of the transports under test, and its members."""

    folder: Path  # for the host and its members
    site: Site
    places: list[Callable[[], Address]]
    stack: AsyncExitStack  # the members leave with it, before the host
    members: list[_Member] = field(default_factory=list)

    async def open(self) -> None:
        self.store = _Disk(self.folder / "store")
        self.host = Host(load_host(self.site.certificate), self.store, rate=0)
        self.hosted = self.host.open_room(_ROOM, open_to_all=True)
        self._running = begin(self.host.run())
        self.addresses = [await self.host.listen(place(), self.site, _ROOM) for place in self.places]

    async def aclose(self) -> None:
        """Close the host. Raises the error that it failed with, if any."""
        await self.host.aclose()
        self.store.close()
        if self._running.done():
            self._running.result()
        self._running.cancel()

    async def join(self, name: str, *, reads_only: bool = False, roams: bool = False) -> _Member:
        """Add a member. If it ``roams``, it dials another of the host's addresses each time."""
        folder = self.folder / name
        identity = Identity.load(folder / "key")
        turns = count()

        def locate() -> Target:
            turn = next(turns) % len(self.addresses) if roams else 0
            # Many times: a client that is cut while it joins dials again at once, without the growing delay.
            return Target((self.addresses[turn],) * 5, _ROOM, host_hash(self.host.identity.key))

        while True:
            client = Client(
                locate,
                identity,
                KnownHosts(folder / "known_hosts"),
                outboxes=None if reads_only else folder / "outboxes",
                nick=name,
                silent=reads_only,
            )
            with suppress(LinkBroken):  # cut while it joined: the first time, a client does not come back by itself
                await self.stack.enter_async_context(client)
                self.members.append(_Member(name, identity.key, client))
                return self.members[-1]

    async def hear_all(self, speaking: Awaitable[object]) -> None:
        """Have everybody listen while some write, until the last text."""

        async def speak() -> None:
            await speaking
            await self.members[0].speak([_THE_END])

        await asyncio.gather(speak(), *(member.hear(_THE_END) for member in self.members))

    async def speak_until_all_came_back(self, chance: random.Random) -> None:
        """Have everybody write, in rounds, until each has reconnected some times."""
        due = {member: len(member.got(Up)) + _COMEBACKS for member in self.members}
        while any(len(member.got(Up)) < due[member] for member in self.members):
            await asyncio.gather(*(member.speak(_texts(member.name, chance)) for member in self.members))

    def check(self, members: list[_Member], lines: list[Line] | None = None) -> None:
        """Check that the log holds every text once and in order, and that all saw it so, except for reported gaps."""
        lines = self.store.lines(self.hosted.number) if lines is None else lines
        for member in members:
            mine = [(line.seq, line.text) for line in lines if line.nick == member.name]
            _alike("the log", [text for _, text in mine], f"what {member.name} said", member.said)
            stored = [(event.seq, event.entry.body.decode()) for event in member.got(Stored)]
            _alike(f"what {member.name} was told is stored", stored, "the log", mine)
            gone = {seq for gap in member.got(Gap) for seq in range(gap.first, gap.first + gap.count)}
            due = [line for line in lines if line.seq not in gone]
            _alike(f"what {member.name} was shown", member.shown(), "the log", due)


def _texts(name: str, chance: random.Random, many: int = _ROUND) -> list[str]:
    """Return texts of about 25 bytes to 3 KB, all different."""
    sizes = (chance.choice((0, chance.randrange(1_000))) for _ in range(many))
    return [f"{name} {chance.getrandbits(64):x} {'漢' * size}" for size in sizes]


def _alike(what: str, got: Sequence[object], other: str, due: Sequence[object]) -> None:
    if got != due:
        at = first_difference(got, due)
        fail(
            f"{what} has {len(got)} messages, {other} {len(due)}; they differ from the {at + 1}. on: "
            f"{str(got[at : at + 1])[:120]} and {str(due[at : at + 1])[:120]}"
        )


@asynccontextmanager
async def _hosting(kit: Kit, *places: tuple[Transport, Callable[[], Address]]) -> AsyncIterator[_Harness]:
    with TemporaryDirectory(dir=kit.folder) as folder:
        async with AsyncExitStack() as stack:  # the members leave before the host
            for transport, _ in places:
                stack.enter_context(lend(transport))
            site = Site(kit.folder, Path(folder) / "host.pem")
            harness = _Harness(Path(folder), site, [address for _, address in places], stack)
            await harness.open()
            stack.push_async_callback(harness.aclose)
            yield harness


def _also_over_faulty_links(check: Callable[[Kit, Transport], Awaitable[None]]) -> Check:
    @wraps(check)
    async def check_twice(kit: Kit) -> None:
        await check(kit, kit.transport)
        await check(kit, WrappedTransport(kit.transport, Faults(seed=1)))

    return check_twice


@clause("R1", ROOM_CLAUSES)
@_also_over_faulty_links
async def one_order(kit: Kit, transport: Transport) -> None:
    """When many write at once, everybody sees every message once, in the order of the log on disk."""
    chance = random.Random("R1")
    async with _hosting(kit, (transport, kit.address)) as harness:
        members = [await harness.join(name) for name in ("ann", "bob", "cid")]
        await harness.join("dan", reads_only=True)
        await harness.hear_all(asyncio.gather(*(member.speak(_texts(member.name, chance, 60)) for member in members)))
        harness.check(harness.members)
        _none(Lost, harness.members)


@clause("R2", ROOM_CLAUSES)
async def cut_and_come_back(kit: Kit) -> None:
    """Links may be cut anywhere, and the host may end: members reconnect, and nothing is lost or doubled."""
    chance = random.Random("R2")
    faults = Faults(seed=2, cutting=True)
    async with _hosting(kit, (WrappedTransport(kit.transport, faults), kit.address)) as harness:
        members = [await harness.join(name) for name in ("ann", "bob", "cid")]

        async def speak() -> None:
            await harness.speak_until_all_came_back(chance)
            for full_to_the_last in (True, False):
                harness.store.full = True
                for member in members:
                    member.disk_full.clear()
                for member in members:
                    await member.say(_texts(member.name, chance))
                for member in members:
                    await member.disk_full.wait()
                faults.cutting = False
                faults.cut()  # whoever comes back must not take for stored what is only accepted
                for member in members:
                    await member.all_accepted()
                faults.cutting = True
                harness.store.full = full_to_the_last  # the next host knows only what this one has stored
                await harness.aclose()
                await harness.open()
                await harness.speak_until_all_came_back(chance)
            faults.cutting = False

        await harness.hear_all(speak())
        harness.check(members)
        _none(Gap, members)


@clause("R3", ROOM_CLAUSES)
@_also_over_faulty_links
async def stalled_member(kit: Kit, transport: Transport) -> None:
    """A stalled member delays nobody, and is told its exact gap if messages it lacks are gone."""
    gate = asyncio.Event()
    gate.set()
    async with _hosting(kit, (transport, kit.address)) as harness:
        ann, bob = [await harness.join(name) for name in ("ann", "bob")]
        with lend(WrappedTransport(transport, lambda link: GatedLink(link, gate))):
            cid = await harness.join("cid")
        gate.clear()
        log = harness.hosted.room.log
        log._limit = MAX_BATCH  # what cid lacks comes from the disk, as it would after a long time
        (cursor,) = (member.cursor for member in harness.hosted.room.members if member.key == cid.key)
        while log.end - cursor.seq < _LACKS:  # until its link is full; the others have got everything by then
            texts = [f"{len(ann.said) + n} ".ljust(MAX_TEXT, "x") for n in range(_ROUND)]
            heard = asyncio.gather(ann.speak(texts), ann.hear(texts[-1]), bob.hear(texts[-1]))
            await within(kit, heard, "what ann said, on its way to bob with cid stalled,")
            if len(ann.said) * MAX_TEXT > CLOG_LIMIT:
                fail(f"a member that reads nothing was sent {len(ann.said)} messages of 16 KiB: its link has no bound")
        harness.check([ann, bob])
        gaps = harness.store.lose_some(harness.hosted.number, cursor.seq)
        gate.set()
        await harness.hear_all(ann.speak(_texts("ann", random.Random("R3"))))
        harness.check(harness.members, ann.shown())
        _alike("what cid was told of gaps", cid.got(Gap), "the store", gaps)
        _none(Gap, [ann, bob])
        _none(Lost, harness.members)


@clause("R4", ROOM_CLAUSES)
async def resume_elsewhere(kit: Kit) -> None:
    """A member may leave on this transport and resume on another, and back: nothing is lost or doubled."""
    chance = random.Random("R4")
    faults = Faults(seed=4, cutting=True)
    elsewhere = kit.elsewhere or Address(next(name for name in schemes() if name != kit.transport.scheme))
    here, there = WrappedTransport(kit.transport, faults), WrappedTransport(find(elsewhere.scheme), faults)
    async with _hosting(kit, (there, lambda: elsewhere), (here, kit.address)) as harness:
        members = [await harness.join(name, roams=True) for name in ("ann", "bob", "cid")]

        async def speak() -> None:
            await harness.speak_until_all_came_back(chance)
            faults.cutting = False

        await harness.hear_all(speak())
        harness.check(members)
        _none(Gap, members)
        for member in members:
            if (over := {str(up.address) for up in member.got(Up)}) != set(map(str, harness.addresses)):
                fail(f"{member.name} was to roam between {harness.addresses}, and was only over {over}")


def _none(kind: type[Gap | Lost], members: list[_Member]) -> None:
    trouble = "lost its link" if kind is Lost else "was told of a gap where everything was to be had"
    for member in members:
        if got := member.got(kind):
            fail(f"{member.name} {trouble}: {got[0]}")
