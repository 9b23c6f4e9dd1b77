"""What the reader of a room knows: order, changes in whatever order they come, what is unread, what is kept."""

from __future__ import annotations

import itertools
from datetime import UTC

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chat.core.bodies import Author
from chat.core.events import Message
from chat.core.wire import Kind
from chat.ui import ring as ring_module
from chat.ui.entry import OVERHEAD, Entry, MessageEntry, NoteEntry
from chat.ui.ring import RING
from chat.ui.timeline import Timeline, folded

ANN, BOB, CID = b"a" * 32, b"b" * 32, b"c" * 32
NICKS = {ANN: "ann", BOB: "bob", CID: "cid"}
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def message(
    seq: int, text: str = "", *, key: bytes = BOB, kind: int = Kind.SAY, target: int = 0, at: int | None = None
) -> Message:
    author = Author(index=1, key=key, stream=1, nick=NICKS[key])
    return Message(seq, seq * MINUTE if at is None else at, author, kind, text or f"text {seq}", target, mine=False)


def react(seq: int, emoji: str, target: int, key: bytes = BOB) -> Message:
    return message(seq, key=key, kind=Kind.REACT, target=target)._replace(text=emoji)


def timeline(*messages: Message, nick: str = "ann") -> Timeline:
    made = Timeline(ANN, nick, UTC)
    for each in messages:
        made.add(each)
    return made


def items(made: Timeline) -> list[Entry]:
    return [made[number] for number in range(made.first, made.last)]


def texts(made: Timeline) -> list[str]:
    return [item.text for item in items(made) if isinstance(item, MessageEntry | NoteEntry)]


def said(made: Timeline, seq: int) -> MessageEntry:
    item = made.at_seq(seq)
    assert item is not None
    return item


def check(made: Timeline) -> None:
    """What holds always."""
    for number, item in enumerate(itertools.islice(items(made), made.end - made.first), made.first):
        assert item.number == number
    places = [item.order for item in made]
    assert places == sorted(places)
    shown = [item for item in made if isinstance(item, MessageEntry)]
    assert made.size == sum(item.weight for item in made)
    assert {item.seq for item in (*shown, *made._hidden) if item.seq} == set(made._by_seq)
    unread = [item for item in shown if item.seq > made.read_state.last_read and not item.mine]
    state = made.read_state
    assert (state.unread - state._evicted, state.mentions) == (len(unread), sum(item.mentioned for item in unread))
    kept = [c for target in made.edits._changes for c in made.edits.of(target)]
    assert made.edits.size == sum(len(c.text) + OVERHEAD for c in kept)


# -- older history ------------------------------------------------------------------------------------


def test_older_messages_come_in_front_and_nothing_that_was_there_has_another_number() -> None:
    made = timeline(message(10), message(11))
    made.note("a note", 0)
    assert made.oldest == 10
    numbers = {item: item.number for item in items(made)}
    assert made.add_older([message(7), message(9)], begins=6) == 2
    assert (made.oldest, made.first) == (6, -2)
    assert {item: item.number for item in numbers} == numbers
    assert made.add_older([], begins=1) == 0
    assert made.oldest == 1
    assert texts(made) == ["text 7", "text 9", "text 10", "text 11", "a note"]
    assert made.add_older([message(9), message(10), message(0)]) == 0  # they are no older ones
    check(made)


def test_where_there_is_room_again_what_was_let_go_can_be_loaded_again() -> None:
    made = timeline(*(message(n, key=CID if n % 2 else BOB, at=0) for n in range(1, RING + 11)))
    made.add(message(RING + 11, "edited", kind=Kind.EDIT, target=4))  # which has been let go
    made.ignore(CID)
    assert (made.full, made.oldest) == (False, 11)
    assert made.add_older([message(n, key=CID if n % 2 else BOB) for n in range(1, 11)]) == 5
    assert (made.oldest, said(made, 4).text) == (1, "edited")
    check(made)
    made.unignore(CID)
    check(made)


def test_of_an_older_part_that_does_not_fit_the_newest_are_taken() -> None:
    made = timeline(*(message(n, at=0) for n in range(101, RING + 98)))
    assert made.add_older([message(n, at=0) for n in range(91, 101)]) == 3
    assert made.oldest == 98
    check(made)


def test_numbers_begin_anew_after_a_rewind() -> None:
    made = timeline(message(1, "before"), message(2))
    made.rewound()
    made.add(message(1, "after"))
    made.add(message(2, "edited", kind=Kind.EDIT, target=1))
    assert texts(made) == ["before", "text 2", "edited"]
    assert made.last_seq == 2
    assert made.oldest == 0  # what is older belongs above what is of another log
    assert made.add_older([message(1)]) == 0
    check(made)
    made.ignore(BOB)
    made.unignore(BOB)
    assert texts(made) == ["before", "text 2", "edited"]


# -- what one says oneself ----------------------------------------------------------------------------


def test_what_is_pending_is_below_all_else_until_its_echo() -> None:
    made = timeline(message(1))
    first, second = object(), object()
    made.add_pending(first, Kind.SAY, "one", 0, 5 * MINUTE)
    made.add_pending(second, Kind.SAY, "two", 0, 5 * MINUTE)
    made.add_pending(object(), Kind.EDIT, "not a line", 1, 5 * MINUTE)
    made.add(message(2))
    assert texts(made) == ["text 1", "text 2", "one", "two"]
    assert (made.end, made.last) == (2, 4)
    made.add(message(3, "one", key=ANN))
    made.settle(first, 3)
    made.settle(second, 0)  # no echo comes
    made.settle(second, 0)
    assert texts(made) == ["text 1", "text 2", "one", "two"]
    assert not any(item.pending for item in items(made) if isinstance(item, MessageEntry))
    assert (made.end, made.last) == (4, 4)
    assert made.last_mine is made[3]
    check(made)


def test_how_many_have_seen_a_message() -> None:
    made = timeline(message(1, key=ANN), message(2, key=ANN))
    made.receipts = [1, 5]
    assert [made.read_by(said(made, seq)) for seq in (1, 2)] == [(2, 2), (1, 2)]
    made.rewound()
    assert made.read_by(MessageEntry(0, 0, ANN, "ann", False, 1, "", 0, mine=True)) == (0, 0)


# -- finding, ignoring --------------------------------------------------------------------------------


def test_a_search_regards_neither_case_nor_width() -> None:
    assert folded("Straße") == folded("STRASSE")
    assert folded("ＡＢＣ") == folded("abc")  # noqa: RUF001
    assert folded("ｶﾞﾗｽ") == folded("ガラス")
    assert folded("A\u200b\u202eB\u00e9") == "ab\u00e9"


def test_who_is_ignored_is_not_seen_and_can_be_heard_again() -> None:
    made = timeline(message(1), message(2, key=CID), message(3), react(4, "👍", 3, CID))
    made.note("a note", 0)
    assert (made.read_state.unread, made.renumbered) == (3, 0)
    made.ignore(CID)
    made.add(message(5, "hello ann", key=CID))
    made.presence([(CID, "cid")], [], 0)
    assert texts(made) == ["text 1", "text 3", "a note"]
    assert (made.at_seq(2), made.reactions(said(made, 3))) == (None, [])
    assert (made.read_state.unread, made.read_state.mentions, made.renumbered) == (2, 0, 1)
    assert made.last_mention() is None
    made.add_older([])
    check(made)
    made.unignore(CID)
    assert texts(made) == ["text 1", "text 2", "text 3", "a note", "hello ann"]
    assert made.reactions(said(made, 3)) == [("👍", ["cid"])]
    assert (made.read_state.unread, made.read_state.mentions) == (4, 1)
    check(made)


def test_who_is_ignored_cannot_push_out_what_others_said() -> None:
    made = timeline(message(1))
    made.ignore(CID)
    for seq in range(2, 3_000):
        made.add(message(seq, key=CID))
    assert texts(made) == ["text 1"]
    assert len(made._hidden) == 1_000
    check(made)


# -- parts of the log ---------------------------------------------------------------------------------


class Windows(RuleBasedStateMachine):
    """A timeline that is attached and a part further up, which are added to at either end, beside a plain list.

    A ring of 12 items: what does not fit goes at the other end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(ring_module, "RING", 12)
        self.log: list[Message] = [message(n) for n in range(1, 31)]
        self.live = timeline(*self.log[20:])
        self.part: Timeline | None = None
        self.read = 0
        self.deepest = 21  # the oldest number that the one that is attached has had

    def teardown(self) -> None:
        self.patch.undo()

    def between(self, begins: int, ends: int) -> list[Message]:
        return self.log[begins - 1 : ends - 1]

    @rule(
        kind=st.sampled_from([1, 1, 1, 1, Kind.EDIT, Kind.RETRACT, Kind.REACT]),
        back=st.integers(1, 40),
        key=st.sampled_from([ANN, BOB]),
    )
    def hear(self, kind: int, back: int, key: bytes) -> None:
        seq = len(self.log) + 1
        said = message(seq, key=key, kind=kind, target=max(0, seq - back) if kind != 1 else 0)
        self.log.append(said)
        self.live.add(said)
        if self.part is not None:
            self.part.apply_changes([said])

    @rule()
    def note(self) -> None:
        self.live.note("a note", 0)

    @rule(size=st.integers(1, 9))
    def load_older(self, size: int) -> None:
        window = self.part or self.live
        begins = max(1, window.oldest - size)
        window.add_older(self.between(begins, window.oldest), begins)

    @precondition(lambda self: self.part is not None)
    @rule(size=st.integers(1, 9))
    def load_newer(self, size: int) -> None:
        assert self.part is not None
        ends = min(self.part.last_seq + 1 + size, len(self.log) + 1)
        self.part.add_newer(self.between(self.part.last_seq + 1, ends), ends)

    @rule(begins=st.integers(1, 40), size=st.integers(1, 9))
    def open(self, begins: int, size: int) -> None:
        begins = min(begins, len(self.log))
        ends = min(begins + size, len(self.log) + 1)
        self.part = self.live.part(begins)
        self.part.add_newer(self.between(begins, ends), ends)
        if ends < self.part.edits.since:
            self.part.apply_changes(self.between(ends, self.part.edits.since))
            self.part.edits.since = ends

    @rule(first=st.integers(-2, 12), size=st.integers(1, 9))
    def cut_out(self, first: int, size: int) -> None:
        first += self.live.first
        self.part = self.live.cut_out(first, first + size)
        if self.part is not None:
            for number in range(self.part.first, self.part.end):
                mine, its = self.part[number], self.live[number]
                assert (type(mine), mine.order, mine is its) == (type(its), its.order, False)

    @rule()
    def back_to_the_end(self) -> None:
        self.part = None

    @rule(back=st.integers(0, 20))
    def reads(self, back: int) -> None:
        self.read = max(self.read, len(self.log) - back)
        self.live.read_state.mark_read(self.read)
        if self.part is not None:
            self.part.read_state.mark_read(self.read)

    @rule()
    def mark(self) -> None:
        self.live.read_state.place_marker()
        self.part = None

    @invariant()
    def each_is_a_part_of_the_log_without_a_hole(self) -> None:
        assert self.live.last_seq == len(self.log)
        for window in (self.live, self.part):
            if window is None:
                continue
            check(window)
            assert window.end - window.first <= 12
            held = self.between(window.oldest, window.last_seq + 1)
            said = [item for item in items(window) if isinstance(item, MessageEntry)]
            assert [item.seq for item in said] == [each.seq for each in held if each.kind == Kind.SAY]
            for item in said:
                assert self.picture(item, window) == self.picture_of(item.seq)
            after = [item.number for item in said if item.seq >= window.read_state.first_unread and not item.mine]
            if window.read_state.marker_seq is not None and (
                window.attached or window.oldest <= window.read_state.first_unread
            ):
                assert window.read_state.marker == (after[0] if after else None)
            else:
                assert window.read_state.marker is None

    @invariant()
    def what_is_unread_is_counted_also_where_it_had_to_go(self) -> None:
        unread = [m.seq for m in self.log if m.kind == Kind.SAY and m.author.key != ANN and m.seq > self.read]
        self.deepest = min(self.deepest, self.live.oldest)
        assert (
            sum(seq >= self.live.oldest for seq in unread) <= self.live.read_state.unread <= len(self.log) - self.read
        )
        if all(m.kind == Kind.SAY and m.author.key != ANN for m in self.log[20:]):  # else there is less than numbers
            assert self.live.read_state.unread == sum(seq >= self.deepest for seq in unread)

    def picture(self, item: MessageEntry, window: Timeline) -> tuple[str, int]:
        return item.text, len(window.reactions(item))

    def picture_of(self, seq: int) -> tuple[str, int]:
        """What a message has become by all that the log says."""
        first = self.log[seq - 1]
        about = [each for each in self.log if each.target == seq]
        by_author = [each for each in about if each.author.key == first.author.key]
        changes = [each.kind for each in by_author if each.kind != Kind.REACT]
        if changes and changes[-1] == Kind.RETRACT:
            return "", 0
        edits = [each.text for each in by_author if each.kind == Kind.EDIT]
        return [first.text, *edits][-1], len({each.text for each in about if each.kind == Kind.REACT})


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
