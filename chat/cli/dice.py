"""Roll a die when somebody says !roll: chat host --peer 'dice=python3 dice.py'."""

import random
import sys


def main() -> None:
    for line in sys.stdin:  # ann: !roll
        nick, _, text = line.rstrip("\n").partition(": ")
        if text == "!roll":
            print(f"{nick} rolls {random.randint(1, 6)}", flush=True)


if __name__ == "__main__":
    main()
