"""A lesson on queues: the smallest program, and four mistakes.

A process is a running program with a memory of its own: no other process can see its variables. To share work, one
process puts jobs into a queue and others take them out. Each job goes to one process, whole, and the oldest goes first.
A multiprocessing.Queue moves Python's objects: put() turns an object into bytes, the bytes go through a pipe (a buffer
in the kernel; read pipe.py first), and get() makes an object of them again.

-------------------------------- the smallest program
from multiprocessing import Process, Queue

def work(jobs, results):  # run by the child
    while (job := jobs.get()) is not None:  # waits for a job
        results.put(job * job)

if __name__ == "__main__":  # not in the child, which may read this file, too
    jobs, results = Queue(), Queue()
    child = Process(target=work, args=(jobs, results))
    child.start()
    for job in (1, 2, 3, None):  # a queue has no end, so None says "no more"
        jobs.put(job)
    print([results.get() for _ in range(3)])
    child.join()  # wait until the child has ended
-------------------------------- what it prints
[1, 4, 9]
--------------------------------

These lines rely on having one worker and on knowing how many results will come. The rest of this lesson does without
either.

  producer                               the kernel               consumers
    put ──▶ [ ...... ] ── feeder thread ──▶ [ ..#### ] ── one lock ──▶ get
         a buffer, no bound               a pipe, 64 KiB       └─────▶ get

How to run it

    python3 scripts/lessons/queue_.py [MISTAKE] [--start METHOD]

MISTAKE is one of sentinel, full, death, join; without it the lesson shows all of them, in this order. METHOD is how
processes are started: spawn, fork or forkserver.

Rules:

1. A sentence is printed only after the lesson has observed it; if it is not true here, the lesson ends.
2. What would hang forever hangs in a child process, which is killed a moment later.
3. No process and no zombie is left.
4. Children start before the first put: it starts a thread, and fork and threads do not mix.

The file is not called queue.py: a program finds the modules beside it first, so multiprocessing would import this file
instead of the standard library's.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness import A_MOMENT, ENOUGH, MEBIBYTE, main, seen, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.queues import Queue

    from harness import Context

JOBS: Final = (1, 2, 3, 4, 5)
LONGEST: Final = 1024  # bytes of a message on a pipe


# -- several consumers ----------------------------------------------------------------------------


def work(number: int, jobs: Queue[int | None], results: Queue[tuple[int, int] | None]) -> None:
    """Run by each consumer: take jobs until the sentinel, then send one back."""
    while (job := jobs.get()) is not None:
        results.put((number, job))
    results.put(None)
    results.close()  # no more from here
    results.join_thread()  # and all of it is in the pipe


def share_out(context: Context, consumers: int) -> tuple[list[list[int]], list[int | None]]:
    """Return the jobs that each consumer did, in its order, and the consumers' exit statuses."""
    jobs: Queue[int | None] = context.Queue()
    results: Queue[tuple[int, int] | None] = context.Queue()
    workers = [context.Process(target=work, args=(number, jobs, results)) for number in range(consumers)]
    for worker in workers:
        worker.start()
    for job in JOBS:
        jobs.put(job)
    for _ in workers:
        jobs.put(None)
    jobs.close()
    done: list[list[int]] = [[] for _ in workers]
    finished = 0
    while finished < consumers:  # until every consumer has sent its sentinel
        match results.get():
            case None:
                finished += 1
            case number, job:
                done[number].append(job)
    for worker in workers:  # only now, with nothing left to be read
        worker.join()
    jobs.join_thread()
    results.close()
    return done, [worker.exitcode for worker in workers]


def smallest(context: Context) -> None:
    """The smallest correct program with several consumers.

    The producer marks the end once for each consumer: one None for each. All results are read before any
    process is joined. close() says that this process puts nothing more, and join_thread() waits until
    everything that was put has been written.
    """
    show(work, share_out)
    done, statuses = share_out(context, 2)
    right = sorted(done[0] + done[1]) == [*JOBS] and all(part == sorted(part) for part in done) and not any(statuses)
    seen("works", f"two consumers did {done[0]} and {done[1]}, each in order, and exited with 0", right)


# -- 1. sentinel ----------------------------------------------------------------------------------


def take_all(jobs: Queue[int | None]) -> None:
    """Run by a consumer."""
    while jobs.get() is not None:
        pass


def consumers_that_end(context: Context, consumers: int, sentinels: int) -> int:
    """Return how many consumers ended after the queue held all jobs and then this many sentinels."""
    jobs: Queue[int | None] = context.Queue()
    workers = [context.Process(target=take_all, args=(jobs,), daemon=True) for _ in range(consumers)]
    for worker in workers:
        worker.start()
    for item in (*JOBS, *[None] * sentinels):
        jobs.put(item)
    running: set[Any] = {worker.sentinel for worker in workers}
    # Consumers with a sentinel get all the time they need; only then do we watch the others.
    while running and (ended := wait(running, ENOUGH if consumers - len(running) < sentinels else A_MOMENT)):
        running.difference_update(ended)
    for worker in workers:
        worker.kill()
        worker.join()
    jobs.close()
    jobs.join_thread()
    return consumers - len(running)


def sentinel(context: Context) -> None:
    """One sentinel for several consumers.

    Each item goes to one consumer, and so does the sentinel: one consumer reads it and leaves, and the others
    wait for something that never comes. Not even the producer's exit ends that: every process with a queue
    holds both ends of its pipe, so each consumer keeps the writing end open for the others and for itself.
    """
    show(consumers_that_end)
    stuck = consumers_that_end(context, consumers=2, sentinels=1) == 1
    seen("mistake", "two consumers, one sentinel: one consumer ended, the other waited and was killed", stuck)
    seen("cure", "two consumers, two sentinels: both ended", consumers_that_end(context, consumers=2, sentinels=2) == 2)


# -- 2. full --------------------------------------------------------------------------------------


def accepted(context: Context, bound: int, offered: int) -> int:
    """Return how many items a queue takes while nobody reads. A bound of 0 means no bound."""
    items: Queue[int] = context.Queue(bound)
    taken = 0
    with suppress(queue.Full):
        for number in range(offered):
            items.put_nowait(number)
            taken += 1
    for _ in range(taken):  # otherwise the feeder thread could not finish, and neither could this process
        items.get()
    items.close()
    items.join_thread()
    return taken


def put_two(items: Queue[int], told: Connection) -> None:
    """Run by a producer."""
    items.put(1)
    told.send_bytes(b"one is in")
    items.put(2)
    told.send_bytes(b"two are in")


def put_waits(context: Context, bound: int) -> tuple[bool, bool]:
    """Return whether the second put waits while nobody reads, and whether it returns after a get."""
    items: Queue[int] = context.Queue(bound)
    told, tell_us = context.Pipe(duplex=False)
    producer = context.Process(target=put_two, args=(items, tell_us))
    producer.start()
    tell_us.close()
    with told:
        told.recv_bytes(LONGEST)
        waits = not told.poll(A_MOMENT)
        items.get()
        returned = told.poll(ENOUGH) and told.recv_bytes(LONGEST) == b"two are in"
        items.get()
        producer.join()
    items.close()
    return waits, returned


def full(context: Context) -> None:
    """A queue without a bound.

    A producer that is faster than its consumers fills the memory: the pipe is small, but what does not fit
    waits in a buffer that grows. Queue(maxsize) bounds both together. Then put() waits until there is room,
    put(timeout=) waits that long, and put_nowait() raises queue.Full at once. Decide which of the three suits
    your producer: waiting slows it down, and after Full it must decide what to do with the item.
    """
    show(accepted)
    seen("mistake", "Queue() took 10000 items while nobody read", accepted(context, 0, 10_000) == 10_000)
    seen("cure", "Queue(2) took 2, and the third put_nowait raised queue.Full", accepted(context, 2, 10_000) == 2)
    waits, returned = put_waits(context, 1)
    seen("cure", "Queue(1): the second put waited, and returned after a get", waits and returned)


# -- 3. death -------------------------------------------------------------------------------------


class Shift(NamedTuple):
    """What happened to the jobs that one consumer was given."""

    answered: list[int]
    left: list[int]  # still in the queue
    status: int | None  # the consumer's exit status; -9: killed by SIGKILL


def answer(jobs: Queue[int | None], answers: Connection, dies_at: int | None) -> None:
    """Run by a consumer: take jobs, and answer each one when it is done."""
    while (job := jobs.get()) is not None:
        if job == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        # Not over a queue: an item that was put may still wait for the feeder thread, and would die with us.
        answers.send_bytes(str(job).encode())


def one_shift(context: Context, given: Sequence[int], dies_at: int | None = None) -> Shift:
    jobs: Queue[int | None] = context.Queue()
    reader, writer = context.Pipe(duplex=False)
    consumer = context.Process(target=answer, args=(jobs, writer, dies_at))
    consumer.start()
    writer.close()
    for job in (*given, None):
        jobs.put(job)
    answered, left = [], []
    with reader, suppress(EOFError):  # a pipe has an end, so it shows the death that a queue hides
        while True:
            answered.append(int(reader.recv_bytes(LONGEST)))
    consumer.join()
    if consumer.exitcode:
        while (job := jobs.get()) is not None:
            left.append(job)
    jobs.close()
    jobs.join_thread()
    return Shift(answered, left, consumer.exitcode)


def two_shifts(context: Context, given: Sequence[int], dies_at: int) -> list[int]:
    """Return the jobs done if a second consumer gets those that the first one did not answer."""
    first = one_shift(context, given, dies_at)
    second = one_shift(context, [job for job in given if job not in first.answered])
    return first.answered + second.answered


def death(context: Context) -> None:
    """A consumer that dies.

    An item that was taken is no longer in the queue. If its consumer is killed, for example by the kernel's
    out-of-memory killer, the item is gone and nothing says so: whoever waits for its result waits forever.
    Notice the death: wait() for the process's sentinel together with the results, or let it answer over its
    own pipe, which ends. Keep each item until its answer has come, and otherwise hand it out again. It may
    then be done twice, so that must be harmless; and count the attempts, since the item may be the killer.
    Worse: a consumer that waits in get() holds the queue's only lock. If it is killed there, all others are
    locked out forever. If consumers may die, give each one its own queue or pipe.
    """
    show(answer, one_shift, two_shifts)
    shift = one_shift(context, JOBS, dies_at=3)
    lost = [job for job in JOBS if job not in shift.answered and job not in shift.left]
    seen("mistake", f"{shift.answered} answered, {shift.left} still queued: {lost} is nowhere", lost == [3])
    seen("notice", f"its pipe ended, and its exit status is {shift.status}", shift.status == -signal.SIGKILL)
    done = two_shifts(context, JOBS, dies_at=3)
    seen("cure", f"what was not answered was handed out again: {done} are done", done == [*JOBS])


# -- 4. join --------------------------------------------------------------------------------------


def put_much(items: Queue[bytes], told: Connection) -> None:
    """Run by a producer."""
    items.put(bytes(MEBIBYTE))
    told.send_bytes(b"put has returned")


def producer_ends(context: Context, patience: float, *, read_first: bool) -> bool:
    """Return whether a producer ends within ``patience`` seconds after its put of 1 MiB has returned."""
    items: Queue[bytes] = context.Queue()
    told, tell_us = context.Pipe(duplex=False)
    producer = context.Process(target=put_much, args=(items, tell_us), daemon=True)
    producer.start()
    tell_us.close()
    with told:
        told.recv_bytes(LONGEST)
    if read_first:
        items.get()
    producer.join(patience)
    ended: bool = producer.exitcode == 0
    producer.kill()
    producer.join()
    items.close()
    return ended


def join(context: Context) -> None:
    """Joining a process before its queue is drained.

    put() returns at once, but the process does not end before its feeder thread has written everything into
    the pipe. The pipe holds 64 KiB. So the child waits for us to read, and we wait in join() for the child.
    It works with little data, and that is how it gets into programs. Read first, until the sentinels of all
    producers have come, and then join. cancel_join_thread() also cures it, by throwing away what was not
    written yet.
    """
    show(put_much, producer_ends)
    stuck = not producer_ends(context, A_MOMENT, read_first=False)
    seen("mistake", "put() of 1 MiB had returned; joined first, the child did not end and was killed", stuck)
    ended = producer_ends(context, ENOUGH, read_first=True)
    seen("cure", "with the queue read first, the child exited with 0", ended)


# -- the story ------------------------------------------------------------------------------------

MISTAKES: Final = {lesson.__name__: lesson for lesson in (sentinel, full, death, join)}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", smallest, MISTAKES, starts=True))
