"""``chat invite``: invites to rooms that one owns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from click import option

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import Home, run, warn
from chat.i18n import _, plural

if TYPE_CHECKING:
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.bodies import Ask


@click.group(cls=Group)
def invite() -> None:
    """Make invites to rooms that you own."""


@invite.command()
@options.target
@options.transport
@option("--uses", type=click.IntRange(1, 1_000_000), metavar="N", help="How many people may use it.")
@option("--expires", metavar="TIME", help="How long it is valid: 30m, 2h or 7d.")
@option(
    "--for",
    "name",
    metavar="NAME",
    default="",
    help="Who it is for: shown by list, and their nickname unless they choose one.",
)
@option(
    "--role",
    type=click.Choice(["member", "operator"]),
    default="member",
    help="What they become. One for an operator works once, unless --uses says more.",
)
@option("--qr", is_flag=True, help="Show its QR code, too.")
@options.lang
@options.data
def new(
    target: str,
    transport: str,
    uses: int | None,
    expires: str | None,
    name: str,
    role: str,
    qr: bool,
    data: Path | None,
) -> None:
    """Print an invite to the room TARGET.

    Anyone who has it can come in, so send it over a channel you trust. Without a limit, a name or a
    role this is the room's standing invite, the same each time.
    """
    from chat.core.bodies import Ask
    from chat.core.errors import WrongValue
    from chat.ui.moderation import seconds_of

    seconds = 0
    if expires is not None and not (seconds := seconds_of(expires) or 0):
        raise WrongValue("{text!r} is no time; write 30m, 2h or 7d", text=expires)
    client = Home(data).client(target, transport, speaks=False, silent=True)
    ask = Ask(what="invite", uses=uses or 0, seconds=min(seconds, 2**32 - 1), text=name, role=role)
    run(print_answer(client, ask, qr=qr))


@invite.command(name="list")
@options.target
@options.transport
@options.json
@options.lang
@options.data
def list_invites(target: str, transport: str, json: bool, data: Path | None) -> None:
    """List the invites to the room TARGET: uses left, when each ends, and who came by it.

    An invite is named by the start of its public key; a star marks the standing one.
    """
    client = Home(data).client(target, transport, speaks=False, silent=True)
    run(_list_invites(client, as_json=json))


async def _list_invites(client: Client, *, as_json: bool) -> None:
    from chat.core.bodies import REVOKED, Ask
    from chat.core.text import visible
    from chat.ndjson import dump, stamp
    from chat.ui.moderation import ROLES, clock

    first, more = 0, True
    async with client:
        while more:
            answer = await client.ask(Ask(what="invites", first=first))
            first, more = first + len(answer.invites), answer.more and bool(answer.invites)
            no_terms = [("", "")] * len(answer.invites)  # of an older host
            for (name, uses, until, came), (whom, role) in zip(answer.invites, answer.terms or no_terms, strict=False):
                if as_json:
                    revoked = until == REVOKED
                    made: dict[str, object] = {"invite": name.rstrip("*"), "standing": name.endswith("*")}
                    made |= {"uses": None if uses < 0 else uses, "revoked": revoked, "came": came}
                    made |= {"for": whom, "role": role or "member"}
                    click.echo(dump(made | ({"until": stamp(until)} if until and not revoked else {})))
                    continue
                left = _("no limit") if uses < 0 else plural("1 use left", "{count} uses left", uses).format(count=uses)
                if until == REVOKED:
                    left = _("revoked")
                elif until and until < time.time() * 1000:
                    left = _("expired on {time}").format(time=clock(until))
                elif until:
                    left = _("{left}, until {time}").format(left=left, time=clock(until))
                if role:
                    label = ROLES.get(role, role)
                    left = _("{left}, {role}").format(left=left, role=_(label))
                if whom:
                    left = _("{left}, for {name}").format(left=left, name=whom)
                click.echo(visible(f"{name:9} {left}  {', '.join(came)}".rstrip(), lines=False))


@invite.command()
@click.argument("which")
@options.target
@options.transport
@options.lang
@options.data
def revoke(which: str, target: str, transport: str, data: Path | None) -> None:
    """End the invite WHICH, as chat invite list names it, or the invite itself. Whoever has come by it stays."""
    from chat.core.bodies import Ask
    from chat.local.invite import Invite, is_invite

    if is_invite(which):
        which = Invite.parse(which).signer.key.hex()  # the host, and its errors, must not quote the secret
    client = Home(data).client(target, transport, speaks=False, silent=True)
    run(print_answer(client, Ask(what="revoke", text=which)))


@invite.command()
@options.target
@options.transport
@options.lang
@options.data
def renew(target: str, transport: str, data: Path | None) -> None:
    """Replace the standing invite of the room TARGET by another, and print that. The old one is revoked."""
    from chat.core.bodies import Ask

    client = Home(data).client(target, transport, speaks=False, silent=True)
    run(print_answer(client, Ask(what="renew")))


async def print_answer(client: Client, ask: Ask, *, qr: bool = False) -> None:
    """Ask the host, and print what it answers. If that is an invite, say on standard error how far it goes."""
    import shutil

    from chat.core.text import visible
    from chat.ui.invites import about, is_picture

    async with client:
        answer = await client.ask(ask)
    if answer.text:
        click.echo(text := visible(answer.text, lines=False))
        for line in about(text, qr=qr, columns=shutil.get_terminal_size((1000, 24)).columns):
            if is_picture(line):
                click.secho(line, fg="bright_white", bg="black")  # whatever the terminal's own colours are
            else:
                warn(f"chat: {line}")
