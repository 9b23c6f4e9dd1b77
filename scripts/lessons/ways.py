"""Four ways from one process to another, each with the same few methods, so that scripts/lessons/all can compare them.

Each class is one end. Both ends come from ``pair()``; one of them goes to a child.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from harness import ENOUGH, MEBIBYTE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from harness import Context

SIZE: Final = 100  # bytes of a message that is timed
LINES: Final = (b"good evening", b"is anybody here?", b"good night")
LOOK_AGAIN: Final = 0.01  # seconds
SILENCE: Final = 0.5  # seconds after which we no longer wait for news of a death


class Stream:
    """What a pipe and a socket have in common: bytes, without borders."""

    def fileno(self) -> int:
        raise NotImplementedError

    def send(self, message: bytes) -> None:
        raise NotImplementedError

    def read(self, size: int) -> bytes:
        raise NotImplementedError

    def receive(self) -> bytes:
        """Return the next message of SIZE bytes; raise EOFError at the end."""
        message = b""
        while len(message) < SIZE:
            some = self.read(SIZE - len(message))
            if not some:
                raise EOFError
            message += some
        return message

    def receive_rest(self, total: int) -> tuple[int, int]:
        """Take all messages up to number ``total``, after the first. Return how many came, and how many we saw."""
        left = (total - 1) * SIZE
        while left:
            left -= len(self.read(min(left, MEBIBYTE)))
        return total - 1, total - 1

    def look(self) -> Sequence[bytes]:
        """Return what one look finds."""
        return [self.read(MEBIBYTE)]

    def sleep(self) -> bytes:
        """Sleep until something arrives."""
        select.select([self.fileno()], [], [])
        return self.read(MEBIBYTE)

    def notices_death(self) -> bool:
        return bool(select.select([self.fileno()], [], [], SILENCE)[0]) and not self.read(1)

    def fill(self) -> int:
        """Send until there is no more room, since nobody reads. Return the bytes."""
        os.set_blocking(self.fileno_to_write(), False)
        held = 0
        with suppress(BlockingIOError):
            while True:
                held += os.write(self.fileno_to_write(), bytes(1024))
        return held

    def fileno_to_write(self) -> int:
        return self.fileno()

    def finish(self) -> None:
        """Return when everything is sent."""


class Pipe(Stream):
    """Two pipes, one for each direction."""

    def __init__(self, reader: Connection, writer: Connection) -> None:
        self.reader, self.writer = reader, writer

    @staticmethod
    def pair(context: Context) -> tuple[Pipe, Pipe]:
        (our_reader, their_writer), (their_reader, our_writer) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        return Pipe(our_reader, our_writer), Pipe(their_reader, their_writer)

    def fileno(self) -> int:
        return self.reader.fileno()

    def fileno_to_write(self) -> int:
        return self.writer.fileno()

    def send(self, message: bytes) -> None:
        os.write(self.writer.fileno(), message)  # at most 4 KiB go in as one (PIPE_BUF)

    def read(self, size: int) -> bytes:
        return os.read(self.reader.fileno(), size)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class Socket(Stream):
    """A TCP connection on this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @staticmethod
    def pair(_: Context) -> tuple[Socket, Socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _address = server.accept()
        for sock in (ours, theirs):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Socket(ours), Socket(theirs)

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: bytes) -> None:
        self.sock.sendall(message)

    def read(self, size: int) -> bytes:
        return self.sock.recv(size)

    def close(self) -> None:
        self.sock.close()


class Queue:
    """Two multiprocessing.Queues, one for each direction."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self.incoming, self.outgoing = incoming, outgoing

    @staticmethod
    def pair(context: Context) -> tuple[Queue, Queue]:
        there, back = context.Queue(), context.Queue()
        return Queue(back, there), Queue(there, back)

    def send(self, message: bytes) -> None:
        self.outgoing.put(message)

    def receive(self) -> bytes:
        message: bytes = self.incoming.get(timeout=ENOUGH)
        return message

    def receive_rest(self, total: int) -> tuple[int, int]:
        for _ in range(total - 1):
            self.incoming.get(timeout=ENOUGH)
        return total - 1, total - 1

    def look(self) -> Sequence[bytes]:
        return [self.receive() for _ in LINES]

    def sleep(self) -> bytes:
        return self.receive()

    def notices_death(self) -> bool:
        with suppress(queue.Empty):
            self.incoming.get(timeout=SILENCE)
        return False

    def fill(self) -> int:
        """Put 8 MiB, and see whether anything minds. Return the bytes."""
        for _ in range(8):
            self.outgoing.put_nowait(bytes(MEBIBYTE))
        for _ in range(8):  # or the feeder thread would never end, and neither would we
            self.outgoing.get()
        return 8 * int(MEBIBYTE)

    def finish(self) -> None:
        self.outgoing.close()
        self.outgoing.join_thread()

    def close(self) -> None:
        for end in (self.incoming, self.outgoing):
            end.close()


class Memory:
    """Two pieces of shared memory, one for each direction: a counter, a length and a message."""

    HEAD: Final = struct.Struct("qq")

    def __init__(self, theirs: Any, ours: Any) -> None:
        self.theirs, self.ours = theirs, ours
        self.sent = self.seen = 0

    @staticmethod
    def pair(context: Context) -> tuple[Memory, Memory]:
        one, other = (context.RawArray("c", Memory.HEAD.size + SIZE) for _ in range(2))
        return Memory(one, other), Memory(other, one)

    # Views, since ctypes would copy byte by byte. Made on first use: they cannot go to a child.
    @cached_property
    def incoming(self) -> memoryview:
        return memoryview(self.theirs).cast("B")

    @cached_property
    def outgoing(self) -> memoryview:
        return memoryview(self.ours).cast("B")

    def send(self, message: bytes) -> None:
        head = self.HEAD.size
        self.outgoing[head : head + len(message)] = message
        self.sent += 1
        self.HEAD.pack_into(self.outgoing, 0, self.sent, len(message))  # last: whoever sees it may read

    def message(self) -> bytes:
        head = self.HEAD.size
        self.seen, size = self.HEAD.unpack_from(self.incoming)
        return bytes(self.incoming[head : head + size])

    def receive(self) -> bytes:
        """Look until there is another message, without sleeping."""
        looks = 0
        while self.HEAD.unpack_from(self.incoming)[0] == self.seen:
            looks += 1
            if looks % 100 == 0:
                os.sched_yield()  # the writer may need this processor
        return self.message()

    def receive_rest(self, total: int) -> tuple[int, int]:
        first, times = self.seen, 0
        while self.seen < total:
            self.receive()
            times += 1
        return total - first, times

    def look(self) -> Sequence[bytes]:
        return [self.message()]

    def sleep(self) -> bytes:
        """Nothing wakes us: sleep a little, and look."""
        before = self.seen
        while True:
            time.sleep(LOOK_AGAIN)
            message = self.message()
            if self.seen != before:
                return message

    def notices_death(self) -> bool:
        before = self.message()
        time.sleep(SILENCE)
        return self.message() != before

    def fill(self) -> int:
        """Write one message over the other. Return the bytes that are kept."""
        for _ in range(1024):
            self.send(bytes(SIZE))
        return SIZE

    def finish(self) -> None:
        """Everything is there as soon as it is written."""

    def close(self) -> None:
        """The memory goes when nobody has it any more."""


# -- run by children ------------------------------------------------------------------------------


def say(end: Any, said: Any) -> None:
    for line in LINES:
        end.send(line)
    end.finish()
    said.set()
    signal.pause()  # until it is killed


def say_the_time(end: Any, asleep: Any) -> None:
    asleep.wait(ENOUGH)
    time.sleep(0.1)
    end.send(struct.pack("q", time.monotonic_ns()))
    end.finish()
    end.close()


def echo(end: Any, _: Any) -> None:
    try:
        while True:
            end.send(end.receive())
    except (EOFError, OSError):
        end.close()


def flood(end: Any, count: int) -> None:
    for _ in range(count):
        end.send(bytes(SIZE))
    end.finish()
    end.close()
