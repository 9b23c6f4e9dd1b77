"""Keys: which there are, what each does, and what a user's settings make of them.

Rules:

1. A key is written as people read it: ``Ctrl+X Ctrl+E``, ``Alt+Up``. prompt_toolkit's own names are read too.
2. One key, one action. Keys that people type text with cannot be bound.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.errors import Text, WrongValue
from chat.i18n import later

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Key(NamedTuple):
    """One action of the table, and the keys that do it."""

    action: str
    keys: tuple[str, ...]
    help: str

    @property
    def sequences(self) -> list[tuple[str, ...]]:
        """The keys as ``KeyBindings.add`` takes them."""
        return [sequence(key) for key in self.keys]


KEYS: Final = (
    Key(
        "send",
        ("Enter",),
        later("send the message, or carry out the command; in an empty input, show all of a long message"),
    ),
    Key("newline", ("Alt+Enter", "Ctrl+J"), later("begin a new line")),
    Key("editor", ("Ctrl+X Ctrl+E",), later("edit the message in $VISUAL or $EDITOR")),
    Key("page-up", ("PageUp",), later("scroll up")),
    Key("page-down", ("PageDown",), later("scroll down")),
    Key("top", ("Ctrl+Home",), later("go to the first message")),
    Key("bottom", ("Ctrl+End",), later("go to the last message, and follow")),
    Key("select-previous", ("Alt+Up",), later("select a message, then the one above")),
    Key("select-next", ("Alt+Down",), later("select the message below; below the last one, select none")),
    Key("reply", ("Alt+R",), later("answer it")),
    Key("quote", ("Alt+Q",), later("quote it")),
    Key("edit", ("Alt+E",), later("correct it, if it is yours")),
    Key("retract", ("Alt+X", "Alt+Delete"), later("take it back, if it is yours")),
    Key("undo", ("Alt+Z",), later("bring back what you took back within the last minute")),
    Key("react", ("Alt+A",), later("react to it with an emoji")),
    Key("copy", ("Alt+C",), later("copy it to the terminal's clipboard")),
    Key("details", ("Alt+I",), later("show what is known about it")),
    Key("search", ("Ctrl+F",), later("find messages")),
    Key("previous-hit", ("Alt+P",), later("go to the hit above")),
    Key("next-hit", ("Alt+N",), later("go to the hit below")),
    Key(
        "stop",
        ("Escape",),
        later("go one step back: stop what is running, close a list, an answer, a search; at last go to the end"),
    ),
    Key("unread", ("Alt+U",), later("go to the first message that you have not read")),
    Key("mention", ("Alt+M",), later("go to the last message that mentions you")),
    *(Key(f"room-{n}", (f"Alt+{n}",), later("go to the room of this number")) for n in range(1, 10)),
    Key("switcher", ("Ctrl+K",), later("go to a room, a person, a command or a setting")),
    Key("mouse", ("F2",), later("let the mouse scroll and click, or give it back to the terminal")),
    Key("help", ("F1",), later("show this")),
    Key("redraw", ("Ctrl+L",), later("draw the screen again")),
    Key("suspend", ("Ctrl+Z",), later("suspend; fg in the shell comes back")),
    Key("leave", ("Ctrl+C",), later("clear the input (Up brings it back); if it is empty, leave on the second press")),
    Key("leave-if-empty", ("Ctrl+D",), later("leave if the input is empty")),
)

_HELD: Final = {"ctrl": "c", "c": "c", "alt": "alt", "meta": "alt", "a": "alt", "m": "alt", "shift": "s", "s": "s"}
_SHOWN: Final = {
    "c-m": "Enter",
    "c-i": "Tab",
    "c-h": "Backspace",
    "c-@": "Ctrl+Space",
    " ": "Space",
    "pageup": "PageUp",
    "pagedown": "PageDown",
}


def sequence(key: str) -> tuple[str, ...]:
    """Return a key as ``KeyBindings.add`` takes it: ``("c-x", "c-e")`` for ``Ctrl+X Ctrl+E`` or ``c-x c-e``.

    A terminal sends Alt and a key as Escape and that key. Raises ValueError with one line for what is no key of
    prompt_toolkit, and for one that people type text with.
    """
    from prompt_toolkit.keys import ALL_KEYS, KEY_ALIASES  # here: it loads all of prompt_toolkit

    made: list[str] = []
    for chord in key.split():
        *held, name = re.split(r"[+-](?=.)", chord)
        modifiers = {_HELD.get(one.lower(), one) for one in held}
        if name.lower() == "space" and "c" not in modifiers:
            name = " "
        if len(name) == 1 and modifiers <= {"alt", "s"}:
            name = name.upper() if "s" in modifiers else name.lower()
        else:
            name = ("c-" if "c" in modifiers else "") + ("s-" if "s" in modifiers else "") + name.lower()
            name = KEY_ALIASES.get(name, name)
            if name not in ALL_KEYS or name.startswith("<"):  # <any>, a paste, the mouse
                modifiers.add(chord)
        if modifiers - {"c", "alt", "s"}:
            raise WrongValue("{chord!r} is no key; keys are written like Ctrl+X, Alt+Up, F5 or PageUp", chord=chord)
        made += ["escape", name] if "alt" in modifiers else [name]
    if not made:
        raise WrongValue("a key is empty; keys are written like Ctrl+X, Alt+Up, F5 or PageUp")
    if len(made[0]) == 1:
        raise WrongValue("{key!r} cannot be bound, it is for typing; add Ctrl+ or Alt+", key=key)
    return tuple(made)


def label(keys: Iterable[str]) -> str:
    """Return a sequence as people read it; ``sequence`` reads it back."""
    made = []
    alt = ""
    for key in keys:
        if key == "escape" and not alt:
            alt = "Alt+"
            continue
        made.append(alt + _label(key))
        alt = ""
    return " ".join([*made, "Escape"] if alt else made)


def _label(key: str) -> str:
    if key in _SHOWN:
        return _SHOWN[key]
    if len(key) == 1:
        return key.upper() if key == key.lower() else f"Shift+{key}"
    shown = ""
    for held, name in (("c-", "Ctrl+"), ("s-", "Shift+")):
        if key.startswith(held):
            key, shown = key.removeprefix(held), shown + name
    return shown + _SHOWN.get(key, key.capitalize())


def near(name: str, known: Iterable[str]) -> Text:
    """Return the hint for an unknown name: the known one most like it, or all of them."""
    if found := difflib.get_close_matches(name, known, n=1):
        return Text("did you mean {near!r}?", near=found[0])
    return Text("there are: {known}", known=", ".join(known))


def rebind(table: Iterable[Key], changes: Mapping[str, Iterable[str]]) -> tuple[Key, ...]:
    """Return the table with other keys for some actions: ``{"send": ["Alt+Enter"], "newline": ["Enter"]}``.

    A key that is given to one action is taken from the defaults of the others. Raises ValueError with one line for
    an unknown action, for what is no key, for a key that is given to two actions, and where nothing would send.
    """
    rows = {row.action: row for row in table}
    given: dict[str, str] = {}
    for action, keys in changes.items():
        if action not in rows:
            from chat.core.text import visible  # 7 ms that most commands need not wait for

            shown = visible(action, lines=False)[:20]
            raise WrongValue("there is no action {action!r}; {hint}", action=shown, hint=near(action, rows))
        rows[action] = rows[action]._replace(keys=tuple(label(sequence(key)) for key in keys))
        for key in rows[action].keys:
            if given.setdefault(key, action) != action:
                raise WrongValue(
                    "the key {key} is given to {other!r} and to {action!r}; take it from one of them",
                    key=key,
                    other=given[key],
                    action=action,
                )
    for action, row in rows.items():
        rows[action] = row._replace(keys=tuple(key for key in row.keys if given.get(key, action) == action))
    if "send" in rows and not rows["send"].keys:
        raise WrongValue("no key would send what is typed; give one to 'send'")
    return tuple(rows.values())
