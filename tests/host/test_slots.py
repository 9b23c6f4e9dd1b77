"""Who gives way when the host runs out of descriptors, and how work that leads to nothing is counted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import Refused
from chat.host import slots
from chat.host.slots import SEATS, Links, Visit, Work, source_of
from chat.transport import Peer
from chat.transport.shares import Door
from tests.host.host_fixture import FakeLink, run

if TYPE_CHECKING:
    from collections.abc import Callable


class Crowd:
    """Links at a host that has no descriptor to spare from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.links = Links()
        self.visits: list[Visit] = []
        self._monkeypatch = monkeypatch

    def come(
        self, source: str, key: str, *, uid: int | None = None, is_trusted: bool = False, full: bool = True
    ) -> str:
        """Come with one more link. Return whose link was dropped or refused for it, "" if nobody's."""
        link = FakeLink()
        link.peer = Peer(f"{source} {key}", uid=uid, source="" if uid is not None else source)
        visit = Visit(link)
        dropped: list[Visit] = []
        self._monkeypatch.setattr(Visit, "push_out", lambda visit: dropped.append(visit))  # noqa: PLW0108  list.append is not bound
        self._monkeypatch.setattr(slots, "has_spare", lambda *_: not full)
        try:
            self.links.enter(visit, key.encode(), is_trusted=is_trusted)
        except Refused as error:
            return f"{visit.link.peer.text} {'refused' if error.code == 'busy' else error}"
        self.visits.append(visit)
        return "".join(f"{one.link.peer.text} dropped" for one in dropped)


def scene(test: Callable[[Crowd], None]) -> Callable[[pytest.MonkeyPatch], None]:
    def run_it(monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            test(Crowd(monkeypatch))

        run(main())

    return run_it


@scene
def test_whoever_has_most_gives_way(crowd: Crowd) -> None:
    for source, key, count in (("a", "eve", 5), ("a", "ann", 1), ("b", "bob", 3)):
        for _ in range(count):
            assert crowd.come(source, key, full=False) == ""
    newest = crowd.visits[4]
    assert crowd.come("c", "cid") == "a eve dropped"
    assert newest not in crowd.links._shares._held["a"][b"eve"]
    assert crowd.come("a", "dan") == "a eve dropped"  # from there, too, with one link
    assert crowd.come("a", "eve") == "a eve refused"
    assert crowd.come("b", "bob") == "a eve dropped"
    assert len(crowd.links) == 9  # as many as there were


@scene
def test_of_those_who_have_equally_many_nobody_is_dropped_for_a_newcomer(crowd: Crowd) -> None:
    for key in ("ann", "bob", "cid"):
        crowd.come("a", key, full=False)
    assert crowd.come("a", "dan") == "a dan refused"
    assert crowd.come("b", "eve") == "a cid dropped"


@scene
def test_the_owner_and_operators_never_give_way(crowd: Crowd) -> None:
    for _ in range(5):
        crowd.come("a", "owner", is_trusted=True, full=False)
    assert crowd.come("a", "owner", is_trusted=True) == ""  # there is nobody else
    crowd.come("b", "ann", full=False)
    assert crowd.come("a", "owner", is_trusted=True) == "b ann dropped"


@scene
def test_our_own_user_keeps_its_seats_while_others_come_from_everywhere(crowd: Crowd) -> None:
    ours = os.geteuid()
    for _ in range(SEATS - 1):
        crowd.come("queue", "ann", uid=ours, full=False)
    for number in range(3):
        crowd.come(f"source {number}", "eve", full=False)
    assert crowd.come("source 3", "eve") == "source 3 eve refused"
    assert crowd.come("queue", "ann", uid=ours) == "source 0 eve dropped"
    assert crowd.come("queue", "ann", uid=ours) == "queue ann refused"  # more than their seats


@scene
def test_another_user_of_this_machine_counts_like_anybody_from_elsewhere(crowd: Crowd) -> None:
    for _ in range(2):
        crowd.come("queue", "mallory", uid=os.geteuid() + 1, full=False)
    crowd.come("a", "ann", full=False)
    assert crowd.come("b", "bob") == "queue mallory dropped"
    assert [visit.is_local for visit in crowd.visits] == [False] * 4


def test_work_is_counted_by_source_and_forgotten_once_it_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_SOURCES", 10)
    now = 1000.0
    work = Work(lambda: now)
    assert [work.charge("a") for _ in range(slots.LOST_BURST)] == pytest.approx([0.0] * slots.LOST_BURST, abs=1e-6)
    assert work.charge("a") == pytest.approx(1 / slots.LOST_RECEIVES)
    assert work.charge("a") == pytest.approx(2 / slots.LOST_RECEIVES)  # those of one source wait for their turns
    assert work.charge("b") == 0
    now += 60
    assert work.charge("a") == 0
    for number in range(100):
        work.charge(str(number))
        now += 60
    assert len(work._paid) <= 12


def test_the_fuller_the_door_the_less_time() -> None:
    dropped: list[int] = []
    door: Door[int] = Door(10, dropped.append)
    assert [door.enter(f"source {n}", n, 5.0) for n in range(10)] == pytest.approx(
        [5.0] * 5 + [4.2, 3.4, 2.6, 1.8, 1.0]
    )
    assert door.enter("source 9", 10, 5.0) == 1.0
    assert dropped == [9]  # its source has two
    assert door.enter("source 11", 11, 5.0) == 1.0
    assert dropped == [9, 0]  # the oldest of all
    for number in range(12):
        door.leave(f"source {min(number, 9) if number != 11 else 11}", number)
    assert len(door) == 0


def test_what_a_peer_counts_as() -> None:
    assert source_of(Peer("tcp 203.0.113.9:1", source="203.0.113.9")) == "203.0.113.9"
    assert source_of(Peer("queue pid 7", uid=1000, pid=7)) == "user 1000"
    assert source_of(Peer("memory #3")) == "memory"
