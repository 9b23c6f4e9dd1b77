"""The side: the rooms of this window with what is unread in them, and who is here.

ROOMS
▌1 #tea            ▌ the room in view; at the right how many messages are unread,
 2 #build    12    "!" in a direct room, "@" if you are mentioned
HERE 3
● ann       you    ● here · ○ away or busy, for how long · ⚙ a program · ? the link is lost, so nobody knows
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.core.status import Level
from chat.i18n import _
from chat.ui import theme
from chat.ui.fullscreen.wrapping import clip, columns, sanitize, sealed

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from chat.core.status import Status, Who
    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View

SIDE_BAR: Final = 18  # columns, and one for the line beside it


def side_bar(face: FullScreen, rows: int) -> StyleAndTextTuples:
    """Return at most ``rows`` rows: the rooms, if there are several, and who is here."""
    view, views = face.view, face.controller.rooms
    lines: list[StyleAndTextTuples] = []
    if len(views) > 1:
        lines.append([("class:heading", " " + _("ROOMS"))])
        lines += [_room(number, other, view) for number, other in enumerate(views, 1)]
        lines.append([])
    count = len(view.session.here) + view.session.others
    lines.append([("class:heading", " " + _("HERE")), ("class:quiet", f" {count}" if not view.lost_since else "")])
    here = sorted(view.session.here, key=lambda who: who[1].casefold())
    free = max(rows - len(lines), 1)
    shown = here if len(here) <= free and not view.session.others else here[: free - 1]
    lines += [_person(view, who) for who in shown]
    if more := count - len(shown):
        lines.append([("class:faint", " " + _("and {count} more").format(count=more))])
    return [part for line in lines[:rows] for part in (*sealed(line or [("", "")], SIDE_BAR), ("", "\n"))]


def _room(number: int, room: View, current: View) -> StyleAndTextTuples:
    badge = unread(room) if room.timeline.read_state.unread and room is not current else ""
    mark = ("class:accent", "▌") if room is current else ("", " ")
    style = "class:accent" if room.asks_for_you and room is not current else "class:badge"
    name = "class:bold" if room is current or room.asks_for_you else ""
    return _line([mark, ("class:faint", f"{number} ")], (name, room.name), (style, badge))


def _person(view: View, who: Who) -> StyleAndTextTuples:
    state, is_bot = view.people.get(who), view.session.here[who]
    is_away = state is not None and state.level is not Level.ONLINE
    if view.lost_since:
        return _line([("class:faint", " ? ")], ("class:faint", who[1]), ("", ""))
    mark = "⚙" if is_bot else "○" if is_away else "●"
    style = "class:idle" if is_away else theme.nick_style(who[0])
    return _line(
        [("class:idle" if is_away or is_bot else "class:dot-ok", f" {mark} ")],
        (style, who[1]),
        ("class:faint", _about(view, who, state)),
    )


def _about(view: View, who: Who, state: Status | None) -> str:
    """Return what a person does, or is, in a word or two."""
    if who == (view.session.key, view.session.nick):
        return _("you")
    if state is not None and state.typing:
        return _("typing")
    if state is not None and state.level is not Level.ONLINE:
        level = _("busy") if state.level is Level.BUSY else _("away")
        return f"{level} {_age(state.active)}".rstrip()
    if view.session.here[who]:
        return _("program")
    return sanitize(view.session.users.get(who, ""), lines=False)


def _age(since: int) -> str:
    """Return how long ago a time is (ms since 1970), in as few columns as can be; "" for unknown, or just now."""
    minutes = int(time.time() * 1000 - since) // 60_000 if since else 0
    if minutes < 1:
        return ""
    if minutes < 60:
        return _("{count}m").format(count=minutes)
    return (
        _("{count}h").format(count=minutes // 60) if minutes < 48 * 60 else _("{count}d").format(count=minutes // 1440)
    )


def _line(begin: StyleAndTextTuples, name: tuple[str, str], end: tuple[str, str]) -> StyleAndTextTuples:
    """Return a row: the beginning, a name clipped to what is left, and the end at the right edge."""
    used = sum(columns(part[1]) for part in begin)
    last = clip(end[1], (SIDE_BAR - used) // 2)
    shown = clip(name[1], SIDE_BAR - used - (columns(last) + 1 if last else 0))
    gap = " " * (SIDE_BAR - used - columns(shown) - columns(last))
    return [*begin, (name[0], shown), *([("", gap), (end[0], last)] if last else [])]


def unread(view: View) -> str:
    """Return how many messages are unread, and how many of them mention the reader; in a direct room all do."""
    count, named = view.timeline.read_state.unread, view.timeline.read_state.mentions
    if view.partner:
        return f"{count}!"
    return f"{count} ({named}@)" if named else f"{count}"
