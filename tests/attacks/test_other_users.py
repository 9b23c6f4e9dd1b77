"""Other users of this machine, and what lies in the runtime folder although no host put it there."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from chat.core.errors import FAILED, UNREACHABLE, ChatError
from chat.local.rooms import RoomLock, RoomRecord, find, folder_name, room_folder
from chat.transport import Address, Site, registry
from tests.attacks.crowd import port_of
from tests.cli.programs import Program, host, run, run_here

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[2]
NOBODY: Final = 65534  # a user other than root, on every Linux

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, or give files away")
numbers = count(1)


def exchange(one: Program, other: Program) -> None:
    """Each says something, and both hear it."""
    for says in (one, other):
        text = f"bystander {next(numbers)}"
        says.say(text)
        for hears in (one, other):
            hears.until("message", lambda event, text=text: event["text"] == text)  # type: ignore[misc]


@as_root
def test_another_user_finds_every_door_closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a host makes them; then with folders that somebody has opened by mistake; then with sockets and FIFOs, too."""
    top = home.parent
    data, runtime = top / "host", top / "runtime"
    monkeypatch.setenv("CHAT_RUNTIME", str(runtime))
    top.chmod(0o711)
    options = [word for wire in ("queue", "pipe", "tcp:127.0.0.1:0?tls=0") for word in ("-t", wire)]
    with (
        host(data, *options) as hosting,
        Program(data, "join", "--json") as ann,
        Program(data, "join", "--json", "--as", "bob") as bob,
    ):
        for program in (ann, bob):
            program.until("joined")
        (address,) = (one for one in find("lobby").addresses if one.startswith("tcp"))

        def intrude() -> list[list[str]]:
            command = [sys.executable, "-m", "tests.attacks.intruder", str(NOBODY), str(port_of(address))]
            with subprocess.Popen([*command, str(data), str(runtime)], cwd=ROOT, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                exchange(ann, bob)
                done: list[list[str]] = json.load(process.stdout)
                exchange(ann, bob)
            assert done.pop() == ["the host refused: room lobby is by invite only; ask a member for an invite", "tcp"]
            return done

        found = [path for folder in (data, runtime) for path in (folder, *folder.rglob("*"))]
        folders = [path for path in found if path.is_dir()]
        doors = [path for path in found if path.is_fifo() or path.is_socket()]
        assert (len(folders), len(doors)) >= (8, 2)
        assert intrude() == []
        for path in folders:
            path.chmod(0o755)
        listings = [["list", str(path)] for path in folders]
        assert sorted(intrude()) == sorted(listings)
        for path in doors:
            path.chmod(0o666)
        (pipe,) = (path for path in doors if path.is_fifo())
        assert sorted(intrude()) == sorted([*listings, ["write to", str(pipe)]])  # which the kernel allows
        for path in (*folders, *doors):
            path.chmod(0o700)
        assert run(data, "send", "--transport=pipe", ".", "by pipe").returncode == 0
        ann.until("message", lambda event: event["text"] == "by pipe")
        told = hosting.told().splitlines()
        assert sum(f"there is user {NOBODY}'s, not yours" in line for line in told) == 1
        assert [line for line in told if "queue:" not in line and "was refused" not in line] == []


# -- the runtime folder -------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAT_RUNTIME", str(tmp_path / "run"))
    return tmp_path / "run"


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, -1, follow_symlinks=False)


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


WRONG: Final[dict[str, tuple[str, Callable[[Path], object], str]]] = {
    "the folder may be entered": (".", lambda path: path.chmod(0o755), "(mode 0755); run: chmod 700"),
    "the folder is a link": (".", link, "is not a folder; move it away"),
    "the folder is another user's": (".", give_away, f"belongs to user {NOBODY}"),
    "the room's may be entered": ("room", lambda path: path.chmod(0o710), "(mode 0710); run: chmod 700"),
    "the room's is a link": ("room", link, "'lobby' is not open"),
    "the room's is another user's": ("room", give_away, f"belongs to user {NOBODY}"),
    "the record may be read": ("room/card", lambda path: path.chmod(0o644), "(mode 0644); run: chmod 600"),
    "the record is a link": ("room/card", link, "too many levels of symbolic links"),
    "the record is another user's": ("room/card", give_away, f"belongs to user {NOBODY}"),
    "the lock is a link": ("room/lock", link, "'lobby' is not open"),
}


@pytest.mark.parametrize("name", WRONG)
def test_nobody_joins_a_room_whose_folder_or_record_is_not_its_users_alone(
    tmp_path: Path, runtime: Path, name: str
) -> None:
    place, change, why = WRONG[name]
    if change is give_away and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    lock = RoomLock.hold("lobby")
    lock.write(RoomRecord(room="lobby", addresses=["queue:/x"], host="00", invite="chat://x", pid=1, started=5))
    change(runtime / place.replace("room", folder_name("lobby")))
    sent = run_here(tmp_path / "ann", "send", "lobby", "hello")
    assert sent.returncode == (UNREACHABLE if "is not open" in why else FAILED)
    assert why in sent.stderr
    assert sent.stderr.count("\n") == 1


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", ["door", "lock", "queue", "pipe"])
def test_a_host_opens_no_room_over_a_link(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    folder = room_folder("lobby")
    (folder / name).symlink_to(victim)

    async def open_it() -> None:
        if name in ("queue", "pipe"):
            await registry.find(name).listen(Address(name), Site(folder, tmp_path / "host.pem"))
        else:
            RoomLock.hold("lobby")

    with pytest.raises(ChatError) as caught:
        asyncio.run(open_it())
    assert "\n" not in str(caught.value)
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o644)


def test_what_lies_where_a_host_writes_is_replaced_and_not_followed(tmp_path: Path, runtime: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    names = ("card", "card.new", "board", "board.new")
    for name in names:
        (room_folder("lobby") / name).symlink_to(victim)
    with host(tmp_path / "host", "-t", "queue"):
        kinds = {path.name: path.is_symlink() for path in (runtime / folder_name("lobby")).iterdir()}
        assert not any(kinds.values())
        assert kinds.keys() >= {"card", "board"}
    assert victim.read_text() == "precious"
