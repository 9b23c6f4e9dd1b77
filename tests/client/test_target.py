"""What the TARGET of a command means, and that it is found again when it has moved."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from chat.client.target import Target, locate
from chat.core.bodies import direct_name
from chat.core.errors import AddressError, ChatError, DialFailed, NoSuchRoom, UnknownScheme
from chat.local.invite import Invite
from chat.local.rooms import RoomLock, RoomRecord, room_folder
from chat.transport import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = bytes(range(32))
INVITE = Invite((Address.parse("tcp:192.0.2.1:7711"), Address.parse("memory:here")), "tea", HOST, b"s" * 16)


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "runtime"))


@pytest.fixture
def tea() -> Iterator[RoomLock]:
    with closing(RoomLock.hold("tea")) as lock:
        lock.write(record("tcp:h:1", "memory:here", "queue:x"))
        yield lock


def record(*addresses: str) -> RoomRecord:
    return RoomRecord(
        room="tea", addresses=list(addresses), host=HOST.hex(), invite=str(INVITE), pid=os.getpid(), started=5
    )


def schemes(target: Target) -> list[str]:
    return [address.scheme for address in target.addresses]


@pytest.mark.usefixtures("tea")
@pytest.mark.parametrize("name", ["", ".", "tea"])
def test_a_room_on_this_machine_by_the_cheapest_way_first(name: str) -> None:
    found = locate(name)()
    assert (found.room, found.host, found.invite, found.board) == ("tea", HOST, INVITE, room_folder("tea"))
    assert schemes(found) == ["queue", "tcp", "memory"]
    assert not found.remember


def test_a_room_is_looked_up_again_before_each_dial(tea: RoomLock) -> None:
    where = locate(".")
    tea.write(record("tcp:moved:2"))
    assert where().addresses == (Address.parse("tcp:moved:2"),)
    tea.close()
    with pytest.raises(NoSuchRoom):
        where()


@pytest.mark.usefixtures("tea")
def test_only_by_one_transport() -> None:
    assert schemes(locate("tea", "tcp")()) == ["tcp"]
    assert schemes(locate("tea", "“TCP:”")()) == ["tcp"]
    with pytest.raises(DialFailed, match="not reached by pipe; it listens on memory, queue, tcp"):
        locate("tea", "pipe")()
    with pytest.raises(UnknownScheme):
        locate("tea", "pigeon")


@pytest.mark.parametrize(("text", "room"), [("tcp:h:1", ""), ("tcp:h:1/tea", "tea"), ("tcp:h:1/", "")])
def test_an_address_with_or_without_a_room(text: str, room: str) -> None:
    assert locate(text)() == Target((Address.parse("tcp:h:1"),), room)


@pytest.mark.parametrize("text", ["TCP://h:1/tea", "“tcp:h:1/tea”。", "tcp：h：1／tea", "h:1/tea,", " tcp:h:1/tea\n"])  # noqa: RUF001
def test_an_address_as_it_is_typed(text: str) -> None:
    assert locate(text)() == Target((Address.parse("tcp:h:1"),), "tea")


@pytest.mark.usefixtures("tea")
def test_a_name_as_it_is_typed() -> None:
    assert locate("“tea” ")().room == "tea"


def test_an_invite_names_the_host_and_is_remembered() -> None:
    assert locate(str(INVITE))() == Target(INVITE.addresses, "tea", HOST, INVITE, remember=True)
    assert schemes(locate(str(INVITE), "memory")()) == ["memory"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no-such-room", NoSuchRoom),
        ("", NoSuchRoom),
        ("no room", AddressError),
        ("../tea", AddressError),
        ("tcp:h:1/no room", AddressError),
        ("pigeon:x/tea", UnknownScheme),
        ("chat://", ChatError),
    ],
)
def test_what_is_no_target_is_told_at_once(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        locate(text)


def on_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> int:
    """Return a descriptor to read what is left."""
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    monkeypatch.setattr("chat.client.target.os.isatty", lambda _fd: False)
    real = os.read
    monkeypatch.setattr("chat.client.target.os.read", lambda _fd, size: real(read, size))
    return read


def test_an_invite_on_standard_input_takes_its_own_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    read = on_standard_input(monkeypatch, f"  {INVITE}\nhello\n".encode())
    assert locate("-")().invite == INVITE
    assert os.read(read, 100) == b"hello\n"
    os.close(read)


@pytest.mark.parametrize("at", [9, 20, 40, 90, len(str(INVITE)) - 1])
def test_an_invite_on_standard_input_may_be_broken_into_lines(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    text = str(INVITE)
    read = on_standard_input(monkeypatch, f"“{text[:at]}\n  {text[at:]}”\nhello\n".encode())
    assert locate("-")().invite == INVITE
    assert os.read(read, 100) == b"hello\n"
    os.close(read)


@pytest.mark.parametrize("data", [b"", b"\n", b"lobby\n", b"x" * 10_000])
def test_anything_else_on_standard_input_is_no_invite(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    read = on_standard_input(monkeypatch, data)
    with pytest.raises(AddressError, match="first line is not an invite"):
        locate("-")
    os.close(read)


def test_the_direct_room_of_two_has_no_board() -> None:
    found = Target((), "tea", HOST, board=room_folder("tea")).direct(b"a" * 32, b"b" * 32)
    assert (found.room, found.other, found.board, found.host) == (
        direct_name(b"b" * 32, b"a" * 32),
        b"b" * 32,
        None,
        HOST,
    )
