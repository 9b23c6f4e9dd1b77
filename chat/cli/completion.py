"""What the shell offers after Tab: rooms that are open on this machine, and installed transports.

Rules:

1. Nothing is raised and nothing is printed: it would stand in the middle of the line that somebody types.
2. Nobody is waited for: no host is dialled, no transport loaded.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import click

from chat.cli.help import command

SHELLS: Final = {  # and how to use the script that each gets
    "bash": """put into ~/.bashrc:  eval "$(chat completion bash)\"""",
    "zsh": """put into ~/.zshrc, below compinit:  eval "$(chat completion zsh)\"""",
    "fish": """run once:  chat completion fish > ~/.config/fish/completions/chat.fish""",
}


def script(command: click.Command, shell: str) -> str:
    """Return the script that makes a shell complete ``chat``, and in its last line how to install it.

    The last: zsh wants its own mark in the first one.
    """
    from click.shell_completion import ShellComplete, get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    # Not BashComplete's own: it starts a bash, and prints what it thinks of its version.
    source = ShellComplete.source(made(command, {}, "chat", "_CHAT_COMPLETE"))
    return f"{source.rstrip()}\n# to use it, {SHELLS[shell]}\n"


def rooms(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete TARGET by the rooms that are open on this machine."""
    with suppress(Exception):
        from chat.local.rooms import records

        return [card.room for card in records() if card.room.startswith(incomplete)]
    return []


def transports(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a transport."""
    with suppress(Exception):
        from chat.transport import schemes

        return [name for name in schemes() if name.startswith(incomplete)]
    return []


def setting_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a setting."""
    with suppress(Exception):
        from chat.local.settings import NAMES

        return [name for name in NAMES if name.startswith(incomplete)]
    return []


def setting_values(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the value of the setting that is named before it, where there are few."""
    with suppress(Exception):
        from chat.local.settings import choices

        return [value for value in choices(context.params["name"]) if value.startswith(incomplete)]
    return []


@command(name="completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def print_completion(shell: str) -> None:
    """Print a script with which SHELL completes chat's commands, options, rooms and transports.

    Its last line says how to install it.
    """
    click.echo(script(click.get_current_context().find_root().command, shell), nl=False)
