"""Programs as members: real hosts, real peer processes, and programs in sh, down to what is left of them."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chat.core.wire import BEAT, SILENCE
from chat.host import orphans
from tests.cli.programs import PATIENCE, Program, host, run, run_here, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
ECHO = 'while IFS= read -r line; do printf "<%s>\\n" "$line"; done'
MARK = "MANYWIRE_TEST_MARK"  # in the environment of a host, and so of all that comes from it


def sh(name: str, script: str) -> str:
    """What --peer takes to run a script."""
    return f"{name}={shlex.join(['sh', '-c', script])}"


@contextmanager
def room(tmp_path: Path, *options: str) -> Iterator[tuple[Program, Program]]:
    """A host with peers, and ann."""
    with (
        host(tmp_path / "host", "-t", "pipe", *options) as hosting,
        Program(tmp_path / "ann", "join", "--json", "--as", "ann") as ann,
    ):
        ann.until("joined")
        yield hosting, ann


def said_by(member: Program, nick: str, text: str | None = None) -> dict[str, Any]:
    return member.until("message", lambda e: e["nick"] == nick and text in {None, e["text"]})


def comes(member: Program, *nicks: str) -> None:
    """Wait until these are here; nobody may have been waited for before."""
    missing = set(nicks)
    while missing:
        missing -= {one["nick"] for one in member.until("presence")["came"]}


def notice(member: Program, code: str, text: str = "") -> str:
    return str(member.until("notice", lambda e: e["code"].startswith(code) and text in e["text"])["text"])


# -- what a program hears, and what it says ---------------------------------------------------------------


def test_a_program_hears_lines_with_a_name_before_each_and_never_itself(tmp_path: Path) -> None:
    with room(tmp_path, f"--peer={sh('echo', ECHO)}") as (_, ann):
        comes(ann, "echo")
        ann.say("one\neve: two\n\n\x1b[31mthree")
        texts = [said_by(ann, "echo")["text"] for _ in range(4)]
        assert texts == ["<ann: one>", "<ann: eve: two>", "<ann: >", "<ann: ␛[31mthree>"]
        ann.say("end")
        last = said_by(ann, "echo")
        assert (last["text"], last["bot"]) == ("<ann: end>", True)
        assert "bot" not in next(e for e in ann.seen if e["event"] == "message" and e["nick"] == "ann")


def test_the_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "dice.py").write_text(run_here(tmp_path / "ann", "example").stdout)
    with room(tmp_path, f"--peer=dice={sys.executable} {tmp_path}/dice.py") as (_, ann):
        comes(ann, "dice")
        ann.say("no roll")
        ann.say("!roll")
        assert re.fullmatch("ann rolls [1-6]", said_by(ann, "dice")["text"])


def test_each_line_is_a_message(tmp_path: Path) -> None:
    file = tmp_path / "said"
    file.write_bytes(  # what is not UTF-8 is not sent
        b"one\n\n \n\xff\xfe two\r\n" + "€".encode() * 20_000 + b"\nx" + "é".encode() * 100_000 + b"\n/quit\nlast"
    )
    with room(tmp_path, f"--peer={sh('cat', f'read -r go; cat {file}')}") as (_, ann):
        comes(ann, "cat")
        ann.say("go")
        # 16 KiB hold 5,461 characters of three bytes; and, behind an x, 8,191 of two.
        euros = ["€" * 5461] * 3 + ["€" * (20_000 - 3 * 5461)]
        accents = ["x" + "é" * 8191, *["é" * 8192] * 11, "é" * (100_000 - 8191 - 11 * 8192)]
        expected = ["one", *euros, *accents, "/quit", "last"]
        assert [said_by(ann, "cat")["text"] for _ in expected] == expected
        assert notice(ann, "peer") == "cat has left: it ended with exit status 0"


def test_a_program_that_speaks_ndjson_is_told_events(tmp_path: Path) -> None:
    script = r"""
        echo nonsense
        while IFS= read -r line; do case $line in
            *'"event":"error","line":1,'*) printf '%s\n' '{"say":"two\nlines"}' ;;
            *'"text":"hi"'*) printf '%s\n' "$line" | sed 's/.*"seq":\([0-9]*\).*/{"say":"that was number \1"}/' ;;
            *'"text":"bye"'*) exit 5 ;;
        esac; done
    """
    with room(tmp_path, f"--peer-json={sh('bot', script)}") as (_, ann):
        assert said_by(ann, "bot")["text"] == "two\nlines"
        ann.say("hi")
        seq = said_by(ann, "ann", "hi")["seq"]
        assert said_by(ann, "bot")["text"] == f"that was number {seq}"
        ann.say("bye")
        assert notice(ann, "peer").startswith("bot has left: it ended with exit status 5: 1 of 3 lines were not said")


def test_a_program_may_fall_silent_and_go_on_listening(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    script = f'exec >&-; while IFS= read -r line; do echo "$line" >>{heard}; [ "$line" = "ann: bye" ] && exit 3; done'
    with room(tmp_path, f"--peer={sh('deaf', script)}", f"--peer-json={sh('json', 'exec >&-; cat >/dev/null')}") as (
        _,
        ann,
    ):
        comes(ann, "deaf", "json")
        for text in ("one", "two", "bye"):
            ann.say(text)
        assert notice(ann, "peer") == "deaf has left: it ended with exit status 3"
        assert heard.read_text() == "ann: one\nann: two\nann: bye\n"


@pytest.mark.parametrize(("option", "line"), [("--peer", "tick"), ("--peer-json", '{"say":"tick"}')])
def test_a_program_may_close_its_input_and_go_on_speaking(tmp_path: Path, option: str, line: str) -> None:
    script = f"exec <&-; while :; do echo '{line}'; sleep 0.1; done"
    with room(tmp_path, f"{option}={sh('bot', script)}") as (_, ann):
        for number in range(4):
            said_by(ann, "bot", "tick")
            ann.say(f"heard {number}")
        assert not [e for e in ann.seen if e["event"] == "notice"]


def test_a_key_is_kept_for_each_name(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        peers = [f"--peer={sh(name, 'read -r line; echo here')}" for name in ("a", "b")]
        with room(tmp_path, *peers) as (_, ann):
            comes(ann, "a", "b")
            ann.say("go")
            found: dict[str, str] = {}
            while len(found) < 2:
                event = ann.until("message", lambda e: e["nick"] != "ann")
                found[event["nick"]] = event["key"]
            keys.append(found)
    assert keys[0] == keys[1]
    assert keys[0]["a"] != keys[0]["b"]


# -- how a program ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("read -r line; exit 7", "ended with exit status 7"),
        ("read -r line; kill -s KILL $$", "was ended by SIGKILL"),
        ("read -r line; kill -s TERM $$", "was ended by SIGTERM"),
        ("read -r line; sleep 1000 & exit 0", "ended with exit status 0"),
        ("read -r line; exec /nowhere/program 2>&-", "ended with exit status 127"),
    ],
)
def test_the_room_is_told_why_a_program_has_left(tmp_path: Path, script: str, how: str) -> None:
    with room(tmp_path, f"--peer={sh('bot', script)}") as (_, ann):
        comes(ann, "bot")
        ann.say("go")
        assert notice(ann, "peer") == f"bot has left: it {how}"


def test_a_program_that_ends_is_started_again_if_asked(tmp_path: Path) -> None:
    with room(tmp_path, f"--peer={sh('bot', 'echo $$; read -r line; exit 1')}", "--restart") as (_, ann):
        before = said_by(ann, "bot")["text"]
        ann.say("go")
        assert notice(ann, "peer") == "bot has left: it ended with exit status 1"
        assert notice(ann, "peer") == "bot is started again in 1 s"
        assert said_by(ann, "bot")["text"] != before


def test_standard_error_goes_to_the_hosts_log(tmp_path: Path) -> None:
    script = 'printf "one\\n\\ntwo\\033[31m\\n" >&2; read -r line; echo last >&2; exit 1'
    with room(tmp_path, f"--peer={sh('bot', script)}") as (hosting, ann):
        comes(ann, "bot")
        ann.say("go")
        notice(ann, "peer")
        log = hosting.errors()
        assert re.search(r"bot: one\n\s*bot: two␛\[31m\n", log), log
        assert re.search(r"bot: last\n.*bot has left: it ended with exit status 1\n", log), log


def test_who_floods_standard_error_waits_and_disturbs_nobody(tmp_path: Path) -> None:
    with room(tmp_path, f"--peer={sh('loud', 'yes >&2')}") as (hosting, ann):
        comes(ann, "loud")
        for number in range(200):
            ann.say(f"{number}", f"{number}")
        ann.until("stored", lambda e: e["id"] == "199")
        # Pacing, not a figure of speed: yes alone writes gigabytes in this time.
        assert len(hosting.errors()) < 1_000_000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--peer=/nowhere/program"], "there is no program '/nowhere/program' here"),
        (["--peer=a=nowhere-to-be-found -x"], "there is no program 'nowhere-to-be-found' here"),
        (["--peer=a=cat", "--peer-json=a=cat"], "2 programs are called a; name them: NAME=COMMAND"),
        (["--peer=cat", "--peer=cat"], "2 programs are called cat"),
        (["--peer=a='"], "check its quotes"),
        (["--peer=a="], "names no program"),
        (["--peer=a/b", "--peer="], "there is no program 'a/b' here"),
        (["--peer=...=cat"], "begins with a dash, a dot or a mark"),
    ],
)
def test_what_cannot_be_started_is_told_before_anything_is(tmp_path: Path, options: list[str], told: str) -> None:
    done = run(tmp_path / "host", "host", "--headless", "--json", "-t", "pipe", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


# -- much of it -------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_lines_come_in_order_and_cost_the_host_little(tmp_path: Path, count: int) -> None:
    """And no guard against loops holds up a program that only speaks: one turn is the limit here."""
    script = f"read -r line; seq -f %0200.0f {count}"
    with room(tmp_path, f"--peer={sh('seq', script)}", "--bot-turns=1") as (hosting, ann):
        comes(ann, "seq")
        ann.say("warm up", "1")
        before = peak(hosting)
        for number in range(1, count + 1):
            assert said_by(ann, "seq")["text"] == f"{number:0200}"
        notice(ann, "peer")
        assert not [e for e in ann.seen if e["event"] == "notice" and e["code"].startswith("loop")]
        # The log's window of 8 MiB, SQLite's caches, and for each of two members a batch of 64 KiB. The long form
        # says 23 MiB.
        assert peak(hosting) - before < 16 * 1024


def peak(program: Program) -> int:
    """The most memory it ever had, in KiB."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def test_a_quiet_program_is_not_drowned_and_disturbs_nobody(tmp_path: Path) -> None:
    """What it does not read waits, and when it reads nothing has been left out: it has asked for no echo."""
    gate = tmp_path / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.1; done; sed -n '/ann: end/{{=;q}}'"
    with room(tmp_path, f"--peer={sh('quiet', script)}") as (_, ann):
        comes(ann, "quiet")
        for number in range(8000):
            ann.say("." * 200, f"{number}")
        ann.until("stored", lambda e: e["id"] == "7999")
        ann.say("end")
        gate.touch()
        assert said_by(ann, "quiet")["text"] == "8001"
        assert not [e for e in ann.seen if e["event"] == "notice"]


def test_who_speaks_and_never_reads_goes_on_being_heard(tmp_path: Path) -> None:
    """Its echoes lie behind what it does not read: that is left out, and it is told if it reads again."""
    gate, again = tmp_path / "gate", tmp_path / "again"
    script = f"""
        while [ ! -e {gate} ]; do sleep 0.1; done
        seq 3000
        while [ ! -e {again} ]; do sleep 0.1; done
        grep --line-buffered -e 'were dropped' -e 'ann: end'
    """
    with room(tmp_path, f"--peer={sh('tail', script)}") as (_, ann):
        comes(ann, "tail")
        for number in range(8000):
            ann.say("." * 200, f"{number}")
        ann.until("stored", lambda e: e["id"] == "7999")
        gate.touch()
        for number in range(1, 3001):
            assert said_by(ann, "tail")["text"] == f"{number}"
        again.touch()
        left_out = ann.until("message", says_again(ann))["text"]
        found = re.fullmatch(r"\* (\d+) lines were dropped because they were not read", left_out)
        assert found
        assert 0 < int(found[1]) < 8000
        ann.say("end")
        said_by(ann, "tail", "ann: end")
        assert ann.texts().count(left_out) == 1


def says_again(ann: Program) -> Callable[[dict[str, Any]], bool]:
    """Say something whenever something is heard, until somebody tells of what was left out."""
    ann.say("and now?")

    def wanted(event: dict[str, Any]) -> bool:
        if "were dropped" not in event["text"]:
            ann.say("and now?")
        return "were dropped" in event["text"]

    return wanted


@pytest.mark.slow
def test_a_host_that_is_stopped_for_longer_than_members_wait_keeps_its_programs(tmp_path: Path) -> None:
    with room(tmp_path, f"--peer={sh('echo', ECHO)}") as (hosting, ann):
        comes(ann, "echo")
        os.kill(hosting.process.pid, signal.SIGSTOP)
        end = time.monotonic() + SILENCE + 2 * BEAT
        until(lambda: time.monotonic() > end, "they have heard nothing for so long")
        os.kill(hosting.process.pid, signal.SIGCONT)
        ann.say("still there?")
        said_by(ann, "echo", "<ann: still there?>")
        assert not [e for e in ann.seen if e["event"] == "notice"]


# -- loops ------------------------------------------------------------------------------------------------


def test_two_programs_that_answer_each_other_are_muted_until_a_person_speaks(tmp_path: Path) -> None:
    answer = 'while IFS= read -r line; do echo "$line"; done'
    with room(tmp_path, f"--peer={sh('a', answer)}", f"--peer={sh('b', answer)}", "--bot-turns=2") as (_, ann):
        comes(ann, "a", "b")
        for _ in range(2):
            ann.say("go")
            told = notice(ann, "loop", "muted")
            assert re.fullmatch("[ab] and other programs answer each other; they are muted until a person speaks", told)
        assert ann.finish() == 0
        # Each may have had some lines on their way when it was muted; without the guard there is no end.
        assert len([e for e in ann.seen if e["event"] == "message" and e["nick"] != "ann"]) < 100


def test_two_that_answer_each_line_with_two_are_stopped_before_they_fill_the_room(tmp_path: Path) -> None:
    answer = "while IFS= read -r line; do echo yes; echo no; done"
    with room(tmp_path, f"--peer={sh('a', answer)}", f"--peer={sh('b', answer)}", "--bot-turns=4") as (_, ann):
        comes(ann, "a", "b")
        ann.say("go")
        notice(ann, "loop", "muted")
        ann.say("how much was it?", "asked")
        ann.until("stored")
        assert len([e for e in ann.seen if e["event"] == "message"]) < 300


def test_slowed_down_first_and_a_limit_of_0_is_none(tmp_path: Path) -> None:
    answer = 'while IFS= read -r line; do echo "$line"; done'
    peers = [f"--peer={sh(name, answer)}" for name in "ab"]
    with room(tmp_path, *peers, "--bot-turns=3") as (_, ann):
        comes(ann, "a", "b")
        ann.say("go")
        assert "slowed down" in notice(ann, "loop")
    with room(tmp_path, *peers, "--bot-turns=0") as (_, ann):
        comes(ann, "a", "b")
        ann.say("go")
        for _ in range(60):
            ann.until("message", lambda e: e["nick"] != "ann")
        assert not [e for e in ann.seen if e["event"] == "notice"]


# -- what is left of them ---------------------------------------------------------------------------------

LEAVES = """
    sleep 1001 & setsid sleep 1002 & (setsid sh -c 'sleep 1003 & sleep 1004' &) ; (trap '' HUP TERM; sleep 1005) &
    yes $(printf %0999d 7) & while :; do sleep 0.2; done
"""


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[int, str]]]:
    """Return what lists the processes that come from a host of this test: they inherit its environment."""
    monkeypatch.setenv(MARK, mark := f"{random.getrandbits(64):x}")

    def alive() -> dict[int, str]:
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
        return found

    yield alive
    for pid in alive():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Its children, zombies too. Raises FileNotFoundError where there is no such process."""
    while True:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread of it has just ended: look again
            return [int(child) for task in tasks for child in task.joinpath("children").read_text().split()]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@linux
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_peers_killed_in_mid_message_leave_nothing_and_disturb_nobody(
    tmp_path: Path, rounds: int, marked: Callable[[], dict[int, str]]
) -> None:
    chance = random.Random(1)
    with room(tmp_path) as (hosting, ann):
        ann.say("hello", "hello")
        ann.until("stored")
        usual = descriptors(hosting.process.pid)
    others = set(marked())
    for round_ in range(rounds):
        names = [f"bot-{number}" for number in range(10)]
        chance.shuffle(names)
        with room(tmp_path, *(f"--peer={sh(name, flood_when_named(name))}" for name in names), "--bot-turns=0") as (
            hosting,
            ann,
        ):
            comes(ann, *names)
            pid = hosting.process.pid
            victims = {name_of(child): child for child in children(pid)}
            for name in names:
                ann.say(name)
                for _ in range(chance.randrange(1, 50)):
                    said_by(ann, name)
                if chance.random() < 0.5:
                    os.kill(victims[name], signal.SIGSTOP)
                    ann.say("somebody is stopped", f"stop {name}")
                    ann.until("stored")
                os.kill(victims[name], signal.SIGKILL)
                assert notice(ann, "peer") == f"{name} has left: it was ended by SIGKILL"
                ann.say("somebody was killed", f"kill {name}")
                ann.until("stored")
            until(lambda: not children(pid), "no child, no zombie")  # noqa: B023
            until(lambda: set(marked()) - others == {pid, ann.process.pid}, f"nothing is left of round {round_}")  # noqa: B023
            until(lambda: descriptors(pid) == usual, "as many descriptors as before")  # noqa: B023
            assert {e["code"] for e in ann.seen if e["event"] == "notice"} == {"peer-killed"}


def flood_when_named(name: str) -> str:
    return f"""
        sleep 1001 & setsid sleep 1002 & (setsid sh -c 'sleep 1003 & sleep 1004' &) ; (trap '' HUP TERM; sleep 1005) &
        while read -r line; do [ "$line" = "ann: {name}" ] && exec yes $(printf %0999d 7); done
    """


def name_of(peer: int) -> str:
    words = Path(f"/proc/{peer}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("peer") + 2]


@linux
@pytest.mark.parametrize("stopped", ["nobody", "peer", "group", "program"])
def test_nothing_is_left_of_a_killed_host_and_the_next_one_starts_at_once(
    tmp_path: Path, stopped: str, marked: Callable[[], dict[int, str]]
) -> None:
    stubborn = "trap '' HUP TERM; while :; do sleep 1; done"
    peers = [f"--peer={sh('a', LEAVES)}", f"--peer={sh('b', stubborn)}", f"--peer={sh('c', 'cat >/dev/null')}"]
    with room(tmp_path, *peers) as (hosting, ann):
        comes(ann, "a", "b", "c")
        said_by(ann, "a")
        leaders = children(hosting.process.pid)
        until(lambda: all(children(leader) for leader in leaders), "the programs are started")
        until(lambda: sum("sleep 100" in line for line in marked().values()) >= 5, "and what they start")
        ann.kill()
        for leader in leaders:
            if stopped == "peer":
                os.kill(leader, signal.SIGSTOP)
            elif stopped == "group":
                os.killpg(leader, signal.SIGSTOP)
            elif stopped == "program":
                for child in children(leader):
                    os.kill(child, signal.SIGSTOP)
        if stopped in {"peer", "group"}:
            until(lambda: {state(leader) for leader in leaders} == {"T"}, "they are stopped")
        hosting.kill()
        with host(tmp_path / "host", "-t", "pipe") as following:  # while they may still be on their way out
            until(lambda: set(marked()) == {following.process.pid}, "nothing is left")


@pytest.fixture
def adopting() -> Iterator[None]:
    """This process adopts orphans: so they stay in their parent's session, and get no SIGCONT for being orphans."""
    orphans.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(orphans._PR_SET_CHILD_SUBREAPER, 0)
    orphans._adopting = False
    with suppress(ChildProcessError):
        until(lambda: os.waitpid(-1, os.WNOHANG) is None, "no child is left")  # which is an error, and ends it


@linux
@pytest.mark.usefixtures("adopting")
def test_a_stopped_peer_is_continued_by_the_end_of_its_host(
    tmp_path: Path, marked: Callable[[], dict[int, str]]
) -> None:
    with room(tmp_path, f"--peer={sh('a', 'cat >/dev/null')}") as (hosting, ann):
        comes(ann, "a")
        (leader,) = children(hosting.process.pid)
        os.kill(leader, signal.SIGSTOP)
        until(lambda: state(leader) == "T", "it is stopped")
        hosting.kill()
        ann.kill()
        until(lambda: not marked(), "nothing is left")


@linux
def test_a_program_goes_even_when_host_and_peer_are_killed_at_once(
    tmp_path: Path, marked: Callable[[], dict[int, str]]
) -> None:
    with room(tmp_path, "--peer=sleep 1000") as (hosting, ann):
        comes(ann, "sleep")
        (leader,) = children(hosting.process.pid)
        until(lambda: children(leader), "the program is started")
        hosting.process.send_signal(signal.SIGSTOP)
        os.kill(leader, signal.SIGKILL)
        hosting.kill()
        ann.kill()
        until(lambda: not marked(), "nothing is left")


@linux
def test_who_is_to_die_with_its_parent_does_when_that_was_first() -> None:
    """Its parent ended between the fork and the request to the kernel, which then sends no signal."""
    script = """
import os
from chat.host.orphans import die_with_parent
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        pass
    die_with_parent(parent)
    print("alive", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, b"")  # its end of the pipe is closed as well


def test_a_program_is_asked_to_end_before_it_is_made_to(tmp_path: Path) -> None:
    bye = tmp_path / "bye"
    script = f"trap 'echo bye >{bye}; exit' TERM; echo ready; while :; do sleep 0.1; done"
    with room(tmp_path, f"--peer={sh('polite', script)}") as (hosting, ann):
        said_by(ann, "polite", "ready")
        hosting.process.terminate()
        assert hosting.process.wait(PATIENCE) == 0
        assert bye.read_text() == "bye\n"


@linux
def test_nothing_is_left_of_a_host_that_is_closed(tmp_path: Path, marked: Callable[[], dict[int, str]]) -> None:
    stubborn = "trap '' HUP TERM; while :; do sleep 1; done"
    with room(tmp_path, f"--peer={sh('a', LEAVES)}", f"--peer={sh('b', stubborn)}", "--restart") as (hosting, ann):
        comes(ann, "a", "b")
        said_by(ann, "a")
        os.kill(children(hosting.process.pid)[0], signal.SIGSTOP)
        ann.kill()
        hosting.process.terminate()
        assert hosting.process.wait(PATIENCE) == 0
        assert marked() == {}


@linux
def test_nothing_is_left_of_a_program_that_ends(tmp_path: Path, marked: Callable[[], dict[int, str]]) -> None:
    script = (
        "setsid sleep 1001 & (setsid sh -c 'sleep 1002 & sleep 1003' &) ; (trap '' TERM; sleep 1004) & read -r line"
    )
    with room(tmp_path, f"--peer={sh('bot', script)}") as (hosting, ann):
        comes(ann, "bot")
        until(lambda: sum("sleep 100" in line for line in marked().values()) >= 4, "all are started")
        ann.say("go")
        assert notice(ann, "peer") == "bot has left: it ended with exit status 0"
        until(lambda: set(marked()) == {hosting.process.pid, ann.process.pid}, "nothing is left")


@linux
@pytest.mark.slow
def test_a_peer_that_is_stopped_for_good_is_given_up(tmp_path: Path) -> None:
    """After 12 s of silence, and then some seconds to leave by itself."""
    with room(tmp_path, f"--peer={sh('bot', ECHO)}") as (hosting, ann):
        comes(ann, "bot")
        os.kill(children(hosting.process.pid)[0], signal.SIGSTOP)
        assert notice(ann, "peer") == "bot has left: it was ended by SIGKILL"
        assert not children(hosting.process.pid)
