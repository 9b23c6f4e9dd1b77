"""click's commands with translated help: the docstring, the ``help`` of options, and click's own words around them.

``scripts/messages`` finds help in the source: as ``help=`` of an option, or as a command's docstring. click wraps by
characters, and a Chinese one takes two columns: so a translation breaks its own lines, and a test checks that they fit.
"""

from __future__ import annotations

import difflib
import inspect
import re
from functools import partial
from typing import Any, Final

import click
from click.core import ParameterSource

from chat.core.errors import Text, WrongValue
from chat.i18n import _, later, translate

_OF_CLICK: Final = (later("Options"), later("Commands"), later("Show this message and exit."))
_OF_PATHS: Final = {
    "does not exist.": later("there is no such file"),
    "is a file.": later("it is a file, not a folder"),
    "is a directory.": later("it is a folder, not a file"),
    "is not readable.": later("you may not read it"),
}


class _Formatter(click.HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, _("Usage:") + " " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(_(heading))


class _Context(click.Context):
    formatter_class = _Formatter


class Command(click.Command):
    context_class = _Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Check that every text is UTF-8, whether from an argument or the environment. A path may be any bytes."""
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            given = ctx.params.get(parameter.name or "")
            if parameter.type is click.STRING and given:
                for text in given if isinstance(given, tuple) else (given,):
                    _check_text(text, _name(parameter, ctx))
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WrongValue as error:
            raise click.UsageError(translate(error), ctx) from None

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.help = self._translated()
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and parameter.help:
                parameter.help = _(parameter.help)
        super().format_help(ctx, formatter)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole first paragraph: click would cut it off in a list of commands."""
        return self._translated().partition("\n\n")[0].rstrip(".。")

    def _translated(self) -> str:
        english = inspect.cleandoc(self.help or "")
        return _(english)


class Group(Command, click.Group):
    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (name := args[0]) not in self.commands:
            if near := difflib.get_close_matches(name, self.commands, n=1):
                message = _("no such command '{name}'; did you mean '{near}'?")
                raise click.UsageError(message.format(name=name, near=near[0]))
            if not name.startswith("-"):
                raise click.UsageError(_("no such command '{name}'").format(name=name), ctx)
        return super().resolve_command(ctx, args)


def _check_text(text: str, name: str) -> None:
    """Raises UsageError for bytes that Python could not decode: it keeps them as surrogates (PEP 383)."""
    try:
        text.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        message = _("{name} is not UTF-8 text: byte {number} is wrong")
        raise click.UsageError(message.format(name=name, number=error.start + 1)) from None


def usage_error(error: click.UsageError) -> str:
    """Return our words for click's message about wrong usage: its own name a type, and are English."""
    match error:
        case click.NoSuchOption(option_name=option, possibilities=near):
            words = Text("there is no option {option}", option=option)
            if near:
                words = Text("{what}; did you mean {near}?", what=words, near=", ".join(sorted(near)))
        case click.BadOptionUsage(option_name=option) if error.message.endswith("requires an argument."):
            words = Text("the option {option} needs a value", option=option)
        case click.BadOptionUsage(option_name=option):
            words = Text("the option {option} takes no value", option=option)
        case click.BadParameter(param=click.Parameter() as parameter):
            name, why = _name(parameter, error.ctx), _wanted(parameter.type, error.message)
            words = Text("{name} is invalid: {why}", name=name, why=why or error.message)
            if isinstance(error, click.MissingParameter):
                words = Text("{name} is missing", name=name)
                words = Text("{name} is missing: {why}", name=name, why=why) if why else words
        case _ if found := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", error.message, re.DOTALL):
            words = Text("unexpected arguments: {arguments}", arguments=found[1])
        case _ if error.message == "Missing command.":
            words = Text("the command is missing")
        case _:
            return error.format_message()
    return translate(words)


def _name(parameter: click.Parameter, context: click.Context | None) -> str:
    """Return what the user calls a parameter: -n / --history, FILE, or the environment variable that gave its value."""
    if context and context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar or f"{context.auto_envvar_prefix}_{(parameter.name or '').upper()}")
    if isinstance(parameter, click.Option):
        return " / ".join([*parameter.opts, *parameter.secondary_opts])
    return parameter.metavar.strip("[].") if parameter.metavar else parameter.human_readable_name


def _wanted(kind: object, message: str) -> Text | None:
    """Return what a value of this type must be. ``message``: what click says is wrong with a path."""
    match kind:
        case click.Choice(choices=choices):
            return Text("it must be one of {choices}", choices=", ".join(map(str, choices)))
        case click.IntRange(min=least, max=None):
            return Text("it must be a whole number of at least {least}", least=least)
        case click.IntRange(min=least, max=most):
            return Text("it must be a whole number from {least} to {most}", least=least, most=most)
        case click.types.IntParamType():
            return Text("it must be a whole number")
        case click.types.BoolParamType():
            return Text("it must be yes or no")
        case click.Path():
            return next((Text(ours) for theirs, ours in _OF_PATHS.items() if message.endswith(theirs)), None)
    return None


command: Final = partial(click.command, cls=Command)
