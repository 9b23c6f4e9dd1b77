"""The floor: the least that a broadcaster in Python can do. It parses nothing and keeps nothing.

    floor.py SIZE

All that has come in during one turn of the loop goes out to each member as one piece, in one system call.
The one thing it knows is the SIZE of a message in bytes, so that two senders' messages do not run into
each other.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Final

READ_SIZE: Final = 64 * 1024


class Member:
    """One connection: what came in of an unfinished message, and what has not gone out yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.unsent = b""


class Floor:
    def __init__(self, size: int) -> None:
        self._size = size
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._members: dict[int, Member] = {}

    def run(self) -> None:
        print(self._listener.getsockname()[1], flush=True)
        while True:
            taken: list[bytes] = []
            for fd, events in self._epoll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                    continue
                if events & select.EPOLLOUT:
                    self._send(self._members[fd], b"")
                if events & ~select.EPOLLOUT:
                    taken.append(self._receive(self._members[fd]))
            if data := b"".join(taken):
                for member in list(self._members.values()):
                    self._send(member, data)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._members[sock.fileno()] = member = Member(sock)
        self._epoll.register(sock, select.EPOLLIN)
        self._send(member, b"welcome\n")

    def _receive(self, member: Member) -> bytes:
        """Return the whole messages that are there."""
        try:
            data = member.sock.recv(READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(member)
        data = member.rest + data
        whole = len(data) - len(data) % self._size
        member.rest = data[whole:]
        return data[:whole]

    def _send(self, member: Member, data: bytes) -> None:
        data, waited = member.unsent + data, bool(member.unsent)
        try:
            member.unsent = data[member.sock.send(data) :]
        except BlockingIOError:
            member.unsent = data
        except ConnectionError:
            member.unsent = b""  # reading will show that it is gone
        if waited != bool(member.unsent):
            wanted = select.EPOLLIN | (select.EPOLLOUT if member.unsent else 0)
            self._epoll.modify(member.sock, wanted)

    def _drop(self, member: Member) -> None:
        del self._members[member.sock.fileno()]
        self._epoll.unregister(member.sock)
        member.sock.close()


if __name__ == "__main__":
    Floor(int(sys.argv[1])).run()
