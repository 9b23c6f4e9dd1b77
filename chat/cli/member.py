"""``chat host``, ``chat join``, ``chat transports``; the hidden command that runs a program for a host."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import option

from chat import i18n
from chat.cli import options
from chat.cli.help import command
from chat.cli.home import Home, print_table, run, warn
from chat.core.errors import FAILED, INTERRUPTED, ChatError, Refused, WrongValue
from chat.i18n import _, plural, translate

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.host.process import HostProcess
    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.linear import Linear


@command()
@options.target
@options.transport
@options.nick
@options.plain
@options.json
@options.count(
    "-n", "--history", type=options.MESSAGES, default=options.HISTORY, help="Start with the last N messages."
)
@option("--since", type=options.NUMBER, metavar="SEQ", help="Start at this message number instead.")
@options.lang
@options.data
def join(
    target: str, transport: str, nick: str, plain: bool, json: bool, history: int, since: int, data: Path | None
) -> None:
    """Join the room TARGET and talk.

    If standard input is no terminal, each line of it is sent as it is, never taken as a command.
    Exit code 1 if one could not be sent.
    """
    home = Home(data)
    client = home.client(target, transport, nick=nick, speaks=True, history=history, since=since or 0, looks=True)
    run(show(client, home, plain=plain, as_json=json))


async def show(client: Client, home: Home, *, plain: bool, as_json: bool, hosted: HostProcess | None = None) -> None:
    """Join and show the room in NDJSON, line by line, or on the full screen. At the end, say how much is not stored."""
    clients = [client]
    try:
        if as_json:
            await _show_json(client)
        else:
            await _show_lines_or_screen(clients, home, plain=plain, hosted=hosted)
    finally:
        if unsettled := sum(len(client.session.unsettled) for client in clients):
            message = plural(
                "1 message is not stored yet; it stays in the outbox until {nick} joins again",
                "{count} messages are not stored yet; they stay in the outbox until {nick} joins again",
                unsettled,
            )
            warn(f"chat: {message.format(count=unsettled, nick=client.nick)}")
        for text in [text for client in clients for text in client.unkept]:
            warn(_("chat: your disk did not take this message, so it was not sent: {text}").format(text=text))


async def _show_json(client: Client) -> None:
    from chat.ndjson import dump
    from chat.ui import ndjson

    try:
        async with client:
            await ndjson.run(client)
    except Refused as error:
        click.echo(dump({"event": "refused", "code": error.code, "fields": error.fields, "message": str(error)}))
        raise


async def _show_lines_or_screen(clients: list[Client], home: Home, *, plain: bool, hosted: HostProcess | None) -> None:
    """Show the room of the only one of ``clients``, which at the end are those of all rooms that are open here."""
    from chat.local import settings

    found = settings.load()
    complaint = translate(settings.complaint(found.problems)) if found.problems else ""
    face: Linear | FullScreen
    (client,) = clients
    unsent = 0

    def opener(target: str) -> Client:
        made = home.client(target, "", nick=client.nick, speaks=True, history=options.HISTORY, looks=True)
        made.on_wait = None  # a face is on the terminal by then, and shows the refusal itself
        return made

    async with client:
        if plain or os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdout.isatty() and sys.stdin.isatty()):
            from chat.ui.linear import Linear

            if complaint:
                warn(f"chat: {complaint}")
            face = Linear(client, found.settings, opener, found.path, hosted=hosted)
        else:
            import gc

            from chat.ui.fullscreen.face import FullScreen

            gc.freeze()  # what is loaded stays: collecting over it would delay keys by 50 ms
            face = FullScreen(
                client,
                settings=found.settings,
                opener=opener,
                file=found.path,
                history=home.typed(client.identity),
                complaint=complaint,
                hosted=hosted,
            )
        try:
            unsent = await face.run() or 0
        finally:
            clients[:] = [room.client for room in face.controller.rooms]
    if unsent:
        raise click.exceptions.Exit(FAILED)


@command()
@click.argument("room", default="lobby")
@option(
    "-t",
    "--transport",
    multiple=True,
    metavar="NAME[:ADDRESS]",
    shell_complete=options.complete_transport,
    help="Listen here; repeatable. Default: only on this machine.",
)
@option("--advertise", metavar="HOST", default="", help="Host name or address to put into invites.")
@option(
    "--proxy-protocol",
    metavar="ADDRESSES",
    default="",
    help="Believe PROXY headers from these proxies: loopback, addresses, networks; by commas.",
)
@option("--group", metavar="GROUP", help="Let the members of GROUP on this machine in, without an invite.")
@option("--everyone", is_flag=True, help="Let every user of this machine in, without an invite.")
@option("--invite-only/--open", default=True, help="Whether newcomers need an invite.")
@options.count(
    "--rate",
    default=5000,
    help="Messages per second accepted from a member, or from all newcomers of one address; 0: no limits.",
)
@option("--peer", multiple=True, metavar="[NAME=]COMMAND", help="Run a program as a member: it reads and prints lines.")
@option(
    "--peer-json",
    multiple=True,
    metavar="[NAME=]COMMAND",
    help="The same for a program that speaks NDJSON, as in join --json.",
)
@option("--restart", is_flag=True, help="Restart these programs when they end.")
@options.count(
    "--bot-turns", default=20, help="Turns that programs may take among themselves before they are muted; 0: no limit."
)
@option(
    "--keep",
    multiple=True,
    metavar="SIZE|AGE",
    help="Delete the oldest messages over this size (500M) or age (30d). Default: keep all.",
)
@option(
    "--min-free",
    default="64M",
    metavar="SIZE",
    help="While less of the disk is free, only the owner and operators can write. Default: 64M; 0: no limit.",
)
@option("--headless", is_flag=True, help="Only serve the room: open no window.")
@option("--control-fd", type=int, default=-1, hidden=True)
@options.nick
@options.plain
@options.json
@options.lang
@options.data
def host(
    room: str,
    transport: tuple[str, ...],
    advertise: str,
    proxy_protocol: str,
    group: str | None,
    everyone: bool,
    invite_only: bool,
    rate: int,
    peer: tuple[str, ...],
    peer_json: tuple[str, ...],
    restart: bool,
    bot_turns: int,
    keep: tuple[str, ...],
    min_free: str,
    headless: bool,
    control_fd: int,
    nick: str,
    plain: bool,
    json: bool,
    data: Path | None,
) -> None:
    """Open ROOM and join it in this window.

    The window is an ordinary member. The room runs in a process of its own and closes with the window,
    unless you leave it open when the window asks.
    With --headless there is no window, and the room stays open until SIGTERM or Ctrl-C.
    """
    from chat.core.text import room_name
    from chat.host.keep import Keep, parse_size
    from chat.host.programs import Program
    from chat.transport.registry import bare_scheme, find, local_scheme
    from chat.transport.typed import typed_address, typed_host

    if everyone and group is not None:
        raise WrongValue("--group and --everyone cannot be combined; give one")
    if group == "":  # of an unset variable, perhaps
        raise WrongValue("--group needs the name of a group; to let every user of this machine in, write --everyone")
    if group:
        from chat.local.shared import group_id

        group_id(group)
    group = "" if everyone else group
    room = room_name(room)
    addresses = [typed_address(address) for address in transport]
    asked = [find(address.scheme).scheme for address in addresses]  # before anything starts
    for scheme in asked:
        if getattr(find(scheme), "inside", False):
            raise WrongValue(
                "{scheme} connects parts of one program, so nobody could enter this room; for people on this machine "
                "leave -t out, for others use -t {network}",
                scheme=scheme,
                network=bare_scheme(),
            )
    transport, advertise = tuple(map(str, addresses)), typed_host(advertise)
    if not (headless and asked) and (local := local_scheme()) not in asked:
        transport = (*transport, local)
    programs = Program.parse_all(peer, peer_json)
    limits, floor = Keep.parse_all(keep), parse_size(min_free)
    home = Home(data)
    if headless:
        from chat.host.process import failed, serve

        try:
            run(
                serve(
                    room,
                    transport,
                    group=group,
                    folder=home.room(room),
                    host_key=home.host_key,
                    owners=home.identities.keys(),
                    open_to_all=not invite_only,
                    advertise=advertise,
                    proxy_protocol=proxy_protocol,
                    rate=rate,
                    bot_turns=bot_turns,
                    min_free=floor,
                    programs=programs,
                    restart=restart,
                    keep=limits,
                    as_json=json,
                    control_fd=control_fd,
                )
            )
        except click.exceptions.Exit as end:
            if end.exit_code == INTERRUPTED:
                raise  # but SIGTERM and SIGHUP are how a service ends
        except ChatError as error:
            if control_fd >= 0:
                click.echo(failed(error))  # for the window to report
                i18n.use("en")  # in the host's log
            raise
        return
    from chat.core.events import LocalNotice
    from chat.host.folder import check_folder
    from chat.host.process import HostProcess

    arguments = [f"--transport={address}" for address in transport]
    arguments += ["--invite-only" if invite_only else "--open", f"--advertise={advertise}", f"--rate={rate}"]
    arguments += [f"--proxy-protocol={proxy_protocol}"]
    arguments += [] if group is None else [f"--group={group}" if group else "--everyone"]
    arguments += [*(f"--peer={spec}" for spec in peer), *(f"--peer-json={spec}" for spec in peer_json)]
    arguments += [*(f"--keep={limit}" for limit in keep), f"--min-free={min_free}"]
    arguments += [*(["--restart"] if restart else []), f"--bot-turns={bot_turns}", f"--lang={i18n.current_language()}"]
    log = check_folder(home.room(room)) / "host.log"
    with closing(HostProcess(room, arguments, home.folder, log)) as hosted:
        if json:
            for line in hosted.listening:
                click.echo(line)
        client = home.client(room, "", nick=nick, speaks=True, history=options.HISTORY, looks=True)
        if hosted.words and not json:
            client.events.put(LocalNotice(code="own-words", fields={"words": hosted.words}))
        run(hosted.while_it_runs(show(client, home, plain=plain, as_json=json, hosted=hosted)))
    if hosted.kept:
        text = _("room {room} stays open; enter it with: chat join {room}; close it with: kill {pid}")
        warn(text.format(room=room, pid=hosted.pid))
    elif not json:
        again = shlex.join(["chat", *sys.argv[1:]])  # with the options: without them the room would admit others
        warn(_("room {room} is closed; open it again with: {command}").format(room=room, command=again))


@command(name="peer", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("room")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@option("--dial", required=True)
@option("--host", required=True)
@option("--home", type=click.Path(path_type=Path), required=True)
@options.json
def be_peer(room: str, name: str, command: tuple[str, ...], dial: str, host: str, home: Path, json: bool) -> None:
    """Run a program for a host."""
    import asyncio

    from chat.host.peer_process import HostGone, attend, meet
    from chat.transport import Address

    i18n.use("en")  # its errors go into the host's log
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the host sees how it ended
    code = 0

    async def run(client: Client) -> None:
        nonlocal code
        if json:
            from chat.ui import ndjson  # here: it loads more than other peers need

            code = await attend(client, command, ndjson.read)
        else:
            code = await attend(client, command)

    try:
        asyncio.run(meet(run, Address.parse(dial), room=room, name=name, host=bytes.fromhex(host), home=home))
    except HostGone:
        code = FAILED  # nobody is left to tell why
    if code < 0:  # show the host how the program ended
        with suppress(OSError):  # SIGKILL cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


@command()
def example() -> None:
    """Print a small program in Python that can be a member, for --peer: it rolls a die."""
    click.echo(Path(__file__).with_name("dice.py").read_text("utf-8"), nl=False)


@command(name="transports")
def list_transports() -> None:
    """List the installed transports."""
    from chat.transport.registry import find, schemes

    print_table([(scheme, find(scheme).summary) for scheme in schemes()])
