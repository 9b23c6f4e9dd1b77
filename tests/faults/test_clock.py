"""The host's clock is set a day ahead, and back: messages follow it at once, in order, and people are told."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.cli import programs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_DAY = 86_400
_CHAT = """
import pathlib, runpy, sys, time
ahead, time_ns = pathlib.Path(sys.argv.pop(1)), time.time_ns
time.time_ns = lambda: time_ns() + int(ahead.read_text()) * 10**9
time.time = lambda: time.time_ns() / 1e9
runpy.run_module("chat", run_name="__main__", alter_sys=True)
"""


def test_the_clock_of_a_host_jumps_a_day_ahead_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = tmp_path / "ahead"

    def set_ahead(seconds: int) -> None:
        (tmp_path / "new").write_text(str(seconds))
        (tmp_path / "new").rename(clock)

    def host() -> programs.Program:
        with monkeypatch.context() as patch:
            patch.setattr(programs, "CHAT", [sys.executable, "-P", "-c", _CHAT, str(clock)])
            return programs.Program(tmp_path / "data", "host", "--headless", "--json", "--open")

    def say(text: str) -> float:
        """Say something; return how many days from now its time is."""
        member.say(text)
        found = member.until("message", lambda event: event["text"] == text)
        return round((datetime.fromisoformat(found["time"]) - datetime.now().astimezone()) / timedelta(days=1), 2)

    set_ahead(0)
    with host() as hosting:
        hosting.until("listening")
        with programs.Program(tmp_path / "data", "join", "--json") as member:
            member.until("joined")
            assert say("before") == 0
            set_ahead(_DAY)
            told = member.until("notice", lambda event: event["code"] == "clock-ahead")
            assert abs(told["fields"]["seconds"] - _DAY) <= 1
            assert say("a day ahead") == 1
            hosting.kill()
            with host() as hosting_again:  # what the log holds is from tomorrow
                member.until("link", lambda event: event["state"] == "up")
                assert say("restarted") == 1
                set_ahead(0)
                assert say("right again") == 0
                (told,) = [event for event in member.seen if event.get("code") == "clock-back"]  # ahead of the message
                assert abs(told["fields"]["seconds"] - _DAY) <= 5
                set_ahead(-_DAY)
                assert say("yesterday") == -1
                hosting_again.kill()
            set_ahead(0)
            with host():
                member.until("link", lambda event: event["state"] == "up")
                assert say("at last") == 0
                seqs = [event["seq"] for event in member.seen if event["event"] == "message"]
                assert seqs == sorted(seqs)
                assert member.texts() == ["before", "a day ahead", "restarted", "right again", "yesterday", "at last"]
