"""shm: a board that all processes of one machine look at.

What it is: a file of 257 KiB in the room's runtime folder, which lies in memory (the page cache), so that a
write by one process is what the next ``pread`` of another returns. Beside the bytes the kernel keeps a list
of locks on ranges of them (fcntl(2)), and drops a process's locks when it dies, however it dies.

When to choose it: for what is true *now* and worth nothing a moment later: who is here, who types, how far
each has read. The last value wins, nothing queues, nobody is woken, and a thousand who look cost the writer
nothing. What must arrive is a link's business; this is a board, not a link.

     byte 0     256        512        768               byte 262 400
       | header | slot 0   | slot 1   | ...   | slot 1023 |
                 ann ───▲    bob ───▲                             each writes her own slot and no other,
                 ╰ lock ╯    ╰ lock ╯                             which a lock of the kernel sees to;
       ◀───────────── one pread, by anybody ──────────────▶       all look, and change nothing

       0         8         16       18                     252    256
       | version | beat    | length | payload, 0 to 234    | CRC  |     a slot; all numbers big-endian
         u64       u64 ms    u16                             u32

Four facts:
  capacity          1 024 slots of 234 bytes; a write replaces what was there
  borders           the slot: it is read whole as it was written, or not at all
  how death shows   the kernel drops the lock at once, so the slot can be claimed at once; those who look ask
                    for the lock once a heartbeat is 5 s old. A stopped process (SIGSTOP) keeps its lock, and
                    only its heartbeat shows it
  what wakes you    nothing: look as often as you like to know

The heartbeat is in milliseconds of CLOCK_MONOTONIC, which is one clock for all processes of a machine. The
clock begins anew when the machine starts, so the header names the start (boot_id) under which it was made.

A read is torn when it falls into the middle of a write. No order of memory accesses is trusted to prevent
that, nor could Python ask for one. It is *detected*: the CRC at a slot's end covers all before it, the version
too, which no two writes have in common. Who meets a torn slot looks again, and then shows what it had before.

Why not multiprocessing.shared_memory: until Python 3.13 each process that only looks hands the segment to its
own resource tracker, which removes it under everybody's hands when that process ends (cpython issue 82300).
With ``track=False`` (3.13) nobody removes it after a kill -9. And it has no locks that die with their owner.
``scripts/lessons/shared_memory.py`` shows it.

Traps:
  EAGAIN, EACCES    Somebody holds the lock: which of the two is said depends on the system. Not an error.
  EBADF             A write lock needs a descriptor that may write. Asking who holds one does not.
  EINVAL            ``l_pid`` was not 0 in a call about open file description locks; or the system does not know
                    them, and then POSIX locks have to do.
  ENOLCK            The kernel has no memory for one more lock, or the folder lies on NFS without a lock daemon.
  ENOSPC            A file made by ftruncate alone has holes; a full disk shows at some later write, and kills
                    (SIGBUS) who uses mmap. So every byte is written at the start, where an error is one line.
                    (posix_fallocate does as much in one call, and macOS does not have it.)
  SIGBUS            Whoever has mapped a file that then is cut short dies at the next access. So the file is never
                    truncated, a new one is moved into its place instead; and we use pread, which returns less.
  ENOENT            Cleaners of /tmp remove files that are in use. Those who had it open see a board that nobody
                    else sees, and no call fails: hence ``sound``.
  POSIX locks       belong to the process, and *all* drop when it closes *any* descriptor of that file. So each
                    process has one descriptor for each board, whatever it opens. Open file description locks
                    (F_OFD_SETLK: Linux 3.15, newer macOS) belong to the descriptor and have no such trap. The
                    two kinds see each other. Neither sees a second writer of its own kind in the same process (on
                    the same descriptor): hence ``held``.
  fork              A child has the same open file description, thus the same locks: it would keep the slots of a
                    killed parent alive, and could claim them all. So a forked child closes it first of all.
  struct flock      has its fields in another order on macOS, and padding: packed as ``@`` (native) says.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import time
import zlib
from contextlib import suppress
from functools import cache
from itertools import compress
from operator import ne
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.transport import MAX_SLOT, TRUST_MS, ChatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.transport import Buffer, Reading

NAME: Final = "board"  # of the file, in the room's runtime folder
CELLS: Final = 1024
CELL_SIZE: Final = 256  # bytes; slots do not cross the border of a page
SIZE: Final = CELL_SIZE * (1 + CELLS)  # bytes of the file: the header takes the place of a slot
TRIES: Final = 3  # looks at a torn slot before it shows what it showed before

_HEADER: Final = struct.Struct("!8sHHI16sI")  # magic, layout, bytes of a slot, slots, which start, CRC of these
_MAGIC: Final = b"mwboard\n"
_LAYOUT: Final = 1
_CELL: Final = struct.Struct(f"!QQH{MAX_SLOT}sI")  # version, beat, length, payload, CRC of these
_FRAME: Final = struct.Struct(f"!8xQH{MAX_SLOT}xI")  # of a slot, what tells whether to believe it: beat, length, CRC
_PAYLOAD_AT: Final = 18
_HEADS: Final = struct.Struct("16s240x")  # version and beat: two writes of one slot never have both in common
_CRC_SIZE: Final = 4
_CRC_AT: Final = CELL_SIZE - _CRC_SIZE
_MAX_VERSION: Final = 2**64 - 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

assert _CELL.size == _FRAME.size == _HEADS.size == CELL_SIZE

_Identity: TypeAlias = tuple[int, int]  # device and inode: what a file is, whatever its name


def _now() -> int:
    """Milliseconds. Not ``time.monotonic``, which need not be the same clock in all of Python's versions."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


@cache  # to ask once more is to need a descriptor once more, and a process may have none left
def _header() -> bytes:
    """The header as it must be, from the start of this machine to its end. Raises OSError without a free descriptor.

    Where a start has no name (macOS) it is zeros, and no harm: heartbeats of another start are in the future,
    or old, and then the kernel is asked, which knows nobody of that time.
    """
    try:
        start = bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # zeros would make every good board look like one of another start
        start = b""
    fields = _HEADER.pack(_MAGIC, _LAYOUT, CELL_SIZE, CELLS, start, 0)[:-_CRC_SIZE]
    return fields + zlib.crc32(fields).to_bytes(_CRC_SIZE, "big")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# -- locks ----------------------------------------------------------------------------------------


class _Calls(NamedTuple):
    """The two calls of one kind of lock: numbers for fcntl(2)."""

    take: int
    ask: int


_POSIX: Final = _Calls(fcntl.F_SETLK, fcntl.F_GETLK)
_OFD: Final = _Calls(getattr(fcntl, "F_OFD_SETLK", _POSIX.take), getattr(fcntl, "F_OFD_GETLK", _POSIX.ask))

if sys.platform == "darwin":
    _FLOCK: Final = struct.Struct("@qqihh")

    def _flock(kind: int, index: int) -> bytes:
        return _FLOCK.pack(_offset(index), CELL_SIZE, 0, kind, os.SEEK_SET)

    def _kind(flock: bytes) -> int:
        return int(_FLOCK.unpack(flock)[3])
else:
    _FLOCK: Final = struct.Struct("@hhqqi0q")  # 0q: padding at the end, as C has it

    def _flock(kind: int, index: int) -> bytes:
        return _FLOCK.pack(kind, os.SEEK_SET, _offset(index), CELL_SIZE, 0)

    def _kind(flock: bytes) -> int:
        return int(_FLOCK.unpack(flock)[0])


def _offset(index: int) -> int:
    return CELL_SIZE * (1 + index)


# -- the file -------------------------------------------------------------------------------------


class _File:
    """The one descriptor that this process has for a board, and the slots that it holds there."""

    def __init__(self, path: Path, fd: int, calls: _Calls) -> None:
        self.path: Final = path
        self.fd = fd  # -1: closed
        self.identity: Final = _identity(os.fstat(fd))
        self.held: Final[set[int]] = set()
        self.users = 0
        self.spares: Final[list[int]] = []
        self._calls = calls
        try:
            self.is_held_by_others(0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._calls = _POSIX  # this kernel does not know the better kind

    def must_be_open(self) -> int:
        if self.fd < 0:
            raise ChatError(f"the board {self.path} was closed in this process, or before it was forked; open it again")
        return self.fd

    def fault(self) -> str:
        """What is wrong with it, as the end of a sentence; "" when it is sound."""
        facts = os.fstat(self.fd)
        if not stat.S_ISREG(facts.st_mode):
            return "is not a plain file"
        if facts.st_uid != os.geteuid():
            return f"belongs to user {facts.st_uid}, and you are user {os.geteuid()}"
        if facts.st_mode & 0o077:
            return f"is open to other users (mode {stat.S_IMODE(facts.st_mode):04o})"
        if facts.st_size != SIZE:
            return f"has {facts.st_size} bytes, not {SIZE}"
        if os.pread(self.fd, _HEADER.size, 0) != _header():
            return "is damaged, or was made by another version or before this machine was started"
        return ""

    def take(self, index: int) -> bool:
        """Take a slot's lock, or return False when somebody else has it. Raises OSError."""
        if index in self.held:
            return False
        try:
            fcntl.fcntl(self.fd, self._calls.take, _flock(fcntl.F_WRLCK, index))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        self.held.add(index)
        return True

    def let_go(self, index: int) -> None:
        self.held.discard(index)
        with suppress(OSError):
            fcntl.fcntl(self.fd, self._calls.take, _flock(fcntl.F_UNLCK, index))

    def is_held_by_others(self, index: int) -> bool:
        """Ask the kernel; the locks of this process do not count. Raises OSError."""
        return _kind(fcntl.fcntl(self.fd, self._calls.ask, _flock(fcntl.F_WRLCK, index))) != fcntl.F_UNLCK

    def close(self) -> None:
        """Close what is left of it. What it held is free then."""
        for fd in (self.fd, *self.spares):
            if fd >= 0:
                os.close(fd)
        self.fd = -1
        self.spares.clear()


_files: Final[dict[_Identity, _File]] = {}


def _identity(facts: os.stat_result) -> _Identity:
    return facts.st_dev, facts.st_ino


def _open(path: Path, calls: _Calls) -> _File:
    """Return what this process has open of this file, or open it. Raises OSError."""
    known = _files.get(_identity(path.lstat()))  # before opening: to close a second descriptor would drop all locks
    if known is not None:
        return known
    # O_NONBLOCK: opening a FIFO that somebody put there would wait for its other end.
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    known = _files.get(_identity(os.fstat(fd)))
    if known is not None:  # it was moved here after lstat had looked
        known.spares.append(fd)
        return known
    try:
        file = _File(path, fd, calls)
    except BaseException:
        os.close(fd)
        raise
    _files[file.identity] = file
    return file


def _release(file: _File) -> None:
    """Close a file that no board uses any more."""
    if not file.users:
        _files.pop(file.identity, None)
        file.close()


def _leave_it_to_the_parent() -> None:
    for file in _files.values():
        file.held.clear()
        file.close()
    _files.clear()


os.register_at_fork(after_in_child=_leave_it_to_the_parent)


# -- slots and boards -----------------------------------------------------------------------------


class ShmCell:
    """A slot whose lock this process holds."""

    def __init__(self, file: _File, index: int, version: int) -> None:
        self.index: Final = index
        self._file = file
        self._version = version
        self._payload = b""
        self._closed = False

    def write(self, payload: Buffer) -> None:
        if len(payload) > MAX_SLOT:
            raise ValueError(f"a slot holds at most {MAX_SLOT} bytes, not {len(payload)}")
        self._payload = bytes(payload)
        self.beat()

    def beat(self) -> None:
        fd = self._file.must_be_open()
        if self._closed:
            raise ChatError(f"slot {self.index} of the board {self._file.path} was closed here")
        self._version = self._version % _MAX_VERSION + 1  # whatever stood there before, also at the very end
        record = _CELL.pack(self._version, _now(), len(self._payload), self._payload, 0)[:-_CRC_SIZE]
        try:
            self._put(fd, record + zlib.crc32(record).to_bytes(_CRC_SIZE, "big"))
        except OSError as error:
            raise ChatError(f"cannot write to the board {self._file.path}: {_reason(error)}") from None

    def _put(self, fd: int, record: bytes) -> None:
        os.pwrite(fd, record, _offset(self.index))

    def close(self) -> None:
        if self._closed or self._file.fd < 0:
            return
        with suppress(ChatError):
            self.write(b"")  # or it would be shown until its heartbeat is 5 s old
        self._closed = True
        self._file.let_go(self.index)


class ShmBoard:
    """A board as one looks at it. Several in one process share its descriptor, and never a slot."""

    slot: type[ShmCell] = ShmCell

    def __init__(self, file: _File) -> None:
        self._file = file
        file.users += 1
        self._claimed: list[ShmCell] = []
        self._next = os.getpid() % CELLS  # where to look first: those who come at once do not all begin at 0
        self._data = b""  # what was read last
        self._heads = [bytes(16)] * CELLS  # of each slot's last copy that was good
        self._known: dict[int, tuple[int, bytes]] = {}  # beat and payload of that copy, where it shows anything
        self._closed = False

    def _must_be_open(self) -> int:
        if self._closed:
            raise ChatError(f"the board {self._file.path} was closed here")
        return self._file.must_be_open()

    def claim(self) -> ShmCell | None:
        fd = self._must_be_open()
        try:
            for step in range(CELLS):
                index = (self._next + step) % CELLS
                if self._file.take(index):
                    break
            else:
                return None
            before = os.pread(fd, CELL_SIZE, _offset(index))
        except OSError as error:
            raise ChatError(f"cannot claim a slot of the board {self._file.path}: {_reason(error)}") from None
        # Even if it is damaged: whoever has seen this version must see another one from now on.
        slot = self.slot(self._file, index, int.from_bytes(before[:8], "big"))
        try:
            slot.write(b"")  # what a dead writer left must not come to life again under our lock
        except BaseException:
            self._file.let_go(index)
            raise
        self._next = index + 1
        self._claimed = [claimed for claimed in self._claimed if not claimed._closed]
        self._claimed.append(slot)
        return slot

    def read(self, trust_ms: int = TRUST_MS) -> list[Reading]:
        fd = self._must_be_open()
        try:
            self._look(fd)
            return self._alive(trust_ms)
        except OSError as error:
            raise ChatError(f"cannot read the board {self._file.path}: {_reason(error)}") from None

    def _look(self, fd: int) -> None:
        """Take in the slots that were written since the last look."""
        for _ in range(TRIES):
            data = os.pread(fd, SIZE, 0)
            if len(data) != SIZE:  # somebody cut it short
                return
            if data == self._data:
                return
            heads = [head for (head,) in _HEADS.iter_unpack(memoryview(data)[CELL_SIZE:])]
            changed = [*compress(range(CELLS), map(ne, heads, self._heads))]
            good = self._decode(data, changed)
            for index in good:
                self._heads[index] = heads[index]
            self._known.update(good)
            for index in [index for index, (_beat, payload) in good.items() if not payload]:
                del self._known[index]
            self._data = data
            if len(good) == len(changed):
                return

    @staticmethod
    def _decode(data: bytes, indices: Iterable[int]) -> dict[int, tuple[int, bytes]]:
        """Return the beat and the payload of these slots, but for those that are torn or damaged."""
        good, unpack, crc32 = {}, _FRAME.unpack_from, zlib.crc32
        for index in indices:
            at = CELL_SIZE + CELL_SIZE * index
            beat, length, crc = unpack(data, at)
            if crc32(data[at : at + _CRC_AT]) == crc and length <= MAX_SLOT:
                good[index] = beat, data[at + _PAYLOAD_AT : at + _PAYLOAD_AT + length]
        return good

    def _alive(self, trust_ms: int) -> list[Reading]:
        now, file = _now(), self._file
        doubted = now - trust_ms  # a beat so old, or one in the future, is a question to the kernel
        for index in [index for index, (beat, _payload) in self._known.items() if not doubted < beat <= now]:
            if not (index in file.held or file.is_held_by_others(index)):
                # Dead, and dead for good: whoever claims the slot writes first of all, and then its head is another.
                del self._known[index]
        return [(index, payload, now - beat if beat < now else 0) for index, (beat, payload) in self._known.items()]

    def sound(self) -> bool:
        self._must_be_open()
        try:
            return _identity(self._file.path.lstat()) == self._file.identity and not self._file.fault()
        except OSError:
            return False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for slot in self._claimed:
            slot.close()
        self._file.users -= 1
        _release(self._file)


class Shm:
    """Makes and opens boards. ``calls`` is for tests: how it goes on where only POSIX locks are to be had."""

    summary = "a file in memory, read and written by every process of this machine"
    board: type[ShmBoard] = ShmBoard

    def __init__(self, calls: _Calls = _OFD) -> None:
        self._calls = calls

    def create(self, folder: Path) -> ShmBoard:
        try:
            return self.open(folder)
        except ChatError:  # missing, damaged, of another start: what is there is left to those who have it open
            self._put_new(folder / NAME)
        return self.open(folder)

    @staticmethod
    def _put_new(path: Path) -> None:
        """Put a new board, whole, in the place of whatever is there."""
        new = path.with_name(NAME + ".new")
        try:
            new.unlink(missing_ok=True)  # left by one that was killed
            with open(new, "xb", opener=_private) as file:
                file.write(_header().ljust(SIZE, b"\0"))
            new.replace(path)
        except OSError as error:
            raise ChatError(f"cannot make the board {path}: {_reason(error)}") from None

    def open(self, folder: Path) -> ShmBoard:
        path = folder / NAME
        try:
            _header()
            file = _open(path, self._calls)
        except FileNotFoundError:
            raise ChatError(f"there is no board in {folder}; a host makes it") from None
        except OSError as error:
            raise ChatError(f"cannot open the board {path}: {_reason(error)}") from None
        fault = file.fault()
        if fault:
            _release(file)
            raise ChatError(f"the board {path} {fault}; its host makes a new one")
        return self.board(file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


board: Final = Shm()


def _demo() -> None:
    """Ann makes a board, Bob, another process, shows something on it; Ann looks, and then Bob is killed."""
    import signal
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        anns = board.create(Path(folder))
        ours, theirs = os.pipe()
        bob = os.fork()
        if not bob:
            slot = board.open(Path(folder)).claim()
            assert slot is not None
            slot.write(b"bob: hello")
            os.write(theirs, b".")
            signal.pause()  # until he is killed
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        print(f"ann made a board of {CELLS} slots; bob, process {bob}, wrote into one of them")
        for index, payload, age in anns.read():
            print(f"ann looks: slot {index} shows {payload.decode()!r}, {age} ms after bob's last beat")
        os.kill(bob, signal.SIGKILL)
        os.waitpid(bob, 0)
        print(f"bob is killed; his last beat is young, so he is still shown: {[text for _, text, _ in anns.read()]}")
        print(f"ann asks the kernel who holds a lock, as she does after {TRUST_MS} ms: {anns.read(trust_ms=0)}")
        slot = anns.claim()
        assert slot is not None
        slot.write(b"ann: hello?")
        slot.write(b"ann: anybody here?")
        print(f"ann writes twice, and the last value wins: {[text for _, text, _ in anns.read()]}")
        anns.close()


if __name__ == "__main__":
    _demo()
