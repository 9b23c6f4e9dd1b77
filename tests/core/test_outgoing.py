"""Messages on their way out: encoded once, within the limits."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from chat.core.errors import LocalProtocolError
from chat.core.outgoing import Outgoing, split_body
from chat.core.wire import MAX_TEXT, REPLY, SEQ_PREFIX, Kind


@pytest.mark.parametrize(
    ("message", "flags", "body"),
    [
        (Outgoing("hi"), 0, b"hi"),
        (Outgoing("hi", target=7), REPLY, SEQ_PREFIX.pack(7) + b"hi"),
        (Outgoing("waves", Kind.ACTION), 0, b"waves"),
        (Outgoing("hi", Kind.EDIT, 7), 0, SEQ_PREFIX.pack(7) + b"hi"),
        (Outgoing("", Kind.RETRACT, 7), 0, SEQ_PREFIX.pack(7)),
    ],
)
def test_a_message_is_encoded_once_and_read_back(message: Outgoing, flags: int, body: bytes) -> None:
    assert (message.flags, message.body) == (flags, body)
    assert message.body is message.body
    assert split_body(message.kind, message.flags, message.body) == (message.text, message.target)
    with pytest.raises(FrozenInstanceError):
        message.text = "other"  # type: ignore[misc]


def test_the_body_of_a_text() -> None:
    assert Outgoing("h\u00e9").body == b"h\xc3\xa9"
    assert Outgoing("so", target=7).body == SEQ_PREFIX.pack(7) + b"so"
    assert len(Outgoing("x" * MAX_TEXT, target=7).body) == MAX_TEXT + 8
    with pytest.raises(LocalProtocolError, match=f"is {MAX_TEXT + 1} bytes long; the limit is {MAX_TEXT}"):
        Outgoing("x" * (MAX_TEXT - 1) + "\u00e9")
    with pytest.raises(LocalProtocolError, match="half of a surrogate pair"):
        Outgoing("\ud800")
