"""Which language the commands speak, who decides it, and what is in English in every language."""

# ruff: noqa: RUF001 - Chinese has punctuation of its own

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chat.i18n import catalogue
from tests.cli.programs import CHAT, Program, host, run, run_here, type_into

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = "no room is open on this machine; open one with: chat host"
CHINESE = catalogue("zh")
ENGLISH_LOCALE = {"LC_ALL": "C.UTF-8", "CHAT_LANG": ""}


@pytest.mark.parametrize(
    ("arguments", "setting", "environment", "spoken"),
    [
        ("rooms", "", {}, "en"),
        ("rooms", "", {"LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ("rooms", "zh", {}, "zh"),
        ("rooms", "en", {"LC_ALL": "zh_CN.UTF-8"}, "en"),
        ("--lang zh rooms", "", {}, "zh"),
        ("rooms --lang zh", "", {}, "zh"),
        ("rooms --lang zh", "en", {}, "zh"),
        ("--lang en rooms --lang zh", "", {}, "zh"),
        ("rooms --lang en", "zh", {"LC_ALL": "zh_CN.UTF-8"}, "en"),
        ("--lang auto rooms", "zh", {}, "en"),
        ("rooms --lang auto", "en", {"LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ("rooms", "en", {"CHAT_LANG": "zh"}, "zh"),
        ("--lang en rooms", "", {"CHAT_LANG": "zh"}, "en"),
    ],
)
def test_the_option_then_the_setting_then_the_locale_decides(
    tmp_path: Path, arguments: str, setting: str, environment: dict[str, str], spoken: str
) -> None:
    config = tmp_path / "config.toml"
    if setting:
        config.write_text(f'language = "{setting}"\n')
    done = run_here(tmp_path, *arguments.split(), **ENGLISH_LOCALE | {"CHAT_CONFIG": str(config)} | environment)
    assert done.returncode == 4
    assert done.stderr == f"chat: {NO_ROOM if spoken == 'en' else CHINESE[NO_ROOM]}\n"


@pytest.mark.parametrize("arguments", ["--lang fr rooms", "rooms --lang fr"])
def test_a_language_that_is_none_gets_one_line(tmp_path: Path, arguments: str) -> None:
    done = run_here(tmp_path, *arguments.split(), **ENGLISH_LOCALE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("chat: --lang is invalid: it must be one of en, zh, auto; see: chat")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "english", "chinese"),
    [
        (
            "join nowhere",
            4,
            "room 'nowhere' is not open on this machine; open it with: chat host nowhere",
            "房间 nowhere 没有在本机打开；要打开它，请运行：chat host nowhere",
        ),
        ("join tcpp:x", 2, "unknown transport 'tcpp'; did you mean 'tcp'?", "没有传输方式 'tcpp'；也许是 'tcp'"),
        (
            "join tcp:127.0.0.1:1",
            4,
            "cannot reach tcp:127.0.0.1:1: connection refused; is a host running there?",
            "无法连接 tcp:127.0.0.1:1：连接被拒绝；那里有主机在运行吗？",
        ),
        (
            "join tcp:[::1",
            2,
            "cannot read 'tcp:[::1': the bracket is not closed",
            "无法识别 'tcp:[::1'：方括号没有闭合",
        ),
        (
            "join chat://127.0.0.1:1/lobby",
            2,
            "the invite has no # and nothing after it; copy the whole line again",
            "邀请里没有 # 和它后面的部分；请把整行重新复制一遍",
        ),
        (
            "join chat://127.0.0.1:1/lobby#abc",
            2,
            "the invite's hash of the host's key has 3 characters in place of 43; copy the whole line again",
            "邀请里的主机密钥哈希有 3 个字符，应为 43 个；请把整行重新复制一遍",
        ),
        (
            "config set theme foo",
            2,
            (
                'theme cannot be "foo"; allowed: "auto", "dark", "light", "high-contrast" or "none"; '
                "see: chat config set --help"
            ),
            (
                'theme 不能是 "foo"；允许："auto", "dark", "light", "high-contrast" 或 "none"；'
                "请看：chat config set --help"
            ),
        ),
        (
            "config set quiet_hours 7-8",
            2,
            (
                'quiet_hours cannot be "7-8" (these are not two times joined by a dash); '
                'allowed: two times like "22:00-07:00", or ""; see: chat config set --help'
            ),
            (
                'quiet_hours 不能是 "7-8"（这不是用短横连接的两个时间）；允许：两个时间，例如 "22:00-07:00"，或 ""；'
                "请看：chat config set --help"
            ),
        ),
        (
            "join --as=.x",
            2,
            (
                "the nickname begins with a dash, a dot or a mark; begin it with a letter or a digit; "
                "see: chat join --help"
            ),
            "昵称以短横、点或附加符号开头；请以字母或数字开头；请看：chat join --help",
        ),
        (
            "host --peer=nosuchprogram",
            2,
            "there is no program 'nosuchprogram' here; check the name, or give its whole path",
            "这里没有程序 'nosuchprogram'；请检查名字，或写出完整路径",
        ),
        (
            "host --roomz",
            2,
            "there is no option --roomz; see: chat host --help",
            "没有选项 --roomz；请看：chat host --help",
        ),
        ("host --peer", 2, "the option --peer needs a value", "选项 --peer 需要一个值"),
        ("send", 2, "TARGET is missing; see: chat send --help", "缺少 TARGET；请看：chat send --help"),
        (
            "log -n many",
            2,
            "-n / --history is invalid: it must be a whole number from 0 to 10000; see: chat log --help",
            "-n / --history 的值无效：应为 0 到 10000 的整数；请看：chat log --help",
        ),
        (
            "log --since 0",
            2,
            f"--since is invalid: it must be a whole number from 1 to {2**63 - 1}; see: chat log --help",
            f"--since 的值无效：应为 1 到 {2**63 - 1} 的整数；请看：chat log --help",
        ),
        (
            "completion fishy",
            2,
            "SHELL is invalid: it must be one of bash, zsh, fish; see: chat completion --help",
            "SHELL 的值无效：只能是 bash, zsh, fish 之一；请看：chat completion --help",
        ),
        (
            "rooms a b",
            2,
            "unexpected arguments: a b; see: chat rooms --help",
            "多余的参数：a b；请看：chat rooms --help",
        ),
        ("frobnicate", 2, "no such command 'frobnicate'; see: chat --help", "没有命令“frobnicate”；请看：chat --help"),
        ("hosst", 2, "no such command 'hosst'; did you mean 'host'?", "没有命令“hosst”；是不是想输入“host”？"),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isascii() and len(one) < 40 else "",
)
def test_an_error_is_in_the_language_that_is_spoken_and_its_exit_code_in_none(
    tmp_path: Path, arguments: str, code: int, english: str, chinese: str
) -> None:
    for language, told in (("en", english), ("zh", chinese)):
        done = run_here(tmp_path, "--lang", language, *arguments.split(), **ENGLISH_LOCALE)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", f"chat: {told}\n")


def test_what_is_wrong_with_the_settings_is_told_in_chinese(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('theme = "foo"\nbell = 3\n[keys]\nsend = ["q"]\n')
    done = run_here(tmp_path, "--lang=zh", "config", "check", CHAT_CONFIG=str(config))
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            f'{config}:1: theme 不能是 "foo"；允许："auto", "dark", "light", "high-contrast" 或 "none"',
            f'{config}:2: bell 不能是 3；允许："mention", "all" 或 "never"',
            f"{config}:4: keys.send: 'q' 是用来打字的，不能绑定；请加上 Ctrl+ 或 Alt+",
        ],
    )
    assert (
        "，还有 2 处；改用默认值；请看：chat config check"
        in run_here(tmp_path, "--lang=zh", "config", CHAT_CONFIG=str(config)).stderr
    )


def test_what_a_host_refuses_is_told_in_chinese_and_to_programs_in_english(tmp_path: Path) -> None:
    with host(tmp_path / "host", "--transport=tcp:127.0.0.1:0") as lobby:
        target = f"{lobby.seen[0]['address']}/lobby"
        english = "room lobby is by invite only; ask a member for an invite"
        for options, said in (((), "房间 lobby 只接受邀请；请向成员要一个邀请"), (("--lang=en",), english)):
            done = run(tmp_path / "ann", "join", "--json", target, *options, CHAT_LANG="zh")
            assert (done.returncode, done.stderr) == (3, f"chat: {said}\n")
            assert json.loads(done.stdout)["message"] == english
        invite = lobby.seen[0]["invite"]
        done = run(tmp_path / "ann", "invite", "new", invite, "--lang=zh")
        assert (done.returncode, done.stderr) == (1, "chat: 只有房间的主人可以这样要求（invite）\n")


def test_the_plain_face_tells_errors_in_chinese(tmp_path: Path) -> None:
    with host(tmp_path / "host", "-ttcp:127.0.0.1:0") as room:  # by a local transport ann would be an owner
        typed = f"/set theme foo\n/join nowhere\n/peer cat\n/away {'x' * 99}\n/ignore\n"
        invite = room.seen[0]["invite"]
        done = type_into(tmp_path / "ann", "join", invite, "--plain", "--lang=zh", "--as=ann", typed=typed)
        assert done.returncode == 0
        for told in (
            'theme 不能是 "foo"；允许："auto", "dark", "light", "high-contrast" 或 "none"',
            "房间 nowhere 没有在本机打开；要打开它，请运行：chat host nowhere",
            "只有房间的主人可以这样要求（peer）",
            "附言太长；最多 60 列、114 字节",
        ):
            assert f"* {told}\n" in done.stdout


def test_why_the_link_was_lost_is_told_in_chinese_and_to_programs_in_english(tmp_path: Path) -> None:
    english = {"event": "link", "state": "lost", "why": "queue closed the link"}
    with host(tmp_path / "host") as lobby, Program(tmp_path / "ann", "join", "--json", "--lang=zh") as ann:
        ann.until("joined")
        follows = [*CHAT, "log", "--follow", "--lang=zh", f"--data={tmp_path / 'bob'}"]
        ann.say("hello")
        with subprocess.Popen(
            follows, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as bob:
            assert bob.stdout is not None
            assert bob.stderr is not None
            try:
                assert "hello" in bob.stdout.readline()
                lobby.kill()
                assert bob.stderr.readline() == "chat: 连接断开：queue 关闭了连接；正在重新连接\n"
            finally:
                bob.kill()
        assert ann.until("link", lambda event: event["state"] == "lost") == english


def test_why_a_host_does_not_start_is_told_in_chinese_and_logged_in_english(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        done = run(tmp_path / "ann", "host", "--json", "--lang=zh")
        assert done.returncode == 1
        assert re.fullmatch(
            r"chat: 房间 lobby 已经在本机打开（进程 \d+）；要进入，请运行：chat join lobby；要关闭，请运行：kill \d+\n",
            done.stderr,
        )
        (log,) = tmp_path.glob("ann/rooms/*/host.log")
        assert re.fullmatch(
            r"chat: room 'lobby' is already open on this machine \(process \d+\); .*: chat join lobby; .*: kill \d+\n",
            log.read_text("utf-8"),
        )


def test_lists_for_people_are_translated_and_what_people_wrote_is_not(tmp_path: Path) -> None:
    said = "you are shown as away"  # as chat itself says it
    assert CHINESE[said] != said
    with host(tmp_path / "host"), Program(tmp_path / "bob", "join", "--json", "--as=bob") as bob:
        bob.until("joined")
        here = "1 member"
        assert f"\t{CHINESE[here].format(count=1)}\t" in run(tmp_path, "rooms", "--lang=zh").stdout
        typed = f"{said}\n/away {said}\n"
        member = type_into(tmp_path / "ann", "join", "--plain", "--lang=zh", "--as=ann", typed=typed)
        assert f" ann: {said} #" in member.stdout
        assert f"* {CHINESE[said]}\n" in member.stdout
        with Program(tmp_path / "ann", "join", "--json", "--as=ann") as ann:
            ann.until("joined")
        bob.say("typing", "1")
        bob.until("stored")
        assert run(tmp_path, "log", "--lang=zh").stdout.splitlines()[-1].endswith(" bob: typing")


def test_what_programs_read_is_english_in_every_language(tmp_path: Path) -> None:
    def checked(language: str) -> list[dict[str, str]]:
        done = run(tmp_path, "doctor", "--json", "--lang", language)
        return [json.loads(line) for line in done.stdout.splitlines() if '"clock"' not in line and '"disk"' not in line]

    assert checked("zh") == checked("en") != []
    with host(tmp_path / "host", "--lang=zh"), Program(tmp_path / "ann", "join", "--json", "--lang=zh") as ann:
        ann.until("joined")
        assert run(tmp_path / "ann", "who", "--json", "--lang=zh").stdout.isascii()
        assert ann.finish() == 0
        assert all(json.dumps(event).isascii() for event in ann.seen)


def test_doctor_and_the_hints_of_a_host_speak_chinese(tmp_path: Path) -> None:
    told = run(tmp_path, "doctor", "--lang=zh").stdout
    assert CHINESE["standard input or output is no terminal, so chat shows plain lines"] in told
    assert CHINESE["your key will be created on first use"] in told


def test_a_look_reads_no_settings_and_no_catalogue(tmp_path: Path) -> None:
    with host(tmp_path / "host"):
        code = "import sys; sys.argv = ['chat', 'who', '--fast']; from chat.cli.main import main; main()"
        command = [sys.executable, "-X", "importtime", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "chat.client.board_view" in loaded
        assert not loaded & {"chat.local.settings", "chat.ui.commands", "tomllib", "prompt_toolkit"}
