"""Two windows of one key, and nicknames that others have: who is who, whose last message is whose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.client.client import Client
from chat.client.target import Target
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from tests.cli.programs import host, window
from tests.ui.fullscreen.stage import Room, run, staged

if TYPE_CHECKING:
    from pathlib import Path


def seat(room: Room, key: str, nick: str) -> Client:
    """A window of somebody's key."""
    return Client(
        lambda: Target((room.address,), "lobby"),
        Identity.load(room.folder / f"{key}.pem"),
        KnownHosts(room.folder / f"{key}.hosts"),
        outboxes=room.folder / f"{key}.outboxes",
        nick=nick,
        history=50,
    )


def test_who_gets_another_nickname_than_wanted_is_told_so_and_what_to_do(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob"), seat(room, "cid", "Bob") as cid, staged(cid) as stage:
            await stage.until("Bob is somebody else here, so you are Bob-2; choose another name with: chat join --as")
            assert "#lobby as Bob-2 (Bob is taken) over " in stage.rows()[0]
        async with Room(tmp_path) as room, seat(room, "bob", "BOB") as bob, staged(bob) as stage:  # the same to a room
            await stage.until("/help lists")
            assert "taken" not in stage.rows()[0]

    run(story())


def test_the_plain_face_says_it_too(tmp_path: Path) -> None:
    with host(tmp_path / "host"), window(tmp_path / "ann", "join", "--as=bob") as bob:
        bob.until("you are bob")
        with window(tmp_path / "cid", "join", "--as=bob") as cid:
            cid.until("* bob is somebody else here, so you are bob-2; choose another name")
