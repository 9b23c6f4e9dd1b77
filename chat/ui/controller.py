"""What every face does with a command: one method for each row of the table in ``commands``.

    keys, lines, objects ──▶ face ──▶ Controller.do("who", "ann") ──▶ rooms, clients, people, settings
                              ▲                  │
                              └── show, entered … ◀─┘

To add a command, add a row to ``commands.COMMANDS`` and a method ``do_NAME`` here. A face's own method of that name
goes first: some commands are about the screen, and each face searches in its own way.

Rules:

1. A command acts at once if it can, so that what is typed right behind it finds its effect. What has to wait is
   returned as a coroutine: the linear face awaits it before the next line, the full screen runs it in the background.
2. What goes wrong is raised (ChatError, ValueError), and the face shows it.
3. A message is about the room in which it was typed, wherever the user has gone meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from chat.core.bodies import Ask
from chat.core.errors import AddressError, ChatError, WrongValue
from chat.core.status import Level
from chat.i18n import _
from chat.local.identity import fingerprint
from chat.local.invite import Invite
from chat.local.settings import NAMES, change, choices, toml, value_of
from chat.local.settings import parse as parse_setting
from chat.ui import invites, moderation
from chat.ui.commands import LINES, USAGES, help_on
from chat.ui.face import R
from chat.ui.people import SHOWN_AS, ignored, list_ignored, list_people, names_of, to_unignore
from chat.ui.rooms import Rooms, now

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.ui.face import Work


class Controller(Rooms[R]):
    """What one user does in one face."""

    def do(self, name: str, argument: str = "") -> Work:
        """Do a command of the table; return what is left to wait for. Raises ChatError, ValueError."""
        only = USAGES[name].only
        if only not in ("", self._face.kind):
            if only == LINES:
                raise ChatError("/{name} is for chat join --plain", name=name)
            raise ChatError("/{name} is for the full-screen face", name=name)
        does: Callable[[str], Work] = getattr(self._face.own, f"do_{name}", None) or getattr(self, f"do_{name}")
        return does(argument)

    def do_help(self, word: str) -> None:
        if word:
            self._face.show(help_on(word, self._face.keys))
        else:
            self._face.show_list(self._face.help())

    def do_quit(self, _argument: str) -> None:
        self._face.quit()

    # -- people ----------------------------------------------------------------------------------

    def do_nick(self, nick: str) -> Work:
        if self.room.client.session.other:
            raise ChatError("in a private room you have the nickname of the room that you share; use /nick there")
        return self.room.client.rename(nick)

    def do_who(self, nick: str) -> None:
        room, people = self.room, self.room.client.people()
        if nick:
            who = self._find(nick)
            self._face.show(*room.known.about(who, people, ignored=who[0] in room.timeline.ignored))
        else:
            alone = [_("nobody else is here; /invite says how others come in")] if len(people) < 2 else []
            self._face.show(list_people(people, room.client.session.users), *alone)

    def ignored(self) -> list[tuple[str, str]]:
        """Return who is ignored, as the settings write it, with the nickname if it is known."""
        return ignored(self.settings.ignore, (room.known for room in self.rooms))

    def do_ignore(self, nick: str) -> Work:
        if not nick:
            self._face.show_list(list_ignored(self.ignored()))
            return None
        key, name = self._find(nick)
        if key == self.room.client.session.key:
            raise ChatError("this is you; /ignore NICK is for somebody else")
        for room in self.rooms:
            room.ignore(key)
        others = [entry for entry in self.settings.ignore if entry not in names_of(key)]
        text = _("messages by {nick} are hidden from now on; /unignore {nick} shows them again")
        return self._change("ignore", (*others, fingerprint(key)), text.format(nick=name))

    def do_unignore(self, who: str) -> Work:
        entries, text = to_unignore(who, self.ignored())
        for room in self.rooms:
            room.unignore(entries)
        return self._change("ignore", tuple(entry for entry in self.settings.ignore if entry not in entries), text)

    # -- what we show of ourselves ---------------------------------------------------------------

    def _be(self, level: Level, note: str) -> None:
        self.room.client.show(level=level, note=note)  # raises if the note is too long
        self._idle = False
        self.share(level=level, note=note)
        self._face.show(_(SHOWN_AS[level]))

    do_away = partialmethod(_be, Level.AWAY)
    do_busy = partialmethod(_be, Level.BUSY)
    do_back = partialmethod(_be, Level.ONLINE)

    def share(self, **changes: Any) -> None:
        """Show something of ourselves in every room; typing and how far we have read only in the current one."""
        for room in [self.room] if {"typing", "read"} & set(changes) else self.rooms:
            with suppress(ValueError):  # a nickname that the host has not given yet
                room.client.show(active=self.active, **changes)

    def touch(self) -> None:
        """The user did something, and is back if they were away without saying so."""
        self.active = now()
        if self._idle:
            self._idle = False
            self.share(level=Level.ONLINE)

    def idle(self) -> None:
        """The user has done nothing for long: show that, unless they show something else."""
        if self.room.client.shows.level == Level.ONLINE:
            self._idle = True
            self.share(level=Level.AWAY)

    # -- settings --------------------------------------------------------------------------------

    def do_set(self, argument: str) -> Work:
        name, value = [*argument.split(maxsplit=1), "", ""][:2]
        if not name:
            self._face.show_list([self._setting(name) for name in NAMES if not name.startswith("keys.")])
        elif name not in NAMES:
            raise ChatError("there is no setting {name}; /set lists them", name=name)
        elif not value:
            allowed = ", ".join(choices(name))
            self._face.show(self._setting(name) + (f" ({allowed})" if allowed else ""))
        else:
            return self._change(name, parse_setting(name, value))
        return None

    def _setting(self, name: str) -> str:
        return f"{name} = {toml(value_of(self.settings, name))}"

    def do_theme(self, name: str) -> Work:
        return self._change("theme", parse_setting("theme", name))

    def do_bell(self, argument: str) -> Work:
        if argument not in {"on", "off"}:
            raise WrongValue("write /bell on, or: /bell off")
        on = argument == "off"
        room = self.room.client.session.room
        others = tuple(name for name in self.settings.muted if name != room)
        text = _("no bell and no unread mark for this room; /bell on ends that") if on else _("the bell is on again")
        return self._change("muted", (*others, room) if on else others, text)

    def _change(self, name: str, value: Any, text: str = "") -> Work:
        """Change a setting here and now, and in the file; then show a line."""
        if name.startswith("keys.") or name in self._face.next_start:
            text = _("{name} is set and takes effect at the next start").format(name=name)
        else:
            self.settings = replace(self.settings, **{name: value})
            self._face.changed(name)
        return self._store(name, value, text or _("{name} is set, now and for next time").format(name=name))

    async def _store(self, name: str, value: Any, text: str) -> None:
        if self._file is not None:
            await asyncio.to_thread(change, self._file, name, value)
        self._face.show(text)

    # -- the host --------------------------------------------------------------------------------

    def do_peer(self, spec: str) -> Work:
        return self._ask(self.room, Ask(what="peer", text=spec))

    def do_reopen(self, _argument: str) -> Work:
        if self._face.hosted is None:
            raise ChatError(
                "this window did not open the room; the one that did can open it again, or its owner with: "
                "chat host {room}",
                room=self.room.client.session.room,
            )
        return self._face.hosted.reopen()

    def do_invite(self, argument: str) -> Work:
        if argument not in {"", "qr"}:
            raise WrongValue("write /invite, or: /invite qr")
        if self.room.client.session.other:
            raise ChatError("nobody else can come into a private room; use /invite in the room that you share")
        return self._invite(self.room, qr=bool(argument))

    async def _invite(self, room: R, *, qr: bool) -> None:
        answer = await room.client.ask(Ask(what="invite"))
        self._face.answer(answer, room)
        about = list(invites.about(answer.text, qr=qr, columns=self._face.columns))
        self._face.show(*about, room=room)
        with suppress(AddressError):  # of a newer host; and nothing else may get into the clipboard
            self._face.hand_out(str(Invite.parse(answer.text)), () if qr else about, unbroken=not qr)

    def _moderate(self, argument: str, *, name: str) -> Work:
        return self._decide(self.room, moderation.question(name, argument))

    def do_topic(self, text: str) -> Work:
        if text:
            return self._moderate(text, name="topic")
        self._face.show(moderation.topic(self.room.client))
        return None

    do_kick = partialmethod(_moderate, name="kick")
    do_ban = partialmethod(_moderate, name="ban")
    do_unban = partialmethod(_moderate, name="unban")
    do_mute = partialmethod(_moderate, name="mute")
    do_unmute = partialmethod(_moderate, name="unmute")
    do_op = partialmethod(_moderate, name="op")
    do_deop = partialmethod(_moderate, name="deop")
    do_slow = partialmethod(_moderate, name="slow")
    do_roles = partialmethod(_moderate, name="roles")
    do_audit = partialmethod(_moderate, name="audit")

    async def _ask(self, room: R, ask: Ask) -> None:
        self._face.answer(await room.client.ask(ask), room)
