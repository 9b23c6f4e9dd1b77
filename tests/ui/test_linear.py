"""``chat join --plain``: all that can be said and done line by line, as a screen reader or a pipe gets it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest

from chat.client.client import Client
from chat.client.target import Target
from chat.core.bodies import Author, Direct
from chat.core.events import Here, Message
from chat.core.status import Level
from chat.core.wire import Kind
from chat.local.identity import Identity, fingerprint
from chat.local.known_hosts import KnownHosts
from chat.local.settings import DEFAULTS, Settings
from chat.transport import Address
from chat.ui import linear, moves
from chat.ui.commands import LINES, commands_of
from tests.cli.programs import CHAT, PATIENCE, Program, host, run

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from chat.client.events import ClientEvent


class Plain:
    """``chat join --plain`` on a terminal that can do nothing."""

    def __init__(self, folder: Path, nick: str, *arguments: str, columns: int = 80) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.fd, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        mode = termios.tcgetattr(theirs)
        mode[3] &= ~termios.ECHO  # what is written is to be what chat writes
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        self.written = b""
        self._told = 0  # bytes of it that have been waited past
        self.process = subprocess.Popen(
            [*CHAT, "join", f"--as={nick}", f"--data={folder}", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8", "CHAT_CONFIG": str(folder / "config.toml")},
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        self.until("you are ")
        self.until("here: ")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def type(self, line: str) -> None:
        os.write(self.fd, f"{line}\n".encode())

    def until(self, words: str) -> str:
        """Return the next line with these words in it."""
        end = time.monotonic() + PATIENCE
        while True:
            *whole, _rest = self.written[self._told :].split(b"\r\n")
            for line in whole:
                self._told += len(line) + 2
                if words in line.decode():
                    return line.decode()
            assert time.monotonic() < end, f"nobody said {words!r}; it ended with {self.written[-500:].decode()!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.written += os.read(self.fd, 65536)

    def asks(self, line: str, words: str) -> str:
        """Type a line, and return the line that answers it."""
        self.type(line)
        return self.until(words)

    def finish(self) -> int:
        self.type("/quit")
        with suppress(OSError):  # EIO: it has left
            while data := os.read(self.fd, 65536):
                self.written += data
        return self.process.wait(PATIENCE)


def number(line: str) -> int:
    """The number at the end of a message's line."""
    found = re.search(r" #(\d+)\Z", line)
    assert found, line
    return int(found[1])


def texts(folder: Path, room: str = ".") -> list[str]:
    """What the log has, without the time."""
    return [line.partition(" ")[2] for line in run(folder, "log", room).stdout.splitlines()]


def test_two_members_answer_correct_take_back_and_react_in_whole_sentences(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann, Plain(tmp_path / "ming", "小明") as ming:
        first = number(ann.asks("shall we go to Lisbon?", "Lisbon"))
        assert ming.until("Lisbon").endswith(f" ann: shall we go to Lisbon? #{first}")
        ming.type("/reply 好的")  # the last message of somebody else
        answer = ann.until("好的")
        assert answer[5:].startswith(" 小明 answers ann, “shall we go to Lisbon?”: 好的 #")
        assert ming.until("好的") == answer
        assert ann.asks(f"/react #{number(answer)} good", "not an emoji").startswith("* “good” is not an emoji; ")
        ann.type(f"/react #{number(answer)} :thumbsup:")
        assert ming.until("👍")[5:] == f" ann answers 小明, “好的”, with 👍 #{number(answer)}"
        ann.type("/edit shall we go to Porto?")  # the last message of one's own
        assert ming.until("Porto")[5:] == f" ann corrects “shall we go to Lisbon?”: shall we go to Porto? #{first}"
        assert ming.asks(f"/reply #{first} no", "no")[5:].startswith(" 小明 answers ann, “shall we go to Porto?”: no #")
        ming.asks(f"/retract #{number(answer)}", "takes back")
        assert ann.until("takes back")[5:] == f" 小明 takes back #{number(answer)}"
        ann.type("/retract")
        assert ming.until("takes back")[5:] == f" ann takes back #{first}"
        assert ming.asks(f"/reply #{first} hm", "*") == "* there is no such message"
        assert ann.finish() == 0
        assert ming.until("left") == "* ann left"


def test_a_command_without_a_text_is_about_the_next_line_and_an_empty_one_stops_it(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann, Plain(tmp_path / "bob", "bob") as bob:
        said = number(ann.asks("one\ttwo", "one"))
        bob.until("one")
        assert bob.asks("/reply", "your next line") == (
            "* your next line answers ann, “one    two”; an empty line cancels"
        )
        assert " bob answers ann, “one    two”: yes #" in bob.asks("yes", "yes")
        bob.asks(f"/quote #{said}", "your next line")
        bob.type("indeed")
        assert bob.until("> one").endswith(" bob: > one    two")
        assert bob.until("indeed")[5:].startswith(" bob: indeed #")
        bob.asks("/edit", "your next line replaces bob, “> one")
        assert bob.asks("", "cancelled") == "* cancelled; the next line is a message again"
        assert bob.asks("plain again", "plain again")[5:].startswith(" bob: plain again #")


def test_what_is_mistyped_is_answered_and_never_said(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann:
        for typed, told in (
            ("/hlep", "/hlep is not a command and was not sent; did you mean /help? //text sends /text"),
            ("/quit my job", "/quit takes no argument"),
            ("/me", "/me needs an argument"),
            ("/msg", "/msg needs an argument: /msg NICK [TEXT] (talk to one member in private)"),
            ("/room", "* lobby"),
            ("/bell", "* on, off"),
            ("/usr/bin is full", "is not a command and was not sent"),
            ("/theme dark", "/theme is for the full-screen face"),
            ("/reply", "there is no such message"),
            ("/edit #99 x", "there is no such message"),
            ("  /edit #99 x", "there is no such message"),
            ("  /hlep", "did you mean /help?"),
            ("/nick no body", "a nickname cannot hold U+0020 (space)"),
            ("/react #99999999999999999999 x", "*"),
            ("/join", "no other room is open on this machine; open one with: chat host NAME"),
            ("/rooms", "in this window: 1 #lobby"),
            ("/msg nobody hello", "there is nobody called nobody here"),
            ("/ignore nobody", "nobody called nobody"),
            ("/ignore ann", "this is you"),
            ("/ignore", "you ignore nobody"),
            ("/unignore bob", "bob is not ignored"),
            ("/who nobody", "nobody called nobody"),
            ("/who", "* here: ann"),
            ("/who", "* nobody else is here; /invite says how others come in"),
            ("/room elsewhere", "no room here is called elsewhere"),
            ("/join nowhere", "not open on this machine"),
            ("/part", "leave this room with /quit"),
            ("/search ?!", "there is nothing to search for"),
            ("/set nothing", "there is no setting nothing"),
            ("/set bell loud", "bell cannot be"),
            ("/set bell", 'bell = "mention" (mention, all, never)'),
            ("/set", "mouse = false"),
            ("/away " + "x" * 500, "the note is too long"),
            ("x" * 17_000, "the terminal cut this line at 4095 bytes, so it was not sent"),
        ):
            assert ann.asks(typed, told).startswith("* "), typed
        ann.asks("//etc/hosts", "/etc/hosts")
        ann.asks("/me waves", "* ann waves")
        assert texts(tmp_path / "ann") == ["ann: /etc/hosts", "* ann waves"]


def test_an_invite_that_is_pasted_in_lines_is_one(tmp_path: Path) -> None:
    with (
        host(tmp_path / "host"),
        host(tmp_path / "tea", "tea", "-t", "tcp:127.0.0.1:0") as tea,
        Plain(tmp_path / "ann", "ann", "lobby") as ann,
    ):
        invite = tea.seen[0]["invite"]
        for at in (30, len(invite) - 5):
            ann.asks(f"/join “{invite[:at]}", "* this is the beginning of an invite")
            ann.type("")
            ann.until("* cancelled")
        ann.type(f"/join “{invite[:30]}\n{invite[30:60]}\n{invite[60:]}”。")
        ann.until("you are ann in tea")
        ann.asks("hello", "hello")
        assert texts(tmp_path / "host", "lobby") == []
        assert texts(tmp_path / "tea", "tea") == ["ann: hello"]


ATTACKS = ("/peer x=touch {mark}", "/quit", "//x", "/var/log/x", "  /invite ", "/numbers", "/join nowhere", "/edit x")


def test_input_that_nobody_types_is_text_and_never_a_command(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    lines = [*(line.format(mark=mark) for line in ATTACKS), "ends with blanks  ", "\ttab", ":tada:", "last"]
    piped = "\n \n".join(lines)
    expected = lines * 2 + ["/quit", piped]
    hosted = run(tmp_path / "host", "host", "--plain", "--as=ann", stdin=piped)
    again = "room lobby is closed; open it again with: chat host --plain --as=ann\n"
    assert (hosted.returncode, hosted.stderr) == (0, again)
    with host(tmp_path / "host"):
        joined = run(tmp_path / "host", "join", "--as=ann", "-n0", stdin=piped.replace("\n", "\r\n"))
        assert (joined.returncode, joined.stderr) == (0, "")
        assert "each line is a message, even if it begins with a slash" in joined.stdout
        assert run(tmp_path / "host", "send", ".", "/quit").returncode == 0
        assert run(tmp_path / "host", "send", ".", stdin=piped).returncode == 0
        logged = run(tmp_path / "host", "log", "--json").stdout.splitlines()
        assert [json.loads(line)["text"] for line in logged] == expected
    assert not mark.exists()


def test_a_line_that_cannot_be_sent_is_complained_of_and_the_others_are_sent(tmp_path: Path) -> None:
    lines = (b"one", b"x" * 16_385, b"", b"caf\xe9", b"y" * 16_384, b"z" * 3_000_000, "é".encode() * 8192, b"last \xff")
    with host(tmp_path / "host"):
        command = [*CHAT, "join", "--as=ann", f"--data={tmp_path / 'ann'}"]
        done = subprocess.run(command, input=b"\r\n".join(lines), capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines() == [
            "chat: line 2 was not sent: it is longer than 16384 bytes",
            "chat: line 4 was not sent: it is not UTF-8: byte 4 is wrong",
            "chat: line 6 was not sent: it is longer than 16384 bytes",
            "chat: line 8 was not sent: it is not UTF-8: byte 6 is wrong",
        ]
        assert texts(tmp_path / "ann") == ["ann: one", f"ann: {'y' * 16_384}", f"ann: {'é' * 8192}"]
        hosted = run(tmp_path / "bob", "host", "dev", "--plain", stdin=f"{'x' * 16_385}\ngood")
        assert hosted.returncode == 1


def test_every_command_of_the_table_is_done_here_or_said_not_to_be(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann:
        for usage in commands_of(LINES):
            assert ann.asks("/help", f"* /{usage.name}").endswith(usage.help)
        assert "(Alt+" not in ann.asks("/help reply", "* /reply")


def test_who_is_here_and_what_they_are_at(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann, Plain(tmp_path / "bob", "bob") as bob:
        assert ann.until("came") == "* bob came"
        assert bob.asks("/away lunch", "shown") == "* you are shown as away"
        assert ann.asks("/who", "here: ") == "* here: ann, bob (away, just now, lunch)"
        assert bob.asks("/back", "shown") == "* you are shown as here"
        assert ann.asks("/who", "here: ") == "* here: ann, bob"
        line = number(bob.asks("hello ann", "hello ann"))
        ann.until("hello ann")
        assert ann.asks("/mention", "hello ann").endswith(f" bob: hello ann #{line}")
        key = run(tmp_path / "bob", "id", "--as=bob").stdout.strip()
        assert re.fullmatch(
            rf"\* number {line}, [\d-]+ [\d:]+, by bob, key {re.escape(key)}", ann.asks("/details", "number")
        )
        assert ann.until("disk") == "* on the host's disk; read by 1 of 1"
        told = "* path: through the host, which this window reaches over queue"
        assert re.fullmatch(rf"{re.escape(told)}\S* \(same user\)", ann.until("path"))


def test_who_is_ignored_is_not_heard(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann, Plain(tmp_path / "bob", "bob") as bob:
        bob.asks("first", "first")
        ann.until("first")
        ann.asks("/ignore bob", "messages by bob are hidden from now on; /unignore bob shows them again")
        key = run(tmp_path / "bob", "id", "--as=bob").stdout.strip()
        assert key in (tmp_path / "ann" / "config.toml").read_text()
        assert ann.asks("/ignore", "SHA256") == f"* bob  {key}"
        bob.asks("second", "second")
        ann.asks("third", "third")
        assert "second" not in ann.written.decode()
        ann.asks(f"/unignore {key[:12]}", "messages by bob are shown again")
        bob.asks("fourth", "fourth")
        ann.until("bob: fourth")
        assert bob.finish() == 0
        ann.until("bob left")
        assert ann.asks("/who bob", "bob left") == "* bob left just now; spoke last just now"
        assert ann.until("key") == f"* key {key}"
        assert ann.asks("/who ann", "ann is here") == "* ann is here; spoke last just now"


def test_what_was_said_before_is_found_and_can_be_answered(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        run(tmp_path / "bob", "send", ".", "the first word 北京", "--as=bob")
        for n in range(3):
            run(tmp_path / "bob", "send", ".", f"filler {n}", "--as=bob")
        with Plain(tmp_path / "ann", "ann", "-n", "0") as ann:
            found = ann.asks("/search 北京", "北京")
            assert " bob: the first word 北京 #" in found
            ann.type(f"/reply #{number(found)} seen")
            assert " ann answers bob, “the first word 北京”: seen #" in ann.until("seen")
            assert ann.asks("/search absent", "found") == "* nothing was found; try other words, or fewer"


def test_several_rooms_are_heard_and_one_is_talked_in(tmp_path: Path) -> None:
    with (
        host(tmp_path / "host"),
        Program(tmp_path / "host", "host", "dev", "--headless", "--json") as dev,
        Plain(tmp_path / "ann", "ann", "lobby") as ann,
        Plain(tmp_path / "bob", "bob", "lobby") as bob,
    ):
        dev.until("listening")
        assert ann.asks("/join dev", "goes to") == "* what you type goes to #dev now"
        ann.asks("in dev", "ann: in dev #")
        bob.asks("in the lobby", "in the lobby")
        assert ann.until("in the lobby").startswith("#lobby ")
        assert ann.asks("/room lobby", "goes to") == "* what you type goes to #lobby now"
        ann.asks("back here", "ann: back here #")
        bob.until("back here")
        assert ann.asks("/msg bob psst", "goes to") == "* what you type goes to @bob now"
        ann.until("ann: psst #")
        assert " in @" not in ann.written.decode()  # nobody is told the name of such a room, which is a hash
        assert bob.until("you a private message") == "* ann sent you a private message; /msg ann shows it"
        bob.asks("/msg ann yes?", "bob: yes? #")
        assert not ann.until("bob: yes?").startswith("@")
        assert ann.asks("/part", "goes to") == "* what you type goes to #lobby now"
        assert ann.finish() == 0
        assert texts(tmp_path / "cid", "lobby") == ["bob: in the lobby", "ann: back here"]
        assert texts(tmp_path / "cid", "dev") == ["ann: in dev"]


def test_nothing_is_written_that_moves_a_cursor_and_a_line_is_not_cut(tmp_path: Path) -> None:
    long = "很长的一行 " * 500
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann", columns=20) as ann:
        with Program(tmp_path / "bob", "join", "--json", "--as=bob") as bob:
            bob.until("joined")
            for text in ("\x1b[2J\x1b]0;title\x07\u202eevil", "two\nlines\r", long, "\x9b31m"):
                bob.say(text, text)
                bob.until("stored")
            ann.until("lines")
            line = ann.until("很长")
            assert line.count("很长的一行") == 500
            ann.until("31m")
        ann.asks("/who", "here")
        assert ann.finish() == 0
        written = ann.written.decode().replace("\r\n", "\n")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", written)
        assert re.search(r"bob: two\n\d\d:\d\d bob: lines", written)


def test_numbers_can_be_left_out(tmp_path: Path) -> None:
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann:
        assert number(ann.asks("one", "one"))
        ann.asks("/numbers", "are off")
        assert ann.asks("two", "two").endswith(" ann: two")
        ann.asks("/numbers", "are on")
        assert number(ann.asks("three", "three"))


@pytest.mark.parametrize("face", ["--plain", "--json"])
def test_a_reader_that_leaves_ends_it_without_a_word(tmp_path: Path, face: str) -> None:
    with host(tmp_path / "host"), Program(tmp_path / "bob", "join", "--json", "--as=bob") as bob:
        read_end, write_end = os.pipe()
        with subprocess.Popen(
            [*CHAT, "join", face, "--as=ann", f"--data={tmp_path / 'ann'}"],
            stdin=subprocess.PIPE,
            stdout=write_end,
            stderr=subprocess.PIPE,
        ) as ann:
            os.close(write_end)
            bob.until("presence", lambda event: any(who["nick"] == "ann" for who in event["came"]))
            assert os.read(read_end, 65536)
            os.close(read_end)
            bob.say("one", "1")
            assert ann.wait(PATIENCE) == -signal.SIGPIPE
            assert ann.stderr is not None
            assert ann.stderr.read() == b""


# -- what needs events that a healthy room does not have ----------------------------------------------


ANN, BOB = b"a" * 32, b"b" * 32


def face(folder: Path) -> linear.Linear:
    """A face of a client that is nowhere."""
    target = Target((Address("memory", "nowhere"),), "lobby")
    client = Client(lambda: target, Identity.load(folder / "ann.pem"), KnownHosts(folder / "hosts"), nick="ann")
    return linear.Linear(client, DEFAULTS)


def message(seq: int, text: str, kind: int = Kind.SAY, target: int = 0, *, key: bytes = BOB, ms: int = 0) -> Message:
    author = Author(index=1, key=key, stream=1, nick="bob" if key == BOB else "cid", bot=key != BOB)
    return Message(seq, ms or time.time_ns() // 1_000_000, author, kind, text, target, mine=False)


def told(face: linear.Linear, *events: ClientEvent) -> list[str]:
    return [
        re.sub(r"^\d\d:\d\d ", "", line) for event in events for line in face._lines_of(face.controller.rooms[0], event)
    ]


def test_a_new_day_is_a_line_of_its_own(tmp_path: Path) -> None:
    noon = [int(time.mktime((2026, 3, day, 12, 0, 0, 0, 0, -1))) * 1000 for day in (1, 1, 2)]
    shown = told(face(tmp_path), *(message(seq, "x", ms=ms) for seq, ms in enumerate(noon, 1)))
    assert shown == ["* 2026-03-01", "bob: x #1", "bob: x #2", "* 2026-03-02", "bob: x #3"]
    assert told(face(tmp_path), message(1, "x")) == ["bob: x #1"]  # it is today


def test_anybody_reacts_to_what_another_said(tmp_path: Path) -> None:
    shown = told(
        face(tmp_path),
        message(1, "mine"),
        message(4, "👍", Kind.REACT, 1, key=ANN),
        message(5, "", Kind.REACT, 1, key=ANN),
        message(6, "", 99, 1),
    )
    assert shown == [
        "bob: mine #1",
        "cid [bot] answers bob, “mine”, with 👍 #1",
        "cid [bot] takes back the reaction to bob, “mine” #1",
        "bob sent something of kind 99, which this version cannot show #6",
    ]


def test_what_is_about_a_message_of_before_names_its_number_once(tmp_path: Path) -> None:
    shown = told(
        face(tmp_path),
        message(11, "yes", target=7),
        message(12, "new", Kind.EDIT, 8),
        message(13, "👍", Kind.REACT, 9),
        message(14, "x" * 100),
        message(15, "long", target=14),
    )
    assert shown[:3] == ["bob answers #7: yes #11", "bob corrects #8: new", "bob answers #9, with 👍"]
    assert shown[4] == f"bob answers bob, “{'x' * 39}…”: long #15"


def test_who_by_a_link_shows_what_a_look_at_the_board_does(tmp_path: Path) -> None:
    wires = "-t", "queue", "-t", "tcp:127.0.0.1:0"
    with host(tmp_path / "host", *wires), Plain(tmp_path / "bob", "bob", "lobby") as bob:
        bob.asks("/away lunch 午饭", "you are shown as away")
        with Plain(tmp_path / "host", "Ann", "lobby", "-t", "tcp") as ann:
            ann.asks("/busy", "you are shown")
            for more in ((), ("--json",)):
                looked, linked = (
                    run(tmp_path / "host", "who", "lobby", *by, *more).stdout for by in ((), ("-t", "tcp"))
                )
                assert linked == looked != ""
            assert re.fullmatch("Ann\tbusy, just now\nbob\taway, just now, lunch 午饭\n", run(tmp_path, "who").stdout)


def test_who_types_no_line_is_away_until_the_next(tmp_path: Path) -> None:
    async def story() -> None:
        made = face(tmp_path)
        made.controller.settings = Settings(away_minutes=1)
        client = made.controller.room.client
        client.session.nick = "ann"
        made._touch()
        typed = client.shows.active
        assert made._away_later is not None
        assert made._away_later.when() - asyncio.get_running_loop().time() > 50
        made.controller.idle()  # what is called then
        assert (client.shows.level, client.shows.active) == (Level.AWAY, typed)
        made._touch()
        levels = [client.shows.level]
        client.show(level=Level.BUSY)
        made.controller.idle()
        assert [*levels, client.shows.level] == [Level.ONLINE, Level.BUSY]
        made._away_later.cancel()

    asyncio.run(story())


def test_a_muted_room_is_not_heard_from_another(tmp_path: Path) -> None:
    made = face(tmp_path)
    made.controller.rooms.append(linear.Room(face(tmp_path).controller.rooms[0].client, "bob"))
    made.controller.room = made.controller.rooms[1]
    assert told(made, Here([(BOB, "bob")], [], first=False)) == ["#lobby * bob came"]
    made.controller.settings = Settings(muted=("lobby",))
    assert told(made, message(1, "x")) == []


def test_a_direct_room_that_is_open_is_not_told_of(tmp_path: Path) -> None:
    made = face(tmp_path)
    made._is_typed = True
    news = Direct(room="@x", other=BOB, nick="bob", next_seq=2, read=1)
    assert told(made, news) == ["* you have a private room with bob; /msg bob opens it"]
    made.controller.told.clear()
    made._is_typed = False
    assert told(made, news) == ["* you have a private room with bob; a window of chat join shows it"]
    made.controller.settings = Settings(ignore=(fingerprint(BOB),))
    assert told(made, news) == []
    made.controller.settings = Settings()
    made.controller.rooms.append(linear.Room(made.controller.rooms[0].client.direct(BOB), "bob"))
    assert told(made, news) == []


def test_a_direct_room_that_is_not_opened_is_told_of_once(tmp_path: Path) -> None:
    made = face(tmp_path)
    made._is_typed = True
    news = [Direct(room="@x", other=BOB, nick="bob", next_seq=seq, read=0) for seq in range(2, 100)]
    assert [line for one in news for line in told(made, one)] == ["* bob sent you a private message; /msg bob shows it"]


def test_a_message_of_very_many_lines_does_not_take_the_terminal(tmp_path: Path) -> None:
    long = "\n".join(f"row {row}" for row in range(16_000 // 9))
    with host(tmp_path / "host"), Plain(tmp_path / "ann", "ann") as ann:
        assert run(tmp_path / "host", "send", ".", "--as=bob", stdin=long).returncode == 0
        ann.until("row 4")
        assert ann.until("more lines") == f"… {len(long.splitlines()) - 5} more lines; to read them: chat log --since 2"
        run(tmp_path / "host", "send", ".", "short", "--as=bob")
        assert "bob: short" in ann.until("short")
        assert len(run(tmp_path / "ann", "join", "--plain", "--history=9").stdout.splitlines()) > 1_000


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(moves, "monotonic", lambda: self.seconds)


def test_a_crowd_that_comes_and_goes_does_not_fill_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        clock, made = Clock(monkeypatch), face(tmp_path)
        crowd = [(n.to_bytes(32, "big"), f"n{n}") for n in range(2363)]
        crowd[6] = (BOB, "bob")
        shown = [line for who in crowd for line in told(made, Here([who], [], first=False))]
        assert shown == [f"* n{n} came" for n in range(moves.AT_ONCE)]
        assert [line for who in crowd[9:] for line in told(made, Here([], [who], first=False))] == []
        assert told(made, message(7, "hi")) == ["* n5, bob, n7, n8 came", "bob: hi #7"]
        told(made, Here([crowd[9]], [], first=False))
        clock.seconds += moves.EVERY
        assert told(made, Here(crowd[20:40], [], first=False)) == [
            "* n9, n20, n21, n22, n23, n24, n25, n26, 13 more came"
        ]
        clock.seconds += moves.EVERY * 2 * moves.AT_ONCE
        shown = [line for who in crowd[:40] for line in told(made, Here([], [who], first=False))]
        assert shown == [f"* n{n} left" for n in range(moves.AT_ONCE)]

    asyncio.run(story())


def test_what_waits_of_who_came_is_told_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "EVERY", 0.01)
    monkeypatch.setattr(moves, "AT_ONCE", 1)

    async def story() -> None:
        made, written = face(tmp_path), list[str]()
        monkeypatch.setattr(made._out, "write", lambda lines: _take(written, lines))
        for n in range(3):
            written += told(made, Here([(bytes([n]) * 32, f"n{n}")], [], first=False))
        while made._tasks:
            await asyncio.wait([*made._tasks])
        assert written[0] == "* n0 came"
        assert ", ".join(written).replace("* ", "").replace(" came", "") == "n0, n1, n2"

    asyncio.run(story())


async def _take(written: list[str], lines: list[str]) -> None:
    written += lines
