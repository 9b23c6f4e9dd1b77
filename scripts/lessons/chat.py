"""A whole chat room in one file: a server for many, and a client for each of them.

    python3 scripts/lessons/chat.py serve [--port PORT]           in one terminal
    python3 scripts/lessons/chat.py join NAME [--port PORT]       in another one, and in a third

Read socket_.py first; this is what its cures look like together. A message travels as a frame: its length in 4 bytes,
then so many bytes of UTF-8. A client sends its name, then each line; the server puts the name in front and sends it to
everyone else. The server never waits for one client: a selector tells which sockets are ready.
"""

import argparse
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

LONGEST = 4096  # bytes of a frame; a peer that announces more is sent away
LINE = 960  # characters of a line: even with 4 bytes each and a name in front, they fit into a frame
UNSENT = 256 * 1024  # bytes that we keep for a slow reader; one that lets more pile up is sent away
MEMBERS = 230  # at once, since macOS lets a process open 256 files; the kernel keeps others waiting
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
CLOSED = "* the room is closed"


def frame(text: str) -> bytes:
    data = text.encode(errors="replace")
    return len(data).to_bytes(4, "big") + data


class Wire:
    """A socket, and the bytes that are not yet read or not yet sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.name, self.unread, self.unsent = sock, "", bytearray(), bytearray()

    def flush(self) -> None:
        """Send what the kernel takes, and keep the rest."""
        with suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]

    def close(self) -> None:
        with suppress(OSError):
            self.flush()  # the peer may have stopped sending and still read
        self.sock.close()

    def receive(self) -> Iterator[str]:
        """Read once; yield each text that is complete. Raise EOFError at the end, and ValueError for nonsense."""
        received = self.sock.recv(LONGEST)  # not more: with names in front, many short lines become far more bytes
        if not received:
            raise EOFError
        self.unread += received
        while len(self.unread) >= 4:
            end = 4 + int.from_bytes(self.unread[:4], "big")
            if end > 4 + LONGEST:
                raise ValueError("the frame is too long")
            if len(self.unread) < end:
                return
            text = self.unread[4:end].decode()  # UnicodeDecodeError is a ValueError
            del self.unread[:end]
            # Nothing may move a cursor or change colours; two invisible characters join letters and emoji.
            yield "".join(char if char.isprintable() or char in "\u200c\u200d" else "\ufffd" for char in text)


class Room:
    def __init__(self, port: int) -> None:
        self.members: set[Wire] = set()
        self.leaving: dict[Wire, str] = {}  # and what to say about it
        self.server = socket.create_server(("127.0.0.1", port), backlog=256)
        self.server.setblocking(False)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # bytes that the kernel keeps for a client
        self.stop, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.detach())  # a signal writes a byte here, so the selector shows it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.stop, READ)
        self.selector.register(self.server, READ)

    def run(self) -> None:
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
        try:
            member = Wire(self.server.accept()[0])
        except (BlockingIOError, ConnectionError):  # it is gone already
            return
        except OSError:  # no descriptor is free, and accept() would say so again and again
            if not self.members:
                raise
        else:
            member.sock.setblocking(False)
            self.selector.register(member.sock, READ, member)
            self.members.add(member)
            if len(self.members) < MEMBERS:
                return
        self.selector.unregister(self.server)  # until somebody leaves

    def serve(self, member: Wire, events: int) -> None:
        try:
            if events & WRITE:
                member.flush()
            if events & READ:
                for text in member.receive():
                    if not member.name:
                        member.name = text[:32].strip() or "somebody"
                        self.tell(f"* {member.name} came")
                    elif len(text) <= LINE:
                        self.tell(f"{member.name}: {text}", but=member)
                    else:
                        raise ValueError("the line is too long")
            self.selector.modify(member.sock, READ | WRITE if member.unsent else READ, member)
        except BlockingIOError:  # it was not ready after all
            pass
        except EOFError:
            self.leaving[member] = "left"
        except ValueError:
            self.leaving[member] = "sent nonsense and was sent away"
        except OSError:
            self.leaving[member] = "vanished"

    def tell(self, text: str, but: Wire | None = None) -> None:
        for member in self.members - {but}:
            if member.name and member not in self.leaving:
                member.unsent += frame(text)
                self.selector.modify(member.sock, READ | WRITE, member)
                if len(member.unsent) > UNSENT:
                    self.leaving[member] = "was too slow and was sent away"

    def remove(self, member: Wire, why: str) -> None:
        self.members.remove(member)
        self.selector.unregister(member.sock)
        member.close()
        if self.server not in self.selector.get_map():
            self.selector.register(self.server, READ)
        if member.name:
            self.tell(f"* {member.name} {why}")

    def close(self) -> None:
        self.tell(CLOSED)
        for member in self.members:
            member.close()
        for end in (self.server, self.stop, self.selector):
            end.close()


def talk(name: str, sock: socket.socket, ended: threading.Event) -> None:
    """Run by a thread of a client."""
    with open(0, errors="replace", closefd=False) as typed, suppress(OSError):  # the server is gone: join() will say so
        sock.sendall(frame(name))
        while line := typed.readline(LINE):  # of a longer line, a part
            if text := line.rstrip("\n").replace("\t", " "):
                sock.sendall(frame(text))
        ended.set()
        sock.shutdown(socket.SHUT_WR)  # we say no more; the server answers by closing


def join(name: str, sock: socket.socket) -> None:
    wire, ended, text = Wire(sock), threading.Event(), ""
    threading.Thread(target=talk, args=(name, sock, ended), daemon=True).start()
    try:
        while True:
            for text in wire.receive():
                os.write(1, f"{text}\n".encode())
    except EOFError:
        if wire.unread or not (ended.is_set() or text == CLOSED):
            raise ConnectionError("the server vanished") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=("serve", "join"))
    parser.add_argument("name", nargs="?", default="somebody")
    parser.add_argument("--port", type=int, default=7722)
    chosen = parser.parse_args()
    try:
        if chosen.command == "serve":
            return Room(chosen.port).run()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends us like Ctrl-C
        with socket.create_connection(("127.0.0.1", chosen.port)) as sock, suppress(KeyboardInterrupt):
            join(chosen.name, sock)
    except (OSError, OverflowError, ValueError) as error:  # OverflowError: no such port
        sys.exit(f"chat: {error}")


if __name__ == "__main__":
    main()

# What it lacks, and where manywire has it:
#
# - Names that nobody else can take, and a time limit for saying one: chat/local/identity.py, chat/host/admission.py
# - Encryption, so that nobody on the way reads along: transports/tcp.py
# - A log on disk, and a cursor in it for each reader, so that slow ones catch up: chat/core/log.py, chat/host/store.py
# - Receipts, and sending again: docs/explanation/acknowledgement.md
# - Beats, which notice a peer that vanishes without a word: chat/core/session.py
# - A limit on what one member sends in a second: chat/host/connection.py
# - Dialling again, and going on where it was: chat/client/client.py
# - A screen on which messages do not tear the line that you are typing: chat/ui/fullscreen/app.py
# - Pipes and queues beside TCP: transports/pipe.py, transports/localqueue.py
