"""The ``chat`` command. Nothing heavy is imported before a command needs it: ``chat --help`` must feel instant.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 no such room or unreachable, 130 interrupted; a command whose
reader leaves, like `head`, dies of SIGPIPE without a word (141 to a shell), as other tools do.
Errors are one line on standard error; standard output carries what was asked for and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from chat import i18n
from chat.cli import completion
from chat.cli.help import Group, Option, option, usage_error
from chat.core.errors import DONE, FAILED, INTERRUPTED, USAGE, ChatError, NoSuchRoom, Refused, reason
from chat.i18n import _, plural, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chat.client.client import Client
    from chat.local.identity import Identity
    from chat.local.known_hosts import KnownHosts

SEAT: Final = "queue"  # the transport by which the seat of a host is reached, and all that comes without a flag
_HISTORY: Final = 50  # messages of the past that a face begins with


def main() -> None:
    """Run the command and leave with its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller closed it, and our next descriptor must not take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))
    try:
        sys.exit(_exit_code())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            from chat.ui.lines import drop_unwritten  # costs `chat --help` too much otherwise

            drop_unwritten()


def _exit_code() -> int:
    os.umask(0o077)  # whatever is made here is nobody else's to read
    i18n.use(_language_that_is_set)  # looked up at the first word, unless an option says it before
    code: int
    try:
        code = chat.main(prog_name="chat", standalone_mode=False, auto_envvar_prefix="CHAT") or DONE
    except click.exceptions.NoArgsIsHelpError as error:
        _warn(error.format_message())
        code = USAGE
    except click.UsageError as error:
        where = _("; see: {command} --help").format(command=error.ctx.command_path) if error.ctx else ""
        message = usage_error(error).removesuffix(".")
        code = _complain(message[:1].lower() + message[1:] + where, USAGE)
    except click.ClickException as error:
        code = _complain(error.format_message(), USAGE)
    except ChatError as error:
        code = _complain(translate(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except OSError as error:
        code = _complain(f"{error.filename or 'system'}: {translate(reason(error))}", FAILED)
    except Exception as error:
        if "CHAT_DEBUG" in os.environ:
            raise
        told = _("a fault of this program: {what}; please report it, with what CHAT_DEBUG=1 shows")
        code = _complain(told.format(what=f"{type(error).__name__}: {error}"), FAILED)
    return code


def _complain(message: str, code: int) -> int:
    from chat.core.text import visible

    _warn(f"chat: {visible(message, lines=False)}")
    return code


def _warn(message: str) -> None:
    """Write to standard error. A terminal that is gone must not change the exit code."""
    with suppress(OSError):
        click.echo(message, err=True)


# -- what the commands share ---------------------------------------------------------------------


def _speak(_context: click.Context, _parameter: click.Parameter, language: str | None) -> None:
    if language is not None:
        i18n.use(lambda: i18n.language(language, os.environ))


def _language_that_is_set() -> str:
    from chat.local import settings

    return i18n.language(settings.load().settings.language, os.environ)


_lang: Final = option(
    "--lang",
    type=click.Choice([*i18n.LANGUAGES, "auto"]),
    expose_value=False,
    is_eager=True,  # before --help
    callback=_speak,
    help="Language of chat's own words. auto: as the locale says; else as `chat config` has it.",
)
_data: Final = option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CHAT_DATA",
    show_envvar=True,
    help="Folder for keys, outboxes and, for a host, rooms.",
)
_scheme: Final = option(
    "-t",
    "--transport",
    metavar="NAME",
    default="",
    shell_complete=completion.transports,
    help="Insist on this transport.",
)
_target: Final = click.argument("target", default="", shell_complete=completion.rooms)
_as: Final = option(
    "--as",
    "nick",
    metavar="NICK",
    default="",
    envvar="CHAT_AS",
    show_envvar=True,
    help="Your nickname here; else your login name.",
)
_messages: Final = click.IntRange(0, 10_000)  # a host looks no further back; --since does
_number: Final = click.IntRange(1, 2**63 - 1)
_json: Final = option("--json", is_flag=True, help="One JSON object a line, for programs.")
_plain: Final = option("--plain", is_flag=True, help="One line a message: for screen readers and dumb terminals.")


class _Home:
    """What one user keeps: keys, known hosts, outboxes, and rooms of their own."""

    def __init__(self, folder: Path | None) -> None:
        from chat.local.private_files import make_private

        if folder is None:
            import platformdirs

            folder = platformdirs.user_data_path("manywire")
        self.folder = make_private(folder)
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
        where = locate(_ask_which(target), scheme)
        return Client(where, self.identity(), self.known_hosts(), outboxes=outboxes, nick=nick, **more)


def _login(getuser: Callable[[], str]) -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # no such user in the password database, as in many containers
        return ""


def _ask_which(target: str) -> str:
    """Ask a person which of several rooms on this machine they mean."""
    if target not in {"", "."} or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return target
    from chat.local.rooms import records

    names = [card.room for card in records()]
    if len(names) < 2:
        return target
    chosen: str = click.prompt(_("which room"), type=click.Choice(names), err=True)
    return chosen


def _run(job: Coroutine[Any, Any, None]) -> None:
    import asyncio

    try:
        asyncio.run(job)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None  # click would print an empty line for it


class _Group(Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read our output has left, as `head` does: no error, but a pipeline is to see how we ended. Python
            # has the signal ignored, so that a peer who leaves does not kill us; and click would end with 1.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        near = difflib.get_close_matches(args[0], list(self.commands), n=1)
        if args[0] not in self.commands and near:
            told = _("no such command '{name}'; did you mean '{near}'?")
            raise click.UsageError(told.format(name=args[0], near=near[0]))
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(_("no such command '{name}'").format(name=args[0]), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="manywire", message="%(version)s", cls=Option, help="Show the version and exit.")
@_lang
def chat() -> None:
    """Terminal chat in which the wire is a flag.

    \b
    chat host            open the room "lobby" and take a seat in it
    chat join            enter the room that is open on this machine
    chat join 'chat://…' enter a room elsewhere, by invite

    TARGET is nothing or "." (the room open on this machine), a room's name, an address
    (tcp:HOST:PORT/ROOM), an invite (chat://…), or "-" (an invite on standard input).
    """  # noqa: D301 - \b is click's mark for lines that must not be wrapped


# -- host ----------------------------------------------------------------------------------------


@chat.command()
@click.argument("room", default="lobby")
@option(
    "-t",
    "--transport",
    multiple=True,
    metavar="NAME[:ADDRESS]",
    default=(SEAT,),
    show_default=True,
    shell_complete=completion.transports,
    help="Listen here; may be given several times.",
)
@option("--advertise", metavar="HOST", default="", help="The name or address for invites, where others reach you.")
@option("--invite-only/--open", default=True, help="Whether newcomers need an invite.")
@option(
    "--rate",
    type=click.IntRange(0),
    default=5000,
    show_default=True,
    metavar="N",
    help="Messages a second read from a member; 0: no limit.",
)
@option(
    "--peer", multiple=True, metavar="[NAME=]COMMAND", help="Start a program as a member: it reads and prints lines."
)
@option(
    "--peer-json",
    multiple=True,
    metavar="[NAME=]COMMAND",
    help="The same for one that speaks NDJSON, as join --json does.",
)
@option("--restart", is_flag=True, help="Start these programs again when they end.")
@option(
    "--bot-turns",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Turns that programs may take among themselves before they are muted; 0: no limit.",
)
@option("--headless", is_flag=True, help="Serve only: no seat in the room.")
@option("--control-fd", type=int, default=-1, hidden=True)
@_as
@_plain
@_json
@_lang
@_data
def host(
    room: str,
    transport: tuple[str, ...],
    advertise: str,
    invite_only: bool,
    rate: int,
    peer: tuple[str, ...],
    peer_json: tuple[str, ...],
    restart: bool,
    bot_turns: int,
    headless: bool,
    control_fd: int,
    nick: str,
    plain: bool,
    json: bool,
    data: Path | None,
) -> None:
    """Open ROOM and take a seat in it.

    The seat is an ordinary member window; the room lives in a process of its own and ends with the window.
    With --headless there is no seat, and the room is open until SIGTERM or Ctrl-C.
    """
    from chat.core.text import room_name
    from chat.host.programs import Program
    from chat.transport import Address, find

    try:
        room = room_name(room)
    except ValueError as error:
        raise click.UsageError(translate(error)) from None
    for address in transport:
        find(Address.parse(address).scheme)  # a typo is told of before anything is started
    programs = Program.parse_all(peer, peer_json)
    home = _Home(data)
    if headless:
        from chat.host.process import failed, serve

        try:
            _run(
                serve(
                    room,
                    transport,
                    folder=home.room(room),
                    host_key=home.host_key,
                    owner=home.identity().key,
                    open_to_all=not invite_only,
                    advertise=advertise,
                    rate=rate,
                    bot_turns=bot_turns,
                    programs=programs,
                    restart=restart,
                    as_json=json,
                    control_fd=control_fd,
                )
            )
        except ChatError as error:
            if control_fd >= 0:
                click.echo(failed(error))  # the seat tells it
                i18n.use("en")  # and here it goes into the log
            raise
        return
    from chat.host.process import Hosted
    from chat.local.private_files import make_private

    if not any(Address.parse(address).scheme == SEAT for address in transport):
        transport = (*transport, SEAT)
    options = [f"--transport={address}" for address in transport]
    options += ["--invite-only" if invite_only else "--open", f"--advertise={advertise}", f"--rate={rate}"]
    options += [*(f"--peer={spec}" for spec in peer), *(f"--peer-json={spec}" for spec in peer_json)]
    options += [*(["--restart"] if restart else []), f"--bot-turns={bot_turns}", f"--lang={i18n.current_language()}"]
    log = make_private(home.room(room)) / "host.log"
    with Hosted(room, options, home.folder, log) as hosted:
        if json:
            for line in hosted.listening:
                click.echo(line)
        client = home.client(room, "", nick=nick, speaks=True, history=_HISTORY, looks=True)
        _run(hosted.while_it_runs(_face(client, home, plain=plain, as_json=json, hosts=True)))
    if not json:
        _warn(_("room {room} is closed; open it again with: chat host {room}").format(room=room))


@chat.command(name="peer", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("room")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@option("--dial", required=True)
@option("--host", required=True)
@option("--home", type=click.Path(path_type=Path), required=True)
@_json
def be_peer(room: str, name: str, command: tuple[str, ...], dial: str, host: str, home: Path, json: bool) -> None:
    """Be the process around a program that a host has started."""
    import asyncio

    from chat.host.peer_process import HostGone, attend, meet
    from chat.transport import Address

    i18n.use("en")  # what it complains of comes into the host's log
    code = 0

    async def run(client: Client) -> None:
        nonlocal code
        code = await attend(client, command, as_json=json)

    try:
        asyncio.run(meet(run, Address.parse(dial), room=room, name=name, host=bytes.fromhex(host), home=home))
    except HostGone:
        code = FAILED  # and nobody is left who would want to know why
    if code < 0:  # whoever waits for us is to see how the program ended
        with suppress(OSError):  # SIGKILL is nobody's to set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


# -- members -------------------------------------------------------------------------------------


@chat.command()
@_target
@_scheme
@_as
@_plain
@_json
@option(
    "-n",
    "--history",
    type=_messages,
    default=_HISTORY,
    show_default=True,
    metavar="N",
    help="Begin with the last N messages.",
)
@option("--since", type=_number, metavar="SEQ", help="Begin with this number instead.")
@_lang
@_data
def join(
    target: str,
    transport: str,
    nick: str,
    plain: bool,
    json: bool,
    history: int,
    since: int,
    data: Path | None,
) -> None:
    """Enter the room TARGET and talk.

    Without a terminal on standard input each line of it is a message as it stands, never a command.
    Exit code 1 when one could not be sent.
    """
    home = _Home(data)
    client = home.client(target, transport, nick=nick, speaks=True, history=history, since=since or 0, looks=True)
    _run(_face(client, home, plain=plain, as_json=json))


async def _face(client: Client, home: _Home, *, plain: bool, as_json: bool, hosts: bool = False) -> None:
    """Join and show the room by the face that fits: NDJSON, linear, or the whole screen."""
    if as_json:
        from chat.ndjson import dump
        from chat.ui import ndjson

        try:
            async with client:
                await ndjson.run(client)
        except Refused as error:
            click.echo(dump({"event": "refused", "code": error.code, "message": str(error)}))
            raise
        return
    from chat.local import settings

    found = settings.load()
    complaint = translate(settings.complaint(found.problems)) if found.problems else ""
    unsent = 0

    def opener(target: str) -> Client:
        return home.client(target, "", nick=client.nick, speaks=True, history=_HISTORY, looks=True)

    try:
        async with client:
            if plain or os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdout.isatty() and sys.stdin.isatty()):
                from chat.ui import linear

                if complaint:
                    _warn(f"chat: {complaint}")
                unsent = await linear.run(client, settings=found.settings, opener=opener, file=found.path)
            else:
                import gc

                from chat.local.private_files import make_private
                from chat.ui.fullscreen import app

                gc.freeze()  # what is loaded by now stays: looking at it again and again would hold up keys for 50 ms
                await app.run(
                    client,
                    settings=found.settings,
                    opener=opener,
                    file=found.path,
                    history=make_private(home.folder / "typed"),
                    complaint=complaint,
                    hosts=hosts,
                )
    finally:
        if unsettled := len(client.session.unsettled):
            told = plural(
                "1 message is not stored yet; it waits in the outbox and goes out when {nick} joins again",
                "{count} messages are not stored yet; they wait in the outbox and go out when {nick} joins again",
                unsettled,
            )
            _warn(f"chat: {told.format(count=unsettled, nick=client.nick)}")
    if unsent:
        raise click.exceptions.Exit(FAILED)


@chat.command()
@click.argument("target", shell_complete=completion.rooms)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@_scheme
@_as
@option(
    "--wait",
    type=click.IntRange(0, 86_400),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the host's disk, once the message has been sent.",
)
@_lang
@_data
def send(target: str, words: tuple[str, ...], transport: str, nick: str, wait: int, data: Path | None) -> None:
    """Say TEXT in the room TARGET.

    Returns when the message is on the host's disk, and only then with exit code 0. Without TEXT,
    standard input is one message. Use "." for the room open on this machine.
    """
    from chat.cli.oneshot import send_text
    from chat.core.wire import MAX_TEXT

    text = " ".join(words) if words else _whole_input()
    if not text:
        raise click.UsageError(_("there is nothing to send; give the text as arguments or on standard input"))
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT:
        told = _("the text is longer than a message may be ({limit} bytes); send it in parts")
        raise click.UsageError(told.format(limit=MAX_TEXT))
    client = _Home(data).client(target, transport, nick=nick, speaks=True, silent=True)
    _run(send_text(client, text, wait))


def _whole_input() -> str:
    """Standard input as one message, less its last newline. Raises UsageError for what is too long or not text."""
    from chat.core.wire import MAX_TEXT

    data = sys.stdin.buffer.read(MAX_TEXT + 2)
    if len(data) > MAX_TEXT + 1:
        told = _("standard input is longer than a message may be ({limit} bytes); send it in parts")
        raise click.UsageError(told.format(limit=MAX_TEXT))
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        told = _("standard input is not UTF-8 text: byte {number} is wrong")
        raise click.UsageError(told.format(number=error.start)) from None


@chat.command()
@_target
@_scheme
@option("-n", "--history", type=_messages, metavar="N", help="Only the last N messages.")
@option("--since", type=_number, metavar="SEQ", help="From this number on.")
@option("-f", "--follow", is_flag=True, help="Go on as new messages come.")
@_json
@_lang
@_data
def log(
    target: str, transport: str, history: int | None, since: int | None, follow: bool, json: bool, data: Path | None
) -> None:
    """Print what was said in the room TARGET.

    All of it, unless -n or --since say less. Where it goes to a file or a pipe and takes longer than a moment, a bar
    on standard error shows how far it is.
    """
    from chat.cli.oneshot import print_log

    if since and history is not None:
        raise click.UsageError(_("-n and --since exclude each other; give one"))
    first = since or (1 if history is None else 0)
    client = _Home(data).client(target, transport, speaks=False, silent=True, history=history or 0, since=first)
    _run(print_log(client, follow=follow, as_json=json))


@chat.command()
@click.argument("target")
@click.argument("words", metavar="WORDS...", nargs=-1, required=True)
@_scheme
@option(
    "-n",
    "--limit",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    metavar="N",
    help="The newest N messages.",
)
@option("--before", type=_number, metavar="SEQ", help="Only messages before this number.")
@_json
@_lang
@_data
def search(
    target: str, words: tuple[str, ...], transport: str, limit: int, before: int | None, json: bool, data: Path | None
) -> None:
    """Find messages in the room TARGET that have all WORDS.

    from:NICK is who said it, '"two words"' is a phrase, and 'cats -dogs' leaves out what has dogs. The newest
    comes last. Exit code 1 when nothing was found.
    """
    from chat.cli.oneshot import print_search

    client = _Home(data).client(target, transport, speaks=False, silent=True)
    _run(print_search(client, " ".join(words), limit=limit, before=before or 0, as_json=json))


@chat.command()
@_json
@_lang
def rooms(json: bool) -> None:
    """List the rooms that are open on this machine: how they are reached, how many are in them, for how long."""
    import time

    from chat.client.board_view import statuses
    from chat.core.text import visible
    from chat.local.rooms import records
    from chat.ndjson import dump

    found = records()
    for card in found:
        minutes = max(0, int(time.time() - card.started / 1000)) // 60
        shown = statuses(card.room)
        members = None if shown is None else len(shown)
        if json:
            told = {"room": card.room, "addresses": card.addresses, "members": members}
            click.echo(dump({**told, "pid": card.pid, "minutes": minutes}))
        else:
            hours = _("open for {hours} h {minutes} min") if minutes >= 60 else _("open for {minutes} min")
            age = hours.format(hours=minutes // 60, minutes=minutes % 60)
            wires = " ".join(address.partition(":")[0] for address in card.addresses)
            here = plural("1 member", "{count} members", members or 0).format(count="?" if members is None else members)
            click.echo(visible(f"{card.room}\t{wires}\t{here}\t{age}", lines=False))
    if not found:
        raise NoSuchRoom("no room is open on this machine; open one with: chat host")


@chat.command()
@_target
@_scheme
@option("--fast", is_flag=True, help="Nicknames only, on one line: for prompts and status lines.")
@_json
@_lang
@_data
def who(target: str, transport: str, fast: bool, json: bool, data: Path | None) -> None:
    """List who is in the room TARGET.

    For a room on this machine that is a look at its board: no connection, and nobody notices.
    """
    from chat.client.board_view import as_line, as_names, as_object, room_of, statuses

    room = "" if transport else room_of(target)
    seen = statuses(room) if room else None
    if fast and not room:
        raise click.UsageError(_("--fast looks at a board, which only a room on this machine has; leave it out"))
    if fast and seen is None:
        raise ChatError(_("there is no board to look at; its host makes it anew: try again in some seconds"))
    if fast and seen is not None:
        click.echo(as_names(seen))
        return
    if seen is not None:
        for who, state in seen.items():
            click.echo(as_object(who, state) if json else as_line(who, state))
        return
    from chat.cli.oneshot import print_who

    _run(print_who(_Home(data).client(target, transport, speaks=False, silent=True, looks=True), as_json=json))


@chat.group()
def invite() -> None:
    """Invites to rooms that you own."""


@invite.command()
@_target
@_scheme
@option("--uses", type=click.IntRange(1, 1_000_000), metavar="N", help="How many people may come in by it.")
@option("--hours", type=click.IntRange(1, 100_000), metavar="HOURS", help="How long it lives.")
@_lang
@_data
def new(target: str, transport: str, uses: int | None, hours: int | None, data: Path | None) -> None:
    """Print an invite to the room TARGET.

    Whoever has it can come in: send it by a way you trust. Without a limit it is the room's standing invite,
    which is the same each time.
    """
    from chat.cli.oneshot import print_invite

    client = _Home(data).client(target, transport, speaks=False, silent=True)
    _run(print_invite(client, uses=uses or 0, seconds=3600 * (hours or 0)))


@chat.command(name="id")
@_data
def show_id(data: Path | None) -> None:
    """Print the fingerprint of your key.

    The key is made when it is missing. Others may compare the fingerprint with what their screen shows.
    """
    from chat.local.identity import fingerprint

    click.echo(fingerprint(_Home(data).identity().key))


@chat.command(name="transports")
def list_transports() -> None:
    """List the transports that are installed."""
    from chat.transport import find, schemes

    for scheme in schemes():
        click.echo(f"{scheme}\t{find(scheme).summary}")


# -- settings, and what helps ---------------------------------------------------------------------

_setting: Final = click.argument("name", metavar="KEY", shell_complete=completion.setting_names)


@chat.group(invoke_without_command=True)
@click.pass_context
def config(context: click.Context) -> None:
    """Show every setting, and where its value comes from."""
    if context.invoked_subcommand:
        return
    from chat.local import settings

    found = settings.load()
    for name in settings.NAMES:
        where = f"{found.path}:{found.lines[name]}" if name in found.lines else "default"
        click.echo(f"{name:<20}  {settings.toml(settings.value_of(found.settings, name)):<26}  {where}")
    if found.problems:
        _complain(translate(settings.complaint(found.problems)), FAILED)


@config.command(name="get")
@_setting
def get_setting(name: str) -> None:
    """Print the setting KEY as `set` takes it."""
    from chat.local import settings

    try:
        value = settings.value_of(settings.load().settings, name)
    except ValueError as error:
        raise click.UsageError(translate(error)) from None
    click.echo(value if isinstance(value, str) else settings.toml(value))


@config.command(name="set")
@_setting
@click.argument("value", shell_complete=completion.setting_values)
def set_setting(name: str, value: str) -> None:
    """Set KEY to VALUE, and leave the rest of the file as it is.

    A list is written with commas between its members.
    """
    from chat.local import settings

    try:
        checked = settings.parse(name, value)
    except ValueError as error:
        raise click.UsageError(translate(error)) from None
    settings.change(settings.path(), name, checked)
    found = settings.load()
    for told in _taken_keys(found.settings.keys, name.removeprefix("keys.")):
        click.echo(told)
    if problems := found.problems:  # two actions with one key, each of which is well by itself
        _complain(translate(settings.complaint(problems)), FAILED)


def _taken_keys(keys: dict[str, tuple[str, ...]], action: str = "") -> list[str]:
    """Return a line for each key that an action has lost to another one: to this one, or to any."""
    from chat.ui.commands import taken_keys

    told = _("{key} does {action} now, and {other} no more")
    return [
        told.format(key=key, action=has, other=other) for key, other, has in taken_keys(keys) if action in ("", has)
    ]


@config.command(name="check")
def check_settings() -> None:
    """Say what is wrong with the settings.

    Exit code 1 when something is.
    """
    from chat.core.text import visible
    from chat.local import settings

    found = settings.load()
    problems = found.problems
    for told in (*map(translate, problems), *_taken_keys(found.settings.keys)):
        click.echo(visible(told, lines=False))
    if problems:
        raise click.exceptions.Exit(FAILED)


@config.command(name="edit")
@click.pass_context
def edit_settings(context: click.Context) -> None:
    """Open the settings in your editor ($VISUAL, $EDITOR), and check them afterwards.

    A file with every default in it is made where there is none.
    """
    from chat.local import settings

    settings.edit(settings.path())
    context.invoke(check_settings)


@config.command(name="path")
def settings_path() -> None:
    """Print where the settings are."""
    from chat.local import settings

    click.echo(str(settings.path()))


@chat.command()
@_json
@_lang
@_data
def doctor(json: bool, data: Path | None) -> None:
    """Say what is wrong with this terminal and this machine, and how to mend it.

    Exit code 1 when something fails; a warning is none.
    """
    from chat.cli.doctor import FAIL, examine
    from chat.core.text import visible
    from chat.ndjson import dump

    if json:
        i18n.use("en")  # what programs read is the same in every language
    worst = DONE
    for finding in examine(data):
        click.echo(dump(finding._asdict()) if json else visible(str(finding), lines=False))
        worst = FAILED if finding.level == FAIL else worst
    raise click.exceptions.Exit(worst)


@chat.command(name="completion")
@click.argument("shell", type=click.Choice(list(completion.SHELLS)))
def print_completion(shell: str) -> None:
    """Print the script that makes SHELL complete chat's commands, options, rooms and transports.

    Its last line says how to install it.
    """
    click.echo(completion.script(chat, shell), nl=False)
