"""A room by itself: who may come in and as whom, where in the log each begins, and what each frame does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chat.core.bodies import Answer, Ask, Author, Gap, Hello, Names, Rejection, Rewind, Welcome, pack, unpack
from chat.core.errors import Refused, RemoteProtocolError
from chat.core.ledger import REJECTIONS_KEPT, RoomTables
from chat.core.log import Batch, Log, digest
from chat.core.room import Member, Room
from chat.core.sequencer import ReleaseNick
from chat.core.text import skeleton
from chat.core.wire import (
    HEADER_SIZE,
    MAX_CONTROL,
    MAX_FRAME,
    MAX_TEXT,
    SEQ_PREFIX,
    TARGETED,
    Frame,
    Kind,
    encode,
    split,
)

if TYPE_CHECKING:
    from chat.core.room import Admission

ANN, BOB, CID = b"a" * 32, b"b" * 32, b"c" * 32
EPOCH = b"an epoch"
EMPTY = RoomTables()


def hello(key: bytes = ANN, nick: str = "ann", stream: int = 1, **more: Any) -> Hello:
    return msgspec.convert(
        {"room": "lobby", "key": key, "nonce": bytes(32), "signature": bytes(64), "nick": nick, "stream": stream}
        | more,
        Hello,
    )


def a_room(tables: RoomTables = EMPTY, **more: Any) -> Room:
    return Room("lobby", Log(EPOCH), tables, **more)


def say(number: int, body: bytes = b"hi", kind: int = Kind.SAY, flags: int = 0) -> Frame:
    return frame(encode(kind, body, number=number, flags=flags))


def frame(data: bytes) -> Frame:
    (one,) = split(data)
    return one


def store(room: Room) -> RoomTables:
    """What a host's tick does, with a disk that never fails."""
    batches, changes = room.log.seal(), room.take_changes()
    assert room.committed(batches, changes) == []
    return changes


def enter(room: Room, greeting: Hello) -> Member:
    return room.enter(greeting).member


def sent(member: Member, room: Room) -> list[Frame]:
    """Everything that the member lacks, presence left out."""
    data = b""
    while piece := member.pending(room.log, room.roster):
        data += piece
        member.cursor.advance(len(piece))
    return [one for one in split(data) if one.kind != Kind.PRESENCE]


def fill(room: Room, messages: int, member: Member | None = None) -> None:
    """Have ``messages`` said and stored; the first one's author comes before it in the log."""
    member = member or enter(room, hello(stream=77))
    assert member.stream is not None
    for _ in range(messages):
        room.handle(member, say(member.stream.high_water + 1), 1000)
    store(room)


def again(room: Room, changes: list[RoomTables]) -> Room:
    """The room as its host finds it after a restart from what was stored."""
    batches = []
    seq = 1
    while isinstance(found := room.log.read(seq), Batch):
        batches.append(found)
        seq = found.next_seq
    log = Log(EPOCH, next_seq=seq, older=lambda seq: next((b for b in batches if b.first <= seq < b.next_seq), None))

    def all_of(name: str) -> list[Any]:
        return [row for change in changes for row in getattr(change, name)]

    return Room("lobby", log, RoomTables(**{name: all_of(name) for name in vars(EMPTY)}))


# -- who may enter -------------------------------------------------------------------------------


def test_the_owner_those_admitted_and_everyone_in_an_open_room_need_no_invite() -> None:
    room = a_room(RoomTables(members=[(CID, "member")]), owners=frozenset({ANN}))
    assert (room.may_enter(ANN), room.may_enter(BOB), room.may_enter(CID)) == (True, False, True)
    assert a_room(open_to_all=True).may_enter(BOB)


def test_who_is_admitted_stays_so_and_is_stored_once() -> None:
    room = a_room(owners=frozenset({ANN}))
    for key in (ANN, BOB, BOB):
        room.admit(key)
    assert room.may_enter(BOB)
    assert room.changed
    assert room.take_changes().members == [(ANN, "owner"), (BOB, "member")]
    assert not room.changed


def test_to_enter_is_not_to_be_admitted() -> None:
    """The host admits a key only when the use of its invite is on the disk."""
    room = a_room()
    enter(room, hello())
    assert not room.may_enter(ANN)


def test_the_role_is_the_one_on_record() -> None:
    room = a_room(RoomTables(moderated=[(CID, "muted", 0)]), owners=frozenset({ANN}))
    roles = [enter(room, hello(key, nick)).role for key, nick in ((ANN, "ann"), (BOB, "bob"), (CID, "cid"))]
    assert roles == ["owner", "member", "muted"]


# -- nicknames -----------------------------------------------------------------------------------


def test_a_nickname_belongs_to_the_first_key_that_took_it() -> None:
    room = a_room()
    assert enter(room, hello(ANN, "ann")).nick == "ann"
    assert enter(room, hello(BOB, "ann")).nick == "ann-2"
    assert enter(room, hello(CID, "Ann")).nick == "Ann-3"
    assert enter(room, hello(ANN, "ann", stream=2)).nick == "ann"


def test_who_comes_back_has_the_same_suffix_whichever_name_it_asks_for() -> None:
    room = a_room()
    enter(room, hello(ANN, "ann"))
    for wanted in ("ann", "ann-2", "ann"):
        assert enter(room, hello(BOB, wanted)).nick == "ann-2"
    assert store(room).nicks[1][1:] == ("ann-2", BOB)


def test_nicknames_outlive_the_host() -> None:
    room = a_room()
    enter(room, hello(ANN, "ann"))
    room = again(room, [store(room)])
    assert enter(room, hello(BOB, "ann")).nick == "ann-2"
    assert enter(room, hello(ANN, "ann")).nick == "ann"


@pytest.mark.parametrize(
    "nick",
    [
        "n" * 32,  # as wide as a nickname may be
        "n" * 31,
        "\u5c0f" * 16,  # two columns each
        "\u0639\u0644\u064a\u0663",  # ends in an Arabic digit, which must not stand beside a 2
    ],
)
def test_a_nickname_with_a_suffix_is_a_nickname_again(nick: str) -> None:
    """Else its bearer, who asks for it by that name when it comes back, would be refused."""
    room = a_room()
    enter(room, hello(ANN, nick))
    given = enter(room, hello(BOB, nick)).nick
    assert given != nick
    assert given.endswith("-2")
    assert enter(room, hello(BOB, given)).nick == given


def test_a_nickname_behind_which_no_number_fits() -> None:
    room = a_room()
    enter(room, hello(ANN, "\u0663"))  # a digit alone, of another script than the suffix
    with pytest.raises(Refused, match="taken; choose another with --as") as caught:
        enter(room, hello(BOB, "\u0663"))
    assert caught.value.code.startswith("nick-")


def test_look_alikes_are_refused() -> None:
    room = a_room()
    enter(room, hello(ANN, "bill"))
    with pytest.raises(Refused, match="bi1l looks like bill, which is taken; choose another with --as") as caught:
        enter(room, hello(BOB, "bi1l"))
    assert caught.value.code.startswith("nick-")
    assert list(room.roster.here) == [(ANN, "bill")]


def test_a_skeleton_that_was_stored_with_other_unicode_data_is_still_taken() -> None:
    """What looks alike changes with the edition of the Unicode data; claims are judged by what is stored."""
    room = a_room(RoomTables(nicks=[(skeleton("bob"), "zed", ANN)]))
    with pytest.raises(Refused, match="bob looks like zed"):
        enter(room, hello(BOB, "bob"))
    assert enter(room, hello(BOB, "zed")).nick == "zed-2"
    assert enter(room, hello(ANN, "zed")).nick == "zed"


def test_what_cannot_be_a_nickname_is_refused_with_the_reason() -> None:
    for nick, why in (("", "is empty"), ("a b", "cannot hold"), ("x" * 400, "400 characters")):
        with pytest.raises(Refused, match=why):
            enter(a_room(), hello(nick=nick))


def test_one_key_may_have_eight_nicknames() -> None:
    room = a_room(RoomTables(nicks=[(f"stored{n}", f"stored{n}", ANN) for n in range(7)]))
    enter(room, hello(nick="the-eighth"))
    with pytest.raises(Refused, match="already has 8 nicknames here"):
        enter(room, hello(nick="the-ninth"))
    assert enter(room, hello(nick="the-eighth", stream=2)).nick == "the-eighth"
    assert enter(room, hello(BOB, nick="the-ninth")).nick == "the-ninth"


def test_a_nickname_that_never_spoke_is_let_go_of_once_its_key_has_left() -> None:
    room = a_room()
    ann, bob = enter(room, hello(ANN, "ann")), enter(room, hello(BOB, "bob"))
    fill(room, 1, ann)
    room.release(BOB, "bob")
    assert room.nick_of(BOB) == "bob"  # who is here
    for member in (ann, bob):
        room.leave(member)
        room.release(member.key, member.nick)
    assert (room.nick_of(ANN), room.nick_of(BOB)) == ("ann", "")
    assert enter(room, hello(CID, "bob")).nick == "bob"


def test_a_nickname_that_another_host_lets_go_of_while_its_key_is_here_is_claimed_again() -> None:
    room = a_room()
    enter(room, hello(ANN, "ann"))
    room.apply([ReleaseNick(ANN, "ann", skeleton("ann"))])
    assert [row[1:] for row in store(room).nicks] == [("ann", ANN)]
    assert enter(room, hello(BOB, "ann")).nick == "ann-2"


def test_what_was_let_go_of_while_the_disk_was_full_is_not_stored_after_all() -> None:
    room = a_room()
    room.leave(enter(room, hello(ANN, "ann")))
    changes = room.take_changes()
    room.release(ANN, "ann")
    room.give_back(changes)
    changes = room.take_changes()
    assert (changes.nicks, changes.released) == ([], [skeleton("ann")])
    room.give_back(changes)
    enter(room, hello(BOB, "ann"))
    assert [row[1:] for row in store(room).nicks] == [("ann", BOB)]


def test_a_nickname_taken_by_98_others() -> None:
    room = a_room()
    for number in range(99):
        enter(room, hello(number.to_bytes(32, "big"), "ann"))
    with pytest.raises(Refused, match="nickname ann is taken; choose"):
        enter(room, hello(BOB, "ann"))


# -- coming and going ----------------------------------------------------------------------------


def test_who_is_here() -> None:
    room = a_room()
    ann, bob = enter(room, hello()), enter(room, hello(BOB, "bob"))
    assert list(room.roster.here) == [(ANN, "ann"), (BOB, "bob")]
    room.leave(ann)
    room.leave(ann)  # the host may find out twice
    assert list(room.roster.here) == [(BOB, "bob")]
    assert list(room.members) == [bob]


def test_silent_readers_are_not_seen_and_need_no_nickname() -> None:
    room = a_room()
    reader = enter(room, hello(nick="", stream=0, silent=True))
    assert (reader.nick, reader.stream) == ("", None)
    assert list(room.roster.here) == []
    assert reader in room.members
    room.leave(reader)
    assert not room.members


def test_a_silent_speaker_has_a_nickname_and_is_not_seen() -> None:
    room = a_room()
    assert enter(room, hello(silent=True)).nick == "ann"
    assert list(room.roster.here) == []


def test_a_newer_link_of_a_stream_replaces_the_older_and_no_other() -> None:
    room = a_room()
    other_stream, other_key = enter(room, hello(stream=2)), enter(room, hello(BOB, "bob", stream=1))
    older = enter(room, hello(stream=1))
    entry = room.enter(hello(stream=1))
    assert entry.replaced is older
    assert list(room.members) == [other_stream, other_key, entry.member]
    assert entry.member.stream is older.stream
    room.leave(older)  # its own task finds out late
    assert entry.member in room.members
    assert entry.member.stream is not None
    assert entry.member.stream.member is entry.member


def test_readers_replace_nobody() -> None:
    room = a_room()
    enter(room, hello(stream=0))
    assert room.enter(hello(stream=0)).replaced is None
    assert len(room.members) == 2


def test_streams_that_never_spoke_are_forgotten() -> None:
    """Else a peer could fill the host's memory by coming and going, each time with another stream."""
    room = a_room()
    for stream in range(1, 100):
        member = enter(room, hello(stream=stream))
        if stream == 50:
            room.handle(member, say(1), 0)
        room.leave(member)
    assert list(room._streams) == [(ANN, 50)]


# -- where in the log a member begins ------------------------------------------------------------


def place(entry: Admission) -> tuple[int, int]:
    assert entry.welcome.rewound is None
    assert entry.member.cursor.seq == entry.welcome.start
    return entry.welcome.start, entry.welcome.show


def test_a_newcomer_begins_with_as_much_history_as_it_asks_for() -> None:
    room = a_room()
    assert place(room.enter(hello(stream=0, history=5))) == (1, 1)
    fill(room, 10)  # numbers 2 to 11; 1 introduces the author
    assert place(room.enter(hello(stream=0))) == (12, 12)
    assert place(room.enter(hello(stream=0, history=3))) == (9, 9)
    assert place(room.enter(hello(stream=0, history=2**62))) == (1, 1)


def test_nobody_gets_more_history_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes in makes the host look for it."""
    monkeypatch.setattr("chat.core.room._MAX_HISTORY", 3)
    room = a_room()
    fill(room, 10)
    assert place(room.enter(hello(stream=0, history=2**62))) == (9, 9)


def test_who_awaits_an_echo_begins_where_it_may_be_and_is_shown_only_its_history() -> None:
    room = a_room()
    fill(room, 10)
    assert place(room.enter(hello(since=4, history=3))) == (4, 9)
    assert place(room.enter(hello(since=10, history=3))) == (9, 9)
    assert place(room.enter(hello(since=500, history=3))) == (9, 9)


def test_who_asks_for_a_number_begins_there_and_is_told_if_the_log_ends_before() -> None:
    room = a_room()
    fill(room, 10)
    assert place(room.enter(hello(next_seq=4, history=1))) == (4, 4)
    assert place(room.enter(hello(next_seq=12))) == (12, 12)
    beyond = room.enter(hello(next_seq=13)).welcome
    assert (beyond.start, beyond.show) == (12, 12)
    assert beyond.rewound == Rewind(code="ends-before", fields={"end": 11, "number": 13})
    assert place(room.enter(hello(next_seq=6, since=3))) == (3, 6)


def test_who_comes_back_goes_on_where_it_was() -> None:
    room = a_room()
    fill(room, 10)
    seventh = room.log.frame_at(7)
    assert seventh is not None
    assert place(room.enter(hello(epoch=EPOCH, next_seq=8, last=digest(seventh), history=5))) == (8, 8)
    assert place(room.enter(hello(epoch=EPOCH, next_seq=8, history=5))) == (8, 8)  # after a gap it has no last frame
    assert place(room.enter(hello(epoch=EPOCH, next_seq=12, since=3))) == (12, 12)
    assert place(room.enter(hello(epoch=EPOCH, next_seq=0))) == (1, 1)
    assert place(room.enter(hello(epoch=EPOCH, next_seq=1, last=bytes(8)))) == (1, 1)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ({"epoch": b"another!", "next_seq": 5}, "another log of the same name"),
        (
            {"epoch": EPOCH, "next_seq": 13},
            "ends at 11, but you hold messages up to 12; the host went back to an older copy",
        ),
        ({"epoch": EPOCH, "next_seq": 8, "last": bytes(8)}, "message 7 differs from the one you hold"),
    ],
)
def test_who_holds_another_past_is_told_and_begins_anew(held: dict[str, Any], why: str) -> None:
    room = a_room()
    fill(room, 10)
    entry = room.enter(hello(**held, history=2, since=6))
    assert entry.welcome.rewound is not None
    assert why in entry.welcome.rewound.text
    assert (entry.welcome.start, entry.welcome.show, entry.member.cursor.seq) == (6, 10, 6)


def test_what_the_log_cannot_show_any_more_accuses_nobody() -> None:
    room = Room("lobby", Log(EPOCH, next_seq=20))  # and nothing older is to be had
    assert place(room.enter(hello(epoch=EPOCH, next_seq=10, last=bytes(8)))) == (10, 10)


# -- what members send ---------------------------------------------------------------------------


def test_a_message_is_numbered_with_its_author_before_it() -> None:
    room = a_room()
    ann = enter(room, hello())
    assert room.handle(ann, say(1, b"one"), 5) is None
    assert room.handle(ann, say(2, b"waves", Kind.ACTION, flags=3), 6) is None
    store(room)
    introduced, first, second = sent(ann, room)
    assert unpack(Author, introduced) == Author(index=1, key=ANN, stream=1, nick="ann")
    assert (introduced.kind, introduced.seq, introduced.author) == (Kind.AUTHOR, 1, 1)
    assert first[:6] == (Kind.SAY, 0, 1, 1, 2, 5)
    assert second[:6] == (Kind.ACTION, 3, 1, 2, 3, 6)
    assert (first.body, second.body) == (b"one", b"waves")


@pytest.mark.parametrize("kind", sorted(set(range(1, 16)) - TARGETED))
def test_the_room_takes_every_kind_that_members_say_and_looks_into_none(kind: int) -> None:
    room = a_room()
    ann = enter(room, hello())
    flags = 254 if kind == Kind.SAY else 255  # with REPLY it would be an answer, to a number
    room.handle(ann, say(1, b"\xff\x00", kind, flags=flags), 0)
    store(room)
    assert [(one.kind, one.flags, one.body) for one in sent(ann, room)][1:] == [(kind, flags, b"\xff\x00")]


def test_authors_are_introduced_once_for_each_stream_and_nickname() -> None:
    room = a_room()
    ann, bob, other = enter(room, hello()), enter(room, hello(BOB, "bob")), enter(room, hello(stream=2))
    for member in (ann, bob, ann, other, bob):
        assert member.stream is not None
        room.handle(member, say(member.stream.high_water + 1), 0)
    renamed = enter(room, hello(nick="anna"))
    room.handle(renamed, say(3), 0)
    changes = store(room)
    assert [(a.index, a.key, a.stream, a.nick) for a in changes.authors] == [
        (1, ANN, 1, "ann"),
        (2, BOB, 1, "bob"),
        (3, ANN, 2, "ann"),
        (4, ANN, 1, "anna"),
    ]
    assert sorted(changes.high_water) == [(ANN, 1, 3), (ANN, 2, 1), (BOB, 1, 2)]


def test_what_is_sent_again_is_dropped_and_what_is_missing_is_an_error() -> None:
    room = a_room()
    ann = enter(room, hello())
    for number in (1, 2, 2, 1):
        room.handle(ann, say(number), 0)
    assert room.log.next_seq == 4
    with pytest.raises(RemoteProtocolError, match="sent number 4 after 2; what is between is missing"):
        room.handle(ann, say(4), 0)
    with pytest.raises(RemoteProtocolError, match="sent number 7 after 0"):
        room.handle(enter(room, hello(BOB, "bob")), say(7), 0)
    room.handle(ann, say(0), 0)  # numbered before the first: a repeat as well
    assert room.log.next_seq == 4


def test_high_water_marks_outlive_the_host() -> None:
    room = a_room()
    ann = enter(room, hello())
    room.handle(ann, say(1), 0)
    room.handle(ann, say(2), 0)
    room = again(room, [store(room)])
    entry = room.enter(hello())
    assert entry.welcome.first_unsettled == 3
    room.handle(entry.member, say(2), 0)
    assert room.log.next_seq == 4
    room.handle(entry.member, say(3), 0)
    assert room.log.next_seq == 5  # and its author is known
    assert room.take_changes().authors == []


def test_an_author_without_a_mark_is_taken_as_one_that_never_spoke() -> None:
    room = a_room(RoomTables(authors=[Author(index=1, key=ANN, stream=9, nick="ann")]))
    entry = room.enter(hello(stream=9))
    assert entry.welcome.first_unsettled == 1
    room.handle(entry.member, say(1), 0)
    assert room.log.next_seq == 2


def test_a_message_of_16_kib_fits_and_no_more() -> None:
    room = a_room()
    ann = enter(room, hello())
    largest = SEQ_PREFIX.size + MAX_TEXT
    room.handle(ann, say(1, bytes(largest)), 0)
    room.handle(ann, say(2, bytes(largest + 1)), 0)
    assert rejected(store(room)) == [(2, 1, "too-long", {"size": largest + 1, "limit": MAX_TEXT})]


def test_readers_do_not_speak() -> None:
    room = a_room()
    with pytest.raises(RemoteProtocolError, match="it came to read only"):
        room.handle(enter(room, hello(stream=0)), say(1), 0)


# -- runs ----------------------------------------------------------------------------------------


def run(*numbers: int) -> bytes:
    return b"".join(say(number).raw for number in numbers)


def test_a_run_that_goes_on_is_taken_at_once() -> None:
    room = a_room()
    ann, bob = enter(room, hello()), enter(room, hello(BOB, "bob"))
    size = len(run(1))
    assert room.take_run(ann, run(1, 2, 3), 5) == (3, 3 * size)
    assert room.take_run(bob, run(1), 6) == (1, size)
    assert room.take_run(ann, run(4, 5, 7), 7) == (2, 2 * size)
    assert room.take_run(bob, run(2, 3, 4), 7, 2) == (2, 2 * size)
    room.handle(ann, say(6), 8)
    changes = store(room)
    assert [(author.index, author.nick) for author in changes.authors] == [(1, "ann"), (2, "bob")]
    assert changes.high_water == [(ANN, 1, 6), (BOB, 1, 3)]
    assert [one[2:6] for one in sent(ann, room) if one.kind == Kind.SAY] == [
        (1, 1, 2, 5),
        (1, 2, 3, 5),
        (1, 3, 4, 5),
        (2, 1, 6, 6),
        (1, 4, 7, 7),
        (1, 5, 8, 7),
        (2, 2, 9, 7),
        (2, 3, 10, 7),
        (1, 6, 11, 8),
    ]


def test_what_is_not_surely_fine_is_left() -> None:
    room = a_room()
    ann, reader = enter(room, hello()), enter(room, hello(stream=0))
    room.handle(ann, say(1), 0)
    store(room)
    too_long = say(2, bytes(SEQ_PREFIX.size + MAX_TEXT + 1)).raw
    for data in (b"", run(2)[:-1], run(1, 2), run(3), too_long, encode(Kind.BEAT, number=2), b"junk" * 10):
        assert room.take_run(ann, data, 0) == (0, 0)
    assert room.take_run(reader, run(1), 0) == (0, 0)
    assert (room.changed, room.log.unpublished) == (False, 0)


def test_the_longest_message_may_be_in_a_run() -> None:
    room = a_room()
    longest = say(1, bytes(SEQ_PREFIX.size + MAX_TEXT)).raw
    assert room.take_run(enter(room, hello()), longest, 0) == (1, len(longest))


def test_a_run_of_a_program_is_one_turn_and_a_persons_ends_them_all() -> None:
    room = a_room(RoomTables(members=[(ANN, "bot"), (BOB, "bot")]), bot_turns=2)
    ann, bob, cid = enter(room, hello()), enter(room, hello(BOB, "bob")), enter(room, hello(CID, "cid"))
    room.take_run(ann, run(1, 2, 3), 0)
    room.take_run(bob, run(1, 2, 3), 0)
    assert room.guard.pause == 0
    room.take_run(ann, run(4, 5), 0)
    assert room.guard.pause > 0
    room.take_run(cid, run(1), 0)
    assert room.guard.pause == 0


HOSTS = {*Kind} - {*range(1, 16)} - {Kind.ASK, Kind.BEAT, Kind.BYE, Kind.STATE} | {0, 17, 63}


@pytest.mark.parametrize("kind", sorted(HOSTS))
def test_only_a_host_sends_these(kind: int) -> None:
    room = a_room()
    with pytest.raises(RemoteProtocolError, match=f"kind {kind}, which only a host sends"):
        room.handle(enter(room, hello()), frame(encode(kind)), 0)
    assert not room.log.unpublished


@pytest.mark.parametrize("kind", [Kind.BEAT, Kind.BYE, 99, 255])
def test_beats_and_what_a_newer_version_may_know_change_nothing(kind: int) -> None:
    room = a_room()
    ann = enter(room, hello())
    store(room)
    assert room.handle(ann, frame(encode(kind, b"junk")), 0) is None
    assert not room.changed
    assert not room.log.unpublished


# -- what is rejected ------------------------------------------------------------------------------


def rejected(changes: RoomTables) -> list[tuple[int, int, str, dict[str, str | int]]]:
    return [(one.number, one.count, one.code, one.fields) for _, _, one in changes.rejections]


def told(member: Member, room: Room) -> list[Frame | Rejection]:
    """What the member is sent, rejections read."""
    return [unpack(Rejection, one) if one.kind == Kind.REJECTED else one for one in sent(member, room)]


NO_TARGET = SEQ_PREFIX.pack(500) + b"text"


def test_a_rejected_message_is_passed_over_and_later_ones_are_taken() -> None:
    room = a_room()
    ann = enter(room, hello())
    for number, body, kind in ((1, b"one", Kind.SAY), (2, NO_TARGET, Kind.EDIT), (3, b"three", Kind.SAY)):
        room.handle(ann, say(number, body, kind), 0)
        room.handle(ann, say(number, body, kind), 0)  # sent again
    assert sent(ann, room) == []  # nothing is told before it is stored
    changes = store(room)
    assert changes.high_water == [(ANN, 1, 3)]
    found = told(ann, room)
    assert isinstance(found[0], Rejection)  # ahead of what was numbered after it, or the member would miss it
    assert (found[0].number, found[0].code, found[0].text) == (
        2,
        "no-target",
        "the message that it refers to is not in this room's log",
    )
    assert [one.body for one in found if isinstance(one, Frame) and one.kind == Kind.SAY] == [b"one", b"three"]


@pytest.mark.parametrize("kind", sorted(TARGETED))
@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (b"", False),
        (bytes(7), False),
        (SEQ_PREFIX.pack(0), False),
        (SEQ_PREFIX.pack(1), False),  # introduces an author
        (SEQ_PREFIX.pack(2), True),
        (SEQ_PREFIX.pack(11), True),
        (SEQ_PREFIX.pack(12), False),  # the number that it gets itself
        (SEQ_PREFIX.pack(2**64 - 1), False),
    ],
)
def test_what_refers_to_a_message_must_refer_to_one_that_is_stored(kind: int, body: bytes, taken: bool) -> None:
    room = a_room()
    ann = enter(room, hello(stream=77))
    fill(room, 10, ann)
    frames = encode(kind, body, number=11)
    assert room.take_run(ann, frames, 0) == (0, 0)
    room.handle(ann, frame(frames), 0)
    assert bool(rejected(store(room))) != taken
    assert room.log.end == 12 + taken


def test_what_refers_to_an_old_message_reads_the_disk_once_and_is_counted() -> None:
    read = []

    def older(seq: int) -> Gap:
        read.append(seq)
        return Gap(first=seq, count=1)

    room = Room("lobby", Log(EPOCH, next_seq=100_000, older=older))
    ann = enter(room, hello(stream=77))
    for number in (1, 2, 3):
        room.handle(ann, frame(encode(Kind.REACT, SEQ_PREFIX.pack(5), number=number)), 0)
    assert rejected(store(room)) == [(1, 3, "no-target", {})]
    assert (read, room.disk_reads) == ([5], 1)


def test_rejections_in_a_row_for_one_reason_are_one() -> None:
    room = a_room()
    ann = enter(room, hello())
    for number in range(1, 101):
        room.handle(ann, say(number, NO_TARGET, Kind.EDIT), 0)
    assert rejected(store(room)) == [(1, 100, "no-target", {})]
    for number in (101, 102):
        room.handle(ann, say(number, NO_TARGET, Kind.EDIT), 0)
    assert rejected(store(room)) == [(1, 102, "no-target", {})]
    assert [(one.number, one.count) for one in told(ann, room) if isinstance(one, Rejection)] == [(1, 100), (1, 102)]


def reject_many(room: Room, member: Member, count: int) -> None:
    """Each is a rejection of its own: something is taken in between."""
    assert member.stream is not None
    for _ in range(count):
        room.handle(member, say(member.stream.high_water + 1, NO_TARGET, Kind.REACT), 0)
        room.handle(member, say(member.stream.high_water + 1), 0)


def test_who_comes_back_is_told_of_what_it_may_not_know() -> None:
    room = a_room()
    ann = enter(room, hello())
    reject_many(room, ann, 3)
    changes = store(room)
    room = again(room, [changes])
    entry = room.enter(hello(unsettled=3))
    room.welcome(entry, b"")
    welcome, *found = told(entry.member, room)
    assert isinstance(welcome, Frame)
    assert (unpack(Welcome, welcome).first_unsettled, unpack(Welcome, welcome).rejected) == (7, 5)
    assert [one.number for one in found if isinstance(one, Rejection)] == [3, 5]
    entry = room.enter(hello())  # it holds nothing
    room.welcome(entry, b"")
    assert not any(isinstance(one, Rejection) for one in told(entry.member, room))


def test_who_comes_back_before_the_commit_is_told_after_it() -> None:
    room = a_room()
    ann = enter(room, hello())
    room.handle(ann, say(1, NO_TARGET, Kind.EDIT), 0)
    store(room)
    room.handle(ann, say(2, NO_TARGET, Kind.EDIT), 0)
    entry = room.enter(hello(unsettled=1))
    room.welcome(entry, b"")
    assert entry.welcome.first_unsettled == 2
    found = [one for one in told(entry.member, room) if isinstance(one, Rejection)]
    assert [(one.number, one.count) for one in found] == [(1, 1)]
    store(room)
    (second,) = told(entry.member, room)
    assert isinstance(second, Rejection)
    assert (second.number, second.count) == (1, 2)


def test_the_reasons_of_the_newest_rejections_are_kept() -> None:
    room = a_room()
    ann = enter(room, hello())
    reject_many(room, ann, 70)
    changes = store(room)
    assert len(rejected(changes)) == 70  # each is told once
    for found in room, again(room, [changes]):
        rejections = found.enter(hello(unsettled=1)).rejections
        assert [one.number for one in rejections] == list(range(141 - 2 * REJECTIONS_KEPT, 141, 2))


def test_all_rejections_that_are_kept_fit_into_the_control_queue() -> None:
    room = a_room(RoomTables(high_water=[(ANN, 1, 2**32 - 1000)]))
    ann = enter(room, hello())
    assert ann.stream is not None
    for number in range(70):
        too_long = say(ann.stream.high_water + 1, bytes(MAX_FRAME - HEADER_SIZE - number))  # of different sizes
        room.handle(ann, too_long, 0)
    store(room)
    rejections = room.enter(hello(unsettled=1)).rejections
    assert 0 < sum(len(pack(Kind.REJECTED, one)) for one in rejections) <= MAX_CONTROL


def test_a_rejection_that_could_not_be_committed_comes_again() -> None:
    room = a_room()
    ann = enter(room, hello())
    room.handle(ann, say(1, NO_TARGET, Kind.EDIT), 0)
    room.handle(ann, say(2), 0)
    room.handle(ann, say(3, NO_TARGET, Kind.EDIT), 0)
    failed = room.take_changes()
    room.handle(ann, say(4, NO_TARGET, Kind.EDIT), 0)
    assert room.backlog > room.log.unpublished
    room.give_back(failed)
    assert [(number, count) for number, count, _, _ in rejected(store(room))] == [(1, 1), (3, 2)]
    assert room.backlog == 0


def test_who_does_not_read_its_rejections_is_to_be_dropped() -> None:
    room = a_room()
    ann, bob = enter(room, hello()), enter(room, hello(BOB, "bob"))
    deaf: list[Member] = []
    while not deaf:
        for member in (ann, bob):
            reject_many(room, member, 9)
        deaf = room.committed(room.log.seal(), room.take_changes())
        sent(bob, room)
    assert deaf == [ann]
    assert ann.cursor.control_size < 3 * MAX_CONTROL


# -- questions -----------------------------------------------------------------------------------


def ask(what: str, authors: list[int] | None = None) -> Frame:
    return frame(pack(Kind.ASK, Ask(what=what, authors=authors or []), number=5))


def test_names_are_answered_for_those_there_are() -> None:
    room = a_room()
    fill(room, 1)
    bob = enter(room, hello(BOB, "bob"))
    fill(room, 1, bob)
    assert room.handle(bob, ask("names", [2, 0, 3, 1, 2**32 - 1]), 0) is None
    names = unpack(Names, sent(bob, room)[0])
    assert [author.nick for author in names.authors] == ["bob", "ann"]
    assert names.asked == [2, 0, 3, 1, 2**32 - 1]


def test_the_longest_answer_fits_a_control_frame() -> None:
    authors = [Author(index=n, key=ANN, stream=2**64 - n, nick="\U00020000" * 16) for n in range(1, 26)]
    room = a_room(RoomTables(authors=authors))
    ann = enter(room, hello())
    room.handle(ann, ask("names", [*range(1, 26)]), 0)
    assert len(unpack(Names, sent(ann, room)[0]).authors) == 25
    assert len(pack(Kind.NAMES, Names(authors=room._authors, asked=[2**32 - 1] * 25))) <= MAX_CONTROL
    with pytest.raises(RemoteProtocolError, match="asked for 26 names"):
        room.handle(ann, ask("names", [1] * 26), 0)


def test_other_questions_are_the_hosts_to_answer() -> None:
    room = a_room()
    assert room.handle(enter(room, hello()), ask("the time"), 0) == Ask(what="the time")


@pytest.mark.parametrize("what", ["names", "invite"])
def test_who_asks_and_does_not_read_is_stopped(what: str) -> None:
    """Or the answers would pile up in the host's memory."""
    room = a_room()
    ann = enter(room, hello())
    while ann.cursor.control_size <= MAX_CONTROL:
        if room.handle(ann, ask(what, [1]), 0):
            ann.cursor.post(pack(Kind.ANSWER, Answer(text="an answer")))
    with pytest.raises(RemoteProtocolError, match="bytes queued"):
        room.handle(ann, ask(what, [1]), 0)


def test_a_question_that_cannot_be_read() -> None:
    room = a_room()
    with pytest.raises(RemoteProtocolError, match="Ask that cannot be read"):
        room.handle(enter(room, hello()), frame(encode(Kind.ASK, b"\xc1")), 0)


# -- what is handed to the store -----------------------------------------------------------------


def test_what_the_room_holds_counts_as_settled_only_where_it_is_stored() -> None:
    """Else a member would forget what a crash of the host can still take."""
    room = a_room()
    ann = enter(room, hello())
    room.handle(ann, say(1), 0)
    store(room)
    entry = room.enter(hello())
    assert entry.welcome.first_unsettled == 2
    room.handle(entry.member, say(2), 0)  # the disk is full, or slow
    assert room.enter(hello()).welcome.first_unsettled == 2
    failed = room.take_changes()
    assert room.enter(hello()).welcome.first_unsettled == 2
    room.give_back(failed)
    again = room.enter(hello())
    assert again.welcome.first_unsettled == 2
    room.handle(again.member, say(2), 0)  # so it is sent again, and dropped
    store(room)
    assert room.enter(hello()).welcome.first_unsettled == 3
    assert room.log.end == 4


def test_what_could_not_be_committed_comes_again() -> None:
    room = a_room()
    ann = enter(room, hello())
    room.admit(ANN)
    room.handle(ann, say(1), 0)
    failed = room.take_changes()
    assert not room.changed
    bob = enter(room, hello(BOB, "bob"))
    room.admit(BOB)
    room.handle(bob, say(1), 0)
    room.give_back(failed)
    changes = room.take_changes()
    assert [author.index for author in changes.authors] == [1, 2]
    assert sorted(changes.high_water) == [(ANN, 1, 1), (BOB, 1, 1)]
    assert [nick for _, nick, _ in changes.nicks] == ["ann", "bob"]
    assert changes.members == [(ANN, "member"), (BOB, "member")]


# -- a member's share of what is sent ------------------------------------------------------------


def test_everyone_is_sent_the_same_bytes_object() -> None:
    room = a_room()
    ann, bob = enter(room, hello()), enter(room, hello(BOB, "bob"))
    for member in (ann, bob):
        sent(member, room)
    room.handle(ann, say(1), 0)
    store(room)
    assert ann.pending(room.log, room.roster) is bob.pending(room.log, room.roster)


def test_presence_goes_between_frames_and_never_queues() -> None:
    room = a_room()
    reader = enter(room, hello(stream=0, silent=True, nick=""))
    reader.cursor.post(b"".join(encode(Kind.BEAT) for _ in range(3)))
    piece = reader.pending(room.log, room.roster)
    reader.cursor.advance(40)  # half a frame
    for number in range(100):
        key = number.to_bytes(32, "big")
        room.leave(enter(room, hello(key, f"n{number}x")))
    rest = reader.pending(room.log, room.roster)
    assert bytes(rest) == bytes(piece)[40:]
    assert reader.cursor.control_size == 0
    reader.cursor.advance(len(rest))
    page = frame(bytes(reader.pending(room.log, room.roster)))
    assert page.kind == Kind.PRESENCE
    assert reader.presence == room.roster.version
