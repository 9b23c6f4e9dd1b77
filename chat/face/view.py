"""One room in the window: its client, what its reader knows, and where on the way through it the reader is.

Rules:

1. No keys, no layout, no screen: what happens in the room goes into the timeline, and the owner is told how much
   attention it asks for.
2. Older messages are fetched by a second client that only reads, so the link on which people talk never waits.
3. What others show of themselves is looked at, not waited for: ``look`` is called now and then.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from chat.client import Lost, Up
from chat.face.pane import Conversation, Pane
from chat.face.timeline import Said, Timeline
from chat.frame import Direct, Gap, Notice
from chat.identity import fingerprint
from chat.session import Here, Joined, Message, Rewound, Stored, split_body
from chat.words import _, plural

if TYPE_CHECKING:
    from chat.client import Client, ClientEvent
    from chat.outbox import Entry
    from chat.presence import State, Who
    from chat.settings import Settings

_PAGE: Final = 300  # messages of the past that are fetched at a time


class Attention(IntEnum):
    NONE = 0
    MESSAGE = 1
    MENTION = 2


class View:
    """What is shown of one room. ``partner``: the other's nickname, of a direct room."""

    def __init__(self, client: Client, settings: Settings, *, partner: str = "", markers: bool = False) -> None:
        self.client: Final = client
        self.session: Final = client.session
        self.partner = partner
        self.timeline: Final = Timeline(client.session.key, client.session.nick)
        self.pane: Final = Pane(Conversation(self.timeline, settings.time_format), markers=markers)
        self.people: dict[Who, State] = {}
        self.mentioned = False  # since it was looked at last
        self.greeting: list[str] = []  # what is told once the past is here: a note before it would be of another day
        self.news: list[Direct] = []  # direct rooms in which something was said
        self.loading = False
        self.lag = 0  # ms from saying to the disk, of what was stored last
        self._said_at: dict[int, int] = {}  # by id() of the entry, which lives in the session meanwhile
        self._ignored = frozenset(settings.ignore)
        self._away = False  # the link is lost
        self._beginning = True  # what comes now was said before we came
        for entry in self.session.unsettled:
            self.add_pending(entry)

    @property
    def name(self) -> str:
        """What the room is called in this window."""
        return f"@{self.partner}" if self.partner else f"#{self.session.room}"

    # -- what happens ----------------------------------------------------------------------------

    def take(self, event: ClientEvent) -> Attention:
        """Take note of an event; those that only change the bars are seen at the next redraw."""
        match event:
            case Message():
                return self._take_message(event)
            case Stored(entry, seq):
                said_at = self._said_at.pop(id(entry), 0)
                if not said_at and (not seq or self.timeline.at_seq(seq) is None):
                    self.add_pending(entry)  # it was said before this face began, and nobody has shown it
                    del self._said_at[id(entry)]
                self.lag = _now() - said_at if said_at else self.lag
                self.timeline.settle(entry, seq)
            case Joined(nick=nick, resumed=resumed):
                self.timeline.nick = nick
                self._beginning = not resumed
            case Here(came, went, first):
                if not first:
                    self.timeline.move(came, went, _now())
                elif self._beginning:
                    self.timeline.read(self.timeline.last_seq)
                    self._beginning = False
                    for text in self.greeting:
                        self.note(text)
            case Gap():
                told = plural(
                    "1 message cannot be had any more", "{count} messages cannot be had any more", event.count
                )
                self.note(told.format(count=event.count), last_seq=event.first + event.count - 1)
            case Rewound(why):
                self.timeline.rewound()
                self.note(_("{why}; what follows begins anew").format(why=why))
            case Notice():
                self.note(event.text)
            case Direct():
                self.news.append(event)
            case Lost(why):
                self._away = True
                self.note(_("link lost: {why}; coming back").format(why=why))
            case Up(address) if self._away:
                self._away = False
                self.note(_("back over {address}").format(address=address))
        return Attention.NONE

    def _take_message(self, message: Message) -> Attention:
        key = message.author.key
        if key not in self.timeline.ignored and self._is_ignored(key):
            self.timeline.ignored.add(key)
        self.timeline.add(message)
        item = self.timeline.at_seq(message.seq)
        if self._beginning or item is None or item.mine:
            return Attention.NONE
        self.mentioned = self.mentioned or item.mentioned
        return Attention.MENTION if item.mentioned or self.partner else Attention.MESSAGE

    def _is_ignored(self, key: bytes) -> bool:
        return bool(self._ignored) and not self._ignored.isdisjoint((key.hex(), fingerprint(key)))

    def note(self, text: str, *, role: str = "note", last_seq: int = 0) -> None:
        """Add a line of our own."""
        self.timeline.note(text, _now(), role, last_seq=last_seq)

    def add_pending(self, entry: Entry) -> None:
        """Show what was said below all else, until it is stored."""
        text, target = split_body(entry.kind, entry.flags, entry.body)
        self._said_at[id(entry)] = _now()
        self.timeline.add_pending(entry, entry.kind, text, target, _now())

    # -- where the reader is ---------------------------------------------------------------------

    def seen(self) -> int:
        """Move the read mark to what is on the screen; return the number in the log up to which all was read."""
        last = self.pane.visible_range()[1]
        if last < 0:
            return 0
        read = self.timeline.read_up_to(last)
        self.timeline.read(read)
        return read

    def look(self) -> bool:
        """Look at what others show of themselves. Returns whether it has changed."""
        people = self.client.people()
        if people == self.people:
            return False
        self.people = people
        marks: dict[bytes, int] = {}
        for (key, _nick), state in people.items():
            if key != self.session.key:
                marks[key] = max(marks.get(key, 0), state.read)
        self.timeline.marks = marks
        return True

    async def load_older(self, down_to: int = 0) -> None:
        """Fetch a part of the past, or all of it from number ``down_to`` on. Raises ChatError."""
        if self.loading:
            return
        self.loading = True
        try:
            while self.timeline.oldest > max(1, down_to) and not self.timeline.full:
                await self._load_page()
                if not down_to:
                    return
        finally:
            self.loading = False

    async def _load_page(self) -> None:
        oldest = self.timeline.oldest
        begins = max(1, oldest - _PAGE)
        found: list[Message] = []
        async with self.client.reader(begins) as reader:
            while reader.session.next_seq < oldest:
                found += [event for event in await reader.next_events() if isinstance(event, Message)]
            found += [event for event in reader.take() if isinstance(event, Message)]
        if oldest == self.timeline.oldest:  # else it went back, or was ignored away, meanwhile
            self.timeline.add_older([message for message in found if message.seq < oldest], begins)

    def selected(self, *, mine: bool | None = None) -> Said | None:
        """Return the selected message, else the last one: by the reader, by somebody else, or by anybody."""
        if self.pane.selected is not None:
            item = self.timeline[self.pane.selected]
            return item if isinstance(item, Said) and mine in (None, item.mine) else None
        for number in range(self.timeline.end - 1, self.timeline.first - 1, -1):
            item = self.timeline[number]
            if isinstance(item, Said) and item.seq and not item.retracted and mine in (None, item.mine):
                return item
        return None

    def key_of(self, nick: str) -> bytes | None:
        """Return the key that is called so: of those here, or of who has spoken last."""
        wanted = nick.removeprefix("@").casefold()
        for key, name in self.session.here:
            if name.casefold() == wanted:
                return key
        for number in range(self.timeline.end - 1, self.timeline.first - 1, -1):
            item = self.timeline[number]
            if isinstance(item, Said) and item.nick.casefold() == wanted:
                return item.key
        return None


def _now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
