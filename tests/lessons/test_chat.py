"""scripts/lessons/chat.py: a room that goes on, whatever one of its clients does."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pytest

from tests.lessons.programs import LESSONS, other_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAT = LESSONS / "chat.py"
PATIENCE = 60  # seconds, for what takes none
ROOT = LESSONS.parents[1]


def start(
    *arguments: str, stdin: int = subprocess.PIPE, python: str | Path = sys.executable, wrapper: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-B", "-W", "error", *wrapper, str(CHAT), *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    )


def finish(program: subprocess.Popen[str], typed: str | None = None) -> tuple[str, str, int]:
    """Close its input and wait for its end. Return what it printed, its errors and its exit status."""
    output, errors = program.communicate(typed, timeout=PATIENCE)
    return output, errors, program.returncode


class Server:
    def __init__(self, python: str | Path = sys.executable, wrapper: tuple[str, ...] = ()) -> None:
        self.program = start("serve", "--port", "0", stdin=subprocess.DEVNULL, python=python, wrapper=wrapper)
        assert self.program.stdout is not None
        self.port = int(re.findall(r"port (\d+)", self.program.stdout.readline())[0])

    def end(self, number: int = signal.SIGTERM) -> None:
        self.program.send_signal(number)
        assert finish(self.program) == ("", "", 0)


@pytest.fixture
def server() -> Iterator[Server]:
    room = Server()
    try:
        yield room
        if room.program.returncode is None:
            room.end()  # whatever happened in between, it still runs, and ends well
    finally:
        room.program.kill()
        room.program.wait()


def frame(text: str) -> bytes:
    return struct.pack("!I", len(text.encode())) + text.encode()


class Peer:
    """A client made by hand."""

    def __init__(self, server: Server, name: str = "", *, buffer: int = 0) -> None:
        self.sock = socket.socket()
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(("127.0.0.1", server.port))
        self.file = self.sock.makefile("rb")
        if name:
            self.say(name)
            self.read_until(f"* {name} came")  # so it is known before anything else happens

    def say(self, text: str) -> None:
        self.sock.sendall(frame(text))

    def read(self) -> str:
        """Return the next text; empty at the end."""
        header = self.file.read(4)
        if not header:
            return ""
        (size,) = struct.unpack("!I", header)
        return self.file.read(size).decode()

    def read_until(self, text: str) -> list[str]:
        """Return the texts up to this one."""
        texts = [self.read()]
        while texts[-1] != text:
            assert texts[-1], f"ended before {text!r}"
            texts.append(self.read())
        return texts

    def is_sent_away(self) -> bool:
        try:
            while self.read():
                pass
        except ConnectionResetError:
            pass
        return True  # TimeoutError: it was not

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def ann(server: Server) -> Iterator[Peer]:
    with Peer(server, "ann") as peer:
        yield peer


@pytest.fixture
def bob(server: Server, ann: Peer) -> Iterator[Peer]:
    """He and ann can talk to each other, before and after whatever a test does."""
    with Peer(server, "bob") as peer:
        ann.read_until("* bob came")
        yield peer
        ann.say("good night")
        peer.read_until("ann: good night")
        peer.say("sleep well")
        ann.read_until("bob: sleep well")


def test_two_people_talk(server: Server) -> None:
    talk(server, sys.executable)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_two_people_talk_on_another_python(version: str) -> None:
    python = other_python(version)
    if python is None:
        pytest.skip(f"no other Python {version} here")
    server = Server(python)
    try:
        talk(server, python)
        server.end()
    finally:
        server.program.kill()
        server.program.wait()


def talk(server: Server, python: str | Path) -> None:
    with Peer(server, "carol") as carol:
        program = start("join", "dave", "--port", str(server.port), python=python)
        assert program.stdin is not None
        assert program.stdout is not None
        carol.read_until("* dave came")
        program.stdin.write("good\tevening, 你好 👩‍💻\n")
        program.stdin.flush()
        assert carol.read() == "dave: good evening, 你好 👩‍💻"
        carol.say("is anybody here?")
        assert [program.stdout.readline() for _ in range(2)] == ["* dave came\n", "carol: is anybody here?\n"]
        assert finish(program, "good night") == ("", "", 0)  # no newline at its end
        assert [carol.read(), carol.read()] == ["dave: good night", "* dave left"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_room_ends_well(server: Server, ann: Peer, number: int) -> None:
    program = start("join", "bob", "--port", str(server.port))
    ann.read_until("* bob came")
    server.end(number)
    assert [ann.read(), ann.read()] == ["* the room is closed", ""]
    assert program.wait(PATIENCE) == 0
    assert finish(program) == ("* bob came\n* the room is closed\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_client_ends_well(server: Server, ann: Peer, number: int) -> None:
    program = start("join", "bob", "--port", str(server.port))
    ann.read_until("* bob came")
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(number)
    assert finish(program) == ("", "", 0)
    ann.read_until("* bob left")


def test_a_port_in_use_and_a_server_that_is_not_there_are_one_line_each(server: Server) -> None:
    output, errors, status = finish(start("serve", "--port", str(server.port)))
    assert (output, status) == ("", 1)
    assert re.fullmatch(r"chat: .*in use.*\n", errors)
    server.end()
    output, errors, status = finish(start("join", "ann", "--port", str(server.port)))
    assert (output, status) == ("", 1)
    assert re.fullmatch(r"chat: .*refused\n", errors)
    _, errors, status = finish(start("join", "ann", "--port", "99999"))
    assert (errors.count("\n"), errors[:6], status) == (1, "chat: ", 1)


def test_a_server_that_is_killed_is_missed(server: Server, ann: Peer) -> None:
    program = start("join", "bob", "--port", str(server.port))
    ann.read_until("* bob came")
    server.program.kill()
    server.program.communicate()
    _, errors, status = program.communicate(timeout=PATIENCE)[0], finish(program)[1], program.returncode
    assert (errors, status) == ("chat: the server vanished\n", 1)


def test_a_reader_of_the_output_that_leaves_is_one_line(server: Server, ann: Peer) -> None:
    program = start("join", "bob", "--port", str(server.port))
    ann.read_until("* bob came")
    assert program.stdout is not None
    assert program.stdout.readline() == "* bob came\n"
    program.stdout.close()
    ann.say("good evening")
    assert program.wait(PATIENCE) == 1
    assert program.stderr is not None
    assert re.fullmatch(r"chat: .*Broken pipe\n", program.stderr.read())
    ann.read_until("* bob left")
    finish(program)


def test_a_client_that_sends_byte_by_byte(server: Server, ann: Peer, bob: Peer) -> None:
    with Peer(server) as slow:
        slow.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame("carol") + frame("naïve café, 你好") + frame(""):
            slow.sock.sendall(bytes([byte]))
        for peer in (ann, bob):
            assert peer.read_until("carol: ")[-2:] == ["carol: naïve café, 你好", "carol: "]


def test_a_client_that_reads_byte_by_byte_and_gets_all(server: Server, ann: Peer, bob: Peer) -> None:
    with Peer(server, buffer=16384) as slow:
        slow.say("carol")
        ann.read_until("* carol came")
        lines = [f"{number} {'x' * 900}" for number in range(250)]  # more than the kernel takes at once
        for line in lines:
            ann.say(line)
        bob.read_until(f"ann: {lines[-1]}")
        wanted = frame("* carol came") + b"".join(frame(f"ann: {line}") for line in lines)
        got = bytearray()
        while len(got) < len(wanted):
            got += slow.sock.recv(1 + len(got) % 100)
        assert got == wanted


def test_a_client_that_never_reads(server: Server, ann: Peer, bob: Peer) -> None:
    with Peer(server, buffer=4096) as sloth:
        sloth.say("sloth")
        ann.read_until("* sloth came")
        gone, said = False, 0
        while not gone:
            ann.say(f"{said} {'x' * 900}")
            while not (text := bob.read()).startswith(f"ann: {said} "):  # everybody else gets every line
                gone = gone or text == "* sloth was too slow and was sent away"
            said += 1
            assert said < 20_000  # 18 MB: more than anybody's buffers
        assert sloth.is_sent_away()


@pytest.mark.parametrize("seed", range(8))
def test_a_client_that_sends_random_bytes(server: Server, bob: Peer, seed: int) -> None:
    noise = random.Random(seed)
    with Peer(server, *["carol"] * (seed % 2)) as peer:
        # A first byte of 1 or more announces 16 MB or more, so it is nonsense for certain.
        peer.sock.sendall(bytes([noise.randint(1, 255)]) + noise.randbytes(noise.randrange(3, 5000)))
        assert peer.is_sent_away()
        if seed % 2:
            bob.read_until("* carol sent nonsense and was sent away")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff\xff\xff\xff",
        struct.pack("!I", 4097),
        struct.pack("!I", 2) + b"\xc3\x28",  # not UTF-8
        frame("carol") + frame("x" * 961),
    ],
    ids=["4 GiB", "4097 bytes", "no text", "long line"],
)
@pytest.mark.usefixtures("bob")
def test_nonsense_is_refused_without_waiting_for_more(server: Server, nonsense: bytes) -> None:
    with Peer(server) as peer:
        peer.sock.sendall(nonsense)
        assert peer.is_sent_away()


def test_what_is_sent_before_nonsense_counts(server: Server, bob: Peer) -> None:
    with Peer(server) as peer:
        peer.sock.sendall(frame("carol") + frame("good evening") + b"\xff\xff\xff\xff")
        bob.read_until("carol: good evening")
        assert bob.read() == "* carol sent nonsense and was sent away"


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("unfinished", [b"", b"\0", b"\0\0\0\x05hal"], ids=["border", "length", "text"])
def test_a_client_that_vanishes(server: Server, ann: Peer, bob: Peer, unfinished: bytes, reset: bool) -> None:
    with Peer(server, "carol") as peer:
        peer.sock.sendall(unfinished)
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    text = "* carol vanished" if reset else "* carol left"
    ann.read_until(text)
    bob.read_until(text)


def test_a_client_that_is_killed(server: Server, bob: Peer) -> None:
    program = start("join", "carol", "--port", str(server.port))
    bob.read_until("* carol came")
    program.kill()
    finish(program)
    assert re.fullmatch(r"\* carol (left|vanished)", bob.read())


def test_200_at_once(server: Server) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(server)) for _ in range(200)]
        for number, peer in enumerate(peers):
            peer.say(f"p{number}")
        peers[-1].read_until("* p199 came")
        for number, peer in enumerate(peers):
            peer.say(f"line {number}")
        wanted = {f"p{number}: line {number}" for number in range(200)}
        for number, peer in enumerate(peers):
            missing = wanted - {f"p{number}: line {number}"}
            while missing:
                text = peer.read()
                assert text
                missing.discard(text)


def test_more_than_fit_wait_until_somebody_leaves(server: Server) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(server, f"p{number}")) for number in range(230)]
        late = stack.enter_context(Peer(server))
        late.say("late")
        peers[0].say("is anybody here?")
        peers[1].read_until("p0: is anybody here?")
        peers[0].sock.shutdown(socket.SHUT_WR)
        assert peers[1].read_until("* late came")[-2:] == ["* p0 left", "* late came"]
        late.read_until("* late came")


def test_without_descriptors_the_others_wait_and_nobody_asks_again_and_again() -> None:
    program = """
import resource, runpy, socket, sys
calls, accept = [], socket.socket.accept
socket.socket.accept = lambda sock: calls.append(0) or accept(sock)
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
print(len(calls))
"""
    server = Server(wrapper=("-c", program))
    with ExitStack() as stack:
        stack.callback(server.program.wait)
        stack.callback(server.program.kill)
        first, second, *_ = [stack.enter_context(Peer(server, f"p{number}")) for number in range(5)]
        waiting = [stack.enter_context(Peer(server)) for _ in range(20)]
        for _ in range(20):
            first.say("is anybody here?")
            second.read_until("p0: is anybody here?")
        waiting[-1].say("late")
        for peer in waiting[:-1]:
            peer.close()
        second.read_until("* late came")
        server.program.terminate()
        output, errors, status = finish(server.program)
    assert (errors, status) == ("", 0)
    assert int(output) <= 60  # 25 of them succeed


def test_many_short_lines_at_once_send_nobody_away_who_reads(server: Server, bob: Peer) -> None:
    with Peer(server) as peer:
        name = "\N{GRINNING FACE}" * 32  # 128 bytes in front of each line
        peer.sock.sendall(frame(name) + frame("y") * 3000)
        bob.read_until(f"* {name} came")
        assert {bob.read() for _ in range(3000)} == {f"{name}: y"}


def test_a_file_is_sent_whole(server: Server, ann: Peer, tmp_path: Path) -> None:
    file = tmp_path / "talk.txt"
    file.write_text("first\n\n" + "你" * 2000 + "\n" + "x" * 300_000 + "\nlast")
    with file.open() as typed:
        program = start("join", "bob", "--port", str(server.port), stdin=typed.fileno())
        texts = ann.read_until("* bob left")
        assert finish(program)[1:] == ("", 0)
    said = [text.removeprefix("bob: ") for text in texts if text.startswith("bob: ")]
    assert (said[0], said[-1]) == ("first", "last")
    assert "".join(said[1:4]) == "你" * 2000
    assert "".join(said[4:-1]) == "x" * 300_000


def test_nothing_steers_the_terminal(server: Server, bob: Peer) -> None:
    with Peer(server) as peer:
        peer.sock.sendall(frame("car\x1b]0;ol\a") + frame("\x1b[2Jhello\n\u202e"))
        assert bob.read_until("car\ufffd]0;ol\ufffd: \ufffd[2Jhello\ufffd\ufffd")


def test_the_list_at_its_end_leads_somewhere() -> None:
    source = CHAT.read_text()
    places = re.findall(r"\b(?:chat|transports|docs)/[\w/-]+\.\w+", source.partition("# What it lacks")[2])
    assert len(places) >= 10
    assert [place for place in places if not (ROOT / place).is_file()] == []
    assert source.count("\n") < 220
