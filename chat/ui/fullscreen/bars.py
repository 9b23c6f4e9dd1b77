"""The rows around the conversation: what each says about the room in view, as text and styles.

     header    a dot for the link, the room, its topic     the wire and whether it is trusted, people, own name
     divider   a rule, or who is typing, or a line that asks or tells something
     footer    running work, what is new elsewhere, the keys that matter now or the command typed       what is unsent

Rules:

1. A row holds no state: each redraw makes it anew.
2. What does not fit is left out or clipped, so what matters more stands further left, or is left out last.
3. What was known before the link was lost is not shown as if it still held.
4. Names, topics and notes are peers' text: ``sanitize`` filters them, and ``sealed`` keeps each in its columns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from chat.core.session import LinkState
from chat.i18n import _, later
from chat.ui.commands import USAGES, help_on
from chat.ui.describe import given_nick
from chat.ui.fullscreen.side import unread
from chat.ui.fullscreen.viewport import CATCHING_UP
from chat.ui.fullscreen.wrapping import clip, columns, sanitize, sealed, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from chat.ui.fullscreen.face import FullScreen
    from chat.ui.fullscreen.view import View
    from chat.ui.fullscreen.viewport import Progress

_BAR_CELLS: Final = (4, 20)  # at least and at most
_TYPISTS: Final = 3  # who are named; more are "several people"
_STATES: Final = (  # of the link; the session has them in English
    later("no link"),
    later("waiting for the host's first words"),
    later("deciding whether to trust the host"),
    later("waiting to be let in"),
    later("in the room"),
)
_COMMAND: Final = re.compile(r"/(\w+)\s")  # whose argument is being typed
_UNSURE: Final = "trust on first use"  # of Client.wire: the host's key was new, and nobody vouched for it
_KEYS: Final = {  # action: what the footer says that its key does
    "help": later("help"),
    "switcher": later("go to"),
    "search": later("search"),
    "reply": later("answer"),
    "react": later("react"),
    "edit": later("correct"),
    "quote": later("quote"),
    "copy": later("copy"),
    "details": later("details"),
    "send": later("send"),
    "stop": later("back"),
    "previous-hit": later("hit above"),
    "next-hit": later("hit below"),
    "bottom": later("to the newest"),
    "unread": later("first unread"),
}


def row(text: str, width: int, style: str = "") -> StyleAndTextTuples:
    """Return one line of text, exactly ``width`` columns wide."""
    return [*sealed([(style, clip(sanitize(text, lines=False), width))], width)]


# -- header -------------------------------------------------------------------------------------------


def header(view: View, width: int, time_format: str = "") -> StyleAndTextTuples:
    session = view.session
    mark, role = _dot(view)
    left: StyleAndTextTuples = [
        ("", " "),
        (f"class:{role}", mark),
        ("class:header-room", f" {clip(view.name, max(width - 4, 1))}"),
    ]
    about, style = session.topic, "class:quiet"
    if view.partner:
        about = _("the host's owner can read this")
    used = sum(columns(part[1]) for part in left)
    if view.lost_since:
        since = f"{view.timeline.local(view.lost_since):{time_format or '%H:%M'}}"
        about, style = _("no link since {time}").format(time=since), "class:lost"
        if used + 3 + columns(about) > width:
            about = _("no link")
    elif session.state is not LinkState.JOINED:
        state = session.state.value
        about = _(state) if state in _STATES else state
    least = used + 2 + (columns(about) + 2 if view.lost_since else 0)  # a lost link matters more than one's own name
    right = next((text for text in _right(view) if least + columns(text) < width), "")
    room = width - used - columns(right) - 5 if right else width - used - 2
    if about and room > 1:
        left += [("", "  "), (style, clip(sanitize(about, lines=False), room))]
    used = sum(columns(part[1]) for part in left)
    gap = " " * (width - used - columns(right) - 1)
    return [*sealed([*left, ("", gap), ("class:header", right)], width)]


def _dot(view: View) -> tuple[str, str]:
    """Return the mark of the link, and its role."""
    if view.session.state is LinkState.JOINED:
        return "●", "dot-ok"
    return ("○", "dot-lost") if view.session.state is LinkState.OFF else ("◐", "dot-warn")


def _right(view: View) -> list[str]:
    """Return what the right end of the header may say, the longest first."""
    session = view.session
    nick = sanitize(session.nick, lines=False)
    named = nick
    if given_nick(view.client, session.nick):
        named = _("{nick} ({wanted} is taken)").format(nick=nick, wanted=sanitize(view.client.wanted, lines=False))
    if session.state is not LinkState.JOINED:
        return [named, nick]
    count = len(session.here) + session.others
    here = _("{count} here").format(count=count)
    if not view.client.wire:
        return [f"{here}   {named}", f"{here}  {nick}", f"{count}"]
    scheme, trust = view.client.wire
    mark = "?" if trust == _UNSURE else "✓"
    return [
        f"{scheme} {mark}   {here}   {named}",
        f"{here} {mark}  {nick}",
        f"{count} {mark}  {nick}",
        f"{count} {mark}",
    ]


# -- divider ------------------------------------------------------------------------------------------


def rule(width: int, at: int | None = None, joint: str = "") -> StyleAndTextTuples:
    """Return a thin line, with a ``joint`` where the line beside the side bar meets it."""
    line = "─" * width
    return [("class:rule", line if at is None else line[:at] + joint + line[at + 1 :])]


def divider(face: FullScreen, width: int, at: int | None = None, most: int = 1) -> StyleAndTextTuples:
    """Return the row above the input. It is always there, so that nothing moves when somebody begins to type.

    A line that tells something may have ``most`` rows.
    """
    if text := face.line_above_input():
        rows = wrap(sanitize(text, lines=False), max(width, 2))
        if len(rows) > most:
            rows[most - 1 :] = [clip("".join(rows[most - 1 :]), width)]
        return [part for one in rows for part in (*row(one, width, "class:hint"), ("", "\n"))][:-1]
    if text := typing(face.view):
        shown = clip(text, max(width - 4, 1))
        rest = rule(width, at, "┴")[0][1][columns(shown) + 3 :]
        return [*sealed([("class:rule", "─ "), ("class:quiet", shown), ("class:rule", f" {rest}")], width)]
    return rule(width, at, "┴")


def typing(view: View) -> str:
    """Return who is typing, as a sentence; "" for nobody."""
    session = view.session
    if session.state is not LinkState.JOINED:
        return ""
    who = [who[1] for who, state in view.people.items() if state.typing and who != (session.key, session.nick)]
    if not who:
        return ""
    if len(who) > _TYPISTS:
        return _("several people are typing")
    text = _("{nick} is typing") if len(who) == 1 else _("{nicks} are typing")
    names = [sanitize(nick, lines=False) for nick in who]
    return text.format(nick=names[0], nicks=_(", ").join(names))


# -- footer -------------------------------------------------------------------------------------------


def footer(face: FullScreen, width: int, *, lists_rooms: bool = True) -> StyleAndTextTuples:
    """Return the lowest row. ``lists_rooms``: what is new in other rooms, which a side bar shows if there is one."""
    view, key = face.view, face.key
    parts: StyleAndTextTuples = []
    if view.progress is not None:
        parts.append(("class:quiet", _work(view.progress, width, key)))
    parts += [("class:accent", text) for text in _news(face, lists_rooms=lists_rooms)]
    actions = _matter(face)
    if view.progress is None and (command := _COMMAND.match(face.input.text)) and command[1].lower() in USAGES:
        parts, actions = [("class:quiet", help_on(command[1], face.keys))], []
    unsent = len(view.session.unsettled)
    right = _("{count} unsent").format(count=unsent) if unsent else ""
    room = width - 1 - (columns(right) + 3 if right else 0)
    line: StyleAndTextTuples = []
    used = 1
    keys = [("class:key", key(action), f" {_(_KEYS[action])}") for action in actions]
    for style, text, *words in [(style, text) for style, text, *_more in parts] + keys:
        size = columns(text) + columns("".join(words)) + (2 if line else 0)
        if used + size > room:
            if not line:
                line.append((style, clip(text, max(room - 1, 1))))
                used += columns(line[-1][1])
            break
        line += [("", "  ")] if line else []
        line += [(style, text), *(("class:faint", word) for word in words)]
        used += size
    gap = " " * max(width - used - columns(right) - 1, 1)
    return [*sealed([("", " "), *line, *([("", gap), ("class:accent", right)] if right else [])], width)]


def _news(face: FullScreen, *, lists_rooms: bool) -> list[str]:
    """Return what the reader should know of what is not in view."""
    view, muted, key = face.view, face.controller.settings.muted, face.key
    news = []
    if view.search is not None and (place := view.search.place)[1]:
        hit = _("hit {number} of {count}").format(number=place[0], count=place[1])
        news.append(hit + ("+" if view.search.more else ""))
    state = view.timeline.read_state
    if not view.pane.following and state.unread:
        new = _("{count} new below").format(count=state.unread)
        news.append(new + (f" ({state.mentions}@)" if state.mentions else ""))
    if view.is_new_above:
        news.append(_("new above: {key}").format(key=key("unread")))
    if lists_rooms:
        news += [
            f"{number}:{sanitize(other.name, lines=False)} {unread(other)}"
            for number, other in enumerate(face.controller.rooms, 1)
            if other is not view and other.timeline.read_state.unread and other.session.room not in muted
        ]
    return news


def _matter(face: FullScreen) -> list[str]:
    """Return the actions whose keys matter now."""
    view = face.view
    if face.controller.begun is not None:
        return ["send", "stop"]
    if view.search is not None and view.search.place[1]:
        return ["previous-hit", "next-hit", "stop"]
    if view.pane.selected is not None:
        entry = view.selected()
        own = entry is not None and entry.mine
        return ["reply", "react", "edit" if own else "quote", "copy", "details", "stop"]
    if not view.pane.following:
        return ["bottom", "search", "stop"]
    return ["help", "switcher", "search", "reply"]


def _work(progress: Progress, width: int, key: Callable[[str], str]) -> str:
    """Return the bar of running work; if there is room, also what it is and the key that stops it."""
    what, drawn = _(progress.what), bar(progress, width - 1)
    stops = "" if progress.what == CATCHING_UP else f" ({key('stop')})"
    room = width - 1 - columns(drawn)
    before = next((text for text in (what + stops, what) if columns(text) < room), "")
    return f"{before} {bar(progress, width - 2 - columns(before))}".lstrip()


def bar(progress: Progress, width: int) -> str:
    """Return a bar of at most ``width`` columns, if they are 20 or more: ``[####......] 41% 5200/s``.

    It is ASCII, since a terminal set up for Chinese or Japanese draws blocks two columns wide.
    """
    figures = f" {progress.part:.0%} {progress.rate}/s"
    least, most = _BAR_CELLS
    cells = max(least, min(most, width - len(figures) - 2))
    return f"[{'#' * int(progress.part * cells):.<{cells}}]{figures}"
