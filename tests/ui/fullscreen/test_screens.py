"""The screen in scenes that people meet, at three sizes and in two languages, compared with those that are stored.

    scenes.py ─▶ cells ─▶ text, and the style of each cell ─▶ tests/ui/golden/en-80x24-talk.txt

Look at what has changed, then store it: ``scripts/test tests/ui/fullscreen/test_screens.py --update-golden``.
"""

from __future__ import annotations

import asyncio
import difflib
from pathlib import Path
from string import ascii_letters
from typing import TYPE_CHECKING, Any, Final

import pytest
from wcwidth import wcswidth

from chat.i18n import LANGUAGES
from chat.ui.fullscreen.side import SIDE_BAR
from tests.ui.fullscreen.scenes import SIZE, SIZES, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.ui.fullscreen.face import FullScreen
    from tests.ui.fullscreen.scenes import Graphemes

STORED: Final = Path(__file__).parents[1] / "golden"
COVERED: Final = {"help", "palette"}  # by a panel, the border as well


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_screens_are_those_that_are_stored(home: Path, request: pytest.FixtureRequest, language: str) -> None:
    update = request.config.getoption("--update-golden")
    differs: list[str] = []
    drafts: dict[str, str] = {}  # by scene: what is in the input, at every size
    stored = {path.name for path in STORED.glob(f"{language}-*.txt")}

    async def play() -> None:
        async for scene, screen, face in draw(home, language, SIZES):
            check(scene, screen, face)
            assert drafts.setdefault(scene, face.input.text) == face.input.text
            assert screen.columns < 80 or any(face.input.text in row for row in screen.display)
            file = STORED / f"{language}-{screen.columns}x{screen.lines}-{scene}.txt"
            stored.discard(file.name)
            now = "".join(f"{line}\n" for line in written(screen, styles=(screen.columns, screen.lines) == SIZE))
            if update:
                file.write_text(now, encoding="utf-8")
                continue
            then = file.read_text("utf-8") if file.exists() else ""
            differs.extend(difflib.unified_diff(then.splitlines(), now.splitlines(), file.name, "now", lineterm=""))

    asyncio.run(play())
    for name in stored if update else ():
        (STORED / name).unlink()
    assert not differs, "\n".join(["the screen looks different (--update-golden stores it):", *differs])
    assert update or not stored, "no scene draws these any more"


def written(screen: Graphemes, *, styles: bool) -> Iterator[str]:
    """Yield the rows of a screen as text; with ``styles``, also a letter for how each cell looks, and what it means."""
    yield from (row.rstrip() for row in screen.display)
    yield f"cursor: column {screen.cursor.x}, row {screen.cursor.y}"
    if not styles:
        return
    letters: dict[str, str] = {"": " "}
    for y in range(screen.lines):
        row = [style(screen.buffer[y][x]) for x in range(screen.columns)]
        yield "".join(letters.setdefault(one, ascii_letters[len(letters) - 1]) for one in row).rstrip()
    yield from (f"{letter}: {one}" for one, letter in letters.items() if one)


def style(cell: Any) -> str:
    """Return how a cell looks; a blank shows neither ink nor weight."""
    ink = bool(cell.data.strip()) or cell.reverse or cell.underscore
    parts = [name for name in ("bold", "italics", "underscore", "reverse") if ink and getattr(cell, name)]
    parts += [f"ink {cell.fg}"] if ink and cell.fg != "default" else []
    return ", ".join(parts + ([f"paper {cell.bg}"] if cell.bg != "default" else []))


def check(scene: str, screen: Graphemes, face: FullScreen) -> None:
    """Check what holds for any scene at any size."""
    shown = "\n".join([f"{scene}:", *screen.display])
    for y in range(screen.lines):
        x = 0
        while x < screen.columns:  # no half of a wide character stands alone
            cell = screen.buffer[y][x].data
            assert cell, shown
            width = max(1, wcswidth(cell))
            assert x + width <= screen.columns, shown
            assert not any(screen.buffer[y][x + n].data for n in range(1, width)), shown
            x += width
    pane = face.app._pane_window.render_info
    assert pane is not None
    assert pane.window_width + (SIDE_BAR + 1) * (screen.columns >= 60) == screen.columns
    if screen.columns >= 60 and scene not in COVERED:
        border = [screen.buffer[y][pane.window_width].data for y in range(screen.lines)]
        assert border[1 : 2 + pane.window_height] == ["┬", *"│" * pane.window_height], shown
    if scene not in COVERED:  # names and texts are apart in the same column of every row
        cells = [[screen.buffer[y][x].data for x in range(pane.window_width)] for y in range(screen.lines)]
        assert len({row.index(sign) for row in cells for sign in "│├╰" if sign in row}) <= 1, shown
    drawn = face.app.renderer.last_rendered_screen
    assert drawn is not None
    assert all(x < screen.columns for row in drawn.data_buffer.values() for x in row), shown
    assert not screen.cursor.hidden, shown
    written_before = "".join(screen.buffer[screen.cursor.y][x].data for x in range(screen.cursor.x)).rstrip()
    buffer = face.app.current_buffer
    assert written_before.endswith(buffer.document.current_line_before_cursor[-1:].strip()), shown
