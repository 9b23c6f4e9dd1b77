"""A full-screen face that tests type into and look at: on a screen in memory, in a room or with a script."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from chat.client.client import Client
from chat.client.target import Target
from chat.core import status
from chat.core.bodies import Answer, Ask, Author, Gap
from chat.core.events import Here, Joined, Message
from chat.core.session import LinkState, Session
from chat.core.wire import Kind
from chat.host.host import Host
from chat.host.store import Store
from chat.local.identity import Identity, load_host
from chat.local.known_hosts import KnownHosts
from chat.transport import Address, Site
from chat.ui.fullscreen.face import FullScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from prompt_toolkit.input import PipeInput
    from prompt_toolkit.output import Output

    from chat.client.events import ClientEvent
    from chat.core.errors import ChatError


LOCAL_INVITE = "chat://queue:%2Frun%2Fqueue/" + "a-room" * 5 + "#" + "A" * 43 + "." + "A" * 22
ANN, BOB = b"a" * 32, b"b" * 32


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30) as limit:  # it is there for a hang
            await story
        assert not limit.expired()  # nor was that what ended it

    asyncio.run(bounded())


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
        self.type_bytes = keys.send_bytes
        self.task = task
        self._drawn = asyncio.Event()
        face.app.after_render += lambda _: self._drawn.set()

    def rows(self, width: int = 0) -> list[str]:
        screen = self.face.app.renderer.last_rendered_screen
        if screen is None:
            return []
        size = self.face.app.output.get_size()
        slots = (screen.data_buffer[y] for y in range(size.rows))
        return ["".join(row[x].char for x in range(width or size.columns)).rstrip() for row in slots]

    def pane_rows(self) -> list[str]:
        """The rows of the pane: neither the bars nor what is beside it."""
        screen, app = self.face.app.renderer.last_rendered_screen, self.face.app
        at = screen and screen.visible_windows_to_write_positions.get(app._pane_window)
        return self.rows(at.width)[at.ypos : at.ypos + at.height] if at else []

    def said(self, text: str) -> list[str]:
        """The rows of the pane with ``text`` in them, without the time and what is blank before the name."""
        return [re.sub(r"^[ ▌]?(\d\d:\d\d)? *", "", row) for row in self.pane_rows() if text in row]

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


class Hosted:
    """Stands in for a room's process where a test is about keys."""

    listening = (json.dumps({"room": "lobby", "transport": "queue", "invite": LOCAL_INVITE}),)
    kept = False
    is_running = True
    on_end: Callable[[ChatError], object] | None = None

    def keep(self) -> None:
        self.kept = True

    async def reopen(self) -> None:
        self.is_running = True


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
    """Wait until ``client`` has a message with this text."""
    async for event in client:
        if isinstance(event, Message) and event.text == text:
            return event
    raise AssertionError(f"{text!r} was not said")


class Script:
    """Stands in for a client where events are needed that a healthy room does not have."""

    def __init__(self, *events: ClientEvent, room: str = "lobby") -> None:
        self.wanted = "ann"
        self.session = Session(room, ANN, nick="ann")
        self.session.state = LinkState.JOINED
        self.session.here.update({(ANN, "ann"): False, (BOB, "小明"): False})
        self.address = Address("memory", "script")
        self.trusted_on_first_use = ""
        self.host_key = b"h" * 32
        self.wire: tuple[str, ...] = ("memory", "pinned")
        self.shows = status.Status()
        self.asked: list[Ask] = []
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.ranges = 0
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

    async def range(self, first: int, before: int, reached: Callable[[int], None]) -> list[Message | Gap]:
        """The host never answers."""
        self.ranges += 1
        return await asyncio.Future()

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


IN = Here([], [], first=True)  # we are in, and who is here has been told


def joined(end: int, *, read: int = 0, resumed: bool = False) -> Joined:
    return Joined("lobby", b"e" * 8, end, "ann", "member", resumed=resumed, proof=b"", read=read)


def lines(first: int, last: int) -> list[ClientEvent]:
    return [message(n, f"line {n}") for n in range(first, last + 1)]


def below_the_marker(stage: Stage) -> str:
    rows = stage.pane_rows()
    marker = next(at for at, row in enumerate(rows) if row.startswith("────") and row.endswith("────"))
    return rows[marker + 1].partition("│ ")[2]


class Ringing(Blind):
    bells = 0

    def bell(self) -> None:
        self.bells += 1
