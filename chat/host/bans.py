"""What a ban covers besides its key: keys are free, so whoever is banned would come again with another one.

Rules:

1. A ban covers the user of this machine whom the kernel names at the other end of a local link; and in a room that
   every key may enter, the source: an IPv4 address, or an IPv6 /64.
2. It holds for as long as its key is banned, and for everybody who comes from there: but never for those who keep
   order, or for the user who runs the host.
3. All of it is this host's own. The log names no address and no user.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Refusal
from chat.core.errors import RequestFailed, StoreFull
from chat.host import tables
from chat.host.rates import PRIVILEGED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from chat.core.room import Room
    from chat.host.store import Store
    from chat.transport import Peer

KNOWN: Final = 10_000  # keys whose last address is remembered; a ban of an earlier one holds the key only


def origin_of(peer: Peer) -> str:
    """Return what a ban can cover of a peer, such as ``user 1000``; "" if nothing tells it from others, or it is us."""
    origin = f"user {peer.uid}" if peer.uid is not None else peer.source.removeprefix("loopback, ")
    return "" if origin in {"loopback", f"user {os.geteuid()}"} else origin


class Bans:
    """What the bans of one room cover. Raises StoreError if that cannot be read."""

    def __init__(self, store: Store, number: int, room: Room) -> None:
        self._store = store
        self._number = number
        self._room = room
        self._covered: dict[bytes, set[str]] = {}  # by the key that is banned
        for _number, key, origin, _digest in store.rows("covered", number):
            self._covered.setdefault(key, set()).add(origin)
        self._came: dict[bytes, Peer] = {}  # the last one of each key

    def came(self, key: bytes, peer: Peer) -> None:
        """Remember from where a key came last: somebody may write an insult and leave."""
        self._came.pop(key, None)
        self._came[key] = peer
        if len(self._came) > KNOWN:
            del self._came[next(iter(self._came))]

    def refusal(self, key: bytes, peer: Peer) -> Refusal | None:
        """Return why somebody is kept out though the key is not banned, None if nobody keeps it out."""
        if not self._covered or self._room.role_of(key) in PRIVILEGED or not (origin := origin_of(peer)):
            return None
        held = any(origin in covered and self._is_banned(one) for one, covered in self._covered.items())
        return Refusal(code="banned-source", fields={"room": self._room.name}) if held else None

    def find(self, key: bytes, nick: str, peers: list[Peer], cover: str) -> list[str]:
        """Return what a ban of a key covers. ``peers`` are its links now, ``cover`` is as in ``Ask``.

        What an earlier ban covers stays covered until that ends, but for "key". Raises RequestFailed.
        """
        if cover == "key":
            return []
        # After a restart we do not know any more from where it came.
        found = set(self._covered.get(key, ())) if self._is_banned(key) else set()
        for peer in (*peers, *filter(None, [self._came.get(key)])):
            origin = origin_of(peer)
            # Over TCP a user of this machine may be a tunnel's, through which everybody comes.
            is_person = peer.uid is not None or (
                cover == "uid" if origin.startswith("user ") else self._room.open_to_all
            )
            if origin and is_person:
                found.add(origin)
        if cover == "uid" and not any(origin.startswith("user ") for origin in found):
            raise RequestFailed("no-uid", nick=nick)
        return sorted(found)

    def put(self, database: sqlite3.Connection, covers: Mapping[bytes, list[str]]) -> None:
        """Write what each ban covers, in place of what an earlier one did. ``hold`` it once that is stored."""
        for key, origins in covers.items():
            database.execute("DELETE FROM covered WHERE room = ? AND key = ?", (self._number, key))
            for origin in origins:
                tables.put_row(database, "covered", self._number, key, origin)

    def hold(self, covers: Mapping[bytes, list[str]]) -> None:
        for key, origins in covers.items():
            self._covered[key] = set(origins)
            if not origins:
                del self._covered[key]

    def forget_old(self) -> None:
        """Delete what bans that are over have covered."""
        if self._room.submitter is not None and self._room.submitter.size:
            return  # the order may not have brought a ban yet
        over: dict[bytes, list[str]] = {key: [] for key in self._covered if not self._is_banned(key)}
        if over:
            with suppress(StoreFull):  # the next time, then
                with self._store.transaction() as database:
                    self.put(database, over)
                self.hold(over)

    def _is_banned(self, key: bytes) -> bool:
        return self._room.role_of(key) == "banned"
