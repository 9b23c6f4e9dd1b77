"""``chat host``: a room's process, with and without a window."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli import programs
from tests.cli.programs import PATIENCE, Program, host, run, run_here, until, window


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
        until(lambda: run(tmp_path / "bob", "rooms").returncode == 4, "the room is closed")
    with Program(tmp_path / "ann", "host", "--json") as again:
        again.until("message", lambda e: e["text"] == "hello")
    until(lambda: run(tmp_path / "bob", "rooms").returncode == 4, "the room is closed")


def test_a_host_that_dies_under_its_window_is_told(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "host", "--json") as seat:
        seat.until("joined")
        card = json.loads(next(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("card")).read_bytes())
        os.kill(card["pid"], signal.SIGKILL)
        assert seat.process.wait(PATIENCE) == 1
        assert "the host was ended by SIGKILL" in seat.errors()


def test_the_log_of_a_host_with_a_window_has_times(tmp_path: Path) -> None:
    with Program(tmp_path / "ann", "host", "--json", "--peer=bot=sh -c 'echo oops >&2; exit 3'") as seat:
        seat.until("notice", lambda event: event["code"] == "peer-exited-saying" and event["fields"]["said"] == "oops")
        (log,) = (tmp_path / "ann").glob("rooms/*/host.log")
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d chat: bot: oops\n", log.read_text())


def test_a_room_stays_open_without_the_window_that_opened_it(tmp_path: Path) -> None:
    with window(tmp_path / "ann", "host", "--as", "ann", term="xterm") as seat:
        seat.shows("from another terminal here: chat join lobby")
        seat.type("", "\x03")
        seat.shows("Enter: keep it open")
        seat.type("", "\r")
        told = seat.until("room lobby stays open; enter it with: chat join lobby; close it with: kill ")
        assert seat.process.wait(PATIENCE) == 0
        pid = int(told.rpartition(" ")[2])
        assert run_here(tmp_path / "ann", "send", "lobby", "still here").returncode == 0
        os.kill(pid, signal.SIGTERM)
        until(lambda: run_here(tmp_path / "ann", "rooms").returncode == 4, "the room is closed")


def test_a_draft_outlives_its_window(tmp_path: Path) -> None:
    def drafts() -> list[str]:
        return [path.read_text() for path in (tmp_path / "ann").rglob("*.draft")]

    with host(tmp_path / "host"):
        with window(tmp_path / "ann", "join", "--as", "ann", term="xterm") as seat:
            seat.shows("/help lists")
            seat.type("half a thought", "")
            until(lambda: drafts() == ["half a thought"], "it is on the disk")
            seat.kill()
        with window(tmp_path / "ann", "join", "--as", "ann", term="xterm") as seat:
            seat.shows("> half a thought")
            seat.type("!", "\r")
            seat.shows("ann │ half a thought! ✓")
            assert not drafts()


@pytest.mark.parametrize("face", [[], ["--plain"]], ids=["screen", "plain"])
def test_a_room_whose_host_was_killed_is_opened_again_from_its_window(tmp_path: Path, face: list[str]) -> None:
    with window(tmp_path / "ann", "host", "--as", "ann", *face, term="xterm") as seat:
        seat.shows("from another terminal here: chat join lobby")
        card = next(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("card"))
        before = json.loads(card.read_bytes())["pid"]
        os.kill(before, signal.SIGKILL)
        seat.shows("/reopen opens the room again; this window stays")
        seat.type("meanwhile", "\r")
        until(lambda: run_here(tmp_path / "ann", "rooms").returncode == 4, "the room is closed")
        seat.type("/reopen", "\r")
        until(lambda: "meanwhile" in run(tmp_path / "ann", "log", "lobby").stdout, "it is sent")
        after = json.loads(card.read_bytes())["pid"]
        assert after != before
        seat.kill()
    until(lambda: run_here(tmp_path / "ann", "rooms").returncode == 4, "the new process ends with the window, too")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_headless_host_ends_by_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with host(tmp_path / "host") as room:
        room.process.send_signal(number)
        assert room.process.wait(PATIENCE) == code
        assert room.errors() == ""


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
    until(lambda: run(tmp_path / "bob", "rooms").returncode == 4, "the room is closed")


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


def test_a_name_to_advertise_needs_somebody_who_can_use_it(tmp_path: Path) -> None:
    for seat in ([], ["--headless"]):
        done = run(tmp_path / "data", "host", "lobby", *seat, "--advertise", "chat.example", "--json")
        assert (done.returncode, done.stderr.splitlines()) == (
            2,
            ["chat: --advertise is for people elsewhere, who cannot reach this room; add -t tcp"],
        )


@pytest.mark.parametrize("more", [[], ["--headless"], ["-t", "queue"]], ids=" ".join)
def test_no_room_opens_on_a_wire_that_nobody_can_reach(tmp_path: Path, more: list[str]) -> None:
    done = run(tmp_path / "data", "host", "lobby", "-t", "memory", *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("chat: memory connects parts of one program, so nobody could enter this room; ")


def test_without_a_rate_ones_own_terminals_have_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host takes one new outbox of a key an hour, unless it is without limits."""
    less = "from chat.host import rates; rates.NEW_STREAMS = 1; from chat.cli.main import main; main()"
    monkeypatch.setattr(programs, "CHAT", [sys.executable, "-c", less])
    with (
        host(tmp_path, "--rate=0"),
        Program(tmp_path, "join", "--json") as one,
        Program(tmp_path, "join", "--json") as two,
    ):
        for window in (one, two):  # each has an outbox
            window.say("hello", "1")
            window.until("stored")
