"""A whole chat room in one file: a server for many, and a client for each of them.

    python3 scripts/lessons/chat.py serve [--port PORT]           in one terminal
    python3 scripts/lessons/chat.py join NAME [--port PORT]       in another one, and in a third

Read socket_.py first; this is what its cures look like together. A message travels as a frame: its length in 4 bytes,
then so many bytes of UTF-8. A client sends its name first, and then each line. The server puts the name in front of the
line and sends it to everyone else. Neither ever waits for one socket: a selector tells which sockets are ready.
"""

import argparse
import os
import select
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

LONGEST = 4096  # bytes of a frame; a peer that announces more is sent away
LINE = 960  # characters of a line: even with 4 bytes each and a name in front, they fit into a frame
UNSENT = 256 * 1024  # bytes that we keep for a slow reader; one that lets more pile up is sent away
MEMBERS = 230  # at once, since macOS lets a process open 256 files; the kernel keeps others waiting
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def clean(text: str) -> str:
    """Return the text without what could move a cursor or change colours."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class Wire:
    """A socket that never waits, and the bytes that are not yet read or not yet sent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.name = sock, ""
        self.unread, self.unsent = bytearray(), bytearray()

    def put(self, text: str) -> None:
        data = text.encode(errors="replace")
        self.unsent += len(data).to_bytes(4, "big") + data

    def flush(self) -> None:
        """Send what the kernel takes, and keep the rest."""
        with suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]

    def receive(self) -> Iterator[str]:
        """Read once; yield each text that is complete. Raise EOFError at the end, and ValueError for nonsense."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:  # it was not ready after all
            return
        if not data:
            raise EOFError
        self.unread += data
        while len(self.unread) >= 4:
            end = 4 + int.from_bytes(self.unread[:4], "big")
            if end > 4 + LONGEST:
                raise ValueError("the frame is too long")
            if len(self.unread) < end:
                break
            text = self.unread[4:end].decode()  # UnicodeDecodeError is a ValueError
            del self.unread[:end]
            yield clean(text)


class Room:
    def __init__(self, port: int) -> None:
        self.members: set[Wire] = set()
        self.leaving: dict[Wire, str] = {}  # and what to say about it
        self.server = socket.create_server(("127.0.0.1", port), backlog=256)
        self.server.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.stop, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.detach())  # a signal writes a byte here, so the selector shows it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.stop, READ)
        self.selector.register(self.server, READ)

    def run(self) -> int:
        print(f"listening on port {self.server.getsockname()[1]}; Ctrl-C closes the room", flush=True)
        while True:
            for key, events in self.selector.select():
                if key.fileobj is self.stop:
                    return self.close()
                if key.fileobj is self.server:
                    self.accept()
                elif key.data in self.members:  # not sent away a moment ago
                    self.serve(key.data, events)
                while self.leaving:
                    self.remove(*self.leaving.popitem())

    def accept(self) -> None:
        with suppress(OSError):  # it is gone already
            member = Wire(self.server.accept()[0])
            member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # bytes that the kernel keeps
            self.selector.register(member.sock, READ, member)
            self.members.add(member)
            if len(self.members) == MEMBERS:
                self.selector.unregister(self.server)

    def serve(self, member: Wire, events: int) -> None:
        try:
            if events & WRITE:
                member.flush()
            if events & READ:
                for text in member.receive():
                    self.hear(member, text)
            self.selector.modify(member.sock, READ | WRITE if member.unsent else READ, member)
        except EOFError:
            self.leaving[member] = "left"
        except ValueError:
            self.leaving[member] = "sent nonsense and was sent away"
        except OSError:
            self.leaving[member] = "vanished"

    def hear(self, member: Wire, text: str) -> None:
        if len(text) > LINE:
            raise ValueError("the line is too long")
        if member.name:
            self.tell(f"{member.name}: {text}", but=member)
        else:
            member.name = text[:32].strip() or "somebody"
            self.tell(f"* {member.name} came")

    def tell(self, text: str, but: Wire | None = None) -> None:
        for member in self.members - {but}:
            if member.name and member not in self.leaving:
                member.put(text)
                self.selector.modify(member.sock, READ | WRITE, member)
                if len(member.unsent) > UNSENT:
                    self.leaving[member] = "was too slow and was sent away"

    def remove(self, member: Wire, why: str) -> None:
        if len(self.members) == MEMBERS:
            self.selector.register(self.server, READ)
        self.members.remove(member)
        self.selector.unregister(member.sock)
        with suppress(OSError):
            member.flush()  # it may have stopped sending and still read
        member.sock.close()
        if member.name:
            self.tell(f"* {member.name} {why}")

    def close(self) -> int:
        self.tell("* the room is closed")
        for member in self.members:
            with suppress(OSError):
                member.flush()
            member.sock.close()
        for part in (self.server, self.stop, self.selector):
            part.close()
        return 0


def join(name: str, sock: socket.socket) -> int:
    wire = Wire(sock)
    wire.put(name)
    typed, typing, ended = b"", True, False
    while True:
        # select, unlike epoll, also takes a file as standard input. While much is unsent, we read no more of it.
        inputs: list[socket.socket | int] = [sock, 0] if typing and len(wire.unsent) < UNSENT else [sock]
        ready, free, _ = select.select(inputs, [sock] if wire.unsent else [], [])
        if 0 in ready:
            data = os.read(0, 4096)
            typing = data != b""
            *lines, typed = (typed + data).split(b"\n")
            if not typing or len(typed) > UNSENT:
                lines, typed = [*lines, typed], b""
            for line in lines:
                text = line.decode(errors="replace")
                for start in range(0, len(text), LINE):
                    wire.put(text[start : start + LINE])
        if sock in free:
            wire.flush()
        if sock in ready:
            try:
                for text in wire.receive():
                    print(text, flush=True)
            except EOFError:
                return 1 if wire.unread else 0
        if not typing and not wire.unsent and not ended:
            ended = True
            sock.shutdown(socket.SHUT_WR)  # we say no more; the server answers by closing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (commands.add_parser("serve"), commands.add_parser("join")):
        command.add_argument("--port", type=int, default=7722)
    commands.choices["join"].add_argument("name")
    chosen = parser.parse_args()
    try:
        if chosen.command == "serve":
            return Room(chosen.port).run()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends us like Ctrl-C
        with socket.create_connection(("127.0.0.1", chosen.port)) as sock:
            return join(chosen.name, sock)
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"chat: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

# What it lacks, and where manywire has it:
#
# - Anybody can take any name. A key for each user, and a handshake: chat/local/identity.py, chat/host/admission.py
# - On a network, anybody on the way could read along. Encryption: transports/tcp.py
# - A message is kept nowhere. A log on disk: chat/core/log.py, chat/host/store.py
# - Nobody learns whether a message arrived. Receipts, and sending again: docs/explanation/acknowledgement.md
# - A slow reader is sent away. A cursor in the log, which catches up: chat/core/log.py
# - A peer that vanishes without a word stays for ever. Beats: chat/core/session.py, chat/host/hosted_room.py
# - A peer that never says its name keeps its place. A time limit: chat/host/admission.py
# - One member can flood the room. A limit on frames a second: chat/host/hosted_room.py
# - A client ends with its connection. Dialling again, and going on where it was: chat/client/client.py
# - A message tears the line that you are typing. A screen of its own: chat/ui/fullscreen/app.py
# - There is TCP and nothing else. Pipes and queues: transports/pipe.py, transports/localqueue.py
