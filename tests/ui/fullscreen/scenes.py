"""What the screen looks like in scenes that people meet: drawn by the real application, the same on every machine.

    ann:  the full screen ──▶ Vt100_Output ──▶ pyte: cells ─┬▶ tests/ui/golden/*.txt   (test_screens.py)
    bob, 小明, dice, cid: clients ─▶ host in this process   └▶ docs/screens/*.svg      (scripts/screenshot)

Rules:

1. The clock stands still until a scene moves it. Keys come from fixed seeds, since the colour of a name comes from
   its key. The environment is empty but for what is set here.
2. Nothing is waited for by time: each step waits until the screen shows the one before.
"""

# ruff: noqa: RUF001 - Chinese has punctuation of its own

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import select
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, Self
from unittest import mock

import pyte
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding.key_processor import _Flush
from prompt_toolkit.output.vt100 import Vt100_Output
from wcwidth import iter_graphemes, wcswidth

from chat import i18n
from chat.client import connection
from chat.client.client import Client
from chat.client.target import Target
from chat.core.ledger import BOT
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.host import host as host_module
from chat.host.host import Host
from chat.host.store import Store
from chat.i18n import _
from chat.local.identity import Identity, host_hash, load_host
from chat.local.known_hosts import KnownHosts
from chat.local.settings import DEFAULTS
from chat.transport import Address, Site
from chat.ui.fullscreen import graphemes, watcher
from chat.ui.fullscreen.face import FullScreen
from tests.ui.fullscreen.stage import Hosted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from prompt_toolkit.input import PipeInput

    from chat.core.status import Status, Who
    from chat.local.settings import Settings

SIZE: Final = (80, 24)  # columns and rows, in which the scenes are played
SIZES: Final = (SIZE, (120, 40), (20, 5))
EVENING: Final = 1_767_298_500_000  # ms since 1970: Thursday, 1 January 2026, 20:15 UTC
PATIENCE: Final = 20.0  # seconds for one scene; it is there for a hang
SEEDS: Final = {
    "ann": b"ann 1",
    "bob": b"bob",
    "小明": b"xiaoming 2",
    "dice": b"dice",
    "mia": b"ann 1",
}  # of four colours
KETTLE: Final = "how to tell:\n```python\ndef kettle():\n    return 'on'\n```"
PASTE: Final = "\n".join(f"{n:03} water at {20 + n * 80 // 200} °C" for n in range(1, 201))
TYPED: Final = "茶还是热的，have some"

ESCAPE: Final = "\x1b"
ALT: Final = ESCAPE  # before another key
ALT_UP: Final = "\x1b[1;3A"
F1: Final = "\x1bOP"
CTRL_K: Final = "\x0b"
CTRL_END: Final = "\x1b[1;5F"
CTRL_U: Final = "\x15"


# -- a machine that is always the same ----------------------------------------------------------------


class Clock:
    now = EVENING

    def at(self, minute: int) -> None:
        """Make it so many minutes past 20:00."""
        self.now = EVENING + (minute - 15) * 60_000

    def seconds(self) -> float:
        return self.now / 1000

    def nanoseconds(self) -> int:
        return self.now * 1_000_000


@contextmanager
def fixed_machine(folder: Path, language: str) -> Iterator[Clock]:
    """Fix the time, its zone, the language and the environment."""
    clock = Clock()
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    own = dict.fromkeys(names, str(folder)) | {"TERM": "xterm-256color", "TZ": "UTC", "LANG": "C.UTF-8"}
    with (
        mock.patch.dict(os.environ, own | {"PATH": os.environ["PATH"]}, clear=True),
        mock.patch("time.time", clock.seconds),
        mock.patch("time.time_ns", clock.nanoseconds),
        mock.patch.object(host_module, "_wall_clock", float),  # or the host would warn that it was set
        mock.patch.object(watcher, "_LOOK", PATIENCE),  # ``at`` looks instead
        mock.patch.object(connection, "_FIRST_DELAY", PATIENCE),  # one try to come back, and the screen stays
    ):
        time.tzset()
        i18n.use(language)
        graphemes.show_whole(graphemes.SAMPLES)
        try:
            yield clock
        finally:
            graphemes.show_whole(())
            i18n.use("en")
    time.tzset()


# -- ann's terminal -----------------------------------------------------------------------------------


class Graphemes(pyte.Screen):
    """pyte's screen, but a cell holds what a reader takes for one character: pyte 0.8.2 drops what follows some."""

    def draw(self, data: str) -> None:
        for text in iter_graphemes(data):
            if width := min(wcswidth(text), 2):
                super().draw("你" if width == 2 else "x")
                self.buffer[self.cursor.y][self.cursor.x - width] = self.cursor.attrs._replace(data=text)

    @property
    def display(self) -> list[str]:
        return ["".join(self.buffer[y][x].data for x in range(self.columns)) for y in range(self.lines)]


class Terminal(Vt100_Output):
    """A terminal, the keys that are pressed on it, and the face that runs there."""

    face: FullScreen

    def __init__(self, keys: PipeInput) -> None:
        self._file = io.StringIO()
        super().__init__(self._file, lambda: self.size, term="xterm-256color", enable_cpr=False)
        self._keys = keys
        self.type = keys.send_text
        self.resize(*SIZE)

    def resize(self, columns: int, rows: int) -> None:
        """Become another size, and blank: a real terminal is drawn anew as well."""
        self.size = Size(rows=rows, columns=columns)
        self.screen = Graphemes(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._rows: list[str] = []

    def rows(self) -> list[str]:
        """Return what the screen shows; a wide character is one of two columns."""
        if written := self._file.getvalue():
            self._file.seek(0)
            self._file.truncate()
            self._stream.feed(graphemes.spell_out(written))
            self._rows = self.screen.display
        return self._rows

    async def until(self, holds: Callable[[], object], what: str = "it") -> None:
        """Wait for something at the size of the scenes; if it never comes, say what the screen shows instead."""
        await self._become(SIZE)
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():  # noqa: ASYNC110  there is no event for it
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError("\n".join([f"{what} never came; the screen shows:", *self.rows()])) from None

    async def shows(self, *texts: str) -> None:
        """Wait until each text is in some row."""
        await self.until(lambda: all(any(text in row for row in self.rows()) for text in texts), f"{texts!r}")

    async def step_back(self) -> None:
        """Press Escape until there is nothing left to close, and the newest message is in view."""
        self.type(CTRL_U)
        for _step in range(5):
            self.type(ESCAPE)
            await self.until(lambda: not select.select([self._keys.fileno()], [], [], 0)[0])
            processor = self.face.app.key_processor  # what a pause does: an Escape was only that
            processor.feed_multiple(self._keys.flush_keys())
            processor.process_keys()
            processor.feed(_Flush)
            processor.process_keys()

    async def _become(self, size: tuple[int, int]) -> None:
        if size != (self.size.columns, self.size.rows):
            self.resize(*size)
            self.face.app._on_resize()  # what SIGWINCH calls

    async def at(self, size: tuple[int, int]) -> Graphemes:
        """Return the screen at a size, once nothing moves there any more."""
        await self._become(size)
        before: list[str] = []
        while True:
            for _turn in range(20):
                await asyncio.sleep(0)
            self.face.view.look()
            self.face.app._redraw()
            if (shown := self.rows()) == before:
                return self.screen
            before = list(shown)
            await asyncio.sleep(0.002)


# -- the room, and who is there -----------------------------------------------------------------------


class House:
    """A host with the rooms "tea" and "build", and those who come there."""

    def __init__(self, folder: Path, clock: Clock, opened: AsyncExitStack) -> None:
        self.folder, self.clock, self.opened = folder, clock, opened
        self.guests: dict[str, Client] = {}

    async def open(self) -> Self:
        self.store = Store(self.folder / "store")
        self.host = Host(load_host(self.folder / "host.pem"), self.store, owners=frozenset({identity("ann").key}))
        self.host.open_room("build", open_to_all=True)
        self.host.open_room("tea", open_to_all=True)
        asked = Address.parse(f"queue:{self.folder}/q")
        self.address = await self.host.listen(asked, Site(self.folder, self.folder / "host.pem"), "tea")
        self.running = asyncio.ensure_future(self.host.run())
        self.opened.push_async_callback(self.close)
        return self

    async def close(self) -> None:
        if self.running.cancel():
            await asyncio.wait([self.running])
            await self.host.aclose()
            self.store.close()

    def client(self, nick: str, room: str = "tea", *, silent: bool = False) -> Client:
        return Client(
            lambda: Target((self.address,), room, host_hash(self.host.identity.key)),
            identity(nick),
            KnownHosts(self.folder / f"{nick}.hosts"),
            outboxes=self.folder / f"{nick}.outboxes",
            nick=nick,
            history=50,
            looks=True,
            silent=silent,
        )

    async def come(self, nick: str, room: str = "tea") -> Client:
        guest = self.guests[nick] = await self.opened.enter_async_context(self.client(nick, room))
        return guest

    async def say(self, nick: str, text: str, kind: int = Kind.SAY, target: int = 0) -> None:
        """Have a guest say something; it is in the log by the end."""
        await self.guests[nick].say(Outgoing(text, kind, target))
        await self.guests[nick].settled()
        for guest in self.guests.values():
            guest.take()

    def bring_bot(self, nick: str) -> None:
        self.host.rooms["tea"].room.admit(identity(nick).key, BOT)

    @property
    def last(self) -> int:
        """The number of the last message in "tea"."""
        return self.host.rooms["tea"].room.log.end - 1


def identity(nick: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(SEEDS[nick]).digest()))


# -- the scenes -----------------------------------------------------------------------------------------


async def scenes(terminal: Terminal, house: House) -> AsyncIterator[str]:
    """Play all scenes, and yield the name of each while it stands on the screen."""
    face, shown, comes_to = terminal.face, terminal.shows, terminal.until

    async def press(keys: str, *texts: str) -> None:
        terminal.type(keys)
        await shown(*texts)

    async def write(text: str, *texts: str) -> None:
        """Send something, until the host has it."""
        await press(f"{text}\r", *texts)
        await comes_to(lambda: not (face.view.session.unsettled or face.input.text))

    def others() -> dict[Who, Status]:
        face.view.look()
        return {who: status for who, status in face.view.people.items() if who[1] != "ann"}

    await shown("chat join")
    yield "start"

    terminal.type("/topic Five o'clock, by the stove\r")
    await comes_to(lambda: face.view.session.topic)
    for nick in ("bob", "小明"):
        await house.come(nick)
        await shown(nick)
    await write("Good evening! The window is open, come in.", "window is open")
    await house.say("bob", "Here I am. What does the ✓ mean?")
    asked = house.last
    await shown("mean?")
    await write("That it is on the host's disk. A message that is not there yet has a … instead.", "there yet has")
    for nick, emoji in (("bob", "👍"), ("小明", "👍"), ("小明", "🍵")):
        await house.say(nick, emoji, Kind.REACT, asked + 1)
    house.clock.at(16)
    await house.say("小明", "大家好！我刚到，外面下雨了。")
    came = house.last
    await house.say("小明", "就是已经写到磁盘上了", target=asked)
    await house.say("bob", KETTLE)
    await shown("return 'on'")
    house.host.rooms["tea"].room.admit(identity("dice").key, BOT)
    await house.come("dice")
    await shown("dice")
    house.clock.at(18)
    await house.say("bob", "@ann the water is boiling")
    await shown("boiling")
    await write("coming", "coming")
    for guest in house.guests.values():
        guest.show(read=house.last)
    house.guests["小明"].show(typing=True)
    await press(TYPED, TYPED)
    await comes_to(lambda: {one.read for one in others().values()} == {house.last})
    await comes_to(lambda: any(one.typing for one in others().values()))
    yield "talk"

    house.guests["小明"].show(typing=False)
    await comes_to(lambda: not any(one.typing for one in others().values()))
    terminal.type(CTRL_U + ALT_UP * 5)
    await comes_to(lambda: getattr(face.view.selected(), "seq", 0) == came)
    terminal.type(f"{ALT}r")
    await comes_to(lambda: face.controller.begun is not None)
    await press("带伞了吗？ There is room by the stove", "by the stove")
    yield "reply"

    await terminal.step_back()
    terminal.type("/search 大家\r")
    await comes_to(lambda: face.view.search is not None and face.view.search.place[1])
    await comes_to(lambda: face.view.work is None)
    yield "search"

    await terminal.step_back()
    house.clock.at(20)
    await house.say("bob", PASTE)
    await house.say("小明", "太长了 🤷🏽\u200d♀\ufe0f", target=house.last)
    await shown("太长了")
    yield "paste"

    terminal.type(F1)
    yield "help"

    await terminal.step_back()
    terminal.type("/join build\r")
    await comes_to(lambda: face.view.name == "#build")
    await house.come("mia", "build")  # another window of ann's
    await shown("mia")
    await house.say("mia", "@ann it is me, in my other window")
    await write("so I see", "so I see")
    yield "seats"

    house.clock.at(31)
    await house.say("小明", "@ann 水开了")
    await house.say("dice", "⚃ ⚁")
    terminal.type("/room tea\r")
    await shown("水开了", "⚃")
    yield "unread"

    await write("/msg bob Who brings the cups?", "brings the cups?")
    await comes_to(lambda: face.view.partner and not face.view.session.unsettled)
    bob = await house.opened.enter_async_context(house.guests["bob"].direct(identity("ann").key))
    await shown(_("{nicks} joined").format(nicks="bob"))
    await bob.say("I do. 两个够吗？ 👨\u200d👩\u200d👧")
    await shown("两个够吗")
    await house.say("小明", "谁要茶？")
    await house.say("mia", "@ann the kettle is red again")
    await comes_to(lambda: sum(view.timeline.read_state.unread for view in face.controller.rooms) == 2)
    yield "private"

    await press(f"{CTRL_K}bu", "#build")
    yield "palette"

    await terminal.step_back()
    terminal.type("/room tea\r")
    await shown("谁要茶")
    house.clock.at(33)
    await house.close()
    await comes_to(lambda: face.view.lost_since)
    house.clock.at(35)
    await press("is anybody still there?\r", "still there?")
    await press(TYPED, TYPED)
    yield "lost"


@asynccontextmanager
async def stage(folder: Path, language: str, settings: Settings = DEFAULTS) -> AsyncIterator[tuple[Terminal, House]]:
    """Open the house, and let ann sit down in it."""
    with fixed_machine(folder, language) as clock, create_pipe_input() as keys:
        terminal = Terminal(keys)
        async with AsyncExitStack() as opened:
            opened.enter_context(create_app_session(input=keys, output=terminal))
            house = await House(folder, clock, opened).open()
            ann = await opened.enter_async_context(house.client("ann"))
            hosted = Hosted()
            invite = str(house.host.invite("tea"))
            hosted.listening = (json.dumps({"room": "tea", "transport": "queue", "invite": invite}),)
            face = FullScreen(ann, settings=settings, opener=lambda room: house.client("ann", room), hosted=hosted)
            terminal.face = face
            task = asyncio.create_task(face.run())
            try:
                yield terminal, house
            finally:
                face.app.leave()
                await task


async def draw(
    folder: Path, language: str, sizes: Iterable[tuple[int, int]], settings: Settings = DEFAULTS
) -> AsyncIterator[tuple[str, Graphemes, FullScreen]]:
    """Play the scenes in a folder that is empty; yield each scene's name, and its screen at each of the sizes."""
    async with stage(folder, language, settings) as (terminal, house):
        async for name in scenes(terminal, house):
            for size in sizes:
                yield name, await terminal.at(size), terminal.face
