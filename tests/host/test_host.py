"""The host among real members: who comes in, who waits for whom, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest

from chat.client.client import Lost, Up
from chat.core.errors import NoSuchRoom, Refused, StoreError
from chat.core.session import Here, Joined, Message, Rewound, Stored
from chat.core.wire import (
    HEADER_SIZE,
    MAX_CONTROL,
    MAX_FRAME,
    MAX_TEXT,
    PREFACE,
    Ask,
    Author,
    Hello,
    Kind,
    Names,
    Notice,
    Parser,
    encode,
    pack,
    split,
    unpack,
)
from chat.host import admission, connection, hosted_room, runtime
from chat.host import host as host_module
from chat.host.store import StoredInvite
from chat.local.invite import Invite
from tests.host.host_fixture import HostFixture, Rude, SlowHostFixture, ToldLink, ToldTransport, run, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.client.client import Client

WIRES: Final = ("", "tcp:127.0.0.1:0", "tcp:[::1]:0?tls=0")  # "" is memory, with a name of its own
every_wire = pytest.mark.parametrize("wire", WIRES, ids=["memory", "tcp", "tcp-plain"])
pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens must happen by itself: no beat comes along and wakes somebody."""
    monkeypatch.setattr(host_module, "BEAT", 3600)
    monkeypatch.setattr("chat.client.client.BEAT", 3600)


# -- talking -------------------------------------------------------------------------------------


@every_wire
def test_what_is_said_reaches_everyone_once_and_in_one_order(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house, house.members("ann", "bob", "cid") as members:

            async def talk(client: Client, name: str) -> None:
                for number in range(50):
                    await client.say(f"{name} {number}")

            async def listen(client: Client) -> list[str]:
                heard: list[str] = []
                while len(heard) < 150:
                    heard += [e.text for e in await client.next_events() if isinstance(e, Message)]
                return heard

            talking = [talk(client, name) for client, name in zip(members, "abc", strict=True)]
            heard = await asyncio.gather(*map(listen, members), *talking)
            assert heard[0] == heard[1] == heard[2] == house.texts()
            for name in "abc":
                assert [text for text in house.texts() if text[0] == name] == [f"{name} {n}" for n in range(50)]
            for client in members:
                await client.settled()

    run(scene())


@every_wire
def test_an_echo_says_where_in_the_log_a_message_stands(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house, house.client("ann") as ann:
            entries = [await ann.say(text) for text in ("one", "two")]
            seqs = await ann.stored(*entries)
            at = {frame.seq: frame.body for frame in house.log()}
            assert [at[seq] for seq in seqs] == [b"one", b"two"]

    run(scene())


def test_a_room_of_any_size_of_message(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.members("ann", "bob") as (ann, bob):
            texts = ["x" * size for size in (0, 1, MAX_TEXT - 1, MAX_TEXT)]
            for text in texts:
                await ann.say(text)
            await bob.hear(*texts)

    run(scene())


# -- the door ------------------------------------------------------------------------------------


def test_the_standing_invite_lets_in_also_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            invite = house.host.invite("lobby")
            for nick in ("ann", "bob"):
                async with house.client(nick, invite=invite):
                    pass
            await house.close()
            await house.open()
            assert str(house.host.invite("lobby")) == str(invite)
            async with house.client("cid", invite=invite):
                pass
            async with house.client("ann"):  # who was in needs none
                pass

    run(scene())


async def refused(house: HostFixture, nick: str, code: str, invite: Invite | None = None) -> str:
    with pytest.raises(Refused) as caught:
        async with house.client(nick, invite=invite):
            pytest.fail(f"{nick} was let in")
    assert caught.value.code == code
    return str(caught.value)


def test_without_the_right_invite_nobody_gets_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            invite = house.host.invite("lobby")
            assert "by invite only" in await refused(house, "ann", "not-invited")
            await refused(house, "ann", "wrong-invite", replace(invite, secret=bytes(16)))
            assert house.log() == []
            assert house.nicks() == []

    run(scene())


def test_to_know_an_invite_by_its_number_is_not_to_hold_it(tmp_path: Path) -> None:
    """What is seen on the wire of one HELLO is of no use in another."""

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            peer = await house.knock()
            hello = await peer.hello("ann", invite=house.host.invite("lobby"), stream=1)
            seen = hello.invite_mac
            thief = await house.knock()
            stolen = await thief.hello("eve", stream=1)
            stolen.invite, stolen.invite_mac = hello.invite, seen
            await thief.send(PREFACE + pack(Kind.HELLO, stolen))
            assert (await thief.refusal()).code == "wrong-invite"
            replayed = await house.knock()
            await replayed.frame(Kind.CHALLENGE)
            await replayed.send(PREFACE + pack(Kind.HELLO, hello))  # ann's own, word for word
            assert "signature does not fit" in (await replayed.refusal()).message
            for one in (peer, thief, replayed):
                await one.leave()

    run(scene())


async def new_invite(house: HostFixture, **limits: Any) -> Invite:
    async with house.client("owner") as owner:
        answer = await owner.ask(Ask(what="invite", **limits))
    assert answer.error == ""
    return Invite.parse(answer.text)


def test_an_invite_for_two(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            invite = await new_invite(house, uses=2)
            async with house.client("ann", invite=invite):
                pass
            async with house.client("ann", invite=invite):  # she is a member by now, and uses nothing up
                pass
            await house.close()
            await house.open()
            async with house.client("bob", invite=invite):
                pass
            assert "used up" in await refused(house, "cid", "invite-used", invite)

    run(scene())


def test_who_is_refused_for_a_nickname_has_not_used_the_invite(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            invite = await new_invite(house, uses=1)
            async with house.client("bill", invite=house.host.invite("lobby")):
                pass
            await refused(house, "bi1l", "nick", invite)
            async with house.client("ann", invite=invite):
                pass

    run(scene())


def test_invites_expire(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            expired = replace(house.host.invite("lobby"), secret=b"0123456789abcdef")
            house.store.add_invite(house.hosted.number, StoredInvite(expired.secret, expires=1, uses=-1))
            await refused(house, "ann", "invite-expired", expired)
            async with house.client("ann", invite=await new_invite(house, seconds=3600)):
                pass

    run(scene())


def test_the_standing_invite_needs_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            assert str(await new_invite(house)) == str(house.host.invite("lobby"))

    run(scene())


def test_only_the_owner_makes_invites_and_odd_questions_are_answered(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("owner") as owner, house.client("ann") as ann:
            assert "only the room's owner" in (await ann.ask(Ask(what="invite", uses=1))).error
            assert "'the time'" in (await owner.ask(Ask(what="the time"))).error
            assert house.store.invites(house.hosted.number) == []
            assert [joined.role for joined in owner.so_far(Joined)] == ["owner"]

    run(scene())


def test_rooms_are_found_by_name_and_the_only_one_without(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            async with house.client("ann", room="") as ann:
                assert (await ann.event(Joined)).room == "lobby"
            with pytest.raises(NoSuchRoom):
                async with house.client("ann", room="garden"):
                    pass
            house.add_room("garden")
            async with house.client("ann", room="garden") as ann, house.client("bob") as bob:
                await ann.say("only here")
                await ann.settled()
                assert house.log() == []
                assert [nick for _, nick in bob.session.here if nick != "bob"] == []
            with pytest.raises(NoSuchRoom):
                async with house.client("ann", room=""):
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
    "HTTP": (lambda _: b"GET / HTTP/1.1\r\n\r\n", "does not speak chat/1"),
}


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_what_is_no_hello_is_answered_with_the_reason(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        make, why = BAD_HELLOS[name]
        async with HostFixture(tmp_path) as house:
            peer = await house.knock()
            data = make(await peer.hello("eve", stream=1))
            await peer.send(data if data.startswith(b"GET") else PREFACE + data)
            refusal = await peer.refusal()
            assert (refusal.code, why in refusal.message) == ("protocol", True), refusal
            await peer.leave()
            assert house.log() == []

    run(scene())


def test_who_only_looks_is_no_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            for data in (b"", PREFACE, PREFACE + pack(Kind.ASK, Ask(what="names"))[:-1]):
                peer = await house.knock()
                await peer.frame(Kind.CHALLENGE)
                await peer.send(data)
                await peer.leave()
            async with house.client("ann"):
                pass

    with caplog.at_level(logging.WARNING):
        run(scene())
    assert caplog.text == ""


def test_a_stranger_has_so_long_to_say_hello(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "HELLO_TIMEOUT", 0.05)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            peer = await house.knock()
            await peer.send(PREFACE)
            received = await peer.everything()
            assert received.startswith(PREFACE)
            await peer.leave()

    run(scene())
    assert "did not say HELLO within 0.05 s" in caplog.text


def test_at_a_full_door_the_next_waits_and_members_notice_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.members("ann", "bob") as (ann, bob):
            strangers = [await house.knock() for _ in range(admission.MAX_UNAUTHENTICATED)]
            for stranger in strangers:
                await stranger.frame(Kind.CHALLENGE)
            late = await house.knock()
            challenge = asyncio.ensure_future(late.frame(Kind.CHALLENGE))
            for number in range(20):
                await ann.say(str(number))
                await bob.hear(str(number))
            assert not challenge.done()
            await strangers[7].send(b"junk of a length that no preface has, so that it is refused at once, and waits\n")
            await strangers[7].refusal()
            assert not challenge.done()  # a refused one is a stranger until it has gone
            await strangers[7].leave()
            await challenge
            await strangers[8].say_hello("cid")
            async with house.client("dan"):  # a place is free again where one was let in
                pass
            for stranger in (*strangers, late):
                await stranger.leave()

    run(scene())


# -- who is who ----------------------------------------------------------------------------------


def test_a_nickname_that_is_taken_gets_a_suffix_and_a_look_alike_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("bill"):
            peer = await house.knock()
            hello = await peer.hello("other", stream=1)
            hello.nick = "bill"
            await peer.send(PREFACE + pack(Kind.HELLO, hello))
            await peer.frame(Kind.WELCOME)
            assert house.nicks() == ["bill", "bill-2"]
            assert "looks like bill" in await refused(house, "bi1l", "nick")
            await peer.leave()

    run(scene())


def test_silent_readers_are_not_seen(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            async with house.client("reader", reads_only=True) as reader:
                here = await reader.event(Here)
                assert [nick for _, nick in here.came] == ["ann"]
                await ann.say("hello")
                await reader.hear("hello")
                assert house.nicks() == ["ann"]
            assert [nick for _, nick in ann.session.here] == ["ann"]

    run(scene())


@pytest.mark.usefixtures("no_beats")
def test_everyone_is_told_who_comes_and_goes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            async with house.client("bob"):
                await ann.event(Here, lambda here: "bob" in [nick for _, nick in here.came])
            await ann.event(Here, lambda here: "bob" in [nick for _, nick in here.went])
            lost = await house.rude("cid")
            await ann.event(Here, lambda here: "cid" in [nick for _, nick in here.came])
            await lost.leave()  # without a goodbye
            await ann.event(Here, lambda here: "cid" in [nick for _, nick in here.went])
            assert [nick for _, nick in ann.session.here] == ["ann"]

    run(scene())


@every_wire
def test_a_newer_link_of_a_stream_replaces_the_older_and_no_other(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house:
            other_window, other_key = await house.rude("ann", stream=2), await house.rude("bob", stream=1)
            older = await house.rude("ann", stream=1)
            await older.say(1)
            await older.frame(Kind.SAY)
            newer = await house.rude("ann", stream=1)
            assert newer.welcome is not None
            assert newer.welcome.first_unsettled == 2
            await older.everything()
            for peer in (newer, other_window, other_key):
                await peer.say(2 if peer is newer else 1, "still here")
            assert [(await other_key.frame(Kind.SAY)).body for _ in range(4)][1:] == [b"still here"] * 3
            assert sorted(house.nicks()) == ["ann", "bob"]
            for peer in (older, newer, other_window, other_key):
                await peer.leave()

    run(scene())


# -- slow members, greedy members ----------------------------------------------------------------


@every_wire
@pytest.mark.usefixtures("no_beats")
def test_a_member_that_does_not_read_delays_nobody_and_is_caught_up(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house, house.members("ann", "bob") as (ann, bob):
            slow = await house.rude("cid")
            (served,) = [s for m, s in house.hosted.connections.items() if m.nick == "cid"]
            spoken = 0
            while not served.clogged:
                await ann.say(f"{spoken} ".ljust(MAX_TEXT, "."))
                spoken += 1
                await bob.hear(f"{spoken - 1} ".ljust(MAX_TEXT, "."))
            await ann.say("done")
            await bob.hear("done")
            numbers = [int((await slow.frame(Kind.SAY)).body.split()[0]) for _ in range(spoken)]
            assert numbers == [*range(spoken)]
            assert (await slow.frame(Kind.SAY)).body == b"done"
            await until(lambda: served.clogged is None, "its link is free again")
            await slow.leave()

    run(scene())


def test_a_member_that_leaves_with_a_full_link_is_forgotten(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            slow = await house.rude("cid")
            (served,) = [s for m, s in house.hosted.connections.items() if m.nick == "cid"]
            while not served.clogged:
                await ann.say("." * MAX_TEXT)
                await ann.settled()
                ann.take()
            clogged = served.clogged
            await slow.leave()
            await until(lambda: house.nicks() == ["ann"], "cid has left")
            await until(clogged.done, "nobody waits for its link any more")
            assert len(house.hosted.connections) == 1

    run(scene())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> ToldTransport:
    """Links that the test sees through, in the place of a transport."""
    transport = ToldTransport()
    monkeypatch.setattr(host_module, "find", lambda _scheme: transport)
    return transport


class Guest:
    """A member over a ToldLink."""

    def __init__(self, house: HostFixture, told: ToldTransport, nick: str) -> None:
        self.nick = nick
        self.link = ToldLink(nick)
        self.rude = Rude(house, self.link)
        self.told = told

    async def come(self, **more: Any) -> None:
        self.told.accepted.put_nowait(self.link)
        await until(lambda: self.link.taken, "the challenge")
        self.rude.frames += self.rude.parser.feed(b"".join(self.link.taken))
        self.link.taken.clear()
        hello = await self.rude.hello(self.nick, stream=1, **more)
        self.link.arrive(PREFACE + pack(Kind.HELLO, hello))

    def say(self, number: int, text: str = "hi") -> None:
        self.link.arrive(encode(Kind.SAY, text.encode(), number=number))

    def frames(self) -> list[Any]:
        """What has come since WELCOME."""
        return list(Parser(preface=False).feed(b"".join(self.link.taken)))

    def has(self, text: str) -> bool:
        return any(frame.body == text.encode() for frame in self.frames())


def test_who_catches_up_gets_so_much_a_turn_and_the_others_theirs_in_between(
    tmp_path: Path, told: ToldTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann, bob = Guest(house, told, "ann"), Guest(house, told, "bob")
            await ann.come()
            for number in range(1, 129):
                ann.say(number, f"{number} ".ljust(MAX_TEXT, "."))
            await until(lambda: ann.has("128 ".ljust(MAX_TEXT, ".")), "two MiB are in the log")
            monkeypatch.setattr(connection, "SEND_BUDGET", 100_000)
            order: list[int] = []  # bytes sent to bob, and a 0 for each turn of ann's

            def note(data: Any, *, send: Any = bob.link.send) -> int:
                order.append(len(data))
                count: int = send(data)
                return count

            monkeypatch.setattr(bob.link, "send", note)
            await bob.come(next_seq=1)
            turns = 0
            while not bob.has("128 ".ljust(MAX_TEXT, ".")):
                order.append(0)
                turns += 1
                await asyncio.sleep(0)
            most = max(sum(order[start:end]) for start, end in spans(order))
            assert most < 100_000 + 2 * MAX_FRAME, "one member got more than its share of a turn"
            assert turns > 10
            assert [f.seq for f in bob.frames() if f.kind == Kind.SAY] == [*range(2, 130)]

    run(scene())


def spans(order: list[int]) -> list[tuple[int, int]]:
    """Where the stretches between two zeros are."""
    zeros = [index for index, size in enumerate(order) if not size]
    return list(pairwise(zeros))


def test_a_member_that_floods_is_read_at_its_rate_and_the_others_at_theirs(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, rate=50) as house, house.client("ann") as ann:
            flood = await house.rude("cid")
            await flood.say(1, "a flood", times=1500)  # in one piece: 29 s of its rate, after the first second's
            await until(lambda: len(house.texts()) == 1500, "what was read at once is stored")
            await flood.say(1501, "read at last")
            for number in range(20):
                await ann.say(f"ann {number}")
            await ann.settled()
            assert house.texts()[1500:] == [f"ann {number}" for number in range(20)]
            await flood.leave()
            (served,) = [s for m, s in house.hosted.connections.items() if m.nick == "cid"]
            assert served.heard == math.inf  # it is the host that does not listen: no silence of cid's
            house.hosted.room.leave(served.member)  # the test is over; nobody waits for the rest
            served.task.cancel()

    run(scene())


def test_without_a_limit_all_is_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, rate=0) as house:
            flood = await house.rude("cid")
            for start in range(1, 20_001, 2000):
                await flood.say(start, "f", times=2000)
            await until(lambda: house.hosted.room.log.end == 20_002, "all is stored")
            await flood.leave()

    run(scene())


@pytest.mark.parametrize("what", ["names", "invite", "the time"])
def test_who_asks_and_asks_and_does_not_read_is_dropped(tmp_path: Path, told: ToldTransport, what: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            cid = Guest(house, told, "cid")
            await cid.come()
            await until(lambda: house.hosted.connections, "cid is in")
            cid.link.room = 0
            (served,) = house.hosted.connections.values()
            for _ in range(1000):
                cid.link.arrive(pack(Kind.ASK, Ask(what=what, authors=[1] * 20)))
            await until(lambda: not house.hosted.connections, "cid was dropped")
            assert served.member.cursor.control_size < 2 * MAX_CONTROL

    run(scene())


# -- beats and silence ---------------------------------------------------------------------------


def test_beats_keep_members_and_silence_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "BEAT", 0.02)
    monkeypatch.setattr(host_module, "SILENCE", 1.5)
    monkeypatch.setattr("chat.client.client.BEAT", 0.02)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            silent = await house.rude("cid")
            received = list(split(await silent.everything()))  # its end comes from the host
            assert Kind.BEAT in {frame.kind for frame in received}
            assert house.nicks() == ["ann"]
            assert not ann.so_far(Lost)
            await silent.leave()

    run(scene())


def test_a_member_that_the_host_does_not_read_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full, say: it may have said a lot."""
    monkeypatch.setattr(host_module, "BEAT", 0.01)
    monkeypatch.setattr(host_module, "SILENCE", 0.5)
    monkeypatch.setattr(connection, "BACKLOG", 1000)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            cid = await house.rude("cid", more_data=encode(Kind.SAY, bytes(2000), number=1))
            await cid.say(2)
            (served,) = house.hosted.connections.values()
            await until(lambda: served.heard == math.inf, "the host waits for its disk")
            newcomer = await house.rude("dan")  # is let in all the same
            await newcomer.leave()
            for _ in range(80):  # for longer than SILENCE
                await cid.frame(Kind.BEAT)
            monkeypatch.setattr(host_module, "SILENCE", 3600)  # of what cid does from now on, which says nothing
            house.disk.set()
            await cid.frame(Kind.SAY)
            assert (await cid.frame(Kind.SAY)).number == 2
            await until(lambda: served.heard < math.inf, "it listens again")
            await cid.leave()

    run(scene())


# -- the disk ------------------------------------------------------------------------------------


def test_slow_commits_go_to_a_thread_and_keep_the_order(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            house.disk.set()
            async with house.members("ann", "bob") as (ann, bob):
                house.disk.clear()
                for number in range(300):
                    await (ann, bob)[number % 2].say(str(number))
                    await asyncio.sleep(0)
                assert house.texts() == []
                async with house.client("cid") as cid:  # who comes meanwhile is let in
                    assert [nick for _, nick in (await cid.event(Here)).came] == ["ann", "bob", "cid"]
                    house.disk.set()
                    await ann.settled()
                    await bob.settled()
                    heard = await cid.hear(*house.texts())
                    assert [message.seq for message in heard] == sorted(message.seq for message in heard)
                assert sorted(house.texts(), key=int) == [str(number) for number in range(300)]
                assert house.store.commits < 100  # and batches grow by themselves meanwhile

    run(scene())


def test_nothing_counts_as_stored_before_the_disk_has_it(tmp_path: Path) -> None:
    """Not even for one that comes back while the commit is under way, and not for its next process."""

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            house.disk.set()
            async with house.client("ann") as ann:
                await ann.settled()
                house.disk.clear()
                entry = await ann.say("is it there?")
                await until(lambda: house.hosted.committing, "the commit is under way")
                assert ann._link is not None
                await ann._link.aclose()
                await ann.event(Up)
                async with house.client("bob"):
                    pass
                assert not ann.so_far(Stored)
                assert len(ann.session.unsettled) == 1
            async with house.client("ann") as ann:
                assert not ann.so_far(Stored)
                house.disk.set()
                found = await ann.event(Stored)
                assert found.entry.body == entry.body
                assert house.texts() == ["is it there?"]

    run(scene())


def test_closing_stores_what_was_said_even_during_a_slow_commit(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            peer = await house.rude("ann")
            await peer.say(1, "first")
            await until(lambda: house.hosted.committing, "the commit is under way")
            await peer.say(2, "second")
            await until(lambda: house.hosted.room.log.next_seq == 4, "both are in the log")
            closing = asyncio.ensure_future(house.close())
            await closing
            await peer.leave()
            await house.open()
            assert house.texts() == ["first", "second"]

    run(scene())


def test_two_rooms_on_one_slow_disk(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            garden = house.add_room("garden")
            ann, bob = await house.rude("ann"), await house.rude("bob", room="garden")
            for number in range(1, 20):
                await ann.say(number, f"lobby {number}")
                await bob.say(number, f"garden {number}")
            await until(lambda: house.hosted.committing and garden.committing, "both commits are under way")
            house.disk.set()
            for number in range(1, 20):
                assert (await ann.frame(Kind.SAY)).body == f"lobby {number}".encode()
                assert (await bob.frame(Kind.SAY)).body == f"garden {number}".encode()
            await ann.leave()
            await bob.leave()

    run(scene())


def fill_disk(house: HostFixture) -> None:
    """From now on SQLite says that the disk is full, as the system would say to it: SQLITE_FULL."""
    (pages,) = house.store._database.execute("PRAGMA page_count").fetchone()
    house.store._database.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(house: HostFixture) -> None:
    house.store._database.execute("PRAGMA max_page_count = 1000000")


LONG: Final = "." * (MAX_TEXT - 10)  # more than what is free in the pages that the database has already


@pytest.mark.usefixtures("no_beats")
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_full_disk_keeps_messages_waiting_and_stores_them_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_thread: bool
) -> None:
    monkeypatch.setattr(hosted_room, "_RETRY", 0.02)
    monkeypatch.setattr(runtime, "SLOW_COMMIT", -1 if in_thread else math.inf)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.members("ann", "bob") as (ann, bob):
            before = await ann.say("before")
            await ann.stored(before)
            fill_disk(house)
            waiting = [await ann.say(f"{number} {LONG}") for number in range(3)]
            for client in (ann, bob):
                assert (await client.event(Notice)).code == "disk-full"
            async with house.client("cid") as cid:  # reading goes on
                assert (await cid.event(Notice)).code == "disk-full"
                await cid.hear("before")
            await until(lambda: house.nicks() == ["ann", "bob"], "cid has left")
            for _ in range(10):  # nothing happens any more but the next try
                await asyncio.sleep(0)
            assert len(ann.session.unsettled) == 3
            assert house.texts() == ["before"]
            free_disk(house)
            assert len(await ann.stored(*waiting)) == 3
            assert (await bob.event(Notice)).code == "disk"
            assert house.texts()[1:] == [f"{number} {LONG}" for number in range(3)]
            await house.close()
            await house.open()  # and with them all that came about meanwhile
            state = house.store.open_room("lobby")
            assert [mark for key, _, mark in state.marks if key == ann.session.key] == [4]
            assert sorted(nick for _, nick, _ in state.nicks) == ["ann", "bob", "cid"]
            assert len(state.members) == 3

    run(scene())


def test_a_host_closed_while_its_disk_is_full_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosted_room, "_RETRY", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            fill_disk(house)
            await ann.say(LONG)
            await ann.event(Notice)
            await house.close()
            commits = []
            monkeypatch.setattr(house.store, "commit", lambda *_: commits.append(1))
            await asyncio.sleep(5 * 0.01)  # there is no event for what must not happen
            assert commits == []

    run(scene())
    assert [record.message for record in caplog.records if record.levelno > logging.WARNING] == [
        "the disk is full; messages wait until there is room again"
    ]


@pytest.mark.usefixtures("no_beats")
def test_while_the_disk_is_full_others_are_served_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry of the disk is far away, and no tick waits for it."""
    monkeypatch.setattr(hosted_room, "_RETRY", 3600)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            fill_disk(house)
            await ann.say(LONG)
            await ann.event(Notice)
            retry = house.hosted.retry
            async with house.client("bob") as bob:
                assert "is it older" in (await bob.ask(Ask(what="the time"))).error
                assert house.hosted.retry is retry  # nobody has tried in between
            free_disk(house)

    run(scene())


def test_a_full_disk_keeps_no_new_invite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is no reason to end the room for all."""
    monkeypatch.setattr(hosted_room, "_RETRY", 0.02)

    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house, house.client("owner") as owner:
            fill_disk(house)
            made = 0
            while not (answer := await owner.ask(Ask(what="invite", uses=1))).error:
                made += 1  # in the pages that are there
            assert "disk is full" in answer.error
            assert answer.text == ""
            free_disk(house)
            await owner.stored(await owner.say("still here"))
            assert len(house.store.invites(house.hosted.number)) == made

    run(scene())


def test_an_invite_whose_use_cannot_be_counted_lets_nobody_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, open_to_all=False) as house:
            invite = await new_invite(house, uses=1)
            execute = house.store._database.execute
            execute("CREATE TABLE ballast (data BLOB)")
            execute(
                "CREATE TRIGGER heavy BEFORE UPDATE ON invites BEGIN INSERT INTO ballast VALUES (zeroblob(100000)); END"
            )  # so that this one write does not fit any more
            fill_disk(house)
            assert "disk is full" in await refused(house, "ann", "disk-full", invite)
            await refused(house, "ann", "disk-full", invite)  # nor by the back door
            assert house.nicks() == []
            free_disk(house)
            async with house.client("ann", invite=invite):
                pass
            await refused(house, "bob", "invite-used", invite)

    run(scene())


def test_two_who_come_with_the_last_use_of_an_invite_while_the_disk_is_busy(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path, open_to_all=False) as house:
            house.disk.set()
            invite = await new_invite(house, uses=1)
            owner = await house.rude("owner", key=house.owner)
            house.disk.clear()
            await owner.say(1)
            await until(lambda: house.hosted.committing, "the commit is under way")
            guests = [await house.knock() for _ in range(2)]
            for nick, guest in zip(("ann", "bob"), guests, strict=True):
                hello = await guest.hello(nick, invite=invite, stream=1)
                await guest.send(PREFACE + pack(Kind.HELLO, hello))
            answers = [asyncio.ensure_future(guest.frame(Kind.WELCOME, Kind.REFUSED)) for guest in guests]
            async with house.client("owner"):  # who needs no invite does not wait
                assert not any(answer.done() for answer in answers)
            house.disk.set()
            assert sorted([(await answer).kind for answer in answers]) == [Kind.WELCOME, Kind.REFUSED]
            for peer in (owner, *guests):
                await peer.leave()

    run(scene())


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_disk_that_fails_ends_the_host_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_thread: bool
) -> None:
    monkeypatch.setattr(runtime, "SLOW_COMMIT", -1 if in_thread else math.inf)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann = await house.rude("ann")
            await until(lambda: not house.hosted.room.changed, "her name is stored")
            # An error that is not SQLITE_FULL, as a failed fsync would be.
            house.store._database.execute(
                "CREATE TEMP TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'it broke'); END"
            )
            await ann.say(1)
            assert house.running is not None
            with pytest.raises(StoreError, match=r"it broke.*no longer accepted"):
                await house.running
            house.running = None
            await ann.say(2)
            await house.host.aclose()  # nor does closing try once more
            seen = [frame.kind for frame in split(await ann.everything())]
            assert Kind.SAY not in seen
            await ann.leave()
            house.store._database.execute("DROP TRIGGER broken")
            assert house.log() == []
            house.store.close()

    run(scene())


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["send", "writable", "receive", "aclose"])
@pytest.mark.parametrize("early", [True, False])
def test_a_fault_of_one_link_costs_the_others_nothing(
    tmp_path: Path, told: ToldTransport, caplog: pytest.LogCaptureFixture, where: str, *, early: bool
) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            assert house.running is not None
            bad, ann, bob = (Guest(house, told, nick) for nick in ("bad", "ann", "bob"))
            await bad.come()  # before the others, so that it is served before them
            await until(lambda: house.hosted.connections, "it is in")
            link = ToldLink("bad at the door") if early else bad.link
            link.fails[where] = RuntimeError("a bug")
            link.room = 0 if where == "writable" else math.inf
            if early:
                told.accepted.put_nowait(link)
            await ann.come()
            await bob.come()
            ann.say(1, "wake up")
            if where == "writable":
                link.make_room(math.inf)
            link.arrive(b"")
            for number in range(2, 30):
                ann.say(number, f"message {number}")
                await until(lambda number=number: bob.has(f"message {number}"), "bob has it")  # type: ignore[misc]
            await until(lambda: link.closed, "the bad one is out")
            assert house.nicks() == [*([] if link is bad.link else ["bad"]), "ann", "bob"]
            assert not house.running.done()
            link.fails.clear()

    run(scene())
    assert "please report it" in caplog.text


BAD_FRAMES: Final = {
    "a host's frame": (encode(Kind.WELCOME), "kind 66"),
    "a second HELLO": (encode(Kind.HELLO), "kind 65"),
    "a record": (encode(Kind.AUTHOR), "kind 16"),
    "a number that is missing": (encode(Kind.SAY, b"hi", number=7), "number 7 after 0"),
    "a message that is too long": (encode(Kind.SAY, bytes(MAX_TEXT + 9), number=1), "the limit is 16384"),
    "a bad length": (b"\0\0\0\1" + bytes(40), "length of 1 bytes"),
    "a huge length": (b"\xff\xff\xff\xff" + bytes(40), "4294967295 bytes"),
    "a question nobody can read": (encode(Kind.ASK, b"\x91" * 3000), "Ask that cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_who_breaks_the_rules_is_told_why_and_nobody_else_is_harmed(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        data, why = BAD_FRAMES[name]
        async with HostFixture(tmp_path) as house, house.members("ann", "bob") as (ann, bob):
            eve = await house.rude("eve")
            await eve.frame(Kind.PRESENCE)
            await eve.send(data)
            refusal = await eve.refusal()
            assert (refusal.code, why in refusal.message) == ("protocol", True), refusal
            await ann.say("all is well")
            await bob.hear("all is well")
            await until(lambda: sorted(house.nicks()) == ["ann", "bob"], "eve is out")
            await eve.leave()

    run(scene())


def test_a_refusal_never_stands_in_the_middle_of_a_message(tmp_path: Path, told: ToldTransport) -> None:
    """A member whose link is full breaks a rule. What it has been sent must stay what the log says."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann, eve = Guest(house, told, "ann"), Guest(house, told, "eve")
            await ann.come()
            await eve.come()
            await until(lambda: len(house.hosted.connections) == 2, "both are in")
            eve.link.room = HEADER_SIZE + 100
            ann.say(1, "x" * 5000)
            await until(lambda: ann.has("x" * 5000), "it is stored and sent")
            await until(lambda: eve.link.room == 0, "half of it is at eve's")
            eve.link.arrive(encode(Kind.WELCOME))
            eve.link.make_room(math.inf)
            await until(lambda: eve.link.closed, "eve is out")
            assert Kind.REFUSED not in [frame.kind for frame in eve.frames()]
            assert b"the peer sent" not in b"".join(eve.link.taken)

    run(scene())


def test_a_goodbye_ends_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann = await house.rude("ann")
            await ann.send(encode(Kind.SAY, b"last words", number=1) + encode(Kind.BYE) + b"junk after it")
            await ann.everything()
            await until(lambda: house.texts() == ["last words"], "it is stored")
            assert house.nicks() == []
            await ann.leave()

    run(scene())


def test_frames_right_behind_hello_are_handled_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann = await house.rude("ann", more_data=encode(Kind.SAY, bytes(MAX_TEXT), number=1))
            assert len((await ann.frame(Kind.SAY)).body) == MAX_TEXT
            await ann.leave()
            bob = await house.knock()
            hello = pack(Kind.HELLO, await bob.hello("bob", stream=1))
            await bob.send(PREFACE + hello + encode(Kind.SAY, b"in passing", number=1) + encode(Kind.BYE))
            await bob.everything()
            await until(lambda: house.texts()[1:] == ["in passing"], "it is stored")
            await bob.leave()

    run(scene())


@pytest.mark.parametrize("turns", range(5))
def test_a_host_that_is_closed_leaves_no_link_open(tmp_path: Path, told: ToldTransport, turns: int) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            ann, bob = Guest(house, told, "ann"), Guest(house, told, "bob")
            await ann.come()
            await until(lambda: house.hosted.connections, "ann is in")
            ann.link.room = 0
            house.hosted.room.log.append(Kind.SAY, b"x", time=0)
            house.hosted.wake()
            (served,) = house.hosted.connections.values()
            await until(lambda: served.clogged, "her link is full")
            told.accepted.put_nowait(bob.link)  # he is at the door in the same moment
            for _ in range(turns):
                await asyncio.sleep(0)
            await house.host.aclose()
            assert ann.link.closed
            assert bob.link.closed

    run(scene())


# -- hosts that die and come back ----------------------------------------------------------------


@every_wire
def test_a_host_that_restarts_is_found_again_and_nothing_is_lost_or_doubled(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house, house.members("ann", "bob") as (ann, bob):
            texts = [f"{number}" for number in range(30)]
            listening = asyncio.ensure_future(bob.hear(*texts))
            for number in texts:
                await ann.say(number)
                if int(number) % 10 == 5:
                    await house.close()
                    await ann.say("said while it was away")
                    await house.open()
            await listening
            await ann.settled()
            assert [text for text in house.texts() if text != "said while it was away"] == texts
            assert house.texts().count("said while it was away") == 3
            assert len({frame.author for frame in house.log()}) == 1
            assert not bob.so_far(Rewound)

    run(scene())


def test_what_a_crash_takes_is_sent_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            house.disk.set()
            async with house.client("ann") as ann:
                await ann.stored(await ann.say("on the disk"))
                house.disk.clear()
                lost = await ann.say("not yet")
                await until(lambda: house.hosted.committing, "the commit is under way")
                image = house.copy_store("image")
                for served in house.hosted.connections.values():  # nothing of the last moments reaches anybody
                    served.task.cancel()
                await house.go_back_to(image)
                house.disk.set()
                (seq,) = await ann.stored(lost)
                assert house.texts() == ["on the disk", "not yet"]
                assert house.log()[-1].seq == seq

    run(scene())


def test_a_host_that_went_back_is_noticed_and_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.members("ann", "bob") as (ann, bob):
            await ann.stored(await ann.say("kept"))
            await until(lambda: not house.hosted.room.changed, "it rests")
            backup = house.copy_store("backup")
            await ann.stored(await ann.say("lost"))
            await bob.hear("kept", "lost")
            await house.go_back_to(backup)
            async with house.client("cid") as cid:  # and it goes on, before they come back
                await cid.say("new")
            for client in (ann, bob):
                assert "older copy" in (await client.event(Rewound)).why
            again = await ann.say("again")
            await ann.stored(again)
            await bob.hear("again")
            assert house.texts() == ["kept", "new", "again"]
            assert again.number == 2

    run(scene())


def test_an_author_is_introduced_with_its_name(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            await ann.stored(await ann.say("hi"))
            author = unpack(Author, house.log()[0])
            assert (author.nick, author.key, author.stream) == ("ann", ann.session.key, ann.session.stream)

    run(scene())


def test_who_comes_in_is_told_who_speaks_here_without_asking(tmp_path: Path) -> None:
    """A member that floods would wait for the answer until the host has read all that it says itself."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("bob") as bob, house.client("cid") as cid:
            async with house.client("dan") as dan:
                await dan.stored(await dan.say("and leaves"))
            await bob.stored(await bob.say("one"))
            eve = await house.rude("eve", history=0)
            names = unpack(Names, await eve.frame(Kind.NAMES))
            assert [author.nick for author in names.authors] == ["bob"]
            await cid.stored(await cid.say("two"))
            await eve.leave()

    run(scene())


def test_of_many_who_speak_those_are_told_who_came_last(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.members(*(f"m{n}" for n in range(30))) as members:
            for member in members:
                await member.stored(await member.say("here"))
            eve = await house.rude("eve", history=0)
            frame = await eve.frame(Kind.NAMES)
            assert len(frame.raw) <= MAX_CONTROL
            assert [author.nick for author in unpack(Names, frame).authors] == [f"m{n}" for n in range(5, 30)]
            await eve.leave()

    run(scene())


def test_one_key_has_so_many_links_and_a_stream_that_comes_back_is_none_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_LINKS_A_KEY", 2)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("bob"):
            first = await house.rude("cid", stream=1)
            second = await house.rude("cid", stream=2)
            with pytest.raises(Refused, match="your key has 2 links to this room already") as refused:
                async with house.client("cid"):
                    pass
            assert refused.value.code == "busy"
            again = await house.rude("cid", stream=1)
            await first.everything()
            for peer in (second, again):
                await peer.leave()
            async with house.client("cid"):
                pass

    run(scene())


def test_a_host_that_was_stopped_hears_those_who_spoke_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "BEAT", 0.01)
    monkeypatch.setattr(host_module, "SILENCE", 0.3)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            cid = await house.rude("cid")
            await cid.frame(Kind.BEAT)
            await cid.say(1)
            time.sleep(0.5)  # noqa: ASYNC251 - all of this process stands still, as after SIGSTOP
            assert (await cid.frame(Kind.SAY)).number == 1
            assert not ann.so_far(Lost)
            await cid.everything()  # and then it is dropped for its own silence

    run(scene())
