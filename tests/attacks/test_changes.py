"""A host that says a message was changed by somebody else than its author: no reader believes it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.bodies import Answer, Ask, Author, pack, unpack
from chat.core.wire import LAST, SEQ_PREFIX, Kind, encode
from chat.transport import Address
from tests.cli.programs import CHAT
from tests.host.host_fixture import Script, run

if TYPE_CHECKING:
    from pathlib import Path

ANN: Final = Author(index=1, key=b"a" * 32, stream=1, nick="ann")
BOB: Final = Author(index=2, key=b"b" * 32, stream=2, nick="bob")


def record(seq: int, author: Author) -> bytes:
    return encode(Kind.AUTHOR, pack(Kind.AUTHOR, author)[32:], seq=seq, time=1)


def said(seq: int, author: Author, text: str, kind: Kind = Kind.SAY, target: int = 0) -> bytes:
    body = (SEQ_PREFIX.pack(target) if target else b"") + text.encode()
    return encode(kind, body, author=author.index, seq=seq, time=seq)


LOG: Final = [
    record(11, ANN),
    record(12, BOB),
    said(13, ANN, "yes, of course"),
    said(14, BOB, "never", Kind.EDIT, 13),
    said(15, BOB, "", Kind.RETRACT, 13),
    said(16, ANN, "yes", Kind.EDIT, 13),
    said(17, BOB, "from before", Kind.EDIT, 3),
    said(18, BOB, "over"),
]
BELIEVED: Final = [(13, "yes, of course", True), (16, "yes", True), (17, "from before", False), (18, "over", True)]


async def printed(folder: Path, *arguments: str) -> str:
    """What the program prints of this log, up to its last message."""
    async with Script(folder / "host", Address.parse("tcp:127.0.0.1:0?tls=0")) as host:
        address = str(host.listener.address)
        program = await asyncio.create_subprocess_exec(
            *CHAT, arguments[0], address, *arguments[1:], f"--data={folder / 'me'}", stdin=-1, stdout=-1
        )
        guest = await host.meet(start=11, show=11, next_seq=19)
        guest.send(*LOG)
        assert program.stdout is not None
        seen = b""
        if arguments[0] == "search":
            question = await guest.frame(Kind.ASK)
            found = Answer(found=[(13, 13), (13, 14), (13, 16)], indexed=19)
            guest.send(pack(Kind.ANSWER, found, number=question.number))
            question = await guest.frame(Kind.ASK)
            ask = unpack(Ask, question)
            piece = b"".join(LOG[ask.first - 11 : ask.before - 11])
            guest.send(encode(Kind.RANGE, piece, number=question.number, flags=LAST))
        else:
            while b"over" not in seen:
                line = await program.stdout.readline()
                assert line, seen
                seen += line
        (rest, _none), _frames = await asyncio.gather(program.communicate(b""), guest.everything())
        return (seen + rest).decode()


@pytest.mark.parametrize("arguments", [("log", "--json"), ("join", "--json", "--as=me")], ids=["log", "join"])
def test_programs_are_told_what_is_verified(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    events = [json.loads(line) for line in run(printed(tmp_path, *arguments)).splitlines()]
    messages = [event for event in events if event["event"] == "message"]
    assert [(event["seq"], event["text"], event.get("verified", True)) for event in messages] == BELIEVED


@pytest.mark.parametrize("arguments", [("log",), ("join", "--plain", "--as=me")], ids=["log", "join"])
def test_people_are_told_what_is_unverified(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    text = run(printed(tmp_path, *arguments))
    assert "never" not in text
    assert "takes back" not in text
    assert "ann corrects " in text
    assert "bob corrects #3 (unverified): from before" in text


def test_a_search_shows_no_text_of_somebody_else(tmp_path: Path) -> None:
    lines = run(printed(tmp_path, "search", "never")).splitlines()
    assert [line.partition("ann: ")[2] for line in lines] == ["yes", "yes, of course"]
