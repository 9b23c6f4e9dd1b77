"""Who holds how much of something scarce, counted by source, and who gives way when it runs out.

Keys are free, so a limit per key stops nobody. A source is what a peer cannot multiply as easily: an IPv4 address, an
IPv6 network, a user of this machine (``Peer.source``).
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_HURRY: Final = 0.5  # the part of a door up to which a peer has its whole time
_SHARE: Final = 8  # at most an eighth of this process's descriptors wait at one door
_LEAST: Final = 0.2  # the part of its time that a peer has at a full door


class Shares(Generic[T]):
    """Items by source, and by key within it, in the order in which they came."""

    def __init__(self) -> None:
        self._held: dict[str, dict[bytes, dict[T, None]]] = {}
        self._counts: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, source: str, item: T, key: bytes = b"") -> None:
        self._held.setdefault(source, {}).setdefault(key, {})[item] = None
        self._counts[source] = self._counts.get(source, 0) + 1
        self._size += 1

    def remove(self, source: str, item: T, key: bytes = b"") -> None:
        """Does nothing for an item that is not there."""
        keys = self._held.get(source, {})
        if item not in keys.get(key, {}):
            return
        del keys[key][item]
        if not keys[key]:
            del keys[key]
        self._counts[source] -= 1
        self._size -= 1
        if not keys:
            del self._held[source], self._counts[source]

    def heaviest(
        self, *, prefer: str = "", exempt: Callable[[str], int] = lambda _source: 0
    ) -> tuple[str, list[list[T]]]:
        """Return the source that has most and its items, those of each key together, the key that has most last.

        ``exempt`` says how many of a source's items do not count. Where several sources have most, it is
        the one to ``prefer``, or else the one that has been there longest.
        """
        source = max(self._counts, key=lambda source: (self._counts[source] - exempt(source), source == prefer))
        return source, sorted(map(list, self._held[source].values()), key=len)


class Door(Generic[T]):
    """Peers that have not proved yet who they are: a bounded number of them, and those beyond it push others out.

    When it is full, the oldest peer of the source that has most is dropped. So a source that floods pushes out its own
    peers, and leaves the others their places. The fuller it is, the less time each newcomer has.
    """

    def __init__(self, most: int, drop: Callable[[T], object]) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = most if limit == resource.RLIM_INFINITY else min(most, max(1, limit // _SHARE))
        self._drop = drop
        self._peers: Shares[T] = Shares()

    def __len__(self) -> int:
        return len(self._peers)

    def enter(self, source: str, peer: T, seconds: float) -> float:
        """Take a place. Return how many of the ``seconds`` that a peer usually has this one has."""
        self._peers.add(source, peer)
        if len(self._peers) > self.most:
            heaviest, keys = self._peers.heaviest()
            oldest = keys[0][0]
            self._peers.remove(heaviest, oldest)
            self._drop(oldest)
        fill = len(self._peers) / self.most
        return seconds * max(_LEAST, min(1.0, 1 - (fill - _HURRY) * (1 - _LEAST) / (1 - _HURRY)))

    def leave(self, source: str, peer: T) -> None:
        """Give the place back. Idempotent."""
        self._peers.remove(source, peer)

    @contextmanager
    def place(self, source: str, peer: T, seconds: float) -> Iterator[float]:
        """Enter and leave, with what ``enter`` returns."""
        try:
            yield self.enter(source, peer, seconds)
        finally:
            self.leave(source, peer)
