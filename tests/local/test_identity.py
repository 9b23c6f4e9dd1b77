"""Keys, fingerprints and transcripts."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from chat.core.errors import ChatError, RemoteProtocolError
from chat.local.identity import Identities, Identity, fingerprint, host_hash, load_host, transcript, verify
from tests.local.processes import mode, python, run_at_once

# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [Identity.load, load_host])
def test_a_key_is_made_once_and_is_private(tmp_path: Path, load: object) -> None:
    assert callable(load)
    path = tmp_path / "new" / "folders" / "key.pem"
    before = os.umask(0)
    try:
        identity = load(path)
    finally:
        os.umask(before)
    assert len(identity.key) == 32
    assert load(path).key == identity.key
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["key.pem"]


def test_two_keys_differ(tmp_path: Path) -> None:
    assert Identity.load(tmp_path / "a").key != Identity.load(tmp_path / "b").key


@pytest.mark.parametrize("load", ["Identity.load", "load_host"])
def test_processes_that_come_first_together_get_one_key(tmp_path: Path, load: str) -> None:
    code = f"""
from chat.local.identity import Identity, load_host
for n in range(20):
    print({load}(Path(sys.argv[1]) / f"{{n}}.pem").key.hex())
"""
    keys = run_at_once([python(code, tmp_path) for _ in range(3)])
    assert len(set(keys)) == 1
    assert len(set(keys[0].split())) == 20
    assert len(list(tmp_path.iterdir())) == 20


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my key.pem"
    Identity.load(path)
    for wrong in (0o640, 0o604, 0o660, 0o610):
        path.chmod(wrong)
        with pytest.raises(ChatError, match=re.escape(f"run: chmod 600 '{path}'")):
            Identity.load(path)
    path.chmod(0o400)
    Identity.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    Identity.load(path)
    os.chown(path, 4711, -1)
    with pytest.raises(ChatError, match="belongs to user 4711"):
        Identity.load(path)


def test_what_is_not_a_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo, link, folder = tmp_path / "fifo", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(fifo, 0o600)
    Identity.load(tmp_path / "key.pem")
    link.symlink_to(tmp_path / "key.pem")
    folder.mkdir(0o700)
    for path in (fifo, link, folder):
        with pytest.raises(ChatError, match=str(path)):
            Identity.load(path)


def test_each_nickname_has_a_key(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    own, bob, ming = identities.load(), identities.load("Bob"), identities.load("小明")
    assert len({own.key, bob.key, ming.key}) == 3
    assert own.key == Identity.load(tmp_path / "identity.pem").key
    assert identities.load("bob").key == identities.load("BOB").key == bob.key
    assert identities.load("\uff22\uff4f\uff42").key == bob.key  # NFKC, as the room has it
    assert identities.nicknames() == ["Bob", "小明"]
    assert mode(tmp_path / "identities") == 0o700
    assert {mode(path) for path in (tmp_path / "identities").iterdir()} == {0o600}


def test_a_key_is_replaced_and_the_one_before_is_kept(tmp_path: Path) -> None:
    identities, first, second = Identities(tmp_path), Identity.new(), Identity.new()
    for nick, name in (("", "identity.pem"), ("bob", "identities/bob.pem")):
        path = tmp_path / name
        assert identities.replace(first, nick) is None
        assert identities.load(nick).key == first.key
        assert identities.replace(first, nick.upper()) is None
        assert identities.replace(second, nick.upper()) == Path(f"{path}.replaced-1")
        assert identities.load(nick).key == second.key
        path.chmod(0o644)  # nobody can use it now: it is kept all the same
        assert identities.replace(first, nick) == Path(f"{path}.replaced-2")
        assert [Identity.load(kept).key for kept in (path, Path(f"{path}.replaced-1"))] == [first.key] * 2
        assert mode(path) == 0o600
    assert identities.nicknames() == ["bob"]
    assert identities.keys() == {first.key}


def test_keys_that_are_replaced_at_one_time_are_all_kept(tmp_path: Path) -> None:
    code = """
from chat.local.identity import Identities, Identity
for n in range(10):
    key = Identity.new()
    print(key.key.hex())
    Identities(Path(sys.argv[1])).replace(key)
"""
    made = "".join(run_at_once([python(code, tmp_path) for _ in range(3)])).split()
    kept = {Identity.load(path).key.hex() for path in tmp_path.glob("identity.pem*")}
    assert kept == set(made)
    assert len(kept) == 30


def test_a_file_system_may_write_accents_in_its_own_way(tmp_path: Path) -> None:
    key = Identities(tmp_path).load("jos\u00e9").key
    (tmp_path / "identities" / "jos\u00e9.pem").rename(tmp_path / "identities" / "jose\u0301.pem")
    assert Identities(tmp_path).load("jos\u00e9").key == Identities(tmp_path).load("JOS\u00c9").key == key


@pytest.mark.parametrize("nick", ["../identity", "..", ".bob", "a/b", "a\0b", "-bob", "a\nb", "x" * 70, "$(id)", " "])
def test_only_a_nickname_becomes_a_file(tmp_path: Path, nick: str) -> None:
    with pytest.raises(ValueError):
        Identities(tmp_path).load(nick)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_use_a_nickname_first_together_get_one_key(tmp_path: Path) -> None:
    code = """
from chat.local.identity import Identities
for n in range(20):
    print(Identities(Path(sys.argv[1])).load(sys.argv[2] + str(n)).key.hex())
"""
    keys = run_at_once([python(code, tmp_path, nick) for nick in ("bob", "Bob", "bOB")])
    assert len(set(keys)) == 1
    assert len(Identities(tmp_path).nicknames()) == 20


def test_every_key_that_can_be_read_is_an_owner(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    assert identities.keys() == {identities.load().key}
    keys = {identities.load(nick).key for nick in ("", "ann", "bob")}
    assert identities.keys() == keys
    keys.remove(identities.load("bob").key)
    (tmp_path / "identities" / "bob.pem").write_text("rubbish")
    assert identities.keys() == keys


# Well-formed, and of no use for signing (RFC 8410).
X25519_KEY = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n",
        X25519_KEY,
    ],
)
def test_a_damaged_key_is_told_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ChatError, match="holds no Ed25519 key"):
        Identity.load(path)
    assert path.read_bytes() == content


def test_a_host_file_without_its_certificate_is_told(tmp_path: Path) -> None:
    load_host(tmp_path / "host.pem")
    Identity.load(tmp_path / "key.pem")
    pem = (tmp_path / "host.pem").read_bytes()
    start = pem.index(b"-----BEGIN CERTIFICATE")
    for wrong in (pem[:start], (tmp_path / "key.pem").read_bytes() + pem[start:]):
        (tmp_path / "host.pem").write_bytes(wrong)
        with pytest.raises(ChatError, match="no certificate that fits"):
            load_host(tmp_path / "host.pem")


def test_the_host_file_serves_tls_13_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "host.pem"
    host = load_host(path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    here, there = socket.socketpair()
    here.settimeout(10)
    there.settimeout(10)

    def serve() -> None:
        with server.wrap_socket(there, server_side=True) as tls:
            tls.sendall(b"hello")

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        with client.wrap_socket(here) as tls:
            assert tls.version() == "TLSv1.3"
            shown = tls.getpeercert(binary_form=True)
            assert tls.recv(5) == b"hello"
        served.result(10)
    assert shown is not None
    certificate = x509.load_der_x509_certificate(shown)
    assert certificate.public_key().public_bytes_raw() == host.key  # type: ignore[union-attr]
    assert certificate.subject.rfc4514_string() == "CN=manywire host"
    assert certificate.not_valid_after_utc.year == 9999


def test_signatures(tmp_path: Path) -> None:
    ann, bob = Identity.load(tmp_path / "ann"), Identity.load(tmp_path / "bob")
    signature = ann.sign(b"words")
    assert len(signature) == 64
    assert verify(ann.key, signature, b"words")
    assert not verify(ann.key, signature, b"other words")
    assert not verify(bob.key, signature, b"words")
    assert not verify(ann.key, signature[:-1], b"words")


def test_verify_against_rfc_8032() -> None:
    # Section 7.1, test 2.
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert verify(key, signature, b"\x72")
    assert not verify(key, signature, b"\x73")


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=10))
def test_verify_never_raises(key: bytes, signature: bytes, data: bytes) -> None:
    assert verify(key, signature, data) is False


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_verify_never_raises_at_the_right_sizes(key: bytes, signature: bytes) -> None:
    verify(key, signature, b"data")


def test_fingerprints_are_the_hash() -> None:
    key = b"\x07" * 32
    assert host_hash(key) == hashlib.sha256(key).digest()
    assert re.fullmatch(r"SHA256:[0-9A-Za-z_-]{43}", fingerprint(key))
    assert fingerprint(key) != fingerprint(b"\x08" * 32)


# -- what is signed ------------------------------------------------------------------------------


def test_the_transcript_is_laid_out_as_documented() -> None:
    host, host_nonce, nonce, key = b"H" * 32, b"N" * 32, b"n" * 32, b"k" * 32
    data = transcript("member", host=host, room="tea", host_nonce=host_nonce, nonce=nonce, key=key)
    assert data == (
        b"manywire chat/2 handshake\0" + b"\x01" + hashlib.sha256(host).digest()
        + b"\x00\x03tea" + host_nonce + nonce + key
    )  # fmt: skip


fixed = st.binary(min_size=32, max_size=32) | st.sampled_from([b"a" * 32, b"b" * 32])
parts = st.tuples(st.sampled_from(["member", "host", "invite"]), fixed, st.text(max_size=40), fixed, fixed, fixed)


@given(parts, parts)
def test_no_two_handshakes_have_one_transcript(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    def said(p: tuple[str, ...]) -> bytes:
        return transcript(p[0], host=p[1], room=p[2], host_nonce=p[3], nonce=p[4], key=p[5])  # type: ignore[arg-type]

    assert (said(a) == said(b)) == (a == b)


@pytest.mark.parametrize("name", ["host", "host_nonce", "nonce", "key"])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_wrong_size_is_the_peers_fault(name: str, size: int) -> None:
    sizes = {"host": 32, "host_nonce": 32, "nonce": 32, "key": 32, name: size}
    values = {key: b"x" * length for key, length in sizes.items()}
    with pytest.raises(RemoteProtocolError, match=f" of {size} bytes"):
        transcript("member", room="tea", **values)
