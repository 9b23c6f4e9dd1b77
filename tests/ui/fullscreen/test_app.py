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
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output

from chat.client.client import Client
from chat.client.events import Lost, Up
from chat.client.target import Target
from chat.core import status
from chat.core.errors import DialFailed, LinkBroken, Refused, Text, reason
from chat.core.outgoing import OutboxEntry, text_body
from chat.core.session import Here, Joined, LinkState, Message, Rejected, Rewound, Session, Stored
from chat.core.wire import REPLY, Answer, Ask, Author, Gap, Kind, Notice
from chat.host.host import Host
from chat.host.store import Store
from chat.i18n import use
from chat.local.identity import Identity, fingerprint, load_host
from chat.local.known_hosts import KnownHosts
from chat.local.rooms import RoomLock, RoomRecord
from chat.local.settings import Settings
from chat.transport import Address, Site
from chat.ui.fullscreen import face as face_module
from chat.ui.fullscreen import view as view_module
from chat.ui.fullscreen.bars import bar
from chat.ui.fullscreen.face import FullScreen
from chat.ui.fullscreen.progress import CATCHING_UP, Progress
from chat.ui.fullscreen.view import View
from chat.ui.fullscreen.wrapping import columns
from chat.ui.theme import PALETTE, roles_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from prompt_toolkit.input import PipeInput
    from prompt_toolkit.output import Output

    from chat.client.events import ClientEvent

ANN, BOB = b"a" * 32, b"b" * 32
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ROOT = Path(__file__).parents[3]


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30) as limit:  # it is there for a hang
            await story
        assert not limit.expired()  # nor was that what ended it

    asyncio.run(bounded())


# -- the stage ----------------------------------------------------------------------------------------


class Blind(DummyOutput):
    """An output that shows nothing and has the size that a test gives it."""

    def __init__(self, columns: int = 120, rows: int = 30) -> None:
        self.size = Size(rows=rows, columns=columns)

    def get_size(self) -> Size:
        return self.size


class Stage:
    """A face that runs: keys go in, rows come out."""

    def __init__(self, face: FullScreen, keys: PipeInput, task: asyncio.Task[None]) -> None:
        self.face = face
        self.type = keys.send_text
        self.task = task
        self._drawn = asyncio.Event()
        face.app.after_render += lambda _: self._drawn.set()

    def rows(self) -> list[str]:
        screen = self.face.app.renderer.last_rendered_screen
        if screen is None:
            return []
        size = self.face.app.output.get_size()
        slots = (screen.data_buffer[y] for y in range(size.rows))
        return ["".join(row[x].char for x in range(size.columns)).rstrip() for row in slots]

    def said(self, text: str) -> list[str]:
        """The rows with ``text`` in them; of the pane only."""
        return [row.partition("│")[0].rstrip() for row in self.rows()[1:-2] if text in row]

    async def until(self, *texts: str, gone: str = "\0") -> None:
        """Wait for a redraw that shows all ``texts`` and not ``gone``."""
        while (screen := "\n".join(self.rows())) is not None:
            if all(text in screen for text in texts) and gone not in screen:
                return
            await self.redrawn()

    async def comes_to(self, holds: Callable[[], bool]) -> None:
        """Wait for something that is not on the screen."""
        for _ in range(2000):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never came to this")

    async def redrawn(self) -> None:
        self._drawn.clear()
        await self._drawn.wait()


@asynccontextmanager
async def staged(client: Client, output: Output | None = None, **more: Any) -> AsyncIterator[Stage]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=output or Blind()):
        face = FullScreen(client, **more)
        task = asyncio.create_task(face.run())
        stage = Stage(face, keys, task)
        try:
            await stage.until(">")
            yield stage
            face.app.leave()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Room:
    """A host of the room "lobby" in this process, and who wants to be in it."""

    def __init__(self, folder: Path, name: str = "face") -> None:
        self.folder = folder
        self.address = Address("memory", name)
        (folder / "store").mkdir(mode=0o700, exist_ok=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self.store = Store(self.folder / "store")
        self.host = Host(load_host(self.folder / "host.pem"), self.store)
        self.host.open_room("lobby", open_to_all=True)
        await self.host.listen(self.address, Site(self.folder, self.folder / "host.pem"), "lobby")

    async def close(self) -> None:
        await self.host.aclose()
        self.store.close()

    def member(self, nick: str, *, looks: bool = False) -> Client:
        return Client(
            lambda: Target((self.address,), "lobby"),
            Identity.load(self.folder / f"{nick}.pem"),
            KnownHosts(self.folder / f"{nick}.hosts"),
            outboxes=self.folder / f"{nick}.outboxes",
            nick=nick,
            history=50,
            looks=looks,
        )


async def hear(client: Client, text: str) -> Message:
    """Wait until ``client`` is told of a message that is this text."""
    async for event in client:
        if isinstance(event, Message) and event.text == text:
            return event
    raise AssertionError(f"{text!r} was not said")


class Script:
    """Stands in for a client where events are needed that a healthy room does not have."""

    def __init__(self, *events: ClientEvent, room: str = "lobby") -> None:
        self.session = Session(room, ANN, nick="ann")
        self.session.state = LinkState.JOINED
        self.session.here = {(ANN, "ann"): False, (BOB, "小明"): False}
        self.address = Address("memory", "script")
        self.trusted_on_first_use = ""
        self.wire: tuple[str, ...] = ("memory", "pinned")
        self.shows = status.Status()
        self.asked: list[Ask] = []
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.readers = 0
        self._next: asyncio.Queue[list[ClientEvent] | Exception] = asyncio.Queue()
        if events:
            self.happen(*events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def ask(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        return await self.answers.get()

    def reader(self, since: int) -> Client:
        """One that never gets anything."""
        self.readers += 1
        return Script().client

    def happen(self, *events: ClientEvent) -> None:
        self._next.put_nowait(list(events))

    def end(self, error: Exception) -> None:
        self._next.put_nowait(error)

    async def next_events(self) -> list[ClientEvent]:
        events = await self._next.get()
        if isinstance(events, Exception):
            raise events
        return events

    def show(self, **changes: Any) -> None:
        self.shows = self.shows._replace(**changes)

    def people(self) -> dict[status.Who, status.Status]:
        return dict.fromkeys(self.session.here, status.Status())

    @property
    def client(self) -> Client:
        return cast("Client", self)


def message(
    seq: int, text: str, *, kind: int = Kind.SAY, target: int = 0, nick: str = "小明", at: int = 0, bot: bool = False
) -> Message:
    author = Author(index=1, key=ANN if nick == "ann" else BOB, stream=1, nick=nick, bot=bot)
    return Message(seq, at, author, kind, text, target, mine=nick == "ann")


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


def test_what_is_said_without_a_link_is_pending_and_then_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            await room.close()
            await stage.until("link lost: ", "coming back", " no link · ")
            stage.type("first\r")
            stage.type("second\r")
            await stage.until("second …", "2 unsent")
            assert [row[6:] for row in stage.said("…")] == ["ann  first …", "     second …"]
            await room.open()
            await stage.until("back over memory:face", "first ✓", "second ✓", gone="unsent")
            assert [row[6:] for row in stage.said("✓")[-2:]] == ["ann  first ✓", "     second ✓"]

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
        waiting = [OutboxEntry(n, Kind.SAY, 0, text_body(text)) for n, text in enumerate(("one", "two"), 1)]
        script.session.unsettled.extend(waiting)
        async with staged(script.client) as stage:
            await stage.until("one …", "two …")
            script.happen(*(Rejected(entry, "muted", Text("you are muted")) for entry in waiting))
            await stage.until("not sent: you are muted", "> one", gone="…")
            assert stage.face.input.text == "one\ntwo"

    run(story())


def test_what_is_stored_and_will_not_be_echoed_is_shown_as_stored() -> None:
    async def story() -> None:
        script = Script()
        waiting = [OutboxEntry(n, Kind.SAY, 0, text_body(text)) for n, text in enumerate(("one", "two"), 1)]
        script.session.unsettled.extend(waiting)
        async with staged(script.client) as stage:
            await stage.until("one …", "two …")
            script.happen(Stored(waiting[0], 0), message(5, "two", nick="ann"), Stored(waiting[1], 5))
            await stage.until("one ✓", "two ✓", gone="…")
            assert len(stage.said("one")) == len(stage.said("two")) == 1
            # And where another process of ours said it before this face began:
            script.happen(Stored(OutboxEntry(3, Kind.SAY, REPLY, text_body("three", 5)), 0))
            await stage.until("↳ ann: two", "three ✓")
            # Numbers begin anew in another log: 5 is not what was shown as 5.
            script.happen(Rewound("the log went back"), Stored(OutboxEntry(4, Kind.SAY, 0, text_body("four")), 5))
            await stage.until("four ✓")

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


def test_saying_something_goes_back_to_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob, room.member("ann") as ann, staged(ann) as stage:
            stage.type("\x1b[200~." + "\n" * 98 + "x\x1b[201~")
            await stage.until("99 lines are pasted")
            stage.type("\r\r")  # one to take it, one to send it
            await stage.until("x ✓")
            stage.type("\x1b[5~")
            await stage.until("in the room", gone="x ✓")
            await bob.say("unread")
            stage.type("y")
            await stage.until("1 new below")
            stage.type("\r")
            await stage.until("x ✓", "unread", "y ✓", gone="new below")

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


def test_who_comes_and_who_goes(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            async with room.member("bob"):
                await stage.until("-- bob came", " 2 here")
                assert [row.rpartition("│")[2] for row in stage.rows()[1:3]] == ["ann", "bob"]
            await stage.until("-- bob came and left", " 1 here")
            assert not stage.said("ann came")  # who was here first did not come
            assert [row.rpartition("│")[2] for row in stage.rows()[1:3]] == ["ann", ""]

    run(story())


def test_trust_on_first_use_is_said_at_the_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room:
            async with room.member("ann") as ann, staged(ann) as stage:
                assert ann.trusted_on_first_use.startswith("SHA256:")
                await stage.until(f"trust on first use: {ann.trusted_on_first_use}")
            async with room.member("ann") as ann, staged(ann) as stage:
                assert not stage.said("trust")

    run(story())


def test_every_kind_of_event_is_told_in_words() -> None:
    told = [
        (message(1, "hello"), "小明  hallo (edited)"),
        (message(2, "waves", kind=Kind.ACTION), "* 小明 waves"),
        (message(3, "yes", target=1, nick="ann"), "yes"),
        (message(4, "hallo", kind=Kind.EDIT, target=1), "hallo"),
        (message(5, "oh", nick="ann"), "taken back"),
        (message(6, "", kind=Kind.RETRACT, target=5, nick="ann"), "taken back"),
        (message(7, "👍", kind=Kind.REACT, target=3), "👍 小明"),
        (message(8, "?", kind=9), "* 小明 sent something of kind 9, which this version cannot show"),
        (message(9, "no", target=999), "↳ number 999"),
    ]
    others: dict[str, ClientEvent] = {
        "-- 1 message cannot be had any more": Gap(first=1, count=1),
        "-- 5 messages cannot be had any more": Gap(first=1, count=5),
        "-- the host's disk is full": Notice(code="disk-full", text="the host's disk is full"),
        "-- the log went back; what follows begins anew": Rewound("the log went back"),
        "-- link lost: reset by peer; coming back": Lost("reset by peer"),
        "-- back over tcp:1.2.3.4:5": Up(Address("tcp", "1.2.3.4:5")),
        "-- carla came": Here([(b"c", "carla")], [], first=False),
    }

    async def story() -> None:
        script = Script(*(event for event, _ in told), *others.values())
        async with staged(script.client, Blind(120, 40)) as stage:
            await stage.until(*(words for _, words in told), *others)

    run(story())


def test_what_went_wrong_is_told_in_the_language_that_is_spoken() -> None:
    broken = LinkBroken(
        "the link to {peer} broke: {why}", peer="queue", why=reason(ConnectionResetError(0, "Connection reset by peer"))
    )
    told: dict[str, ClientEvent] = {
        "-- 连接断开：与 queue 的连接断了：连接被对方重置；正在重新连接": Lost(broken.words),
        "-- 连接断开：reset by peer；正在重新连接": Lost("reset by peer"),
        "-- 主机的磁盘满了；你说的话会等到有空间为止": Notice(
            code="disk-full", text="the host's disk is full; what you say waits until it has room"
        ),
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
            Rewound(evil),
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
        script, terminal = Script(Notice(code="", text=cast("str", None))), Terminal(80, 24)
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=terminal.output),
            pytest.raises(AttributeError),
        ):
            await face_module.run(script.client)
        assert terminal.written.rindex("\x1b[?1049l") > terminal.written.rindex("\x1b[?1049h")
        assert terminal.written.rindex("\x1b[?7h") > terminal.written.rindex("\x1b[?7l")

    run(story())


# -- what takes long ----------------------------------------------------------------------------------

IN = Here([], [], first=True)  # we are in, and who is here has been told


def joined(end: int, *, read: int = 0, resumed: bool = False) -> Joined:
    return Joined("lobby", b"e" * 8, end, "ann", "member", resumed=resumed, proof=b"", read=read)


def lines(first: int, last: int) -> list[ClientEvent]:
    return [message(n, f"line {n}") for n in range(first, last + 1)]


@given(st.integers(20, 200), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_bar_is_ascii_and_shows_the_part_that_is_done(width: int, at: int, end: int) -> None:
    progress = Progress(CATCHING_UP, 0, end)
    progress.at = at
    drawn = bar(progress, width)
    found = re.fullmatch(r"\[(#*)(\.*)\]( (\d+)% \d+/s)", drawn)
    assert found
    full, left, told, percent = len(found[1]), len(found[2]), found[3], int(found[4])
    assert len(drawn) <= width or full + left == 4 > width - 2 - len(told)
    assert abs(percent - 100 * full / (full + left)) <= 100 / (full + left) + 1
    assert (left == 0) == (at >= end)


@pytest.mark.parametrize("size", [(120, 30), (20, 5)])
def test_catching_up_is_a_bar_until_the_end_of_the_log_is_here(size: tuple[int, int]) -> None:
    async def story() -> None:
        script = Script()
        script.session.next_seq = 1
        script.happen(joined(1001, resumed=True))
        async with staged(script.client, Blind(*size)) as stage:
            await stage.until("[...", "] 0% ")
            assert size[0] < 60 or stage.rows()[-1].startswith(" catching up [")
            script.session.next_seq = 501
            await stage.until("[##", ".] 50% ")
            script.session.next_seq = 1001
            await stage.until(" in the room", gone="%")
            script.session.next_seq = 1
            script.happen(joined(1001, resumed=True))
            await stage.until("] 0% ")
            script.happen(Lost("reset by peer"))  # and comes no more
            await stage.until(" in the room", gone="%")

    run(story())


def test_a_walk_through_hits_goes_on_where_the_hosts_first_ones_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            for n in range(130):
                await bob.say(f"needle {n}" if n % 2 else f"hay {n}")
            await bob.settled()
            async with room.member("ann") as ann, staged(ann) as stage:
                await stage.until("needle 129")
                stage.type("/search needle\r")
                await stage.until("hit 1 of 25+")  # of the 50 messages that are here
                for number in range(2, 66):
                    stage.type("\x1bp")
                    await stage.until(f"hit {number} of ", f"needle {131 - 2 * number}")
                stage.type("\x1bp")
                await stage.until("there is no hit further up; Alt+N goes down", "hit 65 of 65 ")
                stage.type("\x1bn")
                await stage.until("hit 64 of 65 ")
                await bob.say("needle 130")  # what comes meanwhile is a hit, too
                await stage.until("1 new below")
                stage.type("\x1bn")
                await stage.until("hit 64 of 66 ")

    run(story())


def test_what_the_host_finds_by_its_words_is_gone_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            for n in range(100):
                await bob.say("two words and a number, 17" if n == 17 else f"hay {n}")
            await bob.settled()
            async with room.member("ann") as ann, staged(ann) as stage:
                stage.type("/search from:bob number words\r")
                await stage.until("hit 1 of 1 ", "two words and a number, 17")
                stage.type("/search from:bob nothing\r")
                await stage.until("no message here has: from:bob nothing; ")
                stage.type("/search \u2060\r")  # nothing that anybody sees
                await stage.until("there is nothing to search for")

    run(story())


def test_a_search_tells_how_far_it_is_and_asks_again_until_all_is_searched() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            stage.type("/search x\r")
            await stage.until(" searching (Escape) [....................] 0% ")
            script.answers.put_nowait(Answer(indexed=500))
            await stage.until("[##########..........] 50% ")
            script.answers.put_nowait(Answer(indexed=1000))
            await stage.until("no message here has: x", gone="%")
            assert [(ask.text, ask.before) for ask in script.asked] == [("x", 0)] * 2

    run(story())


def test_an_index_that_does_not_grow_is_not_waited_for() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            for _ in range(2):
                script.answers.put_nowait(Answer(indexed=500))
            stage.type("/search x\r")
            await stage.until("no message here has: x", gone="%")

    run(story())


def test_escape_stops_a_search_and_the_next_one_waits_for_its_answer() -> None:
    async def story() -> None:
        script = Script(IN)
        script.session.next_seq = 1000
        async with staged(script.client) as stage:
            stage.type("/search x\r")
            await stage.until("searching")
            stage.type("\x1b")
            await stage.until("stopped; Alt+P goes on", gone="searching")
            stage.type("\x1bp")
            await stage.until("searching")
            assert len(script.asked) == 1  # a host answers one at a time
            for _ in range(2):
                script.answers.put_nowait(Answer(indexed=1000))
            await stage.until("no message here has: x", gone="searching")
            assert len(script.asked) == 2

    run(story())


def test_escape_stops_the_loading_of_older_messages_until_one_scrolls_on() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1000, 1060))
        async with staged(script.client, Blind(80, 10)) as stage:
            await stage.until("line 1060")
            stage.type("\x1b[5~" * 5)
            await stage.until("loading older messages (Escape) [")
            stage.type("\x1b")
            await stage.until("stopped; PageUp goes on", gone="loading")
            stage.type("x")
            await stage.until("> x", gone="loading")
            assert script.readers == 1
            stage.type("\x1b[5~")
            await stage.until("loading older messages")
            assert script.readers == 2

    run(story())


class Unreachable(Script):
    def reader(self, since: int) -> Client:
        self.readers += 1
        raise DialFailed("nobody answers")


def test_where_older_messages_cannot_be_loaded_it_is_tried_again_when_one_scrolls_on() -> None:
    async def story() -> None:
        script = Unreachable(IN, *lines(1000, 1060))
        async with staged(script.client, Blind(80, 10)) as stage:
            await stage.until("line 1060")
            stage.type("\x1b[5~" * 5)
            await stage.until("nobody answers")
            stage.type("x")
            await stage.until("> x", gone="nobody answers")
            assert script.readers == 1
            stage.type("\x1b[5~")
            await stage.until("nobody answers")
            assert script.readers == 2

    run(story())


# -- what is new --------------------------------------------------------------------------------------


def below_the_marker(stage: Stage) -> str:
    rows = [row.partition("│")[0].rstrip() for row in stage.rows()[1:-2]]
    return rows[rows.index("── new ──") + 1]


def test_what_comes_while_one_has_scrolled_up_is_counted_and_marked_and_gone_to() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 40))
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("line 40", gone="── new ──")
            script.happen(*lines(41, 45))
            await stage.until("line 45", gone="── new ──")
            stage.type("\x1b[5~")
            await stage.until("line 38", gone="line 45")
            script.happen(Here([(b"c", "carla")], [], first=False), *lines(46, 59), message(60, "ann: line 60"))
            await stage.until("15 new below (1@)")  # who came is not counted
            stage.type("/ignore carla\r")  # which goes back to the end
            await stage.until("what carla says is hidden", "new above: Alt+U")
            stage.type("\x1bu")
            await stage.until("── new ──", "line 46")
            assert below_the_marker(stage).endswith("line 46")
            stage.type("\x1b[1;5F")
            await stage.until("line 60", gone="new ")
            script.happen(*lines(61, 62))
            await stage.until("line 62", gone="new ")
            stage.type("\x1bu")
            await stage.until("nothing is unread here")

    run(story())


def test_the_marker_stands_where_one_left_a_room_and_is_gone_when_it_was_read() -> None:
    async def story() -> None:
        lobby, tea = Script(IN, *lines(1, 3)), Script(room="tea")
        async with staged(lobby.client, Blind(80, 12), opener=lambda _target: tea.client) as stage:
            await stage.until("line 3")
            stage.type("/join tea\r")
            await stage.until("#tea as ann")
            stage.type("\x1b1")
            await stage.until("#lobby as ann")
            lobby.happen(*lines(4, 5))
            await stage.until("line 5", gone="── new ──")  # one looks at it
            stage.type("\x1b2")
            await stage.until("#tea as ann")
            lobby.happen(*lines(6, 7), message(8, "ann: look"))
            await stage.until("1:#lobby 3 (1@)")
            assert [row.rpartition("│")[2] for row in stage.rows()[1:3]] == ["1 #lobby 3 (1@)", "2 #tea"]
            stage.type("\x1b1")
            await stage.until("── new ──", "ann: look")
            assert below_the_marker(stage).endswith("line 6")
            lobby.happen(*lines(9, 30))
            await stage.until("line 30", gone="new ")

    run(story())


def test_the_marker_stands_where_the_last_window_stopped_reading() -> None:
    async def story() -> None:
        script = Script()
        script.session.next_seq = 10
        script.happen(joined(61, read=20), IN)
        async with staged(script.client, Blind(80, 12)) as stage:
            await stage.until("catching up")
            script.session.next_seq = 61
            script.happen(*lines(10, 60))
            await stage.until("line 60", "new above: Alt+U", gone="Enter sends")  # she has been here before
            stage.type("\x1bu")
            await stage.until("── new ──")
            assert below_the_marker(stage).endswith("line 21")

    run(story())


def test_what_is_unread_and_not_loaded_is_loaded_when_one_goes_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob") as bob:
            await bob.say("line 0")
            await bob.settled()
            async with room.member("ann", looks=True) as ann, staged(ann) as stage:
                await stage.until("line 0")
            for n in range(1, 131):
                await bob.say(f"line {n}")
            await bob.settled()
            async with room.member("ann", looks=True) as ann, staged(ann) as stage:
                await stage.until("line 130", "new above: Alt+U")
                stage.type("\x1bu")
                await stage.until("── new ──")
                assert below_the_marker(stage).endswith("line 1")
                stage.type("\x1b[1;5F")
                await stage.until("line 130", gone="new ")

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


class Ringing(Blind):
    bells = 0

    def bell(self) -> None:
        self.bells += 1


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


def test_the_only_hit_is_told_as_such_and_leaves_no_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("kettle\r")
            await stage.until("kettle ✓")
            stage.type("/search kettle\r")
            await stage.until("hit 1 of 1 ", gone="searching")
            for key in ("\x1bn", "\x1bp"):
                stage.type(key)
                await stage.until("this is the only hit")
                stage.type(" ")
                await stage.until("kettle", gone="the only hit")

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


def test_the_lag_is_the_links_and_not_that_of_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000, 100_000, 1_000))
    monkeypatch.setattr(view_module, "_now", lambda: next(clock))
    view = View(Script().client, Settings())

    def say(number: int) -> OutboxEntry:
        entry = OutboxEntry(number, Kind.SAY, 0, text_body("hi"))
        view.add_pending(entry)
        return entry

    view.take(Stored(say(1), 5))
    (lag,) = {view.lag} - {0}
    view.take(Lost("the wire was cut"))
    late = say(2)
    view.take(Up(Address("memory", "script")))
    view.take(Stored(late, 6))
    assert view.lag == lag


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


@pytest.mark.parametrize("who", ["小明", fingerprint(BOB), fingerprint(BOB)[7:15]])
def test_who_was_ignored_in_an_earlier_window_is_heard_again(tmp_path: Path, who: str) -> None:
    file = tmp_path / "config.toml"
    other = fingerprint(b"e" * 32)

    async def story() -> None:
        script = Script(IN, message(1, "one"), message(2, "of mine", nick="ann"))
        ignored = Settings(ignore=(other, fingerprint(BOB)))
        async with staged(script.client, settings=ignored, file=file) as stage:
            await stage.until("of mine", gone="小明  one")
            stage.type("/ignore\r")
            await stage.until(f"?  {other}", f"小明  {fingerprint(BOB)}")
            stage.type(f"/unignore {who}\r")
            await stage.until("小明  one", "what 小明 says is shown again")
            script.happen(message(3, "two"))
            await stage.until("two")
            assert f'ignore = ["{other}"]' in file.read_text()

    run(story())


def test_who_is_ignored_and_who_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        script = Script(IN, message(1, "one"))
        async with staged(script.client, Blind(120, 40), file=tmp_path / "config.toml") as stage:
            for typed, told in (
                ("/ignore", "nobody is ignored; /ignore NICK hides what somebody says"),
                ("/unignore 小明", "小明 is not ignored; /ignore lists who is"),
                ("/ignore ann", "this is you; "),
                ("/ignore 小明", "what 小明 says is hidden, also the next time; /unignore 小明 shows it"),
                ("/ignore eve", "there is nobody called eve here; /who lists those who are"),
            ):
                stage.type(typed + "\r")
                await stage.until(told)
            assert not stage.said("小明  one")

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


def test_colours_can_be_read_on_black_and_on_white() -> None:
    def linear(level: int) -> float:  # WCAG 2.2, relative luminance
        part = level / 255
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    for colour in PALETTE:
        red, green, blue = (linear(level) for level in bytes.fromhex(colour[1:]))
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert min((luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)) >= 4, colour
    assert len(set(PALETTE)) == len(PALETTE)


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
