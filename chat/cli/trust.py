"""``chat trust``: the hosts that this user has met, and the words that stand for their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import Home, warn
from chat.core.errors import ChatError
from chat.i18n import _

if TYPE_CHECKING:
    from pathlib import Path

    from chat.local.known_hosts import KnownHosts
    from chat.transport import Address


@click.group(cls=Group)
def trust() -> None:
    """Show or forget the keys of hosts that you have met."""


@trust.command(name="list")
@options.json
@options.lang
@options.data
def list_hosts(json: bool, data: Path | None) -> None:
    """List the hosts that you have met: address, fingerprint and words.

    A host is remembered when you join it by its address, or by an invite.
    """
    known = Home(data).known_hosts().known()
    for name, fingerprint in sorted(known.items()):
        _show(name, fingerprint, as_json=json)
    if not known and not json:
        warn(_("chat: no host is known yet; one is remembered when you join it by address, or by an invite"))


@trust.command()
@click.argument("address", default="")
@options.json
@options.lang
@options.data
def show(address: str, json: bool, data: Path | None) -> None:
    """Show the key of the host at ADDRESS; without ADDRESS, that of your own host.

    Its owner can read you the words over the telephone: they are the same on both screens, unless someone is
    intercepting the connection.
    """
    from chat.local.identity import fingerprint, load_host

    home = Home(data)
    if address:
        found, shown = _find(home.known_hosts(), address)
        _show(str(found), shown, as_json=json)
    elif home.host_key.exists():
        _show("", fingerprint(load_host(home.host_key).key), as_json=json)
    else:
        raise ChatError("no room has been opened here, so there is no key of yours to show; open one with: chat host")


@trust.command()
@click.argument("address")
@options.json
@options.lang
@options.data
def forget(address: str, json: bool, data: Path | None) -> None:
    """Forget the key of the host at ADDRESS. The next time you join it by address, it is trusted anew."""
    known = Home(data).known_hosts()
    found, shown = _find(known, address)
    known.forget(found)
    if json:
        _show(str(found), shown, as_json=True)
    else:
        click.echo(_("forgotten: {address}, {fingerprint}").format(address=found, fingerprint=shown))


def _find(known: KnownHosts, text: str) -> tuple[Address, str]:
    """Return the address and the fingerprint of a known host. A room may stand behind the address, as in a TARGET."""
    from chat.local.invite import Invite, is_invite
    from chat.transport.typed import typed_address, typed_place

    if is_invite(text):
        places = list(map(str, Invite.parse(text).addresses))
        text = " ".join(places)  # an error must not quote the secret
    else:
        place = typed_place(text)
        places = [place, place.rpartition("/")[0]]
    for part in filter(None, places):
        if shown := known.find(address := typed_address(part)):
            return address, shown
    raise ChatError("no host is known at {address}; chat trust list shows those that are", address=text)


def _show(name: str, fingerprint: str, *, as_json: bool) -> None:
    from chat.core.text import visible
    from chat.local.identity import hash_in
    from chat.local.words import words
    from chat.ndjson import dump

    spoken = words(hash_in(fingerprint))
    if as_json:
        click.echo(dump({"address": name or None, "fingerprint": fingerprint, "words": spoken}))
    else:
        click.echo(visible("  ".join(filter(None, (name, fingerprint, spoken))), lines=False))
