"""A room's invites, as its owner asks for them: made, listed, revoked; and the standing one, renewed.

The host knows invites by their public keys only, so a list cannot show what lets anybody in. An invite is named by the
start of that key. Only the standing invite has a secret that is kept, since the room's card holds it.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.core import text
from chat.core.bodies import REVOKED, Answer, Moderation
from chat.core.errors import RequestFailed, StoreFull, WrongValue
from chat.core.wire import MAX_CONTROL
from chat.host import audit, schema, tables
from chat.local.invite import SECRET_SIZE, signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat.core.bodies import Ask
    from chat.host.connection import Connection
    from chat.host.hosted_room import HostedRoom
    from chat.host.store import Store

OWNER: Final = frozenset({"owner"})
NAME: Final = 8  # hex digits of its public key by which an invite is named
_PAGE: Final = MAX_CONTROL // 512  # invites in one answer
_NAMED: Final = 5  # nicknames of those who came by an invite
MAX_FOR: Final = 64  # characters that say whom an invite is for; more is cut
ROLES: Final = frozenset({"", "member", "operator"})


class Terms(NamedTuple):
    """What this host keeps of an invite besides its uses."""

    name: str = ""  # whom it is for
    role: str = ""  # operator, or "" for an ordinary member
    by: bytes = b""  # the key of the owner who made it
    by_nick: str = ""


def terms_of(store: Store, room: int, key: bytes) -> Terms:
    """Return the terms of an invite. One whose row is damaged makes nobody an operator. Raises StoreError."""
    with store._reading():
        row = store._reader.execute("SELECT * FROM invite_terms WHERE room = ? AND key = ?", (room, key)).fetchone()
    return Terms(*row[2:-1]) if row and schema.is_sound("invite_terms", row) else Terms()


def make(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Return the standing invite, or make one that ends by time or by use."""
    hosted = connection.hosted
    host, room = hosted.host, hosted.room
    if ask.role not in ROLES:
        raise RequestFailed("unknown-request", what=f"{ask.what} {ask.role}")
    role = "operator" if ask.role == "operator" else ""
    uses, name = ask.uses or (1 if role else -1), text.quoted(ask.text.strip(), MAX_FOR)
    if uses < 0 and not (ask.seconds or name):
        return Answer(text=str(host.invite(room.name)))
    expires = _now() + ask.seconds * 1000 if ask.seconds else 0
    invite = host.make_invite(room.name, secrets.token_bytes(SECRET_SIZE), _nickname(name))
    member = connection.member
    terms = Terms(name, role, member.key, member.nick or room.nick_of(member.key) or member.role)
    if name or role:  # first, so that nobody comes by it without them
        with _disk(), host.store.transaction() as database:
            tables.put_row(database, "invite_terms", hosted.number, invite.signer.key, *terms)
    _publish(hosted, invite.signer.key, expires, uses)
    return Answer(text=str(invite))


def _nickname(name: str) -> str:
    """Return a name as the nickname to suggest, "" if it cannot be one."""
    try:
        nick = text.nickname(name)
    except WrongValue:
        return ""
    return "" if text.reserved(nick) else nick


def promote(hosted: HostedRoom, invite: bytes, key: bytes, nick: str) -> Moderation | None:
    """Return the decision that makes an operator of whoever enters by an operator's invite, None for another invite.

    It is in the audit trail already. Raises StoreFull, StoreError.
    """
    store, room = hosted.host.store, hosted.number
    name, role, by, by_nick = terms_of(store, room, invite)
    if not role:
        return None
    nick = nick or name or "?"  # whoever only reads has none
    with store.transaction() as database:
        audit.add(database, room, _now(), by_nick, [("op", key, nick, f"invite {invite.hex()[:NAME]}")])
    return Moderation(action="role", by=by, by_nick=by_nick, key=key, nick=nick, role=role)


def _now() -> int:
    return time.time_ns() // 1_000_000


def listed(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Return name, uses left (-1: no limit), when it ends (ms), who came by it, and its terms; from ``first`` on."""
    hosted = connection.hosted
    room, store = hosted.room, hosted.host.store
    rows: list[tuple[str, int, int, list[str]]] = []
    terms = []
    for key, (expires, counted) in list(room.invites.items())[ask.first : ask.first + _PAGE]:
        came = [room.nick_of(one) or "?" for one in audit.admitted_by(store, hosted.number, key)]
        shown = [*came[:_NAMED], f"+{len(came) - _NAMED}"] if len(came) > _NAMED else came
        uses = store.uses_left(hosted.number, key) if counted else -1
        standing = "*" if key == signer(hosted.invite).key else ""
        rows.append((key.hex()[:NAME] + standing, uses, expires, shown))
        terms.append(terms_of(store, hosted.number, key)[:2])
    return Answer(invites=rows, terms=terms, more=len(room.invites) > ask.first + _PAGE)


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
