"""A user's data folder, and how a command runs and reports errors."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from chat.i18n import _, translate

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from chat.client.client import Client
    from chat.client.target import Target
    from chat.local.identity import Identities, Identity
    from chat.local.known_hosts import KnownHosts


def complain(message: str, code: int) -> int:
    from chat.core.text import visible

    warn(f"chat: {visible(message, lines=False)}")
    return code


def warn(message: str) -> None:
    """Write to standard error. A terminal that is gone must not change the exit code."""
    with suppress(OSError):
        click.echo(message, err=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts: on a terminal in aligned columns, else with a tab between them, for other programs."""
    from chat.core.text import visible

    shown = [[visible(text, lines=False) for text in row] for row in rows]
    if not sys.stdout.isatty():
        click.echo("".join("\t".join(row) + "\n" for row in shown), nl=False)
        return
    from wcwidth import wcswidth

    widths = [max(map(wcswidth, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (text + " " * (width - wcswidth(text)) for text, width in zip(row, widths, strict=True) if width)
        click.echo("  ".join(padded).rstrip())


class Home:
    """A user's data folder: keys, known hosts, outboxes and hosted rooms."""

    def __init__(self, folder: Path | None) -> None:
        from chat.local.private_files import data_folder, make_private

        self.folder = make_private(folder or data_folder())
        self.host_key = self.folder / "host.pem"
        self.outboxes = self.folder / "outboxes"

    @property
    def identities(self) -> Identities:
        from chat.local.identity import Identities

        return Identities(self.folder)

    def identity(self, nick: str) -> Identity:
        """The key of a nickname, as ``nick`` returns it."""
        return self.identities.load(self.key_name(nick))

    def key_name(self, nick: str) -> str:
        """What ``identities`` calls a nickname: the login name is ""."""
        return "" if nick.casefold() == self.nick("").casefold() else nick

    def _identity_in(self, target: Target, nick: str) -> Identity:
        """The key of a nickname in one room; without a nickname, the key to read with."""
        from chat.client.outbox import outbox_folder

        own, login = self.identities.load(), self.nick("")
        hosts = {target.host} if target.host else self.known_hosts().hosts()

        def has_outbox(identity: Identity, nick: str) -> bool:
            return any(
                outbox_folder(self.outboxes, host=host, key=identity.key, room=target.room, nick=nick).exists()
                for host in hosts
            )

        if nick:  # all nicknames had one key once, and /nick keeps the key: where one has used it, it stays that one's
            return next((key for key in self._keys() if has_outbox(key, nick)), None) or self.identity(nick)
        if target.board is None and not has_outbox(own, login):  # a room on this machine lets every key in
            for name in self.identities.nicknames():
                if has_outbox(found := self.identities.load(name), name):
                    return found
        return own

    def _keys(self) -> Iterator[Identity]:
        from chat.core.errors import ChatError

        yield self.identities.load()
        for name in self.identities.nicknames():
            with suppress(ChatError):
                yield self.identities.load(name)

    def known_hosts(self) -> KnownHosts:
        from chat.local.known_hosts import KnownHosts

        return KnownHosts(self.folder / "known_hosts")

    def room(self, name: str) -> Path:
        """Return the folder of a hosted room."""
        from chat.local.private_files import make_private
        from chat.local.rooms import folder_name

        return make_private(self.folder / "rooms") / folder_name(name)

    def typed(self, identity: Identity) -> Path | None:
        """The folder of what was typed in each room; None if the disk takes none. Another nickname's is its own."""
        from chat.core.errors import StoreFull
        from chat.local.identity import host_hash
        from chat.local.private_files import make_private

        own = identity.key == self.identities.load().key
        with suppress(StoreFull):
            return make_private(self.folder / "typed" / ("" if own else host_hash(identity.key).hex()[:8]))
        return None

    def nick(self, chosen: str) -> str:
        """Return the chosen nickname, or the user's login name. Raises WrongValue."""
        import getpass

        from chat.core.text import nickname

        if chosen:
            return nickname(chosen)
        with suppress(KeyError, OSError, ValueError):  # many containers have no such user in the password database
            return nickname(getpass.getuser())
        return "guest"

    def _check_owner(self, target: str, place: Target) -> None:
        """Raise NoSuchRoom if our own room is closed, and another user has opened one of its name.

        A face shows whose room it is. A script would tell them what it has to say.
        """
        from chat.core.errors import NoSuchRoom
        from chat.local.rooms import folder_name

        if place.owner and "/" not in target and (self.folder / "rooms" / folder_name(place.room)).exists():
            raise NoSuchRoom("closed-shared", room=place.room, owner=place.owner)

    def client(self, target: str, scheme: str, *, nick: str = "", speaks: bool, **more: Any) -> Client:
        from chat.client.client import Client
        from chat.client.target import locate

        outboxes = self.outboxes if speaks else None
        nick = nick and self.nick(nick)  # so that a wrong one is told before a room is looked for
        where = locate(ask_which(target), scheme)
        place = where()
        if speaks and more.get("silent"):
            self._check_owner(target, place)
        nick = nick or (place.invite.nick if place.invite else "")
        nick = self.nick(nick) if speaks or nick else ""
        identity, known_hosts = self._identity_in(place, nick), self.known_hosts()
        client = Client(where, identity, known_hosts, outboxes=outboxes, nick=nick, **more)
        if more.get("silent"):  # a face shows it as an event, which other commands may never take
            client.on_first_use = lambda notice: complain(translate(notice), 0)
        client.on_wait = lambda error: warn(_("chat: {why}; waiting for that").format(why=translate(error)))
        return client


def ask_which(target: str) -> str:
    """Ask which of several rooms on this machine is meant, if there is a terminal to ask on."""
    if target not in {"", "."} or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return target
    from chat.local.rooms import records

    names = [record.name for record in records()]
    if len(names) < 2:
        return target
    asked = f"{_('which room')} ({', '.join(names)})"
    while (chosen := click.prompt(asked, err=True)) not in names:
        complain(_("there is no room {name} here").format(name=chosen), 0)
    return str(chosen)


def asked_to_end() -> list[int]:
    """Return the signals that ask a command to end, without those that our parent ignores, as nohup(1) does."""
    return [n for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]


def run(job: Coroutine[Any, Any, None]) -> None:
    """Run a command until it is done, or a signal asks it to end: the first one cancels it.

    Further signals change nothing, neither while it stores, reports and leaves, nor after that. Raises Exit with 128
    and the signal's number, as shells report it.
    """
    import asyncio

    first = 0

    async def stoppable() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def stop(number: int, _frame: object) -> None:
            nonlocal first
            if not first and not loop.is_closed():
                first = number
                loop.call_soon_threadsafe(task.cancel)

        for number in asked_to_end():
            signal.signal(number, stop)
        await job

    try:
        asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise click.exceptions.Exit(128 + first) from None
