"""transports.localqueue, beyond the contract: its file, whose it is, what the kernel says of peers, and borders."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chat import testing
from chat.core.errors import AddressError, DialFailed, LinkClosed, ListenFailed
from chat.testing.kit import carry
from chat.transport import Address, Peer, Site
from tests.harness import Queue, queue_of_streams
from transports import localqueue
from transports.localqueue import MESSAGE, OVERHEAD, PATH_LIMIT, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from chat.transport import Link, Listener, Transport

ROOT = Path(__file__).parents[2]
NOBODY = 65534  # a user other than root, on every Linux

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process of another user")
with_messages = pytest.mark.skipif(
    localqueue.KIND != socket.SOCK_SEQPACKET, reason="this system has no queue of messages between processes"
)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


@pytest.fixture
def kit(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


@pytest.fixture
def path(kit: Queue) -> Path:
    return kit.folder / "queue"


@asynccontextmanager
async def listening(path: Path, over: Transport = transport) -> AsyncIterator[Listener]:
    listener = await over.listen(Address("queue", str(path)), Site(path.parent, path))
    try:
        yield listener
    finally:
        await listener.aclose()


async def listen(path: Path) -> None:
    async with listening(path):
        pass


async def dial(path: Path) -> None:
    await (await transport.dial(Address("queue", str(path)))).aclose()


async def exchange(listener: Listener) -> None:
    """Dial, accept, send a line each way."""
    near, far = await testing.connect(transport, listener)
    near.send(b"hello")
    assert await far.receive() == b"hello"
    far.send(b"good day")
    assert await near.receive() == b"good day"
    await near.aclose()
    await far.aclose()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- addresses and the file ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
def test_a_bare_queue_listens_in_the_rooms_folder(kit: Queue) -> None:
    async def main() -> None:
        listener = await transport.listen(Address("queue"), kit.site)
        assert listener.address == Address("queue", str(kit.folder / "queue"))
        await exchange(listener)
        await listener.aclose()
        assert list(kit.folder.iterdir()) == []

    run(main())


def test_a_path_is_told_whole_since_the_dialler_may_stand_elsewhere(
    kit: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with listening(Path("here")) as listener:
            assert listener.address == Address("queue", str(kit.folder / "here"))

    monkeypatch.chdir(kit.folder)
    run(main())


@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_socket_is_its_owners_alone_whatever_the_umask(path: Path, umask: int) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            assert mode_of(path) == 0o600
            await exchange(listener)

    before = os.umask(umask)
    try:
        run(main())
    finally:
        os.umask(before)


def test_a_path_may_be_so_long_and_no_longer(kit: Queue) -> None:
    longest = kit.folder / ("x" * (PATH_LIMIT - len(str(kit.folder)) - 1))
    too_long = kit.folder / ("漢" * ((PATH_LIMIT - len(str(kit.folder))) // 3) + "xxx")
    size = len(os.fsencode(too_long))
    assert size > PATH_LIMIT > len(str(too_long))
    run(listen(longest))
    for call in (listen, dial):
        with pytest.raises(AddressError) as raised:
            run(call(too_long))
        assert str(raised.value) == (
            f"cannot use {too_long} as a socket: a path has at most {PATH_LIMIT} bytes here, this one has {size}; "
            "choose a shorter one, or set CHAT_RUNTIME to a folder with a shorter name"
        )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("queue", "cannot dial queue without a path; write queue:/path/to/socket, or join the room by its name"),
        ("queue:%00name", "cannot use queue:%00name: a path holds no zero byte"),
        ("queue:/a/b?size=1", "queue has no option 'size'; it knows group, everyone, user"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(text: str, told: str) -> None:
    async def main() -> None:
        with pytest.raises(AddressError) as raised:
            await transport.dial(Address.parse(text))
        assert str(raised.value) == told

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("mode", [0o710, 0o701, 0o755, 0o1777])
def test_a_folder_that_others_can_enter_is_refused(path: Path, mode: int) -> None:
    async def main() -> None:
        async with listening(path):
            path.parent.chmod(mode)
            told = f"the folder {path.parent} is user {os.geteuid()}'s, mode {mode:04o}; it must be yours alone"
            with pytest.raises(DialFailed, match=f"^cannot reach queue:{path}: {told}"):
                await dial(path)
            with pytest.raises(ListenFailed, match=f"^cannot listen on queue:{path}2: {told}"):
                await listen(Path(f"{path}2"))
            path.parent.chmod(0o700)

    run(main())


@as_root
def test_a_folder_of_another_user_is_refused(path: Path) -> None:
    async def main() -> None:
        async with listening(path):
            os.chown(path.parent, NOBODY, -1)
            for call, error in ((listen, ListenFailed), (dial, DialFailed)):
                with pytest.raises(error, match=f"is user {NOBODY}'s, mode 0700; it must be yours alone"):
                    await call(path)
            os.chown(path.parent, 0, -1)

    run(main())


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_for_several_users_that_others_can_write_to_is_refused(path: Path, mode: int) -> None:
    """They could put a socket of their own in place of ours."""
    user = {"user": str(os.geteuid())}

    async def main() -> None:
        path.parent.chmod(0o711)
        listener = await transport.listen(Address("queue", str(path), user | {"everyone": "yes"}), Site(Path(), Path()))
        path.parent.chmod(mode)
        with pytest.raises(DialFailed, match="may own it and write to it"):
            await transport.dial(Address("queue", str(path), user))
        await listener.aclose()
        with pytest.raises(ListenFailed, match="may own it and write to it"):
            await transport.listen(Address("queue", str(path), user | {"everyone": "yes"}), Site(Path(), Path()))

    run(main())


def test_a_folder_that_is_a_link_to_one_is_refused(kit: Queue) -> None:
    (kit.folder / "real").mkdir(mode=0o700)
    (kit.folder / "link").symlink_to("real")
    run(listen(kit.folder / "real" / "queue"))
    with pytest.raises(ListenFailed, match=r"not a directory|symbolic links"):
        run(listen(kit.folder / "link" / "queue"))


def test_without_a_folder(kit: Queue) -> None:
    path = kit.folder / "missing" / "queue"
    with pytest.raises(ListenFailed) as raised:
        run(listen(path))
    assert str(raised.value) == (
        f"cannot listen on queue:{path}: no such file or directory; make its folder first: mkdir -m 700"
    )


# -- the living and the dead --------------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
def test_what_a_killed_host_left_stops_nobody(kit: Queue, path: Path) -> None:
    async def main() -> None:
        with kit.victim("listen", Address("queue", str(path)), sends=False) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        assert stat.S_ISSOCK(os.lstat(path).st_mode)
        with pytest.raises(DialFailed) as raised:
            await dial(path)
        assert str(raised.value) == (
            f"cannot reach queue:{path}: connection refused; the host that made it has ended: start it again"
        )
        assert raised.value.exit_code == 4
        async with listening(path) as listener:
            await exchange(listener)

    run(main())
    assert list(kit.folder.iterdir()) == []


@pytest.mark.usefixtures("leaves_nothing")
def test_a_living_host_keeps_its_path_and_hears_nothing_of_who_wanted_it(kit: Queue, path: Path) -> None:
    async def main() -> None:
        with kit.victim("listen", Address("queue", str(path)), sends=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(3):
                with pytest.raises(ListenFailed) as raised:
                    await listen(path)
                assert str(raised.value) == (
                    f"cannot listen on queue:{path}: address already in use; "
                    "is another host running? choose another path"
                )
            link = await transport.dial(Address("queue", str(path)))
            # It accepts one link, the first that comes: had we been that, nobody would talk to this one.
            assert (await link.receive())[:8] == testing.pattern(0, 8)
            await link.aclose()

    run(main())


def test_a_path_is_not_taken_in_the_moment_between_bind_and_listen(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, localqueue.KIND)) as starting:
        starting.bind(str(path))
        with pytest.raises(ListenFailed, match="address already in use"):
            run(listen(path))
        starting.listen()
        starting.setblocking(False)
        with pytest.raises(BlockingIOError):
            starting.accept()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_living_socket_of_any_kind_keeps_its_path(path: Path, kind: socket.SocketKind) -> None:
    if kind == socket.SOCK_SEQPACKET != localqueue.KIND:
        pytest.skip("this system has no SOCK_SEQPACKET")
    with closing(socket.socket(socket.AF_UNIX, kind)) as other:
        other.bind(str(path))
        with pytest.raises(ListenFailed, match="address already in use"):
            run(listen(path))
        if kind != localqueue.KIND:
            with pytest.raises(DialFailed, match=r"; it is a socket of another kind, so no chat host's$"):
                run(dial(path))


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("a diary")
    with pytest.raises(ListenFailed, match="address already in use"):
        run(listen(path))
    assert path.read_text() == "a diary"


def test_of_two_who_find_a_dead_one_the_second_has_to_wait(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(ListenFailed, match=r"; another host starts in this folder at this moment: try again$"):
        run(listen(path))
    os.close(fd)
    run(listen(path))


def test_who_closes_takes_away_its_own_file_only(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as old:
            os.rename(path, f"{path}-kept")  # noqa: PTH104
            async with listening(path) as new:
                await old.aclose()
                await exchange(new)

    run(main())


def test_nobody_there(path: Path) -> None:
    with pytest.raises(DialFailed) as raised:
        run(dial(path))
    assert str(raised.value) == f"cannot reach queue:{path}: no such file or directory; is a host running there?"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full door says that nobody is there")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_full_door_is_told_and_does_not_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localqueue, "BACKLOG", 2)

    async def main() -> None:
        links: list[Link] = []
        async with listening(path) as listener:
            with pytest.raises(DialFailed, match=r"; more wait there already than it lets in: try again$"):  # noqa: PT012
                while len(links) < 100:
                    links.append(await transport.dial(listener.address))
            assert links
            for _ in links:
                await (await listener.accept()).aclose()
            await exchange(listener)
        for link in links:
            await link.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_without_descriptors_it_waits_and_does_not_spin(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with listening(path) as listener:
            near = await transport.dial(listener.address)
            accepting = asyncio.ensure_future(listener.accept())
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                while not caplog.records:  # noqa: ASYNC110  the log has no event
                    await asyncio.sleep(0)
                with pytest.raises(DialFailed, match="too many open files"):
                    await dial(path)
                for _ in range(50):
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await (await accepting).aclose()
            await near.aclose()
        (record,) = caplog.records
        assert record.getMessage() == f"queue:{path} accepts nobody for a second: too many open files"

    run(main())


# -- who is there -------------------------------------------------------------------------------------------


def test_each_side_knows_the_others_process_and_user(kit: Queue, path: Path) -> None:
    async def main() -> None:
        with kit.victim("listen", Address("queue", str(path)), sends=False) as process:
            assert process.stdout is not None
            process.stdout.readline()
            link = await transport.dial(Address("queue", str(path)))
            assert link.peer == Peer(f"queue {path}", uid=os.geteuid(), pid=process.pid)
            await link.aclose()
        async with listening(path) as listener:
            with kit.victim("dial", listener.address, sends=False) as process:
                accepted = await listener.accept()
                assert accepted.peer == Peer(f"queue pid {process.pid}", uid=os.geteuid(), pid=process.pid)
                await accepted.aclose()

    run(main())


LISTENS_AS_ANOTHER = """
import asyncio, os, sys
from pathlib import Path
from chat.testing import connect
from chat.transport import Address, Site
from transports.localqueue import transport

async def main(path):
    listener = await transport.listen(Address("queue", str(path)), Site(path.parent, path))
    print("listening", flush=True)
    accepting = asyncio.ensure_future(listener.accept())
    asked = asyncio.Event()  # without a thread: what is imported now, this user may not be able to read
    asyncio.get_running_loop().add_reader(0, asked.set)
    await asked.wait()
    asyncio.get_running_loop().remove_reader(0)
    assert not accepting.done(), "root was let in"
    dialled = await transport.dial(listener.address)
    accepted = await accepting
    print(accepted.peer.uid, dialled.peer.uid, flush=True)
    for each in (dialled, accepted, listener):
        await each.aclose()

os.seteuid(int(sys.argv[2]))
asyncio.run(main(Path(sys.argv[1])))
"""


@as_root
def test_a_peer_of_another_user_is_refused_and_the_listener_goes_on(path: Path) -> None:
    os.chown(path.parent, NOBODY, -1)
    path.parent.parent.chmod(0o711)
    words = [sys.executable, "-c", LISTENS_AS_ANOTHER, str(path), str(NOBODY)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "listening\n"
        with closing(socket.socket(socket.AF_UNIX, localqueue.KIND)) as sock:  # root may open every file
            sock.settimeout(10)
            sock.connect(str(path))
            assert sock.recv(1) == b""
        out, err = host.communicate("\n", timeout=30)
    assert (out, host.returncode) == (f"{NOBODY} {NOBODY}\n", 0)
    told = f"process {os.getpid()} there is user 0's, not yours (user {NOBODY})"
    assert err == f"queue:{path} refused a peer: {told}\n"


@as_root
def test_a_host_of_another_user_is_not_talked_to(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, localqueue.KIND)) as other:
        other.bind(str(path))
        os.seteuid(NOBODY)
        try:
            other.listen()  # the kernel notes whose process it is now
        finally:
            os.seteuid(0)
        with pytest.raises(DialFailed) as raised:
            run(dial(path))
    told = f"process {os.getpid()} there is user {NOBODY}'s, not yours (user 0)"
    assert str(raised.value) == f"cannot reach queue:{path}: {told}"


# -- messages -----------------------------------------------------------------------------------------------

PIECES = (b"a", b"bc", bytes(100), b"d", testing.pattern(0, MESSAGE), b"e")


@with_messages
def test_borders_are_kept(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            near, far = await testing.connect(transport, listener)
            for sink, source in ((near, far), (far, near)):
                for piece in PIECES:
                    assert sink.send(piece) == len(piece)
                for piece in PIECES:
                    assert await source.receive() == piece
            await near.aclose()
            await far.aclose()

    run(main())


def test_a_stream_runs_them_together(path: Path) -> None:
    async def main() -> None:
        async with listening(path, queue_of_streams) as listener:
            near, far = await testing.connect(queue_of_streams, listener)
            for piece in PIECES[:4]:
                assert near.send(piece) == len(piece)
            assert await far.receive() == b"".join(PIECES[:4])
            await near.aclose()
            await far.aclose()

    run(main())


def test_what_is_too_large_for_one_message_is_cut(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            near, far = await testing.connect(transport, listener)
            assert near.send(testing.pattern(0, MESSAGE + 1)) == MESSAGE
            assert near.send(memoryview(testing.pattern(0, MESSAGE + 1))[MESSAGE:]) == 1
            assert await far.receive() + await far.receive() == testing.pattern(0, MESSAGE + 1)
            await near.aclose()
            await far.aclose()

    run(main())


@with_messages
@pytest.mark.parametrize("size", [1, 40_000, 65_536])
def test_no_message_is_larger_than_the_buffer_takes(size: int) -> None:
    """As where an administrator has made net.core.wmem_default small."""

    async def main() -> None:
        one, other = socket.socketpair(socket.AF_UNIX, localqueue.KIND)
        for sock in (one, other):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size // 2)  # the kernel doubles it, socket(7)
        buffer = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert buffer - OVERHEAD < MESSAGE
        with pytest.raises(OSError, match="too long") as raised:
            one.send(bytes(buffer - OVERHEAD + 1))
        assert raised.value.errno == errno.EMSGSIZE
        near, far = localqueue._link(one, Peer("far")), localqueue._link(other, Peer("near"))
        data = testing.pattern(0, MESSAGE)
        assert near.send(data) == buffer - OVERHEAD
        assert await far.receive() == data[: buffer - OVERHEAD]
        await carry(near, far, data)
        await near.aclose()
        await far.aclose()

    run(main())


def test_nothing_is_never_sent_as_a_message(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            near, far = await testing.connect(transport, listener)
            for nothing in (b"", bytearray(), memoryview(b"x")[1:]):
                assert near.send(nothing) == 0
            near.send(b"x")
            assert await far.receive() == b"x"
            await near.aclose()
            await far.aclose()

    run(main())


def test_a_stranger_that_sends_nothing_as_a_message_has_ended(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            with closing(socket.socket(socket.AF_UNIX, localqueue.KIND)) as stranger:
                stranger.connect(str(path))
                link = await listener.accept()
                stranger.send(b"")
                stranger.shutdown(socket.SHUT_WR)
                assert await link.receive() == b""
                await link.aclose()

    run(main())


@with_messages
def test_a_reset_takes_back_nothing_that_was_sent(path: Path) -> None:
    """The kernel tells of it before the messages that still lie there; see that it does, and that we read on."""

    async def main() -> None:
        async with listening(path) as listener:
            for bare in (True, False):
                with closing(socket.socket(socket.AF_UNIX, localqueue.KIND)) as stranger:
                    stranger.connect(str(path))
                    link = await listener.accept()
                    link.send(b"never read")
                    stranger.send(b"one")
                    stranger.send(b"two")
                if bare:
                    sock = socket.socket(fileno=os.dup(link._reading._fd))  # type: ignore[attr-defined]
                    with closing(sock), pytest.raises(ConnectionResetError):
                        sock.recv(1)
                assert [await link.receive() for _ in range(4)] == [b"one", b"two", b"", b""]
                await link.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_who_was_never_accepted_sees_the_end(path: Path) -> None:
    async def main() -> None:
        async with listening(path) as listener:
            link = await transport.dial(listener.address)
            link.send(b"hello?")
        assert await link.receive() == b""
        await link.aclose()
        with pytest.raises(LinkClosed, match=f"^the listener on queue:{path} was closed here$"):
            await listener.accept()

    run(main())
