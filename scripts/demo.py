"""Lets several members speak a text in one room, and compares what everyone got with what was said.

    scripts/demo [FILE] [--members N] [--transports NAME,...] [--kill-member N] [--kill-host N] [--move N]

FILE is NDJSON (*.jsonl, *.ndjson) with an object {"who": ..., "text": ...} a line, or any text in UTF-8,
where each line is a message. Without FILE it is a small text of our own.

                            stdin ─▶ chat join --json ═╗ TCP with TLS, or any
     this program, for each member                     ╠═ other transports  ═▶ chat host --headless
                           stdout ◀─ chat join --json ═╝ in turn

Rules:

1. A host and each member are processes of their own, with a folder of their own, and killed by SIGKILL.
2. A member's transcript is the lines that its processes printed, put together by nothing but this: the
   next process begins with the number after the last one that was printed whole.
3. What a killed process had taken is in its outbox, and its successor names it ("pending"). What it had
   not taken is said again. Nothing else is known about what it got done.
4. One more member comes when half is said, and must get the same transcript.
5. Who moves ends its process and goes on over the next transport, in its own folder: nothing else is new.
6. At the end no process and no file is left, however it ends.

Exit codes: 0 all transcripts are equal, 1 they differ or something failed, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from contextlib import suppress
from itertools import chain, count, cycle, islice, pairwise, repeat, zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from chat.core.wire import MAX_TEXT
from chat.transport.registry import cost, schemes

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).parents[1]
ROOM: Final = "demo"
PATIENCE: Final = 30.0  # seconds in which nothing at all happens before we give up
IN_FLIGHT: Final = 32  # lines that a member may have said and not seen stored, so that a kill meets some
LINE_LIMIT: Final = 1024 * 1024  # bytes of one line of NDJSON: 16 KiB of text may grow sixfold when escaped
NAMES: Final = ("ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon")
LISTEN: Final = {"tcp": "tcp:127.0.0.1:0"}  # where a host is not to listen as it does by default
LATE: Final = "late"
CI_TRANSPORTS: Final = ("tcp", "pipe", "queue")  # those of them that are installed


class Failed(Exception):
    """The demo cannot go on, or its transcripts differ: one line for people."""


# -- what is said ---------------------------------------------------------------------------------


class Line(NamedTuple):
    """One message of the text, and who says it there."""

    who: str
    text: str


OWN_TEXT: Final = (
    Line("a", "Good evening! Is anybody here already?"),
    Line("b", "I am. The kettle is on, and the window is open."),
    Line("c", "大家好。我刚到。今天的风很大。"),
    Line("a", "你好。请坐。茶还是热的。"),
    Line("b", "We bring the whole family: 👨‍👩‍👧‍👦, and the dog 🐕‍🦺."),
    Line("c", "A list, in one message:\n  1. bread\n  2. salt\n\n  3. 两斤苹果\n"),
    Line("a", '/quit is a word like any other here, and so are \\n, "quotes" and {"say": "no"}.'),
    Line("b", "Tabs\tand a bell \x07, a colour \x1b[31mred\x1b[0m and a lonely \r are sent as they are."),
    Line("c", "Żółw, naïve, Ελλάδα, שלום, สวัสดี, नमस्ते: each in its own letters."),
    Line("a", "昨天的雨下了一整夜。河水涨得很高。可是桥还在。" * 40),
    Line("b", "And now something long. " + "All work and no play makes a long line longer. " * 300),
    Line("c", " "),
    Line("a", "That was it. Once more from the top?"),
)


def own_talk(lines: int) -> list[Line]:
    """Our own text again and again. Each round bears its number, so that no line stands for another."""
    rounds = (Line(who, f"{text} {number}") for number in count(1) for who, text in OWN_TEXT)
    return list(islice(rounds, lines))


def read_talk(path: Path, members: int) -> list[Line]:
    """Return what FILE says. Raises Failed for what cannot be a message, OSError."""
    structured = path.suffix in {".jsonl", ".ndjson"}
    voices = cycle(str(number) for number in range(members))
    talk = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = _structured(raw) if structured else Line(next(voices), raw.decode())
            size = len(line.text.encode())
        except (ValueError, TypeError, KeyError) as error:
            wanted = 'an object with "who" and "text"' if structured else "UTF-8"
            raise Failed(f"{path}: line {number} is not {wanted}: {error}") from None
        if size > MAX_TEXT:
            raise Failed(f"{path}: line {number} has {size} bytes; a message has at most {MAX_TEXT}")
        talk.append(line)
    if not talk:
        raise Failed(f"{path}: there is nothing to say in it")
    return talk


def _structured(raw: bytes) -> Line:
    found = json.loads(raw)
    return Line(str(found["who"]), str(found["text"]))


def deal(talk: Iterable[Line], members: int) -> list[list[str]]:
    """Give each voice of the text to a member; where there are more voices, some members have several."""
    voices: dict[str, int] = {}
    says: list[list[str]] = [[] for _ in range(members)]
    for line in talk:
        voice = voices.setdefault(line.who, len(voices))
        says[voice % members].append(line.text)
    return says


# -- what is compared: nothing in this part runs anything -----------------------------------------


class Got(NamedTuple):
    """A message as one member was told of it, or as ``chat log`` printed it."""

    seq: int
    nick: str
    text: str
    raw: bytes  # the whole line of NDJSON


def find_fault(
    log: Sequence[Got],
    transcripts: Mapping[str, Sequence[Got]],
    said: Mapping[str, Sequence[str]],
    stored: Mapping[str, Mapping[int, int | None]],
) -> str:
    """Return the first thing that is not as it must be, as one line, or "".

    ``said`` is what each member said, in its order; ``stored`` is the number that each of these lines was
    told to have (None where the member's process had been killed and could not know).
    """
    faults = (
        disorder(log),
        *(difference(name, got, log) for name, got in transcripts.items()),
        *(misheard(name, lines, log) for name, lines in said.items()),
        *(misnumbered(name, numbers, log) for name, numbers in stored.items()),
        strangers(log, said),
    )
    return next(filter(None, faults), "")


def disorder(log: Sequence[Got]) -> str:
    """The numbers of the log must rise. They may skip: what is no message has a number, too."""
    for before, after in pairwise(log):
        if after.seq <= before.seq:
            return f"chat log prints number {after.seq} after number {before.seq}"
    return ""


def difference(name: str, got: Sequence[Got], log: Sequence[Got]) -> str:
    """What a member got must be what the log holds, byte for byte."""
    for line, (ours, theirs) in enumerate(zip_longest(got, log), 1):
        if ours == theirs:
            continue
        if ours and theirs and ours[:3] == theirs[:3]:
            return f"line {line} differs: {name} got {ours.raw.decode()}, chat log prints {theirs.raw.decode()}"
        return f"line {line} differs: {name} got {_show(ours)}, chat log prints {_show(theirs)}"
    return ""


def misheard(name: str, said: Sequence[str], log: Sequence[Got]) -> str:
    """What the log holds of a member must be what it said, in its order."""
    held = (got for got in log if got.nick == name)
    for line, (text, found) in enumerate(zip_longest(said, held), 1):
        if found is None or found.text != text:
            what = "nothing more" if text is None else repr(text[:60])
            return f"line {line} of {name} differs: it said {what}, chat log prints {_show(found)}"
    return ""


def misnumbered(name: str, stored: Mapping[int, int | None], log: Sequence[Got]) -> str:
    """A number that a member was told for one of its lines must be that line's."""
    held = [got.seq for got in log if got.nick == name]
    for line, seq in sorted(stored.items()):
        if seq is not None and held[line : line + 1] != [seq]:
            known = f"number {held[line]}" if line < len(held) else "nothing"
            return f"{name} was told that its line {line + 1} is number {seq}, chat log prints it as {known}"
    return ""


def strangers(log: Sequence[Got], said: Mapping[str, Sequence[str]]) -> str:
    """Nobody else may have spoken."""
    return next((f"somebody else spoke: {_show(got)}" for got in log if got.nick not in said), "")


def _show(got: Got | None) -> str:
    return "nothing more" if got is None else f"number {got.seq}, {got.nick}: {got.text[:60]!r}"


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

    def __init__(self, folder: Path, transports: Sequence[str], progress: Progress, tasks: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.transports = transports
        self.progress = progress
        self.tasks = tasks
        self.invite = ""
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
            self.invite = json.loads(line)["invite"]
        self._watching = self.tasks.create_task(self._watch(self._host))

    async def _watch(self, host: Process) -> None:
        code = await host.wait()
        raise Failed(f"the host ended by itself with exit code {code}")

    async def kill_host(self) -> None:
        assert self._host is not None
        self._watching.cancel()
        await kill(self._host)
        await self.open_host()

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

    def __init__(self, stage: Stage, name: str, says: Sequence[str], transport: str) -> None:
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
        self._leaving = False
        self._hearing: asyncio.Task[None] | None = None
        self._speaking: asyncio.Task[None] | None = None

    @property
    def last(self) -> int:
        """The last number that it got."""
        return self.got[-1].seq if self.got else 0

    async def join(self) -> None:
        """Start a process that goes on where the last one ended, and wait until it is in the room."""
        self._joined = False
        by_invite = cost(self.transport) > 2  # the others are for this machine: the room's card says where they are
        self._process = await self.stage.start(
            *(self.name, "join", "-" if by_invite else ROOM, "--transport", self.transport),
            *("--json", "--as", self.name, "--since", str(self.last + 1)),
        )
        assert self._process.stdin is not None
        if by_invite:
            self._process.stdin.write(f"{self.stage.invite}\n".encode())
        self._hearing = self.stage.tasks.create_task(self._hear(self._process))
        await self.stage.until(lambda: self._joined, f"{self.name} to join")

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
                await self.stage.until(self._may_speak, f"{self.name} to say line {line + 1}")
                self._taken.add(line)
                process.stdin.write(json.dumps({"say": text, "id": str(line)}).encode() + b"\n")
                await process.stdin.drain()

    def _may_speak(self) -> bool:
        return len(self._taken) < IN_FLIGHT and self.stage.stored < self.stage.pause_at

    async def _hear(self, process: Process) -> None:
        """Take down what the process prints, until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote this
            self._take_down(json.loads(line), line)
            self.stage.happened()
            await asyncio.sleep(0)  # readline alone returns at once while it has lines; whoever waits must see each
        if not self._leaving:
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


def as_got(event: Mapping[str, Any], line: bytes) -> Got:
    return Got(event["seq"], event["nick"], event["text"], line)


async def must_end(process: Process, name: str) -> None:
    """Wait until a process has ended well. Raises Failed."""
    try:
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()
    except TimeoutError:
        raise Failed(f"{name} was asked to end and still runs after {PATIENCE:g} s") from None
    if code:
        raise Failed(f"{name} ended with exit code {code}")


async def kill(process: Process) -> None:
    """End a process that may have ended, and take leave of it."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


# -- the play -------------------------------------------------------------------------------------


class Trouble(NamedTuple):
    """What happens when ``at`` lines are stored: "member" or "host" (is killed), "move", "late" (somebody comes)."""

    at: int
    what: str


def plan(total: int, members: int, hosts: int, chance: random.Random, moves: int = 0) -> list[Trouble]:
    """Spread kills and moves over the play, each somewhere in its own part of it; somebody comes late at half time."""
    whats = ["member"] * members + ["host"] * hosts + ["move"] * moves
    chance.shuffle(whats)
    part = total / max(1, len(whats))
    troubles = [Trouble(int((number + chance.random()) * part), what) for number, what in enumerate(whats)]
    return sorted([*troubles, Trouble(total // 2, "late")])


async def play(stage: Stage, says: Sequence[Sequence[str]], troubles: Iterable[Trouble], chance: random.Random) -> str:
    """Run the whole demo; return what is wrong, or ""."""
    await stage.open_host()
    names = chain(NAMES, (f"member-{number}" for number in count(len(NAMES) + 1)))
    wires = cycle(stage.transports)
    stage.members = [Member(stage, name, lines, next(wires)) for name, lines in zip(names, says, strict=False)]
    for member in stage.members:
        await member.join()
    for member in stage.members:
        member.speak()
    victim = chance.choice([member for member in stage.members if member.says])
    movers = cycle(chance.sample(stage.members, len(stage.members)))
    late = Member(stage, LATE, (), next(wires))
    total = sum(map(len, says))
    for trouble in troubles:
        stage.pause_at = trouble.at + IN_FLIGHT  # so that the troubles are where they are planned, at any speed
        stage.happened()
        await stage.until_stored(trouble.at)
        who = {"move": movers, "late": iter([late])}.get(trouble.what, repeat(victim))
        await meet(stage, trouble, next(who))
    stage.pause_at = total
    stage.happened()
    await stage.until_stored(total)
    log = await stage.print_log()
    last = log[-1].seq if log else 0
    for member in stage.members:
        await member.get(last)
    for member in stage.members:
        await member.leave()
    await stage.stop_host()
    return find_fault(
        log,
        {member.name: member.got for member in stage.members},
        {member.name: member.says for member in stage.members},
        {member.name: member.stored for member in stage.members},
    )


async def meet(stage: Stage, trouble: Trouble, who: Member) -> None:
    match trouble.what:
        case "member":
            stage.progress.note(f"kill -9 {who.name}: {stage.stored} lines are stored")
            await who.kill()
            stage.progress.note(f"{who.name} is back; {who.found} lines lay in its outbox, unconfirmed")
        case "host":
            stage.progress.note(f"kill -9 the host: {stage.stored} lines are stored")
            await stage.kill_host()
            stage.progress.note("the host is back")
        case "move":
            stage.progress.note(f"{who.name} leaves {who.transport}: {stage.stored} lines are stored")
            await who.move()
            stage.progress.note(f"{who.name} is back over {who.transport}")
        case "late":
            stage.members.append(who)
            await who.join()


async def run(
    says: Sequence[Sequence[str]], transports: Sequence[str], troubles: Sequence[Trouble], chance: random.Random
) -> None:
    """Raises Failed, also for transcripts that differ."""
    total = sum(map(len, says))
    progress = Progress(total, sys.stderr)
    cancel_on_signals()
    with tempfile.TemporaryDirectory(prefix="chat-demo-") as folder:
        stage = None
        try:
            async with asyncio.TaskGroup() as tasks:
                stage = Stage(Path(folder), transports, progress, tasks)
                fault = await play(stage, says, troubles, chance)
        except* Failed as failures:
            assert stage is not None
            raise Failed(f"{first_of(failures)}\n{stage.complaints()}".rstrip()) from None
        finally:
            progress.end()
            if stage is not None:
                await stage.close()
    if fault:
        raise Failed(fault)
    words = {"member": "member killed", "host": "host killed", "move": "a member moved"}
    events = ", ".join(f"{words[what]} at line {at}" for at, what in troubles if what != "late")
    print(
        f"{total} lines by {sum(map(bool, says))} of {len(says)} members over {' and '.join(transports)}, "
        f"and one who came late{'; ' + events if events else ''}: "
        f"all {len(says) + 1} transcripts, chat log and what was said are equal"
    )


def cancel_on_signals() -> None:
    """Have SIGINT and SIGTERM cancel this task, once: an impatient second Ctrl-C must not stop the cleaning up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def first_of(group: BaseExceptionGroup[Failed]) -> str:
    """The first failure's text: the others follow from it."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else str(first)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="what is said; without it, a text of our own"
    )
    parser.add_argument("--members", type=positive, default=4, metavar="N", help="how many speak or listen (4)")
    parser.add_argument(
        "--lines", type=positive, metavar="N", help="only the first N lines of FILE, or N of our own (300)"
    )
    parser.add_argument(
        "--transports", type=names_of, default=("tcp",), metavar="NAME,...", help="each member takes the next (tcp)"
    )
    parser.add_argument("--kill-member", type=int, default=0, metavar="N", help="kill one of the speakers N times")
    parser.add_argument("--kill-host", type=int, default=0, metavar="N", help="kill the host N times")
    parser.add_argument(
        "--move", type=int, default=0, metavar="N", help="have N members leave, and come back over another transport"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="who is met by what, and when; the same seed does the same"
    )
    parser.add_argument("--ci", action="store_true", help="short, always the same, with kills and moves of all kinds")
    arguments = parser.parse_args()
    if arguments.ci:
        arguments.lines, arguments.kill_member, arguments.kill_host, arguments.move, arguments.seed = 300, 2, 1, 2, 1
        arguments.transports = tuple(name for name in CI_TRANSPORTS if name in schemes())
    if arguments.move and len(arguments.transports) < 2:
        parser.error("--move needs another transport to move to, like --transports tcp,pipe")
    return arguments


def names_of(text: str) -> tuple[str, ...]:
    """The transports in a list with commas, or "all": those over which two processes can meet."""
    known = [name for name in schemes() if name != "memory"]
    names = tuple(known if text == "all" else text.split(","))
    for name in names:
        if name not in known or names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}, each once; or write all")
    return names


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def what_is_said(arguments: argparse.Namespace) -> list[Line]:
    """Raises Failed."""
    if arguments.file is None:
        return own_talk(arguments.lines or 300)
    try:
        return read_talk(arguments.file, arguments.members)[: arguments.lines]
    except OSError as error:
        raise Failed(f"cannot read {arguments.file}: {(error.strerror or str(error)).lower()}") from None


def main() -> int:
    arguments = parse_arguments()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    chance = random.Random(seed)
    advice = ""
    try:
        talk = what_is_said(arguments)
        advice = f"\ndemo: for kills at the same lines add --seed {seed}"
        troubles = plan(len(talk), arguments.kill_member, arguments.kill_host, chance, arguments.move)
        asyncio.run(run(deal(talk, arguments.members), arguments.transports, troubles, chance))
    except Failed as error:
        print(f"demo: {error}{advice}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
