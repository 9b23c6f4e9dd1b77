r"""Copying to the clipboard of the user's terminal, even through ssh, by the sequence OSC 52 (xterm, ctlseqs).

    ESC ] 52 ; c ; <base64> BEL                                     the terminal
    ESC P tmux; <the same, with each ESC doubled> ESC \              tmux (FAQ; ``allow-passthrough``)
    ESC P <a part of the same> ESC \   ESC P <the next> ESC \  ...    screen ("String Escapes")

Rules:

1. Only the user copies. No message can cause a copy, whatever it contains.
2. The copied text has no control characters but tabs: a shell into which it is pasted would obey them.
3. Inside tmux and screen both forms are sent, the plain one first: a setting there decides which one gets through
   (``set-clipboard``, ``allow-passthrough``), and the same text twice does no harm.
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
MAX_COPY: Final = 74_994  # bytes of a text to copy; more is an error, copy it in parts
_SCREEN_STRING: Final = 240  # bytes: screen drops a whole string over 256 (768 since 4.2)


def osc52(text: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """Return the bytes that make the terminal copy ``text``; write them raw, between redraws.

    ``environ`` shows whether tmux or screen is in between (TMUX, STY, TERM). Raises ChatError without a text, and for
    over 74,994 bytes of UTF-8.
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
