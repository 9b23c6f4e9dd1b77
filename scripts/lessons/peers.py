"""What happens around the mistakes in the lesson on sockets: connections, children, senders and slow readers.

No mistake and no cure is in this file.
"""

from __future__ import annotations

import multiprocessing
import resource
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from harness import ENOUGH, MEBIBYTE

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

    receiver = threading.Thread(target=receive)
    receiver.start()
    with client:
        send(client, LARGE)
    receiver.join()
    return arrived


def read_from_stranger(sock: socket.socket, read: Callable[[socket.socket], bytes]) -> None:
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
    sys.exit(Fate.LEFT)


def after_four_bytes(read: Callable[[socket.socket], bytes]) -> int | None:
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
