"""The search: any text is found by what it holds, any query has an answer, any history has one index."""

from __future__ import annotations

import asyncio
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.core.bodies import Author
from chat.core.log import Log
from chat.core.wire import SEQ_PREFIX, Kind
from chat.host.search import Found, Index, SearchError, cut

if TYPE_CHECKING:
    from collections.abc import Coroutine

THREAD = ThreadPoolExecutor(1)

# Letters of each kind that is cut in its own way, what FTS5 has syntax for, and what belongs to no encoding.
LETTERS = "aB1é你好京한글かカ🎉👩\u200d🚀ไท\u0301\u3099ー"
SYNTAX = "\"'()*:^+-{},;\\%_ \t\n\x00\x7f\u200b\ufffd\ud800\ue000"
QUERIES = (
    st.text(alphabet=LETTERS + SYNTAX, max_size=40)
    | st.text(max_size=80)
    | st.lists(
        st.sampled_from(
            ["AND", "OR", "NOT", "NEAR(", ")", "text:", "nick :", "from:", "-", '"', "*", "a", "你", "京都"]
        )
    ).map(" ".join)
)
TEXTS = st.text(alphabet=LETTERS + " .\n", max_size=30) | st.text(max_size=60)


def run(scene: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene

    asyncio.run(bounded())


def made(*bodies: tuple[int, int, bytes]) -> Log:
    """A log with two authors of ann's key and one of bob's, and what they say: author, kind, body."""
    log = Log(b"an epoch")
    for index, key in enumerate((b"a" * 32, b"a" * 32, b"b" * 32), start=1):
        body = msgspec.msgpack.encode(Author(index=index, key=key, stream=index, nick="ann"))
        log.append(Kind.AUTHOR, body, time=0, author=index)
    for author, kind, body in bodies:
        log.append(kind, body, time=0, author=author)
    log.publish(log.seal())
    return log


_PART_OF_A_WORD = re.compile(r"[0-9A-Za-z]|[^\x00-\x7f]")


def storable(text: str) -> str:
    return text.encode("utf-8", "ignore").decode()


@settings(deadline=None, max_examples=60)
@given(st.lists(QUERIES, max_size=20), st.lists(TEXTS, max_size=5), st.integers(-(2**70), 2**70))
def test_any_query_has_an_answer_or_a_line_that_says_why_not(queries: list[str], texts: list[str], before: int) -> None:
    log = made(*((1, Kind.SAY, storable(text).encode()) for text in texts))

    async def scene(folder: Path) -> None:
        index = Index(folder / "search.db", log, THREAD)
        try:
            for query in queries:
                try:
                    found = await index.find(query, before=before)
                except SearchError as error:
                    said = str(error)
                    assert said.startswith(("there is nothing to search for: ", "the search "))
                    assert said.isprintable()
                    assert "damage" not in said
                else:
                    assert {seq for seq, _ in found.hits} <= set(range(4, log.end))
        finally:
            await index.aclose()

    with tempfile.TemporaryDirectory() as folder:
        run(scene(Path(folder)))


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_a_text_is_found_by_any_of_its_words_and_by_all_of_them(text: str) -> None:
    text = storable(text).replace('"', " ")
    words = text.split()
    log = made((1, Kind.SAY, text.encode()), (1, Kind.SAY, b""), (1, Kind.SAY, b"\xff\xfe"))

    async def scene(folder: Path) -> None:
        index = Index(folder / "search.db", log, THREAD)
        try:
            for query in (f'"{text}"', *(f'"{word}"' for word in words[:10])):
                if _PART_OF_A_WORD.search(cut(query)):
                    assert (4, 4) in (await index.find(query)).hits, query
        finally:
            await index.aclose()

    with tempfile.TemporaryDirectory() as folder:
        run(scene(Path(folder)))


@settings(deadline=None, max_examples=60)
@given(
    st.text(alphabet="你好京都かカ한", min_size=1, max_size=12),
    st.text(alphabet="你好京都かカ한", min_size=1, max_size=3),
)
def test_characters_without_spaces_are_found_exactly_where_they_stand(text: str, wanted: str) -> None:
    log = made((1, Kind.SAY, text.encode()), (1, Kind.SAY, f"a{text}b {text[::-1]}".encode()))

    async def scene(folder: Path) -> None:
        index = Index(folder / "search.db", log, THREAD)
        try:
            hits = {seq for seq, _ in (await index.find(wanted)).hits}
        finally:
            await index.aclose()
        assert hits == {seq for seq, held in ((4, [text]), (5, [text, text[::-1]])) if any(wanted in t for t in held)}

    with tempfile.TemporaryDirectory() as folder:
        run(scene(Path(folder)))


ACTS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([Kind.SAY, Kind.EDIT, Kind.RETRACT, Kind.REACT]), st.integers(0, 14)),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(ACTS, st.lists(st.integers(0, 25), max_size=4))
def test_an_index_built_in_parts_shows_what_a_plain_reader_of_the_log_would(
    acts: list[tuple[int, int, int]], stops: list[int]
) -> None:
    bodies, shown = [], {}  # by number: the author, and the frame whose text counts
    for seq, (author, kind, target) in enumerate(acts, start=4):
        body = b"word w%d" % seq
        if kind == Kind.SAY:
            shown[seq] = (author, seq)
        elif target in shown and (shown[target][0] == 3) == (author == 3):
            if kind == Kind.EDIT:
                shown[target] = (shown[target][0], seq)
            elif kind == Kind.RETRACT:
                shown[target] = (shown[target][0], 0)
        bodies.append((author, kind, body if kind == Kind.SAY else SEQ_PREFIX.pack(target) + body))

    async def scene(folder: Path) -> None:
        found, each = Found([], False, 0), []
        for end in (*sorted(stops), len(bodies)):
            index = Index(folder / "search.db", made(*bodies[:end]), THREAD)
            try:
                found = await index.find("word", limit=100)
                each = [(await index.find(f"w{seq}")).hits for seq in range(4, 4 + len(bodies))]
            finally:
                await index.aclose()
        texts = {frame: seq for seq, (_, frame) in shown.items() if frame}
        assert found.hits == sorted(((seq, frame) for frame, seq in texts.items()), reverse=True)
        assert each == [[(texts[frame], frame)] if frame in texts else [] for frame in range(4, 4 + len(bodies))]

    with tempfile.TemporaryDirectory() as folder:
        run(scene(Path(folder)))
