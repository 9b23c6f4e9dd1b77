"""Two hosts of one room follow one order. Whatever fails on the way there, in the end they hold equal bytes and rows.

Members of both speak, claim nicknames and send what is rejected. A batch of either host is ordered, or fails, or fails
although it is ordered. Each host applies the order at its own pace, and stores it whenever its disk is not full. It may
be killed, and go on from what it has stored.

What one host knows of its own links must not show: one key is on both hosts under one stream and two nicknames, and
speaks on the first host only; another is a program on one host, and unknown to the other.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from chat.core.bodies import Hello, Moderation, unpack
from chat.core.errors import Refused
from chat.core.ledger import BOT
from chat.core.log import Log
from chat.core.room import Member, Room
from chat.core.sequencer import Submission
from chat.core.wire import SEQ_PREFIX, Kind, encode, split
from chat.host.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


TABLES: Final = ("authors", "streams", "nicks", "members", "invites", "rejections", "moderated", "properties")
EPOCH: Final = b"an epoch"
OPERATOR, PROGRAM, ON_BOTH = 3, 4, 5  # of each host's keys, by number
TROLL = 2  # of each host's keys, too: either host moderates it
ROLES: Final = {OPERATOR: "operator", PROGRAM: BOT}


def key_of(on: int, who: int) -> bytes:
    return bytes([who if who == ON_BOTH else 100 * (on + 1) + who]) * 32


class Order:
    """What was submitted and waits, and what is in the order, as bytes."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Callable[[bool], None]]] = []
        self.batches: list[bytes] = []

    def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
        self.waiting.append((msgspec.msgpack.encode(batch), done))

    def take(self, which: int, *, ordered: bool, told: bool) -> None:
        data, done = self.waiting.pop(which % len(self.waiting))
        if ordered:
            self.batches.append(data)
        done(told)


class Host:
    """A room with a store of its own, in which it has another number than elsewhere."""

    def __init__(self, order: Order, number: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.order = order
        self.stored = 0  # batches of the order that are on the disk
        self.open(number)
        self.said: dict[bytes, list[bytes]] = {}

    def open(self, number: int = 0) -> None:
        """Open the room as it is stored; nobody is in it."""
        store = self.store = Store(Path(self.folder.name))
        for other in range(number):
            store.open_room(f"another-{other}")
        state = store.open_room("lobby")
        self.id = state.id
        log = Log(
            EPOCH, next_seq=state.next_seq, last_time=state.last_time, older=lambda seq: store.read(state.id, seq)
        )
        self.room = Room("lobby", log, state.tables, sequencer=self.order)
        self.applied = self.stored
        self.members: dict[bytes, Member] = {}

    def apply(self, most: int) -> None:
        for data in self.order.batches[self.applied : self.applied + most]:
            self.room.apply(msgspec.msgpack.decode(data, type=list[Submission]))
            self.applied += 1

    def commit(self, *, full: bool = False) -> None:
        batches, changes = self.room.log.seal(), self.room.take_changes()
        if full:
            self.room.give_back(changes)
        else:
            self.store.commit(self.id, batches, changes)
            self.stored = self.applied
            for member in self.room.committed(batches, changes):
                self.room.leave(member)
        for member in self.members.values():
            while piece := member.pending(self.room.log, self.room.roster):
                member.cursor.advance(len(piece))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that is stored of the room, less its number, which the digest of a row covers."""
        with sqlite3.connect(f"file:{self.folder.name}/log.db?mode=ro", uri=True) as database:
            found = {
                table: sorted(
                    row[1:-1] for row in database.execute(f"SELECT * FROM {table} WHERE room = ?", (self.id,))
                )
                for table in TABLES
            }
            query = "SELECT at & ?, frames, before, chain, data FROM batches WHERE at >> 48 = ? ORDER BY at"
            found["batches"] = database.execute(query, ((1 << 48) - 1, self.id)).fetchall()
        database.close()
        return found

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()


class OrderMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.order = Order()
        self.hosts = [Host(self.order, number) for number in range(2)]
        self.time = 0
        for who, nick in {0: "ann", 1: "bob", PROGRAM: "bot", ON_BOTH: "eve"}.items():
            for on in (0, 1):
                for _ in range(3):  # its claim; its role; as a member who has that role
                    self.come(on, who, f"{nick}{on}")
                    self.order_all(on)
                    for host in self.hosts:
                        host.apply(len(self.order.batches))

    def order_all(self, on: int) -> None:
        submitter = self.hosts[on].room.submitter
        assert submitter is not None
        while submitter.size:
            submitter.push()
            while self.order.waiting:
                self.order.take(0, ordered=True, told=True)

    @rule(on=st.integers(0, 1), who=st.integers(0, ON_BOTH), nick=st.sampled_from(["ann", "Ann", "bob", "bo8", "cid"]))
    def come(self, on: int, who: int, nick: str) -> None:
        """Each host has members of its own, and claims may meet."""
        host, key = self.hosts[on], key_of(on, who)
        hello = Hello(room="lobby", key=key, nonce=b"", signature=b"", nick=nick, stream=1)
        try:
            if host.room.prepare(hello) is None:
                return
        except Refused:
            return
        host.members[key] = host.room.enter(hello).member
        host.room.admit(key, ROLES.get(who, ""), invite=bytes(32))
        host.room.has_read(key, who)
        host.room.add_invite(key, expires=who, counted=who == 2)

    @rule(on=st.integers(0, 1), who=st.integers(0, ON_BOTH))
    def go(self, on: int, who: int) -> None:
        """The other host may have somebody of that nickname in the room, or a claim of it on its way."""
        host, key = self.hosts[on], key_of(on, who)
        if (member := host.members.pop(key, None)) is not None:
            host.room.leave(member)
            host.room.release(key, member.nick)

    @rule(
        on=st.integers(0, 1),
        who=st.sampled_from([0, 0, 1, 1, 2, OPERATOR, PROGRAM, ON_BOTH]),
        sizes=st.lists(st.integers(-1, 40), min_size=1, max_size=5),
    )
    def say(self, on: int, who: int, sizes: list[int]) -> None:
        """Messages; those of a negative size are rejected."""
        host, key = self.hosts[on], key_of(on, who)
        member = host.members.get(key)
        if member is None or member.stream is None or (who == ON_BOTH and on):
            return
        self.time += 1
        number, data = member.stream.accepted, b""
        for size in sizes:
            number += 1
            kind, body = (Kind.SAY, bytes(size)) if size >= 0 else (Kind.REACT, SEQ_PREFIX.pack(1 << 40))
            data += encode(kind, body, number=number)
            if size >= 0:
                host.said.setdefault(key, []).append(body)
        while data:
            _count, size = host.room.take_run(member, data, self.time)
            data = data[size:]
            if data:
                frame = next(iter(split(data)))
                host.room.handle(member, frame, self.time)
                data = data[len(frame.raw) :]

    @rule(
        on=st.integers(0, 1),
        of=st.integers(0, 1),
        what=st.sampled_from(["muted", "member", "banned", "operator", "kick", "topic", "retract", "end"]),
        lasts=st.sampled_from([0, 0, 3]),
    )
    def decide(self, on: int, of: int, what: str, lasts: int) -> None:
        """An operator of one host decides about somebody who may be on the other, or a time is over."""
        self.time += 1
        room, key = self.hosts[on].room, key_of(of, TROLL)
        if what == "end":
            room.end_old(self.time)
            return
        made = Moderation(action=what, by=key_of(on, OPERATOR), by_nick="an operator", target=1, text=f"{self.time}")
        if what in {"muted", "member", "banned", "operator"}:
            until = self.time + lasts if lasts else 0
            made.action, made.key, made.role, made.until = "role", key, what, until
        elif what == "kick":
            made.key = key
        room.decide_now(made, self.time)

    @rule(
        outcomes=st.lists(st.sampled_from(["ordered", "ordered", "ordered", "failed", "both"]), min_size=1, max_size=6)
    )
    def answer(self, outcomes: list[str]) -> None:
        """What is in the order may be told as failed ("both"), and never the other way round."""
        for number, outcome in enumerate(outcomes):
            if not self.order.waiting:
                self.try_again(number % 2)
            if self.order.waiting:
                self.order.take(number, ordered=outcome != "failed", told=outcome == "ordered")

    def try_again(self, on: int) -> None:
        submitter = self.hosts[on].room.submitter
        assert submitter is not None
        submitter.push()

    @rule(on=st.integers(0, 1), most=st.integers(0, 5), full=st.sampled_from([False, False, True]))
    def apply_and_commit(self, on: int, most: int, full: bool) -> None:
        self.hosts[on].apply(most)
        self.hosts[on].commit(full=full)

    @rule(on=st.integers(0, 1))
    def reopen(self, on: int) -> None:
        """The host is killed. What its members had said is in the order by then, and it applies again what it lost."""
        self.order_all(on)
        host = self.hosts[on]
        host.store.close()
        host.open()
        host.apply(len(self.order.batches))

    def teardown(self) -> None:
        if not hasattr(self, "hosts"):
            return
        try:
            for on in (0, 1):
                self.order_all(on)
            for host in self.hosts:
                host.apply(len(self.order.batches))
                host.commit()
            one, two = (host.rows() for host in self.hosts)
            assert one == two
            said: dict[bytes, list[bytes]] = {}
            for batch in one["batches"]:
                for frame in split(batch[4]):
                    if frame.kind == Kind.SAY:
                        said.setdefault(self.key_by(one, frame.author), []).append(frame.body)
            decisions = [f for batch in one["batches"] for f in split(batch[4]) if f.kind == Kind.MODERATION]
            assert len({frame.body for frame in decisions if frame.body}) == len(decisions), "one was applied twice"
            for key, texts in (self.hosts[0].said | self.hosts[1].said).items():
                if key not in {key_of(on, TROLL) for on in (0, 1)}:  # of whose messages some came too late
                    assert said.pop(key, []) == texts
            assert said.keys() <= {key_of(on, TROLL) for on in (0, 1)}
            self.check_silence(one)
        finally:
            for host in self.hosts:
                host.close()

    def check_silence(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        """Nothing of whoever was muted or banned comes behind that in the log, whichever host it was on."""
        roles: dict[bytes, str] = {}
        for batch in rows["batches"]:
            for frame in split(batch[4]):
                if frame.kind == Kind.MODERATION and (made := unpack(Moderation, frame)).action == "role":
                    roles[made.key] = made.role
                elif frame.kind == Kind.SAY:
                    assert roles.get(self.key_by(rows, frame.author)) not in {"muted", "banned"}

    @staticmethod
    def key_by(rows: dict[str, list[tuple[Any, ...]]], author: int) -> bytes:
        (key,) = [row[1] for row in rows["authors"] if row[0] == author]
        assert isinstance(key, bytes)
        return key


class TestOrder(OrderMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
