"""Somebody who is banned and comes again with another key, from the same place or as the same user of the machine."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from chat.core.bodies import Ask
from chat.core.errors import Refused
from chat.host.store import Store
from chat.transport import Address, Site
from tests.attacks.crowd import ATTACKER, ELSEWHERE, port_of, proxy
from tests.host.host_fixture import HostFixture, SlowHostFixture, declined, new_invite, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.host.host_fixture import Member

TCP: Final = "tcp:127.0.0.1:0?tls=0"
NOBODY: Final = 65534
RELAY: Final = """
import asyncio, os, sys
async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
async def serve(reader, writer):
    back, forth = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, forth), pump(back, writer))
async def main():
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Place:
    """Where people come from."""

    def __init__(self, fixture: HostFixture, address: Address) -> None:
        self.fixture = fixture
        self.address = address

    def client(self, nick: str, **more: Any) -> Member:
        return self.fixture.client(nick, addresses=(self.address,), **more)

    async def refused(self, nick: str, **more: Any) -> str:
        with pytest.raises(Refused) as caught:
            async with self.client(nick, **more):
                pass
        return caught.value.code


@asynccontextmanager
async def places(fixture: HostFixture) -> AsyncIterator[tuple[Place, Place]]:
    """The troll's, and another one."""
    site = Site(fixture.folder, fixture.key, proxies="loopback")
    proxied = await fixture.host.listen(Address.parse(TCP), site, "lobby")
    async with proxy(proxied, ATTACKER) as (near, _), proxy(proxied, ELSEWHERE) as (far, _):
        yield Place(fixture, near), Place(fixture, far)


@asynccontextmanager
async def relay(fixture: HostFixture) -> AsyncIterator[Place]:
    """Whoever comes through it is another user of this machine, as the kernel tells."""
    command = [sys.executable, "-I", "-c", RELAY, str(NOBODY), str(port_of(fixture.address))]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Place(fixture, Address.parse(f"tcp:127.0.0.1:{int(await process.stdout.readline())}?tls=0"))
    finally:
        process.kill()
        await process.wait()


async def sent_away(member: Member) -> str:
    with pytest.raises(Refused) as caught:
        await member.hear("nothing more")
    return caught.value.code


async def trail(owner: Member) -> list[tuple[str, str]]:
    return [(what, whom) for _number, _time, _by, what, whom, _why in (await owner.ask(Ask(what="audit"))).audit]


def test_a_ban_in_an_open_room_holds_for_the_address(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, far),
        ):
            async with (
                near.client("pat") as pat,
                near.client("troll") as troll,
                near.client("sock") as sock,
                far.client("ann") as ann,
                near.client("sock", other="ann") as to_ann,
            ):
                await owner.ask(Ask(what="op", text="pat"))
                await owner.ask(Ask(what="ban", text="troll", reason="rude"))
                assert [await sent_away(one) for one in (troll, sock, to_ann)] == ["banned-because"] + 2 * [
                    "banned-source"
                ]
                assert await near.refused("another") == "banned-source"
                assert await near.refused("sock", other="ann") == "banned-source"
                assert await far.refused("troll") == "banned-because"
                for one in (pat, ann):
                    await one.stored(await one.say("still here"))
            async with near.client("owner"), near.client("pat"), far.client("bob"):
                assert await trail(owner) == [("ban-also", ATTACKER), ("ban", "troll"), ("op", "pat")]
            assert ATTACKER.encode() not in b"".join(frame.raw for frame in fixture.log())
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
        ):
            assert await near.refused("another") == "banned-source"
            await owner.ask(Ask(what="unban", text="troll"))
            async with near.client("another"), near.client("troll"):
                fixture.hosted.poll()
                assert fixture.store.rows("covered", fixture.hosted.number) == []

    run(scene())


def test_whoever_has_left_is_known_by_the_address_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
        ):
            async with near.client("troll") as troll:
                await troll.stored(await troll.say("you all stink"))
            await owner.ask(Ask(what="ban", text="troll"))
            assert await near.refused("another") == "banned-source"

    run(scene())


def test_a_ban_of_the_key_alone_spares_those_who_share_the_address(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
        ):
            async with near.client("troll"), near.client("bob") as bob:
                await owner.ask(Ask(what="ban", text="troll", cover="key"))
                await bob.stored(await bob.say("same office"))
                await owner.ask(Ask(what="ban", text="troll", cover="", seconds=3600))  # and thought better of it
                assert await sent_away(bob) == "banned-source"
                await owner.ask(Ask(what="ban", text="troll", cover="key"))
            async with near.client("bob"):
                pass

    run(scene())


def test_where_an_invite_is_needed_a_ban_covers_no_address(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP, open_to_all=False) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
        ):
            invite = await new_invite(fixture)
            async with near.client("troll", invite=invite) as troll:
                await owner.ask(Ask(what="ban", text="troll"))
                assert await sent_away(troll) == "banned"
            async with near.client("bob", invite=invite):
                assert await trail(owner) == [("ban", "troll")]

    run(scene())


@as_root
def test_a_ban_of_a_user_holds_for_all_of_their_keys(tmp_path: Path) -> None:
    """Over TCP it must be asked for: the user may be a tunnel's. And never for the user who runs the host."""

    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            fixture.client("bob") as bob,
            relay(fixture) as there,
            there.client("troll") as troll,
        ):
            await owner.ask(Ask(what="ban", text="troll"))
            assert await sent_away(troll) == "banned"
            async with there.client("sock") as sock:
                await owner.ask(Ask(what="ban", text="troll", cover="uid"))
                assert await sent_away(sock) == "banned-source"
            assert await there.refused("another") == "banned-source"
            assert "leave out --uid" in await declined(owner, Ask(what="ban", text="bob", cover="uid"))
            await bob.stored(await bob.say("as the host's own user"))
            assert await trail(owner) == [("ban-also", f"user {NOBODY}"), ("ban", "troll"), ("ban", "troll")]

    run(scene())


def test_a_ban_of_all_who_came_by_one_invite_is_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those who are not on the disk yet."""
    names = [f"troll-{number}" for number in range(8)]
    transactions: list[Store] = []
    transaction = Store.transaction

    def counted(store: Store) -> Any:
        transactions.append(store)
        return transaction(store)

    async def scene() -> None:
        async with (
            SlowHostFixture(tmp_path, TCP, open_to_all=False) as fixture,
            fixture.client("owner") as owner,
            AsyncExitStack() as stack,
        ):
            invite, other = await new_invite(fixture, seconds=60), await new_invite(fixture, seconds=60)
            trolls = [await stack.enter_async_context(fixture.client(name, invite=invite)) for name in names]
            ann = await stack.enter_async_context(fixture.client("ann", invite=other))
            monkeypatch.setattr(Store, "transaction", counted)
            answer = await owner.ask(Ask(what="ban", text=names[0], alike=True))
            assert answer.fields["count"] == 8
            assert len(transactions) < 8  # the invite's end, the audit trail, the log; not one for each
            assert {await sent_away(troll) for troll in trolls} == {"banned"}
            everywhere = Place(fixture, fixture.address)
            assert await everywhere.refused("another", invite=invite) == "invite-revoked"
            assert await everywhere.refused(names[-1], invite=invite) == "banned"
            fixture.disk.set()
            await ann.stored(await ann.say("by another invite"))
            assert len({member.key for member in fixture.hosted.room.members}) == 2

    run(scene())


def test_a_ban_of_all_who_came_by_one_invite_shortens_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP, open_to_all=False) as fixture,
            fixture.client("owner") as owner,
            fixture.client("boss", invite=await new_invite(fixture, seconds=60)) as boss,
            AsyncExitStack() as stack,
        ):
            invite = await new_invite(fixture, seconds=60)
            trolls = [await stack.enter_async_context(fixture.client(f"t{n}", invite=invite)) for n in range(4)]
            await owner.ask(Ask(what="op", text="boss"))
            await owner.ask(Ask(what="ban", text="t0"))
            await owner.ask(Ask(what="ban", text="t1", seconds=60))
            answer = await boss.ask(Ask(what="ban", text="t2", alike=True, seconds=3600))
            assert answer.fields["count"] == 3
            ends = {key: until for key, (_role, until) in fixture.hosted.room.moderated.items()}
            t0, t1, t2, t3 = (ends[troll.session.key] for troll in trolls)
            assert (t0, t1, t2) == (0, t3, t3)
            await boss.ask(Ask(what="ban", text="t2", seconds=60))
            await declined(boss, Ask(what="mute", text="t0", alike=True))
            await owner.ask(Ask(what="unban", text="t3"))
            await boss.ask(Ask(what="mute", text="t3", alike=True))  # of a hostile operator's own making
            roles = [fixture.hosted.room.role_of(troll.session.key) for troll in trolls]
            assert roles == ["banned", "banned", "banned", "muted"]

    run(scene())


def test_a_ban_of_all_who_came_by_one_invite_spares_the_hosts_own_user(tmp_path: Path) -> None:
    """Who has tried the invite with another key of theirs."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP, open_to_all=False) as fixture, fixture.client("owner") as owner:
            invite = await new_invite(fixture, seconds=60)
            queue = await fixture.host.listen(Address("queue"), Site(fixture.folder, fixture.key), "lobby")
            async with fixture.client("olga", invite=invite), fixture.client("troll", invite=invite):
                pass
            async with Place(fixture, queue).client("olga") as olga:
                assert (await owner.ask(Ask(what="ban", text="troll", alike=True))).fields["count"] == 1
                await olga.stored(await olga.say("still here"))

    run(scene())


def test_a_second_ban_keeps_what_the_first_one_covers(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
            near.client("troll"),
        ):
            await owner.ask(Ask(what="ban", text="troll"))
        async with (  # the host does not know any more from where they came
            HostFixture(tmp_path, TCP) as fixture,
            fixture.client("owner") as owner,
            places(fixture) as (near, _),
        ):
            await owner.ask(Ask(what="ban", text="troll", seconds=3600))
            assert await near.refused("another") == "banned-source"
            await owner.ask(Ask(what="ban", text="troll", cover="key"))
            async with near.client("another"):
                pass

    run(scene())
