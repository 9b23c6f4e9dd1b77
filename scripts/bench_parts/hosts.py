"""A real host on the queue, in a process of its own, and what it takes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chat.transport import Address
from scripts.bench_parts.wires import Broken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOM: Final = "bench"
ROOT: Final = Path(__file__).parents[2]


@contextmanager
def queue_host(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Run a host that listens on the queue; give its process id and the path of its socket. Raises Broken."""
    words = ["-t", "queue", "--headless", "--json", "--open", "--rate", "0", "--data", f"{folder}/data"]
    with subprocess.Popen(
        [sys.executable, "-m", "chat", "host", ROOM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise Broken(f"the host did not start; exit code {process.wait()}")
            yield process.pid, Address.parse(json.loads(line)["address"]).place
        finally:
            process.send_signal(signal.SIGTERM)


def peak(pid: int) -> int:
    """Bytes of memory that a process had at most: VmHWM of proc(5)."""
    (found,) = re.findall(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found) * 1024
