"""What makes a terminal copy: its form, its size, and what tmux makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import ChatError
from chat.ui.clipboard import MAX_COPY, osc52

if TYPE_CHECKING:
    from pathlib import Path

XTERM = {"TERM": "xterm-256color"}


def copied(sequence: bytes) -> str:
    """What a terminal that is handed this copies."""
    found = re.fullmatch(rb"\x1b\]52;c;([A-Za-z0-9+/]*=*)\x07", sequence)
    assert found, sequence[:80]
    return b64decode(found[1], validate=True).decode()


@pytest.mark.parametrize("text", ["hello", "你好\n\tworld 👨‍👩‍👧", "x" * MAX_COPY])
def test_a_terminal_copies_the_text(text: str) -> None:
    assert copied(osc52(text, XTERM)) == text


def test_no_control_character_gets_into_a_clipboard() -> None:
    text = copied(osc52("a\x1b[201~b\rc\x07\x9bd\td\n", XTERM))
    assert [char for char in text if not char.isprintable()] == ["\t", "\n"]


@pytest.mark.parametrize(
    "environ", [{"TMUX": "/tmp/tmux-0/default,1,0", "TERM": "screen-256color"}, {"TERM": "tmux-256color"}]
)
def test_inside_tmux_it_goes_out_plain_and_wrapped(environ: dict[str, str]) -> None:
    plain, wrapped, rest = re.split(rb"\x1bPtmux;(.*)\x1b\\", osc52("hello " * 500, environ), flags=re.DOTALL)
    assert b"\x1b" not in wrapped.replace(b"\x1b\x1b", b"")
    assert copied(plain) == copied(wrapped.replace(b"\x1b\x1b", b"\x1b")) == "hello " * 500
    assert rest == b""


@pytest.mark.parametrize("environ", [{"STY": "1.pts-0", "TERM": "xterm"}, {"TERM": "screen"}])
def test_inside_screen_it_goes_out_plain_and_in_strings_that_screen_takes(environ: dict[str, str]) -> None:
    made = osc52("hello " * 500, environ)
    parts = re.findall(rb"\x1bP(.*?)\x1b\\", made, re.DOTALL)
    assert copied(made[: made.index(b"\x1bP")]) == copied(b"".join(parts)) == "hello " * 500
    assert max(map(len, parts)) <= 256


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing to copy"),
        ("x" * (MAX_COPY + 1), "the text is 74995 bytes long; a terminal's clipboard takes 74994"),
        ("你" * 25_000, "75000 bytes"),
    ],
)
def test_what_cannot_be_copied_is_told(text: str, told: str) -> None:
    with pytest.raises(ChatError, match=told):
        osc52(text, XTERM)


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_tmux_takes_it_into_its_own_buffer(tmp_path: Path) -> None:
    text = "你好 'tmux'\nsecond line"
    (tmp_path / "sequence").write_bytes(osc52(text, {"TERM": "screen"} | {"TMUX": "1"}))
    write = f"{sys.executable} -c \"import sys; sys.stdout.buffer.write(open('sequence', 'rb').read())\""
    tmux = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    answered = "printf '\\033[c'; read -rsn1 answer"  # tmux reads in order: then it has read what came before, too
    script = f"tmux set -g set-clipboard on; {write}; {answered}; tmux wait-for -S written; cat"
    try:
        subprocess.run([*tmux, "new-session", "-d", "bash", "-c", script], cwd=tmp_path, check=True, timeout=10)
        subprocess.run([*tmux, "wait-for", "written"], check=True, timeout=10)
        shown = subprocess.run([*tmux, "show-buffer"], capture_output=True, check=True, timeout=10).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, timeout=10)
    assert shown.decode() == text
