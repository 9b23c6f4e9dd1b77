"""The client: whom it trusts, how it comes back, and that nobody who waits for it waits for ever."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chat.client import client as client_module
from chat.client import connection as connection_module
from chat.client.events import Lost, Up
from chat.client.target import Target
from chat.core.errors import (
    DialFailed,
    LinkBroken,
    LinkClosed,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    UnknownScheme,
)
from chat.core.outgoing import Outgoing
from chat.core.session import Joined, Message, Rewound, Stored
from chat.core.wire import PREFACE, Answer, Ask, Challenge, Kind, Refusal, encode, pack
from chat.local.identity import fingerprint
from chat.transport import Address
from tests.host.host_fixture import (
    FakeLink,
    FakeTransport,
    HostFixture,
    Member,
    Script,
    Scripted,
    SlowHostFixture,
    run,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")
NOWHERE = Address("memory", "nobody-listens-here")
TCP = "tcp:127.0.0.1:0"


# -- whom to trust -------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_host_is_known_again(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house:
            async with house.client("ann") as ann:
                assert ann.trusted_on_first_use == fingerprint(house.host.identity.key)
            async with house.client("ann") as ann:
                assert ann.trusted_on_first_use == ""
            async with house.client("bob", invite=house.host.invite("lobby")) as bob:
                assert bob.trusted_on_first_use == ""

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_host_with_another_key_is_refused_loudly(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house:
            invite = replace(house.host.invite("lobby"), host=bytes(32))
            with pytest.raises(Refused, match="has not the key that the invite names") as caught:
                async with house.client("ann", invite=invite):
                    pass
            assert caught.value.code == "host-key-changed"
            async with house.client("ann"):
                pass
            await house.close()
            house.key.unlink()
            await house.open()
            with pytest.raises(Refused, match="has changed"):
                async with house.client("ann"):
                    pass
            assert house.log() == []

    run(scene())


def test_a_host_whose_key_is_not_the_known_one_gets_no_word_from_us(tmp_path: Path) -> None:
    """Not even one that could prove the key it shows."""

    async def scene() -> None:
        house = HostFixture(tmp_path, "memory:twice-taken")
        for name in ("first", "second"):
            house.address = house.asked
            async with Script(tmp_path / name, house.asked) as script:
                accepting = asyncio.ensure_future(script.accept())
                coming = asyncio.ensure_future(house.client("ann", reads_only=True).__aenter__())
                link = await accepting
                if name == "first":
                    await link.let_in()
                    await (await coming).__aexit__(None, None, None)
                else:
                    link.send(PREFACE, pack(Kind.CHALLENGE, Challenge(key=script.shown, nonce=link.nonce)))
                    with pytest.raises(Refused, match="has changed"):
                        await coming
                said = [frame.kind for frame in await link.everything()]
                assert said == ([Kind.BYE] if name == "first" else [])

    run(scene())


async def meet(script: Script, **fields: Any) -> Scripted:
    """Accept one client, and let it in."""
    link = await script.accept()
    await link.let_in(**fields)
    return link


def test_a_host_that_cannot_prove_its_key_is_not_remembered(tmp_path: Path) -> None:
    async def scene() -> None:
        house = HostFixture(tmp_path)
        async with Script(tmp_path / "eve", house.asked) as eve:
            house.address = house.asked
            meeting = asyncio.ensure_future(meet(eve, proof=bytes(64)))
            with pytest.raises(Refused, match="does not hold the key that it shows"):
                async with house.client("ann"):
                    pass
            assert [frame.kind for frame in await (await meeting).everything()] == []
        async with house, house.client("ann") as ann:  # the right one, at the same address
            assert ann.trusted_on_first_use != ""

    run(scene())


def test_nothing_is_sent_to_whoever_took_the_hosts_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the host's key, which all have seen, and does not hold it. Not even a beat, nor what waits."""
    monkeypatch.setattr(connection_module, "BEAT", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:stolen-place") as house, house.client("ann") as ann:
            await ann.stored(await ann.say("to the host"))
            await house.close()
            await ann.event(Lost)
            waiting = await ann.say("for the host alone")
            async with Script(tmp_path / "eve", house.address, key=house.host.identity) as eve:
                link = await meet(eve, proof=bytes(64), epoch=house.hosted.room.log.epoch)
                with pytest.raises(Refused, match="does not hold the key"):
                    await ann.event(Stored)
                with pytest.raises(Refused, match="does not hold the key"):
                    await ann.say("is anybody there?")
                assert [frame.kind for frame in await link.everything()] == []
            assert list(ann.session.unsettled) == [waiting]
        await house.open()
        async with house.client("ann") as ann:
            await ann.event(Stored)
            assert house.texts() == ["to the host", "for the host alone"]
        await house.close()

    run(scene())


def test_an_impostor_cannot_make_us_forget_what_waits(tmp_path: Path) -> None:
    """It says that it holds everything, or nothing, and then cannot prove its key: the outbox stays as it was."""

    async def scene() -> None:
        async with HostFixture(tmp_path, "memory:forgetful") as house:
            async with house.client("ann") as ann:
                await ann.stored(*[await ann.say(text) for text in ("one", "two")])
                ann.take()
                await house.close()
                await ann.event(Lost)
                await ann.say("three")
            for first_unsettled in (1, 100):
                async with Script(tmp_path / "eve", house.address, key=house.host.identity) as eve:
                    accepting = asyncio.ensure_future(eve.accept())
                    coming = asyncio.ensure_future(house.client("ann").__aenter__())
                    link = await accepting
                    epoch = house.hosted.room.log.epoch
                    await link.let_in(proof=bytes(64), first_unsettled=first_unsettled, epoch=epoch, next_seq=50)
                    with pytest.raises(Refused, match="does not hold the key"):
                        await coming
                    await link.everything()
            await house.open()
            async with house.client("ann") as ann:
                assert (await ann.event(Stored)).entry.number == 3
                assert house.texts() == ["one", "two", "three"]

    run(scene())


# -- addresses -----------------------------------------------------------------------------------


def test_one_address_of_several_is_enough(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            async with house.client("ann", addresses=(NOWHERE, Address("nosuch"), house.address)) as ann:
                assert (await ann.event(Up)).address == house.address
            for addresses, error in (
                ((), DialFailed),
                ((NOWHERE,), DialFailed),
                ((Address("nosuch"),), UnknownScheme),
                ((NOWHERE, Address("nosuch")), DialFailed),  # it may listen there later
                ((Address("nosuch"), NOWHERE), DialFailed),
            ):
                client = house.client("ann")
                client.locate = lambda addresses=addresses: Target(addresses, "lobby")  # type: ignore[misc]
                with pytest.raises(error):
                    await client.__aenter__()

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_an_address_that_has_become_anothers_is_passed_by(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with (
            HostFixture(tmp_path / "another", wire) as another,
            HostFixture(tmp_path / "ours", wire) as house,
            Script(tmp_path / "no-host", Address("memory", "no-host")) as script,
        ):

            async def be_another_program() -> None:
                while True:
                    (await script.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            program = asyncio.ensure_future(be_another_program())
            invite, others = house.host.invite("lobby"), (another.address, script.address)
            async with house.client("ann", invite=invite, addresses=(*others, house.address)) as ann:
                await ann.event(Up)
                await house.close()
                await ann.event(Lost)
                await house.open()
                await ann.event(Up)
                await ann.stored(await ann.say("found you"))
                await house.close()
            program.cancel()
            for addresses, error, told in (
                (others[:1], Refused, "has not the key"),
                ((*others[:1], house.address), DialFailed, "; and the host at .* has not the key"),
            ):
                with pytest.raises(error, match=told):
                    async with house.client("ann", invite=invite, addresses=addresses):
                        pass
            assert another.log() == []

    run(scene())


def test_a_card_may_change_while_the_host_is_away(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, TCP) as house, house.client("ann") as ann:
            await house.close()
            await ann.event(Lost)
            house.asked = Address("memory", "moved")
            await house.open()
            assert (await ann.event(Up)).address == house.address
            await ann.stored(await ann.say("found you"))

    run(scene())


def test_who_takes_the_call_and_says_nothing_is_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 0.05)

    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "mute", house.asked) as mute:
            accepting = asyncio.ensure_future(mute.accept())
            with pytest.raises(DialFailed, match=r"took the call but said nothing for 0\.05 s"):
                async with house.client("ann"):
                    pass
            assert await (await accepting).everything() == []

    run(scene())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (PREFACE + encode(Kind.WELCOME), RemoteProtocolError),
        (PREFACE + pack(Kind.REFUSED, Refusal(code="banned", message="you are banned")), Refused),
        (PREFACE + pack(Kind.REFUSED, Refusal(code="no-room", message="no such room")), Refused),
    ],
)
def test_what_is_no_welcome_ends_the_first_try(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:

            async def host() -> Scripted:
                link = await script.accept()
                link.send(answer)
                return link

            answering = asyncio.ensure_future(host())
            with pytest.raises(error):
                async with house.client("ann"):
                    pass
            await (await answering).everything()

    run(scene())


# -- links that are lost -------------------------------------------------------------------------


def test_a_host_that_falls_silent_is_left_and_dialled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "BEAT", 0.01)
    monkeypatch.setattr(connection_module, "SILENCE", 0.4)

    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:
            meeting = asyncio.ensure_future(meet(script))
            async with house.client("ann") as ann:
                first = await meeting
                await first.frame(Kind.BEAT)
                assert (await ann.event(Lost)).why == "nothing was heard of the host for 0.4 s"
                second = await script.accept()
                # The new link is not to be judged by the silence of the old, however long the host takes.
                await asyncio.sleep(10 * 0.01)
                await second.let_in()
                await ann.event(Up)
                await second.frame(Kind.BEAT)
            for link in (first, second):
                await link.everything()

    run(scene())


def test_coming_back_outlasts_hosts_that_are_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_DELAY", 0.001)

    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:
            meeting = asyncio.ensure_future(meet(script))
            async with house.client("ann") as ann:
                monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 0.1)
                await (await meeting).link.aclose()
                mute = await script.accept()
                assert await mute.everything() == []  # it gives up, and tries the next
                monkeypatch.setattr(connection_module, "HELLO_TIMEOUT", 5.0)
                opening = await script.accept()  # the host is there, and has not opened the room yet
                await opening.challenge()
                opening.send(pack(Kind.REFUSED, Refusal(code="no-room", message="no such room")))
                await opening.everything()
                broken = await script.accept()
                broken.send(PREFACE[:7])
                await broken.link.aclose()
                last = await script.accept()
                await last.let_in()
                assert [type(found).__name__ for found in await take_until(ann, 2)][-1:] == ["Up"]
            await last.everything()

    run(scene())


async def take_until(client: Member, ups: int) -> list[Any]:
    """All that the client is told until it has come in for the last of so many times."""
    told: list[Any] = []
    while sum(isinstance(found, Up) for found in told) < ups:
        told += await client.next_events()
    assert sum(isinstance(found, Lost) for found in told) == ups - 1, "lost is told once, however long it takes"
    return told


def test_as_long_as_nobody_takes_events_the_host_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is we who do not listen."""
    monkeypatch.setattr(connection_module, "BEAT", 0.01)
    monkeypatch.setattr(connection_module, "SILENCE", 0.5)
    monkeypatch.setattr(connection_module, "_EVENTS", 10)
    monkeypatch.setattr("chat.host.host.BEAT", 0.01)

    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("bob") as bob:
            flood = await house.raw("cid")
            await flood.say(1, "x" * 1000, times=300)
            await until(lambda: len(house.texts()) == 300, "all is stored")
            (served,) = [s for m, s in house.hosted.connections.items() if m.nick == "bob"]
            await until(lambda: served.clogged is not None, "bob's link is full")
            for _ in range(80):  # for longer than SILENCE
                await flood.frame(Kind.BEAT)
            assert served in house.hosted.connections.values()
            assert len(bob.events) < 300
            heard = 0
            while heard < 300:
                heard += sum(isinstance(found, Message) for found in await bob.next_events())
            assert not bob.so_far(Lost)
            await flood.leave()

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_to_come_back_again_and_again_leaves_nothing_behind(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house, house.client("ann") as ann:
            await ann.event(Up)
            await until(lambda: len(house.hosted.connections) == 1, "she is in")
            tasks = len(asyncio.all_tasks())
            for number in range(20):
                entry = await ann.say(str(number))
                (served,) = house.hosted.connections.values()
                served.task.cancel()  # the host's side ends
                await ann.event(Up)
                if entry in ann.session.unsettled:
                    await ann.stored(entry)
            await until(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left of those links")
            await ann.settled()
            assert house.texts() == [str(number) for number in range(20)]
            assert house.host._admission._slots._value == 63  # one waits to accept; all the strangers have gone

    run(scene())


@pytest.mark.parametrize("wire", ["", TCP])
def test_a_cancelled_join_leaves_nothing_behind(tmp_path: Path, wire: str) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path, wire) as house:
            joined = 0
            for turns in range(60):
                client = house.client("ann")
                coming = asyncio.ensure_future(client.__aenter__())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if coming.done():
                    joined += 1
                    await client.__aexit__(None, None, None)
                    continue
                coming.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await coming
            await until(lambda: not house.hosted.connections, "nobody is in")
            async with house.client("ann"):
                pass
            assert joined or wire

    run(scene())


def test_a_link_that_is_gone_is_not_kept_in_memory(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as ann:
            await ann.stored(await ann.say("hello"))
            (served,) = house.hosted.connections.values()
            assert ann.connection.link is not None
            kept = weakref.ref(served.link), weakref.ref(ann.connection.link)
            gc.collect()
            gc.disable()
            try:
                served.task.cancel()
                del served
                await ann.event(Up)
                await asyncio.sleep(0)
                assert [link() for link in kept] == [None, None]
            finally:
                gc.enable()

    run(scene())


# -- questions -----------------------------------------------------------------------------------


def test_questions_are_answered_or_fail_with_their_link(tmp_path: Path) -> None:
    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:
            meeting = asyncio.ensure_future(meet(script))
            async with house.client("ann") as ann:
                link = await meeting
                first, second = (asyncio.ensure_future(ann.ask(Ask(what=what))) for what in ("one", "two"))
                await link.frame(Kind.ASK)
                await link.frame(Kind.ASK)
                link.send(pack(Kind.ANSWER, Answer(text="to two"), number=2))
                assert (await second).text == "to two"
                given_up = asyncio.ensure_future(ann.ask(Ask(what="three")))
                await link.frame(Kind.ASK)
                given_up.cancel()
                link.send(pack(Kind.ANSWER, Answer(), number=3), pack(Kind.ANSWER, Answer(), number=99))
                await link.link.aclose()
                with pytest.raises(LinkBroken, match="before the host had answered"):
                    await first
                await ann.event(Lost)
                with pytest.raises(LinkBroken, match="no link to the host now"):
                    await ann.ask(Ask(what="four"))
                meeting = asyncio.ensure_future(meet(script))
                await ann.event(Up)
                fifth = asyncio.ensure_future(ann.ask(Ask(what="five")))
                await (await meeting).frame(Kind.ASK)
            with pytest.raises(LinkBroken, match="before the host had answered"):
                await fifth
            with pytest.raises(LinkClosed, match="this client was closed"):
                await ann.ask(Ask(what="six"))
            assert (await (await meeting).everything())[-1].kind == Kind.BYE

    run(scene())


# -- nobody waits for ever -----------------------------------------------------------------------


async def waiters(client: Member) -> list[asyncio.Future[Any]]:
    """Everything that can be waited for, waited for."""
    calls: list[Any] = [client.next_events(), client.settled(), client.say("too much")]
    waits = [asyncio.ensure_future(call) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    return waits


def test_closing_wakes_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 2)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            async with house.client("ann") as ann:
                await ann.say("one")
                await ann.say("two")
                ann.take()
                events, settled, said = await waiters(ann)
            assert await events == []
            for wait in (settled, said):
                with pytest.raises(LinkClosed, match="this client was closed"):
                    await wait
            assert [text async for text in ann] == []
            house.disk.set()

    run(scene())


def refusal(link: Scripted) -> None:
    link.send(pack(Kind.REFUSED, Refusal(code="banned", message="you are banned")))


def nonsense(link: Scripted) -> None:
    link.send(encode(Kind.SAY, b"", seq=77))


@pytest.mark.parametrize(
    ("ends", "error", "why"),
    [(refusal, Refused, "you are banned"), (nonsense, RemoteProtocolError, "number 77 where 1 follows")],
)
def test_what_ends_the_client_is_told_to_all_who_wait(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: Callable[[Scripted], None],
    error: type[Exception],
    why: str,
) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 1)

    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:
            meeting = asyncio.ensure_future(meet(script))
            async with house.client("ann") as ann:
                link = await meeting
                await ann.event(Up)
                await ann.say("one")
                waits = [*await waiters(ann), asyncio.ensure_future(ann.ask(Ask(what="this")))]
                await asyncio.sleep(0)
                ends(link)
                for wait in waits[:3]:
                    with pytest.raises(error, match=why):
                        await wait
                with pytest.raises(LinkBroken):
                    await waits[3]
                await link.everything()  # the link is closed, though the client is not yet
                for call in (ann.next_events, ann.settled, lambda: ann.say("two"), lambda: ann.ask(Ask(what="that"))):
                    with pytest.raises(error, match=why):
                        await call()

    run(scene())


def test_a_fault_of_ours_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a link raises, whoever waits for an event learns of it."""

    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            told = FakeTransport()
            async with house.client("ann") as ann:
                await ann.event(Up)
                monkeypatch.setattr(connection_module, "find", lambda _scheme: told)
                broken = FakeLink()
                broken.fails["receive"] = ZeroDivisionError("a bug")
                told.dialled.append(broken)
                for served in house.hosted.connections.values():
                    served.task.cancel()
                await ann.event(Lost)
                with pytest.raises(ZeroDivisionError):
                    await ann.next_events()
                with pytest.raises(ZeroDivisionError):
                    await ann.say("hello?")
                assert broken.closed

    run(scene())


# -- the outbox ----------------------------------------------------------------------------------


def test_the_next_process_sends_what_the_last_one_could_not(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            async with house.client("ann") as ann:
                await ann.stored(await ann.say(Outgoing("one", id="id-1")))
                ann.take()
                await house.close()
                await ann.event(Lost)
                await ann.say(Outgoing("two", id="id-2"))
                await ann.say("three")
            await house.open()
            async with house.client("ann") as ann:
                assert ann.pending == ["id-2"]
                found = [await ann.event(Stored) for _ in range(2)]
                assert [(stored.entry.id, stored.entry.number) for stored in found] == [("id-2", 2), ("", 3)]
            async with house.client("ann") as ann:
                assert ann.pending == []
            assert house.texts() == ["one", "two", "three"]

    run(scene())


def test_two_windows_of_one_person_have_an_outbox_each(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann") as one, house.client("ann") as two:
            assert one.session.stream != two.session.stream
            await one.stored(await one.say("one"))
            await two.stored(await two.say("two"))
            assert house.nicks() == ["ann"]
            assert not one.so_far(Lost)

    run(scene())


@pytest.mark.parametrize("fails", [True, False])
def test_what_was_told_is_told_again_if_it_may_not_have_been_dealt_with(tmp_path: Path, *, fails: bool) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            try:
                async with house.client("ann") as ann:
                    await ann.say(Outgoing("hello", id="mine"))
                    await ann.event(Stored)
                    if fails:
                        raise BrokenPipeError  # as it is when the screen has gone
            except BrokenPipeError:
                pass
            async with house.client("ann") as ann:
                assert ann.pending == (["mine"] if fails else [])
                if fails:
                    (stored,) = [await ann.event(Stored)]
                    assert (stored.entry.id, stored.seq) == ("mine", house.log()[-1].seq)
            assert house.texts() == ["hello"]

    run(scene())


def test_what_a_host_lost_is_numbered_anew_on_the_disk_too(tmp_path: Path) -> None:
    """The host goes back, and so does whoever waits in the outbox; then that process dies."""

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house:
            house.disk.set()
            async with house.client("ann") as ann:
                await ann.stored(await ann.say("one"))
                await until(lambda: not house.hosted.room.changed, "it rests")
                backup = house.copy_store("backup")
                await ann.stored(*[await ann.say(text) for text in ("two", "three")])
                ann.take()
                await house.close()
                await ann.event(Lost)
                four = await ann.say("four")
                assert four.number == 4
                await house.go_back_to(backup)
                await ann.event(Rewound)
                await ann.event(Up)
                assert four.number == 2
            async with house.client("ann") as ann:
                house.disk.set()
                assert (await ann.event(Stored)).entry.number == 2
                assert house.texts() == ["one", "four"]

    run(scene())


def test_only_so_many_may_be_unsettled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WINDOW", 3)

    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as house, house.client("ann") as ann:
            for number in range(3):
                await ann.say(str(number))
            fourth = asyncio.ensure_future(ann.say("3"))
            await until(lambda: house.hosted.room.log.next_seq == 5, "the host has the three")
            assert not fourth.done()
            house.disk.set()
            await ann.stored(await fourth)

    run(scene())


def test_what_a_link_cannot_take_at_once_goes_out_later(tmp_path: Path) -> None:
    async def scene() -> None:
        house = HostFixture(tmp_path)
        house.address = house.asked
        async with Script(tmp_path / "host", house.asked) as script:
            meeting = asyncio.ensure_future(meet(script))
            async with house.client("ann") as ann:
                link = await meeting
                await ann.event(Up)
                for number in range(100):
                    await ann.say(f"{number} ".ljust(10_000, "."))  # a megabyte, and not one turn of the loop
                for number in range(100):  # from here on nothing happens but that the host reads
                    assert (await link.frame(Kind.SAY)).body.split()[0] == str(number).encode()
            await link.everything()

    run(scene())


def test_readers_do_not_speak(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house, house.client("ann", reads_only=True) as ann:
            with pytest.raises(LocalProtocolError, match="only reads"):
                await ann.say("hello")
            await ann.settled()

    run(scene())


# -- where to begin ------------------------------------------------------------------------------


def test_history_and_numbers_to_begin_with(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as house:
            async with house.client("ann") as ann:
                await ann.stored(*[await ann.say(str(number)) for number in range(10)])  # numbers 2 to 11
            for history, since, first in ((3, 0, "7"), (0, 5, "3"), (99, 0, "0")):
                async with house.client("bob", reads_only=True, history=history, since=since) as bob:
                    assert (await bob.event(Message)).text == first
            async with house.client("bob", reads_only=True, since=500) as bob:
                joined = await bob.event(Joined)
                assert joined.next_seq == 12
                async with house.client("ann") as ann:
                    await ann.say("beyond")
                    await bob.hear("beyond")
                assert not bob.so_far(Rewound)

    run(scene())
