"""Nicknames that could be taken for the owner, for the program itself, for everybody, or for somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from chat.core.errors import Refused
from chat.core.ledger import RoomTables
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, run

if TYPE_CHECKING:
    from pathlib import Path

TCP: Final = "tcp:127.0.0.1:0?tls=0"


@pytest.mark.parametrize("nick", ["host", "0wner", "SYSTEM.", "adrnin", "aII", "管理员", "房主_"])
def test_reserved_names_and_their_look_alikes(tmp_path: Path, nick: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann") as (ann,):
            with pytest.raises(Refused) as caught:
                async with fixture.client(nick):
                    pass
            assert caught.value.code == "nick-reserved"
            await ann.stored(await ann.say("nobody came"))
            assert fixture.nicks() == ["ann"]

    run(scene())


def test_the_owner_may_have_them_and_ali_is_not_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "Ali"):
            assert fixture.nicks() == ["owner", "Ali"]

    run(scene())


@pytest.mark.parametrize("nick", ["ann.", "ann_", "_ann", "Ann-"])
def test_punctuation_at_the_ends_makes_no_other_name(tmp_path: Path, nick: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("ann"):
            with pytest.raises(Refused) as caught:
                async with fixture.client(nick):
                    pass
            assert caught.value.code == "nick-similar"

    run(scene())


def test_who_holds_such_a_name_from_before_keeps_it_and_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path, TCP)
        keys = {nick: Identity.load(tmp_path / f"{nick}.pem").key for nick in ("ann", "ann_", "system")}
        async with fixture:
            rows = [(nick, nick, key) for nick, key in keys.items()]  # their skeletons were these
            fixture.store.commit(fixture.hosted.number, [], RoomTables(nicks=rows))
        async with fixture, fixture.members("system", "ann_", "ann"):
            assert fixture.nicks() == ["system", "ann_", "ann"]
            wanted = fixture.client("ann_")
            wanted.session._wanted_nick = "ann"  # with the key of ann_
            async with wanted:
                assert wanted.session.nick == "ann-2"

    run(scene())
