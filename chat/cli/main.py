"""The ``chat`` command: its group, language, errors and exit codes. Each command has a module of its own.

Nothing heavy is imported before a command needs it, so that ``chat --help`` feels instant.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 no such room or unreachable, 130 interrupted. A command whose
reader leaves, like `head`, dies of SIGPIPE silently (141 in a shell), as other tools do. An error is one line on
standard error; standard output carries only what was asked for.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from chat import i18n
from chat.cli import config, disk, doctor, export, identity, invite, member, oneshot, options, room, trust
from chat.cli.help import Group, usage_error
from chat.cli.home import asked_to_end, complain, warn
from chat.core.errors import DONE, FAILED, INTERRUPTED, USAGE, ChatError, reason
from chat.i18n import _, translate
from chat.local.arguments import hide_invites
from chat.local.descriptors import drop_unwritten, open_standard_streams


def main() -> None:
    """Run the command and exit with its code."""
    hide_invites()
    open_standard_streams()
    if sys.getfilesystemencoding() != "utf-8":  # some old locale's: in UTF-8 mode no name or path is beyond it
        arguments = [one.encode("utf-8", "surrogateescape") for one in sys.orig_argv[1:]]
        os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *arguments])  # noqa: S606 - ourselves
    for number in asked_to_end():
        signal.signal(number, _end)
    try:
        sys.exit(_exit_code())
    finally:
        drop_unwritten()
        for number in asked_to_end():
            signal.signal(number, signal.SIG_IGN)  # Python takes its own handlers away before the process has ended


def _end(number: int, _frame: object) -> None:
    """Undo what was begun, however many more signals come. A command that ``run`` runs ends in its own order."""
    for other in asked_to_end():
        signal.signal(other, lambda *_: None)  # not SIG_IGN: Python complains of one that has come already

    def again(what: sys.UnraisableHookArgs) -> None:
        """Python has dropped our SystemExit: it came in a callback, as `import` and finalizers have."""
        if isinstance(what.exc_value, SystemExit):
            signal.signal(signal.SIGALRM, lambda *_: _end(number, None))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(what)

    sys.unraisablehook = again
    sys.exit(128 + number)


def _exit_code() -> int:
    os.umask(0o077)  # what is created here is private
    i18n.use(_language_that_is_set)  # called for the first text, unless an option comes first
    code: int
    try:
        code = chat.main(prog_name="chat", standalone_mode=False, auto_envvar_prefix="CHAT") or DONE
    except click.exceptions.NoArgsIsHelpError as error:
        warn(error.format_message())
        code = USAGE
    except click.UsageError as error:
        where = _("; see: {command} --help").format(command=error.ctx.command_path) if error.ctx else ""
        message = usage_error(error)
        code = complain(message + where, USAGE)
    except click.ClickException as error:
        code = complain(error.format_message(), USAGE)
    except ChatError as error:
        code = complain(translate(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except OSError as error:
        code = complain(f"{error.filename or 'system'}: {translate(reason(error))}", FAILED)
    except Exception as error:
        if "CHAT_DEBUG" in os.environ:
            raise
        message = _("this is a bug in chat: {what}; please report it, with the output of CHAT_DEBUG=1")
        code = complain(message.format(what=f"{type(error).__name__}: {error}"), FAILED)
    return code


def _language_that_is_set() -> str:
    from chat.local.private_files import config_file

    if (given := os.environ.get("CHAT_LANG", "")) in {*i18n.LANGUAGES, "auto"}:
        return i18n.language(given, os.environ)
    if not (file := config_file()).exists():
        return i18n.language("auto", os.environ)
    from chat.local import settings  # 20 ms that most people need not wait for

    return i18n.language(settings.load(file).settings.language, os.environ)


class _Group(Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output left, as `head` does. That is no error, but a pipeline should see how we ended:
            # Python ignores the signal, and click would exit with 1.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
            raise


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="manywire", message="%(version)s", help="Show the version and exit.")
@options.lang
def chat() -> None:
    """Terminal chat where a flag picks the wire.

    \b
    chat host            open the room "lobby" and join it
    chat join            join the room open on this machine
    chat join 'chat://…' join a room elsewhere, by invite

    TARGET is empty or "." (the room open on this machine), a room's name, an address
    (tcp:HOST:PORT/ROOM), an invite (chat://…), or "-" (an invite on standard input).
    """  # noqa: D301 - \b is click's mark for lines that must not be wrapped


for _command in (
    member.host,
    member.be_peer,
    member.join,
    oneshot.send,
    oneshot.log,
    oneshot.search,
    oneshot.rooms,
    oneshot.who,
    invite.invite,
    room.room,
    trust.trust,
    disk.check,
    disk.repair,
    disk.backup,
    disk.restore,
    export.export,
    export.import_room,
    identity.identity,
    member.list_transports,
    member.example,
    config.config,
    doctor.doctor,
    options.completion,
):
    chat.add_command(_command)
