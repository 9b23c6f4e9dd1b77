"""What happens in a room, as lines of plain text: for the linear face and for commands that print messages.

Rules:

1. Everything from somebody else is filtered here, by ``text.visible``, and nowhere later.
2. A line is a whole sentence and can be understood without the lines around it. A line about an earlier message quotes
   its beginning.
3. The time and the author begin every line of a message, so that no text can pass for somebody else's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chat.client.events import Lost, Up
from chat.core.bodies import Gap, Notice
from chat.core.events import Here, Rejected, Rewound
from chat.core.outgoing import split_body
from chat.core.text import visible
from chat.core.wire import Kind
from chat.i18n import _, plural, translate
from chat.local.identity import fingerprint, host_hash
from chat.local.words import words
from chat.ui.moderation import decided

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.client.events import ClientEvent
    from chat.ui.entry import MessageEntry
    from chat.ui.timeline import Timeline

_EXCERPT: Final = 40  # characters of a message that another one is about
_NAMED: Final = 8  # people who came, or left, in one line: more are counted


def describe(event: ClientEvent) -> list[str]:
    """Return the lines about an event that is no message; none for one that people need not know of."""
    match event:
        case Here(came, went, first):
            text = _("here: {nicks}") if first else _("{nicks} came")
            moved = [(text, came), (_("{nicks} left"), went)]
            return [text.format(nicks=_line(listed([nick for _key, nick in some]))) for text, some in moved if some]
        case Rejected(entry, _code, why):
            text = split_body(entry.kind, entry.flags, entry.body)[0][:_EXCERPT]
            form = _("not sent: {why}: {text}") if text else _("not sent: {why}")
            return [form.format(why=_line(translate(why)), text=_line(text))]
        case Gap():
            text = plural("1 message is gone for good", "{count} messages are gone for good", event.count)
            return [text.format(count=event.count)]
        case Rewound(why):
            return [_("{why}; what follows begins anew").format(why=_line(translate(why)))]
        case Notice():
            return [_line(translate(event))]
        case Lost(why):
            return [_("link lost: {why}; coming back").format(why=_line(translate(why)))]
        case Up(address):
            return [_("connected over {address}").format(address=_line(address.brief))]
    return []


def listed(nicks: list[str]) -> str:
    """Return nicknames in one line, the first few by name."""
    more = len(nicks) - _NAMED
    return ", ".join([*nicks[:_NAMED], _("{count} more").format(count=more)] if more > 0 else nicks)


def describe_message(
    item: MessageEntry, about: str = "", *, number: bool = False, clock: str = "%H:%M", restores: bool = False
) -> list[str]:
    """Return the lines of a message.

    ``about`` is what it answers or changes, in words; else that is named by its number. With ``number`` the last line
    ends with the number by which commands can name the message. ``clock`` is the time, in strftime's format.
    ``restores``: what it changes was taken back.
    """
    head = time.strftime(f"{clock} ", time.localtime(item.time / 1000)) if clock else ""
    nick, text = _line(item.nick) + (f" [{_('bot')}]" if item.bot else ""), visible(item.text)  # no nick has brackets
    numbered, about = not about, about or f"#{item.target}"
    if not item.verified:
        about += f" ({_('unverified')})"
    handle = item.seq
    if item.decision is not None:
        return [f"{head}* {decided(item.decision, about if item.target else '')}"]
    match item.kind:
        case Kind.SAY if not item.target:
            before = f"{nick}: "
        case Kind.SAY:
            before = _("{nick} answers {about}: ").format(nick=nick, about=about)
        case Kind.ACTION:
            before = f"* {nick} "
        case Kind.EDIT:
            handle = item.target
            form = _("{nick} brings back {about}: ") if restores else _("{nick} corrects {about}: ")
            before = form.format(nick=nick, about=about)
        case Kind.RETRACT:
            handle, text = item.target, ""
            before = _("{nick} takes back {about}").format(nick=nick, about=about)
        case Kind.REACT:
            handle, given, text = item.target, _line(item.text), ""
            phrase = (
                _("{nick} answers {about}, with {emoji}") if given else _("{nick} takes back the reaction to {about}")
            )
            before = phrase.format(nick=nick, about=about, emoji=given)
        case kind:
            text = ""
            before = f"{nick} {_('sent something of kind {kind}, which this version cannot show').format(kind=kind)}"
    first, *rest = text.split("\n")
    made = [head + before + first, *(f"{head}{nick}: {line}" for line in rest)]
    if number and not (numbered and handle == item.target):
        made[-1] += f" #{handle}"
    return made


def excerpt(kind: int, item: MessageEntry) -> str:
    """Return how a message of this kind refers to ``item``; "" if only its number will do."""
    text = _line(item.text[: 2 * _EXCERPT])
    if kind in {Kind.RETRACT, Kind.MODERATION} or not text.strip():  # do not repeat what is taken back
        return ""
    text = text if len(text) <= _EXCERPT else _line(text[: _EXCERPT - 1]) + "…"
    if kind == Kind.EDIT:
        return _("“{text}”").format(text=text)
    return _("{nick}, “{text}”").format(nick=_line(item.nick), text=text)


def quoted(item: MessageEntry) -> str:
    return "".join(f"> {line}\n" for line in visible(item.text).split("\n"))


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
        *([_("the host's words: {words}").format(words=words(host_hash(client.host_key)))] if client.host_key else []),
    ]
    made += [_("before: {text}").format(text=edit.text) for edit in item.earlier]
    made += [f"{given} {', '.join(nicks)}" for given, nicks in timeline.reactions(item)]
    return made


def given_nick(client: Client, nick: str, *, is_typed: bool = True) -> list[str]:
    """Return what to read if the host gave us another nickname than the one we asked for."""
    if client.session.other or client.wanted.casefold() in ("", nick.casefold()):  # a direct room takes the one we have
        return []
    text = (
        _("{wanted} is somebody else here, so you are {nick}; /nick NAME takes another name")
        if is_typed
        else _("{wanted} is somebody else here, so you are {nick}; --as NAME takes another name")
    )
    return [_line(text.format(wanted=client.wanted, nick=nick))]


def _path(client: Client) -> str:
    """Return how messages come here. Only the host knows how their author reaches it."""
    if not client.wire or client.address is None:
        return _("path: through the host; there is no link to it now")
    text = _("path: through the host, which this window reaches over {address} ({trust})")
    return text.format(address=client.address.brief, trust=_(client.wire[1]))


def _line(text: str) -> str:
    return visible(text, lines=False)
