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
6. How far each key has read is no fact of the order, but this host's own, and so is who came by which invite.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec

from chat.core import text
from chat.core.bodies import Author, Moderation, Rejection
from chat.core.sequencer import AddInvite, Append, ClaimNick, Moderate, Reject, ReleaseNick, SetRole
from chat.core.wire import MAX_CONTROL, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.core.log import Log
    from chat.core.room import Member
    from chat.core.sequencer import Submission

REJECTIONS_KEPT: Final = MAX_CONTROL // 180  # of one stream; it is told of all at once, and no reason for older ones
NICKS_A_KEY: Final = 8  # nicknames of one key in a room; one more is refused: ``too-many-nicks``
DECISIONS_KNOWN: Final = 64  # the last ones; an older one that is ordered a second time would be in the log twice
_DECIDED: Final = "decided"  # the property that names these
BOT: Final = "bot"  # the role of programs that the host started; no peer can claim it


@dataclass(slots=True, eq=False)
class Stream:
    """One outbox of one key: how far its numbers have come, and under which author index it speaks."""

    key: bytes
    id: int
    high_water: int = 0  # the last number that was applied
    author: Author | None = None  # as which it spoke last
    rejections: deque[Rejection] = field(default_factory=partial(deque[Rejection], maxlen=REJECTIONS_KEPT))
    # Of this host's links, and no part of what is applied:
    accepted: int = 0  # the last number that was submitted
    bot: bool = False  # a program that the host has started
    member: Member | None = None  # the one link that speaks for it now


@dataclass
class RoomTables:
    """Rows of a room's tables: all of them when it opens; what changed, to be committed with the log's batches."""

    authors: list[Author] = field(default_factory=list)
    high_water: list[tuple[bytes, int, int]] = field(default_factory=list)  # key, stream, number
    nicks: list[tuple[str, str, bytes]] = field(default_factory=list)  # skeleton, nickname, key
    members: list[tuple[bytes, str]] = field(default_factory=list)  # key, role
    invites: list[tuple[bytes, int, bool]] = field(default_factory=list)  # public key, expires (ms), uses are counted
    rejections: list[tuple[bytes, int, Rejection]] = field(default_factory=list)  # key, stream
    reads: list[tuple[bytes, int]] = field(default_factory=list)  # key, the last number that it has read
    moderated: list[tuple[bytes, str, int]] = field(default_factory=list)  # key, role, until (ms; 0: for good)
    properties: list[tuple[str, str]] = field(default_factory=list)  # of the room: "topic" and "slow", their values
    admitted: list[tuple[bytes, bytes]] = field(default_factory=list)  # key, its invite's; never read by the room
    released: list[str] = field(default_factory=list)  # skeletons of nicknames that go before any of ``nicks`` come


class Ledger:
    """The part of a room that is stored. Every host of it holds the same, but for what rule 6 names."""

    def __init__(self, log: Log, tables: RoomTables) -> None:
        self.log = log
        self._authors: list[Author] = []
        self._authors_by_name: dict[
            tuple[bytes, int, str, bool], Author
        ] = {}  # by key, stream, nickname, whether a bot
        self._streams: dict[tuple[bytes, int], Stream] = {}
        for key, stream, number in tables.high_water:
            self._streams[key, stream] = Stream(key, stream, number, accepted=number)
        for author in sorted(tables.authors, key=lambda author: author.index):
            self._introduce(author)
            self._stream(author.key, author.stream).author = author
        for key, stream, one in tables.rejections:
            self._stream(key, stream).rejections.append(one)
        self._nicks = {skeleton: (nick, key) for skeleton, nick, key in tables.nicks}
        # Skeletons anew, for judging claims: what looks alike changes with each edition of the Unicode data. So several
        # keys may hold nicknames that look alike by now.
        self._alike: dict[str, list[tuple[str, bytes]]] = {}
        for _, nick, key in tables.nicks:
            self._alike.setdefault(text.skeleton(nick), []).append((nick, key))
        self._nick_count = Counter(key for _, key in self._nicks.values())
        self._roles = dict(tables.members)
        self.invites = {key: (expires, counted) for key, expires, counted in tables.invites}
        self.moderated = {key: (role, until) for key, role, until in tables.moderated}
        self.properties = dict(tables.properties)
        self._reads = dict(tables.reads)
        self._new = RoomTables()  # without the rows that the next four stand for
        self._new_reads: set[bytes] = set()
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
                if self._is_silenced(key):  # and the host that took these did not know yet
                    for late in range(number + known, number + len(ends)) if known >= 0 else ():
                        self._reject(stream, late, "muted", {})
                elif 0 <= known < len(ends):
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
                    self._nicks[skeleton] = (nick, key)
                    self._alike.setdefault(text.skeleton(nick), []).append((nick, key))
                    self._nick_count[key] += 1
                    self._new.nicks.append((skeleton, nick, key))
            case ReleaseNick(key, nick, skeleton):
                if self._nicks.get(skeleton) == (nick, key) and not self._has_spoken(key, nick):
                    del self._nicks[skeleton]
                    alike = text.skeleton(nick)
                    self._alike[alike].remove((nick, key))
                    if not self._alike[alike]:
                        del self._alike[alike]
                    self._nick_count[key] -= 1
                    self._new.nicks = [row for row in self._new.nicks if row[0] != skeleton]
                    self._new.released.append(skeleton)
            case SetRole(key, role):
                if self._roles.get(key) != role:
                    self._roles[key] = role
                    self._new.members.append((key, role))
            case AddInvite(key, expires, counted):
                if self.invites.get(key) != (expires, counted):
                    self.invites[key] = (expires, counted)
                    self._new.invites.append((key, expires, counted))
            case Moderate(time, decision):
                self._moderate(time, decision)

    def _has_spoken(self, key: bytes, nick: str) -> bool:
        """Whether the log has a message of this key under this nickname, or one that looks like it."""
        nicks = {author.nick for author in self._authors if author.key == key}
        return text.skeleton(nick) in map(text.skeleton, nicks)

    def _stream(self, key: bytes, stream: int) -> Stream:
        return self._streams.get((key, stream)) or self._streams.setdefault((key, stream), Stream(key, stream))

    def _append(
        self, stream: Stream, nick: str, bot: bool, number: int, time: int, frames: bytes, ends: list[int]
    ) -> None:
        """Put messages into the log; their author is introduced first if the log does not know it by this nickname."""
        author = stream.author
        if author is None or author.nick != nick or author.bot != bot:
            author = self._authors_by_name.get((stream.key, stream.id, nick, bot))
        if author is None:
            author = Author(index=len(self._authors) + 1, key=stream.key, stream=stream.id, nick=nick, bot=bot)
            self._introduce(author)
            self._new.authors.append(author)
            self.log.append(Kind.AUTHOR, msgspec.msgpack.encode(author), time=time, author=author.index)
        if stream.author is not author:
            self._speaks_as(stream, author)
        self.log.append_run(frames, ends, time=time, author=author.index, number=number)
        self._touched.setdefault(stream, stream.high_water)
        stream.high_water = number + len(ends) - 1

    def _speaks_as(self, stream: Stream, author: Author) -> None:
        stream.author = author

    def _introduce(self, author: Author) -> None:
        self._authors.append(author)
        self._authors_by_name[author.key, author.stream, author.nick, author.bot] = author

    def _is_silenced(self, key: bytes) -> bool:
        return self.moderated.get(key, ("member", 0))[0] in {"muted", "banned"}

    def _moderate(self, time: int, decision: Moderation) -> None:
        """Apply a decision and write it into the log, once: as it is stored, which were the last."""
        body = msgspec.msgpack.encode(decision)
        name = sha256(body + time.to_bytes(8, signed=True)).hexdigest()[:16]
        last = self.properties.get(_DECIDED, "").split()
        if name in last or not self.decide(decision):
            return
        self._set_property(_DECIDED, " ".join([*last, name][-DECISIONS_KNOWN:]))
        self.log.append(Kind.MODERATION, body, time=time)

    def _set_property(self, name: str, value: str) -> None:
        self.properties[name] = value
        self._new.properties.append((name, value))

    def decide(self, decision: Moderation) -> bool:
        """Have a decision take effect. Return False for the end of a role that has ended or changed already."""
        if decision.action == "role":
            role, until = decision.role, decision.until
            if not decision.by:  # its time is over, as every host of the room says
                if not until or self.moderated.get(decision.key, ("", 0))[1] != until:
                    return False
                until = 0
            self.moderated[decision.key] = (role, until)
            self._new.moderated.append((decision.key, role, until))
        elif decision.action in ("topic", "slow"):
            self._set_property(decision.action, decision.text or str(decision.seconds or ""))
        return True

    def _reject(self, stream: Stream, number: int, code: str, fields: dict[str, str | int]) -> None:
        """Move a stream on past one message. Several in a row for one reason are one rejection."""
        self._touched.setdefault(stream, stream.high_water)
        stream.high_water = number
        kept, first, count = stream.rejections, number, 1
        if kept and (last := kept[-1]).number + last.count == number and (last.code, last.fields) == (code, fields):
            first, count = last.number, last.count + 1
            kept.pop()
        kept.append(Rejection(number=first, count=count, code=code, fields=fields))
        self._new_rejections[stream, first] = kept[-1]

    def has_read(self, key: bytes, seq: int) -> None:
        """Move a key's read mark forward, at most to the end of the log."""
        seq = min(seq, self.log.end - 1)
        if (self._nick_count[key] or key in self._roles) and seq > self.read_by(key):
            self._reads[key] = seq
            self._new_reads.add(key)

    def read_by(self, key: bytes) -> int:
        """Return the last number that a key has read, 0 for none."""
        return self._reads.get(key, 0)

    # -- storing ---------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` has something to give."""
        return bool(self._touched or self._new_reads or any(vars(self._new).values()))

    def take_changes(self) -> RoomTables:
        """Return what changed since the last call, to be committed in one transaction with ``log.seal()``."""
        changes, self._new = self._new, RoomTables()
        changes.high_water = [(stream.key, stream.id, stream.high_water) for stream in self._touched]
        changes.rejections = [(stream.key, stream.id, one) for (stream, _), one in self._new_rejections.items()]
        changes.reads = [(key, self._reads[key]) for key in self._new_reads]
        self._new_rejections, self._new_reads = {}, set()
        self._committing, self._touched = self._touched, {}
        return changes

    def give_back(self, changes: RoomTables) -> None:
        """Take back changes that could not be committed; the next ``take_changes`` returns them too."""
        changes.nicks = [row for row in changes.nicks if row[0] not in self._new.released]
        for table in ("authors", "nicks", "released", "members", "invites", "moderated", "properties", "admitted"):
            getattr(self._new, table)[:0] = getattr(changes, table)
        before = {(self._streams[key, stream], one.number): one for key, stream, one in changes.rejections}
        self._new_rejections = before | self._new_rejections
        self._new_reads.update(key for key, _ in changes.reads)
        self._touched, self._committing = self._touched | self._committing, {}
