"""A host that runs out of descriptors tells newcomers that it is busy, and goes on serving the others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.core.bodies import Ask, Refusal, pack
from chat.core.errors import HostBusy, Refused
from chat.core.wire import PREFACE, Kind
from chat.transport import Address
from tests.cli import programs
from tests.host.host_fixture import HostFixture, Member, Script, run

if TYPE_CHECKING:
    from pathlib import Path

LIMITED = ["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *programs.CHAT]


@pytest.mark.parametrize("wire", ["queue", "pipe", "tcp:127.0.0.1:0"])
def test_newcomers_are_told_and_members_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str) -> None:
    async def scene() -> None:
        inside: list[Member] = []
        async with AsyncExitStack() as members:
            with suppress(HostBusy):
                while True:
                    inside.append(await members.enter_async_context(fixture.client(f"nick{len(inside)}", history=0)))
            crowd = [fixture.client(f"late{number}") for number in range(4)]
            answers = await asyncio.gather(*[one.__aenter__() for one in crowd], return_exceptions=True)
            assert {str(answer) for answer in answers} == {str(HostBusy("busy"))}
            await inside[0].stored(await inside[0].say("still here"))
            await inside[-1].hear("still here")
            assert not any(member.so_far(Lost) for member in inside)
            await inside[1].aclose()
            newcomer = None
            while newcomer is None:
                with suppress(HostBusy):  # until the host has seen that one left
                    newcomer = await members.enter_async_context(fixture.client("newcomer"))
            await newcomer.stored(await newcomer.say("hello"))
        print(f"{wire}: {len(inside)} members at 64 descriptors, then busy")

    monkeypatch.setattr(programs, "CHAT", LIMITED)
    with programs.host(tmp_path / "host", "--open", "--rate=0", "-t", wire) as hosting:
        fixture = HostFixture(tmp_path / "members")
        fixture.address = Address.parse(hosting.seen[0]["address"])
        run(scene())
        assert "Traceback" not in hosting.errors()


def test_who_was_in_comes_back_to_a_busy_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(connection_module, "_LAST_DELAY", 0.001)

    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        fixture.address = fixture.asked
        async with Script(tmp_path / "host", fixture.asked) as script:
            meeting = asyncio.ensure_future(script.meet())
            async with fixture.client("ann") as ann:
                await ann.event(Up)
                await (await meeting).link.aclose()
                for _ in range(20):
                    link = await script.accept()
                    link.send(PREFACE, pack(Kind.REFUSED, Refusal(code="busy")))
                    await link.everything()
                link = await script.meet()
                await ann.event(Up)
            await link.everything()

    run(scene())


def test_a_host_that_listens_has_imported_all_that_it_may_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with programs.host(tmp_path / "host", "--open", "-t", "queue", "-t", "tcp:127.0.0.1:0") as hosting:
        monkeypatch.delenv("PYTHONPROFILEIMPORTTIME")
        hosting.until("listening")
        imported = hosting.told()

        async def scene() -> None:
            fixture = HostFixture(tmp_path / "members")
            for event in hosting.seen:
                fixture.address = Address.parse(event["address"])
                async with fixture.client("ann") as ann, fixture.client("\u0431\u043e\u0431") as bob:
                    await ann.event(Up)
                    await ann.stored(await ann.say("hello"))
                    await bob.hear("hello")
                    await ann.ask(Ask(what="search", text="hello"))
                for nick in ("Ann", "a\u0431", "ann1l"):
                    with suppress(Refused):
                        async with fixture.client(nick):
                            pass
                async with fixture.client("ann", other="\u0431\u043e\u0431"):
                    pass

        run(scene())
        later = hosting.told().removeprefix(imported)
        assert [line for line in later.splitlines() if line.startswith("import time:")] == []
