"""The code blocks of README and docs, run from the top of a page to its end as a reader would: each in a terminal.

A page has a home of its own. Lines of ``sh`` run in bash. A command that stays (``chat host``, ``chat join``, …) keeps
its terminal, and the next line runs in another one as soon as it is ready; a second ``chat host`` ends the first.
A ``text`` block shows what must be in the page's terminals by then, or, if each of its lines begins with a slash, what
is typed in the last one. ``json`` is typed into a ``--json`` program, or is from one: a real one must have its fields.
``python`` runs; ``toml`` and ``ini`` are parsed. Parts that scripts/docs generates are not run: it makes them anew.

A comment before a block, which readers do not see, says what else is needed:

    <!-- not run: REASON -->
    <!-- run
    chat host --headless            a line of shell that runs before the block
    file: dice.py                   the block becomes this file, and does not run; lines that follow run after that
    add: chat.py                    … or is added at the end of this file
    after TEXT: chat.py             … or below (before TEXT: above) its first line with TEXT
    same chat.py: scripts/lessons/chat.py   the file is now the same program as that one
    in: tests/plugin/test_toy.py    the block does not run: it is a part of this file
    as TEXT: OTHER                  in the block, TEXT is read as OTHER
    answer TEXT: LINE               when a command of the block asks TEXT, this is typed
    needs: cc                       the rest of the page does not run where this program is not installed
    exit: 1                         the exit code of the block, if it is not 0
    type 2: hello                   typed into the page's second terminal, with Enter (without: ^C^C)
    shows 2: hello                  waits until that terminal shows it
    -->

The pages have a name and a port that are not ours to use: chat.example.org is read as 127.0.0.1, and
7711 as a free one.
"""

from __future__ import annotations

import ast
import configparser
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tomllib
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pyte

from chat.local import rooms
from tests.project.forker import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.project.forker import Forker

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 30  # seconds for whatever a block should do
BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<how>run|not run:)\s(?P<note>.*?)\s*-->\n+)?^(?P<tick>`{3,})(?P<kind>\w*)\n(?P<text>.*?)^(?P=tick)$",
    re.DOTALL | re.MULTILINE,
)
PART: Final = re.compile(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", re.DOTALL)
WORD: Final = re.compile(r"(file|add|in|exit|needs|(?:as|answer|type|shows|before|after|same) .+?): (.*)")
STAYS: Final = re.compile(
    r"\bchat (--\w+ \w+ )?(host|join)\b(?!.*<<<)|^python3 (dice|echo)\.py|\bchat\.py (serve|join)\b|\bchat log\b.* -f\b"
)
SILENT: Final = re.compile(r"\||dice\.py|chat\.py join")  # what says nothing when it is ready
FACELESS: Final = re.compile(r"--(plain|json|headless)\b|\|(?!\|)")
FULL_SCREEN: Final = b"\x1b[?1049h"
ENDED: Final = {None, 0, 130, -signal.SIGINT}  # exit codes of what runs, is done, or was interrupted
PLAIN: Final = re.compile(r"(scripts/)?chat( [^\n$~|<>;&`*]*)?")  # for which no shell is needed
HOSTS: Final = re.compile(r"\bchat host\b")
CLOCK: Final = re.compile(r"\d\d:\d\d")


class Block(NamedTuple):
    line: int
    kind: str
    text: str
    reason: str  # why it does not run, or ""
    notes: list[str]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    text = PART.sub(lambda part: "\n" * part[0].count("\n"), text)
    for found in BLOCK.finditer(text):
        note = found["note"] or ""
        not_run = found["how"] == "not run:"
        line = text.count("\n", 0, found.start("tick")) + 1
        notes = [] if not_run else [one.strip() for one in note.splitlines() if one.strip()]
        yield Block(line, found["kind"], found["text"], note if not_run else "", notes)


# README.zh.md has the commands of README.md (test_docs.py).
PAGES: Final = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if any(one.kind for one in blocks(page))
]


def reasons() -> list[str]:
    """Return where a block does not run, and why."""
    return [
        f"{page.relative_to(ROOT)}:{one.line}: {one.reason}" for page in PAGES for one in blocks(page) if one.reason
    ]


class Terminal:
    """A command of bash in a terminal of its own. One that needs no bash is forked."""

    def __init__(
        self, command: str, folder: Path, environment: dict[str, str], forker: Forker, rows: int = 200
    ) -> None:
        self.command, self.output, self.closed = command, b"", False
        self._screen = pyte.Screen(120, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._drawn, self._text = 0, ""
        self._fd, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, 120))
        self.process: Forked | subprocess.Popen[bytes]
        if PLAIN.fullmatch(command):
            words = shlex.split(command, comments=True)[1:]
            self.process = Forked(forker, words, folder, environment, theirs)
        else:
            self.process = subprocess.Popen(
                ["bash", "-euc", command],
                cwd=folder,
                env=environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other end any more
            while read := os.read(self._fd, 65536):
                self.output += read

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def screen(self) -> str:
        if self._drawn < (end := len(self.output)):
            self._stream.feed(self.output[self._drawn : end])
            self._drawn = end
            self._text = "\n".join(row.rstrip() for row in self._screen.display).rstrip()
        return self._text

    def finish(self, answers: dict[str, str]) -> int:
        """Answer what it asks until it has ended; return its exit code."""
        left = list(answers.items())
        given = dict.fromkeys(answers, 0)

        def ended() -> bool:
            for asked, line in left:
                if self.output.count(asked.encode()) > given[asked]:
                    given[asked] += 1
                    self.type(f"{line}\n")
            return self.process.poll() is not None

        until(ended, self, "the end")
        self._reader.join(0.2)  # what it left in the background may keep the terminal
        return self.process.returncode or 0

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            until(lambda: self.process.poll() is not None, self, "the end")
        with suppress(ProcessLookupError):  # what it has left in the background may be stopped
            os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self._fd)


def until(holds: object, terminal: Terminal, what: str) -> None:
    assert callable(holds)
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{terminal.command}: not seen: {what}\n{terminal.screen()}"
        select.select([], [], [], 0.03)


class Page:
    """A page that is being run."""

    def __init__(self, page: Path, home: Path, forker: Forker) -> None:
        self.page, self.home, self.forker = page, home, forker
        self.folder = home / "work"
        self.open: list[Terminal] = []
        self.done: list[Terminal] = []
        self._make_folders()
        keep = ("XDG_RUNTIME_DIR", "CHAT_SHARED", "LC_ALL")
        self.environment = {name: os.environ[name] for name in keep if name in os.environ} | {
            "HOME": str(home),
            "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "VISUAL": "true",
            "ROOT": str(ROOT),
            "LOGNAME": "ann",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def _make_folders(self) -> None:
        for folder in (self.folder / "scripts", self.home / "bin"):
            folder.mkdir(parents=True)
        for name, options in (("chat", "-P -m chat"), ("python3", "")):
            program = self.home / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
            program.chmod(0o755)
        (self.folder / "scripts/chat").symlink_to(self.home / "bin/chat")
        (self.folder / "scripts/lessons").symlink_to(ROOT / "scripts/lessons")

    def run(self, block: Block) -> bool:
        """Run a block; return whether those that follow can run."""
        text = self.with_our_port(block.text)
        answers: dict[str, str] = {}
        code, runs, kind = 0, True, block.kind
        for note in map(self.with_our_port, block.notes):
            word = WORD.fullmatch(note)
            verb, _, which = word[1].partition(" ") if word else ("", "", "")
            value = word[2] if word else ""
            match verb:
                case "":
                    self.shell(note, {}, 0)
                case "needs":
                    if not shutil.which(value):
                        return False
                case "file":
                    (self.folder / value).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / value).write_text(text, "utf-8")
                    runs = False
                case "add" | "before" | "after":
                    self.insert(self.folder / value, text, verb, which)
                    runs, kind = False, ""  # it need not be Python by itself
                case "same":
                    built, kept = (self.folder / which).read_text("utf-8"), (ROOT / value).read_text("utf-8")
                    assert code_of(built) == code_of(self.with_our_port(kept)), f"{which} has not become {value}"
                case "in":
                    extra = set(text.splitlines()) - set((ROOT / value).read_text("utf-8").splitlines())
                    assert not extra, f"{value} does not have {extra}"
                    runs = False
                case "as":
                    assert which in text, f"no {which!r} in the block"
                    text = text.replace(which, value)
                case "answer":
                    answers[which] = value
                case "exit":
                    code = int(value)
                case "type":
                    self.type(self.open[int(which) - 1], value)
                case "shows":
                    self.shows(value, [self.open[int(which) - 1]])
        match kind:
            case "toml":
                tomllib.loads(text)
            case "ini":
                configparser.ConfigParser(interpolation=None).read_string(text)
            case "python":
                compile(text, str(self.page), "exec")
        if runs:
            self.run_text(kind, text, answers, code)
        return True

    def run_text(self, kind: str, text: str, answers: dict[str, str], code: int) -> None:
        match kind:
            case "sh":
                self.shell(text, answers, code)
            case "python":
                (self.folder / "block.py").write_text(text, "utf-8")
                self.shell("python3 block.py", answers, code)
            case "text" if all(re.match(r"/\w+( |$)", line) for line in text.splitlines()):
                for line in text.splitlines():
                    self.type(self.open[-1], line)
            case "text":
                self.shows(text, [*self.done[-2:], *self.open])
            case "json":
                self.json(text)

    def type(self, terminal: Terminal, text: str) -> None:
        """Type a line, and Enter only once it is seen: what comes all at once could be a paste, which is never sent."""
        terminal.type(text.replace("^C", "\x03"))
        if "^C" not in text:
            self.shows(text, [terminal])
            terminal.type("\r")

    def insert(self, file: Path, text: str, verb: str, at: str) -> None:
        lines = file.read_text("utf-8").splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if at in line]
        assert found, f"no line of {file.name} has {at!r}"
        where = {"before": found[0], "after": found[0] + 1, "add": len(lines)}[verb]
        file.write_text("".join([*lines[:where], text, *lines[where:]]), "utf-8")

    def with_our_port(self, text: str) -> str:
        return re.sub("7711|7722", self.port, text).replace("chat.example.org", "127.0.0.1")

    # -- shell ------------------------------------------------------------------------------------

    def shell(self, text: str, answers: dict[str, str], code: int) -> str:
        """Run lines; return what those that end have printed."""
        text = re.sub(r"(\bhost\b.* -t tcp)(?![:\w])", rf"\1::{self.port}", text)
        printed = []
        for line in lines(text):
            if STAYS.search(line):
                self.stay(line, answers)
                continue
            self.done.append(terminal := Terminal(line, self.folder, self.environment, self.forker))
            found = terminal.finish(answers)
            assert found == code, f"{line}: exit code {found}\n{terminal.screen()}"
            printed.append(terminal.screen())
        return "\n".join(printed)

    def stay(self, line: str, answers: dict[str, str]) -> None:
        if HOSTS.search(line):
            for terminal in self.open:
                if HOSTS.search(terminal.command):
                    self.close(terminal)
        self.open.append(terminal := Terminal(line, self.folder, self.environment, self.forker, rows=40))

        def ready() -> bool:
            for asked, answer in list(answers.items()):
                if asked.encode() in terminal.output:
                    terminal.type(f"{answer}\n")
                    del answers[asked]
            code = terminal.process.poll()
            assert code in ENDED, f"{line}: exit code {code}\n{terminal.screen()}"
            if HOSTS.search(line) and not rooms.records():
                return False
            if "join --json" in line and code is None:
                return b'"joined"' in terminal.output
            if re.search(r"\bchat (host|join)\b", line) and code is None and not FACELESS.search(line):
                return terminal.output.rfind(FULL_SCREEN) > terminal.output.rfind(
                    b"\x1b[?1049l"
                )  # before that, Enter would be another key
            if code == 0 or SILENT.search(line):
                return True
            return bool(terminal.output) and not terminal.screen().startswith("chat: ")  # or it is about to end

        until(ready, terminal, "that it is ready")

    def close(self, terminal: Terminal) -> None:
        terminal.close()
        for record in rooms.records() if HOSTS.search(terminal.command) else ():
            with suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)

    def end(self) -> None:
        """Close all; fail if one had ended by itself with an error."""
        wrong = [one for one in self.open if not one.closed and one.process.poll() not in ENDED]
        for terminal in [*reversed(self.open), *self.done]:
            self.close(terminal)
        for terminal in wrong:
            raise AssertionError(f"{terminal.command}: exit code {terminal.process.returncode}\n{terminal.screen()}")

    # -- what is shown ----------------------------------------------------------------------------

    def shows(self, text: str, where: list[Terminal]) -> None:
        for line in filter(None, text.splitlines()):
            wanted = pattern(line.replace("/home/ann", str(self.home)))
            until(lambda wanted=wanted: any(wanted.search(one.screen()) for one in where), where[-1], line)

    def json(self, text: str) -> None:
        """Type what is for a program; wait for the like of what is from one."""
        for line in text.splitlines():
            shown = json.loads(line)
            (program, *_) = [one for one in reversed(self.open) if re.search("(host|join) --json", one.command)]
            if "event" not in shown and ("say" in shown or "command" in shown):
                self.type(program, line)
            else:
                until(lambda shown=shown: any(is_like(one, shown) for one in self.objects()), program, line)

    def objects(self) -> Iterator[dict[str, object]]:
        """What the page's programs have printed as NDJSON so far."""
        for terminal in [*self.open, *self.done]:
            for line in terminal.output.decode(errors="ignore").splitlines():
                at = 0
                with suppress(ValueError):  # what is typed is echoed, and may stand before an object
                    while line.startswith("{", at):
                        found, at = json.JSONDecoder().raw_decode(line, at)
                        yield found


def is_like(real: dict[str, object], shown: dict[str, object]) -> bool:
    """Whether a real object has all fields of the one shown, and is of the same kind."""
    kind = [name for name in ("event", "command", "state", "kind") if name in shown and "event" in shown]
    return shown.keys() <= real.keys() and all(real[name] == shown[name] for name in kind)


def code_of(text: str) -> str:
    """What a program does: without its docstring, blank lines and comments."""
    tree = ast.parse(text)
    return ast.dump(ast.Module(tree.body[ast.get_docstring(tree) is not None :], []))


def lines(text: str) -> Iterator[str]:
    """Yield what one terminal runs: a command that stays or needs no shell, or all lines up to the next such one."""
    for alone, some in groupby(text.splitlines(), lambda line: bool(PLAIN.fullmatch(line) or STAYS.search(line))):
        together = list(some)
        yield from together if alone else ["\n".join(together)]


def pattern(line: str) -> re.Pattern[str]:
    """What a shown line means: any number for a number, any blanks and rules between words, … for anything."""
    words = [re.sub(r"\d+", r"\\d+", re.escape(word)) for word in line.split() if not CLOCK.fullmatch(word)]
    return re.compile(r"\W*".join(word.replace("…", ".*") for word in words))


if __name__ == "__main__":
    total = sum(bool(one.kind) for page in PAGES for one in blocks(page))
    print(f"{len(reasons())} of {total} blocks do not run:", *reasons(), sep="\n  ")
