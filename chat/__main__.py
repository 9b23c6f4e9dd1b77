"""Where ``chat`` starts, as a command and as ``python -m chat``."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command. Ctrl-C while its modules are loaded ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else our parent ignores it, as nohup(1) does
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from chat.cli.main import main

    main()


if __name__ == "__main__":
    main()
