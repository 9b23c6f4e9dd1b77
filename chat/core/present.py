"""Who is in the room, as the host tells a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.events import Here, LocalNotice
from chat.core.text import quoted
from chat.core.wire import MAX_LOGIN

if TYPE_CHECKING:
    from chat.core.bodies import Presence
    from chat.core.status import Who

# members listed as present, for 16 MiB with their statuses; of more only a notice tells: ``many-members``
MAX_HERE: Final = 10_000


class Present:
    """The list of who is here, kept up to date by PRESENCE frames."""

    def __init__(self) -> None:
        self.here: dict[Who, bool] = {}  # in order of arrival; true for programs
        self.others = 0  # how many more are here
        self.users: dict[Who, str] = {}  # of whom the host's machine knows it: their login names, sanitized
        self._before: dict[Who, bool] | None = None  # who was here, while a new list comes in pages
        self._is_first = True  # the list is still the one that we found when we came
        self._is_crowded = False  # more are here than we list, and the notice is out

    def welcome(self) -> None:
        """The host has let us in: a list follows."""
        self._is_first = True

    def lost(self) -> None:
        """Drop a list that came in part."""
        if self._before is not None:
            self.here, self._before = self._before, None

    def change(self, presence: Presence) -> list[Here | LocalNotice]:
        """Take a page; return what to report, once a list is whole."""
        events: list[Here | LocalNotice] = []
        if presence.reset:
            self._before, self.here = self.here if self._before is None else self._before, {}
            self.users.clear()
        self.others = presence.others
        came = [who for who in presence.here if who not in self.here]
        if len(came) > (room := MAX_HERE - len(self.here)):
            came = came[: max(room, 0)]
            if not self._is_crowded:
                self._is_crowded = True
                events.append(LocalNotice(code="many-members", fields={"count": MAX_HERE}))
        went = [who for who in presence.gone if who in self.here]
        bots = {presence.here[place] for place in presence.bots if place < len(presence.here)}
        self.here.update((who, who in bots) for who in came)
        named = ((presence.here[place], user) for place, user in presence.users if place < len(presence.here))
        self.users.update((who, quoted(user, MAX_LOGIN)) for who, user in named if who in self.here)
        for who in went:
            del self.here[who]
            self.users.pop(who, None)
        if self._before is None:
            if came or went:
                events.append(Here(came, went, first=False))
        elif not presence.more:  # the list is complete: report how it differs from the one before
            came = [who for who in self.here if who not in self._before]
            went = [who for who in self._before if who not in self.here]
            events.append(Here(came, went, first=self._is_first))
            self._before, self._is_first = None, False
        return events
