"""Keys in files that a passphrase protects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat.core.errors import ChatError
from chat.local.identity import Identity
from chat.local.key_file import MAX_FILE, KeyFile, seal

if TYPE_CHECKING:
    from pathlib import Path

KEY = Identity.new()
SEALED = seal(KEY, "小明", "correct horse", cost=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.key"


def test_the_passphrase_gives_back_the_key_and_the_nickname(path: Path) -> None:
    path.write_bytes(SEALED)
    key, nick = KeyFile.read(path).open("correct horse")
    assert (key.key, nick) == (KEY.key, "小明")
    assert key.sign(b"x") == KEY.sign(b"x")
    path.write_bytes(SEALED.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))  # as a mail program may pass it on
    assert KeyFile.read(path).open("correct horse")[0].key == KEY.key


def test_nothing_of_the_key_stands_in_the_file_and_no_two_files_are_alike() -> None:
    assert seal(KEY, "小明", "correct horse", cost=1) != SEALED
    secret = KEY._private.private_bytes_raw()
    assert secret.hex().encode() not in SEALED
    assert KEY.key.hex().encode() not in SEALED


def test_a_passphrase_may_be_typed_in_another_way_but_must_be_right(path: Path) -> None:
    path.write_bytes(seal(KEY, "ann", "jos\u00e9 x", cost=1))
    assert KeyFile.read(path).open("jose\u0301 x")[0].key == KEY.key
    for wrong in ("", "jos\u00e9 x ", "JOS\u00c9 x"):
        with pytest.raises(ChatError, match=f"the passphrase is wrong, or {re.escape(str(path))} is damaged"):
            KeyFile.read(path).open(wrong)


def test_a_file_that_ends_early_is_seen_before_anybody_is_asked(path: Path) -> None:
    for size in range(len(SEALED) - 1):
        path.write_bytes(SEALED[:size])
        with pytest.raises(ChatError, match="is no key file" if size < 15 else "is incomplete or damaged"):
            KeyFile.read(path)
    path.write_bytes(SEALED[:-1])  # but for the last line break, all of it
    assert KeyFile.read(path).open("correct horse")[0].key == KEY.key


def test_a_changed_byte_is_never_taken_for_a_key(path: Path) -> None:
    for at in range(len(SEALED) - 1):
        path.write_bytes(SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :])
        with pytest.raises(ChatError):
            KeyFile.read(path).open("correct horse")


@pytest.mark.parametrize("cost", [19, 30, 99])
def test_a_file_cannot_ask_for_more_memory_than_we_want_to_give(path: Path, cost: int) -> None:
    path.write_bytes(SEALED.replace(b"scrypt 1 ", b"scrypt %d " % cost))
    with pytest.raises(ChatError, match=re.escape(f"{path} asks for {2**cost // 1024} MiB of RAM; ")):
        KeyFile.read(path)


@pytest.mark.parametrize("others", [b"1 16 1", b"1 8 2", b"100 8 1", b"-1 8 1", b"0 8 1"])
def test_nor_in_other_words(path: Path, others: bytes) -> None:
    path.write_bytes(SEALED.replace(b"1 8 1", others))
    with pytest.raises(ChatError, match="is incomplete or damaged"):
        KeyFile.read(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff" * 99, b"-----BEGIN PRIVATE KEY-----", SEALED[1:]])
def test_other_files_are_named_as_such(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ChatError, match="is no key file; chat id export writes one"):
        KeyFile.read(path)


def test_no_more_than_a_key_file_is_read(path: Path) -> None:
    path.write_bytes(SEALED.replace(b"\nend", b"00" * MAX_FILE + b"\nend"))
    with pytest.raises(ChatError, match="is incomplete or damaged"):
        KeyFile.read(path)


def test_what_another_program_sealed_wrongly_is_no_crash(path: Path) -> None:
    short = Identity.new()
    short._private = type("", (), {"private_bytes_raw": lambda _self: b"short"})()
    path.write_bytes(seal(short, "", "x", cost=1))
    with pytest.raises(ChatError, match="is damaged"):
        KeyFile.read(path).open("x")
