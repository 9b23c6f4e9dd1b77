"""12 s of silence are 12 s on both sides, and nobody is dropped for a stall of whoever listens."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.core.wire import SILENCE, Kind, encode
from chat.host import admission as admission_module
from chat.host import host as host_module
from chat.transport import Address
from tests.cli import programs
from tests.host.host_fixture import HostFixture, Script, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture(params=[host_module, connection_module], ids=["host", "member"])
def side(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


async def falls_silent(
    tmp_path: Path, side: ModuleType, *, stalls: int = 0, once_in: Callable[[], None] = lambda: None
) -> None:
    """One whole side, and a peer that says nothing; but for ``stalls``, in which nobody in this process can run."""
    async with (
        HostFixture(tmp_path) as fixture,
        Script(tmp_path / "script", Address("memory", "mute")) as script,
    ):
        if side is host_module:
            peer = await fixture.raw("cid")
            once_in()
            for _ in range(stalls):
                await asyncio.sleep(0.001)
                time.sleep(0.2)  # noqa: ASYNC251
            if stalls:
                await peer.say(1)
                await peer.frame(Kind.SAY)
            await peer.everything()
            await peer.leave()
        else:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann", addresses=(script.address,)) as ann:
                link = await meeting
                once_in()
                for _ in range(stalls):
                    await asyncio.sleep(0.001)
                    time.sleep(0.2)  # noqa: ASYNC251
                if stalls:
                    link.send(encode(Kind.BEAT))
                    await ann.event(Up)
                    await asyncio.sleep(0.01)
                    assert not ann.so_far(Lost)
                assert (await ann.event(Lost)).why.startswith("nothing was heard")
            await link.everything()


def test_silence_is_noticed_without_waiting_for_the_next_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: ModuleType
) -> None:
    monkeypatch.setattr(side, "BEAT", 0.01)
    monkeypatch.setattr(side, "SILENCE", 0.3)
    run(falls_silent(tmp_path, side, once_in=lambda: monkeypatch.setattr(side, "BEAT", 3600)))


def test_what_we_could_not_hear_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: ModuleType
) -> None:
    monkeypatch.setattr(side, "BEAT", 0.02)
    monkeypatch.setattr(side, "SILENCE", 0.3)
    monkeypatch.setattr(side, "STALL", 0.05, raising=False)
    run(falls_silent(tmp_path, side, stalls=5))


def test_a_newcomer_does_not_pay_for_a_stall_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "HELLO_TIMEOUT", 0.2)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            peer = await fixture.dial()
            await peer.frame(Kind.CHALLENGE)
            time.sleep(0.5)  # noqa: ASYNC251
            await asyncio.sleep(0.01)
            await peer.say_hello("cid")
            await peer.leave()

    run(scene())


@pytest.mark.slow
@pytest.mark.parametrize("who", ["host", "member"])
def test_a_stall_of_20_s_costs_the_links_and_no_message(tmp_path: Path, who: str) -> None:
    with (
        programs.host(tmp_path / "host", "--open") as hosting,
        programs.Program(tmp_path / "host", "join", "--json", "--as=ann") as ann,
        programs.Program(tmp_path / "host", "join", "--json", "--as=bob") as bob,
    ):
        for member in (ann, bob):
            member.until("joined")
        stopped, watching = (hosting, ann) if who == "host" else (ann, bob)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        watching.until("link" if who == "host" else "presence", lambda event: event.get("went") or "why" in event)
        noticed = time.monotonic() - began
        bob.say("meanwhile", "b1")
        time.sleep(max(0.0, began + 20 - time.monotonic()))
        os.kill(stopped.process.pid, signal.SIGCONT)
        bob.until("stored")
        ann.until("message", lambda event: event["text"] == "meanwhile")
        ann.say("and after", "a1")
        ann.until("stored")
        bob.until("message", lambda event: event["text"] == "and after")
        assert bob.texts() == ["meanwhile", "and after"]
        print(f"{who} stopped for 20 s; that was noticed after {noticed:.1f} s, SILENCE is {SILENCE:g} s")
