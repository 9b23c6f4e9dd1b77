"""Lets several members speak a text in one room, and compares what everyone got with what was said.

    scripts/demo [FILE] [--members N] [--transports NAME,...] [--kill-member N] [--kill-host N] [--end-host N]
                 [--stop N] [--move N] [--cut N] [--freeze N] [--delay MS] [--soak SECONDS]

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
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import chain, count, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.transport.registry import schemes
from scripts.demo_parts.cable import Cable
from scripts.demo_parts.stage import IN_FLIGHT, Member, Progress, Stage
from scripts.demo_parts.transcripts import Failed, Line, deal, find_fault, own_talk, read_talk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMES: Final = ("ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon")
LATE: Final = "late"
TROUBLES: Final = {  # and how they are told of
    "member": "a member killed",
    "host": "the host killed",
    "end": "the host asked to end",
    "stop": "somebody stopped",
    "move": "a member moved",
    "cut": "the cable cut",
    "freeze": "the cable dead",
}
FLAT: Final = (32 * 1024, 16, 16)  # by how much a host's memory (KiB), descriptors and files may differ in a soak
LINES_A_SECOND: Final = 300  # that are ready to be said in a soak
CI_TRANSPORTS: Final = ("tcp", "pipe", "queue")  # those of them that are installed


# -- the play -------------------------------------------------------------------------------------


class Trouble(NamedTuple):
    """What happens when ``at`` lines are stored: one of ``TROUBLES``, or "late" (somebody comes)."""

    at: int
    what: str


def plan(total: int, whats: Mapping[str, int], chance: random.Random) -> list[Trouble]:
    """Spread troubles of each kind over the play, each in a part of its own. Somebody comes late at half time."""
    mixed = [what for what, times in whats.items() for _ in range(times)]
    chance.shuffle(mixed)
    part = total / max(1, len(mixed))
    troubles = [Trouble(int((number + chance.random()) * part), what) for number, what in enumerate(mixed)]
    return sorted([*troubles, Trouble(total // 2, "late")])


class Play:
    """One demo, from the first member to the last comparison."""

    def __init__(self, stage: Stage, says: Sequence[list[str]], chance: random.Random) -> None:
        self.stage = stage
        self.chance = chance
        self.met: Counter[str] = Counter()
        names = chain(NAMES, (f"member-{number}" for number in count(len(NAMES) + 1)))
        wires = cycle(stage.transports)
        self.talkers = [Member(stage, name, lines, next(wires)) for name, lines in zip(names, says, strict=False)]
        self.late = Member(stage, LATE, [], next(wires))
        self.victim = chance.choice([member for member in self.talkers if member.says])
        self.movers = cycle(chance.sample(self.talkers, len(self.talkers)))

    async def begin(self) -> None:
        await self.stage.open_host()
        self.stage.members = list(self.talkers)
        for member in self.talkers:
            await member.join()
        for member in self.talkers:
            member.speak()

    async def perform(self, troubles: Iterable[Trouble]) -> None:
        """Meet one trouble after the other where it is planned, at any speed."""
        for trouble in troubles:
            await self._go_on_to(trouble.at, ahead=IN_FLIGHT)
            await self.meet(trouble.what)

    async def soak(self, seconds: float) -> str:
        """Meet troubles of all kinds for so long; return what did not stay flat in the second half, or ""."""
        began = time.monotonic()
        before, kinds = (
            None,
            [what for what in TROUBLES if self.stage.cable is not None or what not in ("cut", "freeze")],
        )
        await self.meet("late")
        total = sum(len(member.says) for member in self.talkers)
        while (passed := time.monotonic() - began) < seconds:
            if passed > seconds / 2 and before is None:
                kinds = [what for what in kinds if what not in ("host", "end")]  # which would begin anew
                before = self.stage.resources()
            line = self.stage.stored + self.chance.randrange(20, 200)
            if line + IN_FLIGHT > total * passed / seconds:  # on a fast machine the text would end too soon
                await asyncio.sleep(0.1)
                continue
            await self._go_on_to(line, ahead=IN_FLIGHT)
            self.victim = self.chance.choice(self.talkers)
            await self.meet(self.chance.choice(kinds))
        for member in self.talkers:
            member.stop_talking()
        await self._go_on_to(sum(len(member.says) for member in self.talkers))
        assert before is not None
        after = self.stage.resources()
        for what, old, new, most in zip(("memory, KiB", "descriptors", "files"), before, after, FLAT, strict=True):
            self.stage.progress.note(f"the host's {what}: {old} at half time, {new} at the end")
            if new > old + most:
                return f"the host's {what} grew from {old} to {new}"
        return ""

    async def _go_on_to(self, line: int, ahead: int = 0) -> None:
        self.stage.pause_at = line + ahead
        self.stage.happened()
        await self.stage.until_stored(line)

    async def finish(self) -> str:
        """Have everybody say the rest, and compare. Return what is wrong, or ""."""
        await self._go_on_to(sum(len(member.says) for member in self.talkers))
        log = await self.stage.print_log()
        members = self.stage.members
        for member in members:
            await member.get(log[-1].seq if log else 0)
        for member in members:
            await member.leave()
        await self.stage.stop_host()
        return find_fault(
            log,
            {member.name: member.got for member in members},
            {member.name: member.says for member in members},
            {member.name: member.stored for member in members},
        )

    async def meet(self, what: str) -> None:
        self.met[what] += 1
        stage, victim, cable, note = self.stage, self.victim, self.stage.cable, self.stage.progress.note
        stored = f"{stage.stored} lines are stored"
        match what:
            case "member":
                note(f"kill -9 {victim.name}: {stored}")
                await victim.kill()
                note(f"{victim.name} is back; {victim.found} lines lay in its outbox, unconfirmed")
            case "host":
                note(f"kill -9 the host: {stored}")
                await stage.kill_host()
                note("the host is back")
            case "end":
                note(f"kill -TERM the host: {stored}")
                await stage.end_host()
                note("the host is back")
            case "stop":
                one = self.chance.choice([None, victim])
                note(f"kill -STOP {one.name if one else 'the host'}, for a second: {stored}")
                await (one.pause() if one else stage.pause_host())
            case "cut" if cable is not None:
                after = self.chance.randrange(4000)
                note(f"the cable is cut after {after} more bytes: {stored}")
                cable.cut(after)
            case "freeze" if cable is not None:
                note(f"the links die without a word: {stored}")
                cable.freeze()
            case "move":
                mover = next(self.movers)
                note(f"{mover.name} leaves {mover.transport}: {stored}")
                await mover.move()
                note(f"{mover.name} is back over {mover.transport}")
            case "late":
                stage.members.append(self.late)
                await self.late.join()


async def run(
    says: Sequence[list[str]],
    transports: Sequence[str],
    troubles: Sequence[Trouble],
    chance: random.Random,
    delay: float = 0.0,
    seconds: float = 0.0,
) -> None:
    """Raises Failed, also for transcripts that differ."""
    progress = Progress(sum(map(len, says)), sys.stderr)
    cabled = "tcp" in transports and (delay or seconds or any(what in ("cut", "freeze") for _, what in troubles))
    cancel_on_signals()
    with tempfile.TemporaryDirectory(prefix="chat-demo-") as folder:
        stage = None
        cable = Cable(delay, chance) if cabled else None
        try:
            async with asyncio.TaskGroup() as tasks:
                stage = Stage(Path(folder), transports, progress, tasks, cable)
                play = Play(stage, says, chance)
                await play.begin()
                await play.perform(troubles)
                fault = await play.soak(seconds) if seconds else ""
                fault = fault or await play.finish()
                if cable is not None:
                    await cable.close()
        except* Failed as failures:
            assert stage is not None
            raise Failed(f"{first_of(failures)}\n{stage.complaints()}".rstrip()) from None
        finally:
            progress.end()
            if stage is not None:
                await stage.close()
    if fault:
        raise Failed(fault)
    events = "".join(f", {TROUBLES[what]} {times} times" for what, times in sorted(play.met.items()) if what != LATE)
    if cable is not None:
        events += f", {cable.cuts} links cut, {cable.freezes} dead"
    lines, talkers = sum(map(len, says)), sum(map(bool, says))
    print(
        f"{lines} lines by {talkers} of {len(says)} members over {' and '.join(transports)}, and one who came late"
        f"{events}: all {len(says) + 1} transcripts, chat log and what was said are equal"
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
    for what, help_text in (
        ("kill-member", "kill one of the speakers N times"),
        ("kill-host", "kill the host N times"),
        ("end-host", "ask the host to end (SIGTERM) N times, and open the room again"),
        ("stop", "stop a speaker or the host (SIGSTOP) for a second, N times"),
        ("move", "have N members leave, and come back over another transport"),
        ("cut", "cut the links over tcp N times, each time after some more bytes"),
        ("freeze", "have the links over tcp die without a word, N times; it takes 12 s to notice"),
        ("delay", "milliseconds there and back over tcp, with a lost piece now and then"),
        ("soak", "go on for N seconds, with all of these"),
    ):
        parser.add_argument(f"--{what}", type=int, default=0, metavar="N", help=help_text)
    parser.add_argument(
        "--seed", type=int, metavar="N", help="who is met by what, and when; the same seed does the same"
    )
    parser.add_argument("--ci", action="store_true", help="short, always the same, with kills and moves of all kinds")
    arguments = parser.parse_args()
    if arguments.ci:
        arguments.lines, arguments.kill_member, arguments.kill_host, arguments.move, arguments.seed = 300, 2, 1, 2, 1
        arguments.end_host = arguments.stop = 1
        arguments.cut = 6
        arguments.transports = tuple(name for name in CI_TRANSPORTS if name in schemes())
    if arguments.move and len(arguments.transports) < 2:
        parser.error("--move needs another transport to move to, like --transports tcp,pipe")
    if (arguments.cut or arguments.freeze or arguments.delay) and "tcp" not in arguments.transports:
        parser.error("--cut, --freeze and --delay are for tcp; add it to --transports")
    if arguments.soak:
        arguments.lines = arguments.soak * LINES_A_SECOND
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
        whats = {
            "member": arguments.kill_member,
            "host": arguments.kill_host,
            "end": arguments.end_host,
            "stop": arguments.stop,
            "move": arguments.move,
            "cut": arguments.cut,
            "freeze": arguments.freeze,
        }
        troubles = [] if arguments.soak else plan(len(talk), whats, chance)
        says = deal(talk, arguments.members)
        asyncio.run(run(says, arguments.transports, troubles, chance, arguments.delay / 1000, arguments.soak))
    except Failed as error:
        print(f"demo: {error}{advice}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
