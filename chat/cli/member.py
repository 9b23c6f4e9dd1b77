"""``chat join`` and ``chat id``, and the choice of a face."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from click import option

from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home, run, warn
from chat.core.errors import FAILED, Refused
from chat.i18n import plural, translate

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.client import Client


@command()
@options.target
@options.transport
@options.nick
@options.plain
@options.json
@options.count(
    "-n", "--history", type=options.MESSAGES, default=options.HISTORY, help="Start with the last N messages."
)
@option("--since", type=options.NUMBER, metavar="SEQ", help="Start at this message number instead.")
@options.lang
@options.data
def join(
    target: str, transport: str, nick: str, plain: bool, json: bool, history: int, since: int, data: Path | None
) -> None:
    """Join the room TARGET and talk.

    If standard input is no terminal, each line of it is sent as it is, never taken as a command.
    Exit code 1 if one could not be sent.
    """
    home = Home(data)
    client = home.client(target, transport, nick=nick, speaks=True, history=history, since=since or 0, looks=True)
    run(show(client, home, plain=plain, as_json=json))


async def show(client: Client, home: Home, *, plain: bool, as_json: bool, hosts: bool = False) -> None:
    """Join and show the room in NDJSON, line by line, or on the full screen."""
    if as_json:
        from chat.ndjson import dump
        from chat.ui import ndjson

        try:
            async with client:
                await ndjson.run(client)
        except Refused as error:
            click.echo(dump({"event": "refused", "code": error.code, "fields": error.fields, "message": str(error)}))
            raise
        return
    from chat.local import settings

    found = settings.load()
    complaint = translate(settings.complaint(found.problems)) if found.problems else ""
    unsent = 0

    def opener(target: str) -> Client:
        return home.client(target, "", nick=client.nick, speaks=True, history=options.HISTORY, looks=True)

    try:
        async with client:
            if plain or os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdout.isatty() and sys.stdin.isatty()):
                from chat.ui.linear import Linear

                if complaint:
                    warn(f"chat: {complaint}")
                unsent = await Linear(client, found.settings, opener, found.path).run()
            else:
                import gc

                from chat.ui.fullscreen.face import FullScreen

                gc.freeze()  # what is loaded stays: collecting over it would delay keys by 50 ms
                await FullScreen(
                    client,
                    settings=found.settings,
                    opener=opener,
                    file=found.path,
                    history=home.typed(client.identity),
                    complaint=complaint,
                    hosts=hosts,
                ).run()
    finally:
        if unsettled := len(client.session.unsettled):
            message = plural(
                "1 message is not stored yet; it stays in the outbox until {nick} joins again",
                "{count} messages are not stored yet; they stay in the outbox until {nick} joins again",
                unsettled,
            )
            warn(f"chat: {message.format(count=unsettled, nick=client.nick)}")
    if unsent:
        raise click.exceptions.Exit(FAILED)


@command(name="id")
@options.nick
@option("--all", "show_all", is_flag=True, help="Print the fingerprint and nickname of every key.")
@options.data
def show_id(nick: str, show_all: bool, data: Path | None) -> None:
    """Print the fingerprint of your key.

    Each nickname has its own key, created on first use. Others can compare the fingerprint with what their
    screen shows.
    """
    from chat.local.identity import fingerprint

    home = Home(data)
    if show_all:
        for name in dict.fromkeys((home.nick(""), *home.identities.nicknames())):
            click.echo(f"{fingerprint(home.identity(name).key)}  {name}")
    else:
        click.echo(fingerprint(home.identity(home.nick(nick)).key))
