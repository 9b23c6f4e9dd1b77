"""The bars around the pane: what each says about the rooms in the window, as text and styles.

     title    room, own name, address          a side bar: the rooms, and who is here
     status   running work, unread messages, the link, who types, the transport and why it is trusted

Rules:

1. A bar holds no state: each redraw makes it anew.
2. What does not fit is clipped, so what matters more stands further left.
3. What was known before the link was lost is not shown as if it still held.
4. Names and notes are peers' text: ``sanitize`` filters them, and ``sealed`` keeps each in its columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chat.core.session import LinkState
from chat.core.status import Level
from chat.i18n import _, later
from chat.ui import theme
from chat.ui.describe import given_nick
from chat.ui.fullscreen.viewport import CATCHING_UP
from chat.ui.fullscreen.wrapping import clip, columns, sanitize, sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View
    from chat.ui.fullscreen.viewport import Progress

SIDE_BAR: Final = 18  # columns, and one for the line beside it
_BAR_CELLS: Final = (4, 20)  # at least and at most
_LEVELS: Final = {Level.AWAY: "z ", Level.BUSY: "! ", Level.ONLINE: ""}
_WIRES: Final = (later("same user"), later("pinned"), later("known"), later("trust on first use"))  # of Client.wire
_STATES: Final = (  # of the link; the session has them in English
    later("no link"),
    later("waiting for the host's first words"),
    later("deciding whether to trust the host"),
    later("waiting to be let in"),
    later("in the room"),
)


def row(text: str, width: int) -> StyleAndTextTuples:
    """Return one line of text, exactly ``width`` columns wide."""
    return [*sealed([("", clip(sanitize(text, lines=False), width))], width)]


def title(view: View, width: int, time_format: str = "") -> StyleAndTextTuples:
    text = _("{room} as {nick} over {address}")
    if view.partner:  # before the address, so that a narrow screen keeps it
        text = _("{room} as {nick} · the host's owner can read this · over {address}")
    since = ""
    if view.lost_since:
        text = _("{room} as {nick} · no link since {time}")
        since = f"{view.timeline.local(view.lost_since):{time_format or '%H:%M'}}"
    address = view.client.address.brief if view.client.address else ""
    topic = f" · {view.session.topic}" if view.session.topic else ""
    nick = view.session.nick
    if given_nick(view.client, nick):
        nick = _("{nick} ({wanted} is taken)").format(nick=nick, wanted=view.client.wanted)
    return row(" " + text.format(room=view.name, nick=nick, address=address, time=since) + topic, width)


def status(face: FullScreen, width: int) -> StyleAndTextTuples:
    view, muted, key = face.view, face.controller.settings.muted, face.key
    session = view.session
    unsent, new = len(session.unsettled), 0 if view.pane.following else view.timeline.read_state.unread
    parts = [_work(view.progress, width, key)] if view.progress is not None else []
    if view.search is not None and (place := view.search.place)[1]:
        hit = _("hit {number} of {count}").format(number=place[0], count=place[1])
        parts.append(hit + ("+" if view.search.more else ""))
    if new:
        named = view.timeline.read_state.mentions
        parts.append(_("{count} new below").format(count=new) + (f" ({named}@)" if named else ""))
    if view.is_new_above:
        parts.append(_("new above: {key}").format(key=key("unread")))
    parts += [
        f"{number}:{other.name} {unread(other)}"
        for number, other in enumerate(face.controller.rooms, 1)
        if other is not view and other.timeline.read_state.unread and other.session.room not in muted
    ]
    state = session.state.value
    parts.append(_(state) if state in _STATES else state)
    parts += [_("{count} unsent").format(count=unsent)] if unsent else []
    if session.state is not LinkState.JOINED:
        return row(" " + " · ".join(parts), width)
    types = [who[1] for who, state in view.people.items() if state.typing and who != (session.key, session.nick)]
    if types:
        parts.append(_("{nicks} types").format(nicks=", ".join(types[:3])))
    parts.append(_("{count} here").format(count=len(session.here)))
    if view.client.wire:
        scheme, trust = view.client.wire
        parts += [scheme, _(trust) if trust in _WIRES else trust]
    if view.lag:
        parts.append(f"{view.lag} ms")
    return row(" " + " · ".join(parts), width)


def _work(progress: Progress, width: int, key: Callable[[str], str]) -> str:
    """Return the bar of running work; if there is room, also what it is and the key that stops it."""
    what, drawn = _(progress.what), bar(progress, width - 1)
    stops = "" if progress.what == CATCHING_UP else f" ({key('stop')})"
    room = width - 1 - columns(drawn)
    before = next((text for text in (what + stops, what) if columns(text) < room), "")
    return f"{before} {bar(progress, width - 2 - columns(before))}".lstrip()


def side_bar(face: FullScreen, rows: int) -> StyleAndTextTuples:
    """Return at most ``rows`` rows: the rooms, if there are several, and who is here."""
    view, views = face.view, face.controller.rooms
    entries: list[tuple[str, str]] = []
    if len(views) > 1:
        for number, other in enumerate(views, 1):
            news = f" {unread(other)}" if other.timeline.read_state.unread and other is not view else ""
            style = "class:bold" if other is view or other.asks_for_you else ""
            name = clip(f"{number} {other.name}", SIDE_BAR - len(news))
            entries.append((style, name + news))
        entries.append(("", ""))
    here = sorted(view.session.here, key=lambda who: who[1].casefold())
    room = max(rows - len(entries), 1)
    more = _("and {count} more").format(count=len(here) - room + 1)
    folded = [("class:faint", more)] if len(here) > room else []
    for who in here[: room - len(folded)]:
        state = view.people.get(who)
        before = ("~ " if state.typing else _LEVELS[state.level]) if state else ""
        if view.lost_since:
            before = "? "
        if view.session.here[who]:
            before += f"[{_('bot')}] "
        user = f" ({view.session.users[who]})" if who in view.session.users else ""
        style = "class:faint" if view.lost_since else theme.nick_style(who[0])
        entries.append((style, clip(before + who[1] + user, SIDE_BAR)))
    return [part for entry in entries + folded for part in (*sealed([entry], SIDE_BAR), ("", "\n"))]


def unread(view: View) -> str:
    """Return how many messages are unread, and how many of them mention the reader; in a direct room all do."""
    count, named = view.timeline.read_state.unread, view.timeline.read_state.mentions
    if view.partner:
        return f"{count}!"
    return f"{count} ({named}@)" if named else f"{count}"


def bar(progress: Progress, width: int) -> str:
    """Return a bar of at most ``width`` columns, if they are 20 or more: ``[####......] 41% 5200/s``.

    It is ASCII, since a terminal set up for Chinese or Japanese draws blocks two columns wide.
    """
    figures = f" {progress.part:.0%} {progress.rate}/s"
    least, most = _BAR_CELLS
    cells = max(least, min(most, width - len(figures) - 2))
    return f"[{'#' * int(progress.part * cells):.<{cells}}]{figures}"
