"""Invites as people get them."""

from __future__ import annotations

import json

import segno

from chat.ui.invites import is_picture, qr_code, ways_in


def test_half_blocks_make_the_whole_code() -> None:
    text = "chat://192.0.2.1:7711/lobby#" + "a" * 43 + "." + "b" * 22
    rows = qr_code(text)
    assert all(map(is_picture, rows))
    light = [[char in pair for char in row] for row in rows for pair in ("█▀", "█▄")]
    code = segno.make(text, error="l", boost_error=False, micro=False)
    dark = [[not module for module in row] for row in light]
    border, size = [False] * len(dark[0]), len(code.matrix)
    assert len(border) == size + 4
    assert dark[:2] == dark[size + 2 : size + 4] == [border] * 2
    assert [row[2:-2] for row in dark[2 : size + 2]] == [list(map(bool, row)) for row in code.matrix]
    assert not any(any(row[:2] + row[-2:]) for row in dark)
    assert not is_picture("a note")
    assert not is_picture("")


KEY = "#" + "A" * 43 + "." + "A" * 22


def announced(transport: str, invite: str) -> str:
    return json.dumps({"room": "tea", "transport": transport, "invite": f"chat://{invite}/tea{KEY}"})


def test_the_owner_of_a_room_reads_how_others_come_in() -> None:
    here = "from another terminal here: chat join tea"
    alone = "from elsewhere: nobody can come in yet; /invite says how"
    assert ways_in([announced("queue", "queue:%2Frun%2Fq")]) == [here, alone]
    assert ways_in([announced("tcp", "127.0.0.1:7711"), announced("queue", "")])[1] == alone
    assert ways_in([announced("tcp", "192.0.2.1:7711"), announced("queue", "")]) == [
        here,
        "from elsewhere: /invite copies what to send them; the room is at tcp:192.0.2.1:7711",
        "queue is open besides tcp: windows on this machine, like this one, need no network",
    ]
