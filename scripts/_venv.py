"""Makes .venv and installs this checkout into it: the slow path of chat, test and check.

    python _venv.py ROOT chat|dev

Rules:

1. One at a time. The lock is flock(2), which the kernel drops however its holder ends, so it is never
   stale. pip and uv inherit it: whoever kills only this process leaves them running, and locked.
2. The stamps are written last. An install that was cut off leaves none, and the next begins from nothing.
3. Quiet while all goes well: two lines. What a failed command printed is shown whole.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, NoReturn

VENV: Final = Path(".venv")
MADE: Final = VENV / "manywire-made"  # two lines: the checkout's path, and PYTHON as it was set
LOCK: Final = Path(".venv.lock")  # beside .venv, which is removed when it is made anew
PROJECT: Final = Path("pyproject.toml")


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
        command = ["uv", "pip", "install", "--quiet", "--python", python]
    else:
        # -I: neither PYTHONPATH nor a pip.py in the checkout may stand in for pip.
        command = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--no-user"]
        command.append("--disable-pip-version-check")
    run([*command, "--editable", ".[dev]" if wanted == "dev" else "."], lock)


def run(command: list[str], lock: IO[str]) -> None:
    """Run ``command`` silently. Where it fails, show what it printed, and exit."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock.fileno(),),
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.flush()
        sys.stderr.buffer.write(done.stdout)
        stop(f"`{' '.join(command)}` failed with exit code {done.returncode}; its output stands above")


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
