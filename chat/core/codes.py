"""The codes that go over the wire, and what each says in English. Data only.

A host sends a code and its fields. The reader looks the code up here and phrases it in the reader's language; the
English text beside it on the wire is a courtesy to other programs. A code never changes; its text may.
"""

from __future__ import annotations

from typing import Final

REFUSALS: Final = {  # why a peer may not enter
    "no-room": "this host has no room {room!r}; ask its owner for an invite",
    "no-shared-room": "you share no room with that key on this host",
    "not-open": "room {room!r} is not open on this machine; open it with: chat host {room}",
    "closed-shared": "your room {room!r} is closed; to write in user {owner}'s, name it: {owner}/{room}",
    "not-shared": "no room {room} is open to you on this machine; see: chat rooms",
    "not-here": "room {room!r} is not hosted here: there is no {folder}; choose another data folder with --data",
    "none-open": "no room is open on this machine; open one with: chat host",
    "not-invited": "room {room} is by invite only; ask a member for an invite",
    "direct-room": "a direct room is only for its two members",
    "banned": "you are banned from room {room}",
    "banned-because": "you are banned from room {room}: {why}",
    "banned-source": (
        "somebody is banned from room {room} who comes from the same address as you, or as the same user of the host's "
        "machine; if it is not you, ask the room's owner"
    ),
    "kicked": "{nick} has removed you from room {room}",
    "kicked-because": "{nick} has removed you from room {room}: {why}",
    "wrong-invite": "this invite does not open room {room}; ask for a new one",
    "invite-expired": "this invite has expired; ask for a new one",
    "invite-revoked": "this invite has been revoked; ask for a new one",
    "invite-used": "this invite has been used up; ask for a new one",
    "nick-invalid": "the nickname cannot be used: {why}",
    "nick-similar": "the nickname {candidate} looks like {other}, which is taken; choose another with --as",
    "nick-reserved": "the nickname {candidate} is reserved: it is, or looks like, {like!r}; choose another with --as",
    "nick-taken": "the nickname {nick} is taken; choose another with --as",
    "too-many-nicks": "your key already has {count} nicknames here; use one of them",
    "too-many-links": "your key already has {count} links to this room; close one of them",
    "too-many-rooms": "you have {count} direct rooms open on this host, which is the limit",
    "newcomers": "too many newcomers are entering this room; try again in {seconds} s",
    "too-many-streams": "your key has brought too many new outboxes; try again in {seconds} s",
    "busy": "the host has as many links as it can open (ulimit -n); try again later",
    "disk-full": "the host's disk takes nothing now (it is full, or busy), so nobody new can enter; try again later",
    "room-damaged": "this direct room is damaged; the owner of the room finds out more in the host's log",
    "protocol": "the host says that we broke the protocol: {why}",
}
NO_ROOM: Final = frozenset(  # exit code 4, not 3
    ("no-room", "no-shared-room", "not-open", "closed-shared", "not-shared", "not-here", "none-open")
)
BUSY: Final = frozenset({"busy", "newcomers", "too-many-streams"})  # may pass: exit code 4, and members dial again

NOTICES: Final = {
    "closing": "the host is closing the room",
    "disk-full": "the host's disk is full; your messages wait until it has space",
    "disk-waits": "the host cannot write to its disk now ({why}); your messages wait until it can",
    "disk": "the host's disk takes messages again; those that waited are stored",
    "disk-low": (
        "the host's disk has less than {size} free; until there is more, only the owner and operators can write, "
        "and your messages wait"
    ),
    "disk-space": "the host's disk has space again; everybody can write",
    "clock-ahead": "the host's clock went forward by {seconds} s; if it is wrong, so is the time of new messages",
    "clock-back": "the host's clock went back by {seconds} s; new messages show earlier times, and stay in order",
    "board-full": "the room's board is full, so nobody can see your status",
    "loop-slowed": "{nick} and other programs answer each other; they are slowed down",
    "loop-muted": "{nick} and other programs answer each other; they are muted until a person speaks",
    "peer-exited": "{nick} has left: it ended with exit status {status}",
    "peer-exited-saying": "{nick} has left: it ended with exit status {status}: {said}",  # to the owner
    "peer-killed": "{nick} has left: it was ended by {signal}",
    "peer-failed": "{nick} has left: it could not be started: {why}",
    "peer-restarts": "{nick} is started again in {seconds} s",
    "peer-given-up": (
        "{nick} is not started again: it ended {count} times within {seconds} s of its start; "
        "/peer NAME=COMMAND starts it"
    ),
}

NICKNAMES: Final = ("nick-invalid", "nick-similar", "nick-reserved", "nick-taken", "too-many-nicks")  # of REFUSALS

LOCAL: Final = {  # what the client itself says; a host that sends one of these codes does not get this text
    "host-key-changed": (
        "the key of the host at {address} has changed! it was {before} and is now {shown}: someone may be "
        "intercepting the connection. if the owner sees the words {words!r}, too, run: chat trust forget {quoted}; "
        "then join again (it is line {number} of {path})"
    ),
    "first-use": (
        "trust on first use: the host at {address} has the key {shown}; compare these words with its owner, by phone "
        "or in person: {words}"
    ),
    "own-words": "who joins by address sees: {words}",
    "other-host": (
        "the host at {address} has the key {shown}, not the one in the invite: it is another host, or someone is "
        "intercepting the connection; ask for a new invite by a way you trust"
    ),
    "host-proof": "the host at {address} cannot prove that it holds its key; do not trust it",
    "known-hosts-damaged": (
        "line {number} of {path} is unreadable, so no host can be checked; correct it (ADDRESS SHA256:...), or "
        "remove it to trust that host anew"
    ),
    "outbox": (
        "messages that no host has confirmed yet are damaged from byte {number} of {size} on; the {count} before "
        "that will be sent, look for the rest in {path}"
    ),
    "many-members": "more than {count} members are here; the others are not listed",
    "own-disk": "your own disk takes nothing now ({why}); what you write waits until it does, or until you leave",
    "not-remembered": "{why}; so the key of the host at {address} is remembered only until you leave",
    "unsent": "what is not stored is kept in {path}; send it again from there, or delete the file",
    "host-key": "the invite names a new key for {address}, and the host has proved that it holds it",
}

ANSWERS: Final = {
    "started": "{name} is started",
    # What was asked for could not be done:
    "unknown-request": "this host does not know the request {what!r}; is it an older version?",
    "staff-only": "only the room's owner and operators may do that ({what})",
    "no-such-nick": "nobody in this room is called {whom}; give a nickname, or the start of a key as /who shows it",
    "many-such-keys": "several keys begin with {whom}; give more of it",
    "outranked": "{nick} is {role}; nobody acts on the owner, and only the owner on operators",
    "is-already": "{nick} is {role} already",
    "no-uid": "it is not known which user of the host's machine {nick} is, or it is the host's own; leave out --uid",
    "is-not": "{nick} is not {role}",
    "no-such-message": "there is no message {number} in this room, or not any more",
    "slow-too-long": "{seconds} s between two messages is too long; use at most {limit}",
    "disk-waits": "the host's disk takes nothing now, so nothing was decided; try again later",
    "no-such-invite": "there is no invite {which}, or several begin so; chat invite list names them",
    "owner-only": "only the room's owner may ask for that ({what})",
    "busy": "your last search is still running; wait for its answer",
    "range-runs": "another part of the log is still on its way; wait until it has arrived",
    "disk-full": "the host's disk takes nothing now (it is full, or busy), so there is no new invite; try again later",
    "not-local": "programs can only be started from the host's own machine, over a local transport",
    "no-programs": "this host starts no programs",
    "bad-command": "the command {line!r} cannot be read: {why}; check its quotes",
    "no-command": "{spec!r} names no program; write [NAME=]COMMAND, like echo='sh echo.sh'",
    "no-program": "there is no program {command!r} here; check the name, or give its whole path",
    "program-name": "{why}; name the program: NAME={line}",
    "program-running": "a program called {name} is already in the room; give this one another name: NAME=COMMAND",
    "search-long": "the search is {count} characters long; use at most {limit}",
    "search-words": "the search has {count} words; use at most {limit}",
    "search-empty": "there is nothing to search for: it has no letter and no digit; give a word",
    "search-minus": "there is nothing to search for: it only excludes words; give a word to find",
    "search-unusable": "the search index cannot be used: {why}; the host tries again",
    "search-rebuilt": "the search index was damaged ({why}) and is built anew; try again",
    "search-damaged": "the search index is damaged again: {why}; there is no search until the room reopens",
    "search-missing": "this host cannot search: the SQLite of its Python was built without FTS5",
    "search-fault": "this host cannot search because of a bug",
    "search-closed": "the room is closed",
}

REJECTED: Final = {  # why one message was not taken
    "muted": "you are muted, so others do not see what you write; ask an operator",
    "slow": "slow mode: one message in {seconds} s; try again in {left} s",
    "not-yours": "only its author can change message {number}",
    "too-long": "the message is too long ({size} bytes, the limit is {limit}); send it in parts",
    "no-target": "the message that it refers to is not in this room's log",
    "unknown": "the host did not take it and no longer knows why",
    "unconfirmed": (
        "the host has lost the part of its log where this should be, so nobody knows whether it was stored; look for "
        "it, and send it again if it is not there"
    ),
}

REWOUND: Final = {  # why the host's log is not a continuation of what a member holds
    "another-log": "this is another log of the same name; the host has lost or replaced the one you knew",
    "older-copy": (
        "the host's log ends at {end}, but you hold messages up to {held}; the host went back to an older copy"
    ),
    "ends-before": (
        "the host's log ends at {end}, before the message {number} that you asked for; if there was one, the host went "
        "back to an older copy"
    ),
    "differs": (
        "message {number} differs from the one you hold; the host went back to an older copy and went on from there"
    ),
}

ROLES: Final = {  # what a field ``role`` may name
    "operator": "an operator",
    "muted": "muted",
    "banned": "banned",
    "member": "an ordinary member",
    "owner": "the owner",
}

REASONS: Final = {  # what a field ``why`` may name: errors of the system, by errno(3), and of shlex
    "EADDRINUSE": "address already in use",
    "EPIPE": "broken pipe",
    "EADDRNOTAVAIL": "cannot assign requested address",
    "ECONNREFUSED": "connection refused",
    "ECONNRESET": "connection reset by peer",
    "ETIMEDOUT": "connection timed out",
    "EEXIST": "file exists",
    "ENAMETOOLONG": "file name too long",
    "EIO": "input/output error",
    "EISDIR": "is a directory",
    "ENETUNREACH": "network is unreachable",
    "EHOSTUNREACH": "no route to host",
    "ENOSPC": "no space left on device",
    "ENOENT": "no such file or directory",
    "ENOTDIR": "not a directory",
    "EDQUOT": "disk quota exceeded",
    "EPERM": "operation not permitted",
    "EACCES": "permission denied",
    "EROFS": "read-only file system",
    "ELOOP": "too many levels of symbolic links",
    "EMFILE": "too many open files",
    # Texts that differ on macOS, and those of getaddrinfo(3):
    "EADDRNOTAVAIL, macOS": "can't assign requested address",
    "ETIMEDOUT, macOS": "operation timed out",
    "EAI_NONAME": "name or service not known",
    "EAI_NONAME, macOS": "nodename nor servname provided, or not known",
    "EAI_AGAIN": "temporary failure in name resolution",
    "no-closing-quotation": "no closing quotation",
    "no-escaped-character": "no escaped character",
}
