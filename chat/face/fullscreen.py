"""The full-screen face: messages, who is here, a status line and an input, by prompt_toolkit.

    ┌ title: room, own name, address ──────────────────┐
    │ pane: what was said             │ who is here    │  folds away below 60 columns
    │ > input                                          │  grows to a third of the screen
    └ status: link, what is unsent, what is new below ─┘

Rules:

1. Texts from peers are only ever text: ``pane.shown`` filters them, and no style, HTML or ANSI is made of them.
2. What was said is shown once: below all else while it is pending, and then in its place, when it comes back.
3. Keys are drawn at once, events at most 30 times a second.
4. A paste never sends anything, and what could not be sent is back in the input.
5. However this ends, the terminal is as it was before.
"""

from __future__ import annotations

import asyncio
import difflib
import errno
import os
import signal
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit.application import Application, get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VSplit,
    Window,
)
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments

from chat.client import Lost, Up
from chat.errors import ChatError
from chat.face import theme
from chat.face.pane import FLAGS, JOINED, RING, Line, Pane, clip
from chat.frame import Ask, Gap, Kind, Notice
from chat.session import Here, Message, Rewound, Stored, split_body, text_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.filters import FilterOrBool
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from chat.client import Client, ClientEvent
    from chat.outbox import Entry

_FRAME: Final = 1 / 30  # seconds between redraws for events
_SIDE_BAR: Final = 18  # columns, and one for the line beside it
_SIDE_BAR_FROM: Final = 60  # columns of the screen
_EXCERPT: Final = 60  # columns of a message that is answered, corrected, taken back; its author's name included

PALETTE: Final = theme.PALETTE

_AS_SHOWN: Final = FLAGS | {ord("\t"): " "}  # prompt_toolkit would show ^I

_PENDING: Final = "…"
_STORED: Final = "✓"
_COMMANDS: Final = ("/help", "/me", "/peer", "/quit", "/who")
_HELP: Final = (
    "Enter sends; Alt+Enter or Ctrl+J begins a new line; Up and Down go through what you sent",
    "PageUp and PageDown scroll; Ctrl+Z suspends; Ctrl+C leaves, and Ctrl+D on an empty line",
    "/me waves: an action; /who: who is here; /quit: leave; //text: a text that begins with a slash",
)


async def run(client: Client) -> None:
    """Show the room until the user leaves: by Ctrl-C, by Ctrl-D on an empty line, by ``/quit``, or by ending us
    (SIGHUP, SIGTERM, a terminal that is gone).

    ``client`` has joined. Raises what ends the client, once the terminal is restored.
    """
    await Face(client).run()


class Face:
    """One client's screen. Input and output are those of prompt_toolkit's current app session."""

    def __init__(self, client: Client) -> None:
        self.pane: Final = Pane()
        self.input: Final = Buffer(multiline=True, history=InMemoryHistory())
        self.app: Final = self._application()
        self._client = client
        self._session = client.session
        self._pending: deque[Entry] = deque()  # those in the pane's tail, in the same order
        self._excerpts: dict[int, str] = {}  # what the messages shown begin with, by number
        self._day = ""
        self._away = False  # the link is lost
        self._redraw_due = False
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """See ``run`` of this module."""
        if self._client.trusted_on_first_use:
            self._note(f"trust on first use: {self._client.trusted_on_first_use}; compare it with the host's owner")
        self._note("/help tells what you can type")
        for entry in self._session.unsettled:
            self._add_pending(entry)
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(self._fault)
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        try:
            await self.app.run_async(pre_run=self._start, set_exception_handler=False)
        except EOFError:
            pass  # the terminal is gone
        except OSError as error:
            if error.errno != errno.EIO:  # and the same, when it is written to
                raise
        finally:
            with suppress(OSError):  # prompt_toolkit leaves it off where the last redraw fails
                self.app.output.enable_autowrap()
                self.app.output.flush()
            for number in (signal.SIGHUP, signal.SIGTERM):
                loop.remove_signal_handler(number)
            loop.set_exception_handler(before)

    def _start(self) -> None:
        self.app.create_background_task(self._follow())

    async def _follow(self) -> None:
        error: BaseException | None = None
        try:
            while events := await self._client.next_events():
                for event in events:
                    self._take(event)
                self._redraw_soon()
        except Exception as failure:
            error = failure
        self._leave(error)

    def _leave(self, error: BaseException | None = None) -> None:
        if self.app.future is None or self.app.future.done():
            return
        if error is None:
            self.app.exit()
        else:
            self.app.exit(exception=error)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has failed: a redraw, a key. End with its error rather than go on with half a screen."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self._leave(error)
        else:
            loop.default_exception_handler(context)

    def _redraw_soon(self) -> None:
        if not self._redraw_due:
            self._redraw_due = True
            asyncio.get_running_loop().call_later(_FRAME, self._redraw)

    def _redraw(self) -> None:
        self._redraw_due = False
        self.app.invalidate()

    # -- what happens ----------------------------------------------------------------------------

    def _take(self, event: ClientEvent) -> None:
        """Show an event; those that only change the bars are seen at the next redraw."""
        match event:
            case Message():
                self._add_message(event)
            case Stored(entry, seq):
                self._settle(entry, seq)
            case Here(came, went, first=False):
                self._note(*(f"{nick} came" for _, nick in came), *(f"{nick} left" for _, nick in went))
            case Gap(count=1):
                self._note("1 message cannot be had any more")
            case Gap():
                self._note(f"{event.count} messages cannot be had any more")
            case Rewound(why):
                self._excerpts.clear()
                self._note(f"{why}; what follows begins anew")
            case Notice():
                self._note(event.text)
            case Lost(why):
                self._away = True
                self._note(f"link lost: {why}; coming back")
            case Up(address) if self._away:
                self._away = False
                self._note(f"back over {address}")

    def _note(self, *texts: str) -> None:
        """Add lines of our own."""
        clock = _clock(_now())
        for text in texts:
            self.pane.add(Line(text, clock, "--", "class:faint", gap=1, style="class:faint"))

    def _add_message(self, message: Message) -> None:
        when = _local(message.time)
        day = when.date().isoformat()
        if day != self._day:
            self._day = day
            self.pane.add(Line(f"── {day} ──", style="class:faint"))
        author = message.author
        mark = _STORED if author.key == self._session.key else ""
        nick = f"{author.nick} [bot]" if author.bot else author.nick
        self.pane.add(self._line(message.kind, author.key, nick, message.text, message.target, when, mark))
        self._excerpts[message.seq] = f"{author.nick}: {message.text[:_EXCERPT]}"
        if len(self._excerpts) > RING:
            del self._excerpts[next(iter(self._excerpts))]

    def _add_pending(self, entry: Entry) -> None:
        self._pending.append(entry)
        self.pane.tail.append(self._said(entry, _PENDING))

    def _settle(self, entry: Entry, seq: int) -> None:
        if self._pending and self._pending[0] is entry:  # else it was stored before this face began
            self._pending.popleft()
            self.pane.tail.popleft()
        if seq not in self._excerpts:  # its echo was not shown, and will not be
            self.pane.add(self._said(entry, _STORED))

    def _said(self, entry: Entry, mark: str) -> Line:
        """Return the line of an entry, which may be another program's: outboxes are inherited."""
        text, target = split_body(entry.kind, entry.flags, entry.body)
        return self._line(entry.kind, self._session.key, self._session.nick, text, target, _now(), mark)

    def _line(self, kind: int, key: bytes, nick: str, text: str, target: int, when: datetime, mark: str) -> Line:
        about = clip(self._excerpts.get(target, f"number {target}"), _EXCERPT)
        style = theme.nick_style(key)
        match kind:
            case Kind.SAY:
                return Line(text, _clock(when), nick, style, quote=f"↳ {about}" if target else "", mark=mark)
            case Kind.ACTION:
                deed = text
            case Kind.EDIT:
                deed = f"corrects “{about}” to: {text}"
            case Kind.RETRACT:
                deed = f"takes back “{about}”"
            case Kind.REACT if text:
                deed = f"answers “{about}” with {text}"
            case Kind.REACT:
                deed = f"takes back a reaction to “{about}”"
            case _:
                deed = f"sent something of kind {kind}, which this version cannot show"
        return Line(f"{nick} {deed}", _clock(when), "*", style, gap=1, mark=mark)

    # -- what is typed ---------------------------------------------------------------------------

    def _enter(self) -> None:
        """Send what was typed, or do what it asks for. What cannot be sent stays in the input."""
        typed = self.input.text.rstrip()
        if not typed:
            return
        kind, text = Kind.SAY, typed
        if typed.startswith("//"):
            text = typed[1:]
        elif typed.startswith("/"):
            command, rest = [*typed.split(maxsplit=1), ""][:2]
            if command == "/peer" and rest:
                self.input.reset(append_to_history=True)
                self.app.create_background_task(self._ask(Ask(what="peer", text=rest)))
                return
            if command != "/me" or not rest:
                if self._obey(command):
                    self.input.reset(append_to_history=True)
                return
            kind, text = Kind.ACTION, rest
        try:
            text_body(text)
        except ChatError as error:
            self._note(str(error))
            return
        self.input.reset(append_to_history=True)
        self.pane.follow()
        self.app.create_background_task(self._say(typed, text, kind))

    def _obey(self, command: str) -> bool:
        """Do what a command asks for. Returns False where it is none."""
        match command:
            case "/quit":
                self._leave()
            case "/help":
                self._note(*_HELP)
            case "/who":
                self._note("here: " + ", ".join(nick for _, nick in self._here()))
            case "/me":
                self._note("say what you do: /me waves")
                return False
            case "/peer":
                self._note("say which program: /peer NAME=COMMAND")
                return False
            case _:
                near = difflib.get_close_matches(command[:20], _COMMANDS, n=1)
                hint = f"did you mean {near[0]}?" if near else "see /help."
                self._note(f"{clip(command, 20)} is no command and was not sent; {hint} //text sends /text")
                return False
        return True

    async def _ask(self, ask: Ask) -> None:
        try:
            answer = await self._client.ask(ask)
            self._note(answer.error or answer.text)
        except ChatError as error:
            self._note(str(error))
        self.app.invalidate()

    async def _say(self, typed: str, text: str, kind: int) -> None:
        async with self._turn:  # in the order typed, also where ``say`` has to wait
            try:
                entry = await self._client.say(text, kind=kind)
            except ChatError as error:
                self._note(str(error))
                self.input.document = Document("\n".join(filter(None, (typed, self.input.text))))
            else:
                self._add_pending(entry)
        self.app.invalidate()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def bind(*sequence: str, to: Callable[[], None], when: FilterOrBool = True) -> None:
            keys.add(*sequence, filter=when)(lambda _event: to())

        bind("enter", to=self._enter)
        bind("escape", "enter", to=lambda: self.input.insert_text("\n"))
        bind("c-j", to=lambda: self.input.insert_text("\n"))
        bind("pageup", to=lambda: self.pane.scroll(-1))
        bind("pagedown", to=lambda: self.pane.scroll(1))
        bind("c-z", to=lambda: get_app().suspend_to_background())
        bind("c-d", to=self._leave, when=Condition(lambda: not self.input.text))
        bind("c-c", to=self._leave)
        bind("<sigint>", to=self._leave)
        return keys

    # -- what it looks like ----------------------------------------------------------------------

    def _application(self) -> Application[None]:
        control = BufferControl(self.input, input_processors=[_AsShown()])
        wide = Condition(lambda: self._size()[0] >= _SIDE_BAR_FROM)
        border = Window(width=1, char="│", style="class:faint")
        side_bar = VSplit([border, Window(FormattedTextControl(self._side_bar), width=_SIDE_BAR)])
        typing = Window(control, height=self._input_height, wrap_lines=True, dont_extend_height=True)
        root = HSplit(
            [
                Window(FormattedTextControl(self._title), height=1, style="class:bar"),
                VSplit([Window(self.pane), ConditionalContainer(side_bar, wide)]),
                VSplit([Window(FormattedTextControl("> "), width=2, dont_extend_height=True), typing]),
                Window(FormattedTextControl(self._status), height=1, style="class:bar"),
            ]
        )
        return Application(
            Layout(root, focused_element=typing),
            key_bindings=self._keys(),
            style=theme.style(theme.choose("auto", os.environ)),
            include_default_pygments_style=False,
            full_screen=True,
        )

    def _size(self) -> tuple[int, int]:
        size = self.app.output.get_size()
        return size.columns, size.rows

    def _input_height(self) -> Dimension:
        return Dimension(min=1, max=max(1, self._size()[1] // 3))

    def _title(self) -> StyleAndTextTuples:
        text = f" #{self._session.room} as {self._session.nick} over {self._client.address}"
        return [("", clip(text, self._size()[0]))]

    def _status(self) -> StyleAndTextTuples:
        unsent, new = len(self._session.unsettled), self.pane.below
        parts = [f"{new} new below"] if new else []
        parts += [self._session.state.value]
        parts += [f"{unsent} unsent"] if unsent else []
        parts += [f"{len(self._session.here)} here"]
        return [("", clip(" " + " · ".join(parts), self._size()[0]))]

    def _side_bar(self) -> StyleAndTextTuples:
        here, rows = self._here(), self._size()[1] - 3  # without title, status and one row of input
        more = [("class:faint", f"and {len(here) - rows + 1} more")] if len(here) > rows else []
        shown = [(theme.nick_style(key), clip(nick, _SIDE_BAR)) for key, nick in here[: rows - len(more)]]
        return [part for entry in shown + more for part in (entry, ("", "\n"))]

    def _here(self) -> list[tuple[bytes, str]]:
        return sorted(self._session.here, key=lambda who: who[1].casefold())


class _AsShown(Processor):
    """Shows the input as the pane will show the message, so that the cursor stands where the terminal has it."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        fragments = explode_text_fragments(transformation_input.fragments)
        text = fragment_list_to_text(fragments)
        joined = {at for match in JOINED.finditer(text) for at in range(*match.span())}
        kept = [at for at in range(len(text)) if at not in joined]
        return Transformation(
            [(fragments[at][0], text[at].translate(_AS_SHOWN)) for at in kept],
            lambda at: bisect_left(kept, at),
            lambda at: kept[at] if at < len(kept) else len(text),
        )


def _local(ms: int) -> datetime:
    """Return a time of the host's clock in the zone of this machine. The session has checked its range."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone()


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def _clock(when: datetime) -> str:
    return f"{when:%H:%M}"
