"""What one user keeps, and how a command runs and complains."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from chat.core.errors import INTERRUPTED
from chat.i18n import _, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from chat.client.client import Client
    from chat.local.identity import Identity
    from chat.local.known_hosts import KnownHosts


def complain(message: str, code: int) -> int:
    from chat.core.text import visible

    warn(f"chat: {visible(message, lines=False)}")
    return code


def warn(message: str) -> None:
    """Write to standard error. A terminal that is gone must not change the exit code."""
    with suppress(OSError):
        click.echo(message, err=True)


class Home:
    """What one user keeps: keys, known hosts, outboxes, and rooms of their own."""

    def __init__(self, folder: Path | None) -> None:
        from chat.local.private_files import data_folder, make_private

        self.folder = make_private(folder or data_folder())
        self.host_key = self.folder / "host.pem"

    def identity(self) -> Identity:
        from chat.local.identity import Identity

        return Identity.load(self.folder / "identity.pem")

    def known_hosts(self) -> KnownHosts:
        from chat.local.known_hosts import KnownHosts

        return KnownHosts(self.folder / "known_hosts")

    def room(self, name: str) -> Path:
        """The folder of a room that this user hosts. A hash, since a name may be any language's letters."""
        import hashlib

        from chat.local.private_files import make_private

        return make_private(self.folder / "rooms") / hashlib.sha256(name.encode()).hexdigest()[:16]

    def nick(self, chosen: str) -> str:
        """The nickname asked for, or the name by which the system knows this user."""
        import getpass

        from chat.core.text import nickname

        try:
            return nickname(chosen or _login(getpass.getuser))
        except ValueError as error:
            if chosen:
                raise click.UsageError(translate(error)) from None
            return "guest"

    def client(self, target: str, scheme: str, *, nick: str = "", speaks: bool, **more: Any) -> Client:
        from chat.client.client import Client
        from chat.client.target import locate

        nick = self.nick(nick) if speaks else ""
        outboxes = self.folder / "outboxes" if speaks else None
        where = locate(ask_which(target), scheme)
        return Client(where, self.identity(), self.known_hosts(), outboxes=outboxes, nick=nick, **more)


def _login(getuser: Callable[[], str]) -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # no such user in the password database, as in many containers
        return ""


def ask_which(target: str) -> str:
    """Ask a person which of several rooms on this machine they mean."""
    if target not in {"", "."} or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return target
    from chat.local.rooms import records

    names = [card.room for card in records()]
    if len(names) < 2:
        return target
    chosen: str = click.prompt(_("which room"), type=click.Choice(names), err=True)
    return chosen


def run(job: Coroutine[Any, Any, None]) -> None:
    import asyncio

    try:
        asyncio.run(job)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None  # click would print an empty line for it
