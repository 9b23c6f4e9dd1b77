"""Commands on the files of rooms that are hosted here: check, repair, backup and restore."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home
from chat.core.errors import ChatError, NoSuchRoom
from chat.i18n import _, plural, translate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.host.backup import Saved

_room: Final = click.argument("room", default="lobby", shell_complete=options.complete_room)
_file: Final = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


def _folder(room: str, data: Path | None) -> tuple[str, Path]:
    from chat.client.target import room_name

    room = room_name(room)
    folder = Home(data).room(room)
    if not any((folder / name).exists() for name in ("log.db", "log.mark")):  # one may be what is damaged
        raise NoSuchRoom("not-here", room=room, folder=str(folder))
    return room, folder


def _say(line: str) -> None:
    from chat.core.text import visible

    click.echo(visible(line, lines=False))


def _list(rooms: Iterable[Saved]) -> None:
    for room in rooms:
        # Of records, not messages: some numbers are those of records that name an author.
        lost = sum(gap.count for gap in room.lost)
        _say(
            _("room {room}: {count} records, numbers {first} to {last}").format(
                room=room.name, count=room.last + 1 - room.first - lost, first=room.first, last=room.last
            )
        )
        for gap in room.lost:
            numbers = f"{gap.first}-{gap.first + gap.count - 1}" if gap.count > 1 else f"{gap.first}"
            _say(plural("  lost: message {numbers}", "  lost: messages {numbers}", gap.count).format(numbers=numbers))
        if room.unnamed:
            text = plural("  lost: the name of {count} author", "  lost: the names of {count} authors", room.unnamed)
            _say(text.format(count=room.unnamed))


@command()
@_room
@options.lang
@options.data
def check(room: str, data: Path | None) -> None:
    """Check the files of ROOM, which is hosted here, for damage.

    Every message is read and its checksum compared. Nothing is changed. Exit code 1 if something is damaged.
    """
    from chat.host.repair import check

    room, folder = _folder(room, data)
    report = check(folder, room)
    _list(report.rooms)
    for fault in report.faults:
        _say(_("damaged: {what}").format(what=translate(fault)))
    if not report.is_sound:
        raise ChatError("room {room} is damaged; stop its host, then run: chat repair {room}", room=shlex.quote(room))


@command()
@_room
@options.lang
@options.data
def repair(room: str, data: Path | None) -> None:
    """Save what is readable of ROOM, which is hosted here, and list what is lost.

    The host must be stopped. What is saved goes into a new database; the damaged one is kept beside it.
    """
    from chat.host.repair import repair

    room, folder = _folder(room, data)
    report = repair(folder, room)
    _list(report.rooms)
    if report.kept is not None:
        _say(_("the damaged database is now {path}").format(path=report.kept))
    _say(_("open the room with: chat host {room}").format(room=shlex.quote(room)))


@command()
@click.argument("room", shell_complete=options.complete_room)
@_file
@options.lang
@options.data
def backup(room: str, file: Path, data: Path | None) -> None:
    """Copy ROOM, which is hosted here, to the new file FILE.

    The room may be open. The copy is of one moment; it is read back and every message's checksum compared.
    Your keys are not in it.
    """
    from chat.host.backup import backup

    room, folder = _folder(room, data)
    saved = backup(folder, file)
    _list(saved)
    if any(one.lost for one in saved):
        raise ChatError("room {room} is damaged; stop its host, then run: chat repair {room}", room=shlex.quote(room))


@command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@options.lang
@options.data
def restore(file: Path, data: Path | None) -> None:
    """Put the backup FILE in place of its room.

    The host must be stopped. The database that was there is kept beside the restored one. Members who saw
    later messages are told when they connect.
    """
    from chat.host.backup import restore

    saved, replaced = restore(file, Home(data).room)
    _list([saved])
    if replaced is not None:
        _say(_("the database that was there is now {path}").format(path=replaced))
    _say(_("open the room with: chat host {room}").format(room=shlex.quote(saved.name)))
