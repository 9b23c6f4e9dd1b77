"""Who may enter a room, and under which nickname; and what this host has submitted of that.

Rules:

1. Whoever was let in once needs no invite again, unless banned.
2. A nickname belongs to the first key that claimed it in the order. It is free again if nobody spoke under it.
3. What was submitted counts once the order has brought it. Until then the host remembers it, and submits nothing twice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from chat.core import text
from chat.core.errors import Refused
from chat.core.ledger import BOT, NICKS_A_KEY
from chat.core.moderated import ModeratedLedger
from chat.core.roster import Roster
from chat.core.sequencer import AddInvite, ClaimNick, ReleaseNick, SetRole, Submitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat.core.bodies import Hello
    from chat.core.ledger import RoomTables
    from chat.core.log import Log
    from chat.core.room import Member
    from chat.core.sequencer import Sequencer, Submission


class MembershipLedger(ModeratedLedger):
    """A ledger that knows who may be a member, and who is one on this host."""

    def __init__(
        self,
        log: Log,
        tables: RoomTables,
        owners: frozenset[bytes],
        *,
        open_to_all: bool,
        only: frozenset[bytes],
        sequencer: Sequencer | None,
    ) -> None:
        super().__init__(log, tables, owners)
        self.only = only
        self.open_to_all = open_to_all
        self.roster = Roster()
        self.members: dict[Member, None] = {}
        self._links: dict[bytes, list[Member]] = {}  # the same by key
        self.submitter = Submitter(sequencer) if sequencer is not None else None
        # What this host has submitted and the order has not brought yet:
        self._coming: dict[bytes, str] = {}  # key, role
        self._claims: set[ClaimNick] = set()

    def _apply(self, submission: Submission) -> None:
        super()._apply(submission)
        if isinstance(submission, SetRole) and self._coming.get(submission.key) == submission.role:
            del self._coming[submission.key]
        elif isinstance(submission, ClaimNick):
            self._claims.discard(submission)
        elif isinstance(submission, ReleaseNick) and self._is_here(submission.key, submission.nick):
            self._submit(ClaimNick(*astuple(submission)))  # another host did not know that

    def _submit(self, submission: Submission) -> None:
        if self.submitter is None:
            self._apply(submission)
        else:
            self.submitter.add(submission)

    def may_enter(self, key: bytes) -> bool:
        """Whether this key needs no invite."""
        if self.role_of(key) == "banned":
            return False
        if self.only:
            return key in self.only
        return self.open_to_all or self.knows(key)

    def admit(self, key: bytes, role: str = "", invite: bytes = b"") -> None:
        """Let this key enter without an invite from now on. Call it once the use of its ``invite`` is counted."""
        if invite:
            self._new.admitted.append((key, invite))
        role = role or self._coming.get(key) or ("owner" if key in self.owners else self._roles.get(key, "member"))
        if self._coming.get(key, self._roles.get(key)) != role:
            self._coming[key] = role
            self._submit(SetRole(key, role))

    def is_coming(self, key: bytes) -> bool:
        """Whether this host has admitted the key, and the order has not brought that yet."""
        return key in self._coming

    def add_invite(self, key: bytes, expires: int = 0, *, counted: bool = False) -> None:
        """Publish an invite's public key; ``expires`` is in milliseconds."""
        if self.invites.get(key) != (expires, counted):
            self._submit(AddInvite(key, expires, counted))

    def links_of(self, key: bytes) -> Sequence[Member]:
        """Return the members of one key."""
        return self._links.get(key, ())

    def knows(self, key: bytes) -> bool:
        """Whether this key was ever admitted."""
        return key in self.owners or key in self._roles

    def unspoken(self) -> list[tuple[bytes, str]]:
        """Return the keys and nicknames under which nobody has spoken."""
        spoken = {(author.key, author.nick) for author in self._authors}
        return [(key, nick) for nick, key in self._nicks.values() if (key, nick) not in spoken]

    def release(self, key: bytes, nick: str) -> None:
        """Let go of a nickname whose key is not here, if it has never spoken under it."""
        if self.only or self._is_here(key, nick):
            return
        alike = self._alike.get(text.skeleton(nick), [])
        for skeleton, (held, whose) in list(self._nicks.items()):
            if whose == key and (held, whose) in alike:
                self._submit(ReleaseNick(key, held, skeleton))

    def _is_here(self, key: bytes, nick: str) -> bool:
        skeleton = text.skeleton(nick)
        return any(text.skeleton(member.nick) == skeleton for member in self.links_of(key))

    def has_stream(self, key: bytes, stream: int) -> bool:
        """Whether the room knows this stream of a key; a new one costs it memory for ever once it speaks."""
        return (key, stream) in self._streams

    def speakers(self) -> set[bytes]:
        """Return the keys that have spoken here."""
        return {author.key for author in self._authors}

    def is_trusted(self, key: bytes) -> bool:
        """Whether this key keeps order here: it gives way to nobody."""
        return self.role_of(key) in ("owner", "operator")

    def prepare(self, hello: Hello) -> str | None:
        """Return the nickname that this peer has, "" for one that only reads; None while its claim is not applied.

        Raises Refused for a nickname that cannot be given.
        """
        if hello.silent and not hello.stream:
            return ""
        if self.only:  # the host has put in the nickname of the room that the two share
            return hello.nick
        nick, is_taken = self._choose_nick(hello.nick, hello.key)
        if is_taken:
            return nick
        claim = ClaimNick(hello.key, nick, text.skeleton(nick))
        if claim not in self._claims:
            self._claims.add(claim)
            self._submit(claim)
        return nick if self._nicks.get(claim.skeleton) == (nick, hello.key) else None

    def _choose_nick(self, wanted: str, key: bytes) -> tuple[str, bool]:
        """Return the nickname that this key may have, the wanted one or that with a suffix; and whether it has it."""
        try:
            nick = text.nickname(wanted)
        except ValueError as error:
            raise Refused("nick-invalid", why=error) from None
        for number in range(1, 100):
            candidate = _with_suffix(nick, f"-{number}") if number > 1 else nick
            skeleton = text.skeleton(candidate)
            holders = self._alike.get(skeleton, [])
            if not holders and skeleton in self._nicks:  # which is what a claim is judged by
                holders = [self._nicks[skeleton]]
            if not holders:
                if (like := text.reserved(candidate)) and self.role_of(key) not in {"owner", BOT}:
                    raise Refused("nick-reserved", candidate=candidate, like=like)
                if self._nick_count[key] >= NICKS_A_KEY:
                    raise Refused("too-many-nicks", count=NICKS_A_KEY)
                return candidate, False
            exact = [holder for holder in holders if holder[0].casefold() == candidate.casefold()]
            if {holder for _, holder in exact or holders} == {key}:
                return candidate, True
            if not exact:
                raise Refused("nick-similar", candidate=candidate, other=holders[0][0])
        raise Refused("nick-taken", nick=nick)

    def nick_of(self, key: bytes, wanted: str = "") -> str:
        """Return the nickname by which people know this key here, "" for none.

        It is one that is present if there is one, else any that the key has: ``wanted`` among these, or the newest.
        """
        known = [nick for whose, nick in self.roster.here if whose == key]
        known = known or [nick for nick, whose in self._nicks.values() if whose == key]
        return wanted if wanted in known else known[-1] if known else ""


def _with_suffix(nick: str, suffix: str) -> str:
    """Return both as one nickname, ``nick`` shortened as far as it takes. Raises Refused where nothing fits.

    What a member has it asks for again when it comes back, so it must be a nickname by itself.
    """
    for end in range(len(nick), 0, -1):
        with suppress(ValueError):
            return text.nickname(nick[:end] + suffix)
    raise Refused("nick-taken", nick=nick)
