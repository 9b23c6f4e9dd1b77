"""``chat doctor``: what is wrong is found, told in a line, and mended by what the line says; on real terminals too."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from chat.cli import doctor
from chat.cli.doctor import FAIL, OK, WARN, Finding
from chat.local import rooms
from tests.cli.programs import CHAT, PATIENCE, host, run, run_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def a_healthy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHAT_CONFIG", "CHAT_RUNTIME", "LC_ALL", "LC_CTYPE", "NO_COLOR", "COLORTERM", "TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")


AS_IT_IS = {"LC_ALL": "", "PYTHONCOERCECLOCALE": "0"}  # else Python sets LC_CTYPE (PEP 538)


def examined(tmp_path: Path, **environment: str) -> tuple[dict[str, Finding], int]:
    """What a doctor finds whose input and output are pipes, the worst of each check; and its exit code."""
    done = run(tmp_path / "data", "doctor", "--json", **environment)
    assert done.stderr == ""
    found = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    return by_check(found), done.returncode


def by_check(found: list[Finding]) -> dict[str, Finding]:
    order = (OK, WARN, FAIL)
    return {one.check: one for one in sorted(found, key=lambda finding: order.index(finding.level))}


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_nothing_is_wrong_and_nothing_is_changed(tmp_path: Path, home: Path) -> None:
    before = below(home.parent)
    found, code = examined(tmp_path)
    assert {one.level for one in found.values() if one.check != "disk"} == {OK}
    assert code == 0
    assert below(home.parent) == sorted([*before, "run/manywire"])
    none = tmp_path / "none"
    assert examined(tmp_path, CHAT_DATA=str(none))[0]["data"].text == f"{none} will be created on first use"
    assert below(tmp_path) == ["data"]
    assert found["identity"].text == "your key will be created on first use"
    assert found["rooms"].text == "open on this machine: none"
    listed = run_here(tmp_path / "data", "transports").stdout.splitlines()
    assert found["transports"].text == ", ".join(line.partition("\t")[0] for line in listed)
    assert found["boards"].text == "shm"
    assert str(tmp_path / "data") in found["data"].text


def test_a_line_says_what_json_says(tmp_path: Path) -> None:
    plain = run(tmp_path / "data", "doctor", LC_ALL="C").stdout.splitlines()
    objects = [json.loads(line) for line in run(tmp_path / "data", "doctor", "--json", LC_ALL="C").stdout.splitlines()]
    assert len(plain) == len(objects)
    for line, found in zip(plain, objects, strict=True):
        if found["check"] not in {"clock", "disk"}:
            assert line.split(maxsplit=2) == [found["level"], found["check"], line.split(maxsplit=2)[2]]
            assert line.endswith(f"{found['text']}; {found['mend']}" if found["mend"] else found["text"])


def test_rooms_and_your_key_are_told(tmp_path: Path) -> None:
    with host(tmp_path / "data", "kitchen"):
        found, code = examined(tmp_path)
        assert found["rooms"].text == "open on this machine: kitchen"
        assert found["identity"].text + "\n" == run(tmp_path / "data", "id").stdout
        assert code == 0


# -- what may be wrong with a machine -------------------------------------------------------------


def test_a_folder_that_is_open_to_others_fails(tmp_path: Path, home: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o750)
    runtime = home.parent / "run/manywire"
    runtime.mkdir(mode=0o700)
    runtime.chmod(0o755)
    (tmp_path / "data").chmod(0o750)
    found, code = examined(tmp_path)
    assert code == 1
    for check, folder in (("runtime", runtime), ("data", tmp_path / "data")):
        assert found[check].level == FAIL
        assert subprocess.run(found[check].mend.removeprefix("run: "), shell=True, check=False).returncode == 0
        assert folder.stat().st_mode & 0o777 == 0o700
    assert examined(tmp_path)[1] == 0


def test_a_runtime_folder_that_is_too_deep_for_a_room_s_socket_fails(tmp_path: Path, home: Path) -> None:
    deep = home.parent / ("x" * (90 - len(f"{home.parent}/")))  # of the 107 bytes, or 103, that a path may have
    deep.mkdir(mode=0o700)
    found, code = examined(tmp_path, CHAT_RUNTIME=str(deep))
    assert (found["runtime"].level, code) == (FAIL, 1)
    assert "cannot create a socket" in found["runtime"].text
    assert below(deep) == []


def test_a_link_in_a_folder_s_place_and_a_damaged_key_fail(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert examined(tmp_path, CHAT_DATA=str(tmp_path / "link"))[0]["data"].level == FAIL
    (tmp_path / "data/identity.pem").write_text("rubbish")
    (tmp_path / "data/identity.pem").chmod(0o600)
    found, code = examined(tmp_path)
    assert (found["identity"].level, code) == (FAIL, 1)
    (tmp_path / "data/identity.pem").unlink()
    run(tmp_path / "data", "id", "--as=bob")
    (tmp_path / "data/identities/bob.pem").write_text("rubbish")
    found, code = examined(tmp_path)
    assert (found["identity"].level, code) == (FAIL, 1)


def test_settings_that_are_wrong_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('thme = "dark"\n')
    found, code = examined(tmp_path, CHAT_CONFIG=str(tmp_path / "mine.toml"))
    assert (found["settings"].level, code) == (WARN, 0)
    assert f"{tmp_path}/mine.toml:1: unknown setting 'thme'" in found["settings"].text


@pytest.mark.parametrize(
    ("source", "words"),
    [("import no_such_module", "no_such_module"), ("1 / 0", "ZeroDivisionError"), ("x = 1", "transport")],
)
def test_a_plug_in_that_cannot_be_loaded_fails(tmp_path: Path, source: str, words: str) -> None:
    info = tmp_path / "plugs/broken-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[chat.transports]\nbroken = broken_plug:transport\n")
    (tmp_path / "plugs/broken_plug.py").write_text(source + "\n")
    found, code = examined(tmp_path, PYTHONPATH=str(tmp_path / "plugs"))
    assert (found["transports"].level, code) == (FAIL, 1)
    assert "broken" in found["transports"].text
    assert words in found["transports"].text


def test_a_lock_that_is_never_let_go_does_not_hang_it(tmp_path: Path) -> None:
    with host(tmp_path / "data", "kitchen"), (rooms.room_folder("kitchen") / "door").open("wb") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        found, code = examined(tmp_path)
        assert (found["rooms"].level, code) == (FAIL, 1)
        assert found["rooms"].text == f"no answer within {doctor.PATIENCE} s"
        assert found["clock"].level == OK, "what comes after it is looked at"


@pytest.mark.parametrize(
    ("environment", "level", "decides"),
    [
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, WARN, "LC_ALL"),
        ({**AS_IT_IS, "LC_CTYPE": "C", "LANG": "C.UTF-8"}, WARN, "LC_CTYPE"),
        ({**AS_IT_IS, "LC_CTYPE": "", "LANG": "C"}, WARN, "LANG"),
        ({"LANG": "C.utf8"}, OK, ""),
        ({"PYTHONIOENCODING": "latin-1", "LC_ALL": "de_DE.ISO-8859-1"}, WARN, "LC_ALL"),
    ],
)
def test_locales(tmp_path: Path, environment: dict[str, str], level: str, decides: str) -> None:
    found = examined(tmp_path, **environment)[0]["locale"]
    assert (found.level, found.mend) == (level, f"run: export {decides}=C.UTF-8" if decides else "")


def test_what_this_machine_cannot_be_brought_to(tmp_path: Path) -> None:
    levels = [next(doctor._disk(tmp_path, mebibytes << 20))[0] for mebibytes in (0, 50, 500)]
    assert levels == [FAIL, WARN, OK]
    mark = tmp_path / "rooms" / "lobby" / "log.mark"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert [next(doctor._clock(time.time() + s, tmp_path))[0] for s in (-1e9, -3600, 0)] == [FAIL, WARN, OK]


def test_the_kind_of_a_disk_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/a rw\n"
        "30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw\n"
        "31 22 0:41 / /home/ann\\040b/x rw shared:2 master:1 - tmpfs tmpfs rw\n"
        "32 22 0:42 / /homes rw - btrfs /dev/b rw\n"
        "33 22 0:43 / /homes rw - xfs /dev/c rw\n"
    )
    for folder, kind in (
        ("/var", "ext4"),
        ("/home", "nfs4"),
        ("/home/bob/data", "nfs4"),
        ("/home/ann b/x/y", "tmpfs"),
        ("/homes/x", "xfs"),
    ):
        assert doctor.filesystem(type(tmp_path)(folder), mounts) == kind
    assert doctor.filesystem(tmp_path, tmp_path / "none") == "unknown kind"


# -- what may be wrong with a terminal ------------------------------------------------------------

TYPED_AHEAD = "7;9R"  # like an answer, and none
RIGHT = {"\u4e2d": 2, "\U0001f600": 2, "e\u0301": 1, "\u2026": 1, "": 0}
QUESTION = re.compile(r"(\x1b\[\?2004\$p)?(?:\r([^\x1b\r\n]+))?\x1b\[6n")


class Terminal:
    """A pseudo-terminal that draws as ``widths`` say, and answers as a terminal does."""

    def __init__(self, widths: dict[str, int] | None, paste: str, size: tuple[int, int] = (24, 80)) -> None:
        self.fd, self.theirs = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self._widths = widths
        self._paste = paste

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.theirs)

    def run(self, folder: Path, *command: str, **environment: str) -> tuple[dict[str, Finding], str]:
        """Run a command on it to its end; return what a doctor found, and all that was written."""
        process = subprocess.Popen(
            [*command, *CHAT, "doctor", f"--data={folder}"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TERM": "xterm-256color"} | environment,
            start_new_session=True,
        )
        try:
            written, answered = "", 0
            end = time.monotonic() + PATIENCE
            while process.poll() is None or select.select([self.fd], [], [], 0)[0]:
                assert time.monotonic() < end, f"it hangs after {written!r}"
                if select.select([self.fd], [], [], 0.02)[0]:
                    written += os.read(self.fd, 65536).decode()
                for question in QUESTION.finditer(written, answered):
                    self._answer(*question.groups())
                    answered = question.end()
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            process.wait()
        lines = [
            line.split(maxsplit=2) for line in re.sub(r".*\x1b\[\w", "", written.removeprefix(TYPED_AHEAD)).splitlines()
        ]
        assert all(len(line) == 3 for line in lines), written
        return by_check([Finding(*line) for line in lines]), written

    def _answer(self, paste: str | None, drawn: str | None) -> None:
        if self._widths is None:
            return
        answer = self._paste if paste else ""
        os.write(self.fd, f"{answer}\x1b[7;{self._widths[drawn or ''] + 1}R".encode())


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made = []

    def make(widths: dict[str, int] | None = RIGHT, paste: str = "\x1b[?2004;2$y", **more: tuple[int, int]) -> Terminal:
        made.append(Terminal(widths, paste, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_good_terminal(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    one = terminal()
    os.write(one.fd, TYPED_AHEAD.encode())
    found, written = one.run(tmp_path)
    assert {one.level for one in found.values() if one.check != "disk"} == {OK}
    assert found["terminal"].text == "xterm-256color, 80 columns, 24 rows, 256 colours"
    assert "drawing" in found
    assert "paste" in found
    assert termios.tcgetattr(one.theirs) == one.before
    assert "\x1b[6n\r\x1b[K" in written, "what was drawn is wiped"
    assert "^[[" not in written, "no answer is shown"


def test_a_terminal_that_takes_no_more_is_given_back_as_it_was(terminal: Callable[..., Terminal]) -> None:
    one = terminal()
    read_only = os.open(os.ttyname(one.theirs), os.O_RDONLY | os.O_NOCTTY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"), doctor._quiet(one.theirs, read_only):
            assert termios.tcgetattr(one.theirs) != one.before
    finally:
        os.close(read_only)
    assert termios.tcgetattr(one.theirs) == one.before


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        (RIGHT | {"\u2026": 2}, "\u2026 (U+2026) takes 2 columns, not 1"),
        (RIGHT | {"e\u0301": 2, "\U0001f600": 1}, "(U+1F600) takes 1 columns, not 2, e\u0301 (U+0301) takes 2"),
    ],
)
def test_a_terminal_that_draws_otherwise(
    tmp_path: Path, terminal: Callable[..., Terminal], widths: dict[str, int], told: str
) -> None:
    found, _ = terminal(widths).run(tmp_path)
    assert found["drawing"].level == WARN
    assert told in found["drawing"].text


def test_a_terminal_that_does_not_answer(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    one = terminal(None)
    found, _ = one.run(tmp_path)
    assert found["drawing"].level == WARN
    assert "did not report" in found["drawing"].text
    assert "paste" not in found
    assert termios.tcgetattr(one.theirs) == one.before


@pytest.mark.parametrize(("answer", "level"), [("\x1b[?2004;1$y", OK), ("\x1b[?2004;0$y", WARN), ("", None)])
def test_bracketed_paste(tmp_path: Path, terminal: Callable[..., Terminal], answer: str, level: str | None) -> None:
    found, _ = terminal(paste=answer).run(tmp_path)
    assert (found["paste"].level if "paste" in found else None) == level
    assert found["drawing"].level == OK


@pytest.mark.parametrize(
    ("size", "environment", "level", "words"),
    [
        ((5, 80), {}, WARN, "make it at least"),
        ((0, 0), {}, WARN, "stty"),
        ((24, 80), {"TERM": "dumb"}, WARN, "plain lines"),
        ((24, 80), {"TERM": "linux", "NO_COLOR": "1"}, OK, "no colours"),
        ((24, 80), {"COLORTERM": "truecolor"}, OK, "16 million"),
    ],
)
def test_sizes_and_colours(
    tmp_path: Path,
    terminal: Callable[..., Terminal],
    size: tuple[int, int],
    environment: dict[str, str],
    level: str,
    words: str,
) -> None:
    found, _ = terminal(size=size).run(tmp_path, **environment)
    assert found["terminal"].level == level
    assert words in found["terminal"].text


def test_tmux_with_another_terminal_s_name(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    found, _ = terminal().run(tmp_path, TMUX="/nowhere,1,0")
    assert found["tmux"].level == WARN
    found, _ = terminal().run(tmp_path, TMUX="/nowhere,1,0", TERM="tmux-256color")
    assert found["tmux"].level == OK


def test_in_the_background_it_leaves_the_terminal_alone(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    starter = (
        "import fcntl, subprocess, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "sys.exit(subprocess.run(sys.argv[1:], process_group=0).returncode)"
    )
    found, written = terminal().run(tmp_path, sys.executable, "-c", starter)
    assert "drawing" not in found
    assert "\x1b" not in written
