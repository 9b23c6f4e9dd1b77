"""Who may do what in a room: roles, slow mode, and who wrote the message that an edit or a retraction is about.

Rules:

1. Roles come from the order, as ``Moderation`` records, so every host of a room judges alike.
2. Owners are known by their keys, and no record changes what they may do: they cannot be locked out.
3. A role that ends at some time is ended by a record, too. Nothing here looks at a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core import text
from chat.core.ledger import BOT, Ledger, RoomTables
from chat.core.sequencer import Moderate
from chat.core.wire import HEADER_SIZE, MAX_TEXT, REPLY, SEQ_PREFIX, SPOKEN_END, TARGETED, Kind, author_at, kind_at

if TYPE_CHECKING:
    from chat.core.bodies import Moderation
    from chat.core.log import Log
    from chat.core.sequencer import Submission
    from chat.core.wire import Frame

# bytes of a message from a member, with its header and target; a longer one is rejected: ``too-long``
MAX_MESSAGE: Final = HEADER_SIZE + SEQ_PREFIX.size + MAX_TEXT
# authors of old messages and times of members in slow mode; more are read from the disk, or forgotten
MAX_REMEMBERED: Final = 1_000
_GIVEN: Final = frozenset({"operator", "member", "muted", "banned"})  # roles that a decision may give


class ModeratedLedger(Ledger):
    """A ledger that knows what its owners and operators have decided."""

    def __init__(self, log: Log, tables: RoomTables, owners: frozenset[bytes]) -> None:
        super().__init__(log, tables)
        self.owners = owners
        self.disk_reads = 0  # for targets that are not in memory, since the host has charged for them
        self._targets: dict[int, bytes] = {}  # the authors of such targets
        self._spoke: dict[bytes, int] = {}  # when each key spoke last, in slow mode (ms)

    def _submit(self, submission: Submission) -> None:
        self._apply(submission)

    def decide_now(self, decision: Moderation, now: int) -> None:
        """Submit a decision of somebody who may make it."""
        self._submit(Moderate(now, decision))

    def role_of(self, key: bytes) -> str:
        """Return owner, operator, member, muted, banned, or the role of programs."""
        if key in self.owners:
            return "owner"
        role, _until = self.moderated.get(key, ("member", 0))
        if role not in _GIVEN:  # such as owner, in a log that somebody has forged
            return "member"
        return BOT if role == "member" and self._roles.get(key) == BOT else role

    def key_of(self, nick: str) -> bytes | None:
        """Return whose nickname this is, written as it is or in another case."""
        found = self._nicks.get(text.skeleton(nick)) or self._nicks.get(nick)
        return found[1] if found and found[0].casefold() == nick.casefold() else None

    def known_keys(self) -> set[bytes]:
        """Return the keys of all who may enter or have been here."""
        return set(self.owners) | self._roles.keys() | {key for _nick, key in self._nicks.values()}

    @property
    def slow(self) -> int:
        """Seconds between two messages of one member, 0 for as they like."""
        return int(self.properties.get("slow", "") or 0)

    def wrong_with(self, key: bytes, held: str, frame: Frame, now: int) -> tuple[str, dict[str, str | int]] | None:
        """Return code and fields of the reason to reject a message, None if there is none.

        ``held`` is the role of a member whom moderation restrains, "" of the others.
        """
        if len(frame.raw) > MAX_MESSAGE:
            return "too-long", {"size": len(frame.raw) - HEADER_SIZE, "limit": MAX_TEXT}
        if held:
            if held == "muted":
                return "muted", {}
            pace = 1000 * self.slow
            if 0 < (left := self._spoke.get(key, now - pace) + pace - now) <= pace:  # not if the clock went back
                return "slow", {"seconds": self.slow, "left": -(-left // 1000)}
        if frame.kind in TARGETED:
            if len(frame.raw) < HEADER_SIZE + SEQ_PREFIX.size:
                return "no-target", {}
            (target,) = SEQ_PREFIX.unpack_from(frame.raw, HEADER_SIZE)
            author = self.author_of(target)
            if author is None:
                return "no-target", {}
            if frame.kind in {Kind.EDIT, Kind.RETRACT} and author != key:
                return "not-yours", {"number": target}
        elif frame.kind == Kind.SAY and frame.flags & REPLY:
            (target,) = SEQ_PREFIX.unpack_from(frame.raw.ljust(HEADER_SIZE + SEQ_PREFIX.size, b"\0"), HEADER_SIZE)
            if not 0 < target < self.log.end:  # it may be gone by now: who has read it answers it
                return "no-target", {}
        if held:
            if len(self._spoke) >= MAX_REMEMBERED:
                self._spoke.clear()
            self._spoke[key] = now
        return None

    def author_of(self, seq: int) -> bytes | None:
        """Return the key that wrote a message, None if there is no such message, or not any more."""
        if not 0 < seq < self.log.end:
            return None
        if (known := self._targets.get(seq)) is not None:
            return known or None
        is_old = seq < self.log.in_memory_from
        self.disk_reads += is_old
        found = self.log.frame_at(seq)
        index = author_at(found, 0) if found is not None and kind_at(found, 0) < SPOKEN_END else 0
        author = self._authors[index - 1].key if 0 < index <= len(self._authors) else b""
        if is_old:
            if len(self._targets) >= MAX_REMEMBERED:
                self._targets.clear()
            self._targets[seq] = author
        return author or None
