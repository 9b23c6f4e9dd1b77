"""queue: between unrelated programs on one machine, of one user or of several.

What it is: a pair of AF_UNIX sockets of type SOCK_SEQPACKET (unix(7)). Each direction is a bounded message queue in the
kernel. The two processes need nothing in common but a path in the file system: no daemon, no port, no thread.

When to choose it: for a room on one machine, whose members open and close their own terminals. The kernel says which
user's process is at the other end. A pipe runs bytes together; a queue keeps messages apart.

     ann's link            the kernel, beside .../queue          bob's link
       send ───────▶ [ ▒▒▒ ▒▒▒▒▒▒▒ ▒ ▒▒▒▒▒ ]──────────────────▶ receive: one message
     receive ◀───────────────────────[ ▒▒▒▒ ▒▒ ] ◀───────────── send: one message

Four facts:
  capacity          the sender's SO_SNDBUF, 208 KiB on most Linux systems. The kernel also charges for its own
                    bookkeeping, so that is 93 messages of 1 KiB, or 4 of 64 KiB
  borders           kept: one piece sent is one piece received, never joined to the next
  how death shows   the kernel closes a killed process's end at once; what it sent before can still be read
  what wakes you    readability (a message, the end) and writability (three quarters of the buffer free)

Compared to what else Python offers (``scripts/bench --queues`` prints figures):

                           unrelated  without          end on     peer's     many       waits in
                           programs   pickle, threads  death      user, pid  producers  epoll
  this                     yes        yes              yes        yes        yes        yes
  multiprocessing.Queue    no         no, no           no         no         yes        no
  Manager().Queue()        yes        no, no           no         no         yes        no
  POSIX mq (mq_overview)   yes        yes              no         no         yes        Linux only
  a FIFO (fifo(7))         yes        yes              with care  no         to 4 KiB   yes
  socketpair()             no         yes              yes        yes        no         yes

Each member has its own queue, so a full queue affects that member only. The speed comes from batching, not from the
kernel object: one message carries everything that one turn of the host's loop produced, up to 64 KiB.

Addresses: bare ``queue`` listens in the room's runtime folder; ``queue:/path/to/socket`` listens at that path, in a
folder that only you can enter (mode 0700). Dialling needs the path, which is in the room record.

For several users: ``?group=GID`` or ``?everyone=yes`` lets other users in, through a folder that only you may write to.
They dial with ``?user=UID``, the user who must be at the other end. The socket's mode keeps others out, and the
listener checks again: the kernel also knows each peer's groups.

Traps:
  a stale socket    bind() creates a file that outlives a killed host, and the next host gets EADDRINUSE. A datagram
                    socket tells whether it is live: EPROTOTYPE means a live socket of our kind, which notices nothing;
                    ECONNREFUSED means a dead one. A real connect would show up as a peer, and on macOS a full backlog
                    refuses, too. The folder is locked (flock) meanwhile: if two hosts found the same dead socket, the
                    slower would remove the new one of the faster.
  ECONNRESET        Closing with unread messages resets the other side. Nothing is lost: what was sent before is still
                    there, but Linux reports the reset first, once. So we read again.
  EMSGSIZE          A message must fit into the buffer as a whole, minus 32 bytes: we cut at 64 KiB or at that size.
  a short recv      It returns the head of a message and silently drops the rest: ``receive`` asks for 64 KiB.
  an empty message  It reads as the end of the stream: never send one.
  SOCK_DGRAM        Keeps borders as well, but never shows that its peer has died.
  EAGAIN on connect The backlog is full. Unlike TCP, the kernel does not try again later. A user could keep it full, so
                    a listener for several takes all that wait at once, and their dial tries again for 2 s.
  ENAMETOOLONG      A path has room for 107 bytes, 103 on macOS, and Python's error only says "path too long".
  flock by others   Whoever can open a file or folder for reading can lock it, and block us. So a folder for several
                    users has only x for them (0711, 0710): they reach the socket by its name, and can lock nothing.
  256 groups        Python's getsockopt returns at most 1 KiB. For members of more groups we ask the group database.
  abstract sockets  Names that begin with a zero byte have no file, so no owner and no mode: anybody can take one.
  umask             It decides the mode of the new file, for all threads at once. But the folder keeps others out, and
                    nobody can connect before listen(), so a chmod between bind and listen is early enough.
  macOS             It has no SOCK_SEQPACKET. SOCK_STREAM works, since frames carry their lengths; borders are lost.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import pwd
import socket
import stat
import struct
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.transport import Address, AddressError, DialFailed, LinkClosed, ListenFailed, Peer, Site, Text, TransportError
from chat.transport.link import RECEIVE_SIZE, DescriptorLink, Waiter
from chat.transport.shares import Door

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chat.transport import Buffer

MESSAGE: Final = RECEIVE_SIZE  # bytes of the largest message: what one receive takes
OVERHEAD: Final = 32  # bytes of the buffer that a message cannot use (Linux, net/unix/af_unix.c)
PATH_LIMIT: Final = 103 if sys.platform == "darwin" else 107  # bytes: sun_path, without its final zero
# connections that the kernel queues: a whole room may reconnect at once; beyond, exit code 4 or dialled again
BACKLOG: Final = 1024
# connections of one or several users that wait for the host; beyond, the user who has most loses the oldest
READY: Final = 64
_RETRY: Final = 0.05  # seconds after which a full backlog of several users is dialled again
_RETRIES: Final = 40  # times; then ``more wait there already``
_NAME: Final = "queue"  # of the socket, in a room's folder
_SO_PEERGROUPS: Final = 59  # of asm-generic/socket.h
_ID_DIGITS: Final = 10  # of a user's or group's number in an address
_OPTIONS: Final = ("group", "everyone", "user")
KIND: Final = socket.SOCK_STREAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET

log: Final = logging.getLogger("chat.queue")


# -- the peer's user, and the folder's owner -----------------------------------------------------------


class _Unfit(TransportError):
    """Why a folder or a peer cannot be trusted, in words for people."""


class _Credentials(NamedTuple):
    uid: int
    gid: int
    pid: int


def _credentials(sock: socket.socket) -> _Credentials:
    """Ask the kernel whose process is at the other end, as of its connect or listen. Raises OSError."""
    if sys.platform == "darwin":  # sys/un.h and sys/ucred.h: SOL_LOCAL 0, LOCAL_PEERCRED 1, LOCAL_PEERPID 2
        _version, uid, _count, gid = struct.unpack_from("=IIh2xI", sock.getsockopt(0, 1, 76))  # struct xucred
        (pid,) = struct.unpack("=i", sock.getsockopt(0, 2, 4))
    else:  # struct ucred, unix(7)
        pid, uid, gid = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return _Credentials(uid, gid, pid)


def _groups(sock: socket.socket, who: _Credentials) -> set[int]:
    """Return the groups of the process at the other end, with or without its main one. Raises OSError."""
    if sys.platform == "darwin":  # struct xucred: cr_ngroups at 8, cr_groups from 12 on, the main one first
        data = sock.getsockopt(0, 1, 76)
        return {*struct.unpack_from("=16I", data, 12)[: struct.unpack_from("=h", data, 8)[0]]}
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return {*struct.unpack(f"={len(data) // 4}I", data)}
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT):  # more than 256, or Linux before 4.13
            raise
    with suppress(KeyError):
        user = pwd.getpwuid(who.uid)
        return {*os.getgrouplist(user.pw_name, user.pw_gid)}
    return set()


def _must_be(who: _Credentials, uid: int) -> None:
    # Root is refused, too: root can become any user, so a process that did not is here by mistake.
    if who.uid != uid:
        words = Text("process {pid} there is user {uid}'s, not yours (user {own})", pid=who.pid, uid=who.uid, own=uid)
        if uid != os.geteuid():
            words = Text("process {pid} there is user {uid}'s, not user {own}'s", pid=who.pid, uid=who.uid, own=uid)
        raise _Unfit(words)


class _Audience(NamedTuple):
    """The other users who may connect."""

    gid: int = -1  # members of this group; -1: every user, for then chown(2) leaves the group alone

    @property
    def mode(self) -> int:
        return 0o666 if self.gid < 0 else 0o660

    def check(self, sock: socket.socket, who: _Credentials) -> None:
        """Raises _Unfit, OSError."""
        if self.gid >= 0 and who.uid != os.geteuid() and self.gid not in {who.gid, *_groups(sock, who)}:
            raise _Unfit(Text("user {uid} is not in group {gid}", uid=who.uid, gid=self.gid))


def _audience(address: Address) -> _Audience | None:
    """Return who may connect besides our own user; None for nobody. Raises AddressError."""
    if "everyone" in address.options:
        return _Audience()
    return _Audience(_id(address, "group")) if "group" in address.options else None


def _id(address: Address, option: str) -> int:
    value = address.options[option]
    if not (value.isascii() and value.isdigit() and len(value) <= _ID_DIGITS):
        raise AddressError("{option} must be a number, not {value!r}", option=option, value=value)
    return int(value)


@contextmanager
def _open_folder(folder: Path, *, shared: bool) -> Iterator[int]:
    """Open a folder of ours that nobody else can enter or, if it is ``shared``, write to. Raises _Unfit, OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_folder(folder, os.fstat(fd), os.geteuid(), shared=shared)
        yield fd
    finally:
        os.close(fd)


def _check_folder(folder: Path, status: os.stat_result, owner: int, *, shared: bool) -> None:
    uid, mode = status.st_uid, stat.S_IMODE(status.st_mode)
    if uid == owner and not mode & (0o022 if shared else 0o077) and stat.S_ISDIR(status.st_mode):
        return
    words = Text(
        "the folder {folder} is user {uid}'s, mode {mode:04o}; it must be yours alone: choose another, or chmod 700",
        folder=folder,
        uid=uid,
        mode=mode,
    )
    if shared:
        words = Text(
            "the folder {folder} is user {uid}'s, mode {mode:04o}; only user {owner} may own it and write to it",
            folder=folder,
            uid=uid,
            mode=mode,
            owner=owner,
        )
    raise _Unfit(words)


def _path(address: Address, default: Path | None = None) -> Path:
    """Raises AddressError."""
    address.allow_options(*_OPTIONS)
    if not address.place and default is None:
        raise AddressError(
            "cannot dial queue without a path; write queue:/path/to/socket, or join the room by its name"
        )
    path = Path(address.place or default or "").absolute()
    if "\0" in str(path):
        raise AddressError("cannot use {address}: a path holds no zero byte", address=address)
    if (size := len(os.fsencode(path))) > PATH_LIMIT:
        raise AddressError(
            "cannot use {path} as a socket: a path has at most {limit} bytes here, this one has "
            "{size}; choose a shorter one, or set CHAT_RUNTIME to a folder with a shorter name",
            path=path,
            limit=PATH_LIMIT,
            size=size,
        )
    return path


_DIAL_ADVICE: Final[dict[int | None, str]] = {
    errno.ENOENT: Text("; is a host running there?"),
    errno.ECONNREFUSED: Text("; the host that made it has ended: start it again"),
    errno.EAGAIN: Text("; more wait there already than it lets in: try again"),
    errno.EPROTOTYPE: Text("; it is a socket of another kind, so no chat host's"),
}
_LISTEN_ADVICE: Final[dict[int | None, str]] = {
    errno.EADDRINUSE: Text("; is another host running? choose another path"),
    errno.EAGAIN: Text("; another host starts in this folder at this moment: try again"),
    errno.ENOENT: Text("; make its folder first: mkdir -m 700"),
}


def _reason(error: _Unfit | OSError, advice: Mapping[int | None, str] | None = None) -> str:
    """Say what happened, and what to do."""
    if not isinstance(error, OSError):
        return error.words
    if not error.errno:
        return str(error)
    why = Text(os.strerror(error.errno).lower())
    return Text("{why}{advice}", why=why, advice=(advice or {}).get(error.errno, ""))


# -- links ------------------------------------------------------------------------------------------


def _read(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except ConnectionResetError:
        return sock.recv(size)  # never blocks, since the peer is gone: it returns what is left, or the end


def _write(sock: socket.socket, limit: int, data: Buffer) -> int:
    if len(data) <= limit:
        return sock.send(data)
    # Released at once: otherwise an error's traceback would keep the caller from changing a bytearray.
    with memoryview(data) as whole, whole[:limit] as piece:
        return sock.send(piece)


def _link(sock: socket.socket, peer: Peer) -> DescriptorLink:
    fd, limit = sock.fileno(), min(MESSAGE, sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - OVERHEAD)
    return DescriptorLink(peer, fd, fd, read=partial(_read, sock), write=partial(_write, sock, limit), close=sock.close)


# -- listening --------------------------------------------------------------------------------------


class QueueListener:
    """A socket with a name in the file system. The listener removes the name when it closes."""

    advertised: Address | None = None  # a path on this machine is useless in an invite

    def __init__(self, sock: socket.socket, path: Path, options: Mapping[str, str], audience: _Audience | None) -> None:
        self.address = Address(QueueTransport.scheme, str(path), options)
        self._audience = audience
        self._sock = sock
        self._path = path
        self._file = os.lstat(path)
        self._readable = Waiter.for_reading(sock.fileno())
        self._ready: dict[socket.socket, Peer] = {}  # accepted, in order
        self._door = Door(READY, self._drop)
        self._closed = False

    async def accept(self) -> DescriptorLink:
        while not self._closed:
            if not self._ready:
                await self._readable.wait()
            try:
                self._take()
            except OSError as error:
                if not self._ready:
                    # The peer stays in the backlog, so the socket stays readable: without a pause the loop would spin.
                    log.warning("%s accepts nobody for a second: %s", self.address, _reason(error))
                    await asyncio.sleep(1)
            if self._ready:
                connection, peer = next(iter(self._ready.items()))
                self._door.leave(str(peer.uid), connection)
                del self._ready[connection]
                return _link(connection, peer)
        raise LinkClosed("the listener on {address} was closed here", address=self.address)

    def _take(self) -> None:
        """Accept a peer, or all that wait if they are of several users: one must not fill the backlog for the others.

        Raises OSError without a free descriptor.
        """
        for _ in range(1 if self._audience is None else BACKLOG):
            try:
                connection, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                continue  # the peer has left already
            try:
                connection.setblocking(False)
                self._ready[connection] = peer = self._check(connection)
                self._door.enter(str(peer.uid), connection, 0)
            except (_Unfit, OSError) as error:
                log.warning("%s refused a peer: %s", self.address, _reason(error))
                connection.close()

    def _check(self, connection: socket.socket) -> Peer:
        """Raises _Unfit, OSError."""
        who = _credentials(connection)
        if self._audience is None:
            _must_be(who, os.geteuid())
            return Peer(f"queue pid {who.pid}", uid=who.uid, pid=who.pid)
        self._audience.check(connection, who)
        return Peer(f"queue user {who.uid} pid {who.pid}", uid=who.uid, pid=who.pid, invited=True)

    def _drop(self, connection: socket.socket) -> None:
        del self._ready[connection]
        connection.close()

    def sound(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.lstat(self._path), self._file)
        return False

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._readable.close()
        # Before closing the socket: nobody finds a dead socket, and no other file can have its inode number.
        with suppress(OSError):
            if self.sound():
                self._path.unlink()
        for connection in (self._sock, *self._ready):
            connection.close()  # peers that were never accepted see the end


def _probe(path: Path) -> int:
    """Return EPROTOTYPE for a living socket of our kind, ECONNREFUSED for a dead one, 0 for none. Raises OSError."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path))


def _listen(kind: socket.SocketKind, path: Path, options: Mapping[str, str], who: _Audience | None) -> QueueListener:
    """Bind to the path, replacing what a killed host left there, and listen. Raises _Unfit, OSError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        with _open_folder(path.parent, shared=who is not None) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                sock.bind(str(path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or _probe(path) != errno.ECONNREFUSED:
                    raise
                path.unlink()
                sock.bind(str(path))
            if who is None:
                path.chmod(0o600)
            else:
                os.chown(path, -1, who.gid)
                path.chmod(who.mode)
            sock.listen(BACKLOG)
            return QueueListener(sock, path, options, who)
    except BaseException:
        sock.close()
        raise


def _dial(kind: socket.SocketKind, path: Path, user: int | None) -> DescriptorLink:
    """Dial a host of our own, or of another ``user``. Raises _Unfit, OSError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        if user is None:
            with _open_folder(path.parent, shared=False):
                sock.connect(str(path))  # returns at once: a local connect waits for nobody
        else:
            _check_folder(path.parent, path.parent.lstat(), user, shared=True)
            sock.connect(str(path))
        who = _credentials(sock)  # of the process that listens: the folder may be another one by now
        _must_be(who, os.geteuid() if user is None else user)
        return _link(sock, Peer(f"queue {path}", uid=who.uid, pid=who.pid))
    except BaseException:
        sock.close()
        raise


class QueueTransport:
    """``kind`` is SOCK_SEQPACKET, or SOCK_STREAM if the system has no other."""

    scheme = "queue"
    cost = 1  # it stays on the machine
    local = True
    summary = "between terminals of one machine, by a socket in the room's folder; bare queue is enough"

    def __init__(self, kind: socket.SocketKind = KIND) -> None:
        self._kind = kind

    async def listen(self, address: Address, site: Site) -> QueueListener:
        path = _path(address, site.folder / _NAME)
        try:
            return _listen(self._kind, path, address.options, _audience(address))
        except (_Unfit, OSError) as error:
            raise ListenFailed(
                "cannot listen on queue:{path}: {why}", path=path, why=_reason(error, _LISTEN_ADVICE)
            ) from None

    async def dial(self, address: Address) -> DescriptorLink:
        path = _path(address)
        user = _id(address, "user") if "user" in address.options else None
        try:
            for _ in range(0 if user is None else _RETRIES):
                with suppress(BlockingIOError):  # another user may fill the backlog, and the host empties it
                    return _dial(self._kind, path, user)
                await asyncio.sleep(_RETRY)
            return _dial(self._kind, path, user)
        except (_Unfit, OSError) as error:
            raise DialFailed(
                "cannot reach {address}: {why}", address=address, why=_reason(error, _DIAL_ADVICE)
            ) from None

    def shared_address(self, folder: Path, user: int) -> Address:
        return Address(self.scheme, str(folder / _NAME), {"user": str(user)})

    def is_live(self, address: Address) -> bool:
        with suppress(OSError):
            return _probe(Path(address.place)) == errno.EPROTOTYPE
        return False


transport: Final = QueueTransport()


async def _demo() -> None:
    """Ann listens, Bob dials; Bob says two lines, and Ann sends them back."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="queue-") as folder:
        listener = await transport.listen(Address("queue"), Site(Path(folder), Path()))
        bob = await transport.dial(listener.address)
        ann = await listener.accept()
        ours = ann.peer.uid == os.geteuid() and ann.peer.pid == os.getpid()
        print(f"ann listens on {listener.address}; the kernel tells her whose process bob is: {ours}")
        print(f"bob sends two lines, {bob.send(b'hello')} and {bob.send(b'good day')} bytes taken")
        for _ in range(2):
            print(f"ann sends one back, {ann.send(await ann.receive())} bytes taken; bob reads {await bob.receive()!r}")
        count = 0
        while bob.send(bytes(1024)):
            count += 1
        print(f"bob sends 1 KiB again and again while ann does not read: {count} taken, then 0")
        print(f"ann says {ann.send(b'goodbye')} bytes, and closes with bob's unread")
        await ann.aclose()
        print(f"bob reads {await bob.receive()!r}, then {await bob.receive()!r}")
        await asyncio.gather(bob.aclose(), listener.aclose())


if __name__ == "__main__":
    asyncio.run(_demo())
