"""Every error that this package raises, and the exit code each one ends a command with.

1. The text says what happened, with the numbers, then what to do; in lower case, on one line.
   A command prints it as it is and shows no traceback. What varies in it is given as fields, not put in by an f-string:
   ``chat.i18n.translate`` then says it in the language of the person; programs and logs have ``str``, which is English.
2. The class says whose fault it is.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar, Final, Self

from chat.core import codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130


class Text(str):
    """A text of our own with what is put into it, which may be such texts again. As a string it is the English one.

    Without fields the text is taken as it is, braces and all.
    """

    __slots__ = ("fields", "template")
    template: str
    fields: dict[str, object]

    def __new__(cls, template: str, /, **fields: object) -> Self:
        words = super().__new__(cls, template.format(**fields) if fields else template)
        words.template = template
        words.fields = fields
        return words


def phrase(template: str, fields: Mapping[str, object]) -> Text:
    """Put fields into a template of ours.

    ``why`` may name one of ``codes.REASONS``, and ``role`` of ``codes.ROLES``, which are texts of ours, too.
    """
    tables = {"why": codes.REASONS, "role": codes.ROLES}
    named = [(name, fields.get(name), table) for name, table in tables.items()]
    known = {name: Text(table[one]) for name, one, table in named if isinstance(one, str) and one in table}
    return Text(template, **{**fields, **known})


def wire_fields(fields: Mapping[str, object]) -> dict[str, str | int]:
    """Return fields as they go over the wire."""
    return {name: one if isinstance(one, int) else str(one) for name, one in fields.items()}


class _Worded(Exception):
    def __init__(self, template: str, /, **fields: object) -> None:
        self.words = template if isinstance(template, Text) else Text(template, **fields)
        super().__init__(self.words)


class ChatError(_Worded):
    """Anything that manywire raises on purpose."""

    exit_code: int = FAILED


class WrongValue(_Worded, ValueError):
    """A name, a setting, a key or another value that somebody gave is not valid. Whoever asked for it tells them."""


class AddressError(ChatError):
    """An address, a room's name or an invite that cannot be understood."""

    exit_code = USAGE


class UnknownScheme(AddressError):
    """No installed transport has this name."""

    def __init__(self, scheme: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(scheme, known, n=1)
        installed = Text("installed: {known}", known=", ".join(known) or Text("none"))
        hint = Text("did you mean {near!r}?", near=near[0]) if near else installed
        super().__init__(Text("unknown transport {scheme!r}; {hint}", scheme=scheme, hint=hint))


class TransportError(ChatError):
    """The wire failed: the operating system said no, or the peer is gone."""

    exit_code = UNREACHABLE


class ListenFailed(TransportError):
    """A listener could not be opened."""

    exit_code = FAILED


class DialFailed(TransportError):
    """Nobody answers at this address."""


class LinkClosed(TransportError):
    """This side closed the link, and then used it."""


class LinkBroken(TransportError):
    """The link failed under us: a reset, a time-out, a peer that died."""


class LinkBusy(TransportError):
    """A second receive (or writable) while one is waiting: each link has one reader."""


class ProtocolError(ChatError):
    """Somebody broke the rules of the wire."""


class LocalProtocolError(ProtocolError):
    """We broke them. It is a bug here, or a program misusing this package."""


class RemoteProtocolError(ProtocolError):
    """The peer broke them. The link to it is closed; nobody else is harmed."""


class CodedError(ChatError):
    """An error with a code for programs, which stays the same across versions (``chat.core.codes``).

    ``text`` is for a code that our table lacks, from a host that is newer.
    """

    table: ClassVar[Mapping[str, str]] = {}

    def __init__(self, code: str, text: str = "", /, **fields: object) -> None:
        super().__init__(text if isinstance(text, Text) else phrase(text or self.table.get(code, code), fields))
        self.code = code
        self.fields = wire_fields(fields)


class Refused(CodedError):
    """The host said no, or we do not trust it."""

    exit_code = REFUSED
    table = codes.REFUSALS


class NoSuchRoom(Refused):
    """The host answers, but keeps no room of this name; or no room is open on this machine."""

    exit_code = UNREACHABLE


class HostBusy(Refused):
    """The host lets us in only later: it can open no more links, or somebody has used up what there is for now."""

    exit_code = UNREACHABLE

    @property
    def seconds(self) -> int:
        """After how many seconds to try again, 0 if the host did not say."""
        seconds = self.fields.get("seconds", 0)
        return seconds if isinstance(seconds, int) and seconds > 0 else 0


class Untrusted(Refused):
    """We do not trust the host. Its codes are ours alone, so no host can raise it."""

    table = codes.LOCAL


class OtherHost(Untrusted):
    """The host at an address is not the one that the invite names; another address may still lead to ours."""


class RequestFailed(CodedError):
    """The host cannot do, or does not allow, what a member asked for."""

    table = codes.ANSWERS


class StoreError(ChatError):
    """The host's disk, or what is on it, cannot be trusted with more messages."""


class StoreFull(StoreError):
    """The disk takes nothing now, usually since it is full: nothing is lost, and writing resumes by itself."""


def reason(error: OSError) -> Text:
    """Return what the system said, as part of a line for people."""
    said = error.args[-1] if error.args else ""
    return said if isinstance(said, Text) else Text((error.strerror or str(error)).lower())
