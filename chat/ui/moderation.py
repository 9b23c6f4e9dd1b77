"""What owners and operators type, as questions to the host; and what everybody reads about it."""

from __future__ import annotations

import re
import time
from math import inf
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chat.core.bodies import Ask
from chat.core.errors import WrongValue
from chat.core.text import visible
from chat.i18n import _, later
from chat.local.identity import fingerprint

if TYPE_CHECKING:
    from chat.client.client import Client
    from chat.core.bodies import Answer, Moderation

ABOUT_SOMEBODY: Final = ("kick", "ban", "unban", "mute", "unmute", "op", "deop")
_LISTS: Final = {"roles": "moderated", "audit": "audit"}
_TIMED: Final = {"ban", "mute"}
_TIME: Final = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ALIKE: Final = "--invite"
_COVERS: Final = {"--uid": "uid", "--key": "key"}
ROLES: Final = {
    "operator": later("operator"),
    "muted": later("muted"),
    "banned": later("banned"),
    "member": later("member"),
    "owner": later("owner"),
}


def seconds_of(word: str) -> int | None:
    """Return how many seconds ``10m``, ``2h`` or ``7d`` are, None if it is no time."""
    found = _TIME.fullmatch(word)
    return int(found[1]) * _UNITS[found[2]] if found else None


def question(name: str, argument: str) -> Ask:
    """Return what to ask the host for a command with its argument. Raises WrongValue."""
    if name in _LISTS:
        return Ask(what=_LISTS[name])
    if name == "topic":
        return Ask(what=name, text="" if argument == "-" else argument)
    if name == "slow":
        seconds = 0 if argument == "off" else seconds_of(f"{argument}s" if argument.isdecimal() else argument)
        if seconds is None:
            raise WrongValue("{argument!r} is no time; write seconds, like 30, or off", argument=argument)
        return Ask(what=name, seconds=min(seconds, 2**32 - 1))
    if name == "remove":
        number = argument.removeprefix("#")
        if not (number.isascii() and number.isdecimal() and 0 < len(number) < 19):
            raise WrongValue(
                "{argument!r} is no message; write its number, as chat log --json gives it", argument=argument
            )
        return Ask(what="retract", first=int(number))
    whom, *words = argument.split() or [""]
    if not whom.strip("@"):
        raise WrongValue("say whom you mean: give a nickname, or the start of a key as /who shows it")
    flags = {word for word in words if word == _ALIKE or word in _COVERS} if name == "ban" else set()
    words = [word for word in words if word not in flags]
    if len(covers := flags & _COVERS.keys()) > 1:
        raise WrongValue("--uid and --key cannot be combined; give one")
    if wrong := next((word for word in words if re.match("--.", word)), None):
        raise WrongValue("{name} has no flag {flag}; begin no word of the reason with --", name=name, flag=wrong)
    seconds = seconds_of(words[0]) if words and name in _TIMED else None
    # A mistyped time that passed for a reason would hold for good.
    if seconds == 0 or (seconds is None and words and name in _TIMED and words[0][0].isdecimal()):
        raise WrongValue(
            "{text!r} is no time; write 30s, 10m, 2h or 7d, or begin the reason with a letter", text=words[0]
        )
    reason = " ".join(words[seconds is not None :])
    ask = Ask(what=name, text=whom, seconds=min(seconds or 0, 2**32 - 1), reason=reason, alike=_ALIKE in flags)
    ask.cover = _COVERS[covers.pop()] if covers else ""
    return ask


def topic(client: Client) -> str:
    """Return a line about what the room is about."""
    text = client.session.topic
    return (
        visible(_("topic: {text}").format(text=text), lines=False)
        if text
        else _("this room has no topic; /topic TEXT sets one")
    )


async def read_pages(client: Client, ask: Ask, pages: float = inf) -> Answer:
    """Ask for the audit trail, or those who have a role: at most so many pages of the host's. Raises ChatError."""
    answer = page = await client.ask(ask)
    while page.more and (pages := pages - 1) > 0:
        before = answer.audit[-1][0] if answer.audit else 0
        page = await client.ask(replace(ask, first=len(answer.members), before=before))
        answer.audit, answer.members = answer.audit + page.audit, answer.members + page.members
    return answer


def decided(decision: Moderation, about: str = "") -> str:
    """Return one line about a decision. ``about`` is the message that was taken back, in words."""
    until = _(" until {time}").format(time=clock(decision.until)) if decision.until else ""
    match decision.action, decision.role:
        case "kick", _role:
            text = _("{by} has removed {nick}")
        case "role", "banned":
            text = _("{by} has banned {nick}") + until
        case "role", "muted":
            text = _("{by} has muted {nick}") + until
        case "role", "operator":
            text = _("{by} has made {nick} an operator")
        case "role", "member" if decision.by:
            text = _("{by} has made {nick} an ordinary member again")
        case "role", "member":
            text = _("{nick} is an ordinary member again: the time is over")
        case "topic", _role if decision.text:
            text = _("{by} has set the topic: {text}")
        case "topic", _role:
            text = _("{by} has removed the topic")
        case "slow", _role if decision.seconds:
            text = _("{by} has turned on slow mode: one message in {seconds} s for each member")
        case "slow", _role:
            text = _("{by} has turned off slow mode")
        case "retract", _role:
            text = _("{by} has taken back {about} by {nick}")
        case _other:
            text = _("{by} has decided something that this version does not know")
    about = about or f"#{decision.target}"
    fields = {"by": decision.by_nick, "nick": decision.nick, "text": decision.text, "seconds": decision.seconds}
    return visible(text.format(**fields, about=about), lines=False)


def lines_of(answer: Answer) -> list[str]:
    """Return the lines of an audit trail, the oldest first, or of those who have a role."""
    made = [
        " ".join(filter(None, (clock(when), by, what, whom, why and f"({why})")))
        for _number, when, by, what, whom, why in reversed(answer.audit)
    ]
    for key, nick, role, until in answer.members:
        end = _(" until {time}").format(time=clock(until)) if until else ""
        label = ROLES.get(role, role)
        made.append(f"{_(label)}{end}  {nick or '?'}  {fingerprint(key)}")
    return [visible(line, lines=False) for line in made]


def clock(when: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when / 1000))
