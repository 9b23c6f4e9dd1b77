"""chat.transport.link, beyond the contract: descriptors, errors and the end of the loop."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from chat.core.errors import LinkBroken, LinkClosed
from chat.transport import Peer, link
from chat.transport.link import DescriptorLink, SocketLink, StreamLink, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BOB = Peer("bob")


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> int:
    """Let the loop turn until something is so; return how often it turned."""
    turned = 0
    while not condition():
        await turns(1)
        turned += 1
    return turned


def sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection, both non-blocking."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets a reset, as from a kernel whose process was killed with bytes unread."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def over_socket(sock: socket.socket) -> DescriptorLink:
    return DescriptorLink(BOB, sock.fileno(), sock.fileno(), read=sock.recv, write=sock.send, close=sock.close)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# -- waiting for a descriptor -----------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
def test_a_wait_takes_its_registration_away() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            waiter = Waiter.for_reading(near.fileno())
            far.send(b"x")
            await waiter.wait()
            assert not asyncio.get_running_loop().remove_reader(near.fileno())
            waiting = asyncio.ensure_future(waiter.wait())
            near.recv(1)
            await turns()
            waiting.cancel()
            await asyncio.wait([waiting])
            assert not asyncio.get_running_loop().remove_reader(near.fileno())
            far.send(b"x")
            await waiter.wait()  # as good as new

    run(main())


def test_closing_a_waiter_leaves_the_number_to_its_next_owner() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        fd = near.fileno()
        waiter = Waiter.for_reading(fd)
        waiting = asyncio.ensure_future(waiter.wait())
        await turns()
        waiter.close()
        os.dup2(far.fileno(), fd)  # closes it, and somebody else has the number
        woken = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, woken.set)
        with pytest.raises(LinkClosed):
            await waiting
        assert asyncio.get_running_loop().remove_reader(fd)
        near.close()
        far.close()

    run(main())


def test_a_wait_that_could_not_begin_does_not_count() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        fd = near.fileno()
        near.close()
        far.close()
        waiter = Waiter.for_reading(fd)
        for _ in range(2):  # not LinkBusy the second time
            with pytest.raises(OSError, match="Bad file descriptor"):
                await waiter.wait()

    run(main())


# -- links over descriptors ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
def test_a_link_over_two_pipes() -> None:
    def over(source: int, sink: int) -> DescriptorLink:
        def close() -> None:
            os.close(source)
            os.close(sink)

        os.set_blocking(source, False)
        os.set_blocking(sink, False)
        return DescriptorLink(
            BOB,
            source,
            sink,
            read=lambda size: os.read(source, size),
            write=lambda data: os.write(sink, data),
            close=close,
        )

    async def main() -> None:
        (there, here), (back, forth) = os.pipe(), os.pipe()
        near, far = over(back, here), over(there, forth)
        assert near.send(b"hello") == 5
        assert await far.receive() == b"hello"
        assert far.send(b"good") == 4
        await far.aclose()
        assert await near.receive() == b"good"
        assert await near.receive() == b""
        with pytest.raises(LinkBroken, match=r"^the link to bob broke: broken pipe$"):
            near.send(b"x")
        await near.aclose()

    run(main())


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no SOCK_SEQPACKET")
def test_an_empty_send_is_no_message() -> None:
    async def main() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        far.setblocking(False)
        ours, theirs = over_socket(near), over_socket(far)
        assert ours.send(b"") == 0
        assert ours.send(b"x") == 1
        assert await theirs.receive() == b"x"  # an empty message would read as the end
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_a_link_that_broke_never_shows_an_end() -> None:
    async def main() -> None:
        near, far = sockets()
        link = over_socket(near)
        assert far.send(b"last words") == 10
        assert await link.receive() == b"last words"
        reset(far)
        for _ in range(3):  # the kernel tells ECONNRESET once, and then reads as the end
            with pytest.raises(LinkBroken, match=r"^the link to bob broke: connection reset by peer$"):
                await link.receive()
        await link.aclose()

    run(main())


def test_what_arrived_before_the_break_is_read() -> None:
    async def main() -> None:
        near, far = sockets()
        link = over_socket(near)
        assert far.send(b"you are banned") == 14
        far.close()
        with pytest.raises(LinkBroken):  # noqa: PT012  the first sends reach a kernel that says no one by one
            while True:
                link.send(b"x")
                await link.writable()
        assert await link.receive() == b"you are banned"
        await link.aclose()

    run(main())


def test_one_who_never_stops_sending_does_not_keep_the_others_waiting() -> None:
    async def main() -> None:
        near, far = sockets()
        link = over_socket(near)
        served = 0

        async def others() -> None:
            nonlocal served
            while True:
                served += 1
                await asyncio.sleep(0)

        serving = asyncio.ensure_future(others())
        far.send(bytes(200_000))
        before = served
        for _ in range(3):  # there is always something to read
            assert await link.receive()
        assert served - before >= 3
        serving.cancel()
        await link.aclose()
        far.close()

    run(main())


# -- sockets between machines: the close lingers -----------------------------------------------------------------


@pytest.mark.usefixtures("leaves_nothing")
def test_a_close_lingers_no_longer_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINGER", 0.05)

    async def main() -> None:
        near, far = sockets()  # far does nothing at all: no read, no close
        fd = near.fileno()
        await SocketLink(near, BOB).aclose()
        assert is_open(fd)
        await until(lambda: not is_open(fd))
        assert far.recv(1) == b""
        far.close()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_a_close_is_over_when_the_peer_closes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINGER", 3600.0)

    async def main() -> None:
        near, far = sockets()
        fd = near.fileno()
        await SocketLink(near, BOB).aclose()
        far.close()
        await until(lambda: not is_open(fd))

    run(main())


def test_one_who_floods_us_while_we_leave_does_not_keep_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINGER", 1.0)

    async def main() -> None:
        near, far = sockets()
        leaving = SocketLink(near, BOB)
        stop = asyncio.Event()

        def flood() -> None:
            far.setblocking(True)
            with suppress(OSError):
                while not stop.is_set():
                    far.send(bytes(100_000))

        flooding = asyncio.get_running_loop().run_in_executor(None, flood)
        while not await leaving.receive():
            pass
        await leaving.aclose()
        assert await until(lambda: leaving._sock.fileno() == -1) > 3
        stop.set()
        await flooding
        far.close()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_the_loop_may_end_right_after_the_close() -> None:
    near, far = sockets()

    async def main() -> None:
        await SocketLink(near, BOB).aclose()

    run(main())
    assert far.recv(1) == b""
    far.close()


# -- over a library's streams ----------------------------------------------------------------------------------------


async def stream_pair() -> tuple[StreamLink, socket.socket]:
    near, far = socket.socketpair()
    far.setblocking(False)
    return StreamLink(BOB, *await asyncio.open_connection(sock=near)), far


def test_a_stream_holds_one_piece_and_no_more() -> None:
    async def main() -> None:
        link, far = await stream_pair()
        while link.send(bytes(65_536)):
            pass
        assert 0 < link._writer.transport.get_write_buffer_size() <= 65_536
        assert link.send(b"x") == 0
        far.close()
        with pytest.raises(LinkBroken, match=r"^the link to bob broke"):  # noqa: PT012
            while True:
                await link.writable()
                link.send(b"x")
        await link.aclose()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_a_stream_whose_peer_reads_no_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINGER", 0.05)

    async def main() -> None:
        stream, far = await stream_pair()
        fd = stream._writer.get_extra_info("socket").fileno()
        while stream.send(bytes(65_536)):
            pass
        await stream.aclose()
        await until(lambda: not is_open(fd))
        far.close()

    run(main())


@pytest.mark.usefixtures("leaves_nothing")
def test_the_loop_may_end_right_after_a_stream_was_closed() -> None:
    far: socket.socket | None = None

    async def main() -> None:
        nonlocal far
        stream, far = await stream_pair()
        while stream.send(bytes(65_536)):
            pass
        await stream.aclose()

    run(main())
    assert far is not None
    far.close()
