"""What ``Kit.doomed`` and ``Hand`` run in a process of their own."""

import asyncio
import sys

from chat.testing.boards import obey
from chat.testing.kit import wait_to_be_killed

if sys.argv[1] == "board":
    obey(*sys.argv[2:])
else:
    asyncio.run(wait_to_be_killed(*sys.argv[1:]))
