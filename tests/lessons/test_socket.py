"""scripts/lessons/socket_.py: what it calls right is right, its mistakes happen, and its cures cure them."""

from __future__ import annotations

import re
import sys
from functools import partial

import pytest

from tests.lessons import programs
from tests.lessons.programs import LESSONS, run, story

what = partial(programs.what, "socket_", has_helpers=True)
NAMES = ["part", "send", "end", "gone", "turns", "accept", "port", "localhost", "nagle", "sigpipe", "length", "text"]
MEBIBYTE = 1024 * 1024


def test_the_whole_story_is_true() -> None:
    told = story("socket_.py")
    headings = [line.partition(":")[0] for line in told.splitlines() if line[:1].isdigit()]
    assert headings == [f"{number}. {name}" for number, name in enumerate(NAMES, 1)]
    sections = re.split(r"^\d+\. ", told, flags=re.MULTILINE)[1:]
    assert all("\n   | " in section for section in sections)  # the code that runs
    observed = told.count("\n   mistake  ") + told.count("\n   here     ")
    assert observed >= len(NAMES)
    assert told.count("\n   cure     ") >= len(NAMES) - 1  # without ::1, localhost has none


def test_one_mistake_alone() -> None:
    done = run(LESSONS / "socket_.py", "text")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\n12. text: ")
    assert "smallest" not in done.stdout
    assert "11. " not in done.stdout


def test_an_unknown_mistake_is_refused_in_one_line() -> None:
    done = run(LESSONS / "socket_.py", "sloth")
    assert done.returncode == 2
    assert "invalid choice: 'sloth'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_messages_run_together_and_lengths_keep_them_apart() -> None:
    lines = ["good evening", "is anybody here?", "good night"]
    assert what("peers.receive_lines(socket.socket.sendall, receive_once)") == ["".join(lines)]
    assert what("peers.receive_lines(send_message, receive_message)") == lines


def test_one_recv_gets_a_part_of_a_large_message_and_a_loop_gets_all() -> None:
    once, all_of_it = what(
        "[peers.receive_large(send_message, receive) for receive in (receive_once, receive_message)]"
    )
    assert 0 < once < MEBIBYTE
    assert all_of_it == MEBIBYTE


def test_one_send_takes_a_part_and_a_loop_sends_all() -> None:
    once, all_of_it = what("[peers.arrives(send) for send in (send_once, send_all)]")
    assert 0 < once < 32 * MEBIBYTE
    assert all_of_it == 32 * MEBIBYTE


def test_the_end_is_no_pause_and_counts_for_one_direction() -> None:
    assert what("receive_after_end(0.1) > 10") is True
    assert what("[part.decode() for part in ask_and_half_close()]") == ["how many letters?", "17"]


def test_a_stopped_peer_takes_what_we_send_and_only_its_silence_shows() -> None:
    assert what("peers.frozen_peer(beat, hears)") == [True, True, True]


def test_keepalive_notices_a_pulled_cable() -> None:
    cut = what("peers.pull_cable()._asdict()")
    if cut["refused"]:
        pytest.skip(f"no network of our own: {cut['refused']}")
    assert cut["sent"]
    assert (cut["watched"], cut["plain"]) == ("ETIMEDOUT", "")


def test_a_silent_client_stops_a_server_that_serves_in_turn_and_no_other() -> None:
    assert what("peers.second_is_served(serve_in_turn, A_MOMENT)") is False
    assert what("peers.second_is_served(serve_all, ENOUGH)") is True


def test_a_thread_in_accept_ends_when_it_is_told_and_not_when_its_socket_is_closed() -> None:
    assert what("peers.thread_ends(accept_or_stop, ENOUGH)") is True
    if sys.platform == "linux":
        assert what("peers.thread_ends(accept_one, A_MOMENT, close=True)") is False


def test_a_port_is_free_again_at_once_only_with_reuse() -> None:
    assert what("[restart(reuse=False), restart(reuse=True)]") == ["EADDRINUSE", ""]


def test_a_client_that_dials_every_address_gets_through() -> None:
    if not what("peers.has_ipv6()"):
        pytest.skip("no ::1 here")
    assert what("peers.both_answer(dial)") == ["127.0.0.1", "::1"]


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels acknowledge at other times")
def test_small_pieces_wait_for_each_other() -> None:
    pieces, one, nodelay = what(
        "[milliseconds_of_a_round(pieces=p, nodelay=n) for p, n in ((2, False), (1, False), (2, True))]"
    )
    assert pieces > 35  # Linux delays an acknowledgement for 40 ms at least
    assert one < pieces / 2
    assert nodelay < pieces / 2


def test_sigpipe_kills_who_does_not_ignore_it() -> None:
    fates = what("[peers.fate(send_to_closed, handling) for handling in (signal.SIG_DFL, signal.SIG_IGN)]")
    assert fates == [-13, what("peers.Fate.NOTICED")]


def test_four_bytes_of_a_stranger_are_refused_by_who_compares_them() -> None:
    trusting, careful = what("[peers.after_four_bytes(read) for read in (read_trusting, read_careful)]")
    assert careful == what("peers.Fate.REFUSED")
    if sys.platform == "linux":
        assert trusting == what("peers.Fate.OUT_OF_MEMORY")


def test_text_cut_anywhere_is_whole_again() -> None:
    assert what("[n for n in range(1, 8) if decode_stream(peers.receive_pieces(n)) == peers.TEXT]") == [*range(1, 8)]


def test_a_character_cut_in_two_cannot_be_decoded() -> None:
    done = run("-c", "import socket_; socket_.decode_pieces(socket_.peers.receive_pieces(3))")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("UnicodeDecodeError: ")
