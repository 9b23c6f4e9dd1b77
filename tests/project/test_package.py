"""The wheel that people install, and how little `chat --help` loads."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import chat

ROOT = Path(__file__).parents[2]
INFO = f"manywire-{chat.__version__}.dist-info"
HEAVY = {"cryptography", "prompt_toolkit", "sqlite3"}  # 30 ms and more each


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel's top folder. Built by calling the build backend itself, which needs no network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return zipfile.Path(path)


def test_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.Path) -> None:
    sources = {
        str(path.relative_to(ROOT))
        for package in ("chat", "transports")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {name for name in wheel.root.namelist() if not name.startswith(INFO) and not name.endswith("/")}
    assert packed == sources
    assert {"chat/py.typed", "transports/py.typed"} <= packed


def test_wheel_says_its_licence_and_pins_nothing(wheel: zipfile.Path) -> None:
    metadata = HeaderParser().parsestr((wheel / INFO / "METADATA").read_text("utf-8"))
    assert (metadata["Name"], metadata["Version"]) == ("manywire", chat.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert (wheel / INFO / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    # An upper bound here would be a conflict in somebody's environment later.
    assert not [line for line in metadata.get_all("Requires-Dist", []) if re.search(r"==|~=|<", line.split(";")[0])]


def test_entry_points_lead_somewhere(wheel: zipfile.Path) -> None:
    found = configparser.ConfigParser()
    found.read_string((wheel / INFO / "entry_points.txt").read_text("utf-8"))
    assert dict(found["console_scripts"]) == dict.fromkeys(("chat", "manywire"), "chat.__main__:main")
    assert "memory" in found["chat.transports"]
    for scheme, target in found["chat.transports"].items():
        module, _, name = target.partition(":")
        assert name == "transport", scheme
        assert (wheel / f"{module.replace('.', '/')}.py").is_file(), scheme


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['chat', '--help']; from chat.cli.main import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: chat")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "chat" in loaded
    assert not loaded & HEAVY
