"""A host that sends a member whatever costs it most, without end."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from chat.client import connection
from chat.client.client import Client
from chat.client.target import Target
from chat.core.bodies import Author, Direct, Gap, Names, Presence, States, Struct, pack
from chat.core.wire import Kind, encode
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from chat.transport import Address
from tests.cli.programs import CHAT
from tests.host.host_fixture import Script, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.host.host_fixture import Scripted

FLOOD: Final = 4 * 1024 * 1024  # bytes of each kind
GROWTH: Final = 48 * 1024 * 1024  # bytes of memory that a member may take for all of them together
NICK: Final = "x" * 60
LONG: Final = "x" * 30_000
NOTICE: Final = encode(Kind.NOTICE, msgspec.msgpack.encode({"code": LONG, "text": LONG}))
numbers = count(1)


class Log:
    """The host's log: frames of it carry the numbers that the member expects."""

    seq = 0

    def frame(self, kind: Kind, body: bytes = b"x", author: int = 2**32 - 1) -> bytes:
        self.seq += 1
        return encode(kind, body, author=author, seq=self.seq, time=1)


def keys(some: int) -> Iterator[bytes]:
    data = os.urandom(32 * some)
    return (data[at : at + 32] for at in range(0, len(data), 32))


def authors(some: int) -> list[Author]:
    return [Author(index=next(numbers), key=key, stream=1, nick=NICK) for key in keys(some)]


def said(kind: Kind, struct: Struct) -> bytes:
    return pack(kind, struct)[32:]


PAGES: Final[dict[str, Callable[[Log], bytes]]] = {
    "presence": lambda _: pack(Kind.PRESENCE, Presence(here=[(key, NICK) for key in keys(500)])),
    "presence anew": lambda _: pack(
        Kind.PRESENCE, Presence(here=[(key, NICK) for key in keys(500)], reset=True, more=True)
    ),
    "names": lambda _: pack(Kind.NAMES, Names(authors=authors(400), asked=[])),
    "asked": lambda _: pack(Kind.NAMES, Names(authors=[], asked=[next(numbers) + 2**20 for _ in range(10_000)])),
    "authors": lambda log: b"".join(log.frame(Kind.AUTHOR, said(Kind.AUTHOR, one)) for one in authors(400)),
    "slots": lambda _: pack(Kind.STATES, States(slots=[os.urandom(60_000)])),
    "direct rooms": lambda _: b"".join(
        pack(Kind.DIRECT, Direct(room="@" + NICK, other=key, nick=NICK, next_seq=9)) for key in keys(400)
    ),
    "decisions": lambda log: log.frame(
        Kind.MODERATION, msgspec.msgpack.encode({"action": "topic", "by": bytes(32), "by_nick": LONG, "text": LONG})
    ),
    "notices": lambda _: NOTICE,
    "gaps": lambda log: b"".join(_gap(log) for _ in range(1000)),
}


def _gap(log: Log) -> bytes:
    log.seq += 1
    return pack(Kind.GAP, Gap(first=log.seq, count=1))


async def pour(guest: Scripted, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        if not (taken := guest.link.send(rest)):
            await guest.link.writable()
        rest = rest[taken:]


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of another process is read from /proc")
@pytest.mark.parametrize("options", [["--plain"], []], ids=["plain", "full screen"])
def test_nothing_that_it_sends_fills_the_members_memory(options: list[str], tmp_path: Path) -> None:
    async def scene() -> None:
        ours, theirs = pty.openpty()
        asyncio.get_running_loop().add_reader(ours, lambda: os.read(ours, 65536))
        async with Script(tmp_path / "host", Address.parse("tcp:127.0.0.1:0?tls=0")) as host:
            member = subprocess.Popen(  # noqa: ASYNC220  it returns at once
                [*CHAT, "join", str(host.listener.address), *options, "--as=ann", f"--data={tmp_path / 'ann'}"],
                stdin=theirs,
                stdout=theirs,
            )
            try:
                guest = await host.accept()
                await guest.let_in()
                log, grown = Log(), {}
                before = await _taken(guest, log, member.pid)
                for name, page in PAGES.items():
                    size = 0
                    while size < FLOOD:
                        data = page(log)
                        size += len(data)
                        await pour(guest, data)
                    now = await _taken(guest, log, member.pid)
                    grown[name] = now - before
                assert max(grown.values()) < GROWTH, grown
            finally:
                member.kill()
                member.wait()
                asyncio.get_running_loop().remove_reader(ours)
                os.close(ours)
                os.close(theirs)
                await guest.link.aclose()

    run(scene())


async def _taken(guest: Scripted, log: Log, pid: int) -> int:
    """Return the member's memory once it has taken all, which its question for this author's name shows."""
    index = next(numbers)
    await pour(guest, log.frame(Kind.SAY, author=index))
    await guest.frame(Kind.ASK)
    size = memory(pid)
    await pour(
        guest, pack(Kind.NAMES, Names(authors=[Author(index=index, key=bytes(32), stream=1, nick="b")], asked=[index]))
    )
    return size


def test_a_program_that_takes_no_events_is_sent_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Script(tmp_path / "host", Address.parse("tcp:127.0.0.1:0?tls=0")) as host:
            target = Target((host.listener.address,), "lobby")
            key, known = Identity.load(tmp_path / "ann.pem"), KnownHosts(tmp_path / "hosts")
            joining = asyncio.ensure_future(Client(lambda: target, key, known).__aenter__())
            guest = await host.meet()
            client = await joining
            pouring = asyncio.ensure_future(pour(guest, 400 * NOTICE))
            await until(lambda: pouring.done() or client.connection._untaken > connection._UNTAKEN, "it reads no more")
            assert not pouring.done()
            while not pouring.done():
                await client.next_events()
            await client.aclose()
            await guest.link.aclose()

    run(scene())
