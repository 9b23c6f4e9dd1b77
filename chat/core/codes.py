"""The codes that go over the wire, and what they say in English.

A host sends a code and fields, and the text as a courtesy to other programs. ``phrase`` puts the fields into our own
template, which the reader's side then translates. A code never changes; its text may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.errors import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST: Final = 200  # characters of a text or a field that came from elsewhere

REJECTED: Final[Mapping[str, Text]] = {  # why one message was not taken
    "too-long": Text("the message is too long ({size} bytes, the limit is {limit}); send it in parts"),
    "no-target": Text("the message that it refers to is not in this room's log"),
    "unknown": Text("the host did not take it, and no longer says why"),
}


def phrase(table: Mapping[str, Text], code: str, fields: Mapping[str, str | int], text: str) -> Text:
    """Return what a code says; the sender's own ``text``, shortened, for a code or fields that we do not know."""
    template = table.get(code)
    if template is not None:
        known = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in fields.items()}
        try:
            return Text(template, **known)
        except (LookupError, ValueError):
            pass
    text = text or code
    return Text(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
