"""Nothing that came from a peer moves a cursor, sets a title or turns a text round: random texts and known attacks.

    random texts (100,000 with --slow) ─▶ each face's way from an event to what is written
    the attacks, once each ─▶ a host that tells nothing else ─▶ real clients ─▶ whole faces, every command that answers

What a terminal obeys is looked for in what is written, not in what was read: in the text that prompt_toolkit is given
(before it replaces anything itself), in its raw sequences, and in the bytes that the other faces write to a file.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import random
import re
import select
import sys
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.application.current import set_app
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import DummyInput, create_pipe_input
from prompt_toolkit.key_binding.key_processor import _Flush
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, VSplit, Window
from prompt_toolkit.output.vt100 import Vt100_Output

from chat import ndjson
from chat.cli import home, invite, main, oneshot
from chat.client.board_view import as_names
from chat.client.client import Client
from chat.client.events import Lost, as_object
from chat.client.target import Target
from chat.core.bodies import Answer, Ask, Author, Direct, Gap, Names, Notice, Presence, Rewind, States, pack, unpack
from chat.core.errors import ChatError, LinkBroken, LinkClosed
from chat.core.events import Here, Joined, Message, Rewound
from chat.core.outgoing import Outgoing
from chat.core.session import LinkState
from chat.core.status import Level, pack_slot, seen, unpack_slot
from chat.core.status import Status as Shown
from chat.core.text import visible
from chat.core.wire import LAST, REPLY, Kind, encode
from chat.host.process import Log
from chat.host.programs import _write_log
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from chat.local.rooms import RoomLock, RoomRecord
from chat.local.streams import Output
from chat.transport import Address
from chat.ui import linear, theme
from chat.ui.describe import describe, describe_message
from chat.ui.entry import MessageEntry
from chat.ui.fullscreen.conversation import Conversation
from chat.ui.fullscreen.face import FullScreen
from chat.ui.fullscreen.pane import Pane
from chat.ui.fullscreen.wrapping import clip
from chat.ui.markup import parse, without_delimiters
from chat.ui.people import as_line
from chat.ui.timeline import Timeline
from tests.cli.programs import terminal
from tests.host.host_fixture import Script, Scripted, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from chat.client.events import ClientEvent

ANN, BOB = b"a" * 32, b"b" * 32
COLUMNS, ROWS = 120, 80  # all of a batch is in view, but for the longest texts

ATTACKS = (
    "\x1b[31mred", "\x1b[2J\x1b[H", "\x1b[6n", "\x1b[?1049l", "\x1b[20t", "\x1b[c", "\x1bc", "\x1b[!p",
    "\x9b31m", "\x9b2J", "\x9d0;title\x9c", "\x90q\x9c", "\x85", "\x8d", "\x84",  # C1: CSI, OSC, DCS, NEL, RI, IND
    "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\", "\x1b]52;c;cm0=\x07",
    "\x1b]1337;File=:AAAA\x07", '\x1bP$q"p\x1b\\', "\x1bPtmux;\x1b\x1b]0;x\x07\x1b\\", "\x1b_Ga=T\x1b\\",
    "\x1b^x\x1b\\", "\x1b(0", "\x1b#8", "\x1bN", "\x0e\x0f", "\x08\x08\x08root", "\rroot: ", "\x0b\x0c", "\x07" * 9,
    "\x00", "\x7f", "\u202eevil\u202c", "\u2066x\u2069", "\u200e\u200f\u061c", "\u202a\u202b\u202d", "\u2028\u2029",
    "a" + "\u0301" * 500, "\u0301" * 500, "\U000e0041\U000e007f", "\ufe0f\u200d\u200c", "\U000e0100" * 50,
    "\u115f\u3164", "\ud800", "\udfff", "\ufeff", "\ufffe", "\U0010ffff", "\ue000",
    "[ZeroWidthEscape]", "\x01\x02", "\x01\x1b[31m\x02", "<ansired>x</ansired>", "class:bar", "#ff0000 bold",
    "{0.__class__}", "%s%n", "**\x1b[1m**", "`\x1b]0;x\x07`", "```\x1bpy\n\x9b1m\n```", "> \u202eevil", "- \x1b[A",
    "http://x/\x1b]8;;y\x07", "\\x1b[31m",
)  # fmt: skip
# What no face may write, but for the sequences that are prompt_toolkit's own.
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e0fff]"
)
# prompt_toolkit's own: cursor, erasing, modes, colours from its table of 256, the cursor's shape; and our bell.
# Whatever the room and its members are called.
TITLE = r"\x1b\]2;[^;\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]{1,60}\x07"
OWN = re.compile(
    rf"(\x1b\[(\?\d+[hl]|\d*[ABCDHJK]|0(;38;5;\d+|;48;5;\d+|;[1-9])*m|\d+;\d+H|\d* q)|[\r\n\b\x07]|{TITLE})*"
)


def hostile(seed: int, count: int) -> Iterator[str]:
    """Texts of attacks, ranges that matter and any character at all; the same ones each time."""
    generator = random.Random(seed)
    ranges = [(0, 0x20), (0x20, 0x7F), (0x7F, 0xA0), (0x300, 0x370), (0x590, 0x700), (0x900, 0xE00), (0x1100, 0x1200)]
    ranges += [(0x2000, 0x2070), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xD800, 0x10000), (0x1F1E6, 0x1F200)]
    ranges += [(0x1F300, 0x1FB00), (0xE0000, 0xE0200), (0, 0x110000)]

    def part() -> str:
        if generator.random() < 0.4:
            return generator.choice(ATTACKS)
        first, end = generator.choice(ranges)
        return "".join(chr(generator.randrange(first, end)) for _ in range(generator.randint(1, 6)))

    yield from ATTACKS
    for _ in range(count - len(ATTACKS)):
        yield "".join(part() for _ in range(generator.randint(1, 5)))


def valid(text: str) -> str:
    """A text as it can cross the wire: halves of surrogate pairs are no Unicode."""
    return text.encode("utf-8", "replace").decode()


def batches(seed: int, count: int) -> Iterator[list[str]]:
    texts = list(hostile(seed, count))
    return (texts[at : at + 10] for at in range(0, len(texts), 10))


SLOW = [pytest.param(seed, 25_000, marks=pytest.mark.slow) for seed in range(1, 5)]
FORMS = pytest.mark.parametrize(("seed", "count"), [(0, 1_000), *SLOW])


# -- full screen --------------------------------------------------------------------------------------


class Recorder(Vt100_Output):
    """Keeps apart what is written as text and what is written raw."""

    def __init__(self) -> None:
        self.rows = ROWS
        super().__init__(
            io.StringIO(), lambda: Size(rows=self.rows, columns=COLUMNS), term="xterm-256color", enable_cpr=False
        )
        self.texts: list[str] = []
        self.raw: list[str] = []

    def write(self, data: str) -> None:
        (self.texts if data.strip("\r\n") else self.raw).append(data)  # its way to another row is written as text
        super().write(data)

    def write_raw(self, data: str) -> None:
        self.raw.append(data)

    def flush(self) -> None:
        self._buffer.clear()

    def check(self, texts: list[str]) -> None:
        """What has been written is text that nothing obeys, and sequences of prompt_toolkit's own."""
        written, raw = "".join(self.texts), "".join(self.raw)
        assert not OBEYED.search(written), (ascii(OBEYED.findall(written)), ascii(texts))
        assert OWN.fullmatch(raw), (ascii(OWN.sub("", raw)), ascii(texts))
        assert written.strip()
        self.texts.clear()
        self.raw.clear()


def author(nick: str) -> Author:
    return Author(index=1, key=BOB, stream=1, nick=nick)


def messages(texts: list[str], first: int = 1) -> list[Message]:
    """The same texts as all that a peer can say: messages, edits, answers, reactions; and as a nickname."""
    made = []
    kinds = (Kind.SAY, Kind.SAY, Kind.ACTION, Kind.EDIT, Kind.REACT, 9)
    for seq, text in enumerate((text for text in texts for _ in kinds), first):
        kind = kinds[(seq - first) % len(kinds)]
        made.append(Message(seq, seq * 1000, author(texts[seq % len(texts)]), kind, text, seq - 2, mine=False))
    return made


@FORMS
def test_the_pane_writes_nothing_that_a_terminal_obeys(seed: int, count: int) -> None:
    recorder = Recorder()
    timeline = Timeline(ANN, "ann", UTC)
    pane = Pane(Conversation(timeline))
    name = ""
    styles: set[str] = set()
    with create_app_session(input=DummyInput(), output=recorder):
        side = FormattedTextControl(lambda: [("", clip(name, 18))])
        title = Window(FormattedTextControl(lambda: [("class:bar", clip(name, COLUMNS))]), height=1)
        root = HSplit([title, VSplit([Window(pane), Window(side, width=18)])])
        app: Application[None] = Application(Layout(root), style=theme.style("auto"), full_screen=True)
        with set_app(app):
            for texts in batches(seed, count):
                for message in messages(texts, timeline.last_seq + 1):
                    timeline.add(message)
                for text in texts:
                    timeline.note(text, 0)
                timeline.presence([(b"c", texts[0])], [(b"d", texts[-1])], 0)
                name = pane.hit = texts[0]
                app.renderer.render(app, app.layout)
                recorder.check(texts)
                screen = app.renderer.last_rendered_screen
                assert screen is not None
                assert not any(screen.zero_width_escapes.values())
                slots = (slot for row in screen.data_buffer.values() for slot in row.values())
                styles.update(*(slot.style.split() for slot in slots))
    assert all(re.fullmatch(r"\[transparent\]|class:[a-z-]+\d?", style) for style in styles), styles


def client(folder: Path) -> Client:
    """A client that is nowhere, to be told what a hostile host may tell."""
    target = Target((Address("memory", "hostile"),), "lobby")
    return Client(lambda: target, Identity.load(folder / "ann.pem"), KnownHosts(folder / "hosts"), nick="ann")


def events(texts: list[str]) -> list[ClientEvent]:
    made: list[ClientEvent] = list(messages(texts))
    for text in texts:
        made += [Notice(code=text, text=text), Rewound(Rewind(code=text, text=text)), Lost(text), Gap(first=1, count=1)]
        made += [Here([(b"e", text)], [(b"f", text)], first=False), Here([(b"e", text)], [], first=True)]
        made.append(Joined(text, b"", 1, text, text, resumed=False, proof=b""))
    return made


@FORMS
def test_the_full_screen_face_writes_nothing_that_a_terminal_obeys(tmp_path: Path, seed: int, count: int) -> None:
    async def story() -> None:
        told = client(tmp_path)
        told.session.state = LinkState.JOINED
        told.address = Address("memory", "hostile")
        for texts in batches(seed, count // 10):  # a face for each; the pane has been through all of them above
            recorder = Recorder()
            with create_app_session(input=DummyInput(), output=recorder):
                told.session.room = told.session.nick = told.trusted_on_first_use = texts[0]
                told.session.here.clear()
                told.session.here.update(dict.fromkeys(((BOB, text) for text in texts), False))
                face = FullScreen(told)
                for event in events(texts)[::-1]:
                    face.watcher.take(face.view, event)
                with set_app(face.app):
                    face.app.renderer.render(face.app, face.app.layout)
                recorder.check(texts)

    asyncio.run(story())


# -- the other faces ----------------------------------------------------------------------------------


def written(path: Path, lines: list[str], patch: pytest.MonkeyPatch) -> bytes:
    """What a face's output makes of these lines, in a file."""
    with path.open("w") as file, patch.context() as patched:
        patched.setattr(sys, "stdout", file)
        asyncio.run(Output().write(lines))
    return path.read_bytes()


def described(event: ClientEvent) -> list[str]:
    return describe_message(MessageEntry.of(event)) if isinstance(event, Message) else describe(event)


@FORMS
def test_the_linear_face_writes_nothing_that_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, count: int
) -> None:
    lines = [line for texts in batches(seed, count) for event in events(texts) for line in described(event)]
    text = written(tmp_path / "out", lines, monkeypatch).decode()
    assert not OBEYED.search(text), ascii(OBEYED.findall(text))
    assert text.count("\n") == len(lines)  # a line is a line: no text begins one of its own
    assert len(lines) >= count


@FORMS
def test_the_ndjson_face_writes_ascii_and_every_text_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, count: int
) -> None:
    told = client(tmp_path)
    happened = [event for texts in batches(seed, count) for event in events([valid(text) for text in texts])]
    objects = [(event, made) for event in happened if (made := as_object(event, told))]
    data = written(tmp_path / "out", [ndjson.dump(made) for _, made in objects], monkeypatch)
    assert re.fullmatch(rb"[\x20-\x7e\n]*", data)
    read: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()]
    assert len(read) == len(objects)
    for (event, _), back in zip(objects, read, strict=True):
        if isinstance(event, Message):
            assert (back["text"], back["nick"]) == (event.text, event.author.nick)


# -- a hostile host, and all that asks it ---------------------------------------------------------------

TOLD = [valid(text) for text in ATTACKS]
NICKS = [text[:64] for text in TOLD]  # a longer one ends the link
KEYS = [bytes([n]) * 32 for n in range(len(TOLD))]
AUTHORS = [Author(index=n, key=KEYS[n], stream=1, nick=nick, bot=n % 2 == 0) for n, nick in enumerate(NICKS)]


def hostile_log() -> list[bytes]:
    """Frames in which each attack is a nickname, a message, an answer, an edit, a reaction, and of no known kind."""
    frames: list[bytes] = []

    def add(kind: int, body: bytes, author: int, flags: int = 0) -> int:
        frames.append(encode(kind, body, flags=flags, author=author, seq=len(frames) + 1))
        return len(frames)

    for index, text in enumerate(TOLD):
        add(Kind.AUTHOR, msgspec.msgpack.encode(AUTHORS[index]), index)
        at = add(Kind.SAY, Outgoing(text).body, index)
        for kind, flags in ((Kind.SAY, REPLY), (Kind.REACT, 0), (Kind.EDIT, 0)):
            add(kind, Outgoing(text, target=at).body, index, flags)
        add(Kind.ACTION, Outgoing(text).body, index)
        add(9, Outgoing(text).body, index)
    return frames


class HostileHost(Script):
    """Tells attacks, whatever it is asked, and whoever comes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Address("memory", "hostile"))
        self.log = hostile_log()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as guests:
            while True:
                guests.create_task(self._entertain(await self.accept()))

    async def _entertain(self, guest: Scripted) -> None:
        here = [*zip(KEYS, NICKS, strict=True), (BOB, "bob")]
        more = [pack(Kind.PRESENCE, Presence(here=here, reset=True))]
        more += [pack(Kind.NOTICE, Notice(code=text, text=text)) for text in TOLD]
        more += [
            pack(Kind.DIRECT, Direct(room="@x", other=key, nick=text, next_seq=2))
            for key, text in zip(KEYS, NICKS, strict=True)
        ]
        slot = pack_slot(BOB, "bob", Shown(level=Level.AWAY, note="\x1b]0;x\x07\x9b2J\u202e"))
        more.append(pack(Kind.STATES, States(slots=[slot, slot.replace(b"bob", b"b\x1bc")])))
        with suppress(LinkBroken, LinkClosed, AssertionError):  # the guest has left
            await guest.let_in(next_seq=len(self.log) + 1, room="\x1b]0;room\x07")
            guest.send(*self.log[max(0, guest.hello.next_seq - 1) :], *more)
            while True:
                frame = await guest.frame(Kind.ASK)
                ask = unpack(Ask, frame)
                if ask.what == "names":
                    guest.send(pack(Kind.NAMES, Names(authors=[AUTHORS[index] for index in ask.authors], asked=[])))
                elif ask.what == "range":
                    piece = b"".join(self.log[max(0, ask.first - 1) : ask.before - 1])
                    guest.send(encode(Kind.RANGE, piece, number=frame.number, flags=LAST))
                else:
                    guest.send(pack(Kind.ANSWER, self._answer(ask), number=frame.number))

    def _answer(self, ask: Ask) -> Answer:
        if ask.what == "search" and ask.text == "found":
            says = range(len(self.log), 0, -7)
            return Answer(found=[(seq - 5, seq - 2) for seq in says], more=True, indexed=1)
        return Answer(
            failed=ask.what == "search", code="".join(TOLD) if ask.what == "search" else "", text="".join(TOLD)
        )


@asynccontextmanager
async def visited(folder: Path) -> AsyncIterator[Callable[..., Client]]:
    """A hostile host, and a way to make clients of it."""
    async with asyncio.timeout(300), HostileHost(folder / "host") as host:
        serving = asyncio.ensure_future(host.serve())

        def visitor(**more: Any) -> Client:
            key = Identity.load(folder / "ann.pem")
            return Client(lambda: Target((host.address,), "lobby"), key, KnownHosts(folder / "hosts"), **more)

        try:
            yield visitor
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def check_lines(text: str) -> None:
    assert not OBEYED.search(text.replace("\t", " ")), ascii(OBEYED.findall(text))


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("command", ["log", "search", "no-hit", "who", "invite"])
def test_commands_print_nothing_that_a_terminal_obeys(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, as_json: bool
) -> None:
    monkeypatch.setattr(oneshot, "_LOOK", oneshot._LOOK / 5)  # this host never tells all the statuses that are awaited

    async def story() -> None:
        async with visited(tmp_path) as visitor:
            visit = visitor(silent=True, since=1)
            match command:
                case "log":
                    await oneshot.print_log(visit, follow=False, as_json=as_json)
                case "search":
                    await oneshot.print_search(visit, "found", limit=100, before=0, as_json=as_json)
                case "no-hit":
                    await oneshot.print_search(visit, "x", limit=100, before=0, as_json=as_json)
                case "who":
                    await oneshot.print_who(visit, as_json=as_json)
                case "invite":
                    await invite.print_answer(visit, Ask(what="invite"))

    try:
        asyncio.run(story())
    except ChatError as error:  # as main does
        assert command == "no-hit"
        home.complain(str(error), 1)
    told = capfd.readouterr()
    check_lines(told.out)
    check_lines(told.err)
    assert "title" in told.out + told.err  # an attack's harmless part: they were told
    if command in {"log", "search"}:
        assert sum("title" in line for line in told.out.splitlines()) >= 3


TYPED = (
    *(
        "/who",
        "/who bob",
        "/who \u23ce",
        "/details",
        "/details #2",
        "/reply yes",
        "/reply #2 yes",
        "/quote #2",
        "/react x",
    ),
    *("/search found", "/search x", "/mention", "/invite", "/peer x", "/msg bob hi", "/ignore bob", "/unignore bob"),
    *("/room 1", "/away \x1b[31m", "/me waves", "said", "/help", "/set", "/numbers", "/numbers"),
)


def test_a_whole_linear_face_writes_nothing_that_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with visited(tmp_path) as visitor:
            visit = visitor(nick="ann", outboxes=tmp_path / "outboxes", looks=True, since=1)
            with (
                terminal("".join(f"{line}\n" for line in TYPED)) as theirs,
                os.fdopen(os.dup(theirs)) as typed,
                (tmp_path / "out").open("w") as out,
                monkeypatch.context() as patched,
            ):
                patched.setattr(sys, "stdin", typed)
                patched.setattr(sys, "stdout", out)
                async with visit:
                    # Else it would be asked before it knows anything.
                    await until(lambda: len(visit.session.here) > len(TOLD), "all are here")
                    running = asyncio.ensure_future(linear.Linear(visit).run())
                    # What is said is never stored here: so that is not waited for.
                    file = tmp_path / "out"
                    await until(lambda: b"message numbers are on" in file.read_bytes() or running.done(), "all is done")
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())
    told = (tmp_path / "out").read_text()
    check_lines(told)
    assert told.count("title") > 10


def test_a_whole_full_screen_face_writes_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    """Every key and command that shows what a host has told, each drawn."""
    alt_up, escape = "\x1b[1;3A", "\x1b"
    typed = [*(f"{line}\r" for line in TYPED), "@", "\t", "\t", "\x15", "/msg ", "\t", "\x15", "/ignore ", "\t", "\x15"]
    walked = []
    for _ in range(40):
        walked += [alt_up, "\x1bi", alt_up, "\x1bq", "\x15", alt_up, "\x1br", escape]
        walked += ["/clear\r"] if len(typed + walked) > 200 else []
    found = ["/search e\r", *["\x1bp"] * 9, "\x1b1", "\x1b2", "\x0b", "\t", "\x15"]
    # Each key draws the whole screen. What is walked comes into view on a low one as well.
    keystrokes = [(ROWS, text) for text in typed] + [(24, text) for text in walked] + [(ROWS, text) for text in found]

    async def story() -> None:
        recorder = Recorder()
        async with visited(tmp_path) as visitor:
            with create_pipe_input() as keys, create_app_session(input=keys, output=recorder):
                async with visitor(nick="ann", outboxes=tmp_path / "outboxes", looks=True, since=1) as visit:
                    face = FullScreen(visit)
                    running = asyncio.ensure_future(face.run())
                    end = len(hostile_log())
                    await until(lambda: not visit.events and visit.session.next_seq > end, "all was told")
                    unread = partial(select.select, [keys.fileno()], [], [], 0)
                    for recorder.rows, text in keystrokes:
                        keys.send_text(text)
                        await until(lambda: running.done() or not unread()[0], "the keys are read")
                        if running.done():
                            break
                        processor = face.app.key_processor
                        processor.feed_multiple(keys.flush_keys())
                        processor.feed(_Flush)
                        processor.process_keys()
                        for _ in range(10):
                            await asyncio.sleep(0)
                        face.view.look()
                        face.app._redraw()
                        if "".join(recorder.texts).strip():
                            recorder.check([text])
                    face.app.leave()
                    await running

    asyncio.run(story())


def test_a_host_that_gives_a_name_that_is_none_is_told_of_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for text in TOLD:

        async def story(nick: str = text) -> None:
            async with asyncio.timeout(10), Script(tmp_path / "host", Address("memory", "namer")) as host:

                async def serve() -> None:
                    guest = await host.accept()
                    await guest.let_in(nick=nick)

                serving = asyncio.ensure_future(serve())
                target = Target((host.address,), "lobby")
                key, known = Identity.load(tmp_path / "ann.pem"), KnownHosts(tmp_path / "hosts")
                try:
                    async with Client(lambda: target, key, known, nick="ann", looks=True) as named:
                        named.show(typing=True)
                finally:
                    await serving

        with pytest.raises(ChatError) as caught:  # and not what main calls a fault of this program
            asyncio.run(story())
        home.complain(str(caught.value), 1)
    told = capfd.readouterr()
    check_lines(told.out + told.err)
    assert told.err.count("\n") == len(TOLD)


# -- what is told without asking a host ------------------------------------------------------------------


def test_what_a_board_shows_is_filtered() -> None:
    good = pack_slot(BOB, "bob", Shown(note="x"))
    for text in TOLD:
        nick = text.encode()[:64]
        made = good[:56] + nick + bytes(64 - len(nick)) + good[120:]
        assert unpack_slot(good[:56] + b"bob" + bytes(61) + good[120:]) is not None
        statuses = seen([(0, made, 0)])
        check_lines(as_names(statuses))
        check_lines("".join(as_line(*one) for one in statuses.items()))
        with suppress(ValueError):  # longer than a note may be
            (slot,) = seen([(0, pack_slot(BOB, "bob", Shown(level=Level.AWAY, note=text)), 0)]).items()
            check_lines(as_line(*slot))


def test_rooms_of_this_machine_are_listed_without_what_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    rooms = [text for text in dict.fromkeys(TOLD) if len(text) < 20]
    with ExitStack() as desks:
        for room in rooms:
            desk = RoomLock.hold(room)
            desks.callback(desk.close)
            desk.write(RoomRecord(room=room, addresses=[f"{room}:{room}"], host="", invite=room, pid=1, started=0))
        main.chat.main(["rooms"], standalone_mode=False)
        main.chat.main(["rooms", "--json"], standalone_mode=False)
    told = capfd.readouterr()
    check_lines(told.out + told.err)
    assert told.out.count("\n") == 2 * len(rooms)


def test_what_programs_print_on_standard_error_is_filtered_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.host.process._LOG_RATE", sys.maxsize)
    stream = io.StringIO()
    handler = Log(stream)
    logger = logging.getLogger("chat")
    logger.addHandler(handler)
    try:
        for text in TOLD:
            _write_log(text.encode(), text)
            logging.getLogger("chat.host.host").warning("%s was refused: %s", text, text)
    finally:
        logger.removeHandler(handler)
    check_lines(stream.getvalue())
    assert stream.getvalue().count("chat: ") >= 2 * len(TOLD) - 2


# -- the parts ----------------------------------------------------------------------------------------


@FORMS
def test_markup_makes_nothing_of_what_was_filtered(seed: int, count: int) -> None:
    for text in hostile(seed, count):
        seen = visible(text)
        lines = parse(seen, "ann")
        assert "\n".join("".join(part for _, part in line) for line in lines) == seen
        shown = "\n".join("".join(part for _, part in line) for line in without_delimiters(lines))
        assert not OBEYED.search(shown)


def test_what_is_looked_for_would_be_found() -> None:
    for attack in ("\x1b[31m", "\x9b", "\u202e", "\x07", "\r", "\x85", "\u2028", "\U000e0041"):
        assert OBEYED.search(attack)
    assert not OBEYED.search("plain 你好 é\n")
    assert OWN.fullmatch("\x1b[0;38;5;131;1m\x1b[61C\r\n\x1b[?25l")
    for attack in ("\x1b[31m", "\x1b]0;x\x07", "\x1b]8;;x\x1b\\", "\x1b[6n", "\x1bc", "text"):
        assert not OWN.fullmatch(attack)
