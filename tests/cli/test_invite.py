"""``chat invite``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chat.ui.invites import qr_code
from tests.cli.programs import Program, host, run, run_here, type_into, until

if TYPE_CHECKING:
    from pathlib import Path


def test_limited_invites_and_refusals(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        made = run(tmp_path / "host", "invite", "new", "--uses", "1").stdout.strip()
        assert made != room.seen[0]["invite"]
        assert run(tmp_path / "ann", "send", made, "hi").returncode == 0
        used = run(tmp_path / "bob", "join", made, "--json")
        assert used.returncode == 3
        assert json.loads(used.stdout)["code"] == "invite-used"
        assert run(tmp_path / "ann", "send", made, "a member needs no invite").returncode == 0
        address = room.seen[0]["address"]
        stranger = run(tmp_path / "eve", "send", f"{address}/lobby", "let me in")
        assert stranger.returncode == 3
        assert "by invite only" in stranger.stderr


def test_an_owner_lists_revokes_and_renews_invites(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue") as room:
        owner = tmp_path / "host"
        standing = room.seen[0]["invite"]
        made = run(owner, "invite", "new", "--uses", "3", "--expires", "2h").stdout.strip()
        assert run(tmp_path / "ann", "send", made, "hi", "--as", "ann").returncode == 0
        rows = [json.loads(line) for line in run(owner, "invite", "list", "--json").stdout.splitlines()]
        assert [(row["standing"], row["uses"], row["came"], row["revoked"]) for row in rows] == [
            (True, None, [], False),
            (False, 2, ["ann"], False),
        ]
        listed = run(owner, "invite", "list").stdout
        assert "2 uses left, until " in listed
        assert all(secret not in listed for secret in (made.rpartition(".")[2], standing.rpartition(".")[2]))
        assert run(owner, "invite", "revoke", rows[1]["invite"]).returncode == 0
        late = run(tmp_path / "bob", "send", made, "hi", "--as", "bob")
        assert (late.returncode, late.stderr) == (3, "chat: this invite has been revoked; ask for a new one\n")
        assert run(tmp_path / "ann", "send", made, "whoever is in stays in", "--as", "ann").returncode == 0
        unknown = run(owner, "invite", "revoke", "0000")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "there is no invite 0000" in unknown.stderr
        assert run(owner, "invite", "revoke", made).returncode == 0
        unknown = run(owner, "invite", "revoke", made[:-22] + "A" * 22)
        assert (unknown.returncode, "there is no invite " in unknown.stderr, "A" * 22 in unknown.stderr) == (
            1,
            True,
            False,
        )
        again = run(owner, "invite", "renew").stdout.strip()
        assert again.partition("#")[0] == standing.partition("#")[0]
        assert run(tmp_path / "bob", "send", standing, "hi", "--as", "bob").returncode == 3
        assert run(tmp_path / "bob", "send", again, "hi", "--as", "bob").returncode == 0
        assert run(owner, "send", "lobby", "by the card").returncode == 0
        room.kill()
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue") as room:
        assert room.seen[0]["invite"] == again


def test_an_invite_for_somebody_who_is_to_be_an_operator(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue"):
        made = run(tmp_path / "host", "invite", "new", "--for", "ann", "--role", "operator").stdout.strip()
        assert "/lobby?as=ann#" in made
        with Program(tmp_path / "ann", "join", made, "--json") as ann:
            decided = ann.until("moderation")
            assert (decided["role"], decided["whom"]["nick"]) == ("operator", "ann")
        listed = run(tmp_path / "host", "invite", "list", "--json").stdout.splitlines()
        row = json.loads(listed[1])
        assert (row["for"], row["role"], row["uses"], row["came"]) == ("ann", "operator", 0, ["ann"])
        assert "0 uses left, operator, for ann  ann\n" in run(tmp_path / "host", "invite", "list").stdout
        assert run(tmp_path / "host", "log", "lobby").stdout.endswith("owner has made ann an operator\n")


def test_an_invite_that_has_expired_says_so_in_the_list(tmp_path: Path) -> None:
    with host(tmp_path, "-t", "tcp:127.0.0.1:0", "-t", "queue"):
        made = run(tmp_path, "invite", "new", "--expires", "1s").stdout.strip()
        until(lambda: "  expired on 20" in run_here(tmp_path, "invite", "list").stdout, "the invite has expired")
        done = run_here(tmp_path / "bob", "send", made, "hi")
        assert (done.returncode, done.stderr) == (3, "chat: this invite has expired; ask for a new one\n")


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "invite", "new", "--expires", "soon")
    assert (done.returncode, "'soon' is no time; write 30m, 2h or 7d" in done.stderr) == (2, True)


def test_an_invite_has_a_qr_code_and_says_how_far_it_goes(tmp_path: Path) -> None:
    with host(tmp_path, "-t", "tcp:127.0.0.1:0", "-t", "queue") as room:
        invite = room.seen[0]["invite"]
        made = run(tmp_path, "invite", "new", "--qr")
        limit = "this invite works on this machine only; for people elsewhere, leave and open the room with: "
        limit += "chat host lobby -t tcp"
        assert made.stdout.splitlines() == [invite, *qr_code(invite)]
        assert made.stderr == f"chat: {limit}\n"
        narrow = run(tmp_path, "invite", "new", "--qr", COLUMNS="40")
        assert narrow.stdout == f"{invite}\n"
        assert "the QR code does not fit into 40 columns; make the window wider" in narrow.stderr
        shown = type_into(tmp_path, "join", "--plain", typed="/invite qr\n/invite nonsense\n").stdout.splitlines()
        start = shown.index(f"* {invite}")
        rows = [f"* {row}" for row in qr_code(invite)]
        assert shown[start + 1 : start + 2 + len(rows)] == [*rows, f"* {limit}"]
        assert "* write /invite, or: /invite qr" in shown
