"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import click
from click import option

from chat import i18n
from chat.cli import completion

HISTORY: Final = 50  # past messages that a face starts with


def _choose_language(_context: click.Context, _parameter: click.Parameter, language: str | None) -> None:
    if language is not None:
        i18n.use(lambda: i18n.language(language, os.environ))


lang: Final = option(
    "--lang",
    type=click.Choice([*i18n.LANGUAGES, "auto"]),
    expose_value=False,
    is_eager=True,  # before --help
    callback=_choose_language,
    help="Language of chat's own texts. auto: follow the locale. Default: the setting `language`.",
)
data: Final = option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CHAT_DATA",
    show_envvar=True,
    help="Folder for keys, outboxes and hosted rooms.",
)
transport: Final = option(
    "-t",
    "--transport",
    metavar="NAME",
    default="",
    shell_complete=completion.transports,
    help="Use only this transport.",
)
target: Final = click.argument("target", default="", shell_complete=completion.rooms)
nick: Final = option(
    "--as",
    "nick",
    metavar="NICK",
    default="",
    envvar="CHAT_AS",
    show_envvar=True,
    help="Your nickname. Default: your login name.",
)
count: Final = partial(option, type=click.IntRange(0), show_default=True, metavar="N")
MESSAGES: Final = click.IntRange(0, 10_000)  # the most that a host goes back; --since goes further
NUMBER: Final = click.IntRange(1, 2**63 - 1)
json: Final = option("--json", is_flag=True, help="Print one JSON object per line, for programs.")
plain: Final = option(
    "--plain", is_flag=True, help="Print one line per message, for screen readers and dumb terminals."
)
