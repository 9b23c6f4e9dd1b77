"""Edits, retractions and reactions: what became of a message, and a cache of them for messages not loaded yet.

Rules:

1. The outcome does not depend on the order in which changes are applied, nor on how often. So a message looks the
   same whether the log is read forwards or older parts of it are loaded later.
2. A retraction wins over every edit. Edits and reactions are bounded for each message.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from chat.core.text import visible
from chat.core.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.core.session import Message

CHANGES: Final = frozenset({Kind.EDIT, Kind.RETRACT, Kind.REACT})  # messages of these kinds change another message
OVERHEAD: Final = 100  # characters that an edit or a reaction counts besides its text
_MAX_CACHED: Final = 4 * 1024 * 1024  # characters of changes
_MAX_EDITS: Final = 20  # of one message, the newest; its first text is kept too
_MAX_REACTIONS: Final = 1_000  # on one message
_MAX_REACTIONS_BY_KEY: Final = 8  # on one message
_MAX_REACTION: Final = 32  # characters: a family of four with skin tones has 11


class Edit(NamedTuple):
    """The text of a message from some time on."""

    seq: int
    time: int
    text: str


@dataclass(slots=True, eq=False)
class MessageEdits:
    """What became of a message."""

    edits: list[Edit] = field(default_factory=list)  # in the log's order
    retracted: bool = False
    reactions: dict[tuple[str, bytes], tuple[int, str]] = field(default_factory=dict)  # (emoji, key): seq, nickname
    cleared: dict[bytes, int] = field(default_factory=dict)  # key: the seq at which it removed its reactions

    @property
    def weight(self) -> int:
        texts = sum(len(edit.text) + OVERHEAD for edit in self.edits)
        return texts + (len(self.reactions) + len(self.cleared)) * OVERHEAD

    def apply(self, change: Message) -> None:
        """Apply a change. The caller has checked that its author may edit or retract the message."""
        if change.kind == Kind.RETRACT:
            self.retracted = True
        elif change.kind == Kind.EDIT:
            if all(edit.seq != change.seq for edit in self.edits):
                insort(self.edits, Edit(change.seq, change.time, change.text))
            del self.edits[:-_MAX_EDITS]
        else:
            self._react(change, change.author.key)

    def _react(self, change: Message, key: bytes) -> None:
        if not change.text:
            self.cleared[key] = max(self.cleared.get(key, 0), change.seq)
            for reaction in [r for r, (seq, _) in self.reactions.items() if r[1] == key and seq < change.seq]:
                del self.reactions[reaction]
        elif change.seq > self.cleared.get(key, 0) and (emoji := _emoji(change.text)):
            given = self.reactions.get((emoji, key))
            if given is None and not self._has_room(key):
                return
            if given is None or change.seq < given[0]:
                self.reactions[emoji, key] = (change.seq, change.author.nick)

    def _has_room(self, key: bytes) -> bool:
        by_key = sum(other == key for _, other in self.reactions)
        return by_key < _MAX_REACTIONS_BY_KEY and len(self.reactions) < _MAX_REACTIONS


def _emoji(text: str) -> str:
    """Return what a reaction counts as, "" for an invisible one. An emoji is the same with VS16 and without."""
    return visible(text[:_MAX_REACTION], lines=False).replace("\ufe0f", "").strip()


class EditCache:
    """Changes seen in a log, by the message they change. All timelines of the log share it.

    A change stands further down in the log than its message, so the message may be loaded later than the change,
    or again.
    """

    def __init__(self) -> None:
        self.since = 0  # all changes from this number of the log on were seen; 0 for none yet
        self.size = 0  # characters
        # By message; within, edits by their author, and all others under None. The first message is evicted first.
        self._changes: dict[int, dict[bytes | None, dict[int, Message]]] = {}

    def add(self, change: Message) -> None:
        by_author = self._changes.setdefault(change.target, {})
        changes = by_author.setdefault(change.author.key if change.kind == Kind.EDIT else None, {})
        if change.seq in changes:
            return
        changes[change.seq] = change
        self.size += len(change.text) + OVERHEAD
        if change.kind == Kind.EDIT and len(changes) > _MAX_EDITS:
            self.size -= len(changes.pop(min(changes)).text) + OVERHEAD
        while self.size > _MAX_CACHED:
            evicted = self._changes.pop(next(iter(self._changes)))
            self.size -= sum(len(c.text) + OVERHEAD for changes in evicted.values() for c in changes.values())

    def of(self, seq: int) -> Iterator[Message]:
        for changes in self._changes.get(seq, {}).values():
            yield from changes.values()

    def clear(self) -> None:
        self._changes.clear()
        self.size = self.since = 0
