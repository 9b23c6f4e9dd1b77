"""``chat id``: one's own keys, and how to take them to another machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click import option
from click.core import ParameterSource

from chat.cli import options
from chat.cli.help import Group
from chat.cli.home import Home, warn
from chat.core.errors import ChatError
from chat.i18n import _

if TYPE_CHECKING:
    from chat.local.identity import Identity

_MAX_PHRASE: Final = 4096  # bytes of a passphrase in a file, with the end of its line; more is an error (exit code 1)
_all: Final = option("--all", "show_all", is_flag=True, help="Print the fingerprint and nickname of every key.")
_passphrase: Final = option(
    "--passphrase-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Read the passphrase from the first line of this file, such as /dev/fd/3, or of standard input (-).",
)


@click.group(cls=Group, name="id", invoke_without_command=True)
@options.nick
@_all
@options.lang
@options.data
@click.pass_context
def identity(context: click.Context, nick: str, show_all: bool, data: Path | None) -> None:
    """Show the fingerprint of your key, take the key to another machine, or begin with a new one.

    Each nickname has its own key, created on first use. Others can compare the fingerprint with what their
    screen shows.
    """
    if not context.invoked_subcommand:
        _show(Home(data), nick, show_all=show_all)
    elif any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in context.params):
        raise click.UsageError(_("write the options after '{name}'").format(name=context.invoked_subcommand))


@identity.command()
@options.nick
@_all
@options.json
@options.lang
@options.data
def show(nick: str, show_all: bool, json: bool, data: Path | None) -> None:
    """Print the fingerprint of your key, like chat id."""
    _show(Home(data), nick, show_all=show_all, as_json=json)


def _show(home: Home, nick: str, *, show_all: bool, as_json: bool = False) -> None:
    from chat.local.identity import fingerprint
    from chat.ndjson import dump

    nicks = dict.fromkeys((home.nick(""), *home.identities.nicknames())) if show_all else [home.nick(nick)]
    for name in nicks:
        key = home.identity(name).key
        if as_json:
            click.echo(dump({"nick": name, "fingerprint": fingerprint(key), "key": key.hex()}))
        else:
            click.echo(f"{fingerprint(key)}  {name}" if show_all else fingerprint(key))


@identity.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.nick
@_passphrase
@options.lang
@options.data
def export(file: Path, nick: str, passphrase_file: Path | None, data: Path | None) -> None:
    """Write your key to the new file FILE, encrypted with a passphrase.

    Whoever has the file and the passphrase is you. Take a passphrase of several words.
    """
    from chat.local.key_file import seal
    from chat.local.private_files import write_new

    home = Home(data)
    nick = home.nick(nick)
    is_new = home.key_name(nick).casefold() not in map(str.casefold, ("", *home.identities.nicknames()))
    key = home.identity(nick)
    if os.path.lexists(file):
        raise ChatError("{path} exists; choose another name, or remove it", path=file)
    write_new(file, seal(key, nick, _ask(passphrase_file, twice=True)))
    click.echo(
        _("the key of {nick} is in {path}; on the other machine, run: chat id import {file}").format(
            nick=nick, path=file, file=file.name
        )
    )
    if is_new:  # a mistyped nickname, perhaps
        warn(_("chat: {nick} had no key here, so this is a new one; chat id --all lists the others").format(nick=nick))


@identity.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.nick
@_passphrase
@options.lang
@options.data
def import_key(file: Path, nick: str, passphrase_file: Path | None, data: Path | None) -> None:
    """Take the key in FILE, which chat id export wrote, as your own.

    It becomes the key of the nickname in the file, or of NICK. The key that this nickname had is kept beside it.
    """
    from chat.local.key_file import KeyFile

    home, read = Home(data), KeyFile.read(file)
    key, named = read.open(_ask(passphrase_file))
    _take(home, key, home.nick(nick or named))


@identity.command()
@options.nick
@options.lang
@options.data
def new(nick: str, data: Path | None) -> None:
    """Begin with a new key, as somebody whom nobody knows.

    The key that you had is kept beside it.
    """
    from chat.local.identity import Identity

    home = Home(data)
    _take(home, Identity.new(), home.nick(nick))


def _take(home: Home, key: Identity, nick: str) -> None:
    from chat.local.identity import fingerprint

    replaced = home.identities.replace(key, home.key_name(nick))
    click.echo(_("the key of {nick} is {fingerprint}").format(nick=nick, fingerprint=fingerprint(key.key)))
    if replaced is not None:
        click.echo(_("the key that was there is now {path}; windows that are open still use it").format(path=replaced))
    if home.key_name(nick):
        click.echo(_("use it with: --as {nick}").format(nick=nick))


def _ask(file: Path | None, *, twice: bool = False) -> str:
    """Return a passphrase, from a file or from the terminal. Raises ChatError, OSError, Abort."""
    from getpass import getpass

    if file is None and not sys.stdin.isatty():
        raise ChatError("there is no terminal to ask for the passphrase; use --passphrase-file")
    try:
        if file is None:
            phrase = getpass(_("passphrase: "))
            again = getpass(_("the same again: ")) if twice else phrase
        else:
            with open(0 if str(file) == "-" else file, "rb", closefd=str(file) != "-") as stream:
                line = stream.readline(_MAX_PHRASE + 1)
            if len(line) > _MAX_PHRASE:
                raise ChatError(
                    "the first line of {path} is longer than {limit} bytes, so it is no passphrase",
                    path=file,
                    limit=_MAX_PHRASE,
                )
            phrase = again = line.rstrip(b"\r\n").decode()
    except EOFError:
        raise click.Abort from None
    except UnicodeDecodeError:
        raise ChatError("the passphrase is not UTF-8 text") from None
    if again != phrase:
        raise ChatError("the two passphrases differ, so nothing was written")
    if not phrase:
        raise ChatError("the passphrase is empty, so it would protect nothing")
    return phrase
