"""``chat join``: a member's process, from joining to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path

from tests.cli.programs import Program, host, run, type_into, until


def test_a_message_reaches_the_other_member_and_the_log_exactly(tmp_path: Path) -> None:
    text = "\x1b[31m/quit 你好 👩‍👩‍👧‍👦\u202e\n  two lines\t"
    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        me = ann.until("joined")["me"]
        with Program(tmp_path / "bob", "join", "--json", "--as", "bob") as bob:
            bob.until("joined")
            ann.say(text, "42")
            heard = bob.until("message")
            assert (heard["text"], heard["nick"], heard["key"], heard["kind"]) == (text, "ann", me["key"], "say")
            assert ann.until("message")["seq"] == heard["seq"]
            assert ann.until("stored") == {"event": "stored", "id": "42", "seq": heard["seq"]}
        logged = run(tmp_path / "cid", "log", "--json")
        # Someone who is neither a member nor invited: the card of this machine's user lets them in.
        assert [json.loads(line)["text"] for line in logged.stdout.splitlines()] == [text]
        assert logged.stdout.isascii()


def test_end_of_input_waits_until_all_is_stored(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        for number in range(3000):  # more than may be unsettled at a time
            ann.say(f"line {number}", str(number))
        assert ann.finish() == 0
        stored = [event["id"] for event in ann.seen if event["event"] == "stored"]
        assert stored == [str(number) for number in range(3000)]
        assert run(tmp_path / "bob", "log").stdout.count("\n") == 3000


def test_what_a_killed_member_said_is_settled_by_its_next_process(tmp_path: Path) -> None:
    """The host is stopped, so that the message is certainly in the outbox and certainly not stored."""
    with host(tmp_path / "host") as room:
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
            ann.until("joined")
            ann.say("first", "1")
            ann.until("stored")
            room.process.send_signal(signal.SIGSTOP)
            ann.say("second", "2")
            outboxes = tmp_path / "ann" / "outboxes"
            until(
                lambda: any(b"second" in path.read_bytes() for path in outboxes.glob("*/*.outbox")),
                "it is in an outbox",
            )
            ann.kill()
        room.process.send_signal(signal.SIGCONT)
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann", "-n", "0") as again:
            assert "2" in again.until("joined")["pending"]
            again.until("stored", lambda e: e["id"] == "2")
            assert again.finish() == 0
        assert [json.loads(line)["text"] for line in run(tmp_path / "ann", "log", "--json").stdout.splitlines()] == [
            "first",
            "second",
        ]


def test_what_one_nickname_left_in_the_outbox_does_not_go_out_as_anothers(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        invite = room.seen[0]["invite"]
        with Program(tmp_path / "me", "join", invite, "--json", "--as", "bob") as bob:
            bob.until("joined")
            room.kill()
            bob.until("link", lambda e: e["state"] == "lost")
            bob.say("private words", "1")
            until(
                lambda: any(b"private" in p.read_bytes() for p in (tmp_path / "me").glob("outboxes/*/*.outbox")),
                "it is in an outbox",
            )
            bob.kill()
    with host(tmp_path / "host"):
        assert run(tmp_path / "me", "send", ".", "deployed", "--as", "robot").returncode == 0
        assert run(tmp_path / "me", "send", ".", "back", "--as", "bob").returncode == 0
        logged = [json.loads(line) for line in run(tmp_path / "me", "log", "--json").stdout.splitlines()]
        assert [(e["nick"], e["text"]) for e in logged] == [
            ("robot", "deployed"),
            ("bob", "private words"),
            ("bob", "back"),
        ]


def test_the_linear_face_shows_the_last_line_too(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        for number in range(5):
            shown = type_into(tmp_path / "ann", "join", "--as", "ann", typed=f"line {number}\n/quit\nnot said\n")
            assert shown.returncode == 0
            assert re.search(rf" ann: line {number} #\d+\Z", shown.stdout.strip())
            assert "not said" not in shown.stdout


def test_history_comes_once(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        for number in range(5):
            assert run(tmp_path / "ann", "send", ".", f"m{number}").returncode == 0
        with Program(tmp_path / "bob", "join", "--json", "-n", "2") as bob:
            bob.until("message", lambda e: e["text"] == "m4")
            assert bob.texts() == ["m3", "m4"]
        with Program(tmp_path / "bob", "join", "--json", "--since", "3") as bob:
            bob.until("message", lambda e: e["text"] == "m4")
            assert bob.seen[-1]["seq"] == 6
            assert bob.texts() == ["m1", "m2", "m3", "m4"]  # number 1 introduces the author, 2 is m0


def test_a_line_that_is_no_json_is_told_of_and_the_rest_is_said(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--json") as ann:
        ann.until("joined")
        ann.write("rubbish")
        ann.write(json.dumps({"say": "x" * 16385, "id": "long"}))
        ann.write(json.dumps({"say": "good", "id": "ok", "later": [1]}))
        assert ann.finish() == 1
        told = [(event["line"], event["id"]) for event in ann.seen if event["event"] == "error"]
        assert told == [(1, ""), (2, "long")]
        assert [event["id"] for event in ann.seen if event["event"] == "stored"] == ["ok"]
        assert "2 of 3 lines" in ann.errors()


def test_the_invite_may_come_on_standard_input(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "join", "-", "--json") as ann:
        ann.write(room.seen[0]["invite"])
        ann.say("after the invite", "1")
        assert ann.until("stored")["id"] == "1"


def test_readers_and_senders_are_not_seen_and_leave_no_trace_in_the_list(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        assert run(tmp_path / "ann", "who").stdout == ""
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
            ann.until("presence")
            assert run(tmp_path / "bob", "who").stdout == "ann\n"
            assert run(tmp_path / "bob", "send", ".", "hi").returncode == 0
            ann.until("message")
            assert [e for e in ann.seen if e["event"] == "presence" and not e["first"]] == []


def test_what_is_kept_is_private(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "host", "join", "--json", "--as", "ann") as ann:
        ann.say("x", "1")
        ann.until("stored")
        for top in (tmp_path / "host", Path(os.environ["XDG_RUNTIME_DIR"]) / "manywire"):
            for path in (top, *top.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
