"""Every error that this package raises, and the exit code each one ends a command with.

Two rules:

1. The text says what happened, with the numbers, then what to do; in lower case, on one line.
   A command prints it as it is and shows no traceback. What varies in it is given as fields, not put in by an f-string:
   ``chat.i18n.translate`` then says it in the language of the person; programs and logs have ``str``, which is English.
2. The class says whose fault it is. LocalProtocolError: our side broke the rules, a bug here.
   RemoteProtocolError: the peer did. LinkClosed: we closed it. LinkBroken: it failed, or the peer did.

A loss that is told (a gap in the log) is an event, not an error.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class ChatError(Exception):
    """Anything that manywire raises on purpose."""

    exit_code: int = FAILED

    def __init__(self, template: str, /, **fields: object) -> None:
        self.words = template if isinstance(template, Text) else Text(template, **fields)
        super().__init__(self.words)


class WrongValue(ValueError):
    """What somebody has given cannot be a name, a setting, a key. Whoever asked for it tells them."""

    def __init__(self, template: str, /, **fields: object) -> None:
        self.words = Text(template, **fields)
        super().__init__(self.words)


class AddressError(ChatError):
    """An address, a room's name or an invite that cannot be understood."""

    exit_code = USAGE


class UnknownScheme(AddressError):
    """No installed transport has this name."""

    def __init__(self, scheme: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(scheme, known, n=1)
        hint = Text("installed: {known}", known=", ".join(known) or Text("none"))
        if near:
            hint = Text("did you mean {near!r}?", near=near[0])
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
    """We did. It is a bug here, or a program misusing this package."""


class RemoteProtocolError(ProtocolError):
    """The peer did. The link to it is closed; nobody else is harmed."""


class Refused(ChatError):
    """The host (or our own trust in it) said no.

    ``code`` is one short word for programs; it stays the same across versions.
    """

    exit_code = REFUSED

    def __init__(self, code: str, message: str, /, **fields: object) -> None:
        super().__init__(message, **fields)
        self.code = code


class NoSuchRoom(Refused):
    """The host answers, but keeps no room of this name; or no room runs on this machine."""

    exit_code = UNREACHABLE

    def __init__(self, message: str, /, **fields: object) -> None:
        super().__init__("no-room", message, **fields)


class StoreError(ChatError):
    """The host's disk, or what is on it, cannot be trusted with more messages."""


class StoreFull(StoreError):
    """No room on the disk: nothing is lost, and writing resumes by itself."""


def reason(error: OSError) -> Text:
    """Return what the system said, as part of a line for people."""
    said = error.args[-1] if error.args else ""
    return said if isinstance(said, Text) else Text((error.strerror or str(error)).lower())
