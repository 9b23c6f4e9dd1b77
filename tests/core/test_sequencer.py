"""Submissions as values, and how a host hands them to a sequencer that takes its time and fails."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chat.core.bodies import Hello
from chat.core.errors import LocalProtocolError
from chat.core.ledger import BOT, RoomTables
from chat.core.log import Log
from chat.core.room import Member, Room
from chat.core.sequencer import (
    AddInvite,
    Append,
    ClaimNick,
    Reject,
    SetRole,
    Submission,
    Submitter,
)
from chat.core.wire import SEQ_PREFIX, Kind, encode, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANN, BOB = b"a" * 32, b"b" * 32
EPOCH = b"an epoch"

EVERY: list[Submission] = [
    Append(ANN, 2**64 - 1, "ann", False, 7, 2**40, encode(Kind.SAY, b"hi") * 2, [34, 68]),
    Reject(ANN, 1, 2**32 - 1, "too-long", {"size": 9, "limit": 8, "who": "小明"}),
    ClaimNick(ANN, "小明", "小明"),
    SetRole(ANN, "owner"),
    AddInvite(BOB, 2**40, counted=True),
]


def test_a_submission_is_the_same_when_it_is_read_again() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(EVERY), type=list[Submission]) == EVERY
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([]), type=list[Submission]) == []


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode(EVERY)[:-1], msgspec.msgpack.encode([["new", 1]])]
)
def test_what_is_no_batch_is_an_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(data, type=list[Submission])


class Slow:
    """A sequencer that does nothing by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Submission], Callable[[bool], None]]] = []

    def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
        self.asked.append((list(batch), done))


def roles(*names: str) -> list[Submission]:
    return [SetRole(ANN, name) for name in names]


def test_one_batch_is_on_its_way_at_a_time() -> None:
    slow = Slow()
    submitter = Submitter(slow)
    for one in roles("a", "b", "c"):
        submitter.add(one)
    ((batch, done),) = slow.asked
    assert batch == roles("a")
    done(True)
    assert slow.asked[1][0] == roles("b", "c")
    slow.asked[1][1](True)
    assert (len(slow.asked), submitter.size) == (2, 0)


def test_what_failed_is_submitted_again_as_it_was_and_before_all_else() -> None:
    slow = Slow()
    submitter = Submitter(slow)
    submitter.add(roles("a")[0])
    slow.asked[0][1](False)
    assert len(slow.asked) == 1  # not at once, or it would be asked without end
    assert submitter.size
    submitter.add(roles("b")[0])
    assert slow.asked[1][0] == roles("a", "b")
    slow.asked[1][1](False)
    submitter.push()
    submitter.push()  # one is on its way
    assert slow.asked[2][0] == roles("a", "b")
    assert len(slow.asked) == 3


def test_a_submit_that_raises_has_failed_and_later_answers_to_it_count_no_more() -> None:
    class Raises(Slow):
        def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
            super().submit(batch, done)
            if len(self.asked) == 1:
                raise OSError("the net is down")

    raises = Raises()
    submitter = Submitter(raises)
    submitter.add(roles("a")[0])
    assert isinstance(submitter.error, OSError)
    submitter.add(roles("b")[0])
    assert raises.asked[1][0] == roles("a", "b")
    raises.asked[0][1](True)
    submitter.push()
    assert (len(raises.asked), submitter.size > 0) == (2, True)
    raises.asked[1][1](True)
    assert submitter.size == 0


def test_a_claim_is_submitted_once_and_a_role_stays_while_they_are_on_their_way() -> None:
    slow = Slow()
    room = Room("lobby", Log(EPOCH), sequencer=slow)
    assert room.prepare(hello()) is room.prepare(hello()) is None
    room.admit(ANN, BOT)
    room.admit(ANN)  # as the admission of a program does
    assert room.is_coming(ANN)
    for _ in range(2):
        batch, done = slow.asked[-1]
        room.apply(batch)
        done(True)
    assert [batch for batch, _ in slow.asked] == [[ClaimNick(ANN, "ann", "ann")], [SetRole(ANN, BOT)]]
    assert not room.is_coming(ANN)
    assert room.enter(hello()).member.role == BOT


def test_a_batch_has_a_limit() -> None:
    slow = Slow()
    submitter = Submitter(slow)
    for number in range(300):
        submitter.add(roles(str(number))[0])
    slow.asked[0][1](True)
    slow.asked[1][1](True)
    assert [len(batch) for batch, _ in slow.asked] == [1, 256, 43]


# -- a room and its sequencer --------------------------------------------------------------------


def hello(key: bytes = ANN, nick: str = "ann", stream: int = 1, **more: Any) -> Hello:
    return Hello(room="lobby", key=key, nonce=bytes(32), signature=bytes(64), nick=nick, stream=stream, **more)


class EverySecondFails:
    """An order that one room follows. Of the submits that fail, every second one is in the order all the same."""

    def __init__(self) -> None:
        self.room: Room | None = None
        self.tries = count(1)

    def submit(self, batch: Sequence[Submission], done: Callable[[bool], None]) -> None:
        number = next(self.tries)
        if number % 4 != 2:  # else it is lost
            assert self.room is not None
            self.room.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=list[Submission]))
        done(number % 2 == 1)


def enter(room: Room, greeting: Hello) -> Member:
    assert room.submitter is not None
    while room.prepare(greeting) is None:
        room.submitter.push()
    return room.enter(greeting).member


def test_submits_that_fail_lose_nothing_and_double_nothing() -> None:
    sequencer = EverySecondFails()
    room = sequencer.room = Room("lobby", Log(EPOCH), sequencer=sequencer)
    assert room.submitter is not None
    ann, bob = enter(room, hello()), enter(room, hello(BOB, "bob"))
    wrong = SEQ_PREFIX.pack(500)
    for number in range(1, 41):
        for member in (ann, bob):
            kind, body = (Kind.EDIT, wrong) if number % 5 == 0 else (Kind.SAY, b"%d" % number)
            data = encode(kind, body, number=number)
            taken, _size = room.take_run(member, data, number)
            if not taken:
                (frame,) = split(data)
                room.handle(member, frame, number)
            if number % 7 == 0:  # it comes back, and sends again what it has no echo of
                (frame,) = split(encode(Kind.SAY, b"again", number=number - 1))
                room.handle(member, frame, number)
    while room.submitter.size:
        room.submitter.push()
    changes = room.take_changes()
    assert sorted(changes.high_water) == [(ANN, 1, 40), (BOB, 1, 40)]
    assert [nick for _, nick, _ in changes.nicks] == ["ann", "bob"]
    frames = [frame for batch in room.log.seal() for frame in split(batch.data)]
    for index in (1, 2):
        said = [(one.number, one.body) for one in frames if one.author == index and one.kind == Kind.SAY]
        assert said == [(number, b"%d" % number) for number in range(1, 41) if number % 5]
    assert len([one for _, _, one in changes.rejections]) == 16


def test_nothing_is_in_the_log_or_in_a_table_before_it_is_in_the_order() -> None:
    slow = Slow()
    room = Room("lobby", Log(EPOCH), RoomTables(nicks=[("bob", "bob", BOB)]), sequencer=slow)
    assert room.prepare(hello()) is None
    with pytest.raises(LocalProtocolError, match="call prepare"):
        room.enter(hello())
    bob = enter(room, hello(BOB, "bob"))
    room.admit(BOB, "operator")
    assert room.take_run(bob, encode(Kind.SAY, b"hi", number=1), 5) == (1, 34)
    assert room.take_run(bob, encode(Kind.SAY, b"hi", number=1), 6) == (0, 0)
    assert not room.may_enter(BOB)
    assert not room.changed
    assert room.backlog > 0
    assert room.enter(hello(BOB, "bob")).welcome.first_unsettled == 1
    slow.asked[0][1](False)
    slow.asked[0] = ([], lambda _: None)
    for _ in range(3):
        assert room.submitter is not None
        room.submitter.push()
        batch, done = slow.asked[-1]
        room.apply(batch)
        done(True)
    assert room.may_enter(BOB)
    assert room.prepare(hello()) == "ann"
    assert room.take_changes().high_water == [(BOB, 1, 1)]
    assert room.backlog == room.log.unpublished > 0


def test_a_batch_of_the_order_is_a_batch_of_the_log() -> None:
    room = Room("lobby", Log(EPOCH), sequencer=Slow())
    one = Append(ANN, 1, "ann", False, 1, 5, encode(Kind.SAY, b"one"), [35])
    two = Append(ANN, 1, "ann", False, 2, 5, encode(Kind.SAY, b"two"), [35])
    room.apply([one])
    room.apply([one, ClaimNick(ANN, "ann", "ann")])  # a repeat, and no message
    room.apply([two])
    room.apply(
        [Append(ANN, 1, "ann", False, 4, 5, encode(Kind.SAY, b"four"), [36])]
    )  # three is missing, and comes first
    assert [(batch.first, batch.frames) for batch in room.log.seal()] == [(1, 2), (3, 1)]


def test_a_run_that_is_known_in_part_goes_on_where_it_is_new() -> None:
    room = Room("lobby", Log(EPOCH), sequencer=Slow())
    frames = [encode(Kind.SAY, text) for text in (b"one", b"two", b"three")]
    room.apply([Append(ANN, 1, "ann", False, 1, 5, frames[0], [35])])
    room.apply([Append(ANN, 1, "ann", False, 1, 6, b"".join(frames), [35, 70, 107])])
    (_author, *said) = [frame for batch in room.log.seal() for frame in split(batch.data)]
    assert [(one.number, one.body, one.time) for one in said] == [(1, b"one", 5), (2, b"two", 6), (3, b"three", 6)]


def test_a_stream_that_spoke_elsewhere_goes_on_from_there() -> None:
    """Its member was on another host before."""
    slow = Slow()
    room = Room("lobby", Log(EPOCH), RoomTables(nicks=[("ann", "ann", ANN)]), sequencer=slow)
    room.apply([Append(ANN, 1, "ann", False, 1, 5, encode(Kind.SAY, b"one"), [35])])
    assert not room.committed(room.log.seal(), room.take_changes())
    entry = room.enter(hello())
    assert entry.welcome.first_unsettled == 2
    assert room.take_run(entry.member, encode(Kind.SAY, b"two", number=2), 5)[0] == 1
    assert slow.asked[0][0] == [Append(ANN, 1, "ann", False, 2, 5, encode(Kind.SAY, b"two", number=2), [35])]
