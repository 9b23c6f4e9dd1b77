"""A third party's transport, installed on its own, is found by its entry point and held to the whole contract."""

from __future__ import annotations

import asyncio
import secrets
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from chat import testing
from chat.transport import Address
from chat.transport.registry import find, schemes

if TYPE_CHECKING:
    from pathlib import Path

if "toy" not in schemes():
    pytest.skip("the toy is not installed: pip install ./tests/plugin", allow_module_level=True)


class Toy(testing.Kit):
    entry_point = "manywire_toy:transport"

    def address(self) -> Address:
        return Address("toy", str(self.folder / secrets.token_hex(4)))


@pytest.mark.parametrize("clause", testing.CLAUSES | testing.ROOM_CLAUSES)
def test_contract(clause: str, home: Path) -> None:
    asyncio.run(testing.check(Toy(home), clause))  # home: a short path, for a socket's fails at 104 bytes


def test_it_comes_in_by_the_door() -> None:
    assert find("toy") is import_module("manywire_toy").transport
