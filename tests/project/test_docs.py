"""The documentation: nothing in it is out of date, and what it tells people to run and to expect is so."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pyte
import pytest

from chat.core import wire
from chat.local.settings import Settings
from tests.cli.programs import PATIENCE, Program, host, run

ROOT = Path(__file__).parents[2]


def script(name: str) -> Any:
    """A script without .py, as a module."""
    loader = SourceFileLoader(f"script_{name}", str(ROOT / "scripts" / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


# -- attacks ---------------------------------------------------------------------------------------


def test_every_attack_names_its_test_and_every_file_of_attacks_is_named() -> None:
    page = (ROOT / "docs/explanation/security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert [one for one in named if f"\ndef {one[1]}(" not in (ROOT / one[0]).read_text("utf-8")] == []
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/attacks").glob("test_*.py")}
    assert files <= {file for file, _ in named}


# -- scripts/docs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docs() -> Any:
    return script("docs")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the check looks at, to be broken."""
    for name in ("docs", "chat", "transports", "tests/plugin"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "README.zh.md", "SECURITY.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_nothing_is_wrong_with_the_documentation(docs: Any) -> None:
    assert list(docs.faults()) == []


def test_the_table_of_settings_has_every_setting(docs: Any) -> None:
    rows = docs.settings_table().splitlines()
    assert [row.split("`")[1] for row in rows[2:]] == list(Settings.__struct_fields__)
    assert all(row.count("|") == 5 for row in rows), "a value breaks the table"


def test_a_limit_is_told_in_units_with_what_happens_beyond_it(docs: Any) -> None:
    assert docs.limit(wire, "MAX_HELLO") == (
        "| 4 KiB | of a frame from a peer that is not in yet | a longer one ends the link: "
        "[`protocol`](errors.md#refusals) (exit code 3) | [`MAX_HELLO`](../../chat/core/wire.py) |"
    )
    shown = [docs.in_units(*size) for size in ((234, "bytes"), (3 << 20, "bytes"), (5.0, "seconds"), (5400, "seconds"))]
    assert shown == ["234 bytes", "3 MiB", "5 s", "90 min"]
    with pytest.raises(
        ValueError, match=r"^chat/core/wire.py: HEADER_SIZE needs a comment such as: # bytes of a name; "
    ):
        docs.limit(wire, "HEADER_SIZE")


BROKEN = {
    "generated": (
        "docs/reference/commands.md",
        "Usage: chat send",
        "Usage: chat sned",
        "docs/reference/commands.md: a generated part is out of date; run scripts/docs",
    ),
    "unknown part": (
        "docs/reference/contract.md",
        "<!-- begin contract -->",
        "<!-- begin nonsense -->\n<!-- end nonsense -->\n<!-- begin contract -->",
        "docs/reference/contract.md: the part nonsense has no end, or nobody makes it",
    ),
    "part without an end": (
        "docs/reference/contract.md",
        "<!-- end contract -->",
        "",
        "docs/reference/contract.md: the part contract has no end, or nobody makes it",
    ),
    "link": (
        "docs/glossary.md",
        "# Glossary",
        "# Glossary\n[gone](gone.md)",
        "docs/glossary.md: the link gone.md leads nowhere",
    ),
    "heading": (
        "README.md",
        "docs/README.md#guides",
        "docs/README.md#guide",
        "README.md: the link docs/README.md#guide leads to a heading that is not there",
    ),
    "command": (
        "docs/how-to/see-the-wire.md",
        'chat send . "hello wire"',
        'chat sned . "hello wire"',
        "docs/how-to/see-the-wire.md: chat sned . \"hello wire\": no such command 'sned'",
    ),
    "option": (
        "docs/tutorial/first-room.md",
        "scripts/chat log -f",
        "scripts/chat log --fast",
        "docs/tutorial/first-room.md: scripts/chat log --fast: No such option",
    ),
    "end of a pipe": (
        "README.md",
        "uptime | chat send",
        "uptime | chat sent",
        "README.md: chat sent lobby: no such command 'sent'",
    ),
    "quote": (
        "docs/how-to/talk-from-a-program.md",
        'chat send lobby "the',
        'chat send lobby "the "',
        'docs/how-to/talk-from-a-program.md: chat send lobby "the " build is green": No closing quotation',
    ),
    "command of a group": (
        "docs/how-to/host-for-people-elsewhere.md",
        "chat invite new --uses 1\n",
        "chat invite old --uses 1\n",
        "docs/how-to/host-for-people-elsewhere.md: chat invite old --uses 1: no such command 'old'",
    ),
    "readme": (
        "README.zh.md",
        "chat log -n 20\n",
        "chat log -n 30\n",
        "README.zh.md: its commands are not those of README.md",
    ),
    "file": (
        "README.md",
        " chat/local ",
        " chat/lokal ",
        "README.md: does not name chat/local",
    ),
    "unreachable": (
        "docs/README.md",
        "- [Complete commands in the shell](how-to/complete-in-the-shell.md)\n",
        "",
        "docs/how-to/complete-in-the-shell.md: no link leads to it",
    ),
    "field": (
        "chat/client/events.py",
        '"resumed": resumed,',
        '"resumed": resumed,\n"novel": 1,',
        "docs/reference/ndjson.md: does not tell of 'novel', which stands in chat/client/events.py",
    ),
    "code": (
        "docs/reference/errors.md",
        "| `invite-used` |",
        "| `invite-gone` |",
        "docs/reference/errors.md: a generated part is out of date",
    ),
    "limit": (
        "chat/host/slots.py",
        "RESERVE: Final = 32",
        "MAX_NOVEL: Final = 32",
        "docs/reference/limits.md: does not tell of 'MAX_NOVEL', which stands in chat/host/slots.py",
    ),
    "variable": (
        "chat/local/rooms.py",
        'environ.get("CHAT_RUNTIME"',
        'environ.get("CHAT_ELSEWHERE"',
        "docs/reference/environment.md: does not tell of 'CHAT_ELSEWHERE', which stands in chat/local/rooms.py",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found(docs: Any, copy: Path, name: str) -> None:
    path, old, new, fault = BROKEN[name]
    text = (copy / path).read_text("utf-8")
    assert old in text
    (copy / path).write_text(text.replace(old, new, 1), "utf-8")
    assert any(found.startswith(fault) for found in docs.faults(copy))


def test_a_command_that_no_page_explains_is_found(docs: Any, copy: Path) -> None:
    for page in docs.pages(copy):
        page.write_text(page.read_text("utf-8").replace("chat transports", "chat log"), "utf-8")
    assert "chat transports: no page explains it" in list(docs.faults(copy))


def test_writing_makes_a_page_as_it_was(docs: Any) -> None:
    page = (ROOT / "docs/reference/environment.md").read_text("utf-8")
    assert docs.generated(docs.PART.sub(r"\1\4", page)) == page


# -- what the pages say ---------------------------------------------------------------------------


def bot() -> str:
    page = (ROOT / "docs/how-to/talk-from-a-program.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return str(code)


def test_the_bot_answers_once_and_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/chat").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m chat "$@"\n')
    (tmp_path / "bin/chat").chmod(0o755)
    (tmp_path / "dice.py").write_text(bot())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CHAT_DATA", str(tmp_path / "ann"))  # the bot has ann's key: it must know itself by its nickname

    def answers(ann: Program, seqs: list[int]) -> None:
        """Wait until these questions are answered by the bot, each once and in their order."""
        command = [sys.executable, str(tmp_path / "dice.py")]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=tmp_path) as dice:
            try:
                for _ in seqs:
                    heard = ann.until("message", lambda event: event["nick"] == "dice")
                    assert re.fullmatch(r"ann rolls [1-6]", heard["text"])
                wait_until_written(tmp_path / "dice.seq", str(seqs[-1]), dice)
            finally:
                dice.kill()

    with host(tmp_path / "host"), Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann:
        ann.until("joined")
        ann.say("!roll", "0")
        first = ann.until("stored")["seq"]
        (tmp_path / "dice.seq").write_text(str(first - 1))
        answers(ann, [first])
        ann.say("!roll", "1")
        ann.say("no question", "2")
        ann.say("!roll", "3")
        second = ann.until("stored", lambda event: event["id"] == "1")["seq"]
        third = ann.until("stored", lambda event: event["id"] == "3")["seq"]
        answers(ann, [second, third])
        assert run(tmp_path / "ann", "log").stdout.count("ann rolls") == 3


def wait_until_written(path: Path, text: str, writer: subprocess.Popen[bytes]) -> None:
    """The file is written by another program, so there is nothing to wait on but the file."""
    for _ in range(PATIENCE * 100):
        if path.read_text() == text:
            return
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.01)
    pytest.fail(f"{path.name} holds {path.read_text()!r}, not {text!r}")


def test_files_lie_where_the_page_says_with_the_modes_it_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, runtime = tmp_path / "data", home.parent / "runtime"
    monkeypatch.setenv("CHAT_RUNTIME", str(runtime))
    page = (ROOT / "docs/reference/files.md").read_text("utf-8")
    rows = re.compile(r"^\| `([^`]+)` \| (\d{4}) \|", re.MULTILINE)
    with host(data, "--peer=NAME=cat") as room:
        assert run(data, "send", "lobby", "hello", "--as=NICK").returncode == 0
        assert run(data, "log", f"{room.seen[0]['address']}/lobby").returncode == 0  # by address: known_hosts
        for folder, part in zip((data, runtime), page.split("## Runtime folder"), strict=True):
            said = dict(rows.findall(part))
            found = {plain(path, folder): mode(path) for path in [folder, *folder.rglob("*")]}
            assert found.items() <= said.items()
            for_a_moment = {"identities/lock", "known_hosts.lock", "HASH/door", "rooms/HASH/host.log"}
            for_a_moment.add("typed/HASH.RANDOM.draft")  # of a window
            trouble = {name for name in said if "damaged" in name or "unsent" in name}
            assert said.keys() - trouble - for_a_moment <= found.keys()


def plain(path: Path, folder: Path) -> str:
    """A path as the page writes it."""
    name = str(path.relative_to(folder))
    name = re.sub(r"[0-9a-f]{16}(?=\.)", "STREAM", name)
    return re.sub(r"(^|/)[0-9a-f]{16,32}(?=/|$)", r"\1HASH", name) + ("/" if path.is_dir() and path != folder else "")


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


# -- scripts/screenshot ---------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def test_a_screen_is_drawn_cell_by_cell() -> None:
    shot = script("screenshot")
    screen = pyte.Screen(20, 2)
    pyte.Stream(screen).feed("a  \x1b[1;38;5;125mb<b\x1b[0m 小明\x1b[7m&\x1b[0m─│▌")
    picture = ET.fromstring(shot.svg(screen, "a < b"))
    texts = {text.text: text for text in picture.iter(f"{SVG}text")}
    assert list(texts) == ["a", "b<b", "小", "明", "&"]

    def column(x: str | None) -> float:
        return (float(x or 0) - float(shot.MARGIN)) / float(shot.ACROSS)

    assert float(texts["b<b"].get("textLength", 0)) == pytest.approx(3 * shot.ACROSS)
    assert (texts["b<b"].get("fill"), texts["b<b"].get("font-weight")) == ("#af005f", "bold")
    assert column(texts["b<b"].get("x")) == pytest.approx(3)
    assert column(texts["小"].get("x")) == pytest.approx(8)  # the middle of cells 7 and 8
    assert column(texts["明"].get("x")) == pytest.approx(10)
    colours = shot.COLOURS["dark"]
    assert texts["&"].get("fill") == colours.paper
    _, paper, block, cursor = picture.iter(f"{SVG}rect")
    assert [column(one.get("x")) for one in (paper, block, cursor)] == pytest.approx([11, 14, 15])
    assert paper.get("fill") == colours.ink
    assert float(block.get("width", 0)) == pytest.approx(shot.ACROSS / 2)
    (drawn,) = picture.iter(f"{SVG}path")
    assert (drawn.get("d") or "").count("M") == 2  # one stroke across, one down


@pytest.mark.parametrize("path", sorted((ROOT / "docs/screens").iterdir()), ids=lambda path: path.stem)
def test_a_screen_needs_nothing_but_itself(path: Path) -> None:
    """Whatever shows it: all is inside the picture, nothing is loaded, and blanks count."""
    written = path.read_text("utf-8")
    assert not re.search(r"url\(|@import|href|<script|<image", written)
    picture = ET.fromstring(written)
    assert picture.get("{http://www.w3.org/XML/1998/namespace}space") == "preserve"
    _, _, width, height = map(float, (picture.get("viewBox") or "").split())
    for text in picture.iter(f"{SVG}text"):
        x, y, size = (float(text.get(name, 0)) for name in ("x", "y", "textLength"))
        assert 0 < x <= x + size < width
        assert 0 < y < height


@pytest.mark.slow
def test_the_screenshots_are_of_today(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/screenshot", tmp_path], timeout=200, check=False)
    assert done.returncode == 0
    now, kept = (
        {path.name: path.read_text("utf-8") for path in folder.glob("*.svg")}
        for folder in (tmp_path, ROOT / "docs/screens")
    )
    assert now == kept
