"""Entries of a timeline: a message as its reader sees it, a note of ours, who came and left.

Every face shows these. Texts are as they came: whoever shows one sanitizes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.text import mentions, visible
from chat.core.wire import Kind

if TYPE_CHECKING:
    from chat.core.bodies import Moderation
    from chat.core.events import Message

CHANGES: Final = frozenset({Kind.EDIT, Kind.RETRACT, Kind.REACT})  # messages of these kinds change another message
OVERHEAD: Final = 100  # characters that an edit or a reaction counts besides its text
# edits of one message that a window keeps, the newest, and the first text; /details shows no others
MAX_EDITS: Final = 20
_MAX_REACTIONS: Final = 1_000  # reactions on one message; more are not shown
_MAX_REACTIONS_BY_KEY: Final = 8  # reactions of one key on one message; more are not shown
_MAX_REACTION: Final = 32  # characters of a reaction (a family of four with skin tones has 11); more is cut
_NO_REACTIONS: Final[dict[tuple[str, bytes], tuple[int, str]]] = {}  # of most messages
_FOR_GOOD: Final = 2**63  # no number of the log is as large
_MAX_NAMES: Final = 100  # in one line of who came and left


def is_change(message: Message) -> bool:
    """Whether a message only changes another one."""
    return message.kind in CHANGES or (message.decision is not None and message.decision.action == "retract")


class Edit(NamedTuple):
    """The text of a message from some time on."""

    seq: int
    time: int
    text: str


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
    """A message as its reader sees it.

    The outcome does not depend on the order in which changes are applied, nor on how often. So a message looks the same
    whether the log is read forwards or older parts of it are loaded later. What became of it is replaced, never changed
    in place: copies share it.
    """

    seq: int  # 0 if it has no number yet, or had it in a log that is gone
    key: bytes
    nick: str
    bot: bool
    kind: int
    text: str  # as it is now; "" once retracted
    target: int  # the message it answers, 0 for none
    mine: bool  # by the reader: their key, and this outbox or this nickname, as one key may have several
    pending: bool = False
    mentioned: bool = False  # it mentions the reader and is by somebody else
    retracted: bool = False
    taken_back: int = 0  # the number of its last retraction: texts from before it are gone
    texts: tuple[Edit, ...] = ()  # the first one and the edits, in the log's order; () if it is as it was said
    removed_by: str = ""  # the operator who has taken it back
    decision: Moderation | None = None  # it is none, but what the owner or an operator has decided
    verified: bool = True  # see ``Message.verified``
    # (emoji, key): seq, nickname; emoji "": all of this key up to this one are removed
    reactions: dict[tuple[str, bytes], tuple[int, str]] = field(default_factory=lambda: _NO_REACTIONS)

    @classmethod
    def of(cls, message: Message, key: bytes = b"", nick: str = "") -> MessageEntry:
        """Return a message as the reader with this key and nickname sees it."""
        author, text = message.author, message.text
        same = message.mine or not nick or author.nick.casefold() == nick.casefold()
        mine = same and author.key == key
        said = (message.time, message.seq, author.key, author.nick, author.bot, message.kind, text, message.target)
        mentioned = not mine and mentions(text, nick)
        return cls(*said, mine, mentioned=mentioned, decision=message.decision, verified=message.verified)

    @property
    def edited(self) -> bool:
        return len(self.texts) > 1

    @property
    def earlier(self) -> list[Edit]:
        """The texts before the current one, the first one first; none once retracted."""
        return list(self.texts[:-1])

    @property
    def weight(self) -> int:
        texts = sum(len(edit.text) + OVERHEAD for edit in self.texts) - OVERHEAD if self.texts else len(self.text)
        return texts + len(self.reactions) * OVERHEAD

    def apply(self, change: Message, nick: str) -> None:
        """Apply an edit, a retraction or a reaction. ``nick`` is the reader's.

        Only the author edits and retracts, and an edit after a retraction brings the message back. Whether somebody
        may take back what another has said, the host decides; that is for good.
        """
        if change.decision is not None and self.taken_back < _FOR_GOOD:
            self.removed_by, self.taken_back = change.author.nick, _FOR_GOOD
            self.retracted, self.text, self.texts, self.reactions = True, "", (), _NO_REACTIONS
        if self.taken_back == _FOR_GOOD or (change.kind != Kind.REACT and change.author.key != self.key):
            return
        if change.kind == Kind.REACT:
            self._react(change, change.author.key)
            return
        known = self.texts if self.texts or self.retracted else (Edit(self.seq, self.time, self.text),)
        if change.kind == Kind.RETRACT:
            self.taken_back = max(self.taken_back, change.seq)
        else:
            known = (*known, Edit(change.seq, change.time, change.text))
        texts = sorted({text for text in known if text.seq > self.taken_back})
        self.texts, self.retracted = (*texts[:1], *texts[1:][-MAX_EDITS:]), not texts
        self.text = texts[-1].text if texts else ""
        self.mentioned = not self.mine and mentions(self.text, nick)

    def _react(self, change: Message, key: bytes) -> None:
        cleared, given = self.reactions.get(("", key), (0, ""))[0], self.reactions
        if not change.text:
            given = {who: it for who, it in given.items() if who[1] != key or it[0] >= change.seq}
            self.reactions = given | {("", key): (max(cleared, change.seq), "")}
        elif change.seq > cleared and (emoji := _emoji(change.text)):
            keys = [by for other, by in given if other]
            has_room = len(keys) < _MAX_REACTIONS and keys.count(key) < _MAX_REACTIONS_BY_KEY
            if change.seq < given[emoji, key][0] if (emoji, key) in given else has_room:
                self.reactions = given | {(emoji, key): (change.seq, change.author.nick)}


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


def _emoji(text: str) -> str:
    """Return what a reaction counts as, "" for an invisible one. An emoji is the same with VS16 and without."""
    return visible(text[:_MAX_REACTION], lines=False).replace("\ufe0f", "").strip()
