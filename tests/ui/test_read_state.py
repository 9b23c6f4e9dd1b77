"""What is unread, and where the unread marker stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.wire import Kind
from chat.ui.entry import MessageEntry
from tests.ui.test_timeline import ANN, check, message, react, timeline

if TYPE_CHECKING:
    from chat.ui.timeline import Timeline


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
    made.note("5 messages are gone for good", 0, last_seq=11)
    assert made.read_state.read_up_to(2) == 11


def test_what_is_new_is_counted_below_the_marker_until_all_is_read() -> None:
    made = timeline(message(1), message(2, key=ANN), message(3))
    made.read_state.mark_read(1)
    made.read_state.place_marker()
    assert made.read_state.new == 1
    made.add(message(4))
    assert made.read_state.new == 2
    made.read_state.mark_read(4)
    made.add(message(5))  # somebody reads along: the marker stays as it was
    assert (made.read_state.marker, made.read_state.new) == (2, 2)
    made.read_state.place_marker()
    assert (made.read_state.marker, made.read_state.new) == (4, 1)
