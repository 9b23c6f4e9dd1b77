"""pipe: between a program and its forked peers, and, through a FIFO, between terminals on one machine.

What it is: two kernel pipes, one for each direction. A pipe is a buffer with a read end and a write end, and both are
descriptors. A forked child inherits them; any other process can open them by a name (a FIFO).

When to choose it: for programs that you start yourself (nobody else can reach the wire, since it has no address), and
for another terminal on your machine, if a file system is all you have.

    by inheritance                                     by name
      host                     forked peer               ROOM/pipe                  the entry FIFO, many writers
      write end ──▶[64 KiB]──▶ read end                    3f9c…  ──▶ host      one atomic write: a random name
      read end ◀──[64 KiB]◀── write end                  ROOM/pipe-3f9c….up         dialler ──▶ host
      (each closes the other's ends)                      ROOM/pipe-3f9c….down       host ──▶ dialler

Four facts:
  capacity          64 KiB in each direction on Linux, 16 to 64 KiB on macOS
  borders           none: a pipe runs bytes together. But a write of at most PIPE_BUF bytes (4,096 on Linux, at
                    least 512 anywhere) is never mixed with another writer's: so many can share the entry FIFO
  how death shows   reading: the end, once the last write end is closed. Writing: EPIPE, once the last read end is
  what wakes you    bytes, room, or the other side's last close

Addresses: ``pipe:PATH``, the path of the entry FIFO; bare ``pipe`` is the one in the room's runtime folder.
``pipe:fd/R,W`` dials two inherited descriptors. That works once: afterwards they belong to the link.

Traps:
  ends left open    A read end does not report the end while any process still holds the write end, and a forked child
                    has copies of all its parent's descriptors. Here exec closes them (PEP 446), except those named.
  read-write        A FIFO opened for reading and writing never shows its peer's death, because you hold the missing end
                    yourself. The entry FIFO is opened so on purpose: its writers come and go, and it must not end with
                    one of them. A dialler opens its own FIFO so only until the host has opened it.
  ENXIO             Opening a FIFO for writing without blocking fails while nobody reads it: nobody listens there. A
                    FIFO of a killed host looks like that, so a stale one can be recognized and replaced.
  waiting to open   Opening one end blocks until somebody opens the other, forever: hence O_NONBLOCK everywhere.
  SIGPIPE           Writing without a reader kills a C program; Python ignores the signal, and you get EPIPE.
  EAGAIN            A small write is never taken in part: if it does not fit, nothing is taken.
  names             An announced name could lead anywhere. So it must be 32 hex digits, it is opened with O_NOFOLLOW,
                    and it must be a FIFO that belongs to us.
  left names        A dialler can die at any moment. So the host removes the FIFOs of every dialler it has met, whatever
                    the outcome, and all others when it opens or closes the entry FIFO.
  more capacity     F_SETPIPE_SZ takes it from a budget that all programs of a user share (16,384 pages, see pipe(7)).
                    Once that is used up, new pipes hold one page. So we leave the size alone.

Sources: pipe(7), fifo(7), open(2); POSIX.1-2017, write().
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import secrets
import select
import stat
from collections import deque
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from chat.transport import Address, AddressError, DialFailed, LinkClosed, ListenFailed, Peer, Site, Text, reason
from chat.transport.link import DescriptorLink, Waiter
from chat.transport.patience import patience

# seconds that a host has to open a dialler's FIFOs; then nobody answers (exit code 4), members dial again
DIAL_TIMEOUT: Final = 3.0
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_NAME_SIZE: Final = 32  # bytes; with its newline far below PIPE_BUF
_GREETING: Final = b"\n"  # from the host, once it has both ends open
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
_WRITE: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW
_BOTH: Final = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW


# -- by inheritance --------------------------------------------------------------------------------------


def _link(peer: Peer, source: int, sink: int) -> DescriptorLink:
    def close() -> None:
        os.close(source)
        os.close(sink)

    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    return DescriptorLink(peer, source, sink, read=partial(os.read, source), write=partial(os.write, sink), close=close)


class PipePair:
    """Two pipes to a process that does not exist yet. Create the pair, fork or exec, then call one of the methods."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            child_reads, parent_writes = os.pipe()
            undo.callback(_close, (child_reads, parent_writes))
            parent_reads, child_writes = os.pipe()
            undo.pop_all()
        self.fds = (child_reads, child_writes)  # what the child needs; exec closes them unless they are named
        self.address = Address(PipeTransport.scheme, f"fd/{child_reads},{child_writes}")  # what the child dials
        self._ours = (parent_reads, parent_writes)
        _pairs.add(self)

    def in_parent(self, peer: Peer) -> DescriptorLink:
        """Close the child's ends and return the link over ours. Needs a running event loop."""
        _pairs.discard(self)
        _close(self.fds)
        return _link(peer, *self._ours)

    def in_child(self) -> None:
        """After a fork without exec: close the parent's ends, of this pair and of others.

        Returns when the parent sends something or is gone. Do not dial the address before that: nobody answers yet.
        """
        _close(self._ours)
        _pairs.discard(self)
        for other in list(_pairs):  # a copy in a sibling would hide the end from everybody who waits for it
            other.close()
        select.select([self.fds[0]], [], [])

    def close(self) -> None:
        """Give up: there will be no child."""
        _pairs.discard(self)
        _close(self.fds + self._ours)


_pairs: Final[set[PipePair]] = set()


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _inherit(numbers: str) -> DescriptorLink:
    """Make a link of two descriptors that our parent left open for us. Raises AddressError."""
    try:
        source, sink = (int(number) for number in numbers.split(","))
        if source == sink or not all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (source, sink)):
            raise ValueError
        for fd in (source, sink):
            os.set_inheritable(fd, False)  # a program that we start must not inherit our write end
    except (ValueError, OverflowError, OSError):
        raise AddressError(
            "{numbers!r} are not two pipes that this process has; it is for peers of a host", numbers=numbers
        ) from None
    return _link(Peer(f"pipe to process {os.getppid()}", pid=os.getppid()), source, sink)


# -- by name ---------------------------------------------------------------------------------------------


def _open(path: Path, flags: int) -> int:
    """Open a FIFO of ours. Raises OSError; PermissionError if it is anything else."""
    fd = os.open(path, flags)
    facts = os.fstat(fd)
    if not stat.S_ISFIFO(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        os.close(fd)
        raise PermissionError(errno.EPERM, "not a FIFO that is ours alone")
    return fd


def _check_folder(folder: Path) -> None:
    """Raises OSError; PermissionError if others could replace what is ours."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        words = Text("{folder} is not a folder that is ours alone (mode 0700)", folder=folder)
        raise PermissionError(errno.EPERM, words)


def _ends(entry: Path, name: str) -> tuple[Path, Path]:
    """Return the FIFOs of one dialler: to the host, and back."""
    return entry.with_name(f"{entry.name}-{name}.up"), entry.with_name(f"{entry.name}-{name}.down")


def _waiting(entry: Path) -> set[str]:
    """Return the names of the diallers that have made their FIFOs and were not accepted yet. Raises OSError."""
    start = f"{entry.name}-"
    names = (end.stem.removeprefix(start) for end in entry.parent.iterdir() if end.name.startswith(start))
    return {name for name in names if _NAME.fullmatch(name)}


def _forget(entry: Path, name: str) -> None:
    for end in _ends(entry, name):
        with suppress(OSError):
            end.unlink()


class PipeListener:
    """An entry FIFO, into which diallers write their names."""

    advertised: Address | None = None  # a path on this machine is useless in an invite

    def __init__(self, address: Address, entry: Path, fd: int) -> None:
        self.address = address
        self._entry = entry
        self._fd = fd
        self._waiter = Waiter.for_reading(fd)
        self._begun = b""  # of an announcement, or of junk: only the last 32 bytes matter
        self._announced: deque[str] = deque()
        self._closed = False

    async def accept(self) -> DescriptorLink:
        while not self._closed:
            while self._announced:
                with suppress(OSError):  # it has left, or was never a dialler: there is nobody to tell
                    return self._meet(self._announced.popleft())
            await self._waiter.wait()  # every time, or a peer that writes junk without end would block the loop
            *lines, rest = (self._begun + os.read(self._fd, 4096)).split(b"\n")
            self._begun = rest[-_NAME_SIZE:]
            names = (line[-_NAME_SIZE:].decode("ascii", "replace") for line in lines)
            self._announced.extend(filter(_NAME.fullmatch, names))
        raise LinkClosed("the listener on {address} was closed here", address=self.address)

    def _meet(self, name: str) -> DescriptorLink:
        """Open a dialler's FIFOs. Raises OSError."""
        up, down = _ends(self._entry, name)
        with ExitStack() as undo:
            undo.callback(_forget, self._entry, name)
            with ExitStack() as failed:
                source = _open(up, _READ)
                failed.callback(os.close, source)
                sink = _open(down, _WRITE)  # ENXIO: the dialler has died
                failed.callback(os.close, sink)
                os.write(sink, _GREETING)
                failed.pop_all()
        return _link(Peer(f"pipe {name[:8]}", uid=os.geteuid()), source, sink)

    def sound(self) -> bool:
        with suppress(OSError):  # the folder may be gone
            return os.path.samestat(self._entry.lstat(), os.fstat(self._fd))
        return False

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._waiter.close()
        with suppress(OSError):
            if self.sound():
                self._entry.unlink()
            for name in _waiting(self._entry):
                with suppress(OSError):
                    os.close(_open(_ends(self._entry, name)[1], _WRITE))  # it sees the end, and need not wait longer
                _forget(self._entry, name)
        os.close(self._fd)


def _make_entry(entry: Path) -> int:
    """Make the entry FIFO and return it, open. Raises OSError; FileExistsError if somebody listens there."""
    folder = os.open(entry.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # If two hosts found the same stale FIFO, the slower would remove the new one of the faster.
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            os.close(_open(entry, _WRITE))
            raise FileExistsError(errno.EADDRINUSE, "somebody listens there")
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            entry.unlink()  # its host was killed
        for name in _waiting(entry):
            _forget(entry, name)  # nobody will open them any more
        os.mkfifo(entry, 0o600)
        return _open(entry, _BOTH)
    finally:
        os.close(folder)


async def _connect(entry: Path) -> DescriptorLink:
    """Connect through an entry FIFO. Raises OSError; TimeoutError if the host does not answer."""
    _check_folder(entry.parent)
    name = secrets.token_hex(_NAME_SIZE // 2)
    up, down = _ends(entry, name)
    with ExitStack() as undo:
        sender = _open(entry, _WRITE)
        undo.callback(os.close, sender)
        undo.callback(_forget, entry, name)
        for end in (up, down):
            os.mkfifo(end, 0o600)
        with ExitStack() as failed:
            source = _open(down, _READ)
            failed.callback(os.close, source)
            held = _open(up, _BOTH)  # without a reader it could not be opened for writing
            undo.callback(os.close, held)
            sink = _open(up, _WRITE)
            failed.callback(os.close, sink)
            os.write(sender, name.encode() + b"\n")
            readable = Waiter.for_reading(source)
            async with patience(DIAL_TIMEOUT):
                await readable.wait()
            if os.read(source, len(_GREETING)) != _GREETING:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "it was closed before it let us in")
            failed.pop_all()
    return _link(Peer(f"pipe {entry}", uid=os.geteuid()), source, sink)


class PipeTransport:
    scheme = "pipe"
    cost = 2  # it stays on the machine
    local = True
    summary = "programs that the host starts; and terminals of this machine, through a FIFO"

    def pair(self) -> PipePair:
        """Make a wire to a process that is about to start."""
        return PipePair()

    async def listen(self, address: Address, site: Site) -> PipeListener:
        address.allow_options()
        entry = _path(address.place or str(site.folder / "pipe"))
        here = Address(self.scheme, str(entry))
        try:
            _check_folder(entry.parent)
            return PipeListener(here, entry, _make_entry(entry))
        except FileExistsError:
            raise ListenFailed(
                "cannot listen on {here}: another host listens there; join it, or close it", here=here
            ) from None
        except BlockingIOError:
            raise ListenFailed(
                "cannot listen on {here}: another host starts in that folder now; try again", here=here
            ) from None
        except OSError as error:
            raise ListenFailed("cannot listen on {here}: {why}", here=here, why=reason(error)) from None

    async def dial(self, address: Address) -> DescriptorLink:
        address.allow_options()
        if address.place.startswith("fd/"):
            return _inherit(address.place.removeprefix("fd/"))
        if not address.place:
            raise AddressError("cannot dial pipe: give the path that the host shows, pipe:PATH")
        try:
            return await _connect(_path(address.place))
        except TimeoutError:
            why = Text("the host did not open within {seconds:g} s; is it stopped?", seconds=DIAL_TIMEOUT)
        except (FileNotFoundError, NotADirectoryError):
            why = Text("there is no such FIFO; is the room open?")
        except BlockingIOError:
            why = Text("too many others wait there; try again")
        except OSError as error:
            why = Text("nobody listens there; the host was killed") if error.errno == errno.ENXIO else reason(error)
        raise DialFailed("cannot reach {address}: {why}", address=address, why=why)


def _path(place: str) -> Path:
    """Raises AddressError."""
    if "\0" in place:
        raise AddressError("{place!r} is no path: a path holds no zero byte", place=place)
    return Path(place).absolute()


transport: Final = PipeTransport()


async def _demo() -> None:
    """Ann listens, Bob dials; Bob says a line, and Ann sends it back. Then Ann forks a Cid of her own."""
    from tempfile import TemporaryDirectory

    pair = transport.pair()
    if os.fork() == 0:  # before anything else is open; a child without exec must end with _exit
        pair.in_child()
        os.write(pair.fds[1], os.read(pair.fds[0], 64))
        os._exit(0)
    with TemporaryDirectory() as folder:
        listener = await transport.listen(Address("pipe", f"{folder}/entry"), Site(Path(), Path()))
        ann, bob = await asyncio.gather(listener.accept(), transport.dial(listener.address))
        print(f"ann listens on {listener.address}; she sees {ann.peer.text}, bob sees {bob.peer.text}")
        print(f"bob sends a line, {bob.send(b'hello')} bytes taken")
        print(f"ann sends it back, {ann.send(await ann.receive())} bytes taken; bob reads {await bob.receive()!r}")
        print(
            f"bob sends 100 000 bytes while ann does not read: {bob.send(bytes(100_000))} taken, then {bob.send(b'x')}"
        )
        await ann.aclose()
        print(f"ann closes; bob reads {await bob.receive()!r}")
        await bob.aclose()
        await listener.aclose()
    cid = pair.in_parent(Peer("cid"))
    print(f"ann sends a line to her child, {cid.send(b'hi')} bytes taken, and reads {await cid.receive()!r}")
    print(f"cid has ended, so ann reads {await cid.receive()!r}, and then she reaps him")
    await cid.aclose()
    os.wait()  # noqa: ASYNC222 - it has ended, so this returns at once


if __name__ == "__main__":
    asyncio.run(_demo())
