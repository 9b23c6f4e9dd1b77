"""The full-screen face: what is typed and pressed, and what comes of it, on a screen without a terminal."""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input

from chat.client.events import Lost
from chat.core import status
from chat.core.bodies import Answer, Ask, Notice
from chat.core.errors import ChatError, LinkBroken, reason
from chat.core.events import Here
from chat.core.wire import Kind
from chat.i18n import use
from chat.local.identity import fingerprint
from chat.local.rooms import RoomLock, RoomRecord
from chat.local.settings import Settings
from chat.ui.clipboard import osc52
from chat.ui.fullscreen.face import FullScreen
from chat.ui.invites import qr_code
from tests.ui.fullscreen.stage import (
    BOB,
    IN,
    LOCAL_INVITE,
    Blind,
    Hosted,
    Room,
    Script,
    hear,
    lines,
    message,
    run,
    staged,
)

if TYPE_CHECKING:
    from chat.client.client import Client
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
            assert stage.said("everybody") == ["ann │ 你好 everybody ✓"]
            await bob.say("hello ann")
            await stage.until("bob │ hello ann")
            assert stage.said("hello ann") == ["bob │ hello ann"]

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
        ("/qit", "/qit is not a command and was not sent; did you mean /quit?"),
        ("/usr/bin/env", "/usr/bin/env is not a command and was not sent; see /help"),
        ("/me", "/me needs an argument:"),
    ],
)
def test_what_cannot_be_sent_is_told_and_stays_in_the_input(typed: str, answer: str) -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type(f"\x1b[200~{typed}\x1b[201~\r")
            await stage.until(answer)
            assert stage.face.input.text == typed

    run(story())


def test_a_missing_argument_lists_what_it_may_be() -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type("/theme\r")
            await stage.until("high-contrast")
            assert stage.face.input.text == "/theme "
            stage.type("da")
            await stage.until("dark", gone="light")
            stage.type("\t\r")
            await stage.until("theme is set")
            assert stage.face.controller.settings.theme == "dark"

    run(story())


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("/who nobody", "there is nobody called nobody here"),
        ("/set no thing", "no setting no;"),
        ("/edit " + "x" * 17_000, "the limit is 16384"),
        ("/msg nobody hello", "there is nobody called nobody here"),
        ("/join no!room", "no!room"),
        ("/join elsewhere", "no room is open"),
        ("/ban 小明", "only the owner"),
        ("/search and then no link", "only the owner"),
    ],
)
def test_a_command_that_fails_keeps_its_text(typed: str, answer: str) -> None:
    class Closed(Script):
        async def __aenter__(self) -> Self:
            raise ChatError("no room is open")

    async def story() -> None:
        async def refused(_ask: Ask) -> Answer:
            await asyncio.sleep(0)
            raise ChatError("only the owner")

        def opener(target: str) -> Client:
            if "!" in target:
                raise ChatError(target)
            return Closed(room="elsewhere").client

        script = Script(IN, message(1, "hi", nick="ann"), message(2, "hello"))
        script.ask = refused  # type: ignore[method-assign, assignment]
        async with staged(script.client, opener=opener) as stage:
            await stage.until("hello")
            stage.type(typed + "\r")
            await stage.until(answer, typed[-20:])
            assert stage.face.input.text == typed
            assert stage.face.view is stage.face.controller.rooms[0]

    run(story())


@pytest.mark.parametrize("keys", [b"gr\xfc\xdfe\r", b"\x1b[200~gr\xfc\xdfe\x1b[201~\r", b"/away \xff\r"])
def test_bytes_that_are_not_utf_8_are_told_and_stay_in_the_input(keys: bytes) -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type_bytes(keys)
            await stage.until("this was not sent: \ufffd stands for bytes that are not UTF-8")
            assert stage.face.input.text.encode("utf-8", "surrogateescape") in keys

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
            await stage.until("2 here")
            stage.type("/who\r")
            await stage.until("─ /who ─", "│ ann", "│ bob")
            stage.type("\x1b/help\r")
            await stage.until("─ Help ─", "TALK", "enter another room", gone="─ /who ─")
            assert stage.face.input.text == ""
            stage.type("\x1b")
            await stage.until(gone="─ Help ─")
            stage.type("\x1b[A\x1b[A")  # up, up
            await stage.until("> /who")

    run(story())


@pytest.mark.parametrize("width", [48, 49])
def test_a_qr_code_shows_if_it_fits_into_the_panel(width: int) -> None:
    async def story() -> None:
        invite = "chat://chat.example:7711/" + "a-room" * 5 + "#" + "A" * 43 + "." + "A" * 22
        code, script = qr_code(invite), Script(IN)
        async with staged(script.client, Blind(width, 40)) as stage:
            await stage.until("2 here")
            script.answers.put_nowait(Answer(text=invite))
            stage.type("/invite qr\r")
            await stage.until("does not fit into 44" if width == 48 else code[-2])
            shown = [row[2:-2] for row in stage.rows() if "█" in row]
            assert shown == ([f"{line:45}" for line in code] if width == 49 else [])

    run(story())


def test_a_key_that_takes_a_message_back_leaves_the_draft(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("too early\r")
            await stage.until("too early ✓")
            stage.type("half a sen\x1bx")
            await stage.until("taken back", "> half a sen")
            stage.type("tence\x1bz")
            await stage.until("too early ✓", "> half a sentence")

    run(story())


@pytest.mark.parametrize("leave", ["/quit\r", "\x03\x03", "\x04"])
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
            await stage.until("─ /who ─", gone="answering")
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
            await stage.until("press Ctrl+C again to leave", gone="secret")
            stage.type("x\x7f")  # any other key takes that back
            await stage.until(">", gone="again to leave")
            stage.type("\x03")
            await stage.until("press Ctrl+C again to leave")
            stage.type("\x03")
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
def test_who_hosts_is_asked_before_the_room_closes(leave: str) -> None:
    async def story() -> None:
        script, hosted = Script(), Hosted()
        question = "Enter: keep it open · Ctrl+C: close the room · Escape: stay"
        async with staged(script.client, hosted=hosted) as stage:
            stage.type(leave)
            await stage.until(question + " · others are here")
            stage.type("\x1b")
            await stage.until(gone=question)
            stage.type("\r")  # asked no longer, so it answers nothing
            stage.type(leave)
            await stage.until(question)
            stage.type("\x1b/who\r")  # a terminal sends the same for Alt+/
            await stage.until("─ /who ─", gone=question)
            stage.type("\x1b")
            await stage.until(gone="─ /who ─")
            stage.type(leave)
            await stage.until(question)
            assert not hosted.kept
            stage.type(leave)
            await stage.task
            assert not hosted.kept
        script.session.here[BOB, "小明"] = True  # a program of hers
        async with staged(script.client, hosted=hosted) as stage:
            stage.type(leave)
            await stage.until(question, gone="others are here")
            stage.type("\r")
            await stage.task
            assert hosted.kept

    run(story())


def test_a_room_is_opened_again_only_from_the_window_that_opened_it() -> None:
    async def story() -> None:
        hosted = Hosted()
        async with staged(Script().client) as stage:
            stage.type("/reopen\r")
            await stage.until("this window did not open the room", "or its owner with: chat host lobby")
        async with staged(Script().client, hosted=hosted) as stage:
            hosted.is_running = False
            assert hosted.on_end
            hosted.on_end(ChatError("the host was ended"))
            await stage.until("· the host was ended", "/reopen opens the room again")
            stage.type("/reopen\r")
            await stage.comes_to(lambda: hosted.is_running)
            hosted.is_running = False
            stage.type("\x03\x03")  # nothing is open that could stay open
            await stage.task

    run(story())


def test_a_narrow_window_shows_first_how_the_room_stays_open() -> None:
    async def story() -> None:
        async with staged(Script().client, Blind(20, 5), hosted=Hosted()) as stage:
            stage.type("\x03")
            await stage.until("Enter: keep it open")

    run(story())


class Recording(Blind):
    def __init__(self) -> None:
        super().__init__()
        self.raw = ""

    def write_raw(self, data: str) -> None:
        self.raw += data


def test_an_invite_is_copied_and_stands_in_one_piece_until_a_key() -> None:
    async def story() -> None:
        script, output = Script(IN), Recording()
        async with staged(script.client, output) as stage:
            stage.type("/invite\r")
            script.answers.put_nowait(Answer(text=LOCAL_INVITE))
            await stage.comes_to(lambda: f"{LOCAL_INVITE}\r\n" in output.raw)
            assert osc52(LOCAL_INVITE).decode() in output.raw
            assert "\r\nthis invite works on this machine only; " in output.raw
            script.happen(message(1, "meanwhile"))
            await stage.comes_to(lambda: stage.face.view.timeline.last_seq == 1)
            stage.type("x")
            await stage.until("meanwhile", gone="> x")
            stage.type("y")
            await stage.until("> y")

    run(story())


def test_nothing_but_an_invite_is_copied_as_one() -> None:
    async def story() -> None:
        script, output = Script(IN), Recording()
        async with staged(script.client, output) as stage:
            stage.type("/invite\r")
            script.answers.put_nowait(Answer(text="rm -rf ~"))
            await stage.until("rm -rf ~")
            assert "\x1b]52" not in output.raw

    run(story())


def test_rooms_are_offered_by_some_letters_of_their_names() -> None:
    async def story() -> None:
        garden = Script(room="garden")
        async with staged(Script(IN, *lines(1, 3)).client, opener=lambda _target: garden.client) as stage:
            await stage.until("line 3")
            stage.type("/join garden\r")
            await stage.until("● #garden")
            stage.type("\x0b")
            await stage.until("─ Go to ─", "│ #lobby  ", "│ #garden  ")
            stage.type("lb")
            await stage.until("│ #lobby  ", gone="│ #garden  ")
            stage.type("\r")
            await stage.until("● #lobby", gone="─ Go to ─")

    run(story())


def test_the_rooms_of_the_window_and_of_the_machine_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "runtime"))

    async def story() -> None:
        script = Script(IN)
        async with staged(script.client) as stage:
            stage.type("/join\r")
            await stage.until(
                "no other room is open on this machine; open one with: chat host NAME", gone="in this window"
            )
            for room in ("tea", "dev"):
                RoomLock.hold(room).write(RoomRecord(room=room, addresses=[], host="", invite="", pid=1, started=1))
            stage.type("/rooms\r")
            await stage.until("in this window: 1 #lobby", "open on this machine: dev, tea; /join NAME enters one")
            stage.type("\x1b/join t")
            await stage.until("> /join t")
            stage.type("\t")
            await stage.until("> /join tea")
            (tmp_path / "runtime").chmod(0o755)  # others may look into it, so it is not trusted
            stage.type("\x15/rooms\r")
            await stage.until("no other room is open on this machine", "in this window: 1 #lobby")

    run(story())


def test_an_answer_that_is_no_emoji_is_not_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("said\r")
            await stage.until("said ✓")
            stage.type("/react yes\r")
            await stage.until("“yes” is not an emoji; did you mean :")
            assert not ann.session.unsettled
            stage.type("\x15/react :tada:\r")
            await stage.until("[🎉 1]")

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
                    await stage.until("bob sent you a private message; /msg bob shows it", "2 @bob", " 1!", gone="psst")
                    stage.type("\x1b2")
                    await stage.until("the host's owner can read it", "bob │ psst", gone=" 1!")
                    said = [row for row in stage.said("") if "·" in row or "│" in row]
                    assert said == [
                        "· only bob and you are in this room; the host's owner can read it, too ·",
                        "bob │ psst",
                    ]
                    assert stage.rows()[0].startswith(" ● @bob  the host's owner can read this  ")
                    await stage.comes_to(lambda: stage.face.view.client.shows.read > 0)
                stage.type("/part\r")
                await stage.until("sent you a private message")
            async with room.member("ann") as ann, staged(ann) as stage:
                await stage.until("you have a private room with bob", gone="@bob")

    run(story())


def test_so_many_rooms_open_by_themselves_and_none_of_who_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.ui.fullscreen.watcher._CALLED", 1)

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
                await stage.until("cid sent you a private message", "2 @bob", " 1!", gone="dan sent")
                assert [view.name for view in stage.face.controller.rooms] == ["#lobby", "@bob"]

    run(story())


def test_who_presses_no_key_is_away_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.ui.fullscreen.watcher._LOOK", 0.01)

    async def story() -> None:
        script = Script()
        async with staged(script.client, settings=Settings(away_minutes=1)) as stage:
            stage.type("x")
            await stage.until("> x")
            pressed = stage.face.controller.active
            stage.face.watcher._touched -= 61  # and then for a minute nothing
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
            await stage.until("2 @bob", " 1!")
            stage.type("my own words\r")
            await stage.until("my own words ✓")
            stage.type("a draft\x1be")
            await stage.until("correcting ann: my own words", "> my own words")
            stage.type("\x1b2")
            await stage.until("bob │ psst", gone="correcting")
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
                await stage.until("trust on first use: the host at ", "in person: ")
            async with room.member("ann") as ann, staged(ann) as stage:
                assert not stage.said("trust")

    run(story())


def test_what_went_wrong_is_told_in_the_language_that_is_spoken() -> None:
    broken = LinkBroken(
        "the link to {peer} broke: {why}", peer="queue", why=reason(ConnectionResetError(0, "Connection reset by peer"))
    )
    told: dict[str, ClientEvent] = {
        "· 连接断开：与 queue 的连接断了：连接被对方重置；正在重新连接": Lost(broken.words),
        "· 连接断开：reset by peer；正在重新连接": Lost("reset by peer"),
        "· 主机的磁盘满了；你说的话会等到有空间为止": Notice(code="disk-full"),
        "· {nick} is not ours": Notice(code="odd", text="{nick} is not ours"),
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


# -- what is new --------------------------------------------------------------------------------------


def test_an_empty_screen_fills_again() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 5))
        async with staged(script.client) as stage:
            await stage.until("line 5")
            stage.type("/clear\r")
            await stage.until("2 here", gone="line 5")
            script.happen(*lines(6, 7))
            await stage.until("line 7", gone="line 5")

    run(story())


def test_what_is_answered_while_one_has_scrolled_up_is_seen_until_the_next_key() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 60))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 60")
            stage.type("\x1b[5~/qit\r")
            await stage.until("line 53", "/qit is not a command", gone="line 60")
            stage.type("\x7f")
            await stage.until("> /qi", gone="is not a command")

    run(story())


def test_escape_goes_back_one_step_at_a_time() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 60))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 60")
            stage.type("/search line 20\r")
            await stage.until("hit 1 of 1", "line 20", gone="line 60")
            script.answers.put_nowait(Answer())  # the host has been asked, too
            await stage.comes_to(lambda: stage.face.view.work is None)
            stage.type("\x1br")
            await stage.until("answering 小明: line 20")
            stage.type("\x1b")
            await stage.until("hit 1 of 1", "line 20", gone="answering")
            stage.type("\x1b")
            await stage.until("line 20", gone="hit 1")
            stage.type("\x1b")
            await stage.until("line 60")
            stage.type("\x1b[5~")  # up by a page, and nothing else
            await stage.until("line 53", gone="line 60")
            stage.type("\x1b[1;3A")
            await stage.comes_to(lambda: stage.face.pane.selected is not None)
            stage.type("\x1b")
            await stage.comes_to(lambda: stage.face.pane.selected is None)
            assert not stage.face.pane.following
            stage.type("\x1b")
            await stage.until("line 60")

    run(story())


def test_enter_in_an_empty_input_unfolds_a_long_message_and_escape_folds_it() -> None:
    async def story() -> None:
        paste = "\n".join(f"row {n}" for n in range(1, 201))
        async with staged(Script(IN, message(1, paste), *lines(2, 4)).client, Blind(80, 20)) as stage:
            await stage.until("… 195 more · Enter", "line 4")
            stage.type("\r")
            await stage.until("row 12", gone="more · Enter")
            stage.type("\x1b")
            await stage.until("row 5", "… 195 more · Enter")
            stage.type("\x1b")
            await stage.until("… 195 more · Enter", "line 4")
            stage.type("/search row 150\r")
            await stage.until("row 6", gone="more · Enter")

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
                *("number 1, 1970-01-01 ", fingerprint(BOB)[:20], "on the host's disk; read by 0 of 0"),
                *("path: through the host, which this window reaches", "memory:script", "(pinned)"),
            )
            stage.type("\x1b[6~")
            await stage.until("before: first", "before: second", "🎉 小明", gone="number 1")
            stage.type("\x1b")
            await stage.until("third (edited)", gone="before: first")
            assert stage.face.pane.selected == 0
            script.wire = ()
            stage.type("\x1bi")
            await stage.until("number 1, 1970-01-01 ")
            stage.type("\x1b[6~")
            await stage.until("path: through the host; there is no link to it now")

    run(story())


# -- who is who ---------------------------------------------------------------------------------------


def test_programs_are_labelled_where_people_are_listed() -> None:
    async def story() -> None:
        script = Script(IN, message(1, "beep", bot=True))
        script.session.here[BOB, "小明"] = True
        async with staged(script.client) as stage:
            await stage.until("⚙ 小明 │ beep")
            side = [row.rpartition("│")[2] for row in stage.rows()[3:5]]
            assert [re.sub(" +", " ", row).strip() for row in side] == ["● ann you", "⚙ 小明 program"]

    run(story())


def test_who_has_left_is_known_and_since_when() -> None:
    async def story() -> None:
        now = time.time_ns() // 1_000_000
        script = Script(IN, message(1, "bye", at=now - 7 * 60_000))
        async with staged(script.client) as stage:
            stage.type("/who 小明\r")
            await stage.until("小明 is here; spoke last 7 min ago", f"key {fingerprint(BOB)}")
            stage.type("\x1b")
            del script.session.here[(BOB, "小明")]
            script.happen(Here([], [(BOB, "小明"), (b"d", "dan")], first=False))
            await stage.until("小明, dan left")
            stage.type("/who 小明\r")
            await stage.until("小明 left just now; spoke last 7 min ago")
            stage.type("\x1b/who dan\r")
            await stage.until("dan left just now")
            stage.type("\x1b/who eve\r")
            await stage.until("there is nobody called eve here; /who lists those who are")

    run(story())
