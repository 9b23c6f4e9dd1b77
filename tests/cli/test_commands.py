"""The commands as people and programs run them: real processes, over TCP on this machine."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.programs import CHAT, PATIENCE, Program, host, run, type_into


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
            wait_for(lambda: any(b"second" in path.read_bytes() for path in outboxes.glob("*/*.outbox")))
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


def test_a_killed_host_comes_back_at_the_same_place_with_the_same_invite(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "--version") as nobody:
        nobody.process.wait(PATIENCE)
    with host(tmp_path / "host") as room:
        before = room.seen[0]
        with Program(tmp_path / "ann", "join", before["invite"], "--json", "--as", "ann") as ann:
            ann.until("joined")
            ann.say("before", "1")
            ann.until("stored")
            room.kill()
            assert ann.until("link", lambda e: e["state"] == "lost")["why"]
            ann.say("meanwhile", "2")
            with host(tmp_path / "host") as back:
                assert back.seen[0] == before
                assert ann.until("joined")["resumed"] is True
                ann.until("stored", lambda e: e["id"] == "2")
                assert ann.finish() == 0
                assert ann.texts() == ["before", "meanwhile"]


def test_what_one_nickname_left_in_the_outbox_does_not_go_out_as_anothers(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        invite = room.seen[0]["invite"]
        with Program(tmp_path / "me", "join", invite, "--json", "--as", "bob") as bob:
            bob.until("joined")
            room.kill()
            bob.until("link", lambda e: e["state"] == "lost")
            bob.say("private words", "1")
            wait_for(lambda: any(b"private" in p.read_bytes() for p in (tmp_path / "me").glob("outboxes/*/*.outbox")))
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


def test_log_follow_tells_of_a_dead_host(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room, Program(tmp_path / "ann", "log", "-f", "--json") as log:
        run(tmp_path / "bob", "send", ".", "one")
        log.until("message")
        room.kill()
        assert log.until("link")["state"] == "lost"


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


def test_send_into_a_dead_host_fails_and_says_so(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        invite = room.seen[0]["invite"]
        assert run(tmp_path / "ann", "send", invite, "hello").returncode == 0
    for target in (invite, "lobby", "."):
        done = run(tmp_path / "ann", "send", target, "lost?")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("chat: ")
        assert done.stderr.count("\n") == 1


def test_a_message_that_was_not_confirmed_in_time_is_said_to_wait_and_is_said_once(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        unsure = run(tmp_path / "ann", "send", ".", "hello", "--wait", "0")
        assert unsure.returncode == 4
        assert "it stays in the outbox" in unsure.stderr
        assert run(tmp_path / "ann", "send", ".", "again").returncode == 0
        logged = run(tmp_path / "ann", "log", "--json").stdout.splitlines()
        assert [json.loads(line)["text"] for line in logged] == ["hello", "again"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["join", "nowhere"], 4, "not open on this machine"),
        (["join"], 4, "open one with: chat host"),
        (["join", "tcp:127.0.0.1:1/x"], 4, "is a host running there?"),
        (["join", "nast:x"], 2, "unknown transport 'nast'"),
        (["join", "chat://127.0.0.1:7/lobby"], 2, "copy the whole line again"),
        (["join", "a b"], 2, "space"),
        (["join", "--as", "$(reboot)"], 2, "nickname"),
        (["host", "a/b"], 2, "solidus"),
        (["host", "--headless", "-t", "tcp:192.0.2.1:0"], 1, "not an address of this machine"),
        (["host", "--headless", "-t", "tcp:0.0.0.0:0?tls=0"], 2, "loopback"),
        (["host", "-t", "tpc"], 2, "did you mean 'tcp'"),
        (["jion"], 2, "did you mean 'join'"),
        (["send"], 2, "TARGET"),
        (["log", "-n", "3", "--since", "2"], 2, "cannot be combined"),
        (["join", "-"], 2, "not an invite"),
        (["rooms"], 4, "no room is open"),
        (["send", "."], 2, "nothing to send"),
        (["send", ".", "x" * 16385], 2, "longer than a message"),
        (["log", "-n", "-1"], 2, "-1"),
        (["log", "-n", "99999999999999999999"], 2, "range"),
        (["log", "--since", "0"], 2, "range"),
        (["join", "-n", "10001"], 2, "range"),
        (["invite", "new", "--hours", "0.001"], 2, "integer"),
        (["invite", "new", "--uses", "-2"], 2, "range"),
        (["host", "--rate", "-5"], 2, "range"),
    ],
)
def test_bad_input_gets_one_clear_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run(tmp_path / "ann", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("chat: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


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


def test_limited_invites_and_refusals(tmp_path: Path) -> None:
    with host(tmp_path / "host") as room:
        made = run(tmp_path / "host", "invite", "new", "--uses", "1").stdout.strip()
        assert made != room.seen[0]["invite"]
        assert run(tmp_path / "ann", "send", made, "hi").returncode == 0
        used = run(tmp_path / "bob", "join", made, "--json")
        assert used.returncode == 3
        assert json.loads(used.stdout)["code"] == "invite-used"
        assert run(tmp_path / "ann", "send", made, "a member needs no invite").returncode == 0
        asked = run(tmp_path / "ann", "invite", "new", "--uses", "1")
        assert asked.returncode == 1
        assert "only the room's owner" in asked.stderr
        address = room.seen[0]["address"]
        stranger = run(tmp_path / "eve", "send", f"{address}/lobby", "let me in")
        assert stranger.returncode == 3
        assert "by invite only" in stranger.stderr


def test_an_open_room_needs_no_invite_and_a_changed_host_key_is_refused(tmp_path: Path) -> None:
    with host(tmp_path / "one", "--open") as room:
        address = room.seen[0]["address"]
        assert run(tmp_path / "ann", "send", f"{address}/lobby", "hi").returncode == 0
    with host(tmp_path / "other", "--open", "-t", address):
        changed = run(tmp_path / "ann", "send", f"{address}/lobby", "secret")
        assert changed.returncode == 3
        assert "known_hosts" in changed.stderr
        assert changed.stderr.count("\n") == 1
        assert run(tmp_path / "bob", "log", f"{address}/lobby").stdout == ""


def test_readers_and_senders_are_not_seen_and_leave_no_trace_in_the_list(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        assert run(tmp_path / "ann", "who").stdout == ""
        with Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
            ann.until("presence")
            assert run(tmp_path / "bob", "who").stdout == "ann\n"
            assert run(tmp_path / "bob", "send", ".", "hi").returncode == 0
            ann.until("message")
            assert [e for e in ann.seen if e["event"] == "presence" and not e["first"]] == []


def test_log_follow_goes_on(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "ann", "log", "-f", "--json") as log:
        for text in ("one", "two"):
            run(tmp_path / "bob", "send", ".", text)
            assert log.until("message")["text"] == text


def test_output_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        run(tmp_path / "ann", "send", ".", "\n".join(["line"] * 3000))
        for _ in range(6):
            run(tmp_path / "ann", "send", ".", "\n".join(["line"] * 3000))
        log = subprocess.Popen(
            [*CHAT, "log", f"--data={tmp_path / 'ann'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert log.stdout is not None
        assert log.stderr is not None
        log.stdout.readline()
        log.stdout.close()
        assert log.wait(PATIENCE) == -signal.SIGPIPE
        assert log.stderr.read() == b""
        log.stderr.close()


def test_host_with_a_seat_is_two_processes_that_end_together(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "host", "--json", "--as", "ann") as seat:
        seat.until("listening")
        seat.until("joined")
        card = json.loads(next(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("card")).read_bytes())
        assert card["pid"] != seat.process.pid
        seat.say("hello", "1")
        seat.until("stored")
        second = run(tmp_path / "bob", "host")
        assert second.returncode == 1
        assert "already open on this machine" in second.stderr
        seat.kill()  # the room must end with its window, however the window ends
        wait_for(lambda: run(tmp_path / "bob", "rooms").returncode == 4)
    with Program(tmp_path / "ann", "host", "--json") as again:
        again.until("message", lambda e: e["text"] == "hello")
    wait_for(lambda: run(tmp_path / "bob", "rooms").returncode == 4)


def test_a_host_that_dies_under_its_window_is_told(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "host", "--json") as seat:
        seat.until("joined")
        card = json.loads(next(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("card")).read_bytes())
        os.kill(card["pid"], signal.SIGKILL)
        assert seat.process.wait(PATIENCE) == 1
        assert "the host was ended by SIGKILL" in seat.errors()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_headless_host_ends_by_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with host(tmp_path / "host") as room:
        room.process.send_signal(number)
        assert room.process.wait(PATIENCE) == code
        assert room.errors() == ""


def test_what_is_kept_is_private(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "host", "join", "--json", "--as", "ann") as ann:
        ann.say("x", "1")
        ann.until("stored")
        for top in (tmp_path / "host", Path(os.environ["XDG_RUNTIME_DIR"]) / "manywire"):
            for path in (top, *top.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_secrets_stand_in_no_command_line(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "host", "--json") as seat:
        invite = seat.until("listening")["invite"]
        seat.until("joined")
        secret = invite.rpartition(".")[2]
        if not Path("/proc").is_dir():
            pytest.skip("this system shows no command lines in /proc")
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):  # others end meanwhile
                lines.append(path.read_bytes())
        assert any(b"--control-fd" in line for line in lines), "the host's own is among them"
        assert not [line for line in lines if secret.encode() in line]
    wait_for(lambda: run(tmp_path / "bob", "rooms").returncode == 4)


def test_a_wrong_program_at_the_door_gets_one_line_and_harms_nobody(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-t", "tcp:127.0.0.1:0?tls=0", "-t", "tcp:127.0.0.1:0") as room:
        room.until("listening")
        ports = [int(e["address"].split(":")[2].split("?")[0]) for e in room.seen]
        with Program(tmp_path / "ann", "join", "--json") as ann:
            ann.until("joined")
            for port in ports:
                too_long = b"chat/2 x\n\x00\x01\x00\x01" + bytes(65533)
                for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), too_long):
                    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stranger:
                        answer = drained(stranger, junk)
                        assert b"Traceback" not in answer
            ann.say("still here", "1")
            ann.until("stored")
        room.process.send_signal(signal.SIGTERM)
        assert room.process.wait(PATIENCE) == 0
        complaints = room.errors().splitlines()
        assert len(complaints) == 6
        assert all(line.startswith("chat: tcp 127.0.0.1:") for line in complaints)


def drained(stranger: socket.socket, junk: bytes) -> bytes:
    """Send all and read to the end; a reset is an end, too, and there is nothing to shut down after one (ENOTCONN)."""
    answer = b""
    try:
        stranger.sendall(junk)
        stranger.shutdown(socket.SHUT_WR)
        while data := stranger.recv(65536):
            answer += data
    except OSError as error:
        if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
            raise
    return answer


def wait_for(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
