"""``chat config``: show, change and check the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import complain
from chat.core.errors import FAILED
from chat.i18n import _, translate

if TYPE_CHECKING:
    from collections.abc import Iterator

_setting: Final = click.argument("name", metavar="KEY", shell_complete=options.complete_setting)


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def config(context: click.Context) -> None:
    """Show every setting and where its value comes from."""
    if context.invoked_subcommand:
        return
    from chat.local import settings

    found = settings.load()
    for name in settings.NAMES:
        where = f"{found.path}:{found.lines[name]}" if name in found.lines else "default"
        click.echo(f"{name:<20}  {settings.toml(settings.value_of(found.settings, name)):<26}  {where}")
    if found.problems:
        complain(translate(settings.complaint(found.problems)), FAILED)


@config.command(name="get")
@_setting
def get_setting(name: str) -> None:
    """Print the value of KEY."""
    from chat.local import settings

    value = settings.value_of(settings.load().settings, name)
    click.echo(value if isinstance(value, str) else settings.toml(value))


@config.command(name="set")
@_setting
@click.argument("value", shell_complete=options.complete_value)
def set_setting(name: str, value: str) -> None:
    """Set KEY to VALUE and leave the rest of the file as it is.

    Separate the members of a list with commas.
    """
    from chat.local import settings

    settings.change(settings.path(), name, settings.parse(name, value))
    found = settings.load()
    for line in _taken_keys(found.settings.keys, name.removeprefix("keys.")):
        click.echo(line)
    if problems := found.problems:  # such as two actions that share a key
        complain(translate(settings.complaint(problems)), FAILED)


def _taken_keys(changes: dict[str, tuple[str, ...]], action: str = "") -> Iterator[str]:
    """Yield a line for each key that one action took from another; only for ``action``, if given."""
    from chat.local.keys import KEYS, rebind

    now = {key: row.action for row in rebind(KEYS, changes) for key in row.keys}
    message = _("{key} now does {action}, no longer {other}")
    for row in KEYS:
        for key in row.keys if row.action not in changes else ():
            if (has := now.get(key, row.action)) != row.action and action in ("", has):
                yield message.format(key=key, action=has, other=row.action)


@config.command(name="check")
def check_settings() -> None:
    """Check the settings.

    Prints a line for each problem; exit code 1 if there is one.
    """
    from chat.core.text import visible
    from chat.local import settings

    found = settings.load()
    problems = found.problems
    for line in (*map(translate, problems), *_taken_keys(found.settings.keys)):
        click.echo(visible(line, lines=False))
    if problems:
        raise click.exceptions.Exit(FAILED)


@config.command(name="edit")
@click.pass_context
def edit_settings(context: click.Context) -> None:
    """Open the settings in your editor ($VISUAL, $EDITOR), then check them.

    A missing file is created, with every default as a comment.
    """
    from chat.local import settings

    settings.edit(settings.path())
    context.invoke(check_settings)


@config.command(name="path")
def settings_path() -> None:
    """Print the path of the settings file."""
    from chat.local import settings

    click.echo(str(settings.path()))
