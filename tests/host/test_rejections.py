"""Messages that a host rejects: their senders learn of it once, whatever happens to links, hosts and processes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from chat.cli.oneshot import send_text
from chat.client.events import as_object
from chat.core.bodies import Rejection, unpack
from chat.core.errors import FAILED, ChatError
from chat.core.events import Rejected
from chat.core.outgoing import Outgoing
from chat.core.wire import MAX_TEXT, SEQ_PREFIX, Kind, encode
from chat.host.peer_process import _Lines
from chat.ui import linear
from chat.ui.describe import describe
from tests.host.host_fixture import HostFixture, SlowHostFixture, run, until

if TYPE_CHECKING:
    from pathlib import Path

    from chat.core.wire import Frame

pytestmark = pytest.mark.usefixtures("leaves_nothing")

NO_TARGET = SEQ_PREFIX.pack(500) + b"a correction"
WHY = "the message that it refers to is not in this room's log"


async def leave_one_behind(fixture: HostFixture) -> None:
    """Say as ann what will be rejected, in a process that dies at once."""
    with suppress(ZeroDivisionError):
        async with fixture.client("ann") as ann:
            await ann.say(Outgoing("a correction", Kind.EDIT, 500))
            raise ZeroDivisionError


def test_the_sender_learns_why_and_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("ann", "bob") as (ann, bob):
            first = await ann.say("first")
            wrong = await ann.say(Outgoing("a correction", Kind.EDIT, 500, "mine"))
            last = await ann.say("last")
            await ann.stored(first)
            event = await ann.event(Rejected)
            assert (event.entry, event.code, event.why) == (wrong, "no-target", WHY)
            await ann.stored(last)
            await bob.hear("first", "last")
            assert not ann.session.unsettled
            assert as_object(event, ann) == {
                "event": "rejected",
                "id": "mine",
                "code": "no-target",
                "fields": {},
                "message": WHY,
            }
            assert describe(event) == [f"not sent: {WHY}: a correction"]
            assert [one.body for one in fixture.log() if one.kind != Kind.AUTHOR] == [b"first", b"last"]

    run(scene())


def test_a_message_that_is_too_long_costs_nobody_the_link(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture, fixture.members("bob") as (bob,):
            eve = await fixture.raw("eve")
            await eve.send(encode(Kind.SAY, bytes(MAX_TEXT + 9), number=1))
            await eve.say(2, "short")
            rejection = unpack(Rejection, await eve.frame(Kind.REJECTED, Kind.SAY))
            assert (rejection.number, rejection.code) == (1, "too-long")
            assert rejection.fields == {"size": MAX_TEXT + 9, "limit": MAX_TEXT}
            assert "16393 bytes, the limit is 16384" in rejection.text
            await bob.hear("short")
            await eve.leave()

    run(scene())


def test_a_rejection_is_told_after_its_commit_and_before_what_was_numbered_later(tmp_path: Path) -> None:
    async def scene() -> None:
        async with SlowHostFixture(tmp_path) as fixture:
            fixture.disk.set()
            eve = await fixture.raw("eve")
            await eve.say(1, "first")
            await eve.frame(Kind.SAY)
            fixture.disk.clear()
            await eve.send(encode(Kind.EDIT, NO_TARGET, number=2))
            await eve.say(3, "third")
            commits = fixture.store.commits
            await until(lambda: fixture.store.commits > commits, "it is being committed")
            await eve.ask("names", authors=[1])
            found: list[Frame] = [await eve.frame(Kind.NAMES, Kind.REJECTED)]
            fixture.disk.set()
            while found[-1].kind != Kind.SAY:
                found.append(await eve.frame(Kind.REJECTED, Kind.SAY))
            assert [one.kind for one in found] == [Kind.NAMES, Kind.REJECTED, Kind.SAY]
            await eve.leave()

    run(scene())


def test_a_host_that_was_killed_tells_it_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            eve = await fixture.raw("eve")
            for number in (1, 2):
                await eve.send(encode(Kind.EDIT, NO_TARGET, number=number))
            await eve.frame(Kind.REJECTED)  # it is on the disk; and now nobody has seen it
            await fixture.close()
            with suppress(ChatError):
                await eve.leave()
            await fixture.open()
            eve = await fixture.raw("eve", unsettled=1)
            assert eve.welcome is not None
            assert (eve.welcome.first_unsettled, eve.welcome.rejected) in {(2, 1), (3, 2)}  # one commit, or two
            rejection = unpack(Rejection, await eve.frame())  # right behind WELCOME
            assert (rejection.number, rejection.code) == (1, "no-target")
            await eve.leave()

    run(scene())


def test_the_next_process_is_told_what_the_one_before_had_not_dealt_with(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            with suppress(ZeroDivisionError):
                async with fixture.client("ann") as ann:
                    await ann.say(Outgoing("a correction", Kind.EDIT, 500))
                    await ann.event(Rejected)
                    raise ZeroDivisionError  # it dies before it has dealt with that
            async with fixture.client("ann") as ann:
                event = await ann.event(Rejected)
                assert (event.code, event.entry.body) == ("no-target", NO_TARGET)
                ann.take()
            async with fixture.client("ann") as ann:
                assert not ann.session.unsettled
                entry = await ann.say("all is well")
                await ann.stored(entry)

    run(scene())


def test_chat_send_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def muted(*_: object) -> tuple[str, dict[str, str | int]]:
        return "too-long", {"size": 9, "limit": 8}

    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            monkeypatch.setattr("chat.core.room.Room.take_run", lambda *_: (0, 0))
            monkeypatch.setattr("chat.core.room.Room.wrong_with", muted)
            with pytest.raises(ChatError, match=r"the host rejected the message: .*9 bytes, the limit is 8") as caught:
                await send_text(fixture.client("ann"), "hello", 10)
            assert caught.value.exit_code == FAILED
            monkeypatch.undo()
            async with fixture.client("ann") as ann:  # it does not wait in the outbox
                assert not ann.session.unsettled

    run(scene())


def test_chat_send_reports_what_an_earlier_process_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            await leave_one_behind(fixture)
            with pytest.raises(ChatError, match="your message is stored, but the host rejected earlier messages"):
                await send_text(fixture.client("ann"), "hello", 10)
            assert capsys.readouterr().err == f"chat: not sent: {WHY}: a correction\n"
            assert fixture.texts() == ["hello"]
            await send_text(fixture.client("ann"), "again", 10)
            assert capsys.readouterr().err == ""

    run(scene())


def test_a_program_of_plain_lines_has_it_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with HostFixture(tmp_path) as fixture:
            await leave_one_behind(fixture)
            async with fixture.client("ann") as ann:
                hearing = asyncio.ensure_future(_Lines(ann).hear())
                await ann.settled()
                await until(lambda: not ann.events, "it has heard of it")
            await hearing
            assert capsys.readouterr().err == f"not sent: {WHY}: a correction\n"

    run(scene())


def test_piped_input_fails_only_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unsent(fixture: HostFixture) -> int:
        with (tmp_path / "piped").open() as piped:
            monkeypatch.setattr("sys.stdin", piped)
            async with fixture.client("ann") as ann:
                return await linear.Linear(ann).run()

    async def scene() -> None:
        (tmp_path / "piped").write_text("hello\n")
        async with HostFixture(tmp_path) as fixture:
            await leave_one_behind(fixture)
            assert await unsent(fixture) == 0
            assert fixture.texts() == ["hello"]
            monkeypatch.setattr("chat.core.room.Room.take_run", lambda *_: (0, 0))
            monkeypatch.setattr("chat.core.room.Room.wrong_with", lambda *_: ("too-long", {"size": 9, "limit": 8}))
            assert await unsent(fixture) == 1

    run(scene())
