"""What owners and operators may ask of the host.

    request ──▶ may they? whom do they mean? ──▶ the audit trail ──▶ a decision for the order ──▶ the log: everybody
                                                  with the reason     (chat.core.bodies.Moderation)

Rules:

1. Nobody acts on an owner, and only owners act on operators: owners cannot be locked out.
2. The audit trail is written first. It is this host's own; the log says who decided what, and never why.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.core import text
from chat.core.bodies import Answer, Moderation, Refusal
from chat.core.errors import RequestFailed, StoreFull
from chat.core.wire import MAX_CONTROL
from chat.host import audit as audit_trail
from chat.host.invites import OWNER, end_invite
from chat.local.identity import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chat.core.bodies import Ask
    from chat.core.room import Room
    from chat.host.connection import Connection
    from chat.host.hosted_room import HostedRoom

STAFF: Final = frozenset({"owner", "operator"})
MAX_REASON: Final = 200  # characters of a reason or a topic; more is cut
MAX_SLOW: Final = 3600  # seconds between two messages of one member (/slow); more is refused: ``slow-too-long``
_PAGE: Final = MAX_CONTROL // 512  # rows of the audit trail, or members, in one answer
_LEAST_KEY: Final = 6  # characters of a fingerprint that name a key
BAN_ALSO: Final = "ban-also"  # in the audit trail: what a ban covers besides the key
_ROLES: Final = {  # what a request makes of somebody
    "ban": "banned",
    "mute": "muted",
    "op": "operator",
    "unban": "member",
    "unmute": "member",
    "deop": "member",
}
_ENDS: Final = {"unban": "banned", "unmute": "muted", "deop": "operator"}  # the role that it ends


def find(room: Room, whom: str) -> tuple[bytes, str]:
    """Return the key and the nickname of somebody who has been here. Raises RequestFailed."""
    name = whom.strip().removeprefix("@")
    start, named = name.removeprefix("SHA256:"), room.key_of(name)
    found = {named} if named is not None else set()
    if len(start) >= _LEAST_KEY:  # also if there is a nickname: somebody may have taken the start of another's key
        found |= {key for key in room.known_keys() if fingerprint(key).removeprefix("SHA256:").startswith(start)}
    if not found:
        raise RequestFailed("no-such-nick", whom=whom)
    if len(found) > 1:
        raise RequestFailed("many-such-keys", whom=whom)
    (key,) = found
    return key, room.nick_of(key, name)


def set_role(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Ban, mute, make an operator, and end each of these."""
    hosted, role = connection.hosted, _ROLES[ask.what]
    room = hosted.room
    key, nick = find(room, ask.text)
    before = _check_rank(connection, key, nick)
    if ask.what in _ENDS and before != _ENDS[ask.what]:
        raise RequestFailed("is-not", nick=nick, role=_ENDS[ask.what])
    if before == "banned" and role in {"muted", "operator"}:  # or ``unmute`` would let them in again
        raise RequestFailed("is-already", nick=nick, role=before)
    if before == role and not (ask.seconds or ask.alike or ask.cover):
        raise RequestFailed("is-already", nick=nick, role=role)
    until = _now() + ask.seconds * 1000 if ask.seconds else 0
    people = {key: nick}
    if ask.alike and role == "banned":
        people |= _others_by_invite(hosted, key, until)
    decisions = [
        Moderation(action="role", by=b"", by_nick="", key=one, nick=its_nick, role=role, until=until)
        for one, its_nick in people.items()
    ]
    covers = {one.key: _covered(hosted, one, ask.cover) for one in decisions} if role == "banned" else {}
    _decide(connection, ask.what, decisions, ask.reason, covers)
    return Answer(fields={"count": len(people)})


def kick(connection: Connection, ask: Ask, _number: int) -> Answer:
    key, nick = find(connection.hosted.room, ask.text)
    _check_rank(connection, key, nick)
    decision = Moderation(action="kick", by=b"", by_nick="", key=key, nick=nick)
    _decide(connection, "kick", [decision], ask.reason)
    return Answer()


def retract(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Take back a message of somebody else."""
    room = connection.hosted.room
    author = room.author_of(ask.first)
    if author is None:
        raise RequestFailed("no-such-message", number=ask.first)
    nick = room.nick_of(author)
    if author != connection.member.key:
        _check_rank(connection, author, nick)
    decision = Moderation(action="retract", by=b"", by_nick="", key=author, nick=nick, target=ask.first)
    _decide(connection, "retract", [decision], ask.reason)
    return Answer()


def set_topic(connection: Connection, ask: Ask, _number: int) -> Answer:
    decision = Moderation(action="topic", by=b"", by_nick="", text=text.quoted(ask.text, MAX_REASON))
    _decide(connection, "topic", [decision], decision.text)
    return Answer()


def set_slow(connection: Connection, ask: Ask, _number: int) -> Answer:
    if ask.seconds > MAX_SLOW:
        raise RequestFailed("slow-too-long", seconds=ask.seconds, limit=MAX_SLOW)
    decision = Moderation(action="slow", by=b"", by_nick="", seconds=ask.seconds)
    _decide(connection, "slow", [decision], str(ask.seconds))
    return Answer()


def audit(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Who did what to whom, and why: the newest rows, or those below number ``before``."""
    hosted = connection.hosted
    rows = audit_trail.newest(hosted.host.store, hosted.number, ask.before, _PAGE + 1)
    return Answer(audit=rows[:_PAGE], more=len(rows) > _PAGE)


def moderated(connection: Connection, ask: Ask, _number: int) -> Answer:
    """Operators, and who is muted or banned; from place ``first`` on."""
    room = connection.hosted.room
    rows = [
        (key, room.nick_of(key), role, until)
        for key, (role, until) in room.moderated.items()
        if role != "member" and key not in room.owners
    ]
    page = rows[ask.first : ask.first + _PAGE]
    return Answer(members=page, more=len(rows) > ask.first + _PAGE)


def refusal(hosted: HostedRoom, decision: Moderation | None, key: bytes) -> Refusal:
    """Return what somebody is told who is removed, or, without a decision, banned."""
    room, why = hosted.room.name, audit_trail.reason(hosted.host.store, hosted.number, key)
    if decision is not None and decision.action == "kick":
        nick = decision.by_nick
        if why:
            return Refusal(code="kicked-because", fields={"room": room, "nick": nick, "why": why})
        return Refusal(code="kicked", fields={"room": room, "nick": nick})
    if why:
        return Refusal(code="banned-because", fields={"room": room, "why": why})
    return Refusal(code="banned", fields={"room": room})


def _check_rank(connection: Connection, key: bytes, nick: str) -> str:
    """Return somebody's role. Raises RequestFailed if the asker may not act on it."""
    own, role = connection.member.role, _role_of(connection.hosted.room, key)
    if role == "owner" or (role == "operator" and own != "owner"):
        raise RequestFailed("outranked", nick=nick, role=role)
    return role


def _role_of(room: Room, key: bytes) -> str:
    if any(member.role == "owner" for member in room.links_of(key)):  # by the user's own process
        return "owner"
    return room.role_of(key)


def _others_by_invite(hosted: HostedRoom, key: bytes, until: int) -> dict[bytes, str]:
    """Return who else came by the same invite as this key, and end the invite.

    Without owners and operators, and without those who are banned for longer already: a ban shortens no other.
    """
    room, store = hosted.room, hosted.host.store
    invite, keys = audit_trail.admitted_with(store, hosted.number, key)
    newcomers = hosted.rates.newcomers()  # who may not be on the disk yet
    if invite := invite or newcomers.get(key, b""):
        keys += [one for one, its_invite in newcomers.items() if its_invite == invite]
    if invite in room.invites:
        end_invite(hosted, invite)
    return {
        one: room.nick_of(one) for one in keys if _role_of(room, one) not in STAFF and not _is_banned(room, one, until)
    }


def _is_banned(room: Room, key: bytes, until: int) -> bool:
    """Whether a key is banned until that time at least, 0 for ever."""
    role, end = room.moderated.get(key, ("member", 0))
    return role == "banned" and (not end or 0 < until <= end)


def _covered(hosted: HostedRoom, decision: Moderation, cover: str) -> list[str]:
    links = [one.link.peer for member, one in hosted.connections.items() if member.key == decision.key]
    return hosted.bans.find(decision.key, decision.nick, links, cover)


def _decide(
    connection: Connection, what: str, decisions: list[Moderation], reason: str, covers: Mapping[bytes, list[str]] = {}
) -> None:
    """Write decisions to the audit trail, in one commit, and have them take effect. Raises RequestFailed."""
    hosted, member = connection.hosted, connection.member
    # A reader, as of `chat room`, has no nickname on its link.
    by_nick = member.nick or hosted.room.nick_of(member.key) or member.role
    reason = text.quoted(reason, MAX_REASON)
    rows = []
    for decision in decisions:
        decision.by, decision.by_nick = member.key, by_nick
        rows.append((what, decision.key, decision.nick, reason))
        rows += [(BAN_ALSO, decision.key, origin, decision.nick) for origin in covers.get(decision.key, ())]
    try:
        with hosted.host.store.transaction() as database:
            audit_trail.add(database, hosted.number, _now(), by_nick, rows)
            hosted.bans.put(database, covers)
    except StoreFull:
        raise RequestFailed("disk-waits") from None
    hosted.bans.hold(covers)
    for decision in decisions:
        hosted.room.decide_now(decision, _now())
    hosted.wake()


def _now() -> int:
    return time.time_ns() // 1_000_000


REQUESTS: Final[dict[str, tuple[frozenset[str], Callable[[Connection, Ask, int], Answer]]]] = {
    **{name: (OWNER if name in {"op", "deop"} else STAFF, set_role) for name in _ROLES},
    "kick": (STAFF, kick),
    "retract": (STAFF, retract),
    "topic": (STAFF, set_topic),
    "slow": (STAFF, set_slow),
    "audit": (STAFF, audit),
    "moderated": (STAFF, moderated),
}
