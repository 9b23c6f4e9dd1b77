"""Every code block in README and docs runs, and what it shows is so: blocks.py says how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.project import blocks as blocks_module
from tests.project.blocks import PAGES, ROOT, Page, blocks, reasons
from tests.project.forker import Forker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with Forker() as forker:
        yield forker


def run(page: Path, home: Path, forker: Forker) -> None:
    here = Page(page, home, forker)
    try:
        for block in blocks(page):
            if not block.reason:
                try:
                    if not here.run(block):
                        break
                except Exception as error:
                    error.add_note(f"the block at {page}:{block.line}")
                    raise
    finally:
        here.end()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page: Path, home: Path, forker: Forker) -> None:
    run(page, home, forker)


def test_few_blocks_do_not_run() -> None:
    assert len(reasons()) <= 16


WRONG = {
    "command": ("```sh\nchat rooms\nchat send . hello\n```", "no room is open on this machine"),
    "exit code": ("<!-- run exit: 2 -->\n\n```sh\ntrue\n```", "exit code 0"),
    "output": ("```sh\necho 12 and\n```\n\n```text\n7 or\n```", "not seen: 7 or"),
    "event": (
        '<!-- run chat host --headless -->\n\n```sh\nchat join --json\n```\n\n```json\n{"event":"joined","new":1}\n```',
        "not seen: {",
    ),
    "window": ("```sh\nchat join\n```", "exit code 4"),
    "part": ("<!-- run in: LICENSE -->\n\n```text\nAll is permitted.\n```", "does not have"),
    "program": (
        "<!-- run\nfile: a.py\nsame a.py: scripts/lessons/chat.py\n-->\n\n```python\nimport os\n```",
        "a.py has not become scripts/lessons/chat.py",
    ),
    "python": ("```python\nraise SystemExit(7)\n```", "exit code 7"),
    "toml": ("```toml\nkey = \n```", "Invalid value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_block_is_found(
    name: str, home: Path, forker: Forker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, fault = WRONG[name]
    monkeypatch.setattr(blocks_module, "PATIENCE", 1)
    (tmp_path / "page.md").write_text(f"# A page\n\n{text}\n")
    with pytest.raises(Exception, match=fault):
        run(tmp_path / "page.md", home, forker)
