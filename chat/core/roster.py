"""Who is here: a table of changes. Each member is sent the changes that it has not seen.

Rules:

1. A change is a version. A member is at a version too: it lacks exactly the changes after it.
2. Nothing queues. A slow member gets the newest state of each name, once.
3. One key and nickname with several windows shows once.
4. Members at the same version are sent the same bytes.
5. Members on the host's machine write and read the board themselves; only remote members are sent updates.
6. While the roster is held, changes gather without a version; ``release`` gives them one. So a thousand who join at
   once are told in a few pages, and not each of all the others one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from chat.core.bodies import Presence, States, pack
from chat.core.status import pack_slot
from chat.core.wire import MAX_CONTROL, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chat.core.status import Status, Who

# members whose nicknames and statuses the others are told, for 140 KB to each newcomer; of more, how many there are
MAX_LISTED: Final = 1_000
_STATUSES: Final = MAX_CONTROL // 256  # slots in a page
# Changes in a page: of each a key (32 bytes), a nickname (at most 64), perhaps a login name (at most 32), and tags.
_PAGE: Final = MAX_CONTROL // 141
_TOGETHER: Final = 16  # pages that a member is sent at once: 64 KiB, of a list of many


class _Changes:
    """When each (key, nickname) changed last, and the pages that tell of it."""

    def __init__(self) -> None:
        self.version = 0
        self._changed: dict[Who, int] = {}  # the version of each one's last change
        self._order: list[tuple[int, Who]] = []  # the same by version, with older changes between
        self._pages: dict[int, tuple[bytes, int]] = {}  # by the member's version, for this version

    def pages(self, since: int) -> tuple[bytes, int]:
        """Return frames of at most 4 KiB each for a member at version ``since``, and its new version.

        Versions below 1 know nothing. Call again while the version returned is below ``version``.
        """
        known = self._pages.get(since)
        if known is None:
            frame, reached = self._make_page(since)
            frames = [frame]
            while reached < self.version and len(frames) < _TOGETHER:
                frame, reached = self._make_page(reached)
                frames.append(frame)
            known = self._pages[since] = b"".join(frames), reached
        return known

    def _make_page(self, since: int) -> tuple[bytes, int]:
        raise NotImplementedError

    def _change(self, who: Who) -> None:
        self.version += 1
        self._changed[who] = self.version
        self._order.append((self.version, who))
        self._pages.clear()
        if len(self._order) > 2 * len(self._changed) + 512:
            self._order = [(version, who) for version, who in self._order if self._changed.get(who) == version]

    def _newer(self, since: int, most: int, among: Collection[Who]) -> tuple[list[Who], int]:
        """Return the first ``most`` who changed after a version, and the version that a member then knows."""
        page: list[Who] = []
        for at in range(bisect_right(self._order, since, key=itemgetter(0)), len(self._order)):
            version, who = self._order[at]
            if self._changed.get(who) == version and who in among:
                if len(page) == most:
                    return page, self._changed[page[-1]]
                page.append(who)
        return page, self.version


class Roster(_Changes):
    """The members of a room that are here now."""

    def __init__(self) -> None:
        super().__init__()
        self.here: dict[Who, int] = {}  # how many windows each has open, in order of arrival
        self.statuses = Statuses()
        self._listed: dict[Who, None] = {}  # of whom members are told: programs, and those who came first
        self._others: dict[Who, None] = {}  # the rest, in order of arrival
        self._bots: set[Who] = set()  # which of them are programs
        self._users: dict[Who, str] = {}  # login names
        self._floor = 0  # a member below this version gets the whole list
        self._held: dict[Who, None] | None = None  # who has changed since ``hold``; None: it is not held

    def look(self, statuses: Mapping[Who, Status]) -> bool:
        """Take note of everybody's status. Return whether any changed."""
        before = self.statuses.version
        told = {who: None for who in self._listed if who not in self._held} if self._held else self._listed
        self.statuses.show(statuses, told)
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
        if self.here[who] == 1:
            (self._listed if bot or len(self._listed) < MAX_LISTED else self._others)[who] = None
        if self.here[who] == 1 or is_named:
            self._change(who)

    def leave(self, key: bytes, nick: str) -> None:
        """Forget a window. Raises KeyError for one that was not open."""
        who = (key, nick)
        self.here[who] -= 1
        if self.here[who]:
            return
        del self.here[who]
        self._bots.discard(who)
        self._users.pop(who, None)
        if who in self._listed and self._others:
            follows = next(iter(self._others))
            del self._others[follows]
            self._listed[follows] = None
            self._change(follows)
        self._listed.pop(who, None)
        self._others.pop(who, None)
        self._change(who)

    # -- telling the members ---------------------------------------------------------------------

    @property
    def due(self) -> int:
        """The version from which on everything is told that has changed so far."""
        return self.version + bool(self._held)

    def hold(self) -> None:
        """Tell nobody of changes until ``release``."""
        self._held = self._held or {}

    def release(self) -> bool:
        """Give a version to what has changed meanwhile; return whether anything has."""
        held, self._held, before = self._held or {}, None, self.version
        for who in held:
            self._change(who)
        self._forget()
        return self.version > before

    def _change(self, who: Who) -> None:
        if self._held is not None:
            self._held[who] = None
        elif who in self._listed or who in self._changed:
            super()._change(who)
            self._forget()
        else:  # nobody has heard of it, but it counts among the others
            self.version += 1
            self._pages.clear()

    def _forget(self) -> None:
        """Forget those who left, if they are many: a member that does not know yet gets the whole list instead.

        Everyone here gets a version above the floor, or a list in pages would start over again and again.
        """
        if self._held is None and len(self._changed) > 2 * len(self._listed) + 512:
            self._floor = self.version
            self._order = list(enumerate(self._listed, self._floor + 1))
            self._changed = {listed: version for version, listed in self._order}
            self.version += len(self._order)
            self._pages.clear()

    def _make_page(self, since: int) -> tuple[bytes, int]:
        reset = since < self._floor or since <= 0
        page, reached = self._newer(0 if reset else since, _PAGE, self._listed if reset else self._changed)
        here = [who for who in page if who in self._listed]
        presence = Presence(
            here=here,
            gone=[who for who in page if who not in self._listed],
            reset=reset,
            more=reached < self.version,
            others=len(self._others),
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
