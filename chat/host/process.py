"""A host in a process of its own, and the window that starts it.

    chat host  (the owner's window)              chat host --headless  (in a session of its own)
        |  control pipe, write end  ------------->  read end: when it ends, the host ends, unless a byte came first
        |  reads "listening" lines  <-------------  standard output
        |  an ordinary member, over an ordinary transport

Two processes, so that Ctrl-Z, an editor or a slow redraw in the owner's window cannot stop the room.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, ExitStack, aclosing, closing, suppress
from typing import TYPE_CHECKING, Final, TextIO

import click

from chat.core.codes import LOCAL
from chat.core.errors import AddressError, ChatError, Text
from chat.core.text import load, visible
from chat.core.wire import BEAT
from chat.host.host import Host
from chat.host.keep import keep_to
from chat.host.orphans import adopt_orphans
from chat.host.programs import Programs
from chat.host.store import Store
from chat.i18n import _, translate
from chat.local.descriptors import raise_limit
from chat.local.identity import host_hash, load_host
from chat.local.rooms import RoomLock, RoomRecord
from chat.local.shared import SharedRoom, login
from chat.local.words import words
from chat.ndjson import dump
from chat.transport import Address, Site, registry
from chat.transport.link import Waiter
from chat.transport.registry import bare_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from chat.host.keep import Keep
    from chat.host.programs import Program

_logger: Final = logging.getLogger("chat.host.host")

_LOG_LIMIT: Final = 1024 * 1024  # bytes of a host's log; a longer one is emptied at the next start
_LOG_RATE: Final = 10  # records a second in a host's log; of more only the number is logged
# seconds in which the same is logged once of a source; how often it was more comes with the next
_LOG_INTERVAL: Final = 60.0
_LOG_SOURCES: Final = 1_024  # sources that are remembered for that; of more, each record counts alone
_LOG_HEAD: Final = re.compile(r"^(?:[\d-]+ [\d:]+ )?chat: ")
_LOG_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW


class Log(logging.StreamHandler[TextIO]):
    """Ten sanitized records a second: peers must neither fill the disk nor control the terminal that shows the log.

    A record may name the ``source`` of what it tells (see ``chat.transport.source``). Of each source the same is said
    once a minute, and at most ten lines.
    """

    _second = _count = _left_out = 0

    def __init__(self, stream: TextIO | None = None, *, timed: bool = False) -> None:
        super().__init__(stream)
        self._clock = "%Y-%m-%d %H:%M:%S " if timed else ""  # a service's log has times of its own
        self._told: dict[str, tuple[float, set[str], int]] = {}  # by source: since when, what, how many were left out

    def filter(self, record: logging.LogRecord) -> bool:
        if (source := getattr(record, "source", None)) is not None and not self._is_due(record, source):
            return False
        if int(record.created) != self._second:
            if self._left_out:
                record.msg = f"({self._left_out} lines like these left out) {record.msg}"
            self._second, self._count, self._left_out = int(record.created), 0, 0
        self._count += 1
        self._left_out += self._count > _LOG_RATE
        return self._count <= _LOG_RATE

    def _is_due(self, record: logging.LogRecord, source: str) -> bool:
        args = record.args[1:] if isinstance(record.args, tuple) else ()  # without the peer, whose port changes
        about, now = str((record.msg, [arg for arg in args if not isinstance(arg, float)])), record.created
        since, told, left_out = self._told.get(source, (-_LOG_INTERVAL, set(), 0))
        if now < since + _LOG_INTERVAL:
            if about in told or len(told) >= _LOG_RATE:
                self._told[source] = since, told, left_out + 1
                return False
            told.add(about)
            return True
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like these since the last line)"
        if len(self._told) >= _LOG_SOURCES:
            self._told = {one: last for one, last in self._told.items() if now < last[0] + _LOG_INTERVAL}
        if len(self._told) < _LOG_SOURCES:  # from more sources than that, ten a second are the limit
            self._told[source] = now, {about}, 0
        return True

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime(self._clock, time.localtime(record.created))
        return clock + "chat: " + visible(super().format(record)).replace("\n", "\n      ")


async def serve(
    room: str,
    transports: Sequence[str],
    *,
    group: str | None,
    folder: Path,
    host_key: Path,
    owners: frozenset[bytes],
    open_to_all: bool,
    advertise: str,
    proxy_protocol: str,
    rate: int,
    bot_turns: int,
    min_free: int,
    programs: Sequence[Program],
    restart: bool,
    keep: Keep,
    as_json: bool,
    control_fd: int,
) -> None:
    """Host a room until cancelled, or the end of the control pipe if no byte came before it. Raises ChatError.

    Also for the other users of this machine who are in ``group``, all of them for "", none for None.
    """
    logging.getLogger("chat").addHandler(Log(timed=control_fd >= 0))
    load()
    raise_limit()
    adopt_orphans()  # what a program leaves behind if its peer process is killed
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(closing(RoomLock.hold(room)))
        store = stack.enter_context(closing(Store(folder, room)))
        host = Host(load_host(host_key), store, owners=owners, rate=rate, bot_turns=bot_turns, min_free=min_free)
        await stack.enter_async_context(aclosing(host))
        host.open_room(room, open_to_all=open_to_all, folder=lock.folder)
        site = Site(lock.folder, host_key, advertise, proxies=proxy_protocol)
        listening = [await host.listen(address, site, room) for address in map(Address.parse, transports)]
        if advertise and not host.advertised:
            raise AddressError(
                "--advertise is for people elsewhere, who cannot reach this room; add -t {scheme}", scheme=bare_scheme()
            )
        addresses, invite = list(map(str, listening)), str(host.invite(room))
        key, now = host_hash(host.identity.key).hex(), time.time_ns() // 1_000_000

        def record() -> RoomRecord:
            invite = str(host.invite(room))
            return RoomRecord(
                room=room,
                addresses=addresses,
                host=key,
                invite=invite,
                pid=os.getpid(),
                started=now,
                shared=group is not None,
            )

        lock.write(record())
        host.on_renewed = lambda _room: lock.write(record())
        shared = None
        if group is not None:
            shared = stack.enter_context(closing(SharedRoom(group)))
            host.shows_users = True
            address = Address(registry.shared().scheme, options=shared.options)
            listening.append(await host.listen(address, Site(shared.folder, host_key), room))
            shared.write(record())
        spoken = words(host_hash(host.identity.key)) if host.advertised else ""
        _announce(room, listening, invite, spoken, as_json=as_json, shared=shared is not None)
        host.start(_stay_found(host, lock, shared))
        running = await stack.enter_async_context(aclosing(Programs(host, folder / "peers", restart=restart)))
        for program in programs:
            running.start(room, program)
        if any(keep):
            host.start(keep_to(host, room, keep))
        gc.freeze()  # what is loaded stays: collecting over it would hold up everybody for 50 ms
        ended = [_window_ended(control_fd)] if control_fd >= 0 else []
        await _first_of(host.run(), *ended)


async def _window_ended(control_fd: int) -> None:
    """Return when our window has ended; never, if it leaves the room open."""
    await Waiter.for_reading(control_fd).wait()
    if os.read(control_fd, 1):
        await asyncio.get_running_loop().create_future()


async def _stay_found(host: Host, lock: RoomLock, shared: SharedRoom | None) -> None:
    """Make anew what others find the room by, should it be removed. Its board sees to itself."""
    warned = ""
    while True:
        await asyncio.sleep(BEAT)
        try:
            if lock.renew():
                _logger.warning("%s was removed, and is made anew", lock.folder)
            if shared is not None and shared.renew():
                _logger.warning("%s was removed, and is made anew", shared.folder)
            await host.renew_listeners()
            warned = ""
        except ChatError as error:
            if str(error) != warned:  # not again at each beat
                _logger.warning("%s", error)
            warned = str(error)


async def _first_of(*jobs: Coroutine[None, None, object]) -> None:
    """Return or raise as the first that ends, and cancel the others. If several have ended, the one named first."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def failed(error: ChatError) -> str:
    """Return the line by which a host that cannot start tells its window why: a JSON string, not an object."""
    return json.dumps(translate(error))


def _announce(room: str, listening: list[Address], invite: str, spoken: str, *, as_json: bool, shared: bool) -> None:
    if as_json:
        for address in listening:
            made = {"event": "listening", "room": room, "transport": address.scheme, "address": str(address)}
            click.echo(dump(made | {"invite": invite} | ({"words": spoken} if spoken else {})))
    else:
        text = _("room {room} is open on {addresses}")
        click.echo(text.format(room=room, addresses=", ".join(map(str, listening))))
        click.echo(_("join it on this machine:   chat join {room}").format(room=room))
        if shared:
            name = f"{login(os.geteuid())}/{room}"
            click.echo(_("join it as another user:   chat join {name}").format(name=name))
        click.echo(_("join it by invite:         chat join '{invite}'").format(invite=invite))
        if spoken:
            click.echo(_(LOCAL["own-words"]).format(words=spoken))


class HostProcess:
    """A headless host that ends with ``close``, or with this process, unless it is ``kept``.

    ``listening`` are its announcements, one JSON object a line. Raises ChatError if it does not start.
    ``on_end`` is called with the reason when it ends by itself; it may be opened again then.
    """

    kept = False

    def __init__(self, room: str, options: Sequence[str], folder: Path, log: Path) -> None:
        self.on_end: Callable[[ChatError], object] | None = None
        self._log = log
        # -P: a folder "chat" in the current directory must not be run instead.
        self._command = [sys.executable, "-P", "-m", "chat", "host", room, "--headless", "--json"]
        self._command += [*options, f"--data={folder}"]
        self._expected = sum(option.startswith(("--transport=", "--group=", "--everyone")) for option in options)
        self._opening = asyncio.Lock()
        self._reopened = asyncio.Event()
        self._start()

    def _start(self) -> None:
        self.listening: list[str] = []
        with os.fdopen(os.open(self._log, _LOG_FLAGS, 0o600), "ab") as log_file, ExitStack() as after_start:
            if log_file.tell() > _LOG_LIMIT:
                log_file.truncate(0)
            self._log_start = log_file.seek(0, os.SEEK_END)
            read_end, control = os.pipe()
            after_start.callback(os.close, read_end)
            self._control = os.fdopen(control, "wb")
            self._process = subprocess.Popen(
                [*self._command, f"--control-fd={read_end}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                pass_fds=[read_end],
                start_new_session=True,
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdout is not None
        why = ""
        while len(self.listening) < self._expected and (line := self._process.stdout.readline()):
            if line.startswith('"'):
                why = json.loads(line)
                break
            self.listening.append(line.rstrip("\n"))
        if len(self.listening) < self._expected:
            code = self._process.wait()
            self._leave()
            error = ChatError(why or self._why(code))
            error.exit_code = code
            raise error

    @property
    def words(self) -> str:
        """The words for the host's key, "" if nobody elsewhere can reach it."""
        words: str = json.loads(self.listening[0]).get("words", "")
        return words

    def close(self) -> None:
        """End the host, and wait until it has ended. Idempotent."""
        self._leave()
        if self.kept:
            self._process.returncode = 0  # or Popen complains that nobody has waited for it
        else:
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def keep(self) -> None:
        """Let the host go on without this process."""
        with suppress(BrokenPipeError):  # it has just ended
            os.write(self._control.fileno(), b"k")
            self.kept = True

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    async def reopen(self) -> None:
        """Start a host that has ended again, as it was started before. Raises ChatError."""
        async with self._opening:
            if self.is_running:
                raise ChatError("the room is open")
            self._leave()
            await asyncio.to_thread(self._start)
            self._reopened.set()

    def _leave(self) -> None:
        self._control.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _why(self, code: int) -> str:
        """Return why the host ended: the last line of its log, unless a signal ended it."""
        if code < 0:
            return Text("the host was ended by {signal}; open the room again", signal=signal.Signals(-code).name)
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return _LOG_HEAD.sub("", lines[-1]) if lines else Text("the host ended with exit code {code}", code=code)

    async def while_it_runs(self, face: Coroutine[None, None, None]) -> None:
        """Run a face until it ends. Without ``on_end`` the end of the host is its end, too.

        Raises ChatError then, with the last line of the host's log.
        """

        async def watch() -> None:
            while True:
                error = ChatError(self._why(await self._ended()))
                if self.on_end is None:
                    raise error
                self._reopened.clear()
                self.on_end(error)
                await self._reopened.wait()

        try:
            await _first_of(face, watch())
        finally:
            self._leave()

    async def _ended(self) -> int:
        """Wait for the end of the host; return its exit code."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            self._process.wait()
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(ended.set)

        # A daemon, unlike the threads of to_thread: the program must not wait for a host that is kept.
        threading.Thread(target=wait, name="waits for the host", daemon=True).start()
        await ended.wait()
        return self._process.wait()
