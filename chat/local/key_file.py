"""A private key in a file that a passphrase protects, to take it to another machine.

    manywire key 1
    scrypt 17 8 1 SALT
    DATA
    end

SALT (16 random bytes) and DATA are hex digits. DATA is the private key (32 bytes) and the nickname (UTF-8) under
ChaCha20-Poly1305 (RFC 8439). Its key is scrypt (RFC 7914) of the passphrase (UTF-8, NFC) and SALT with N = 2**17,
r = 8, p = 1. That key encrypts nothing else, so the nonce is zero; whoever changes SALT changes the key.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from chat.core.errors import ChatError
from chat.local.identity import KEY_SIZE, Identity
from chat.local.private_files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

COST: Final = 17  # log2 of scrypt's N: each guess takes 128 MiB and about 0.3 s
MAX_MEMORY: Final = 256 * 1024 * 1024  # bytes that a key file may have scrypt take; more is an error (exit code 1)
MAX_FILE: Final = 4096  # bytes of a key file; a longer one is an error (exit code 1)

_FIRST: Final = "manywire key 1"
_PARTS: Final = re.compile(_FIRST + r"\nscrypt ([1-9][0-9]?) 8 1 ([0-9a-f]{32})\n((?:[0-9a-f]{2})+)\nend\n?")
_NONCE: Final = bytes(12)


def seal(identity: Identity, nick: str, passphrase: str, *, cost: int = COST) -> bytes:
    """Return the content of a key file."""
    salt = secrets.token_bytes(16)
    data = identity._private.private_bytes_raw() + nick.encode()
    sealed = ChaCha20Poly1305(_derive(passphrase, salt, cost)).encrypt(_NONCE, data, None)
    return f"{_FIRST}\nscrypt {cost} 8 1 {salt.hex()}\n{sealed.hex()}\nend\n".encode()


@dataclass(frozen=True)
class KeyFile:
    """What ``seal`` made, as far as it can be read without the passphrase."""

    path: Path
    cost: int
    salt: bytes
    data: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """Read a key file. Raises OSError; ChatError if it is none, is incomplete, or asks for too much memory."""
        text = read_regular(path, MAX_FILE)[1].decode("latin-1").replace("\r\n", "\n")
        if not text.startswith(_FIRST + "\n"):
            raise ChatError("{path} is no key file; chat id export writes one", path=path)
        if not (found := _PARTS.fullmatch(text)):
            raise ChatError("{path} is incomplete or damaged; copy it again from the other machine", path=path)
        cost = int(found[1])
        if (size := 128 * 8 << cost) > MAX_MEMORY:  # 128 * N * r (RFC 7914, section 6)
            raise ChatError(
                "{path} asks for {size} MiB of RAM; a key file may ask for {limit} MiB",
                path=path,
                size=size >> 20,
                limit=MAX_MEMORY >> 20,
            )
        return cls(path, cost, bytes.fromhex(found[2]), bytes.fromhex(found[3]))

    def open(self, passphrase: str) -> tuple[Identity, str]:
        """Return the key and its nickname. Raises ChatError if the passphrase is wrong, or the file was changed."""
        try:
            data = ChaCha20Poly1305(_derive(passphrase, self.salt, self.cost)).decrypt(_NONCE, self.data, None)
            return Identity(Ed25519PrivateKey.from_private_bytes(data[:KEY_SIZE])), data[KEY_SIZE:].decode()
        except (InvalidTag, ValueError):  # ValueError: somebody else's program made it, and wrongly
            raise ChatError("the passphrase is wrong, or {path} is damaged", path=self.path) from None


def _derive(passphrase: str, salt: bytes, cost: int) -> bytes:
    phrase = unicodedata.normalize("NFC", passphrase).encode()  # a Mac may type accents in another way
    return Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(phrase)
