"""One room in the window: what happens there goes into the timeline, and the owner learns how much it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.client.events import Lost, Up
from chat.core.bodies import Answer, Direct, Gap, Notice
from chat.core.events import Here, Joined, Message, Rejected, Rewound, Stored
from chat.core.outgoing import split_body
from chat.i18n import _
from chat.local.identity import fingerprint
from chat.ui.describe import describe, given_nick
from chat.ui.entry import MessageEntry
from chat.ui.face import Room
from chat.ui.fullscreen.viewport import CATCHING_UP, Progress, Viewport
from chat.ui.people import names_of, read_marks
from chat.ui.rooms import now

if TYPE_CHECKING:
    import asyncio

    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.core.outgoing import OutboxEntry
    from chat.core.status import Status, Who
    from chat.local.settings import Settings
    from chat.ui.fullscreen.navigation import Search


class View(Viewport, Room):
    """A room. ``partner``: the other's nickname, in a direct room. ``called``: it opens because of unread messages."""

    def __init__(self, client: Client, settings: Settings, *, partner: str = "", called: bool = False) -> None:
        Viewport.__init__(self, client, settings)
        Room.__init__(self, client, partner)
        self.work: asyncio.Task[None] | None = None  # what the user asked for, and can cancel
        self.search: Search | None = None
        self.asked: asyncio.Task[Answer] | None = None  # the host's last search, even if nobody waits for it any more
        self.people: dict[Who, Status] = {}
        # Shown once the past is here: a note before it would be of another day.
        self.greeting: list[str] = []
        self.ways: list[str] = []  # how others come in; in an empty room these are on the card, and so is
        self.introduction: list[str] = []  # what one can do here, for somebody who has never read here
        self.news: list[Direct] = []  # direct rooms with new messages
        self.rejected: list[OutboxEntry] = []  # their texts go back into the input
        self.lag = 0  # ms from sending to the disk, of what was stored last
        self._ignored = set(settings.ignore)
        self._called = called
        self._away = False  # the link is lost
        self._lost_at = 0
        self._back_at = 0  # when the link was back last: what was sent before says nothing about its lag
        self._beginning = True  # what comes now was said before we joined
        self._is_silent = False  # the log was read from its first record on, and has no message
        self._listed = False  # we know who is here
        self._end = 0  # of the log when we joined last
        self._read_before = 0  # how far its reader had read then; 0 for all, or nothing
        self._show_unsettled()

    def _show_unsettled(self) -> None:
        for entry in self.session.unsettled:
            self.add_pending(entry)

    def clear(self) -> None:
        super().clear()
        self.search = None
        self._show_unsettled()

    @property
    def is_empty(self) -> bool:
        """Whether nobody has said anything here."""
        return self._is_silent and not self._beginning and self.timeline.last_pending() is None

    @property
    def asks_for_you(self) -> bool:
        """Whether an unread message mentions its reader, or was sent to nobody else."""
        return bool(self.timeline.read_state.unread if self.partner else self.timeline.read_state.mentions)

    @property
    def lost_since(self) -> int:
        """When the link was lost, in ms since 1970; 0 while there is one."""
        return self._lost_at if self._away else 0

    # -- events ----------------------------------------------------------------------------------

    def take(self, event: ClientEvent) -> str:
        """Show an event; the bars show at the next redraw what changed for them.

        Return "mention" or "message" if the event may ring the bell, "" if not.
        """
        if self.is_at_stake:
            self.detach()
        last_seq = 0  # of a gap
        match event:
            case Message():
                return self._take_message(event)
            case Stored(entry, seq):
                self._take_stored(entry, seq)
            case Rejected(entry):
                self.timeline.drop(entry)
                self.rejected.append(entry)
            case Joined(next_seq=end, nick=nick, resumed=resumed, read=read):
                if resumed and nick != self.timeline.nick:
                    for line in given_nick(self.client, nick) or [_("you are {nick} now").format(nick=nick)]:
                        self.note(line)
                self.timeline.nick = nick
                if not resumed:
                    self._beginning, self._read_before = True, read
                    self._is_silent = self.session.next_seq <= 1
                    self.greeting += [line for line in given_nick(self.client, nick) if line not in self.greeting]
                self._end = end
                self._catching_up = Progress(CATCHING_UP, self.session.next_seq, end)
            case Here(came, went, first):
                self.known.moved(came, went, self._lost_at if first else now())  # first: they left while we were away
                if not first:
                    self.timeline.presence(came, went, now())
                self._listed = True
            case Gap(first, count):
                last_seq = first + count - 1
            case Rewound():
                if self.past is not None:
                    self.follow()
                self.timeline.rewound()
                self.search = None  # its numbers are of the earlier log
            case Direct():
                self.news.append(event)
            case Lost():
                self._away, self._lost_at = True, now()
                self._catching_up = None
            case Up(address) if self._away:
                self._away, self._back_at = False, now()
                self.note(_("back over {address}").format(address=address.brief))
        if isinstance(event, Rejected | Gap | Rewound | Notice | Lost):
            for text in describe(event):
                self.note(text, last_seq=last_seq)
        return ""

    def taken(self) -> bool:
        """All events so far were taken. Return whether the past has just become complete.

        Who is here may be known before the past is, or after it.
        """
        if not (self._beginning and self._listed and self.session.next_seq >= self._end):
            return False
        self._beginning = False
        past = self._end - 1 if self._end else self.timeline.last_seq
        self.timeline.read_state.mark_read(self._read_before or (0 if self._called else past))
        self.timeline.read_state.place_marker()
        self._called = False
        told = [*self.ways, *([] if self._read_before else self.introduction)]
        for text in (*self.greeting, *([] if self.is_empty else told)):
            self.note(text)
        return True

    def _take_message(self, message: Message) -> str:
        self.heard(message)
        self._is_silent &= message.decision is not None
        if self._called and message.seq > self._read_before and not message.mine:
            for text in self.greeting:  # to be read before what waits here
                self.timeline.note(text, message.time)
            self.greeting.clear()
        marker = self.timeline.read_state.marker
        self.timeline.add(message)
        if self.past is not None:
            self.past.apply_changes([message])
        if self._reading and marker is None:
            self.timeline.read_state.marker = None
        entry = self.timeline.at_seq(message.seq)
        if self._beginning or entry is None or entry.mine:
            return ""
        return "mention" if entry.mentioned or self.partner else "message"

    def _take_stored(self, entry: OutboxEntry, seq: int) -> None:
        sent = self.timeline.settle(entry, seq)
        if sent is None and (not seq or self.timeline.at_seq(seq) is None):
            self.add_pending(entry)  # it was sent before this face began, and is not shown yet
            self.timeline.settle(entry, seq)
        elif sent is not None and sent.time > self._back_at:
            self.lag = now() - sent.time

    def heard(self, message: Message) -> None:
        """Remember who has spoken. If that one is ignored, so are the messages."""
        key = message.author.key
        if key not in self.timeline.ignored and self.is_ignored(key):
            self.timeline.ignored.add(key)
        self.known.spoke(message)

    def note(self, text: str, *, last_seq: int = 0) -> None:
        """Add a line of ours."""
        self.timeline.note(text, now(), last_seq=last_seq)

    def add_pending(self, entry: OutboxEntry) -> None:
        """Show a message below all else until it is stored."""
        text, target = split_body(entry.kind, entry.flags, entry.body)
        self.timeline.add_pending(entry, entry.kind, text, target, now())

    # -- people ----------------------------------------------------------------------------------

    def look(self) -> bool:
        """Look at what others show of themselves. Return whether it has changed."""
        people = self.client.people()
        if people == self.people:
            return False
        self.people = people
        self.timeline.receipts = self.window.receipts = read_marks(people, (self.session.key, self.session.nick))
        return True

    def is_ignored(self, key: bytes) -> bool:
        return bool(self._ignored) and not self._ignored.isdisjoint(names_of(key))

    def ignore(self, key: bytes) -> None:
        """Hide what this key says and does."""
        self.follow()
        self.keep_marker()
        self._ignored.add(fingerprint(key))
        self.timeline.ignore(key)

    def unignore(self, entries: set[str]) -> None:
        """Stop ignoring these keys, which are written as the settings write them: in hex, or as fingerprints."""
        self.follow()
        self.keep_marker()
        self._ignored -= entries
        for key in list(self.timeline.ignored):
            if not self.is_ignored(key):
                self.timeline.unignore(key)

    # -- the reader ------------------------------------------------------------------------------

    def mark_seen(self) -> int:
        if self._beginning and self._end:  # what was said before is still coming
            return 0
        return super().mark_seen()

    def selected(self, *, mine: bool | None = None) -> MessageEntry | None:
        """Return the selected message, else the last one: by the reader, by somebody else, or by anybody."""
        if self.pane.selected is not None:
            entry = self.window[self.pane.selected]
            return entry if isinstance(entry, MessageEntry) and mine in (None, entry.mine) else None
        pending = self.timeline.last_pending() if mine else None
        return pending or self.timeline.last_message(mine=mine)
