"""scripts/demo's judgement: transcripts that are equal pass, and each way to differ is found and named."""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts import demo
from scripts.demo_parts import stage
from scripts.demo_parts import transcripts as parts

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SAID = {"ann": ["one", "two", "two"], "bob": ["eins", "zwei\n二", ""], "late": []}
# As the host may number them: 1 and 3 are no messages, but say who ann and bob are.
ORDER = [(2, "ann", 0), (4, "bob", 0), (5, "ann", 1), (6, "bob", 1), (7, "bob", 2), (8, "ann", 2)]


def message(seq: int, nick: str, text: str, time: str = "12:00") -> Any:
    event = {"event": "message", "seq": seq, "time": time, "nick": nick, "text": text}
    return parts.as_got(event, json.dumps(event).encode())


def talk() -> list[Any]:
    return [message(seq, nick, SAID[nick][line]) for seq, nick, line in ORDER]


def stored() -> dict[str, dict[int, int | None]]:
    numbers: dict[str, dict[int, int | None]] = {nick: {} for nick in SAID}
    for seq, nick, line in ORDER:
        numbers[nick][line] = seq
    return numbers


def judge(log: list[Any], got: list[Any] | None = None, numbers: dict[str, dict[int, int | None]] | None = None) -> str:
    """Everybody got what the log holds, but bob, who got ``got``."""
    transcripts = dict.fromkeys(SAID, log) | {"bob": log if got is None else got}
    fault: str = parts.find_fault(log, transcripts, SAID, stored() if numbers is None else numbers)
    return fault


def test_equal_transcripts_have_no_fault() -> None:
    assert judge(talk()) == ""


def lose(lines: list[Any]) -> None:
    del lines[2]


def lose_the_last(lines: list[Any]) -> None:
    lines.pop()


def double(lines: list[Any]) -> None:
    lines.insert(2, lines[2])


def double_the_last(lines: list[Any]) -> None:
    lines.append(lines[-1])


def swap(lines: list[Any]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def change(lines: list[Any]) -> None:
    lines[2] = message(5, "ann", "tvo")


def change_what_is_no_text(lines: list[Any]) -> None:
    lines[2] = message(5, "ann", "two", time="12:01")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lose, "line 3 differs: bob got number 6, bob: 'zwei\\n二', chat log prints number 5, ann: 'two'"),
        (lose_the_last, "line 6 differs: bob got nothing more, chat log prints number 8, ann: 'two'"),
        (double, "line 4 differs: bob got number 5, ann: 'two', chat log prints number 6, bob: 'zwei\\n二'"),
        (double_the_last, "line 7 differs: bob got number 8, ann: 'two', chat log prints nothing more"),
        (swap, "line 3 differs: bob got number 6, bob: 'zwei\\n二', chat log prints number 5, ann: 'two'"),
        (change, "line 3 differs: bob got number 5, ann: 'tvo', chat log prints number 5, ann: 'two'"),
    ],
)
def test_what_one_member_got_wrong_is_found(spoil: Callable[[list[Any]], None], fault: str) -> None:
    got = talk()
    spoil(got)
    assert judge(talk(), got) == fault


def test_transcripts_are_compared_byte_for_byte() -> None:
    got = talk()
    change_what_is_no_text(got)
    fault = judge(talk(), got)
    assert fault.startswith("line 3 differs: bob got {")
    assert '"12:01"' in fault
    assert '"12:00"' in fault


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lose, "line 3 of ann differs: it said 'two', chat log prints nothing more"),
        (lose_the_last, "line 3 of ann differs: it said 'two', chat log prints nothing more"),
        (double, "chat log prints number 5 after number 5"),
        (swap, "chat log prints number 5 after number 6"),
        (change, "line 2 of ann differs: it said 'two', chat log prints number 5, ann: 'tvo'"),
    ],
)
def test_what_all_got_wrong_alike_is_found(spoil: Callable[[list[Any]], None], fault: str) -> None:
    log = talk()
    spoil(log)
    assert judge(log) == fault


def test_line_stored_twice_under_two_numbers_is_found() -> None:
    log = [*talk(), message(9, "bob", "")]
    assert judge(log) == "line 4 of bob differs: it said nothing more, chat log prints number 9, bob: ''"


def test_words_of_a_stranger_are_found() -> None:
    log = [*talk(), message(9, "eve", "boo")]
    assert judge(log) == "somebody else spoke: number 9, eve: 'boo'"


def test_wrong_acknowledgement_is_found() -> None:
    numbers = stored()
    numbers["bob"][1] = 7
    assert judge(talk(), numbers=numbers) == "bob was told that its line 2 is number 7, chat log prints it as number 6"


def test_acknowledgement_without_a_number_is_none_at_all_wrong() -> None:
    numbers = stored()
    numbers["bob"][1] = None
    assert judge(talk(), numbers=numbers) == ""


def test_talk_is_read_and_dealt(tmp_path: Path) -> None:
    lines = [("x", "一"), ("y", "two"), ("z", "three"), ("x", "four\nfive")]
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(json.dumps({"who": who, "text": text, "more": 1}) for who, text in lines))
    assert parts.deal(parts.read_talk(file, 2), 2) == [["一", "three", "four\nfive"], ["two"]]
    plain = tmp_path / "talk.txt"
    plain.write_text("one \n\n  two\r\n三\n")
    assert parts.deal(parts.read_talk(plain, 2), 2) == [["one ", "三"], ["  two\r"]]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("talk.txt", b"ok\n\xff\n", "line 2 is not UTF-8"),
        ("talk.jsonl", b'{"who": "a"}\n', 'line 1 is not an object with "who" and "text"'),
        ("talk.jsonl", b"[]\n", 'line 1 is not an object with "who" and "text"'),
        ("talk.jsonl", b'{"who": "a", "text": "\\ud800"}\n', "surrogates not allowed"),
        ("talk.jsonl", b"{\n", 'line 1 is not an object with "who" and "text"'),
        ("talk.txt", b"x" * 16385, "line 1 has 16385 bytes; a message has at most 16384"),
        ("talk.txt", b"\n \n", "there is nothing to say in it"),
    ],
)
def test_text_that_cannot_be_said_is_refused(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(parts.Failed) as caught:
        parts.read_talk(tmp_path / name, 2)
    assert fault in str(caught.value)


def test_own_text_repeats_itself_and_no_line_twice() -> None:
    lines = parts.own_talk(300)
    assert len(lines) == len(set(lines)) == 300
    texts = [text for _, text in lines]
    assert any("\n" in text for text in texts)
    assert any("\u200d" in text for text in texts), "an emoji family"
    assert any("一" <= char <= "龥" for text in texts for char in text)
    assert 8 * 1024 < max(len(text.encode()) for text in texts) <= 16 * 1024


def test_same_seed_makes_the_same_plan() -> None:
    wanted = {"member": 5, "host": 2, "move": 3}
    plans = [demo.plan(1000, wanted, random.Random(7)) for _ in range(2)]
    assert plans[0] == plans[1]
    assert sorted(what for _, what in plans[0]) == ["host"] * 2 + ["late"] + ["member"] * 5 + ["move"] * 3
    assert [at for at, _ in plans[0]] == sorted(at for at, _ in plans[0])
    assert all(0 <= at < 1000 for at, _ in plans[0])
    assert demo.plan(1000, wanted, random.Random(8)) != plans[0]


def test_transports_are_read() -> None:
    assert demo.names_of("tcp") == ("tcp",)
    assert demo.names_of("pipe,tcp") == ("pipe", "tcp")
    assert {"tcp", "pipe"} <= set(demo.names_of("all"))
    assert "memory" not in demo.names_of("all")


@pytest.mark.parametrize("text", ["", "memory", "tcp,", "tcp,tcp", "nast", "tcp:127.0.0.1:1"])
def test_what_are_no_transports_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not one of"):
        demo.names_of(text)


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/demo.py", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_who_has_nowhere_to_move_is_told() -> None:
    done = run_demo("--move=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--move needs another transport to move to, like --transports tcp,pipe" in done.stderr


def test_progress_without_a_terminal_is_a_line_every_tenth() -> None:
    out = io.StringIO()
    progress = stage.Progress(200, out)
    for done in range(201):
        progress.show(done)
    progress.end()
    assert out.getvalue().splitlines() == [f"{10 * n:3} %: {20 * n} of 200 lines are stored" for n in range(1, 11)]
