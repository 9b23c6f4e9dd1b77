"""What members may ask of the host: one row for each request in ``REQUESTS``.

The room answers ``names`` itself, since resuming a log depends on it.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.errors import RequestFailed, StoreFull
from chat.core.wire import Answer, Ask, Kind, pack
from chat.host.store import StoredInvite
from chat.local.invite import SECRET_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chat.host.connection import Connection
    from chat.host.host import Host
    from chat.host.hosted_room import HostedRoom


class Asked(NamedTuple):
    """One request of one member."""

    host: Host
    hosted: HostedRoom
    connection: Connection
    ask: Ask
    number: int


class Request(NamedTuple):
    """Who may ask (``role``, empty for everybody), and what it does: at once, or in a task of its own.

    A member has one task at a time, or it could keep the thread that searches busy for all.
    """

    run: Callable[[Asked], Answer | None] | None = None
    task: Callable[[Asked], Coroutine[None, None, Answer]] | None = None
    role: str = ""


def answer(host: Host, hosted: HostedRoom, connection: Connection, ask: Ask, number: int) -> None:
    """Answer request ``number``, now or later."""
    asked, request = Asked(host, hosted, connection, ask, number), REQUESTS.get(ask.what)
    try:
        if request is None:
            raise RequestFailed("unknown-request", what=ask.what)
        if request.role not in ("", connection.member.role):
            raise RequestFailed("owner-only", what=ask.what)
        if request.run is None:
            _start_task(asked, request, number)
            return
        found = request.run(asked)
    except RequestFailed as error:
        found = _failure(error)
    if found is not None:
        connection.member.cursor.post(pack(Kind.ANSWER, found, number=number))


def _start_task(asked: Asked, request: Request, number: int) -> None:
    assert request.task is not None
    if asked.connection.searching:
        raise RequestFailed("busy")
    asked.connection.searching = True
    asked.hosted.runtime.start(_answer_in_task(asked, request.task, number))


async def _answer_in_task(asked: Asked, task: Callable[[Asked], Coroutine[None, None, Answer]], number: int) -> None:
    member, hosted = asked.connection.member, asked.hosted
    try:
        found = await task(asked)
    except RequestFailed as error:
        found = _failure(error)
    finally:
        asked.connection.searching = False
    if member in hosted.connections:
        member.cursor.post(pack(Kind.ANSWER, found, number=number))
        hosted.wake()


def _failure(error: RequestFailed) -> Answer:
    return Answer(failed=True, code=error.code, fields=error.fields)


# -- the requests --------------------------------------------------------------------------------


def _range(asked: Asked) -> Answer | None:
    """Send a part of the log as RANGE frames, which are the answer."""
    ask, log = asked.ask, asked.hosted.room.log
    if not asked.connection.member.cursor.send_range(asked.number, max(1, ask.first), min(ask.before, log.end)):
        raise RequestFailed("range-runs")
    return None


def _invite(asked: Asked) -> Answer:
    host, hosted, ask = asked.host, asked.hosted, asked.ask
    if not ask.uses and not ask.seconds:
        return Answer(text=str(host.invite(hosted.room.name)))
    expires = time.time_ns() // 1_000_000 + ask.seconds * 1000 if ask.seconds else 0
    invite = host.make_invite(hosted.room.name, secrets.token_bytes(SECRET_SIZE))
    key = invite.signer.key
    try:
        hosted.runtime.store.add_invite(hosted.number, StoredInvite(key, expires, ask.uses or -1))
    except StoreFull:
        raise RequestFailed("disk-full") from None
    hosted.room.add_invite(key, expires, counted=bool(ask.uses))
    return Answer(text=str(invite))


def _peer(asked: Asked) -> Answer:
    # It runs a command as the host's user. A key may have been stolen; that the kernel vouches for the user of the
    # process at the other end means that whoever asks could run the command without us.
    if asked.connection.link.peer.uid != os.geteuid():
        raise RequestFailed("not-local")
    if asked.host.on_peer is None:
        raise RequestFailed("no-programs")
    name = asked.host.on_peer(asked.hosted.room.name, asked.ask.text)
    return Answer(code="started", fields={"name": name})


async def _search(asked: Asked) -> Answer:
    ask = asked.ask
    found = await asked.hosted.index.find(ask.text, before=ask.before, limit=ask.limit or 20)
    return Answer(found=list(found.hits), more=found.more, indexed=found.indexed)


REQUESTS: Final = {
    "range": Request(_range),
    "invite": Request(_invite, role="owner"),
    "peer": Request(_peer, role="owner"),
    "search": Request(task=_search),
}
