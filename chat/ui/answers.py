"""Answers of commands that are the same in every face. They hold peers' texts, which the face sanitizes."""

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
    """Return what is known about a message."""
    read, of = timeline.read_by(item)
    made = [
        _("number {number}, {when}, by {nick}, key {key}").format(
            number=item.seq,
            when=f"{timeline.local(item.time):%Y-%m-%d %H:%M:%S}",
            nick=item.nick,
            key=fingerprint(item.key),
        ),
        _("on the host's disk; read by {count} of {all}").format(count=read, all=of),
        _path(client),
    ]
    made += [_("before: {text}").format(text=edit.text) for edit in item.earlier]
    made += [f"{given} {', '.join(nicks)}" for given, nicks in timeline.reactions(item)]
    return made


def _path(client: Client) -> str:
    """Return how messages come here. Only the host knows how their author reaches it."""
    if not client.wire or client.address is None:
        return _("path: through the host; there is no link to it now")
    text = _("path: through the host, which this window reaches over {address} ({trust})")
    return text.format(address=client.address.brief, trust=_(client.wire[1]))


def open_here() -> list[str]:
    """Return the rooms that are open on this machine, none if the disk cannot be read."""
    try:
        return [card.room for card in records()]
    except (ChatError, OSError):
        return []


def rooms(found: Sequence[str], window: Iterable[str] = ()) -> list[str]:
    """Return a line with the rooms of the window, if any, and one with what ``open_here`` found."""
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(window, 1))
    if not found:
        here = _("no room is open on this machine; open one with: chat host")
    else:
        here = _("open on this machine: {rooms}; /join NAME enters one").format(rooms=", ".join(found))
    return [*([_("in this window: {rooms}").format(rooms=numbered)] if numbered else []), here]


def setting(settings: Settings, name: str) -> str:
    """Return a setting as TOML, with the allowed values if there are few."""
    allowed = ", ".join(choices(name))
    return f"{name} = {toml(value_of(settings, name))}" + (f" ({allowed})" if allowed else "")


def all_settings(settings: Settings) -> list[str]:
    return [f"{name} = {toml(value_of(settings, name))}" for name in NAMES if not name.startswith("keys.")]
