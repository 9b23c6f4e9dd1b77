"""Codes: what is raised and sent is in the tables with all its fields, and what comes from elsewhere is bounded."""

from __future__ import annotations

import ast
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec
import pytest

from chat.core import codes
from chat.core.bodies import Answer, Coded, Notice, Refusal, Rewind, pack, unpack
from chat.core.errors import CodedError, RemoteProtocolError, RequestFailed
from chat.core.text import MAX_QUOTED, quoted
from chat.core.wire import HEADER_SIZE, MAX_CONTROL, Frame, Kind, Parser

CHAT = Path(__file__).parents[2] / "chat"
CODED: tuple[type[Coded], ...] = (Refusal, Notice, Answer, Rewind)
RAISED = {
    "Refused": codes.REFUSALS,
    "NoSuchRoom": codes.REFUSALS,
    "HostBusy": codes.REFUSALS,
    "Untrusted": codes.LOCAL,
    "OtherHost": codes.LOCAL,
    "LocalNotice": codes.LOCAL,
    "RequestFailed": codes.ANSWERS,
    "SearchError": codes.ANSWERS,
    "BadProgram": codes.ANSWERS,
    "Ending": codes.NOTICES,
    "announce": codes.NOTICES,
    "_announce": codes.NOTICES,
    "Notice": codes.NOTICES,
    "Answer": codes.ANSWERS,
    "Refusal": codes.REFUSALS,
    "Rewind": codes.REWOUND,
}
ADDED = {"nick"} | {"why"}  # to what a call names: by ``Programs._announce``, and where it is not sure to be needed


def uses() -> list[tuple[str, str, str, set[str] | None]]:
    """Every code that the source names: where, in what call, and with which fields, None if that cannot be read."""
    found = []
    for file in sorted(CHAT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if called not in RAISED:
                continue
            assert isinstance(node, ast.Call)
            named = {word.arg: word.value for word in node.keywords}
            args = node.args[2:] if called == "_announce" else node.args  # behind the room and the program's name
            code = args[0] if args else named.pop("code", None)
            fields = named.get("fields", args[1] if len(args) > 1 else None)
            given: set[str] | None = {str(name) for name in named if name not in {"fields", "failed"}}
            if isinstance(fields, ast.Dict):
                given = {str(one.value) for one in fields.keys if isinstance(one, ast.Constant)}
            elif fields is not None:
                given = None
            where = f"{file.relative_to(CHAT)}:{node.lineno}"
            texts = [one.value for one in ast.walk(code) if isinstance(one, ast.Constant)] if code is not None else []
            found += [(where, called, text, given) for text in texts if isinstance(text, str) and text]
    return found


def test_every_code_that_is_used_is_in_its_table_with_its_fields() -> None:
    found = uses()
    for where, called, code, given in found:
        assert code in RAISED[called], where
        if given is not None:
            needed = {name for _, name, _, _ in Formatter().parse(RAISED[called][code]) if name}
            assert needed - ADDED <= given <= needed | ADDED, where
    for table in (codes.REFUSALS, codes.NOTICES, codes.LOCAL, codes.ANSWERS, codes.REWOUND):
        assert table.keys() - {code for _, called, code, _ in found if RAISED[called] is table} <= UNSEEN


UNSEEN = {  # made from what is known only as the program runs
    "outbox",  # its fields are those of the outbox's own text
    "search-missing",
    "search-damaged",
    "search-fault",
    "search-closed",
}


def read(coded: Coded, kind: int = Kind.NOTICE) -> Any:
    (frame,) = Parser(preface=False).feed(pack(kind, coded))
    return unpack(type(coded), frame)


def hostile(shape: type[Coded], **more: Any) -> Any:
    """What a peer sends that does not care for our limits, as we read it."""
    raw = bytes(HEADER_SIZE) + msgspec.msgpack.encode(more)
    return unpack(shape, Frame(Kind.NOTICE, 0, 0, 0, 0, 0, raw))


@pytest.mark.parametrize("shape", CODED)
def test_what_we_send_is_read_as_it_was(shape: type[Coded]) -> None:
    for code, template in shape.table.items():
        fields = {name: f"<{name}>" for _, name, _, _ in Formatter().parse(template) if name}
        sent = shape(code=code, fields=fields)  # type: ignore[arg-type]
        assert read(sent) == sent
        assert str(sent.words) == sent.text == template.format(**fields)


@pytest.mark.parametrize("shape", CODED)
@pytest.mark.parametrize("evil", ["x" * 60_000, "\x1b]0;gotcha\a\n" * 4000, "\u202e" * 20_000 + "x", "́" * 20_000])
def test_what_a_peer_says_is_sanitized_and_cut(shape: type[Coded], evil: str) -> None:
    longest = MAX_CONTROL if shape is Answer else MAX_QUOTED
    for code in (evil, "no-room", "peer-exited", "no-program", "differs"):
        for fields in ({}, dict.fromkeys(("room", "nick", "status", "command", "number"), evil), {evil: 1}):
            coded = hostile(shape, code=code, fields=fields, text=evil)
            for shown in (coded.code, coded.text, str(coded.words), *coded.fields):
                assert len(shown) <= longest + MAX_QUOTED * len(fields), (code, len(shown))
                assert shown == quoted(shown, 10_000)
            for error in (coded.error(CodedError), coded.error(RequestFailed)):
                assert len(str(error)) <= longest + MAX_QUOTED * len(fields)


def test_fields_are_counted() -> None:
    coded = hostile(Notice, code="new", fields={str(number): number for number in range(5000)}, text="a lot")
    assert len(coded.fields) == 16


@pytest.mark.parametrize("fields", [{}, {"nick": 1}, {"code": "x"}, {"nick": "{status.__class__}", "state": 2}])
def test_a_known_code_with_other_fields_is_shown_by_its_text(fields: dict[str, str | int]) -> None:
    assert str(hostile(Notice, code="peer-exited", fields=fields, text="it went").words) == "it went"


def test_fields_are_put_in_and_never_obeyed() -> None:
    coded = hostile(Notice, code="peer-exited", fields={"nick": "{status.__class__}", "status": "{0}"}, text="x")
    assert str(coded.words) == "{status.__class__} has left: it ended with exit status {0}"


def test_a_number_where_a_text_should_be_is_shown_and_other_types_are_against_the_rules() -> None:
    assert "exit status 3" in str(hostile(Notice, code="peer-exited", fields={"nick": 5, "status": 3}).words)
    wrong: Any
    for wrong in (1.5, None, [], {}, b"x"):
        with pytest.raises(RemoteProtocolError):
            hostile(Notice, code="peer-exited", fields={"nick": wrong})


def test_a_format_that_does_not_fit_a_field_gives_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codes.NOTICES, "timed", "{seconds:g} s")
    assert str(hostile(Notice, code="timed", fields={"seconds": 2}, text="two").words) == "2 s"
    assert str(hostile(Notice, code="timed", fields={"seconds": "x"}, text="two").words) == "two"


@pytest.mark.parametrize("shape", CODED)
def test_no_peer_speaks_in_the_client_s_voice(shape: type[Coded]) -> None:
    for code, template in codes.LOCAL.items():
        fields = dict.fromkeys((name for _, name, _, _ in Formatter().parse(template) if name), "x")
        assert str(hostile(shape, code=code, fields=fields, text="hers").words) == "hers"


def test_quoting_again_changes_nothing() -> None:
    for text in ("x" * 500, "\t" * 500, "é" * 300, "a\nb"):
        once = quoted(text)
        assert len(once) <= MAX_QUOTED
        assert quoted(once) == once
    assert quoted("x" * 200) == "x" * 200
    assert quoted("x" * 201) == "x" * 199 + "…"
