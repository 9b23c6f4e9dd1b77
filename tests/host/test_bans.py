"""What a ban covers of those who come over a local wire, where the kernel names the user."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from chat.core.bodies import Ask, pack
from chat.core.wire import Kind
from chat.host import bans
from chat.host.bans import origin_of
from chat.local.identity import Identity
from chat.local.invite import SECRET_SIZE
from chat.transport import Peer
from tests.host.host_fixture import Guest, HostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.host.host_fixture import FakeTransport


def test_a_ban_holds_for_the_user_of_a_local_link(tmp_path: Path, fake_transport: FakeTransport) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, "fake") as fixture:
            guests = {}
            for nick, uid in (("troll", 1000), ("sock", 1000), ("bob", 1001), ("olga", os.geteuid())):
                guest = guests[nick] = Guest(fixture, fake_transport, nick)
                guest.link.peer = Peer(f"queue {nick}", uid=uid)
                await guest.come()
                await until(lambda nick=nick: nick in fixture.nicks(), f"{nick} is in")  # type: ignore[misc]
            guests["olga"].link.arrive(pack(Kind.ASK, Ask(what="ban", text="troll"), number=1))
            await until(lambda: len(fixture.nicks()) == 2, "both of the banned user's are out")
            assert fixture.nicks() == ["bob", "olga"]
            for link in (guests["troll"].link, guests["sock"].link):
                await until(lambda link=link: link.closed, "its link is closed")  # type: ignore[misc]
            again = Guest(fixture, fake_transport, "another")
            again.link.peer = Peer("tcp 127.0.0.1:7", source="loopback, user 1000")  # it changes nothing
            await again.come()
            await until(lambda: any(frame.kind == Kind.REFUSED for frame in again.frames()), "it is refused")

    run(scene())


def test_a_ban_holds_for_whoever_is_just_coming_in(tmp_path: Path, fake_transport: FakeTransport) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, "fake", open_to_all=False) as fixture:
            host, room = fixture.host, fixture.hosted.room
            invite = host.make_invite("lobby", secrets.token_bytes(SECRET_SIZE))
            host.store.add_invite(fixture.hosted.number, invite.signer.key, 0, 3)
            room.add_invite(invite.signer.key, counted=True)
            troll, olga, sock = (Guest(fixture, fake_transport, nick) for nick in ("troll", "olga", "sock"))
            for guest, uid in ((troll, 1000), (olga, os.geteuid()), (sock, 1000)):
                guest.link.peer = Peer(f"queue {guest.nick}", uid=uid)
            for guest in (troll, olga):
                await guest.come(invite=invite)
                await until(lambda nick=guest.nick: nick in fixture.nicks(), "they are in")  # type: ignore[misc]
            async with host.disk:
                await sock.come(invite=invite)
                await until(lambda: host.disk._waiters, "its invite has been checked, and waits to be counted")
                olga.link.arrive(pack(Kind.ASK, Ask(what="ban", text="troll"), number=1))
                await until(
                    lambda: room.role_of(Identity.load(tmp_path / "troll.pem").key) == "banned", "the ban is decided"
                )
            await until(lambda: any(frame.kind == Kind.REFUSED for frame in sock.frames()), "it is refused")
            assert fixture.nicks() == ["olga"]

    run(scene())


def test_so_many_keys_are_remembered_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "KNOWN", 2)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            for number in (1, 2, 1, 3):
                fixture.hosted.bans.came(bytes([number]), Peer(f"queue {number}"))
            assert [*fixture.hosted.bans._came] == [b"\1", b"\3"]

    run(scene())


def test_what_tells_nobody_from_others_and_the_hosts_own_user_are_never_covered() -> None:
    own = os.geteuid()
    for peer in (Peer("queue", uid=own), Peer("tcp", source=f"loopback, user {own}"), Peer("tcp", source="loopback")):
        assert origin_of(peer) == ""
    for peer in (Peer("queue", uid=own + 1), Peer("tcp", source=f"loopback, user {own + 1}")):
        assert origin_of(peer) == f"user {own + 1}"
    assert origin_of(Peer("tcp", source="2001:db8::/64")) == "2001:db8::/64"
