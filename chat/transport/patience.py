"""Time limits for a peer that leave out the time in which this process itself stood still.

After SIGSTOP, a suspended machine or a disk that blocked the event loop, every timer is due at once, while what the
peer has sent in time is still unread. A late timer says that we were not there, not that the peer was silent.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STEPS: Final = 10


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``, in steps of a tenth: one that comes later than it is long does not count."""
    loop = asyncio.get_running_loop()
    step, left = seconds / _STEPS, _STEPS
    timer: asyncio.TimerHandle

    def tick(due: float) -> None:
        nonlocal left, timer
        now = loop.time()
        left -= now - due < step
        if left:
            timer = loop.call_at(now + step, tick, now + step)
        else:
            limit.reschedule(now)

    async with asyncio.timeout(None) as limit:
        first = loop.time() + step
        timer = loop.call_at(first, tick, first)
        try:
            yield
        finally:
            timer.cancel()
