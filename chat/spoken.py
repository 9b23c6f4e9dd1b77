"""click's commands and options, with their help in the language that is spoken.

    class Command(click.Command)     its docstring, and the words around it ("Usage:", "Options")
    class Option(click.Option)       what its ``help`` says

A help text is looked up when it is shown, and ``scripts/messages`` finds it where it stands: as ``help=`` of an
option, and as the docstring of a command. click wraps lines by characters, and Chinese ones take two columns each:
so a translation breaks its own lines, and a test looks whether they fit.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Final

import click

from chat.words import _, later

_HEADINGS: Final = (later("Options"), later("Commands"))


class _Formatter(click.HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, _("Usage:") + " " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(_(heading) if heading in _HEADINGS else heading)


class _Context(click.Context):
    formatter_class = _Formatter


class Option(click.Option):
    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        english = self.help or ""
        self.help = _(english) if english else None
        try:
            return super().get_help_record(ctx)
        finally:
            self.help = english


class Command(click.Command):
    context_class = _Context

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        english, self.help = self.help, self._spoken()
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = english

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first paragraph, whole: a list of commands shows it, wrapped, where click would cut it off."""
        return self._spoken().partition("\n\n")[0].rstrip(".。")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if (ours := self.get_help_option(ctx)) is not None:
            ours.help = _("Show this message and exit.")
        super().format_options(ctx, formatter)

    def _spoken(self) -> str:
        english = inspect.cleandoc(self.help or "")
        return _(english)


class Group(Command, click.Group):
    command_class = Command
    group_class = type


option: Final = partial(click.option, cls=Option)
