"""Python functions as forked peers: in programs of their own, since a test's process has done too much to fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30
MARK = "MANYWIRE_TEST_MARK"
# A host in the folder given, which forks the peers named, adopts them, and prints what is said.
HOST = """
import asyncio, os, sys
from pathlib import Path
from chat.client.client import Client
from chat.client.target import Target
from chat.core.errors import ChatError
from chat.host.host import Host
from chat.local.identity import Identity, load_host; from chat.local.known_hosts import KnownHosts
from chat.host.orphans import adopt_orphans
from chat.host.programs import Programs, fork
from chat.core.events import Message
from chat.host.store import Store
from chat.transport import Address, Site

folder, names = Path(sys.argv[1]), sys.argv[2:]

async def echo(client):
    await client.say(f"here {os.getpid()}")
    async for event in client:
        if isinstance(event, Message) and not event.author.bot:
            if event.text == "raise":
                raise RuntimeError("as told")
            await client.say(f"heard {event.text}")
            if event.text == "return":
                return

key = load_host(folder / "host.pem")
forked = [fork(echo, name=name, room="lobby", host=key, folder=folder / name) for name in names]
print("forked", *(one.pid for one in forked), flush=True)

async def main():
    adopt_orphans()  # and those that were forked are none
    store = Store(folder / "store")
    host = Host(key, store, owners=frozenset({key.key}))
    host.open_room("lobby", open_to_all=True)
    address = await host.listen(Address("memory", "lobby"), Site(folder, folder / "host.pem"), "lobby")
    peers = Programs(host, folder)
    running = asyncio.ensure_future(host.run())
    ann = Client(lambda: Target((address,), "lobby"), Identity.load(folder / "ann.pem"), KnownHosts(folder / "known"),
                 outboxes=folder / "ann", nick="ann")
    async with ann:
        for one in forked:
            peers.adopt(one)
            try:
                peers.adopt(one)
            except ChatError as error:
                print("refused:", error)
        talking = asyncio.ensure_future(talk(ann))
        async for event in ann:
            if isinstance(event, Message):
                print(event.author.nick, event.author.bot, event.text, flush=True)
            elif type(event).__name__ == "Notice":
                print(event.code, event.text, flush=True)
            if talking.done():
                break
    await peers.aclose()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await host.aclose()
    store.close()

async def talk(ann):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await ann.say(line.decode().rstrip("\\n"))
    await ann.say("bye")

asyncio.run(main())
print("closed", flush=True)
"""


@contextmanager
def hosting(folder: Path, *names: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A running host, and the process ids of its peers."""
    folder.mkdir(mode=0o700, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOST, str(folder), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pids = [int(pid) for pid in line(process).split()[1:]]
        yield process, pids
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = process.stdout.readline().rstrip("\n")
    assert found, process.communicate()[1]
    return found


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines, in the order of letters: which peer is quicker does not matter."""
    return sorted(line(process) for _ in range(count))


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def gone(pid: int) -> bool:
    """Whether nothing but perhaps a zombie is left of a process: it may be nobody's to reap here."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path("/proc/self").exists()
    return True


def until_gone(pids: list[int]) -> None:
    until(lambda: all(gone(pid) for pid in pids), "the forked peers have ended with their host")


def test_forked_functions_are_members_and_end_with_the_host(tmp_path: Path) -> None:
    with hosting(tmp_path / "host", "bob", "cid", "dan") as (process, pids):
        refused = [line(process) for _ in pids]
        assert refused == [
            f"refused: a program called {name} is already in the room; give this one another name: NAME=COMMAND"
            for name in ("bob", "cid", "dan")
        ]
        assert lines(process, 3) == sorted(
            f"{name} True here {pid}" for name, pid in zip(("bob", "cid", "dan"), pids, strict=True)
        )
        say(process, "hello")
        assert lines(process, 4) == ["ann False hello", *(f"{name} True heard hello" for name in ("bob", "cid", "dan"))]
        out, errors = process.communicate(timeout=PATIENCE)  # ends its input
        assert out.endswith("closed\n")
        assert (process.returncode, errors) == (0, "")
        until_gone(pids)


def test_how_a_forked_function_ended_is_told(tmp_path: Path) -> None:
    with hosting(tmp_path / "host", "bob", "cid") as (process, pids):
        lines(process, 4)
        os.kill(pids[0], signal.SIGKILL)
        assert line(process) == "peer-killed bob has left: it was ended by SIGKILL"
        say(process, "return")
        assert lines(process, 3) == [
            "ann False return",
            "cid True heard return",
            "peer-exited cid has left: it ended with exit status 0",
        ]
    with hosting(tmp_path / "host", "bob") as (process, _):
        lines(process, 2)
        say(process, "raise")
        assert lines(process, 2) == ["ann False raise", "peer-exited bob has left: it ended with exit status 1"]
        assert "RuntimeError: as told" in process.communicate(timeout=PATIENCE)[1]


def test_nothing_is_left_of_a_killed_host_and_the_next_one_starts_at_once(tmp_path: Path) -> None:
    with hosting(tmp_path / "host", "bob", "cid", "dan") as (process, pids):
        lines(process, 6)
        os.kill(pids[1], signal.SIGSTOP)
        process.kill()
        process.communicate()
        with hosting(tmp_path / "host", "bob") as (following, _):
            assert line(following).startswith("refused")
            assert line(following).startswith("bob True here")
        until_gone(pids)


def test_a_host_that_dies_before_it_adopts_leaves_no_peer(tmp_path: Path) -> None:
    script = HOST.replace("asyncio.run(main())", "import time; time.sleep(1000)")
    (tmp_path / "host").mkdir(mode=0o700)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "host"), "bob", "cid"], stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in line(process).split()[1:]]
    process.kill()
    process.communicate()
    until_gone(pids)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); go()",
            "there are 2 threads already",
        ),
        ("import asyncio\nasync def main(): go()\nasyncio.run(main())", "an event loop runs already"),
    ],
)
def test_who_has_begun_already_may_not_fork(tmp_path: Path, before: str, told: str) -> None:
    script = f"""
import os, sys
from pathlib import Path
from chat.host.programs import fork
from chat.local.identity import load_host
folder = Path(sys.argv[1])
key = load_host(folder / "host.pem")
def go():
    try:
        fork(None, name="bob", room="lobby", host=key, folder=folder / "bob")
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        os._exit(0)
{before}
"""
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.startswith(f"LocalProtocolError cannot fork bob: {told}"), done.stderr
    assert not (tmp_path / "bob").exists()
