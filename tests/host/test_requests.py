"""What members may ask of the host, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat.core.errors import RequestFailed
from chat.core.session import Joined
from chat.core.wire import (
    MAX_CONTROL,
    Ask,
    Kind,
    pack,
)
from chat.host import hosted_room
from tests.host.host_fixture import (
    FakeTransport,
    Guest,
    HostFixture,
    declined,
    fill_disk,
    free_disk,
    new_invite,
    run,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("leaves_nothing")


def test_the_standing_invite_needs_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            assert str(await new_invite(fixture)) == str(fixture.host.invite("lobby"))

    run(scene())


def test_only_the_owner_makes_invites_and_odd_questions_are_answered(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("owner") as owner, fixture.client("ann") as ann:
            assert "only the room's owner" in await declined(ann, Ask(what="invite", uses=1))
            assert "'the time'" in await declined(owner, Ask(what="the time"))
            assert fixture.store.invites(fixture.hosted.number) == []
            assert [joined.role for joined in owner.so_far(Joined)] == ["owner"]

    run(scene())


def test_a_full_disk_keeps_no_new_invite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is no reason to end the room for all."""
    monkeypatch.setattr(hosted_room, "_RETRY", 0.02)

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture, fixture.client("owner") as owner:
            fill_disk(fixture)
            made = 0

            async def make_many() -> None:
                nonlocal made
                while True:
                    await owner.ask(Ask(what="invite", uses=1))
                    made += 1  # in the pages that are there

            with pytest.raises(RequestFailed, match="disk is full"):
                await make_many()
            free_disk(fixture)
            await owner.stored(await owner.say("still here"))
            assert len(fixture.store.invites(fixture.hosted.number)) == made

    run(scene())


@pytest.mark.parametrize("what", ["names", "invite", "the time"])
def test_who_asks_and_asks_and_does_not_read_is_dropped(
    tmp_path: Path, fake_transport: FakeTransport, what: str
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            cid = Guest(fixture, fake_transport, "cid")
            await cid.come()
            await until(lambda: fixture.hosted.connections, "cid is in")
            cid.link.room = 0
            (served,) = fixture.hosted.connections.values()
            for _ in range(1000):
                cid.link.arrive(pack(Kind.ASK, Ask(what=what, authors=[1] * 20)))
            await until(lambda: not fixture.hosted.connections, "cid was dropped")
            assert served.member.cursor.control_size < 2 * MAX_CONTROL

    run(scene())
