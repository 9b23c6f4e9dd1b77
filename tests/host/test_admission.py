"""How peers get in: invites, HELLO, WELCOME, and what a host refuses."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from chat.client.events import Lost
from chat.core.bodies import Ask, Hello, Names, pack, unpack
from chat.core.errors import NoSuchRoom, Refused
from chat.core.events import Joined
from chat.core.wire import MAX_CONTROL, MAX_TEXT, PREFACE, Kind, encode
from chat.host import admission
from chat.local.identity import Identity
from chat.transport import Address, Site
from tests.host.host_fixture import (
    HostFixture,
    SlowHostFixture,
    declined,
    every_wire,
    fill_disk,
    free_disk,
    new_invite,
    refused,
    run,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("leaves_nothing")


def test_the_standing_invite_lets_in_also_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = fixture.host.invite("lobby")
            for nick in ("ann", "bob"):
                async with fixture.client(nick, invite=invite):
                    pass
            await fixture.close()
            await fixture.open()
            assert str(fixture.host.invite("lobby")) == str(invite)
            async with fixture.client("cid", invite=invite):
                pass
            async with fixture.client("ann"):  # who was in needs none
                pass

    run(scene())


def test_without_the_right_invite_nobody_gets_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = fixture.host.invite("lobby")
            assert "by invite only" in await refused(fixture, "ann", "not-invited")
            await refused(fixture, "ann", "wrong-invite", replace(invite, secret=bytes(16)))
            assert fixture.log() == []
            assert fixture.nicks() == []

    run(scene())


def test_to_know_an_invite_by_its_number_is_not_to_hold_it(tmp_path: Path) -> None:
    """What is seen on the wire of one HELLO is of no use in another."""

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            peer = await fixture.dial()
            hello = await peer.hello("ann", invite=fixture.host.invite("lobby"), stream=1)
            seen = hello.invite_proof
            thief = await fixture.dial()
            stolen = await thief.hello("eve", stream=1)
            stolen.invite, stolen.invite_proof = hello.invite, seen
            await thief.send(PREFACE + pack(Kind.HELLO, stolen))
            assert (await thief.refusal()).code == "wrong-invite"
            replayed = await fixture.dial()
            await replayed.frame(Kind.CHALLENGE)
            await replayed.send(PREFACE + pack(Kind.HELLO, hello))  # ann's own, word for word
            assert "signature does not fit" in (await replayed.refusal()).text
            for one in (peer, thief, replayed):
                await one.leave()

    run(scene())


@pytest.mark.parametrize("wire", ["pipe", "queue"])
def test_every_process_of_the_hosts_own_user_is_an_owner(tmp_path: Path, home: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, f"{wire}:{home.parent / 'run' / 'door'}") as fixture:
            far = await fixture.host.listen(Address("memory", "far"), Site(fixture.folder, fixture.key), "lobby")
            async with fixture.client("bob") as bob, fixture.client("cid", addresses=(far,)) as cid:
                assert [one.so_far(Joined)[0].role for one in (bob, cid)] == ["owner", "member"]
            async with fixture.client("bob", addresses=(far,)) as bob:  # it was that link's role, and not the key's
                assert bob.so_far(Joined)[0].role == "member"

    run(scene())


def test_an_invite_for_two(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = await new_invite(fixture, uses=2)
            async with fixture.client("ann", invite=invite):
                pass
            async with fixture.client("ann", invite=invite):  # she is a member by now, and uses nothing up
                pass
            await fixture.close()
            await fixture.open()
            async with fixture.client("bob", invite=invite):
                pass
            assert "used up" in await refused(fixture, "cid", "invite-used", invite)
            await fixture.close()  # and who came by which invite is known to this host alone
            with closing(sqlite3.connect(fixture.folder / "store/log.db")) as database:
                found = dict(database.execute("SELECT key, invite FROM admitted").fetchall())
            keys = [Identity.load(fixture.folder / f"{nick}.pem").key for nick in ("ann", "bob")]
            assert found == dict.fromkeys(keys, invite.signer.key)
            await fixture.open()

    run(scene())


@pytest.mark.parametrize("open_to_all", [False, True])
def test_an_operators_invite_makes_operators_of_newcomers(tmp_path: Path, *, open_to_all: bool) -> None:
    """It can be used once, and the audit trail names it."""

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=open_to_all) as fixture:
            async with fixture.client("ann", invite=fixture.host.invite("lobby")):
                pass
            invite = await new_invite(fixture, role="operator", text="bob from work")
            assert not invite.nick  # that is none
            key = invite.signer.key.hex()[:8]
            async with fixture.client("ann", invite=invite) as ann:  # a member already
                assert ann.so_far(Joined)[0].role == "member"
            async with fixture.client("bob", invite=invite) as bob:
                assert bob.so_far(Joined)[0].role == "operator"
            async with fixture.client("dan", invite=await new_invite(fixture, uses=2, text="dan")) as dan:
                assert dan.so_far(Joined)[0].role == "member"
            assert await refused(fixture, "cid", "invite-used", invite)
            await fixture.close()
            await fixture.open()
            async with fixture.client("bob") as bob, fixture.client("owner") as owner:
                assert bob.so_far(Joined)[0].role == "operator"
                ((_number, _time, *row),) = (await owner.ask(Ask(what="audit"))).audit
                assert row == ["owner", "op", "bob", f"invite {key}"]
                listed = await owner.ask(Ask(what="invites"))
                terms = dict(zip([one[0] for one in listed.invites], listed.terms, strict=True))
                assert terms.pop(key) == ("bob from work", "operator")
                assert {*terms.values()} == {("", ""), ("dan", "")}
                await owner.ask(Ask(what="deop", text="bob"))
            async with fixture.client("bob", invite=invite) as bob:  # it makes him an operator once
                assert bob.so_far(Joined)[0].role == "member"

    run(scene())


def test_there_is_no_invite_for_owners(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("owner") as owner:
            assert "'invite owner'" in await declined(owner, Ask(what="invite", role="owner"))

    run(scene())


def test_an_invite_opens_with_its_own_signature_only(tmp_path: Path) -> None:
    """Its public key is known to everybody in the room."""

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = fixture.host.invite("lobby")
            for proof in (b"", bytes(64), Identity.load(fixture.folder / "eve.pem").sign(b"anything")):
                eve = await fixture.dial()
                hello = await eve.hello("eve", invite=invite, stream=1)
                hello.invite_proof = proof
                await eve.send(PREFACE + pack(Kind.HELLO, hello))
                assert (await eve.refusal()).code == "wrong-invite"
                await eve.leave()

    run(scene())


def test_who_is_refused_for_a_nickname_has_not_used_the_invite(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = await new_invite(fixture, uses=1)
            async with fixture.client("bill", invite=fixture.host.invite("lobby")):
                pass
            await refused(fixture, "bi1l", "nick-similar", invite)
            async with fixture.client("ann", invite=invite):
                pass

    run(scene())


def test_invites_expire(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            expired = replace(fixture.host.invite("lobby"), secret=b"0123456789abcdef")
            fixture.hosted.room.add_invite(expired.signer.key, expires=2)
            await refused(fixture, "ann", "invite-expired", expired)
            async with fixture.client("ann", invite=await new_invite(fixture, seconds=3600)):
                pass

    run(scene())


def test_an_invite_whose_use_cannot_be_counted_lets_nobody_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as fixture:
            invite = await new_invite(fixture, uses=1)
            execute = fixture.store._database.execute
            execute("CREATE TABLE ballast (data BLOB)")
            heavy = "INSERT INTO ballast VALUES (zeroblob(100000))"  # so that this one write does not fit any more
            execute(f"CREATE TRIGGER heavy BEFORE INSERT ON invite_uses BEGIN {heavy}; END")
            fill_disk(fixture)
            assert "disk takes nothing now" in await refused(fixture, "ann", "disk-full", invite)
            await refused(fixture, "ann", "disk-full", invite)  # and no second try gets in
            assert fixture.nicks() == []
            free_disk(fixture)
            async with fixture.client("ann", invite=invite):
                pass
            await refused(fixture, "bob", "invite-used", invite)

    run(scene())


def test_two_who_come_with_the_last_use_of_an_invite_while_the_disk_is_busy(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path, open_to_all=False) as fixture:
            fixture.disk.set()
            invite = await new_invite(fixture, uses=1)
            owner = await fixture.raw("owner", key=fixture.owner)
            await until(lambda: not (fixture.hosted.committing or fixture.hosted.room.changed), "all is stored")
            fixture.disk.clear()
            await owner.say(1)
            await until(lambda: fixture.hosted.committing, "the commit is under way")
            guests = [await fixture.dial() for _ in range(2)]
            for nick, guest in zip(("ann", "bob"), guests, strict=True):
                hello = await guest.hello(nick, invite=invite, stream=1)
                await guest.send(PREFACE + pack(Kind.HELLO, hello))
            answers = [asyncio.ensure_future(guest.frame(Kind.WELCOME, Kind.REFUSED)) for guest in guests]
            async with fixture.client("owner"):  # who needs no invite does not wait
                assert not any(answer.done() for answer in answers)
            fixture.disk.set()
            assert sorted([(await answer).kind for answer in answers]) == [Kind.WELCOME, Kind.REFUSED]
            for peer in (owner, *guests):
                await peer.leave()

    run(scene())


# -- HELLO ----------------------------------------------------------------------------------------


def test_rooms_are_found_by_name_and_the_only_one_without(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            async with fixture.client("ann", room="") as ann:
                assert (await ann.event(Joined)).room == "lobby"
            with pytest.raises(NoSuchRoom):
                async with fixture.client("ann", room="garden"):
                    pass
            fixture.add_room("garden")
            async with fixture.client("ann", room="garden") as ann, fixture.client("bob") as bob:
                await ann.say("only here")
                await ann.settled()
                assert fixture.log() == []
                assert [nick for _, nick in bob.session.here if nick != "bob"] == []
            with pytest.raises(NoSuchRoom):
                async with fixture.client("ann", room=""):
                    pass

    run(scene())


def changed(**fields: Any) -> Callable[[Hello], bytes]:
    """A HELLO with other fields than those that were signed."""

    def change(hello: Hello) -> bytes:
        for name, value in fields.items():
            setattr(hello, name, value)
        return pack(Kind.HELLO, hello)

    return change


BAD_HELLOS: Final[dict[str, tuple[Callable[[Hello], bytes], str]]] = {
    "another frame": (lambda _: pack(Kind.ASK, Ask(what="names")), "kind 72 instead of HELLO"),
    "junk": (lambda _: encode(Kind.HELLO, b"\xc1"), "Hello that cannot be read"),
    "deeply nested": (lambda _: encode(Kind.HELLO, b"\x81\xa1x" + b"\x91" * 3000), "Hello that cannot be read"),
    "too long": (lambda _: encode(Kind.HELLO, bytes(4096)), "the limit here is 4096"),
    "a short key": (changed(key=b"k"), "wrong size"),
    "a short nonce": (changed(nonce=b"n"), "wrong size"),
    "another's key": (changed(key=b"k" * 32), "signature does not fit"),
    "a short signature": (changed(signature=b""), "signature does not fit"),
    "a signature for another room": (changed(room="r"), "signature does not fit"),
    "HTTP": (lambda _: b"GET / HTTP/1.1\r\n\r\n", "does not speak chat/2"),
}


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_what_is_no_hello_is_answered_with_the_reason(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        make, why = BAD_HELLOS[name]
        async with HostFixture(tmp_path) as fixture:
            peer = await fixture.dial()
            data = make(await peer.hello("eve", stream=1))
            await peer.send(data if data.startswith(b"GET") else PREFACE + data)
            refusal = await peer.refusal()
            assert (refusal.code, why in refusal.text) == ("protocol", True), refusal
            await peer.leave()
            assert fixture.log() == []

    run(scene())


@pytest.mark.parametrize("evil", ["x" * 3000, "\0" * 3000, "\x1b[2J" * 700, "\u202e" * 1000])
def test_what_a_hello_names_is_cut_in_refusals_and_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, evil: str
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            for more in ({"room": evil}, {"nick": evil}):
                peer = await fixture.dial()
                hello = await peer.hello("eve", room=more.get("room", "lobby"), stream=1)
                hello.nick = more.get("nick", "eve")
                await peer.send(PREFACE + pack(Kind.HELLO, hello))
                refusal = await peer.refusal()
                assert refusal.code in {"no-room", "nick-invalid"}
                for shown in (refusal.text, *map(str, refusal.fields.values())):
                    assert shown.isprintable()
                    assert len(shown) < 500
                await peer.leave()

    run(scene())
    assert 0 < len(caplog.text) < 1500


def test_who_only_looks_is_no_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            for data in (b"", PREFACE, PREFACE + pack(Kind.ASK, Ask(what="names"))[:-1]):
                peer = await fixture.dial()
                await peer.frame(Kind.CHALLENGE)
                await peer.send(data)
                await peer.leave()
            async with fixture.client("ann"):
                pass

    with caplog.at_level(logging.WARNING):
        run(scene())
    assert caplog.text == ""


def test_a_peer_that_says_no_hello_in_time_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "HELLO_TIMEOUT", 0.05)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            peer = await fixture.dial()
            await peer.send(PREFACE)
            received = await peer.everything()
            assert received.startswith(PREFACE)
            await peer.leave()

    run(scene())
    assert "did not say HELLO within 0.05 s" in caplog.text


def test_with_all_slots_taken_the_oldest_peer_gives_way_and_members_notice_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_UNAUTHENTICATED", 8)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            waiting = [await fixture.dial() for _ in range(8)]
            for peer in waiting:
                await peer.frame(Kind.CHALLENGE)
            late = await fixture.dial()
            await late.frame(Kind.CHALLENGE)
            assert await waiting[0].everything() == b""
            for number in range(20):
                await ann.say(str(number))
                await bob.hear(str(number))
            await waiting[7].say_hello("cid")
            async with fixture.client("dan"):  # into the place of the one who was let in
                pass
            for peer in (waiting[1], late):
                await peer.say_hello("eve" if peer is late else "fay")
            assert not ann.so_far(Lost)
            for peer in (*waiting, late):
                await peer.leave()

    run(scene())


def test_frames_right_behind_hello_are_handled_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            ann = await fixture.raw("ann", more_data=encode(Kind.SAY, bytes(MAX_TEXT), number=1))
            assert len((await ann.frame(Kind.SAY)).body) == MAX_TEXT
            await ann.leave()
            bob = await fixture.dial()
            hello = pack(Kind.HELLO, await bob.hello("bob", stream=1))
            await bob.send(PREFACE + hello + encode(Kind.SAY, b"in passing", number=1) + encode(Kind.BYE))
            await bob.everything()
            await until(lambda: fixture.texts()[1:] == ["in passing"], "it is stored")
            await bob.leave()

    run(scene())


# -- WELCOME --------------------------------------------------------------------------------------


def test_a_nickname_that_is_taken_gets_a_suffix_and_a_look_alike_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("bill"):
            peer = await fixture.dial()
            hello = await peer.hello("other", stream=1)
            hello.nick = "bill"
            await peer.send(PREFACE + pack(Kind.HELLO, hello))
            await peer.frame(Kind.WELCOME)
            assert fixture.nicks() == ["bill", "bill-2"]
            assert "looks like bill" in await refused(fixture, "bi1l", "nick-similar")
            await peer.leave()

    run(scene())


@every_wire
def test_a_newer_link_of_a_stream_replaces_the_older_and_no_other(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as fixture:
            other_window, other_key = await fixture.raw("ann", stream=2), await fixture.raw("bob", stream=1)
            older = await fixture.raw("ann", stream=1)
            await older.say(1)
            await older.frame(Kind.SAY)
            newer = await fixture.raw("ann", stream=1)
            assert newer.welcome is not None
            assert newer.welcome.first_unsettled == 2
            await older.everything()
            for peer in (newer, other_window, other_key):
                await peer.say(2 if peer is newer else 1, "still here")
            assert [(await other_key.frame(Kind.SAY)).body for _ in range(4)][1:] == [b"still here"] * 3
            assert sorted(fixture.nicks()) == ["ann", "bob"]
            for peer in (older, newer, other_window, other_key):
                await peer.leave()

    run(scene())


def test_one_key_has_so_many_links_and_a_stream_that_comes_back_is_none_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_LINKS_A_KEY", 2)

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("bob"):
            first = await fixture.raw("cid", stream=1)
            second = await fixture.raw("cid", stream=2)
            with pytest.raises(Refused, match="your key already has 2 links to this room") as refused:
                async with fixture.client("cid"):
                    pass
            assert refused.value.code == "too-many-links"
            again = await fixture.raw("cid", stream=1)
            await first.everything()
            for peer in (second, again):
                await peer.leave()
            async with fixture.client("cid"):
                pass

    run(scene())


def test_who_comes_in_is_told_who_speaks_here_without_asking(tmp_path: Path) -> None:
    """A member that floods would wait for the answer until the host has read all that it says itself."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("bob") as bob, fixture.client("cid") as cid:
            async with fixture.client("dan") as dan:
                await dan.stored(await dan.say("and leaves"))
            await bob.stored(await bob.say("one"))
            eve = await fixture.raw("eve", history=0)
            names = unpack(Names, await eve.frame(Kind.NAMES))
            assert [author.nick for author in names.authors] == ["bob"]
            await cid.stored(await cid.say("two"))
            await eve.leave()

    run(scene())


def test_of_many_who_speak_those_are_told_who_came_last(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members(*(f"m{n}" for n in range(30))) as members:
            for member in members:
                await member.stored(await member.say("here"))
            eve = await fixture.raw("eve", history=0)
            frame = await eve.frame(Kind.NAMES)
            assert len(frame.raw) <= MAX_CONTROL
            assert [author.nick for author in unpack(Names, frame).authors] == [f"m{n}" for n in range(5, 30)]
            await eve.leave()

    run(scene())
