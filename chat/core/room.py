"""A room: who may speak in it, and what each frame of theirs does to the log.

Rules:

1. No clocks, no sockets, no disk: time comes in as an argument, and what must be kept is handed out by
   ``take_changes`` for the store to commit with the batches.
2. ``handle`` judges, the sequencer orders, ``apply`` numbers. Today the sequencer is the room itself; a
   shared one (a stream on a server) would call ``apply`` on each host later, in one order for all. Hence
   ``apply`` depends on nothing but its arguments and what was applied before. ``take_run`` is the three in
   one for many messages at a time, and so only for a room that is its own sequencer.
3. A message's number is its author's own. The room keeps one mark per (key, stream): mark + 1 is taken,
   lower is dropped as sent again, higher is an error, since something between would be lost.
4. A message that cannot be taken is rejected in the same order: the mark moves on, and what follows is taken. The
   sender learns of it after the commit. A few rejections of each stream are stored, for a sender that lost its link.
5. The room reads no more of a message than its header, and the number that an edit, a retraction or a reaction
   begins with.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from chat.core import status, text
from chat.core.errors import Refused, RemoteProtocolError
from chat.core.log import Cursor, Log, digest
from chat.core.loopguard import LIMIT, LoopGuard
from chat.core.roster import Roster
from chat.core.status import pack_slot
from chat.core.wire import (
    HEADER_SIZE,
    LOG_KINDS_END,
    MAX_BATCH,
    MAX_CONTROL,
    MAX_TEXT,
    SEQ_PREFIX,
    SPOKEN_END,
    TARGETED,
    Ask,
    Author,
    Frame,
    Hello,
    Kind,
    Names,
    Rejection,
    Rewind,
    Welcome,
    pack,
    run_of,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chat.core.log import Batch

BOT: Final = "bot"  # the role of programs that the host has started; nothing that a peer says gives it
_MAX_MESSAGE: Final = HEADER_SIZE + SEQ_PREFIX.size + MAX_TEXT
_NAMES_PAGE: Final = MAX_CONTROL // 160  # authors in one NAMES frame
_NICKS_A_KEY: Final = 8
_REJECTIONS: Final = 64  # of one stream that are stored; of older ones the sender learns no reason
_REJECTION_SIZE: Final = 256  # bytes of memory, about
_MAX_HISTORY: Final = 10_000  # messages looked back for; `chat log` pages further by number


class Stream:
    """One outbox of one key: where its numbers are, and under which author index it speaks now."""

    __slots__ = ("accepted", "author", "bot", "id", "key", "mark", "member", "rejections")

    def __init__(self, key: bytes, stream: int, mark: int = 0) -> None:
        self.key = key
        self.bot = False  # a program that the host has started: its messages are labelled
        self.id = stream
        self.accepted = mark  # the last number handed to the sequencer
        self.mark = mark  # the last number in the log, or rejected
        self.rejections: list[Rejection] = []  # the newest ones, by number
        self.author: Author | None = None  # the last author introduced for it
        self.member: Member | None = None  # the one link that speaks for it now


class Member:
    """A cursor with a name: one link of one key."""

    __slots__ = (
        "cursor",
        "key",
        "nick",
        "own_slot",
        "presence",
        "role",
        "shown",
        "silent",
        "slot",
        "statuses",
        "stream",
    )

    def __init__(
        self, key: bytes, nick: str, role: str, stream: Stream | None, cursor: Cursor, *, silent: bool
    ) -> None:
        self.key = key
        self.nick = nick
        self.role = role
        self.stream = stream  # None for those who only read
        self.cursor = cursor
        self.silent = silent
        self.presence = -1  # the version of the roster that it knows; below any, so that it is told of an empty one
        self.statuses: float = 0  # the version of what others show that it knows; infinity for one that does not ask
        self.slot = b""  # what it shows of itself by STATE
        self.shown = b""  # what of that the host has put on the board
        self.own_slot = False  # it shows that on the board itself

    def pending(self, log: Log, roster: Roster) -> bytes | memoryview:
        """The bytes to send next: the cursor's, and who is here whenever the lane is free."""
        if self.presence < roster.version and self.cursor.at_border:
            page, self.presence = roster.page(self.presence)
            self.cursor.post(page)
        elif self.statuses < roster.statuses.version and self.cursor.at_border:
            page, self.statuses = roster.statuses.page(int(self.statuses))
            self.cursor.post(page)
        return self.cursor.pending(log)


class RoomChanges(NamedTuple):
    """What to commit in one transaction with the batches sealed at the same time."""

    authors: list[Author]
    marks: list[tuple[bytes, int, int]]  # key, stream, mark
    nicks: list[tuple[str, str, bytes]]  # skeleton, nickname, key
    members: list[tuple[bytes, str]]  # key, role
    reads: Sequence[tuple[bytes, int]] = ()  # key, the last number that it has read
    rejections: Sequence[tuple[bytes, int, int, list[Rejection]]] = ()  # key, stream, the first one kept, new ones


class Sequencer(Protocol):
    """Who numbers messages. It may return before the message has its number."""

    def __call__(
        self, stream: Stream, nick: str, kind: int, flags: int, number: int, body: bytes, time: int
    ) -> None: ...


class Admission(NamedTuple):
    """A member that has been let in, and what ``Room.welcome`` tells it."""

    member: Member
    start: int
    show: int
    first_unsettled: int
    rewound: Rewind | None
    replaced: Member | None  # an older link of the same stream, which this one takes the place of
    rejections: Sequence[Rejection]  # which it may not know of


class Room:
    """One room. The host feeds it frames; members read its log through their cursors."""

    def __init__(
        self,
        name: str,
        log: Log,
        *,
        owners: frozenset[bytes] = frozenset(),
        open_to_all: bool = False,
        authors: Iterable[Author] = (),
        marks: Iterable[tuple[bytes, int, int]] = (),
        nicks: Iterable[tuple[str, str, bytes]] = (),
        members: Iterable[tuple[bytes, str]] = (),
        reads: Iterable[tuple[bytes, int]] = (),
        rejections: Iterable[tuple[bytes, int, Rejection]] = (),
        sequencer: Sequencer | None = None,
        bot_turns: int = LIMIT,
        only: frozenset[bytes] = frozenset(),
    ) -> None:
        self.name = name
        self.only = only  # of a direct room: its two keys; nobody else may enter, by whatever invite
        self.log = log
        self.owners = owners
        self.open_to_all = open_to_all
        self.roster = Roster()
        self.guard = LoopGuard(bot_turns)
        self.members: dict[Member, None] = {}
        self._submit: Sequencer = sequencer or self.apply
        self._numbers_at_once = sequencer is None
        self._authors: list[Author] = sorted(authors, key=lambda a: a.index)
        self._streams: dict[tuple[bytes, int], Stream] = {}
        for key, stream, mark in marks:
            self._streams[key, stream] = Stream(key, stream, mark)
        for author in self._authors:
            self._streams.setdefault((author.key, author.stream), Stream(author.key, author.stream)).author = author
        for key, stream, one in rejections:
            self._streams[key, stream].rejections.append(one)
        # Skeletons are made anew: what looks alike changes with each edition of the Unicode data.
        self._nicks = {text.skeleton(nick): (nick, key) for _, nick, key in nicks}
        self._nick_count = Counter(key for _, key in self._nicks.values())
        self._roles = dict(members)
        self._reads = dict(reads)
        self._new_authors: list[Author] = []
        self._touched: dict[Stream, int] = {}  # whose mark has moved, and what is committed of it
        self._committing: dict[Stream, int] = {}  # the same, of what was handed out to be committed
        self._rejecting: dict[Stream, list[Rejection]] = {}  # to be committed
        self._new_nicks: list[tuple[str, str, bytes]] = []
        self._new_members: list[tuple[bytes, str]] = []
        self._new_reads: dict[bytes, int] = {}

    # -- coming and going -----------------------------------------------------------------------

    def may_enter(self, key: bytes) -> bool:
        """Whether this key needs no invite."""
        if self.only:
            return key in self.only
        return self.open_to_all or self.knows(key)

    def admit(self, key: bytes, role: str = "") -> None:
        """From now on this key needs no invite. Once it is in, and the use of its invite is counted."""
        role = role or self._role(key)
        if self._roles.get(key) != role:
            self._roles[key] = role
            self._new_members.append((key, role))

    def knows(self, key: bytes) -> bool:
        """Whether this key has ever been let in."""
        return key in self.owners or key in self._roles

    def nick_of(self, key: bytes) -> str:
        """Return a nickname that this key has here, the one given last; empty for none."""
        return next((nick for nick, whose in reversed(self._nicks.values()) if whose == key), "")

    def speakers(self) -> bytes:
        """Return a NAMES frame of those here who have spoken, at most 25 of them; empty where there are none.

        For who comes in: it would have to ask, and its question stands behind all that it says itself.
        """
        known = [member.stream.author for member in self.members if member.stream and member.stream.author]
        known = sorted(known, key=lambda author: author.index)[-_NAMES_PAGE:]
        return pack(Kind.NAMES, Names(authors=known, asked=[])) if known else b""

    def _role(self, key: bytes) -> str:
        return "owner" if key in self.owners else self._roles.get(key, "member")

    def enter(self, hello: Hello, *, as_owner: bool = False) -> Admission:
        """Let in a peer whose signature (and invite, where it needs one) the host has checked.

        With ``as_owner`` it has an owner's rights on this link, unless it is a bot. Raises Refused for a nickname
        that cannot be given.
        """
        role = self._role(hello.key)
        if as_owner and role != BOT and not self.only:
            role = "owner"
        nick = "" if hello.silent and not hello.stream else self._give_nick(hello.nick, hello.key)
        start, show, rewound = self._find_start(hello)
        stream, replaced = None, None
        if hello.stream:
            stream = self._streams.setdefault((hello.key, hello.stream), Stream(hello.key, hello.stream))
            replaced = stream.member
        member = Member(hello.key, nick, role, stream, Cursor(start), silent=hello.silent)
        member.own_slot = hello.board
        if not hello.states:
            member.statuses = inf
        if not (member.silent or member.own_slot):
            member.slot = pack_slot(member.key, nick, status.Status())
        if replaced is not None:
            self.leave(replaced)
        if stream is not None:
            stream.member = member
            stream.bot = role == BOT
            self._streams[stream.key, stream.id] = stream
        self.members[member] = None
        if not member.silent:
            self.roster.enter(member.key, nick, bot=role == BOT)
        # What is not committed does not count: a crash could still take it, and the member would have forgotten it.
        first_unsettled = self._committed_mark(stream) + 1 if stream else 0
        known = self._rejections(stream, hello.unsettled, first_unsettled) if stream and hello.unsettled else []
        return Admission(member, start, show, first_unsettled, rewound, replaced, known)

    def welcome(self, entry: Admission, proof: bytes) -> None:
        """Tell a member that it has been let in; what it may not know of its rejections; and who speaks here."""
        member, known = entry.member, entry.rejections
        member.cursor.post(
            pack(
                Kind.WELCOME,
                Welcome(
                    room=self.name,
                    epoch=self.log.epoch,
                    next_seq=self.log.end,
                    start=entry.start,
                    show=entry.show,
                    nick=member.nick,
                    first_unsettled=entry.first_unsettled,
                    proof=proof,
                    rejected=known[-1].number + known[-1].count - 1 if known else 0,
                    rewound=entry.rewound,
                    role=member.role,
                    read=self.read_by(member.key),
                ),
            )
        )
        if known:
            member.cursor.post(_frames(known))
        if names := self.speakers():
            member.cursor.post(names)

    def leave(self, member: Member) -> None:
        """Forget a member; a second time does nothing."""
        if member not in self.members:
            return
        del self.members[member]
        if not member.silent:
            self.roster.leave(member.key, member.nick)
        stream = member.stream
        if stream is not None and stream.member is member:
            stream.member = None
            if not stream.accepted:  # never spoke: a peer must not fill our memory by coming and going
                del self._streams[stream.key, stream.id]

    def has_read(self, key: bytes, seq: int) -> None:
        """Keep how far a key has read, in whichever of its windows: never back, and no further than the log goes."""
        seq = min(seq, self.log.end - 1)
        if self._nick_count[key] and seq > self.read_by(key):
            self._reads[key] = self._new_reads[key] = seq

    def read_by(self, key: bytes) -> int:
        """Return the last number that a key has read, 0 where it has read none."""
        return self._reads.get(key, 0)

    def _find_start(self, hello: Hello) -> tuple[int, int, Rewind | None]:
        """Return the first number to send, the first to show, and why the member's past is not ours, if so."""
        log = self.log
        rewound: Rewind | None = None
        if hello.epoch:
            if hello.epoch != log.epoch:
                rewound = Rewind(code="another-log")
            elif hello.next_seq > log.end:
                rewound = Rewind(code="older-copy", fields={"end": log.end - 1, "held": hello.next_seq - 1})
            elif hello.last and (ours := log.frame_at(hello.next_seq - 1)) and digest(ours) != hello.last:
                rewound = Rewind(code="differs", fields={"number": hello.next_seq - 1})
            if not rewound:
                return max(1, hello.next_seq), max(1, hello.next_seq), None
        if hello.next_seq and not hello.epoch:  # it holds nothing yet, and asks for the log from there on
            show = min(hello.next_seq, log.end)
        else:
            show = log.start_of_last(min(hello.history, _MAX_HISTORY))
        return max(1, min(show, hello.since)) if hello.since else show, show, rewound

    def _give_nick(self, wanted: str, key: bytes) -> str:
        """Return the nickname that this key may bear: the one it wants, or that with a suffix."""
        try:
            nick = text.nickname(wanted)
        except ValueError as error:
            raise Refused("nick-invalid", why=error) from None
        for suffix in ("", *(f"-{n}" for n in range(2, 100))):
            candidate = _with_suffix(nick, suffix)
            skeleton = text.skeleton(candidate)
            taken = self._nicks.get(skeleton)
            if taken is None:
                if self._nick_count[key] >= _NICKS_A_KEY:
                    raise Refused("too-many-nicks", count=_NICKS_A_KEY)
                self._nicks[skeleton] = (candidate, key)
                self._nick_count[key] += 1
                self._new_nicks.append((skeleton, candidate, key))
                return candidate
            if taken[1] == key:
                return candidate
            if taken[0].casefold() != candidate.casefold():
                raise Refused("nick-similar", candidate=candidate, other=taken[0])
        raise Refused("nick-taken", nick=nick)

    # -- what members send ----------------------------------------------------------------------

    def handle(self, member: Member, frame: Frame, now: int) -> Ask | None:
        """Act on a frame from a member at ``now`` (ms). Returns a question that the host must answer.

        Raises RemoteProtocolError when the frame is against the rules.
        """
        if 0 < frame.kind < SPOKEN_END:
            self._say(member, frame, now)
        elif frame.kind == Kind.STATE:
            shown = status.unpack_slot(frame.body)
            if shown is None or shown[0] != (member.key, member.nick):
                raise RemoteProtocolError("the peer sent a STATE that cannot be read, or is not its own")
            member.slot = frame.body
        elif frame.kind == Kind.ASK:
            ask = unpack(Ask, frame)
            if len(ask.authors) > _NAMES_PAGE or member.cursor.control_size > MAX_CONTROL:
                raise RemoteProtocolError(
                    f"the peer asked for {len(ask.authors)} names with {member.cursor.control_size} bytes queued"
                )
            if ask.what != "names":
                return ask
            known = [self._authors[i - 1] for i in ask.authors if 0 < i <= len(self._authors)]
            member.cursor.post(pack(Kind.NAMES, Names(authors=known, asked=ask.authors)))
        elif frame.kind < LOG_KINDS_END or frame.kind in _HOST_ONLY:
            raise RemoteProtocolError(f"the peer sent a frame of kind {frame.kind}, which only a host sends")
        return None  # BEAT, and kinds that a newer version may know

    def _say(self, member: Member, frame: Frame, now: int) -> None:
        stream = member.stream
        if stream is None:
            raise RemoteProtocolError("the peer spoke without a stream; it came to read only")
        if frame.number <= stream.accepted:
            return  # sent again; the echo that settles it is on its way
        if frame.number != stream.accepted + 1:
            raise RemoteProtocolError(
                f"the peer sent number {frame.number} after {stream.accepted}; what is between is missing"
            )
        stream.accepted = frame.number
        if (wrong := self._wrong_with(frame)) is not None:
            self._reject(stream, frame.number, *wrong)
            return
        self._count_turn(stream, now)
        self._submit(stream, member.nick, frame.kind, frame.flags, frame.number, frame.body, now)

    def _wrong_with(self, frame: Frame) -> tuple[str, dict[str, str | int]] | None:
        """Return the code and the fields by which a message is rejected, None for one that may be taken."""
        if len(frame.raw) > _MAX_MESSAGE:
            return "too-long", {"size": len(frame.raw) - HEADER_SIZE, "limit": MAX_TEXT}
        if frame.kind in TARGETED:
            if len(frame.raw) < HEADER_SIZE + SEQ_PREFIX.size:
                return "no-target", {}
            (target,) = SEQ_PREFIX.unpack_from(frame.raw, HEADER_SIZE)
            if not 0 < target < self.log.end:
                return "no-target", {}
        return None

    def _reject(self, stream: Stream, number: int, code: str, fields: dict[str, str | int]) -> None:
        """Move a stream's mark past a message without taking it. Runs of one reason are one rejection."""
        if number <= stream.mark:
            return
        self._touched.setdefault(stream, stream.mark)
        stream.mark = number
        kept = stream.rejections
        first, count = number, 1
        if kept and (last := kept[-1]).number + last.count == number and (last.code, last.fields) == (code, fields):
            first, count = last.number, last.count + 1
            kept.pop()
        kept.append(Rejection(number=first, count=count, code=code, fields=fields))
        del kept[:-_REJECTIONS]
        new = self._rejecting.setdefault(stream, [])
        if new and new[-1].number == first:
            new.pop()
        new.append(kept[-1])

    def _rejections(self, stream: Stream, start: int, end: int) -> list[Rejection]:
        """Return what is committed of a stream's rejections, from number ``start`` to below ``end``."""
        return [
            replace(one, count=min(one.count, end - one.number))
            for one in stream.rejections
            if one.number < end and one.number + one.count > start
        ]

    def take_run(self, member: Member, data: bytes, now: int, most: int = MAX_BATCH) -> tuple[int, int]:
        """Do at once what ``handle`` would do with each message that ``data`` begins with, of the first ``most`` ones.

        Returns how many were taken, and how many bytes they are. What is not surely fine is left to ``handle``,
        which has the words for it: only the run is taken that goes on from the last number.
        """
        stream = member.stream
        if stream is None or not self._numbers_at_once:
            return 0, 0
        number = stream.mark + 1  # and all that was accepted has been applied
        ends = run_of(data, number, _MAX_MESSAGE, most)
        if not ends:
            return 0, 0
        self._count_turn(stream, now, len(ends))
        author = self._author(stream, member.nick, now)
        self.log.append_run(data, ends, time=now, author=author.index, number=number)
        self._touched.setdefault(stream, stream.mark)
        stream.accepted = stream.mark = stream.mark + len(ends)
        return len(ends), ends[-1]

    def _count_turn(self, stream: Stream, now: int, messages: int = 1) -> None:
        if stream.bot:
            self.guard.program_spoke(stream.key, now, messages)
        else:
            self.guard.person_spoke()

    def apply(self, stream: Stream, nick: str, kind: int, flags: int, number: int, body: bytes, time: int) -> None:
        """Put a message into the log; its author is introduced first where need be."""
        if number <= stream.mark:
            return
        author = self._author(stream, nick, time)
        self.log.append(kind, body, time=time, author=author.index, number=number, flags=flags)
        self._touched.setdefault(stream, stream.mark)
        stream.mark = number

    def _author(self, stream: Stream, nick: str, time: int) -> Author:
        """Return the stream's author, introduced now if the log does not know it by this nickname."""
        author = stream.author
        if author is None or author.nick != nick or author.bot != stream.bot:
            author = Author(index=len(self._authors) + 1, key=stream.key, stream=stream.id, nick=nick, bot=stream.bot)
            stream.author = author
            self._authors.append(author)
            self._new_authors.append(author)
            self.log.append(Kind.AUTHOR, msgspec.msgpack.encode(author), time=time, author=author.index)
        return author

    @property
    def backlog(self) -> int:
        """Bytes that wait for the disk, about: while they are too many, the host leaves members unread."""
        waiting = sum(map(len, self._rejecting.values())) if self._rejecting else 0
        return self.log.unpublished + _REJECTION_SIZE * waiting

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` has something to give."""
        return bool(self._touched or self._new_members or self._new_nicks or self._new_authors or self._new_reads)

    def take_changes(self) -> RoomChanges:
        """Return what changed since the last call, to be committed in one transaction with ``log.seal()``."""
        changes = RoomChanges(
            self._new_authors,
            [(stream.key, stream.id, stream.mark) for stream in self._touched],
            self._new_nicks,
            self._new_members,
            list(self._new_reads.items()),
            [(one.key, one.id, one.rejections[0].number, new) for one, new in self._rejecting.items()],
        )
        self._committing, self._rejecting = self._touched, {}
        self._new_authors, self._touched, self._new_nicks, self._new_members = [], {}, [], []
        self._new_reads = {}
        return changes

    def committed(self, batches: list[Batch], changes: RoomChanges) -> list[Member]:
        """Publish what is on the disk now, and tell senders which of their messages were rejected.

        Returns members that do not read what they are told: their links are to be closed, and when they come back
        they are told again.
        """
        deaf = []
        self._committing = {}
        for key, stream, _first, rejections in changes.rejections:
            member = self._streams[key, stream].member
            if member is None:
                continue
            if member.cursor.control_size > MAX_CONTROL:
                deaf.append(member)
            else:
                member.cursor.post(_frames(rejections))  # ahead of all that was numbered after them
        self.log.publish(batches)
        return deaf

    def _committed_mark(self, stream: Stream) -> int:
        return self._committing.get(stream, self._touched.get(stream, stream.mark))

    def give_back(self, changes: RoomChanges) -> None:
        """They could not be committed: return them with the next ones."""
        self._touched, self._committing = {**self._touched, **self._committing}, {}
        for key, stream, _first, rejections in changes.rejections:
            known = self._rejecting.setdefault(self._streams[key, stream], [])
            known[:0] = [one for one in rejections if not known or one.number != known[0].number]
        self._new_authors[:0] = changes.authors
        self._new_nicks[:0] = changes.nicks
        self._new_members[:0] = changes.members
        self._new_reads = {**dict(changes.reads), **self._new_reads}


def _frames(rejections: Iterable[Rejection]) -> bytes:
    return b"".join(pack(Kind.REJECTED, one) for one in rejections)


def _with_suffix(nick: str, suffix: str) -> str:
    """Return both as one nickname, ``nick`` shortened as far as it takes. Raises Refused where nothing fits.

    What a member has it asks for again when it comes back, so it must be a nickname by itself.
    """
    for end in range(len(nick), 0, -1):
        with suppress(ValueError):
            return text.nickname(nick[:end] + suffix)
    raise Refused("nick-taken", nick=nick)


_HOST_ONLY: Final = frozenset(
    (
        Kind.CHALLENGE,
        Kind.HELLO,
        Kind.WELCOME,
        Kind.REFUSED,
        Kind.GAP,
        Kind.PRESENCE,
        Kind.NAMES,
        Kind.ANSWER,
        Kind.NOTICE,
        Kind.DIRECT,
        Kind.STATES,
        Kind.REJECTED,
        Kind.RANGE,
    )
)
