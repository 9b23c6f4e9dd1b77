"""The ``chat`` command. Nothing heavy is imported before a command needs it: ``chat --help`` must feel instant.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 no such room or unreachable, 130 interrupted; a command whose
reader leaves, like `head`, dies of SIGPIPE without a word (141 to a shell), as other tools do.
Errors are one line on standard error; standard output carries what was asked for and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from chat import i18n
from chat.cli import completion, config, doctor, host, invite, member, oneshot, options, who
from chat.cli.help import Group, Option, usage_error
from chat.cli.home import complain, warn
from chat.core.errors import DONE, FAILED, INTERRUPTED, USAGE, ChatError, reason
from chat.i18n import _, translate


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
            from chat.local.streams import drop_unwritten  # costs `chat --help` too much otherwise

            drop_unwritten()


def _exit_code() -> int:
    os.umask(0o077)  # whatever is made here is nobody else's to read
    i18n.use(_language_that_is_set)  # looked up at the first word, unless an option says it before
    code: int
    try:
        code = chat.main(prog_name="chat", standalone_mode=False, auto_envvar_prefix="CHAT") or DONE
    except click.exceptions.NoArgsIsHelpError as error:
        warn(error.format_message())
        code = USAGE
    except click.UsageError as error:
        where = _("; see: {command} --help").format(command=error.ctx.command_path) if error.ctx else ""
        message = usage_error(error).removesuffix(".")
        code = complain(message[:1].lower() + message[1:] + where, USAGE)
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
        told = _("this is a bug in chat: {what}; please report it, with the output of CHAT_DEBUG=1")
        code = complain(told.format(what=f"{type(error).__name__}: {error}"), FAILED)
    return code


def _language_that_is_set() -> str:
    from chat.local.private_files import config_file

    if not (file := config_file()).exists():
        return i18n.language("auto", os.environ)
    from chat.local import settings  # 20 ms that most people need not wait for

    return i18n.language(settings.load(file).settings.language, os.environ)


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


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="manywire", message="%(version)s", cls=Option, help="Show the version and exit.")
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
    host.host,
    host.be_peer,
    member.join,
    oneshot.send,
    oneshot.log,
    oneshot.search,
    who.rooms,
    who.who,
    invite.invite,
    member.show_id,
    host.list_transports,
    config.config,
    doctor.doctor,
    completion.print_completion,
):
    chat.add_command(_command)
