"""The keys of hosts: the words that two people compare, and ``chat trust``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import host, run, run_here, type_into, window

if TYPE_CHECKING:
    from pathlib import Path

TCP = ("--open", "-ttcp:127.0.0.1:0")


def test_guest_and_owner_see_the_same_words_and_a_changed_key_is_refused_until_it_is_forgotten(tmp_path: Path) -> None:
    ann, owner, other, by = tmp_path / "ann", tmp_path / "owner", tmp_path / "other", "by phone or in person"
    with host(owner, *TCP) as room:
        address, spoken = room.seen[0]["address"], room.seen[0]["words"]
        with window(ann, "join", f"{address}/lobby", "--as=ann") as seat:
            assert seat.until("in person: ").endswith(f"; compare these words with its owner, {by}: {spoken}")
            seat.type("hello")
            seat.until("ann: hello")
            seat.type("/details")
            assert seat.until("words").endswith(f" the host's words: {spoken}")
        assert "in person" not in type_into(ann, "join", f"{address}/lobby", "--plain", typed="").stdout
    own = json.loads(run_here(owner, "trust", "show", "--json").stdout)
    assert own["words"] == spoken
    line = f"{address}  {own['fingerprint']}  {spoken}\n"
    assert run_here(ann, "trust", "list").stdout == run_here(ann, "trust", "show", f"{address}/lobby").stdout == line
    (listed,) = run_here(ann, "trust", "list", "--json").stdout.splitlines()
    assert json.loads(listed) == {"address": address, "fingerprint": own["fingerprint"], "words": spoken}

    with host(other, *TCP[:1], "-t", address) as room:
        first = run(tmp_path / "cid", "log", f"{address}/lobby").stderr
        assert first.startswith(f"chat: trust on first use: the host at {address} has the key SHA256:")
        assert first.endswith(f"by phone or in person: {room.seen[0]['words']}\n")
        assert run(tmp_path / "cid", "log", f"{address}/lobby").stderr == ""
        refused = run(ann, "send", f"{address}/lobby", "secret")
        assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
        assert room.seen[0]["words"] in refused.stderr
        assert f"run: chat trust forget {address};" in refused.stderr
        forgotten = run_here(ann, "trust", "forget", address)
        assert (forgotten.returncode, forgotten.stdout) == (0, f"forgotten: {address}, {own['fingerprint']}\n")
        empty = run_here(ann, "trust", "list")
        assert (empty.returncode, empty.stdout) == (0, "")
        assert empty.stderr.startswith("chat: no host is known yet; one is remembered when you join it by address")
        assert run_here(ann, "trust", "list", "--json").stderr == ""
        assert run(ann, "send", f"{address}/lobby", "not so secret").returncode == 0
        assert json.loads(run_here(ann, "trust", "show", address, "--json").stdout)["words"] == room.seen[0]["words"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show",), 1, "chat: no room has been opened here, so there is no key of yours to show"),
        (("show", "tcp:192.0.2.1:7711"), 1, "chat: no host is known at tcp:192.0.2.1:7711; chat trust list shows"),
        (("forget", "tcp:192.0.2.1:7711"), 1, "chat: no host is known at tcp:192.0.2.1:7711; chat trust list shows"),
        (
            ("forget", f"chat://192.0.2.1:7711/a#{'A' * 43}.{'A' * 22}"),
            1,
            "chat: no host is known at tcp:192.0.2.1:7711; ",
        ),
        (("forget", "nonsense here"), 2, "chat: 'nonsense here' is not an address"),
        (("forget",), 2, "chat: ADDRESS is missing"),
    ],
)
def test_what_cannot_be_shown_or_forgotten_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run_here(tmp_path / "me", "trust", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(said)


def test_a_damaged_line_is_named_and_nothing_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir(0o700)
    known = tmp_path / "me" / "known_hosts"
    known.write_text("tcp:192.0.2.1:7711 SHA256:short\n")
    known.chmod(0o600)
    for command in (("list",), ("forget", "tcp:192.0.2.1:7711")):
        done = run_here(tmp_path / "me", "trust", *command)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert f"line 1 of {known} is unreadable" in done.stderr
    assert known.read_text() == "tcp:192.0.2.1:7711 SHA256:short\n"


def test_the_window_of_a_host_shows_its_words_if_others_can_reach_it(tmp_path: Path) -> None:
    with window(tmp_path / "me", "host", "-ttcp:127.0.0.1:0") as seat:
        shown = seat.until("who joins by address sees: ").rpartition(": ")[2]
    assert run_here(tmp_path / "me", "trust", "show").stdout.endswith(f"  {shown}\n")
    with host(tmp_path / "other") as room:
        assert "words" not in room.seen[0]
