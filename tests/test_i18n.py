"""chat's own words: the language is chosen when it runs, and the catalogues hold what the source has, and no more."""

from __future__ import annotations

import shutil
import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chat import i18n
from chat.core import codes
from chat.core.bodies import Answer, Notice, Refusal
from chat.core.errors import ChatError, DialFailed, Refused, Text, WrongValue
from chat.i18n import (
    LANGUAGES,
    _,
    catalogue,
    current_language,
    entries,
    later,
    plural,
    translate,
    translation,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    use("en")


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Write a Chinese catalogue, and speak it."""

    def speak(text: str) -> None:
        (tmp_path / "zh.po").write_text(text, "utf-8")
        use("zh")

    monkeypatch.setattr(i18n, "_FOLDER", tmp_path)
    return speak


# -- which language -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "environ", "spoken"),
    [
        ("auto", {}, "en"),
        ("auto", {"LANG": "zh_CN.UTF-8"}, "zh"),
        ("auto", {"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ("auto", {"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        ("auto", {"LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh"}, "zh"),
        ("auto", {"LC_CTYPE": "zh_CN.UTF-8"}, "en"),
        ("auto", {"LANG": "de_DE.UTF-8"}, "en"),
        ("zh", {"LC_ALL": "C"}, "zh"),
        ("en", {"LANG": "zh_CN.UTF-8"}, "en"),
    ],
)
def test_the_setting_and_then_the_locale_decide(setting: str, environ: dict[str, str], spoken: str) -> None:
    assert i18n.language(setting, environ) == spoken


def test_the_language_is_chosen_when_it_runs(speaks: Any) -> None:
    constant = later("{nick} came")
    assert _(constant) == constant == "{nick} came"
    speaks('msgid "{nick} came"\nmsgstr "{nick} 来了"\n')
    assert _(constant).format(nick="{nick} came") == "{nick} came 来了"
    assert constant == "{nick} came"
    assert _("not translated") == "not translated"
    use("en")
    assert _(constant) == "{nick} came"


def test_nobody_is_asked_for_the_language_before_the_first_word(speaks: Any) -> None:
    speaks('msgid "{nick} came"\nmsgstr "{nick} 来了"\n')
    asked = []

    def choose() -> str:
        asked.append("zh")
        return "zh"

    use(choose)
    assert later("{nick} came") == "{nick} came"
    assert asked == []
    assert [_("{nick} came"), _("{nick} came"), plural("1", "{count}", 2)] == ["{nick} 来了"] * 2 + ["{count}"]
    assert asked == ["zh"]
    use(choose)
    use("en")  # whoever decides later decides
    assert _("{nick} came") == "{nick} came"
    assert asked == ["zh"]


def test_plural_forms(speaks: Any) -> None:
    def lost(count: int) -> str:
        return plural("1 message", "{count} messages", count).format(count=count)

    assert [lost(count) for count in (0, 1, 2)] == ["0 messages", "1 message", "2 messages"]
    speaks('msgid "1 message"\nmsgid_plural "{count} messages"\nmsgstr[0] "{count} 条"\n')
    assert [lost(count) for count in (0, 1, 2)] == ["0 条", "1 条", "2 条"]


ERRORS = """
msgid "cannot reach {address}: {why}{advice}"
msgstr "{why}{advice}—无法连接 {address}"

msgid "connection refused"
msgstr "被拒绝"

msgid "; is it on?"
msgstr "—开着吗"

msgid "{number} is odd"
msgstr "{number} 是单数"
"""


def test_an_error_is_said_in_the_language_that_is_spoken(speaks: Any) -> None:
    why, advice = Text("connection refused"), Text("; is it on?")
    error = DialFailed("cannot reach {address}: {why}{advice}", address="{why}", why=why, advice=advice)
    assert translate(error) == str(error) == "cannot reach {why}: connection refused; is it on?"
    speaks(ERRORS)
    assert translate(error) == "被拒绝—开着吗—无法连接 {why}"
    assert str(error) == "cannot reach {why}: connection refused; is it on?"
    assert translate(WrongValue("{number} is odd", number=3)) == "3 是单数"
    wrapped = ChatError("{why}; {then}", why=WrongValue("{number} is odd", number=3), then=OSError("{number} is odd"))
    assert translate(wrapped) == "3 是单数; {number} is odd"


def test_what_varies_is_never_looked_up(speaks: Any) -> None:
    speaks(ERRORS)
    assert translate(WrongValue("{number} is odd", number="connection refused")) == "connection refused 是单数"
    assert translate("connection refused") == "connection refused"
    assert translate(ValueError("connection refused")) == "connection refused"


def test_what_a_host_says_is_phrased_by_its_code_and_its_own_text_is_left_as_it_is(speaks: Any) -> None:
    speaks(ERRORS)
    failed: dict[str, Any] = {"code": "program-name", "fields": {"why": "ECONNREFUSED", "line": "{number} is odd"}}
    assert translate(Answer(**failed, text="ha ha")) == "被拒绝; name the program: NAME={number} is odd"
    for said in ("connection refused", "{number} is odd", "{0.__class__}"):
        for coded in (
            Answer(code="new", text=said),
            Answer(text=said),
            Notice(code=said),
            Refusal(code="x", text=said),
        ):
            assert translate(coded) == said
        assert translate(Refusal(code="x", text=said).error(Refused)) == said


def test_the_language_that_is_spoken(speaks: Any) -> None:
    assert current_language() == "en"
    speaks(ERRORS)
    assert current_language() == "zh"


@pytest.mark.parametrize("table", ["REFUSALS", "NOTICES", "LOCAL", "ANSWERS", "REJECTED", "REWOUND", "REASONS"])
def test_every_code_is_in_the_catalogue(table: str) -> None:
    assert set(getattr(codes, table).values()) <= catalogue("zh").keys()


def test_every_language_has_a_catalogue_that_loads() -> None:
    for language in LANGUAGES[1:]:
        assert catalogue(language)
        use(language)


# -- catalogues -----------------------------------------------------------------------------------


def test_entries_are_read_as_gettext_writes_them() -> None:
    text = (
        '# a comment\nmsgid ""\nmsgstr ""\n"Language: zh\\n"\n\n'
        '#: a.py\n#, fuzzy\nmsgid "a \\"b\\"\\n"\n"c"\nmsgstr "d"\n'
        '#~ msgid "gone"\n#~ msgstr "去"\n\nmsgid "one"\nmsgid_plural "many"\nmsgstr[0] "\\\\ \\t"\n'
    )
    assert list(entries(text)) == [
        {"msgid": "", "msgstr": "Language: zh\n"},
        {"msgid": 'a "b"\nc', "msgstr": "d"},
        {"msgid": "one", "msgid_plural": "many", "msgstr[0]": "\\ \t"},
    ]
    assert [translation(entry) for entry in entries(text)] == ["", "d", "\\ \t"]


def test_gettext_s_own_reader_agrees(tmp_path: Path) -> None:
    msgfmt = shutil.which("msgfmt")
    if msgfmt is None:
        pytest.skip("gettext is not installed")
    import gettext

    for language in LANGUAGES[1:]:
        file = ROOT / "chat/locale" / f"{language}.po"
        subprocess.run([msgfmt, "--check", "-o", str(tmp_path / "made.mo"), str(file)], check=True, timeout=60)
        with (tmp_path / "made.mo").open("rb") as made:
            theirs = gettext.GNUTranslations(made)
        for original, said in catalogue(language).items():
            assert said in {theirs.gettext(original), theirs.ngettext(original, "", 2)}


@pytest.mark.parametrize("line", ["msgid one", '"text of nothing"', 'msgid "open', "msgstr"])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        list(entries(line))


# -- scripts/messages -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def messages() -> Any:
    loader = SourceFileLoader("script_messages", str(ROOT / "scripts/messages"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_catalogues_are_what_the_source_needs(messages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert (messages.main(["--check"]), capsys.readouterr().out) == (0, "")


SOURCE = """
HELP = later("help")
def show(count, nick):
    _("{nick} came").format(nick=nick)
    say(_(HELP), _(HELP.text), lambda: _("in a lambda"))
    plural("1 thing", "{count} things", count)
    gettext("not ours")
"""


def test_what_is_marked_is_collected(messages: Any, tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    for name in ("b.py", "a.py"):
        (tmp_path / "chat" / name).write_text(SOURCE)
    found, faults = messages.collect(tmp_path)
    assert faults == []
    assert list(found) == [("help", ""), ("{nick} came", ""), ("in a lambda", ""), ("1 thing", "{count} things")]
    assert set(map(tuple, found.values())) == {("chat/a.py", "chat/b.py")}


RAISES = """
def dial(place, error):
    raise errors.DialFailed("cannot reach {place}: {why}", place=place, why=Text("it {is} gone"))
    raise Refused("code", "{place!r} is closed", place=place) from None
    raise RemoteProtocolError(f"{place} is no f-string's")
    raise ChatError(error.words)
    raise LocalProtocolError("for programmers")
    raise ValueError("of Python")
    return Answer(code="not this"), Notice(code="not this", text="for other programs"), Refused("not this", a=1)
"""


def test_what_errors_say_is_collected(messages: Any, tmp_path: Path) -> None:
    for name in ("chat", "transports"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(RAISES)
    found, faults = messages.collect(tmp_path)
    assert faults == []
    told = ["cannot reach {place}: {why}", "{place!r} is closed", "it {is} gone"]
    assert sorted(text.one for text in found) == sorted(told)
    assert set(map(tuple, found.values())) == {("chat/a.py", "transports/a.py")}


@pytest.mark.parametrize("given", ["place=1", "place=1, why=2, more=3", "other=1, why=2"])
def test_an_error_that_is_not_given_what_its_text_needs_is_told(messages: Any, tmp_path: Path, given: str) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/a.py").write_text(f"def f():\n    raise DialFailed('{{place}}: {{why}}', {given})\n")
    assert messages.collect(tmp_path)[1][0].startswith("chat/a.py:2: the text has the placeholders ['place', 'why']")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("_(f'{nick} came')", "takes a text as it is"),
        ("_('came ' + nick)", "takes a text as it is"),
        ("_(name(nick))", "takes a text as it is"),
        ("plural('one', many, count)", "takes a text as it is"),
        ("later(nick)", "takes a text as it is"),
        ("[_('x') for _, nick in came]", "_ is a variable here"),
    ],
)
def test_a_wrong_mark_is_told(messages: Any, tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/a.py").write_text(f"def show(nick):\n    {line}\n")
    _found, faults = messages.collect(tmp_path)
    assert [fault for fault in faults if fault.startswith("chat/a.py:2: ") and words in fault]


def test_a_word_that_is_translated_too_early_is_told(messages: Any, tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/a.py").write_text("class Face:\n    help = _('help')\n")
    assert "when the module is imported" in messages.collect(tmp_path)[1][0]


def test_a_catalogue_follows_the_source(messages: Any) -> None:
    one, two = messages.Text("one {n}"), messages.Text("1 two", "{n} two")
    first = messages.updated("", "zh", {one: ["chat/a.py"], two: ["chat/a.py", "chat/b.py"]})
    assert [fault for entry in entries(first) for fault in messages.faults_in(entry)] == [
        "'one {n}' is not translated",
        "'1 two' is not translated",
    ]
    said = first.replace('{n}"\nmsgstr ""', '{n}"\nmsgstr "一 {n}"').replace('msgstr[0] ""', 'msgstr[0] "{n} 二"')
    assert [fault for entry in entries(said) for fault in messages.faults_in(entry)] == []
    gone = messages.updated(said, "zh", {two: ["chat/b.py"]})
    assert [translation(entry) for entry in entries(gone)] == ["", "{n} 二"]
    assert messages.updated(gone, "zh", {two: ["chat/b.py"]}) == gone
    assert "一" not in messages.updated(gone, "zh", {two: ["chat/b.py"]}, prune=True)
    assert messages.updated(gone, "zh", {one: ["chat/a.py"], two: ["chat/a.py", "chat/b.py"]}) == said


@pytest.mark.parametrize(
    ("original", "said", "wrong"),
    [
        ("{nick} came", "来了", True),
        ("{nick} came", "{name} 来了", True),
        ("{nick} came", "{nick} {nick} 来了", False),
        ("came", "{nick} 来了", True),
        ("{a} {b}", "{b}{a}", False),
    ],
)
def test_other_placeholders_are_told(messages: Any, original: str, said: str, wrong: bool) -> None:
    assert bool(list(messages.faults_in({"msgid": original, "msgstr": said}))) == wrong
