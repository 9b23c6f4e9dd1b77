"""What the rooms of one host share: the store and its disk, the tasks, and how the host fails."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from chat.core.ledger import RoomTables
    from chat.core.log import Batch
    from chat.host.store import Store

SLOW_COMMIT: Final = 0.002  # seconds; slower disks are written from a thread


class Runtime:
    """One per host. ``rate`` is in frames a second and member, 0 for no limit."""

    def __init__(self, store: Store, rate: int) -> None:
        self.store = store
        self.rate = rate
        self.disk = asyncio.Lock()  # held while a thread writes; a write from the loop waits for it
        self.commit_time = 0.0  # seconds, a running mean
        self.search_thread = ThreadPoolExecutor(1, "search")  # for the indexes of all rooms
        self.closed = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def disk_is_quick(self) -> bool:
        """Whether the loop itself may commit now."""
        return self.commit_time < SLOW_COMMIT and not self.disk.locked()

    def commit(self, room: int, batches: list[Batch], changes: RoomTables) -> float:
        """Commit, on whatever thread this runs, and return how many seconds the disk took. Raises StoreError."""
        began = time.perf_counter()
        self.store.commit(room, batches, changes)
        return time.perf_counter() - began

    def committed(self, seconds: float) -> None:
        """Learn how quick the disk is. A single very long commit, such as a checkpoint, does not make it slow."""
        self.commit_time += (min(seconds, 4 * SLOW_COMMIT) - self.commit_time) / 8

    def start(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task; if it fails, so does the host."""
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the host with this error, unless it has failed already."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
