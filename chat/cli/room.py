"""``chat room``: what owners and operators decide, from the shell. The same as the commands that begin with a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click import option

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import Home, run
from chat.i18n import _, later

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from chat.client.client import Client
    from chat.core.bodies import Ask
    from chat.core.events import Message


class _Row(NamedTuple):
    help: str
    one: str = ""  # the argument that it needs besides the room
    more: str = ""  # and the others
    flags: tuple[tuple[str, str], ...] = ()


_COMMANDS: Final = {
    "kick": _Row(
        later("Remove NICK from the room TARGET; they read the REASON and may come back."), "NICK", "[REASON]..."
    ),
    "ban": _Row(
        later("Keep NICK out of the room TARGET, for a TIME like 30s, 10m, 2h or 7d, or for good."),
        "NICK",
        "[TIME] [REASON]...",
        (
            ("--invite", later("Also all who came by the same invite, which ends.")),
            ("--uid", later("Also their user of the host's machine, if they come over TCP.")),
            ("--key", later("Only their key: not their user of the host's machine, or their address.")),
        ),
    ),
    "unban": _Row(later("Let NICK into the room TARGET again."), "NICK"),
    "mute": _Row(later("Let NICK read and not write, for a TIME or for good."), "NICK", "[TIME] [REASON]..."),
    "unmute": _Row(later("Let NICK write again."), "NICK"),
    "remove": _Row(
        later("Take the message with this NUMBER back, as chat log --json gives it: whoever has said it."), "NUMBER"
    ),
    "op": _Row(later("Make NICK an operator of the room TARGET. Only the owner can."), "NICK"),
    "deop": _Row(later("Make NICK an ordinary member again. Only the owner can."), "NICK"),
    "topic": _Row(later("Show what the room TARGET is about; with TEXT, set it; with -, remove it."), "", "[TEXT]..."),
    "slow": _Row(
        later("Let each member of the room TARGET write once in so many seconds, or as they like."), "SECONDS|off"
    ),
    "roles": _Row(later("List the operators of the room TARGET, and who is muted or banned.")),
    "audit": _Row(later("Print who decided what about whom in the room TARGET, and why.")),
}


@click.group(cls=Group)
def room() -> None:
    """Keep order in a room that you own, or are an operator of.

    What is decided is printed as it is in the room's log, once it is there.
    """


def _add(name: str, row: _Row) -> None:
    def command(target: str, transport: str, nick: str, json: bool, data: Path | None, **given: Any) -> None:
        from chat.core.bodies import Ask
        from chat.ui.moderation import question

        flags = [f"--{flag}" for flag, is_set in given.items() if is_set is True]
        ask = question(name, " ".join([given.get("one", ""), *flags, *given.get("words", ())]).strip())
        client = Home(data).client(target, transport, nick=nick, speaks=False, silent=True)
        does = _print_topic if ask == Ask(what="topic") and not given["words"] else _DOES.get(ask.what, _decide)
        run(does(client, ask, as_json=json))

    wrappers = [click.argument("target", shell_complete=options.complete_room)]
    wrappers += [click.argument("one", metavar=row.one, nargs=1)] if row.one else []
    wrappers += [click.argument("words", metavar=row.more, nargs=-1)] if row.more else []
    wrappers += [option(flag, is_flag=True, help=text) for flag, text in row.flags]
    wrappers += [options.transport, options.nick, options.json, options.lang, options.data]
    for one in reversed(wrappers):
        command = one(command)
    room.command(name=name, help=row.help)(command)


async def _decide(client: Client, ask: Ask, *, as_json: bool) -> None:
    """Have the host decide, and print what everybody reads of it in the log."""
    import asyncio

    from chat.client.queries import PATIENCE
    from chat.core.errors import LinkBroken
    from chat.ndjson import dump, message_object
    from chat.ui.moderation import decided

    made: asyncio.Queue[Message] = asyncio.Queue()
    async with client:
        taking = asyncio.create_task(_take_own(client, made))
        try:
            answer = await client.ask(ask)
            count = answer.fields.get("count", 1)
            async with asyncio.timeout(PATIENCE):
                for _one in range(count if isinstance(count, int) else 1):
                    message = await made.get()
                    assert message.decision is not None
                    click.echo(dump(message_object(message)) if as_json else decided(message.decision))
        except TimeoutError:
            raise LinkBroken("the host has sent nothing for {seconds:g} s", seconds=PATIENCE) from None
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


async def _take_own(client: Client, made: asyncio.Queue[Message]) -> None:
    """Take a busy room's events, without which the client would stop reading; keep what this key has decided."""
    from chat.core.events import Message

    while events := await client.next_events():
        for event in events:
            if isinstance(event, Message) and event.decision is not None and event.decision.by == client.session.key:
                made.put_nowait(event)


async def _print_pages(client: Client, ask: Ask, *, as_json: bool) -> None:
    """Print the audit trail, the oldest row first, or who has a role."""
    from chat.ndjson import dump, stamp
    from chat.ui.moderation import lines_of, read_pages

    async with client:
        answer = await read_pages(client, ask)
    if not as_json:
        lines = lines_of(answer) or ([] if answer.members else [_("there is nothing yet")])
        click.echo("\n".join(lines))
        return
    for number, when, by, what, whom, why in reversed(answer.audit):
        click.echo(dump({"number": number, "time": stamp(when), "by": by, "what": what, "whom": whom, "why": why}))
    for key, nick, role, until in answer.members:
        made: dict[str, object] = {"key": key.hex(), "nick": nick, "role": role}
        click.echo(dump(made | ({"until": stamp(until)} if until else {})))


async def _print_topic(client: Client, _ask: Ask, *, as_json: bool) -> None:
    from chat.ndjson import dump
    from chat.ui.moderation import topic

    async with client:
        click.echo(dump({"topic": client.session.topic}) if as_json else topic(client))


_DOES: Final = {"audit": _print_pages, "moderated": _print_pages}  # by question; every other one decides

for _name, _row in _COMMANDS.items():
    _add(_name, _row)
