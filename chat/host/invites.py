"""A room's invites, as its owner asks for them: made, listed, revoked; and the standing one, renewed.

The host knows invites by their public keys only, so a list cannot show what lets anybody in. An invite is named by the
start of that key. Only the standing invite has a secret that is kept, since the room's card holds it.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from chat.core.bodies import REVOKED, Answer
from chat.core.errors import RequestFailed, StoreFull
from chat.core.wire import MAX_CONTROL
from chat.host import audit, tables
from chat.local.invite import SECRET_SIZE, signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat.core.bodies import Ask
    from chat.host.hosted_room import Connection, HostedRoom

OWNER: Final = frozenset({"owner"})
NAME: Final = 8  # hex digits of its public key by which an invite is named
_PAGE: Final = MAX_CONTROL // 512  # invites in one answer
_NAMED: Final = 5  # nicknames of those who came by an invite


def make(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Return the standing invite, or make one that ends by time or by use."""
    hosted = connection.hosted
    host, room = hosted.host, hosted.room
    if not ask.uses and not ask.seconds:
        return Answer(text=str(host.invite(room.name)))
    expires = time.time_ns() // 1_000_000 + ask.seconds * 1000 if ask.seconds else 0
    invite = host.make_invite(room.name, secrets.token_bytes(SECRET_SIZE))
    _publish(hosted, invite.signer.key, expires, ask.uses or -1)
    return Answer(text=str(invite))


def listed(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Return name, uses left (-1: no limit), when it ends (ms), and who came by it; from place ``first`` on."""
    hosted = connection.hosted
    room, store = hosted.room, hosted.host.store
    rows: list[tuple[str, int, int, list[str]]] = []
    for key, (expires, counted) in list(room.invites.items())[ask.first : ask.first + _PAGE]:
        came = [room.nick_of(one) or "?" for one in audit.admitted_by(store, hosted.number, key)]
        shown = [*came[:_NAMED], f"+{len(came) - _NAMED}"] if len(came) > _NAMED else came
        uses = store.uses_left(hosted.number, key) if counted else -1
        standing = "*" if key == signer(hosted.invite).key else ""
        rows.append((key.hex()[:NAME] + standing, uses, expires, shown))
    return Answer(invites=rows, more=len(room.invites) > ask.first + _PAGE)


def revoke(connection: Connection, ask: Ask, _number: int) -> Answer:
    """End an invite. The standing one is replaced by another."""
    hosted = connection.hosted
    found = [key for key in hosted.room.invites if ask.text and key.hex().startswith(ask.text.rstrip("*"))]
    if len(found) != 1:
        raise RequestFailed("no-such-invite", which=ask.text)
    end_invite(hosted, found[0])
    return Answer()


def renew(connection: Connection, _ask: Ask, _number: int) -> Answer:
    """Give the standing invite another secret; whoever came by the old one stays."""
    hosted = connection.hosted
    _renew(hosted)
    return Answer(text=str(hosted.host.invite(hosted.room.name)))


def end_invite(hosted: HostedRoom, key: bytes) -> None:
    """End an invite; another one takes the place of the standing one. Raises RequestFailed."""
    if key == signer(hosted.invite).key:
        _renew(hosted)
    else:
        _end(hosted, key)


def _renew(hosted: HostedRoom) -> None:
    host, secret = hosted.host, secrets.token_bytes(SECRET_SIZE)
    old, new = signer(hosted.invite).key, signer(secret).key
    _publish(hosted, new, 0, -1)
    with _disk(), host.store.transaction() as database:
        row = database.execute("SELECT * FROM rooms WHERE id = ?", (hosted.number,)).fetchone()
        tables.put_row(database, "rooms", *row[:3], secret, row[4])
    hosted.invite = secret
    _end(hosted, old)
    host.on_renewed(hosted.room.name)


def _publish(hosted: HostedRoom, key: bytes, expires: int, uses: int) -> None:
    with _disk():
        hosted.host.store.add_invite(hosted.number, key, expires, uses)
    hosted.room.add_invite(key, expires, counted=uses >= 0)
    hosted.wake()


def _end(hosted: HostedRoom, key: bytes) -> None:
    _expires, counted = hosted.room.invites[key]
    _publish(hosted, key, REVOKED, 0 if counted else -1)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except StoreFull:
        raise RequestFailed("disk-full") from None


REQUESTS: Final[dict[str, tuple[frozenset[str], Callable[[Connection, Ask, int], Any]]]] = {
    "invite": (OWNER, make),
    "invites": (OWNER, listed),
    "revoke": (OWNER, revoke),
    "renew": (OWNER, renew),
}
