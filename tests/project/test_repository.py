"""What may lie in the repository: what git keeps, or would keep."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 1024 * 1024  # bytes
LOCKS = re.compile(r"(uv|poetry|pdm|Pipfile|Cargo)\.lock|package-lock\.json|pylock.*\.toml")
# The backslashes and brackets keep these lines from finding themselves.
MACHINE_PATHS = re.compile(r"(?<![\w.~/-])/(?:root|work|Users/\w+|tmp/\w+/bin)/")
REGISTRIES = re.compile(r"pypi\.org/simple|files\.pythonhosted|registry\.npmjs|deb\.debian\.org", re.IGNORECASE)


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments, "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.split("\0") if line]


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """Files that git keeps, and new ones that it does not ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = git("ls-files", "--cached", "--others", "--exclude-standard")
    return [path for name in names if (path := ROOT / name).exists()]


def test_scripts_can_be_run(kept: list[Path]) -> None:
    modes = {}
    for line in git("ls-files", "--stage"):
        entry, _, name = line.partition("\t")
        modes[name] = entry.partition(" ")[0]
    started = [path for path in kept if path.read_bytes()[:2] == b"#!"]
    assert ROOT / "scripts/chat" in started
    for path in started:
        name = str(path.relative_to(ROOT))
        # The index decides what a clone gets; a new file has only its own mode yet.
        assert modes.get(name, "100755") == "100755", f"git update-index --chmod=+x {name}"
        assert path.stat().st_mode & 0o111, f"chmod +x {name}"


def test_no_file_is_large(kept: list[Path]) -> None:
    assert not [str(path) for path in kept if path.stat().st_size > LARGEST]


def test_no_lock_files(kept: list[Path]) -> None:
    # A library is tested with what its users get today.
    assert not [str(path) for path in kept if LOCKS.fullmatch(path.name)]


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRIES], ids=["machine paths", "registries"])
def test_nothing_names_one_machine(kept: list[Path], pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in kept
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found
