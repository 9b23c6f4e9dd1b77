"""A user's settings: config.toml, checked into one ``Settings``, with a default for everything.

    ~/.config/manywire/config.toml   or $CHAT_CONFIG       TOML 1.0 (https://toml.io/en/v1.0.0)
      theme = "dark"                                       a setting
      [keys]
      send = ["alt+enter"]                                 an action and its keys

Rules:

1. A broken file never stops a command. What cannot be understood is reported and has its default; the rest holds.
2. ``Settings`` is the only table. The checks, the file that ``chat config edit`` starts with and the reference page
   come from it.
3. No setting names a program or a file: whoever can write here can change how chat looks, no more.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from contextlib import suppress
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from chat.core.errors import ChatError, Text, WrongValue, reason
from chat.local.descriptors import BOM
from chat.local.keys import KEYS, Key, near, rebind
from chat.local.private_files import config_file, locked, read_regular, replace_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

path: Final = config_file
# bytes of the settings; of a longer file nothing is used, and a line says so (exit code 1 from chat config check)
MAX_FILE: Final = 256 * 1024
_DEEPEST: Final = 32  # levels of tables and lists


# -- the table -----------------------------------------------------------------------------------


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """Every setting: its type, bounds, what it is for, and as a ``Text`` what is allowed if the type does not say."""

    theme: Annotated[
        Literal["auto", "dark", "light", "high-contrast", "none"], "Colours. auto: readable on dark and on light"
    ] = "auto"
    language: Annotated[
        Literal["auto", "en", "zh"], "Language of chat's own texts. auto: from LC_ALL, LC_MESSAGES or LANG"
    ] = "auto"
    time_format: Annotated[
        str,
        "Time shown beside a message, in strftime format; empty: none",
        Text("a format of one line with at most 32 characters as its result"),
    ] = "%H:%M"
    side_bar: Annotated[
        Literal["auto", "always", "never"], "The list of members. auto: if the screen is wide enough"
    ] = "auto"
    mouse: Annotated[bool, "The wheel scrolls; selecting text then takes Shift"] = False
    emoji_names: Annotated[bool, "Turn :smile: into the emoji"] = True
    emoji: Annotated[
        Literal["auto", "whole", "reduced"],
        "Families, flags and skin tones. auto: whole if the terminal draws them so; reduced: one emoji, or letters",
    ] = "auto"
    paste_confirm_lines: Annotated[int, Meta(ge=0, le=10_000), "Ask before pasting more lines than this; 0: never"] = 20
    bell: Annotated[Literal["mention", "all", "never"], "Which messages ring the terminal's bell"] = "mention"
    notify: Annotated[
        Literal["bell", "auto", "osc9", "osc99", "osc777"],
        "How the terminal tells of such a message: by its bell, or by a notification of the desktop while its window "
        "is not in use. auto: the kind that the terminal is known for, else the bell",
    ] = "bell"
    terminal_title: Annotated[bool, "Show the room and how much is unread in the terminal's title"] = True
    quiet_hours: Annotated[
        str, "Hours without a bell, in local time; empty: none", Text('two times like "22:00-07:00", or ""')
    ] = ""
    away_minutes: Annotated[
        int, Meta(ge=0, le=1440), "You are shown as away after this long without a key; 0: never"
    ] = 10
    muted: Annotated[tuple[str, ...], "Rooms whose messages ring no bell", Text('a list of rooms, like ["lobby"]')] = ()
    ignore: Annotated[
        tuple[str, ...],
        "People whose messages are hidden",
        Text("a list of fingerprints as printed by `chat id`, or of keys as 64 hex digits"),
    ] = ()
    keys: Annotated[
        dict[str, tuple[str, ...]],
        "Your own keys, by action",
        Text('a table of lists, like send = ["Alt+Enter", "Ctrl+X Ctrl+S"]'),
    ] = {}

    def is_quiet(self, now: time) -> bool:
        """Say whether the quiet hours are on at this time of day."""
        if not self.quiet_hours:
            return False
        begin, end = map(time.fromisoformat, self.quiet_hours.split("-"))
        return begin <= now < end if begin < end else now >= begin or now < end


DEFAULTS: Final = Settings()
_FIELDS: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}
_KEYS: Final = {row.action: row for row in KEYS}
NAMES: Final = (*(name for name in _FIELDS if name != "keys"), *(f"keys.{action}" for action in _KEYS))


# -- reading -------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What ``load`` made of a file."""

    path: Path
    settings: Settings
    lines: dict[str, int]  # the line that sets each of ``NAMES``
    problems: list[Text]  # one line each, from PATH:LINE: on


def load(file: Path | None = None) -> Found:
    """Read the settings in ``file``, or in ``path()``. Raises nothing: see ``problems``."""
    file = file or path()
    try:
        text = _read(file)
        data = _parse(file, text)
    except FileNotFoundError:
        return Found(file, DEFAULTS, {}, [])
    except ChatError as error:
        return Found(file, DEFAULTS, {}, [error.words])
    lines = _lines(text)
    if isinstance(own := data.get("keys"), dict):
        del data["keys"]
        data |= {f"keys.{action}": keys for action, keys in own.items()}
    good: dict[str, Any] = {}
    own_keys: dict[str, tuple[str, ...]] = {}
    problems: list[tuple[int, Text]] = []
    for name, value in sorted(data.items(), key=lambda item: item[0] != "keys.send"):  # before others take Enter
        table, _, action = name.rpartition(".")
        try:
            checked = check(name, value)
            if table:
                _rebind(name, KEYS, own_keys | {action: checked})  # raises if another action has one of its keys
                own_keys[action] = checked
            else:
                good[name] = checked
        except WrongValue as error:
            problems.append((lines.get(name, 1), error.words))
    settings = Settings(**good, keys=own_keys)
    lines = {name: line for name, line in lines.items() if name in NAMES}
    texts = [Text("{name}: {why}", name=f"{file}:{line}", why=why) for line, why in sorted(problems)]
    return Found(file, settings, lines, texts)


def _rebind(name: str, table: Iterable[Key], changes: dict[str, tuple[str, ...]]) -> None:
    try:
        rebind(table, changes)
    except WrongValue as error:
        raise WrongValue("{name}: {why}", name=name, why=error) from None


def complaint(problems: list[Text]) -> Text:
    """Return one line about all of them."""
    more = Text(", and {count} more", count=len(problems) - 1) if len(problems) > 1 else ""
    return Text("{problem}{more}; using the default; see: chat config check", problem=problems[0], more=more)


def check(name: str, value: object) -> Any:
    """Return the value of a setting as ``Settings`` holds it. Raises ValueError with what is allowed."""
    table, _, action = name.rpartition(".")
    if table != "keys" and name not in _FIELDS:
        raise WrongValue("unknown setting {name!r}; {hint}", name=name, hint=near(name, _FIELDS))
    try:
        checked = msgspec.convert(value, tuple[str, ...] if table else _FIELDS[name])
        checked = _checked_more(name, checked)
    except (msgspec.ValidationError, ValueError) as error:
        why = "" if isinstance(error, msgspec.ValidationError) else Text(" ({why})", why=error)
        shown = toml(value)
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        raise WrongValue(
            "{name} cannot be {shown}{why}; allowed: {allowed}", name=name, shown=shown, why=why, allowed=allowed(name)
        ) from None
    if table:
        _rebind(name, [_KEYS[action]] if action in _KEYS else KEYS, {action: checked})
    return checked


def allowed(name: str) -> Text:
    """Describe the values that a setting may have."""
    if name.startswith("keys."):
        return Text('a list of keys, like ["Alt+Enter", "Ctrl+X Ctrl+S"]')
    kind, *more = get_args(_FIELDS[name])
    if isinstance(more[-1], Text):
        return more[-1]
    if kind is bool:
        return Text("true or false")
    if kind is int:
        return Text("a whole number from {least} to {most}", least=more[0].ge, most=more[0].le)
    if kind is str:
        return Text("any text")
    *first, last = map(toml, get_args(kind))
    return Text("{values} or {last}", values=", ".join(first), last=last)


def choices(name: str) -> tuple[str, ...]:
    """Return the values of a setting that has only a few, else nothing."""
    if name not in _FIELDS:
        return ()
    kind = get_args(_FIELDS[name])[0]
    return ("true", "false") if kind is bool else tuple(one for one in get_args(kind) if isinstance(one, str))


_TIME: Final = r"(?:[01]\d|2[0-3]):[0-5]\d"
_WHO: Final = re.compile(r"SHA256:[\w-]{43}|[0-9a-f]{64}", re.ASCII)


def _checked_more(name: str, value: Any) -> Any:
    """Check what the type does not, and return the value in its normal form. Raises ValueError."""
    if name == "quiet_hours" and value:
        if not re.fullmatch(f"{_TIME}-{_TIME}", value, re.ASCII):
            raise WrongValue("these are not two times joined by a dash")
        if value[:5] == value[6:]:
            raise WrongValue("the two times are the same")
    elif name == "time_format":
        made = datetime(2026, 12, 30, 20, 15, 30, tzinfo=UTC).strftime(value)  # two digits each
        if len(made) > 32 or (made and not made.isprintable()):
            raise WrongValue("it gives {made!r}", made=made)
    elif name == "ignore":
        for who in value:
            if not _WHO.fullmatch(who):
                raise WrongValue("{who!r} is neither", who=who)
    elif name == "muted":
        from chat.core.text import room_name  # 8 ms that most commands need not wait for

        return tuple(map(room_name, value))
    return value


def _read(file: Path) -> str:
    """Raises FileNotFoundError, ChatError."""
    try:
        facts, data = read_regular(file, MAX_FILE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ChatError("{file}:1: cannot be read: {why}", file=file, why=reason(error)) from None
    if not stat.S_ISREG(facts.st_mode):
        raise ChatError("{file}:1: not a regular file; put the settings into one", file=file)
    if len(data) > MAX_FILE:
        raise ChatError("{file}:1: longer than {limit} bytes; shorten it", file=file, limit=MAX_FILE)
    try:
        return data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ChatError("{file}:{line}: this is not UTF-8 text; save it as UTF-8", file=file, line=line) from None


def _parse(file: Path, text: str) -> dict[str, Any]:
    """Raises ChatError with the line and what is wrong with it."""
    try:
        return _loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
        raise ChatError(
            "{file}:{line}: this is not TOML: {what}", file=file, line=line, what=what[:1].lower() + what[1:]
        ) from None
    except RecursionError:
        raise ChatError("{file}:1: this is not TOML: it is nested too deeply", file=file) from None


def _loads(text: str) -> dict[str, Any]:
    """Raises TOMLDecodeError; RecursionError for what is nested too deeply for whatever reads it next."""
    data = tomllib.loads(text)
    level: list[Any] = [data]
    for _depth in range(_DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for some in inner for one in some]
    if level:
        raise RecursionError
    return data


_LINE: Final = re.compile(r"\s*(?:\[\s*([\w-]+)\s*\]|(?:([\w-]+)\s*\.\s*)?([\w-]+)\s*=)")


def _lines(text: str) -> dict[str, int]:
    """Return the line, from 1, of each setting and table: tomllib does not say.

    A line of a multi-line string may be taken for a setting, but no setting is such a string.
    """
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if match := _LINE.match(line):
            header, dotted, name = match.groups()
            table = header or table
            parts = [header] if header else [part for part in (table, dotted, name) if part]
            found.setdefault(parts[0], number)
            found.setdefault(".".join(parts), number)
    return found


# -- writing -------------------------------------------------------------------------------------


def toml(value: object) -> str:
    """Return a value as TOML. Its strings are those of JSON, except for U+007F."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {toml(one)}' for name, one in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str | bool | int):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)  # a float or a date, for an error


def value_of(settings: Settings, name: str) -> Any:
    """Return a setting by its name in ``NAMES``. Raises ValueError."""
    table, _, action = name.rpartition(".")
    if name == "keys":
        raise WrongValue("keys is a table; name one action, like keys.{action}", action=KEYS[0].action)
    if name not in NAMES:
        check(name, ())  # raises what fits
    return settings.keys.get(action, _KEYS[action].keys) if table else getattr(settings, name)


def parse(name: str, text: str) -> Any:
    """Return the value that was typed for a setting. Raises ValueError.

    A text is taken as it is; a list is TOML, or its members separated by commas.
    """
    default = value_of(DEFAULTS, name)
    value: object = text
    if isinstance(default, tuple) and not text.startswith("["):
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif not isinstance(default, str):
        with suppress(tomllib.TOMLDecodeError, RecursionError):  # ``check`` says what is allowed
            value = _loads(f"value = {text}")["value"]
    return check(name, value)


def change(file: Path, name: str, value: object) -> None:
    """Change one setting in a file, and keep the rest, its comments and its order. A missing file is created.

    ``value`` comes from ``check`` or ``parse``. This waits for the disk: an event loop calls it in a thread. Raises
    ChatError, and then nothing has changed.
    """
    target = file.resolve()  # replacing a link would cut it off from its target, such as a dotfile under git
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock")):
            try:
                old, mode = _read(file), stat.S_IMODE(target.stat().st_mode)
            except FileNotFoundError:
                old, mode = template(), 0o600
            os.close(replace_private(target, changed(file, old, name, value).encode(), mode))
    except OSError as error:
        raise ChatError("cannot write {file}: {why}", file=file, why=reason(error)) from None


def changed(file: Path, text: str, name: str, value: object) -> str:
    """Return the text of ``file`` with one setting changed. Raises ChatError."""
    import tomlkit  # 26 ms that only a change need wait for

    def place(document: Any) -> Any:
        return document.setdefault(table, {}) if table else document

    table, _, key = name.rpartition(".")
    wanted = _parse(file, text)
    newline = "\r\n" if "\r\n" in text else "\n"
    text = text.replace("\r\n", "\n")
    document = tomlkit.parse(text)
    try:
        if key not in place(wanted):  # then it belongs below its default, if that is there as a comment
            for default in re.finditer(rf"^#{key} = .*\n", text, re.MULTILINE):
                draft = tomlkit.parse(f"{text[: default.end()]}{key} = 0\n{text[default.end() :]}")
                if key in place(draft):
                    document = draft
                    break
        place(wanted)[key] = place(document)[key] = list(value) if isinstance(value, tuple) else value
        made = tomlkit.dumps(document)
        if tomllib.loads(made) == wanted:
            return made.replace("\n", newline)
    except (TypeError, ValueError, RecursionError, tomlkit.exceptions.TOMLKitError):  # "keys" is no table, for one
        pass
    raise ChatError(
        "{name} cannot be changed by a command in {file} as it is written; use: chat config edit", file=file, name=name
    )


def edit(file: Path) -> None:
    """Open a file in ``$VISUAL`` or ``$EDITOR``, and wait for it. A missing file is created. Raises ChatError."""
    import shlex
    import subprocess

    try:
        command = shlex.split(os.environ.get("VISUAL", "") or os.environ.get("EDITOR", "")) or ["vi"]
    except ValueError as error:
        raise ChatError(
            "cannot parse VISUAL or EDITOR: {why}; correct the variable", why=Text(str(error).lower())
        ) from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), file.open("x", encoding="utf-8") as made:
            made.write(template())
    except OSError as error:
        raise ChatError("cannot write {file}: {why}", file=file, why=reason(error)) from None
    try:
        code = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise ChatError(
            "cannot run {command}: {why}; set EDITOR to an installed editor", command=command[0], why=reason(error)
        ) from None
    if code:
        raise ChatError(
            "{command} ended with exit code {code}; try again to change the settings", command=command[0], code=code
        )


def template() -> str:
    """Return the file to start with: every default, as a comment."""
    made = ["# Settings of chat. Commented lines show the defaults. To check this file: chat config check", ""]
    for name in _FIELDS:
        if name != "keys":
            made += [f"# {summary(name)}. Allowed: {allowed(name)}", f"#{name} = {toml(getattr(DEFAULTS, name))}", ""]
    made += [f"# {summary('keys')}.", "[keys]"]
    made += [f"#{row.action} = {toml(row.keys)}  # {row.help}" for row in KEYS]
    return "\n".join((*made, ""))


def summary(name: str) -> str:
    return next(one for one in get_args(_FIELDS[name])[1:] if isinstance(one, str))
