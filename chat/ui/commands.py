"""What can be typed and which keys there are: two tables, of which all else that tells of them is made.

``/help``, F1, completion, "did you mean" and docs/reference/keys.md come from ``COMMANDS`` and ``KEYS``. Rules:

1. What begins with a slash is a command or is not sent, also where it looks like a path. ``//`` is a literal slash.
   On a single line blanks before the slash do not count; in several lines they are what is said, as code may be.
2. A command that is not understood (mistyped, without what it needs, with what it does not take) does nothing.
3. A key is written as people read it: ``Ctrl+X Ctrl+E``, ``Alt+Up``. prompt_toolkit's own names are read too.
4. One key, one action. Keys that people type text with cannot be bound.
"""

from __future__ import annotations

import difflib
import re
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chat.core.errors import Text, WrongValue
from chat.core.text import visible
from chat.i18n import _, later

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Usage(NamedTuple):
    """One command of the table."""

    name: str  # without the slash
    argument: str  # a sketch; what stands in brackets may be left out. The first word says what completes it
    help: str

    @property
    def needs_argument(self) -> bool:
        return bool(re.sub(r"\[[^]]*\]", "", self.argument).strip())


class Key(NamedTuple):
    """One action of the table, and the keys that do it."""

    action: str
    keys: tuple[str, ...]
    help: str

    @property
    def sequences(self) -> list[tuple[str, ...]]:
        """The keys as ``KeyBindings.add`` takes them."""
        return [sequence(key) for key in self.keys]


COMMANDS: Final = (
    Usage("help", "[COMMAND]", later("what you can type; with a command, what it does")),
    Usage("me", "TEXT", later("an action: /me waves")),
    Usage("quit", "", later("leave")),
    Usage("who", "[NICK]", later("who is here; with a nickname, what is known of one, who may have left")),
    Usage("join", "[TARGET]", later("enter another room: its name, an address or an invite; alone, it lists some")),
    Usage("rooms", "", later("list the rooms of this window, and those open on this machine")),
    Usage("part", "", later("leave this room; the others stay open")),
    Usage("room", "ROOM", later("go to a room that is open in this window")),
    Usage("msg", "NICK [TEXT]", later("speak with one member alone")),
    Usage("reply", "[TEXT]", later("answer the selected message, else the last one of somebody else")),
    Usage("quote", "", later("put the selected message, else the last one of somebody else, into the input")),
    Usage("edit", "[TEXT]", later("correct the selected message, else your last one")),
    Usage("retract", "", later("take back the selected message, else your last one")),
    Usage("react", "EMOJI", later("answer the selected message, else the last one, with an emoji")),
    Usage("search", "TEXT", later("find messages with this text")),
    Usage("unread", "", later("go to the first message that you have not read")),
    Usage("mention", "", later("go to the last message that names you")),
    Usage("copy", "", later("copy the selected message, else the last one, to the terminal's clipboard")),
    Usage("details", "", later("what is known of the selected message, else of the last one")),
    Usage("ignore", "[NICK]", later("hide what somebody says, from now on; without NICK, list who is ignored")),
    Usage("unignore", "WHO", later("show it again; WHO is a nickname, or the begin of a fingerprint")),
    Usage("mute", "", later("no bell and no mark for this room")),
    Usage("unmute", "", later("bell and mark again")),
    Usage("away", "[NOTE]", later("tell that you are away")),
    Usage("busy", "[NOTE]", later("tell that you do not want to be disturbed")),
    Usage("back", "", later("tell that you are here again")),
    Usage("theme", "THEME", later("change the colours")),
    Usage("mouse", "", later("let the mouse scroll and click, or give it back to the terminal")),
    Usage("set", "[SETTING] [VALUE]", later("show the settings, show one, or change one")),
    Usage("peer", "[NAME=]COMMAND", later("make a program a member of this room")),
    Usage("invite", "", later("show an invite to this room")),
    Usage("clear", "", later("empty the screen; nothing is taken back")),
)

# What other programs call them: told as "did you mean", never obeyed.
_ELSEWHERE: Final = {
    "help": "h commands keys",
    "me": "action emote",
    "quit": "q exit bye disconnect",
    "who": "names users online",
    "rooms": "list channels",
    "join": "j",
    "part": "leave close",
    "room": "switch buffer",
    "msg": "dm query w tell",
    "quote": "cite",
    "edit": "correct",
    "retract": "delete remove unsend",
    "search": "find grep",
    "mention": "highlight",
    "copy": "yank",
    "details": "info whois",
    "ignore": "block",
    "unignore": "unblock",
    "mute": "silence",
    "away": "afk brb",
    "busy": "dnd",
    "theme": "colours colors",
    "set": "config settings",
    "peer": "bot exec",
    "clear": "cls",
}

KEYS: Final = (
    Key("send", ("Enter",), later("send what is typed, or do what the command asks for")),
    Key("newline", ("Alt+Enter", "Ctrl+J"), later("begin a new line")),
    Key("editor", ("Ctrl+X Ctrl+E",), later("go on typing in $VISUAL or $EDITOR")),
    Key("page-up", ("PageUp",), later("scroll up")),
    Key("page-down", ("PageDown",), later("scroll down")),
    Key("top", ("Ctrl+Home",), later("go to the first message")),
    Key("bottom", ("Ctrl+End",), later("go to the last message, and follow")),
    Key("select-previous", ("Alt+Up",), later("select a message, then the one above")),
    Key("select-next", ("Alt+Down",), later("select the message below; none below the last")),
    Key("reply", ("Alt+R",), later("answer it")),
    Key("quote", ("Alt+Q",), later("put it into the input")),
    Key("edit", ("Alt+E",), later("correct it, where it is yours")),
    Key("retract", ("Alt+X", "Alt+Delete"), later("take it back, where it is yours")),
    Key("react", ("Alt+A",), later("answer it with an emoji")),
    Key("copy", ("Alt+C",), later("copy it to the terminal's clipboard")),
    Key("details", ("Alt+I",), later("show what is known of it")),
    Key("search", ("Ctrl+F",), later("find messages")),
    Key("previous-hit", ("Alt+P",), later("go to the hit above")),
    Key("next-hit", ("Alt+N",), later("go to the hit below")),
    Key(
        "stop",
        ("Escape",),
        later("stop what is at work (the bar below), else leave what was begun: a list, a search, an answer"),
    ),
    Key("unread", ("Alt+U",), later("go to the first message that you have not read")),
    Key("mention", ("Alt+M",), later("go to the last message that names you")),
    *(Key(f"room-{n}", (f"Alt+{n}",), later("go to the room of this number")) for n in range(1, 10)),
    Key("switcher", ("Ctrl+K",), later("go to a room by some letters of its name")),
    Key("mouse", ("F2",), later("let the mouse scroll and click, or give it back to the terminal")),
    Key("help", ("F1",), later("show this")),
    Key("redraw", ("Ctrl+L",), later("draw the screen again")),
    Key("suspend", ("Ctrl+Z",), later("suspend; fg in the shell comes back")),
    Key("leave", ("Ctrl+C",), later("clear what is typed (Up brings it back); leave, where nothing is typed")),
    Key("leave-if-empty", ("Ctrl+D",), later("leave, where nothing is typed")),
)

# Keys of the input that prompt_toolkit binds, and that cannot be changed here.
EDITING: Final = (
    ("Tab", later("complete a nickname, a /command, a #room or an :emoji:")),
    ("Up, Down", later("go through what you sent here; in several lines, move in them first")),
    ("Ctrl+A, Ctrl+E, Ctrl+W, Alt+B, Alt+F …", later("move and delete as in a shell (Emacs)")),
)


# -- what is typed ------------------------------------------------------------------------------------


class Say(NamedTuple):
    """A message."""

    text: str


class Action(NamedTuple):
    """What ``/me`` does."""

    text: str


class Command(NamedTuple):
    """A command of the table, with an argument if it needs one."""

    name: str
    argument: str = ""


class Unknown(NamedTuple):
    """A command that is not understood. Nothing may be sent or done; the line stays in the input."""

    told: str  # one line: why, and what to do
    near: str = ""  # the name of the command that was meant, where that is likely


Typed: TypeAlias = Say | Action | Command | Unknown

_USAGES: Final = {usage.name: usage for usage in COMMANDS}
_MEANT: Final = {name: name for name in _USAGES} | {
    other: name for name, others in _ELSEWHERE.items() for other in others.split()
}
_WORD: Final = 20  # characters of a mistyped command that are shown
_HELP_COLUMN: Final = 22  # the longest command; keys that are longer leave no less room for the help of all


def parse(line: str) -> Typed:
    """Return what the user asks for. Spaces and line breaks at the end do not count; an empty line says nothing."""
    line = line.rstrip()
    if "\n" not in line and line.lstrip().startswith("/"):
        line = line.lstrip()
    if not line.startswith("/"):
        return Say(line)
    if line.startswith("//"):
        return Say(line[1:])
    word, argument = [*line[1:].split(maxsplit=1), "", ""][:2] if not line[1:2].isspace() else ("", "")
    usage = _USAGES.get(word.lower())
    if word.lower() == "nick":
        return Unknown(_("a nickname is chosen on the way in: chat join --as NAME; nothing was sent"))
    if usage is None:
        near = near_command(word)
        hint = _("did you mean /{name}?").format(name=near) if near else _("see /help.")
        told = _("/{word} is no command and was not sent; {hint} //text sends /text")
        return Unknown(told.format(word=_short(word), hint=hint), near)
    if usage.needs_argument and not argument:
        told = _("/{name} needs something behind it: {usage} ({help})")
        return Unknown(told.format(name=usage.name, usage=written(usage), help=_(usage.help)), usage.name)
    if argument and not usage.argument:
        told = _("/{name} takes nothing behind it; nothing was done, and “{argument}” was not sent")
        return Unknown(told.format(name=usage.name, argument=_short(argument)), usage.name)
    return Action(argument) if usage.name == "me" else Command(usage.name, argument)


def near_command(word: str) -> str:
    """Return the name of the command that was meant, or ""."""
    word = word.lower()[:_WORD]
    if word in _MEANT:
        return _MEANT[word]
    begun = [name for name in _USAGES if word and name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    near = difflib.get_close_matches(word, _MEANT, n=1)
    return _MEANT[near[0]] if near else ""


def rooms_like(wanted: str, names: Sequence[str]) -> list[int]:
    """Return where the rooms stand whose names have these letters in this order, the most likely one first."""
    letters = re.compile(".*?".join(map(re.escape, wanted.casefold())))
    found = [at for at, name in enumerate(names) if letters.search(name.casefold())]
    return sorted(found, key=lambda at: len(names[at])) if wanted else found


def written(usage: Usage) -> str:
    """Return a command as one types it: ``/msg NICK [TEXT]``."""
    return f"/{usage.name} {usage.argument}".rstrip()


def _short(word: str) -> str:
    word = visible(word, lines=False)
    return word if len(word) <= _WORD else word[: _WORD - 1] + "…"


# -- keys ---------------------------------------------------------------------------------------------

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
    from prompt_toolkit.keys import (
        ALL_KEYS,
        KEY_ALIASES,
    )  # here: it loads all of prompt_toolkit, of which parse needs none

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


def rebind(table: Iterable[Key], changes: Mapping[str, Iterable[str]]) -> tuple[Key, ...]:
    """Return the table with other keys for some actions: ``{"send": ["Alt+Enter"], "newline": ["Enter"]}``.

    A key that is given to one action is taken from the defaults of the others. Raises ValueError with one line for
    an unknown action, for what is no key, for a key that is given to two actions, and where nothing would send.
    """
    rows = {row.action: row for row in table}
    given: dict[str, str] = {}
    for action, keys in changes.items():
        if action not in rows:
            near = difflib.get_close_matches(action, rows, n=1)
            hint = Text("there are: {known}", known=", ".join(rows))
            if near:
                hint = Text("did you mean {near!r}?", near=near[0])
            raise WrongValue("there is no action {action!r}; {hint}", action=_short(action), hint=hint)
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


def taken_keys(changes: Mapping[str, Iterable[str]]) -> list[tuple[str, str, str]]:
    """Return each key that these changes take from an action: the key, that action, and the one that has it now."""
    now = {key: row.action for row in rebind(KEYS, changes) for key in row.keys}
    return [
        (key, row.action, now[key])
        for row in KEYS
        if row.action not in changes
        for key in row.keys
        if now.get(key, row.action) != row.action
    ]


# -- what tells of them -------------------------------------------------------------------------------


def help_lines(keys: Iterable[Key] = KEYS) -> list[str]:
    """Return all that can be typed and pressed, one thing a line, in two columns."""
    rows = [(written(usage), usage.help) for usage in COMMANDS]
    rows.append(("//text", later("a message that begins with a slash: /text")))
    for told, alike in groupby((row for row in keys if row.keys), key=lambda row: row.help):
        first, *others = alike
        rows.append((", ".join(first.keys) + (f" … {others[-1].keys[0]}" if others else ""), told))
    rows += EDITING
    return [f"{left:{_HELP_COLUMN}}  {_(right)}" for left, right in rows]


def help_on(word: str, keys: Iterable[Key] = KEYS) -> str:
    """Return one line on a command or an action, with its keys; or that there is none."""
    word = word.strip().removeprefix("/").lower()
    row = next((row for row in keys if row.action == word), None)
    pressed = f" ({', '.join(row.keys)})" if row and row.keys else ""
    if usage := _USAGES.get(word):
        return f"{written(usage)}: {_(usage.help)}{pressed}"
    if row:
        return f"{word}: {_(row.help)}{pressed}"
    near = near_command(word)
    hint = _("did you mean /{name}?").format(name=near) if near else _("/help lists them all")
    return _("there is no command /{word}; {hint}").format(word=_short(word), hint=hint)


def reference(keys: Iterable[Key] = KEYS) -> str:
    """Return the generated part of docs/reference/keys.md."""
    made = ["## Commands", "", "| command | |", "| --- | --- |"]
    made += [f"| `{written(usage)}` | {usage.help} |" for usage in COMMANDS]
    made += ["", "## Keys", "", "| action | keys | |", "| --- | --- | --- |"]
    made += [f"| `{row.action}` | {', '.join(row.keys)} | {row.help} |" for row in keys]
    made += ["", "## Keys of the input", "", "These cannot be changed.", "", "| keys | |", "| --- | --- |"]
    made += [f"| {pressed} | {what} |" for pressed, what in EDITING]
    return "\n".join(made) + "\n"
