"""What holds for every test: slow suites wait for --slow, and nobody's own files are touched."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = {
    "home": "HOME",
    "config": "XDG_CONFIG_HOME",
    "data": "XDG_DATA_HOME",
    "state": "XDG_STATE_HOME",
    "cache": "XDG_CACHE_HOME",
    "run": "XDG_RUNTIME_DIR",
    "shared": "CHAT_SHARED",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long suites too")
    parser.addoption("--update-golden", action="store_true", help="write the screens in tests/ui/golden anew")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--slow"):
        hypothesis.settings.load_profile("ci")  # its own: no deadline, and the same examples each time
    # Each program that a test starts would compile all of chat again, in 0.06 s of a processor.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell ignores it for what it runs in the background, and every program that a test starts would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a long suite: add --slow"))


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of the collector's sight: going through it takes leaves_nothing 0.1 s a test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each processor: a third of a test's time is spent waiting for something.

    One process for the long suites, which load a machine by themselves, and for a single file.
    """
    single = len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file()
    return 0 if single or config.getoption("--slow") else 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and XDG folders of this test's own, seen by the programs it starts too.

    Not below tmp_path: a socket's path fails at 104 bytes on macOS and 108 on Linux.
    """
    top = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))
    for name, variable in FOLDERS.items():
        (top / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(top / name))
    yield top / "home"
    for _ in range(100):
        with suppress(OSError):  # a host that outlives its test by a moment tidies up, too
            shutil.rmtree(top)
            return
        time.sleep(0.05)
    shutil.rmtree(top)


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fail the test if it leaves a descriptor open or a child process behind. For those who ask for it."""
    before = open_fds()
    yield
    gc.collect()
    left = open_fds() - before
    assert not left, f"left open: {sorted(left)}"
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    pytest.fail(f"left a child process: {f'{pid}, ended but not waited for' if pid else 'it still runs'}")


def open_fds() -> set[int]:
    # The listing holds a descriptor too, which is closed by the time fstat looks.
    return {fd for path in list(Path("/dev/fd").iterdir()) if is_open(fd := int(path.name))}


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
