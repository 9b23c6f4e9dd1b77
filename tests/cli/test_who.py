"""Looking at a room of this machine from outside: ``chat who`` and ``chat rooms``."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import ChatError
from chat.core.status import unpack_slot
from chat.local import rooms
from chat.transport.registry import board_maker
from tests.cli.programs import Program, host, run, until

if TYPE_CHECKING:
    from pathlib import Path


def test_who_is_here_is_on_the_board(tmp_path: Path) -> None:
    ann, guest = tmp_path / "ann", tmp_path / "guest"
    with (
        host(ann, "-t", "queue", "-t", "tcp:127.0.0.1:0"),
        Program(ann, "join", "--json", "--as=小明") as near,
        Program(ann, "join", "--json", "--as=bob", "-t", "tcp") as far,
    ):
        near.until("presence")
        far.until("presence")
        assert run(guest, "who", "--fast").stdout == "bob 小明\n"
        assert run(guest, "who", "lobby").stdout == "bob\n小明\n"
        shown = [json.loads(line) for line in run(guest, "who", "--json").stdout.splitlines()]
        assert [(one["nick"], one["state"]) for one in shown] == [("bob", "online"), ("小明", "online")]
        assert "\t2 members\t" in run(guest, "rooms").stdout
        near.kill()
        assert run(guest, "who", "--fast").stdout == "bob\n"  # its lock went with it
        assert not (guest / "identity.pem").exists()  # nobody was met, and nothing was made


@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 12), pytest.param(2, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_whoever_is_killed_the_board_shows_those_who_live_each_once(tmp_path: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    wires = ("queue", "pipe", "tcp")
    nicks = [f"m{n}" for n in range(6)]
    with ExitStack() as stack:

        def come(nick: str) -> Program:
            wire = chance.choice(wires)
            member = stack.enter_context(
                Program(tmp_path / "members", "join", "--json", f"--as={nick}", f"-t{wire}", "-n0")
            )
            member.until("joined")
            return member

        def open_room() -> Program:
            listening = [f"-t{wire}" for wire in ("queue", "pipe", "tcp:127.0.0.1:0")]
            hosting = stack.enter_context(Program(tmp_path / "host", "host", "--headless", "--json", *listening))
            for _ in listening:
                hosting.until("listening")
            return hosting

        hosting = open_room()
        members = {nick: come(nick) for nick in nicks}
        maker = board_maker()
        assert maker is not None

        def on_board() -> list[str]:
            """What is on the board now, slot by slot: whoever had two would be here twice."""
            board = maker.open(rooms.room_folder("lobby"))
            try:
                found = [unpack_slot(payload) for _, payload, _ in board.read(trust_ms=0)]
            except ChatError:
                return []
            else:
                return sorted(slot[0][1] for slot in found if slot is not None)
            finally:
                board.close()

        for number in range(kills):
            for text in range(50):  # so that they are killed at work
                chance.choice([*members.values()]).say(f"{number} {text}")
            victim = chance.choice([*nicks, "host"])
            if victim == "host":
                hosting.kill()
                hosting = open_room()
            else:
                members[victim].kill()
                if number % 2:
                    rest = [nick for nick in nicks if nick != victim]
                    until(lambda rest=rest: on_board() == rest, f"{victim} is on the board no more")  # type: ignore[misc]
                members[victim] = come(victim)
            until(lambda: on_board() == nicks, f"after kill {number}, of {victim}, all are there once")


def test_it_looks_at_boards_only(tmp_path: Path) -> None:
    done = run(tmp_path, "who", "tcp:127.0.0.1:1/lobby", "--fast")
    assert done.returncode == 2
    assert "--fast reads the presence board" in done.stderr
    assert run(tmp_path, "who", "lobby").returncode == 4
    assert run(tmp_path, "who", "no room").returncode == 2


def test_a_look_costs_no_cryptography_and_no_loop(tmp_path: Path) -> None:
    heavy = "('cryptography', 'prompt_toolkit')"
    code = f"import sys, chat.client.board_view; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
