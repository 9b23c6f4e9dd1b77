"""Every transport is held to every clause of ``chat.testing``."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import pytest

from chat import testing
from tests.harness import KITS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("clause", testing.CLAUSES)
@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.__name__)
def test_contract(kit: type[testing.Kit], clause: str, tmp_path: Path) -> None:
    if clause in kit.skips:
        pytest.skip(kit.skips[clause])
    asyncio.run(testing.check(kit(tmp_path), clause))


def test_every_clause_is_a_sentence_and_a_check() -> None:
    assert list(testing.CLAUSES) == [f"T{n}" for n in range(1, 7)] + [f"L{n}" for n in range(1, 14)]
    for table in (testing.CLAUSES, testing.ROOM_CLAUSES):
        for name, clause in table.items():
            assert clause.name == name
            assert len(clause.sentence.split()) > 5, name
            assert clause.sentence.endswith("."), name
            assert inspect.iscoroutinefunction(clause.check), name


@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.__name__)
def test_every_skip_names_a_clause_and_a_reason(kit: type[testing.Kit]) -> None:
    for clause, reason in kit.skips.items():
        assert clause in testing.CLAUSES | testing.ROOM_CLAUSES
        assert len(reason.split()) > 3, f"{kit.__name__} skips {clause} without a reason"
