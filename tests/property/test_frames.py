"""Any bytes, cut anywhere, are the same frames and the same error; junk is the peer's fault and nothing worse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat.core import bodies as structs
from chat.core.bodies import Author, Key, KeyOrNone, Nick, Struct, Word, pack, unpack
from chat.core.errors import RemoteProtocolError
from chat.core.wire import HEADER_SIZE, MAX_FRAME, MAX_HELLO, PREFACE, Frame, Parser, encode, length_at, split

LONG = settings(max_examples=5000)
SHAPES = [shape for shape in vars(structs).values() if isinstance(shape, type) and issubclass(shape, Struct)]

frames = st.builds(
    encode,
    st.integers(0, 255),
    st.binary(max_size=50) | st.integers(0, MAX_FRAME - HEADER_SIZE).map(bytes),
    flags=st.integers(0, 255),
    author=st.integers(0, 2**32 - 1),
    number=st.integers(0, 2**32 - 1),
    seq=st.integers(0, 2**64 - 1),
    time=st.integers(-(2**63), 2**63 - 1),
)
prefaces = st.sampled_from([PREFACE, PREFACE, PREFACE, b"chat/2\n", b"chat/3 x\n", b"chat/", b"GET /", b""])
lengths = st.integers(0, 2 * MAX_FRAME).map(lambda length: length.to_bytes(4, "big"))
junk = st.binary(max_size=100) | lengths
streams = st.builds(
    lambda preface, parts, rest: preface + b"".join(parts) + rest, prefaces, st.lists(frames, max_size=4), junk
)
cuts = st.lists(st.integers(0, 200) | st.integers(0, 2 * MAX_FRAME), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def parse(parts: list[bytes], *, preface: bool, limit: int) -> tuple[list[Frame], str, int]:
    """What comes of the bytes: the frames, the error if there was one, and what is held when there was none."""
    parser, found = Parser(preface=preface, limit=limit), list[Frame]()
    try:
        for part in parts:
            found.extend(parser.feed(part))
            assert len(parser.rest) < max(limit, 64)
    except RemoteProtocolError as error:
        # The text quotes as much of a wrong preface as had come, which is all that a cut may change.
        return found, str(error).partition("it began with")[0], 0
    return found, "", len(parser.rest)


def same_in_any_split(data: bytes, cuts: list[int], limit: int) -> None:
    found, error, unfinished = parse([data], preface=True, limit=limit)
    assert parse(pieces(data, cuts), preface=True, limit=limit) == (found, error, unfinished)
    # Nothing is made up, and nothing is passed over.
    after_preface = data[data.find(b"\n") + 1 :]
    taken = b"".join(one.raw for one in found)
    assert after_preface.startswith(taken)
    if not error:
        assert len(after_preface) == len(taken) + unfinished
        # A length is judged as soon as it is there.
        rest = after_preface[len(taken) :]
        assert len(rest) < 4 or data.find(b"\n") < 0 or HEADER_SIZE <= length_at(rest, 0) <= limit


@given(streams, cuts, st.sampled_from([MAX_HELLO, MAX_FRAME]))
@example(b"chat/2 " + b"x" * 56 + b"\n", [63], MAX_FRAME)
@example(b"chat/2 " + b"x" * 57 + b"\n", [63], MAX_FRAME)
def test_any_split_gives_the_same(data: bytes, cuts: list[int], limit: int) -> None:
    same_in_any_split(data, cuts, limit)


@pytest.mark.slow
@given(streams, cuts, st.sampled_from([MAX_HELLO, MAX_FRAME]))
@LONG
def test_any_split_gives_the_same_for_long(data: bytes, cuts: list[int], limit: int) -> None:
    same_in_any_split(data, cuts, limit)


@given(st.lists(frames, max_size=4))
def test_one_byte_at_a_time(parts: list[bytes]) -> None:
    data = b"".join(part[:200] for part in parts)
    ones = [data[at : at + 1] for at in range(len(data))]
    assert parse(ones, preface=False, limit=MAX_FRAME) == parse([data], preface=False, limit=MAX_FRAME)


@given(st.lists(frames, max_size=5))
def test_a_batch_comes_apart_into_its_frames(parts: list[bytes]) -> None:
    assert [found.raw for found in split(b"".join(parts))] == parts


@given(st.lists(frames, max_size=3), st.integers(0, 10_000), st.integers(0, 7))
def test_a_batch_with_a_flipped_bit_is_frames_or_the_peers_fault(parts: list[bytes], at: int, bit: int) -> None:
    data = bytearray(b"".join(parts) or b"\0")
    data[at % len(data)] ^= 1 << bit
    try:
        found = list(split(bytes(data)))
    except RemoteProtocolError:
        return
    assert b"".join(one.raw for one in found) == data


# -- structured bodies ----------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from([name for shape in SHAPES for name in shape.__struct_fields__])
bodies = st.dictionaries(fields | st.text(max_size=5), values, max_size=12).map(msgspec.msgpack.encode)


def sound(shape: type[Struct]) -> st.SearchStrategy[Struct]:
    number = st.integers(0, 2**32 - 1)
    by_type: dict[object, st.SearchStrategy[Any]] = {
        int: number,
        list[int]: st.lists(number),
        list[Author]: st.lists(sound(Author)) if shape is not Author else st.nothing(),
        Key: st.binary(min_size=32, max_size=32),
        KeyOrNone: st.binary(max_size=32),
        Nick: st.text(max_size=64),
        Word: st.text(max_size=64),
    }
    hints, exact = get_type_hints(shape), get_type_hints(shape, include_extras=True)
    found = {name: by_type.get(exact[name], by_type.get(kind)) for name, kind in hints.items()}
    return st.builds(shape, **{name: values for name, values in found.items() if values is not None})


def read_or_refuse(shape: type[Struct], body: bytes) -> None:
    said = ""
    try:
        found = unpack(shape, next(split(encode(0, body))))
    except RemoteProtocolError as error:
        said = str(error)
    else:
        # What was taken can be sent on, and is the same when it is read again.
        assert unpack(shape, next(split(pack(0, found)))) == found
    assert said.isprintable()


@given(st.sampled_from(SHAPES), bodies | st.binary(max_size=60))
def test_any_body_is_read_or_refused(shape: type[Struct], body: bytes) -> None:
    read_or_refuse(shape, body)


@pytest.mark.slow
@given(st.sampled_from(SHAPES), bodies | st.binary(max_size=60))
@LONG
def test_any_body_is_read_or_refused_for_long(shape: type[Struct], body: bytes) -> None:
    read_or_refuse(shape, body)


@given(st.sampled_from(SHAPES).flatmap(sound), st.data())
def test_a_sound_body_with_a_change_is_read_or_refused(struct: Struct, data: st.DataObject) -> None:
    body = bytearray(pack(0, struct)[HEADER_SIZE:])
    assert unpack(type(struct), next(split(encode(0, bytes(body))))) == struct
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(type(struct), bytes(body))
