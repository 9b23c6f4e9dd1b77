"""A lesson on sockets: the smallest program, and twelve mistakes.

A process is a running program with a memory of its own. A pipe (read pipe.py first) joins only processes that inherit
its ends. A socket is an end that any process can make for itself; the kernel joins it to one in any other process, on
this machine or, over the network, on another. As with a pipe, the process holds a descriptor, a number that stands for
something the kernel keeps. Unlike a pipe, a socket both sends and receives.

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

MISTAKE is one of part, send, end, gone, turns, accept, port, localhost, nagle, sigpipe, length, text; without it the
lesson shows all of them, in this order.

Rules:

1. A sentence is printed only after the lesson has observed it; if it is not true here, the lesson ends. Systems differ
   in a few things, though: then a line "here" says what was seen instead.
2. What would wait forever waits with a timeout.
3. No process and no thread is left. Nothing leaves this machine.
4. If it makes no difference, both ends of a connection are in one process.

Read it from top to bottom. All mistakes and cures are here; peers.py and cable.py make them happen. The file is not
called socket.py: a program finds the modules beside it first.
"""

from __future__ import annotations

import codecs
import errno
import os
import select
import selectors
import signal
import socket
import statistics
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import cable
from harness import A_MOMENT, ENOUGH, MEBIBYTE, main, seen, show
from peers import (
    HERE,
    LARGE,
    LINES,
    PROCESSES,
    TEXT,
    Fate,
    after_four_bytes,
    arrives,
    child,
    connected,
    fate,
    receive_large,
    receive_lines,
    receive_pieces,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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
    something is there, and returns that, at most n bytes. So it returns several messages in one piece if they were
    waiting, and a part of one if the rest is still on its way. On your own machine, with short messages and pauses
    between them, each recv() happens to return one message. To mark the borders, send a length before each message,
    or a newline after it, and receive until the message is complete.
    """
    show(receive_once)
    together = receive_lines(socket.socket.sendall, receive_once)
    seen("mistake", f"3 messages were sent, and recv() returned {together}", len(together) == 1)
    size = receive_large(send_message, receive_once)
    seen("mistake", f"1 message of {MEBIBYTE} bytes was sent, and recv() returned {size} bytes", 0 < size < MEBIBYTE)
    show(receive_exactly, send_message, receive_message)
    apart = receive_lines(send_message, receive_message)
    seen("cure", f"with lengths: {apart}", [line.encode() for line in apart] == [*LINES])
    seen("cure", "and all of the large one", receive_large(send_message, receive_message) == MEBIBYTE)


# -- 2. send --------------------------------------------------------------------------------------


def send_once(sock: socket.socket, data: bytes) -> int:
    return sock.send(data)


def send_all(sock: socket.socket, data: bytes) -> int:
    """Send everything over a socket that never waits; wait here instead, where we could also do other things."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            select.select([], [sock], [])  # until there is room
    return len(data)


def send() -> None:
    """Not looking at what send returns.

    send() puts bytes into a buffer of the kernel and returns how many it took. If the peer reads slowly, the buffer is
    full, and it takes only a part. A socket that may wait (the default) usually waits for room, so the mistake stays
    hidden until somebody sets a timeout or makes the socket non-blocking, as every program with an event loop does.
    sendall() repeats send() until all is sent; after a timeout in sendall() you do not know how much was. With an event
    loop, keep the rest, and send more when the socket is writable.
    """
    show(send_once)
    arrived = arrives(send_once)
    text = f"send() of {len(LARGE)} bytes took {arrived}, and the rest was never sent"
    seen("mistake", text, 0 < arrived < len(LARGE))
    show(send_all)
    seen("cure", "repeated until nothing is left: all of them arrived", arrives(send_all) == len(LARGE))


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
    """Return the whole question, and the answer that came after the question had ended."""
    client, peer = connected()
    with client, peer:
        client.sendall(b"how many letters?")
        client.shutdown(socket.SHUT_WR)  # we send no more, and still listen
        question = b""
        while some := peer.recv(4):
            question += some
        peer.sendall(str(len(question)).encode())
        return question, client.recv(LONGEST)


def end() -> None:
    """Taking the end for a pause.

    If nothing has arrived yet, recv() waits. If it returns b"", the peer has closed, and nothing will ever arrive. This
    is not an error, and it does not go away: from now on every recv() returns b"" at once. A loop that ignores it uses
    a whole processor for nothing. The end counts for one direction: after shutdown(SHUT_WR) a peer sends no more but
    still reads, so answer before you close. And an end is a good end only if it comes after a whole message.
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


def frozen_peer() -> tuple[bool, bool, bool]:
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


def gone() -> None:
    """Waiting for a peer that has vanished.

    A process that ends, even by kill -9, leaves a kernel behind that says so: an end (FIN) or a reset (RST). But if the
    machine loses power, the cable is pulled or a router forgets the connection, nothing comes, and nobody notices. Such
    a connection is half-open. recv() waits for days. send() succeeds: its bytes go into our own kernel's buffer, and
    only after about 15 minutes of repeating does the kernel give up. Keepalive (SO_KEEPALIVE) has the kernel ask the
    other kernel, by default after two hours; set shorter times. It cannot notice a program that is stuck, since that
    program's kernel answers well. So let the programs themselves send something every few seconds, a beat, and give a
    peer up after some seconds without any.
    """
    show(hears, frozen_peer)
    heard, sent, noticed = frozen_peer()
    seen("mistake", "the peer was stopped (SIGSTOP); send() succeeded, so it seemed alive", sent)
    seen("cure", f"beats were heard before; after {A_MOMENT:g} s without one we gave it up", heard and noticed)
    show(cable.watch, cable.pull)
    cut = pull_cable()
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
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():  # waits until one of the sockets has something for us
            if key.fileobj is server:
                selector.register(server.accept()[0], selectors.EVENT_READ)
                continue
            client = key.fileobj
            assert isinstance(client, socket.socket)
            if some := client.recv(LONGEST):
                client.sendall(some)  # a slow reader would still stop us here: chat.py shows more
            else:
                selector.unregister(client)
                client.close()


def second_is_served(serve: Callable[[socket.socket], None], patience: float) -> bool:
    """Return whether a client gets an answer while another one is connected and silent."""
    with socket.create_server((HERE, 0)) as server, child(serve, server):
        address = server.getsockname()
        with socket.create_connection(address), socket.create_connection(address) as second:
            second.sendall(b"good evening")
            return hears(second, patience)


def turns() -> None:
    """Serving one client at a time.

    Everybody's first server accepts a client, stays with it until it leaves, and accepts the next one. That next client
    can connect all the same, since the kernel accepts for us and keeps the connection in a queue, the backlog. It can
    even send. But nobody reads: one silent client stops the server for all others. Serve each client in a thread of its
    own, or, as here, wait for all sockets together (selectors, asyncio) and touch only those that are ready.
    """
    show(serve_in_turn)
    stuck = not second_is_served(serve_in_turn, A_MOMENT)
    seen("mistake", "the first client was silent: the second connected, sent, and got no answer", stuck)
    show(serve_all)
    seen("cure", "with a selector it got its answer", second_is_served(serve_all, ENOUGH))


# -- 6. accept ------------------------------------------------------------------------------------


def accept_one(server: socket.socket, _stop: socket.socket) -> None:
    """Run by a thread."""
    with suppress(OSError):
        server.accept()[0].close()


def accept_or_stop(server: socket.socket, stop: socket.socket) -> None:
    """Run by a thread."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if stop in ready:
                return
            server.accept()[0].close()


def thread_ends(accept: Callable[[socket.socket, socket.socket], None], patience: float) -> bool:
    """Return whether a thread that waits for clients ends when we want to stop."""
    server = socket.create_server((HERE, 0))
    address = server.getsockname()
    stop, stop_now = socket.socketpair()
    thread = threading.Thread(target=accept, args=(server, stop), daemon=True)
    thread.start()
    time.sleep(0.1)  # until it waits; if that is too short, the mistake is not seen
    stop_now.close()  # a stop that is ready to be read: b""
    if accept is accept_one:
        server.close()
    thread.join(patience)
    ended = not thread.is_alive()
    with suppress(OSError):
        socket.create_connection(address).close()  # a client wakes accept
    thread.join(ENOUGH)
    server.close()
    stop.close()
    return ended


def accept() -> None:
    """Stopping a server that waits in accept.

    accept() waits for a client, perhaps forever. To end a thread that waits there, it seems enough to close the socket.
    On Linux it is not: the waiting call keeps the socket alive. It even takes one more client, and meanwhile the number
    of its descriptor may go to another file. Call accept() only when a client is there: wait for the listening socket
    together with a second one, over which anybody can say "stop". A signal can say it, too (signal.set_wakeup_fd).
    """
    show(accept_one)
    if thread_ends(accept_one, A_MOMENT):
        seen("here", "close() ended the accept() of another thread; on Linux it does not", sys.platform != "linux")
    else:
        seen("mistake", "the socket was closed, and the thread still waited in accept()", True)
    show(accept_or_stop)
    seen("cure", "with a second socket that says stop, the thread ended", thread_ends(accept_or_stop, ENOUGH))


# -- 7. port --------------------------------------------------------------------------------------


def listen(port: int, *, reuse: bool) -> socket.socket:
    server = socket.socket()
    if reuse:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((HERE, port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


def restart(*, reuse: bool) -> str:
    """Stop a server that has a client, and start it again on its port. Return the error, if there is one."""
    with listen(0, reuse=reuse) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            server.accept()[0].close()  # the server's end closes first, as at a stop
            client.recv(1)
    return error_of_listening(address[1], reuse=reuse)


def error_of_listening(port: int, *, reuse: bool) -> str:
    try:
        listen(port, reuse=reuse).close()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def port() -> None:
    """Restarting a server on its port.

    "Address already in use" (EADDRINUSE) right after a stop, though nothing listens any more: the end that closes first
    remembers the connection for a minute (TIME_WAIT), so that late packets cannot reach a new connection on the same
    ports. Until then, bind() fails. SO_REUSEADDR, set before bind(), says that you accept this; on Linux the stopped
    server must have set it, too. It does not let two servers share a port: if one still runs, the error is right.
    socket.create_server() sets it for you, except on Windows, where it means something worse.
    """
    show(listen, restart)
    error = restart(reuse=False)
    seen("mistake", f"stopped and started again: {error}", error == "EADDRINUSE")
    seen("cure", "with SO_REUSEADDR it started again", restart(reuse=True) == "")
    with listen(0, reuse=True) as running:
        error = error_of_listening(running.getsockname()[1], reuse=True)
    seen("fact", f"beside a server that still runs, it did not: {error}", error == "EADDRINUSE")


# -- 8. localhost ---------------------------------------------------------------------------------


def dial(addresses: list[tuple[str, int]], patience: float = ENOUGH) -> str:
    """Return the first address that answers, or the last error."""
    error = "no address"
    for address in addresses:
        try:
            socket.create_connection(address, patience).close()
            return address[0]
        except OSError as why:
            error = errno.errorcode.get(why.errno or 0, str(why))
    return error


def localhost_addresses() -> list[str]:
    """Return what the name stands for on this machine, the preferred address first."""
    return [str(address[0]) for *_, address in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def both_answer() -> list[str]:
    """Listen on both addresses, on one port; return what answers at each."""
    for _ in range(20):  # another program may have the port at the second address
        with socket.create_server((HERE, 0)) as first, suppress(OSError):
            number = first.getsockname()[1]
            with socket.create_server(("::1", number), family=socket.AF_INET6):
                return [dial([(HERE, number)]), dial([("::1", number)])]
    return []


def localhost() -> None:
    """Taking localhost for 127.0.0.1.

    A machine calls itself 127.0.0.1 in IPv4 and ::1 in IPv6. These are different addresses: a server that listens on
    one does not hear the other. The name localhost stands for one or both, and which comes first differs between
    systems and even programs. So a server that listens on "localhost" may be on ::1 only, and a client that dials
    127.0.0.1 is refused, on the same machine. A server should listen on every address that it means. A client should
    dial a name's addresses in turn; create_connection() does that.
    """
    show(dial)
    seen("fact", f"localhost is {' and '.join(localhost_addresses())} here", bool(localhost_addresses()))
    if not has_ipv6():
        seen("here", "this machine has no ::1, so there is nothing to confuse", True)
        return
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        number = server.getsockname()[1]
        error = dial([(HERE, number)])
        seen("mistake", f"the server is on ::1, and 127.0.0.1 answers {error}", error == "ECONNREFUSED")
        answered = dial([(HERE, number), ("::1", number)])
        seen("cure", f"a client that dials one address after the other got through to {answered}", answered == "::1")
    seen("cure", "a server with a socket on each address was reached at both", both_answer() == [HERE, "::1"])


# -- 9. nagle -------------------------------------------------------------------------------------

ROUNDS: Final = 20


def milliseconds_of_a_round(*, pieces: int, nodelay: bool) -> float:
    """Return the median time for a question of 8 bytes, sent in so many pieces, and its answer."""
    client, peer = connected()
    if nodelay:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def answer() -> None:
        for _ in range(ROUNDS):
            receive_exactly(peer, 8)
            peer.sendall(b"answered")

    thread = threading.Thread(target=answer)
    thread.start()
    times = []
    with client, peer:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(pieces):
                client.sendall(bytes(8 // pieces))
            receive_exactly(client, 8)
            times.append((time.perf_counter() - began) * 1000)
        thread.join()
    return statistics.median(times)


def nagle() -> None:
    """Sending a message in small pieces.

    Two kernels save packets, each in its own way. Ours (Nagle's algorithm) sends a small piece at once only if nothing
    is on its way; otherwise it waits for the acknowledgement. The other one delays that acknowledgement, 40 ms on
    Linux, in the hope of sending it along with an answer. So if a header and a body are sent by two calls, the body
    waits for an acknowledgement that waits for an answer that waits for the body, for 40 ms each time. Send a message
    in one call, or set TCP_NODELAY, which switches Nagle's algorithm off.
    """
    show(milliseconds_of_a_round)
    slow = milliseconds_of_a_round(pieces=2, nodelay=False)
    if slow > 20:
        seen("mistake", f"a question in two pieces, and its answer: {slow:.1f} ms", True)
    else:
        seen("here", f"two pieces took only {slow:.2f} ms: this kernel acknowledges sooner", slow > 0)
    quick = milliseconds_of_a_round(pieces=1, nodelay=False)
    seen("cure", f"in one piece: {quick:.2f} ms", quick < 20)
    quick = milliseconds_of_a_round(pieces=2, nodelay=True)
    seen("cure", f"in two pieces with TCP_NODELAY: {quick:.2f} ms", quick < 20)


# -- 10. sigpipe ----------------------------------------------------------------------------------

NOTICED: Final = 3


def send_until_error(client: socket.socket) -> int:
    """Return how many sends succeed."""
    for sends in range(1000):
        try:
            client.sendall(b"are you there?")
        except (BrokenPipeError, ConnectionResetError):  # EPIPE: we know; ECONNRESET: we just learned
            return sends
        time.sleep(0.01)  # until the reset has arrived
    return 1000


def send_to_closed(handling: signal.Handlers) -> None:
    """Run by a child: send to a peer that has closed."""
    signal.signal(signal.SIGPIPE, handling)
    client, peer = connected()
    peer.close()
    with client:
        while send_until_error(client):  # where the first error is a reset, the next send fails for certain
            pass
    sys.exit(NOTICED)


def sigpipe() -> None:
    """Sending to a peer that has closed.

    The first send() after that succeeds: the kernel takes the bytes, and only the other kernel's answer, a reset, says
    that nobody reads. So "sent" never means "arrived". The next send() fails with EPIPE; but first the kernel sends the
    process a signal, SIGPIPE, which by default ends it without a word. That is right for programs in a shell's pipeline
    and wrong for a server. Python ignores the signal from its start, so you get BrokenPipeError: catch it and drop that
    client. Check a library that sets signals, and remember that subprocess restores SIGPIPE in the programs it starts.
    """
    show(send_until_error, send_to_closed)
    client, peer = connected()
    peer.close()
    with client:
        sends = send_until_error(client)
    seen("mistake", f"the peer had closed, and {sends} send succeeded before the error", sends > 0)
    status = fate(send_to_closed, signal.SIG_DFL)
    seen("mistake", f"with SIGPIPE at its default the process ended with {status}", status == -signal.SIGPIPE)
    status = fate(send_to_closed, signal.SIG_IGN)
    seen("cure", "with SIGPIPE ignored it caught the error and went on", status == NOTICED)


# -- 11. length -----------------------------------------------------------------------------------


def read_trusting(sock: socket.socket) -> bytes:
    (size,) = struct.unpack("!I", receive_exactly(sock, 4))
    message = bytearray(size)  # room for all of it
    sock.recv_into(message)
    return bytes(message)


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
    nonsense, you do not know where the next message begins. And since a stranger can announce 10 bytes and send 9, set
    a time in which a message must be complete.
    """
    show(read_trusting)
    status = after_four_bytes(read_trusting)
    if status == Fate.LEFT:
        seen("here", "the memory of a process cannot be limited, so room for 4 GiB was made", sys.platform != "linux")
    else:
        seen("mistake", "four bytes arrived, and the reader ran out of memory", status == Fate.OUT_OF_MEMORY)
    show(read_careful)
    refused = after_four_bytes(read_careful) == Fate.REFUSED
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
    pieces = receive_pieces(3)
    try:
        decode_pieces(pieces)
        error = ""
    except UnicodeDecodeError as why:
        error = why.reason
    seen("mistake", f"{TEXT!r} came as {pieces[0]!r}, {pieces[1]!r} and so on: {error}", error != "")
    kept = "".join(piece.decode("utf-8", "ignore") for piece in pieces)
    seen("mistake", f"with errors='ignore' it became {kept!r}", kept != TEXT)
    show(decode_stream)
    seen("cure", f"an incremental decoder made {decode_stream(pieces)!r} of it", decode_stream(pieces) == TEXT)


# -- the story ------------------------------------------------------------------------------------

MISTAKES: Final = {
    lesson.__name__: lesson
    for lesson in (part, send, end, gone, turns, accept, port, localhost, nagle, sigpipe, length, text)
}

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", None, MISTAKES, starts=False))
