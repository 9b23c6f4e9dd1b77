"""What reads the bytes of somebody who is not trusted: a function for each, for any bytes.

Each raises only for a fault of ours. tests/property/test_fuzz.py runs them for seconds, scripts/fuzz for as long as
you like.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from chat.core import bodies
from chat.core.bodies import (
    Ask,
    Author,
    Hello,
    Moderation,
    Names,
    Presence,
    Rejection,
    Struct,
    pack,
    unpack,
)
from chat.core.errors import AddressError, RemoteProtocolError
from chat.core.session import Session
from chat.core.status import Status, pack_slot, unpack_slot
from chat.core.text import nickname, reserved, skeleton, visible
from chat.core.wire import HEADER_SIZE, MAX_FRAME, MAX_HELLO, PREFACE, Frame, Kind, Parser, encode, run_of, split
from chat.host.requests import REQUESTS
from chat.local.identity import Identity
from chat.local.invite import Invite
from chat.transport import Address
from chat.transport.source import BadHeader, header_size, read_header
from tests.host.host_fixture import FakeLink, HostFixture, RawPeer
from tests.property.test_states import KEY, STATES, go_on, receive

if TYPE_CHECKING:
    from collections.abc import Callable

GROWTH: Final = 64 * 1024  # bytes of memory that one connection to a host may take
LONGEST: Final = 8 * 1024  # bytes of one input: what is said stays in memory for a while, and must not hide the growth
_SHAPES: Final = [one for one in vars(bodies).values() if isinstance(one, type) and issubclass(one, Struct)]
TURNS: Final = 30  # of the loop, in which a host has done all that it does with one input
INPUTS_A_HOST: Final = 500


def decoder(data: bytes) -> None:
    """However the bytes are cut, the frames and the error are the same."""
    found = []
    for size in (len(data) or 1, 1 + len(data) // 3):
        for limit in (MAX_HELLO, MAX_FRAME):
            parser, frames, error = Parser(limit=limit), list[Frame](), False
            try:
                for at in range(0, len(data), size):
                    frames.extend(parser.feed(data[at : at + size]))
                    assert len(parser.rest) < limit
            except RemoteProtocolError:
                error = True
            found.append((limit, frames, error))
    assert sorted(found[:2]) == sorted(found[2:])
    ends = run_of(data, 1, 20_000)
    assert [frame.number for frame in split(data[: ends[-1]] if ends else b"")] == [*range(1, len(ends) + 1)]
    with suppress(RemoteProtocolError):
        assert b"".join(frame.raw for frame in split(data)) == data


def body(data: bytes) -> None:
    """As each struct: what was read can be sent on, and is the same when it is read again."""
    for shape in _SHAPES:
        with suppress(RemoteProtocolError):
            found = unpack(shape, next(split(encode(0, data[: MAX_FRAME - HEADER_SIZE]))))
            assert unpack(shape, next(split(pack(0, found)))) == found


def other(data: bytes) -> None:
    """What is no frame: a slot of the board, a proxy's header, what people paste, names and texts."""
    if (slot := unpack_slot(data)) is not None:
        pack_slot(*slot[0], slot[1])
    with suppress(BadHeader):
        read_header(data[: header_size(data)])
    text = data.decode("utf-8", "surrogateescape")
    for read in (Address.parse, Invite.parse):
        with suppress(AddressError):
            read(text)
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*visible(text)}
    with suppress(ValueError):
        nick = nickname(text)
        assert skeleton(nick)
        reserved(nick)


def client(data: bytes) -> None:
    """A client in any state gets these bytes from its host."""
    session = Session("r", KEY, nick="me")
    STATES[data[0] % len(STATES) if data else 0][1](session)
    receive(session, data[1:])
    go_on(session)


class _Faults(logging.Handler):
    """A fault of ours that costs one peer its link is in the host's log, and nowhere else."""

    def emit(self, record: logging.LogRecord) -> None:
        assert "please report it" not in record.getMessage(), record.exc_info


class Hosts:
    """Real hosts, one after another, to which peers send bytes over links that the test holds."""

    def __init__(self) -> None:
        self._fixture: HostFixture | None = None
        self._left = 0  # inputs for this host
        self._loop = asyncio.new_event_loop()
        self._eve = Identity(Ed25519PrivateKey.generate())
        logging.getLogger("chat").addHandler(_Faults())

    def stranger(self, data: bytes) -> None:
        """Somebody who has just connected sends these bytes."""
        self._send(data)

    def hello(self, data: bytes) -> None:
        """Somebody says any HELLO, and signs it well."""
        with suppress(RemoteProtocolError):
            self._send(b"", unpack(Hello, next(split(encode(Kind.HELLO, data[: MAX_HELLO - 500])))))

    def member(self, data: bytes) -> None:
        """Somebody sends these bytes behind a good HELLO."""
        self._send(data, Hello(room="lobby", key=KEY, nonce=KEY, signature=b"", nick="eve", stream=1))

    def close(self) -> None:
        self._loop.run_until_complete(self._end())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _send(self, data: bytes, hello: Hello | None = None) -> None:
        if self._loop.run_until_complete(self._connect(data, hello)) > GROWTH:  # by what is made once, perhaps
            growth = self._loop.run_until_complete(self._connect(data, hello))
            assert growth <= GROWTH, f"one connection takes {growth} bytes"

    def ready(self) -> None:
        """Open the next host now, if it is time, and not during an input."""
        self._loop.run_until_complete(self._host())

    async def _host(self) -> HostFixture:
        if self._left <= 0:
            await self._end()
        if self._fixture is None:
            self._folder = tempfile.TemporaryDirectory(prefix="chat-fuzz-")
            self._fixture, self._left = HostFixture(Path(self._folder.name) / "host"), INPUTS_A_HOST
            await self._fixture.open()
            self._fixture.host.work.charge = lambda source: 0.0  # type: ignore[method-assign]  # noqa: ARG005
        return self._fixture

    async def _end(self) -> None:
        if self._fixture is not None:
            await self._fixture.close()
            self._folder.cleanup()
            self._fixture = None

    async def _connect(self, data: bytes, hello: Hello | None) -> int:
        """Return how many bytes of memory the connection takes; 0 if nobody counts."""
        fixture = await self._host()
        self._left -= 1
        link = FakeLink("fuzz")
        raw = RawPeer(fixture, link)
        before = tracemalloc.get_traced_memory()[0]
        serving = asyncio.ensure_future(fixture.host._admission.serve(link))
        await asyncio.sleep(0)
        if hello is not None:
            (raw.challenge,) = raw.parser.feed(b"".join(link.taken))
            signed = await raw.hello("eve", room=hello.room, key=self._eve)
            signed = replace(hello, key=signed.key, nonce=signed.nonce, signature=signed.signature)
            data = PREFACE + pack(Kind.HELLO, signed) + data
        half = 1 + len(data) // 2
        for at in range(0, len(data), half):
            link.arrive(data[at : at + half])
            for _ in range(TURNS):
                await asyncio.sleep(0)
        link.taken.clear()  # what the host has sent is not its own any more
        growth = tracemalloc.get_traced_memory()[0] - before
        link.arrive(b"")
        async with asyncio.timeout(20):
            await serving
        return growth


# Good inputs, for a fuzzer to begin with.
FRAMES: Final = (
    encode(Kind.SAY, "hello 小明".encode(), number=1),
    encode(Kind.SAY, bytes(7) + b"\1reply", number=1, flags=1) + encode(Kind.ACTION, b"waves", number=2),
    *(encode(kind, bytes(7) + b"\1x", number=1) for kind in (Kind.EDIT, Kind.RETRACT, Kind.REACT)),
    *(
        pack(Kind.ASK, Ask(what=what, text="bob", before=9, limit=5), number=1)
        for what in ("names", "nonsense", *REQUESTS)
    ),
    encode(Kind.STATE, pack_slot(KEY, "eve", Status())),
    encode(Kind.BEAT) + encode(Kind.BYE),
    pack(Kind.HELLO, Hello(room="lobby", key=KEY, nonce=KEY, signature=KEY * 2, nick="eve", stream=1, history=5)),
    pack(Kind.HELLO, Hello(room="lobby", key=KEY, nonce=KEY, signature=KEY * 2, epoch=b"an epoch", last=b"1" * 8)),
    pack(Kind.PRESENCE, Presence(here=[(KEY, "eve")], reset=True)),
    pack(Kind.NAMES, Names(authors=[Author(index=1, key=KEY, stream=1, nick="eve")], asked=[1, 2])),
    pack(Kind.MODERATION, Moderation(action="role", by=KEY, by_nick="ann", key=KEY, role="muted")),
    pack(Kind.REJECTED, Rejection(number=1, code="too-long", fields={"size": 9, "limit": 5})),
    encode(Kind.RANGE, encode(Kind.SAY, b"hi", seq=1), flags=1),
    encode(Kind.ASK, b"\x81\xa1x" + b"\x91" * 1500, number=1),
    b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 7711\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    b"chat://127.0.0.1:33483/lobby#" + b"A" * 43 + b"." + b"A" * 22,
    "\u0410nn\u0301\u202e\x1b[2J".encode(),
)
SEEDS: Final = (*FRAMES, *(one[HEADER_SIZE:] for one in FRAMES), *(PREFACE + one for one in FRAMES))


_FREE: Final = (decoder, body, other, client)
NAMES: Final = (*(one.__name__ for one in _FREE), "stranger", "hello", "member")


def targets(hosts: Hosts) -> dict[str, Callable[[bytes], None]]:
    return dict(zip(NAMES, (*_FREE, hosts.stranger, hosts.hello, hosts.member), strict=True))
