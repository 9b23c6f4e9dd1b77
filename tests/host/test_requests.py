"""What members may ask of the host, and what it answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pytest

from chat.core import text
from chat.core.bodies import Answer, Ask, pack, unpack
from chat.core.errors import RequestFailed
from chat.core.events import Joined
from chat.core.sequencer import ClaimNick
from chat.core.wire import MAX_CONTROL, Kind, encode
from chat.host import hosted_room
from chat.host.programs import Program
from chat.local.identity import fingerprint
from tests.host.host_fixture import (
    FakeTransport,
    Guest,
    HostFixture,
    declined,
    fill_disk,
    free_disk,
    new_invite,
    run,
    stored_invites,
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
            assert stored_invites(fixture.store, fixture.hosted.number) == []
            assert [joined.role for joined in owner.so_far(Joined)] == ["owner"]

    run(scene())


def test_what_members_and_operators_may_not_ask(tmp_path: Path) -> None:
    """Operators are made by the owner alone: neither by /op nor by an invite of an operator's own."""
    owners = ("invite", "invites", "revoke", "renew", "op", "deop", "peer")
    staffs = ("kick", "ban", "unban", "mute", "unmute", "retract", "topic", "slow", "audit", "moderated")

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("owner", "pat", "ann") as (owner, pat, ann):
            await owner.ask(Ask(what="op", text="pat"))
            for what in owners:
                ask = Ask(what=what, text="ann", role="operator")
                for one in (pat, ann):
                    assert await declined(one, ask) == f"only the room's owner may ask for that ({what})"
            for what in staffs:
                assert "owner and operators may" in await declined(ann, Ask(what=what, text="ann"))
            assert fixture.hosted.room.moderated.keys() == {pat.session.key}

    run(scene())


def test_a_nickname_that_is_the_start_of_anothers_key_is_not_taken_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("owner", "ann") as (owner, ann):
            start = fingerprint(ann.session.key).removeprefix("SHA256:")[:7]
            async with fixture.client("troll") as troll:
                pass
            fixture.hosted.room._submit(ClaimNick(troll.session.key, start, text.skeleton(start)))
            assert "more" in await declined(owner, Ask(what="op", text=start))
            await owner.ask(Ask(what="op", text=fingerprint(ann.session.key)))
            assert fixture.hosted.room.moderated == {ann.session.key: ("operator", 0)}

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

            with pytest.raises(RequestFailed, match="disk takes nothing now"):
                await make_many()
            free_disk(fixture)
            await owner.stored(await owner.say("still here"))
            assert len(stored_invites(fixture.store, fixture.hosted.number)) == made

    run(scene())


EVIL: Final = ("x" * 60_000, "\x1b]0;gotcha\a" * 4000, "\0" * 60_000, "\u202e" * 20_000 + "y")


@pytest.mark.parametrize("evil", EVIL, ids=["long", "controls", "zeros", "bidi"])
def test_a_peers_word_is_cut_in_answers_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture, evil: str) -> None:
    """A word of 60 kB, which an escape makes 240, came back as an answer that fits no frame."""

    async def scene() -> None:
        async with HostFixture(tmp_path, f"pipe:{tmp_path}/fifo") as fixture:
            fixture.host.on_peer = lambda _room, spec: Program.parse(spec).name
            peer = await fixture.raw("eve", key=fixture.owner)
            for number, ask in enumerate((Ask(what=evil), Ask(what="peer", text=evil), Ask(what="search", text=evil))):
                await peer.send(pack(Kind.ASK, ask, number=number))
                frame = await peer.frame(Kind.ANSWER)
                answer = unpack(Answer, frame)
                assert (frame.number, answer.failed) == (number, True)
                assert len(frame.raw) < 4096
                assert str(answer.words).isprintable()
            await peer.send(encode(Kind.ASK, evil.encode()))
            refusal = await peer.refusal()
            assert refusal.code == "protocol"
            assert len(refusal.text) < 500
            await peer.leave()

    with caplog.at_level(logging.INFO):
        run(scene())
    assert len(caplog.text) < 2000
    assert "Traceback" not in caplog.text


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
