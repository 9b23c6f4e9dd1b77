"""The pane over a timeline: how items look, where one is, what is selected, and a machine that does it all at once."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chat.core.bodies import Author
from chat.core.events import Message
from chat.core.wire import Kind
from chat.ui import ring as ring_module
from chat.ui.entry import MessageEntry
from chat.ui.fullscreen import pane as module
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.layout import Line, Wrapped, lay
from chat.ui.fullscreen.pane import Pane
from chat.ui.fullscreen.wrapping import columns
from chat.ui.ring import RING
from chat.ui.theme import roles_of
from chat.ui.timeline import Timeline, folded

if TYPE_CHECKING:
    import pytest
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Row

ANN, BOB = b"a" * 32, b"b" * 32
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
DAY_LINE = f"{'Thursday, 1 January 1970':^60}".rstrip()


def message(
    seq: int, text: str = "", *, key: bytes = BOB, kind: int = Kind.SAY, target: int = 0, at: int = 0, nick: str = ""
) -> Message:
    author = Author(index=1, key=key, stream=1, nick=nick or ("ann" if key == ANN else "bob"))
    return Message(seq, at, author, kind, text or f"text {seq}", target, mine=key == ANN)


def talk(*messages: Message) -> tuple[Timeline, Pane]:
    timeline = Timeline(ANN, "ann", UTC)
    for each in messages:
        timeline.add(each)
    return timeline, Pane(Conversation(timeline))


def rows(pane: Pane, width: int = 60, height: int = 10) -> list[Row]:
    content = pane.create_content(width, height)
    return [content.get_line(y) for y in range(content.line_count)]


def view(pane: Pane, width: int = 60, height: int = 10) -> list[str]:
    return ["".join(part[1] for part in row).rstrip() for row in rows(pane, width, height)]


def style_of(pane: Pane, text: str, width: int = 60, height: int = 10) -> str:
    return next(part[0] for row in rows(pane, width, height) for part in row if part[1] == text)


# -- where one is -------------------------------------------------------------------------------------


def numbered(count: int, first: int = 1) -> list[Message]:
    return [message(n, key=bytes([n % 2]) * 32, nick=f"n{n % 2}") for n in range(first, first + count)]


def seqs(pane: Pane, height: int = 5) -> list[int]:
    return [int(row.rpartition("text ")[2]) for row in view(pane, height=height) if "text" in row]


def test_the_end_is_followed_with_what_is_pending_below_it() -> None:
    timeline, pane = talk(*numbered(2))
    assert view(pane, height=4) == ["", DAY_LINE, " 00:00     n1 │ text 1", "           n0 │ text 2"]
    entry = object()
    timeline.add_pending(entry, Kind.SAY, "hm", 0, 0)
    timeline.add(message(3))
    assert view(pane, height=4)[1:] == ["           n0 │ text 2", "          bob │ text 3", "          ann │ hm …"]
    timeline.settle(entry, 4)
    timeline.add(message(5))
    assert view(pane, height=4)[1:] == ["          bob │ text 3", "          ann │ hm ✓", "          bob │ text 5"]


def test_scrolled_up_what_is_pending_waits_below_with_what_comes() -> None:
    timeline, pane = talk(*numbered(20))
    view(pane, height=4)
    pane.scroll(-1)
    assert seqs(pane, height=4) == [14, 15, 16, 17]  # a page less one row
    timeline.add(message(21))
    timeline.add_pending(object(), Kind.SAY, "hm", 0, 0)
    assert seqs(pane, height=4) == [14, 15, 16, 17]
    pane.scroll(-100)
    assert view(pane, height=4)[0] == DAY_LINE
    assert seqs(pane, height=4) == [1, 2, 3]
    pane.scroll(1)
    assert seqs(pane, height=4) == [3, 4, 5, 6]
    pane.scroll(100)
    assert seqs(pane, height=4) == [19, 20, 21]
    assert view(pane, height=4)[-1] == "          ann │ hm …"
    timeline.add(message(22))  # and it follows again
    assert seqs(pane, height=4) == [20, 21, 22]
    assert view(pane, height=4)[-1] == "          ann │ hm …"


def test_what_is_read_stays_in_place_when_the_width_changes() -> None:
    long = message(12, " ".join(f"word{n}" for n in range(40)), key=bytes(32), nick="n0")
    _, pane = talk(*numbered(11), long, *numbered(9, first=13))
    view(pane, height=4)
    pane.scroll_rows(-14)
    before = view(pane, height=4)
    assert [row[16:23].rstrip() for row in before] == ["text 10", "text 11", "word0 w", "word7 w"]
    for width, first in ((20, " n0│ text 10"), (100, " 00:00     n0 │ text 10"), (7, "…│ text")):
        assert view(pane, width, 4)[0] == first
        assert pane.in_view[0] == 9
    assert view(pane, height=4) == before


def test_an_anchor_among_lines_that_are_forgotten_moves_on() -> None:
    timeline, pane = talk(*numbered(RING))
    view(pane, height=4)
    pane.scroll(-RING)
    assert seqs(pane, height=4) == [1, 2, 3]
    for each in numbered(5, first=RING + 1):
        timeline.add(each)
    assert seqs(pane, height=4) == [6, 7, 8]
    for each in numbered(5, first=RING + 6):
        timeline.add(each)
    pane.scroll(1)
    assert seqs(pane, height=4) == [13, 14, 15, 16]


def test_a_place_holds_while_newer_and_older_messages_come() -> None:
    timeline, pane = talk(*numbered(30, first=101))
    assert seqs(pane) == [126, 127, 128, 129, 130]
    pane.scroll(-2)
    assert seqs(pane) == [118, 119, 120, 121, 122]
    for each in numbered(10, first=131):
        timeline.add(each)
    timeline.add_older(numbered(100))
    timeline.add(message(141, "x\ny\nz", kind=Kind.EDIT, target=101, key=bytes([1]) * 32))  # above what is in view
    assert seqs(pane) == [118, 119, 120, 121, 122]
    assert not pane.following
    pane.scroll(3)
    assert seqs(pane) == [130, 131, 132, 133, 134]
    pane.scroll(1)
    pane.scroll(1)
    assert seqs(pane) == [136, 137, 138, 139, 140]
    assert pane.following


def test_the_end_of_a_part_of_the_log_is_not_followed() -> None:
    timeline, _pane = talk(*numbered(10))
    part = timeline.part(101)
    part.add_newer(numbered(30, first=101), 131)
    pane = Pane(Conversation(part))
    pane.jump(part.first)
    seqs(pane)
    pane.scroll(100)
    assert seqs(pane) == [126, 127, 128, 129, 130]
    assert not pane.following
    part.add_newer(numbered(30, first=131), 161)
    assert seqs(pane) == [126, 127, 128, 129, 130]
    pane.scroll(1)
    assert seqs(pane) == [130, 131, 132, 133, 134]


def test_a_place_is_the_same_on_a_part_that_was_cut_out() -> None:
    timeline, pane = talk(*numbered(60))
    seqs(pane)
    pane.scroll(-3)
    pane.select(-1)
    before = view(pane, height=5)
    part = timeline.cut_out(pane.in_view[0] - 9, pane.in_view[1] + 9)
    assert part is not None
    other = Pane(Conversation(part))
    other.succeed(pane)
    other.take_over(pane, 0)
    assert (view(other, height=5), other.selected) == (before, pane.selected)


def test_the_text_at_the_top_stays_when_its_day_moves_away_from_above_it() -> None:
    timeline, pane = talk(*numbered(30, first=101))
    pane.create_content(60, 5)
    pane.scroll(-100)
    before = view(pane, height=5)
    assert before[:2] == [DAY_LINE, " 00:00     n1 │ text 101"]
    timeline.add_older(numbered(100))
    assert view(pane, height=5)[1:] == [before[1].replace("00:00", " " * 5), *before[2:]]
    pane.scroll(-100)
    assert view(pane, height=5)[0] == DAY_LINE


def test_what_is_in_view_is_known() -> None:
    timeline, pane = talk(*numbered(30))
    assert pane.in_view == (0, -1)
    view(pane, height=5)
    assert pane.in_view == (25, 29)
    pane.scroll(-1)
    view(pane, height=5)
    assert pane.in_view == (21, 25)
    assert timeline.read_state.read_up_to(pane.in_view[1]) == 26


def test_jumping_brings_a_message_into_view() -> None:
    timeline, pane = talk(*numbered(100))
    timeline.read_state.mark_read(49)
    timeline.read_state.place_marker()
    view(pane, height=9)
    assert pane.jump(timeline.read_state.marker)
    assert view(pane, height=9)[3:5] == [f"{' 51 new ':─^60}", " 00:00     n0 │ text 50"]
    assert pane.jump(6)
    assert seqs(pane, height=9)[3] == 7
    assert pane.jump(99)
    assert seqs(pane, height=9)[-1] == 100
    assert not pane.jump(100)
    assert not pane.jump(-1)
    assert not pane.jump(None)


def test_a_message_is_selected_with_keys_and_can_be_seen_to_be() -> None:
    timeline, pane = talk(*numbered(20))
    timeline.note("a note", 0)
    view(pane, height=5)
    assert pane.select(-1) == 19  # not the note
    selected = [row for row in rows(pane, 60, 5) if all("class:selected" in part[0] for part in row)]
    assert ["".join(part[1] for part in row) for row in selected] == [f"{'           n0 │ text 20':60}"]
    for _ in range(10):
        pane.select(-1)
    assert pane.selected == 9
    assert seqs(pane)[0] == 10  # scrolled no further than needed
    timeline.add(message(21, "new"))
    assert seqs(pane)[0] == 10
    assert pane.select(1) == 10
    assert seqs(pane)[0] == 10
    for _ in range(30):
        pane.select(1)
    assert pane.selected == 21
    assert view(pane, height=5)[-1] == "          bob │ new"
    for _ in range(50):
        pane.select(-1)
    assert pane.selected == 0
    pane.follow()
    assert pane.following
    assert not any("class:selected" in part[0] for row in rows(pane) for part in row)


def test_a_message_that_was_evicted_is_no_longer_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "RING", 20)
    timeline, _ = talk(*numbered(40))
    part = timeline.part(30)
    part.add_newer(numbered(35), 36)
    pane = Pane(Conversation(part))
    view(pane)
    assert pane.select(-1) == part.last - 1
    for _ in range(4):  # at most five at a time
        part.add_older(numbered(40))
    assert (part.oldest, part.last_seq, pane.selected) == (10, 29, None)
    view(pane)
    assert pane.select(-1) == part.last - 1


def test_a_selection_stays_where_the_end_is_in_view_while_messages_come() -> None:
    timeline, pane = talk(*numbered(20))
    view(pane, height=5)
    pane.select(-1)
    view(pane, height=5)
    for each in numbered(20, first=21):
        timeline.add(each)
    assert seqs(pane)[-1] == 20
    assert pane.selected == 19
    pane.selected = None
    assert seqs(pane)[-1] == 20


def test_what_is_searched_for_is_highlighted_as_text_and_not_as_a_pattern() -> None:
    _, pane = talk(message(1, "A.b a.B axb **a.b**"))
    pane.hit = "a.b"
    hits = [(part[0], part[1]) for part in rows(pane)[-1] if "class:hit" in part[0]]
    assert hits == [("class:hit", "A.b"), ("class:hit", "a.B"), ("class:bold class:hit", "a.b")]
    assert view(pane)[-1] == " 00:00    bob │ A.b a.B axb a.b"


def test_a_hit_that_reaches_over_words_of_code_is_highlighted_whole_and_the_margin_never() -> None:
    _, pane = talk(message(1, "```python\ndef kettle(): return 1\n```"))
    for hit, found in (("DEF KETTLE", ["def", " kettle"]), ("bob", []), ("kettle(): r", ["kettle(): ", "r"])):
        pane.hit = hit
        assert [part[1] for row in rows(pane) for part in row if "class:hit" in part[0]] == found


def test_the_selected_message_is_a_block_of_whole_rows_and_the_day_above_it_no_part_of_it() -> None:
    timeline, pane = talk(message(1, "ann, see\n```\ncode\n```", target=9), message(2, "after"))
    timeline.add(message(3, "👍", key=ANN, kind=Kind.REACT, target=1))
    view(pane)
    pane.selected = 0
    selected = ["class:selected" in row[0][0] if row else False for row in rows(pane)]
    assert selected == [False] * 3 + [True] * 6 + [
        False
    ]  # two blank rows, the day; quote, text, frame, chips; the next
    for row in rows(pane):
        if row and "class:selected" in row[0][0]:
            assert all("class:selected" in part[0] for part in row)
            assert sum(columns(part[1]) for part in row) == 60
    assert "reverse" in roles_of("none")["selected"]


def test_ignoring_somebody_goes_back_to_the_end() -> None:
    timeline, pane = talk(*numbered(40))
    view(pane, height=5)
    pane.scroll(-2)
    pane.select(-1)
    timeline.ignore(bytes([1]) * 32)
    assert seqs(pane) == [32, 34, 36, 38, 40]
    assert pane.selected is None


# -- what it costs ------------------------------------------------------------------------------------


def test_a_redraw_lays_out_what_is_in_view_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    laid = 0

    def counted(line: Line, width: int, *, delimiters: bool = False) -> Wrapped:
        nonlocal laid
        laid += 1
        return lay(line, width, delimiters=delimiters)

    timeline, pane = talk(*numbered(RING + 500))
    monkeypatch.setattr(module, "lay", counted)
    view(pane, height=20)
    assert laid <= 21
    laid = 0
    view(pane, height=20)
    assert laid == 0
    for each in numbered(33, first=RING + 501):  # what comes in 1/30 s
        timeline.add(each)
    view(pane, height=20)
    assert laid <= 21
    laid = 0
    assert pane.jump(timeline.first + 5_000)
    view(pane, height=20)
    assert laid <= 50
    laid = 0
    view(pane, width=59, height=20)  # another width: all that is in view
    assert laid <= 50


def test_what_is_kept_of_markup_counts_its_pieces() -> None:
    _, pane = talk(*(message(n, "*a* " * 4_000) for n in range(1, 20)))
    for number in range(19):
        pane.jump(number)
        view(pane)
    assert pane._cached_rows == sum(wrapped.size for wrapped in pane._cache.values())
    assert pane._cached_rows <= 2 * 20_000


def test_what_is_kept_of_long_messages_counts_their_rows() -> None:
    timeline, pane = talk()
    for n in range(1, 6):
        timeline.add(message(n, "\n" * 16_383 + f"end {n}"))
        view(pane)
        pane._conversation.unfold(n - 1)
        view(pane)
    assert pane._cached_rows == sum(wrapped.size for wrapped in pane._cache.values())
    assert sum(len(wrapped.texts) for wrapped in pane._cache.values()) <= 2 * 20_000
    assert view(pane, height=3) == [" 00:00    bob │", "              │", "              │ end 5"]


def test_what_is_kept_of_short_messages_counts_more_than_their_rows() -> None:
    """Each is a dozen objects, and the collector looks at all of them whenever it looks at everything."""
    _, pane = talk(*numbered(3_000))
    for number in range(0, 3_000, 10):
        pane.jump(number)
        view(pane)
    assert 100 < len(pane._cache) <= 1_000


# -- all at once --------------------------------------------------------------------------------------

WORDS = st.text(st.sampled_from("ab *_`>\n你😀é\u200d\u05d0"), max_size=120)


class Reading(RuleBasedStateMachine):
    """Keys, messages and resizes in any order: nothing breaks, rows fit, and a place that is held is held."""

    @initialize()
    def begin(self) -> None:
        self.timeline = Timeline(ANN, "ann", UTC)
        self.pane = Pane(Conversation(self.timeline))
        self.width, self.height = 60, 8
        self.timeline.oldest = 500
        self.timeline.last_seq = 499
        self.now = 0
        self.entries: list[object] = []

    @rule(text=WORDS, key=st.sampled_from([ANN, BOB]), kind=st.sampled_from([1, 1, 2]), far=st.integers(0, 9))
    def hear(self, text: str, key: bytes, kind: int, far: int) -> None:
        self.now += MINUTE * far**3
        seq = self.timeline.last_seq + 1
        self.holding(lambda: self.timeline.add(message(seq, text, key=key, kind=kind, target=seq - far, at=self.now)))

    @rule(text=WORDS, kind=st.sampled_from([3, 4, 5]), back=st.integers(1, 8), key=st.sampled_from([ANN, BOB]))
    def change(self, text: str, kind: int, back: int, key: bytes) -> None:
        seq = self.timeline.last_seq + 1
        self.timeline.add(message(seq, text, key=key, kind=kind, target=seq - back, at=self.now))

    @rule(texts=st.lists(WORDS, max_size=12))
    def load_older(self, texts: list[str]) -> None:
        first = max(1, self.timeline.oldest - len(texts))
        older = [message(seq, text) for seq, text in zip(range(first, self.timeline.oldest), texts, strict=False)]
        self.holding(lambda: self.timeline.add_older(older, first))

    @rule(came=st.lists(st.sampled_from("xyz")), went=st.lists(st.sampled_from("xyz")))
    def move(self, came: list[str], went: list[str]) -> None:
        self.timeline.presence([(c.encode(), c) for c in came], [(w.encode(), w) for w in went], self.now)

    @rule(text=WORDS)
    def say(self, text: str) -> None:
        self.entries.append(object())
        self.timeline.add_pending(self.entries[-1], Kind.SAY, text, 0, self.now)

    @rule()
    def settle(self) -> None:
        if self.entries:
            self.timeline.settle(self.entries.pop(0), 0)

    @rule(pages=st.integers(-3, 3))
    def scroll(self, pages: int) -> None:
        self.pane.scroll(pages)

    @rule(count=st.integers(-5, 5))
    def scroll_rows(self, count: int) -> None:
        self.pane.scroll_rows(count)

    @rule(by=st.sampled_from([-1, 1]))
    def select(self, by: int) -> None:
        number = self.pane.select(by)
        if number is not None:
            self.draw()
            first, last = self.pane.in_view
            assert first <= number <= last

    @rule(at=st.integers(0, 100))
    def jump(self, at: int) -> None:
        number = self.timeline.first + at
        if self.pane.jump(number):
            self.draw()
            first, last = self.pane.in_view
            assert first <= number <= last

    @rule()
    def deselect(self) -> None:
        self.pane.selected = None

    @rule()
    def follow(self) -> None:
        self.pane.follow()

    @rule(hit=st.sampled_from(["", "a", "你", "*"]))
    def search(self, hit: str) -> None:
        self.pane.hit = hit
        found = (entry.number for entry in self.timeline.messages(newest_first=True) if hit in folded(entry.text))
        self.pane.jump(next(found, None) if hit else None)

    @rule(back=st.integers(0, 5))
    def mark(self, back: int) -> None:
        self.timeline.read_state.mark_read(self.timeline.last_seq - back)
        self.timeline.read_state.place_marker()

    @rule(on=st.booleans())
    def ignore(self, on: bool) -> None:
        (self.timeline.ignore if on else self.timeline.unignore)(BOB)

    @rule()
    def rewind(self) -> None:
        self.timeline.rewound()

    @rule(width=st.integers(6, 100), height=st.integers(1, 30))
    def resize(self, width: int, height: int) -> None:
        """Something of what was the first in view is the first again, unless the end came into view."""
        self.draw()
        before = self.pane.in_view[0]
        self.width, self.height = width, height
        self.draw()
        if not self.pane.following and self.pane.in_view[1] < self.timeline.last - 1:
            assert self.pane.in_view[0] == before

    def holding(self, happens: object) -> None:
        """Where the pane is scrolled up, every row stays where it is on the screen.

        But for what stands above the topmost text (a day, the unread marker) and its head, which may go when there
        is something above them. What is pending has no place to hold.
        """
        self.draw()
        held = not self.pane.following and self.timeline.last == self.timeline.end
        held = held and len(self.pane._page(*self.pane._place())) == self.height
        before = self.texts()
        assert callable(happens)
        happens()
        if held:
            assert sum(row != was for row, was in zip(self.texts(), before, strict=True)) <= 3

    def texts(self) -> list[str]:
        return view(self.pane, self.width, self.height)

    def draw(self) -> list[Row]:
        return rows(self.pane, self.width, self.height)

    @invariant()
    def rows_fit(self) -> None:
        if not hasattr(self, "pane"):
            return
        made = self.draw()
        assert len(made) == self.height
        for row in made:
            text = "".join(part[1] for part in row)
            assert columns(text) <= self.width
            assert "\n" not in text
        assert self.pane._cached_rows == sum(wrapped.size for wrapped in self.pane._cache.values())
        if self.pane.following:
            assert self.pane.in_view[1] in (self.timeline.last - 1, -1)
        selected = self.pane.selected
        assert selected is None or isinstance(self.timeline[selected], MessageEntry)


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
