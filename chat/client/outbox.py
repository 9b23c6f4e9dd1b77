"""The outbox: a process's unsettled messages on disk, so that a message survives the process that wrote it.

    FOLDER/                          0700: one per host, room, key and nickname
      00c0ffee5eed1234.unsent.txt    what is not stored, or perhaps not: for people, to send again or to delete
      00c0ffee5eed1234.lock          held (flock) by the process that owns the outbox
      00c0ffee5eed1234.outbox        its records; replaced as a whole now and then, so the lock is a file of its own

    record:  | length u32 | ~length u32 | CRC-32 u32 | an OutboxEntry as MessagePack, ``length`` bytes |

Rules:

1. A message is written here before it goes on the wire, and dropped once the program has dealt with its outcome.
   In memory only the session holds it.
2. The numbers of a stream are used once and in order, so only the process with the lock may number messages. The
   next process takes over an outbox whose lock is free, with its contents.
3. Messages are not synced to disk one by one. After a power cut the host's high-water mark decides: WELCOME names the
   first number that the host does not have, and numbering continues there. A lost message was shown as pending.
4. Number 0 means "not numbered yet": said before the host's high-water mark was known. A guessed number could be one
   that the host already has, and the host would drop the message as a repeat.
5. An outbox is taken over, never deleted. There are as many as there were processes at one time, and the host keeps
   a high-water mark for each.
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
from itertools import chain, count, islice, product
from typing import TYPE_CHECKING, Final

import msgspec

from chat.core.codes import LOCAL
from chat.core.errors import StoreError, StoreFull, Text, phrase, reason
from chat.core.outgoing import OutboxEntry, split_body
from chat.local.private_files import make_private, replace_private, takes_nothing_now, try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

REWRITE_AT: Final = 1024 * 1024  # bytes of settled records in a file before it is written anew

# The length is there twice, the second time inverted. Otherwise a flipped bit in a length would look like a torn last
# record, and everything behind it would be cut off silently.
_HEAD: Final = struct.Struct("!III")
_INVERTED: Final = 0xFFFFFFFF
_STREAM_NAME: Final = re.compile(r"[0-9a-f]{16}")
_MAX_SPELLINGS: Final = 256  # all those of 8 letters; 1 ms


def outbox_folder(outboxes: Path, *, host: bytes, key: bytes, room: str, nick: str) -> Path:
    """Return the folder of one nickname's outboxes for one room. ``host``: the SHA-256 of the host's public key.

    The nickname is part of it: what bob left unsent must not go out as ann's. Bob and bob are one nickname, but
    a folder may be named by a hash of another spelling: earlier versions took the one that was typed.
    """

    def name(spelling: str) -> str:
        return hashlib.sha256(b"\0".join((host, key, room.encode(), spelling.encode()))).hexdigest()[:32]

    there: set[str] = set()
    with suppress(OSError):  # listed once: a command may ask for every host and nickname that it knows
        there = {path.name for path in outboxes.iterdir()}
    known = (found for spelling in _spellings(nick) if (found := name(spelling)) in there)
    return outboxes / next(known, name(nick.casefold()))


def _spellings(nick: str) -> Iterator[str]:
    """Yield a nickname as it is typed, as new folders have it, and in other cases, the likely ones first."""
    yield from (nick, nick.casefold(), nick.capitalize(), nick.title(), nick.upper())
    either = [dict.fromkeys((letter, letter.lower(), letter.upper())) for letter in nick]
    yield from map("".join, islice(product(*either), _MAX_SPELLINGS))


class Outbox:
    """The file of one stream's unsettled messages; the session holds them. It is this process's own until ``close``."""

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
            self._records = deque((entry.number, len(_record(entry))) for entry in entries)  # and bytes, of each
            self.warning: Final = self._set_aside(data) if damaged else phrase("", {})
            os.ftruncate(self._fd, self._end)  # behind it: damage, or a record whose writer was killed
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def open(cls, folder: Path) -> Outbox:
        """Take over an outbox that no process holds, preferably one with messages in it, or make a new one.

        Raises StoreFull and StoreError, and ChatError if others can access ``folder``.
        """
        make_private(folder)
        try:
            idle = [path for path in folder.glob("*.outbox") if _STREAM_NAME.fullmatch(path.stem)]
            idle.sort(key=lambda path: path.stat().st_size == 0)
            new = iter(lambda: 1 + secrets.randbelow((1 << 64) - 1), 0)  # without end: 0 never comes
            for stream in chain((int(path.stem, 16) for path in idle), new):
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

    def unsettled(self) -> list[OutboxEntry]:
        """Read what is not settled, in the order in which it was said."""
        return _read(self._bytes(self._settled, self._end))[0]

    def _bytes(self, start: int, end: int) -> bytes:
        return os.pread(self._fd, end - start, start)

    def add(self, entry: OutboxEntry) -> None:
        """Write ``entry`` to the disk, in one write. Raises StoreFull, StoreError; then nothing has changed."""
        record = _record(entry)
        try:
            if os.pwrite(self._fd, record, self._end) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # part of a record is no use
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise _failed(Text("cannot keep a message in {path}", path=self._path), error) from None
        self._end += len(record)
        self._records.append((entry.number, len(record)))

    def settle(self, number: int) -> int:
        """Drop the messages numbered up to ``number`` and return how many. Never raises when the disk fails.

        Stops where numbers do not ascend: there the numbering began again, or has not happened yet.
        """
        before, last = len(self._records), 0
        while self._records and last < self._records[0][0] <= number:
            last, size = self._records.popleft()
            self._settled += size
        # Keeping settled records longer does no harm: the next owner learns the host's high-water mark.
        with suppress(OSError):
            if before and not self._records:
                os.ftruncate(self._fd, 0)
                self._end = self._settled = 0
            elif self._settled > REWRITE_AT:
                self._replace(self._bytes(self._settled, self._end))
        return before - len(self._records)

    def drop_last(self) -> None:
        """Remove the newest message. If the disk does not take that, the next process sends it all the same."""
        _number, size = self._records.pop()
        self._end -= size
        with suppress(OSError):
            os.ftruncate(self._fd, self._end)

    def rewrite(self, entries: Collection[OutboxEntry]) -> None:
        """Replace the newest messages in the file by these, which have new numbers; all or none.

        Older ones stay: their outcome is known, but the program has not dealt with it yet. Raises StoreFull or
        StoreError; then nothing has changed.
        """
        kept = list(islice(self._records, len(self._records) - len(entries)))
        records = [_record(entry) for entry in entries]
        old = self._bytes(self._settled, self._settled + sum(size for _number, size in kept))
        try:
            self._replace(old + b"".join(records))
        except OSError as error:
            raise _failed(Text("cannot write {path} anew", path=self._path), error) from None
        self._records = deque(kept)
        self._records.extend((entry.number, len(record)) for entry, record in zip(entries, records, strict=True))

    def keep(self, entry: OutboxEntry) -> Path:
        """Append the text of a message that may not be stored to a file for people; return its path. Raises OSError."""
        path = self._path.with_suffix(".unsent.txt")
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(split_body(entry.kind, entry.flags, entry.body)[0] + "\n")
        return path

    def close(self) -> None:
        """Leave the unsettled messages to the next process. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(self._fd)
            self._fd = -1  # the number may soon be another file's
            unlock(lock)

    def _replace(self, data: bytes) -> None:
        fd = replace_private(self._path, data)
        os.close(self._fd)
        self._fd, self._settled, self._end = fd, 0, len(data)

    def _set_aside(self, data: bytes) -> Text:
        """Copy a damaged file before it is truncated where the damage begins."""
        aside = next(path for n in count(1) if not (path := self._path.with_suffix(f".damaged-{n}")).exists())
        os.close(replace_private(aside, data))
        fields = {"number": self._end, "size": len(data), "count": len(self._records), "path": str(aside)}
        return phrase(LOCAL["outbox"], fields)


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


def _failed(what: Text, error: OSError) -> StoreError:
    if error.errno == errno.EROFS:
        return StoreFull("{what}: {why}", what=what, why=reason(error))
    if takes_nothing_now(error):
        return StoreFull("{what}: {why}; free some space and try again", what=what, why=reason(error))
    return StoreError("{what}: {why}", what=what, why=reason(error))
