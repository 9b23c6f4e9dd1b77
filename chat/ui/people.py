"""The people a reader knows: who is here, who was, who is ignored, and what they show. The faces sanitize the texts.

Rules:

1. A key with a nickname is a person. A nickname means somebody who is here, or else whoever used it last.
2. A window remembers what it has seen itself; it asks nobody, and its memory is bounded.
3. The settings name ignored people by fingerprint, so that a new nickname does not help them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chat.core.errors import ChatError
from chat.core.status import Level
from chat.core.text import visible
from chat.i18n import _, later
from chat.local.identity import fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from chat.core.bodies import Direct
    from chat.core.events import Message
    from chat.core.session import Session
    from chat.core.status import Status, Who

SHOWN_AS: Final = {
    Level.AWAY: later("you are shown as away"),
    Level.BUSY: later("you are shown as busy"),
    Level.ONLINE: later("you are shown as here"),
}
_LEVELS: Final = {Level.AWAY: later("away"), Level.BUSY: later("busy")}
_KNOWN: Final = 10_000  # people remembered


@dataclass
class Known:
    """What this window has seen of somebody."""

    bot: bool = False
    left: int = 0  # when it left, in ms since 1970 UTC; 0 if we did not see that
    spoke: int = 0  # when it last said something, 0 for never

    @property
    def seen(self) -> int:
        """When it last did something that we know of, 0 for never."""
        return max(self.left, self.spoke)


class People:
    """The people of one room."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[Who, Known] = {}  # the latest one last

    def spoke(self, message: Message) -> None:
        known = self._know((message.author.key, message.author.nick))
        known.bot, known.spoke = message.author.bot, max(known.spoke, message.time)

    def moved(self, came: Iterable[Who], went: Iterable[Who], at: int) -> None:
        """Note who came, and who left ``at`` this time, in ms since 1970 UTC."""
        for some, left in ((came, 0), (went, at)):
            for who in some:
                self._know(who).left = left

    def _know(self, who: Who) -> Known:
        known = self._known.pop(who, None) or Known()
        self._known[who] = known
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        return known

    def named(self) -> Iterator[Who]:
        """Yield the key and nickname of those who are here, then of everybody known, the latest one first."""
        yield from self._session.here
        yield from sorted(self._known, key=lambda who: self._known[who].seen, reverse=True)

    def nicks(self) -> list[str]:
        """Return the nicknames of those who are here, then of the others, the latest one first."""
        return list(dict.fromkeys(nick for _key, nick in self.named()))

    def find(self, nick: str) -> Who | None:
        """Return whom a typed nickname means, None if nobody had it."""
        wanted = nick.removeprefix("@").casefold()
        return next((who for who in self.named() if who[1].casefold() == wanted), None)

    def about(self, who: Who, people: Mapping[Who, Status], *, ignored: bool) -> list[str]:
        """Describe a person, present or not. ``people`` maps those here to their status."""
        (key, nick), known = who, self._known.get(who, Known())
        if who in people:
            name, _tab, more = as_line(who, people[who], self._session.users.get(who, "")).partition("\t")
            made = [_("{nick} is here").format(nick=name) + (f": {more}" if more else "")]
        elif known.left:
            made = [_("{nick} left {when}").format(nick=nick, when=since(known.left))]
        else:
            made = [_("{nick} is not here").format(nick=nick)]
        if known.spoke:
            made[0] += "; " + _("spoke last {when}").format(when=since(known.spoke))
        made.append(_("key {key}").format(key=fingerprint(key)) + (f" [{_('bot')}]" if known.bot else ""))
        if ignored:
            made.append(_("messages by {nick} are hidden; /unignore {nick} shows them").format(nick=nick))
        return made


def as_line(who: Who, state: Status, user: str = "") -> str:
    """Return one line for people. ``user`` is the login name, if it is known."""
    nick = visible(who[1], lines=False) + (f" ({user})" if user else "")
    words = [] if state.level == Level.ONLINE else [_(_LEVELS[state.level])]
    if state.typing:
        words.append(_("typing"))
    if state.level != Level.ONLINE and state.active:
        words.append(since(state.active))
    if state.note:
        words.append(visible(state.note, lines=False))
    return "\t".join([nick, ", ".join(words)]) if words else nick


def since(ms: int) -> str:
    """Return in words how long ago something was. ``ms``: since 1970 UTC."""
    minutes = max(0, int(time.time() - ms / 1000)) // 60
    if minutes < 1:
        return _("just now")
    if minutes < 60:
        return _("{count} min ago").format(count=minutes)
    if minutes < 1440:
        return _("{count} h ago").format(count=minutes // 60)
    return _("{count} d ago").format(count=minutes // 1440)


def list_people(people: Mapping[Who, Status], users: Mapping[Who, str] = {}) -> str:
    """Return a line with everybody who is here and what they show. ``users`` are the login names that are known."""
    there = sorted(people.items(), key=lambda item: item[0][1].casefold())
    lines = [as_line(who, state, users.get(who, "")).partition("\t") for who, state in there]
    nicks = [nick + (f" ({more})" if more else "") for nick, _tab, more in lines]
    return _("here: {nicks}").format(nicks=", ".join(nicks))


def read_marks(people: Mapping[Who, Status], mine: Who) -> list[int]:
    """Return how far the others have read. Programs do not show that and do not count."""
    return [state.read for who, state in people.items() if who != mine and state.read]


def is_unread(news: Direct) -> bool:
    """Whether the direct room has something new, as far as the host knows what we have read."""
    return news.next_seq > news.read + 1


def describe_direct(news: Direct, *, is_typed: bool = True) -> str:
    """Return a sanitized line about a direct room that is not open here. ``is_typed``: commands can be typed."""
    if not is_typed:
        text = _("you have a private room with {nick}; a window of chat join shows it")
    elif is_unread(news):
        text = _("{nick} sent you a private message; /msg {nick} shows it")
    else:
        text = _("you have a private room with {nick}; /msg {nick} opens it")
    return text.format(nick=visible(news.nick, lines=False))


# -- who is ignored -----------------------------------------------------------------------------------


def names_of(key: bytes) -> set[str]:
    """Return the names that the settings may give a key: its fingerprint and its hex digits."""
    return {fingerprint(key), key.hex()}


def ignored(entries: Iterable[str], rooms: Iterable[People]) -> list[tuple[str, str]]:
    """Return who is ignored, as the settings write it, with the nickname if one of the rooms knows it."""
    names = (named for people in rooms for named in reversed([*people.named()]))  # who is here comes last, and stays
    known = {name: nick for key, nick in names for name in names_of(key)}
    return [(entry, known.get(entry, "")) for entry in entries]


def list_ignored(entries: Collection[tuple[str, str]]) -> list[str]:
    return [f"{nick or '?'}  {entry}" for entry, nick in entries] or [
        _("you ignore nobody; /ignore NICK hides what somebody says")
    ]


def to_unignore(who: str, entries: Iterable[tuple[str, str]]) -> tuple[set[str], str]:
    """Return which of the ignored WHO means, and a line that confirms it. Raises ChatError for nobody, or several.

    WHO is a nickname, a fingerprint, or the start of one.
    """
    wanted, entries = who.removeprefix("@").removeprefix("SHA256:"), list(entries)
    found = [(entry, nick) for entry, nick in entries if nick.casefold() == wanted.casefold()]
    found = found or [(entry, nick) for entry, nick in entries if entry.removeprefix("SHA256:").startswith(wanted)]
    if not (found and wanted):
        raise ChatError("{who} is not ignored; /ignore lists who is", who=who)
    if len({nick or entry for entry, nick in found}) > 1:
        several = ", ".join(nick or entry for entry, nick in found)
        raise ChatError("{who} could be any of these; give more of it: {listed}", who=who, listed=several)
    return {entry for entry, _nick in found}, _("messages by {who} are shown again").format(
        who=found[0][1] or found[0][0]
    )
