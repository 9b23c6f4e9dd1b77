"""A session by itself: the handshake, what is told of the log, and when what was said counts as stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

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
    Rewind,
    Welcome,
    pack,
    unpack,
)
from chat.core.codes import REJECTED
from chat.core.errors import LocalProtocolError, NoSuchRoom, Refused, RemoteProtocolError, Text
from chat.core.events import Answered, Here, Joined, LocalNotice, Message, Numbered, Ranged, Rejected, Rewound, Stored
from chat.core.log import digest
from chat.core.outgoing import OutboxEntry, Outgoing
from chat.core.session import LinkState, Session
from chat.core.wire import HEADER_SIZE, LAST, PREFACE, REPLY, SEQ_PREFIX, Frame, Kind, Parser, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.core.events import Event

ME, ANN = b"m" * 32, b"a" * 32
EPOCH, OTHER = b"an epoch", b"another!"
WENT_BACK = Rewind(code="new", text="it went back")
STREAM = 2**64 - 1
OWN = Author(index=1, key=ME, stream=STREAM, nick="me")  # who speaks from our outbox
ANNS = Author(index=2, key=ANN, stream=5, nick="ann")


def introduce(author: Author, seq: int) -> bytes:
    packed = pack(Kind.AUTHOR, author)[HEADER_SIZE:]
    return encode(Kind.AUTHOR, packed, author=author.index, seq=seq, time=100 + seq)


def said(
    seq: int, author: Author = ANNS, number: int = 1, body: bytes = b"hi", kind: int = Kind.SAY, flags: int = 0
) -> bytes:
    return encode(kind, body, flags=flags, author=author.index, number=number, seq=seq, time=100 + seq)


def welcome(start: int = 1, next_seq: int = 1, **more: Any) -> bytes:
    fields: dict[str, Any] = {
        "room": "lobby",
        "epoch": EPOCH,
        "show": start,
        "nick": "me",
        "first_unsettled": 1,
        "proof": b"p",
    }
    return pack(Kind.WELCOME, Welcome(start=start, next_seq=next_seq, **(fields | more)))


def control(kind: int, **fields: Any) -> bytes:
    shapes = {
        Kind.PRESENCE: Presence,
        Kind.NAMES: Names,
        Kind.GAP: Gap,
        Kind.ANSWER: Answer,
        Kind.NOTICE: Notice,
        Kind.REJECTED: Rejection,
    }
    return pack(kind, shapes[Kind(kind)](**fields))


def frames(session: Session, *, preface: bool = False) -> list[Frame]:
    """What the session would send now."""
    return list(Parser(preface=preface).feed(session.data_to_send()))


def greet(session: Session, unsettled: Iterable[OutboxEntry] = (), stream: int = STREAM) -> Hello:
    """Connect, be challenged, and say HELLO."""
    session.connected()
    assert session.data_to_send() == PREFACE
    challenge = pack(Kind.CHALLENGE, Challenge(key=b"h" * 32, nonce=b"n" * 32))
    assert session.receive_data(PREFACE + challenge) == [Challenge(key=b"h" * 32, nonce=b"n" * 32)]
    session.hello(nonce=b"o" * 32, signature=b"s" * 64, stream=stream, unsettled=unsettled)
    (hello,) = frames(session)
    assert hello.kind == Kind.HELLO
    return unpack(Hello, hello)


def joined(
    session: Session | None = None, unsettled: Iterable[OutboxEntry] = (), stream: int = STREAM, **more: Any
) -> tuple[Session, list[Event]]:
    session = session or Session("lobby", ME, nick="me")
    greet(session, unsettled, stream)
    return session, session.receive_data(welcome(**more))


def unconfirmed(entry: OutboxEntry) -> Rejected:
    return Rejected(entry, "unconfirmed", Text(REJECTED["unconfirmed"]))


def say(session: Session, text: str = "hi") -> OutboxEntry:
    entry = session.number(Outgoing(text))
    session.say(entry)
    return entry


def left(number: int, since: int = 1, epoch: bytes = EPOCH) -> OutboxEntry:
    """What an earlier process left in the outbox."""
    return OutboxEntry(number, Kind.SAY, 0, b"hi", epoch=epoch, since=since)


def numbers(session: Session) -> list[int]:
    return [one.number for one in frames(session) if one.kind == Kind.SAY]


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events if isinstance(event, Message)]


# -- the handshake -------------------------------------------------------------------------------


def test_the_first_join() -> None:
    session = Session("lobby", ME, nick="mee", silent=True, history=20)
    session.connected()
    assert session.data_to_send() == PREFACE
    assert session.data_to_send() == b""
    assert session.receive_data(PREFACE) == []
    (challenged,) = session.receive_data(pack(Kind.CHALLENGE, Challenge(key=b"k" * 32, nonce=b"n" * 32)))
    assert challenged == Challenge(key=b"k" * 32, nonce=b"n" * 32)
    session.hello(nonce=b"o", signature=b"s", invite=b"i", invite_proof=b"m", stream=STREAM)
    assert unpack(Hello, frames(session)[0]) == Hello(
        room="lobby",
        key=ME,
        nonce=b"o",
        signature=b"s",
        nick="mee",
        stream=STREAM,
        silent=True,
        invite=b"i",
        invite_proof=b"m",
        history=20,
    )
    events = session.receive_data(welcome(nick="mee-2", role="owner", start=5, next_seq=9))
    assert events == [Joined("lobby", EPOCH, 9, "mee-2", "owner", resumed=False, proof=b"p")]
    assert (session.state, session.nick, session.epoch, session.next_seq) == (LinkState.JOINED, "mee-2", EPOCH, 5)


def test_a_silent_reader_keeps_no_nickname() -> None:
    session, _ = joined(Session("lobby", ME, silent=True), stream=0, nick="", first_unsettled=0)
    assert session.nick == ""
    session, _ = joined(Session("lobby", ME, nick="ann", silent=True), stream=0, nick="", first_unsettled=0)
    assert session.nick == "ann"
    session.lost()
    assert greet(session).nick == "ann"
    session, _ = joined(Session("lobby", ME, silent=True), stream=0, nick="", first_unsettled=0)
    with pytest.raises(LocalProtocolError, match="only reads"):
        session.number(Outgoing(""))


def test_what_may_be_called_when() -> None:
    session = Session("lobby", ME)
    with pytest.raises(LocalProtocolError, match=r"hello\(\) while no link"):
        session.hello(nonce=b"", signature=b"")
    with pytest.raises(LocalProtocolError, match=r"ask\(\) while no link"):
        session.ask(Ask(what="names"))
    session.beat()
    session.bye()
    session.connected()
    with pytest.raises(LocalProtocolError, match=r"connected\(\) while waiting for the host's first words"):
        session.connected()
    session.beat()
    session.bye()
    assert session.data_to_send() == PREFACE


def test_beats_questions_and_goodbye_in_the_room() -> None:
    session, _ = joined()
    session.beat()
    assert [session.ask(Ask(what="invite", uses=3)), session.ask(Ask(what="names"))] == [1, 2]
    session.bye()
    beat, first, second, bye = frames(session)
    assert (beat.kind, first.kind, second.kind, bye.kind) == (Kind.BEAT, Kind.ASK, Kind.ASK, Kind.BYE)
    assert (first.number, second.number) == (1, 2)
    assert unpack(Ask, first) == Ask(what="invite", uses=3)
    answer = pack(Kind.ANSWER, Answer(text="chat://"), number=1)
    assert session.receive_data(answer) == [Answered(1, Answer(text="chat://"))]


@pytest.mark.parametrize("code", ["no-room", "banned"])
def test_a_long_refusal_is_cut_and_sanitized(code: str) -> None:
    session = Session("lobby", ME)
    session.connected()
    evil = "\x1b[2J" * 10_000
    body = msgspec.msgpack.encode({"code": code, "fields": {"room": evil[:5000]}, "text": evil})
    with pytest.raises(Refused) as caught:
        session.receive_data(PREFACE + encode(Kind.REFUSED, body))
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert caught.value.code == code
    assert all(len(str(value)) <= 200 for value in caught.value.fields.values())


@pytest.mark.parametrize("before", ["WAITING", "GREETED", "JOINED"])
def test_a_refusal_is_raised_at_any_time(before: str) -> None:
    session = Session("lobby", ME)
    if before == "WAITING":
        session.connected()
    else:
        greet(session)
    if before == "JOINED":
        session.receive_data(welcome())
    preface = PREFACE if before == "WAITING" else b""
    with pytest.raises(Refused, match="no room for you") as caught:
        session.receive_data(preface + pack(Kind.REFUSED, Refusal(code="banned", text="no room for you")))
    assert caught.value.code == "banned"


def test_no_such_room_is_an_error_of_its_own() -> None:
    session = Session("lobby", ME)
    greet(session)
    with pytest.raises(NoSuchRoom, match="there is none"):
        session.receive_data(pack(Kind.REFUSED, Refusal(code="no-room", text="there is none")))


def test_frames_before_their_time() -> None:
    session = Session("lobby", ME)
    session.connected()
    with pytest.raises(RemoteProtocolError, match="kind 66 while we were waiting for the host's first words"):
        session.receive_data(PREFACE + welcome())
    session = Session("lobby", ME)
    greet(session)
    with pytest.raises(RemoteProtocolError, match="a message while we were waiting to be let in"):
        session.receive_data(said(1))
    session = Session("lobby", ME)
    greet(session)
    with pytest.raises(RemoteProtocolError, match="kind 64 while we were waiting to be let in"):
        session.receive_data(pack(Kind.CHALLENGE, Challenge(key=b"h" * 32, nonce=b"n" * 32)))
    session, _ = joined()
    with pytest.raises(RemoteProtocolError, match="kind 66 while we were in the room"):
        session.receive_data(welcome())


def test_a_welcome_must_fit_what_we_hold() -> None:
    session, _ = joined(start=3, next_seq=3)
    session.lost()
    greet(session)
    with pytest.raises(RemoteProtocolError, match=f"resumes at 2 of log {EPOCH.hex()} where we asked for 3 of log"):
        session.receive_data(welcome(start=2, next_seq=3))
    session.lost()
    greet(session)
    with pytest.raises(RemoteProtocolError, match=f"resumes at 3 of log {OTHER.hex()}"):
        session.receive_data(welcome(start=3, next_seq=3, epoch=OTHER))  # and does not say that it is another log
    assert session.state is LinkState.GREETED


@pytest.mark.parametrize("epoch", [b"", b"seven b", b"x" * 60_000])
def test_a_welcome_has_an_epoch_of_eight_bytes(epoch: bytes) -> None:
    for session in (Session("lobby", ME), joined()[0]):
        session.lost()
        greet(session)
        with pytest.raises(RemoteProtocolError, match="epoch") as caught:
            session.receive_data(welcome(epoch=epoch))
        assert len(str(caught.value)) < 100


def test_a_welcome_must_tell_a_speaker_its_mark() -> None:
    session = Session("lobby", ME)
    greet(session)
    with pytest.raises(RemoteProtocolError, match="which of our messages it holds"):
        session.receive_data(welcome(first_unsettled=0))


# -- the log -------------------------------------------------------------------------------------


def test_messages_come_with_their_authors() -> None:
    session, _ = joined()
    events = session.receive_data(
        introduce(ANNS, 1)
        + said(2, body="h\u00e9llo\x1b".encode())
        + said(3, body=b"waves", kind=Kind.ACTION)
        + said(4, body=b"\xff", kind=15)
        + encode(20, b"a record of a newer host", seq=5)
    )
    assert events == [
        Message(2, 102, ANNS, Kind.SAY, "h\u00e9llo\x1b", 0, mine=False),
        Message(3, 103, ANNS, Kind.ACTION, "waves", 0, mine=False),
        Message(4, 104, ANNS, 15, "\ufffd", 0, mine=False),
    ]
    assert session.next_seq == 6


@pytest.mark.parametrize(
    ("kind", "flags", "body", "target", "text"),
    [
        (Kind.SAY, 0, SEQ_PREFIX.pack(65), 0, "\0\0\0\0\0\0\0A"),
        (Kind.SAY, REPLY, SEQ_PREFIX.pack(2**64 - 1) + b"so", 2**64 - 1, "so"),
        (Kind.EDIT, 0, SEQ_PREFIX.pack(7) + b"new", 7, "new"),
        (Kind.RETRACT, 0, SEQ_PREFIX.pack(7), 7, ""),
        (Kind.REACT, 0, SEQ_PREFIX.pack(7) + b"+1", 7, "+1"),
        (Kind.EDIT, 0, b"short", 0, ""),
        (Kind.ACTION, REPLY, b"12345678", 0, "12345678"),
    ],
)
def test_what_a_message_is_about(kind: int, flags: int, body: bytes, target: int, text: str) -> None:
    session, _ = joined()
    (message,) = session.receive_data(introduce(ANNS, 1) + said(2, body=body, kind=kind, flags=flags))
    assert isinstance(message, Message)
    assert (message.target, message.text) == (target, text)


def test_numbers_must_follow_each_other() -> None:
    for wrong in (0, 1, 3):
        session, _ = joined()
        session.receive_data(introduce(ANNS, 1))
        with pytest.raises(RemoteProtocolError, match=f"sent number {wrong} where 2 follows"):
            session.receive_data(said(wrong))


@pytest.mark.parametrize("time", [-1, 253_370_764_800_000, 2**63 - 1])
def test_a_time_that_no_calendar_has_is_refused(time: int) -> None:
    session, _ = joined()
    with pytest.raises(RemoteProtocolError, match=f"number 1 at the time {time}"):
        session.receive_data(encode(Kind.SAY, b"hi", author=2, number=1, seq=1, time=time))


def test_a_gap_is_told() -> None:
    session, _ = joined()
    assert session.receive_data(introduce(ANNS, 1) + control(Kind.GAP, first=2, count=8)) == [Gap(first=2, count=8)]
    assert seqs(session.receive_data(said(10))) == [10]
    for first, count in ((5, 2), (12, 1), (11, 0)):
        other, _ = joined(start=11, next_seq=11)
        with pytest.raises(RemoteProtocolError, match=f"a gap at {first} where 11 follows"):
            other.receive_data(control(Kind.GAP, first=first, count=count))


def test_history_before_what_was_asked_for_is_not_shown() -> None:
    session, _ = joined(start=1, show=4, next_seq=6)
    assert seqs(session.receive_data(introduce(ANNS, 1) + b"".join(map(said, range(2, 7))))) == [4, 5, 6]


def test_nor_is_it_shown_after_the_link_was_lost_in_the_middle_of_it() -> None:
    session, _ = joined(start=1, show=5, next_seq=7)
    session.receive_data(introduce(ANNS, 1) + said(2))
    session.lost()
    joined(session, start=3, show=3, next_seq=7)
    assert seqs(session.receive_data(b"".join(map(said, range(3, 7))))) == [5, 6]


def test_coming_back_asks_for_the_rest() -> None:
    session, _ = joined()
    first = introduce(ANNS, 1)
    session.receive_data(first + said(2)[:-1])
    session.lost()
    assert session.state is LinkState.OFF
    hello = greet(session)
    assert (hello.epoch, hello.next_seq, hello.last, hello.stream) == (EPOCH, 2, digest(first), STREAM)
    (event,) = session.receive_data(welcome(start=2, next_seq=3, nick="me"))
    assert isinstance(event, Joined)
    assert event.resumed
    assert seqs(session.receive_data(said(2))) == [2]  # who ann is, it knows from before


def test_after_a_gap_there_is_no_last_frame_to_show() -> None:
    session, _ = joined()
    session.receive_data(introduce(ANNS, 1) + control(Kind.GAP, first=2, count=3))
    session.lost()
    hello = greet(session)
    assert (hello.next_seq, hello.last) == (5, b"")


def test_a_number_to_begin_at_counts_until_the_first_join() -> None:
    session = Session("lobby", ME)
    session.start_at = 7
    assert greet(session).next_seq == 7
    session.receive_data(welcome(start=7, next_seq=9))
    session.receive_data(introduce(ANNS, 7))
    session.lost()
    assert greet(session).next_seq == 8


def test_a_host_that_went_back_is_told_of_and_begins_anew() -> None:
    session, _ = joined()
    session.receive_data(introduce(ANNS, 1) + said(2) + said(3))
    session.lost()
    greet(session)
    events = session.receive_data(welcome(start=2, show=3, next_seq=4, rewound=WENT_BACK, epoch=OTHER))
    assert events == [
        Rewound(WENT_BACK),
        Joined("lobby", OTHER, 4, "me", "member", resumed=False, proof=b"p"),
    ]
    cid = Author(index=2, key=b"c" * 32, stream=1, nick="cid")
    session.receive_data(said(2) + said(3))
    assert [unpack(Ask, one).authors for one in frames(session)] == [[2]]  # who was number 2 before means nothing
    (message,) = session.receive_data(control(Kind.NAMES, authors=[cid], asked=[2]))
    assert isinstance(message, Message)
    assert (message.seq, message.author) == (3, cid)


def test_a_host_that_went_back_is_not_asked_to_go_on_after_a_frame_of_before() -> None:
    session, _ = joined()
    session.receive_data(introduce(ANNS, 1) + said(2))
    session.lost()
    joined(session, start=5, next_seq=5, rewound=WENT_BACK)
    session.lost()
    hello = greet(session)
    assert (hello.epoch, hello.next_seq, hello.last) == (EPOCH, 5, b"")


# -- authors that are not known ------------------------------------------------------------------


def test_messages_wait_for_their_authors_names_and_keep_their_order() -> None:
    session, _ = joined(start=50, next_seq=60)
    data = said(50) + said(51, Author(index=9, key=ANN, stream=6, nick="")) + control(Kind.GAP, first=52, count=2)
    assert session.receive_data(data + introduce(OWN, 54) + said(55)) == []
    assert session.next_seq == 50
    (ask,) = frames(session)
    assert unpack(Ask, ask) == Ask(what="names", authors=[2])
    events = session.receive_data(control(Kind.NAMES, authors=[ANNS], asked=[2]))
    assert seqs(events) == [50]
    assert [unpack(Ask, one).authors for one in frames(session)] == [[9]]
    events = session.receive_data(control(Kind.NAMES, authors=[], asked=[9]))
    assert [type(event) for event in events] == [Message, Gap, Message]
    assert isinstance(events[0], Message)
    assert events[0].author == Author(index=9, key=b"", stream=0, nick="?")  # the host has no such author
    assert seqs(events) == [51, 55]
    assert session.data_to_send() == b""


def test_names_are_asked_for_in_pages() -> None:
    session, _ = joined(start=50, next_seq=150)
    authors = [Author(index=n, key=ANN, stream=n, nick=f"n{n}") for n in range(1, 61)]
    session.receive_data(said(50, authors[0]))
    session.receive_data(b"".join(said(50 + n, authors[n]) for n in range(1, 60)))
    asked: list[list[int]] = []
    while questions := frames(session):
        (question,) = questions
        asked.append(unpack(Ask, question).authors)
        names = [authors[index - 1] for index in asked[-1]]
        session.receive_data(control(Kind.NAMES, authors=names, asked=asked[-1]))
    assert asked == [[1], [*range(2, 26)], [*range(26, 50)], [*range(50, 61)]]
    assert session.next_seq == 110


def test_what_waited_when_the_link_was_lost_comes_again() -> None:
    session, _ = joined(start=50, next_seq=60)
    session.receive_data(said(50) + said(51))
    session.lost()
    assert greet(session).next_seq == 50
    session.receive_data(welcome(start=50, next_seq=52))
    session.receive_data(said(50))
    events = session.receive_data(said(51) + control(Kind.NAMES, authors=[ANNS], asked=[2]))
    assert seqs(events) == [50, 51]


@pytest.mark.parametrize("kind", [Kind.SAY, Kind.GAP])
def test_a_host_that_never_says_who_wrote_is_stopped(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.incoming._MAX_HELD", 64 * 1024)
    session, _ = joined(start=50, next_seq=60)
    first, rest = said(50), range(51, 51 + 64 * 1024 // HEADER_SIZE)
    pieces = [said(seq) if kind == Kind.SAY else control(Kind.GAP, first=seq, count=1) for seq in rest]
    with pytest.raises(RemoteProtocolError, match="does not say who wrote number 50"):
        session.receive_data(first + b"".join(pieces))


def test_it_is_what_waits_at_one_time_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.incoming._MAX_HELD", 1300)
    session, _ = joined(start=50, next_seq=60)
    for seq in range(50, 100, 5):
        stranger = Author(index=seq, key=ANN, stream=seq, nick="x")
        gap = control(Kind.GAP, first=seq + 1, count=1)
        assert session.receive_data(said(seq, stranger, body=bytes(400)) + gap + said(seq + 2, body=bytes(200))) == []
        session.lost()  # that empties it,
        joined(session, start=seq, next_seq=200)
        data = said(seq, stranger, body=bytes(400)) + gap + said(seq + 2, stranger, body=bytes(200))
        session.receive_data(data)
        events = session.receive_data(control(Kind.NAMES, authors=[stranger], asked=[seq]))  # and so does this
        assert seqs(events) == [seq, seq + 2]
        assert seqs(session.receive_data(said(seq + 3, stranger) + said(seq + 4, stranger))) == [seq + 3, seq + 4]


def test_authors_who_are_forgotten_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.incoming.MAX_AUTHORS", 4)
    session, _ = joined(start=50, next_seq=60)
    authors = [Author(index=n, key=ANN, stream=n, nick=f"n{n}") for n in range(6)]
    for author in authors:
        session.receive_data(control(Kind.NAMES, authors=[author], asked=[]))
    assert seqs(session.receive_data(said(50, authors[5]) + said(51, authors[0]))) == [50]
    (question,) = frames(session)
    assert unpack(Ask, question).authors == [0]
    assert seqs(session.receive_data(control(Kind.NAMES, authors=authors[:1], asked=[0]))) == [51]


def test_a_change_of_what_somebody_else_has_said_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.incoming.MAX_WROTE", 7)
    ann, bob = (Author(index=n, key=key, stream=n, nick="x") for n, key in enumerate((ANN, b"b" * 32), 1))
    session, _ = joined(start=50, next_seq=60)
    session.receive_data(control(Kind.NAMES, authors=[ann, bob], asked=[]))

    def change(seq: int, author: Author, kind: Kind, target: int) -> list[tuple[int, bool]]:
        body = SEQ_PREFIX.pack(target) + b"new"
        events = session.receive_data(encode(kind, body, author=author.index, seq=seq, time=1))
        return [(event.seq, event.verified) for event in events if isinstance(event, Message)]

    session.receive_data(said(50, ann) + said(51, bob))
    assert change(52, bob, Kind.EDIT, 50) == []
    assert change(53, bob, Kind.RETRACT, 50) == []
    assert change(54, ann, Kind.EDIT, 50) == [(54, True)]
    assert change(55, bob, Kind.EDIT, 49) == [(55, False)]  # nobody here has seen it
    assert change(56, bob, Kind.REACT, 50) == [(56, True)]  # anybody may
    for seq in range(57, 62):
        session.receive_data(said(seq, bob))
    assert change(62, ann, Kind.EDIT, 50) == [(62, False)]  # forgotten


# -- what we say ---------------------------------------------------------------------------------


def test_an_echo_settles_what_was_said() -> None:
    session, _ = joined(start=3, next_seq=3, first_unsettled=7)
    first, second = say(session, "one"), say(session, "two")
    assert (first.number, second.number, first.epoch, first.since) == (7, 8, EPOCH, 3)
    assert [(one.number, one.body) for one in frames(session)] == [(7, b"one"), (8, b"two")]
    events = session.receive_data(introduce(OWN, 3) + said(4, OWN, 7, b"one") + said(5, OWN, 8, b"two"))
    assert [(e.seq, e.mine) if isinstance(e, Message) else e for e in events] == [
        (4, True),
        Stored(first, 4),
        (5, True),
        Stored(second, 5),
    ]
    assert not session.unsettled


def test_only_our_own_stream_settles() -> None:
    session, _ = joined()
    say(session)
    other_window = Author(index=3, key=ME, stream=7, nick="me")
    namesake = Author(index=4, key=ANN, stream=STREAM, nick="me")
    session.receive_data(
        b"".join(introduce(author, seq) for seq, author in enumerate((ANNS, other_window, namesake), 1))
    )
    events = session.receive_data(said(4, ANNS) + said(5, other_window) + said(6, namesake))
    assert [event.mine for event in events if isinstance(event, Message)] == [False] * 3
    assert len(session.unsettled) == 1


def test_a_reader_owns_nothing_even_where_a_stream_is_zero() -> None:
    session, _ = joined(Session("lobby", ME, silent=True), stream=0, first_unsettled=0)
    zero = Author(index=1, key=ME, stream=0, nick="me")
    (message,) = session.receive_data(introduce(zero, 1) + said(2, zero))
    assert isinstance(message, Message)
    assert not message.mine


def test_what_is_said_without_a_link_goes_out_with_the_next() -> None:
    session, _ = joined()
    sent = say(session)
    session.lost()
    assert session.data_to_send() == b""
    waiting = say(session)
    assert session.data_to_send() == b""
    greet(session)
    greeted = say(session)  # while we wait to be let in
    assert session.data_to_send() == b""
    session.receive_data(welcome(start=1, next_seq=1))
    assert numbers(session) == [1, 2, 3] == [sent.number, waiting.number, greeted.number]


def test_what_the_host_holds_already_is_not_sent_again() -> None:
    session, _ = joined()
    first, second = say(session), say(session)
    session.lost()
    _, events = joined(session, start=1, next_seq=3, first_unsettled=2)
    assert not [event for event in events if isinstance(event, Stored | Numbered)]
    assert numbers(session) == [2]
    events = session.receive_data(introduce(OWN, 1) + said(2, OWN, 1) + said(3, OWN, 2))
    assert [event for event in events if isinstance(event, Stored)] == [Stored(first, 2), Stored(second, 3)]


def test_what_is_said_before_the_first_join_gets_its_number_there() -> None:
    session = Session("lobby", ME)
    early = say(session)
    assert (early.number, early.since) == (0, 0)
    before = left(4, since=2)
    _, events = joined(session, [before], start=9, next_seq=9, first_unsettled=5)
    assert Numbered() in events
    assert events[-1] == unconfirmed(before)  # said before, and its echo is not in what we are sent
    assert (early.number, early.epoch, early.since) == (5, EPOCH, 9)
    assert numbers(session) == [5]
    assert say(session).number == 6


def test_say_wants_the_entry_that_was_numbered_last() -> None:
    session, _ = joined(first_unsettled=5)
    with pytest.raises(LocalProtocolError, match="number 0 where 5 follows"):
        session.say(OutboxEntry(0, Kind.SAY, 0, b""))
    first, second = session.number(Outgoing("")), session.number(Outgoing(""))
    session.say(first)
    with pytest.raises(LocalProtocolError, match="number 5 where 6 follows"):
        session.say(second)


# -- what an earlier process said ----------------------------------------------------------------


def test_an_outbox_that_was_taken_over() -> None:
    session = Session("lobby", ME, history=1)
    entries = [left(4, since=20), left(5, since=21), left(6, since=23)]
    assert greet(session, entries).since == 20
    events = session.receive_data(welcome(start=20, show=24, next_seq=25, first_unsettled=6))
    assert [type(event) for event in events] == [Joined]
    assert numbers(session) == [6]
    events = session.receive_data(introduce(OWN, 20) + said(21, OWN, 4) + said(22, OWN, 5) + introduce(ANNS, 23))
    assert events == [Stored(entries[0], 21), Stored(entries[1], 22)]  # settled, and not shown
    assert seqs(session.receive_data(said(24))) == [24]
    assert session.receive_data(said(25, OWN, 6))[-1] == Stored(entries[2], 25)


def test_it_is_taken_over_once() -> None:
    session = Session("lobby", ME)
    greet(session, [left(1)])
    session.lost()
    greet(session, [left(1)])
    assert len(session.unsettled) == 1


def test_entries_whose_echo_is_not_to_be_had_come_back() -> None:
    session = Session("lobby", ME)
    entries = [left(4), left(5)]
    _, events = joined(session, entries, start=30, next_seq=30, first_unsettled=6)
    assert events[1:] == [unconfirmed(entries[0]), unconfirmed(entries[1])]
    assert not session.unsettled


def test_an_echo_after_the_missing_one_settles_both() -> None:
    session = Session("lobby", ME)
    entries = [left(4), left(5)]
    joined(session, entries, start=20, show=30, next_seq=30, first_unsettled=6)
    events = session.receive_data(introduce(OWN, 20) + said(21, OWN, 5))
    assert events == [unconfirmed(entries[0]), Stored(entries[1], 21)]


def test_what_a_gap_may_hide_comes_back_when_all_has_passed() -> None:
    session, _ = joined(Session("lobby", ME), [left(4)], start=20, show=30, next_seq=30, first_unsettled=5)
    gap = control(Kind.GAP, first=20, count=9)
    assert session.receive_data(gap) == [Gap(first=20, count=9)]
    (stored,) = session.receive_data(introduce(ANNS, 29))
    assert stored == unconfirmed(left(4))
    session, _ = joined(Session("lobby", ME), [left(4)], start=20, show=30, next_seq=30, first_unsettled=5)
    assert session.receive_data(control(Kind.GAP, first=20, count=99))[1:] == [unconfirmed(left(4))]


# -- what the host rejects -----------------------------------------------------------------------


def rejection(number: int, count: int = 1, code: str = "no-target", **more: Any) -> bytes:
    return control(Kind.REJECTED, number=number, count=count, code=code, **more)


NO_TARGET: Final = "the message that it refers to is not in this room's log"
UNKNOWN: Final = "the host did not take it and no longer knows why"


def test_a_rejection_settles_what_was_said() -> None:
    session, _ = joined()
    first, second, third = say(session), say(session, "two"), say(session, "three")
    assert session.receive_data(rejection(2)) == []  # the first one's outcome comes first
    events = session.receive_data(introduce(OWN, 1) + said(2, OWN, 1))
    assert events[1:] == [Stored(first, 2), Rejected(second, "no-target", Text(NO_TARGET))]
    assert session.receive_data(rejection(2)) == []  # told again
    assert list(session.unsettled) == [third]
    assert say(session).number == 4
    assert session.receive_data(said(3, OWN, 3, b"three"))[1:] == [Stored(third, 3)]


def test_a_rejection_is_told_at_once_where_nothing_is_ahead_of_it() -> None:
    session, _ = joined()
    entries = [say(session) for _ in range(3)]
    events = session.receive_data(rejection(1, 3, "a newer one", text="you are muted"))
    assert events == [Rejected(entry, "a newer one", Text("you are muted")) for entry in entries]
    assert not session.unsettled


def test_a_rejection_is_worded_here_and_a_strange_one_is_shortened() -> None:
    session, _ = joined()
    for _ in range(4):
        say(session)
    (known,) = session.receive_data(rejection(1, 1, "too-long", fields={"size": 9, "limit": 8}, text="x"))
    (strange,) = session.receive_data(rejection(2, 1, "new", text="x" * 5000))
    (wrong,) = session.receive_data(rejection(3, 1, "too-long", fields={"limit": 8}, text="too long"))
    (bare,) = session.receive_data(rejection(4, 1, "new"))
    assert [event.why for event in (known, strange, wrong, bare) if isinstance(event, Rejected)] == [
        "the message is too long (9 bytes, the limit is 8); send it in parts",
        "x" * 199 + "…",
        "too long",
        "new",
    ]


def test_a_rejection_that_came_while_the_link_was_lost_is_told_after_the_next_welcome() -> None:
    session, _ = joined()
    first, second, third = say(session), say(session), say(session)
    session.lost()
    greeting = greet(session)
    assert greeting.unsettled == 1
    events = session.receive_data(welcome(start=1, next_seq=1, first_unsettled=3, rejected=2))
    assert [type(event) for event in events] == [Joined]  # more is to come before an outcome is known
    assert numbers(session) == [3]
    assert session.receive_data(rejection(1)) == [Rejected(first, "no-target", Text(NO_TARGET))]
    assert session.receive_data(rejection(2)) == [Rejected(second, "no-target", Text(NO_TARGET))]
    assert list(session.unsettled) == [third]


def test_what_the_host_dealt_with_and_does_not_hold_was_rejected() -> None:
    """It keeps the reasons of a few only."""
    entries = [left(4, since=20), left(5, since=20), left(6, since=20)]
    session, _ = joined(Session("lobby", ME), entries, start=20, show=30, next_seq=23, first_unsettled=7, rejected=6)
    session.receive_data(rejection(6))
    events = session.receive_data(introduce(OWN, 20) + said(21, OWN, 5))
    assert events == [
        Rejected(entries[0], "unknown", Text(UNKNOWN)),
        Stored(entries[1], 21),
        Rejected(entries[2], "no-target", Text(NO_TARGET)),
    ]
    entries = [left(4, since=20)]
    session, _ = joined(Session("lobby", ME), entries, start=20, show=30, next_seq=21, first_unsettled=5)
    assert session.receive_data(introduce(ANNS, 20)) == [Rejected(entries[0], "unknown", Text(UNKNOWN))]


def test_what_was_appended_by_an_unknown_author_may_be_an_echo() -> None:
    entry = left(4, since=20)
    session, _ = joined(Session("lobby", ME), [entry], start=20, show=30, next_seq=21, first_unsettled=5)
    assert session.receive_data(said(20, OWN, 4)) == []  # asks who that is
    assert session.receive_data(control(Kind.NAMES, authors=[], asked=[OWN.index])) == [unconfirmed(entry)]


def test_an_entry_that_is_sent_again_to_a_shorter_log_has_its_place_there() -> None:
    """Else the next process would ask for the log from behind its echo."""
    entry = left(4, since=500)
    _, events = joined(Session("lobby", ME), [entry], start=3, next_seq=3, first_unsettled=4)
    assert Numbered() in events
    assert (entry.number, entry.since) == (4, 3)


def test_numbers_of_rejections_of_another_log_mean_nothing() -> None:
    entry = left(2, epoch=OTHER)
    session, _ = joined(Session("lobby", ME), [entry], start=3, next_seq=3, first_unsettled=9, rejected=2)
    assert session.receive_data(rejection(2)) == []
    assert (entry.number, list(session.unsettled)) == (9, [entry])


def test_of_two_entries_of_one_number_only_the_one_that_came_back_has_its_place() -> None:
    """A host went back; the process that knew that the first was stored died before it had left the outbox."""
    lost, now = OutboxEntry(4, Kind.SAY, 0, b"lost", epoch=EPOCH, since=3), left(4, since=5)
    session, _ = joined(Session("lobby", ME), [lost, now], start=3, show=9, next_seq=9, first_unsettled=5)
    events = session.receive_data(introduce(OWN, 3) + introduce(ANNS, 4) + said(5, OWN, 4, now.body))
    assert events == [unconfirmed(lost), Stored(now, 5)]


def test_entries_whose_numbers_do_not_ascend_are_each_told_once() -> None:
    entries = [left(8), left(4), left(5)]  # 8 was given before the host went back to 3
    session, _ = joined(Session("lobby", ME), entries, start=3, show=9, next_seq=6, first_unsettled=6)
    assert numbers(session) == [6]
    events = session.receive_data(introduce(OWN, 3) + said(4, OWN, 4) + said(5, OWN, 5) + said(6, OWN, 6))
    assert events == [Stored(entries[0], 6), Stored(entries[1], 4), Stored(entries[2], 5)]


def test_a_mark_that_is_too_high_makes_no_receipt() -> None:
    """A bit flipped on the host's disk: by its mark it holds what it never got."""
    session, _ = joined(start=20, next_seq=20, first_unsettled=4)
    entries = [say(session, text) for text in ("one", "two")]
    session.lost()
    session.data_to_send()
    _, events = joined(session, start=20, next_seq=22, first_unsettled=12)
    assert numbers(session) == []
    assert [type(event) for event in events] == [Joined]
    events = session.receive_data(introduce(ANNS, 20) + said(21))
    assert events[1:] == [Rejected(entry, "unknown", Text(UNKNOWN)) for entry in entries]


def test_a_mark_that_is_too_low_makes_no_receipt() -> None:
    """What is waiting gets numbers that earlier messages have; their echoes are not its own."""
    session = Session("lobby", ME, history=100)
    entries = [left(6, since=20), left(7, since=20)]
    joined(session, entries, start=1, next_seq=20, first_unsettled=2)
    assert [entry.number for entry in entries] == numbers(session) == [2, 3]
    past = b"".join(said(seq, OWN, seq, b"%d" % seq) for seq in range(2, 6))
    assert len(session.receive_data(introduce(OWN, 1) + past + control(Kind.GAP, first=6, count=14))) == 5
    assert list(session.unsettled) == entries
    events = session.receive_data(said(20, OWN, 2) + said(21, OWN, 3))
    assert [event for event in events if isinstance(event, Stored)] == [Stored(entries[0], 20), Stored(entries[1], 21)]


def test_an_entry_without_a_place_in_time_moves_no_start() -> None:
    assert greet(Session("lobby", ME), [left(0, since=3), left(4, since=0)]).since == 0
    assert greet(Session("lobby", ME), [left(4, since=0), left(5, since=7)]).since == 7


# -- a host that does not hold what it held ------------------------------------------------------


def test_a_host_that_went_back_is_sent_again_what_it_lost_under_the_numbers_it_lacks() -> None:
    session, _ = joined(first_unsettled=9)
    first, second = say(session), say(session)
    frames(session)
    session.lost()
    _, events = joined(session, start=1, next_seq=4, first_unsettled=6, rewound=WENT_BACK)
    assert [type(event) for event in events] == [Rewound, Joined, Numbered]
    assert [(e.number, e.since) for e in (first, second)] == [(6, 4), (7, 4)]
    assert numbers(session) == [6, 7]
    assert say(session).number == 8


def test_the_proof_comes_before_the_outbox_is_touched() -> None:
    """A host that cannot prove its key must not change what is on our disk."""
    _, events = joined(Session("lobby", ME), [left(9)], first_unsettled=1)
    assert [type(event) for event in events] == [Joined, Numbered]


def test_numbers_of_another_log_mean_nothing_in_this_one() -> None:
    """Two hosts behind one address, say: its mark for our stream is not about these entries."""
    entry = left(9, since=500, epoch=OTHER)
    session, events = joined(Session("lobby", ME), [entry], start=3, next_seq=3, first_unsettled=21)
    assert Numbered() in events
    assert (entry.number, entry.epoch, entry.since) == (21, EPOCH, 3)
    assert numbers(session) == [21]
    session, events = joined(Session("lobby", ME), [left(1, epoch=OTHER)], first_unsettled=1)
    assert Numbered() in events  # the same number by chance, but not the same place in time
    assert numbers(session) == [1]


# -- who is here ---------------------------------------------------------------------------------


def presence(*here: str, gone: Iterable[str] = (), **more: Any) -> bytes:
    def who(nick: str) -> tuple[bytes, str]:
        return nick.encode() * 32, nick

    return control(Kind.PRESENCE, here=[who(nick) for nick in here], gone=[who(nick) for nick in gone], **more)


def came_and_went(events: list[Event]) -> list[tuple[str, str, bool]]:
    found = [event for event in events if isinstance(event, Here)]
    assert len(found) == len(events)
    return [("".join(nick for _, nick in e.came), "".join(nick for _, nick in e.went), e.first) for e in found]


def present(session: Session) -> str:
    return "".join(nick for _, nick in session.here)


def test_who_is_here_and_who_comes_and_goes() -> None:
    session, _ = joined()
    assert came_and_went(session.receive_data(presence("a", "b", reset=True))) == [("ab", "", True)]
    assert came_and_went(session.receive_data(presence("c", "a", gone="bx"))) == [("c", "b", False)]
    assert came_and_went(session.receive_data(presence("a", gone="b"))) == []  # nothing new
    assert present(session) == "ac"


def test_an_empty_room_is_told_of_too() -> None:
    session, _ = joined()
    assert came_and_went(session.receive_data(presence(reset=True))) == [("", "", True)]


def test_more_members_than_we_list_are_counted_in_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.present.MAX_HERE", 3)
    session, _ = joined()
    session.receive_data(presence("a", "b", reset=True))
    notice, here = session.receive_data(presence("c", "d", "e"))
    assert notice == LocalNotice(code="many-members", fields={"count": 3})
    assert came_and_went([here]) == [("c", "", False)]
    assert came_and_went(session.receive_data(presence("f", gone="da"))) == [("", "a", False)]  # told once
    assert came_and_went(session.receive_data(presence("g"))) == [("g", "", False)]


def test_login_names_are_kept_with_those_who_are_here() -> None:
    session, _ = joined()
    users: list[tuple[int, str]] = [(0, "root\x1b"), (1, "u" * 64), (7, "nobody")]
    session.receive_data(presence("a", "b", reset=True, users=users))
    assert {nick: user for (_, nick), user in session.users.items()} == {"a": "root␛", "b": "u" * 31 + "…"}
    session.receive_data(presence(gone="b"))
    assert list(session.users.values()) == ["root␛"]
    session.receive_data(presence("a", reset=True))
    assert not session.users


def test_a_list_in_pages_is_told_when_it_is_whole() -> None:
    session, _ = joined()
    assert session.receive_data(presence("a", "b", reset=True, more=True)) == []
    assert session.receive_data(presence("c", gone="b", more=True)) == []
    assert came_and_went(session.receive_data(presence("d"))) == [("acd", "", True)]


def test_a_list_that_begins_anew_is_told_by_what_differs() -> None:
    session, _ = joined()
    session.receive_data(presence("a", "b", reset=True))
    assert session.receive_data(presence("b", reset=True, more=True)) == []
    assert session.receive_data(presence("x", "b", reset=True, more=True)) == []  # anew, in the middle
    assert came_and_went(session.receive_data(presence("c"))) == [("xc", "a", False)]
    assert present(session) == "xbc"


def test_coming_back_tells_who_came_and_went_meanwhile() -> None:
    session, _ = joined()
    session.receive_data(presence("a", "b", reset=True))
    session.lost()
    assert present(session) == "ab"
    joined(session)
    assert came_and_went(session.receive_data(presence("b", "c", reset=True))) == [("c", "a", True)]


@pytest.mark.parametrize("before", ["", "z"])
def test_a_list_cut_off_in_the_middle_is_no_list(before: str) -> None:
    session, _ = joined()
    session.receive_data(presence(*before, reset=True))
    session.receive_data(presence("a", "b", reset=True, more=True))
    session.lost()
    assert present(session) == before
    joined(session)
    assert came_and_went(session.receive_data(presence("a", "b", "c", reset=True))) == [("abc", before, True)]


# -- the rest ------------------------------------------------------------------------------------


def test_notices_beats_and_what_a_newer_host_may_send() -> None:
    session, _ = joined()
    data = control(Kind.NOTICE, code="new", text="full") + encode(Kind.BEAT) + encode(200, b"?")
    assert session.receive_data(data) == [Notice(code="new", text="full")]


# -- ranges --------------------------------------------------------------------------------------


def by(index: int) -> Author:
    return Author(index=index, key=b"b" * 32, stream=index, nick="bob")


def test_names_are_asked_for_one_question_at_a_time() -> None:
    """Or, with two parts of the log that wait for names, the questions would double with each answer."""
    session, _ = joined(start=5, next_seq=5)
    number = session.ask(Ask(what="range", first=1, before=3))
    with pytest.raises(LocalProtocolError, match="one at a time"):
        session.ask(Ask(what="range", first=1, before=3))
    session.data_to_send()
    piece = encode(Kind.RANGE, said(1, by(8)) + said(2, by(9)), number=number, flags=LAST)
    assert session.receive_data(piece + said(5, by(7))) == []
    (ask,) = frames(session)
    assert unpack(Ask, ask).authors == [8, 9]
    names = control(Kind.NAMES, authors=[by(8), by(9)], asked=[8, 9])
    (found,) = session.receive_data(names)
    assert isinstance(found, Ranged)
    assert ([item.seq for item in found.items if isinstance(item, Message)], found.last) == ([1, 2], True)
    (ask,) = frames(session)
    assert unpack(Ask, ask).authors == [7]
    (message,) = session.receive_data(control(Kind.NAMES, authors=[by(7)], asked=[7]))
    assert isinstance(message, Message)
    assert session.ask(Ask(what="range", first=1, before=3))


def test_a_range_settles_nothing_and_ends_with_the_link() -> None:
    session, _ = joined()
    say(session)
    number = session.ask(Ask(what="range", first=1, before=3))
    piece = encode(Kind.RANGE, introduce(OWN, 1) + said(2, OWN, 1), number=number)
    (found,) = session.receive_data(piece)
    assert isinstance(found, Ranged)
    assert [item.mine for item in found.items if isinstance(item, Message)] == [True]
    assert len(session.unsettled) == 1
    session.lost()
    joined(session, start=1, first_unsettled=2)
    with pytest.raises(RemoteProtocolError, match="did not ask for"):
        session.receive_data(encode(Kind.RANGE, b"", number=number, flags=LAST))
