"""What makes the mistakes in the lesson on sockets happen: connections, children, senders and slow readers.

No mistake and no cure is in this file.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import cable
from harness import A_MOMENT, ENOUGH, MEBIBYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

HERE: Final = "127.0.0.1"
LINES: Final = (b"good evening", b"is anybody here?", b"good night")
TEXT: Final = "naïve café, 你好"
LARGE: Final = bytes(32 * MEBIBYTE)  # more than the kernels keep for one connection
PROCESSES: Final = multiprocessing.get_context("spawn")


class Fate(IntEnum):
    """How a child ended: its exit status."""

    OUT_OF_MEMORY = 4
    REFUSED = 5
    LEFT = 6
    NOTICED = 7


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new connection."""
    with socket.create_server((HERE, 0)) as server:
        # This returns before accept: the kernel answers for the server, and keeps the connection until it asks.
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    client.settimeout(ENOUGH)
    peer.settimeout(ENOUGH)
    return client, peer


@contextmanager
def child(function: Callable[..., None], *arguments: Any) -> Iterator[BaseProcess]:
    """Run a function in another process; leave none behind."""
    process = PROCESSES.Process(target=function, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def fate(run: Callable[..., None], *arguments: object) -> int | None:
    """Return the exit status of a child; minus the number of the signal that ended it; None if it runs."""
    with child(run, *arguments) as process:
        process.join(ENOUGH)
        status: int | None = process.exitcode
    return status


def receive_lines(send: Callable[[socket.socket, bytes], None], receive: Callable[[socket.socket], bytes]) -> list[str]:
    """Return what each receive gives after three messages were sent."""
    client, peer = connected()
    with peer:
        with client:
            for line in LINES:
                send(client, line)
        while len(peer.recv(1024, socket.MSG_PEEK)) < sum(map(len, LINES)):  # PEEK looks, and takes nothing
            time.sleep(0.001)
        received = []
        with suppress(EOFError):
            while message := receive(peer):
                received.append(message.decode())
    return received


def receive_large(
    send_message: Callable[[socket.socket, bytes], None], receive: Callable[[socket.socket], bytes]
) -> int:
    """Return how many bytes a receiver makes of one message of 1 MiB."""
    client, peer = connected()

    def send() -> None:
        with client, suppress(OSError):  # OSError: the receiver took a part and left
            send_message(client, bytes(MEBIBYTE))

    sender = threading.Thread(target=send)
    sender.start()
    with peer:
        size = len(receive(peer))
    sender.join()
    return size


def arrives(send: Callable[[socket.socket, bytes], int]) -> int:
    """Return how many bytes of a large message arrive."""
    client, peer = connected()
    client.setblocking(False)
    arrived = 0

    def receive() -> None:
        nonlocal arrived
        with peer:
            while some := peer.recv(MEBIBYTE):
                arrived += len(some)

    receiver = threading.Timer(0.1, receive)  # a slow reader, or send() could take everything
    receiver.start()
    with client:
        send(client, LARGE)
    receiver.join()
    return arrived


def frozen_peer(
    beat: Callable[[socket.socket], None], hears: Callable[[socket.socket, float], bool]
) -> tuple[bool, bool, bool]:
    """Return whether beats are heard, whether we can send to a stopped peer, and whether its silence is noticed."""
    client, peer = connected()
    with client, peer, child(beat, peer) as process:
        peer.close()  # ours; the child has its own
        heard = hears(client, ENOUGH)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        sent = client.send(b"are you there?") > 0
        hears(client, A_MOMENT)  # what it sent before it was stopped
        return heard, sent, not hears(client, A_MOMENT)


def pull_cable() -> cable.Cut:
    reader, writer = PROCESSES.Pipe(duplex=False)
    with reader, writer, child(cable.pull, writer):
        return reader.recv() if reader.poll(ENOUGH) else cable.Cut(refused="no answer")


def second_is_served(serve: Callable[[socket.socket], None], patience: float) -> bool:
    """Return whether a client gets an answer while another one is connected and silent."""
    with socket.create_server((HERE, 0)) as server, child(serve, server):
        address = server.getsockname()
        with socket.create_connection(address), socket.create_connection(address, patience) as second:
            second.sendall(b"good evening")
            with suppress(TimeoutError):
                return second.recv(1024) == b"good evening"
    return False


def thread_ends(
    accept: Callable[[socket.socket, socket.socket], None], patience: float, *, close: bool = False
) -> bool:
    """Return whether a thread that waits for clients ends when we say stop, and ``close`` its socket."""
    server = socket.create_server((HERE, 0))
    address = server.getsockname()
    stop, stop_now = socket.socketpair()
    thread = threading.Thread(target=accept, args=(server, stop), daemon=True)
    thread.start()
    time.sleep(0.1)  # until it waits; if that is too short, the mistake is not seen
    stop_now.close()  # a stop that is ready to be read: b""
    if close:
        server.close()
    thread.join(patience)
    ended = not thread.is_alive()
    with suppress(OSError):
        socket.create_connection(address).close()  # a client wakes accept
    thread.join(ENOUGH)
    server.close()
    stop.close()
    return ended


def error_of(listen: Callable[..., None], port: int, *, reuse: bool) -> str:
    """Return the name of the error when a new socket listens on this port; empty if there is none."""
    with socket.socket() as server:
        try:
            listen(server, port, reuse=reuse)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@contextmanager
def answering(receive: Callable[[socket.socket], bytes]) -> Iterator[socket.socket]:
    """Yield a client to which a thread sends back what it receives."""
    client, peer = connected()

    def answer() -> None:
        with suppress(EOFError):
            while True:
                peer.sendall(receive(peer))

    thread = threading.Thread(target=answer)
    thread.start()
    with peer:
        with client:
            yield client
        thread.join()


def both_answer(dial: Callable[[list[tuple[str, int]]], str]) -> list[str]:
    """Listen on both addresses, on one port; return what answers at each."""
    for _ in range(20):  # another program may have the port at the second address
        with socket.create_server((HERE, 0)) as first, suppress(OSError):
            number = first.getsockname()[1]
            with socket.create_server(("::1", number), family=socket.AF_INET6):
                return [dial([(HERE, number)]), dial([("::1", number)])]
    return []


def read_from_stranger(sock: socket.socket, read: Callable[[socket.socket], object]) -> None:
    """Run by a child that has 2 GiB of memory, like a small server."""
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (2048 * MEBIBYTE, 2048 * MEBIBYTE))
    with sock:
        try:
            read(sock)
        except MemoryError:
            sys.exit(Fate.OUT_OF_MEMORY)
        except ValueError:
            sys.exit(Fate.REFUSED)
        except OSError:  # macOS receives at most 2 GiB at once
            pass
    sys.exit(Fate.LEFT)


def after_four_bytes(read: Callable[[socket.socket], object]) -> int | None:
    """Return how a reader ends to which a stranger announces 4 GiB and sends nothing."""
    client, peer = connected()
    with client:
        client.sendall(b"\xff\xff\xff\xff")
        client.shutdown(socket.SHUT_WR)
        with peer:
            return fate(read_from_stranger, peer, read)


def receive_pieces(size: int) -> list[bytes]:
    """Return a text in the pieces in which it was received."""
    client, peer = connected()
    with peer:
        with client:
            client.sendall(TEXT.encode("utf-8"))
        return list(iter(lambda: peer.recv(size), b""))
