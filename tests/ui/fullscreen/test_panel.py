"""The panel: what is typed into it finds what people look for."""

from __future__ import annotations

import pytest

from tests.ui.fullscreen.stage import IN, Script, lines, run, staged


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
