"""``chat doctor``: what is wrong with this terminal and this machine, and how to fix it.

Rules:

1. One line per finding: what was found, and what to do. "fail": chat cannot work. "warn": it works in part.
2. Nothing is changed, but for a temporary file in chat's own folders.
3. Texts are translated; the names of levels and checks are not.
4. Nothing hangs: a check of a disk or a lock may take ``PATIENCE``, a terminal's answer ``_ANSWER``.
5. A check that breaks is a finding, too.
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import threading
import time
import tty
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from chat import i18n
from chat.cli import options
from chat.cli.help import command
from chat.core.errors import DONE, FAILED, ChatError, Text, reason
from chat.i18n import _, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Rows = Iterator[tuple[str, ...]]  # level, text, how to mend it, and a name if it is not that of the check

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
PATIENCE: Final = 5  # seconds for one check

_ANSWER: Final = 1  # seconds for a terminal, which may be at the end of a slow line
_LOW: Final = 100 << 20  # bytes free: warn while there is time
_NONE: Final = 1 << 20  # bytes free: SQLite cannot go on
_RELEASED: Final = 1_767_225_600  # 2026-01-01, in seconds since 1970: a clock that shows less is wrong
_SKEW: Final = 5  # seconds
_NETWORKED: Final = re.compile(r"nfs4?|cifs|smb3?|9p|afs|ceph|lustre|fuse\.(sshfs|glusterfs|s3fs|rclone)")
# Samples of what the full screen draws, and the columns it expects. The last is East Asian Ambiguous (UAX 11), which
# terminals can be set to draw wide.
_SAMPLES: Final = (("\u4e2d", 2), ("\U0001f600", 2), ("e\u0301", 1), ("\u2026", 1))


class Finding(NamedTuple):
    """One line of the report."""

    level: str
    check: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        message = _("{text}; {mend}").format(text=self.text, mend=self.mend) if self.mend else self.text
        return f"{self.level:<4}  {self.check:<10}  {message}"


@command()
@options.json
@options.lang
@options.data
def doctor(json: bool, data: Path | None) -> None:
    """Check this terminal and this machine, and say how to fix what is wrong.

    Exit code 1 if a check fails; warnings do not count.
    """
    from chat.core.text import visible
    from chat.ndjson import dump

    if json:
        i18n.use("en")  # what programs read is the same in every language
    worst = DONE
    for finding in examine(data):
        click.echo(dump(finding._asdict()) if json else visible(str(finding), lines=False))
        worst = FAILED if finding.level == FAIL else worst
    raise click.exceptions.Exit(worst)


def examine(data: Path | None = None) -> Iterator[Finding]:
    """Yield the findings, check by check. ``data`` is the data folder, if not the platform's."""
    from chat.local.private_files import data_folder

    folder = (data or data_folder()).absolute()
    # These touch no disk, and the last one must give the terminal back before anything else happens to us.
    terminal = {"terminal": _terminal, "locale": _locale, "tmux": _tmux, "drawing": _drawing}
    machine: dict[str, Callable[[], Rows]] = {
        "python": _python,
        "runtime": _runtime,
        "data": lambda: _data(folder),
        "disk": lambda: _disk(folder, _free(folder)),
        "identity": lambda: _identity(folder),
        "settings": _settings,
        "transports": _transports,
        "boards": _boards,
        "sockets": _sockets,
        "rooms": _rooms,
        "clock": lambda: _clock(time.time(), folder),
    }
    for name, check in terminal.items():
        yield from _tried(name, check)
    for name, check in machine.items():
        yield from _bounded(name, check)


def _tried(name: str, check: Callable[[], Rows]) -> list[Finding]:
    rows: list[tuple[str, ...]] = []
    try:
        rows.extend(check())
    except ChatError as error:
        rows.append((FAIL, *_parted(error)))
    except OSError as error:
        rows.append((FAIL, f"{error.filename or 'system'}: {translate(reason(error))}"))
    except Exception as error:
        rows.append((FAIL, Text("the check itself failed: {what}", what=f"{type(error).__name__}: {error}")))
    padded = [(*row, "", "")[:4] for row in rows]
    return [Finding(level, own or name, translate(text), translate(mend)) for level, text, mend, own in padded]


def _parted(error: ChatError) -> list[str]:
    """Return what is wrong and how to fix it."""
    return re.split("; |；", translate(error), maxsplit=1)  # noqa: RUF001 - Chinese has a semicolon of its own


def _bounded(name: str, check: Callable[[], Rows]) -> list[Finding]:
    """Run a check in a thread that may be left behind: waiting for a lock or a network's disk takes no timeout."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.extend(_tried(name, check)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        text = _("no answer within {seconds} s").format(seconds=PATIENCE)
        return [Finding(FAIL, name, text, _("is a disk gone, or a chat process stopped?"))]
    return found


# -- the terminal --------------------------------------------------------------------------------


def _terminal() -> Rows:
    term = os.environ.get("TERM", "")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield OK, Text("standard input or output is no terminal, so chat shows plain lines")
    elif term in {"", "dumb"}:
        text = Text("TERM is {term}, so chat shows plain lines", term=term or Text("not set"))
        yield WARN, text, Text("if it can do more, run: export TERM=xterm-256color")
    else:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        size = _("{term}, {columns} columns, {rows} rows, {colours}")
        size = size.format(term=term, columns=columns, rows=rows, colours=_colours(term))
        if columns == 0 or rows == 0:
            yield WARN, Text("{term} does not say its size", term=term), Text("run: stty columns 80 rows 24")
        elif columns < 40 or rows < 8:
            yield WARN, size, Text("make it at least 40 columns by 8 rows")
        else:
            yield OK, size


def _colours(term: str) -> str:
    if os.environ.get("NO_COLOR"):
        return _("no colours (NO_COLOR)")
    if os.environ.get("COLORTERM", "") in {"truecolor", "24bit"}:
        return _("16 million colours")
    return _("256 colours") if "256" in term or "direct" in term else _("16 colours")


def _locale() -> Rows:
    variable = next(filter(os.environ.get, ("LC_ALL", "LC_CTYPE")), "LANG")  # that decides
    name = os.environ.get(variable, "")
    if re.search(r"utf-?8", name, re.IGNORECASE):
        yield OK, name
    else:
        shown = name or Text("not set")
        text = Text("the locale is {locale}; chat still writes UTF-8, other programs may not", locale=shown)
        yield WARN, text, Text("run: export {variable}=C.UTF-8", variable=variable)


def _tmux() -> Rows:
    term = os.environ.get("TERM", "")
    for variable, program in (("TMUX", "tmux"), ("STY", "screen")):
        if not os.environ.get(variable):
            continue
        if not term.startswith(("tmux", "screen")):
            text = Text("TERM is {term} inside {program}", term=term or Text("not set"), program=program)
            yield WARN, text, Text("do not override TERM inside {program}", program=program), program
        elif program == "tmux" and (wait := _escape_time()) > 100:
            text = Text("it delays Escape and Alt+Enter by {count} ms", count=wait)
            yield WARN, text, Text("add to tmux.conf: set -s escape-time 20"), program
        else:
            yield OK, Text("chat runs inside {program}", program=program), "", program


def _escape_time() -> int:
    """Return how many milliseconds tmux waits after an Escape, 0 if it does not say."""
    import subprocess

    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            ["tmux", "show-options", "-sv", "escape-time"], capture_output=True, text=True, timeout=2, check=True
        )
        return int(done.stdout)
    return 0


def _drawing() -> Rows:
    """Ask the terminal for its cursor after each sample, and whether it marks pasted text."""
    fds = sys.stdin.fileno(), sys.stdout.fileno()
    if not all(map(os.isatty, fds)) or os.environ.get("TERM", "dumb") == "dumb":
        return
    with suppress(OSError):  # not our controlling terminal: it cannot stop us
        if os.tcgetpgrp(fds[0]) != os.getpgrp():
            return  # in the background: touching the terminal would stop us
    wrong = []
    with _quiet(*fds):
        paste = _ask(*fds, b"\x1b[?2004$p\x1b[6n")
        if not _column(paste):
            text = Text("the terminal did not report its cursor position within {seconds} s", seconds=_ANSWER)
            yield WARN, text, Text("the screen may be drawn wrong; try --plain")
            return
        for sample, wanted in _SAMPLES:
            drawn = _column(_ask(*fds, b"\r" + sample.encode() + b"\x1b[6n")) - 1
            if drawn not in {wanted, -1}:
                wide = _("{sample} (U+{code}) takes {drawn} columns, not {wanted}")
                code = f"{ord(sample[-1]):04X}"
                wrong.append(wide.format(sample=sample, code=code, drawn=drawn, wanted=wanted))
    if wrong:
        mend = Text("set ambiguous-width characters to narrow, update the terminal, or use --plain")
        yield WARN, ", ".join(wrong), mend
    else:
        yield OK, Text("wide characters, emoji and accents are as wide as chat expects")
    mode = re.search(rb"\x1b\[\?2004;(\d)\$y", paste)
    if mode and mode[1] == b"0":
        text = Text("the terminal lacks bracketed paste: a pasted line break acts as Enter")
        yield WARN, text, Text("send long texts with: chat send TARGET < FILE"), "paste"
    elif mode:
        yield OK, Text("the terminal marks pasted text, so pasting never sends anything"), "", "paste"


@contextmanager
def _quiet(fd: int, out: int) -> Iterator[None]:
    """Read each byte of the terminal at once, without echo, and wipe the line at the end."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcflush(fd, termios.TCIFLUSH)  # a late answer would be typed into the shell
        termios.tcsetattr(fd, termios.TCSANOW, before)
        os.write(out, b"\r\x1b[K")  # last: it may fail


def _ask(fd: int, out: int, question: bytes) -> bytes:
    """Write a question that ends in DSR 6; return what comes until it is answered, or the time is up."""
    os.write(out, question)
    answer = b""
    end = time.monotonic() + _ANSWER
    while not _column(answer) and select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
        data = os.read(fd, 1024)
        if not data:
            break
        answer += data
    return answer


def _column(answer: bytes) -> int:
    """Return the column, from 1, of a cursor position report (ECMA-48, CPR), 0 without one."""
    found = re.search(rb"\x1b\[\d+;(\d+)R", answer)
    return int(found[1]) if found else 0


# -- the machine ---------------------------------------------------------------------------------


def _python() -> Rows:
    version, path = ".".join(map(str, sys.version_info[:3])), sys.executable
    missing = []
    try:
        import sqlite3  # noqa: F401 - some Pythons are built without
    except ImportError:
        missing.append("sqlite3")
    try:
        import ssl

        missing += [] if ssl.HAS_TLSv1_3 else ["TLS 1.3"]
    except ImportError:
        missing.append("ssl")
    if missing:
        text = Text("{version} at {path} lacks {missing}", version=version, path=path, missing=", ".join(missing))
        yield FAIL, text, Text("use another Python, such as your system's")
    else:
        yield OK, Text("{version} at {path}", version=version, path=path)


def _runtime() -> Rows:
    import socket

    from chat.local import rooms

    folder = rooms.runtime_folder()
    yield from _folder("CHAT_RUNTIME", folder)
    place = folder / f".doctor-{os.getpid()}".ljust(30, "-")  # as long as a room's socket
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(place))
        except OSError as error:
            text = Text("cannot create a socket in {folder}: {reason}", folder=folder, reason=reason(error))
            yield FAIL, text, Text("set CHAT_RUNTIME to a short path on a local disk")
        finally:
            place.unlink(missing_ok=True)


def _data(folder: Path) -> Rows:
    from chat.local.private_files import make_private

    if folder.exists():
        yield from _folder("CHAT_DATA", make_private(folder))
    else:
        yield OK, Text("{folder} will be created on first use", folder=folder)


def _folder(variable: str, folder: Path) -> Rows:
    """Check a private folder: its kind of disk, and whether writing, locks and times work there."""
    import tempfile

    from chat.local.private_files import try_lock, unlock

    kind = filesystem(folder)
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
        file.write(b"chat doctor")
        file.flush()
        os.fsync(file.fileno())
        skew = os.fstat(file.fileno()).st_mtime - time.time()
        held = [fd for fd in (try_lock(Path(file.name)), try_lock(Path(file.name))) if fd is not None]
        for fd in held:
            unlock(fd)
    elsewhere = Text("set {variable} to a folder on a local disk", variable=variable)
    if len(held) != 1:
        text = _("file locks do not work in {folder} ({kind}): two programs can hold one at once")
        yield FAIL, text.format(folder=folder, kind=kind), elsewhere
    elif _NETWORKED.fullmatch(kind):
        text = _("{folder} is on {kind}, where file locks and SQLite are unreliable across machines")
        yield WARN, text.format(folder=folder, kind=kind), elsewhere
    elif abs(skew) > _SKEW:
        text = _("the disk of {folder} has a clock {seconds} s off this machine's")
        yield WARN, text.format(folder=folder, seconds=f"{skew:+.0f}"), Text("synchronize both with NTP")
    else:
        yield OK, Text("{folder} ({kind}) is private; writing and file locks work", folder=folder, kind=kind)


def filesystem(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return a folder's kind of file system, like "ext4" or "nfs4"; "unknown kind" unless on Linux.

    It is that of the last mount with the longest mount point above the folder (proc(5), /proc/pid/mountinfo).
    """
    best, kind = -1, "unknown kind"
    with suppress(OSError):
        for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
            before, _dash, after = line.partition(" - ")
            # The kernel writes space, tab, newline and backslash in octal.
            point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split()[4]))
            if folder.resolve().is_relative_to(point) and len(point.parts) >= best:
                best, kind = len(point.parts), after.split()[0]
    return kind


def _free(folder: Path) -> int:
    facts = os.statvfs(next(parent for parent in (folder, *folder.parents) if parent.exists()))
    return facts.f_bavail * facts.f_frsize


def _disk(folder: Path, free: int) -> Rows:
    text = Text("{count} MiB free for {folder}", count=free >> 20, folder=folder)
    if free < _NONE:
        yield FAIL, text, Text("nothing can be stored; free some space on this disk")
    elif free < _LOW:
        yield WARN, text, Text("free some space on this disk")
    else:
        yield OK, text


def _identity(folder: Path) -> Rows:
    from chat.local.identity import Identities, fingerprint

    identities = Identities(folder)
    for nick in identities.nicknames():
        identities.load(nick)  # or raise what is wrong with its file
    if (folder / "identity.pem").exists():
        yield OK, fingerprint(identities.load().key)
    else:
        yield OK, Text("your key will be created on first use")


def _settings() -> Rows:
    from chat.local import settings

    found = settings.load()
    for problem in found.problems:
        yield WARN, problem, Text("run: chat config edit")
    if not found.problems:
        none = Text("{file} does not exist; all settings have their defaults", file=found.path)
        yield OK, str(found.path) if found.path.exists() else none


def _transports() -> Rows:
    from chat.transport.registry import find, schemes

    return _loaded(schemes(), find)


def _boards() -> Rows:
    from chat.transport.registry import boards, find_board

    return _loaded(boards(), find_board)


def _loaded(names: Iterable[str], load: Callable[[str], object]) -> Rows:
    good = []
    for name in names:
        try:
            load(name)
        except ChatError as error:
            yield FAIL, *_parted(error)
        except Exception as error:  # a plug-in may fail in any way
            yield FAIL, Text("{name} cannot be loaded: {error}", name=name, error=repr(error))
        else:
            good.append(name)
    if good:
        yield OK, ", ".join(good)
    else:
        yield FAIL, Text("none installed"), Text("run scripts/chat, which installs them")


def _sockets() -> Rows:
    import socket

    try:
        for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
            end.close()
    except OSError as error:
        yield OK, Text("SOCK_SEQPACKET does not work ({reason}); streams are used instead", reason=reason(error))
    else:
        yield OK, Text("SOCK_SEQPACKET works")


def _rooms() -> Rows:
    from chat.local import rooms

    names = ", ".join(found.name for found in rooms.records())
    yield OK, Text("open on this machine: {rooms}", rooms=names or Text("none"))


def _clock(now: float, folder: Path) -> Rows:
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    if now < _RELEASED:
        text = Text("it shows {time}, which is before this program was released", time=shown)
        yield FAIL, text, Text("set it, preferably with NTP")
        return
    written = {mark.parent.name: mark.stat().st_mtime - now for mark in folder.glob("rooms/*/log.mark")}
    ahead = {room: seconds for room, seconds in written.items() if seconds > _SKEW}
    for room, seconds in ahead.items():
        text = Text(
            "it shows {time}, but room {room} was written {seconds} s later",
            time=shown,
            room=room,
            seconds=f"{seconds:.0f}",
        )
        yield WARN, text, Text("it was ahead then, or is behind now: set it with NTP")
    if not ahead:
        yield OK, shown
