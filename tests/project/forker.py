"""Runs ``chat`` on terminals: each time in a process of its own, forked from one that has loaded chat already.

To load it is most of what a short command costs, and the docs have a hundred and thirty of them.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import socket
import subprocess
import sys
import termios
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

LOADED = "chat.cli.main", "chat.client.client", "chat.ui.fullscreen.face", "chat.ui.linear", "transports.localqueue"


class Forker:
    """The process that has loaded chat, from outside."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair()
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()
        self._process.wait()

    def ask(self, request: dict[str, Any], *fds: int) -> Any:
        socket.send_fds(self._door, [json.dumps(request).encode()], fds)
        return json.loads(self._door.recv(100))


class Forked:
    """A ``chat`` command in a session of its own, as ``Popen`` would have it."""

    def __init__(
        self, forker: Forker, arguments: list[str], folder: Path, environment: dict[str, str], terminal: int
    ) -> None:
        self._forker = forker
        request = {"arguments": arguments, "folder": str(folder), "environment": environment}
        self.pid: int = forker.ask(request, terminal)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forker.ask({"poll": self.pid})
        return self.returncode


def serve(door: socket.socket) -> None:
    for name in LOADED:
        import_module(name)
    gc.freeze()
    while True:
        request, fds, _, _ = socket.recv_fds(door, 65536, 1)
        if not request:
            return
        wanted = json.loads(request)
        if "poll" in wanted:
            pid, status = os.waitpid(wanted["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            door.close()
            begin(fds[0], **wanted)
        else:
            os.close(fds[0])
        door.sendall(json.dumps(answer).encode())


def begin(terminal: int, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(terminal, fd)
    os.close(terminal)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["chat", *arguments]
    import_module("chat.__main__").main()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end:
        serve(end)
