"""The help of every command, in Chinese and in the width of a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest
from wcwidth import wcswidth

from chat.cli.main import chat
from chat.i18n import catalogue
from tests.cli.programs import run_here, run_in_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHINESE = catalogue("zh")
ENGLISH_LOCALE = {"LC_ALL": "C.UTF-8", "CHAT_LANG": ""}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(chat)), ids=" ".join)
def test_the_help_of_every_command_is_chinese_and_fits_a_terminal(tmp_path: Path, path: tuple[str, ...]) -> None:
    done = run_here(tmp_path, *path, "--help", LC_ALL="zh_CN.UTF-8", COLUMNS="80")
    assert done.returncode == 0
    usage, _, *lines = done.stdout.splitlines()
    assert usage.startswith(f"{CHINESE['Usage:']} chat")
    assert f"{CHINESE['Options']}:" in lines
    assert lines[-1].endswith(CHINESE["Show this message and exit."]) or f"{CHINESE['Commands']}:" in lines
    assert max(map(wcswidth, lines)) <= 80
    assert not re.search(r"[A-Za-z]{3,} [a-z]{3,} [a-z]+", "\n".join(lines)), "here is English"
    for spoken in (
        run_here(tmp_path, "--lang=zh", *path, "--help", **ENGLISH_LOCALE, COLUMNS="80"),
        run_here(tmp_path, *path, "--help", LC_ALL="C.UTF-8", CHAT_LANG="zh", COLUMNS="80"),
    ):
        assert spoken.stdout == done.stdout


def wrong(command: click.Command) -> Iterator[list[str]]:
    """Yield wrong arguments for a command: everything that click itself complains of."""
    yield ["--nonsense"]
    if all(one.nargs != -1 for one in command.params) and not isinstance(command, click.Group):
        yield ["x"] * (len(command.params) + 1)
    if any(isinstance(one, click.Argument) and one.required for one in command.params):
        yield []
    for one in command.params:
        match one, one.type:
            case click.Option(opts=[*_, name], is_flag=True), _:
                yield [f"{name}=1"]
                continue
            case click.Option(opts=[*_, name]), _:
                yield [name]
                before = [f"{name}="] if name.startswith("--") else [name]
            case _:
                before = [""]
        match one.type:
            case click.Choice() | click.IntRange() | click.types.IntParamType():
                yield [*before[:-1], before[-1] + "many"] if before != ["-n"] else ["-n", "-7"]
            case click.Path(exists=True):
                yield [before[-1] + "/no/such/file"]
            case click.Path(dir_okay=False):
                yield [before[-1] + "/"]
            case click.Path(file_okay=False):
                yield [before[-1] + __file__]


@pytest.mark.parametrize("path", list(commands(chat)), ids=" ".join)
def test_what_click_complains_of_is_said_in_one_line_of_ours_in_both_languages(
    tmp_path: Path, path: tuple[str, ...]
) -> None:
    command: click.Command = chat
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    for given in wrong(command):
        for language in ("en", "zh"):
            done = run_in_process(tmp_path, *path, *given, CHAT_LANG=language)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (given, done)
            assert not re.search(
                "[Ii]nvalid value|[Nn]o such option|[Mm]issing (arg|opt)|Got |got |does not|requires", done.stderr
            )
            assert not re.search("range|integer|Directory|File|Error|'-", done.stderr), done.stderr
            if language == "zh":
                assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", done.stderr.partition("chat ")[0]), done.stderr


def test_a_wrong_environment_variable_is_named_as_it_was_set(tmp_path: Path) -> None:
    for name, value in (("CHAT_LANG", "xx"), ("CHAT_DATA", __file__), ("CHAT_LOG_HISTORY", "many")):
        done = run_here(tmp_path, "log", **{name: value})
        assert done.returncode == 2
        assert done.stderr.startswith(f"chat: {name} is invalid: ")
