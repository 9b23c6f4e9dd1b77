"""What members show of themselves: on the board of this machine, and by STATES where that cannot be seen."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from chat.client.events import Lost, Up
from chat.core.bodies import Notice, Refusal, States, unpack
from chat.core.events import Joined
from chat.core.ledger import BOT
from chat.core.status import Level, Status, pack_slot, seen, unpack_slot
from chat.core.wire import Kind, encode
from chat.local.identity import Identity
from chat.transport.registry import board_maker
from tests.host.host_fixture import HostFixture, Member, run, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from chat.client.target import Target


class BoardHouse(HostFixture):
    """A fixture whose room has a board, in a folder of its own."""

    board: Path

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.board = folder / "board"
        self.board.mkdir(mode=0o700)

    def looker(self, nick: str, *, near: bool, **more: Any) -> Member:
        """A client that looks: from this machine, or from far away."""
        client = self.client(nick, looks=True, **more)
        if near:
            locate = client.locate

            def find() -> Target:
                return replace(locate(), board=self.board)

            client.locate = find
        return client

    @asynccontextmanager
    async def near_and_far(self) -> AsyncIterator[tuple[Member, Member]]:
        async with self.looker("ann", near=True) as ann, self.looker("bob", near=False) as bob:
            await until(lambda: len(ann.people()) == len(bob.people()) == 2, "each sees the other")
            yield ann, bob


def state_of(client: Member, nick: str) -> Status | None:
    return next((state for (_, name), state in client.people().items() if name == nick), None)


def is_shown(client: Member, nick: str, state: Status) -> bool:
    return state_of(client, nick) == state


def is_noted(client: Member, nick: str, note: str) -> bool:
    found = state_of(client, nick)
    return found is not None and found.note == note


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.host.host.POLL", 0.01)
    monkeypatch.setattr("chat.client.board.SHOW", 0.01)


def test_near_and_far_see_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, bob):
            for who, nick in ((ann, "ann"), (bob, "bob")):
                who.show(level=Level.BUSY, note="在写", typing=True, read=7, active=1_700_000_000_000)
                wanted = Status(Level.BUSY, "在写", typing=True, read=7, active=1_700_000_000_000)
                for looker in (ann, bob):
                    await until(partial(is_shown, looker, nick, wanted), f"{nick} is seen")

    run(scene())


def test_who_is_near_sends_nothing_and_is_sent_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, bob):
            (served,) = [served for member, served in fixture.hosted.connections.items() if member.nick == "ann"]
            heard = served.heard
            ann.show(note="here")
            bob.show(note="there")
            await until(lambda: state_of(bob, "ann") == ann.shows, "bob sees it")
            await until(lambda: state_of(ann, "bob") == bob.shows, "ann sees it")
            assert served.heard == heard
            assert served.member.statuses > fixture.hosted.room.roster.statuses.version

    run(scene())


def test_only_the_newest_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, _bob):
            peer = await fixture.raw("eve", states=True)
            for read in range(1000):
                ann.show(read=read)
            told: list[int] = []
            while not told or told[-1] != 999:
                found = unpack(States, await peer.frame(Kind.STATES))
                told += [s.read for (_, nick), s in filter(None, map(unpack_slot, found.slots)) if nick == "ann"]
            assert len(told) < 500  # one for each look, and not one for each change
            await peer.link.aclose()

    run(scene())


def test_who_leaves_is_on_no_list_and_its_cell_is_free(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, bob):
            maker = board_maker()
            assert maker is not None
            reader = maker.open(fixture.board)
            assert sorted(nick for _, nick in seen(reader.read())) == ["ann", "bob"]
            await ann.__aexit__(None, None, None)
            await until(lambda: len(bob.people()) == 1, "ann has left")
            assert [nick for _, nick in seen(reader.read())] == ["bob"]
            await bob.__aexit__(None, None, None)
            await until(lambda: not reader.read(), "bob's slot, which the host wrote, is wiped")
            reader.close()

    run(scene())


def test_two_windows_show_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            BoardHouse(tmp_path) as fixture,
            fixture.near_and_far() as (ann, bob),
            fixture.looker("bob", near=True) as again,
        ):
            again.show(level=Level.AWAY, typing=True)
            await until(lambda: (state_of(ann, "bob") or Status()).typing, "one of them types")
            assert [nick for _, nick in ann.people()] == ["ann", "bob"]
            found = state_of(ann, "bob")
            assert found is not None
            assert found.level == Level.ONLINE
            await until(lambda: state_of(bob, "bob") == found, "bob is told the same")

    run(scene())


def test_a_state_that_is_not_ones_own_is_against_the_rules(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, _bob):
            eve = Identity.load(fixture.folder / "eve.pem").key
            for slot in (
                pack_slot(ann.session.key, "ann", Status(Level.AWAY)),
                pack_slot(eve, "ann", Status(Level.AWAY)),
                b"",
                os.urandom(200),
            ):
                peer = await fixture.raw("eve")
                await peer.send(encode(Kind.STATE, slot))
                assert unpack(Refusal, await peer.frame(Kind.REFUSED)).code == "protocol"
                await peer.link.aclose()
            found = state_of(ann, "ann")
            assert found is not None
            assert found.level == Level.ONLINE

    run(scene())


def test_a_full_board_is_told_of_and_the_talk_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture:
            maker = board_maker()
            assert maker is not None
            full = maker.open(fixture.board)
            while full.claim() is not None:
                pass
            async with fixture.looker("ann", near=True) as ann, fixture.client("bob") as bob:
                assert (await ann.event(Notice)).code == "board-full"
                assert (await bob.event(Notice)).code == "board-full"
                await ann.say("hi")
                await bob.hear("hi")
                await until(lambda: len(ann.people()) == 2, "ann knows that bob is here")
            full.close()

    run(scene())


def test_a_slot_that_the_host_writes_stays_alive_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise who is far and idle counts as absent after 15 s. Only a beat makes a slot younger."""
    monkeypatch.setattr("chat.host.host.BEAT", 0.01)

    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (_, bob):
            maker = board_maker()
            assert maker is not None
            reader = maker.open(fixture.board)

            def age() -> int:
                return next(age for _, slot, age in reader.read() if (unpack_slot(slot) or [(b"", "")])[0][1] == "bob")

            bob.show(note="idle from now on")
            await until(lambda: is_noted(bob, "bob", "idle from now on"), "it is written")
            for _ in range(3):
                before = [0]
                await until(lambda before=before: age() < before[-1] or before.append(age()), "it is younger")  # type: ignore[misc]
            reader.close()

    run(scene())


def test_a_damaged_board_is_made_anew_and_all_show_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.host.host.BEAT", 0.05)
    monkeypatch.setattr("chat.client.connection.BEAT", 0.05)

    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, bob):
            ann.show(note="still here")
            (file,) = [path for path in fixture.board.iterdir() if path.stat().st_size > 100_000]
            file.write_bytes(os.urandom(file.stat().st_size))
            for looker in (ann, bob):
                await until(partial(is_noted, looker, "ann", "still here"), "ann is seen again")
            await until(lambda: ann.board.board is not None and ann.board.board.sound(), "it is sound")
            maker = board_maker()
            assert maker is not None
            reader = maker.open(fixture.board)
            await until(lambda: len(seen(reader.read())) == 2, "both have claimed again")
            reader.close()

    run(scene())


def test_a_board_that_cannot_be_made_is_told_of_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chat.host.host.BEAT", 0.01)
    monkeypatch.setattr("chat.client.connection.BEAT", 0.01)

    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture, fixture.near_and_far() as (ann, bob):
            (file,) = [path for path in fixture.board.iterdir() if path.stat().st_size > 100_000]
            file.unlink()
            (file / "in the way").mkdir(parents=True)
            await until(lambda: "cannot make the board" in caplog.text, "it is told of")
            for _ in range(3):  # and meanwhile those who are far are told all the same, by what they sent
                before = ann.session.next_seq
                await bob.stored(await bob.say("the talk goes on"))
                await until(lambda before=before: ann.session.next_seq > before, "heard")  # type: ignore[misc]
            (file / "in the way").rmdir()
            file.rmdir()
            ann.show(note="seen again")
            for looker in (ann, bob):
                await until(partial(is_noted, looker, "ann", "seen again"), "there is a board again")
            assert caplog.text.count("cannot make the board") == 1

    run(scene())


def test_a_room_without_a_board_tells_all(tmp_path: Path) -> None:
    async def scene() -> None:
        fixture = HostFixture(tmp_path)
        async with fixture, fixture.client("ann", looks=True) as ann, fixture.client("bob", looks=True) as bob:
            ann.show(level=Level.AWAY, note="tea")
            await until(lambda: (state_of(bob, "ann") or Status()).note == "tea", "bob is told")
            assert bob.connection.link is not None
            assert bob.session.states
            bob.session.states.clear()
            await bob.connection.link.aclose()
            await bob.event(Lost)
            await bob.event(Up)
            await until(lambda: (state_of(bob, "ann") or Status()).note == "tea", "he is told again")

    run(scene())


def test_a_note_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann", looks=True) as ann:
            ann.show(note="ok")
            with pytest.raises(ValueError, match="at most 60 columns"):
                ann.show(note="x" * 61)
            assert ann.shows.note == "ok"

    run(scene())


def test_sights_come_in_pages_and_all_of_them(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.client("ann", looks=True) as ann:
            peers = [await fixture.raw(f"m{n:02}", stream=0) for n in range(40)]
            for n, peer in enumerate(peers):
                slot = pack_slot(Identity.load(fixture.folder / f"m{n:02}.pem").key, f"m{n:02}", Status(read=n + 1))
                await peer.send(encode(Kind.STATE, slot))
            await until(lambda: sum(s.read for s in ann.people().values()) == 40 * 41 / 2, "all are told")
            for peer in peers:
                await peer.link.aclose()
            await until(lambda: len(ann.people()) == 1, "all have left")

    run(scene())


def test_a_program_that_says_nothing_is_known_for_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            beep = Identity.load(tmp_path / "beep.pem").key
            fixture.hosted.room.admit(beep, BOT)
            async with fixture.client("ann") as ann, fixture.client("beep"):
                await until(lambda: (beep, "beep") in ann.session.here, "it is here")
                assert ann.session.here == {(ann.session.key, "ann"): False, (beep, "beep"): True}

    run(scene())


# -- how far somebody has read, kept for the next window ---------------------------------------------


async def read_by(fixture: BoardHouse, nick: str) -> int:
    """How far the host says that this key has read, when another window of it comes."""
    async with fixture.looker(nick, near=False) as client:
        return (await client.event(Joined)).read


async def speak(fixture: HostFixture, count: int) -> int:
    """Have bob say so much; return the last number."""
    async with fixture.client("bob") as bob:
        said = [await bob.say(str(number)) for number in range(count)]
        await bob.stored(*said)
    return fixture.hosted.room.log.end - 1


async def gone(fixture: HostFixture) -> None:
    await until(lambda: not fixture.hosted.connections, "everybody has left")


@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_the_next_window_of_a_key_knows_how_far_the_last_one_read(tmp_path: Path, *, near: bool) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture:
            last = await speak(fixture, 3)
            assert await read_by(fixture, "ann") == 0
            async with fixture.looker("ann", near=near) as ann:
                ann.show(read=last - 1)
            await gone(fixture)
            assert await read_by(fixture, "ann") == last - 1
            assert await read_by(fixture, "cid") == 0

    run(scene())


@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_it_is_kept_while_the_window_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, near: bool) -> None:
    """A window that is killed, or whose host is, has said nothing when it went."""
    monkeypatch.setattr("chat.host.host.BEAT", 0.01)

    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture:
            last = await speak(fixture, 3)
            async with fixture.looker("ann", near=near) as ann:
                ann.show(read=last)
                reads = [(ann.session.key, last)]
                await until(lambda: fixture.store.open_room("lobby").tables.reads == reads, "it is stored")
            await fixture.close()
            await fixture.open()
            assert await read_by(fixture, "ann") == last

    run(scene())


def test_it_never_goes_back_nor_further_than_the_log(tmp_path: Path) -> None:
    async def scene() -> None:
        async with BoardHouse(tmp_path) as fixture:
            last = await speak(fixture, 3)
            for claimed in (2**63, 1):
                async with fixture.looker("ann", near=False) as ann:
                    ann.show(read=claimed)
                await gone(fixture)
                assert await read_by(fixture, "ann") == last

    run(scene())
