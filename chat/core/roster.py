"""Who is here: a table of changes. Each member is sent the changes that it has not seen.

Rules:

1. A change is a version. A member is at a version too: it lacks exactly the changes after it.
2. Nothing queues. A slow member gets the newest state of each name, once.
3. One key and nickname with several windows shows once.
4. Members at the same version are sent the same bytes.
5. Members on the host's machine write and read the board themselves; only remote members are sent updates.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from chat.core.status import pack_slot
from chat.core.wire import MAX_CONTROL, Kind, Presence, States, pack

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chat.core.status import Status, Who

_STATUSES: Final = MAX_CONTROL // 256  # slots in a page
_PAGE: Final = MAX_CONTROL // 128  # changes in a page: a key (32 bytes) and a nickname (at most 64) and their tags


class Roster:
    """The members of a room that are here now."""

    def __init__(self) -> None:
        self.version = 0
        self._windows: dict[Who, int] = {}  # how many windows each has open
        self._bots: set[Who] = set()  # which of them are programs
        self._changed: dict[Who, int] = {}  # the version of each one's last change, also of those who left
        self._order: list[tuple[int, Who]] = []  # all changes by version, also outdated ones
        self._floor = 0  # a member below this version gets the whole list
        self._pages: dict[int, tuple[bytes, int]] = {}  # by the member's version, for this version
        self.statuses = Statuses()

    def __len__(self) -> int:
        return len(self._windows)

    def look(self, statuses: Mapping[Who, Status]) -> bool:
        """Take note of everybody's status. Return whether any changed."""
        before = self.statuses.version
        self.statuses.show(statuses, self._windows)
        return self.statuses.version != before

    def here(self) -> list[Who]:
        """Return (key, nickname) of everyone here, in order of arrival."""
        return list(self._windows)

    def enter(self, key: bytes, nick: str, *, bot: bool = False) -> None:
        """Count a window, or a program (``bot``) that the host started."""
        who = (key, nick)
        self._windows[who] = self._windows.get(who, 0) + 1
        if bot:
            self._bots.add(who)
        if self._windows[who] == 1:
            self._change(who)

    def leave(self, key: bytes, nick: str) -> None:
        """Forget a window. Raises KeyError for one that was not open."""
        who = (key, nick)
        self._windows[who] -= 1
        if not self._windows[who]:
            del self._windows[who]
            self._bots.discard(who)
            self._change(who)

    def _change(self, who: Who) -> None:
        self.version += 1
        self._changed[who] = self.version
        self._order.append((self.version, who))
        self._pages.clear()
        if len(self._order) > 2 * len(self._windows) + 1024:
            # Forget those who left: a member that does not know yet gets the whole list instead.
            # Everyone here gets a version above the floor, or a list in pages would start over again and again.
            self._floor = self.version
            self._order = list(enumerate(self._windows, self._floor + 1))
            self._changed = {here: version for version, here in self._order}
            self.version += len(self._order)

    def page(self, since: int) -> tuple[bytes, int]:
        """Return a PRESENCE frame of at most 4 KiB for a member at version ``since``, and its new version.

        Versions below 1 know nothing. Call again while the version returned is below ``version``.
        """
        known = self._pages.get(since)
        if known is None:
            known = self._pages[since] = self._make_page(since)
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        reset = since < self._floor or since <= 0
        here: list[Who] = []
        gone: list[Who] = []
        reached, more = self.version, False
        at = 0 if reset else bisect_right(self._order, since, key=itemgetter(0))
        for version, who in self._order[at:]:
            if self._changed[who] != version:
                continue
            if len(here) + len(gone) == _PAGE:
                more = True
                break
            reached = version
            if who in self._windows:
                here.append(who)
            elif not reset:
                gone.append(who)
        bots = [place for place, who in enumerate(here) if who in self._bots]
        page = pack(Kind.PRESENCE, Presence(here=here, gone=gone, reset=reset, more=more, bots=bots))
        return page, reached if more else self.version


class Statuses:
    """The newest slot of each (key, nickname), for members that cannot see the board."""

    def __init__(self) -> None:
        self.version = 0
        self._cells: dict[Who, tuple[int, bytes]] = {}  # the version of its last change, and the slot; by version
        self._pages: dict[int, tuple[bytes, int]] = {}

    def show(self, statuses: Mapping[Who, Status], here: Collection[Who]) -> None:
        """Take note of everybody's status; forget those who are not ``here``."""
        for who in [who for who in self._cells if who not in here]:
            del self._cells[who]
        for who in here:
            state = statuses.get(who)
            slot = pack_slot(*who, state) if state else b""
            if self._cells.get(who, (0, b""))[1] != slot:
                self.version += 1
                self._cells.pop(who, None)
                self._cells[who] = (self.version, slot)
                self._pages.clear()

    def page(self, since: int) -> tuple[bytes, int]:
        """Return a STATES frame of at most 4 KiB for a member that knows version ``since``, and its new version."""
        known = self._pages.get(since)
        if known is None:
            known = self._pages[since] = self._make_page(since)
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        newer = list(takewhile(lambda item: item[1][0] > since, reversed(self._cells.items())))
        page = newer[: -_STATUSES - 1 : -1]  # the oldest of them first
        slots = [slot for _, (_, slot) in page if slot]
        gone = [who for who, (_, slot) in page if not slot]
        reached = page[-1][1][0] if len(page) < len(newer) else self.version
        return pack(Kind.STATES, States(slots=slots, gone=gone)), reached
