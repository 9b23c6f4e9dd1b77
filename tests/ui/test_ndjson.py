"""What a program may write to ``chat join --json``: messages, and commands in a field of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.cli.programs import Program, host, until

if TYPE_CHECKING:
    from pathlib import Path


def does(program: Program, command: str, **fields: Any) -> dict[str, Any]:
    """Give a command, and return the event that says what came of it."""
    program.write(json.dumps({"command": command, "id": command, **fields}))
    return program.until("done", lambda event: event["command"] == event["id"] == command)


def test_a_program_can_do_what_a_command_does(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with host(tmp_path / "host") as room, Program(tmp_path / "host", "join", "--json", "--as=ann") as ann:
        ann.until("presence")
        ann.say("/invite", "said")
        said = ann.until("stored")["seq"]
        for command, fields in (
            ("me", {"text": "waves"}),
            ("reply", {"target": said, "text": "/quit"}),
            ("edit", {"target": said, "text": "//x"}),
            ("react", {"target": said, "text": "👍"}),
            ("retract", {"target": said}),
        ):
            ann.write(json.dumps({"command": command, "id": command, **fields}))
            message = ann.until("message")
            kind = {"me": "action", "reply": "say"}.get(command, command)
            assert (message["kind"], message["text"]) == (kind, fields.get("text", ""))
            assert message.get("target") == fields.get("target")
            assert ann.until("stored")["id"] == command
        assert does(ann, "invite")["text"] == room.seen[0]["invite"]
        does(ann, "away", text="lunch")
        (person,) = does(ann, "who")["people"]
        assert (person["nick"], person["state"], person["note"]) == ("ann", "away", "lunch")
        does(ann, "peer", text=f"x=touch {mark}")
        until(mark.exists, "the program that was asked for has run")
        ann.write('{"command": "quit"}')
        ann.say("after that nothing is read")
        assert ann.process.wait(30) == 0
        assert ann.finish() == 0
        assert "after that nothing is read" not in ann.texts()


def test_a_command_that_cannot_be_done_is_told_of_and_the_rest_is_done(tmp_path: Path) -> None:
    wrong = (
        ({"command": "nick", "text": "bob"}, "not done: 'nick' is not a command; the commands are me, quit, who,"),
        ({"command": "/quit"}, "not done: '/quit' is not a command"),
        ({"command": "edit", "text": "x"}, "not done: edit needs the field target"),
        ({"command": "reply", "target": 1}, "not done: reply needs the field text"),
        ({"command": "retract", "target": -1}, "not said: Expected `int` >= 0"),
        ({"command": "away", "text": "x" * 500}, "not done: the note is too long"),
        ({"command": "invite"}, "not done: only the room's owner may ask for that (invite)"),
        ({"command": "peer", "text": "cat"}, "not done: only the room's owner may ask for that (peer)"),
        ({"command": "me", "text": "x" * 16_385}, "not done: "),
        ({"command": "quit", "say": "x"}, "not said: an object needs the field say, or the field command"),
        ({"text": "x"}, "not said: an object needs the field say, or the field command"),
    )
    with (
        host(tmp_path / "host", "-ttcp:127.0.0.1:0") as room,  # not by a local transport: the host's user is an owner
        Program(tmp_path / "bob", "join", room.seen[0]["invite"], "--json", "--lang=zh") as bob,
    ):
        bob.until("presence")
        for number, (line, told) in enumerate(wrong, 1):
            bob.write(json.dumps(line))
            error = bob.until("error")
            assert error["line"] == number
            assert error["message"].startswith(told)
        assert bob.process.stdin is not None
        with open(bob.process.stdin.fileno(), "wb", closefd=False) as raw:
            raw.write(b'{"say": "caf\xe9"}\n' + b"x" * 3_000_000 + b"\n")
            raw.write(b'{"x":' + b"[" * 100_000 + b"\n")
        assert bob.until("error")["message"] == "not said: it is not UTF-8: byte 13 is wrong"
        assert bob.until("error")["message"] == "not said: it is longer than 1048576 bytes"
        assert bob.until("error")["message"] == "not said: the object is nested too deeply"
        bob.say("good")
        assert bob.finish() == 1
        assert bob.texts() == ["good"]
