"""The log and its cursors: what is numbered, what may be read when, and what a member is sent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from chat.core.bodies import Gap, unpack
from chat.core.errors import LocalProtocolError
from chat.core.log import MAX_AHEAD, Batch, Cursor, Log, digest
from chat.core.wire import HEADER_SIZE, LAST, MAX_BATCH, MAX_FRAME, YEAR_9999, Kind, encode, offset_of, run_of, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.core.wire import Frame

EPOCH = b"an epoch"
FRESH = 64  # the newest batches stay as they were sent


def publish(log: Log, *bodies: bytes, kind: int = Kind.SAY) -> Batch:
    """Append the bodies and publish them as one batch."""
    for body in bodies:
        log.append(kind, body, time=0)
    (batch,) = log.seal()
    log.publish([batch])
    return batch


def drain(cursor: Cursor, log: Log) -> list[Frame]:
    """Send everything, a piece at a time, as it stands."""
    data = b""
    while piece := cursor.pending(log):
        data += piece
        cursor.advance(len(piece))
    return list(split(data))


def gap_of(found: Frame) -> tuple[int, int]:
    assert found.kind == Kind.GAP
    gap = unpack(Gap, found)
    return gap.first, gap.count


class Disk:
    """What a store is to a log: it has every batch but those in ``lost``, and counts how often it is asked."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.lost: list[Gap] = []
        self.reads = 0

    def __call__(self, seq: int) -> Batch | Gap | None:
        self.reads += 1
        for gap in self.lost:
            if gap.first <= seq < gap.first + gap.count:
                return Gap(first=seq, count=gap.first + gap.count - seq)
        return next((batch for batch in self.batches if batch.first <= seq < batch.next_seq), None)


# -- numbering ------------------------------------------------------------------------------------


def test_a_new_log_is_empty_and_begins_at_1() -> None:
    log = Log(EPOCH)
    assert (log.epoch, log.next_seq, log.end, log.unpublished) == (EPOCH, 1, 1, 0)
    assert log.read(1) is None
    assert log.seal() == []
    assert log.append(Kind.SAY, b"hi", time=0) == 1
    assert log.append(Kind.SAY, b"hi", time=0) == 2
    assert log.next_seq == 3


def test_a_log_goes_on_where_it_was() -> None:
    log = Log(EPOCH, next_seq=42, last_time=1000)
    assert (log.next_seq, log.end) == (42, 42)
    assert log.append(Kind.SAY, b"hi", time=999) == 42
    (batch,) = log.seal()
    assert next(split(batch.data)).time == 1000


def test_a_frame_of_the_log_has_all_that_it_was_given() -> None:
    log = Log(EPOCH)
    log.append(Kind.REACT, b"body", time=6, author=3, number=4, flags=2)
    (batch,) = log.seal()
    assert batch == Batch(1, 1, encode(Kind.REACT, b"body", flags=2, author=3, number=4, seq=1, time=6))


def test_time_goes_back_only_with_a_clock_that_went_back_further_than_a_little() -> None:
    log = Log(EPOCH)
    day = 86_400_000
    for time in (5, 3, 7, 6, day, day - MAX_AHEAD, day - MAX_AHEAD - 1, 9, 8):
        log.append(Kind.SAY, b"", time=time)
    (batch,) = log.seal()
    times = [found.time for found in split(batch.data)]
    assert times == [5, 5, 7, 7, day, day, day - MAX_AHEAD - 1, 9, 9]
    assert log.went_back == day - 9


def test_no_clock_makes_a_time_that_members_refuse() -> None:
    log = Log(EPOCH)
    for time in (-(10**15), 10**16):
        log.append(Kind.SAY, b"", time=time)
    (batch,) = log.seal()
    assert [found.time for found in split(batch.data)] == [0, YEAR_9999 - 1]


def test_a_frame_that_is_too_long_takes_no_number() -> None:
    log = Log(EPOCH)
    with pytest.raises(LocalProtocolError):
        log.append(Kind.SAY, bytes(MAX_FRAME), time=0)
    assert (log.next_seq, log.unpublished, log.seal()) == (1, 0, [])


# -- sealing and publishing -----------------------------------------------------------------------


def test_nothing_is_read_before_it_is_published() -> None:
    log, cursor = Log(EPOCH), Cursor(1)
    log.append(Kind.SAY, b"hi", time=0)
    assert log.read(1) is None
    batches = log.seal()
    assert log.read(1) is None
    assert cursor.pending(log) == b""
    log.publish(batches)
    assert log.read(1) is batches[0]
    assert log.end == 2


def test_sealing_again_returns_the_same_until_it_is_published() -> None:
    log = Log(EPOCH)
    log.append(Kind.SAY, b"a", time=0)
    (first,) = log.seal()
    log.append(Kind.SAY, b"b", time=0)
    again, second = log.seal()
    assert again is first
    assert (second.first, second.frames) == (2, 1)
    assert log.unpublished == 2 * (HEADER_SIZE + 1)
    log.publish([first])
    assert log.unpublished == HEADER_SIZE + 1
    assert log.seal() == [second]
    log.publish([second])
    assert (log.unpublished, log.seal()) == (0, [])


def test_what_is_appended_during_a_commit_waits_for_the_next_one() -> None:
    log = Log(EPOCH)
    log.append(Kind.SAY, b"a", time=0)
    committing = log.seal()
    log.append(Kind.SAY, b"b", time=0)
    log.publish(committing)
    assert (log.end, log.next_seq) == (2, 3)
    assert [batch.first for batch in log.seal()] == [2]


def test_batches_are_published_in_order() -> None:
    log = Log(EPOCH)
    log.append(Kind.SAY, bytes(MAX_FRAME // 2), time=0)
    log.append(Kind.SAY, bytes(MAX_FRAME // 2), time=0)
    one, two = log.seal()
    with pytest.raises(LocalProtocolError, match="in the order"):
        log.publish([two])
    assert (log.end, log.seal()) == (1, [one, two])


def test_a_batch_is_sealed_before_it_passes_64_kib() -> None:
    log = Log(EPOCH)
    log.append(Kind.SAY, bytes(MAX_BATCH - 2 * HEADER_SIZE), time=0)
    log.append(Kind.SAY, b"", time=0)  # exactly full
    log.append(Kind.SAY, b"", time=0)
    log.append(Kind.SAY, bytes(MAX_FRAME - HEADER_SIZE), time=0)
    batches = log.seal()
    assert [(batch.first, batch.frames, len(batch.data)) for batch in batches] == [
        (1, 2, MAX_BATCH),
        (3, 1, HEADER_SIZE),
        (4, 1, MAX_BATCH),
    ]


# -- runs -----------------------------------------------------------------------------------------


def a_run(sizes: Sequence[int], number: int = 1) -> tuple[bytes, list[int]]:
    """Messages with bodies of these sizes, as a member sends them, and where each of them ends."""
    data = b"".join(encode(Kind.SAY, bytes(size), number=number + step) for step, size in enumerate(sizes))
    return data, run_of(data, number, MAX_FRAME)


def one_by_one(log: Log, sizes: Sequence[int]) -> None:
    for number, size in enumerate(sizes, 1):
        log.append(Kind.SAY, bytes(size), time=6, author=3, number=number)


@pytest.mark.parametrize(
    "sizes",
    [
        [0],
        [100] * 3,
        [100] * 2000,  # more than one batch
        [MAX_BATCH - 3 * HEADER_SIZE, 0],  # exactly full, with the one before
        [MAX_BATCH - 3 * HEADER_SIZE, 1],
        [MAX_FRAME - HEADER_SIZE] * 3,  # each is a batch
    ],
    ids=["one", "three", "many", "full", "over", "largest"],
)
def test_a_run_makes_the_same_batches_as_its_messages_one_by_one(sizes: list[int]) -> None:
    log, plain = Log(EPOCH, next_seq=9), Log(EPOCH, next_seq=9)
    for each in (log, plain):
        each.append(Kind.ACTION, b"", time=0)
    log.append_run(*a_run(sizes), time=6, author=3, number=1)
    one_by_one(plain, sizes)
    for each in (log, plain):
        each.append(Kind.ACTION, b"", time=0)
    assert (log.next_seq, log.unpublished) == (plain.next_seq, plain.unpublished)
    batches = log.seal()
    assert batches == plain.seal()
    assert {type(batch.data) for batch in batches} == {bytes}  # nobody can change what is sent to all
    log.publish(batches)
    assert (log.end, log.unpublished) == (log.next_seq, 0)


def test_time_does_not_go_backwards_in_a_run() -> None:
    log = Log(EPOCH, last_time=7)
    log.append_run(*a_run([0, 0]), time=6, author=3, number=1)
    log.append_run(*a_run([0]), time=8, author=3, number=1)
    (batch,) = log.seal()
    assert [found.time for found in split(batch.data)] == [7, 7, 8]


def test_the_bytes_of_a_run_are_copied_and_those_behind_it_left() -> None:
    log = Log(EPOCH)
    data, ends = a_run([2, 2, 2])
    given = bytes(bytearray(data))  # bytes of its own
    log.append_run(given, ends[:2], time=6, author=3, number=1)
    assert given == data
    (batch,) = log.seal()
    assert (batch.frames, len(batch.data)) == (2, ends[1])


# -- reading --------------------------------------------------------------------------------------


def test_any_number_finds_the_batch_that_holds_it() -> None:
    log = Log(EPOCH)
    batches = [publish(log, *[b"x"] * frames) for frames in (1, 3, 2, 1)]
    for batch in batches:
        for seq in range(batch.first, batch.next_seq):
            assert log.read(seq) is batch
    assert log.read(8) is None
    assert log.read(800) is None


def test_the_newest_batches_are_everybodys_same_bytes() -> None:
    log = Log(EPOCH)
    batches = [publish(log, b"%d" % number) for number in range(3 * FRESH)]
    for batch in batches[-FRESH:]:
        pieces = [Cursor(batch.first).pending(log) for _ in range(3)]
        assert all(piece is batch.data for piece in pieces)


def test_older_batches_are_joined_and_their_bytes_stay() -> None:
    log = Log(EPOCH)
    every = b"".join(publish(log, b"%d" % number).data for number in range(5000))
    assert len(log._window) < FRESH + 2 * len(every) / MAX_BATCH + 2
    assert all(len(batch.data) <= MAX_BATCH for batch in log._window)
    cursor, pieces = Cursor(1), []
    while piece := cursor.pending(log):
        pieces.append(bytes(piece))
        cursor.advance(len(piece))
    assert b"".join(pieces) == every
    assert len(pieces) < 100  # one that catches up must not cost a send for every message
    for seq in range(1, 5001, 99):
        found = log.read(seq)
        assert isinstance(found, Batch)
        at = offset_of(found.data, seq - found.first)
        assert next(split(found.data[at:][: HEADER_SIZE + len(str(seq - 1))])).body == b"%d" % (seq - 1)


def test_batches_too_large_to_be_joined_stay_as_they_are() -> None:
    log = Log(EPOCH)
    batches = [publish(log, bytes(MAX_BATCH // 2)) for _ in range(FRESH + 10)]
    assert [log.read(seq) for seq in range(1, FRESH + 11)] == batches


def test_the_window_is_bounded_and_what_left_it_comes_from_the_store() -> None:
    disk = Disk()
    log = Log(EPOCH, older=disk, window=10_000)
    for number in range(200):
        disk.batches.append(publish(log, b"%03d" % number * 100))
        assert sum(len(batch.data) for batch in log._window) <= 10_000
    assert [found.body[:3] for found in drain(Cursor(1), log)] == [b"%03d" % number for number in range(200)]
    assert disk.reads > 0


def test_the_last_batch_stays_however_small_the_window() -> None:
    log = Log(EPOCH, window=0)
    publish(log, b"a")
    last = publish(log, b"b")
    assert log.read(2) is last


def test_a_gap_of_the_store_is_passed_on() -> None:
    disk = Disk()
    disk.lost = [Gap(first=1, count=30)]
    log = Log(EPOCH, next_seq=50, older=disk)
    assert log.read(11) == Gap(first=11, count=20)


def test_what_the_store_does_not_know_is_a_gap_too() -> None:
    log = Log(EPOCH, next_seq=50)
    assert log.read(1) == Gap(first=1, count=49)
    publish(log, b"hi")
    assert log.read(1) == Gap(first=1, count=49)
    assert [gap_of(found) if found.seq == 0 else found.seq for found in drain(Cursor(20), log)] == [(20, 30), 50]


def test_no_gap_reaches_into_what_can_be_read() -> None:
    disk = Disk()
    disk.lost = [Gap(first=1, count=1000)]
    log = Log(EPOCH, next_seq=50, older=disk)
    assert log.read(40) == Gap(first=40, count=10)
    publish(log, b"hi")
    assert log.read(40) == Gap(first=40, count=10)


def test_one_frame_is_found_by_its_number() -> None:
    disk = Disk()
    disk.lost = [Gap(first=1, count=2)]
    log = Log(EPOCH, next_seq=3, older=disk)
    batch = publish(log, b"a", b"b", b"c")
    assert [log.frame_at(seq) for seq in (3, 4, 5)] == [found.raw for found in split(batch.data)]
    assert [log.frame_at(seq) for seq in (-1, 0, 1, 2, 6)] == [None] * 5


def test_a_digest_is_the_beginning_of_sha_256() -> None:
    assert digest(b"raw") == hashlib.sha256(b"raw").digest()[:8]


# -- looking back ---------------------------------------------------------------------------------


def test_looking_back_counts_messages_only() -> None:
    log = Log(EPOCH)
    for number in range(1, 31):  # every third is a message
        publish(log, b"", kind=(Kind.SAY, Kind.REACT, Kind.AUTHOR, Kind.ACTION, Kind.EDIT, Kind.RETRACT)[number % 6])
    assert [log.start_of_last(messages) for messages in (0, 1, 2, 3, 10)] == [31, 30, 27, 24, 3]
    assert log.start_of_last(11) == 1
    assert log.start_of_last(-5) == 31


@pytest.mark.parametrize("window", [0, 1 << 20])
@pytest.mark.parametrize("messages", [1, 5, 255, 256, 257, 600, 1500, 1999])
def test_looking_back_goes_as_far_as_it_must(window: int, messages: int) -> None:
    disk = Disk()
    log = Log(EPOCH, older=disk, window=window)
    for number in range(400):
        disk.batches.append(publish(log, *[b"%d" % number] * 5))
    assert log.start_of_last(messages) == 2001 - messages


def test_looking_back_ends_at_a_gap() -> None:
    disk = Disk()
    log = Log(EPOCH, older=disk, window=0)
    for _ in range(1000):
        disk.batches.append(publish(log, b"hi"))
    disk.lost = [Gap(first=700, count=50)]
    assert [log.start_of_last(messages) for messages in (250, 251, 252, 900)] == [751, 750, 750, 750]
    disk.lost = [Gap(first=1, count=900)]
    assert log.start_of_last(500) == 901


def test_looking_back_reads_each_batch_a_few_times_at_most() -> None:
    disk = Disk()
    log = Log(EPOCH, older=disk, window=0)
    for _ in range(200):
        disk.batches.append(publish(log, *[b"hi"] * 10))
    disk.reads = 0
    assert log.start_of_last(1000) == 1001
    assert disk.reads <= 110


def test_a_newcomer_cannot_make_the_host_read_the_whole_log() -> None:
    disk = Disk()
    log = Log(EPOCH, older=disk, window=0)
    publish(log, b"the only message")
    disk.batches = [publish(log, *[b""] * 2000, kind=Kind.REACT) for _ in range(20)]
    disk.reads = 0
    assert log.start_of_last(100) == log.end - 1400
    assert disk.reads <= 10


# -- cursors --------------------------------------------------------------------------------------


def test_a_cursor_is_sent_everything_from_its_place_on() -> None:
    log = Log(EPOCH)
    publish(log, b"1", b"2", b"3")
    publish(log, b"4")
    assert [found.seq for found in drain(Cursor(1), log)] == [1, 2, 3, 4]
    assert [found.seq for found in drain(Cursor(2), log)] == [2, 3, 4]
    assert drain(Cursor(5), log) == []


def test_a_cursor_says_the_same_again_until_it_is_taken() -> None:
    log, cursor = Log(EPOCH), Cursor(1)
    data = publish(log, b"hello").data
    assert cursor.pending(log) is cursor.pending(log) is data
    cursor.advance(0)
    assert cursor.pending(log) is data
    cursor.advance(10)
    assert bytes(cursor.pending(log)) == data[10:]
    cursor.advance(len(data) - 11)
    assert bytes(cursor.pending(log)) == data[-1:]
    cursor.advance(1)
    assert cursor.pending(log) == b""


def test_frames_for_one_member_go_between_batches() -> None:
    log, cursor = Log(EPOCH), Cursor(1)
    publish(log, b"1")
    cursor.advance(len(cursor.pending(log)) - 1)  # one byte of the batch is still to go
    cursor.post(encode(Kind.NOTICE, b"a"))
    cursor.post(encode(Kind.NOTICE, b"b"))
    publish(log, b"2")
    rest = bytes(cursor.pending(log))
    assert len(rest) == 1
    cursor.advance(1)
    assert [(found.kind, found.body) for found in drain(cursor, log)] == [
        (Kind.NOTICE, b"a"),
        (Kind.NOTICE, b"b"),
        (Kind.SAY, b"2"),
    ]


def test_the_control_lane_says_how_full_it_is() -> None:
    log, cursor = Log(EPOCH), Cursor(1)
    assert (cursor.control_size, cursor.at_border) == (0, True)
    cursor.post(encode(Kind.BEAT))
    assert (cursor.control_size, cursor.at_border) == (HEADER_SIZE, False)
    piece = cursor.pending(log)
    assert (cursor.control_size, cursor.at_border) == (0, False)
    cursor.advance(len(piece))
    assert cursor.at_border


def test_a_gap_is_told_once_and_then_what_follows() -> None:
    disk = Disk()
    log = Log(EPOCH, next_seq=10, older=disk)
    disk.lost = [Gap(first=1, count=9)]
    publish(log, b"ten")
    cursor = Cursor(4)
    gap, ten = drain(cursor, log)
    assert (gap.seq, gap_of(gap)) == (0, (4, 6))
    assert ten.seq == 10
    assert drain(cursor, log) == []


def test_lag_counts_what_is_yet_to_be_handed_over() -> None:
    log, cursor = Log(EPOCH), Cursor(1)
    publish(log, b"1", b"2")
    publish(log, b"3")
    assert log.end - cursor.seq == 3
    cursor.pending(log)
    assert log.end - cursor.seq == 1


def test_what_is_stored_but_not_published_yet_is_not_read() -> None:
    """What belongs to the same commit, such as the rejections in it, goes out first."""
    disk = Disk()
    log = Log(EPOCH, older=disk, window=0)
    disk.batches.append(publish(log, b"1"))
    disk.batches.append(publish(log, b"2"))
    log.append(Kind.SAY, b"3", time=0)
    (late,) = log.seal()
    one, two = disk.batches
    disk.batches = [Batch(1, 3, one.data + two.data + late.data)]  # a thread has committed, the loop does not know yet
    cursor = Cursor(1)
    assert [found.seq for found in drain(cursor, log)] == [1, 2]
    assert log.end - cursor.seq == 0
    log.publish([late])
    publish(log, b"4")
    assert [found.seq for found in drain(cursor, log)] == [3, 4]


# -- ranges --------------------------------------------------------------------------------------


def what_is_in(piece: Frame) -> list[int | tuple[int, int]]:
    """Return the numbers in a RANGE frame, and its gaps."""
    return [gap_of(found) if found.kind == Kind.GAP else found.seq for found in split(piece.body)]


@pytest.mark.parametrize(("first", "before"), [(1, 31), (1, 2), (7, 8), (5, 26), (9, 11), (10, 20), (11, 11), (31, 31)])
def test_a_range_is_what_was_asked_for_in_pieces_that_fit(first: int, before: int) -> None:
    log = Log(EPOCH)
    for _ in range(3):
        publish(log, *[bytes([number]) * 6000 for number in range(10)])
    cursor = Cursor(log.end)
    assert cursor.send_range(5, first, before)
    pieces = drain(cursor, log)
    assert {(piece.kind, piece.number) for piece in pieces} == {(Kind.RANGE, 5)}
    assert [piece.flags for piece in pieces] == [*[0] * (len(pieces) - 1), LAST]
    assert [seq for piece in pieces for seq in what_is_in(piece)] == list(range(first, before))
    batches = b"".join(log.read(seq).data for seq in (1, 11, 21))  # type: ignore[union-attr]
    assert b"".join(piece.body for piece in pieces) in batches
    assert cursor.send_range(6, 1, 2)  # it has ended, so the next one may begin


def test_a_full_batch_is_split_to_fit_a_frame() -> None:
    log = Log(EPOCH)
    batch = publish(log, *[bytes(MAX_BATCH // 8 - HEADER_SIZE)] * 8)
    assert len(batch.data) == MAX_BATCH
    cursor = Cursor(log.end)
    cursor.send_range(1, 1, log.end)
    pieces = drain(cursor, log)
    assert [len(what_is_in(piece)) for piece in pieces] == [7, 1]
    assert max(len(piece.raw) for piece in pieces) <= MAX_FRAME


def test_a_range_and_the_live_log_take_turns() -> None:
    log = Log(EPOCH)
    for _ in range(6):
        publish(log, bytes(MAX_BATCH - HEADER_SIZE - 100))
    cursor = Cursor(4)
    assert cursor.send_range(1, 1, 4)
    assert not cursor.send_range(2, 1, 4)
    cursor.post(encode(Kind.BEAT))
    assert [found.kind for found in drain(cursor, log)] == [
        *(Kind.BEAT, Kind.SAY, Kind.RANGE, Kind.SAY, Kind.RANGE, Kind.SAY, Kind.RANGE)
    ]


def test_a_range_tells_its_gaps_whole() -> None:
    disk = Disk()
    disk.lost = [Gap(first=1, count=30)]
    log = Log(EPOCH, next_seq=50, older=disk)
    publish(log, b"hi")
    cursor = Cursor(log.end)
    cursor.send_range(1, 10, 20)
    (piece,) = drain(cursor, log)
    assert (piece.flags, what_is_in(piece)) == (LAST, [(10, 21)])
    cursor.send_range(1, 40, 51)
    assert [what_is_in(piece) for piece in drain(cursor, log)] == [[(40, 10)], [50]]
