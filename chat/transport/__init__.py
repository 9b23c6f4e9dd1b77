"""What a transport is, and the errors it raises. A transport imports nothing else of `chat`.

`chat.transport.link` has ready-made links; `chat.transport.registry` knows which transports are installed.

What may enter: what every transport needs, whoever writes it. Nothing here names a transport or knows about rooms.
"""

from chat.core.errors import (
    AddressError,
    ChatError,
    DialFailed,
    LinkBroken,
    LinkBusy,
    LinkClosed,
    ListenFailed,
    Text,
    TransportError,
    WrongValue,
    reason,
)
from chat.transport.api import (
    MAX_SLOT,
    TRUST_MS,
    Address,
    Board,
    BoardMaker,
    BoardSlot,
    Buffer,
    Link,
    Listener,
    Pair,
    Peer,
    Reading,
    Site,
    Transport,
)

__all__ = [
    "MAX_SLOT",
    "TRUST_MS",
    "Address",
    "AddressError",
    "Board",
    "BoardMaker",
    "BoardSlot",
    "Buffer",
    "ChatError",
    "DialFailed",
    "Link",
    "LinkBroken",
    "LinkBusy",
    "LinkClosed",
    "ListenFailed",
    "Listener",
    "Pair",
    "Peer",
    "Reading",
    "Site",
    "Text",
    "Transport",
    "TransportError",
    "WrongValue",
    "reason",
]
