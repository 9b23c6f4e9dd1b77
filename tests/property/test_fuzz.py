"""Seconds of what scripts/fuzz does for hours: any bytes, to everything that reads those of a peer."""

from __future__ import annotations

import struct
import tracemalloc
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.core.wire import HEADER_SIZE
from tests.property.fuzz_targets import FRAMES, LONGEST, NAMES, SEEDS, Hosts, targets

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    made.close()


@pytest.fixture
def memory() -> Iterator[None]:
    """Count it."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def changed(seed: bytes, at: int, length: int, junk: bytes) -> bytes:
    """A good input with a part that is replaced."""
    at %= len(seed) + 1
    return seed[:at] + junk + seed[at + length :]


def whole(frame: bytes) -> bytes:
    """A frame that says how long it is."""
    return struct.pack("!I", max(len(frame), HEADER_SIZE)) + frame[4:].ljust(HEADER_SIZE - 4, b"\0")


@pytest.mark.parametrize("name", NAMES)
def test_good_bytes_and_some_with_changes(hosts: Hosts, name: str) -> None:
    random, target = Random(1), targets(hosts)[name]
    for data in SEEDS:
        target(data)
    for data in 3 * FRAMES:
        other = changed(data, random.randrange(400), random.randrange(4), random.randbytes(random.randrange(4)))
        target(whole(other) if name in ("client", "member") else other)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", ["stranger", "hello", "member"])
def test_no_connection_takes_much_memory(hosts: Hosts, name: str) -> None:
    target = targets(hosts)[name]
    for data in (*SEEDS[::4], b"".join(SEEDS)[:LONGEST]):
        target(data)


parts = st.builds(changed, st.sampled_from(SEEDS), st.integers(0, 400), st.integers(0, 8), st.binary(max_size=8))
parts |= parts.map(whole)
inputs = st.lists(parts, max_size=4).map(lambda some: b"".join(some)[:LONGEST]) | st.binary(max_size=200)


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", NAMES)
def test_any_bytes(hosts: Hosts, name: str) -> None:
    @settings(max_examples=2_000, deadline=None)
    @given(inputs)
    def each(data: bytes) -> None:
        targets(hosts)[name](data)

    each()
