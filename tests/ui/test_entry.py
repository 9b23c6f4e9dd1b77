"""What a message says to its reader, and who came and left."""

from __future__ import annotations

from chat.core.wire import Kind
from chat.ui.entry import MessageEntry, PresenceEntry
from tests.ui.test_timeline import ANN, BOB, CID, DAY, MINUTE, check, items, message, timeline


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
