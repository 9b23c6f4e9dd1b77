"""The transports and boards that are installed. All are found by their entry points, even the built-in ones."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from chat.core.errors import AddressError, Text, UnknownScheme
from chat.transport.api import Forking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from chat.transport.api import BoardMaker, Transport


_lent: Final[dict[str, Transport]] = {}


@cache
def _entry_points(group: str = "chat.transports") -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def schemes() -> list[str]:
    """Return the names of the installed transports, sorted."""
    return sorted(_entry_points())


@contextmanager
def lend(transport: Transport) -> Iterator[None]:
    """Make ``find`` return this object meanwhile, whether its scheme is installed or not. For tests."""
    before = dict(_lent)
    _lent[transport.scheme] = transport
    try:
        yield
    finally:
        _lent.clear()
        _lent.update(before)


def find(scheme: str) -> Transport:
    """Return the transport with this name. Raises UnknownScheme; AddressError if it cannot be loaded."""
    if scheme in _lent:
        return _lent[scheme]
    if not _entry_points():
        raise AddressError("no transports are installed; run scripts/chat, which installs them, or: pip install .")
    entry = _entry_points().get(scheme)
    if entry is None:
        raise UnknownScheme(scheme, _entry_points())
    try:
        transport: Transport = entry.load()
    except ImportError as error:
        raise AddressError(
            "the transport {scheme!r} cannot be loaded: {why}; install what it needs", scheme=scheme, why=error
        ) from None
    return transport


def cost(scheme: str) -> int:
    """Return a transport's cost; 100 if it cannot be used here."""
    try:
        found: int = getattr(find(scheme), "cost", 10)
    except AddressError:  # UnknownScheme, too
        return 100
    return found


def local_scheme() -> str:
    """Return the cheapest transport between processes on this machine. Raises AddressError if there is none."""
    local = [found.scheme for found in _loaded() if getattr(found, "local", False)]
    if not local:
        raise AddressError("no transport here connects the processes of one machine; install manywire's own")
    return min(local, key=cost)


@cache
def bare_scheme() -> str:
    """Return the transport of a bare HOST:PORT, "" if none takes it."""
    return next((found.scheme for found in _loaded() if getattr(found, "bare_addresses", False)), "")


def _loaded() -> Iterator[Transport]:
    """Yield the transports that can be used here: a broken plug-in must not affect the others."""
    for scheme in schemes():
        with suppress(Exception):
            yield find(scheme)


def forking() -> Forking:
    """Return a transport that reaches processes started here. Raises AddressError if there is none."""
    for scheme in schemes():
        transport = find(scheme)
        if isinstance(transport, Forking):
            return transport
    raise AddressError("no transport here can reach a process that is started here; install manywire's own")


def boards() -> list[str]:
    """Return the names of the installed boards, sorted."""
    return sorted(_entry_points("chat.boards"))


def find_board(name: str) -> BoardMaker:
    """Return the board with this name. Raises AddressError if it is not installed or cannot be loaded."""
    entry = _entry_points("chat.boards").get(name)
    if entry is None:
        raise AddressError(
            "unknown board {name!r}; installed: {known}",
            name=name,
            known=", ".join(boards()) or Text("none: run scripts/chat"),
        )
    try:
        maker: BoardMaker = entry.load()
    except ImportError as error:
        raise AddressError(
            "the board {name!r} cannot be loaded: {why}; install what it needs", name=name, why=error
        ) from None
    return maker


def board_maker() -> BoardMaker | None:
    """Return what makes boards on this system. Without one (None), members are sent each other's status instead."""
    names = boards()
    return find_board(names[0]) if names else None
