"""Frames that are too long, too short or cut off, at every state of both sides; and HELLOs made to burst."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, Final

import pytest

from chat.client.events import Lost
from chat.core.bodies import pack
from chat.core.errors import ChatError
from chat.core.wire import HEADER_SIZE, MAX_FRAME, MAX_HELLO, PREFACE, Kind, encode
from chat.transport import Address
from tests.attacks.crowd import talking
from tests.host.host_fixture import HostFixture, Script, run

if TYPE_CHECKING:
    from pathlib import Path

TCP: Final = "tcp:127.0.0.1:0?tls=0"
HOST_STATES: Final = {  # and what is sent right before
    "before the preface": b"",
    "before HELLO": PREFACE,
    "member": b"",
    "in the middle of messages": encode(Kind.SAY, b"whole", number=1),
}
CLIENT_STATES: Final = ("before the preface", "before CHALLENGE", "before WELCOME", "member")


def frame_of(length: int, kind: int = Kind.SAY) -> bytes:
    """The beginning of a frame that says it is so long."""
    return struct.pack("!IB", length, kind) + bytes(HEADER_SIZE - 5)


CUT: Final = frame_of(1000)
BAD: Final = {
    "too long": frame_of(MAX_FRAME + 1),
    "4 GiB": bytes([255] * 4),  # no more has come
    "shorter than its header": frame_of(HEADER_SIZE - 1),
    "empty": bytes(HEADER_SIZE),
}


@pytest.mark.parametrize("state", HOST_STATES)
def test_a_host_drops_who_sends_them(tmp_path: Path, state: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid") as (bob, cid):
            async with talking(bob, cid):
                for name, data in {**BAD, "cut off": CUT}.items():
                    eve = await fixture.dial()
                    await eve.frame(Kind.CHALLENGE)
                    if not state.startswith("before"):
                        await eve.say_hello("eve")
                        await eve.frame(Kind.PRESENCE)
                    await eve.send(HOST_STATES[state] + data)
                    if name != "cut off" or state == "before the preface":
                        refusal = await eve.refusal()
                        assert (refusal.code, "\n" in refusal.text) == ("protocol", False)
                    await eve.leave()
            assert {text for text in fixture.texts() if not text.startswith("bystander")} <= {"whole"}

    with caplog.at_level(logging.WARNING):
        run(scene())
    assert "Traceback" not in caplog.text
    assert 0 < len(caplog.messages) <= len(BAD) + 1  # one line each, none for who is cut off


@pytest.mark.parametrize("state", CLIENT_STATES)
@pytest.mark.parametrize("name", [*BAD, "cut off"])
def test_a_client_drops_a_host_that_sends_them(tmp_path: Path, state: str, name: str) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        async with Script(tmp_path / "evil", Address.parse(TCP)) as evil:
            fixture.address = evil.listener.address
            accepting = asyncio.ensure_future(evil.accept())
            coming = asyncio.ensure_future(fixture.client("ann", reads_only=True).__aenter__())
            link = await accepting
            if state == "before CHALLENGE":
                link.send(PREFACE)
            elif state == "before WELCOME":
                await link.challenge()
            elif state == "member":
                await link.let_in()
                await coming
            link.send({**BAD, "cut off": CUT}[name])
            await (link.link.aclose() if name == "cut off" else link.everything())
            if state == "member":
                ann = await coming
                lost = await ann.event(Lost)  # and dials again
                await ann.__aexit__(None, None, None)
                told = str(lost.why)
            else:
                with pytest.raises(ChatError) as caught:
                    await coming
                told = str(caught.value)
            assert (told != "", "\n" in told) == (True, False)

    run(scene())


def field(name: bytes, value: bytes) -> bytes:
    return bytes([0xA0 + len(name)]) + name + value


ARRAY, MAP, TEXT, BYTES = b"\xdd", b"\xdf", b"\xdb", b"\xc6"
MANY: Final = b"\xff\xff\xff\xff"
ROOM: Final = MAX_HELLO - HEADER_SIZE  # bytes of a HELLO's body
BOMBS: Final = {
    "4 GiB of entries": MAP + MANY,
    "4 GiB of text": b"\x81" + field(b"room", TEXT + MANY),
    "4 GiB of bytes": b"\x81" + field(b"key", BYTES + MANY),
    "an array of 4 GiB": b"\x81" + field(b"x", ARRAY + MANY),
    "nested arrays": b"\x81" + field(b"x", b"\x91" * (ROOM - 3)),
    "nested maps": b"\x81" + field(b"x", b"\x81\xa0" * ((ROOM - 3) // 2)),
    "one key a thousand times": b"\xde\x01\xf4" + field(b"nick", b"\xa0") * 500,
    "a number that is too large": b"\x81" + field(b"stream", b"\xcb\x7f\xf0" + bytes(6)),
    "no UTF-8": b"\x81" + field(b"room", b"\xa2\xff\xfe"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_hello_that_bursts_costs_its_sender_the_link(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid") as (bob, cid):
            async with talking(bob, cid):
                eve = await fixture.dial()
                await eve.frame(Kind.CHALLENGE)
                await eve.send(PREFACE + encode(Kind.HELLO, BOMBS[name]))
                refusal = await eve.refusal()
                assert (refusal.code, "\n" in refusal.text) == ("protocol", False)
                assert len(refusal.text) < 300
                await eve.leave()
            assert sorted(fixture.nicks()) == ["bob", "cid"]

    run(scene())


def test_many_hellos_on_one_link_count_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("bob", "cid") as (bob, cid):
            async with talking(bob, cid):
                eve = await fixture.dial()
                hello = pack(Kind.HELLO, await eve.hello("eve", stream=1))
                await eve.send(PREFACE + hello * 200)
                assert "kind 65" in (await eve.refusal()).text
                await eve.leave()
            assert [nick for _, nick in fixture.hosted.room.unspoken()].count("eve") == 1

    run(scene())
