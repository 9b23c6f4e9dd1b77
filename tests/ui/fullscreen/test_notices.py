"""What the window tells outside of its screen: never a peer's text, and nothing that ends a sequence early."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from chat.local.settings import DEFAULTS, Settings
from chat.ui.fullscreen import notices
from chat.ui.fullscreen.notices import kind_of, notification, title
from tests.ui.fullscreen.stage import IN, Ringing, Script, Stage, message, run, staged

if TYPE_CHECKING:
    from chat.ui.fullscreen.keyboard import Keyboard

HOSTILE = "\x1b]0;x\x07\x9c;4;\n\u202e" + "x" * 99
STRING = re.compile("\x1b\\](?P<text>[^\x00-\x1f\x7f-\x9f]*)\x1b\\\\")


class Told(Ringing):
    """An output that keeps what is written past the screen, and titles."""

    def __init__(self) -> None:
        super().__init__(80, 24)
        self.raw: list[str] = []
        self.titles: list[str] = []

    def write_raw(self, data: str) -> None:
        if data.startswith("\x1b"):
            self.raw.append(data)

    def set_title(self, title: str) -> None:
        self.titles.append(title)


class Focus:
    """Stands in for a keyboard."""

    def __init__(self, has_focus: bool | None) -> None:
        self.has_focus = has_focus


def told(
    *texts: str,
    kind: Literal["bell", "auto", "osc9", "osc99", "osc777"] = "osc9",
    focus: bool | None = None,
    nick: str = "小明",
    room: str = "lobby",
    **settings: Any,
) -> Told:
    """What a window tells of these messages."""
    screen = Told()

    async def story() -> None:
        script = Script(IN, room=room)
        wanted: Settings = msgspec.structs.replace(DEFAULTS, notify=kind, **settings)
        async with staged(script.client, screen, settings=wanted) as stage:
            keyboard: Keyboard | Any = Focus(focus)
            stage.face.app.keyboard = keyboard
            await _say(stage, script, texts, nick)

    run(story())
    return screen


async def _say(stage: Stage, script: Script, texts: tuple[str, ...], nick: str) -> None:
    for seq, text in enumerate(texts, 1):
        script.happen(message(seq, text, nick=nick))
        await stage.comes_to(lambda end=seq: stage.face.view.timeline.at_seq(end) is not None)  # type: ignore[misc]
        await stage.redrawn()


@pytest.fixture(autouse=True)
def no_tmux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)


def test_a_notification_says_who_and_where_and_not_what() -> None:
    screen = told("ann: the secret is tea")
    assert screen.raw == ["\x1b]9;小明 mentioned you in #lobby\x1b\\"]
    assert not screen.bells
    assert told("the secret", bell="all", kind="osc777").raw == ["\x1b]777;notify;manywire;小明 wrote in #lobby\x1b\\"]


def test_only_a_bell_by_default() -> None:
    screen = told("ann: hello", kind="bell", focus=False)
    assert (screen.bells, screen.raw) == (1, [])


def test_no_notification_for_someone_who_looks_at_the_window() -> None:
    assert not told("ann: hello", focus=True).raw
    assert told("ann: hello", focus=False).raw


def test_a_muted_room_and_quiet_hours_are_silent() -> None:
    assert not told("ann: hello", muted=("lobby",)).raw
    assert not told("ann: hello", quiet_hours="00:00-00:00").raw  # the whole day


def test_at_most_one_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "EVERY", 3600.0)
    assert len(told("ann: one", "ann: two", "ann: three").raw) == 1
    monkeypatch.setattr(notices, "EVERY", 0.0)
    assert len(told("ann: one", "ann: two", "ann: three").raw) == 3


@pytest.mark.parametrize("kind", ["osc9", "osc99", "osc777"])
def test_hostile_names_end_no_sequence(kind: Literal["osc9", "osc99", "osc777"]) -> None:
    (sequence,) = told("ann: hello", kind=kind, nick=HOSTILE, room=HOSTILE).raw
    found = STRING.fullmatch(sequence)
    assert found
    text = found["text"].removeprefix({"osc9": "9;", "osc99": "99;;", "osc777": "777;notify;manywire;"}[kind])
    assert ";" not in text
    assert "\u202e" not in text
    assert len(text) < 100


def test_the_title_shows_the_room_and_what_is_unread() -> None:
    assert told().titles[-1] == "#lobby · manywire"
    assert not told(terminal_title=False).titles
    assert title("#tea", 3, asks=False) == "(3) #tea · manywire"
    assert title("#tea", 3, asks=True) == "(3!) #tea · manywire"
    hostile = told(room=HOSTILE).titles[-1]
    assert not re.search("[;\x00-\x1f\x7f-\x9f\u202e]", hostile)
    assert len(hostile) < 60


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("kitty(0.35.2)", {}, "osc99"),
        ("WezTerm 20240203", {"TERM_PROGRAM": "WezTerm"}, "osc777"),
        ("", {"TERM_PROGRAM": "iTerm.app"}, "osc9"),
        ("", {"TERM": "foot"}, "osc777"),
        ("XTerm(390)", {"TERM": "xterm-256color"}, "bell"),
        ("tmux 3.4", {"TMUX": "/tmp/x", "TERM_PROGRAM": "iTerm.app"}, "bell"),
        ("", {}, "bell"),
    ],
)
def test_which_terminal_shows_what(name: str, environment: dict[str, str], expected: str) -> None:
    assert kind_of(name, environment) == expected


def test_tmux_passes_a_notification_on() -> None:
    assert notification("osc9", "hello", {"TMUX": "x"}) == "\x1bPtmux;\x1b\x1b]9;hello\x1b\x1b\\\x1b\\"
