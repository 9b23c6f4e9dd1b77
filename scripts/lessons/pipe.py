"""A lesson on pipes: the smallest program, and five mistakes.

A process is a running program with a memory of its own: no other process can see its variables. Two processes that
want to talk need something outside both of them, and the kernel, the core of the operating system, provides it. The
simplest is a pipe: a buffer in the kernel with two ends. Bytes written into one end come out of the other, in the same
order.

A process never touches a pipe itself. The kernel gives it a descriptor, a small number that stands for something the
kernel keeps: an open file, the terminal, one end of a pipe. Read, write and close are requests to the kernel, each with
such a number. A new process starts as a copy of another one, its parent, and the copy has the same descriptors.

-------------------------------- the smallest program
import os

reader, writer = os.pipe()  # two descriptors, one for each end
if os.fork() == 0:  # now there are two processes; 0 says "you are the child"
    os.write(writer, b"good evening")
    os._exit(0)  # the child ends here
os.close(writer)  # the child has its own; with ours open, no end would come
while received := os.read(reader, 1024):  # waits; b"" says: no writer left
    print(received.decode())
os.wait()  # ask how the child ended; then the kernel can forget it
-------------------------------- what it prints
good evening
--------------------------------

The rest of this lesson uses multiprocessing, which wraps these calls up: a Process runs a function in a child, and a
Pipe has two Connections, which send a length before each message, so the reader gets the messages one by one.

     a process                  the kernel                  another process
    writer.send_bytes ───▶ [ ....######## ] ───▶ reader.recv_bytes
                          64 KiB on Linux

How to run it

    python3 scripts/lessons/pipe.py [MISTAKE] [--start METHOD]

MISTAKE is one of ends, full, pickle, fork, zombie; without it the lesson shows all of them, in this order. METHOD
is how processes are started: spawn, fork or forkserver.

Rules:

1. A sentence is printed only after the lesson has observed it; if it is not true here, the lesson ends.
2. What would hang forever hangs in a child process, which is killed a moment later.
3. No process and no zombie is left.
4. Everything that runs in a child is a function of this module, so every start method can find it.

Read it from top to bottom. Each mistake has a function that makes or avoids it, depending on an argument, and one
whose docstring says what went wrong and why.
"""

from __future__ import annotations

import multiprocessing
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import A_MOMENT, ENOUGH, MEBIBYTE, main, seen, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkContext, SpawnContext
    from multiprocessing.synchronize import Barrier

    from harness import Context

LINES: Final = ("good evening", "is anybody here?", "good night")
LONGEST: Final = 1024  # bytes of a message; we refuse longer ones


# -- the same with multiprocessing ----------------------------------------------------------------


def send_lines(reader: Connection, writer: Connection) -> None:
    """Run by the child."""
    reader.close()  # not ours: with a copy open here, we would never learn that nobody reads
    with writer:
        for line in LINES:
            writer.send_bytes(line.encode())


def receive_lines(context: Context) -> tuple[list[str], int | None]:
    """Return what the child sent, and its exit status."""
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=send_lines, args=(reader, writer))
    child.start()
    writer.close()  # the child has its own; with a copy open here, the end would never come
    lines = []
    with reader:
        while True:
            try:
                lines.append(reader.recv_bytes(LONGEST).decode())
            except EOFError:
                break
    child.join()
    return lines, child.exitcode


def smallest(context: Context) -> None:
    """The same with multiprocessing.

    One process writes and another reads. Each closes the other's end, the reader reads until the end and not
    until some count, and the parent waits for the child that it started.
    """
    show(send_lines, receive_lines)
    lines, status = receive_lines(context)
    right = lines == [*LINES] and status == 0
    seen("works", f"{len(lines)} lines in order, then the end; the child exited with 0", right)


# -- 1. ends --------------------------------------------------------------------------------------


def end_comes(context: Context, *, we_close: bool) -> bool:
    """Return whether the end shows after the child has sent its lines and is gone."""
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=send_lines, args=(reader, writer))
    child.start()
    if we_close:
        writer.close()
    child.join()  # it sends nothing more: nothing below has to wait
    with reader, writer:
        try:
            while reader.poll(0):
                reader.recv_bytes(LONGEST)
        except EOFError:
            return True
    return False


def ends(context: Context) -> None:
    """Forgetting to close the other ends.

    The end of a pipe is not a message. The kernel reports it when the last descriptor of the writing end is
    closed, in any process. A parent that made the pipe and reads from it holds one itself, so it waits for
    its own. With fork, every child has copies of all open ends, including its siblings', so one child hides
    another child's death. The other direction is the same: a writer that holds a reading end never gets the
    error (EPIPE, BrokenPipeError) that says nobody reads any more.
    """
    show(end_comes)
    hidden = not end_comes(context, we_close=False)
    seen("mistake", "the sender is gone and its lines are read, but there is no end: recv would wait forever", hidden)
    seen("cure", "we closed our writing end after start(), and the end came", end_comes(context, we_close=True))


# -- 2. full --------------------------------------------------------------------------------------


def capacity() -> int:
    """Return how many bytes fit into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    held = 0
    try:
        while True:
            held += os.write(writer, bytes(1024))
    except BlockingIOError:
        return held
    finally:
        os.close(reader)
        os.close(writer)


def exchange(start: Barrier, reader: Connection, writer: Connection, listens: bool) -> None:
    """Run by each of two peers: send a long message and receive one."""
    start.wait(ENOUGH)
    if listens:
        reader.recv_bytes(MEBIBYTE)
    writer.send_bytes(bytes(MEBIBYTE))
    if not listens:
        reader.recv_bytes(MEBIBYTE)


def both_finish(context: Context, patience: float, *, bob_listens: bool) -> bool:
    """Return whether two peers have sent each other 1 MiB within ``patience`` seconds after both began."""
    ann_reads, bob_writes = context.Pipe(duplex=False)
    bob_reads, ann_writes = context.Pipe(duplex=False)
    start = context.Barrier(3)
    ann = context.Process(target=exchange, args=(start, ann_reads, ann_writes, False), daemon=True)
    bob = context.Process(target=exchange, args=(start, bob_reads, bob_writes, bob_listens), daemon=True)
    ann.start()
    bob.start()
    start.wait(ENOUGH)
    ann.join(patience)
    bob.join(patience)
    finished: bool = ann.exitcode == bob.exitcode == 0
    for peer in (ann, bob):
        peer.kill()
        peer.join()
    for end in (ann_reads, ann_writes, bob_reads, bob_writes):  # not earlier: killing ann would wake bob
        end.close()
    return finished


def full(context: Context) -> None:
    """Blocking on a full pipe.

    A pipe is a buffer of fixed size: 64 KiB on Linux, 16 to 64 KiB on macOS. A write that does not fit blocks
    until someone reads. If two peers both write first and read later, both block, each waiting for the other
    to read. The program passes every test with short messages and stops on the first long one. Agree who
    writes and who reads; or read in a separate thread; or never block: write what fits, keep the rest, and
    read whenever something is there, as the transports of this chat do.
    """
    show(capacity, exchange)
    held = capacity()
    seen("fact", f"a pipe holds {held} bytes here, and then a write blocks", 0 < held < MEBIBYTE)
    stuck = not both_finish(context, A_MOMENT, bob_listens=False)
    seen("mistake", "ann and bob both write 1 MiB first: neither ended, and both were killed", stuck)
    finished = both_finish(context, ENOUGH, bob_listens=True)
    seen("cure", "ann writes while bob reads, then the other way round: both exited with 0", finished)


# -- 3. pickle ------------------------------------------------------------------------------------

CHOSEN_BY_ATTACKER: Final = 77
REFUSED_TEXT: Final = 3
REFUSED_LENGTH: Final = 4


class Crafted:
    """Pickled, this says "call os._exit(77)". It could name any function, with any arguments."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (CHOSEN_BY_ATTACKER,)


def trusting(reader: Connection) -> None:
    """Run by a child that trusts what it gets."""
    reader.recv()


def careful(reader: Connection) -> None:
    """Run by a child that takes a limited number of bytes, and checks them."""
    try:
        reader.recv_bytes(LONGEST).decode("utf-8")
    except UnicodeDecodeError:
        sys.exit(REFUSED_TEXT)
    except OSError:  # longer than LONGEST; raised before any of it is read
        sys.exit(REFUSED_LENGTH)


def send_crafted(writer: Connection) -> None:
    writer.send(Crafted())


def send_huge(writer: Connection) -> None:
    """Announce 2 GiB and send nothing. On the wire a message is its length, 4 bytes, and then its bytes."""
    os.write(writer.fileno(), struct.pack("!i", 2**31 - 1))


def fate(context: Context, receive: Callable[[Connection], None], attack: Callable[[Connection], None]) -> int | None:
    """Return the exit status of a receiver under attack; None if it did not end."""
    reader, writer = context.Pipe(duplex=False)
    receiver = context.Process(target=receive, args=(reader,), daemon=True)
    receiver.start()
    reader.close()
    with writer:  # open until it has ended: it must not end because the attacker left
        attack(writer)
        receiver.join(ENOUGH)
        status: int | None = receiver.exitcode
    receiver.kill()
    receiver.join()
    return status


def pickle(context: Context) -> None:
    """Unpickling untrusted data.

    send() pickles and recv() unpickles, and a pickle is a program: it names functions to call. Anyone who can
    write to your pipe can run any code as you. This was reported as CVE-2020-10796 and closed as "not a bug",
    because the documentation warns of it. Between two processes of your own program it is fine. With anybody
    else, use send_bytes() and recv_bytes(maxlength), and check what you got. Without maxlength, a peer can
    announce 2 GiB, and you wait for them and keep whatever arrives.
    """
    show(Crafted, trusting, careful)
    obeyed = fate(context, trusting, send_crafted) == CHOSEN_BY_ATTACKER
    seen("mistake", f"recv() ran what was sent: the attacker chose exit status {CHOSEN_BY_ATTACKER}", obeyed)
    refused = fate(context, careful, send_crafted) == REFUSED_TEXT
    seen("cure", "recv_bytes(1024) and decode: the same bytes were refused, since they are not UTF-8", refused)
    refused = fate(context, careful, send_huge) == REFUSED_LENGTH
    seen("cure", "recv_bytes(1024) refused the announced 2 GiB without waiting for them", refused)


# -- 4. fork --------------------------------------------------------------------------------------

LOCK: Final = threading.Lock()  # any library that you use may have one like it
STILL_LOCKED: Final = 5


def take_lock(released: Connection) -> None:
    """Run by the child: take LOCK after the thread that held it has released it."""
    released.recv_bytes(LONGEST)
    # There is no thread here that could release it, so waiting longer would not help.
    sys.exit(0 if LOCK.acquire(blocking=False) else STILL_LOCKED)


def start_beside_thread(context: Context, *, thread_first: bool) -> tuple[int | None, int]:
    """Start a child that needs a lock, and a thread that holds it. Return the child's exit status, and how
    many warnings Python gave.
    """
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with LOCK:
            held.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=take_lock, args=(reader,))
    if thread_first:
        thread.start()
        held.wait()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        child.start()
    if not thread_first:
        thread.start()
        held.wait()
    enough.set()
    thread.join()
    with reader, writer:
        writer.send_bytes(b"the lock is free")
        child.join()
    return child.exitcode, len(told)


def fork(_: Context) -> None:
    """Forking after threads have started.

    fork() copies the whole memory but only the thread that calls it. If another thread holds a lock at that
    moment, the lock is locked in the copy too, but its holder does not exist there: it stays locked forever.
    logging and the C library's allocator reset their locks in the child; most libraries do not. It happens
    once in a thousand starts, and not on your machine. Python has warned about it since 3.12, and since 3.14
    the default on Linux is forkserver. So ask for the start method by name, get_context("fork") or another,
    and if you fork, do it before the first thread. Remember threads that you did not start yourself: a
    multiprocessing.Queue starts one at its first put.
    """
    show(take_lock, start_beside_thread)
    status, told = start_beside_thread(multiprocessing.get_context("fork"), thread_first=True)
    seen("mistake", "the thread released the lock long ago; in the forked child it is locked", status == STILL_LOCKED)
    if sys.version_info >= (3, 12):
        seen("fact", "and Python warned about it (DeprecationWarning)", told > 0)
    status, _told = start_beside_thread(multiprocessing.get_context("fork"), thread_first=False)
    seen("cure", "forked before the thread started, the child got the lock", status == 0)
    status, _told = start_beside_thread(multiprocessing.get_context("spawn"), thread_first=True)
    seen("cure", "spawned beside the thread, the child got a lock of its own", status == 0)


# -- 5. zombie ------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """Return the state in the process table: R runs, S sleeps, Z is a zombie; empty if it is not there."""
    if sys.platform != "linux":
        command = ["ps", "-o", "stat=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()[:1]
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]  # the name before it is in brackets, and may contain some


def wait_until_ended(pid: int) -> None:
    """Return when our child has ended, without removing it from the process table."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    while state_of(pid) != "Z":  # macOS has no waitid before Python 3.13
        time.sleep(0.01)


def nothing() -> None:
    """Run by a child that has nothing to do."""


def states(context: ForkContext | SpawnContext) -> tuple[str, str]:
    """Return a finished child's state in the process table: before join, and after."""
    child = context.Process(target=nothing)
    child.start()
    assert child.pid is not None
    wait_until_ended(child.pid)
    before = state_of(child.pid)
    child.join()
    return before, state_of(child.pid)


def zombie(_: Context) -> None:
    """Leaving zombies.

    A process that has ended stays in the process table until its parent asks for its exit status: a zombie.
    It uses no memory, but its number is taken, and a service that starts a child for every visitor runs out
    of numbers. multiprocessing asks for the statuses of finished children whenever it starts another one,
    which hides the mistake; after the last start nobody asks. So join() every child, including those you
    killed. With forkserver the server is the parent and reaps them, so this child is spawned.
    """
    show(states)
    before, after = states(multiprocessing.get_context("spawn"))
    seen("mistake", "the child has ended, and is still in the process table, in state Z", before == "Z")
    seen("cure", "after join() it is gone", not after)


# -- the story ------------------------------------------------------------------------------------

MISTAKES: Final = {lesson.__name__: lesson for lesson in (ends, full, pickle, fork, zombie)}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", smallest, MISTAKES, starts=True))
