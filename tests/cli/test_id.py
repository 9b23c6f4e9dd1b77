"""``chat id``: one's keys, and the same one on two machines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import termios
from functools import partial
from typing import TYPE_CHECKING

import pytest

from chat.cli.home import Home
from chat.core.events import Joined, Message
from chat.local import key_file as key_file_format
from chat.local.identity import Identities, Identity
from chat.local.key_file import seal
from tests.cli.programs import Program, host, run, run_here, window
from tests.host.host_fixture import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.client.client import Client

PHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("CHAT_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """As ``export`` writes it, but for scrypt's cost: 0.3 s in each test."""
    path = tmp_path / "ann.key"
    path.write_bytes(seal(Identities(tmp_path / "other").load(), "ann", PHRASE, cost=1))
    return path


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file takes 0.3 s to write, and to read: here only where a test is about that."""
    monkeypatch.setattr(key_file_format, "seal", partial(seal, cost=1))


@pytest.fixture
def phrase(tmp_path: Path) -> str:
    (tmp_path / "phrase").write_text(f"{PHRASE}\nno part of it\n")
    return f"--passphrase-file={tmp_path / 'phrase'}"


def test_a_key_goes_to_another_machine_by_a_passphrase_that_is_typed_unseen(tmp_path: Path, phrase: str) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "my.key"
    with window(here, "id", "export", str(file), "--as=bob", echo=True) as asked:
        asked.shows("passphrase: ")
        asked.type(PHRASE)
        asked.shows("the same again: ")
        asked.type(PHRASE)
        assert asked.until("my.key").endswith("; on the other machine, run: chat id import my.key")
        asked.shows("bob had no key here, so this is a new one")
        assert PHRASE.encode() not in asked._bytes
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bob = run_here(here, "id", "--as=bob").stdout.strip()
    done = run_here(there, "id", "import", str(file), phrase)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the key of bob is {bob}\nuse it with: --as bob\n"
    assert run_here(there, "id", "show", "--as=bob").stdout.strip() == bob != run_here(there, "id").stdout.strip()
    assert b"\nscrypt 17 8 1 " in file.read_bytes()


def test_two_passphrases_that_differ_write_nothing(tmp_path: Path) -> None:
    with window(tmp_path / "me", "id", "export", str(tmp_path / "my.key")) as asked:
        asked.shows("passphrase: ")
        asked.type("one")
        asked.shows("the same again: ")
        asked.type("other")
        assert asked.until("differ") == "chat: the two passphrases differ, so nothing was written"
        assert asked.process.wait(30) == 1
    assert not (tmp_path / "my.key").exists()


@pytest.mark.parametrize("ends", ["\x03", "\x04"])
def test_who_asks_no_further_leaves_the_terminal_as_it_was(tmp_path: Path, ends: str) -> None:
    with window(tmp_path / "me", "id", "export", str(tmp_path / "my.key"), echo=True) as asked:
        asked.shows("passphrase: ")
        assert not termios.tcgetattr(asked._fd)[3] & termios.ECHO
        if ends == "\x03":
            asked.process.send_signal(signal.SIGINT)
        else:
            asked.type(ends, "")
        assert asked.process.wait(30) == 130
        assert termios.tcgetattr(asked._fd)[3] & termios.ECHO
    assert not (tmp_path / "my.key").exists()


def test_scripts_give_the_passphrase_by_a_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "my.key"
    done = run(tmp_path / "me", "id", "export", str(file), "--passphrase-file=-", stdin=f"{PHRASE}\n")
    assert (done.returncode, done.stderr) == (0, "")
    read, write = os.pipe()
    os.write(write, PHRASE.encode())
    os.close(write)
    try:
        done = run_here(tmp_path / "new", "id", "import", str(file), f"--passphrase-file=/dev/fd/{read}")
    finally:
        os.close(read)
    assert done.returncode == 0, done.stderr
    assert run_here(tmp_path / "new", "id").stdout == run_here(tmp_path / "me", "id").stdout


def test_the_key_that_was_there_is_kept_and_named(tmp_path: Path, key_file: Path, phrase: str) -> None:
    me, other = tmp_path / "me", run_here(tmp_path / "other", "id").stdout
    before = run_here(me, "id").stdout.strip()
    done = run_here(me, "id", "import", str(key_file), phrase)
    kept = me / "identity.pem.replaced-1"
    assert f"the key that was there is now {kept}; windows that are open still use it" in done.stdout
    again = run_here(me, "id", "import", str(key_file), phrase)  # which is no news
    assert (again.returncode, again.stdout.count("\n")) == (0, 1)
    done = run_here(me, "id", "new")
    assert f"the key that was there is now {me}/identity.pem.replaced-2" in done.stdout
    assert run_here(me, "id").stdout.strip() in done.stdout
    assert stat.S_IMODE((me / "identity.pem").stat().st_mode) == 0o600
    kept.rename(me / "identity.pem")  # the way back
    assert run_here(me, "id").stdout.strip() == before
    assert run_here(me, "id", "new", "--as=bob").stdout.endswith("\nuse it with: --as bob\n")
    assert run_here(me, "id", "import", str(key_file), phrase, "--as=bob").returncode == 0
    assert run_here(me, "id", "--as=bob").stdout == other


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda sealed: sealed.read_bytes()[:100], "is incomplete or damaged; copy it again"),
        (lambda _sealed: b"-----BEGIN PRIVATE KEY-----", "is no key file; chat id export writes one"),
        (lambda sealed: sealed.read_bytes().replace(b"scrypt 1 ", b"scrypt 37 "), "asks for 134217728 MiB of RAM"),
        (lambda _sealed: seal(Identity.new(), "ann", "another", cost=1), "the passphrase is wrong, or "),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line_and_changes_nothing(
    tmp_path: Path, key_file: Path, phrase: str, content: Callable[[Path], bytes], said: str
) -> None:
    before = run_here(tmp_path / "me", "id").stdout
    key_file.write_bytes(content(key_file))
    done = run_here(tmp_path / "me", "id", "import", str(key_file), phrase)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert said in done.stderr
    assert run_here(tmp_path / "me", "id").stdout == before
    assert not list((tmp_path / "me").glob("*.replaced*"))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("export", "ann.key", "PHRASE"), 1, "ann.key exists; choose another name, or remove it"),
        (("export", "none/my.key", "PHRASE"), 1, "none/my.key: no such file or directory"),
        (("export", "my.key"), 1, "there is no terminal to ask for the passphrase; use --passphrase-file"),
        (("export", "my.key", "--passphrase-file=/dev/null"), 1, "the passphrase is empty"),
        (("export", "my.key", "--passphrase-file=latin-1"), 1, "the passphrase is not UTF-8 text"),
        (("export", "my.key", "--passphrase-file=long"), 1, "longer than 4096 bytes, so it is no passphrase"),
        (("export", "my.key", "--passphrase-file=none"), 1, "none: no such file or directory"),
        (("import", "none.key", "PHRASE"), 1, "none.key: no such file or directory"),
        (("import", "ann.key", "PHRASE", "--as=a/b"), 2, "a nickname cannot hold"),
        (("--as=bob", "new"), 2, "write the options after 'new'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    *,
    tmp_path: Path,
    key_file: Path,
    phrase: str,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin-1").write_bytes(b"jos\xe9\n")
    (tmp_path / "long").write_bytes(b"x" * 5000)
    before = key_file.read_bytes()
    done = run_here(tmp_path / "me", "id", *(phrase if one == "PHRASE" else one for one in arguments))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert said in done.stderr
    assert key_file.read_bytes() == before
    assert not (tmp_path / "my.key").exists()


def test_keys_for_programs(tmp_path: Path) -> None:
    keys = [run_here(tmp_path / "me", "id", f"--as={nick}").stdout.strip() for nick in ("ann", "bob")]
    lines = run_here(tmp_path / "me", "id", "show", "--all", "--json").stdout.splitlines()
    shown = [json.loads(line) for line in lines]
    assert [(one["nick"], one["fingerprint"]) for one in shown] == list(zip(("ann", "bob"), keys, strict=True))
    assert shown[0]["key"] == Identities(tmp_path / "me").load().key.hex()


def test_one_person_is_in_a_room_from_two_machines_at_once(tmp_path: Path) -> None:
    desk, laptop = tmp_path / "desk", tmp_path / "laptop"
    Identities(laptop).replace(Identities(desk).load())
    with host(tmp_path / "host", "--open", "-ttcp:127.0.0.1:0") as room:
        target = f"{room.seen[0]['address']}/lobby"
        with Program(desk, "join", target, "--json") as one, Program(laptop, "join", target, "--json") as two:
            both = (one, two)
            people = [seat.until("joined")["me"] for seat in both]
            assert people[0] == people[1]
            assert people[0]["nick"] == "ann"
            for number in range(20):  # each with numbers of its own, at the same time
                one.say(f"desk {number}", f"d{number}")
                two.say(f"laptop {number}", f"l{number}")
            one.until("stored", lambda event: event["id"] == "d19")
            two.until("stored", lambda event: event["id"] == "l19")
            one.say("end")
            for seat in both:
                seat.until("message", lambda event: event["text"] == "end")
                assert {event["key"] for event in seat.seen if event["event"] == "message"} == {people[0]["key"]}
            texts = one.texts()
            assert texts == two.texts()
            assert [text for text in texts if text[0] == "d"] == [f"desk {number}" for number in range(20)]
            assert [text for text in texts if text[0] == "l"] == [f"laptop {number}" for number in range(20)]
            assert run(desk, "who", target).stdout.split() == ["ann"]
            assert one.finish() == 0  # and the other one stays
            two.say("still here", "last")
            two.until("stored", lambda event: event["id"] == "last")
            assert two.finish() == 0
        assert run(desk, "log", target).stdout.count("still here") == 1


def test_what_is_read_on_one_machine_is_read_on_the_other(tmp_path: Path) -> None:
    Identities(tmp_path / "laptop").replace(Identities(tmp_path / "desk").load())

    async def scene(target: str) -> None:
        def client(folder: str, nick: str = "ann") -> Client:
            return Home(tmp_path / folder).client(target, "", nick=nick, speaks=True, looks=True)

        async with client("bob", "bob") as bob, client("desk") as desk, client("laptop") as laptop:
            await bob.say("read this")
            said = await anext(event async for event in laptop if isinstance(event, Message))
            desk.board.show(read=said.seq)
            laptop.board.show(note="still unread here")

            def is_seen() -> bool:
                shown = bob.board.people()[desk.session.key, "ann"]
                return (shown.read, shown.note) == (said.seq, "still unread here")

            await until(is_seen, "both windows are seen as one person")
        async with client("laptop") as laptop:
            joined = await anext(event async for event in laptop if isinstance(event, Joined))
            assert (joined.read, joined.nick) == (said.seq, "ann")

    with host(tmp_path / "host", "--open", "-ttcp:127.0.0.1:0") as room:
        asyncio.run(scene(f"{room.seen[0]['address']}/lobby"))
