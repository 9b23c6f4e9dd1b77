"""The commands: one table under all faces, from which help, completion and docs/reference/keys.md are made.

A row is carried out by ``Controller.do_NAME``, or by a face's own method of that name. Rules:

1. A text that begins with a slash is a command or is not sent, even if it looks like a path. ``//`` is a literal slash.
   Blanks before the slash do not count on a single line; in a text of several lines they do, since it may be code.
2. A command that is not understood (mistyped, too few or too many arguments) does nothing.
"""

from __future__ import annotations

import difflib
import re
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.outgoing import split_body
from chat.core.text import quoted
from chat.core.wire import Kind
from chat.i18n import _, later
from chat.local.keys import KEYS, Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chat.core.outgoing import OutboxEntry

SCREEN: Final = "screen"  # the full-screen face
LINES: Final = "lines"  # the linear face


class Usage(NamedTuple):
    """One command of the table."""

    name: str  # without the slash
    argument: str  # a sketch; brackets mean optional. The first word says what completes it
    help: str
    only: str = ""  # the one face that has it
    program: tuple[str, ...] | None = None  # the fields that a program's object needs; None: not for programs


COMMANDS: Final = (
    Usage("help", "[COMMAND]", later("list what you can type; with COMMAND, explain it")),
    Usage("me", "TEXT", later("an action: /me waves"), program=("text",)),
    Usage("quit", "", later("leave"), program=()),
    Usage("who", "[NICK]", later("list who is here; with NICK, describe a member, present or not"), program=()),
    Usage("nick", "NAME", later("take another nickname in this room; your key stays the same")),
    Usage("join", "[TARGET]", later("enter another room by name, address or invite; alone, list rooms")),
    Usage("rooms", "", later("list the rooms of this window, and those open on this machine")),
    Usage("part", "", later("leave this room; the others stay open")),
    Usage("room", "ROOM", later("go to a room that is open in this window")),
    Usage("msg", "NICK [TEXT]", later("talk to one member in private")),
    Usage(
        "reply",
        "[TEXT]",
        later("answer the selected message, or else the last one by somebody else"),
        program=("target", "text"),
    ),
    Usage("quote", "", later("quote the selected message, or else the last one by somebody else")),
    Usage("edit", "[TEXT]", later("correct the selected message, or else your last one"), program=("target", "text")),
    Usage("retract", "", later("take back the selected message, or else your last one"), program=("target",)),
    Usage("undo", "", later("bring back what you took back within the last minute")),
    Usage(
        "react",
        "EMOJI",
        later("react to the selected message, or else to the last one, with an emoji"),
        program=("target",),
    ),
    Usage("search", "TEXT", later("find messages with this text")),
    Usage("unread", "", later("go to the first message that you have not read"), only=SCREEN),
    Usage("mention", "", later("go to the last message that mentions you")),
    Usage("copy", "", later("copy the selected message, or else the last one, to the clipboard"), only=SCREEN),
    Usage("details", "", later("show what is known about the selected message, or else the last one")),
    Usage("ignore", "[NICK]", later("hide what somebody says; without NICK, list whom you ignore")),
    Usage("unignore", "WHO", later("stop ignoring somebody; WHO is a nickname or the start of a fingerprint")),
    Usage("bell", "on|off", later("bell and unread mark for this room, or neither")),
    Usage("away", "[NOTE]", later("show that you are away"), program=()),
    Usage("busy", "[NOTE]", later("show that you do not want to be disturbed"), program=()),
    Usage("back", "", later("show that you are back"), program=()),
    Usage("theme", "THEME", later("change the colours"), only=SCREEN),
    Usage("mouse", "", later("let the mouse scroll and click, or give it back to the terminal"), only=SCREEN),
    Usage("set", "[SETTING] [VALUE]", later("list the settings, show one, or change one")),
    Usage(
        "peer",
        "[NAME=]COMMAND",
        later("run a program as a member of this room; NAME= gives it a name"),
        program=("text",),
    ),
    Usage("invite", "[qr]", later("copy and show an invite to this room; with qr, as a QR code, too"), program=()),
    Usage("reopen", "", later("open the room of this window again after its process has ended")),
    Usage("kick", "NICK [REASON]", later("remove somebody from this room; they may come back"), program=("text",)),
    Usage(
        "ban",
        "NICK [TIME] [REASON]",
        later(
            "keep somebody out, for 10m, 2h, 7d or for good; --invite: and all who came by the same invite; "
            "--uid: also their user of this machine, --key: only their key"
        ),
        program=("text",),
    ),
    Usage("unban", "NICK", later("let somebody in again"), program=("text",)),
    Usage(
        "mute",
        "NICK [TIME] [REASON]",
        later("let somebody read and not write, for 10m, 2h, 7d or for good"),
        program=("text",),
    ),
    Usage("unmute", "NICK", later("let somebody write again"), program=("text",)),
    Usage("op", "NICK", later("make somebody an operator, who may do all of these"), program=("text",)),
    Usage("deop", "NICK", later("make an operator an ordinary member again"), program=("text",)),
    Usage(
        "topic",
        "[TEXT]",
        later("show what this room is about; with TEXT, set it; with -, remove it"),
        program=("text",),
    ),
    Usage("slow", "SECONDS|off", later("slow mode: seconds between two messages of one member"), program=("text",)),
    Usage(
        "remove",
        "",
        later("take back the selected message, or else the last one by somebody else"),
        program=("target",),
    ),
    Usage("roles", "", later("list operators, and who is muted or banned"), program=()),
    Usage("audit", "", later("show who decided what about whom, and why"), program=()),
    Usage("clear", "", later("clear the screen; no message is deleted"), only=SCREEN),
    Usage("numbers", "", later("turn message numbers on or off"), only=LINES),
)


# What other programs call them, for "did you mean" and for those who search; never carried out.
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
    "retract": "delete unsend",
    "search": "find grep",
    "mention": "highlight",
    "copy": "yank",
    "details": "info whois",
    "ignore": "block",
    "unignore": "unblock",
    "bell": "silence",
    "mute": "gag",
    "op": "promote",
    "away": "afk brb",
    "busy": "dnd",
    "theme": "colours colors",
    "set": "config settings",
    "peer": "bot exec",
    "clear": "cls",
}

# Keys of the input that prompt_toolkit binds; they cannot be changed.
EDITING: Final = (
    ("Tab", later("complete a nickname, a /command, a #room or an :emoji:")),
    ("Up, Down", later("go through what you sent here; in a text of several lines, move between lines first")),
    ("Ctrl+A, Ctrl+E, Ctrl+W, Alt+B, Alt+F …", later("move and delete as in a shell (Emacs)")),
)


# What newcomers look for, by the names of commands and actions. Typing in the help searches all of them.
ESSENTIALS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    (
        later("TALK"),
        {
            "send": later("send"),
            "newline": later("new line"),
            "reply": later("answer"),
            "react": later("react"),
            "edit": later("correct"),
            "retract": later("take back"),
            "search": later("find messages"),
        },
    ),
    (
        later("ROOMS"),
        {
            "switcher": later("go to anything"),
            "join": later("enter another room"),
            "msg": later("talk in private"),
            "invite": later("invite a friend"),
            "part": later("leave this room"),
        },
    ),
    (
        later("PEOPLE"),
        {
            "who": later("who is here"),
            "nick": later("take another name"),
            "away": later("show you are away"),
            "ignore": later("hide somebody"),
        },
    ),
    (
        later("WINDOW"),
        {
            "page-up": later("scroll up"),
            "bottom": later("to the newest"),
            "select-previous": later("select a message"),
            "theme": later("change the colours"),
            "set": later("settings"),
            "leave": later("leave, pressed twice"),
        },
    ),
)
_GROUPS: Final[dict[str, str]] = {  # of all commands and keys; those named nowhere are about talking
    later("ROOMS"): "switcher join rooms room room-1 part msg invite peer topic reopen",
    later("PEOPLE"): "who nick ignore unignore away busy back",
    later("MODERATION"): "kick ban unban mute unmute op deop slow remove roles audit",
    later(
        "WINDOW"
    ): "page-up page-down top bottom select-previous select-next stop unread mention theme mouse set bell "
    "clear help redraw suspend leave leave-if-empty quit",
}


USAGES: Final = {usage.name: usage for usage in COMMANDS}
_MEANT: Final = {name: name for name in USAGES} | {
    other: name for name, others in _ELSEWHERE.items() for other in others.split()
}
_OPTIONAL: Final = re.compile(r"\[[^]]*\]")
_WORD: Final = 20  # characters shown of a mistyped command
_HELP_COLUMN: Final = 26  # columns of the longest command; longer keys do not push the help of the others aside


# -- what is typed ------------------------------------------------------------------------------------


class NeedsArgument(ValueError):
    """A command without its argument. ``kind``: what the table calls it."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Command(NamedTuple):
    """A command of the table, with an argument if it needs one."""

    name: str
    argument: str = ""


def parse(line: str) -> str | Command:
    """Return the text of a message, or a command. Spaces and line breaks at the end do not count.

    Raises ValueError for a command that is not understood: one line that says why, and what to do.
    """
    line = line.rstrip()
    if "\n" not in line and line.lstrip().startswith("/"):
        line = line.lstrip()
    if not line.startswith("/"):
        return line
    if line.startswith("//"):
        return line[1:]
    word, argument = [*line[1:].split(maxsplit=1), "", ""][:2] if not line[1:2].isspace() else ("", "")
    usage = USAGES.get(word.lower())
    if usage is None:
        message = _("/{word} is not a command and was not sent; {hint} //text sends /text")
        raise ValueError(message.format(word=quoted(word, _WORD), hint=_hint(word, _("see /help."))))
    if not argument and _OPTIONAL.sub("", usage.argument).strip():
        message = _("/{name} needs an argument: {usage} ({help})")
        text = message.format(name=usage.name, usage=written(usage), help=_(usage.help))
        raise NeedsArgument(text, usage.argument.split()[0])
    if argument and not usage.argument:
        message = _("/{name} takes no argument; nothing was done, and “{argument}” was not sent")
        raise ValueError(message.format(name=usage.name, argument=quoted(argument, _WORD)))
    return Command(usage.name, argument)


def typed_again(rejected: Iterable[OutboxEntry]) -> list[str]:
    """Return what to type to say these again: ordinary messages as one, then each action.

    Replies, edits and reactions are left out: without their target they would say something else.
    """
    bodies = [(entry.kind, *split_body(entry.kind, entry.flags, entry.body)) for entry in rejected]
    said = "\n".join(text for kind, text, target in bodies if kind == Kind.SAY and not target)
    if said.lstrip().startswith("/"):
        said = "/" + said.lstrip()
    actions = [f"/me {text}" for kind, text, _target in bodies if kind == Kind.ACTION]
    return [text for text in (said, *actions) if text.strip()]


def _hint(word: str, otherwise: str) -> str:
    """Return which command was probably meant."""
    word = word.lower()[:_WORD]
    near = [word] if word in _MEANT else [name for name in USAGES if word and name.startswith(word)]
    if len(near) != 1:
        near = difflib.get_close_matches(word, _MEANT, n=1)
    return _("did you mean /{name}?").format(name=_MEANT[near[0]]) if near else otherwise


def rooms_like(wanted: str, names: Sequence[str]) -> list[int]:
    """Return the indexes of the names with these letters in this order, the most likely one first."""
    found = [at for at, name in enumerate(names) if span(wanted.casefold(), name.casefold()) is not None]
    return sorted(found, key=lambda at: len(names[at])) if wanted else found


def span(word: str, text: str) -> tuple[int, int] | None:
    """Return where the letters of a word stand in a text, in this order and close together; None if they do not."""
    at = -1
    for letter in word:
        at = text.find(letter, at + 1)
        if at < 0:
            return None
    begin = end = at + 1
    for letter in reversed(word):  # from the end found: the nearest ones before it
        begin = text.rindex(letter, 0, begin)
    return begin, end


def commands_of(face: str) -> list[Usage]:
    """Return the commands of one of the faces for people."""
    return [usage for usage in COMMANDS if usage.only in ("", face)]


def written(usage: Usage) -> str:
    """Return how to type a command: ``/msg NICK [TEXT]``."""
    return f"/{usage.name} {usage.argument}".rstrip()


# -- help ---------------------------------------------------------------------------------------------


def other_words(name: str) -> str:
    """Return what people may look for if they want this command: its names elsewhere, and the words for newcomers."""
    return " ".join((_ELSEWHERE.get(name, ""), *(_(names[name]) for _group, names in ESSENTIALS if name in names)))


def help_groups(keys: Sequence[Key] = KEYS) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return all that can be typed or pressed on the full screen: headings, and under each what it is and does.

    The third text is for those who search, as ``other_words`` gives it.
    """
    pressed = {key.action: key.keys for key in keys}
    rows = [
        (usage.name, ", ".join((written(usage), *pressed.get(usage.name, ()))), _(usage.help))
        for usage in commands_of(SCREEN)
    ]
    rows.append(("", "//text", _("a message that begins with a slash: /text")))
    known = set(USAGES)
    for what, alike in groupby((row for row in keys if row.keys), key=lambda row: row.help):
        first, *others = alike
        if first.action not in known:
            last = f" … {others[-1].keys[0]}" if others else ""
            rows.append((first.action, ", ".join(first.keys) + last, _(what)))
    rows += [("", left, _(right)) for left, right in EDITING]
    place: dict[str, str] = {name: group for group, names in _GROUPS.items() for name in names.split()}
    groups: dict[str, list[tuple[str, str, str]]] = {group: [] for group in (later("TALK"), *_GROUPS)}
    for name, left, right in rows:
        groups[place.get(name, "TALK")].append((left, right, other_words(name)))
    return [(_(group), found) for group, found in groups.items()]


def essentials(keys: Sequence[Key] = KEYS) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what newcomers look for, in the same form."""
    pressed = {key.action: key.keys[0] for key in keys if key.keys}
    return [
        (
            _(group),
            [
                (" ".join(filter(None, (f"/{name}" if name in USAGES else "", pressed.get(name)))), _(what))
                for name, what in names.items()
            ],
        )
        for group, names in ESSENTIALS
    ]


def help_lines(keys: Iterable[Key] = KEYS) -> list[str]:
    """Return a line for each command and key, in two columns."""
    rows = [(written(usage), usage.help) for usage in commands_of(SCREEN)]
    rows.append(("//text", later("a message that begins with a slash: /text")))
    for what, alike in groupby((row for row in keys if row.keys), key=lambda row: row.help):
        first, *others = alike
        rows.append((", ".join(first.keys) + (f" … {others[-1].keys[0]}" if others else ""), what))
    rows += EDITING
    return [f"{left:{_HELP_COLUMN}}  {_(right)}" for left, right in rows]


def help_on(word: str, keys: Iterable[Key] = KEYS) -> str:
    """Return one line about a command or an action, with its keys; or that there is none."""
    word = word.strip().removeprefix("/").lower()
    row = next((row for row in keys if row.action == word), None)
    pressed = f" ({', '.join(row.keys)})" if row and row.keys else ""
    if usage := USAGES.get(word):
        return f"{written(usage)}: {_(usage.help)}{pressed}"
    if row:
        return f"{word}: {_(row.help)}{pressed}"
    hint = _hint(word, _("/help lists them all"))
    return _("there is no command /{word}; {hint}").format(word=quoted(word, _WORD), hint=hint)
