"""A network whose cable can be pulled: what the lesson on sockets needs to lose a peer without a word from it.

Only ``wait_for_a_vanished_peer`` is part of the lesson.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
import time
from typing import Any, Final

CLONE_NEWUSER: Final = 0x10000000  # unshare(2)
CLONE_NEWNET: Final = 0x40000000
SIOCSIFFLAGS: Final = 0x8914  # netdevice(7)
IFF_UP: Final = 1


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


def wait_for_a_vanished_peer(client: socket.socket, peer: socket.socket, *, keepalive: bool) -> str:
    """Return the error that ends recv() after the cable was pulled; empty if none did within 3 seconds."""
    if keepalive:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)  # seconds of silence before the kernel asks
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)  # seconds until it asks again
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)  # questions without an answer
    switch_network(on=False)
    client.sendall(b"are you there?")  # succeeds, and never arrives
    peer.settimeout(3)
    try:
        peer.recv(1)
    except TimeoutError as error:
        return "ETIMEDOUT" if error.errno == errno.ETIMEDOUT else ""  # the kernel's error, not our own timeout
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def pull(report: Any, keepalive: bool) -> None:
    """Run by a child: cut a connection. Report the error that the waiting end gets, after how many seconds, and
    otherwise why this machine does not let us.
    """
    try:
        make_own_network()
    except OSError as error:
        report.send(("", 0.0, error.strerror or str(error)))
        return
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as peer,
    ):
        began = time.monotonic()
        noticed = wait_for_a_vanished_peer(client, peer, keepalive=keepalive)
        report.send((noticed, time.monotonic() - began, ""))
