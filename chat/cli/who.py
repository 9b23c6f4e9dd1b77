"""``chat who`` and ``chat rooms``, which nobody in a room notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click import option

from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home, run
from chat.core.errors import ChatError, NoSuchRoom
from chat.i18n import _, plural

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.status import Status, Who

_LOOK: Final = 0.02  # seconds between checks for statuses from the host
_LOOKS: Final = 100


@command()
@options.json
@options.lang
def rooms(json: bool) -> None:
    """List the rooms open on this machine, with their transports, members and age."""
    import time

    from chat.client.board_view import statuses
    from chat.core.text import visible
    from chat.local.rooms import records
    from chat.ndjson import dump

    found = records()
    for record in found:
        minutes = max(0, int(time.time() - record.started / 1000)) // 60
        shown = statuses(record.room)
        members = None if shown is None else len(shown)
        if json:
            told = {"room": record.room, "addresses": record.addresses, "members": members}
            click.echo(dump({**told, "pid": record.pid, "minutes": minutes}))
        else:
            hours = _("open for {hours} h {minutes} min") if minutes >= 60 else _("open for {minutes} min")
            age = hours.format(hours=minutes // 60, minutes=minutes % 60)
            wires = " ".join(address.partition(":")[0] for address in record.addresses)
            here = plural("1 member", "{count} members", members or 0).format(count="?" if members is None else members)
            click.echo(visible(f"{record.room}\t{wires}\t{here}\t{age}", lines=False))
    if not found:
        raise NoSuchRoom("none-open")


@command()
@options.target
@options.transport
@option("--fast", is_flag=True, help="Print only nicknames, on one line, for prompts and status lines.")
@options.json
@options.lang
@options.data
def who(target: str, transport: str, fast: bool, json: bool, data: Path | None) -> None:
    """List who is in the room TARGET.

    For a room on this machine this reads its presence board: no connection is made, and nobody notices.
    """
    from chat.client.board_view import as_names, room_of, statuses

    room = "" if transport else room_of(target)
    seen = statuses(room) if room else None
    if fast and not room:
        raise click.UsageError(
            _("--fast reads the presence board, which only rooms on this machine have; leave it out")
        )
    if fast and seen is None:
        raise ChatError("the presence board is missing; its host will create it again: try again in a few seconds")
    if fast and seen is not None:
        click.echo(as_names(seen))
        return
    if seen is not None:
        _print(seen.items(), as_json=json)
        return
    run(print_who(Home(data).client(target, transport, speaks=False, silent=True, looks=True), as_json=json))


async def print_who(client: Client, *, as_json: bool) -> None:
    """Print the members and their statuses, which ``client`` has asked for."""
    import asyncio

    from chat.core.session import Here

    async with client:
        while not any(isinstance(event, Here) for event in await client.next_events()):
            pass
        for _look in range(_LOOKS):  # the host sends statuses after reading its board; they are no event
            if len(client.session.states or {}) >= len(client.session.here):
                break
            await asyncio.sleep(_LOOK)
        people = client.people()
    _print(sorted(people.items(), key=lambda item: item[0][1].casefold()), as_json=as_json)


def _print(people: Iterable[tuple[Who, Status]], *, as_json: bool) -> None:
    from chat.ndjson import dump, person_object
    from chat.ui.people import as_line

    for who, status in people:
        click.echo(dump(person_object(who, status)) if as_json else as_line(who, status))
