"""A network whose cable can be pulled: what the lesson on sockets needs to lose a peer without a word from it.

Only ``watch`` and ``pull`` are part of the lesson.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
import time
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

CLONE_NEWUSER: Final = 0x10000000  # unshare(2)
CLONE_NEWNET: Final = 0x40000000
SIOCSIFFLAGS: Final = 0x8914  # netdevice(7)
IFF_UP: Final = 1


class Cut(NamedTuple):
    """What two connections notice when their cable is pulled."""

    sent: bool = False  # send() succeeded afterwards
    watched: str = ""  # the error that ended recv() of the connection with keepalive; empty if none did
    seconds: float = 0.0  # how long that took
    plain: str = ""  # the error at the other connection, after the same time
    refused: str = ""  # why it could not be tried


def make_own_network() -> None:
    """Give this process a network of its own, in which only 127.0.0.1 exists. Raise OSError if it may not."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except AttributeError:
        raise OSError(errno.ENOSYS, "this system has no unshare") from None
    if unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare was refused")
    switch_network(on=True)


def switch_network(*, on: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP if on else 0))


def watch(sock: socket.socket) -> None:
    """Have the kernel ask the other one whether it is still there."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)  # seconds of silence before it asks
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)  # seconds until it asks again
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)  # questions without an answer


def error_of_recv(sock: socket.socket, patience: float) -> str:
    """Return the error that ends recv(); empty if none did within ``patience`` seconds."""
    sock.settimeout(patience)
    try:
        sock.recv(1)
    except OSError as error:  # without a number: our own timeout
        return "" if error.errno in (None, errno.EAGAIN) else errno.errorcode[error.errno]
    return "the end"


def pull(report: Any) -> None:
    """Run by a child: cut two connections, of which one is watched. Report Cut."""
    try:
        make_own_network()
    except OSError as error:
        report.send(Cut(refused=error.strerror or str(error)))
        return
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        client, other = (stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(2))
        watched, plain = (stack.enter_context(server.accept()[0]) for _ in range(2))
        watch(watched)
        switch_network(on=False)
        sent = client.send(b"are you there?") + other.send(b"are you there?")
        began = time.monotonic()
        noticed = error_of_recv(watched, 10)
        report.send(Cut(sent > 0, noticed, time.monotonic() - began, error_of_recv(plain, 0)))
