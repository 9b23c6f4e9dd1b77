"""Makes .venv and installs this checkout into it: the slow path of chat, test and check.

    python _venv.py ROOT chat|dev

Rules:

1. One at a time. The lock is flock(2), which the kernel drops however its holder ends, so it is never
   stale. pip and uv inherit it: whoever kills only this process leaves them running, and locked.
2. The stamps are written last. An install that was cut off leaves none, and the next begins from nothing.
3. One line, while all goes well. A terminal also shows what is being installed, on a line that is gone at the end.
4. What a failed command printed is shown whole; if it only found no network, one line says so.
"""

from __future__ import annotations

import fcntl
import os
import platform
import select
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, NoReturn

VENV: Final = Path(".venv")
MADE: Final = VENV / "manywire-made"  # two lines: the checkout's path, and PYTHON as it was set
LOCK: Final = Path(".venv.lock")  # beside .venv, which is removed when it is made anew
PROJECT: Final = Path("pyproject.toml")
FRAME: Final = 1.0  # seconds between two looks at the clock, while a command prints nothing
OFFLINE: Final = (  # what pip and uv say if the network is to blame, the clearest first
    *("name resolution", "failed to resolve", "name or service not known", "dns error", "network is unreachable"),
    *("connection refused", "connection reset", "timed out", "proxyerror", "certificate verify failed"),
    *("max retries exceeded", "error sending request", "failed to fetch"),
)


def main(root: str, wanted: str) -> None:
    os.chdir(root)
    asked = os.environ.get("PYTHON", "")
    with LOCK.open("w") as lock:
        take(lock)
        made = os.fsdecode(MADE.read_bytes()) if MADE.exists() else ""
        made_in, made_by, *_ = [*made.split("\n"), "", ""]
        usable = made_in == root and asked in {"", made_by} and (VENV / "bin/python").exists()
        project = PROJECT.read_bytes()  # before pip reads it: the next run must see a change made meanwhile
        if usable and stamp(wanted).exists() and stamp(wanted).read_bytes() == project:
            return  # another run has done it while this one waited
        MADE.unlink(missing_ok=True)
        # A .venv made by uv has no pip, so without uv nothing can be installed there.
        if not usable or not (shutil.which("uv") or (VENV / "bin/pip").exists()):
            create(lock)
            made_by = asked
        install(wanted, lock)
        for name in ("chat", "dev") if wanted == "dev" else ("chat",):
            stamp(name).write_bytes(project)
        MADE.write_bytes(os.fsencode(f"{root}\n{made_by}\n"))


def take(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another run that is setting up .venv")
        fcntl.flock(lock, fcntl.LOCK_EX)


def stamp(wanted: str) -> Path:
    """The pyproject.toml that was installed, to be compared with the one of today."""
    return VENV / f"manywire-{wanted}.toml"


def create(lock: IO[str]) -> None:
    uv = shutil.which("uv")
    if not uv and (find_spec("venv") is None or find_spec("ensurepip") is None):
        stop(f"Python {platform.python_version()} ({sys.executable}) has no venv; {venv_advice()}")
    if is_terminal():
        say(f"making .venv with Python {platform.python_version()}")
    if VENV.exists():
        shutil.rmtree(VENV)
    if uv:
        run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(VENV)], lock)
    else:
        run([sys.executable, "-m", "venv", str(VENV)], lock)


def venv_advice() -> str:
    """Debian and its kin split venv off; elsewhere it is missing only where somebody built Python so."""
    if Path("/etc/debian_version").exists():
        return f"run: sudo apt install python{sys.version_info.major}.{sys.version_info.minor}-venv"
    return "install that, or uv, or name another Python: PYTHON=/path/to/python"


def install(wanted: str, lock: IO[str]) -> None:
    tools = " and the tools for its tests" if wanted == "dev" else ""
    say(f"installing manywire{tools} into .venv; this takes a moment")
    python = str(VENV / "bin/python")
    if shutil.which("uv"):
        command = ["uv", "pip", "install", "--python", python]
    else:
        # -I: neither PYTHONPATH nor a pip.py in the checkout may stand in for pip.
        command = [python, "-I", "-m", "pip", "install", "--no-input", "--no-user"]
        command.append("--disable-pip-version-check")
    run([*command, "--editable", ".[dev]" if wanted == "dev" else "."], lock)


def run(command: list[str], lock: IO[str]) -> None:
    """Run ``command``, and show that it goes on. Where it fails, say why, and exit."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock.fileno(),),
    ) as process:
        assert process.stdout is not None
        began, output, fd = time.monotonic(), b"", process.stdout.fileno()
        while True:
            if select.select([fd], [], [], FRAME)[0]:
                if not (data := os.read(fd, 65536)):
                    break
                output += data
            show(output, time.monotonic() - began)
        show(b"", 0)
    if process.returncode == 0:
        return
    printed = output.decode(errors="replace").lower()
    if why := next((one for one in OFFLINE if one in printed), ""):
        stop(
            f"the packages cannot be downloaded ({why}); check the network, or set HTTPS_PROXY, or PIP_INDEX_URL or "
            "UV_INDEX_URL for an index of your own, and run this again"
        )
    sys.stderr.flush()
    sys.stderr.buffer.write(output)
    stop(f"`{' '.join(command)}` failed with exit code {process.returncode}; its output stands above")


def show(output: bytes, seconds: float) -> None:
    """Show the last line of ``output`` and the time on a terminal, in place of what was shown before."""
    if not is_terminal():
        return
    lines = output.decode(errors="replace").split("\n")
    last = "".join(filter(str.isprintable, next((line for line in reversed(lines) if line.strip()), "")))
    text = f"setup: {seconds:.0f} s  {last.strip()}"[: os.get_terminal_size(2).columns - 1] if output else ""
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    say(text)
    raise SystemExit(1)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        stop(f"cannot set up .venv in {sys.argv[1]}: {where}{error.strerror}; can you write there?")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
