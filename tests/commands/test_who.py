"""Looking at a room of this machine from outside: ``chat who`` and ``chat rooms``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.commands.programs import Program, host, run

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
        assert " 2 members " in run(guest, "rooms").stdout
        near.kill()
        assert run(guest, "who", "--fast").stdout == "bob\n"  # its lock went with it
        assert not (guest / "identity.pem").exists()  # nobody was met, and nothing was made


def test_it_looks_at_boards_only(tmp_path: Path) -> None:
    done = run(tmp_path, "who", "tcp:127.0.0.1:1/lobby", "--fast")
    assert done.returncode == 2
    assert "--fast looks at a board" in done.stderr
    assert run(tmp_path, "who", "lobby").returncode == 4
    assert run(tmp_path, "who", "no room").returncode == 2


def test_a_look_costs_no_cryptography_and_no_loop(tmp_path: Path) -> None:
    code = "import sys, chat.sight; sys.exit(any(name in sys.modules for name in ('cryptography', 'prompt_toolkit')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
