"""Trust on first use: the hosts that this user has met, and the key that each had."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from chat.core.errors import ChatError, StoreFull, Untrusted, reason
from chat.local.identity import fingerprint, hash_in
from chat.local.private_files import locked, make_folders, read_private, replace_private, takes_nothing_now
from chat.local.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chat.transport import Address

_MAX_SIZE: Final = 16 * 1024 * 1024  # bytes of known_hosts; a longer one is an error (exit code 1)
_LINE: Final = re.compile(r"(?:#.*)?|\S+ SHA256:[0-9A-Za-z_-]{43}")


class KnownHosts:
    """A text file that people may edit: ``ADDRESS FINGERPRINT`` for each host, and comments that begin with #."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._unwritten: list[str] = []  # lines that our disk does not take now: for this process they count

    def check(self, address: Address, key: bytes, *, learn: bool = True) -> bool:
        """Say whether the host at ``address`` is known by ``key``; remember a new host, but only with ``learn``.

        A key that was shown but not yet proved must not be remembered. Raises Untrusted if the host had another
        key, or if any line is damaged, since ignoring it would mean trusting anybody. Raises StoreFull if the host
        cannot be remembered now, ChatError if the file cannot be used.
        """
        shown = fingerprint(key)
        if self._is_known(self._read(), address, shown):  # without a lock: the disk may be read-only or full
            return True
        if learn:
            line = f"{_word(address)} {shown}"
            try:
                with self._lines() as lines:
                    if not self._is_known(lines, address, shown):
                        self._write([*lines, line])
            except StoreFull:
                self._unwritten.append(line)
                raise
        return False

    def _is_known(self, lines: list[str], address: Address, shown: str) -> bool:
        name = _word(address)
        for number, line in enumerate(lines, 1):
            if line == f"{name} {shown}":
                return True
            if line.startswith(f"{name} "):
                raise Untrusted(
                    "host-key-changed",
                    address=address,
                    before=line.split()[1],
                    shown=shown,
                    words=words(hash_in(shown)),
                    quoted=shlex.quote(str(address)),
                    number=number,
                    path=self._path,
                )
        return False

    def remember(self, address: Address, key: bytes) -> bool:
        """Remember a key that an invite named and the host proved. Raises like ``check``.

        Return whether it replaced another key; the user should be told so.
        """
        name, shown = _word(address), fingerprint(key)
        if f"{name} {shown}" in self._read():
            return False
        with self._lines() as lines:
            others = [line for line in lines if not line.startswith(f"{name} ")]
            self._write([*others, f"{name} {shown}"])
            return len(others) < len(lines)

    def forget(self, address: Address) -> None:
        """Forget the key of the host at ``address``. Raises like ``check``."""
        with self._lines() as lines:
            self._write([line for line in lines if not line.startswith(f"{_word(address)} ")])

    def known(self) -> dict[str, str]:
        """Return the fingerprint for each address, as the file has them. Raises like ``check``."""
        lines = [line.split() for line in self._read() if line and not line.startswith("#")]
        return {name: shown for name, shown in reversed(lines)}  # noqa: C416 - the first line of a name counts

    def find(self, address: Address) -> str:
        """Return the fingerprint of the host at ``address``, "" for an unknown one. Raises like ``check``."""
        return self.known().get(_word(address), "")

    def hosts(self) -> set[bytes]:
        """Return the hash (``identity.host_hash``) of every known host. Raises like ``check``."""
        return {hash_in(shown) for shown in self.known().values()}

    @contextmanager
    def _lines(self) -> Iterator[list[str]]:
        """Yield the file's lines, and keep other processes from changing them meanwhile."""
        try:
            make_folders(self._path.parent.absolute())
            with locked(self._path.with_name(self._path.name + ".lock")):
                yield self._read()
        except OSError as error:
            kind = StoreFull if takes_nothing_now(error) else ChatError
            raise kind("cannot use {path}: {why}", path=self._path, why=reason(error)) from None

    def _read(self) -> list[str]:
        try:
            data = read_private(self._path, _MAX_SIZE)
        except FileNotFoundError:
            return self._unwritten
        lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
        for number, line in enumerate(lines, 1):
            if "\ufffd" in line or not _LINE.fullmatch(line):
                raise Untrusted("known-hosts-damaged", number=number, path=self._path)
        return lines + self._unwritten

    def _write(self, lines: list[str]) -> None:
        os.close(replace_private(self._path, "".join(f"{line}\n" for line in lines).encode()))


def _word(address: Address) -> str:
    """Return an address without spaces: a space ends it in a line of the file."""
    return quote(str(address), safe="/:?&=[]%,@+")
