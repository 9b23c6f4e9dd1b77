"""chat.host.programs within a host: what --peer is read as, /peer, and what happens when processes do not behave."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chat.core.bodies import Ask, Notice
from chat.core.errors import AddressError
from chat.core.events import Message
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.host import admission
from chat.host import programs as programs_module
from chat.host.programs import Forked, Program, Programs
from tests.host.host_fixture import HostFixture, Member, declined, run, until
from transports.pipe import PipePair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ECHO = ("sh", "-c", 'while IFS= read -r line; do printf "<%s>\\n" "$line"; done')


@asynccontextmanager
async def room(tmp_path: Path, address: str = "", **more: Any) -> AsyncIterator[tuple[HostFixture, Programs, Member]]:
    """A host with programs, and its owner."""
    async with HostFixture(tmp_path / "fixture", address) as fixture:
        programs = Programs(fixture.host, tmp_path / "fixture" / "peers", **more)
        try:
            async with fixture.client("owner") as owner:
                yield fixture, programs, owner
        finally:
            await programs.aclose()


async def told(member: Member) -> str:
    return (await member.event(Notice, lambda notice: notice.code.startswith("peer"))).text


async def here(fixture: HostFixture, *nicks: str) -> None:
    await until(lambda: set(nicks) <= set(fixture.nicks()), f"{nicks} are here")


# -- what is asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name", "command"),
    [
        ("cat", "cat", ["cat"]),
        ("cat -n 'a b'", "cat", ["cat", "-n", "a b"]),
        ("bot=cat", "bot", ["cat"]),
        ("小明=cat a=b", "小明", ["cat", "a=b"]),
        ("bot=sh -c 'x=1; echo $x'", "bot", ["sh", "-c", "x=1; echo $x"]),
        ("sed s/a=b/c/", "sed", ["sed", "s/a=b/c/"]),
        ("/bin/sh x=y", "sh", ["/bin/sh", "x=y"]),
        ("'/bin/sh' x=y", "sh", ["/bin/sh", "x=y"]),
        ("bot=cat\nx", "bot", ["cat", "x"]),
    ],
)
def test_a_program_is_read(spec: str, name: str, command: list[str]) -> None:
    assert Program.parse(spec) == Program(name, tuple(command))
    assert Program.parse(spec, as_json=True) == Program(name, tuple(command), as_json=True)


def test_programs_are_read_together() -> None:
    assert Program.parse_all(["cat", "a=cat"], ["b=cat"]) == [
        Program("cat", ("cat",)),
        Program("a", ("cat",)),
        Program("b", ("cat",), as_json=True),
    ]
    with pytest.raises(AddressError, match="2 programs are called cat; name them: NAME=COMMAND"):
        Program.parse_all(["cat"], ["cat=sh"])


def test_a_name_that_cannot_be_one_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "-x").touch(0o755)
    with pytest.raises(AddressError, match=r"begins with a dash.*; name the program: NAME="):
        Program.parse(shlex.quote(str(tmp_path / "-x")))


# -- while the room is open -------------------------------------------------------------------------------


def test_a_program_may_start_more_slowly_than_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, _):
            monkeypatch.setattr(admission, "HELLO_TIMEOUT", 0.05)  # it takes far longer to start an interpreter
            programs.start("lobby", Program("echo", ECHO))
            await here(fixture, "echo")

    run(scene())


def test_the_owner_starts_a_program_by_hand_where_the_kernel_says_who_asks(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path, f"pipe:{tmp_path}/fixture/door") as (fixture, _, owner):
            ask = Ask(what="peer", text=f"echo={shlex.join(ECHO)}")
            assert (await owner.ask(ask)).text == "echo is started"
            assert await declined(owner, ask) == (
                "a program called echo is already in the room; give this one another name: NAME=COMMAND"
            )
            assert "there is no program" in await declined(owner, Ask(what="peer", text="/nowhere/x"))
            async with fixture.client("bob") as bob:  # another key, and the same user
                assert (await declined(bob, ask)).startswith("a program called echo is already in the room")
            await here(fixture, "echo")
            await owner.say("hi")
            await owner.hear("hi", "<owner: hi>")

    run(scene())


def test_a_program_is_started_in_the_room_where_it_was_asked_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path, f"pipe:{tmp_path}/fixture/door") as (fixture, programs, owner):
            garden = fixture.add_room("garden")
            ask = Ask(what="peer", text=f"echo={shlex.join(ECHO)}")
            async with fixture.client("owner", room="garden") as in_garden:
                assert (await in_garden.ask(ask)).text == "echo is started"
                await until(lambda: "echo" in [nick for _, nick in garden.room.roster.here], "it is in the garden")
                assert fixture.nicks() == ["owner"]
                await owner.ask(ask)  # the same name, in the other room
                await here(fixture, "echo")
                await in_garden.say("hi")
                await in_garden.hear("hi", "<owner: hi>")
                assert fixture.texts() == []
                assert len(programs._running) == 2

    run(scene())


def test_over_another_wire_even_the_owner_starts_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (fixture, _, owner):
            why = await declined(owner, Ask(what="peer", text="cat"))
            assert why.startswith("programs can only be started from the host's own machine")
            async with fixture.client("bob") as bob:
                assert "only the room's owner" in await declined(bob, Ask(what="peer", text="cat"))
            assert fixture.nicks() == ["owner"]

    run(scene())


def test_the_host_says_who_is_a_bot_and_only_that_author_is(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, owner):
            programs.start("lobby", Program("echo", ECHO))
            await here(fixture, "echo")
            await owner.say("hi")
            said = await owner.hear("hi", "<owner: hi>")
            assert [message.author.bot for message in said] == [False, True]
            await owner.say(Outgoing("waves", kind=Kind.ACTION))
            await owner.hear("waves", "<* owner waves>")

    run(scene())


def test_a_program_that_comes_back_has_its_key_and_says_what_it_had_not_stored(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, owner):
            keys = []
            for _ in range(2):
                programs.start("lobby", Program("bot", ("sh", "-c", "echo here")))
                keys.append((await owner.event(Message)).author.key)
                assert await told(owner) == "bot has left: it ended with exit status 0"
            assert keys[0] == keys[1]
            assert fixture.texts() == ["here", "here"]

    run(scene())


# -- processes that do not behave -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pidfd", "poll"])
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 3, f"signal {signal.SIGRTMIN + 3}")]
)
def test_a_signal_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, number: int, name: str) -> None:
    if how == "poll":  # as on macOS
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, owner):
            programs.start("lobby", Program("bot", ("cat",)))
            await here(fixture, "bot")
            (pid,) = programs._pids
            os.kill(pid, number)
            assert await told(owner) == f"bot has left: it was ended by {name}"
            assert not programs._pids
            assert not programs._running

    run(scene())


def test_a_peer_whose_link_is_lost_is_ended(tmp_path: Path) -> None:
    """It ends by itself, and COMMAND, which knows nothing of it, before it."""

    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, owner):
            programs.start("lobby", Program("bot", ("sh", "-c", "echo up; exec sleep 1000")))
            await owner.hear("up")
            (member,) = [member for member in fixture.hosted.connections if member.nick == "bot"]
            await fixture.hosted.connections[member].link.aclose()
            assert await told(owner) == "bot has left: it ended with exit status 1"

    run(scene())


def test_who_has_left_is_named_as_the_room_names_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_fixture, programs, owner):
            programs.start("lobby", Program("owner", ("sh", "-c", "exit 5")))
            assert await told(owner) == "owner-2 has left: it ended with exit status 5"

    run(scene())


def test_a_peer_that_does_not_leave_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs_module, "GRACE", 0.05)

    async def scene() -> None:
        async with room(tmp_path) as (fixture, programs, owner):
            programs.start("lobby", Program("bot", ("sh", "-c", "echo up; exec sleep 1000")))
            await owner.hear("up")
            (pid,) = programs._pids
            os.kill(pid, signal.SIGSTOP)
            (member,) = [member for member in fixture.hosted.connections if member.nick == "bot"]
            await fixture.hosted.connections[member].link.aclose()
            assert await told(owner) == "bot has left: it was ended by SIGKILL"

    run(scene())


def test_a_process_that_cannot_be_started_is_told_of_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs_module, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(programs_module, "_LAST_DELAY", 0.02)
    python = sys.executable

    async def scene() -> None:
        async with room(tmp_path, restart=True) as (fixture, programs, owner):
            monkeypatch.setattr(sys, "executable", "/nowhere/python")
            programs.start("lobby", Program("bot", ("cat",)))
            for seconds in ("0.01", "0.02", "0.02"):
                assert await told(owner) == "bot has left: it could not be started: no such file or directory"
                assert await told(owner) == f"bot is started again in {seconds} s"
            monkeypatch.setattr(sys, "executable", python)
            await here(fixture, "bot")

    run(scene())


def test_the_owner_reads_the_last_error_and_what_ends_at_once_is_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs_module, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(programs_module, "_AT_ONCE", 1000.0)
    script = r"echo first >&2; printf 'cannot open \033[31mit%0300d\n\n' 0 >&2; exit 2"

    async def scene() -> None:
        async with room(tmp_path, restart=True) as (fixture, programs, owner), fixture.client("bob") as bob:
            programs.start("lobby", Program("bot", ("sh", "-c", script)))
            for then in (
                "bot is started again in 0.01 s",
                "bot is not started again: it ended 2 times within 1000 s of its start; /peer NAME=COMMAND starts it",
            ):
                said = await told(owner)
                assert said.startswith("bot has left: it ended with exit status 2: cannot open ␛[31mit000")
                assert len(said) < 300
                assert await told(bob) == "bot has left: it ended with exit status 2"
                assert (await told(owner), await told(bob)) == (then, then)
            await until(lambda: not programs._running, "it is over")
            programs.start("lobby", Program("bot", ("cat",)))
            await here(fixture, "bot")

    run(scene())


def test_a_folder_that_others_can_enter_keeps_no_key(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_, programs, owner):
            folder = tmp_path / "fixture" / "peers" / "bot"
            folder.mkdir(mode=0o777)
            folder.chmod(0o777)
            programs.start("lobby", Program("bot", ("cat",)))
            assert "bot has left: it could not be started: " in (said := await told(owner))
            assert "is open to other users" in said

    run(scene())


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
def test_closed_at_any_moment_it_leaves_nothing(tmp_path: Path, turns: int) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_, programs, _owner):
            for name in ("a", "b"):
                programs.start("lobby", Program(name, ("cat",)))
            for _ in range(turns):
                await asyncio.sleep(0)
        assert not programs._pids

    run(scene())


def test_a_forked_peer_is_seen_off_too_when_all_is_closed_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_, programs, _owner):
            pair = PipePair()
            process = subprocess.Popen(["sleep", "1000"], process_group=0)  # noqa: ASYNC220
            programs.adopt(Forked("lobby", "bot", process.pid, bytes(32), pair))
            await programs.aclose()
        process.returncode = 0  # it has been reaped

    run(scene())


def test_what_is_printed_by_the_dying_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_, programs, owner):
            script = (
                f'i=0; while [ $i -lt 200 ]; do echo "{"x" * 90} $i" >&2; i=$((i+1)); done; printf "no newline" >&2'
            )
            programs.start("lobby", Program("bot", ("sh", "-c", script)))
            await told(owner)

    run(scene())
    log = "\n".join(record.getMessage() for record in caplog.records).splitlines()
    assert [line for line in log if "xxx" in line] == [f"bot: {'x' * 90} {number}" for number in range(200)]
    assert "bot: no newline" in log


def test_a_line_without_end_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with room(tmp_path) as (_, programs, _owner):
            programs.start("lobby", Program("bot", ("sh", "-c", "tr '\\0' x </dev/zero >&2")))
            await until(lambda: sum("xxx" in record.getMessage() for record in caplog.records) >= 2, "two pieces")

    run(scene())
    assert max(len(record.getMessage()) for record in caplog.records) < 128 * 1024
