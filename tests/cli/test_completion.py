"""Completion in the shell: the scripts are what the shells load, and what is offered is quick and never in the way."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from chat.cli import options
from tests.cli.programs import PATIENCE, host, run

if TYPE_CHECKING:
    from pathlib import Path

BINARIES = {shell: shutil.which(shell) for shell in options.SHELLS}


@pytest.fixture
def chat_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chat` for a shell that this test starts. What it complains of goes to a file."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/chat"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m chat "$@" 2>>"{tmp_path}/complaints"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)


def offered(tmp_path: Path, *words: str) -> list[str]:
    """What is offered for the last of these words, in fish's form: a line each."""
    line = f"{shlex.join(['chat', *words[:-1]])} {words[-1]}"
    done = run(tmp_path / "data", _CHAT_COMPLETE="fish_complete", COMP_WORDS=line, COMP_CWORD=words[-1])
    assert done.stderr == ""
    return [line.partition(",")[2].partition("\t")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", options.SHELLS)
def test_the_script_is_the_shells_and_says_how_to_use_it(tmp_path: Path, shell: str) -> None:
    done = run(tmp_path / "data", "completion", shell)
    assert (done.stderr, done.returncode) == ("", 0)
    *script, last = done.stdout.splitlines()
    assert f"_CHAT_COMPLETE={shell}_complete" in done.stdout
    assert last.startswith("# to use it, ")
    assert f"chat completion {shell}" in last
    if shell == "zsh":
        assert script[0] == "#compdef chat"
    if binary := BINARIES[shell]:
        checked = subprocess.run([binary, "-n"], input=done.stdout, text=True, capture_output=True, check=False)
        assert (checked.stderr, checked.returncode) == ("", 0)


def test_the_bash_that_is_found_first_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").write_text("#!/bin/sh\necho 3.2.57\n")
    (tmp_path / "bin/bash").chmod(0o755)
    done = run(tmp_path / "data", "completion", "bash", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_shell_that_is_unknown_is_told(tmp_path: Path) -> None:
    done = run(tmp_path / "data", "completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bash, zsh, fish" in done.stderr


@pytest.mark.usefixtures("chat_on_path")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("chat trans", ["transports"]), ("chat config set bel", ["bell"]), ("chat config set bell a", ["all"])],
)
def test_bash_completes(tmp_path: Path, typed: str, completed: list[str]) -> None:
    if BINARIES["bash"] is None:
        pytest.skip("bash is not installed")
    words = typed.split(" ")
    script = (
        'eval "$(chat completion bash)"\n'
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        '_chat_completion chat; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [BINARIES["bash"], "--norc", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if "nosort" in done.stderr:
        pytest.skip("this bash is older than 4.4")
    assert done.stdout.split() == completed
    assert (done.stderr, (tmp_path / "complaints").read_text()) == ("", "")


def test_rooms_and_transports_are_offered(tmp_path: Path) -> None:
    def values(offer: Any, incomplete: str) -> list[str]:
        return list(offer(click.Context(click.Command("x")), click.Option(["-t"]), incomplete))

    assert values(options.complete_room, "") == []
    with host(tmp_path / "one", "kitchen"), host(tmp_path / "two", "厨房"):
        assert values(options.complete_room, "") == ["kitchen", "厨房"]
        assert values(options.complete_room, "ki") == ["kitchen"]
        assert values(options.complete_room, "x") == []
    assert "tcp" in values(options.complete_transport, "")
    assert values(options.complete_transport, "tc") == ["tcp"]


def test_settings_are_offered(tmp_path: Path) -> None:
    assert offered(tmp_path, "config", "get", "the") == ["theme"]
    assert "keys.send" in offered(tmp_path, "config", "set", "keys.")
    assert offered(tmp_path, "config", "set", "theme", "d") == ["dark"]
    assert offered(tmp_path, "config", "set", "mouse", "") == ["true", "false"]
    assert offered(tmp_path, "config", "set", "time_format", "") == []
    assert offered(tmp_path, "config", "set", "no_such_setting", "") == []
    assert offered(tmp_path, "completion", "") == ["bash", "zsh", "fish"]


def test_nothing_is_said_where_nothing_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand in the middle of the line that somebody types."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "file"))
    context, option = click.Context(click.Command("x")), click.Option(["-t"])
    assert options.complete_room(context, option, "") == []
    assert options.complete_value(context, option, "") == []
