"""Whether what everybody got is what was said: nothing in here runs anything."""

from __future__ import annotations

import json
from itertools import count, cycle, islice, pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chat.core.wire import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class Failed(Exception):
    """The demo cannot go on, or its transcripts differ: one line for people."""


# -- what is said ---------------------------------------------------------------------------------


class Line(NamedTuple):
    """One message of the text, and who says it there."""

    who: str
    text: str


OWN_TEXT: Final = (
    Line("a", "Good evening! Is anybody here already?"),
    Line("b", "I am. The kettle is on, and the window is open."),
    Line("c", "大家好。我刚到。今天的风很大。"),
    Line("a", "你好。请坐。茶还是热的。"),
    Line("b", "We bring the whole family: 👨‍👩‍👧‍👦, and the dog 🐕‍🦺."),
    Line("c", "A list, in one message:\n  1. bread\n  2. salt\n\n  3. 两斤苹果\n"),
    Line("a", '/quit is a word like any other here, and so are \\n, "quotes" and {"say": "no"}.'),
    Line("b", "Tabs\tand a bell \x07, a colour \x1b[31mred\x1b[0m and a lonely \r are sent as they are."),
    Line("c", "Żółw, naïve, Ελλάδα, שלום, สวัสดี, नमस्ते: each in its own letters."),
    Line("a", "昨天的雨下了一整夜。河水涨得很高。可是桥还在。" * 40),
    Line("b", "And now something long. " + "All work and no play makes a long line longer. " * 300),
    Line("c", " "),
    Line("a", "That was it. Once more from the top?"),
)


def own_talk(lines: int) -> list[Line]:
    """Our own text again and again. Each round bears its number, so that no line stands for another."""
    rounds = (Line(who, f"{text} {number}") for number in count(1) for who, text in OWN_TEXT)
    return list(islice(rounds, lines))


def read_talk(path: Path, members: int) -> list[Line]:
    """Return what FILE says. Raises Failed for what cannot be a message, OSError."""
    structured = path.suffix in {".jsonl", ".ndjson"}
    voices = cycle(str(number) for number in range(members))
    talk = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = _structured(raw) if structured else Line(next(voices), raw.decode())
            size = len(line.text.encode())
        except (ValueError, TypeError, KeyError) as error:
            wanted = 'an object with "who" and "text"' if structured else "UTF-8"
            raise Failed(f"{path}: line {number} is not {wanted}: {error}") from None
        if size > MAX_TEXT:
            raise Failed(f"{path}: line {number} has {size} bytes; a message has at most {MAX_TEXT}")
        talk.append(line)
    if not talk:
        raise Failed(f"{path}: there is nothing to say in it")
    return talk


def _structured(raw: bytes) -> Line:
    found = json.loads(raw)
    return Line(str(found["who"]), str(found["text"]))


def deal(talk: Iterable[Line], members: int) -> list[list[str]]:
    """Give each voice of the text to a member; where there are more voices, some members have several."""
    voices: dict[str, int] = {}
    says: list[list[str]] = [[] for _ in range(members)]
    for line in talk:
        voice = voices.setdefault(line.who, len(voices))
        says[voice % members].append(line.text)
    return says


# -- what is compared: nothing in this part runs anything -----------------------------------------


class Got(NamedTuple):
    """A message as one member was told of it, or as ``chat log`` printed it."""

    seq: int
    nick: str
    text: str
    raw: bytes  # the whole line of NDJSON


def find_fault(
    log: Sequence[Got],
    transcripts: Mapping[str, Sequence[Got]],
    said: Mapping[str, Sequence[str]],
    stored: Mapping[str, Mapping[int, int | None]],
) -> str:
    """Return the first thing that is not as it must be, as one line, or "".

    ``said`` is what each member said, in its order; ``stored`` is the number that each of these lines was
    told to have (None where the member's process had been killed and could not know).
    """
    faults = (
        disorder(log),
        *(difference(name, got, log) for name, got in transcripts.items()),
        *(misheard(name, lines, log) for name, lines in said.items()),
        *(misnumbered(name, numbers, log) for name, numbers in stored.items()),
        strangers(log, said),
    )
    return next(filter(None, faults), "")


def disorder(log: Sequence[Got]) -> str:
    """The numbers of the log must rise. They may skip: what is no message has a number, too."""
    for before, after in pairwise(log):
        if after.seq <= before.seq:
            return f"chat log prints number {after.seq} after number {before.seq}"
    return ""


def difference(name: str, got: Sequence[Got], log: Sequence[Got]) -> str:
    """What a member got must be what the log holds, byte for byte."""
    for line, (ours, theirs) in enumerate(zip_longest(got, log), 1):
        if ours == theirs:
            continue
        if ours and theirs and ours[:3] == theirs[:3]:
            return f"line {line} differs: {name} got {ours.raw.decode()}, chat log prints {theirs.raw.decode()}"
        return f"line {line} differs: {name} got {_show(ours)}, chat log prints {_show(theirs)}"
    return ""


def misheard(name: str, said: Sequence[str], log: Sequence[Got]) -> str:
    """What the log holds of a member must be what it said, in its order."""
    held = (got for got in log if got.nick == name)
    for line, (text, found) in enumerate(zip_longest(said, held), 1):
        if found is None or found.text != text:
            what = "nothing more" if text is None else repr(text[:60])
            return f"line {line} of {name} differs: it said {what}, chat log prints {_show(found)}"
    return ""


def misnumbered(name: str, stored: Mapping[int, int | None], log: Sequence[Got]) -> str:
    """A number that a member was told for one of its lines must be that line's."""
    held = [got.seq for got in log if got.nick == name]
    for line, seq in sorted(stored.items()):
        if seq is not None and held[line : line + 1] != [seq]:
            known = f"number {held[line]}" if line < len(held) else "nothing"
            return f"{name} was told that its line {line + 1} is number {seq}, chat log prints it as {known}"
    return ""


def strangers(log: Sequence[Got], said: Mapping[str, Sequence[str]]) -> str:
    """Nobody else may have spoken."""
    return next((f"somebody else spoke: {_show(got)}" for got in log if got.nick not in said), "")


def _show(got: Got | None) -> str:
    return "nothing more" if got is None else f"number {got.seq}, {got.nick}: {got.text[:60]!r}"


def as_got(event: Mapping[str, Any], line: bytes) -> Got:
    return Got(event["seq"], event["nick"], event["text"], line)
