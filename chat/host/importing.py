"""A new room made of messages that were exported from another one, one JSON object a line.

Rules:

1. The messages become a log by the rules of every room: they are submitted, numbered and chained.
2. Whoever is named in the file as an author keeps the nickname, but does not become a member by it.
3. The room is there once all of it is, or not at all.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from chat.core import text
from chat.core.bodies import U63
from chat.core.errors import ChatError, LocalProtocolError, WrongValue
from chat.core.ledger import Ledger
from chat.core.log import Log
from chat.core.outgoing import Outgoing
from chat.core.sequencer import Append, ClaimNick
from chat.core.wire import MAX_TEXT, SPOKEN_END, TARGETED, YEAR_9999, Kind, encode, split
from chat.host.backup import replace_database, verify, workplace
from chat.host.store import Store
from chat.local.descriptors import BOM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chat.core.sequencer import Submission

# bytes of a line of an import, JSON may need 6 for one of a message; a longer one is no message (exit code 1)
_LIMIT: Final = 6 * MAX_TEXT + 4096
_AT_ONCE: Final = 500  # messages in one commit
_STREAM: Final = 1  # the stream of each author: windows draw theirs at random, of 64 bits
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {kind.name.lower(): kind.value for kind in Kind if kind < SPOKEN_END}
_OTHER_KINDS: Final = {f"kind-{kind}": kind for kind in range(1, SPOKEN_END)}


class Imported(NamedTuple):
    messages: int
    left_out: int  # edits, retractions and reactions whose message is not in the file


class _Message(msgspec.Struct):
    """A line of the file, as ``chat.ndjson.message_object`` makes it."""

    seq: U63
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    nick: str
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    kind: str
    text: str = ""
    target: U63 = 0
    bot: bool = False


def import_messages(file: Path, folder: Path, name: str, report: Callable[[int, int], None]) -> Imported:
    """Make the room ``name`` in ``folder``. ``report`` is told how many bytes are read, of how many.

    Raises ChatError for a line that is no message or a room that exists, StoreError, OSError.
    """
    with _gone_if_empty(folder), workplace(folder, "import-") as made:
        if (folder / "log.db").exists():
            raise ChatError("room {room!r} exists; choose another name", room=name)
        with closing(Store(made)) as store:
            room = _Room(store, name)
            size = file.stat().st_size
            for number, line, read in _lines(file):
                try:
                    room.add(line)
                except (LocalProtocolError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                    why = getattr(error, "words", str(error))
                    raise ChatError(
                        "line {number} of {path} is no message: {why}", number=number, path=file, why=why
                    ) from None
                report(read, size)
            room.flush()
        verify(made / "log.db")
        replace_database(folder, made / "log.db", made / "log.mark")
        return Imported(room.messages, room.left_out)


@contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Leave no folder of a room that was not made."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds something
            folder.rmdir()
        raise


def _lines(file: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yield each line, its number, and how many bytes are read."""
    read = 0
    with file.open("rb") as lines:
        number = 1
        while line := lines.readline(_LIMIT):
            read += len(line)
            if (line := line.removeprefix(BOM)).strip():
                yield number, line, read
            number += 1


class _Room:
    """The log that is being made."""

    def __init__(self, store: Store, name: str) -> None:
        self.messages = 0
        self.left_out = 0
        self._store = store
        self._state = store.open_room(name)
        self._log = Log(self._state.epoch)
        self._ledger = Ledger(self._log, self._state.tables)
        self._numbers: dict[bytes, int] = {}  # how far each author's stream has come
        self._nicks: set[tuple[bytes, str]] = set()
        self._seqs: dict[int, int] = {}  # a message's number in the file: here
        self._submissions: list[Submission] = []
        self._waiting: list[int] = []  # the numbers in the file of messages that are not numbered yet

    def add(self, line: bytes) -> None:
        """Take one line; what is no message, such as a gap, is passed over. Raises WrongValue, MsgspecError."""
        found = msgspec.json.decode(line)
        if not isinstance(found, dict) or "event" not in found:
            raise WrongValue("it is no object with an event; export with --format ndjson")
        if found["event"] == "message":
            self._say(msgspec.convert(found, _Message))

    def _say(self, message: _Message) -> None:
        kind = (_KINDS | _OTHER_KINDS).get(message.kind)
        time = (message.time - _EPOCH).total_seconds() * 1000
        if kind is None or not 0 <= time < YEAR_9999:
            raise WrongValue("no message has kind {kind} and time {time}", kind=message.kind, time=str(message.time))
        nick, key = text.nickname(message.nick), bytes.fromhex(message.key)
        if message.target in self._waiting:
            self.flush()
        target = self._seqs.get(message.target, 0)  # a reply loses it, anything else makes no sense without
        if kind in TARGETED and not target:
            self.left_out += 1
            return
        out = Outgoing(message.text, kind, target)
        if (key, nick) not in self._nicks:
            self._nicks.add((key, nick))
            self._submissions.append(ClaimNick(key, nick, text.skeleton(nick)))
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        frame = encode(kind, out.body, number=number, flags=out.flags)
        self._submissions.append(Append(key, _STREAM, nick, message.bot, number, round(time), frame, [len(frame)]))
        self._waiting.append(message.seq)
        self.messages += 1
        if len(self._waiting) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Number and store what waits."""
        self._ledger.apply(self._submissions)
        batches = self._log.seal()
        self._store.commit(self._state.id, batches, self._ledger.take_changes())
        said = (frame.seq for batch in batches for frame in split(batch.data) if frame.kind < SPOKEN_END)
        self._seqs.update(zip(self._waiting, said, strict=True))
        self._log.publish(batches)
        self._submissions, self._waiting = [], []
