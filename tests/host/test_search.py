"""The search index: real SQLite files and threads, files that are damaged, processes that are killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from chat.core.bodies import Author, Gap
from chat.core.log import Batch, Log
from chat.core.wire import REPLY, SEQ_PREFIX, Kind
from chat.host import search
from chat.host.search import Found, Index, SearchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

ROOT = Path(__file__).parents[2]
BOUND = 20.0  # seconds; it is there for a hang
_T = TypeVar("_T")


class Book:
    """A log, and who says something in it: a member by its author index."""

    def __init__(self, *, epoch: bytes = b"an epoch", gaps: tuple[Gap, ...] = (), window: int = 1 << 30) -> None:
        self.batches: list[Batch] = []
        self.gaps = gaps
        self.reads = 0
        self.log = Log(epoch, older=self.older, window=window)

    def older(self, seq: int) -> Batch | Gap | None:
        self.reads += 1
        for gap in self.gaps:
            if gap.first <= seq < gap.first + gap.count:
                return Gap(first=seq, count=gap.first + gap.count - seq)
        return next((batch for batch in self.batches if batch.first <= seq < batch.next_seq), None)

    def publish(self) -> None:
        batches = self.log.seal()
        self.batches += batches
        self.log.publish(batches)

    def author(self, index: int, nick: str, key: bytes) -> int:
        body = msgspec.msgpack.encode(Author(index=index, key=key, stream=index, nick=nick))
        seq = self.log.append(Kind.AUTHOR, body, time=0, author=index)
        self.publish()
        return seq

    def say(self, text: str, author: int = 1, *, kind: int = Kind.SAY, target: int | None = None) -> int:
        body = (b"" if target is None else SEQ_PREFIX.pack(target)) + text.encode()
        flags = REPLY if kind == Kind.SAY and target is not None else 0
        seq = self.log.append(kind, body, time=0, author=author, flags=flags)
        self.publish()
        return seq


def run(scene: Coroutine[Any, Any, _T]) -> _T:
    """Run a test's coroutine, which must leave no task behind."""

    async def bounded() -> _T:
        async with asyncio.timeout(BOUND):
            result = await scene
        assert len(asyncio.all_tasks()) == 1
        return result

    return asyncio.run(bounded())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "search.db"


@pytest.fixture
def book() -> Book:
    """A log with ann (who speaks as two authors: two processes of hers) and bob."""
    book = Book()
    book.author(1, "ann", b"a" * 32)
    book.author(2, "Bob", b"b" * 32)
    book.author(3, "ann", b"a" * 32)
    return book


@asynccontextmanager
async def opened(path: Path, log: Log) -> AsyncIterator[Index]:
    with ThreadPoolExecutor(1) as thread:
        index = Index(path, log, thread)
        try:
            yield index
        finally:
            await index.aclose()


async def numbers(path: Path, log: Log, *queries: str, **more: int) -> list[list[int]]:
    async with opened(path, log) as index:
        return [[seq for seq, _ in (await index.find(query, **more)).hits] for query in queries]


def found(path: Path, log: Log, *queries: str, **more: int) -> list[list[int]]:
    """The numbers that each query finds, newest first."""
    return run(numbers(path, log, *queries, **more))


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


pytestmark = pytest.mark.usefixtures("leaves_nothing")


# -- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finds", "misses"),
    [
        (
            "The deploy is done",
            ["deploy", "DEPLOY", "done the", '"is done"', '"the deploy is done"'],
            ["deploys", "dep"],
        ),
        ("see chat/core/log.py, please", ["log.py", "chat/core/log.py", "py", "log py"], ["log-py2"]),
        ("it's 3.11, not 3.12!", ["3.11", "it's", "-absent 3.12"], ["3.13", '"3.11 3.12"']),
        ("line one\nline two", ['"one line"', "two"], ["three"]),
        ("Crème brûlée à Genève", ["creme", "BRÛLÉE", "geneve", "Cre\u0300me"], ["brulees"]),
        ("Straße nach Łódź, ΣΊΣΥΦΟΣ", ["STRASSE", "łódź", "σισυφοσ", "σίσυφος"], ["stras"]),
        ("ёлка и Йод", ["елка", "ЁЛКА", "иод"], ["елк"]),
        ("\uff46\uff55\uff4c\uff4c \uff37idth ①", ["full", "width", "1"], ["ful"]),
        (
            "我喜欢北京的冬天",
            ["北京", "京", "我", "天", "喜欢北京", "冬天", "欢北", '"北京"'],
            ["南京", "京北", "喜北", "猫"],
        ),
        ("北", ["北"], ["北京", "京"]),
        ("昨日は東京タワーへ行った", ["東京", "タワー", "タ", "行った", "へ", "東", "は東"], ["京都", "大阪", "ワタ"]),
        ("ﾊﾟｿｺﾝが壊れた", ["パソコン", "パ", "が"], ["ハ", "か"]),
        ("서울에서 만나요", ["서울", "서", "서울에서", "만나", "요"], ["부산", "울서"]),
        ("用Python写的bot真好", ["python", "写的", "Python写", "用python", "bot真好", '"的bot"'], ["写bot", "用写"]),
        ("小明 你好吗", ["小明 你好", '"小明 你好"', '"明 你"', "好吗 小明"], ['"小明 好"', "明你"]),
        ("สวัสดีชาวโลก", ["โลก", "สวัสดี", "ชาวโลก"], ["ลาว"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"], ["नमसत"]),
        ("שָׁלוֹם עוֹלָם", ["שלום", "עולם"], ["של"]),
        ("مُحَمَّد هنا", ["محمد"], ["حمد"]),
        (
            "party 🎉🎉 tonight 👩‍🚀 🥳!",
            ["🎉", "🎉🎉", "👩‍🚀", "👩🚀", "🥳", "party 🎉", "👩", '"🎉 tonight"'],
            ["🎈", "🎉🎉🎉"],
        ),
        ("I \u2764 NY", ["\u2764\ufe0f", "\u2764"], ["\u2763"]),
        ("nul\x00in the middle", ["nul", "middle", "in"], ["nulin"]),
        ("zero\u200bwidth, soft\u00adhyphen é", ["zerowidth", "softhyphen"], ["zero"]),
        ("𠮷野家で 𠮷", ["𠮷野家", "𠮷", "野"], ["吉野家"]),
    ],
)
def test_a_text_is_found_by_its_words_and_by_no_others(
    path: Path, text: str, finds: list[str], misses: list[str]
) -> None:
    book = Book()
    book.say("something else altogether")
    seq = book.say(text)
    hits = dict(zip(finds + misses, found(path, book.log, *finds, *misses), strict=True))
    assert hits == {query: [seq] for query in finds} | {query: [] for query in misses}


def test_words_are_all_to_be_there_and_a_minus_leaves_out(path: Path, book: Book) -> None:
    one, two, three = book.say("red green"), book.say("green blue"), book.say("red blue", author=2)
    queries = {
        "green": [two, one],
        "green red": [one],
        "green -red": [two],
        "-red green -absent": [two],
        'blue -"red blue"': [two],
        "blue -from:bob": [two],
        "from:bob": [three],
        "from:BOB red": [three],
        'from:"Bob" red': [three],
        "from:ann blue": [two],
        "from:ann from:bob": [],
        "red from:bo": [],
        "from:": [],  # a word like any other
        "from": [],
        "red AND blue": [],
        "red OR green": [],
        "NEAR(red blue)": [],
        "text:red": [],
        "re*": [],
        '"red green': [one],
        'red"green"': [one],
        'red"blue" - ! ""': [three],
        "red-green": [one],
    }
    assert dict(zip(queries, found(path, book.log, *queries), strict=True)) == queries


def test_a_nickname_is_found_in_any_script_and_never_by_what_is_said(path: Path) -> None:
    book = Book()
    book.author(1, "小明Tom", b"a" * 32)
    seq = book.say("hello")
    book.author(2, "bob", b"b" * 32)
    book.say("小明Tom said from:小明Tom", author=2)
    assert found(path, book.log, "from:小明tom", "from:小明", "from:小明ＴＯＭ hello") == [[seq], [], [seq]]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "no letter and no digit; give a word"),
        (" \t\n", "no letter and no digit"),
        ('"" !!! - "..."', "no letter and no digit"),
        ("-red", "only excludes words; give a word to find"),
        ("x" * 1001, "is 1001 characters long; use at most 1000"),
        ("a " * 17, "has 17 words; use at most 16"),
        ("a" + " -b" * 16, "has 17 words; use at most 16"),
        ("\ud800\udfff\x00", "no letter and no digit"),
    ],
)
def test_a_query_that_asks_for_nothing_is_said_so_in_one_line(path: Path, book: Book, query: str, why: str) -> None:
    with pytest.raises(SearchError, match=why) as raised:
        found(path, book.log, query)
    assert "\n" not in str(raised.value)


# -- pages ------------------------------------------------------------------------------------------


def test_the_newest_come_first_and_a_page_goes_on_where_the_last_ended(path: Path, book: Book) -> None:
    said = [book.say(f"word {number}") for number in range(250)][::-1]

    async def scene() -> None:
        async with opened(path, book.log) as index:
            first = await index.find("word")
            assert first == Found([(seq, seq) for seq in said[:20]], True, book.log.end)
            second = await index.find("word", before=first.hits[-1][0], limit=30)
            assert [seq for seq, _ in second.hits] == said[20:50]
            assert len((await index.find("word", limit=10**9)).hits) == search.MAX_HITS
            assert len((await index.find("word", limit=-1)).hits) == 1
            last = await index.find("word", before=said[-2], limit=1)
            assert last == Found([(said[-1], said[-1])], False, book.log.end)
            assert (await index.find("word", before=1)).hits == []
            assert (await index.find("word", before=2**63 - 1)).hits == first.hits

    run(scene())


# -- edits ------------------------------------------------------------------------------------------


def test_an_edit_takes_the_place_of_what_was_said(path: Path, book: Book) -> None:
    async def scene() -> None:
        async with opened(path, book.log) as index:
            first = book.say("teh cat")
            later = book.say("another cat")
            assert [seq for seq, _ in (await index.find("cat")).hits] == [later, first]
            edit = book.say("the dog", author=3, kind=Kind.EDIT, target=first)  # the same key, another process
            assert (await index.find("teh")).hits == []
            assert (await index.find("cat")).hits == [(later, later)]
            assert (await index.find("dog")).hits == [(first, edit)]
            again = book.say("the cat", kind=Kind.EDIT, target=first)
            assert (await index.find("the")).hits == [(first, again)]
            assert (await index.find("cat")).hits == [(later, later), (first, again)]  # by the message's number
            assert (await index.find("dog")).hits == []

    run(scene())


def test_edits_and_retractions_by_others_and_of_nothing_change_nothing(path: Path, book: Book) -> None:
    seq = book.say("ours")
    reaction = book.say("thumb", kind=Kind.REACT, target=seq)
    for target in (seq, 0, 1, reaction, book.log.next_seq, book.log.next_seq + 1, 2**63, 2**64 - 1):
        book.say("theirs", author=2, kind=Kind.EDIT, target=target)
        book.say("", author=2, kind=Kind.RETRACT, target=target)
        book.say("nobody's", author=99, kind=Kind.RETRACT, target=target)
    book.say("short"[:3], kind=Kind.EDIT)  # a body too short to name a message
    end = book.say("the end", author=99)  # an author that was never introduced
    book.say("the very end", author=98, kind=Kind.EDIT, target=end)
    queries = {"ours": [seq], "theirs": [], "end": [end], "very": [], "thumb": [], "from:bob": [], "sho": []}
    assert dict(zip(queries, found(path, book.log, *queries), strict=True)) == queries


def test_what_was_taken_back_is_not_found_until_an_edit_brings_it_back(path: Path, book: Book) -> None:
    seq = book.say("secret plan")
    book.say("secret idea", kind=Kind.EDIT, target=seq)
    book.say("", author=3, kind=Kind.RETRACT, target=seq)
    kept = book.say("secret reply", kind=Kind.SAY, target=seq)
    assert found(path, book.log, "secret", "from:ann") == [[kept], [kept]]
    book.say("secret again", kind=Kind.EDIT, target=seq)
    assert found(path, book.log, "secret", "again", "idea") == [[kept, seq], [seq], []]


def test_a_message_that_is_edited_without_end_is_forgotten_in_the_end(
    path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_REVISION_BITS", 2)
    monkeypatch.setattr(search, "_FIND", search._FIND.replace(">> 15", ">> 2").replace("32767", "3"))
    book.say("so that the number is even")
    before, seq, after = book.say("edit"), book.say("edit 0"), book.say("edit")
    assert seq % 2 == 0  # else one revision too many would not fall upon the next message
    for number in range(1, 4):
        book.say(f"edit {number}", kind=Kind.EDIT, target=seq)
    assert found(path, book.log, "edit", "3") == [[after, seq, before], [seq]]
    book.say("edit 4", kind=Kind.EDIT, target=seq)
    assert found(path, book.log, "edit", "4") == [[after, before], []]


def test_only_what_was_said_is_found(path: Path, book: Book) -> None:
    action = book.say("waves", kind=Kind.ACTION)
    reply = book.say("waves back", target=action)
    book.say("waves", kind=Kind.REACT, target=action)
    book.say("waves", kind=9)
    assert found(path, book.log, "waves", "ann") == [[reply, action], []]


# -- one more reader of the log ---------------------------------------------------------------------


def test_it_goes_on_where_it_was(path: Path, book: Book) -> None:
    first = book.say("one word")
    assert found(path, book.log, "word") == [[first]]
    second = book.say("two word", author=2)

    class Forgetful(Log):
        """Says what the index reads from it."""

        asked: list[int]

        def read(self, seq: int) -> Batch | Gap | None:
            self.asked.append(seq)
            return super().read(seq)

    again = Forgetful(book.log.epoch, next_seq=book.log.end, older=book.older)
    again.asked = []
    assert found(path, again, "word", "from:ann", "from:bob") == [[second, first], [first], [second]]
    assert min(again.asked) == first  # the last frame it holds, to see that this is its log


@pytest.mark.parametrize("cut", ["behind", "before"])
def test_a_batch_of_which_part_was_taken_is_not_taken_twice(path: Path, book: Book, cut: str) -> None:
    async def scene() -> None:
        async with opened(path, book.log) as index:
            one = book.say("word")
            assert len((await index.find("word")).hits) == 1
            two = book.say("word")
            joined = Batch(1, book.log.end - 1, b"".join(batch.data for batch in book.batches))
            pieces = [joined, joined] if cut == "behind" else [Gap(first=1, count=one), joined, Gap(first=1, count=1)]
            await index._do(index._take, pieces)
            assert (await index.find("word")).hits == [(two, two), (one, one)]
            assert not index._mended  # by building it anew

    run(scene())


def test_gaps_are_passed_over(path: Path) -> None:
    book = Book(window=0)
    book.author(1, "ann", b"a" * 32)
    lost, kept = book.say("lost word"), book.say("kept word")
    book.say("changed word", author=2, kind=Kind.EDIT, target=kept)
    later = book.say("last word")
    book.gaps = (Gap(first=1, count=lost),)
    log = Log(book.log.epoch, next_seq=book.log.end, older=book.older)
    assert found(path, log, "word", "from:ann") == [[later, kept], []]
    book.gaps = (Gap(first=1, count=later),)
    assert found(path, Log(book.log.epoch, next_seq=book.log.end, older=book.older), "word") == [[]]  # its past is gone


def test_a_query_catches_up_and_says_how_far_it_came(path: Path, book: Book) -> None:
    piece = "x" * (16 * 1024)
    wanted = [book.say(f"word {piece}") for _ in range(200)]

    async def scene() -> None:
        async with opened(path, book.log) as index:
            first = await index.find("word", limit=100)
            assert wanted[0] < first.indexed < book.log.end
            assert first.hits[0][0] == first.indexed - 1
            while (found := await index.find("word")).indexed < book.log.end:
                assert found.indexed > first.indexed
                first = found
            assert found.hits[0][0] == wanted[-1]

    run(scene())


def test_once_woken_it_reads_on_by_itself(path: Path, book: Book) -> None:
    async def scene() -> None:
        async with opened(path, book.log) as index:
            book.say("word")
            index.wake()
            index.wake()
            while index._next < book.log.end:  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.001)

    run(scene())
    assert book.log.end == 5
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT seq FROM messages").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM authors; END",
        "CREATE VIEW words_v AS SELECT 1",
        "DROP TABLE messages; CREATE VIEW messages AS SELECT 1 AS seq, 1 AS author, 0 AS revision, 'x' AS shown",
    ],
    ids=["trigger", "view", "a view for a table"],
)
def test_an_index_with_what_no_host_makes_is_made_anew(path: Path, book: Book, statement: str) -> None:
    async def scene() -> None:
        async with opened(path, book.log) as index:
            await index.find("word")

    book.say("word")
    run(scene())
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        before = database.execute("SELECT type, name FROM sqlite_schema").fetchall()
        database.executescript(statement)
    run(scene())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT type, name FROM sqlite_schema").fetchall() == before
        assert database.execute("SELECT seq FROM messages").fetchall() == [(4,)]


def test_the_loop_goes_on_while_it_is_built(path: Path, book: Book) -> None:
    for _ in range(50):
        book.say("y" * 16_000)

    async def scene() -> None:
        async with opened(path, book.log) as index:
            index.wake()
            turns = 0
            while index._next < book.log.end:
                turns += 1
                await asyncio.sleep(0)
            assert turns > 25  # at least as many as there are pieces

    run(scene())


def test_while_people_talk_it_takes_a_pause_after_each_piece(
    path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_POLITE", 1e9)
    for _ in range(50):
        book.say("y" * 16_000)

    async def scene() -> None:
        with ThreadPoolExecutor(1) as thread:
            index = Index(path, book.log, thread)
            index.wake()
            while index._next <= 4:
                book.say("meanwhile")
                await asyncio.sleep(0)
            came = index._next
            for _ in range(20):  # as many chances to go on
                await asyncio.get_running_loop().run_in_executor(thread, int)
                await asyncio.sleep(0)
            assert index._next == came < book.log.end
            await index.aclose()

    run(scene())


def test_closing_in_the_middle_is_quick_and_loses_nothing(path: Path, book: Book) -> None:
    said = [book.say(f"word {'x' * 8000}") for _ in range(300)]

    async def scene() -> None:
        async with opened(path, book.log) as index:
            index.wake()
            asking = [asyncio.create_task(index.find("word")) for _ in range(3)]
            while index._next < 20:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await index.aclose()
            await index.aclose()
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert {str(result) for result in results if isinstance(result, Exception)} <= {"the room is closed"}
            with pytest.raises(SearchError, match="the room is closed"):
                await index.find("word")

    run(scene())
    with closing(sqlite3.connect(path)) as database:
        (next_seq,) = database.execute("SELECT next_seq FROM place").fetchone()
    assert 20 <= next_seq < book.log.end

    async def rest() -> Found:
        async with opened(path, book.log) as index:
            while (found := await index.find("word", limit=100)).indexed < book.log.end:
                pass
            return found

    assert [seq for seq, _ in run(rest()).hits] == said[::-1][:100]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (300,)


def test_a_file_that_nobody_needs_for_long_is_closed_and_opened_again(
    path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_IDLE", 0.001)
    monkeypatch.setattr(search, "_GATHER", 0.001)

    async def scene() -> None:
        async with opened(path, book.log) as index:
            for number in range(1, 6):
                book.say("word")
                assert len((await index.find("word from:ann")).hits) == number
                while len(os.listdir(path.parent)) > 1:  # noqa: ASYNC110, PTH208  SQLite tidies up as it closes
                    await asyncio.sleep(0.001)

    run(scene())


def test_a_query_opens_a_file_that_is_being_closed(path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_IDLE", 0)
    monkeypatch.setattr(search, "_GATHER", 0)
    seq = book.say("word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            for _ in range(50):
                assert (await index.find("word")).hits == [(seq, seq)]

    run(scene())


def test_indexes_share_a_thread(path: Path, book: Book) -> None:
    other = Book(epoch=b"another!")
    mine, theirs = book.say("word"), other.say("word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            second = Index(path.with_name("other.db"), other.log, index._thread)
            found = await asyncio.gather(index.find("word"), second.find("word"), index.find("word"))
            assert [[seq for seq, _ in each.hits] for each in found] == [[mine], [theirs], [mine]]
            await second.aclose()
            assert len((await index.find("word")).hits) == 1

    run(scene())


def test_a_caller_that_gives_up_harms_nobody(path: Path, book: Book) -> None:
    said = [book.say("word") for _ in range(10)]

    async def scene() -> None:
        async with opened(path, book.log) as index:
            for turns in range(30):
                asking = asyncio.create_task(index.find("word"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            assert [seq for seq, _ in (await index.find("word")).hits] == said[::-1]

    run(scene())


# -- what does not fit ------------------------------------------------------------------------------


def test_the_files_are_nobody_elses_to_read(path: Path, book: Book) -> None:
    book.say("word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            await index.find("word")
            files = list(path.parent.iterdir())
            assert path in files
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    run(scene())


def test_an_index_of_another_log_is_built_anew(path: Path, book: Book) -> None:
    book.say("old word")
    assert found(path, book.log, "old") == [[4]]
    other = Book(epoch=b"another!")
    other.say("new word")
    other.say("new word")
    other.say("new word")
    other.say("new word")
    assert found(path, other.log, "old", "new") == [[], [4, 3, 2, 1]]


def test_a_log_that_went_back_is_indexed_anew(path: Path) -> None:
    book, shorter, other = Book(), Book(), Book()
    for text in ("one word", "two word", "three word"):
        book.say(text)
    shorter.say("one word")
    for text in ("one word", "2 word", "3 word", "4 word"):
        other.say(text)
    assert found(path, book.log, "word", "three") == [[3, 2, 1], [3]]
    assert found(path, shorter.log, "word", "three") == [[1], []]
    assert found(path, book.log, "word") == [[3, 2, 1]]
    assert found(path, other.log, "word", "three", "4") == [[4, 3, 2, 1], [], [4]]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE place SET layout = '0'",
        "UPDATE place SET next_seq = 'soon'",
        "UPDATE place SET next_seq = 0",
        "UPDATE place SET next_seq = -1",
        "UPDATE place SET next_seq = 2",
        "UPDATE place SET last = 7",
        "UPDATE place SET layout = CAST(x'ff' AS TEXT)",
        "DELETE FROM place",
        "DROP TABLE place",
        "DROP TABLE authors",
    ],
)
def test_what_cannot_be_understood_is_built_anew(path: Path, book: Book, statement: str) -> None:
    seq = book.say("word")
    assert found(path, book.log, "word") == [[seq]]
    change(path, "DELETE FROM messages", statement)
    assert found(path, book.log, "word") == [[seq]]


@pytest.mark.parametrize("content", [b"", b"something else entirely" * 500, b"SQLite format 3\x00" + bytes(4096)])
def test_a_file_that_is_no_database_is_built_anew(path: Path, book: Book, content: bytes) -> None:
    seq = book.say("word")
    path.write_bytes(content)
    assert found(path, book.log, "word") == [[seq]]
    path.with_name("search.db-wal").write_bytes(content)
    path.write_bytes(content)
    assert found(path, book.log, "word") == [[seq]]


@pytest.mark.parametrize("content", [b"", b"something else entirely" * 500])
def test_a_journal_that_was_left_behind_is_not_played_into_the_new_file(path: Path, book: Book, content: bytes) -> None:
    book.say("old word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            await index.find("word")
            shutil.copy(f"{path}-wal", path.with_name("kept"))

    run(scene())
    path.write_bytes(content)
    path.with_name("kept").rename(f"{path}-wal")
    other = Book(epoch=b"another!")
    seq = other.say("new word")
    assert found(path, other.log, "word", "old") == [[seq], []]


@pytest.mark.parametrize("what", ["DROP TABLE messages", "DROP TABLE words", "DELETE FROM words_data"])
def test_damage_met_later_is_told_and_mended(path: Path, book: Book, what: str) -> None:
    seq = book.say("word")
    assert found(path, book.log, "word") == [[seq]]
    change(path, what)

    async def scene() -> None:
        async with opened(path, book.log) as index:
            with pytest.raises(SearchError, match=r"was damaged \(.+\) and is built anew; try again"):
                await index.find("word")
            assert (await index.find("word")).hits == [(seq, seq)]

    run(scene())


def test_damage_that_comes_back_turns_the_search_off(path: Path, book: Book) -> None:
    book.say("word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            await index.find("word")
            for why in ("is built anew", "is damaged again"):
                if why == "is damaged again":
                    assert len((await index.find("word")).hits) == 1
                assert index._database is not None
                await index._do(index._database.execute, "DROP TABLE messages")
                with pytest.raises(SearchError, match=why):
                    await index.find("word")
            with pytest.raises(SearchError, match=r"is damaged again: .+; there is no search until the room reopens"):
                await index.find("word")

    run(scene())


def test_pages_full_of_noise_never_break_the_room(path: Path, book: Book) -> None:
    said = [book.say(f"word {number}") for number in range(2000)]
    assert found(path, book.log, "word", limit=1) == [[said[-1]]]
    whole = path.read_bytes()
    for at in range(0, len(whole), 4096 * 3):
        path.write_bytes(whole[:at] + b"\xa5" * 4096 + whole[at + 4096 :])

        async def scene() -> None:
            async with opened(path, book.log) as index:
                for query in ("word", "1234", "from:ann"):
                    try:
                        hits = (await index.find(query, limit=100)).hits
                    except SearchError:
                        continue  # and is built anew
                    assert all(seq in said for seq, _ in hits)

        run(scene())


def test_a_disk_that_is_full_is_told_and_what_is_there_is_found(path: Path, book: Book) -> None:
    seq = book.say("word")

    async def scene() -> None:
        async with opened(path, book.log) as index:
            await index.find("word")
            assert index._database is not None
            limit = "PRAGMA max_page_count = %d"
            await index._do(index._database.execute, limit % 1)  # SQLite takes the size it has
            later = [book.say(" ".join(f"word w{number}x{word}" for word in range(1000))) for number in range(20)]
            found = await index.find("word")
            assert found == Found([(seq, seq)], False, seq + 1)
            with pytest.raises(SearchError, match=r"cannot be used: database or disk is full; the host tries again"):
                await index._step()
            await index._do(index._database.execute, limit % (1 << 30))
            assert [seq for seq, _ in (await index.find("word")).hits] == [*later[::-1], seq][:20]

    run(scene())


def test_a_place_where_no_file_can_be_made_is_told(tmp_path: Path, book: Book) -> None:
    book.say("word")
    with pytest.raises(SearchError, match=r"cannot be used: .*No such file.*; the host tries again"):
        found(tmp_path / "nowhere" / "search.db", book.log, "word")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SearchError, match="cannot be used"):
        found(tmp_path / "folder", book.log, "word")


def test_without_fts5_it_says_so(path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.say("word")
    monkeypatch.setattr(search, "_SCHEMA", search._SCHEMA.replace("USING fts5", "USING fts_that_nobody_has"))

    async def scene() -> None:
        async with opened(path, book.log) as index:
            index.wake()
            for _ in range(2):
                with pytest.raises(SearchError, match="cannot search: the SQLite of its Python was built without FTS5"):
                    await index.find("word")

    run(scene())
    assert not path.exists()


INDEX = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.host.test_search import Book
from chat.host.search import Index

async def main():
    book = Book()
    index = Index(Path(sys.argv[1]), book.log, ThreadPoolExecutor(1))
    while True:
        for _ in range(20):
            book.say("word %d" % book.log.next_seq)
        found = await index.find("word")
        print(found.indexed, flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed_costs_nothing_that_the_log_does_not_have(path: Path) -> None:
    book = Book()
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", INDEX, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(10)][-1]
        child.kill()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        with closing(sqlite3.connect(path)) as database:
            (next_seq,) = database.execute("SELECT next_seq FROM place").fetchone()
        assert next_seq >= told
        while book.log.end < next_seq + 5:  # as the child said it, and more
            book.say(f"word {book.log.next_seq}")
        last = book.log.end - 1
        assert found(path, book.log, f"{told - 1}", f"{last}", "1") == [[told - 1], [last], [1]]
        assert len(found(path, book.log, "word", limit=100)[0]) == 100
