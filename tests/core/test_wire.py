"""Frames: the layout byte for byte, the parser's limits, and what hostile bodies come to."""

from __future__ import annotations

import msgspec
import pytest

from chat.core import wire
from chat.core.bodies import Answer, Ask, Author, Gap, Hello, Moderation, Names, Presence, Struct, Welcome, pack, unpack
from chat.core.errors import LocalProtocolError, RemoteProtocolError
from chat.core.wire import (
    HEADER_SIZE,
    MAX_CONTROL,
    MAX_FRAME,
    MAX_HELLO,
    MAX_TEXT,
    PREFACE,
    REPLY,
    SEQ_PREFIX,
    YEAR_9999,
    Frame,
    Kind,
    Parser,
    encode,
    kind_at,
    length_at,
    offset_of,
    run_of,
    split,
    stamp,
)

BAD_LENGTHS = [
    (31, "length of 31 bytes"),
    (0, "length of 0 bytes"),
    (MAX_FRAME + 1, "65537 bytes; the limit here is 65536"),
]


def with_length(length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes(HEADER_SIZE - 4)


# -- the layout -----------------------------------------------------------------------------------


def test_the_header_is_laid_out_as_drawn() -> None:
    data = encode(1, b"hi", flags=2, author=3, number=4, seq=5, time=-6)
    assert data == bytes.fromhex("00000022 01 02 0000 00000003 00000004 0000000000000005 fffffffffffffffa") + b"hi"


def test_a_frame_comes_apart_as_it_was_made() -> None:
    data = encode(255, b"body", flags=255, author=2**32 - 1, number=2**32 - 1, seq=2**64 - 1, time=2**63 - 1)
    (only,) = split(data)
    assert only == Frame(255, 255, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**63 - 1, data)
    assert only.body == b"body"


def test_the_spare_bytes_are_for_later_versions() -> None:
    data = bytearray(encode(Kind.SAY, b"hi"))
    data[6:8] = b"\xff\xff"
    assert next(split(bytes(data))).body == b"hi"


def test_the_kinds_of_the_log_and_of_one_peer_are_told_apart_by_number() -> None:
    logged = {Kind.SAY, Kind.ACTION, Kind.EDIT, Kind.RETRACT, Kind.REACT, Kind.AUTHOR, Kind.MODERATION}
    assert {kind for kind in Kind if kind < wire.LOG_KINDS_END} == logged
    assert {kind for kind in Kind if kind < wire.SPOKEN_END} == logged - {Kind.AUTHOR, Kind.MODERATION}
    assert len({int(kind) for kind in Kind.__members__.values()}) == len(Kind.__members__)


def test_the_longest_text_fits_a_frame_and_the_longest_hello_is_a_frame_of_its_own() -> None:
    assert len(encode(Kind.EDIT, SEQ_PREFIX.pack(1) + bytes(MAX_TEXT))) < MAX_FRAME
    assert HEADER_SIZE < MAX_HELLO < MAX_FRAME


def test_the_largest_frame_is_64_kib() -> None:
    largest = encode(Kind.SAY, bytes(MAX_FRAME - HEADER_SIZE))
    assert len(largest) == MAX_FRAME
    assert [found.raw for found in split(largest)] == [largest]
    with pytest.raises(LocalProtocolError, match="65537 bytes is over the limit of 65536"):
        encode(Kind.SAY, bytes(MAX_FRAME - HEADER_SIZE + 1))


@pytest.mark.parametrize(
    "field",
    [{"flags": 256}, {"author": 2**32}, {"number": -1}, {"seq": 2**64}, {"time": 2**63}],
    ids=lambda field: next(iter(field)),
)
def test_a_number_too_large_for_its_field_is_our_own_fault(field: dict[str, int]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(LocalProtocolError, match=f"{name}={value}"):
        encode(Kind.SAY, b"", **field)


# -- batches --------------------------------------------------------------------------------------


def test_a_batch_is_walked_by_its_lengths_alone() -> None:
    parts = [encode(Kind.SAY, b"a"), encode(Kind.ACTION), encode(Kind.REACT, b"ccc")]
    batch = b"".join(parts)
    starts = [offset_of(batch, steps) for steps in range(4)]
    assert starts == [0, len(parts[0]), len(parts[0]) + len(parts[1]), len(batch)]
    assert [length_at(batch, at) for at in starts[:3]] == [len(part) for part in parts]
    assert [kind_at(batch, at) for at in starts[:3]] == [Kind.SAY, Kind.ACTION, Kind.REACT]


def test_a_batch_must_be_whole_frames() -> None:
    assert list(split(b"")) == []
    with pytest.raises(RemoteProtocolError, match="ends 33 bytes into a frame"):
        list(split(encode(Kind.SAY) + encode(Kind.SAY, b"hi")[:-1]))


# -- the parser -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        PREFACE,
        b"chat/2 \n",
        b"chat/2\n",
        b"chat/2\r\n",
        b"chat/2 another program, \xff\n",
        b"chat/2 " + b"x" * 56 + b"\n",
    ],
)
def test_every_preface_of_our_version_is_taken(line: bytes) -> None:
    assert [found.kind for found in Parser().feed(line + encode(Kind.BEAT))] == [Kind.BEAT]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\n", b"chat 1\n", b"chat/" + b"x" * 59, b"\x1b]0;gotcha\x07"]
)
def test_another_protocol_is_told_what_it_said(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not speak chat/2: it began with") as caught:
        list(Parser().feed(data))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_junk_is_refused_at_its_first_wrong_byte() -> None:
    parser = Parser()
    assert list(parser.feed(b"chat")) == []
    with pytest.raises(RemoteProtocolError):
        list(parser.feed(b":"))


@pytest.mark.parametrize("line", [b"chat/1 manywire\n", b"chat/20 x\n", b"chat/\n", b"chat/2x\n"])
def test_another_version_is_named(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"speaks 'chat/.*', this is chat/2; use the same version"):
        list(Parser().feed(line))


def test_a_preface_that_does_not_end_is_refused_at_64_bytes() -> None:
    parser = Parser()
    assert list(parser.feed(b"chat/2 " + b"x" * 56)) == []
    with pytest.raises(RemoteProtocolError, match="does not speak"):
        list(parser.feed(b"x"))


@pytest.mark.parametrize(("length", "text"), BAD_LENGTHS)
def test_a_bad_length_is_refused_after_the_frames_before_it(length: int, text: str) -> None:
    good = encode(Kind.SAY, b"hi")
    frames = Parser(preface=False).feed(good + with_length(length))
    assert next(frames).raw == good
    with pytest.raises(RemoteProtocolError, match=text):
        next(frames)


@pytest.mark.parametrize(("length", "text"), BAD_LENGTHS)
def test_a_bad_length_is_refused_before_its_frame_comes(length: int, text: str) -> None:
    parser = Parser(preface=False)
    assert list(parser.feed(with_length(length)[:3])) == []
    with pytest.raises(RemoteProtocolError, match=text):
        list(parser.feed(with_length(length)[3:4]))


def test_a_peer_can_make_us_hold_less_than_one_frame_of_the_limit() -> None:
    parser = Parser(preface=False, limit=MAX_HELLO)
    data = with_length(MAX_HELLO) + bytes(MAX_HELLO - HEADER_SIZE)
    assert list(parser.feed(data[:-1])) == []
    assert len(parser.rest) == MAX_HELLO - 1
    assert len(list(parser.feed(data[-1:]))) == 1
    assert len(parser.rest) == 0


def test_the_frame_that_lets_a_peer_in_raises_the_limit_for_those_behind_it() -> None:
    large = encode(Kind.SAY, bytes(MAX_HELLO))
    parser = Parser(preface=False, limit=MAX_HELLO)
    frames = parser.feed(encode(Kind.HELLO) + large)
    assert next(frames).kind == Kind.HELLO
    parser.limit = MAX_FRAME
    assert next(frames).raw == large


def test_the_limit_holds_for_what_came_in_the_same_piece() -> None:
    frames = Parser(preface=False, limit=MAX_HELLO).feed(encode(Kind.HELLO) + encode(Kind.SAY, bytes(MAX_HELLO)))
    assert next(frames).kind == Kind.HELLO
    with pytest.raises(RemoteProtocolError, match="4128 bytes; the limit here is 4096"):
        next(frames)


def test_a_parser_that_failed_takes_nothing_more() -> None:
    parser = Parser()
    for data in b"junk", PREFACE, b"":
        with pytest.raises(RemoteProtocolError, match="began with 'junk"):
            list(parser.feed(data))
    parser = Parser(preface=False)
    for data in with_length(31), encode(Kind.BEAT), b"":
        with pytest.raises(RemoteProtocolError, match="31 bytes"):
            list(parser.feed(data))


def test_the_frames_that_were_left_come_with_the_next_call() -> None:
    parser = Parser()
    frames = parser.feed(PREFACE + b"".join(encode(Kind.SAY, number=number) for number in range(3)) + b"\0")
    assert next(frames).number == 0
    frames.close()
    assert len(parser.rest) == 2 * HEADER_SIZE + 1
    assert [found.number for found in parser.feed(b"")] == [1, 2]
    assert len(parser.rest) == 1


def test_what_is_held_may_be_looked_at_first_and_brought_back() -> None:
    parser = Parser(preface=False)
    data = encode(Kind.SAY, b"hi")
    assert parser.rest == b""
    assert list(parser.feed(data[:9])) == []
    held, parser.rest = parser.rest, b""
    assert held == data[:9]
    assert [found.raw for found in parser.feed(held + data[9:])] == [data]
    parser.rest = data
    assert [found.raw for found in parser.feed(data)] == [data, data]


# -- runs -----------------------------------------------------------------------------------------

LONGEST = 100


def message(number: int, size: int = 0, kind: int = Kind.SAY) -> bytes:
    return encode(kind, bytes(size), number=number)


def test_a_run_is_the_messages_that_count_up() -> None:
    parts = [message(7), message(8, 68, kind=15), message(9, kind=1)]
    ends = [HEADER_SIZE, HEADER_SIZE + LONGEST, 2 * HEADER_SIZE + LONGEST]
    assert run_of(b"".join(parts), 7, LONGEST) == ends
    assert run_of(b"".join(parts), 6, LONGEST) == run_of(b"".join(parts), 8, LONGEST) == []
    assert run_of(b"", 7, LONGEST) == []


@pytest.mark.parametrize(
    "other",
    [
        message(7),
        message(9),
        message(8, 69),
        message(8, kind=0),
        message(8, kind=Kind.AUTHOR),
        message(8, kind=Kind.BEAT),
        with_length(31)[:4] + message(8)[4:],
        encode(Kind.SAY, number=8, flags=REPLY),
        with_length(0)[:4] + message(8)[4:],
        with_length(2**32 - 1)[:4] + message(8)[4:],
    ],
    ids=lambda other: other[:16].hex(),
)
def test_a_run_ends_before_anything_else(other: bytes) -> None:
    assert run_of(message(7) + other + message(9), 7, LONGEST) == [HEADER_SIZE]


@pytest.mark.parametrize("size", [0, 68])
def test_a_message_that_has_not_come_whole_is_not_in_the_run(size: int) -> None:
    data = message(7) + message(8, size)
    for missing in range(1, HEADER_SIZE + size + 1):
        assert run_of(data[:-missing], 7, LONGEST) == [HEADER_SIZE]


def test_a_stamped_run_is_frames_of_the_log() -> None:
    """Whatever the peer wrote into the fields that are the host's."""
    data = encode(Kind.SAY, b"hi", number=7, author=2**32 - 1, seq=2**64 - 1, time=-1)
    data += encode(Kind.ACTION, b"waves", number=8)
    run = bytearray(data)
    run[6:8] = b"\xff\xff"
    stamp(run, run_of(data, 7, LONGEST), author=3, number=7, seq=40, time=5)
    assert run == encode(Kind.SAY, b"hi", number=7, author=3, seq=40, time=5) + encode(
        Kind.ACTION, b"waves", number=8, author=3, seq=41, time=5
    )


def test_an_empty_piece_changes_nothing() -> None:
    parser = Parser()
    for piece in (b"", PREFACE[:4], b"", PREFACE[4:], b"", encode(Kind.BEAT)[:9], b""):
        assert list(parser.feed(piece)) == []
    assert [found.kind for found in parser.feed(encode(Kind.BEAT)[9:])] == [Kind.BEAT]


# -- structured bodies ----------------------------------------------------------------------------


def hello(body: bytes) -> Hello:
    return unpack(Hello, next(split(encode(Kind.HELLO, body))))


def test_a_structured_body_comes_back_as_it_went() -> None:
    author = Author(index=2**32 - 1, key=b"k" * 32, stream=2**64 - 1, nick="ann", bot=True)
    (found,) = split(pack(Kind.AUTHOR, author, number=7, author=9))
    assert unpack(Author, found) == author
    assert (found.kind, found.number, found.author, found.seq, found.time) == (Kind.AUTHOR, 7, 9, 0, 0)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = msgspec.msgpack.encode({"first": 1, "count": 2, "why": ["moved", {"to": None}]})
    assert unpack(Gap, next(split(encode(Kind.GAP, later)))) == Gap(first=1, count=2)


def test_defaults_cost_nothing_on_the_wire() -> None:
    assert len(pack(Kind.PRESENCE, Presence())) == HEADER_SIZE + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"\x81\xa4room\x01",
        b"\x81\xa4room\xa2\xff\xfe",
        b"\x81\xa4room\xa3\xed\xa0\x80",
        b"\x81\xa3key\xc6\xff\xff\xff\xff",
        b"\x81\xa1x\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x" + b"\x91" * 4000 + b"\xc0",
        b"\x81\xa1x" * 1300 + b"\xc0",
    ],
    ids=[
        "empty",
        "reserved",
        "list",
        "type",
        "utf-8",
        "surrogate",
        "long-bytes",
        "long-list",
        "long-map",
        "deep",
        "deep-map",
    ],
)
def test_a_hostile_body_is_the_peers_fault(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="the peer sent a Hello that cannot be read") as caught:
        hello(body)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("shape", "field", "value"),
    [
        (Gap, "first", -1),
        (Gap, "count", 2**63),
        (Ask, "seconds", 2**32),
        (Ask, "uses", -1),
        (Author, "index", 2**32),
        (Author, "stream", -1),
        (Hello, "next_seq", -1),
        (Hello, "history", 2**64 - 1),
        (Welcome, "first_unsettled", 2**32),
        (Welcome, "start", 2**63),
        (Moderation, "until", YEAR_9999),
        (Answer, "audit", [(1, YEAR_9999, "ann", "ban", "bob", "")]),
        (Answer, "members", [(b"", "bob", "banned", YEAR_9999)]),
        (Answer, "invites", [("3f9a01bc", 1, YEAR_9999, [])]),
    ],
)
def test_a_number_that_we_could_not_keep_is_refused(shape: type[Struct], field: str, value: object) -> None:
    sound: dict[str, object] = {
        "action": "role",
        "by": b"",
        "by_nick": "",
        "first": 1,
        "count": 1,
        "what": "invite",
        "index": 1,
        "key": b"",
        "stream": 1,
        "nick": "",
        "room": "",
        "nonce": b"",
        "signature": b"",
        "epoch": b"",
        "next_seq": 1,
        "start": 1,
        "show": 1,
        "first_unsettled": 1,
        "proof": b"",
    }
    body = {**sound, field: value}
    unpack(shape, next(split(encode(0, msgspec.msgpack.encode(sound)))))
    with pytest.raises(RemoteProtocolError, match=rf"at `\$\.{field}[`\[]"):
        unpack(shape, next(split(encode(0, msgspec.msgpack.encode(body)))))


def test_a_full_page_of_names_fits_the_control_lane() -> None:
    author = Author(index=2**32 - 1, key=bytes(32), stream=2**64 - 1, nick="x" * 64, bot=True)
    count = MAX_CONTROL // 160
    assert len(pack(Kind.NAMES, Names(authors=[author] * count, asked=[2**32 - 1] * count))) <= MAX_CONTROL
