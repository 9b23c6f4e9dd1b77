"""What a running host leaves on its machine: real folders, locks and processes."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chat.core.errors import AddressError, ChatError, ListenFailed, NoSuchRoom
from chat.local.private_files import make_private, read_private
from chat.local.rooms import RoomLock, RoomRecord, find, records, room_folder, runtime_folder

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from chat.local.rooms import RoomRecord as Card, RoomLock as Desk
desk = Desk.hold(sys.argv[1])
desk.write(Card(room=sys.argv[1], addresses=["tcp:h:1"], host="00", invite="chat://x", pid=1, started=5))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runtime"
    monkeypatch.setenv("CHAT_RUNTIME", str(folder))
    return folder


def python(code: str, *arguments: str, close_fds: bool = True) -> subprocess.Popen[str]:
    """Start a process and return once it says "held"."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=close_fds,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)
    assert process.returncode == 0


def card(room: str) -> RoomRecord:
    invite = "chat://h:1/tea#secret"
    return RoomRecord(room=room, addresses=["tcp:h:1"], host="ab" * 32, invite=invite, pid=os.getpid(), started=5)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- folders -------------------------------------------------------------------------------------


def test_folders_are_made_private_whatever_the_umask(runtime: Path) -> None:
    before = os.umask(0)
    try:
        folder = room_folder("tea")
        desk = RoomLock.hold("tea")
        desk.write(card("tea"))
    finally:
        os.umask(before)
    assert folder.parent == runtime_folder() == runtime
    assert mode(runtime) == mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    desk.close()


def test_a_folder_is_named_by_a_short_hash() -> None:
    folder = room_folder("小" * 20)
    assert re.fullmatch(r"[0-9a-f]{16}", folder.name)
    assert folder != room_folder("小" * 21)
    room_folder("\udcff")  # a byte of the command line that was no UTF-8


@pytest.mark.parametrize("wrong", [0o755, 0o710, 0o701, 0o770])
def test_a_folder_that_others_may_enter_is_refused(runtime: Path, wrong: int) -> None:
    runtime.mkdir()
    runtime.chmod(wrong)
    with pytest.raises(ChatError, match=f"chmod 700 {runtime}"):
        runtime_folder()
    assert mode(runtime) == wrong


def test_a_link_or_a_file_is_no_folder(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ChatError, match="is not a folder"):
        runtime_folder()
    runtime.unlink()
    runtime.write_text("")
    with pytest.raises(ChatError, match="is not a folder"):
        runtime_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(runtime: Path) -> None:
    runtime.mkdir(0o700)
    os.chown(runtime, 4711, -1)
    with pytest.raises(ChatError, match="belongs to user 4711"):
        runtime_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_nobody_else_may_own_a_part_of_the_path_in_a_shared_folder(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    make_private(shared / "mine" / "chat")
    assert mode(shared / "mine") == 0o700
    (shared / "theirs").mkdir()
    os.chown(shared / "theirs", 4711, -1)
    with pytest.raises(ChatError, match="belongs to user 4711"):
        make_private(shared / "theirs" / "chat")
    (tmp_path / "good").mkdir()
    (shared / "link").symlink_to(tmp_path / "good")
    os.chown(shared / "link", 4711, -1, follow_symlinks=False)
    with pytest.raises(ChatError, match="belongs to user 4711"):
        make_private(shared / "link" / "chat")


def test_a_shared_folder_without_the_sticky_bit_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ChatError, match=f"chmod o-w {shared}"):
        make_private(shared / "chat")


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChatError, match=r"cannot use the folder .*: not a directory"):
        make_private(tmp_path / "file" / "chat")


def test_without_the_variable_the_platform_offers_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_RUNTIME")
    (tmp_path / "xdg").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    assert runtime_folder() == tmp_path / "xdg" / "manywire"


@pytest.mark.skipif(
    sys.platform == "darwin" or Path(f"/run/user/{os.geteuid()}").exists(),
    reason="it would make a folder in this user's own runtime folder",
)
def test_where_the_platform_has_none_it_is_a_private_folder_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHAT_RUNTIME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # so that it is looked for anew
    folder = runtime_folder()  # platformdirs warns here; a warning that got out would fail this test
    assert folder == tmp_path / f"runtime-{os.geteuid()}" / "manywire"
    assert mode(folder) == mode(folder.parent) == 0o700


def test_private_files_are_read_with_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o600)
    assert read_private(path, 5) == b"12345"
    with pytest.raises(ChatError, match="longer than 4 bytes"):
        read_private(path, 4)
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "nothing", 5)


# -- the lock ------------------------------------------------------------------------------------


def test_a_room_is_held_once_and_can_be_held_again() -> None:
    desk = RoomLock.hold("tea")
    said = rf"room 'tea' is already open on this machine \(process {os.getpid()}\); join it with: chat join tea; close"
    with pytest.raises(ListenFailed, match=said):
        RoomLock.hold("tea")
    RoomLock.hold("coffee").close()
    desk.close()
    desk.close()
    RoomLock.hold("tea").close()


def test_another_process_holds_a_room() -> None:
    process = python(HOLD, "tea")
    with pytest.raises(ListenFailed, match=f"process {process.pid}"):
        RoomLock.hold("tea")
    assert find("tea").invite == "chat://x"
    finish(process)
    RoomLock.hold("tea").close()


def test_a_killed_host_stops_nobody_and_its_card_goes() -> None:
    process = python(HOLD, "tea")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    left = room_folder("tea") / "card"
    assert left.exists()
    with pytest.raises(NoSuchRoom):
        find("tea")
    assert not left.exists()
    RoomLock.hold("tea").close()


def test_the_next_host_clears_a_killed_ones_card() -> None:
    process = python(HOLD, "tea")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    desk = RoomLock.hold("tea")
    with pytest.raises(NoSuchRoom):
        find("tea")  # it is open, but nobody has said yet where
    desk.close()


def test_a_stopped_host_keeps_its_room() -> None:
    process = python(HOLD, "tea")
    process.send_signal(signal.SIGSTOP)
    try:
        assert find("tea").started == 5
        with pytest.raises(ListenFailed):
            RoomLock.hold("tea")
    finally:
        process.send_signal(signal.SIGCONT)
    finish(process)


def test_a_program_started_by_the_host_does_not_keep_the_room() -> None:
    desk = RoomLock.hold("tea")
    child = python("print('held', flush=True); input()", close_fds=False)
    try:
        assert desk._fd is not None
        os.close(desk._fd)  # without unlocking, as when a process dies
        RoomLock.hold("tea").close()
    finally:
        child.communicate("\n", timeout=30)


def test_closing_lets_go_even_if_a_forked_child_has_the_lock() -> None:
    fork = """
import os
from chat.local.rooms import RoomLock as Desk
desk = Desk.hold("tea")
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
desk.close()
Desk.hold("tea").close()
print("held", flush=True)
os.close(writing)
os.wait()
"""
    finish(python(fork))


def test_looking_never_keeps_a_host_from_opening() -> None:
    look = """
import sys
from chat.local.rooms import records as cards
print("held", flush=True)
for _ in range(5000):
    cards()
"""
    process = python(look)
    rounds = 0
    while process.poll() is None:
        RoomLock.hold("tea").close()
        rounds += 1
    finish(process)
    assert rounds > 10


# -- the card ------------------------------------------------------------------------------------


def test_cards_are_found_by_name_or_alone() -> None:
    with pytest.raises(NoSuchRoom, match="chat host"):
        find(None)
    tea = RoomLock.hold("tea")
    with pytest.raises(NoSuchRoom, match="'tea' is not open"):
        find("tea")
    tea.write(card("tea"))
    assert find(None) == find("tea") == card("tea")
    coffee = RoomLock.hold("coffee")
    coffee.write(card("coffee"))
    assert [one.room for one in records()] == ["coffee", "tea"]
    assert find("coffee").room == "coffee"
    with pytest.raises(AddressError, match=r"2 rooms .*\(coffee, tea\)"):
        find(None)
    coffee.close()
    assert find(None).room == "tea"
    tea.close()
    assert records() == []
    with pytest.raises(NoSuchRoom) as caught:
        find("tea")
    assert caught.value.exit_code == 4


def test_a_card_is_replaced_as_a_whole() -> None:
    desk = RoomLock.hold("tea")
    desk.write(card("tea"))
    with (desk.folder / "card").open("rb") as old:
        changed = card("tea")
        changed.addresses = ["queue:x"] * 50
        desk.write(changed)
        assert msgspec.json.decode(old.read(), type=RoomRecord) == card("tea")
    assert find("tea") == changed
    desk.close()
    assert list(desk.folder.iterdir()) == []


def test_a_card_shows_no_invite() -> None:
    assert "secret" not in repr(card("tea"))
    assert "tea" in repr(card("tea"))


def test_a_card_that_cannot_be_trusted_is_not_read(tmp_path: Path) -> None:
    desk = RoomLock.hold("tea")
    path = desk.folder / "card"
    good = msgspec.json.encode(card("tea"))

    def lay(content: bytes, its_mode: int = 0o600) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(its_mode)

    lay(good)
    assert records() == [card("tea")]
    for bad in (b"", b"{}", b"\xff", b"[1]", b"null", good[:-1], msgspec.json.encode(card("coffee"))):
        lay(bad)
        assert records() == []
    lay(good + b" " * (64 * 1024 - len(good)))
    assert records() == [card("tea")]
    lay(good + b" " * (64 * 1024 - len(good) + 1))
    assert records() == []
    lay(good, 0o644)
    assert records() == []
    for name in ("tea", None):
        with pytest.raises(ChatError, match=rf"card is open to other users \(mode 0644\); run: chmod 600 {path}"):
            find(name)
    path.unlink()
    (tmp_path / "aside").write_bytes(good)
    (tmp_path / "aside").chmod(0o600)
    path.symlink_to(tmp_path / "aside")
    assert records() == []
    path.unlink()
    os.mkfifo(path, 0o600)
    assert records() == []
    if os.geteuid() == 0:
        lay(good)
        os.chown(path, 4711, -1)
        assert records() == []
    lay(good)
    desk.folder.chmod(0o755)
    assert records() == []
    for name in ("tea", None):
        with pytest.raises(ChatError, match=rf"is open to other users \(mode 0755\); run: chmod 700 {desk.folder}"):
            find(name)
    desk.folder.chmod(0o700)
    assert records() == [card("tea")]
    desk.close()


def test_strange_things_in_the_runtime_folder_are_passed_over(runtime: Path) -> None:
    desk = RoomLock.hold("tea")
    desk.write(card("tea"))
    (runtime / "0123456789abcdef").write_text("")
    (runtime / "0123456789abcde0").symlink_to(runtime)
    (runtime / "0123456789abcde1").mkdir(0o700)
    (runtime / "notes").mkdir(0o700)
    assert records() == [card("tea")]
    assert not list((runtime / "notes").iterdir())
    desk.close()
