"""How soon a key is on the screen: a real ``chat join`` on a terminal of 80x24, in a room of 100,000 messages.

    scripts/bench --face [--rounds N] [--seconds S] [--folder DIRECTORY]

The host is a real one, headless, over its queue, and puts every message on the disk (fsync). Four members in a process
of their own fill the room and speak; one message in 20 is Chinese, and some are code, lists, emoji or long. In each
round a face starts, keys are pressed while nobody speaks, the face scrolls up as far as it goes, and keys are pressed
while the four say 1,000 messages a second, one by one.

Rules:

1. A key's time is from the write to the terminal until the read that brings its character. Keys are Greek and Cyrillic
   letters: no message, no name, no word of ours and no control sequence has one. None is pressed while it is on the
   screen, nor where it stood on the line before: what does not change is not written.
2. Keys come one at a time, at irregular intervals, so that they meet every moment between two redraws. Whatever the
   face writes is read at once, as a terminal does, and what it means is looked at only afterwards, by pyte.
3. The start is from the making of the process until the read after which the screen has the input line and the newest
   message. Python by itself, and with prompt_toolkit imported, are started beside it in the same round. All find their
   modules compiled, as whoever has installed them does.
4. The clock counts what else the machine does; processor time, which stands beside it, hardly does. Where others work
   on the machine, ``chrt --rr 1 scripts/bench --face`` (as root) has all of this served before them.
"""

from __future__ import annotations

import multiprocessing
import os
import pty
import random
import re
import select
import socket
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.wire import Kind, encode
from scripts.bench import cpu_seconds
from scripts.bench_parts.hosts import ROOM, ROOT, peak, queue_host
from scripts.bench_parts.load import BEAT_EVERY, PATIENCE
from scripts.bench_parts.wires import Broken, ChatWire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.connection import Connection

MESSAGES: Final = 100_000  # in the room when the first face starts
RATE: Final = 1000  # messages a second
SPEAKERS: Final = 4
KEYS: Final = ("αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзийклмнопрстуфхцч")  # one line of each, by turns
PAUSE: Final = (0.02, 0.08)  # seconds between a key's echo and the next key
COLUMNS: Final = 80
ROWS: Final = 24
GOALS: Final = "goals: p50 16 ms and p99 50 ms while 1,000 messages a second come; first screen in 500 ms"
_KILL_LINE: Final = b"\x15"  # Ctrl-U
_REDRAW: Final = b"\x0c"  # Ctrl-L
_TOP: Final = b"\x1b[1;5H"  # Ctrl-Home
_BOTTOM: Final = b"\x1b[1;5F"  # Ctrl-End
_LEAVE: Final = b"\x03\x03\x03"  # Ctrl-C: the first one may only clear the input, and one asks
_SILENCE: Final = 0.2  # seconds without output after which a screen is taken to be whole
_CHANGES: Final = frozenset({"COLORTERM", "NO_COLOR", "PYTHONDONTWRITEBYTECODE"})  # of how a face looks, or starts
_STARTS_LIKE: Final = {"python -c pass": "pass", "python -c 'import prompt_toolkit'": "import prompt_toolkit"}
_fork: Final = multiprocessing.get_context("fork")  # by name: from 3.14 on it is no longer the default


class Keys(NamedTuple):
    """The keys of one round, with or without a flood."""

    times: list[float]  # seconds
    face_cpu: float  # share of one core
    host_cpu: float
    rate: float  # messages a second that came meanwhile


class Round(NamedTuple):
    start: tuple[float, float]  # seconds, and seconds of processor time
    quiet: Keys
    flood: Keys
    depth: int  # messages above the newest one to which it scrolled
    peaks: tuple[int, int, int]  # bytes at most, so far: when it had started, scrolled up, and heard the flood


# -- what is said -------------------------------------------------------------------------------------

_WORDS: Final = (
    *("the", "log", "is", "read", "from", "here", "on", "and", "a", "member", "that", "stalls", "gets", "its", "gap"),
    *("told", "while", "others", "go", "without", "waiting", "because", "nobody", "holds", "lock", "for", "long"),
)
_CHINESE: Final = ("今天的会议改到下午三点。", "请看一下这个补丁。谢谢。", "消息已经写到磁盘上了", "好的。我马上就来。")


def text_of(number: int) -> str:
    """Return what message ``number`` says: its number, and something of the kind that people say."""
    chosen = random.Random(number)
    words = " ".join(chosen.choices(_WORDS, k=chosen.randint(2, 16)))
    match number % 40:
        case 0 | 20:
            words = "".join(chosen.choices(_CHINESE, k=2))
        case 5:
            words += " 👍 🎉"
        case 10:
            words = f"this works:\n```python\nfor seq in range({number}):\n    print(log.read(seq))\n```"
        case 15:
            words = f"three things:\n- {words}\n- **{words}**\n- `{number:x}`"
        case 25:
            words = f"*{words}*, see https://example.org/{number:x}"
        case 30:
            words = " ".join([words] * 6)
    return f"#{number} {words}"


def speak(path: str, orders: Connection) -> None:
    """Be the members that speak, in a process of its own.

    An order is the first number, how many messages, and how many a second (0: as fast as the host takes them). The
    answer comes when the first of the members has the last message back: how many seconds it took to say all.
    """
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(SPEAKERS)]
    for sock in sockets:
        sock.settimeout(PATIENCE)
        sock.connect(path)
    ChatWire(ROOM).join(sockets)
    numbers, beat_at = [0] * SPEAKERS, 0.0
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    for sock in sockets:
        sock.setblocking(False)
        poll.register(sock, select.POLLIN)
    first = count = rate = said = 0
    began, took, end, tail = 0.0, 0.0, b"", b""
    orders.send(0.0)
    while True:
        now = time.perf_counter()
        due = min(count, int((now - began) * rate) + 1) if rate else count
        while said < due:
            who = said // 3 % SPEAKERS  # some messages in a row are one member's
            frame = encode(Kind.SAY, text_of(first + said).encode(), number=numbers[who] + 1)
            try:
                sockets[who].send(frame)
            except BlockingIOError:
                break
            numbers[who] += 1
            said += 1
            if said == count:
                took = time.perf_counter() - began
        if now >= beat_at:
            beat_at = now + BEAT_EVERY
            for sock in sockets:
                with suppress(BlockingIOError):
                    sock.send(ChatWire.beat)
        for fd, _events in poll.poll(1 if said < count else 1000):
            if fd == orders.fileno():
                first, count, rate = orders.recv()
                if not count:
                    return
                began, said, end = time.perf_counter(), 0, f"#{first + count - 1} ".encode()
                continue
            sock = next(sock for sock in sockets if sock.fileno() == fd)
            data = sock.recv(256 * 1024)
            if not data:
                return  # and whoever waits for an answer gets the end
            if sock is sockets[0] and end:
                tail = tail[-len(end) :] + data
                if end in tail:
                    orders.send(took)
                    end = b""


class Speakers:
    """The process of those who speak, and the number of what they said last."""

    def __init__(self, path: str) -> None:
        self.said = 0
        self._orders, theirs = _fork.Pipe()
        self._process = _fork.Process(target=speak, args=(path, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.wait()

    def begin(self, count: int, rate: int = 0) -> None:
        """Have them say so many messages, so many a second."""
        self._orders.send((self.said + 1, count, rate))
        self.said += count

    @property
    def silent(self) -> bool:
        """Whether all was said, and has come back."""
        return self._orders.poll()

    def wait(self) -> float:
        """Wait until all was said, and has come back; return how many seconds it took to say it. Raises Broken."""
        try:
            if self._orders.poll(10 * PATIENCE):
                took: float = self._orders.recv()
                return took
        except EOFError:
            pass
        raise Broken("those who speak have lost the host, or were not heard")

    def close(self) -> None:
        self._orders.send((0, 0, 0))
        self._process.join()


# -- the face -----------------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal of its own, and all that it has written and nobody has looked at."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        try:
            import pyte  # one of the tools for the tests, which need not be here
        except ImportError:
            raise Broken("pyte, which reads the screens, is not installed; try: .venv/bin/pip install pyte") from None
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._draws = pyte.ByteStream(self._screen)
        self._fd, theirs = pty.openpty()
        termios.tcsetwinsize(self._fd, (ROWS, COLUMNS))
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._written: list[tuple[float, bytes]] = []

    def close(self) -> None:
        """Have it leave, as people do."""
        self.type(_LEAVE)
        while self._read(PATIENCE):
            pass
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def _read(self, seconds: float) -> bytes:
        """Return what it writes within so many seconds, b"" where that is nothing."""
        if not select.select([self._fd], [], [], max(0.0, seconds))[0]:
            return b""
        try:
            data = os.read(self._fd, 64 * 1024)
        except OSError:  # EIO: it has left
            return b""
        self._written.append((time.perf_counter(), data))
        return data

    def press(self, letter: str) -> float:
        """Press a key; return the seconds until its letter comes. Raises Broken."""
        key, tail = letter.encode(), b""
        began = time.perf_counter()
        os.write(self._fd, key)
        while key not in tail:
            data = self._read(PATIENCE)
            if not data:
                raise Broken(f"the face did not show a key within {PATIENCE:g} s")
            tail = tail[-len(key) :] + data
        return self._written[-1][0] - began

    def read_for(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self._read(left)

    def forget(self) -> None:
        """Throw away what was written: ``screen`` cannot tell any more, until the face has drawn all of it anew."""
        self._written.clear()

    def redrawn(self) -> str:
        """Have it draw all of its screen anew; return it."""
        self.forget()
        self._screen.reset()
        self.type(_REDRAW)
        return self.screen()

    def screen(self) -> str:
        """Return the screen once it is whole."""
        while self._read(_SILENCE):
            pass
        for _at, data in self._written:
            self._draws.feed(data)
        self._written.clear()
        return "\n".join(row.rstrip() for row in self._screen.display)

    def first_screen(self, pattern: str) -> float:
        """Wait for a screen with this; return the seconds from the start until it was there. Raises Broken."""
        wanted = re.compile(pattern, re.MULTILINE)
        while self._read(PATIENCE):
            while self._read(_SILENCE):
                pass
            for at, data in self._written:
                self._draws.feed(data)
                if wanted.search("\n".join(self._screen.display)):
                    self._written.clear()
                    return at - self._began
            self._written.clear()
        raise Broken(f"the face did not show its first screen, but:\n{self.screen()}")


def press_keys(face: Terminal, seconds: float, host: int, speakers: Speakers | None = None) -> Keys:
    """Press keys for so many seconds, with a flood where there are ``speakers``. Raises Broken."""
    pauses = random.Random(MESSAGES)
    times, said = [], round(RATE * seconds) if speakers else 0
    if speakers:
        speakers.begin(said, RATE)
    before = cpu_seconds(face.process.pid), cpu_seconds(host)
    began, took = time.perf_counter(), seconds
    for letter in cycle("".join(KEYS)):
        if any(letter == line[0] for line in KEYS):
            face.type(_KILL_LINE)
        face.read_for(pauses.uniform(*PAUSE))
        if speakers.silent if speakers else time.perf_counter() - began > seconds:
            break
        times.append(face.press(letter))
        face.forget()
    passed = time.perf_counter() - began
    if speakers:
        took = speakers.wait()
    return Keys(
        times,
        (cpu_seconds(face.process.pid) - before[0]) / passed,
        (cpu_seconds(host) - before[1]) / passed,
        said / took,
    )


def scroll_up(face: Terminal) -> int:
    """Scroll up as far as it goes; return the number of the message that is there."""
    top = -1
    while True:
        face.type(_TOP)
        found = re.search(r"#(\d+) ", face.screen())
        if found is None:
            raise Broken(f"no message is in view at the top, but:\n{face.screen()}")
        if int(found[1]) == top:
            return top
        top = int(found[1])


def _host(folder: Path) -> AbstractContextManager[tuple[int, str]]:
    return queue_host(folder, _environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    """No settings of whoever runs this, and compiled modules, which are kept in the folder."""
    kept = {name: value for name, value in os.environ.items() if name not in _CHANGES}
    return kept | {
        "CHAT_CONFIG": f"{folder}/none.toml",
        "CHAT_RUNTIME": f"{folder}/run",
        "PYTHONPYCACHEPREFIX": f"{folder}/compiled",
        "TERM": "xterm-256color",
    }


@contextmanager
def _face(folder: Path) -> Iterator[Terminal]:
    """Run a face that has its own key."""
    command = [sys.executable, "-m", "chat", "join", ROOM, "--as", "reader", "--data", f"{folder}/reader"]
    face = Terminal(command, _environment(folder))
    try:
        yield face
    finally:
        face.close()


def measure(folder: Path, host: int, speakers: Speakers, seconds: float) -> Round:
    """Raises Broken where the face does not show what it should."""
    with _face(folder) as face:
        pid = face.process.pid
        took = face.first_screen(rf"#{speakers.said} (?s:.*)^> ")
        start = took, cpu_seconds(pid)
        started = peak(pid)
        quiet = press_keys(face, seconds, host)
        face.redrawn()
        depth = speakers.said - scroll_up(face)
        scrolled = peak(pid)
        face.type(_BOTTOM)
        face.screen()
        flood = press_keys(face, seconds, host, speakers)
        if f"#{speakers.said} " not in (screen := face.redrawn()):
            raise Broken(f"the face does not show message {speakers.said}, which has come, but:\n{screen}")
        return Round(start, quiet, flood, depth, (started, scrolled, peak(pid)))


def start_of(code: str, folder: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor time, that Python takes to run this."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=_environment(folder))
    took, after = time.perf_counter() - began, os.times()
    return took, sum(after[2:4]) - sum(before[2:4])


# -- showing ------------------------------------------------------------------------------------------


def tables(rounds: int, seconds: float, data: Path) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Measure everything in every round; return a table of keys, one of starts, and lines of text. Raises Broken."""
    found: list[Round] = []
    starts: dict[str, list[tuple[float, float]]] = {name: [] for name in _STARTS_LIKE}
    with (
        tempfile.TemporaryDirectory(prefix="chat-bench-", dir=data) as name,
        _host(Path(name)) as (host, path),
    ):
        folder, speakers = Path(name), Speakers(path)
        print(f"filling the room with {MESSAGES:,} messages", file=sys.stderr)
        speakers.begin(MESSAGES)
        speakers.wait()
        with _face(folder) as face:  # has Python compile what it imports, and makes the key
            face.first_screen(r"^> ")
        for code in _STARTS_LIKE.values():
            start_of(code, folder)
        loads = [os.getloadavg()[0]]
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for what, code in _STARTS_LIKE.items():
                starts[what].append(start_of(code, folder))
            found.append(measure(folder, host, speakers, seconds))
            loads.append(os.getloadavg()[0])
        speakers.close()
    starts["chat join, first screen"] = [one.start for one in found]
    keys = [["key to screen", "p50 ms", "p99 ms", "max ms", "keys", "messages/s", "face CPU", "host CPU"]]
    keys.append(_key_row("nobody speaks", [one.quiet for one in found]))
    keys.append(_key_row("the flood", [one.flood for one in found]))
    began = [["start", "ms", "x python", "CPU ms"]]
    bare = median(took for took, _cpu in starts["python -c pass"])
    for what, each in starts.items():
        took, cpu = (median(part) for part in zip(*each, strict=True))
        began.append([what, f"{took * 1e3:.0f}", f"{took / bare:.1f}", f"{cpu * 1e3:.0f}"])
    peaks = [max(sizes) >> 20 for sizes in zip(*(one.peaks for one in found), strict=True)]
    depth = min(one.depth for one in found)
    memory = (
        f"the face's memory at most: {peaks[0]} MiB when started, {peaks[1]} MiB scrolled up by {depth:,} messages, "
        f"{peaks[2]} MiB after the flood"
    )
    return keys, began, [memory, f"{GOALS}; the machine's load was {min(loads):.1f} to {max(loads):.1f}"]


def _key_row(what: str, rounds: list[Keys]) -> list[str]:
    times = sorted(time for each in rounds for time in each.times)
    p99 = quantiles(times, n=100, method="inclusive")[98]
    figures = [f"{figure * 1e3:.1f}" for figure in (median(times), p99, times[-1])]
    rate = f"{median(each.rate for each in rounds):,.0f}" if any(each.rate for each in rounds) else "0"
    cpu = [f"{median(part):.0%}" for part in ([e.face_cpu for e in rounds], [e.host_cpu for e in rounds])]
    return [what, *figures, f"{len(times):,}", rate, *cpu]
