"""The help of every command, in Chinese and in the width of a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest
from wcwidth import wcswidth

from chat.cli.main import chat
from chat.i18n import catalogue
from tests.cli.programs import run_here

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
    spoken = run_here(tmp_path, "--lang=zh", *path, "--help", **ENGLISH_LOCALE, COLUMNS="80")
    assert spoken.stdout == done.stdout
