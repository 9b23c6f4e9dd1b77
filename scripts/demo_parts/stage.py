"""The processes of one demo: a host, and members that outlive theirs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from chat.transport.registry import cost
from scripts.demo_parts.transcripts import Failed, Got, as_got

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Mapping, Sequence

    from scripts.demo_parts.cable import Cable

ROOT: Final = Path(__file__).parents[2]
ROOM: Final = "demo"
PATIENCE: Final = 30.0  # seconds in which nothing at all happens before we give up
IN_FLIGHT: Final = 32  # lines that a member may have said and not seen stored, so that a kill meets some
LINE_LIMIT: Final = 1024 * 1024  # bytes of one line of NDJSON: 16 KiB of text may grow sixfold when escaped
LISTEN: Final = {"tcp": "tcp:127.0.0.1:0"}  # where a host is not to listen as it does by default


# -- what is seen of it ---------------------------------------------------------------------------


class Progress:
    """A bar on a terminal, else a line every 10 %. On standard error, which is for people."""

    WIDTH: Final = 40

    def __init__(self, total: int, out: IO[str]) -> None:
        self._total = total
        self._out = out
        self._bar = out.isatty()
        self._shown = 0  # tenths when there is no terminal, cells of the bar when there is

    def show(self, done: int) -> None:
        steps = self.WIDTH if self._bar else 10
        reached = steps * done // self._total
        if reached != self._shown:
            self._shown = reached
            self._draw(done)

    def note(self, text: str) -> None:
        """Say something that stays, above the bar."""
        print(f"\r\x1b[K{text}" if self._bar else text, file=self._out)

    def _draw(self, done: int) -> None:
        percent = 100 * done // self._total
        if self._bar:
            filled = "#" * self._shown
            print(f"\r[{filled:.<{self.WIDTH}}] {percent:3} %", end="", file=self._out, flush=True)
        else:
            print(f"{percent:3} %: {done} of {self._total} lines are stored", file=self._out, flush=True)

    def end(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=self._out, flush=True)


# -- what runs ------------------------------------------------------------------------------------


class Stage:
    """The folder and the processes of one demo."""

    def __init__(
        self, folder: Path, transports: Sequence[str], progress: Progress, tasks: asyncio.TaskGroup, cable: Cable | None
    ) -> None:
        self.folder = folder
        self.transports = transports
        self.progress = progress
        self.tasks = tasks
        self.cable = cable
        self.invite = ""
        self.invite_by_cable = ""  # what members elsewhere get
        self.pause_at = 0  # when so many lines are stored nobody says more, until the next trouble has been met
        self.members: list[Member] = []
        self._host: Process | None = None
        self._watching: asyncio.Task[None]
        self._processes: list[Process] = []
        self._changed = asyncio.Event()

    @property
    def stored(self) -> int:
        return sum(len(member.stored) for member in self.members)

    def happened(self) -> None:
        """Something was got or stored: whoever waits looks again."""
        self._changed.set()
        self.progress.show(self.stored)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises Failed when nothing at all has happened for half a minute."""
        while not condition():
            self._changed.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._changed.wait()
            except TimeoutError:
                raise Failed(f"nothing has happened for {PATIENCE:g} s while waiting for {what}") from None

    async def until_stored(self, lines: int) -> None:
        await self.until(lambda: self.stored >= lines, f"line {lines} to be stored")

    async def start(self, name: str, *arguments: str) -> Process:
        """Start ``chat`` with a folder of its own for this name."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CHAT_")}
        environment |= {"CHAT_RUNTIME": str(self.folder / "run"), "CHAT_DATA": str(self.folder / name)}
        with (self.folder / "complaints").open("ab") as complaints:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chat",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                cwd=ROOT,
                env=environment,
                limit=LINE_LIMIT,
                process_group=0,  # Ctrl-C is for us alone; we end the others ourselves
            )
        self._processes.append(process)
        return process

    async def open_host(self) -> None:
        """Start the host, the first time or again. A restarted one takes its old port."""
        listening = [f"--transport={LISTEN.get(name, name)}" for name in self.transports]
        self._host = await self.start("host", "host", ROOM, "--headless", "--json", "--rate", "0", *listening)
        assert self._host.stdout is not None
        for _ in listening:
            line = await self._host.stdout.readline()
            if not line:
                raise Failed(f"the host did not start; it ended with exit code {await self._host.wait()}")
            self.invite = self.invite_by_cable = json.loads(line)["invite"]
        if self.cable is not None:
            place = self.invite.removeprefix("chat://").partition("/")[0]
            port = await self.cable.lay(int(place.rpartition(":")[2]))
            self.invite_by_cable = self.invite.replace(place, f"127.0.0.1:{port}")
        self._watching = self.tasks.create_task(self._watch(self._host))

    async def _watch(self, host: Process) -> None:
        code = await host.wait()
        raise Failed(f"the host ended by itself with exit code {code}")

    async def kill_host(self) -> None:
        assert self._host is not None
        self._watching.cancel()
        await kill(self._host)
        await self.open_host()

    async def end_host(self) -> None:
        """Ask the host to end while everybody talks, and open the room again."""
        await self.stop_host()
        await self.open_host()

    async def pause_host(self) -> None:
        assert self._host is not None
        await pause(self._host)

    def resources(self) -> tuple[int, int, int]:
        """Return the host's memory (KiB) and descriptors, and how many files there are; zeros where none can tell."""
        assert self._host is not None
        files = sum(not path.is_dir() for path in self.folder.rglob("*"))
        try:
            process = Path(f"/proc/{self._host.pid}")
            memory = process.joinpath("status").read_text().partition("VmRSS:")[2].split()[0]
            return int(memory), len(list(process.joinpath("fd").iterdir())), files
        except OSError:
            return 0, 0, files

    async def stop_host(self) -> None:
        """Ask the host to end, and expect it to."""
        assert self._host is not None
        self._watching.cancel()
        self._host.terminate()
        await must_end(self._host, "the host")

    async def print_log(self) -> list[Got]:
        """Return what ``chat log`` prints."""
        process = await self.start("reader", "log", "-", "--json")
        printed, _ = await process.communicate(f"{self.invite}\n".encode())
        if process.returncode:
            raise Failed(f"chat log ended with exit code {process.returncode}")
        return [as_got(json.loads(line), line) for line in printed.splitlines(keepends=True)]

    async def close(self) -> None:
        """Leave no process behind, whatever has happened."""
        for process in self._processes:
            await kill(process)

    def complaints(self) -> str:
        """The last lines that the processes wrote to standard error."""
        path = self.folder / "complaints"
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        return "".join(f"  {line}\n" for line in text.splitlines()[-20:])


class Member:
    """A member, over one process after another."""

    def __init__(self, stage: Stage, name: str, says: list[str], transport: str) -> None:
        self.stage = stage
        self.transport = transport
        self.name = name
        self.says = says
        self.got: list[Got] = []
        self.stored: dict[int, int | None] = {}  # by line: the number it was told to have
        self.found = 0  # lines that the present process found in its outbox, and that nobody had been told of
        self._taken: set[int] = set()  # lines that a process has and that are not stored
        self._process: Process | None = None
        self._joined = False
        self._is_silenced = False
        self._turned_away = False  # the cable was cut before it was in the room
        self._leaving = False
        self._hearing: asyncio.Task[None] | None = None
        self._speaking: asyncio.Task[None] | None = None

    @property
    def last(self) -> int:
        """The last number that it got."""
        return self.got[-1].seq if self.got else 0

    async def join(self) -> None:
        """Start a process that goes on where the last one ended, and wait until it is in the room."""
        self._joined = self._turned_away = False
        by_invite = cost(self.transport) > 2  # the others are for this machine: the room's card says where they are
        self._process = await self.stage.start(
            *(self.name, "join", "-" if by_invite else ROOM, "--transport", self.transport),
            *("--json", "--as", self.name, "--since", str(self.last + 1)),
        )
        assert self._process.stdin is not None
        if by_invite:
            self._process.stdin.write(f"{self.stage.invite_by_cable}\n".encode())
        self._hearing = self.stage.tasks.create_task(self._hear(self._process))
        await self.stage.until(lambda: self._joined or self._turned_away, f"{self.name} to join")
        if self._turned_away:  # the first time a member does not dial again by itself
            await self.join()

    def speak(self) -> None:
        """Begin to say what no process has taken yet, or go on with it."""
        assert self._process is not None
        self._speaking = self.stage.tasks.create_task(self._speak(self._process))

    async def kill(self) -> None:
        """Kill the process without warning, read what it had printed until then, and come back."""
        assert self._process is not None
        assert self._hearing is not None
        assert self._speaking is not None
        self._leaving = True
        self._speaking.cancel()
        await kill(self._process)
        await self._hearing
        self._leaving = False
        await self.join()
        self.speak()

    async def pause(self) -> None:
        assert self._process is not None
        await pause(self._process)

    def stop_talking(self) -> None:
        """Forget what no process has been given yet."""
        self._is_silenced = True
        del self.says[max((*self.stored, *self._taken), default=-1) + 1 :]

    async def move(self) -> None:
        """Leave in the middle of it, and go on over the next transport."""
        assert self._hearing is not None
        assert self._speaking is not None
        self._speaking.cancel()
        await self.leave()
        await self._hearing
        self._leaving = False
        transports = self.stage.transports
        self.transport = transports[(transports.index(self.transport) + 1) % len(transports)]
        await self.join()
        self.speak()

    async def get(self, seq: int) -> None:
        await self.stage.until(lambda: self.last >= seq, f"{self.name} to get number {seq}; its last is {self.last}")

    async def leave(self) -> None:
        """End its input, and expect it to go by itself."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._leaving = True
        self._process.stdin.close()
        await must_end(self._process, self.name)

    async def _speak(self, process: Process) -> None:
        """Say line after line, never more than a few ahead of the host's disk."""
        assert process.stdin is not None
        with suppress(ConnectionError):  # it is being killed
            for line, text in enumerate(self.says):
                if line in self.stored or line in self._taken:
                    continue
                await self.stage.until(self._may_go_on, f"{self.name} to say line {line + 1}")
                if line >= len(self.says):
                    return
                self._taken.add(line)
                process.stdin.write(json.dumps({"say": text, "id": str(line)}).encode() + b"\n")
                await process.stdin.drain()

    def _may_go_on(self) -> bool:
        return self._is_silenced or (len(self._taken) < IN_FLIGHT and self.stage.stored < self.stage.pause_at)

    async def _hear(self, process: Process) -> None:
        """Take down what the process prints, until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote this
            self._take_down(json.loads(line), line)
            self.stage.happened()
            await asyncio.sleep(0)  # readline alone returns at once while it has lines; whoever waits must see each
        self._turned_away = not self._joined and self.stage.cable is not None
        self.stage.happened()
        if not (self._leaving or self._turned_away):
            raise Failed(f"{self.name} ended by itself with exit code {await process.wait()}")

    def _take_down(self, event: Mapping[str, Any], line: bytes) -> None:
        match event["event"]:
            case "joined" if not self._joined:  # it is told anew whenever the link comes back
                self._joined = True
                # What it finds may be settled already: it was killed before it could take note of that.
                self._taken = {int(name) for name in event["pending"]} - self.stored.keys()
                self.found = len(self._taken)
            case "message":
                self.got.append(as_got(event, line))
            case "stored":
                self._store(int(event["id"]), event["seq"])
            case "gap" | "rewound" | "refused" | "error":
                raise Failed(f"{self.name} was told {line.decode().strip()}")

    def _store(self, line: int, seq: int | None) -> None:
        """It may be told again after a kill, and then of the same number, or of none."""
        known = self.stored.get(line)
        if known is not None and seq is not None and known != seq:
            raise Failed(f"{self.name} was told that its line {line + 1} is number {known}, and later number {seq}")
        self.stored[line] = seq if known is None else known
        self._taken.discard(line)


async def must_end(process: Process, name: str) -> None:
    """Wait until a process has ended well. Raises Failed."""
    try:
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()
    except TimeoutError:
        raise Failed(f"{name} was asked to end and still runs after {PATIENCE:g} s") from None
    if code:
        raise Failed(f"{name} ended with exit code {code}")


async def pause(process: Process) -> None:
    """Have a process stand still for a second."""
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1)
    process.send_signal(signal.SIGCONT)


async def kill(process: Process) -> None:
    """End a process that may have ended, and take leave of it."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
