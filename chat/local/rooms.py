"""The rooms that are open on this machine, so that ``chat join`` needs no argument.

    RUNTIME/                    0700, ours: $CHAT_RUNTIME, or what the platform offers
      5d41402abc4b2a76/         0700: one per room, the first 16 hex digits of SHA-256 of its name
        lock                    held (flock) by the room's host; contains its process id
        card                    the room's record (JSON, 0600): where to dial, and an invite
        door                    held while a process checks or takes the lock
        ...                     the transports' sockets

Rules:

1. The lock is the truth, files are not. The kernel drops it with the process, so a killed host never blocks the
   next one, and a running host is never displaced.
2. Without the second lock, a host that starts while ``chat join`` checks the first would find the room taken.
3. The folder may go at any time: with the last logout, or by a cleaner of /tmp. The host makes it anew.
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

from chat.core.errors import AddressError, ChatError, ListenFailed, NoSuchRoom, Text, WrongValue, reason
from chat.local.private_files import (
    check_owner,
    is_file,
    locked,
    make_private,
    read_private,
    remove_lock,
    replace_private,
    try_lock,
    unlock,
)
from chat.transport.typed import typed

MAX_RECORD: Final = 64 * 1024  # bytes of a room's record on this machine; a longer one is an error (exit code 1)
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{16}")


class RoomRecord(msgspec.Struct, kw_only=True):
    """What a host tells other processes of its user."""

    room: str
    addresses: list[str]  # as Address.parse takes them
    host: str  # SHA-256 of the host's public key, 64 hex digits
    invite: str  # chat://...: lets its reader in
    pid: int
    started: int  # milliseconds since 1970 UTC
    shared: bool = False  # other users may enter: the host knows their login names, and the board does not
    owner: str = ""  # the login name of the user whose room it is, if it was found among those for other users

    @property
    def name(self) -> str:
        """The name by which ``find`` finds it."""
        return f"{self.owner}/{self.room}" if self.owner else self.room

    def __repr__(self) -> str:
        """Without the invite, which is a secret."""
        return f"RoomRecord(room={self.room!r}, addresses={self.addresses!r}, host={self.host!r}, pid={self.pid})"


class RoomLock:
    """One host's hold on one room of this machine: its folder, lock and record."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder: Final = folder
        self._fd: int | None = fd
        self._record: RoomRecord | None = None

    @classmethod
    def hold(cls, room: str) -> RoomLock:
        """Take the room for this process. Raises ListenFailed if another process has it; ChatError."""
        folder = room_folder(room)
        return cls(folder, _take(folder, room))

    def write(self, record: RoomRecord) -> None:
        """Replace the record. Raises ChatError."""
        self._record = record
        try:
            os.close(replace_private(self.folder / "card", msgspec.json.encode(record)))
        except OSError as error:
            raise ChatError("cannot write {path}: {why}", path=self.folder / "card", why=reason(error)) from None

    def renew(self) -> bool:
        """Make folder, lock and record anew if they were removed; return whether they were. Call it at each beat.

        Raises ListenFailed if another process has taken the room meanwhile; ChatError if they cannot be made now.
        """
        if self._fd is None or self._record is None or (self._is_ours() and (self.folder / "card").exists()):
            return False
        try:
            make_private(self.folder)
        except ChatError as error:
            raise ChatError(
                "{why}; until that is possible, nobody on this machine finds the room. if the folder goes when you "
                "log out, run: loginctl enable-linger",
                why=error.words,
            ) from None
        if not self._is_ours():
            before, self._fd = self._fd, _take(self.folder, self._record.room)
            unlock(before)
        self.write(self._record)
        return True

    def close(self) -> None:
        """Remove the record and release the room. Idempotent."""
        if self._fd is not None:
            with suppress(OSError):
                if self._is_ours():
                    (self.folder / "card").unlink(missing_ok=True)
            fd, self._fd = self._fd, None
            remove_lock(self.folder / "lock", fd)

    def _is_ours(self) -> bool:
        """Return whether others find the lock that we hold."""
        assert self._fd is not None
        return is_file(self.folder / "lock", self._fd)


def _take(folder: Path, room: str) -> int:
    """Return a descriptor that holds the lock of this room. Raises ListenFailed."""
    lock = folder / "lock"
    try:
        with locked(folder / "door"):
            fd = try_lock(lock)
            if fd is None:
                raise ListenFailed(
                    "room {room!r} is already open on this machine (process {pid}); join it with: chat join {room}; "
                    "close it with: kill {pid}",
                    room=room,
                    pid=_pid_in(lock),
                )
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d" % os.getpid(), 0)
                (folder / "card").unlink(missing_ok=True)  # a killed host left it
            except BaseException:
                unlock(fd)
                raise
    except OSError as error:
        raise ListenFailed(
            "cannot open room {room!r} in {folder}: {why}", room=room, folder=folder, why=reason(error)
        ) from None
    return fd


def runtime_folder() -> Path:
    """Return the folder (0700) for what runs on this machine: ``$CHAT_RUNTIME``, or the platform's place.

    That is ``$XDG_RUNTIME_DIR/manywire``; without the variable /run/user/UID, else a folder in /tmp
    (https://specifications.freedesktop.org/basedir-spec/). Raises ChatError if it cannot be trusted.
    """
    chosen = os.environ.get("CHAT_RUNTIME", "")
    if chosen:
        return _checked(Path(chosen))
    import platformdirs  # a client that dials an address does not need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its fallback, which is checked below
            offered = platformdirs.user_runtime_path("manywire")
    except OSError as error:
        raise ChatError(
            "no runtime folder: {why}; set CHAT_RUNTIME to a folder of your own", why=reason(error)
        ) from None
    return _checked(offered)


def _checked(folder: Path) -> Path:
    try:
        str(folder).encode()  # it is part of addresses, which are text
    except UnicodeEncodeError:
        raise ChatError(
            "the name of the folder {folder} is not UTF-8; set CHAT_RUNTIME to a folder of your own", folder=folder
        ) from None
    return make_private(folder)


def room_folder(room: str) -> Path:
    """Return the room's folder (0700). It is named by a hash: a socket's path has at most 107 bytes."""
    return make_private(runtime_folder() / folder_name(room))


def folder_name(room: str) -> str:
    """Return 16 hex digits for a room, whose name may be in any script."""
    return hashlib.sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def records() -> list[RoomRecord]:
    """Return the records of the rooms open on this machine, our own first, sorted by name. Raises ChatError."""
    own = _look()[0]
    return own + _others(own)


def _others(own: list[RoomRecord]) -> list[RoomRecord]:
    """Return the rooms that are open to several users, without our ``own``."""
    from chat.local.shared import shared_records  # a prompt that shows who is in our own room need not wait for it

    known = {(record.room, record.host) for record in own}
    found = [record for record in shared_records() if (record.room, record.host) not in known]
    return sorted(found, key=lambda record: (record.room, record.owner))


def _look() -> tuple[list[RoomRecord], ChatError | None]:
    """Return the records that can be trusted, and why one of the others cannot."""
    found, complaint = [], None
    for folder in runtime_folder().iterdir():
        if _FOLDER_NAME.fullmatch(folder.name):
            try:
                found.append(_record_in(folder))
            except ChatError as error:
                complaint = error
    return sorted(filter(None, found), key=lambda record: record.room), complaint


def named(target: str) -> str | None:
    """Return what ``find`` takes for a TARGET that is neither an address nor an invite. Raises AddressError."""
    from chat.core.text import room_name

    if target in {"", "."}:
        return None
    owner, slash, room = typed(target).rpartition("/")
    if "/" in owner or not owner.strip("."):  # part of a path
        owner, slash, room = "", "", typed(target)
    try:
        return f"{owner}{slash}{room_name(room)}"
    except WrongValue as error:
        raise AddressError(error.words) from None


def find(name: str | None) -> RoomRecord:
    """Return the record of a room, ROOM or OWNER/ROOM; for None, of the only one open on this machine.

    Our own come before those of other users: nobody can put a room in place of ours. Raises NoSuchRoom; AddressError if
    several rooms could be meant; ChatError, also for a record that cannot be trusted.
    """
    complaint = _not_open(name) if name is not None else None
    if name is None:
        found, complaint = _look()
        found = found or ([] if complaint else _others([]))
    elif record := _record_in(runtime_folder() / folder_name(name)):
        return record
    else:
        found = [one for one in _others([]) if name in (one.room, one.name)]
    if not found:
        raise complaint or NoSuchRoom("none-open")
    if len(found) > 1:
        names = ", ".join(record.name for record in found)
        raise AddressError(
            "{count} rooms are open on this machine ({names}); name the one you mean", count=len(found), names=names
        )
    return found[0]


def find_again(record: RoomRecord) -> RoomRecord:
    """Return the current record of a room that ``find`` has found. Raises NoSuchRoom, ChatError.

    Never another user's of this name, nor another host's of that user: what waits to be sent is not for them.
    """
    if not record.owner:
        found = _record_in(runtime_folder() / folder_name(record.room))
    else:
        alike = (one for one in _others([]) if (one.name, one.host) == (record.name, record.host))
        found = next(alike, None)
    if found is None:
        raise _not_open(record.name)
    return found


def _not_open(name: str) -> ChatError:
    if "/" in name:
        return NoSuchRoom("not-shared", room=name)
    return NoSuchRoom("not-open", room=name)


def _record_in(folder: Path) -> RoomRecord | None:
    """Return a room's record if its host is alive; remove a dead host's. Raises ChatError if it cannot be trusted."""
    record = folder / "card"
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            return None
        check_owner(folder, facts, "700")
        record.lstat()
        with locked(folder / "door"):
            fd = try_lock(folder / "lock")
            if fd is not None:
                try:
                    record.unlink(missing_ok=True)
                finally:
                    remove_lock(folder / "lock", fd)
                return None
        found = msgspec.json.decode(read_private(record, MAX_RECORD), type=RoomRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if folder_name(found.room) == folder.name else None


def _pid_in(lock: Path) -> str:
    with suppress(OSError, ChatError):
        text = read_private(lock, 20).decode("ascii", "replace")
        if text.isdigit():
            return text
    return Text("unknown")
