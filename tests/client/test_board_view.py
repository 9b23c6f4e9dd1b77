"""What a look at a board shows, from outside the room."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from chat.client import board_view
from chat.core.errors import AddressError, NoSuchRoom
from chat.core.status import Level, Status, pack_slot
from chat.local.rooms import RoomLock, RoomRecord, room_folder
from chat.transport.registry import board_maker

if TYPE_CHECKING:
    from pathlib import Path

ANN, BOB = b"a" * 32, b"b" * 32


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "runtime"))


@pytest.mark.parametrize("target", ["tcp:h:1", "tcp:h:1/tea", "chat://h/tea#x.y", "tcp：h：1", "-"])  # noqa: RUF001
def test_a_room_elsewhere_has_no_board_here(target: str) -> None:
    assert board_view.room_of(target) == ""


def test_a_room_of_this_machine_is_found_by_name_or_alone() -> None:
    with pytest.raises(NoSuchRoom):
        board_view.room_of(".")
    with closing(RoomLock.hold("tea")) as lock:
        lock.write(RoomRecord(room="tea", addresses=[], host="", invite="", pid=1, started=5))
        assert [board_view.room_of(name) for name in ("", ".", "tea", "“tea”")] == ["tea"] * 4
        with pytest.raises(NoSuchRoom):
            board_view.room_of("coffee")
        with pytest.raises(AddressError):
            board_view.room_of("no room")


def test_who_is_on_the_board_by_nickname() -> None:
    maker = board_maker()
    assert maker is not None
    with closing(RoomLock.hold("tea")):
        assert board_view.statuses("tea") is None  # the host has not made it yet
        with closing(maker.create(room_folder("tea"))), closing(maker.open(room_folder("tea"))) as board:
            slots = {"bob": Status(level=Level.AWAY, note="tea"), "Ann": Status(typing=True)}
            for key, (nick, status) in zip((BOB, ANN), slots.items(), strict=True):
                slot = board.claim()
                assert slot is not None
                slot.write(pack_slot(key, nick, status))
            found = board_view.statuses("tea")
            assert found is not None
            assert [(nick, status.level, status.note, status.typing) for (_, nick), status in found.items()] == [
                ("Ann", Level.ONLINE, "", True),
                ("bob", Level.AWAY, "tea", False),
            ]
            assert board_view.as_names(found) == "Ann bob"
