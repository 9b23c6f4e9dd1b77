"""Six words for a host's key, which two people can read to each other over the telephone.

The words are the same in every language of chat: the two may not have the same one. A list for each language could
not be compared, and the Chinese list of BIP 39 is of single characters, many of which sound alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_COUNT: Final = 6
_BITS: Final = 11  # of each word: the list has 2048


def words(hashed: bytes) -> str:
    """Return the words for the SHA-256 of a key: its first 66 bits.

    Whoever wants another key with the same words has to make about 2**66 keys.
    """
    listed = [line for line in Path(__file__).with_name("words.txt").read_text("ascii").split("\n") if line[:1] != "#"]
    number = int.from_bytes(hashed) >> len(hashed) * 8 - _COUNT * _BITS
    return " ".join(listed[number >> shift & (1 << _BITS) - 1] for shift in reversed(range(0, _COUNT * _BITS, _BITS)))
