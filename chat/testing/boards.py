"""B1-B5: a board, with real processes as its writers and readers."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final

from chat.testing.kit import BOARD_CLAUSES, AnyKit, clause, fail, pattern
from chat.transport import MAX_SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from subprocess import Popen

    from chat.transport import Board, BoardMaker, BoardSlot

_ALL: Final = 1 << 16  # slots to claim: a board that has so many has no bound


class BoardKit(AnyKit):
    """One board under test: set its entry point."""

    @property
    def maker(self) -> BoardMaker:
        maker: BoardMaker = resolve_name(self.entry_point)
        return maker

    def board(self) -> AbstractContextManager[Board]:
        """Return a board as a host opens it."""
        return closing(self.maker.create(self.folder))

    @contextmanager
    def hand(self) -> Iterator[Hand]:
        """Start a process that opens the board. It is killed in the end if it still runs."""
        with self.process("board", self.folder) as process:
            yield Hand(process)


@dataclass
class Hand:
    """A process that works on a board by commands, one per line; ``obey`` is its other half."""

    process: Popen[str]

    def tell(self, *words: object) -> None:
        print(*words, file=self.process.stdin)

    def hear(self) -> list[int]:
        """Return the numbers of its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            fail(f"a process that was told to use the board ended with exit code {self.process.wait()}")
        return [int(word) for word in line.split()]

    def claim(self, most: int = _ALL) -> list[int]:
        """Have it claim this many slots, or all free ones; return their indices."""
        self.tell("claim", most)
        return self.hear()

    def write(self, payload: bytes) -> None:
        """Have it write to the slot that it claimed last."""
        self.tell("write", payload.hex())
        self.hear()

    def stop(self) -> None:
        """Stop it, like Ctrl-Z, but without asking it."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def leave(self, way: str) -> None:
        """Have it end: "close" closes the board, "return" ends normally, "exit" skips all clean-up, "kill" kills it."""
        if way == "kill":
            self.process.kill()
        else:
            self.tell(way)
        self.process.wait()


def obey(entry_point: str, folder: str) -> None:
    """What a Hand's process does: one line in, one line out."""
    board: Board = resolve_name(entry_point).open(Path(folder))
    slots: list[BoardSlot] = []
    for line in sys.stdin:
        answer: list[int] = []
        match line.split():
            case "claim", most:
                answer = _claim(board, slots, int(most))
            case "write", *payload:
                slots[-1].write(bytes.fromhex("".join(payload)))
            case "scribble", first, end:
                for number in range(int(first), int(end)):
                    slots[-1].write(scribble(number))
            case "watch", *last:
                answer = watch(board, set(map(int, last)))
            case ["close"]:
                board.close()
                return
            case ["exit"]:
                os._exit(0)
            case _:
                return
        print(*answer, flush=True)  # noqa: T201  to the one who told us


def _claim(board: Board, slots: list[BoardSlot], most: int = _ALL) -> list[int]:
    before = len(slots)
    while len(slots) - before < most and (slot := board.claim()) is not None:
        slots.append(slot)
    if len(slots) - before == _ALL:
        fail(f"{_ALL} slots were claimed, and there may be more: the board has no bound")
    return [slot.index for slot in slots[before:]]


def scribble(number: int) -> bytes:
    """Return a payload that shows whether it is whole: an 8-byte word repeated, with a length given by the number."""
    return (number.to_bytes(8, "big") * (MAX_SLOT // 8 + 1))[: 8 + number * 37 % (MAX_SLOT - 7)]


def watch(board: Board, last: set[int]) -> list[int]:
    """Look at scribbles until every slot has shown one of the ``last``; return how often, and how many were torn.

    Those are counted that are no scribble, and those older than one that the slot has shown before.
    """
    shown: dict[int, int] = {}
    looks = torn = 0
    while last - set(shown.values()):
        looks += 1
        for index, payload, _age in board.read():
            number = int.from_bytes(payload[:8], "big")
            if payload != scribble(number) or number < shown.get(index, 0):
                torn += 1
            else:
                shown[index] = number
    return [looks, torn]


def _shows(board: Board, expected: Mapping[int, bytes]) -> None:
    """Compare, checking every writer with the kernel."""
    found = {index: payload for index, payload, _age in board.read(trust_ms=0)}
    if found != expected:
        wrong = {index for index in found.keys() | expected if found.get(index) != expected.get(index)}
        index = min(wrong)
        fail(
            f"{len(wrong)} slots do not show what they should; "
            f"slot {index} shows {found.get(index)!r} and should show {expected.get(index)!r}"
        )


@clause("B1", BOARD_CLAUSES)
async def last_write_wins(kit: BoardKit) -> None:
    """Readers see the last value written to a slot, whole, however many writes nobody has read."""
    with kit.board() as board, kit.hand() as ann, kit.hand() as bob:
        (other,) = bob.claim(1)
        bob.write(b"bob")
        (index,) = ann.claim(1)
        _shows(board, {other: b"bob"})  # and nothing for a slot that was only claimed
        for size in (1, 0, MAX_SLOT, 2, MAX_SLOT - 1, 100):
            for number in range(3):
                ann.write(pattern(4 * number, size))
            _shows(board, {other: b"bob", index: pattern(8, size)} if size else {other: b"bob"})
        ours = board.claim()
        if ours is None:
            fail("there are no more than two slots")
        data = bytearray(b"ours")
        ours.write(data)
        data[:] = b"lost"
        ours.beat()
        _shows(board, {other: b"bob", index: pattern(8, 100), ours.index: b"ours"})
        try:
            ours.write(bytes(MAX_SLOT + 1))
        except ValueError:
            _shows(board, {other: b"bob", index: pattern(8, 100), ours.index: b"ours"})
        else:
            fail(f"a slot took {MAX_SLOT + 1} bytes")


async def never_torn(kit: BoardKit, writers: int = 2, readers: int = 2, writes: int = 10_000) -> None:
    """Nobody sees a torn slot, or an older value after a newer one, however fast others write."""
    with kit.board() as board, ExitStack() as stack:
        hands = [stack.enter_context(kit.hand()) for _ in range(writers)]
        watching = [stack.enter_context(kit.hand()) for _ in range(readers)]
        first = [writes * place + 1 for place in range(writers)]
        last = {start + writes - 1 for start in first}
        for hand in hands:
            hand.claim(1)
        for hand in watching:
            hand.tell("watch", *last)
        for hand, start in zip(hands, first, strict=True):
            hand.tell("scribble", start, start + writes)
        seen = [watch(board, last), *(hand.hear() for hand in watching)]
        if torn := sum(torn for _looks, torn in seen):
            fail(f"{torn} slots were torn, or went back, in {sum(looks for looks, _torn in seen)} looks")


clause("B2", BOARD_CLAUSES)(never_torn)


@clause("B3", BOARD_CLAUSES)
async def one_writer_a_cell(kit: BoardKit) -> None:
    """Two writers never share a slot, in one process or in several; a claim returns None if no slot is free."""
    with kit.board() as board, closing(kit.maker.open(kit.folder)) as second, ExitStack() as stack:
        ours = [slot for _ in range(10) for slot in (board.claim(), second.claim()) if slot is not None]
        hands = [stack.enter_context(kit.hand()) for _ in range(3)]
        for hand in hands:
            hand.tell("claim", _ALL)
        claimed = [slot.index for slot in ours]
        for hand in hands:
            claimed += hand.hear()
        if shared := len(claimed) - len(set(claimed)):
            fail(f"{len(claimed)} slots were claimed, and {shared} of them by two writers")
        for here in (board, second):
            if (slot := here.claim()) is not None:
                fail(f"all {len(claimed)} slots are taken, and slot {slot.index} was claimed once more")
        ours[0].close()
        ours[0].close()
        again = [index for hand in hands for index in hand.claim()]
        if again != [ours[0].index]:
            fail(f"slot {ours[0].index} was let go, and then {again} could be claimed")


@clause("B4", BOARD_CLAUSES)
async def dead_writers_leave_room(kit: BoardKit) -> None:
    """A dead writer's slots are free at once and show nothing; a stopped writer keeps its slots."""
    for way in ("kill", "exit", "return", "close"):
        with kit.board() as board, kit.hand() as bob, kit.hand() as ann:
            (kept,) = bob.claim(1)
            bob.write(b"bob")
            bob.stop()
            taken = set(ann.claim())
            ann.write(b"ann")
            if board.claim() is not None:
                fail("a process claimed all that it could, and there was more")
            ann.leave(way)
            _shows(board, {kept: b"bob"})
            free = set(_claim(board, []))
            if free != taken:
                fail(f"{len(taken)} slots were left by a process ({way}), and {len(free)} could be claimed")
            with closing(kit.maker.open(kit.folder)) as late:  # a claim must not bring back what the dead had shown
                _shows(late, {kept: b"bob"})


@clause("B5", BOARD_CLAUSES)
async def readers_destroy_nothing(kit: BoardKit) -> None:
    """A reader that leaves, however it does, removes nothing: not the board, not a slot, not a claim."""
    with kit.board() as board, kit.hand() as ann, kit.hand() as bob:
        ours = board.claim()
        if ours is None:
            fail("an empty board has no slot")
        (hers,) = ann.claim(1)
        ours.write(b"ours")
        ann.write(b"ann")
        files = set(kit.folder.iterdir())
        for way in ("close", "return", "exit", "kill"):
            with kit.hand() as reader:
                reader.claim(0)  # it is there by now
                kit.maker.open(kit.folder).close()
                reader.leave(way)
            if set(kit.folder.iterdir()) != files or not board.sound():
                fail(f"a reader that left ({way}) took the board with it")
            with closing(kit.maker.open(kit.folder)) as late:
                for each in (board, late):
                    _shows(each, {ours.index: b"ours", hers: b"ann"})
        stolen = {ours.index, hers} & set(bob.claim())
        if stolen:
            fail(f"with the readers went the claim on {len(stolen)} slots of writers who are there")
        ours.write(b"ours still")
        ann.write(b"ann still")
        _shows(board, {ours.index: b"ours still", hers: b"ann still"})
