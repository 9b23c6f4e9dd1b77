"""How the entries of a timeline look: messages and what became of them, grouped, by days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from chat.core.bodies import Author
from chat.core.events import Message
from chat.core.wire import Kind
from chat.i18n import use
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.pane import Pane
from chat.ui.invites import qr_code
from chat.ui.timeline import Timeline
from tests.ui.fullscreen.test_pane import ANN, BOB, DAY, MINUTE, message, rows, style_of, talk, view


def goes_on(timeline: Timeline, number: int) -> bool:
    return not Conversation(timeline).line(number).head


def day(timeline: Timeline, number: int) -> str | None:
    return next(
        (text for style, text, *_more in Conversation(timeline).line(number).above if style == "class:day"), None
    )


# -- how items look -----------------------------------------------------------------------------------


def test_a_conversation_as_it_is_read() -> None:
    timeline, pane = talk(
        message(1, "hello", at=0),
        message(2, "are you **there**?", at=MINUTE - 1),
        message(3, "yes", key=ANN, target=2, at=MINUTE),
        message(4, "waves", kind=Kind.ACTION, at=DAY),
        message(5, "what", kind=9, at=DAY),
    )
    timeline.note("link lost", DAY)
    timeline.presence([(b"c", "cid"), (b"d", "dan")], [(b"e", "eve")], DAY)
    timeline.add_pending(object(), Kind.SAY, "hm", 0, DAY)
    assert view(pane, 80, 11) == [
        f"{'Thursday, 1 January 1970':^80}".rstrip(),
        " 00:00    bob │ hello",
        "              │ are you there?",
        " 00:01    ann │ ▎bob: are you **there**?",
        "              │ yes ✓",
        f"{'Friday, 2 January 1970':^80}".rstrip(),
        " 00:00      * │ bob waves",
        "            * │ bob sent something of kind 9, which this version cannot show",
        "       · link lost ·",
        "       · cid, dan joined · eve left ·",
        "          ann │ hm …",
    ]
    assert style_of(pane, "there", 80, 11) == "class:bold"


def test_a_qr_code_begins_in_the_first_column_light_on_dark() -> None:
    code = qr_code("chat://192.0.2.1:7711/lobby#x.y")
    timeline, pane = talk(message(1, "hello"))
    for row in code:
        timeline.note(row, MINUTE)
    assert view(pane, len(code[0]), len(code)) == [row.rstrip() for row in code]
    assert style_of(pane, code[0], len(code[0]), len(code)) == "#ffffff bg:#000000"


def test_what_becomes_of_messages_shows_in_place() -> None:
    timeline, pane = talk(message(1, "helo"), message(2, "oops"), message(3, "mine", key=ANN))
    view(pane)
    timeline.add(message(4, "hello", kind=Kind.EDIT, target=1))
    timeline.add(message(5, kind=Kind.RETRACT, target=2))
    for seq, (key, nick) in enumerate([(ANN, "ann"), (BOB, "bob"), (b"c", "cid"), (b"d", "dan")], 6):
        timeline.add(message(seq, "👍\ufe0f", key=key, nick=nick, kind=Kind.REACT, target=3))
    timeline.add(message(20, "❤", key=b"c", nick="cid", kind=Kind.REACT, target=3))
    timeline.add(message(21, "look", target=2))
    timeline.receipts = [3, 2]
    assert view(pane, height=7) == [
        f"{'Thursday, 1 January 1970':^60}".rstrip(),
        " 00:00    bob │ hello (edited)",
        "              │ taken back",
        "          ann │ mine ✓",
        "              │ [👍 4]  ❤ 1",
        "          bob │ ▎bob: taken back",
        "              │ look",
    ]
    timeline.receipts = [3, 3]
    assert "          ann │ mine ✓✓" in view(pane)
    assert style_of(pane, " ✓✓") == "class:receipt"
    timeline.receipts = []  # they have left
    assert "          ann │ mine ✓✓" in view(pane)
    assert (style_of(pane, "[👍 4]"), style_of(pane, "❤ 1")) == ("class:chip-own", "class:chip")


def test_only_the_last_message_of_the_reader_and_what_is_pending_have_a_receipt() -> None:
    timeline, pane = talk(message(1, "one", key=ANN), message(2, "two", key=ANN), message(3, "three"))
    sent = [object(), object()]
    for each, text in zip(sent, ("four", "five"), strict=True):
        timeline.add_pending(each, Kind.SAY, text, 0, 0)
    assert [row[16:] for row in view(pane, height=6)[1:]] == ["one", "two ✓", "three", "four …", "five …"]


def test_a_bot_is_labelled_where_no_width_cuts_the_label_off() -> None:
    timeline, pane = talk()
    author = Author(index=1, key=BOB, stream=1, nick="b" * 30, bot=True)
    timeline.add(Message(1, 0, author, Kind.SAY, "beep", 0, mine=False))
    assert view(pane, 60)[-1] == " 00:00 ⚙ bbbbbbbbb… │ beep"
    assert view(pane, 20)[-1] == "⚙ b…│ beep"


def test_what_is_addressed_to_the_reader_stands_out() -> None:
    _, pane = talk(message(1, "ann: look"), message(2, "*ann* has it", key=ANN))
    parts = [part[:2] for row in rows(pane) for part in row]
    assert ("class:mention", "ann") in parts
    assert ("class:italic", "ann") in parts  # by oneself


def test_a_crowd_is_counted() -> None:
    timeline, pane = talk()
    timeline.presence([(bytes([n]), f"n{n}") for n in range(150)], [], 0)
    assert view(pane, 100)[-1] == " 00:00 · n0, n1, n2, n3, n4, n5, n6, n7, 92 more joined · 50 more ·"


def test_the_time_may_be_left_out_and_goes_where_there_is_no_room() -> None:
    timeline, _ = talk(message(1, "hello"))
    assert view(Pane(Conversation(timeline, "")))[-1] == "    bob │ hello"
    assert view(Pane(Conversation(timeline, "%A, %d %B %Y")))[-1] == "    bob │ hello"
    assert view(Pane(Conversation(timeline)), 30)[-1] == "bob│ hello"


def test_markers_show_where_what_they_mean_cannot_be_seen() -> None:
    timeline, _ = talk(message(1, "**hello**\n> you\n```\ncode\n```"))
    assert view(Pane(Conversation(timeline), delimiters=True))[-5:] == [
        " 00:00    bob │ **hello**",
        "              │ > you",
        "              ├───────────",
        "              │ code",
        "              ╰───────────",
    ]
    assert view(Pane(Conversation(timeline)))[-5:-3] == [" 00:00    bob │ hello", "              │ ▌ you"]


def test_messages_of_one_author_are_grouped_within_a_minute() -> None:
    made, _ = talk(
        message(1, at=0),
        message(2, at=MINUTE - 1),
        message(3, at=MINUTE),
        message(4, key=b"c", at=MINUTE),
        message(5, key=b"c", at=MINUTE, target=1),  # an answer: its quote tells it from the one before
        message(6, key=b"c", at=MINUTE),
        message(7, key=b"c", kind=Kind.ACTION, at=MINUTE),
        message(8, key=b"c", at=MINUTE),
    )
    made.note("a note", MINUTE)
    made.add(message(9, key=b"c", at=MINUTE))
    made.presence([(b"d", "dan")], [], MINUTE)
    made.add(message(10, key=b"c", at=MINUTE))
    assert [number for number in range(made.end) if goes_on(made, number)] == [1, 4, 5]


@pytest.mark.parametrize("long", ["two\nlines", "word " * 50])
def test_a_group_ends_with_a_message_of_more_than_a_line(long: str) -> None:
    made, pane = talk(message(1, "short"), message(2, long), message(3, "after it"))
    assert [goes_on(made, number) for number in range(3)] == [False, True, False]
    assert view(pane)[-1] == "          bob │ after it"


def test_a_long_paste_is_folded_until_enter_shows_it_and_folded_again() -> None:
    paste = "\n".join(f"row {number}" for number in range(1, 201))
    _, pane = talk(message(1, "before"), message(2, paste), message(3, "mine", key=ANN))
    folded = [
        " 00:00    bob │ before",
        "              │ row 1",
        "              │ row 2",
        "              │ row 3",
        "              │ row 4",
        "              │ row 5",
        "              │ … 195 more · Enter",
        "          ann │ mine ✓",
    ]
    assert view(pane, height=8) == folded
    pane.unfold()
    assert view(pane, height=8) == [
        *folded[:6],
        "              │ row 6",
        "              │ row 7",
    ]  # what was above it stays
    pane.scroll_rows(1000)
    assert view(pane, height=8)[-2:] == ["              │ row 200", "          ann │ mine ✓"]
    pane.unfold()
    assert view(pane, height=8) == folded
    pane.unfold()
    pane.follow()
    assert view(pane, height=8) == folded


def test_what_fits_is_not_folded_and_what_is_pending_keeps_its_mark() -> None:
    timeline, pane = talk(message(1, "\n".join("abcdefghijkl")))
    assert view(pane, height=2)[-1] == "              │ l"
    timeline.add_pending(object(), Kind.SAY, "```\n" + "code\n" * 20 + "```", 0, MINUTE)
    assert view(pane, height=2)[-2:] == [" 00:01    ann │ code", "              │ … 17 more · Enter …"]
    pane.unfold()  # nothing to unfold that is stored
    assert pane.following


def test_a_group_ends_with_the_day_and_at_the_unread_marker() -> None:
    made, _ = talk(message(1, at=DAY - MINUTE), message(2, at=DAY), message(3, at=DAY))
    assert [goes_on(made, number) for number in range(3)] == [False, False, True]
    assert [day(made, number) for number in range(3)] == ["Thursday, 1 January 1970", "Friday, 2 January 1970", None]
    made.read_state.mark_read(2)
    made.read_state.place_marker()
    assert (made.read_state.marker, goes_on(made, 2)) == (2, False)


def test_days_begin_in_the_readers_zone() -> None:
    made = Timeline(ANN, "ann", timezone(timedelta(hours=8)))
    made.add(message(1, at=16 * 60 * MINUTE - 1))
    made.add(message(2, at=16 * 60 * MINUTE))
    assert [day(made, number) for number in range(2)] == ["Thursday, 1 January 1970", "Friday, 2 January 1970"]


def test_days_are_written_as_people_do_in_each_language_and_shorter_where_there_is_less_room() -> None:
    timeline, _ = talk(message(1, at=3 * DAY))
    this_year = date.today().year  # noqa: DTZ011 - it is years away from the messages
    assert view(Pane(Conversation(timeline)), 60)[-2].strip() == "Sunday, 4 January 1970"
    assert view(Pane(Conversation(timeline)), 20)[-2].strip() == "4 January 1970"
    timeline, _ = talk(message(1, at=int(datetime(this_year, 12, 31, 12, tzinfo=UTC).timestamp() * 1000)))
    assert view(Pane(Conversation(timeline)), 60)[-2].strip() == f"{date(this_year, 12, 31):%A}, 31 December"
    use("zh")
    try:
        assert view(Pane(Conversation(timeline)), 60)[-2].strip().startswith("12月31日 星期")
    finally:
        use("en")


def test_a_quote_is_one_row_without_the_fences_of_code() -> None:
    _, pane = talk(message(1, "see\n```python\nkettle()\n```"), message(2, "yes", target=1))
    assert view(pane)[-2] == "          bob │ ▎bob: see kettle()"


def test_the_column_of_names_grows_with_what_is_in_view_and_never_with_what_is_below_it() -> None:
    timeline, pane = talk(*(message(n, key=bytes([n % 2]) * 32, nick=f"n{n % 2}") for n in range(1, 30)))
    assert view(pane, height=4)[-1] == "           n1 │ text 29"
    pane.scroll(-2)
    before = view(pane, height=4)
    timeline.add(message(30, key=b"c", nick="long-name"))
    assert view(pane, height=4) == before
    pane.follow()
    assert view(pane, height=4)[-2:] == ["              n1 │ text 29", "       long-name │ text 30"]
    pane.scroll(-2)
    assert view(pane, height=4)[-1] == "              n0 │ text 24"
