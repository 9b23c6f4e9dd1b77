"""Rooms that are open to other users of this machine, so that ``chat join`` finds those, too.

    /tmp                         or $CHAT_SHARED: all may make files there, and remove only their own (sticky)
      manywire-1000-k3v9q2xd/    0710 and the group's, or 0711: others pass through, and list and lock nothing
        card                     0640 or 0644: the room's name and its host's key; no secret
        queue                    the transport's socket, 0660 or 0666

Rules:

1. A folder is whose ``lstat`` says. Its name proves nothing, and is random, so that nobody takes it in advance.
2. Only its owner may write to it. Everything in it is somebody else's word, checked before it is used or shown.
3. There is no lock: whoever can open a file can hold its lock. The socket tells whether the host lives.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from chat.core.errors import ChatError, WrongValue, reason
from chat.core.text import room_name, visible
from chat.core.wire import MAX_LOGIN, YEAR_9999
from chat.local.private_files import make_folders, read_regular, replace_private
from chat.local.rooms import MAX_RECORD, RoomRecord
from chat.transport.registry import shared

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SHARED_ROOMS: Final = 16  # rooms of one other user that ``chat rooms`` looks at; it passes over more
_PREFIX: Final = "manywire-"
_HOST: Final = re.compile(r"[0-9a-f]{64}")


class SharedRoom:
    """The folder by which others find a room: all users for "", or a ``group``. Raises WrongValue, ChatError."""

    def __init__(self, group: str) -> None:
        self._gid = group_id(group)
        self._group = group
        self._record: RoomRecord | None = None
        import tempfile  # here: those who only look for rooms need not wait for it

        base = _base()
        try:
            make_folders(base)
            self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.geteuid()}-", dir=base))
        except OSError as error:
            raise ChatError(
                "cannot make a folder for other users in {base}: {why}", base=base, why=reason(error)
            ) from None
        try:
            self._open_up()
        except BaseException:
            self.close()
            raise

    @property
    def options(self) -> dict[str, str]:
        """How the transport is to listen there."""
        for_whom = {"everyone": "yes"} if self._gid < 0 else {"group": str(self._gid)}
        return {"user": str(os.geteuid()), **for_whom}

    def _open_up(self) -> None:
        try:
            os.chown(self.folder, -1, self._gid)
            self.folder.chmod(0o711 if self._gid < 0 else 0o710)
        except PermissionError:
            raise ChatError(
                "you cannot open a room to group {group}: your session is not in it; "
                "log in again if you were added to it",
                group=self._group,
            ) from None

    def write(self, record: RoomRecord) -> None:
        """Tell other users of the room; without the invite and our own addresses. Raises ChatError."""
        self._record = replace(record, addresses=[], invite="")
        card = self.folder / "card"
        try:
            fd = replace_private(card, msgspec.json.encode(self._record))
            try:
                os.fchown(fd, -1, self._gid)
                os.fchmod(fd, 0o644 if self._gid < 0 else 0o640)
            finally:
                os.close(fd)
        except OSError as error:
            raise ChatError("cannot write {path}: {why}", path=card, why=reason(error)) from None

    def renew(self) -> bool:
        """Make anew what a cleaner of /tmp has removed; return whether one had. Call it at each beat.

        Raises ChatError.
        """
        assert self._record is not None
        try:
            with suppress(FileNotFoundError):
                if _is_ours(self.folder.lstat()) and (self.folder / "card").exists():
                    return False
            with suppress(FileExistsError):
                self.folder.mkdir(0o700)
            if not _is_ours(self.folder.lstat()):
                raise ChatError("{folder} was taken by another user; open the room again", folder=self.folder)
            self._open_up()
        except OSError as error:
            raise ChatError("cannot make {folder} again: {why}", folder=self.folder, why=reason(error)) from None
        self.write(self._record)
        return True

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        _remove(self.folder)


def group_id(group: str) -> int:
    """Return a group's number, -1 for "", as chown(2) takes it. Raises WrongValue."""
    try:
        return grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise WrongValue("there is no group {group} on this machine", group=group) from None


def shared_records() -> list[RoomRecord]:
    """Return the records of the rooms that are open to several users; remove what a killed host of ours left.

    What cannot be trusted is left out: any user can put things there.
    """
    try:
        entries = sorted(path for path in _base().iterdir() if path.name.startswith(_PREFIX))
    except OSError:
        return []
    counts: dict[int, int] = {}
    return [record for folder in entries for record in _record_in(folder, counts)]


def _record_in(folder: Path, counts: dict[int, int]) -> Iterator[RoomRecord]:
    """Yield the record of a folder, if it is sound and its host lives."""
    with suppress(OSError, ValueError, RecursionError):  # msgspec's errors, too; of lists in lists in lists …
        facts = folder.lstat()
        owner = facts.st_uid
        if not stat.S_ISDIR(facts.st_mode):  # not counted: of a file, anybody can make hard links
            return
        counts[owner] = counts.get(owner, 0) + 1
        if counts[owner] > MAX_SHARED_ROOMS or facts.st_mode & 0o022:
            return
        card, data = read_regular(folder / "card", MAX_RECORD, os.O_NOFOLLOW)
        if card.st_uid != owner or card.st_mode & 0o022:
            return
        found = msgspec.json.decode(data, type=RoomRecord)
        if room_name(found.room) != found.room or not _HOST.fullmatch(found.host):
            return
        address = shared().shared_address(folder, owner)
        if not shared().is_live(address):
            if owner == os.geteuid():
                _remove(folder)
            return
        started = min(max(found.started, 0), YEAR_9999)
        yield replace(found, owner=login(owner), addresses=[str(address)], invite="", started=started)


def _base() -> Path:
    # Not tempfile.gettempdir(): each user may have another one, and all must look into the same.
    return Path(os.environ.get("CHAT_SHARED", "") or "/tmp").absolute()  # noqa: S108 - see rules 1 and 2


def _remove(folder: Path) -> None:
    """Remove a folder of ours; not what somebody else, or a link of theirs, has put in its place."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(fd) if _is_ours(os.fstat(fd)) else ():  # noqa: PTH208 - as ``dir_fd`` needs them
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        folder.rmdir()


def _is_ours(facts: os.stat_result) -> bool:
    return facts.st_uid == os.geteuid() and stat.S_ISDIR(facts.st_mode)


@lru_cache(maxsize=1024)  # users: the system may have to ask another machine
def login(uid: int) -> str:
    """Return a user's login name; the number if there is none, or one that cannot be shown."""
    with suppress(KeyError, OSError, UnicodeError):
        name = pwd.getpwuid(uid).pw_name
        if 0 < len(name.encode()) <= MAX_LOGIN and "/" not in name and visible(name, lines=False) == name:
            return name
    return str(uid)
