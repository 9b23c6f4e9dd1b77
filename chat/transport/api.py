"""What a transport is, and what a board is.

Rules:

1. A transport moves bytes to one peer, in order, unchanged. It knows nothing of rooms or messages.
2. It keeps no queue: what does not fit now stays at the member's cursor, where it costs nothing.
3. It is found by its entry point in the group ``chat.transports``, the built-in ones too. This package
   names none of them.
4. A board is the opposite of a link: nothing is sent, each writes its own slot, and all look. What was
   there before is gone. Boards come in by the group ``chat.boards``.

The numbered promises that every transport and every board must keep are in ``chat.testing``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from chat.transport.address import Address

Buffer: TypeAlias = bytes | bytearray | memoryview
Reading: TypeAlias = tuple[int, bytes, int]  # a slot's index, what is in it, milliseconds since its writer's last beat

MAX_SLOT: Final = 234  # bytes that a slot of a board holds
TRUST_MS: Final = 5_000  # milliseconds after its last beat for which a writer is taken to be alive without asking


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

    A listener may also have ``advertised``: the address for invites, where it is not the one for this machine; None
    where nobody else can dial it.
    """

    @property
    def address(self) -> Address:
        """An address that can be dialled from this machine."""

    async def accept(self) -> Link:
        """Return the next peer's link. Safe to cancel. Raises LinkClosed when the listener has been closed."""

    async def aclose(self) -> None:
        """Stop listening; links made here live on. Idempotent; wakes ``accept``."""


class Transport(Protocol):
    """A way to move bytes between programs.

    Three more attributes are optional:

    ``cost``            of several transports that reach a room the cheapest is dialled first; 10 unless given
    ``local``           it connects the processes of one machine: the host's own window takes the cheapest such one
    ``bare_addresses``  a bare HOST:PORT, as in an invite, is an address of this transport
    """

    scheme: str
    summary: str  # one line for ``chat transports``

    async def listen(self, address: Address, site: Site) -> Listener:
        """Raises AddressError, ListenFailed."""

    async def dial(self, address: Address) -> Link:
        """Raises AddressError, DialFailed."""


class Pair(Protocol):
    """A wire to a process that does not exist yet: first this, then the process, then one of the calls below."""

    @property
    def address(self) -> Address:
        """What the process dials, once."""

    @property
    def fds(self) -> tuple[int, ...]:
        """What it must have inherited for that."""

    def in_parent(self, peer: Peer) -> Link:
        """Let go of the other's ends and return our link to it. In a running event loop."""

    def in_child(self) -> None:
        """In a process that was forked and does no exec: let go of what belongs to its parent."""

    def close(self) -> None:
        """There will be no such process."""


@runtime_checkable
class Forking(Protocol):
    """What a transport has, too, if it can reach the processes that its own starts."""

    def pair(self) -> Pair: ...


class BoardSlot(Protocol):
    """A place on a board that is this writer's alone, until it closes it or dies."""

    @property
    def index(self) -> int: ...

    def write(self, payload: Buffer) -> None:
        """Show this, at most ``MAX_SLOT`` bytes, in place of what was there; nothing is shown for nothing.

        It counts as a beat. Keeps no reference. Raises ValueError when it is too long, ChatError.
        """

    def beat(self) -> None:
        """Say that the writer lives, every 4 s or so. Raises ChatError."""

    def close(self) -> None:
        """Wipe the slot and let go of it. Idempotent; never raises."""


class Board(Protocol):
    """A fixed number of slots that all processes of this machine see, for as long as they like to look.

    Nothing queues and nobody is woken. No call waits for another process. For one thread.
    """

    def claim(self) -> BoardSlot | None:
        """Take a slot that nobody alive holds; None when there is none. Raises ChatError."""

    def read(self, trust_ms: int = TRUST_MS) -> list[Reading]:
        """Return what the slots show whose writers are alive, by index; empty slots are left out.

        A writer whose last beat is ``trust_ms`` old or older is asked for at the kernel: one that is dead is left
        out, one that lives and does not beat (SIGSTOP) is not, and its age tells. A slot that cannot be read just
        now shows what it showed before. A payload that has not changed is the same object. Raises ChatError.
        """

    def sound(self) -> bool:
        """Return whether this is still the board that others look at; ask at every beat.

        If it is not (it was damaged, removed or replaced), close it, open it again, and claim again. The host
        creates it again instead. Raises ChatError.
        """

    def close(self) -> None:
        """Close it, and every slot that was claimed through it. Idempotent; nobody else's slot changes."""


class BoardMaker(Protocol):
    """A way to share a board between the processes of one machine."""

    summary: str

    def create(self, folder: Path) -> Board:
        """Open the board in a private folder for a host: made where it is missing, made anew where it is unsound.

        What those who are alive show on a sound one stays. Raises ChatError.
        """

    def open(self, folder: Path) -> Board:
        """Open the board that a host has made there. Raises ChatError, also where it is missing or unsound."""
