"""Keys: what a terminal sends for each, and how they are bound to actions."""

from __future__ import annotations

import pytest
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output import DummyOutput

from chat.local.keys import KEYS, Key, label, rebind, sequence


def test_actions_are_unique() -> None:
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
