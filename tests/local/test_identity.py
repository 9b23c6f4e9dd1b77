"""Keys, transcripts, invites and known hosts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from chat.core.errors import AddressError, ChatError, Refused, RemoteProtocolError
from chat.core.text import room_name
from chat.local.identity import Identity, fingerprint, host_hash, load_host, short, transcript, verify
from chat.local.invite import Invite
from chat.local.known_hosts import KnownHosts
from chat.transport import Address

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that waits for a line (so that many can start at once), then runs ``code``."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; from pathlib import Path; input()\n{code}",
            *map(str, arguments),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


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
    assert short(key) == hashlib.sha256(key).hexdigest()[:8]
    assert fingerprint(key) != fingerprint(b"\x08" * 32)


# -- what is signed ------------------------------------------------------------------------------


def test_the_transcript_is_laid_out_as_documented() -> None:
    host, host_nonce, nonce, key = b"H" * 32, b"N" * 32, b"n" * 32, b"k" * 32
    data = transcript("member", host=host, room="tea", host_nonce=host_nonce, nonce=nonce, key=key)
    assert data == (
        b"manywire chat/1 handshake\0" + b"\x01" + hashlib.sha256(host).digest()
        + b"\x00\x03tea" + host_nonce + nonce + key
    )  # fmt: skip


fixed = st.binary(min_size=32, max_size=32) | st.sampled_from([b"a" * 32, b"b" * 32])
parts = st.tuples(st.sampled_from(["member", "host"]), fixed, st.text(max_size=40), fixed, fixed, fixed)


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


# -- invites -------------------------------------------------------------------------------------


def room_ok(room: str) -> bool:
    try:
        return room_name(room) == room
    except ValueError:
        return False


HASH, SECRET = bytes(range(32)), bytes(range(100, 116))
INVITE = Invite((Address("tcp", "192.0.2.1:7711"),), "lobby", HASH, SECRET)

tcp_places = st.sampled_from(["192.0.2.1:7711", "[::1]:7711", "[2001:db8::1]", "chat.example", "memory", "1", "1:2"])
places = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="?"), max_size=12)
options = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=5), max_size=2)
addresses = (
    st.builds(Address, st.just("tcp"), tcp_places)
    | st.builds(Address, st.sampled_from(["tcp", "queue", "memory", "x7"]), places | tcp_places, options)
).filter(lambda address: Address.parse(str(address)) == address)
rooms = (
    st.text("ab9-_.", min_size=1, max_size=12)
    | st.text("äöüéñ", min_size=1, max_size=12)
    | st.text("小明部屋", min_size=1, max_size=9)
).filter(room_ok)


invites = st.builds(
    Invite,
    st.lists(addresses, min_size=1, max_size=4).map(tuple),
    rooms,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
)


@given(invites)
def test_an_invite_survives_being_written(invite: Invite) -> None:
    text = str(invite)
    assert Invite.parse(text) == invite
    assert Invite.parse(f"  {text}\n") == invite
    assert text.isprintable()
    assert " " not in text


def test_how_an_invite_looks() -> None:
    invite = Invite(
        (
            Address("tcp", "192.0.2.1:7711"),
            Address("tcp", "[::1]:7711"),
            Address("tcp", "127.0.0.1:4012", {"tls": "0"}),
            Address("queue", "/run/a,b#c"),
            Address("memory", "7711"),
            Address("memory"),
        ),
        "小明-1",
        b"\0" * 32,
        b"\xff" * 16,
    )
    assert str(invite) == (
        "chat://192.0.2.1:7711,[::1]:7711,tcp:127.0.0.1%3A4012%3Ftls%3D0,queue:%2Frun%2Fa%2Cb%23c,"
        f"memory:%37711,memory:/小明-1#{'A' * 43}.{'_' * 21}w"
    )


def test_an_invite_typed_by_hand() -> None:
    end = str(INVITE).partition("#")[2]
    invite = Invite.parse(f"CHAT://Example.org:7711/caf%C3%A9#{end}")
    assert invite.addresses == (Address("tcp", "Example.org:7711"),)
    assert invite.room == "café"


def test_any_cut_is_noticed_and_no_error_tells_the_secret() -> None:
    text = str(INVITE)
    secret = text.rpartition(".")[2]
    hashed = text.partition("#")[2].partition(".")[0]
    for end in range(len(text)):
        with pytest.raises(AddressError) as caught:
            Invite.parse(text[:end])
        assert_one_line_without(str(caught.value), secret)
    for start in range(1, len(text)):
        with pytest.raises(AddressError) as caught:
            Invite.parse(text[start:])
        assert_one_line_without(str(caught.value), secret)
    for wrong in (
        text + "x",
        text + text,
        text.replace("#", "%23"),
        text.replace("#", ""),
        text.replace("/lobby", ""),
        text.replace("lobby", "a b"),
        text.replace("lobby", "a/b"),
        text.replace("lobby", "%ff"),
        text.replace("192.0.2.1:7711", ""),
        text.replace("192.0.2.1:7711", "192.0.2.1:7711,"),
        text.replace("192.0.2.1:7711", "a:b:c d"),
        text.replace("192.0.2.1:7711", "queue:%ff"),
        text.replace(f".{secret}", f"{secret}."),
        text.replace(secret, "+" * 22),
        text.replace(secret, "é" * 22),
        text.replace(hashed, hashed[:20] + "*" + hashed[21:]),
        text[:-1] + ("B" if text[-1] != "B" else "C"),  # bits that no byte has
    ):
        with pytest.raises(AddressError) as caught:
            Invite.parse(wrong)
        assert_one_line_without(str(caught.value), secret)


def assert_one_line_without(message: str, secret: str) -> None:
    assert "\n" not in message
    assert all(secret[at : at + 6] not in message for at in range(len(secret) - 5))


@given(st.text(max_size=80))
def test_junk_is_an_address_error(text: str) -> None:
    for candidate in (
        text,
        f"chat://{text}",
        f"chat://h:1/{text}",
        f"chat://{text}/lobby#{'A' * 43}.{'A' * 22}",
    ):
        with suppress(AddressError):
            Invite.parse(candidate)


def test_errors_say_what_is_wrong() -> None:
    text = str(INVITE)
    for wrong, said in {
        "hello": "not an invite",
        text[:-3]: "secret has 19 characters in place of 22",
        text[: text.index("#")]: "no #",
        text[: text.index("#") + 11]: "hash of the host's key has 10 characters in place of 43",
        text.replace("/lobby", ""): "names no room",
        text.replace("192.0.2.1:7711", "192.0.2.1:7711,a:b:c d".replace(" ", "%00")): "address 2",
        text.replace("lobby", "lob\nby"): "line break",
        text.replace("lobby", "%ff"): "the room in the invite cannot be read",
        text.replace("192.0.2.1:7711", ""): "names no address",
    }.items():
        with pytest.raises(AddressError, match=re.escape(said)):
            Invite.parse(wrong)


def test_a_repr_keeps_the_secret() -> None:
    shown = repr(INVITE)
    assert "lobby" in shown
    assert repr(SECRET) not in shown
    assert str(INVITE).rpartition(".")[2] not in shown


def test_only_a_whole_invite_can_be_made() -> None:
    for change in ({"addresses": ()}, {"host": HASH[1:]}, {"secret": SECRET + b"x"}):
        with pytest.raises(ValueError, match="an invite has"):
            dataclasses.replace(INVITE, **change)


def test_the_mac_against_its_definition() -> None:
    # RFC 2104: H(K xor opad, H(K xor ipad, text)), for a key shorter than a block of 64 bytes.
    key = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + b"words").digest()
    assert INVITE.mac(b"words") == hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()
    assert INVITE.id == hashlib.sha256(SECRET).digest()[:8]


# -- known hosts ---------------------------------------------------------------------------------

KEY, OTHER = b"\x01" * 32, b"\x02" * 32
HERE, THERE = Address("tcp", "192.0.2.1:7711"), Address("tcp", "192.0.2.1:77")


def test_trust_on_first_use(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known_hosts"
    assert not KnownHosts(path).check(HERE, KEY, learn=False)
    assert not KnownHosts(path).check(HERE, KEY)
    assert KnownHosts(path).check(HERE, KEY)
    assert not KnownHosts(path).check(THERE, OTHER)
    assert KnownHosts(path).check(HERE, KEY)
    assert mode(path) == 0o600
    assert path.read_text() == f"{HERE} {fingerprint(KEY)}\n{THERE} {fingerprint(OTHER)}\n"


def test_a_changed_key_is_refused_until_its_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    hosts.check(THERE, KEY)
    hosts.check(HERE, KEY)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            hosts.check(HERE, OTHER)
        message = str(caught.value)
        assert caught.value.code == "host-key-changed"
        assert "\n" not in message
        for part in (str(HERE), fingerprint(KEY), fingerprint(OTHER), f"remove line 2 of {path}"):
            assert part in message
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1]))
    assert not hosts.check(HERE, OTHER)
    assert hosts.check(THERE, KEY)


def test_an_invite_replaces_what_was_known(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "known_hosts")
    assert not hosts.remember(HERE, KEY)
    assert hosts.check(HERE, KEY)
    assert not hosts.remember(HERE, KEY)
    assert hosts.remember(HERE, OTHER)
    assert hosts.check(HERE, OTHER)
    with pytest.raises(Refused):
        hosts.check(HERE, KEY)


def test_peoples_own_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# home\n\n{HERE} {fingerprint(KEY)}")
    path.chmod(0o600)
    hosts = KnownHosts(path)
    assert hosts.check(HERE, KEY)
    assert not hosts.check(THERE, KEY)
    assert path.read_text() == f"# home\n\n{HERE} {fingerprint(KEY)}\n{THERE} {fingerprint(KEY)}\n"


@pytest.mark.parametrize("damage", [b"\xff", b" ", b"\0", b"x" * 5])
def test_a_damaged_file_is_told_and_never_forgotten(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    hosts.check(THERE, KEY)
    hosts.check(HERE, KEY)
    content = path.read_bytes()[:-2] + damage + b"\n"
    path.write_bytes(content)
    for use in (hosts.check, hosts.remember):
        with pytest.raises(Refused, match=f"line 2 of {path}") as caught:
            use(HERE, OTHER)
        assert caught.value.code == "known-hosts-damaged"
    assert path.read_bytes() == content
    path.chmod(0o644)
    with pytest.raises(ChatError, match="chmod 600"):
        hosts.check(HERE, KEY)


def test_a_damaged_address_is_no_unknown_host(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    KnownHosts(path).check(HERE, KEY)
    path.write_bytes(path.read_bytes().replace(b"tcp", b"t\xffp"))
    with pytest.raises(Refused, match="line 1"):
        KnownHosts(path).check(HERE, OTHER)


@given(addresses | st.just(Address("queue", "/my files/a\nb")))
def test_any_address_makes_one_good_line(tmp_path_factory: pytest.TempPathFactory, address: Address) -> None:
    hosts = KnownHosts(tmp_path_factory.mktemp("known") / "hosts")
    assert not hosts.check(address, KEY)
    assert hosts.check(address, KEY)


def test_processes_at_one_time_forget_nothing(tmp_path: Path) -> None:
    code = """
from chat.local.known_hosts import KnownHosts
from chat.transport import Address
for port in range(20):
    KnownHosts(Path(sys.argv[1])).check(Address("tcp", f"192.0.2.{sys.argv[2]}:{port}"), bytes(32))
"""
    run_at_once([python(code, tmp_path / "known_hosts", n) for n in range(4)])
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(
        f"tcp:192.0.2.{n}:{port}" for n in range(4) for port in range(20)
    )
