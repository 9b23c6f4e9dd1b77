"""The client: one member of one room, for faces and programs. It keeps unacknowledged messages on disk.

    async with Client(target, identity, ...) as client:
        await client.say("hello")
        async for event in client: ...

Rules:

1. A message is in the outbox on disk before its bytes are on the wire.
2. A message leaves the outbox only when its Stored or Rejected event has been taken and the next one is asked for, so
   that a program killed in between learns of it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from chat.client import queries
from chat.client.board import MemberBoard
from chat.client.connection import Connection
from chat.client.events import EventQueue
from chat.client.outbox import Outbox, outbox_folder
from chat.client.queries import Queries
from chat.core.errors import HostBusy, LinkBroken, LocalProtocolError, StoreFull, Text, wire_fields
from chat.core.events import LocalNotice, Rejected, Stored
from chat.core.outgoing import Outgoing
from chat.core.session import Session
from chat.core.text import nickname
from chat.local.identity import host_hash
from chat.local.private_files import make_private

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from chat.client.events import ClientEvent
    from chat.client.target import Target
    from chat.core import status
    from chat.core.bodies import Answer, Ask, Gap
    from chat.core.events import Message
    from chat.core.outgoing import OutboxEntry
    from chat.local.identity import Identity
    from chat.local.known_hosts import KnownHosts
    from chat.transport import Address

_RETRY: Final = 1.0  # seconds after our own disk took nothing
_SILENT: Final = {"unknown", "unconfirmed"}  # codes of messages of which the host says nothing
# seconds for which a newcomer waits at the door in all, if the host says when to come again; then exit code 4
PATIENCE: Final = 180
WINDOW: Final = 1024  # messages that may be unsettled; beyond it ``say`` waits


class Client:
    """One member of one room.

    ``locate`` returns the target anew before each dial, since a room on this machine may move. ``outboxes`` is the
    folder for outboxes, None for a client that only reads. With ``looks`` it sees the status of others, and shows
    its own. After ``silence`` seconds without a byte from the host it dials again: 12 by default.
    """

    def __init__(
        self,
        locate: Callable[[], Target],
        identity: Identity,
        known_hosts: KnownHosts,
        *,
        outboxes: Path | None = None,
        nick: str = "",
        silent: bool = False,
        history: int = 0,
        since: int = 0,
        looks: bool = False,
        silence: float | None = None,
    ) -> None:
        self.locate = locate
        self.identity = identity
        self.known_hosts = known_hosts
        self.nick = nick  # the one that we came with; the outbox is in its name
        self.wanted = nick  # the one that we asked for last
        target = locate()
        self.session = Session(target.room, identity.key, nick=nick, silent=silent, history=history, other=target.other)
        if since:
            self.session.start_at = since
        self.on_wait: Callable[[HostBusy], None] | None = None
        self.on_first_use: Callable[[LocalNotice], object] | None = None  # without it, the notice is an event
        self.pending: list[str] = []  # ids of what an earlier process had said and not seen stored
        self.address: Address | None = None  # where the link leads, or led last
        self.wire: tuple[str, ...] = ()  # the transport and why we trust the host, for people; empty without a link
        self.host_key = b""  # the public key that the host has proved; empty before that
        self.trusted_on_first_use = ""  # the host's fingerprint, if nothing had named its key before
        self.events = EventQueue()
        self.connection = Connection(self, silence)
        self.board = MemberBoard(self.session, self.connection.flush_soon, looks=looks)
        self.queries = Queries(self.session, self.connection.flush)
        self._looks = looks
        self._outboxes = outboxes
        self._outbox: Outbox | None = None
        self._outbox_folder: Path | None = None
        self._told = False  # that our own disk takes nothing
        self._waiting: deque[Outgoing] = deque()  # what our own disk does not take now
        self.unkept: list[str] = []  # texts that it did not take until the program gave up
        self._taken: list[Stored | Rejected] = []  # handed out since the outbox was last settled

    # -- joining and leaving ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Dial and join. Raises DialFailed, Refused, RemoteProtocolError.

        The first time there is no second try, unless the host says when to come again and ``on_wait`` is set.
        """
        try:
            waited = 0
            while (seconds := await self._connect(PATIENCE - waited)) > 0:
                waited += seconds
                await asyncio.sleep(seconds)
        except BaseException:
            await self._close()
            raise
        self.connection.start()
        return self

    async def _connect(self, patience: int) -> int:
        """Connect, or return in how many seconds to try again, at most ``patience``."""
        try:
            await self.connection.connect()
        except HostBusy as error:
            if self.on_wait is None or not 0 < error.seconds <= patience:
                raise
            self.on_wait(error)
            return error.seconds
        return 0

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None:
            self._settle()  # else the program may have failed before it dealt with what it took last
        self.board.leave()
        self.session.bye()
        self.connection.flush()
        await self._close()

    async def aclose(self) -> None:
        """Leave, for programs that cannot use ``async with``."""
        await self.__aexit__(None)

    async def _close(self) -> None:
        self.events.end()
        try:
            await self.connection.aclose()
        finally:
            if self._outbox is not None:
                self._outbox.close()

    async def rename(self, nick: str) -> None:
        """Leave and come back with another nickname, and with the one we have if the host does not give it.

        Raises WrongValue for what is no nickname.
        """
        self.wanted = nickname(nick)
        self.session.rename(self.wanted)
        await self.connection.rejoin(Text("joining again, as {nick}", nick=self.wanted))

    def joined_as(self, nick: str) -> None:
        """Keep a nickname that we asked for later for this key: ``chat join --as`` looks for its outbox."""
        if self._outboxes is not None and self.nick != nick == self.wanted and self.session.stream:
            with suppress(StoreFull):
                make_private(self._folder(self.host_key, nick))

    def _folder(self, host_key: bytes, nick: str) -> Path:
        assert self._outboxes is not None
        host, key, room = host_hash(host_key), self.session.key, self.session.room
        return outbox_folder(self._outboxes, host=host, key=key, room=room, nick=nick)

    def direct(self, other: bytes) -> Client:
        """Return another client, not connected yet: of the direct room that we share with this key."""
        return Client(
            lambda: self.locate().direct(self.session.key, other),
            self.identity,
            self.known_hosts,
            outboxes=self._outboxes,
            nick=self.nick,
            history=50,
            looks=self._looks,
        )

    # -- what happens ----------------------------------------------------------------------------

    async def next_events(self) -> list[ClientEvent]:
        """Wait for events and return all there are; asking again says that the last ones have been dealt with.

        Returns nothing once the client is closed. Raises what ended it (Refused, RemoteProtocolError).
        """
        self._settle()
        await self.events.wait()
        return self.take()

    async def soon(self) -> list[ClientEvent]:
        """Return the next events like ``next_events``. Raises LinkBroken if there are none for 15 s."""
        try:
            async with asyncio.timeout(queries.PATIENCE):
                return await self.next_events()
        except TimeoutError:
            raise LinkBroken("the host has sent nothing for {seconds:g} s", seconds=queries.PATIENCE) from None

    def take(self) -> list[ClientEvent]:
        """Return the events that are here now, perhaps none; the last ones have been dealt with."""
        self._settle()
        events = self.events.take()
        self._taken = [event for event in events if isinstance(event, Stored | Rejected)]
        silent = [one for one in self._taken if isinstance(one, Rejected) and one.code in _SILENT]
        if silent and self._outbox is not None:
            with suppress(OSError):  # its text is in the event, too
                paths = [self._outbox.keep(event.entry) for event in silent]
                events.append(LocalNotice(code="unsent", fields={"path": str(paths[0])}))
        return events

    async def __aiter__(self) -> AsyncIterator[ClientEvent]:
        while events := await self.next_events():
            for event in events:
                yield event

    # -- what we say and ask ---------------------------------------------------------------------

    async def say(self, message: Outgoing | str, *, waits: bool = True) -> OutboxEntry:
        """Put a message into the outbox, and on the wire as soon as there is one. A string is an ordinary message.

        Waits while 1,024 are unsettled; take the events meanwhile, since with 4,096 not taken nothing more is read,
        not even the echoes. Waits, too, while our own disk takes nothing, after a notice; StoreFull without ``waits``.
        Raises LocalProtocolError for more than 16 KiB, and what ended the client.
        """
        if isinstance(message, str):
            message = Outgoing(message)
        while len(self.session.unsettled) >= WINDOW:
            await self.events.changed()
        entry = await (self._keep_in_turn(message) if waits else self._keep(message))
        self.session.say(entry)
        self.connection.flush_soon()
        return entry

    def withdraw(self, entry: OutboxEntry) -> bool:
        """Take an entry out of the outbox again, if it is the last one and was never sent. Return whether it was."""
        if not self.session.withdraw(entry):
            return False
        assert self._outbox is not None
        self._outbox.drop_last()
        return True

    async def _keep_in_turn(self, message: Outgoing) -> OutboxEntry:
        self._waiting.append(message)
        try:
            while True:
                if self._waiting[0] is message:
                    try:
                        return await self._keep(message)
                    except StoreFull as error:
                        self._own_disk(error)
                await asyncio.sleep(_RETRY)
        except asyncio.CancelledError:
            self.unkept.append(message.text)
            raise
        finally:
            self._waiting.remove(message)

    async def _keep(self, message: Outgoing) -> OutboxEntry:
        """Put a message into the outbox. Raises StoreFull if our own disk takes nothing now."""
        self.events.check()
        if self._outboxes is None:
            raise LocalProtocolError("this client only reads; give it a folder for outboxes to speak")
        if self._outbox is None:
            assert self._outbox_folder is not None
            self._outbox = Outbox.open(self._outbox_folder)
            await self.connection.rejoin(Text("joining again, to send what waited for your disk"))
        while not self.session.stream:
            await self.events.changed()
        entry = self.session.number(message)
        self._outbox.add(entry)
        self._told = False
        return entry

    def _own_disk(self, error: StoreFull) -> None:
        if not self._told:
            self._told = True
            self.events.put(LocalNotice(code="own-disk", fields={"why": str(error.words.fields["why"])}))

    async def settled(self) -> None:
        """Return when everything said is on the host's disk. Raises what ended the client."""
        while self.session.unsettled:
            await self.events.changed()

    async def ask(self, ask: Ask) -> Answer:
        """Put a question to the host. Raises LinkBroken when there is no link, or when it is lost before the answer."""
        self.events.check()
        return await self.queries.ask(ask)

    async def range(
        self, first: int, before: int, reached: Callable[[int], None] = lambda _seq: None
    ) -> list[Message | Gap]:
        """Return what the log holds from number ``first`` up to and without ``before``; a gap may go beyond.

        Messages that we receive meanwhile are not delayed by it. ``reached`` is called as more comes in, with the
        first number that has not. Raises ChatError, LinkBroken.
        """
        self.events.check()
        return await self.queries.range(first, before, reached)

    def open_outbox(self, host_key: bytes) -> Outbox | None:
        """Take over an outbox for this host, room, key and nickname; None for a client that only reads."""
        if self._outbox is None and self._outboxes is not None:
            self._outbox_folder = self._folder(host_key, self.nick)
            try:
                self._outbox = Outbox.open(self._outbox_folder)
            except StoreFull as error:  # reading needs none
                self._own_disk(error)
                return None
            self.pending = [entry.id for entry in self._outbox.unsettled() if entry.id]
            if self._outbox.warning:
                self.events.put(LocalNotice(code="outbox", fields=wire_fields(self._outbox.warning.fields)))
        return self._outbox

    def renumbered(self) -> None:
        """Write the outbox anew, before anything with the new numbers is sent."""
        if self._outbox is not None:
            self._outbox.rewrite(self.session.unsettled)

    def _settle(self) -> None:
        if self._outbox is not None:
            for event in self._taken:  # one by one: a host that went back makes numbers begin again among them
                self._outbox.settle(event.entry.number)
        self._taken = []

    # -- status ----------------------------------------------------------------------------------

    @property
    def shows(self) -> status.Status:
        """What we show of ourselves."""
        return self.board.shows

    def show(self, **changes: Any) -> None:
        """Show something else: fields of ``Status``. Raises ValueError for a note that is too long."""
        self.board.show(**changes)

    def people(self) -> dict[status.Who, status.Status]:
        """Return who is in the room, in the order in which they came, and what each shows. Sends nothing."""
        return self.board.people()
