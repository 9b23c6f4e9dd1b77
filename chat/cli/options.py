"""Options and arguments that several commands share; ``chat completion``, and what the shell offers after Tab.

Rules of completion:

1. Nothing is raised or printed: it would land in the line that is being typed.
2. Nothing is waited for: no host is dialled. A transport is loaded only to see if another user's host lives.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import click
from click import option

from chat import i18n
from chat.cli.help import command

HISTORY: Final = 50  # past messages that a face starts with
SHELLS: Final = {  # how to install the script of each
    "bash": """put into ~/.bashrc:  eval "$(chat completion bash)\"""",
    "zsh": """put into ~/.zshrc, below compinit:  eval "$(chat completion zsh)\"""",
    "fish": """run once:  chat completion fish > ~/.config/fish/completions/chat.fish""",
}


@command()
@click.argument("shell", metavar="SHELL", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print a script with which SHELL completes chat's commands, options, rooms and transports.

    Its last line says how to install it.
    """
    from click.shell_completion import ShellComplete, get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    chat = click.get_current_context().find_root().command
    # Not BashComplete's own, which starts a bash and prints complaints about its version.
    source = ShellComplete.source(made(chat, {}, "chat", "_CHAT_COMPLETE"))
    click.echo(f"{source.rstrip()}\n# to use it, {SHELLS[shell]}")  # not the first line, where zsh expects its mark


def complete_room(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    with suppress(Exception):
        from chat.local.rooms import records

        return [record.name for record in records() if record.name.startswith(incomplete)]
    return []


def complete_transport(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    with suppress(Exception):
        from chat.transport.registry import schemes

        return [name for name in schemes() if name.startswith(incomplete)]
    return []


def complete_setting(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    with suppress(Exception):
        from chat.local.settings import NAMES

        return [name for name in NAMES if name.startswith(incomplete)]
    return []


def complete_value(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The setting is named before its value; most have any value."""
    with suppress(Exception):
        from chat.local.settings import choices

        return [value for value in choices(context.params["name"]) if value.startswith(incomplete)]
    return []


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
    "-t", "--transport", metavar="NAME", default="", shell_complete=complete_transport, help="Use only this transport."
)
target: Final = click.argument("target", default="", shell_complete=complete_room)
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
