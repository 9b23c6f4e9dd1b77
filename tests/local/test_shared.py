"""Rooms that are open to other users: whose they are, what is believed of them, and what comes first."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from chat.cli.home import Home
from chat.client.target import locate
from chat.core.errors import AddressError, ChatError, NoSuchRoom, WrongValue
from chat.local import shared
from chat.local.rooms import RoomLock, RoomRecord, find, find_again, records
from chat.local.shared import MAX_SHARED_ROOMS, SharedRoom, login, shared_records
from transports.localqueue import KIND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ME = login(os.geteuid())


def card(room: str = "tea", host: str = "ab" * 32, started: int = 5) -> RoomRecord:
    return RoomRecord(room=room, addresses=["tcp:h:1"], host=host, invite="chat://secret", pid=1, started=started)


@pytest.fixture
def base() -> Path:
    return Path(os.environ["CHAT_SHARED"])


@pytest.fixture
def opened() -> Iterator[Callable[..., SharedRoom]]:
    """Open a room to everyone, with a socket that lives until the end of the test."""
    with ExitStack() as stack:

        def opens(record: RoomRecord | None = None) -> SharedRoom:
            room = stack.enter_context(closing(SharedRoom("")))
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, KIND))
            sock.bind(str(room.folder / "queue"))
            sock.listen()
            room.write(record or card())
            return room

        yield opens


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_others_pass_through_and_find_no_secret(opened: Callable[..., SharedRoom], base: Path) -> None:
    before = os.umask(0)
    try:
        room = opened()
    finally:
        os.umask(before)
    assert room.folder.parent == base
    assert (mode(room.folder), mode(room.folder / "card")) == (0o711, 0o644)
    assert b"secret" not in (room.folder / "card").read_bytes()
    (found,) = shared_records()
    assert (found.name, found.invite) == (f"{ME}/tea", "")
    assert found.addresses == [f"queue:{room.folder}/queue?user={os.geteuid()}"]
    room.close()
    assert list(base.iterdir()) == []


def test_nobody_knows_the_name_of_the_next_folder(opened: Callable[..., SharedRoom]) -> None:
    assert opened().folder.name != opened().folder.name


def test_only_a_group_that_there_is() -> None:
    with pytest.raises(WrongValue, match=r"^there is no group no:such on this machine$"):
        SharedRoom("no:such")


def test_a_place_where_everybody_can_replace_files_is_refused(base: Path) -> None:
    base.chmod(0o777)
    with pytest.raises(ChatError, match="every user can replace files in"):
        SharedRoom("")


def test_what_a_killed_host_left_is_removed(opened: Callable[..., SharedRoom], base: Path) -> None:
    room = opened()
    (room.folder / "queue").unlink()
    with socket.socket(socket.AF_UNIX, KIND) as sock:
        sock.bind(str(room.folder / "queue"))
    assert records() == []
    assert list(base.iterdir()) == []


def test_a_folder_that_a_cleaner_removed_is_made_anew(opened: Callable[..., SharedRoom]) -> None:
    room = opened()
    for path in (room.folder / "card", room.folder / "queue"):
        path.unlink()
    room.folder.rmdir()
    assert (room.renew(), room.renew()) == (True, False)
    assert (mode(room.folder), mode(room.folder / "card")) == (0o711, 0o644)


def test_what_any_user_could_have_put_there_is_not_believed(opened: Callable[..., SharedRoom], base: Path) -> None:
    def wide(folder: Path) -> None:
        folder.chmod(0o777)

    def wide_card(folder: Path) -> None:
        (folder / "card").chmod(0o666)

    def no_card(folder: Path) -> None:
        (folder / "card").unlink()

    def fifo(folder: Path) -> None:
        no_card(folder)
        os.mkfifo(folder / "card", 0o644)

    def link(folder: Path) -> None:
        (folder / "card").rename(folder / "other")
        (folder / "card").symlink_to("other")

    def no_socket(folder: Path) -> None:
        (folder / "queue").unlink()
        (folder / "queue").touch()

    def moved(folder: Path) -> None:
        folder.rename(base / "elsewhere")
        folder.symlink_to("elsewhere")

    def other(**changes: object) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "card").write_bytes(msgspec.json.encode(msgspec.structs.replace(card(), **changes)))

        return write

    def junk(data: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / "card").write_bytes(data)

    def foreign_card(folder: Path) -> None:
        os.chown(folder / "card", 65534, -1)

    spoilt = (wide, wide_card, no_card, fifo, link, moved, no_socket, *([foreign_card] if os.geteuid() == 0 else []))
    written = (other(room="\x1b[2J"), other(room="a/b"), other(host="x" * 64), other(host=""), other(started="soon"))
    long: tuple[Callable[[Path], object], ...] = (
        junk(b"{"),
        junk(b"\xff"),
        junk(b"[" * 60_000),
        junk(b'{"x":' + b"[" * 30_000),
        junk(b'"' + b"x" * 100_000),
    )
    for number, spoil in enumerate((*spoilt, *written, *long)):
        spoil(opened().folder)
        assert [record.name for record in records()] == [], number
    opened(card(started=2**80))
    assert len(records()) == 1


def test_nobody_hides_a_room_among_thousands(opened: Callable[..., SharedRoom], base: Path) -> None:
    for number in range(MAX_SHARED_ROOMS + 1):
        (base / f"manywire--{number:03}").mkdir()
    opened()
    assert records() == []  # of one user; others' are not affected
    for number in range(MAX_SHARED_ROOMS + 1):
        (base / f"manywire--{number:03}").rmdir()
    assert len(records()) == 1


def test_nobody_hides_a_room_behind_hard_links_to_a_file_of_its_owner(
    opened: Callable[..., SharedRoom], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for number in range(MAX_SHARED_ROOMS + 1):
        os.link(tmp_path / "file", base / f"manywire--{number:03}")
    opened()
    assert len(records()) == 1


def test_a_link_in_the_place_of_the_folder_leads_to_no_loss(
    opened: Callable[..., SharedRoom], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    room = opened()
    room.folder.rename(base / "elsewhere")
    room.folder.symlink_to(tmp_path / "mine")
    with pytest.raises(ChatError, match="was taken by another user"):
        room.renew()
    room.close()
    assert (tmp_path / "mine" / "thesis").exists()


def test_our_own_room_comes_first_and_is_listed_once(opened: Callable[..., SharedRoom]) -> None:
    opened()
    opened(card("coffee"))
    with closing(RoomLock.hold("tea")) as lock:
        lock.write(card())
        assert [record.name for record in records()] == ["tea", f"{ME}/coffee"]
        assert find("tea").owner == find(None).owner == ""
        assert find(f"{ME}/tea").owner == ME
        assert find("coffee").name == find(f"{ME}/coffee").name == f"{ME}/coffee"
    with pytest.raises(AddressError, match=rf"2 rooms are open on this machine \({ME}/coffee, {ME}/tea\)"):
        find(None)
    with pytest.raises(NoSuchRoom, match=r"no room eve/tea is open to you on this machine"):
        find("eve/tea")


def test_of_rooms_of_one_name_neither_is_taken(
    opened: Callable[..., SharedRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = iter(("ann", "mallory") * 2)
    monkeypatch.setattr(shared, "login", lambda _uid: next(owners))
    opened(), opened()
    with pytest.raises(AddressError, match=r"ann/tea, mallory/tea"):
        find("tea")
    assert find("mallory/tea").owner == "mallory"


def test_a_client_comes_back_to_the_same_host_only(opened: Callable[..., SharedRoom]) -> None:
    lock = RoomLock.hold("tea")
    with closing(lock):
        lock.write(card())
        own = find("tea")
    room = opened()
    with pytest.raises(NoSuchRoom, match=r"^room 'tea' is not open on this machine"):
        find_again(own)  # somebody else's room of that name is there
    other = find("tea")
    assert find_again(other).name == f"{ME}/tea"
    room.write(card(host="cd" * 32))
    with pytest.raises(NoSuchRoom, match=rf"^no room {ME}/tea is open to you on this machine"):
        find_again(other)


def test_nothing_is_sent_to_whoever_opens_a_room_of_our_closed_rooms_name(
    opened: Callable[..., SharedRoom], tmp_path: Path
) -> None:
    opened()
    home = Home(tmp_path)
    home.client("tea", "", speaks=True, silent=True)  # we have none of that name
    home.room("tea").mkdir()
    for target in ("tea", "."):
        with pytest.raises(
            NoSuchRoom, match=rf"^your room 'tea' is closed; to write in user {ME}.s, name it: {ME}/tea$"
        ):
            home.client(target, "", speaks=True, silent=True)
    home.client(f"{ME}/tea", "", speaks=True, silent=True)
    home.client("tea", "", speaks=True)  # a face says whose room it is


def test_a_target_names_the_owner(opened: Callable[..., SharedRoom]) -> None:
    room = opened()
    for text in ("", "tea", f"{ME}/#tea"):
        found = locate(text)()
        assert (found.room, found.host, found.invite, found.board) == ("tea", b"\xab" * 32, None, None)
        assert found.addresses[0].place == str(room.folder / "queue")


@pytest.mark.parametrize("name", ["", "a" * 33, "a/b", "a\nb", "\x1b[2J"])
def test_a_login_name_that_cannot_be_shown_is_a_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd((name, "x", 7, 7, "", "/", "/bin/sh")))
    login.cache_clear()
    assert login(7) == "7"
    login.cache_clear()
