"""How a client finds its host, and how it comes back."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.client.target import Target
from chat.core.bodies import Refusal, pack
from chat.core.errors import (
    DialFailed,
    Refused,
    RemoteProtocolError,
    UnknownScheme,
)
from chat.core.events import Message
from chat.core.wire import PREFACE, Kind, encode
from chat.transport import Address
from tests.host.host_fixture import (
    HostFixture,
    Member,
    Script,
    Scripted,
    run,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")
NOWHERE = Address("memory", "nobody-listens-here")
TCP = "tcp:127.0.0.1:0"


# -- addresses -----------------------------------------------------------------------------------


def test_one_address_of_several_is_enough(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.client("ann", addresses=(NOWHERE, Address("nosuch"), fixture.address)) as ann:
                assert (await ann.event(Up)).address == fixture.address
            for addresses, error in (
                ((), DialFailed),
                ((NOWHERE,), DialFailed),
                ((Address("nosuch"),), UnknownScheme),
                ((NOWHERE, Address("nosuch")), DialFailed),  # it may listen there later
                ((Address("nosuch"), NOWHERE), DialFailed),
            ):
                client = fixture.client("ann")
                client.locate = lambda addresses=addresses: Target(addresses, "lobby")  # type: ignore[misc]
                with pytest.raises(error):
                    await client.__aenter__()

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_an_address_that_has_become_anothers_is_passed_by(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path / "another", wire) as another,
            HostFixture(tmp_path / "ours", wire) as fixture,
            Script(tmp_path / "no-host", Address("memory", "no-host")) as script,
        ):

            async def be_another_program() -> None:
                while True:
                    (await script.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            program = asyncio.ensure_future(be_another_program())
            invite, others = fixture.host.invite("lobby"), (another.address, script.address)
            async with fixture.client("ann", invite=invite, addresses=(*others, fixture.address)) as ann:
                await ann.event(Up)
                await fixture.close()
                await ann.event(Lost)
                await fixture.open()
                await ann.event(Up)
                await ann.stored(await ann.say("found you"))
                await fixture.close()
            program.cancel()
            for addresses, error, told in (
                (others[:1], Refused, "not the one in the invite"),
                (
                    (*others[:1], fixture.address),
                    DialFailed,
                    "; and the host at .* has the key .* not the one in the invite",
                ),
            ):
                with pytest.raises(error, match=told):
                    async with fixture.client("ann", invite=invite, addresses=addresses):
                        pass
            assert another.log() == []

    run(scene())


def test_a_card_may_change_while_the_host_is_away(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.client("ann") as ann:
            await fixture.close()
            await ann.event(Lost)
            fixture.asked = Address("memory", "moved")
            await fixture.open()
            assert (await ann.event(Up)).address == fixture.address
            await ann.stored(await ann.say("found you"))

    run(scene())


def test_who_takes_the_call_and_says_nothing_is_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 0.05)

    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "mute", fixture.asked) as mute:
            accepting = asyncio.ensure_future(mute.accept())
            with pytest.raises(DialFailed, match=r"took the call but said nothing for 0\.05 s"):
                async with fixture.client("ann"):
                    pass
            assert await (await accepting).everything() == []

    run(scene())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (PREFACE + encode(Kind.WELCOME), RemoteProtocolError),
        (PREFACE + pack(Kind.REFUSED, Refusal(code="banned", text="you are banned")), Refused),
        (PREFACE + pack(Kind.REFUSED, Refusal(code="no-room", text="no such room")), Refused),
    ],
)
def test_what_is_no_welcome_ends_the_first_try(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:

            async def host() -> Scripted:
                link = await script.accept()
                link.send(answer)
                return link

            answering = asyncio.ensure_future(host())
            with pytest.raises(error):
                async with fixture.client("ann"):
                    pass
            await (await answering).everything()

    run(scene())


def test_a_host_that_says_that_it_is_another_refuses_us_like_any_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, Script(tmp_path / "eve", Address("memory", "eve")) as eve:

            async def refuse() -> None:
                refusal = Refusal(code="other-host", fields={"address": "x", "shown": "x"}, text="go away")
                (await eve.accept()).send(PREFACE + pack(Kind.REFUSED, refusal))

            refusing = asyncio.ensure_future(refuse())
            with pytest.raises(Refused, match="go away"):
                async with fixture.client("ann", addresses=(eve.address, fixture.address)):
                    pass
            await refusing

    run(scene())


# -- links that are lost -------------------------------------------------------------------------


def test_a_host_that_falls_silent_is_left_and_dialled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "BEAT", 0.01)
    monkeypatch.setattr(connection_module, "SILENCE", 0.4)

    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                first = await meeting
                await first.frame(Kind.BEAT)
                assert (await ann.event(Lost)).why == "nothing was heard of the host for 0.4 s"
                second = await script.accept()
                # The new link is not to be judged by the silence of the old, however long the host takes.
                await asyncio.sleep(10 * 0.01)
                await second.let_in()
                await ann.event(Up)
                await second.frame(Kind.BEAT)
            for link in (first, second):
                await link.everything()

    run(scene())


def test_coming_back_outlasts_hosts_that_are_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_DELAY", 0.001)

    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 0.1)
                await (await meeting).link.aclose()
                mute = await script.accept()
                assert await mute.everything() == []  # it gives up, and tries the next
                monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 5.0)
                opening = await script.accept()  # the host is there, and has not opened the room yet
                await opening.challenge()
                opening.send(pack(Kind.REFUSED, Refusal(code="no-room", text="no such room")))
                await opening.everything()
                broken = await script.accept()
                broken.send(PREFACE[:7])
                await broken.link.aclose()
                last = await script.accept()
                await last.let_in()
                assert [type(found).__name__ for found in await take_until(ann, 2)][-1:] == ["Up"]
            await last.everything()

    run(scene())


async def take_until(client: Member, ups: int) -> list[Any]:
    """All that the client is told until it has come in for the last of so many times."""
    told: list[Any] = []
    while sum(isinstance(found, Up) for found in told) < ups:
        told += await client.next_events()
    assert sum(isinstance(found, Lost) for found in told) == ups - 1, "lost is told once, however long it takes"
    return told


def test_as_long_as_nobody_takes_events_the_host_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is we who do not listen."""
    monkeypatch.setattr(connection_module, "BEAT", 0.01)
    monkeypatch.setattr(connection_module, "SILENCE", 0.5)
    monkeypatch.setattr(connection_module, "_EVENTS", 10)
    monkeypatch.setattr("chat.host.host.BEAT", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("bob") as bob:
            flood = await fixture.raw("cid")
            await flood.say(1, "x" * 1000, times=300)
            await until(lambda: len(fixture.texts()) == 300, "all is stored")
            (served,) = [s for m, s in fixture.hosted.connections.items() if m.nick == "bob"]
            await until(lambda: served.clogged is not None, "bob's link is full")
            for _ in range(80):  # for longer than SILENCE
                await flood.frame(Kind.BEAT)
            assert served in fixture.hosted.connections.values()
            assert len(bob.events) < 300
            heard = 0
            while heard < 300:
                heard += sum(isinstance(found, Message) for found in await bob.next_events())
            assert not bob.so_far(Lost)
            await flood.leave()

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_to_come_back_again_and_again_leaves_nothing_behind(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture, fixture.client("ann") as ann:
            await ann.event(Up)
            await until(lambda: len(fixture.hosted.connections) == 1, "she is in")
            tasks = len(asyncio.all_tasks())
            for number in range(20):
                entry = await ann.say(str(number))
                (served,) = fixture.hosted.connections.values()
                served.task.cancel()  # the host's side ends
                await ann.event(Up)
                if entry in ann.session.unsettled:
                    await ann.stored(entry)
            await until(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left of those links")
            await ann.settled()
            assert fixture.texts() == [str(number) for number in range(20)]
            assert len(fixture.host._admission._door) == 0  # all the strangers have gone
            assert len(fixture.host._admission._links) == 1

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_cancelled_join_leaves_nothing_behind(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture:
            joined = 0
            for turns in range(60):
                client = fixture.client("ann")
                coming = asyncio.ensure_future(client.__aenter__())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if coming.done():
                    joined += 1
                    await client.__aexit__(None, None, None)
                    continue
                coming.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await coming
            await until(lambda: not fixture.hosted.connections, "nobody is in")
            async with fixture.client("ann"):
                pass
            assert joined or wire

    run(scene())


def test_a_link_that_is_gone_is_not_kept_in_memory(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann") as ann:
            await ann.stored(await ann.say("hello"))
            (served,) = fixture.hosted.connections.values()
            assert ann.connection.link is not None
            kept = weakref.ref(served.link), weakref.ref(ann.connection.link)
            gc.collect()
            gc.disable()
            try:
                served.task.cancel()
                del served
                await ann.event(Up)
                await asyncio.sleep(0)
                assert [link() for link in kept] == [None, None]
            finally:
                gc.enable()

    run(scene())
