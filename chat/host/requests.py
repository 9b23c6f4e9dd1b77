"""What members may ask of the host: one row for each request in ``REQUESTS``.

The room answers ``names`` itself, since resuming a log depends on it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Answer, Ask, Gap, pack
from chat.core.errors import RequestFailed
from chat.core.wire import Kind
from chat.host import invites, moderation
from chat.host.invites import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.host.connection import Connection


def answer(connection: Connection, ask: Ask, number: int) -> None:
    """Answer a member's request ``number``, now or later."""
    try:
        if ask.what not in REQUESTS:
            raise RequestFailed("unknown-request", what=ask.what)
        roles, run = REQUESTS[ask.what]
        if roles and connection.member.role not in roles:
            raise RequestFailed("owner-only" if roles == OWNER else "staff-only", what=ask.what)
        found = run(connection, ask, number)
    except RequestFailed as error:
        found = _failure(error)
    if found is not None:
        connection.member.post(pack(Kind.ANSWER, found, number=number))


def _failure(error: RequestFailed) -> Answer:
    return Answer(failed=True, code=error.code, fields=error.fields)


def _range(connection: Connection, ask: Ask, number: int) -> None:
    """Send a part of the log as RANGE frames, which are the answer."""
    end = connection.hosted.room.log.end
    connection.member.posted.add(connection.member)
    if not connection.member.cursor.send_range(number, max(1, ask.first), min(ask.before, end)):
        raise RequestFailed("range-runs")


def _peer(connection: Connection, ask: Ask, _number: int) -> Answer:
    # It runs a command as the host's user. A key may have been stolen; that the kernel vouches for the user of the
    # process at the other end means that whoever asks could run the command without us.
    if connection.link.peer.uid != os.geteuid():
        raise RequestFailed("not-local")
    hosted = connection.hosted
    if hosted.host.on_peer is None:
        raise RequestFailed("no-programs")
    return Answer(code="started", fields={"name": hosted.host.on_peer(hosted.room.name, ask.text)})


def _search(connection: Connection, ask: Ask, number: int) -> None:
    if connection.searching:  # one at a time, or a member could keep the thread that searches busy for all
        raise RequestFailed("busy")
    connection.searching = True
    connection.hosted.host.start(_answer_search(connection, ask, number))


async def _answer_search(connection: Connection, ask: Ask, number: int) -> None:
    member, hosted = connection.member, connection.hosted
    try:
        hits, more, indexed = await hosted.index.find(ask.text, before=ask.before, limit=ask.limit or 20)
        if isinstance(gone := hosted.room.log.read(1), Gap):  # words of what --keep has deleted stay in the index
            kept = [hit for hit in hits if hit[0] >= gone.first + gone.count]
            hits, more = kept, more and kept == hits
        found = Answer(found=hits, more=more, indexed=indexed)
    except RequestFailed as error:
        found = _failure(error)
    finally:
        connection.searching = False
    if member in hosted.connections:
        member.post(pack(Kind.ANSWER, found, number=number))
        hosted.wake()


# By name: the roles that may ask (none: everybody), and what answers; None where the answer is sent in another way.
REQUESTS: Final[dict[str, tuple[frozenset[str], Callable[[Connection, Ask, int], Answer | None]]]] = {
    "range": (frozenset(), _range),
    "peer": (OWNER, _peer),
    "search": (frozenset(), _search),
    **invites.REQUESTS,
    **moderation.REQUESTS,
}
