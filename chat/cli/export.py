"""``chat export`` and ``chat import``: a room's messages as a file that other programs and people can read."""

from __future__ import annotations

import html
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click import option

from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home, run
from chat.cli.oneshot import progress
from chat.core.errors import DialFailed, WrongValue
from chat.i18n import _, plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.client.client import Client
    from chat.core.events import Message

_CLOCK: Final = "%Y-%m-%d %H:%M:%S"
_MARKS: Final = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&=:@])")  # what could mean anything in Markdown
_HTML_HEAD: Final = """\
<!doctype html>
<html><head><meta charset="utf-8"><title>{room}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>body {{ font: 1em/1.5 sans-serif; max-width: 50em; margin: auto; padding: 1em }}
p {{ margin: 0; overflow-wrap: anywhere }} time {{ color: GrayText }}</style></head>
<body><h1>{room}</h1>
"""


@command()
@options.target
@options.transport
@option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "text", "html", "md"]),
    default="ndjson",
    metavar="FORMAT",
    help="ndjson (the default), text, html or md. Only ndjson can be imported again.",
)
@option("--since", type=options.NUMBER, metavar="SEQ", help="Start at this message number.")
@option("--until", type=options.NUMBER, metavar="SEQ", help="End with this message number.")
@options.lang
@options.data
def export(target: str, transport: str, kind: str, since: int | None, until: int | None, data: Path | None) -> None:
    """Write the messages of the room TARGET to standard output, as a file to keep.

    The room must be open. Edits and reactions are listed as they were made.
    """
    if since and until and since > until:
        raise WrongValue("--since {since} is behind --until {until}", since=since, until=until)
    client = Home(data).client(target, transport, speaks=False, silent=True, since=since or 1)
    run(_write(client, kind, until))


async def _write(client: Client, kind: str, until: int | None) -> None:
    from chat.client.events import Lost, as_object
    from chat.core.bodies import Gap
    from chat.core.events import Joined, Message, Rewound
    from chat.local.streams import Output
    from chat.ndjson import dump
    from chat.ui.describe import describe

    out, (head, each, note, foot) = Output(), _FORMATS[kind]
    async with client:
        begin = reached = client.session.next_seq
        end = 0
        lines: list[str] = []
        with progress(_("exporting")) as report:
            while not end or reached < end:
                events = await client.soon()
                reached = client.session.next_seq  # by these events: more may come while they are written
                for event in events:
                    match event:
                        case Joined(room) if not end:
                            end = min(event.next_seq, until + 1 if until else event.next_seq)
                            lines[:0] = [head.format(room=html.escape(room))] if head else []
                        case Message() if event.seq < end:
                            lines += each(event)
                        case Gap() | Rewound() if kind == "ndjson":
                            lines.append(dump(as_object(event, client) or {}))
                        case Gap() | Rewound():
                            lines += [note(line) for line in describe(event)]
                        case Lost(why):
                            raise DialFailed("the log ends early, at number {number}: {why}", number=reached, why=why)
                if end:
                    await out.write(lines)
                    lines = []
                report(min(reached, end) - begin, end - begin)
        await out.write([foot] if foot else [])


def _as_ndjson(message: Message) -> list[str]:
    from chat.ndjson import dump, message_object

    return [dump(message_object(message))] if message.decision is None else []  # no import may make such decisions


def _as_text(message: Message) -> list[str]:
    from chat.ui.describe import describe_message
    from chat.ui.entry import MessageEntry

    return describe_message(MessageEntry.of(message), clock=_CLOCK)


def _as_html(message: Message) -> list[str]:
    from chat.ui.describe import describe_message
    from chat.ui.entry import MessageEntry

    text = "<br>".join(map(html.escape, describe_message(MessageEntry.of(message), clock="")))
    return [f'<p id="m{message.seq}" dir="auto"><time>{_moment(message)}</time> {text}</p>']


def _as_markdown(message: Message) -> list[str]:
    from chat.ui.describe import describe_message
    from chat.ui.entry import MessageEntry

    lines = describe_message(MessageEntry.of(message), clock="")
    return [f"- {_moment(message)} {_escape_markdown(line)}" for line in lines]


def _moment(message: Message) -> str:
    return time.strftime(_CLOCK, time.localtime(message.time / 1000))


def _escape_markdown(line: str) -> str:
    return _MARKS.sub(r"\\\1", line)


# By format: what comes first, a message, a note, what comes last. Texts are sanitized by ``describe_message``.
_FORMATS: Final[dict[str, tuple[str, Callable[[Message], list[str]], Callable[[str], str], str]]] = {
    "ndjson": ("", _as_ndjson, str, ""),
    "text": ("", _as_text, "* {}".format, ""),
    "html": (_HTML_HEAD, _as_html, lambda line: f"<p>* {html.escape(line)}</p>", "</body></html>"),
    "md": (
        "# {room}\n",
        _as_markdown,
        lambda line: f"- {_escape_markdown(line)}",
        "",
    ),
}


@command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("room")
@options.lang
@options.data
def import_room(file: Path, room: str, data: Path | None) -> None:
    """Make the new room ROOM of the messages in FILE, which chat export wrote as ndjson.

    Authors keep their keys and nicknames, and messages their times. Their numbers may change. Nobody becomes a
    member by it.
    """
    from chat.client.target import room_name
    from chat.host.importing import import_messages

    room = room_name(room)
    folder = Home(data).room(room)
    with progress(_("importing")) as report:
        done = import_messages(file, folder, room, report)
    text = plural("1 message is in room {room}", "{count} messages are in room {room}", done.messages)
    click.echo(text.format(count=done.messages, room=room))
    if done.left_out:
        text = plural(
            "1 line was left out: it is about a message that is not in the file",
            "{count} lines were left out: they are about messages that are not in the file",
            done.left_out,
        )
        click.echo(text.format(count=done.left_out))
    click.echo(_("open the room with: chat host {room}").format(room=shlex.quote(room)))
