"""What the lessons share: their command line, and how they print what they run and what they see.

Nothing in this file is part of a lesson.
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

if not sys.executable:  # started by a bare name without PATH: children could not be started
    sys.executable = shutil.which("python3", path=os.defpath) or str(Path("/proc/self/exe").readlink())
    multiprocessing.set_executable(sys.executable)

if multiprocessing.current_process().name != "MainProcess":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a child needs no traceback at Ctrl-C, either

Context: TypeAlias = ForkContext | SpawnContext | ForkServerContext

A_MOMENT: Final = 0.5  # seconds for which we watch something hang
ENOUGH: Final = 60.0  # seconds for what ends by itself, even on a busy machine
MEBIBYTE: Final = 1024 * 1024  # bytes; more than any pipe holds by default

RULE: Final = "-" * 32
INDENT: Final = "   "
PROGRAM: Final = re.compile(
    rf"(.*?)^{RULE} the smallest program\n(.*?)^{RULE} what it prints\n(.*?)^{RULE}\n(.*)", re.DOTALL | re.MULTILINE
)


class Opening(NamedTuple):
    """How a lesson's docstring begins."""

    title: str
    before: str  # paragraphs
    program: str  # Python
    prints: str
    after: str  # paragraphs


def opening(doc: str) -> Opening:
    """Take a lesson's docstring apart. What follows "How to run it" is for readers of the file only."""
    title, _, rest = doc.partition("\n")
    found = PROGRAM.fullmatch(rest.partition("\nHow to run it\n")[0] + "\n")
    assert found, "the docstring has no smallest program"
    return Opening(title, *found.groups())


def run(program: str) -> tuple[str, int]:
    """Run a program from a file of its own, since spawn wants one. Return what it printed, and its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "smallest.py")
        file.write_text(program, encoding="utf-8")
        command = [sys.executable, str(file)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=ENOUGH, check=False)
    return done.stdout, done.returncode


def columns() -> int:
    """Return the columns to fill."""
    return min(shutil.get_terminal_size().columns, 100) - 1


def fill(text: str) -> str:
    """Break paragraphs for this terminal. Drawings and lists, which are indented or numbered, stay as they are."""
    paragraphs = []
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        if paragraph[:1].isspace():
            paragraphs.append(textwrap.indent(paragraph, INDENT))
        else:
            paragraphs.append(
                textwrap.fill(
                    paragraph, columns(), initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
                )
            )
    return "\n\n".join(paragraphs)


def broken(line: str) -> str:
    """Break a line of code for this terminal, so that what does not fit stands to the right of where it began."""
    bar = f"{INDENT}| "
    further = bar + " " * (len(line) - len(line.lstrip()) + 8)
    return textwrap.fill(
        line, columns(), initial_indent=bar, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def show(*functions: Callable[..., object]) -> None:
    """Print the code that runs next."""
    for function in functions:
        print()
        for line in textwrap.dedent(inspect.getsource(function)).rstrip().split("\n"):
            print(f"{INDENT}| {line}" if len(line) < columns() - 4 else broken(line))
    print(flush=True)


def seen(kind: str, sentence: str, true: bool) -> None:
    """Print an observation; end the lesson if it is not true."""
    if not true:
        sys.exit(f"lesson: not so on this machine: {sentence}")
    label = f"{INDENT}{kind:8} "
    print(textwrap.fill(sentence, columns(), initial_indent=label, subsequent_indent=" " * len(label)), flush=True)


def begin(doc: str) -> None:
    """Print how the lesson opens; run its smallest program."""
    title, before, program, prints, after = opening(doc)
    print(f"{title}\n\n{fill(before)}\n\n{RULE} the smallest program\n{program}{RULE} what it prints", flush=True)
    printed, status = run(program)
    print(f"{printed}{RULE}\n", flush=True)
    if (printed, status) != (prints, 0):
        sys.exit(f"lesson: not so on this machine: the smallest program should print {prints!r} and exit with 0")
    print(fill(after), flush=True)


def tell(number: str, part: Callable[..., None], arguments: Iterable[object]) -> None:
    title, _, text = (inspect.getdoc(part) or "").partition("\n")
    print(f"\n{number}{title}\n\n{fill(text)}", flush=True)
    part(*arguments)


def quietly(program: Callable[[], int]) -> int:
    """Run a program; end it without a traceback at Ctrl-C, or when nobody reads what it prints (``| head``)."""
    try:
        return program()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            sys.stdout.flush()  # fails again if it was this pipe, since what could not be printed is still there
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its end
        return 1


def main(doc: str, first: Callable[..., None] | None, mistakes: dict[str, Callable[..., None]], *, starts: bool) -> int:
    """Run a lesson: all of it, or the one mistake that the command line names.

    ``first`` comes between the smallest program and the mistakes. With ``starts``, the command line may say how
    processes are started, and each part is called with that context of multiprocessing.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    parser.add_argument("mistake", nargs="?", choices=mistakes, metavar="MISTAKE", help=", ".join(mistakes))
    if starts:
        parser.add_argument(
            "--start",
            choices=("spawn", "fork", "forkserver"),
            default="spawn",
            help="how processes are started (spawn)",
        )
    chosen = parser.parse_args()
    arguments: list[Any] = [multiprocessing.get_context(chosen.start)] if starts else []

    def lesson() -> int:
        if chosen.mistake is None:
            begin(doc)
            if first is not None:
                tell("", first, arguments)
        for number, (name, mistake) in enumerate(mistakes.items(), 1):
            if chosen.mistake in (None, name):
                tell(f"{number}. {name}: ", mistake, arguments)
        return 0

    return quietly(lesson)
