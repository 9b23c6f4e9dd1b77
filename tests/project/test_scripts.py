"""scripts/chat before chat itself starts: what is ready runs at once, what is not is made or explained.

A copy of the scripts stands in a folder of its own, with a program in place of .venv/bin/chat. The real
thing, which installs from the network, is what .ci/run does in a fresh clone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.make import Window

ROOT = Path(__file__).parents[2]
CHAT = """#!/bin/sh
printf '<%s>' "$PWD" "$@"
cat
exit 3
"""
# Passes for a Python that is new enough, and tells what it was asked to run.
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "runs $*"
exit 9
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = (tmp_path / "a checkout").resolve()
    for name in ("chat", "_venv.sh", "_venv.py"):
        (root / "scripts").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    program(root / ".venv/bin/python", "#!/bin/sh\n")
    program(root / ".venv/bin/chat", CHAT)
    program(root / "python", PYTHON)
    make_ready(root)
    return root


def make_ready(root: Path, python: str = "") -> None:
    shutil.copy(root / "pyproject.toml", root / ".venv/manywire-chat.toml")
    (root / ".venv/manywire-made").write_text(f"{root}\n{python}\n")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env=clean | environment,
        input="typed",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("way", ["directly", "absolute link", "relative link to a link"])
def test_what_is_ready_runs_at_once(checkout: Path, tmp_path: Path, way: str) -> None:
    start = checkout / "scripts/chat"
    if way != "directly":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/one").symlink_to(start)
        start = tmp_path / "bin/one"
    if way == "relative link to a link":
        (tmp_path / "two").symlink_to("bin/one")
        start = tmp_path / "two"
    done = run(start, "send", "two words", "", "*")
    assert (done.stdout, done.stderr, done.returncode) == ("</><send><two words><><*>typed", "", 3)


def test_python_of_the_last_time_is_kept(checkout: Path) -> None:
    make_ready(checkout, "python3.13")
    assert run(checkout / "scripts/chat").returncode == 3
    assert run(checkout / "scripts/chat", PYTHON="python3.13").returncode == 3


@pytest.mark.parametrize("change", ["pyproject", "copied", "other python", "python is gone", "cut off"])
def test_what_is_not_ready_is_made(checkout: Path, change: str) -> None:
    root, asked = checkout, str(checkout / "python")
    make_ready(root, "" if change == "other python" else asked)
    if change == "pyproject":
        (root / "pyproject.toml").write_text("[project]\n")
    elif change == "copied":
        root = checkout.parent / "copy"
        shutil.copytree(checkout, root)
    elif change == "python is gone":
        (root / ".venv/bin/python").unlink()
        (root / ".venv/bin/python").symlink_to(root / "nowhere")
    elif change == "cut off":
        (root / ".venv/manywire-made").unlink()
    done = run(root / "scripts/chat", PYTHON=asked)
    # Said on stderr: stdout may be a pipe that waits for the program's own words.
    assert (done.stdout, done.stderr) == ("", f"runs {root}/scripts/_venv.py {root} chat\n")
    assert done.returncode == 9


def half_made(checkout: Path, tmp_path: Path, pip: str) -> dict[str, str]:
    """Leave only the installing to be done, by a script in place of pip. Return the environment for it."""
    (checkout / ".venv/manywire-chat.toml").unlink()
    program(checkout / ".venv/bin/pip", "#!/bin/sh\n")
    program(checkout / ".venv/bin/python", f"#!/bin/sh\n{pip}\n")
    (tmp_path / "bin").mkdir()
    for name in ("cat", "cmp", "sh"):  # and no uv
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    return {"PATH": str(tmp_path / "bin")}


def test_what_is_installed_is_shown_on_a_terminal_and_gone_at_the_end(checkout: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    path = half_made(checkout, tmp_path, f"echo Collecting a teapot; cat '{tmp_path}/go'")
    environment = {**os.environ, **path, "TERM": "xterm"}
    environment.pop("PYTHON", None)
    with Window([str(checkout / "scripts/chat")], environment) as window:
        window.shows("s  Collecting a teapot")
        with (tmp_path / "go").open("w"):
            pass
        window.shows("</")
        assert "teapot" not in "".join(window.screen())


def test_elsewhere_it_is_one_line(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout / "scripts/chat", **half_made(checkout, tmp_path, "echo Collecting a teapot"))
    assert (done.returncode, done.stdout.startswith("</>")) == (3, True)
    assert done.stderr == "setup: installing manywire into .venv; this takes a moment\n"


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ("NewConnectionError(': [Errno -3] Temporary failure in name resolution')", "name resolution"),
        ("error sending request for url: dns error", "dns error"),
        ("ReadTimeoutError: Read timed out.", "timed out"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(checkout: Path, tmp_path: Path, printed: str, why: str) -> None:
    done = run(checkout / "scripts/chat", **half_made(checkout, tmp_path, f'echo "{printed}"; exit 1'))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith(f"setup: the packages cannot be downloaded ({why}); check the network, or set HTTPS_PROXY,")


def test_another_failure_is_shown_whole(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout / "scripts/chat", **half_made(checkout, tmp_path, "echo no compiler; echo at all; exit 7"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:3] == ["no compiler", "at all"]
    assert "failed with exit code 7; its output stands above" in done.stderr


def test_no_python_is_said(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv/manywire-made").unlink()
    done = run(checkout / "scripts/chat", PATH=str(tmp_path))
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("setup: no Python 3.11 or newer on PATH;")
    assert done.stderr.count("\n") == 1
    done = run(checkout / "scripts/chat", PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert done.stderr == "setup: PYTHON=/nowhere/python does not run Python 3.11 or newer; unset it, or name another\n"


def test_python_without_venv_is_said(checkout: Path, tmp_path: Path) -> None:
    # As on Debian without its python3-venv: the module is not there.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None")
    (checkout / ".venv/manywire-made").unlink()
    done = run(checkout / "scripts/chat", PYTHON=sys.executable, PYTHONPATH=str(tmp_path), PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("setup: Python 3.")
    assert "has no venv; " in done.stderr
    assert done.stderr.count("\n") == 1
    assert (checkout / ".venv/bin/chat").exists(), "what was there is kept"


def test_checkout_that_cannot_be_written_is_said(checkout: Path) -> None:
    (checkout / ".venv/manywire-made").unlink()
    (checkout / ".venv.lock").mkdir()
    done = run(checkout / "scripts/chat", PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr.startswith(f"setup: cannot set up .venv in {checkout}: .venv.lock: ")
    assert done.stderr.count("\n") == 1


def test_second_first_run_waits_and_then_finds_all_made(checkout: Path) -> None:
    (checkout / ".venv/manywire-made").unlink()
    with (checkout / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [str(checkout / "scripts/chat"), "hello"]
        environment = os.environ | {"PYTHON": sys.executable}
        with subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as second:
            assert second.stdout is not None
            assert second.stderr is not None
            assert second.stderr.readline() == b"setup: waiting for another run that is setting up .venv\n"
            make_ready(checkout, sys.executable)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.stdout.read() == b"</><hello>"
            assert second.stderr.read() == b""
