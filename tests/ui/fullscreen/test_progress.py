"""A bar shows how far long work has come."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.client.events import Lost
from chat.core.session import LinkState
from chat.ui.fullscreen.bars import bar
from chat.ui.fullscreen.viewport import CATCHING_UP, Progress
from tests.ui.fullscreen.stage import Blind, Script, joined, run, staged


@given(st.integers(20, 200), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_bar_is_ascii_and_shows_the_part_that_is_done(width: int, at: int, end: int) -> None:
    progress = Progress(CATCHING_UP, 0, end)
    progress.at = at
    drawn = bar(progress, width)
    found = re.fullmatch(r"\[(#*)(\.*)\]( (\d+)% \d+/s)", drawn)
    assert found
    full, left, told, percent = len(found[1]), len(found[2]), found[3], int(found[4])
    assert len(drawn) <= width or full + left == 4 > width - 2 - len(told)
    assert abs(percent - 100 * full / (full + left)) <= 100 / (full + left) + 1
    assert (left == 0) == (at >= end)


@pytest.mark.parametrize("size", [(120, 30), (20, 5)])
def test_catching_up_is_a_bar_until_the_end_of_the_log_is_here(size: tuple[int, int]) -> None:
    async def story() -> None:
        script, here = Script(), "2 here" if size[0] >= 60 else "2 ✓"
        script.session.next_seq = 1
        script.happen(joined(1001, resumed=True))
        async with staged(script.client, Blind(*size)) as stage:
            await stage.until("[...", "] 0% ")
            assert size[0] < 60 or stage.rows()[-1].startswith(" catching up [")
            script.session.next_seq = 501
            await stage.until("[##", ".] 50% ")
            script.session.next_seq = 1001
            await stage.until(here, gone="%")
            script.session.next_seq = 1
            script.happen(joined(1001, resumed=True))
            await stage.until("] 0% ")
            script.session.state = LinkState.OFF
            script.happen(Lost("reset by peer"))  # and comes no more
            await stage.until("no link since" if size[0] >= 60 else "○ #lobby  no link", gone="%")

    run(story())
