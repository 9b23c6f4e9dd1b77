"""Programs as members: the peer process's side. It speaks the protocol, so that COMMAND need not.

    host ══ link ══ client ── "nick: text" lines, or NDJSON ──▶ COMMAND's stdin
                       ▲─────── each line is a message ◀─────── COMMAND's stdout

Rules:

1. COMMAND sees plain lines: ``nick: text``, the prefix before every line of a message, so that no text can
   pass for another's; never what it said itself. ``* nick waves`` is an action.
2. It is never drowned: what it does not read is not fetched, and waits at its cursor in the host's log. But a
   program that speaks and never reads (``tail -f``) must get its echoes: so for one that has said much that
   is not settled, unread lines are left out, counted, and told of when it reads again.
3. It has left when its process has ended; to close its output is only to fall silent. What it said last is
   then stored, however long that takes, and this process ends as COMMAND did.
4. When the host is gone, so is COMMAND, and all that it has started.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chat.client.client import WINDOW, Client
from chat.client.target import Target
from chat.core.errors import ChatError, StoreError, reason
from chat.core.session import Message
from chat.core.text import visible
from chat.core.wire import MAX_TEXT, Kind
from chat.host.orphans import adopt_orphans, die_with_parent, end_orphans, wake_with_parent
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from chat.local.streams import Output, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from chat.client.events import ClientEvent
    from chat.transport import Address

    ReadJson: TypeAlias = Callable[[Client, Output], Awaitable[None]]

GRACE: Final = 2.0  # seconds that COMMAND has after SIGTERM
_PATIENCE: Final = 5.0  # seconds that COMMAND has to read on, while it waits for its echoes


class HostGone(ChatError):
    """The link over which this peer was started has ended, and there is no other."""


async def meet(
    function: Callable[[Client], Awaitable[None]], address: Address, *, room: str, name: str, host: bytes, home: Path
) -> None:
    """Join by ``address``, which can be dialled once, run ``function``, and end it when the host is gone.

    ``host`` is the SHA-256 of the host's key. Afterwards no child of this process is left, on Linux, so it is for
    a process of its own. Raises HostGone, and what the function raises.
    """
    adopt_orphans()
    wake_with_parent()
    # When the host is killed while we are stopped, the kernel sends our group SIGHUP and SIGCONT (setpgid(2)).
    # We have to clear up then; a handler, unlike SIG_IGN, is not passed on to COMMAND.
    signal.signal(signal.SIGHUP, lambda *_: None)
    gone = asyncio.Event()
    client: Client | None = None

    def locate() -> Target:
        if client is not None and client.address is not None:  # the client dials again: its link was lost
            gone.set()
            raise HostGone("the host is gone")
        return Target((address,), room, host)

    client = Client(
        locate,
        Identity.load(home / "key.pem"),
        KnownHosts(home / "known_hosts"),
        outboxes=home / "outboxes",
        nick=name,
        silence=math.inf,  # a host that is stopped for a while is not gone: the end of its pipe would show that
    )
    async with client:
        running = asyncio.ensure_future(function(client))
        watching = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise HostGone("the host is gone")
            await running
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)
            await end_orphans()


async def attend(client: Client, command: Sequence[str], read_json: ReadJson | None = None) -> int:
    """Run COMMAND as the member that ``client`` is; return its exit code as subprocess has it.

    With ``read_json``, which does what COMMAND writes, COMMAND speaks NDJSON; else plain lines.
    """
    process = _start(command)
    face = _Objects(client, read_json) if read_json else _Lines(client)
    exited = asyncio.ensure_future(_exit(process))
    hearing = asyncio.ensure_future(face.hear())
    speaking = asyncio.ensure_future(_speak(client, face, exited))
    try:
        done, _ = await asyncio.wait([speaking, hearing], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # First: a thread may be in a write(2) to COMMAND that only this ends. That the host is gone may be seen by
        # ``hear`` and be told by a cancellation, too: that must not cut short the time that COMMAND has.
        stopping = asyncio.ensure_future(_stop(process, exited))
        with suppress(asyncio.CancelledError):
            await asyncio.shield(stopping)
        await stopping
        for task in (hearing, speaking):
            task.cancel()
        await asyncio.gather(hearing, speaking, return_exceptions=True)
    return process.returncode


async def _speak(client: Client, face: _Lines | _Objects, exited: asyncio.Future[None]) -> None:
    """Say what COMMAND says, and return when it has ended and all of it is stored."""
    await face.read()
    await asyncio.wait([exited])
    face.hurry.set()
    await client.settled()


# -- COMMAND's process -----------------------------------------------------------------------------------


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start COMMAND with its standard streams on our 0 and 1, the other way round. Raises ChatError."""
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    try:
        # It dies with us, also when we are killed. (A preexec_fn wants a process that has no other thread yet.)
        dies = partial(die_with_parent, os.getpid())
        process = subprocess.Popen(command, stdin=its_input, stdout=its_output, preexec_fn=dies)  # noqa: PLW1509
    except OSError as error:
        raise ChatError("cannot run {command!r}: {why}", command=command[0], why=reason(error)) from None
    os.dup2(our_input, 0)
    os.dup2(our_output, 1)
    for fd in (its_input, our_output, our_input, its_output):
        os.close(fd)
    return process


async def _exit(process: subprocess.Popen[bytes]) -> None:
    """Return when COMMAND has ended, and what it has left behind: that would keep the pipes open for ever."""
    await asyncio.to_thread(process.wait)
    _end_group()
    await end_orphans()


async def _stop(process: subprocess.Popen[bytes], exited: asyncio.Future[None]) -> None:
    for ask in (_end_group, process.kill):
        if not exited.done():
            ask()
            await asyncio.wait([exited], timeout=GRACE)


def _end_group() -> None:
    """Ask COMMAND and what it has started to end: it is in our process group, unless it has left that."""
    if os.getpgrp() == os.getpid():  # else it is a shell's, and others are in it
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


# -- faces for programs ----------------------------------------------------------------------------------


class _Objects:
    """NDJSON, both ways, as ``chat join --json`` has it. Who speaks it must read: nothing is left out."""

    def __init__(self, client: Client, read_json: ReadJson) -> None:
        self._client = client
        self._read_json = read_json
        self._out = Output()
        self.hurry = asyncio.Event()

    async def read(self) -> None:
        try:
            await self._read_json(self._client, self._out)
        except StoreError:
            raise
        except ChatError as error:  # some lines could not be said, and COMMAND was told which
            sys.stderr.write(f"{error}\n")

    async def hear(self) -> None:
        from chat.client.json_events import as_object
        from chat.ndjson import dump

        while events := await self._client.next_events():
            with suppress(BrokenPipeError):  # it has closed its input, and wants no more
                await self._out.write([dump(made) for event in events if (made := as_object(event, self._client))])


class _Lines:
    """Plain lines, both ways."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._out = Output()
        self._telling: asyncio.Future[None] | None = None  # until COMMAND has read what it was told last
        self._left_out = 0
        self.hurry = asyncio.Event()  # COMMAND waits for its echoes: hearing must go on

    async def read(self) -> None:
        async for line in lines(sys.stdin, MAX_TEXT):
            rest = line
            while rest.strip():
                piece = _head(rest)
                rest = rest[len(piece) :]
                if len(self._client.session.unsettled) >= WINDOW // 2:
                    self.hurry.set()
                await self._client.say(piece)
                self.hurry.clear()

    async def hear(self) -> None:
        while events := await self._client.next_events():
            told = [line for event in events for line in self._show(event)]
            if not told:
                continue
            if not await self._reads_on():
                self._left_out += len(told)
                continue
            if self._left_out:
                told.insert(0, f"* {self._left_out} lines were left out, for they were not read")
                self._left_out = 0
            self._telling = asyncio.ensure_future(self._tell(told))

    async def _reads_on(self) -> bool:
        """Wait until COMMAND has read what it was told last; return False when it must not wait longer."""
        if self._telling is None:
            return True
        hurry = asyncio.ensure_future(self.hurry.wait())
        waits: tuple[asyncio.Future[Any], ...] = (self._telling, hurry)
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not self._left_out:  # once it has shown that it does not read it gets no more time
            await asyncio.wait([self._telling], timeout=_PATIENCE)
        return self._telling.done()

    async def _tell(self, told: list[str]) -> None:
        with suppress(BrokenPipeError):  # it has closed its input, and wants no more
            await self._out.write(told)

    def _show(self, event: ClientEvent) -> list[str]:
        if not isinstance(event, Message) or event.author.key == self._client.session.key:
            return []
        nick = visible(event.author.nick, lines=False)
        before = {int(Kind.SAY): f"{nick}: ", int(Kind.ACTION): f"* {nick} "}.get(event.kind)
        return [before + line for line in visible(event.text).split("\n")] if before else []


def _head(line: str) -> str:
    """As much of a line as a message holds."""
    if len(line) * 4 <= MAX_TEXT:
        return line
    return line.encode()[:MAX_TEXT].decode("utf-8", "ignore")
