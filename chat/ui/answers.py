"""What commands answer with the same words in every face. For the faces to filter: peers' texts are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.core.errors import ChatError
from chat.i18n import _
from chat.local.identity import fingerprint
from chat.local.rooms import records
from chat.local.settings import NAMES, choices, toml, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chat.client.client import Client
    from chat.local.settings import Settings
    from chat.ui.entry import MessageEntry
    from chat.ui.timeline import Timeline


def details(item: MessageEntry, timeline: Timeline, client: Client) -> list[str]:
    """Return what is known of a message."""
    read, of = timeline.read_by(item)
    told = [
        _("number {number}, {when}, by {nick}, key {key}").format(
            number=item.seq,
            when=f"{timeline.local(item.time):%Y-%m-%d %H:%M:%S}",
            nick=item.nick,
            key=fingerprint(item.key),
        ),
        _("on the host's disk; read by {count} of {all}").format(count=read, all=of),
        _path(client),
    ]
    told += [_("before: {text}").format(text=edit.text) for edit in item.earlier]
    told += [f"{given} {', '.join(nicks)}" for given, nicks in timeline.reactions(item)]
    return told


def _path(client: Client) -> str:
    """Return how messages come here. Over what their author reached the host, only the host knows."""
    if not client.wire or client.address is None:
        return _("path: through the host; there is no link to it now")
    told = _("path: through the host, which this window reaches over {address} ({trust})")
    return told.format(address=client.address.brief, trust=_(client.wire[1]))


def open_here() -> list[str]:
    """Return the rooms that are open on this machine, none where that cannot be told. It reads the disk."""
    try:
        return [card.room for card in records()]
    except (ChatError, OSError):
        return []


def rooms(found: Sequence[str], window: Iterable[str] = ()) -> list[str]:
    """Return what ``open_here`` has found, and before it the rooms of the window, in the order of their numbers."""
    told = ", ".join(f"{number} {name}" for number, name in enumerate(window, 1))
    if not found:
        here = _("no room is open on this machine; open one with: chat host")
    else:
        here = _("open on this machine: {rooms}; /join NAME enters one").format(rooms=", ".join(found))
    return [*([_("in this window: {rooms}").format(rooms=told)] if told else []), here]


def setting(settings: Settings, name: str) -> str:
    """Return a setting as it stands in the file, and what else it may be where that is little."""
    allowed = ", ".join(choices(name))
    return f"{name} = {toml(value_of(settings, name))}" + (f" ({allowed})" if allowed else "")


def all_settings(settings: Settings) -> list[str]:
    return [f"{name} = {toml(value_of(settings, name))}" for name in NAMES if not name.startswith("keys.")]
