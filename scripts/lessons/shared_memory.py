"""A lesson on shared memory: the smallest program, and four mistakes.

A process is a running program with a memory of its own: when a process changes a variable, no other process sees it,
not even the one that started it. But the kernel, which hands out all memory, can give the same piece to several
processes. What one of them writes there, the others can read: nothing is sent.

-------------------------------- the smallest program
from multiprocessing import Process, Value

def write(board):  # run by the child
    board.value = 42

if __name__ == "__main__":  # not in the child, which may read this file, too
    board = Value("q", 0)  # a whole number of 64 bits that both processes see
    child = Process(target=write, args=(board,))
    child.start()
    child.join()  # until it has ended: nothing else says that it has written
    print("the board says", board.value)
-------------------------------- what it prints
the board says 42
--------------------------------

A pipe or a queue hands a message over: it arrives once, and then it is gone. Shared memory has no messages and wakes
nobody. It is like a board on a wall: a writer replaces what was there, and a reader sees what is there now.

    one process             the same memory             another process
    text.value = ... ───▶ [ good night......... ] ───▶ text.value

How to run it

    python3 scripts/lessons/shared_memory.py [MISTAKE] [--start METHOD]

MISTAKE is one of count, torn, dead, tracker; without it the lesson shows all of them, in this order. METHOD is how
processes are started: spawn, fork or forkserver.

Rules:

1. A sentence is printed only after the lesson has observed it; if it is not true here, the lesson ends.
2. What happens by chance is tried until it happens, for at most a minute.
3. No process is left, and nothing in /dev/shm.
4. Everything that runs in a child is a function of this module, so every start method can find it.

Read it from top to bottom. Each mistake has a function that makes or avoids it, depending on an argument, and one
whose docstring says what went wrong and why. ``transports/shm.py`` applies all of it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Final

from harness import A_MOMENT, ENOUGH, main, seen, show

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from multiprocessing.process import BaseProcess
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Barrier, Event

    from harness import Context

LINES: Final = ("good evening", "is anybody here?", "good night")
WIDTH: Final = 64  # bytes of the board


# -- more than one number -------------------------------------------------------------------------


def write_lines(number: Synchronized[int], text: Any) -> None:
    """Run by the child."""
    for at, line in enumerate(LINES, 1):
        with text.get_lock():  # for both: nobody may see one line's number with another's text
            number.value = at
            text.value = line.encode()


def look_until_the_last(context: Context) -> tuple[list[tuple[int, str]], int | None]:
    """Return what was seen on the board, without repeats, and the child's exit status."""
    lock = context.RLock()
    number: Synchronized[int] = context.Value("q", 0, lock=lock)
    text: Any = context.Array("c", WIDTH, lock=lock)
    child = context.Process(target=write_lines, args=(number, text))
    child.start()
    looks: list[tuple[int, str]] = []
    while not looks or looks[-1][0] < len(LINES):
        with lock:
            look = (number.value, text.value.decode())
        if look[0] and look not in looks:
            looks.append(look)
    child.join()
    return looks, child.exitcode


def smallest(context: Context) -> None:
    """The smallest correct program with more than one number.

    One process writes and another reads. A Value and an Array belong together, so one lock guards both, and
    every access to either holds it. The reader may miss what was replaced before it looked. It is certain to
    see the last line, and every line that it sees is whole.
    """
    show(write_lines, look_until_the_last)
    looks, status = look_until_the_last(context)
    right = all(text == LINES[number - 1] for number, text in looks) and looks[-1][1] == LINES[-1] and status == 0
    missed = len(LINES) - len(looks)
    seen("works", f"the last line was seen, {missed} earlier ones were missed, and the child exited with 0", right)


# -- 1. count -------------------------------------------------------------------------------------

WORKERS: Final = 2
STEPS: Final = 20_000


def count_up(start: Barrier, total: Synchronized[int], careful: bool) -> None:
    """Run by each of several children."""
    start.wait(ENOUGH)
    for _ in range(STEPS):
        if careful:
            with total.get_lock():
                total.value += 1
        else:
            total.value += 1


def counted(context: Context, *, careful: bool) -> int:
    """Return what several children counted together."""
    start, total = context.Barrier(WORKERS), context.Value("q", 0)
    children = [context.Process(target=count_up, args=(start, total, careful)) for _ in range(WORKERS)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return int(total.value)


def count(context: Context) -> None:
    """Adding without holding the lock.

    ``value += 1`` is three steps: read, add, write. A Value has a lock and takes it for the read, and again for
    the write. In between, another process can read the same number, add, and write the same sum: two
    additions, but the counter went up by one. There is no error, and a short test passes. Hold the lock from
    before the read until after the write: ``with value.get_lock(): value += 1``.
    """
    show(count_up)
    got = due = WORKERS * STEPS
    for _ in attempts():
        got = counted(context, careful=False)
        if got < due:
            break
    seen("mistake", f"{WORKERS} children added 1 {STEPS} times each: {got}, so {due - got} are lost", got < due)
    got = counted(context, careful=True)
    seen("cure", f"with the lock around the addition: {got}", got == due)


# -- 2. torn --------------------------------------------------------------------------------------

LONG: Final = 64 * 1024  # bytes: long enough to be read in the middle of a write
CRC_SIZE: Final = 4
VERSION_SIZE: Final = 8


def sealed(version: int) -> bytes:
    """Return a text of one repeated letter, with its version in front and the CRC of both at the end."""
    record = version.to_bytes(VERSION_SIZE, "big") + bytes([97 + version % 26]) * (LONG - VERSION_SIZE - CRC_SIZE)
    return record + zlib.crc32(record).to_bytes(CRC_SIZE, "big")


def opened(record: bytes) -> bytes | None:
    """Return the text, or None if the CRC does not match."""
    body, crc = record[:-CRC_SIZE], int.from_bytes(record[-CRC_SIZE:], "big")
    return body[VERSION_SIZE:] if zlib.crc32(body) == crc else None


def is_whole(text: bytes) -> bool:
    return text == text[:1] * len(text)


def write_on(memory: Any, careful: bool, done: Event) -> None:
    """Run by the child: write one text after another until ``done`` is set."""
    version = 0
    while not done.is_set():
        version += 1
        if careful:
            with memory.get_lock():
                memory[:] = sealed(version)
        else:
            memory[:] = sealed(version)


def writing(context: Context, *, locked: bool) -> Generator[bytes, None, None]:
    """Yield what a reader sees while another process writes, for at most a minute."""
    memory: Any = context.Array("c", LONG) if locked else context.RawArray("c", LONG)
    memory[:] = sealed(0)
    done = context.Event()
    child = context.Process(target=write_on, args=(memory, locked, done))
    child.start()
    try:
        for _ in attempts():
            if locked:
                with memory.get_lock():
                    look = memory[:]
            else:
                look = memory[:]
            yield look
    finally:
        done.set()
        child.join()


def torn(context: Context) -> None:
    """Reading while another process writes.

    Bytes are copied one after another. A read in the middle of a copy gets the beginning of the new text and
    the end of the old one: a torn read, which is neither, and raises no error. A small number in one machine
    word is safe on most processors; a text, a pair or a record is not. A lock is the first cure. But every
    reader waits for the writer, and the writer for every reader, even one that was stopped in the middle. The
    second cure makes nobody wait: add a version and a checksum of all the bytes, so that no two records are
    alike. A reader accepts only what matches, and otherwise reads again.
    """
    show(write_on, writing)
    looks = writing(context, locked=False)
    mixed = next((text for text in map(text_of, looks) if not is_whole(text)), b"")
    letters = "/".join(sorted({chr(letter) for letter in mixed}))
    looks.close()
    seen("mistake", f"a text that always repeats one letter was seen with {letters or 'no more'} in it", bool(mixed))

    looks = writing(context, locked=True)
    whole = [is_whole(text_of(look)) for look, _ in zip(looks, range(200), strict=False)]
    looks.close()
    seen("cure", f"with the lock held by both sides: {len(whole)} reads, all whole", all(whole))

    show(sealed, opened)
    looks, refused, believed = writing(context, locked=False), 0, []
    for look in looks:
        text = opened(look)
        if text is None:
            refused += 1
        else:
            believed.append(text)
        if refused >= 10 and len(believed) >= 10:
            break
    looks.close()
    right = refused > 0 and len(believed) > 0 and all(map(is_whole, believed))
    seen(
        "cure",
        f"without a lock, but with a CRC: {refused} torn reads refused, {len(believed)} whole ones accepted",
        right,
    )


def text_of(record: bytes) -> bytes:
    """Return the text, whole or not."""
    return record[VERSION_SIZE:-CRC_SIZE]


# -- 3. dead --------------------------------------------------------------------------------------


def die_with_lock(value: Synchronized[int], path: str, ready: Event) -> None:
    """Run by the child until it is killed: hold a multiprocessing lock, and a kernel lock on a file."""
    with value.get_lock(), open(path, "wb") as file:  # noqa: PTH123  the path is of a NamedTemporaryFile
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.set()
        signal.pause()


def locks_after_a_kill(context: Context, patience: float) -> tuple[bool, bool]:
    """Return whether each lock can be taken within ``patience`` seconds after its holder was killed."""
    value, ready = context.Value("q", 0), context.Event()
    with tempfile.NamedTemporaryFile() as file:
        holder: BaseProcess = context.Process(target=die_with_lock, args=(value, file.name, ready))
        holder.start()
        ready.wait(ENOUGH)
        holder.kill()
        holder.join()
        of_python = value.get_lock().acquire(timeout=patience)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return of_python, False
        return of_python, True


def dead(context: Context) -> None:
    """Trusting that a lock is released.

    A multiprocessing lock is a semaphore, a number in shared memory. Nothing records who took it, so nobody
    releases it when that process is killed: all others wait forever. A lock on a file (fcntl, flock) belongs
    to the kernel, which knows its owner and drops it when the owner dies, however it dies. Only a stopped
    process (SIGSTOP, Ctrl-Z) keeps it, and no lock shows that: hence heartbeats.
    """
    show(die_with_lock, locks_after_a_kill)
    of_python, of_kernel = locks_after_a_kill(context, A_MOMENT)
    seen(
        "mistake",
        "the holder of a Value's lock was killed: the lock is still taken, but nobody holds it",
        not of_python,
    )
    seen("cure", "its lock on a file was free at once", of_kernel)


# -- 4. tracker -----------------------------------------------------------------------------------

# An unrelated process: not started by multiprocessing, so it has a resource tracker of its own.
LOOK: Final = "import sys; from multiprocessing.shared_memory import SharedMemory; SharedMemory(sys.argv[1]).close()"
LOOK_UNTRACKED: Final = LOOK.replace("(sys.argv[1])", "(sys.argv[1], track=False)")
LOOK_AT_FILE: Final = (
    "import mmap, sys; file = open(sys.argv[1], 'rb'); mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).close()"
)


def look_and_leave(program: str, name: str) -> None:
    """Have an unrelated process look and end normally; return when its tracker has ended, too."""
    # The tracker inherits stderr and reports there what it removes: the pipe ends when it does.
    subprocess.run([sys.executable, "-c", program, name], stderr=subprocess.PIPE, check=True)


def survives(program: str) -> bool:
    """Return whether a segment is still there after an unrelated process has looked at it."""
    segment = SharedMemory(create=True, size=WIDTH)
    try:
        look_and_leave(program, segment.name)
        try:
            segment.unlink()
        except FileNotFoundError:
            resource_tracker.unregister(f"/{segment.name.lstrip('/')}", "shared_memory")  # nothing to remove
            return False
        return True
    finally:
        segment.close()


def file_survives() -> bool:
    """The same with a plain file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(WIDTH))
        file.flush()
        look_and_leave(LOOK_AT_FILE, file.name)
        return os.path.exists(file.name)  # noqa: PTH110


def make_and_die(name: str) -> None:
    """Run by a child: create a segment that nobody tracks, and be killed."""
    SharedMemory(name, create=True, size=WIDTH, track=False)  # type: ignore[call-arg, unused-ignore]  # 3.13
    os.kill(os.getpid(), signal.SIGKILL)


def is_left_behind(context: Context) -> bool:
    """Return whether an untracked segment outlives its creator's kill -9. Remove it."""
    name = f"lesson-{os.getpid()}"
    child = context.Process(target=make_and_die, args=(name,))
    child.start()
    child.join()
    try:
        segment = SharedMemory(name)
    except FileNotFoundError:
        return False
    segment.close()
    segment.unlink()
    return True


def tracker(context: Context) -> None:
    """Sharing a SharedMemory with unrelated processes.

    A segment exists until somebody unlinks it. To leave none behind, Python has a resource tracker, a process
    that cleans up after another one has ended. It was meant for the creator, but every process that attaches
    registers the segment with its own tracker, too. When that process ends normally, its tracker unlinks the
    segment (cpython issue 82300). Processes that hold it go on with memory that nobody else will ever find.
    Children started by multiprocessing share their parent's tracker, so a program's own tests do not show it.
    Since 3.13 there is ``track=False``; but then nobody cleans up, and a kill -9 leaves the segment until the
    machine restarts. A plain file in your own folder has neither problem: only you remove it, and you take
    over whatever is there at the next start.
    """
    show(survives, file_survives)
    seen("mistake", "an unrelated process looked and ended, and the segment was gone", not survives(LOOK))
    if sys.version_info >= (3, 13):
        seen("cure", "with track=False it left the segment alone", survives(LOOK_UNTRACKED))
        seen("fact", "but a killed creator left one behind that nobody tracks", is_left_behind(context))
    seen("cure", "a plain file, mapped by an unrelated process that ended, is still there", file_survives())


# -- the story ------------------------------------------------------------------------------------

MISTAKES: Final = {lesson.__name__: lesson for lesson in (count, torn, dead, tracker)}


def attempts() -> Iterator[None]:
    """Repeat for at most a minute."""
    end = time.monotonic() + ENOUGH
    while time.monotonic() < end:
        yield


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", smallest, MISTAKES, starts=True))
