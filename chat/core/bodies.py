"""The structured bodies of frames: what each kind of control frame says, as MessagePack (https://msgpack.org).

Each is checked as it is read: its types, the range of its numbers, and the length of what we might keep of it.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Annotated, ClassVar, Final, TypeAlias, TypeVar

import msgspec

from chat.core import codes
from chat.core.errors import CodedError, RemoteProtocolError, Text, phrase
from chat.core.text import MAX_NAME_BYTES, MAX_QUOTED, quoted
from chat.core.wire import MAX_CONTROL, YEAR_9999, Frame, encode

REVOKED: Final = 1  # when an invite ends (ms since 1970) that its owner has ended

# Checked as a body is read, so that no sum of a hostile peer's numbers leaves what we can store or send.
U32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U63: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
U64: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack itself has nothing larger than 64 bits
Time: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=YEAR_9999)]  # ms since 1970; no other can be shown as a date
# What follows bounds what a peer can make us keep.
Key: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Nonce: TypeAlias = Key
KeyOrNone: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=32)]  # b"" if nobody knows whose it was
Nick: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME_BYTES)]  # any text, so sanitize it to show it
Word: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]  # such as a role, or the name of a room
_MAX_FIELDS: Final = 16  # fields of a code from a peer; more are dropped


class Struct(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A body that is a MessagePack map. Unknown fields are ignored."""


class Coded(Struct):
    """A code and its fields, for the reader to phrase; ``text`` is the same in English, as a courtesy.

    Everything is sanitized and cut as it is read: at most 16 fields, and 200 characters per string.
    """

    code: str
    fields: dict[str, str | int] = {}
    text: str = ""

    table: ClassVar[dict[str, str]] = {}
    longest: ClassVar[int] = MAX_QUOTED  # characters of ``text``

    def __post_init__(self) -> None:
        self.code = quoted(self.code)
        self.fields = {
            quoted(name): quoted(one) if isinstance(one, str) else one
            for name, one in islice(self.fields.items(), _MAX_FIELDS)
        }
        self.text = quoted(self.text, self.longest)
        self.text = str(self.words)  # ours, if we know the code

    @property
    def words(self) -> Text:
        """What it says, for ``chat.i18n.translate``: by our own table, or else the sender's text."""
        if self.code in self.table:
            with suppress(LookupError, ValueError):  # a newer host may send other fields
                self.table[self.code].format(**self.fields)
                return phrase(self.table[self.code], self.fields)
        return phrase("{text}", {"text": self.text or self.code})  # a field: nobody looks it up in a catalogue

    def error(self, kind: type[CodedError]) -> CodedError:
        """Return an error of this kind that says the same."""
        return kind(self.code, self.words, **self.fields)


class Rewind(Coded):
    """Why the host's log is not a continuation of what a member holds."""

    table = codes.REWOUND


class Challenge(Struct):
    """The host's first frame. ``key``: its Ed25519 public key; ``nonce``: 32 random bytes."""

    key: Key
    nonce: Nonce


class Hello(Struct):
    """Who wants to enter, from where in the log, and by which right."""

    room: str
    key: bytes  # the member's Ed25519 public key, 32 bytes
    nonce: bytes  # 32 random bytes
    signature: bytes  # over the transcript (chat.local.identity), 64 bytes
    nick: str = ""
    stream: U64 = 0  # the outbox's random 64-bit id
    silent: bool = False  # not shown among the members
    invite: bytes = b""  # the public key of an invite, 32 bytes
    invite_proof: bytes = b""  # that key's signature over the transcript, 64 bytes
    epoch: bytes = b""  # with next_seq and last: what this member already holds
    next_seq: U63 = 0
    last: bytes = b""  # the first 8 bytes of the SHA-256 of frame next_seq - 1
    unsettled: U32 = 0  # the first number sent whose outcome it does not know; 0 for none
    history: U63 = 0  # without an epoch: how many past messages to begin with
    since: U63 = 0  # begin no later than here: this member waits for an echo that may be there
    other: bytes = b""  # for a direct room: the other's key, from which the room's name is made
    board: bool = False  # it writes its status to this machine's board by itself
    states: bool = False  # it cannot read that board, and wants STATES


def direct_name(one: bytes, other: bytes) -> str:
    """Return the name of the direct room of two keys. No room that people name begins with ``@``."""
    return "@" + sha256(b"".join(sorted((one, other)))).hexdigest()[:32]


class Welcome(Struct):
    """The host admits the peer. Frames of the log follow, from ``start``."""

    room: Word
    epoch: bytes  # EPOCH_SIZE bytes
    next_seq: U63  # the current end of the log
    start: U63  # the first number this member will be sent
    show: U63  # the requested history begins here; earlier frames only settle its outbox
    nick: str  # the nickname it has here (a clash gets a suffix)
    first_unsettled: U32  # its stream's high-water mark plus 1: everything below is stored or rejected
    proof: bytes  # the host's Ed25519 signature over the transcript
    rejected: U32 = 0  # REJECTED frames follow, the last of them up to this number
    rewound: Rewind | None = None  # why what the member held is not this log's past
    role: Word = "member"
    read: U63 = 0  # how far this key has read in any of its windows; 0 if it is new
    topic: str = ""

    def __post_init__(self) -> None:
        self.room, self.role, self.topic = quoted(self.room, 64), quoted(self.role, 64), quoted(self.topic)


class Refusal(Coded):
    table = codes.REFUSALS


class Author(Struct):
    """Who an author index stands for. (key, stream, nick) never changes for an index."""

    index: U32
    key: KeyOrNone
    stream: U64
    nick: Nick
    bot: bool = False


class Moderation(Struct):
    """What the owner or an operator has decided. It is in the log, so every host and every member knows it."""

    action: Word  # role, kick, retract, topic or slow
    by: KeyOrNone  # the key of who decided
    by_nick: str
    key: KeyOrNone = b""  # role, kick: of whom
    nick: str = ""  # and their nickname
    role: Word = ""  # role: operator, member, muted or banned, from now on
    until: Time = 0  # role: when it ends; 0 for never
    target: U63 = 0  # retract: the number of the message
    text: str = ""  # topic
    seconds: U32 = 0  # slow: between two messages of one member; 0: as they like

    def __post_init__(self) -> None:
        self.by_nick, self.nick, self.text = quoted(self.by_nick), quoted(self.nick), quoted(self.text)


class Gap(Struct):
    """``count`` numbers from ``first`` on are gone for good."""

    first: U63
    count: U63


class Presence(Struct):
    """Changes of who is here. ``reset``: forget what you knew first. ``more``: another page follows."""

    here: list[tuple[Key, Nick]] = []
    gone: list[tuple[Key, Nick]] = []
    reset: bool = False
    more: bool = False
    bots: list[U32] = []  # positions in ``here`` of programs that the host started
    others: U32 = 0  # how many more are here, too many to be listed
    users: list[tuple[U32, Word]] = []  # positions in ``here``, and the login names by which the kernel knows them


class States(Struct):
    """The status of others, as it changes. Only PRESENCE says who leaves the room."""

    slots: list[bytes] = []
    gone: list[tuple[Key, Nick]] = []  # still here, but with no status any more


class Names(Struct):
    """Authors that a member asked for, except unknown ones. After WELCOME, unasked: the active authors."""

    authors: list[Author]
    asked: list[U32]


class Ask(Struct):
    """A request to the host: ``what`` is 'names', or one of those in ``chat.host.requests`` and ``moderation``."""

    what: str
    text: str = ""  # peer: the program to start, [NAME=]COMMAND; search: the query, as chat.host.search reads it;
    # invite: whom it is for
    authors: list[U32] = []
    uses: U32 = 0  # invite: how often it may be used; 0: no limit
    seconds: U32 = 0  # invite, ban, mute: for how long, 0: for good; slow: between two messages
    role: Word = ""  # invite: "operator" makes operators of those who enter by it
    reason: str = ""  # kick, ban, mute
    alike: bool = False  # ban: also everybody else who came by the same invite
    cover: Word = ""  # ban: "uid", also the user of the host's machine behind a TCP link; "key", nothing but the key
    first: U63 = 0  # range: from this number on; retract: this message
    before: U63 = 0  # range: only numbers below this one; search: the same, 0: all
    limit: U32 = 0  # search: how many messages, at most 100; 0: 20


class Answer(Coded):
    """The answer to a request. Without a code, ``text`` is the result."""

    code: str = ""
    failed: bool = False  # the code says why
    found: list[tuple[U63, U63]] = []  # search, newest first: a message, and the frame with its text now (an edit)
    more: bool = False  # search: there are older ones
    indexed: U63 = 0  # search: numbers below this one were searched
    audit: list[tuple[U63, Time, str, str, str, str]] = []  # number, time (ms), by whom, what, to whom, why
    invites: list[tuple[str, int, Time, list[str]]] = []  # name, uses left, until (ms), who came; as chat.host.invites
    terms: list[tuple[str, str]] = []  # invites: of each of these, whom it is for, and the role that it gives
    members: list[tuple[bytes, str, str, Time]] = []  # moderated ones: key, nickname, role, until (ms)

    table = codes.ANSWERS
    longest = MAX_CONTROL


class Direct(Struct):
    """A direct room of the member that has messages.

    After WELCOME come the newest 24; later, one that the other writes in, once until the member enters it.
    """

    room: Word
    other: Key  # the other's
    nick: Nick  # the other's nickname here
    next_seq: U63  # where its log ends
    read: U63 = 0  # how far this key has read there in any of its windows


class Rejection(Coded, kw_only=True):
    """Numbers of a stream that are not in the log and never will be."""

    number: U32
    count: U32 = 1  # how many, from ``number`` on

    table = codes.REJECTED


class Notice(Coded):
    table = codes.NOTICES


_encoder: Final = msgspec.msgpack.Encoder()


def pack(kind: int, body: Struct, *, number: int = 0, author: int = 0) -> bytes:
    """Return a control frame with a structured body."""
    return encode(kind, _encoder.encode(body), number=number, author=author)


_S = TypeVar("_S", bound=Struct)


def unpack(shape: type[_S], frame: Frame) -> _S:
    """Read a structured body. Raises RemoteProtocolError when it is not one."""
    try:
        return msgspec.msgpack.decode(frame.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the peer sent a {shape.__name__} that cannot be read: {error}") from None
