"""The text can be edited in an editor, which has the terminal meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.ui.fullscreen.test_composer import run, staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set an editor: a program whose file is ``file``, and which may leave notes in the folder ``notes``."""
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def set_editor(code: str) -> None:
        program = tmp_path / "my editor.py"
        program.write_text(
            "import os, signal, sys\nfrom pathlib import Path\n"
            f"file, notes = Path(sys.argv[-1]), Path({str(tmp_path)!r})\n{code}",
            "utf-8",
        )
        monkeypatch.setenv("EDITOR", f"{sys.executable} '{program}' --wait")

    return set_editor


def left_behind(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.startswith("chat-")]


def test_the_editor_goes_on_with_the_text(tmp_path: Path, editor: Callable[[str], None]) -> None:
    editor(
        "modes = f'{file.stat().st_mode & 0o777:o} {file.parent.stat().st_mode & 0o777:o} {sys.argv[1]}'\n"
        "(notes / 'modes').write_text(modes)\n"
        "file.write_text(file.read_text('utf-8').upper() + ' 你好\\r\\nand\\x1b more\\n', 'utf-8')\n"
    )

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.text.endswith("more"))
            assert stage.text == "DRAFT 你好\nand more"
            assert stage.composer.buffer.cursor_position == len(stage.text)
            assert stage.told == stage.sent == []
            stage.type("!\x1f\x1f")  # and undo
            await stage.until(lambda: stage.text == "draft")

    before = os.umask(0)
    try:
        run(story())
    finally:
        os.umask(before)
    assert (tmp_path / "modes").read_text() == "600 700 --wait"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("file.write_text('half'); sys.exit(3)", " failed with code 3; the input is as it was"),
        ("os.kill(os.getpid(), signal.SIGKILL)", " failed with code -9; the input is as it was"),
        ("file.unlink()", ": no such file or directory; the input is as it was"),
        (
            "file.write_text('x' * (1024 * 1024 + 1))",
            "the editor's text is 1048577 bytes long, a message takes 16384; the input is as it was",
        ),
    ],
    ids=["code", "signal", "file", "long"],
)
def test_an_editor_that_fails_is_told_of_and_the_text_stays(
    tmp_path: Path, editor: Callable[[str], None], code: str, told: str
) -> None:
    editor(code)

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.told)
            assert stage.told[0].endswith(told)
            assert "\n" not in stage.told[0]
            assert stage.text == "draft"
            assert not stage.composer.editing

    run(story())
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("visual", "told"),
    [
        ("", "no editor is set; set VISUAL or EDITOR before you start, as in: export EDITOR=nano"),
        (
            "/no/such/editor -x",
            "cannot use the editor /no/such/editor: no such file or directory; the input is as it was",
        ),
        ("'open quote", "$VISUAL or $EDITOR cannot be read: No closing quotation"),
        ("/", "cannot use the editor /: permission denied; the input is as it was"),
    ],
)
def test_an_editor_that_is_missing_is_told_of(monkeypatch: pytest.MonkeyPatch, visual: str, told: str) -> None:
    monkeypatch.setenv("VISUAL", visual)
    monkeypatch.delenv("EDITOR", raising=False)

    async def story() -> None:
        async with staged() as stage:
            stage.type("draft\x18\x05")
            await stage.until(lambda: stage.told)
            assert (stage.told, stage.text) == ([told], "draft")

    run(story())


def test_ctrl_c_in_the_editor_is_the_editors_and_the_loop_goes_on(
    tmp_path: Path, editor: Callable[[str], None]
) -> None:
    """The terminal sends SIGINT to us, too. And while the editor waits for us, we are not waiting for it."""
    editor("(notes / 'go').read_text(); file.write_text('done')")
    os.mkfifo(tmp_path / "go")

    async def story() -> None:
        async with staged() as stage:
            stage.type("\x18\x05")
            with await asyncio.to_thread((tmp_path / "go").open, "w"):  # which waits until the editor reads it
                os.kill(os.getpid(), signal.SIGINT)
            await stage.until(lambda: stage.text == "done")
            assert stage.left == 0
            stage.type("\x03")
            await stage.until(lambda: stage.left == 1)

    run(story())


def test_leaving_ends_the_editor_and_takes_the_file_along(tmp_path: Path, editor: Callable[[str], None]) -> None:
    editor(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "(notes / 'pid').write_text(str(os.getpid())); (notes / 'began').read_text()\n"
        "signal.sigwait({signal.SIGTERM}); (notes / 'tidy').touch()"
    )
    os.mkfifo(tmp_path / "began")

    async def story() -> None:
        async with staged() as stage:
            stage.type("\x18\x05")
            await asyncio.to_thread((tmp_path / "began").write_text, "")
            assert left_behind(tmp_path)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    run(story())
    assert (tmp_path / "tidy").exists()  # it was asked to end, and could put the terminal right
    assert left_behind(tmp_path) == []
