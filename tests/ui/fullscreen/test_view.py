"""What happens in a room is shown: messages, who comes and goes, the link, and who is ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat.client.events import Lost, Up
from chat.core.bodies import Gap, Notice, Rewind
from chat.core.errors import Text
from chat.core.events import Here, Rejected, Rewound, Stored
from chat.core.outgoing import OutboxEntry, Outgoing
from chat.core.wire import REPLY, Kind
from chat.local.identity import fingerprint
from chat.local.settings import Settings
from chat.transport import Address
from chat.ui.fullscreen import view as view_module
from chat.ui.fullscreen.view import View
from tests.ui.fullscreen.stage import BOB, IN, Blind, Ringing, Room, Script, Stage, joined, lines, message, run, staged

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.events import ClientEvent


def test_what_is_said_without_a_link_is_pending_and_then_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            await room.close()
            await stage.until("link lost: ", "coming back", " no link ")
            stage.type("first\r")
            stage.type("second\r")
            await stage.until("second …", "2 unsent")
            assert stage.said("…") == ["ann │ first …", "│ second …"]
            await room.open()
            await stage.until("back over memory:face", "second ✓", gone="unsent")
            assert [stage.said("│ first"), stage.said("✓")[-1:]] == [["ann │ first"], ["│ second ✓"]]

    run(story())


def test_without_a_link_nothing_old_is_shown_as_present(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Room(tmp_path) as room,
            room.member("bob"),
            room.member("ann") as ann,
            staged(ann, Blind(80, 24)) as stage,
        ):
            stage.type("hello\r")
            await stage.until("hello ✓", "2 here", "│ ● bob")
            assert (stage.rows()[0][:9], style_of(stage, 1)) == (" ● #lobby", "class:dot-ok")
            await room.close()
            await stage.until("link lost: ", "│ ? bob")
            assert re.fullmatch(r" ○ #lobby  no link since \d\d:\d\d +ann", stage.rows()[0])
            assert (style_of(stage, 1), style_of(stage, 11)) == ("class:dot-lost", "class:lost")
            await room.open()
            await stage.until("│ ● bob", " ● #lobby", "2 here")
            assert style_of(stage, 1) == "class:dot-ok"

    def style_of(stage: Stage, column: int) -> str:
        screen = stage.face.app.renderer.last_rendered_screen
        assert screen is not None
        return screen.data_buffer[0][column].style.split()[0]

    run(story())


def test_what_an_earlier_process_left_is_shown_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room:
            async with room.member("ann") as before:
                await room.close()
                await before.say("left behind")
            await room.open()
            async with room.member("ann") as ann, staged(ann) as stage:
                await stage.until("left behind ✓")
                assert len(stage.said("left behind")) == 1

    run(story())


def test_what_the_host_rejects_goes_back_into_the_input() -> None:
    async def story() -> None:
        script = Script()
        waiting = [OutboxEntry(n, Kind.SAY, 0, Outgoing(text).body) for n, text in enumerate(("one", "two"), 1)]
        script.session.unsettled.extend(waiting)
        async with staged(script.client) as stage:
            await stage.until("one …", "two …")
            script.happen(*(Rejected(entry, "muted", Text("you are muted")) for entry in waiting))
            await stage.until("not sent: you are muted", "> one", gone="…")
            assert stage.face.input.text == "one\ntwo"

    run(story())


def test_what_the_host_rejects_means_the_same_when_it_is_sent_again() -> None:
    def rejected(kind: int, text: str, target: int = 0) -> Rejected:
        flags = REPLY if target and kind == Kind.SAY else 0
        return Rejected(OutboxEntry(1, kind, flags, Outgoing(text, target=target).body), "muted", Text("you are muted"))

    async def story() -> None:
        for event, typed in (
            (rejected(Kind.SAY, "/peer x"), "//peer x"),
            (rejected(Kind.ACTION, "waves"), "/me waves"),
            (rejected(Kind.SAY, "answer", 5), ""),
            (rejected(Kind.EDIT, "correction", 5), ""),
            (rejected(Kind.REACT, "👍", 5), ""),
            (rejected(Kind.RETRACT, "", 5), ""),
        ):
            script = Script()
            async with staged(script.client) as stage:
                script.happen(event)
                await stage.until("not sent: you are muted")
                assert stage.face.input.text == typed

    run(story())


def test_what_the_host_rejects_leaves_what_is_being_typed_alone() -> None:
    async def story() -> None:
        script = Script()
        async with staged(script.client) as stage:
            stage.type("since")
            await stage.until("> since")
            entry = OutboxEntry(1, Kind.SAY, 0, Outgoing("/quit").body)
            script.happen(Rejected(entry, "muted", Text("you are muted")))
            await stage.until("not sent: you are muted: /quit")
            assert stage.face.input.text == "since"
            stage.type("\x03")  # clear it; Up goes back through both
            await stage.until(gone="> since")
            stage.type("\x1b[A\x1b[A")
            await stage.until("> //quit")

    run(story())


def test_what_is_stored_and_will_not_be_echoed_is_shown_as_stored() -> None:
    async def story() -> None:
        script = Script()
        waiting = [OutboxEntry(n, Kind.SAY, 0, Outgoing(text).body) for n, text in enumerate(("one", "two"), 1)]
        script.session.unsettled.extend(waiting)
        async with staged(script.client) as stage:
            await stage.until("one …", "two …")
            script.happen(Stored(waiting[0], 0), message(5, "two", nick="ann"), Stored(waiting[1], 5))
            await stage.until("two ✓", gone="…")
            assert len(stage.said("one")) == len(stage.said("two")) == 1
            # And where another process of ours said it before this face began:
            script.happen(Stored(OutboxEntry(3, Kind.SAY, REPLY, Outgoing("three", target=5).body), 0))
            await stage.until("▎ann: two", "three ✓")
            # Numbers begin anew in another log: 5 is not what was shown as 5.
            script.happen(
                Rewound(Rewind(code="another-log")), Stored(OutboxEntry(4, Kind.SAY, 0, Outgoing("four").body), 5)
            )
            await stage.until("four ✓")

    run(story())


def test_who_comes_and_who_goes(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            async with room.member("bob"):
                await stage.until("· bob joined ·", " 2 here")
                assert [row.rpartition("│")[2][:6] for row in stage.rows()[2:5]] == [" HERE ", " ● ann", " ● bob"]
            await stage.until("· bob joined and left ·", " 1 here")
            assert not stage.said("ann joined")  # who was here first did not come
            assert [row.rpartition("│")[2][:6] for row in stage.rows()[2:5]] == [" HERE ", " ● ann", ""]

    run(story())


def test_every_kind_of_event_is_told_in_words() -> None:
    told = [
        (message(1, "hello"), "小明 │ hallo (edited)"),
        (message(2, "waves", kind=Kind.ACTION), "* │ 小明 waves"),
        (message(3, "yes", target=1, nick="ann"), "yes"),
        (message(4, "hallo", kind=Kind.EDIT, target=1), "hallo"),
        (message(5, "oh", nick="ann"), "taken back"),
        (message(6, "", kind=Kind.RETRACT, target=5, nick="ann"), "taken back"),
        (message(7, "👍", kind=Kind.REACT, target=3), "👍 1"),
        (message(8, "?", kind=9), "* │ 小明 sent something of kind 9, which this version cannot show"),
        (message(9, "no", target=999), "▎number 999"),
    ]
    others: dict[str, ClientEvent] = {
        "· 1 message is gone for good": Gap(first=1, count=1),
        "· 5 messages are gone for good": Gap(first=1, count=5),
        "· the host's disk is full; your messages wait until it has space": Notice(code="disk-full"),
        "· the log went back; what follows begins anew": Rewound(Rewind(code="new", text="the log went back")),
        "· link lost: reset by peer; coming back": Lost("reset by peer"),
        "· back over tcp:1.2.3.4:5": Up(Address("tcp", "1.2.3.4:5")),
        "· carla joined ·": Here([(b"c", "carla")], [], first=False),
    }

    async def story() -> None:
        script = Script(*(event for event, _ in told), *others.values())
        async with staged(script.client, Blind(120, 40)) as stage:
            await stage.until(*(words for _, words in told), *others)

    run(story())


def test_the_greeting_comes_below_the_past_whatever_comes_first() -> None:
    async def story() -> None:
        script, screen = Script(), Ringing(80, 24)
        script.session.next_seq = 1
        script.happen(joined(3), IN)
        async with staged(script.client, screen) as stage:
            await stage.until("catching up", gone="Enter sends")
            script.session.next_seq = 3
            script.happen(message(1, "line 1"), message(2, "ann: line 2"))
            await stage.until("line 2", "Enter sends")
            rows = stage.said("")
            assert next(row for row in rows if "line 2" in row or "Enter" in row).endswith("line 2")
            assert not screen.bells  # it was said before she came

    run(story())


def test_the_lag_is_the_links_and_not_that_of_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000, 100_000, 1_000))
    monkeypatch.setattr(view_module, "now", lambda: next(clock))
    view = View(Script().client, Settings())

    def say(number: int) -> OutboxEntry:
        entry = OutboxEntry(number, Kind.SAY, 0, Outgoing("hi").body)
        view.add_pending(entry)
        return entry

    view.take(Stored(say(1), 5))
    (lag,) = {view.lag} - {0}
    view.take(Lost("the wire was cut"))
    late = say(2)
    view.take(Up(Address("memory", "script")))
    view.take(Stored(late, 6))
    assert view.lag == lag


@pytest.mark.parametrize("who", ["小明", fingerprint(BOB), fingerprint(BOB)[7:15]])
def test_who_was_ignored_in_an_earlier_window_is_heard_again(tmp_path: Path, who: str) -> None:
    file = tmp_path / "config.toml"
    other = fingerprint(b"e" * 32)

    async def story() -> None:
        script = Script(IN, message(1, "one"), message(2, "of mine", nick="ann"))
        ignored = Settings(ignore=(other, fingerprint(BOB)))
        async with staged(script.client, settings=ignored, file=file) as stage:
            await stage.until("of mine", gone="小明 │ one")
            stage.type("/ignore\r")
            await stage.until(f"?  {other}", f"小明  {fingerprint(BOB)}")
            stage.type(f"\x1b/unignore {who}\r")
            await stage.until("小明 │ one", "messages by 小明 are shown again")
            script.happen(message(3, "two"))
            await stage.until("two")
            assert f'ignore = ["{other}"]' in file.read_text()

    run(story())


def test_who_is_ignored_and_who_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        script = Script(IN, message(1, "one"))
        async with staged(script.client, Blind(120, 40), file=tmp_path / "config.toml") as stage:
            for typed, told in (
                ("/ignore", "you ignore nobody; /ignore NICK hides what somebody says"),
                ("/unignore 小明", "小明 is not ignored; /ignore lists who is"),
                ("/ignore ann", "this is you; "),
                ("/ignore 小明", "messages by 小明 are hidden from now on; /unignore 小明 shows them again"),
                ("/ignore eve", "there is nobody called eve here; /who lists those who are"),
            ):
                stage.type("\x15" + typed + "\r")
                await stage.until(told)
            assert not stage.said("小明 │ one")

    run(story())


def test_what_is_said_before_we_know_who_is_here_is_new_all_the_same() -> None:
    async def story() -> None:
        script = Script()
        script.session.next_seq = 3
        script.happen(joined(3), *lines(1, 2))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 2")
            script.session.next_seq = 5
            script.happen(*lines(3, 4), IN)
            await stage.until("line 4", " 2 new ")

    run(story())
