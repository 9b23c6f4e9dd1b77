"""The roster: whoever asks, however late, ends with the same list; and nothing queues meanwhile.

And slots: what one writes the others read, and what is no state is nobody's.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.core import status
from chat.core.bodies import Presence, unpack
from chat.core.roster import Roster
from chat.core.status import MAX_NOTE_BYTES, STALE_MS, Level, Status, pack_slot, seen, unpack_slot
from chat.core.wire import MAX_CONTROL, MAX_LOGIN, YEAR_9999, split
from chat.transport import MAX_SLOT


class Reader:
    """A member who knows the roster only by its pages."""

    def __init__(self) -> None:
        self.version = -1
        self.here: set[tuple[bytes, str]] = set()
        self.pages: list[Presence] = []
        self.others = 0

    def take(self, roster: Roster) -> None:
        """Take some pages, as a session does."""
        data, self.version = roster.pages(self.version)
        assert len(data) <= 16 * MAX_CONTROL
        frames = list(split(data))
        for frame in frames:
            assert len(frame.raw) <= MAX_CONTROL
            page = unpack(Presence, frame)
            self.pages.append(page)
            if page.reset:
                self.here.clear()
            self.here.difference_update(page.gone)
            self.here.update(page.here)
        page = unpack(Presence, frames[-1])
        assert page.more == (self.version < roster.version)
        self.others = page.others

    def catch_up(self, roster: Roster) -> None:
        while self.version < roster.version:
            self.take(roster)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_empty_room() -> None:
    roster = Roster()
    assert (list(roster.here), roster.version) == ([], 0)


def test_a_newcomer_is_told_that_nobody_is_here() -> None:
    roster, reader = Roster(), Reader()
    reader.catch_up(roster)
    assert reader.pages == [Presence(reset=True)]


def test_programs_are_named_among_those_who_are_here() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    roster.enter(key(2), "beep", bot=True)
    reader.catch_up(roster)
    (page,) = reader.pages
    assert [page.here[place] for place in page.bots] == [(key(2), "beep")]
    roster.leave(key(2), "beep")
    roster.enter(key(2), "beep")
    reader.catch_up(roster)
    assert reader.pages[-1] == Presence(here=[(key(2), "beep")])


def test_login_names_are_told_whichever_window_brings_them() -> None:
    roster, reader = Roster(), Reader()
    roster.enter(key(1), "ann")
    roster.enter(key(2), "bob", user="robert")
    reader.catch_up(roster)
    assert [(page.here[place], user) for page in reader.pages for place, user in page.users] == [
        ((key(2), "bob"), "robert")
    ]
    roster.enter(key(1), "ann", user="anna")  # from this machine now, too
    reader.catch_up(roster)
    assert reader.pages[-1] == Presence(here=[(key(1), "ann")], users=[(0, "anna")])
    roster.leave(key(2), "bob")
    roster.enter(key(2), "bob")  # from elsewhere: nobody knows whose that is
    reader.catch_up(roster)
    assert reader.pages[-1] == Presence(here=[(key(2), "bob")])


def test_the_longest_names_fit_into_a_page() -> None:
    roster, reader = Roster(), Reader()
    for number in range(100):
        roster.enter(key(number), "n" * 64, user="u" * MAX_LOGIN)
    reader.catch_up(roster)  # which checks the size of each page
    assert len(reader.here) == 100


def test_members_are_listed_in_the_order_in_which_they_came() -> None:
    roster = Roster()
    for number in (3, 1, 2):
        roster.enter(key(number), f"n{number}")
    assert list(roster.here) == [(key(3), "n3"), (key(1), "n1"), (key(2), "n2")]


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
    assert (len(roster.here), roster.version) == (1, version)  # nobody is told of the second window
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
    assert list(roster.here) == [(key(1), "ann")]


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
    assert roster.pages(0)[0] is roster.pages(0)[0]
    before = roster.pages(0)
    roster.enter(key(2), "bob")
    assert roster.pages(0) != before


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
    for number in range(999):
        roster.enter(key(number), f"n{number}")
    reader.take(roster)
    assert reader.pages[-1].more
    roster.leave(key(0), "n0")  # told already
    roster.leave(key(998), "n998")  # not yet
    roster.enter(key(1000), "n1000")
    reader.catch_up(roster)
    assert reader.here == set(roster.here)


def test_a_long_list_ends_although_people_come_and_go_all_the_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.roster.MAX_LISTED", 3000)
    monkeypatch.setattr("chat.core.roster._TOGETHER", 1)
    roster, reader = Roster(), Reader()
    for number in range(2000):
        roster.enter(key(number), f"n{number}")
    pass_by(roster, 2400)
    while not reader.pages or reader.pages[-1].more:
        reader.take(roster)
        pass_by(roster, 5)
        assert len(reader.pages) < 120
    assert [page.reset for page in reader.pages].count(True) == 2  # begun anew when those who left were forgotten
    reader.catch_up(roster)
    assert reader.here == set(roster.here)


def pass_by(roster: Roster, guests: int) -> None:
    """Each of them for the first time."""
    for number in range(roster.version, roster.version + guests):
        roster.enter(key(5000 + number), "guest")
        roster.leave(key(5000 + number), "guest")


def test_while_it_is_held_nobody_hears_of_anybody() -> None:
    roster, reader, newcomer = Roster(), Reader(), Reader()
    roster.enter(key(1), "ann")
    reader.catch_up(roster)
    roster.hold()
    assert roster.due == roster.version  # nothing waits
    roster.enter(key(2), "bob")
    roster.enter(key(3), "passing")
    roster.leave(key(3), "passing")
    roster.leave(key(1), "ann")
    assert roster.due > roster.version
    newcomer.catch_up(roster)
    reader.catch_up(roster)
    assert len(reader.pages) == 1
    due = roster.due
    assert roster.release()
    assert roster.version >= due
    for one in (reader, newcomer):
        one.catch_up(roster)
        assert one.pages[-1].here == [(key(2), "bob")]
        assert one.here == {(key(2), "bob")}
    assert not roster.release()  # nothing has changed since
    roster.enter(key(4), "cid")  # at once again
    reader.catch_up(roster)
    assert reader.here == {(key(2), "bob"), (key(4), "cid")}


def test_of_very_many_the_first_are_listed_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.core.roster.MAX_LISTED", 3)
    roster, reader, late = Roster(), Reader(), Reader()
    for number in range(6):
        roster.enter(key(number), f"n{number}", bot=number == 5)
        reader.catch_up(roster)
    late.catch_up(roster)
    for one in (reader, late):
        assert one.here == {(key(number), f"n{number}") for number in (0, 1, 2, 5)}  # the last is a program
        assert one.others == 2
    roster.leave(key(1), "n1")  # whoever came next takes the place
    reader.catch_up(roster)
    assert ({number for number, _nick in reader.here}, reader.others) == ({key(0), key(2), key(3), key(5)}, 1)
    roster.leave(key(4), "n4")  # of whom nobody has heard
    reader.catch_up(roster)
    assert (len(reader.here), reader.others) == (4, 0)
    roster.enter(key(1), "n1")  # there is no place for it now
    reader.catch_up(roster)
    assert ({number for number, _nick in reader.here}, reader.others) == ({key(0), key(2), key(3), key(5)}, 1)


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
    assert reader.here == set(roster.here)
    assert reader.pages[1].reset


def test_those_who_left_are_forgotten_in_the_end() -> None:
    roster = Roster()
    roster.enter(key(0), "ann")
    for number in range(1, 20_000):
        roster.enter(key(number), "passing")
        roster.leave(key(number), "passing")
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
        assert reader.here == set(roster.here)
    assert set(roster.here) == {*windows, *((key(100 + number), f"n{number}") for number in range(crowd))}


# -- slots ----------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 2**64 - 1)
STATES = st.builds(
    Status,
    level=st.sampled_from(Level),
    note=st.text(st.characters(exclude_categories=["Cs"]), max_size=28),  # 28 characters of 4 bytes and 2 columns
    typing=st.booleans(),
    read=NUMBERS,
    active=st.integers(0, YEAR_9999 - 1),
)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["a", "小明Tom", "x" * 32, "한" * 16]), STATES)
def test_a_cell_is_read_as_it_was_written(key: bytes, nick: str, state: Status) -> None:
    slot = pack_slot(key, nick, state)
    assert len(slot) <= MAX_SLOT
    assert unpack_slot(slot) == ((key, nick), state)


def test_a_cell_byte_by_byte() -> None:
    state = Status(Level.BUSY, "lunch", typing=True, read=258, active=2**40)
    expected = b"k" * 32 + b"\x01\x02\x01" + bytes(5) + b"\0\0\0\0\0\0\x01\x02" + b"\0\0\x01\0\0\0\0\0"
    expected += b"ann".ljust(64, b"\0") + b"lunch"
    assert pack_slot(b"k" * 32, "ann", state) == expected


def test_the_longest_state_fits_into_a_cell() -> None:
    assert len(pack_slot(key(1), "ann", Status(note="漢" * 30))) == 120 + 90
    assert len(pack_slot(key(1), "ann", Status(note="e" + "\u0301" * 56))) == 120 + 113 == MAX_SLOT - 1
    assert 120 + MAX_NOTE_BYTES == MAX_SLOT


@pytest.mark.parametrize(
    ("who", "nick", "state", "told"),
    [
        (b"k" * 31, "ann", Status(), "a key has 32 bytes, not 31"),
        (b"k" * 32, "", Status(), "the nickname is empty"),
        (b"k" * 32, "\uff41", Status(), "is not in NFKC"),
        (b"k" * 32, "ann", Status(note="x" * 61), "at most 60 columns and 114 bytes"),
        (b"k" * 32, "ann", Status(note="漢" * 31), "at most 60 columns and 114 bytes"),
        (b"k" * 32, "ann", Status(note="e" + "\u0301" * 57), "at most 60 columns and 114 bytes"),
        (b"k" * 32, "ann", Status(note="\ud800"), "surrogates not allowed"),
        (b"k" * 32, "ann", Status(read=-1), "does not fit into 64 bits"),
        (b"k" * 32, "ann", Status(active=YEAR_9999), "is in no year of ours"),
    ],
)
def test_what_does_not_fit_is_not_written(who: bytes, nick: str, state: Status, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pack_slot(who, nick, state)


def test_a_time_that_breaks_calendars_is_no_state() -> None:
    slot = bytearray(pack_slot(key(1), "ann", Status(active=YEAR_9999 - 1)))
    assert unpack_slot(bytes(slot)) is not None
    slot[48:56] = YEAR_9999.to_bytes(8, "big")
    assert unpack_slot(bytes(slot)) is None


SLOT = pack_slot(b"k" * 32, "ann", Status(note="lunch"))


def test_what_is_too_large_for_a_slot_is_not_kept() -> None:
    held = status._unpack_slot.cache_info().currsize
    assert unpack_slot(bytes(60_000)) is None
    assert status._unpack_slot.cache_info().currsize == held


@pytest.mark.parametrize(
    "slot",
    {
        "empty": b"",
        "short": SLOT[:119],
        "long": SLOT[:120] + b"x" * 115,
        "wide": SLOT[:120] + b"x" * 61,
        "another layout": SLOT[:32] + b"\x02" + SLOT[33:],
        "level 0": SLOT[:33] + b"\0" + SLOT[34:],
        "level 4": SLOT[:33] + b"\x04" + SLOT[34:],
        "no nickname": SLOT[:56] + bytes(64),
        "nickname of an escape": SLOT[:56] + b"\x1b[2J".ljust(64, b"\0"),
        "nickname not in NFKC": SLOT[:56] + "\uff41".encode().ljust(64, b"\0"),
        "nickname with a hole": SLOT[:56] + b"a\0b".ljust(64, b"\0"),
        "nickname of no text": SLOT[:56] + b"\xff".ljust(64, b"\0"),
        "note of no text": SLOT[:120] + b"\xff",
        "note cut in a character": SLOT[:120] + "漢".encode()[:2],
    }.items(),
    ids=lambda slot: slot[0],
)
def test_what_is_no_state_is_nobody(slot: tuple[str, bytes]) -> None:
    assert unpack_slot(slot[1]) is None
    assert seen([(0, slot[1], 0)]) == {}


@given(st.binary(max_size=MAX_SLOT))
def test_junk_is_nobody_or_a_state_that_can_be_written(junk: bytes) -> None:
    found = unpack_slot(junk)
    if found is not None:
        who, state = found
        pack_slot(*who, state)


@given(st.integers(0, len(SLOT) - 1), st.integers(0, 255))
def test_a_changed_byte_is_no_error(at: int, byte: int) -> None:
    unpack_slot(SLOT[:at] + bytes([byte]) + SLOT[at + 1 :])


def test_unknown_flags_are_ignored() -> None:
    assert unpack_slot(SLOT[:34] + b"\xfe" + SLOT[35:]) == unpack_slot(SLOT)


def test_several_windows_of_one_show_once_and_the_most_present_wins() -> None:
    at_work = Status(Level.BUSY, "in a call", typing=False, read=9, active=5)
    at_home = Status(Level.AWAY, "gone", typing=True, read=4, active=7)
    silent = Status(Level.ONLINE, "", typing=False, read=1, active=6)
    windows = [pack_slot(key(1), "ann", state) for state in (at_work, at_home, silent)]
    bob = pack_slot(key(2), "bob", Status())
    due = {(key(1), "ann"): Status(Level.ONLINE, "in a call", typing=True, read=9, active=7), (key(2), "bob"): Status()}
    readings = [(index, slot, 0) for index, slot in enumerate([*windows, bob])]
    assert seen(readings) == due
    assert seen(reversed(readings)) == due


def test_two_nicknames_of_one_key_are_two() -> None:
    slots = [pack_slot(key(1), nick, Status()) for nick in ("ann", "ann-at-home")]
    assert set(seen((0, slot, 0) for slot in slots)) == {(key(1), "ann"), (key(1), "ann-at-home")}


def test_a_window_that_does_not_beat_is_not_present() -> None:
    assert seen([(0, SLOT, STALE_MS)]) == {}
    assert len(seen([(0, SLOT, STALE_MS - 1)])) == 1
