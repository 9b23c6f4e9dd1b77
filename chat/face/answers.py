"""What commands answer with the same words in every face. For the faces to filter: peers' texts are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.identity import fingerprint
from chat.settings import NAMES, choices, toml, value_of
from chat.words import _

if TYPE_CHECKING:
    from chat.client import Client
    from chat.face.timeline import Said, Timeline
    from chat.settings import Settings


def details(item: Said, timeline: Timeline, client: Client) -> list[str]:
    """Return what is known of a message."""
    read, of = timeline.seen(item)
    told = [
        _("number {number}, {when}, by {nick}, key {key}").format(
            number=item.seq,
            when=f"{timeline.local(item.time):%Y-%m-%d %H:%M:%S}",
            nick=item.nick,
            key=fingerprint(item.key),
        ),
        _("on the host's disk; read by {count} of {all} others who are here").format(count=read, all=of),
        _path(client),
    ]
    told += [_("before: {text}").format(text=edit.text) for edit in item.earlier]
    told += [f"{given} {', '.join(nicks)}" for given, nicks in timeline.reactions(item)]
    return told


def _path(client: Client) -> str:
    """Return how messages come here. Over what their author reached the host, only the host knows."""
    if not client.wire or client.address is None:
        return _("path: through the host, to which there is no link now")
    told = _("path: through the host, and between it and this window over {address} ({trust})")
    return told.format(address=client.address.brief, trust=_(client.wire[1]))


def setting(settings: Settings, name: str) -> str:
    """Return a setting as it stands in the file, and what else it may be where that is little."""
    allowed = ", ".join(choices(name))
    return f"{name} = {toml(value_of(settings, name))}" + (f" ({allowed})" if allowed else "")


def all_settings(settings: Settings) -> list[str]:
    return [f"{name} = {toml(value_of(settings, name))}" for name in NAMES if not name.startswith("keys.")]
