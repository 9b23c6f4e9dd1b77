"""Whatever arrives, in whichever state: it is acted on, or it is an error that says whose fault it is."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from chat.core.bodies import (
    Answer,
    Ask,
    Author,
    Challenge,
    Gap,
    Hello,
    Names,
    Notice,
    Presence,
    Refusal,
    Rejection,
    Struct,
    Welcome,
    pack,
)
from chat.core.errors import LocalProtocolError, Refused, RemoteProtocolError
from chat.core.log import Log
from chat.core.outgoing import OutboxEntry, Outgoing
from chat.core.room import Member, Room
from chat.core.session import LinkState, Session
from chat.core.wire import LOG_KINDS_END, PREFACE, TARGETED, Frame, Kind, encode, split

if TYPE_CHECKING:
    from collections.abc import Callable

KEY: Final = b"k" * 32
EPOCH: Final = b"an epoch"
SHAPES: Final[dict[int, type[Struct]]] = {
    Kind.AUTHOR: Author,
    Kind.CHALLENGE: Challenge,
    Kind.HELLO: Hello,
    Kind.WELCOME: Welcome,
    Kind.REFUSED: Refusal,
    Kind.GAP: Gap,
    Kind.PRESENCE: Presence,
    Kind.NAMES: Names,
    Kind.ASK: Ask,
    Kind.ANSWER: Answer,
    Kind.NOTICE: Notice,
    Kind.REJECTED: Rejection,
}

# -- bodies, good and bad ------------------------------------------------------------------------

EDGES: Final = (-1, 0, 1, 2, 7, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a field's type, which MessagePack can hold; the numbers also beyond what the field allows."""
    match kind:
        case inspect.IntType():
            return st.sampled_from(EDGES)
        case inspect.StrType():
            return st.sampled_from(["", "lobby", "names", "range", "x" * 300, "\x1b]0;\u202e"])
        case inspect.BytesType():
            return st.sampled_from([b"", KEY, EPOCH, bytes(8)])
        case inspect.BoolType():
            return st.booleans()
        case inspect.DictType():
            return st.dictionaries(st.sampled_from(["size", "limit"]), st.sampled_from([1, "x" * 300, b"", None]))
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
        case inspect.StructType(cls=shape):
            return fields(shape)
        case inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case inspect.NoneType():
            return st.none()
    raise AssertionError(kind)


def fields(shape: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    required = {field.name: values(field.type) for field in info.fields if field.required}
    optional = {field.name: values(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional)


def bodies(kind: int) -> st.SearchStrategy[bytes]:
    """Bodies for a frame of this kind: structures where it has them, and junk."""
    junk = st.binary(max_size=40)
    shape = SHAPES.get(kind)
    return junk if shape is None else fields(shape).map(msgspec.msgpack.encode) | junk


KINDS: Final = st.sampled_from([*range(1, 20), *range(63, 80), 0, 255])


@st.composite
def any_frames(draw: st.DrawFn) -> Frame:
    kind = draw(KINDS)
    numbers = st.sampled_from([0, 1, 2, 3, 2**32 - 1])
    data = encode(
        kind,
        draw(bodies(kind)),
        flags=draw(st.sampled_from([0, 1, 255])),
        author=draw(numbers),
        number=draw(numbers),
        seq=draw(st.sampled_from([0, 1, 2, 3, 4, 2**64 - 1])),
        time=draw(st.sampled_from([-(2**63), 0, 2**63 - 1])),
    )
    (found,) = split(data)
    return found


FIXED_BODIES: Final = (
    b"",
    b"\xc1",  # no MessagePack
    b"\x80",
    b"\x81\xa4what\xa5names",
    bytes(8),
    b"\x82\xa1x" + b"\x91" * 3000 + b"\xc0",  # nested deeper than any reader goes
)


# -- a session -----------------------------------------------------------------------------------


def off(session: Session) -> None:
    assert session.state is LinkState.OFF


def waiting(session: Session) -> None:
    session.connected()
    session.receive_data(PREFACE)


def challenged(session: Session) -> None:
    session.connected()
    session.receive_data(PREFACE + pack(Kind.CHALLENGE, Challenge(key=bytes(32), nonce=bytes(32))))


def greeted(session: Session) -> None:
    challenged(session)
    session.hello(nonce=bytes(32), signature=bytes(64), stream=9, unsettled=[OutboxEntry(1, 1, 0, b"left", since=1)])


def joined(session: Session) -> None:
    greeted(session)
    welcome = Welcome(
        room="r", epoch=EPOCH, next_seq=4, start=1, show=1, nick="me", first_unsettled=1, proof=b"", role="member"
    )
    session.receive_data(pack(Kind.WELCOME, welcome))


def waiting_for_names(session: Session) -> None:
    joined(session)
    session.receive_data(encode(Kind.SAY, b"who?", author=7, number=1, seq=1))


def in_a_list(session: Session) -> None:
    joined(session)
    session.receive_data(pack(Kind.PRESENCE, Presence(here=[(KEY, "me")], reset=True, more=True)))


STATES: Final[tuple[tuple[str, Callable[[Session], None]], ...]] = (
    (LinkState.OFF.name, off),
    (LinkState.WAITING.name, waiting),
    (LinkState.ASKED.name, challenged),
    (LinkState.GREETED.name, greeted),
    (LinkState.JOINED.name, joined),
    ("JOINED, waiting for names", waiting_for_names),
    ("JOINED, in the middle of a list", in_a_list),
)


def test_every_state_is_among_them() -> None:
    assert {name.partition(",")[0] for name, _ in STATES} == {state.name for state in LinkState}
    for name, reach in STATES:
        session = Session("r", KEY, nick="me")
        reach(session)
        assert session.state.name == name.partition(",")[0]


def receive(session: Session, data: bytes) -> None:
    """As a client does: after an error of the protocol the link is dropped."""
    try:
        session.receive_data(data)
    except (RemoteProtocolError, LocalProtocolError, Refused):
        session.lost()


def go_on(session: Session) -> None:
    """Whatever the session was told, it can be used: only a rule that we broke ourselves may stop us."""
    for act in (
        session.data_to_send,
        lambda: say(session),
        session.beat,
        lambda: session.ask(Ask(what="names")),
        session.bye,
        session.lost,
        lambda: challenged(session),
        lambda: session.hello(nonce=bytes(32), signature=bytes(64)),
        session.data_to_send,
    ):
        try:
            act()
        except LocalProtocolError:
            continue


def say(session: Session) -> None:
    session.say(session.number(Outgoing("hi")))


@pytest.mark.parametrize("reach", [reach for _, reach in STATES], ids=[name for name, _ in STATES])
def test_a_session_in_every_state_and_every_kind_of_frame(reach: Callable[[Session], None]) -> None:
    for kind, body, seq in product(range(256), FIXED_BODIES, (0, 1, 2)):
        session = Session("r", KEY, nick="me")
        reach(session)
        early = session.state is not LinkState.JOINED and kind < LOG_KINDS_END
        receive(session, encode(kind, body, author=1, number=1, seq=seq))
        assert not early or session.state is LinkState.OFF  # a message before we are in is always an error
        go_on(session)


@settings(deadline=None)
@given(st.sampled_from([reach for _, reach in STATES]), st.lists(any_frames(), min_size=1, max_size=8))
def test_a_session_and_any_frames(reach: Callable[[Session], None], frames: list[Frame]) -> None:
    session = Session("r", KEY, nick="me")
    reach(session)
    for frame in frames:
        receive(session, frame.raw)
    go_on(session)


# -- a room --------------------------------------------------------------------------------------


def a_member(*, reads_only: bool) -> tuple[Room, Member]:
    room = Room("r", Log(EPOCH))
    hello = Hello(room="r", key=KEY, nonce=bytes(32), signature=bytes(64), nick="me", stream=0 if reads_only else 9)
    return room, room.enter(hello).member


def handle(room: Room, member: Member, frame: Frame) -> None:
    try:
        room.handle(member, frame, 0)
    except RemoteProtocolError:
        return


def tick(room: Room, member: Member) -> list[Frame]:
    """Store and send, as a host does after whatever frames came."""
    room.take_changes()
    room.committed(room.log.seal(), room.take_changes())
    data = b""
    while piece := member.pending(room.log, room.roster):
        data += piece
        member.cursor.advance(len(piece))
    return list(split(data))


@pytest.mark.parametrize("reads_only", [False, True])
def test_a_room_and_every_kind_of_frame(reads_only: bool) -> None:
    for kind, body in product(range(256), FIXED_BODIES):
        room, member = a_member(reads_only=reads_only)
        (frame,) = split(encode(kind, body, number=1, seq=5))
        handle(room, member, frame)
        logged = [one for one in tick(room, member) if one.kind < LOG_KINDS_END]
        assert bool(logged) == (0 < kind < 16 and kind not in TARGETED and not reads_only)


@settings(deadline=None)
@given(st.booleans(), st.lists(any_frames(), min_size=1, max_size=20))
def test_a_room_and_any_frames(reads_only: bool, frames: list[Frame]) -> None:
    room, member = a_member(reads_only=reads_only)
    for frame in frames:
        handle(room, member, frame)
    tick(room, member)
    assert room.log.end == room.log.next_seq
    room.leave(member)
    assert not room.members
