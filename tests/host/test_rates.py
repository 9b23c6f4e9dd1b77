"""Who shares which bucket, and how many newcomers may come."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from chat.core.errors import Refused
from chat.host import rates
from chat.host.rates import Bucket, Rates
from chat.transport import Peer
from tests.host.host_fixture import run

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

HERE, THERE = (Peer(f"tcp {source}:1", source=source) for source in ("192.0.2.1", "2001:db8::/64"))
ANN, BOB, CID = b"a" * 32, b"b" * 32, b"c" * 32
ONE, TWO = b"one invite", b"another"


def member(key: bytes, role: str = "member") -> Any:
    return SimpleNamespace(key=key, role=role)


def come(room: Rates, key: bytes, peer: Peer, invite: bytes = ONE) -> Bucket | None:
    room.came(key, peer, invite, is_new=True)
    return room.bucket(member(key), peer)


def test_newcomers_share_a_bucket_by_source_and_invite() -> None:
    room = Rates(10)
    anns = come(room, ANN, HERE)
    assert come(room, BOB, HERE) is anns
    assert come(room, CID, HERE, TWO) is not anns
    assert room.bucket(member(ANN), THERE) is not anns
    assert room.bucket(member(BOB, "operator"), HERE) is not anns


def test_a_known_key_has_one_of_its_own_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Rates(10, spoke=[ANN])
    anns, bobs = come(room, ANN, HERE), come(room, BOB, HERE)
    assert anns is not bobs
    assert room.bucket(member(ANN), THERE) is anns
    monkeypatch.setattr(rates, "KNOWN_AFTER", 0.0)  # an hour later
    assert room.bucket(member(BOB), HERE) is not bobs
    assert room.bucket(member(BOB), HERE) is not anns


def test_without_a_rate_there_are_no_limits() -> None:
    room = Rates(0)
    for number in range(1000):
        assert come(room, number.to_bytes(32), HERE) is None
        room.new_stream(ANN)


def count(take: Callable[[int], object]) -> int:
    """Return how many are taken before one is refused."""
    for number in range(1000):
        try:
            take(number)
        except Refused:
            return number
    return 1000


def test_a_source_that_sends_many_newcomers_leaves_room_for_others() -> None:
    room = Rates(10)
    assert rates.NEWCOMERS_A_SOURCE <= count(lambda n: come(room, n.to_bytes(32), HERE)) <= 32
    assert come(room, ANN, THERE)
    assert come(room, BOB, HERE, TWO)  # by an invite of its own
    others = count(lambda n: come(room, n.to_bytes(33), Peer("", source=f"198.51.100.{n}")))
    assert others <= rates.NEWCOMERS - 30


def test_who_has_sent_least_has_the_next_turn() -> None:
    async def scene() -> None:
        bucket, turns = Bucket(1000), []
        bucket.paid = time.monotonic() + 0.05

        async def read(name: str, size: int) -> None:
            place = 0
            for _ in range(3):
                place = await bucket.turn(place, size)
                turns.append(name)
                bucket.charge(5, size, time.monotonic())

        gone = asyncio.create_task(read("gone", 1))
        tasks = [asyncio.create_task(read(*one)) for one in (("much", 64_000), ("more", 65_000), ("little", 100))]
        await asyncio.sleep(0)
        gone.cancel()  # its turn is the others'
        await asyncio.gather(*tasks)
        assert turns == ["little"] * 3 + ["much", "more"] * 3

    run(scene())
