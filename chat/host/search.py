"""Full-text search over a room's log: an index beside it that follows the log and can be rebuilt from it at any time.

    log:    | batch | batch | batch | 191 |             loop:    log.read(next) -> pieces of about 64 KiB
                       ^                                  |                              |
                   the index (one more reader)            v                              v
    search.db:  (number, revision) -> words             thread:  one transaction each, or one query

Rules:

1. Nobody waits for the index. Commits wake it; it waits a moment so that more gathers, then reads on from where it
   was. A query first catches up, as far as that is quick.
2. An index that does not fit is deleted and rebuilt: another epoch, a log that went back, another layout, damage.
   So its commits need no fsync (``synchronous=NORMAL``: a power cut costs the newest rows).
3. The database belongs to one thread. Each job there is small, so that queries, closing and the loop, which shares
   the interpreter with the thread, never wait long.
4. People search what they see: the text after ``text.visible``, without case, accents and width.
5. An edit replaces its message's words and a retraction removes them, only by the author's own key. The log's bytes
   stay, and so do stale words: see ``_SCHEMA``.
6. No part of a query is FTS5 syntax: the words in it reach SQLite as letters between quotes.

Chinese, Japanese, Thai and others put no spaces between words, and FTS5's trigrams cannot find words of one or two
characters, which most Chinese words are. So a run of such characters becomes overlapping pairs, and its last
character stands alone::

    text:   我喜欢北京 -> 我喜 喜欢 欢北 北京 京
    query:  北京 -> "北京"    喜欢北 -> "喜欢 欢北"    欢 -> any term that begins with 欢

Texts are split here, and FTS5's ``ascii`` tokenizer only splits at spaces: ``unicode61`` knows the letters of
Unicode 6.1 (2012), takes an emoji for a space, and treats accents differently from version to version.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import time
import unicodedata
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from chat.core.bodies import Author, Gap, Moderation, unpack
from chat.core.errors import ChatError, RemoteProtocolError, RequestFailed
from chat.core.log import digest
from chat.core.outgoing import split_body
from chat.core.text import visible
from chat.core.wire import MAX_BATCH, Kind, split
from chat.host import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from chat.core.log import Batch, Log
    from chat.core.wire import Frame

_logger: Final = logging.getLogger("chat.host.search")

MAX_QUERY: Final = 1000  # characters of one search; a longer one is refused: ``search-long``
# words and phrases of one search, each may cost a walk over the whole index; more are refused: ``search-words``
MAX_WORDS: Final = 16
# messages in one answer to a search, which must fit one control frame; chat search -n takes no more (exit code 2)
MAX_HITS: Final = 100
_GATHER: Final = 1.0  # seconds from being woken to reading on: few large transactions cost far less than many
_CATCH_UP: Final = 16  # pieces of the log that a query reads first: about 1 MiB, a few tenths of a second
MAX_OPEN: Final = 8  # indexes that a host has open at a time, of 3 descriptors each; the one used longest ago is closed
_IDLE: Final = 300.0  # seconds without a message or a query after which the file is closed
_AGAIN: Final = 10.0  # seconds between tries while the disk is full
_POLITE: Final = 4  # a pause while people talk, as a multiple of the work before it

_LAYOUT: Final = f"1, Unicode {unicodedata.unidata_version}"  # raise the number with any change of what is stored

# A row of ``words`` is number << 15 | revision, so FTS5 returns hits newest first by itself. It keeps no text
# (content='') and so cannot delete a row without being given its words again. (contentless_delete needs SQLite 3.43
# of 2023.) Instead, a row counts only while ``messages`` has its number with its revision. ``shown``: the frame with
# the text, NULL for the first.
_REVISION_BITS: Final = 15
_SCHEMA: Final = """
BEGIN;
CREATE VIRTUAL TABLE words USING fts5(nick, text, content='', columnsize=0, tokenize='ascii');
CREATE TABLE messages (seq INTEGER PRIMARY KEY, author INTEGER, revision INTEGER, shown INTEGER);
CREATE TABLE authors (id INTEGER PRIMARY KEY, key BLOB, nick TEXT);
CREATE TABLE place (layout TEXT, epoch BLOB, next_seq INTEGER, last BLOB);
COMMIT;
"""
_STATEMENTS: Final = {line.rstrip(";") for line in _SCHEMA.splitlines() if line.startswith("CREATE")}
# What an index has besides these and FTS5's own tables was made by somebody else: a trigger, a view.
_SHAPE: Final = """
SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND (type != 'table' OR name NOT LIKE 'words^_%' ESCAPE '^')
"""
_FIND: Final = """
SELECT seq, coalesce(shown, seq) FROM words
CROSS JOIN messages ON seq = words.rowid >> 15 AND revision = (words.rowid & 32767)
WHERE words MATCH ? AND words.rowid < ? ORDER BY words.rowid DESC LIMIT ?
"""
_TOP: Final = (1 << 48) - 1  # no store holds a number above it

# Trouble with the disk that may pass. Any other error of SQLite's means damage.
_PASSING_NAMES: Final = ("FULL", "IOERR", "CANTOPEN", "READONLY", "PERM", "NOMEM", "BUSY", "INTERRUPT")
_PASSING: Final = {getattr(sqlite3, f"SQLITE_{name}") for name in _PASSING_NAMES}
_T = TypeVar("_T")


class SearchError(RequestFailed):
    """A query for nothing, or an index that cannot be used now."""


class Found(NamedTuple):
    """``more``: there are older ones. ``indexed``: numbers below this were searched."""

    hits: list[tuple[int, int]]  # a message's number, and that of the frame with its text now, its own or an edit's
    more: bool
    indexed: int


# -- words ------------------------------------------------------------------------------------------

# Scripts without spaces between words, or (Korean) with endings attached to them; and pictures, each a word.
_UNSPACED: Final = re.compile(
    "["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u1100-\u11ff\u3005-\u3007\u3041-\u318f\u31a0-\u31ff\ua960-\ua97f\uac00-\ud7ff"  # kana, Bopomofo, Hangul
    "\u2e80-\u2fdf\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u2190-\u21ff\u2300-\u23ff\u25a0-\u25cb\u25cd-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"  # arrows to emoji
    "]+"
)
# Marks that people leave out: accents, Hebrew points, Arabic vowels, keycaps. Those of India make other words.
_OPTIONAL: Final = ((0x300, 0x36F), (0x591, 0x5C7), (0x64B, 0x65F), (0x20D0, 0x20FF))
_ACCENTS: Final = {
    code: None for first, last in _OPTIONAL for code in range(first, last + 1) if unicodedata.combining(chr(code))
}
_TERM: Final = re.compile(r"[0-9A-Za-z\x80-\U0010ffff]+")  # as FTS5's ascii tokenizer sees it


class _Letters(dict[int, str]):
    """For ``str.translate``: keeps letters, digits, marks and pictures, and makes anything else a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kept = char.isalnum() or unicodedata.category(char)[0] == "M" or _UNSPACED.match(char)
        return self.setdefault(code, char if kept else " ")


_LETTERS: Final = _Letters({0x200D: "", 0xFE0F: ""})  # ZWJ, VS16: an emoji is found by its parts


def cut(text: str) -> str:
    """Return ``text`` as terms, separated by ASCII characters that are neither letter nor digit."""
    if text.isascii():
        return text
    # Visible first: to normalise a long run of marks takes quadratic time.
    text = unicodedata.normalize("NFKD", visible(text)).translate(_ACCENTS).casefold()
    text = unicodedata.normalize("NFC", text).translate(_LETTERS)  # NFC: kana with their marks, Hangul syllables
    return _UNSPACED.sub(_pairs, text)


def _pairs(run: re.Match[str]) -> str:
    chars = run[0]
    return f" {' '.join(map(''.join, pairwise(chars)))} {chars[-1]} "


def _nick_term(nick: str) -> str:
    """Return a nickname in any script as one term."""
    return unicodedata.normalize("NFKC", nick).casefold().encode("utf-8", "replace").hex()


# -- queries ----------------------------------------------------------------------------------------

# A minus, from:, then a phrase in quotes (the last may lack its end) or a word.
_PART: Final = re.compile(r'(-?)(from:)?(?:"([^"]*)(?:"|$)|([^\s"]+))')


def expression(query: str) -> str:
    """Translate a query for FTS5. Raises SearchError if it asks for nothing, or too much.

    It finds messages with every word, every ``"phrase"`` and the sender ``from:NICK``, and none of these after ``-``.
    """
    if len(query) > MAX_QUERY:
        raise SearchError("search-long", count=len(query), limit=MAX_QUERY)
    wanted: list[str] = []
    unwanted: list[str] = []
    for minus, sender, phrase, word in _PART.findall(query):
        term = phrase or word
        if match := f'nick : "{_nick_term(term)}"' if sender and term else _phrase(term):
            (unwanted if minus else wanted).append(match)
    if len(wanted) + len(unwanted) > MAX_WORDS:
        raise SearchError("search-words", count=len(wanted) + len(unwanted), limit=MAX_WORDS)
    if not wanted:
        raise SearchError("search-minus" if unwanted else "search-empty")
    return " NOT ".join([" AND ".join(wanted), *unwanted])


def _phrase(text: str) -> str:
    """Return the terms of a text as a phrase, ``""`` if it has none."""
    terms = _TERM.findall(cut(text))
    if not terms:
        return ""
    star = ""
    if _UNSPACED.match(terms[-1]):  # its last character: in the text, another may follow and make a pair with it
        if len(terms) > 1 and len(terms[-2]) == 2 and terms[-2][1] == terms[-1] and _UNSPACED.match(terms[-2]):
            terms.pop()  # the pair before it says so already
        else:
            star = " *"
    return f'text : "{" ".join(terms)}"{star}'


# -- the index --------------------------------------------------------------------------------------


class OpenIndexes:
    """The few indexes of one host that are open, the one that was used longest ago first.

    They take turns: so nobody closes the database of one that is at work.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._open: list[Index] = []

    def used(self, index: Index) -> Index | None:
        """Take note of an index that is used. Return one that must be closed for it, if there are too many."""
        self.closed(index)
        self._open.append(index)
        return self._open.pop(0) if len(self._open) > MAX_OPEN else None

    def closed(self, index: Index) -> None:
        if index in self._open:
            self._open.remove(index)


class Index:
    """The index of one log, in a file of its own. It is used in the loop; ``thread``, for any number, does the work.

    ``others`` are all the indexes of a host that use the thread, which is a single one.
    """

    def __init__(self, path: Path, log: Log, thread: ThreadPoolExecutor, others: OpenIndexes | None = None) -> None:
        self._path = path
        self._log = log
        self._thread = thread
        self._others = others or OpenIndexes()
        self._database: sqlite3.Connection | None = None
        self._authors: dict[int, tuple[bytes, str]] = {}  # by index: key, nickname's term
        self._next = 0  # the number to read next; 0 while no database is open that fits
        self._off: SearchError | None = None  # why there is no search any more
        self._mended = False
        self._turn = self._others.turn
        self._woken = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Read on soon: there is more in the log."""
        self._woken.set()
        if self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    async def find(self, query: str, *, before: int = 0, limit: int = 20) -> Found:
        """Return the newest matches first, numbered below ``before`` unless it is 0. Raises SearchError, StoreError."""
        match = expression(query)
        try:
            for _ in range(_CATCH_UP):
                if not await self._step():
                    break
        except ChatError:
            if not self._next:
                raise
            # The disk may be full: what was indexed before can be searched all the same.
        self.wake()  # to go on with the rest, and to close the file once it is idle
        below = min(before, _TOP) if before > 0 else _TOP
        limit = max(1, min(limit, MAX_HITS))
        async with self._turn:
            await self._get_ready()
            indexed = self._next
            rows = await self._do(self._select, match, below << _REVISION_BITS, limit + 1)
        return Found(rows[:limit], len(rows) > limit, indexed)

    async def aclose(self) -> None:
        """Stop after the current piece, and close the database. Idempotent."""
        if self._off is not None and self._off.code == "search-closed":
            return
        self._off = SearchError("search-closed")
        self._others.closed(self)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        if (database := self._database) is not None:
            with suppress(sqlite3.ProgrammingError):  # closed just now, in the thread
                database.interrupt()  # a long query; the only method that may be called from this thread
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    async def _follow(self) -> None:
        told = ""
        while True:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE):
                        await self._woken.wait()
                if not self._woken.is_set():
                    async with self._turn:
                        self._others.closed(self)
                        await self._do(self._close)
                    await self._woken.wait()
                self._woken.clear()
                end, began = self._log.end, time.monotonic()
                while await self._step():
                    if self._log.end != end:  # people talk, and the thread takes the interpreter and a core from them
                        await asyncio.sleep(_POLITE * (time.monotonic() - began))
                    end, began = self._log.end, time.monotonic()
                told = ""
                await asyncio.sleep(_GATHER)
            except ChatError as error:
                if str(error) != told:
                    told = str(error)
                    _logger.warning("%s", told)
                if self._off is not None:
                    return
                await asyncio.sleep(_AGAIN)
                self._woken.set()

    async def _step(self) -> bool:
        """Read on by one piece; return False if there is none. Raises SearchError, StoreError."""
        async with self._turn:
            await self._get_ready()
            pieces: list[Batch | Gap] = []  # about as much as one batch holds
            seq, size = self._next, 0
            while size < MAX_BATCH // 2 and (piece := self._log.read(seq)) is not None:
                pieces.append(piece)
                if isinstance(piece, Gap):
                    seq = piece.first + piece.count
                else:
                    seq = piece.next_seq
                    size += len(piece.data)
            if pieces:
                await self._do(self._take, pieces)
            return bool(pieces)

    async def _get_ready(self) -> None:
        """Open the database unless it is open; rebuild it unless it is an index of this log's past."""
        if self._off is None and (oldest := self._others.used(self)) is not None:
            await self._do(oldest._close)
        if self._next:
            return
        match await self._do(self._open):  # from a damaged file anything may come
            case (layout, epoch, int(next_seq), last) if (layout, epoch) == (_LAYOUT, self._log.epoch):
                frame = self._log.frame_at(next_seq - 1) if 0 < next_seq <= self._log.end else b"another log"
                if last == (digest(frame) if frame else b""):
                    self._next = next_seq
                    return
        await self._do(self._begin_anew)

    async def _do(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Have the thread do something. Raises SearchError, after deleting a damaged database."""
        if self._off is not None:
            raise self._off.with_traceback(None)
        run = asyncio.get_running_loop().run_in_executor
        try:
            return await run(self._thread, work, *arguments)
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError) or _code(error) in _PASSING:
                raise SearchError("search-unusable", why=error) from None
            await run(self._thread, self._throw_away)
            if "no such module" in str(error):
                self._off = SearchError("search-missing")
            elif self._mended:
                self._off = SearchError("search-damaged", why=error)
            else:
                self._mended = True
                self.wake()
                raise SearchError("search-rebuilt", why=error) from None
            raise self._off from None
        except RemoteProtocolError as error:  # frames that no host has made, in a log from somebody else
            self._off = SearchError("search-damaged", why=error)
            raise self._off from None
        except Exception:
            # A bug of ours must cost the search, but not the room.
            self._off = SearchError("search-fault")
            _logger.exception("the search has failed because of a bug in this program; please report it")
            raise self._off from None

    # -- in the thread ---------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        self._close()
        self._database = schema.connect(self._path)
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "mmap_size = 0", "journal_size_limit = 8388608"):
            self._database.execute(f"PRAGMA {setting}")
        return self._database

    def _open(self) -> Any:
        """Open the database; return how far it had come, None if it cannot be understood."""
        try:
            execute = self._connect().execute
            if {text for (text,) in execute(_SHAPE)} - _STATEMENTS:
                return None
            self._authors = {index: (key, term) for index, key, term in execute("SELECT id, key, nick FROM authors")}
            return execute("SELECT layout, epoch, next_seq, last FROM place").fetchone()
        except sqlite3.Error as error:
            if _code(error) in _PASSING:
                raise
            return None

    def _begin_anew(self) -> None:
        self._throw_away()
        database = self._connect()
        database.executescript(_SCHEMA)
        database.execute("INSERT INTO place VALUES (?, ?, 1, x'')", (_LAYOUT, self._log.epoch))
        self._next = 1

    def _throw_away(self) -> None:
        self._close()
        for suffix in ("", "-wal", "-shm"):  # the journal too: SQLite would play it into the new file
            with suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()

    def _close(self) -> None:
        database, self._database = self._database, None
        self._next, self._authors = 0, {}
        if database is not None:
            with suppress(sqlite3.Error):
                # close() would do this, unless the interrupt of a query has stopped it.
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with suppress(sqlite3.Error):
                database.close()

    def _select(self, match: str, below: int, limit: int) -> list[tuple[int, int]]:
        assert self._database is not None
        return self._database.execute(_FIND, (match, below, limit)).fetchall()

    def _take(self, pieces: Iterable[Batch | Gap]) -> None:
        """Index what is new in these, in one transaction."""
        assert self._database is not None
        seq, last = self._next, b""
        with self._database as database:  # which commits, or rolls back
            database.execute("BEGIN")
            for piece in pieces:
                if isinstance(piece, Gap):
                    seq, last = max(seq, piece.first + piece.count), b""
                    continue
                for frame in split(piece.data):
                    if frame.seq >= seq:
                        self._index(database, frame)
                        seq, last = frame.seq + 1, frame.raw
            if seq > self._next:
                place = (seq, digest(last) if last else b"")
                database.execute("UPDATE place SET next_seq = ?, last = ?", place)
        self._next = seq

    def _index(self, database: sqlite3.Connection, frame: Frame) -> None:
        if frame.kind == Kind.AUTHOR:
            author = unpack(Author, frame)
            self._authors[author.index] = author.key, _nick_term(author.nick)
            row = (author.index, *self._authors[author.index])
            database.execute("INSERT OR REPLACE INTO authors VALUES (?, ?, ?)", row)
        elif frame.kind == Kind.MODERATION:
            decision = unpack(Moderation, frame)
            if decision.action == "retract" and decision.target < frame.seq:
                database.execute("DELETE FROM messages WHERE seq = ?", (decision.target,))
        elif frame.kind in (Kind.SAY, Kind.ACTION):
            self._add(database, frame, frame.seq, 0, split_body(frame.kind, frame.flags, frame.body)[0])
            database.execute("INSERT INTO messages VALUES (?, ?, 0, NULL)", (frame.seq, frame.author))
        elif frame.kind in (Kind.EDIT, Kind.RETRACT):
            text, target = split_body(frame.kind, frame.flags, frame.body)
            if target >= frame.seq:  # no such message yet; and the number may be too large for SQLite
                return
            query = "SELECT author, revision + 1 FROM messages WHERE seq = ?"
            author_index, revision = database.execute(query, (target,)).fetchone() or (0, 0)
            if not revision or not self._is_same(author_index, frame.author):
                return
            if revision == 1 << _REVISION_BITS:
                database.execute("DELETE FROM messages WHERE seq = ?", (target,))
                return
            if frame.kind == Kind.EDIT:  # a retraction is a revision without words: an edit brings the message back
                self._add(database, frame, target, revision, text)
            database.execute("UPDATE messages SET revision = ?, shown = ? WHERE seq = ?", (revision, frame.seq, target))

    def _add(self, database: sqlite3.Connection, frame: Frame, seq: int, revision: int, text: str) -> None:
        _, nick = self._authors.get(frame.author, (b"", ""))
        row = (seq << _REVISION_BITS | revision, nick, cut(text))
        database.execute("INSERT INTO words (rowid, nick, text) VALUES (?, ?, ?)", row)

    def _is_same(self, one: int, other: int) -> bool:
        """Return whether two author indexes belong to one key: each process of a member has its own index."""
        key, _ = self._authors.get(one, (b"", ""))
        return one == other or (key != b"" and key == self._authors.get(other, (b"", ""))[0])


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary error code; one that Python itself raises counts as an error of the database."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
