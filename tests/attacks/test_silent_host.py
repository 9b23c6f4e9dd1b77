"""A host that lets us in and then sends signs of life, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from chat.cli import export, invite, oneshot
from chat.client import queries
from chat.client.client import Client
from chat.client.target import Target
from chat.core.bodies import Ask
from chat.core.errors import LinkBroken, LinkClosed
from chat.core.wire import Kind, encode
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from chat.transport import Address
from tests.host.host_fixture import Script, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.host.host_fixture import Scripted


async def pretend(guest: Scripted) -> None:
    with suppress(LinkBroken, LinkClosed, AssertionError):
        await guest.let_in(next_seq=9)
        while True:
            guest.send(encode(Kind.BEAT))
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("command", ["log", "who", "search", "invite", "export"])
def test_no_command_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(queries, "PATIENCE", 0.3)

    async def story() -> None:
        async with Script(tmp_path / "host", Address("memory", "silent")) as host:
            key = Identity.load(tmp_path / "ann.pem")
            known = KnownHosts(tmp_path / "hosts")
            client = Client(lambda: Target((host.address,), "lobby"), key, known, silent=True, since=1)
            accepting = asyncio.ensure_future(host.accept())
            work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
                "log": lambda: oneshot.print_log(client, follow=False, as_json=False),
                "who": lambda: oneshot.print_who(client, as_json=False),
                "search": lambda: oneshot.print_search(client, "x", limit=1, before=0, as_json=False),
                "invite": lambda: invite.print_answer(client, Ask(what="invite")),
                "export": lambda: export._write(client, "text", None),
            }
            doing = asyncio.ensure_future(work[command]())
            pretending = asyncio.ensure_future(pretend(await accepting))
            with pytest.raises(LinkBroken, match=r"the host has (not answered|sent nothing) for 0\.3 s") as caught:
                await doing
            assert caught.value.exit_code == 4
            pretending.cancel()
            await asyncio.gather(pretending, return_exceptions=True)

    run(story())
