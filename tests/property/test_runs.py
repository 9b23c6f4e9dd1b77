"""Messages taken in runs are the same messages taken one by one, whatever came and however it was cut.

Two rooms get the same bytes in the same pieces. One is offered runs first, as a host does it; the other gets every
frame by itself. After every piece they must agree: on the batches of the log, byte for byte and border for border,
on what is to be stored with them, on each stream's numbers, on the loop guard, on what the parsers hold, and on the
error that ends a member.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat.core.bodies import Ask, Hello, pack
from chat.core.errors import RemoteProtocolError
from chat.core.ledger import BOT, RoomTables
from chat.core.log import Log
from chat.core.room import Member, Room
from chat.core.wire import HEADER_SIZE, MAX_BATCH, MAX_TEXT, SEQ_PREFIX, Kind, Parser, encode

WHO: Final = ("ann", "bot", "other-bot", "reader")
LARGEST: Final = SEQ_PREFIX.size + MAX_TEXT
_MOST: Final = 3  # messages that are taken at once
SIZES: Final = st.integers(0, 40) | st.sampled_from([3_000, LARGEST - 1, LARGEST])
ODD: Final = st.sampled_from(
    [
        encode(Kind.BEAT),
        encode(200, b"of a newer version", number=1),
        pack(Kind.ASK, Ask(what="names", authors=[1, 2]), number=3),
        pack(Kind.ASK, Ask(what="the time")),
        encode(Kind.STATE, b"not a slot"),
        encode(Kind.AUTHOR, number=1),
        encode(0, number=1),
        b"\0\0\0\x1f",
        b"\0\1\0\1",
        b"\xff" * 9,
    ]
)


def key(who: str) -> bytes:
    return who.encode().ljust(32, b".")


class Seat:
    """One member's place in one of the two rooms: what a host keeps of its link."""

    def __init__(self, room: Room, who: str, nick: str) -> None:
        self.room = room
        stream = 0 if who == "reader" else 1
        greeting = Hello(room="lobby", key=key(who), nonce=b"", signature=b"", nick=nick, stream=stream)
        self.member: Member = room.enter(greeting).member
        self.parser = Parser(preface=False)
        self.frames = 0
        self.error = ""

    def hear(self, data: bytes, now: int, *, in_runs: bool) -> None:
        try:
            if in_runs:
                data, self.parser.rest = self.parser.rest + data, b""
                count = _MOST
                while count == _MOST:
                    count, size = self.room.take_run(self.member, data, now, _MOST)
                    self.frames += count
                    data = data[size:]
            for frame in self.parser.feed(data):
                self.room.handle(self.member, frame, now)
                self.frames += 1
        except RemoteProtocolError as error:
            self.error = str(error)
            self.room.leave(self.member)

    def state(self) -> tuple[int, str, int, int]:
        return self.frames, self.error, len(self.parser.rest), self.member.cursor.control_size


class RunMachine(RuleBasedStateMachine):
    @initialize(turns=st.sampled_from([0, 2, 20]))
    def open(self, turns: int) -> None:
        self.rooms = [
            Room(
                "lobby",
                Log(b"an epoch"),
                RoomTables(members=[(key("bot"), BOT), (key("other-bot"), BOT)]),
                bot_turns=turns,
            )
            for _ in range(2)
        ]
        self.seats: dict[str, list[Seat]] = {}
        self.on_the_way = dict.fromkeys(WHO, b"")
        self.next_number = dict.fromkeys(WHO, 1)
        self.now = 1000
        for who in WHO:
            self.enter(who, who)

    def enter(self, who: str, nick: str) -> None:
        """A new link, also of one that was there: what was on its way on the old one is lost."""
        self.seats[who] = [Seat(room, who, nick) for room in self.rooms]
        self.on_the_way[who] = b""
        stream = self.seats[who][0].member.stream
        self.next_number[who] = stream.accepted + 1 if stream else 1

    # -- what members send ---------------------------------------------------------------------------

    @rule(
        who=st.sampled_from(WHO),
        sizes=st.lists(SIZES, min_size=1, max_size=12),
        kind=st.integers(1, 15),
        flags=st.integers(0, 255),
        lies=st.sampled_from([0, 0, 2**32 - 1]),
        at_once=st.booleans(),
    )
    def say(self, who: str, sizes: list[int], kind: int, flags: int, lies: int, *, at_once: bool = False) -> None:
        for size in sizes:
            number = self.next_number[who]
            body = number.to_bytes(4, "big") * (size // 4) + bytes(size % 4)
            made = bytearray(encode(kind, body, flags=flags, author=lies, number=number, seq=lies, time=-lies))
            made[6:8] = bytes([lies & 255] * 2)
            self.on_the_way[who] += made
            self.next_number[who] += 1
        if at_once:
            self.deliver_all(who)

    @rule(who=st.sampled_from(WHO))
    def say_much(self, who: str) -> None:
        """More than one batch holds."""
        self.say(who, [MAX_BATCH // 100] * 110, Kind.SAY, 0, 0)

    @rule(who=st.sampled_from(WHO), over=st.integers(-1, 1), behind=st.integers(0, 2))
    def fill_a_batch(self, who: str, over: int, behind: int) -> None:
        """One message ends exactly, or nearly, where the open batch is full."""
        self.say(who, [0], Kind.SAY, 0, 0, at_once=True)  # the author is introduced, and numbers sent again are past
        left, sizes = MAX_BATCH - self.rooms[1].log._open_size, []
        while left > HEADER_SIZE + LARGEST:
            sizes.append(min(LARGEST, left - 3 * HEADER_SIZE))
            left -= HEADER_SIZE + sizes[-1]
        sizes += [max(0, left - HEADER_SIZE + over)] + [0] * behind
        self.say(who, sizes, Kind.SAY, 0, 0, at_once=True)

    @rule(who=st.sampled_from(WHO), back=st.integers(1, 5))
    def say_again(self, who: str, back: int) -> None:
        """As a client does that does not know what came through."""
        self.next_number[who] = max(0, self.next_number[who] - back)

    @rule(who=st.sampled_from(WHO), size=SIZES, wrong=st.sampled_from(["number", "length"]))
    def break_the_rules(self, who: str, size: int, wrong: str) -> None:
        if wrong == "number":
            self.next_number[who] += 1
        self.say(who, [LARGEST + 1 if wrong == "length" else size], Kind.SAY, 0, 0)

    @rule(who=st.sampled_from(WHO), odd=ODD)
    def send_something_else(self, who: str, odd: bytes) -> None:
        self.on_the_way[who] += odd

    @rule(who=st.sampled_from(WHO), size=SIZES, length=st.sampled_from([0, HEADER_SIZE - 1, 2**16 + 1, 2**32 - 1]))
    def lie_about_a_length(self, who: str, size: int, length: int) -> None:
        before = len(self.on_the_way[who])
        self.say(who, [size], Kind.SAY, 0, 0)
        sent = self.on_the_way[who]
        self.on_the_way[who] = sent[:before] + length.to_bytes(4, "big") + sent[before + 4 :]

    @rule(who=st.sampled_from(WHO), nick=st.sampled_from(["", "-x", "-y"]))
    def come_back(self, who: str, nick: str) -> None:
        self.enter(who, who + nick)
        self.say(who, [1], Kind.SAY, 0, 0, at_once=True)

    # -- what the hosts do ---------------------------------------------------------------------------

    @rule(who=st.sampled_from(WHO), cut=st.integers(0, 200) | st.just(MAX_BATCH), passed=st.integers(-9, 70_000))
    def deliver(self, who: str, cut: int, passed: int) -> None:
        piece, self.on_the_way[who] = self.on_the_way[who][:cut], self.on_the_way[who][cut:]
        self.now += passed
        for seat, in_runs in zip(self.seats[who], (True, False), strict=True):
            if not seat.error:
                seat.hear(piece, self.now, in_runs=in_runs)
        if self.seats[who][1].error:
            assert self.seats[who][0].error == self.seats[who][1].error
            self.enter(who, who)

    @rule(who=st.sampled_from(WHO))
    def deliver_all(self, who: str) -> None:
        while self.on_the_way[who]:
            self.deliver(who, MAX_BATCH, 1)

    @rule()
    def tick(self) -> None:
        """Seal, store and publish."""
        ours, plain = ((room.log.seal(), room.take_changes()) for room in self.rooms)
        assert ours == plain
        for room, (batches, _changes) in zip(self.rooms, (ours, plain), strict=True):
            room.log.publish(batches)

    @precondition(lambda self: self.rooms[0].log.unpublished)
    @rule()
    def tick_in_vain(self) -> None:
        """The disk was full."""
        changes = [room.take_changes() for room in self.rooms]
        assert changes[0] == changes[1]
        for room, change in zip(self.rooms, changes, strict=True):
            assert room.log.seal()
            room.give_back(change)

    # -- what holds at any time ----------------------------------------------------------------------

    @invariant()
    def the_rooms_agree(self) -> None:
        ours, plain = [dict(vars(room.log), _open=b"".join(room.log._open), _older=0) for room in self.rooms]
        assert ours == plain
        ours, plain = (vars(room.guard) for room in self.rooms)
        assert ours == plain
        marks, plain_marks = (
            {s.key: (s.accepted, s.high_water, s.author) for s in room._streams.values()} for room in self.rooms
        )
        assert marks == plain_marks
        assert [s.key for s in self.rooms[0]._touched] == [s.key for s in self.rooms[1]._touched]

    @invariant()
    def the_links_agree(self) -> None:
        for ours, plain in self.seats.values():
            assert ours.state() == plain.state()

    def teardown(self) -> None:
        if hasattr(self, "rooms"):
            for who in WHO:
                self.deliver_all(who)
            self.the_rooms_agree()
            self.tick()


class TestRuns(RunMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.slow
class TestRunsForLong(RunMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=2000, stateful_step_count=60, deadline=None)
