"""A room over every transport, and then over links that misbehave as far as a link may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chat import testing
from tests.kits import KITS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("clause", testing.ROOM_CLAUSES)
@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.__name__)
def test_room(kit: type[testing.Kit], clause: str, tmp_path: Path) -> None:
    if clause in kit.skips:
        pytest.skip(kit.skips[clause])
    asyncio.run(testing.check(kit(tmp_path), clause))
