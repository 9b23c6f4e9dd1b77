"""What a running host leaves on its machine, so that ``chat join`` needs no argument.

    RUNTIME/                    0700, ours: $CHAT_RUNTIME, or what the platform offers
      5d41402abc4b2a76/         0700: one per room, the first 16 hex digits of SHA-256 of its name
        lock                    held (flock) while a host keeps the room; says its process id
        card                    JSON, 0600: where to dial, and an invite
        door                    held for the moment in which somebody looks at the lock or takes it
        ...                     the transports' sockets

Rules:

1. The lock is the truth, files are not: the kernel drops it with the process, so a host that was killed
   never stops the next one, and a host that runs is never pushed aside.
2. Who looks at a lock must take it for that moment. Without the door, a ``chat join`` that looks would
   make a host that starts just then believe that the room is taken.
3. Lock files are never removed: two processes would then hold locks on two files of one name.
4. What lies on the disk is not trusted before owner, mode, size and shape have been checked.

The files that only their user may read are made and read here for the whole package.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import stat
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from chat.errors import AddressError, ChatError, ListenFailed, NoSuchRoom, Words, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CARD: Final = 64 * 1024  # bytes
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{16}")


# -- files that only this user may read ----------------------------------------------------------


def make_private(folder: Path) -> Path:
    """Make ``folder`` (0700) and what is missing above it, and return it once it is known to be ours alone.

    Raises ChatError when it is a symbolic link, or somebody else owns it, may enter it, or may replace
    what lies above it. A folder that was there with a wrong mode is not put right: somebody may be in it.
    """
    folder = folder.absolute()
    try:
        make_folders(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        facts = folder.lstat()
    except OSError as error:
        raise ChatError("cannot use the folder {folder}: {why}", folder=folder, why=reason(error)) from None
    if not stat.S_ISDIR(facts.st_mode):
        raise ChatError("{folder} is not a folder; move it away", folder=folder)
    _check_owner(folder, facts, "700")
    return folder


def make_folders(folder: Path) -> None:
    """Make what is missing (0700) of an absolute path, and check that nobody else can exchange a part of it.

    In a folder that everybody may write to, like /tmp, the owner of an entry can rename it at any time.
    Raises ChatError, OSError.
    """
    shared = False
    for parent in (*reversed(folder.parents), folder):
        if not parent.exists():
            with suppress(FileExistsError):
                parent.mkdir(0o700)
        owner = parent.lstat().st_uid
        if shared and owner not in (0, os.geteuid()):
            raise ChatError(
                "{parent} belongs to user {owner}, who could replace what is put in it; use another place",
                parent=parent,
                owner=owner,
            )
        mode = parent.stat().st_mode
        shared = bool(mode & stat.S_IWOTH)
        if shared and not mode & stat.S_ISVTX:
            raise ChatError(
                "every user may rename what is in {parent}; run: chmod o-w {quoted}",
                parent=parent,
                quoted=shlex.quote(str(parent)),
            )


def _check_owner(path: Path, facts: os.stat_result, mode: str) -> None:
    if facts.st_uid != os.geteuid():
        raise ChatError(
            "{path} belongs to user {uid}, and you are user {own}; use one of your own",
            path=path,
            uid=facts.st_uid,
            own=os.geteuid(),
        )
    if facts.st_mode & 0o077:
        raise ChatError(
            "{path} is open to other users (mode {found:04o}); run: chmod {mode} {quoted}",
            path=path,
            found=stat.S_IMODE(facts.st_mode),
            mode=mode,
            quoted=shlex.quote(str(path)),
        )


def read_private(path: Path, limit: int) -> bytes:
    """Return what is in a file of ours that others cannot read: at most ``limit`` bytes.

    Raises FileNotFoundError, and ChatError for everything else: not ours, open to others, a symbolic
    link, not a plain file, too long.
    """
    try:
        # O_NONBLOCK: opening a FIFO that somebody put there would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                raise ChatError("{path} is not a plain file; move it away", path=path)
            _check_owner(path, facts, "600")
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ChatError("cannot read {path}: {why}", path=path, why=reason(error)) from None
    if len(data) > limit:
        raise ChatError("{path} is longer than {limit} bytes; it is not what it should be", path=path, limit=limit)
    return data


def replace_private(path: Path, data: bytes) -> int:
    """Write a file (0600) so that a reader sees the old bytes or all the new ones; return it, open.

    The caller holds the lock that covers ``path``, owns the descriptor returned, and gets an OSError
    when it fails; then nothing has changed.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # left by one that was killed
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(data)
        # Without it a power cut may keep the rename and lose the bytes: an empty file in place of a good one.
        os.fsync(fd)
        new.replace(path)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            new.unlink()
        raise
    return fd


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock on ``path`` (flock), or None while somebody else does.

    The file is made where it is missing. The descriptor is not inherited by a program started from here
    (O_CLOEXEC, PEP 446), but a child that was forked without exec shares the lock and keeps it alive.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def unlock(fd: int) -> None:
    """Let go of a lock: by name, since closing alone would leave it to a forked child that has it, too."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on ``path`` for a moment, waiting for those who hold it for theirs."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# -- rooms that are open on this machine ---------------------------------------------------------


class Card(msgspec.Struct, kw_only=True):
    """What a host says to those who may read its files."""

    room: str
    addresses: list[str]  # as Address.parse takes them
    host: str  # SHA-256 of the host's public key, 64 hex digits
    invite: str  # chat://...: lets its reader in
    pid: int
    started: int  # milliseconds since 1970 UTC

    def __repr__(self) -> str:
        """Without the invite, which is a secret."""
        return f"Card(room={self.room!r}, addresses={self.addresses!r}, host={self.host!r}, pid={self.pid})"


class Desk:
    """One host's hold on one room of this machine: its folder, its lock, its card."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder: Final = folder
        self._fd: int | None = fd

    @classmethod
    def hold(cls, room: str) -> Desk:
        """Take the room for this process. Raises ListenFailed when another one keeps it; ChatError."""
        folder = room_folder(room)
        lock = folder / "lock"
        try:
            with locked(folder / "door"):
                fd = try_lock(lock)
                if fd is None:
                    raise ListenFailed(
                        "room {room!r} is already open on this machine (process {pid}); join it with: chat join {room}",
                        room=room,
                        pid=_pid_in(lock),
                    )
                try:
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d" % os.getpid(), 0)
                    (folder / "card").unlink(missing_ok=True)  # left by a host that was killed
                except BaseException:
                    unlock(fd)
                    raise
        except OSError as error:
            raise ListenFailed(
                "cannot open room {room!r} in {folder}: {why}", room=room, folder=folder, why=reason(error)
            ) from None
        return cls(folder, fd)

    def write(self, card: Card) -> None:
        """Lay out the card, in place of the one before. Raises ChatError."""
        try:
            os.close(replace_private(self.folder / "card", msgspec.json.encode(card)))
        except OSError as error:
            raise ChatError("cannot write {path}: {why}", path=self.folder / "card", why=reason(error)) from None

    def close(self) -> None:
        """Take the card away and let the room go. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                (self.folder / "card").unlink(missing_ok=True)
            unlock(fd)


def runtime_folder() -> Path:
    """Return the folder (0700) of what runs on this machine: ``$CHAT_RUNTIME``, or what the platform offers.

    That is ``$XDG_RUNTIME_DIR/manywire``; where the variable is missing, /run/user/UID, else a folder in
    /tmp (https://specifications.freedesktop.org/basedir-spec/). Raises ChatError when it cannot be trusted.
    """
    chosen = os.environ.get("CHAT_RUNTIME", "")
    if chosen:
        return make_private(Path(chosen))
    import platformdirs  # here: a client that dials an address never needs it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of its fallback; we check what it offers instead
            offered = platformdirs.user_runtime_path("manywire")
    except OSError as error:
        raise ChatError(
            "no runtime folder: {why}; set CHAT_RUNTIME to a folder of your own", why=reason(error)
        ) from None
    return make_private(offered)


def room_folder(room: str) -> Path:
    """Return the room's folder (0700). A hash stands for the name: a socket's path fails at 108 bytes."""
    return make_private(runtime_folder() / _folder_name(room))


def _folder_name(room: str) -> str:
    return hashlib.sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def cards() -> list[Card]:
    """Return the cards of the rooms that are open on this machine, by name. Raises ChatError."""
    folders = [folder for folder in runtime_folder().iterdir() if _FOLDER_NAME.fullmatch(folder.name)]
    return sorted(filter(None, map(_card_in, folders)), key=lambda card: card.room)


def find(room: str | None) -> Card:
    """Return the card of this room, or, for None, of the only room that is open on this machine.

    Raises NoSuchRoom; AddressError when there are several to choose from; ChatError.
    """
    if room is not None:
        card = _card_in(runtime_folder() / _folder_name(room))
        if card is None:
            raise NoSuchRoom("room {room!r} is not open on this machine; open it with: chat host {room}", room=room)
        return card
    found = cards()
    if not found:
        raise NoSuchRoom("no room is open on this machine; open one with: chat host")
    if len(found) > 1:
        names = ", ".join(card.room for card in found)
        raise AddressError(
            "{count} rooms are open on this machine ({names}); name the one that you mean",
            count=len(found),
            names=names,
        )
    return found[0]


def _card_in(folder: Path) -> Card | None:
    """Return a room's card if its host is alive and the card can be trusted; clear a dead host's."""
    card = folder / "card"
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            return None
        _check_owner(folder, facts, "700")
        with locked(folder / "door"):
            fd = try_lock(folder / "lock")
            if fd is not None:
                try:
                    card.unlink(missing_ok=True)
                finally:
                    unlock(fd)
                return None
        found = msgspec.json.decode(read_private(card, MAX_CARD), type=Card)
    except (OSError, ChatError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if _folder_name(found.room) == folder.name else None


def _pid_in(lock: Path) -> str:
    with suppress(OSError, ChatError):
        text = read_private(lock, 20).decode("ascii", "replace")
        if text.isdigit():
            return text
    return Words("unknown")
