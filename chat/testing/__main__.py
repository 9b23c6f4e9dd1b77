"""What ``AnyKit.process`` runs."""

import asyncio
import sys

from chat.testing.boards import obey
from chat.testing.kit import wait_to_be_killed

entry_point, role, *words = sys.argv[1:]
if role == "board":
    obey(entry_point, *words)
else:
    asyncio.run(wait_to_be_killed(entry_point, role, *words))
