"""THE CONTRACT: what every transport and every board must do, in numbered clauses, each with a check.

Ten lines check a transport:

    class Toy(testing.Kit):
        entry_point = "manywire_toy:transport"  # as in the entry point

        def address(self) -> Address:
            return Address("toy", str(self.folder / secrets.token_hex(4)))

    @pytest.mark.parametrize("name", testing.CLAUSES | testing.ROOM_CLAUSES)
    def test_contract(name: str, tmp_path: Path) -> None:
        asyncio.run(testing.check(Toy(tmp_path), name))

A BoardKit checks a board in the same way, with BOARD_CLAUSES. It needs only the entry point.

Rules:

1. A clause is a sentence and a check that can fail. The sentence is the promise; the check tries hard to break it.
2. No check sleeps. It waits at most one time unit (5 s, multiplied by the environment variable CHAT_TEST_UNIT) for what
   must happen. What must not happen is checked over turns of the loop, not over time.
3. Every clause runs under a watchdog. A blocking call would stop asyncio's timeouts, too: hence an alarm signal (in the
   main thread).
4. A link is checked from both ends, a room with the real host, store and client, also over FaultyLinks.
5. Nothing here imports pytest. A broken promise is ContractBroken, an AssertionError.
"""

from chat.testing import kit, links, rooms  # links and rooms fill the tables of clauses
from chat.testing.boards import BoardKit, never_torn
from chat.testing.faults import FaultyLink
from chat.testing.kit import (
    BOARD_CLAUSES,
    CLAUSES,
    ROOM_CLAUSES,
    ContractBroken,
    Kit,
    check,
    connect,
    pattern,
    send_pattern,
)

__all__ = [
    "BOARD_CLAUSES",
    "CLAUSES",
    "ROOM_CLAUSES",
    "BoardKit",
    "ContractBroken",
    "FaultyLink",
    "Kit",
    "check",
    "connect",
    "kit",
    "links",
    "never_torn",
    "pattern",
    "rooms",
    "send_pattern",
]
