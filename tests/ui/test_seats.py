"""Two windows of one key, and nicknames that others have: who is who, whose last message is whose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.client.client import Client
from chat.client.target import Target
from chat.core.events import Message
from chat.local.identity import Identity
from chat.local.known_hosts import KnownHosts
from tests.cli.programs import Program, host, run, window
from tests.ui.fullscreen.stage import Hosted, Room, staged
from tests.ui.fullscreen.stage import run as play

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
            await stage.until("Bob is somebody else here, so you are Bob-2; /nick NAME takes")
            assert stage.rows()[0].endswith("   Bob-2 (Bob is taken)")
        async with Room(tmp_path) as room, seat(room, "bob", "BOB") as bob, staged(bob) as stage:  # the same to a room
            await stage.until("/help lists")
            assert "taken" not in stage.rows()[0]

    play(story())


def test_the_plain_face_says_it_too(tmp_path: Path) -> None:
    with host(tmp_path / "host"), window(tmp_path / "ann", "join", "--as=bob") as bob:
        bob.until("you are bob")
        with window(tmp_path / "cid", "join", "--as=bob") as cid:
            cid.until("* bob is somebody else here, so you are bob-2; /nick NAME takes another name")
        with Program(tmp_path / "dan", "join", "--as=bob") as piped:
            piped.line("* bob is somebody else here, so you are bob-3; --as NAME takes another name")


def test_without_a_selection_each_window_of_a_key_takes_back_and_corrects_its_own_last_message(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Room(tmp_path) as room,
            seat(room, "ann", "ann") as ann,
            seat(room, "ann", "bob") as bob,
            staged(bob) as stage,
        ):
            stage.type("said by bob\r")
            await stage.until("said by bob ✓")
            await ann.say("said by ann")
            await stage.until("said by ann", "bob │ said by bob ✓")
            stage.type("\x1bx")
            await stage.until("taken back (Alt+Z undoes that for a minute): “said by bob”", "bob │ taken back")
            assert "ann │ said by ann" in "\n".join(stage.rows())
            stage.type("\x1bz")
            await stage.until("bob │ said by bob ✓", gone="(edited)")
            stage.type("/edit corrected\r")
            await stage.until("bob │ corrected (edited) ✓")
            stage.type("/undo\r")
            await stage.until("you took nothing back within the last minute")
            stage.type("\x1b[1;3A\x1bx")  # Alt+Up selects the last one, which is ann's
            await stage.until("this is not yours")

    play(story())


def test_others_see_what_is_brought_back_in_every_face_and_find_it(tmp_path: Path) -> None:
    folder = tmp_path / "me"
    with host(folder), window(folder, "join", "--as=ann") as ann, window(folder, "join", "--as=bob") as bob:
        bob.until("here: ")
        ann.until("here: ")
        ann.type("secret plan")
        number = bob.until("secret plan").rpartition("#")[2].strip()
        ann.type("/retract")
        ann.until("* taken back (/undo undoes that for a minute): “secret plan”")
        bob.until(f"ann takes back #{number}")
        assert "secret" not in run(folder, "search", ".", "secret").stdout
        ann.type("/undo")
        bob.until(f"ann brings back #{number}: secret plan")
        assert "ann: secret plan" in run(folder, "search", ".", "secret").stdout
        ann.type("/undo")
        ann.until("* you took nothing back within the last minute")
        assert run(folder, "log", ".").stdout.endswith(f"ann corrects #{number}: secret plan\n")


def test_what_was_never_sent_is_taken_back_first_and_never_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("first\r")
            await stage.until("first ✓")
            await room.close()
            await stage.until("link lost")
            stage.type("second\r")
            await stage.until("second …")
            stage.type("third\r")
            await stage.until("third …")
            stage.type("\x1bx")
            await stage.until("for a minute): “third”", "first ✓", "second …", gone="third …")
            stage.type("\x1bz")
            await stage.until("third …")
            stage.type("\x1bx\x1bx")
            await stage.until("for a minute): “second”", gone="second …")
            assert not ann.session.unsettled
            stage.type("fourth\r")
            await stage.until("fourth …")
            await room.open()
            await stage.until("fourth ✓")
            async with room.member("bob") as bob:
                logged = await bob.range(1, bob.session.next_seq)
                assert [message.text for message in logged if isinstance(message, Message)] == ["first", "fourth"]

    play(story())


def test_what_is_on_its_way_is_changed_once_it_is_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("ann") as ann, staged(ann) as stage:
            stage.type("first\r")
            await stage.until("first ✓")
            controller = stage.face.controller
            for text, command in (("second", "edit corrected"), ("third", "retract"), ("fourth", "undo")):
                await controller.deliver(
                    controller.room, controller.outgoing(text), text
                )  # the host has had no turn yet
                assert ann.session.unsettled
                if command == "undo":
                    stage.face.do("retract")
                stage.face.do(*command.split())
            said = controller.room.timeline.messages
            await stage.comes_to(lambda: [one.text for one in said()] == ["first", "corrected", "", "fourth"])

    play(story())


def test_what_another_window_of_the_key_says_is_somebody_elses(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Room(tmp_path) as room,
            seat(room, "ann", "ann") as ann,
            seat(room, "ann", "bob") as bob,
            staged(bob, hosted=Hosted()) as stage,
        ):
            await ann.say("one")
            await stage.until("ann │ one")
            stage.type("\x1b[1;3A")
            await stage.comes_to(lambda: not stage.face.pane.following)
            await ann.say("bob: two")
            await ann.say("three")
            await stage.until("2 new below (1@)")
            stage.type("\x1b/who ann\r")
            await stage.until("ann is here; spoke last just now")
            stage.type("\x1b/who bob\r")
            await stage.until("bob is here", gone="bob is here; spoke")
            stage.type("\x1b/msg ann psst\r")
            await stage.until("ann has the same key as you, and a private room is between two keys")
            stage.type("\x15")  # what failed is still in the input
            await stage.until(">", gone="psst")
            stage.face.quit()
            await stage.until("close the room · Escape: stay · others are here")

    play(story())


def test_a_nickname_is_changed_and_what_was_said_under_the_old_one_stays_ones_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with Room(tmp_path) as room, room.member("bob"), room.member("ann") as ann, staged(ann) as stage:
            stage.type("as ann\r")
            await stage.until("as ann ✓")
            stage.type("/nick zoe\r")
            await stage.until("here   zoe", "you are zoe now")
            await stage.comes_to(lambda: [nick for _key, nick in ann.session.here] == ["bob", "zoe"])
            stage.type("/retract\r")
            await stage.until("for a minute): “as ann”", "ann │ taken back")
            stage.type("as zoe\r")
            await stage.until("zoe │ as zoe ✓")
            stage.type("/nick bob\r")
            await stage.until("bob is somebody else here, so you are bob-2; /nick NAME", "bob-2 (bob is taken)")
            stage.type("/nick admin\r")
            await stage.until("the nickname admin is reserved", "here   bob-2", "back over")
            stage.type("still here\r")
            await stage.until("bob-2 │ still here ✓")
            stage.type("/nick a/b\r")
            await stage.until("nickname")

    play(story())


def test_a_nickname_that_was_taken_by_command_keeps_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "me"
    with host(folder), window(folder, "join", "--as=bob") as bob:
        bob.until("here: ")
        bob.type("/nick zoe")
        bob.until("* you are zoe now")
        with window(folder, "join", "--as=zoe") as zoe:
            zoe.until("you are zoe in lobby")
