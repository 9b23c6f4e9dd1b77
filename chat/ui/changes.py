"""What one user changes of their own messages, stored or not, and how a retraction is undone.

Rules:

1. A change names its message by its number in the log. If it has none yet, the change waits for it; but what was never
   sent is just taken out of the outbox.
2. An edit brings a message back (``MessageEntry.apply``), so that every face and the search follow. See
   docs/decisions/0025-an-edit-brings-back.md.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Generic, NamedTuple

from chat.core.errors import ChatError
from chat.core.events import Rejected, Stored
from chat.core.outgoing import Outgoing
from chat.core.wire import Kind
from chat.i18n import _
from chat.ui.describe import excerpt
from chat.ui.face import R

if TYPE_CHECKING:
    from chat.core.outgoing import OutboxEntry
    from chat.ui.entry import MessageEntry
    from chat.ui.face import Face, Work
    from chat.ui.rooms import Rooms

UNDO: Final = 60.0  # seconds in which a retraction can be undone; ``/undo`` says so later


class _TakenBack(NamedTuple):
    room: object
    item: MessageEntry
    text: str
    until: float
    withdrawn: bool  # it was never sent


class Changes(Generic[R]):
    """``rooms`` sends the changes."""

    def __init__(self, rooms: Rooms[R], face: Face[R]) -> None:
        self._rooms = rooms
        self._face = face
        self._waiting: dict[int, tuple[int, str, str]] = {}  # by id() of an outbox entry: kind, text, what was typed
        self._taken: _TakenBack | None = None

    def change(self, item: MessageEntry, kind: int, text: str = "", *, typed: str = "") -> Work:
        """Send a change of a message, as soon as that is stored. Raises ChatError."""
        if item.seq or not item.pending:
            return self._rooms.send(text, kind, item.seq, typed=typed)
        entry = _entry(self._rooms.room, item)
        if entry is None:
            raise ChatError("this message was not stored, so it cannot be changed")
        self._waiting[id(entry)] = kind, self._rooms.outgoing(text, kind).text, typed
        item.text = text or item.text
        self._rooms.begun = None
        self._face.sending(self._rooms.room)
        return None

    def settled(self, room: R, event: Stored | Rejected) -> None:
        """A message of ours is stored, or never will be."""
        kind, text, typed = self._waiting.pop(id(event.entry), (0, "", ""))
        if kind and isinstance(event, Stored) and event.seq:
            self._face.spawn(self._rooms.deliver(room, Outgoing(text, kind, event.seq), typed))

    def take_back(self, item: MessageEntry) -> Work:
        """Retract a message, and say how to undo that. Raises ChatError."""
        room, text, about = self._rooms.room, item.text, excerpt(Kind.EDIT, item) or f"#{item.seq}"
        entry, work = _entry(room, item), None
        withdrawn = entry is not None and room.client.withdraw(entry)
        if withdrawn:
            self._waiting.pop(id(entry), None)
            room.timeline.drop(entry)
        else:
            work = self.change(item, Kind.RETRACT, typed="/retract")
            item.retracted |= entry is not None
        self._taken = _TakenBack(room, item, text, time.monotonic() + UNDO, withdrawn)
        key = next((row.keys[0] for row in self._face.keys if row.action == "undo" and row.keys), "/undo")
        self._face.hint(_("taken back ({key} undoes that for a minute): {about}").format(key=key, about=about))
        return work

    def undo(self) -> Work:
        """Bring back what was taken back last. Raises ChatError."""
        taken, self._taken = self._taken, None
        room = next((room for room in self._rooms.rooms if taken is not None and room is taken.room), None)
        if taken is None or room is None or time.monotonic() > taken.until:
            raise ChatError("you took nothing back within the last minute")
        item = taken.item
        if taken.withdrawn:
            return self._rooms.deliver(room, Outgoing(taken.text, item.kind, item.target), taken.text)
        if item.seq:
            return self._rooms.deliver(room, Outgoing(taken.text, Kind.EDIT, item.seq), taken.text)
        if (entry := _entry(room, item)) is None:
            raise ChatError("this message was not stored, so it cannot be changed")
        del self._waiting[id(entry)]
        item.retracted = False
        return None


def _entry(room: R, item: MessageEntry) -> OutboxEntry | None:
    """Return what a pending message is in the outbox, None for one that is not pending."""
    unsettled = room.client.session.unsettled if item.pending else ()
    return next((entry for entry in unsettled if room.timeline.is_sent_as(item, entry)), None)
