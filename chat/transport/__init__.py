"""What a transport is, what a board is, and the errors they raise. A transport imports nothing else of `chat`.

`chat.transport.link` and `chat.transport.tls` have ready-made links; `chat.transport.registry` knows which transports
are installed.

What may enter: what every transport needs, whoever writes it. Nothing here names a transport or knows about rooms.

Rules:

1. A transport moves bytes to one peer, in order and unchanged. It knows nothing about rooms or messages.
2. It keeps no queue: what does not fit now stays at the member's cursor, where it costs nothing.
3. It is found by its entry point in the group ``chat.transports``, even if it is built in. This package names none.
4. A board is the opposite of a link: nothing is sent. Each writer has its own slot, a write replaces the previous one,
   and everybody reads. Boards are in the group ``chat.boards``.

``chat.testing`` numbers the promises that every transport and every board must keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable
from urllib.parse import parse_qsl, quote, unquote

from chat.core.errors import (
    AddressError,
    ChatError,
    DialFailed,
    LinkBroken,
    LinkBusy,
    LinkClosed,
    ListenFailed,
    Text,
    TransportError,
    WrongValue,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "MAX_SLOT",
    "TRUST_MS",
    "Address",
    "AddressError",
    "Board",
    "BoardMaker",
    "BoardSlot",
    "Buffer",
    "ChatError",
    "DialFailed",
    "Forking",
    "Link",
    "LinkBroken",
    "LinkBusy",
    "LinkClosed",
    "ListenFailed",
    "Listener",
    "Pair",
    "Peer",
    "Reading",
    "Shared",
    "Site",
    "Text",
    "Transport",
    "TransportError",
    "WrongValue",
    "reason",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
Reading: TypeAlias = tuple[int, bytes, int]  # a slot's index, its payload, milliseconds since its writer's last beat

MAX_SLOT: Final = 234  # bytes that a slot of a board holds; more raises ValueError
TRUST_MS: Final = 5_000  # milliseconds after its last beat during which a writer counts as alive without a check


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or dial: ``SCHEME[:PLACE][?OPTION=VALUE&...]``.

    The transport decides what PLACE means. An address holds no secret: it appears in ``ps`` and in logs.
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
            raise AddressError(
                "{text!r} is not an address; write NAME or NAME:PLACE, like tcp:127.0.0.1:7711", text=text
            )
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise AddressError(
                "the options in {text!r} cannot be read; write ?name=value&name=value", text=text
            ) from None
        return cls(scheme.lower(), unquote(place), dict(pairs))

    def __str__(self) -> str:
        # A path may hold characters that would end the place or break the line: written %XX, as in a URL.
        place = "".join(quote(c) if c in " ?%" or not c.isprintable() else c for c in self.place)
        place = f":{place}" if place else ""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.options.items())
        return f"{self.scheme}{place}{'?' + query if query else ''}"

    @property
    def brief(self) -> str:
        """A short form for people: a path on this machine is long, and says no more than the scheme."""
        return self.scheme if self.place.startswith("/") else str(self)

    def allow_options(self, *names: str) -> None:
        """Raise AddressError for an option that is not one of ``names``: a typo must not be ignored."""
        for name in self.options:
            if name not in names:
                known = Text("it knows {names}", names=", ".join(names)) if names else Text("it has none")
                raise AddressError(
                    "{scheme} has no option {name!r}; {known}", scheme=self.scheme, name=name, known=known
                )


@dataclass(frozen=True, slots=True)
class Site:
    """What a host offers to its listeners."""

    folder: Path  # the room's runtime folder, mode 0700: for sockets and FIFOs
    certificate: Path  # PEM, mode 0600: the host's Ed25519 private key and its self-signed certificate
    advertise: str = ""  # the name under which others reach this machine, if the user gave one
    previous: Address | None = None  # this listener's address last time, if it was open before
    proxies: str = ""  # the addresses of proxies that say in front of each connection whose it is; see ``source``


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: a text for people, and facts that the peer cannot forge."""

    text: str
    key: bytes | None = None  # the Ed25519 public key that the wire itself proved (TLS)
    uid: int | None = None  # from the kernel
    pid: int | None = None
    invited: bool = False  # the listener serves several users and has let this one in: it needs no invite
    source: str = ""  # whose share of the host's limits it uses, if not its uid's: see ``source``


class Link(Protocol):
    """An ordered, reliable, two-way path for bytes to one peer.

    One more attribute is optional:

    ``linger``  seconds that a closed link may take, in the background, to deliver what it took. The host sets it to 0
                for peers that it pushes out, whose descriptors it needs at once
    """

    @property
    def peer(self) -> Peer: ...

    def send(self, data: Buffer) -> int:
        """Take what fits now and return the number of bytes taken, 0 to ``len(data)``; never wait.

        Keeps no reference to ``data``. Raises LinkBroken, or LinkClosed after ``aclose``.
        """

    async def writable(self) -> None:
        """Return when ``send`` can take something. Safe to cancel. Raises LinkBusy, LinkBroken, LinkClosed."""

    async def receive(self) -> bytes:
        """Return some bytes, at most 64 KiB, or ``b""`` at the end of the stream and ever after.

        Safe to cancel: no byte is lost. Raises LinkBusy, LinkBroken, LinkClosed.
        """

    async def aclose(self) -> None:
        """Close. Idempotent; wakes all waits; does not wait for the peer."""


class Listener(Protocol):
    """What accepts links at an address.

    Two more attributes are optional:

    ``advertised``  the address for invites, if it differs from the one for this machine; None if nobody elsewhere can
                    dial it
    ``sound()``     whether diallers still find it; if its file is gone, the host listens again
    """

    @property
    def address(self) -> Address:
        """An address that can be dialled from this machine."""

    async def accept(self) -> Link:
        """Return the next peer's link. Safe to cancel. Raises LinkClosed once the listener is closed."""

    async def aclose(self) -> None:
        """Stop listening; accepted links stay open. Idempotent; wakes ``accept``."""


class Transport(Protocol):
    """A way to move bytes between programs.

    Four more attributes are optional:

    ``cost``            a room's cheapest transport is dialled first; the default is 10
    ``local``           it connects processes on one machine; the host's own window uses the cheapest of these
    ``inside``          it connects parts of one program only, so ``chat host`` does not listen on it
    ``bare_addresses``  a bare HOST:PORT, as in an invite, is an address of this transport
    """

    scheme: str
    summary: str  # one line for ``chat transports``

    async def listen(self, address: Address, site: Site) -> Listener:
        """Raises AddressError, ListenFailed."""

    async def dial(self, address: Address) -> Link:
        """Raises AddressError, DialFailed."""


class Pair(Protocol):
    """A wire to a process that does not exist yet. Create it, start the process, then call one of the methods."""

    @property
    def address(self) -> Address:
        """The address that the process dials, once."""

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that it must inherit for that."""

    def in_parent(self, peer: Peer) -> Link:
        """Close the other's ends and return our link to it. Needs a running event loop."""

    def in_child(self) -> None:
        """In a forked process that does not exec: close what belongs to its parent."""

    def close(self) -> None:
        """Give up: there will be no such process."""


@runtime_checkable
class Forking(Protocol):
    """A transport that can also reach processes started by its own process."""

    def pair(self) -> Pair: ...


@runtime_checkable
class Shared(Protocol):
    """A transport that also connects different users of one machine, whom it knows by the kernel.

    ``listen`` takes the option ``group=GID`` or ``everyone=yes``, and serves them in ``site.folder``, which they may
    pass through (x) and only its owner may write to.
    """

    scheme: str

    def shared_address(self, folder: Path, user: int) -> Address:
        """Return the address of a host of ``user`` that listens in ``folder``; ``dial`` refuses anybody else's."""

    def is_live(self, address: Address) -> bool:
        """Whether a host listens at an address of this kind. The host does not notice."""


class BoardSlot(Protocol):
    """A place on a board that belongs to one writer until the writer closes it or dies."""

    @property
    def index(self) -> int: ...

    def write(self, payload: Buffer) -> None:
        """Replace the content by at most ``MAX_SLOT`` bytes; an empty payload shows nothing.

        Counts as a beat. Keeps no reference. Raises ValueError if the payload is too long, ChatError.
        """

    def beat(self) -> None:
        """Show that the writer is alive; call it about every 4 s. Raises ChatError."""

    def close(self) -> None:
        """Wipe and release the slot. Idempotent; never raises."""


class Board(Protocol):
    """A fixed number of slots that all processes on this machine can read.

    Nothing queues and nobody is woken. No call waits for another process. Use it from one thread.
    """

    def claim(self) -> BoardSlot | None:
        """Take a slot that no live process holds; None if there is none. Raises ChatError."""

    def read(self, trust_ms: int = TRUST_MS) -> list[Reading]:
        """Return the content of the slots whose writers are alive, by index, without empty slots.

        If a writer's last beat is ``trust_ms`` old or older, the kernel is asked. Dead writers are left out. A live
        writer that does not beat (SIGSTOP) is not; its age shows it. A slot that cannot be read just now returns its
        previous content. An unchanged payload is the same object. Raises ChatError.
        """

    def sound(self) -> bool:
        """Return whether others still use this board; check it at every beat.

        If they do not (it was damaged, removed or replaced), close it, open it again, and claim again. The host creates
        it again instead. Raises ChatError.
        """

    def close(self) -> None:
        """Close it and every slot claimed through it. Idempotent; other slots do not change."""


class BoardMaker(Protocol):
    """A way to share a board between processes on one machine."""

    summary: str

    def create(self, folder: Path) -> Board:
        """Open the board in a private folder for a host. Create it if it is missing; replace it if it is unsound.

        The slots of a sound board stay as they are. Raises ChatError.
        """

    def open(self, folder: Path) -> Board:
        """Open the board that a host created there. Raises ChatError, also if it is missing or unsound."""

    def remove(self, folder: Path) -> None:
        """Remove the board as its host leaves; those who have it open see that it is no longer sound. Never raises."""
