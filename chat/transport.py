"""What a transport is, and the door by which transports come in.

Rules:

1. A transport moves bytes to one peer, in order, unchanged. It knows nothing of rooms or messages.
2. It keeps no queue: what does not fit now stays at the member's cursor, where it costs nothing.
3. It is found by its entry point in the group ``chat.transports``, the built-in ones too. This package
   names none of them.

The numbered promises that every transport must keep are in ``chat.testing``.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl, quote, unquote

from chat.errors import AddressError, UnknownScheme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or dial: ``SCHEME[:PLACE][?OPTION=VALUE&...]``.

    What PLACE means is the transport's affair. An address holds no secret: it stands in ``ps`` and in logs.
    """

    scheme: str
    place: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises AddressError."""
        rest, _, query = text.partition("?")
        scheme, _, place = rest.partition(":")
        if not (scheme.isascii() and scheme.isalnum()) or not text.isprintable() or " " in text:
            raise AddressError(f"{text!r} is not an address; write NAME or NAME:PLACE, like tcp:127.0.0.1:7711")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise AddressError(f"the options in {text!r} cannot be read; write ?name=value&name=value") from None
        return cls(scheme.lower(), unquote(place), dict(pairs))

    def __str__(self) -> str:
        # A path may hold what would end the place or break the line: written %XX, as in a URL.
        place = "".join(quote(c) if c in " ?%" or not c.isprintable() else c for c in self.place)
        place = f":{place}" if place else ""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.options.items())
        return f"{self.scheme}{place}{'?' + query if query else ''}"

    def allow_options(self, *names: str) -> None:
        """Raise AddressError for an option that is not one of ``names``: a typo must not be ignored."""
        for name in self.options:
            if name not in names:
                known = f"it knows {', '.join(names)}" if names else "it has none"
                raise AddressError(f"{self.scheme} has no option {name!r}; {known}")


@dataclass(frozen=True, slots=True)
class Site:
    """What a host offers to its listeners."""

    folder: Path  # the room's runtime folder, mode 0700: for sockets and FIFOs
    certificate: Path  # PEM, mode 0600: the host's Ed25519 private key and its self-signed certificate
    advertise: str = ""  # the name under which others reach this machine, where the user gave one
    previous: Address | None = None  # what this listener's address was the last time, where it was open before


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: a text for people, and facts that the peer cannot make up."""

    text: str
    key: bytes | None = None  # the Ed25519 public key that the wire itself has proved (TLS)
    uid: int | None = None  # from the kernel
    pid: int | None = None


class Link(Protocol):
    """An ordered, reliable, two-way path for bytes to one peer."""

    @property
    def peer(self) -> Peer: ...

    def send(self, data: Buffer) -> int:
        """Take what fits now and return how many bytes that was, 0 to ``len(data)``; never wait.

        Keeps no reference to ``data``. Raises LinkBroken, or LinkClosed after ``aclose``.
        """

    async def writable(self) -> None:
        """Return when ``send`` may take something. Safe to cancel. Raises LinkBusy, LinkBroken, LinkClosed."""

    async def receive(self) -> bytes:
        """Return some bytes, at most 64 KiB, or ``b""`` at the end of the stream and ever after.

        Safe to cancel: no byte is lost. Raises LinkBusy, LinkBroken, LinkClosed.
        """

    async def aclose(self) -> None:
        """Close. Idempotent; wakes those who wait; does not wait for the peer."""


class Listener(Protocol):
    """A place where peers come in.

    A listener may also have ``advertised``: the address for invites, where it is not the one for this machine.
    """

    @property
    def address(self) -> Address:
        """An address that can be dialled from this machine."""

    async def accept(self) -> Link:
        """Return the next peer's link. Safe to cancel. Raises LinkClosed when the listener has been closed."""

    async def aclose(self) -> None:
        """Stop listening; links made here live on. Idempotent; wakes ``accept``."""


class Transport(Protocol):
    """A way to move bytes between programs."""

    scheme: str
    summary: str  # one line for ``chat transports``

    async def listen(self, address: Address, site: Site) -> Listener:
        """Raises AddressError, ListenFailed."""

    async def dial(self, address: Address) -> Link:
        """Raises AddressError, DialFailed."""


_lent: Final[dict[str, Transport]] = {}


@cache
def _doors() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="chat.transports")}


def schemes() -> list[str]:
    """The names of the installed transports, sorted."""
    return sorted(_doors())


@contextmanager
def lend(transport: Transport) -> Iterator[None]:
    """Have ``find`` return this very object meanwhile, whether its scheme is installed or not. For tests."""
    before = dict(_lent)
    _lent[transport.scheme] = transport
    try:
        yield
    finally:
        _lent.clear()
        _lent.update(before)


def find(scheme: str) -> Transport:
    """Return the transport of this name. Raises UnknownScheme; AddressError when it cannot be loaded."""
    if scheme in _lent:
        return _lent[scheme]
    if not _doors():
        raise AddressError("no transports are installed; run scripts/chat, which installs them, or: pip install .")
    door = _doors().get(scheme)
    if door is None:
        raise UnknownScheme(scheme, _doors())
    try:
        transport: Transport = door.load()
    except ImportError as error:
        raise AddressError(f"the transport {scheme!r} cannot be loaded: {error}; install what it needs") from None
    return transport
