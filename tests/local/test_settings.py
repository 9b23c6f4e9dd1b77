"""Settings: every value is checked by itself, a broken file costs no more than what is broken, and changing one keeps
the rest of the file."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from datetime import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.core.errors import ChatError
from chat.local import settings
from chat.local.keys import KEYS, rebind
from chat.local.settings import DEFAULTS, NAMES, Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def loaded(file: Path, text: str) -> settings.Found:
    file.write_text(text, "utf-8")
    return settings.load(file)


# -- reading --------------------------------------------------------------------------------------


def test_no_file_is_all_defaults(file: Path) -> None:
    assert settings.load(file) == (file, DEFAULTS, {}, [])


def test_the_template_is_all_defaults_and_names_every_setting(file: Path) -> None:
    assert loaded(file, settings.template()) == (file, DEFAULTS, {}, [])
    found = loaded(file, re.sub(r"^#(?! )", "", settings.template(), flags=re.MULTILINE))
    assert list(found.lines) == list(NAMES)
    assert found.problems == []
    assert found.settings == msgspec.structs.replace(DEFAULTS, keys={row.action: row.keys for row in KEYS})


def test_what_is_set_is_read_with_its_place(file: Path) -> None:
    found = loaded(
        file,
        'theme = "dark"\n# a comment\nmouse = true\nmuted = ["#lobby", "小明"]\n'
        '[keys]\n\nsend = ["Alt+Enter"]\nnewline = []\n',
    )
    assert found.problems == []
    assert found.settings == Settings(
        theme="dark", mouse=True, muted=("lobby", "小明"), keys={"send": ("Alt+Enter",), "newline": ()}
    )
    assert found.lines == {"theme": 1, "mouse": 3, "muted": 4, "keys.send": 7, "keys.newline": 8}


BAD = {
    'thme = "dark"': "unknown setting 'thme'; did you mean 'theme'?",
    'theme = "drak"': 'theme cannot be "drak"; allowed: "auto", "dark", "light", "high-contrast" or "none"',
    "mouse = 1": "mouse cannot be 1; allowed: true or false",
    "away_minutes = -1": "away_minutes cannot be -1; allowed: a whole number from 0 to 1440",
    "away_minutes = true": "allowed: a whole number",
    "away_minutes = 1.5": "away_minutes cannot be 1.5; allowed",
    "away_minutes = nan": "away_minutes cannot be nan; allowed",
    "away_minutes = 2026-01-01": "away_minutes cannot be 2026-01-01; allowed",
    "paste_confirm_lines = 10001": "from 0 to 10000",
    'quiet_hours = "22-7"': "not two times",
    'quiet_hours = "24:00-07:00"': "not two times",
    'quiet_hours = "07:00-07:00"': "the two times are the same",
    'time_format = "%H:%M%n"': "one line",
    'time_format = "\\u001b[31m%H"': "one line",
    f'time_format = "{"x" * 33}"': "at most 32",
    'ignore = ["bob"]': "fingerprint",
    'ignore = ["SHA256:short"]': "fingerprint",
    'muted = "lobby"': "muted cannot be",
    'muted = ["a b"]': "space",
    "keys = 3": "keys cannot be 3; allowed: a table",
    '[keys]\nsned = ["F5"]': "did you mean 'send'?",
    '[keys]\nsend = ["x"]': "keys.send: 'x' cannot be bound",
    "[keys]\nsend = []": "no key would send",
    '[keys]\nsend = "F5"': "allowed: a list of keys",
    "[keyz]": "did you mean 'keys'?",
    "theme = ": "not TOML",
    "bell = 'all'\nbell = 'all'": "not TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_told_with_its_place_and_the_default_holds(file: Path, text: str) -> None:
    found = loaded(file, f"# first line\n{text}\n")
    (problem,) = found.problems
    assert problem.startswith(f"{file}:{2 + text.count(chr(10))}: ")
    assert BAD[text] in problem
    assert problem.isprintable()
    assert found.settings == DEFAULTS


def test_one_bad_value_costs_no_other(file: Path) -> None:
    found = loaded(file, 'bell = "loud"\ntheme = "dark"\n[keys]\nsned = ["F5"]\nsend = ["F6"]\nhelp = ["F6"]\n')
    assert found.settings == Settings(theme="dark", keys={"send": ("F6",)})
    assert [problem.split(":")[1] for problem in found.problems] == ["1", "4", "6"]
    assert settings.complaint(found.problems).startswith(f"{found.problems[0]}, and 2 more; ")


def test_keys_are_judged_together(file: Path) -> None:
    found = loaded(file, '[keys]\nnewline = ["Enter"]\nsend = ["Alt+Enter"]\n')
    assert found.problems == []
    assert found.settings.keys == {"newline": ("Enter",), "send": ("Alt+Enter",)}
    found = loaded(file, '[keys]\nhelp = ["F3"]\nnewline = ["c-m"]\n')
    assert found.problems == [f"{file}:3: keys.newline: no key would send what is typed; give one to 'send'"]
    assert found.settings.keys == {"help": ("F3",)}
    rebind(KEYS, found.settings.keys)  # which a face does without looking


def test_what_is_no_file_of_text_is_told(file: Path) -> None:
    def problem() -> str:
        found = settings.load(file)
        assert found.settings == DEFAULTS
        (told,) = found.problems
        return told.removeprefix(f"{file}:")

    file.write_bytes(b"theme = 'dark'\n\nbell = '\xff'\n")
    assert problem() == "3: this is not UTF-8 text; save it as UTF-8"
    file.write_bytes(b"#" * (settings.MAX_FILE + 1))
    assert problem() == f"1: longer than {settings.MAX_FILE} bytes; shorten it"
    file.write_text("a = " + "[" * 100_000)
    assert problem().startswith("1: this is not TOML")
    file.unlink()
    file.mkdir()
    assert problem().startswith("1: ")
    file.rmdir()
    os.mkfifo(file)
    assert problem() == "1: not a regular file; put the settings into one"
    file.unlink()
    file.symlink_to(file)
    assert problem().startswith("1: cannot be read: too many levels")


@given(st.text(), st.integers(0, 200))
def test_any_file_is_read(tmp_path_factory: pytest.TempPathFactory, text: str, at: int) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    whole = settings.template().replace("\n#", "\n")
    file.write_bytes((whole[:at] + text + whole[at:]).encode("utf-8", "surrogatepass"))
    found = settings.load(file)
    assert all(problem.startswith(f"{file}:") and "\n" not in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("hours", "quiet", "loud"),
    [
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "12:00", "21:59"]),
        ("12:30-13:00", ["12:30", "12:59"], ["13:00", "12:29", "00:00"]),
        ("", [], ["00:00", "12:00"]),
    ],
)
def test_quiet_hours(hours: str, quiet: list[str], loud: list[str]) -> None:
    chosen = Settings(quiet_hours=settings.check("quiet_hours", hours))
    assert all(chosen.is_quiet(time.fromisoformat(at)) for at in quiet)
    assert not any(chosen.is_quiet(time.fromisoformat(at)) for at in loud)


# -- writing --------------------------------------------------------------------------------------

MINE = """\
# my settings
  theme   =  'light' # not "dark" # really
time_format = "%H # %M"# a sign in a text

muted = [
  "one",  # the first
  "two",
]  # and no more
keys.send = ["F5"]
"""


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        ("theme", "dark", "'light' # not", '"dark" # not'),
        ("time_format", "%M # x", '"%H # %M"# a sign', '"%M # x"# a sign'),
        ("muted", (), '[\n  "one",  # the first\n  "two",\n]  # and', "[]  # and"),
        ("keys.send", ("F6",), '["F5"]', '["F6"]'),
        ("bell", "all", 'keys.send = ["F5"]\n', 'keys.send = ["F5"]\nbell = "all"\n'),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_changing_one_setting_leaves_the_rest(
    file: Path, name: str, value: Any, old: str, new: str, newline: str
) -> None:
    assert old in MINE
    file.write_bytes(MINE.replace("\n", newline).encode())
    settings.change(file, name, settings.check(name, value))
    assert file.read_bytes().decode() == MINE.replace(old, new).replace("\n", newline)


def test_a_new_setting_goes_where_it_belongs(file: Path) -> None:
    file.write_text('theme = "dark"\n# keys of mine\n[ keys ] # here\nhelp = ["F3"]', "utf-8")
    settings.change(file, "bell", "all")
    settings.change(file, "keys.send", ("F5",))
    found = settings.load(file)
    assert found.problems == []
    assert found.settings == Settings(theme="dark", bell="all", keys={"send": ("F5",), "help": ("F3",)})


def test_a_file_that_is_not_there_begins_with_every_default(file: Path) -> None:
    settings.change(file, "theme", "dark")
    settings.change(file, "theme", "light")
    before, after = settings.template().splitlines(), file.read_text("utf-8").splitlines()
    assert [line for line in after if line not in before] == ['theme = "light"']
    assert after[after.index('theme = "light"') - 1] == '#theme = "auto"'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ('keys = { send = ["F5"] } # mine\n', 'keys = { send = ["F6"] } # mine\n'),
        ('muted = ["""\nkeys.send = 1\n"""]\n', 'muted = ["""\nkeys.send = 1\n"""]\n\n[keys]\nsend = ["F6"]\n'),
        ("muted = ['''\n#send = 1\n''']\n[keys]\n", "muted = ['''\n#send = 1\n''']\n[keys]\nsend = [\"F6\"]\n"),
        (
            "#mouse = 1\n[keys]\n#mouse = 1\n#send = 1\n#x\n",
            '#mouse = 1\n[keys]\n#mouse = 1\n#send = 1\nsend = ["F6"]\n#x\n',
        ),
    ],
)
def test_however_the_file_is_written_one_setting_changes(file: Path, text: str, after: str) -> None:
    file.write_text(text, "utf-8")
    settings.change(file, "keys.send", ("F6",))
    assert file.read_text("utf-8") == after


@pytest.mark.parametrize(
    "text",
    [
        "[[keys]]\n",
        "keys = 3\n",
    ],
)
def test_where_keys_is_no_table_nothing_changes(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(ChatError, match="chat config edit"):
        settings.change(file, "keys.send", ("F6",))
    assert file.read_text("utf-8") == text


def test_a_broken_file_is_not_changed(file: Path) -> None:
    file.write_text("theme = \n", "utf-8")
    with pytest.raises(ChatError, match=r"config\.toml:1: this is not TOML"):
        settings.change(file, "theme", "dark")
    assert file.read_text("utf-8") == "theme = \n"


def test_a_link_stays_a_link_and_a_mode_what_it_was(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles/chat.toml"
    target.write_text("mouse = false\n", "utf-8")
    target.chmod(0o644)
    file.symlink_to(target)
    settings.change(file, "mouse", value=True)
    assert file.is_symlink()
    assert target.read_text("utf-8") == "mouse = true\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@given(st.text(st.characters(codec="utf-8")))
@example("\x7f")
def test_any_text_is_written_so_that_it_is_read_again(text: str) -> None:
    assert tomllib.loads(f"it = {settings.toml([text])}\n") == {"it": [text]}


VALUES = {
    "theme": st.sampled_from(settings.choices("theme")),
    "mouse": st.booleans(),
    "away_minutes": st.integers(0, 1440),
    "time_format": st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=32).filter(
        lambda text: not text or text.isprintable()
    ),
    "muted": st.lists(st.sampled_from(["lobby", "小明", "a.b"])).map(tuple),
    "keys.help": st.lists(st.sampled_from(["F5", "Alt+Up", "Ctrl+X ,"]), unique=True).map(tuple),
}


@given(st.lists(st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))))
def test_whatever_is_set_is_read_again(changes: list[tuple[str, Any]]) -> None:
    text = MINE
    for name, value in changes:
        text = settings.changed(Path("x"), text, name, value)
    data = tomllib.loads(text)
    for name, value in dict(changes).items():
        table, _, key = name.rpartition(".")
        assert msgspec.convert((data[table] if table else data)[key], type(value)) == value
    assert all(line in text for line in MINE.splitlines() if line.startswith("#"))


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("theme", "dark", "dark"),
        ("mouse", "true", True),
        ("away_minutes", "5", 5),
        ("quiet_hours", "", ""),
        ("time_format", "[%H]", "[%H]"),
        ("muted", "lobby, 小明,", ("lobby", "小明")),
        ("muted", '["lobby"]', ("lobby",)),
        ("muted", "", ()),
        ("keys.send", "Alt+Enter, Ctrl+X Ctrl+S", ("Alt+Enter", "Ctrl+X Ctrl+S")),
    ],
)
def test_what_is_typed_is_understood(name: str, typed: str, value: object) -> None:
    assert settings.parse(name, typed) == value


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("mouse", "yes", "true or false"),
        ("mouse", "", "true or false"),
        ("away_minutes", "5 minutes", "whole number"),
        ("keys", "{}", "like keys.send"),
        ("keys.sned", "F5", "did you mean 'send'"),
        ("x.send", "F5", "unknown setting"),
        ("__class__", "F5", "unknown setting"),
        ("is_quiet", "F5", "unknown setting"),
        ("muted", '["', "cannot be"),
    ],
)
def test_what_is_typed_wrong_is_told(name: str, typed: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings.parse(name, typed)


def test_a_new_setting_needs_its_field_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings._FIELDS, "shout_end", Annotated[str, "How a shout ends"])
    assert str(settings.allowed("shout_end")) == "any text"
    assert settings.choices("shout_end") == ()
