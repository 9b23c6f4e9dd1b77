"""What ``Kit.doomed`` and ``Hand`` run in a process of their own."""

import asyncio
import sys

from chat.testing import _die_some_day, _obey

if sys.argv[1] == "board":
    _obey(*sys.argv[2:])
else:
    asyncio.run(_die_some_day(*sys.argv[1:]))
