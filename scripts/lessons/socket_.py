"""A lesson on sockets: the smallest program, and twelve mistakes.

A process is a running program with a memory of its own. A pipe (read pipe.py first) joins only processes that inherit
its ends. A socket is an end that any process can make for itself; the kernel joins it to one in another process, on
this machine or, over the network, on another one. A process holds it by a descriptor, a number that stands for
something the kernel keeps. Unlike the end of a pipe, it both sends and receives.

A machine has addresses; 127.0.0.1 is the one that every machine uses for itself. Many programs share an address, so a
connection also names a port, a number up to 65535: the address finds the machine, and the port finds the program. A
server listens on a port that others know; a client connects to it from a port that its kernel picks. From then on, the
two kernels keep a TCP connection: what one end sends arrives at the other complete and in order, while both live.

-------------------------------- the smallest program
import os
import socket

server = socket.create_server(("127.0.0.1", 0))  # listens on any free port
if os.fork() == 0:  # now there are two processes; 0 says "you are the child"
    with socket.create_connection(server.getsockname()) as connection:
        connection.sendall(b"good evening")
    os._exit(0)  # the child ends here
connection, address = server.accept()  # waits; a new socket, for one client
while received := connection.recv(1024):  # waits; b"" says: no more comes
    print(received.decode())
os.wait()  # ask how the child ended; then the kernel can forget it
-------------------------------- what it prints
good evening
--------------------------------

So a server has one socket that listens, and one more for each client. These lines are right as they stand, but nearly
every one of them goes wrong in a larger program.

     client           its kernel       network     its kernel       server
     send ───▶ [ unacknowledged ] ════════▶ [ unread ] ───▶ recv

How to run it

    python3 scripts/lessons/socket_.py [MISTAKE]

MISTAKE is the name of one, such as part; without it the lesson shows all twelve, in the order of this file.

A sentence is printed only after the lesson has observed it; if it is not true here, the lesson ends. If systems differ,
a line "here" says what was seen instead. What would wait forever has a timeout, and nothing leaves this machine. All
mistakes and cures are in this file; peers.py and cable.py make them happen. If it makes no difference, both ends of a
connection are in one process. The file is not called socket.py: a program finds the modules beside it first.
"""

from __future__ import annotations

import codecs
import errno
import select
import signal
import socket
import statistics
import struct
import sys
import time
from contextlib import suppress
from typing import Final

import cable
import peers
from harness import A_MOMENT, ENOUGH, MEBIBYTE, main, seen, show
from peers import HERE, connected

LONGEST: Final = 1024  # bytes of a message; we refuse longer ones


# -- 1. part --------------------------------------------------------------------------------------
def receive_once(sock: socket.socket) -> bytes:
    return sock.recv(2 * MEBIBYTE)


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        some = sock.recv(size - len(received))
        if not some:
            raise EOFError("the peer closed in the middle of a message")
        received += some
    return bytes(received)


def send_message(sock: socket.socket, message: bytes) -> None:
    sock.sendall(struct.pack("!I", len(message)) + message)  # 4 bytes say how long it is


def receive_message(sock: socket.socket) -> bytes:
    (size,) = struct.unpack("!I", receive_exactly(sock, 4))
    return receive_exactly(sock, size)


def part() -> None:
    """Taking what recv returns for a message.

    TCP carries bytes, not messages: it keeps their order and forgets how many each send() had. recv(n) waits until
    something is there, and returns that, at most n bytes: several messages in one piece if they were waiting, or a part
    of one if the rest is still on its way. On your own machine, with short messages and pauses between them, each
    recv() happens to return one message. To mark the borders, send a length before each message, or a newline after
    it, and receive until the message is complete.
    """
    show(receive_once)
    together = peers.receive_lines(socket.socket.sendall, receive_once)
    seen("mistake", f"3 messages were sent, and recv() returned {together}", len(together) == 1)
    size = peers.receive_large(send_message, receive_once)
    seen("mistake", f"1 message of {MEBIBYTE} bytes was sent, and recv() returned {size} bytes", 0 < size < MEBIBYTE)
    show(receive_exactly, send_message, receive_message)
    apart = peers.receive_lines(send_message, receive_message)
    seen("cure", f"with lengths: {apart}", [line.encode() for line in apart] == [*peers.LINES])
    seen("cure", "and all of the large one", peers.receive_large(send_message, receive_message) == MEBIBYTE)


# -- 2. send --------------------------------------------------------------------------------------
def send_once(sock: socket.socket, data: bytes) -> int:
    return sock.send(data)


def send_all(sock: socket.socket, data: bytes) -> int:
    """Send everything over a socket that never waits."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            select.select([], [sock], [])  # until there is room; we could do other things, too
    return len(data)


def send() -> None:
    """Not looking at what send returns.

    send() puts bytes into a buffer of the kernel and returns how many it took. If the peer reads slowly, the buffer is
    full, and it takes only a part. A socket that may wait (the default) waits for room, so the mistake stays hidden
    until somebody sets a timeout or makes it non-blocking, as every event loop does. sendall() repeats send() until all
    is sent; after a timeout you do not know how much was. With an event loop, keep the rest, and send more when the
    socket is writable.
    """
    show(send_once)
    arrived, size = peers.arrives(send_once), len(peers.LARGE)
    seen("mistake", f"send() of {size} bytes took {arrived}, and the rest was never sent", 0 < arrived < size)
    show(send_all)
    seen("cure", "repeated until nothing is left: all of them arrived", peers.arrives(send_all) == size)


# -- 3. end ---------------------------------------------------------------------------------------
def receive_after_end(seconds: float) -> int:
    """Return how often recv returns nothing in a program that takes that for "nothing yet"."""
    client, peer = connected()
    client.close()
    times, end = 0, time.monotonic() + seconds
    with peer:
        while time.monotonic() < end:
            if not peer.recv(LONGEST):
                times += 1
    return times


def ask_and_half_close() -> tuple[bytes, bytes]:
    """Return the whole question, and the answer that came after it had ended."""
    client, peer = connected()
    with client, peer:
        client.sendall(b"how many letters?")
        client.shutdown(socket.SHUT_WR)  # we send no more, and still read
        question = b"".join(iter(lambda: peer.recv(4), b""))  # call recv until it returns b""
        peer.sendall(str(len(question)).encode())
        return question, client.recv(LONGEST)


def end() -> None:
    """Taking the end for a pause.

    If nothing has arrived yet, recv() waits. If it returns b"", the peer sends no more: this is no error, and it does
    not go away. A loop that ignores it uses a whole processor for nothing. The end counts for one direction: after
    shutdown(SHUT_WR) a peer still reads, so answer before you close. And an end is a good end only after a whole
    message.
    """
    show(receive_after_end)
    times = receive_after_end(0.1)
    seen("mistake", f"in a tenth of a second recv() returned b'' {times} times", times > 10)
    show(ask_and_half_close)
    question, answer = ask_and_half_close()
    seen("cure", 'reading stopped at b"", and the answer was sent and received', (len(question), answer) == (17, b"17"))


# -- 4. gone --------------------------------------------------------------------------------------
def beat(sock: socket.socket) -> None:
    """Run by a peer that shows that it lives."""
    while True:
        sock.sendall(b".")
        time.sleep(0.1)


def hears(sock: socket.socket, patience: float) -> bool:
    """Return whether anything arrives within ``patience`` seconds."""
    sock.settimeout(patience)
    try:
        return sock.recv(LONGEST) != b""
    except TimeoutError:
        return False


def gone() -> None:
    """Waiting for a peer that has vanished.

    A process that ends, even by kill -9, leaves a kernel behind that says so: an end (FIN) or a reset (RST). But if the
    machine loses power, the cable is pulled or a router forgets the connection, nothing comes: the connection is
    half-open. recv() waits forever. send() succeeds: its bytes go into our own kernel's buffer, and only after about 15
    minutes of repeating does Linux give up. Keepalive (SO_KEEPALIVE) has the kernel ask the other kernel, by default
    after two hours; set shorter times. It cannot notice a program that is stuck, since that program's kernel answers
    well. So let the programs themselves send something every few seconds, a beat, and give a peer up after some
    seconds without any.
    """
    show(beat, hears)
    heard, sent, noticed = peers.frozen_peer(beat, hears)
    seen("mistake", "the peer was stopped (SIGSTOP); send() succeeded, so it seemed alive", sent)
    seen("cure", f"beats were heard before; after {A_MOMENT:g} s without one we gave it up", heard and noticed)
    show(cable.watch)
    cut = peers.pull_cable()
    if cut.refused:
        seen("here", f"no cable could be pulled ({cut.refused}), so keepalive was not tried", True)
        return
    waited = f"the cable was pulled: send() succeeded, and after {cut.seconds:.1f} s recv() still waited"
    seen("mistake", waited, cut.sent and cut.plain == "")
    seen("cure", f"with keepalive, it ended with {cut.watched} in that time", cut.watched != "")


# -- 5. turns -------------------------------------------------------------------------------------
def serve_in_turn(server: socket.socket) -> None:
    """Run by a child: an echo for one client after another."""
    while True:
        client, _ = server.accept()
        with client:
            while some := client.recv(LONGEST):
                client.sendall(some)


def serve_all(server: socket.socket) -> None:
    """Run by a child: an echo for all clients at once."""
    sockets = [server]
    while True:
        for sock in select.select(sockets, [], [])[0]:  # waits until one of them is ready
            if sock is server:
                sockets.append(server.accept()[0])
            elif some := sock.recv(LONGEST):
                sock.sendall(some)  # a slow reader still stops us here: chat.py shows more
            else:
                sockets.remove(sock)
                sock.close()


def turns() -> None:
    """Serving one client at a time.

    Everybody's first server accepts a client, stays with it until it leaves, and accepts the next one. That one can
    connect all the same, since the kernel accepts for us and keeps the connection in a queue, the backlog. It can even
    send. But nobody reads: one silent client stops the server for all others. Serve each client in a thread of its own,
    or, as here, wait for all sockets together (select, selectors, asyncio) and touch only those that are ready.
    """
    show(serve_in_turn)
    stuck = not peers.second_is_served(serve_in_turn, A_MOMENT)
    seen("mistake", "the first client was silent: the second connected, sent, and got no answer", stuck)
    show(serve_all)
    seen("cure", "with select() it got its answer", peers.second_is_served(serve_all, ENOUGH))


# -- 6. accept ------------------------------------------------------------------------------------
def accept_one(server: socket.socket, _stop: socket.socket) -> None:
    """Run by a thread."""
    with suppress(OSError):
        server.accept()[0].close()


def accept_or_stop(server: socket.socket, stop: socket.socket) -> None:
    """Run by a thread."""
    while stop not in select.select([server, stop], [], [])[0]:
        server.accept()[0].close()


def accept() -> None:
    """Stopping a server that waits in accept.

    accept() waits for a client, perhaps forever. Closing the socket seems enough to end a thread that waits there. On
    Linux it is not: the waiting call keeps the socket alive. It even takes one more client, and meanwhile the number of
    its descriptor may go to another file. Wait instead for the listening socket together with a second one, over which
    anybody can say "stop", and call accept() only when a client is there. A signal can say it, too
    (signal.set_wakeup_fd).
    """
    show(accept_one)
    if peers.thread_ends(accept_one, A_MOMENT, close=True):
        seen("here", "close() ended the accept() of another thread; on Linux it does not", sys.platform != "linux")
    else:
        seen("mistake", "the socket was closed, and the thread still waited in accept()", True)
    show(accept_or_stop)
    seen("cure", "with a second socket that says stop, the thread ended", peers.thread_ends(accept_or_stop, ENOUGH))


# -- 7. port --------------------------------------------------------------------------------------
def listen(server: socket.socket, port: int, *, reuse: bool) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    server.bind((HERE, port))
    server.listen()


def restart(*, reuse: bool) -> str:
    """Stop a server that has a client, and start it again. Return the error."""
    with socket.socket() as server:
        listen(server, 0, reuse=reuse)
        address = server.getsockname()
        with socket.create_connection(address) as client:
            server.accept()[0].close()  # the server's end closes first, as at a stop
            client.recv(1)
    error: str = peers.error_of(listen, address[1], reuse=reuse)
    return error


def port() -> None:
    """Restarting a server on its port.

    "Address already in use" (EADDRINUSE) right after a stop, though nothing listens any more: the end that closes first
    remembers the connection for a minute (TIME_WAIT), so that late packets cannot reach a new one on the same ports.
    Until then, bind() fails. SO_REUSEADDR, set before bind(), says that you accept this; on Linux the stopped server
    must have set it, too. It does not let two servers share a port: if one still runs, the error is right.
    socket.create_server() sets it for you, except on Windows, where it means something worse.
    """
    show(listen, restart)
    error = restart(reuse=False)
    seen("mistake", f"stopped and started again: {error}", error == "EADDRINUSE")
    seen("cure", "with SO_REUSEADDR it started again", restart(reuse=True) == "")
    with socket.create_server((HERE, 0)) as running:
        error = peers.error_of(listen, running.getsockname()[1], reuse=True)
    seen("fact", f"beside a server that still runs, it did not: {error}", error == "EADDRINUSE")


# -- 8. localhost ---------------------------------------------------------------------------------
def dial(addresses: list[tuple[str, int]]) -> str:
    """Return the first address that answers, or the last error."""
    error = ""
    for address in addresses:
        try:
            socket.create_connection(address, ENOUGH).close()
            return address[0]
        except OSError as why:
            error = errno.errorcode.get(why.errno or 0, str(why))
    return error


def localhost() -> None:
    """Taking localhost for 127.0.0.1.

    A machine calls itself 127.0.0.1 in IPv4 and ::1 in IPv6: different addresses, and a server that listens on one does
    not hear the other. The name localhost stands for one or both, and which comes first differs between systems and
    even programs. So a server that listens on "localhost" may be on ::1 only, and a client that dials 127.0.0.1 is
    refused, on the same machine. A server should listen on every address that it means. A client should dial a name's
    addresses in turn; create_connection() does that.
    """
    show(dial)
    found = [str(address[0]) for *_, address in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]
    seen("fact", f"localhost is {' and '.join(found)} here", bool(found))
    if not peers.has_ipv6():
        seen("here", "this machine has no ::1, so there is nothing to confuse", True)
        return
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        number = server.getsockname()[1]
        error = dial([(HERE, number)])
        seen("mistake", f"the server is on ::1, and 127.0.0.1 answers {error}", error == "ECONNREFUSED")
        answered = dial([(HERE, number), ("::1", number)])
        seen("cure", f"a client that dials one address after the other got through to {answered}", answered == "::1")
    seen("cure", "a server with a socket on each address was reached at both", peers.both_answer(dial) == [HERE, "::1"])


# -- 9. nagle -------------------------------------------------------------------------------------
def milliseconds_of_a_round(*, pieces: int, nodelay: bool) -> float:
    """Return the median time for a question of 8 bytes, sent in so many pieces, and its answer."""
    times = []
    with peers.answering(lambda peer: receive_exactly(peer, 8)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(pieces):
                client.sendall(bytes(8 // pieces))
            receive_exactly(client, 8)
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def nagle() -> None:
    """Sending a message in small pieces.

    Two kernels save packets, each in its own way. Ours (Nagle's algorithm) sends a small piece at once only if nothing
    is on its way; otherwise it waits for the acknowledgement. The other one delays that acknowledgement, 40 ms on
    Linux, in the hope of sending it along with an answer. So if a header and a body are sent by two calls, the body
    waits for an acknowledgement that waits for an answer that waits for the body. Send a message in one call, or set
    TCP_NODELAY, which switches Nagle's algorithm off.
    """
    show(milliseconds_of_a_round)
    slow = milliseconds_of_a_round(pieces=2, nodelay=False)
    if slow > 20:
        seen("mistake", f"a question in two pieces, and its answer: {slow:.1f} ms", True)
    else:
        seen("here", f"two pieces took only {slow:.2f} ms: this kernel acknowledges sooner", slow > 0)
    for pieces, nodelay, how in ((1, False, "in one piece"), (2, True, "in two pieces with TCP_NODELAY")):
        quick = milliseconds_of_a_round(pieces=pieces, nodelay=nodelay)
        seen("cure", f"{how}: {quick:.2f} ms", quick < 20)


# -- 10. sigpipe ----------------------------------------------------------------------------------
def send_until_error(client: socket.socket) -> int:
    """Return how many sends succeed."""
    for sends in range(1000):
        try:
            client.sendall(b"are you there?")
        except (BrokenPipeError, ConnectionResetError):
            return sends  # EPIPE: we knew; ECONNRESET: we just learned
        time.sleep(0.01)  # until the reset has arrived
    return 1000


def send_to_closed(handling: signal.Handlers) -> None:
    """Run by a child: send to a peer that has closed."""
    signal.signal(signal.SIGPIPE, handling)
    client, peer = connected()
    peer.close()
    with client:
        while send_until_error(client):  # after a reset, the next send fails for certain
            pass
    sys.exit(peers.Fate.NOTICED)


def sigpipe() -> None:
    """Sending to a peer that has closed.

    The first send() after that succeeds: the kernel takes the bytes, and only the other kernel's answer, a reset, says
    that nobody reads. So "sent" never means "arrived". The next one fails with EPIPE; but first the kernel sends the
    process a signal, SIGPIPE, which by default ends it without a word. That is right in a shell's pipeline and wrong
    for a server. Python ignores the signal from its start, so you get BrokenPipeError: catch it and drop that client.
    Check a library that sets signals; and subprocess restores SIGPIPE in the programs it starts.
    """
    show(send_until_error, send_to_closed)
    client, peer = connected()
    peer.close()
    with client:
        sends = send_until_error(client)
    seen("mistake", f"the peer had closed, and {sends} send succeeded before the error", sends > 0)
    status = peers.fate(send_to_closed, signal.SIG_DFL)
    seen("mistake", f"with SIGPIPE at its default the process ended with {status}", status == -signal.SIGPIPE)
    status = peers.fate(send_to_closed, signal.SIG_IGN)
    seen("cure", "with SIGPIPE ignored it caught the error and went on", status == peers.Fate.NOTICED)


# -- 11. length -----------------------------------------------------------------------------------
def read_trusting(sock: socket.socket) -> bytearray:
    (size,) = struct.unpack("!I", receive_exactly(sock, 4))
    message = bytearray(size)  # room for all of it
    sock.recv_into(message)
    return message


def read_careful(sock: socket.socket) -> bytes:
    (size,) = struct.unpack("!I", receive_exactly(sock, 4))
    if size > LONGEST:
        raise ValueError(f"a message of {size} bytes; the longest is {LONGEST}")
    return receive_exactly(sock, size)


def length() -> None:
    """Trusting a length that a stranger sends.

    Anybody can connect to a port and send any bytes. Four of them, ff ff ff ff, announce a message of 4 GiB. A program
    that makes room for it runs out of memory, and one that keeps whatever arrives does so a little later. Compare each
    length with the longest message you want, before you make room and before you wait. Refuse by closing: after
    nonsense, you do not know where the next message begins. And a stranger can announce 10 bytes and send 9: set a time
    in which a message must be complete.
    """
    show(read_trusting)
    status = peers.after_four_bytes(read_trusting)
    if status == peers.Fate.LEFT:
        seen("here", "the memory of a process cannot be limited, so room for 4 GiB was made", sys.platform != "linux")
    else:
        seen("mistake", "four bytes arrived, and the reader ran out of memory", status == peers.Fate.OUT_OF_MEMORY)
    show(read_careful)
    refused = peers.after_four_bytes(read_careful) == peers.Fate.REFUSED
    seen("cure", f"four bytes arrived and were refused, since the longest message is {LONGEST}", refused)


# -- 12. text -------------------------------------------------------------------------------------
def decode_pieces(pieces: list[bytes]) -> str:
    return "".join(piece.decode("utf-8") for piece in pieces)


def decode_stream(pieces: list[bytes]) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()  # keeps the beginning of a character until the rest comes
    return "".join(decoder.decode(piece) for piece in pieces) + decoder.decode(b"", final=True)


def text() -> None:
    """Decoding each piece by itself.

    In UTF-8 a character has one to four bytes, and recv() cuts anywhere, also within a character. decode() then fails
    on a piece, though the whole is right; with errors="ignore" the character is lost without an error. English text
    has one byte for each character, so it never shows. Decode whole messages, or use an incremental decoder.
    """
    show(decode_pieces)
    pieces, error = peers.receive_pieces(3), ""
    try:
        decode_pieces(pieces)
    except UnicodeDecodeError as why:
        error = why.reason
    seen("mistake", f"{pieces[0]!r}, {pieces[1]!r} and so on came, and decode() failed: {error}", error != "")
    kept = "".join(piece.decode("utf-8", "ignore") for piece in pieces)
    seen("mistake", f"with errors='ignore', {peers.TEXT!r} became {kept!r}", kept != peers.TEXT)
    show(decode_stream)
    whole = decode_stream(pieces)
    seen("cure", f"an incremental decoder made {whole!r} of it", whole == peers.TEXT)


# -- the story ------------------------------------------------------------------------------------

MISTAKES: Final = {
    lesson.__name__: lesson
    for lesson in (part, send, end, gone, turns, accept, port, localhost, nagle, sigpipe, length, text)
}

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", None, MISTAKES, starts=False))
