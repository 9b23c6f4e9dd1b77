"""Files that only their user may read, and locks that the kernel drops with the process.

Rules:

1. Nothing on the disk is trusted before its owner, mode, size and type are checked.
2. Checking a lock means briefly acquiring it.
3. Only who holds a lock may remove its file, and whoever gets a lock looks whether the file is still there. Otherwise
   two processes would hold locks on two files of one name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shlex
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chat.core.errors import ChatError, StoreFull, reason

if TYPE_CHECKING:
    from collections.abc import Iterator


def data_folder() -> Path:
    """Return the platform's folder for keys, outboxes and rooms. It may not exist yet."""
    import platformdirs

    return platformdirs.user_data_path("manywire")


def config_file() -> Path:
    """Return the path of the settings: ``$CHAT_CONFIG``, or the platform's place. The file may not exist."""
    if chosen := os.environ.get("CHAT_CONFIG", ""):
        return Path(chosen)
    import platformdirs

    return platformdirs.user_config_path("manywire") / "config.toml"


# -- files that only this user may read ----------------------------------------------------------


def make_private(folder: Path) -> Path:
    """Create ``folder`` (0700) and what is missing above it, and return it once it is known to be private.

    Raises ChatError if it is a symbolic link, or if another user owns it, may enter it, or may replace what is
    above it. The mode of an existing folder is not corrected: somebody may be in it already.
    """
    folder = folder.absolute()
    try:
        make_folders(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        facts = folder.lstat()
    except OSError as error:
        kind = StoreFull if takes_nothing_now(error) else ChatError
        raise kind("cannot use the folder {folder}: {why}", folder=folder, why=reason(error)) from None
    if not stat.S_ISDIR(facts.st_mode):
        raise ChatError("{folder} is not a folder; move it away", folder=folder)
    check_owner(folder, facts, "700")
    return folder


def takes_nothing_now(error: OSError) -> bool:
    """Whether a disk is full, a quota used up, a file as long as it may be, or all of it read-only."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def make_folders(folder: Path) -> None:
    """Create what is missing (0700) of an absolute path, and check that no other user can replace a part of it.

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
                "{parent} belongs to user {owner}, who could replace your files in it; use another place",
                parent=parent,
                owner=owner,
            )
        mode = parent.stat().st_mode
        shared = bool(mode & stat.S_IWOTH)
        if shared and not mode & stat.S_ISVTX:
            raise ChatError(
                "every user can replace files in {parent}; run: chmod o-w {quoted}",
                parent=parent,
                quoted=shlex.quote(str(parent)),
            )


def check_owner(path: Path, facts: os.stat_result, mode: str) -> None:
    if facts.st_uid != os.geteuid():
        raise ChatError(
            "{path} belongs to user {uid}, but you are user {own}; use one of your own",
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


def check_regular(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise ChatError("{path} is not a regular file; move it away", path=path)
    check_owner(path, facts, "600")


def read_regular(path: Path, size: int, flags: int = 0) -> tuple[os.stat_result, bytes]:
    """Return a file's facts, and its first bytes if it is a regular file. Raises OSError."""

    def opener(name: str, mode: int) -> int:
        return os.open(name, mode | flags | os.O_NONBLOCK)  # opening a FIFO would wait for its writer

    with open(path, "rb", opener=opener) as file:
        facts = os.fstat(file.fileno())
        return facts, file.read(size) if stat.S_ISREG(facts.st_mode) else b""


def read_private(path: Path, limit: int) -> bytes:
    """Return the content of a private file, at most ``limit`` bytes.

    Raises FileNotFoundError; ChatError if it is not ours, open to others, not a regular file, or too long.
    """
    try:
        facts, data = read_regular(path, limit + 1, os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ChatError("cannot read {path}: {why}", path=path, why=reason(error)) from None
    check_regular(path, facts)
    if len(data) > limit:
        raise ChatError(
            "{path} is longer than {limit} bytes, so it cannot be right; move it away", path=path, limit=limit
        )
    return data


def replace_private(path: Path, data: bytes, mode: int = 0o600) -> int:
    """Replace a file so that a reader sees all the old bytes or all the new ones; return it, open.

    The caller holds the lock that covers ``path`` and owns the descriptor. Raises OSError; then nothing has changed.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # a killed process left it
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(data)
        os.fchmod(fd, mode)
        # Otherwise a power cut may keep the rename and lose the bytes, which leaves an empty file.
        os.fsync(fd)
        new.replace(path)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            new.unlink()
        raise
    return fd


def create_private(path: Path, data: bytes) -> None:
    """Create a file, complete and 0600 from the start, unless it exists. Raises OSError.

    A link, unlike a rename, never replaces: the first of two processes wins.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()
    # Without it a power cut could take back a key that others know already.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_new(path: Path, data: bytes) -> None:
    """Create a file (0600) that must not exist yet, complete or not at all. Raises OSError.

    Unlike ``create_private`` it makes no link, which a file system on a USB stick may not have.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        path.unlink()
        raise


def is_file(path: Path, fd: int) -> bool:
    """Return whether ``path`` still leads to the file that is open as ``fd``."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except OSError:
        return False


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock on ``path`` (flock), or None if another process does.

    A missing file is created. A started program does not inherit the descriptor (PEP 446), but a child forked
    without exec shares the lock and keeps it alive.
    """
    try:
        return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _lock(path: Path, how: int) -> int:
    """Return a descriptor that holds the lock on the file that ``path`` leads to now. Raises OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, how)
        except BaseException:
            os.close(fd)
            raise
        # Whoever held it may have removed the file: two processes must not hold the locks of two files of one name.
        if is_file(path, fd):
            return fd
        os.close(fd)


def unlock(fd: int) -> None:
    """Release a lock explicitly: closing alone would leave it to a forked child that shares it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def remove_lock(path: Path, fd: int) -> None:
    """Release a lock, and remove its file while nobody else can hold it."""
    with suppress(OSError):
        if is_file(path, fd):
            path.unlink()
    unlock(fd)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on ``path``, once the others have released it; the file is there no longer than that."""
    fd = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        remove_lock(path, fd)
