"""The outbox: real files, real processes that are killed, real limits of the system."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.client.outbox import REWRITE_AT, Outbox, outbox_folder
from chat.core.errors import ChatError, StoreError
from chat.core.outgoing import OutboxEntry

ROOT = Path(__file__).parents[2]


def entry(number: int, size: int = 10) -> OutboxEntry:
    return OutboxEntry(number, 1, 0, bytes([number % 251]) * size, id=f"m{number}", epoch=b"e" * 8, since=7)


def numbers(outbox: Outbox) -> list[int]:
    return [one.number for one in outbox.unsettled()]


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.outbox")
    return path


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; from pathlib import Path\n{code}", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outboxes" / "of-a-room"


# -- what one process does -----------------------------------------------------------------------


def test_what_was_said_is_there_for_the_next_process(folder: Path) -> None:
    said = [
        OutboxEntry(1, 1, 0, b"hi"),
        OutboxEntry(2, 3, 1, b"\xff\0", id="x", epoch=b"12345678", since=2**63),
        OutboxEntry(0, 1, 0, b""),
    ]
    with closing(Outbox.open(folder)) as outbox:
        for one in said:
            outbox.add(one)
        stream = outbox.stream
    with closing(Outbox.open(folder)) as outbox:
        assert outbox.stream == stream
        assert outbox.unsettled() == said
        assert outbox.warning == ""


def test_a_nickname_in_another_case_is_found_without_a_look_for_each_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(nick: str) -> Path:
        return outbox_folder(tmp_path, host=bytes(32), key=bytes(32), room="lobby", nick=nick)

    def look(path: str, **more: bool) -> os.stat_result:
        looked.append(path)
        return stat_of(path, **more)

    looked: list[str] = []
    stat_of = os.stat
    monkeypatch.setattr(os, "stat", look)
    used = folder("christopher")
    used.mkdir()
    looked.clear()
    assert folder("ChristopheR") == used
    assert folder("somebody-else") != used
    assert len(looked) < 10


def test_files_are_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Outbox.open(folder)) as outbox:
            outbox.add(entry(1))
            outbox.rewrite([entry(1)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    folder.chmod(0o750)
    with pytest.raises(ChatError, match="chmod 700"):
        Outbox.open(folder)


def test_an_entry_is_on_the_disk_when_add_returns(folder: Path, tmp_path: Path) -> None:
    with closing(Outbox.open(folder)) as outbox:
        for number in (1, 2, 3):
            outbox.add(entry(number))
            copy = tmp_path / f"copy{number}"
            shutil.copytree(folder, copy)
            with closing(Outbox.open(copy)) as other:
                assert other.unsettled() == outbox.unsettled()


def test_settling_drops_up_to_and_including(folder: Path) -> None:
    with closing(Outbox.open(folder)) as outbox:
        for number in range(1, 6):
            outbox.add(entry(number))
        assert outbox.settle(0) == 0
        assert outbox.settle(3) == 3
        assert numbers(outbox) == [4, 5]
        assert outbox.settle(3) == 0
        assert the_file(folder).stat().st_size > 0
        assert outbox.settle(99) == 2
        assert the_file(folder).stat().st_size == 0
        outbox.add(entry(6))
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == [6]


def test_settling_stops_where_numbers_end_or_begin_anew(folder: Path) -> None:
    with closing(Outbox.open(folder)) as outbox:
        for number in (8, 9, 3, 4, 0, 0):
            outbox.add(entry(number))
        assert outbox.settle(9) == 2
        assert numbers(outbox) == [3, 4, 0, 0]
        assert outbox.settle(9) == 2
        assert outbox.settle(9) == 0
        assert numbers(outbox) == [0, 0]


def test_a_file_of_settled_entries_is_written_anew(folder: Path) -> None:
    size = 50_000
    with closing(Outbox.open(folder)) as outbox:
        for number in range(1, 101):
            outbox.add(entry(number, size))
            outbox.settle(number - 1)
            assert the_file(folder).stat().st_size <= REWRITE_AT + 3 * (size + 100)
        assert numbers(outbox) == [100]
        outbox.add(entry(101))
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox)[-2:] == [100, 101]
        assert outbox.warning == ""


def test_new_numbers_are_kept(folder: Path) -> None:
    with closing(Outbox.open(folder)) as outbox:
        for number in (7, 8, 0):
            outbox.add(entry(number))
        entries = outbox.unsettled()
        for number, one in enumerate(entries, 4):
            one.number = number
        outbox.rewrite(entries)
        outbox.add(entry(7))
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == [4, 5, 6, 7]
        assert outbox.unsettled()[0].body == entry(7).body


def test_what_is_confirmed_stays_when_the_rest_gets_new_numbers(folder: Path) -> None:
    """The program has not dealt with it yet, and may die first."""
    with closing(Outbox.open(folder)) as outbox:
        for number in (7, 8, 9, 10):
            outbox.add(entry(number))
        assert outbox.settle(7) == 1
        outbox.rewrite([entry(5), entry(6)])
        assert numbers(outbox) == [8, 5, 6]
        assert outbox.settle(8) == 1
        assert numbers(outbox) == [5, 6]


steps = st.tuples(st.sampled_from(["add", "settle", "rewrite", "reopen"]), st.integers(0, 5), st.integers(0, 4000))


@given(st.lists(steps))
def test_the_disk_holds_what_memory_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("outbox") / "f"
    outbox = Outbox.open(folder)
    expected: list[OutboxEntry] = []  # what is unsettled
    on_disk: list[OutboxEntry] = []  # with what is settled, but not yet gone from the file
    number = 0
    for what, count, size in steps:
        if what == "add":
            number += 1
            outbox.add(entry(number, size))
            expected.append(entry(number, size))
            on_disk.append(entry(number, size))
        elif what == "settle":
            del expected[: outbox.settle(number - count)]
            if not expected:
                on_disk.clear()
        elif what == "rewrite":
            outbox.rewrite(expected[count:])  # the others stay
            on_disk = list(expected)
        else:
            outbox.close()
            outbox = Outbox.open(folder)
            expected = list(on_disk)
        assert outbox.unsettled() == expected
    outbox.close()
    with closing(Outbox.open(folder)) as outbox:
        assert outbox.unsettled() == on_disk
        assert outbox.warning == ""


# -- who has which -------------------------------------------------------------------------------


def test_two_at_a_time_never_share_and_none_pile_up(folder: Path) -> None:
    one, two = Outbox.open(folder), Outbox.open(folder)
    streams = {one.stream, two.stream}
    assert len(streams) == 2
    assert all(0 < stream < 1 << 64 for stream in streams)
    one.close()
    one.close()
    assert Outbox.open(folder).stream == one.stream
    two.close()
    with closing(Outbox.open(folder)) as again:
        assert again.stream == two.stream


def test_one_with_something_in_it_is_taken_first(folder: Path) -> None:
    for at in range(4):
        outboxes = [Outbox.open(folder) for _ in range(4)]
        full = sorted(outboxes, key=lambda outbox: outbox.stream)[at]
        full.add(entry(1))
        for outbox in outboxes:
            outbox.close()
        with closing(Outbox.open(folder)) as outbox:
            assert outbox.stream == full.stream
            assert outbox.settle(1) == 1


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    Outbox.open(folder).close()
    for name in ("notes.outbox", "00112233445566XX.outbox", "x"):
        (folder / name).write_text("mine")
    with closing(Outbox.open(folder)), closing(Outbox.open(folder)):
        assert (folder / "notes.outbox").read_text() == "mine"


def test_processes_that_come_together_each_get_their_own(folder: Path) -> None:
    code = """
from chat.client.outbox import Outbox
print("ready", flush=True)
sys.stdin.readline()
print(Outbox.open(Path(sys.argv[1])).stream, flush=True)
sys.stdin.readline()
"""

    def round_of(count: int) -> set[str]:
        processes = [python(code, folder) for _ in range(count)]
        for process in processes:
            assert line(process) == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        streams = {line(process) for process in processes}
        for process in processes:
            process.communicate("\n", timeout=30)
            assert process.returncode == 0
        assert len(streams) == count
        return streams

    first = round_of(5)
    assert round_of(5) == first  # all taken over, none made
    assert round_of(3) < first


def test_a_killed_process_leaves_all_it_added(folder: Path) -> None:
    code = """
from chat.client.outbox import Outbox
from chat.core.outgoing import OutboxEntry as Entry
outbox = Outbox.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    outbox.add(Entry(number=number, kind=1, flags=0, body=b"%d" % number * 1000))
    print(number, flush=True)
"""
    for told in (1, 30, 200):
        process = python(code, folder)
        last = [line(process) for _ in range(told)][-1]
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=30)[0].splitlines(keepends=True)
        last = [last, *(one for one in rest if one.endswith("\n"))][-1]
        with closing(Outbox.open(folder)) as outbox:
            assert outbox.warning == ""
            assert numbers(outbox) == list(range(1, len(outbox.unsettled()) + 1))
            assert len(outbox.unsettled()) >= int(last)
            assert all(one.body == b"%d" % one.number * 1000 for one in outbox.unsettled())
            outbox.settle(len(outbox.unsettled()))
        assert len(list(folder.glob("*.lock"))) == 1


def test_a_stopped_process_keeps_its_own(folder: Path) -> None:
    code = "from chat.client.outbox import Outbox\nprint(Outbox.open(Path(sys.argv[1])).stream, flush=True)\ninput()"
    process = python(code, folder)
    stream = int(line(process))
    process.send_signal(signal.SIGSTOP)
    try:
        with closing(Outbox.open(folder)) as outbox:
            assert outbox.stream != stream
    finally:
        process.send_signal(signal.SIGCONT)
    process.communicate("\n", timeout=30)


# -- damage --------------------------------------------------------------------------------------


def three_entries(folder: Path) -> tuple[bytes, list[int]]:
    """Return the file of three entries, and the sizes it had on the way."""
    ends = [0]
    with closing(Outbox.open(folder)) as outbox:
        for number in (1, 2, 3):
            outbox.add(entry(number, 4))
            ends.append(the_file(folder).stat().st_size)
    return the_file(folder).read_bytes(), ends


def test_a_torn_last_record_is_cut_off(folder: Path) -> None:
    data, ends = three_entries(folder)
    for size in range(len(data)):
        the_file(folder).write_bytes(data[:size])
        whole = sum(end <= size for end in ends[1:])
        with closing(Outbox.open(folder)) as outbox:
            assert numbers(outbox) == list(range(1, whole + 1))
            assert outbox.warning == ""
            assert the_file(folder).stat().st_size == ends[whole]
            outbox.add(entry(9, 4))
        with closing(Outbox.open(folder)) as outbox:
            assert numbers(outbox) == [*range(1, whole + 1), 9]


def test_a_flipped_bit_is_told_and_loses_nothing_before_it(folder: Path) -> None:
    data, ends = three_entries(folder)
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        the_file(folder).write_bytes(damaged)
        whole = sum(end <= at for end in ends[1:])
        with closing(Outbox.open(folder)) as outbox:
            assert outbox.unsettled() == [entry(number, 4) for number in range(1, whole + 1)]
            (aside,) = folder.glob("*.damaged-*")
            assert aside.read_bytes() == damaged
            assert f"byte {ends[whole]} of {len(data)}" in outbox.warning
            assert str(aside) in outbox.warning
            assert "\n" not in outbox.warning
            outbox.add(entry(9))
        aside.unlink()
        with closing(Outbox.open(folder)) as outbox:
            assert numbers(outbox) == [*range(1, whole + 1), 9]
            assert outbox.warning == ""


def test_damaged_files_do_not_replace_each_other(folder: Path) -> None:
    data, _ = three_entries(folder)
    for wrong in (b"x" * 40, b"y" * 40):
        the_file(folder).write_bytes(data + wrong)
        with closing(Outbox.open(folder)) as outbox:
            assert numbers(outbox) == [1, 2, 3]
    assert sorted(path.read_bytes() for path in folder.glob("*.damaged-*")) == [
        data + b"x" * 40,
        data + b"y" * 40,
    ]


def test_a_whole_record_that_is_no_entry_is_told(folder: Path) -> None:
    data, ends = three_entries(folder)
    strange = b"\xc0"  # MessagePack for nil
    record = struct.pack("!III", len(strange), ~len(strange) & 0xFFFFFFFF, zlib.crc32(strange)) + strange
    the_file(folder).write_bytes(data[: ends[1]] + record + data[ends[1] :])
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == [1]
        assert f"byte {ends[1]} of" in outbox.warning


@given(st.binary(max_size=200))
def test_junk_never_stops_us(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("outbox") / "f"
    Outbox.open(folder).close()
    the_file(folder).write_bytes(junk)
    with closing(Outbox.open(folder)) as outbox:
        assert not outbox.unsettled()
        outbox.add(entry(1))
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == [1]


# -- a disk that is full -------------------------------------------------------------------------

FULL = """
import resource
from chat.client.outbox import Outbox
from chat.core.outgoing import OutboxEntry as Entry
from chat.core.errors import StoreFull

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def entry(number):
    return Entry(number=number, kind=1, flags=0, body=b"x" * 1000)

folder = Path(sys.argv[1])
outbox = Outbox.open(folder)
path = folder / f"{outbox.stream:016x}.outbox"
"""


def run_full(folder: Path, code: str) -> str:
    process = python(FULL + code, folder)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return output


def test_a_full_disk_leaves_nothing_half_written(folder: Path) -> None:
    output = run_full(
        folder,
        """
limit(10_500)
added = 0
try:
    while True:
        outbox.add(entry(added + 1))
        added += 1
except StoreFull as error:
    assert "free some space" in str(error) and "\\n" not in str(error), error
size = path.stat().st_size
assert len(outbox.unsettled()) == added and size < 10_500, (added, size)
try:
    outbox.add(entry(99))
except StoreFull:
    assert path.stat().st_size == size
limit(resource.RLIM_INFINITY)
outbox.add(entry(added + 1))
print(added + 1)
""",
    )
    assert int(output) == 11
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == list(range(1, 12))
        assert outbox.warning == ""


def test_a_rewrite_on_a_full_disk_changes_nothing(folder: Path) -> None:
    run_full(
        folder,
        """
for number in range(5, 10):
    outbox.add(entry(number))
entries = outbox.unsettled()
for one in entries:
    one.number -= 4
limit(100)
try:
    outbox.rewrite(entries)
except StoreFull:
    limit(resource.RLIM_INFINITY)
    outbox.add(entry(10))
else:
    raise SystemExit("no StoreFull")
""",
    )
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == [5, 6, 7, 8, 9, 10]
    assert not list(folder.glob("*.new"))


def test_settling_on_a_full_disk_keeps_the_file_for_later(folder: Path) -> None:
    run_full(
        folder,
        """
for number in range(1, 1301):
    outbox.add(entry(number))
limit(100)
assert outbox.settle(1200) == 1200
assert path.stat().st_size > 1_300_000
limit(resource.RLIM_INFINITY)
assert outbox.settle(1201) == 1
assert path.stat().st_size < 110_000
""",
    )
    with closing(Outbox.open(folder)) as outbox:
        assert numbers(outbox) == list(range(1202, 1301))


def test_a_closed_outbox_takes_nothing(folder: Path, tmp_path: Path) -> None:
    outbox = Outbox.open(folder)
    outbox.close()
    # These get the numbers of the descriptors just closed.
    with (tmp_path / "a").open("w+b") as one, (tmp_path / "b").open("w+b") as two:
        with pytest.raises(StoreError):
            outbox.add(entry(1))
        assert one.read() == two.read() == b""
    with closing(Outbox.open(folder)) as outbox:
        assert not outbox.unsettled()
