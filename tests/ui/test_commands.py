"""The tables of commands and keys: what is typed, what is bound, and what tells of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output import DummyOutput

from chat.ui import commands
from chat.ui.commands import (
    COMMANDS,
    EDITING,
    KEYS,
    Action,
    Command,
    Key,
    Say,
    Unknown,
    help_lines,
    help_on,
    label,
    parse,
    rebind,
    reference,
    rooms_like,
    sequence,
)

# -- what is typed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hello", Say("hello")),
        ("hello \n", Say("hello")),
        (" /quit", Command("quit")),
        ("\t/msg ann hi", Command("msg", "ann hi")),
        (" //etc/hosts", Say("/etc/hosts")),
        ("  /* code\n   */", Say("  /* code\n   */")),
        ("", Say("")),
        ("//etc/hosts", Say("/etc/hosts")),
        ("///", Say("//")),
        ("/me waves", Action("waves")),
        ("/me  waves\nand goes", Action("waves\nand goes")),
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
    assert type(parse(typed)) is type(meant)  # tuples of one text are equal, whatever their class


@pytest.mark.parametrize(
    ("typed", "near", "told"),
    [
        ("/qit", "quit", "/qit is no command and was not sent; did you mean /quit? //text sends /text"),
        ("/usr/bin is full", "", "/usr/bin is no command and was not sent; see /help. //text sends /text"),
        ("/exit", "quit", "did you mean /quit?"),
        (" /qit", "quit", "/qit is no command and was not sent; did you mean /quit?"),
        ("/nick bob", "", "a nickname is chosen on the way in: chat join --as NAME; nothing was sent"),
        ("/dm ann hi", "msg", "did you mean /msg?"),
        ("/list", "rooms", "did you mean /rooms?"),
        ("/uni", "unignore", "did you mean /unignore?"),
        ("/w ann hi", "msg", "did you mean /msg?"),
        ("/", "", "see /help"),
        ("/ me waves", "", "see /help"),
        ("/me", "me", "/me needs something behind it: /me TEXT"),
        ("/msg", "msg", "/msg needs something behind it: /msg NICK [TEXT]"),
        ("/peer", "peer", "/peer [NAME=]COMMAND"),
        ("/quit my job", "quit", "/quit takes nothing behind it; nothing was done, and “my job” was not sent"),
        ("/quit\npasted text", "quit", "/quit takes nothing"),
        ("/\x1b[31mred", "", "/␛[31mred is no command"),
        ("/" + "x" * 500, "", "/xxxxxxxxxxxxxxxxxxx… is no command"),
    ],
)
def test_what_is_not_understood_is_told_on_one_line_and_not_done(typed: str, near: str, told: str) -> None:
    unknown = parse(typed)
    assert isinstance(unknown, Unknown)
    assert told in unknown.told
    assert unknown.near == near
    assert "\n" not in unknown.told


@given(st.text(max_size=30))
def test_what_begins_with_a_slash_is_never_sent(text: str) -> None:
    typed = parse("/" + text)
    if not text.startswith("/"):
        assert not isinstance(typed, Say)
    else:
        assert typed == Say(text.rstrip())


def test_parsing_does_not_load_the_screen() -> None:
    code = "import sys; from chat.ui.commands import parse; parse('/qit'); print('prompt_toolkit' in sys.modules)"
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
    actions = [row.action for row in KEYS]
    assert len(set(actions)) == len(actions)


@pytest.mark.parametrize("row", KEYS, ids=[row.action for row in KEYS])
def test_each_key_is_one_and_is_written_as_it_is_shown(row: Key) -> None:
    keys = KeyBindings()
    for name, keys_of_it in zip(row.keys, row.sequences, strict=True):
        keys.add(*keys_of_it)(lambda _event: None)  # prompt_toolkit knows it
        assert label(keys_of_it) == name


def test_no_key_does_two_things() -> None:
    pressed = [keys for row in KEYS for keys in row.sequences]
    assert len(set(pressed)) == len(pressed)


@pytest.mark.parametrize(
    ("key", "bytes_sent"),
    [
        ("Alt+Enter", "\x1b\r"),
        ("Alt+Up", "\x1b[1;3A"),
        ("Alt+U", "\x1bu"),
        ("Alt+Shift+U", "\x1bU"),
        ("Alt+9", "\x1b9"),
        ("Alt+Delete", "\x1b[3;3~"),
        ("Ctrl+X Ctrl+E", "\x18\x05"),
        ("Ctrl+Home", "\x1b[1;5H"),
        ("Shift+Tab", "\x1b[Z"),
        ("PageUp", "\x1b[5~"),
        ("F1", "\x1bOP"),
        ("Ctrl+Space", "\x00"),
        ("Escape Escape", "\x1b\x1b"),
    ],
)
def test_a_key_is_what_a_terminal_sends_for_it(key: str, bytes_sent: str) -> None:
    keys = KeyBindings()
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        app: Application[str] = Application(key_bindings=keys)
        keys.add(*sequence(key))(lambda _event: app.exit(result="it"))
        keys.add("~")(lambda _event: app.exit(result="not it"))
        typed.send_text(bytes_sent + "~")
        assert app.run() == "it"


# -- keys of one's own --------------------------------------------------------------------------------


def keys_of(table: tuple[Key, ...], action: str) -> tuple[str, ...]:
    return next(row.keys for row in table if row.action == action)


@pytest.mark.parametrize(
    "written", ["c-x c-e", "ctrl+x ctrl+e", "Ctrl-X Ctrl-E", "CTRL+X  C-E"], ids=["names", "small", "dash", "mixed"]
)
def test_a_key_may_be_written_in_several_ways(written: str) -> None:
    assert sequence(written) == ("c-x", "c-e")


def test_other_spellings_of_one_key_are_one_key() -> None:
    assert sequence("Ctrl+M") == sequence("enter") == sequence("Return".replace("Return", "c-m"))
    assert sequence("alt+-") == ("escape", "-")
    assert sequence("Alt++") == ("escape", "+")
    assert sequence("escape up") == sequence("alt-up") == sequence("meta+Up")
    assert sequence("shift+ctrl+left") == sequence("c-s-left") == ("c-s-left",)


def test_actions_get_other_keys_and_the_rest_stays() -> None:
    table = rebind(KEYS, {"send": ["alt+enter"], "newline": ["enter", "c-j"], "react": ["f5"], "mouse": []})
    assert keys_of(table, "send") == ("Alt+Enter",)
    assert keys_of(table, "newline") == ("Enter", "Ctrl+J")
    assert keys_of(table, "react") == ("F5",)
    assert keys_of(table, "mouse") == ()
    changed = {"send", "newline", "react", "mouse"}
    assert [row for row in table if row.action not in changed] == [row for row in KEYS if row.action not in changed]
    assert [row.action for row in table] == [row.action for row in KEYS]


def test_a_key_that_is_given_away_is_taken_from_the_default() -> None:
    table = rebind(KEYS, {"react": ["ctrl+k"], "copy": ["alt+delete"]})
    assert keys_of(table, "switcher") == ()
    assert keys_of(table, "retract") == ("Alt+X",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sned": ["enter"]}, "there is no action 'sned'; did you mean 'send'?"),
        ({"zzz": ["enter"]}, "there is no action 'zzz'; there are: send, newline, "),
        ({"send": ["ctrl+enterr"]}, "'ctrl+enterr' is no key; keys are written like Ctrl+X, Alt+Up, F5 or PageUp"),
        ({"send": ["hyper+x"]}, "'hyper+x' is no key"),
        ({"send": ["alt+"]}, "'alt+' is no key"),
        ({"send": ["<any>"]}, "'<any>' is no key"),
        ({"send": ["ctrl+1+"]}, "'ctrl+1+' is no key"),
        ({"send": [" "]}, "a key is empty"),
        ({"copy": ["x"]}, "'x' cannot be bound, it is for typing; add Ctrl+ or Alt+"),
        ({"copy": ["shift+x"]}, "'shift+x' cannot be bound"),
        ({"copy": ["space"]}, "'space' cannot be bound"),
        ({"copy": ["c-k"], "edit": ["ctrl+k"]}, "the key Ctrl+K is given to 'copy' and to 'edit'; take it from one"),
        ({"newline": ["enter"]}, "no key would send what is typed; give one to 'send'"),
    ],
)
def test_what_cannot_be_bound_is_told_on_one_line(changes: dict[str, list[str]], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        rebind(KEYS, changes)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# -- what tells of them -------------------------------------------------------------------------------


def test_help_and_the_reference_tell_of_all() -> None:
    table = rebind(KEYS, {"copy": ["f7"], "mouse": []})
    lines = help_lines(table)
    page = reference()
    for usage in COMMANDS:
        assert any(line.startswith(f"/{usage.name} ") and usage.help in line for line in lines)
        assert f"`/{usage.name}" in page
    for row in table:
        left = "Alt+1 … Alt+9" if row.action.startswith("room-") else ", ".join(row.keys)
        assert not left or any(line.partition("  ")[0] == left and line.endswith(row.help) for line in lines)
    assert [line.split()[0] for line in lines if "let the mouse scroll" in line] == ["/mouse"]  # and no key
    for row in KEYS:
        assert f"| `{row.action}` | {', '.join(row.keys)} | {row.help} |" in page
    assert any(line.startswith("F7  ") for line in lines)
    assert all(keys in page and any(line.startswith(keys) for line in lines) for keys, _ in EDITING)
    assert len({line.index(usage.help) for line, usage in zip(lines, COMMANDS, strict=False)}) == 1  # one column


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("msg", "/msg NICK [TEXT]: speak with one member alone"),
        ("/copy", "/copy: copy the selected message, else the last one, to the terminal's clipboard (Alt+C)"),
        ("page-up", "page-up: scroll up (PageUp)"),
        ("jion", "there is no command /jion; did you mean /join?"),
        ("zzz", "there is no command /zzz; /help lists them all"),
    ],
)
def test_help_on_one_thing(word: str, told: str) -> None:
    assert help_on(word) == told
