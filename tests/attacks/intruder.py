"""Another user of this machine, who tries all that a host has there: started by root, and then root no more.

    python -m tests.attacks.intruder UID PORT FOLDER...

It prints what succeeded, as JSON: a list of [what, path].
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.bench_parts.wires import Broken, ChatWire
from transports.localqueue import KIND

if TYPE_CHECKING:
    from collections.abc import Callable


def opened(path: Path, mode: int, said: bytes = b"") -> None:
    fd = os.open(path, mode | os.O_NONBLOCK)
    try:
        os.write(fd, said) if said else os.read(fd, 1)
    finally:
        os.close(fd)


def enter(path: Path) -> None:
    """Connect to a socket; succeed if whoever listens there says anything."""
    with closing(socket.socket(socket.AF_UNIX, KIND)) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        if not sock.recv(1):
            raise PermissionError


ATTEMPTS: dict[Callable[[int], bool], dict[str, Callable[[Path], object]]] = {
    stat.S_ISDIR: {"list": os.listdir, "make a file in": lambda path: (path / "theirs").touch()},
    stat.S_ISREG: {"read": lambda path: opened(path, os.O_RDONLY)},
    stat.S_ISSOCK: {"enter": enter},
    # As those do who dial, and junk.
    lambda mode: not (stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)): {
        "write to": lambda path: opened(path, os.O_WRONLY, secrets.token_hex(16).encode() + b"\n../../x\n" * 100),
    },
    bool: {
        "open to all": lambda path: path.chmod(0o777),
        "rename": lambda path: path.rename(path.with_name("theirs")),
        "remove": Path.unlink,
    },
}


def main(uid: int, port: int, *folders: Path) -> None:
    found = {path: path.lstat().st_mode for folder in folders for path in (folder, *folder.rglob("*"))}
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    done = []
    for path, mode in found.items():
        for fits, attempts in ATTEMPTS.items():
            for what, attempt in attempts.items() if fits(mode) else ():
                try:
                    attempt(path)
                except OSError:
                    continue
                done.append((what, str(path)))
    try:
        with socket.socket() as sock:  # create_connection imports what this user may not read
            sock.settimeout(20)
            sock.connect(("127.0.0.1", port))
            ChatWire("lobby").join([sock])
        done.append(("enter", "tcp"))
    except Broken as error:
        done.append((str(error), "tcp"))
    print(json.dumps(done))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:]))
