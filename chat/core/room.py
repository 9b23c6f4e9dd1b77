"""A room: who is in it, who may speak, and what each frame of theirs asks for.

    frame ──▶ handle: judge it ──▶ submit ──▶ sequencer ──▶ apply (Ledger) ──▶ log and tables ──▶ committed

Rules:

1. A host judges what its own members send, and submits what it takes and what it rejects in the same order.
   What the order makes of it is the ledger's business, and the same on every host of the room.
2. A rejection costs the sender that message only. The sender learns of it after the commit, ahead of everything
   numbered later.
3. The room reads no more of a message than its header, and the number that an edit, a retraction or a reaction
   begins with.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from chat.core.bodies import Ask, Hello, Moderation, Names, Rejection, Rewind, Welcome, pack, unpack
from chat.core.errors import LocalProtocolError, Refused, RemoteProtocolError
from chat.core.ledger import BOT, RoomTables, Stream
from chat.core.log import Cursor, Log, digest
from chat.core.loopguard import LIMIT, LoopGuard
from chat.core.membership import MembershipLedger
from chat.core.moderated import MAX_MESSAGE
from chat.core.sequencer import Append, Moderate, Reject
from chat.core.status import Status, pack_slot, unpack_slot
from chat.core.wire import LOG_KINDS_END, MAX_BATCH, MAX_CONTROL, SPOKEN_END, Frame, Kind, run_of

if TYPE_CHECKING:
    from chat.core.bodies import Author
    from chat.core.log import Batch
    from chat.core.roster import Roster
    from chat.core.sequencer import Sequencer, Submission

_FROM_MEMBERS: Final = {Kind.BEAT, Kind.ASK, Kind.BYE, Kind.STATE}  # besides messages
_HOST_ONLY: Final = frozenset(Kind) - _FROM_MEMBERS
_NAMES_PAGE: Final = MAX_CONTROL // 160  # authors in one NAMES frame
_REJECTION_SIZE: Final = 256  # bytes of memory, about
# past messages that HELLO can ask for, so also -n; more is exit code 2, --since goes further
_MAX_HISTORY: Final = 10_000


@dataclass(slots=True, eq=False)
class Member:
    """A cursor with a name: one link of one key."""

    key: bytes
    nick: str
    role: str
    stream: Stream | None  # None for a reader
    cursor: Cursor
    silent: bool
    own_slot: bool  # it writes its slot on the board itself
    posted: set[Member]  # of its room: who has something in the control queue that is not being sent yet
    statuses: float  # the version of others' states that it knows; infinity: it does not ask
    slot: bytes = b""  # its own state, from STATE
    shown: bytes = b""  # the slot that the host wrote to the board
    restrained: bool = False  # what it says is judged one by one: it is muted, or slow mode is on
    presence: int = -1  # the version of the roster that it knows; -1 is below any, even an empty one
    listed: int = 0  # the version from which on it is listed itself: it is told nothing before

    def post(self, data: bytes) -> None:
        """Put whole frames for this member alone into its control queue."""
        self.cursor.post(data)
        self.posted.add(self)

    def pending(self, log: Log, roster: Roster) -> bytes | memoryview:
        """Return the bytes to send next: the cursor's, with presence between batches."""
        if self.listed <= roster.version and self.cursor.at_border:
            if self.presence < roster.version:
                pages, self.presence = roster.pages(self.presence)
                self.cursor.post(pages)
            elif self.statuses < roster.statuses.version:
                pages, self.statuses = roster.statuses.pages(int(self.statuses))
                self.cursor.post(pages)
        return self.cursor.pending(log)


class Admission(NamedTuple):
    """A new member, and what ``Room.welcome`` tells it."""

    member: Member
    welcome: Welcome
    rejections: list[Rejection]  # which it may not know of
    replaced: Member | None  # an older link of the same stream, which this one replaces


class Room(MembershipLedger):
    """One room on one host. The host feeds it frames; members read its log through their cursors.

    ``tables`` is what the store holds of it; ``only`` are the two keys of a direct room, which nobody else enters.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        tables: RoomTables | None = None,
        *,
        owners: frozenset[bytes] = frozenset(),
        open_to_all: bool = False,
        sequencer: Sequencer | None = None,
        bot_turns: int = LIMIT,
        only: frozenset[bytes] = frozenset(),
    ) -> None:
        super().__init__(log, tables or RoomTables(), owners, open_to_all=open_to_all, only=only, sequencer=sequencer)
        self.name = name
        self.guard = LoopGuard(bot_turns)
        self.expelled: list[Moderation] = []  # whose links the host must end
        self.posted: set[Member] = set()  # see ``Member``; the host takes it whenever it sends
        self._voices: dict[
            Stream, Author
        ] = {}  # of the members that have spoken; who began last, or came last, is last

    def _apply(self, submission: Submission) -> None:
        super()._apply(submission)
        if isinstance(submission, Moderate):
            decision = submission.decision
            if decision.action == "kick" or decision.role == "banned":
                self.expelled.append(decision)
                for member in [one for one in self.members if one.key == decision.key and one.role != "owner"]:
                    self.leave(member)
                    member.cursor.stop()
                    member.restrained = True  # so that ``handle`` judges what it still sends
            for member in self.members:
                self._restrain(member)

    def end_old(self, now: int) -> None:
        """End bans and other roles whose time has come."""
        for key, (role, until) in list(self.moderated.items()):
            if until and role != "member" and now >= until:
                over = Moderation(action="role", by=b"", by_nick="", key=key, role="member", until=until)
                over.nick = self.nick_of(key)
                self.decide_now(over, now)

    def _restrain(self, member: Member) -> None:
        """Note what a member may do. One of this host's own user has an owner's rights, whatever its key."""
        role = self.role_of(member.key)
        if member.role not in {"owner", BOT}:
            member.role = role
        member.restrained = member.role != "owner" and (role == "muted" or (self.slow > 0 and role == "member"))

    # -- coming and going -----------------------------------------------------------------------

    def enter(self, hello: Hello, *, as_owner: bool = False, user: str = "") -> Admission:
        """Let in a peer whose signature (and invite, if it needs one) the host has checked.

        With ``as_owner`` it has an owner's rights on this link, unless it is a bot. ``user`` is the login name to show
        beside its nickname. Raises Refused for a banned key and for a nickname that cannot be given, LocalProtocolError
        if ``prepare`` must come first.
        """
        is_bot = self._roles.get(hello.key) == BOT
        role = "owner" if as_owner and not (is_bot or self.only) else self.role_of(hello.key)
        if role == "banned":
            raise Refused("banned", room=self.name)
        role = BOT if is_bot else role
        nick = self.prepare(hello)
        if nick is None:
            raise LocalProtocolError("enter() of a peer whose nickname is not in the order yet; call prepare() first")
        start, show, rewound = _find_start(self.log, hello)
        stream = self._stream(hello.key, hello.stream) if hello.stream else None
        replaced = stream.member if stream else None
        statuses = 0 if hello.states else inf
        member = Member(hello.key, nick, role, stream, Cursor(start), hello.silent, hello.board, self.posted, statuses)
        if not (member.silent or member.own_slot):
            member.slot = pack_slot(member.key, nick, Status())
        if replaced is not None:
            self.leave(replaced)
        first_unsettled, known = 0, []
        if stream is not None:
            stream.member = member
            stream.bot = is_bot
            self._streams[stream.key, stream.id] = stream
            # What is not committed does not count: a crash could still take it, and the member would have forgotten it.
            first_unsettled = self._committing.get(stream, self._touched.get(stream, stream.high_water)) + 1
            known = _rejections(stream, hello.unsettled, first_unsettled) if hello.unsettled else []
            if stream.author is not None:
                self._voices[stream] = stream.author
        self.members[member] = None
        self._links.setdefault(member.key, []).append(member)
        self._restrain(member)
        if not member.silent:
            self.roster.enter(member.key, nick, bot=is_bot, user=user)
        member.listed = self.roster.due
        welcome = Welcome(
            room=self.name,
            epoch=self.log.epoch,
            next_seq=self.log.end,
            start=start,
            show=show,
            nick=nick,
            first_unsettled=first_unsettled,
            proof=b"",
            rejected=known[-1].number + known[-1].count - 1 if known else 0,
            rewound=rewound,
            role=role,
            read=self.read_by(member.key),
            topic=self.properties.get("topic", ""),
        )
        return Admission(member, welcome, known, replaced)

    def welcome(self, entry: Admission, proof: bytes) -> None:
        """Queue WELCOME for a new member, rejections that it may not know, and the names of those who speak here.

        It would have to ask for these names, and its question stands behind all that it says itself.
        """
        entry.welcome.proof = proof
        post = entry.member.post
        post(pack(Kind.WELCOME, entry.welcome))
        for one in entry.rejections:
            post(pack(Kind.REJECTED, one))
        newest = islice(reversed(self._voices.values()), _NAMES_PAGE)
        if known := sorted(newest, key=lambda author: author.index):
            post(pack(Kind.NAMES, Names(authors=known, asked=[])))

    def leave(self, member: Member) -> None:
        """Forget a member. Does nothing the second time."""
        if member not in self.members:
            return
        del self.members[member]
        self.posted.discard(member)
        links = self._links[member.key]
        links.remove(member)
        if not links:
            del self._links[member.key]
        if not member.silent:
            self.roster.leave(member.key, member.nick)
        stream = member.stream
        if stream is not None and stream.member is member:
            stream.member = None
            self._voices.pop(stream, None)
            if not stream.accepted:  # it never spoke: a peer must not fill our memory by coming and going
                del self._streams[stream.key, stream.id]

    # -- what members send ----------------------------------------------------------------------

    def handle(self, member: Member, frame: Frame, now: int) -> Ask | None:
        """Act on a frame from a member at ``now`` (ms). Return a request that the host must answer, if it is one.

        Raises RemoteProtocolError when the frame is against the rules.
        """
        if member not in self.members:
            return None  # it was removed, and what it sent before it knew does not count
        if 0 < frame.kind < SPOKEN_END:
            self._say(member, frame, now)
        elif frame.kind == Kind.STATE:
            shown = unpack_slot(frame.body)
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
            member.post(pack(Kind.NAMES, Names(authors=known, asked=ask.authors)))
        elif frame.kind < LOG_KINDS_END or frame.kind in _HOST_ONLY:
            raise RemoteProtocolError(f"the peer sent a frame of kind {frame.kind}, which only a host sends")
        return None  # BEAT, and kinds that only newer versions know

    def _say(self, member: Member, frame: Frame, now: int) -> None:
        stream = member.stream
        if stream is None:
            raise RemoteProtocolError("the peer spoke without a stream; it came to read only")
        if frame.number <= stream.accepted:
            return  # a repeat; its echo is on the way
        if frame.number != stream.accepted + 1:
            raise RemoteProtocolError(
                f"the peer sent number {frame.number} after {stream.accepted}; what is between is missing"
            )
        held = self.role_of(member.key) if member.restrained else ""
        if (wrong := self.wrong_with(member.key, held, frame, now)) is not None:
            self._submit(Reject(stream.key, stream.id, frame.number, *wrong))
            stream.accepted = frame.number
            return
        self._take(member, stream, frame.raw, [len(frame.raw)], now)

    def take_run(self, member: Member, data: bytes, now: int, most: int = MAX_BATCH) -> tuple[int, int]:
        """Take the messages that ``data`` begins with, at most ``most``; return how many, and how many bytes they are.

        ``handle`` deals with everything that is not surely fine, and would do the same with these, but more slowly:
        with 25 messages a read this one takes 0.5 µs for each, and ``handle`` 3.0 µs.
        """
        stream = member.stream
        if stream is None or member.restrained:
            return 0, 0
        ends = run_of(data, stream.accepted + 1, MAX_MESSAGE, most)
        if not ends:
            return 0, 0
        self._take(member, stream, data, ends, now)
        return len(ends), ends[-1]

    def _take(self, member: Member, stream: Stream, data: bytes, ends: list[int], now: int) -> None:
        """Submit messages that follow the last one; ``data`` may go on behind them."""
        if stream.bot:
            self.guard.program_spoke(stream.key, now, len(ends))
        else:
            self.guard.person_spoke()
        number = stream.accepted + 1
        if self.submitter is None:  # not by a submission, which takes 1.6 µs more
            self._append(stream, member.nick, stream.bot, number, now, data, ends)
        else:
            frames = data[: ends[-1]]
            self.submitter.add(Append(stream.key, stream.id, member.nick, stream.bot, number, now, frames, ends))
        stream.accepted = number + len(ends) - 1

    def _speaks_as(self, stream: Stream, author: Author) -> None:
        super()._speaks_as(stream, author)
        self._voices.pop(stream, None)
        if stream.member is not None:
            self._voices[stream] = author

    # -- storing ---------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that wait for the order or the disk, about: while they are too many, members are left unread."""
        submitted = self.submitter.size if self.submitter is not None else 0
        return self.log.unpublished + _REJECTION_SIZE * len(self._new_rejections) + submitted

    def committed(self, batches: list[Batch], changes: RoomTables) -> list[Member]:
        """Publish what is on the disk now, and tell senders which of their messages were rejected.

        Returns members that do not read what they are told: their links are to be closed, and when they come back
        they are told again.
        """
        told: dict[Member, list[bytes]] = {}
        for key, stream, one in changes.rejections:
            if (member := self._streams[key, stream].member) is not None:
                told.setdefault(member, []).append(pack(Kind.REJECTED, one))
        deaf = [member for member in told if member.cursor.control_size > MAX_CONTROL]
        for member, rejections in told.items():
            if member not in deaf:
                member.post(b"".join(rejections))  # ahead of everything that was numbered after them
        self._committing = {}
        self.log.publish(batches)
        return deaf


def _find_start(log: Log, hello: Hello) -> tuple[int, int, Rewind | None]:
    """Return the first number to send, the first to show, and why the member's past is not ours, if so."""
    rewound: Rewind | None = None
    if hello.epoch:
        if hello.epoch != log.epoch:
            rewound = Rewind(code="another-log")
        elif hello.next_seq > log.end:
            rewound = Rewind(code="older-copy", fields={"end": log.end - 1, "held": hello.next_seq - 1})
        elif hello.last and (ours := log.frame_at(hello.next_seq - 1)) and digest(ours) != hello.last:
            rewound = Rewind(code="differs", fields={"number": hello.next_seq - 1})
        else:
            start = max(1, hello.next_seq)
            return start, start, None
    if hello.next_seq and not hello.epoch:  # it holds nothing and asks for the log from a number
        show = min(hello.next_seq, log.end)
        if hello.next_seq > log.end:
            rewound = Rewind(code="ends-before", fields={"end": log.end - 1, "number": hello.next_seq})
    else:
        show = log.start_of_last(min(hello.history, _MAX_HISTORY))
    return max(1, min(show, hello.since)) if hello.since else show, show, rewound


def _rejections(stream: Stream, start: int, end: int) -> list[Rejection]:
    """Return what is committed of a stream's rejections, from number ``start`` to below ``end``."""
    return [
        replace(one, count=min(one.count, end - one.number))
        for one in stream.rejections
        if one.number < end and one.number + one.count > start
    ]
