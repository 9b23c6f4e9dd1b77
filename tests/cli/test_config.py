"""``chat config``: what is set is shown with its place, checked, changed, and edited; and nothing that is wrong with
it stops another command."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from chat.local import settings
from tests.cli.programs import CHAT, PATIENCE, run_here

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(home: Path) -> Path:
    """Where this test's settings are, by the platform's rules. Nobody has made the folder."""
    return home.parent / "config/manywire/config.toml"


@pytest.fixture(autouse=True)
def nothing_is_chosen(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    for name in ("CHAT_CONFIG", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    if os.uname().sysname == "Darwin":  # where it is not below XDG_CONFIG_HOME
        monkeypatch.setenv("CHAT_CONFIG", str(file))


def config(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_here(tmp_path / "data", "config", *arguments, **environment)


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """What `chat config` shows: by name, the value and where it is from."""
    found = [re.fullmatch(r"(\S+) +(.*?) +(\S+)", line) for line in done.stdout.splitlines()]
    return {row[1]: (row[2], row[3]) for row in found if row}


def test_every_setting_is_shown_with_where_it_comes_from(tmp_path: Path, file: Path) -> None:
    shown = rows(config(tmp_path))
    assert list(shown) == list(settings.NAMES)
    assert shown["theme"] == ('"auto"', "default")
    assert {where for _value, where in shown.values()} == {"default"}
    assert not file.parent.exists(), "looking makes nothing"
    file.parent.mkdir()
    file.write_text('theme = "dark"\n[keys]\nhelp = ["F3", "F4"]\n')
    shown = rows(config(tmp_path))
    assert shown["theme"] == ('"dark"', f"{file}:1")
    assert shown["keys.help"] == ('["F3", "F4"]', f"{file}:3")
    assert shown["bell"] == ('"mention"', "default")


def test_the_file_is_where_path_says(tmp_path: Path, file: Path) -> None:
    assert config(tmp_path, "path").stdout == f"{file}\n"
    assert config(tmp_path, "path", CHAT_CONFIG=str(tmp_path / "mine.toml")).stdout == f"{tmp_path}/mine.toml\n"


def test_what_is_set_is_got_again(tmp_path: Path, file: Path) -> None:
    for name, value in (("theme", "dark"), ("quiet_hours", "22:00-07:00"), ("muted", "lobby,小明"), ("mouse", "true")):
        done = config(tmp_path, "set", name, value)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert config(tmp_path, "get", "theme").stdout == "dark\n"
    assert config(tmp_path, "get", "quiet_hours").stdout == "22:00-07:00\n"
    assert config(tmp_path, "get", "mouse").stdout == "true\n"
    assert config(tmp_path, "get", "bell").stdout == "mention\n"
    got = config(tmp_path, "get", "muted").stdout.strip()
    assert got == '["lobby", "小明"]'
    before = file.read_text("utf-8")
    assert config(tmp_path, "set", "muted", got).returncode == 0
    assert file.read_text("utf-8") == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert config(tmp_path, "check").returncode == 0


def test_keys_that_exclude_each_other_are_told(tmp_path: Path, file: Path) -> None:
    for name, key, words in (
        ("newline", "Enter", "no key would send"),
        ("send", "Alt+Enter", ""),
        ("help", "c-m", "Enter"),
    ):
        done = config(tmp_path, "set", f"keys.{name}", key)
        assert done.returncode == 0
        assert words in done.stderr
        assert done.stderr.count("\n") == bool(words)
    assert settings.load(file).settings.keys == {"newline": ("Enter",), "send": ("Alt+Enter",)}


def test_an_action_that_loses_a_key_is_told(tmp_path: Path) -> None:
    taken = ("Ctrl+K now does search, no longer switcher\n", "Alt+Delete now does copy, no longer retract\n")
    assert config(tmp_path, "set", "keys.search", "Ctrl+K").stdout == taken[0]
    assert config(tmp_path, "set", "keys.copy", "Alt+C, alt+delete").stdout == taken[1]  # and not of the other again
    assert config(tmp_path, "set", "keys.editor", "F4").stdout == ""  # whose own key nobody has now
    assert config(tmp_path, "set", "theme", "dark").stdout == ""
    checked = config(tmp_path, "check")
    assert (sorted(checked.stdout.splitlines(True)), checked.returncode) == (sorted(taken), 0)
    config(tmp_path, "set", "keys.switcher", "F5")
    assert config(tmp_path, "check").stdout == taken[1]  # nobody misses what they have replaced


def test_all_who_set_at_once_have_their_way(file: Path) -> None:
    names = ["muted", "ignore", "theme", "bell", "mouse", "away_minutes"]
    values = ["lobby", "0" * 64, "dark", "all", "true", "1"]
    started = [subprocess.Popen([*CHAT, "config", "set", *pair]) for pair in zip(names, values, strict=True)]
    assert [one.wait(PATIENCE) for one in started] == [0] * len(started)
    assert settings.load(file).lines.keys() == set(names)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["get", "thme"], 2, "did you mean 'theme'"),
        (["get", "keys"], 2, "like keys.send"),
        (["set", "thme", "dark"], 2, "did you mean 'theme'"),
        (["set", "theme", "drak"], 2, '"auto", "dark", "light"'),
        (["set", "theme", "\x1b[31m"], 2, "theme cannot be"),
        (["set", "keys.send", "x"], 2, "cannot be bound"),
        (["set", "theme"], 2, "VALUE"),
        (["chekc"], 2, "did you mean 'check'"),
        (["edit"], 1, "set EDITOR"),
    ],
)
def test_bad_input_gets_one_clear_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = config(tmp_path, *arguments, EDITOR=str(tmp_path / "no such editor").replace(" ", "\\ "))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("chat: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().isprintable()
    assert done.stdout == ""


@pytest.fixture
def broken(file: Path) -> Path:
    file.parent.mkdir()
    file.write_text('thme = "dark"\nmouse = true\nbell = "\\u001b[31m"\n')
    return file


def test_a_broken_file_is_told_and_stops_nothing_but_the_check(tmp_path: Path, broken: Path) -> None:
    checked = config(tmp_path, "check")
    assert checked.returncode == 1
    (tmp_path / "\x07.toml").write_text("thme = 1\n")
    assert "\x07" not in config(tmp_path, "check", CHAT_CONFIG=str(tmp_path / "\x07.toml")).stdout
    assert [line.split(" ")[0] for line in checked.stdout.splitlines()] == [f"{broken}:1:", f"{broken}:3:"]
    assert "\x1b" not in checked.stdout
    shown = config(tmp_path)
    assert shown.returncode == 0
    assert rows(shown)["mouse"] == ("true", f"{broken}:2")
    assert rows(shown)["theme"] == ('"auto"', "default")
    assert shown.stderr.count("\n") == 1
    assert "did you mean 'theme'?, and 1 more" in shown.stderr
    assert config(tmp_path, "get", "mouse").stdout == "true\n"
    assert run_here(tmp_path / "data", "id").stderr == ""


def editor(tmp_path: Path, script: str) -> str:
    program = tmp_path / "an editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"'{program}' --wait"


def test_edit_begins_with_every_default_and_checks_afterwards(tmp_path: Path, file: Path) -> None:
    copies = editor(tmp_path, f'cp "$2" {tmp_path}/seen; printf %s "$1" > {tmp_path}/first; echo \'bell = 1\' > "$2"')
    done = config(tmp_path, "edit", EDITOR="false", VISUAL=copies)
    assert (tmp_path / "seen").read_text("utf-8") == settings.template()
    assert (tmp_path / "first").read_text() == "--wait"
    assert done.returncode == 1
    assert done.stdout.startswith(f"{file}:1: bell cannot be 1; allowed: ")
    mends = editor(tmp_path, f'cp "$2" {tmp_path}/seen; echo \'bell = "all"\' > "$2"')
    done = config(tmp_path, "edit", EDITOR=mends)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (tmp_path / "seen").read_text() == "bell = 1\n", "what was there is edited"
    assert file.read_text() == 'bell = "all"\n'


@pytest.mark.parametrize(("command", "words"), [("false", "exit code 1"), ("'open", "correct the variable")])
def test_an_editor_that_fails_is_told(tmp_path: Path, command: str, words: str) -> None:
    done = config(tmp_path, "edit", EDITOR=command)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, file: Path) -> None:
    file.parent.write_text("in the way")
    for arguments in (("set", "theme", "dark"), ("edit",)):
        done = config(tmp_path, *arguments, EDITOR="true")
        assert done.returncode == 1
        assert f"cannot write {file}" in done.stderr
        assert done.stderr.count("\n") == 1
