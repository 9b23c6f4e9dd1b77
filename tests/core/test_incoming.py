"""What comes from a host of the log: only what can come next, and only with its author's name."""

from __future__ import annotations

import pytest

from chat.core.bodies import Author, Gap, pack
from chat.core.errors import RemoteProtocolError
from chat.core.incoming import Authors, Incoming, Range
from chat.core.wire import LAST, YEAR_9999, Frame, Kind, Parser, encode, split

ANN = Author(index=1, key=b"a" * 32, stream=5, nick="ann")


def said(seq: int, author: int = 1, *, time: int = 0) -> Frame:
    return next(split(encode(Kind.SAY, b"hi", author=author, seq=seq, time=time)))


def piece(*frames: Frame | Gap, number: int = 7, last: bool = False) -> Frame:
    body = b"".join(pack(Kind.GAP, frame) if isinstance(frame, Gap) else frame.raw for frame in frames)
    (found,) = Parser(preface=False).feed(encode(Kind.RANGE, body, number=number, flags=LAST if last else 0))
    return found


def knowing(*indexes: int) -> Authors:
    authors = Authors()
    authors.update(dict.fromkeys(indexes, ANN))
    return authors


def numbers(part: Incoming, authors: Authors) -> list[int]:
    return [item.first if isinstance(item, Gap) else item.seq for item in part.ready(authors)]


def test_what_is_held_waits_for_a_name_and_keeps_its_order() -> None:
    part = Incoming(3)
    for item in (said(3), said(4, 2), Gap(first=5, count=2), said(7, 3)):
        part.add(item)
    assert part.unknown(knowing(), 9) == [1, 2, 3]
    assert numbers(part, knowing()) == []
    assert numbers(part, knowing(1)) == [3]
    assert part
    assert numbers(part, knowing(2, 3)) == [4, 5, 7]
    assert not part
    assert part.expected == 8


def test_an_introduction_on_the_way_is_learned() -> None:
    part, authors = Incoming(1), Authors()
    part.add(next(split(pack(Kind.AUTHOR, ANN, author=1)))._replace(seq=1))
    part.add(said(2))
    assert numbers(part, authors) == [1, 2]
    assert authors == {1: ANN}


@pytest.mark.parametrize(
    "item",
    [
        *(said(2), said(0), said(2**63), said(1, time=YEAR_9999), said(1, time=-1)),
        *(Gap(first=2, count=1), Gap(first=1, count=0), Gap(first=0, count=5)),
    ],
)
def test_what_cannot_come_next_is_refused(item: Frame | Gap) -> None:
    with pytest.raises(RemoteProtocolError):
        Incoming(1).add(item)


def test_a_range_ends_where_it_was_asked_to_end() -> None:
    part = Range(7, 3, 6, 6)
    part.add_piece(piece(said(3), said(4)))
    ended = [part.ended]
    part.add_piece(piece(said(5), last=True))
    assert [*ended, part.ended] == [False, True]
    assert numbers(part, knowing(1)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([piece(said(3), number=8)], "did not ask for"),
        ([piece(said(2))], "number 2 where 3 follows"),
        ([piece(said(4))], "number 4 where 3 follows"),
        ([piece(said(3), said(5))], "number 5 where 4 follows"),
        ([piece(said(3), said(4), said(5), said(6))], "number 6; we asked for those below 6"),
        ([piece(Gap(first=3, count=3), Gap(first=6, count=1))], "we asked for those below 6"),
        ([piece()], "empty part"),
        ([piece(said(3)), piece()], "empty part"),
        ([piece(last=True)], "ended at 3; we asked for numbers up to 6"),
        ([piece(said(3), said(4), said(5), last=True), piece(said(6))], "did not ask for"),
        ([Frame(Kind.RANGE, 0, 0, 7, 0, 0, bytes(32) + b"\0\0\0\5junk")], "frame length"),
        ([Frame(Kind.RANGE, 0, 0, 7, 0, 0, bytes(32) + said(3).raw[:-1])], "into a frame"),
    ],
)
def test_a_range_takes_only_what_was_asked_for(pieces: list[Frame], told: str) -> None:
    part = Range(7, 3, 6, 6)
    for one in pieces[:-1]:
        part.add_piece(one)
    with pytest.raises(RemoteProtocolError, match=told):
        part.add_piece(pieces[-1])


def test_a_gap_may_end_after_the_range_and_a_log_before_it() -> None:
    part = Range(7, 3, 6, 5)
    part.add_piece(piece(said(3), said(4), last=True))
    assert part.ended
    part = Range(7, 3, 6, 6)
    part.add_piece(piece(Gap(first=3, count=50), last=True))
    assert (part.ended, part.expected) == (True, 53)
