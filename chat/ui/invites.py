"""An invite as people get it: its text, its QR code, and how far it goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from chat.core.errors import AddressError
from chat.i18n import _, translate
from chat.local.invite import Invite
from chat.transport.registry import is_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Two modules, one above the other. What is light is drawn, since most terminals are dark.
_HALVES: Final = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
_BORDER: Final = 2  # modules: ISO 18004 asks for 4, but readers do with less, and rows are scarce in a terminal


def is_picture(line: str) -> bool:
    """Whether this is a row of ``qr_code``."""
    return bool(line) and set(line) <= {*_HALVES.values()}


def qr_code(text: str) -> list[str]:
    """Return a QR code (ISO/IEC 18004, lowest error correction) in half blocks: light on dark.

    There is none for a text that is too long: the largest code holds 2,953 bytes.
    """
    import segno  # 40 ms

    try:
        code = segno.make(text, error="l", boost_error=False, micro=False)
    except segno.DataOverflowError:
        return []
    rows = [bytes(row) for row in code.matrix_iter(border=_BORDER)]
    rows += [bytes(len(rows))] * (len(rows) % 2)
    return [
        "".join(map(_HALVES.__getitem__, zip(*pair, strict=True))) for pair in zip(rows[::2], rows[1::2], strict=True)
    ]


def about(text: str, *, qr: bool, columns: int) -> Iterator[str]:
    """Yield lines to show with an invite: its QR code if that is asked for and fits, and how far the invite goes."""
    try:
        limit = Invite.parse(text).limit
    except AddressError:  # of a newer host
        return
    rows = qr_code(text) if qr else []
    if rows and len(rows[0]) <= columns:
        yield from rows
    elif qr:
        words = _("the QR code does not fit into {columns} columns; make the window wider, or copy the text")
        yield words.format(columns=columns)
    if limit:
        yield translate(limit)


def ways_in(listening: Sequence[str]) -> list[str]:
    """Return how others come into a room that this window hosts: a line each. ``listening``: ``HostProcess``'s."""
    opened = [json.loads(line) for line in listening]
    room, invite = opened[0]["room"], Invite.parse(opened[0]["invite"])
    found = [_("from another terminal here: chat join {room}").format(room=room)]
    if invite.leaves_machine:
        at = ", ".join(str(address) for address in invite.addresses)
        text = _("from elsewhere: /invite copies what to send them; the room is at {addresses}")
        found.append(text.format(addresses=at))
    else:
        found.append(_("from elsewhere: nobody can come in yet; /invite says how"))
    local = ", ".join(one["transport"] for one in opened if is_local(one["transport"]))
    network = ", ".join(one["transport"] for one in opened if not is_local(one["transport"]))
    if local and network:
        text = _("{local} is open besides {network}: windows on this machine, like this one, need no network")
        found.append(text.format(local=local, network=network))
    return found


def how_to_reopen() -> str:
    return _("/reopen opens the room again; this window stays, and what you write is sent then")
