"""`chat export` in its four formats, and `chat import` of what it wrote."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from chat.core.errors import ChatError
from chat.host.importing import import_messages
from tests.cli.programs import Program, host, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = (
    '<script>alert(1)</script> & "quoted" \x1b[31mred\x1b[0m \u202eback\n# second [line](javascript:x) <img src=x>'
)


@pytest.fixture
def ann(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a host, whose room "lobby" is open and has something of every kind in it."""
    folder = tmp_path / "ann"
    with host(folder, "lobby"), Program(folder, "join", "lobby", "--as=ann", "--json") as ann:
        ann.until("joined")

        def say(**line: Any) -> int:
            ann.write(json.dumps({**line, "id": "x"}))
            seq: int = ann.until("stored")["seq"]
            return seq

        first = say(say="hello")
        say(command="reply", target=first, text="wörld")
        say(say=HOSTILE)
        wrong = say(say="a tyop")
        say(command="edit", target=wrong, text="a typo")
        say(command="react", target=first, text="👍")
        assert run(folder, "send", "lobby", "--as=bob", "from bob").returncode == 0
        ann.finish()
        yield folder


def exported(folder: Path, kind: str, *more: str) -> str:
    done = run(folder, "export", "lobby", f"--format={kind}", "--lang=en", *more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class Page(HTMLParser):
    """What a browser makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_every_format_shows_hostile_text_and_none_runs_it(ann: Path) -> None:
    made = {kind: exported(ann, kind) for kind in ("html", "md", "text", "ndjson")}
    assert not [kind for kind, text in made.items() if CONTROLS.search(text)]
    page = Page()
    page.feed(made["html"])
    assert page.tags == {*("html", "head", "meta", "title", "style", "body", "h1", "p", "time", "br")}
    assert page.attributes <= {*("charset", "http-equiv", "content", "name", "id", "dir")}
    assert "<script>alert(1)</script>" in page.text
    assert "default-src 'none'" in made["html"]
    assert re.search(r"(?m)^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d bob: from bob$", made["text"])
    assert re.search(r"(?m)^- 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d bob\\: from bob$", made["md"])
    assert not re.search(r"(?<!\\)[<\[*_`]", made["md"])
    assert all(line.startswith(("# lobby", "- 20")) for line in made["md"].splitlines() if line)

    everything = [json.loads(line) for line in made["ndjson"].splitlines()]
    numbers = [event["seq"] for event in everything]
    since, until = numbers[1], numbers[3]
    part = exported(ann, "ndjson", f"--since={since}", f"--until={until}").splitlines()
    assert [json.loads(line) for line in part] == [e for e in everything if since <= e["seq"] <= until]
    for kind, begin in (("html", "<!doctype html>"), ("md", "# lobby\n")):
        behind = exported(ann, kind, "--since=99")
        assert (behind.startswith(begin), "log ends at" in behind) == (True, True)  # whatever comes first is told
    wrong = run(ann, "export", "lobby", "--since=5", "--until=4")
    assert (wrong.returncode, "is behind" in wrong.stderr) == (2, True)


def test_what_was_exported_is_imported_with_its_authors_times_and_targets(ann: Path, tmp_path: Path) -> None:
    file = tmp_path / "lobby.ndjson"
    file.write_text(exported(ann, "ndjson"))
    old = [json.loads(line) for line in file.read_text().splitlines()]
    done = run(tmp_path / "cid", "import", str(file), "copy")
    assert (done.returncode, done.stderr) == (0, "")
    with host(tmp_path / "cid", "copy"):
        new = [json.loads(line) for line in run(tmp_path / "cid", "log", "copy", "--json").stdout.splitlines()]
        assert run(tmp_path / "cid", "search", "copy", "typo").returncode == 0
        assert run(tmp_path / "cid", "send", "copy", "--as=dan", "it goes on").returncode == 0
        with Program(tmp_path / "dan", "join", "copy", "--as=ann", "--json") as another:  # the nickname is ann's
            assert another.until("joined")["me"]["nick"] != "ann"
    seqs = {one["seq"]: other["seq"] for one, other in zip(old, new, strict=True)}
    for event in old:
        event["seq"] = seqs[event["seq"]]
        if "target" in event:
            event["target"] = seqs[event["target"]]
    assert new == old
    assert HOSTILE in [event["text"] for event in new]


MESSAGE = {"event": "message", "seq": 2, "time": "2026-01-02T03:04:05.678Z", "nick": "ann", "key": "00" * 32}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Input data was truncated"),
        ("[]", "no object with an event"),
        ("[" * 2000, ""),  # too deep for Python up to 3.12
        (json.dumps({**MESSAGE, "kind": "say", "nick": "a b"}), "space"),
        (json.dumps({**MESSAGE, "kind": "say", "key": "00"}), "key"),
        (json.dumps({**MESSAGE, "kind": "author"}), "kind author"),
        (json.dumps({**MESSAGE, "kind": "say", "time": "2026-01-02T03:04:05"}), "time"),
        (json.dumps({**MESSAGE, "kind": "say", "time": "1969-01-02T03:04:05Z"}), "1969"),
        (json.dumps({**MESSAGE, "kind": "say", "text": "x" * 16385}), "16385 bytes"),
        (json.dumps({**MESSAGE, "kind": "say", "text": "\ud800"}), ""),
        ("x" * 200_000, ""),
        ("\xff", ""),
    ],
)
def test_a_line_that_is_no_message_is_named_and_no_room_is_made(tmp_path: Path, line: str, why: str) -> None:
    file, folder = tmp_path / "wrong.ndjson", tmp_path / "room"
    file.write_text(json.dumps({**MESSAGE, "kind": "say", "text": "good"}) + "\n" + line + "\n", "latin-1")
    with pytest.raises(ChatError) as caught:
        import_messages(file, folder, "copy", lambda _done, _of: None)
    assert str(caught.value).startswith(f"line 2 of {file} is no message: ")
    assert why in str(caught.value)
    assert not folder.exists()


def test_what_is_about_a_missing_message_is_left_out_and_a_room_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "part.ndjson"
    lines = [
        {**MESSAGE, "kind": "say", "text": "an answer", "target": 1},
        {**MESSAGE, "seq": 3, "kind": "edit", "text": "x", "target": 1},
        {"event": "gap", "first": 4, "count": 5},
        {**MESSAGE, "seq": 9, "kind": "react", "text": "👍", "target": 2},
        {**MESSAGE, "seq": 10, "kind": "kind-9", "text": "later"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8-sig")  # as some editors save it
    done = run(tmp_path / "cid", "import", str(file), "copy", "--lang=en")
    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        0,
        [
            "3 messages are in room copy",
            "1 line was left out: it is about a message that is not in the file",
        ],
    )
    again = run(tmp_path / "cid", "import", str(file), "copy", "--lang=en")
    assert (again.returncode, "exists" in again.stderr) == (1, True)
