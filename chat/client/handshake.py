"""The handshake, from the member's side: does the host hold the key that we expect, and here is ours.

Rules:

1. A host whose key is not the expected one gets nothing from us: not our key, not a beat.
2. A key is remembered only after the host has proved that it holds it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chat.core.errors import OtherHost, RemoteProtocolError, Untrusted
from chat.local.identity import fingerprint, host_hash, transcript, verify

if TYPE_CHECKING:
    from chat.client.target import Target
    from chat.core.session import Challenged
    from chat.local.identity import Identity
    from chat.local.known_hosts import KnownHosts
    from chat.transport import Address


@dataclass
class Handshake:
    """One for each link. ``key`` is the host's, if the transport proves one (TLS), else b"" until the host shows it."""

    identity: Identity
    known_hosts: KnownHosts
    target: Target
    address: Address
    key: bytes
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    host_nonce: bytes = b""

    def __post_init__(self) -> None:
        if self.key:
            self._expect(self.key)

    def hello(self, challenge: Challenged) -> dict[str, bytes]:
        """Return the fields of HELLO that prove who we are and that we were invited. Raises Untrusted."""
        if self.key not in (b"", challenge.key):
            raise RemoteProtocolError("the host names another key than the one its wire has proved")
        self._expect(challenge.key)
        self.key, self.host_nonce = challenge.key, challenge.nonce
        signer = self.target.invite.signer if self.target.invite else None
        return {
            "nonce": self.nonce,
            "signature": self.identity.sign(self._transcript("member")),
            "invite": signer.key if signer else b"",
            "invite_proof": signer.sign(self._transcript("invite")) if signer else b"",
        }

    def _expect(self, key: bytes) -> None:
        """Raise Untrusted if this is not the key of the host that we mean."""
        if not self.target.host:
            self.known_hosts.check(self.address, key, learn=False)
        elif host_hash(key) != self.target.host:
            raise OtherHost("other-host", address=self.address, shown=fingerprint(key))

    def check(self, proof: bytes) -> None:
        """Raise Untrusted if the host does not hold its key."""
        if not verify(self.key, proof, self._transcript("host")):
            raise Untrusted("host-proof", address=self.address)

    def _transcript(self, role: str) -> bytes:
        return transcript(
            role,
            host=self.key,
            room=self.target.room,
            host_nonce=self.host_nonce,
            nonce=self.nonce,
            key=self.identity.key,
        )
