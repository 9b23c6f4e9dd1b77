"""Which language the commands speak, who decides it, and what is in English in every language."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from wcwidth import wcswidth

from chat.cli import chat
from chat.words import catalogue
from tests.commands.programs import Program, host, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_ROOM = "no room is open on this machine; open one with: chat host"
CHINESE = catalogue("zh")
ENGLISH_LOCALE = {"LC_ALL": "C.UTF-8", "CHAT_LANG": ""}


@pytest.mark.parametrize(
    ("arguments", "setting", "environment", "spoken"),
    [
        ("rooms", "", {}, "en"),
        ("rooms", "", {"LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ("rooms", "zh", {}, "zh"),
        ("rooms", "en", {"LC_ALL": "zh_CN.UTF-8"}, "en"),
        ("--lang zh rooms", "", {}, "zh"),
        ("rooms --lang zh", "", {}, "zh"),
        ("rooms --lang zh", "en", {}, "zh"),
        ("--lang en rooms --lang zh", "", {}, "zh"),
        ("rooms --lang en", "zh", {"LC_ALL": "zh_CN.UTF-8"}, "en"),
        ("--lang auto rooms", "zh", {}, "en"),
        ("rooms --lang auto", "en", {"LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ("rooms", "en", {"CHAT_LANG": "zh"}, "zh"),
        ("--lang en rooms", "", {"CHAT_LANG": "zh"}, "en"),
    ],
)
def test_the_option_then_the_setting_then_the_locale_decides(
    tmp_path: Path, arguments: str, setting: str, environment: dict[str, str], spoken: str
) -> None:
    config = tmp_path / "config.toml"
    if setting:
        config.write_text(f'language = "{setting}"\n')
    done = run(tmp_path, *arguments.split(), **ENGLISH_LOCALE | {"CHAT_CONFIG": str(config)} | environment)
    assert done.returncode == 4
    assert done.stderr == f"chat: {NO_ROOM if spoken == 'en' else CHINESE[NO_ROOM]}\n"


@pytest.mark.parametrize("arguments", ["--lang fr rooms", "rooms --lang fr"])
def test_a_language_that_is_none_gets_one_line(tmp_path: Path, arguments: str) -> None:
    done = run(tmp_path, *arguments.split(), **ENGLISH_LOCALE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("chat: invalid value for '--lang': 'fr' is not one of 'en', 'zh', 'auto'; see: chat")
    assert done.stderr.count("\n") == 1


def test_lists_for_people_are_translated_and_what_people_wrote_is_not(tmp_path: Path) -> None:
    said = "you are shown as away"  # as chat itself says it
    assert CHINESE[said] != said
    with host(tmp_path / "host"), Program(tmp_path / "bob", "join", "--json", "--as=bob") as bob:
        bob.until("joined")
        here = "1 member"
        assert f" {CHINESE[here].format(count=1)} " in run(tmp_path, "rooms", "--lang=zh").stdout
        member = run(tmp_path / "ann", "join", "--plain", "--lang=zh", "--as=ann", stdin=f"{said}\n/away {said}\n")
        assert f" ann: {said} #" in member.stdout
        assert f"* {CHINESE[said]}\n" in member.stdout
        with Program(tmp_path / "ann", "join", "--json", "--as=ann") as ann:
            ann.until("joined")
        bob.say("typing", "1")
        bob.until("stored")
        assert run(tmp_path, "log", "--lang=zh").stdout.splitlines()[-1].endswith(" bob: typing")


def test_what_programs_read_is_english_in_every_language(tmp_path: Path) -> None:
    def checked(language: str) -> list[dict[str, str]]:
        done = run(tmp_path, "doctor", "--json", "--lang", language)
        return [json.loads(line) for line in done.stdout.splitlines() if '"clock"' not in line and '"disk"' not in line]

    assert checked("zh") == checked("en") != []
    with host(tmp_path / "host", "--lang=zh"), Program(tmp_path / "ann", "join", "--json", "--lang=zh") as ann:
        ann.until("joined")
        assert run(tmp_path / "ann", "who", "--json", "--lang=zh").stdout.isascii()
        assert ann.finish() == 0
        assert all(json.dumps(event).isascii() for event in ann.seen)


def test_doctor_and_the_hints_of_a_host_speak_chinese(tmp_path: Path) -> None:
    told = run(tmp_path, "doctor", "--lang=zh").stdout
    assert CHINESE["none: standard input or output is something else, so chat shows plain lines"] in told
    assert CHINESE["your key is made on first use"] in told


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(chat)), ids=" ".join)
def test_the_help_of_every_command_is_chinese_and_fits_a_terminal(tmp_path: Path, path: tuple[str, ...]) -> None:
    done = run(tmp_path, *path, "--help", LC_ALL="zh_CN.UTF-8", COLUMNS="80")
    assert done.returncode == 0
    usage, _, *lines = done.stdout.splitlines()
    assert usage.startswith(f"{CHINESE['Usage:']} chat")
    assert f"{CHINESE['Options']}:" in lines
    assert lines[-1].endswith(CHINESE["Show this message and exit."]) or f"{CHINESE['Commands']}:" in lines
    assert max(map(wcswidth, lines)) <= 80
    assert not re.search(r"[A-Za-z]{3,} [a-z]{3,} [a-z]+", "\n".join(lines)), "here is English"
    spoken = run(tmp_path, "--lang=zh", *path, "--help", **ENGLISH_LOCALE, COLUMNS="80")
    assert spoken.stdout == done.stdout


def test_a_look_reads_no_settings_and_no_catalogue(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        code = "import sys; sys.argv = ['chat', 'who', '--fast']; from chat.cli import main; main()"
        command = [sys.executable, "-X", "importtime", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "chat.sight" in loaded
        assert not loaded & {"chat.settings", "chat.face.commands", "tomllib", "prompt_toolkit"}
