r"""Copying to the clipboard of the terminal that shows us, also through ssh: the sequence OSC 52 (xterm, ctlseqs).

    ESC ] 52 ; c ; <base64> BEL                                     the terminal
    ESC P tmux; <the same, with each ESC doubled> ESC \              tmux (FAQ; ``allow-passthrough``)
    ESC P <a part of the same> ESC \   ESC P <the next> ESC \  ...    screen ("String Escapes")

Rules:

1. Only what the user asks for is copied. No message, whatever stands in it, causes a copy.
2. What is copied has no control characters: it may be pasted into a shell, which would obey them. Tabs stay.
3. Inside tmux or screen both forms are sent, the plain one first: which of them gets through is a setting there
   (``set-clipboard``, ``allow-passthrough``), and the same text twice does no harm.
4. There is no answer. Terminals that know nothing of it, or are told not to, stay silent, so nobody may say "copied".
"""

from __future__ import annotations

import os
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from chat.core.errors import ChatError
from chat.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

# hterm and others drop a sequence of more than 100,000 bytes; less its ends, and of base64's four bytes for three.
MAX_COPY: Final = 74_994  # bytes of UTF-8
_SCREEN_STRING: Final = 240  # bytes: screen drops the whole string where it is longer than 256 (768 since 4.2)


def osc52(text: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """Return what makes the terminal copy ``text``; write it raw, between redraws.

    ``environ`` tells of tmux and screen (TMUX, STY, TERM). Raises ChatError where there is no text, and over 74,994
    bytes of UTF-8.
    """
    data = "\t".join(map(visible, text.split("\t"))).encode()
    if not data:
        raise ChatError("there is nothing to copy; select a message first")
    if len(data) > MAX_COPY:
        raise ChatError(
            "the text is {size} bytes long; a terminal's clipboard takes {limit}. Copy it in parts",
            size=len(data),
            limit=MAX_COPY,
        )
    plain = b"\x1b]52;c;" + b64encode(data) + b"\x07"
    term = environ.get("TERM", "")
    if environ.get("TMUX") or term.startswith("tmux"):
        return plain + b"\x1bPtmux;" + plain.replace(b"\x1b", b"\x1b\x1b") + b"\x1b\\"
    if environ.get("STY") or term.startswith("screen"):
        parts = (plain[at : at + _SCREEN_STRING] for at in range(0, len(plain), _SCREEN_STRING))
        return plain + b"".join(b"\x1bP" + part + b"\x1b\\" for part in parts)
    return plain
