"""Every state of a member and of its link, with every kind of frame: nobody who is banned reads or writes.

A room and the sessions of an owner, an operator and ordinary members, who are muted, banned and removed now and then.
Any of them may send any frame at any time. What they may do is read off the log, by a model of a few lines that knows
nothing of the room. Strangers never come as far as a room: tests/property/test_strangers.py has their frames.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chat.core.bodies import Ask, Author, Challenge, Gap, Hello, Moderation, pack, unpack
from chat.core.errors import LocalProtocolError, Refused, RemoteProtocolError
from chat.core.ledger import RoomTables
from chat.core.log import Log
from chat.core.room import Member, Room
from chat.core.session import LinkState, Session
from chat.core.wire import HEADER_SIZE, MAX_TEXT, PREFACE, REPLY, SEQ_PREFIX, SPOKEN_END, Kind, Parser, encode, split

OWNER, OPERATOR, ANN, BOB, CID = (name * 32 for name in (b"o", b"p", b"a", b"b", b"c"))
NICKS: Final = {OWNER: "olga", OPERATOR: "pat", ANN: "ann", BOB: "bob", CID: "cid"}
ROLES: Final = ["banned", "banned", "muted", "member", "operator"]
WHO = st.sampled_from(list(NICKS))
KINDS = st.one_of(st.sampled_from(list(Kind)), st.integers(0, 255))


class Peer:
    """A member's session, and the room's member for it."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.session = Session("lobby", key, nick=NICKS[key], history=5)
        self.parser = Parser()
        self.member: Member | None = None

    def greet(self, stream: int) -> Hello:
        """Dial, and return the HELLO that the session answers to a challenge."""
        self.session.lost()
        self.session.connected()
        self.session.receive_data(PREFACE + pack(Kind.CHALLENGE, Challenge(key=OWNER, nonce=bytes(32))))
        self.session.hello(nonce=bytes(32), signature=bytes(64), stream=stream)
        self.parser = Parser()
        (frame,) = self.parser.feed(self.session.data_to_send())
        return unpack(Hello, frame)


class ModeratedRoom(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        tables = RoomTables(members=[(key, "member") for key in NICKS], moderated=[(OPERATOR, "operator", 0)])
        self.room = Room("lobby", Log(b"an epoch"), tables, owners=frozenset({OWNER}))
        self.peers = {key: Peer(key) for key in NICKS}
        self.now = 1_000
        # The model:
        self.roles = {OPERATOR: "operator"}
        self.authors: dict[int, bytes] = {}
        self.wrote: dict[int, bytes] = {}  # by number: who
        self.seen = 1

    @initialize(streams=st.integers(1, 2), role=st.sampled_from(["", "muted", "banned"]))
    def begin(self, streams: int, role: str) -> None:
        """All are in and have said something; one of them may have a role already, and its link is up."""
        for key in NICKS:
            self.enter(key, streams)
            self.say_several(key, 2)
        self.tick(10_000)
        if role:
            self.give(OPERATOR, BOB, role, 0)

    # -- what people do --------------------------------------------------------------------------

    @rule(key=WHO, stream=st.integers(1, 2))
    def enter(self, key: bytes, stream: int) -> None:
        peer = self.peers[key]
        if peer.member is not None:
            self.room.leave(peer.member)
            peer.member = None
        hello = peer.greet(peer.session.stream or stream)
        if self.role_of(key) == "banned":
            with pytest.raises(Refused, match="you are banned"):
                self.room.enter(hello)
            peer.session.lost()
            return
        entry = self.room.enter(hello)
        assert entry.welcome.role == self.role_of(key)
        self.room.welcome(entry, b"")
        peer.member = entry.member

    @rule(key=WHO)
    def leave(self, key: bytes) -> None:
        if (member := self.peers[key].member) is not None:
            self.room.leave(member)
            self.lose(key)

    def lose(self, key: bytes) -> None:
        self.peers[key].member = None
        self.peers[key].session.lost()

    @rule(
        key=WHO,
        kind=st.one_of(st.sampled_from([Kind.SAY, Kind.EDIT, Kind.RETRACT]), KINDS),
        flags=st.sampled_from([0, 0, REPLY, 255]),
        about=st.integers(0, 20),
        size=st.sampled_from([0, 2, 2, MAX_TEXT + 1]),
        step=st.sampled_from([1, 1, 1, 1, 0, 5]),
    )
    def send(self, key: bytes, kind: int, flags: int, about: int, size: int, step: int) -> None:
        """Any frame, as it comes over the link; a member of whom the room knows no more sends on, too."""
        member = self.peers[key].member
        if member is None or member.stream is None:
            return
        targeted = flags or kind in {Kind.EDIT, Kind.RETRACT, Kind.REACT}
        body = (SEQ_PREFIX.pack(about) if targeted else b"") + bytes(size)
        self.take(key, member, encode(kind, body, flags=flags, number=member.stream.accepted + step))

    @rule(key=WHO, what=st.sampled_from(["names", "range", "search", "ban"]))
    def ask(self, key: bytes, what: str) -> None:
        if (member := self.peers[key].member) is not None:
            self.take(key, member, pack(Kind.ASK, Ask(what=what, authors=[1, 2], first=1, before=9), number=1))

    @rule(key=WHO, count=st.integers(2, 4))
    def say_several(self, key: bytes, count: int) -> None:
        member = self.peers[key].member
        if member is not None and member.stream is not None:
            number = member.stream.accepted + 1
            run = b"".join(encode(Kind.SAY, b"in a row", number=number + n) for n in range(count))
            self.take(key, member, run)

    def take(self, key: bytes, member: Member, data: bytes) -> None:
        """Hand over what a link brings, as the host does."""
        is_banned = self.role_of(key) == "banned"
        _count, size = self.room.take_run(member, data, self.now)
        try:
            for frame in Parser(preface=False).feed(data[size:]):
                ask = self.room.handle(member, frame, self.now)
                assert ask is None or not is_banned, "the host would answer somebody who is banned"
        except RemoteProtocolError:
            self.room.leave(member)
            self.lose(key)

    # -- what those who keep order do ------------------------------------------------------------

    @rule(by=st.sampled_from([OWNER, OPERATOR]), key=WHO, role=st.sampled_from(ROLES), lasts=st.sampled_from([0, 50]))
    def give(self, by: bytes, key: bytes, role: str, lasts: int) -> None:
        until = self.now + lasts if lasts and role != "member" else 0
        self.decide(Moderation(action="role", by=by, by_nick=NICKS[by], key=key, role=role, until=until))

    @rule(key=WHO, action=st.sampled_from(["kick", "retract", "slow", "topic"]), seconds=st.sampled_from([0, 1]))
    def act(self, key: bytes, action: str, seconds: int) -> None:
        self.decide(Moderation(action=action, by=OWNER, by_nick="olga", key=key, target=1, seconds=seconds))

    def decide(self, decision: Moderation) -> None:
        self.now += 1
        self.room.decide_now(decision, self.now)
        for peer in self.peers.values():
            if peer.member is not None and peer.member not in self.room.members:
                rest = peer.member.cursor.half_sent  # which was on its way
                assert bytes(peer.member.pending(self.room.log, self.room.roster)) == rest
                peer.member.cursor.advance(len(rest))
        self.read_log()

    @rule(milliseconds=st.integers(0, 100))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.room.end_old(self.now)
        self.read_log()

    # -- what the host does ----------------------------------------------------------------------

    @rule(takes=st.sampled_from([7, 10_000]))
    def tick(self, takes: int) -> None:
        """Store, and send what each link takes."""
        batches, changes = self.room.log.seal(), self.room.take_changes()
        self.room.committed(batches, changes)
        self.read_log()
        for key, peer in self.peers.items():
            member, left = peer.member, takes
            while member is not None and left and (data := member.pending(self.room.log, self.room.roster)):
                assert self.role_of(key) != "banned", "somebody who is banned reads"
                peer.session.receive_data(bytes(data[:left]))
                member.cursor.advance(min(left, len(data)))
                left -= min(left, len(data))

    # -- the model -------------------------------------------------------------------------------

    def role_of(self, key: bytes) -> str:
        return "owner" if key == OWNER else self.roles.get(key, "member")

    def read_log(self) -> None:
        """Read off the log who may do what, and that nobody else did anything."""
        for batch in (*self.stored(), *self.room.log.seal()):
            for frame in split(batch.data):
                if frame.seq < self.seen:
                    continue
                self.seen = frame.seq + 1
                if frame.kind == Kind.MODERATION:
                    made = unpack(Moderation, frame)
                    if made.action == "role":
                        self.roles[made.key] = made.role
                elif frame.kind == Kind.AUTHOR:
                    self.authors[frame.author] = unpack(Author, frame).key
                else:
                    assert 0 < frame.kind < SPOKEN_END
                    key = self.wrote[frame.seq] = self.authors[frame.author]
                    assert self.role_of(key) not in {"muted", "banned"}
                    if frame.kind in {Kind.EDIT, Kind.RETRACT}:
                        (target,) = SEQ_PREFIX.unpack_from(frame.raw, HEADER_SIZE)
                        assert self.wrote.get(target) == key, "somebody has changed what another has said"

    def stored(self) -> list[Any]:
        found, seq = [], self.seen
        while (batch := self.room.log.read(seq)) is not None:
            assert not isinstance(batch, Gap)
            found.append(batch)
            seq = batch.next_seq
        return found

    @invariant()
    def nobody_who_is_banned_is_here(self) -> None:
        self.read_log()
        banned = {key for key in NICKS if self.role_of(key) == "banned"}
        assert banned.isdisjoint(member.key for member in self.room.members)
        assert banned.isdisjoint(key for key, _nick in self.room.roster.here)
        assert {key: self.room.role_of(key) for key in NICKS} == {key: self.role_of(key) for key in NICKS}

    def teardown(self) -> None:
        self.tick(10_000)


class TestModeratedRoom(ModeratedRoom.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestModeratedRoomForLong(ModeratedRoom.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=3_000, stateful_step_count=80, deadline=None)


def session_in(state: LinkState) -> Session:
    session = Session("lobby", ANN, nick="ann")
    if state is LinkState.OFF:
        return session
    peer = Peer(ANN)
    room = Room("lobby", Log(b"an epoch"), RoomTables(members=[(ANN, "member")]))
    if state in {LinkState.WAITING, LinkState.ASKED}:
        session.connected()
        session.receive_data(PREFACE)
        if state is LinkState.ASKED:
            session.receive_data(pack(Kind.CHALLENGE, Challenge(key=OWNER, nonce=bytes(32))))
        return session
    entry = room.enter(peer.greet(1))
    room.welcome(entry, b"")
    if state is LinkState.JOINED:
        peer.session.receive_data(bytes(entry.member.cursor.pending(room.log)))
    return peer.session


BODIES = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda fields: pack(64, Moderation(**fields))[HEADER_SIZE:],
        st.fixed_dictionaries(
            {
                "action": st.sampled_from(["role", "kick", "retract", "topic", "slow", "else"]),
                "by": st.binary(max_size=40),
                "by_nick": st.text(max_size=10),
                "target": st.integers(0, 2**63 - 1),
                "text": st.text(max_size=10),
            }
        ),
    ),
)


@pytest.mark.parametrize("state", list(LinkState))
@settings(max_examples=60, deadline=None)
@given(kind=KINDS, body=BODIES, flags=st.integers(0, 255), seq=st.integers(0, 2), author=st.integers(0, 2))
def test_a_session_takes_any_frame_in_any_state_or_says_that_it_is_wrong(
    state: LinkState, kind: int, body: bytes, flags: int, seq: int, author: int
) -> None:
    session = session_in(state)
    before = session.state
    data = encode(kind, body, flags=flags, seq=seq, author=author)
    try:
        session.receive_data(data if before is not LinkState.OFF else PREFACE + data)
    except (RemoteProtocolError, Refused):
        assert session.state is before
    except LocalProtocolError:
        assert before is LinkState.OFF
    else:
        assert before is not LinkState.OFF
        assert session.state in {before, LinkState.ASKED, LinkState.JOINED}
