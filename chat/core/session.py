"""A member's side of the protocol, without I/O: bytes and messages in, events and bytes out.

          connected()          CHALLENGE          hello()           WELCOME
     OFF ------------> WAITING ---------> ASKED ---------> GREETED ---------> JOINED
      ^                                                                          |
      +---------------------------------- lost() --------------------------------+

Rules:

1. A session outlives its links. It resumes from (epoch, next number, hash of the last frame held), and never
   delivers a message twice.
2. A message is kept until its echo or its rejection. The echo with a number is the acknowledgement; nothing else is.
3. An entry gets its number only when the host's mark is known, so a lost file can never reuse one.
4. The host is not trusted either: its numbers must follow each other.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from chat.core.bodies import (
    Answer,
    Ask,
    Author,
    Challenge,
    Direct,
    Gap,
    Hello,
    Moderation,
    Names,
    Notice,
    Presence,
    Refusal,
    Rejection,
    States,
    Welcome,
    pack,
    unpack,
)
from chat.core.codes import BUSY, NO_ROOM
from chat.core.errors import HostBusy, LocalProtocolError, NoSuchRoom, Refused, RemoteProtocolError
from chat.core.events import Answered, Event, Joined, Message, Numbered, Rejected, Rewound, Stored
from chat.core.incoming import AUTHORS_ONLY, Authors, Incoming, Range
from chat.core.log import digest
from chat.core.outgoing import OutboxEntry, Unsettled, split_body
from chat.core.present import Present
from chat.core.status import Status, Who, unpack_slot
from chat.core.text import nickname, quoted
from chat.core.wire import EPOCH_SIZE, LOG_KINDS_END, PREFACE, SPOKEN_END, Frame, Kind, Parser, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.core.outgoing import Outcome, Outgoing

_NOT_IN_THE_ROOM: Final = {Kind.CHALLENGE, Kind.WELCOME, Kind.HELLO, Kind.ASK, Kind.BYE}  # from a host


class LinkState(Enum):
    OFF = "no link"
    WAITING = "waiting for the host's first words"
    ASKED = "deciding whether to trust the host"
    GREETED = "waiting to be let in"
    JOINED = "in the room"


class Session:
    """One member of one room, over one link after another."""

    def __init__(
        self, room: str, key: bytes, *, nick: str = "", silent: bool = False, history: int = 0, other: bytes = b""
    ) -> None:
        self.room = room
        self.key = key  # our own
        self.nick = nick  # the one we want; after joining, the one we have
        self.silent = silent
        self.other = other  # the other's key, in a direct room
        self.board = False  # we show our state on the host's board ourselves
        self.states: dict[Who, Status] | None = None  # others', if we cannot see the board; set it to ask for them
        self.state = LinkState.OFF
        self.epoch = b""
        self.start_at = 0  # where to begin in the log, instead of its last messages; set it before the first join
        self.next_seq = 0  # the next number to be delivered; 0 before the first join
        self.topic = ""  # what the room is about
        self.stream = 0  # the outbox's id; 0 if we only read
        self.unsettled = Unsettled()
        self._unsent = 0  # of these, the last ones, which no link has had yet
        self._wanted_nick = nick
        self._history = history
        self._show = 0
        self._last = b""  # the last frame delivered
        self._authors = Authors()
        self._live = Incoming()
        self._range: Range | None = None  # a part of the log that we asked for
        self._present = Present()
        self._question = 0
        self._parser = Parser()
        self._out = bytearray()

    @property
    def here(self) -> dict[Who, bool]:
        """Who is in the room, in order of arrival; true for programs."""
        return self._present.here

    @property
    def others(self) -> int:
        """How many more are in the room; a large one does not list all."""
        return self._present.others

    @property
    def users(self) -> dict[Who, str]:
        """The login names of those of whom the kernel of the host's machine knows it."""
        return self._present.users

    # -- the link --------------------------------------------------------------------------------

    def connected(self) -> None:
        """A link is up: the preface is ready to be sent."""
        if self.state is not LinkState.OFF:
            raise LocalProtocolError(f"connected() while {self.state.value}; call lost() first")
        self.state = LinkState.WAITING
        self._parser = Parser()
        self._out = bytearray(PREFACE)

    def lost(self) -> None:
        """The link is gone. Unsettled messages go out again over the next one."""
        self.state = LinkState.OFF
        self._out.clear()
        self._live, self._range = Incoming(), None
        self._authors.lost()
        self._present.lost()

    def hello(
        self,
        *,
        nonce: bytes,
        signature: bytes,
        invite: bytes = b"",
        invite_proof: bytes = b"",
        stream: int = 0,
        unsettled: Iterable[OutboxEntry] = (),
    ) -> None:
        """Answer a Challenge whose key we trust. ``stream`` and what an earlier process left there count once."""
        if self.state is not LinkState.ASKED:
            raise LocalProtocolError(f"hello() while {self.state.value}")
        if not self.stream:
            self.stream = stream
            self.unsettled.extendleft(reversed(list(unsettled)))  # they were said before anything said here
        first, since = self.unsettled.sent()
        self._out += pack(
            Kind.HELLO,
            Hello(
                room=self.room,
                key=self.key,
                nonce=nonce,
                signature=signature,
                nick=self._wanted_nick,
                stream=self.stream,
                silent=self.silent,
                invite=invite,
                invite_proof=invite_proof,
                epoch=self.epoch,
                next_seq=self.next_seq or self.start_at,
                last=digest(self._last) if self._last else b"",
                history=self._history,
                since=since,
                unsettled=first,
                other=self.other,
                board=self.board,
                states=self.states is not None,
            ),
        )
        self.state = LinkState.GREETED

    def data_to_send(self) -> bytes:
        """Return and clear the bytes to send."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def rename(self, nick: str) -> None:
        """Ask for another nickname at the next join."""
        self._wanted_nick = nick

    def keep_nick(self) -> bool:
        """Ask for the nickname that we have at the next join, after all. Return whether it was to be another."""
        wanted, self._wanted_nick = self._wanted_nick, self.nick
        return wanted != self.nick

    # -- sending ---------------------------------------------------------------------------------

    def number(self, message: Outgoing) -> OutboxEntry:
        """Return a message with its number, if the host's mark is known, and its place in time.

        Write it to the outbox, then call ``say``. Raises LocalProtocolError for a session that only reads.
        """
        if self.epoch and not self.stream:
            raise LocalProtocolError("this session only reads; it has no outbox to speak from")
        return OutboxEntry(
            self.unsettled.next_number, message.kind, message.flags, message.body, message.id, self.epoch, self.next_seq
        )

    def say(self, entry: OutboxEntry) -> None:
        """Send an entry, the last that ``number`` returned, now or once in the room; it is unsettled until its echo."""
        if entry.number != self.unsettled.next_number:
            raise LocalProtocolError(f"say() of number {entry.number} where {self.unsettled.next_number} follows")
        if self.unsettled.next_number:
            self.unsettled.next_number += 1
        self.unsettled.append(entry)
        if self.state is LinkState.JOINED:
            self._send(entry)
        else:
            self._unsent += 1

    def withdraw(self, entry: OutboxEntry) -> bool:
        """Forget an entry if it is the last one and was never sent. Return whether it was."""
        if not self._unsent or self.unsettled[-1] is not entry:
            return False
        self._unsent -= 1
        self.unsettled.pop()
        self.unsettled.next_number -= self.unsettled.next_number > 0
        return True

    def _send(self, entry: OutboxEntry) -> None:
        self._out += encode(entry.kind, entry.body, flags=entry.flags, number=entry.number)

    def ask(self, ask: Ask) -> int:
        """Put a question to the host; an Answered event with this number follows, unless the link is lost first."""
        if self.state is not LinkState.JOINED:
            raise LocalProtocolError(f"ask() while {self.state.value}")
        if ask.what == "range":
            if self._range is not None:
                raise LocalProtocolError("a part of the log is still on its way; ask for one at a time")
            least = min(ask.before, self._live.expected)
            self._range = Range(self._question + 1, max(1, ask.first), ask.before, least)
        self._question += 1
        self._out += pack(Kind.ASK, ask, number=self._question)
        return self._question

    def _control(self, kind: Kind, body: bytes = b"") -> None:
        if self.state is LinkState.JOINED:
            self._out += encode(kind, body)

    def beat(self) -> None:
        """Send a sign of life. Call it when nothing else was sent for a while."""
        self._control(Kind.BEAT)

    def show(self, slot: bytes) -> None:
        """Send our state to the host, as ``status.pack_slot`` makes it."""
        self._control(Kind.STATE, slot)

    def bye(self) -> None:
        """Leave on purpose."""
        self._control(Kind.BYE)

    # -- receiving -------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """Return what the bytes mean. Raises RemoteProtocolError, or Refused when the host says no."""
        events: list[Event] = []
        for frame in self._parser.feed(data):
            if frame.kind < LOG_KINDS_END:
                self._take(frame, events)
            else:
                self._control_frame(frame, events)
        return events

    def _control_frame(self, frame: Frame, events: list[Event]) -> None:
        if frame.kind == Kind.REFUSED:
            refusal = unpack(Refusal, frame)
            kind = NoSuchRoom if refusal.code in NO_ROOM else HostBusy if refusal.code in BUSY else Refused
            raise refusal.error(kind)
        if frame.kind == Kind.CHALLENGE and self.state is LinkState.WAITING:
            events.append(unpack(Challenge, frame))
            self.state = LinkState.ASKED
        elif frame.kind == Kind.WELCOME and self.state is LinkState.GREETED:
            self._welcome(unpack(Welcome, frame), events)
        elif self.state is not LinkState.JOINED or frame.kind in _NOT_IN_THE_ROOM:
            raise RemoteProtocolError(f"the host sent a frame of kind {frame.kind} while we were {self.state.value}")
        elif frame.kind == Kind.GAP:
            self._take(unpack(Gap, frame), events)
        elif frame.kind == Kind.RANGE:
            if self._range is None:
                raise RemoteProtocolError("the host sent a part of the log that we did not ask for")
            self._range.add_piece(frame)
            self._release_range(events)
        elif frame.kind == Kind.REJECTED:
            self._settle(self.unsettled.rejected(unpack(Rejection, frame), self.next_seq), events)
        elif frame.kind == Kind.PRESENCE:
            presence = unpack(Presence, frame)
            events += self._present.change(presence)
            for who in presence.gone:
                (self.states or {}).pop(who, None)
        elif frame.kind == Kind.NAMES:
            self._authors.learn(unpack(Names, frame))
            self._release(events)
            self._release_range(events)
        elif frame.kind == Kind.ANSWER:
            if self._range is not None and self._range.number == frame.number:  # the host does not send it
                self._range = None
            events.append(Answered(frame.number, unpack(Answer, frame)))
        elif frame.kind == Kind.NOTICE:
            events.append(unpack(Notice, frame))
        elif frame.kind == Kind.STATES and self.states is not None:
            found = unpack(States, frame)
            self.states.update(slot for slot in map(unpack_slot, found.slots) if slot and slot[0] in self.here)
            for who in found.gone:
                self.states.pop(who, None)
        elif frame.kind == Kind.DIRECT:
            events.append(unpack(Direct, frame))

    def _welcome(self, welcome: Welcome, events: list[Event]) -> None:
        resumed = bool(self.epoch) and not welcome.rewound
        _check(welcome, (self.epoch, self.next_seq) if resumed else None)
        if self.stream and not welcome.first_unsettled:
            raise RemoteProtocolError("the host does not say which of our messages it holds")
        self.state = LinkState.JOINED
        if self.states is not None:
            self.states.clear()  # the host sends all of them again
        if welcome.rewound:
            events.append(Rewound(welcome.rewound))
            self._authors.clear()
            self._last = b""
        self.nick = self._wanted_nick = welcome.nick or self.nick
        self.topic = quoted(welcome.topic)
        self.epoch = welcome.epoch
        self.next_seq = welcome.start
        self._live = Incoming(welcome.start)
        if not resumed:
            self._show = welcome.show
            self.unsettled.unseen_end = welcome.start
        self._present.welcome()
        # Joined comes first: until its proof is checked, the host must not change the outbox.
        name, epoch, end, role = welcome.room, welcome.epoch, welcome.next_seq, welcome.role
        events.append(Joined(name, epoch, end, self.nick, role, resumed, welcome.proof, welcome.read))
        again, changed = self.unsettled.welcome(welcome) if self.stream else ([], False)
        for entry in again:
            self._send(entry)
        self._unsent = 0
        if changed:
            events.append(Numbered())
        self._settle(self.unsettled.passed(self.next_seq), events)

    def _take(self, item: Frame | Gap, events: list[Event]) -> None:
        if self.state is not LinkState.JOINED:
            raise RemoteProtocolError(f"the host sent a message while we were {self.state.value}")
        self._live.add(item)
        self._release(events)

    def _release(self, events: list[Event]) -> None:
        """Deliver what came, up to the first message whose author is not known."""
        authors = self._authors
        for item in self._live.ready(authors):
            if isinstance(item, Gap):
                self.next_seq, self._last = item.first + item.count, b""
                self.unsettled.unseen_end = self.next_seq
                authors.wrote.clear()
                events.append(item)
            else:
                whose, self.next_seq, self._last = b"", item.seq + 1, item.raw
                if item.kind < SPOKEN_END:
                    message, is_shown = self._message(item), item.seq >= self._show
                    key = message.author.key
                    if item.kind not in AUTHORS_ONLY:
                        whose = key
                    elif not (before := authors.author_of(message.target, item.seq)):
                        message = message._replace(verified=False)
                    elif before != key:  # no honest host lets it through, and no other reader checks it
                        is_shown = False
                    if is_shown:
                        events.append(message)
                    if not key:  # nobody knows whose it is
                        self.unsettled.unseen_end = self.next_seq
                    if self.unsettled and message.mine:
                        self._settle(self.unsettled.echo(item), events)
                elif item.kind == Kind.MODERATION:
                    message = self._message(item)
                    if message.decision is not None and message.decision.action == "topic":
                        self.topic = message.decision.text
                    if item.seq >= self._show:
                        events.append(message)
                authors.wrote.append(whose)
            if self.unsettled:
                self._settle(self.unsettled.passed(self.next_seq), events)
        self._ask_names(self._live)

    def _release_range(self, events: list[Event]) -> None:
        if (part := self._range) is None:
            return
        if (ranged := part.release(self._authors, self._message)) is not None:
            events.append(ranged)
            if ranged.last:
                self._range = None
        self._ask_names(part)

    def _ask_names(self, waiting: Incoming) -> None:
        if (question := self._authors.question(waiting)) is not None:
            self.ask(question)

    def _message(self, frame: Frame) -> Message:
        if frame.kind == Kind.MODERATION:
            made = unpack(Moderation, frame)
            author = Author(index=0, key=made.by, stream=0, nick=made.by_nick)
            return Message(frame.seq, frame.time, author, frame.kind, "", made.target, mine=False, decision=made)
        author = self._authors[frame.author]
        text, target = split_body(frame.kind, frame.flags, frame.body)
        mine = author.stream == self.stream and author.key == self.key and self.stream != 0
        return Message(frame.seq, frame.time, author, frame.kind, text, target, mine)

    def _settle(self, outcomes: Iterable[Outcome], events: list[Event]) -> None:
        for entry, seq, why in outcomes:
            events.append(Rejected(entry, why.code, why.words, why.fields) if why else Stored(entry, seq))


def _check(welcome: Welcome, resume: tuple[bytes, int] | None) -> None:
    """Raise RemoteProtocolError for what no host may say. ``resume``: the log and the number that we asked for."""
    if len(welcome.epoch) != EPOCH_SIZE:  # it would be in errors, and beside each entry of the outbox
        raise RemoteProtocolError(f"the host's log has an epoch of {len(welcome.epoch)} bytes, not {EPOCH_SIZE}")
    if resume and (welcome.epoch, welcome.start) != resume:
        raise RemoteProtocolError(
            f"the host resumes at {welcome.start} of log {welcome.epoch.hex()} "
            f"where we asked for {resume[1]} of log {resume[0].hex()}"
        )
    if welcome.nick:
        try:
            nickname(welcome.nick)
        except ValueError as error:
            raise RemoteProtocolError(f"the host calls us what is no nickname: {error}") from None
