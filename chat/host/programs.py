"""Programs as members, on the host's side: start them, restart them, and leave nothing of them behind.

    host  ══ two pipes ══  peer process (chat.host.peer_process)  ── stdin, stdout ──  COMMAND
      └── its stderr, a line at a time, to the host's log ◀──────────────────────────────┘

Rules:

1. A peer process is an ordinary member on an ordinary link. The host keeps its key, by name, and so knows which
   members to label as bots.
2. It is started by fork and exec, and inherits only the descriptors that are named. ``fork`` does not exec, so it
   must come before any loop, thread, lock, database or listener: a forked child would keep the locks of a
   host that was killed, and the next host could not start.
3. Each has a process group of its own. The group is killed before its leader is reaped: until then no other
   group can have its number.
4. Standard error of a peer is logged as a peer's text. A peer that prints faster than the log takes blocks.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import TYPE_CHECKING, Final, NoReturn

from chat.core import text
from chat.core.bodies import Notice
from chat.core.codes import REASONS
from chat.core.errors import AddressError, ChatError, LocalProtocolError, RequestFailed, reason
from chat.host.orphans import end_orphans
from chat.local.identity import Identity, host_hash
from chat.local.private_files import make_private
from chat.transport import Peer
from chat.transport.link import Waiter
from chat.transport.registry import forking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from chat.client.client import Client
    from chat.host.host import Host
    from chat.transport import Pair

_logger: Final = logging.getLogger("chat.host.programs")

GRACE: Final = 3.0  # seconds that a peer process has to end after its link; then it is killed
_FIRST_DELAY: Final = 1.0  # seconds before a program is started again; doubled each time
_LAST_DELAY: Final = 60.0  # at most; a program that ran for longer begins with the first delay again
_AT_ONCE: Final = 5.0  # seconds; a program that ends sooner than that after its start
_AT_ONCE_TIMES: Final = 2  # so often in a row is not started again
_LOG_PIECE: Final = 4096  # bytes of a program's line on standard error that are logged at once; a longer line is cut
_LOG_PAUSE: Final = 0.5  # seconds until the next
_PIPE: Final = 64 * 1024  # bytes that a pipe holds
_NAMED: Final = re.compile(r"([^\s='\"/]+)=(.*)", re.DOTALL)


class BadProgram(RequestFailed, AddressError):
    """A program that cannot be started as it was asked for."""


@dataclass(frozen=True, slots=True)
class Program:
    """What ``--peer [NAME=]COMMAND`` asks for."""

    name: str
    command: tuple[str, ...]
    as_json: bool = False

    @classmethod
    def parse(cls, spec: str, *, as_json: bool = False) -> Program:
        """Without NAME, the program's file name is its name. No shell reads COMMAND. Raises BadProgram."""
        named = _NAMED.fullmatch(spec)
        name, line = named.groups() if named else ("", spec)
        try:
            command = tuple(shlex.split(line))
        except ValueError as error:
            raise BadProgram("bad-command", line=line, why=str(error).lower().replace(" ", "-")) from None
        if not command:
            raise BadProgram("no-command", spec=spec)
        if shutil.which(command[0]) is None:
            raise BadProgram("no-program", command=command[0])
        try:
            return cls(text.nickname(name or Path(command[0]).stem), command, as_json)
        except ValueError as error:
            raise BadProgram("program-name", why=error, line=line) from None

    @classmethod
    def parse_all(cls, plain: Iterable[str], as_json: Iterable[str]) -> list[Program]:
        """Parse all options of a command line. Raises AddressError, also for two programs of one name."""
        programs = [cls.parse(spec) for spec in plain] + [cls.parse(spec, as_json=True) for spec in as_json]
        name, count = Counter(program.name for program in programs).most_common(1)[0] if programs else ("", 0)
        if count > 1:
            raise AddressError("{count} programs are called {name}; name them: NAME=COMMAND", count=count, name=name)
        return programs


class Programs:
    """The programs in the rooms of one host. ``folder`` keeps a key and outboxes for each name."""

    def __init__(self, host: Host, folder: Path, *, restart: bool = False) -> None:
        self._host = host
        self._folder = make_private(folder)
        self._restart = restart
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}  # by room and name
        self._keys: dict[str, bytes] = {}  # by name
        self._pids: set[int] = set()  # of processes that have not been reaped
        host.on_peer = self._start_by_hand

    def start(self, room: str, program: Program) -> None:
        """Start a program and keep it. Raises BadProgram if the room has one of this name."""
        self._begin(room, program.name, partial(self._keep, room, program))

    def adopt(self, forked: Forked) -> None:
        """Attach a peer that was forked before there was a host. Raises BadProgram as ``start`` does."""
        self._begin(forked.room, forked.name, partial(self._keep_forked, forked))

    async def aclose(self) -> None:
        """End them all: close their links, kill what has not left within 3 s, and leave no process behind."""
        self._host.on_peer = None
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not reap its process
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start_by_hand(self, room: str, spec: str) -> str:
        program = Program.parse(spec)
        self.start(room, program)
        return program.name

    def _begin(self, room: str, name: str, job: Callable[[], Coroutine[None, None, None]]) -> None:
        if (room, name) in self._running:
            raise BadProgram("program-running", name=name)
        task = self._running[room, name] = asyncio.ensure_future(job())
        task.add_done_callback(lambda _: self._running.pop((room, name), None))

    async def _keep(self, room: str, program: Program) -> None:
        delay, at_once = _FIRST_DELAY, 0
        while True:
            began, ran = time.monotonic(), 0.0
            try:
                await self._run(room, program)
                ran = time.monotonic() - began  # one that could not be started has not run, however long that took
            except ChatError as error:
                self._announce(room, program.name, "peer-failed", why=str(error))
            except OSError as error:
                code = errno.errorcode.get(error.errno or 0, "")
                self._announce(room, program.name, "peer-failed", why=code if code in REASONS else reason(error))
            if not self._restart:
                return
            if ran:
                at_once = at_once + 1 if ran < _AT_ONCE else 0
            if at_once == _AT_ONCE_TIMES:
                self._announce(room, program.name, "peer-given-up", count=at_once, seconds=f"{_AT_ONCE:g}")
                return
            if ran > _LAST_DELAY:
                delay = _FIRST_DELAY
            self._announce(room, program.name, "peer-restarts", seconds=f"{delay:g}")
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_DELAY)

    async def _keep_forked(self, forked: Forked) -> None:
        self._keys[forked.name] = forked.key
        self._announce_exit(forked.room, forked.name, await self._serve(forked))

    def _announce(self, room: str, name: str, code: str, **fields: str | int) -> None:
        """Announce how a program left."""
        self._host.rooms[room].announce(code, nick=self._nick(room, name), **fields)

    def _nick(self, room: str, name: str) -> str:
        """Return a program's nickname in the room: a person there may have its name."""
        return self._host.rooms[room].room.nick_of(self._keys.get(name, b"")) or name

    def _announce_exit(self, room: str, name: str, code: int, said: str = "") -> None:
        """``said``: the last line on its standard error, which may tell of the owner's files."""
        if code >= 0:
            nick, said = self._nick(room, name), text.quoted(said.strip().removeprefix("chat: "))
            saying = Notice(code="peer-exited-saying", fields={"nick": nick, "status": code, "said": said})
            for_owner = saying if said and code else None
            self._host.rooms[room].announce("peer-exited", for_owner, nick=nick, status=code)
            return
        try:
            number = signal.Signals(-code).name
        except ValueError:  # most real-time signals have none
            number = f"signal {-code}"
        self._announce(room, name, "peer-killed", signal=number)

    async def _run(self, room: str, program: Program) -> None:
        """Run it once, from start to end. Raises OSError, ChatError."""
        home = make_private(self._folder / program.name)
        key = self._keys[program.name] = Identity.load(home / "key.pem").key
        with ExitStack() as unless_started:
            errors, its_errors = os.pipe()
            unless_started.callback(os.close, errors)
            with os.fdopen(its_errors, "wb") as its_log:
                pair = forking().pair()
                unless_started.callback(pair.close)
                process = Popen(  # noqa: ASYNC220 - to start one is quick, and nothing waits for its end here
                    [
                        *(sys.executable, "-P", "-m", "chat", "peer", room, program.name),
                        *(f"--dial={pair.address}", f"--host={host_hash(self._host.identity.key).hex()}"),
                        *(f"--home={home}", *(["--json"] if program.as_json else []), "--", *program.command),
                    ],
                    stdin=DEVNULL,
                    stdout=its_log,  # it has nothing to print; COMMAND's output is another pipe
                    stderr=its_log,
                    pass_fds=pair.fds,
                    process_group=0,
                )
            unless_started.pop_all()
        said = [""]
        log = asyncio.ensure_future(_log(errors, program.name, said))
        try:
            code = await self._serve(Forked(room, program.name, process.pid, key, pair))
        finally:
            process.returncode = 0  # it has been reaped, and subprocess is not to wait for it
            log.cancel()
            await asyncio.wait([log])
        self._announce_exit(room, program.name, code, said[-1])

    async def _serve(self, peer: Forked) -> int:
        """Serve a peer process until it ends, clean up, and return its exit code, negative for a signal's number."""
        pid = peer.pid
        self._pids.add(pid)
        link = peer.pair.in_parent(Peer(f"pipe to process {pid}", uid=os.geteuid(), pid=pid))
        member = self._host.attach(peer.room, link, peer.key)
        exited = asyncio.ensure_future(_exited(pid))
        try:
            await asyncio.wait([exited, member], return_when=asyncio.FIRST_COMPLETED)
            # Either its link ended, and it is about to; or it ended, and its last words may still be in the pipe.
            await asyncio.wait([exited, member], timeout=GRACE)
        finally:
            member.cancel()
            await asyncio.wait([member])  # closes the link, which tells the process to end
            await asyncio.wait([exited], timeout=GRACE)
            with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
                os.killpg(pid, signal.SIGKILL)
            await asyncio.wait([exited])
            status = exited.result()
            if status is None:
                _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended
            self._pids.discard(pid)
            await end_orphans(self._pids)
        return os.waitstatus_to_exitcode(status)


async def _exited(pid: int) -> int | None:
    """Return when a child has ended: None on Linux, where it stays a zombie; elsewhere its status, after reaping it."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # no such call, or no descriptor free
        while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):  # noqa: ASYNC110, ASYNC222 - nothing tells of it
            await asyncio.sleep(0.05)
        return found[1]
    try:
        await Waiter.for_reading(fd).wait()
    finally:
        os.close(fd)
    return None


async def _log(fd: int, name: str, last: list[str]) -> None:
    """Log what comes on ``fd`` in lines, until it is cancelled; then close it. ``last`` is given the last line."""
    os.set_blocking(fd, False)
    readable = Waiter.for_reading(fd)
    rest = b""
    try:
        while True:
            await readable.wait()
            data = os.read(fd, _LOG_PIECE)
            if not data:
                return
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if len(rest) >= _LOG_PIECE:
                lines, rest = lines + newline + rest, b""
            last += _write_log(lines, name)[-1:]
            del last[:-1]
            await asyncio.sleep(_LOG_PAUSE)
    finally:
        with suppress(BlockingIOError):
            rest += os.read(fd, _PIPE)
        last += _write_log(rest, name)[-1:]
        os.close(fd)


def _write_log(lines: bytes, name: str) -> list[str]:
    """Write one record: the log drops records of a flood, and half a traceback helps nobody. Return the lines."""
    said = [line for line in lines.decode("utf-8", "replace").split("\n") if line]
    if said:
        _logger.warning("%s", "\n".join(f"{name}: {line}" for line in said))
    return [line for line in said if line.strip()]


@dataclass(frozen=True, slots=True)
class Forked:
    """A peer process that its host has not attached yet: ``fork`` returns it for ``Programs.adopt``."""

    room: str
    name: str
    pid: int
    key: bytes
    pair: Pair


def fork(
    function: Callable[[Client], Awaitable[None]], *, name: str, room: str, host: Identity, folder: Path
) -> Forked:
    """Fork a process that runs ``function`` with a client of ``room``, once a host adopts it.

    ``folder`` keeps the peer's key and outbox. Raises LocalProtocolError if there is an event loop or another
    thread already: the child would inherit locks that nothing in it releases. Raises ChatError for the folder.
    """
    if (threads := threading.active_count()) > 1:
        raise LocalProtocolError(f"cannot fork {name}: there are {threads} threads already; fork before you start any")
    if asyncio._get_running_loop() is not None:
        raise LocalProtocolError(f"cannot fork {name}: an event loop runs already; fork before asyncio.run")
    home = make_private(folder)
    identity = Identity.load(home / "key.pem")
    pair = forking().pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be(function, pair, name, room, host_hash(host.key), home)
    with suppress(OSError):  # the child does the same, whichever is first
        os.setpgid(pid, 0)
    return Forked(room, name, pid, identity.key, pair)


def _be(
    function: Callable[[Client], Awaitable[None]], pair: Pair, name: str, room: str, host: bytes, home: Path
) -> NoReturn:
    """Run the forked peer, and exit without what the parent has registered for its own exit."""
    from chat.host.peer_process import HostGone, meet

    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        pair.in_child()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        asyncio.run(meet(function, pair.address, room=room, name=name, host=host, home=home))
        code = 0
    except HostGone:
        pass  # nobody is left to tell why
    except ChatError as error:
        sys.stderr.write(f"{name}: {error}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
