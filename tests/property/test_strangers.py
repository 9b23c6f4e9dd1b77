"""Any frames, before and behind any HELLO that must not be let in, against a real host: it says why, and nothing more.

The other half is tests/core/test_moderated.py: what members may do, whatever becomes of them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chat.core.bodies import Ask, Hello, Moderation, Refusal, direct_name, pack, unpack
from chat.core.errors import LinkBroken
from chat.core.wire import HEADER_SIZE, PREFACE, Kind, encode
from chat.local.identity import Identity
from tests.host.host_fixture import HostFixture, RawPeer, new_invite

if TYPE_CHECKING:
    from pathlib import Path

# Who comes, and what they are told.
STRANGERS: Final = {
    "nobody": "protocol",  # who says no HELLO
    "stranger": "not-invited",
    "revoked": "invite-revoked",
    "guesser": "wrong-invite",
    "banned": "banned",
    "banned-invited": "banned",  # with an invite that is good
    "forger": "protocol",  # with the owner's key and another's signature
    "other-kind": "protocol",  # a member's HELLO, but in a frame of another kind
    "direct": "no-shared-room",
    "direct-banned": "banned",
    "no-room": "no-room",
}
BODIES: Final = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            pack(kind, body)[HEADER_SIZE:]
            for kind, body in (
                (Kind.ASK, Ask(what="ban", text="ann")),
                (Kind.ASK, Ask(what="range", first=1, before=99)),
                (Kind.MODERATION, Moderation(action="role", by=b"a" * 32, by_nick="ann", key=b"b" * 32, role="owner")),
            )
        ]
    ),
)
KINDS: Final = st.one_of(st.sampled_from(list(Kind)), st.integers(0, 255))
FRAMES: Final = st.lists(
    st.builds(lambda kind, body, number: encode(kind, body, number=number), KINDS, BODIES, st.integers(0, 3)),
    max_size=3,
)


class Stage:
    """A host with members, somebody who is banned, and invites."""

    def __init__(self, folder: Path) -> None:
        self.fixture = HostFixture(folder, open_to_all=False)
        self.keys = {name: Identity.load(folder / f"{name}.pem") for name in ("stranger", "banned", "ann", "owner")}

    async def open(self) -> None:
        await self.fixture.open()
        self.good = await new_invite(self.fixture)
        self.revoked = await new_invite(self.fixture, uses=1)
        async with (
            self.fixture.client("owner") as owner,
            self.fixture.client("ann", invite=self.good) as ann,
            self.fixture.client("banned", invite=self.good) as banned,
        ):
            await ann.stored(await ann.say("a secret"))
            await banned.stored(await banned.say("an insult"))
            await owner.ask(Ask(what="ban", text="banned"))
            await owner.ask(Ask(what="revoke", text=self.revoked.signer.key.hex()))
            await ann.stored(await ann.say("peace"))

    async def hello(self, peer: RawPeer, who: str) -> bytes:
        async def made(name: str, **more: Any) -> Hello:
            return await peer.hello(name, key=self.keys[name], stream=7, **more)

        ann = self.keys["ann"].key
        match who:
            case "nobody":
                await peer.frame(Kind.CHALLENGE)
                return b""
            case "revoked":
                hello = await made("stranger", invite=self.revoked)
            case "guesser":
                hello = replace(await made("stranger", invite=self.good), invite_proof=bytes(64))
            case "banned-invited":
                hello = await made("banned", invite=self.good)
            case "forger":
                hello = replace(await made("stranger"), key=self.keys["owner"].key)
            case "direct" | "direct-banned":
                name = "banned" if who == "direct-banned" else "stranger"
                hello = await made(name, room=direct_name(self.keys[name].key, ann), other=ann)
            case "no-room":
                hello = await made("ann", room="elsewhere")
            case "other-kind":
                return pack(Kind.WELCOME, await made("ann"))
            case name:
                hello = await made(name)
        return pack(Kind.HELLO, hello)

    def state(self) -> tuple[Any, ...]:
        """All that a host holds of its room, and who is there."""
        room = self.fixture.hosted.room
        tables = room._nicks, room._roles, room.invites, room.moderated, room.properties
        return (
            len(self.fixture.log()),
            room.log.end,
            set(room._streams),
            repr(tables),
            list(room.members),
            room.changed,
        )

    async def meet(self, who: str, before: list[bytes], behind: list[bytes]) -> None:
        peer = await self.fixture.dial()
        hello = await self.hello(peer, who)
        with suppress(LinkBroken):  # the host may hang up before it has read all
            await peer.send(PREFACE + b"".join((*before, hello, *behind)))
        if hello or before or behind:
            frame = await peer.frame()
            assert frame.kind == Kind.REFUSED, "somebody is let in who must not be"
            assert unpack(Refusal, frame).code == ("protocol" if before else STRANGERS[who])
        await peer.leave()
        assert not peer.frames, "there is more than the refusal"


@pytest.mark.parametrize("examples", [150, pytest.param(5_000, marks=pytest.mark.slow)])
def test_whoever_is_not_let_in_reads_nothing_and_changes_nothing(tmp_path: Path, examples: int) -> None:
    with asyncio.Runner() as runner:
        stage = Stage(tmp_path)
        runner.run(stage.open())
        state = stage.state()

        @settings(max_examples=examples, deadline=None)
        @given(who=st.sampled_from(list(STRANGERS)), before=st.one_of(st.just([]), FRAMES), behind=FRAMES)
        def strangers(who: str, before: list[bytes], behind: list[bytes]) -> None:
            runner.run(stage.meet(who, before, behind))
            assert stage.state() == state

        try:
            strangers()
        finally:
            runner.run(stage.fixture.close())
