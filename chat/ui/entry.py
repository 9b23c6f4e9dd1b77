"""Entries of a timeline: a message as its reader sees it, a note of ours, who came and left.

Every face shows these. Texts are as they came: whoever shows one sanitizes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chat.core.text import mentions
from chat.core.wire import Kind
from chat.ui.edits import Edit, MessageEdits

if TYPE_CHECKING:
    from chat.core.session import Message

_MAX_NAMES: Final = 100  # in one line of who came and left


@dataclass(slots=True, eq=False)
class Entry:
    time: int  # milliseconds since 1970 UTC
    number: int = field(default=0, init=False)  # where it stands in the timeline
    order: tuple[int, int] = field(default=(0, 0), init=False)  # sorts all entries, hidden ones too

    @property
    def weight(self) -> int:
        """How many characters it counts."""
        return 0


@dataclass(slots=True, eq=False)
class MessageEntry(Entry):
    """A message as its reader sees it. Its current text is ``text``."""

    seq: int  # 0 if it has no number yet, or had it in a log that is gone
    key: bytes
    nick: str
    bot: bool
    kind: int
    first_text: str
    target: int  # the message it answers, 0 for none
    mine: bool  # by the reader's key
    pending: bool = False
    mentioned: bool = False  # it mentions the reader and is by somebody else
    changes: MessageEdits | None = None

    @classmethod
    def of(cls, message: Message, key: bytes = b"", nick: str = "") -> MessageEntry:
        """Return a message as the reader with this key and nickname sees it."""
        author, text = message.author, message.text
        mine = author.key == key
        entry = cls(
            message.time, message.seq, author.key, author.nick, author.bot, message.kind, text, message.target, mine
        )
        entry.mentioned = not mine and mentions(text, nick)
        return entry

    def apply(self, change: Message, nick: str) -> None:
        """Apply an edit, a retraction or a reaction. ``nick`` is the reader's. Only the author edits and retracts."""
        if change.kind != Kind.REACT and change.author.key != self.key:
            return
        self.changes = self.changes or MessageEdits()
        self.changes.apply(change)
        if change.kind != Kind.REACT:
            self.mentioned = not self.mine and mentions(self.text, nick)

    @property
    def retracted(self) -> bool:
        return self.changes is not None and self.changes.retracted

    @property
    def edited(self) -> bool:
        return self.changes is not None and bool(self.changes.edits)

    @property
    def text(self) -> str:
        """The current text; "" once retracted."""
        if self.changes is None:
            return self.first_text
        if self.changes.retracted:
            return ""
        return self.changes.edits[-1].text if self.changes.edits else self.first_text

    @property
    def earlier(self) -> list[Edit]:
        """The texts before the current one, the first one first; none once retracted."""
        if self.changes is None or not self.edited or self.retracted:
            return []
        return [Edit(self.seq, self.time, self.first_text), *self.changes.edits[:-1]]

    @property
    def weight(self) -> int:
        return len(self.first_text) + (self.changes.weight if self.changes else 0)


@dataclass(slots=True, eq=False)
class NoteEntry(Entry):
    """A line of ours: the answer to a command, a lost link, a gap."""

    text: str

    @property
    def weight(self) -> int:
        return len(self.text)


@dataclass(slots=True, eq=False)
class PresenceEntry(Entry):
    """Who came and left, without a message in between."""

    # (key, nickname): whether the first thing they did was to come, and whether the last was
    names: dict[tuple[bytes, str], tuple[bool, bool]] = field(default_factory=dict)
    more: int = 0  # arrivals and departures of others

    def record(self, who: tuple[bytes, str], *, came: bool) -> None:
        if who in self.names or len(self.names) < _MAX_NAMES:
            self.names[who] = (self.names.get(who, (came, came))[0], came)
        else:
            self.more += 1

    def of(self, *, first: bool, last: bool) -> list[str]:
        """Return the nicknames of those who first came (or left) and last came (or left).

        (True, True) came, (False, False) left, (True, False) came and left, (False, True) came back.
        """
        return [nick for (_, nick), moved in self.names.items() if moved == (first, last)]
