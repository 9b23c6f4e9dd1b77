"""``chat completion``, and what the shell offers after Tab: rooms, transports and settings.

Rules:

1. Nothing is raised or printed: it would land in the line that is being typed.
2. Nothing is waited for: no host is dialled, no transport loaded.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import click

from chat.cli.help import command

SHELLS: Final = {  # how to install the script of each
    "bash": """put into ~/.bashrc:  eval "$(chat completion bash)\"""",
    "zsh": """put into ~/.zshrc, below compinit:  eval "$(chat completion zsh)\"""",
    "fish": """run once:  chat completion fish > ~/.config/fish/completions/chat.fish""",
}


def script(command: click.Command, shell: str) -> str:
    """Return the script that makes a shell complete ``chat``. Its last line says how to install it.

    Not the first, where zsh expects a mark of its own.
    """
    from click.shell_completion import ShellComplete, get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    # Not BashComplete's own, which starts a bash and prints complaints about its version.
    source = ShellComplete.source(made(command, {}, "chat", "_CHAT_COMPLETE"))
    return f"{source.rstrip()}\n# to use it, {SHELLS[shell]}\n"


def rooms(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete TARGET with the rooms open on this machine."""
    with suppress(Exception):
        from chat.local.rooms import records

        return [record.room for record in records() if record.room.startswith(incomplete)]
    return []


def transports(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a transport."""
    with suppress(Exception):
        from chat.transport.registry import schemes

        return [name for name in schemes() if name.startswith(incomplete)]
    return []


def setting_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a setting."""
    with suppress(Exception):
        from chat.local.settings import NAMES

        return [name for name in NAMES if name.startswith(incomplete)]
    return []


def setting_values(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the value of the setting named before it, if it has only a few."""
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
