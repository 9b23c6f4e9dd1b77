"""Junk on a link costs that link: the member backs off, dials again, and goes on where it was."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest

from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.core.bodies import Challenge, Refusal, pack
from chat.core.errors import Refused, RemoteProtocolError
from chat.core.events import Message
from chat.core.wire import PREFACE, Kind, encode
from chat.transport import Address
from tests.host.host_fixture import HostFixture, Script, run, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing", "quick")
PLAIN = "tcp:127.0.0.1:0?tls=0"  # under TLS a flipped bit breaks the link, before we see any of it
FLIPS = 12


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(connection_module, "_LAST_DELAY", 0.02)


class Flipper:
    """A wire between a member and its host that flips a bit of its nth link's nth piece, one way."""

    def __init__(self, port: int, *, to_host: bool) -> None:
        self._port = port
        self._to_host = to_host
        self.flips = [FLIPS, *range(FLIPS)]  # the first time there is no second try, so the first link is let in

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Address("tcp", f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}", {"tls": "0"})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flipped = self.flips.pop(0) if self.flips else -1
        host_reader, host_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ways = (reader, host_writer, self._to_host), (host_reader, writer, not self._to_host)
        tasks = [asyncio.ensure_future(_carry(*way[:2], flipped if way[2] else -1)) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, host_writer):
            one.close()
            with suppress(OSError):
                await one.wait_closed()
        await asyncio.gather(*tasks)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flipped: int) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            if flipped == 0:
                data = bytes((data[0] ^ 0x80,)) + data[1:]
            flipped -= 1
            writer.write(data)
            await writer.drain()


@pytest.mark.parametrize("to_host", [False, True], ids=["to the member", "to the host"])
def test_a_flipped_bit_costs_a_link_and_no_message(tmp_path: Path, *, to_host: bool) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, PLAIN) as fixture,
            Flipper(port_of(fixture.address), to_host=to_host) as wire,
            fixture.client("ann", addresses=(wire.address,)) as ann,
        ):
            texts: list[str] = []
            while wire.flips or len(texts) < 2 * FLIPS:
                texts.append(str(len(texts)))
                await ann.stored(await ann.say(texts[-1]))
            assert fixture.texts() == texts
            print(f"{FLIPS + 1} links with a flipped bit, {len(texts)} messages, each stored once")

    run(scene())


def port_of(address: Address) -> int:
    return int(address.place.rpartition(":")[2])


def test_another_program_on_the_port_while_the_host_is_down_is_waited_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, PLAIN) as fixture, fixture.client("ann") as ann:
            await ann.event(Up)
            fixture.asked = fixture.address
            await fixture.close()
            await ann.event(Lost)
            waiting = await ann.say("said while it was away")
            met = 0

            async def be_a_web_server(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal met
                met += 1
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                writer.close()

            server = await asyncio.start_server(be_a_web_server, "127.0.0.1", port_of(fixture.asked))
            await until(lambda: met >= 3, "she has called there three times")
            server.close()
            await server.wait_closed()
            await fixture.open()
            await ann.stored(waiting)
            assert fixture.texts() == ["said while it was away"]

    run(scene())


def test_another_host_on_the_port_is_waited_out_and_told_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:a-shared-place") as fixture, fixture.client("ann") as ann:
            await ann.event(Up)
            await fixture.close()
            await ann.event(Lost)
            async with Script(tmp_path / "other", fixture.address) as other:
                for _ in range(3):
                    link = await other.accept()
                    link.send(PREFACE, pack(Kind.CHALLENGE, Challenge(key=other.shown, nonce=link.nonce)))
                    assert await link.everything() == []
            await fixture.open()
            await ann.stored(await ann.say("found you"))

    run(scene())


JUNK = encode(Kind.WELCOME)
NO = pack(Kind.REFUSED, Refusal(code="protocol", fields={"why": "it is junk"}))


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        (JUNK, RemoteProtocolError, "gave up after 12 attempts: the host sent a frame of kind 66"),
        (NO, Refused, "we broke the protocol: it is junk"),
    ],
)
def test_a_host_that_never_gets_further_is_given_up_at_last(
    tmp_path: Path, said: bytes, error: type[Exception], why: str
) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                for number in range(12):
                    if number:
                        link = await script.meet()
                    link.send(said)
                    await link.everything()
                with pytest.raises(error, match=why):
                    await ann.event(Message)

    run(scene())


def test_links_that_live_for_long_in_between_are_no_reason_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                monkeypatch.setattr(connection_module, "SILENCE", 0.0)  # how long is long
                for _ in range(30):
                    await ann.event(Up)
                    link.send(JUNK)
                    await link.everything()
                    link = await script.meet()
                await ann.event(Lost)
            await link.everything()

    run(scene())


def test_a_host_that_gets_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                for number in range(1, 30):
                    if number > 1:
                        link = await script.meet(next_seq=number)
                    link.send(encode(20, seq=number), JUNK)
                    await link.everything()
                link = await script.meet(next_seq=30)
                await ann.event(Lost)
            await link.everything()

    run(scene())
