"""``chat room``: real processes; the troll and an operator come over TCP, the owner types in a shell."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import pytest

from chat.cli import room
from chat.client import queries
from chat.core.bodies import Answer, Ask
from chat.core.errors import LinkBroken
from tests.cli.programs import Program, host, run, run_here

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from chat.client.client import Client


def test_order_is_kept_from_the_shell(tmp_path: Path) -> None:
    owner = tmp_path / "host"

    def do(*words: str) -> tuple[int, str, str]:
        done = run_here(owner, "room", *words)
        return done.returncode, done.stdout, done.stderr

    with ExitStack() as stack:
        running = stack.enter_context(host(owner, "-t", "tcp:127.0.0.1:0", "-t", "queue"))
        invite = running.seen[0]["invite"]
        bob, troll = (
            stack.enter_context(Program(tmp_path / name, "join", invite, "--json", "--as", name))
            for name in ("bob", "troll")
        )
        for one in (bob, troll):
            one.until("joined")
        assert run_here(tmp_path / "ghost", "send", invite, "boo", "--as", "ghost").returncode == 0
        assert do("audit", "lobby") == (0, "there is nothing yet\n", "")
        assert do("mute", "lobby", "troll", "10m", "very", "rude")[1].startswith("owner has muted troll until 20")
        assert troll.until("moderation")["role"] == "muted"
        assert do("unmute", ".", "troll") == (0, "owner has made troll an ordinary member again\n", "")
        assert do("op", "lobby", "bob") == (0, "owner has made bob an operator\n", "")
        # An operator on another machine, by the key of this nickname.
        topic = run_here(tmp_path / "bob", "room", "topic", invite, "tea", "and cake", "--as", "bob", "--json")
        made = json.loads(topic.stdout)
        assert (made["event"], made["action"], made["text"], made["nick"]) == (
            "moderation",
            "topic",
            "tea and cake",
            "bob",
        )
        assert do("topic", "lobby") == (0, "topic: tea and cake\n", "")
        assert do("topic", "lobby", "-") == (0, "owner has removed the topic\n", "")
        assert do("topic", "lobby") == (0, "this room has no topic; /topic TEXT sets one\n", "")
        log = [json.loads(line) for line in run(tmp_path / "host", "log", "lobby", "--json").stdout.splitlines()]
        (boo,) = (one["seq"] for one in log if one.get("text") == "boo")
        assert do("remove", "lobby", f"#{boo}") == (0, f"owner has taken back #{boo} by ghost\n", "")
        assert do("slow", "lobby", "30")[1] == "owner has turned on slow mode: one message in 30 s for each member\n"
        assert do("slow", "lobby", "off")[1] == "owner has turned off slow mode\n"
        assert do("kick", "lobby", "troll", "go away") == (0, "owner has removed troll\n", "")
        assert troll.until("refused")["code"] == "kicked-because"
        assert do("ban", "lobby", "troll", "--invite", "enough") == (
            0,
            "owner has banned troll\nowner has banned ghost\n",
            "",
        )
        assert "operator  bob  SHA256:" in do("roles", "lobby")[1]
        roles = [json.loads(line) for line in do("roles", "lobby", "--json")[1].splitlines()]
        assert {(one["nick"], one["role"]) for one in roles} >= {
            ("bob", "operator"),
            ("troll", "banned"),
            ("ghost", "banned"),
        }
        trail = [json.loads(line) for line in do("audit", "lobby", "--json")[1].splitlines()]
        assert [(one["by"], one["what"], one["whom"], one["why"]) for one in trail][:3] == [
            ("owner", "mute", "troll", "very rude"),
            ("owner", "unmute", "troll", ""),
            ("owner", "op", "bob", ""),
        ]
        assert len(do("audit", "lobby")[1].splitlines()) == len(trail) == 11


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0", "-t", "queue") as running:
        invite = running.seen[0]["invite"]
        assert run_here(tmp_path / "bob", "send", invite, "hi", "--as", "bob").returncode == 0
        for folder, words, code, says in (
            ("bob", ["kick", invite, "owner", "--as=bob"], 1, "only the room's owner and operators may do that (kick)"),
            ("bob", ["audit", invite, "--as=bob"], 1, "only the room's owner and operators may do that (audit)"),
            ("bob", ["kick", "nowhere", "bob"], 4, "room 'nowhere' is not open on this machine"),
            ("host", ["kick", "lobby", "nobody"], 1, "nobody in this room is called nobody"),
            ("host", ["unban", "lobby", "bob"], 1, "bob is not banned"),
            ("host", ["deop", "lobby", "bob"], 1, "bob is not an operator"),
            ("host", ["slow", "lobby", "soon"], 2, "'soon' is no time; write seconds, like 30, or off"),
            ("host", ["remove", "lobby", "troll"], 2, "'troll' is no message; write its number"),
            ("host", ["remove", "lobby", "999"], 1, "no message 999"),
            ("host", ["ban", "lobby", ""], 2, "say whom you mean"),
            ("host", ["ban", "lobby", "bob", "5y"], 2, "'5y' is no time; write 30s, 10m, 2h or 7d"),
            ("host", ["mute", "lobby", "bob", "10", "rude"], 2, "'10' is no time"),
            ("host", ["mute", "lobby", "bob", "0m"], 2, "'0m' is no time"),
            ("host", ["mute", "lobby", "bob", "--", "--uid"], 2, "mute has no flag --uid"),
            ("host", ["ban", "lobby"], 2, "NICK is missing"),
        ):
            done = run_here(tmp_path / folder, "room", *words)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
            assert says in done.stderr


def test_a_host_that_counts_in_words_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Host:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def ask(self, _ask: Ask) -> Answer:
            return Answer(fields={"count": "many"})

        async def next_events(self) -> list[object]:
            return []

    monkeypatch.setattr(queries, "PATIENCE", 0)
    with pytest.raises(LinkBroken, match="the host has sent nothing for 0 s"):
        asyncio.run(room._decide(cast("Client", Host()), Ask(what="kick"), as_json=False))
