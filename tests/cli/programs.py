"""Real ``chat`` processes for tests: started, spoken to, waited for with a bound, and always ended."""

from __future__ import annotations

import io
import json
import os
import pty
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

from chat import i18n
from chat.cli import main
from chat.host import orphans
from tests.data.make import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

PATIENCE = 30  # seconds for anything that a program should do
CHAT = [sys.executable, "-P", "-W", "error", "-m", "chat"]


class Program:
    """A running ``chat`` command that speaks NDJSON, in its user's own folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would stop the program
        self.process = subprocess.Popen(
            [*CHAT, *arguments, f"--data={folder}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        self.seen: list[dict[str, Any]] = []  # every event so far, also those that were waited past
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self._complaints):
            assert stream is not None
            stream.close()

    def until(self, event: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Return the next event of this name for which ``wanted`` holds."""
        while True:
            line = self._lines.get(timeout=PATIENCE)
            assert line, f"ended before {event!r}; it said {self.errors()!r} after {self.seen[-3:]}"
            self.seen.append(json.loads(line))
            if self.seen[-1]["event"] == event and wanted(self.seen[-1]):
                return self.seen[-1]

    def line(self, text: str) -> str:
        """Return the next line with ``text`` in it, of a program that does not speak NDJSON."""
        while text not in (line := self._lines.get(timeout=PATIENCE)):
            assert line, f"ended before {text!r}; it said {self.errors()!r}"
        return line

    def say(self, text: str, name: str = "") -> None:
        self.write(json.dumps({"say": text, "id": name} if name else {"say": text}))

    def write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def finish(self) -> int:
        """End its input; return its exit code once it has left and all it printed has been seen."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while line := self._lines.get(timeout=PATIENCE):
            self.seen.append(json.loads(line))
        return code

    def errors(self) -> str:
        self.process.kill()
        self.process.wait()
        self._complaints.seek(0)
        return self._complaints.read().decode()

    def told(self) -> str:
        """What it has written to standard error so far."""
        return os.pread(self._complaints.fileno(), 1 << 20, 0).decode()

    def texts(self) -> list[str]:
        return [event["text"] for event in self.seen if event["event"] == "message"]


def until(holds: Callable[[], object], what: str) -> None:
    """Wait, with a bound, for something between processes that makes no event."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"it never came to this: {what}"
        time.sleep(0.01)


@contextmanager
def host(folder: Path, *options: str) -> Iterator[Program]:
    """A headless host that listens, its announcement in ``seen[0]``."""
    with Program(folder, "host", "--headless", "--json", *options) as program:
        program.until("listening")
        yield program


def run(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return _run(folder, arguments, environment, input=stdin)


def run_here(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As ``run`` without input, in this process: for what a command says that needs no streams or room of its own.

    A process takes 0.15 s of a processor, nearly all of it to import chat once more. Only a host has one here, too:
    it would make this process adopt orphans for good.
    """
    return (run if "host" in arguments else run_in_process)(folder, *arguments, **environment)


def run_in_process(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As ``run_here``, also for a host, which must end before it is one."""
    folder.mkdir(mode=0o700, exist_ok=True)
    umask = os.umask(0o077)
    try:
        with (
            patch.dict(os.environ, {"CHAT_DATA": str(folder), **environment}),
            patch.object(sys, "argv", ["chat", *arguments]),
            patch.object(main, "chat", deepcopy(main.chat)),  # its help is translated in place
            patch.object(orphans, "_prctl", None),  # or all that later tests leave behind would be this process's
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO())),
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            code = main._exit_code()
    finally:
        os.umask(umask)
        i18n.use("en")
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def type_into(folder: Path, *arguments: str, typed: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its input typed at a terminal, where it may be commands."""
    with terminal(typed) as theirs:
        return _run(folder, arguments, {}, stdin=theirs)


def window(folder: Path, *arguments: str, term: str = "dumb", echo: bool = False) -> Window:
    """A command at a terminal of its own."""
    folder.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "TERM": term, "LC_ALL": "C.UTF-8"}
    return Window([*CHAT, *arguments, f"--data={folder}"], environment, echo=echo)


@contextmanager
def terminal(typed: str) -> Iterator[int]:
    """A terminal at which this was typed, and then Ctrl+D."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, os.fsencode(typed) + b"\x04")
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def _run(
    folder: Path, arguments: tuple[str, ...], environment: dict[str, str], **more: Any
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [*CHAT, *arguments],
        **more,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "CHAT_DATA": str(folder), **environment},
    )
