"""Programs as members, on the peer process's side: it speaks the protocol, so that COMMAND need not.

    host ══ link ══ client ── "nick: text" lines, or NDJSON ──▶ COMMAND's stdin
                       ▲─────── each line is a message ◀─────── COMMAND's stdout

Rules:

1. COMMAND reads plain lines: ``nick: text``, with the prefix before every line of a message, so that no text can
   pass for another member's. ``* nick waves`` is an action. It never reads its own messages.
2. What COMMAND does not read waits at the cursor in the host's log. But a program that only writes (``tail -f``)
   needs its echoes: once much of what it wrote is not stored, unread lines are dropped and counted, and the count
   is shown when it reads again.
3. COMMAND leaves when its process ends; if it only closes its output, it falls silent. This process then waits
   until all is stored, and ends as COMMAND did.
4. When the host ends, so does COMMAND with all that it has started.
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
from chat.core.errors import ChatError, StoreError, WrongValue, reason
from chat.core.events import Message, Rejected
from chat.core.outgoing import split_body
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

GRACE: Final = 2.0  # seconds that COMMAND has to end after SIGTERM; then it is killed
_EXCERPT: Final = 40  # characters of a rejected message in the line about it
_PATIENCE: Final = 5.0  # seconds that COMMAND has to read, once it needs its echoes


class HostGone(ChatError):
    """The link that this peer was started with has ended, and there is no other."""


async def meet(
    function: Callable[[Client], Awaitable[None]], address: Address, *, room: str, name: str, host: bytes, home: Path
) -> None:
    """Join by ``address``, which can be dialled once, run ``function``, and end it when the host is gone.

    ``host`` is the SHA-256 of the host's key. On Linux this kills all children of the process at the end.
    Raises HostGone, and what the function raises.
    """
    adopt_orphans()
    wake_with_parent()
    # If the host is killed while we are stopped, the kernel sends our group SIGHUP and SIGCONT (setpgid(2)).
    # We must clean up then; unlike SIG_IGN, a handler is not inherited by COMMAND.
    signal.signal(signal.SIGHUP, lambda *_: None)
    running: asyncio.Task[None] | None = None

    def locate() -> Target:
        if running is None:  # else the client has lost its link and dials again
            return Target((address,), room, host)
        if not running.cancelling():  # a second time would disturb its cleaning up
            running.cancel()
        raise HostGone("the host is gone")

    client = Client(
        locate,
        Identity.load(home / "key.pem"),
        KnownHosts(home / "known_hosts"),
        outboxes=home / "outboxes",
        nick=name,
        silence=math.inf,  # a stopped host is not gone: the end of its pipe would show that
    )
    async with client:
        running = asyncio.ensure_future(function(client))
        try:
            await asyncio.wait([running])
        finally:
            running.cancel()
            await asyncio.wait([running])
            await end_orphans()
        if running.cancelled():
            raise HostGone("the host is gone")
        running.result()


async def attend(client: Client, command: Sequence[str], read_json: ReadJson | None = None) -> int:
    """Run COMMAND as the member that ``client`` is; return its exit code as subprocess has it.

    COMMAND speaks plain lines, or NDJSON if there is ``read_json``, which does what COMMAND writes.
    """
    process = _start(command)
    face = _Objects(client, read_json) if read_json else _Lines(client)
    exited = asyncio.ensure_future(_exit(process))

    async def speak() -> None:
        await face.read()
        await asyncio.wait([exited])
        face.hurry.set()
        await client.settled()

    tasks = [asyncio.ensure_future(speak()), asyncio.ensure_future(face.hear())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # First: a thread may be in a write(2) to COMMAND that only this ends. The end of the host may both end
        # ``hear`` and cancel us; that must not shorten the time that COMMAND has.
        stopping = asyncio.ensure_future(_stop(process, exited))
        with suppress(asyncio.CancelledError):
            await asyncio.shield(stopping)
        await stopping
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return process.returncode


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start COMMAND, with its output on our descriptor 0 and its input on our 1. Raises ChatError."""
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    try:
        # It dies with us, even if we are killed. (A preexec_fn is safe only while there is no other thread.)
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
    """Wait for COMMAND, then end what it left behind, which would keep the pipes open."""
    await asyncio.to_thread(process.wait)
    _end_group()
    await end_orphans()


async def _stop(process: subprocess.Popen[bytes], exited: asyncio.Future[None]) -> None:
    for ask in (_end_group, process.kill):
        if not exited.done():
            ask()
            await asyncio.wait([exited], timeout=GRACE)


def _end_group() -> None:
    """Send SIGTERM to COMMAND and what it has started: our process group."""
    if os.getpgrp() == os.getpid():  # else the group is a shell's, with others in it
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Objects:
    """NDJSON both ways, as in ``chat join --json``. A program that speaks it must read: nothing is dropped."""

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
        except ChatError as error:  # some lines were not sent, and COMMAND has read which
            sys.stderr.write(f"{error}\n")

    async def hear(self) -> None:
        from chat.client.events import as_object
        from chat.ndjson import dump

        while events := await self._client.next_events():
            with suppress(BrokenPipeError):  # it has closed its input
                await self._out.write([dump(made) for event in events if (made := as_object(event, self._client))])


class _Lines:
    """Plain lines, both ways."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._out = Output()
        self._writing: asyncio.Future[None] | None = None  # ends when COMMAND has read the last lines
        self._dropped = 0
        self.hurry = asyncio.Event()  # COMMAND needs its echoes: do not wait for it to read

    async def read(self) -> None:
        async for line in lines(sys.stdin, MAX_TEXT, in_pieces=True):
            if isinstance(line, WrongValue):
                sys.stderr.write(f"not sent: {line}\n")
                continue
            rest = line
            while rest.strip():
                piece = rest.encode()[:MAX_TEXT].decode("utf-8", "ignore")
                rest = rest[len(piece) :]
                if len(self._client.session.unsettled) >= WINDOW // 2:
                    self.hurry.set()
                try:
                    await self._client.say(piece)
                except StoreError as error:
                    self._client.events.check()  # raises what has ended the client
                    sys.stderr.write(f"not sent: {error}\n")
                self.hurry.clear()

    async def hear(self) -> None:
        while events := await self._client.next_events():
            for event in events:
                if isinstance(event, Rejected):
                    entry = event.entry  # COMMAND's lines have no place for it
                    text = split_body(entry.kind, entry.flags, entry.body)[0][:_EXCERPT]
                    sys.stderr.write(visible(f"not sent: {event.why}: {text}", lines=False) + "\n")
            shown = [line for event in events for line in self._show(event)]
            if not shown:
                continue
            if not await self._reads_on():
                self._dropped += len(shown)
                continue
            if self._dropped:
                shown.insert(0, f"* {self._dropped} lines were dropped because they were not read")
                self._dropped = 0
            self._writing = asyncio.ensure_future(self._write(shown))

    async def _reads_on(self) -> bool:
        """Wait until COMMAND has read the last lines; return False if it must not wait longer."""
        if self._writing is None:
            return True
        hurry = asyncio.ensure_future(self.hurry.wait())
        waits: tuple[asyncio.Future[Any], ...] = (self._writing, hurry)
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not self._dropped:  # a program that has not read before gets no more time
            await asyncio.wait([self._writing], timeout=_PATIENCE)
        return self._writing.done()

    async def _write(self, shown: list[str]) -> None:
        with suppress(BrokenPipeError):  # it has closed its input
            await self._out.write(shown)

    def _show(self, event: ClientEvent) -> list[str]:
        if not isinstance(event, Message) or event.author.key == self._client.session.key:
            return []
        nick = visible(event.author.nick, lines=False)
        before = {int(Kind.SAY): f"{nick}: ", int(Kind.ACTION): f"* {nick} "}.get(event.kind)
        return [before + line for line in visible(event.text).split("\n")] if before else []
