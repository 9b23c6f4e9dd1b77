"""Sessions and a room, joined by pipes that lose bytes, with processes and hosts that die at any moment.

Whatever happens in between, in the end: everyone has been told of every message once, in one order, or of
the gap where it was (I4, I5); what was said is in the log once, and whoever said it has been told so once;
nothing counts as stored that is not on the host's disk; and what no host had acknowledged is not lost (I6).
A message that the host rejects is told so, is in no log, and never counts as stored.
"""

from __future__ import annotations

import copy
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat.client.outbox import Outbox
from chat.core.bodies import Author, Challenge, Gap, Hello, Rejection, pack, unpack
from chat.core.events import Joined, Message, Numbered, Rejected, Stored
from chat.core.ledger import RoomTables
from chat.core.log import Batch, Log
from chat.core.outgoing import OutboxEntry, Outgoing, split_body
from chat.core.room import Member, Room
from chat.core.session import LinkState, Session
from chat.core.wire import PREFACE, Kind, Parser, encode, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.core.events import Event

WINDOW: Final = 700  # bytes of the log in a host's memory: a few batches, so that most comes from the disk
ALL: Final = 10_000
PEOPLE: Final = ((b"a" * 32, "ann"), (b"b" * 32, "bob"))
MOST: Final = 5  # processes at one time
NOWHERE: Final = 1 << 40  # a number that no log here reaches


@dataclass
class Disk:
    """What a host has stored. A backup is a copy of it."""

    epoch: bytes
    batches: list[Batch] = field(default_factory=list)
    authors: list[Author] = field(default_factory=list)
    high_water: dict[tuple[bytes, int], int] = field(default_factory=dict)
    nicks: list[tuple[str, str, bytes]] = field(default_factory=list)
    rejections: dict[tuple[bytes, int, int], Rejection] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)  # batches by their first number

    def commit(self, batches: list[Batch], changes: RoomTables) -> None:
        self.batches += batches
        self.authors += changes.authors
        self.high_water.update({(key, stream): number for key, stream, number in changes.high_water})
        self.nicks += changes.nicks
        self.rejections.update({(key, stream, one.number): one for key, stream, one in changes.rejections})

    def read(self, seq: int) -> Batch | Gap | None:
        for batch in self.batches:
            if batch.first <= seq < batch.next_seq:
                return Gap(first=seq, count=batch.next_seq - seq) if batch.first in self.damaged else batch
        return None

    def messages(self) -> dict[int, str]:
        """Every message by its number, also those that cannot be read any more."""
        frames = (one for batch in self.batches for one in split(batch.data))
        return {one.seq: one.body.decode() for one in frames if one.kind == Kind.SAY}

    def tables(self) -> RoomTables:
        return RoomTables(
            authors=self.authors,
            high_water=[(key, stream, number) for (key, stream), number in self.high_water.items()],
            nicks=self.nicks,
            rejections=[(*who[:2], one) for who, one in sorted(self.rejections.items(), key=itemgetter(0))],
        )

    @property
    def next_seq(self) -> int:
        return self.batches[-1].next_seq if self.batches else 1


class Link:
    """Bytes on their way, both ways, and the host's end."""

    def __init__(self, host: Host) -> None:
        self.host: Host | None = host
        self.up = bytearray()
        self.down = bytearray(PREFACE + pack(Kind.CHALLENGE, Challenge(key=bytes(32), nonce=bytes(32))))
        self.parser = Parser()
        self.member: Member | None = None
        self.show = 0  # as WELCOME says


class Host:
    """A room and its links, as the real host puts them together, without its clock, its loop and its disk."""

    def __init__(self, disk: Disk, clock: Iterator[int]) -> None:
        self.disk = disk
        self.clock = clock
        self.links: list[Link] = []
        log = Log(disk.epoch, next_seq=disk.next_seq, older=disk.read, window=WINDOW)
        self.room = Room("lobby", log, disk.tables(), open_to_all=True)
        self.committing: tuple[list[Batch], RoomTables] | None = None  # in a thread, on a slow disk

    def accept(self) -> Link:
        link = Link(self)
        self.links.append(link)
        return link

    def receive(self, link: Link, data: bytes) -> None:
        for one in link.parser.feed(data):
            if link.member is None:
                self.let_in(link, unpack(Hello, one))
            else:
                assert self.room.handle(link.member, one, next(self.clock)) is None

    def let_in(self, link: Link, hello: Hello) -> None:
        entry = self.room.enter(hello)
        link.member, link.show = entry.member, entry.welcome.show
        self.room.welcome(entry, b"")
        for other in self.links:
            if entry.replaced is not None and other.member is entry.replaced:
                self.close(other)
                break

    def close(self, link: Link) -> None:
        if link.member is not None:
            self.room.leave(link.member)
        link.host = None
        self.links.remove(link)

    def begin_commit(self) -> None:
        if self.committing is None:
            self.committing = self.room.log.seal(), self.room.take_changes()

    def end_commit(self, *, full: bool = False) -> list[Batch]:
        """Return what is stored now and was not before."""
        assert self.committing is not None
        (batches, changes), self.committing = self.committing, None
        if full:
            self.room.give_back(changes)
            return []
        self.disk.commit(batches, changes)
        assert not self.room.committed(batches, changes)
        return batches

    def send(self, link: Link, limit: int) -> None:
        """Hand at most ``limit`` bytes to the wire."""
        if (member := link.member) is None:
            return
        while limit and (data := member.pending(self.room.log, self.room.roster)):
            piece = bytes(data[:limit])
            member.cursor.advance(len(piece))
            link.down += piece
            limit -= len(piece)


class Process:
    """A member's program: a session, an outbox on disk, and what it has shown."""

    def __init__(self, who: tuple[bytes, str], outbox: Outbox, history: int) -> None:
        self.who = who
        self.outbox = outbox
        self.session = Session("lobby", who[0], nick=who[1], history=history)
        self.link: Link | None = None
        self.untaken: list[OutboxEntry] = []
        self.told: set[int] = set()  # entries of which this process was told the outcome, by id()
        self.left = outbox.unsettled()
        self.entries = self.left.copy()  # keeps them alive, so that each id() stays its own
        self.shown: dict[int, str] = {}
        self.gaps: list[Gap] = []
        self.begins = 0  # what it was to be shown from, since the last time that everything began anew

    def connect(self, host: Host) -> None:
        self.link = host.accept()
        self.session.connected()
        self.flush()

    def flush(self) -> None:
        if self.link is not None:
            self.link.up += self.session.data_to_send()

    def lost(self) -> None:
        self.link = None
        self.session.lost()

    def say(self, text: str, *, rejected: bool = False) -> None:
        message = Outgoing(text, Kind.EDIT, NOWHERE) if rejected else Outgoing(text)
        entry = self.session.number(message)
        self.entries.append(entry)
        self.outbox.add(entry)
        self.session.say(entry)
        self.flush()

    def take(self) -> None:
        """What was told has been dealt with: the outbox may forget it."""
        for entry in self.untaken:
            self.outbox.settle(entry.number)
        self.untaken.clear()

    def receive(self, data: bytes) -> list[Event]:
        events = self.session.receive_data(data)
        for event in events:
            match event:
                case Challenge():
                    self.session.hello(
                        nonce=bytes(32),
                        signature=bytes(64),
                        stream=self.outbox.stream,
                        unsettled=self.left,
                    )
                case Numbered():
                    self.outbox.rewrite(self.session.unsettled)
                case Joined(resumed=False):
                    assert self.link is not None
                    self.shown, self.gaps, self.begins = {}, [], self.link.show
                case Message(seq=seq, text=text):
                    assert seq > max(self.shown, default=0), "a message came twice, or out of order"
                    self.shown[seq] = text
                case Gap():
                    self.gaps.append(event)
                case Stored(entry) | Rejected(entry):
                    assert id(entry) not in self.told, "its outcome was told twice"
                    self.told.add(id(entry))
                    self.untaken.append(entry)
        self.flush()
        return events


class SessionsAndRoom(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))
        self.clock = count(1)
        self.numbers = count(1)
        self.host = Host(Disk(secrets.token_bytes(8)), self.clock)
        self.backups: list[Disk] = []
        self.processes: list[Process] = []
        self.orphans: list[Link] = []  # the client has gone from them, the host does not know
        self.said: set[str] = set()
        self.wrong: set[str] = set()  # what was said and no host takes
        self.rejected: set[str] = set()
        self.given_back: set[str] = set()  # since nobody could tell whether it was stored
        self.acknowledged: set[str] = set()
        self.ever_stored: set[tuple[str, int]] = set()
        self.lost_by_host: set[str] = set()
        self.ever_damaged: set[int] = set()

    @initialize(backed_up=st.booleans())
    def two_members_talk(self, backed_up: bool) -> None:
        for person in (0, 1):
            self.start_a_process(person, ALL)
            self.say_something(person, [False])
        self.everybody_talks()
        if backed_up:
            self.backups.append(copy.deepcopy(self.host.disk))

    # -- processes ---------------------------------------------------------------------------------

    def start(self, person: int, history: int) -> Process:
        who = PEOPLE[person]
        process = Process(who, Outbox.open(self.folder / who[1]), history)
        self.processes.append(process)
        return process

    @precondition(lambda self: len(self.processes) < MOST)
    @rule(person=st.sampled_from([0, 1]), history=st.sampled_from([ALL, ALL, 0, 2]))
    def start_a_process(self, person: int, history: int) -> None:
        self.start(person, history).connect(self.host)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST))
    def kill_a_process(self, which: int) -> None:
        process = self.processes.pop(which % len(self.processes))
        process.outbox.close()
        if process.link is not None:
            self.orphans.append(process.link)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST), rejected=st.lists(st.sampled_from([False, False, True]), min_size=1, max_size=3))
    def say_something(self, which: int, rejected: list[bool]) -> None:
        process = self.processes[which % len(self.processes)]
        for no in rejected:
            text = f"{process.who[1]} says {next(self.numbers)}"
            (self.wrong if no else self.said).add(text)
            process.say(text, rejected=no)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST))
    def deal_with_what_was_told(self, which: int) -> None:
        self.processes[which % len(self.processes)].take()

    # -- links -------------------------------------------------------------------------------------

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST))
    def cut_or_come_back(self, which: int) -> None:
        process = self.processes[which % len(self.processes)]
        if process.link is None:
            process.connect(self.host)
        else:
            self.orphans.append(process.link)
            process.lost()

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST), size=st.sampled_from([1, 33, 100, 300, 1000, 100_000]), up=st.booleans())
    def move_bytes(self, which: int, size: int, up: bool) -> None:
        process = self.processes[which % len(self.processes)]
        if up:
            self.move_up(process.link, size)
        else:
            self.move_down(process, size)

    @precondition(lambda self: self.orphans)
    @rule(which=st.integers(0, 9), size=st.sampled_from([33, 100_000]))
    def bytes_arrive_late(self, which: int, size: int) -> None:
        """They were on their way when the client lost the link; then the host sees the end."""
        link = self.orphans[which % len(self.orphans)]
        self.move_up(link, size)
        if not link.up or link.host is None:
            self.orphans.remove(link)
            if link.host is not None:
                link.host.close(link)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, MOST))
    def talk(self, which: int) -> None:
        """All that one of them and the host have for each other."""
        process = self.processes[which % len(self.processes)]
        for _ in range(3):
            self.move_up(process.link, 1 << 30)
            self.move_down(process, 1 << 30)

    @rule()
    def everybody_talks(self) -> None:
        """The links that were lost come back."""
        for which in range(len(self.processes)):
            if self.processes[which].link is None:
                self.cut_or_come_back(which)
            self.talk(which)
        self.commit()

    def move_up(self, link: Link | None, size: int) -> None:
        if link is not None and link.host is not None:
            data = bytes(link.up[:size])
            del link.up[:size]
            link.host.receive(link, data)

    def move_down(self, process: Process, size: int) -> None:
        if (link := process.link) is None:
            return
        if link.host is not None:
            link.host.send(link, size)
        data = bytes(link.down[:size])
        del link.down[:size]
        if not data and link.host is None:
            process.lost()
        for event in process.receive(data) if data else ():
            self.check(event)

    def check(self, event: Event) -> None:
        match event:
            case Stored(entry, seq):
                text = entry.body.decode()
                self.acknowledged.add(text)
                stored_as = {number for stored, number in self.ever_stored if stored == text}
                assert seq in stored_as, "it was told as stored and never was on a disk"
            case Rejected(entry, code):
                text, _target = split_body(entry.kind, entry.flags, entry.body)
                assert code in {"no-target", "unknown", "unconfirmed"}
                if text in self.wrong:
                    self.rejected.add(text)
                else:
                    assert code != "no-target", "it was told as rejected, and any host takes it"
                    assert self.ever_damaged or self.lost_by_host, "the host has all of its log"
                    self.given_back.add(text)
            case Message(seq=seq, text=text, author=author):
                assert (text, seq) in self.ever_stored, "it was shown and never was on a disk"
                assert text.startswith(f"{author.nick} says"), "it was shown as another's"

    # -- the host ----------------------------------------------------------------------------------

    @rule(full=st.sampled_from([False, False, True]))
    def commit(self, full: bool = False) -> None:
        self.host.begin_commit()
        self.end_commit(full=full)

    @rule(full=st.booleans())
    def begin_or_end_a_slow_commit(self, full: bool) -> None:
        if self.host.committing is None:
            self.host.begin_commit()
        else:
            self.end_commit(full=full)

    def end_commit(self, *, full: bool = False) -> None:
        for batch in self.host.end_commit(full=full):
            self.ever_stored.update((one.body.decode(), one.seq) for one in split(batch.data) if one.kind == Kind.SAY)

    @rule(
        kind=st.sampled_from(["restart", "back up", "go back", "lose", "damage"]),
        which=st.integers(0, 99),
    )
    def have_an_accident(self, kind: str, which: int) -> None:
        """The host's. Damage and older copies not together: after a gap no last frame tells one log from another."""
        batches = self.host.disk.batches
        if kind == "restart":  # what was appended and not stored is gone
            self.begin_again_with(self.host.disk)
        elif kind == "back up" and batches:
            self.backups.append(copy.deepcopy(self.host.disk))
        elif kind == "go back" and self.backups and not self.ever_damaged:
            del self.backups[which % len(self.backups) + 1 :]  # no copy of what never happened
            self.begin_again_with(copy.deepcopy(self.backups[-1]))
            self.a_stranger_talks(which % 4)
        elif kind == "lose" and not which % 4:
            self.backups.clear()
            self.begin_again_with(Disk(secrets.token_bytes(8)))
        elif kind == "damage" and batches and not self.backups:
            batch = batches[-1 - which % min(3, len(batches))]
            self.host.disk.damaged.add(batch.first)
            self.ever_damaged.update(range(batch.first, batch.next_seq))
            self.begin_again_with(self.host.disk)

    def a_stranger_talks(self, messages: int) -> None:
        """The log grows again before those come back who knew it longer."""
        key = b"c" * 32
        hello = Hello(
            room="lobby", key=key, nonce=bytes(32), signature=bytes(64), nick="cid", stream=next(self.numbers)
        )
        member = self.host.room.enter(hello).member
        for number in range(1, messages + 1):
            text = f"cid says {next(self.numbers)}"
            self.said.add(text)
            self.acknowledged.add(text)
            (frame,) = split(encode(Kind.SAY, text.encode(), number=number))
            self.host.room.handle(member, frame, next(self.clock))
        self.host.room.leave(member)
        self.commit()

    def begin_again_with(self, disk: Disk) -> None:
        before = set(self.host.disk.messages().values())
        self.lost_by_host |= before - set(disk.messages().values())
        for link in list(self.host.links):
            self.host.close(link)
        self.host = Host(disk, self.clock)

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def the_log_holds_nothing_twice(self) -> None:
        texts = list(self.host.disk.messages().values())
        assert len(texts) == len(set(texts))

    @invariant()
    def an_outbox_holds_what_is_unsettled(self) -> None:
        for process in self.processes:
            kept = [entry.body for entry in process.outbox.unsettled()]
            assert set(kept) >= {entry.body for entry in process.session.unsettled}

    def teardown(self) -> None:
        try:
            self.come_to_rest()
            self.check_everything()
        finally:
            for process in self.processes:
                process.outbox.close()
            shutil.rmtree(self.folder)

    def come_to_rest(self) -> None:
        """No more accidents: everyone comes back, and a process for each outbox that was left."""
        for link in self.orphans:
            if link.host is not None:
                link.host.close(link)
        left = [path for path in self.folder.rglob("*.outbox") if path.stat().st_size]
        for person in (0, 1):
            for _ in [path for path in left if path.parent.name == PEOPLE[person][1]]:
                self.start(person, ALL)
        for _ in range(30):
            for process in self.processes:
                if process.link is None:
                    process.connect(self.host)
                for _ in range(3):
                    self.move_up(process.link, 1 << 30)
                    self.move_down(process, 1 << 30)
            self.commit()

    def check_everything(self) -> None:
        messages = self.host.disk.messages()
        gone = self.said - set(messages.values())
        assert gone <= self.lost_by_host & self.acknowledged | self.given_back, "what no host had acknowledged is lost"
        assert self.rejected == self.wrong
        for process in self.processes:
            process.take()
            assert process.session.state is LinkState.JOINED
            assert not process.session.unsettled
            assert not process.outbox.unsettled()
            assert process.session.next_seq == self.host.disk.next_seq
            assert set(process.session.here) == set(self.host.room.roster.here)
            in_gaps = {seq for gap in process.gaps for seq in range(gap.first, gap.first + gap.count)}
            assert in_gaps <= self.ever_damaged
            assert not in_gaps & set(process.shown)
            expected = {seq: text for seq, text in messages.items() if seq >= process.begins and seq not in in_gaps}
            assert process.shown == expected


TestSessionsAndRoom = SessionsAndRoom.TestCase
TestSessionsAndRoom.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
