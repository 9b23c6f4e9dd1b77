"""The hosts this user has met, and the key that each had: trust on first use."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from chat.core.errors import ChatError, Refused, reason
from chat.local.identity import fingerprint
from chat.local.private_files import locked, make_folders, read_private, replace_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chat.transport import Address
_MAX_KNOWN_HOSTS: Final = 16 * 1024 * 1024


# -- hosts that we have met ----------------------------------------------------------------------


class KnownHosts:
    """Which key a host had the last time: trust on first use, one ``ADDRESS FINGERPRINT`` a line.

    A text file, since people have to change it. Lines that begin with # are theirs.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def check(self, address: Address, key: bytes, *, learn: bool = True) -> bool:
        """Whether the host at ``address`` is known by ``key``. False for a new one, which is now remembered.

        Without ``learn`` it is not: a key that was only shown, and not yet proved, must not be kept.

        Raises Refused when it had another key, and when the file has a line that cannot be read: to go on
        as if that line were not there would be to trust anybody. ChatError when the file cannot be used.
        """
        name, shown = _known_name(address), fingerprint(key)
        with self._lines() as lines:
            for number, line in enumerate(lines, 1):
                if line == f"{name} {shown}":
                    return True
                if line.startswith(f"{name} "):
                    raise Refused(
                        "host-key-changed",
                        address=address,
                        before=line.split()[1],
                        shown=shown,
                        number=number,
                        path=self._path,
                    )
            if learn:
                self._write([*lines, f"{name} {shown}"])
        return False

    def remember(self, address: Address, key: bytes) -> bool:
        """Note a key known in a better way than by meeting it: an invite named it, and the host proved it.

        Returns whether it took the place of another key, which people should be told. Raises like ``check``.
        """
        name, shown = _known_name(address), fingerprint(key)
        with self._lines() as lines:
            if f"{name} {shown}" in lines:
                return False
            others = [line for line in lines if not line.startswith(f"{name} ")]
            self._write([*others, f"{name} {shown}"])
            return len(others) < len(lines)

    @contextmanager
    def _lines(self) -> Iterator[list[str]]:
        """The file's lines, under a lock: no other process changes them meanwhile."""
        try:
            make_folders(self._path.parent.absolute())
            with locked(self._path.with_name(self._path.name + ".lock")):
                yield self._read()
        except OSError as error:
            raise ChatError("cannot use {path}: {why}", path=self._path, why=reason(error)) from None

    def _read(self) -> list[str]:
        try:
            data = read_private(self._path, _MAX_KNOWN_HOSTS)
        except FileNotFoundError:
            return []
        lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
        for number, line in enumerate(lines, 1):
            if "\ufffd" in line or not _KNOWN_LINE.fullmatch(line):
                raise Refused(
                    "known-hosts-damaged",
                    number=number,
                    path=self._path,
                )
        return lines

    def _write(self, lines: list[str]) -> None:
        os.close(replace_private(self._path, "".join(f"{line}\n" for line in lines).encode()))


_KNOWN_LINE: Final = re.compile(r"(?:#.*)?|\S+ SHA256:[0-9A-Za-z_-]{43}")


def _known_name(address: Address) -> str:
    """An address as one word: in a line of the file, a space ends it."""
    return quote(str(address), safe="/:?&=[]%,@+")
