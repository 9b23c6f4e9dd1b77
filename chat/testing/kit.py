"""What the contract needs to know about a transport, and how a clause is checked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from chat.testing.tools import (
    TURNS,
    UNIT,
    ContractBroken,
    alarm,
    begin,
    closing,
    fail,
    load,
    pattern,
    send,
    send_pattern,
)
from chat.transport import Address, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from chat.testing.boards import BoardKit
    from chat.transport import Link, Listener, Transport
CLOG_LIMIT: Final = 256 * 1024 * 1024  # bytes: a link that takes so many without a reader has no bound


# -- kits: what the contract needs to know of a transport ---------------------------------------------


class Kit:
    """One transport under test: set its entry point and an address; override the rest if necessary."""

    entry_point: ClassVar[str]  # "module:object", as in the entry point; a separate process loads it, too
    skips: ClassVar[Mapping[str, str]] = {}  # the clauses that cannot be checked here, each with its reason
    elsewhere: Address | None = None  # where R4 resumes; by default, on another installed transport

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # empty, private, for this kit alone
        self.unit = UNIT * float(os.environ.get("CHAT_TEST_UNIT", "1"))

    @property
    def transport(self) -> Transport:
        transport: Transport = load(self.entry_point)
        return transport

    @property
    def site(self) -> Site:
        return Site(self.folder, self.folder / "certificate.pem")

    def address(self) -> Address:
        """Return an address to listen on, a free one at every call."""
        raise NotImplementedError

    async def clog(self, link: Link, taken: int = 0) -> int:
        """Fill a link whose peer does not read, until it takes nothing more; return how many bytes it took in all.

        The bytes are those of ``pattern``; it may have ``taken`` some before.
        """
        size, refused = 65_536, 0
        while refused < TURNS:  # the kernel may move some on to the peer's side after the first refusal
            piece = bytearray(pattern(taken, size))
            took = send(link, piece)
            piece[:] = bytes(len(piece))  # whoever kept a reference sends zeros now
            piece.clear()  # and whoever kept the buffer itself makes this a BufferError
            taken += took
            if took:
                refused = 0
            elif size > 1:  # a wire of messages may still have room for a smaller one
                size //= 2
            else:
                refused += 1
                await asyncio.sleep(0)
            if taken > CLOG_LIMIT:
                fail(f"the link took {taken} bytes that nobody reads: it has no bound")
        return taken

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        listener = await self.transport.listen(self.address(), self.site)
        try:
            yield listener
        finally:
            await listener.aclose()

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Link, Link]]:
        """Return both ends of a link: the dialled one and the accepted one. The listener is closed."""
        async with self.listening() as listener:
            dialled, accepted = await connect(self.transport, listener)
        try:
            yield dialled, accepted
        finally:
            await dialled.aclose()
            await accepted.aclose()

    @asynccontextmanager
    async def doomed(self, *, dials: bool, sends: bool) -> AsyncIterator[tuple[Link, Callable[[], object]]]:
        """A link to a peer that never reads, and a call that makes the peer vanish without a goodbye.

        ``dials``: the peer dials us, otherwise we dial it. ``sends``: it sends ``pattern`` without end. Here it is
        a process, killed with SIGKILL; a transport that lives within one process must find another way.
        """
        if not dials:
            with self._victim("listen", self.address(), sends=sends) as process:
                assert process.stdout is not None
                address = Address.parse(process.stdout.readline().strip())
                async with closing(await self.transport.dial(address)) as link:
                    yield link, process.kill
            return
        async with self.listening() as listener:
            with self._victim("dial", listener.address, sends=sends) as process:
                async with closing(await listener.accept()) as link:
                    yield link, process.kill

    @contextmanager
    def _victim(self, role: str, address: Address, *, sends: bool) -> Iterator[subprocess.Popen[str]]:
        words = [self.entry_point, role, str(address), "sends" if sends else "silent", str(self.folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "chat.testing", *words, str(self.site.certificate)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with process:  # waits for its end, and closes its output
            try:
                yield process
            finally:
                process.kill()


async def connect(transport: Transport, listener: Listener) -> tuple[Link, Link]:
    """Dial a listener and accept; return both ends of the link."""
    accepting = begin(listener.accept())
    try:
        dialled = await transport.dial(listener.address)
        try:
            return dialled, await accepting
        except BaseException:
            await dialled.aclose()
            raise
    finally:
        accepting.cancel()


# -- clauses ------------------------------------------------------------------------------------------

Check: TypeAlias = "Callable[[Any], Awaitable[None]]"  # of a Kit, or of a BoardKit


@dataclass(frozen=True, slots=True)
class Clause:
    """A numbered promise."""

    name: str
    sentence: str
    check: Check


CLAUSES: Final[dict[str, Clause]] = {}  # T1-T6, L1-L13: the transport by itself
ROOM_CLAUSES: Final[dict[str, Clause]] = {}  # R1-R4: a room over the transport
BOARD_CLAUSES: Final[dict[str, Clause]] = {}  # B1-B5: a board


def clause(name: str, table: dict[str, Clause] = CLAUSES) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        table[name] = Clause(name, " ".join((check.__doc__ or "").split()), check)
        return check

    return register


async def check(kit: Kit | BoardKit, name: str) -> None:
    """Check one clause. Raises ContractBroken, or whatever the transport or board raised that it should not have."""
    clause = (CLAUSES | ROOM_CLAUSES | BOARD_CLAUSES)[name]
    limit = 4 * kit.unit
    try:
        with alarm(limit + kit.unit):
            async with asyncio.timeout(limit):
                await clause.check(kit)
    except TimeoutError as error:
        raise ContractBroken(f"still not done after {limit:g} s\n{name}: {clause.sentence}") from error
    except Exception as error:
        error.add_note(f"{name}: {clause.sentence}")
        raise


async def wait_to_be_killed(
    entry_point: str, role: str, address: str, habit: str, folder: str, certificate: str
) -> None:
    """Run by ``Kit.doomed`` in a separate process: read nothing, and wait to be killed."""
    transport: Transport = load(entry_point)
    if role == "listen":
        listener = await transport.listen(Address.parse(address), Site(Path(folder), Path(certificate)))
        print(listener.address, flush=True)  # noqa: T201  to the one who will kill us
        link = await listener.accept()
    else:
        link = await transport.dial(Address.parse(address))
    if habit == "sends":
        await send_pattern(link)
    await asyncio.get_running_loop().create_future()
