"""The transports and boards that are installed. All are found by their entry points, even the built-in ones."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from chat.core.errors import AddressError, UnknownScheme
from chat.transport import Forking, Shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from chat.transport import BoardMaker, Transport


_lent: Final[dict[str, Transport]] = {}


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as error:
        raise AddressError(
            "{name} cannot be loaded: {why}; install what it needs", name=entry.name, why=error
        ) from None


def schemes() -> list[str]:
    """Return the names of the installed transports, sorted."""
    return list(_entry_points("chat.transports"))


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
    installed = _entry_points("chat.transports")
    if not installed:
        raise AddressError("no transports are installed; run scripts/chat, which installs them, or: pip install .")
    if scheme not in installed:
        raise UnknownScheme(scheme, installed)
    transport: Transport = _load(installed[scheme])
    return transport


def _usable() -> Iterator[Transport]:
    for scheme in schemes():
        with suppress(Exception):  # a broken plug-in must not affect the others
            yield find(scheme)


def cost(scheme: str) -> int:
    """Return a transport's cost; 100 if it cannot be used here."""
    try:
        found: int = getattr(find(scheme), "cost", 10)
    except AddressError:  # UnknownScheme, too
        return 100
    return found


def is_local(scheme: str) -> bool:
    """Whether a transport connects processes on one machine only, as far as is known here."""
    with suppress(AddressError):  # UnknownScheme, too
        return getattr(find(scheme), "local", False)
    return False


def local_scheme() -> str:
    """Return the cheapest transport between processes on this machine. Raises AddressError if there is none."""
    local = [found.scheme for found in _usable() if getattr(found, "local", False)]
    if not local:
        raise AddressError("no transport here connects the processes of one machine; install manywire's own")
    return min(local, key=cost)


@cache
def bare_scheme() -> str:
    """Return the transport of a bare HOST:PORT, "" if none takes it."""
    return next((found.scheme for found in _usable() if getattr(found, "bare_addresses", False)), "")


def forking() -> Forking:
    """Return a transport that reaches processes started here. Raises AddressError if there is none."""
    for transport in _usable():
        if isinstance(transport, Forking):
            return transport
    raise AddressError("no transport here can reach a process that is started here; install manywire's own")


def shared() -> Shared:
    """Return a transport that connects different users. Raises AddressError if there is none."""
    for transport in _usable():
        if isinstance(transport, Shared):
            return transport
    raise AddressError("no transport here connects different users of one machine; install manywire's own")


def boards() -> list[str]:
    """Return the names of the installed boards, sorted."""
    return list(_entry_points("chat.boards"))


def find_board(name: str) -> BoardMaker:
    """Return one of ``boards``. Raises AddressError if it cannot be loaded."""
    maker: BoardMaker = _load(_entry_points("chat.boards")[name])
    return maker


def board_maker() -> BoardMaker | None:
    """Return what makes boards on this system. Without one (None), members are sent each other's status instead."""
    names = boards()
    return find_board(names[0]) if names else None
