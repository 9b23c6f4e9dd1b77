"""The board is held to every clause of ``chat.testing``; and boards that are broken, to see that the clauses notice."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import pytest

from chat import testing

if TYPE_CHECKING:
    from pathlib import Path


class Shm(testing.BoardKit):
    entry_point = "transports.shm:board"


class Posix(testing.BoardKit):
    """Where open file description locks are not to be had."""

    entry_point = "tests.testing.boards:posix"


class InTwoHalves(testing.BoardKit):
    """Every write is seen half done."""

    entry_point = "tests.testing.boards:in_two_halves"


KITS: tuple[type[testing.BoardKit], ...] = (Shm, Posix, InTwoHalves)


@pytest.mark.parametrize("clause", testing.BOARD_CLAUSES)
@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.__name__)
def test_contract(kit: type[testing.BoardKit], clause: str, tmp_path: Path) -> None:
    asyncio.run(testing.check(kit(tmp_path), clause))


@pytest.mark.slow
@pytest.mark.parametrize("kit", [Shm, InTwoHalves], ids=lambda kit: kit.__name__)
def test_a_million_writes_and_not_one_torn_cell(kit: type[testing.BoardKit], tmp_path: Path) -> None:
    asyncio.run(testing.never_torn(kit(tmp_path), writers=8, readers=8, writes=125_000))


def test_every_clause_is_a_sentence_and_a_check() -> None:
    assert list(testing.BOARD_CLAUSES) == [f"B{n}" for n in range(1, 6)]
    for name, clause in testing.BOARD_CLAUSES.items():
        assert clause.name == name
        assert len(clause.sentence.split()) > 5, name
        assert clause.sentence.endswith("."), name
        assert inspect.iscoroutinefunction(clause.check), name


BROKEN: list[tuple[str, str, str]] = [
    ("B1", "first_write_wins", "slot .* shows .* and should show"),
    ("B1", "queues", "slot .* shows None and should show"),
    ("B1", "keeps_the_buffer", "shows b'lost' and should show b'ours'"),
    ("B1", "cuts_off", "a slot took 235 bytes"),
    ("B2", "believes_all", "slots were torn, or went back, in"),
    ("B3", "no_locks", "of them by two writers"),
    ("B3", "forgets_what_it_holds", "of them by two writers"),
    ("B4", "asks_nobody", "shows b'ann' and should show None"),
    ("B4", "keeps_the_dead", "slots were left by a process .*, and .* could be claimed"),
    ("B5", "removes_the_file", "there is no board in|took the board with it"),
    ("B5", "opens_it_once_more", "with the readers went the claim on 1 slots"),
]


@pytest.mark.parametrize(("clause", "broken", "told"), BROKEN)
def test_what_is_broken_is_told(clause: str, broken: str, told: str, tmp_path: Path) -> None:
    kit = type(broken, (testing.BoardKit,), {"entry_point": f"tests.testing.boards:{broken}"})(tmp_path)
    with pytest.raises(Exception, match=told) as raised:
        asyncio.run(testing.check(kit, clause))
    assert clause in str(raised.value) + "".join(getattr(raised.value, "__notes__", []))


def test_every_clause_has_something_that_breaks_it() -> None:
    assert {clause for clause, _, _ in BROKEN} == set(testing.BOARD_CLAUSES)
