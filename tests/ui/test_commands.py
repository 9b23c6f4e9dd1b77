"""The table of commands: what is typed, and the help that is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.local.keys import KEYS, rebind
from chat.ui import commands
from chat.ui.commands import (
    COMMANDS,
    EDITING,
    SCREEN,
    Command,
    commands_of,
    help_lines,
    help_on,
    parse,
    rooms_like,
)

# -- what is typed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hello", "hello"),
        ("hello \n", "hello"),
        (" /quit", Command("quit")),
        ("\t/msg ann hi", Command("msg", "ann hi")),
        (" //etc/hosts", "/etc/hosts"),
        ("  /* code\n   */", "  /* code\n   */"),
        ("", ""),
        ("//etc/hosts", "/etc/hosts"),
        ("///", "//"),
        ("/me waves", Command("me", "waves")),
        ("/me  waves\nand goes", Command("me", "waves\nand goes")),
        ("/quit", Command("quit")),
        ("/QUIT ", Command("quit")),
        ("/msg ann", Command("msg", "ann")),
        ("/msg ann hi\nyou", Command("msg", "ann hi\nyou")),
        ("/reply", Command("reply")),
        ("/peer bot=./bot --fast", Command("peer", "bot=./bot --fast")),
        ("/set", Command("set")),
        ("/join", Command("join")),
        ("/who", Command("who")),
        ("/who bob", Command("who", "bob")),
        ("/ignore", Command("ignore")),
    ],
)
def test_what_is_typed_is_what_is_meant(typed: str, meant: object) -> None:
    assert parse(typed) == meant


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/qit", "/qit is not a command and was not sent; did you mean /quit? //text sends /text"),
        ("/usr/bin is full", "/usr/bin is not a command and was not sent; see /help. //text sends /text"),
        ("/exit", "did you mean /quit?"),
        (" /qit", "/qit is not a command and was not sent; did you mean /quit?"),
        ("/nick", "/nick needs an argument: /nick NAME"),
        ("/dm ann hi", "did you mean /msg?"),
        ("/list", "did you mean /rooms?"),
        ("/uni", "did you mean /unignore?"),
        ("/w ann hi", "did you mean /msg?"),
        ("/", "see /help"),
        ("/ me waves", "see /help"),
        ("/me", "/me needs an argument: /me TEXT"),
        ("/msg", "/msg needs an argument: /msg NICK [TEXT]"),
        ("/peer", "/peer [NAME=]COMMAND"),
        ("/quit my job", "/quit takes no argument; nothing was done, and “my job” was not sent"),
        ("/quit\npasted text", "/quit takes no argument"),
        ("/\x1b[31mred", "/␛[31mred is not a command"),
        ("/" + "x" * 500, "/xxxxxxxxxxxxxxxxxxx… is not a command"),
    ],
)
def test_what_is_not_understood_is_told_on_one_line_and_not_done(typed: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        parse(typed)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_what_begins_with_a_slash_is_never_sent(text: str) -> None:
    try:
        meant: str | Command | None = parse("/" + text)
    except ValueError:
        meant = None
    if text.startswith("/"):
        assert meant == text.rstrip()
    else:
        assert not isinstance(meant, str)


def test_parsing_does_not_load_the_screen() -> None:
    code = "import sys; from chat.ui.commands import parse; parse('/quit'); print('prompt_toolkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_room_is_meant_by_some_letters_of_its_name() -> None:
    names = ["#lobby", "#garden", "@gad", "#Gd"]
    assert [names[at] for at in rooms_like("gd", names)] == ["#Gd", "@gad", "#garden"]
    assert [names[at] for at in rooms_like("@D", names)] == ["@gad"]
    assert rooms_like("", names) == [0, 1, 2, 3]
    assert rooms_like("g.d", names) == []


# -- the tables ---------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [usage.name for usage in COMMANDS]
    others = " ".join(commands._ELSEWHERE.values()).split()
    assert len(set(names + others)) == len(names + others)
    assert set(commands._ELSEWHERE) <= set(names)


# -- what tells of them -------------------------------------------------------------------------------


def test_help_and_the_reference_tell_of_all() -> None:
    table = rebind(KEYS, {"copy": ["f7"], "mouse": []})
    lines = help_lines(table)
    page = (Path(__file__).parents[2] / "docs/reference/keys.md").read_text("utf-8")
    for usage in commands_of(SCREEN):
        assert any(line.startswith(f"/{usage.name} ") and usage.help in line for line in lines)
    for usage in COMMANDS:
        assert f"`/{usage.name}" in page
    for row in table:
        left = "Alt+1 … Alt+9" if row.action.startswith("room-") else ", ".join(row.keys)
        assert not left or any(line.partition("  ")[0] == left and line.endswith(row.help) for line in lines)
    assert [line.split()[0] for line in lines if "let the mouse scroll" in line] == ["/mouse"]  # and no key
    for row in KEYS:
        assert f"| `{row.action}` | {', '.join(row.keys)} | {row.help} |" in page
    assert any(line.startswith("F7  ") for line in lines)
    assert all(keys in page and any(line.startswith(keys) for line in lines) for keys, _ in EDITING)
    assert (
        len({line.index(usage.help) for line, usage in zip(lines, commands_of(SCREEN), strict=False)}) == 1
    )  # one column


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("msg", "/msg NICK [TEXT]: talk to one member in private"),
        ("/copy", "/copy: copy the selected message, or else the last one, to the clipboard (Alt+C)"),
        ("page-up", "page-up: scroll up (PageUp)"),
        ("jion", "there is no command /jion; did you mean /join?"),
        ("zzz", "there is no command /zzz; /help lists them all"),
    ],
)
def test_help_on_one_thing(word: str, told: str) -> None:
    assert help_on(word) == told
