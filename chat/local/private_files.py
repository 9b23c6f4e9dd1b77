"""Files that only their user may read, and locks that the kernel drops with the process.

Rules:

1. What lies on the disk is not trusted before owner, mode, size and shape have been checked.
2. Checking a lock means briefly acquiring it.
3. Lock files are never removed: two processes would then hold locks on two files of one name.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chat.core.errors import ChatError, reason

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
    check_owner(folder, facts, "700")
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
                raise ChatError("{path} is not a regular file; move it away", path=path)
            check_owner(path, facts, "600")
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ChatError("cannot read {path}: {why}", path=path, why=reason(error)) from None
    if len(data) > limit:
        raise ChatError(
            "{path} is longer than {limit} bytes, so it cannot be right; move it away", path=path, limit=limit
        )
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
