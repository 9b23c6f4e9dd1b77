"""transports.pipe, beyond the contract: its door, those who knock at it, and what people read when it fails."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from chat.core.errors import AddressError, ChatError, DialFailed, ListenFailed
from chat.transport import Address, Peer, Site
from transports import pipe
from transports.pipe import PipeListener, PipePair, transport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chat.transport.link import DescriptorLink

pytestmark = pytest.mark.usefixtures("leaves_nothing")

_T = TypeVar("_T")
NAME = "0123456789abcdef" * 2
# A dialler that says what it has done, and is killed wherever it waits.
DIALLER = """
import asyncio, sys
from chat.transport import Address
from transports.pipe import transport
asyncio.run(transport.dial(Address("pipe", sys.argv[1])))
"""
# A host that opens its door, says so, and never accepts.
HOST = """
import asyncio, sys
from pathlib import Path
from chat.transport import Address, Site
from transports.pipe import transport
async def main():
    await transport.listen(Address("pipe", sys.argv[1]), Site(Path(), Path()))
    print("open", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def run(main: Coroutine[Any, Any, _T]) -> _T:
    async def bounded() -> _T:
        async with asyncio.timeout(20):
            return await main

    return asyncio.run(bounded())


@pytest.fixture
def door(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir(mode=0o700)
    return tmp_path / "room" / "door"


async def listen(door: Path) -> PipeListener:
    return await transport.listen(Address("pipe", str(door)), Site(Path(), Path()))


async def dial(door: Path) -> DescriptorLink:
    return await transport.dial(Address("pipe", str(door)))


async def exchange(near: DescriptorLink, far: DescriptorLink) -> None:
    """Send a line each way, and close both."""
    near.send(b"hello")
    assert await far.receive() == b"hello"
    far.send(b"good day")
    assert await near.receive() == b"good day"
    await near.aclose()
    assert await far.receive() == b""
    await far.aclose()


async def lets_in(listener: PipeListener, door: Path) -> None:
    """Somebody who knocks now gets in, and then nothing but the door is left."""
    near, far = await asyncio.gather(dial(door), listener.accept())
    assert names(door) == [door.name]
    await exchange(near, far)


def names(door: Path) -> list[str]:
    """What lies in the door's folder."""
    return sorted(path.name for path in door.parent.iterdir())


def unlink(path: Path) -> None:
    path.unlink()


def dialler(door: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DIALLER, str(door)])


def host_process(door: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOST, str(door)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


async def complaint(job: Coroutine[Any, Any, object], kind: type[ChatError]) -> str:
    with pytest.raises(kind) as raised:
        await job
    assert "\n" not in str(raised.value)
    return str(raised.value)


# -- coming in by the door --------------------------------------------------------------------------------


def test_bare_pipe_is_the_door_in_the_rooms_folder(door: Path) -> None:
    async def scene() -> None:
        listener = await transport.listen(Address("pipe"), Site(door.parent, Path()))
        assert str(listener.address) == f"pipe:{door.parent}/pipe"
        assert listener.advertised is None
        await lets_in(listener, door.parent / "pipe")
        await listener.aclose()
        assert names(door) == []

    run(scene())


def test_an_unrelated_process_comes_in(door: Path) -> None:
    async def scene() -> None:
        listener = await listen(door)
        process = dialler(door)
        link = await listener.accept()
        assert (link.peer.uid, link.peer.pid) == (os.geteuid(), None)
        assert await link.receive() == b""  # it has gone again
        assert process.wait() == 0
        await link.aclose()
        await listener.aclose()

    run(scene())
    assert names(door) == []


def test_many_come_at_once(door: Path) -> None:
    async def scene() -> None:
        listener = await listen(door)
        dialling = [asyncio.ensure_future(dial(door)) for _ in range(100)]
        far = [await listener.accept() for _ in dialling]
        near = await asyncio.gather(*dialling)
        assert names(door) == [door.name]
        for number, link in enumerate(near):
            link.send(b"%d" % number)
        assert {await link.receive() for link in far} == {b"%d" % number for number in range(100)}
        for link in (*near, *far):
            await link.aclose()
        await listener.aclose()

    run(scene())


@pytest.mark.parametrize(
    "junk",
    [
        b"hello\n",
        b"no newline",
        b"\n" * 5000,
        b"\xff\x00" * 3000,
        b"x" * 10_000 + b"\n",
        b"0" * 31 + b"\n",
        b"../../../../../../../etc/passwd1" + b"\n",
        NAME.upper().encode() + b"\n",
        b"0" * 32 + b"\n",  # nobody's
        "٣".encode() * 16 + b"\n",
    ],
)
def test_junk_in_the_door_keeps_nobody_out(door: Path, junk: bytes) -> None:
    async def scene() -> None:
        listener = await listen(door)
        fd = os.open(door, os.O_WRONLY)
        os.write(fd, junk)
        await lets_in(listener, door)
        os.write(fd, junk[:100])
        await lets_in(listener, door)
        os.close(fd)
        await listener.aclose()

    run(scene())


def test_who_fills_the_door_with_junk_does_not_keep_the_loop(door: Path) -> None:
    async def scene() -> None:
        listener = await listen(door)
        fd = os.open(door, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"junk\n" * 12_000)
        accepting = asyncio.ensure_future(listener.accept())
        while not listener._begun:  # noqa: ASYNC110 - turns of the loop are what is counted
            await asyncio.sleep(0)
        assert os.read(listener._fd, 64), "it has not read all of it in one turn"
        accepting.cancel()
        os.close(fd)
        await listener.aclose()

    run(scene())


def symlink(end: Path) -> None:
    os.mkfifo(end.with_name("elsewhere"), 0o600)
    end.symlink_to("elsewhere")


def regular(end: Path) -> None:
    end.touch(0o600)


def folder(end: Path) -> None:
    end.mkdir(mode=0o700)


def others(end: Path) -> None:
    os.mkfifo(end, 0o600)
    os.chown(end, 12345, 12345)


def open_to_all(end: Path) -> None:
    os.mkfifo(end)
    end.chmod(0o622)


STRANGE: list[Callable[[Path], None]] = [symlink, regular, folder, open_to_all]
if os.geteuid() == 0:
    STRANGE.append(others)


@pytest.mark.parametrize("make", STRANGE)
@pytest.mark.parametrize("which", ["up", "down"])
def test_a_name_that_leads_elsewhere_is_not_followed(door: Path, make: Callable[[Path], None], which: str) -> None:
    async def scene() -> None:
        listener = await listen(door)
        for kind in ("up", "down"):
            (make if kind == which else lambda end: os.mkfifo(end, 0o600))(door.with_name(f"door-{NAME}.{kind}"))
        down = door.with_name(f"door-{NAME}.down")
        source = os.open(down, os.O_RDONLY | os.O_NONBLOCK) if which == "up" else -1  # or the host could not open it
        with door.open("w") as file:
            file.write(f"{NAME}\n")
        await lets_in_all_the_same(listener, door)
        if source >= 0:
            assert os.read(source, 64) == b"", "the host has told it something"
            os.close(source)
        await listener.aclose()

    run(scene())


async def lets_in_all_the_same(listener: PipeListener, door: Path) -> None:
    near, far = await asyncio.gather(dial(door), listener.accept())
    await exchange(near, far)


@pytest.mark.parametrize("make", STRANGE)
def test_a_door_that_is_none_is_neither_used_nor_taken_away(door: Path, make: Callable[[Path], None]) -> None:
    make(door)
    before = door.lstat()
    reader = os.open(door, os.O_RDONLY | os.O_NONBLOCK) if stat.S_ISFIFO(before.st_mode) else -1
    run(complaint(listen(door), ListenFailed))
    run(complaint(dial(door), DialFailed))
    assert door.lstat().st_ino == before.st_ino
    if reader >= 0:
        os.close(reader)


# -- those who die, or stop, on the way -------------------------------------------------------------------


def test_a_dialler_that_dies_after_its_announcement_leaves_nothing(door: Path) -> None:
    async def scene() -> None:
        listener = await listen(door)
        process = dialler(door)
        await listener._waiter.wait()  # it has announced itself, and nobody has read that
        process.kill()
        process.wait()
        assert len(names(door)) == 3
        await lets_in(listener, door)
        await listener.aclose()

    run(scene())


def test_a_dialler_that_died_before_its_announcement_is_cleared_away_with_the_door(door: Path) -> None:
    async def scene() -> None:
        left = [door.with_name(f"door-{NAME}.{kind}") for kind in ("up", "down")]
        ours = door.with_name("door-of-the-house")
        ours.touch()
        os.mkfifo(left[0])
        listener = await listen(door)
        assert names(door) == ["door", "door-of-the-house"]
        for end in left:
            os.mkfifo(end)
        await listener.aclose()
        assert names(door) == ["door-of-the-house"]

    run(scene())


def test_who_waits_learns_at_once_that_the_door_is_closed(door: Path) -> None:
    async def scene() -> str:
        listener = await listen(door)
        dialling = asyncio.ensure_future(dial(door))
        await listener._waiter.wait()
        await listener.aclose()
        return await complaint(dialling, DialFailed)  # type: ignore[arg-type]

    assert run(scene()) == f"cannot reach pipe:{door}: it was closed before it let us in"
    assert names(door) == []


def test_a_stopped_host_is_told_of(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipe.DIAL_TIMEOUT == 3
    monkeypatch.setattr(pipe, "DIAL_TIMEOUT", 0.05)
    host = host_process(door)
    host.send_signal(signal.SIGSTOP)
    assert run(complaint(dial(door), DialFailed)) == (
        f"cannot reach pipe:{door}: the host did not open within 0.05 s; is it stopped?"
    )
    assert names(door) == [door.name]
    host.kill()
    host.communicate()


def test_a_full_door_is_told_of(door: Path) -> None:
    async def scene() -> str:
        listener = await listen(door)
        with suppress(BlockingIOError):
            while True:
                os.write(listener._fd, b"x" * 4096)
        said = await complaint(dial(door), DialFailed)
        assert names(door) == [door.name]
        await listener.aclose()
        return said

    assert run(scene()).endswith(": too many others wait there; try again")


def test_a_killed_hosts_door_is_stale_and_the_next_host_takes_its_place(door: Path) -> None:
    host = host_process(door)
    for kind in ("up", "down"):
        os.mkfifo(door.with_name(f"door-{NAME}.{kind}"), 0o600)
    assert run(complaint(listen(door), ListenFailed)) == (
        f"cannot listen on pipe:{door}: another host listens there; join it, or close it"
    )
    assert len(names(door)) == 3, "somebody who waits for the living host was sent away"
    host.kill()
    host.communicate()
    assert (
        run(complaint(dial(door), DialFailed)) == f"cannot reach pipe:{door}: nobody listens there; the host was killed"
    )

    async def scene() -> None:
        listener = await listen(door)
        await lets_in(listener, door)
        await listener.aclose()

    run(scene())
    assert names(door) == []


def test_a_host_that_starts_waits_for_nobody_who_starts_there_too(door: Path) -> None:
    folder = os.open(door.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert run(complaint(listen(door), ListenFailed)).endswith("another host starts in that folder now; try again")
    os.close(folder)


def test_another_hosts_door_is_not_taken_away(door: Path) -> None:
    async def scene() -> None:
        first = await listen(door)
        unlink(door)  # somebody tidied up
        second = await listen(door)
        await first.aclose()
        await lets_in(second, door)
        await second.aclose()

    run(scene())


def test_a_folder_that_has_gone_does_not_keep_the_door_from_closing(door: Path) -> None:
    async def scene() -> None:
        listener = await listen(door)
        unlink(door)
        door.parent.rmdir()
        await listener.aclose()
        await listener.aclose()

    run(scene())


# -- addresses and folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_can_enter_is_refused(door: Path, mode: int) -> None:
    async def scene() -> None:
        listener = await listen(door)
        door.parent.chmod(mode)
        for job, kind in ((listen(door), ListenFailed), (dial(door), DialFailed)):
            assert "is not a folder that is ours alone (mode 0700)" in await complaint(job, kind)
        door.parent.chmod(0o700)
        await listener.aclose()

    run(scene())


def test_a_folder_behind_a_symbolic_link_is_refused(door: Path) -> None:
    link = door.parent.with_name("link")
    link.symlink_to(door.parent)
    assert "is not a folder that is ours alone" in run(complaint(listen(link / "door"), ListenFailed))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(door: Path) -> None:
    os.chown(door.parent, 12345, 12345)
    assert "is not a folder that is ours alone" in run(complaint(listen(door), ListenFailed))


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("pipe", AddressError, "give the path that the host shows, pipe:PATH"),
        ("pipe:/nowhere/door", DialFailed, "there is no such FIFO; is the room open?"),
        ("pipe:/x?tls=1", AddressError, "pipe has no option 'tls'"),
        ("pipe:/a%00b", AddressError, "a path holds no zero byte"),
        ("pipe:fd/1", AddressError, "'1' are not two pipes that this process has"),
        ("pipe:fd/x,y", AddressError, "are not two pipes"),
        ("pipe:fd/-1,-1", AddressError, "are not two pipes"),
        ("pipe:fd/900,901", AddressError, "are not two pipes"),
        (f"pipe:fd/{10**30},1", AddressError, "are not two pipes"),
    ],
)
def test_what_cannot_be_dialled_is_told_in_one_line(text: str, kind: type[ChatError], told: str) -> None:
    assert told in run(complaint(transport.dial(Address.parse(text)), kind))


def test_files_that_are_no_pipes_are_not_taken_for_two(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+") as file:
        assert "are not two pipes" in run(
            complaint(transport.dial(Address("pipe", f"fd/{file.fileno()},0")), AddressError)
        )
    read_end, write_end = os.pipe()
    assert "are not two pipes" in run(
        complaint(transport.dial(Address("pipe", f"fd/{read_end},{read_end}")), AddressError)
    )
    os.close(read_end)
    os.close(write_end)


# -- by inheritance ---------------------------------------------------------------------------------------


def test_forked_siblings_keep_no_end_from_each_other() -> None:
    """Each echoes until its end comes, and the ends of all come when the parent closes its own, in any order."""
    pairs, pids = [], []
    for _ in range(3):
        pairs.append(PipePair())
        if (pid := os.fork()) == 0:
            pairs[-1].in_child()
            while data := os.read(pairs[-1].fds[0], 64):
                os.write(pairs[-1].fds[1], data)
            os._exit(0)
        pids.append(pid)

    async def scene() -> None:
        links = [pair.in_parent(Peer(f"child {pid}")) for pair, pid in zip(pairs, pids, strict=True)]
        for link in links:
            link.send(b"hi")
        for link in links:
            assert await link.receive() == b"hi"
        for link, pid in zip(links, pids, strict=True):
            await link.aclose()
            while not has_ended(pid):  # noqa: ASYNC110 - its siblings still run
                await asyncio.sleep(0.001)

    run(scene())


def has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


def test_a_forked_child_waits_for_its_parent_to_speak() -> None:
    pair = PipePair()
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(7))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        pair.in_child()
        os._exit(1)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    pair.close()


def test_a_pair_that_gets_no_child_leaves_nothing() -> None:
    PipePair().close()
    assert not pipe._pairs


def test_what_was_inherited_is_not_inherited_by_a_program() -> None:
    pair = PipePair()
    for fd in pair.fds:
        os.set_inheritable(fd, True)

    async def scene() -> None:
        child, parent = await transport.dial(pair.address), PipePair()
        assert not any(os.get_inheritable(fd) for fd in pair.fds)
        parent.close()
        await child.aclose()

    run(scene())
    for fd in pair._ours:
        os.close(fd)
    pipe._pairs.discard(pair)
