"""Somebody whom an operator has removed, banned or demoted, and who tries to stay, to come back or to keep the role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Ask, Moderation, Refusal, direct_name, pack, unpack
from chat.core.errors import Refused
from chat.core.events import Message
from chat.core.wire import PREFACE, Kind, encode
from chat.host.admission import AdmissionControl
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, declined, run, until

if TYPE_CHECKING:
    from pathlib import Path

    from chat.core.bodies import Hello
    from chat.host.hosted_room import HostedRoom
    from chat.transport import Peer
    from tests.host.host_fixture import Member

TCP: Final = "tcp:127.0.0.1:0?tls=0"


async def decide(owner: Member, what: str, **more: object) -> None:
    await owner.ask(Ask(what=what, **more))  # type: ignore[arg-type]


def key_of(fixture: HostFixture, nick: str) -> bytes:
    return Identity.load(fixture.folder / f"{nick}.pem").key


async def refused(member: Member) -> str:
    with pytest.raises(Refused) as caught:
        async with member:
            pass
    return caught.value.code


@pytest.mark.parametrize(("gives", "takes"), [("op", "deop"), ("mute", "unmute")])
def test_a_role_that_ended_does_not_come_back_with_a_new_link(tmp_path: Path, gives: str, takes: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "bob") as (owner, _):
            await decide(owner, gives, text="bob")
            async with fixture.client("bob"):  # comes while it has the role
                pass
            await decide(owner, takes, text="bob")
            assert fixture.hosted.room.role_of(key_of(fixture, "bob")) == "member"
            async with fixture.client("bob") as bob:
                await bob.stored(await bob.say("as a member"))
                assert "operators may do that" in await declined(bob, Ask(what="kick", text="owner"))

    run(scene())


def test_a_banned_key_enters_no_direct_room_that_is_open(tmp_path: Path) -> None:
    """Its HELLO names the room and not the other, so it looks like one for an ordinary room."""

    async def scene() -> None:
        async with (
            HostFixture(tmp_path, TCP) as fixture,
            fixture.members("owner", "ann", "mallory") as (owner, _, mallory),
            fixture.client("mallory", other="ann") as to_ann,
            fixture.client("ann", other="mallory"),
        ):
            await decide(owner, "ban", text="mallory")
            for member in (mallory, to_ann):
                with pytest.raises(Refused):
                    await member.hear("nothing more")
            room = direct_name(key_of(fixture, "ann"), key_of(fixture, "mallory"))
            peer = await fixture.dial()
            hello = await peer.hello("mallory", room=room, stream=1)
            await peer.send(PREFACE + pack(Kind.HELLO, hello))
            found = await peer.frame(Kind.WELCOME, Kind.REFUSED)
            assert found.kind == Kind.REFUSED
            assert unpack(Refusal, found).code == "banned"
            await peer.leave()

    run(scene())


def test_who_is_banned_while_it_enters_does_not_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = AdmissionControl._claim

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "mallory") as (owner, _):
            room, mallory = fixture.hosted.room, key_of(fixture, "mallory")

            def late(
                self: AdmissionControl, hosted: HostedRoom, hello: Hello, peer: Peer, *, is_counted: bool = False
            ) -> None:
                claim(self, hosted, hello, peer, is_counted=is_counted)
                if hello.key == mallory:  # as if the question had been read right now
                    ban_now(fixture, owner, mallory)

            monkeypatch.setattr(AdmissionControl, "_claim", late)
            assert await refused(fixture.client("mallory")) == "banned"
            await until(lambda: all(member.key != mallory for member in room.members), "its first link is gone, too")

    run(scene())


def ban_now(fixture: HostFixture, owner: Member, key: bytes) -> None:
    made = Moderation(action="role", by=owner.session.key, by_nick="owner", key=key, nick="mallory", role="banned")
    fixture.hosted.room.decide_now(made, 1)


def test_who_is_removed_reads_why_behind_what_is_half_sent(tmp_path: Path) -> None:
    """Else its client would take that for a lost link, and come back by itself."""

    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "ann") as (owner, ann):
            mallory = await fixture.raw("mallory")
            (member,) = (one for one in fixture.hosted.connections if one.nick == "mallory")
            text = "x" * 16_000
            count = 0
            while fixture.hosted.connections[member].clogged is None:  # mallory reads nothing
                await ann.stored(await ann.say(text))
                count += 1
            assert not member.cursor.at_border
            await decide(owner, "kick", text="mallory", reason="too slow")
            await ann.stored(await ann.say("this is not for mallory"))
            refusal = unpack(Refusal, await mallory.frame(Kind.REFUSED))
            assert (refusal.code, refusal.fields["why"]) == ("kicked-because", "too slow")
            assert not await mallory.everything()
            await mallory.leave()
            assert [m.text for m in owner.so_far(Message)].count(text) <= count

    run(scene())


def test_an_owner_is_kept_out_and_silenced_by_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner", "bob") as (owner, bob):
            await decide(owner, "op", text="bob")
            for what in ("kick", "ban", "mute"):
                assert "nobody acts on the owner" in await declined(bob, Ask(what=what, text="owner"))
            assert "only the room's owner" in await declined(bob, Ask(what="deop", text="bob"))
            assert "nobody acts on the owner" in await declined(owner, Ask(what="ban", text="owner"))
            await owner.stored(await owner.say("still here"))

    run(scene())


def test_a_banned_key_that_goes_on_writing_is_not_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as fixture, fixture.members("owner") as (owner,):
            mallory = await fixture.raw("mallory")
            await mallory.say(1, "the last that counts")
            await owner.hear("the last that counts")
            await decide(owner, "ban", text="mallory")
            flood = b"".join(encode(Kind.SAY, b"me again", number=number) for number in range(2, 200))
            await mallory.send(flood)
            assert (await mallory.refusal()).code == "banned"
            await owner.stored(await owner.say("quiet now"))
            assert fixture.texts() == ["the last that counts", "quiet now"]
            await mallory.leave()

    run(scene())
