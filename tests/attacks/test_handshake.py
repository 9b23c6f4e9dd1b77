"""Somebody on the way, or with a recording, who tries to enter as somebody else or to pass for the host."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Challenge, Welcome, pack, unpack
from chat.core.errors import LinkBroken, LinkClosed, Refused, RemoteProtocolError
from chat.core.wire import PREFACE, Kind, Parser, encode
from chat.local.identity import load_host
from chat.transport import Address, Site
from chat.transport.registry import find
from tests.attacks.crowd import talking
from tests.host.host_fixture import HostFixture, RawPeer, Script, run, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from chat.transport import Link

TLS: Final = "tcp:127.0.0.1:0"
PLAIN: Final = "tcp:127.0.0.1:0?tls=0"


@asynccontextmanager
async def in_the_middle(
    fixture: HostFixture, folder: Path, change: Callable[[bytes], bytes] = lambda data: data
) -> AsyncIterator[tuple[Address, bytearray]]:
    """Mallory, whose TLS has a certificate of her own: the address, and what people say to her.

    She passes everything on, and ``change``s what the host says.
    """
    site = Site(folder, folder / "host.pem")  # her folder is made with her key
    load_host(site.certificate)
    listener = await find("tcp").listen(Address.parse(TLS), site)
    heard = bytearray()

    async def pump(source: Link, sink: Link, take: Callable[[bytes], bytes]) -> None:
        with suppress(LinkBroken, LinkClosed):
            while data := await source.receive():
                await RawPeer(fixture, sink).send(take(data))
        await sink.aclose()

    def note(data: bytes) -> bytes:
        heard.extend(data)
        return data

    async def serve() -> None:
        near = await listener.accept()
        far = await find("tcp").dial(fixture.address)
        await asyncio.gather(pump(near, far, note), pump(far, near, change))

    serving = asyncio.ensure_future(serve())
    try:
        yield listener.address, heard
    finally:
        await asyncio.wait([serving])
        await listener.aclose()


@pytest.mark.parametrize(
    ("is_invited", "error", "why"),
    [(True, Refused, "not the one in the invite"), (False, RemoteProtocolError, "another key than the one its wire")],
)
def test_a_relay_with_another_certificate_gets_no_hello(
    tmp_path: Path, is_invited: bool, error: type[Exception], why: str
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TLS) as fixture, fixture.members("bob", "cid") as (bob, cid):
            invite = fixture.host.invite("lobby") if is_invited else None
            async with talking(bob, cid), in_the_middle(fixture, tmp_path / "mallory") as (address, heard):
                with pytest.raises(error, match=why):
                    async with fixture.client("ann", addresses=(address,), invite=invite):
                        pass
            assert bytes(heard) in (b"", PREFACE)
            assert sorted(fixture.nicks()) == ["bob", "cid"]

    run(scene())


def test_a_relay_that_shows_its_own_key_cannot_use_what_it_is_told(tmp_path: Path) -> None:
    """Whoever has never met the host signs for Mallory's key, and that signature opens nothing at the host."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TLS) as fixture, fixture.members("bob", "cid") as (bob, cid):
            folder = tmp_path / "mallory"

            def change(data: bytes) -> bytes:
                if not data.startswith(PREFACE):
                    return data
                (challenge,) = Parser().feed(data)
                shown = Challenge(key=load_host(folder / "host.pem").key, nonce=unpack(Challenge, challenge).nonce)
                return PREFACE + pack(Kind.CHALLENGE, shown)

            async with talking(bob, cid), in_the_middle(fixture, folder, change) as (address, heard):
                with pytest.raises(Refused, match="signature does not fit its key"):
                    async with fixture.client("ann", addresses=(address,)):
                        pass
            assert [frame.kind for frame in Parser().feed(bytes(heard))] == [Kind.HELLO]
            assert sorted(fixture.nicks()) == ["bob", "cid"]

    run(scene())


def test_a_recorded_hello_opens_nothing_a_second_time(tmp_path: Path) -> None:
    """Nor do the messages behind it count twice."""

    async def scene() -> None:
        async with HostFixture(tmp_path, PLAIN) as fixture, fixture.members("bob", "cid") as (bob, cid):
            ann = await fixture.dial()
            recording = PREFACE + pack(Kind.HELLO, await ann.hello("ann", stream=7))
            recording += encode(Kind.SAY, b"pay eve", number=1)
            await ann.send(recording)
            await bob.hear("pay eve")
            for is_here in (True, False):
                async with talking(bob, cid):
                    eve = await fixture.dial()
                    await eve.frame(Kind.CHALLENGE)
                    await eve.send(recording)
                    refusal = await eve.refusal()
                    assert (refusal.code, "signature does not fit" in refusal.text) == ("protocol", True)
                    await eve.leave()
                assert ("ann" in fixture.nicks()) is is_here
                await ann.leave()
                await until(lambda: "ann" not in fixture.nicks(), "ann has left")
            assert fixture.texts().count("pay eve") == 1

    run(scene())


def test_a_recorded_host_convinces_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:recorded") as fixture:
            ann = await fixture.raw("ann")
            assert ann.challenge is not None
            assert ann.welcome is not None
            challenge, welcome = ann.challenge.raw, ann.welcome
            await ann.leave()
        async with Script(tmp_path / "eve", fixture.asked) as eve:
            accepting = asyncio.ensure_future(eve.accept())
            coming = asyncio.ensure_future(fixture.client("ann").__aenter__())
            link = await accepting
            link.send(PREFACE, challenge)
            await link.frame(Kind.HELLO)
            link.send(pack(Kind.WELCOME, welcome))
            with pytest.raises(Refused, match="cannot prove that it holds its key"):
                await coming
            assert [frame.kind for frame in await link.everything()] == []

    run(scene())


@pytest.mark.parametrize("is_here", [True, False])
def test_a_nickname_stays_with_its_key(tmp_path: Path, is_here: bool) -> None:
    """Whoever asks for it with another key is shown under another, also while its owner is away."""

    async def scene() -> None:
        async with HostFixture(tmp_path, PLAIN) as fixture, fixture.members("bob", "cid", "dan") as (bob, cid, dan):
            ann = await fixture.raw("ann")
            await ann.say(1, "I am ann")
            await dan.hear("I am ann")
            if not is_here:
                await ann.leave()
                await until(lambda: "ann" not in fixture.nicks(), "ann has left")
            async with talking(bob, cid):
                for wanted in ("ann", "ANN"):
                    eve = await fixture.dial()
                    hello = await eve.hello("eve", stream=3)
                    hello.nick = wanted
                    await eve.send(PREFACE + pack(Kind.HELLO, hello))
                    assert unpack(Welcome, await eve.frame(Kind.WELCOME)).nick.casefold() == "ann-2"
                    await eve.say(1 if wanted == "ann" else 2, wanted)
                    (said,) = await dan.hear(wanted)
                    assert (said.author.key, said.author.nick.casefold()) == (hello.key, "ann-2")
                    await eve.leave()
            await ann.leave()

    run(scene())
