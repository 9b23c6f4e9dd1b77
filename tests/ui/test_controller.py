"""What every face does with a command: the table and its methods, and a controller under a face that only records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from chat.core import status
from chat.core.bodies import Ask, Author
from chat.core.errors import ChatError, LinkBroken, LocalProtocolError, WrongValue
from chat.core.events import Message
from chat.core.session import LinkState, Session
from chat.core.status import Level
from chat.core.wire import Kind
from chat.local.identity import fingerprint
from chat.local.settings import Settings
from chat.ui import moderation
from chat.ui.commands import COMMANDS, LINES, SCREEN
from chat.ui.controller import Controller
from chat.ui.entry import MessageEntry
from chat.ui.face import Face
from chat.ui.fullscreen.face import FullScreen
from chat.ui.fullscreen.screen_commands import ScreenCommands
from chat.ui.linear import Linear, Room
from chat.ui.ndjson import _NEEDED, _Program

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.outgoing import OutboxEntry, Outgoing
    from chat.ui.face import Work

ANN, BOB = b"a" * 32, b"b" * 32


class Mouth:
    """Stands in for a client: it keeps what it was told to say."""

    def __init__(self, room: str = "lobby", other: bytes = b"") -> None:
        self.session = Session(room, ANN, nick="ann", other=other)
        self.session.state = LinkState.JOINED
        self.session.here.update({(ANN, "ann"): False, (BOB, "bob"): False})
        self.shows = status.Status()
        self.said: list[Outgoing] = []
        self.fails: ChatError | None = None
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self.fails:
            raise self.fails
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.closed.set()

    async def say(self, message: Outgoing) -> object:
        if self.fails:
            raise self.fails
        self.said.append(message)
        return None

    def direct(self, other: bytes) -> Client:
        return cast("Client", Mouth("@hash", other))

    def show(self, **changes: Any) -> None:
        shows = self.shows._replace(**changes)
        status.pack_slot(ANN, "ann", shows)
        self.shows = shows

    def people(self) -> dict[status.Who, status.Status]:
        return dict.fromkeys(self.session.here, status.Status())


@dataclass
class Recorder(Face[Room]):
    """A face that shows nothing and keeps everything."""

    kind = LINES
    entry: MessageEntry | None = None  # the chosen message
    lines: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def make_room(self, client: Client, partner: str = "") -> Room:
        return Room(client, partner)

    async def follow(self, room: Room) -> None:
        await mouth(room).closed.wait()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def show(self, *lines: str, room: Room | None = None) -> None:
        self.lines += lines

    def chosen(self, command: str) -> MessageEntry:
        if self.entry is None:
            raise ChatError("there is no message")
        return self.entry

    def begin(self, command: str, item: MessageEntry) -> Work:
        self.events.append(("begin", command))
        return None

    def sent(self, room: Room, entry: OutboxEntry) -> None:
        self.events.append(("sent", room.name))

    def unsent(self, room: Room, typed: str, error: ChatError) -> None:
        self.events.append(("unsent", typed))

    def left(self, room: Room) -> None:
        self.events.append(("left", room.name))

    def entered(self, room: Room) -> None:
        self.events.append(("entered", room.name))

    def closed(self, room: Room) -> None:
        self.events.append(("closed", room.name))

    def changed(self, name: str) -> None:
        self.events.append(("changed", name))


def mouth(room: Room) -> Mouth:
    return cast("Mouth", room.client)


def desk(settings: Settings | None = None, file: Path | None = None) -> tuple[Controller[Room], Recorder]:
    face = Recorder()
    controller = Controller(face, Room(cast("Client", Mouth())), settings or Settings(), None, file)
    return controller, face


def do(controller: Controller[Room], name: str, argument: str = "") -> None:
    async def story() -> None:
        if work := controller.do(name, argument):
            await work

    asyncio.run(story())


def entry(seq: int = 7) -> MessageEntry:
    author = Author(index=1, key=BOB, stream=1, nick="bob")
    return MessageEntry.of(Message(seq, 0, author, Kind.SAY, "one\ntwo", 0, mine=False), ANN)


# -- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "own"), [(FullScreen, ScreenCommands), (Linear, Linear)])
def test_every_command_of_a_face_has_a_method(face: type[Face[Any]], own: type) -> None:
    for usage in COMMANDS:
        has = hasattr(own, f"do_{usage.name}") or hasattr(Controller, f"do_{usage.name}")
        assert has or usage.only not in ("", face.kind), usage.name


def test_every_method_has_a_row_in_the_table() -> None:
    methods = {name for one in (Controller, ScreenCommands, Linear, _Program) for name in dir(one)}
    assert {name.removeprefix("do_") for name in methods if name.startswith("do_")} == {one.name for one in COMMANDS}


def test_every_command_of_a_program_has_a_method() -> None:
    assert all(hasattr(_Program, f"do_{name}") or hasattr(Controller, f"do_{name}") for name in _NEEDED)


def test_a_command_of_another_face_is_not_done() -> None:
    controller, face = desk()
    with pytest.raises(ChatError, match="/theme is for the full-screen face"):
        controller.do("theme", "dark")
    face.kind = SCREEN
    with pytest.raises(ChatError, match="/numbers is for chat join --plain"):
        controller.do("numbers")


# -- messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "argument", "kind", "text", "target"),
    [
        ("me", "waves :tada:", Kind.ACTION, "waves 🎉", 0),
        ("reply", "yes", Kind.SAY, "yes", 7),
        ("edit", "new", Kind.EDIT, "new", 7),
        ("retract", "", Kind.RETRACT, "", 7),
        ("react", ":tada:", Kind.REACT, "🎉", 7),
    ],
)
def test_a_command_about_a_message_names_it(name: str, argument: str, kind: int, text: str, target: int) -> None:
    controller, face = desk()
    face.entry = entry()
    do(controller, name, argument)
    (message,) = mouth(controller.room).said
    assert (message.kind, message.text, message.target) == (kind, text, target)
    assert face.events == [("sent", "#lobby")]


@pytest.mark.parametrize(("name", "kind"), [("reply", Kind.SAY), ("edit", Kind.EDIT)])
def test_a_command_without_its_text_takes_the_next_message(name: str, kind: int) -> None:
    controller, face = desk()
    face.entry = entry()
    do(controller, name)
    assert controller.begun == (name, face.entry)

    async def story() -> None:
        for text in ("first", "second"):
            work = controller.say(text)
            assert work is not None
            await work

    asyncio.run(story())
    said = [(one.kind, one.text, one.target) for one in mouth(controller.room).said]
    assert said == [(kind, "first", 7), (Kind.SAY, "second", 0)]


def test_what_is_too_long_is_not_sent_and_what_was_begun_stays() -> None:
    controller, face = desk()
    face.entry = entry()
    do(controller, "reply")
    with pytest.raises(LocalProtocolError):
        controller.say("x" * 20_000)
    assert controller.begun is not None
    assert not face.events[1:]


def test_what_the_outbox_does_not_take_goes_back_as_it_was_typed() -> None:
    controller, face = desk()
    mouth(controller.room).fails = LinkBroken("gone")
    do(controller, "me", "waves")
    assert face.events == [("unsent", "/me waves")]


def test_emoji_names_stay_as_they_are_if_the_settings_say_so() -> None:
    controller, _face = desk(Settings(emoji_names=False))
    do(controller, "me", ":tada:")
    assert mouth(controller.room).said[0].text == ":tada:"


# -- rooms --------------------------------------------------------------------------------------------


def test_rooms_are_entered_once_and_left() -> None:
    async def story() -> None:
        controller, face = desk()
        lobby = controller.room
        for text in ("psst", "again"):
            if work := controller.do("msg", f"bob {text}"):
                await work
        direct = controller.room
        assert [room.name for room in controller.rooms] == ["#lobby", "@bob"]
        assert [one.text for one in mouth(direct).said] == ["psst", "again"]
        assert face.lines[0] == "only bob and you are in this room; the host's owner can read it, too"
        controller.do("room", "lob")
        assert controller.room is lobby
        controller.do("room", "2")
        assert controller.room is direct
        if work := controller.do("part"):
            await work
        await asyncio.gather(*face.tasks)
        assert (controller.room, controller.rooms) == (lobby, [lobby])
        assert face.events[-3:] == [("left", "@bob"), ("entered", "#lobby"), ("closed", "@bob")]

    asyncio.run(story())


def test_a_room_that_does_not_let_us_in_is_closed_again() -> None:
    async def story() -> None:
        controller, face = desk()
        closed = Mouth("secret")
        closed.fails = LinkBroken("you are banned")
        work = controller.open(Room(cast("Client", closed)))
        assert work is not None
        with pytest.raises(LinkBroken, match="you are banned"):  # which the face shows
            await work
        await asyncio.gather(*face.tasks)
        assert [room.name for room in controller.rooms] == ["#lobby"]
        assert face.lines == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "argument", "told"),
    [
        ("part", "", "leave this room with /quit"),
        ("room", "3", "there is no room 3 in this window"),
        ("room", "0", "there is no room 0 in this window"),
        ("room", "garden", "no room here is called garden; /join enters another one"),
        ("join", "garden", "no other room can be entered from here; use chat join in another terminal"),
        ("msg", "ann hi", "this is you; /msg NICK is for somebody else"),
        ("msg", "eve hi", "there is nobody called eve here; /who lists those who are"),
        ("who", "eve", "there is nobody called eve here; /who lists those who are"),
        ("ignore", "ann", "this is you; /ignore NICK is for somebody else"),
        ("unignore", "bob", "bob is not ignored; /ignore lists who is"),
        ("set", "colour red", "there is no setting colour; /set lists them"),
        ("reply", "yes", "there is no message"),
    ],
)
def test_what_cannot_be_done_is_raised(name: str, argument: str, told: str) -> None:
    controller, face = desk()
    with pytest.raises(ChatError) as caught:
        controller.do(name, argument)
    assert str(caught.value) == told
    assert not face.lines


def test_a_topic_is_shown_set_and_removed_and_a_private_room_has_no_invite() -> None:
    controller, face = desk()
    do(controller, "topic")
    mouth(controller.room).session.topic = "tea\x1b[2J"
    do(controller, "topic")
    assert face.lines == ["this room has no topic; /topic TEXT sets one", "topic: tea␛[2J"]
    assert moderation.question("topic", "-") == Ask(what="topic")
    assert moderation.question("topic", "tea - cake").text == "tea - cake"
    mouth(controller.room).session.other = BOB
    with pytest.raises(ChatError, match="nobody else can come into a private room"):
        controller.do("invite")


# -- settings and what we show ------------------------------------------------------------------------


def test_a_setting_counts_at_once_and_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    controller, face = desk(file=file)
    do(controller, "set", "bell never")
    do(controller, "bell", "off")
    do(controller, "ignore", "bob")
    assert controller.settings == Settings(bell="never", muted=("lobby",), ignore=(fingerprint(BOB),))
    assert BOB in controller.room.timeline.ignored
    assert [name for event, name in face.events if event == "changed"] == ["bell", "muted", "ignore"]
    assert 'bell = "never"' in file.read_text()
    do(controller, "bell", "on")
    do(controller, "unignore", "bob")
    assert controller.settings == Settings(bell="never")
    do(controller, "set", "language zh")
    assert controller.settings.language == "auto"
    assert face.lines[-1] == "language is set and takes effect at the next start"
    with pytest.raises(WrongValue, match="bell cannot be"):
        controller.do("set", "bell loud")


def test_who_does_nothing_is_away_until_the_next_key_and_who_says_so_stays_away() -> None:
    controller, face = desk()
    other = Room(cast("Client", Mouth("garden")))
    controller.rooms.append(other)
    controller.idle()
    assert mouth(other).shows.level == Level.AWAY
    controller.touch()
    assert mouth(other).shows.level == Level.ONLINE
    controller.do("busy", "call")
    controller.idle()
    controller.touch()
    assert [mouth(room).shows.level for room in controller.rooms] == [Level.BUSY, Level.BUSY]
    controller.do("back")
    assert mouth(other).shows.level == Level.ONLINE
    assert face.lines == ["you are shown as busy", "you are shown as here"]
    with pytest.raises(ValueError, match="note is too long"):
        controller.do("away", "x" * 500)
