"""transports.shm, beyond the contract: deaths, damage, take-overs, and whose file it is."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from chat.core.errors import ChatError
from chat.core.status import Status, pack_slot
from chat.transport import MAX_SLOT
from chat.transport.registry import boards, find_board
from transports import shm
from transports.shm import SIZE, SLOT_SIZE, SLOTS, Shm, _header, board

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transports.shm import ShmBoard, ShmSlot

POSIX = Shm(shm._POSIX)

WRITER = """
import os, sys
from pathlib import Path
from transports import shm
maker = shm.Shm(shm._POSIX if sys.argv[2] == "posix" else shm._OFD)
board = (maker.create if sys.argv[3] == "host" else maker.open)(Path(sys.argv[1]))
slots = [board.claim() for _ in range(int(sys.argv[4]))]
for slot in slots:
    slot.write(b"%d" % os.getpid())
print(*(slot.index for slot in slots), flush=True)
sys.stdin.read()
"""


class Writer:
    """Another process, which shows its process id in some slots until it is killed."""

    def __init__(self, folder: Path, slots: int = 1, *, locks: str = "best", role: str = "member") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), locks, role, str(slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.indices = [int(word) for word in self.process.stdout.readline().split()]
        self.shows = dict.fromkeys(self.indices, b"%d" % self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def shown(seen: ShmBoard) -> dict[int, bytes]:
    """What a board shows, with the kernel asked about everybody."""
    return {index: payload for index, payload, _age in seen.read(trust_ms=0)}


def claim(seen: ShmBoard, payload: bytes = b"") -> ShmSlot:
    slot = seen.claim()
    assert slot is not None
    if payload:
        slot.write(payload)
    return slot


def claim_all(seen: ShmBoard) -> set[int]:
    indices: set[int] = set()
    while (slot := seen.claim()) is not None:
        assert slot.index not in indices
        indices.add(slot.index)
    return indices


def raw_slot(payload: bytes, *, version: int = 7, age: int = 0, length: int | None = None) -> bytes:
    """A slot as docs/reference/board.md has it. ``age`` is in milliseconds."""
    beat = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 - age
    record = struct.pack("!QQH234s", version, beat, len(payload) if length is None else length, payload)
    return record + struct.pack("!I", zlib.crc32(record))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of another program's, as it were. It has no locks; closing it drops POSIX locks of this process."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def put(path: Path, data: bytes, at: int) -> None:
    with opened(path) as fd:
        os.pwrite(fd, data, at)


# -- the file -------------------------------------------------------------------------------------


def test_it_comes_in_by_the_door() -> None:
    assert "shm" in boards()
    assert find_board("shm") is board


@pytest.mark.usefixtures("leaves_nothing")
def test_the_file_is_ours_alone_and_allocated_whole(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        board.create(tmp_path).close()
    finally:
        os.umask(old)
    facts = (tmp_path / "board").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_size, facts.st_uid) == (0o600, SIZE, os.geteuid())
    assert facts.st_blocks * 512 >= SIZE  # no holes: a full disk cannot stop a write later
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_a_process_has_one_descriptor_however_often_it_opens(tmp_path: Path) -> None:
    with closing(board.create(tmp_path)) as first, closing(board.open(tmp_path)) as second:
        assert first._file is second._file
        assert not first._file.spares
    assert not shm._files


def test_a_member_needs_a_host_who_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match=r"^there is no board in .*; a host makes it$"):
        board.open(tmp_path)
    assert not list(tmp_path.iterdir())


def spoil(path: Path, way: str) -> None:
    """Put something else in the place of a sound board."""
    if way == "open to others":
        path.chmod(0o644)
    elif way == "cut short":
        os.truncate(path, SIZE - 1)
    elif way == "longer":
        os.truncate(path, SIZE + 1)
    elif way == "empty":
        os.truncate(path, 0)
    elif way == "another start":
        put(path, bytes(16), 16)
    elif way == "another layout":
        put(path, b"\0\2", 8)
    else:
        whole = path.read_bytes()
        path.unlink()
        if way == "link":
            path.with_name("elsewhere").write_bytes(whole)
            path.with_name("elsewhere").chmod(0o600)
            path.symlink_to("elsewhere")
        elif way == "fifo":
            os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("open to others", r"is open to other users \(mode 0644\); its host makes a new one"),
        ("cut short", f"has {SIZE - 1} bytes, not {SIZE}"),
        ("longer", f"has {SIZE + 1} bytes"),
        ("empty", rf"has \d+ bytes, not {SIZE}"),
        ("another start", "is damaged, or was made by another version or before this machine was started"),
        ("another layout", "is damaged, or was made by another version"),
        ("link", "cannot open the board .*symbolic link"),
        ("fifo", "is not a plain file"),
        ("removed", "there is no board"),
    ],
)
@pytest.mark.usefixtures("leaves_nothing")
def test_what_is_not_as_it_must_be_is_refused_by_members_and_replaced_by_a_host(
    tmp_path: Path, way: str, told: str
) -> None:
    with closing(board.create(tmp_path)) as before:
        mine = claim(before, b"mine")
        assert before.sound()
        spoil(tmp_path / "board", way)
        assert not before.sound()
        before.read()
        mine.beat()
        with pytest.raises(ChatError, match=told) as raised:
            board.open(tmp_path)
        assert "\n" not in str(raised.value)
        with closing(board.create(tmp_path)) as after, closing(board.open(tmp_path)) as member:
            assert after.sound()
            assert not before.sound()  # members notice at their next beat, and claim again
            claim(member, b"again")
            assert list(shown(after).values()) == [b"again"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    board.create(tmp_path).close()
    os.chown(tmp_path / "board", 12345, -1)
    with pytest.raises(ChatError, match="belongs to user 12345, and you are user 0"):
        board.open(tmp_path)


def test_what_cannot_be_replaced_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    for refused in (board.open, board.create):
        with pytest.raises(ChatError, match=r"^cannot (open|make) the board .*/board: is a directory$"):
            refused(tmp_path)


def test_a_full_disk_is_said_when_the_board_is_made_and_not_later(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from transports.shm import board\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE - 1}, resource.RLIM_INFINITY))\n"
        "board.create(Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert f"ChatError: cannot make the board {tmp_path}/board: file too large" in done.stderr
    assert not (tmp_path / "board").exists()
    board.create(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


# -- deaths ---------------------------------------------------------------------------------------


def kill_in_random_order(folder: Path, kills: int, seed: int, locks: str = "best") -> None:
    chance = random.Random(seed)
    with closing(board.create(folder)) as host, ExitStack() as stack:
        writers: list[Writer] = []
        for _ in range(kills):
            while len(writers) < 4:
                writers.append(stack.enter_context(Writer(folder, chance.randint(1, 300), locks=locks)))
            writers.pop(chance.randrange(len(writers))).kill()
            assert shown(host) == {index: pid for writer in writers for index, pid in writer.shows.items()}
        for writer in writers:
            writer.kill()
        assert shown(host) == {}
        assert claim_all(host) == set(range(SLOTS))


@pytest.mark.parametrize("locks", ["best", "posix"])
def test_no_cell_leaks_when_writers_are_killed(tmp_path: Path, locks: str) -> None:
    kill_in_random_order(tmp_path, kills=8, seed=1, locks=locks)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_no_cell_leaks_when_writers_are_killed_many_times(tmp_path: Path, seed: int) -> None:
    kill_in_random_order(tmp_path, kills=100, seed=seed)


def test_the_next_host_takes_over_what_a_dead_one_left(tmp_path: Path) -> None:
    with Writer(tmp_path, 20, role="host") as host, Writer(tmp_path) as member:
        file = (tmp_path / "board").stat().st_ino
        host.kill()
        with closing(board.create(tmp_path)) as after:
            assert (tmp_path / "board").stat().st_ino == file
            assert shown(after) == member.shows
            assert claim_all(after) == set(range(SLOTS)) - set(member.indices)
            assert shown(after) == member.shows


def test_the_dead_are_shown_until_their_heartbeat_is_5_s_old_and_the_living_are_asked_for(tmp_path: Path) -> None:
    with closing(board.create(tmp_path)) as host, Writer(tmp_path, 3) as alive, Writer(tmp_path, 3) as dead:
        dead.kill()
        for ours, theirs, age in zip(alive.indices, dead.indices, (2_000, 6_000, -6_000), strict=True):
            for index in (ours, theirs):
                put(tmp_path / "board", raw_slot(b"%d" % age, age=age), 256 * (1 + index))
        found = {index: (payload, age) for index, payload, age in host.read()}
        young, old, future = alive.indices
        assert set(found) == {young, old, future, dead.indices[0]}
        assert 2_000 <= found[young][1] < found[old][1]
        assert found[old][1] >= 6_000  # a stopped process, say: it is for those who look to judge
        assert found[future][1] == 0  # the heartbeat of another start of the machine
        put(tmp_path / "board", raw_slot(b"back", version=8), 256 * (1 + dead.indices[1]))
        assert (dead.indices[1], b"back") in [reading[:2] for reading in host.read()]


@pytest.mark.usefixtures("leaves_nothing")
def test_a_forked_child_has_no_part_in_its_parents_slots(tmp_path: Path) -> None:
    """It would keep them alive after a kill -9 of its parent, and claim them all once more."""
    ours, theirs = os.pipe()
    board.create(tmp_path).close()
    parent = os.fork()
    if not parent:
        try:
            mine = board.open(tmp_path)
            slot = claim(mine, b"parent")
            if not os.fork():
                told = b"%d " % os.getpid()
                for use in (mine.claim, mine.read, mine.sound, slot.beat):
                    try:
                        use()
                    except ChatError as error:
                        told += b"." if "closed in this process, or before it was forked" in str(error) else b"?"
                slot.close()
                mine.close()
                os.write(theirs, told)
            signal.pause()
        finally:
            os._exit(1)  # whatever happened: the rest of this test is not for the children
    os.close(theirs)
    child_said = os.read(ours, 100)
    os.close(ours)
    dead = False
    try:
        assert child_said.split()[1] == b"...."
        with closing(board.open(tmp_path)) as seen:
            assert list(shown(seen).values()) == [b"parent"]
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            dead = True
            assert shown(seen) == {}  # although the child lives
            assert len(claim_all(seen)) == SLOTS
    finally:
        os.kill(int(child_said.split()[0]), signal.SIGKILL)
        if not dead:
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_harm_nobody_for_longer_than_a_beat(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with ExitStack() as stack:
        host = stack.enter_context(closing(board.create(tmp_path)))
        member = stack.enter_context(closing(board.open(tmp_path)))
        slots = [claim(host, b"host %d" % number) for number in range(50)] + [claim(member, b"member")]
        due = shown(host)
        assert shown(member) == due
        for _ in range(10):
            at = chance.choice((0, chance.randrange(SIZE)))
            put(tmp_path / "board", chance.randbytes(chance.choice((1, 300, SIZE)))[: SIZE - at], at)
            late = board.open(tmp_path) if host.sound() else None
            for each in (host, member):
                assert shown(each) == due  # the last good copy of each
            if late is not None:
                assert shown(late).items() <= due.items()
                late.close()
                for slot in slots:
                    slot.beat()
            else:
                host, member = (stack.enter_context(closing(made(tmp_path))) for made in (board.create, board.open))
                slots = [claim(host, b"host %d" % number) for number in range(50)] + [claim(member, b"member")]
                due = shown(host)
            with closing(board.open(tmp_path)) as newcomer:
                assert shown(newcomer) == shown(member) == shown(host) == due
        assert claim_all(host) == set(range(SLOTS)) - {slot.index for slot in slots}


@pytest.mark.parametrize("length", [MAX_SLOT + 1, 65_535])
def test_a_length_that_cannot_be_is_not_believed_though_the_crc_is_right(tmp_path: Path, length: int) -> None:
    with closing(board.create(tmp_path)) as host:
        slot = claim(host, b"good")
        assert list(shown(host).values()) == [b"good"]
        put(tmp_path / "board", raw_slot(b"bad", length=length), 256 * (1 + slot.index))
        assert list(shown(host).values()) == [b"good"]
        with closing(Shm().open(tmp_path)) as newcomer:
            assert shown(newcomer) == {}


def test_a_dead_writers_damaged_cell_goes_away_too(tmp_path: Path) -> None:
    with closing(board.create(tmp_path)) as host, Writer(tmp_path) as writer:
        assert shown(host) == writer.shows
        put(tmp_path / "board", b"junk", 256 * (1 + writer.indices[0]) + 20)
        assert shown(host) == writer.shows
        writer.kill()
        assert shown(host) == {}


@pytest.mark.parametrize("version", [2**64 - 1, 2**64 - 2, 0])
def test_the_version_goes_on_after_the_last_one(tmp_path: Path, version: int) -> None:
    with closing(board.create(tmp_path)) as host:
        for index in range(SLOTS):
            put(tmp_path / "board", raw_slot(b"old", version=version, age=9_000), 256 * (1 + index))
        assert shown(host) == {}
        slot = claim(host)
        for payload in (b"a", b"b", b"c"):
            slot.write(payload)
            assert shown(host) == {slot.index: payload}


# -- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [board, POSIX], ids=["best", "posix"])
def test_a_full_board_says_so_until_somebody_leaves(tmp_path: Path, maker: Shm) -> None:
    with closing(maker.create(tmp_path)) as host, closing(maker.open(tmp_path)) as member:
        slots = [claim(host) for _ in range(SLOTS)]
        assert host.claim() is None
        assert member.claim() is None
        slots[77].close()
        assert claim(member).index == slots[77].index
        assert host.claim() is None
    with closing(maker.open(tmp_path)) as after, Writer(tmp_path, 1):
        assert len(claim_all(after)) == SLOTS - 1


def test_what_has_not_changed_is_the_same_object(tmp_path: Path) -> None:
    with closing(board.create(tmp_path)) as host:
        slot = claim(host, b"hello")
        ((_, first, _),) = host.read()
        ((_, second, _),) = host.read()
        assert first is second
        slot.write(b"hello, hello")
        assert list(shown(host).values()) == [b"hello, hello"]


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    with closing(board.create(tmp_path)) as host, closing(board.open(tmp_path)) as member:
        slot, other = claim(host, b"mine"), claim(member, b"other")
        host.close()
        for use in (host.claim, host.read, host.sound, slot.beat):
            with pytest.raises(ChatError, match="closed here"):
                use()
        assert shown(member) == {other.index: b"other"}


def test_a_thousand_cells_are_one_descriptor(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(board.create(tmp_path)) as host:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())), hard))
        try:
            assert len(claim_all(host)) == SLOTS
            assert host.read() == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_free_descriptor_a_sound_board_stays_sound(tmp_path: Path) -> None:
    _header.cache_clear()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    with closing(board.create(tmp_path)) as host:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            assert host.sound()
            _header.cache_clear()
            with pytest.raises(OSError, match="Too many open files"):  # and no header that makes it look damaged
                host._file.fault()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in taken:
                os.close(fd)
        assert host.sound()


# -- what docs/reference/board.md says ------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/reference/board.md").read_text("utf-8")


def test_another_program_reads_it_by_the_page_alone(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    with closing(board.create(tmp_path)) as host:
        slots = [claim(host, pack_slot(bytes(32), nick, Status(note="x"))) for nick in ("ann", "小明", "x" * 32, "dan")]
        claim(host, b"no state")
        claim(host)
        slots[0].close()
        at = 256 * (1 + slots[3].index)
        put(tmp_path / "board", raw_slot(pack_slot(bytes(32), "dan", Status()), age=15_001), at)
        put(tmp_path / "board", raw_slot(pack_slot(bytes(32), "of-another-start", Status()), age=-60_000), 256 * SLOTS)
        command = [sys.executable, "-I", "-X", "utf8", "-c", code, str(tmp_path / "board")]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
        assert done.stdout.splitlines() == [
            nick for _, nick in sorted(zip((slot.index for slot in slots[1:3]), ("小明", "x" * 32), strict=True))
        ]


def test_the_pages_tables_add_up_and_are_those_of_the_code() -> None:
    tables = [
        [(int(at), size) for at, size in re.findall(r"^\| (\d+) \| ([\d to]+) \|", part, re.MULTILINE)]
        for part in PAGE.split("\n## ")[1:4]
    ]
    for table in tables:
        assert table[0][0] == 0
        for (at, size), (then, _) in pairwise(table):
            assert at + int(size) == then
    file, slot, payload = tables
    assert file[-1] == (SLOT_SIZE, str(SLOT_SIZE))
    assert [size for _, size in slot] == ["8", "8", "2", str(MAX_SLOT), "4"]
    assert sum(int(size) for _, size in slot) == SLOT_SIZE
    assert payload[-1][0] + int(payload[-1][1].removeprefix("0 to ")) == MAX_SLOT
