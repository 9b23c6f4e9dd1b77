"""``chat invite``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import option

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import Home, run

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.client import Client


@click.group(cls=Group)
def invite() -> None:
    """Make invites to rooms that you own."""


@invite.command()
@options.target
@options.transport
@option("--uses", type=click.IntRange(1, 1_000_000), metavar="N", help="How many people may use it.")
@option("--hours", type=click.IntRange(1, 100_000), metavar="HOURS", help="How long it is valid.")
@options.lang
@options.data
def new(target: str, transport: str, uses: int | None, hours: int | None, data: Path | None) -> None:
    """Print an invite to the room TARGET.

    Anyone who has it can come in, so send it over a channel you trust. Without a limit this is the room's
    standing invite, the same each time.
    """
    client = Home(data).client(target, transport, speaks=False, silent=True)
    run(print_invite(client, uses=uses or 0, seconds=3600 * (hours or 0)))


async def print_invite(client: Client, *, uses: int, seconds: int) -> None:
    """Ask the host for an invite and print it."""
    from chat.core.text import visible
    from chat.core.wire import Ask

    async with client:
        answer = await client.ask(Ask(what="invite", uses=uses, seconds=seconds))
    click.echo(visible(answer.text, lines=False))
