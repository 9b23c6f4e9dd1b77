"""What the order of a room's submissions has made: the log, and the tables beside it.

Rules:

1. ``apply`` depends on its batch and on what was applied before, and on nothing else: no clock, nothing about who is
   connected. Hosts that apply the same batches hold the same bytes and the same rows.
2. A message's number is its author's own. Each stream (one outbox of one key) has a high-water mark: the next number is
   taken, lower ones are repeats, and higher ones are dropped, since what is missing is submitted again with them.
3. A rejected message moves the mark like one that was taken. The newest rejections of each stream are kept, for a
   sender that lost its link before it was told.
4. A batch of submissions ends a batch of the log. So the store's hash chain covers the borders, too, and is the same
   on every host.
5. Nothing here is published before it is stored: ``take_changes`` hands out what is to be committed together with
   ``log.seal()``, and ``committed`` or ``give_back`` says what became of it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from chat.core import text
from chat.core.sequencer import AddInvite, Append, ClaimNick, Reject, SetRole
from chat.core.wire import Author, Kind, Rejection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.core.log import Batch, Log
    from chat.core.room import Member
    from chat.core.sequencer import Submission

REJECTIONS_KEPT: Final = 64  # of one stream; of older ones the sender learns no reason
NICKS_A_KEY: Final = 8


class Stream:
    """One outbox of one key: how far its numbers have come, and under which author index it speaks."""

    __slots__ = ("accepted", "author", "bot", "high_water", "id", "key", "member", "rejections")

    def __init__(self, key: bytes, stream: int, high_water: int = 0) -> None:
        self.key = key
        self.id = stream
        self.high_water = high_water  # the last number that was applied
        self.author: Author | None = None  # the last one introduced for it
        self.rejections: list[Rejection] = []  # the newest ones, by number
        # Of this host's links, and no part of what is applied:
        self.accepted = high_water  # the last number that was submitted
        self.bot = False  # a program that the host has started
        self.member: Member | None = None  # the one link that speaks for it now


class RoomTables(NamedTuple):
    """Rows of a room's tables: all of them when it opens; what changed, to be committed with the log's batches."""

    authors: Sequence[Author] = ()
    high_water: Sequence[tuple[bytes, int, int]] = ()  # key, stream, number
    nicks: Sequence[tuple[str, str, bytes]] = ()  # skeleton, nickname, key
    members: Sequence[tuple[bytes, str]] = ()  # key, role
    invites: Sequence[tuple[bytes, int, bool]] = ()  # public key, when it expires (ms), whether its uses are counted
    rejections: Sequence[tuple[bytes, int, Rejection]] = ()  # key, stream
    # Not of the order, but this host's own:
    reads: Sequence[tuple[bytes, int]] = ()  # key, the last number that it has read
    admitted: Sequence[tuple[bytes, bytes]] = ()  # key, the public key of its invite; never read by the room


class Ledger:
    """The part of a room that every host of it holds alike."""

    def __init__(self, log: Log, tables: RoomTables) -> None:
        self.log = log
        self._authors: list[Author] = sorted(tables.authors, key=lambda author: author.index)
        self._streams: dict[tuple[bytes, int], Stream] = {}
        for key, stream, number in tables.high_water:
            self._streams[key, stream] = Stream(key, stream, number)
        for author in self._authors:
            self._stream(author.key, author.stream).author = author
        for key, stream, one in tables.rejections:
            self._streams[key, stream].rejections.append(one)
        self._nicks = {skeleton: (nick, key) for skeleton, nick, key in tables.nicks}
        # Skeletons anew, for judging claims: what looks alike changes with each edition of the Unicode data.
        self._alike = {text.skeleton(nick): (nick, key) for _, nick, key in tables.nicks}
        self._nick_count = Counter(key for _, key in self._nicks.values())
        self._roles = dict(tables.members)
        self.invites = {key: (expires, counted) for key, expires, counted in tables.invites}
        self._new_authors: list[Author] = []
        self._new_nicks: list[tuple[str, str, bytes]] = []
        self._new_members: list[tuple[bytes, str]] = []
        self._new_invites: list[tuple[bytes, int, bool]] = []
        self._new_rejections: dict[tuple[Stream, int], Rejection] = {}  # by stream and first number
        self._touched: dict[Stream, int] = {}  # streams that have moved on, and what is committed of each
        self._committing: dict[Stream, int] = {}  # the same, of what ``take_changes`` handed out

    # -- applying --------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Submission]) -> None:
        """Apply one batch of the order, and end the log's batch there."""
        for submission in batch:
            self._apply(submission)
        self.log.end_batch()

    def _apply(self, submission: Submission) -> None:
        match submission:
            case Append(key, stream_id, nick, bot, number, time, frames, ends):
                stream = self._stream(key, stream_id)
                known = stream.high_water + 1 - number  # how many of these are repeats
                if 0 <= known < len(ends):
                    start = ends[known - 1] if known else 0
                    ends = [end - start for end in ends[known:]]
                    self._append(stream, nick, bot, number + known, time, frames[start:], ends)
                stream.accepted = max(stream.accepted, stream.high_water)
            case Reject(key, stream_id, number, code, fields):
                stream = self._stream(key, stream_id)
                if number == stream.high_water + 1:
                    self._reject(stream, number, code, fields)
                stream.accepted = max(stream.accepted, stream.high_water)
            case ClaimNick(key, nick, skeleton):
                if skeleton not in self._nicks and self._nick_count[key] < NICKS_A_KEY:
                    self._nicks[skeleton] = self._alike[text.skeleton(nick)] = (nick, key)
                    self._nick_count[key] += 1
                    self._new_nicks.append((skeleton, nick, key))
            case SetRole(key, role):
                if self._roles.get(key) != role:
                    self._roles[key] = role
                    self._new_members.append((key, role))
            case AddInvite(key, expires, counted):
                if self.invites.get(key) != (expires, counted):
                    self.invites[key] = (expires, counted)
                    self._new_invites.append((key, expires, counted))

    def _stream(self, key: bytes, stream: int) -> Stream:
        found = self._streams.get((key, stream))
        if found is None:
            found = self._streams[key, stream] = Stream(key, stream)
        return found

    def _append(
        self, stream: Stream, nick: str, bot: bool, number: int, time: int, frames: bytes, ends: list[int]
    ) -> None:
        """Put messages into the log; their author is introduced first if the log does not know it by this nickname."""
        author = stream.author
        if author is None or author.nick != nick or author.bot != bot:
            author = Author(index=len(self._authors) + 1, key=stream.key, stream=stream.id, nick=nick, bot=bot)
            stream.author = author
            self._authors.append(author)
            self._new_authors.append(author)
            self.log.append(Kind.AUTHOR, msgspec.msgpack.encode(author), time=time, author=author.index)
        self.log.append_run(frames, ends, time=time, author=author.index, number=number)
        self._touched.setdefault(stream, stream.high_water)
        stream.high_water = number + len(ends) - 1

    def _reject(self, stream: Stream, number: int, code: str, fields: dict[str, str | int]) -> None:
        """Move a stream on past one message. Several in a row for one reason are one rejection."""
        self._touched.setdefault(stream, stream.high_water)
        stream.high_water = number
        kept, first, count = stream.rejections, number, 1
        if kept and (last := kept[-1]).number + last.count == number and (last.code, last.fields) == (code, fields):
            first, count = last.number, last.count + 1
            kept.pop()
        kept.append(Rejection(number=first, count=count, code=code, fields=fields))
        del kept[:-REJECTIONS_KEPT]
        self._new_rejections[stream, first] = kept[-1]

    # -- storing ---------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` has something to give."""
        return bool(self._touched or self._new_members or self._new_nicks or self._new_authors or self._new_invites)

    def _take_changes(self, reads: Sequence[tuple[bytes, int]], admitted: Sequence[tuple[bytes, bytes]]) -> RoomTables:
        """Return what changed since the last call, with rows of the host's own tables."""
        changes = RoomTables(
            self._new_authors,
            [(stream.key, stream.id, stream.high_water) for stream in self._touched],
            self._new_nicks,
            self._new_members,
            self._new_invites,
            [(stream.key, stream.id, one) for (stream, _), one in self._new_rejections.items()],
            reads,
            admitted,
        )
        self._new_authors, self._new_nicks, self._new_members, self._new_invites = [], [], [], []
        self._new_rejections = {}
        self._committing, self._touched = self._touched, {}
        return changes

    def give_back(self, changes: RoomTables) -> None:
        """Take back changes that could not be committed."""
        self._new_authors[:0] = changes.authors
        self._new_nicks[:0] = changes.nicks
        self._new_members[:0] = changes.members
        self._new_invites[:0] = changes.invites
        before = {(self._streams[key, stream], one.number): one for key, stream, one in changes.rejections}
        self._new_rejections = before | self._new_rejections
        self._touched, self._committing = self._touched | self._committing, {}

    def _publish(self, batches: list[Batch]) -> None:
        """Batches and changes are on the disk: members may read them."""
        self._committing = {}
        self.log.publish(batches)

    def _committed_number(self, stream: Stream) -> int:
        """Return how far a stream has come on the disk."""
        return self._committing.get(stream, self._touched.get(stream, stream.high_water))
