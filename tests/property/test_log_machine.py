"""The log, its cursors and a real store against a plain list, in any order of events.

The list is what was said. Asserted after every step (design names in brackets):

- numbers are contiguous from 1 [I1], and the bytes of a number never change [I2];
- the log holds its window and what is not yet published, a member at most one batch and its lane [I3];
- what a member was delivered and what it was told is lost are everything since it joined, each number once
  and in order; and only what the disk really lost is told to be lost [I4];
- whoever got a number got the bytes in the list [I5].
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat.core.bodies import Gap, unpack
from chat.core.errors import LocalProtocolError
from chat.core.ledger import RoomTables
from chat.core.log import MAX_AHEAD, Batch, Cursor, Log
from chat.core.wire import HEADER_SIZE, MAX_BATCH, MAX_FRAME, Kind, Parser, encode, kind_at
from chat.host.store import Store

NOTHING = RoomTables()
SIZES = st.integers(0, 60) | st.sampled_from([5_000, 20_000, MAX_FRAME - HEADER_SIZE])


class Reader:
    """A member: its cursor, and what came out at the other end."""

    def __init__(self, seq: int) -> None:
        self.cursor = Cursor(seq)
        self.parser = Parser(preface=False)
        self.next_seq = seq
        self.posted = self.notices = 0

    def reconnect(self) -> None:
        """A new link: what was half sent is gone, what was delivered stays."""
        self.cursor = Cursor(self.next_seq)
        self.parser = Parser(preface=False)
        self.notices = self.posted


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.said: list[bytes] = []  # every frame ever appended
        self.stored = self.published = 0  # how many of them
        self.committing: list[Batch] = []  # stored, while the log does not know it yet
        self.rows: list[Batch] = []
        self.lost: set[int] = set()  # numbers whose rows are damaged or gone
        self.time = 0
        self.readers: list[Reader] = []

    @initialize(window=st.sampled_from([0, 300, 10_000, 200_000]))
    def open(self, window: int) -> None:
        self.window = window
        self.open_store()

    def open_store(self) -> None:
        self.store = Store(Path(self.folder.name))
        state = self.store.open_room("lobby")
        self.room = state.id
        self.log = Log(
            state.epoch,
            next_seq=state.next_seq,
            last_time=state.last_time,
            older=lambda seq: self.store.read(self.room, seq),
            window=self.window,
        )
        self.time = state.last_time

    # -- what a host does ----------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from([Kind.SAY, Kind.ACTION, Kind.REACT]),
        sizes=st.lists(SIZES, min_size=1, max_size=4),
        time=st.integers(0, 99) | st.integers(0, 3 * MAX_AHEAD),
    )
    def append(self, kind: int, sizes: list[int], time: int) -> None:
        for size in sizes:
            seq = len(self.said) + 1
            body = seq.to_bytes(4, "big") * (size // 4)
            self.time = time if self.time - time > MAX_AHEAD else max(self.time, time)
            self.said.append(encode(kind, body, number=seq % 7, author=size % 5, flags=1, seq=seq, time=self.time))
            assert self.log.append(kind, body, time=time, number=seq % 7, author=size % 5, flags=1) == seq

    @rule(count=st.integers(65, 90))
    def chatter(self, count: int) -> None:
        """A quiet room: a batch for every message."""
        for _ in range(count):
            self.append(Kind.SAY, [8], 0)
            self.log.seal()
        self.commit_and_publish()

    @precondition(lambda self: not self.committing)
    @rule()
    def commit(self) -> None:
        batches = self.log.seal()
        assert b"".join(batch.data for batch in batches) == b"".join(self.said[self.published :])
        assert all(len(batch.data) <= MAX_BATCH for batch in batches)
        self.store.commit(self.room, batches, NOTHING)
        self.rows += batches
        self.committing = batches
        self.stored = len(self.said)

    @rule()
    def seal_in_vain(self) -> None:
        """The disk was full."""
        batches = self.log.seal()
        assert batches[: len(self.committing)] == self.committing
        if batches:
            with pytest.raises(LocalProtocolError):
                self.log.publish([batches[0]._replace(first=batches[0].first + 1)])

    @precondition(lambda self: self.committing)
    @rule()
    def publish(self) -> None:
        self.log.publish(self.committing)
        self.published = self.committing[-1].next_seq - 1
        self.committing = []

    @rule()
    def commit_and_publish(self) -> None:
        if self.committing:
            self.publish()
        self.commit()
        if self.committing:
            self.publish()

    @precondition(lambda self: self.rows)
    @rule(which=st.integers(0), how=st.sampled_from(["UPDATE batches SET data = x'00'", "DELETE FROM batches"]))
    def lose(self, which: int, how: str) -> None:
        """A row is damaged or gone. Never the last: that one the store would miss when it opens."""
        row = self.rows[which % len(self.rows)]
        if row is not self.rows[-1] and row.first not in self.lost:
            self.store._database.execute(f"{how} WHERE at & 0xffffffff = {row.first}")
            self.lost.update(range(row.first, row.next_seq))

    @rule()
    def restart(self) -> None:
        """The host is killed and comes back; what was not stored was never acknowledged."""
        self.store.close()
        self.open_store()
        assert self.log.next_seq == self.stored + 1
        del self.said[self.stored :]
        self.published, self.committing = self.stored, []
        for reader in self.readers:
            reader.reconnect()

    # -- what members do -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < 4)
    @rule(back=st.integers(0, 200))
    def join(self, back: int) -> None:
        self.readers.append(Reader(max(1, self.log.end - back)))

    @precondition(lambda self: self.readers)
    @rule(who=st.integers(0), share=st.sampled_from([0.0, 0.001, 0.3, 0.9, 1.0]), pieces=st.integers(1, 5))
    def send(self, who: int, share: float, pieces: int) -> None:
        reader = self.readers[who % len(self.readers)]
        for _ in range(pieces):
            self.send_piece(reader, share)

    def send_piece(self, reader: Reader, share: float) -> int:
        """Send a part of what is pending, and judge what arrives."""
        piece = reader.cursor.pending(self.log)
        assert len(piece) <= MAX_BATCH
        assert bytes(reader.cursor.pending(self.log)) == bytes(piece)
        count = round(len(piece) * share)
        sent = bytes(piece[:count])
        reader.cursor.advance(count)
        for frame in reader.parser.feed(sent):
            if frame.kind == Kind.NOTICE:
                reader.notices += 1
                assert frame.number == reader.notices
            elif frame.kind == Kind.GAP:
                gap = unpack(Gap, frame)
                assert gap.first == reader.next_seq
                assert gap.count > 0
                assert self.lost.issuperset(range(gap.first, gap.first + gap.count))
                reader.next_seq += gap.count
            else:
                assert frame.seq == reader.next_seq
                assert frame.raw == self.said[frame.seq - 1]
                assert frame.seq <= self.stored
                reader.next_seq += 1
        return len(piece)

    @precondition(lambda self: self.readers)
    @rule(who=st.integers(0))
    def post(self, who: int) -> None:
        reader = self.readers[who % len(self.readers)]
        reader.posted += 1
        reader.cursor.post(encode(Kind.NOTICE, number=reader.posted))

    @precondition(lambda self: self.readers)
    @rule(who=st.integers(0))
    def reconnect(self, who: int) -> None:
        self.readers[who % len(self.readers)].reconnect()

    @rule(seq=st.integers(-1, 400))
    def one_frame(self, seq: int) -> None:
        found = self.log.frame_at(seq)
        if found is not None:
            assert found == self.said[seq - 1]
        else:
            assert seq < 1 or seq > self.published or not self.is_there(seq)

    @rule(messages=st.integers(0, 300))
    def look_back(self, messages: int) -> None:
        start = self.log.start_of_last(messages)
        said = [
            seq
            for seq in range(start, self.published + 1)
            if self.is_there(seq) and kind_at(self.said[seq - 1], 0) != Kind.REACT
        ]
        assert len(said) <= messages
        if len(said) < messages and start > 1:  # fewer than asked for: there is a reason
            assert not self.is_there(start - 1) or start == self.log.end - 4 * messages - 1000

    def is_there(self, seq: int) -> bool:
        """In memory, or sound on the disk."""
        return seq not in self.lost or bool(self.log._window and seq >= self.log._window[0].first)

    # -- what holds at any time ----------------------------------------------------------------------

    @invariant()
    def numbers_are_contiguous(self) -> None:
        assert self.log.next_seq == len(self.said) + 1
        assert self.log.end == self.published + 1
        assert self.log.unpublished == sum(map(len, self.said[self.published :]))

    @invariant()
    def memory_is_bounded(self) -> None:
        sizes = [len(batch.data) for batch in self.log._window]
        assert sum(sizes) <= self.window or len(sizes) == 1
        assert len(sizes) <= 66 + 2 * self.window // MAX_BATCH
        for reader in self.readers:
            assert len(reader.cursor._piece) <= MAX_BATCH
            assert reader.cursor.control_size <= HEADER_SIZE * (reader.posted - reader.notices)

    def teardown(self) -> None:
        """In the end everybody has everything."""
        try:
            self.commit_and_publish()
            for reader in self.readers:
                while self.send_piece(reader, 1.0):
                    pass
                assert reader.next_seq == self.log.next_seq
                assert reader.notices == reader.posted
                assert reader.cursor.at_border
                assert self.log.end - reader.cursor.seq == 0
        finally:
            self.store.close()
            self.folder.cleanup()


class TestLog(LogMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.slow
class TestLogForLong(LogMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=1000, stateful_step_count=60, deadline=None)
