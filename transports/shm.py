"""shm: a board that all processes on one machine read.

What it is: a file of 257 KiB in the room's runtime folder, which is in memory (the page cache). What one process
writes, the next ``pread`` of another returns. The kernel also keeps a list of locks on byte ranges of the file
(fcntl(2)), and drops a process's locks when it dies, however it dies.

When to choose it: for what is true *now* and worthless a moment later: who is here, who is typing, how far each has
read. The last value wins, nothing queues, and readers cost the writer nothing. If something must arrive, use a link.

     byte 0     256        512        768               byte 262 400
       | header | slot 0   | slot 1   | ...   | slot 1023 |
                 ann ───▲    bob ───▲                             each writes only its own slot;
                 ╰ lock ╯    ╰ lock ╯                             a kernel lock ensures that
       ◀───────────── one pread, by anybody ──────────────▶       all read, and change nothing

       0         8         16       18                     252    256
       | version | beat    | length | payload, 0 to 234    | CRC  |     a slot; all numbers big-endian
         u64       u64 ms    u16                             u32

Four facts:
  capacity          1 024 slots of 234 bytes; a write replaces the previous content
  borders           the slot: a reader gets all of one write, or nothing
  how death shows   the kernel drops the lock, so the slot can be claimed at once. Readers check the lock once a
                    heartbeat is 5 s old. A stopped process (SIGSTOP) keeps its lock; only its heartbeat shows it
  what wakes you    nothing: poll as often as you need

The heartbeat is in milliseconds of CLOCK_MONOTONIC, one clock for all processes of a machine. It starts over when the
machine starts, so the header names the boot (boot_id) under which the board was made.

A read that falls into the middle of a write is torn. We do not rely on memory ordering to prevent that, and Python
could not ask for it. We *detect* it: the CRC at a slot's end covers everything before it, including the version, which
no two writes share. A reader that meets a torn slot reads again, and then falls back on what it had.

Why not multiprocessing.shared_memory: until Python 3.13 each process that attaches hands the segment to its own
resource tracker, which removes it for everybody when that process ends (cpython issue 82300). With ``track=False``
(3.13) nobody removes it after a kill -9. And it has no locks that die with their owner. ``scripts/lessons`` shows it.

Traps:
  EAGAIN, EACCES    Somebody holds the lock; the system decides which of the two it reports. Not an error.
  EBADF             Taking a write lock needs a writable descriptor. Checking a lock does not.
  EINVAL            ``l_pid`` was not 0 in a call about open file description locks, or the system has only POSIX locks.
  ENOLCK            The kernel has no memory for another lock, or the folder is on NFS without a lock daemon.
  ENOSPC            A file made by ftruncate alone has holes. A full disk shows at some later write, and kills (SIGBUS)
                    whoever uses mmap. So every byte is written at the start, where an error is one line.
                    (posix_fallocate does the same in one call, but macOS does not have it.)
  SIGBUS            A process that has mapped a file dies at the next access after the file is truncated. So the file is
                    never truncated; a new file replaces it. And we use pread, which just returns less.
  ENOENT            Cleaners of /tmp remove files in use. Whoever had the file open sees a board that nobody else sees,
                    and no call fails: hence ``sound``.
  POSIX locks       belong to the process, and *all* drop when it closes *any* descriptor of the file. So each process
                    has one descriptor per board. Open file description locks (F_OFD_SETLK: Linux 3.15, newer macOS)
                    belong to the descriptor and have no such trap. The two kinds see each other. Neither sees a second
                    writer of its own kind in the same process (on the same descriptor): hence ``held``.
  fork              A child shares the open file description, and so the locks. It would keep the slots of a killed
                    parent alive, and could claim them all. So a forked child closes it first.
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
from typing import TYPE_CHECKING, Final, TypeAlias

from chat.transport import MAX_SLOT, TRUST_MS, ChatError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.transport import Buffer, Reading

NAME: Final = "board"  # of the file, in the room's runtime folder
SLOTS: Final = 1024  # windows that can show a status; beyond, nobody sees one's: ``board-full``
SLOT_SIZE: Final = 256  # bytes; no slot crosses a page border
SIZE: Final = SLOT_SIZE * (1 + SLOTS)  # bytes of the file: the header is as large as a slot
TRIES: Final = 3  # reads of a torn slot before we use its previous value

_HEADER: Final = struct.Struct("!8sHHI16sI")  # magic, layout, bytes per slot, slots, boot, CRC of these
_MAGIC: Final = b"mwboard\n"
_LAYOUT: Final = 1
_SLOT: Final = struct.Struct(f"!QQH{MAX_SLOT}sI")  # version, beat, length, payload, CRC of these
_FRAME: Final = struct.Struct(f"!8xQH{MAX_SLOT}xI")  # what a check of a slot needs: beat, length, CRC
_PAYLOAD_AT: Final = 18
_HEADS: Final = struct.Struct("16s240x")  # version and beat: no two writes of a slot share both
_CRC_SIZE: Final = 4
_CRC_AT: Final = SLOT_SIZE - _CRC_SIZE
_MAX_VERSION: Final = 2**64 - 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

assert _SLOT.size == _FRAME.size == _HEADS.size == SLOT_SIZE

_Identity: TypeAlias = tuple[int, int]  # device and inode: a file's identity, whatever its name


def _now() -> int:
    """Return milliseconds. ``time.monotonic`` may be another clock in another version of Python."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


@cache  # reading it again needs a descriptor, and the process may have none left
def _header() -> bytes:
    """Return the header that a board must have until the machine restarts. Raises OSError without a free descriptor.

    Without a boot_id (macOS) it is zeros. That is harmless: heartbeats from before a restart are in the future or old,
    so the kernel is asked, and it knows no lock from that time.
    """
    try:
        start = bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # with zeros, every good board would look like one from another boot
        start = b""
    fields = _HEADER.pack(_MAGIC, _LAYOUT, SLOT_SIZE, SLOTS, start, 0)[:-_CRC_SIZE]
    return fields + zlib.crc32(fields).to_bytes(_CRC_SIZE, "big")


# -- locks ----------------------------------------------------------------------------------------


_Calls: TypeAlias = tuple[int, int]  # of fcntl(2), for one kind of lock: to take one, to ask who holds it

_POSIX: Final = (fcntl.F_SETLK, fcntl.F_GETLK)
_OFD: Final = (getattr(fcntl, "F_OFD_SETLK", _POSIX[0]), getattr(fcntl, "F_OFD_GETLK", _POSIX[1]))
_MACOS: Final = sys.platform == "darwin"
_FLOCK: Final = struct.Struct("@qqihh" if _MACOS else "@hhqqi0q")  # 0q: padding at the end, as C has it


def _flock(kind: int, index: int) -> bytes:
    where = (_offset(index), SLOT_SIZE, 0)  # l_start, l_len, l_pid
    return _FLOCK.pack(*where, kind, os.SEEK_SET) if _MACOS else _FLOCK.pack(kind, os.SEEK_SET, *where)


def _kind(flock: bytes) -> int:
    return int(_FLOCK.unpack(flock)[3 if _MACOS else 0])


def _offset(index: int) -> int:
    return SLOT_SIZE * (1 + index)


# -- the file -------------------------------------------------------------------------------------


class _File:
    """This process's only descriptor for a board, and the slots that it holds there."""

    def __init__(self, path: Path, fd: int, calls: _Calls) -> None:
        self.path: Final = path
        self.fd = fd  # -1: closed
        self.identity: Final = _identity(os.fstat(fd))
        self.held: Final[set[int]] = set()
        self.users = 0
        self.spares: Final[list[int]] = []
        self._take_call, self._ask_call = calls
        try:
            self.is_held_by_others(0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._take_call, self._ask_call = _POSIX  # this kernel lacks the better kind

    def must_be_open(self) -> int:
        if self.fd < 0:
            raise ChatError(f"the board {self.path} was closed in this process, or before it was forked; open it again")
        return self.fd

    def fault(self) -> str:
        """Return what is wrong with it, as the end of a sentence; "" if it is sound."""
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
        """Take a slot's lock; return False if somebody else holds it. Raises OSError."""
        if index in self.held:
            return False
        try:
            fcntl.fcntl(self.fd, self._take_call, _flock(fcntl.F_WRLCK, index))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        self.held.add(index)
        return True

    def release(self, index: int) -> None:
        self.held.discard(index)
        with suppress(OSError):
            fcntl.fcntl(self.fd, self._take_call, _flock(fcntl.F_UNLCK, index))

    def is_held_by_others(self, index: int) -> bool:
        """Ask the kernel; this process's own locks do not count. Raises OSError."""
        return _kind(fcntl.fcntl(self.fd, self._ask_call, _flock(fcntl.F_WRLCK, index))) != fcntl.F_UNLCK

    def close(self) -> None:
        """Close what is left of it, which releases its locks."""
        for fd in (self.fd, *self.spares):
            if fd >= 0:
                os.close(fd)
        self.fd = -1
        self.spares.clear()


_files: Final[dict[_Identity, _File]] = {}


def _identity(facts: os.stat_result) -> _Identity:
    return facts.st_dev, facts.st_ino


def _open(path: Path, calls: _Calls) -> _File:
    """Return this process's open file, or open it. Raises OSError."""
    known = _files.get(_identity(path.lstat()))  # before opening: closing a second descriptor would drop all locks
    if known is not None:
        return known
    # O_NONBLOCK: if somebody put a FIFO there, opening it would wait for its other end.
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    known = _files.get(_identity(os.fstat(fd)))
    if known is not None:  # it was moved here after lstat
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
    """Close a file if no board uses it any more."""
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


class ShmSlot:
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
        self._version = self._version % _MAX_VERSION + 1  # wraps around, in case the previous one was the last
        record = _SLOT.pack(self._version, _now(), len(self._payload), self._payload, 0)[:-_CRC_SIZE]
        try:
            self._put(fd, record + zlib.crc32(record).to_bytes(_CRC_SIZE, "big"))
        except OSError as error:
            raise ChatError(f"cannot write to the board {self._file.path}: {reason(error)}") from None

    def _put(self, fd: int, record: bytes) -> None:
        os.pwrite(fd, record, _offset(self.index))

    def close(self) -> None:
        if self._closed or self._file.fd < 0:
            return
        with suppress(ChatError):
            self.write(b"")  # otherwise it would be shown until its heartbeat is 5 s old
        self._closed = True
        self._file.release(self.index)


class ShmBoard:
    """One view of a board. Several in one process share its descriptor, but never a slot."""

    slot: type[ShmSlot] = ShmSlot

    def __init__(self, file: _File) -> None:
        self._file = file
        file.users += 1
        self._claimed: list[ShmSlot] = []
        self._next = os.getpid() % SLOTS  # where to try first: processes that start together do not all begin at 0
        self._data = b""  # the last read
        self._heads = [bytes(16)] * SLOTS  # of each slot's last good copy
        self._known: dict[int, tuple[int, bytes]] = {}  # beat and payload of that copy, unless it is empty
        self._closed = False

    def _must_be_open(self) -> int:
        if self._closed:
            raise ChatError(f"the board {self._file.path} was closed here")
        return self._file.must_be_open()

    def claim(self) -> ShmSlot | None:
        fd = self._must_be_open()
        try:
            index = next(filter(self._file.take, (*range(self._next, SLOTS), *range(self._next))), None)
            if index is None:
                return None
            before = os.pread(fd, SLOT_SIZE, _offset(index))
        except OSError as error:
            raise ChatError(f"cannot claim a slot of the board {self._file.path}: {reason(error)}") from None
        # Even if it is damaged: readers that have seen this version must see another one from now on.
        slot = self.slot(self._file, index, int.from_bytes(before[:8], "big"))
        try:
            slot.write(b"")  # what a dead writer left must not look alive under our lock
        except BaseException:
            self._file.release(index)
            raise
        self._next = index + 1
        if len(self._claimed) % 64 == 63:  # not each time: a host has a thousand
            self._claimed = [claimed for claimed in self._claimed if not claimed._closed]
        self._claimed.append(slot)
        return slot

    def read(self, trust_ms: int = TRUST_MS) -> list[Reading]:
        fd = self._must_be_open()
        try:
            self._look(fd)
            return self._alive(trust_ms)
        except OSError as error:
            raise ChatError(f"cannot read the board {self._file.path}: {reason(error)}") from None

    def _look(self, fd: int) -> None:
        """Read the slots that were written since the last look."""
        for _ in range(TRIES):
            data = os.pread(fd, SIZE, 0)
            if len(data) != SIZE or data == self._data:  # somebody truncated it, or nothing is new
                return
            heads = [head for (head,) in _HEADS.iter_unpack(memoryview(data)[SLOT_SIZE:])]
            changed = [*compress(range(SLOTS), map(ne, heads, self._heads))]
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
        """Return the beat and payload of these slots, without torn or damaged ones."""
        good, unpack, crc32 = {}, _FRAME.unpack_from, zlib.crc32
        for index in indices:
            at = SLOT_SIZE + SLOT_SIZE * index
            beat, length, crc = unpack(data, at)
            if crc32(data[at : at + _CRC_AT]) == crc and length <= MAX_SLOT:
                good[index] = beat, data[at + _PAYLOAD_AT : at + _PAYLOAD_AT + length]
        return good

    def _alive(self, trust_ms: int) -> list[Reading]:
        now, file = _now(), self._file
        doubted = now - trust_ms  # for a beat this old, or in the future, ask the kernel
        for index in [index for index, (beat, _payload) in self._known.items() if not doubted < beat <= now]:
            if not (index in file.held or file.is_held_by_others(index)):
                # Dead for good: a new owner of the slot writes first, and that changes its head.
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
    """Makes and opens boards. ``calls`` is for tests, which also run with POSIX locks only."""

    summary = "a file in memory, read and written by every process of this machine"
    board: type[ShmBoard] = ShmBoard

    def __init__(self, calls: _Calls = _OFD) -> None:
        self._calls = calls

    def create(self, folder: Path) -> ShmBoard:
        try:
            return self.open(folder)
        except ChatError:  # missing, damaged, from another boot: whoever has it open keeps it
            self._put_new(folder / NAME)
        return self.open(folder)

    @staticmethod
    def _put_new(path: Path) -> None:
        """Replace whatever is there with a new, complete board."""
        new = path.with_name(NAME + ".new")
        try:
            new.unlink(missing_ok=True)  # left by a killed process
            with open(new, "xb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600)) as file:
                file.write(_header().ljust(SIZE, b"\0"))
            new.replace(path)
        except OSError as error:
            raise ChatError(f"cannot make the board {path}: {reason(error)}") from None

    def remove(self, folder: Path) -> None:
        with suppress(OSError):
            (folder / NAME).unlink()

    def open(self, folder: Path) -> ShmBoard:
        path = folder / NAME
        try:
            _header()
            file = _open(path, self._calls)
        except FileNotFoundError:
            raise ChatError(f"there is no board in {folder}; a host makes it") from None
        except OSError as error:
            raise ChatError(f"cannot open the board {path}: {reason(error)}") from None
        fault = file.fault()
        if fault:
            _release(file)
            raise ChatError(f"the board {path} {fault}; its host makes a new one")
        return self.board(file)


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
        print(f"ann made a board of {SLOTS} slots; bob, process {bob}, wrote into one of them")
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
