"""The words for a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from chat.local import words


def test_the_list_has_a_word_for_eleven_bits_that_four_letters_tell_from_the_others() -> None:
    lines = Path(words.__file__).with_name("words.txt").read_text("ascii").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert len({word[:4] for word in listed}) == len(listed) == 2048
    assert all(word.isalpha() and word.islower() for word in listed)
    assert any("Permission is hereby granted" in line for line in lines)


@pytest.mark.parametrize(  # the test vectors of BIP 39: the same bits at the start
    ("byte", "expected"),
    [
        (0x00, "abandon abandon abandon abandon abandon abandon"),
        (0x7F, "legal winner thank year wave sausage"),
        (0x80, "letter advice cage absurd amount doctor"),
        (0xFF, "zoo zoo zoo zoo zoo zoo"),
    ],
)
def test_words_are_the_first_66_bits(byte: int, expected: str) -> None:
    assert words.words(bytes([byte]) * 32) == expected
