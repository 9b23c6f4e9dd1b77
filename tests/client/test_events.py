"""Nobody who waits for a client waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from chat.client import client as client_module
from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.core.bodies import Ask, Refusal, pack
from chat.core.errors import (
    LinkBroken,
    LinkClosed,
    Refused,
    RemoteProtocolError,
)
from chat.core.wire import Kind, encode
from tests.host.host_fixture import (
    FakeLink,
    FakeTransport,
    HostFixture,
    Member,
    Script,
    Scripted,
    SlowHostFixture,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")


async def waiters(client: Member) -> list[asyncio.Future[Any]]:
    """Everything that can be waited for, waited for."""
    calls: list[Any] = [client.next_events(), client.settled(), client.say("too much")]
    waits = [asyncio.ensure_future(call) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    return waits


def test_closing_wakes_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 2)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            async with fixture.client("ann") as ann:
                await ann.say("one")
                await ann.say("two")
                ann.take()
                events, settled, said = await waiters(ann)
            assert await events == []
            for wait in (settled, said):
                with pytest.raises(LinkClosed, match="this client was closed"):
                    await wait
            assert [text async for text in ann] == []
            fixture.disk.set()

    run(scene())


def refusal(link: Scripted) -> None:
    link.send(pack(Kind.REFUSED, Refusal(code="banned", text="you are banned")))


def nonsense(link: Scripted) -> None:
    link.send(encode(Kind.SAY, b"", seq=77))


@pytest.mark.parametrize(
    ("ends", "error", "why"),
    [(refusal, Refused, "you are banned"), (nonsense, RemoteProtocolError, "number 77 where 1 follows")],
)
def test_what_ends_the_client_is_told_to_all_who_wait(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: Callable[[Scripted], None],
    error: type[Exception],
    why: str,
) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 1)
    monkeypatch.setattr(connection_module, "_FAULTS", 1)

    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                link = await meeting
                await ann.event(Up)
                await ann.say("one")
                waits = [*await waiters(ann), asyncio.ensure_future(ann.ask(Ask(what="this")))]
                await asyncio.sleep(0)
                ends(link)
                for wait in waits[:3]:
                    with pytest.raises(error, match=why):
                        await wait
                with pytest.raises(LinkBroken):
                    await waits[3]
                await link.everything()  # the link is closed, though the client is not yet
                for call in (ann.next_events, ann.settled, lambda: ann.say("two"), lambda: ann.ask(Ask(what="that"))):
                    with pytest.raises(error, match=why):
                        await call()

    run(scene())


def test_a_fault_of_ours_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a link raises, whoever waits for an event learns of it."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            told = FakeTransport()
            async with fixture.client("ann") as ann:
                await ann.event(Up)
                monkeypatch.setattr(connection_module, "find", lambda _scheme: told)
                broken = FakeLink()
                broken.fails["receive"] = ZeroDivisionError("a bug")
                told.dialled.append(broken)
                for served in fixture.hosted.connections.values():
                    served.task.cancel()
                await ann.event(Lost)
                with pytest.raises(ZeroDivisionError):
                    await ann.next_events()
                with pytest.raises(ZeroDivisionError):
                    await ann.say("hello?")
                assert broken.closed

    run(scene())
