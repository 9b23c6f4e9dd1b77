"""What other users of the machine see in ``ps`` of a command that was given an invite."""

# ruff: noqa: RUF001 - invites are pasted with full-width colons, too

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chat.local.invite import Invite
from chat.transport import Address
from tests.cli.programs import CHAT, PATIENCE

pytestmark = pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="ps reads something else here")


@pytest.mark.parametrize("command", [["join", "--json"], ["log"], ["invite", "list"]])
def test_ps_shows_no_invite_once_a_command_runs(tmp_path: Path, command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        address = Address("tcp", f"127.0.0.1:{server.getsockname()[1]}")
        invite = str(Invite((address,), "lobby", bytes(32), bytes(16)))
        arguments = [*CHAT, *command, invite, f"--data={tmp_path}"]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            try:
                with server.accept()[0]:  # it has read the invite, and dials
                    shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            finally:
                process.kill()
    hidden = b"*" * len(invite)
    assert shown[:-1] == [hidden if one == invite else one.encode() for one in arguments]


def test_pasted_invites_are_hidden_and_nothing_else() -> None:
    """The last one is at the end of what the kernel shows."""
    program = (
        "from pathlib import Path; from chat.local.arguments import hide_invites; hide_invites();"
        "print(Path('/proc/self/cmdline').read_text().replace(chr(0), '|'))"
    )
    invites = ["> chat:\n> //a/b#c.d", '"CHAT：//a/b#c.d"', "come: chat://a/b#c.d", "chat://a/b#c.d"]
    arguments = [*invites[:2], "", "--as=小明", "chat", "tcp:a:1/b", *invites[2:]]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    expected = ["*" * len(one.encode()) if one in invites else one for one in arguments]
    assert done.stdout.strip() == "|".join([sys.executable, "-c", program, *expected, ""])
