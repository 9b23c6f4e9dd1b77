"""The roster: whoever asks, however late, ends with the same list; and nothing queues meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.frame import MAX_CONTROL, Presence, split, unpack
from chat.presence import Roster


class Reader:
    """A member who knows the roster only by its pages."""

    def __init__(self) -> None:
        self.version = -1
        self.here: set[tuple[bytes, str]] = set()
        self.pages: list[Presence] = []

    def take(self, roster: Roster) -> None:
        """Take one page, as a session does."""
        data, self.version = roster.page(self.version)
        assert len(data) <= MAX_CONTROL
        (found,) = split(data)
        page = unpack(Presence, found)
        self.pages.append(page)
        if page.reset:
            self.here.clear()
        self.here.difference_update(page.gone)
        self.here.update(page.here)
        assert page.more == (self.version < roster.version)

    def catch_up(self, roster: Roster) -> None:
        while self.version < roster.version:
            self.take(roster)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_empty_room() -> None:
    roster = Roster()
    assert (len(roster), roster.here(), roster.version) == (0, [], 0)


def test_a_newcomer_is_told_that_nobody_is_here() -> None:
    roster, reader = Roster(), Reader()
    reader.catch_up(roster)
    assert reader.pages == [Presence(reset=True)]


def test_members_are_listed_in_the_order_in_which_they_came() -> None:
    roster = Roster()
    for number in (3, 1, 2):
        roster.enter(key(number), f"n{number}")
    assert roster.here() == [(key(3), "n3"), (key(1), "n1"), (key(2), "n2")]


def test_a_newcomer_gets_the_whole_list_and_then_changes_only() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    roster.enter(key(2), "bob")
    reader.catch_up(roster)
    roster.leave(key(1), "ann")
    roster.enter(key(3), "cid")
    reader.catch_up(roster)
    assert reader.pages == [
        Presence(here=[(key(1), "ann"), (key(2), "bob")], reset=True),
        Presence(here=[(key(3), "cid")], gone=[(key(1), "ann")]),
    ]


def test_a_newcomer_is_not_told_who_left_before_it_came() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    roster.enter(key(2), "bob")
    roster.leave(key(1), "ann")
    reader.catch_up(roster)
    assert reader.pages == [Presence(here=[(key(2), "bob")], reset=True)]


def test_several_windows_of_one_key_and_nickname_show_once() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    reader.catch_up(roster)
    version = roster.version
    roster.enter(key(1), "ann")
    roster.leave(key(1), "ann")
    assert (len(roster), roster.version) == (1, version)  # nobody is told of the second window
    roster.leave(key(1), "ann")
    reader.catch_up(roster)
    assert reader.here == set()


def test_two_nicknames_of_one_key_show_both() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    roster.enter(key(1), "ann-at-home")
    reader.catch_up(roster)
    assert reader.here == {(key(1), "ann"), (key(1), "ann-at-home")}
    roster.leave(key(1), "ann")
    reader.catch_up(roster)
    assert reader.here == {(key(1), "ann-at-home")}


def test_a_window_that_is_not_open_cannot_close() -> None:
    roster = Roster()
    roster.enter(key(1), "ann")
    with pytest.raises(KeyError):
        roster.leave(key(1), "bob")
    assert roster.here() == [(key(1), "ann")]


def test_what_lies_between_is_not_told() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    reader.catch_up(roster)
    for _ in range(100):
        roster.enter(key(2), "bob")
        roster.leave(key(2), "bob")
    roster.enter(key(2), "bob")
    reader.catch_up(roster)
    assert reader.pages[1:] == [Presence(here=[(key(2), "bob")])]


def test_members_of_one_version_are_sent_the_same_bytes() -> None:
    roster = Roster()
    roster.enter(key(1), "ann")
    assert roster.page(0)[0] is roster.page(0)[0]
    before = roster.page(0)
    roster.enter(key(2), "bob")
    assert roster.page(0) != before


def test_a_long_list_goes_in_pages_of_4_kib() -> None:
    roster, reader = Roster(), Reader()
    everyone = {(key(number), "x" * 61 + f"{number:03}") for number in range(200)}
    for who in everyone:
        roster.enter(*who)
    reader.catch_up(roster)
    assert reader.here == everyone
    assert len(reader.pages) == 7
    assert [page.reset for page in reader.pages] == [True] + [False] * 6


def test_changes_between_two_pages_are_not_lost() -> None:
    roster, reader = Roster(), Reader()
    for number in range(100):
        roster.enter(key(number), f"n{number}")
    reader.take(roster)
    roster.leave(key(0), "n0")  # told already
    roster.leave(key(99), "n99")  # not yet
    roster.enter(key(100), "n100")
    reader.catch_up(roster)
    assert reader.here == set(roster.here())


def test_a_long_list_ends_although_people_come_and_go_all_the_while() -> None:
    roster, reader = Roster(), Reader()
    for number in range(2000):
        roster.enter(key(number), f"n{number}")
    pass_by(roster, 600)
    while not reader.pages or reader.pages[-1].more:
        reader.take(roster)
        pass_by(roster, 20)
        assert len(reader.pages) < 120
    assert [page.reset for page in reader.pages].count(True) == 2  # begun anew when those who left were forgotten
    reader.catch_up(roster)
    assert reader.here == set(roster.here())


def pass_by(roster: Roster, guests: int) -> None:
    for _ in range(guests):
        roster.enter(key(5000), "guest")
        roster.leave(key(5000), "guest")


@pytest.mark.parametrize("stay", [0, 3])
def test_who_slept_through_much_starts_anew(stay: int) -> None:
    roster, reader = Roster(), Reader()
    for number in range(stay):
        roster.enter(key(number), f"n{number}")
    roster.enter(key(99), "gone-for-long")
    reader.catch_up(roster)
    roster.leave(key(99), "gone-for-long")
    for number in range(1000):
        roster.enter(key(100 + number), "passing")
        roster.leave(key(100 + number), "passing")
    reader.catch_up(roster)
    assert reader.here == set(roster.here())
    assert reader.pages[1].reset


def test_those_who_left_are_forgotten_in_the_end() -> None:
    roster = Roster()
    roster.enter(key(0), "ann")
    for number in range(1, 20_000):
        roster.enter(key(number), "passing")
        roster.leave(key(number), "passing")
    assert len(roster._order) < 2000
    assert len(roster._changed) < 2000


@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from("abc"), st.integers(0, 3)), max_size=120), st.integers(1, 40)
)
def test_every_reader_ends_with_the_same_list(steps: list[tuple[int, str, int]], crowd: int) -> None:
    roster, readers = Roster(), [Reader() for _ in range(3)]
    windows: list[tuple[bytes, str]] = []
    for number in range(crowd):
        roster.enter(key(100 + number), f"n{number}")
    for number, nick, who in steps:
        window = (key(number), nick)
        if windows.count(window) == 2:
            windows = [other for other in windows if other != window]
            roster.leave(*window)
            roster.leave(*window)
        else:
            windows.append(window)
            roster.enter(*window)
        if who < len(readers) and readers[who].version < roster.version:
            readers[who].take(roster)
    for reader in readers:
        reader.catch_up(roster)
        assert reader.here == set(roster.here())
    assert set(roster.here()) == {*windows, *((key(100 + number), f"n{number}") for number in range(crowd))}
