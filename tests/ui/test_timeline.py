"""What the reader of a room knows: order, changes in whatever order they come, what is unread, what is kept."""

from __future__ import annotations

import itertools
from datetime import UTC

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chat.core.session import Message
from chat.core.wire import Author, Kind
from chat.ui import edits as edits_module
from chat.ui import ring as ring_module
from chat.ui.edits import OVERHEAD
from chat.ui.entry import Entry, MessageEntry, NoteEntry, PresenceEntry
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
    places = [item.order for item in made.ring]
    assert places == sorted(places)
    shown = [item for item in made.ring if isinstance(item, MessageEntry)]
    assert made.ring.size == sum(item.weight for item in made.ring)
    assert {item.seq for item in (*shown, *made._hidden) if item.seq} == set(made._by_seq)
    unread = [item for item in shown if item.seq > made.read_state.last_read and not item.mine]
    state = made.read_state
    assert (state.unread - state._evicted, state.mentions) == (len(unread), sum(item.mentioned for item in unread))
    kept = [c for target in made.edits._changes for c in made.edits.of(target)]
    assert made.edits.size == sum(len(c.text) + OVERHEAD for c in kept)


# -- edits, retractions, reactions --------------------------------------------------------------------


def test_an_edit_shows_in_place_and_keeps_what_was_said() -> None:
    made = timeline(
        message(1, "helo"),
        message(2),
        message(3, "hallo", kind=Kind.EDIT, target=1),
        message(4, "hello", kind=3, target=1),
    )
    assert texts(made) == ["hello", "text 2"]
    item = said(made, 1)
    assert item.edited
    assert [(edit.seq, edit.time, edit.text) for edit in item.earlier] == [
        (1, MINUTE, "helo"),
        (3, 3 * MINUTE, "hallo"),
    ]
    assert not said(made, 2).edited
    assert made.last_seq == 4


def test_only_the_same_key_edits_or_takes_back() -> None:
    made = timeline(
        message(1, "mine", key=BOB),
        message(2, "not mine", key=CID, kind=Kind.EDIT, target=1),
        message(3, key=CID, kind=Kind.RETRACT, target=1),
    )
    assert (texts(made), said(made, 1).edited, said(made, 1).retracted) == (["mine"], False, False)


def test_what_is_taken_back_stays_in_place_without_its_texts() -> None:
    made = timeline(
        message(1, "secret"),
        message(2),
        message(3, "a secret", kind=Kind.EDIT, target=1),
        react(4, "👍", 1),
        message(5, kind=Kind.RETRACT, target=1),
        message(6, "again", kind=Kind.EDIT, target=1),
    )
    item = said(made, 1)
    assert (item.retracted, item.text, item.earlier, made.reactions(item)) == (True, "", [], [])
    assert texts(made) == ["", "text 2"]


def test_reactions_are_counted_by_emoji_one_for_each_key() -> None:
    made = timeline(
        message(1),
        react(2, "❤", 1, BOB),
        react(3, "👍", 1, CID),
        react(4, "❤\ufe0f", 1, CID),
        react(5, "❤", 1, BOB),
        react(6, "👍", 1, ANN),
        react(7, "\u200b\u202e", 1, ANN),  # nobody would see it
    )
    assert made.reactions(said(made, 1)) == [("❤", ["bob", "cid"]), ("👍", ["cid", "ann"])]
    made.add(react(8, "", 1, CID))
    assert made.reactions(said(made, 1)) == [("❤", ["bob"]), ("👍", ["ann"])]
    made.add(react(9, "👍", 1, CID))
    assert made.reactions(said(made, 1)) == [("❤", ["bob"]), ("👍", ["ann", "cid"])]


def test_nobody_changes_what_is_still_to_be_said_nor_what_is_no_message() -> None:
    made = timeline(
        message(1),
        message(2, "edited", kind=Kind.EDIT, target=1),
        message(3, "an edit of an edit", kind=Kind.EDIT, target=2),
        message(4, "of itself", kind=Kind.EDIT, target=4),
        message(5, "too soon", kind=Kind.EDIT, target=6),
        react(5, "👍", 7),
        message(6, "first"),
        message(7, "second"),
    )
    assert texts(made) == ["edited", "first", "second"]
    assert made.reactions(said(made, 7)) == []
    check(made)


SAYS = 6  # messages that begin the log
TARGETS = st.integers(1, 2 * SAYS)
CHANGES = st.one_of(
    st.tuples(st.just(Kind.EDIT), st.sampled_from([ANN, BOB]), TARGETS, st.just("e")),
    st.tuples(st.just(Kind.RETRACT), st.sampled_from([ANN, BOB]), TARGETS, st.just("")),
    st.tuples(st.just(Kind.REACT), st.sampled_from([ANN, BOB]), TARGETS, st.sampled_from(["", "👍", "❤"])),
    st.tuples(st.just(Kind.SAY), st.sampled_from([ANN, BOB]), st.just(0), st.just("t")),
)


def picture(made: Timeline) -> list[object]:
    return [
        (
            item.seq,
            item.text,
            item.retracted,
            [edit.text for edit in item.earlier],
            made.reactions(item),
            item.mentioned,
        )
        for item in items(made)
        if isinstance(item, MessageEntry)
    ]


@settings(max_examples=300)
@given(st.lists(CHANGES, min_size=4, max_size=20), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_whether_the_log_is_read_forwards_or_in_older_and_older_parts_the_outcome_is_the_same(
    changes: list[tuple[Kind, bytes, int, str]], cuts: list[int]
) -> None:
    says = [(Kind.SAY, ANN if seq % 2 else BOB, 0, "t") for seq in range(SAYS)]
    log = [
        message(seq, key=key, kind=kind, target=target)._replace(
            text=f"{text}{seq} ann" if text in ("e", "t") else text
        )
        for seq, (kind, key, target, text) in enumerate([*says, *changes], 1)
    ]
    forwards = timeline(*log)
    check(forwards)
    bounds = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    parts = [log[start:end] for start, end in itertools.pairwise(bounds)]
    backwards = timeline(*(parts.pop() if parts else []))
    for part in reversed(parts):
        backwards.add_older(part)
        check(backwards)
    assert picture(backwards) == picture(forwards)


def test_what_is_loaded_later_and_was_said_before_comes_before() -> None:
    made = timeline(message(10), message(11, "newest", kind=Kind.EDIT, target=1), react(12, "", 1))
    made.add_older([message(5, "newer", kind=Kind.EDIT, target=1), react(6, "👍", 1), react(7, "👍", 10)])
    made.add_older([message(1, "first"), message(2, "new", kind=Kind.EDIT, target=1)])
    assert [edit.text for edit in said(made, 1).earlier] == ["first", "new", "newer"]
    assert said(made, 1).text == "newest"
    assert made.reactions(said(made, 1)) == []
    assert made.reactions(said(made, 10)) == []  # said before it


def test_a_change_of_what_comes_later_waits_and_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timeline(message(10), message(11, "edited", kind=Kind.EDIT, target=5), react(12, "👍", 5))
    assert made.add_older([message(n) for n in range(4, 10)]) == 6
    assert said(made, 5).text == "edited"
    assert made.reactions(said(made, 5)) == [("👍", ["bob"])]
    monkeypatch.setattr(edits_module, "_MAX_CACHED", 1_000)
    for seq in range(13, 60):
        made.add(message(seq, "x" * 100, kind=Kind.EDIT, target=1 + seq % 3))
        check(made)
        assert made.edits.size <= 1_000


def test_one_message_does_not_grow_without_end() -> None:
    made = timeline(message(1))
    for seq in range(2, 3_000):
        made.add(message(seq, f"edit {seq}", kind=Kind.EDIT, target=1))
        made.add(react(seq, chr(0x1F300 + seq % 500), 1, key=CID))
    item = said(made, 1)
    assert item.text == "edit 2999"
    assert [edit.seq for edit in item.earlier] == [1, *range(2_980, 2_999)]
    assert len(made.reactions(item)) == 8
    check(made)


# -- how things stand ---------------------------------------------------------------------------------


def test_who_comes_and_goes_is_one_line_until_something_is_said() -> None:
    made = timeline()
    made.presence([(BOB, "bob"), (CID, "cid")], [], 0)
    made.presence([(b"d", "dan")], [(BOB, "bob"), (b"e", "eve")], MINUTE)
    made.presence([(b"e", "eve")], [], 2 * MINUTE)
    made.presence([], [], 2 * MINUTE)
    (only,) = items(made)
    assert isinstance(only, PresenceEntry)
    assert only.of(first=True, last=True) == ["cid", "dan"]
    assert only.of(first=True, last=False) == ["bob"]
    assert only.of(first=False, last=True) == ["eve"]
    assert only.of(first=False, last=False) == []
    made.add(message(1, at=3 * MINUTE))
    made.presence([], [(CID, "cid")], 4 * MINUTE)
    made.presence([], [(b"d", "dan")], 4 * MINUTE + DAY)  # another day is another line
    assert [type(item) for item in items(made)] == [PresenceEntry, MessageEntry, PresenceEntry, PresenceEntry]


def test_a_crowd_that_comes_is_counted_where_it_is_too_large_to_be_named() -> None:
    made = timeline()
    for n in range(300):
        made.presence([(bytes([n % 256, n // 256]), f"n{n}")], [], 0)
    (only,) = items(made)
    assert isinstance(only, PresenceEntry)
    assert (len(only.names), only.more) == (100, 200)


def test_mentions_are_those_by_others() -> None:
    made = timeline(
        message(1, "hello ANN"),
        message(2, "I am ann", key=ANN),
        message(3, "anna"),
        message(4, "hm"),
        message(5, "hm, @ann", kind=Kind.EDIT, target=4),
        message(6, "hello someone", kind=Kind.EDIT, target=1),
    )
    assert [item.mentioned for item in items(made) if isinstance(item, MessageEntry)] == [False, False, False, True]
    assert made.read_state.mentions == 1
    assert made.last_mention() == 3
    check(made)


# -- what is unread -----------------------------------------------------------------------------------


def nothing_marked(made: Timeline) -> bool:
    return made.read_state.marker is None


def test_the_marker_stays_while_reading_goes_on() -> None:
    made = timeline(message(1), message(2, key=ANN), message(3), message(4))
    made.read_state.mark_read(1)
    made.read_state.place_marker()
    assert (made.read_state.marker, made.read_state.unread) == (2, 2)  # what one said oneself is read
    made.read_state.mark_read(4)
    assert (made.read_state.marker, made.read_state.unread) == (2, 0)
    made.read_state.mark_read(2)  # never back
    assert made.read_state.unread == 0
    made.add(message(5))
    assert (made.read_state.marker, made.read_state.unread) == (2, 1)
    made.read_state.place_marker()
    assert made.read_state.marker == 4
    made.read_state.mark_read(5)
    made.read_state.place_marker()
    assert nothing_marked(made)
    made.add(message(6, key=ANN))
    assert nothing_marked(made)
    made.add(message(7))
    assert made.read_state.marker == 6


def test_the_marker_moves_up_to_older_messages_that_are_unread() -> None:
    made = timeline(message(10), message(11))
    made.read_state.mark_read(4)
    made.read_state.place_marker()
    assert made.read_state.marker == 0
    made.add_older([message(n) for n in range(3, 10)])
    assert isinstance(first := made[made.read_state.marker], MessageEntry)
    assert first.seq == 5
    assert made.read_state.unread == 7
    check(made)


def test_what_has_been_seen_is_read_with_all_that_has_no_line() -> None:
    made = timeline(message(1), message(2), react(3, "👍", 1), message(5), message(6, "x", kind=Kind.EDIT, target=1))
    assert [made.read_state.read_up_to(number) for number in range(3)] == [1, 4, 6]
    made.note("5 messages cannot be had any more", 0, last_seq=11)
    assert made.read_state.read_up_to(2) == 11


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


def test_a_full_ring_lets_the_oldest_go_and_takes_nothing_older() -> None:
    made = timeline(*(message(n, at=0) for n in range(11, RING + 11)))
    assert made.ring.full
    assert made.add_older([message(n) for n in range(1, 11)]) == 0
    assert (made.oldest, made.first, made.end) == (11, 0, RING)
    for n in range(5):
        made.add(message(RING + 11 + n, at=0))
    assert (made.first, made.end, made.oldest, made.read_state.unread) == (5, RING + 5, 16, RING + 5)
    assert (made.at_seq(15), said(made, 16).number) == (None, 5)
    with pytest.raises(IndexError):
        made[4]
    check(made)
    made.read_state.mark_read(13)  # of what has been let go, 14 and 15 are unread
    assert made.read_state.unread == RING + 2
    check(made)


def test_where_there_is_room_again_what_was_let_go_can_be_loaded_again() -> None:
    made = timeline(*(message(n, key=CID if n % 2 else BOB, at=0) for n in range(1, RING + 11)))
    made.add(message(RING + 11, "edited", kind=Kind.EDIT, target=4))  # which has been let go
    made.ignore(CID)
    assert (made.ring.full, made.oldest) == (False, 11)
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


def test_long_texts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "_MAX_TEXT", 1_000)
    made = timeline(*(message(n, "x" * 100) for n in range(1, 21)))
    assert made.end - made.first == 10
    made.add(message(21, "x" * 500, kind=Kind.EDIT, target=20))
    assert made.end - made.first == 4  # 600 characters and 100 for the edit, 300 before it
    made.add(message(22, "y" * 5_000))
    assert texts(made) == ["y" * 5_000]  # the newest stays
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
        if any(each.kind == Kind.RETRACT for each in by_author):
            return "", 0
        edits = [each.text for each in by_author if each.kind == Kind.EDIT]
        return [first.text, *edits][-1], len({each.text for each in about if each.kind == Kind.REACT})


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
