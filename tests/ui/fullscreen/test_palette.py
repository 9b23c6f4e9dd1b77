"""The panel: what is typed into it finds what people look for; what its keys do, and what they leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat.local.settings import Settings
from tests.ui.fullscreen.stage import IN, Room, Script, lines, run, staged

if TYPE_CHECKING:
    from pathlib import Path

F1 = "\x1bOP"


@pytest.mark.parametrize(
    ("typed", "first"),
    [("friend", "/invite"), ("leave", "/quit"), ("colour", "/theme"), ("exit", "/quit"), ("mouse", "/mouse")],
)
def test_the_palette_finds_commands_by_the_words_of_newcomers_before_settings(typed: str, first: str) -> None:
    async def story() -> None:
        async with staged(Script(IN, *lines(1, 3)).client) as stage:
            await stage.until("line 3")
            stage.type("\x0b")
            await stage.until("─ Go to ─")
            stage.type(typed)
            await stage.until(f"> {typed}")
            rows = stage.rows()
            assert (
                rows[rows.index(next(row for row in rows if "─ Go to ─" in row)) + 1].lstrip().startswith(f"│ {first}")
            )
            stage.type("\x1b")
            await stage.until(gone="─ Go to ─")
            stage.type("\x1bOP")  # F1
            await stage.until("─ Help ─")
            stage.type(typed)
            await stage.until(f"> {typed}", f"│ {first}")

    run(story())


def test_the_footer_says_what_the_command_being_typed_does_and_no_menu_covers_it() -> None:
    async def story() -> None:
        async with staged(Script(IN, *lines(1, 3)).client) as stage:
            await stage.until("line 3")
            stage.type("/theme hi")
            await stage.until("high-contrast")
            assert stage.rows()[-1].strip() == "/theme THEME: change the colours"
            assert "high-contrast" in stage.rows()[-3]

    run(story())


@pytest.mark.parametrize("over", [F1, "\x0b"])
def test_alt_enter_over_the_panel_sends_no_draft(tmp_path: Path, over: str) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("half a sen" + over)
            await stage.comes_to(lambda: stage.face.panel.is_open)
            stage.type("x\x1b\r")
            await stage.comes_to(lambda: not stage.face.panel.is_open)
            stage.type("tence")
            await stage.until("> half a sentence")

    run(story())


def test_an_alt_key_that_the_help_names_acts_from_there_and_types_nothing() -> None:
    async def story() -> None:
        async with staged(Script().client) as stage:
            stage.type("a draft" + F1)
            await stage.until("─ Help ─")
            stage.type("\x1bm")
            await stage.until("nobody mentions you", gone="─ Help ─")
            assert stage.face.input.text == "a draft"

    run(story())


def test_the_keys_that_open_it_and_the_one_in_its_frame_close_it_if_they_are_others() -> None:
    async def story() -> None:
        keys = Settings(keys={"stop": ("F7",), "help": ("F6",), "switcher": ("Ctrl+G",)})
        async with staged(Script().client, settings=keys) as stage:
            for opens in "\x1b[17~", "\x07":  # F6, Ctrl+G
                for closes in "\x1b[18~", opens:  # F7
                    stage.type(opens)
                    await stage.until("F7 ─╮")
                    stage.type(closes)
                    await stage.until(gone="F7 ─╮")

    run(story())
