"""Whom a reader knows: who is here, who was, and who is ignored. For every face; texts are not yet filtered.

Rules:

1. People are keys. A nickname is looked up among those who are here first, then by who was heard of last.
2. What is remembered is what this window has seen or heard; nobody is asked, and it is bounded.
3. Who is ignored stands in the settings: by fingerprint, so that another nickname does not help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chat.core.errors import ChatError
from chat.core.text import visible
from chat.i18n import _
from chat.local.identity import fingerprint
from chat.ui.status_text import as_line, since

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from chat.core.session import Message, Session
    from chat.core.status import Status, Who
    from chat.core.wire import Direct

_KNOWN: Final = 10_000  # people of whom something is remembered


@dataclass
class Known:
    """What this window has seen of one key."""

    nick: str = ""
    bot: bool = False
    left: int = 0  # when it was here last, in ms since 1970 UTC; 0 where nobody saw it leave
    spoke: int = 0  # when it said something last, 0 where it has not


class People:
    """Those of one room."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[bytes, Known] = {}  # by key; the one heard of last is the last

    def heard(self, message: Message) -> None:
        known = self._know(message.author.key)
        known.bot = message.author.bot
        if message.time >= known.spoke:
            known.nick, known.spoke = message.author.nick, message.time

    def moved(self, came: Iterable[Who], went: Iterable[Who], at: int) -> None:
        """Some came, and some went ``at`` this time, in ms since 1970 UTC."""
        for key, nick in came:
            known = self._know(key)
            known.nick, known.left = nick, 0
        for key, nick in went:
            known = self._know(key)
            known.nick, known.left = nick, at

    def _know(self, key: bytes) -> Known:
        known = self._known.pop(key, None) or Known()
        self._known[key] = known
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        return known

    def everybody(self) -> set[bytes]:
        """All of whom something is known."""
        return {key for key, _nick in self._session.here} | self._known.keys()

    def nicks(self) -> list[str]:
        """Nicknames of those who are here, and then of those who were heard of, the last one first."""
        here = [nick for _key, nick in self._session.here]
        return list(dict.fromkeys([*here, *(known.nick for known in reversed(self._known.values()))]))

    def key_of(self, nick: str) -> bytes | None:
        """Return the key that is called so: of those here, or of who was heard of last."""
        wanted = nick.removeprefix("@").casefold()
        known = ((key, known.nick) for key, known in reversed(self._known.items()))
        return next((key for key, name in (*self._session.here, *known) if name.casefold() == wanted), None)

    def nick_of(self, key: bytes) -> str:
        """Return what a key is called, or was when it was heard of last; "" where it is not known."""
        here = next((nick for who, nick in self._session.here if who == key), "")
        return here or self._known.get(key, Known()).nick

    def about(self, key: bytes, people: Mapping[Who, Status], *, ignored: bool) -> list[str]:
        """Return what is known of somebody, also of one who has left. ``people`` are those here, and what they show."""
        nick, known = self.nick_of(key), self._known.get(key, Known())
        here = [as_line(who, state).partition("\t") for who, state in people.items() if who[0] == key]
        told = [_("{nick} is here").format(nick=name) + (f": {more}" if more else "") for name, _tab, more in here]
        if not here and known.left:
            told = [_("{nick} left {when}").format(nick=nick, when=since(known.left))]
        elif not here:
            told = [_("{nick} is not here").format(nick=nick)]
        if known.spoke:
            told[0] += "; " + _("spoke last {when}").format(when=since(known.spoke))
        told.append(_("key {key}").format(key=fingerprint(key)) + (f" [{_('bot')}]" if known.bot else ""))
        if ignored:
            told.append(_("messages by {nick} are hidden; /unignore {nick} shows them").format(nick=nick))
        return told


def listed(people: Mapping[Who, Status]) -> str:
    """Return a line with those who are here, and what they show."""
    lines = [as_line(*one).partition("\t") for one in sorted(people.items(), key=lambda item: item[0][1].casefold())]
    nicks = [nick + (f" ({more})" if more else "") for nick, _tab, more in lines]
    return _("here: {nicks}").format(nicks=", ".join(nicks))


def read_marks(people: Mapping[Who, Status], mine: Who) -> list[int]:
    """Return how far the others have read. Programs do not say, and are not counted."""
    return [state.read for who, state in people.items() if who != mine and state.read]


def nobody(nick: str) -> ChatError:
    """Return what to raise for a nickname that nobody has."""
    return ChatError("there is nobody called {nick} here; /who lists those who are", nick=nick)


def is_unread(news: Direct) -> bool:
    """Whether something waits there, so far as the host knows what its reader has seen."""
    return news.next_seq > news.read + 1


def direct_told(news: Direct) -> str:
    """Return a line, fit to be seen, about a direct room that is not open here."""
    if is_unread(news):
        told = _("{nick} sent you a private message; /msg {nick} shows it")
    else:
        told = _("you have a private room with {nick}; /msg {nick} opens it")
    return told.format(nick=visible(news.nick, lines=False))


# -- who is ignored -----------------------------------------------------------------------------------


def names_of(key: bytes) -> set[str]:
    """What the settings may call a key: its fingerprint, or its hex digits."""
    return {fingerprint(key), key.hex()}


def ignored(entries: Iterable[str], rooms: Iterable[People]) -> list[tuple[str, str]]:
    """Return who is ignored, as the settings have it, with the nickname where one of the rooms knows it."""
    known = {name: people.nick_of(key) for people in rooms for key in people.everybody() for name in names_of(key)}
    return [(entry, known.get(entry, "")) for entry in entries]


def list_ignored(entries: Collection[tuple[str, str]]) -> list[str]:
    return [f"{nick or '?'}  {entry}" for entry, nick in entries] or [
        _("you ignore nobody; /ignore NICK hides what somebody says")
    ]


def to_heed(who: str, entries: Iterable[tuple[str, str]]) -> tuple[set[str], str]:
    """Return which entries of the ignored WHO means, and what to tell; none where it is nobody, or several.

    WHO is a nickname, a fingerprint, or the beginning of one.
    """
    wanted, entries = who.removeprefix("@").removeprefix("SHA256:"), list(entries)
    found = [(entry, nick) for entry, nick in entries if nick.casefold() == wanted.casefold()]
    found = found or [(entry, nick) for entry, nick in entries if entry.removeprefix("SHA256:").startswith(wanted)]
    if not (found and wanted):
        return set(), _("{who} is not ignored; /ignore lists who is").format(who=who)
    if len({nick or entry for entry, nick in found}) > 1:
        several = ", ".join(nick or entry for entry, nick in found)
        return set(), _("{who} could be any of these; give more of it: {listed}").format(who=who, listed=several)
    return {entry for entry, _nick in found}, _("messages by {who} are shown again").format(
        who=found[0][1] or found[0][0]
    )
