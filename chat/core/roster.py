"""Who is here: a table of changes. Each member is sent the changes that it has not seen.

Rules:

1. A change is a version. A member is at a version too: it lacks exactly the changes after it.
2. Nothing queues. A slow member gets the newest state of each name, once.
3. One key and nickname with several windows shows once.
4. Members at the same version are sent the same bytes.
5. Members on the host's machine write and read the board themselves; only remote members are sent updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.bodies import Presence, States, pack
from chat.core.status import pack_slot
from chat.core.wire import MAX_CONTROL, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chat.core.status import Status, Who

_STATUSES: Final = MAX_CONTROL // 256  # slots in a page
# Changes in a page: of each a key (32 bytes), a nickname (at most 64), perhaps a login name (at most 32), and tags.
_PAGE: Final = MAX_CONTROL // 141


class _Changes:
    """When each (key, nickname) changed last, and the pages that tell of it."""

    def __init__(self) -> None:
        self.version = 0
        self._changed: dict[Who, int] = {}  # the version of each one's last change, in that order
        self._pages: dict[int, tuple[bytes, int]] = {}  # by the member's version, for this version

    def page(self, since: int) -> tuple[bytes, int]:
        """Return a frame of at most 4 KiB for a member at version ``since``, and its new version.

        Versions below 1 know nothing. Call again while the version returned is below ``version``.
        """
        known = self._pages.get(since)
        if known is None:
            known = self._pages[since] = self._make_page(since)
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        raise NotImplementedError

    def _change(self, who: Who) -> None:
        self.version += 1
        self._changed.pop(who, None)
        self._changed[who] = self.version
        self._pages.clear()

    def _newer(self, since: int, most: int, among: Collection[Who]) -> tuple[list[Who], int]:
        """Return the first ``most`` who changed after a version, and the version that a member then knows."""
        newer = []
        for who, version in reversed(self._changed.items()):
            if version <= since:
                break
            if who in among:
                newer.append(who)
        page = newer[: -most - 1 : -1]
        return page, self.version if len(page) == len(newer) else self._changed[page[-1]]


class Roster(_Changes):
    """The members of a room that are here now."""

    def __init__(self) -> None:
        super().__init__()
        self.here: dict[Who, int] = {}  # how many windows each has open, in order of arrival
        self.statuses = Statuses()
        self._bots: set[Who] = set()  # which of them are programs
        self._users: dict[Who, str] = {}  # login names
        self._floor = 0  # a member below this version gets the whole list

    def look(self, statuses: Mapping[Who, Status]) -> bool:
        """Take note of everybody's status. Return whether any changed."""
        before = self.statuses.version
        self.statuses.show(statuses, self.here)
        return self.statuses.version != before

    def enter(self, key: bytes, nick: str, *, bot: bool = False, user: str = "") -> None:
        """Count a window, or a program (``bot``) that the host started. ``user``: the login name, if it is known."""
        who = (key, nick)
        self.here[who] = self.here.get(who, 0) + 1
        if bot:
            self._bots.add(who)
        is_named = user != "" and self._users.get(who) != user
        if is_named:
            self._users[who] = user
        if self.here[who] == 1 or is_named:
            self._change(who)

    def leave(self, key: bytes, nick: str) -> None:
        """Forget a window. Raises KeyError for one that was not open."""
        who = (key, nick)
        self.here[who] -= 1
        if not self.here[who]:
            del self.here[who]
            self._bots.discard(who)
            self._users.pop(who, None)
            self._change(who)
        if len(self._changed) > 2 * len(self.here) + 512:
            # Forget those who left: a member that does not know yet gets the whole list instead.
            # Everyone here gets a version above the floor, or a list in pages would start over again and again.
            self._floor = self.version
            self._changed = {here: version for version, here in enumerate(self.here, self._floor + 1)}
            self.version += len(self.here)

    def _make_page(self, since: int) -> tuple[bytes, int]:
        reset = since < self._floor or since <= 0
        page, reached = self._newer(0 if reset else since, _PAGE, self.here if reset else self._changed)
        here = [who for who in page if who in self.here]
        presence = Presence(
            here=here,
            gone=[who for who in page if who not in self.here],
            reset=reset,
            more=reached < self.version,
            bots=[place for place, who in enumerate(here) if who in self._bots],
            users=[(place, self._users[who]) for place, who in enumerate(here) if who in self._users],
        )
        return pack(Kind.PRESENCE, presence), reached


class Statuses(_Changes):
    """The newest slot of each (key, nickname), for members that cannot see the board."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[Who, bytes] = {}

    def show(self, statuses: Mapping[Who, Status], here: Collection[Who]) -> None:
        """Take note of everybody's status; forget those who are not ``here``."""
        for who in [who for who in self._changed if who not in here]:
            del self._changed[who], self._slots[who]
        for who in here:
            state = statuses.get(who)
            slot = pack_slot(*who, state) if state else b""
            if self._slots.get(who, b"") != slot:
                self._slots[who] = slot
                self._change(who)

    def _make_page(self, since: int) -> tuple[bytes, int]:
        page, reached = self._newer(since, _STATUSES, self._slots)
        slots = [slot for who in page if (slot := self._slots[who])]
        return pack(Kind.STATES, States(slots=slots, gone=[who for who in page if not self._slots[who]])), reached
