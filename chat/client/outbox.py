"""What this process said and has not seen come back, on disk: a message survives the process that wrote it.

    FOLDER/                          0700: one per host, room and key
      00c0ffee5eed1234.lock          held (flock) by the process whose outbox it is
      00c0ffee5eed1234.outbox        its records; replaced as a whole now and then, hence the other file

    record:  | length u32 | ~length u32 | CRC-32 u32 | an Entry as MessagePack, ``length`` bytes |

Rules:

1. A message is written here before it goes on the wire, and dropped when its echo has come.
2. A stream's numbers are taken once and in order, so one process at a time may number for it: the one
   with the lock. The next process takes over an outbox whose lock is free, with what lies in it.
3. Nothing is synced to the disk per message. After a power cut the host's mark decides: WELCOME names the
   first number that the host does not have, and the numbers go on from there. What the cut took was shown
   as pending, never as sent.
4. Number 0 is "not numbered yet": said before the host has told its mark. A number that was guessed could
   be one that the host has already, and the host would drop the message as a repeat.
5. An outbox is taken over, never deleted: there are as many as there were processes at one time, and the
   host keeps a mark for each. (To unlink a lock file would be to let two processes hold "the" lock.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import struct
import zlib
from collections import deque
from contextlib import suppress
from itertools import chain, count
from typing import TYPE_CHECKING, Final

import msgspec

from chat.core.codes import NOTICES
from chat.core.errors import StoreError, StoreFull, Text, phrase, reason
from chat.core.outgoing import OutboxEntry
from chat.local.private_files import make_private, replace_private, try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REWRITE_AT: Final = 1024 * 1024  # bytes of settled records in a file before it is written anew

# The length is there twice, the second time inverted. Else a flipped bit in a length would look like a last
# record that was torn, and all that follows would be cut off without a word.
_HEAD: Final = struct.Struct("!III")
_INVERTED: Final = 0xFFFFFFFF
_STREAM_NAME: Final = re.compile(r"[0-9a-f]{16}")
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def outbox_folder(outboxes: Path, *, host: bytes, key: bytes, room: str, nick: str) -> Path:
    """Return where the outboxes of one nickname for one room lie. ``host``: the SHA-256 of the host's public key.

    The nickname is part of it: what bob said and left must not go out as ann's.
    """
    return outboxes / hashlib.sha256(b"\0".join((host, key, room.encode(), nick.encode()))).hexdigest()[:32]


class Outbox:
    """One stream's unsettled entries, in memory and on disk. It is this process's own until ``close``."""

    def __init__(self, folder: Path, stream: int, lock: int) -> None:
        """Use ``Outbox.open``. ``lock`` is the descriptor that holds the stream's lock."""
        self.stream: Final = stream  # random, 1 to 2**64 - 1
        self._path: Final = folder / f"{stream:016x}.outbox"
        self._lock: int | None = lock
        self._settled = 0  # bytes of settled records at the start of the file
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(self._fd, "rb", closefd=False) as file:
                data = file.read()
            entries, self._end, damaged = _read(data)
            self.entries: Final = deque(entries)  # unsettled, in the order in which they were said
            self._sizes = deque(len(_record(entry)) for entry in entries)  # of their records, in bytes
            self.warning: Final = self._set_aside(data) if damaged else phrase("", {})
            os.ftruncate(self._fd, self._end)  # behind it: damage, or a last record that its writer was killed in
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def open(cls, folder: Path) -> Outbox:
        """Take over an outbox that no process holds, one with something in it first; else make a new one.

        Raises StoreFull and StoreError; ChatError when others can get at ``folder``.
        """
        make_private(folder)
        try:
            idle = [path for path in folder.glob("*.outbox") if _STREAM_NAME.fullmatch(path.stem)]
            idle.sort(key=lambda path: path.stat().st_size == 0)
            for stream in chain((int(path.stem, 16) for path in idle), _new_streams()):
                lock = try_lock(folder / f"{stream:016x}.lock")
                if lock is None:
                    continue
                try:
                    return cls(folder, stream, lock)
                except BaseException:
                    unlock(lock)
                    raise
        except OSError as error:
            raise _failed(Text("cannot open an outbox in {folder}", folder=folder), error) from None
        raise AssertionError("there is always another new stream")

    def add(self, entry: OutboxEntry) -> None:
        """Put ``entry`` on the disk, in one write. Raises StoreFull, StoreError; then nothing has changed."""
        record = _record(entry)
        try:
            if os.pwrite(self._fd, record, self._end) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the part that fitted does not help
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise _failed(Text("cannot keep a message in {path}", path=self._path), error) from None
        self._end += len(record)
        self._sizes.append(len(record))
        self.entries.append(entry)

    def settle(self, number: int) -> list[OutboxEntry]:
        """Drop the entries numbered up to ``number`` and return them. Never raises for a disk that fails.

        Stops where numbers do not ascend: there they began anew, or are not given yet.
        """
        settled: list[OutboxEntry] = []
        last = 0
        while self.entries and last < self.entries[0].number <= number:
            last = self.entries[0].number
            settled.append(self.entries.popleft())
            self._settled += self._sizes.popleft()
        # To keep settled records for longer does no harm: whoever takes over learns the host's mark.
        with suppress(OSError):
            if settled and not self.entries:
                os.ftruncate(self._fd, 0)
                self._end = self._settled = 0
            elif self._settled > REWRITE_AT:
                self._rewrite()
        return settled

    def rewrite(self) -> None:
        """Put the entries on the disk as they are now, all or none: after their numbers have changed.

        Raises StoreFull or StoreError; the disk then holds them as they were.
        """
        try:
            self._rewrite()
        except OSError as error:
            raise _failed(Text("cannot write {path} anew", path=self._path), error) from None

    def close(self) -> None:
        """Leave what is unsettled to the next process. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(self._fd)
            self._fd = -1  # the number may soon be another file's
            unlock(lock)

    def _rewrite(self) -> None:
        records = [_record(entry) for entry in self.entries]
        fd = replace_private(self._path, b"".join(records))
        os.close(self._fd)
        self._fd, self._settled = fd, 0
        self._sizes = deque(map(len, records))
        self._end = sum(self._sizes)

    def _set_aside(self, data: bytes) -> Text:
        """Keep a copy of a damaged file before it is cut off where the damage begins."""
        aside = next(path for n in count(1) if not (path := self._path.with_suffix(f".damaged-{n}")).exists())
        os.close(replace_private(aside, data))
        fields = {"number": self._end, "size": len(data), "count": len(self.entries), "path": str(aside)}
        return phrase(NOTICES["outbox"], fields)


def _record(entry: OutboxEntry) -> bytes:
    packed = msgspec.msgpack.encode(entry)
    return _HEAD.pack(len(packed), len(packed) ^ _INVERTED, zlib.crc32(packed)) + packed


def _read(data: bytes) -> tuple[list[OutboxEntry], int, bool]:
    """Return the entries at the start of a file, where they end, and whether damage (no torn end) follows."""
    entries: list[OutboxEntry] = []
    at = 0
    while len(data) - at >= _HEAD.size:
        length, inverted, checksum = _HEAD.unpack_from(data, at)
        packed = data[at + _HEAD.size : at + _HEAD.size + length]
        if length ^ inverted != _INVERTED:
            return entries, at, True
        if len(packed) < length:
            break
        if zlib.crc32(packed) != checksum:
            return entries, at, True
        try:
            entries.append(msgspec.msgpack.decode(packed, type=OutboxEntry))
        except msgspec.DecodeError:
            return entries, at, True
        at += _HEAD.size + length
    return entries, at, False


def _new_streams() -> Iterator[int]:
    while True:
        yield secrets.randbelow((1 << 64) - 1) + 1


def _failed(what: Text, error: OSError) -> StoreError:
    if error.errno in _FULL:
        return StoreFull("{what}: {why}; free some space and try again", what=what, why=reason(error))
    return StoreError("{what}: {why}", what=what, why=reason(error))
