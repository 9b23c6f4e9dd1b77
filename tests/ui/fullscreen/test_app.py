"""The full-screen face: on a screen without a terminal, on a terminal made of slots, and on a real pty."""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pyte
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from chat.client.events import Lost
from chat.core import status
from chat.core.errors import LinkBroken, Refused, reason
from chat.core.session import Here, Rewound
from chat.core.wire import Gap, Kind, Notice, Rewind
from chat.i18n import use
from chat.local.identity import fingerprint
from chat.local.rooms import RoomLock, RoomRecord
from chat.local.settings import Settings
from chat.ui.fullscreen import face as face_module
from chat.ui.fullscreen.face import FullScreen
from chat.ui.fullscreen.wrapping import columns
from chat.ui.theme import roles_of
from tests.ui.fullscreen.stage import (
    BOB,
    IN,
    Blind,
    Ringing,
    Room,
    Script,
    hear,
    lines,
    message,
    run,
    staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.client.events import ClientEvent

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ROOT = Path(__file__).parents[3]


# -- saying -------------------------------------------------------------------------------------------


def test_what_is_said_goes_out_and_is_shown_once_with_the_mark_of_the_disk(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob, room.member("ann") as ann, staged(ann) as stage:
            stage.type("你好 everybody\r")
            await stage.until("你好 everybody ✓")
            assert (await hear(bob, "你好 everybody")).author.nick == "ann"
            assert [row[6:] for row in stage.said("everybody")] == ["ann  你好 everybody ✓"]
            await bob.say("hello ann")
            await stage.until("bob  hello ann")
            assert [row[6:] for row in stage.said("hello ann")] == ["bob  hello ann"]

    run(story())


@pytest.mark.parametrize(
    ("typed", "heard", "kind"),
    [
        ("/me waves\r", "waves", Kind.ACTION),
        ("//etc/hosts\r", "/etc/hosts", Kind.SAY),
        ("one\x1b\rtwo\nthree\r", "one\ntwo\nthree", Kind.SAY),
        ("\n \n  one\n\ntwo\n\n\r", "  one\n\ntwo", Kind.SAY),
        ("  //etc/hosts\r", "/etc/hosts", Kind.SAY),
        ("  /me waves\r", "waves", Kind.ACTION),
        (FAMILY + "\r", FAMILY, Kind.SAY),
    ],
    ids=["action", "slash", "lines", "blank lines", "slash behind blanks", "action behind blanks", "family"],
)
def test_what_is_typed_is_what_is_said(tmp_path: Path, typed: str, heard: str, kind: int) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob, room.member("ann") as ann, staged(ann) as stage:
            stage.type(typed)
            assert (await hear(bob, heard)).kind == kind

    run(story())


def test_a_paste_sends_nothing_until_enter(tmp_path: Path) -> None:
    async def story() -> None:
        pasted = "\n".join(f"line {n}" for n in range(200))
        async with Room(tmp_path) as room, room.member("bob") as bob, room.member("ann") as ann, staged(ann) as stage:
            stage.type("\x1b[200~" + pasted.replace("\n", "\r") + "\x1b[201~")
            await stage.until("Enter puts it into the input, Escape drops it: 200 lines are pasted")
            assert stage.face.input.text == ""
            stage.type("\r")
            await stage.until("line 199")
            assert stage.face.input.text == pasted
            assert not ann.session.unsettled
            stage.type("\r")
            await hear(bob, pasted)  # as one message
            assert stage.face.input.text == ""

    run(story())


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("/qit", "/qit is no command and was not sent; did you mean /quit?"),
        ("/usr/bin/env", "/usr/bin/env is no command and was not sent; see /help"),
        ("/me", "/me needs something behind it:"),
    ],
)
def test_what_cannot_be_sent_is_told_and_stays_in_the_input(typed: str, answer: str) -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type(f"\x1b[200~{typed}\x1b[201~\r")
            await stage.until(answer)
            assert stage.face.input.text == typed

    run(story())


def test_what_the_outbox_does_not_take_is_back_in_the_input(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room:
            reader = room.member("ann")
            reader._outboxes = None
            async with reader, staged(reader) as stage:
                stage.type("hello\rand more")
                await stage.until("this client only reads", "and more")
                assert stage.face.input.text == "hello\nand more"

    run(story())


def test_commands_that_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob"), room.member("ann") as ann, staged(ann) as stage:
            stage.type("/who\r")
            await stage.until("-- here: ann, bob")
            stage.type("/help\r")
            await stage.until("/help [COMMAND]", "what you can type")
            assert stage.face.input.text == ""
            stage.type("\x1b[A\x1b[A")  # up, up
            await stage.until("> /who")

    run(story())


@pytest.mark.parametrize("leave", ["/quit\r", "\x03", "\x04"])
def test_leaving(leave: str) -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type("xy\x01\x04")  # to the line's start; Ctrl-D in a line that is not empty deletes
            await stage.until("> y")
            stage.type("\x08\x1b[3~" + leave)
            await stage.task

    run(story())


def test_a_command_that_follows_escape_at_once_keeps_its_slash() -> None:
    """A terminal sends the same for Alt+/, which prompt_toolkit binds."""

    async def story() -> None:
        script = Script(IN, message(1, "before"))
        async with staged(script.client) as stage:
            stage.type("\x1b[1;3A\x1br")
            await stage.until("answering 小明: before")
            stage.type("\x1b/who\r")
            await stage.until("-- here: ann", gone="answering")
            stage.type("\x1b#1 \x1b--\x1b*a\x1b. two words")
            await stage.until("> #1 --*a. two words")
            stage.type("\x1bb\x1bb\x1bd")  # the Emacs keys that are letters
            await stage.until("> #1 --*a.  words")
            stage.type("\x1b[200~" + "x\n" * 30 + "\x1b[201~")
            await stage.until("30 lines are pasted")
            stage.type("\x1b/")
            await stage.until("> #1 --*a. / words", gone="pasted")

    run(story())


def test_ctrl_c_clears_what_is_typed_and_leaves_where_there_is_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        folder = tmp_path / "typed"
        async with staged(Script().client, history=folder) as stage:
            stage.type("a secret")
            await stage.until("> a secret")
            stage.type("\x03")
            await stage.until(">", gone="secret")
            stage.type("\x1b[A")
            await stage.until("> a secret")
            assert not list(folder.iterdir())  # it was not said
            stage.type("\x03\x03")
            await stage.task

    run(story())


def test_ctrl_c_ends_a_correction_and_leaves_what_was_typed_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("said before\r")
            await stage.until("said before ✓")
            stage.type("half")
            await stage.until("> half")
            stage.type("\x1be")
            await stage.until("correcting ann")
            stage.type("\x03")
            await stage.until("> half", gone="correcting")

    run(story())


@pytest.mark.parametrize("leave", ["/quit\r", "\x03", "\x04"])
def test_who_hosts_is_asked_before_the_room_closes_for_others(leave: str) -> None:
    async def story() -> None:
        script = Script()
        async with staged(script.client, hosts=True) as stage:
            stage.type(leave)
            await stage.until("others are here, and the room closes when you leave; do it again to leave")
            stage.type(leave)
            await stage.task
        script.session.here[BOB, "小明"] = True  # a program of hers
        async with staged(script.client, hosts=True) as stage:
            stage.type(leave)
            await stage.task

    run(story())


def test_rooms_are_offered_by_some_letters_of_their_names() -> None:
    async def story() -> None:
        garden = Script(room="garden")
        async with staged(Script(IN, *lines(1, 3)).client, opener=lambda _target: garden.client) as stage:
            await stage.until("line 3")
            stage.type("/join garden\r")
            await stage.until("#garden as ann")
            stage.type("\x0b")
            await stage.until("#lobby  ", "#garden  ")
            stage.type("gd")
            await stage.until("#garden  ", gone="#lobby  ")
            stage.type("\t\r")
            await stage.until("#garden as ann", gone="> /room")

    run(story())


def test_the_rooms_of_the_window_and_of_the_machine_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "runtime"))

    async def story() -> None:
        script = Script(IN)
        async with staged(script.client) as stage:
            stage.type("/join\r")
            await stage.until("no room is open on this machine; open one with: chat host", gone="in this window")
            for room in ("tea", "dev"):
                RoomLock.hold(room).write(RoomRecord(room=room, addresses=[], host="", invite="", pid=1, started=1))
            stage.type("/rooms\r")
            await stage.until("in this window: 1 #lobby", "open on this machine: dev, tea; /join NAME enters one")
            stage.type("/join t")
            await stage.until("> /join t")
            stage.type("\t")
            await stage.until("> /join tea")
            (tmp_path / "runtime").chmod(0o755)  # others may look into it, so it is not trusted
            stage.type("\x15/rooms\r")
            await stage.until("no room is open on this machine", "in this window: 1 #lobby")

    run(story())


def test_an_answer_that_is_no_emoji_is_not_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("said\r")
            await stage.until("said ✓")
            stage.type("/react yes\r")
            await stage.until("“yes” is no emoji; did you mean :")
            assert not ann.session.unsettled
            stage.type("/react :tada:\r")
            await stage.until("🎉 ann")

    run(story())


def test_the_end_of_the_input_is_leaving_too() -> None:
    async def story() -> None:
        with create_pipe_input() as keys, create_app_session(input=keys, output=Blind()):
            face = FullScreen(Script().client)
            face.app.after_render += lambda _: keys.close()
            await face.run()

    run(story())


def test_what_one_is_written_alone_waits_in_a_room_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            async with room.member("ann", looks=True) as ann, staged(ann) as stage:
                async with bob.direct(ann.session.key) as to_ann:
                    await to_ann.say("psst")
                    await stage.until("bob has written to you alone; /msg bob shows it", "2:@bob 1!", gone="psst")
                    stage.type("\x1b2")
                    await stage.until("the host's owner could read it", "bob  psst", gone="2:@bob")
                    said = [row[6:] for row in stage.said("") if row and "──" not in row]
                    assert said == ["-- this is for bob and you; the host's owner could read it, too", "bob  psst"]
                    assert stage.rows()[0] == " @bob as ann · the host's owner can read this · over memory:face"
                    await stage.comes_to(lambda: stage.face.view.client.shows.read > 0)
                stage.type("/part\r")
                await stage.until("has written to you alone")
            async with room.member("ann") as ann, staged(ann) as stage:
                await stage.until("bob and you have a room for the two of you", gone="@bob")

    run(story())


def test_so_many_rooms_open_by_themselves_and_none_of_who_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.ui.fullscreen.face._CALLED", 1)

    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob, room.member("cid") as cid:
            ignoring = Settings(ignore=(fingerprint(room.member("dan").session.key),))
            async with (
                room.member("dan") as dan,
                room.member("ann") as ann,
                staged(ann, settings=ignoring) as stage,
            ):
                for nick, one in {"dan": dan, "bob": bob, "cid": cid}.items():
                    async with one.direct(ann.session.key) as to_ann:
                        await to_ann.say(f"psst from {nick}")
                        await to_ann.settled()
                await stage.until("cid has written to you alone", "2:@bob 1!", gone="dan has written")
                assert [view.name for view in stage.face.controller.rooms] == ["#lobby", "@bob"]

    run(story())


def test_who_presses_no_key_is_away_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.ui.fullscreen.face._LOOK", 0.01)

    async def story() -> None:
        script = Script()
        async with staged(script.client, settings=Settings(away_minutes=1)) as stage:
            stage.type("x")
            await stage.until("> x")
            pressed = stage.face.controller.active
            stage.face._touched -= 61  # and then for a minute nothing
            await stage.comes_to(lambda: script.shows.level == status.Level.AWAY)
            assert script.shows.active == pressed
            stage.type("y")
            await stage.comes_to(lambda: script.shows.level == status.Level.ONLINE)
            assert script.shows.active > pressed

    run(story())


def test_what_is_begun_in_a_room_is_not_done_in_another(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Room(tmp_path) as room,
            room.member("bob") as bob,
            room.member("ann", looks=True) as ann,
            bob.direct(ann.session.key) as to_ann,
            staged(ann) as stage,
        ):
            await to_ann.say("psst")
            await stage.until("2:@bob 1!")
            stage.type("my own words\r")
            await stage.until("my own words ✓")
            stage.type("a draft\x1be")
            await stage.until("correcting ann: my own words", "> my own words")
            stage.type("\x1b2")
            await stage.until("bob  psst", gone="correcting")
            stage.type("\x1br")
            await stage.until("answering bob: psst")
            stage.type("/part\r")
            await stage.until("> a draft", gone="answering")
            stage.type("\r")
            await stage.until("a draft ✓")
            heard = await hear(bob, "a draft")
            assert (heard.kind, heard.target) == (Kind.SAY, 0)

    run(story())


# -- hearing ------------------------------------------------------------------------------------------


def test_trust_on_first_use_is_said_at_the_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room:
            async with room.member("ann") as ann, staged(ann) as stage:
                assert ann.trusted_on_first_use.startswith("SHA256:")
                await stage.until(f"trust on first use: {ann.trusted_on_first_use}")
            async with room.member("ann") as ann, staged(ann) as stage:
                assert not stage.said("trust")

    run(story())


def test_what_went_wrong_is_told_in_the_language_that_is_spoken() -> None:
    broken = LinkBroken(
        "the link to {peer} broke: {why}", peer="queue", why=reason(ConnectionResetError(0, "Connection reset by peer"))
    )
    told: dict[str, ClientEvent] = {
        "-- 连接断开：与 queue 的连接断了：连接被对方重置；正在重新连接": Lost(broken.words),
        "-- 连接断开：reset by peer；正在重新连接": Lost("reset by peer"),
        "-- 主机的磁盘满了；你说的话会等到有空间为止": Notice(code="disk-full"),
        "-- {nick} is not ours": Notice(code="odd", text="{nick} is not ours"),
    }

    async def story() -> None:
        script = Script(*told.values())
        async with staged(script.client, Blind(120, 40)) as stage:
            await stage.until(*told)
            stage.type("/set theme foo\r")
            await stage.until('theme 不能是 "foo"；允许：')

    use("zh")
    try:
        run(story())
    finally:
        use("en")


def test_days_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    async def story() -> None:
        day = 86_400_000
        script = Script(message(1, "a", at=0), message(2, "b", at=day - 1), message(3, "c", at=day))
        async with staged(script.client) as stage:
            await stage.until("小明  c")
            assert [row.partition("│")[0].rstrip() for row in stage.rows()[-7:-2]] == [
                "── 1970-01-01 ──",
                "00:00 小明  a",
                "23:59 小明  b",
                "── 1970-01-02 ──",
                "00:00 小明  c",
            ]

    run(story())
    monkeypatch.undo()
    time.tzset()


def test_nothing_of_a_peers_reaches_the_screen_unfiltered() -> None:
    evil = "\x1b]0;pwned\x07\x1b[31m\x9b5m\u202e[ZeroWidthEscape]\x01\x02\r\x08 class:bar"

    async def story() -> None:
        script = Script(
            *(message(n, evil, kind=kind, target=1, nick=evil) for n, kind in enumerate((1, 1, 2, 3, 4, 5, 9), 1)),
            Notice(code=evil, text=evil),
            Rewound(Rewind(code=evil, text=evil)),
            Lost(evil),
            Here([(b"e", evil)], [(b"e", evil)], first=False),
        )
        script.trusted_on_first_use = script.session.room = script.session.nick = evil
        script.session.here[(b"e", evil)] = False
        async with staged(script.client, Blind(200, 60)) as stage:
            stage.type("/who\r")
            await stage.until("here: ", "link lost")
            screen = stage.face.app.renderer.last_rendered_screen
            assert screen is not None
            slots = [slot for row in screen.data_buffer.values() for slot in row.values()]
            assert "".join(slot.char for slot in slots).isprintable()
            assert not any(screen.zero_width_escapes.values())
            assert {part for slot in slots for part in slot.style.split()} <= {
                *("[transparent]", "class:last-line"),
                *(f"class:{role}" for role in roles_of("auto")),
            }

    run(story())


def test_what_ends_the_client_is_raised_when_the_terminal_is_restored() -> None:
    async def story() -> None:
        script, terminal = Script(), Terminal(80, 24)
        script.end(Refused("banned", "you are banned from this room"))
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=terminal.output),
            pytest.raises(Refused, match="banned"),
        ):
            await face_module.run(script.client)
        assert terminal.written.rindex("\x1b[?1049l") > terminal.written.rindex("\x1b[?1049h")
        assert terminal.written.rindex("\x1b[?2004l") > terminal.written.rindex("\x1b[?2004h")

    run(story())


def test_a_fault_while_drawing_ends_the_face_and_restores_the_terminal() -> None:
    async def story() -> None:
        script, terminal = Script(Gap(first=1, count=cast("int", None))), Terminal(80, 24)
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=terminal.output),
            pytest.raises(TypeError),
        ):
            await face_module.run(script.client)
        assert terminal.written.rindex("\x1b[?1049l") > terminal.written.rindex("\x1b[?1049h")
        assert terminal.written.rindex("\x1b[?7h") > terminal.written.rindex("\x1b[?7l")

    run(story())


# -- what is new --------------------------------------------------------------------------------------


def test_several_mentions_at_once_ring_once() -> None:
    async def story() -> None:
        script, screen = Script(IN), Ringing()
        async with staged(script.client, screen) as stage:
            for n in range(1, 6):
                script.happen(message(n, f"ann: number {n}"))
            await stage.until("number 5")
            assert screen.bells == 1
            script.happen(message(6, "ann: number 6"))
            await stage.until("number 6")
            assert screen.bells == 2

    run(story())


def test_an_empty_screen_fills_again() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 5))
        async with staged(script.client) as stage:
            await stage.until("line 5")
            stage.type("/clear\r")
            await stage.until("in the room", gone="line 5")
            script.happen(*lines(6, 7))
            await stage.until("line 7", gone="line 5")

    run(story())


def test_what_is_answered_while_one_has_scrolled_up_is_seen_until_the_next_key() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 60))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 60")
            stage.type("\x1b[5~/qit\r")
            await stage.until("line 53", "/qit is no command", gone="line 60")
            stage.type("\x7f")
            await stage.until("> /qi", gone="is no command")

    run(story())


def test_a_correction_that_is_stopped_leaves_what_was_typed_before(tmp_path: Path) -> None:
    """Else the next Enter would say the old text once more."""

    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("said before\r")
            await stage.until("said before ✓")
            stage.type("half a")
            await stage.until("> half a")
            stage.type("\x1be")
            await stage.until("correcting ann", "> said before")
            stage.type("\x1b")
            await stage.until("> half a", gone="correcting")
            stage.type(" thought\r")
            await stage.until("half a thought ✓")
            assert len(stage.said("said before")) == 1

    run(story())


def test_an_own_message_that_was_selected_can_be_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("mine\r")
            await stage.until("mine ✓")
            stage.type("\x1b[1;3A\x1br")
            await stage.until("answering ann: mine")

    run(story())


def test_where_help_is_longer_than_the_screen_it_says_how_to_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("/help\r")
            await stage.until("/quit", "PageDown shows more, Escape goes back to where you were")
            stage.type("\x1b")
            await stage.until("Alt+F …  move and delete as in a shell", gone="shows more")
            stage.type("/ignore\r")  # one line
            await stage.until("nobody is ignored", gone="shows more")
            stage.type("said\r")
            await stage.until("said ✓")
            stage.type("/help\r/search said\r")
            await stage.until("hit 1 of 1 ", gone="searching")
            stage.type("\x1b")  # the list was left by the search
            await stage.until("Alt+F …  move and delete as in a shell", gone="hit 1 of 1 ")

    run(story())


def test_all_that_is_known_of_an_old_message_can_be_read_and_one_comes_back_to_it() -> None:
    async def story() -> None:
        script = Script(IN, message(1, "first"), message(2, "second", kind=Kind.EDIT, target=1))
        script.happen(message(3, "third", kind=Kind.EDIT, target=1), message(4, "🎉", kind=Kind.REACT, target=1))
        script.happen(*lines(5, 40))
        async with staged(script.client, Blind(80, 14)) as stage:
            await stage.until("line 40")
            stage.type("\x1b[1;5H")
            await stage.until("third (edited)", gone="line 40")
            stage.type("\x1b[1;3A" * 20)  # to the first
            stage.type("\x1bi")
            await stage.until(
                *("number 1, 1970-01-01 ", fingerprint(BOB)[:20], "on the host's disk; read by 0 of the 0 others"),
                *("path: through the host, and between it and this", "window over memory:script (pinned)"),
                *("before: first", "before: second", "🎉 小明"),
                gone="third",
            )
            stage.type("\x1b")
            await stage.until("third (edited)", gone="before: first")
            assert stage.face.pane.selected == 0
            script.wire = ()
            stage.type("\x1bi\x1b[1;5F")
            await stage.until("path: through the host, to which there is no link")

    run(story())


# -- who is who ---------------------------------------------------------------------------------------


def test_programs_are_labelled_where_people_are_listed() -> None:
    async def story() -> None:
        script = Script(IN, message(1, "beep", bot=True))
        script.session.here[BOB, "小明"] = True
        async with staged(script.client) as stage:
            await stage.until("[bot] 小明  beep")
            assert [row.rpartition("│")[2] for row in stage.rows()[1:3]] == ["ann", "[bot] 小明"]

    run(story())


def test_who_has_left_is_known_and_since_when() -> None:
    async def story() -> None:
        now = time.time_ns() // 1_000_000
        script = Script(IN, message(1, "bye", at=now - 7 * 60_000))
        async with staged(script.client) as stage:
            stage.type("/who 小明\r")
            await stage.until("小明 is here; spoke last 7 min ago", f"key {fingerprint(BOB)}")
            del script.session.here[(BOB, "小明")]
            script.happen(Here([], [(BOB, "小明"), (b"d", "dan")], first=False))
            await stage.until("小明, dan left")
            stage.type("/who 小明\r")
            await stage.until("小明 left just now; spoke last 7 min ago")
            stage.type("/who dan\r")
            await stage.until("dan left just now")
            stage.type("/who eve\r")
            await stage.until("there is nobody called eve here; /who lists those who are")

    run(story())


# -- a terminal made of slots -------------------------------------------------------------------------


class Terminal:
    """What prompt_toolkit writes, and the screen that a terminal makes of it."""

    def __init__(self, columns: int, rows: int) -> None:
        self._file = io.StringIO()
        self._fed = 0
        self._size = Size(rows=rows, columns=columns)
        self.output = Vt100_Output(self._file, lambda: self._size, term="xterm-256color", enable_cpr=False)
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)

    @property
    def written(self) -> str:
        return self._file.getvalue()

    def resize(self, columns: int, rows: int) -> None:
        self._feed()
        self._size = Size(rows=rows, columns=columns)
        self._screen.resize(rows, columns)

    def rows(self) -> list[str]:
        self._feed()
        return [row.rstrip() for row in self._screen.display]

    def column(self, y: int, text: str) -> int:
        """The slot in which ``text`` begins. A wide character has two slots, the second one empty."""
        self._feed()
        row = self._screen.buffer[y]
        return next(x for x in row if row[x].data and _from(row, x).startswith(text))

    @property
    def cursor(self) -> tuple[int, int]:
        self._feed()
        return self._screen.cursor.x, self._screen.cursor.y

    def _feed(self) -> None:
        self._stream.feed(self.written[self._fed :])
        self._fed = len(self.written)


def _from(row: Any, x: int) -> str:
    return "".join(row[at].data for at in range(x, max(row, default=x) + 1))


LONG = "你好，世界！这是一个很长的中文句子，用来测试换行是否正确，标点符号不应该出现在行首。"


def chinese() -> Script:
    """A room in which much was said, all of it at 00:00."""
    said = [message(n, f"第{n}条") for n in range(1, 30)]
    said += [
        message(30, LONG),
        message(31, f"family {FAMILY} flag \U0001f1e8\U0001f1f3 heart ❤\ufe0f thumb 👍🏽 end"),
        message(32, "同意", target=30, nick="ann"),
        message(33, "挥手", kind=Kind.ACTION),
        message(34, "the quick brown fox jumps over the lazy dog, and over 狐狸", nick="ann"),
    ]
    return Script(*said)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_a_screen_of_80_columns_and_24_rows() -> None:
    async def story() -> None:
        terminal = Terminal(80, 24)
        async with staged(chinese().client, terminal.output) as stage:
            stage.type(f"我说hi{FAMILY}\U0001f1e8\U0001f1f3!\x1b[D")  # and one to the left
            await stage.until("狐狸 ✓", "我说hi👨👩👧👦CN!")
            side = {1: "ann", 2: "小明"}
            pane = [f"            第{n}条" for n in range(18, 30)] + [
                "            你好，世界！这是一个很长的中文句子，用来测试换行",
                "            是否正确，标点符号不应该出现在行首。",
                "            family 👨👩👧👦 flag CN heart ❤ thumb 👍 end",
                "00:00 ann  ↳ 小明: 你好，世界！这是一个很长的中文句子，用来…",
                "           同意 ✓",
                "00:00 * 小明 挥手",
                "00:00 ann  the quick brown fox jumps over the lazy dog, and",
                "           over 狐狸 ✓",
            ]
            # The pane has 61 columns, then a border, then who is here.
            assert terminal.rows() == [
                " #lobby as ann over memory:script",
                *(
                    row + " " * (61 - columns(row)) + "│" + side.get(y, "")
                    for y, row in enumerate(["            第17条", *pane], 1)
                ),
                "> 我说hi👨👩👧👦CN!",
                " in the room · 2 here · memory · pinned",
            ]
            assert {terminal.column(y, "│") for y in range(1, 22)} == {61}
            assert (terminal.column(14, "你好"), terminal.column(14, "换行")) == (12, 56)
            assert (terminal.column(16, "flag"), terminal.column(16, "end")) == (28, 53)
            assert terminal.cursor == (18, 22)

    run(story())


@pytest.mark.usefixtures("utc")
def test_a_screen_of_20_columns_and_5_rows() -> None:
    async def story() -> None:
        terminal = Terminal(80, 24)
        async with staged(chinese().client, terminal.output) as stage:
            await stage.until("狐狸 ✓")
            terminal.resize(20, 5)
            stage.face.app._on_resize()  # what SIGWINCH calls
            stage.type("你好啊，这是很长的一行。")  # wider than the 18 columns there are
            await stage.until("> 一行。")
            assert terminal.rows() == [
                " #lobby as ann over…",
                "     the lazy dog,",
                "     and over 狐狸 ✓",  # 20 columns
                "> 一行。",  # the row that the cursor is in
                " in the room · 2 he…",
            ]
            assert terminal.cursor == (8, 3)

    run(story())


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 2), (20, 4), (59, 3), (60, 3), (61, 200), (300, 1)])
def test_no_size_is_too_small(size: tuple[int, int]) -> None:
    async def story() -> None:
        screen = Blind()
        async with staged(chinese().client, screen) as stage:
            await stage.until("狐狸 ✓")
            stage.type("\x1b[5~")
            await stage.until("in the room")
            screen.size = Size(rows=size[1], columns=size[0])
            stage.face.app._on_resize()
            stage.type("a\x1b[6~\x1b[6~\x1b[5~b\n")
            await stage.redrawn()
            screen.size = Size(rows=24, columns=80)
            stage.face.app._on_resize()
            await stage.until("> ab")

    run(story())


# -- a real terminal ----------------------------------------------------------------------------------


class Program:
    """The face in a process of its own, on a pseudo-terminal."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.terminal, ours = pty.openpty()
        self.before = termios.tcgetattr(ours)
        self.ours = ours
        self.written = ""
        theirs = {"NO_COLOR", "COLORTERM", "PROMPT_TOOLKIT_COLOR_DEPTH"}  # of the terminal in which the tests run
        environment = {name: value for name, value in os.environ.items() if name not in theirs}
        code = f"from tests.ui.fullscreen.test_app import main; main({str(folder)!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=ours,
            stdout=ours,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment | {"TERM": "xterm-256color"} | variables,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.terminal)
        os.close(self.ours)

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, what: str | Callable[[], bool]) -> str:
        """Read until ``what`` has been written, or holds; return all that was written until then."""
        deadline = time.monotonic() + 20
        since = len(self.written)
        while not (what in self.written[since:] if isinstance(what, str) else what()):
            assert time.monotonic() < deadline, self.written[since:]
            if select.select([self.terminal], [], [], 0.02)[0]:
                self.written += os.read(self.terminal, 65_536).decode("utf-8", "replace")
        return self.written[since:]

    def restored(self) -> bool:
        return termios.tcgetattr(self.ours) == self.before

    def cooked(self) -> bool:
        wanted = termios.ICANON | termios.ECHO | termios.ISIG
        flags: int = termios.tcgetattr(self.ours)[3]
        return flags & wanted == wanted

    def ended(self) -> bool:
        return self.process.poll() is not None


def main(folder: str) -> None:
    """What runs in the other process: a host, two members, and the face of one of them."""

    async def story() -> None:
        async with Room(Path(folder)) as room, room.member("bob") as bob, room.member("ann") as ann:
            await bob.say("你好, ann")
            await face_module.run(ann)

    asyncio.run(story())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    with Program(tmp_path) as program:
        screen = program.until("你好, ")
        assert "38;5;" in screen  # a colour of the 256
        assert not program.restored()
        program.process.send_signal(number)
        program.until("\x1b[?1049l")
        program.until(program.ended)
        assert program.process.returncode == 0
        assert program.restored()


def test_suspending_gives_the_terminal_back_until_it_goes_on(tmp_path: Path) -> None:
    with Program(tmp_path, NO_COLOR="1") as program:
        screen = program.until("你好, ")
        assert not re.search("\x1b\\[[0-9;]*[34]8;", screen)
        assert not re.search("\x1b\\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7])m", screen)
        program.type("half a li\x1a")
        program.until("\x1b[?1049l")
        program.until(lambda: os.WIFSTOPPED(_state(program.process.pid)))
        assert program.cooked()
        program.process.send_signal(signal.SIGCONT)
        program.until("half a li")
        assert not program.cooked()
        program.type("ne\r")
        program.until("✓")
        program.type("\x03")
        program.until(program.ended)
        assert program.restored()


def _state(pid: int) -> int:
    return os.waitpid(pid, os.WNOHANG | os.WUNTRACED)[1]
