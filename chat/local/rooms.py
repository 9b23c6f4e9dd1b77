"""The rooms that are open on this machine, so that ``chat join`` needs no argument.

    RUNTIME/                    0700, ours: $CHAT_RUNTIME, or what the platform offers
      5d41402abc4b2a76/         0700: one per room, the first 16 hex digits of SHA-256 of its name
        lock                    held (flock) while a host keeps the room; says its process id
        card                    the room's record: JSON, 0600: where to dial, and an invite
        door                    held for the moment in which a process checks or takes the lock
        ...                     the transports' sockets

Rules:

1. The lock is the truth, files are not: the kernel drops it with the process, so a host that was killed
   never stops the next one, and a running host is never pushed aside.
2. Checking the lock means briefly acquiring it. Without the second lock, a ``chat join`` that checks would
   make a host that starts just then believe that the room is taken.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from chat.core.errors import AddressError, ChatError, ListenFailed, NoSuchRoom, Text, reason
from chat.local.private_files import check_owner, locked, make_private, read_private, replace_private, try_lock, unlock

MAX_RECORD: Final = 64 * 1024  # bytes
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{16}")


# -- rooms that are open on this machine ---------------------------------------------------------


class RoomRecord(msgspec.Struct, kw_only=True):
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


class RoomLock:
    """One host's hold on one room of this machine: its folder, its lock, its card."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder: Final = folder
        self._fd: int | None = fd

    @classmethod
    def hold(cls, room: str) -> RoomLock:
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

    def write(self, card: RoomRecord) -> None:
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


def records() -> list[RoomRecord]:
    """Return the cards of the rooms that are open on this machine, by name. Raises ChatError."""
    folders = [folder for folder in runtime_folder().iterdir() if _FOLDER_NAME.fullmatch(folder.name)]
    return sorted(filter(None, map(_record_in, folders)), key=lambda card: card.room)


def find(room: str | None) -> RoomRecord:
    """Return the card of this room, or, for None, of the only room that is open on this machine.

    Raises NoSuchRoom; AddressError when there are several to choose from; ChatError.
    """
    if room is not None:
        card = _record_in(runtime_folder() / _folder_name(room))
        if card is None:
            raise NoSuchRoom("not-open", room=room)
        return card
    found = records()
    if not found:
        raise NoSuchRoom("none-open")
    if len(found) > 1:
        names = ", ".join(card.room for card in found)
        raise AddressError(
            "{count} rooms are open on this machine ({names}); name the one you mean",
            count=len(found),
            names=names,
        )
    return found[0]


def _record_in(folder: Path) -> RoomRecord | None:
    """Return a room's card if its host is alive and the card can be trusted; clear a dead host's."""
    card = folder / "card"
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            return None
        check_owner(folder, facts, "700")
        with locked(folder / "door"):
            fd = try_lock(folder / "lock")
            if fd is not None:
                try:
                    card.unlink(missing_ok=True)
                finally:
                    unlock(fd)
                return None
        found = msgspec.json.decode(read_private(card, MAX_RECORD), type=RoomRecord)
    except (OSError, ChatError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if _folder_name(found.room) == folder.name else None


def _pid_in(lock: Path) -> str:
    with suppress(OSError, ChatError):
        text = read_private(lock, 20).decode("ascii", "replace")
        if text.isdigit():
            return text
    return Text("unknown")
