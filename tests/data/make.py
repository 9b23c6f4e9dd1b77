#!/usr/bin/env python3
"""Make the data folders that test_old_data opens: ``tests/data/make.py CHAT FOLDER``, with CHAT the program to run.

It holds one conversation by real commands, on pseudo-terminals, in an empty home. FOLDER then has
``ann`` (the host's data folder), ``bob`` (a guest's), ``config.toml`` and ``transcript.txt``.
"""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyte

from chat.host.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30  # seconds
NOT_DATA = ("*.lock", "lock", "host.log")  # an empty file each, or of a host with a window


class Maker:
    """The commands, and the folders in which they run."""

    def __init__(self, chat: Path, top: Path) -> None:
        self._chat = str(chat)
        self.top = top
        self.transcript: list[str] = []
        self.environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb", "HOME": str(top / "home")}
        for name in ("CONFIG", "DATA", "STATE", "CACHE"):
            self.environment[f"XDG_{name}_HOME"] = str(top / name.lower())
        self.environment["XDG_RUNTIME_DIR"] = str(top / "run")
        for folder in ("home", "run", "config", "data", "state", "cache"):
            (top / folder).mkdir(mode=0o700)

    def run(self, who: str, *arguments: str, stdin: str = "") -> str:
        """Run a command to its end, and return what it printed."""
        environment = {**self.environment, "CHAT_DATA": str(self.top / who)}
        command = [self._chat, *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", env=environment, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise SystemExit(f"{command} failed: {done.stderr}")
        return done.stdout

    def open(self, who: str, *arguments: str, term: str = "dumb") -> Window:
        environment = {**self.environment, "CHAT_DATA": str(self.top / who), "TERM": term}
        return Window([self._chat, *arguments], environment)


class Window:
    """A running command on a pseudo-terminal."""

    def __init__(self, command: list[str], environment: dict[str, str], *, echo: bool = False) -> None:
        self._fd, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        mode = termios.tcgetattr(theirs)
        mode[3] = mode[3] | termios.ECHO if echo else mode[3] & ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._written = ""
        self._bytes = b""
        self._read_to = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        os.close(self._fd)

    def type(self, line: str, end: str = "\n") -> None:
        os.write(self._fd, f"{line}{end}".encode())

    def until(self, text: str) -> str:
        """Wait for ``text`` in what it writes from now on; return the line in which it stands."""
        end = time.monotonic() + PATIENCE
        while True:
            self._written = self._bytes.decode(errors="ignore")
            at = self._written.find(text, self._read_to)
            stop = self._written.find("\n", at)
            if at >= 0 and stop >= 0:
                self._read_to = stop
                return self._written[self._written.rfind("\n", 0, at) + 1 : stop].rstrip("\r")
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} did not come; there was {self._written[-2000:]!r}")
            self.read(0.1)

    def screen(self) -> list[str]:
        """Return the rows of the screen, as far as they have been read."""
        screen = pyte.Screen(120, 40)
        pyte.Stream(screen).feed(self._bytes.decode(errors="ignore"))
        return screen.display

    def shows(self, text: str) -> None:
        """Wait until ``text`` stands on the screen."""

        def is_shown() -> bool:
            self.read(0.1)
            return any(text in row for row in self.screen())

        wait_for(is_shown, text)

    def read(self, seconds: float) -> None:
        if select.select([self._fd], [], [], seconds)[0]:
            with suppress(OSError):  # EIO: it has ended
                self._bytes += os.read(self._fd, 65536)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def leave(self) -> None:
        self.type("/quit")
        while self.process.poll() is None:
            self.read(0.1)


def wait_for(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"it never came to this: {what}")
        time.sleep(0.01)


def outbox_holds(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.glob("outboxes/*/*.outbox"))


def host(maker: Maker, *options: str) -> tuple[Window, str]:
    """Return a headless host, and its address over TCP."""
    window = maker.open(
        "ann", "host", "lobby", "--headless", "--json", "--invite-only", "-tqueue", "-ttcp:127.0.0.1:0", *options
    )
    address: str = json.loads(window.until('"transport":"tcp"'))["address"]
    return window, f"{address}/lobby"


def talk(maker: Maker) -> None:
    """Everything up to the first end of the host."""
    window, address = host(maker, "--peer", "greeter=echo hello from a program")
    with window:
        wait_for(lambda: "hello from a program" in maker.run("ann", "log", "lobby"), "the program's greeting")
        spent, open_, short = (
            maker.run("ann", "invite", "new", "lobby", *options).strip()
            for options in (("--uses=1",), ("--uses=2",), ("--hours=1",))
        )
        maker.transcript += [f"spent: {spent}", f"open: {open_}", f"short: {short}"]
        with maker.open("ann", "join", "lobby", "--as=ann") as ann, maker.open("bob", "join", spent, "--as=bob") as bob:

            def said(window: Window, line: str, shown: str, other: Window) -> str:
                window.type(line)
                told = other.until(shown)
                if other is not window:
                    window.until(shown)
                maker.transcript.append(told)
                return re.search(r"#\d+\Z", told)[0]  # type: ignore[index]

            ann.until("here: ")
            bob.until("here: ")
            first = said(ann, "大家好，明天下午三点在图书馆见。", "图书馆", bob)
            said(ann, "family 👩‍👩‍👧‍👦, flag 🇨🇳, party 🎉", "party", bob)
            said(ann, "/me waves", "waves", bob)
            said(bob, f"/reply {first} 好的，我带茶 🍵", "我带茶", ann)
            meeting = said(ann, "we meet at 3", "we meet at 3", bob)
            said(ann, f"/edit {meeting} we meet at 4", "we meet at 4", bob)
            slip = said(bob, "a slip of bob's", "a slip", ann)
            said(bob, f"/retract {slip}", "takes back", ann)
            said(bob, f"/react {meeting} 👍", "👍", ann)
            said(bob, "/msg ann 只有你看得见", "看得见", bob)
            said(ann, "/msg bob 知道了", "知道了", ann)
            ann.type("/room lobby")
            bob.leave()
            ann.leave()
        invite = maker.run("ann", "invite", "new", "lobby").strip()  # the second name has a key of its own
        maker.run("bob", "send", invite, "a second name of bob's", "--as=小北")
        maker.run("ann", "send", "lobby", "--as=ann", stdin="\x1b[31mred\x1b[0m \u202eback\n\tsecond line")
        with maker.open("ann", "join", "lobby", "--as=ann", "--json") as ann:
            ann.until('"joined"')
            ann.type("\n".join(json.dumps({"say": f"row {number}"}) for number in range(1, 6)))
            ann.until("row 5")
        with maker.open("bob", "join", address, "--as=bob", term="xterm-256color") as bob:
            bob.shows("row 5")
            bob.type("bob has read this far", "\r")
            bob.shows("this far ✓")
            bob.type("\x04", "")
            while bob.process.poll() is None:
                bob.read(0.1)
        maker.run("ann", "send", "lobby", "bob has not read this", "--as=ann")
        window.kill(signal.SIGTERM)


def interrupt(maker: Maker) -> None:
    """One message that is stored and was never confirmed, and one that no host has seen."""
    window, address = host(maker)
    with window:
        with maker.open("ann", "join", "lobby", "--as=ann", "--json") as ann:
            ann.until('"joined"')
            window.process.send_signal(signal.SIGSTOP)
            ann.type(json.dumps({"say": "stored, and ann never knew", "id": "unconfirmed"}))
            wait_for(lambda: outbox_holds(maker.top / "ann", "ann never knew"), "ann's outbox")
            ann.kill()
        window.process.send_signal(signal.SIGCONT)
        wait_for(lambda: "ann never knew" in maker.run("ann", "log", "lobby"), "a message from the killed window")
        with maker.open("bob", "join", address, "--as=bob", "--json") as bob:
            bob.until('"joined"')
            window.kill()
            bob.until('"lost"')
            bob.type(json.dumps({"say": "said while the host was away", "id": "waiting"}))
            wait_for(lambda: outbox_holds(maker.top / "bob", "host was away"), "bob's outbox")
            bob.kill()
    window, _address = host(maker)  # once more, to close the database in order
    with window:
        maker.run("ann", "search", "lobby", "图书馆")  # fills the index
        maker.transcript += maker.run("ann", "log", "lobby", "--json").splitlines()
        window.kill(signal.SIGTERM)


def finish(maker: Maker) -> None:
    """Date the invite for an hour back by a day, and leave each database in one file."""
    for folder in (maker.top / "ann").glob("rooms/*"):
        with closing(Store(folder)) as store:
            room = store.open_room("lobby")
            for key, expires, counted in room.tables.invites:
                if expires:
                    uses = store.uses_left(room.id, key) if counted else -1
                    store.add_invite(room.id, key, expires - 86400000, uses)
    for database in (maker.top / "ann").glob("rooms/*/*.db"):
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> None:
    chat, folder = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        maker = Maker(chat, Path(name))
        for who in ("ann", "bob"):
            (maker.top / who).mkdir(mode=0o700)
            maker.transcript.append(f"{who}: {maker.run(who, 'id').strip()}")
        config = Path(maker.run("ann", "config", "path").strip())
        for setting, value in (("theme", "high-contrast"), ("time_format", "%H.%M"), ("muted", '["lobby"]')):
            maker.run("ann", "config", "set", setting, value)
        talk(maker)
        interrupt(maker)
        finish(maker)
        for who in ("ann", "bob"):
            shutil.copytree(maker.top / who, folder / who, ignore=shutil.ignore_patterns(*NOT_DATA))
        shutil.copy(config, folder / "config.toml")
        (folder / "transcript.txt").write_text("\n".join(maker.transcript) + "\n", "utf-8")


if __name__ == "__main__":
    main()
