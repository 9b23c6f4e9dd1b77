"""Other users of one machine, by real ids: two of a group talk, and a third can neither read, enter nor disturb."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from chat.core.errors import DialFailed
from chat.local.shared import shared_records
from chat.transport import Address, Site
from tests.cli import programs
from tests.cli.programs import CHAT, Program, host, run
from transports import localqueue
from transports.localqueue import KIND, READY, transport

if TYPE_CHECKING:
    from collections.abc import Iterator

ANN, BOB, MALLORY, EVE = 61001, 61002, 61003, 61004
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make processes of other users"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) starts processes of other users"),
]


@pytest.fixture
def group() -> grp.struct_group:
    """A group of this machine that none of the users is in until the test says so."""
    return next(found for found in grp.getgrall() if 0 < found.gr_gid < 60_000 and found.gr_gid not in os.getgroups())


@pytest.fixture(autouse=True)
def base(home: Path) -> Path:
    """A folder like /tmp."""
    home.parent.chmod(0o711)
    folder = home.parent / "shared"
    folder.chmod(0o1777)
    return folder


@contextmanager
def user(uid: int, gid: int, base: Path) -> Iterator[Path]:
    """Have programs start as another user meanwhile; yield that user's own folder.

    The one capability lets it search folders such as root's home, where this Python may be. It opens no socket.
    """
    folder = base.parent / str(uid)
    for path in (folder, folder / "data"):
        path.mkdir(mode=0o700, exist_ok=True)
        os.chown(path, uid, uid)
    may_search = "+dac_read_search"
    start = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={gid}", f"--inh-caps={may_search}"]
    start += [f"--ambient-caps={may_search}", *CHAT]
    with (
        patch.object(programs, "CHAT", start),
        patch.dict(os.environ, {"HOME": str(folder), "CHAT_RUNTIME": str(folder / "run"), "CHAT_CONFIG": "/nowhere"}),
    ):
        yield folder / "data"


@contextmanager
def as_user(uid: int, gid: int, code: str, *arguments: object) -> Iterator[Any]:
    """Run code as a user with one more group, after its imports; yield what it prints, while it goes on."""
    drop = "import errno, fcntl, json, os, socket, sys\nos.setgroups([{1}]); os.setgid({0}); os.setuid({0})\n"
    words = [sys.executable, "-c", drop.format(uid, gid) + code + "sys.stdin.read()", *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()


DISTURB = """
folder, kind = sys.argv[1], int(sys.argv[2])
def can(what, *words):
    try:
        what(*words)
        return True
    except OSError as error:
        return errno.errorcode[error.errno]
def lock(path):
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
def connect():
    socket.socket(socket.AF_UNIX, kind).connect(folder + "/queue")
card, sock = folder + "/card", folder + "/queue"
print(json.dumps({
    "list": can(os.listdir, folder), "read": can(open, card), "connect": can(connect),
    "lock": can(lock, folder), "lock card": can(lock, card), "add": can(open, folder + "/new", "x"),
    "unlink": can(os.unlink, sock), "move": can(os.rename, folder, folder + "2"), "remove": can(os.rmdir, folder),
    "replace": can(os.rename, card, card + "2"), "wipe": can(os.truncate, card, 0),
}), flush=True)
"""
NOTHING = dict.fromkeys(("list", "read", "connect", "lock", "lock card", "add", "unlink", "replace", "wipe"), "EACCES")
NOTHING |= {"move": "EPERM", "remove": "EPERM"}


def test_two_of_a_group_talk_and_a_third_can_do_nothing(base: Path, group: grp.struct_group) -> None:
    gid = group.gr_gid
    with user(ANN, gid, base) as anns, host(anns, "--group", group.gr_name) as room:
        (folder,) = base.iterdir()
        with as_user(MALLORY, MALLORY, DISTURB, folder, int(KIND)) as done:
            assert done == NOTHING
        with (
            as_user(EVE, gid, DISTURB, folder, int(KIND)) as eves,  # whose lock and connection stay
            Program(anns, "join", "--json", "--as", "ann") as ann,
            user(BOB, gid, base) as bobs,
        ):
            assert eves == NOTHING | dict.fromkeys(("read", "connect", "lock card"), True)
            ann.until("joined")
            told = run(bobs, "rooms").stdout
            assert told.startswith(f"{ANN}/lobby\tqueue\t")
            with Program(bobs, "join", "--json", "--as", "bob") as bob:
                bob.until("joined")
                bob.say("hello ann")
                assert ann.until("message")["nick"] == "bob"
                ann.say("hello bob")
                bob.until("message", lambda event: event["text"] == "hello bob")
                ann.write('{"command": "who", "id": "w"}')
                people = ann.until("done")["people"]
                assert {one["nick"]: one["user"] for one in people} == {"ann": str(ANN), "bob": str(BOB)}
                assert {one["nick"]: one["state"] for one in people} == {"ann": "online", "bob": "online"}
                with user(ANN, gid, base):  # whose board does not have the login names
                    assert sorted(run(anns, "who").stdout.split("\n")) == ["", f"ann ({ANN})", f"bob ({BOB})"]
                assert bob.finish() == 0
            assert run(bobs, "who", f"{ANN}/lobby").stdout == f"ann ({ANN})\n"
        with user(MALLORY, MALLORY, base) as mallorys:
            done = run(mallorys, "join", f"{ANN}/lobby")
            assert done.stderr == f"chat: no room {ANN}/lobby is open to you on this machine; see: chat rooms\n"
            assert done.returncode == 4
        room.process.terminate()
        assert room.process.wait(programs.PATIENCE) == 0
    assert list(base.iterdir()) == []


def test_whoever_passes_the_mode_is_refused_by_the_host(base: Path, group: grp.struct_group) -> None:
    """Root, which no mode stops, and is not in the group."""
    with user(ANN, group.gr_gid, base) as anns, host(anns, "--group", group.gr_name) as room:
        (folder,) = base.iterdir()
        with socket.socket(socket.AF_UNIX, KIND) as sock:
            sock.settimeout(programs.PATIENCE)
            sock.connect(str(folder / "queue"))
            assert sock.recv(1) == b""
        programs.until(lambda: f"user 0 is not in group {group.gr_gid}" in room.told(), "the host's log says so")


SQUAT = """
base, kind, card = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.umask(0o022)
alive = []
for name in ("manywire-61001", "manywire-61001-aaaaaaaa"):
    os.mkdir(base + "/" + name)
    with open(base + "/" + name + "/card", "w") as file:
        file.write(card)
    alive.append(sock := socket.socket(socket.AF_UNIX, kind))
    sock.bind(base + "/" + name + "/queue")
    sock.listen()
    os.chmod(base + "/" + name + "/queue", 0o666)
print("true", flush=True)
"""


def test_a_name_that_another_user_took_misleads_nobody(base: Path, group: grp.struct_group) -> None:
    """Mallory has folders that look like ann's, with a copy of her card and a socket."""
    with user(ANN, group.gr_gid, base) as anns, host(anns, "--everyone"):
        (folder,) = base.iterdir()
        card = (folder / "card").read_text()
        with as_user(MALLORY, MALLORY, SQUAT, base, int(KIND), card) as done:
            assert done
            assert sorted(record.name for record in shared_records()) == [f"{ANN}/lobby"] + [f"{MALLORY}/lobby"] * 2
            taken = base / "manywire-61001" / "queue"
            with pytest.raises(DialFailed, match=f"is user {MALLORY}'s, mode 0755; only user {ANN} may own it"):
                asyncio.run(dial(Address("queue", str(taken), {"user": str(ANN)})))
            with user(BOB, BOB, base) as bobs:
                which = run(bobs, "send", "lobby", "hello")
                assert (which.returncode, "61001/lobby, 61003/lobby" in which.stderr) == (2, True)
                assert run(bobs, "send", f"{ANN}/lobby", "hello").returncode == 0


async def dial(address: Address) -> None:
    await (await transport.dial(address)).aclose()


def test_a_socket_in_anothers_name_is_not_talked_to(base: Path) -> None:
    """Ann owns the folder, but mallory listens: say, at a socket that ann once let her make."""
    folder = base / "manywire-x"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    os.chown(folder, ANN, -1)
    with socket.socket(socket.AF_UNIX, KIND) as sock:
        sock.bind(str(folder / "queue"))
        os.seteuid(MALLORY)
        try:
            sock.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(DialFailed, match=f"process {os.getpid()} there is user {MALLORY}'s, not user {ANN}'s"):
            asyncio.run(dial(Address("queue", str(folder / "queue"), {"user": str(ANN)})))


def connect_as(uid: int, path: Path, most: int = 1) -> list[socket.socket]:
    """Connect as another user: the kernel takes down whose process it is then. Fewer times if the backlog is full."""
    made: list[socket.socket] = []
    os.seteuid(uid)
    try:
        while len(made) < most:
            made.append(sock := socket.socket(socket.AF_UNIX, KIND))
            sock.setblocking(False)
            if sock.connect_ex(str(path)):
                break
    finally:
        os.seteuid(0)
    return made


@pytest.fixture
def listener(base: Path) -> Address:
    """Where to listen for everyone."""
    folder = base / "manywire-x"
    folder.mkdir()
    folder.chmod(0o711)
    return Address("queue", str(folder / "queue"), {"user": "0", "everyone": "yes"})


def test_one_user_who_floods_a_socket_keeps_nobody_waiting(listener: Address) -> None:
    async def main() -> list[int | None]:
        async with aclosing(await transport.listen(listener, Site(Path(), Path()))) as door:
            flood = connect_as(EVE, Path(listener.place), 10 * READY)
            bob = connect_as(BOB, Path(listener.place))
            users = []
            while BOB not in users:
                async with aclosing(await door.accept()) as link:
                    users.append(link.peer.uid)
            assert flood[0].recv(1) == b""  # the oldest gave way
            for sock in flood + bob:
                sock.close()
        return users

    assert len(asyncio.run(main())) <= READY


def test_a_full_backlog_is_dialled_again(listener: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with aclosing(await transport.listen(listener, Site(Path(), Path()))) as door:
            flood = connect_as(EVE, Path(listener.place), 100)
            assert len(flood) < 100
            dialling = asyncio.ensure_future(transport.dial(listener))
            await asyncio.sleep(0)  # it has found the backlog full
            assert not dialling.done()
            while not dialling.done():
                await (await door.accept()).aclose()
            await (await dialling).aclose()
            for sock in flood:
                sock.close()

    monkeypatch.setattr(localqueue, "BACKLOG", 2)
    asyncio.run(main())


def test_a_banned_user_comes_back_with_no_other_key(base: Path) -> None:
    """The ban also works when its target has left."""
    with user(ANN, ANN, base) as anns, host(anns, "--everyone"):
        with user(BOB, BOB, base) as bobs:
            assert run(bobs, "send", f"{ANN}/lobby", "you all stink", "--as", "troll").returncode == 0
        assert run(anns, "room", "ban", "lobby", "troll", "1h").stdout.startswith("owner has banned troll until ")
        with user(BOB, BOB, base) as bobs:
            again = run(bobs, "send", f"{ANN}/lobby", "me again", "--as", "somebody")
        assert (again.returncode, again.stderr.count("\n")) == (3, 1)
        assert (
            "somebody is banned from room lobby who comes from the same address as you, or as the same" in again.stderr
        )
        with user(EVE, EVE, base) as eves:
            assert run(eves, "send", f"{ANN}/lobby", "hello").returncode == 0
