"""How many messages a second a room carries: the host, beside a naive broadcaster and a floor.

    scripts/bench [--quick] [--senders N,N] [--members N,N] [--rounds N] [--seconds S] [--json FILE]

Three servers get the same load, in turn, round after round; what counts is the median of each.

    naive   asyncio, one write for each message and member (bench_parts/naive.py); stores nothing
    floor   epoll, parses nothing, stores nothing (bench_parts/floor.py)
    host    chat host --headless, plain TCP, every message on the disk (fsync) before anybody gets it

The load (bench_parts/load.py) is this process; on a machine with two cores it has one and the server the
other. Messages are 100 bytes. Where the load takes more processor time than the server, the load may be
what is measured, and the table says so. Messages per second of the server's processor time depend least on
what else the machine does.

    scripts/bench --queues [--rounds N] [--seconds S]
    scripts/bench --boards [--rounds N]
    scripts/bench --face [--rounds N] [--seconds S]
    scripts/bench --attacks [--rounds N] [--seconds S]
    scripts/bench --joins [--members N,N] [--rounds N]

The room over its queue, beside other ways to give eight processes everything (bench_parts/queues.py); its board,
beside other shared tables (bench_parts/boards.py); how soon the full-screen face shows a key (bench_parts/face.py);
how long a message of bystanders takes while somebody attacks the host (bench_parts/attacks.py); how long many take to
join (bench_parts/joins.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from scripts.bench_parts.load import Load
from scripts.bench_parts.wires import Broken, ChatWire, LineWire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripts.bench_parts.wires import Wire

ROOT: Final = Path(__file__).parents[1]
PARTS: Final = Path(__file__).parent / "bench_parts"
ROOM: Final = "bench"
SERVERS: Final = ("naive", "floor", "host")
_SPARE_FILES: Final = 64  # descriptors beside those of the members


class Case(NamedTuple):
    senders: int
    members: int
    window: int


class Figure(NamedTuple):
    """One server in one round."""

    rate: float  # messages a second
    server_cpu: float  # share of one core
    load_cpu: float


class Server(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int
    wire: Wire


# -- servers --------------------------------------------------------------------------------------


@contextmanager
def serve(name: str, folder: Path, wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """Run one server, by itself on its core. ``wrapper`` is a command to run it under."""
    wire: Wire = ChatWire(ROOM) if name == "host" else LineWire()
    with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=folder) as data:
        run_on(1)  # inherited from the first instant, also by what strace starts
        process = subprocess.Popen(
            [*wrapper, sys.executable, *command(name, data, wire)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"CHAT_RUNTIME": f"{data}/run"},
            process_group=0,
        )
        run_on(0)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Broken(f"the server {name} did not start; exit code {process.wait()}")
            yield Server(process, port_in(line), wire)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()


def command(name: str, data: str, wire: Wire) -> list[str]:
    if name != "host":
        return [str(PARTS / f"{name}.py"), str(wire.size)]
    listen = ["-t", "tcp:127.0.0.1:0?tls=0", "--open", "--rate", "0", "--data", data]
    return ["-m", "chat", "host", ROOM, "--headless", "--json", *listen]


def port_in(line: bytes) -> int:
    """The port in a server's first line: a number, or the host's announcement."""
    if line.strip().isdigit():
        return int(line)
    address: str = json.loads(line)["address"]
    return int(address.partition("?")[0].rpartition(":")[2])


CORES: Final = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def run_on(place: int) -> None:
    """Have this process, and what it starts from now on, stay on one core, where there are two."""
    if len(CORES) > 1:
        os.sched_setaffinity(0, {CORES[place]})


TICK: Final = 1 / os.sysconf("SC_CLK_TCK")  # seconds: the kernel counts processor time in these


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far: fields 14 and 15 of /proc/PID/stat (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


# -- measuring ------------------------------------------------------------------------------------


def measure(name: str, case: Case, seconds: float, folder: Path) -> Figure:
    with serve(name, folder) as server:
        load = Load(server.wire, server.port, members=case.members, senders=case.senders, window=case.window)
        try:
            before = cpu_seconds(server.process.pid)
            result = load.run(seconds)
            server_cpu = max(cpu_seconds(server.process.pid) - before, TICK)
        finally:
            load.close()
    return Figure(result.messages / result.seconds, server_cpu / result.seconds, result.cpu / result.seconds)


def messages_a_sync(case: Case, folder: Path) -> float:
    """How many messages the host puts on the disk with one fsync: a round of its own, not timed, under strace."""
    calls = folder / "strace"
    strace = ["strace", "-f", "-qq", "-ttt", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", str(calls)]
    with serve("host", folder, strace) as server:
        load = Load(server.wire, server.port, members=case.members, senders=case.senders, window=case.window)
        began = time.time()
        try:
            messages = load.run(0.5).messages
            ended = time.time()
        finally:
            load.close()
    # PID TIME fdatasync(...; a call that another thread's interrupts in the log is "resumed" on a second line.
    lines = (line.split(maxsplit=2) for line in calls.read_text().splitlines() if "resumed>" not in line)
    return messages / max(1, sum(began <= float(when) <= ended for _pid, when, _call in lines))


def run_case(case: Case, rounds: int, seconds: float, folder: Path) -> dict[str, list[Figure]]:
    """Measure every server in every round: what else the machine does then meets all of them alike."""
    figures: dict[str, list[Figure]] = {name: [] for name in SERVERS}
    for number in range(rounds):
        for name in SERVERS:
            print(
                f"{case.members} members, {case.senders} of them send, round {number + 1} of {rounds}: {name}",
                file=sys.stderr,
            )
            figures[name].append(measure(name, case, seconds, folder))
    return figures


# -- showing --------------------------------------------------------------------------------------


HEADINGS: Final = (
    "senders",
    "members",
    "server",
    "messages/s",
    "deliveries/s",
    "x naive",
    "x floor",
    "server CPU",
    "load CPU",
    "messages/CPU s",
    "messages/fsync",
)


def rows(case: Case, figures: dict[str, list[Figure]], a_sync: float | None) -> Iterator[list[str]]:
    rates = {name: median(figure.rate for figure in figures[name]) for name in SERVERS}
    for name in SERVERS:
        server_cpu = median(figure.server_cpu for figure in figures[name])
        load_cpu = median(figure.load_cpu for figure in figures[name])
        yield [
            str(case.senders),
            f"{case.members:,}",
            name,
            f"{rates[name]:,.0f}",
            f"{rates[name] * case.members:,.0f}",
            f"{rates[name] / rates['naive']:.1f}",
            f"{rates[name] / rates['floor']:.2g}",
            f"{server_cpu:.0%}",
            f"{load_cpu:.0%}" + (" (more than the server)" if load_cpu > server_cpu else ""),
            f"{median(figure.rate / figure.server_cpu for figure in figures[name]):,.0f}",
            f"{a_sync:.0f}" if a_sync is not None and name == "host" else "",
        ]


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown, with columns that a person can read too."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    made.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(made)


def conditions(arguments: argparse.Namespace, window: int = 0) -> str:
    return (
        f"{machine(arguments.folder)}; at most {window or arguments.window} messages in flight; "
        f"medians of {arguments.rounds} rounds of {arguments.seconds:g} s"
    )


def machine(folder: Path) -> str:
    """What is measured with, and where the host keeps its data."""
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores"
    return f"Python {platform.python_version()}, {system}, data on {file_system(folder)}"


def file_system(folder: Path) -> str:
    """What kind of file system holds a folder: on tmpfs an fsync costs nothing."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    _device, _place, kind, *_ = max(holding, key=lambda mount: len(mount[1]))
    return kind


# -- the command ----------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} has a number below 1")
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--senders", type=numbers, default=[1, 10], metavar="N,N", help="how many send (1,10)")
    parser.add_argument("--members", type=numbers, default=[10, 100, 1000], metavar="N,N", help="(10,100,1000)")
    parser.add_argument("--window", type=int, default=500, metavar="N", help="messages in flight at most (500)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(5)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="how long each round sends (2)")
    parser.add_argument("--quick", action="store_true", help="one round of half a second, 10 and 100 members")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the host keeps its data"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--queues", action="store_true", help="the room's queue beside other queues instead")
    parser.add_argument("--boards", action="store_true", help="the board of a room beside other shared tables instead")
    parser.add_argument("--face", action="store_true", help="how soon the full-screen face shows a key instead")
    parser.add_argument("--attacks", action="store_true", help="how long messages take during attacks instead")
    parser.add_argument("--joins", action="store_true", help="how long many members take to join instead")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.members, arguments.rounds, arguments.seconds = [10, 100], 1, 0.5
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if sys.platform != "linux":
        print("bench: it needs Linux, for epoll and /proc", file=sys.stderr)
        return 1
    others = (
        (arguments.queues, compare_queues),
        (arguments.boards, compare_boards),
        (arguments.face, time_face),
        (arguments.attacks, attack),
        (arguments.joins, time_joins),
    )
    measure_all = next((way for wanted, way in others if wanted), compare_servers)
    try:
        print("\n\n".join(measure_all(arguments)))
    except Broken as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def compare_servers(arguments: argparse.Namespace) -> list[str]:
    allow_files(max(arguments.members) + _SPARE_FILES)
    lines: list[Sequence[str]] = [HEADINGS]
    record = []
    for case in [Case(s, m, arguments.window) for s in arguments.senders for m in arguments.members if s <= m]:
        figures = run_case(case, arguments.rounds, arguments.seconds, arguments.folder)
        with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=arguments.folder) as scratch:
            a_sync = messages_a_sync(case, Path(scratch)) if shutil.which("strace") else None
        lines += rows(case, figures, a_sync)
        record.append(
            case._asdict()
            | {"messages_per_fsync": a_sync}
            | {name: [figure._asdict() for figure in figures[name]] for name in SERVERS}
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"conditions": conditions(arguments), "cases": record}, indent=1) + "\n")
    return [conditions(arguments), table(lines)]


def compare_queues(arguments: argparse.Namespace) -> list[str]:
    from chat.client.client import WINDOW
    from scripts.bench_parts import queues

    deliveries, round_trips, left_out = queues.tables(arguments.rounds, arguments.seconds, arguments.folder)
    return [conditions(arguments, WINDOW), table(deliveries), table(round_trips), *left_out]


def compare_boards(arguments: argparse.Namespace) -> list[str]:
    from scripts.bench_parts import boards

    return [conditions(arguments), table(boards.tables(arguments.rounds, arguments.folder))]


def time_face(arguments: argparse.Namespace) -> list[str]:
    from scripts.bench_parts import face

    keys, starts, told = face.tables(arguments.rounds, arguments.seconds, arguments.folder)
    measured = f"rounds: {arguments.rounds}, each of {arguments.seconds:g} s without and with the flood"
    return [f"{machine(arguments.folder)}; {measured}", table(keys), table(starts), *told]


def attack(arguments: argparse.Namespace) -> list[str]:
    from scripts.bench_parts import attacks

    allow_files(2048)
    measured = f"rounds: {arguments.rounds}, each of {arguments.seconds:g} s before and during each attack"
    found = attacks.tables(arguments.rounds, arguments.seconds, arguments.folder)
    return [f"{machine(arguments.folder)}; {measured}", table(found), attacks.OTHERS]


def time_joins(arguments: argparse.Namespace) -> list[str]:
    from scripts.bench_parts import joins

    allow_files(max(arguments.members) + _SPARE_FILES)
    found = joins.tables(arguments.members, arguments.rounds, arguments.folder)
    return [f"{machine(arguments.folder)}; rounds: {arguments.rounds}", table(found)]


def allow_files(wanted: int) -> None:
    """Have enough descriptors, here and in the servers, which inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
