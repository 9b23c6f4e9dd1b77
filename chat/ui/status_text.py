"""What a member shows of itself, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.core.status import Level
from chat.core.text import visible
from chat.i18n import _, later

if TYPE_CHECKING:
    from chat.core.status import Status, Who

SHOWN_AS: Final = {
    Level.AWAY: later("you are shown as away"),
    Level.BUSY: later("you are shown as busy"),
    Level.ONLINE: later("you are shown as here"),
}
_LEVELS: Final = {Level.AWAY: later("away"), Level.BUSY: later("busy")}


def as_line(who: Who, state: Status, now: float | None = None) -> str:
    """Return one line for people."""
    nick = visible(who[1], lines=False)
    words = [] if state.level == Level.ONLINE else [_(_LEVELS[state.level])]
    if state.typing:
        words.append(_("typing"))
    if state.level != Level.ONLINE and state.active:
        words.append(since(state.active, now))
    if state.note:
        words.append(visible(state.note, lines=False))
    return "\t".join([nick, ", ".join(words)]) if words else nick


def since(ms: int, now: float | None = None) -> str:
    """Return in words how long ago something was. ``ms``: since 1970 UTC."""
    minutes = max(0, int((now or time.time()) - ms / 1000)) // 60
    if minutes < 1:
        return _("just now")
    if minutes < 60:
        return _("{count} min ago").format(count=minutes)
    if minutes < 1440:
        return _("{count} h ago").format(count=minutes // 60)
    return _("{count} d ago").format(count=minutes // 1440)
