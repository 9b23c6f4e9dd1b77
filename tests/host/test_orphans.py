"""Finding the children of a process, whatever its threads do meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chat.host import orphans

pytestmark = pytest.mark.skipif(
    not Path(f"/proc/self/task/{threading.get_native_id()}/children").exists(), reason="the kernel lists no children"
)


def test_a_child_is_seen_while_threads_come_and_go() -> None:
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()

    churning = threading.Thread(target=churn)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        churning.start()
        try:
            looks = [orphans._children() for _ in range(2000)]
        finally:
            ended.set()
            churning.join()
            child.kill()
    assert all(child.pid in look for look in looks)
