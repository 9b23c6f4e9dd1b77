"""``chat invite``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.programs import host, run

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
